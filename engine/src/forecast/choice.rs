//! Which model serves a series, by rolling backtest, and how wide its intervals must be.
//!
//! Models that say one number are given the quantiles of what they missed by in the backtest. Whatever
//! serves, its intervals are stretched until they hold what they say they do, a little with every
//! outcome (Gibbs and Candes, Adaptive Conformal Inference Under Distribution Shift, 2021).

use super::features::{Grid, Moment};
use super::forest::{Forest, quantiles};
use super::models::{Fitted, Model};
use super::past::Past;
use super::{LEVELS, MEDIAN, Quantiles};

/// Forecasts of a backtest at most.
const LOOKS_MAX: usize = 56;
/// Days that a backtest goes back at most.
const DAYS: usize = 7;
/// With fewer the forest is trusted, which saw other series too.
const LOOKS_MIN: usize = 8;
/// How fast intervals follow what they missed.
const RATE: f32 = 0.2;
/// They are stretched between these.
const STRETCH: [f32; 2] = [0.2, 5.0];
/// Another model must be better by this part: a close call is chance.
const BETTER: f32 = 0.97;

/// Of each interval, the widest first, how far it is stretched.
pub type Stretches = [f32; MEDIAN];

/// What says what comes next.
#[derive(Clone, Debug)]
enum Way {
    /// The forest.
    Learnt,
    /// A model, and by step what it misses by.
    Alone { model: Model, fitted: Fitted, misses: Vec<Quantiles> },
}

/// What serves a series.
#[derive(Clone, Debug)]
pub struct Server {
    way: Way,
    grid: Grid,
    stretches: Stretches,
}

impl Server {
    /// Chooses by what the first `known` values of `past` tell. Where they are few it is the forest,
    /// which may have grown on none of the last [`backtest`] values, or without one the last value.
    pub fn choose(past: &Past, known: usize, grid: Grid, forest: Option<&Forest>) -> Server {
        let learnt = forest.map(|forest| Server::learnt(past, known, grid, forest));
        let few = learnt.is_some() && looks(known, grid).len() < LOOKS_MIN;
        let others: &[Model] = if few { &[] } else { &Model::ALL };
        let alone = others.iter().filter_map(|model| Server::alone(*model, past, known, grid));
        let mut best: Option<(f32, Server)> = None;
        for (lost, server) in learnt.into_iter().chain(alone) {
            if best.as_ref().is_none_or(|(least, _)| lost < BETTER * least) {
                best = Some((lost, server));
            }
        }
        best.expect("the last value can always be said").1
    }

    /// A model and nothing else, and what its backtest lost; `None` where there are too few values.
    pub fn alone(model: Model, past: &Past, known: usize, grid: Grid) -> Option<(f32, Server)> {
        let looks = looks(known, grid);
        let fitted = model.fit(past, looks.first().copied().unwrap_or(known), grid)?;
        let misses = vec![[0.0; LEVELS.len()]; grid.steps];
        let way = Way::Alone { model, fitted, misses };
        let mut server = Server { way, grid, stretches: [1.0; MEDIAN] };
        // What it misses by is found in the first half, what that is worth in the second.
        let (early, late) = looks.split_at(looks.len() / 2);
        server.measure(past, early);
        let lost = server.follow(past, late, None);
        server.measure(past, &looks);
        Some((lost, server))
    }

    /// The forest and nothing else, and what its backtest lost.
    pub fn learnt(past: &Past, known: usize, grid: Grid, forest: &Forest) -> (f32, Server) {
        let looks = looks(known, grid);
        let mut server = Server { way: Way::Learnt, grid, stretches: forest.stretches() };
        let (early, late) = looks.split_at(looks.len() / 2);
        server.follow(past, early, Some(forest));
        let lost = server.follow(past, late, Some(forest));
        (lost, server)
    }

    /// In a word.
    pub fn text(&self) -> &'static str {
        match &self.way {
            Way::Learnt => "forest",
            Way::Alone { model, .. } => model.text(),
        }
    }

    /// What comes after the first `known` values of `past`, by step.
    ///
    /// # Panics
    /// Without the forest, if it was chosen with one.
    pub fn forecast(&self, past: &Past, known: usize, forest: Option<&Forest>) -> Vec<Quantiles> {
        let mut said = match &self.way {
            Way::Learnt => {
                let forest = forest.expect("the forest that was chosen");
                forest.quantiles(&Moment::at(past, known, self.grid))
            }
            Way::Alone { fitted, misses, .. } => {
                let ahead = fitted.ahead(past, known, self.grid.steps);
                let around = |(said, misses): (&f32, &Quantiles)| misses.map(|miss| said + miss);
                ahead.iter().zip(misses).map(around).collect()
            }
        };
        for quantiles in &mut said {
            let median = quantiles[MEDIAN];
            for (at, stretch) in self.stretches.iter().enumerate() {
                for side in [at, LEVELS.len() - 1 - at] {
                    quantiles[side] = median + (quantiles[side] - median) * stretch;
                }
            }
            // Intervals that are stretched apart must not cross, and use is never negative.
            for at in (0..MEDIAN).rev() {
                quantiles[at] = quantiles[at].min(quantiles[at + 1]);
            }
            for at in MEDIAN + 1..LEVELS.len() {
                quantiles[at] = quantiles[at].max(quantiles[at - 1]);
            }
            *quantiles = quantiles.map(|value| value.max(0.0));
        }
        said
    }

    /// Stretches the intervals of the next forecasts by what came after one.
    pub fn learn(&mut self, said: &[Quantiles], came: &[f32]) {
        let count = said.len().min(came.len());
        if count == 0 {
            return;
        }
        for (at, stretch) in self.stretches.iter_mut().enumerate() {
            let (low, high) = (at, LEVELS.len() - 1 - at);
            let missed = |(said, came): (&Quantiles, &f32)| *came < said[low] || *came > said[high];
            let missed = said.iter().zip(came).filter(|pair| missed(*pair)).count();
            let due = 2.0 * LEVELS[at];
            let more = RATE * (missed as f32 / count as f32 - due);
            *stretch = (*stretch * more.exp()).clamp(STRETCH[0], STRETCH[1]);
        }
    }

    /// Finds by how much a model misses.
    fn measure(&mut self, past: &Past, looks: &[usize]) {
        let Way::Alone { model, fitted, misses } = &mut self.way else { return };
        if looks.is_empty() {
            return;
        }
        let steps = self.grid.steps;
        let mut missed = vec![Vec::with_capacity(looks.len()); steps];
        for &known in looks {
            let said = fitted.ahead(past, known, steps);
            let came = &past.values()[known..known + steps];
            for (missed, (said, came)) in missed.iter_mut().zip(said.iter().zip(came)) {
                missed.push(came - said);
            }
        }
        *misses = missed.iter_mut().map(|missed| quantiles(missed)).collect();
        if *model == Model::Last {
            // The last value is what it says.
            misses.iter_mut().for_each(|misses| misses[MEDIAN] = 0.0);
        }
    }

    /// What forecasts lose against what came, learning from each in turn.
    fn follow(&mut self, past: &Past, looks: &[usize], forest: Option<&Forest>) -> f32 {
        let mut lost = 0.0;
        for &known in looks {
            let came = &past.values()[known..known + self.grid.steps];
            let said = self.forecast(past, known, forest);
            lost += said.iter().zip(came).map(|(said, came)| pinball(said, *came)).sum::<f32>();
            self.learn(&said, came);
        }
        lost
    }
}

/// What a forecast of a step loses against what came, over all [`LEVELS`].
pub fn pinball(said: &Quantiles, came: f32) -> f32 {
    let lost =
        |(said, level): (&f32, f32)| (level * (came - said)).max((level - 1.0) * (came - said));
    said.iter().zip(LEVELS).map(lost).sum()
}

/// Values at the end of `known` that a choice looks at, and that its forest must not have seen.
pub fn backtest(known: usize, grid: Grid) -> usize {
    (DAYS * grid.day).min(known / 2)
}

/// After how many values forecasts are made for a backtest; what came after each is known.
fn looks(known: usize, grid: Grid) -> Vec<usize> {
    let span = backtest(known, grid);
    if span < 2 * grid.steps {
        return Vec::new();
    }
    let stride = (span / LOOKS_MAX).max(grid.steps);
    let looks = (known - span..=known - grid.steps).step_by(stride);
    looks.collect()
}
