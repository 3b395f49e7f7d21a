//! Orders: entry, cancel, replace, mass cancel, and what they cost and report; [`super::matching`] is
//! how they meet.
//!
//! What an order could cost is held when it rests and follows from its price and open quantity, so
//! nothing about it needs to be remembered but the order itself.

use super::command::{Envelope, NewOrderTerms, Style};
use super::config::MILLI;
use super::event::{Moved, Outbox};
use super::ladder::NONE;
use super::ledger::Ledger;
use super::limits::Wish;
use super::queue;
use super::slab::{Node, Slab, Tag, handle};
use super::tables::Book;
use super::{Machine, fold};
use std::hint::select_unpredictable;
use vendue_wire::code::{
    CancelReason, OrderType, Phase, Reject, Resource, Role, Side, TimeInForce,
};
use vendue_wire::message::{
    ANY, ANY_BOOK, Accepted, Body, Cancel, Cancelled, Done, MassCancel, NewOrder, Replace, Replaced,
};

/// An order that has been let in and has its slot, with all that its path through the book needs.
#[derive(Clone, Copy)]
pub(super) struct Incoming {
    pub client_id: u64,
    /// Micro-units of one tick.
    pub tick_micro: u64,
    pub slot: u32,
    pub generation: u32,
    /// Credits it still wants.
    pub remaining: u32,
    pub tag: Tag,
    pub session: u16,
    pub instance: u16,
    pub account: u16,
    pub book: u16,
    pub limit: u16,
    pub side: Side,
    pub resource: Resource,
    pub dated: bool,
    /// What is not traded at once stays in the book.
    pub rests: bool,
    /// All of it at once or nothing.
    pub whole: bool,
    /// Where its own account is in the way, the resting order goes.
    pub cancel_maker: bool,
}

impl Incoming {
    /// Its node, in no queue yet.
    #[inline(always)]
    fn node(&self) -> Node {
        Node {
            next: NONE,
            prev: NONE,
            quantity: self.remaining,
            generation: self.generation,
            client_id: self.client_id,
            tag: self.tag,
        }
    }
}

/// Fee on `notional`, rounded toward the house. Nothing overflows: see `NOTIONAL_MAX_MICRO`.
#[inline(always)]
#[expect(clippy::manual_div_ceil, reason = "the bound leaves room; `div_ceil` costs twice as much")]
pub(super) fn fee(notional: u64, bps: u64) -> u64 {
    (notional * bps + 9_999) / 10_000
}

#[inline(always)]
pub(super) fn milli(quantity: u32) -> u64 {
    u64::from(quantity) * MILLI
}

/// Basis points of fees, by side for resting orders: who sells gives credits and no fee on them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fees {
    pub maker_bps: u64,
    pub taker_bps: u64,
    held_bps: [u64; 2],
    most_bps: [u64; 2],
}

/// What an order takes from its owner's funds, in micro-units, or credits, in milli-credits.
pub(super) struct Cost {
    amount: u64,
    most_bps: u64,
    /// While it rests.
    pub held: u64,
}

impl Cost {
    /// At most, whatever part of it takes and whatever part makes.
    #[inline(always)]
    fn most(&self) -> u64 {
        // A micro-unit more, because the part that takes and the part that makes may both be
        // rounded up.
        self.amount + fee(self.amount, self.most_bps) + u64::from(self.most_bps > 0)
    }

    /// True if so much covers the most it may take. Fees never exceed the amount, so who has twice
    /// as much is spared their sum.
    #[inline(always)]
    fn is_covered_by(&self, free: u64) -> bool {
        free > 2 * self.amount || free >= self.most()
    }
}

impl Fees {
    pub fn new(maker_bps: u64, taker_bps: u64) -> Fees {
        let most_bps = [maker_bps.max(taker_bps), 0];
        Fees { maker_bps, taker_bps, held_bps: [maker_bps, 0], most_bps }
    }

    /// What an order costs. No branch depends on its side, which nothing predicts.
    #[inline(always)]
    pub fn cost(&self, side: Side, tick_micro: u64, price: u16, quantity: u32) -> Cost {
        let sells = side == Side::Sell;
        let unit = select_unpredictable(sells, MILLI, u64::from(price) * tick_micro);
        // Cannot overflow within the book's bounds.
        let amount = unit * u64::from(quantity);
        let held = amount + fee(amount, self.held_bps[side as usize]);
        Cost { amount, most_bps: self.most_bps[side as usize], held }
    }
}

/// An order's place as its tag has it.
#[inline(always)]
fn place(book: u16, dated: bool, side: Side) -> u16 {
    book << 2 | u16::from(dated) << 1 | side as u16
}

/// Why an order that its owner cannot cover is refused.
#[cold]
fn short_of(side: Side) -> Reject {
    match side {
        Side::Buy => Reject::InsufficientFunds,
        Side::Sell => Reject::InsufficientCredits,
    }
}

impl Book {
    /// Puts an order last in its level's queue.
    #[inline(always)]
    fn append(&mut self, slab: &mut Slab, order: &Incoming) {
        self.orders += 1;
        let side = order.side as usize;
        let level = self.sides[side].level_of(order.limit);
        queue::append(&mut slab.nodes, self.queues[side] + level, order);
        // Also if it is marked already, which costs less than to ask: nothing predicts it.
        self.sides[side].mark(level);
    }

    /// Takes an order out of its queue.
    #[inline(always)]
    fn remove(&mut self, slab: &mut Slab, node: &Node) {
        self.orders -= 1;
        queue::join(&mut slab.nodes, node.prev, node.next);
        // Only its level's sentinel is on both sides of an order.
        if node.prev == node.next {
            let ladder = &mut self.sides[node.tag.side()];
            ladder.clear(ladder.level_of(node.tag.price()));
        }
    }
}

impl Machine {
    /// A new order, with a copy of the code for those that are plain, in which that is known.
    #[inline(always)]
    pub(super) fn new_order(
        &mut self,
        env: &Envelope,
        terms: &NewOrderTerms<'_>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        match terms.style {
            None => self.let_in::<false>(env, terms.message, terms.side, Style::PLAIN, out),
            Some(style) => self.let_in_special(env, terms.message, terms.side, style, out),
        }
    }

    #[cold]
    fn let_in_special(
        &mut self,
        env: &Envelope,
        m: &NewOrder,
        side: Side,
        style: Style,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.let_in::<false>(env, m, side, style, out)
    }

    /// Lets an order in, or refuses it; `CHECKED` against its account's limits already.
    #[inline(always)]
    pub(super) fn let_in<const CHECKED: bool>(
        &mut self,
        env: &Envelope,
        m: &NewOrder,
        side: Side,
        style: Style,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let instance = m.instance.get();
        let limit = limit_of(m, side, style);
        let would_cross = style.post_only && self.would_trade(m.book.get(), side, limit, instance);
        let dated = style.time_in_force == TimeInForce::Gtd;
        // Every row is looked up once and held to the end.
        let session = &mut self.sessions[env.session as usize];
        let client_id = session.fresh_client_id(m.client_id.get())?;
        let row = session.acting(&self.instances, instance)?;
        if !CHECKED && row.is_limited() {
            return self.let_in_limited(env, m, side, style, out);
        }
        let book = self.books.get_mut(usize::from(m.book.get())).ok_or(Reject::UnknownBook)?;
        let limit = check_terms(book, limit, m.quantity.get())?;
        if row.tier != book.tier {
            return Err(Reject::WrongTier);
        }
        let continuous = book.admit(style)?;
        if dated && m.expires_at_ms.get() <= env.time_ns / 1_000_000 {
            return Err(Reject::BadExpiry);
        }
        let room = self.slab.room(instance as u16)?;
        let cost = self.fees.cost(side, book.tick_micro, limit, m.quantity.get());
        let pocket = self.ledger.pocket(side, row.account, instance as u16, book.resource);
        if !cost.is_covered_by(pocket.balance.free) {
            return Err(short_of(side));
        }
        if would_cross && continuous {
            return Err(Reject::WouldCross);
        }
        session.last_client_id = client_id;
        let (slot, generation) = room.take();
        let session_slot = env.session as u16;
        let order = Incoming {
            tag: Tag::new(instance as u16, session_slot, limit, place(m.book.get(), dated, side)),
            client_id,
            tick_micro: book.tick_micro,
            slot,
            generation,
            remaining: m.quantity.get(),
            session: session_slot,
            instance: instance as u16,
            account: row.account,
            book: m.book.get(),
            limit,
            side,
            resource: book.resource,
            dated,
            rests: style.rests(),
            whole: style.time_in_force == TimeInForce::Fok,
            cancel_maker: style.cancel_maker,
        };
        fold(&mut self.digest, handle(slot, generation));
        report_accepted(env, m, &order, out);
        let facing = &book.sides[side.opposite() as usize];
        if facing.best() <= facing.level_of(limit) || dated || !order.rests {
            self.enter(env, order, m.expires_at_ms.get(), out);
        } else {
            // What most orders do.
            pocket.balance.hold(cost.held);
            let flips = pocket.flips();
            session.orders += 1;
            book.append(&mut self.slab, &order);
            if flips {
                self.flip(order.instance, order.resource, out);
            }
        }
        Ok(())
    }

    /// Matches an order that has its slot; then it rests, or what is left is cancelled.
    fn enter(&mut self, env: &Envelope, mut order: Incoming, expires_at_ms: u64, out: &mut Outbox) {
        let stopped = if self.books[usize::from(order.book)].phase == Phase::Call {
            // It waits for the auction: only what rests is let in.
            None
        } else if order.whole && !self.fills_whole(&order) {
            Some(CancelReason::Unmatched)
        } else {
            self.match_order(env, &mut order, out)
        };
        if order.remaining == 0 {
            self.slab.give_back(order.slot, order.instance);
        } else if order.rests && stopped.is_none() {
            let Incoming { side, tick_micro, limit, remaining, .. } = order;
            let hold = self.fees.cost(side, tick_micro, limit, remaining).held;
            let pocket = self.ledger.pocket(side, order.account, order.instance, order.resource);
            pocket.balance.hold(hold);
            self.sessions[usize::from(order.session)].orders += 1;
            self.books[usize::from(order.book)].append(&mut self.slab, &order);
            if order.dated {
                self.expiry.insert(order.slot, expires_at_ms);
            }
        } else {
            let reason = stopped.unwrap_or(CancelReason::Unmatched);
            report_cancelled(env, order.slot, &order.node(), reason, out);
            self.slab.give_back(order.slot, order.instance);
        }
        self.reassess(order.instance, order.resource, out);
    }

    /// Frees an order that has left its level.
    #[inline(always)]
    pub(super) fn retire(&mut self, slot: u32, tag: Tag) {
        if tag.dated() {
            self.expiry.remove(slot);
        }
        self.sessions[usize::from(tag.session())].orders -= 1;
        self.slab.give_back(slot, tag.instance());
    }

    /// Cancels a resting order: releases its hold, reports it and its level, frees its slot.
    #[inline(always)]
    pub(super) fn cancel_order(
        &mut self,
        env: &Envelope,
        slot: u32,
        reason: CancelReason,
        out: &mut Outbox,
    ) {
        let node = self.slab.nodes[slot as usize];
        let book = &mut self.books[node.tag.book()];
        let flips = release_hold(&mut self.ledger, &self.fees, &self.owner, book, &node);
        report_cancelled(env, slot, &node, reason, out);
        book.remove(&mut self.slab, &node);
        let resource = book.resource;
        self.retire(slot, node.tag);
        self.fold(u64::from(slot) << 8 | reason as u64);
        if flips {
            self.follow_cancel(node.tag, node.quantity, resource, out);
        }
    }

    /// The slot a handle names, if this session may act on it.
    #[inline(always)]
    fn own_order(&self, env: &Envelope, handle: u64) -> Result<u32, Reject> {
        let slot = self.slab.find(handle).ok_or(Reject::UnknownOrder)?;
        let instance = self.slab.nodes[slot as usize].tag.instance();
        match self.acting_row(env, u32::from(instance)) {
            Ok(_) => Ok(slot),
            // Who may not act for the instance learns nothing about its orders.
            Err(_) => Err(Reject::UnknownOrder),
        }
    }

    #[inline(always)]
    pub(super) fn cancel(
        &mut self,
        env: &Envelope,
        message: &Cancel,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let slot = self.own_order(env, message.handle.get())?;
        self.cancel_order(env, slot, CancelReason::Requested, out);
        Ok(())
    }

    pub(super) fn replace(
        &mut self,
        env: &Envelope,
        m: &Replace,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let slot = self.own_order(env, m.handle.get())?;
        let node = self.slab.nodes[slot as usize];
        let (price, quantity, side) = (m.price_ticks.get(), m.quantity.get(), side_of(&node));
        let book = &self.books[node.tag.book()];
        let price = check_terms(book, price, quantity)?;
        if book.phase == Phase::Halted {
            return Err(Reject::BookHalted);
        }
        if price == node.tag.price() && quantity <= node.quantity {
            self.use_client_id(env, client_id);
            self.shrink(env, slot, m, out);
            return Ok(());
        }
        let released = self.fees.cost(side, book.tick_micro, node.tag.price(), node.quantity).held;
        let cost = self.fees.cost(side, book.tick_micro, price, quantity);
        let account = self.owner[usize::from(node.tag.instance())];
        let limited = self.instances[usize::from(node.tag.instance())].is_limited();
        if limited {
            let (book, released) = (node.tag.book(), node.quantity);
            self.check_limits(account, &Wish { book, side, price, quantity, released })?;
        }
        let resource = self.books[node.tag.book()].resource;
        let pocket = self.ledger.pocket(side, account, node.tag.instance(), resource);
        if !cost.is_covered_by(pocket.balance.free + released) {
            return Err(short_of(side));
        }
        self.use_client_id(env, client_id);
        let said = out.bytes().len();
        self.note_replaced(&node, quantity);
        self.requeue(env, slot, m, price, out);
        if limited {
            self.follow_entry(account, side, &out.bytes()[said..]);
        }
        Ok(())
    }

    /// A replacement that keeps its place: same price, no larger.
    fn shrink(&mut self, env: &Envelope, slot: u32, m: &Replace, out: &mut Outbox) {
        let node = &mut self.slab.nodes[slot as usize];
        let before = node.quantity;
        node.quantity = m.quantity.get();
        node.client_id = m.client_id.get();
        let node = *node;
        self.move_to_session(slot, env);
        let (side, account) = (side_of(&node), self.owner[usize::from(node.tag.instance())]);
        let book = &mut self.books[node.tag.book()];
        let (resource, tick_micro) = (book.resource, book.tick_micro);
        let pocket = self.ledger.pocket(side, account, node.tag.instance(), resource);
        pocket.balance.release(self.fees.cost(side, tick_micro, node.tag.price(), before).held);
        pocket.balance.hold(self.fees.cost(side, tick_micro, node.tag.price(), node.quantity).held);
        self.note_gone(node.tag, before - node.quantity);
        let was = Node { quantity: before, ..node };
        say_moved(&was, node.tag.price(), node.quantity, out);
        self.report_replaced(env, m, m.handle.get(), out);
        self.reassess(node.tag.instance(), resource, out);
    }

    /// Makes the session of `env` the one that a resting order reports to.
    fn move_to_session(&mut self, slot: u32, env: &Envelope) {
        let node = &mut self.slab.nodes[slot as usize];
        self.sessions[usize::from(node.tag.session())].orders -= 1;
        node.tag = node.tag.entered_by(env.session as u16);
        self.sessions[env.session as usize].orders += 1;
    }

    /// Releases what a resting order holds. True if a burst flips.
    pub(super) fn release_hold(&mut self, node: &Node) -> bool {
        let book = &self.books[node.tag.book()];
        release_hold(&mut self.ledger, &self.fees, &self.owner, book, node)
    }

    /// A replacement that loses its place: out of its queue and in again at the new price, where
    /// it may trade at once.
    fn requeue(&mut self, env: &Envelope, slot: u32, m: &Replace, price: u16, out: &mut Outbox) {
        let node = self.slab.nodes[slot as usize];
        let expires_at_ms = if node.tag.dated() { self.expiry.expires_at_ms(slot) } else { 0 };
        self.release_hold(&node);
        let (side, book) = (side_of(&node), &mut self.books[node.tag.book()]);
        book.remove(&mut self.slab, &node);
        let (resource, tick_micro) = (book.resource, book.tick_micro);
        self.retire(slot, node.tag);
        say_moved(&node, price, m.quantity.get(), out);
        let room = self.slab.room(node.tag.instance()).expect("a slot has just been given back");
        let (slot, generation) = room.take();
        let place = place(node.tag.book() as u16, node.tag.dated(), side);
        let order = Incoming {
            tag: Tag::new(node.tag.instance(), env.session as u16, price, place),
            client_id: m.client_id.get(),
            tick_micro,
            slot,
            generation,
            remaining: m.quantity.get(),
            session: env.session as u16,
            instance: node.tag.instance(),
            account: self.owner[usize::from(node.tag.instance())],
            book: node.tag.book() as u16,
            limit: price,
            side,
            resource,
            dated: node.tag.dated(),
            rests: true,
            whole: false,
            cancel_maker: false,
        };
        self.report_replaced(env, m, handle(slot, generation), out);
        self.enter(env, order, expires_at_ms, out);
    }

    pub(super) fn mass_cancel(
        &mut self,
        env: &Envelope,
        m: &MassCancel,
        side: Option<Side>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if m.book.get() != ANY_BOOK && usize::from(m.book.get()) >= self.books.len() {
            return Err(Reject::UnknownBook);
        }
        let session = self.sessions[env.session as usize];
        if session.role() == Role::Observer {
            return Err(Reject::NotPermitted);
        }
        let of_book = |node: &Node| {
            (m.book.get() == ANY_BOOK || node.tag.book() == usize::from(m.book.get()))
                && side.is_none_or(|side| side_of(node) == side)
        };
        let reason = CancelReason::MassCancel;
        let cancelled = if m.instance.get() == ANY {
            let own = |machine: &Machine, instance| machine.acting_row(env, instance).is_ok();
            self.cancel_where(
                env,
                reason,
                out,
                |machine, owner| own(machine, owner.into()),
                of_book,
            )
        } else {
            self.acting_row(env, m.instance.get())?;
            let own = |_: &Machine, owner| u32::from(owner) == m.instance.get();
            self.cancel_where(env, reason, out, own, of_book)
        };
        self.report_done(env, MassCancel::KIND, 0, cancelled, out);
        Ok(())
    }

    /// Cancels those orders that `wanted` picks of the instances that `owners` picks, by slot;
    /// returns their number.
    pub(super) fn cancel_where(
        &mut self,
        env: &Envelope,
        reason: CancelReason,
        out: &mut Outbox,
        owners: impl Fn(&Machine, u16) -> bool,
        wanted: impl Fn(&Node) -> bool,
    ) -> u64 {
        let (mut cancelled, mut first) = (0, 0);
        loop {
            let mut slots = self.slab.orders(first, |owner| owners(self, owner));
            let Some(slot) = slots.find(|&slot| wanted(&self.slab.nodes[slot as usize])) else {
                break cancelled;
            };
            drop(slots);
            self.cancel_order(env, slot, reason, out);
            (cancelled, first) = (cancelled + 1, slot + 1);
        }
    }

    fn report_replaced(&mut self, env: &Envelope, m: &Replace, handle: u64, out: &mut Outbox) {
        self.fold(handle);
        let report = Replaced {
            request: env.request.into(),
            client_id: m.client_id,
            old_handle: m.handle,
            handle: handle.into(),
            time_ns: env.time_ns.into(),
            price_ticks: m.price_ticks,
            quantity: m.quantity,
        };
        out.push(env.session, &report);
    }

    pub(super) fn report_done(
        &mut self,
        env: &Envelope,
        kind: u8,
        client_id: u64,
        value: u64,
        out: &mut Outbox,
    ) {
        self.fold(value);
        let report = Done {
            request: env.request.into(),
            client_id: client_id.into(),
            time_ns: env.time_ns.into(),
            value: value.into(),
            kind,
            reserved: [0; 7],
        };
        out.push(env.session, &report);
    }
}

/// Releases what an order holds that rests in a book. True if a burst flips.
#[inline(always)]
fn release_hold(ledger: &mut Ledger, fees: &Fees, owner: &[u16], book: &Book, node: &Node) -> bool {
    let (side, instance) = (side_of(node), node.tag.instance());
    let held = fees.cost(side, book.tick_micro, node.tag.price(), node.quantity).held;
    let account = owner[usize::from(instance)];
    let pocket = ledger.pocket(side, account, instance, book.resource);
    pocket.balance.release(held);
    pocket.flips()
}

/// Reports an order accepted.
#[inline(always)]
fn report_accepted(env: &Envelope, m: &NewOrder, order: &Incoming, out: &mut Outbox) {
    let price = u64::from(order.limit) << 32;
    let quantity = u64::from(m.quantity.get());
    out.push_words::<Accepted, 6>(
        env.session,
        [
            env.request,
            order.client_id,
            handle(order.slot, order.generation),
            env.time_ns,
            u64::from(order.instance) | price,
            quantity | u64::from(order.book) << 32 | (order.side as u64) << 48,
        ],
    );
}

/// Reports a cancel to the order's session and, if another one asked for it, to that one too.
#[inline(always)]
pub(super) fn report_cancelled(
    env: &Envelope,
    slot: u32,
    node: &Node,
    reason: CancelReason,
    out: &mut Outbox,
) {
    let own = u32::from(node.tag.session()) == env.session;
    let mut words = [
        if own { env.request } else { 0 },
        node.client_id,
        handle(slot, node.generation),
        env.time_ns,
        u64::from(node.tag.instance()) | u64::from(node.quantity) << 32,
        node.tag.book() as u64
            | (node.tag.side() as u64) << 16
            | (reason as u64) << 24
            | u64::from(node.tag.price()) << 32,
    ];
    out.push_words::<Cancelled, 6>(node.tag.session().into(), words);
    if !own && matches!(reason, CancelReason::Requested | CancelReason::MassCancel) {
        words[0] = env.request;
        out.push_words::<Cancelled, 6>(env.session, words);
    }
}

/// The worst price that an order may trade at, ticks.
#[inline(always)]
pub(super) fn limit_of(m: &NewOrder, side: Side, style: Style) -> u32 {
    match (style.order_type, side) {
        (OrderType::Market, Side::Sell) => 1,
        _ => m.price_ticks.get(),
    }
}

/// Checks a price and a quantity and returns the price.
#[inline(always)]
pub(super) fn check_terms(book: &Book, price: u32, quantity: u32) -> Result<u16, Reject> {
    if price == 0 || price > u32::from(book.price_max) {
        return Err(Reject::BadPrice);
    }
    if quantity == 0 || quantity > book.quantity_max {
        return Err(Reject::BadQuantity);
    }
    Ok(price as u16)
}

/// Says that a replacement moves what is open of an order to another price or another quantity.
fn say_moved(from: &Node, price: u16, quantity: u32, out: &mut Outbox) {
    let moved = Moved {
        from_ticks: u32::from(from.tag.price()).into(),
        from_quantity: from.quantity.into(),
        to_ticks: u32::from(price).into(),
        to_quantity: quantity.into(),
        book: (from.tag.book() as u16).into(),
        side: from.tag.side() as u8,
        reserved: [0; 5],
    };
    out.push(ANY, &moved);
}

#[inline(always)]
pub(super) fn side_of(node: &Node) -> Side {
    if node.tag.side() == 0 { Side::Buy } else { Side::Sell }
}
