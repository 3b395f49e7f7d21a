//! What lenders earn.
//!
//! All VRUs that can be leased of a book are alike, whoever put them in: while of `supply` VRUs so many
//! are leased, each of them is in use for that part of the time, and earns that part of the rents. A
//! lender gets what the VRUs that it lent earned, and the house what the others did. So a lender competes
//! with what nobody reserved, and what a loan earns does not depend on the order in which loans came.
//!
//! **A VRU-second is paid once.** While a lent VRU is in use its rent stands in for the credits that its
//! owner earns otherwise; while it is not, it earns those. Else who lends to itself would get credits for
//! nothing: with both accounts in one hand, rent is paid and earned, credits are saved and not earned.
//!
//! **How it is reckoned.** [`Lending`] holds two indices for each book: what a VRU of the supply has
//! earned, and how long it was in use. A loan is worth its VRUs times what they grew since it was looked
//! at last: when it changes, at each tick, and when it ends. What a division leaves over is divided with
//! what comes next, so the indices do not depend on how often they are looked at.
//!
//! **When it is paid.** Lenders are paid every [`PAY_MS`] and when they leave, out of the rents that the
//! house has collected and not passed on: what a tenant has not paid nobody gets. What is left over of a
//! micro-unit waits; when the instance leaves the house keeps it.

use super::Machine;
use super::config::MILLI;
use super::event::{Outbox, RentEarned};
use super::lease::PAY_MS;
use super::ledger::pocket;
use super::rental::Holding;
use vendue_wire::code::{RESOURCES, Resource};
use vendue_wire::message::ANY;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a VRU of a book's supply has brought since the beginning.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Lending {
    /// Thousandths of micro-units that it earned.
    pub earned: u128,
    /// Milliseconds that it was in use.
    pub used: u64,
    /// Thousandths of micro-units that are still to be divided.
    pub earned_rest: u64,
    /// VRU-milliseconds that are still to be divided.
    pub used_rest: u64,
    /// Zero.
    pub reserved: u64,
}

impl Lending {
    /// Divides rents, thousandths of micro-units, and use, VRU-milliseconds, among `supply` VRUs.
    pub fn share(&mut self, supply: u64, rents_milli: u128, used_vru_ms: u128) {
        let supply = u128::from(supply);
        let earned = rents_milli.saturating_add(self.earned_rest.into());
        let used = used_vru_ms.saturating_add(self.used_rest.into());
        self.earned = self.earned.saturating_add(earned / supply);
        self.used = self.used.saturating_add(u64::try_from(used / supply).unwrap_or(u64::MAX));
        // A rest is less than the supply.
        (self.earned_rest, self.used_rest) = ((earned % supply) as u64, (used % supply) as u64);
    }
}

impl Holding {
    /// Reckons what a loan brought up to now.
    fn settle(&mut self, book: &Lending) {
        if self.lent > 0 {
            let lent = u128::from(self.lent);
            let earned = lent.saturating_mul(book.earned.saturating_sub(self.earned_from));
            let used =
                u64::from(self.lent).saturating_mul(book.used.saturating_sub(self.used_from));
            self.earned_milli = self.earned_milli.saturating_add(earned);
            self.rented_milli = self.rented_milli.saturating_add(used);
        }
        (self.earned_from, self.used_from) = (book.earned, book.used);
    }
}

impl Machine {
    fn settle_loan(&mut self, at: usize, book: usize) {
        let now_ms = self.now_ms();
        let rental = &mut self.rentals.books[book];
        rental.meter(now_ms);
        self.rentals.holdings[at].settle(&rental.lending);
    }

    /// An instance lends so many VRUs from now on.
    pub(super) fn lend_vru(&mut self, instance: u16, resource: Resource, book: usize, vru: u32) {
        let at = pocket(instance, resource);
        self.settle_loan(at, book);
        let lent = &mut self.rentals.holdings[at].lent;
        let rental = &mut self.rentals.books[book];
        rental.lent = rental.lent - u64::from(*lent) + u64::from(vru);
        *lent = vru;
    }

    /// Milli-credits that an instance does not earn since it was asked last: lent VRUs were in use.
    pub(super) fn rented_out(&mut self, instance: u16, resource: Resource, book: u16) -> u64 {
        let at = pocket(instance, resource);
        let holding = &self.rentals.holdings[at];
        if holding.lent == 0 && holding.rented_milli == 0 {
            return 0;
        }
        self.settle_loan(at, book.into());
        std::mem::take(&mut self.rentals.holdings[at].rented_milli)
    }

    /// Time passes: lenders are paid.
    pub(super) fn tick_lenders(&mut self, elapsed_ms: u64, out: &mut Outbox) {
        let now_ms = self.now_ms();
        if now_ms / PAY_MS == (now_ms - elapsed_ms) / PAY_MS {
            return;
        }
        // Of other tiers' storage nothing is lent.
        for at in 0..self.rentals.storage_of(0) {
            let (instance, resource) = ((at / RESOURCES) as u16, Resource::ALL[at % RESOURCES]);
            self.pay_lender(instance, resource, out);
        }
    }

    /// Pays a lender whole micro-units of what it earned, as far as rents were collected.
    fn pay_lender(&mut self, instance: u16, resource: Resource, out: &mut Outbox) {
        let at = pocket(instance, resource);
        let holding = &self.rentals.holdings[at];
        if holding.lent == 0 && holding.earned_milli == 0 {
            return;
        }
        let Ok(book) = self.instance_book(instance, resource) else { return };
        self.settle_loan(at, book);
        let holding = &mut self.rentals.holdings[at];
        let due = u64::try_from(holding.earned_milli / u128::from(MILLI)).unwrap_or(u64::MAX);
        let micro = due.min(self.ledger.rents);
        if micro == 0 {
            return;
        }
        holding.earned_milli -= u128::from(micro) * u128::from(MILLI);
        let account = self.owner[usize::from(instance)];
        self.ledger.pass_rent(account, micro);
        self.fold(micro ^ (at as u64) << 40);
        let event = RentEarned {
            micro: micro.into(),
            instance: u32::from(instance).into(),
            account: account.into(),
            book: (book as u16).into(),
        };
        out.push(ANY, &event);
    }

    /// An instance goes: its tenants pay what they owe, then it is paid, and what it lent is its
    /// tier's again.
    pub(super) fn end_loan(
        &mut self,
        instance: u16,
        resource: Resource,
        book: usize,
        out: &mut Outbox,
    ) {
        if self.holding(instance, resource).lent > 0 {
            self.collect_rents(book);
        }
        self.pay_lender(instance, resource, out);
        self.lend_vru(instance, resource, book, 0);
    }
}
