//! Seasons and trend of a series by loess (Cleveland et al., STL, Journal of Official Statistics, 1990),
//! for several seasons one after another (Bandara, Hyndman, Bergmeir, MSTL, 2021).

/// Times the seasons are estimated, each without the others.
const ITERATIONS: usize = 2;
/// Times season and trend are estimated of one season, each without the other.
const INNER: usize = 2;
/// Values that the shortest season is smoothed over, and how many more with each further one.
const WINDOW: [usize; 2] = [11, 4];

/// The seasons of a series.
#[derive(Clone, Debug)]
pub struct Mstl {
    /// Of each season, its value at each of the series.
    seasons: Vec<(usize, Vec<f64>)>,
}

impl Mstl {
    /// Takes apart `values`; a season that they do not cover twice is left out.
    pub fn of(values: &[f64], periods: &[usize]) -> Mstl {
        let periods = periods.iter().filter(|&&period| period > 1 && values.len() >= 2 * period);
        let mut seasons: Vec<(usize, Vec<f64>)> =
            periods.map(|&period| (period, vec![0.0; values.len()])).collect();
        let mut rest = values.to_vec();
        let times = if seasons.len() > 1 { ITERATIONS } else { 1 };
        for _ in 0..times {
            for (number, (period, season)) in seasons.iter_mut().enumerate() {
                rest.iter_mut().zip(&*season).for_each(|(rest, season)| *rest += season);
                *season = stl(&rest, *period, WINDOW[0] + WINDOW[1] * number);
                rest.iter_mut().zip(&*season).for_each(|(rest, season)| *rest -= season);
            }
        }
        Mstl { seasons }
    }

    /// What is left of the values it was made of.
    pub fn deseasonalised(&self, values: &[f64]) -> Vec<f64> {
        let count = values.len() as isize;
        let plain = |(at, value): (usize, &f64)| value - self.season(at as isize - count);
        values.iter().enumerate().map(plain).collect()
    }

    /// Keeps the last turn of each season only.
    pub fn forget_all_but_last(&mut self) {
        for (period, season) in &mut self.seasons {
            *season = season[season.len() - *period..].to_vec();
        }
    }

    /// What all seasons add, so many steps after the first that was not known yet: as they last did.
    pub fn season(&self, after: isize) -> f64 {
        let of = |(period, season): &(usize, Vec<f64>)| {
            let count = season.len() as isize;
            let at = if after >= -count && after < 0 {
                count + after
            } else {
                count - *period as isize + after.rem_euclid(*period as isize)
            };
            season[at as usize]
        };
        self.seasons.iter().map(of).sum()
    }
}

/// The season of `values`, a value each, smoothed over `window` of its turns.
pub fn stl(values: &[f64], period: usize, window: usize) -> Vec<f64> {
    let count = values.len();
    let odd = |at_least: f64| {
        let least = at_least.ceil() as usize;
        least + usize::from(least.is_multiple_of(2))
    };
    let trend_window = odd(1.5 * period as f64 / (1.0 - 1.5 / window as f64));
    let low_window = odd((period + 1) as f64);
    let mut trend = vec![0.0; count];
    let mut season = vec![0.0; count];
    for _ in 0..INNER {
        let plain: Vec<f64> =
            values.iter().zip(&trend).map(|(value, trend)| value - trend).collect();
        // By step of the season, its turns, with one more at each end.
        let mut turns = vec![0.0; count + 2 * period];
        for slot in 0..period {
            let of: Vec<f64> = plain[slot..].iter().copied().step_by(period).collect();
            for turn in 0..of.len() + 2 {
                turns[turn * period + slot] = loess(&of, window, turn as f64);
            }
        }
        let low = moving(&moving(&moving(&turns, period), period), 3);
        let low = smooth(&low, low_window);
        for (at, season) in season.iter_mut().enumerate() {
            *season = turns[at + period] - low[at];
        }
        let rest: Vec<f64> =
            values.iter().zip(&season).map(|(value, season)| value - season).collect();
        trend = smooth(&rest, trend_window);
    }
    season
}

/// Means of as many values as `window` says.
fn moving(values: &[f64], window: usize) -> Vec<f64> {
    let mut sum: f64 = values[..window].iter().sum();
    let mut means = vec![sum / window as f64];
    for (new, old) in values[window..].iter().zip(values) {
        sum += new - old;
        means.push(sum / window as f64);
    }
    means
}

/// Loess at some of the places, in between on a line: a tenth of the window apart.
fn smooth(values: &[f64], window: usize) -> Vec<f64> {
    let jump = window.div_ceil(10);
    let last = values.len() - 1;
    let mut smoothed = vec![0.0; values.len()];
    let (mut from, mut left) = (0, loess(values, window, 1.0));
    smoothed[0] = left;
    while from < last {
        let to = (from + jump).min(last);
        let right = loess(values, window, (to + 1) as f64);
        for (step, value) in smoothed[from + 1..=to].iter_mut().enumerate() {
            *value = left + (right - left) * (step + 1) as f64 / (to - from) as f64;
        }
        (from, left) = (to, right);
    }
    smoothed
}

/// The line through the `window` values nearest to a place, near ones counting most, at that place.
/// Places are counted from 1; 0 and one beyond the last are fine.
fn loess(values: &[f64], window: usize, place: f64) -> f64 {
    let count = values.len();
    let taken = window.min(count);
    // As STL has it: the window moves along with the place and stops at the ends.
    let middle = place as usize;
    let first = middle.saturating_sub(taken.div_ceil(2)).min(count - taken);
    let (left, right) = ((first + 1) as f64, (first + taken) as f64);
    let mut reach = (place - left).max(right - place);
    if window > count {
        reach += ((window - count) / 2) as f64;
    }
    let weight = |at: usize| {
        let distance = ((first + 1 + at) as f64 - place).abs();
        match distance {
            far if far > 0.999 * reach => 0.0,
            near if near <= 0.001 * reach => 1.0,
            between => (1.0 - (between / reach).powi(3)).powi(3),
        }
    };
    let weights: Vec<f64> = (0..taken).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    if sum <= 0.0 {
        return values[middle.clamp(1, count) - 1];
    }
    let at = |index: usize| (first + 1 + index) as f64;
    let (mut centre, mut spread) = (0.0, 0.0);
    weights.iter().enumerate().for_each(|(index, weight)| centre += weight / sum * at(index));
    weights.iter().enumerate().for_each(|(index, weight)| {
        spread += weight / sum * (at(index) - centre).powi(2);
    });
    let slope =
        if spread.sqrt() > 0.001 * (count - 1) as f64 { (place - centre) / spread } else { 0.0 };
    let line = |(index, weight): (usize, &f64)| {
        weight / sum * (1.0 + slope * (at(index) - centre)) * values[first + index]
    };
    weights.iter().enumerate().map(line).sum()
}
