//! The naive matcher that says what must come out: ordered maps of queues, nothing clever.
//! It shares no code with the ladders it judges.

use std::collections::btree_map::OccupiedEntry;
use std::collections::{BTreeMap, VecDeque};

use super::{BUY, CANCEL, Fill, QUANTITY_MAX, Record, SELL, Totals};

type Level = VecDeque<Resting>;

#[derive(Debug)]
struct Resting {
    id: u32,
    quantity: u32,
}

/// Where a live order rests.
#[derive(Clone, Copy, Debug)]
struct Place {
    book: u16,
    side: u8,
    price: u16,
}

#[derive(Debug, Default)]
struct Book {
    /// Bids and offers, by price.
    sides: [BTreeMap<u16, Level>; 2],
    live: usize,
}

impl Book {
    /// The best level that `side` can trade with, if `price` reaches it.
    fn best(&mut self, side: u8, price: u16) -> Option<OccupiedEntry<'_, u16, Level>> {
        let [bids, offers] = &mut self.sides;
        if side == BUY {
            offers.first_entry().filter(|level| *level.key() <= price)
        } else {
            bids.last_entry().filter(|level| *level.key() >= price)
        }
    }
}

/// Books, and everything that happened in them.
#[derive(Debug)]
pub struct Oracle {
    books: Vec<Book>,
    places: Vec<Option<Place>>,
    /// Ids of the makers that the last order filled completely, in order.
    pub filled: Vec<u32>,
    /// Fills of the last order, in order.
    pub fills: Vec<Fill>,
    /// All fills so far.
    pub totals: Totals,
    /// Most orders that rested at once.
    pub live_max: usize,
    live: usize,
}

impl Oracle {
    /// Empty books.
    #[must_use]
    pub fn new(books: usize) -> Self {
        Self {
            books: (0..books).map(|_| Book::default()).collect(),
            places: vec![None],
            filled: Vec::new(),
            fills: Vec::new(),
            totals: Totals::default(),
            live_max: 0,
            live: 0,
        }
    }

    /// Executes one record, in whose ids and books it trusts.
    ///
    /// # Errors
    /// The record cancels an order that is not live, or adds one that is.
    pub fn apply(&mut self, record: &Record) -> Result<(), &'static str> {
        if record.kind == CANCEL {
            let order = self.cancel(record.id).ok_or("cancels an order that is not live")?;
            return if order.book == record.book {
                Ok(())
            } else {
                Err("the order is in another book")
            };
        }
        if self.is_live(record.id) {
            return Err("the id belongs to a live order");
        }
        self.submit(record);
        Ok(())
    }

    /// Whether an order rests.
    #[must_use]
    pub fn is_live(&self, id: u32) -> bool {
        self.places.get(id as usize).is_some_and(Option::is_some)
    }

    /// Orders that rest in a book.
    #[must_use]
    pub fn live_in(&self, book: u16) -> usize {
        self.books[usize::from(book)].live
    }

    /// Matches an order and lets the rest of it rest.
    fn submit(&mut self, order: &Record) {
        self.filled.clear();
        self.fills.clear();
        let book = &mut self.books[usize::from(order.book)];
        let mut left = order.quantity;
        while left > 0 {
            let Some(mut level) = book.best(order.side, order.price) else { break };
            let price = *level.key();
            let queue = level.get_mut();
            let maker = queue.front_mut().expect("no level is empty");
            let quantity = left.min(maker.quantity);
            left -= quantity;
            maker.quantity -= quantity;
            let (id, done) = (maker.id, maker.quantity == 0);
            let fill = Fill { taker: order.id, maker: id, price, quantity };
            self.totals.count(fill);
            self.fills.push(fill);
            if done {
                queue.pop_front();
                if queue.is_empty() {
                    level.remove();
                }
                self.filled.push(id);
                self.places[id as usize] = None;
                book.live -= 1;
                self.live -= 1;
            }
        }
        if left > 0 {
            self.rest(order, left);
        }
    }

    fn rest(&mut self, order: &Record, quantity: u32) {
        let Record { id, book, side, price, .. } = *order;
        let slot = id as usize;
        if slot >= self.places.len() {
            self.places.resize(slot + 1, None);
        }
        self.places[slot] = Some(Place { book, side, price });
        let in_book = &mut self.books[usize::from(book)];
        let level = in_book.sides[usize::from(side)].entry(price).or_default();
        level.push_back(Resting { id, quantity });
        in_book.live += 1;
        self.live += 1;
        self.live_max = self.live_max.max(self.live);
    }

    /// Takes an order out; returns the record that says so, or `None` if it is not live.
    pub fn cancel(&mut self, id: u32) -> Option<Record> {
        let Place { book, side, price } = self.places.get_mut(id as usize)?.take()?;
        let in_book = &mut self.books[usize::from(book)];
        let levels = &mut in_book.sides[usize::from(side)];
        let queue = levels.get_mut(&price).expect("a live order has a level");
        let at = queue.iter().position(|order| order.id == id).expect("a live order is queued");
        let order = queue.remove(at).expect("it was just found");
        if queue.is_empty() {
            levels.remove(&price);
        }
        in_book.live -= 1;
        self.live -= 1;
        Some(Record { id, quantity: order.quantity, book, price, kind: CANCEL, side, pad: 0 })
    }

    /// The order, with this id, that would take everything `side` can take in `book`.
    #[must_use]
    pub fn sweep(&self, id: u32, book: u16, side: u8) -> Record {
        let other = if side == BUY { SELL } else { BUY };
        let levels = &self.books[usize::from(book)].sides[usize::from(other)];
        let resting: u64 = levels.values().flatten().map(|order| u64::from(order.quantity)).sum();
        let quantity = resting.clamp(1, u64::from(QUANTITY_MAX)) as u32;
        Record::aggressive(id, quantity, book, side)
    }
}
