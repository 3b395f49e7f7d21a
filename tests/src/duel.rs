//! The duel of the real machine and the naive model, command by command: small operations, the worlds they
//! are played in, and the pair that gives each to both sides and compares everything.
//!
//! A second machine follows the first: fed the same commands from the start, later restored from a
//! snapshot at random points; it must say the same bytes to the end. Whoever plays (a property
//! test, a fuzzer) only makes the operations.

use crate::oracle::swaps::TokenSwap;
use crate::oracle::{
    Book, Caller, Demand, Exchange, Market, Party, Request, Rules, Said, Swap, Trade,
};
use crate::room::Room;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use vendue_engine::depth::Depth;
use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{
    CloseSession, Command, DefineBook, DefineExchange, Genesis, HOST_KPIS, HostKpis, OpenSession,
    Outcomes, Perished, REFUSED, SpareTiers, Tick, Usage,
};
use vendue_engine::machine::event::{
    AccountCapped, AuctionTrade, Entitled, Event, Events, ExperimentMoved, Exposed, Fill,
    Indicative, InstanceCreated, InstanceFrozen, InstanceRemoved, Moved, Outbox, PhaseChanged,
    RateMoved, RentEarned, Resized, SessionOpened, SessionRefused, Stored, TierSwap, TradeReversed,
    Uncrossed, Watched, Weighted,
};
use vendue_wire::code::{
    CancelReason, LeaseOutcome, Phase, Reject, Rescue, Resource, Role, Side, SwapReason, SwapState,
    TokenOutcome,
};
use vendue_wire::message::*;

// ---- operations --------------------------------------------------------------------------

/// A number near the interesting ones, resolved against the world's size.
#[allow(missing_docs, reason = "what is not plain is explained")]
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// As it is.
    Small(u32),
    /// Thousands, for milli-credits.
    Thousands(u32),
    /// Two to the power.
    Power(u8),
    /// One less than two to the power.
    BelowPower(u8),
    Max,
}

impl Size {
    /// The number.
    pub fn get(self) -> u64 {
        match self {
            Size::Small(value) => value.into(),
            Size::Thousands(value) => u64::from(value) * 1000,
            Size::Power(power) => 1 << power,
            Size::BelowPower(power) => (1 << power) - 1,
            Size::Max => u64::MAX,
        }
    }
}

/// How a request's id relates to the session's last one.
#[allow(missing_docs, reason = "relative to the last one, in words")]
#[derive(Clone, Copy, Debug)]
pub enum Id {
    Next,
    Ahead(u32),
    Again,
    Zero,
}

/// Which handle a cancel or replace carries.
#[allow(missing_docs, reason = "an open order, one that ever was, any number")]
#[derive(Clone, Copy, Debug)]
pub enum Which {
    Open(u16),
    Ever(u16),
    Forged(u64),
}

/// A new order. Parties are resolved to some that make sense, unless `wild`.
#[allow(missing_docs, reason = "the message's fields, small")]
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub session: u8,
    /// Take instance and book as they are, though they may not exist.
    pub wild: bool,
    pub instance: u8,
    pub book: u8,
    pub sell: bool,
    pub market: bool,
    pub time_in_force: u8,
    pub post_only: bool,
    pub self_trade: bool,
    pub price: u32,
    pub quantity: u32,
    pub expires_ms: u32,
    pub id: Id,
}

/// Whom an account may trade with, and how much.
#[allow(missing_docs, reason = "what is not plain is explained")]
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub session: u8,
    pub account: u8,
    /// Group, groups it sells to, groups it buys from, opted in.
    pub whom: (u8, u8, u8, bool),
    /// Sold and bought in a window, worth of an order in ticks, position.
    pub most: [Option<u32>; 4],
    pub id: Id,
}

/// An objective.
#[allow(missing_docs, reason = "the message's fields, small")]
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    pub session: u8,
    pub instance: u8,
    pub kpi: u8,
    pub below: bool,
    pub resource: u8,
    pub class: u8,
    /// Breach and recovery.
    pub at: (u32, u32),
    pub times_ms: (u32, u32),
    pub vru: (u32, u32),
    pub rent: u32,
    pub budget: u64,
    pub window_s: u32,
    pub remove: bool,
    pub id: Id,
}

/// A bid for a lease.
#[allow(missing_docs, reason = "the message's fields, small")]
#[derive(Clone, Copy, Debug)]
pub struct Rent {
    pub session: u8,
    pub instance: u8,
    pub resource: u8,
    pub class: u8,
    pub amount: u32,
    pub percent: bool,
    pub rent: u32,
    pub hold_ms: u32,
    pub expires_ms: u32,
    pub whole: bool,
    /// The tier whose storage it is for.
    pub storage: Option<u8>,
    pub id: Id,
}

/// What is done with a token.
#[allow(missing_docs, reason = "the requests of the same names")]
#[derive(Clone, Copy, Debug)]
pub enum TokenAct {
    Issue,
    Redeem,
    Split,
    Merge,
    Transfer,
    Revoke,
}

/// What is done with a swap of tokens.
#[allow(missing_docs, reason = "the requests of the same names")]
#[derive(Clone, Copy, Debug)]
pub enum SwapAct {
    Request,
    Approve,
    Reject,
    Policy,
}

/// What a session does with swaps of tokens.
#[allow(missing_docs, reason = "what is not plain is explained")]
#[derive(Clone, Copy, Debug)]
pub struct Swapper {
    pub session: u8,
    pub act: SwapAct,
    /// The so-manieth tokens, source and destination; or swap.
    pub which: (u16, u16),
    /// No source is named.
    pub any: bool,
    pub vru: (u32, u32),
    /// Until the deadline, and how long it and its boost last, milliseconds.
    pub ms: (u32, u32, u32),
    /// Incentive, thousands of micro-units; of a policy what it lends for, micro-units.
    pub funds: u32,
    /// Account, answer, percent, downtime.
    pub policy: (u8, u8, u8, u32),
    /// What a policy pays, micro-units, if the daemon may ask.
    pub pays: Option<u32>,
    pub lie: Lie,
    pub id: Id,
}

/// How the token that is shown differs from what it is.
#[allow(missing_docs, reason = "what is not plain is explained")]
#[derive(Clone, Copy, Debug)]
pub enum Lie {
    None,
    /// As it was before its last change.
    Stale,
    MoreVru,
    Longer,
    /// Another daemon's.
    Foreign,
    /// One that never was.
    Invented,
}

/// What a session does with tokens.
#[allow(missing_docs, reason = "what is not plain is explained")]
#[derive(Clone, Copy, Debug)]
pub struct Bearer {
    pub session: u8,
    pub act: TokenAct,
    /// The so-manieth token, and the other of two.
    pub which: (u16, u16),
    /// Account or instance; of what is issued the account, and the instance it is bound to; of what is
    /// redeemed 255 stands for one that may.
    pub party: (u8, Option<u8>),
    /// Tier and resource.
    pub of: (u8, u8),
    pub vru: u32,
    /// It begins so many milliseconds from now, and lasts so long; or is split then.
    pub window: (u32, u32),
    /// Priority, profile, flags.
    pub marks: [u8; 3],
    pub lie: Lie,
    pub id: Id,
}

/// An arm of an experiment: class, cover, budget in thousands of ticks, rent and price.
type Arm = (u8, u8, u32, u32, u32);

/// One small operation.
#[allow(missing_docs, reason = "the request of the same name, its fields small")]
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Order(Terms),
    Cancel {
        session: u8,
        which: Which,
    },
    Replace {
        session: u8,
        which: Which,
        price: u32,
        quantity: u32,
        id: Id,
    },
    MassCancel {
        session: u8,
        instance: Option<u8>,
        book: Option<u8>,
        side: u8,
    },
    Account {
        session: u8,
        group: u8,
        sells_to: u8,
        buys_from: u8,
        name: u8,
        id: Id,
    },
    Funds {
        session: u8,
        account: u8,
        amount: Size,
        out: bool,
        id: Id,
    },
    Instance {
        session: u8,
        account: u8,
        tier: u8,
        vru: [u16; 3],
        name: u8,
        id: Id,
    },
    Remove {
        session: u8,
        instance: u8,
        id: Id,
    },
    Grant {
        session: u8,
        instance: u8,
        resource: u8,
        amount: Size,
        id: Id,
    },
    Bid {
        session: u8,
        instance: u8,
        resource: u8,
        bid_milli: u32,
        id: Id,
    },
    Tick {
        milliseconds: u64,
    },
    Usage {
        instance: u8,
        resource: u8,
        amount: Size,
    },
    Perish {
        instance: u8,
        same: bool,
    },
    /// The host says what came of so many things.
    Outcomes {
        number: u32,
        rows: u8,
    },
    Open {
        number: u8,
        role: u8,
        account: u8,
        instance: u8,
        cancel_on_disconnect: bool,
    },
    Close {
        slot: u8,
    },
    Phase {
        session: u8,
        book: u8,
        phase: u8,
        id: Id,
    },
    Freeze {
        session: u8,
        instance: u8,
        frozen: bool,
        id: Id,
    },
    Cap {
        session: u8,
        account: u8,
        millicores: u32,
        id: Id,
    },
    Swap {
        session: u8,
        pair: (u8, u8, u8),
        vru: u32,
        id: Id,
    },
    Rate {
        session: u8,
        pair: (u8, u8, u8),
        rates: [[u32; 2]; 3],
        fixed: bool,
        id: Id,
    },
    Tier {
        session: u8,
        tier: u8,
        act: u8,
        capacity: [u32; 2],
        size: u64,
        name: u8,
        id: Id,
    },
    Token(Bearer),
    TokenSwap(Swapper),
    Lease(Rent),
    /// Changes the so-manieth lease, or any handle.
    Releases {
        session: u8,
        which: Which,
        vru: u32,
        rent: u32,
        end: bool,
        id: Id,
    },
    /// An instance lends, or is entitled to class sla.
    Loan {
        session: u8,
        instance: u8,
        resource: u8,
        vru: u32,
        entitles: bool,
        id: Id,
    },
    Reserve {
        session: u8,
        book: u8,
        class: u8,
        rent: u32,
        id: Id,
    },
    /// Somebody says what an instance will need; the daemon does, if no session.
    Forecast {
        session: Option<u8>,
        instance: u8,
        resource: u8,
        /// Source and horizon.
        of: (u8, u8),
        /// Until it begins, and while it lasts, milliseconds.
        ms: (u32, u32),
        vru: [u16; 3],
        id: Id,
    },
    /// Starts an experiment.
    Trial {
        session: u8,
        account: Option<u8>,
        tier: Option<u8>,
        resource: u8,
        /// What is measured, and if more of it is better.
        measure: (u8, bool),
        salt: u64,
        /// Milliseconds beyond a minute.
        lasts_ms: u32,
        harm: u32,
        /// None: as it is.
        arms: [Option<Arm>; 2],
        /// Of swaps, if not both are 0: percent.
        risks: [u8; 2],
        id: Id,
    },
    /// Ends one of the last experiments.
    EndTrial {
        session: u8,
        back: u8,
        id: Id,
    },
    /// Plans an event, or does not any more where it does not last.
    Event {
        session: u8,
        instance: u8,
        resource: u8,
        name: u8,
        /// From now until it begins, and while it lasts, milliseconds.
        ms: (u32, u32),
        /// Days after which it begins again, days ago that it began, and days until it does not.
        days: (u8, u8, u8),
        /// Percent, and VRUs.
        shift: (u16, u32),
        id: Id,
    },
    /// Sets a policy, or removes it where the budget is zero.
    Policy {
        session: u8,
        instance: u8,
        resource: u8,
        /// Class, and what it covers.
        of: (u8, u8),
        /// Budget and burst, thousands of ticks.
        funds: (u32, u32),
        /// The most for leases and credits, ticks.
        pays: (u32, u32),
        /// Lead, hold, step.
        pace: (u32, u32, u32),
        id: Id,
    },
    Goal(Goal),
    /// The value of a KPI: reported by a session, or measured.
    Kpi {
        session: Option<u8>,
        instance: u8,
        kpi: u8,
        value: u32,
    },
    Limits(Bounds),
    CancelAccount {
        session: u8,
        account: u8,
        book: Option<u8>,
        side: u8,
        id: Id,
    },
    /// The trade so many before the last.
    Reverse {
        session: u8,
        back: u8,
        id: Id,
    },
    Snapshot,
}

// ---- worlds ------------------------------------------------------------------------------

/// Bounds and furniture.
#[allow(missing_docs, reason = "the start-up records' fields")]
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub accounts_max: u32,
    pub instances_max: u32,
    pub orders_max: u32,
    pub orders_per_instance_max: u32,
    pub sessions_max: u32,
    pub credit_cap_s: u32,
    pub burst_resume_ms: u32,
    pub limit_window_s: u32,
    pub reversible_trades: u32,
    /// Milliseconds after which swaps of tokens are looked for; 0: they are not.
    pub swap_every_ms: u32,
    /// Leases, and the percent that displace one.
    pub leases: (u32, u16),
    pub fees_bps: (u16, u16),
    pub tick_micro: u64,
    pub price_max: u32,
    pub quantity_max: u32,
    pub capacity_vru: u64,
    pub burst_percent: u32,
    /// Of each book, milliseconds from auction to auction and of the call before each.
    pub auctions: [(u32, u32); 6],
    /// How processors are swapped from tier 1 to tier 0: rate and its bounds, and when demand does.
    pub exchange: ([[u32; 2]; 3], Demand),
    /// Largest price and quantity that generated orders ask for.
    pub asks: (u32, u32),
    /// Accounts and instances made before the operations begin.
    pub made: (u32, u32),
    pub funds: u64,
    pub credits: u64,
}

/// Everything collides and every table fills.
pub const NARROW: World = World {
    accounts_max: 5,
    instances_max: 6,
    orders_max: 65,
    orders_per_instance_max: 5,
    sessions_max: 6,
    credit_cap_s: 4,
    burst_resume_ms: 500,
    limit_window_s: 2,
    reversible_trades: 6,
    swap_every_ms: 0,
    leases: (7, 10),
    fees_bps: (10, 25),
    tick_micro: 333,
    price_max: 9,
    quantity_max: 12,
    capacity_vru: 40,
    burst_percent: 250,
    auctions: [(0, 0), (1500, 1500), (0, 0), (3000, 1000), (0, 0), (0, 0)],
    exchange: (
        [[1, 2], [2, 3], [3, 2]],
        Demand {
            every_ms: 1000,
            step_vru: 3,
            idle_percent: 50,
            saturated_percent: 51,
            looks: 1,
            rate_step_percent: 10,
        },
    ),
    asks: (10, 13),
    made: (4, 5),
    funds: 120_000,
    credits: 30_000,
};

/// Long queues and pages of rows.
pub const WIDE: World = World {
    accounts_max: 24,
    instances_max: 40,
    orders_max: 400,
    orders_per_instance_max: 40,
    sessions_max: 6,
    credit_cap_s: 3600,
    burst_resume_ms: 1000,
    limit_window_s: 7,
    reversible_trades: 64,
    swap_every_ms: 0,
    leases: (60, 5),
    fees_bps: (3, 7),
    tick_micro: 1000,
    price_max: 5000,
    quantity_max: 100,
    capacity_vru: 1000,
    burst_percent: 200,
    auctions: [(0, 0), (4000, 4000), (0, 0), (9000, 3000), (0, 0), (2000, 500)],
    exchange: (
        [[1, 3], [1, 1], [2, 1]],
        Demand {
            every_ms: 3000,
            step_vru: 40,
            idle_percent: 90,
            saturated_percent: 91,
            looks: 2,
            rate_step_percent: 7,
        },
    ),
    asks: (200, 60),
    made: (20, 36),
    funds: 10_000_000_000,
    credits: 400_000,
};

/// At the edges of the arithmetic.
pub const EDGE: World = World {
    accounts_max: 4,
    instances_max: 4,
    orders_max: 40,
    orders_per_instance_max: 20,
    sessions_max: 6,
    credit_cap_s: 31 * 86_400,
    burst_resume_ms: 3_600_000,
    limit_window_s: 31 * 86_400,
    reversible_trades: 20,
    swap_every_ms: 0,
    leases: (12, 0),
    fees_bps: (10_000, 10_000),
    tick_micro: 3,
    price_max: 65_535,
    quantity_max: u32::MAX,
    capacity_vru: u32::MAX as u64,
    burst_percent: 100_000,
    auctions: [(0, 0), (86_400_000, 86_399_999), (0, 0), (700, 1), (0, 0), (0, 0)],
    exchange: (
        [[1, 1000], [999_999_999, 1_000_000_000], [1000, 1]],
        Demand {
            every_ms: 1,
            step_vru: u32::MAX,
            idle_percent: 99,
            saturated_percent: 100,
            looks: 1,
            rate_step_percent: 50,
        },
    ),
    asks: (65_535, u32::MAX),
    made: (3, 4),
    funds: 1 << 58,
    credits: 1 << 60,
};

/// `(maker, taker)` basis points tried in each world.
pub const FEES: [(u16, u16); 6] =
    [(10, 25), (0, 0), (0, 1), (10_000, 3333), (25, 0), (10_000, 10_000)];

/// Tier and resource of each book. The last tier is a place for one.
const BOOKS: [(u16, Resource); 6] = [
    (0, Resource::Cpu),
    (0, Resource::Memory),
    (0, Resource::BlockIo),
    (1, Resource::Cpu),
    (1, Resource::BlockIo),
    (SPARE, Resource::Cpu),
];
/// Those that are traded most: all but block I/O, which is leased.
pub const TRADED: [u8; 4] = [0, 1, 3, 5];
/// The tier that is spare at first.
const SPARE: u16 = 2;

/// Tiers differ in that of block I/O.
fn size_of_vru(tier: u16, resource: Resource) -> u64 {
    if (tier, resource) == (1, Resource::BlockIo) { 27 } else { 10 }
}

impl World {
    /// The machine's bounds.
    pub fn genesis(&self) -> Genesis {
        Genesis {
            accounts_max: self.accounts_max.into(),
            instances_max: self.instances_max.into(),
            orders_max: self.orders_max.into(),
            orders_per_instance_max: self.orders_per_instance_max.into(),
            sessions_max: self.sessions_max.into(),
            credit_cap_s: self.credit_cap_s.into(),
            burst_resume_ms: self.burst_resume_ms.into(),
            limit_window_s: self.limit_window_s.into(),
            reversible_trades: self.reversible_trades.into(),
            leases_max: self.leases.0.into(),
            swap_every_ms: self.swap_every_ms.into(),
            maker_fee_bps: self.fees_bps.0.into(),
            taker_fee_bps: self.fees_bps.1.into(),
            lease_margin_percent: self.leases.1.into(),
        }
    }

    /// The machine's books.
    pub fn definitions(&self) -> Vec<DefineBook> {
        let define =
            |((tier, resource), (every, call)): ((u16, Resource), (u32, u32))| DefineBook {
                auction_every_ms: every.into(),
                call_ms: call.into(),
                vru_size: size_of_vru(tier, resource).into(),
                capacity_vru: self.capacity_vru.into(),
                tick_micro: self.tick_micro.into(),
                price_ticks_max: self.price_max.into(),
                quantity_max: self.quantity_max.into(),
                burst_percent: self.burst_percent.into(),
                tier: tier.into(),
                resource: resource as u8,
                reserved: 0,
                name: field_cut("tier"),
            };
        BOOKS.into_iter().zip(self.auctions).map(define).collect()
    }

    /// The machine's exchange.
    pub fn exchange(&self) -> DefineExchange {
        let ([low, rate, high], demand) = self.exchange;
        DefineExchange {
            rate: rate.map(U32::new),
            low: low.map(U32::new),
            high: high.map(U32::new),
            every_ms: demand.every_ms.into(),
            step_vru: demand.step_vru.into(),
            idle_percent: demand.idle_percent.into(),
            saturated_percent: demand.saturated_percent.into(),
            looks: demand.looks.into(),
            rate_step_percent: demand.rate_step_percent.into(),
            from: 1.into(),
            to: 0.into(),
            resource: Resource::Cpu as u8,
            reserved: [0; 3],
        }
    }

    fn market(&self) -> Market {
        let rules = Rules {
            accounts_max: self.accounts_max as usize,
            instances_max: self.instances_max as usize,
            orders_max: self.orders_max as usize,
            orders_per_instance_max: self.orders_per_instance_max as usize,
            sessions_max: self.sessions_max as usize,
            credit_cap_s: self.credit_cap_s.into(),
            burst_resume_ms: self.burst_resume_ms.into(),
            limit_window_s: self.limit_window_s.into(),
            reversible_trades: self.reversible_trades.into(),
            leases_max: self.leases.0 as usize,
            lease_margin_percent: self.leases.1.into(),
            maker_fee_bps: self.fees_bps.0.into(),
            taker_fee_bps: self.fees_bps.1.into(),
            swap_every_ms: self.swap_every_ms.into(),
        };
        let book = |((tier, resource), (every, call)): ((u16, Resource), (u32, u32))| Book {
            phase: if tier == SPARE { Phase::Halted } else { Phase::Continuous },
            auctions: (every.into(), call.into()),
            scheduled: tier != SPARE,
            indicative: (0, 0, 0),
            looked_ms: None,
            tier,
            resource: resource as usize,
            capacity_vru: self.capacity_vru.into(),
            burst_percent: self.burst_percent.into(),
            tick_micro: self.tick_micro.into(),
            price_max: self.price_max.into(),
            quantity_max: self.quantity_max.into(),
            tier_name: field_cut("tier"),
            vru_size: size_of_vru(tier, resource),
            pool: (0, 0),
            used: 0,
            issued: 0,
            burned: 0,
            trades: 0,
            volume: 0,
            last: 0,
            reported: false,
            clearing: 0,
            ended_ms: [0; 2],
        };
        let ([low, rate, high], demand) = self.exchange;
        let fraction = |rate: [u32; 2]| (rate[0].into(), rate[1].into());
        let exchange = Exchange {
            from: 1,
            to: 0,
            resource: Resource::Cpu as usize,
            rate: fraction(rate),
            low: fraction(low),
            high: fraction(high),
            fixed: false,
            demand: Some(demand),
            found: 0,
            looked: None,
        };
        let books = BOOKS.into_iter().zip(self.auctions).map(book).collect();
        let mut market = Market::new(rules, books, vec![exchange], vec![0, 0, 2]);
        market.house = Room::BEGINS_NS;
        market
    }
}

// ---- driving both ------------------------------------------------------------------------

/// What the run met, so that a generator gone blind is noticed.
#[allow(missing_docs, reason = "counts, and codes seen")]
#[derive(Default)]
pub struct Met {
    pub commands: u64,
    pub trades: u64,
    /// Trades of auctions.
    pub auctioned: u64,
    /// Swaps between tiers that were asked for, and that demand made.
    pub swapped: (u64, u64),
    /// Rates that demand moved.
    pub rates: u64,
    /// Payments to lenders.
    pub earned: u64,
    /// Trades that were reversed.
    pub reversed: u64,
    pub accepted: u64,
    pub rejects: BTreeMap<u8, u64>,
    pub cancels: BTreeSet<u8>,
    /// What became of leases.
    pub leases: BTreeMap<u8, u64>,
    /// Commands that had the disks of an instance belong elsewhere.
    pub stored: u64,
    /// What policies did, and why.
    pub policies: BTreeMap<(u8, u8), u64>,
    /// What became of objectives.
    pub rescues: BTreeMap<u8, u64>,
    /// What became of swaps of tokens, and why.
    pub token_swaps: BTreeMap<(u8, u8), u64>,
    /// What became of those that the daemon asked for.
    pub managed: BTreeMap<u8, u64>,
    /// What became of tokens.
    pub tokens: BTreeMap<u8, u64>,
    /// The most instances that were measured of each arm of an experiment: of policies, and of swaps.
    pub samples: [i128; 2],
}

impl Met {
    /// Counts what was said, by what a session asked for.
    fn count(&mut self, row: &Said, session: u32, swaps: &[TokenSwap]) {
        match row {
            Said::Rejected { code, .. } | Said::Refused { code } => {
                *self.rejects.entry(*code as u8).or_default() += 1;
            }
            Said::Cancelled { reason, .. } => {
                self.cancels.insert(*reason as u8);
            }
            Said::Lease { outcome, .. } => {
                *self.leases.entry(*outcome as u8).or_default() += 1;
            }
            Said::Policy { did, .. } => {
                *self.policies.entry((did.0, did.1)).or_default() += 1;
            }
            Said::TokenSwap { to: ANY, id, state, .. } => {
                *self.token_swaps.entry((state.0 as u8, state.1 as u8)).or_default() += 1;
                let swap = swaps.iter().find(|swap| swap.id == *id);
                if swap.is_some_and(|swap| swap.by_manager) {
                    *self.managed.entry(state.0 as u8).or_default() += 1;
                }
            }
            Said::Token { outcome, .. } => {
                *self.tokens.entry(*outcome as u8).or_default() += 1;
            }
            Said::Objective { outcome, .. } => {
                *self.rescues.entry(*outcome as u8).or_default() += 1;
            }
            Said::Traded(_) => self.trades += 1,
            Said::Auctioned(_) => self.auctioned += 1,
            Said::Swapped(_) if session == ANY => self.swapped.1 += 1,
            Said::Swapped(_) => self.swapped.0 += 1,
            Said::Earned { .. } => self.earned += 1,
            Said::Rate { .. } if session == ANY => self.rates += 1,
            Said::Reversed(_) => self.reversed += 1,
            Said::Accepted { .. } => self.accepted += 1,
            _ => {}
        }
    }
}

struct Pair {
    world: World,
    room: Room,
    market: Market,
    /// A machine that must say the same bytes, and its outbox.
    twin: (Machine, Outbox),
    /// Credits at each book, side, price, from the level events.
    depth: Depth,
    /// Cap of each instance and resource, from the entitlement events.
    caps: BTreeMap<(u32, u8), u64>,
    /// Where disks of instances belong, as told last, and the VRUs there and their size.
    stored: BTreeMap<u32, (u16, u64, u64)>,
    /// How often they were elsewhere, in the command at hand.
    away: u64,
    /// Capacity of each tier and resource, from the events that tell it.
    capacities: BTreeMap<(u16, u8), u64>,
    /// Weights told by the command at hand.
    weights: Vec<(u32, u64)>,
    /// As of [`Met`].
    samples: [i128; 2],
    orders_seen: u64,
}

/// Plays operations in a furnished world to the end, when every book is swept empty.
///
/// # Errors
/// The first difference between the machine, its twin and the model.
pub fn play(world: World, ops: &[Op], met: &RefCell<Met>) -> Result<(), TestCaseError> {
    let mut pair = Pair::new(world);
    pair.furnish(met)?;
    ops.iter().try_for_each(|op| pair.play(op, met))?;
    pair.sweep(met)
}

/// The body of a request as the wire has it.
enum Wire {
    Session(u32, u8, Vec<u8>),
    Daemon(u8, Vec<u8>),
}

/// Outcomes of a limit's writes, `rows` of them.
fn outcomes(number: u32, rows: u8) -> Outcomes {
    let mut m = Outcomes::zeroed();
    m.replaced = u64::from(number).into();
    for row in m.rows.iter_mut().take(rows.into()) {
        row.number = number.into();
        row.held = u64::MAX.into();
        row.effect = REFUSED;
    }
    m
}

fn wire<M: Body>(session: u32, body: &M) -> Wire {
    Wire::Session(session, M::KIND, body.as_bytes().to_vec())
}

fn own<M: Body>(body: &M) -> Wire {
    Wire::Daemon(M::KIND, body.as_bytes().to_vec())
}

fn name(of: u8) -> [u8; NAME_BYTES] {
    match of {
        0 => [0; NAME_BYTES],
        1 => [0xff; NAME_BYTES],
        2 => [b'x'; NAME_BYTES],
        _ => field_cut(&format!("n{of}")),
    }
}

impl Pair {
    fn new(world: World) -> Pair {
        let mut room = Room::new(&world.genesis(), &world.definitions());
        room.daemon(&SpareTiers { from: SPARE.into() });
        room.daemon(&world.exchange());
        let mut twin = Room::new(&world.genesis(), &world.definitions());
        twin.daemon(&SpareTiers { from: SPARE.into() });
        twin.daemon(&world.exchange());
        let capacity = |book: &DefineBook| match book.tier.get() {
            SPARE => ((SPARE, book.resource), 0),
            tier => ((tier, book.resource), book.capacity_vru.get()),
        };
        let capacities = world.definitions().iter().map(capacity).collect();
        let twin = (twin.machine, twin.out);
        let depth = Depth::of(&room.machine);
        Pair {
            world,
            room,
            market: world.market(),
            twin,
            depth,
            caps: BTreeMap::new(),
            stored: BTreeMap::new(),
            away: 0,
            capacities,
            weights: Vec::new(),
            samples: [0; 2],
            orders_seen: 0,
        }
    }

    /// The usual first commands: sessions, accounts with funds, instances with credits.
    fn furnish(&mut self, met: &RefCell<Met>) -> Result<(), TestCaseError> {
        let world = self.world;
        let mut ops = vec![Op::Open {
            number: 1,
            role: Role::Operator as u8,
            account: 6,
            instance: 0,
            cancel_on_disconnect: false,
        }];
        for account in 0..world.made.0 as u8 {
            // One sells to all but group 0, one to all but its own group.
            let sells_to = match account {
                1 => 0xfd,
                2 => 0xfe,
                _ => 0xff,
            };
            let buys_from = 0xff;
            let (session, name, id) = (0, 10 + account, Id::Next);
            ops.push(Op::Account { session, group: account % 8, sells_to, buys_from, name, id });
        }
        for instance in 0..world.made.1 as u8 {
            let account = instance % world.made.0 as u8;
            let tier = u8::from(instance % 5 == 4);
            let vru = [1 + u16::from(instance % 3), 1, 1];
            let (session, name, id) = (0, 100 + instance, Id::Next);
            ops.push(Op::Instance { session, account, tier, vru, name, id });
        }
        let open = |number: u8, role: Role, account: u8, instance: u8| {
            let cancel_on_disconnect = number % 2 == 1;
            Op::Open { number, role: role as u8, account, instance, cancel_on_disconnect }
        };
        ops.push(open(2, Role::Tenant, 0, 0));
        ops.push(open(3, Role::Tenant, 1, 0));
        ops.push(open(4, Role::Agent, 6, 0));
        ops.push(open(5, Role::Observer, 6, 0));
        ops.iter().try_for_each(|op| self.play(op, met))?;
        for account in 0..world.made.0 {
            let mut message = Deposit::zeroed();
            message.client_id = self.id(0, Id::Next);
            message.account = account.into();
            message.amount_micro = world.funds.into();
            self.step(Request::Deposit(message), &wire(0, &message), met)?;
        }
        for instance in 0..world.made.1 {
            for resource in 0..2 {
                let mut message = GrantCredits::zeroed();
                message.client_id = self.id(0, Id::Next);
                message.instance = instance.into();
                message.resource = resource;
                message.amount_millicredits = world.credits.into();
                self.step(Request::GrantCredits(message), &wire(0, &message), met)?;
            }
        }
        Ok(())
    }

    fn id(&self, session: u8, id: Id) -> U64 {
        let last = self.market.sessions.get(usize::from(session)).map_or(0, |s| s.last_client_id);
        match id {
            Id::Next => last.saturating_add(1),
            Id::Ahead(by) => last.saturating_add(by.into()),
            Id::Again => last,
            Id::Zero => 0,
        }
        .into()
    }

    fn handle(&self, which: Which) -> U64 {
        let nth = |at: u16, length: usize| usize::from(at) % length.max(1);
        let by_number = |number: u64| {
            let found = self.market.handles().iter().find(|(_, order)| **order == number);
            found.map_or(0, |(&handle, _)| handle)
        };
        match which {
            Which::Open(at) => {
                let orders = &self.market.orders;
                orders.get(nth(at, orders.len())).map_or(0, |order| by_number(order.number))
            }
            Which::Ever(at) => {
                let handles = self.market.handles();
                handles.keys().nth(nth(at, handles.len())).copied().unwrap_or(0)
            }
            Which::Forged(handle) => handle,
        }
        .into()
    }

    fn play(&mut self, op: &Op, met: &RefCell<Met>) -> Result<(), TestCaseError> {
        if let Op::Snapshot = op {
            return self.snapshot();
        }
        if let Op::Tick { milliseconds } = *op {
            self.room.time_ns += milliseconds * 1_000_000;
        }
        let (request, bytes) = self.resolve(op);
        self.step(request, &bytes, met)
    }

    /// The operation as a request for the model and as bytes for the machine.
    fn resolve(&self, op: &Op) -> (Request, Wire) {
        match *op {
            Op::Order(terms) => {
                let m = self.new_order(&terms);
                (Request::NewOrder(m), wire(terms.session.into(), &m))
            }
            Op::Cancel { session, which } => {
                let m = Cancel { handle: self.handle(which) };
                (Request::Cancel(m), wire(session.into(), &m))
            }
            Op::Replace { session, which, price, quantity, id } => {
                let m = Replace {
                    client_id: self.id(session, id),
                    handle: self.handle(which),
                    price_ticks: price.into(),
                    quantity: quantity.into(),
                };
                (Request::Replace(m), wire(session.into(), &m))
            }
            Op::MassCancel { session, instance, book, side } => {
                let m = MassCancel {
                    instance: instance.map_or(ANY, u32::from).into(),
                    book: book.map_or(ANY_BOOK, u16::from).into(),
                    side,
                    reserved: 0,
                };
                (Request::MassCancel(m), wire(session.into(), &m))
            }
            Op::Tick { .. } => (Request::Tick, own(&Tick::zeroed())),
            Op::Usage { instance, resource, amount } => {
                let m = Usage {
                    used_millicredits: amount.get().into(),
                    instance: u32::from(instance).into(),
                    resource,
                    reserved: [0; 3],
                };
                let (resource, used) = (resource.into(), amount.get());
                (Request::Usage { instance: instance.into(), resource, used }, own(&m))
            }
            Op::Perish { instance, same } => {
                let mut m = Perished::zeroed();
                m.instance = u32::from(instance).into();
                m.place[0] = u8::from(!same);
                (Request::Perished { instance: instance.into(), same }, own(&m))
            }
            Op::Outcomes { number, rows } => (Request::Outcomes, own(&outcomes(number, rows))),
            Op::Close { slot } => {
                let slot = u32::from(slot);
                (Request::Close { slot }, own(&CloseSession { slot: slot.into() }))
            }
            Op::Cap { session, account, millicores, id } => {
                let (client_id, account) = (self.id(session, id), u32::from(account).into());
                let m = SetAccountCap { client_id, account, millicores: millicores.into() };
                (Request::SetAccountCap(m), wire(session.into(), &m))
            }
            Op::Freeze { session, instance, frozen, id } => {
                let m = FreezeInstance {
                    client_id: self.id(session, id),
                    instance: u32::from(instance).into(),
                    frozen: frozen.into(),
                    reserved: [0; 3],
                };
                (Request::FreezeInstance(m), wire(session.into(), &m))
            }
            Op::Open { .. } => self.open_session(op),
            _ => self.resolve_admin(op),
        }
    }

    /// An instance and book that make sense for the session, unless `terms` says not to.
    fn parties(&self, terms: &Terms) -> (u32, u16) {
        let wild = (terms.instance.into(), terms.book.into());
        let Some(session) = self.market.sessions.get(usize::from(terms.session)) else {
            return wild;
        };
        let may = |number: u32, account: usize| match session.role {
            Role::Tenant => session.account as usize == account,
            Role::Agent => session.instance == number,
            _ => true,
        };
        let rows = self.market.instances.iter();
        let own: Vec<_> = rows.filter(|(number, row)| may(**number, row.account)).collect();
        if terms.wild || own.is_empty() {
            return wild;
        }
        let (number, row) = own[usize::from(terms.instance) % own.len()];
        (
            *number,
            match row.tier {
                0 => u16::from(terms.book == 1),
                tier => TRADED[usize::from(tier) + 1].into(),
            },
        )
    }

    fn new_order(&self, terms: &Terms) -> NewOrder {
        let (instance, book) = self.parties(terms);
        let expires = self.room.time_ns / 1_000_000 + u64::from(terms.expires_ms);
        NewOrder {
            client_id: self.id(terms.session, terms.id),
            expires_at_ms: if terms.time_in_force == 1 { expires } else { 0 }.into(),
            instance: instance.into(),
            price_ticks: terms.price.into(),
            quantity: terms.quantity.into(),
            book: book.into(),
            side: terms.sell.into(),
            order_type: terms.market.into(),
            time_in_force: terms.time_in_force,
            post_only: terms.post_only.into(),
            self_trade: terms.self_trade.into(),
            reserved: 0,
        }
    }

    fn open_session(&self, op: &Op) -> (Request, Wire) {
        let Op::Open { number, role, account, instance, cancel_on_disconnect } = *op else {
            unreachable!("only called for a logon");
        };
        let role = Role::from_u8(role).unwrap_or(Role::Observer);
        let account = if account == 6 { ANY } else { account.into() };
        let instance = if role == Role::Agent { instance.into() } else { ANY };
        let mut m = OpenSession::zeroed();
        m.session = u64::from(number).into();
        m.account = account.into();
        m.instance = instance.into();
        m.role = role as u8;
        m.cancel_on_disconnect = cancel_on_disconnect.into();
        let number = number.into();
        (Request::Open { number, account, instance, role, cancel_on_disconnect }, own(&m))
    }

    fn resolve_admin(&self, op: &Op) -> (Request, Wire) {
        match *op {
            Op::Account { session, group, sells_to, buys_from, name: called, id } => {
                let mut m = CreateAccount::zeroed();
                m.client_id = self.id(session, id);
                m.sells_to = u64::from(sells_to).into();
                m.buys_from = u64::from(buys_from).into();
                m.name = name(called);
                m.group = group;
                (Request::CreateAccount(m), wire(session.into(), &m))
            }
            Op::Funds { session, account, amount, out, id } => {
                let mut m = Deposit::zeroed();
                m.client_id = self.id(session, id);
                m.amount_micro = amount.get().into();
                m.account = u32::from(account).into();
                if !out {
                    return (Request::Deposit(m), wire(session.into(), &m));
                }
                let Deposit { client_id, amount_micro, account, reserved } = m;
                let m = Withdraw { client_id, amount_micro, account, reserved };
                (Request::Withdraw(m), wire(session.into(), &m))
            }
            Op::Instance { session, account, tier, vru, name: called, id } => {
                let mut m = CreateInstance::zeroed();
                m.client_id = self.id(session, id);
                m.account = u32::from(account).into();
                m.tier = u16::from(tier).into();
                // Mostly small; the whole capacity now and then.
                let reserve = |vru: u16| match vru {
                    65_000.. => self.world.capacity_vru as u32,
                    vru => u32::from(vru) % (self.world.capacity_vru as u32 / 8).max(2),
                };
                m.baseline_vru[0] = reserve(vru[0]).into();
                m.baseline_vru[1] = if tier == 0 { reserve(vru[1]) } else { 0 }.into();
                m.baseline_vru[2] =
                    if tier < 2 { reserve(vru[2]) } else { u32::from(vru[2] == 7) }.into();
                m.name = name(called);
                (Request::CreateInstance(m), wire(session.into(), &m))
            }
            Op::Remove { session, instance, id } => {
                let mut m = RemoveInstance::zeroed();
                m.client_id = self.id(session, id);
                m.instance = u32::from(instance).into();
                (Request::RemoveInstance(m), wire(session.into(), &m))
            }
            Op::Grant { session, instance, resource, amount, id } => {
                let mut m = GrantCredits::zeroed();
                m.client_id = self.id(session, id);
                m.amount_millicredits = amount.get().into();
                m.instance = u32::from(instance).into();
                m.resource = resource;
                (Request::GrantCredits(m), wire(session.into(), &m))
            }
            Op::Bid { session, instance, resource, bid_milli, id } => {
                let mut m = SetBid::zeroed();
                m.client_id = self.id(session, id);
                m.bid_milli = bid_milli.into();
                m.instance = u32::from(instance).into();
                m.resource = resource;
                (Request::SetBid(m), wire(session.into(), &m))
            }
            Op::Phase { session, book, phase, id } => {
                let mut m = SetPhase::zeroed();
                m.client_id = self.id(session, id);
                m.book = u16::from(book).into();
                m.phase = phase;
                (Request::SetPhase(m), wire(session.into(), &m))
            }
            _ => self.resolve_tiers(op),
        }
    }

    fn resolve_tiers(&self, op: &Op) -> (Request, Wire) {
        match *op {
            Op::Tier { session, tier, act, capacity, size, name: called, id } => {
                let mut m = SetTier::zeroed();
                m.client_id = self.id(session, id);
                (m.tier, m.act) = (u16::from(tier).into(), act);
                if act <= TIER_CHANGE {
                    [m.capacity_vru[0], m.capacity_vru[1]] = capacity.map(U32::new);
                }
                if act == TIER_DEFINE {
                    m.vru_size[0] = size.into();
                    m.name = name(called);
                }
                (Request::SetTier(m), wire(session.into(), &m))
            }
            Op::Swap { session, pair: (from, to, resource), vru, id } => {
                let mut m = SwapTiers::zeroed();
                m.client_id = self.id(session, id);
                (m.from, m.to) = (u16::from(from).into(), u16::from(to).into());
                (m.vru, m.resource) = (vru.into(), resource);
                (Request::SwapTiers(m), wire(session.into(), &m))
            }
            Op::Rate { session, pair: (from, to, resource), rates, fixed, id } => {
                let mut m = SetRate::zeroed();
                m.client_id = self.id(session, id);
                (m.from, m.to) = (u16::from(from).into(), u16::from(to).into());
                [m.rate, m.low, m.high] = rates.map(|rate| rate.map(U32::new));
                (m.resource, m.fixed) = (resource, fixed.into());
                (Request::SetRate(m), wire(session.into(), &m))
            }
            _ => self.resolve_leases(op),
        }
    }

    fn resolve_leases(&self, op: &Op) -> (Request, Wire) {
        match *op {
            Op::Lease(rent) => {
                let now_ms = self.room.time_ns / 1_000_000;
                let expires =
                    if rent.expires_ms == 0 { 0 } else { now_ms + u64::from(rent.expires_ms) - 1 };
                let m = BidLease {
                    client_id: self.id(rent.session, rent.id),
                    expires_at_ms: expires.into(),
                    instance: u32::from(rent.instance).into(),
                    amount: rent.amount.into(),
                    rent_ticks: rent.rent.into(),
                    hold_ms: rent.hold_ms.into(),
                    resource: rent.storage.map_or(rent.resource, |_| Resource::BlockIo as u8),
                    class: rent.class,
                    percent: rent.percent.into(),
                    all_or_none: rent.whole.into(),
                    tier: rent.storage.map_or(0, u16::from).into(),
                    storage: rent.storage.is_some().into(),
                    reserved: 0,
                };
                (Request::BidLease(m), wire(rent.session.into(), &m))
            }
            Op::Releases { session, which, vru, rent, end, id } => {
                let all = &self.market.leases.all;
                let handle = match which {
                    Which::Open(at) | Which::Ever(at) => {
                        all.get(usize::from(at) % all.len().max(1)).map_or(0, |lease| lease.handle)
                    }
                    Which::Forged(handle) => handle,
                };
                let (client_id, handle) = (self.id(session, id), handle.into());
                if end {
                    let m = CancelLease { client_id, handle };
                    return (Request::CancelLease(m), wire(session.into(), &m));
                }
                let m = ChangeLease { client_id, handle, vru: vru.into(), rent_ticks: rent.into() };
                (Request::ChangeLease(m), wire(session.into(), &m))
            }
            Op::Loan { session, instance, resource, vru, entitles, id } => {
                let (client_id, instance) = (self.id(session, id), u32::from(instance).into());
                let (vru, reserved) = (vru.into(), [0; 7]);
                if entitles {
                    let m = EntitleInstance { client_id, instance, vru, resource, reserved };
                    return (Request::EntitleInstance(m), wire(session.into(), &m));
                }
                let m = Lend { client_id, instance, vru, resource, reserved };
                (Request::Lend(m), wire(session.into(), &m))
            }
            Op::Reserve { session, book, class, rent, id } => {
                let m = SetReserveRent {
                    client_id: self.id(session, id),
                    rent_ticks: rent.into(),
                    book: u16::from(book).into(),
                    class,
                    reserved: 0,
                };
                (Request::SetReserveRent(m), wire(session.into(), &m))
            }
            Op::Token(bearer) => self.resolve_token(&bearer),
            Op::TokenSwap(swapper) => self.resolve_swap(&swapper),
            _ => self.resolve_policies(op),
        }
    }

    /// The so-manieth token as it is shown.
    fn shown(&self, which: u16, lie: Lie) -> [u8; TOKEN_BYTES] {
        let tokens = &self.market.tokens;
        let mut token = match tokens.get(usize::from(which) % tokens.len().max(1)) {
            Some(token) => self.market.show(token),
            None => *Token::of(&[0; TOKEN_BYTES]),
        };
        match lie {
            Lie::None => {}
            Lie::Stale => token.generation = token.generation.get().wrapping_sub(1).into(),
            Lie::MoreVru => token.vru = token.vru.get().wrapping_add(1).into(),
            Lie::Longer => token.until_ms = token.until_ms.get().wrapping_add(1).into(),
            Lie::Foreign => token.house = token.house.get().wrapping_add(1).into(),
            Lie::Invented => token.id = token.id.get().wrapping_add(1_000_000).into(),
        }
        zerocopy::transmute!(token)
    }

    fn resolve_token(&self, op: &Bearer) -> (Request, Wire) {
        let (session, client_id) = (op.session.into(), self.id(op.session, op.id));
        let now_ms = self.room.time_ns / 1_000_000;
        let (party, vru) = (u32::from(op.party.0), op.vru);
        let token = self.shown(op.which.0, op.lie);
        let reserved = U32::ZERO;
        match op.act {
            TokenAct::Issue => {
                let mut m = IssueToken::zeroed();
                (m.client_id, m.account, m.vru) = (client_id, party.into(), vru.into());
                m.instance = op.party.1.map_or(ANY, u32::from).into();
                (m.tier, m.resource) = (u16::from(op.of.0).into(), op.of.1);
                // What begins at once says so, or says when.
                let begins_ms = now_ms + u64::from(op.window.0);
                m.from_ms = if op.window.0 == 1 { 0 } else { begins_ms }.into();
                m.until_ms = (begins_ms + u64::from(op.window.1)).into();
                [m.priority, m.profile, _] = op.marks;
                (m.swap_eligible, m.sticky) = (op.marks[2] & 1, op.marks[2] >> 1 & 1);
                m.profile_limit = u64::from(op.marks[1]).into();
                (Request::IssueToken(m), wire(session, &m))
            }
            TokenAct::Redeem => {
                let (owner, tier) = (Token::of(&token).account.get(), Token::of(&token).tier.get());
                let own = self.market.instances.iter().filter(|(_, row)| {
                    (row.account as u32, row.tier) == (owner, tier) && op.party.1 == Some(u8::MAX)
                });
                let own: Vec<u32> = own.map(|(number, _)| *number).collect();
                let at = usize::from(op.which.1) % own.len().max(1);
                let party = own.get(at).copied().unwrap_or(party);
                let m = RedeemToken { client_id, instance: party.into(), reserved, token };
                (Request::RedeemToken(m), wire(session, &m))
            }
            TokenAct::Split => {
                let at_ms = if vru == 0 { now_ms + u64::from(op.window.0) } else { 0 };
                let m =
                    SplitToken { client_id, at_ms: at_ms.into(), vru: vru.into(), reserved, token };
                (Request::SplitToken(m), wire(session, &m))
            }
            TokenAct::Merge => {
                let m = MergeTokens { client_id, token, other: self.shown(op.which.1, Lie::None) };
                (Request::MergeTokens(m), wire(session, &m))
            }
            TokenAct::Transfer => {
                let m = TransferToken { client_id, account: party.into(), reserved, token };
                (Request::TransferToken(m), wire(session, &m))
            }
            TokenAct::Revoke => {
                let m = RevokeToken { client_id, id: Token::of(&token).id };
                (Request::RevokeToken(m), wire(session, &m))
            }
        }
    }

    /// Two tokens by their places, mostly of one book and open.
    fn pair(&self, which: (u16, u16)) -> (u16, u16) {
        let now_ms = i128::from(self.room.time_ns / 1_000_000);
        let tokens = self.market.tokens.iter().enumerate();
        let open = tokens.filter(|(_, it)| {
            it.marks[0] == 1 && it.window.0 <= now_ms && now_ms + 1500 < it.window.1
        });
        let open: Vec<_> = open.map(|(at, it)| (at as u16, it.book, it.id)).collect();
        let chosen = open.get(usize::from(which.0) % open.len().max(1));
        let Some(&(source, book, id)) = chosen.filter(|_| !which.0.is_multiple_of(4)) else {
            return which;
        };
        let others: Vec<_> = open.iter().filter(|it| (it.1, it.2 != id) == (book, true)).collect();
        let other = others.get(usize::from(which.1) % others.len().max(1));
        other.map_or(which, |other| (source, other.0))
    }

    fn resolve_swap(&self, op: &Swapper) -> (Request, Wire) {
        let (session, client_id) = (op.session.into(), self.id(op.session, op.id));
        let now_ms = self.room.time_ns / 1_000_000;
        // Mostly one that waits.
        let any = op.which.1.is_multiple_of(4);
        let swaps = self.market.token_swaps.iter();
        let swaps = swaps.filter(|swap| any || swap.state == SwapState::Proposed);
        let swaps: Vec<_> = swaps.collect();
        let swap = swaps.get(usize::from(op.which.0) % swaps.len().max(1));
        let id = match op.lie {
            Lie::Invented => 1_000_000,
            _ => swap.map_or(1, |swap| swap.id),
        };
        match op.act {
            SwapAct::Request => {
                let (source, destination) = self.pair(op.which);
                let (source, destination) =
                    (self.shown(source, Lie::None), self.shown(destination, op.lie));
                let (source, destination) = (Token::of(&source), Token::of(&destination));
                let mut m = SwapRequest::zeroed();
                m.client_id = client_id;
                if !op.any {
                    (m.source, m.source_generation) = (source.id, source.generation);
                }
                m.destination = destination.id;
                m.destination_generation = destination.generation;
                m.deadline_ms = (now_ms + u64::from(op.ms.0)).into();
                m.incentive_micro = (u64::from(op.funds) * 1000).into();
                (m.vru, m.lasts_ms) = (op.vru.0.into(), op.ms.1.max(SWAP_MS_MIN).into());
                if op.vru.1 > 0 {
                    (m.boost_vru, m.boost_ms) = (op.vru.1.into(), op.ms.2.max(SWAP_MS_MIN).into());
                }
                (Request::SwapRequest(m), wire(session, &m))
            }
            SwapAct::Approve => {
                let m = SwapApprove { client_id, id: id.into() };
                (Request::SwapApprove(m), wire(session, &m))
            }
            SwapAct::Reject => {
                // Sometimes by who asked for it.
                let asker = |row: &super::oracle::Session| {
                    let account = swap.map(|swap| swap.accounts[1] as u32);
                    (row.role, Some(row.account)) == (Role::Tenant, account)
                };
                let asker = self.market.sessions.iter().position(asker).map(|at| at as u8);
                let session = asker.filter(|_| op.policy.1 == 0).unwrap_or(op.session);
                let (session, client_id) = (session.into(), self.id(session, op.id));
                let m = SwapReject { client_id, id: id.into(), words: field_cut("no") };
                (Request::SwapReject(m), wire(session, &m))
            }
            SwapAct::Policy => {
                let (account, answer, percent, downtime) = op.policy;
                let mut m = SetSwapPolicy::zeroed();
                (m.client_id, m.account) = (client_id, u32::from(account).into());
                m.least_micro = u64::from(op.funds).into();
                (m.downtime_ms, m.degradation_percent) =
                    (downtime.into(), u16::from(percent).into());
                m.answer = answer % 3;
                m.seek = op.pays.is_some().into();
                m.pay_micro = u64::from(op.pays.unwrap_or(0)).into();
                (Request::SetSwapPolicy(m), wire(session, &m))
            }
        }
    }

    fn resolve_policies(&self, op: &Op) -> (Request, Wire) {
        match *op {
            Op::Policy {
                session,
                instance,
                resource,
                of: (class, cover),
                funds,
                pays,
                pace,
                id,
            } => {
                let micro = |funds: u32| u64::from(funds) * 1000 * self.world.tick_micro;
                let m = SetPolicy {
                    client_id: self.id(session, id),
                    budget_micro: micro(funds.0).into(),
                    burst_micro: micro(funds.1.min(funds.0)).into(),
                    instance: u32::from(instance).into(),
                    rent_ticks: pays.0.into(),
                    price_ticks: pays.1.into(),
                    lead_ms: pace.0.into(),
                    hold_ms: pace.1.into(),
                    step_vru: pace.2.into(),
                    resource,
                    class,
                    cover,
                    reserved: [0; 5],
                };
                (Request::SetPolicy(m), wire(session.into(), &m))
            }
            Op::Forecast { session, instance, resource, of: (source, horizon), ms, vru, id } => {
                let mut vru = vru.map(u32::from);
                vru.sort_unstable();
                let (starts_ms, vru) = if ms.1 == 0 { (0, [0; 3]) } else { (ms.0, vru) };
                let m = SetForecast {
                    client_id: session.map_or(U64::ZERO, |session| self.id(session, id)),
                    starts_in_ms: starts_ms.into(),
                    lasts_ms: ms.1.into(),
                    p50_vru: vru[0].into(),
                    p90_vru: vru[1].into(),
                    p975_vru: vru[2].into(),
                    instance: u32::from(instance).into(),
                    resource,
                    source,
                    horizon,
                    reserved: [0; 5],
                };
                let bytes = session.map_or_else(|| own(&m), |session| wire(session.into(), &m));
                (Request::SetForecast(m), bytes)
            }
            Op::Trial { .. } | Op::EndTrial { .. } => self.resolve_trials(op),
            Op::Event { .. } => self.resolve_event(op),
            _ => self.resolve_goals(op),
        }
    }

    fn resolve_event(&self, op: &Op) -> (Request, Wire) {
        let Op::Event { session, instance, resource, name, ms, days, shift, id } = *op else {
            unreachable!("an event");
        };
        let day_ms = 86_400_000;
        let now_ms = self.room.time_ns / 1_000_000;
        let starts_ms = (now_ms + u64::from(ms.0)).saturating_sub(u64::from(days.1) * day_ms);
        let lasts_ms = match days.0 {
            0 => u64::from(ms.1.min(FORECAST_MS_MAX)),
            days => u64::from(ms.1).min(u64::from(days) * day_ms),
        };
        let until_ms = match days {
            (0, ..) | (_, _, 0) => 0,
            (.., left) => {
                let until_ms = now_ms + u64::from(left - 1) * day_ms;
                (until_ms + u64::from(ms.1 / 2)).max(starts_ms + 1)
            }
        };
        let mut m = PlanEvent {
            starts_at_ms: starts_ms.into(),
            until_ms: until_ms.into(),
            lasts_ms: (lasts_ms as u32).into(),
            add_vru: shift.1.into(),
            percent: shift.0.min(EVENT_PERCENT_MAX).into(),
            every_days: u16::from(days.0).into(),
            ..PlanEvent::zeroed()
        };
        if ms.1 == 0 {
            m = PlanEvent::zeroed();
        }
        m.client_id = self.id(session, id);
        m.instance = u32::from(instance).into();
        (m.resource, m.name) = (resource, field_cut(&format!("event {name}")));
        (Request::PlanEvent(m), wire(session.into(), &m))
    }

    fn resolve_trials(&self, op: &Op) -> (Request, Wire) {
        if let Op::EndTrial { session, back, id } = *op {
            let last = self.room.machine.experiments().started;
            let m = StopExperiment {
                client_id: self.id(session, id),
                experiment: last.saturating_sub(back.into()).into(),
                reserved: 0.into(),
            };
            return (Request::StopExperiment(m), wire(session.into(), &m));
        }
        let Op::Trial { session, account, tier, resource, measure, salt, harm, .. } = *op else {
            unreachable!("a trial");
        };
        let Op::Trial { lasts_ms, arms, risks, id, .. } = *op else { unreachable!("a trial") };
        let mut m = StartExperiment {
            client_id: self.id(session, id),
            salt: salt.into(),
            lasts_ms: (60_000 + u64::from(lasts_ms)).into(),
            harm_milli: u64::from(harm).into(),
            account: account.map_or(ANY, u32::from).into(),
            tier: tier.map_or(u16::MAX, u16::from).into(),
            resource,
            measure: measure.0,
            more_is_better: measure.1.into(),
            ..StartExperiment::zeroed()
        };
        if risks != [0; 2] {
            // Of a KPI, and each arm with a quantile.
            m.measure = if measure.0 == MEASURE_COST { 0 } else { measure.0 };
            m.risk_percent = risks;
            let cover = |at: usize| arms[at].map_or(1, |arm| arm.1 % 3);
            m.cover = [0, 1].map(|at| if risks[at] > 0 { cover(at) } else { 0 });
            return (Request::StartExperiment(m), wire(session.into(), &m));
        }
        // One of them is a policy.
        let arms = if arms == [None; 2] { [None, Some((1, 1, 900, 3, 0))] } else { arms };
        for (at, arm) in arms.into_iter().enumerate() {
            let Some((class, cover, budget, rent, price)) = arm else { continue };
            let micro = u64::from(budget.max(1)) * 1000 * self.world.tick_micro;
            (m.budget_micro[at], m.burst_micro[at]) = (micro.into(), (micro / 4).into());
            (m.rent_ticks[at], m.price_ticks[at]) = (rent.into(), price.into());
            (m.lead_ms[at], m.hold_ms[at]) = (2000.into(), 500.into());
            (m.class[at], m.cover[at]) = (class, cover);
        }
        (Request::StartExperiment(m), wire(session.into(), &m))
    }

    fn resolve_goals(&self, op: &Op) -> (Request, Wire) {
        match *op {
            Op::Goal(goal) => {
                let mut m = SetObjective::zeroed();
                m.client_id = self.id(goal.session, goal.id);
                m.instance = u32::from(goal.instance).into();
                (m.kpi, m.remove) = (goal.kpi, goal.remove.into());
                if !goal.remove {
                    m.budget_micro = goal.budget.into();
                    m.window_s = goal.window_s.into();
                    (m.breach_at, m.recover_at) = (goal.at.0.into(), goal.at.1.into());
                    (m.breach_ms, m.recover_ms) = (goal.times_ms.0.into(), goal.times_ms.1.into());
                    (m.step_vru, m.most_vru) = (goal.vru.0.into(), goal.vru.1.into());
                    m.rent_ticks = goal.rent.into();
                    (m.below, m.resource, m.class) = (goal.below.into(), goal.resource, goal.class);
                }
                (Request::SetObjective(m), wire(goal.session.into(), &m))
            }
            Op::Kpi { session: Some(session), instance, kpi, value } => {
                let (instance, kpi) = (u32::from(instance), kpi % 2);
                let reserved = [0; 7];
                let m = ReportKpi { instance: instance.into(), value: value.into(), kpi, reserved };
                (Request::ReportKpi(m), wire(session.into(), &m))
            }
            Op::Kpi { session: None, instance, kpi, value } => {
                let (instance, kpi) = (u32::from(instance), usize::from(kpi) % HOST_KPIS.len());
                let mut values = HOST_KPIS.map(|_| U32::new(u32::MAX));
                values[kpi] = value.into();
                let m = HostKpis { instance: instance.into(), values };
                let kpi = HOST_KPIS[kpi] as u8;
                (Request::Measured { instance, kpi, value }, own(&m))
            }
            _ => self.resolve_limits(op),
        }
    }

    fn resolve_limits(&self, op: &Op) -> (Request, Wire) {
        match *op {
            Op::Limits(Bounds { session, account, whom, most, id }) => {
                let (group, sells_to, buys_from, opted_in) = whom;
                let limit = |most: Option<u32>, unit: u64| {
                    most.map_or(UNLIMITED, |most| u64::from(most).saturating_mul(unit)).into()
                };
                let m = SetLimits {
                    client_id: self.id(session, id),
                    sells_to: u64::from(sells_to).into(),
                    buys_from: u64::from(buys_from).into(),
                    sell_max_credits: limit(most[0], 1),
                    buy_max_credits: limit(most[1], 1),
                    order_max_micro: limit(most[2], self.world.tick_micro),
                    position_max_credits: limit(most[3], 1),
                    account: u32::from(account).into(),
                    group,
                    opted_in: opted_in.into(),
                    reserved: [0; 2],
                };
                (Request::SetLimits(m), wire(session.into(), &m))
            }
            Op::CancelAccount { session, account, book, side, id } => {
                let m = CancelAccount {
                    client_id: self.id(session, id),
                    account: u32::from(account).into(),
                    book: book.map_or(ANY_BOOK, u16::from).into(),
                    side,
                    reserved: 0,
                };
                (Request::CancelAccount(m), wire(session.into(), &m))
            }
            Op::Reverse { session, back, id } => {
                let trade = self.room.machine.trades().wrapping_sub(back.into()).into();
                let m = ReverseTrade { client_id: self.id(session, id), trade };
                (Request::ReverseTrade(m), wire(session.into(), &m))
            }
            _ => unreachable!("resolved before"),
        }
    }

    /// Gives one request to the machine, its twin and the model, and compares everything.
    fn step(
        &mut self,
        request: Request,
        bytes: &Wire,
        met: &RefCell<Met>,
    ) -> Result<(), TestCaseError> {
        let (session, kind, body) = match bytes {
            Wire::Session(session, kind, body) => (*session, *kind, body),
            Wire::Daemon(kind, body) => (ANY, *kind, body),
        };
        let env = self.room.envelope(session);
        let command = Command::parse(kind, body)
            .map_err(|why| TestCaseError::fail(format!("kind {kind:#x} does not parse: {why}")))?;
        self.room.out.clear();
        let applied = self.room.machine.apply(&env, &command, &mut self.room.out);
        prop_assert_eq!(applied, Ok(()));
        self.twin.1.clear();
        prop_assert_eq!(self.twin.0.apply(&env, &command, &mut self.twin.1), Ok(()));
        prop_assert!(self.room.out.bytes() == self.twin.1.bytes(), "the twin says otherwise");
        prop_assert_eq!(self.room.machine.digest(), self.twin.0.digest());

        let caller = Caller { session, request: env.request, time_ns: env.time_ns };
        let mut expected = self.market.ask(&caller, &request);
        let mut said = self.hear()?;
        if !matches!(request, Request::NewOrder(_) | Request::Replace(_)) {
            // Which of many orders goes first is nobody's business.
            sort_cancels(&mut said);
            sort_cancels(&mut expected);
        }
        prop_assert_eq!(&said, &expected);
        for (instance, weight) in std::mem::take(&mut self.weights) {
            let right = self.market.weigh(instance, weight);
            prop_assert!(right, "instance {} weighs {}: {:?}", instance, weight, self.market);
        }
        let mut met = met.borrow_mut();
        met.commands += 1;
        met.stored += std::mem::take(&mut self.away);
        met.samples = [0, 1].map(|sort| met.samples[sort].max(self.samples[sort]));
        said.iter().for_each(|row| met.count(row, session, &self.market.token_swaps));
        drop(met);
        self.room.machine.check_conservation();
        self.compare_ledger()?;
        self.compare_limits()?;
        self.compare_instances()?;
        self.compare_books()
    }

    /// Restores the twin from a snapshot of the machine.
    fn snapshot(&mut self) -> Result<(), TestCaseError> {
        let bytes = self.room.machine.encode();
        prop_assert!(bytes == self.twin.0.encode(), "the twin's state differs");
        for (at, row) in (0_u32..).zip(&self.market.accounts) {
            self.room.apply(ANY, &QueryAccounts { from: at.into() });
            let cap = self.room.said::<AccountRow>()[0].1.cap_millicores.get();
            prop_assert_eq!(cap, row.cap_millicores, "cap of {}", at);
        }
        let restored = Machine::decode(&bytes);
        let restored = restored.map_err(|why| TestCaseError::fail(why.to_string()))?;
        prop_assert!(restored.encode() == bytes, "a restored state encodes otherwise");
        restored.check_conservation();
        let found = Depth::of(&restored);
        for book in 0..restored.books().len() {
            for side in [Side::Buy, Side::Sell] {
                prop_assert!(found.levels(book, side).eq(self.depth.levels(book, side)));
            }
        }
        self.twin.0 = restored;
        Ok(())
    }

    /// The order a handle stands for; a new one if `fresh`.
    fn order(&mut self, handle: U64, fresh: bool) -> Result<u64, TestCaseError> {
        if fresh {
            self.orders_seen += 1;
            let new = self.market.learn(handle.get(), self.orders_seen);
            prop_assert!(new, "handle {:#x} was given out twice", handle.get());
        }
        let known = self.market.order_of(handle.get());
        known.ok_or_else(|| TestCaseError::fail(format!("unknown handle {:#x}", handle.get())))
    }

    /// The machine's events in the model's words.
    fn hear(&mut self) -> Result<Vec<Said>, TestCaseError> {
        let events = self.room.out.bytes().to_vec();
        let mut said = Vec::new();
        for event in Events::new(&events) {
            let to = event.target;
            self.depth.absorb(&event);
            let is_trial =
                event.read::<Exposed>().is_some() || event.read::<ExperimentMoved>().is_some();
            if is_trial || event.read::<Moved>().is_some() || event.read::<Watched>().is_some() {
                // Nothing anyone is told.
            } else if event.read::<MigrationMoved>().is_some() {
                // A lease that waits for long: migrations have a model of their own.
            } else if let Some(m) = event.read::<Entitled>() {
                self.caps.insert((m.instance.get(), m.resource), m.vru.get());
            } else if let Some(m) = event.read::<Stored>() {
                let there = (m.tier.get(), m.vru.get(), m.vru_size.get());
                self.stored.insert(m.instance.get(), there);
                self.away += u64::from(m.vru.get() > 0);
            } else if let Some(m) = event.read::<Weighted>() {
                prop_assert_eq!((to, m.resource), (ANY, 0));
                // Only the last of a command holds.
                self.weights.retain(|&(instance, _)| instance != m.instance.get());
                self.weights.push((m.instance.get(), m.weight_vru.get().into()));
            } else if let Some(m) = event.read::<Resized>() {
                self.capacities.insert((m.tier.get(), m.resource), m.capacity_vru.get());
            } else if let Some(m) = event.read::<Fill>() {
                prop_assert_eq!(to, ANY);
                said.push(Said::Traded(self.hear_fill(m)?));
            } else if let Some(m) = event.read::<AuctionTrade>() {
                prop_assert_eq!(to, ANY);
                said.push(Said::Auctioned(self.hear_auction_trade(m)?));
            } else if let Some(m) = event.read::<Accepted>() {
                said.push(Said::Accepted {
                    to,
                    request: m.request.get(),
                    client_id: m.client_id.get(),
                    order: self.order(m.handle, true)?,
                    time_ns: m.time_ns.get(),
                    instance: m.instance.get(),
                    price: m.price_ticks.get().into(),
                    quantity: m.quantity.get().into(),
                    book: m.book.get().into(),
                    side: side(m.side)?,
                });
            } else if let Some(m) = event.read::<Cancelled>() {
                said.push(self.hear_cancelled(to, m)?);
            } else if let Some(m) = event.read::<Replaced>() {
                said.push(Said::Replaced {
                    to,
                    request: m.request.get(),
                    client_id: m.client_id.get(),
                    old: self.order(m.old_handle, false)?,
                    order: self.order(m.handle, m.handle != m.old_handle)?,
                    time_ns: m.time_ns.get(),
                    price: m.price_ticks.get().into(),
                    quantity: m.quantity.get().into(),
                });
            } else {
                said.push(self.hear_rest(to, &event)?);
            }
        }
        Ok(said)
    }

    fn hear_cancelled(&mut self, to: u32, m: &Cancelled) -> Result<Said, TestCaseError> {
        Ok(Said::Cancelled {
            to,
            request: m.request.get(),
            client_id: m.client_id.get(),
            order: self.order(m.handle, false)?,
            time_ns: m.time_ns.get(),
            instance: m.instance.get(),
            quantity: m.quantity.get().into(),
            book: m.book.get().into(),
            side: side(m.side)?,
            reason: CancelReason::from_u8(m.reason).ok_or_else(|| unknown("reason"))?,
        })
    }

    fn hear_fill(&mut self, m: &Fill) -> Result<Trade, TestCaseError> {
        let maker = Party {
            order: self.order(m.maker_handle, false)?,
            client_id: m.maker_client_id.get(),
            session: m.maker_session.get().into(),
            instance: m.maker.get().into(),
            account: m.maker_account.get() as usize,
            fee: m.maker_fee_micro.get().into(),
            remaining: m.maker_remaining.get().into(),
        };
        let taker = Party {
            order: self.order(m.taker_handle, false)?,
            client_id: m.taker_client_id.get(),
            session: m.taker_session.get().into(),
            instance: m.taker.get().into(),
            account: m.taker_account.get() as usize,
            fee: m.taker_fee_micro.get().into(),
            remaining: m.taker_remaining.get().into(),
        };
        Ok(Trade {
            trade: m.trade.get(),
            book: m.book().into(),
            price: m.price_ticks.get().into(),
            quantity: m.quantity.get().into(),
            taker_side: m.taker_side(),
            maker,
            taker,
        })
    }

    fn hear_auction_trade(&mut self, m: &AuctionTrade) -> Result<Trade, TestCaseError> {
        let seller = Party {
            order: self.order(m.seller_handle, false)?,
            client_id: m.seller_client_id.get(),
            session: m.seller_session.get().into(),
            instance: m.seller.get().into(),
            account: m.seller_account.get().into(),
            fee: m.seller_fee_micro.get().into(),
            remaining: m.seller_remaining.get().into(),
        };
        let buyer = Party {
            order: self.order(m.buyer_handle, false)?,
            client_id: m.buyer_client_id.get(),
            session: m.buyer_session.get().into(),
            instance: m.buyer.get().into(),
            account: m.buyer_account.get().into(),
            fee: m.buyer_fee_micro.get().into(),
            remaining: m.buyer_remaining.get().into(),
        };
        Ok(Trade {
            trade: m.trade.get(),
            book: m.book.get().into(),
            price: m.price_ticks.get().into(),
            quantity: m.quantity.get().into(),
            taker_side: Side::Buy,
            maker: seller,
            taker: buyer,
        })
    }

    fn hear_reversed(m: &TradeReversed) -> Said {
        let party = |(account, instance, session): (U16, U16, U16), fee: U64| Party {
            order: 0,
            client_id: 0,
            session: session.get().into(),
            instance: instance.get().into(),
            account: account.get().into(),
            fee: fee.get().into(),
            remaining: 0,
        };
        Said::Reversed(Trade {
            trade: m.trade.get(),
            book: m.book.get().into(),
            price: m.price_ticks.get().into(),
            quantity: m.quantity.get().into(),
            taker_side: Side::Buy,
            maker: party((m.seller_account, m.seller, m.seller_session), m.seller_fee_micro),
            taker: party((m.buyer_account, m.buyer, m.buyer_session), m.buyer_fee_micro),
        })
    }

    /// What is said of a whole book.
    fn hear_book(event: &Event<'_>) -> Result<Said, TestCaseError> {
        let imbalance = |word: U64| i128::from(word.get() as i64);
        if let Some(m) = event.read::<PhaseChanged>() {
            let phase = Phase::from_u8(m.phase).ok_or_else(|| unknown("phase"))?;
            Ok(Said::Phase { book: m.book.get().into(), phase })
        } else if let Some(m) = event.read::<Indicative>() {
            let (price, volume) = (m.price_ticks.get().into(), m.volume.get().into());
            let auction = (price, volume, imbalance(m.imbalance));
            Ok(Said::Indicative { book: m.book.get().into(), auction })
        } else if let Some(m) = event.read::<Uncrossed>() {
            let (price, volume) = (m.price_ticks.get().into(), m.volume.get().into());
            let auction = (price, volume, imbalance(m.imbalance));
            let trades = m.trades.get().into();
            Ok(Said::Uncrossed { book: m.book.get().into(), auction, trades })
        } else if let Some(m) = event.read::<TierSwap>() {
            let (left, arrived) = (m.left_millicredits.get(), m.arrived_millicredits.get());
            Ok(Said::Swapped(Swap {
                from_book: m.from_book.get().into(),
                to_book: m.to_book.get().into(),
                rate: (m.rate[0].get().into(), m.rate[1].get().into()),
                vru: (m.left_vru.get().into(), m.arrived_vru.get().into()),
                milli: (left.into(), arrived.into()),
                rest_vru: m.rest_vru.get().into(),
            }))
        } else if let Some(m) = event.read::<RentEarned>() {
            let (account, book) = (m.account.get().into(), m.book.get().into());
            let micro = m.micro.get().into();
            Ok(Said::Earned { instance: m.instance.get(), account, book, micro })
        } else if let Some(m) = event.read::<RateMoved>() {
            let rate = (m.rate[0].get().into(), m.rate[1].get().into());
            let (from, to, resource) = (m.from.get(), m.to.get(), m.resource.into());
            Ok(Said::Rate { from, to, resource, rate })
        } else {
            Err(TestCaseError::fail(format!("unexpected event of kind {:#x}", event.kind)))
        }
    }

    fn hear_rest(&mut self, to: u32, event: &Event<'_>) -> Result<Said, TestCaseError> {
        let code = |code: u8| Reject::from_u8(code).ok_or_else(|| unknown("code"));
        if let Some(m) = event.read::<Rejected>() {
            let (request, client_id) = (m.request.get(), m.client_id.get());
            let (time_ns, kind) = (m.time_ns.get(), m.kind);
            Ok(Said::Rejected { to, request, client_id, time_ns, kind, code: code(m.code)? })
        } else if let Some(m) = event.read::<Done>() {
            let (request, client_id) = (m.request.get(), m.client_id.get());
            let (time_ns, value) = (m.time_ns.get(), m.value.get().into());
            Ok(Said::Done { to, request, client_id, time_ns, kind: m.kind, value })
        } else if let Some(m) = event.read::<InstanceCreated>() {
            Ok(Said::Created { instance: m.instance.get(), tier: m.tier.get() })
        } else if let Some(m) = event.read::<InstanceRemoved>() {
            self.caps.retain(|&(instance, _), _| instance != m.instance.get());
            self.stored.remove(&m.instance.get());
            Ok(Said::Removed { instance: m.instance.get() })
        } else if let Some(m) = event.read::<InstanceFrozen>() {
            Ok(Said::Frozen { instance: m.instance.get(), frozen: m.frozen.get() == 1 })
        } else if let Some(m) = event.read::<AccountCapped>() {
            let account = m.account.get() as usize;
            Ok(Said::Capped { account, millicores: m.millicores.get() })
        } else if let Some(m) = event.read::<SessionOpened>() {
            Ok(Said::Opened {
                to,
                number: m.session.get(),
                last_request: m.last_request.get(),
                last_client_id: m.last_client_id.get(),
                fresh: m.fresh == 1,
            })
        } else if let Some(m) = event.read::<TradeReversed>() {
            Ok(Pair::hear_reversed(m))
        } else if let Some(m) = event.read::<SessionRefused>() {
            Ok(Said::Refused { code: code(m.code)? })
        } else {
            Pair::hear_lease(to, event)
        }
    }

    fn hear_swap(to: u32, m: &SwapMoved) -> Result<Said, TestCaseError> {
        let state = SwapState::from_u8(m.state).ok_or_else(|| unknown("state"))?;
        let reason = SwapReason::from_u8(m.reason).ok_or_else(|| unknown("reason"))?;
        Ok(Said::TokenSwap {
            to,
            id: m.id.get(),
            time_ns: m.time_ns.get(),
            tokens: [m.source.get(), m.destination.get()],
            accounts: [m.source_account, m.destination_account].map(|it| it.get() as usize),
            ends_ms: m.ends_ms.get().into(),
            paid: m.paid_micro.get().into(),
            vru: m.vru.get().into(),
            book: m.book.get().into(),
            state: (state, reason),
            words: m.words,
        })
    }

    /// Leases, and what bids for them by itself.
    fn hear_lease(to: u32, event: &Event<'_>) -> Result<Said, TestCaseError> {
        if let Some(m) = event.read::<LeaseMoved>() {
            Ok(Said::Lease {
                to,
                handle: m.handle.get(),
                client_id: m.client_id.get(),
                time_ns: m.time_ns.get(),
                paid: m.paid_micro.get().into(),
                instance: m.instance.get(),
                granted: m.granted_vru.get().into(),
                wanted: m.wanted_vru.get().into(),
                rent: m.rent_ticks.get().into(),
                book: m.book.get().into(),
                class: m.class,
                outcome: LeaseOutcome::from_u8(m.outcome).ok_or_else(|| unknown("outcome"))?,
            })
        } else if let Some(m) = event.read::<TokenMoved>() {
            Ok(Said::Token {
                to,
                id: m.id.get(),
                time_ns: m.time_ns.get(),
                window: (m.from_ms.get().into(), m.until_ms.get().into()),
                account: m.account.get() as usize,
                instance: Some(m.instance.get()).filter(|&number| number != ANY),
                vru: m.vru.get().into(),
                generation: m.generation.get(),
                book: m.book.get().into(),
                outcome: TokenOutcome::from_u8(m.outcome).ok_or_else(|| unknown("outcome"))?,
            })
        } else if let Some(m) = event.read::<SwapMoved>() {
            Pair::hear_swap(to, m)
        } else if let Some(m) = event.read::<PolicyActed>() {
            Ok(Said::Policy {
                to,
                instance: m.instance.get(),
                resource: m.resource.into(),
                did: (m.act, m.reason, m.code),
                amount: (m.amount.get(), m.price_ticks.get()),
                need: m.need_vru.get().into(),
                money: (m.spent_micro.get().into(), m.left_micro.get().into()),
                handle: m.handle.get(),
            })
        } else if let Some(m) = event.read::<ObjectiveMoved>() {
            Ok(Said::Objective {
                to,
                time_ns: m.time_ns.get(),
                instance: m.instance.get(),
                kpi: m.kpi,
                value: m.value.get(),
                lease: Some(m.lease.get()).filter(|&lease| lease != u64::MAX),
                wanted: m.wanted_vru.get().into(),
                spent: m.spent_micro.get().into(),
                outcome: Rescue::from_u8(m.outcome).ok_or_else(|| unknown("outcome"))?,
                code: m.code,
            })
        } else {
            Pair::hear_book(event)
        }
    }

    fn compare_ledger(&self) -> Result<(), TestCaseError> {
        let ledger = self.room.machine.ledger();
        for (at, row) in self.market.accounts.iter().enumerate() {
            let funds =
                (ledger.funds()[at].balance.free.into(), ledger.funds()[at].balance.held.into());
            prop_assert_eq!(funds, (row.free, self.market.held_funds(at)), "funds of {}", at);
        }
        prop_assert_eq!(i128::from(ledger.funds_issued), self.market.funds_issued);
        prop_assert_eq!(i128::from(ledger.fees), self.market.fees);
        prop_assert_eq!(i128::from(ledger.rents), self.market.leases.paid);
        for (book, house) in self.market.books.iter().zip(&ledger.house) {
            prop_assert_eq!(house.issued as i128, book.issued);
            prop_assert_eq!(house.burned as i128, book.burned);
        }
        for (book, pool) in self.market.books.iter().zip(&ledger.pools) {
            let ours = (i128::from(pool.free), pool.issued as i128);
            prop_assert_eq!(ours, book.pool, "pool of tier {}", book.tier);
        }
        Ok(())
    }

    fn compare_limits(&self) -> Result<(), TestCaseError> {
        let machine = &self.room.machine;
        for (at, row) in self.market.accounts.iter().enumerate().filter(|(_, row)| row.is_limited())
        {
            let limits = machine.limits(at as u32).expect("a known account");
            let sides = [Side::Buy, Side::Sell];
            let open = sides.map(|side| self.market.open_of(at, side));
            prop_assert_eq!(limits.open.map(i128::from), open, "open of {}", at);
            let traded = limits.traded_in(machine.limit_window()).map(i128::from);
            prop_assert_eq!(traded, sides.map(|side| self.market.swapped(at, side)), "of {}", at);
            for (side, &most) in row.window_max.iter().enumerate() {
                let within =
                    most.is_none_or(|most| open[side] == 0 || open[side] + traded[side] <= most);
                prop_assert!(within, "account {} is beyond {:?} of a window", at, most);
            }
        }
        Ok(())
    }

    fn compare_instances(&self) -> Result<(), TestCaseError> {
        let machine = &self.room.machine;
        for number in 0..self.world.instances_max {
            let row = self.market.instances.get(&number);
            prop_assert_eq!(machine.instance(number).is_some(), row.is_some());
            let Some(row) = row else { continue };
            let frozen = machine.instance(number).map(|row| row.is_frozen());
            prop_assert_eq!(frozen, Some(row.frozen), "{} frozen", number);
            self.compare_stored(number)?;
            for &resource in Resource::ALL {
                let r = resource as usize;
                let balance = machine.ledger().credit(number as u16, resource);
                let has = (balance.free.into(), balance.held.into());
                let held = self.market.held_credits(number, r);
                prop_assert_eq!(has, (row.free[r], held), "{} of {}", resource, number);
                let entitled = self.market.entitled(number, r);
                let ours = machine.entitlement(number as u16, resource);
                prop_assert_eq!(ours.map(|(vru, _)| i128::from(vru)), entitled);
                let told = self.caps.get(&(number, resource as u8));
                let told = told.map(|&vru| i128::from(vru));
                prop_assert_eq!(told, entitled.filter(|&vru| vru > 0), "cap told of {}", number);
            }
        }
        let known = self.caps.keys().all(|(number, _)| self.market.instances.contains_key(number));
        prop_assert!(known, "a cap was told of an instance that is gone");
        Ok(())
    }

    /// Where an instance's disks belong, as told by events.
    fn compare_stored(&self, number: u32) -> Result<(), TestCaseError> {
        let (tier, vru) = self.market.stored(number);
        let size = if vru > 0 { size_of_vru(tier, Resource::BlockIo) } else { 0 };
        let told = self.stored.get(&number).copied();
        prop_assert_eq!(told.unwrap_or((tier, 0, 0)), (tier, vru as u64, size));
        Ok(())
    }

    /// Depth as told by events, rows as told by queries, open orders and counters.
    fn compare_books(&mut self) -> Result<(), TestCaseError> {
        let mut levels = BTreeMap::new();
        for order in &self.market.orders {
            let key = (order.book as u16, order.side as u8, order.price as u16);
            *levels.entry(key).or_insert(0) += order.quantity as u64;
        }
        self.room.apply(ANY, &QueryBooks { from: 0.into() });
        let rows = self.room.said::<BookRow>();
        for (at, book) in self.market.books.iter().enumerate() {
            let ours = &self.room.machine.books()[at];
            let told = (ours.trades, i128::from(ours.volume), i128::from(ours.last));
            prop_assert_eq!(told, (book.trades, book.volume, book.last));
            let open = self.market.orders.iter().filter(|order| order.book == at).count();
            prop_assert_eq!(ours.orders as usize, open);
            prop_assert_eq!(i128::from(ours.capacity_vru), book.capacity_vru);
            let told = self.capacities[&(book.tier, book.resource as u8)];
            let state = self.market.tiers[usize::from(book.tier)];
            prop_assert_eq!(self.room.machine.tier_state(book.tier) as u8, state);
            let shown = if state == 2 { 0 } else { ours.capacity_vru };
            prop_assert_eq!(told, shown, "capacity told of tier {}", book.tier);
            prop_assert_eq!((ours.vru_size, ours.tier_name), (book.vru_size, book.tier_name));
            prop_assert_eq!(
                i128::from(ours.reserved_vru),
                self.market.reserved(book.tier, book.resource)
            );
            let row = rows[at].1;
            let told = (row.phase, row.scheduled == 1, row.indicative_ticks.get().into());
            prop_assert_eq!(told, (book.phase as u8, book.scheduled, book.indicative.0));
            let told = (row.indicative_volume.get(), row.indicative_imbalance.get() as i64);
            let (volume, imbalance) = (book.indicative.1 as u64, book.indicative.2 as i64);
            prop_assert_eq!(told, (volume, imbalance));
            let of = |side: Side| {
                let own =
                    levels.iter().filter(move |(key, _)| (key.0, key.1) == (at as u16, side as u8));
                own.map(|(key, &quantity)| (key.2, quantity))
            };
            let mut bids: Vec<(u16, u64)> = of(Side::Buy).collect();
            bids.reverse();
            let told = |side| self.depth.levels(at, side).collect::<Vec<_>>();
            prop_assert_eq!(told(Side::Buy), bids);
            prop_assert_eq!(told(Side::Sell), of(Side::Sell).collect::<Vec<_>>());
        }
        self.compare_tokens()?;
        self.compare_swaps()?;
        self.compare_leases()?;
        self.compare_forecasts()?;
        self.compare_events()?;
        self.compare_experiments()?;
        self.compare_policies()?;
        self.compare_objectives()?;
        self.compare_orders()
    }

    /// Tokens as told by queries, and what they promise: never more than there is, at no moment.
    fn compare_tokens(&mut self) -> Result<(), TestCaseError> {
        let (mut rows, mut from) = (Vec::new(), 0);
        while from != u64::MAX && !(self.market.tokens.is_empty() && from > 0) {
            self.room.apply(ANY, &QueryTokens { from: from.into() });
            for (_, row) in self.room.said::<TokenRow>() {
                prop_assert_eq!((row.sealed, row.key.get(), row.mac), (0, 0, [0; 32]));
                rows.push((*row.token(), row.redeemed == 1));
            }
            from = self.room.one::<QueryEnd>().next.get();
        }
        let tokens = self.market.tokens.iter();
        let shown = |token| -> [u8; TOKEN_BYTES] { zerocopy::transmute!(self.market.show(token)) };
        let tokens: Vec<_> = tokens.map(|token| (shown(token), token.redeemed)).collect();
        prop_assert_eq!(rows, tokens);
        for (at, book) in self.market.books.iter().enumerate() {
            let spoken_for = self.market.spoken_for(at);
            prop_assert!(spoken_for <= book.capacity_vru, "more is promised than there is");
            prop_assert_eq!(i128::from(self.room.machine.spoken_for(at)), spoken_for);
        }
        Ok(())
    }

    /// Swaps of tokens as told by queries.
    fn compare_swaps(&mut self) -> Result<(), TestCaseError> {
        let (mut rows, mut from) = (Vec::new(), 0);
        while from != u64::MAX && !(self.market.token_swaps.is_empty() && from > 0) {
            self.room.apply(ANY, &SwapList { from: from.into() });
            rows.extend(self.room.said::<SwapRow>().into_iter().map(|(_, row)| {
                let tokens = [row.source.get(), row.destination.get()];
                let times = (row.deadline_ms.get(), row.lasts_ms.get(), row.ends_ms.get());
                let money = (row.incentive_micro.get(), row.paid_micro.get());
                let how = (row.state, row.reason, row.by_manager == 1, row.breaches);
                (row.id.get(), tokens, row.vru.get(), times, money, how)
            }));
            from = self.room.one::<QueryEnd>().next.get();
        }
        let swaps = self.market.token_swaps.iter().map(|swap| {
            let m = &swap.terms;
            let times = (m.deadline_ms.get(), m.lasts_ms.get(), swap.ends_ms as u64);
            let money = (m.incentive_micro.get(), swap.paid as u64);
            let how = (swap.state as u8, swap.reason as u8, swap.by_manager, swap.breaches);
            (swap.id, swap.tokens, m.vru.get(), times, money, how)
        });
        prop_assert_eq!(rows, swaps.collect::<Vec<_>>());
        Ok(())
    }

    /// Leases and rents as told by queries.
    fn compare_leases(&mut self) -> Result<(), TestCaseError> {
        let mut rows = Vec::new();
        let mut from = 0;
        while from != u64::MAX {
            self.room.apply(ANY, &QueryLeases { from: (from as u32).into() });
            rows.extend(self.room.said::<LeaseRow>().into_iter().map(|(_, row)| {
                let money = [row.paid_micro, row.held_micro].map(|micro| i128::from(micro.get()));
                let vru = [row.wanted_vru, row.granted_vru].map(|vru| i128::from(vru.get()));
                let (rent, book) = (i128::from(row.rent_ticks.get()), usize::from(row.book.get()));
                (row.handle.get(), money, vru, rent, book, row.class, row.all_or_none == 1)
            }));
            from = self.room.one::<QueryEnd>().next.get();
        }
        let all = self.market.leases.all.iter();
        let mut leases: Vec<_> = all
            .map(|lease| {
                let (money, vru) = ([lease.paid, lease.held], [lease.wanted, lease.granted]);
                (lease.handle, money, vru, lease.rent, lease.book, lease.class, lease.whole)
            })
            .collect();
        leases.sort_by_key(|lease| lease.0 as u32);
        prop_assert_eq!(rows, leases);
        self.room.apply(ANY, &QueryRents { from: 0.into() });
        for (at, (_, row)) in self.room.said::<RentRow>().into_iter().enumerate() {
            let vru = [row.supply_vru, row.granted_vru].map(|vru| i128::from(vru.get()));
            prop_assert_eq!(vru, [self.market.supply(at), self.market.granted(at)]);
            prop_assert!(vru[1] <= vru[0], "more is leased than there is");
            let rents = row.rent_ticks.map(|rent| i128::from(rent.get()));
            prop_assert_eq!(rents, self.market.leases.rents[at]);
            let reserves = row.reserve_ticks.map(|rent| i128::from(rent.get()));
            prop_assert_eq!(reserves, self.market.leases.reserve[at]);
        }
        Ok(())
    }

    /// Forecasts as told by queries.
    fn compare_forecasts(&mut self) -> Result<(), TestCaseError> {
        let standing = self.market.standing(self.room.time_ns);
        if standing.is_empty() {
            // Asking costs the time that the commands need.
            return Ok(());
        }
        let (mut rows, mut from) = (Vec::new(), 0);
        while from != u64::MAX {
            self.room.apply(ANY, &QueryForecasts { from: (from as u32).into() });
            rows.extend(self.room.said::<ForecastRow>().into_iter().map(|(_, row)| row));
            from = self.room.one::<QueryEnd>().next.get();
        }
        prop_assert_eq!(rows.len(), standing.len());
        for (row, forecast) in rows.iter().zip(&standing) {
            let (instance, resource, ..) = forecast.of;
            let of = (row.instance.get(), row.resource.into(), row.source, row.horizon);
            prop_assert_eq!(of, forecast.of);
            let holds = (row.starts_at_ms.get().into(), row.ends_at_ms.get().into());
            prop_assert_eq!(holds, forecast.holds_ms);
            let has = self.market.firm(instance, resource);
            prop_assert_eq!(i128::from(row.has_vru.get()), has.min(u32::MAX.into()));
            let forecast = self.market.with_plans(forecast, self.room.time_ns, None);
            let vru = [row.p50_vru, row.p90_vru, row.p975_vru].map(|vru| i128::from(vru.get()));
            prop_assert_eq!(vru, forecast.vru);
            let short = i128::from(row.short_permille.get());
            prop_assert_eq!(short, forecast.short_permille(has), "{:?} with {}", forecast, has);
            let impact = self.market.impact(instance, resource);
            prop_assert_eq!(i128::from(row.impact_milli.get()), impact);
            prop_assert_eq!(i128::from(row.risk.get()), short * impact / 1000);
        }
        Ok(())
    }

    /// Experiments as told by queries.
    fn compare_experiments(&mut self) -> Result<(), TestCaseError> {
        if self.market.experiments.is_empty() {
            return Ok(());
        }
        self.room.apply(ANY, &QueryExperiments { from: 0.into() });
        let rows = self.room.said::<ExperimentRow>();
        let mut model = self.market.experiments.clone();
        model.sort_by_key(|row| row.number);
        prop_assert_eq!(rows.len(), model.len());
        for ((_, row), model) in rows.iter().zip(&model) {
            let (samples, values, means, effect) = self.market.effect(model);
            let of = (row.experiment.get(), row.end, i128::from(row.ends_at_ms.get()));
            prop_assert_eq!(of, (model.number, model.end, model.ends_ms));
            prop_assert_eq!(u32::from(row.looks), model.looks);
            let most = &mut self.samples[usize::from(model.is_of_swaps())];
            *most = (*most).max(samples[0].min(samples[1]));
            prop_assert_eq!(row.sample.map(|sample| i128::from(sample.get())), samples);
            prop_assert_eq!(row.values.map(|values| i128::from(values.get())), values);
            prop_assert_eq!(row.mean_milli.map(|mean| i128::from(mean.get())), means);
            let signed = |field: U64| i128::from(field.get() as i64);
            let told = (signed(row.effect_milli), signed(row.low_milli), signed(row.high_milli));
            let told = (row.has_interval == 1).then_some(told);
            prop_assert_eq!(told, effect.map(|(mid, half)| (mid, mid - half, mid + half)));
            let experiment = row.experiment;
            let (mut shown, mut from) = (Vec::new(), 0);
            while from != u64::MAX {
                let from_place = (from as u32).into();
                self.room.apply(ANY, &QueryExposures { from: from_place, experiment });
                shown.extend(self.room.said::<ExposureRow>().into_iter().map(|(_, row)| row));
                from = self.room.one::<QueryEnd>().next.get();
            }
            let shown = shown.iter().map(|row| {
                let mean = Some(row.mean_milli.get()).filter(|mean| *mean != u64::MAX);
                (row.instance.get(), usize::from(row.arm), row.left, mean.map(i128::from))
            });
            let mine = self.market.exposures.iter().filter(|of| of.experiment == model.number);
            let mine = mine
                .map(|of| (of.instance, of.arm, u8::from(of.state == 1), self.market.told(of).0));
            prop_assert_eq!(shown.collect::<Vec<_>>(), mine.collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Planned events as told by queries.
    fn compare_events(&mut self) -> Result<(), TestCaseError> {
        let planned = self.market.planned(self.room.time_ns);
        if planned.is_empty() {
            return Ok(());
        }
        let (mut rows, mut from) = (Vec::new(), 0);
        while from != u64::MAX {
            self.room.apply(ANY, &QueryEvents { from: (from as u32).into() });
            rows.extend(self.room.said::<EventRow>().into_iter().map(|(_, row)| row));
            from = self.room.one::<QueryEnd>().next.get();
        }
        let now_ms = i128::from(self.room.time_ns / 1_000_000);
        let told = rows.iter().map(|row| {
            let of = (row.instance.get(), usize::from(row.resource), row.name);
            let shift = (i128::from(row.percent.get()), i128::from(row.add_vru.get()));
            (of, i128::from(row.next_at_ms.get()), i128::from(row.lasts_ms.get()), shift)
        });
        let planned = planned.iter().map(|event| {
            let next_ms = event.next_ms(now_ms).expect("not over");
            (event.of, next_ms, event.lasts_ms, (event.percent, event.add))
        });
        prop_assert_eq!(told.collect::<Vec<_>>(), planned.collect::<Vec<_>>());
        Ok(())
    }

    /// Policies as told by queries.
    fn compare_policies(&mut self) -> Result<(), TestCaseError> {
        if self.market.policies.is_empty() {
            return Ok(());
        }
        let mut policies = self.market.policies.clone();
        policies.sort_by_key(|policy| policy.slot);
        let (mut rows, mut from) = (Vec::new(), 0);
        while from != u64::MAX {
            self.room.apply(ANY, &QueryPolicies { from: (from as u32).into() });
            rows.extend(self.room.said::<PolicyRow>().into_iter().map(|(_, row)| row));
            from = self.room.one::<QueryEnd>().next.get();
        }
        prop_assert_eq!(rows.len(), policies.len());
        for (row, policy) in rows.iter().zip(&policies) {
            let of = (row.instance.get(), usize::from(row.resource));
            prop_assert_eq!(of, (policy.instance, policy.resource));
            let (left, hour) = policy.reckon((self.room.time_ns / 1_000_000).into());
            let money = [row.left_micro, row.hour_micro, row.spent_micro, row.bought_credits];
            let money = money.map(|micro| i128::from(micro.get()));
            prop_assert_eq!(money, [left, hour, policy.spent(), policy.bought]);
            prop_assert!(hour <= policy.budget.max(hour.min(policy.spent())), "beyond the budget");
            prop_assert_eq!(row.handle.get(), policy.lease.unwrap_or(0));
            prop_assert_eq!(i128::from(row.need_vru.get()), policy.need);
            let did = (row.act, row.reason, row.code);
            prop_assert_eq!(did, (policy.act, policy.reason, policy.code));
            prop_assert_eq!(i128::from(row.acted_at_ms.get()), policy.acted_ms);
        }
        Ok(())
    }

    /// Objectives as told by queries; what was spent within the window that has come meanwhile.
    fn compare_objectives(&mut self) -> Result<(), TestCaseError> {
        let (mut rows, mut from) = (Vec::new(), 0);
        while let Ok(next) = u32::try_from(from) {
            self.room.apply(ANY, &QueryObjectives { from: next.into() });
            rows.extend(self.room.said::<ObjectiveRow>().into_iter().map(|(_, row)| row));
            from = self.room.one::<QueryEnd>().next.get();
        }
        let now_ms = i128::from(self.room.time_ns / 1_000_000);
        prop_assert_eq!(rows.len(), self.market.objectives.len());
        for (row, model) in rows.iter().zip(&self.market.objectives) {
            let ms = |ms: Option<i128>| ms.unwrap_or(0) as u64;
            prop_assert_eq!(row.number.get() as usize, model.place);
            prop_assert_eq!((row.instance, row.kpi), (model.terms.instance, model.terms.kpi));
            prop_assert_eq!(row.told_at_ms.get(), ms(model.value.1));
            prop_assert_eq!(row.breached_since_ms.get(), ms(model.bad_since));
            prop_assert_eq!(row.recovered_since_ms.get(), ms(model.good_since));
            prop_assert_eq!(i128::from(row.paid_micro.get()), model.paid);
            let handle = |number: u64| {
                let found = self.market.leases.all.iter().find(|lease| lease.number == number);
                found.map_or(0, |lease| lease.handle)
            };
            prop_assert_eq!(row.lease.get(), model.lease.map_or(u64::MAX, handle));
            if i128::from(row.window_ends_ms.get()) > now_ms {
                prop_assert_eq!(i128::from(row.spent_micro.get()), model.spent(now_ms));
            }
            let within = model.spent(now_ms) <= i128::from(model.terms.budget_micro.get());
            let lowered = model.lease.is_none();
            prop_assert!(within || lowered, "a budget was passed");
        }
        Ok(())
    }

    fn compare_orders(&mut self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.room.machine.open_orders() as usize, self.market.orders.len());
        let mut rows = Vec::new();
        for number in self.market.instances.keys().copied().collect::<Vec<_>>() {
            let mut from = 0;
            loop {
                self.room.apply(ANY, &QueryOrders { instance: number.into(), from: from.into() });
                for (_, row) in self.room.said::<OrderRow>() {
                    let order = self.order(row.handle, false)?;
                    let id = row.client_id.get();
                    let (price, quantity) = (row.price_ticks.get(), row.quantity.get());
                    rows.push((order, number, id, price, quantity, row.book.get(), row.side));
                }
                match self.room.one::<QueryEnd>().next.get() {
                    u64::MAX => break,
                    next => from = next as u32,
                }
            }
        }
        rows.sort_unstable();
        let open = self.market.orders.iter().map(|order| {
            let (price, quantity) = (order.price as u32, order.quantity as u32);
            let (book, side) = (order.book as u16, order.side as u8);
            (order.number, order.instance, order.client_id, price, quantity, book, side)
        });
        let mut open: Vec<_> = open.collect();
        open.sort_unstable();
        prop_assert_eq!(rows, open);
        Ok(())
    }

    /// A stranger whom everyone serves takes every book empty, so that each queue's order shows.
    fn sweep(&mut self, met: &RefCell<Met>) -> Result<(), TestCaseError> {
        self.snapshot()?;
        for account in 0..self.market.accounts.len() as u8 {
            let (session, id, most) = (0, Id::Next, [None; 4]);
            let whom = (0, 0xff, 0xff, true);
            self.play(&Op::Limits(Bounds { session, account, whom, most, id }), met)?;
        }
        for (at, book) in (0_u16..).zip(self.market.books.clone()) {
            let mut m = SetPhase::zeroed();
            (m.client_id, m.book) = (self.id(0, Id::Next), at.into());
            self.step(Request::SetPhase(m), &wire(0, &m), met)?;
            for side in [Side::Sell, Side::Buy] {
                for number in self.market.instances.keys().copied().collect::<Vec<_>>() {
                    let mut m = NewOrder::zeroed();
                    m.client_id = self.id(0, Id::Next);
                    m.instance = number.into();
                    m.price_ticks = self.world.price_max.into();
                    m.quantity = self.world.quantity_max.min(1 + book.trades as u32 % 50).into();
                    m.book = at.into();
                    m.side = side as u8;
                    m.order_type = 1;
                    m.time_in_force = 2;
                    m.self_trade = 1;
                    self.step(Request::NewOrder(m), &wire(0, &m), met)?;
                }
            }
        }
        prop_assert!(self.room.machine.encode() == self.twin.0.encode(), "the twin differs");
        Ok(())
    }
}

fn side(value: u8) -> Result<Side, TestCaseError> {
    Side::from_u8(value).ok_or_else(|| unknown("side"))
}

fn unknown(what: &str) -> TestCaseError {
    TestCaseError::fail(format!("unknown {what}"))
}

/// Sorts each run of cancels.
fn sort_cancels(said: &mut [Said]) {
    for run in
        said.chunk_by_mut(|a, b| matches!((a, b), (Said::Cancelled { .. }, Said::Cancelled { .. })))
    {
        run.sort_unstable();
    }
}
