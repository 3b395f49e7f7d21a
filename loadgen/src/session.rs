//! One session under load: what it asks next, and what it does with what comes back.

use crate::check::{Answer, Asked, Checker, Terms, Violation};
use crate::meflow::oracle::Oracle;
use crate::meflow::{self, BUY, CANCEL, Fill, Totals};
use crate::profile::Profile;
use crate::record::{CLOSING, RecordError, Recorder};
use crate::setup::{FlowBook, Seat};
use crate::steps::{Flow, Step};
use std::collections::VecDeque;
use std::time::Instant;
use vendue_wire::client::{Client, ClientError, Received};
use vendue_wire::code::{Reject, Side};
use vendue_wire::message::{Accepted, Body, Cancel, Filled, Refused, Rejected};

/// Why a session stops.
#[derive(Debug)]
pub enum Stop {
    /// A reply was wrong.
    Check(Violation),
    /// The connection is over.
    Client(ClientError),
    /// The record cannot be written.
    Record(RecordError),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Stop {
        Stop::Check(violation)
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Stop {
        match error {
            ClientError::Gap { expected, got } => Stop::Check(Violation::Gap { expected, got }),
            error => Stop::Client(error),
        }
    }
}

impl From<RecordError> for Stop {
    fn from(error: RecordError) -> Stop {
        Stop::Record(error)
    }
}

/// Where a session's requests come from.
#[derive(Debug)]
pub enum Source<'a> {
    /// Nowhere: it only stays connected.
    Nothing,
    /// Drawn as its profile says.
    Drawn {
        /// The generator.
        flow: Box<Flow>,
        /// Whom it trades for.
        seat: Seat,
        /// Book.
        book: u16,
        /// Its turn among the sessions that ask, and how many those are.
        turn: (u64, u64),
    },
    /// Its books' part of a file.
    File(Box<FilePart<'a>>),
}

/// A session's part of a flow file: the books that are its own, in the file's order.
#[derive(Debug)]
pub struct FilePart<'a> {
    flow: &'a meflow::Flow,
    books: &'a [FlowBook],
    /// Its number, and the number of sessions.
    share: (usize, usize),
    /// Index of its next record.
    at: usize,
    /// Index of the first record not to be sent yet.
    end: usize,
    /// What must come of the records sent.
    oracle: Oracle,
    /// Fills that were not reported yet.
    due: VecDeque<Fill>,
    /// Trade and id of the maker's half of a fill whose other half is to come.
    maker: Option<(u64, u32)>,
    /// Fills reported.
    pub totals: Totals,
}

impl<'a> FilePart<'a> {
    /// The part of session `share.0` of `share.1`.
    pub fn new(
        flow: &'a meflow::Flow,
        books: &'a [FlowBook],
        share: (usize, usize),
    ) -> FilePart<'a> {
        let oracle = Oracle::new(flow.books);
        let (due, maker, totals) = (VecDeque::new(), None, Totals::default());
        let mut part = FilePart { flow, books, share, at: 0, end: 0, oracle, due, maker, totals };
        part.skip_others();
        part
    }

    fn skip_others(&mut self) {
        let (own, all) = self.share;
        let others = self.flow.records[self.at..].iter();
        self.at += others.take_while(|record| usize::from(record.book) % all != own).count();
    }

    /// The next request; `None` if its order's handle has not come yet.
    fn ask(&self, checker: &Checker) -> Result<Option<Asked>, Violation> {
        let record = &self.flow.records[self.at];
        let client_id = u64::from(record.id);
        if record.kind == CANCEL {
            let reason = || "its order is gone".to_owned();
            return match checker.handle_of(client_id) {
                Some(handle) => Ok(Some(Asked::Cancel { handle, closing: false })),
                None if checker.awaits(client_id) => Ok(None),
                None => Err(Violation::FlowRefused { client_id, reason: reason() }),
            };
        }
        let place = &self.books[usize::from(record.book)];
        let (side, instance) =
            if record.side == BUY { (Side::Buy, place.buyer) } else { (Side::Sell, place.seller) };
        Ok(Some(Asked::Order(Terms {
            client_id,
            instance,
            book: place.book,
            side,
            price_ticks: record.price.into(),
            quantity: record.quantity,
            rests: true,
        })))
    }

    /// The request was sent: what must come of it is due from now on.
    fn sent(&mut self) {
        let record = &self.flow.records[self.at];
        self.oracle.apply(record).expect("the flow was checked when it was read");
        if record.kind != CANCEL {
            self.due.extend(&self.oracle.fills);
        }
        self.at += 1;
        self.skip_others();
    }

    fn received(&mut self, frame: &Received) -> Result<(), Violation> {
        let refused = |client_id, code| {
            let reason = Reject::from_u8(code).map_or(format!("code {code}"), |r| r.to_string());
            Err(Violation::FlowRefused { client_id, reason })
        };
        if let Some(m) = frame.message::<Rejected>() {
            return refused(m.client_id.get(), m.code);
        }
        if let Some(m) = frame.message::<Refused>() {
            return refused(m.request.get(), m.code);
        }
        let Some(m) = frame.message::<Filled>() else { return Ok(()) };
        let (trade, id) = (m.trade.get(), m.client_id.get() as u32);
        if m.maker == 1 {
            self.maker = Some((trade, id));
            return Ok(());
        }
        let maker = self.maker.take().filter(|half| half.0 == trade).map_or(0, |half| half.1);
        let price = m.price_ticks.get() as u16;
        let got = Fill { taker: id, maker, price, quantity: m.quantity.get() };
        let wanted = self.due.pop_front();
        if wanted != Some(got) {
            return Err(Violation::FlowFill { wanted, got });
        }
        self.totals.count(got);
        Ok(())
    }
}

/// A session.
#[derive(Debug)]
pub struct Session<'a> {
    /// Its number in the run.
    pub number: usize,
    /// How it behaves.
    pub profile: Profile,
    /// Its connection.
    pub client: Client,
    /// Its model.
    pub checker: Checker,
    /// Where its requests come from.
    pub source: Source<'a>,
    /// Accounts its buys and its sells are for.
    pub accounts: [u32; 2],
    /// Where every frame is written down, if anywhere.
    pub recorder: Option<&'a Recorder>,
    /// A request that there was no room for.
    pub held: Option<Asked>,
    /// Requests sent from its source.
    pub steps: u64,
}

impl<'a> Session<'a> {
    /// A session just logged on.
    pub fn new(
        number: usize,
        profile: Profile,
        client: Client,
        source: Source<'a>,
        accounts: [u32; 2],
        recorder: Option<&'a Recorder>,
    ) -> Session<'a> {
        let checker = Checker::default();
        let (held, steps) = (None, 0);
        Session { number, profile, client, checker, source, accounts, recorder, held, steps }
    }

    /// The turn of the next request in the schedule; `None` if there is none.
    pub fn turn(&self) -> Option<u64> {
        match &self.source {
            Source::Nothing => None,
            Source::Drawn { turn: (own, all), .. } => Some(self.steps * all + own),
            Source::File(part) if part.at >= part.end => None,
            Source::File(part) => Some(part.at.saturating_sub(part.flow.prefill) as u64),
        }
    }

    /// Lets a flow file's part go on up to record `end`.
    pub fn go_on_to(&mut self, end: usize) {
        if let Source::File(part) = &mut self.source {
            part.end = end;
        }
    }

    fn draw(&mut self) -> Result<Option<Asked>, Violation> {
        match &mut self.source {
            Source::Nothing => Ok(None),
            Source::File(part) => part.ask(&self.checker),
            Source::Drawn { flow, seat, book, .. } => {
                let (resting, cancellable) =
                    (self.checker.resting_at_most(), self.checker.cancellable());
                Ok(Some(match flow.next(resting, cancellable) {
                    Step::Cancel { pick } => {
                        let Some(handle) = self.checker.pick(pick) else {
                            unreachable!("a cancel is chosen only if something can be cancelled")
                        };
                        Asked::Cancel { handle, closing: false }
                    }
                    Step::Order { side, price_ticks, quantity, rests } => Asked::Order(Terms {
                        client_id: self.client.next_client_id(),
                        instance: seat.instance,
                        book: *book,
                        side,
                        price_ticks,
                        quantity,
                        rests,
                    }),
                }))
            }
        }
    }

    /// Sends the next request; false if it cannot be sent now.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn send_next(&mut self, now_ns: u64, due_ns: u64) -> Result<bool, Stop> {
        let asked = match self.held.take() {
            Some(asked) => asked,
            None => match self.draw()? {
                Some(asked) => asked,
                None => return Ok(false),
            },
        };
        if !self.send(asked, now_ns, due_ns)? {
            self.held = Some(asked);
            return Ok(false);
        }
        self.steps += 1;
        if let Source::File(part) = &mut self.source {
            part.sent();
        }
        Ok(true)
    }

    fn send(&mut self, asked: Asked, now_ns: u64, due_ns: u64) -> Result<bool, Stop> {
        match asked {
            Asked::Order(terms) => self.send_message(asked, &terms.request(), now_ns, due_ns),
            Asked::Cancel { handle, .. } => {
                self.send_message(asked, &Cancel { handle: handle.into() }, now_ns, due_ns)
            }
        }
    }

    fn send_message<M: Body>(
        &mut self,
        asked: Asked,
        message: &M,
        now_ns: u64,
        due_ns: u64,
    ) -> Result<bool, Stop> {
        let mut sent = self.client.try_send(message)?;
        if sent.is_none() {
            self.client.try_flush()?;
            sent = self.client.try_send(message)?;
        }
        let Some(sequence) = sent else { return Ok(false) };
        self.checker.sent(sequence, asked, due_ns);
        if let Some(recorder) = self.recorder {
            let who = (self.number, self.accounts[0]);
            recorder.request(who, (now_ns, due_ns), sequence, message)?;
        }
        Ok(true)
    }

    /// Takes everything that came; `answered` hears of each answer and when it came. Returns
    /// whether there was anything.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn receive(
        &mut self,
        start: Instant,
        mut answered: impl FnMut(Answer, u64),
    ) -> Result<bool, Stop> {
        let mut came = false;
        while let Some(frame) = self.client.try_recv()? {
            came = true;
            let now_ns = start.elapsed().as_nanos() as u64;
            if let Some(recorder) = self.recorder {
                let account = account_of(self.accounts, frame);
                recorder.reply((self.number, account), now_ns, frame)?;
            }
            if let Some(answer) = self.checker.received(frame)? {
                answered(answer, now_ns);
            }
            if let Source::File(part) = &mut self.source {
                part.received(frame)?;
            }
        }
        Ok(came)
    }

    /// Sends cancels of resting orders, as many as there is room for: one by one, since others may
    /// trade for this instance too.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn cancel_all(&mut self, now_ns: u64) -> Result<(), Stop> {
        while let Some(handle) = self.checker.pick(0) {
            if !self.send(Asked::Cancel { handle, closing: true }, now_ns, CLOSING)? {
                break;
            }
        }
        self.client.try_flush()?;
        Ok(())
    }

    /// Nothing may be open any more, and no fill of a flow unreported.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn check_end(&self) -> Result<(), Violation> {
        self.checker.check_none_open()?;
        match &self.source {
            Source::File(part) => part.due.front().map_or(Ok(()), |&first| {
                Err(Violation::FlowFillsMissing { count: part.due.len(), first })
            }),
            _ => Ok(()),
        }
    }
}

/// The account that a report concerns, of the buying and the selling one.
fn account_of(accounts: [u32; 2], frame: &Received) -> u32 {
    let accepted = frame.message::<Accepted>().map(|m| m.side);
    let side = accepted.or(frame.message::<Filled>().map(|m| m.side)).unwrap_or(0);
    accounts[usize::from(side & 1)]
}
