//! What is measured while it runs, and what is said in the end.

use crate::Options;
use crate::attack::{Fate, Window, window};
use crate::check::Counts;
use crate::profile::Profile;
use crate::schedule::{RampStep, Schedule};
use crate::trades::Judged;
use crate::worker::Outcome;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use vendue_wire::code::Reject;

/// Of nanoseconds.
pub type Histogram = hdrhistogram::Histogram<u64>;

/// Longest latency told apart: a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// A step of a ramp holds if it was answered at this share of the rate asked, in percent...
const HOLDS_PERCENT: u64 = 95;
/// ...and its p99 is no more than so many times the least p99 of all steps.
const HOLDS_TIMES: u64 = 10;

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
    /// Of a histogram.
    pub fn of(histogram: &Histogram) -> Percentiles {
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

/// The latencies of a ramp's step.
#[derive(Clone, Debug)]
pub struct StepTally {
    step: RampStep,
    /// Of what was due in it.
    ack_ns: Histogram,
    /// Answers that came while it lasted.
    answered: u64,
}

/// Every latency of a run, from when a request was due to its answer.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Of orders.
    pub order_ack_ns: Histogram,
    /// Of cancels.
    pub cancel_ack_ns: Histogram,
    /// From when a request was due to when it was sent.
    pub late_ns: Histogram,
    /// Of all requests, by profile.
    pub profiles: BTreeMap<Profile, Histogram>,
    steps: Vec<StepTally>,
    /// Of all requests in calm windows and in those of attack, if there is one.
    pub windows: Option<[Histogram; 2]>,
}

impl Tally {
    /// Nothing yet. A `ramp` and an `attack` are told apart.
    pub fn new(ramp: Option<&Schedule>, attack: bool) -> Tally {
        let step = |step: &RampStep| StepTally { step: *step, ack_ns: histogram(), answered: 0 };
        let steps = ramp.map(|ramp| ramp.steps().iter().map(step).collect());
        Tally {
            order_ack_ns: histogram(),
            cancel_ack_ns: histogram(),
            late_ns: histogram(),
            profiles: BTreeMap::new(),
            steps: steps.unwrap_or_default(),
            windows: attack.then(|| [histogram(), histogram()]),
        }
    }

    /// A request was sent so long after it was due.
    pub fn sent(&mut self, late_ns: u64) {
        self.late_ns.saturating_record(late_ns);
    }

    /// A request that was due at `due_ns` was answered at `now_ns`.
    pub fn answered(&mut self, profile: Profile, order: bool, due_ns: u64, now_ns: u64) {
        let latency_ns = now_ns.saturating_sub(due_ns);
        let of_kind = if order { &mut self.order_ack_ns } else { &mut self.cancel_ack_ns };
        of_kind.saturating_record(latency_ns);
        self.profiles.entry(profile).or_insert_with(histogram).saturating_record(latency_ns);
        let holds = |step: &RampStep, at_ns| step.start_ns <= at_ns && at_ns < step.end_ns;
        for step in &mut self.steps {
            if holds(&step.step, due_ns) {
                step.ack_ns.saturating_record(latency_ns);
            }
            step.answered += u64::from(holds(&step.step, now_ns));
        }
        if let (Some(windows), Some(window)) = (&mut self.windows, window(due_ns)) {
            windows[usize::from(window == Window::Attack)].saturating_record(latency_ns);
        }
    }

    /// Adds `other`'s.
    pub fn add(&mut self, other: &Tally) {
        let add = |to: &mut Histogram, from| to.add(from).expect("histograms of one range");
        add(&mut self.order_ack_ns, &other.order_ack_ns);
        add(&mut self.cancel_ack_ns, &other.cancel_ack_ns);
        add(&mut self.late_ns, &other.late_ns);
        for (profile, from) in &other.profiles {
            add(self.profiles.entry(*profile).or_insert_with(histogram), from);
        }
        for (to, from) in self.steps.iter_mut().zip(&other.steps) {
            add(&mut to.ack_ns, &from.ack_ns);
            to.answered += from.answered;
        }
        if let (Some(to), Some(from)) = (&mut self.windows, &other.windows) {
            to.iter_mut().zip(from).for_each(|(to, from)| add(to, from));
        }
    }
}

/// A step of a ramp.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Requests a second asked for.
    pub rate: u64,
    /// Answers a second that came while it lasted.
    pub answered_rate: u64,
    /// From when a request was due to its answer.
    pub ack_ns: Percentiles,
    /// Whether the daemon kept up: see [`RampReport::knee_rate`].
    pub holds: bool,
}

/// A ramp.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RampReport {
    /// In order.
    pub steps: Vec<StepReport>,
    /// The highest rate that holds, if one does and a higher one does not. A rate holds if answers
    /// came at 95 in 100 of it and p99 is within ten times the least p99 of all steps.
    pub knee_rate: Option<u64>,
}

impl RampReport {
    fn of(steps: &[StepTally]) -> RampReport {
        let p99 = |step: &StepTally| Percentiles::of(&step.ack_ns).p99;
        let least = steps.iter().map(p99).filter(|&p99| p99 > 0).min().unwrap_or(0);
        let steps: Vec<StepReport> = steps
            .iter()
            .map(|tally| {
                let length_ns = u128::from(tally.step.end_ns - tally.step.start_ns).max(1);
                let answered_rate = (u128::from(tally.answered) * 1_000_000_000 / length_ns) as u64;
                let ack_ns = Percentiles::of(&tally.ack_ns);
                let kept_up = answered_rate * 100 >= tally.step.rate * HOLDS_PERCENT;
                let holds = kept_up && ack_ns.p99 <= HOLDS_TIMES * least;
                StepReport { rate: tally.step.rate, answered_rate, ack_ns, holds }
            })
            .collect();
        let best = steps.iter().filter(|step| step.holds).map(|step| step.rate).max();
        let beyond = |knee: &u64| steps.iter().any(|step| step.rate > *knee && !step.holds);
        RampReport { knee_rate: best.filter(beyond), steps }
    }
}

/// What the honest sessions lost to attackers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttackReport {
    /// Of requests due in windows without an attack.
    pub calm_ack_ns: Percentiles,
    /// Of requests due while every attacker was at work.
    pub attacked_ack_ns: Percentiles,
    /// The median under attack beside the median without.
    pub p50_ratio: f64,
    /// p99 under attack beside p99 without.
    pub p99_ratio: f64,
    /// What became of the attackers, by kind.
    pub attackers: BTreeMap<String, Fate>,
}

impl AttackReport {
    fn of(windows: &[Histogram; 2], attackers: BTreeMap<String, Fate>) -> AttackReport {
        let [calm_ack_ns, attacked_ack_ns] = [&windows[0], &windows[1]].map(Percentiles::of);
        let ratio = |of: fn(&Percentiles) -> u64| {
            of(&attacked_ack_ns) as f64 / of(&calm_ack_ns).max(1) as f64
        };
        let (p50_ratio, p99_ratio) = (ratio(|ns| ns.p50), ratio(|ns| ns.p99));
        AttackReport { calm_ack_ns, attacked_ack_ns, p50_ratio, p99_ratio, attackers }
    }
}

/// What a flow from a file led to: the same as by the naive matcher, or the check has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FlowReport {
    /// Fills.
    pub trades: u64,
    /// Credits in them.
    pub volume: u64,
    /// Sum of price x quantity, in ticks.
    pub notional: u64,
    /// Hash of the fills in their order; only one session hears of them in one order.
    pub hash: Option<u64>,
}

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The daemon's address.
    pub endpoint: String,
    /// Sessions.
    pub sessions: usize,
    /// How they behave.
    pub mix: String,
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
    /// From when a request was due to when it was sent: the generator's own delay.
    pub late_ns: Percentiles,
    /// From when a request was due to its answer, by profile.
    pub profile_ack_ns: BTreeMap<&'static str, Percentiles>,
    /// The ramp, if there was one.
    pub ramp: Option<RampReport>,
    /// The attack, if there was one.
    pub attack: Option<AttackReport>,
    /// The flow from a file, if there was one.
    pub flow: Option<FlowReport>,
    /// Trades that the record was checked for, if there is one: both parties, price and time.
    pub trades_checked: Option<u64>,
    /// The first check that failed, if one did.
    pub violation: Option<String>,
}

impl Report {
    /// Sums up what the threads found.
    pub fn of(options: &Options, outcomes: &[Outcome], tally: &Tally) -> Report {
        let mut counts = Counts::default();
        outcomes.iter().for_each(|outcome| counts.add(&outcome.counts));
        let sent = counts.orders + counts.cancels;
        let timed_ns = outcomes.iter().map(|outcome| outcome.timed_ns).max().unwrap_or(0);
        let seconds = timed_ns as f64 / 1e9;
        let violation = outcomes.iter().find_map(|outcome| outcome.violation.as_ref());
        let by_profile = tally.profiles.iter();
        Report {
            endpoint: options.endpoint.to_string(),
            sessions: options.mix.sessions(),
            mix: options.mix.to_string(),
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
            rate_achieved: tally.late_ns.len() as f64 / seconds.max(1e-9),
            order_ack_ns: Percentiles::of(&tally.order_ack_ns),
            cancel_ack_ns: Percentiles::of(&tally.cancel_ack_ns),
            late_ns: Percentiles::of(&tally.late_ns),
            profile_ack_ns: by_profile.map(|(p, ns)| (p.name(), Percentiles::of(ns))).collect(),
            ramp: options.ramp.map(|_| RampReport::of(&tally.steps)),
            attack: None,
            flow: options.flow.as_ref().map(|_| flow_report(outcomes, options.mix.sessions())),
            trades_checked: None,
            violation: violation.map(|(session, text)| format!("session {session}: {text}")),
        }
    }

    /// Adds what became of the attackers.
    pub fn attacked(&mut self, tally: &Tally, fates: BTreeMap<String, Fate>) {
        self.attack = tally.windows.as_ref().map(|windows| AttackReport::of(windows, fates));
    }

    /// Adds what the check of the record found.
    pub fn record_checked(&mut self, judged: Judged, violation: Option<String>) {
        self.trades_checked = Some(judged.trades);
        let found = || violation.map(|text| format!("the record: {text}"));
        self.violation = self.violation.take().or_else(found);
    }
}

fn flow_report(outcomes: &[Outcome], sessions: usize) -> FlowReport {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum();
    FlowReport {
        trades: sum(|outcome| outcome.flow.trades),
        volume: sum(|outcome| outcome.flow.volume),
        notional: sum(|outcome| outcome.flow.notional),
        hash: outcomes.first().filter(|_| sessions == 1).map(|outcome| outcome.flow.hash),
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
        self.write_counts(f)?;
        self.write_latencies(f)?;
        if let Some(ramp) = &self.ramp {
            write_ramp(f, ramp)?;
        }
        if let Some(attack) = &self.attack {
            write_attack(f, attack)?;
        }
        if let Some(flow) = &self.flow {
            let FlowReport { trades, volume, notional, hash } = flow;
            write!(f, "flow      {trades:>12}  fills, volume {volume}, notional {notional}")?;
            match hash {
                Some(hash) => writeln!(f, ", hash {hash:016x}: as the naive matcher's")?,
                None => writeln!(f, ": each as the naive matcher's")?,
            }
        }
        match &self.violation {
            None => write!(f, "every request was answered once and in order")?,
            Some(violation) => return write!(f, "CHECK FAILED: {violation}"),
        }
        match self.trades_checked {
            Some(trades) => write!(f, "; {trades} trades of the record are fair"),
            None => Ok(()),
        }
    }
}

impl Report {
    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loop_text = match (&self.ramp, self.rate) {
            (Some(_), _) => "open loop, a ramp".to_owned(),
            (None, 0) => format!("closed loop, {} deep", self.depth),
            (None, rate) => format!("open loop, {rate}/s asked"),
        };
        let Report { endpoint, mix, seconds, seed, .. } = self;
        writeln!(f, "{endpoint}: {mix} sessions, {loop_text}, {seconds:.1} s, seed {seed}")?;
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
        Ok(())
    }

    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_titles(f, "microseconds")?;
        write_percentiles(f, "order-to-ack", &self.order_ack_ns)?;
        write_percentiles(f, "cancel-to-ack", &self.cancel_ack_ns)?;
        if self.profile_ack_ns.len() > 1 {
            for (profile, percentiles) in &self.profile_ack_ns {
                write_percentiles(f, profile, percentiles)?;
            }
        }
        write_percentiles(f, "due-to-sent", &self.late_ns)
    }
}

fn write_titles(f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
    write!(f, "{title:<16}")?;
    let titles = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    titles.iter().try_for_each(|title| write!(f, "{title:>11}"))?;
    writeln!(f)
}

fn write_percentiles(f: &mut fmt::Formatter<'_>, title: &str, p: &Percentiles) -> fmt::Result {
    write!(f, "{title:<16}")?;
    for value in [p.min, p.p50, p.p90, p.p99, p.p999, p.p9999, p.max] {
        write!(f, "{:>11.1}", value as f64 / 1e3)?;
    }
    writeln!(f)
}

fn write_ramp(f: &mut fmt::Formatter<'_>, ramp: &RampReport) -> fmt::Result {
    let titles = ["asked/s", "answered/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us"];
    titles.iter().try_for_each(|title| write!(f, "{title:>12}"))?;
    writeln!(f)?;
    for step in &ramp.steps {
        write!(f, "{:>12}{:>12}", step.rate, step.answered_rate)?;
        let p = &step.ack_ns;
        for value in [p.p50, p.p90, p.p99, p.p999, p.max] {
            write!(f, "{:>12.1}", value as f64 / 1e3)?;
        }
        writeln!(f, "{}", if step.holds { "" } else { "  does not hold" })?;
    }
    match ramp.knee_rate {
        Some(rate) => writeln!(f, "knee at {rate}/s: no higher rate of the ramp holds"),
        None if ramp.steps.iter().all(|step| step.holds) => {
            writeln!(f, "no knee: every rate of the ramp holds")
        }
        None => writeln!(f, "no knee found: begin the ramp lower"),
    }
}

fn write_attack(f: &mut fmt::Formatter<'_>, attack: &AttackReport) -> fmt::Result {
    write_titles(f, "honest sessions")?;
    write_percentiles(f, "without attack", &attack.calm_ack_ns)?;
    write_percentiles(f, "under attack", &attack.attacked_ack_ns)?;
    let AttackReport { p50_ratio, p99_ratio, .. } = attack;
    writeln!(
        f,
        "under attack the median is {p50_ratio:.2} times that without, p99 {p99_ratio:.1}"
    )?;
    for (kind, fate) in &attack.attackers {
        let Fate { connections, not_connected, bytes, refused, granted, ended } = fate;
        write!(f, "{kind:<16}{connections:>11} connections, {bytes} bytes")?;
        if *not_connected > 0 {
            write!(f, ", {not_connected} not connected")?;
        }
        ended.iter().try_for_each(|(reason, count)| write!(f, "; {count} {reason}"))?;
        writeln!(f)?;
        for (reason, count) in refused {
            writeln!(f, "{:<16}{count:>11} refused: {reason}", "")?;
        }
        if *granted > 0 {
            writeln!(f, "{:<16}{granted:>11} carried out", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Violation;
    use crate::profile::Mix;
    use std::time::Duration;

    fn options() -> Options {
        Options {
            endpoint: "tcp:127.0.0.1:7".parse().unwrap(),
            token: [0; 32],
            mix: Mix::of(Profile::Mixed, 2),
            rate: 100,
            ramp: None,
            depth: 1,
            time: Duration::from_secs(2),
            seed: 3,
            instances: Vec::new(),
            book: 0,
            prefix: "x".into(),
            flow: None,
            attack: None,
            record: None,
        }
    }

    fn outcome(latency_ns: u64, violation: Option<(usize, Violation)>) -> Outcome {
        let mut outcome = Outcome {
            counts: Counts { orders: 3, cancels: 2, ..Counts::default() },
            tally: Tally::new(None, false),
            timed_ns: 2_000_000_000,
            unsent: 1,
            flow: crate::meflow::Totals::default(),
            violation,
        };
        outcome.counts.rejected.insert(30, 4);
        outcome.counts.refused.insert(250, 1);
        outcome.tally.answered(Profile::Mixed, true, 5, 5 + latency_ns);
        (0..5).for_each(|late_ns| outcome.tally.sent(late_ns));
        outcome
    }

    fn report(outcomes: &[Outcome]) -> Report {
        let mut tally = outcomes[0].tally.clone();
        outcomes[1..].iter().for_each(|outcome| tally.add(&outcome.tally));
        Report::of(&options(), outcomes, &tally)
    }

    #[test]
    fn threads_are_summed_and_codes_named() {
        let report = report(&[outcome(1_000, None), outcome(9_000, None)]);
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
        let report = report(&[outcome(1, None), failed]);
        let text = "session 7: request 5 was answered twice";
        assert_eq!(report.violation.as_deref(), Some(text));
        assert!(report.to_string().contains("CHECK FAILED: session 7"), "{report}");
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["violation"], text);
        assert_eq!(json["order_ack_ns"]["count"], 2);
    }

    /// A daemon that answers 250 a second and no more, on a ramp that goes beyond.
    #[test]
    fn the_knee_is_the_highest_rate_that_is_kept_up_with() {
        const SECOND_NS: u64 = 1_000_000_000;
        let knee = |service_ns: u64| {
            let schedule = Schedule::ramp(100, 500, 5, 5 * SECOND_NS);
            let mut tally = Tally::new(Some(&schedule), false);
            let mut free_at = 0;
            for due_ns in (0..schedule.turns()).filter_map(|turn| schedule.due_ns(turn)) {
                free_at = due_ns.max(free_at) + service_ns;
                tally.answered(Profile::Mixed, true, due_ns, free_at);
            }
            RampReport::of(&tally.steps)
        };
        let found = knee(SECOND_NS / 250);
        assert_eq!(found.knee_rate, Some(200));
        let holds: Vec<bool> = found.steps.iter().map(|step| step.holds).collect();
        assert_eq!(holds, [true, true, false, false, false]);
        assert_eq!(found.steps[4].answered_rate, 250);
        assert_eq!(knee(SECOND_NS / 10_000).knee_rate, None, "all hold");
        assert_eq!(knee(SECOND_NS / 50).knee_rate, None, "none holds");
    }

    #[test]
    fn latencies_under_attack_are_told_from_the_calm_ones() {
        let mut tally = Tally::new(None, true);
        for (due_ms, latency_ns) in [(500, 10), (1_050, 500), (1_500, 90), (2_500, 10)] {
            let due_ns = due_ms * 1_000_000;
            tally.answered(Profile::Mixed, true, due_ns, due_ns + latency_ns);
        }
        let outcome = outcome(1, None);
        let mut report = Report::of(&options(), &[outcome], &tally);
        report.attacked(&tally, BTreeMap::new());
        let attack = report.attack.unwrap();
        assert_eq!((attack.calm_ack_ns.count, attack.attacked_ack_ns.count), (2, 1));
        assert!((attack.p99_ratio - 9.0).abs() < 1e-9);
        assert_eq!(attack.p50_ratio, attack.p99_ratio, "of one request each");
    }
}
