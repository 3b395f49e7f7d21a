//! Rescue, said as simply as possible: every payment is remembered and added up each time.

use super::leases::{Bidder, Lease};
use super::{Caller, Market, Said};
use vendue_wire::code::{LeaseOutcome, Reject, Rescue, Role};
use vendue_wire::message::{Body, ReportKpi, SetObjective};

/// An objective.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "what is not plain is explained")]
pub struct Objective {
    /// Its place among all, the lowest that was free.
    pub place: usize,
    pub terms: SetObjective,
    /// Slot and number of the session that set it.
    session: (u32, u64),
    /// What was told last, and when; `None` once that is too old.
    pub value: (u32, Option<i128>),
    pub bad_since: Option<i128>,
    pub good_since: Option<i128>,
    acted_ms: i128,
    /// When and how much, micro-units, under windows of this length.
    payments: Vec<(i128, i128)>,
    pub paid: i128,
    /// Number of its lease.
    pub lease: Option<u64>,
    said: Option<(Rescue, u8)>,
    /// Seconds of its reports.
    reports: Vec<i128>,
    bids_now: bool,
}

impl Objective {
    fn is(&self, instance: u32, kpi: u8) -> bool {
        (self.terms.instance.get(), self.terms.kpi) == (instance, kpi)
    }

    fn window(&self, at_ms: i128) -> i128 {
        at_ms / 1000 / i128::from(self.terms.window_s.get())
    }

    /// Micro-units paid in the window of this moment.
    pub fn spent(&self, now_ms: i128) -> i128 {
        let same = |&&(at_ms, _): &&(i128, i128)| self.window(at_ms) == self.window(now_ms);
        self.payments.iter().filter(same).map(|payment| payment.1).sum()
    }
}

impl Market {
    fn now_ms(&self) -> i128 {
        self.leases.now_ms
    }

    fn at(&self, instance: u32, kpi: u8) -> Option<usize> {
        self.objectives.iter().position(|row| row.is(instance, kpi))
    }

    // ---- requests ------------------------------------------------------------------------

    pub(super) fn set_objective(&mut self, who: &Caller, m: &SetObjective) -> Result<(), Reject> {
        let session = &self.sessions[who.session as usize];
        let (role, number) = (session.role, session.number);
        if role != Role::Tenant && role != Role::Operator {
            return Err(Reject::NotPermitted);
        }
        let (client_id, instance) = (m.client_id.get(), m.instance.get());
        self.fresh(who, client_id)?;
        self.may_act(who, instance)?;
        let old = self.at(instance, m.kpi);
        if m.remove == 1 {
            let old = old.ok_or(Reject::UnknownObjective)?;
            self.use_id(who, client_id);
            self.stop_rescue(who, old, Rescue::Removed);
            let paid = self.objectives.remove(old).paid;
            self.done(who, SetObjective::KIND, client_id, paid);
            self.clear_all(who);
            return Ok(());
        }
        self.check_objective(m)?;
        let taken = |place: &usize| self.objectives.iter().any(|row| row.place == *place);
        let place = match old {
            Some(old) => self.objectives[old].place,
            None => (0..1024).find(|place| !taken(place)).ok_or(Reject::ObjectivesFull)?,
        };
        self.use_id(who, client_id);
        let mut row = Objective {
            place,
            terms: *m,
            session: (who.session, number),
            value: (0, None),
            bad_since: None,
            good_since: None,
            acted_ms: 0,
            payments: Vec::new(),
            paid: 0,
            lease: None,
            said: None,
            reports: Vec::new(),
            bids_now: false,
        };
        if let Some(old) = old {
            self.stop_rescue(who, old, Rescue::Removed);
            let old = self.objectives.remove(old);
            (row.paid, row.reports) = (old.paid, old.reports);
            if old.terms.window_s == m.window_s {
                row.payments = old.payments;
            }
        }
        let spent = row.spent(self.now_ms());
        self.objectives.push(row);
        self.objectives.sort_by_key(|row| row.place);
        self.done(who, SetObjective::KIND, client_id, spent);
        self.clear_all(who);
        Ok(())
    }

    fn check_objective(&self, m: &SetObjective) -> Result<(), Reject> {
        let row = self.instances[&m.instance.get()];
        let resource = usize::from(m.resource);
        let book = self.book_of(row.tier, resource).ok_or(Reject::UnknownBook)?;
        let (bad, good) = (m.breach_at.get(), m.recover_at.get());
        let other_side = if m.below == 1 { bad < good } else { good < bad };
        let time = |time_ms: u32| (1000..=3_600_000).contains(&time_ms);
        let window = (1..=31 * 24 * 3600).contains(&m.window_s.get());
        if !(other_side && time(m.breach_ms.get()) && time(m.recover_ms.get()) && window) {
            return Err(Reject::BadField);
        }
        let rent = i128::from(m.rent_ticks.get());
        if rent < 1 || rent > self.books[book].price_max {
            return Err(Reject::BadPrice);
        }
        let (step, most) = (m.step_vru.get(), i128::from(m.most_vru.get()));
        let steps = step > 0 && i128::from(step) <= most && most <= self.books[book].capacity_vru;
        if !steps || row.baseline[resource] == 0 || m.budget_micro.get() == 0 {
            return Err(Reject::BadQuantity);
        }
        Ok(())
    }

    pub(super) fn report_kpi(&mut self, who: &Caller, m: &ReportKpi) -> Result<(), Reject> {
        self.may_act(who, m.instance.get())?;
        let (instance, value) = (m.instance.get(), m.value.get());
        let second = self.now_ms() / 1000;
        match self.at(instance, m.kpi) {
            None if !self.is_profiled(instance, m.kpi) => return Err(Reject::UnknownObjective),
            None => {}
            Some(at) => {
                let reports = &mut self.objectives[at].reports;
                if reports.iter().filter(|&&other| other == second).count() >= 8 {
                    return Err(Reject::TooOften);
                }
                reports.push(second);
                self.tell_value(instance, m.kpi, value);
            }
        }
        self.done(who, ReportKpi::KIND, instance.into(), value.into());
        self.swap_kpi(who, instance, m.kpi, value);
        Ok(())
    }

    /// Somebody says what a KPI is.
    pub(super) fn tell_value(&mut self, instance: u32, kpi: u8, value: u32) {
        let now_ms = self.now_ms();
        let Some(at) = self.at(instance, kpi) else { return };
        let row = &mut self.objectives[at];
        let (bad, good) = (row.terms.breach_at.get(), row.terms.recover_at.get());
        let low = row.terms.below == 1;
        let is_bad = if low { value <= bad } else { value >= bad };
        let is_good = if low { value >= good } else { value <= good };
        row.value = (value, Some(now_ms));
        row.bad_since = is_bad.then(|| row.bad_since.unwrap_or(now_ms));
        row.good_since = is_good.then(|| row.good_since.unwrap_or(now_ms));
        self.experiment_told(instance, kpi, value);
    }

    // ---- time ----------------------------------------------------------------------------

    /// True if a lease came, went or changed.
    pub(super) fn tick_rescue(&mut self, who: &Caller) -> bool {
        let now_ms = self.now_ms();
        let mut moved = false;
        for at in 0..self.objectives.len() {
            let row = &mut self.objectives[at];
            let since = |from: Option<i128>| from.map(|from| now_ms - from);
            let (breach, calm) = (row.terms.breach_ms.get(), row.terms.recover_ms.get());
            if since(row.value.1).is_some_and(|old_ms| old_ms > 60_000) {
                (row.value.1, row.bad_since, row.good_since) = (None, None, None);
                moved |= row.lease.is_some();
                if row.lease.is_some() {
                    self.stop_rescue(who, at, Rescue::Silent);
                }
            } else if since(row.bad_since.map(|from| from.max(row.acted_ms)))
                .is_some_and(|bad_ms| bad_ms >= breach.into())
            {
                moved |= self.bid_rescue(who, at);
            } else if row.lease.is_some() && since(row.good_since) >= Some(calm.into()) {
                self.stop_rescue(who, at, Rescue::Recovered);
                moved = true;
            }
        }
        moved
    }

    fn bid_rescue(&mut self, who: &Caller, at: usize) -> bool {
        self.objectives[at].acted_ms = self.now_ms();
        let row = self.objectives[at].clone();
        let terms = row.terms;
        let lease = row.lease.map(|number| *self.lease(number));
        let had = lease.map_or(0, |lease| lease.wanted);
        let (step, most) = (i128::from(terms.step_vru.get()), i128::from(terms.most_vru.get()));
        if lease.is_some() && had >= most {
            self.say_failure(who, at, Rescue::AtBound, 0);
            return false;
        }
        let wanted = (had + step).min(most);
        let result = match lease {
            Some(lease) => self.alter_lease(who, lease.number, wanted, terms.rent_ticks.get()),
            None => {
                let bidder = Bidder {
                    storage: None,
                    session: None,
                    client_id: 0,
                    instance: terms.instance.get(),
                    resource: terms.resource.into(),
                    class: terms.class,
                    objective: Some(row.place),
                };
                self.enter_bid(who, bidder, wanted, terms.rent_ticks.get(), (0, 0), false)
                    .map(|number| self.objectives[at].lease = Some(number))
            }
        };
        match result {
            Ok(()) => {
                self.objectives[at].bids_now = true;
                let what = if lease.is_some() { Rescue::Raised } else { Rescue::Breached };
                self.say_objective(who, at, what, 0);
                true
            }
            Err(Reject::InsufficientFunds) => {
                let owes = lease.map_or(0, |lease| (lease.owed + 999) / 1000);
                let what = self.lacks(at, wanted, owes);
                self.say_failure(who, at, what, 0);
                false
            }
            Err(code) => {
                self.say_failure(who, at, Rescue::Refused, code as u8);
                false
            }
        }
    }

    pub(super) fn say_rescues_that_wait(&mut self, who: &Caller) {
        for at in 0..self.objectives.len() {
            if std::mem::take(&mut self.objectives[at].bids_now)
                && let Some(number) = self.objectives[at].lease
            {
                self.say_waiting(who, number);
            }
        }
    }

    fn stop_rescue(&mut self, who: &Caller, at: usize, why: Rescue) {
        if let Some(number) = self.objectives[at].lease.take() {
            self.end_lease(who, number, LeaseOutcome::Cancelled);
        }
        self.say_objective(who, at, why, 0);
    }

    fn lacks(&self, at: usize, wanted: i128, owes: i128) -> Rescue {
        let terms = self.objectives[at].terms;
        let tier = self.instances[&terms.instance.get()].tier;
        let book = self.book_of(tier, terms.resource.into()).expect("it was there when it was set");
        let costs = wanted * i128::from(terms.rent_ticks.get()) * self.books[book].tick_micro * 10;
        let left = self.budget_left(Some(self.objectives[at].place)).expect("it is there");
        if left < costs.min(u64::MAX.into()) + owes {
            Rescue::BudgetSpent
        } else {
            Rescue::OutOfFunds
        }
    }

    // ---- leases --------------------------------------------------------------------------

    fn by_place(&mut self, place: Option<usize>) -> Option<usize> {
        self.objectives.iter().position(|row| Some(row.place) == place)
    }

    /// Micro-units that an objective may still pay in this window.
    pub(super) fn budget_left(&self, place: Option<usize>) -> Option<i128> {
        let row = self.objectives.iter().find(|row| Some(row.place) == place)?;
        Some((i128::from(row.terms.budget_micro.get()) - row.spent(self.now_ms())).max(0))
    }

    pub(super) fn note_rescue_paid(&mut self, place: Option<usize>, paid: i128) {
        let now_ms = self.now_ms();
        if let Some(at) = self.by_place(place) {
            self.objectives[at].payments.push((now_ms, paid));
            self.objectives[at].paid += paid;
        }
    }

    pub(super) fn rescue_lost(&mut self, who: &Caller, lease: &Lease, why: LeaseOutcome) {
        let now_ms = self.now_ms();
        let Some(at) = self.by_place(lease.objective) else { return };
        if self.objectives[at].lease.take().is_none() {
            return;
        }
        self.objectives[at].acted_ms = now_ms;
        if why == LeaseOutcome::OutOfFunds {
            let what = self.lacks(at, lease.wanted, 0);
            self.say_objective(who, at, what, 0);
        } else {
            self.say_objective(who, at, Rescue::Ended, why as u8);
        }
    }

    pub(super) fn forget_objectives(&mut self, instance: u32) {
        self.objectives.retain(|row| row.terms.instance.get() != instance);
    }

    // ---- words ---------------------------------------------------------------------------

    fn say_failure(&mut self, who: &Caller, at: usize, what: Rescue, code: u8) {
        if self.objectives[at].said != Some((what, code)) {
            self.say_objective(who, at, what, code);
        }
    }

    fn say_objective(&mut self, who: &Caller, at: usize, outcome: Rescue, code: u8) {
        self.objectives[at].said = Some((outcome, code));
        let row = self.objectives[at].clone();
        let session = self.sessions.get(row.session.0 as usize);
        let same = session.is_some_and(|session| session.number == row.session.1);
        let lease = row.lease.map(|number| *self.lease(number));
        self.said.push(Said::Objective {
            to: if same { row.session.0 } else { vendue_wire::message::ANY },
            time_ns: who.time_ns,
            instance: row.terms.instance.get(),
            kpi: row.terms.kpi,
            value: row.value.0,
            lease: lease.map(|lease| lease.handle),
            wanted: lease.map_or(0, |lease| lease.wanted),
            spent: row.spent(self.now_ms()),
            outcome,
            code,
        });
    }
}
