//! The real machine, as the bench drives it. This file is the only one that knows the engine.
//!
//! Everything is on: sessions and roles, permission masks, self-trade prevention, funds and
//! credits held and settled in double entry, both fees, bursts reassessed, every report and event
//! written out. Sixteen accounts trade, eight that buy and eight that sell.

use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{Command, DefineBook, Envelope, Genesis, OpenSession};
use vendue_engine::machine::event::{Fill as FillEvent, Outbox};
use vendue_engine::machine::slab::PAGE_SLOTS;
use vendue_engine::pipeline::execute::{BESIDE, VIEW};
use vendue_wire::code::{Phase, Resource, Role, Side};
use vendue_wire::message::{
    ANY, ANY_BOOK, Accepted, Body, Cancel, CreateAccount, CreateInstance, Deposit, GrantCredits,
    MassCancel, NewOrder, SetPhase, U32, U64, field_cut,
};
use zerocopy::IntoBytes;

use crate::flow::{CANCEL, Fill, Record};
use crate::run::Matcher;

/// Accounts a side.
pub(crate) const ACCOUNTS: u32 = 8;
/// Books of one tier: one a resource.
const PER_TIER: usize = Resource::ALL.len();
/// Highest price, ticks.
pub const PRICE_MAX: usize = 1000;
/// Milli-credits granted to each seller in each book.
const GRANT_MILLICREDITS: u64 = 1 << 50;
/// Micro-units deposited for each account.
const DEPOSIT_MICRO: u64 = 1 << 57;

/// The real machine with permissions, fees and reservations on.
pub struct Ours {
    machine: Machine,
    outbox: Outbox,
    sequence: u64,
    /// Accounts a side.
    accounts: u32,
    /// Nobody pays a fee, and all accounts are of one group.
    plain: bool,
    /// What the machine foresaw of the next operations.
    foreseen: [u32; VIEW],
}

impl Ours {
    /// Empty books with room for `capacity` resting orders in all.
    #[must_use]
    pub fn new(books: usize, capacity: usize) -> Self {
        Ours::with_accounts(books, capacity, ACCOUNTS)
    }

    /// As [`Ours::new`], with `accounts` that buy and as many that sell.
    #[must_use]
    pub fn with_accounts(books: usize, capacity: usize, accounts: u32) -> Self {
        Ours::made(books, capacity, accounts, false)
    }

    /// As [`Ours::new`], without fees and without groups to tell apart.
    #[must_use]
    pub fn plain(books: usize, capacity: usize) -> Self {
        Ours::made(books, capacity, ACCOUNTS, true)
    }

    fn made(books: usize, capacity: usize, accounts: u32, plain: bool) -> Self {
        let tiers = books.div_ceil(PER_TIER) as u32;
        let mut genesis = genesis(accounts, tiers, capacity);
        if plain {
            (genesis.maker_fee_bps, genesis.taker_fee_bps) = (0.into(), 0.into());
        }
        let machine = Machine::new(&genesis).expect("the bench's bounds are valid");
        let outbox = machine.outbox();
        let foreseen = [0; VIEW];
        let mut ours = Ours { machine, outbox, sequence: 0, accounts, plain, foreseen };
        ours.tell(ANY, &genesis);
        for book in 0..books {
            ours.define(book);
        }
        ours.tell(ANY, &operator(1));
        ours.populate(books, tiers);
        ours
    }

    /// Cancels every order and calls the first book to an auction.
    pub fn clear_and_call(&mut self) {
        let (instance, book) = (ANY.into(), ANY_BOOK.into());
        let all = MassCancel { instance, book, side: 2, reserved: 0 };
        self.apply(MassCancel::KIND, all.as_bytes());
        self.outbox.clear();
        self.phase(Phase::Call);
    }

    /// Holds the auction of the first book; returns its trades and credits.
    pub fn uncross(&mut self) -> (u64, u64) {
        let counts = |ours: &Ours| (ours.machine.trades(), ours.machine.books()[0].volume);
        let before = counts(self);
        self.phase(Phase::Continuous);
        let after = counts(self);
        (after.0 - before.0, after.1 - before.1)
    }

    fn phase(&mut self, phase: Phase) {
        let message = SetPhase { phase: phase as u8, ..SetPhase::zeroed() };
        // The set-up's session: orders number their own ids.
        self.sequence += 1;
        let message = SetPhase { client_id: self.sequence.into(), ..message };
        let env = Envelope { session: 0, ..self.envelope() };
        let command = Command::parse(SetPhase::KIND, message.as_bytes()).expect("well-formed");
        self.machine.apply(&env, &command, &mut self.outbox).expect("a command in order");
        self.outbox.clear();
    }

    fn define(&mut self, book: usize) {
        self.tell(ANY, &definition((book / PER_TIER) as u16, (book % PER_TIER) as u8));
    }

    /// Accounts with funds, and in each tier an instance of each; sellers get credits.
    fn populate(&mut self, books: usize, tiers: u32) {
        for account in 0..2 * self.accounts {
            let id = self.sequence;
            self.tell(
                0,
                &CreateAccount {
                    client_id: id.into(),
                    sells_to: u64::MAX.into(),
                    buys_from: u64::MAX.into(),
                    name: field_cut(&format!("account {account}")),
                    group: if self.plain { 0 } else { (account % 64) as u8 },
                    reserved: [0; 7],
                },
            );
            let id = self.sequence;
            let deposit = Deposit { account: account.into(), ..Deposit::zeroed() };
            // All funds and all credits of a book together are bounded.
            let amount_micro = DEPOSIT_MICRO.min((1 << 61) / u64::from(2 * self.accounts)).into();
            self.tell(0, &Deposit { client_id: id.into(), amount_micro, ..deposit });
        }
        for tier in 0..tiers {
            let present = |resource: usize| tier as usize * PER_TIER + resource < books;
            for account in 0..2 * self.accounts {
                let id = self.sequence;
                let mut baseline_vru = [U32::ZERO; PER_TIER];
                for (resource, vru) in baseline_vru.iter_mut().enumerate() {
                    *vru = u32::from(present(resource)).into();
                }
                self.tell(
                    0,
                    &CreateInstance {
                        client_id: id.into(),
                        account: account.into(),
                        tier: (tier as u16).into(),
                        baseline_vru,
                        name: field_cut(&format!("{tier}-{account}")),
                        ..CreateInstance::zeroed()
                    },
                );
                let seller = account >= self.accounts;
                for resource in (0..PER_TIER).filter(|&resource| seller && present(resource)) {
                    let id = self.sequence;
                    let grant = GrantCredits {
                        client_id: id.into(),
                        amount_millicredits: GRANT_MILLICREDITS
                            .min((1 << 61) / u64::from(self.accounts))
                            .into(),
                        instance: (tier * 2 * self.accounts + account).into(),
                        resource: resource as u8,
                        reserved: [0; 3],
                    };
                    self.tell(0, &grant);
                }
            }
        }
        // Orders number their ids from 1: the set-up used its own session.
        self.tell(ANY, &operator(2));
    }

    /// Applies a command that must succeed.
    fn tell<M: Body>(&mut self, session: u32, body: &M) {
        self.sequence += 1;
        let env = Envelope {
            sequence: self.sequence,
            time_ns: 1,
            request: self.sequence,
            session,
            connection: ANY,
        };
        let command = Command::parse(M::KIND, body.as_bytes()).expect("a well-formed command");
        self.machine.apply(&env, &command, &mut self.outbox).expect("a command in order");
        let refused = self.outbox.events().any(|event| event.kind == 0x94);
        assert!(!refused, "{} was rejected", M::NAME);
        self.outbox.clear();
    }

    /// Applies a message of the trader's session.
    #[inline(always)]
    fn apply(&mut self, kind: u8, body: &[u8]) {
        let env = self.envelope();
        let command = Command::parse(kind, body).expect("a well-formed command");
        self.machine.apply(&env, &command, &mut self.outbox).expect("a command in order");
    }

    #[inline(always)]
    fn envelope(&mut self) -> Envelope {
        self.sequence += 1;
        Envelope {
            sequence: self.sequence,
            time_ns: 1,
            request: self.sequence,
            session: 1,
            connection: ANY,
        }
    }
}

/// Bounds with both fees: `accounts` a side, each with an instance in every tier, and room for
/// `capacity` resting orders.
pub(crate) fn genesis(accounts: u32, tiers: u32, capacity: usize) -> Genesis {
    // Slots go to instances by pages and stay with them, and not all have their peaks at once.
    let instances = 2 * accounts * tiers;
    let orders = 2 * capacity as u32 + PAGE_SLOTS * instances;
    Genesis {
        accounts_max: (2 * accounts).into(),
        instances_max: instances.into(),
        orders_max: orders.into(),
        orders_per_instance_max: orders.min((8 * orders / accounts).max(1024)).into(),
        sessions_max: 4.into(),
        credit_cap_s: 86_400.into(),
        burst_resume_ms: 1.into(),
        limit_window_s: 3600.into(),
        reversible_trades: 1024.into(),
        leases_max: 64.into(),
        swap_every_ms: 0.into(),
        lease_margin_percent: 5.into(),
        maker_fee_bps: 5.into(),
        taker_fee_bps: 10.into(),
    }
}

/// A book that takes the published flows.
pub(crate) fn definition(tier: u16, resource: u8) -> DefineBook {
    DefineBook {
        vru_size: 10.into(),
        capacity_vru: 1_000_000.into(),
        tick_micro: 1.into(),
        price_ticks_max: (PRICE_MAX as u32).into(),
        quantity_max: u32::MAX.into(),
        burst_percent: 400.into(),
        auction_every_ms: 0.into(),
        call_ms: 0.into(),
        tier: tier.into(),
        resource,
        reserved: 0,
        name: field_cut(&format!("tier {tier}")),
    }
}

/// The order of a flow's record, given for an instance.
pub(crate) fn order(record: &Record, instance: u32) -> NewOrder {
    NewOrder {
        client_id: u64::from(record.id).into(),
        expires_at_ms: U64::ZERO,
        instance: instance.into(),
        price_ticks: u32::from(record.price).into(),
        quantity: record.quantity.into(),
        book: record.book.into(),
        side: record.side,
        order_type: 0,
        time_in_force: 0,
        post_only: 0,
        self_trade: 0,
        reserved: 0,
    }
}

/// The logon of an operator's session.
pub(crate) fn operator(session: u64) -> OpenSession {
    OpenSession {
        session: session.into(),
        account: ANY.into(),
        instance: ANY.into(),
        role: Role::Operator as u8,
        ..OpenSession::zeroed()
    }
}

/// A message as it comes over the wire, without its frame.
pub struct Message {
    kind: u8,
    body: [u8; size_of::<NewOrder>()],
}

impl Matcher for Ours {
    type Input = Message;

    fn input(&self, record: &Record) -> Message {
        let mut body = [0; size_of::<NewOrder>()];
        if record.kind == CANCEL {
            let cancel = Cancel { handle: record.handle().into() };
            body[..size_of::<Cancel>()].copy_from_slice(cancel.as_bytes());
            return Message { kind: Cancel::KIND, body };
        }
        let tier = u32::from(record.book) / PER_TIER as u32;
        let sells = u32::from(record.side == Side::Sell as u8);
        let account = sells * self.accounts + record.id % self.accounts;
        let order = order(record, tier * 2 * self.accounts + account);
        body.copy_from_slice(order.as_bytes());
        Message { kind: NewOrder::KIND, body }
    }

    #[inline(always)]
    fn foresee(&mut self, messages: &[Message], at: usize) {
        // As the daemon does with what waits in its ring.
        if let Some(later) = messages.get(at + VIEW - 1) {
            self.foreseen[(at + VIEW - 1) % VIEW] = self.machine.foresee(later.kind, &later.body);
            self.machine.foresee_beside(self.foreseen[(at + BESIDE) % VIEW]);
        }
    }

    #[inline(always)]
    fn take(&mut self, message: &Message, mut on_fill: impl FnMut(Fill)) -> u64 {
        let trades = self.machine.trades();
        if message.kind == Cancel::KIND {
            self.apply(Cancel::KIND, &message.body[..size_of::<Cancel>()]);
        } else {
            self.apply(NewOrder::KIND, &message.body);
        }
        let events = self.outbox.events();
        if self.machine.trades() != trades {
            let traded = (self.machine.trades() - trades) as usize;
            let fills = events.clone().filter_map(|event| event.read::<FillEvent>());
            for fill in fills.take(traded) {
                on_fill(Fill {
                    taker: fill.taker_client_id.get() as u32,
                    maker: fill.maker_client_id.get() as u32,
                    price: fill.price_ticks.get(),
                    quantity: fill.quantity.get(),
                });
            }
        }
        let accepted = { events }.next().and_then(|event| event.read::<Accepted>());
        let handle = accepted.map_or(0, |accepted| accepted.handle.get());
        self.outbox.clear();
        handle
    }
}
