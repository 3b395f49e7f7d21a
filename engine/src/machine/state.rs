//! The whole state as bytes: what a snapshot holds and what digests are taken of.
//!
//! Fixed order, little-endian, native layouts of the tables' rows. Ladders, levels and counts are
//! not stored: they follow from the orders' links. The bytes of a restored machine equal the bytes
//! it was restored from, and start-up checks that.

use super::Machine;
use super::command::{Command, DefineBook, DefineCredits, DefineExchange, Genesis};
use super::config::{BoundsError, EXCHANGES_MAX};
use super::exchange::{Exchange, in_order};
use super::expiry::Dated;
use super::ledger::{Balance, CreditHouse, Pool};
use super::limits::Limits;
use super::reversal::Kept;
use super::shares::{Round, Stake};
use super::slab::{Node, Share};
use super::tables::{Account, Instance, Session};
use super::tiers::{TierState, VRU_SIZE_MAX};
use vendue_wire::code::Phase;
use vendue_wire::message::{Body, NAME_BYTES, PEER_BYTES};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
        w.slice(used(&self.sessions, &Session::FREE));
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
        let words = [
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
        r.fill(&mut machine.sessions, "sessions")?;
        r.fill(&mut machine.peers, "peers")?;
        for (pockets, what) in machine.ledger.pockets_mut().iter_mut().zip(["funds", "credits"]) {
            let balances: Vec<Balance> = r.rows(pockets.len(), what)?;
            for (pocket, balance) in pockets.iter_mut().zip(balances) {
                pocket.balance = balance;
            }
        }
        r.fill::<CreditHouse>(&mut machine.ledger.house, "house")?;
        r.fill::<Pool>(&mut machine.ledger.pools, "pools")?;
        if !machine.ledger.pools.iter().all(Pool::is_sound) {
            return Err(StateError::Contradiction("a tier's pool"));
        }
        machine.decode_exchanges(&mut r)?;
        machine.decode_shares(&mut r)?;
        r.fill(&mut machine.kept, "trades")?;
        machine.decode_orders(&mut r)?;
        machine.check_references()?;
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
        let instances_fit = self.instances.iter().filter(|row| row.live == 1).all(|row| {
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
