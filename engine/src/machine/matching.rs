//! Matching: an incoming order meets the resting ones it faces.
//!
//! Price, then time, exactly. Orders whose accounts may not meet pass one another without losing
//! their place.

use super::Machine;
use super::command::Envelope;
use super::event::{Fill, Outbox};
use super::ledger::{Gap, Sale};
use super::orders::{Incoming, fee, milli, report_cancelled};
use super::queue;
use super::slab::{Node, handle};
use super::tables::Account;
use vendue_wire::code::{CancelReason, Side};
use vendue_wire::message::ANY;

/// What an incoming order has done so far.
struct Taken {
    /// Groups it may trade with.
    meets: u64,
    /// Its account's group.
    group: u32,
    /// Notional traded so far: fees are charged on the running total, so that many small fills
    /// cost what one large one does.
    notional: u64,
    /// Fee on `notional`.
    fee: u64,
    /// Fees of its makers.
    maker_fees: u64,
    /// Postings not yet brought into the ledger.
    gap: Gap,
    /// What of its own side has been posted.
    posted: Posted,
}

/// A taker's totals when they were posted last.
#[derive(Clone, Copy)]
struct Posted {
    notional: u64,
    fee: u64,
    remaining: u32,
}

impl Taken {
    /// True if both accounts allow the trade.
    #[inline(always)]
    fn may_meet(&self, taker: Side, maker: &Account) -> bool {
        let meets = if taker == Side::Buy { maker.sells_to } else { maker.buys_from };
        (self.meets >> maker.group) & (meets >> self.group) & 1 == 1
    }
}

/// True if both accounts allow the trade.
fn may_meet(taker_side: Side, taker: &Account, maker: &Account) -> bool {
    match taker_side {
        Side::Buy => maker.may_sell_to(taker),
        Side::Sell => taker.may_sell_to(maker),
    }
}

impl Machine {
    /// The resting orders an order of this limit would meet, in the order it would meet them.
    fn facing(&self, book: usize, side: Side, limit: u16) -> impl Iterator<Item = &Node> {
        let (book, side) = (&self.books[book], side.opposite() as usize);
        let limit = book.sides[side].level_of(limit);
        let levels = book.sides[side].occupied().take_while(move |&level| level <= limit);
        levels.flat_map(move |level| {
            let sentinel = book.queues[side] + level;
            let next = move |at: u32| {
                let next = self.slab.nodes[at as usize].next;
                (next != sentinel).then_some(next)
            };
            let slots = std::iter::successors(next(sentinel), move |&slot| next(slot));
            slots.map(|slot| &self.slab.nodes[slot as usize])
        })
    }

    /// True if an order would trade at once or meet its own account.
    #[cold]
    pub(super) fn would_trade(&self, book: u16, side: Side, limit: u32, instance: u32) -> bool {
        let (Some(_), Some(&account)) =
            (self.books.get(usize::from(book)), self.owner.get(instance as usize))
        else {
            return false;
        };
        let taker = &self.accounts[usize::from(account)];
        let limit = limit.min(self.books[usize::from(book)].price_max.into()) as u16;
        self.facing(usize::from(book), side, limit).any(|node| {
            let maker_account = self.owner[usize::from(node.tag.instance())];
            let maker = &self.accounts[usize::from(maker_account)];
            maker_account == account || may_meet(side, taker, maker)
        })
    }

    /// True if a fill-or-kill order finds all its quantity.
    pub(super) fn fills_whole(&self, order: &Incoming) -> bool {
        let own = &self.accounts[usize::from(order.account)];
        let mut wanted = order.remaining;
        for node in self.facing(usize::from(order.book), order.side, order.limit) {
            let maker_account = self.owner[usize::from(node.tag.instance())];
            if maker_account == order.account {
                if !order.cancel_maker {
                    return false;
                }
            } else if may_meet(order.side, own, &self.accounts[usize::from(maker_account)]) {
                wanted = wanted.saturating_sub(node.quantity);
                if wanted == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// Matches an order until nothing it faces crosses or nothing of it is left; then brings the
    /// book's and the ledger's totals up. Says why if the rest must go.
    pub(super) fn match_order(
        &mut self,
        env: &Envelope,
        order: &mut Incoming,
        out: &mut Outbox,
    ) -> Option<CancelReason> {
        // A copy of the code for each side, in which the side is known.
        match order.side {
            Side::Buy => self.match_side(env, order, Side::Buy, out),
            Side::Sell => self.match_side(env, order, Side::Sell, out),
        }
    }

    #[inline(always)]
    fn match_side(
        &mut self,
        env: &Envelope,
        order: &mut Incoming,
        side: Side,
        out: &mut Outbox,
    ) -> Option<CancelReason> {
        let (book, opposite) = (usize::from(order.book), side.opposite() as usize);
        let facing = &self.books[book].sides[opposite];
        let limit = facing.level_of(order.limit);
        let mut level = facing.best();
        if level > limit {
            return None;
        }
        let row = &self.accounts[usize::from(order.account)];
        let mut taken = Taken {
            meets: if side == Side::Buy { row.buys_from } else { row.sells_to },
            group: row.group,
            notional: 0,
            fee: 0,
            maker_fees: 0,
            gap: Gap::default(),
            posted: Posted { notional: 0, fee: 0, remaining: order.remaining },
        };
        let (trades, wanted) = (self.trades, order.remaining);
        let stopped = loop {
            let stopped = self.match_level(env, order, &mut taken, (side, level), out);
            if stopped.is_some() || order.remaining == 0 {
                break stopped;
            }
            level = self.books[book].sides[opposite].after(level);
            if level > limit {
                break None;
            }
        };
        self.post_taker(order, &mut taken);
        let book = &mut self.books[book];
        book.trades += self.trades - trades;
        book.volume += u64::from(wanted - order.remaining);
        stopped
    }

    /// Meets a level's orders, oldest first. Whoever leaves is bridged only once the next one that
    /// stays is known, so that eating a queue from its head costs one change of links.
    #[inline(always)]
    fn match_level(
        &mut self,
        env: &Envelope,
        order: &mut Incoming,
        taken: &mut Taken,
        (taker, level): (Side, u32),
        out: &mut Outbox,
    ) -> Option<CancelReason> {
        let (at, side) = (usize::from(order.book), taker.opposite());
        let book = &self.books[at];
        let price = book.sides[side as usize].price_of(level);
        let sentinel = book.queues[side as usize] + level;
        let mut slot = self.slab.nodes[sentinel as usize].next;
        let trades = self.trades;
        // The last order that stays, and whether and how many after it have left.
        let (mut kept, mut gap, mut gone) = (sentinel, false, 0);
        let mut stopped = None;
        while slot != sentinel && order.remaining > 0 {
            let node = &self.slab.nodes[slot as usize];
            let (next, quantity) = (node.next, node.quantity);
            let account = self.owner[usize::from(node.tag.instance())];
            if account == order.account {
                if !order.cancel_maker {
                    stopped = Some(CancelReason::SelfTrade);
                    break;
                }
                self.cancel_own(env, order, taken, slot, out);
            } else if taken.may_meet(taker, &self.accounts[usize::from(account)]) {
                if self.fill(order, taken, (side, slot, account), out) < quantity {
                    break;
                }
            } else {
                if gap {
                    queue::join(&mut self.slab.nodes, kept, slot);
                }
                (kept, gap, slot) = (slot, false, next);
                continue;
            }
            (gap, gone, slot) = (true, gone + 1, next);
        }
        if gap {
            queue::join(&mut self.slab.nodes, kept, slot);
        }
        let book = &mut self.books[at];
        book.orders -= gone;
        if self.trades != trades {
            book.last = price;
        }
        if self.slab.nodes[sentinel as usize].next == sentinel {
            book.sides[side as usize].clear(level);
        }
        stopped
    }

    /// One trade between an incoming order and the resting one in a slot, whose side is posted on
    /// the spot. Returns the quantity; a maker that is filled whole has left.
    #[inline(always)]
    fn fill(
        &mut self,
        order: &mut Incoming,
        taken: &mut Taken,
        (side, slot, account): (Side, u32, u16),
        out: &mut Outbox,
    ) -> u32 {
        // Field by field: a copy of the whole would wait for stores of its parts.
        let Node { quantity: open, generation, client_id, tag, .. } =
            self.slab.nodes[slot as usize];
        let quantity = order.remaining.min(open);
        let left = open - quantity;
        let unit = u64::from(tag.price()) * order.tick_micro;
        let notional = unit * u64::from(quantity);
        // What the maker's fee for all of it was, less what it is for the rest.
        let mut maker_fee = fee(unit * u64::from(open), self.fees.maker_bps);
        if left > 0 {
            maker_fee -= fee(unit * u64::from(left), self.fees.maker_bps);
        }
        taken.maker_fees += maker_fee;
        taken.notional += notional;
        let fee_before = taken.fee;
        taken.fee = fee(taken.notional, self.fees.taker_bps);
        order.remaining -= quantity;
        let (spent, gained) = self.ledger.pockets(side, account, tag.instance(), order.resource);
        let sale = Sale { notional, fee: maker_fee, milli: milli(quantity) };
        taken.gap.maker(side, &sale, &mut spent.balance, &mut gained.balance);
        let flips = spent.flips() | gained.flips();
        self.trades += 1;
        self.fold(self.trades ^ u64::from(slot) << 32 ^ u64::from(quantity));
        // The words of a `Fill`.
        let words = [
            self.trades,
            client_id,
            order.client_id,
            handle(slot, generation),
            handle(order.slot, order.generation),
            maker_fee,
            taken.fee - fee_before,
            u64::from(quantity) | u64::from(left) << 32,
            u64::from(order.remaining) | u64::from(account) << 32 | u64::from(order.account) << 48,
            tag.0,
            order.tag.0,
        ];
        out.push_words::<Fill, 11>(ANY, words);
        if left == 0 {
            self.retire(slot, tag);
        } else {
            self.slab.nodes[slot as usize].quantity = left;
        }
        if flips {
            self.flip(tag.instance(), order.resource, out);
        }
        quantity
    }

    /// Posts the taker's side of its trades since the last time, all at once, and brings the
    /// postings into the ledger.
    #[inline(always)]
    fn post_taker(&mut self, order: &Incoming, taken: &mut Taken) {
        let posted = taken.posted;
        let fee = taken.fee - posted.fee;
        let sale = Sale {
            notional: taken.notional - posted.notional,
            fee,
            milli: milli(posted.remaining - order.remaining),
        };
        let Incoming { side, account, instance, resource, .. } = *order;
        let (spent, gained) = self.ledger.pockets(side, account, instance, resource);
        taken.gap.taker(side, &sale, &mut spent.balance, &mut gained.balance);
        self.ledger.close(taken.gap, taken.maker_fees + fee);
        (taken.gap, taken.maker_fees) = (Gap::default(), 0);
        taken.posted =
            Posted { notional: taken.notional, fee: taken.fee, remaining: order.remaining };
    }

    /// Cancels an order that the taker's own account has in its way.
    #[cold]
    fn cancel_own(
        &mut self,
        env: &Envelope,
        order: &Incoming,
        taken: &mut Taken,
        slot: u32,
        out: &mut Outbox,
    ) {
        let node = self.slab.nodes[slot as usize];
        // The maker may be the taker's own instance, whose burst is judged by all its trades.
        self.post_taker(order, taken);
        self.release_hold(&node);
        let reason = CancelReason::SelfTrade;
        report_cancelled(env, slot, &node, reason, out);
        self.retire(slot, node.tag);
        self.fold(u64::from(slot) << 8 | reason as u64);
        self.reassess(node.tag.instance(), order.resource, out);
    }
}
