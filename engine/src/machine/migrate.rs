//! Instances that move to another host, with their credits and the terms of their leases.
//!
//! The other host reserves room and gives out a ticket ([`ExpectInstance`]); here the instance departs to
//! it ([`Depart`]): its orders, leases, loans and tasks end, what is held for them goes back to its account,
//! and its credits are held in escrow. The record of that is what the other host takes ([`Arrive`]), once;
//! with its receipt the escrow is burned here and the instance removed. Until then the other host can
//! refuse, for good, and with the receipt of that everything is as before here, but for what ended.
//! Funds stay where they are: at the other host an account of the same name pays from then on.
//! [`handover`](super::handover) says why nothing is lost or doubled.
//!
//! What uses the host's counters measure on the way is not paid: there is nothing to pay it from.
//!
//! A lease of class sla that still waits after [`PROPOSE_MS`] is one that this host cannot serve:
//! whatever else is leased gave way by then. That is a proposal to migrate, of which an operator
//! decides, or decided before.

use super::Machine;
use super::command::Envelope;
use super::event::Outbox;
use super::handover::{
    ACCEPTED, ADVISED, ARRIVED, DECLINED, DEPARTING, EXPECTED, HANDOVERS_MAX, Handover, PROPOSED,
    Proposal, Standing, Terms, Verdict, WATCHED, departed, refused, seal,
};
use super::lease::HOLD_MAX_MS;
use super::ledger::pocket;
use super::tables::Instance;
use vendue_wire::code::{LeaseClass, Reject, Resource};
use vendue_wire::message::{
    Arrive, BID_MILLI_MAX, Body, CreateInstance, Depart, ExpectInstance, MIGRATION_ABORT,
    MIGRATION_ACCEPT, MIGRATION_CLOSE, MIGRATION_DECLINE, MIGRATION_DEPARTED, MIGRATION_LEASES,
    MIGRATION_REFUSE, MIGRATION_STAND, MigrationMoved, MigrationRow, NAME_BYTES, SettleMigration,
    U32, U64,
};

/// A lease of class sla waits so long before a migration is proposed, milliseconds: no hold of another
/// is longer.
pub const PROPOSE_MS: u64 = HOLD_MAX_MS as u64;
/// Waiting leases are looked at so often, milliseconds.
const LOOK_MS: u64 = 1000;
/// A tier of which instances reserve less of each resource, percent, is advised to be emptied.
const EMPTY_PERCENT: u64 = 25;

impl Machine {
    /// What is known of migrations.
    pub fn handovers(&self) -> &[Handover] {
        &self.handovers.rows
    }

    /// This host's house.
    pub fn house(&self) -> u64 {
        self.handovers.house
    }

    // ---- at the other host -----------------------------------------------------------------

    pub(super) fn expect_instance(
        &mut self,
        env: &Envelope,
        m: &ExpectInstance,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let as_new = CreateInstance {
            client_id: m.client_id,
            account: m.account,
            tier: m.tier,
            reserved: m.reserved,
            baseline_vru: m.baseline_vru,
            reserved2: m.reserved2,
            name: m.name,
            place: m.place,
        };
        let (slot, account) = self.find_seat(&as_new)?;
        let at = self.handovers.room().ok_or(Reject::MigrationsFull)?;
        self.use_client_id(env, client_id);
        let ticket = self.handovers.fresh(self.time_ns);
        self.seat(slot, account, Instance::ARRIVING, &as_new);
        self.launch_stakes(slot);
        self.launch_leases(slot);
        self.announce_seat(slot, out);
        let since_ms = self.now_ms();
        let row = &mut self.handovers.rows[at];
        (row.state, row.instance, row.since_ms) = (EXPECTED, slot, since_ms);
        row.record.house = self.handovers.house.into();
        row.record.ticket = ticket.into();
        self.tell_migration(env, at, 0, out);
        self.report_done(env, ExpectInstance::KIND, client_id, ticket, out);
        Ok(())
    }

    pub(super) fn arrive(
        &mut self,
        env: &Envelope,
        m: &Arrive,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let at = self.own_ticket(m.house, m.ticket)?.ok_or(Reject::UnknownMigration)?;
        let row = &self.handovers.rows[at];
        let record = Arrive { client_id: 0.into(), ..*m };
        if row.state == ARRIVED && row.record != record || seal(m) != m.seal.get() {
            return Err(Reject::WrongHandover);
        }
        let instance = row.instance;
        if row.state == EXPECTED {
            self.check_arrival(instance, m)?;
        }
        self.use_client_id(env, client_id);
        if self.handovers.rows[at].state == EXPECTED {
            let since_ms = self.now_ms();
            let row = &mut self.handovers.rows[at];
            (row.record, row.state, row.since_ms) = (record, ARRIVED, since_ms);
            for (&resource, milli) in Resource::ALL.iter().zip(m.credit_millicredits) {
                let book = self.book_of_instance(instance, resource);
                if milli.get() > 0 {
                    self.ledger.issue(book, instance, resource, milli.get());
                }
                self.stakes[pocket(instance, resource)].bid_milli =
                    m.bid_milli[resource as usize].get();
            }
            let dropped = self.resume(instance, &record, out);
            self.tell_migration(env, at, dropped, out);
        }
        let receipt = self.handovers.rows[at].receipt(Verdict::Arrived);
        self.report_done(env, Arrive::KIND, client_id, receipt, out);
        Ok(())
    }

    /// The record is that of the instance that is expected, and what it brings fits.
    fn check_arrival(&self, instance: u16, m: &Arrive) -> Result<(), Reject> {
        let row = &self.instances[usize::from(instance)];
        let account = &self.accounts[usize::from(row.account)].name;
        let same = (row.name, *account) == (m.name, m.account)
            && row.baseline_vru.map(U32::new) == m.baseline_vru;
        if !same {
            return Err(Reject::WrongHandover);
        }
        for &resource in Resource::ALL {
            let r = resource as usize;
            let milli = m.credit_millicredits[r].get();
            match self.books.get(self.book_of_instance(instance, resource)) {
                None if milli > 0 || row.baseline_vru[r] > 0 => return Err(Reject::UnknownBook),
                Some(book) if row.baseline_vru[r] > 0 && book.vru_size != m.vru_size[r].get() => {
                    return Err(Reject::WrongTier);
                }
                Some(_) => {
                    let at = self.book_of_instance(instance, resource);
                    if milli > self.ledger.credit_room(at) {
                        return Err(Reject::Overflow);
                    }
                }
                None => {}
            }
            if m.bid_milli[r].get() > BID_MILLI_MAX {
                return Err(Reject::BadField);
            }
        }
        Ok(())
    }

    // ---- here ------------------------------------------------------------------------------

    pub(super) fn depart(
        &mut self,
        env: &Envelope,
        m: &Depart,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        if let Some(at) = self.handovers.find(m.house.get(), m.ticket.get()) {
            // A repeat is answered as the first was.
            let row = &self.handovers.rows[at];
            if row.state != DEPARTING || u32::from(row.instance) != m.instance.get() {
                return Err(Reject::WrongHandover);
            }
            let seal = row.record.seal.get();
            self.use_client_id(env, client_id);
            self.report_done(env, Depart::KIND, client_id, seal, out);
            return Ok(());
        }
        let row = *self.instance(m.instance.get()).ok_or(Reject::UnknownInstance)?;
        let instance = m.instance.get() as u16;
        if m.house.get() == self.handovers.house {
            return Err(Reject::WrongHandover);
        }
        let at = self.handovers.room().ok_or(Reject::MigrationsFull)?;
        let mut record = Arrive {
            house: m.house,
            ticket: m.ticket,
            source: self.handovers.house.into(),
            baseline_vru: row.baseline_vru.map(U32::new),
            account: self.accounts[usize::from(row.account)].name,
            name: row.name,
            ..Arrive::zeroed()
        };
        for &resource in Resource::ALL {
            let r = resource as usize;
            if !self.lease_terms(instance, resource, &mut record) {
                return Err(Reject::LeasesFull);
            }
            let book = self.books.get(self.book_of_instance(instance, resource));
            record.vru_size[r] = book.map_or(0, |book| book.vru_size).into();
            record.entitled_vru[r] = self.holding(instance, resource).entitled.into();
            record.bid_milli[r] = self.stakes[pocket(instance, resource)].bid_milli.into();
        }
        self.use_client_id(env, client_id);
        record.departure = self.handovers.fresh(self.time_ns).into();
        self.suspend(env, instance, out);
        for &resource in Resource::ALL {
            let milli = self.ledger.hold_credits(instance, resource);
            record.credit_millicredits[resource as usize] = milli.into();
            self.reassess(instance, resource, out);
            self.announce(instance, resource, out);
        }
        record.seal = seal(&record).into();
        let since_ms = self.now_ms();
        let row = &mut self.handovers.rows[at];
        *row =
            Handover { record, to: m.to, since_ms, instance, state: DEPARTING, reserved: [0; 5] };
        self.tell_migration(env, at, 0, out);
        self.report_done(env, Depart::KIND, client_id, record.seal.get(), out);
        Ok(())
    }

    /// Ends everything that an instance has under way. From now on nobody acts for it.
    fn suspend(&mut self, env: &Envelope, instance: u16, out: &mut Outbox) {
        self.unwind(env, instance, out);
        let row = &mut self.instances[usize::from(instance)];
        row.live = Instance::DEPARTING;
        row.bursting &= !Instance::LIMITED;
        let books = self.book_of[usize::from(row.tier)];
        self.find_edges(instance);
        self.reclear_leases(&books, out);
    }

    /// Lets an instance act again, with what its record says that it leased. How many of these
    /// leases found no place.
    fn resume(&mut self, instance: u16, record: &Arrive, out: &mut Outbox) -> u8 {
        let row = &mut self.instances[usize::from(instance)];
        row.live = 1;
        let limited = self.limits[usize::from(row.account)].are_set();
        row.bursting |= if limited { Instance::LIMITED } else { 0 };
        self.find_edges(instance);
        for &resource in Resource::ALL {
            let holding = &mut self.rentals.holdings[pocket(instance, resource)];
            holding.entitled = record.entitled_vru[resource as usize].get();
        }
        let terms = (0..usize::from(record.leases)).map(|at| Terms::of(record, at));
        let dropped = terms.filter(|terms| !self.restore_lease(instance, terms, out)).count();
        for &resource in Resource::ALL {
            self.reassess(instance, resource, out);
            self.announce(instance, resource, out);
            self.weigh(instance, resource, out);
        }
        self.announce_stored(instance, out);
        dropped as u8
    }

    // ---- settling --------------------------------------------------------------------------

    pub(super) fn settle_migration(
        &mut self,
        env: &Envelope,
        m: &SettleMigration,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let value = match m.act {
            MIGRATION_ACCEPT | MIGRATION_DECLINE => self.decide(env, m, out)?,
            MIGRATION_STAND => self.stand_for(m)?,
            MIGRATION_REFUSE => self.refuse(env, m, out)?,
            MIGRATION_ABORT => self.abort(env, m, out)?,
            MIGRATION_DEPARTED => self.departed(env, m, out)?,
            MIGRATION_CLOSE => self.close_migration(m)?,
            _ => return Err(Reject::BadField),
        };
        self.use_client_id(env, client_id);
        self.fold(u64::from(m.act) << 56 ^ m.ticket.get());
        self.report_done(env, SettleMigration::KIND, client_id, value, out);
        Ok(())
    }

    /// Place of a ticket that this host gave out, if it is still there.
    fn own_ticket(&self, house: U64, ticket: U64) -> Result<Option<usize>, Reject> {
        let own = house.get() == self.handovers.house && ticket.get() <= self.handovers.number;
        if !own {
            return Err(Reject::UnknownMigration);
        }
        Ok(self.handovers.find(house.get(), ticket.get()))
    }

    /// Of an instance that is expected: never. What is not there cannot arrive anyway.
    fn refuse(
        &mut self,
        env: &Envelope,
        m: &SettleMigration,
        out: &mut Outbox,
    ) -> Result<u64, Reject> {
        let at = self.own_ticket(m.house, m.ticket)?;
        if at.is_some_and(|at| self.handovers.rows[at].state == ARRIVED) {
            return Err(Reject::AlreadyArrived);
        }
        if let Some(at) = at {
            self.end_migration(env, at, out);
        }
        Ok(refused(m.house.get(), m.ticket.get()))
    }

    /// A departure that the other host refused: the instance stays.
    fn abort(
        &mut self,
        env: &Envelope,
        m: &SettleMigration,
        out: &mut Outbox,
    ) -> Result<u64, Reject> {
        let at = self.departure(m).ok_or(Reject::UnknownMigration)?;
        let row = self.handovers.rows[at];
        if m.receipt.get() != row.receipt(Verdict::Refused) {
            return Err(Reject::WrongHandover);
        }
        for &resource in Resource::ALL {
            self.ledger.release_credits(row.instance, resource);
        }
        let dropped = self.resume(row.instance, &row.record, out);
        self.handovers.rows[at].state = 0;
        self.tell_migration(env, at, dropped, out);
        self.handovers.free(at);
        Ok(row.instance.into())
    }

    /// A departure whose arrival is confirmed: what was in escrow is burned, the instance removed. The
    /// answer says that nothing is in escrow here to which that receipt belongs; it is given again to who
    /// asks again.
    fn departed(
        &mut self,
        env: &Envelope,
        m: &SettleMigration,
        out: &mut Outbox,
    ) -> Result<u64, Reject> {
        let of = |row: &Handover| {
            row.state == DEPARTING && row.receipt(Verdict::Arrived) == m.receipt.get()
        };
        if let Some(at) = self.handovers.rows.iter().position(of) {
            let row = self.handovers.rows[at];
            if self.departure(m) != Some(at) {
                return Err(Reject::WrongHandover);
            }
            for &resource in Resource::ALL {
                self.ledger.release_credits(row.instance, resource);
            }
            self.end_migration(env, at, out);
        }
        Ok(departed(self.handovers.house, m.receipt.get()))
    }

    /// An arrival that the other host has settled.
    fn close_migration(&mut self, m: &SettleMigration) -> Result<u64, Reject> {
        if let Some(at) = self.own_ticket(m.house, m.ticket)? {
            let row = &self.handovers.rows[at];
            if row.state != ARRIVED || m.receipt.get() != row.receipt(Verdict::Departed) {
                return Err(Reject::WrongHandover);
            }
            self.handovers.free(at);
        }
        Ok(0)
    }

    fn departure(&self, m: &SettleMigration) -> Option<usize> {
        let at = self.handovers.find(m.house.get(), m.ticket.get())?;
        (self.handovers.rows[at].state == DEPARTING).then_some(at)
    }

    /// An instance that is not to be here any more goes, and its row.
    fn end_migration(&mut self, env: &Envelope, at: usize, out: &mut Outbox) {
        let instance = self.handovers.rows[at].instance;
        let row = self.instances[usize::from(instance)];
        self.dissolve(env, instance, &row, out);
        self.handovers.rows[at].state = 0;
        self.tell_migration(env, at, 0, out);
        self.handovers.free(at);
    }

    // ---- proposals -------------------------------------------------------------------------

    /// An operator decides on a proposal.
    fn decide(
        &mut self,
        env: &Envelope,
        m: &SettleMigration,
        out: &mut Outbox,
    ) -> Result<u64, Reject> {
        let number = m.ticket.get();
        let of =
            |row: &Proposal| row.number == number && (PROPOSED..=DECLINED).contains(&row.state);
        let at = self.handovers.proposals.iter().position(of).ok_or(Reject::UnknownMigration)?;
        let accepted = m.act == MIGRATION_ACCEPT;
        if accepted != (m.to[0] != 0) {
            return Err(Reject::BadName);
        }
        let state = if accepted { ACCEPTED } else { DECLINED };
        self.turn(at, state, m.to);
        self.tell_proposal(env.session, at, out);
        Ok(number)
    }

    /// An operator decides on an account's proposals beforehand. The value is the account.
    fn stand_for(&mut self, m: &SettleMigration) -> Result<u64, Reject> {
        let account = u32::from(self.known_account(m.account)?);
        let rows = &mut self.handovers.standing;
        let own = rows.iter().position(|row| row.to[0] != 0 && row.account == account);
        let free = rows.iter().position(|row| row.to[0] == 0);
        match (own.or(free), m.to[0]) {
            (Some(at), 0) if own.is_some() => rows[at] = Standing::default(),
            (Some(at), 1..) => rows[at] = Standing { to: m.to, account },
            (None, 1..) => return Err(Reject::MigrationsFull),
            _ => {}
        }
        Ok(account.into())
    }

    fn turn(&mut self, at: usize, state: u8, to: [u8; NAME_BYTES]) {
        let since_ms = self.now_ms();
        let row = &mut self.handovers.proposals[at];
        (row.state, row.to, row.since_ms) = (state, to, since_ms);
    }

    /// Time passes: of each book the first lease of class sla that waits is watched until it does not.
    pub(super) fn tick_migrations(&mut self, now_ms: u64, out: &mut Outbox) {
        if now_ms < self.handovers.looks_ms {
            return;
        }
        self.handovers.looks_ms = now_ms + LOOK_MS;
        for at in 0..self.books.len() {
            let row = self.handovers.proposals[at];
            let slot = if row.state == 0 { None } else { self.rentals.find(row.lease) };
            let waits = slot.is_some_and(|slot| self.rentals.leases[slot as usize].waits() > 0);
            if !waits {
                self.watch_next(at);
            } else if row.state == WATCHED && now_ms - row.since_ms >= PROPOSE_MS {
                self.propose(at, out);
            }
        }
    }

    fn watch_next(&mut self, at: usize) {
        let next = self.rentals.books[at].first_waiting(LeaseClass::Sla as usize);
        self.handovers.proposals[at] = next.map_or(Proposal::default(), |slot| Proposal {
            lease: self.rentals.handle(slot),
            since_ms: self.now_ms(),
            state: WATCHED,
            ..Proposal::default()
        });
    }

    fn propose(&mut self, at: usize, out: &mut Outbox) {
        self.handovers.proposals[at].number = self.handovers.fresh(self.time_ns);
        let Some(lease) = self.proposed_lease(at) else { return };
        let account = u32::from(self.owner[usize::from(lease.instance)]);
        let stands = self.handovers.stands(account).map(|row| row.to);
        let told = self.addressee(lease.slot, lease.session);
        self.turn(at, PROPOSED, [0; NAME_BYTES]);
        self.tell_proposal(told, at, out);
        if let Some(to) = stands {
            self.turn(at, ACCEPTED, to);
            self.tell_proposal(told, at, out);
        }
    }

    fn proposed_lease(&self, at: usize) -> Option<super::rental::Lease> {
        let slot = self.rentals.find(self.handovers.proposals[at].lease)?;
        Some(self.rentals.leases[slot as usize])
    }

    // ---- what is told ----------------------------------------------------------------------

    fn tell_proposal(&mut self, to: u32, at: usize, out: &mut Outbox) {
        let row = self.handovers.proposals[at];
        let Some(lease) = self.proposed_lease(at) else { return };
        self.fold(row.number ^ u64::from(row.state) << 56);
        let event = MigrationMoved {
            ticket: row.number.into(),
            time_ns: self.time_ns.into(),
            instance: u32::from(lease.instance).into(),
            short_vru: lease.waits().into(),
            state: row.state,
            resource: self.books[at].resource as u8,
            to: row.to,
            ..MigrationMoved::zeroed()
        };
        out.push(to, &event);
    }

    fn tell_migration(&mut self, env: &Envelope, at: usize, dropped: u8, out: &mut Outbox) {
        let row = self.handovers.rows[at];
        self.fold(row.record.ticket.get() ^ u64::from(row.state) << 56);
        let event = MigrationMoved {
            ticket: row.record.ticket,
            house: row.record.house,
            time_ns: self.time_ns.into(),
            credit_millicredits: row.record.credit_millicredits,
            instance: u32::from(row.instance).into(),
            state: row.state,
            leases: row.record.leases - dropped,
            dropped,
            to: row.to,
            ..MigrationMoved::zeroed()
        };
        out.push(env.session, &event);
    }

    /// Places that [`Machine::migration_row`] knows: proposals, migrations, advice.
    pub(super) fn migration_places(&self) -> usize {
        self.books.len() + HANDOVERS_MAX + self.book_of.len()
    }

    /// What is at a place.
    pub(super) fn migration_row(&self, at: usize) -> Option<MigrationRow> {
        let books = self.books.len();
        match at.checked_sub(books) {
            None => self.proposal_row(at),
            Some(at) if at < HANDOVERS_MAX => self.handover_row(at),
            Some(at) => self.advice_row(at - HANDOVERS_MAX),
        }
    }

    fn blank_row(&self, instance: u16) -> MigrationRow {
        let row = &self.instances[usize::from(instance)];
        MigrationRow {
            source: self.handovers.house.into(),
            baseline_vru: row.baseline_vru.map(U32::new),
            instance: u32::from(instance).into(),
            account: self.accounts[usize::from(row.account)].name,
            name: row.name,
            ..MigrationRow::zeroed()
        }
    }

    fn proposal_row(&self, at: usize) -> Option<MigrationRow> {
        let row = &self.handovers.proposals[at];
        let lease = self.proposed_lease(at)?;
        (PROPOSED..=DECLINED).contains(&row.state).then(|| MigrationRow {
            ticket: row.number.into(),
            since_ms: row.since_ms.into(),
            state: row.state,
            reason: 1,
            resource: self.books[at].resource as u8,
            short_vru: lease.waits().into(),
            to: row.to,
            ..self.blank_row(lease.instance)
        })
    }

    fn handover_row(&self, at: usize) -> Option<MigrationRow> {
        let row = &self.handovers.rows[at];
        let record = &row.record;
        let mut shown = self.blank_row(row.instance);
        if row.state == ARRIVED {
            // The instance may have gone since.
            shown.receipt = row.receipt(Verdict::Arrived).into();
            (shown.account, shown.name) = (record.account, record.name);
            shown.baseline_vru = record.baseline_vru;
        }
        (row.state != 0).then_some(MigrationRow {
            ticket: record.ticket,
            house: record.house,
            source: record.source,
            departure: record.departure,
            seal: record.seal,
            since_ms: row.since_ms.into(),
            credit_millicredits: record.credit_millicredits,
            vru_size: record.vru_size,
            lease_expires_ms: record.lease_expires_ms,
            lease_vru: record.lease_vru,
            lease_hold_ms: record.lease_hold_ms,
            entitled_vru: record.entitled_vru,
            bid_milli: record.bid_milli,
            lease_rent_ticks: record.lease_rent_ticks,
            lease_class: record.lease_class,
            lease_resource: record.lease_resource,
            lease_all_or_none: record.lease_all_or_none,
            leases: record.leases,
            state: row.state,
            to: row.to,
            ..shown
        })
    }

    /// A tier in which instances reserve little could be emptied: its smallest one goes first.
    fn advice_row(&self, tier: usize) -> Option<MigrationRow> {
        let books = self.book_of[tier].iter().filter_map(|&at| self.books.get(usize::from(at)));
        let mut books = books.filter(|book| book.reserved_vru > 0).peekable();
        books.peek()?;
        let little = |book: &super::tables::Book| {
            book.reserved_vru * 100 <= book.capacity_vru * EMPTY_PERCENT
        };
        let here = |row: &Instance| row.live == 1 && usize::from(row.tier) == tier;
        let memory = Resource::Memory as usize;
        let own = (0..=u16::MAX).zip(self.instances.iter()).filter(|(_, row)| here(row));
        let (instance, _) = own.min_by_key(|(at, row)| (row.baseline_vru[memory], *at))?;
        books.all(little).then(|| MigrationRow {
            state: ADVISED,
            reason: 2,
            ..self.blank_row(instance)
        })
    }

    fn book_of_instance(&self, instance: u16, resource: Resource) -> usize {
        let tier = self.instances[usize::from(instance)].tier;
        usize::from(self.book_of[usize::from(tier)][resource as usize])
    }

    /// True if tickets and records are those of instances here that are on their way: of a snapshot.
    pub(super) fn migrations_are_whole(&self) -> bool {
        let m = &self.handovers;
        let rows = m.rows.iter().filter(|row| row.state != 0);
        let moving = self.instances.iter().filter(|row| row.live > 1).count();
        rows.clone().filter(|row| row.state != ARRIVED).count() == moving
            && m.proposals.iter().all(|row| row.state <= DECLINED || row.state == WATCHED)
            && rows.clone().all(|row| {
                let live = self.instances.get(usize::from(row.instance)).map(|row| row.live);
                match row.state {
                    EXPECTED => live == Some(Instance::ARRIVING),
                    DEPARTING => {
                        live == Some(Instance::DEPARTING)
                            && usize::from(row.record.leases) <= MIGRATION_LEASES
                            && seal(&row.record) == row.record.seal.get()
                    }
                    ARRIVED => live.is_some() && seal(&row.record) == row.record.seal.get(),
                    _ => false,
                }
            })
    }
}
