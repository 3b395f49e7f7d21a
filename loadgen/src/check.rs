//! What must come back to one session: every request answered exactly once and in order, no order
//! filled beyond its quantity or at a worse price, no order lost.
//!
//! The same model runs on every reply as it comes, and over a record of them afterwards. What the
//! reports of all sessions must say together is for [`crate::trades`].

use crate::meflow::Fill;
use std::collections::{BTreeMap, HashMap, VecDeque};
use vendue_wire::client::Received;
use vendue_wire::code::{OrderType, Reject, Side, TimeInForce};
use vendue_wire::message::{Accepted, Body, Cancelled, Filled, NewOrder, Refused, Rejected};

/// What a reply did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A second answer.
    #[error("request {request} was answered twice")]
    Doubled {
        /// The request.
        request: u64,
    },
    /// An answer to nothing.
    #[error("an answer names request {request}, which was never sent")]
    NeverAsked {
        /// The number named.
        request: u64,
    },
    /// The core answers in order, so the earlier answer is missing or late.
    #[error("request {request} was answered while {waiting}, sent before it, still waits")]
    OutOfOrder {
        /// The request answered.
        request: u64,
        /// The oldest one not answered.
        waiting: u64,
    },
    /// An answer of a kind that this request cannot have, or that names other terms than it did.
    #[error("the answer of kind {kind:#04x} to request {request} does not fit what was asked")]
    Mismatch {
        /// The request.
        request: u64,
        /// Kind of the answer.
        kind: u8,
    },
    /// A fill or a cancel of an order that is not open: doubled, or beyond its quantity.
    #[error("a report of kind {kind:#04x} names order {client_id}, which is not open")]
    NotOpen {
        /// The order.
        client_id: u64,
        /// Kind of the report.
        kind: u8,
    },
    /// More, or less, is left of an order than it should be.
    #[error("order {client_id} had {open} open; a report of {change} leaves {left}")]
    Quantity {
        /// The order.
        client_id: u64,
        /// Open before.
        open: u32,
        /// Filled or cancelled.
        change: u32,
        /// Open now, as reported.
        left: u32,
    },
    /// A fill worse than the order's limit.
    #[error("order {client_id} traded at {price_ticks}, worse than its limit of {limit_ticks}")]
    WorsePrice {
        /// The order.
        client_id: u64,
        /// Price of the fill in ticks.
        price_ticks: u32,
        /// The order's limit in ticks.
        limit_ticks: u32,
    },
    /// The daemon no longer knows an order that it never reported gone.
    #[error("order {client_id} is unknown to the daemon, though it never reported its end")]
    Lost {
        /// The order.
        client_id: u64,
    },
    /// Replies that never came.
    #[error("{count} requests were never answered, the first of them {first}")]
    Missing {
        /// How many.
        count: usize,
        /// The first one's sequence.
        first: u64,
    },
    /// Orders that survived their cancels.
    #[error("{count} orders are still open after all were cancelled, one of them {client_id}")]
    StillOpen {
        /// How many.
        count: usize,
        /// One of them.
        client_id: u64,
    },
    /// The session's reports have a gap.
    #[error("report {got} came where {expected} was due")]
    Gap {
        /// Sequence due.
        expected: u64,
        /// Sequence that came.
        got: u64,
    },
    /// A resting order trades at its own limit, whoever comes.
    #[error("resting order {client_id} at {limit_ticks} traded at {price_ticks}")]
    MakerPrice {
        /// The order.
        client_id: u64,
        /// Price of the fill in ticks.
        price_ticks: u32,
        /// The order's limit in ticks.
        limit_ticks: u32,
    },
    /// A flow from a file must be executed whole.
    #[error(
        "order or cancel {client_id} of the flow was refused: {reason}; the daemon's bounds must \
         fit the flow, and its throttle the rate"
    )]
    FlowRefused {
        /// The order.
        client_id: u64,
        /// Why, in the daemon's words.
        reason: String,
    },
    /// A fill that a right engine does not make of the flow.
    #[error("the daemon filled {got:?}; by the flow {wanted:?} was due")]
    FlowFill {
        /// What is due next, if anything is.
        wanted: Option<Fill>,
        /// What was reported.
        got: Fill,
    },
    /// Fills of the flow that were never reported.
    #[error("{count} fills of the flow were never reported, the first of them {first:?}")]
    FlowFillsMissing {
        /// How many.
        count: usize,
        /// The first.
        first: Fill,
    },
    /// The two reports of a trade do not fit each other.
    #[error("the two reports of trade {trade} differ in {what}")]
    TradeDiffers {
        /// The trade.
        trade: u64,
        /// In what.
        what: &'static str,
    },
    /// Both parties are sessions of the run, but only one was told.
    #[error("only one party of trade {trade} was told of it")]
    TradeHalfTold {
        /// The trade.
        trade: u64,
    },
    /// Price first, then time.
    #[error("trade {trade} passed over the order with handle {handle:#x}, which came before")]
    PassedOver {
        /// The trade.
        trade: u64,
        /// Handle of the order that should have traded.
        handle: u64,
    },
    /// A frame that nothing here asks for.
    #[error("a frame of kind {kind:#04x} came unasked")]
    Unasked {
        /// Its kind.
        kind: u8,
    },
}

/// A limit order, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its id.
    pub client_id: u64,
    /// Instance it trades for.
    pub instance: u32,
    /// Book.
    pub book: u16,
    /// Side.
    pub side: Side,
    /// Limit in ticks.
    pub price_ticks: u32,
    /// Credits.
    pub quantity: u32,
    /// What is not matched at once rests.
    pub rests: bool,
}

impl Terms {
    /// The request that asks for it.
    pub fn request(&self) -> NewOrder {
        let force = if self.rests { TimeInForce::Gtc } else { TimeInForce::Ioc };
        NewOrder {
            client_id: self.client_id.into(),
            instance: self.instance.into(),
            price_ticks: self.price_ticks.into(),
            quantity: self.quantity.into(),
            book: self.book.into(),
            side: self.side as u8,
            order_type: OrderType::Limit as u8,
            time_in_force: force as u8,
            ..NewOrder::zeroed()
        }
    }

    /// What a request asks for; `None` if it is of no kind that loadgen sends.
    pub fn of(request: &NewOrder) -> Option<Terms> {
        let rests = request.time_in_force == TimeInForce::Gtc as u8;
        let terms = Terms {
            client_id: request.client_id.get(),
            instance: request.instance.get(),
            book: request.book.get(),
            side: Side::from_u8(request.side)?,
            price_ticks: request.price_ticks.get(),
            quantity: request.quantity.get(),
            rests,
        };
        (terms.request() == *request).then_some(terms)
    }
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A new order.
    Order(Terms),
    /// The cancel of an order.
    Cancel {
        /// Its handle.
        handle: u64,
        /// Sent after the run to leave nothing behind: neither counted nor timed.
        closing: bool,
    },
}

impl Asked {
    fn rests(self) -> bool {
        matches!(self, Asked::Order(Terms { rests: true, .. }))
    }
}

#[derive(Clone, Copy, Debug)]
struct Request {
    sequence: u64,
    asked: Asked,
    intended_ns: u64,
    answered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Order {
    terms: Terms,
    handle: u64,
    open: u32,
    /// Position in `cancellable`, if there.
    position: Option<usize>,
}

/// What was counted. Maps go from code to number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Orders sent.
    pub orders: u64,
    /// Cancels sent.
    pub cancels: u64,
    /// Orders accepted.
    pub accepted: u64,
    /// Orders, or rests of them, cancelled for whatever reason.
    pub cancelled: u64,
    /// Fill reports: two a trade, if both parties are sessions of this run.
    pub fills: u64,
    /// Fills of orders that came in rather than rested: one a trade.
    pub trades: u64,
    /// Credits in those.
    pub credits_traded: u64,
    /// Requests the core refused.
    pub rejected: BTreeMap<u8, u64>,
    /// Requests refused before the core.
    pub refused: BTreeMap<u8, u64>,
}

impl Counts {
    /// Adds `other`'s.
    pub fn add(&mut self, other: &Counts) {
        self.orders += other.orders;
        self.cancels += other.cancels;
        self.accepted += other.accepted;
        self.cancelled += other.cancelled;
        self.fills += other.fills;
        self.trades += other.trades;
        self.credits_traded += other.credits_traded;
        for (mine, theirs) in
            [(&mut self.rejected, &other.rejected), (&mut self.refused, &other.refused)]
        {
            for (code, count) in theirs {
                *mine.entry(*code).or_default() += count;
            }
        }
    }
}

/// A request that has its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it asked.
    pub asked: Asked,
    /// When it was due, nanoseconds from the start.
    pub intended_ns: u64,
}

/// One session's requests and orders.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    /// In order of sequence; answered ones leave from the front.
    requests: VecDeque<Request>,
    unanswered: usize,
    /// Orders among those that are to rest.
    unanswered_resting: usize,
    last_sent: u64,
    orders: HashMap<u64, Order>,
    /// Id of each open order by its handle.
    handles: HashMap<u64, u64>,
    /// Ids of resting orders that no cancel was sent for.
    cancellable: Vec<u64>,
    /// What was counted so far.
    pub counts: Counts,
}

impl Checker {
    /// Requests not answered yet.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Orders open, as far as reported.
    pub fn open(&self) -> usize {
        self.orders.len()
    }

    /// Orders that rest, or will if they are accepted.
    pub fn resting_at_most(&self) -> usize {
        self.orders.len() + self.unanswered_resting
    }

    /// Resting orders that could be cancelled.
    pub fn cancellable(&self) -> usize {
        self.cancellable.len()
    }

    /// The handle of the resting order at `pick` modulo their number, to cancel it.
    pub fn pick(&self, pick: u64) -> Option<u64> {
        let count = self.cancellable.len() as u64;
        let client_id = self.cancellable[usize::try_from(pick.checked_rem(count)?).ok()?];
        self.handle_of(client_id)
    }

    /// The handle of an open order.
    pub fn handle_of(&self, client_id: u64) -> Option<u64> {
        self.orders.get(&client_id).map(|order| order.handle)
    }

    /// True if the core's answer to an order is still to come.
    pub fn awaits(&self, client_id: u64) -> bool {
        let same = |asked| matches!(asked, Asked::Order(terms) if terms.client_id == client_id);
        self.requests.iter().any(|request| !request.answered && same(request.asked))
    }

    /// True if a request may have this sequence: one above the last.
    pub fn may_send(&self, sequence: u64) -> bool {
        sequence > self.last_sent
    }

    /// A request was sent.
    pub fn sent(&mut self, sequence: u64, asked: Asked, intended_ns: u64) {
        assert!(self.may_send(sequence), "requests are numbered upwards");
        match asked {
            Asked::Order(_) => self.counts.orders += 1,
            Asked::Cancel { handle, closing } => {
                self.counts.cancels += u64::from(!closing);
                if let Some(&client_id) = self.handles.get(&handle) {
                    self.not_cancellable(client_id);
                }
            }
        }
        self.last_sent = sequence;
        self.unanswered_resting += usize::from(asked.rests());
        self.unanswered += 1;
        self.requests.push_back(Request { sequence, asked, intended_ns, answered: false });
    }

    /// A frame came. The answer, if it is one.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn received(&mut self, frame: &Received) -> Result<Option<Answer>, Violation> {
        if let Some(m) = frame.message() {
            return self.accepted(m).map(Some);
        }
        if let Some(m) = frame.message() {
            return self.filled(m).map(|()| None);
        }
        if let Some(m) = frame.message() {
            return self.cancelled(m);
        }
        if let Some(m) = frame.message() {
            return self.rejected(m).map(Some);
        }
        if let Some(m) = frame.message() {
            return self.refused(m).map(Some);
        }
        Err(Violation::Unasked { kind: frame.kind() })
    }

    fn accepted(&mut self, m: &Accepted) -> Result<Answer, Violation> {
        let request = m.request.get();
        let answer = self.answer(request, true)?;
        let mismatch = Err(Violation::Mismatch { request, kind: Accepted::KIND });
        let Asked::Order(terms) = answer.asked else { return mismatch };
        let said = Terms {
            client_id: m.client_id.get(),
            instance: m.instance.get(),
            book: m.book.get(),
            side: Side::from_u8(m.side).unwrap_or(terms.side.opposite()),
            price_ticks: m.price_ticks.get(),
            quantity: m.quantity.get(),
            rests: terms.rests,
        };
        let (client_id, handle) = (terms.client_id, m.handle.get());
        if said != terms || self.handles.insert(handle, client_id).is_some() {
            return mismatch;
        }
        let position = terms.rests.then_some(self.cancellable.len());
        if terms.rests {
            self.cancellable.push(client_id);
        }
        self.orders.insert(client_id, Order { terms, handle, open: terms.quantity, position });
        self.counts.accepted += 1;
        Ok(answer)
    }

    fn filled(&mut self, m: &Filled) -> Result<(), Violation> {
        let client_id = m.client_id.get();
        let order = self.open_order(client_id, m.handle.get(), Filled::KIND)?;
        let own = (order.terms.instance, order.terms.book, order.terms.side as u8);
        if own != (m.instance.get(), m.book.get(), m.side) {
            return Err(Violation::NotOpen { client_id, kind: Filled::KIND });
        }
        let (quantity, left) = (m.quantity.get(), m.remaining.get());
        if quantity == 0 || order.open.checked_sub(quantity) != Some(left) {
            let open = order.open;
            return Err(Violation::Quantity { client_id, open, change: quantity, left });
        }
        let (price_ticks, limit_ticks) = (m.price_ticks.get(), order.terms.price_ticks);
        let worse = match order.terms.side {
            Side::Buy => price_ticks > limit_ticks,
            Side::Sell => price_ticks < limit_ticks,
        };
        if worse {
            return Err(Violation::WorsePrice { client_id, price_ticks, limit_ticks });
        }
        if m.maker == 1 && price_ticks != limit_ticks {
            return Err(Violation::MakerPrice { client_id, price_ticks, limit_ticks });
        }
        order.open = left;
        if left == 0 {
            self.close(client_id);
        }
        self.counts.fills += 1;
        if m.maker == 0 {
            self.counts.trades += 1;
            self.counts.credits_traded += u64::from(quantity);
        }
        Ok(())
    }

    fn cancelled(&mut self, m: &Cancelled) -> Result<Option<Answer>, Violation> {
        let (client_id, handle, request) = (m.client_id.get(), m.handle.get(), m.request.get());
        let order = self.open_order(client_id, handle, Cancelled::KIND)?;
        if order.open != m.quantity.get() {
            let (open, change) = (order.open, m.quantity.get());
            return Err(Violation::Quantity { client_id, open, change, left: 0 });
        }
        self.close(client_id);
        self.counts.cancelled += 1;
        // The request may also be an order whose rest was not matched.
        let cause = self.position(request).map(|at| self.requests[at]);
        match cause.map(|cause| cause.asked) {
            Some(Asked::Cancel { handle: asked, .. }) if asked == handle => {
                self.answer(request, true).map(Some)
            }
            Some(Asked::Cancel { .. }) => {
                Err(Violation::Mismatch { request, kind: Cancelled::KIND })
            }
            Some(Asked::Order(_)) => Ok(None),
            None if request <= self.last_sent => Ok(None),
            None => Err(Violation::NeverAsked { request }),
        }
    }

    fn rejected(&mut self, m: &Rejected) -> Result<Answer, Violation> {
        let answer = self.answer(m.request.get(), true)?;
        *self.counts.rejected.entry(m.code).or_default() += 1;
        if let Asked::Cancel { handle, .. } = answer.asked
            && m.code == Reject::UnknownOrder as u8
            && let Some(&client_id) = self.handles.get(&handle)
        {
            return Err(Violation::Lost { client_id });
        }
        Ok(answer)
    }

    fn refused(&mut self, m: &Refused) -> Result<Answer, Violation> {
        // The gateway refuses at once, ahead of what the core has still to answer.
        let answer = self.answer(m.request.get(), false)?;
        *self.counts.refused.entry(m.code).or_default() += 1;
        if let Asked::Cancel { handle, .. } = answer.asked
            && let Some(&client_id) = self.handles.get(&handle)
        {
            self.cancellable_again(client_id);
        }
        Ok(answer)
    }

    /// Marks a request answered. The core's answers come in the order of the requests.
    fn answer(&mut self, request: u64, in_order: bool) -> Result<Answer, Violation> {
        let Some(at) = self.position(request) else {
            // What is not among the kept ones was answered, or was no request.
            let known = request <= self.last_sent;
            return Err(if known {
                Violation::Doubled { request }
            } else {
                Violation::NeverAsked { request }
            });
        };
        if self.requests[at].answered {
            return Err(Violation::Doubled { request });
        }
        // The front one always waits, or it would have left.
        if in_order && let Some(waiting) = self.requests.iter().take(at).find(|r| !r.answered) {
            return Err(Violation::OutOfOrder { request, waiting: waiting.sequence });
        }
        self.requests[at].answered = true;
        self.unanswered -= 1;
        let Request { asked, intended_ns, .. } = self.requests[at];
        self.unanswered_resting -= usize::from(asked.rests());
        while self.requests.front().is_some_and(|request| request.answered) {
            self.requests.pop_front();
        }
        Ok(Answer { asked, intended_ns })
    }

    fn position(&self, sequence: u64) -> Option<usize> {
        self.requests.binary_search_by_key(&sequence, |request| request.sequence).ok()
    }

    fn open_order(
        &mut self,
        client_id: u64,
        handle: u64,
        kind: u8,
    ) -> Result<&mut Order, Violation> {
        self.orders
            .get_mut(&client_id)
            .filter(|order| order.handle == handle)
            .ok_or(Violation::NotOpen { client_id, kind })
    }

    fn close(&mut self, client_id: u64) {
        self.not_cancellable(client_id);
        if let Some(order) = self.orders.remove(&client_id) {
            self.handles.remove(&order.handle);
        }
    }

    fn not_cancellable(&mut self, client_id: u64) {
        let order = self.orders.get_mut(&client_id);
        let Some(position) = order.and_then(|order| order.position.take()) else { return };
        self.cancellable.swap_remove(position);
        if let Some(moved) = self.cancellable.get(position) {
            let moved = self.orders.get_mut(moved).expect("what can be cancelled is open");
            moved.position = Some(position);
        }
    }

    /// A cancel that was refused may be tried again, if the order is still there.
    fn cancellable_again(&mut self, client_id: u64) {
        if let Some(order) = self.orders.get_mut(&client_id)
            && order.position.is_none()
        {
            order.position = Some(self.cancellable.len());
            self.cancellable.push(client_id);
        }
    }

    /// Nothing may be unanswered any more.
    ///
    /// # Errors
    /// [`Violation::Missing`].
    pub fn check_all_answered(&self) -> Result<(), Violation> {
        match self.requests.front() {
            None => Ok(()),
            Some(first) => {
                Err(Violation::Missing { count: self.unanswered, first: first.sequence })
            }
        }
    }

    /// Nothing may be open any more.
    ///
    /// # Errors
    /// [`Violation::StillOpen`].
    pub fn check_none_open(&self) -> Result<(), Violation> {
        match self.orders.keys().min() {
            None => Ok(()),
            Some(&client_id) => Err(Violation::StillOpen { count: self.orders.len(), client_id }),
        }
    }
}

#[cfg(test)]
mod tests;
