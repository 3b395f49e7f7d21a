//! Orders: entry, matching, cancel, replace, mass cancel.
//!
//! Price, then time, exactly. Orders whose accounts may not meet pass one another without losing
//! their place. What an order could cost is held when it rests and follows from its price and
//! open quantity, so nothing about it needs to be remembered but the order itself.

use super::Machine;
use super::command::{Envelope, NewOrderTerms};
use super::config::MILLI;
use super::event::{Fill, LevelChanged, Outbox};
use super::ladder::NONE;
use super::ledger::SideOfTrade;
use super::slab::{Node, handle};
use super::tables::{Account, Book};
use vendue_wire::code::{CancelReason, OrderType, Reject, Resource, Role, Side, TimeInForce};
use vendue_wire::message::{
    ANY, ANY_BOOK, Accepted, Body, Cancel, Cancelled, Done, MassCancel, NewOrder, Replace, Replaced,
};

/// An incoming order on its way through the book.
struct Taker {
    client_id: u64,
    handle: u64,
    /// Notional traded so far: fees are charged on the running total, so that many small fills
    /// cost what one large one does.
    notional: u64,
    /// Fee on `notional`.
    fee: u64,
    /// What of all this the ledger has already.
    posted: Posted,
    /// Micro-units of one tick.
    tick_micro: u64,
    /// Groups it may trade with.
    meets: u64,
    /// Its account's group.
    group: u32,
    session: u32,
    remaining: u32,
    book: u16,
    instance: u16,
    account: u16,
    limit: u16,
    side: Side,
    resource: Resource,
    cancel_maker: bool,
}

/// A taker's totals when they were posted last.
#[derive(Clone, Copy)]
struct Posted {
    notional: u64,
    fee: u64,
    remaining: u32,
}

/// The order an incoming one meets, before the trade.
struct Resting<'a> {
    slot: u32,
    node: &'a Node,
    account: u16,
}

/// What is said of a trade; `taker` is as the trade left it, `fees` the maker's and the taker's.
#[inline(always)]
fn fill_event(
    trade: u64,
    taker: &Taker,
    maker: &Resting<'_>,
    quantity: u32,
    fees: (u64, u64),
) -> Fill {
    Fill {
        trade: trade.into(),
        maker_client_id: maker.node.client_id.into(),
        taker_client_id: taker.client_id.into(),
        maker_handle: handle(maker.slot, maker.node.generation).into(),
        taker_handle: taker.handle.into(),
        maker_fee_micro: fees.0.into(),
        taker_fee_micro: fees.1.into(),
        maker_session: u32::from(maker.node.session).into(),
        taker_session: taker.session.into(),
        maker: u32::from(maker.node.instance).into(),
        taker: u32::from(taker.instance).into(),
        maker_account: u32::from(maker.account).into(),
        taker_account: u32::from(taker.account).into(),
        price_ticks: u32::from(maker.node.price).into(),
        quantity: quantity.into(),
        maker_remaining: (maker.node.quantity - quantity).into(),
        taker_remaining: taker.remaining.into(),
        book: taker.book.into(),
        taker_side: taker.side as u8,
        reserved: [0; 5],
    }
}

/// Fee on `notional`, rounded toward the house. Nothing overflows: see `NOTIONAL_MAX_MICRO`.
#[inline(always)]
#[expect(clippy::manual_div_ceil, reason = "the bound leaves room; `div_ceil` costs twice as much")]
fn fee(notional: u64, bps: u64) -> u64 {
    (notional * bps + 9_999) / 10_000
}

/// Price x quantity in micro-units; cannot overflow within the book's bounds.
#[inline]
fn notional(book: &Book, price: u16, quantity: u32) -> u64 {
    u64::from(price) * book.tick_micro * u64::from(quantity)
}

#[inline]
fn milli(quantity: u32) -> u64 {
    u64::from(quantity) * MILLI
}

/// The most that a buy order can cost, whatever part of it takes and whatever part makes: the
/// higher fee on all of it, and a micro-unit because both parts may be rounded up.
#[inline(always)]
fn buy_cost_max(notional: u64, bps: u64) -> u64 {
    notional + fee(notional, bps) + u64::from(bps > 0)
}

impl Machine {
    /// Funds held for `quantity` credits of a resting buy order.
    #[inline(always)]
    fn buy_hold(&self, book: usize, price: u16, quantity: u32) -> u64 {
        let notional = notional(&self.books[book], price, quantity);
        notional + fee(notional, self.maker_fee_bps)
    }

    pub(super) fn new_order(
        &mut self,
        env: &Envelope,
        terms: &NewOrderTerms<'_>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let m = terms.message;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let row = self.acting_row(env, m.instance.get())?;
        let instance = m.instance.get() as u16;
        let limit = match (terms.order_type, terms.side) {
            (OrderType::Market, Side::Sell) => 1,
            _ => m.price_ticks.get(),
        };
        let at = usize::from(m.book.get());
        let book = self.books.get(at).ok_or(Reject::UnknownBook)?;
        let limit = check_terms(book, limit, m.quantity.get())?;
        if row.tier != book.tier {
            return Err(Reject::WrongTier);
        }
        if terms.time_in_force == TimeInForce::Gtd
            && m.expires_at_ms.get() <= env.time_ns / 1_000_000
        {
            return Err(Reject::BadExpiry);
        }
        if self.slab.free == NONE {
            return Err(Reject::OrdersFull);
        }
        if self.slab.count(instance) >= self.slab.per_instance() {
            return Err(Reject::InstanceOrdersFull);
        }
        self.check_cover(instance, book, terms.side, limit, m.quantity.get(), 0)?;
        if m.post_only == 1 {
            let account = self.owner[usize::from(instance)];
            if self.would_trade(at, terms.side, limit, account) {
                return Err(Reject::WouldCross);
            }
        }
        self.use_client_id(env, client_id);
        self.enter(env, terms, limit, instance, out);
        Ok(())
    }

    /// Checks that free funds or credits, with `released` added, cover an order.
    #[inline(always)]
    fn check_cover(
        &self,
        instance: u16,
        book: &Book,
        side: Side,
        price: u16,
        quantity: u32,
        released: u64,
    ) -> Result<(), Reject> {
        match side {
            Side::Buy => {
                let account = self.owner[usize::from(instance)];
                let free = self.ledger.funds[usize::from(account)].free + released;
                let bps = self.maker_fee_bps.max(self.taker_fee_bps);
                if free < buy_cost_max(notional(book, price, quantity), bps) {
                    return Err(Reject::InsufficientFunds);
                }
            }
            Side::Sell => {
                let free = self.ledger.credit(instance, book.resource).free;
                if free + released < milli(quantity) {
                    return Err(Reject::InsufficientCredits);
                }
            }
        }
        Ok(())
    }

    /// Takes a slot for a checked order, reports it accepted, matches it, rests or cancels what
    /// is left.
    #[inline(always)]
    fn enter(
        &mut self,
        env: &Envelope,
        terms: &NewOrderTerms<'_>,
        limit: u16,
        instance: u16,
        out: &mut Outbox,
    ) {
        let m = terms.message;
        let (book, side) = (usize::from(m.book.get()), terms.side);
        let slot = self.slab.take();
        let dated = terms.time_in_force == TimeInForce::Gtd;
        let node = &mut self.slab.nodes[slot as usize];
        node.client_id = m.client_id.get();
        node.instance = instance;
        node.session = env.session as u16;
        node.price = limit;
        node.place = m.book.get() << 2 | u16::from(dated) << 1 | side as u16;
        let handle = handle(slot, node.generation);
        self.report_accepted(env, m, handle, limit, out);
        let (mut remaining, mut stopped) = (m.quantity.get(), None);
        if let Some(best) = self.crossed(book, side, limit) {
            let mut taker = self.taker(env, slot, remaining);
            taker.cancel_maker = m.self_trade == 1;
            if terms.time_in_force == TimeInForce::Fok && !self.fills_whole(&taker) {
                stopped = Some(CancelReason::Unmatched);
            } else {
                stopped = self.match_from(env, &mut taker, best, out);
            }
            remaining = taker.remaining;
        }
        let rests = terms.order_type == OrderType::Limit
            && matches!(terms.time_in_force, TimeInForce::Gtc | TimeInForce::Gtd);
        let resource = self.books[book].resource;
        if remaining == 0 {
            self.slab.give_back(slot);
        } else if rests && stopped.is_none() {
            self.rest(slot, remaining, out);
            if dated {
                self.expiry.insert(slot, m.expires_at_ms.get());
            }
        } else {
            let node = &mut self.slab.nodes[slot as usize];
            node.quantity = remaining;
            let reason = stopped.unwrap_or(CancelReason::Unmatched);
            report_cancelled(env, slot, node, reason, out);
            self.slab.give_back(slot);
        }
        self.reassess(instance, resource, out);
    }

    /// The order just put into `slot` as a taker of `quantity`.
    #[inline(always)]
    fn taker(&self, env: &Envelope, slot: u32, quantity: u32) -> Taker {
        let node = &self.slab.nodes[slot as usize];
        let book = &self.books[node.book()];
        let account = self.owner[usize::from(node.instance)];
        let row = &self.accounts[usize::from(account)];
        let side = side_of(node);
        Taker {
            client_id: node.client_id,
            handle: handle(slot, node.generation),
            notional: 0,
            fee: 0,
            posted: Posted { notional: 0, fee: 0, remaining: quantity },
            tick_micro: book.tick_micro,
            meets: if side == Side::Buy { row.buys_from } else { row.sells_to },
            group: row.group,
            session: env.session,
            remaining: quantity,
            book: node.book() as u16,
            instance: node.instance,
            account,
            limit: node.price,
            side,
            resource: book.resource,
            cancel_maker: false,
        }
    }

    /// Appends what is left of the order in `slot` to its level and holds what it could cost.
    #[inline(always)]
    fn rest(&mut self, slot: u32, quantity: u32, out: &mut Outbox) {
        let node = &mut self.slab.nodes[slot as usize];
        let (price, instance, session) = (node.price, node.instance, node.session);
        let (at, side) = (node.book(), side_of(node));
        node.quantity = quantity;
        node.next = NONE;
        let book = &mut self.books[at];
        match side {
            Side::Buy => {
                let notional = notional(book, price, quantity);
                let hold = notional + fee(notional, self.maker_fee_bps);
                self.ledger.hold_funds(self.owner[usize::from(instance)], hold);
            }
            Side::Sell => self.ledger.hold_credits(instance, book.resource, milli(quantity)),
        }
        book.orders += 1;
        let ladder = &mut book.sides[side as usize];
        let level = ladder.level_mut(price);
        let tail = level.tail;
        level.tail = slot;
        level.quantity += u64::from(quantity);
        let quantity = level.quantity;
        node.prev = tail;
        if tail == NONE {
            level.head = slot;
            ladder.mark(price);
        } else {
            self.slab.nodes[tail as usize].next = slot;
        }
        self.slab.enlist(slot, instance);
        self.sessions[usize::from(session)].orders += 1;
        say_level(at as u16, side, price, quantity, out);
    }

    /// The resting orders an order of this limit would meet, in the order it would meet them.
    fn facing(&self, book: usize, side: Side, limit: u16) -> impl Iterator<Item = &Node> {
        let book = &self.books[book];
        let opposite = side.opposite();
        let crossing = move |price: &u16| crosses(side, limit, *price);
        let best = book.best(opposite).filter(crossing);
        std::iter::successors(best, move |&price| book.worse(opposite, price).filter(crossing))
            .flat_map(move |price| {
                let head = book.sides[opposite as usize].level(price).head;
                let node = |slot: u32| (slot != NONE).then(|| &self.slab.nodes[slot as usize]);
                std::iter::successors(node(head), move |last| node(last.next))
            })
    }

    /// True if an order would trade at once or meet its own account.
    fn would_trade(&self, book: usize, side: Side, limit: u16, account: u16) -> bool {
        let taker = &self.accounts[usize::from(account)];
        self.facing(book, side, limit).any(|node| {
            let maker_account = self.owner[usize::from(node.instance)];
            let maker = &self.accounts[usize::from(maker_account)];
            maker_account == account || may_meet(side, taker, maker)
        })
    }

    /// True if a fill-or-kill order finds all its quantity.
    fn fills_whole(&self, taker: &Taker) -> bool {
        let Taker { side, limit, account, .. } = *taker;
        let own = &self.accounts[usize::from(account)];
        let mut wanted = taker.remaining;
        for node in self.facing(usize::from(taker.book), side, limit) {
            let maker_account = self.owner[usize::from(node.instance)];
            if maker_account == account {
                if !taker.cancel_maker {
                    return false;
                }
            } else if may_meet(side, own, &self.accounts[usize::from(maker_account)]) {
                wanted = wanted.saturating_sub(node.quantity);
                if wanted == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// The other side's best price, if an order of this limit trades there.
    #[inline(always)]
    fn crossed(&self, book: usize, side: Side, limit: u16) -> Option<u16> {
        self.books[book].best(side.opposite()).filter(|&price| crosses(side, limit, price))
    }

    /// Matches from a level that crosses on, until nothing crosses or nothing is left; then brings
    /// the book's and the ledger's totals up. Says why if the rest must go.
    fn match_from(
        &mut self,
        env: &Envelope,
        taker: &mut Taker,
        best: u16,
        out: &mut Outbox,
    ) -> Option<CancelReason> {
        let book = usize::from(taker.book);
        let opposite = taker.side.opposite();
        let (trades, wanted) = (self.trades, taker.remaining);
        let mut price = best;
        let stopped = loop {
            let stopped = self.match_level(env, taker, price, out);
            if stopped.is_some() || taker.remaining == 0 {
                break stopped;
            }
            let next = self.books[book].worse(opposite, price);
            match next.filter(|&price| crosses(taker.side, taker.limit, price)) {
                Some(next) => price = next,
                None => break None,
            }
        };
        self.post_taker(taker);
        let book = &mut self.books[book];
        book.trades += self.trades - trades;
        book.volume += u64::from(wanted - taker.remaining);
        stopped
    }

    /// Meets a level's orders, oldest first. Whoever leaves is bridged only once the next one that
    /// stays is known, so that eating a queue from its head costs one change of links.
    #[inline(always)]
    fn match_level(
        &mut self,
        env: &Envelope,
        taker: &mut Taker,
        price: u16,
        out: &mut Outbox,
    ) -> Option<CancelReason> {
        let side = taker.side.opposite();
        let level = *self.books[usize::from(taker.book)].sides[side as usize].level(price);
        let (mut slot, mut quantity, trades) = (level.head, level.quantity, self.trades);
        // The last order that stays, if any, and how many after it have left.
        let (mut kept, mut gap) = (NONE, 0);
        let mut stopped = None;
        while slot != NONE && taker.remaining > 0 {
            let node = self.slab.nodes[slot as usize];
            let account = self.owner[usize::from(node.instance)];
            let maker = Resting { slot, node: &node, account };
            if account == taker.account {
                if !taker.cancel_maker {
                    stopped = Some(CancelReason::SelfTrade);
                    break;
                }
                self.cancel_own(env, taker, &maker, out);
                quantity -= u64::from(node.quantity);
            } else if taker.may_meet(&self.accounts[usize::from(account)]) {
                let traded = self.fill(taker, &maker, out);
                quantity -= u64::from(traded);
                if traded < node.quantity {
                    break;
                }
            } else {
                if gap > 0 {
                    self.bridge(taker.book, side, price, (kept, slot, gap));
                }
                (kept, gap) = (slot, 0);
                slot = node.next;
                continue;
            }
            gap += 1;
            slot = node.next;
        }
        if gap > 0 {
            self.bridge(taker.book, side, price, (kept, slot, gap));
        }
        if quantity != level.quantity {
            let book = &mut self.books[usize::from(taker.book)];
            if self.trades != trades {
                book.last = price;
            }
            let level = book.sides[side as usize].level_mut(price);
            level.quantity = quantity;
            assert!((level.head == NONE) == (quantity == 0), "a level miscounts its credits");
            say_level(taker.book, side, price, quantity, out);
        }
        stopped
    }

    /// Links `kept` and `slot`, between which `gone` orders have left the level; either may be
    /// [`NONE`], the level's end.
    #[inline(always)]
    fn bridge(&mut self, book: u16, side: Side, price: u16, (kept, slot, gone): (u32, u32, u32)) {
        let book = &mut self.books[usize::from(book)];
        book.orders -= gone;
        let ladder = &mut book.sides[side as usize];
        let level = ladder.level_mut(price);
        if kept == NONE {
            level.head = slot;
        } else {
            self.slab.nodes[kept as usize].next = slot;
        }
        if slot == NONE {
            level.tail = kept;
            if kept == NONE {
                ladder.clear(price);
            }
        } else {
            self.slab.nodes[slot as usize].prev = kept;
        }
    }

    /// One trade between the taker and a maker, whose side is posted on the spot. Returns the
    /// quantity; a maker that is filled whole has left.
    #[inline(always)]
    fn fill(&mut self, taker: &mut Taker, maker: &Resting<'_>, out: &mut Outbox) -> u32 {
        let node = maker.node;
        let quantity = taker.remaining.min(node.quantity);
        let unit = u64::from(node.price) * taker.tick_micro;
        let notional = unit * u64::from(quantity);
        let before = unit * u64::from(node.quantity);
        let maker_fee =
            fee(before, self.maker_fee_bps) - fee(before - notional, self.maker_fee_bps);
        let fee_before = taker.fee;
        taker.notional += notional;
        taker.fee = fee(taker.notional, self.taker_fee_bps);
        taker.remaining -= quantity;
        self.ledger.settle_maker(&SideOfTrade {
            side: taker.side.opposite(),
            account: maker.account,
            instance: node.instance,
            resource: taker.resource,
            notional,
            fee: maker_fee,
            milli: milli(quantity),
        });
        self.trades += 1;
        self.fold(self.trades ^ u64::from(maker.slot) << 32 ^ u64::from(quantity));
        let fees = (maker_fee, taker.fee - fee_before);
        out.push(ANY, &fill_event(self.trades, taker, maker, quantity, fees));
        if quantity == node.quantity {
            self.retire(maker.slot, node);
        } else {
            self.slab.nodes[maker.slot as usize].quantity = node.quantity - quantity;
        }
        self.reassess(node.instance, taker.resource, out);
        quantity
    }

    /// Posts the taker's side of its trades since the last time, all at once.
    #[inline(always)]
    fn post_taker(&mut self, taker: &mut Taker) {
        let posted = taker.posted;
        self.ledger.settle_taker(&SideOfTrade {
            side: taker.side,
            account: taker.account,
            instance: taker.instance,
            resource: taker.resource,
            notional: taker.notional - posted.notional,
            fee: taker.fee - posted.fee,
            milli: milli(posted.remaining - taker.remaining),
        });
        taker.posted =
            Posted { notional: taker.notional, fee: taker.fee, remaining: taker.remaining };
    }

    /// Cancels an order that the taker's own account has in its way.
    #[cold]
    fn cancel_own(
        &mut self,
        env: &Envelope,
        taker: &mut Taker,
        maker: &Resting<'_>,
        out: &mut Outbox,
    ) {
        // The maker may be the taker's own instance, whose burst is judged by all its trades.
        self.post_taker(taker);
        self.release_hold(maker.node);
        let reason = CancelReason::SelfTrade;
        report_cancelled(env, maker.slot, maker.node, reason, out);
        self.retire(maker.slot, maker.node);
        self.fold(u64::from(maker.slot) << 8 | reason as u64);
        self.reassess(maker.node.instance, taker.resource, out);
    }

    /// Frees an order that has left its level.
    #[inline(always)]
    fn retire(&mut self, slot: u32, node: &Node) {
        if node.dated() {
            self.expiry.remove(slot);
        }
        self.sessions[usize::from(node.session)].orders -= 1;
        self.slab.delist(slot, node.instance);
    }

    /// Takes an order out of its level and its queue and frees it. Returns what the level still
    /// holds.
    #[inline(always)]
    fn unlink(&mut self, slot: u32, node: &Node) -> u64 {
        let book = &mut self.books[node.book()];
        book.orders -= 1;
        let ladder = &mut book.sides[node.side()];
        let level = ladder.level_mut(node.price);
        level.quantity -= u64::from(node.quantity);
        let left = level.quantity;
        if node.prev == NONE {
            level.head = node.next;
        } else {
            self.slab.nodes[node.prev as usize].next = node.next;
        }
        if node.next == NONE {
            level.tail = node.prev;
        } else {
            self.slab.nodes[node.next as usize].prev = node.prev;
        }
        if level.head == NONE {
            assert!(left == 0, "an empty level still counts credits");
            ladder.clear(node.price);
        }
        self.retire(slot, node);
        left
    }

    /// Releases what a resting order holds; returns what it trades.
    #[inline(always)]
    fn release_hold(&mut self, node: &Node) -> Resource {
        let book = &self.books[node.book()];
        let resource = book.resource;
        if node.side() == Side::Buy as usize {
            let notional = notional(book, node.price, node.quantity);
            let account = self.owner[usize::from(node.instance)];
            self.ledger.release_funds(account, notional + fee(notional, self.maker_fee_bps));
        } else {
            self.ledger.release_credits(node.instance, resource, milli(node.quantity));
        }
        resource
    }

    /// Cancels a resting order: releases its hold, reports it and its level, frees its slot.
    #[inline]
    pub(super) fn cancel_order(
        &mut self,
        env: &Envelope,
        slot: u32,
        reason: CancelReason,
        out: &mut Outbox,
    ) {
        let node = self.slab.nodes[slot as usize];
        let resource = self.release_hold(&node);
        report_cancelled(env, slot, &node, reason, out);
        let left = self.unlink(slot, &node);
        self.fold(u64::from(slot) << 8 | reason as u64);
        self.reassess(node.instance, resource, out);
        say_level(node.book() as u16, side_of(&node), node.price, left, out);
    }

    /// The slot a handle names, if this session may act on it.
    fn own_order(&self, env: &Envelope, handle: u64) -> Result<u32, Reject> {
        let slot = self.slab.find(handle).ok_or(Reject::UnknownOrder)?;
        let instance = self.slab.nodes[slot as usize].instance;
        match self.acting_instance(env, u32::from(instance)) {
            Ok(_) => Ok(slot),
            // Who may not act for the instance learns nothing about its orders.
            Err(_) => Err(Reject::UnknownOrder),
        }
    }

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
        let (price, quantity) = (m.price_ticks.get(), m.quantity.get());
        let book = &self.books[node.book()];
        let price = check_terms(book, price, quantity)?;
        let side = side_of(&node);
        let released = match side {
            Side::Buy => self.buy_hold(node.book(), node.price, node.quantity),
            Side::Sell => milli(node.quantity),
        };
        if price == node.price && quantity <= node.quantity {
            self.use_client_id(env, client_id);
            self.shrink(env, slot, m, out);
            return Ok(());
        }
        self.check_cover(node.instance, book, side, price, quantity, released)?;
        self.use_client_id(env, client_id);
        self.requeue(env, slot, m, price, out);
        Ok(())
    }

    /// A replacement that keeps its place: same price, no larger.
    fn shrink(&mut self, env: &Envelope, slot: u32, m: &Replace, out: &mut Outbox) {
        let before = self.slab.nodes[slot as usize];
        self.release_hold(&before);
        let node = &mut self.slab.nodes[slot as usize];
        node.quantity = m.quantity.get();
        node.client_id = m.client_id.get();
        let after = *node;
        self.move_to_session(slot, env);
        if after.side() == Side::Buy as usize {
            let hold = self.buy_hold(after.book(), after.price, after.quantity);
            self.ledger.hold_funds(self.owner[usize::from(after.instance)], hold);
        } else {
            let resource = self.books[after.book()].resource;
            self.ledger.hold_credits(after.instance, resource, milli(after.quantity));
        }
        let level = self.books[after.book()].sides[after.side()].level_mut(after.price);
        level.quantity -= u64::from(before.quantity - after.quantity);
        self.report_replaced(env, m, m.handle.get(), out);
        self.report_level(after.book(), side_of(&after), after.price, out);
        let resource = self.books[after.book()].resource;
        self.reassess(after.instance, resource, out);
    }

    /// Makes the session of `env` the one that a resting order reports to.
    fn move_to_session(&mut self, slot: u32, env: &Envelope) {
        let node = &mut self.slab.nodes[slot as usize];
        self.sessions[usize::from(node.session)].orders -= 1;
        node.session = env.session as u16;
        self.sessions[env.session as usize].orders += 1;
    }

    /// A replacement that loses its place: out of its queue and in again at the new price, where
    /// it may trade at once.
    fn requeue(&mut self, env: &Envelope, slot: u32, m: &Replace, price: u16, out: &mut Outbox) {
        let node = self.slab.nodes[slot as usize];
        let expires_at_ms = if node.dated() { self.expiry.expires_at_ms(slot) } else { 0 };
        self.release_hold(&node);
        let left = self.unlink(slot, &node);
        say_level(node.book() as u16, side_of(&node), node.price, left, out);
        let slot = self.slab.take();
        let fresh = &mut self.slab.nodes[slot as usize];
        *fresh = Node {
            generation: fresh.generation,
            client_id: m.client_id.get(),
            session: env.session as u16,
            price,
            ..node
        };
        let mut taker = self.taker(env, slot, m.quantity.get());
        self.report_replaced(env, m, taker.handle, out);
        let crossed = self.crossed(node.book(), taker.side, price);
        let stopped = crossed.and_then(|best| self.match_from(env, &mut taker, best, out));
        if taker.remaining == 0 {
            self.slab.give_back(slot);
        } else if let Some(reason) = stopped {
            let node = &mut self.slab.nodes[slot as usize];
            node.quantity = taker.remaining;
            report_cancelled(env, slot, node, reason, out);
            self.slab.give_back(slot);
        } else {
            self.rest(slot, taker.remaining, out);
            if node.dated() {
                self.expiry.insert(slot, expires_at_ms);
            }
        }
        let resource = self.books[node.book()].resource;
        self.reassess(node.instance, resource, out);
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
        let mut cancelled = 0;
        if m.instance.get() == ANY {
            for instance in 0..self.instances.len() as u32 {
                if let Ok(instance) = self.acting_instance(env, instance) {
                    cancelled += self.cancel_of(env, instance, m.book.get(), side, out);
                }
            }
        } else {
            let instance = self.acting_instance(env, m.instance.get())?;
            cancelled = self.cancel_of(env, instance, m.book.get(), side, out);
        }
        self.report_done(env, MassCancel::KIND, 0, cancelled, out);
        Ok(())
    }

    fn cancel_of(
        &mut self,
        env: &Envelope,
        instance: u16,
        book: u16,
        side: Option<Side>,
        out: &mut Outbox,
    ) -> u64 {
        self.cancel_where(env, instance, CancelReason::MassCancel, out, |node| {
            (book == ANY_BOOK || node.book() == usize::from(book))
                && side.is_none_or(|side| node.side() == side as usize)
        })
    }

    /// Cancels an instance's orders that `wanted` picks, newest first; returns their number.
    pub(super) fn cancel_where(
        &mut self,
        env: &Envelope,
        instance: u16,
        reason: CancelReason,
        out: &mut Outbox,
        wanted: impl Fn(&Node) -> bool,
    ) -> u64 {
        let mut cancelled = 0;
        let mut at = self.slab.count(instance) as usize;
        while at > 0 {
            at -= 1;
            // Removing swaps the last order in; the last one was looked at already.
            let slot = self.slab.of_instance(instance)[at];
            if wanted(&self.slab.nodes[slot as usize]) {
                self.cancel_order(env, slot, reason, out);
                cancelled += 1;
            }
        }
        cancelled
    }

    #[inline(always)]
    fn report_accepted(
        &mut self,
        env: &Envelope,
        m: &NewOrder,
        handle: u64,
        limit: u16,
        out: &mut Outbox,
    ) {
        self.fold(handle);
        let report = Accepted {
            request: env.request.into(),
            client_id: m.client_id,
            handle: handle.into(),
            time_ns: env.time_ns.into(),
            instance: m.instance,
            price_ticks: u32::from(limit).into(),
            quantity: m.quantity,
            book: m.book,
            side: m.side,
            reserved: 0,
        };
        out.push(env.session, &report);
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

    #[inline]
    fn report_level(&self, book: usize, side: Side, price: u16, out: &mut Outbox) {
        let quantity = self.books[book].sides[side as usize].level(price).quantity;
        say_level(book as u16, side, price, quantity, out);
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

/// Reports a cancel to the order's session and, if another one asked for it, to that one too.
#[inline(always)]
fn report_cancelled(
    env: &Envelope,
    slot: u32,
    node: &Node,
    reason: CancelReason,
    out: &mut Outbox,
) {
    let own = u32::from(node.session) == env.session;
    let mut report = Cancelled {
        request: if own { env.request } else { 0 }.into(),
        client_id: node.client_id.into(),
        handle: handle(slot, node.generation).into(),
        time_ns: env.time_ns.into(),
        instance: u32::from(node.instance).into(),
        quantity: node.quantity.into(),
        book: (node.book() as u16).into(),
        side: node.side() as u8,
        reason: reason as u8,
        reserved: 0.into(),
    };
    out.push(node.session.into(), &report);
    if !own && matches!(reason, CancelReason::Requested | CancelReason::MassCancel) {
        report.request = env.request.into();
        out.push(env.session, &report);
    }
}

/// Checks a price and a quantity and returns the price.
#[inline(always)]
fn check_terms(book: &Book, price: u32, quantity: u32) -> Result<u16, Reject> {
    if price == 0 || price > u32::from(book.price_max) {
        return Err(Reject::BadPrice);
    }
    if quantity == 0 || quantity > book.quantity_max {
        return Err(Reject::BadQuantity);
    }
    Ok(price as u16)
}

/// Says what is open at a price now.
#[inline(always)]
fn say_level(book: u16, side: Side, price: u16, quantity: u64, out: &mut Outbox) {
    let event = LevelChanged {
        quantity: quantity.into(),
        price_ticks: u32::from(price).into(),
        book: book.into(),
        side: side as u8,
        reserved: 0,
    };
    out.push(ANY, &event);
}

impl Taker {
    /// True if both accounts allow the trade.
    #[inline(always)]
    fn may_meet(&self, maker: &Account) -> bool {
        let meets = if self.side == Side::Buy { maker.sells_to } else { maker.buys_from };
        (self.meets >> maker.group) & (meets >> self.group) & 1 == 1
    }
}

/// True if a taker with this limit trades at `price`.
#[inline]
fn crosses(side: Side, limit: u16, price: u16) -> bool {
    match side {
        Side::Buy => price <= limit,
        Side::Sell => price >= limit,
    }
}

/// True if both accounts allow the trade.
#[inline]
fn may_meet(
    taker_side: Side,
    taker: &super::tables::Account,
    maker: &super::tables::Account,
) -> bool {
    match taker_side {
        Side::Buy => maker.may_sell_to(taker),
        Side::Sell => taker.may_sell_to(maker),
    }
}

fn side_of(node: &Node) -> Side {
    if node.side() == 0 { Side::Buy } else { Side::Sell }
}
