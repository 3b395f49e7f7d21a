//! Leases: VRUs rented above a baseline, and VRUs of a baseline lent to who rents them.
//!
//! What can be leased of a book is its capacity less what is reserved, plus what instances lend. Who
//! gets it is the [`rental`](super::rental) book's affair; here bids are checked, metered and paid for,
//! and what they get moves limits: an instance may use what it could without leases and what it leases,
//! less what it lends, and weighs so much more or less.
//!
//! **Money.** A bid is taken if its account can cover [`COVER_S`] seconds at the bid's own rent; so much
//! is held for it. Rent is metered to the millisecond and collected every [`PAY_MS`], when a lease moves and
//! when it ends, out of what is held, which is then filled up again. Where free funds do not fill it up,
//! the lease ends while it can still pay. Only if no tick comes for longer than funds last does the
//! house bear the rest. What leases cost goes to the house, which passes on what lent VRUs earned
//! ([`lending`](super::lending)).
//!
//! **No thrashing.** VRUs are held for at least [`HOLD_MIN_MS`], a lease is displaced only by the
//! configured margin, and an instance's bids, changes and loans of a resource are at most [`ACTS_MAX`] a
//! second. Who lends gets back at once, whatever is held.

use super::Machine;
use super::command::Envelope;
use super::config::{MILLI, RESOURCES};
use super::event::Outbox;
use super::handover::Terms;
use super::ledger::pocket;
use super::rental::{CLASSES, FIRM, Holding, Lease, WHOLE_MAX};
use vendue_wire::code::{LeaseClass, LeaseOutcome, Reject, Resource};
use vendue_wire::message::{
    ANY, Arrive, BidLease, Body, CancelLease, ChangeLease, EntitleInstance, LeaseMoved, Lend,
    SetReserveRent,
};

/// Seconds at its own rent that are held for a lease.
pub const COVER_S: u128 = 10;
/// Rent is collected so often, milliseconds.
pub const PAY_MS: u64 = 5000;
/// Leases are firm for at least so long, milliseconds.
pub const HOLD_MIN_MS: u32 = 1000;
/// Leases are firm for at most so long, milliseconds: so long the first class may have to wait.
pub const HOLD_MAX_MS: u32 = 60_000;
/// Bids, changes and loans of an instance's resource in a second at most.
pub const ACTS_MAX: u32 = 8;
/// Leases of an instance's resource at most.
pub const EACH_MAX: u32 = 64;
/// Leases of other tiers' storage of an instance at most: its disks are in one place.
pub const STORAGE_MAX: u32 = 1;

const _: () = assert!(PAY_MS < COVER_S as u64 * 1000, "what is held lasts until it is filled up");

/// A bid as it enters a book, whoever makes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bid {
    pub instance: u16,
    pub resource: Resource,
    pub class: LeaseClass,
    pub vru: u64,
    pub rent: u32,
    /// 0: the least.
    pub hold_ms: u32,
    pub expires_ms: u64,
    /// 1: all or nothing.
    pub whole: u8,
    /// Number and slot of the session that bids.
    pub session: (u64, u16),
    pub client_id: u64,
    /// The objective that bids, its slot plus one; 0: none.
    pub objective: u32,
    /// For a storage class: the tier whose it is.
    pub storage: Option<u16>,
}

impl Machine {
    /// Reckons a book's rents up to now, before what they are reckoned on changes.
    fn meter(&mut self, book: usize) {
        let now_ms = self.now_ms();
        self.rentals.books[book].meter(now_ms);
    }

    fn lease_resource(&self, slot: u32) -> Resource {
        self.books[usize::from(self.rentals.leases[slot as usize].book)].resource
    }

    /// VRUs of a book that can be leased.
    pub fn lease_supply(&self, at: usize) -> u64 {
        let book = &self.books[at];
        book.capacity_vru - book.reserved_vru - self.tokens.redeemed(at)
            + self.rentals.books[at].lent
    }

    /// What an instance leases and lends of a resource.
    pub fn holding(&self, instance: u16, resource: Resource) -> &Holding {
        &self.rentals.holdings[pocket(instance, resource)]
    }

    // ---- requests ------------------------------------------------------------------------

    pub(super) fn bid_lease(
        &mut self,
        env: &Envelope,
        m: &BidLease,
        (resource, class): (Resource, LeaseClass),
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let baseline = self.acting_row(env, m.instance.get())?.baseline_vru[resource as usize];
        let instance = m.instance.get() as u16;
        let amount = u64::from(m.amount.get());
        let storage = (m.storage == 1).then_some(m.tier.get());
        let vru = match (m.percent, storage) {
            (0, _) => amount,
            (_, None) => u64::from(baseline) * amount / 100,
            (_, Some(tier)) => self.storage_share(instance, tier, baseline, amount)?,
        };
        let slot = self.enter_lease(&Bid {
            instance,
            resource,
            class,
            vru,
            rent: m.rent_ticks.get(),
            hold_ms: m.hold_ms.get(),
            expires_ms: m.expires_at_ms.get(),
            whole: m.all_or_none,
            session: (self.sessions[env.session as usize].number, env.session as u16),
            client_id,
            objective: 0,
            storage,
        })?;
        self.use_client_id(env, client_id);
        self.report_done(env, BidLease::KIND, client_id, self.rentals.handle(slot), out);
        self.clear_leases(self.rentals.leases[slot as usize].book.into(), out);
        self.tell_waiting(slot, out);
        Ok(())
    }

    /// Puts a bid into its book, which is then to be cleared: the lease's slot.
    pub(super) fn enter_lease(&mut self, bid: &Bid) -> Result<u32, Reject> {
        let Bid { instance, resource, class, expires_ms, .. } = *bid;
        let (book, at, most) = match bid.storage {
            None => (self.instance_book(instance, resource)?, pocket(instance, resource), EACH_MAX),
            Some(tier) => {
                (self.storage_book(instance, tier)?, self.rentals.storage_of(instance), STORAGE_MAX)
            }
        };
        self.check_live(self.books[book].tier)?;
        let (wanted, rent) = self.check_lease(book, class, bid.vru, bid.rent)?;
        // Of what it reserved nothing of it is not held to a limit either.
        if self.instances[usize::from(instance)].baseline_vru[resource as usize] == 0 {
            return Err(Reject::BadQuantity);
        }
        let hold_ms = if bid.hold_ms == 0 { HOLD_MIN_MS } else { bid.hold_ms };
        if !(HOLD_MIN_MS..=HOLD_MAX_MS).contains(&hold_ms) {
            return Err(Reject::BadField);
        }
        if expires_ms != 0 && expires_ms <= self.now_ms() {
            return Err(Reject::BadExpiry);
        }
        self.check_entitled(at, class, u64::from(wanted))?;
        self.check_act(at)?;
        let (_, wholes) = self.rentals.books[book].leases(class as usize);
        let too_many = bid.whole == 1 && wholes >= WHOLE_MAX;
        if too_many || self.rentals.holdings[at].count >= most || !self.rentals.has_room() {
            return Err(Reject::LeasesFull);
        }
        let cover = self.cover(book, wanted, rent)?;
        let account = self.owner[usize::from(instance)];
        let free = self.ledger.funds()[usize::from(account)].balance.free;
        if free.min(self.rescue_funds(bid.objective)) < cover {
            return Err(Reject::InsufficientFunds);
        }
        self.act(at);
        self.ledger.hold_funds(account, cover);
        self.meter(book);
        let row = Lease {
            held_micro: cover,
            client_id: bid.client_id,
            session: bid.session.0,
            slot: bid.session.1,
            expires_ms,
            hold_ms,
            wanted,
            instance,
            book: book as u16,
            rent,
            class: class as u8,
            whole: bid.whole,
            objective: bid.objective,
            storage: bid.storage.is_some().into(),
            ..Lease::default()
        };
        self.rentals.books[book].stirred = true;
        Ok(self.rentals.insert(row, resource as usize))
    }

    pub(super) fn change_lease(
        &mut self,
        env: &Envelope,
        m: &ChangeLease,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let slot = self.acting_lease(env, m.handle.get())?;
        let row = &self.rentals.leases[slot as usize];
        // What a policy's lease holds comes out of its budget.
        if row.policy > 0 && env.session != self.broker() {
            return Err(Reject::NotPermitted);
        }
        if row.objective > 0 {
            return Err(Reject::LeaseOfRescue);
        }
        self.alter_lease(slot, m.vru.get().into(), m.rent_ticks.get())?;
        self.use_client_id(env, client_id);
        self.report_done(env, ChangeLease::KIND, client_id, m.handle.get(), out);
        self.clear_leases(self.rentals.leases[slot as usize].book.into(), out);
        self.tell_lease(slot, LeaseOutcome::Changed, out);
        self.tell_waiting(slot, out);
        Ok(())
    }

    /// Gives a lease other terms; its book is then to be cleared.
    pub(super) fn alter_lease(&mut self, slot: u32, vru: u64, rent: u32) -> Result<(), Reject> {
        let row = self.rentals.leases[slot as usize];
        let (book, instance) = (usize::from(row.book), row.instance);
        let resource = self.lease_resource(slot);
        let class = LeaseClass::from_u8(row.class).ok_or(Reject::UnknownLease)?;
        let (wanted, rent) = self.check_lease(book, class, vru, rent)?;
        let more = u64::from(wanted.saturating_sub(row.wanted));
        let at = self.rentals.holding_of(slot, resource as usize);
        self.check_entitled(at, class, more)?;
        self.check_act(at)?;
        let cover = self.cover(book, wanted, rent)?;
        let account = self.owner[usize::from(instance)];
        let free = self.ledger.funds()[usize::from(account)].balance.free;
        let owes = self.owes(slot);
        let own = u128::from(free) + u128::from(row.held_micro);
        if own.min(self.rescue_funds(row.objective).into()) < u128::from(cover) + owes {
            return Err(Reject::InsufficientFunds);
        }
        self.act(at);
        self.meter(book);
        self.rentals.change(slot, resource as usize, wanted, rent);
        self.pay(slot);
        let held = &mut self.rentals.leases[slot as usize].held_micro;
        let before = std::mem::replace(held, cover);
        self.ledger.release_funds(account, before.saturating_sub(cover));
        self.ledger.hold_funds(account, cover.saturating_sub(before));
        self.rentals.books[book].stirred = true;
        Ok(())
    }

    pub(super) fn cancel_lease(
        &mut self,
        env: &Envelope,
        m: &CancelLease,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let slot = self.acting_lease(env, m.handle.get())?;
        self.use_client_id(env, client_id);
        let book = usize::from(self.rentals.leases[slot as usize].book);
        let paid = self.end_lease(slot, LeaseOutcome::Cancelled, out);
        self.report_done(env, CancelLease::KIND, client_id, paid, out);
        self.clear_leases(book, out);
        Ok(())
    }

    pub(super) fn lend(
        &mut self,
        env: &Envelope,
        m: &Lend,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let baseline = self.acting_row(env, m.instance.get())?.baseline_vru[resource as usize];
        let instance = m.instance.get() as u16;
        let book = self.instance_book(instance, resource)?;
        let (vru, before) = (m.vru.get(), self.holding(instance, resource).lent);
        // All of it would leave nothing to limit the instance to.
        if vru > 0 && vru >= baseline {
            return Err(Reject::BadQuantity);
        }
        // Those that tasks have are not idle.
        let (tasks, lendable) = self.granted(instance, resource as usize);
        if vru > before && vru - before > lendable - tasks {
            return Err(Reject::InsufficientCapacity);
        }
        if vru > before {
            self.check_act(pocket(instance, resource))?;
            self.act(pocket(instance, resource));
        }
        self.use_client_id(env, client_id);
        self.report_done(env, Lend::KIND, client_id, before.into(), out);
        self.lend_vru(instance, resource, book, vru);
        if vru > before {
            self.tell_limit(instance, resource, out);
        }
        self.clear_leases(book, out);
        if vru < before {
            self.tell_limit(instance, resource, out);
        }
        Ok(())
    }

    pub(super) fn set_reserve_rent(
        &mut self,
        env: &Envelope,
        m: &SetReserveRent,
        class: LeaseClass,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let book = usize::from(m.book.get());
        let rents = 1..=self.books.get(book).ok_or(Reject::UnknownBook)?.price_max.into();
        let rent = m.rent_ticks.get();
        if !rents.contains(&rent) {
            return Err(Reject::BadPrice);
        }
        self.use_client_id(env, client_id);
        self.meter(book);
        let reserve = &mut self.rentals.books[book].meters[class as usize].reserve;
        let before = std::mem::replace(reserve, rent);
        self.report_done(env, SetReserveRent::KIND, client_id, before.into(), out);
        for slot in 0..self.rentals.used() {
            let row = &self.rentals.leases[slot as usize];
            let here = (usize::from(row.book), row.class) == (book, class as u8);
            if row.live == 1 && here && u32::from(row.rent) < rent {
                self.end_lease(slot, LeaseOutcome::BelowReserve, out);
            }
        }
        self.clear_leases(book, out);
        Ok(())
    }

    pub(super) fn entitle_instance(
        &mut self,
        env: &Envelope,
        m: &EntitleInstance,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        self.instance(m.instance.get()).ok_or(Reject::UnknownInstance)?;
        let instance = m.instance.get() as u16;
        let book = self.instance_book(instance, resource)?;
        self.use_client_id(env, client_id);
        let at = pocket(instance, resource);
        let entitled = &mut self.rentals.holdings[at].entitled;
        let before = std::mem::replace(entitled, m.vru.get());
        self.report_done(env, EntitleInstance::KIND, client_id, before.into(), out);
        while self.rentals.holdings[at].sla_wanted > u64::from(m.vru.get()) {
            let is_sla = |&slot: &u32| self.rentals.leases[slot as usize].class == 0;
            let newest = self.rentals.newest(at).find(is_sla);
            let newest = newest.expect("what is wanted some lease wants");
            self.end_lease(newest, LeaseOutcome::Revoked, out);
        }
        self.clear_leases(book, out);
        Ok(())
    }

    // ---- checks --------------------------------------------------------------------------

    fn acting_lease(&self, env: &Envelope, handle: u64) -> Result<u32, Reject> {
        let slot = self.rentals.find(handle);
        let row = slot.map(|slot| self.rentals.leases[slot as usize]);
        let instance = row.map_or(ANY, |row| row.instance.into());
        match self.acting_row(env, instance) {
            Ok(_) => slot.ok_or(Reject::UnknownLease),
            Err(Reject::NotPermitted) => Err(Reject::NotPermitted),
            Err(_) => Err(Reject::UnknownLease),
        }
    }

    /// VRUs and rent that a lease of a book may have.
    fn check_lease(
        &self,
        at: usize,
        class: LeaseClass,
        vru: u64,
        rent: u32,
    ) -> Result<(u32, u16), Reject> {
        let book = &self.books[at];
        if rent == 0 || rent > book.price_max.into() {
            return Err(Reject::BadPrice);
        }
        if vru == 0 || vru > book.capacity_vru {
            return Err(Reject::BadQuantity);
        }
        if rent < self.rentals.books[at].meters[class as usize].reserve {
            return Err(Reject::RentTooLow);
        }
        Ok((u32::try_from(vru).map_err(|_| Reject::BadQuantity)?, rent as u16))
    }

    fn check_entitled(&self, holding: usize, class: LeaseClass, more: u64) -> Result<(), Reject> {
        let holding = &self.rentals.holdings[holding];
        let within = holding.sla_wanted + more <= u64::from(holding.entitled);
        if class == LeaseClass::Sla && !within { Err(Reject::NotEntitled) } else { Ok(()) }
    }

    fn check_act(&self, holding: usize) -> Result<(), Reject> {
        let holding = &self.rentals.holdings[holding];
        let full = holding.second == self.now_ms() / 1000 && holding.acts >= ACTS_MAX;
        if full { Err(Reject::TooOften) } else { Ok(()) }
    }

    fn act(&mut self, holding: usize) {
        let second = self.now_ms() / 1000;
        let holding = &mut self.rentals.holdings[holding];
        let acts = if holding.second == second { holding.acts } else { 0 };
        (holding.second, holding.acts) = (second, acts + 1);
    }

    // ---- money ---------------------------------------------------------------------------

    /// Micro-units that are held for a lease.
    pub(super) fn cover(&self, book: usize, wanted: u32, rent: u16) -> Result<u64, Reject> {
        let a_second = u128::from(self.books[book].tick_micro) * u128::from(rent);
        u64::try_from(a_second * u128::from(wanted) * COVER_S).map_err(|_| Reject::Overflow)
    }

    /// Micro-units that a lease owes now, rounded up.
    pub(super) fn owes(&self, slot: u32) -> u128 {
        let row = &self.rentals.leases[slot as usize];
        let meter = &self.rentals.books[usize::from(row.book)].meters[usize::from(row.class)];
        let elapsed_ms = u128::from(self.now_ms().saturating_sub(meter.until_ms));
        let tick = u128::from(self.books[usize::from(row.book)].tick_micro);
        let index = meter.index + u128::from(meter.rent) * tick * elapsed_ms;
        let since = u128::from(row.granted).saturating_mul(index - row.from_index);
        row.owed_milli.saturating_add(since).div_ceil(u128::from(MILLI))
    }

    /// Collects what a lease owes as it was reckoned last: from what is held, then from free funds.
    fn pay(&mut self, slot: u32) {
        let row = &mut self.rentals.leases[slot as usize];
        let account = self.owner[usize::from(row.instance)];
        let owed = u64::try_from(row.owed_milli / u128::from(MILLI)).unwrap_or(u64::MAX);
        row.owed_milli %= u128::from(MILLI);
        let held = owed.min(row.held_micro);
        // Beyond what is held no policy's or rescue's budget can be spent.
        let own = row.policy > 0 || row.objective > 0;
        let more = if own { 0 } else { owed - held };
        let free = more.min(self.ledger.funds()[usize::from(account)].balance.free);
        row.held_micro -= held;
        row.paid_micro += held + free;
        let objective = row.objective;
        self.ledger.pay_rent(account, held, free);
        self.rescue_paid(objective, held);
    }

    /// Has all leases of a book pay what they owe.
    pub(super) fn collect_rents(&mut self, book: usize) {
        self.meter(book);
        for slot in 0..self.rentals.used() {
            let row = &self.rentals.leases[slot as usize];
            if row.live == 1 && usize::from(row.book) == book {
                self.rentals.touch(slot);
                self.pay(slot);
            }
        }
    }

    /// Fills up what is held for a lease. False if its account cannot.
    fn fill_up(&mut self, slot: u32) -> bool {
        let row = self.rentals.leases[slot as usize];
        let account = self.owner[usize::from(row.instance)];
        let Ok(cover) = self.cover(row.book.into(), row.wanted, row.rent) else { return false };
        let lack = cover.saturating_sub(row.held_micro);
        let free = self.ledger.funds()[usize::from(account)].balance.free;
        if free < lack || self.rescue_funds(row.objective) < cover {
            return false;
        }
        if !self.policy_holds(row.policy, lack) {
            return false;
        }
        self.ledger.hold_funds(account, lack);
        self.rentals.leases[slot as usize].held_micro += lack;
        true
    }

    // ---- what happens --------------------------------------------------------------------

    /// Ends a lease and returns the micro-units that it paid in all. Its book is to be cleared.
    pub(super) fn end_lease(&mut self, slot: u32, outcome: LeaseOutcome, out: &mut Outbox) -> u64 {
        let resource = self.lease_resource(slot);
        let book = usize::from(self.rentals.leases[slot as usize].book);
        self.meter(book);
        self.rentals.touch(slot);
        self.pay(slot);
        let row = &mut self.rentals.leases[slot as usize];
        let held = std::mem::take(&mut row.held_micro);
        let Lease { instance, paid_micro, policy, storage, .. } = *row;
        self.policy_lease_ended(policy, held);
        self.ledger.release_funds(self.owner[usize::from(instance)], held);
        self.tell_lease(slot, outcome, out);
        self.rescue_ended(slot, outcome, out);
        if storage == 1 {
            self.fold_storage(instance);
        }
        let holding = self.rentals.holding_of(slot, resource as usize);
        self.rentals.remove(slot, resource as usize);
        self.rentals.books[book].stirred = true;
        if outcome != LeaseOutcome::InstanceRemoved {
            self.tell_holding(holding, out);
        }
        paid_micro
    }

    /// Clears a book and tells who moved.
    pub(super) fn clear_leases(&mut self, book: usize, out: &mut Outbox) {
        let (supply, resource) = (self.lease_supply(book), self.books[book].resource);
        let now_ms = self.now_ms();
        self.rentals.books[book].stirred = false;
        self.rentals.books[book].meter(now_ms);
        self.rentals.clear(book, resource as usize, supply, now_ms, PAY_MS);
        assert!(self.rentals.books[book].granted <= supply, "more is leased than there is");
        self.tell_moved(out);
    }

    /// What a capacity or a reservation moved: clears the books if anybody leases there.
    pub(super) fn reclear_leases(&mut self, books: &[u16; RESOURCES], out: &mut Outbox) {
        for &book in books.iter().filter(|&&book| book != u16::MAX) {
            let rental = &self.rentals.books[usize::from(book)];
            if rental.stirred || (0..CLASSES).any(|class| rental.leases(class).0 > 0) {
                self.clear_leases(book.into(), out);
            }
        }
    }

    fn tell_moved(&mut self, out: &mut Outbox) {
        let mut at = 0;
        while let Some((slot, moved)) = self.rentals.next_moved(at) {
            at += 1;
            let Some((had, why)) = moved else { continue };
            self.pay(slot);
            let granted = self.rentals.leases[slot as usize].granted;
            let lost = LeaseOutcome::from_u8(why).unwrap_or(LeaseOutcome::Withdrawn);
            let outcome = if granted > had { LeaseOutcome::Granted } else { lost };
            // A change says so itself.
            if granted > had || granted < had && lost != LeaseOutcome::Granted {
                self.tell_lease(slot, outcome, out);
            }
            if granted != had {
                let resource = self.lease_resource(slot) as usize;
                self.rentals.shift(self.rentals.holding_of(slot, resource));
            }
        }
        self.rentals.forget_moved();
        while let Some(holding) = self.rentals.next_shifted() {
            self.tell_holding(holding, out);
        }
    }

    /// Says why a lease waits, if it does.
    pub(super) fn tell_waiting(&mut self, slot: u32, out: &mut Outbox) {
        let row = &self.rentals.leases[slot as usize];
        if row.waits() > 0 {
            let supply = self.lease_supply(row.book.into());
            let why = self.rentals.why_waits(slot, supply);
            self.tell_lease(slot, why, out);
        }
    }

    fn tell_lease(&mut self, slot: u32, outcome: LeaseOutcome, out: &mut Outbox) {
        let row = &self.rentals.leases[slot as usize];
        let meter = &self.rentals.books[usize::from(row.book)].meters[usize::from(row.class)];
        let to = self.addressee(row.slot, row.session);
        let report = LeaseMoved {
            handle: self.rentals.handle(slot).into(),
            client_id: row.client_id.into(),
            time_ns: self.time_ns.into(),
            paid_micro: row.paid_micro.into(),
            instance: u32::from(row.instance).into(),
            granted_vru: if outcome.is_end() { 0 } else { row.granted }.into(),
            wanted_vru: row.wanted.into(),
            rent_ticks: meter.rent.into(),
            book: row.book.into(),
            class: row.class,
            outcome: outcome as u8,
            reserved: [0; 4],
        };
        self.fold(u64::from(row.granted) << 32 ^ u64::from(slot) << 8 ^ outcome as u64);
        out.push(to, &report);
    }

    /// An instance has other VRUs: its limit and weight are others, or its storage is.
    fn tell_holding(&mut self, holding: usize, out: &mut Outbox) {
        match holding.checked_sub(self.rentals.storage_of(0)) {
            Some(instance) => self.announce_stored(instance as u16, out),
            None => {
                let resource = Resource::ALL[holding % RESOURCES];
                self.tell_limit((holding / RESOURCES) as u16, resource, out);
            }
        }
    }

    /// An instance's limit and weight are others.
    pub(super) fn tell_limit(&mut self, instance: u16, resource: Resource, out: &mut Outbox) {
        self.announce(instance, resource, out);
        self.weigh(instance, resource, out);
    }

    // ---- time ----------------------------------------------------------------------------

    /// Time passes: objectives bid, leases expire, pay, and may be displaced once their hold is over.
    pub(super) fn tick_leases(&mut self, now_ms: u64, out: &mut Outbox) {
        let rescues = self.tick_rescue(now_ms, out);
        if !rescues && self.rentals.due(now_ms).is_none() {
            return;
        }
        while let Some(slot) = self.rentals.due(now_ms) {
            self.lease_due(slot, now_ms, out);
        }
        self.tell_moved(out);
        self.clear_stirred(out);
        if rescues {
            self.tell_rescues(out);
        }
    }

    /// Clears what is to be cleared.
    pub(super) fn clear_stirred(&mut self, out: &mut Outbox) {
        for book in 0..self.books.len() {
            if self.rentals.books[book].stirred {
                self.clear_leases(book, out);
            }
        }
    }

    fn lease_due(&mut self, slot: u32, now_ms: u64, out: &mut Outbox) {
        let row = self.rentals.leases[slot as usize];
        let book = usize::from(row.book);
        self.rentals.books[book].meter(now_ms);
        if row.expires_ms != 0 && row.expires_ms <= now_ms {
            self.end_lease(slot, LeaseOutcome::Expired, out);
            return;
        }
        if row.place == FIRM && row.firm_until_ms <= now_ms {
            self.rentals.loosen(slot);
            self.rentals.books[book].stirred = true;
        }
        if row.granted > 0 && row.pays_ms <= now_ms {
            self.rentals.touch(slot);
            self.pay(slot);
            if !self.fill_up(slot) {
                self.end_lease(slot, LeaseOutcome::OutOfFunds, out);
                return;
            }
            self.rentals.leases[slot as usize].pays_ms = now_ms + PAY_MS;
        }
        self.rentals.arm(slot);
    }

    /// The daemon starts again: what leases delivered while it was down was not measured, so nothing is
    /// due for it.
    pub(super) fn restart_leases(&mut self) {
        let now_ms = self.now_ms();
        let meters = self.rentals.books.iter_mut().flat_map(|book| &mut book.meters);
        meters.for_each(|meter| meter.until_ms = now_ms);
        self.rentals.holdings.iter_mut().for_each(|row| row.since_ms = now_ms);
    }

    /// Milli-credits of reported use beyond what leases covered.
    pub(super) fn beyond_leases(&mut self, instance: u16, resource: Resource, used: u64) -> u64 {
        let now_ms = self.now_ms();
        if resource == Resource::BlockIo {
            self.fold_storage(instance);
        }
        let holding = &mut self.rentals.holdings[pocket(instance, resource)];
        holding.cover(now_ms);
        used.saturating_sub(std::mem::take(&mut holding.covered_milli))
    }

    /// A new instance leases and lends nothing.
    pub(super) fn launch_leases(&mut self, instance: u16) {
        for &resource in Resource::ALL {
            let since_ms = self.now_ms();
            let fresh = Holding { since_ms, ..Holding::default() };
            self.rentals.holdings[pocket(instance, resource)] = fresh;
        }
        let at = self.rentals.storage_of(instance);
        self.rentals.holdings[at] = Holding { since_ms: self.now_ms(), ..Holding::default() };
    }

    /// An instance goes: its leases end, and what it lent is its tier's again.
    pub(super) fn dissolve_leases(&mut self, instance: u16, out: &mut Outbox) {
        let storage = self.rentals.storage_of(instance);
        while let Some(slot) = self.rentals.newest_of(storage) {
            let book = usize::from(self.rentals.leases[slot as usize].book);
            self.end_lease(slot, LeaseOutcome::InstanceRemoved, out);
            self.clear_leases(book, out);
        }
        self.rentals.holdings[storage] = Holding::default();
        for &resource in Resource::ALL {
            let at = pocket(instance, resource);
            let Ok(book) = self.instance_book(instance, resource) else { continue };
            while let Some(slot) = self.rentals.newest_of(at) {
                self.end_lease(slot, LeaseOutcome::InstanceRemoved, out);
            }
            self.end_loan(instance, resource, book, out);
            self.rentals.holdings[at] = Holding::default();
        }
    }

    // ---- migration -----------------------------------------------------------------------

    /// Writes the terms of an instance's leases into its record, oldest first. False if they are more
    /// than it has places for.
    pub(super) fn lease_terms(
        &self,
        instance: u16,
        resource: Resource,
        record: &mut Arrive,
    ) -> bool {
        let at = pocket(instance, resource);
        // They are linked from the newest on.
        (0..self.holding(instance, resource).count as usize).rev().all(|nth| {
            let slot = self.rentals.newest(at).nth(nth).expect("as many as are counted");
            let row = &self.rentals.leases[slot as usize];
            let terms = Terms {
                expires_ms: row.expires_ms,
                vru: row.wanted,
                hold_ms: row.hold_ms,
                rent: row.rent,
                class: row.class,
                resource: resource as u8,
                whole: row.whole,
            };
            terms.add(record)
        })
    }

    /// Bids for an instance what its record says that it leased elsewhere; nobody's session is told.
    /// False if that cannot be.
    pub(super) fn restore_lease(&mut self, instance: u16, m: &Terms, out: &mut Outbox) -> bool {
        let Some(&resource) = Resource::ALL.get(usize::from(m.resource)) else { return false };
        let Some(class) = LeaseClass::from_u8(m.class) else { return false };
        let Ok(book) = self.instance_book(instance, resource) else { return false };
        let baseline = self.instances[usize::from(instance)].baseline_vru[resource as usize];
        let late = m.expires_ms != 0 && m.expires_ms <= self.now_ms();
        let held = (HOLD_MIN_MS..=HOLD_MAX_MS).contains(&m.hold_ms);
        let (_, wholes) = self.rentals.books[book].leases(class as usize);
        let full = m.whole == 1 && wholes >= WHOLE_MAX || !self.rentals.has_room();
        let Ok((wanted, rent)) = self.check_lease(book, class, m.vru.into(), m.rent.into()) else {
            return false;
        };
        let Ok(cover) = self.cover(book, wanted, rent) else { return false };
        let account = self.owner[usize::from(instance)];
        let poor = self.ledger.funds()[usize::from(account)].balance.free < cover;
        let at = pocket(instance, resource);
        let entitled = self.check_entitled(at, class, wanted.into()).is_ok();
        if baseline == 0 || late || !held || full || poor || !entitled {
            return false;
        }
        self.ledger.hold_funds(account, cover);
        self.meter(book);
        let row = Lease {
            held_micro: cover,
            // No session has this place.
            slot: u16::MAX,
            expires_ms: m.expires_ms,
            hold_ms: m.hold_ms,
            wanted,
            instance,
            book: book as u16,
            rent,
            class: class as u8,
            whole: m.whole,
            ..Lease::default()
        };
        let slot = self.rentals.insert(row, resource as usize);
        self.clear_leases(book, out);
        self.tell_waiting(slot, out);
        true
    }
}
