//! Call auctions: what gathered in a book trades at once, all at one price.
//!
//! **Price.** Of all prices, whether or not an order stands there, the one at which the most
//! credits could trade; of those the one with the least imbalance (credits wanted less credits
//! offered); of those, which lie side by side, the one nearest the last price, or the middle one,
//! rounded down, if the book has no last price. So no two prices are ever equally near. All orders
//! count, whoever may meet whom.
//!
//! **Allocation.** Buy orders that pay the price, best first and then oldest, each take from the
//! sell orders that accept it, best first and then oldest. Orders whose accounts may not meet, or
//! of one account, pass one another and keep their places. What is left stays where it stands, also
//! if it crosses; no order that may trade at the price is left beside one it may meet.
//!
//! **Money.** Both rested, so both pay the maker's fee, reckoned on what is open as for any maker,
//! at the auction's price. What a buyer held for a higher price is free again.
//!
//! **Bound.** Every trade uses up an order, so there are fewer trades than orders. The next sell
//! order that a buyer may meet is found in lists by group of seller, which each group of buyers
//! goes through once: 64 steps an order at most, whatever the masks.

use super::config::MILLI;
use super::event::{AuctionTrade, Outbox, Uncrossed};
use super::ladder::NONE;
use super::ledger::{Gap, Sale};
use super::orders::fee;
use super::queue;
use super::reversal::{Kept, keep};
use super::slab::{Node, Slab, Tag, foresee, handle};
use super::tables::{Account, Book};
use super::{Machine, fold};
use vendue_wire::code::{Resource, Side};
use vendue_wire::message::ANY;
use zerocopy::FromZeros;

/// What an auction would do, or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indication {
    /// Price in ticks, 0 if nothing crosses.
    pub price: u16,
    /// Credits that could trade at it.
    pub volume: u64,
    /// Credits wanted less credits offered at it.
    pub imbalance: i64,
}

impl Indication {
    /// Nothing crosses.
    pub const NONE: Indication = Indication { price: 0, volume: 0, imbalance: 0 };
}

/// An order that takes part: what is needed of its node.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
struct Lot {
    handle: u64,
    /// Credits open before.
    open: u32,
    /// Credits still open.
    left: u32,
    client_id: u64,
    tag: Tag,
    /// Fee on what is still open, in micro-units: this and the account once the price is known.
    fee: u64,
    account: u64,
}

impl Lot {
    fn new(slot: u32, node: &Node) -> Lot {
        let Node { quantity, generation, client_id, tag, .. } = *node;
        let handle = handle(slot, generation);
        Lot { handle, open: quantity, left: quantity, client_id, tag, fee: 0, account: 0 }
    }

    fn slot(&self) -> u32 {
        self.handle as u32
    }
}

/// The orders of a side that an auction has looked at.
#[derive(Debug, Default)]
struct Gathered {
    /// In the order of priority.
    lots: Box<[Lot]>,
    /// How many.
    count: usize,
    /// Of the levels that are read together: slots as they are met, each with its level's place
    /// among these in the high half.
    met: Box<[u64]>,
}

/// Levels that are read together. A walk along a queue waits for memory at every order; so many
/// walks wait together.
const ABREAST: usize = 8;

/// A side's occupied levels, best first, and their orders.
struct Levels<'a> {
    book: &'a Book,
    slab: &'a Slab,
    side: Side,
    gathered: &'a mut Gathered,
    /// Where the next ones begin.
    next: u32,
    /// Price and credits open of each...
    read: [(u32, u64); ABREAST],
    /// ...from this one to that one.
    at: usize,
    end: usize,
}

impl<'a> Levels<'a> {
    fn new(book: &'a Book, slab: &'a Slab, side: Side, gathered: &'a mut Gathered) -> Levels<'a> {
        gathered.count = 0;
        let next = book.sides[side as usize].best();
        Levels { book, slab, side, gathered, next, read: [(0, 0); ABREAST], at: 0, end: 0 }
    }

    /// Price and credits open of the next level.
    fn peek(&mut self) -> Option<(u32, u64)> {
        if self.at == self.end {
            self.gather();
        }
        (self.at < self.end).then(|| self.read[self.at])
    }

    fn next(&mut self) -> Option<(u32, u64)> {
        let level = self.peek();
        self.at += usize::from(level.is_some());
        level
    }

    /// Reads the next levels and gathers their orders.
    fn gather(&mut self) {
        let ladder = &self.book.sides[self.side as usize];
        let nodes = &self.slab.nodes[..];
        let Gathered { lots, count, met } = &mut *self.gathered;
        // A walk that has not begun is at its end.
        let (mut slots, mut sentinels) = ([0; ABREAST], [0; ABREAST]);
        (self.at, self.end) = (0, 0);
        while self.end < ABREAST && self.next != NONE {
            let sentinel = self.book.queues[self.side as usize] + self.next;
            (slots[self.end], sentinels[self.end]) = (nodes[sentinel as usize].next, sentinel);
            self.read[self.end] = (ladder.price_of(self.next).into(), 0);
            (self.next, self.end) = (ladder.after(self.next), self.end + 1);
        }
        let (mut orders, mut before, mut now) = ([0; ABREAST], 0, 0);
        loop {
            for at in 0..ABREAST {
                let slot = slots[at];
                if slot != sentinels[at] {
                    let node = &nodes[slot as usize];
                    met[now] = u64::from(slot) | (at as u64) << 32;
                    now += 1;
                    orders[at] += 1;
                    self.read[at].1 += u64::from(node.quantity);
                    slots[at] = node.next;
                }
            }
            if now == before {
                break;
            }
            before = now;
        }
        // How many there are in each says where each begins.
        for orders in &mut orders {
            (*orders, *count) = (*count, *count + *orders);
        }
        for word in &met[..now] {
            let (slot, at) = (*word as u32, (*word >> 32) as usize % ABREAST);
            lots[orders[at]] = Lot::new(slot, &nodes[slot as usize]);
            orders[at] += 1;
        }
    }
}

/// The auction of a book as it stands; `hall` then has the orders that could trade, and some more.
/// Costs a step for each of them.
pub(super) fn indicate(book: &Book, slab: &Slab, hall: &mut Hall) -> Indication {
    let [buyers, sellers] = &mut hall.sides;
    let mut bids = Levels::new(book, slab, Side::Buy, buyers);
    let mut asks = Levels::new(book, slab, Side::Sell, sellers);
    let (highest, lowest) = (book.best(Side::Buy), book.best(Side::Sell));
    if highest < lowest || lowest == 0 {
        return Indication::NONE;
    }
    let (Some(mut bid), Some(mut ask)) = (bids.next(), asks.next()) else {
        return Indication::NONE;
    };
    // Best against best, as long as they cross: credits wanted and offered up to these levels.
    let (mut wanted, mut offered) = (bid.1, ask.1);
    loop {
        let (more_wanted, more_offered) = (wanted <= offered, offered <= wanted);
        let next_bid = if more_wanted { bids.peek() } else { Some(bid) };
        let next_ask = if more_offered { asks.peek() } else { Some(ask) };
        let (Some(next_bid), Some(next_ask)) = (next_bid, next_ask) else { break };
        if next_bid.0 < next_ask.0 {
            break;
        }
        if more_wanted {
            (bid, wanted) = (next_bid, wanted + next_bid.1);
            bids.next();
        }
        if more_offered {
            (ask, offered) = (next_ask, offered + next_ask.1);
            asks.next();
        }
    }
    // From the last seller's price to the last buyer's all of it trades; the next levels' orders
    // would only add to the imbalance.
    const NO_BID: (u32, u64) = (0, 0);
    const NO_ASK: (u32, u64) = (u32::MAX, 0);
    let below = bids.next().unwrap_or(NO_BID);
    let above = asks.next().unwrap_or(NO_ASK);
    let (mut low, mut high) = (ask.0.max(below.0 + 1), bid.0.min(above.0 - 1));
    let mut imbalance = [wanted as i64 - offered as i64; 2];
    if low > high {
        // They leave no price between them: at `below` the buyers there add to the imbalance, at
        // `above`, the next tick, the sellers there.
        imbalance = [below.1 as i64, -(above.1 as i64)];
        let lowest = ask.0.max(bids.next().unwrap_or(NO_BID).0 + 1);
        let highest = bid.0.min(asks.next().unwrap_or(NO_ASK).0 - 1);
        (low, high) = match below.1.cmp(&above.1) {
            std::cmp::Ordering::Less => (lowest, below.0),
            std::cmp::Ordering::Greater => (above.0, highest),
            std::cmp::Ordering::Equal => (lowest, highest),
        };
    }
    let last = u32::from(book.last);
    let price = if last == 0 { low + (high - low) / 2 } else { last.clamp(low, high) };
    let volume = wanted.min(offered);
    Indication { price: price as u16, volume, imbalance: imbalance[usize::from(price > below.0)] }
}

/// "None" among lots.
const NO_LOT: u32 = u32::MAX;
/// Groups of accounts.
const GROUPS: usize = 64;

/// Room to hold an auction in, made at start-up. Between auctions its content means nothing.
#[derive(Debug, Default)]
pub(super) struct Hall {
    /// Buyers and sellers.
    sides: [Gathered; 2],
    forbidden: Forbidden,
}

/// How a buyer finds the next seller it may meet, where that is not the next one.
#[derive(Debug, Default)]
struct Forbidden {
    /// True once the rest holds for this auction.
    ready: bool,
    /// By seller's lot: the next one of its group.
    next: Box<[u32]>,
    /// By group of buyer and group of seller: the first lot that may still be met.
    heads: Box<[u32]>,
    /// By account: where it goes on among its own group's lots; those before are its own or gone.
    own: Box<[u32]>,
}

impl Hall {
    /// Room for `orders` orders of `accounts` accounts.
    pub fn new(orders: u32, accounts: u32) -> Hall {
        let gathered = || Gathered {
            lots: vec![Lot::new_zeroed(); orders as usize].into_boxed_slice(),
            count: 0,
            met: vec![0; orders as usize].into_boxed_slice(),
        };
        Hall {
            sides: [gathered(), gathered()],
            forbidden: Forbidden {
                ready: false,
                next: vec![0; orders as usize].into_boxed_slice(),
                heads: vec![0; GROUPS * GROUPS].into_boxed_slice(),
                own: vec![0; accounts as usize].into_boxed_slice(),
            },
        }
    }
}

/// True if the buyer's and the seller's masks let them meet.
#[inline(always)]
fn may_meet(accounts: &[Account], buyer: u64, seller: u64) -> bool {
    accounts[seller as usize].may_sell_to(&accounts[buyer as usize])
}

impl Forbidden {
    /// Lists the sellers' lots by group.
    fn prepare(&mut self, accounts: &[Account], sellers: &[Lot]) {
        let mut heads = [NO_LOT; GROUPS];
        for (at, lot) in sellers.iter().enumerate().rev() {
            let head = &mut heads[accounts[lot.account as usize].group as usize % GROUPS];
            self.next[at] = std::mem::replace(head, at as u32);
        }
        self.heads.chunks_exact_mut(GROUPS).for_each(|row| row.copy_from_slice(&heads));
        self.own.fill(0);
        self.ready = true;
    }

    /// The first lot that an account may buy from.
    #[cold]
    fn first(&mut self, accounts: &[Account], sellers: &[Lot], buyer: u64) -> Option<usize> {
        if !self.ready {
            self.prepare(accounts, sellers);
        }
        let Forbidden { next, heads, own, .. } = self;
        let row = &accounts[buyer as usize];
        let group = row.group as usize % GROUPS;
        // Goes on from a lot to the first one that is left, sells to this group, and is not `but`'s.
        let seek = |mut at: u32, but: Option<u64>| {
            while at != NO_LOT {
                let lot = &sellers[at as usize];
                let sells = accounts[lot.account as usize].sells_to >> group & 1 == 1;
                if lot.left > 0 && sells && Some(lot.account) != but {
                    break;
                }
                at = next[at as usize];
            }
            at
        };
        let mut best = NO_LOT;
        let mut groups = row.buys_from;
        while groups != 0 {
            let of = groups.trailing_zeros() as usize;
            groups &= groups - 1;
            let head = &mut heads[group * GROUPS + of];
            *head = seek(*head, None);
            let mut first = *head;
            if of == group && first != NO_LOT {
                // Only here are lots of its own.
                let own = &mut own[buyer as usize];
                *own = seek(first.max(*own), Some(buyer));
                first = *own;
            }
            best = best.min(first);
        }
        (best != NO_LOT).then_some(best as usize)
    }
}

/// What one auction is held with.
struct Auction {
    book: usize,
    price: u16,
    /// Micro-units of a credit at the price.
    unit: u64,
    tick_micro: u64,
    resource: Resource,
    maker_bps: u64,
}

impl Auction {
    /// The fee on so many credits, in micro-units.
    #[inline(always)]
    fn fee(&self, credits: u32) -> u64 {
        fee(self.unit * u64::from(credits), self.maker_bps)
    }
}

impl Machine {
    /// Holds the auction of a book: what can trade at one price does.
    pub(super) fn uncross(&mut self, at: usize, out: &mut Outbox) {
        let mut hall = std::mem::take(&mut self.hall);
        let book = &self.books[at];
        let Indication { price, imbalance, .. } = indicate(book, &self.slab, &mut hall);
        if price > 0 {
            let auction = Auction {
                book: at,
                price,
                unit: u64::from(price) * book.tick_micro,
                tick_micro: book.tick_micro,
                resource: book.resource,
                maker_bps: self.fees.maker_bps,
            };
            let [bought, sold] = &mut hall.sides;
            let buyers = &mut bought.lots[..bought.count];
            let buyers_end = buyers.partition_point(|lot| lot.tag.price() >= price);
            let buyers = &mut buyers[..buyers_end];
            let sellers = &mut sold.lots[..sold.count];
            let sellers_end = sellers.partition_point(|lot| lot.tag.price() <= price);
            let sellers = &mut sellers[..sellers_end];
            let all_meet = self.enrol(&auction, buyers, sellers);
            hall.forbidden.ready = false;
            let before = self.trades;
            let forbidden = &mut hall.forbidden;
            let volume = self.allocate(&auction, buyers, sellers, all_meet, forbidden, out);
            let trades = self.trades - before;
            if trades > 0 {
                self.keep_newest(trades, out);
                self.finish(&auction, Side::Sell, sellers, out);
                self.finish(&auction, Side::Buy, buyers, out);
                let book = &mut self.books[at];
                book.last = price;
                book.trades += trades;
                book.volume += volume;
            }
            self.fold(u64::from(price) << 48 ^ volume);
            let event = Uncrossed {
                volume: volume.into(),
                imbalance: (imbalance as u64).into(),
                trades: (trades as u32).into(),
                price_ticks: price.into(),
                book: (at as u16).into(),
            };
            out.push(ANY, &event);
        }
        self.hall = hall;
    }

    /// Notes each order's account and fee; returns whether any of the accounts may meet any other one
    /// across the book.
    fn enrol(&self, auction: &Auction, buyers: &mut [Lot], sellers: &mut [Lot]) -> bool {
        let (mut allowed, mut groups) = ([u64::MAX; 2], [0; 2]);
        for (side, lots) in [buyers, sellers].into_iter().enumerate() {
            for lot in lots {
                let account = self.owner[usize::from(lot.tag.instance())];
                let row = &self.accounts[usize::from(account)];
                allowed[side] &= [row.buys_from, row.sells_to][side];
                groups[side] |= 1 << (row.group as usize % GROUPS);
                (lot.account, lot.fee) = (account.into(), auction.fee(lot.open));
            }
        }
        groups[1] & !allowed[0] == 0 && groups[0] & !allowed[1] == 0
    }

    /// Matches buyers with sellers and says each trade; returns the credits. Who pays what is
    /// posted at the end.
    fn allocate(
        &mut self,
        auction: &Auction,
        buyers: &mut [Lot],
        sellers: &mut [Lot],
        all_meet: bool,
        forbidden: &mut Forbidden,
        out: &mut Outbox,
    ) -> u64 {
        let mut tape = Tape { trades: self.trades, digest: self.digest, volume: 0 };
        let (mut at, mut first) = (0, 0);
        // Which of the two is done is a matter of chance: that decides an index, not a branch.
        while at < buyers.len() && first < sellers.len() {
            let (buyer, seller) = (&mut buyers[at], &mut sellers[first]);
            if seller.left == 0 {
                // One that was passed over has traded before its turn.
                first += 1;
            } else if buyer.account != seller.account
                && (all_meet || may_meet(&self.accounts, buyer.account, seller.account))
            {
                trade(auction, &mut tape, [seller, buyer], out);
                first += usize::from(seller.left == 0);
                at += usize::from(buyer.left == 0);
            } else {
                while buyer.left > 0
                    && let Some(met) = forbidden.first(&self.accounts, sellers, buyer.account)
                {
                    trade(auction, &mut tape, [&mut sellers[met], buyer], out);
                }
                at += 1;
            }
        }
        (self.trades, self.digest) = (tape.trades, tape.digest);
        tape.volume
    }

    /// Remembers the newest of the trades that were just said.
    fn keep_newest(&mut self, trades: u64, out: &Outbox) {
        let newest = trades.min(self.kept.len() as u64) as usize;
        for trade in out.newest::<AuctionTrade>(newest) {
            let fees = [trade.seller_fee_micro.get(), trade.buyer_fee_micro.get()];
            let price = trade.price_ticks.get();
            let place = trade.seller_place.get();
            let seller = Tag::new(trade.seller.get(), trade.seller_session.get(), price, place);
            let place = trade.buyer_place.get();
            let buyer = Tag::new(trade.buyer.get(), trade.buyer_session.get(), price, place);
            let kept = Kept::new(fees, [seller, buyer], trade.quantity.get());
            keep(&mut self.kept, trade.trade.get(), kept);
        }
    }

    /// Settles the orders of a side that have traded, and takes those that are done out of their
    /// queues.
    #[inline(always)]
    fn finish(&mut self, auction: &Auction, side: Side, lots: &[Lot], out: &mut Outbox) {
        let (mut gap, mut fees) = (Gap::default(), 0);
        let mut at = 0;
        while let Some(lot) = lots.get(at) {
            let price = lot.tag.price();
            let book = &self.books[auction.book];
            let level = book.sides[side as usize].level_of(price);
            let sentinel = book.queues[side as usize] + level;
            // Whoever leaves is bridged once the next one that stays is known.
            let (mut stays, mut leaves, mut gone) = (sentinel, false, 0);
            while let Some(lot) = lots.get(at)
                && lot.tag.price() == price
            {
                at += 1;
                if let Some(later) = lots.get(at + ABREAST) {
                    foresee(&self.slab.nodes, later.slot());
                }
                if lot.left < lot.open {
                    fees += self.settle_lot(auction, side, lot, &mut gap, out);
                }
                if lot.left == 0 {
                    self.retire(lot.slot(), lot.tag);
                    (leaves, gone) = (true, gone + 1);
                } else {
                    self.slab.nodes[lot.slot() as usize].quantity = lot.left;
                    if leaves {
                        queue::join(&mut self.slab.nodes, stays, lot.slot());
                    }
                    (stays, leaves) = (lot.slot(), false);
                }
            }
            if leaves {
                queue::join(&mut self.slab.nodes, stays, sentinel);
            }
            let book = &mut self.books[auction.book];
            book.orders -= gone;
            if stays == sentinel {
                book.sides[side as usize].clear(level);
            }
        }
        self.ledger.close(gap, fees);
    }

    /// Posts what an order's trades come to; returns its fee, in micro-units. A seller's credits were held and go, its funds come; of
    /// what a buyer held for a higher price the rest is free again.
    #[inline(always)]
    fn settle_lot(
        &mut self,
        auction: &Auction,
        side: Side,
        lot: &Lot,
        gap: &mut Gap,
        out: &mut Outbox,
    ) -> u64 {
        let traded = lot.open - lot.left;
        let milli = u64::from(traded) * MILLI;
        let sale = Sale {
            notional: auction.unit * u64::from(traded),
            fee: auction.fee(lot.open) - lot.fee,
            milli,
        };
        let (instance, resource) = (lot.tag.instance(), auction.resource);
        let account = lot.account as u16;
        let (spent, gained) = self.ledger.pockets(side, account, instance, resource);
        if side == Side::Buy {
            let held =
                |quantity| self.fees.cost(side, auction.tick_micro, lot.tag.price(), quantity).held;
            let still = if lot.left > 0 { held(lot.left) } else { 0 };
            // Never less than the sale: the limit is no lower than the price, and where it is the
            // price, both are reckoned alike.
            spent.balance.release(held(lot.open) - still - (sale.notional + sale.fee));
        }
        gap.maker(side, &sale, &mut spent.balance, &mut gained.balance);
        // What was held was not free: of a seller nothing follows but for limits, whose pockets
        // always say so.
        let credits = if side == Side::Buy { gained } else { spent };
        if credits.flips() {
            self.follow_trade(instance, side, traded, resource, out);
        }
        sale.fee
    }
}

/// What the trades of an auction come to so far.
struct Tape {
    trades: u64,
    digest: u64,
    /// Credits.
    volume: u64,
}

/// One trade of an auction, between seller and buyer.
#[inline(always)]
fn trade(auction: &Auction, tape: &mut Tape, lots: [&mut Lot; 2], out: &mut Outbox) {
    let quantity = lots[0].left.min(lots[1].left);
    let [(seller, seller_fee), (buyer, buyer_fee)] = lots.map(|lot| {
        lot.left -= quantity;
        let before = std::mem::replace(&mut lot.fee, auction.fee(lot.left));
        let fee = before - lot.fee;
        (lot, fee)
    });
    tape.trades += 1;
    tape.volume += u64::from(quantity);
    fold(&mut tape.digest, tape.trades ^ seller.handle << 32 ^ u64::from(quantity));
    // The words of an `AuctionTrade`.
    let words = [
        tape.trades,
        seller.client_id,
        buyer.client_id,
        seller.handle,
        buyer.handle,
        seller_fee,
        buyer_fee,
        seller.tag.0,
        buyer.tag.0,
        u64::from(quantity) | u64::from(seller.left) << 32,
        u64::from(buyer.left) | seller.account << 32 | buyer.account << 48,
        u64::from(auction.price) | (auction.book as u64) << 16,
    ];
    out.push_words::<AuctionTrade, 12>(ANY, words);
}
