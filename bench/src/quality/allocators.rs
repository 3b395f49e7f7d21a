//! Allocators to stand beside, each told the demand of the quantum it allocates.
//!
//! Written anew from their descriptions and checked against a reference in Python
//! (`bench/tests/quality.rs`): a static share, weighted max-min as `cpu.weight` gives it, burstable
//! credits as clouds sell them, Karma (Vuppalapati et al., OSDI 2023) and the vCPU market of dio
//! (Cadorel et al.).

use super::Grants;
use super::setup::Case;

/// Share of the fair share that Karma guarantees.
const KARMA_GUARANTEED_PERCENT: u32 = 50;
/// Credits a tenant of Karma starts with: more than a window can use.
const KARMA_INITIAL: i64 = 1_000_000_000;
/// Quanta of baseline that burstable credits are capped at: a day.
const BURSTABLE_CAP_QUANTA: f64 = 288.0;
/// Quanta of baseline that a burstable instance is launched with: half a day.
const BURSTABLE_LAUNCH_QUANTA: f64 = 144.0;
/// Slices that dio sells at a time.
const DIO_WINDOW: f64 = 10.0;

/// An allocator's name and what it does.
pub type Allocator = (&'static str, fn(&Case) -> Grants);

/// All of them, the simplest first.
pub const ALLOCATORS: [Allocator; 5] = [
    ("static", fixed),
    ("max-min", max_min),
    ("burstable", burstable),
    ("karma", karma),
    ("dio", dio),
];

/// Raises all from the bottom until `capacity` is used: out = min(most, level x weight).
/// Returns the level too, infinite where everyone gets all it may have.
#[must_use]
pub fn fill(most: &[f64], weights: &[f64], capacity: f64) -> (Vec<f64>, f64) {
    assert_eq!(most.len(), weights.len(), "a weight for everyone");
    if most.iter().sum::<f64>() <= capacity {
        return (most.to_vec(), f64::INFINITY);
    }
    // Those that are satisfied at the lowest level come first.
    let mut order: Vec<usize> = (0..most.len()).filter(|&at| most[at] > 0.0).collect();
    order.sort_by(|&a, &b| (most[a] * weights[b]).total_cmp(&(most[b] * weights[a])));
    let mut weight: f64 = order.iter().map(|&at| weights[at]).sum();
    let mut left = capacity;
    let mut level = 0.0;
    for at in order {
        level = left / weight;
        if most[at] > level * weights[at] {
            break;
        }
        left -= most[at];
        weight -= weights[at];
    }
    let out = most.iter().zip(weights).map(|(most, weight)| most.min(level * weight)).collect();
    (out, level)
}

/// The same quantum by quantum.
fn by_quantum(case: &Case, mut grant: impl FnMut(&[f64], usize) -> Vec<f64>) -> Grants {
    let mut grants = vec![Vec::with_capacity(case.quanta()); case.demand.len()];
    for t in 0..case.quanta() {
        let demand: Vec<f64> = case.demand.iter().map(|row| f64::from(row[t])).collect();
        for (row, grant) in grants.iter_mut().zip(grant(&demand, t)) {
            row.push(grant);
        }
    }
    grants
}

fn shares(case: &Case) -> Vec<f64> {
    case.fair.iter().map(|&slices| f64::from(slices)).collect()
}

/// Everyone has its fair share, used or not.
#[must_use]
pub fn fixed(case: &Case) -> Grants {
    let fair = shares(case);
    by_quantum(case, |_, _| fair.clone())
}

/// Weighted max-min with fair shares as weights.
#[must_use]
pub fn max_min(case: &Case) -> Grants {
    let fair = shares(case);
    by_quantum(case, |demand, _| fill(demand, &fair, f64::from(case.capacity())).0)
}

/// Max-min with values as weights: everyone tells the truth and is believed.
#[must_use]
pub fn by_value(case: &Case) -> Grants {
    by_quantum(case, |demand, t| {
        let weight = |(row, &fair): (&Vec<u32>, &u32)| f64::from(row[t] * fair);
        let weights: Vec<f64> = case.value.iter().zip(&case.fair).map(weight).collect();
        fill(demand, &weights, f64::from(case.capacity())).0
    })
}

/// Strictly by value, equally within one: the most that value-weighted welfare can be.
#[must_use]
pub fn priority(case: &Case) -> Grants {
    by_quantum(case, |demand, t| {
        let mut values: Vec<u32> = case.value.iter().map(|row| row[t]).collect();
        values.sort_unstable();
        values.dedup();
        let mut grants = vec![0.0; demand.len()];
        let mut left = f64::from(case.capacity());
        for value in values.into_iter().rev() {
            let mine = |at: usize| if case.value[at][t] == value { demand[at] } else { 0.0 };
            let most: Vec<f64> = (0..demand.len()).map(mine).collect();
            let (out, _) = fill(&most, &vec![1.0; demand.len()], left);
            left -= out.iter().sum::<f64>();
            grants.iter_mut().zip(out).for_each(|(grant, out)| *grant += out);
        }
        grants
    })
}

/// Burstable instances: fair share as baseline, what is not used is saved up to a day of it, and
/// nobody bursts on less than it saved. A host with too little gives equally.
#[must_use]
pub fn burstable(case: &Case) -> Grants {
    let fair = shares(case);
    let ones = vec![1.0; fair.len()];
    let mut saved: Vec<f64> = fair.iter().map(|fair| fair * BURSTABLE_LAUNCH_QUANTA).collect();
    by_quantum(case, |demand, _| {
        let most: Vec<f64> =
            (0..fair.len()).map(|at| demand[at].min(fair[at] + saved[at])).collect();
        let (grants, _) = fill(&most, &ones, f64::from(case.capacity()));
        for at in 0..fair.len() {
            let cap = BURSTABLE_CAP_QUANTA * fair[at];
            saved[at] = (saved[at] + fair[at] - grants[at]).clamp(0.0, cap);
        }
        grants
    })
}

/// Karma: half of the fair share is guaranteed. Whoever uses less of that earns a credit a slice
/// lent, the poorest first; whoever wants more borrows for a credit a slice, the richest first;
/// what is not guaranteed belongs to all and is handed to everyone as credits.
#[must_use]
pub fn karma(case: &Case) -> Grants {
    let count = case.fair.len();
    let fair: Vec<i64> = case.fair.iter().map(|&slices| i64::from(slices)).collect();
    let own: Vec<i64> =
        fair.iter().map(|fair| fair * i64::from(KARMA_GUARANTEED_PERCENT) / 100).collect();
    let public: i64 = fair.iter().sum::<i64>() - own.iter().sum::<i64>();
    let mut credits = vec![KARMA_INITIAL; count];
    by_quantum(case, |demand, _| {
        let demand: Vec<i64> = demand.iter().map(|&slices| slices as i64).collect();
        (0..count).for_each(|at| credits[at] += fair[at] - own[at]);
        let lent: Vec<i64> = (0..count).map(|at| (own[at] - demand[at]).max(0)).collect();
        let wanted: Vec<i64> =
            (0..count).map(|at| (demand[at] - own[at]).clamp(0, credits[at])).collect();
        let (lent_all, wanted_all) = (lent.iter().sum::<i64>(), wanted.iter().sum::<i64>());
        let (borrowed, earned) = if public + lent_all >= wanted_all {
            let earned = raise(&credits, &lent, wanted_all.min(lent_all));
            (wanted, earned)
        } else {
            let richest_first: Vec<i64> = credits.iter().map(|credits| -credits).collect();
            (raise(&richest_first, &wanted, public + lent_all), lent)
        };
        (0..count).for_each(|at| credits[at] += earned[at] - borrowed[at]);
        (0..count).map(|at| (demand[at].min(own[at]) + borrowed[at]) as f64).collect()
    })
}

/// Hands out `total` slices, each to whoever stands lowest, at most `most` to each; every slice
/// raises its owner by one. Among equals the first come first.
fn raise(stand: &[i64], most: &[i64], total: i64) -> Vec<i64> {
    if total >= most.iter().sum() {
        return most.to_vec();
    }
    let at_level = |level: i64| {
        stand.iter().zip(most).map(move |(stand, most)| (level - stand).clamp(0, *most))
    };
    let (mut low, mut high) = (
        stand.iter().copied().min().unwrap_or(0),
        stand.iter().zip(most).map(|(stand, most)| stand + most).max().unwrap_or(0),
    );
    while low < high {
        let middle = low + (high - low + 1) / 2;
        if at_level(middle).sum::<i64>() <= total { low = middle } else { high = middle - 1 }
    }
    let mut out: Vec<i64> = at_level(low).collect();
    let mut left = total - out.iter().sum::<i64>();
    for at in 0..out.len() {
        if left > 0 && stand[at] <= low && out[at] < most[at] {
            out[at] += 1;
            left -= 1;
        }
    }
    out
}

/// dio: everyone's own use up to the fair share, what is left over is sold in small lots, in turns,
/// for what was saved; what nobody can pay goes by need.
#[must_use]
pub fn dio(case: &Case) -> Grants {
    let fair = shares(case);
    let mut money = vec![0.0_f64; fair.len()];
    by_quantum(case, |demand, _| {
        let mut grants: Vec<f64> = (0..fair.len()).map(|at| demand[at].min(fair[at])).collect();
        let mut needs: Vec<f64> = (0..fair.len()).map(|at| demand[at] - grants[at]).collect();
        let mut market = f64::from(case.capacity()) - grants.iter().sum::<f64>();
        (0..fair.len()).for_each(|at| money[at] += (fair[at] - demand[at]).max(0.0));
        let mut buying: Vec<usize> = (0..fair.len()).filter(|&at| needs[at] > 0.0).collect();
        while market > EMPTY && !buying.is_empty() {
            buying.retain(|&at| {
                let lot = DIO_WINDOW.min(money[at]).min(needs[at]).min(market);
                if lot > EMPTY {
                    grants[at] += lot;
                    money[at] -= lot;
                    needs[at] -= lot;
                    market -= lot;
                }
                lot > EMPTY
            });
        }
        let unmet: f64 = needs.iter().sum();
        if market > EMPTY && unmet > 0.0 {
            let part = market.min(unmet) / unmet;
            grants.iter_mut().zip(&needs).for_each(|(grant, need)| *grant += need * part);
        }
        grants
    })
}

/// Slices below which nothing is traded: rounding.
const EMPTY: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_is_even_by_weight_and_wastes_nothing() {
        let (out, level) = fill(&[1.0, 50.0, 50.0, 0.0], &[1.0, 1.0, 3.0, 9.0], 41.0);
        assert_eq!((out, level), (vec![1.0, 10.0, 30.0, 0.0], 10.0));
        assert_eq!(fill(&[1.0, 2.0], &[1.0, 1.0], 3.0), (vec![1.0, 2.0], f64::INFINITY));
    }

    #[test]
    fn raising_serves_the_lowest_first_and_hands_out_all() {
        assert_eq!(raise(&[0, 5, 0], &[10, 10, 2], 10), [7, 1, 2]);
        assert_eq!(raise(&[0, 0], &[3, 3], 9), [3, 3]);
        assert_eq!(raise(&[0, 0, 0], &[3, 3, 3], 4), [2, 1, 1]);
    }
}
