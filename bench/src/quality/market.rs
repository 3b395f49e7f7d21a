//! The product itself: the real machine with an instance for each tenant.
//!
//! The machine gets what it gets on a host - time, measured use, bids - and what it answers is
//! obeyed as a kernel obeys it: caps as ceilings, weights by filling up evenly by weight until the
//! capacity is used. It never sees demand.

use std::collections::BTreeMap;

use hvctl::limit::{Knob, Setting};
use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{
    Command, DefineBook, DefineCredits, Envelope, Genesis, OpenSession, Tick, Usage,
};
use vendue_engine::machine::event::{Entitled, Outbox, Weighted};
use vendue_wire::code::{LeaseClass, LeaseOutcome, Resource, Role};
use vendue_wire::message::{
    ANY, BID_MILLI_MAX, BidLease, Body, CancelLease, ChangeLease, CreateAccount, CreateInstance,
    Deposit, Done, EntitleInstance, LeaseMoved, Rejected, SetBid, U32, field_cut,
};

use super::Grants;
use super::allocators::fill;
use super::setup::Case;

/// A quantum of a trace, milliseconds.
const QUANTUM_MS: u64 = 300_000;
/// Millicores of a VRU, which is a slice here.
const VRU_MILLICORES: u64 = 10;
/// Bytes of a page: weights do not depend on it.
const PAGE_BYTES: u64 = 4096;
/// A tenant bids what a slice is worth to it: so many milli-credits for each unit of value.
const BID_MILLI: u32 = 1000;

/// Ticks a VRU-second that a tenant pays in rent for a slice of value 1, at most. A tick is a
/// micro-unit.
const RENT_TICKS: u32 = 100;
/// The highest rent, ticks: what the most valuable slice is worth.
const RENT_TICKS_MAX: u32 = 1000;
/// Leases take what others hold once their hold of a second is over; so long a quantum's bids settle.
const SETTLE_MS: u64 = 2000;

/// What an operator may choose.
#[derive(Clone, Copy, Debug)]
struct Rules {
    credit_cap_s: u32,
    launch_s: u32,
    spent_percent: u32,
    /// Part of the fair shares that is reserved; the rest is for rent.
    reserved_percent: u32,
    /// Part of a fair share that an instance is entitled to lease in class sla, if it is critical.
    sla_percent: u32,
}

/// Savings for a week, half an hour of credits at launch, and what nobody wants is free: who has no
/// credits is held back by its weight alone.
const BY_WEIGHT: Rules = Rules {
    credit_cap_s: 7 * 86_400,
    launch_s: 1800,
    spent_percent: BURST_PERCENT,
    reserved_percent: 100,
    sla_percent: 0,
};
/// The daemon's defaults: savings for a day, and a cap at the baseline for who has none.
const DEFAULTS: Rules =
    Rules { credit_cap_s: 86_400, launch_s: 0, spent_percent: 100, ..BY_WEIGHT };
/// Half is reserved and half for rent.
const LEASES: Rules = Rules { reserved_percent: 50, ..BY_WEIGHT };
/// The same, and who is critical may have twice its fair share before all others.
const ENTITLED: Rules = Rules { sla_percent: 150, ..LEASES };
/// Tenants may use the whole host if nobody else wants it.
const BURST_PERCENT: u32 = 100_000;

/// What became of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What each tenant was granted.
    pub grants: Grants,
    /// What each paid in rent, in slices of value 1 for a quantum.
    pub paid: Vec<f64>,
}

impl Outcome {
    /// Of a market in which nobody pays rent.
    #[must_use]
    pub fn free(grants: Grants) -> Outcome {
        Outcome { paid: vec![0.0; grants.len()], grants }
    }
}

/// The market with weights alone.
#[must_use]
pub fn by_weight(case: &Case) -> Grants {
    Market::new(case, BY_WEIGHT).replay(case)
}

/// The market as the daemon's defaults have it.
#[must_use]
pub fn by_default(case: &Case) -> Grants {
    Market::new(case, DEFAULTS).replay(case)
}

/// Half of the host for rent: everyone bids for what it needs above its baseline, at what that is
/// worth to it, and weighs by such a bid too.
#[must_use]
pub fn by_lease(case: &Case) -> Outcome {
    rented(case, LEASES)
}

/// The same, and the operator gives those that are critical twice the means of others: money, and
/// leases of class sla.
#[must_use]
pub fn by_entitlement(case: &Case) -> Outcome {
    rented(case, ENTITLED)
}

fn rented(case: &Case, rules: Rules) -> Outcome {
    let mut market = Market::new(case, rules);
    let grants = market.replay(case);
    let unit = f64::from(RENT_TICKS) * QUANTUM_MS as f64 / 1000.0;
    let mut paid = vec![0.0; case.fair.len()];
    for &(instance, micro) in market.rents.values() {
        paid[instance as usize] += micro as f64 / unit;
    }
    Outcome { grants, paid }
}

struct Market {
    machine: Machine,
    outbox: Outbox,
    sequence: u64,
    time_ns: u64,
    rules: Rules,
    /// VRUs each instance may use, and what its `cpu.weight` would be.
    caps: BTreeMap<u32, f64>,
    weights: BTreeMap<u32, f64>,
    /// Leases that stand, by instance and class: handle, VRUs and rent.
    leases: BTreeMap<(u32, u8), (u64, u32, u32)>,
    /// Who has paid what, in micro-units, by handle.
    rents: BTreeMap<u64, (u32, u64)>,
    /// The value of the last answer.
    done: u64,
}

impl Market {
    fn new(case: &Case, rules: Rules) -> Market {
        let tenants = case.fair.len() as u32;
        let genesis = Genesis {
            accounts_max: tenants.into(),
            instances_max: tenants.into(),
            orders_max: 16.into(),
            orders_per_instance_max: 16.into(),
            sessions_max: 1.into(),
            credit_cap_s: rules.credit_cap_s.into(),
            burst_resume_ms: 5000.into(),
            limit_window_s: 3600.into(),
            reversible_trades: 0.into(),
            leases_max: (2 * tenants).max(64).into(),
            swap_every_ms: 0.into(),
            lease_margin_percent: 5.into(),
            maker_fee_bps: 0.into(),
            taker_fee_bps: 0.into(),
        };
        let machine = Machine::new(&genesis).expect("the replay's bounds are valid");
        let outbox = machine.outbox();
        // Time 0 is before all time to the machine.
        let time_ns = 1_000_000;
        let mut market = Market {
            machine,
            outbox,
            sequence: 0,
            time_ns,
            rules,
            caps: BTreeMap::new(),
            weights: BTreeMap::new(),
            leases: BTreeMap::new(),
            rents: BTreeMap::new(),
            done: 0,
        };
        market.tell(ANY, &genesis);
        market.tell(ANY, &book(case.capacity()));
        let mut credits = DefineCredits::usual(0, Resource::Cpu as u8);
        credits.launch_s = rules.launch_s.into();
        credits.spent_percent = rules.spent_percent.into();
        market.tell(ANY, &credits);
        let mut operator = OpenSession::zeroed();
        (operator.session, operator.role) = (1.into(), Role::Operator as u8);
        (operator.account, operator.instance) = (ANY.into(), ANY.into());
        market.tell(ANY, &operator);
        (0..tenants).for_each(|tenant| market.enter(case, tenant));
        market.tell(ANY, &Tick::zeroed());
        market
    }

    /// A tenant: its account, with money to rent what its fair share has above its baseline all the
    /// while, and its instance.
    fn enter(&mut self, case: &Case, tenant: u32) {
        let (name, fair) = (field_cut(&format!("tenant {tenant}")), case.fair[tenant as usize]);
        let client_id = self.sequence.into();
        self.tell(0, &CreateAccount { client_id, name, ..CreateAccount::zeroed() });
        let reserved = fair * self.rules.reserved_percent / 100;
        let seconds = case.quanta() as u64 * QUANTUM_MS / 1000;
        let entitled = self.rules.sla_percent > 0 && case.is_critical(tenant as usize);
        // Who is entitled has twice the means of others.
        let means = u64::from(fair - reserved) * (1 + u64::from(entitled));
        let budget = means * u64::from(RENT_TICKS) * seconds;
        if budget > 0 {
            let mut deposit = Deposit::zeroed();
            (deposit.client_id, deposit.account) = (self.sequence.into(), tenant.into());
            deposit.amount_micro = budget.into();
            self.tell(0, &deposit);
        }
        let mut instance = CreateInstance::zeroed();
        (instance.client_id, instance.account) = (self.sequence.into(), tenant.into());
        instance.name = name;
        instance.baseline_vru[Resource::Cpu as usize] = U32::new(reserved);
        self.tell(0, &instance);
        if entitled {
            let mut entitle = EntitleInstance::zeroed();
            (entitle.client_id, entitle.instance) = (self.sequence.into(), tenant.into());
            entitle.vru = (fair * self.rules.sla_percent / 100).into();
            self.tell(0, &entitle);
        }
    }

    /// Applies a message and takes in what the machine says of caps and weights.
    fn tell<M: Body>(&mut self, session: u32, message: &M) {
        assert!(self.ask(session, message), "{} was refused", M::NAME);
    }

    /// The same of what may be refused. True if it was not.
    fn ask<M: Body>(&mut self, session: u32, message: &M) -> bool {
        self.sequence += 1;
        let env = Envelope {
            sequence: self.sequence,
            time_ns: self.time_ns,
            request: self.sequence,
            session,
            connection: 0,
        };
        let command = Command::parse(M::KIND, message.as_bytes()).expect("a valid message");
        self.outbox.clear();
        self.machine.apply(&env, &command, &mut self.outbox).expect("a healthy machine");
        let mut taken = true;
        for event in self.outbox.events() {
            taken &= event.read::<Rejected>().is_none();
            if let Some(done) = event.read::<Done>() {
                self.done = done.value.get();
            } else if let Some(moved) = event.read::<LeaseMoved>() {
                let (handle, instance) = (moved.handle.get(), moved.instance.get());
                self.rents.insert(handle, (instance, moved.paid_micro.get()));
                let outcome = LeaseOutcome::from_u8(moved.outcome).expect("a known outcome");
                if outcome.is_end() {
                    self.leases.retain(|_, lease| lease.0 != handle);
                }
            } else if let Some(entitled) = event.read::<Entitled>() {
                self.caps.insert(entitled.instance.get(), entitled.vru.get() as f64);
            } else if let Some(weighted) = event.read::<Weighted>() {
                let (vrus, size) = (weighted.weight_vru.get().into(), weighted.vru_size.get());
                let Setting::Weight(weight) = Knob::CpuWeight.setting(vrus, size, PAGE_BYTES)
                else {
                    unreachable!("a weight is set by a weight")
                };
                self.weights.insert(weighted.instance.get(), weight as f64);
            }
        }
        taken
    }

    fn replay(&mut self, case: &Case) -> Grants {
        let mut grants = vec![Vec::with_capacity(case.quanta()); case.demand.len()];
        for t in 0..case.quanta() {
            self.bid(case, t);
            if self.rules.reserved_percent < 100 {
                self.rent(case, t);
            }
            let most = case.demand.iter().zip(self.caps.values());
            let most: Vec<f64> = most.map(|(row, cap)| cap.min(f64::from(row[t]))).collect();
            let weights: Vec<f64> = self.weights.values().copied().collect();
            let (used, _) = fill(&most, &weights, f64::from(case.capacity()));
            // What is earned in a quantum comes all the while, and so before it is spent.
            self.time_ns = 1_000_000 + (t as u64 + 1) * QUANTUM_MS * 1_000_000;
            self.tell(ANY, &Tick::zeroed());
            for (instance, used) in (0_u32..).zip(&used) {
                let milli = (used * QUANTUM_MS as f64).round() as u64;
                if milli > 0 {
                    let mut usage = Usage::zeroed();
                    (usage.instance, usage.used_millicredits) = (instance.into(), milli.into());
                    self.tell(ANY, &usage);
                }
            }
            self.tell(ANY, &Tick::zeroed());
            grants.iter_mut().zip(used).for_each(|(row, used)| row.push(used));
        }
        while let Some((_, &(handle, ..))) = self.leases.first_key_value() {
            let client_id = self.sequence.into();
            self.tell(0, &CancelLease { client_id, handle: handle.into() });
        }
        self.machine.check_conservation();
        grants
    }

    /// Tenants whose values changed bid anew.
    fn bid(&mut self, case: &Case, t: usize) {
        for (instance, row) in (0_u32..).zip(&case.value) {
            let before = if t == 0 { 1 } else { row[t - 1] };
            if row[t] != before {
                let mut bid = SetBid::zeroed();
                bid.client_id = self.sequence.into();
                let bid_milli = (BID_MILLI * row[t]).min(BID_MILLI_MAX);
                (bid.instance, bid.bid_milli) = (instance.into(), bid_milli.into());
                self.tell(0, &bid);
            }
        }
    }

    /// Everyone rents what it lacks: of class sla as far as it is entitled to, and bounded beyond.
    fn rent(&mut self, case: &Case, t: usize) {
        for (instance, row) in (0_u32..).zip(&case.demand) {
            let at = instance as usize;
            let reserved = case.fair[at] * self.rules.reserved_percent / 100;
            let needs = row[t].min(case.capacity()).saturating_sub(reserved);
            let sla = match case.is_critical(at) {
                true => needs.min(case.fair[at] * self.rules.sla_percent / 100),
                false => 0,
            };
            let rent = (RENT_TICKS * case.value[at][t]).min(RENT_TICKS_MAX);
            self.lease(instance, LeaseClass::Sla, sla, rent);
            self.lease(instance, LeaseClass::Bounded, needs - sla, rent);
        }
        self.time_ns += SETTLE_MS * 1_000_000;
        self.tell(ANY, &Tick::zeroed());
    }

    /// Leases so much, more or less than before. Who cannot pay keeps what it has.
    fn lease(&mut self, instance: u32, class: LeaseClass, vru: u32, rent: u32) {
        let key = (instance, class as u8);
        let (client_id, terms) = (self.sequence.into(), (vru, rent));
        match self.leases.get(&key).copied() {
            Some((_, vru, rent)) if (vru, rent) == terms => {}
            Some((handle, ..)) if vru == 0 => {
                self.tell(0, &CancelLease { client_id, handle: handle.into() });
            }
            Some((handle, ..)) => {
                let (vru, rent_ticks) = (vru.into(), rent.into());
                let change = ChangeLease { client_id, handle: handle.into(), vru, rent_ticks };
                if self.ask(0, &change) {
                    self.leases.insert(key, (handle, terms.0, terms.1));
                }
            }
            None if vru == 0 => {}
            None => {
                let mut bid =
                    BidLease { client_id, instance: instance.into(), ..BidLease::zeroed() };
                (bid.amount, bid.rent_ticks, bid.class) = (vru.into(), rent.into(), class as u8);
                if self.ask(0, &bid) {
                    self.leases.insert(key, (self.done, vru, rent));
                }
            }
        }
    }
}

fn book(capacity_vru: u32) -> DefineBook {
    DefineBook {
        vru_size: VRU_MILLICORES.into(),
        capacity_vru: u64::from(capacity_vru).into(),
        tick_micro: 1.into(),
        price_ticks_max: 1000.into(),
        quantity_max: 1000.into(),
        burst_percent: BURST_PERCENT.into(),
        auction_every_ms: 0.into(),
        call_ms: 0.into(),
        tier: 0.into(),
        resource: Resource::Cpu as u8,
        reserved: 0,
        name: field_cut("host"),
    }
}
