//! Makes MEFLOW-1 flows: adds around a slowly moving mid, cancels of live orders chosen evenly, and
//! aggressive orders that keep the number of live orders steady. Integers only, so that every
//! implementation makes the same bytes from the same seed.

use super::oracle::Oracle;
use super::{ADD, BUY, Expected, Flow, PRICE_TICKS, Record, sweep_order};
use crate::random::SplitMix;

/// A book's mid moves by a tick, books taking turns, every so many operations.
const MID_MOVE_OPS: usize = 1024;
const MID_START_TICKS: i32 = 500;

/// Makes a flow. `prefill` is also the number of live orders that the flow keeps to.
///
/// # Panics
/// `books` is zero or above [`super::BOOKS_MAX`].
#[must_use]
pub fn generate(seed: u64, books: usize, prefill: usize, ops: usize) -> Flow {
    assert!((1..=super::BOOKS_MAX).contains(&books), "a flow has 1 to 1024 books");
    let mut generator = Generator::new(seed, books, prefill);
    let mut records = Vec::with_capacity(prefill + ops + 2 * books);
    records.extend((0..prefill).map(|_| generator.add()));
    records.extend((0..ops).map(|op| generator.operation(op)));
    let timed = generator.oracle.totals;
    records.extend(sweep_order(books).map(|(book, side)| generator.sweep(book as u16, side)));
    let Oracle { totals: swept, live_max, .. } = generator.oracle;
    Flow { records, prefill, ops, books, expected: Expected { timed, swept, live_max } }
}

struct Generator {
    random: SplitMix,
    oracle: Oracle,
    live: LiveIds,
    mid_ticks: Vec<i32>,
    live_target: usize,
    last_id: u32,
}

impl Generator {
    fn new(seed: u64, books: usize, prefill: usize) -> Self {
        Self {
            random: SplitMix(seed),
            oracle: Oracle::new(books),
            live: LiveIds::default(),
            mid_ticks: vec![MID_START_TICKS; books],
            live_target: prefill / books,
            last_id: 0,
        }
    }

    fn operation(&mut self, op: usize) -> Record {
        if op.is_multiple_of(MID_MOVE_OPS) {
            self.move_mid(op / MID_MOVE_OPS);
        }
        match self.random.below(100) {
            60..90 if !self.live.ids.is_empty() => self.cancel(),
            90.. => self.aggressive(),
            _ => self.add(),
        }
    }

    fn move_mid(&mut self, turn: usize) {
        let book = turn % self.mid_ticks.len();
        let step = if self.random.below(2) == 1 { 1 } else { -1 };
        self.mid_ticks[book] = match self.mid_ticks[book] + step {
            ..400 => 401,
            601.. => 599,
            mid => mid,
        };
    }

    // The order of the draws in each of these is part of the format.

    fn add(&mut self) -> Record {
        let (book, side) = self.book_and_side();
        let away = 1 + distance(&mut self.random);
        let mid = self.mid_ticks[usize::from(book)];
        let wanted = if side == BUY { mid - away } else { mid + away };
        let price = wanted.clamp(i32::from(*PRICE_TICKS.start()), i32::from(*PRICE_TICKS.end()));
        let quantity = 1 + self.random.below(100);
        let id = self.next_id();
        self.submit(Record { id, quantity, book, price: price as u16, kind: ADD, side, pad: 0 })
    }

    fn aggressive(&mut self) -> Record {
        let (book, side) = self.book_and_side();
        let crowded = self.oracle.live_in(book) > self.live_target;
        let quantity = 1 + self.random.below(if crowded { 400 } else { 200 });
        let id = self.next_id();
        self.submit(Record::aggressive(id, quantity, book, side))
    }

    fn cancel(&mut self) -> Record {
        let at = self.random.below(self.live.ids.len() as u32);
        let id = self.live.ids[at as usize];
        self.live.remove(id);
        self.oracle.cancel(id).expect("it was live")
    }

    fn sweep(&mut self, book: u16, side: u8) -> Record {
        let id = self.next_id();
        let sweep = self.oracle.sweep(id, book, side);
        self.submit(sweep)
    }

    fn submit(&mut self, order: Record) -> Record {
        self.oracle.apply(&order).expect("ids are fresh");
        for &id in &self.oracle.filled {
            self.live.remove(id);
        }
        if self.oracle.is_live(order.id) {
            self.live.push(order.id);
        }
        order
    }

    fn book_and_side(&mut self) -> (u16, u8) {
        let book = self.random.below(self.mid_ticks.len() as u32) as u16;
        (book, self.random.below(2) as u8)
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }
}

/// Live ids in the order that draws refer to: a removal moves the last id into the gap.
#[derive(Default)]
struct LiveIds {
    ids: Vec<u32>,
    /// By id: its place in `ids`, while it is live.
    places: Vec<u32>,
}

impl LiveIds {
    fn push(&mut self, id: u32) {
        if self.places.len() <= id as usize {
            self.places.resize(id as usize + 1, 0);
        }
        self.places[id as usize] = self.ids.len() as u32;
        self.ids.push(id);
    }

    fn remove(&mut self, id: u32) {
        let gap = self.places[id as usize];
        let removed = self.ids.swap_remove(gap as usize);
        assert_eq!(removed, id, "live ids and their places agree");
        if let Some(&moved) = self.ids.get(gap as usize) {
            self.places[moved as usize] = gap;
        }
    }
}

/// Half a bell curve by the central limit of eight bytes: 0 to 488 ticks.
fn distance(random: &mut SplitMix) -> i32 {
    let sum: i32 = random.draw().to_le_bytes().iter().map(|&byte| i32::from(byte)).sum();
    (sum - 1020).abs() * 100 / 209
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mid_that_leaves_its_range_is_put_back_inside() {
        // No published flow gets this far.
        for (edge, inside) in [(400, 401), (600, 599)] {
            let mut generator = Generator::new(1, 1, 10);
            for _ in 0..64 {
                generator.mid_ticks[0] = edge;
                generator.move_mid(0);
                assert_eq!(generator.mid_ticks[0], inside, "whichever way it stepped");
            }
        }
    }

    #[test]
    fn books_take_turns_in_moving_their_mids() {
        let mut generator = Generator::new(1, 3, 10);
        generator.move_mid(4);
        assert_ne!(generator.mid_ticks[1], MID_START_TICKS);
        assert_eq!([generator.mid_ticks[0], generator.mid_ticks[2]], [MID_START_TICKS; 2]);
    }
}
