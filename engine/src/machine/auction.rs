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

use super::Machine;
use super::config::MILLI;
use super::event::{AuctionTrade, Outbox, Uncrossed};
use super::ladder::NONE;
use super::ledger::{Gap, Sale};
use super::orders::fee;
use super::queue;
use super::reversal::{Kept, keep};
use super::slab::{Node, Slab, Tag, foresee, handle};
use super::tables::{Account, Book};
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

/// Queues that are walked at once. A walk waits for memory at every order; these wait together.
const ABREAST: usize = 8;

/// Walks up to [`ABREAST`] queues at once, by their sentinels: each in its order.
#[inline(always)]
fn walk_abreast(slab: &Slab, sentinels: &[u32], mut visit: impl FnMut(usize, u32, &Node)) {
    let mut slots = [0; ABREAST];
    for (slot, &sentinel) in slots.iter_mut().zip(sentinels) {
        *slot = slab.nodes[sentinel as usize].next;
    }
    let mut goes_on = true;
    while goes_on {
        goes_on = false;
        for (at, (slot, &sentinel)) in slots.iter_mut().zip(sentinels).enumerate() {
            if *slot != sentinel {
                let node = &slab.nodes[*slot as usize];
                visit(at, *slot, node);
                *slot = node.next;
                goes_on = true;
            }
        }
    }
}

/// A side's occupied levels, best first, [`ABREAST`] at a time.
struct Levels<'a> {
    book: &'a Book,
    slab: &'a Slab,
    side: Side,
    /// Where the next ones begin.
    next: u32,
    /// Price and credits open of each...
    read: [(u32, u64); ABREAST],
    /// ...from this one to that one.
    at: usize,
    end: usize,
}

impl<'a> Levels<'a> {
    fn new(book: &'a Book, slab: &'a Slab, side: Side) -> Levels<'a> {
        let next = book.sides[side as usize].best();
        Levels { book, slab, side, next, read: [(0, 0); ABREAST], at: 0, end: 0 }
    }

    /// Price and credits open of the next level.
    fn peek(&mut self) -> Option<(u32, u64)> {
        if self.at == self.end {
            let ladder = &self.book.sides[self.side as usize];
            let mut sentinels = [0; ABREAST];
            (self.at, self.end) = (0, 0);
            while self.end < ABREAST && self.next != NONE {
                sentinels[self.end] = self.book.queues[self.side as usize] + self.next;
                self.read[self.end] = (ladder.price_of(self.next).into(), 0);
                (self.next, self.end) = (ladder.after(self.next), self.end + 1);
            }
            let read = &mut self.read;
            walk_abreast(self.slab, &sentinels[..self.end], |at, _, node| {
                read[at].1 += u64::from(node.quantity);
            });
        }
        (self.at < self.end).then(|| self.read[self.at])
    }

    fn next(&mut self) -> Option<(u32, u64)> {
        let level = self.peek();
        self.at += usize::from(level.is_some());
        level
    }
}

/// The auction of a book as it stands. Costs a step for each order that could trade.
pub fn indicate(book: &Book, slab: &Slab) -> Indication {
    let mut bids = Levels::new(book, slab, Side::Buy);
    let mut asks = Levels::new(book, slab, Side::Sell);
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

/// An order that takes part: what is needed of its node, in the order of priority.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
struct Lot {
    slot: u32,
    generation: u32,
    /// Credits open before.
    open: u32,
    /// Credits still open.
    left: u32,
    client_id: u64,
    tag: Tag,
}

/// "None" among lots.
const NO_LOT: u32 = u32::MAX;
/// Groups of accounts.
const GROUPS: usize = 64;

/// Room to hold an auction in, made at start-up. Between auctions its content means nothing.
#[derive(Debug, Default)]
pub(super) struct Hall {
    /// Buyers' lots, then sellers'.
    lots: Box<[Lot]>,
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
        Hall {
            lots: vec![Lot::new_zeroed(); orders as usize].into_boxed_slice(),
            forbidden: Forbidden {
                ready: false,
                next: vec![0; orders as usize].into_boxed_slice(),
                heads: vec![0; GROUPS * GROUPS].into_boxed_slice(),
                own: vec![0; accounts as usize].into_boxed_slice(),
            },
        }
    }
}

/// True if the buyer's and the seller's account let them meet.
#[inline(always)]
fn may_meet(accounts: &[Account], buyer: u16, seller: u16) -> bool {
    buyer != seller && accounts[usize::from(seller)].may_sell_to(&accounts[usize::from(buyer)])
}

impl Forbidden {
    /// Lists the sellers' lots by group.
    fn prepare(&mut self, accounts: &[Account], owner: &[u16], sellers: &[Lot]) {
        let mut heads = [NO_LOT; GROUPS];
        for (at, lot) in sellers.iter().enumerate().rev() {
            let account = owner[usize::from(lot.tag.instance())];
            let head = &mut heads[accounts[usize::from(account)].group as usize % GROUPS];
            self.next[at] = std::mem::replace(head, at as u32);
        }
        self.heads.chunks_exact_mut(GROUPS).for_each(|row| row.copy_from_slice(&heads));
        self.own.fill(0);
        self.ready = true;
    }

    /// The first lot that an account may buy from.
    #[cold]
    fn first(
        &mut self,
        accounts: &[Account],
        owner: &[u16],
        sellers: &[Lot],
        buyer: u16,
    ) -> Option<usize> {
        if !self.ready {
            self.prepare(accounts, owner, sellers);
        }
        let Forbidden { next, heads, own, .. } = self;
        let row = &accounts[usize::from(buyer)];
        let group = row.group as usize % GROUPS;
        // Goes on from a lot to the first one that is left, sells to this group, and is not `but`'s.
        let seek = |mut at: u32, but: Option<u16>| {
            while at != NO_LOT {
                let lot = &sellers[at as usize];
                let account = owner[usize::from(lot.tag.instance())];
                let sells = accounts[usize::from(account)].sells_to >> group & 1 == 1;
                if lot.left > 0 && sells && Some(account) != but {
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
                let own = &mut own[usize::from(buyer)];
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
    buyers: usize,
    sellers: usize,
}

impl Machine {
    /// Holds the auction of a book: what can trade at one price does.
    pub(super) fn uncross(&mut self, at: usize, out: &mut Outbox) {
        let book = &self.books[at];
        let Indication { price, imbalance, .. } = indicate(book, &self.slab);
        if price == 0 {
            return;
        }
        let unit = u64::from(price) * book.tick_micro;
        let (tick_micro, resource) = (book.tick_micro, book.resource);
        let mut hall = std::mem::take(&mut self.hall);
        let buyers = self.gather(at, Side::Buy, price, &mut hall.lots);
        let sellers = self.gather(at, Side::Sell, price, &mut hall.lots[buyers..]);
        let auction = Auction { book: at, price, unit, tick_micro, resource, buyers, sellers };
        hall.forbidden.ready = false;
        let (trades, volume) = self.allocate(&auction, &mut hall, out);
        if trades > 0 {
            let (bought, sold) = hall.lots[..buyers + sellers].split_at(buyers);
            self.settle_sellers(&auction, sold, out);
            self.settle_buyers(&auction, bought, out);
            self.leave(&auction, Side::Buy, bought);
            self.leave(&auction, Side::Sell, sold);
            let book = &mut self.books[at];
            book.last = price;
            book.trades += trades;
            book.volume += volume;
        }
        self.hall = hall;
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

    /// Copies the orders of a side that accept the price, in order of priority; returns how many.
    fn gather(&self, book: usize, side: Side, price: u16, lots: &mut [Lot]) -> usize {
        let book = &self.books[book];
        let ladder = &book.sides[side as usize];
        let limit = ladder.level_of(price);
        let (mut level, mut count) = (ladder.best(), 0);
        while level <= limit {
            let (mut sentinels, mut queues) = ([0; ABREAST], 0);
            while queues < ABREAST && level <= limit {
                sentinels[queues] = book.queues[side as usize] + level;
                (level, queues) = (ladder.after(level), queues + 1);
            }
            // How many there are in each says where each begins.
            let mut places = [0; ABREAST];
            walk_abreast(&self.slab, &sentinels[..queues], |at, _, _| places[at] += 1);
            for place in &mut places[..queues] {
                (*place, count) = (count, count + *place);
            }
            walk_abreast(&self.slab, &sentinels[..queues], |at, slot, node| {
                let Node { quantity, generation, client_id, tag, .. } = *node;
                lots[places[at]] =
                    Lot { slot, generation, open: quantity, left: quantity, client_id, tag };
                places[at] += 1;
            });
        }
        count
    }

    /// Matches buyers with sellers and says each trade; returns trades and credits.
    fn allocate(&mut self, auction: &Auction, hall: &mut Hall, out: &mut Outbox) -> (u64, u64) {
        let (buyers, rest) = hall.lots.split_at_mut(auction.buyers);
        let sellers = &mut rest[..auction.sellers];
        let (mut trades, mut volume, mut first) = (0, 0, 0);
        for buyer in buyers {
            let account = self.owner[usize::from(buyer.tag.instance())];
            while buyer.left > 0 {
                while first < sellers.len() && sellers[first].left == 0 {
                    first += 1;
                }
                if first == sellers.len() {
                    return (trades, volume);
                }
                let seller = self.owner[usize::from(sellers[first].tag.instance())];
                let met = if may_meet(&self.accounts, account, seller) {
                    Some(first)
                } else {
                    hall.forbidden.first(&self.accounts, &self.owner, sellers, account)
                };
                let Some(met) = met else { break };
                volume += u64::from(self.auction_trade(auction, buyer, &mut sellers[met], out));
                trades += 1;
            }
        }
        (trades, volume)
    }

    /// One trade of an auction; returns its credits. Who pays what is posted at the end.
    #[inline(always)]
    fn auction_trade(
        &mut self,
        auction: &Auction,
        buyer: &mut Lot,
        seller: &mut Lot,
        out: &mut Outbox,
    ) -> u32 {
        let quantity = buyer.left.min(seller.left);
        let [buyer_fee, seller_fee] = [&mut *buyer, &mut *seller].map(|lot| {
            let before = lot.left;
            lot.left -= quantity;
            self.auction_fee(auction, before, lot.left)
        });
        let accounts = [&*seller, &*buyer].map(|lot| self.owner[usize::from(lot.tag.instance())]);
        let [seller_account, buyer_account] = accounts.map(u64::from);
        self.trades += 1;
        self.fold(self.trades ^ u64::from(seller.slot) << 32 ^ u64::from(quantity));
        // The words of an `AuctionTrade`.
        let words = [
            self.trades,
            seller.client_id,
            buyer.client_id,
            handle(seller.slot, seller.generation),
            handle(buyer.slot, buyer.generation),
            seller_fee,
            buyer_fee,
            u64::from(quantity) | u64::from(seller.left) << 32,
            u64::from(buyer.left) | seller_account << 32 | buyer_account << 48,
            seller.tag.0 & 0xffff_ffff | buyer.tag.0 << 32,
            u64::from(auction.price)
                | (auction.book as u64) << 16
                | u64::from(seller.tag.price()) << 32
                | u64::from(buyer.tag.price()) << 48,
        ];
        out.push_words::<AuctionTrade, 11>(ANY, words);
        let tags = [seller.tag.at_price(auction.price), buyer.tag];
        keep(&mut self.kept, self.trades, Kept::new([seller_fee, buyer_fee], tags, quantity));
        quantity
    }

    /// The maker's fee when what is open of an order shrinks.
    #[inline(always)]
    fn auction_fee(&self, auction: &Auction, open: u32, left: u32) -> u64 {
        let of = |quantity: u32| fee(auction.unit * u64::from(quantity), self.fees.maker_bps);
        of(open) - of(left)
    }

    /// What an order's trades come to.
    #[inline(always)]
    fn auction_sale(&self, auction: &Auction, lot: &Lot) -> Sale {
        let traded = u64::from(lot.open - lot.left);
        Sale {
            notional: auction.unit * traded,
            fee: self.auction_fee(auction, lot.open, lot.left),
            milli: traded * MILLI,
        }
    }

    /// Posts the sellers' sides: credits that were held go, funds come.
    fn settle_sellers(&mut self, auction: &Auction, sellers: &[Lot], out: &mut Outbox) {
        let (mut gap, mut fees) = (Gap::default(), 0);
        for lot in sellers.iter().filter(|lot| lot.left < lot.open) {
            let sale = self.auction_sale(auction, lot);
            let instance = lot.tag.instance();
            let account = self.owner[usize::from(instance)];
            let (spent, gained) =
                self.ledger.pockets(Side::Sell, account, instance, auction.resource);
            gap.maker(Side::Sell, &sale, &mut spent.balance, &mut gained.balance);
            fees += sale.fee;
            // What was held was not free: nothing follows from it but for limits.
            if spent.flips() {
                let traded = lot.open - lot.left;
                self.follow_trade(instance, Side::Sell, traded, auction.resource, out);
            }
        }
        self.ledger.close(gap, fees);
    }

    /// Posts the buyers' sides: funds that were held go or are free again, credits come.
    fn settle_buyers(&mut self, auction: &Auction, buyers: &[Lot], out: &mut Outbox) {
        let (mut gap, mut fees) = (Gap::default(), 0);
        for lot in buyers.iter().filter(|lot| lot.left < lot.open) {
            let sale = self.auction_sale(auction, lot);
            let held = |quantity| {
                self.fees.cost(Side::Buy, auction.tick_micro, lot.tag.price(), quantity).held
            };
            // Never less than the sale: the limit is no lower than the price, and where it is the
            // price, both are reckoned alike.
            let freed = held(lot.open) - held(lot.left) - (sale.notional + sale.fee);
            let instance = lot.tag.instance();
            let account = self.owner[usize::from(instance)];
            let (spent, gained) =
                self.ledger.pockets(Side::Buy, account, instance, auction.resource);
            spent.balance.release(freed);
            gap.maker(Side::Buy, &sale, &mut spent.balance, &mut gained.balance);
            fees += sale.fee;
            // A limited account's pockets always do.
            if gained.flips() {
                let traded = lot.open - lot.left;
                self.follow_trade(instance, Side::Buy, traded, auction.resource, out);
            }
        }
        self.ledger.close(gap, fees);
    }

    /// Takes what has traded out of its queues.
    fn leave(&mut self, auction: &Auction, side: Side, lots: &[Lot]) {
        let mut later = lots.iter().skip(ABREAST);
        for lots in lots.chunk_by(|a, b| a.tag.price() == b.tag.price()) {
            let price = lots[0].tag.price();
            let book = &self.books[auction.book];
            let level = book.sides[side as usize].level_of(price);
            let sentinel = book.queues[side as usize] + level;
            // Whoever leaves is bridged once the next one that stays is known.
            let (mut kept, mut gap, mut gone) = (sentinel, false, 0);
            for lot in lots {
                if let Some(later) = later.next() {
                    foresee(&self.slab.nodes, later.slot);
                }
                if lot.left == 0 {
                    self.retire(lot.slot, lot.tag);
                    (gap, gone) = (true, gone + 1);
                } else {
                    self.slab.nodes[lot.slot as usize].quantity = lot.left;
                    if gap {
                        queue::join(&mut self.slab.nodes, kept, lot.slot);
                    }
                    (kept, gap) = (lot.slot, false);
                }
            }
            if gap {
                queue::join(&mut self.slab.nodes, kept, sentinel);
            }
            let book = &mut self.books[auction.book];
            book.orders -= gone;
            if kept == sentinel {
                book.sides[side as usize].clear(level);
            }
        }
    }
}
