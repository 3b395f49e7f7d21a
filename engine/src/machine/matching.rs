//! Matching: an incoming order meets the resting ones it faces.
//!
//! Price, then time, exactly. Orders whose accounts may not meet pass one another without losing
//! their place.

use super::command::Envelope;
use super::event::{Fill, Outbox};
use super::expiry::Expiry;
use super::ladder::Ladder;
use super::ledger::{self, Gap, Pocket, Sale};
use super::orders::{Incoming, fee, milli, report_cancelled};
use super::queue;
use super::reversal::{Kept, keep};
use super::slab::{Node, Shares, foresee, handle};
use super::tables::{Account, Session};
use super::{Machine, fold};
use vendue_wire::code::{CancelReason, Resource, Side};
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
        let facing = &self.books[usize::from(order.book)].sides[side.opposite() as usize];
        let limit = facing.level_of(order.limit);
        if facing.best() > limit {
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
        let mut walk = self.floor(order, side).begin(limit);
        let stopped = loop {
            match self.floor(order, side).eat(order, &mut taken, side, &mut walk, out) {
                Pause::End => break None,
                Pause::Own if !order.cancel_maker => {
                    self.floor(order, side).leave(&mut walk);
                    break Some(CancelReason::SelfTrade);
                }
                Pause::Own => {
                    // It may be the taker's own instance, whose burst is judged by all its trades.
                    self.post_taker(order, &mut taken);
                    walk.slot = self.cancel_own(env, order, walk.slot, out);
                    (walk.gap, walk.gone) = (true, walk.gone + 1);
                }
                Pause::Flip(instance) => self.follow_maker(instance, order.resource, out),
            }
        };
        self.post_taker(order, &mut taken);
        let book = &mut self.books[usize::from(order.book)];
        book.orders -= walk.gone;
        if self.trades > trades {
            book.trades += self.trades - trades;
            book.volume += u64::from(wanted - order.remaining);
            book.last = book.sides[side.opposite() as usize].price_of(walk.traded);
        }
        stopped
    }

    /// The tables as fills change them.
    #[inline(always)]
    fn floor(&mut self, order: &Incoming, taker: Side) -> Floor<'_> {
        let [funds, credits] = self.ledger.pockets_mut();
        let credits = &mut credits[order.resource as usize..];
        let (book, facing) = (&mut self.books[usize::from(order.book)], taker.opposite());
        Floor {
            queues: book.queues[facing as usize],
            facing: &mut book.sides[facing as usize],
            nodes: &mut self.slab.nodes,
            shares: &mut self.slab.shares,
            owner: &self.owner,
            accounts: &self.accounts,
            sessions: &mut self.sessions,
            expiry: &mut self.expiry,
            kept: &mut self.kept,
            pockets: if taker == Side::Buy { (credits, funds) } else { (funds, credits) },
            trades: &mut self.trades,
            digest: &mut self.digest,
            maker_bps: self.fees.maker_bps,
            taker_bps: self.fees.taker_bps,
        }
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

    /// Cancels an order that the taker's own account has in its way. Returns the one behind it.
    #[cold]
    fn cancel_own(&mut self, env: &Envelope, order: &Incoming, slot: u32, out: &mut Outbox) -> u32 {
        let node = self.slab.nodes[slot as usize];
        self.release_hold(&node);
        self.note_gone(node.tag, node.quantity);
        let reason = CancelReason::SelfTrade;
        report_cancelled(env, slot, &node, reason, out);
        self.retire(slot, node.tag);
        self.fold(u64::from(slot) << 8 | reason as u64);
        self.reassess(node.tag.instance(), order.resource, out);
        node.next
    }
}

/// Where an order is among those it faces. Whoever leaves is bridged only once the next one that
/// stays is known, so that eating a queue from its head costs one change of links.
struct Walk {
    /// The last level it may reach.
    limit: u32,
    level: u32,
    sentinel: u32,
    /// Who is met next, or the sentinel.
    slot: u32,
    /// The last one that stays, or the sentinel.
    kept: u32,
    /// Whether some have left after it.
    gap: bool,
    /// How many have left, at all levels.
    gone: u32,
    /// Level of the last trade.
    traded: u32,
}

/// Why fills pause.
enum Pause {
    /// The queue or the order is through.
    End,
    /// The next one is of the order's own account.
    Own,
    /// A maker's burst flips.
    Flip(u16),
}

/// The tables that fills read and change, each borrowed once for many fills: a loop that reached for
/// them through the machine would fetch where each one begins and ends every time.
struct Floor<'a> {
    /// The side of the book that is met...
    facing: &'a mut Ladder,
    /// ...and the first of its sentinels.
    queues: u32,
    nodes: &'a mut [Node],
    shares: &'a mut Shares,
    owner: &'a [u16],
    accounts: &'a [Account],
    sessions: &'a mut [Session],
    expiry: &'a mut Expiry,
    /// The newest trades, for who may have to reverse them.
    kept: &'a mut [Kept],
    /// What makers spend and what they gain: funds by account, credits from the first instance's of
    /// the book's resource on.
    pockets: (&'a mut [Pocket], &'a mut [Pocket]),
    trades: &'a mut u64,
    digest: &'a mut u64,
    maker_bps: u64,
    taker_bps: u64,
}

impl Floor<'_> {
    /// The beginning of the best level.
    #[inline(always)]
    fn begin(&self, limit: u32) -> Walk {
        let level = self.facing.best();
        let sentinel = self.queues + level;
        let slot = self.nodes[sentinel as usize].next;
        Walk { limit, level, sentinel, slot, kept: sentinel, gap: false, gone: 0, traded: level }
    }

    /// Trades with those who may, level by level, oldest first.
    #[inline(always)]
    fn eat(
        &mut self,
        order: &mut Incoming,
        taken: &mut Taken,
        taker: Side,
        walk: &mut Walk,
        out: &mut Outbox,
    ) -> Pause {
        loop {
            while walk.slot != walk.sentinel && order.remaining > 0 {
                let slot = walk.slot;
                let node = &self.nodes[slot as usize];
                let (next, instance) = (node.next, node.tag.instance());
                foresee(self.nodes, next);
                let account = self.owner[usize::from(instance)];
                if account == order.account {
                    return Pause::Own;
                }
                if !taken.may_meet(taker, &self.accounts[usize::from(account)]) {
                    if walk.gap {
                        queue::join(self.nodes, walk.kept, slot);
                    }
                    (walk.kept, walk.gap, walk.slot) = (slot, false, next);
                    continue;
                }
                let (left, flips) = self.fill(order, taken, (taker, slot, account), out);
                walk.traded = walk.level;
                if left == 0 {
                    (walk.gap, walk.gone, walk.slot) = (true, walk.gone + 1, next);
                }
                if flips {
                    return Pause::Flip(instance);
                }
            }
            self.leave(walk);
            if order.remaining == 0 {
                return Pause::End;
            }
            // What is before the best level has just been left empty.
            let best = self.facing.best();
            walk.level = if best > walk.level { best } else { self.facing.after(walk.level) };
            if walk.level > walk.limit {
                return Pause::End;
            }
            walk.sentinel = self.queues + walk.level;
            walk.slot = self.nodes[walk.sentinel as usize].next;
            walk.kept = walk.sentinel;
        }
    }

    /// Bridges those who have left a level, which may now be empty.
    #[inline(always)]
    fn leave(&mut self, walk: &mut Walk) {
        if walk.gap {
            queue::join(self.nodes, walk.kept, walk.slot);
            walk.gap = false;
            if walk.kept == walk.slot {
                self.facing.clear(walk.level);
            }
        }
    }

    /// One trade between an incoming order and the resting one in a slot, whose side is posted on
    /// the spot. Returns what the maker still wants, who has left if that is nothing, and whether
    /// its burst flips.
    #[inline(always)]
    fn fill(
        &mut self,
        order: &mut Incoming,
        taken: &mut Taken,
        (taker, slot, account): (Side, u32, u16),
        out: &mut Outbox,
    ) -> (u32, bool) {
        let node = &mut self.nodes[slot as usize];
        // Field by field: a copy of the whole would wait for stores of its parts.
        let Node { quantity: open, generation, client_id, tag, .. } = *node;
        let quantity = order.remaining.min(open);
        let left = open - quantity;
        let unit = u64::from(tag.price()) * order.tick_micro;
        let notional = unit * u64::from(quantity);
        // What the maker's fee for all of it was, less what it is for the rest.
        let mut maker_fee = fee(unit * u64::from(open), self.maker_bps);
        if left > 0 {
            maker_fee -= fee(unit * u64::from(left), self.maker_bps);
        }
        taken.maker_fees += maker_fee;
        taken.notional += notional;
        let fee_before = taken.fee;
        taken.fee = fee(taken.notional, self.taker_bps);
        order.remaining -= quantity;
        let (funds, credits) =
            (usize::from(account), ledger::pocket(tag.instance(), Resource::ALL[0]));
        let at = if taker == Side::Buy { (credits, funds) } else { (funds, credits) };
        let (spent, gained) = (&mut self.pockets.0[at.0], &mut self.pockets.1[at.1]);
        let sale = Sale { notional, fee: maker_fee, milli: milli(quantity) };
        taken.gap.maker(taker.opposite(), &sale, &mut spent.balance, &mut gained.balance);
        // Funds never flip.
        let flips = if taker == Side::Buy { spent.flips() } else { gained.flips() };
        *self.trades += 1;
        fold(self.digest, *self.trades ^ u64::from(slot) << 32 ^ u64::from(quantity));
        // The words of a `Fill`.
        let words = [
            *self.trades,
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
        let fees = [maker_fee, taken.fee - fee_before];
        keep(self.kept, *self.trades, Kept::new(fees, [tag, order.tag], quantity));
        if left > 0 {
            node.quantity = left;
        } else {
            if tag.dated() {
                self.expiry.remove(slot);
            }
            self.sessions[usize::from(tag.session())].orders -= 1;
            self.shares.give_back(node, slot, tag.instance());
        }
        (left, flips)
    }
}
