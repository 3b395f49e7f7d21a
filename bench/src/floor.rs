//! The floor: the least that price-time matching can cost. One array ladder a book and side, a
//! two-level bitmap that finds the best level, queues threaded through 16-byte nodes in a recycled
//! slab, and cancels by handle. No accounts, no permissions, no fees, no reports.

use crate::flow::{BUY, CANCEL, Fill, PRICE_TICKS, Record};
use crate::run::Matcher;

/// Levels of one side of one book.
const LEVELS: usize = 1024;
const LEVEL_MASK: u32 = LEVELS as u32 - 1;
const _: () = assert!(*PRICE_TICKS.end() as usize <= LEVELS);

/// A resting order, a free slot, or a level's sentinel: every queue is a ring through its sentinel,
/// so that linking and unlinking have no special case at either end.
#[derive(Clone, Copy, Default)]
struct Node {
    /// The order's id, which is also the generation of its slot; 0 in a free slot.
    id: u32,
    quantity: u32,
    previous: u32,
    next: u32,
}

const _: () = assert!(size_of::<Node>() == 16);

/// Which levels of one side hold orders.
#[derive(Clone, Copy, Default)]
struct Bitmap {
    /// Which of `words` are not zero.
    summary: u64,
    words: [u64; LEVELS / 64],
}

impl Bitmap {
    #[inline(always)]
    fn set(&mut self, level: u32) {
        self.words[(level >> 6) as usize] |= 1 << (level & 63);
        self.summary |= 1 << (level >> 6);
    }

    #[inline(always)]
    fn clear(&mut self, level: u32) {
        let word = &mut self.words[(level >> 6) as usize];
        *word &= !(1 << (level & 63));
        self.summary &= !(u64::from(*word == 0) << (level >> 6));
    }

    /// The lowest level that holds orders; `LEVELS` or more if none does.
    #[inline(always)]
    fn best(&self) -> u32 {
        let word = self.summary.trailing_zeros();
        let bits = self.words[word as usize & (LEVELS / 64 - 1)];
        word * 64 + bits.trailing_zeros()
    }
}

/// The bare ladder. Bids are kept by mirrored price, so that the best level of either side is the
/// lowest and one code path serves both.
pub struct Floor {
    /// Sentinels, `LEVELS` a side; then the slots of orders.
    nodes: Vec<Node>,
    sides: Vec<Bitmap>,
    /// First free slot; 0 (a sentinel) if there is none.
    free: u32,
}

impl Floor {
    /// Empty books with room for `capacity` resting orders in all.
    ///
    /// # Panics
    /// There would be 2^32 nodes or more.
    #[must_use]
    pub fn new(books: usize, capacity: usize) -> Self {
        let sentinels = books * 2 * LEVELS;
        let count = u32::try_from(sentinels + capacity).expect("node indices have 32 bits");
        let empty = |at: u32| Node { previous: at, next: at, ..Node::default() };
        let free =
            |at: u32| Node { next: if at + 1 < count { at + 1 } else { 0 }, ..Node::default() };
        let first = sentinels as u32;
        let nodes = (0..count).map(|at| if at < first { empty(at) } else { free(at) }).collect();
        let free = if capacity > 0 { first } else { 0 };
        Self { nodes, sides: vec![Bitmap::default(); books * 2], free }
    }

    /// Queues what is left of an order behind `sentinel`'s others; returns its slot.
    #[inline(always)]
    fn rest(&mut self, sentinel: u32, id: u32, quantity: u32) -> u32 {
        let slot = self.free;
        assert!(
            slot != 0,
            "the floor's slab is full: its capacity is the flow's peak of live orders"
        );
        let last = self.nodes[sentinel as usize].previous;
        self.free = self.nodes[slot as usize].next;
        self.nodes[slot as usize] = Node { id, quantity, previous: last, next: sentinel };
        self.nodes[last as usize].next = slot;
        self.nodes[sentinel as usize].previous = slot;
        slot
    }

    #[inline(always)]
    fn recycle(&mut self, slot: u32) {
        self.nodes[slot as usize] = Node { next: self.free, ..Node::default() };
        self.free = slot;
    }
}

impl Matcher for Floor {
    type Input = Record;

    fn input(&self, record: &Record) -> Record {
        *record
    }

    #[inline(always)]
    fn take(&mut self, record: &Record, on_fill: impl FnMut(Fill)) -> u64 {
        if record.kind == CANCEL {
            self.cancel(record.handle());
            0
        } else {
            self.add(record, on_fill)
        }
    }
}

impl Floor {
    /// Matches an order and queues what is left of it. Returns its handle.
    #[inline(always)]
    fn add(&mut self, order: &Record, mut on_fill: impl FnMut(Fill)) -> u64 {
        let mirror = if order.side == BUY { LEVEL_MASK } else { 0 };
        let price = u32::from(order.price);
        let own_side = usize::from(order.book) * 2 + usize::from(order.side);
        let other_side = own_side ^ 1;
        // The other side's levels are mirrored the other way.
        let limit = price ^ mirror ^ LEVEL_MASK;
        let mut left = order.quantity;
        loop {
            let level = self.sides[other_side].best();
            if level > limit {
                break;
            }
            let sentinel = (other_side * LEVELS) as u32 + level;
            let price = (level ^ mirror ^ LEVEL_MASK) as u16;
            let mut slot = self.nodes[sentinel as usize].next;
            while slot != sentinel {
                let maker = &mut self.nodes[slot as usize];
                let (id, next) = (maker.id, maker.next);
                let quantity = left.min(maker.quantity);
                maker.quantity -= quantity;
                left -= quantity;
                let done = maker.quantity == 0;
                on_fill(Fill { taker: order.id, maker: id, price, quantity });
                if done {
                    self.recycle(slot);
                    slot = next;
                }
                if left == 0 {
                    break;
                }
            }
            self.nodes[sentinel as usize].next = slot;
            self.nodes[slot as usize].previous = sentinel;
            if slot == sentinel {
                self.sides[other_side].clear(level);
            }
            if left == 0 {
                return 0;
            }
        }
        let level = price ^ mirror;
        let sentinel = (own_side * LEVELS) as u32 + level;
        let slot = self.rest(sentinel, order.id, left);
        self.sides[own_side].set(level);
        u64::from(order.id) << 32 | u64::from(slot)
    }

    /// Takes the order with this handle out of its queue.
    #[inline(always)]
    fn cancel(&mut self, handle: u64) {
        let slot = handle as u32;
        let Node { id, previous, next, .. } = self.nodes[slot as usize];
        assert!(u64::from(id) == handle >> 32, "the handle names an order that is gone");
        self.nodes[previous as usize].next = next;
        self.nodes[next as usize].previous = previous;
        if previous == next {
            // Only a sentinel is on both sides of an order: the level is empty now.
            let (side, level) = (previous as usize / LEVELS, previous & LEVEL_MASK);
            self.sides[side].clear(level);
        }
        self.recycle(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{ADD, FLOW_A, FLOW_B, Flow, SELL, Totals};
    use crate::generate::generate;
    use crate::ours::Ours;

    /// Runs a whole flow by handle; totals after the timed part and after the sweeps.
    fn run<M: Matcher>(flow: &Flow, mut matcher: M) -> (Totals, Totals) {
        let mut handles = vec![0; flow.records.len() + 1];
        let (mut totals, mut timed) = (Totals::default(), Totals::default());
        for (index, record) in flow.records.iter().enumerate() {
            if index == flow.prefill + flow.ops {
                timed = totals;
            }
            let mut record = *record;
            let id = record.id as usize;
            if record.kind == CANCEL {
                record.set_handle(handles[id]);
            }
            let input = matcher.input(&record);
            let handle = matcher.take(&input, |fill| totals.count(fill));
            if record.kind != CANCEL {
                handles[id] = handle;
            }
        }
        (timed, totals)
    }

    #[test]
    fn published_flows_are_made_byte_for_byte_and_trade_as_published() {
        for published in [FLOW_A, FLOW_B] {
            let flow = published.generate().expect("as published");
            let expected = (published.expected.timed, published.expected.swept);
            let (books, capacity) = (flow.books, flow.expected.live_max + 1);
            assert_eq!(run(&flow, Floor::new(books, capacity)), expected, "the floor");
            assert_eq!(run(&flow, Ours::new(books, capacity)), expected, "the real machine");
        }
    }

    #[test]
    fn the_floor_trades_as_the_oracle_does() {
        for (seed, books, prefill, ops) in
            [(1, 1, 20_000, 300_000), (2, 7, 20_000, 300_000), (3, 2, 20, 50_000)]
        {
            let flow = generate(seed, books, prefill, ops);
            let floor = Floor::new(flow.books, flow.expected.live_max);
            let expected = (flow.expected.timed, flow.expected.swept);
            assert_eq!(run(&flow, floor), expected, "seed {seed}");
        }
    }

    #[test]
    fn prices_at_both_ends_trade() {
        let mut floor = Floor::new(1, 4);
        let order =
            |id, side, price| Record { id, quantity: 1, book: 0, price, kind: ADD, side, pad: 0 };
        let mut fills = Vec::new();
        for (id, side, price) in [
            (1, SELL, 1000),
            (2, BUY, 1),
            (3, BUY, 999),
            (4, SELL, 1),
            (5, BUY, 1000),
            (6, SELL, 1),
        ] {
            floor.add(&order(id, side, price), |fill| {
                fills.push((fill.taker, fill.maker, fill.price))
            });
        }
        assert_eq!(fills, [(4, 3, 999), (5, 1, 1000), (6, 2, 1)]);
    }

    #[test]
    fn the_bitmap_forgets_a_level_with_its_last_order() {
        let mut floor = Floor::new(1, 2);
        let order =
            |id, side| Record { id, quantity: 1, book: 0, price: 500, kind: ADD, side, pad: 0 };
        let [first, second] = [1, 2].map(|id| floor.add(&order(id, SELL), |_| ()));
        floor.cancel(first);
        assert_eq!(floor.sides[1].best(), 500, "one is left");
        floor.cancel(second);
        assert!(floor.sides[1].best() >= LEVELS as u32);
        floor.add(&order(3, SELL), |_| ());
        floor.add(&order(4, BUY), |_| ());
        assert!(floor.sides.iter().all(|side| side.best() >= LEVELS as u32));
    }

    #[test]
    #[should_panic(expected = "names an order that is gone")]
    fn a_handle_dies_with_its_order() {
        let mut floor = Floor::new(1, 1);
        let order =
            |id| Record { id, quantity: 1, book: 0, price: 500, kind: ADD, side: SELL, pad: 0 };
        let first = floor.add(&order(1), |_| ());
        floor.cancel(first);
        floor.add(&order(2), |_| ());
        floor.cancel(first);
    }

    #[test]
    #[should_panic(expected = "slab is full")]
    fn the_slab_does_not_grow() {
        let mut floor = Floor::new(1, 1);
        for id in 1..=2 {
            let order =
                Record { id, quantity: 1, book: 0, price: 500, kind: ADD, side: SELL, pad: 0 };
            floor.add(&order, |_| ());
        }
    }
}
