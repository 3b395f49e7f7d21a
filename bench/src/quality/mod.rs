//! How well capacity is allocated: traces of real demand replayed through allocators.
//!
//! In reading order: [`trace`] (real demand), [`setup`] (what is asked for), [`market`] (the product's
//! own machine), [`allocators`] (beside whom), [`metrics`] (what the answer is worth),
//! [`strategy`] (who lies). Every allocator gets the same windows, so
//! differences are taken window by window, and stand with their 95% confidence intervals.
//!
//! S1: [`setup::TENANTS`] tenants whose demand averages their fair share. S2: hosts of
//! [`setup::HOST_TENANTS`] tenants with their own means, 0.9 loaded. V2: S1, and 15% of the quanta
//! are urgent, worth ten times the others. `critical`: the same, but the same 15% of the tenants always
//! are. `pressed`: these demand half as much again as their fair share on average, on a budget like
//! everyone's. Lies and cornering ([`strategy`]) are tried on V2.

pub mod allocators;
pub mod market;
pub mod metrics;
pub mod setup;
pub mod strategy;
pub mod trace;

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use allocators::{ALLOCATORS, Allocator, by_value, karma, max_min, priority};
pub use market::Outcome;
use metrics::{Interval, Metrics};
use setup::{Case, HOST_TENANTS, TENANTS};
use strategy::Play;
use trace::Window;

/// Slices granted: of each tenant, in each quantum.
pub type Grants = Vec<Vec<f64>>;

/// A set-up's name, the cases it makes of a window, and who is asked.
type Setup<'a> = (&'static str, fn(&Window) -> Vec<Case>, &'a [Allocator]);

/// Draws tenants and urgent times.
const SEED: u64 = 1;

/// Something found out.
#[derive(Clone, Debug)]
pub enum Finding {
    /// What an allocator did in a set-up.
    Row(Row),
    /// What came of a strategy in a market.
    Play(Play),
    /// Whether the product reached a goal.
    Goal(Goal),
}

/// Replays the trace at `path` and shows a row for each set-up and allocator, and the goals.
///
/// # Errors
/// The trace cannot be read, or no window of it has enough tenants.
pub fn measure(
    path: &Path,
    capacities: Option<&Path>,
    show: &mut dyn FnMut(Finding),
) -> Result<(), crate::daemon::AnyError> {
    let windows = trace::read(path, capacities)?;
    let ours: [Allocator; 2] =
        [("vendue", market::by_weight), ("vendue-defaults", market::by_default)];
    let plain: Vec<Allocator> = ALLOCATORS.into_iter().chain(ours).collect();
    let rented: [Allocator; 2] = [("vendue-leases", leases), ("vendue-entitled", entitled)];
    let valued: [Allocator; 4] =
        [("max-min", max_min), ("karma", karma), ("by-value", by_value), ("bound", priority)];
    let valued: Vec<Allocator> = valued.into_iter().chain(ours).chain(rented).collect();
    let ours: Vec<Allocator> = ours.into_iter().chain(rented).collect();
    let setups: [Setup<'_>; 5] = [
        ("s1", s1, &plain),
        ("s2", s2, &plain),
        ("v2", v2, &valued),
        ("critical", |window| critical(window, 100), &valued),
        ("pressed", |window| critical(window, 150), &valued),
    ];
    for (setup, cases, allocators) in setups {
        let cases: Vec<Vec<Case>> =
            windows.iter().map(cases).filter(|cases| !cases.is_empty()).collect();
        if cases.is_empty() {
            let why = format!("no window of {} has {TENANTS} active VMs", path.display());
            return Err(why.into());
        }
        let rows = compare(setup, &cases, allocators);
        let goals: Vec<Goal> = ours.iter().flat_map(|(ours, _)| goals(ours, &rows)).collect();
        rows.into_iter().map(Finding::Row).for_each(&mut *show);
        goals.into_iter().map(Finding::Goal).for_each(&mut *show);
    }
    play(&windows, show);
    Ok(())
}

/// Lies and cornering, in every market.
fn play(windows: &[Window], show: &mut dyn FnMut(Finding)) {
    let cases: Vec<Case> = windows.iter().flat_map(v2).collect();
    let markets: [strategy::Market; 4] = [
        ("max-min", |case| Outcome::free(max_min(case))),
        ("karma", |case| Outcome::free(karma(case))),
        ("vendue", |case| Outcome::free(market::by_weight(case))),
        ("vendue-leases", market::by_lease),
    ];
    for market in markets {
        let plays = strategy::plays(market, &cases);
        let goals: Vec<Goal> = play_goals(market.0, &plays);
        plays.into_iter().map(Finding::Play).for_each(&mut *show);
        goals.into_iter().map(Finding::Goal).for_each(&mut *show);
    }
}

fn play_goals(market: &str, plays: &[Play]) -> Vec<Goal> {
    if !market.starts_with("vendue") {
        return Vec::new();
    }
    let worst = |urgency: Option<bool>| {
        let like = plays.iter().filter(|play| play.urgency == urgency);
        let worst = like.map(|play| play.effect).max_by(|a, b| a.mean.total_cmp(&b.mean));
        worst.expect("there are such strategies")
    };
    [
        ("misreport", "gain from misreporting demand <= 1%", Some(false), 0.01),
        ("urgency", "gain from lying about urgency <= 2%", Some(true), 0.02),
        ("cornering", "cornering costs others <= 0.10", None, 0.1),
    ]
    .map(|(name, text, urgency, most)| {
        let effect = worst(urgency);
        let margin = Interval { mean: most - effect.mean, ..effect };
        Goal { name: format!("quality.plays.{market}.{name}"), text, margin }
    })
    .into()
}

fn leases(case: &Case) -> Grants {
    market::by_lease(case).grants
}

fn entitled(case: &Case) -> Grants {
    market::by_entitlement(case).grants
}

fn critical(window: &Window, load_percent: u32) -> Vec<Case> {
    let drawn = setup::tenants(window, TENANTS, SEED);
    drawn.iter().map(|rows| setup::critical(rows, load_percent)).collect()
}

fn s1(window: &Window) -> Vec<Case> {
    setup::tenants(window, TENANTS, SEED).iter().map(|rows| setup::s1(rows)).collect()
}

fn s2(window: &Window) -> Vec<Case> {
    let drawn = setup::tenants(window, TENANTS, SEED);
    drawn.iter().flat_map(|rows| rows.chunks_exact(HOST_TENANTS)).map(setup::s2).collect()
}

fn v2(window: &Window) -> Vec<Case> {
    setup::tenants(window, TENANTS, SEED).iter().map(|rows| setup::v2(rows, SEED)).collect()
}

/// What one allocator did in one set-up.
#[derive(Clone, Debug)]
pub struct Row {
    setup: &'static str,
    allocator: &'static str,
    /// One a window: the mean over its hosts.
    windows: Vec<Metrics>,
    /// Differences to max-min of the same windows.
    fair: Interval,
    p1: Interval,
    /// The part of what max-min leaves of the bound that is reached, V2.
    captured: Option<Interval>,
}

fn compare(setup: &'static str, cases: &[Vec<Case>], allocators: &[Allocator]) -> Vec<Row> {
    let measured = |&(name, allocate): &Allocator| {
        let window = |cases: &Vec<Case>| {
            let hosts: Vec<Metrics> =
                cases.iter().map(|case| Metrics::of(case, &allocate(case))).collect();
            Metrics::mean(&hosts)
        };
        (name, cases.iter().map(window).collect::<Vec<Metrics>>())
    };
    let measured: Vec<(&'static str, Vec<Metrics>)> = allocators.iter().map(measured).collect();
    let of = |name: &str| measured.iter().find(|(of, _)| *of == name).map(|(_, windows)| windows);
    let beside = of("max-min").expect("max-min is always there");
    let row = |(allocator, windows): &(&'static str, Vec<Metrics>)| {
        let paired = |pick: fn(&Metrics) -> f64| {
            let pairs = windows.iter().zip(beside);
            Interval::of(&pairs.map(|(ours, other)| pick(ours) - pick(other)).collect::<Vec<_>>())
        };
        let captured = of("bound").map(|bound| {
            let part = |at: usize| {
                let (from, to) = (beside[at].value, bound[at].value);
                (windows[at].value - from) / (to - from)
            };
            Interval::of(&(0..windows.len()).map(part).collect::<Vec<_>>())
        });
        let (fair, p1) = (paired(|m| m.fair), paired(|m| m.p1));
        Row { setup, allocator, windows: windows.clone(), fair, p1, captured }
    };
    measured.iter().map(row).collect()
}

/// A goal of the product in one set-up.
#[derive(Clone, Debug)]
pub struct Goal {
    name: String,
    text: &'static str,
    /// By how much it is met, window by window; negative where it is missed.
    margin: Interval,
}

/// The goals of `ours` in the set-up of `rows`, each as a difference that should not be negative,
/// of the same windows.
fn goals(ours: &'static str, rows: &[Row]) -> Vec<Goal> {
    let of = |name: &str| rows.iter().find(|row| row.allocator == name);
    let setup = rows[0].setup;
    let Some(own) = of(ours) else { return Vec::new() };
    let beside = |name: &str, margin: fn(&Metrics, &Metrics) -> f64| {
        let other = of(name).unwrap_or(own);
        let pairs = own.windows.iter().zip(&other.windows);
        Interval::of(&pairs.map(|(ours, other)| margin(ours, other)).collect::<Vec<_>>())
    };
    let goal = |metric: &str, text, margin| Goal {
        name: format!("quality.{setup}.{ours}.{metric}"),
        text,
        margin,
    };
    let mut goals =
        vec![goal("util", "util >= opt - 0.005", beside(ours, |m, _| m.util - m.opt + 0.005))];
    goals.extend(match setup {
        "s1" => vec![
            goal("fair", "fair >= 0.95 x karma", beside("karma", |m, k| m.fair - 0.95 * k.fair)),
            goal("p1", "p1 >= 1.2 x karma", beside("karma", |m, k| m.p1 - 1.2 * k.p1)),
            goal(
                "churn",
                "churn <= 1.15 x max-min",
                beside("max-min", |m, other| 1.15 * other.churn - m.churn),
            ),
        ],
        "s2" => vec![goal("fair", "fair >= dio", beside("dio", |m, dio| m.fair - dio.fair))],
        _ => {
            let captured = own.captured.unwrap_or(Interval { mean: 0.0, half: 0.0 });
            let margin = Interval { mean: captured.mean - 0.9, ..captured };
            vec![
                goal("captured", "captured >= 0.90", margin),
                goal("violation", "violation <= 0.005", beside(ours, |m, _| 0.005 - m.violation)),
                goal("late", "violation <= 0.005 at the end", beside(ours, |m, _| 0.005 - m.late)),
                goal(
                    "churn",
                    "churn <= 1.15 x max-min",
                    beside("max-min", |m, other| 1.15 * other.churn - m.churn),
                ),
            ]
        }
    });
    goals
}

impl Finding {
    /// As one JSON object without line breaks.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Finding::Row(row) => row.to_json(),
            Finding::Play(play) => json!({
                "name": format!("quality.plays.{}.{}", play.market, play.strategy),
                "effect": interval(&play.effect),
            })
            .to_string(),
            Finding::Goal(Goal { name, text, margin }) => json!({
                "name": name,
                "goal": text,
                "met": margin.mean >= 0.0,
                "margin": interval(margin),
            })
            .to_string(),
        }
    }
}

/// A line of the table.
impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Row(row) => row.fmt(out),
            Finding::Play(Play { market, strategy, urgency, effect }) => {
                let name = format!("quality.plays.{market}.{strategy}");
                let what = if urgency.is_some() { "gains the liar" } else { "costs the others" };
                let Interval { mean, half } = effect;
                write!(out, "{name:<44} {what} {mean:+.4} +-{half:.4}")
            }
            Finding::Goal(Goal { name, text, margin: Interval { mean, half } }) => {
                let verdict = if *mean >= 0.0 { "met" } else { "MISSED" };
                write!(out, "{name:<32} goal: {text}: {verdict} by {mean:+.4} +-{half:.4}")
            }
        }
    }
}

impl Row {
    /// As one JSON object without line breaks. A confidence interval that one window does not give
    /// is null.
    fn to_json(&self) -> String {
        let mean = Metrics::mean(&self.windows);
        let mut line = json!({
            "name": format!("quality.{}.{}", self.setup, self.allocator),
            "windows": self.windows.len(),
            "util": rounded(mean.util),
            "opt": rounded(mean.opt),
            "fair": rounded(mean.fair),
            "p1": rounded(mean.p1),
            "churn": rounded(mean.churn),
            "fair_over_max_min": interval(&self.fair),
            "p1_over_max_min": interval(&self.p1),
        });
        if let Some(captured) = &self.captured {
            line["value"] = rounded(mean.value);
            line["violation"] = rounded(mean.violation);
            line["violation_late"] = rounded(mean.late);
            line["captured"] = interval(captured);
        }
        line.to_string()
    }
}

fn rounded(value: f64) -> Value {
    json!((value * 10_000.0).round() / 10_000.0)
}

fn interval(interval: &Interval) -> Value {
    json!({ "mean": rounded(interval.mean), "half": rounded(interval.half) })
}

/// A line of the table, under a title for the first allocator.
impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = Metrics::mean(&self.windows);
        let Row { setup, allocator, fair, p1, .. } = self;
        write!(
            out,
            "{:<26} util {:.4} of {:.4}  fair {:.3} ({:+.3} +-{:.3})  p1 {:.3} ({:+.3} +-{:.3})  churn {:.3}",
            format!("quality.{setup}.{allocator}"),
            mean.util,
            mean.opt,
            mean.fair,
            fair.mean,
            fair.half,
            mean.p1,
            p1.mean,
            p1.half,
            mean.churn,
        )?;
        if let Some(captured) = &self.captured {
            let (value, violation) = (mean.value, mean.violation);
            write!(
                out,
                "  value {value:.4} violation {violation:.4} at the end {:.4} captured {:.3} +-{:.3}",
                mean.late, captured.mean, captured.half
            )?;
        }
        Ok(())
    }
}
