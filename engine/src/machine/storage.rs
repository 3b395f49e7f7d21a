//! Storage classes: block I/O that an instance leases of another tier, on that tier's storage.
//!
//! A tier's storage is what its book of block I/O is about, so a bid for a storage class is a bid in
//! another tier's rental book and is cleared, metered and paid there like any other. While it has VRUs
//! the instance's disks belong on that tier's storage, and it may use so much there; what it has of its
//! own tier stays as it is. When it has none, for whatever reason, its disks belong at home. An instance
//! has one such lease at most: its disks are in one place.

use super::Machine;
use super::event::{Outbox, Stored};
use super::ledger::pocket;
use super::rental::{CLASSES, Lease};
use vendue_wire::code::{RESOURCES, Reject, Resource};
use vendue_wire::message::ANY;

impl Machine {
    /// The book of another tier's block I/O.
    pub(super) fn storage_book(&self, instance: u16, tier: u16) -> Result<usize, Reject> {
        let books = self.book_of.get(usize::from(tier)).ok_or(Reject::UnknownTier)?;
        if tier == self.instances[usize::from(instance)].tier {
            return Err(Reject::OwnTier);
        }
        match books[Resource::BlockIo as usize] {
            u16::MAX => Err(Reject::UnknownBook),
            book => Ok(book.into()),
        }
    }

    /// So many percent of what an instance reserved, in whole VRUs of another tier.
    pub(super) fn storage_share(
        &self,
        instance: u16,
        tier: u16,
        baseline: u32,
        percent: u64,
    ) -> Result<u64, Reject> {
        let size = self.books[self.storage_book(instance, tier)?].vru_size;
        let Ok(home) = self.instance_book(instance, Resource::BlockIo) else { return Ok(0) };
        let bytes = u128::from(baseline) * u128::from(self.books[home].vru_size);
        u64::try_from(bytes * u128::from(percent) / 100 / u128::from(size))
            .map_err(|_| Reject::BadQuantity)
    }

    /// The lease that an instance has of another tier's storage.
    fn storage_lease(&self, instance: u16) -> Option<&Lease> {
        let slot = self.rentals.newest_of(self.rentals.storage_of(instance))?;
        Some(&self.rentals.leases[slot as usize])
    }

    /// Adds what that lease covered up to now to what leases covered of the instance's own block I/O,
    /// in its own tier's VRUs, rounded down: the host measures one use of all devices.
    pub(super) fn fold_storage(&mut self, instance: u16) {
        let Some(lease) = self.storage_lease(instance) else { return };
        let size = self.books[usize::from(lease.book)].vru_size;
        let (at, now_ms) = (self.rentals.storage_of(instance), self.now_ms());
        let holding = &mut self.rentals.holdings[at];
        holding.cover(now_ms);
        let covered = u128::from(std::mem::take(&mut holding.covered_milli)) * u128::from(size);
        let Ok(home) = self.instance_book(instance, Resource::BlockIo) else { return };
        let covered = covered / u128::from(self.books[home].vru_size);
        let own = &mut self.rentals.holdings[pocket(instance, Resource::BlockIo)].covered_milli;
        *own = own.saturating_add(u64::try_from(covered).unwrap_or(u64::MAX));
    }

    /// The tier on whose storage an instance's disks belong, and the VRUs it may use there and their
    /// size; at home its own tier and nothing.
    pub fn stored(&self, instance: u16) -> (u16, u64, u64) {
        let home = (self.instances[usize::from(instance)].tier, 0, 0);
        let lease = self.storage_lease(instance).filter(|lease| lease.granted > 0);
        lease.map_or(home, |lease| {
            let book = &self.books[usize::from(lease.book)];
            (book.tier, lease.granted.into(), book.vru_size)
        })
    }

    /// True if anybody leases of one of these books.
    pub(super) fn rents_out(&self, books: &[u16; RESOURCES]) -> bool {
        let rents = |&book: &u16| {
            let rental = self.rentals.books.get(usize::from(book));
            rental.is_some_and(|rental| (0..CLASSES).any(|class| rental.leases(class).0 > 0))
        };
        books.iter().any(rents)
    }

    /// Tells the later stages where an instance's disks belong.
    pub(super) fn announce_stored(&mut self, instance: u16, out: &mut Outbox) {
        let (tier, vru, vru_size) = self.stored(instance);
        self.fold(vru << 16 ^ u64::from(tier) ^ u64::from(instance) << 48);
        let event = Stored {
            vru: vru.into(),
            vru_size: vru_size.into(),
            instance: u32::from(instance).into(),
            tier: tier.into(),
            reserved: [0; 2],
        };
        out.push(ANY, &event);
    }
}
