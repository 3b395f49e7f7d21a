//! What the allocators are asked for: demand, fair shares and values made from a trace's window.

use vendue_loadgen::random::SplitMix;

use super::trace::Window;

/// Slices of a tenant's fair share.
pub const FAIR_SLICES: u32 = 100;
/// Tenants of S1 and V2.
pub const TENANTS: usize = 100;
/// Tenants of a host of S2.
pub const HOST_TENANTS: usize = 20;
/// What S2's hosts are asked for on average, share of their capacity.
const HOST_LOAD: f64 = 0.9;
/// A tenant takes part if it uses so much of its own capacity on average, percent...
const MEAN_PERCENT_MIN: f64 = 2.0;
/// ...and anything at all in more than this share of the quanta.
const ACTIVE_MIN: f64 = 0.5;
/// What an urgent quantum is worth beside another, V2.
pub const URGENT_VALUE: u32 = 10;
/// Tenants of a static critical class: as many as are urgent in V2 at a time.
pub const CRITICAL_TENANTS: usize = 15;
/// Quanta of an urgent time, V2: an hour.
const URGENT_QUANTA: u32 = 12;
/// Mean quanta between urgent times: 15% of all quanta are urgent.
const CALM_QUANTA: u32 = 68;

/// One window's problem: who demands how much when, of a host that has room for all fair shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Slices that each tenant can use in each quantum.
    pub demand: Vec<Vec<u32>>,
    /// Slices that each tenant may count on.
    pub fair: Vec<u32>,
    /// What a slice is worth to each tenant in each quantum.
    pub value: Vec<Vec<u32>>,
}

impl Case {
    /// A case in which every slice is worth 1 and every tenant has [`FAIR_SLICES`].
    #[must_use]
    pub fn plain(demand: Vec<Vec<u32>>) -> Case {
        let value = demand.iter().map(|row| vec![1; row.len()]).collect();
        Case { fair: vec![FAIR_SLICES; demand.len()], demand, value }
    }

    /// Quanta.
    #[must_use]
    pub fn quanta(&self) -> usize {
        self.demand[0].len()
    }

    /// Slices that there are.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.fair.iter().sum()
    }

    /// True of a tenant of which every quantum is urgent.
    #[must_use]
    pub fn is_critical(&self, tenant: usize) -> bool {
        self.value[tenant].iter().all(|&value| value >= URGENT_VALUE)
    }

    /// Slices that all tenants demand together in quantum `t`.
    #[must_use]
    pub fn total_demand(&self, t: usize) -> f64 {
        self.demand.iter().map(|row| f64::from(row[t])).sum()
    }
}

/// [`TENANTS`] of a window that do something, drawn by `seed`; `None` if there are not as many.
#[must_use]
pub fn tenants(window: &Window, count: usize, seed: u64) -> Option<Vec<&[f64]>> {
    let eligible = |row: &&Vec<f64>| {
        let active = row.iter().filter(|&&percent| percent > 0.0).count();
        mean(row) >= MEAN_PERCENT_MIN && active as f64 > ACTIVE_MIN * row.len() as f64
    };
    let mut rows: Vec<&[f64]> = window.percent.iter().filter(eligible).map(Vec::as_slice).collect();
    if rows.len() < count {
        return None;
    }
    let mut chance = SplitMix(seed);
    for at in 0..count {
        let other = at + chance.below((rows.len() - at) as u32) as usize;
        rows.swap(at, other);
    }
    rows.truncate(count);
    Some(rows)
}

/// S1: everyone demands its fair share on average.
#[must_use]
pub fn s1(rows: &[&[f64]]) -> Case {
    let slices = |row: &&[f64]| scaled(row, f64::from(FAIR_SLICES) / mean(row));
    Case::plain(rows.iter().map(slices).collect())
}

/// S2: one host; everyone keeps its own mean, together they demand 0.9 of the host.
#[must_use]
pub fn s2(rows: &[&[f64]]) -> Case {
    let together = rows.iter().map(|row| mean(row)).sum::<f64>() / rows.len() as f64;
    let factor = HOST_LOAD * f64::from(FAIR_SLICES) / together;
    Case::plain(rows.iter().map(|row| scaled(row, factor)).collect())
}

/// V2: S1, and now and then a tenant is in a hurry for an hour.
#[must_use]
pub fn v2(rows: &[&[f64]], seed: u64) -> Case {
    let mut case = s1(rows);
    let mut chance = SplitMix(seed);
    for row in &mut case.value {
        let mut left = 0;
        for value in row.iter_mut() {
            // An hour, then calm that ends in each quantum with the same chance.
            if left == 0 && chance.below(CALM_QUANTA) == 0 {
                left = URGENT_QUANTA;
            }
            if left > 0 {
                left -= 1;
                *value = URGENT_VALUE;
            }
        }
    }
    case
}

/// S1, and the first [`CRITICAL_TENANTS`] are always urgent; they demand `load_percent` of their fair
/// shares on average.
#[must_use]
pub fn critical(rows: &[&[f64]], load_percent: u32) -> Case {
    let mut case = s1(rows);
    for (demand, value) in case.demand.iter_mut().zip(&mut case.value).take(CRITICAL_TENANTS) {
        value.fill(URGENT_VALUE);
        demand.iter_mut().for_each(|slices| *slices = *slices * load_percent / 100);
    }
    case
}

fn scaled(row: &[f64], factor: f64) -> Vec<u32> {
    row.iter().map(|percent| (factor * percent).ceil() as u32).collect()
}

fn mean(row: &[f64]) -> f64 {
    row.iter().sum::<f64>() / row.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        let row = |vm: usize| (0..600).map(|t| ((vm * 7 + t) % 13) as f64 + 1.0).collect();
        let mut percent: Vec<Vec<f64>> = (0..30).map(row).collect();
        percent.push(vec![0.0; 600]);
        Window { label: "w".to_owned(), percent }
    }

    #[test]
    fn idle_tenants_are_never_drawn_and_a_seed_draws_the_same() {
        let window = window();
        let rows = tenants(&window, 30, 1).expect("thirty are eligible");
        assert!(rows.iter().all(|row| row[0] > 0.0));
        assert_eq!(Some(rows), tenants(&window, 30, 1));
        assert_eq!(tenants(&window, 31, 1), None);
    }

    #[test]
    fn demand_is_scaled_as_the_set_ups_say() {
        let window = window();
        let rows = tenants(&window, HOST_TENANTS, 1).expect("enough");
        let quanta = 600.0;
        for row in &s1(&rows).demand {
            let mean = f64::from(row.iter().sum::<u32>()) / quanta;
            assert!((99.99..101.0).contains(&mean), "{mean}");
        }
        let case = s2(&rows);
        let load = (0..600).map(|t| case.total_demand(t)).sum::<f64>()
            / quanta
            / f64::from(case.capacity());
        assert!((0.9..0.91).contains(&load), "{load}");
    }

    #[test]
    fn some_fifteen_in_a_hundred_quanta_are_urgent_for_an_hour_or_more() {
        let window = window();
        let case = v2(&tenants(&window, 30, 1).expect("enough"), 1);
        let urgent = case.value.iter().flatten().filter(|&&value| value == URGENT_VALUE).count();
        let share = urgent as f64 / (30.0 * 600.0);
        assert!((0.13..0.17).contains(&share), "{share}");
        let first = case.value[0].iter().position(|&value| value > 1).expect("some hurry");
        assert!(case.value[0][first..first + 12].iter().all(|&value| value > 1));
    }
}
