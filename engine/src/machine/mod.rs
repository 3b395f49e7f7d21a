//! The machine: one deterministic state, one way to change it.
//!
//! [`Machine::apply`] takes a command and its envelope and says what happened into an
//! [`Outbox`](event::Outbox). Integers only; no clock, randomness, hash order, file or socket is
//! reachable from here; nothing is allocated after start-up; no input makes it panic. A refused
//! command changes nothing but the session's own count of requests.
//!
//! In reading order: what can be asked ([`command`]), what is said ([`event`]), the arms
//! ([`orders`], [`matching`], [`phase`], [`auction`], [`credits`], [`shares`], [`exchange`], [`tiers`],
//! [`lease`], [`token`], [`swap`], [`swap_manager`], [`rescue`], [`forecast`], [`plan`], [`policy`], [`experiment`], [`admin`], [`cap`], [`limits`], [`reversal`], [`swarm`], [`group`], [`migrate`], [`sessions`], [`query`]) and what they stand on
//! ([`tables`], [`rental`], [`task`], [`handover`], [`weights`], [`ladder`], [`slab`], [`queue`],
//! [`ledger`], [`expiry`]), the state as bytes ([`state`]).

pub mod admin;
pub mod auction;
pub mod cap;
pub mod command;
pub mod config;
pub mod credits;
pub mod event;
pub mod exchange;
pub mod experiment;
pub mod expiry;
pub mod forecast;
pub mod freeze;
pub mod group;
pub mod handover;
pub mod ladder;
pub mod lease;
pub mod ledger;
pub mod lending;
pub mod limits;
pub mod matching;
pub mod migrate;
pub mod orders;
pub mod phase;
pub mod plan;
pub mod policy;
pub mod query;
pub mod queue;
pub mod rental;
pub mod rescue;
pub mod reversal;
pub mod sessions;
pub mod shares;
pub mod slab;
pub mod slots;
pub mod state;
mod storage;
pub mod swap;
pub mod swap_manager;
pub mod swarm;
pub mod tables;
pub mod task;
pub mod tiers;
pub mod token;
pub mod weights;

use auction::Indication;
use command::{Command, DefineBook, DefineCredits, DefineExchange, Envelope, Genesis};
use config::{BoundsError, EXCHANGES_MAX, RESOURCES, TIERS_MAX};
use event::Outbox;
use exchange::Exchange;
use experiment::Experiments;
use forecast::Window;
use handover::{HANDOVERS_MAX, Handovers, Proposal};
use ladder::Ladder;
use ledger::{CreditHouse, Ledger, Pool};
use limits::Limits;
use orders::Fees;
use phase::Schedule;
use plan::Plan;
use policy::Policies;
use rental::Rentals;
use rescue::Objectives;
use reversal::Kept;
use shares::{Round, Stake};
use slab::{Node, Slab, foresee};
use std::hint::select_unpredictable;
use swap::Swaps;
use swarm::Swarm;
use tables::{Account, Book, Instance, Session};
use tiers::TierState;
use token::Tokens;
use vendue_wire::code::{Phase, Reject, Resource, Role, Side};
use vendue_wire::message::{ANY, Body, Cancel, NewOrder, PEER_BYTES, Rejected};

const _: () = assert!(TIERS_MAX >= 1, "a book's number must have room for a tier");

/// Digests of ticks remembered for comparison.
const DIGESTS: usize = 64;

/// The deterministic state of the auction room.
#[derive(Debug)]
pub struct Machine {
    genesis: Genesis,
    books: Vec<Book>,
    definitions: Vec<DefineBook>,
    /// Book of each tier's resource, or `u16::MAX`.
    book_of: Vec<[u16; RESOURCES]>,
    accounts: Box<[Account]>,
    accounts_used: u32,
    /// What each account may do.
    limits: Box<[Limits]>,
    instances: Box<[Instance]>,
    /// Account of each instance, dense because every fill reads it.
    owner: Box<[u16]>,
    sessions: Box<[Session]>,
    /// What the peer that opened each session last is known as.
    peers: Box<[[u8; PEER_BYTES]]>,
    ledger: Ledger,
    /// What each book's credits are worth, and its rounds of measured use.
    rules: Vec<DefineCredits>,
    rounds: Vec<Round>,
    /// What each tier is, and the first that was spare at start-up.
    tier_states: Vec<TierState>,
    first_spare: Option<u16>,
    /// Exchanges between tiers that are not the usual, and what defined the first of them.
    exchanges: Box<[Exchange]>,
    exchanges_used: usize,
    exchange_rules: Vec<DefineExchange>,
    /// Capacity of each book that later stages were told last. No part of the state.
    told_vru: Vec<u64>,
    /// As the ledger's credits: `instance * RESOURCES + resource`.
    stakes: Box<[Stake]>,
    /// Who leases what.
    rentals: Rentals,
    /// What instances will need: see [`forecast::place`].
    forecasts: Box<[Window]>,
    /// What is planned for them.
    plan: Plan,
    /// What the engine does for instances by itself.
    policies: Policies,
    /// Policies that are compared.
    experiments: Experiments,
    /// What instances declared, and the leases that it bids for.
    objectives: Objectives,
    /// Groups of instances, and the tasks that have VRUs of them.
    swarm: Swarm,
    /// Reservations that accounts hold.
    tokens: Tokens,
    /// Who lends whom VRUs of a reservation.
    swaps: Swaps,
    /// Instances that come and go.
    handovers: Handovers,
    slab: Slab,
    expiry: expiry::Expiry,
    trades: u64,
    /// The newest trades, by the low bits of their numbers.
    kept: Box<[Kept]>,
    fees: Fees,
    /// Room for auctions, no part of the state.
    hall: auction::Hall,
    /// Last sequence applied.
    sequence: u64,
    /// Last time seen, nanoseconds.
    time_ns: u64,
    /// Milliseconds up to which credits have accrued; 0 before the first tick.
    accrued_ms: u64,
    digest: u64,
    /// Sequence and digest of recent ticks.
    digests: [(u64, u64); DIGESTS],
}

/// Why a command could not be applied at all. The daemon must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The replayed machine is not the one that wrote the journal.
    #[error(
        "at sequence {sequence} the machine's digest is {ours:016x}, but the journal says \
         {journal:016x}: this build computes another result than the one that wrote the journal; \
         go back to that build, or archive the data directory and start anew"
    )]
    Diverged {
        /// Where they were compared.
        sequence: u64,
        /// What this machine computed.
        ours: u64,
        /// What the journal holds.
        journal: u64,
    },
    /// Start-up commands are missing, doubled or out of bounds.
    #[error("start-up record is wrong: {0}")]
    Bounds(#[from] BoundsError),
    /// A record holds what no version of the daemon writes.
    #[error("record {sequence} of kind {kind:#04x} cannot be executed: {why}")]
    Record {
        /// Its sequence.
        sequence: u64,
        /// Its kind.
        kind: u8,
        /// Why.
        why: Reject,
    },
}

/// Mixes a word into a digest.
#[inline(always)]
fn fold(digest: &mut u64, word: u64) {
    *digest = (*digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
}

/// As much of a command's body as [`Machine::foresee`] looks at.
pub type Glimpse = [u8; size_of::<NewOrder>()];

impl Machine {
    /// A machine with these bounds and no books yet. Allocates everything it will ever need but
    /// the books' ladders, which [`Machine::apply`] allocates at start-up ([`DefineBook`]).
    ///
    /// # Errors
    /// The first bound outside its range.
    pub fn new(genesis: &Genesis) -> Result<Machine, BoundsError> {
        genesis.check()?;
        let (accounts, instances) = (genesis.accounts_max.get(), genesis.instances_max.get());
        let orders = genesis.orders_max.get();
        let account = Account::FREE;
        Ok(Machine {
            genesis: *genesis,
            books: Vec::new(),
            definitions: Vec::new(),
            book_of: Vec::new(),
            accounts: vec![account; accounts as usize].into_boxed_slice(),
            accounts_used: 0,
            limits: vec![Limits::none(0, 0); accounts as usize].into_boxed_slice(),
            instances: vec![Instance::FREE; instances as usize].into_boxed_slice(),
            owner: vec![0; instances as usize].into_boxed_slice(),
            sessions: Machine::places_for_sessions(genesis.sessions_max.get()),
            peers: vec![[0; PEER_BYTES]; genesis.sessions_max.get() as usize].into_boxed_slice(),
            ledger: Ledger::new(accounts, instances),
            rules: Vec::new(),
            rounds: Vec::new(),
            tier_states: Vec::new(),
            first_spare: None,
            exchanges: vec![Exchange::FREE; EXCHANGES_MAX].into_boxed_slice(),
            exchanges_used: 0,
            exchange_rules: Vec::new(),
            told_vru: Vec::new(),
            stakes: vec![Stake::default(); instances as usize * RESOURCES].into_boxed_slice(),
            rentals: Rentals::new(
                genesis.leases_max.get(),
                instances,
                genesis.lease_margin_percent.get(),
            ),
            forecasts: forecast::none(instances),
            plan: Plan::new(),
            policies: Policies::new(instances),
            experiments: Experiments::new(instances),
            objectives: Objectives::new(instances),
            swarm: Swarm::new(instances),
            tokens: Tokens::new(),
            swaps: Swaps::new(accounts, instances as usize * RESOURCES),
            handovers: Handovers::new(HANDOVERS_MAX),
            slab: Slab::new(orders, instances, genesis.orders_per_instance_max.get()),
            expiry: expiry::Expiry::new(orders),
            trades: 0,
            kept: vec![Kept::default(); reversal::places(genesis.reversible_trades.get())]
                .into_boxed_slice(),
            hall: auction::Hall::new(orders, accounts),
            fees: Fees::new(genesis.maker_fee_bps.get().into(), genesis.taker_fee_bps.get().into()),
            sequence: 0,
            time_ns: 0,
            accrued_ms: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            digests: [(0, 0); DIGESTS],
        })
    }

    /// An outbox that the largest answer of this machine fits.
    pub fn outbox(&self) -> Outbox {
        Outbox::new(Outbox::capacity_for(&self.genesis))
    }

    /// The bounds it was made with.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The books it was given, in order.
    pub fn definitions(&self) -> &[DefineBook] {
        &self.definitions
    }

    /// What each book's credits are worth.
    pub fn credit_rules(&self) -> &[DefineCredits] {
        &self.rules
    }

    /// The books.
    pub fn books(&self) -> &[Book] {
        &self.books
    }

    /// Last sequence applied.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Last time seen, nanoseconds since 1970 UTC.
    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// The same in milliseconds.
    fn now_ms(&self) -> u64 {
        self.time_ns / 1_000_000
    }

    /// The last tick, or start, milliseconds since 1970 UTC; 0 before the first.
    pub fn ticked_ms(&self) -> u64 {
        self.accrued_ms
    }

    /// Running digest of everything decided so far.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Trades since the journal began.
    pub fn trades(&self) -> u64 {
        self.trades
    }

    /// Open orders.
    pub fn open_orders(&self) -> u32 {
        self.books.iter().map(|book| book.orders).sum()
    }

    /// Open orders, by slot.
    pub fn orders(&self) -> impl Iterator<Item = &Node> {
        self.slab.orders(0, |_| true).map(|slot| &self.slab.nodes[slot as usize])
    }

    /// Accounts, and live instances.
    pub fn census(&self) -> (u32, u32) {
        let instances = self.instances.iter().filter(|row| row.live == 1).count();
        (self.accounts_used, instances as u32)
    }

    /// The ledger, to read.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Who leases what, to read.
    pub fn rentals(&self) -> &Rentals {
        &self.rentals
    }

    /// Slots of the leases there are.
    pub fn live_leases(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.rentals.used()).filter(|&slot| self.rentals.leases[slot as usize].live == 1)
    }

    /// An instance, to read, if it is live.
    pub fn instance(&self, instance: u32) -> Option<&Instance> {
        self.instances.get(instance as usize).filter(|row| row.live == 1)
    }

    /// The same of one that may also be on its way here or away.
    pub fn present(&self, instance: u32) -> Option<&Instance> {
        self.instances.get(instance as usize).filter(|row| row.live != 0)
    }

    /// The number that the client of a session's slot chose, if the slot is in use.
    pub fn session_number(&self, slot: u32) -> Option<u64> {
        self.sessions.get(slot as usize).map(|row| row.number).filter(|&number| number != 0)
    }

    /// The role of the session in a slot, and what the peer that opened it last is known as, if the
    /// slot is in use.
    pub fn session_peer(&self, slot: u32) -> Option<(Role, &[u8; PEER_BYTES])> {
        let row = self.sessions.get(slot as usize).filter(|row| row.number != 0)?;
        Some((row.role(), &self.peers[slot as usize]))
    }

    /// Sessions that were connected when the journal ended, as slots.
    pub fn connected_sessions(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(self.sessions.iter()).filter(|(_, row)| row.connected == 1).map(|(at, _)| at)
    }

    /// What is wrong with the whole ledger, if a unit of funds or credits was made or lost.
    fn imbalance(&self) -> Option<&'static str> {
        self.ledger.imbalance(|instance, resource| {
            let row = &self.instances[instance];
            let book = self.book_of.get(usize::from(row.tier))?[resource];
            (row.live != 0 && book != u16::MAX).then_some(usize::from(book))
        })
    }

    /// Compares the whole ledger with the house's totals.
    ///
    /// # Panics
    /// If a unit of funds or credits was made or lost: going on would hand out wrong balances.
    pub fn check_conservation(&self) {
        assert_eq!(self.imbalance(), None, "the ledger");
    }

    /// Mixes a word into the running digest.
    #[inline(always)]
    fn fold(&mut self, word: u64) {
        fold(&mut self.digest, word);
    }

    /// Executes one command and appends what happened to `out`.
    ///
    /// # Errors
    /// [`Broken`] only for records no healthy journal holds; a session's request is never the
    /// cause: it is answered with a typed reject.
    #[inline(always)]
    pub fn apply(
        &mut self,
        env: &Envelope,
        command: &Command<'_>,
        out: &mut Outbox,
    ) -> Result<(), Broken> {
        if let Command::Query(query) = command {
            self.query(env, query, out);
            return Ok(());
        }
        assert!(env.sequence > self.sequence, "sequence {} is not new", env.sequence);
        self.sequence = env.sequence;
        self.time_ns = self.time_ns.max(env.time_ns);
        if env.session == ANY {
            self.apply_internal(env, command, out)?;
        } else {
            self.apply_request(env, command, out);
        }
        self.ledger.assert_balanced();
        Ok(())
    }

    /// Has the processor fetch the node that a command which is a few ahead begins with: where orders
    /// are many, each is far away. Changes nothing, whatever `body` is: a new order, or anything else
    /// filled up with zeros. No branch depends on what is ahead, which nothing predicts. Returns what
    /// [`Machine::foresee_beside`] wants when the command is nearer.
    #[inline(always)]
    pub fn foresee(&self, kind: u8, body: &Glimpse) -> u32 {
        let order: &NewOrder = zerocopy::transmute_ref!(body);
        let Some(book) = self.books.get(usize::from(order.book.get())) else { return 0 };
        let queue = book.joined(order.side & 1, order.price_ticks.get());
        // A cancel's body begins with its slot.
        let slot = order.client_id.get() as u32;
        let node = select_unpredictable(kind == Cancel::KIND, slot, queue);
        foresee(&self.slab.nodes, node);
        node
    }

    /// Has the processor fetch the nodes beside a foreseen one: an order's neighbours, the end of
    /// the queue that it joins.
    #[inline(always)]
    pub fn foresee_beside(&self, node: u32) {
        if let Some(node) = self.slab.nodes.get(node as usize) {
            foresee(&self.slab.nodes, node.prev);
            foresee(&self.slab.nodes, node.next);
        }
    }

    /// A session's request: carried out, or refused with a report.
    #[inline(always)]
    fn apply_request(&mut self, env: &Envelope, command: &Command<'_>, out: &mut Outbox) {
        // Nobody asks in the broker's name.
        let Some((_, sessions)) = self.sessions.split_last_mut() else { return };
        let Some(session) = sessions.get_mut(env.session as usize) else { return };
        session.last_request = session.last_request.max(env.request);
        let result = match command {
            Command::NewOrder(terms) => self.new_order(env, terms, out),
            Command::Cancel(m) => self.cancel(env, m, out),
            Command::Replace(m) => self.replace(env, m, out),
            Command::MassCancel(m, side) => self.mass_cancel(env, m, *side, out),
            other => self.apply_admin(env, other, out),
        };
        if let Err(code) = result {
            self.report_rejected(env, command.request(), code, out);
        }
    }

    fn apply_admin(
        &mut self,
        env: &Envelope,
        command: &Command<'_>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        match command {
            Command::CreateAccount(m) => self.create_account(env, m, out),
            Command::Deposit(m) => self.deposit(env, m, out),
            Command::Withdraw(m) => self.withdraw(env, m, out),
            Command::CreateInstance(m) => self.create_instance(env, m, out),
            Command::RemoveInstance(m) => self.remove_instance(env, m, out),
            Command::GrantCredits(m, resource) => self.grant(env, m, *resource, out),
            Command::SetBid(m, resource) => self.set_bid(env, m, *resource, out),
            Command::FreezeInstance(m) => self.freeze_instance(env, m, out),
            Command::SetPhase(m, phase) => self.set_phase(env, m, *phase, out),
            Command::CancelAccount(m, side) => self.cancel_account(env, m, *side, out),
            Command::SetLimits(m) => self.set_limits(env, m, out),
            Command::ReverseTrade(m) => self.reverse_trade(env, m, out),
            Command::SetAccountCap(m) => self.set_account_cap(env, m, out),
            Command::SwapTiers(m, resource) => self.swap_tiers(env, m, *resource, out),
            Command::SetRate(m, resource) => self.set_rate(env, m, *resource, out),
            Command::SetTier(m) => self.set_tier(env, m, out),
            Command::SubmitTask(m, resource) => self.submit_task(env, m, *resource, out),
            Command::CancelTask(m) => self.cancel_task(env, m, out),
            Command::ReportTask(m) => self.report_task(env, m, out),
            Command::SetGroup(m) => self.set_group(env, m, out),
            Command::SetMember(m) => self.set_member(env, m, out),
            Command::SetForecast(m, of) => self.set_forecast(env, m, *of, out),
            Command::SetPolicy(m, of) => self.set_policy(env, m, *of, out),
            Command::PlanEvent(m, resource) => self.plan_event(env, m, *resource, out),
            Command::StartExperiment(m, resource) => self.start_experiment(env, m, *resource, out),
            Command::StopExperiment(m) => self.stop_experiment(env, m, out),
            other => self.apply_lease(env, other, out),
        }
    }

    fn apply_lease(
        &mut self,
        env: &Envelope,
        command: &Command<'_>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        match command {
            Command::BidLease(m, terms) => self.bid_lease(env, m, *terms, out),
            Command::ChangeLease(m) => self.change_lease(env, m, out),
            Command::CancelLease(m) => self.cancel_lease(env, m, out),
            Command::Lend(m, resource) => self.lend(env, m, *resource, out),
            Command::SetReserveRent(m, class) => self.set_reserve_rent(env, m, *class, out),
            Command::EntitleInstance(m, resource) => self.entitle_instance(env, m, *resource, out),
            Command::SetObjective(m, resource) => self.set_objective(env, m, *resource, out),
            Command::ReportKpi(m) => self.report_kpi(env, m, out),
            Command::ExpectInstance(m) => self.expect_instance(env, m, out),
            Command::Depart(m) => self.depart(env, m, out),
            Command::Arrive(m) => self.arrive(env, m, out),
            Command::SettleMigration(m) => self.settle_migration(env, m, out),
            Command::IssueToken(m, resource) => self.issue_token(env, m, *resource, out),
            Command::RedeemToken(m) => self.redeem_token(env, m, out),
            Command::SplitToken(m) => self.split_token(env, m, out),
            Command::MergeTokens(m) => self.merge_tokens(env, m, out),
            Command::TransferToken(m) => self.transfer_token(env, m, out),
            Command::RevokeToken(m) => self.revoke_token(env, m, out),
            Command::SwapRequest(m) => self.request_swap(env, m, out),
            Command::SwapApprove(m) => self.approve_swap(env, m, out),
            Command::SwapReject(m) => self.reject_swap(env, m, out),
            Command::SetSwapPolicy(m) => self.set_swap_policy(env, m, out),
            _ => Err(Reject::NotPermitted),
        }
    }

    /// The daemon's own commands.
    fn apply_internal(
        &mut self,
        env: &Envelope,
        command: &Command<'_>,
        out: &mut Outbox,
    ) -> Result<(), Broken> {
        match command {
            Command::Tick(tick) => {
                self.verify_digest(tick.digest_sequence.get(), tick.digest.get())?;
                self.tick(env, out);
                self.digests[(env.sequence % DIGESTS as u64) as usize] =
                    (env.sequence, self.digest);
            }
            Command::Usage(usage, resource) => self.usage(usage, *resource, out),
            Command::HostKpis(m) => self.host_kpis(m, out),
            Command::Perished(m) => self.perished(env, m, out),
            Command::SetForecast(m, of) => self.note_forecast(m, *of),
            // Its place in the journal is all there is to it.
            Command::Outcomes(_) => {}
            Command::OpenSession(m, role) => self.open_session(env, m, *role, out),
            Command::CloseSession(m) => self.close_session(env, m.slot.get(), out),
            Command::Restart => self.restart(),
            Command::DefineBook(m, resource) => self.define_book(m, *resource)?,
            Command::DefineCredits(m, resource) => self.define_credits(m, *resource)?,
            Command::DefineExchange(m, resource) => self.define_exchange(m, *resource)?,
            Command::SpareTiers(m) => self.spare_tiers(m)?,
            Command::Genesis(_) if env.sequence == 1 => self.handovers.house = env.time_ns,
            _ => {
                let why = Reject::UnknownKind;
                return Err(Broken::Record { sequence: env.sequence, kind: 0, why });
            }
        }
        Ok(())
    }

    /// Compares what the journal says of an earlier tick with what this machine computed.
    fn verify_digest(&self, sequence: u64, journal: u64) -> Result<(), Broken> {
        let (known, ours) = self.digests[(sequence % DIGESTS as u64) as usize];
        if sequence != 0 && known == sequence && ours != journal {
            return Err(Broken::Diverged { sequence, ours, journal });
        }
        Ok(())
    }

    fn define_book(&mut self, m: &DefineBook, resource: Resource) -> Result<(), Broken> {
        m.check()?;
        let tier = usize::from(m.tier.get());
        let new_tier = tier == self.book_of.len();
        let taken = self.book_of.get(tier).is_some_and(|row| row[resource as usize] != u16::MAX);
        if taken || tier > self.book_of.len() {
            let error = BoundsError::Order { tier: m.tier.get(), resource: m.resource };
            return Err(error.into());
        }
        if new_tier {
            self.book_of.push([u16::MAX; RESOURCES]);
            self.tier_states.push(TierState::Live);
        }
        self.book_of[tier][resource as usize] = self.books.len() as u16;
        let price_max = m.price_ticks_max.get() as u16;
        let sides = [Side::Buy, Side::Sell].map(|side| Ladder::new(side, price_max));
        let queues = sides.each_ref().map(|ladder| self.slab.add_queues(ladder.levels()));
        self.books.push(Book {
            tier: m.tier.get(),
            resource,
            tier_name: m.name,
            vru_size: m.vru_size.get(),
            capacity_vru: m.capacity_vru.get(),
            reserved_vru: 0,
            burst_percent: m.burst_percent.get(),
            quantity_max: m.quantity_max.get(),
            tick_micro: m.tick_micro.get(),
            price_max,
            last: 0,
            orders: 0,
            trades: 0,
            volume: 0,
            sides,
            queues,
            phase: Phase::Continuous,
            schedule: Schedule::new(m.auction_every_ms.get(), m.call_ms.get()),
            indicative: Indication::NONE,
        });
        self.definitions.push(*m);
        self.told_vru.push(m.capacity_vru.get());
        self.ledger.house.push(CreditHouse::default());
        self.ledger.pools.push(Pool::default());
        self.rules.push(DefineCredits::usual(m.tier.get(), m.resource));
        self.rounds.push(Round::default());
        self.rentals.define(price_max, m.tick_micro.get());
        self.handovers.proposals.push(Proposal::default());
        self.tokens.define();
        Ok(())
    }

    /// The instance a request names, if its session may act for it.
    #[inline(always)]
    fn acting_row(&self, env: &Envelope, instance: u32) -> Result<&Instance, Reject> {
        self.sessions[env.session as usize].acting(&self.instances, instance)
    }

    /// The book of an instance's resource, if its tier has that.
    fn instance_book(&self, instance: u16, resource: Resource) -> Result<usize, Reject> {
        let tier = self.instances[usize::from(instance)].tier;
        match self.book_of[usize::from(tier)][resource as usize] {
            u16::MAX => Err(Reject::UnknownBook),
            book => Ok(book.into()),
        }
    }

    /// Checks that a request's id is greater than every earlier one of its session.
    #[inline]
    fn fresh_client_id(&self, env: &Envelope, client_id: u64) -> Result<u64, Reject> {
        self.sessions[env.session as usize].fresh_client_id(client_id)
    }

    /// Records the id of a request that is being carried out.
    #[inline]
    fn use_client_id(&mut self, env: &Envelope, client_id: u64) {
        self.sessions[env.session as usize].last_client_id = client_id;
    }

    #[cold]
    fn report_rejected(
        &mut self,
        env: &Envelope,
        (kind, client_id): (u8, u64),
        code: Reject,
        out: &mut Outbox,
    ) {
        self.fold(u64::from(code as u8));
        let report = Rejected {
            request: env.request.into(),
            client_id: client_id.into(),
            time_ns: env.time_ns.into(),
            kind,
            code: code as u8,
            reserved: [0; 6],
        };
        out.push(env.session, &report);
    }
}
