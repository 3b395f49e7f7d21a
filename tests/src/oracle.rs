//! A naive model of the market: what the machine must do, said as simply as possible.
//!
//! Written from the design and the protocol's messages, not from the machine: one list of open
//! orders in order of arrival, linear searches, 128-bit arithmetic, what is held computed from
//! the open orders each time. It shares nothing with the machine but messages and codes.
//!
//! Handles are the machine's affair; the model numbers orders 1, 2, 3... and is told which
//! handle stands for which order ([`Market::learn`]).

pub mod events;
pub mod experiments;
pub mod forecasts;
pub mod leases;
pub mod lenders;
pub mod manager;
pub mod policies;
pub mod rescue;
pub mod swaps;
pub mod tokens;

use events::Event;
use experiments::{Experiment, Exposure};
use forecasts::Forecast;
use leases::Leases;
use manager::Looks;
use policies::Policy;
use rescue::Objective;
use std::collections::BTreeMap;
use swaps::TokenSwap;
use tokens::Token;
use vendue_wire::code::{
    CancelReason, LeaseOutcome, OrderType, Phase, RESOURCES, Reject, Rescue, Role, Side,
    SwapReason, SwapState, TimeInForce, TokenOutcome,
};
use vendue_wire::message::{
    ANY, ANY_BOOK, BidLease, Body, Cancel, CancelAccount, CancelLease, ChangeLease, CreateAccount,
    CreateInstance, Deposit, EntitleInstance, FreezeInstance, GrantCredits, IssueToken, Lend,
    MassCancel, MergeTokens, NewOrder, PlanEvent, RedeemToken, RemoveInstance, Replace, ReportKpi,
    ReverseTrade, RevokeToken, SetAccountCap, SetBid, SetForecast, SetLimits, SetObjective,
    SetPhase, SetPolicy, SetRate, SetReserveRent, SetSwapPolicy, SetTier, SplitToken,
    StartExperiment, StopExperiment, SwapApprove, SwapReject, SwapRequest, SwapTiers,
    TransferToken, U32, U64, UNLIMITED, Withdraw,
};

/// All funds together, micro-units.
const FUNDS_MAX: i128 = 1 << 62;
/// All credits of a book together, milli-credits.
const CREDITS_MAX: i128 = 1 << 62;
/// Capacity of a tier's resource.
const CAPACITY_MAX: i128 = u32::MAX as i128;
/// Milli-credits that a VRU takes along from tier to tier: those of a minute.
const SWAPPED_WITH_A_VRU: i128 = 60_000;
/// Exchanges with a rate of their own.
const EXCHANGES_MAX: usize = 256;
/// Slots that instances are given at a time.
const PAGE_SLOTS: u32 = 16;

/// The market's bounds and rules.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names of the start-up record")]
pub struct Rules {
    pub accounts_max: usize,
    pub instances_max: usize,
    pub orders_max: usize,
    pub orders_per_instance_max: usize,
    pub sessions_max: usize,
    pub credit_cap_s: i128,
    pub burst_resume_ms: i128,
    pub limit_window_s: u64,
    pub reversible_trades: u64,
    pub leases_max: usize,
    pub lease_margin_percent: i128,
    pub maker_fee_bps: i128,
    pub taker_fee_bps: i128,
    /// 0: swaps are not looked for.
    pub swap_every_ms: i128,
}

/// A book and what its tier says of the resource.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names of the start-up record")]
pub struct Book {
    pub tier: u16,
    pub resource: usize,
    pub capacity_vru: i128,
    pub burst_percent: i128,
    pub tick_micro: i128,
    pub price_max: i128,
    pub quantity_max: i128,
    /// What the tier is called.
    pub tier_name: [u8; 32],
    pub vru_size: u64,
    /// Milli-credits in the tier's pool, and ever put into it.
    pub pool: (i128, i128),
    /// Milli-credits of use reported since the beginning.
    pub used: i128,
    /// Milli-credits issued.
    pub issued: i128,
    /// Milli-credits burned.
    pub burned: i128,
    pub trades: u64,
    pub volume: i128,
    pub last: i128,
    /// True if use was reported since the last tick.
    pub reported: bool,
    /// Price of contended use in the last round, milli-credits.
    pub clearing: i128,
    /// When the last two rounds of reports ended, the older one first, milliseconds.
    pub ended_ms: [i128; 2],
    pub phase: Phase,
    /// Milliseconds from auction to auction, 0 for none, and of the call before each.
    pub auctions: (u64, u64),
    /// False while an operator's phase stands.
    pub scheduled: bool,
    /// What was last said of its auction.
    pub indicative: Auction,
    /// Millisecond in which the schedule was looked at last.
    pub looked_ms: Option<u64>,
}

/// Numerator, denominator.
pub type Rate = (i128, i128);

/// How a resource is swapped from a tier to another.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names of the start-up record")]
pub struct Exchange {
    pub from: u16,
    pub to: u16,
    pub resource: usize,
    pub rate: Rate,
    pub low: Rate,
    pub high: Rate,
    pub fixed: bool,
    pub demand: Option<Demand>,
    /// Looks in a row that found reason to swap.
    pub found: u32,
    /// When demand was looked at last, milliseconds, and use of both up to then.
    pub looked: Option<(u64, [i128; 2])>,
}

/// When demand swaps.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names of the start-up record")]
pub struct Demand {
    pub every_ms: u32,
    pub step_vru: u32,
    pub idle_percent: u16,
    pub saturated_percent: u16,
    pub looks: u16,
    pub rate_step_percent: u16,
}

/// What an auction would do: price, volume, imbalance; zeros if nothing crosses.
pub type Auction = (i128, i128, i128);

/// A tenant.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as in the protocol")]
pub struct Account {
    pub group: u8,
    pub sells_to: u64,
    pub buys_from: u64,
    pub name: [u8; 32],
    /// Micro-units not held for orders.
    pub free: i128,
    pub opted_in: bool,
    /// Credits that it may buy, and sell, in a window.
    pub window_max: [Option<i128>; 2],
    /// Micro-units that an order may be worth.
    pub order_max: Option<i128>,
    /// Credits that it may hold and have ordered.
    pub position_max: Option<i128>,
    /// Thousandths of a processor for its instances together, 0: as many as they like.
    pub cap_millicores: u32,
}

impl Account {
    /// True if something is limited.
    pub fn is_limited(&self) -> bool {
        let [buys, sells] = self.window_max;
        [buys, sells, self.order_max, self.position_max].iter().any(Option::is_some)
    }
}

/// A VM or container.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as in the protocol")]
pub struct Instance {
    pub account: usize,
    pub tier: u16,
    pub name: [u8; 32],
    pub baseline: [i128; RESOURCES],
    /// Milli-credits not held for orders.
    pub free: [i128; RESOURCES],
    pub bursting: [bool; RESOURCES],
    /// Milli-credits of use reported since the last tick.
    pub used: [i128; RESOURCES],
    /// End of the last round it reported in, or its beginning, milliseconds.
    pub measured_ms: [i128; RESOURCES],
    /// Milli-credits it bids for each VRU-second above its baseline.
    pub bid: [i128; RESOURCES],
    /// Its weight among processors, as it was told last; VRUs.
    pub weight: i128,
    pub frozen: bool,
    /// How many instances there had been before it.
    pub born: u64,
}

/// A session's row; number 0 is unused.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as in the protocol")]
pub struct Session {
    pub number: u64,
    pub account: u32,
    pub instance: u32,
    pub role: Role,
    pub connected: bool,
    pub cancel_on_disconnect: bool,
    pub last_request: u64,
    pub last_client_id: u64,
    pub closed_at_ns: u64,
}

const UNUSED: Session = Session {
    number: 0,
    account: ANY,
    instance: ANY,
    role: Role::Observer,
    connected: false,
    cancel_on_disconnect: false,
    last_request: 0,
    last_client_id: 0,
    closed_at_ns: 0,
};

const BROKER: Session = Session { role: Role::Operator, ..UNUSED };

/// An order, open or on its way in.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as in the protocol")]
pub struct Order {
    pub number: u64,
    pub client_id: u64,
    pub session: u32,
    pub instance: u32,
    pub book: usize,
    pub side: Side,
    pub price: i128,
    pub quantity: i128,
    pub expires_at_ms: Option<u64>,
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Session's slot, or [`ANY`] for the daemon.
    pub session: u32,
    /// The request's number.
    pub request: u64,
    /// Now, nanoseconds.
    pub time_ns: u64,
}

/// What can be asked.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the messages of the same names")]
#[allow(clippy::large_enum_variant, reason = "lives on a test's stack")]
pub enum Request {
    NewOrder(NewOrder),
    Cancel(Cancel),
    Replace(Replace),
    MassCancel(MassCancel),
    CreateAccount(CreateAccount),
    Deposit(Deposit),
    Withdraw(Withdraw),
    CreateInstance(CreateInstance),
    RemoveInstance(RemoveInstance),
    GrantCredits(GrantCredits),
    FreezeInstance(FreezeInstance),
    SetBid(SetBid),
    SetPhase(SetPhase),
    CancelAccount(CancelAccount),
    SetLimits(SetLimits),
    ReverseTrade(ReverseTrade),
    SetAccountCap(SetAccountCap),
    SwapTiers(SwapTiers),
    SetRate(SetRate),
    SetTier(SetTier),
    BidLease(BidLease),
    ChangeLease(ChangeLease),
    CancelLease(CancelLease),
    Lend(Lend),
    SetReserveRent(SetReserveRent),
    EntitleInstance(EntitleInstance),
    SetForecast(SetForecast),
    SetPolicy(SetPolicy),
    PlanEvent(PlanEvent),
    StartExperiment(StartExperiment),
    StopExperiment(StopExperiment),
    IssueToken(IssueToken),
    RedeemToken(RedeemToken),
    SplitToken(SplitToken),
    MergeTokens(MergeTokens),
    TransferToken(TransferToken),
    RevokeToken(RevokeToken),
    SwapRequest(SwapRequest),
    SwapApprove(SwapApprove),
    SwapReject(SwapReject),
    SetSwapPolicy(SetSwapPolicy),
    SetObjective(SetObjective),
    ReportKpi(ReportKpi),
    /// The host measured a KPI.
    Measured {
        instance: u32,
        kpi: u8,
        value: u32,
    },
    Tick,
    Usage {
        instance: u32,
        resource: usize,
        used: u64,
    },
    Open {
        number: u64,
        account: u32,
        instance: u32,
        role: Role,
        cancel_on_disconnect: bool,
    },
    /// What came of things on the host: nothing to the market.
    Outcomes,
    /// `same` unless it names another place than the instance's.
    Perished {
        instance: u32,
        same: bool,
    },
    Close {
        slot: u32,
    },
}

/// What the market says, in order. `order` is the model's number of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the messages of the same names")]
pub enum Said {
    Accepted {
        to: u32,
        request: u64,
        client_id: u64,
        order: u64,
        time_ns: u64,
        instance: u32,
        price: i128,
        quantity: i128,
        book: usize,
        side: Side,
    },
    Traded(Trade),
    /// A trade of an auction; the seller stands as maker, the buyer as taker.
    Auctioned(Trade),
    /// A trade was undone; the seller stands as maker, the buyer as taker. Their orders are no part
    /// of it, and the session of one that was forgotten is 65,535.
    Reversed(Trade),
    Uncrossed {
        book: usize,
        auction: Auction,
        trades: u64,
    },
    Phase {
        book: usize,
        phase: Phase,
    },
    Indicative {
        book: usize,
        auction: Auction,
    },
    Cancelled {
        to: u32,
        request: u64,
        client_id: u64,
        order: u64,
        time_ns: u64,
        instance: u32,
        quantity: i128,
        book: usize,
        side: Side,
        reason: CancelReason,
    },
    Replaced {
        to: u32,
        request: u64,
        client_id: u64,
        old: u64,
        order: u64,
        time_ns: u64,
        price: i128,
        quantity: i128,
    },
    Rejected {
        to: u32,
        request: u64,
        client_id: u64,
        time_ns: u64,
        kind: u8,
        code: Reject,
    },
    Done {
        to: u32,
        request: u64,
        client_id: u64,
        time_ns: u64,
        kind: u8,
        value: i128,
    },
    Created {
        instance: u32,
        tier: u16,
    },
    Removed {
        instance: u32,
    },
    Frozen {
        instance: u32,
        frozen: bool,
    },
    Capped {
        account: usize,
        millicores: u32,
    },
    Opened {
        to: u32,
        number: u64,
        last_request: u64,
        last_client_id: u64,
        fresh: bool,
    },
    Refused {
        code: Reject,
    },
    Swapped(Swap),
    Earned {
        instance: u32,
        account: usize,
        book: usize,
        micro: i128,
    },
    Lease {
        to: u32,
        handle: u64,
        client_id: u64,
        time_ns: u64,
        paid: i128,
        instance: u32,
        granted: i128,
        wanted: i128,
        rent: i128,
        book: usize,
        class: u8,
        outcome: LeaseOutcome,
    },
    Token {
        to: u32,
        id: u64,
        time_ns: u64,
        window: (i128, i128),
        account: usize,
        instance: Option<u32>,
        vru: i128,
        generation: u32,
        book: usize,
        outcome: TokenOutcome,
    },
    TokenSwap {
        to: u32,
        id: u64,
        time_ns: u64,
        tokens: [u64; 2],
        accounts: [usize; 2],
        ends_ms: i128,
        paid: i128,
        vru: i128,
        book: usize,
        state: (SwapState, SwapReason),
        words: [u8; 32],
    },
    Policy {
        to: u32,
        instance: u32,
        resource: usize,
        /// Act, reason, refusal.
        did: (u8, u8, u8),
        /// And at which price.
        amount: (u32, u32),
        need: i128,
        /// Spent, and left.
        money: (i128, i128),
        handle: u64,
    },
    Objective {
        to: u32,
        time_ns: u64,
        instance: u32,
        kpi: u8,
        value: u32,
        lease: Option<u64>,
        wanted: i128,
        spent: i128,
        outcome: Rescue,
        code: u8,
    },
    Rate {
        from: u16,
        to: u16,
        resource: usize,
        rate: Rate,
    },
}

/// A swap between tiers: VRUs and milli-credits that left and that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "as in the event of the machine")]
pub struct Swap {
    pub from_book: usize,
    pub to_book: usize,
    pub rate: Rate,
    pub vru: (i128, i128),
    pub milli: (i128, i128),
    pub rest_vru: i128,
}

/// A trade; fees in micro-units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "as in the event of the machine")]
pub struct Trade {
    pub trade: u64,
    pub book: usize,
    pub price: i128,
    pub quantity: i128,
    pub taker_side: Side,
    pub maker: Party,
    pub taker: Party,
}

/// One side of a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "as in the event of the machine")]
pub struct Party {
    pub order: u64,
    pub client_id: u64,
    pub session: u32,
    pub instance: u32,
    pub account: usize,
    pub fee: i128,
    pub remaining: i128,
}

/// The whole market.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "what the names say")]
pub struct Market {
    pub rules: Rules,
    pub books: Vec<Book>,
    pub accounts: Vec<Account>,
    pub instances: BTreeMap<u32, Instance>,
    pub sessions: Vec<Session>,
    /// What each tier is: 0 in use, 1 draining, 2 a place for one.
    pub tiers: Vec<u8>,
    /// Those that were given a rate.
    pub exchanges: Vec<Exchange>,
    /// Who leases what.
    pub leases: Leases,
    /// What instances were said to need.
    pub forecasts: Vec<Forecast>,
    /// What is planned for them.
    pub events: Vec<Event>,
    /// What is done for instances by itself; places for that, and whose turn it is.
    pub policies: Vec<Policy>,
    policy_slots: usize,
    /// Experiments by place, who takes part by place, and how many there ever were.
    pub experiments: Vec<Experiment>,
    pub exposures: Vec<Exposure>,
    trials: u32,
    /// The instance that may take part next, and if the last tick did something.
    trial_turn: u32,
    trial_acted: bool,
    policy_turn: usize,
    /// By place.
    pub objectives: Vec<Objective>,
    /// By id, and the newest there was.
    pub tokens: Vec<Token>,
    token_ids: u64,
    /// By id, the newest there was, and what accounts think of them.
    pub token_swaps: Vec<TokenSwap>,
    swap_ids: u64,
    swap_policies: Vec<SetSwapPolicy>,
    looks: Looks,
    /// What the daemon calls itself.
    pub house: u64,
    /// Open orders in order of arrival in their queues.
    pub orders: Vec<Order>,
    /// Micro-units paid in and not out again.
    pub funds_issued: i128,
    /// Micro-units of fees taken.
    pub fees: i128,
    handles: BTreeMap<u64, u64>,
    /// Instance that has each page of slots; nobody's are left out.
    pages: BTreeMap<u32, u32>,
    /// Instance of each order ever numbered, and if it replaced one.
    owners: Vec<(u32, bool)>,
    trades: u64,
    /// Every trade there was.
    done: Vec<Done>,
    /// What accounts with limits bought and sold: account, side, window, credits.
    swaps: Vec<(usize, Side, u64, i128)>,
    /// The window of the request at hand.
    window: u64,
    /// Instances there have been.
    born: u64,
    /// Sessions that each slot has had.
    openings: Vec<u64>,
    accrued_ms: u64,
    /// Processor credits of each instance at the end of a tick's rounds, when it is weighed: its
    /// auctions come later. Empty after other requests.
    weighed: BTreeMap<u32, i128>,
    said: Vec<Said>,
}

/// A trade that was made: seller as maker, buyer as taker.
#[derive(Clone, Copy, Debug)]
struct Done {
    trade: Trade,
    /// Which instances, and sessions, had these numbers then.
    born: [u64; 2],
    openings: [u64; 2],
    reversed: bool,
}

fn fee(notional: i128, bps: i128) -> i128 {
    (notional * bps + 9_999) / 10_000
}

fn crosses(taker: Side, limit: i128, price: i128) -> bool {
    if taker == Side::Buy { price <= limit } else { price >= limit }
}

impl Market {
    /// An empty market.
    pub fn new(rules: Rules, books: Vec<Book>, exchanges: Vec<Exchange>, tiers: Vec<u8>) -> Market {
        Market {
            rules,
            books,
            accounts: Vec::new(),
            instances: BTreeMap::new(),
            // The last is nobody's: policies act through it.
            sessions: [vec![UNUSED; rules.sessions_max], vec![BROKER]].concat(),
            exchanges,
            tiers,
            leases: Leases::default(),
            forecasts: Vec::new(),
            events: Vec::new(),
            policies: Vec::new(),
            policy_slots: 0,
            experiments: Vec::new(),
            exposures: Vec::new(),
            trials: 0,
            trial_turn: 0,
            trial_acted: false,
            policy_turn: 0,
            objectives: Vec::new(),
            tokens: Vec::new(),
            token_ids: 0,
            token_swaps: Vec::new(),
            swap_ids: 0,
            swap_policies: Vec::new(),
            looks: Looks::default(),
            house: 0,
            orders: Vec::new(),
            funds_issued: 0,
            fees: 0,
            handles: BTreeMap::new(),
            pages: BTreeMap::new(),
            owners: Vec::new(),
            trades: 0,
            done: Vec::new(),
            swaps: Vec::new(),
            window: 0,
            born: 0,
            openings: vec![0; rules.sessions_max + 1],
            accrued_ms: 0,
            weighed: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    /// Remembers that `handle` stands for order `number`; false if it stood for one
    /// before, or if its slot is another instance's.
    pub fn learn(&mut self, handle: u64, number: u64) -> bool {
        let (instance, replaces) = self.owners[number as usize - 1];
        let page = handle as u32 / PAGE_SLOTS;
        let others = |open: &Order| open.instance == instance && open.number != number;
        if replaces && !self.orders.iter().any(others) {
            // It left before it came again.
            self.take_back_pages(instance);
        }
        let owner = *self.pages.entry(page).or_insert(instance);
        owner == instance && self.handles.insert(handle, number).is_none()
    }

    /// An instance without orders keeps its page only if it is its only one.
    fn take_back_pages(&mut self, instance: u32) {
        if self.pages.values().filter(|&&owner| owner == instance).count() > 1 {
            self.pages.retain(|_, &mut owner| owner != instance);
        }
    }

    /// True if an instance finds a slot: in a page of its own, or in one that is nobody's.
    fn has_slot(&self, instance: u32) -> bool {
        let all = self.rules.orders_max as u32;
        let own = self.pages.iter().filter(|(_, owner)| **owner == instance);
        let slots: u32 = own.map(|(page, _)| (all - page * PAGE_SLOTS).min(PAGE_SLOTS)).sum();
        let orders = self.orders.iter().filter(|open| open.instance == instance).count();
        orders < slots as usize || self.pages.len() < all.div_ceil(PAGE_SLOTS) as usize
    }

    /// The order that `handle` stood for, if any.
    pub fn order_of(&self, handle: u64) -> Option<u64> {
        self.handles.get(&handle).copied()
    }

    /// Every handle ever given out.
    pub fn handles(&self) -> &BTreeMap<u64, u64> {
        &self.handles
    }

    /// Carries out a request, or refuses it, and says what happened.
    pub fn ask(&mut self, who: &Caller, request: &Request) -> Vec<Said> {
        for instance in 0..self.rules.instances_max as u32 {
            if !self.instances.contains_key(&instance) {
                self.pages.retain(|_, &mut owner| owner != instance);
            } else if !self.orders.iter().any(|open| open.instance == instance) {
                self.take_back_pages(instance);
            }
        }
        self.weighed.clear();
        self.meter_leases(who.time_ns);
        self.window = who.time_ns / (self.rules.limit_window_s * 1_000_000_000);
        match request {
            Request::Tick => self.tick(who),
            Request::Usage { instance, resource, used } => self.usage(*instance, *resource, *used),
            Request::Open { .. } => self.open(request),
            Request::Perished { instance, same } => {
                if *same {
                    // Of one that is not there nothing is left to remove.
                    let _ = self.remove_instance(who, *instance);
                }
            }
            Request::Outcomes => {}
            Request::SetForecast(m) if who.session == ANY => self.note_forecast(who, m),
            Request::Measured { instance, kpi, value } => {
                self.tell_value(*instance, *kpi, *value);
                self.swap_kpi(who, *instance, *kpi, *value);
            }
            Request::Close { slot } => self.close(who, *slot),
            _ => self.session_request(who, request),
        }
        self.settle_bursts();
        std::mem::take(&mut self.said)
    }

    fn session_request(&mut self, who: &Caller, request: &Request) {
        let sessions = &mut self.sessions[..self.rules.sessions_max];
        let Some(session) = sessions.get_mut(who.session as usize) else { return };
        session.last_request = session.last_request.max(who.request);
        let (kind, client_id, result) = match request {
            Request::NewOrder(m) => (NewOrder::KIND, m.client_id.get(), self.new_order(who, m)),
            Request::Cancel(m) => (Cancel::KIND, m.handle.get(), self.cancel(who, m)),
            Request::Replace(m) => (Replace::KIND, m.client_id.get(), self.replace(who, m)),
            Request::MassCancel(m) => (MassCancel::KIND, 0, self.mass_cancel(who, m)),
            Request::SetBid(m) => (SetBid::KIND, m.client_id.get(), self.set_bid(who, m)),
            Request::BidLease(m) => (BidLease::KIND, m.client_id.get(), self.bid_lease(who, m)),
            Request::ChangeLease(m) => {
                (ChangeLease::KIND, m.client_id.get(), self.change_lease(who, m))
            }
            Request::CancelLease(m) => {
                (CancelLease::KIND, m.client_id.get(), self.cancel_lease(who, m))
            }
            Request::Lend(m) => (Lend::KIND, m.client_id.get(), self.lend(who, m)),
            Request::SetReserveRent(m) => {
                (SetReserveRent::KIND, m.client_id.get(), self.set_reserve_rent(who, m))
            }
            Request::EntitleInstance(m) => {
                (EntitleInstance::KIND, m.client_id.get(), self.entitle(who, m))
            }
            Request::StartExperiment(m) => {
                (StartExperiment::KIND, m.client_id.get(), self.start_experiment(who, m))
            }
            Request::StopExperiment(m) => {
                (StopExperiment::KIND, m.client_id.get(), self.stop_experiment(who, m))
            }
            Request::PlanEvent(m) => (PlanEvent::KIND, m.client_id.get(), self.plan_event(who, m)),
            Request::SetPolicy(m) => (SetPolicy::KIND, m.client_id.get(), self.set_policy(who, m)),
            Request::SetForecast(m) => {
                (SetForecast::KIND, m.client_id.get(), self.set_forecast(who, m))
            }
            Request::SetObjective(m) => {
                (SetObjective::KIND, m.client_id.get(), self.set_objective(who, m))
            }
            Request::ReportKpi(m) => {
                (ReportKpi::KIND, m.instance.get().into(), self.report_kpi(who, m))
            }
            _ => self.token_request(who, request),
        };
        if let Err(code) = result {
            let (to, request, time_ns) = (who.session, who.request, who.time_ns);
            self.said.push(Said::Rejected { to, request, client_id, time_ns, kind, code });
        }
    }

    fn token_request(&mut self, who: &Caller, request: &Request) -> (u8, u64, Result<(), Reject>) {
        match request {
            Request::IssueToken(m) => {
                (IssueToken::KIND, m.client_id.get(), self.issue_token(who, m))
            }
            Request::RedeemToken(m) => {
                (RedeemToken::KIND, m.client_id.get(), self.redeem_token(who, m))
            }
            Request::SplitToken(m) => {
                (SplitToken::KIND, m.client_id.get(), self.split_token(who, m))
            }
            Request::MergeTokens(m) => {
                (MergeTokens::KIND, m.client_id.get(), self.merge_tokens(who, m))
            }
            Request::TransferToken(m) => {
                (TransferToken::KIND, m.client_id.get(), self.transfer_token(who, m))
            }
            Request::RevokeToken(m) => {
                (RevokeToken::KIND, m.client_id.get(), self.revoke_token(who, m))
            }
            _ => self.swap_request(who, request),
        }
    }

    fn swap_request(&mut self, who: &Caller, request: &Request) -> (u8, u64, Result<(), Reject>) {
        match request {
            Request::SwapRequest(m) => {
                (SwapRequest::KIND, m.client_id.get(), self.request_swap(who, m))
            }
            Request::SwapApprove(m) => {
                (SwapApprove::KIND, m.client_id.get(), self.approve_swap(who, m))
            }
            Request::SwapReject(m) => {
                (SwapReject::KIND, m.client_id.get(), self.reject_swap(who, m))
            }
            Request::SetSwapPolicy(m) => {
                (SetSwapPolicy::KIND, m.client_id.get(), self.set_swap_policy(who, m))
            }
            _ => self.operator_request(who, request),
        }
    }

    fn operator_request(
        &mut self,
        who: &Caller,
        request: &Request,
    ) -> (u8, u64, Result<(), Reject>) {
        let (kind, client_id) = match request {
            Request::CreateAccount(m) => (CreateAccount::KIND, m.client_id.get()),
            Request::Deposit(m) => (Deposit::KIND, m.client_id.get()),
            Request::Withdraw(m) => (Withdraw::KIND, m.client_id.get()),
            Request::CreateInstance(m) => (CreateInstance::KIND, m.client_id.get()),
            Request::RemoveInstance(m) => (RemoveInstance::KIND, m.client_id.get()),
            Request::GrantCredits(m) => (GrantCredits::KIND, m.client_id.get()),
            Request::FreezeInstance(m) => (FreezeInstance::KIND, m.client_id.get()),
            Request::SetPhase(m) => (SetPhase::KIND, m.client_id.get()),
            Request::CancelAccount(m) => (CancelAccount::KIND, m.client_id.get()),
            Request::SetLimits(m) => (SetLimits::KIND, m.client_id.get()),
            Request::ReverseTrade(m) => (ReverseTrade::KIND, m.client_id.get()),
            Request::SetAccountCap(m) => (SetAccountCap::KIND, m.client_id.get()),
            Request::SwapTiers(m) => (SwapTiers::KIND, m.client_id.get()),
            Request::SetRate(m) => (SetRate::KIND, m.client_id.get()),
            Request::SetTier(m) => (SetTier::KIND, m.client_id.get()),
            _ => unreachable!("not a session's request"),
        };
        if self.sessions[who.session as usize].role != Role::Operator {
            return (kind, client_id, Err(Reject::NotPermitted));
        }
        if let Err(code) = self.fresh(who, client_id) {
            return (kind, client_id, Err(code));
        }
        let result = match request {
            Request::CreateAccount(m) => self.create_account(m),
            Request::Deposit(m) => self.deposit(m.account.get(), m.amount_micro.get().into()),
            Request::Withdraw(m) => self.withdraw(m.account.get(), m.amount_micro.get().into()),
            Request::CreateInstance(m) => self.create_instance(who, m),
            Request::RemoveInstance(m) => self.remove_instance(who, m.instance.get()),
            Request::GrantCredits(m) => self.grant(m),
            Request::FreezeInstance(m) => self.freeze(m.instance.get(), m.frozen == 1),
            Request::SetPhase(m) => self.set_phase(who, m),
            Request::CancelAccount(m) => self.cancel_account(who, m),
            Request::SetLimits(m) => self.set_limits(who, m),
            Request::ReverseTrade(m) => self.reverse_trade(m.trade.get()),
            Request::SetAccountCap(m) => self.cap(m.account.get() as usize, m.millicores.get()),
            Request::SwapTiers(m) => self.swap_tiers(m),
            Request::SetRate(m) => self.set_rate(m),
            Request::SetTier(m) => self.set_tier(m, who.time_ns),
            _ => unreachable!("matched above"),
        };
        let result = result.map(|value| {
            self.use_id(who, client_id);
            self.done(who, kind, client_id, value);
        });
        (kind, client_id, result)
    }

    fn done(&mut self, who: &Caller, kind: u8, client_id: u64, value: i128) {
        let (to, request, time_ns) = (who.session, who.request, who.time_ns);
        self.said.push(Said::Done { to, request, client_id, time_ns, kind, value });
    }

    fn fresh(&self, who: &Caller, client_id: u64) -> Result<(), Reject> {
        let last = self.sessions[who.session as usize].last_client_id;
        if client_id > last { Ok(()) } else { Err(Reject::DuplicateClientId) }
    }

    fn use_id(&mut self, who: &Caller, client_id: u64) {
        self.sessions[who.session as usize].last_client_id = client_id;
    }

    fn may_act(&self, who: &Caller, instance: u32) -> Result<(), Reject> {
        let session = &self.sessions[who.session as usize];
        let may = self.instances.get(&instance).is_some_and(|row| match session.role {
            Role::Operator => true,
            Role::Tenant => session.account == row.account as u32,
            Role::Agent => session.instance == instance,
            Role::Observer => false,
        });
        match session.role {
            _ if may => Ok(()),
            Role::Observer => Err(Reject::NotPermitted),
            _ => Err(Reject::UnknownInstance),
        }
    }
}

/// Accounts, instances, credits.
impl Market {
    fn create_account(&mut self, m: &CreateAccount) -> Result<i128, Reject> {
        if !good_name(&m.name) || self.accounts.iter().any(|row| row.name == m.name) {
            return Err(Reject::BadName);
        }
        if self.accounts.len() >= self.rules.accounts_max {
            return Err(Reject::AccountsFull);
        }
        self.accounts.push(Account {
            group: m.group,
            sells_to: m.sells_to.get(),
            buys_from: m.buys_from.get(),
            name: m.name,
            free: 0,
            opted_in: true,
            window_max: [None; 2],
            order_max: None,
            position_max: None,
            cap_millicores: 0,
        });
        Ok(self.accounts.len() as i128 - 1)
    }

    fn deposit(&mut self, account: u32, amount: i128) -> Result<i128, Reject> {
        let row = self.accounts.get_mut(account as usize).ok_or(Reject::UnknownAccount)?;
        if self.funds_issued + amount > FUNDS_MAX {
            return Err(Reject::Overflow);
        }
        self.funds_issued += amount;
        row.free += amount;
        Ok(row.free)
    }

    fn withdraw(&mut self, account: u32, amount: i128) -> Result<i128, Reject> {
        let row = self.accounts.get_mut(account as usize).ok_or(Reject::UnknownAccount)?;
        if row.free < amount {
            return Err(Reject::InsufficientFunds);
        }
        self.funds_issued -= amount;
        row.free -= amount;
        Ok(row.free)
    }

    fn book_of(&self, tier: u16, resource: usize) -> Option<usize> {
        self.books.iter().position(|book| book.tier == tier && book.resource == resource)
    }

    /// VRUs of a resource that the tier's instances have reserved.
    pub fn reserved(&self, tier: u16, resource: usize) -> i128 {
        let of_tier = self.instances.values().filter(|row| row.tier == tier);
        of_tier.map(|row| row.baseline[resource]).sum()
    }

    fn create_instance(&mut self, who: &Caller, m: &CreateInstance) -> Result<i128, Reject> {
        let account = m.account.get() as usize;
        if account >= self.accounts.len() {
            return Err(Reject::UnknownAccount);
        }
        let tier = m.tier.get();
        if !self.books.iter().any(|book| book.tier == tier) {
            return Err(Reject::UnknownTier);
        }
        self.in_use(tier)?;
        if !good_name(&m.name) || self.instances.values().any(|row| row.name == m.name) {
            return Err(Reject::BadName);
        }
        let baseline = m.baseline_vru.map(|vru| i128::from(vru.get()));
        for (resource, &vru) in baseline.iter().enumerate() {
            let at = self.book_of(tier, resource);
            let left = at.map_or(0, |at| self.books[at].capacity_vru - self.spoken_for(at));
            if vru > left {
                return Err(Reject::InsufficientCapacity);
            }
        }
        let measured_ms = [i128::from(who.time_ns / 1_000_000); RESOURCES];
        let number = (0..self.rules.instances_max as u32)
            .find(|number| !self.instances.contains_key(number))
            .ok_or(Reject::InstancesFull)?;
        let (free, bursting) = ([0; RESOURCES], [false; RESOURCES]);
        let (used, bid) = ([0; RESOURCES], [1000; RESOURCES]);
        let row = Instance {
            account,
            tier,
            name: m.name,
            baseline,
            free,
            bursting,
            used,
            measured_ms,
            bid,
            weight: 0,
            frozen: false,
            born: self.born,
        };
        self.born += 1;
        self.instances.insert(number, row);
        self.reclear_tier(tier);
        self.said.push(Said::Created { instance: number, tier });
        Ok(number.into())
    }

    fn remove_instance(&mut self, who: &Caller, number: u32) -> Result<i128, Reject> {
        let tier = self.instances.get(&number).ok_or(Reject::UnknownInstance)?.tier;
        self.cancel_all(who, CancelReason::InstanceRemoved, |order| order.instance == number);
        self.return_tokens(who, number);
        self.end_leases_of(who, number);
        for resource in 0..RESOURCES {
            if let Some(book) = self.book_of(tier, resource) {
                self.books[book].burned += self.instances[&number].free[resource];
            }
        }
        self.instances.remove(&number);
        self.forecasts.retain(|forecast| forecast.of.0 != number);
        self.events.retain(|event| event.of.0 != number);
        self.forget_exposures(number);
        self.forget_use(number);
        self.forget_policies(number);
        for session in self.sessions.iter_mut().filter(|session| session.instance == number) {
            session.instance = ANY;
        }
        self.said.push(Said::Removed { instance: number });
        self.reclear_tier(tier);
        Ok(number.into())
    }

    fn freeze(&mut self, number: u32, frozen: bool) -> Result<i128, Reject> {
        self.instances.get_mut(&number).ok_or(Reject::UnknownInstance)?.frozen = frozen;
        self.said.push(Said::Frozen { instance: number, frozen });
        Ok(frozen.into())
    }

    /// Milli-credits a book may still issue.
    fn room(&self, book: usize) -> i128 {
        CREDITS_MAX - (self.books[book].issued - self.books[book].burned)
    }

    fn grant(&mut self, m: &GrantCredits) -> Result<i128, Reject> {
        let (number, resource) = (m.instance.get(), usize::from(m.resource));
        let tier = self.instances.get(&number).ok_or(Reject::UnknownInstance)?.tier;
        let book = self.book_of(tier, resource).ok_or(Reject::UnknownBook)?;
        let amount = i128::from(m.amount_millicredits.get());
        if amount > self.room(book) {
            return Err(Reject::Overflow);
        }
        self.books[book].issued += amount;
        self.move_credits(number, resource, amount);
        Ok(self.instances[&number].free[resource])
    }

    fn tick(&mut self, who: &Caller) {
        let now_ms = who.time_ns / 1_000_000;
        let elapsed = if self.accrued_ms == 0 { 0 } else { now_ms - self.accrued_ms };
        self.accrued_ms = now_ms;
        for number in self.instances.keys().copied().collect::<Vec<_>>() {
            for resource in 0..RESOURCES {
                let row = &self.instances[&number];
                let (baseline, tier, free) = (row.baseline[resource], row.tier, row.free[resource]);
                let Some(book) = self.book_of(tier, resource) else { continue };
                let cap = baseline * self.rules.credit_cap_s * 1000;
                let has = free + self.held_credits(number, resource);
                let own = baseline * i128::from(elapsed) - self.rented_out(number, resource);
                let earned = own.min(cap - has).max(0);
                let earned = earned.min(self.room(book));
                self.books[book].issued += earned;
                self.move_credits(number, resource, earned);
            }
        }
        for at in 0..self.books.len() {
            let Book { tier, resource, capacity_vru, pool, .. } = self.books[at];
            if self.tiers[usize::from(tier)] == 2 {
                continue;
            }
            let idle = capacity_vru - self.reserved(tier, resource);
            let most = (idle * self.rules.credit_cap_s * 1000).min(CREDITS_MAX);
            let earned = (idle * i128::from(elapsed)).min(most - pool.0).max(0);
            self.books[at].pool = (pool.0 + earned, pool.1 + earned);
        }
        (0..self.books.len()).for_each(|book| self.settle(book, now_ms.into()));
        self.tick_tokens(who);
        self.tick_leases(who);
        self.tick_lenders(elapsed);
        self.weighed =
            self.instances.keys().map(|&number| (number, self.processor_credits(number))).collect();
        self.cancel_all(who, CancelReason::Expired, |order| {
            order.expires_at_ms.is_some_and(|at| at <= now_ms)
        });
        (0..self.exchanges.len()).for_each(|at| self.look_at_demand(at, now_ms));
        self.tick_policies(who);
        (0..self.books.len()).for_each(|book| self.look_at_schedule(book, now_ms));
    }

    fn usage(&mut self, number: u32, resource: usize, used: u64) {
        let Some(row) = self.instances.get(&number).copied() else { return };
        if self.book_of(row.tier, resource).is_none() {
            return;
        }
        self.policy_used(number, resource, used);
        self.note_use(number, resource, used);
        let used = self.beyond_leases(number, resource, used.into()) as u64;
        let paid = i128::from(used).min(row.free[resource]);
        let Some(book) = self.book_of(row.tier, resource) else { return };
        self.books[book].burned += paid;
        self.books[book].reported = true;
        self.books[book].used += i128::from(used);
        self.move_credits(number, resource, -paid);
        let Some(row) = self.instances.get_mut(&number) else { return };
        row.used[resource] = (row.used[resource] + i128::from(used)).min(u64::MAX.into());
    }

    fn set_bid(&mut self, who: &Caller, m: &SetBid) -> Result<(), Reject> {
        let (number, resource) = (m.instance.get(), usize::from(m.resource));
        let client_id = m.client_id.get();
        self.fresh(who, client_id)?;
        self.may_act(who, number)?;
        let tier = self.instances[&number].tier;
        self.book_of(tier, resource).ok_or(Reject::UnknownBook)?;
        let bid = i128::from(m.bid_milli.get());
        if !(100..=100_000).contains(&bid) {
            return Err(Reject::BadPrice);
        }
        self.use_id(who, client_id);
        if let Some(row) = self.instances.get_mut(&number) {
            row.bid[resource] = bid;
        }
        self.done(who, SetBid::KIND, client_id, bid);
        Ok(())
    }

    /// The end of a round: what was used above a baseline costs the clearing price, but nobody
    /// more than it bids; one credit a VRU-second of it is paid already.
    fn settle(&mut self, book: usize, now_ms: i128) {
        let Book { tier, resource, capacity_vru, reported, ended_ms, .. } = self.books[book];
        if !reported {
            return;
        }
        let span = |row: &Instance| (now_ms - row.measured_ms[resource].max(ended_ms[0])).max(1);
        let of_tier = |row: &&Instance| row.tier == tier && row.baseline[resource] > 0;
        let users = self.instances.values().filter(of_tier).filter(|row| row.used[resource] > 0);
        let rate: i128 = users.clone().map(|row| row.used[resource] * 1000 / span(row)).sum();
        let levels = users.map(|row| row.weight * 1000 * span(row) / row.used[resource]);
        let level = levels.min().unwrap_or(0);
        // 95% of the capacity in use is contention; only processors are shared by weight.
        let contended = resource == 0 && rate * 100 >= capacity_vru * 1000 * 95;
        let price = if contended { level.clamp(1000, 100_000) } else { 1000 };
        for row in self.instances.values_mut() {
            if row.tier != tier || row.baseline[resource] == 0 || row.used[resource] == 0 {
                continue;
            }
            let over = (row.used[resource] - row.baseline[resource] * span(row)).max(0);
            let price = price.min(row.bid[resource]).max(1000);
            let extra = (over * (price - 1000) / 1000).min(row.free[resource]);
            row.free[resource] -= extra;
            self.books[book].burned += extra;
            row.used[resource] = 0;
            row.measured_ms[resource] = now_ms;
        }
        self.books[book].clearing = price;
        self.books[book].ended_ms = [ended_ms[1], now_ms];
        self.books[book].reported = false;
    }

    /// Takes in that an instance's weight among processors is `weight` now. False if that is far
    /// from baseline x bid x (balance / fair balance)^2.5.
    pub fn weigh(&mut self, number: u32, weight: u64) -> bool {
        let Some(row) = self.instances.get(&number) else { return false };
        let Some(book) = self.book_of(row.tier, 0) else { return false };
        let now = || self.processor_credits(number);
        let balance = self.weighed.get(&number).copied().unwrap_or_else(now);
        let issued = self.books[book].issued - self.books[book].burned;
        let fair = issued as f64 * row.baseline[0] as f64 / self.reserved(row.tier, 0) as f64;
        let wealth = if issued == 0 { 1.0 } else { (balance as f64 / fair).powf(2.5) };
        let (leased, lent) = self.leased(number, 0);
        let baseline = (row.baseline[0] - lent) as f64;
        // Of a bid above ten counts what the balance pays for a minute, by doublings of ten.
        let pays = |bid: &i128| bid * 60 * row.baseline[0] <= balance;
        let doublings = [20_000, 40_000, 80_000, 160_000];
        let most = doublings.into_iter().rfind(pays).unwrap_or(10_000);
        let factor = wealth.clamp(0.3, 16.0) * row.bid[0].min(most) as f64 / 1000.0;
        let exact = (baseline * factor).min(100.0 * baseline);
        let Some(row) = self.instances.get_mut(&number) else { return false };
        row.weight = weight.into();
        // Rounded to eighths of an octave, kept for half a step and a quarter, and whole.
        let (leased, most) = (leased as f64, f64::from(u32::MAX));
        let least = (exact * 0.88 - 1.0 + leased).min(most);
        let greatest = ((exact * 1.12).max(1.0) + leased).min(most);
        (least..=greatest).contains(&(weight as f64))
    }

    fn processor_credits(&self, number: u32) -> i128 {
        self.instances[&number].free[0] + self.held_credits(number, 0)
    }

    /// Adds to an instance's free credits, or takes from them.
    fn move_credits(&mut self, number: u32, resource: usize, amount: i128) {
        let Some(row) = self.instances.get_mut(&number) else { panic!("no instance {number}") };
        row.free[resource] += amount;
        assert!(row.free[resource] >= 0, "credits of {number} went negative");
    }

    /// Starts and ends bursts as the free credits say once a command is done.
    fn settle_bursts(&mut self) {
        for row in self.instances.values_mut() {
            for (resource, &free) in row.free.iter().enumerate() {
                // Fractions of a credit cannot be sold, and keep no burst on.
                if free < 1000 {
                    row.bursting[resource] = false;
                } else if free >= row.baseline[resource] * self.rules.burst_resume_ms {
                    row.bursting[resource] = true;
                }
            }
        }
    }

    /// VRUs an instance may use now, if its tier has the resource.
    pub fn entitled(&self, number: u32, resource: usize) -> Option<i128> {
        let row = self.instances.get(&number)?;
        let book = &self.books[self.book_of(row.tier, resource)?];
        let (leased, lent) = self.leased(number, resource);
        let own = row.baseline[resource] - lent;
        let own = if row.bursting[resource] { own * book.burst_percent / 100 } else { own };
        Some((own + leased).min(book.capacity_vru))
    }

    /// Micro-units held for an account's orders.
    pub fn held_funds(&self, account: usize) -> i128 {
        let own = |order: &&Order| self.instances[&order.instance].account == account;
        let buys = self.orders.iter().filter(|order| order.side == Side::Buy);
        let orders: i128 = buys.filter(own).map(|order| self.hold_of_buy(order)).sum();
        orders + self.held_for_leases(account) + self.held_for_swaps(account)
    }

    /// Milli-credits held for an instance's orders.
    pub fn held_credits(&self, instance: u32, resource: usize) -> i128 {
        let sells = self.orders.iter().filter(|order| order.side == Side::Sell);
        sells
            .filter(|order| order.instance == instance)
            .filter(|order| self.books[order.book].resource == resource)
            .map(|order| order.quantity * 1000)
            .sum()
    }

    fn hold_of_buy(&self, order: &Order) -> i128 {
        let notional = order.price * self.books[order.book].tick_micro * order.quantity;
        notional + fee(notional, self.rules.maker_fee_bps)
    }
}

/// Orders.
impl Market {
    fn check_terms(&self, book: usize, price: i128, quantity: i128) -> Result<(), Reject> {
        let book = self.books.get(book).ok_or(Reject::UnknownBook)?;
        if price < 1 || price > book.price_max {
            return Err(Reject::BadPrice);
        }
        if quantity < 1 || quantity > book.quantity_max {
            return Err(Reject::BadQuantity);
        }
        Ok(())
    }

    /// Checks that an order can be paid for whatever happens to it; `released` is what would
    /// become free first.
    fn check_cover(&self, order: &Order, released: i128) -> Result<(), Reject> {
        let row = &self.instances[&order.instance];
        match order.side {
            Side::Buy => {
                let notional = order.price * self.books[order.book].tick_micro * order.quantity;
                let bps = self.rules.maker_fee_bps.max(self.rules.taker_fee_bps);
                let cost = notional + fee(notional, bps) + i128::from(bps > 0);
                let free = self.accounts[row.account].free + released;
                if free < cost { Err(Reject::InsufficientFunds) } else { Ok(()) }
            }
            Side::Sell => {
                let free = row.free[self.books[order.book].resource] + released;
                if free < order.quantity * 1000 { Err(Reject::InsufficientCredits) } else { Ok(()) }
            }
        }
    }

    fn new_order(&mut self, who: &Caller, m: &NewOrder) -> Result<(), Reject> {
        self.fresh(who, m.client_id.get())?;
        self.may_act(who, m.instance.get())?;
        let market = m.order_type == OrderType::Market as u8;
        let side = Side::from_u8(m.side).unwrap_or(Side::Buy);
        let any_price = market && side == Side::Sell;
        let dated = m.time_in_force == TimeInForce::Gtd as u8;
        let order = Order {
            number: self.owners.len() as u64 + 1,
            client_id: m.client_id.get(),
            session: who.session,
            instance: m.instance.get(),
            book: m.book.get().into(),
            side,
            price: if any_price { 1 } else { m.price_ticks.get().into() },
            quantity: m.quantity.get().into(),
            expires_at_ms: dated.then_some(m.expires_at_ms.get()),
        };
        self.check_terms(order.book, order.price, order.quantity)?;
        if self.instances[&order.instance].tier != self.books[order.book].tier {
            return Err(Reject::WrongTier);
        }
        self.check_limits(&order, 0)?;
        let phase = self.books[order.book].phase;
        let rests = !market && (dated || m.time_in_force == TimeInForce::Gtc as u8);
        match phase {
            Phase::Halted => return Err(Reject::BookHalted),
            Phase::Call if !rests => return Err(Reject::BookInCall),
            _ => {}
        }
        if order.expires_at_ms.is_some_and(|at| at <= who.time_ns / 1_000_000) {
            return Err(Reject::BadExpiry);
        }
        if !self.has_slot(order.instance) {
            return Err(Reject::OrdersFull);
        }
        let own = self.orders.iter().filter(|open| open.instance == order.instance).count();
        if own >= self.rules.orders_per_instance_max {
            return Err(Reject::InstanceOrdersFull);
        }
        self.check_cover(&order, 0)?;
        if m.post_only == 1 && phase == Phase::Continuous && self.would_trade(&order) {
            return Err(Reject::WouldCross);
        }
        self.use_id(who, order.client_id);
        self.owners.push((order.instance, false));
        self.said.push(Said::Accepted {
            to: who.session,
            request: who.request,
            client_id: order.client_id,
            order: order.number,
            time_ns: who.time_ns,
            instance: order.instance,
            price: order.price,
            quantity: order.quantity,
            book: order.book,
            side,
        });
        let cancels_resting = m.self_trade == 1;
        let whole = m.time_in_force == TimeInForce::Fok as u8;
        if whole && !self.fills_whole(&order, cancels_resting) {
            self.say_cancelled(who, &order, CancelReason::Unmatched);
            return Ok(());
        }
        self.enter(who, order, cancels_resting, rests);
        Ok(())
    }

    /// Positions of the open orders that `order` crosses, best price first, then oldest.
    fn crossed(&self, order: &Order) -> Vec<Order> {
        let mut found: Vec<Order> = self
            .orders
            .iter()
            .filter(|open| open.book == order.book && open.side != order.side)
            .filter(|open| crosses(order.side, order.price, open.price))
            .copied()
            .collect();
        // A stable sort keeps the order of arrival within a price.
        found.sort_by_key(|open| if order.side == Side::Buy { open.price } else { -open.price });
        found
    }

    fn account_of(&self, order: &Order) -> usize {
        self.instances[&order.instance].account
    }

    fn allowed(&self, a: &Order, b: &Order) -> bool {
        let (seller, buyer) = if a.side == Side::Sell { (a, b) } else { (b, a) };
        let seller = &self.accounts[self.account_of(seller)];
        let buyer = &self.accounts[self.account_of(buyer)];
        seller.opted_in
            && buyer.opted_in
            && seller.sells_to & (1 << buyer.group) != 0
            && buyer.buys_from & (1 << seller.group) != 0
    }

    fn would_trade(&self, order: &Order) -> bool {
        let account = self.account_of(order);
        let crossed = self.crossed(order);
        crossed.iter().any(|open| self.account_of(open) == account || self.allowed(order, open))
    }

    fn fills_whole(&self, order: &Order, cancels_resting: bool) -> bool {
        let mut found = 0;
        for open in self.crossed(order) {
            if self.account_of(&open) == self.account_of(order) {
                if !cancels_resting {
                    break;
                }
            } else if self.allowed(order, &open) {
                found += open.quantity;
            }
            if found >= order.quantity {
                break;
            }
        }
        found >= order.quantity
    }

    /// Trades an order against the book; what is left rests or is cancelled.
    fn enter(&mut self, who: &Caller, mut order: Order, cancels_resting: bool, rests: bool) {
        let mut traded = 0;
        let mut gone = if rests { None } else { Some(CancelReason::Unmatched) };
        let waits = self.books[order.book].phase == Phase::Call;
        for open in if waits { Vec::new() } else { self.crossed(&order) } {
            if order.quantity == 0 {
                break;
            }
            if self.account_of(&open) == self.account_of(&order) {
                if cancels_resting {
                    self.take_out(who, open.number, CancelReason::SelfTrade);
                } else {
                    gone = Some(CancelReason::SelfTrade);
                    break;
                }
            } else if self.allowed(&order, &open) {
                self.trade(&mut order, &open, &mut traded);
            }
        }
        if order.quantity == 0 {
            return;
        }
        match gone {
            Some(reason) => self.say_cancelled(who, &order, reason),
            None => {
                self.hold(&order, 1);
                self.orders.push(order);
            }
        }
    }

    /// Takes what an order holds from the free balance (`sign` 1) or gives it back (-1).
    fn hold(&mut self, order: &Order, sign: i128) {
        match order.side {
            Side::Buy => {
                let (account, hold) = (self.account_of(order), self.hold_of_buy(order));
                self.accounts[account].free -= sign * hold;
                assert!(self.accounts[account].free >= 0, "funds of {account} went negative");
            }
            Side::Sell => {
                let resource = self.books[order.book].resource;
                self.move_credits(order.instance, resource, -sign * order.quantity * 1000);
            }
        }
    }

    fn trade(&mut self, taker: &mut Order, open: &Order, traded: &mut i128) {
        let book = taker.book;
        let unit = open.price * self.books[book].tick_micro;
        let quantity = taker.quantity.min(open.quantity);
        let amount = unit * quantity;
        let (before, after) = (unit * open.quantity, unit * (open.quantity - quantity));
        let bps = self.rules.maker_fee_bps;
        let maker_fee = fee(before, bps) - fee(after, bps);
        let bps = self.rules.taker_fee_bps;
        let taker_fee = fee(*traded + amount, bps) - fee(*traded, bps);
        *traded += amount;
        taker.quantity -= quantity;
        let mut maker = *open;
        maker.quantity -= quantity;

        // What the maker holds is freed, the trade is paid from free balances, the rest held.
        let resource = self.books[book].resource;
        let (buyer, seller) =
            if taker.side == Side::Buy { (&*taker, open) } else { (open, &*taker) };
        let (buyer_fee, seller_fee) =
            if taker.side == Side::Buy { (taker_fee, maker_fee) } else { (maker_fee, taker_fee) };
        let (paying, paid) = (self.account_of(buyer), self.account_of(seller));
        if open.side == Side::Buy {
            let freed = self.hold_of_buy(open) - self.hold_of_buy(&maker);
            self.accounts[paying].free += freed;
            self.move_credits(seller.instance, resource, -quantity * 1000);
        }
        self.accounts[paying].free -= amount + buyer_fee;
        self.accounts[paid].free += amount - seller_fee;
        self.fees += buyer_fee + seller_fee;
        assert!(self.accounts[paying].free >= 0, "funds of {paying} went negative");
        self.move_credits(buyer.instance, resource, quantity * 1000);
        self.book_trade(taker, &maker, quantity, (maker_fee, taker_fee));
    }

    /// Counts and reports a trade; takes the maker out of the book or leaves its rest there.
    fn book_trade(&mut self, taker: &Order, maker: &Order, quantity: i128, fees: (i128, i128)) {
        self.trades += 1;
        let book = &mut self.books[taker.book];
        book.trades += 1;
        book.volume += quantity;
        book.last = maker.price;
        let (making, taking) = (self.party(maker, fees.0), self.party(taker, fees.1));
        let trade = Trade {
            trade: self.trades,
            book: taker.book,
            price: maker.price,
            quantity,
            taker_side: taker.side,
            maker: making,
            taker: taking,
        };
        self.said.push(Said::Traded(trade));
        self.note(&trade);
        let at = self.orders.iter().position(|order| order.number == maker.number);
        let Some(at) = at else { panic!("maker {} is not open", maker.number) };
        if maker.quantity == 0 {
            self.orders.remove(at);
        } else {
            self.orders[at].quantity = maker.quantity;
        }
    }

    fn say_cancelled(&mut self, who: &Caller, order: &Order, reason: CancelReason) {
        let mut tell = |to, request| {
            self.said.push(Said::Cancelled {
                to,
                request,
                client_id: order.client_id,
                order: order.number,
                time_ns: who.time_ns,
                instance: order.instance,
                quantity: order.quantity,
                book: order.book,
                side: order.side,
                reason,
            });
        };
        if order.session == who.session {
            tell(who.session, who.request);
            return;
        }
        tell(order.session, 0);
        // Who asked for a cancel gets the answer, whoever entered the order.
        if matches!(reason, CancelReason::Requested | CancelReason::MassCancel) {
            tell(who.session, who.request);
        }
    }

    /// Cancels an open order.
    fn take_out(&mut self, who: &Caller, number: u64, reason: CancelReason) {
        let at = self.orders.iter().position(|order| order.number == number);
        let Some(at) = at else { panic!("order {number} is not open") };
        let order = self.orders.remove(at);
        self.hold(&order, -1);
        self.say_cancelled(who, &order, reason);
    }

    fn cancel_all(
        &mut self,
        who: &Caller,
        reason: CancelReason,
        wanted: impl Fn(&Order) -> bool,
    ) -> i128 {
        let all: Vec<u64> =
            self.orders.iter().filter(|order| wanted(order)).map(|order| order.number).collect();
        for &number in &all {
            self.take_out(who, number, reason);
        }
        all.len() as i128
    }

    fn own_order(&self, who: &Caller, handle: u64) -> Result<Order, Reject> {
        let number = self.order_of(handle).ok_or(Reject::UnknownOrder)?;
        let order = self.orders.iter().find(|order| order.number == number);
        let order = order.ok_or(Reject::UnknownOrder)?;
        self.may_act(who, order.instance).map_err(|_| Reject::UnknownOrder)?;
        Ok(*order)
    }

    fn cancel(&mut self, who: &Caller, m: &Cancel) -> Result<(), Reject> {
        let order = self.own_order(who, m.handle.get())?;
        self.take_out(who, order.number, CancelReason::Requested);
        Ok(())
    }

    fn replace(&mut self, who: &Caller, m: &Replace) -> Result<(), Reject> {
        self.fresh(who, m.client_id.get())?;
        let old = self.own_order(who, m.handle.get())?;
        let mut new = old;
        (new.client_id, new.session) = (m.client_id.get(), who.session);
        (new.price, new.quantity) = (m.price_ticks.get().into(), m.quantity.get().into());
        self.check_terms(old.book, new.price, new.quantity)?;
        if self.books[old.book].phase == Phase::Halted {
            return Err(Reject::BookHalted);
        }
        let keeps_place = new.price == old.price && new.quantity <= old.quantity;
        if !keeps_place {
            self.check_limits(&new, old.quantity)?;
            let released = match old.side {
                Side::Buy => self.hold_of_buy(&old),
                Side::Sell => old.quantity * 1000,
            };
            self.check_cover(&new, released)?;
            self.owners.push((new.instance, true));
            new.number = self.owners.len() as u64;
        }
        self.use_id(who, new.client_id);
        self.said.push(Said::Replaced {
            to: who.session,
            request: who.request,
            client_id: new.client_id,
            old: old.number,
            order: new.number,
            time_ns: who.time_ns,
            price: new.price,
            quantity: new.quantity,
        });
        let at = self.orders.iter().position(|order| order.number == old.number);
        let Some(at) = at else { panic!("order {} is not open", old.number) };
        self.hold(&old, -1);
        if keeps_place {
            self.hold(&new, 1);
            self.orders[at] = new;
        } else {
            self.orders.remove(at);
            self.enter(who, new, false, true);
        }
        Ok(())
    }

    fn mass_cancel(&mut self, who: &Caller, m: &MassCancel) -> Result<(), Reject> {
        let (book, instance) = (m.book.get(), m.instance.get());
        if book != ANY_BOOK && usize::from(book) >= self.books.len() {
            return Err(Reject::UnknownBook);
        }
        if self.sessions[who.session as usize].role == Role::Observer {
            return Err(Reject::NotPermitted);
        }
        if instance != ANY {
            self.may_act(who, instance)?;
        }
        let all = self.instances.keys().copied();
        let own: Vec<u32> = all.filter(|&number| self.may_act(who, number).is_ok()).collect();
        let count = self.cancel_all(who, CancelReason::MassCancel, |order| {
            (instance == ANY || order.instance == instance)
                && own.contains(&order.instance)
                && (book == ANY_BOOK || order.book == usize::from(book))
                && (m.side == 2 || order.side as u8 == m.side)
        });
        self.done(who, MassCancel::KIND, 0, count);
        Ok(())
    }
}

/// Limits and reversals.
impl Market {
    /// Credits that an account's open orders of a side want or offer.
    pub fn open_of(&self, account: usize, side: Side) -> i128 {
        let of_side = self.orders.iter().filter(|open| open.side == side);
        of_side.filter(|open| self.account_of(open) == account).map(|open| open.quantity).sum()
    }

    /// Credits that an account with limits has bought or sold in this window.
    pub fn swapped(&self, account: usize, side: Side) -> i128 {
        let now = (account, side, self.window);
        let of = self.swaps.iter().filter(|swap| (swap.0, swap.1, swap.2) == now);
        of.map(|swap| swap.3).sum()
    }

    /// Would an order pass a limit? `released` of the side's open credits go first.
    fn check_limits(&self, order: &Order, released: i128) -> Result<(), Reject> {
        let (account, side) = (self.account_of(order), order.side);
        let row = &self.accounts[account];
        let bids =
            self.orders.iter().filter(|open| open.book == order.book && open.side == Side::Buy);
        let price = match side {
            Side::Buy => order.price,
            Side::Sell => bids.map(|open| open.price).fold(order.price, i128::max),
        };
        let worth = price * order.quantity * self.books[order.book].tick_micro;
        if row.order_max.is_some_and(|most| worth > most) {
            return Err(Reject::OrderValueLimit);
        }
        let open = self.open_of(account, side) - released + order.quantity;
        let all = open + self.swapped(account, side);
        if row.window_max[side as usize].is_some_and(|most| all > most) {
            return Err(Reject::WindowLimit);
        }
        let own = self.instances.iter().filter(|(_, it)| it.account == account);
        let credits = own.map(|(&number, it)| {
            (0..RESOURCES).map(|r| it.free[r] + self.held_credits(number, r)).sum::<i128>()
        });
        let position = credits.sum::<i128>() + open * 1000;
        if side == Side::Buy && row.position_max.is_some_and(|most| position > most * 1000) {
            return Err(Reject::PositionLimit);
        }
        Ok(())
    }

    fn set_limits(&mut self, who: &Caller, m: &SetLimits) -> Result<i128, Reject> {
        let account = m.account.get() as usize;
        let row = self.accounts.get_mut(account).ok_or(Reject::UnknownAccount)?;
        let limit = |most: U64| (most.get() != UNLIMITED).then(|| i128::from(most.get()));
        (row.sells_to, row.buys_from) = (m.sells_to.get(), m.buys_from.get());
        (row.group, row.opted_in) = (m.group, m.opted_in == 1);
        row.window_max = [limit(m.buy_max_credits), limit(m.sell_max_credits)];
        row.order_max = limit(m.order_max_micro);
        row.position_max = limit(m.position_max_credits);
        let row = *row;
        if !row.is_limited() {
            self.swaps.retain(|swap| swap.0 != account);
        }
        let beyond = [Side::Buy, Side::Sell].map(|side| {
            let all = self.open_of(account, side) + self.swapped(account, side);
            row.window_max[side as usize].is_some_and(|most| all > most)
        });
        let instances = self.instances_of(account);
        Ok(self.cancel_all(who, CancelReason::LimitsChanged, |order| {
            beyond[order.side as usize] && instances.contains(&order.instance)
        }))
    }

    fn instances_of(&self, account: usize) -> Vec<u32> {
        let own = self.instances.iter().filter(|(_, row)| row.account == account);
        own.map(|(&number, _)| number).collect()
    }

    fn cancel_account(&mut self, who: &Caller, m: &CancelAccount) -> Result<i128, Reject> {
        let (account, book) = (m.account.get() as usize, m.book.get());
        if account >= self.accounts.len() {
            return Err(Reject::UnknownAccount);
        }
        if book != ANY_BOOK && usize::from(book) >= self.books.len() {
            return Err(Reject::UnknownBook);
        }
        let instances = self.instances_of(account);
        Ok(self.cancel_all(who, CancelReason::MassCancel, |order| {
            instances.contains(&order.instance)
                && (book == ANY_BOOK || order.book == usize::from(book))
                && (m.side == 2 || order.side as u8 == m.side)
        }))
    }

    /// Remembers a trade, and counts it for parties with limits.
    fn note(&mut self, trade: &Trade) {
        let bought = trade.taker_side == Side::Buy;
        let (seller, buyer) =
            if bought { (trade.maker, trade.taker) } else { (trade.taker, trade.maker) };
        for (party, side) in [(seller, Side::Sell), (buyer, Side::Buy)] {
            if self.accounts[party.account].is_limited() {
                self.swaps.push((party.account, side, self.window, trade.quantity));
            }
        }
        let both = [seller, buyer];
        self.done.push(Done {
            trade: Trade { maker: seller, taker: buyer, taker_side: Side::Buy, ..*trade },
            born: both.map(|party| self.instances[&party.instance].born),
            openings: both.map(|party| self.openings[party.session as usize]),
            reversed: false,
        });
    }

    fn reverse_trade(&mut self, number: u64) -> Result<i128, Reject> {
        if number == 0
            || number > self.trades
            || self.trades - number >= self.rules.reversible_trades
        {
            return Err(Reject::UnknownTrade);
        }
        let done = self.done[number as usize - 1];
        if done.reversed {
            return Err(Reject::AlreadyReversed);
        }
        let mut trade = done.trade;
        for (party, born) in [trade.maker, trade.taker].iter().zip(done.born) {
            if self.instances.get(&party.instance).is_none_or(|row| row.born != born) {
                return Err(Reject::UnknownInstance);
            }
        }
        let (seller, buyer) = (trade.maker, trade.taker);
        let resource = self.books[trade.book].resource;
        let notional = trade.price * trade.quantity * self.books[trade.book].tick_micro;
        if self.instances[&buyer.instance].free[resource] < trade.quantity * 1000 {
            return Err(Reject::InsufficientCredits);
        }
        if self.accounts[seller.account].free < notional - seller.fee {
            return Err(Reject::InsufficientFunds);
        }
        self.move_credits(buyer.instance, resource, -trade.quantity * 1000);
        self.move_credits(seller.instance, resource, trade.quantity * 1000);
        self.accounts[seller.account].free -= notional - seller.fee;
        self.accounts[buyer.account].free += notional + buyer.fee;
        self.fees -= seller.fee + buyer.fee;
        self.done[number as usize - 1].reversed = true;
        for (party, openings) in [&mut trade.maker, &mut trade.taker].into_iter().zip(done.openings)
        {
            (party.order, party.client_id, party.remaining) = (0, 0, 0);
            if self.openings[party.session as usize] != openings {
                party.session = 65_535;
            }
        }
        self.said.push(Said::Reversed(trade));
        Ok(number.into())
    }
}

/// Phases and auctions.
impl Market {
    fn cap(&mut self, account: usize, millicores: u32) -> Result<i128, Reject> {
        let row = self.accounts.get_mut(account).ok_or(Reject::UnknownAccount)?;
        if matches!(millicores, 1..=9 | 65_536_001..) {
            return Err(Reject::BadQuantity);
        }
        row.cap_millicores = millicores;
        self.said.push(Said::Capped { account, millicores });
        Ok(millicores.into())
    }

    fn in_use(&self, tier: u16) -> Result<(), Reject> {
        match self.tiers[usize::from(tier)] {
            0 => Ok(()),
            1 => Err(Reject::WrongTierState),
            _ => Err(Reject::UnknownTier),
        }
    }

    fn set_phase(&mut self, who: &Caller, m: &SetPhase) -> Result<i128, Reject> {
        let (number, now_ms) = (usize::from(m.book.get()), who.time_ns / 1_000_000);
        let tier = self.books.get(number).ok_or(Reject::UnknownBook)?.tier;
        self.in_use(tier)?;
        let book = &mut self.books[number];
        if let Some(phase) = Phase::from_u8(m.phase) {
            book.scheduled = false;
            self.turn(number, phase, phase == Phase::Continuous);
        } else if !book.scheduled {
            book.scheduled = true;
            book.looked_ms = Some(now_ms);
            let phase = book.wanted(now_ms);
            self.turn(number, phase, phase == Phase::Continuous);
        }
        self.say_indicative(number);
        Ok(self.books[number].phase as i128)
    }

    fn look_at_schedule(&mut self, number: usize, now_ms: u64) {
        let book = &mut self.books[number];
        if book.scheduled && book.auctions.0 > 0 {
            let period = |ms: u64| ms / book.auctions.0;
            let over = book.looked_ms.is_some_and(|looked| period(looked) != period(now_ms));
            book.looked_ms = Some(now_ms);
            // A call lasts to the end of its period.
            if book.phase != Phase::Call || over {
                let phase = book.wanted(now_ms);
                self.turn(number, phase, over);
            }
        }
        self.say_indicative(number);
    }

    /// Gives a book a phase, after its auction if one is due and it is not continuous.
    fn turn(&mut self, number: usize, phase: Phase, auction: bool) {
        let before = self.books[number].phase;
        if auction && before != Phase::Continuous {
            self.uncross(number);
        }
        if before != phase {
            self.books[number].phase = phase;
            self.said.push(Said::Phase { book: number, phase });
        }
    }

    fn say_indicative(&mut self, number: usize) {
        let call = self.books[number].phase == Phase::Call;
        let auction = if call { self.auction(number) } else { (0, 0, 0) };
        if self.books[number].indicative != auction {
            self.books[number].indicative = auction;
            self.said.push(Said::Indicative { book: number, auction });
        }
    }

    /// Tries every price that can matter: where supply or demand changes, and beside it.
    fn auction(&self, number: usize) -> Auction {
        let book = &self.books[number];
        let orders: Vec<&Order> = self.orders.iter().filter(|open| open.book == number).collect();
        let prices: Vec<i128> = if book.price_max <= 16 {
            (1..=book.price_max).collect()
        } else {
            let near = orders.iter().flat_map(|open| open.price - 1..=open.price + 1);
            near.filter(|price| (1..=book.price_max).contains(price)).collect()
        };
        let at = |price: i128| {
            let sum = |side| {
                let of_side = orders.iter().filter(|open| open.side == side);
                let willing = of_side.filter(|open| crosses(side, open.price, price));
                willing.map(|open| open.quantity).sum::<i128>()
            };
            (sum(Side::Buy), sum(Side::Sell))
        };
        let merit = |price: i128| {
            let (wanted, offered) = at(price);
            (wanted.min(offered), -(wanted - offered).abs())
        };
        let Some(best) = prices.iter().map(|&price| merit(price)).max() else { return (0, 0, 0) };
        if best.0 == 0 {
            return (0, 0, 0);
        }
        let equal: Vec<i128> = prices.into_iter().filter(|&price| merit(price) == best).collect();
        let (low, high) = (equal.iter().copied().min(), equal.iter().copied().max());
        let (Some(low), Some(high)) = (low, high) else { unreachable!("one is the best") };
        let price = match book.last {
            0 => (low + high) / 2,
            last if last < low => low,
            last if last > high => high,
            last => last,
        };
        let (wanted, offered) = at(price);
        (price, wanted.min(offered), wanted - offered)
    }

    fn uncross(&mut self, number: usize) {
        let auction = self.auction(number);
        let (price, _, imbalance) = auction;
        if price == 0 {
            return;
        }
        let willing = |side: Side| {
            let own = self.orders.iter().filter(|open| open.book == number && open.side == side);
            let mut all: Vec<Order> =
                own.filter(|open| crosses(side, open.price, price)).copied().collect();
            all.sort_by_key(|open| if side == Side::Buy { -open.price } else { open.price });
            all
        };
        let (buyers, mut sellers) = (willing(Side::Buy), willing(Side::Sell));
        let (mut volume, before) = (0, self.trades);
        for mut buyer in buyers {
            for seller in &mut sellers {
                let meet = self.account_of(&buyer) != self.account_of(seller)
                    && self.allowed(&buyer, seller);
                let quantity = buyer.quantity.min(seller.quantity);
                if meet && quantity > 0 {
                    volume += quantity;
                    self.auction_trade(&mut buyer, seller, (price, quantity));
                }
            }
        }
        let trades = self.trades - before;
        let auction = (price, volume, imbalance);
        self.said.push(Said::Uncrossed { book: number, auction, trades });
    }

    fn auction_trade(
        &mut self,
        buyer: &mut Order,
        seller: &mut Order,
        (price, quantity): (i128, i128),
    ) {
        let (book, bps) = (buyer.book, self.rules.maker_fee_bps);
        let unit = price * self.books[book].tick_micro;
        let part = |open: i128| fee(unit * open, bps) - fee(unit * (open - quantity), bps);
        let (buyer_fee, seller_fee) = (part(buyer.quantity), part(seller.quantity));
        let held = self.hold_of_buy(buyer);
        buyer.quantity -= quantity;
        seller.quantity -= quantity;
        let freed = held - self.hold_of_buy(buyer);
        let (paying, paid) = (self.account_of(buyer), self.account_of(seller));
        self.accounts[paying].free += freed - unit * quantity - buyer_fee;
        assert!(freed >= unit * quantity + buyer_fee, "what {paying} held does not cover it");
        self.accounts[paid].free += unit * quantity - seller_fee;
        self.fees += buyer_fee + seller_fee;
        let resource = self.books[book].resource;
        self.move_credits(buyer.instance, resource, quantity * 1000);
        for order in [&*buyer, &*seller] {
            let at = self.orders.iter().position(|open| open.number == order.number);
            let Some(at) = at else { panic!("order {} is not open", order.number) };
            self.orders[at].quantity = order.quantity;
            if order.quantity == 0 {
                self.orders.remove(at);
            }
        }
        self.trades += 1;
        let row = &mut self.books[book];
        (row.trades, row.volume, row.last) = (row.trades + 1, row.volume + quantity, price);
        let trade = Trade {
            trade: self.trades,
            book,
            price,
            quantity,
            taker_side: Side::Buy,
            maker: self.party(seller, seller_fee),
            taker: self.party(buyer, buyer_fee),
        };
        self.said.push(Said::Auctioned(trade));
        self.note(&trade);
    }

    fn party(&self, order: &Order, fee: i128) -> Party {
        Party {
            order: order.number,
            client_id: order.client_id,
            session: order.session,
            instance: order.instance,
            account: self.account_of(order),
            fee,
            remaining: order.quantity,
        }
    }
}

impl Book {
    /// What its schedule wants now.
    fn wanted(&self, now_ms: u64) -> Phase {
        let (every, call) = self.auctions;
        if every > 0 && now_ms % every >= every - call { Phase::Call } else { Phase::Continuous }
    }
}

/// Tiers.
impl Market {
    fn exchange(&self, from: u16, to: u16, resource: usize) -> Option<usize> {
        let is_it = |row: &Exchange| (row.from, row.to, row.resource) == (from, to, resource);
        self.exchanges.iter().position(is_it)
    }

    /// The books of two tiers.
    fn pair(&self, from: u16, to: u16, resource: usize) -> Result<(usize, usize), Reject> {
        let known = |tier| self.books.iter().any(|book| book.tier == tier);
        if from == to || !known(from) || !known(to) || self.tiers[usize::from(from)] == 2 {
            return Err(Reject::UnknownTier);
        }
        self.in_use(to)?;
        let source = self.book_of(from, resource).ok_or(Reject::UnknownBook)?;
        Ok((source, self.book_of(to, resource).ok_or(Reject::TierFull)?))
    }

    fn swap_tiers(&mut self, m: &SwapTiers) -> Result<i128, Reject> {
        let (from, to, vru) = (m.from.get(), m.to.get(), i128::from(m.vru.get()));
        let swap = self.plan(from, to, m.resource.into(), vru)?;
        self.swap(swap);
        Ok(swap.vru.1)
    }

    fn plan(&self, from: u16, to: u16, resource: usize, vru: i128) -> Result<Swap, Reject> {
        let (from_book, to_book) = self.pair(from, to, resource)?;
        let (source, destination) = (&self.books[from_book], &self.books[to_book]);
        let unreserved = source.capacity_vru - self.spoken_for(from_book);
        if vru > unreserved || vru >= source.capacity_vru {
            return Err(Reject::InsufficientCapacity);
        }
        if vru * SWAPPED_WITH_A_VRU > source.pool.0 {
            return Err(Reject::PoolTooSmall);
        }
        let rate = self.exchange(from, to, resource).map_or((1, 1), |at| self.exchanges[at].rate);
        let arrives = |amount: i128| amount * rate.0 / rate.1;
        // As little as makes as much arrive.
        let leaves = |amount: i128| {
            let short = |less: &i128| arrives(amount - less - 1) < arrives(amount);
            amount - (0..amount).find(short).unwrap_or(amount)
        };
        let left = leaves(vru);
        let milli = left * SWAPPED_WITH_A_VRU;
        if arrives(vru) == 0 {
            return Err(Reject::BadQuantity);
        }
        if destination.capacity_vru + arrives(vru) > CAPACITY_MAX
            || destination.pool.0 + arrives(milli) > CREDITS_MAX
        {
            return Err(Reject::TierFull);
        }
        Ok(Swap {
            from_book,
            to_book,
            rate,
            vru: (left, arrives(vru)),
            milli: (leaves(milli), arrives(milli)),
            rest_vru: vru - left,
        })
    }

    fn swap(&mut self, swap: Swap) {
        self.books[swap.from_book].capacity_vru -= swap.vru.0;
        self.books[swap.from_book].pool.0 -= swap.milli.0;
        let to = &mut self.books[swap.to_book];
        to.capacity_vru += swap.vru.1;
        to.pool = (to.pool.0 + swap.milli.1, to.pool.1 + swap.milli.1);
        self.said.push(Said::Swapped(swap));
        self.reclear(&[swap.from_book, swap.to_book]);
    }

    fn set_tier(&mut self, m: &SetTier, time_ns: u64) -> Result<i128, Reject> {
        let (tier, at) = (m.tier.get(), usize::from(m.tier.get()));
        let state = *self.tiers.get(at).ok_or(Reject::UnknownTier)?;
        let books: Vec<usize> =
            (0..self.books.len()).filter(|&book| self.books[book].tier == tier).collect();
        let asked = m.capacity_vru.map(|vru| i128::from(vru.get()));
        match (m.act, state) {
            (0, 2) => {
                self.define_tier(m, &books)?;
                books.iter().for_each(|&book| self.back_on_schedule(book, time_ns));
            }
            (0, _) => return Err(Reject::WrongTierState),
            (_, 2) => return Err(Reject::UnknownTier),
            (1, _) => {
                for resource in (0..RESOURCES).filter(|&resource| asked[resource] > 0) {
                    let book = self.book_of(tier, resource).ok_or(Reject::UnknownBook)?;
                    if self.spoken_for(book) > asked[resource] {
                        return Err(Reject::InsufficientCapacity);
                    }
                }
                for &book in &books {
                    let row = &mut self.books[book];
                    if asked[row.resource] > 0 {
                        row.capacity_vru = asked[row.resource];
                    }
                }
            }
            (2, 0) => {
                self.tiers[at] = 1;
                for &book in &books {
                    self.books[book].scheduled = false;
                    self.turn(book, Phase::Halted, false);
                    self.say_indicative(book);
                }
            }
            (3, 1) => {
                self.tiers[at] = 0;
                books.iter().for_each(|&book| self.back_on_schedule(book, time_ns));
            }
            (4, 1) => {
                let rented = self.leases.all.iter().any(|lease| books.contains(&lease.book));
                let promised = self.tokens.iter().any(|token| books.contains(&token.book));
                let lived_in = self.instances.values().any(|row| row.tier == tier);
                if rented || promised || lived_in {
                    return Err(Reject::NotEmpty);
                }
                self.tiers[at] = 2;
                books.iter().for_each(|&book| self.books[book].pool.0 = 0);
            }
            _ => return Err(Reject::WrongTierState),
        }
        self.reclear_tier(tier);
        Ok(tier.into())
    }

    fn define_tier(&mut self, m: &SetTier, books: &[usize]) -> Result<(), Reject> {
        let tier = m.tier.get();
        let used = |book: &Book| self.tiers[usize::from(book.tier)] != 2;
        let taken = |book: &Book| used(book) && book.tier_name == m.name;
        if !good_name(&m.name) || self.books.iter().any(taken) {
            return Err(Reject::BadName);
        }
        let asked = m.capacity_vru.map(|vru| i128::from(vru.get()));
        let sizes = m.vru_size.map(|size| size.get());
        for (resource, (&vru, &size)) in asked.iter().zip(&sizes).enumerate() {
            let has = self.book_of(tier, resource).is_some();
            if has != (vru > 0) || !has && size > 0 {
                return Err(Reject::InsufficientCapacity);
            }
            if size > 1 << 40 {
                return Err(Reject::Overflow);
            }
        }
        for &book in books {
            let row = &mut self.books[book];
            (row.capacity_vru, row.tier_name) = (asked[row.resource], m.name);
            let size = sizes[row.resource];
            row.vru_size = if size > 0 { size } else { row.vru_size };
        }
        self.tiers[usize::from(tier)] = 0;
        Ok(())
    }

    fn back_on_schedule(&mut self, number: usize, time_ns: u64) {
        let now_ms = time_ns / 1_000_000;
        let book = &mut self.books[number];
        (book.scheduled, book.looked_ms) = (true, Some(now_ms));
        let phase = book.wanted(now_ms);
        self.turn(number, phase, phase == Phase::Continuous);
        self.say_indicative(number);
    }

    fn set_rate(&mut self, m: &SetRate) -> Result<i128, Reject> {
        let (from, to, resource) = (m.from.get(), m.to.get(), usize::from(m.resource));
        self.pair(from, to, resource)?;
        let known = self.exchange(from, to, resource);
        let before = known.map(|at| self.exchanges[at]);
        let mut row = before.unwrap_or(Exchange {
            from,
            to,
            resource,
            rate: (1, 1),
            low: (1, 1000),
            high: (1000, 1),
            fixed: false,
            demand: None,
            found: 0,
            looked: None,
        });
        let given = |pair: [U32; 2]| (i128::from(pair[0].get()), i128::from(pair[1].get()));
        if given(m.low) != (0, 0) {
            row.low = given(m.low);
        }
        if given(m.high) != (0, 0) {
            row.high = given(m.high);
        }
        (row.rate, row.fixed) = (given(m.rate), m.fixed == 1);
        let all = [(1, 1000), row.low, row.rate, row.high, (1000, 1)];
        let positive = all.iter().all(|rate| rate.0 > 0 && rate.1 > 0);
        if !positive || all.windows(2).any(|two| is_more(two[0], two[1])) {
            return Err(Reject::RateOutOfBounds);
        }
        match known {
            Some(at) => self.exchanges[at] = row,
            None if self.exchanges.len() == EXCHANGES_MAX => return Err(Reject::ExchangesFull),
            None => self.exchanges.push(row),
        }
        self.said.push(Said::Rate { from, to, resource, rate: row.rate });
        Ok(known.unwrap_or(self.exchanges.len() - 1) as i128)
    }

    fn look_at_demand(&mut self, at: usize, now_ms: u64) {
        let row = self.exchanges[at];
        let Some(demand) = row.demand else { return };
        let Ok(books) = self.pair(row.from, row.to, row.resource) else { return };
        let used = [books.0, books.1].map(|book| self.books[book].used);
        let due = |(looked_ms, _): (u64, _)| now_ms >= looked_ms + u64::from(demand.every_ms);
        if row.looked.is_some_and(|looked| !due(looked)) {
            return;
        }
        self.exchanges[at].looked = Some((now_ms, used));
        let Some((looked_ms, before)) = row.looked else { return };
        let passed_ms = i128::from(now_ms - looked_ms);
        let load = |tier, of: usize| {
            ((used[of] - before[of]) / passed_ms).max(self.reserved(tier, row.resource))
        };
        let (giving, taking) = (load(row.from, 0), load(row.to, 1));
        let capacity = [books.0, books.1].map(|book| self.books[book].capacity_vru);
        let idle = i128::from(demand.idle_percent);
        let wanted = taking * 100 >= capacity[1] * i128::from(demand.saturated_percent);
        let spare = giving * 100 <= capacity[0] * idle;
        let unwanted = taking * 100 <= capacity[1] * idle;
        let found = if wanted && spare { row.found + 1 } else { 0 };
        let swaps = found >= demand.looks.into();
        self.exchanges[at].found = if swaps { 0 } else { found };
        let percent = i128::from(demand.rate_step_percent);
        if !row.fixed && percent > 0 && (wanted || unwanted) {
            self.move_rate(at, percent, wanted);
        }
        if swaps {
            // As much as leaves the source idle still.
            let keeps = |vru: &i128| giving * 100 <= (capacity[0] - vru) * idle;
            let most = (capacity[0] * idle - giving * 100) / idle;
            assert!(keeps(&most) && !keeps(&(most + 1)));
            let paid = self.books[books.0].pool.0 / SWAPPED_WITH_A_VRU;
            let vru = most.min(paid).min(demand.step_vru.into());
            if let Ok(swap) = self.plan(row.from, row.to, row.resource, vru) {
                self.swap(swap);
            }
        }
    }

    /// A step of the rate in millionths, not beyond its bounds.
    fn move_rate(&mut self, at: usize, percent: i128, dearer: bool) {
        const MILLION: i128 = 1_000_000;
        let row = &mut self.exchanges[at];
        let now = row.rate.0 * MILLION / row.rate.1;
        let step = (now * percent / 100).max(1);
        let moved = (if dearer { now - step } else { now + step }, MILLION);
        let moved = if is_more(row.low, moved) { row.low } else { moved };
        let moved = if is_more(moved, row.high) { row.high } else { moved };
        let before = std::mem::replace(&mut row.rate, moved);
        let Exchange { from, to, resource, rate, .. } = *row;
        if before != rate {
            self.said.push(Said::Rate { from, to, resource, rate });
        }
    }
}

fn is_more(a: Rate, b: Rate) -> bool {
    a.0 * b.1 > b.0 * a.1
}

/// Sessions.
impl Market {
    fn open(&mut self, request: &Request) {
        let Request::Open { number, account, instance, role, cancel_on_disconnect } = *request
        else {
            unreachable!("only called for a logon");
        };
        match self.slot_for(number, account, instance, role) {
            Ok((slot, fresh)) => {
                let row = &mut self.sessions[slot];
                if fresh {
                    *row = Session { number, ..UNUSED };
                    self.openings[slot] += 1;
                }
                (row.account, row.instance, row.role) = (account, instance, role);
                (row.connected, row.cancel_on_disconnect) = (true, cancel_on_disconnect);
                self.said.push(Said::Opened {
                    to: slot as u32,
                    number,
                    last_request: row.last_request,
                    last_client_id: row.last_client_id,
                    fresh,
                });
            }
            Err(code) => self.said.push(Said::Refused { code }),
        }
    }

    /// The session's own row, the first unused one, or that of the longest gone session without
    /// open orders.
    fn slot_for(
        &self,
        number: u64,
        account: u32,
        instance: u32,
        role: Role,
    ) -> Result<(usize, bool), Reject> {
        if number == 0 {
            return Err(Reject::BadField);
        }
        if account != ANY && account as usize >= self.accounts.len() {
            return Err(Reject::UnknownAccount);
        }
        if role == Role::Agent {
            let row = self.instances.get(&instance).ok_or(Reject::UnknownInstance)?;
            if account != ANY && row.account != account as usize {
                return Err(Reject::UnknownInstance);
            }
        }
        let named = (number, account, instance, role);
        let of = |row: &Session| (row.number, row.account, row.instance, row.role);
        let sessions = &self.sessions[..self.rules.sessions_max];
        if let Some(slot) = sessions.iter().position(|row| of(row) == named) {
            return Ok((slot, false));
        }
        if let Some(slot) = sessions.iter().position(|row| row.number == 0) {
            return Ok((slot, true));
        }
        let idle = |slot: &usize| {
            !self.sessions[*slot].connected
                && self.orders.iter().all(|order| order.session as usize != *slot)
        };
        let longest =
            (0..sessions.len()).filter(idle).min_by_key(|&slot| self.sessions[slot].closed_at_ns);
        longest.map(|slot| (slot, true)).ok_or(Reject::SessionsFull)
    }

    fn close(&mut self, who: &Caller, slot: u32) {
        let sessions = &mut self.sessions[..self.rules.sessions_max];
        let Some(row) = sessions.get_mut(slot as usize) else { return };
        row.connected = false;
        row.closed_at_ns = who.time_ns;
        if row.cancel_on_disconnect {
            self.cancel_all(who, CancelReason::Disconnected, |order| order.session == slot);
        }
    }
}

fn good_name(name: &[u8; 32]) -> bool {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    end > 0 && name[end..].iter().all(|&byte| byte == 0) && std::str::from_utf8(name).is_ok()
}
