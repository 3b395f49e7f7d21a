//! Forecasts of a trace, beside the last value with the quantiles of what it missed by before.
//!
//! Of [`VMS`] VMs the last [`DAYS`] days are forecast, an hour ahead in steps of five minutes, every hour.
//! A forecast sees what came before it and no more; the forest and the choice of models see nothing
//! of those days at all. Where each row of a trace is a day of a VM, the last [`DAYS_LAST`] of its days
//! are forecast and the forest grows on the others. Where a trace is long enough the same follows a day
//! ahead in steps of two hours, every day, and a week ahead in steps of twelve, every week; where it is not,
//! a row says what is missing.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use vendue_engine::forecast::choice::{Server, backtest, pinball};
use vendue_engine::forecast::features::Grid;
use vendue_engine::forecast::forest::{Forest, GROWTH, Rows, quantiles};
use vendue_engine::forecast::models::Model;
use vendue_engine::forecast::past::Past;
use vendue_engine::forecast::{LEVELS, MEDIAN, Quantiles};

use crate::quality::setup;
use crate::quality::trace::{self, Window};

/// VMs that are forecast.
const VMS: usize = 100;
/// Days at the end that are forecast.
const DAYS: usize = 7;
/// The same where days stand alone.
const DAYS_LAST: usize = 2;
/// How far is looked ahead, in steps that are means of so many values, as the daemon does.
const SCOPES: [Scope; 3] = [
    Scope { name: "", grid: Grid { steps: 12, day: 288 }, each: 1 },
    Scope { name: "day.", grid: Grid { steps: 12, day: 12 }, each: 24 },
    Scope { name: "week.", grid: Grid { steps: 14, day: 2 }, each: 144 },
];
/// The daemon forecasts what it knows so many horizons of.
const KNOWN_HORIZONS: usize = 4;
/// Values of a day.
const DAY: usize = 288;
/// Values known before the first forecast of a day that stands alone.
const KNOWN_MIN: usize = 72;
/// Every so many values of a series is a row that the forest grows on, at least...
const STRIDE_MIN: usize = 7;
/// ...and about so many rows in all.
const ROWS: usize = 60_000;
/// Draws VMs and grows the forest.
const SEED: u64 = 1;

/// How far is looked ahead.
#[derive(Clone, Copy)]
struct Scope {
    name: &'static str,
    grid: Grid,
    /// Values that a step is the mean of.
    each: usize,
}

/// Series, and where the forecasts of each begin.
struct Task {
    scope: Scope,
    grown_on: Vec<(Past, usize)>,
    forecast: Vec<(Past, usize)>,
}

/// How well something forecast.
#[derive(Clone, Debug, Default)]
pub struct Row {
    name: String,
    /// Series of which it was the choice.
    series: usize,
    steps: f64,
    /// Those of series that have a scale, and the errors in it.
    scaled: f64,
    lost: f64,
    mase: f64,
    smape: f64,
    within: [f64; 2],
    forecasts: u32,
    time: Duration,
    /// Pinball loss beside naive; time beside naive.
    beside: [f64; 2],
    /// What the product must reach, and whether it did.
    goals: Vec<(&'static str, bool)>,
    /// Why there is nothing.
    missing: Option<String>,
}

/// Forecasts the trace at `path` and shows a row a model, the forest and the choice, and the goals.
///
/// # Errors
/// The trace cannot be read, or has too few VMs or days.
pub fn measure(path: &Path, show: &mut dyn FnMut(&Row)) -> Result<(), crate::daemon::AnyError> {
    let windows = trace::read(path, None)?;
    for scope in SCOPES {
        match Task::of(&windows, scope) {
            Ok(task) => run(&task, show)?,
            // A day and a week ahead are beyond what some traces hold.
            Err(missing) if scope.each > 1 => {
                let name = scope.name.trim_end_matches('.').to_owned();
                show(&Row { name, missing: Some(missing), ..Row::default() });
            }
            Err(missing) => return Err(missing.into()),
        }
    }
    Ok(())
}

fn run(task: &Task, show: &mut dyn FnMut(&Row)) -> Result<(), crate::daemon::AnyError> {
    let (forest, grid) = (&task.grow()?, task.scope.grid);
    let mut naive = task.run("naive", &mut |past, first| Some(Naive::of(past, first, grid)));
    naive.beside(&naive.clone());
    show(&naive);
    for model in Model::ALL.into_iter().filter(|model| *model != Model::Last) {
        let mut row = task.run(model.text(), &mut |past, first| {
            Some(Served { server: Server::alone(model, past, first, grid)?.1, forest: None })
        });
        if row.series > 0 {
            row.beside(&naive);
            show(&row);
        }
    }
    let mut learnt = task.run("forest", &mut |past, first| {
        let server = Server::learnt(past, first, grid, forest).1;
        Some(Served { server, forest: Some(forest) })
    });
    learnt.beside(&naive);
    show(&learnt);
    let mut chosen = task.run("chosen", &mut |past, first| {
        let server = Server::choose(past, first, grid, Some(forest));
        Some(Served { server, forest: Some(forest) })
    });
    chosen.beside(&naive);
    // The goals are for the hour.
    if task.scope.each == 1 {
        chosen.goals = chosen.reached(&naive);
    }
    show(&chosen);
    Ok(())
}

impl Scope {
    /// The steps of a series of values.
    fn means(&self, past: &Past) -> Past {
        let values = past.values().chunks_exact(self.each);
        Past::new(values.map(|part| part.iter().sum::<f32>() / self.each as f32).collect())
    }
}

impl Task {
    fn of(windows: &[Window], scope: Scope) -> Result<Task, String> {
        let past = |vm: &&[f64]| Past::new(vm.iter().map(|value| *value as f32).collect());
        let draw = |window: &Window| {
            let drawn = setup::tenants(window, VMS, SEED).into_iter().next();
            drawn.map(|vms| vms.iter().map(past).collect::<Vec<Past>>())
        };
        let few = || format!("there are no {VMS} active VMs");
        let day_by_day = windows.iter().all(|window| window.percent[0].len() == DAY);
        if day_by_day && windows.len() > DAYS_LAST {
            if scope.each > 1 {
                return Err("each row of the trace is a day of its own".to_owned());
            }
            let days: Vec<Vec<Past>> = windows.iter().filter_map(draw).collect();
            let (grown_on, last) = days.split_at(days.len().saturating_sub(DAYS_LAST));
            let whole = |day: &Vec<Past>| {
                day.iter().map(|past| (past.clone(), past.len())).collect::<Vec<_>>()
            };
            let from = |day: &Vec<Past>| {
                day.iter().map(|past| (past.clone(), KNOWN_MIN)).collect::<Vec<_>>()
            };
            let grown_on = grown_on.iter().flat_map(whole).collect();
            let forecast = last.iter().flat_map(from).collect();
            return Ok(Task { scope, grown_on, forecast });
        }
        let mut whole = windows.first().ok_or_else(few)?.clone();
        for window in &windows[1..] {
            let vms = whole.percent.iter_mut().zip(&window.percent);
            vms.for_each(|(vm, more)| vm.extend(more));
        }
        let pasts = draw(&whole).ok_or_else(few)?;
        let pasts: Vec<Past> = pasts.iter().map(|past| scope.means(past)).collect();
        let Scope { grid, .. } = scope;
        let first = pasts[0].len().saturating_sub(DAYS * grid.day);
        let known = (KNOWN_HORIZONS * grid.steps).max(2 * grid.day);
        if first < known {
            let (has, needs) = (pasts[0].len() / grid.day, DAYS + known.div_ceil(grid.day));
            return Err(format!("the trace has {has} days, {needs} are needed"));
        }
        // The choice looks at days that the forest must not have seen.
        let grown = |past: &Past| (past.clone(), first - backtest(first, grid));
        let grown_on = pasts.iter().map(grown).collect();
        let forecast = pasts.into_iter().map(|past| (past, first)).collect();
        Ok(Task { scope, grown_on, forecast })
    }

    fn grow(&self) -> Result<Forest, String> {
        let grid = self.scope.grid;
        let mut rows = Rows::new(grid);
        let values: usize = self.grown_on.iter().map(|(_, known)| known).sum();
        let stride = (values / ROWS).max(STRIDE_MIN);
        for (number, (past, known)) in self.grown_on.iter().enumerate() {
            let first = (KNOWN_MIN / self.scope.each).max(grid.steps) + number % stride;
            for known in (first..(known + 1).saturating_sub(grid.steps)).step_by(stride) {
                rows.add(past, known);
            }
        }
        Forest::grow(rows, GROWTH, SEED).ok_or_else(|| "too little is known".to_owned())
    }

    /// Has everything forecast by what `make` makes of a series and where its forecasts begin.
    fn run<S: Forecasts>(
        &self,
        name: &str,
        make: &mut dyn FnMut(&Past, usize) -> Option<S>,
    ) -> Row {
        let (grid, name) = (self.scope.grid, format!("{}{name}", self.scope.name));
        let mut row = Row { name, ..Row::default() };
        for (past, first) in &self.forecast {
            let Some(mut server) = make(past, *first) else { continue };
            let scale = f64::from(past.unrest(1, *first));
            row.series += 1;
            for known in (*first..=past.len() - grid.steps).step_by(grid.steps) {
                let begun = Instant::now();
                let said = server.forecast(past, known);
                row.time += begun.elapsed();
                row.forecasts += 1;
                let came = &past.values()[known..known + grid.steps];
                said.iter().zip(came).for_each(|(said, came)| row.add(said, *came, scale));
                server.learn(&said, came);
            }
        }
        row
    }
}

/// What forecasts a series, and is told what came.
trait Forecasts {
    fn forecast(&self, past: &Past, known: usize) -> Vec<Quantiles>;
    fn learn(&mut self, said: &[Quantiles], came: &[f32]);
}

struct Served<'a> {
    server: Server,
    forest: Option<&'a Forest>,
}

impl Forecasts for Served<'_> {
    fn forecast(&self, past: &Past, known: usize) -> Vec<Quantiles> {
        self.server.forecast(past, known, self.forest)
    }

    fn learn(&mut self, said: &[Quantiles], came: &[f32]) {
        self.server.learn(said, came);
    }
}

/// The last value, and by step the quantiles of what it missed by before the first forecast.
struct Naive {
    misses: Vec<Quantiles>,
}

impl Naive {
    fn of(past: &Past, first: usize, grid: Grid) -> Naive {
        let values = &past.values()[..first];
        let of = |step: usize| {
            let mut missed: Vec<f32> =
                values[step..].iter().zip(values).map(|(now, then)| now - then).collect();
            let mut missed = quantiles(&mut missed);
            missed[MEDIAN] = 0.0;
            missed
        };
        Naive { misses: (1..=grid.steps).map(of).collect() }
    }
}

impl Forecasts for Naive {
    fn forecast(&self, past: &Past, known: usize) -> Vec<Quantiles> {
        let last = past.values()[known - 1];
        self.misses.iter().map(|misses| misses.map(|miss| (last + miss).max(0.0))).collect()
    }

    fn learn(&mut self, _said: &[Quantiles], _came: &[f32]) {}
}

impl Row {
    fn add(&mut self, said: &Quantiles, came: f32, scale: f64) {
        self.steps += 1.0;
        self.lost += f64::from(pinball(said, came));
        let missed = f64::from((came - said[MEDIAN]).abs());
        // What never moved before has no scale.
        if scale > 0.0 {
            self.scaled += 1.0;
            self.mase += missed / scale;
        }
        let both = f64::from(came + said[MEDIAN]);
        self.smape += if both > 0.0 { 200.0 * missed / both } else { 0.0 };
        for (within, low) in self.within.iter_mut().zip([1, 0]) {
            let (low, high) = (said[low], said[LEVELS.len() - 1 - low]);
            *within += f64::from(u8::from((low..=high).contains(&came)));
        }
    }

    fn beside(&mut self, naive: &Row) {
        let lost = |row: &Row| row.lost / row.steps;
        self.beside = [lost(self) / lost(naive), self.micros() / naive.micros()];
    }

    /// Mean error in units of what a series moved by from value to value before.
    fn mase(&self) -> f64 {
        self.mase / self.scaled
    }

    /// Microseconds a forecast.
    fn micros(&self) -> f64 {
        self.time.as_secs_f64() * 1e6 / f64::from(self.forecasts)
    }

    /// The goals, and whether each is met.
    fn reached(&self, naive: &Row) -> Vec<(&'static str, bool)> {
        let within = |at: usize| self.within[at] / self.steps;
        vec![
            ("relative pinball at most 0.87", self.beside[0] <= 0.87),
            ("MASE at most naive", self.mase() <= naive.mase()),
            ("80% intervals hold 77% to 83%", (0.77..=0.83).contains(&within(0))),
            ("95% intervals hold 93% to 97%", (0.93..=0.97).contains(&within(1))),
            ("at most 1 ms a forecast", self.micros() <= 1000.0),
        ]
    }

    /// As one JSON object.
    pub fn to_json(&self) -> String {
        if let Some(missing) = &self.missing {
            let name = format!("forecast.{}", self.name);
            return json!({ "name": name, "missing": missing }).to_string();
        }
        let of = |sum: f64| ((sum / self.steps) * 1e4).round() / 1e4;
        json!({
            "name": format!("forecast.{}", self.name), "series": self.series,
            "mase": self.mase(), "smape": of(self.smape), "relative_pinball": self.beside[0],
            "within_80": of(self.within[0]), "within_95": of(self.within[1]),
            "us": self.micros(), "time_beside_naive": self.beside[1],
            "goals": self.goals.iter().map(|(goal, met)| json!({"goal": goal, "met": met}))
                .collect::<Vec<_>>(),
        })
        .to_string()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(missing) = &self.missing {
            return write!(out, "{:22} a {0} ahead: {missing}", self.name);
        }
        let of = |sum: f64| sum / self.steps;
        let Row { name, series, beside: [pinball, time], within, .. } = self;
        write!(
            out,
            "{name:22} {series:4} series  MASE {:.3}  sMAPE {:5.1}%",
            self.mase(),
            of(self.smape)
        )?;
        write!(out, "  relative pinball {pinball:.3}  within 80%: {:.3}", of(within[0]))?;
        write!(out, "  95%: {:.3}  {:.2} us, {time:.1} x naive", of(within[1]), self.micros())?;
        for (goal, met) in &self.goals {
            write!(out, "\n  goal: {goal}: {}", if *met { "met" } else { "MISSED" })?;
        }
        Ok(())
    }
}
