//! Experiments: two standing policies, or one and what instances do anyway, compared on the instances there
//! are; or two sets of terms of the manager of swaps ([`super::swap_manager`]).
//!
//! **Who is in which arm** follows from the experiment's salt and the instance's number alone ([`arm_of`]), so
//! that it never changes and holds for instances that come later. An instance that may take part is
//! *exposed* at a tick, one at a time: it gets its arm's policy in the place of its own, through the same
//! arm of the machine as anybody's request, and that is in the journal. An arm without a policy leaves an
//! instance as it is. An instance's resource takes part in one experiment of each sort at a time. Whose
//! policy is changed by its owner has left: what it told so far counts, and its policy stays as its owner
//! wants it.
//!
//! **Swaps.** An arm of an experiment with swaps says from which risk the manager acts for an instance, as
//! the one that is lent to, and how much it asks for, or that it leaves it alone; an arm without terms is the manager as
//! it always is. Nothing is installed: the manager looks up whom it acts for ([`Machine::swap_terms`]). Who may take part is
//! for whom it would act: who redeemed a token that may be swapped and whose account lets it ask. Once
//! exposed an instance takes part to the end, also without its token, so that what the arms do to
//! tokens does not choose who is measured. Who lends may be in either arm, or in none.
//!
//! **The effect** is the difference of the arms' means, where each instance counts once, with the mean of
//! what it was told: reports of one instance are not independent. Its interval is Welch's, with the
//! quantile of Student's distribution by its Cornish-Fisher expansion, which for three degrees of freedom and
//! more is exact to a thousandth at 95%.
//!
//! **Harm.** It is looked after 1, 2, 4, ... seconds, so that the number of looks is known before: with L
//! looks each is made at a level of 5% / L, one-sided, and the chance that an experiment that does no harm
//! is ended for it is at most 5% over all of them (Bonferroni). It ends then, as it does after its time, or when an operator
//! ends it: every instance gets back the policy that it had, or none; of swaps the terms hold no more at once.
//!
//! All of it is in integers; means are thousandths of what is measured.

use super::Machine;
use super::command::Envelope;
use super::config::RESOURCES;
use super::event::{ExperimentMoved, Exposed, Outbox};
use super::ledger::pocket;
use super::policy::{self, Policy};
use super::query::{LAST, PAGE, Sight, end};
use super::swap_manager::RISK_PERMILLE;
use vendue_wire::code::{Cover, ExperimentEnd, Kpi, LeaseClass, Reject, Resource};
use vendue_wire::message::{
    ANY, Body, EXPERIMENT_MS_MAX, ExperimentRow, ExposureRow, MEASURE_COST, NAME_BYTES, RISK_NEVER,
    SetPolicy, StartExperiment, StopExperiment, U64,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Experiments that are running or have policies to be taken back, at most; as many are remembered.
pub const EXPERIMENTS_MAX: usize = 8;
/// Instances that take part in all of them at most: there are no more policies, and no more tokens.
pub const EXPOSED_MAX: usize = policy::POLICIES_MAX;
/// Instances of an arm without which there is no interval, and no harm.
pub const ARM_MIN: u64 = 4;
/// Instances that are looked at in a tick at most.
const SCANNED: usize = 256;
/// The first look for harm is so long after the begin, milliseconds; each next after twice as long.
const FIRST_LOOK_MS: u64 = 1000;
/// An experiment lasts so long at least, milliseconds.
const LASTS_MS_MIN: u64 = 60_000;
/// A mean counts as so much at most, thousandths: a KPI has 32 bits.
const MEAN_MAX: u64 = 1 << 42;
/// Millionths.
const MICRO: i128 = 1_000_000;
/// What the standard normal exceeds with a chance of 2.5%, millionths.
pub const NORMAL_975: u64 = 1_959_964;
/// What it exceeds with a chance of 5% / L, millionths, for L looks from six on.
pub const NORMAL_LOOKS: [u64; 18] = [
    2_393_980, 2_449_998, 2_497_705, 2_539_185, 2_575_829, 2_608_616, 2_638_257, 2_665_285,
    2_690_110, 2_713_052, 2_734_369, 2_754_268, 2_772_921, 2_790_470, 2_807_034, 2_822_714,
    2_837_597, 2_851_757,
];
const LOOKS_MIN: usize = (LASTS_MS_MIN / FIRST_LOOK_MS).ilog2() as usize + 1;
const _: () = assert!(
    LOOKS_MIN + NORMAL_LOOKS.len() > (EXPERIMENT_MS_MAX / FIRST_LOOK_MS).ilog2() as usize + 1
);

/// The arm of an instance, 0 for A and 1 for B: the lowest bit of the output of SplitMix64 (Steele, Lea,
/// Flood 2014) whose state is the salt and as many steps as the instance's number.
pub fn arm_of(salt: u64, instance: u16) -> usize {
    let steps = u64::from(instance) + 1;
    let state = salt.wrapping_add(steps.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((state ^ state >> 31) & 1) as usize
}

/// All that an instance can take part with.
fn sorts() -> impl Iterator<Item = (Resource, u8)> {
    Resource::ALL.iter().flat_map(|&resource| SORTS.map(|sort| (resource, sort)))
}

/// What a policy is, without what became of it. No budget: none.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
#[allow(missing_docs, reason = "the fields of Policy")]
pub struct Terms {
    pub budget_micro: u64,
    pub burst_micro: u64,
    pub session: u64,
    pub rent: u32,
    pub price: u32,
    pub lead_ms: u32,
    pub hold_ms: u32,
    pub step: u32,
    pub slot: u16,
    pub class: u8,
    pub cover: u8,
}

impl Terms {
    fn of(row: &Policy) -> Terms {
        Terms {
            budget_micro: row.budget_micro,
            burst_micro: row.burst_micro,
            session: row.session,
            rent: row.rent,
            price: row.price,
            lead_ms: row.lead_ms,
            hold_ms: row.hold_ms,
            step: row.step,
            slot: row.slot,
            class: row.class,
            cover: row.cover,
        }
    }

    fn of_arm(m: &StartExperiment, arm: usize) -> Terms {
        Terms {
            budget_micro: m.budget_micro[arm].get(),
            burst_micro: m.burst_micro[arm].get(),
            session: 0,
            rent: m.rent_ticks[arm].get(),
            price: m.price_ticks[arm].get(),
            lead_ms: m.lead_ms[arm].get(),
            hold_ms: m.hold_ms[arm].get(),
            step: m.step_vru[arm].get(),
            slot: 0,
            class: m.class[arm],
            cover: m.cover[arm],
        }
    }

    fn message(&self, client_id: u64, instance: u16, resource: u8) -> SetPolicy {
        SetPolicy {
            client_id: client_id.into(),
            budget_micro: self.budget_micro.into(),
            burst_micro: self.burst_micro.into(),
            instance: u32::from(instance).into(),
            rent_ticks: self.rent.into(),
            price_ticks: self.price.into(),
            lead_ms: self.lead_ms.into(),
            hold_ms: self.hold_ms.into(),
            step_vru: self.step.into(),
            resource,
            class: self.class,
            cover: self.cover,
            reserved: [0; 5],
        }
    }
}

/// Sums over an arm's instances.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Sums {
    /// Of their means.
    pub total: u128,
    /// Of the squares of those.
    pub squares: u128,
    /// Instances.
    pub sample: u64,
    /// Values that they were told.
    pub values: u64,
}

impl Sums {
    fn add(&mut self, mean: u64, values: u64) {
        let mean = u128::from(mean.min(MEAN_MAX));
        self.total += mean;
        self.squares += mean * mean;
        self.sample += 1;
        self.values += values;
    }

    /// Their mean, rounded down; 0 of none.
    fn mean(&self) -> u64 {
        self.total.checked_div(self.sample.into()).unwrap_or(0) as u64
    }

    /// Variance of the mean, rounded up; of two and more.
    fn variance(&self) -> u128 {
        let n = u128::from(self.sample);
        (n * self.squares - self.total * self.total).div_ceil(n * n * (n - 1))
    }
}

/// What the means of two arms differ by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// B less A, thousandths.
    pub milli: i64,
    /// Its variance.
    variance: u128,
    /// Degrees of freedom, by Welch and Satterthwaite, rounded down.
    pub freedom: u64,
}

impl Effect {
    /// `None` where there are too few instances.
    pub fn of(sums: &[Sums; 2]) -> Option<Effect> {
        if sums.iter().any(|sums| sums.sample < ARM_MIN) {
            return None;
        }
        let variances = sums.each_ref().map(Sums::variance);
        // So that their squares fit.
        let most = variances[0].max(variances[1]);
        let shift = (u128::BITS - most.leading_zeros()).saturating_sub(60);
        let [a, b] = variances.map(|variance| variance >> shift);
        let [of_a, of_b] = sums.each_ref().map(|sums| u128::from(sums.sample - 1));
        let parts = (a * a).div_ceil(of_a) + (b * b).div_ceil(of_b);
        let freedom = ((a + b) * (a + b)).checked_div(parts).unwrap_or(of_a + of_b);
        Some(Effect {
            milli: sums[1].mean() as i64 - sums[0].mean() as i64,
            variance: variances[0] + variances[1],
            freedom: (freedom as u64).max(ARM_MIN - 1),
        })
    }

    /// Half of the 95% interval, thousandths, rounded up.
    pub fn half_milli(&self) -> i64 {
        let quantile = u128::from(student_milli(NORMAL_975, self.freedom));
        let square = (self.variance * quantile * quantile).div_ceil(1_000_000);
        square.isqrt() as i64 + 1
    }

    /// True if it is beyond doubt, at one of so many looks, that B is worse by more than was agreed.
    fn harms(&self, harm_milli: u64, more_is_better: bool, looks: usize) -> bool {
        let worse = if more_is_better { -self.milli } else { self.milli };
        let beyond = i128::from(worse) - i128::from(harm_milli);
        let normal = NORMAL_LOOKS[looks.saturating_sub(LOOKS_MIN).min(NORMAL_LOOKS.len() - 1)];
        let quantile = u128::from(student_milli(normal, self.freedom));
        let square = beyond.unsigned_abs() * beyond.unsigned_abs();
        beyond > 0 && square * 1_000_000 > quantile * quantile * self.variance
    }
}

/// The quantile of Student's distribution, thousandths rounded up, from that of the normal in millionths:
/// Cornish-Fisher, to the fourth order (Abramowitz and Stegun 26.7.5).
pub fn student_milli(normal: u64, freedom: u64) -> u64 {
    let (z, v) = (i128::from(normal), i128::from(freedom.clamp(1, 1 << 20)));
    let times = |a: i128, b: i128| a * b / MICRO;
    let z2 = times(z, z);
    let z3 = times(z, z2);
    let (z5, z7) = (times(z3, z2), times(times(z3, z2), z2));
    let z9 = times(z7, z2);
    let first = (z3 + z) / (4 * v);
    let second = (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v);
    let third = (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * v * v * v);
    let fourth = (79 * z9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / (92_160 * v * v * v * v);
    ((z + first + second + third + fourth) as u64).div_ceil(1000)
}

/// An experiment, or a free place for one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Experiment {
    /// What instances were told that take part no more.
    pub gone: [Sums; 2],
    /// The arms' policies.
    pub arms: [Terms; 2],
    /// Chooses who is in which arm.
    pub salt: u64,
    /// When it began, milliseconds since 1970 UTC.
    pub starts_ms: u64,
    /// When it is over, or ended.
    pub ends_ms: u64,
    /// How much worse B may be, thousandths.
    pub harm_milli: u64,
    /// Number, from 1 on; 0: a free place.
    pub number: u32,
    /// Account, or [`ANY`].
    pub account: u32,
    /// Tier; all bits set: of every tier.
    pub tier: u16,
    /// A [`Resource`].
    pub resource: u8,
    /// A [`Kpi`] or [`MEASURE_COST`].
    pub measure: u8,
    /// 1: more is better.
    pub more_is_better: u8,
    /// An [`ExperimentEnd`].
    pub end: u8,
    /// How often was looked for harm, and how often will be at most.
    pub looks: [u8; 2],
    /// What it is called.
    pub name: [u8; NAME_BYTES],
    /// By arm: from which risk the manager of swaps acts, percent, or [`RISK_NEVER`]; 0: as it always does.
    pub risk_percent: [u8; 2],
    /// Zero.
    pub reserved: [u8; 14],
}

impl Experiment {
    fn is_running(&self) -> bool {
        self.number > 0 && self.end == ExperimentEnd::Running as u8
    }

    /// [`POLICY`] or [`SWAPS`].
    fn sort(&self) -> u8 {
        if self.risk_percent == [0; 2] { POLICY } else { SWAPS }
    }
}

/// It compares standing policies.
const POLICY: u8 = 0;
/// It compares terms of the manager of swaps.
const SWAPS: u8 = 1;
const SORTS: [u8; 2] = [POLICY, SWAPS];

/// It takes part.
const ON: u8 = 0;
/// Its owner changed its policy.
const LEFT: u8 = 1;
/// The experiment is over; its policy is still to be taken back.
const COUNTED: u8 = 2;

/// An instance's resource that takes part, or a free place.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Exposure {
    /// The policy that it had.
    pub before: Terms,
    /// Since when, milliseconds since 1970 UTC.
    pub since_ms: u64,
    /// Sum of what its KPI was.
    pub sum: u64,
    /// How often that was told; of the cost, how often its use was.
    pub count: u64,
    /// Milli-credits used meanwhile.
    pub used_milli: u64,
    /// Micro-units that its policy had spent before.
    pub spent_micro: u64,
    /// Number of the experiment; 0: a free place.
    pub experiment: u32,
    /// Instance.
    pub instance: u16,
    /// A [`Resource`].
    pub resource: u8,
    /// 0: A; 1: B.
    pub arm: u8,
    /// [`ON`], [`LEFT`] or [`COUNTED`].
    pub state: u8,
    /// [`POLICY`] or [`SWAPS`].
    pub sort: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// All experiments and who takes part.
#[derive(Debug)]
pub struct Experiments {
    /// By place.
    pub rows: Box<[Experiment]>,
    /// By place.
    pub exposures: Box<[Exposure]>,
    /// Place plus one of an instance's resource, by sort; 0: it takes no part.
    of: [Box<[u16]>; 2],
    /// Experiments there ever were.
    pub started: u32,
    /// The instance that is looked at next.
    pub turn: u32,
    /// 1: the last tick did something.
    pub acted: u32,
    /// True if there is anything to do at all.
    busy: bool,
}

impl Experiments {
    /// None, of so many instances.
    pub fn new(instances: u32) -> Experiments {
        Experiments {
            rows: vec![Experiment::default(); EXPERIMENTS_MAX].into_boxed_slice(),
            exposures: vec![Exposure::default(); EXPOSED_MAX].into_boxed_slice(),
            of: SORTS.map(|_| vec![0; instances as usize * RESOURCES].into_boxed_slice()),
            started: 0,
            turn: 0,
            acted: 0,
            busy: false,
        }
    }

    fn find(&self, number: u32) -> Option<usize> {
        self.rows.iter().position(|row| row.number == number && number > 0)
    }

    fn exposure_of(&self, sort: u8, instance: u16, resource: Resource) -> Option<usize> {
        usize::from(self.of[usize::from(sort)][pocket(instance, resource)]).checked_sub(1)
    }

    /// The experiment that an exposure is of.
    fn row_of(&self, at: usize) -> usize {
        let found = self.find(self.exposures[at].experiment);
        found.unwrap_or_else(|| unreachable!("an exposure is of an experiment that is kept"))
    }

    fn exposed(&self, number: u32) -> impl Iterator<Item = (usize, &Exposure)> {
        self.exposures.iter().enumerate().filter(move |(_, row)| row.experiment == number)
    }

    /// A place for another experiment: a free one, or that of the oldest which has nothing left to do.
    fn place(&self) -> Option<usize> {
        let idle = |row: &Experiment| {
            !row.is_running() && (row.number == 0 || self.exposed(row.number).next().is_none())
        };
        let idle = self.rows.iter().enumerate().filter(|(_, row)| idle(row));
        idle.min_by_key(|(_, row)| row.number).map(|(at, _)| at)
    }

    fn find_busy(&mut self) {
        self.busy = self.rows.iter().any(Experiment::is_running)
            || self.exposures.iter().any(|row| row.experiment > 0);
    }

    /// Restores what follows from the rows. False if they contradict one another.
    pub(super) fn restore(&mut self, is_live: impl Fn(u16) -> bool) -> bool {
        for at in 0..EXPOSED_MAX {
            let row = self.exposures[at];
            if row.experiment == 0 {
                continue;
            }
            let Some(of) = self.find(row.experiment) else { return false };
            let Some(resource) = Resource::from_u8(row.resource) else { return false };
            let known = row.sort == self.rows[of].sort();
            if !known || row.arm > 1 || row.state > COUNTED || !is_live(row.instance) {
                return false;
            }
            let of = &mut self.of[usize::from(row.sort)][pocket(row.instance, resource)];
            if *of != 0 {
                return false;
            }
            *of = at as u16 + 1;
        }
        let sound = |row: &Experiment| {
            row.number <= self.started
                && ExperimentEnd::from_u8(row.end).is_some()
                && Resource::from_u8(row.resource).is_some()
                && row.looks[0] <= row.looks[1]
                && row.risk_percent.into_iter().all(is_risk)
                && (row.sort() == POLICY || row.arms.iter().all(is_of_swaps))
                && row.gone.iter().all(|sums| sums.sample < 1 << 32 && sums.total < 1 << 74)
        };
        let sound = self.rows.iter().all(sound);
        self.find_busy();
        sound && self.acted <= 1 && (self.turn as usize) < (self.of[0].len() / RESOURCES).max(1)
    }
}

/// True if an arm has no policy, and covers a quantile.
fn is_of_swaps(arm: &Terms) -> bool {
    arm.budget_micro == 0 && arm.cover <= Cover::P975 as u8
}

fn is_risk(percent: u8) -> bool {
    percent <= 100 || percent == RISK_NEVER
}

/// Checks what nothing else is needed for.
pub(super) fn check(m: &StartExperiment) -> Result<(), Reject> {
    let of_swaps = m.risk_percent != [0; 2];
    // The cost is what policies spend.
    let measured = (m.measure == MEASURE_COST && !of_swaps) || Kpi::from_u8(m.measure).is_some();
    let lasts = (LASTS_MS_MIN..=EXPERIMENT_MS_MAX).contains(&m.lasts_ms.get());
    let one_sort = of_swaps == (m.budget_micro == [U64::ZERO; 2]);
    if !measured || !lasts || m.more_is_better > 1 || !one_sort {
        return Err(Reject::BadField);
    }
    for arm in 0..2 {
        let terms = Terms::of_arm(m, arm);
        let (risk, cover) = (m.risk_percent[arm], Cover::from_u8(terms.cover));
        let rest = Terms { cover: if risk > 0 { 0 } else { terms.cover }, ..terms };
        // What is measured is no forecast.
        let foreseen = !of_swaps || cover != Some(Cover::Measured);
        if !is_risk(risk) || !foreseen || (terms.budget_micro == 0 && rest != Terms::default()) {
            return Err(Reject::BadField);
        }
        let known = LeaseClass::from_u8(terms.class).is_some();
        if !known || cover.is_none() {
            return Err(Reject::BadField);
        }
        policy::check(&terms.message(0, 0, m.resource))?;
    }
    Ok(())
}

impl Machine {
    /// All experiments.
    pub fn experiments(&self) -> &Experiments {
        &self.experiments
    }

    // ---- requests ------------------------------------------------------------------------

    pub(super) fn start_experiment(
        &mut self,
        env: &Envelope,
        m: &StartExperiment,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        self.operator(env)?;
        let (account, tier) = (m.account.get(), m.tier.get());
        if account != ANY && account >= self.accounts_used {
            return Err(Reject::UnknownAccount);
        }
        if tier != u16::MAX && usize::from(tier) >= self.book_of.len() {
            return Err(Reject::UnknownTier);
        }
        let terms = [0, 1].map(|arm| Terms::of_arm(m, arm));
        let most = terms.iter().map(|arm| arm.rent.max(arm.price)).max().unwrap_or(0);
        let mut books = 0;
        for (at, of) in self.book_of.iter().enumerate() {
            let Some(book) = self.books.get(usize::from(of[resource as usize])) else { continue };
            if tier == u16::MAX || usize::from(tier) == at {
                books += 1;
                if most > u32::from(book.price_max) {
                    return Err(Reject::BadPrice);
                }
            }
        }
        if books == 0 {
            return Err(Reject::UnknownBook);
        }
        if m.risk_percent != [0; 2] && self.genesis.swap_every_ms.get() == 0 {
            return Err(Reject::NoSwapManager);
        }
        let at = self.experiments.place().ok_or(Reject::ExperimentsFull)?;
        self.use_client_id(env, client_id);
        self.experiments.started += 1;
        let (number, now_ms) = (self.experiments.started, self.now_ms());
        let looks = (m.lasts_ms.get() / FIRST_LOOK_MS).ilog2() as u8 + 1;
        self.experiments.rows[at] = Experiment {
            arms: terms,
            salt: m.salt.get(),
            starts_ms: now_ms,
            ends_ms: now_ms + m.lasts_ms.get(),
            harm_milli: m.harm_milli.get(),
            number,
            account,
            tier,
            resource: m.resource,
            measure: m.measure,
            more_is_better: m.more_is_better,
            looks: [0, looks],
            name: m.name,
            risk_percent: m.risk_percent,
            ..Experiment::default()
        };
        self.experiments.busy = true;
        self.report_done(env, StartExperiment::KIND, client_id, number.into(), out);
        self.tell_experiment(at, None, out);
        Ok(())
    }

    pub(super) fn stop_experiment(
        &mut self,
        env: &Envelope,
        m: &StopExperiment,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        self.operator(env)?;
        let at = self.experiments.find(m.experiment.get());
        let at = at.filter(|&at| self.experiments.rows[at].is_running());
        let at = at.ok_or(Reject::UnknownExperiment)?;
        self.use_client_id(env, client_id);
        self.end_experiment(at, ExperimentEnd::Stopped, out);
        let left = self.experiments.exposed(m.experiment.get());
        let left = left.filter(|(_, row)| row.sort == POLICY).count() as u64;
        self.report_done(env, StopExperiment::KIND, client_id, left, out);
        Ok(())
    }

    // ---- what is measured ----------------------------------------------------------------

    /// A KPI of an instance was told.
    pub(super) fn experiment_told(&mut self, instance: u16, kpi: u8, value: u32) {
        if !self.experiments.busy {
            return;
        }
        for (resource, sort) in sorts() {
            let Some(at) = self.experiments.exposure_of(sort, instance, resource) else { continue };
            let of = self.experiments.row_of(at);
            let row = &mut self.experiments.exposures[at];
            if row.state == ON && self.experiments.rows[of].measure == kpi {
                row.sum = row.sum.saturating_add(value.into());
                row.count += 1;
            }
        }
    }

    /// Use of an instance that has a policy was reported.
    pub(super) fn experiment_used(&mut self, instance: u16, resource: Resource, used_milli: u64) {
        let Some(at) = self.experiments.exposure_of(POLICY, instance, resource) else { return };
        let of = self.experiments.row_of(at);
        let row = &mut self.experiments.exposures[at];
        if row.state == ON && self.experiments.rows[of].measure == MEASURE_COST {
            row.used_milli = row.used_milli.saturating_add(used_milli);
            row.count += 1;
        }
    }

    /// The mean of what an instance was told, thousandths, if it was.
    fn mean_of(&self, row: &Exposure, measure: u8) -> Option<u64> {
        if row.state != ON {
            return None;
        }
        let resource = Resource::ALL[usize::from(row.resource)];
        let (sum, count) = if measure == MEASURE_COST {
            let policy = &self.policies.rows[self.policies.of(row.instance, resource)?];
            // Of what it holds some may have come back.
            let spent = policy.spent_micro.saturating_sub(row.spent_micro);
            (u128::from(spent) * 1000, row.used_milli)
        } else {
            (row.sum.into(), row.count)
        };
        let mean = (sum * 1000).checked_div(count.into())?;
        Some(mean.min(MEAN_MAX.into()) as u64)
    }

    /// What an experiment's arms were told.
    pub fn experiment_sums(&self, experiment: &Experiment) -> [Sums; 2] {
        let mut sums = experiment.gone;
        for (_, row) in self.experiments.exposed(experiment.number) {
            if let Some(mean) = self.mean_of(row, experiment.measure) {
                sums[usize::from(row.arm)].add(mean, row.count);
            }
        }
        sums
    }

    /// What an instance was told is kept beside those that take part, which it does no more.
    fn count_exposure(&mut self, at: usize, state: u8) {
        let (of, row) = (self.experiments.row_of(at), self.experiments.exposures[at]);
        if let Some(mean) = self.mean_of(&row, self.experiments.rows[of].measure) {
            self.experiments.rows[of].gone[usize::from(row.arm)].add(mean, row.count);
        }
        self.experiments.exposures[at].state = state;
    }

    // ---- who takes part ------------------------------------------------------------------

    /// Whoever's it is sets an instance's policy: it has left.
    pub(super) fn leave_experiment(&mut self, env: &Envelope, m: &SetPolicy, out: &mut Outbox) {
        let resource = Resource::ALL[usize::from(m.resource) % RESOURCES];
        if !self.experiments.busy || env.session == self.broker() {
            return;
        }
        let instance = m.instance.get() as u16;
        let Some(at) = self.experiments.exposure_of(POLICY, instance, resource) else { return };
        let (of, row) = (self.experiments.row_of(at), self.experiments.exposures[at]);
        let has_policy = self.experiments.rows[of].arms[usize::from(row.arm)].budget_micro > 0;
        // Without a policy of the experiment's it does as it would.
        if has_policy && row.state != LEFT {
            self.count_exposure(at, LEFT);
            self.tell_exposure(at, out);
        }
    }

    /// An instance goes. Its policies are still there.
    pub(super) fn forget_exposures(&mut self, instance: u16) {
        for (resource, sort) in sorts() {
            if let Some(at) = self.experiments.exposure_of(sort, instance, resource) {
                self.count_exposure(at, COUNTED);
                self.free_exposure(at);
            }
        }
    }

    fn free_exposure(&mut self, at: usize) {
        let row = std::mem::take(&mut self.experiments.exposures[at]);
        let resource = Resource::ALL[usize::from(row.resource)];
        self.experiments.of[usize::from(row.sort)][pocket(row.instance, resource)] = 0;
        self.experiments.find_busy();
    }

    /// Time passes for experiments. True if one did something to an instance, so that there is no room
    /// for what policies do in this tick; it is their turn in the next.
    pub(super) fn tick_experiments(
        &mut self,
        env: &Envelope,
        now_ms: u64,
        out: &mut Outbox,
    ) -> bool {
        if !self.experiments.busy {
            return false;
        }
        for at in 0..EXPERIMENTS_MAX {
            let row = &mut self.experiments.rows[at];
            if !row.is_running() {
                continue;
            }
            if now_ms >= row.ends_ms {
                self.end_experiment(at, ExperimentEnd::Over, out);
                continue;
            }
            let mut due = false;
            while row.looks[0] < row.looks[1]
                && now_ms >= row.starts_ms + (FIRST_LOOK_MS << row.looks[0])
            {
                row.looks[0] += 1;
                due = true;
            }
            if due {
                self.look_for_harm(at, out);
            }
        }
        if std::mem::take(&mut self.experiments.acted) == 1 {
            return false;
        }
        let acts = self.withdraw_next(env, out) || self.expose_next(env, out);
        self.experiments.acted = acts.into();
        acts
    }

    fn look_for_harm(&mut self, at: usize, out: &mut Outbox) {
        let row = self.experiments.rows[at];
        let effect = Effect::of(&self.experiment_sums(&row));
        let (looks, more_is_better) = (row.looks[1].into(), row.more_is_better == 1);
        if effect.is_some_and(|effect| effect.harms(row.harm_milli, more_is_better, looks)) {
            self.end_experiment(at, ExperimentEnd::Harm, out);
        }
    }

    /// Nothing counts any more; policies are taken back from the next tick on.
    fn end_experiment(&mut self, at: usize, end: ExperimentEnd, out: &mut Outbox) {
        for place in 0..EXPOSED_MAX {
            let row = &self.experiments.exposures[place];
            if row.experiment == self.experiments.rows[at].number && row.state == ON {
                self.count_exposure(place, COUNTED);
            }
        }
        let now_ms = self.now_ms();
        let row = &mut self.experiments.rows[at];
        (row.end, row.ends_ms) = (end as u8, row.ends_ms.min(now_ms));
        let effect = Effect::of(&row.gone);
        let number = row.number;
        self.fold(u64::from(number) << 8 ^ end as u64);
        self.tell_experiment(at, effect, out);
    }

    /// Lets one instance of an experiment that is over go, its own policy given back. False if none is left.
    fn withdraw_next(&mut self, env: &Envelope, out: &mut Outbox) -> bool {
        let over = |row: &Exposure| {
            let of = self.experiments.find(row.experiment);
            of.is_some_and(|of| !self.experiments.rows[of].is_running())
        };
        let Some(at) = self.experiments.exposures.iter().position(over) else { return false };
        let (of, row) = (self.experiments.row_of(at), self.experiments.exposures[at]);
        let has_policy = self.experiments.rows[of].arms[usize::from(row.arm)].budget_micro > 0;
        if has_policy && row.state == COUNTED {
            // Its terms were good before; it goes where they are not any more.
            let given = self.give_policy(env, (row.instance, row.resource), &row.before, out);
            debug_assert!(given.is_ok(), "a policy that was there can be set again");
        }
        self.tell_exposure(at, out);
        self.free_exposure(at);
        true
    }

    /// Exposes the next instance that may take part in an experiment. False if it found none.
    fn expose_next(&mut self, env: &Envelope, out: &mut Outbox) -> bool {
        let all = self.instances.len();
        let Some(place) = self.experiments.exposures.iter().position(|row| row.experiment == 0)
        else {
            return false;
        };
        for _ in 0..all.min(SCANNED) {
            let instance = self.experiments.turn;
            self.experiments.turn = (instance + 1) % all as u32;
            for at in 0..EXPERIMENTS_MAX {
                if self.may_take_part(at, instance)
                    && self.expose(env, at, instance as u16, place, out)
                {
                    return true;
                }
            }
        }
        false
    }

    fn may_take_part(&self, at: usize, instance: u32) -> bool {
        let row = &self.experiments.rows[at];
        let Some(of) = self.present(instance).filter(|_| row.is_running()) else { return false };
        let resource = Resource::ALL[usize::from(row.resource)];
        (row.account == ANY || row.account == u32::from(of.account))
            && (row.tier == u16::MAX || row.tier == of.tier)
            && self.book_of[usize::from(of.tier)][resource as usize] != u16::MAX
            && self.experiments.exposure_of(row.sort(), instance as u16, resource).is_none()
            && (row.sort() == POLICY || self.may_be_lent(instance as u16, resource))
    }

    fn expose(
        &mut self,
        env: &Envelope,
        at: usize,
        instance: u16,
        place: usize,
        out: &mut Outbox,
    ) -> bool {
        let row = self.experiments.rows[at];
        let resource = Resource::ALL[usize::from(row.resource)];
        let arm = arm_of(row.salt, instance);
        let known = self.policies.of(instance, resource).map(|at| self.policies.rows[at]);
        let terms = row.arms[arm];
        // With no room for another policy it takes no part.
        if terms.budget_micro > 0
            && self.give_policy(env, (instance, row.resource), &terms, out).is_err()
        {
            return false;
        }
        let policy = self.policies.of(instance, resource).map(|at| self.policies.rows[at]);
        self.experiments.exposures[place] = Exposure {
            before: known.as_ref().map_or(Terms::default(), Terms::of),
            since_ms: self.now_ms(),
            spent_micro: policy.map_or(0, |policy| policy.spent_micro),
            experiment: row.number,
            instance,
            resource: row.resource,
            arm: arm as u8,
            sort: row.sort(),
            ..Exposure::default()
        };
        self.experiments.of[usize::from(row.sort())][pocket(instance, resource)] = place as u16 + 1;
        self.tell_exposure(place, out);
        true
    }

    /// From which risk the manager of swaps acts for an instance, thousandths, and which quantile of its
    /// need it asks for: in its arm if it takes part in an experiment, else as always.
    pub(super) fn swap_terms(&self, instance: u16, resource: Resource) -> (u16, usize) {
        let at = self.experiments.exposure_of(SWAPS, instance, resource);
        let row = at.map(|at| (at, &self.experiments.exposures[at]));
        if let Some((at, row)) = row.filter(|(_, row)| row.state == ON) {
            let (of, arm) =
                (&self.experiments.rows[self.experiments.row_of(at)], usize::from(row.arm));
            if of.risk_percent[arm] > 0 {
                return (u16::from(of.risk_percent[arm]) * 10, of.arms[arm].cover.into());
            }
        }
        (RISK_PERMILLE, Cover::P90 as usize)
    }

    /// Sets an instance's policy, or removes it, as anybody's request would.
    fn give_policy(
        &mut self,
        env: &Envelope,
        (instance, resource): (u16, u8),
        terms: &Terms,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let env = &Envelope { session: self.broker(), request: 0, connection: ANY, ..*env };
        let client_id = self.sessions[env.session as usize].last_client_id + 1;
        let m = terms.message(client_id, instance, resource);
        let resource = Resource::from_u8(resource).ok_or(Reject::BadField)?;
        let class = LeaseClass::from_u8(terms.class).ok_or(Reject::BadField)?;
        let cover = Cover::from_u8(terms.cover).ok_or(Reject::BadField)?;
        self.set_policy(env, &m, (resource, class, cover), out)?;
        if terms.session > 0
            && let Some(at) = self.policies.of(instance, resource)
        {
            let row = &mut self.policies.rows[at];
            (row.session, row.slot) = (terms.session, terms.slot);
        }
        Ok(())
    }

    fn tell_exposure(&mut self, at: usize, out: &mut Outbox) {
        let (of, row) = (self.experiments.row_of(at), self.experiments.exposures[at]);
        self.fold(u64::from(row.instance) << 16 ^ u64::from(row.experiment) << 32 ^ at as u64);
        let told = Exposed {
            experiment: row.experiment.into(),
            instance: u32::from(row.instance).into(),
            resource: row.resource,
            arm: row.arm,
            state: row.state,
            reserved: 0,
            name: self.experiments.rows[of].name,
        };
        out.push(ANY, &told);
    }

    fn tell_experiment(&mut self, at: usize, effect: Option<Effect>, out: &mut Outbox) {
        let row = &self.experiments.rows[at];
        let told = ExperimentMoved {
            effect_milli: (effect.map_or(0, |effect| effect.milli) as u64).into(),
            half_milli: effect.map_or(u64::MAX, |effect| effect.half_milli() as u64).into(),
            experiment: row.number.into(),
            end: row.end,
            reserved: [0; 3],
            name: row.name,
        };
        out.push(ANY, &told);
    }

    // ---- questions -----------------------------------------------------------------------

    fn experiment_row(&self, row: &Experiment) -> ExperimentRow {
        let sums = self.experiment_sums(row);
        let effect = Effect::of(&sums);
        let (milli, half) = effect.map_or((0, 0), |effect| (effect.milli, effect.half_milli()));
        let exposed = [0, 1].map(|arm| {
            let of = self.experiments.exposed(row.number);
            (of.filter(|(_, row)| row.arm == arm && row.state == ON).count() as u32).into()
        });
        ExperimentRow {
            started_at_ms: row.starts_ms.into(),
            ends_at_ms: row.ends_ms.into(),
            salt: row.salt.into(),
            harm_milli: row.harm_milli.into(),
            values: sums.map(|sums| sums.values.into()),
            mean_milli: sums.map(|sums| sums.mean().into()),
            effect_milli: (milli as u64).into(),
            low_milli: ((milli - half) as u64).into(),
            high_milli: ((milli + half) as u64).into(),
            sample: sums.map(|sums| (sums.sample as u32).into()),
            exposed,
            budget_micro: row.arms.map(|arm| arm.budget_micro.into()),
            risk_percent: row.risk_percent,
            cover: row.arms.map(|arm| arm.cover),
            experiment: row.number.into(),
            account: row.account.into(),
            tier: row.tier.into(),
            resource: row.resource,
            measure: row.measure,
            more_is_better: row.more_is_better,
            end: row.end,
            has_interval: effect.is_some().into(),
            looks: row.looks[0],
            name: row.name,
        }
    }

    /// Experiments by number, to who sees everything.
    pub(super) fn experiment_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        if self.sight(env) == Sight::All {
            let mut from = from.max(1);
            while let Some(row) = self
                .experiments
                .rows
                .iter()
                .filter(|row| row.number >= from)
                .min_by_key(|row| row.number)
            {
                out.push(env.connection, &self.experiment_row(row));
                from = row.number + 1;
            }
        }
        end(env, LAST, out);
    }

    /// Who takes part in an experiment, to who sees everything.
    pub(super) fn exposure_rows(&self, env: &Envelope, number: u32, from: u32, out: &mut Outbox) {
        let of = self.experiments.find(number).filter(|_| self.sight(env) == Sight::All);
        let Some(of) = of else { return end(env, LAST, out) };
        let measure = self.experiments.rows[of].measure;
        let rows = self.experiments.exposed(number).skip_while(|(at, _)| *at < from as usize);
        let mut shown = rows.take(PAGE + 1);
        for (_, row) in shown.by_ref().take(PAGE) {
            let row = ExposureRow {
                since_ms: row.since_ms.into(),
                values: row.count.into(),
                mean_milli: self.mean_of(row, measure).unwrap_or(u64::MAX).into(),
                instance: u32::from(row.instance).into(),
                arm: row.arm,
                left: u8::from(row.state == LEFT),
                reserved: [0; 2],
            };
            out.push(env.connection, &row);
        }
        end(env, shown.next().map_or(LAST, |(at, _)| at as u64), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of printed tables of Student's distribution, 97.5%, and one-sided at 5% of eight looks.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, table) in [
            (3, 3.182_446),
            (4, 2.776_445),
            (5, 2.570_582),
            (8, 2.306_004),
            (10, 2.228_139),
            (20, 2.085_963),
            (30, 2.042_272),
            (120, 1.979_930),
        ] {
            let ours = student_milli(NORMAL_975, freedom) as f64 / 1e3;
            assert!((ours / table - 1.0).abs() < 2e-3, "{freedom}: {ours} beside {table}");
        }
        assert_eq!(student_milli(NORMAL_975, 1 << 40), 1960);
    }

    /// By the area under the curve.
    #[test]
    fn levels_of_looks_are_those_of_the_normal_distribution() {
        let beyond = |micro: u64| {
            let (from, step) = (micro as f64 / 1e6, 1e-4);
            let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let parts = (0..60_000).map(|at| density(from + (f64::from(at) + 0.5) * step) * step);
            parts.sum::<f64>()
        };
        assert!((beyond(NORMAL_975) / 0.025 - 1.0).abs() < 1e-5);
        for (at, micro) in NORMAL_LOOKS.into_iter().enumerate() {
            let level = 0.05 / (LOOKS_MIN + at) as f64;
            assert!((beyond(micro) / level - 1.0).abs() < 1e-5, "{} looks", LOOKS_MIN + at);
        }
    }

    #[test]
    fn arms_are_what_splitmix_says_and_half_each() {
        // Its first outputs for a state of 0: 0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f.
        assert_eq!([0, 1, 2].map(|instance| arm_of(0, instance)), [1, 0, 1]);
        for salt in [0, 7, u64::MAX] {
            let of_b: usize = (0..10_000).map(|instance| arm_of(salt, instance)).sum();
            assert!((4_800..5_200).contains(&of_b), "{of_b} of 10,000");
        }
        let same = (0..10_000).filter(|at| arm_of(1, *at) == arm_of(2, *at)).count();
        assert!((4_800..5_200).contains(&same), "salts are independent");
    }

    fn sums(means: [&[u64]; 2]) -> [Sums; 2] {
        means.map(|means| {
            let mut sums = Sums::default();
            means.iter().for_each(|mean| sums.add(mean * 1000, 1));
            sums
        })
    }

    /// Beside Welch's own arithmetic in floats.
    #[test]
    fn the_interval_is_welchs() {
        let (a, b) = ([10, 12, 14, 18, 21], [20, 26, 31, 35, 60, 9]);
        let effect = Effect::of(&sums([&a, &b])).expect("enough");
        let of = |means: &[u64]| {
            let n = means.len() as f64;
            let mean = means.iter().sum::<u64>() as f64 / n;
            let squares: f64 = means.iter().map(|at| (*at as f64 - mean).powi(2)).sum();
            (mean, squares / (n - 1.0) / n, n)
        };
        let ((mean_a, var_a, n_a), (mean_b, var_b, n_b)) = (of(&a), of(&b));
        let freedom =
            (var_a + var_b).powi(2) / (var_a.powi(2) / (n_a - 1.0) + var_b.powi(2) / (n_b - 1.0));
        assert_eq!(effect.freedom, freedom as u64);
        assert!((effect.milli as f64 / 1e3 - (mean_b - mean_a)).abs() < 2e-3);
        // 97.5% at six degrees of freedom, as tables have it.
        assert_eq!(effect.freedom, 5);
        let half = 2.570_582 * (var_a + var_b).sqrt();
        assert!((effect.half_milli() as f64 / 1e3 / half - 1.0).abs() < 2e-3);
        assert_eq!(Effect::of(&sums([&a, &b[..3]])), None, "too few");
    }

    #[test]
    fn the_greatest_means_there_are_fit() {
        let mut all = [Sums::default(); 2];
        for at in 0..1_u64 << 20 {
            all[0].add(MEAN_MAX * (at & 1), u64::from(u32::MAX));
            all[1].add(MEAN_MAX, 1);
        }
        let effect = Effect::of(&all).expect("enough");
        assert_eq!(effect.milli, (MEAN_MAX / 2) as i64);
        assert!(effect.half_milli() > 0 && effect.harms(0, false, 23));
        assert!(!effect.harms(0, true, 23) && !effect.harms(MEAN_MAX, false, 23));
    }

    /// Experiments in which B does what A does: each look has another chance to be wrong, and all of them
    /// together are seldom.
    #[test]
    fn what_does_no_harm_is_seldom_ended_for_it_and_harm_is() {
        let mut state = 9_u64;
        let mut noise = || {
            let mut sum = 0;
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                sum += state >> 54;
            }
            sum
        };
        let mut ended = |worse: u64| {
            let mut count = 0;
            for _ in 0..400 {
                // Instances differ, and reports of one differ too.
                let levels: Vec<u64> = (0..16).map(|_| noise()).collect();
                let mut told = [(0, 0); 16];
                let harmed = (0..10).any(|look| {
                    for _ in 0..(1 << look) {
                        for (at, told) in told.iter_mut().enumerate() {
                            let more = if at % 2 == 1 { worse } else { 0 };
                            *told = (told.0 + levels[at] + noise() + more, told.1 + 1);
                        }
                    }
                    let mut all = [Sums::default(); 2];
                    for (at, (sum, count)) in told.iter().enumerate() {
                        all[at % 2].add(sum * 1000 / count, *count);
                    }
                    let effect = Effect::of(&all).expect("enough");
                    effect.harms(0, false, 10)
                });
                count += usize::from(harmed);
            }
            count
        };
        let (innocent, guilty) = (ended(0), ended(2500));
        assert!(innocent <= 20, "{innocent} of 400 without harm");
        assert!(guilty >= 380, "{guilty} of 400 that do harm");
    }
}
