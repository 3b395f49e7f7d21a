//! Standing policies: the engine bids for an instance, ahead of what it is said to need and within a
//! budget.
//!
//! An instance's resource has one policy at most. It is looked at every [`REVIEW_MS`], at most
//! [`PER_TICK`] of them in a tick, in turn. What it *needs* is the greatest quantile of the forecasts
//! that hold within the policy's lead from now, what is planned ([`super::plan`]) included; where none does, or the policy asks for that, what it
//! was measured to use, and a quarter more where that is nearly all that it may use. What it *lacks* is
//! that less what it has without the policy.
//!
//! **The cheaper way.** A VRU-second costs the rent of the policy's class, or, where the instance may
//! burst so far, the best ask with the taker's fee, times the price of contended use. The policy leases
//! or buys, whichever is cheaper; who leases goes on until buying is a tenth cheaper, and the other way
//! round. Rents and prices above the policy's own count as not to be had. What a lease waits for is
//! bought meanwhile. Credits are bought for [`AHEAD_S`] seconds, at once or not at all.
//! A *tier swap* is not among the ways: it moves what all of a tier share, out of the tier's pool and no
//! account's, so it is nobody's to pay for; demand makes it ([`super::exchange`]), and what it brings
//! shows here as a lower rent.
//!
//! **The budget** is a token bucket: it fills evenly, by a budget an hour, up to the burst. What a lease
//! could cost next is taken out of it when it is held, so nothing is ever spent that was not there; what
//! is released goes back in. A policy's lease pays out of what is held for it alone. In an hour of the
//! clock no more is spent than the budget, whatever prices do. A lease is only so large that the bucket
//! and what flows into it meanwhile last for [`LAST_S`] seconds.
//!
//! **No flapping.** It grows by `step_vru` at least, shrinks by that only after `hold_ms` without a
//! change; only the budget makes it shrink at once. What it does goes through the same arms as a tenant's
//! own commands, in the name of a session that nobody can open ([`Machine::broker`]). It has one lease,
//! which it changes, and its orders do not rest.

use super::Machine;
use super::command::{Envelope, NewOrderTerms, Style};
use super::config::{MILLI, RESOURCES};
use super::event::Outbox;
use super::ledger::pocket;
use super::plan::shifted;
use super::query::{LAST, PAGE, end};
use super::rental::Lease;
use super::tables::Session;
use vendue_wire::code::{
    Cover, LeaseClass, OrderType, Phase, PolicyAct, PolicyReason, Reject, Resource, Role, Side,
    TimeInForce,
};
use vendue_wire::message::{
    ANY, BidLease, Body, CancelLease, ChangeLease, NewOrder, PolicyActed, PolicyRow, SetPolicy,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Policies at most.
pub const POLICIES_MAX: usize = 1024;
/// A policy is looked at so often at most, milliseconds.
pub const REVIEW_MS: u64 = 1000;
/// Policies that are looked at in a tick at most.
pub const PER_TICK: u32 = 64;
/// Credits are bought for so many seconds of what is lacking.
pub const AHEAD_S: u64 = 10;
/// What a lease costs can be borne for so many seconds.
pub const LAST_S: u64 = 60;
/// Bytes that policies may say in a tick, beside what one request can take to say of leases.
pub(super) const SAID_BYTES: usize = 64 * 1024;
/// [`SetPolicy::hold_ms`] at most.
const HOLD_MAX_MS: u32 = 3_600_000;
const HOUR_MS: u64 = 3_600_000;
/// Seconds at its own rent that are held for a lease.
const COVER_S: u128 = super::lease::COVER_S;

/// A policy, or a free place for one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Policy {
    /// In the bucket: micro-units x milliseconds of an hour.
    pub tokens: u128,
    /// Micro-units an hour.
    pub budget_micro: u64,
    /// Micro-units that the bucket holds.
    pub burst_micro: u64,
    /// The bucket was filled up to here, milliseconds.
    pub filled_ms: u64,
    /// The hour that `hour_micro` is of: hours since 1970.
    pub hour: u64,
    /// Micro-units spent in it, and held when it began.
    pub hour_micro: u64,
    /// Micro-units that were taken out of the bucket for its lease: paid and held.
    pub charged_micro: u64,
    /// Micro-units held for its lease when that was last filled up.
    pub held_micro: u64,
    /// Micro-units spent since it was set, what is held included.
    pub spent_micro: u64,
    /// Credits bought.
    pub bought: u64,
    /// Handle of its lease.
    pub handle: u64,
    /// Number of the session that set it.
    pub session: u64,
    /// When it was looked at last, milliseconds.
    pub reviewed_ms: u64,
    /// When it changed something last, milliseconds.
    pub acted_ms: u64,
    /// Milli-credits of use reported since `since_ms`.
    pub used_milli: u64,
    /// See `used_milli`.
    pub since_ms: u64,
    /// The most that it pays to lease, ticks; 0: it does not.
    pub rent: u32,
    /// The most that it pays for a credit, ticks; 0: it buys none.
    pub price: u32,
    /// It looks ahead so far, milliseconds.
    pub lead_ms: u32,
    /// It does not shrink so soon after a change, milliseconds.
    pub hold_ms: u32,
    /// It changes its lease by so many VRUs at least.
    pub step: u32,
    /// VRUs it was measured to use.
    pub measured: u32,
    /// VRUs it needed when it was looked at last.
    pub need: u32,
    /// Instance.
    pub instance: u16,
    /// Slot of the session that set it.
    pub slot: u16,
    /// 1 while there is a policy.
    pub live: u8,
    /// 1 while it has a lease.
    pub leases: u8,
    /// A [`Resource`].
    pub resource: u8,
    /// A [`LeaseClass`].
    pub class: u8,
    /// A [`Cover`].
    pub cover: u8,
    /// The last [`PolicyAct`].
    pub act: u8,
    /// Its [`PolicyReason`].
    pub reason: u8,
    /// Why it was refused, a [`Reject`]; 0: it was not.
    pub code: u8,
}

impl Policy {
    /// Fills the bucket up to now.
    fn pace(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.filled_ms);
        let most = u128::from(self.burst_micro) * u128::from(HOUR_MS);
        let more = u128::from(self.budget_micro) * u128::from(elapsed_ms);
        self.tokens = self.tokens.saturating_add(more).min(most);
        self.filled_ms = now_ms;
        if self.hour != now_ms / HOUR_MS {
            self.hour = now_ms / HOUR_MS;
            // What is held may be paid in this hour.
            self.hour_micro = self.held_micro;
        }
    }

    /// Micro-units that it may spend now.
    fn left_micro(&self) -> u64 {
        let tokens = (self.tokens / u128::from(HOUR_MS)) as u64;
        tokens.min(self.budget_micro.saturating_sub(self.hour_micro))
    }

    /// Takes micro-units out of the bucket.
    fn charge(&mut self, micro: u64) {
        self.tokens = self.tokens.saturating_sub(u128::from(micro) * u128::from(HOUR_MS));
        self.hour_micro = self.hour_micro.saturating_add(micro);
        self.spent_micro = self.spent_micro.saturating_add(micro);
    }

    /// Puts micro-units back that were not spent after all.
    fn refund(&mut self, micro: u64) {
        let most = u128::from(self.burst_micro) * u128::from(HOUR_MS);
        let back = u128::from(micro) * u128::from(HOUR_MS);
        self.tokens = self.tokens.saturating_add(back).min(most);
        self.hour_micro = self.hour_micro.saturating_sub(micro);
        self.spent_micro = self.spent_micro.saturating_sub(micro);
    }

    fn resource(&self) -> Resource {
        Resource::ALL[usize::from(self.resource) % RESOURCES]
    }
}

/// All policies.
#[derive(Debug)]
pub struct Policies {
    /// By slot.
    pub rows: Box<[Policy]>,
    /// Slot plus one of the policy of an instance's resource; 0: it has none.
    of: Box<[u16]>,
    /// Slots ever used.
    pub used: u32,
    /// The slot whose turn it is.
    pub turn: u32,
}

impl Policies {
    /// No policies, of so many instances.
    pub fn new(instances: u32) -> Policies {
        Policies {
            rows: vec![Policy::default(); POLICIES_MAX].into_boxed_slice(),
            of: vec![0; instances as usize * RESOURCES].into_boxed_slice(),
            used: 0,
            turn: 0,
        }
    }

    /// The slot of the policy of an instance's resource.
    pub fn of(&self, instance: u16, resource: Resource) -> Option<usize> {
        usize::from(self.of[pocket(instance, resource)]).checked_sub(1)
    }

    /// Restores what follows from the rows. False if they contradict one another.
    pub(super) fn restore(&mut self, is_live: impl Fn(u16) -> bool) -> bool {
        let used = self.used as usize;
        if used > POLICIES_MAX || (used > 0 && self.turn as usize >= used) {
            return false;
        }
        for (at, row) in self.rows[..used].iter().enumerate().filter(|(_, row)| row.live == 1) {
            if usize::from(row.resource) >= RESOURCES || !is_live(row.instance) {
                return false;
            }
            let of = &mut self.of[pocket(row.instance, row.resource())];
            if *of != 0 {
                return false;
            }
            *of = at as u16 + 1;
        }
        true
    }
}

/// What a look at a policy found.
#[derive(Clone, Copy)]
struct Look {
    at: usize,
    book: usize,
    /// VRUs it lacks without its lease.
    lacks: u64,
    reason: PolicyReason,
    /// The lease it has.
    lease: Option<(u32, Lease)>,
    /// True if leasing is the cheaper way.
    leases: bool,
    /// The price at which credits are to be had, if they are.
    ask: Option<u16>,
    /// VRUs that it can pay for.
    affords: u64,
}

impl Machine {
    /// The session that policies act through: an operator's, whose slot is behind all others.
    pub fn broker(&self) -> u32 {
        (self.sessions.len() - 1) as u32
    }

    /// Places for so many sessions, and the broker behind them.
    pub(super) fn places_for_sessions(sessions: u32) -> Box<[Session]> {
        let mut rows = vec![Session::FREE; sessions as usize + 1];
        rows[sessions as usize].role = Role::Operator as u8;
        rows.into_boxed_slice()
    }

    /// All policies.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    // ---- requests ------------------------------------------------------------------------

    pub(super) fn set_policy(
        &mut self,
        env: &Envelope,
        m: &SetPolicy,
        (resource, class, cover): (Resource, LeaseClass, Cover),
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        self.acting_row(env, m.instance.get())?;
        let instance = m.instance.get() as u16;
        let book = self.instance_book(instance, resource)?;
        let most = u32::from(self.books[book].price_max);
        if m.rent_ticks.get() > most || m.price_ticks.get() > most {
            return Err(Reject::BadPrice);
        }
        let known = self.policies.of(instance, resource);
        let removes = m.budget_micro.get() == 0;
        let at = match known {
            Some(at) => at,
            None if removes => 0,
            None => self.free_policy().ok_or(Reject::PoliciesFull)?,
        };
        self.use_client_id(env, client_id);
        self.report_done(env, SetPolicy::KIND, client_id, known.is_some().into(), out);
        self.leave_experiment(env, m, out);
        if known.is_some() {
            self.release(env, at, PolicyReason::Removed, out);
        }
        if removes {
            if known.is_some() {
                self.forget_policy(at);
            }
            return Ok(());
        }
        let now_ms = self.now_ms();
        let session = (self.sessions[env.session as usize].number, env.session as u16);
        let full = u128::from(m.burst_micro.get()) * u128::from(HOUR_MS);
        let row = &mut self.policies.rows[at];
        if known.is_none() {
            let (hour, filled_ms, burst_micro) = (now_ms / HOUR_MS, now_ms, m.burst_micro.get());
            let bucket = Policy { tokens: full, burst_micro, filled_ms, hour, ..Policy::default() };
            *row = Policy { since_ms: now_ms, acted_ms: now_ms, ..bucket };
        }
        row.pace(now_ms);
        row.tokens = row.tokens.min(full);
        (row.budget_micro, row.burst_micro) = (m.budget_micro.get(), m.burst_micro.get());
        (row.rent, row.price) = (m.rent_ticks.get(), m.price_ticks.get());
        (row.lead_ms, row.hold_ms) = (m.lead_ms.get(), m.hold_ms.get());
        row.step = m.step_vru.get().max(1);
        (row.session, row.slot) = session;
        (row.live, row.instance) = (1, instance);
        (row.resource, row.class, row.cover) = (resource as u8, class as u8, cover as u8);
        row.reviewed_ms = 0;
        self.policies.of[pocket(instance, resource)] = at as u16 + 1;
        self.policies.used = self.policies.used.max(at as u32 + 1);
        Ok(())
    }

    fn free_policy(&self) -> Option<usize> {
        self.policies.rows.iter().position(|row| row.live == 0)
    }

    fn forget_policy(&mut self, at: usize) {
        let row = std::mem::take(&mut self.policies.rows[at]);
        self.policies.of[pocket(row.instance, row.resource())] = 0;
    }

    /// An instance goes, and its policies with it. Its leases have ended.
    pub(super) fn forget_policies(&mut self, instance: u16) {
        for &resource in Resource::ALL {
            if let Some(at) = self.policies.of(instance, resource) {
                self.forget_policy(at);
            }
        }
    }

    // ---- what leases and meters tell -----------------------------------------------------

    /// Takes what is to be held for a policy's lease out of its bucket, if it is there.
    pub(super) fn policy_holds(&mut self, policy: u32, lack: u64) -> bool {
        let Some(at) = (policy as usize).checked_sub(1) else { return true };
        let now_ms = self.now_ms();
        let row = &mut self.policies.rows[at];
        row.pace(now_ms);
        if row.left_micro() < lack {
            return false;
        }
        row.charge(lack);
        row.charged_micro += lack;
        true
    }

    /// A policy's lease is over: what was still held for it goes back into the bucket.
    pub(super) fn policy_lease_ended(&mut self, policy: u32, held: u64) {
        let Some(at) = (policy as usize).checked_sub(1) else { return };
        let now_ms = self.now_ms();
        let row = &mut self.policies.rows[at];
        row.pace(now_ms);
        row.refund(held);
        (row.charged_micro, row.held_micro, row.handle, row.leases) = (0, 0, 0, 0);
    }

    /// Use was reported, of what leases cover too.
    pub(super) fn policy_used(&mut self, instance: u16, resource: Resource, used_milli: u64) {
        if let Some(at) = self.policies.of(instance, resource) {
            let row = &mut self.policies.rows[at];
            row.used_milli = row.used_milli.saturating_add(used_milli);
            self.experiment_used(instance, resource, used_milli);
        }
    }

    /// The daemon starts again: nothing was measured while it was down, and no budget accrued.
    pub(super) fn restart_policies(&mut self) {
        let now_ms = self.now_ms();
        for row in self.policies.rows[..self.policies.used as usize].iter_mut() {
            (row.filled_ms, row.since_ms, row.used_milli) = (now_ms, now_ms, 0);
        }
    }

    // ---- time ----------------------------------------------------------------------------

    /// Looks at the policies whose turn it is.
    pub(super) fn tick_policies(&mut self, env: &Envelope, now_ms: u64, out: &mut Outbox) {
        let (used, before) = (self.policies.used, out.bytes().len());
        let most = Outbox::lease_bytes(&self.genesis) + SAID_BYTES;
        if self.tick_experiments(env, now_ms, out) {
            return;
        }
        for _ in 0..used.min(PER_TICK) {
            let at = self.policies.turn as usize;
            self.policies.turn = (self.policies.turn + 1) % used;
            let row = &self.policies.rows[at];
            if row.live == 1 && now_ms.saturating_sub(row.reviewed_ms) >= REVIEW_MS {
                self.review(env, at, now_ms, out);
            }
            // The rest has its turn in the next tick.
            if out.bytes().len() - before > most {
                break;
            }
        }
    }

    fn review(&mut self, env: &Envelope, at: usize, now_ms: u64, out: &mut Outbox) {
        let env = &Envelope { session: self.broker(), request: 0, connection: ANY, ..*env };
        self.measure(at, now_ms);
        let look = self.inspect(at, now_ms);
        let row = self.policies.rows[at];
        let wanted = look.lease.map_or(0, |(_, lease)| u64::from(lease.wanted));
        let target = if look.leases { look.lacks.min(look.affords) } else { 0 };
        let held_back = now_ms.saturating_sub(row.acted_ms) < u64::from(row.hold_ms);
        let step = u64::from(row.step);
        // Less than it lacks, because it cannot pay for more.
        let short = look.leases && look.affords < look.lacks;
        let reason = if short { PolicyReason::Budget } else { look.reason };
        if target > wanted && (wanted == 0 || target - wanted >= step) {
            self.lease(env, &look, target, reason, out);
        } else if target < wanted
            && (target == 0 || wanted - target >= step)
            && (short || !held_back)
        {
            match target {
                0 => self.release(env, at, reason, out),
                _ => self.lease(env, &look, target, reason, out),
            }
        } else if target == 0 && wanted == 0 {
            self.stand(at, reason, out);
        }
        let waits = look.lease.map_or(0, |(_, lease)| lease.waits().into());
        let lacks = if look.leases { look.lacks.min(waits) } else { look.lacks };
        if let Some(ask) = look.ask
            && lacks > 0
        {
            self.buy(env, &look, ask, lacks, out);
        }
    }

    /// Brings what an instance was measured to use up to now.
    fn measure(&mut self, at: usize, now_ms: u64) {
        let row = self.policies.rows[at];
        let elapsed_ms = now_ms.saturating_sub(row.since_ms);
        let mut measured = u64::from(row.measured);
        if elapsed_ms >= REVIEW_MS {
            measured = row.used_milli.div_ceil(elapsed_ms);
            let (may, _) = self.entitlement(row.instance, row.resource()).unwrap_or((0, 1));
            // Who uses all that it may would use more.
            if measured > 0 && u128::from(measured) * 100 >= u128::from(may) * 95 {
                measured += measured / 4 + 1;
            }
        }
        let row = &mut self.policies.rows[at];
        row.pace(now_ms);
        row.reviewed_ms = now_ms;
        if elapsed_ms >= REVIEW_MS {
            (row.used_milli, row.since_ms) = (0, now_ms);
            row.measured = u32::try_from(measured).unwrap_or(u32::MAX);
        }
    }

    /// VRUs that an instance will need within its policy's lead, and why that is known.
    fn need(&self, row: &Policy, now_ms: u64) -> (u32, PolicyReason) {
        let until_ms = now_ms + u64::from(row.lead_ms);
        let measured = (row.measured, PolicyReason::Measured);
        if row.cover == Cover::Measured as u8 {
            return measured;
        }
        let near = self.foreseen(row.instance, row.resource(), until_ms);
        if let Some(need) = near.map(|window| window.vru[usize::from(row.cover) % 3]).max() {
            return (need, PolicyReason::Forecast);
        }
        // It goes on as it is, but for what is planned.
        let events = self.plan.of(row.instance, row.resource());
        match shifted(events, row.measured, now_ms, until_ms + 1) {
            same if same == row.measured => measured,
            need => (need, PolicyReason::Forecast),
        }
    }

    fn inspect(&mut self, at: usize, now_ms: u64) -> Look {
        let row = self.policies.rows[at];
        let (instance, resource) = (row.instance, row.resource());
        let frozen = self.instances[usize::from(instance)].is_frozen();
        let (need, why) = self.need(&row, now_ms);
        let need = if frozen { 0 } else { need };
        self.policies.rows[at].need = need;
        let slot = self.rentals.find(row.handle).filter(|_| row.leases == 1);
        let lease = slot.map(|slot| (slot, self.rentals.leases[slot as usize]));
        let granted = lease.map_or(0, |(_, lease)| u64::from(lease.granted));
        let lacks = u64::from(need).saturating_sub(self.firm_vru(instance, resource) - granted);
        let tier = self.instances[usize::from(instance)].tier;
        let book = usize::from(self.book_of[usize::from(tier)][resource as usize]);
        let rent = self.rentals.books[book].meters[usize::from(row.class)].rent;
        let ask = self.ask_for(&row, book, need);
        let may_lease = row.rent > 0 && rent <= row.rent;
        // Micro-units of a VRU-second, times the denominators of fee and price of use.
        let lease_cost = u128::from(rent) * 10_000 * u128::from(MILLI);
        let use_milli = self.rounds[book].clearing_milli.max(MILLI);
        let fee = 10_000 + u128::from(self.fees.taker_bps);
        let credit_cost = u128::from(ask.unwrap_or(0)) * fee * u128::from(use_milli);
        let percent = match row.act {
            _ if row.leases == 1 => 90,
            act if act == PolicyAct::Buy as u8 => 110,
            _ => 100,
        };
        let cheaper = lease_cost * percent <= credit_cost * 100;
        let leases = may_lease && (ask.is_none() || cheaper);
        let reason = match () {
            () if lacks == 0 => PolicyReason::Enough,
            () if !leases && ask.is_none() => PolicyReason::TooDear,
            () if leases != may_lease && row.leases == 1 => PolicyReason::Cheaper,
            () => why,
        };
        let affords = self.affords(&row, book, lease, rent);
        Look { at, book, lacks, reason, lease, leases, ask, affords }
    }

    /// The best ask, if credits at that price are a way for an instance to get at so many VRUs.
    fn ask_for(&self, row: &Policy, book: usize, need: u32) -> Option<u16> {
        let (book, resource) = (&self.books[book], row.resource());
        let baseline = self.instances[usize::from(row.instance)].baseline_vru[resource as usize];
        let own = baseline - self.holding(row.instance, resource).lent;
        let ask = book.best(Side::Sell);
        let dear = ask == 0 || u32::from(ask) > row.price;
        let beyond = u64::from(need) > book.uncapped_vru(own).min(book.capacity_vru);
        (!dear && !beyond && book.phase == Phase::Continuous).then_some(ask)
    }

    /// VRUs whose rent a policy can pay: hold it, and bear it for a while.
    fn affords(&self, row: &Policy, book: usize, lease: Option<(u32, Lease)>, rent: u32) -> u64 {
        let held = lease.map_or(0, |(slot, lease)| {
            u128::from(lease.held_micro).saturating_sub(self.owes(slot))
        });
        let has = u128::from(row.left_micro()) + held;
        let tick = u128::from(self.books[book].tick_micro);
        let hold = u128::from(row.rent) * tick * COVER_S;
        let bear = u128::from(rent) * tick * u128::from(LAST_S);
        let flows = u128::from(row.budget_micro) * u128::from(LAST_S) / 3600;
        let most = (has / hold.max(1)).min((has + flows) / bear.max(1));
        most.min(self.books[book].capacity_vru.into()) as u64
    }

    // ---- acts ----------------------------------------------------------------------------

    /// Bids for a lease, or changes that which there is.
    fn lease(
        &mut self,
        env: &Envelope,
        look: &Look,
        vru: u64,
        reason: PolicyReason,
        out: &mut Outbox,
    ) {
        let row = self.policies.rows[look.at];
        let client_id = (self.sessions[env.session as usize].last_client_id + 1).into();
        let vru = u32::try_from(vru).unwrap_or(u32::MAX);
        let (class, resource) =
            (LeaseClass::ALL[usize::from(row.class) % LeaseClass::ALL.len()], row.resource());
        let done = if look.lease.is_some() {
            let handle = row.handle.into();
            let m = ChangeLease { client_id, handle, vru: vru.into(), rent_ticks: row.rent.into() };
            self.change_lease(env, &m, out).map(|()| row.handle)
        } else {
            let m = BidLease {
                client_id,
                instance: u32::from(row.instance).into(),
                amount: vru.into(),
                rent_ticks: row.rent.into(),
                resource: row.resource,
                class: row.class,
                ..BidLease::zeroed()
            };
            let bid = self.bid_lease(env, &m, (resource, class), out);
            // The newest of the instance's leases is this one.
            bid.map(|()| self.newest_lease(row.instance, resource))
        };
        let (act, code) = match done {
            Ok(handle) => {
                self.charge_lease(look.at, handle);
                (PolicyAct::Lease, None)
            }
            Err(code) => (PolicyAct::Nothing, Some(code)),
        };
        self.tell_policy(look.at, (act, reason, code), (vru, row.rent), out);
    }

    /// The handle of the lease that an instance bid for last.
    fn newest_lease(&self, instance: u16, resource: Resource) -> u64 {
        let slot = self.rentals.newest_of(pocket(instance, resource));
        slot.map_or(0, |slot| self.rentals.handle(slot))
    }

    /// Takes what a policy's lease paid and holds more than before out of its bucket.
    fn charge_lease(&mut self, at: usize, handle: u64) {
        let Some(slot) = self.rentals.find(handle) else { return };
        let lease = &mut self.rentals.leases[slot as usize];
        lease.policy = at as u32 + 1;
        let charged = lease.paid_micro + lease.held_micro;
        let row = &mut self.policies.rows[at];
        assert!(
            charged.saturating_sub(row.charged_micro) <= row.left_micro(),
            "a policy's lease holds more than its budget"
        );
        row.charge(charged.saturating_sub(row.charged_micro));
        row.refund(row.charged_micro.saturating_sub(charged));
        (row.charged_micro, row.held_micro) = (charged, lease.held_micro);
        (row.handle, row.leases) = (handle, 1);
    }

    /// Ends a policy's lease, if it has one.
    fn release(&mut self, env: &Envelope, at: usize, reason: PolicyReason, out: &mut Outbox) {
        let row = self.policies.rows[at];
        if row.leases == 0 {
            return;
        }
        let env = &Envelope { session: self.broker(), request: 0, connection: ANY, ..*env };
        let client_id = (self.sessions[env.session as usize].last_client_id + 1).into();
        let m = CancelLease { client_id, handle: row.handle.into() };
        let code = self.cancel_lease(env, &m, out).err();
        self.tell_policy(at, (PolicyAct::Release, reason, code), (0, row.rent), out);
    }

    /// Buys credits for what is lacking, at the best ask.
    fn buy(&mut self, env: &Envelope, look: &Look, ask: u16, lacks: u64, out: &mut Outbox) {
        let row = self.policies.rows[look.at];
        let free = self.ledger.credit(row.instance, row.resource()).free;
        let wants = lacks.saturating_mul(AHEAD_S * MILLI);
        // Not a credit at a time.
        if free >= wants / 2 {
            return;
        }
        let book = &self.books[look.book];
        let unit = u128::from(ask) * u128::from(book.tick_micro);
        let bps = u128::from(self.fees.taker_bps.max(self.fees.maker_bps));
        // Fees are rounded up: a micro-unit each for the fee and for what is held of it.
        let left = u128::from(row.left_micro().saturating_sub(2)) * 10_000;
        let affords = left / (unit * (10_000 + bps)).max(1);
        let credits = (wants - free).div_ceil(MILLI).min(book.quantity_max.into());
        let credits = u128::from(credits).min(affords) as u32;
        if credits == 0 {
            return self.stand(look.at, PolicyReason::Budget, out);
        }
        let m = NewOrder {
            client_id: (self.sessions[env.session as usize].last_client_id + 1).into(),
            instance: u32::from(row.instance).into(),
            price_ticks: u32::from(ask).into(),
            quantity: credits.into(),
            book: (look.book as u16).into(),
            side: Side::Buy as u8,
            time_in_force: TimeInForce::Ioc as u8,
            ..NewOrder::zeroed()
        };
        let style =
            Style { order_type: OrderType::Limit, time_in_force: TimeInForce::Ioc, ..Style::PLAIN };
        let terms = NewOrderTerms { message: &m, side: Side::Buy, style: Some(style) };
        let funds = |machine: &Machine| {
            let balance = machine.ledger.funds()
                [usize::from(machine.owner[usize::from(row.instance)])]
            .balance;
            balance.free + balance.held
        };
        let credits_of = |machine: &Machine| {
            let balance = machine.ledger.credit(row.instance, row.resource());
            balance.free + balance.held
        };
        let before = (funds(self), credits_of(self));
        let code = self.new_order(env, &terms, out).err();
        let spent = before.0 - funds(self);
        let bought = (credits_of(self) - before.1) / MILLI;
        let policy = &mut self.policies.rows[look.at];
        assert!(spent <= policy.left_micro(), "a policy buys for more than its budget");
        policy.charge(spent);
        policy.bought += bought;
        if bought > 0 || code.is_some() {
            let act = if bought > 0 { PolicyAct::Buy } else { PolicyAct::Nothing };
            let told = (act, look.reason, code);
            self.tell_policy(look.at, told, (bought as u32, ask.into()), out);
        }
    }

    /// Nothing is done. It is told once why, where something should have been.
    fn stand(&mut self, at: usize, reason: PolicyReason, out: &mut Outbox) {
        let row = &mut self.policies.rows[at];
        let news = row.reason != reason as u8;
        let worth = matches!(reason, PolicyReason::Budget | PolicyReason::TooDear);
        if news && worth {
            self.tell_policy(at, (PolicyAct::Nothing, reason, None), (0, 0), out);
        } else if news && row.act == PolicyAct::Nothing as u8 {
            row.reason = reason as u8;
        }
    }

    fn tell_policy(
        &mut self,
        at: usize,
        (act, reason, code): (PolicyAct, PolicyReason, Option<Reject>),
        (amount, price): (u32, u32),
        out: &mut Outbox,
    ) {
        let (now_ms, time_ns) = (self.now_ms(), self.time_ns);
        let row = &mut self.policies.rows[at];
        let refused = code.map_or(0, |code| code as u8);
        // What is refused again and again is told once.
        let again =
            refused != 0 && (row.act, row.reason, row.code) == (act as u8, reason as u8, refused);
        (row.act, row.reason, row.code) = (act as u8, reason as u8, refused);
        if again {
            return;
        }
        if refused == 0 && act != PolicyAct::Nothing {
            row.acted_ms = now_ms;
        }
        let row = self.policies.rows[at];
        let to = self.addressee(row.slot, row.session);
        let report = PolicyActed {
            time_ns: time_ns.into(),
            handle: row.handle.into(),
            spent_micro: row.spent_micro.into(),
            left_micro: row.left_micro().into(),
            instance: u32::from(row.instance).into(),
            need_vru: row.need.into(),
            amount: amount.into(),
            price_ticks: price.into(),
            resource: row.resource,
            act: row.act,
            reason: row.reason,
            code: row.code,
            reserved: [0; 4],
        };
        self.fold(u64::from(amount) << 32 ^ (at as u64) << 8 ^ act as u64);
        out.push(to, &report);
    }

    // ---- questions -----------------------------------------------------------------------

    fn policy_row(&self, row: &Policy) -> PolicyRow {
        let mut now = *row;
        now.pace(self.now_ms());
        let lease = self.rentals.find(row.handle).filter(|_| row.leases == 1);
        let lease = lease.map(|slot| self.rentals.leases[slot as usize]);
        PolicyRow {
            budget_micro: row.budget_micro.into(),
            burst_micro: row.burst_micro.into(),
            left_micro: now.left_micro().into(),
            hour_micro: now.hour_micro.into(),
            spent_micro: row.spent_micro.into(),
            bought_credits: row.bought.into(),
            handle: row.handle.into(),
            acted_at_ms: row.acted_ms.into(),
            instance: u32::from(row.instance).into(),
            need_vru: row.need.into(),
            wanted_vru: lease.map_or(0, |lease| lease.wanted).into(),
            granted_vru: lease.map_or(0, |lease| lease.granted).into(),
            rent_ticks: row.rent.into(),
            price_ticks: row.price.into(),
            lead_ms: row.lead_ms.into(),
            hold_ms: row.hold_ms.into(),
            step_vru: row.step.into(),
            resource: row.resource,
            class: row.class,
            cover: row.cover,
            act: row.act,
            reason: row.reason,
            code: row.code,
            reserved: [0; 6],
        }
    }

    /// Policies, to those whose instances they are of.
    pub(super) fn policy_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let sight = self.sight(env);
        let rows = self.policies.rows[..self.policies.used as usize].iter().enumerate();
        let rows = rows.skip(from as usize).filter(|(_, row)| row.live == 1);
        let mut shown =
            rows.filter(|(_, row)| self.shows_instance(sight, row.instance.into())).take(PAGE + 1);
        for (_, row) in shown.by_ref().take(PAGE) {
            out.push(env.connection, &self.policy_row(row));
        }
        end(env, shown.next().map_or(LAST, |(at, _)| at as u64), out);
    }

    /// False if leases and policies do not know one another.
    pub(super) fn policies_are_whole(&self) -> bool {
        let rows = &self.policies.rows[..self.policies.used as usize];
        let leases_known =
            rows.iter().enumerate().filter(|(_, row)| row.leases == 1).all(|(at, row)| {
                let slot = self.rentals.find(row.handle);
                slot.is_some_and(|slot| {
                    self.rentals.leases[slot as usize].policy as usize == at + 1
                })
            });
        let policies_known =
            self.rentals.leases.iter().filter(|lease| lease.policy > 0).all(|lease| {
                let row = rows.get(lease.policy as usize - 1);
                row.is_some_and(|row| row.leases == 1 && row.instance == lease.instance)
            });
        let bounded = rows.iter().all(|row| {
            row.act as usize <= PolicyAct::ALL.len()
                && row.class < 3
                && row.burst_micro <= row.budget_micro
        });
        leases_known && policies_known && bounded
    }
}

/// Checks what no book is needed for.
pub(super) fn check(m: &SetPolicy) -> Result<(), Reject> {
    let most = vendue_wire::message::FORECAST_MS_MAX;
    let within = m.lead_ms.get() <= most && m.hold_ms.get() <= HOLD_MAX_MS;
    if within && m.burst_micro.get() <= m.budget_micro.get() {
        Ok(())
    } else {
        Err(Reject::BadField)
    }
}
