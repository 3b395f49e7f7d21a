//! What is said while it runs and in the end.

use crate::check::Counts;
use crate::setup::market;
use crate::worker::{Outcome, Shared, Worker};
use crate::{LoadError, Options};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vendue_wire::code::Reject;

/// Of nanoseconds.
pub type Histogram = hdrhistogram::Histogram<u64>;

/// Longest latency told apart: a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// How far ahead of the first request its moment is fixed.
const RUN_UP: Duration = Duration::from_millis(20);

/// An empty histogram of nanoseconds up to a minute, exact to three digits.
pub fn histogram() -> Histogram {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are in range")
}

/// A latency's distribution, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Values.
    pub count: u64,
    /// Least.
    pub min: u64,
    /// Half are no greater.
    pub p50: u64,
    /// 90 in 100 are no greater.
    pub p90: u64,
    /// 99 in 100 are no greater.
    pub p99: u64,
    /// 999 in 1,000 are no greater.
    pub p999: u64,
    /// 9,999 in 10,000 are no greater.
    pub p9999: u64,
    /// Greatest.
    pub max: u64,
}

impl Percentiles {
    fn of(histogram: &Histogram) -> Percentiles {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Percentiles {
            count: histogram.len(),
            min: histogram.min(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The daemon's address.
    pub endpoint: String,
    /// Sessions.
    pub sessions: usize,
    /// Requests a second asked for; 0 for a closed loop.
    pub rate: u64,
    /// Closed loop: requests each session kept unanswered.
    pub depth: usize,
    /// Seconds of sending.
    pub seconds: f64,
    /// The seed.
    pub seed: u64,
    /// Requests sent.
    pub sent: u64,
    /// New orders among them.
    pub orders: u64,
    /// Cancels among them.
    pub cancels: u64,
    /// Requests due that were never sent, because too many were unanswered.
    pub unsent: u64,
    /// Orders accepted.
    pub accepted: u64,
    /// Orders, or rests of them, cancelled.
    pub cancelled: u64,
    /// Fill reports.
    pub filled: u64,
    /// Trades: fills of orders that came in.
    pub trades: u64,
    /// Credits traded in them.
    pub credits_traded: u64,
    /// Requests the core refused, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Requests refused before the core, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Requests sent a second.
    pub rate_achieved: f64,
    /// From when an order was due to its answer.
    pub order_ack_ns: Percentiles,
    /// From when a cancel was due to its answer.
    pub cancel_ack_ns: Percentiles,
    /// The first check that failed, if one did.
    pub violation: Option<String>,
}

impl Report {
    fn of(options: &Options, outcomes: &[Outcome]) -> Report {
        let mut counts = Counts::default();
        let (mut order_ack_ns, mut cancel_ack_ns) = (histogram(), histogram());
        for outcome in outcomes {
            counts.add(&outcome.counts);
            order_ack_ns.add(&outcome.order_ack_ns).expect("histograms of one range");
            cancel_ack_ns.add(&outcome.cancel_ack_ns).expect("histograms of one range");
        }
        let sent = counts.orders + counts.cancels;
        let seconds = options.time.as_secs_f64();
        let violation = outcomes.iter().find_map(|outcome| outcome.violation.as_ref());
        Report {
            endpoint: options.endpoint.to_string(),
            sessions: options.sessions,
            rate: options.rate,
            depth: options.depth,
            seconds,
            seed: options.seed,
            sent,
            orders: counts.orders,
            cancels: counts.cancels,
            unsent: outcomes.iter().map(|outcome| outcome.unsent).sum(),
            accepted: counts.accepted,
            cancelled: counts.cancelled,
            filled: counts.fills,
            trades: counts.trades,
            credits_traded: counts.credits_traded,
            rejected: by_text(&counts.rejected),
            refused: by_text(&counts.refused),
            rate_achieved: sent as f64 / seconds,
            order_ack_ns: Percentiles::of(&order_ack_ns),
            cancel_ack_ns: Percentiles::of(&cancel_ack_ns),
            violation: violation.map(|(session, text)| format!("session {session}: {text}")),
        }
    }
}

fn by_text(codes: &BTreeMap<u8, u64>) -> BTreeMap<String, u64> {
    let text = |code: u8| match Reject::from_u8(code) {
        Some(reject) => reject.to_string(),
        None => format!("code {code}"),
    };
    codes.iter().map(|(&code, &count)| (text(code), count)).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loop_text = match self.rate {
            0 => format!("closed loop, {} deep", self.depth),
            rate => format!("open loop, {rate}/s asked"),
        };
        writeln!(
            f,
            "{}: {} sessions, {loop_text}, {} s, seed {}",
            self.endpoint, self.sessions, self.seconds, self.seed
        )?;
        writeln!(
            f,
            "sent      {:>12}  ({:.0}/s; {} orders, {} cancels, {} due but not sent)",
            self.sent, self.rate_achieved, self.orders, self.cancels, self.unsent
        )?;
        writeln!(f, "accepted  {:>12}", self.accepted)?;
        writeln!(f, "cancelled {:>12}", self.cancelled)?;
        writeln!(
            f,
            "trades    {:>12}  ({} fill reports, {} credits)",
            self.trades, self.filled, self.credits_traded
        )?;
        for (title, reasons) in [("rejected", &self.rejected), ("refused", &self.refused)] {
            for (reason, count) in reasons {
                writeln!(f, "{title:<9} {count:>12}  {reason}")?;
            }
        }
        let titles = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
        write!(f, "microseconds  ")?;
        titles.iter().try_for_each(|title| write!(f, "{title:>10}"))?;
        writeln!(f)?;
        for (title, p) in
            [("order-to-ack", self.order_ack_ns), ("cancel-to-ack", self.cancel_ack_ns)]
        {
            write!(f, "{title:<14}")?;
            for value in [p.min, p.p50, p.p90, p.p99, p.p999, p.p9999, p.max] {
                write!(f, "{:>10.1}", value as f64 / 1e3)?;
            }
            writeln!(f)?;
        }
        match &self.violation {
            None => write!(f, "every request was answered once and in order"),
            Some(violation) => write!(f, "CHECK FAILED: {violation}"),
        }
    }
}

/// Sets up, runs, and reports. `progress` shows a live line on standard error.
///
/// # Errors
/// [`LoadError`]; a failed check is no error but in the report.
pub fn run(options: &Options, progress: bool) -> Result<Report, LoadError> {
    let market = market(options)?;
    // Half the processors: the daemon needs the others.
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let threads = (processors / 2).clamp(1, options.sessions);
    let shared = Shared::new(threads);
    let workers = (0..threads)
        .map(|number| Worker::connect(options, &market, (number, threads), &shared))
        .collect::<Result<Vec<_>, _>>()?;
    let over = AtomicBool::new(false);
    let outcomes: Result<Vec<_>, _> = std::thread::scope(|scope| {
        let start = Instant::now() + RUN_UP;
        let running: Vec<_> =
            workers.into_iter().map(|worker| scope.spawn(move || worker.run(start))).collect();
        let line = progress.then(|| scope.spawn(|| show_progress(&shared, &over)));
        let outcomes = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        over.store(true, Ordering::Relaxed);
        if let Some(line) = line {
            line.thread().unpark();
        }
        outcomes
    });
    Ok(Report::of(options, &outcomes?))
}

fn show_progress(shared: &Shared, over: &AtomicBool) {
    const PERIOD: Duration = Duration::from_secs(1);
    let (mut before, mut at) = (0, Instant::now());
    while !over.load(Ordering::Relaxed) {
        std::thread::park_timeout(PERIOD.saturating_sub(at.elapsed()));
        if at.elapsed() < PERIOD {
            continue;
        }
        let mut counts = Counts::default();
        let mut live = shared.live.lock().unwrap_or_else(|error| error.into_inner());
        live.counts.iter().for_each(|thread| counts.add(thread));
        let [p50, p99] = [0.5, 0.99].map(|q| live.order_ack_ns.value_at_quantile(q) as f64 / 1e3);
        live.order_ack_ns.reset();
        drop(live);
        let sent = counts.orders + counts.cancels;
        let rate = (sent - before) as f64 / at.elapsed().as_secs_f64();
        (before, at) = (sent, Instant::now());
        let refused: u64 = counts.rejected.values().chain(counts.refused.values()).sum();
        let mut line = String::new();
        let _ = write!(line, "{rate:>9.0}/s  ack p50 {p50:>8.1} us  p99 {p99:>9.1} us  ");
        let _ = write!(line, "{} trades  {refused} rejects", counts.trades);
        eprintln!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Violation;

    fn options() -> Options {
        Options {
            endpoint: "tcp:127.0.0.1:7".parse().unwrap(),
            token: [0; 32],
            sessions: 2,
            rate: 100,
            depth: 1,
            time: Duration::from_secs(2),
            seed: 3,
            instances: Vec::new(),
            book: 0,
            prefix: "x".into(),
        }
    }

    fn outcome(latency_ns: u64, violation: Option<(usize, Violation)>) -> Outcome {
        let mut outcome = Outcome {
            counts: Counts { orders: 3, cancels: 2, ..Counts::default() },
            order_ack_ns: histogram(),
            cancel_ack_ns: histogram(),
            unsent: 1,
            violation,
        };
        outcome.counts.rejected.insert(30, 4);
        outcome.counts.refused.insert(250, 1);
        outcome.order_ack_ns.record(latency_ns).unwrap();
        outcome
    }

    #[test]
    fn threads_are_summed_and_codes_named() {
        let report = Report::of(&options(), &[outcome(1_000, None), outcome(9_000, None)]);
        assert_eq!((report.sent, report.orders, report.cancels, report.unsent), (10, 6, 4, 2));
        assert_eq!(report.rejected, BTreeMap::from([("insufficient funds".to_owned(), 8)]));
        assert_eq!(report.refused, BTreeMap::from([("code 250".to_owned(), 2)]));
        assert!((report.rate_achieved - 5.0).abs() < 1e-9);
        let p = report.order_ack_ns;
        assert_eq!((p.count, p.p50), (2, 1_000));
        assert!(p.max.abs_diff(9_000) < 10);
        assert_eq!(report.violation, None);
        assert!(report.to_string().contains("answered once and in order"), "{report}");
    }

    #[test]
    fn a_failed_check_of_any_thread_is_in_the_report() {
        let failed = outcome(1, Some((7, Violation::Doubled { request: 5 })));
        let report = Report::of(&options(), &[outcome(1, None), failed]);
        let text = "session 7: request 5 was answered twice";
        assert_eq!(report.violation.as_deref(), Some(text));
        assert!(report.to_string().contains("CHECK FAILED: session 7"), "{report}");
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["violation"], text);
        assert_eq!(json["order_ack_ns"]["count"], 2);
    }
}
