//! The whole state as bytes: what a snapshot holds and what digests are taken of.
//!
//! Fixed order, little-endian, native layouts of the tables' rows. Ladders, levels and counts are
//! not stored: they follow from the orders' links. The bytes of a restored machine equal the bytes
//! it was restored from, and start-up checks that.

use super::Machine;
use super::command::{Command, DefineBook, DefineCredits, DefineExchange, Genesis};
use super::config::{BoundsError, EXCHANGES_MAX, RESOURCES};
use super::exchange::{Exchange, in_order};
use super::experiment::{Experiment, Experiments, Exposure};
use super::expiry::Dated;
use super::forecast::Window;
use super::group::{Group, Member};
use super::handover::{Handover, Proposal, Standing};
use super::ledger::{Balance, CreditHouse, Pool};
use super::limits::Limits;
use super::plan::{EVENTS_MAX, Planned};
use super::policy::{POLICIES_MAX, Policy};
use super::rental::{Holding, Lease};
use super::reversal::Kept;
use super::shares::{Round, Stake};
use super::slab::{Node, Share};
use super::swap::{Swap, Terms};
use super::swap_manager::Use;
use super::tables::{Account, Instance, Session};
use super::task::Task;
use super::tiers::{TierState, VRU_SIZE_MAX};
use super::token::Row;
use vendue_wire::code::{Phase, Resource, SwapState};
use vendue_wire::message::{Body, NAME_BYTES, PEER_BYTES, SWAPS_MAX, TOKENS_MAX};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Why bytes are not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The bytes end early or are too many.
    #[error("the state's bytes end early or are too many (reading {0})")]
    Length(&'static str),
    /// A start-up record in it is out of bounds.
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    /// Parts of it contradict one another.
    #[error("the state contradicts itself: {0}")]
    Contradiction(&'static str),
}

struct Writer(Vec<u8>);

impl Writer {
    fn word(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn slice<T: IntoBytes + Immutable>(&mut self, rows: &[T]) {
        self.word(rows.len() as u64);
        self.0.extend_from_slice(rows.as_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], StateError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(StateError::Length(what))?;
        self.0 = rest;
        Ok(head)
    }

    fn word(&mut self, what: &'static str) -> Result<u64, StateError> {
        let bytes = self.bytes(8, what)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| StateError::Length(what))?))
    }

    fn body<M: Body>(&mut self, what: &'static str) -> Result<M, StateError> {
        let bytes = self.bytes(size_of::<M>(), what)?;
        M::read_from_bytes(bytes).map_err(|_| StateError::Length(what))
    }

    /// Rows of a table, at most `most`; copied, since the bytes need not be aligned.
    fn rows<T>(&mut self, most: usize, what: &'static str) -> Result<Vec<T>, StateError>
    where
        T: FromBytes + KnownLayout + Immutable,
    {
        let count = self.word(what)?;
        if count > most as u64 {
            return Err(StateError::Length(what));
        }
        let bytes = self.bytes(count as usize * size_of::<T>(), what)?;
        bytes
            .chunks_exact(size_of::<T>())
            .map(|chunk| T::read_from_bytes(chunk).map_err(|_| StateError::Length(what)))
            .collect()
    }

    /// Rows of a table whose length is known.
    fn fill<T>(&mut self, table: &mut [T], what: &'static str) -> Result<(), StateError>
    where
        T: FromBytes + KnownLayout + Immutable + Copy,
    {
        let rows = self.rows(table.len(), what)?;
        if rows.len() > table.len() {
            return Err(StateError::Length(what));
        }
        table[..rows.len()].copy_from_slice(&rows);
        Ok(())
    }
}

/// The rows of a table up to the last that differs from `free`.
fn used<'a, T: PartialEq>(table: &'a [T], free: &T) -> &'a [T] {
    let end = table.iter().rposition(|row| row != free).map_or(0, |at| at + 1);
    &table[..end]
}

impl Machine {
    /// The whole state.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer(Vec::with_capacity(1 << 20));
        w.0.extend_from_slice(self.genesis.as_bytes());
        w.slice(&self.definitions);
        for book in &self.books {
            for value in [book.reserved_vru, book.last.into(), book.trades, book.volume] {
                w.word(value);
            }
            let (schedule, indicative) = (&book.schedule, &book.indicative);
            w.word(book.phase as u64 | u64::from(schedule.followed) << 8);
            w.word(schedule.next_ms);
            w.word(indicative.price.into());
            w.word(indicative.volume);
            w.word(indicative.imbalance as u64);
            w.word(book.capacity_vru);
            w.word(book.vru_size);
            w.0.extend_from_slice(&book.tier_name);
        }
        w.word(self.first_spare.map_or(u64::MAX, u64::from));
        let states: Vec<u8> = self.tier_states.iter().map(|&state| state as u8).collect();
        w.slice(&states);
        w.slice(&self.accounts[..self.accounts_used as usize]);
        w.slice(&self.limits[..self.accounts_used as usize]);
        w.slice(used(&self.instances, &Instance::FREE));
        let (broker, sessions) = self.sessions.split_last().expect("a broker");
        w.slice(used(sessions, &Session::FREE));
        w.word(broker.last_client_id);
        w.slice(used(&self.peers, &[0; PEER_BYTES]));
        for pockets in [self.ledger.funds(), self.ledger.credits()] {
            let balances: Vec<Balance> = pockets.iter().map(|pocket| pocket.balance).collect();
            w.slice(used(&balances, &Balance::default()));
        }
        w.slice(&self.ledger.house);
        w.slice(&self.ledger.pools);
        w.slice(&self.exchange_rules);
        w.slice(self.exchanges().0);
        w.slice(&self.rules);
        w.slice(&self.rounds);
        w.slice(used(&self.stakes, &Stake::default()));
        w.slice(used(&self.kept, &Kept::default()));
        let (nodes, owners, shares) = self.slab.parts();
        w.slice(nodes);
        w.slice(owners);
        w.slice(used(shares, &Share::NOTHING));
        let (entries, buckets, second) = self.expiry.parts();
        w.slice(entries);
        w.slice(buckets);
        self.encode_leases(&mut w);
        let words = [
            self.ledger.rents,
            second,
            self.ledger.funds_issued,
            self.ledger.fees,
            self.trades,
            self.sequence,
            self.time_ns,
            self.accrued_ms,
            self.digest,
        ];
        words.into_iter().for_each(|value| w.word(value));
        for (sequence, digest) in self.digests {
            w.word(sequence);
            w.word(digest);
        }
        self.encode_swarm(&mut w);
        self.encode_policies(&mut w);
        self.encode_migrations(&mut w);
        w.slice(self.tokens.rows());
        w.word(self.tokens.last_id());
        self.encode_swaps(&mut w);
        w.0
    }

    /// The machine that [`Machine::encode`] wrote.
    ///
    /// # Errors
    /// [`StateError`]; the bytes come from a file whose own checksum was right, so an error means
    /// another version wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Machine, StateError> {
        let mut r = Reader(bytes);
        let genesis: Genesis = r.body("genesis")?;
        // Before tables are made that the bytes could never fill.
        let row = size_of::<Node>() + size_of::<Dated>();
        if genesis.orders_max.get() as usize > r.0.len() / row {
            return Err(StateError::Length("orders"));
        }
        let mut machine = Machine::new(&genesis)?;
        machine.decode_books(&mut r)?;
        let accounts: Vec<Account> = r.rows(machine.accounts.len(), "accounts")?;
        machine.accounts[..accounts.len()].copy_from_slice(&accounts);
        machine.accounts_used = accounts.len() as u32;
        let limits: Vec<Limits> = r.rows(accounts.len(), "limits")?;
        if limits.len() != accounts.len() {
            return Err(StateError::Length("limits"));
        }
        machine.limits[..limits.len()].copy_from_slice(&limits);
        r.fill(&mut machine.instances, "instances")?;
        for (owner, row) in machine.owner.iter_mut().zip(machine.instances.iter()) {
            *owner = row.account;
        }
        (0..machine.instances.len()).for_each(|at| machine.find_edges(at as u16));
        let broker = machine.broker() as usize;
        r.fill(&mut machine.sessions[..broker], "sessions")?;
        machine.sessions[broker].last_client_id = r.word("sessions")?;
        r.fill(&mut machine.peers, "peers")?;
        for (pockets, what) in machine.ledger.pockets_mut().iter_mut().zip(["funds", "credits"]) {
            let balances: Vec<Balance> = r.rows(pockets.len(), what)?;
            for (pocket, balance) in pockets.iter_mut().zip(balances) {
                pocket.balance = balance;
            }
        }
        r.fill::<CreditHouse>(&mut machine.ledger.house, "house")?;
        r.fill::<Pool>(&mut machine.ledger.pools, "pools")?;
        machine.decode_exchanges(&mut r)?;
        machine.decode_shares(&mut r)?;
        r.fill(&mut machine.kept, "trades")?;
        machine.decode_orders(&mut r)?;
        machine.decode_swarm(&mut r)?;
        machine.decode_forecasts(&mut r)?;
        machine.decode_policies(&mut r)?;
        machine.decode_migrations(&mut r)?;
        machine.decode_tokens(&mut r)?;
        machine.decode_swaps(&mut r)?;
        machine.find_supplies()?;
        machine.check_references()?;
        if let Some(what) = machine.imbalance() {
            return Err(StateError::Contradiction(what));
        }
        (0..machine.accounts_used as u16).for_each(|account| machine.watch(account));
        if r.0.is_empty() { Ok(machine) } else { Err(StateError::Length("end")) }
    }

    fn decode_books(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        let definitions: Vec<DefineBook> = r.rows(super::slab::BOOKS_MAX, "books")?;
        for definition in &definitions {
            let parsed = Command::parse(DefineBook::KIND, definition.as_bytes());
            let Ok(Command::DefineBook(m, resource)) = parsed else {
                return Err(StateError::Contradiction("a book's definition"));
            };
            if self.define_book(m, resource).is_err() {
                return Err(StateError::Contradiction("a book's definition"));
            }
        }
        let wrong = || StateError::Contradiction("a book's phase");
        for book in &mut self.books {
            book.reserved_vru = r.word("book")?;
            book.last = r.word("book")? as u16;
            book.trades = r.word("book")?;
            book.volume = r.word("book")?;
            let phase = r.word("phase")?;
            book.phase = Phase::from_u8(phase as u8).ok_or_else(wrong)?;
            book.schedule.followed = phase >> 8 & 1 == 1;
            book.schedule.next_ms = r.word("phase")?;
            book.indicative.price = r.word("phase")? as u16;
            book.indicative.volume = r.word("phase")?;
            book.indicative.imbalance = r.word("phase")? as i64;
            book.capacity_vru = r.word("capacity")?;
            if book.capacity_vru > u32::MAX.into() || book.capacity_vru < book.reserved_vru.max(1) {
                return Err(StateError::Contradiction("a tier's capacity"));
            }
            book.vru_size = r.word("vru size")?;
            if !(1..=VRU_SIZE_MAX).contains(&book.vru_size) {
                return Err(StateError::Contradiction("the size of a VRU"));
            }
            book.tier_name.copy_from_slice(r.bytes(NAME_BYTES, "tier name")?);
        }
        self.decode_tiers(r)?;
        for at in 0..self.books.len() {
            self.told_vru[at] = self.shown_vru(at);
        }
        Ok(())
    }

    fn decode_tiers(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        let wrong = || StateError::Contradiction("a tier's state");
        self.first_spare = match r.word("spare tiers")? {
            u64::MAX => None,
            from => Some(u16::try_from(from).map_err(|_| wrong())?),
        };
        let states: Vec<u8> = r.rows(self.tier_states.len(), "tier states")?;
        if states.len() != self.tier_states.len() {
            return Err(wrong());
        }
        for (state, byte) in self.tier_states.iter_mut().zip(states) {
            *state = TierState::from_u8(byte).ok_or_else(wrong)?;
        }
        Ok(())
    }

    fn decode_exchanges(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        let rules: Vec<DefineExchange> = r.rows(EXCHANGES_MAX, "exchange rules")?;
        for definition in &rules {
            let parsed = Command::parse(DefineExchange::KIND, definition.as_bytes());
            let Ok(Command::DefineExchange(m, resource)) = parsed else {
                return Err(StateError::Contradiction("an exchange's definition"));
            };
            if self.define_exchange(m, resource).is_err() {
                return Err(StateError::Contradiction("an exchange's definition"));
            }
        }
        let rows: Vec<Exchange> = r.rows(EXCHANGES_MAX, "exchanges")?;
        let pair = |row: &Exchange| (row.from, row.to, row.resource);
        let defined = self.exchanges().0.iter().map(pair);
        let known =
            rows.len() >= rules.len() && defined.eq(rows.iter().take(rules.len()).map(pair));
        let sound = |row: &Exchange| {
            in_order(row.low, row.rate, row.high)
                && usize::from(row.resource) < super::config::RESOURCES
                && usize::from(row.from.max(row.to)) < self.book_of.len()
        };
        if !known || !rows.iter().all(sound) {
            return Err(StateError::Contradiction("an exchange"));
        }
        self.exchanges[..rows.len()].copy_from_slice(&rows);
        self.exchanges_used = rows.len();
        Ok(())
    }

    fn decode_shares(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        r.fill::<DefineCredits>(&mut self.rules, "rules")?;
        for (rules, book) in self.rules.iter().zip(&self.books) {
            rules.check()?;
            if (rules.tier.get(), rules.resource) != (book.tier, book.resource as u8) {
                return Err(StateError::Contradiction("a book's credits"));
            }
        }
        r.fill::<Round>(&mut self.rounds, "rounds")?;
        r.fill::<Stake>(&mut self.stakes, "stakes")?;
        let steps = super::weights::STEP_MIN..=super::weights::STEP_MAX;
        if self.stakes.iter().all(|stake| steps.contains(&stake.step)) {
            Ok(())
        } else {
            Err(StateError::Contradiction("a step of wealth"))
        }
    }

    fn decode_orders(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        let nodes: Vec<Node> = r.rows(self.genesis.orders_max.get() as usize, "orders")?;
        let owners: Vec<u16> = r.rows(nodes.len(), "pages")?;
        let shares: Vec<Share> = r.rows(self.instances.len(), "shares")?;
        let entries: Vec<Dated> = r.rows(nodes.len(), "expiry")?;
        let buckets: Vec<u32> = r.rows(1 << 16, "buckets")?;
        self.decode_leases(r)?;
        self.ledger.rents = r.word("rents")?;
        let second = r.word("expiry")?;
        self.ledger.funds_issued = r.word("funds")?;
        self.ledger.fees = r.word("funds")?;
        self.trades = r.word("counters")?;
        self.sequence = r.word("counters")?;
        self.time_ns = r.word("counters")?;
        self.accrued_ms = r.word("counters")?;
        self.digest = r.word("counters")?;
        for pair in &mut self.digests {
            *pair = (r.word("digests")?, r.word("digests")?);
        }
        let dated = nodes.iter().filter(|node| node.live() && node.tag.dated()).count() as u32;
        if !self.slab.restore(&nodes, &owners, &shares)
            || !self.expiry.restore(&entries, &buckets, second, dated)
        {
            return Err(StateError::Contradiction("orders"));
        }
        self.rebuild_levels(&nodes)
    }

    fn encode_leases(&self, w: &mut Writer) {
        let (leases, words) = self.rentals.parts();
        w.slice(leases);
        words.into_iter().for_each(|value| w.word(value));
        let (own, storage) = self.rentals.holdings.split_at(self.rentals.storage_of(0));
        w.slice(used(own, &Holding::default()));
        w.slice(used(storage, &Holding::default()));
        for rental in &self.rentals.books {
            w.slice(&rental.meters);
            w.slice(std::slice::from_ref(&rental.lending));
        }
    }

    fn decode_leases(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        let leases: Vec<Lease> = r.rows(self.genesis.leases_max.get() as usize, "leases")?;
        let mut words = [0; 3];
        for word in &mut words {
            *word = r.word("leases")?;
        }
        let places = self.rentals.storage_of(0);
        let (own, storage) = self.rentals.holdings.split_at_mut(places);
        r.fill(own, "holdings")?;
        r.fill(storage, "holdings of storage")?;
        for rental in &mut self.rentals.books {
            r.fill(&mut rental.meters, "rents")?;
            r.fill(std::slice::from_mut(&mut rental.lending), "rents")?;
        }
        let (instances, books, book_of) = (&self.instances, &self.books, &self.book_of);
        let (own, storage) = self.rentals.holdings.split_at(places);
        if storage.iter().any(|row| row.count > 1 || row.lent > 0 || row.entitled > 0) {
            return Err(StateError::Contradiction("leases of storage"));
        }
        for (at, holding) in own.iter().enumerate() {
            let (row, resource) = (&instances[at / RESOURCES], at % RESOURCES);
            if holding.lent == 0 && holding.earned_milli == 0 {
                continue;
            }
            let books = book_of.get(usize::from(row.tier)).copied();
            let book = books.map_or(usize::MAX, |books| usize::from(books[resource]));
            let rental = self.rentals.books.get_mut(book).filter(|_| row.live == 1);
            let wrong = || StateError::Contradiction("a loan");
            let rental = rental.ok_or_else(wrong)?;
            let ahead = holding.earned_from > rental.lending.earned
                || holding.used_from > rental.lending.used;
            if holding.lent >= row.baseline_vru[resource] || ahead {
                return Err(wrong());
            }
            rental.lent += u64::from(holding.lent);
        }
        let resource = |lease: &Lease| {
            let row = instances.get(usize::from(lease.instance)).filter(|row| row.live == 1)?;
            let book = books.get(usize::from(lease.book))?;
            let elsewhere = book.tier != row.tier && book.resource == Resource::BlockIo;
            let known = if lease.storage == 1 { elsewhere } else { book.tier == row.tier };
            known.then_some(book.resource as usize)
        };
        if self.rentals.restore(&leases, words, resource) {
            Ok(())
        } else {
            Err(StateError::Contradiction("leases"))
        }
    }

    /// What books have to lease, beside baselines and tokens.
    fn find_supplies(&mut self) -> Result<(), StateError> {
        for (at, (rental, book)) in self.rentals.books.iter_mut().zip(&self.books).enumerate() {
            let free = book.capacity_vru.checked_sub(book.reserved_vru);
            let free = free.and_then(|vru| vru.checked_sub(self.tokens.redeemed(at)));
            rental.supply = free.and_then(|vru| vru.checked_add(rental.lent)).unwrap_or(0);
            if rental.granted.max(rental.lent) > rental.supply {
                return Err(StateError::Contradiction("more is leased than there is"));
            }
        }
        Ok(())
    }

    fn encode_swarm(&self, w: &mut Writer) {
        w.slice(self.swarm.groups());
        w.slice(used(&self.swarm.members, &Member::default()));
        w.slice(used(&self.swarm.tasks, &Task::FREE));
        w.word(self.swarm.submitted);
    }

    fn decode_swarm(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        let groups: Vec<Group> = r.rows(self.swarm.groups.len(), "groups")?;
        self.swarm.groups[..groups.len()].copy_from_slice(&groups);
        self.swarm.groups_used = groups.len();
        r.fill(&mut self.swarm.members, "members")?;
        r.fill(&mut self.swarm.tasks, "tasks")?;
        self.swarm.submitted = r.word("tasks")?;
        if !self.swarm_is_whole() {
            return Err(StateError::Contradiction("the swarm"));
        }
        self.swarm.find_roster();
        self.swarm.find_rows();
        if self.instances_hold_tasks() {
            Ok(())
        } else {
            Err(StateError::Contradiction("more VRUs are granted than there are"))
        }
    }

    /// Forecasts, who acts on them, and what instances are to reach.
    fn encode_policies(&self, w: &mut Writer) {
        w.slice(used(&self.forecasts, &Window::default()));
        w.slice(self.plan.rows());
        w.slice(&self.policies.rows[..self.policies.used as usize]);
        w.word(self.policies.turn.into());
        w.slice(&self.experiments.rows);
        w.slice(used(&self.experiments.exposures, &Exposure::default()));
        let Experiments { started, turn, acted, .. } = self.experiments;
        [started, turn, acted].into_iter().for_each(|value| w.word(value.into()));
        w.slice(self.objectives.used());
    }

    fn decode_forecasts(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        r.fill(&mut self.forecasts, "forecasts")?;
        let events: Vec<Planned> = r.rows(EVENTS_MAX, "planned events")?;
        let instances = &self.instances;
        let live = |at: u16| instances.get(usize::from(at)).is_some_and(|row| row.live == 1);
        if self.plan.restore(&events, live) && self.forecasts_are_whole() {
            Ok(())
        } else {
            Err(StateError::Contradiction("a forecast"))
        }
    }

    fn decode_policies(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        let rows: Vec<Policy> = r.rows(POLICIES_MAX, "policies")?;
        self.policies.rows[..rows.len()].copy_from_slice(&rows);
        self.policies.used = rows.len() as u32;
        self.policies.turn = r.word("policies")? as u32;
        let instances = &self.instances;
        let live = |at: u16| instances.get(usize::from(at)).is_some_and(|row| row.live == 1);
        if !self.policies.restore(live) || !self.policies_are_whole() {
            return Err(StateError::Contradiction("a policy"));
        }
        r.fill::<Experiment>(&mut self.experiments.rows, "experiments")?;
        r.fill::<Exposure>(&mut self.experiments.exposures, "experiments")?;
        let Experiments { started, turn, acted, .. } = &mut self.experiments;
        for word in [started, turn, acted] {
            *word = r.word("experiments")? as u32;
        }
        if !self.experiments.restore(live) {
            return Err(StateError::Contradiction("an experiment"));
        }
        r.fill(&mut self.objectives.rows, "objectives")?;
        if self.objectives.restore() && self.rescues_are_whole() {
            Ok(())
        } else {
            Err(StateError::Contradiction("objectives"))
        }
    }

    fn encode_migrations(&self, w: &mut Writer) {
        let m = &self.handovers;
        w.slice(used(&m.rows, &Handover::new_zeroed()));
        w.slice(&m.proposals);
        w.slice(used(&m.standing, &Standing::default()));
        [m.house, m.number, m.looks_ms].into_iter().for_each(|value| w.word(value));
    }

    fn decode_migrations(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        let m = &mut self.handovers;
        r.fill::<Handover>(&mut m.rows, "migrations")?;
        r.fill::<Proposal>(&mut m.proposals, "proposals")?;
        r.fill::<Standing>(&mut m.standing, "standing policies")?;
        for word in [&mut m.house, &mut m.number, &mut m.looks_ms] {
            *word = r.word("migrations")?;
        }
        if self.migrations_are_whole() {
            Ok(())
        } else {
            Err(StateError::Contradiction("a migration"))
        }
    }

    fn decode_tokens(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        let rows: Vec<Row> = r.rows(TOKENS_MAX, "tokens")?;
        let last_id = r.word("tokens")?;
        if self.tokens.restore(&rows, last_id) && self.tokens_are_whole() {
            Ok(())
        } else {
            Err(StateError::Contradiction("a token"))
        }
    }

    fn encode_swaps(&self, w: &mut Writer) {
        w.slice(&self.swaps.rows);
        w.slice(used(&self.swaps.terms, &Terms::USUAL));
        w.slice(used(&self.swaps.uses, &Use::default()));
        [self.swaps.last_id, self.swaps.cycled_ms].into_iter().for_each(|value| w.word(value));
    }

    fn decode_swaps(&mut self, r: &mut Reader<'_>) -> Result<(), StateError> {
        let rows: Vec<Swap> = r.rows(SWAPS_MAX, "swaps")?;
        let wrong = StateError::Contradiction("a swap");
        if rows.iter().any(|row| SwapState::from_u8(row.state).is_none()) {
            return Err(wrong);
        }
        self.swaps.rows.extend_from_slice(&rows);
        r.fill(&mut self.swaps.terms, "swap policies")?;
        r.fill(&mut self.swaps.uses, "measured use")?;
        self.swaps.last_id = r.word("swaps")?;
        self.swaps.cycled_ms = r.word("swaps")?;
        self.swaps.reckon();
        if self.swaps_are_whole() { Ok(()) } else { Err(wrong) }
    }

    /// Levels, their sentinels and counts from the orders and their links.
    fn rebuild_levels(&mut self, nodes: &[Node]) -> Result<(), StateError> {
        for (slot, node) in (0_u32..).zip(nodes).filter(|(_, node)| node.live()) {
            let book = self.books.get_mut(node.tag.book());
            let book = book.ok_or(StateError::Contradiction("an order without a book"))?;
            if node.tag.price() == 0 || node.tag.price() > book.price_max || node.quantity == 0 {
                return Err(StateError::Contradiction("an order's price"));
            }
            let ladder = &mut book.sides[node.tag.side()];
            let level = ladder.level_of(node.tag.price());
            ladder.mark(level);
            book.orders += 1;
            let sentinel = book.queues[node.tag.side()] + level;
            // A neighbour is of the same level and knows it, or is its sentinel, which learns it.
            let beside = |other: u32, back: fn(&Node) -> u32| {
                other == sentinel
                    || nodes.get(other as usize).is_some_and(|other| {
                        other.live()
                            && (other.tag.book(), other.tag.side(), other.tag.price())
                                == (node.tag.book(), node.tag.side(), node.tag.price())
                            && back(other) == slot
                    })
            };
            if !beside(node.next, |node| node.prev) || !beside(node.prev, |node| node.next) {
                return Err(StateError::Contradiction("an order's place in its queue"));
            }
            if node.next == sentinel {
                self.slab.nodes[sentinel as usize].prev = slot;
            }
            if node.prev == sentinel {
                self.slab.nodes[sentinel as usize].next = slot;
            }
        }
        Ok(())
    }

    /// Numbers that point into other tables stay inside them.
    fn check_references(&self) -> Result<(), StateError> {
        let nodes_fit = self.slab.nodes.iter().all(|node| {
            usize::from(node.tag.instance()) < self.instances.len()
                && usize::from(node.tag.session()) < self.sessions.len()
        });
        let instances_fit = self.instances.iter().filter(|row| row.live != 0).all(|row| {
            usize::from(row.tier) < self.book_of.len()
                && u32::from(row.account) < self.accounts_used
        });
        if !nodes_fit || !instances_fit {
            return Err(StateError::Contradiction("a reference points outside its table"));
        }
        if !self.limits_are_whole() {
            return Err(StateError::Contradiction("an account's limits"));
        }
        if !self.trades_are_whole() {
            return Err(StateError::Contradiction("a trade that may be reversed"));
        }
        Ok(())
    }
}
