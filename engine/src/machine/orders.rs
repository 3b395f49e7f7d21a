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
use super::ledger::FundsOfTrade;
use super::slab::Node;
use super::tables::Book;
use vendue_wire::code::{CancelReason, OrderType, Reject, Role, Side, TimeInForce};
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
    session: u32,
    remaining: u32,
    book: u16,
    instance: u16,
    account: u16,
    limit: u16,
    side: Side,
    cancel_maker: bool,
}

/// The order an incoming one meets, before the trade.
struct Resting<'a> {
    node: &'a Node,
    handle: u64,
    account: u16,
}

/// The funds side of a trade; `fees` are the maker's and the taker's.
#[inline]
fn funds_of(taker: &Taker, maker: u16, notional: u64, fees: (u64, u64)) -> FundsOfTrade {
    let (maker_fee, taker_fee) = fees;
    match taker.side {
        Side::Buy => FundsOfTrade {
            buyer: taker.account,
            seller: maker,
            notional,
            buyer_fee: taker_fee,
            seller_fee: maker_fee,
            buyer_held: false,
        },
        Side::Sell => FundsOfTrade {
            buyer: maker,
            seller: taker.account,
            notional,
            buyer_fee: maker_fee,
            seller_fee: taker_fee,
            buyer_held: true,
        },
    }
}

/// What is said of a trade; `taker` is as the trade left it, `fees` the maker's and the taker's.
#[inline]
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
        maker_handle: maker.handle.into(),
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

/// Fee on `notional`, rounded toward the house.
#[inline]
fn fee(notional: u64, bps: u64) -> u64 {
    (notional * bps).div_ceil(10_000)
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

impl Machine {
    /// Funds held for `quantity` credits of a resting buy order.
    #[inline]
    fn buy_hold(&self, book: usize, price: u16, quantity: u32) -> u64 {
        let notional = notional(&self.books[book], price, quantity);
        notional + fee(notional, self.maker_fee_bps)
    }

    /// The most that a buy order can cost, whatever part of it takes and whatever part makes:
    /// the higher fee on all of it, and a micro-unit because both parts may be rounded up.
    fn buy_cost_max(&self, book: usize, price: u16, quantity: u32) -> u64 {
        let notional = notional(&self.books[book], price, quantity);
        let bps = self.maker_fee_bps.max(self.taker_fee_bps);
        notional + fee(notional, bps) + u64::from(bps > 0)
    }

    /// Checks a book, price and quantity and returns the price.
    fn check_terms(&self, book: u16, price: u32, quantity: u32) -> Result<u16, Reject> {
        let book = self.books.get(usize::from(book)).ok_or(Reject::UnknownBook)?;
        if price == 0 || price > u32::from(book.price_max) {
            return Err(Reject::BadPrice);
        }
        if quantity == 0 || quantity > book.quantity_max {
            return Err(Reject::BadQuantity);
        }
        Ok(price as u16)
    }

    pub(super) fn new_order(
        &mut self,
        env: &Envelope,
        terms: NewOrderTerms<'_>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let m = terms.message;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let instance = self.acting_instance(env, m.instance.get())?;
        let limit = match (terms.order_type, terms.side) {
            (OrderType::Market, Side::Sell) => 1,
            _ => m.price_ticks.get(),
        };
        let limit = self.check_terms(m.book.get(), limit, m.quantity.get())?;
        let book = usize::from(m.book.get());
        if self.instances[usize::from(instance)].tier != self.books[book].tier {
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
        let account = self.owner[usize::from(instance)];
        if m.post_only == 1 && self.would_trade(book, terms.side, limit, account) {
            return Err(Reject::WouldCross);
        }
        self.use_client_id(env, client_id);
        self.enter(env, &terms, limit, instance, out);
        Ok(())
    }

    /// Checks that free funds or credits, with `released` added, cover an order.
    fn check_cover(
        &self,
        instance: u16,
        book: usize,
        side: Side,
        price: u16,
        quantity: u32,
        released: u64,
    ) -> Result<(), Reject> {
        match side {
            Side::Buy => {
                let account = self.owner[usize::from(instance)];
                let free = self.ledger.funds[usize::from(account)].free + released;
                if free < self.buy_cost_max(book, price, quantity) {
                    return Err(Reject::InsufficientFunds);
                }
            }
            Side::Sell => {
                let free = self.ledger.credit(instance, self.books[book].resource).free;
                if free + released < milli(quantity) {
                    return Err(Reject::InsufficientCredits);
                }
            }
        }
        Ok(())
    }

    /// Takes a slot for a checked order, reports it accepted, matches it, rests or cancels what
    /// is left.
    #[inline]
    fn enter(
        &mut self,
        env: &Envelope,
        terms: &NewOrderTerms<'_>,
        limit: u16,
        instance: u16,
        out: &mut Outbox,
    ) {
        let m = terms.message;
        let book = usize::from(m.book.get());
        let account = self.owner[usize::from(instance)];
        let slot = self.slab.take(instance);
        let dated = terms.time_in_force == TimeInForce::Gtd;
        let node = &mut self.slab.nodes[slot as usize];
        node.client_id = m.client_id.get();
        node.instance = instance;
        node.session = env.session as u16;
        node.price = limit;
        node.place = m.book.get() << 2 | u16::from(dated) << 1 | terms.side as u16;
        let mut taker = Taker {
            client_id: m.client_id.get(),
            handle: self.slab.handle(slot),
            notional: 0,
            session: env.session,
            remaining: m.quantity.get(),
            book: m.book.get(),
            instance,
            account,
            limit,
            side: terms.side,
            cancel_maker: m.self_trade == 1,
        };
        self.report_accepted(env, m, &taker, out);
        let kill = terms.time_in_force == TimeInForce::Fok
            && !self.fills_whole(book, terms.side, limit, account, &taker);
        let stopped = if kill {
            Some(CancelReason::Unmatched)
        } else {
            self.match_taker(env, &mut taker, out)
        };
        let rests = terms.order_type == OrderType::Limit
            && matches!(terms.time_in_force, TimeInForce::Gtc | TimeInForce::Gtd);
        if taker.remaining == 0 {
            self.slab.give_back(slot);
        } else if rests && stopped.is_none() {
            self.rest(slot, &taker, out);
            if dated {
                self.expiry.insert(slot, m.expires_at_ms.get());
            }
        } else {
            self.slab.nodes[slot as usize].quantity = taker.remaining;
            let reason = stopped.unwrap_or(CancelReason::Unmatched);
            self.report_cancelled(env, slot, reason, out);
            self.slab.give_back(slot);
        }
        let resource = self.books[book].resource;
        self.reassess(instance, resource, out);
    }

    /// Appends a checked order's rest to its level and holds what it could cost.
    #[inline]
    fn rest(&mut self, slot: u32, taker: &Taker, out: &mut Outbox) {
        let book = usize::from(taker.book);
        match taker.side {
            Side::Buy => {
                let hold = self.buy_hold(book, taker.limit, taker.remaining);
                self.ledger.hold_funds(taker.account, hold);
            }
            Side::Sell => {
                let resource = self.books[book].resource;
                self.ledger.hold_credits(taker.instance, resource, milli(taker.remaining));
            }
        }
        let side = taker.side as usize;
        let ladder = &mut self.books[book].sides[side];
        let level = ladder.level_mut(taker.limit);
        let tail = level.tail;
        level.tail = slot;
        level.quantity += u64::from(taker.remaining);
        if tail == NONE {
            level.head = slot;
            ladder.mark(taker.limit);
        } else {
            self.slab.nodes[tail as usize].next = slot;
        }
        let node = &mut self.slab.nodes[slot as usize];
        node.prev = tail;
        node.next = NONE;
        node.quantity = taker.remaining;
        self.books[book].orders += 1;
        self.sessions[taker.session as usize].orders += 1;
        self.report_level(book, taker.side, taker.limit, out);
    }

    /// True if an order would trade at once or meet its own account.
    fn would_trade(&self, book: usize, side: Side, limit: u16, account: u16) -> bool {
        let taker = &self.accounts[usize::from(account)];
        let opposite = side.opposite();
        let mut next = self.books[book].best(opposite);
        while let Some(price) = next.filter(|&price| crosses(side, limit, price)) {
            let mut slot = self.books[book].sides[opposite as usize].level(price).head;
            while slot != NONE {
                let node = &self.slab.nodes[slot as usize];
                let maker_account = self.owner[usize::from(node.instance)];
                let maker = &self.accounts[usize::from(maker_account)];
                if maker_account == account || may_meet(side, taker, maker) {
                    return true;
                }
                slot = node.next;
            }
            next = self.books[book].worse(opposite, price);
        }
        false
    }

    /// True if a fill-or-kill order finds all its quantity.
    fn fills_whole(
        &self,
        book: usize,
        side: Side,
        limit: u16,
        account: u16,
        taker: &Taker,
    ) -> bool {
        let own = &self.accounts[usize::from(account)];
        let opposite = side.opposite();
        let mut wanted = taker.remaining;
        let mut next = self.books[book].best(opposite);
        while let Some(price) = next.filter(|&price| crosses(side, limit, price)) {
            let mut slot = self.books[book].sides[opposite as usize].level(price).head;
            while slot != NONE {
                let node = &self.slab.nodes[slot as usize];
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
                slot = node.next;
            }
            next = self.books[book].worse(opposite, price);
        }
        false
    }

    /// Matches until nothing crosses or nothing is left. Says why if the rest must go.
    #[inline]
    fn match_taker(
        &mut self,
        env: &Envelope,
        taker: &mut Taker,
        out: &mut Outbox,
    ) -> Option<CancelReason> {
        let book = usize::from(taker.book);
        let opposite = taker.side.opposite();
        let mut next = self.books[book].best(opposite);
        while let Some(price) = next.filter(|&price| crosses(taker.side, taker.limit, price)) {
            let stopped = self.match_level(env, taker, price, out);
            if stopped.is_some() || taker.remaining == 0 {
                return stopped;
            }
            next = self.books[book].worse(opposite, price);
        }
        None
    }

    fn match_level(
        &mut self,
        env: &Envelope,
        taker: &mut Taker,
        price: u16,
        out: &mut Outbox,
    ) -> Option<CancelReason> {
        let book = usize::from(taker.book);
        let side = taker.side.opposite();
        let mut slot = self.books[book].sides[side as usize].level(price).head;
        let mut stopped = None;
        let mut changed = false;
        while slot != NONE && taker.remaining > 0 {
            let maker = self.slab.nodes[slot as usize];
            let maker_account = self.owner[usize::from(maker.instance)];
            if maker_account == taker.account {
                if !taker.cancel_maker {
                    stopped = Some(CancelReason::SelfTrade);
                    break;
                }
                changed = true;
                self.remove(env, slot, CancelReason::SelfTrade, out);
            } else if may_meet(
                taker.side,
                &self.accounts[usize::from(taker.account)],
                &self.accounts[usize::from(maker_account)],
            ) {
                changed = true;
                self.fill(taker, slot, &maker, maker_account, out);
            }
            slot = maker.next;
        }
        if changed {
            self.report_level(book, side, price, out);
        }
        stopped
    }

    /// One trade between the taker and the maker in `slot`, settled on the spot.
    #[inline]
    fn fill(
        &mut self,
        taker: &mut Taker,
        slot: u32,
        maker: &Node,
        maker_account: u16,
        out: &mut Outbox,
    ) {
        let at = usize::from(taker.book);
        let book = &mut self.books[at];
        let quantity = taker.remaining.min(maker.quantity);
        let unit = u64::from(maker.price) * book.tick_micro;
        let amount = unit * u64::from(quantity);
        let left = unit * u64::from(maker.quantity - quantity);
        let maker_fee = fee(left + amount, self.maker_fee_bps) - fee(left, self.maker_fee_bps);
        let taker_fee = fee(taker.notional + amount, self.taker_fee_bps)
            - fee(taker.notional, self.taker_fee_bps);
        taker.notional += amount;
        taker.remaining -= quantity;
        book.trades += 1;
        book.volume += u64::from(quantity);
        book.last = maker.price;
        let resource = book.resource;
        let level = book.sides[taker.side.opposite() as usize].level_mut(maker.price);
        level.quantity -= u64::from(quantity);
        let buying = taker.side == Side::Buy;
        let funds = funds_of(taker, maker_account, amount, (maker_fee, taker_fee));
        self.ledger.settle_funds(&funds);
        let (seller, buyer) = if buying {
            ((maker.instance, true), taker.instance)
        } else {
            ((taker.instance, false), maker.instance)
        };
        self.ledger.settle_credits(seller, buyer, resource, milli(quantity));
        self.trades += 1;
        self.fold(self.trades ^ u64::from(slot) << 32 ^ u64::from(quantity));
        let handle = self.slab.handle(slot);
        let resting = Resting { node: maker, handle, account: maker_account };
        let event = fill_event(self.trades, taker, &resting, quantity, (maker_fee, taker_fee));
        out.push(ANY, &event);
        if quantity == maker.quantity {
            self.unlink(slot, maker);
        } else {
            self.slab.nodes[slot as usize].quantity = maker.quantity - quantity;
        }
        self.reassess(maker.instance, resource, out);
    }

    /// Takes an order whose quantity the level no longer counts out of its queue and frees it.
    #[inline]
    fn unlink(&mut self, slot: u32, node: &Node) {
        let book = &mut self.books[node.book()];
        let ladder = &mut book.sides[node.side()];
        let level = ladder.level_mut(node.price);
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
            assert!(level.quantity == 0, "an empty level still counts credits");
            ladder.clear(node.price);
        }
        book.orders -= 1;
        if node.dated() {
            self.expiry.remove(slot);
        }
        self.sessions[usize::from(node.session)].orders -= 1;
        self.slab.give_back(slot);
    }

    /// Releases what a resting order holds.
    fn release_hold(&mut self, node: &Node) {
        if node.side() == Side::Buy as usize {
            let hold = self.buy_hold(node.book(), node.price, node.quantity);
            let account = self.owner[usize::from(node.instance)];
            self.ledger.release_funds(account, hold);
        } else {
            let resource = self.books[node.book()].resource;
            self.ledger.release_credits(node.instance, resource, milli(node.quantity));
        }
    }

    /// Cancels a resting order: releases its hold, reports it, frees its slot. The caller
    /// reports the level.
    fn remove(&mut self, env: &Envelope, slot: u32, reason: CancelReason, out: &mut Outbox) {
        let node = self.slab.nodes[slot as usize];
        self.release_hold(&node);
        self.report_cancelled(env, slot, reason, out);
        let ladder = &mut self.books[node.book()].sides[node.side()];
        ladder.level_mut(node.price).quantity -= u64::from(node.quantity);
        self.unlink(slot, &node);
        self.fold(u64::from(slot) << 8 | reason as u64);
        let resource = self.books[node.book()].resource;
        self.reassess(node.instance, resource, out);
    }

    /// [`Machine::remove`], with the level's report.
    pub(super) fn cancel_order(
        &mut self,
        env: &Envelope,
        slot: u32,
        reason: CancelReason,
        out: &mut Outbox,
    ) {
        let node = self.slab.nodes[slot as usize];
        self.remove(env, slot, reason, out);
        self.report_level(node.book(), side_of(&node), node.price, out);
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
        let price = self.check_terms(node.book() as u16, price, quantity)?;
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
        self.check_cover(node.instance, node.book(), side, price, quantity, released)?;
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
        let ladder = &mut self.books[node.book()].sides[node.side()];
        ladder.level_mut(node.price).quantity -= u64::from(node.quantity);
        self.unlink(slot, &node);
        self.report_level(node.book(), side_of(&node), node.price, out);
        let slot = self.slab.take(node.instance);
        let side = side_of(&node);
        let fresh = &mut self.slab.nodes[slot as usize];
        *fresh = Node {
            generation: fresh.generation,
            client_id: m.client_id.get(),
            session: env.session as u16,
            price,
            ..node
        };
        let mut taker = Taker {
            client_id: m.client_id.get(),
            handle: self.slab.handle(slot),
            notional: 0,
            session: env.session,
            remaining: m.quantity.get(),
            book: node.book() as u16,
            instance: node.instance,
            account: self.owner[usize::from(node.instance)],
            limit: price,
            side,
            cancel_maker: false,
        };
        self.report_replaced(env, m, taker.handle, out);
        let stopped = self.match_taker(env, &mut taker, out);
        if taker.remaining == 0 {
            self.slab.give_back(slot);
        } else if let Some(reason) = stopped {
            self.slab.nodes[slot as usize].quantity = taker.remaining;
            self.report_cancelled(env, slot, reason, out);
            self.slab.give_back(slot);
        } else {
            self.rest(slot, &taker, out);
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

    #[inline]
    fn report_accepted(&mut self, env: &Envelope, m: &NewOrder, taker: &Taker, out: &mut Outbox) {
        self.fold(taker.handle);
        let report = Accepted {
            request: env.request.into(),
            client_id: m.client_id,
            handle: taker.handle.into(),
            time_ns: env.time_ns.into(),
            instance: u32::from(taker.instance).into(),
            price_ticks: u32::from(taker.limit).into(),
            quantity: m.quantity,
            book: m.book,
            side: m.side,
            reserved: 0,
        };
        out.push(env.session, &report);
    }

    /// Reports a cancel to the order's session and, if another one asked for it, to that one too.
    fn report_cancelled(&self, env: &Envelope, slot: u32, reason: CancelReason, out: &mut Outbox) {
        let node = &self.slab.nodes[slot as usize];
        let own = u32::from(node.session) == env.session;
        let mut report = Cancelled {
            request: if own { env.request } else { 0 }.into(),
            client_id: node.client_id.into(),
            handle: self.slab.handle(slot).into(),
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
        let level = self.books[book].sides[side as usize].level(price);
        let event = LevelChanged {
            quantity: level.quantity.into(),
            price_ticks: u32::from(price).into(),
            book: (book as u16).into(),
            side: side as u8,
            reserved: 0,
        };
        out.push(ANY, &event);
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
