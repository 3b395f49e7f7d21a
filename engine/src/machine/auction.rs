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
use super::slab::{Node, Slab, Tag, handle};
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

/// The auction of a book as it stands. Costs a step for each order that could trade.
pub fn indicate(book: &Book, slab: &Slab) -> Indication {
    let [bids, asks] = &book.sides;
    let open = |side: Side, level| open_at(slab, book.queues[side as usize] + level);
    let crosses = |bid, ask| bid != NONE && ask != NONE && bids.price_of(bid) >= asks.price_of(ask);
    let (mut bid, mut ask) = (bids.best(), asks.best());
    if !crosses(bid, ask) {
        return Indication::NONE;
    }
    // Best against best, as long as they cross: credits wanted and offered up to these levels.
    let (mut wanted, mut offered) = (open(Side::Buy, bid), open(Side::Sell, ask));
    loop {
        let (next_bid, next_ask) = match wanted.cmp(&offered) {
            std::cmp::Ordering::Less => (bids.after(bid), ask),
            std::cmp::Ordering::Greater => (bid, asks.after(ask)),
            std::cmp::Ordering::Equal => (bids.after(bid), asks.after(ask)),
        };
        if !crosses(next_bid, next_ask) {
            break;
        }
        wanted += if next_bid == bid { 0 } else { open(Side::Buy, next_bid) };
        offered += if next_ask == ask { 0 } else { open(Side::Sell, next_ask) };
        (bid, ask) = (next_bid, next_ask);
    }
    // From the last seller's price to the last buyer's all of it trades; the next levels' orders
    // would only add to the imbalance.
    let price_below = |level| if level == NONE { 0 } else { u32::from(bids.price_of(level)) };
    let price_above = |level| if level == NONE { NONE } else { u32::from(asks.price_of(level)) };
    let (next_bid, next_ask) = (bids.after(bid), asks.after(ask));
    let (below, above) = (price_below(next_bid), price_above(next_ask));
    let mut low = u32::from(asks.price_of(ask)).max(below + 1);
    let mut high = u32::from(bids.price_of(bid)).min(above - 1);
    let mut imbalance = [wanted as i64 - offered as i64; 2];
    let border = below;
    if low > high {
        // They leave no price between them: at `below` the buyers there add to the imbalance, at
        // `above`, the next tick, the sellers there.
        let (more, fewer) = (open(Side::Buy, next_bid), open(Side::Sell, next_ask));
        imbalance = [more as i64, -(fewer as i64)];
        let lowest = u32::from(asks.price_of(ask)).max(price_below(bids.after(next_bid)) + 1);
        let highest = u32::from(bids.price_of(bid)).min(price_above(asks.after(next_ask)) - 1);
        (low, high) = match more.cmp(&fewer) {
            std::cmp::Ordering::Less => (lowest, below),
            std::cmp::Ordering::Greater => (above, highest),
            std::cmp::Ordering::Equal => (lowest, highest),
        };
    }
    let last = u32::from(book.last);
    let price = if last == 0 { low + (high - low) / 2 } else { last.clamp(low, high) };
    Indication {
        price: price as u16,
        volume: wanted.min(offered),
        imbalance: imbalance[usize::from(price > border)],
    }
}

/// Credits open in the queue of a sentinel.
fn open_at(slab: &Slab, sentinel: u32) -> u64 {
    let (mut sum, mut slot) = (0, slab.nodes[sentinel as usize].next);
    while slot != sentinel {
        let node = &slab.nodes[slot as usize];
        sum += u64::from(node.quantity);
        slot = node.next;
    }
    sum
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
            self.settle_sellers(&auction, sold);
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
        let mut count = 0;
        for level in ladder.occupied().take_while(|&level| level <= limit) {
            let sentinel = book.queues[side as usize] + level;
            let mut slot = self.slab.nodes[sentinel as usize].next;
            while slot != sentinel {
                let Node { next, quantity, generation, client_id, tag, .. } =
                    self.slab.nodes[slot as usize];
                lots[count] =
                    Lot { slot, generation, open: quantity, left: quantity, client_id, tag };
                count += 1;
                slot = next;
            }
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
    fn settle_sellers(&mut self, auction: &Auction, sellers: &[Lot]) {
        let (mut gap, mut fees) = (Gap::default(), 0);
        for lot in sellers.iter().filter(|lot| lot.left < lot.open) {
            let sale = self.auction_sale(auction, lot);
            let instance = lot.tag.instance();
            let account = self.owner[usize::from(instance)];
            let (spent, gained) =
                self.ledger.pockets(Side::Sell, account, instance, auction.resource);
            gap.maker(Side::Sell, &sale, &mut spent.balance, &mut gained.balance);
            fees += sale.fee;
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
            if gained.flips() {
                self.flip(instance, auction.resource, out);
            }
        }
        self.ledger.close(gap, fees);
    }

    /// Takes what has traded out of its queues.
    fn leave(&mut self, auction: &Auction, side: Side, lots: &[Lot]) {
        for lots in lots.chunk_by(|a, b| a.tag.price() == b.tag.price()) {
            let price = lots[0].tag.price();
            let book = &self.books[auction.book];
            let level = book.sides[side as usize].level_of(price);
            let sentinel = book.queues[side as usize] + level;
            // Whoever leaves is bridged once the next one that stays is known.
            let (mut kept, mut gap, mut gone) = (sentinel, false, 0);
            for lot in lots {
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
