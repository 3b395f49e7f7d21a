//! What an allocation is worth to those it is for. Definitions: each field.

use super::Grants;
use super::setup::Case;

/// Share of demand that must be met for an urgent quantum to count as served.
const SERVED: f64 = 0.95;

/// The metrics of one allocation of one case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// Used / capacity, where used = min(granted, demanded), summed over tenants and quanta.
    pub util: f64,
    /// The most that `util` could be: min(all demand, capacity) / capacity.
    pub opt: f64,
    /// Least / greatest welfare of a tenant; welfare = its used / its demanded, over all quanta.
    pub fair: f64,
    /// 1st percentile over tenants and quanta of used / demanded, where something was demanded.
    pub p1: f64,
    /// Granted otherwise than the quantum before, per quantum: sum of |change| / 2 / capacity.
    pub churn: f64,
    /// Value of what was used / value of what was demanded.
    pub value: f64,
    /// Share of the urgent quanta of which less than 95% was served.
    pub violation: f64,
    /// The same of the last third of the quanta.
    pub late: f64,
}

impl Metrics {
    /// Measures `grants` for `case`.
    #[must_use]
    pub fn of(case: &Case, grants: &Grants) -> Metrics {
        let quanta = case.quanta();
        let capacity = f64::from(case.capacity());
        let (mut used, mut most, mut moved) = (0.0, 0.0, 0.0);
        let (mut worth_used, mut worth) = (0.0, 0.0);
        // All, and those of the last third.
        let (mut urgent, mut missed) = ([0_u64; 2], [0_u64; 2]);
        let mut served = Vec::new();
        for t in 0..quanta {
            most += case.total_demand(t).min(capacity);
        }
        let mut welfare = Vec::new();
        for ((demand, grants), value) in case.demand.iter().zip(grants).zip(&case.value) {
            assert_eq!(demand.len(), grants.len(), "a grant for every quantum");
            let (mut got, mut wanted) = (0.0, 0.0);
            for (t, ((&demand, &grant), &value)) in demand.iter().zip(grants).zip(value).enumerate()
            {
                let (demand, value) = (f64::from(demand), f64::from(value));
                let useful = grant.min(demand);
                got += useful;
                wanted += demand;
                worth_used += value * useful;
                worth += value * demand;
                if demand > 0.0 {
                    served.push(useful / demand);
                    if value > 1.0 {
                        let missing = u64::from(useful < SERVED * demand);
                        let late = u64::from(t >= quanta - quanta / 3);
                        urgent = [urgent[0] + 1, urgent[1] + late];
                        missed = [missed[0] + missing, missed[1] + missing * late];
                    }
                }
            }
            used += got;
            welfare.push(got / wanted);
            moved += grants.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum::<f64>();
        }
        let least = welfare.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = welfare.iter().copied().fold(0.0, f64::max);
        let volume = capacity * quanta as f64;
        Metrics {
            util: used / volume,
            opt: most / volume,
            fair: least / greatest,
            p1: percentile(served, 1.0),
            churn: moved / 2.0 / (capacity * (quanta - 1) as f64),
            value: worth_used / worth,
            violation: part(missed[0], urgent[0]),
            late: part(missed[1], urgent[1]),
        }
    }

    /// The mean of each over `all`.
    #[must_use]
    pub fn mean(all: &[Metrics]) -> Metrics {
        let mean = |pick: fn(&Metrics) -> f64| all.iter().map(pick).sum::<f64>() / all.len() as f64;
        Metrics {
            util: mean(|m| m.util),
            opt: mean(|m| m.opt),
            fair: mean(|m| m.fair),
            p1: mean(|m| m.p1),
            churn: mean(|m| m.churn),
            value: mean(|m| m.value),
            violation: mean(|m| m.violation),
            late: mean(|m| m.late),
        }
    }
}

/// A share, 0 of nothing.
fn part(of: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { of as f64 / all as f64 }
}

/// The value below which `percent` of `values` are, between two of them by their distance.
///
/// # Panics
/// There are no values.
#[must_use]
pub fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = percent / 100.0 * (values.len() - 1) as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// A mean and how far from it the true one may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Mean.
    pub mean: f64,
    /// Half of the 95% confidence interval (Student's t over the windows); infinite for one.
    pub half: f64,
}

impl Interval {
    /// Of one value a window.
    #[must_use]
    pub fn of(values: &[f64]) -> Interval {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let half = match values.len() {
            1 => f64::INFINITY,
            many => student_t(many - 1) * (variance / (count - 1.0) / count).sqrt(),
        };
        Interval { mean, half }
    }
}

/// 97.5% quantile of Student's t. Tabulated up to ten degrees of freedom; above, an expansion in
/// 1/degrees around the normal quantile (Abramowitz and Stegun 26.7.5) that is exact to 0.001.
fn student_t(degrees: usize) -> f64 {
    const TABLE: [f64; 10] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    if let Some(t) = TABLE.get(degrees - 1) {
        return *t;
    }
    let (z, n) = (1.959_964_f64, degrees as f64);
    z + (z.powi(3) + z) / (4.0 * n)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n.powi(2))
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_values() {
        assert_eq!(percentile(vec![4.0, 0.0, 2.0], 25.0), 1.0);
        assert_eq!(percentile(vec![3.0], 99.0), 3.0);
    }

    #[test]
    fn intervals_are_those_of_the_textbook() {
        let interval = Interval::of(&[1.0, 2.0, 3.0]);
        assert_eq!(interval.mean, 2.0);
        assert!((interval.half - 2.484).abs() < 0.001, "{interval:?}");
        assert!((student_t(11) - 2.201).abs() < 0.001 && (student_t(30) - 2.042).abs() < 0.001);
        assert_eq!(Interval::of(&[1.0]).half, f64::INFINITY);
    }
}
