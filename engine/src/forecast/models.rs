//! What is known of one series alone: models that say what comes next as one number a step. Each is
//! the textbook's; `engine/tests/forecast` holds them against statsmodels.

use super::features::Grid;
use super::past::Past;
use super::stl::Mstl;

/// Values that the weighted mean is of.
const WEIGHED: usize = 12;
/// Values that parameters are fitted on at most; what is older says little of them.
const FITTED_MAX: usize = 4032;
/// Values that a forecast starts from at most.
const WARM_MAX: usize = 2016;
/// Smoothing parameters that are tried.
const ALPHAS: [f64; 7] = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9];
const BETAS: [f64; 3] = [0.0, 0.01, 0.1];
const GAMMAS: [f64; 3] = [0.02, 0.1, 0.3];
/// Part of a trend that is left with each step.
const DAMPED: f64 = 0.9;
/// Values that an ARIMA of `LAGS` and `SHOCKS` needs at least.
const ARIMA_MIN: usize = 64;
const LAGS: usize = 2;
const SHOCKS: usize = 1;
/// Lags of the long autoregression that a moving average's shocks are first guessed by (Hannan and
/// Rissanen, 1982).
const LONG_LAGS: usize = 12;

/// Models of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// As it is now.
    Last,
    /// Mean of the last values, the newest weighed most.
    WeightedMean,
    /// Exponentially weighted mean: ETS(A,N,N).
    Ewma,
    /// As it was at this time a day ago.
    Seasonal,
    /// Level and damped trend: ETS(A,Ad,N).
    Trend,
    /// Holt and Winters' level, damped trend and a day's season: ETS(A,Ad,A).
    HoltWinters,
    /// Seasons of a day and a week taken off by loess, the rest an exponentially weighted mean.
    Mstl,
    /// ARIMA(2,d,1), d by fit.
    Arima,
}

impl Model {
    /// All of them.
    pub const ALL: [Model; 8] = [
        Model::Last,
        Model::WeightedMean,
        Model::Ewma,
        Model::Seasonal,
        Model::Trend,
        Model::HoltWinters,
        Model::Mstl,
        Model::Arima,
    ];

    /// In a word.
    pub fn text(self) -> &'static str {
        match self {
            Model::Last => "naive",
            Model::WeightedMean => "weighted-mean",
            Model::Ewma => "ewma",
            Model::Seasonal => "seasonal-naive",
            Model::Trend => "ets-trend",
            Model::HoltWinters => "holt-winters",
            Model::Mstl => "mstl",
            Model::Arima => "arima",
        }
    }

    /// Fits it to the first `known` values of a series; `None` where they are too few for it.
    pub fn fit(self, past: &Past, known: usize, grid: Grid) -> Option<Fitted> {
        let from = known.saturating_sub(FITTED_MAX);
        let values: Vec<f64> = past.values()[from..known].iter().copied().map(f64::from).collect();
        let enough = match self {
            Model::Last | Model::WeightedMean | Model::Ewma | Model::Trend => 2,
            Model::Seasonal | Model::HoltWinters | Model::Mstl => 2 * grid.day,
            Model::Arima => ARIMA_MIN,
        };
        if values.len() < enough {
            return None;
        }
        Some(match self {
            Model::Last => Fitted::Last,
            Model::WeightedMean => Fitted::WeightedMean,
            Model::Seasonal => Fitted::Seasonal { day: grid.day },
            Model::Ewma => Fitted::Smoothing(Smoothing::fit(&values, 0, false)),
            Model::Trend => Fitted::Smoothing(Smoothing::fit(&values, 0, true)),
            Model::HoltWinters => Fitted::Smoothing(Smoothing::fit(&values, grid.day, true)),
            Model::Mstl => {
                let mut mstl = Mstl::of(&values, &[grid.day, 7 * grid.day]);
                let rest = mstl.deseasonalised(&values);
                mstl.forget_all_but_last();
                // What its seasons are the seasons of: so many values from the series' start.
                Fitted::Mstl { mstl, fitted: known, rest: Smoothing::fit(&rest, 0, false) }
            }
            Model::Arima => Fitted::Arima(Arima::fit(&values)?),
        })
    }
}

/// A model with its parameters.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each variant is the model of the same name")]
pub enum Fitted {
    Last,
    WeightedMean,
    Seasonal { day: usize },
    Smoothing(Smoothing),
    Mstl { mstl: Mstl, fitted: usize, rest: Smoothing },
    Arima(Arima),
}

impl Fitted {
    /// What comes after the first `known` values of a series, by step; not less than nothing.
    pub fn ahead(&self, past: &Past, known: usize, steps: usize) -> Vec<f32> {
        assert!(0 < known && known <= past.len(), "something is known");
        let warm = &past.values()[known.saturating_sub(WARM_MAX)..known];
        let warm: Vec<f64> = warm.iter().copied().map(f64::from).collect();
        let last = warm[warm.len() - 1];
        let said: Vec<f64> = match self {
            Fitted::Last => vec![last; steps],
            Fitted::WeightedMean => {
                let newest = warm.iter().rev().take(WEIGHED).zip((1..=WEIGHED).rev());
                let (sum, weights) = newest.fold((0.0, 0.0), |(sum, weights), (value, weight)| {
                    (sum + value * weight as f64, weights + weight as f64)
                });
                vec![sum / weights; steps]
            }
            Fitted::Seasonal { day } => (0..steps)
                .map(|step| warm.len().checked_sub(day - step % day).map_or(last, |at| warm[at]))
                .collect(),
            Fitted::Smoothing(smoothing) => smoothing.ahead(&warm, steps),
            Fitted::Mstl { mstl, fitted, rest } => {
                let first = known - warm.len();
                let season = |at: usize| mstl.season(at as isize - *fitted as isize);
                let plain = |(at, value): (usize, &f64)| value - season(first + at);
                let plain: Vec<f64> = warm.iter().enumerate().map(plain).collect();
                let ahead = rest.ahead(&plain, steps);
                ahead.iter().enumerate().map(|(step, value)| value + season(known + step)).collect()
            }
            Fitted::Arima(arima) => arima.ahead(&warm, steps),
        };
        said.into_iter().map(|value| value.max(0.0) as f32).collect()
    }
}

/// Exponential smoothing, additive (Hyndman and Athanasopoulos, Forecasting: Principles and Practice,
/// chapter 8): a level, perhaps a damped trend, perhaps a season.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Smoothing {
    /// Of the level.
    pub alpha: f64,
    /// Of the trend; there is none where `damped` is 0.
    pub beta: f64,
    /// Of the season.
    pub gamma: f64,
    /// Part of the trend that is left with each step.
    pub damped: f64,
    /// Steps of a season; 0: there is none.
    pub season: usize,
}

/// Where smoothing has come to.
struct State {
    level: f64,
    trend: f64,
    /// By step of the season.
    seasons: Vec<f64>,
    squares: f64,
}

impl Smoothing {
    /// The parameters, of those tried, that miss the next value least.
    fn fit(values: &[f64], season: usize, trend: bool) -> Smoothing {
        let (betas, damped) = if trend { (&BETAS[..], DAMPED) } else { (&BETAS[..1], 0.0) };
        let gammas = if season > 0 { &GAMMAS[..] } else { &GAMMAS[..1] };
        let mut best = (f64::INFINITY, None);
        for alpha in ALPHAS {
            for &beta in betas {
                for &gamma in gammas {
                    let tried = Smoothing { alpha, beta, gamma, damped, season };
                    let squares = tried.run(values).squares;
                    if squares < best.0 || best.1.is_none() {
                        best = (squares, Some(tried));
                    }
                }
            }
        }
        best.1.expect("some were tried")
    }

    /// What comes after `values`, by step.
    pub fn ahead(&self, values: &[f64], steps: usize) -> Vec<f64> {
        let State { level, trend, seasons, .. } = self.run(values);
        let (mut said, mut left, mut trends) = (Vec::with_capacity(steps), 1.0, 0.0);
        for step in 0..steps {
            left *= self.damped;
            trends += left * trend;
            let season = if seasons.is_empty() {
                0.0
            } else {
                seasons[(values.len() + step) % seasons.len()]
            };
            said.push(level + trends + season);
        }
        said
    }

    /// Starts with the first season's mean and its differences to that, or the first value.
    fn run(&self, values: &[f64]) -> State {
        // Without a whole season there is none yet.
        let seasonal = self.season > 0 && values.len() >= self.season;
        let first = &values[..if seasonal { self.season } else { 1 }];
        let level = first.iter().sum::<f64>() / first.len() as f64;
        let seasons =
            if seasonal { first.iter().map(|value| value - level).collect() } else { Vec::new() };
        let mut state = State { level, trend: 0.0, seasons, squares: 0.0 };
        for (at, value) in values.iter().enumerate() {
            let State { level, trend, seasons, squares } = &mut state;
            let slot = if seasons.is_empty() { 0 } else { at % seasons.len() };
            let season = seasons.get(slot).copied().unwrap_or(0.0);
            let before = *level + self.damped * *trend;
            let error = value - before - season;
            *squares += error * error;
            let now = self.alpha * (value - season) + (1.0 - self.alpha) * before;
            *trend = self.beta * (now - *level) + (1.0 - self.beta) * self.damped * *trend;
            *level = now;
            if let Some(season) = seasons.get_mut(slot) {
                *season = self.gamma * (value - before) + (1.0 - self.gamma) * *season;
            }
        }
        state
    }
}

/// ARIMA(2,d,1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arima {
    /// Differences are modelled, not values.
    pub differenced: bool,
    /// Taken off first.
    pub mean: f64,
    /// Of the values before, the newest first.
    pub lags: [f64; LAGS],
    /// Of the shocks before.
    pub shocks: [f64; SHOCKS],
}

impl Arima {
    /// By Hannan and Rissanen, once for values and once for differences; the one that misses less.
    fn fit(values: &[f64]) -> Option<Arima> {
        let fits = [false, true].map(|differenced| Arima::estimate(values, differenced));
        let squares = |arima: &Arima| {
            let (series, shocks) = arima.run(values);
            shocks.iter().map(|shock| shock * shock).sum::<f64>() / series.len() as f64
        };
        let fits = fits.into_iter().flatten().map(|arima| (squares(&arima), arima));
        fits.min_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, arima)| arima)
    }

    /// Shocks are guessed by a long autoregression, then regressed on along with the values.
    pub fn estimate(values: &[f64], differenced: bool) -> Option<Arima> {
        let series = differences(values, differenced);
        let mean = if differenced { 0.0 } else { series.iter().sum::<f64>() / series.len() as f64 };
        let series: Vec<f64> = series.iter().map(|value| value - mean).collect();
        let rows = (LONG_LAGS..series.len()).map(|at| (at, series[at]));
        let lagged = |at: usize| (1..=LONG_LAGS).map(move |lag| at - lag);
        let long =
            regress(LONG_LAGS, rows.clone(), |at| lagged(at).map(|at| series[at]).collect())?;
        let mut shocks = vec![0.0; series.len()];
        for (at, value) in rows {
            let said: f64 = lagged(at).zip(&long).map(|(at, weight)| series[at] * weight).sum();
            shocks[at] = value - said;
        }
        let rows = (LONG_LAGS + LAGS.max(SHOCKS)..series.len()).map(|at| (at, series[at]));
        let weights = regress(LAGS + SHOCKS, rows, |at| {
            let values = (1..=LAGS).map(|lag| series[at - lag]);
            values.chain((1..=SHOCKS).map(|lag| shocks[at - lag])).collect()
        })?;
        let (lags, shocks) = weights.split_at(LAGS);
        let (lags, mut shocks): ([f64; LAGS], [f64; SHOCKS]) =
            (lags.try_into().ok()?, shocks.try_into().ok()?);
        if shocks[0].abs() > 1.0 {
            // It has the same autocovariances the other way round, where shocks die out.
            shocks[0] = shocks[0].recip();
        }
        let arima = Arima { differenced, mean, lags, shocks };
        arima.is_steady().then_some(arima)
    }

    /// Neither what it was nor its shocks grow by themselves.
    fn is_steady(&self) -> bool {
        let [one, two] = self.lags;
        two.abs() < 1.0 && one + two < 1.0 && two - one < 1.0 && self.shocks[0].abs() < 0.99
    }

    /// The series that is modelled, and by how much each value of it was missed.
    fn run(&self, values: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let series = differences(values, self.differenced);
        let series: Vec<f64> = series.iter().map(|value| value - self.mean).collect();
        let mut shocks = Vec::with_capacity(series.len());
        for at in 0..series.len() {
            shocks.push(series[at] - self.next(&series[..at], &shocks));
        }
        (series, shocks)
    }

    fn next(&self, series: &[f64], shocks: &[f64]) -> f64 {
        let of = |weights: &[f64], values: &[f64]| -> f64 {
            weights.iter().zip(values.iter().rev()).map(|(weight, value)| weight * value).sum()
        };
        of(&self.lags, series) + of(&self.shocks, shocks)
    }

    /// What comes after `values`, by step.
    pub fn ahead(&self, values: &[f64], steps: usize) -> Vec<f64> {
        let (mut series, mut shocks) = self.run(values);
        let mut level = values[values.len() - 1];
        let step = |_| {
            let next = self.next(&series, &shocks);
            series.push(next);
            shocks.push(0.0);
            level = if self.differenced { level + next } else { next + self.mean };
            level
        };
        (0..steps).map(step).collect()
    }
}

fn differences(values: &[f64], differenced: bool) -> Vec<f64> {
    if differenced {
        values.windows(2).map(|pair| pair[1] - pair[0]).collect()
    } else {
        values.to_vec()
    }
}

/// Least squares: the weights of what `known` says of each row that come nearest to its value. `None`
/// where the rows do not tell.
fn regress(
    width: usize,
    rows: impl Iterator<Item = (usize, f64)>,
    known: impl Fn(usize) -> Vec<f64>,
) -> Option<Vec<f64>> {
    let mut normal = vec![vec![0.0; width + 1]; width];
    for (at, value) in rows {
        let known = known(at);
        for (line, one) in normal.iter_mut().zip(&known) {
            for (cell, other) in line.iter_mut().zip(known.iter().chain([&value])) {
                *cell += one * other;
            }
        }
    }
    for at in 0..width {
        let pivot = (at..width)
            .max_by(|one, other| normal[*one][at].abs().total_cmp(&normal[*other][at].abs()))?;
        normal.swap(at, pivot);
        if normal[at][at].abs() < 1e-9 {
            return None;
        }
        let line = normal[at].clone();
        for other in (0..width).filter(|other| *other != at) {
            let factor = normal[other][at] / line[at];
            normal[other].iter_mut().zip(&line).for_each(|(cell, from)| *cell -= factor * from);
        }
    }
    Some((0..width).map(|at| normal[at][width] / normal[at][at]).collect())
}
