//! Tenants that do not tell the truth: what it gains them, and what cornering costs the others.
//!
//! The demand that a tenant presents is what it would really use - whoever asks for more than it needs
//! burns it - and its bid is what it says that is worth. Gains are of what it is left with: the value
//! of what was useful to it, less the rent it paid, as part of the value of all it needed.

use super::metrics::Interval;
use super::setup::{Case, URGENT_VALUE};
use super::{Grants, Outcome};

/// A market's name and what it does with a case.
pub type Market = (&'static str, fn(&Case) -> Outcome);

/// Tenants that lie, each in a replay of its own, and tenants that corner.
const LIARS: [usize; 3] = [20, 50, 80];
/// What a tenant that corners says that a slice is worth to it: ten urgent ones.
const GREED: u32 = 10 * URGENT_VALUE;

/// What one tenant presents instead of the truth: its name, if it is about urgency, and how.
type Lie = (&'static str, bool, fn(&mut Case, usize));

const LIES: [Lie; 6] = [
    ("needs-half-more", false, |told, who| {
        told.demand[who].iter_mut().for_each(|slices| *slices += *slices / 2);
    }),
    ("needs-its-share", false, |told, who| {
        let fair = told.fair[who];
        told.demand[who].iter_mut().for_each(|slices| *slices = fair.max(*slices));
    }),
    ("needs-a-fifth-less", false, |told, who| {
        told.demand[who].iter_mut().for_each(|slices| *slices -= *slices / 5);
    }),
    ("always-urgent", true, |told, who| told.value[who].fill(URGENT_VALUE)),
    ("urgent-at-peaks", true, |told, who| {
        let fair = told.fair[who];
        for (value, &slices) in told.value[who].iter_mut().zip(&told.demand[who]) {
            *value = if slices > fair { URGENT_VALUE } else { *value };
        }
    }),
    ("twice-as-urgent", true, |told, who| {
        let exaggerate = |value: &mut u32| *value *= if *value == URGENT_VALUE { 2 } else { 1 };
        told.value[who].iter_mut().for_each(exaggerate);
    }),
];

/// What a strategy came to.
#[derive(Clone, Debug)]
pub struct Play {
    /// Whose market.
    pub market: &'static str,
    /// Which strategy.
    pub strategy: &'static str,
    /// True of lies about urgency, `None` of cornering.
    pub urgency: Option<bool>,
    /// What it gained the liar, or cost the others; parts, over the windows.
    pub effect: Interval,
}

/// Every lie, and cornering, in `market` on one case a window.
#[must_use]
pub fn plays((market, replay): Market, cases: &[Case]) -> Vec<Play> {
    let honest: Vec<Outcome> = cases.iter().map(replay).collect();
    let over = |effect: &dyn Fn(&Case, &Outcome, usize) -> f64| {
        let window = |(case, honest)| {
            LIARS.iter().map(|&who| effect(case, honest, who)).sum::<f64>() / LIARS.len() as f64
        };
        Interval::of(&cases.iter().zip(&honest).map(window).collect::<Vec<f64>>())
    };
    let mut plays: Vec<Play> = LIES
        .iter()
        .map(|&(strategy, urgency, lie)| {
            let effect = over(&|case, honest, who| {
                let mut told = case.clone();
                lie(&mut told, who);
                utility(case, &replay(&told), who) / utility(case, honest, who) - 1.0
            });
            Play { market, strategy, urgency: Some(urgency), effect }
        })
        .collect();
    let effect = over(&|case, honest, who| {
        let cornered = replay(&cornering(case, who));
        1.0 - others(case, &cornered.grants, who) / others(case, &honest.grants, who)
    });
    plays.push(Play { market, strategy: "saves-and-grabs", urgency: None, effect });
    plays
}

/// The value of what was useful to a tenant, less what it paid, as part of all it needed.
fn utility(case: &Case, outcome: &Outcome, who: usize) -> f64 {
    let (mut useful, mut all) = (0.0, 0.0);
    let quanta = case.demand[who].iter().zip(&case.value[who]).zip(&outcome.grants[who]);
    for ((&demand, &value), grant) in quanta {
        useful += f64::from(value) * grant.min(f64::from(demand));
        all += f64::from(value) * f64::from(demand);
    }
    (useful - outcome.paid[who]) / all
}

/// A tenant uses nothing for half of the time and then wants the whole host at any price.
fn cornering(case: &Case, who: usize) -> Case {
    let mut told = case.clone();
    let (half, capacity) = (case.quanta() / 2, case.capacity());
    told.demand[who][..half].fill(0);
    told.demand[who][half..].fill(capacity);
    told.value[who][half..].fill(GREED);
    told
}

/// What the others got of what they needed in the second half.
fn others(case: &Case, grants: &Grants, but: usize) -> f64 {
    let (mut useful, mut all) = (0.0, 0.0);
    let half = case.quanta() / 2;
    for who in (0..case.demand.len()).filter(|&who| who != but) {
        for (&demand, granted) in case.demand[who][half..].iter().zip(&grants[who][half..]) {
            let demand = f64::from(demand);
            useful += granted.min(demand);
            all += demand;
        }
    }
    useful / all
}
