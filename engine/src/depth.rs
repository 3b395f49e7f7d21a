//! Depth: the credits open at each price of each book.
//!
//! The machine keeps queues of orders, not totals of levels, which nothing it decides depends on.
//! Whoever shows them follows its events here, behind it and off its path.

use crate::machine::Machine;
use crate::machine::command::DefineBook;
use crate::machine::event::{AuctionTrade, Event, Fill, Moved};
use crate::machine::ladder::Ladder;
use vendue_wire::code::Side;
use vendue_wire::message::{Accepted, Cancelled};

/// A side of a book.
#[derive(Debug)]
struct Totals {
    ladder: Ladder,
    /// Credits open at each level.
    open: Box<[u64]>,
    /// Credits open at all of them.
    quantity: u64,
    /// Ticks times credits of all of them.
    notional: u128,
}

/// What is open in all books.
#[derive(Debug, Default)]
pub struct Depth {
    books: Vec<[Totals; 2]>,
    /// The handle that was cancelled last: two sessions may be told of one cancel, one after the
    /// other.
    cancelled: u64,
}

impl Totals {
    fn new(side: Side, price_max: u16) -> Totals {
        let ladder = Ladder::new(side, price_max);
        let open = vec![0; ladder.levels() as usize].into_boxed_slice();
        Totals { ladder, open, quantity: 0, notional: 0 }
    }

    fn add(&mut self, price: u16, quantity: u32) {
        let level = self.ladder.level_of(price);
        let open = &mut self.open[level as usize];
        if *open == 0 {
            self.ladder.mark(level);
        }
        *open += u64::from(quantity);
        self.quantity += u64::from(quantity);
        self.notional += u128::from(price) * u128::from(quantity);
    }

    fn take(&mut self, price: u16, quantity: u32) {
        let level = self.ladder.level_of(price);
        let open = &mut self.open[level as usize];
        let left = open.checked_sub(quantity.into()).expect("more leaves a level than is open");
        *open = left;
        if left == 0 {
            self.ladder.clear(level);
        }
        self.quantity -= u64::from(quantity);
        self.notional -= u128::from(price) * u128::from(quantity);
    }
}

impl Depth {
    /// What is open on a machine.
    pub fn of(machine: &Machine) -> Depth {
        let mut depth = Depth::default();
        machine.definitions().iter().for_each(|book| depth.add_book(book));
        for order in machine.orders() {
            let side = &mut depth.books[order.tag.book()][order.tag.side()];
            side.add(order.tag.price(), order.quantity);
        }
        depth
    }

    /// Adds the next book, empty.
    pub fn add_book(&mut self, book: &DefineBook) {
        let price_max = book.price_ticks_max.get() as u16;
        self.books.push([Side::Buy, Side::Sell].map(|side| Totals::new(side, price_max)));
    }

    /// Takes in what the machine said. The book whose depth it changes, if it does.
    ///
    /// # Panics
    /// More is said to leave a level than is open: going on would show depth that is not there.
    pub fn absorb(&mut self, event: &Event<'_>) -> Option<usize> {
        if let Some(m) = event.read::<Accepted>() {
            let book = usize::from(m.book.get());
            self.books[book][usize::from(m.side)].add(m.price_ticks.get() as u16, m.quantity.get());
            Some(book)
        } else if let Some(m) = event.read::<Fill>() {
            let (book, taker) = (usize::from(m.book()), m.taker_side());
            let quantity = m.quantity.get();
            self.books[book][taker.opposite() as usize].take(m.price_ticks.get(), quantity);
            self.books[book][taker as usize].take(m.limit_ticks.get(), quantity);
            Some(book)
        } else if let Some(m) = event.read::<AuctionTrade>() {
            let (book, quantity) = (usize::from(m.book.get()), m.quantity.get());
            let [bids, asks] = &mut self.books[book];
            bids.take(m.buyer_limit_ticks.get(), quantity);
            asks.take(m.seller_limit_ticks.get(), quantity);
            Some(book)
        } else if let Some(m) = event.read::<Cancelled>() {
            if m.handle.get() == self.cancelled {
                return None;
            }
            self.cancelled = m.handle.get();
            let book = usize::from(m.book.get());
            self.books[book][usize::from(m.side)]
                .take(m.price_ticks.get() as u16, m.quantity.get());
            Some(book)
        } else if let Some(m) = event.read::<Moved>() {
            let book = usize::from(m.book.get());
            let side = &mut self.books[book][usize::from(m.side)];
            side.take(m.from_ticks.get() as u16, m.from_quantity.get());
            side.add(m.to_ticks.get() as u16, m.to_quantity.get());
            Some(book)
        } else {
            None
        }
    }

    /// Credits open on a side, and their ticks times credits; zeros if there is no such book.
    pub fn sums(&self, book: usize, side: Side) -> (u64, u128) {
        let totals = self.books.get(book).map(|sides| &sides[side as usize]);
        totals.map_or((0, 0), |totals| (totals.quantity, totals.notional))
    }

    /// Price in ticks and credits open of each level of a side that has orders, best first; none
    /// if there is no such book.
    pub fn levels(&self, book: usize, side: Side) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.books.get(book).into_iter().flat_map(move |sides| {
            let Totals { ladder, open, .. } = &sides[side as usize];
            ladder.occupied().map(|level| (ladder.price_of(level), open[level as usize]))
        })
    }
}
