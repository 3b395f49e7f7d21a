//! How a book is measured: one pinned thread, contenders interleaved run by run, so that noise of
//! the machine falls on all of them alike and their ratio means something where times do not.

use std::arch::x86_64::{_mm_lfence, _rdtsc};
use std::fs;
use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};

use crate::floor::Floor;
use crate::flow::{CANCEL, Fill, Flow, Record, Totals};
use crate::ours::Ours;
use crate::report::{Comparison, Latency, Pair, Row};

/// Most runs of a measurement.
pub const RUNS_MAX: usize = 1000;
/// What fees and permissions may cost at most, as a ratio.
const RULES_RATIO_MAX: f64 = 1.3;

/// What a flow is driven through.
pub trait Matcher {
    /// An operation in the form the engine takes it in.
    type Input;

    /// Puts an operation into that form, before any clock runs: orders come encoded. A cancel
    /// carries the handle that its order was answered with.
    fn input(&self, record: &Record) -> Self::Input;

    /// Looks at what comes after operation `at`, which is executed next.
    fn foresee(&mut self, _inputs: &[Self::Input], _at: usize) {}

    /// Executes an operation; every fill goes to `on_fill`, in order. Returns the handle of what
    /// rests; any number if nothing does.
    fn take(&mut self, input: &Self::Input, on_fill: impl FnMut(Fill)) -> u64;
}

/// What every contender pays: reading the flow and telling orders from cancels.
pub struct Empty;

impl Matcher for Empty {
    type Input = Record;

    fn input(&self, record: &Record) -> Record {
        *record
    }

    #[inline(always)]
    fn take(&mut self, record: &Record, _on_fill: impl FnMut(Fill)) -> u64 {
        if record.kind == CANCEL {
            black_box(record.handle());
        } else {
            black_box(record.id);
        }
        0
    }
}

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A contender traded differently from the oracle: its time means nothing.
    #[error("{name}: {contender} traded wrongly {part}: {got:x?}, expected {expected:x?}")]
    Wrong {
        /// The benchmark.
        name: String,
        /// Who.
        contender: &'static str,
        /// Where in the flow.
        part: &'static str,
        /// What it did.
        got: Totals,
        /// What it had to do.
        expected: Totals,
    },
    /// The thread could not be pinned.
    #[error("cannot pin the measuring thread to a CPU: {0}")]
    Pin(#[from] nix::Error),
    /// /proc could not be read.
    #[error("cannot read this process's memory use: {0}")]
    Memory(#[from] io::Error),
}

/// A contender, with the flow in the form it takes.
struct Contender<'a, M: Matcher, F> {
    label: &'static str,
    new: F,
    flow: &'a Flow,
    inputs: Vec<M::Input>,
    /// The empty loop trades nothing; all others are checked.
    checked: bool,
    run_ns: Vec<f64>,
    memory_bytes: u64,
}

impl<'a, M: Matcher, F: Fn() -> M> Contender<'a, M, F> {
    /// Finds the handles by an untimed dry run over the whole flow, and the memory it takes.
    fn new(label: &'static str, flow: &'a Flow, checked: bool, new: F) -> Result<Self, RunError> {
        let mut records = flow.records.clone();
        // Not zero, so that the pages are resident before memory is measured.
        let mut handles = vec![u64::MAX; records.len() + 1];
        let before = resident_bytes()?;
        let mut dry = new();
        put_handles(&mut records, &mut handles, &mut dry);
        let memory_bytes = resident_bytes()?.saturating_sub(before);
        let inputs = records.iter().map(|record| dry.input(record)).collect();
        Ok(Self { label, new, flow, inputs, checked, run_ns: Vec::new(), memory_bytes })
    }

    /// Runs the whole flow on a new matcher; `operations` drives the timed part.
    fn run<T>(
        &self,
        name: &str,
        operations: impl FnOnce(&mut M, &[M::Input], &mut Totals) -> T,
    ) -> Result<T, RunError> {
        let mut matcher = (self.new)();
        let mut totals = Totals::default();
        let expected = &self.flow.expected;
        drive(&mut matcher, self.flow.prefill(&self.inputs), &mut totals);
        let result = operations(&mut matcher, self.flow.timed(&self.inputs), &mut totals);
        self.check(name, "in the timed part", totals, expected.timed)?;
        drive(&mut matcher, self.flow.sweeps(&self.inputs), &mut totals);
        self.check(name, "in the final sweep", totals, expected.swept)?;
        Ok(result)
    }

    fn check(
        &self,
        name: &str,
        part: &'static str,
        got: Totals,
        expected: Totals,
    ) -> Result<(), RunError> {
        if !self.checked || got == expected {
            return Ok(());
        }
        Err(RunError::Wrong { name: name.to_owned(), contender: self.label, part, got, expected })
    }

    /// One timed run.
    fn time(&mut self, name: &str) -> Result<(), RunError> {
        let elapsed = self.run(name, |matcher, inputs, totals| {
            let start = Instant::now();
            drive(matcher, inputs, totals);
            start.elapsed()
        })?;
        self.run_ns.push(elapsed.as_nanos() as f64 / self.flow.ops as f64);
        Ok(())
    }

    /// One run with a time stamp around every operation.
    fn latency(&self, name: &str, ns_per_tick: f64) -> Result<Latency, RunError> {
        let ticks = self.run(name, |matcher, inputs, totals| {
            let mut ticks = histogram();
            for (at, input) in inputs.iter().enumerate() {
                let start = time_stamp();
                matcher.foresee(inputs, at);
                matcher.take(input, |fill| totals.count(fill));
                ticks.saturating_record(time_stamp() - start);
            }
            ticks
        })?;
        let ns = |ticks: u64| (ticks as f64 * ns_per_tick).round();
        Ok(Latency {
            p50: ns(ticks.value_at_quantile(0.5)),
            p99: ns(ticks.value_at_quantile(0.99)),
            p999: ns(ticks.value_at_quantile(0.999)),
            max: ns(ticks.max()),
        })
    }

    fn row(&self, latency: Latency) -> Row {
        let min = self.run_ns.iter().copied().fold(f64::INFINITY, f64::min);
        Row {
            label: self.label,
            median: median(self.run_ns.clone()),
            min,
            latency,
            memory_bytes: self.memory_bytes,
        }
    }
}

/// Measures the floor, ours and the empty loop on one flow; ns per operation. It pins the thread for
/// good, which should be the process's main one: only there is memory counted exactly.
///
/// # Errors
/// A contender trades wrongly, or the system refuses pinning or its memory figures.
///
/// # Panics
/// `runs` is not from 1 to [`RUNS_MAX`].
pub fn book(name: &str, flow: &Flow, runs: usize) -> Result<Comparison, RunError> {
    assert!((1..=RUNS_MAX).contains(&runs), "a measurement has 1 to {RUNS_MAX} runs");
    let cpu = pin()?;
    let ns_per_tick = calibrate();
    let (books, capacity) = (flow.books, flow.expected.live_max + 1);
    let mut empty = Contender::new("empty loop", flow, false, || Empty)?;
    let mut floor = Contender::new("floor", flow, true, || Floor::new(books, capacity))?;
    let mut ours = Contender::new("ours", flow, true, || Ours::new(books, capacity))?;
    for _ in 0..runs {
        empty.time(name)?;
        floor.time(name)?;
        ours.time(name)?;
    }
    Ok(Comparison {
        name: name.to_owned(),
        unit: "ns/op",
        runs,
        ratio: ratio(&ours.run_ns, &floor.run_ns),
        floor_to_empty: ratio(&floor.run_ns, &empty.run_ns),
        ours: ours.row(ours.latency(name, ns_per_tick)?),
        floor: floor.row(floor.latency(name, ns_per_tick)?),
        empty: empty.row(empty.latency(name, ns_per_tick)?),
        facts: facts(flow)?,
        method: method(runs, cpu, ns_per_tick),
    })
}

/// Measures ours on one flow beside the same book without fees and without groups of accounts, which
/// trades the same. It pins the thread for good.
///
/// # Errors
/// As [`book`].
pub fn rules(name: &str, flow: &Flow, runs: usize) -> Result<Pair, RunError> {
    let cpu = pin()?;
    let (books, capacity) = (flow.books, flow.expected.live_max + 1);
    let mut plain = Contender::new("plain", flow, true, || Ours::plain(books, capacity))?;
    let mut ours = Contender::new("ours", flow, true, || Ours::new(books, capacity))?;
    for _ in 0..runs {
        plain.time(name)?;
        ours.time(name)?;
    }
    let method = format!(
        "{runs} interleaved runs on CPU {cpu}, every fill checked; floor: the same book, nobody pays \
         a fee and all accounts are of one group"
    );
    Ok(Pair::new(name, "ns/op", &ours.run_ns, &plain.run_ns)
        .at_most(RULES_RATIO_MAX)
        .method(method))
}

fn method(runs: usize, cpu: usize, ns_per_tick: f64) -> String {
    format!(
        "{runs} interleaved runs on CPU {cpu}, orders encoded before the clock starts, every fill checked; ratios are of the same run; latency \
         from one more run each, with a time stamp ({ns_per_tick:.3} ns a tick) around every operation, \
         whose own cost is the empty loop's; memory is what a dry run over the whole flow adds"
    )
}

fn facts(flow: &Flow) -> Result<Map<String, Value>, RunError> {
    let Totals { trades, volume, notional, hash } = flow.expected.swept;
    let facts = json!({
        "books": flow.books, "live_max": flow.expected.live_max, "ops": flow.ops, "prefill": flow.prefill,
        "trades": trades, "volume": volume, "notional": notional, "hash": format!("{hash:016x}"),
        "process_peak_bytes": peak_bytes()?,
    });
    let Value::Object(facts) = facts else { unreachable!("the literal above is an object") };
    Ok(facts)
}

/// Puts each order's handle, found by a dry run, into the cancel that names the order. `handles`
/// has room for every id.
pub(crate) fn put_handles<M: Matcher>(records: &mut [Record], handles: &mut [u64], dry: &mut M) {
    for record in records {
        let id = record.id as usize;
        if record.kind == CANCEL {
            record.set_handle(handles[id]);
        }
        let input = dry.input(record);
        let handle = dry.take(&input, |_| ());
        if record.kind != CANCEL {
            handles[id] = handle;
        }
    }
}

/// A whole flow as `dry`, on which it is tried, takes it.
pub(crate) fn inputs<M: Matcher>(flow: &Flow, mut dry: M) -> Vec<M::Input> {
    let (mut records, mut handles) = (flow.records.clone(), vec![0; flow.records.len() + 1]);
    put_handles(&mut records, &mut handles, &mut dry);
    records.iter().map(|record| dry.input(record)).collect()
}

#[inline(always)]
pub(crate) fn drive<M: Matcher>(matcher: &mut M, inputs: &[M::Input], totals: &mut Totals) {
    for (at, input) in inputs.iter().enumerate() {
        matcher.foresee(inputs, at);
        matcher.take(input, |fill| totals.count(fill));
    }
}

/// An empty histogram of times up to a minute, in ns or ticks. (One without bounds would keep what
/// is beyond its first guess at that guess.)
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are valid")
}

/// Median of the ratios of runs made at the same time.
pub(crate) fn ratio(runs: &[f64], base: &[f64]) -> f64 {
    median(runs.iter().zip(base).map(|(run, base)| run / base).collect())
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    }
}

/// Keeps this thread on the highest CPU it may use: the lowest serve most interrupts.
fn pin() -> Result<usize, nix::Error> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let usable = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
    let cpu = (0..CpuSet::count()).rev().find(usable).ok_or(nix::Error::EINVAL)?;
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &only)?;
    Ok(cpu)
}

/// The time stamp counter, once everything before it is done.
#[inline(always)]
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: both instructions are in every x86-64, and Linux leaves the counter readable.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// Length of a tick of the time stamp counter, ns.
pub(crate) fn calibrate() -> f64 {
    let (start, start_ticks) = (Instant::now(), time_stamp());
    while start.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    let ticks = time_stamp() - start_ticks;
    start.elapsed().as_nanos() as f64 / ticks as f64
}

/// Resident memory of this process, bytes: the exact count, not the batched one of `status`, and
/// without what the main thread freed, which the next contender would reuse unseen.
fn resident_bytes() -> io::Result<u64> {
    // SAFETY: gives free pages back; glibc allows it at any time from any thread.
    unsafe { nix::libc::malloc_trim(0) };
    field_bytes("/proc/self/smaps_rollup", "Rss:")
}

/// Most memory this process has had resident, bytes.
fn peak_bytes() -> io::Result<u64> {
    field_bytes("/proc/self/status", "VmHWM:")
}

pub(crate) fn field_bytes(path: &str, field: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("{path} has no {field}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::generate;

    #[test]
    fn a_contender_that_trades_wrongly_fails_the_measurement() {
        let mut flow = generate(4, 2, 500, 5000);
        let comparison = book("book.test", &flow, 2).expect("the floor trades correctly");
        assert_eq!(comparison.floor.label, "floor");
        flow.expected.swept.hash ^= 1;
        let error = book("book.test", &flow, 1).expect_err("another hash");
        assert!(
            matches!(error, RunError::Wrong { contender: "floor", part: "in the final sweep", .. }),
            "{error}"
        );
        flow.expected.timed.trades += 1;
        let error = book("book.test", &flow, 1).expect_err("another number of trades");
        assert!(matches!(error, RunError::Wrong { part: "in the timed part", .. }), "{error}");
    }

    #[test]
    fn ratios_are_taken_run_by_run() {
        // A slow machine in the second run slows both: the ratio of the medians would be 4.
        assert_eq!(ratio(&[20.0, 80.0, 30.0], &[10.0, 40.0, 5.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
