//! Credits: accrual, payment for measured use, and the burst that lasts while they do.
//!
//! One VRU for one millisecond is one milli-credit, so accrual is `baseline x milliseconds`, less what
//! was in use of VRUs that are lent.
//! While an instance has a whole free credit its cap is the burst ceiling; without one it is the
//! baseline: only whole credits trade, so who has sold all of them is empty, whatever fraction is
//! left. A burst starts again only with `burst_resume_ms` of baseline in hand, so that a balance
//! near zero does not flap.

use super::Machine;
use super::command::{Envelope, Usage};
use super::config::MILLI;
use super::event::{Entitled, Outbox};
use super::ledger::pocket;
use super::tables::Instance;
use vendue_wire::code::{CancelReason, Resource, Side};
use vendue_wire::message::ANY;

impl Machine {
    /// Time passes: every instance earns its baseline, dated orders fall due, books change
    /// phase.
    pub(super) fn tick(&mut self, env: &Envelope, out: &mut Outbox) {
        let now_ms = self.now_ms();
        let elapsed_ms = if self.accrued_ms == 0 { 0 } else { now_ms - self.accrued_ms };
        self.accrued_ms = now_ms;
        for instance in 0..self.instances.len() {
            if self.instances[instance].live == 1 {
                self.accrue(env, instance as u16, elapsed_ms, out);
            }
        }
        self.accrue_pools(elapsed_ms);
        self.settle(out);
        self.tick_tokens(now_ms, out);
        self.tick_leases(now_ms, out);
        self.tick_lenders(elapsed_ms, out);
        while let Some(slot) = self.expiry.due(now_ms) {
            self.cancel_order(env, slot, CancelReason::Expired, out);
        }
        self.tick_exchanges(now_ms, out);
        self.tick_swarm(elapsed_ms, now_ms, out);
        self.tick_policies(env, now_ms, out);
        self.tick_migrations(now_ms, out);
        self.tick_phases(now_ms, out);
        self.fold(now_ms ^ self.trades);
    }

    fn accrue(&mut self, env: &Envelope, instance: u16, elapsed_ms: u64, out: &mut Outbox) {
        let row = self.instances[usize::from(instance)];
        for &resource in Resource::ALL {
            let baseline = u64::from(row.baseline_vru[resource as usize]);
            let book = self.book_of[usize::from(row.tier)][resource as usize];
            if baseline == 0 || book == u16::MAX {
                continue;
            }
            let cap = baseline * u64::from(self.genesis.credit_cap_s.get()) * MILLI;
            let balance = self.ledger.credit(instance, resource);
            let room = cap.saturating_sub(balance.free.saturating_add(balance.held));
            let room = room.min(self.ledger.credit_room(usize::from(book)));
            // What is rented out earns rent instead.
            let rented = self.rented_out(instance, resource, book);
            let earned = baseline.saturating_mul(elapsed_ms).saturating_sub(rented).min(room);
            if earned > 0 {
                self.ledger.issue(usize::from(book), instance, resource, earned);
            }
            self.expire_credits(env, (instance, resource, book), out);
            self.reassess(instance, resource, out);
        }
    }

    /// The daemon starts again: what happened while it was down was not measured.
    pub(super) fn restart(&mut self) {
        self.accrued_ms = self.now_ms();
        for round in &mut self.rounds {
            round.ended_ms = [self.accrued_ms; 2];
        }
        self.restart_exchanges();
        self.restart_leases();
        self.restart_policies();
        self.restart_rescue();
        self.restart_swaps();
    }

    /// The host measured use: pay for it. What free credits do not cover ends the burst.
    pub(super) fn usage(&mut self, m: &Usage, resource: Resource, out: &mut Outbox) {
        let Some(row) = self.instance(m.instance.get()) else { return };
        let book = self.book_of[usize::from(row.tier)][resource as usize];
        if book == u16::MAX {
            return;
        }
        let instance = m.instance.get() as u16;
        self.policy_used(instance, resource, m.used_millicredits.get());
        self.swap_used(pocket(instance, resource), m.used_millicredits.get());
        let used = self.beyond_leases(instance, resource, m.used_millicredits.get());
        let paid = self.ledger.burn(usize::from(book), instance, resource, used);
        self.fold(paid ^ u64::from(instance) << 48);
        self.note_use(instance, resource, book, used);
        self.reassess(instance, resource, out);
    }

    /// Starts or ends an instance's burst as its free credits say, and announces the new cap.
    #[inline(always)]
    pub(super) fn reassess(&mut self, instance: u16, resource: Resource, out: &mut Outbox) {
        if self.ledger.credits()[pocket(instance, resource)].flips() {
            self.flip(instance, resource, out);
        }
    }

    /// Flips a burst whose pocket says so.
    #[cold]
    pub(super) fn flip(&mut self, instance: u16, resource: Resource, out: &mut Outbox) {
        let row = &self.instances[usize::from(instance)];
        if row.is_limited() {
            // Its pocket says so at every change.
            let (low, high) = self.edges(row, resource);
            if (low..high).contains(&self.ledger.credit(instance, resource).free) {
                return;
            }
        }
        self.instances[usize::from(instance)].bursting ^= 1 << (resource as u16);
        self.find_edges(instance);
        self.announce(instance, resource, out);
    }

    /// Where an instance's burst flips: one that is on ends when less than one credit is free, one
    /// that is off starts with `burst_resume_ms` in hand.
    fn edges(&self, row: &Instance, resource: Resource) -> (u64, u64) {
        let resume_ms = u64::from(self.genesis.burst_resume_ms.get());
        let start = (u64::from(row.baseline_vru[resource as usize]) * resume_ms).max(MILLI);
        if row.is_bursting(resource) { (MILLI, u64::MAX) } else { (0, start) }
    }

    /// Computes anew where an instance's bursts flip, after its row changed. Of an account with
    /// limits every change of a pocket is looked at.
    pub(super) fn find_edges(&mut self, instance: u16) {
        for &resource in Resource::ALL {
            let row = &self.instances[usize::from(instance)];
            let (low, high) = if row.is_limited() { (0, 0) } else { self.edges(row, resource) };
            let pocket = self.ledger.pocket(Side::Sell, 0, instance, resource);
            pocket.stay_within(low, high);
        }
    }

    /// VRUs an instance may use of a resource now, and the size of one, if its tier has it.
    pub fn entitlement(&self, instance: u16, resource: Resource) -> Option<(u64, u64)> {
        let row = self.present(instance.into())?;
        let at = usize::from(self.book_of.get(usize::from(row.tier))?[resource as usize]);
        let book = self.books.get(at)?;
        let holding = self.holding(instance, resource);
        let own = row.baseline_vru[resource as usize] - holding.lent;
        let mut vru = book.uncapped_vru(own);
        if !row.is_bursting(resource) {
            let spent = u64::from(self.rules[at].spent_percent.get());
            vru = vru.min(u64::from(own) * spent / 100);
        }
        let vru = (vru + holding.above()).min(book.capacity_vru);
        Some((vru, book.vru_size))
    }

    /// Tells the later stages an instance's cap.
    pub(super) fn announce(&mut self, instance: u16, resource: Resource, out: &mut Outbox) {
        let Some((vru, vru_size)) = self.entitlement(instance, resource) else { return };
        let baseline = self.instances[usize::from(instance)].baseline_vru[resource as usize];
        // A resource the instance reserved nothing of is not limited through it.
        if vru == 0 {
            return;
        }
        self.fold(vru ^ u64::from(instance) << 32);
        let event = Entitled {
            vru: vru.into(),
            vru_size: vru_size.into(),
            baseline_vru: baseline.into(),
            instance: u32::from(instance).into(),
            resource: resource as u8,
            reserved: [0; 7],
        };
        out.push(ANY, &event);
    }

    /// Tells the later stages every tier's capacity, every account's cap, every instance and its
    /// caps: what start-up begins from.
    pub fn announce_all(&mut self, out: &mut Outbox) {
        let digest = self.digest;
        self.announce_caps(out);
        for book in 0..self.books.len() {
            if !self.is_spare(book) {
                self.announce_capacity(book, out);
            }
        }
        for instance in 0..self.instances.len() as u16 {
            if self.instances[usize::from(instance)].live != 0 {
                self.announce_created(instance, out);
                if self.instances[usize::from(instance)].is_frozen() {
                    self.announce_frozen(instance, out);
                }
                for &resource in Resource::ALL {
                    self.announce(instance, resource, out);
                    self.announce_weight(instance, resource, out);
                }
                self.announce_stored(instance, out);
                if self.watched(instance) != 0 {
                    self.announce_watched(instance, out);
                }
            }
        }
        self.digest = digest;
    }
}
