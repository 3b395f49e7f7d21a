//! What a moment of a series looks like, in numbers that mean the same for every series: differences
//! to the last value, in units of the series' own unrest.

use super::past::Past;

/// How many.
pub const FEATURES: usize = 44;
/// Days that a moment is compared with at most.
const DAYS: usize = 7;
/// The unit is at least this part of the level, and of what it was over all that is known: a series
/// that did not move lately has none of its own.
const UNIT_PARTS_MIN: [f32; 2] = [1e-2, 0.2];
/// The unit at least: a hundredth of a VRU.
const UNIT_MIN: f32 = 1e-2;

/// Steps of a forecast, and how many of them make a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Steps ahead.
    pub steps: usize,
    /// Steps of a day.
    pub day: usize,
}

/// A moment of a series.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The last value that is known.
    pub last: f32,
    /// What its features, and what is learnt of it, are measured in.
    pub unit: f32,
    /// Those.
    pub features: [f32; FEATURES],
}

impl Moment {
    /// The moment after the first `known` values of `past`; the others are not looked at.
    pub fn at(past: &Past, known: usize, grid: Grid) -> Moment {
        assert!(0 < known && known <= past.len(), "a moment within the series");
        let last = past.values()[known - 1];
        let back = |steps: usize| known.saturating_sub(steps);
        let week = back(DAYS * grid.day);
        let unit = past.unrest(week.max(1).min(known - 1), known);
        let level = past.mean(week, known);
        let floors = [UNIT_PARTS_MIN[0] * level, UNIT_PARTS_MIN[1] * past.unrest(0, known)];
        let unit = floors.into_iter().fold(unit.max(UNIT_MIN), f32::max);
        let mut at = 0;
        let mut features = [0.0; FEATURES];
        let mut add = |value: f32| {
            features[at] = value;
            at += 1;
        };
        let from_last = |value: f32| ((value - last) / unit).clamp(-1e6, 1e6);
        for lag in 1..=11 {
            add(from_last(past.values()[back(lag + 1).min(known - 1)]));
        }
        for steps in [3, 6, 12, 36, grid.day, 7 * grid.day] {
            add(from_last(past.mean(back(steps), known)));
        }
        for steps in [6, 12, 36, grid.day, 7 * grid.day] {
            add((past.deviation(back(steps), known) / unit).ln_1p());
        }
        for steps in [3, 12, 36, grid.day] {
            add((past.unrest(back(steps), known) / unit).ln_1p());
        }
        let recent = &past.values()[back(12)..known];
        add(from_last(recent.iter().copied().fold(f32::INFINITY, f32::min)));
        add(from_last(recent.iter().copied().fold(f32::NEG_INFINITY, f32::max)));
        seasons(past, known, grid, &mut |value| add(from_last(value)));
        add((last / unit).min(1e6));
        add((level / unit).min(1e6));
        add((known % grid.day) as f32);
        add((known % 12) as f32);
        assert_eq!(at, FEATURES);
        Moment { last, unit, features }
    }
}

/// What came, in thirds of the time ahead, at this time a day and a week ago, in the mean of the
/// last days, and after as many steps before now.
fn seasons(past: &Past, known: usize, grid: Grid, add: &mut impl FnMut(f32)) {
    let third = |part: usize| (part * grid.steps / 3, (part + 1) * grid.steps / 3);
    // Where that is not so long ago yet, the last value says that nothing is known.
    let ahead = |steps_ago: usize, part: usize| {
        let (from, to) = third(part);
        let start = (known + from).checked_sub(steps_ago)?;
        let end = (known + to - steps_ago).min(known);
        (start < end).then(|| past.mean(start, end))
    };
    let last = past.values()[known - 1];
    for part in 0..3 {
        add(ahead(grid.day, part).unwrap_or(last));
        add(ahead(DAYS * grid.day, part).unwrap_or(last));
        let days = (1..=DAYS).filter_map(|day| ahead(day * grid.day, part));
        let (sum, count) = days.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        add(if count > 0.0 { sum / count } else { last });
    }
    let then = |steps_ago: usize| known.checked_sub(steps_ago + 1).map(|at| past.values()[at]);
    add(then(grid.day).unwrap_or(last));
    add(then(DAYS * grid.day).unwrap_or(last));
    add(then(grid.steps).unwrap_or(last));
}
