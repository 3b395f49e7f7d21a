//! Tiers at run time: an operator changes, drains, resumes and deletes them, and defines new ones.
//!
//! Nothing is allocated after start-up, so a tier is defined in the place of a *spare* one: the last
//! tiers of the configuration may be spare, with their books made but halted. A tier that is
//! *draining* takes no new instances, no orders and no swapped capacity; what it has may be swapped
//! away. Drained and without instances it can be deleted, which makes it spare again.

use super::Machine;
use super::admin::check_name;
use super::command::{Envelope, SpareTiers};
use super::config::{BoundsError, RESOURCES, range};
use super::event::Outbox;
use super::tables::Book;
use vendue_wire::code::{Phase, Reject};
use vendue_wire::message::{
    Body, SetTier, TIER_CHANGE, TIER_DEFINE, TIER_DRAIN, TIER_RESUME, U32, U64,
};

/// What a tier is. The numbers are those of [`vendue_wire::message::TierRow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TierState {
    /// In use.
    Live = 0,
    /// On its way out.
    Draining = 1,
    /// A place for one.
    Spare = 2,
}

impl TierState {
    /// The state with this number.
    pub fn from_u8(value: u8) -> Option<TierState> {
        [TierState::Live, TierState::Draining, TierState::Spare].get(usize::from(value)).copied()
    }
}

impl Machine {
    /// Start-up: the last tiers are spare.
    pub(super) fn spare_tiers(&mut self, m: &SpareTiers) -> Result<(), BoundsError> {
        range("from", m.from.get().into(), 1, (self.book_of.len() as u64).saturating_sub(1))?;
        self.first_spare = Some(m.from.get());
        for tier in usize::from(m.from.get())..self.book_of.len() {
            self.tier_states[tier] = TierState::Spare;
        }
        for at in 0..self.books.len() {
            if self.is_spare(at) {
                let book = &mut self.books[at];
                (book.phase, book.schedule.followed) = (Phase::Halted, false);
                self.told_vru[at] = 0;
            }
        }
        Ok(())
    }

    /// What a tier is; spare if there is none.
    pub fn tier_state(&self, tier: u16) -> TierState {
        self.tier_states.get(usize::from(tier)).copied().unwrap_or(TierState::Spare)
    }

    /// The first tier that was spare at start-up, if one was.
    pub fn first_spare(&self) -> Option<u16> {
        self.first_spare
    }

    /// True if a book is of a spare tier.
    pub(super) fn is_spare(&self, at: usize) -> bool {
        self.tier_state(self.books[at].tier) == TierState::Spare
    }

    /// Refuses what only a tier in use takes.
    pub(super) fn check_live(&self, tier: u16) -> Result<(), Reject> {
        match self.tier_state(tier) {
            TierState::Live => Ok(()),
            TierState::Draining => Err(Reject::WrongTierState),
            TierState::Spare => Err(Reject::UnknownTier),
        }
    }

    pub(super) fn set_tier(
        &mut self,
        env: &Envelope,
        m: &SetTier,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let tier = m.tier.get();
        let books = *self.book_of.get(usize::from(tier)).ok_or(Reject::UnknownTier)?;
        let state = self.tier_state(tier);
        if (state == TierState::Spare) != (m.act == TIER_DEFINE) {
            return Err(if m.act == TIER_DEFINE {
                Reject::WrongTierState
            } else {
                Reject::UnknownTier
            });
        }
        let live = state == TierState::Live;
        match m.act {
            TIER_DEFINE => self.check_definition(m, &books)?,
            TIER_CHANGE => self.check_capacities(&books, m.capacity_vru)?,
            TIER_DRAIN if !live => return Err(Reject::WrongTierState),
            TIER_RESUME if live => return Err(Reject::WrongTierState),
            TIER_DRAIN | TIER_RESUME => {}
            _ if live => return Err(Reject::WrongTierState),
            _ if self.instances.iter().any(|row| row.live != 0 && row.tier == tier) => {
                return Err(Reject::NotEmpty);
            }
            // Instances of other tiers may have its storage.
            _ if self.rents_out(&books) => return Err(Reject::NotEmpty),
            _ if books.iter().any(|&at| at != u16::MAX && self.tokens.pledged(at.into()) > 0) => {
                return Err(Reject::NotEmpty);
            }
            _ => {}
        }
        self.use_client_id(env, client_id);
        self.fold(u64::from(m.act) << 32 | u64::from(tier));
        match m.act {
            TIER_DEFINE => self.define_tier(m, &books, out),
            TIER_CHANGE => self.take_capacities(&books, m.capacity_vru),
            TIER_DRAIN => {
                self.tier_states[usize::from(tier)] = TierState::Draining;
                self.each_phase(&books, Some(Phase::Halted), out);
            }
            TIER_RESUME => {
                self.tier_states[usize::from(tier)] = TierState::Live;
                self.each_phase(&books, None, out);
            }
            _ => self.delete_tier(tier, &books),
        }
        self.reclear_leases(&books, out);
        self.tell_resized(out);
        self.report_done(env, SetTier::KIND, client_id, tier.into(), out);
        Ok(())
    }

    /// Every resource of the place gets a capacity, no other; the name is new.
    fn check_definition(&self, m: &SetTier, books: &[u16; RESOURCES]) -> Result<(), Reject> {
        let used = self.books.iter().filter(|book| self.tier_state(book.tier) != TierState::Spare);
        check_name(&m.name, used.map(|book| &book.tier_name))?;
        for ((book, capacity), size) in books.iter().zip(m.capacity_vru).zip(m.vru_size) {
            let has = *book != u16::MAX;
            if has != (capacity.get() > 0) || !has && size.get() > 0 {
                return Err(Reject::InsufficientCapacity);
            }
            if size.get() > VRU_SIZE_MAX {
                return Err(Reject::Overflow);
            }
        }
        Ok(())
    }

    /// Capacities that are given cover what is reserved.
    fn check_capacities(
        &self,
        books: &[u16; RESOURCES],
        capacities: [U32; RESOURCES],
    ) -> Result<(), Reject> {
        for (at, capacity) in given(books, capacities.map(|vru| vru.get().into())) {
            match self.books.get(at) {
                None => return Err(Reject::UnknownBook),
                Some(_) if self.spoken_for(at) > capacity => {
                    return Err(Reject::InsufficientCapacity);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn take_capacities(&mut self, books: &[u16; RESOURCES], capacities: [U32; RESOURCES]) {
        for (at, capacity) in given(books, capacities.map(|vru| vru.get().into())) {
            self.fold(capacity);
            self.books[at].capacity_vru = capacity;
        }
    }

    fn define_tier(&mut self, m: &SetTier, books: &[u16; RESOURCES], out: &mut Outbox) {
        self.take_capacities(books, m.capacity_vru);
        for (at, size) in given(books, m.vru_size.map(U64::get)) {
            self.books[at].vru_size = size;
        }
        for &at in books.iter().filter(|&&at| at != u16::MAX) {
            self.books[usize::from(at)].tier_name = m.name;
        }
        self.tier_states[usize::from(m.tier.get())] = TierState::Live;
        self.each_phase(books, None, out);
    }

    /// Its books are halted since it was drained.
    fn delete_tier(&mut self, tier: u16, books: &[u16; RESOURCES]) {
        self.tier_states[usize::from(tier)] = TierState::Spare;
        for &at in books.iter().filter(|&&at| at != u16::MAX) {
            let at = usize::from(at);
            let Book { orders, reserved_vru, .. } = self.books[at];
            assert_eq!((orders, reserved_vru), (0, 0), "only instances have orders and baselines");
            self.ledger.drain_pool(at, self.ledger.pools[at].free);
        }
    }

    fn each_phase(&mut self, books: &[u16; RESOURCES], wanted: Option<Phase>, out: &mut Outbox) {
        for &at in books.iter().filter(|&&at| at != u16::MAX) {
            self.take_phase(usize::from(at), wanted, out);
        }
    }
}

/// Largest size of a VRU.
pub const VRU_SIZE_MAX: u64 = 1 << 40;

/// The values that are not 0, and the number of the book each is for.
fn given(books: &[u16; RESOURCES], values: [u64; RESOURCES]) -> impl Iterator<Item = (usize, u64)> {
    let books = *books;
    books.into_iter().map(usize::from).zip(values).filter(|&(_, value)| value > 0)
}
