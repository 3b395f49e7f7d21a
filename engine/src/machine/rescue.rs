//! Rescue: instances declare objectives on KPIs, and while one is breached the engine itself bids for a
//! lease, as the instance's tenant could, out of the objective's own budget.
//!
//! A value is bad, good, or between. Bad without a break for `breach_ms`: it bids for `step_vru` VRUs; bad
//! for as long again: for so many more, up to `most_vru`. Good without a break for `recover_ms`: the lease
//! ends. So a KPI that flaps faster than these, whoever tells it, moves nothing. What nobody tells for
//! [`SILENT_MS`] is neither, and its lease ends.
//!
//! **Money.** What is held for such a lease comes out of its account's funds like any lease's, and must
//! also fit what is left of the objective's budget in the window; it pays out of what is held alone. So
//! what its leases cost in a window never passes the budget, whatever a guest says: a guest has no say in
//! objectives, and what the host measures it cannot report.

use super::Machine;
use super::command::{Envelope, HOST_KPIS, HostKpis};
use super::event::{Outbox, Watched};
use super::lease::Bid;
use vendue_wire::code::{KPIS, Kpi, LeaseClass, LeaseOutcome, Reject, Rescue, Resource, Role};
use vendue_wire::message::{ANY, Body, ObjectiveMoved, ObjectiveRow, ReportKpi, SetObjective};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Objectives at most.
pub const OBJECTIVES_MAX: usize = 1024;
/// A value holds for so long, milliseconds.
pub const SILENT_MS: u64 = 60_000;
/// Reports of a KPI in a second at most.
pub const REPORTS_MAX: u32 = 8;
/// Least and greatest time of a breach or a recovery, milliseconds.
const TIMES_MS: std::ops::RangeInclusive<u32> = 1000..=3_600_000;
/// Least and greatest window, seconds.
const WINDOWS_S: std::ops::RangeInclusive<u32> = 1..=31 * 86_400;

/// An objective, or a free place for one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Objective {
    /// Micro-units that its leases may cost in a window.
    pub budget_micro: u64,
    /// Micro-units that they cost in `window`.
    pub spent_micro: u64,
    /// Micro-units that they cost in all.
    pub paid_micro: u64,
    /// Number of the window that `spent_micro` counts.
    pub window: u64,
    /// When its value came, milliseconds; 0: there is none.
    pub told_ms: u64,
    /// Bad since, milliseconds; 0: it is not.
    pub bad_ms: u64,
    /// Good since, milliseconds; 0: it is not.
    pub good_ms: u64,
    /// When it bid last, or tried to, milliseconds.
    pub acted_ms: u64,
    /// Number of the session that set it.
    pub session: u64,
    /// The second that `reports` counts.
    pub second: u64,
    /// Seconds of a window.
    pub window_s: u32,
    /// Bad from this value on.
    pub breach_at: u32,
    /// Good from this value on.
    pub recover_at: u32,
    /// See [`SetObjective`].
    pub breach_ms: u32,
    /// See [`SetObjective`].
    pub recover_ms: u32,
    /// See [`SetObjective`].
    pub step_vru: u32,
    /// See [`SetObjective`].
    pub most_vru: u32,
    /// See [`SetObjective`].
    pub rent: u32,
    /// The value told last.
    pub value: u32,
    /// Reports in that second.
    pub reports: u32,
    /// Slot of its lease, plus one; 0: none.
    pub lease: u32,
    /// Slot of the session that set it.
    pub slot: u16,
    /// Instance.
    pub instance: u16,
    /// A [`Kpi`].
    pub kpi: u8,
    /// 1: low values are bad.
    pub below: u8,
    /// A [`Resource`].
    pub resource: u8,
    /// A [`LeaseClass`].
    pub class: u8,
    /// 1 while there is an objective.
    pub live: u8,
    /// What was told last: a [`Rescue`] plus one, and its code.
    pub told: [u8; 2],
    /// 1 between its bid and the end of the tick that makes it.
    pub fresh: u8,
}

impl Objective {
    /// Begins a new window if it is time.
    fn roll(&mut self, now_ms: u64) {
        let window = now_ms / (u64::from(self.window_s) * 1000);
        if window != self.window {
            (self.window, self.spent_micro) = (window, 0);
        }
    }

    /// Somebody tells a value.
    fn note(&mut self, value: u32, now_ms: u64) {
        (self.value, self.told_ms) = (value, now_ms);
        let (bad, good) = match self.below {
            0 => (value >= self.breach_at, value <= self.recover_at),
            _ => (value <= self.breach_at, value >= self.recover_at),
        };
        let since = |was: u64, is: bool| match (is, was) {
            (false, _) => 0,
            (true, 0) => now_ms,
            (true, was) => was,
        };
        self.bad_ms = since(self.bad_ms, bad);
        self.good_ms = since(self.good_ms, good);
    }

    /// Nobody tells a value any more.
    fn forget_value(&mut self) {
        (self.told_ms, self.bad_ms, self.good_ms) = (0, 0, 0);
    }

    /// True if the fields that a snapshot holds make sense by themselves.
    fn is_sound(&self) -> bool {
        Kpi::from_u8(self.kpi).is_some()
            && Resource::from_u8(self.resource).is_some()
            && LeaseClass::from_u8(self.class).is_some()
            && WINDOWS_S.contains(&self.window_s)
            && u16::try_from(self.rent).is_ok()
            && self.live == 1
            && self.fresh == 0
    }
}

/// All objectives.
#[derive(Debug)]
pub struct Objectives {
    /// By slot.
    pub rows: Box<[Objective]>,
    /// Every row from here on is free. Follows from the rows.
    end: usize,
    /// By instance and KPI, the slot plus one; 0: none. Follows from the rows.
    of: Box<[[u16; KPIS]]>,
}

impl Objectives {
    /// None yet.
    pub fn new(instances: u32) -> Objectives {
        Objectives {
            rows: vec![Objective::default(); OBJECTIVES_MAX].into_boxed_slice(),
            end: 0,
            of: vec![[0; KPIS]; instances as usize].into_boxed_slice(),
        }
    }

    /// The slot of an instance's objective.
    fn find(&self, instance: u16, kpi: u8) -> Option<usize> {
        let slot = self.of[usize::from(instance)][usize::from(kpi)];
        usize::from(slot).checked_sub(1)
    }

    fn put(&mut self, slot: usize, row: Objective) {
        self.rows[slot] = row;
        self.of[usize::from(row.instance)][usize::from(row.kpi)] = slot as u16 + 1;
        self.end = self.end.max(slot + 1);
    }

    fn remove(&mut self, slot: usize) {
        let row = std::mem::take(&mut self.rows[slot]);
        assert!(row.lease == 0, "an objective goes without a lease");
        self.of[usize::from(row.instance)][usize::from(row.kpi)] = 0;
        while self.end > 0 && self.rows[self.end - 1].live == 0 {
            self.end -= 1;
        }
    }

    /// Rows up to the last that is in use.
    pub fn used(&self) -> &[Objective] {
        &self.rows[..self.end]
    }

    /// Finds what follows from the rows. False if they contradict one another.
    pub(super) fn restore(&mut self) -> bool {
        for slot in 0..self.rows.len() {
            let row = self.rows[slot];
            if row == Objective::default() {
                continue;
            }
            let instance = usize::from(row.instance);
            if !row.is_sound()
                || instance >= self.of.len()
                || self.find(row.instance, row.kpi).is_some()
            {
                return false;
            }
            self.put(slot, row);
        }
        true
    }
}

impl Machine {
    /// The objectives, to read.
    pub fn objectives(&self) -> &Objectives {
        &self.objectives
    }

    // ---- requests ------------------------------------------------------------------------

    pub(super) fn set_objective(
        &mut self,
        env: &Envelope,
        m: &SetObjective,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let session = self.sessions[env.session as usize];
        // A guest's word must not move what it can spend.
        if !matches!(session.role(), Role::Tenant | Role::Operator) {
            return Err(Reject::NotPermitted);
        }
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let baseline = self.acting_row(env, m.instance.get())?.baseline_vru[resource as usize];
        let instance = m.instance.get() as u16;
        let known = self.objectives.find(instance, m.kpi);
        if m.remove == 1 {
            let slot = known.ok_or(Reject::UnknownObjective)?;
            self.use_client_id(env, client_id);
            self.drop_lease(slot, Rescue::Removed, out);
            let paid = self.objectives.rows[slot].paid_micro;
            self.objectives.remove(slot);
            self.announce_watched(instance, out);
            self.report_done(env, SetObjective::KIND, client_id, paid, out);
            self.clear_stirred(out);
            return Ok(());
        }
        self.check_objective(m, instance, resource, baseline)?;
        let free = || self.objectives.rows.iter().position(|row| row.live == 0);
        let slot = known.or_else(free).ok_or(Reject::ObjectivesFull)?;
        self.use_client_id(env, client_id);
        if known.is_some() {
            self.drop_lease(slot, Rescue::Removed, out);
        }
        let before = self.objectives.rows[slot];
        let mut row = Objective {
            budget_micro: m.budget_micro.get(),
            paid_micro: before.paid_micro,
            session: session.number,
            window_s: m.window_s.get(),
            breach_at: m.breach_at.get(),
            recover_at: m.recover_at.get(),
            breach_ms: m.breach_ms.get(),
            recover_ms: m.recover_ms.get(),
            step_vru: m.step_vru.get(),
            most_vru: m.most_vru.get(),
            rent: m.rent_ticks.get(),
            slot: env.session as u16,
            instance,
            kpi: m.kpi,
            below: m.below,
            resource: m.resource,
            class: m.class,
            live: 1,
            second: before.second,
            reports: before.reports,
            ..Objective::default()
        };
        // Other terms are no new budget.
        if before.window_s == row.window_s {
            (row.window, row.spent_micro) = (before.window, before.spent_micro);
        }
        row.roll(self.now_ms());
        self.objectives.put(slot, row);
        self.announce_watched(instance, out);
        self.report_done(env, SetObjective::KIND, client_id, row.spent_micro, out);
        self.clear_stirred(out);
        Ok(())
    }

    fn check_objective(
        &self,
        m: &SetObjective,
        instance: u16,
        resource: Resource,
        baseline: u32,
    ) -> Result<(), Reject> {
        let book = &self.books[self.instance_book(instance, resource)?];
        let (bad, good) = (m.breach_at.get(), m.recover_at.get());
        let apart = if m.below == 1 { good > bad } else { good < bad };
        let times = [m.breach_ms.get(), m.recover_ms.get()];
        if !apart
            || !times.iter().all(|time| TIMES_MS.contains(time))
            || !WINDOWS_S.contains(&m.window_s.get())
        {
            return Err(Reject::BadField);
        }
        let rents = 1..=u32::from(book.price_max);
        if !rents.contains(&m.rent_ticks.get()) {
            return Err(Reject::BadPrice);
        }
        let (step, most) = (m.step_vru.get(), m.most_vru.get());
        let within = step > 0 && step <= most && u64::from(most) <= book.capacity_vru;
        if !within || baseline == 0 || m.budget_micro.get() == 0 {
            return Err(Reject::BadQuantity);
        }
        Ok(())
    }

    pub(super) fn report_kpi(
        &mut self,
        env: &Envelope,
        m: &ReportKpi,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.acting_row(env, m.instance.get())?;
        let kpi = Kpi::from_u8(m.kpi).expect("it was parsed");
        let (number, value) = (m.instance.get() as u16, m.value.get());
        let slot = self.objectives.find(number, m.kpi);
        // Who lends may say what that does to it.
        if slot.is_none() && !self.is_profiled(number, kpi) {
            return Err(Reject::UnknownObjective);
        }
        if let Some(slot) = slot {
            self.note_report(slot, value)?;
            self.experiment_told(number, m.kpi, value);
        }
        self.report_done(env, ReportKpi::KIND, m.instance.get().into(), value.into(), out);
        self.swap_kpi(number, kpi, value, out);
        Ok(())
    }

    fn note_report(&mut self, slot: usize, value: u32) -> Result<(), Reject> {
        let now_ms = self.now_ms();
        let row = &mut self.objectives.rows[slot];
        let reports = if row.second == now_ms / 1000 { row.reports } else { 0 };
        if reports >= REPORTS_MAX {
            return Err(Reject::TooOften);
        }
        (row.second, row.reports) = (now_ms / 1000, reports + 1);
        row.note(value, now_ms);
        self.fold(u64::from(value) << 32 ^ slot as u64);
        Ok(())
    }

    /// The host measured KPIs.
    pub(super) fn host_kpis(&mut self, m: &HostKpis, out: &mut Outbox) {
        if self.instance(m.instance.get()).is_none() {
            return;
        }
        let (instance, now_ms) = (m.instance.get() as u16, self.now_ms());
        for (kpi, value) in HOST_KPIS.iter().zip(m.values) {
            if value.get() == u32::MAX {
                continue;
            }
            if let Some(slot) = self.objectives.find(instance, *kpi as u8) {
                self.objectives.rows[slot].note(value.get(), now_ms);
                self.experiment_told(instance, *kpi as u8, value.get());
                self.fold(u64::from(value.get()) << 32 ^ slot as u64);
            }
            self.swap_kpi(instance, *kpi, value.get(), out);
        }
    }

    // ---- time ----------------------------------------------------------------------------

    /// Time passes: objectives bid, and their leases end. True if a book is to be cleared.
    pub(super) fn tick_rescue(&mut self, now_ms: u64, out: &mut Outbox) -> bool {
        let mut stirs = false;
        for slot in 0..self.objectives.end {
            let row = &mut self.objectives.rows[slot];
            if row.live == 0 {
                continue;
            }
            row.roll(now_ms);
            if row.told_ms != 0 && now_ms.saturating_sub(row.told_ms) > SILENT_MS {
                row.forget_value();
                stirs |= self.end_rescue(slot, Rescue::Silent, out);
                continue;
            }
            let bad_ms = now_ms.saturating_sub(row.bad_ms.max(row.acted_ms));
            if row.bad_ms != 0 && bad_ms >= row.breach_ms.into() {
                stirs |= self.bid_rescue(slot, now_ms, out);
            } else if row.good_ms != 0
                && now_ms.saturating_sub(row.good_ms) >= row.recover_ms.into()
            {
                stirs |= self.end_rescue(slot, Rescue::Recovered, out);
            }
        }
        stirs
    }

    /// The books are cleared: says why what was bid waits, if it does.
    pub(super) fn tell_rescues(&mut self, out: &mut Outbox) {
        for slot in 0..self.objectives.end {
            let row = &mut self.objectives.rows[slot];
            let fresh = std::mem::take(&mut row.fresh) == 1;
            if let Some(lease) = row.lease.checked_sub(1).filter(|_| fresh) {
                self.tell_waiting(lease, out);
            }
        }
    }

    /// Bids, or for more. True if something changed.
    fn bid_rescue(&mut self, slot: usize, now_ms: u64, out: &mut Outbox) -> bool {
        let row = &mut self.objectives.rows[slot];
        row.acted_ms = now_ms;
        let row = *row;
        let lease = row.lease.checked_sub(1);
        let had = lease.map_or(0, |lease| self.rentals.leases[lease as usize].wanted);
        if lease.is_some() && had >= row.most_vru {
            self.tell_failure(slot, Rescue::AtBound, 0, out);
            return false;
        }
        let wanted = had.saturating_add(row.step_vru).min(row.most_vru);
        let result = match lease {
            Some(lease) => self.alter_lease(lease, wanted.into(), row.rent),
            None => self.enter_rescue(slot, &row, wanted),
        };
        match result {
            Ok(()) => {
                self.objectives.rows[slot].fresh = 1;
                let outcome = if lease.is_some() { Rescue::Raised } else { Rescue::Breached };
                self.tell_objective(slot, outcome, 0, out);
                true
            }
            Err(Reject::InsufficientFunds) => {
                let owes = lease.map_or(0, |lease| self.owes(lease));
                let outcome = self.lacking(slot, wanted, owes);
                self.tell_failure(slot, outcome, 0, out);
                false
            }
            Err(code) => {
                self.tell_failure(slot, Rescue::Refused, code as u8, out);
                false
            }
        }
    }

    fn enter_rescue(&mut self, slot: usize, row: &Objective, wanted: u32) -> Result<(), Reject> {
        let wrong = Reject::BadField;
        let bid = Bid {
            storage: None,
            instance: row.instance,
            resource: Resource::from_u8(row.resource).ok_or(wrong)?,
            class: LeaseClass::from_u8(row.class).ok_or(wrong)?,
            vru: wanted.into(),
            rent: row.rent,
            hold_ms: 0,
            expires_ms: 0,
            whole: 0,
            // Of no session: the objective's own events say whose it is.
            session: (0, u16::MAX),
            client_id: 0,
            objective: slot as u32 + 1,
        };
        let lease = self.enter_lease(&bid)?;
        self.objectives.rows[slot].lease = lease + 1;
        Ok(())
    }

    /// What an objective or its account has too little of.
    fn lacking(&self, slot: usize, wanted: u32, owes: u128) -> Rescue {
        let row = &self.objectives.rows[slot];
        let resource = Resource::ALL[usize::from(row.resource)];
        let book = self.instance_book(row.instance, resource).unwrap_or(0);
        let cover = self.cover(book, wanted, row.rent as u16).unwrap_or(u64::MAX);
        let left = self.rescue_funds(slot as u32 + 1);
        if u128::from(left) < u128::from(cover) + owes {
            Rescue::BudgetSpent
        } else {
            Rescue::OutOfFunds
        }
    }

    /// Ends an objective's lease, if it has one. True if it had.
    fn end_rescue(&mut self, slot: usize, why: Rescue, out: &mut Outbox) -> bool {
        let had = self.objectives.rows[slot].lease > 0;
        if had {
            self.drop_lease(slot, why, out);
        }
        had
    }

    /// Ends an objective's lease, if it has one, and says why.
    fn drop_lease(&mut self, slot: usize, why: Rescue, out: &mut Outbox) {
        if let Some(lease) = std::mem::take(&mut self.objectives.rows[slot].lease).checked_sub(1) {
            self.end_lease(lease, LeaseOutcome::Cancelled, out);
        }
        self.tell_objective(slot, why, 0, out);
    }

    // ---- what leases tell objectives --------------------------------------------------------

    /// Micro-units that the lease of an objective may still cost in this window, all that is held for it
    /// among them; of other leases no bound.
    pub(super) fn rescue_funds(&self, objective: u32) -> u64 {
        match objective.checked_sub(1) {
            None => u64::MAX,
            Some(slot) => {
                let mut row = self.objectives.rows[slot as usize];
                row.roll(self.now_ms());
                row.budget_micro.saturating_sub(row.spent_micro)
            }
        }
    }

    /// A lease of an objective paid.
    pub(super) fn rescue_paid(&mut self, objective: u32, micro: u64) {
        let now_ms = self.now_ms();
        let Some(slot) = objective.checked_sub(1) else { return };
        let row = &mut self.objectives.rows[slot as usize];
        row.roll(now_ms);
        row.spent_micro = row.spent_micro.saturating_add(micro);
        row.paid_micro = row.paid_micro.saturating_add(micro);
        assert!(row.spent_micro <= row.budget_micro, "a rescue passes its budget");
    }

    /// A lease of an objective ends for another reason than the objective's.
    pub(super) fn rescue_ended(&mut self, lease: u32, why: LeaseOutcome, out: &mut Outbox) {
        let row = self.rentals.leases[lease as usize];
        let Some(slot) = row.objective.checked_sub(1).map(|slot| slot as usize) else { return };
        if std::mem::take(&mut self.objectives.rows[slot].lease) == 0 {
            return;
        }
        let now_ms = self.now_ms();
        self.objectives.rows[slot].acted_ms = now_ms;
        match why {
            LeaseOutcome::OutOfFunds => {
                let outcome = self.lacking(slot, row.wanted, 0);
                self.tell_objective(slot, outcome, 0, out);
            }
            why => self.tell_objective(slot, Rescue::Ended, why as u8, out),
        }
    }

    // ---- what is said --------------------------------------------------------------------

    /// As [`Machine::tell_objective`], unless that was said last.
    fn tell_failure(&mut self, slot: usize, outcome: Rescue, code: u8, out: &mut Outbox) {
        if self.objectives.rows[slot].told != [outcome as u8 + 1, code] {
            self.tell_objective(slot, outcome, code, out);
        }
    }

    fn tell_objective(&mut self, slot: usize, outcome: Rescue, code: u8, out: &mut Outbox) {
        let now_ms = self.now_ms();
        let row = &mut self.objectives.rows[slot];
        row.roll(now_ms);
        row.told = [outcome as u8 + 1, code];
        let row = *row;
        let to = self.addressee(row.slot, row.session);
        let (lease, wanted, _) = self.rescue_lease(&row);
        let report = ObjectiveMoved {
            time_ns: self.time_ns.into(),
            lease: lease.into(),
            spent_micro: row.spent_micro.into(),
            instance: u32::from(row.instance).into(),
            value: row.value.into(),
            wanted_vru: wanted.into(),
            kpi: row.kpi,
            outcome: outcome as u8,
            code,
            reserved: 0,
        };
        self.fold(u64::from(wanted) << 32 ^ (slot as u64) << 16 ^ outcome as u64);
        out.push(to, &report);
    }

    /// An objective's lease: handle, VRUs that it wants and has.
    fn rescue_lease(&self, row: &Objective) -> (u64, u32, u32) {
        row.lease.checked_sub(1).map_or((u64::MAX, 0, 0), |slot| {
            let lease = &self.rentals.leases[slot as usize];
            (self.rentals.handle(slot), lease.wanted, lease.granted)
        })
    }

    /// KPIs of an instance that are of interest: those of its objectives, and what it may not lose by
    /// lending. Bit k is the KPI of number k.
    pub(super) fn watched(&self, instance: u16) -> u8 {
        let of = &self.objectives.of[usize::from(instance)];
        let all = Kpi::ALL.iter().filter(|&&kpi| {
            of[kpi as usize] > 0 || (!kpi.is_reported() && self.is_profiled(instance, kpi))
        });
        all.fold(0, |bits, &kpi| bits | 1 << kpi as u8)
    }

    /// Tells the later stages what to measure of an instance.
    pub(super) fn announce_watched(&self, instance: u16, out: &mut Outbox) {
        let kpis = self.watched(instance);
        let (instance, reserved) = (u32::from(instance).into(), [0; 3]);
        out.push(ANY, &Watched { instance, kpis, reserved });
    }

    /// The daemon starts again: values go on from now.
    pub(super) fn restart_rescue(&mut self) {
        let now_ms = self.now_ms();
        for row in self.objectives.rows.iter_mut().filter(|row| row.told_ms != 0) {
            (row.told_ms, row.bad_ms, row.good_ms) = (now_ms, 0, 0);
        }
    }

    /// An instance goes, and its leases went: so do its objectives.
    pub(super) fn forget_objectives(&mut self, instance: u16) {
        for &kpi in Kpi::ALL {
            if let Some(slot) = self.objectives.find(instance, kpi as u8) {
                self.objectives.remove(slot);
            }
        }
    }

    /// An objective as a query shows it.
    pub(super) fn objective_row(&self, slot: u32, row: &Objective) -> ObjectiveRow {
        let (lease, wanted, granted) = self.rescue_lease(row);
        let window_ms = u64::from(row.window_s) * 1000;
        ObjectiveRow {
            budget_micro: row.budget_micro.into(),
            spent_micro: row.spent_micro.into(),
            paid_micro: row.paid_micro.into(),
            window_ends_ms: row.window.saturating_add(1).saturating_mul(window_ms).into(),
            told_at_ms: row.told_ms.into(),
            breached_since_ms: row.bad_ms.into(),
            recovered_since_ms: row.good_ms.into(),
            lease: lease.into(),
            number: slot.into(),
            instance: u32::from(row.instance).into(),
            value: row.value.into(),
            window_s: row.window_s.into(),
            breach_at: row.breach_at.into(),
            recover_at: row.recover_at.into(),
            breach_ms: row.breach_ms.into(),
            recover_ms: row.recover_ms.into(),
            step_vru: row.step_vru.into(),
            most_vru: row.most_vru.into(),
            rent_ticks: row.rent.into(),
            wanted_vru: wanted.into(),
            granted_vru: granted.into(),
            kpi: row.kpi,
            below: row.below,
            resource: row.resource,
            class: row.class,
        }
    }

    /// True if objectives and leases know one another and no budget is passed: of a snapshot.
    pub(super) fn rescues_are_whole(&self) -> bool {
        let rows = &self.objectives.rows;
        let known = (1_u32..).zip(rows.iter()).filter(|(_, row)| row.live == 1).all(|(at, row)| {
            let lease = match row.lease.checked_sub(1) {
                None => return self.instance(row.instance.into()).is_some(),
                Some(slot) => self.rentals.leases.get(slot as usize),
            };
            let sound = lease.filter(|lease| lease.live == 1);
            self.instance(row.instance.into()).is_some()
                && sound.is_some_and(|lease| {
                    let left = row.budget_micro.saturating_sub(row.spent_micro);
                    (lease.objective, lease.instance) == (at, row.instance)
                        && row.spent_micro <= row.budget_micro
                        && lease.held_micro <= left
                        && self.books[usize::from(lease.book)].resource as u8 == row.resource
                })
        });
        let leases = self.rentals.leases.iter().enumerate();
        let mut owned = leases.filter(|(_, lease)| lease.live == 1 && lease.objective > 0);
        known
            && owned.all(|(slot, lease)| {
                let row = rows.get(lease.objective as usize - 1);
                row.is_some_and(|row| row.live == 1 && row.lease == slot as u32 + 1)
            })
    }
}
