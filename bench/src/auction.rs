//! One auction of a full book, beside one pass over the same orders in memory.
//!
//! *Ours* is one command to the real machine: it makes a book in call continuous, and so finds the
//! price, matches, settles both sides in double entry with fees, frees what was held, takes the
//! filled orders out and writes every event. *The floor* sums the orders' quantities by side and
//! price: one pass over an array of the machine's own nodes, which holds the same orders in the slots
//! that the machine gave them. That is what it takes to look at each order once, to know the price.

use std::hint::black_box;
use std::time::Instant;

use vendue_engine::machine::slab::{Node, Tag};
use vendue_wire::code::Side;
use zerocopy::FromZeros;

use crate::daemon::AnyError;
use crate::flow::{ADD, Record};
use crate::ours::{Ours, PRICE_MAX};
use crate::pin::{Processors, pin};
use crate::report::Pair;
use crate::run::Matcher;

/// Resting orders.
const ORDERS: u32 = 100_000;
/// Accounts a side, each with one instance.
const ACCOUNTS: u32 = 500;
/// What the ratio should be at most.
const RATIO_MAX: f64 = 10.0;

/// Measures `auction.spread`, where prices overlap so that about half of the orders trade, and
/// `auction.all`, where every buyer pays what every seller asks.
///
/// # Errors
/// The thread cannot be pinned, or an auction trades wrongly.
pub fn measure(
    processors: Processors,
    runs: usize,
    show: &mut dyn FnMut(Pair),
) -> Result<(), AnyError> {
    pin(processors.asking)?;
    show(row("auction.spread", (401, 200), (401, 200), runs, processors)?);
    show(row("auction.all", (501, 100), (401, 100), runs, processors)?);
    Ok(())
}

/// First price and number of prices of a side.
type Prices = (u64, u64);

fn row(
    name: &str,
    bids: Prices,
    asks: Prices,
    runs: usize,
    processors: Processors,
) -> Result<Pair, AnyError> {
    let (mut ours, mut floor, mut told) = (Vec::new(), Vec::new(), (0, 0));
    // One machine for all, as in a daemon: the first auction is not timed and brings its memory in.
    let mut book = Book::new();
    for seed in 0..=runs as u64 {
        book.fill(seed, bids, asks);
        let start = Instant::now();
        let sums = black_box(sum(black_box(&book.nodes)));
        let passed = start.elapsed().as_nanos() as f64 / f64::from(ORDERS);
        let start = Instant::now();
        told = book.machine.uncross();
        let uncrossed = start.elapsed().as_nanos() as f64 / f64::from(ORDERS);
        if seed > 0 {
            floor.push(passed);
            ours.push(uncrossed);
        }
        let most = most_volume(&sums);
        if told.1 != most {
            return Err(format!("{name}: traded {} credits instead of {most}", told.1).into());
        }
    }
    Ok(Pair::new(name, "ns/order", &ours, &floor)
        .at_most(RATIO_MAX)
        .fact("orders", ORDERS)
        .fact("trades", told.0)
        .fact("credits", told.1)
        .fact("instances", 2 * ACCOUNTS)
        .method(format!(
            "{runs} runs on CPU {}, each of other orders: first the pass, then the auction, whose \
             volume is checked",
            processors.asking
        )))
}

/// A machine whose only book holds the orders in call, and the same orders in memory.
struct Book {
    machine: Ours,
    nodes: Vec<Node>,
    /// Number of the last order.
    last: u32,
}

impl Book {
    fn new() -> Book {
        let machine = Ours::with_accounts(1, ORDERS as usize, ACCOUNTS);
        Book { machine, nodes: Vec::new(), last: 0 }
    }

    /// Other orders than before, in call.
    fn fill(&mut self, seed: u64, bids: Prices, asks: Prices) {
        let Book { machine, nodes, last } = self;
        machine.clear_and_call();
        nodes.fill(Node::new_zeroed());
        let mut state = seed + 1;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            (state >> 33) % below
        };
        for id in *last + 1..=*last + ORDERS {
            let side = if draw(2) == 0 { Side::Buy } else { Side::Sell };
            let (first, count) = if side == Side::Buy { bids } else { asks };
            let price = (first + draw(count)) as u16;
            let quantity = 1 + draw(100) as u32;
            let side_byte = side as u8;
            let record =
                Record { id, quantity, book: 0, price, kind: ADD, side: side_byte, pad: 0 };
            let order = machine.input(&record);
            let handle = machine.take(&order, |_| {});
            let slot = handle as u32 as usize;
            if slot >= nodes.len() {
                nodes.resize(slot + 1, Node::new_zeroed());
            }
            let tag = Tag::new(0, 0, price, side as u16);
            nodes[slot] =
                Node { quantity, generation: (handle >> 32) as u32, tag, ..Node::new_zeroed() };
        }
        *last += ORDERS;
    }
}

/// Quantities by side and price.
type Sums = [[u64; PRICE_MAX + 1]; 2];

/// One pass over the orders.
#[inline(never)]
fn sum(nodes: &[Node]) -> Sums {
    let mut sums = [[0; PRICE_MAX + 1]; 2];
    for node in nodes.iter().filter(|node| node.live()) {
        sums[node.tag.side()][usize::from(node.tag.price()).min(PRICE_MAX)] +=
            u64::from(node.quantity);
    }
    sums
}

/// The most credits that any one price trades: what the auction must have traded.
fn most_volume(sums: &Sums) -> u64 {
    let at = |price: usize| {
        let (wanted, offered) = (&sums[0][price..], &sums[1][..=price]);
        wanted.iter().sum::<u64>().min(offered.iter().sum())
    };
    (1..=PRICE_MAX).map(at).max().unwrap_or(0)
}
