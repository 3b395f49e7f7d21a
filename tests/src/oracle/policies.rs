//! Standing policies, said as simply as possible: what a policy may spend is reckoned anew each time
//! from all that it ever spent.

use super::{Caller, Market, Said};
use vendue_wire::code::{Phase, PolicyAct, PolicyReason, Reject, Side};
use vendue_wire::message::{ANY, BidLease, Body, CancelLease, ChangeLease, NewOrder, SetPolicy};

const HOUR_MS: i128 = 3_600_000;

/// Something that befell a budget.
#[derive(Clone, Copy, Debug)]
enum Flow {
    /// Budget and burst are others.
    Rates(i128, i128),
    /// Micro-units spent or, below zero, given back.
    Spent(i128),
    /// So much is held for the lease from now on.
    Holds(i128),
}

/// A policy.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the message's fields; what is not plain is explained")]
pub struct Policy {
    pub slot: usize,
    pub instance: u32,
    pub resource: usize,
    pub class: u8,
    pub cover: u8,
    pub budget: i128,
    burst: i128,
    pub rent: i128,
    pub price: i128,
    lead_ms: i128,
    hold_ms: i128,
    step: i128,
    pub(super) session: (u32, u64),
    /// When, milliseconds.
    flows: Vec<(i128, Flow)>,
    pub acted_ms: i128,
    reviewed_ms: Option<i128>,
    used: i128,
    since_ms: i128,
    measured: i128,
    pub need: i128,
    pub bought: i128,
    pub act: u8,
    pub reason: u8,
    pub code: u8,
    /// Handle of its lease.
    pub lease: Option<u64>,
    /// What was taken for the lease.
    charged: i128,
}

impl Policy {
    /// Micro-units that it may spend at a time, and those of its hour, from the beginning on.
    pub fn reckon(&self, now_ms: i128) -> (i128, i128) {
        let (mut bucket, mut budget, mut burst) = (None, 0, 0);
        let (mut filled_ms, mut hour, mut spent, mut holds) = (0, -1, 0, 0);
        for &(at_ms, flow) in self.flows.iter().chain([&(now_ms, Flow::Spent(0))]) {
            let more = budget * (at_ms - filled_ms);
            bucket = bucket.map(|has: i128| (has + more).min(burst * HOUR_MS));
            if at_ms / HOUR_MS != hour {
                (hour, spent) = (at_ms / HOUR_MS, holds);
            }
            filled_ms = at_ms;
            match flow {
                Flow::Rates(an_hour, most) => {
                    (budget, burst) = (an_hour, most);
                    bucket = Some(bucket.unwrap_or(burst * HOUR_MS).min(burst * HOUR_MS));
                }
                Flow::Spent(micro) => {
                    bucket = bucket.map(|has| (has - micro * HOUR_MS).min(burst * HOUR_MS));
                    spent = (spent + micro).max(0);
                }
                Flow::Holds(micro) => holds = micro,
            }
        }
        let left = (bucket.unwrap_or(0) / HOUR_MS).min((budget - spent).max(0));
        (left, spent)
    }

    /// What it was set to.
    pub(super) fn terms(&self) -> SetPolicy {
        SetPolicy {
            client_id: 0.into(),
            budget_micro: (self.budget as u64).into(),
            burst_micro: (self.burst as u64).into(),
            instance: self.instance.into(),
            rent_ticks: (self.rent as u32).into(),
            price_ticks: (self.price as u32).into(),
            lead_ms: (self.lead_ms as u32).into(),
            hold_ms: (self.hold_ms as u32).into(),
            step_vru: (self.step as u32).into(),
            resource: self.resource as u8,
            class: self.class,
            cover: self.cover,
            reserved: [0; 5],
        }
    }

    /// All that it spent.
    pub fn spent(&self) -> i128 {
        let spent =
            self.flows.iter().map(|flow| if let Flow::Spent(micro) = flow.1 { micro } else { 0 });
        spent.sum()
    }
}

/// What leases and meters tell policies.
impl Market {
    pub(super) fn policy_with(&mut self, handle: u64) -> Option<&mut Policy> {
        self.policies.iter_mut().find(|policy| policy.lease == Some(handle))
    }

    /// True if a lease is no policy's, or its budget can hold so much more for it, which is then spent.
    pub(super) fn policy_holds(&mut self, handle: u64, lack: i128) -> bool {
        let now_ms = self.leases.now_ms;
        let Some(policy) = self.policy_with(handle) else { return true };
        let may = policy.reckon(now_ms).0 >= lack;
        if may {
            policy.flows.push((now_ms, Flow::Spent(lack)));
            policy.charged += lack;
        }
        may
    }

    pub(super) fn policy_lease_ended(&mut self, handle: u64, held: i128) {
        let now_ms = self.leases.now_ms;
        let Some(policy) = self.policy_with(handle) else { return };
        policy.flows.push((now_ms, Flow::Spent(-held)));
        policy.flows.push((now_ms, Flow::Holds(0)));
        (policy.lease, policy.charged) = (None, 0);
    }

    pub(super) fn policy_used(&mut self, instance: u32, resource: usize, used: u64) {
        let own = |policy: &&mut Policy| (policy.instance, policy.resource) == (instance, resource);
        if let Some(policy) = self.policies.iter_mut().find(own) {
            policy.used = (policy.used + i128::from(used)).min(u64::MAX.into());
            self.experiment_used(instance, resource, used);
        }
    }
}

/// Requests, and what policies do.
impl Market {
    pub(super) fn set_policy(&mut self, who: &Caller, m: &SetPolicy) -> Result<(), Reject> {
        let (client_id, instance) = (m.client_id.get(), m.instance.get());
        let resource = usize::from(m.resource);
        self.fresh(who, client_id)?;
        self.may_act(who, instance)?;
        let tier = self.instances[&instance].tier;
        let book = self.book_of(tier, resource).ok_or(Reject::UnknownBook)?;
        let (rent, price) = (i128::from(m.rent_ticks.get()), i128::from(m.price_ticks.get()));
        if rent > self.books[book].price_max || price > self.books[book].price_max {
            return Err(Reject::BadPrice);
        }
        let of = |policy: &Policy| (policy.instance, policy.resource) == (instance, resource);
        let known = self.policies.iter().position(of);
        if known.is_none() && m.budget_micro.get() > 0 && self.policies.len() >= 1024 {
            return Err(Reject::PoliciesFull);
        }
        self.use_id(who, client_id);
        self.done(who, SetPolicy::KIND, client_id, known.is_some().into());
        self.leave_experiment(who, m);
        if let Some(at) = known {
            self.release(who, at, PolicyReason::Removed);
        }
        if m.budget_micro.get() == 0 {
            if let Some(at) = known {
                self.policies.remove(at);
            }
            return Ok(());
        }
        let now_ms = self.leases.now_ms;
        let at = known.unwrap_or_else(|| self.blank_policy(instance, resource));
        let session = (who.session, self.sessions[who.session as usize].number);
        let policy = &mut self.policies[at];
        let rates = Flow::Rates(m.budget_micro.get().into(), m.burst_micro.get().into());
        policy.flows.push((now_ms, rates));
        (policy.budget, policy.rent, policy.price) = (m.budget_micro.get().into(), rent, price);
        (policy.lead_ms, policy.hold_ms) = (m.lead_ms.get().into(), m.hold_ms.get().into());
        policy.burst = m.burst_micro.get().into();
        policy.step = i128::from(m.step_vru.get()).max(1);
        (policy.class, policy.cover, policy.session) = (m.class, m.cover, session);
        policy.reviewed_ms = None;
        Ok(())
    }

    /// A policy that says nothing yet, in the first free slot.
    fn blank_policy(&mut self, instance: u32, resource: usize) -> usize {
        let now_ms = self.leases.now_ms;
        let taken = |slot: &usize| self.policies.iter().any(|policy| policy.slot == *slot);
        let slot = (0..).find(|slot| !taken(slot)).expect("a free slot");
        self.policy_slots = self.policy_slots.max(slot + 1);
        self.policies.push(Policy {
            slot,
            instance,
            resource,
            class: 0,
            cover: 0,
            budget: 0,
            burst: 0,
            rent: 0,
            price: 0,
            lead_ms: 0,
            hold_ms: 0,
            step: 1,
            session: (0, 0),
            flows: Vec::new(),
            acted_ms: now_ms,
            reviewed_ms: None,
            used: 0,
            since_ms: now_ms,
            measured: 0,
            need: 0,
            bought: 0,
            act: 0,
            reason: 0,
            code: 0,
            lease: None,
            charged: 0,
        });
        self.policies.len() - 1
    }

    /// Each slot has its turn; a free one too.
    pub(super) fn tick_policies(&mut self, who: &Caller) {
        if self.tick_experiments(who) {
            return;
        }
        let now_ms = self.leases.now_ms;
        for _ in 0..self.policy_slots.min(64) {
            let slot = self.policy_turn;
            self.policy_turn = (slot + 1) % self.policy_slots;
            let Some(at) = self.policies.iter().position(|policy| policy.slot == slot) else {
                continue;
            };
            if self.policies[at].reviewed_ms.is_none_or(|last| now_ms >= last + 1000)
                && now_ms >= 1000
            {
                self.settle_bursts();
                self.review(who, at);
            }
        }
    }

    fn measure(&mut self, at: usize) {
        let now_ms = self.leases.now_ms;
        let Policy { instance, resource, used, since_ms, .. } = self.policies[at];
        let may = self.entitled(instance, resource).unwrap_or(0);
        let elapsed = now_ms - since_ms;
        let policy = &mut self.policies[at];
        policy.reviewed_ms = Some(now_ms);
        if elapsed >= 1000 {
            let rate = (used + elapsed - 1) / elapsed;
            let more = if rate > 0 && rate * 100 >= may * 95 { rate / 4 + 1 } else { 0 };
            policy.measured = (rate + more).min(u32::MAX.into());
            (policy.used, policy.since_ms) = (0, now_ms);
        }
    }

    /// What is needed, and why that is known.
    fn need(&self, at: usize) -> (i128, PolicyReason) {
        let policy = &self.policies[at];
        let until = self.leases.now_ms + policy.lead_ms;
        let near = self.standing(self.leases.time_ns).into_iter().filter(|forecast| {
            (forecast.of.0, forecast.of.1) == (policy.instance, policy.resource)
                && forecast.holds_ms.0 <= until
        });
        let (of, now) = ((policy.instance, policy.resource), self.leases.now_ms);
        let need = near.map(|forecast| {
            let (from, to) = (now.max(forecast.holds_ms.0), (until + 1).min(forecast.holds_ms.1));
            let vru = forecast.vru[usize::from(policy.cover) % 3];
            if forecast.of.2 == 0 { self.with_events(of, vru, from, to) } else { vru }
        });
        match need.max() {
            _ if policy.cover == 3 => (policy.measured, PolicyReason::Measured),
            Some(need) => (need, PolicyReason::Forecast),
            None => {
                let need = self.with_events(of, policy.measured, now, until + 1);
                let same = need == policy.measured;
                (need, if same { PolicyReason::Measured } else { PolicyReason::Forecast })
            }
        }
    }

    /// The best ask, if credits at that price are a way to so many VRUs.
    fn ask_for(&self, policy: &Policy, book: usize, need: i128) -> Option<i128> {
        let (instance, resource) = (policy.instance, policy.resource);
        let own = self.instances[&instance].baseline[resource] - self.leased(instance, resource).1;
        let row = &self.books[book];
        let ceiling = (own * row.burst_percent / 100).min(row.capacity_vru);
        let asks =
            self.orders.iter().filter(|order| (order.book, order.side) == (book, Side::Sell));
        let may = need <= ceiling && row.phase == Phase::Continuous;
        asks.map(|order| order.price).min().filter(|&ask| ask <= policy.price && may)
    }

    fn review(&mut self, who: &Caller, at: usize) {
        let who = &Caller { session: self.rules.sessions_max as u32, request: 0, ..*who };
        self.measure(at);
        let now_ms = self.leases.now_ms;
        let (need, known) = self.need(at);
        let Policy { instance, resource, class, rent, step, .. } = self.policies[at];
        let need = if self.instances[&instance].frozen { 0 } else { need };
        self.policies[at].need = need;
        let policy = self.policies[at].clone();
        let book = self.book_of(self.instances[&instance].tier, resource).expect("of its tier");
        let lease =
            self.leases.all.iter().find(|lease| policy.lease == Some(lease.handle)).copied();
        let (wanted, granted) = lease.map_or((0, 0), |lease| (lease.wanted, lease.granted));
        let lacks = (need - (self.firm(instance, resource) - granted)).max(0);

        let rent_now = self.leases.rents[book][usize::from(class)];
        let may_lease = rent > 0 && rent_now <= rent;
        let ask = self.ask_for(&policy, book, need);
        let cost = rent_now * 10_000 * 1000;
        let other = ask.unwrap_or(0)
            * (10_000 + self.rules.taker_fee_bps)
            * self.books[book].clearing.max(1000);
        let percent = match policy.lease {
            Some(_) => 90,
            None if policy.act == PolicyAct::Buy as u8 => 110,
            None => 100,
        };
        let leases = may_lease && (ask.is_none() || cost * percent <= other * 100);

        let held = lease.map_or(0, |lease| (lease.held - (lease.owed + 999) / 1000).max(0));
        let tick = self.books[book].tick_micro;
        let has = policy.reckon(now_ms).0 + held;
        let flows = policy.budget * 60 / 3600;
        let affords =
            (has / (rent * tick * 10).max(1)).min((has + flows) / (rent_now * tick * 60).max(1));
        let affords = affords.min(self.books[book].capacity_vru);

        let reason = if leases && affords < lacks {
            PolicyReason::Budget
        } else if lacks == 0 {
            PolicyReason::Enough
        } else if !leases && ask.is_none() {
            PolicyReason::TooDear
        } else if may_lease && !leases && policy.lease.is_some() {
            PolicyReason::Cheaper
        } else {
            known
        };
        let why = if reason == PolicyReason::Budget { known } else { reason };
        let target = if leases { lacks.min(affords) } else { 0 };
        let rests = now_ms < policy.acted_ms + policy.hold_ms;
        let shrinks = target < wanted && (target == 0 || wanted - target >= step);
        if target > wanted && (wanted == 0 || target - wanted >= step) {
            self.take_lease(who, at, target, reason);
        } else if shrinks && (reason == PolicyReason::Budget || !rests) {
            if target == 0 {
                self.release(who, at, reason);
            } else {
                self.take_lease(who, at, target, reason);
            }
        } else if target == 0 && wanted == 0 {
            self.stand(at, reason);
        }
        let lacks = if leases { lacks.min(wanted - granted) } else { lacks };
        if let Some(ask) = ask.filter(|_| lacks > 0) {
            self.buy(who, at, book, (ask, lacks), why);
        }
    }

    pub(super) fn next_id(&self, who: &Caller) -> u64 {
        self.sessions[who.session as usize].last_client_id + 1
    }

    fn take_lease(&mut self, who: &Caller, at: usize, vru: i128, reason: PolicyReason) {
        let policy = self.policies[at].clone();
        let client_id = self.next_id(who).into();
        let (vru, rent) = ((vru as u32).into(), (policy.rent as u32).into());
        let result = if let Some(handle) = policy.lease {
            let m = ChangeLease { client_id, handle: handle.into(), vru, rent_ticks: rent };
            self.change_lease(who, &m).map(|()| handle)
        } else {
            let m = BidLease {
                client_id,
                instance: policy.instance.into(),
                amount: vru,
                rent_ticks: rent,
                resource: policy.resource as u8,
                class: policy.class,
                ..BidLease::zeroed()
            };
            let newest = |market: &Market| {
                let last = market.leases.all.iter().max_by_key(|lease| lease.number);
                last.expect("the one just bid for").handle
            };
            self.bid_lease(who, &m).map(|()| newest(self))
        };
        if let Ok(handle) = result {
            let lease = self.leases.all.iter().find(|lease| lease.handle == handle);
            let lease = *lease.expect("it stands");
            let now_ms = self.leases.now_ms;
            let policy = &mut self.policies[at];
            policy.flows.push((now_ms, Flow::Spent(lease.paid + lease.held - policy.charged)));
            policy.flows.push((now_ms, Flow::Holds(lease.held)));
            policy.charged = lease.paid + lease.held;
            policy.lease = Some(handle);
        }
        let act = if result.is_ok() { PolicyAct::Lease } else { PolicyAct::Nothing };
        self.say_policy(at, (act, reason, result.err()), (vru.get(), rent.get()));
    }

    fn release(&mut self, who: &Caller, at: usize, reason: PolicyReason) {
        let Some(handle) = self.policies[at].lease else { return };
        let who = &Caller { session: self.rules.sessions_max as u32, request: 0, ..*who };
        let m = CancelLease { client_id: self.next_id(who).into(), handle: handle.into() };
        let code = self.cancel_lease(who, &m).err();
        let rent = self.policies[at].rent as u32;
        self.say_policy(at, (PolicyAct::Release, reason, code), (0, rent));
    }

    fn buy(
        &mut self,
        who: &Caller,
        at: usize,
        book: usize,
        (ask, lacks): (i128, i128),
        why: PolicyReason,
    ) {
        let Policy { instance, resource, .. } = self.policies[at];
        let row = self.instances[&instance];
        let wants = lacks * 10 * 1000;
        if row.free[resource] >= wants / 2 {
            return;
        }
        let bps = self.rules.taker_fee_bps.max(self.rules.maker_fee_bps);
        let left = (self.policies[at].reckon(self.leases.now_ms).0 - 2).max(0) * 10_000;
        let affords = left / (ask * self.books[book].tick_micro * (10_000 + bps));
        let lack = (wants - row.free[resource] + 999) / 1000;
        let credits = lack.min(self.books[book].quantity_max).min(affords);
        if credits == 0 {
            return self.stand(at, PolicyReason::Budget);
        }
        let m = NewOrder {
            client_id: self.next_id(who).into(),
            instance: instance.into(),
            price_ticks: (ask as u32).into(),
            quantity: (credits as u32).into(),
            book: (book as u16).into(),
            side: Side::Buy as u8,
            time_in_force: 2,
            ..NewOrder::zeroed()
        };
        let funds = self.accounts[row.account].free;
        let code = self.new_order(who, &m).err();
        let spent = funds - self.accounts[row.account].free;
        let bought = (self.instances[&instance].free[resource] - row.free[resource]) / 1000;
        let now_ms = self.leases.now_ms;
        let policy = &mut self.policies[at];
        policy.flows.push((now_ms, Flow::Spent(spent)));
        policy.bought += bought;
        if bought > 0 || code.is_some() {
            let act = if bought > 0 { PolicyAct::Buy } else { PolicyAct::Nothing };
            self.say_policy(at, (act, why, code), (bought as u32, ask as u32));
        }
    }

    fn stand(&mut self, at: usize, reason: PolicyReason) {
        let policy = &mut self.policies[at];
        if policy.reason == reason as u8 {
            return;
        }
        if matches!(reason, PolicyReason::Budget | PolicyReason::TooDear) {
            self.say_policy(at, (PolicyAct::Nothing, reason, None), (0, 0));
        } else if policy.act == PolicyAct::Nothing as u8 {
            policy.reason = reason as u8;
        }
    }

    fn say_policy(
        &mut self,
        at: usize,
        (act, reason, code): (PolicyAct, PolicyReason, Option<Reject>),
        (amount, price): (u32, u32),
    ) {
        let now_ms = self.leases.now_ms;
        let policy = &mut self.policies[at];
        let news = (act as u8, reason as u8, code.map_or(0, |code| code as u8));
        let same = (policy.act, policy.reason, policy.code) == news;
        (policy.act, policy.reason, policy.code) = news;
        if code.is_some() && same {
            return;
        }
        if code.is_none() && act != PolicyAct::Nothing {
            policy.acted_ms = now_ms;
        }
        let (slot, number) = policy.session;
        let known = self.sessions.get(slot as usize).is_some_and(|row| row.number == number);
        let policy = &self.policies[at];
        self.said.push(Said::Policy {
            to: if known { slot } else { ANY },
            instance: policy.instance,
            resource: policy.resource,
            did: news,
            amount: (amount, price),
            need: policy.need,
            money: (policy.spent(), policy.reckon(now_ms).0),
            handle: policy.lease.unwrap_or(0),
        });
    }

    pub(super) fn forget_policies(&mut self, instance: u32) {
        self.policies.retain(|policy| policy.instance != instance);
    }
}
