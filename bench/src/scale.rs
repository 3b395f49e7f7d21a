//! What an operation of the machine costs as the work grows: live orders, books, instances; beside
//! the bare ladder on the same flow.

use std::time::Instant;

use crate::daemon::AnyError;
use crate::floor::Floor;
use crate::flow::{Flow, Totals};
use crate::generate::generate;
use crate::ours::Ours;
use crate::pin::{Processors, pin};
use crate::report::Pair;
use crate::run::{Matcher, drive, inputs};

/// Operations of one run.
const OPERATIONS: usize = 300_000;

/// Measures `scale.live-*`, `scale.books-*`, `scale.instances-*`.
///
/// # Errors
/// The thread cannot be pinned, or a contender trades wrongly.
pub fn measure(
    processors: Processors,
    runs: usize,
    show: &mut dyn FnMut(Pair),
) -> Result<(), AnyError> {
    pin(processors.asking)?;
    let row = |name: &str, flow: &Flow, accounts| point(name, flow, accounts, runs, processors);
    for (live, power) in [(1_000, 3), (10_000, 4), (100_000, 5), (1_000_000, 6)] {
        show(row(&format!("scale.live-1e{power}"), &generate(21, 1, live, OPERATIONS), 8)?);
    }
    for books in [1, 10, 100, 1000] {
        show(row(&format!("scale.books-{books}"), &generate(22, books, 100_000, OPERATIONS), 8)?);
    }
    for (accounts, power) in [(5, 1), (50, 2), (500, 3), (5_000, 4)] {
        let flow = generate(23, 1, 100_000, OPERATIONS);
        show(row(&format!("scale.instances-1e{power}"), &flow, accounts)?);
    }
    Ok(())
}

fn point(
    name: &str,
    flow: &Flow,
    accounts: u32,
    runs: usize,
    processors: Processors,
) -> Result<Pair, AnyError> {
    let (books, capacity) = (flow.books, flow.expected.live_max + 1);
    let new_ours = || Ours::with_accounts(books, capacity, accounts);
    let (ours_flow, floor_flow) =
        (inputs(flow, new_ours()), inputs(flow, Floor::new(books, capacity)));
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        floor.push(time(name, flow, &floor_flow, Floor::new(books, capacity))?);
        ours.push(time(name, flow, &ours_flow, new_ours())?);
    }
    Ok(Pair::new(name, "ns/op", &ours, &floor)
        .fact("live_orders", flow.prefill)
        .fact("books", books)
        .fact("instances", 2 * accounts as usize * books.div_ceil(5))
        .method(format!(
            "{runs} interleaved runs of {OPERATIONS} operations on CPU {}, every fill checked",
            processors.asking
        )))
}

fn time<M: Matcher>(
    name: &str,
    flow: &Flow,
    inputs: &[M::Input],
    mut matcher: M,
) -> Result<f64, AnyError> {
    let mut totals = Totals::default();
    drive(&mut matcher, flow.prefill(inputs), &mut totals);
    let start = Instant::now();
    drive(&mut matcher, flow.timed(inputs), &mut totals);
    let elapsed = start.elapsed();
    if totals != flow.expected.timed {
        return Err(format!("{name}: traded wrongly").into());
    }
    Ok(elapsed.as_nanos() as f64 / flow.ops as f64)
}
