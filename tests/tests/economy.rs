//! What one account can do to another: trade with it, at prices that it named itself. Nothing else.
//!
//! Generated commands of tenants and agents, each of whom also tries what is not its own: others'
//! instances, orders, session numbers, and all that only operators may. Between them time passes
//! and the host meters. After every command what each account should have is reckoned from what it
//! asked for itself and from the events, and compared with the ledger as it is seen from outside.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use vendue_engine::machine::command::{
    Command, DefineBook, DefineCredits, Genesis, OpenSession, Usage,
};
use vendue_engine::machine::event::{AuctionTrade, Events, Fill, SessionOpened};
use vendue_engine::machine::ledger::pocket;
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{CancelReason, Reject, Resource, Role, Side};
use vendue_wire::message::*;

const ACCOUNTS: usize = 4;
const INSTANCES: usize = 7;
const RESOURCES: usize = 2;
const OPERATOR: u32 = 0;
/// Sessions that act: slots after the operator's.
const ACTING: u32 = 7;
const TICK_MICRO: u64 = 333;
const CAP_S: u64 = 8;
const EXPIRY_S: u64 = 5;
const RESERVE_MILLI: u64 = 1500;
/// VRUs of each resource that each instance reserves.
const BASELINE: [u64; RESOURCES] = [3, 2];
/// Groups that each account sells to and buys from; each is of the group of its number.
const MASKS: [(u64, u64); ACCOUNTS] = [(!0, !0), (!0b1, !0), (!0, !0b100), (!0, !0)];

// ---- what is tried -----------------------------------------------------------------------

/// One request, or one doing of the daemon's. Numbers pick from what there is; not only from what
/// is the asking session's own.
#[derive(Clone, Copy, Debug)]
enum Act {
    Order(Terms),
    Cancel {
        handle: Handle,
    },
    Replace {
        handle: Handle,
        price: u32,
        quantity: u32,
    },
    MassCancel {
        instance: Option<u8>,
        side: u8,
    },
    Bid {
        instance: u8,
        resource: u8,
        milli: u32,
    },
    /// What only operators may: funds, grants, phases, accounts, instances.
    Usurp {
        what: u8,
        whose: u8,
        amount: u32,
    },
    /// A session of its own under the number of another's.
    Impostor {
        number: u8,
    },
    Reconnect {
        cancel: bool,
    },
    Usage {
        instance: u8,
        resource: u8,
        milli: u32,
    },
    Tick {
        milliseconds: u32,
    },
}

#[derive(Clone, Copy, Debug)]
enum Handle {
    Known(u16),
    /// One that was open once, or another generation of its slot.
    Stale(u16, u8),
    Forged(u64),
}

#[derive(Clone, Copy, Debug)]
struct Terms {
    /// For an instance that the session may act for, if there is one.
    own: bool,
    instance: u8,
    book: u8,
    sell: bool,
    market: bool,
    time_in_force: u8,
    cancels_own: bool,
    price: u32,
    quantity: u32,
    expires_ms: u16,
    replayed: bool,
}

fn amount(most: u32) -> impl Strategy<Value = u32> {
    prop_oneof![30 => 1..=most, 1 => Just(0_u32), 1 => Just(u32::MAX)]
}

fn handle() -> impl Strategy<Value = Handle> {
    prop_oneof![
        8 => any::<u16>().prop_map(Handle::Known),
        2 => (any::<u16>(), 0..3_u8).prop_map(|(at, by)| Handle::Stale(at, by)),
        1 => any::<u64>().prop_map(Handle::Forged),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    let book = prop_oneof![5 => Just(0_u8), 5 => Just(1_u8), 1 => Just(2_u8)];
    let own = proptest::bool::weighted(0.8);
    let who = (own, 0..=INSTANCES as u8, book, any::<bool>());
    let how = (0..8_u8, 0..8_u8, any::<bool>(), proptest::bool::weighted(0.05));
    let much = (amount(9), amount(6), any::<u16>());
    (who, how, much).prop_map(|(who, how, (price, quantity, expires_ms))| {
        let (own, instance, book, sell) = who;
        Terms {
            own,
            instance,
            book,
            sell,
            market: how.0 == 0,
            time_in_force: [0, 0, 0, 0, 1, 1, 2, 3][usize::from(how.1)],
            cancels_own: how.2,
            price,
            quantity,
            expires_ms: expires_ms % 6000,
            replayed: how.3,
        }
    })
}

fn act() -> impl Strategy<Value = Act> {
    let instance = || 0..=INSTANCES as u8;
    let resource = || 0..RESOURCES as u8 + 1;
    let replace = (handle(), amount(9), amount(6));
    let mass = (proptest::option::of(instance()), 0..3_u8);
    prop_oneof![
        50 => terms().prop_map(Act::Order),
        6 => handle().prop_map(|handle| Act::Cancel { handle }),
        10 => replace.prop_map(|(handle, price, quantity)| Act::Replace { handle, price, quantity }),
        1 => mass.prop_map(|(instance, side)| Act::MassCancel { instance, side }),
        3 => (instance(), resource(), amount(20_000))
            .prop_map(|(instance, resource, milli)| Act::Bid { instance, resource, milli }),
        4 => (0..9_u8, any::<u8>(), amount(100_000))
            .prop_map(|(what, whose, amount)| Act::Usurp { what, whose, amount }),
        1 => any::<u8>().prop_map(|number| Act::Impostor { number }),
        1 => any::<bool>().prop_map(|cancel| Act::Reconnect { cancel }),
        6 => (instance(), resource(), amount(9_000))
            .prop_map(|(instance, resource, milli)| Act::Usage { instance, resource, milli }),
        8 => (0..1500_u32).prop_map(|milliseconds| Act::Tick { milliseconds }),
    ]
}

// ---- what is known from outside ----------------------------------------------------------

/// Whom a session acts for.
#[derive(Clone, Copy, Debug)]
struct Actor {
    number: u64,
    role: Role,
    account: usize,
    instance: Option<u32>,
}

impl Actor {
    fn may_act_for(&self, instance: u32) -> bool {
        match self.role {
            Role::Tenant => owner(instance) == Some(self.account),
            Role::Agent => self.instance == Some(instance),
            _ => false,
        }
    }
}

/// Instance i belongs to account i mod [`ACCOUNTS`].
fn owner(instance: u32) -> Option<usize> {
    ((instance as usize) < INSTANCES).then_some(instance as usize % ACCOUNTS)
}

/// An order as its own session asked for it.
#[derive(Clone, Copy, Debug)]
struct Order {
    instance: u32,
    account: usize,
    book: usize,
    side: Side,
    limit: u32,
    open: u32,
    session: u32,
    /// Milliseconds since 1970 UTC, 0 without a date.
    expires_ms: u64,
}

/// Free and held.
type Balance = (u64, u64);

/// All balances: by account, micro-units; by instance and resource, milli-credits.
#[derive(Clone, Debug, PartialEq)]
struct Balances {
    funds: Vec<Balance>,
    credits: Vec<[Balance; RESOURCES]>,
}

impl Balances {
    fn of(room: &Room) -> Balances {
        let ledger = room.machine.ledger();
        let funds = ledger.funds()[..ACCOUNTS].iter();
        let of = |instance| {
            [Resource::Cpu, Resource::Memory].map(|resource| {
                let balance = ledger.credits()[pocket(instance, resource)].balance;
                (balance.free, balance.held)
            })
        };
        Balances {
            funds: funds.map(|row| (row.balance.free, row.balance.held)).collect(),
            credits: (0..INSTANCES as u16).map(of).collect(),
        }
    }
}

/// What an instance is measured by, of one resource.
#[derive(Clone, Copy, Debug, Default)]
struct Metered {
    bid_milli: u64,
    /// Use since the last tick, milli-credits.
    used_milli: u64,
    /// What lay idle since credits expired last: at most, at least.
    idle_milli: [u64; 2],
}

/// How far the generator came.
#[derive(Debug, Default)]
struct Met {
    commands: u64,
    trades: u64,
    auctioned: u64,
    /// Requests refused, by code.
    refused: BTreeMap<u8, u64>,
    /// Ticks in which an instance ended with less than before.
    paid: u64,
}

/// What a command should have done.
#[derive(Default)]
struct Due {
    funds: [i128; ACCOUNTS],
    credits: [[i128; RESOURCES]; INSTANCES],
    /// Notional that the incoming order has taken.
    taken: u64,
}

struct Hall {
    room: Room,
    fees_bps: (u64, u64),
    actors: BTreeMap<u32, Actor>,
    orders: BTreeMap<u64, Order>,
    /// Handles that were given out.
    handles: Vec<u64>,
    metered: [[Metered; RESOURCES]; INSTANCES],
    expires_ms: u64,
}

/// A fee: rounded up.
fn fee(notional: u64, bps: u64) -> u64 {
    (notional * bps).div_ceil(10_000)
}

fn genesis(fees_bps: (u64, u64)) -> Genesis {
    Genesis {
        accounts_max: 6.into(),
        instances_max: 9.into(),
        orders_max: 128.into(),
        sessions_max: 14.into(),
        credit_cap_s: (CAP_S as u32).into(),
        burst_resume_ms: 500.into(),
        maker_fee_bps: (fees_bps.0 as u16).into(),
        taker_fee_bps: (fees_bps.1 as u16).into(),
        ..small_genesis()
    }
}

fn book(resource: Resource, (every_ms, call_ms): (u32, u32)) -> DefineBook {
    DefineBook {
        capacity_vru: 22.into(),
        tick_micro: TICK_MICRO.into(),
        price_ticks_max: 9.into(),
        quantity_max: 6.into(),
        burst_percent: 300.into(),
        auction_every_ms: every_ms.into(),
        call_ms: call_ms.into(),
        resource: resource as u8,
        ..small_book()
    }
}

impl Hall {
    fn new(fees_bps: (u64, u64)) -> Hall {
        let books = [book(Resource::Cpu, (0, 0)), book(Resource::Memory, (2000, 900))];
        let mut room = Room::new(&genesis(fees_bps), &books);
        for resource in [Resource::Cpu, Resource::Memory] {
            let mut rules = DefineCredits::usual(0, resource as u8);
            rules.expiry_s = (EXPIRY_S as u32).into();
            rules.reserve_milli = (RESERVE_MILLI as u32).into();
            room.daemon(&rules);
        }
        assert_eq!(room.open(1, Role::Operator, ANY, false), OPERATOR);
        for (at, masks) in (0_u8..).zip(MASKS) {
            let account = room.account(OPERATOR, &format!("account {at}"), at, masks);
            room.deposit(OPERATOR, account, 40_000);
        }
        for instance in 0..INSTANCES as u32 {
            let account = owner(instance).expect("an owner") as u32;
            let vru = [BASELINE[0] as u32, BASELINE[1] as u32, 0, 0, 0];
            room.instance(OPERATOR, account, &format!("instance {instance}"), vru);
            room.grant(OPERATOR, instance, 9_000);
        }
        let orders = BTreeMap::new();
        let metered = [[Metered { bid_milli: 1000, ..Metered::default() }; RESOURCES]; INSTANCES];
        let (actors, handles) = (BTreeMap::new(), Vec::new());
        let mut hall = Hall { room, fees_bps, actors, orders, handles, metered, expires_ms: 0 };
        for at in 0..ACTING {
            let account = at as usize % ACCOUNTS;
            let (role, instance) = match at {
                0..4 => (Role::Tenant, None),
                4 | 5 => (Role::Agent, Some(at)),
                _ => (Role::Observer, None),
            };
            hall.open(Actor { number: 10 + u64::from(at), role, account, instance }, at == 2);
        }
        assert_eq!(hall.actors.len(), ACTING as usize);
        hall
    }

    /// Opens a session, if there is room for it.
    fn open(&mut self, actor: Actor, cancel_on_disconnect: bool) {
        let mut m = OpenSession::zeroed();
        m.session = actor.number.into();
        m.account = (actor.account as u32).into();
        m.instance = actor.instance.unwrap_or(ANY).into();
        m.role = actor.role as u8;
        m.cancel_on_disconnect = cancel_on_disconnect.into();
        self.room.daemon(&m);
        if let Some((slot, _)) = self.room.said::<SessionOpened>().first() {
            self.actors.insert(*slot, actor);
        }
    }

    fn handle(&self, handle: Handle) -> U64 {
        match handle {
            Handle::Known(at) => {
                self.orders.keys().nth(usize::from(at) % self.orders.len().max(1)).copied()
            }
            // The generation is the upper half.
            Handle::Stale(at, by) => {
                let known = self.handles.get(usize::from(at) % self.handles.len().max(1));
                known.map(|handle| handle.wrapping_add(u64::from(by) << 32))
            }
            Handle::Forged(handle) => Some(handle),
        }
        .unwrap_or(7)
        .into()
    }

    /// One act, by the session of a slot where it is a session's; then the reckoning.
    fn play(&mut self, slot: u32, act: &Act, met: &RefCell<Met>) -> Result<(), TestCaseError> {
        let before = Balances::of(&self.room);
        match *act {
            Act::Tick { milliseconds } => {
                self.room.tick(milliseconds.into());
                return self.reckon_tick(&before, milliseconds.into(), met);
            }
            Act::Usage { instance, resource, milli } => {
                return self.meter(&before, (instance, resource, milli.into()));
            }
            Act::Impostor { number } => {
                let whose = self.actors.values().nth(usize::from(number) % self.actors.len());
                let number = whose.map_or(10, |actor| actor.number);
                self.open(Actor { number, ..self.actors[&slot] }, false);
            }
            Act::Reconnect { cancel } => {
                self.room.close(slot);
                let mut due = Due::default();
                self.hear(None, Some(slot), &mut due)?;
                self.open(self.actors[&slot], cancel);
                return self.compare(&before, &due, Some(slot));
            }
            _ => return self.ask(&before, slot, act, met),
        }
        self.compare(&before, &Due::default(), None)
    }

    /// A session's request.
    fn ask(
        &mut self,
        before: &Balances,
        slot: u32,
        act: &Act,
        met: &RefCell<Met>,
    ) -> Result<(), TestCaseError> {
        let (mut asked, client_id) = (None, self.room.next_id());
        match *act {
            Act::Order(terms) => {
                let m = self.order(slot, &terms);
                asked = Some(Asked {
                    instance: m.instance.get(),
                    book: m.book.get().into(),
                    side: if terms.sell { Side::Sell } else { Side::Buy },
                    limit: if terms.market && terms.sell { 1 } else { terms.price },
                    quantity: terms.quantity,
                    expires_ms: m.expires_at_ms.get(),
                });
                self.send(slot, &m)?;
            }
            Act::Cancel { handle } => self.send(slot, &Cancel { handle: self.handle(handle) })?,
            Act::Replace { handle, price, quantity } => {
                let handle = self.handle(handle);
                asked = self.orders.get(&handle.get()).map(|old| Asked {
                    instance: old.instance,
                    book: old.book,
                    side: old.side,
                    limit: price,
                    quantity,
                    expires_ms: old.expires_ms,
                });
                let (price_ticks, quantity) = (price.into(), quantity.into());
                self.send(slot, &Replace { client_id, handle, price_ticks, quantity })?;
            }
            Act::MassCancel { instance, side } => {
                let instance = instance.map_or(ANY, u32::from).into();
                let book = ANY_BOOK.into();
                self.send(slot, &MassCancel { instance, book, side, reserved: 0 })?;
            }
            Act::Bid { instance, resource, milli } => {
                let mut m = SetBid::zeroed();
                (m.client_id, m.instance) = (client_id, u32::from(instance).into());
                (m.bid_milli, m.resource) = (milli.into(), resource);
                self.send(slot, &m)?;
                if self.room.refusal().is_none() {
                    prop_assert!(self.actors[&slot].may_act_for(instance.into()));
                    let row = &mut self.metered[usize::from(instance)][usize::from(resource)];
                    row.bid_milli = milli.into();
                }
            }
            Act::Usurp { what, whose, amount } => {
                self.usurp(slot, what, whose, amount)?;
                prop_assert_eq!(self.room.refusal(), Some(Reject::NotPermitted));
            }
            _ => unreachable!("no session asks for it"),
        }
        let refused = self.room.refusal();
        if let Some(code) = refused {
            *met.borrow_mut().refused.entry(code as u8).or_default() += 1;
            prop_assert_eq!(&Balances::of(&self.room), before, "refused, {:?}", code);
        }
        let mut due = Due::default();
        let traded = self.hear(asked.as_ref(), Some(slot), &mut due)?;
        met.borrow_mut().trades += traded;
        self.compare(before, &due, Some(slot))
    }

    fn order(&self, slot: u32, terms: &Terms) -> NewOrder {
        let all = 0..INSTANCES as u32;
        let own: Vec<u32> = all.filter(|&at| self.actors[&slot].may_act_for(at)).collect();
        let instance = match own.len() {
            1.. if terms.own => own[usize::from(terms.instance) % own.len()],
            _ => terms.instance.into(),
        };
        let expires = self.room.time_ns / 1_000_000 + u64::from(terms.expires_ms);
        NewOrder {
            client_id: if terms.replayed { 1.into() } else { self.room.next_id() },
            expires_at_ms: if terms.time_in_force == 1 { expires } else { 0 }.into(),
            instance: instance.into(),
            price_ticks: terms.price.into(),
            quantity: terms.quantity.into(),
            book: u16::from(terms.book).into(),
            side: terms.sell.into(),
            order_type: terms.market.into(),
            time_in_force: terms.time_in_force,
            self_trade: terms.cancels_own.into(),
            ..NewOrder::zeroed()
        }
    }

    /// Asks for what only operators may.
    fn usurp(&mut self, slot: u32, what: u8, whose: u8, much: u32) -> Result<(), TestCaseError> {
        let client_id = self.room.next_id();
        let account = (u32::from(whose) % ACCOUNTS as u32).into();
        let instance = (u32::from(whose) % INSTANCES as u32).into();
        let (amount_micro, reserved) = (u64::from(much).into(), 0.into());
        match what {
            0 => self.send(slot, &Deposit { client_id, amount_micro, account, reserved }),
            1 | 2 => self.send(slot, &Withdraw { client_id, amount_micro, account, reserved }),
            3 => self.send(slot, &RemoveInstance { client_id, instance, reserved }),
            4 => {
                let amount = GrantCredits { client_id, instance, ..GrantCredits::zeroed() };
                let amount_millicredits = u64::from(much).into();
                self.send(slot, &GrantCredits { amount_millicredits, ..amount })
            }
            5 => {
                let name = field_cut("usurper");
                self.send(slot, &CreateAccount { client_id, name, ..CreateAccount::zeroed() })
            }
            6 => {
                let name = field_cut("usurped");
                let m = CreateInstance { client_id, account, name, ..CreateInstance::zeroed() };
                self.send(slot, &m)
            }
            7 => self.send(slot, &SetAccountCap { client_id, account, millicores: much.into() }),
            _ => {
                let book = u16::from(whose % 2).into();
                self.send(slot, &SetPhase { client_id, book, phase: 2, reserved: [0; 5] })
            }
        }
    }

    /// Sends what the daemon's parser lets through.
    fn send<M: Body>(&mut self, slot: u32, body: &M) -> Result<(), TestCaseError> {
        let parsed = Command::parse(M::KIND, body.as_bytes());
        prop_assert!(parsed.is_ok(), "{}: {:?}", M::NAME, parsed.err());
        self.room.apply(slot, body);
        Ok(())
    }
}

// ---- the reckoning -----------------------------------------------------------------------

/// What an order or its replacement asked for.
struct Asked {
    instance: u32,
    book: usize,
    side: Side,
    limit: u32,
    quantity: u32,
    expires_ms: u64,
}

/// One party of a trade as the event has it.
struct Party {
    handle: u64,
    account: usize,
    instance: u32,
    fee: u64,
    remaining: u32,
}

impl Hall {
    /// Takes in what the last command said, done by the session of `slot` or by time; returns how
    /// many trades it made.
    fn hear(
        &mut self,
        asked: Option<&Asked>,
        slot: Option<u32>,
        due: &mut Due,
    ) -> Result<u64, TestCaseError> {
        let bytes = self.room.out.bytes().to_vec();
        let mut trades = 0;
        for event in Events::new(&bytes) {
            if let Some(m) = event.read::<Accepted>() {
                self.enter(m.handle.get(), None, asked, slot)?;
            } else if let Some(m) = event.read::<Replaced>() {
                self.enter(m.handle.get(), Some(m.old_handle.get()), asked, slot)?;
            } else if let Some(m) = event.read::<Cancelled>() {
                self.leave(m, slot)?;
            } else if let Some(m) = event.read::<Fill>() {
                trades += 1;
                self.fill(m, slot, due)?;
            } else if let Some(m) = event.read::<AuctionTrade>() {
                trades += 1;
                prop_assert_eq!(slot, None, "an auction that somebody called");
                self.auction_trade(m, due)?;
            }
        }
        Ok(trades)
    }

    /// An order is in: by its own account or agent, with the terms asked for.
    fn enter(
        &mut self,
        handle: u64,
        old: Option<u64>,
        asked: Option<&Asked>,
        slot: Option<u32>,
    ) -> Result<(), TestCaseError> {
        let (Some(asked), Some(slot)) = (asked, slot) else {
            return Err(TestCaseError::fail("an order that nobody asked for"));
        };
        let may = self.actors[&slot].may_act_for(asked.instance);
        prop_assert!(may, "{:?} acts for {}", self.actors[&slot], asked.instance);
        if let Some(old) = old {
            prop_assert!(self.orders.remove(&old).is_some(), "replaced what was not open");
        }
        let order = Order {
            instance: asked.instance,
            account: owner(asked.instance).expect("an owner"),
            book: asked.book,
            side: asked.side,
            limit: asked.limit,
            open: asked.quantity,
            session: slot,
            expires_ms: asked.expires_ms,
        };
        prop_assert!(self.orders.insert(handle, order).is_none(), "a handle given out twice");
        self.handles.push(handle);
        Ok(())
    }

    /// An order is gone: by its own account or agent, its date, or the end of its session.
    fn leave(&mut self, m: &Cancelled, slot: Option<u32>) -> Result<(), TestCaseError> {
        // Told a second time to the session that asked, where another one had entered it.
        let Some(order) = self.orders.remove(&m.handle.get()) else { return Ok(()) };
        prop_assert_eq!(order.open, m.quantity.get());
        let now_ms = self.room.time_ns / 1_000_000;
        let right = match (CancelReason::from_u8(m.reason), slot) {
            (Some(CancelReason::Expired), None) => {
                let dated = order.expires_ms != 0 && order.expires_ms <= now_ms;
                // What lay idle expires, offered or not.
                dated || order.side == Side::Sell && self.expires_ms <= now_ms
            }
            (Some(CancelReason::Disconnected), Some(slot)) => order.session == slot,
            // Its account's other order met it.
            (Some(CancelReason::SelfTrade), Some(slot)) => {
                self.actors[&slot].account == order.account
            }
            (_, Some(slot)) => self.actors[&slot].may_act_for(order.instance),
            (_, None) => false,
        };
        prop_assert!(right, "{:?} cancelled by {:?}: {:?}", order, slot, m);
        Ok(())
    }

    fn fill(&mut self, m: &Fill, slot: Option<u32>, due: &mut Due) -> Result<(), TestCaseError> {
        let maker = Party {
            handle: m.maker_handle.get(),
            account: m.maker_account.get().into(),
            instance: m.maker.get().into(),
            fee: m.maker_fee_micro.get(),
            remaining: m.maker_remaining.get(),
        };
        let taker = Party {
            handle: m.taker_handle.get(),
            account: m.taker_account.get().into(),
            instance: m.taker.get().into(),
            fee: m.taker_fee_micro.get(),
            remaining: m.taker_remaining.get(),
        };
        let (price, quantity) = (m.price_ticks.get().into(), m.quantity.get());
        let limit = self.orders.get(&maker.handle).map(|order| order.limit);
        prop_assert_eq!(limit, Some(price), "another price than the one that stood there");
        let acting = slot.map(|slot| self.actors[&slot].may_act_for(taker.instance));
        prop_assert_eq!(acting, Some(true), "took for {}", taker.instance);
        let notional = u64::from(price) * TICK_MICRO * u64::from(quantity);
        let taker_fee =
            fee(due.taken + notional, self.fees_bps.1) - fee(due.taken, self.fees_bps.1);
        prop_assert_eq!(taker.fee, taker_fee, "the taker's fee");
        due.taken += notional;
        prop_assert_eq!(maker.fee, self.maker_fee(&maker, price, quantity)?, "the maker's fee");
        self.trade([maker, taker], (price, quantity), due)
    }

    fn auction_trade(&mut self, m: &AuctionTrade, due: &mut Due) -> Result<(), TestCaseError> {
        let seller = Party {
            handle: m.seller_handle.get(),
            account: m.seller_account.get().into(),
            instance: m.seller.get().into(),
            fee: m.seller_fee_micro.get(),
            remaining: m.seller_remaining.get(),
        };
        let buyer = Party {
            handle: m.buyer_handle.get(),
            account: m.buyer_account.get().into(),
            instance: m.buyer.get().into(),
            fee: m.buyer_fee_micro.get(),
            remaining: m.buyer_remaining.get(),
        };
        let (price, quantity) = (m.price_ticks.get().into(), m.quantity.get());
        for party in [&seller, &buyer] {
            let right = self.maker_fee(party, price, quantity)?;
            prop_assert_eq!(party.fee, right, "the fee of {}", party.instance);
        }
        self.trade([seller, buyer], (price, quantity), due)
    }

    /// The maker's fee for so much of an order: of all that is open, less of what is left.
    fn maker_fee(&self, party: &Party, price: u32, quantity: u32) -> Result<u64, TestCaseError> {
        let order = self.orders.get(&party.handle);
        let open = order.ok_or_else(|| TestCaseError::fail("a trade of no order"))?.open;
        prop_assert!(quantity <= open, "{} traded of {} open", quantity, open);
        let of = |open: u32| fee(u64::from(price) * TICK_MICRO * u64::from(open), self.fees_bps.0);
        Ok(of(open) - of(open - quantity))
    }

    /// What a trade owes and takes, if both parties agreed to it by their orders' own terms.
    fn trade(
        &mut self,
        parties: [Party; 2],
        (price, quantity): (u32, u32),
        due: &mut Due,
    ) -> Result<(), TestCaseError> {
        let mut sides = BTreeSet::new();
        let mut accounts = [0; 2];
        for party in &parties {
            let order = self.orders.get_mut(&party.handle);
            let order = order.ok_or_else(|| TestCaseError::fail("a trade of no order"))?;
            prop_assert_eq!((party.instance, party.account), (order.instance, order.account));
            let agreed = match order.side {
                Side::Buy => price <= order.limit,
                Side::Sell => price >= order.limit,
            };
            prop_assert!(agreed, "{:?} traded at {}", order, price);
            prop_assert_eq!(order.open - quantity, party.remaining);
            order.open = party.remaining;
            sides.insert(order.side as u8);
            accounts[order.side as usize] = order.account;
            let notional = i128::from(u64::from(price) * TICK_MICRO * u64::from(quantity));
            let milli = i128::from(quantity) * 1000;
            let sign = if order.side == Side::Buy { 1 } else { -1 };
            due.funds[order.account] -= sign * notional + i128::from(party.fee);
            due.credits[order.instance as usize][order.book] += sign * milli;
            if order.open == 0 {
                self.orders.remove(&party.handle);
            }
        }
        prop_assert_eq!(sides.len(), 2, "both on one side");
        let [buyer, seller] = accounts;
        prop_assert_ne!(buyer, seller, "an account traded with itself");
        let allowed = MASKS[seller].0 >> buyer & MASKS[buyer].1 >> seller & 1;
        prop_assert_eq!(allowed, 1, "{} sold to {}", seller, buyer);
        Ok(())
    }

    /// What an order holds.
    fn hold(&self, order: &Order) -> u64 {
        match order.side {
            Side::Sell => u64::from(order.open) * 1000,
            Side::Buy => {
                let notional = u64::from(order.limit) * TICK_MICRO * u64::from(order.open);
                notional + fee(notional, self.fees_bps.0)
            }
        }
    }

    /// Every balance is what it was and what is due; what is held is held by own orders; and who
    /// did not act has no less free than before.
    fn compare(
        &self,
        before: &Balances,
        due: &Due,
        slot: Option<u32>,
    ) -> Result<(), TestCaseError> {
        let after = Balances::of(&self.room);
        self.compare_funds(before, &after, due, slot)?;
        for instance in 0..INSTANCES {
            for resource in 0..RESOURCES {
                let [was, is] = [before, &after].map(|all| all.credits[instance][resource]);
                let change = sum(is) - sum(was);
                prop_assert_eq!(
                    change,
                    due.credits[instance][resource],
                    "{} of {}",
                    resource,
                    instance
                );
                let acted = slot
                    .is_some_and(|slot| Some(self.actors[&slot].account) == owner(instance as u32));
                prop_assert!(acted || is.0 >= was.0, "free {} of {}", resource, instance);
            }
        }
        self.compare_holds(&after)
    }

    fn compare_funds(
        &self,
        before: &Balances,
        after: &Balances,
        due: &Due,
        slot: Option<u32>,
    ) -> Result<(), TestCaseError> {
        for account in 0..ACCOUNTS {
            let (was, is) = (before.funds[account], after.funds[account]);
            prop_assert_eq!(sum(is) - sum(was), due.funds[account], "funds of {}", account);
            let acted = slot.is_some_and(|slot| self.actors[&slot].account == account);
            prop_assert!(acted || is.0 >= was.0, "free funds of {}", account);
        }
        Ok(())
    }

    fn compare_holds(&self, after: &Balances) -> Result<(), TestCaseError> {
        let mut held = Balances {
            funds: vec![(0, 0); ACCOUNTS],
            credits: vec![[(0, 0); RESOURCES]; INSTANCES],
        };
        for order in self.orders.values() {
            match order.side {
                Side::Buy => held.funds[order.account].1 += self.hold(order),
                Side::Sell => {
                    held.credits[order.instance as usize][order.book].1 += self.hold(order);
                }
            }
        }
        for (account, (is, right)) in after.funds.iter().zip(&held.funds).enumerate() {
            prop_assert_eq!(is.1, right.1, "held funds of {}", account);
        }
        for (instance, (is, right)) in after.credits.iter().zip(&held.credits).enumerate() {
            prop_assert_eq!(is.map(|row| row.1), right.map(|row| row.1), "held of {}", instance);
        }
        self.room.machine.check_conservation();
        Ok(())
    }

    /// The host metered an instance: it pays for itself, nobody else does.
    fn meter(
        &mut self,
        before: &Balances,
        (instance, resource, milli): (u8, u8, u64),
    ) -> Result<(), TestCaseError> {
        let mut m = Usage::zeroed();
        m.used_millicredits = milli.into();
        m.instance = u32::from(instance).into();
        m.resource = resource;
        self.room.daemon(&m);
        let mut due = Due::default();
        let (instance, resource) = (usize::from(instance), usize::from(resource));
        let mut user = None;
        if instance < INSTANCES && resource < RESOURCES {
            let paid = milli.min(before.credits[instance][resource].0);
            due.credits[instance][resource] -= i128::from(paid);
            self.metered[instance][resource].used_milli += milli;
            // Its own session, for whom less may be free now.
            let own = |actor: &Actor| Some(actor.account) == owner(instance as u32);
            user = self.actors.iter().find(|(_, actor)| own(actor)).map(|(slot, _)| *slot);
        }
        self.compare(before, &due, user)
    }

    /// Time passed: everyone earned at most its baseline and never beyond the cap; who has less than
    /// its trades left it with has used more than its baseline, or left credits idle.
    fn reckon_tick(
        &mut self,
        before: &Balances,
        milliseconds: u64,
        met: &RefCell<Met>,
    ) -> Result<(), TestCaseError> {
        let mut due = Due::default();
        met.borrow_mut().auctioned += self.hear(None, None, &mut due)?;
        let after = Balances::of(&self.room);
        self.compare_funds(before, &after, &due, None)?;
        let now_ms = self.room.time_ns / 1_000_000;
        let expires = self.expires_ms <= now_ms;
        if expires {
            self.expires_ms = now_ms + EXPIRY_S * 1000;
        }
        for instance in 0..INSTANCES {
            for (resource, baseline) in BASELINE.into_iter().enumerate() {
                let [was, is] = [before, &after].map(|all| sum(all.credits[instance][resource]));
                let was_traded = was + due.credits[instance][resource];
                let earned = i128::from(baseline * milliseconds);
                let cap = i128::from(baseline * CAP_S * 1000);
                let traded = due.credits[instance][resource];
                prop_assert!(is - traded <= was.max(cap), "{} hoards {}", instance, is);
                let row = &mut self.metered[instance][resource];
                let [most, least] = row.idle_milli;
                row.idle_milli = [most.min((was + earned) as u64), least.min(was as u64)];
                // Beyond the credit that is paid already: at most what it bids itself.
                let price = row.bid_milli.max(RESERVE_MILLI) - 1000;
                let used = (row.used_milli * price).div_ceil(1000);
                let idle = if expires { row.idle_milli } else { [0; 2] };
                let least = was_traded - i128::from(used) - i128::from(idle[0]);
                let most = was_traded + earned - i128::from(idle[1]);
                prop_assert!(is <= most, "{} keeps {} idle, {:?}", instance, is, idle);
                prop_assert!(is >= least, "{} of {}: {} of {}", resource, instance, is, was_traded);
                met.borrow_mut().paid += u64::from(is < was_traded);
                row.used_milli = 0;
                if expires {
                    row.idle_milli = [(was + earned) as u64, (is - traded).max(0) as u64];
                }
            }
        }
        self.compare_holds(&after)
    }
}

fn sum(balance: Balance) -> i128 {
    i128::from(balance.0) + i128::from(balance.1)
}

// ---- runs --------------------------------------------------------------------------------

#[test]
fn an_accounts_balances_fall_only_by_its_trades_its_fees_and_its_use() {
    let setting = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = setting("VENDUE_ECONOMY_SEED").unwrap_or(1);
    let cases = setting("VENDUE_ECONOMY_CASES").map_or(5000, |cases| cases as u32);
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let met = RefCell::new(Met::default());
    let acts = proptest::collection::vec((any::<u8>(), act()), 1..300);
    let fees = prop_oneof![Just((10, 25)), Just((0, 0)), Just((10_000, 3_333)), Just((25, 0))];
    let outcome = runner.run(&(fees, acts), |(fees, acts)| {
        let mut hall = Hall::new(fees);
        acts.iter().try_for_each(|(session, act)| {
            met.borrow_mut().commands += 1;
            let slot = hall.actors.keys().nth(usize::from(*session) % hall.actors.len());
            let slot = *slot.expect("a session");
            hall.play(slot, act, &met)
        })
    });
    let met = met.into_inner();
    println!("seed {seed}: {met:?}");
    if let Err(failure) = outcome {
        panic!("seed {seed}: {failure}");
    }
    assert!(met.trades * 100 > met.commands, "only {} trades", met.trades);
    assert!(met.auctioned * 1000 > met.commands, "only {} trades of auctions", met.auctioned);
    assert!(met.paid > 100, "nobody paid for its use or its idleness");
    for code in [
        Reject::NotPermitted,
        Reject::UnknownInstance,
        Reject::UnknownOrder,
        Reject::UnknownBook,
        Reject::DuplicateClientId,
        Reject::BadPrice,
        Reject::BadQuantity,
        Reject::InsufficientFunds,
        Reject::InsufficientCredits,
    ] {
        assert!(met.refused.contains_key(&(code as u8)), "never refused for {code:?}");
    }
}
