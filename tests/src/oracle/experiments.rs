//! Experiments, said as simply as possible: lists of who takes part, and means worked out from them.
//!
//! Of Student's distribution and of the levels of looks the daemon's own numbers are used; its tests hold
//! those to printed tables.

use super::{Caller, Market};
use vendue_engine::machine::experiment::{NORMAL_975, NORMAL_LOOKS, student_milli};
use vendue_wire::code::{Reject, Role};
use vendue_wire::message::{ANY, Body, SetPolicy, StartExperiment, StopExperiment};

/// Experiments, and instances in all of them.
const PLACES: usize = 8;
const EXPOSED: usize = 1024;

/// An experiment.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the message's fields; what is not plain is explained")]
pub struct Experiment {
    pub place: usize,
    pub number: u32,
    terms: StartExperiment,
    starts_ms: i128,
    pub ends_ms: i128,
    pub end: u8,
    pub looks: u32,
    /// Arm, mean and values of those that take part no more.
    gone: Vec<(usize, i128, i128)>,
}

/// An instance's resource that takes part.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "what the names say")]
pub struct Exposure {
    place: usize,
    pub experiment: u32,
    pub instance: u32,
    resource: usize,
    pub arm: usize,
    /// The policy it had, and whose it was.
    before: Option<(SetPolicy, (u32, u64))>,
    told: Vec<u32>,
    used: i128,
    uses: i128,
    spent: i128,
    /// 0: on; 1: left; 2: counted.
    pub state: u8,
    of_swaps: bool,
}

/// What is said of an experiment: samples, values and means of its arms, the effect and half its interval.
pub type Effect = ([i128; 2], [i128; 2], [i128; 2], Option<(i128, i128)>);

impl Experiment {
    /// True if terms of the manager of swaps are compared.
    pub fn is_of_swaps(&self) -> bool {
        self.terms.risk_percent.iter().any(|percent| *percent > 0)
    }

    fn arm(&self, arm: usize) -> Option<SetPolicy> {
        let m = &self.terms;
        (m.budget_micro[arm].get() > 0).then(|| SetPolicy {
            client_id: 0.into(),
            budget_micro: m.budget_micro[arm],
            burst_micro: m.burst_micro[arm],
            instance: 0.into(),
            rent_ticks: m.rent_ticks[arm],
            price_ticks: m.price_ticks[arm],
            lead_ms: m.lead_ms[arm],
            hold_ms: m.hold_ms[arm],
            step_vru: m.step_vru[arm],
            resource: m.resource,
            class: m.class[arm],
            cover: m.cover[arm],
            reserved: [0; 5],
        })
    }

    /// The instance's arm: SplitMix64, stepped once for it and each before it.
    fn arm_of(&self, instance: u32) -> usize {
        let step = |state: u64, _| state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (0..=instance).fold(self.terms.salt.get(), step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % 2) as usize
    }
}

fn ceil(a: i128, b: i128) -> i128 {
    (a + b - 1) / b
}

/// Variance of the mean of some numbers, rounded up.
fn variance(means: &[i128]) -> i128 {
    let n = means.len() as i128;
    let total: i128 = means.iter().sum();
    // Of each from the mean, n times.
    let squares: i128 = means.iter().map(|mean| mean * mean).sum();
    ceil(n * squares - total * total, n * n * (n - 1))
}

/// Effect, its variance and its degrees of freedom.
fn compare(arms: &[Vec<i128>; 2]) -> Option<(i128, i128, u64)> {
    if arms.iter().any(|arm| arm.len() < 4) {
        return None;
    }
    let mean = |arm: &Vec<i128>| arm.iter().sum::<i128>() / arm.len() as i128;
    let (a, b) = (variance(&arms[0]), variance(&arms[1]));
    let mut cut = (a, b);
    while cut.0.max(cut.1) >= 1 << 60 {
        cut = (cut.0 / 2, cut.1 / 2);
    }
    let of = [arms[0].len() as i128 - 1, arms[1].len() as i128 - 1];
    let parts = ceil(cut.0 * cut.0, of[0]) + ceil(cut.1 * cut.1, of[1]);
    let sum = cut.0 + cut.1;
    let freedom = if parts == 0 { of[0] + of[1] } else { sum * sum / parts };
    Some((mean(&arms[1]) - mean(&arms[0]), a + b, freedom.max(3) as u64))
}

impl Market {
    fn experiment(&self, number: u32) -> usize {
        self.experiments.iter().position(|row| row.number == number).expect("it is kept")
    }

    pub(super) fn start_experiment(
        &mut self,
        who: &Caller,
        m: &StartExperiment,
    ) -> Result<(), Reject> {
        let client_id = m.client_id.get();
        self.fresh(who, client_id)?;
        if self.sessions[who.session as usize].role != Role::Operator {
            return Err(Reject::NotPermitted);
        }
        let (account, tier) = (m.account.get(), usize::from(m.tier.get()));
        let every_tier = m.tier.get() == u16::MAX;
        if account != ANY && account as usize >= self.accounts.len() {
            return Err(Reject::UnknownAccount);
        }
        if !every_tier && tier >= self.tiers.len() {
            return Err(Reject::UnknownTier);
        }
        let tiers = (0..self.tiers.len()).filter(|at| every_tier || *at == tier);
        let books: Vec<usize> =
            tiers.filter_map(|at| self.book_of(at as u16, m.resource.into())).collect();
        let prices = [m.rent_ticks, m.price_ticks].concat();
        let most = prices.iter().map(|price| i128::from(price.get())).max().expect("four");
        if books.iter().any(|book| most > self.books[*book].price_max) {
            return Err(Reject::BadPrice);
        }
        if books.is_empty() {
            return Err(Reject::UnknownBook);
        }
        if m.risk_percent != [0; 2] && self.rules.swap_every_ms == 0 {
            return Err(Reject::NoSwapManager);
        }
        if self.experiments.len() == PLACES {
            let idle = |row: &&Experiment| {
                row.end > 0 && self.exposures.iter().all(|of| of.experiment != row.number)
            };
            let oldest = self.experiments.iter().filter(idle).map(|row| row.number).min();
            let oldest = oldest.ok_or(Reject::ExperimentsFull)?;
            self.experiments.retain(|row| row.number != oldest);
        }
        self.use_id(who, client_id);
        self.trials += 1;
        let free = |place: &usize| self.experiments.iter().all(|row| row.place != *place);
        let place = (0..PLACES).find(free).expect("room was made");
        let now_ms = self.leases.now_ms;
        self.experiments.push(Experiment {
            place,
            number: self.trials,
            terms: *m,
            starts_ms: now_ms,
            ends_ms: now_ms + i128::from(m.lasts_ms.get()),
            end: 0,
            looks: 0,
            gone: Vec::new(),
        });
        self.experiments.sort_by_key(|row| row.place);
        self.done(who, StartExperiment::KIND, client_id, self.trials.into());
        Ok(())
    }

    pub(super) fn stop_experiment(
        &mut self,
        who: &Caller,
        m: &StopExperiment,
    ) -> Result<(), Reject> {
        let client_id = m.client_id.get();
        self.fresh(who, client_id)?;
        if self.sessions[who.session as usize].role != Role::Operator {
            return Err(Reject::NotPermitted);
        }
        let number = m.experiment.get();
        let running = |row: &Experiment| row.number == number && row.end == 0;
        let at = self.experiments.iter().position(running).ok_or(Reject::UnknownExperiment)?;
        self.use_id(who, client_id);
        self.end_experiment(at, 1);
        let mine = |row: &&Exposure| row.experiment == number && !row.of_swaps;
        let left = self.exposures.iter().filter(mine).count();
        self.done(who, StopExperiment::KIND, client_id, left as i128);
        Ok(())
    }

    fn end_experiment(&mut self, at: usize, end: u8) {
        let number = self.experiments[at].number;
        for of in 0..self.exposures.len() {
            if self.exposures[of].experiment == number && self.exposures[of].state == 0 {
                self.count_exposure(of, 2);
            }
        }
        let now_ms = self.leases.now_ms;
        let row = &mut self.experiments[at];
        (row.end, row.ends_ms) = (end, row.ends_ms.min(now_ms));
    }

    // ---- what is measured ----------------------------------------------------------------

    pub(super) fn experiment_told(&mut self, instance: u32, kpi: u8, value: u32) {
        for at in 0..self.exposures.len() {
            let row = &self.exposures[at];
            let measure = self.experiments[self.experiment(row.experiment)].terms.measure;
            if row.instance == instance && row.state == 0 && measure == kpi {
                self.exposures[at].told.push(value);
            }
        }
    }

    pub(super) fn experiment_used(&mut self, instance: u32, resource: usize, used: u64) {
        let of = |row: &Exposure| {
            (row.instance, row.resource, row.of_swaps) == (instance, resource, false)
        };
        let Some(at) = self.exposures.iter().position(of) else { return };
        let measure =
            self.experiments[self.experiment(self.exposures[at].experiment)].terms.measure;
        let row = &mut self.exposures[at];
        if row.state == 0 && measure == 255 {
            row.used = (row.used + i128::from(used)).min(u64::MAX.into());
            row.uses += 1;
        }
    }

    /// Mean and number of what an instance was told.
    pub fn told(&self, row: &Exposure) -> (Option<i128>, i128) {
        let measure = self.experiments[self.experiment(row.experiment)].terms.measure;
        let of = |policy: &&super::policies::Policy| {
            (policy.instance, policy.resource) == (row.instance, row.resource)
        };
        let (sum, count, values) = if measure == 255 {
            let policy = self.policies.iter().find(of);
            let spent = policy.map(|policy| (policy.spent() - row.spent).max(0) * 1000);
            (spent, row.used, row.uses)
        } else {
            let sum = row.told.iter().map(|value| i128::from(*value)).sum();
            (Some(sum), row.told.len() as i128, row.told.len() as i128)
        };
        let mean = sum.filter(|_| count > 0 && row.state == 0);
        (mean.map(|sum| (sum * 1000 / count).min(1 << 42)), values)
    }

    fn count_exposure(&mut self, at: usize, state: u8) {
        let row = self.exposures[at].clone();
        if let (Some(mean), values) = self.told(&row) {
            let of = self.experiment(row.experiment);
            self.experiments[of].gone.push((row.arm, mean, values));
        }
        self.exposures[at].state = state;
    }

    /// Means by arm, and values.
    fn samples(&self, row: &Experiment) -> ([Vec<i128>; 2], [i128; 2]) {
        let (mut means, mut all) = ([Vec::new(), Vec::new()], [0; 2]);
        let live = self.exposures.iter().filter(|of| of.experiment == row.number);
        let live = live.filter_map(|of| {
            let (mean, values) = self.told(of);
            Some((of.arm, mean?, values))
        });
        for (arm, mean, values) in row.gone.iter().copied().chain(live) {
            means[arm].push(mean);
            all[arm] += values;
        }
        (means, all)
    }

    /// What is said of an experiment.
    pub fn effect(&self, row: &Experiment) -> Effect {
        let (arms, values) = self.samples(row);
        let samples = arms.each_ref().map(|arm| arm.len() as i128);
        let mean = |arm: &Vec<i128>| arm.iter().sum::<i128>() / (arm.len() as i128).max(1);
        let effect = compare(&arms).map(|(effect, variance, freedom)| {
            let quantile = i128::from(student_milli(NORMAL_975, freedom));
            let square = ceil(variance * quantile * quantile, 1_000_000);
            (effect, square.isqrt() + 1)
        });
        (samples, values, arms.each_ref().map(mean), effect)
    }

    fn does_harm(&self, row: &Experiment) -> bool {
        let Some((effect, variance, freedom)) = compare(&self.samples(row).0) else { return false };
        let worse = if row.terms.more_is_better == 1 { -effect } else { effect };
        let beyond = worse - i128::from(row.terms.harm_milli.get());
        let looks = (row.terms.lasts_ms.get() / 1000).ilog2() as usize + 1;
        let quantile = i128::from(student_milli(NORMAL_LOOKS[looks - 6], freedom));
        beyond > 0 && beyond * beyond * 1_000_000 > quantile * quantile * variance
    }

    /// From which risk, thousandths, the manager of swaps acts for an instance, and up to which of a forecast's
    /// quantiles.
    pub(super) fn swap_terms(&self, instance: u32, resource: usize) -> (i128, usize) {
        let its = |row: &&Exposure| (row.instance, row.resource) == (instance, resource);
        let mut mine =
            self.exposures.iter().filter(|row| row.of_swaps && row.state == 0).filter(its);
        let arm =
            mine.next().map(|row| (&self.experiments[self.experiment(row.experiment)], row.arm));
        match arm.filter(|(of, arm)| of.end == 0 && of.terms.risk_percent[*arm] > 0) {
            Some((of, arm)) => {
                (10 * i128::from(of.terms.risk_percent[arm]), usize::from(of.terms.cover[arm]))
            }
            None => (100, 1),
        }
    }

    // ---- who takes part ------------------------------------------------------------------

    pub(super) fn leave_experiment(&mut self, who: &Caller, m: &SetPolicy) {
        let of = (m.instance.get(), usize::from(m.resource), false);
        let its = |row: &Exposure| (row.instance, row.resource, row.of_swaps) == of;
        let at = self.exposures.iter().position(its);
        let Some(at) = at.filter(|_| who.session as usize != self.rules.sessions_max) else {
            return;
        };
        let row = &self.exposures[at];
        let arm = self.experiments[self.experiment(row.experiment)].arm(row.arm);
        if arm.is_some() && row.state != 1 {
            self.count_exposure(at, 1);
        }
    }

    pub(super) fn forget_exposures(&mut self, instance: u32) {
        while let Some(at) = self.exposures.iter().position(|row| row.instance == instance) {
            self.count_exposure(at, 2);
            self.exposures.remove(at);
        }
    }

    /// True if policies have to wait for the next tick.
    pub(super) fn tick_experiments(&mut self, who: &Caller) -> bool {
        if self.exposures.is_empty() && self.experiments.iter().all(|row| row.end > 0) {
            return false;
        }
        let now_ms = self.leases.now_ms;
        for at in 0..self.experiments.len() {
            let row = &mut self.experiments[at];
            if row.end > 0 {
                continue;
            }
            if now_ms >= row.ends_ms {
                self.end_experiment(at, 3);
                continue;
            }
            let most = (row.terms.lasts_ms.get() / 1000).ilog2() + 1;
            let before = row.looks;
            while row.looks < most && now_ms >= row.starts_ms + (1000 << row.looks) {
                row.looks += 1;
            }
            if row.looks > before && self.does_harm(&self.experiments[at].clone()) {
                self.end_experiment(at, 2);
            }
        }
        if self.trial_acted {
            self.trial_acted = false;
            return false;
        }
        self.trial_acted = self.withdraw_next(who) || self.expose_next(who);
        self.trial_acted
    }

    fn withdraw_next(&mut self, who: &Caller) -> bool {
        let over = |row: &Exposure| self.experiments[self.experiment(row.experiment)].end > 0;
        let Some(at) = self.exposures.iter().position(over) else { return false };
        let row = self.exposures[at].clone();
        let arm = self.experiments[self.experiment(row.experiment)].arm(row.arm);
        if arm.is_some() && row.state == 2 {
            let nothing = SetPolicy { resource: row.resource as u8, ..SetPolicy::zeroed() };
            let (before, session) = row.before.unwrap_or((nothing, (0, 0)));
            let _ = self.give_policy(who, row.instance, before);
            let of = |policy: &&mut super::policies::Policy| {
                (policy.instance, policy.resource) == (row.instance, row.resource)
            };
            if let Some(policy) = self.policies.iter_mut().find(of)
                && session.1 > 0
            {
                policy.session = session;
            }
        }
        self.exposures.remove(at);
        true
    }

    fn expose_next(&mut self, who: &Caller) -> bool {
        if self.exposures.len() == EXPOSED {
            return false;
        }
        let all = self.rules.instances_max as u32;
        for _ in 0..all.min(256) {
            let instance = self.trial_turn;
            self.trial_turn = (instance + 1) % all;
            for at in 0..self.experiments.len() {
                if self.expose(who, at, instance) {
                    return true;
                }
            }
        }
        false
    }

    fn expose(&mut self, who: &Caller, at: usize, instance: u32) -> bool {
        let row = self.experiments[at].clone();
        let (m, resource) = (&row.terms, usize::from(row.terms.resource));
        let Some(of) = self.instances.get(&instance) else { return false };
        let wanted = row.end == 0
            && (m.account.get() == ANY || m.account.get() as usize == of.account)
            && (m.tier.get() == u16::MAX || m.tier.get() == of.tier)
            && self.book_of(of.tier, resource).is_some()
            && (!row.is_of_swaps() || self.may_be_lent(instance, resource));
        let of_swaps = row.is_of_swaps();
        let mine = |row: &Exposure| {
            (row.instance, row.resource, row.of_swaps) == (instance, resource, of_swaps)
        };
        if !wanted || self.exposures.iter().any(mine) {
            return false;
        }
        let arm = row.arm_of(instance);
        let policy = |market: &Market| {
            let of = |policy: &&super::policies::Policy| {
                (policy.instance, policy.resource) == (instance, resource)
            };
            market.policies.iter().find(of).cloned()
        };
        let before = policy(self).map(|policy| (policy.terms(), policy.session));
        if let Some(terms) = row.arm(arm)
            && self.give_policy(who, instance, terms).is_err()
        {
            return false;
        }
        let spent = policy(self).map_or(0, |policy| policy.spent());
        let free = |place: &usize| self.exposures.iter().all(|row| row.place != *place);
        let place = (0..EXPOSED).find(free).expect("a free place");
        let experiment = row.number;
        self.exposures.push(Exposure {
            place,
            experiment,
            instance,
            resource,
            arm,
            before,
            told: Vec::new(),
            used: 0,
            uses: 0,
            spent,
            state: 0,
            of_swaps,
        });
        self.exposures.sort_by_key(|row| row.place);
        true
    }

    fn give_policy(&mut self, who: &Caller, instance: u32, terms: SetPolicy) -> Result<(), Reject> {
        let who = &Caller { session: self.rules.sessions_max as u32, request: 0, ..*who };
        let client_id = self.next_id(who).into();
        self.set_policy(who, &SetPolicy { client_id, instance: instance.into(), ..terms })
    }
}
