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
use vendue_wire::code::{Resource, Role};
use vendue_wire::message::{
    ANY, Body, CreateAccount, CreateInstance, Rejected, SetBid, U32, field_cut,
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

/// What an operator may choose.
#[derive(Clone, Copy, Debug)]
struct Rules {
    credit_cap_s: u32,
    launch_s: u32,
    spent_percent: u32,
}

/// Savings for a week, half an hour of credits at launch, and what nobody wants is free: who has no
/// credits is held back by its weight alone.
const BY_WEIGHT: Rules =
    Rules { credit_cap_s: 7 * 86_400, launch_s: 1800, spent_percent: BURST_PERCENT };
/// The daemon's defaults: savings for a day, and a cap at the baseline for who has none.
const DEFAULTS: Rules = Rules { credit_cap_s: 86_400, launch_s: 0, spent_percent: 100 };
/// Tenants may use the whole host if nobody else wants it.
const BURST_PERCENT: u32 = 100_000;

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

struct Market {
    machine: Machine,
    outbox: Outbox,
    sequence: u64,
    time_ns: u64,
    /// VRUs each instance may use, and what its `cpu.weight` would be.
    caps: BTreeMap<u32, f64>,
    weights: BTreeMap<u32, f64>,
}

impl Market {
    fn new(case: &Case, rules: Rules) -> Market {
        let genesis = Genesis {
            accounts_max: 1.into(),
            instances_max: (case.fair.len() as u32).into(),
            orders_max: 16.into(),
            orders_per_instance_max: 16.into(),
            sessions_max: 1.into(),
            credit_cap_s: rules.credit_cap_s.into(),
            burst_resume_ms: 5000.into(),
            limit_window_s: 3600.into(),
            reversible_trades: 0.into(),
            maker_fee_bps: 0.into(),
            taker_fee_bps: 0.into(),
        };
        let machine = Machine::new(&genesis).expect("the replay's bounds are valid");
        let outbox = machine.outbox();
        let (caps, weights) = (BTreeMap::new(), BTreeMap::new());
        // Time 0 is before all time to the machine.
        let time_ns = 1_000_000;
        let mut market = Market { machine, outbox, sequence: 0, time_ns, caps, weights };
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
        let mut account = CreateAccount::zeroed();
        (account.client_id, account.name) = (1.into(), field_cut("tenants"));
        market.tell(0, &account);
        for (at, &fair) in case.fair.iter().enumerate() {
            let mut instance = CreateInstance::zeroed();
            instance.client_id = market.sequence.into();
            instance.name = field_cut(&format!("tenant {at}"));
            instance.baseline_vru[Resource::Cpu as usize] = U32::new(fair);
            market.tell(0, &instance);
        }
        market.tell(ANY, &Tick::zeroed());
        market
    }

    /// Applies a message and takes in what the machine says of caps and weights.
    fn tell<M: Body>(&mut self, session: u32, message: &M) {
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
        for event in self.outbox.events() {
            assert!(event.read::<Rejected>().is_none(), "refused: {event:?}");
            if let Some(entitled) = event.read::<Entitled>() {
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
    }

    fn replay(mut self, case: &Case) -> Grants {
        let mut grants = vec![Vec::with_capacity(case.quanta()); case.demand.len()];
        for t in 0..case.quanta() {
            self.bid(case, t);
            let most = case.demand.iter().zip(self.caps.values());
            let most: Vec<f64> = most.map(|(row, cap)| cap.min(f64::from(row[t]))).collect();
            let weights: Vec<f64> = self.weights.values().copied().collect();
            let (used, _) = fill(&most, &weights, f64::from(case.capacity()));
            // What is earned in a quantum comes all the while, and so before it is spent.
            self.time_ns += QUANTUM_MS * 1_000_000;
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
                (bid.instance, bid.bid_milli) = (instance.into(), (BID_MILLI * row[t]).into());
                self.tell(0, &bid);
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
