//! What lenders earn, said as simply as possible: whenever time goes on, each VRU that can be leased
//! gets an equal part of what its book's leases cost meanwhile, and of the time that they had VRUs.

use super::leases::{EARNED, LENT, RENTED};
use super::{Market, Said};
use vendue_wire::code::RESOURCES;

impl Market {
    /// So many milliseconds went by.
    pub(super) fn share_rents(&mut self, elapsed: i128) {
        self.leases.undivided.resize(self.books.len(), [0; 2]);
        for book in 0..self.books.len() {
            let granted = self.granted(book);
            if elapsed == 0 || granted == 0 {
                continue;
            }
            let own = self.leases.all.iter().filter(|lease| lease.book == book);
            let rents =
                own.map(|lease| lease.granted * self.leases.rents[book][usize::from(lease.class)]);
            let rents = rents.sum::<i128>() * self.books[book].tick_micro * elapsed;
            let supply = self.supply(book);
            let undivided = &mut self.leases.undivided[book];
            let parts = [undivided[0] + rents, undivided[1] + granted * elapsed];
            *undivided = parts.map(|part| part % supply);
            let (tier, resource) = (self.books[book].tier, self.books[book].resource);
            let tenants = self.instances.iter().filter(|(_, row)| row.tier == tier);
            for number in tenants.map(|(&number, _)| number).collect::<Vec<_>>() {
                let lent = self.of(number, resource, LENT);
                *self.of_mut(number, resource, EARNED) += lent * (parts[0] / supply);
                *self.of_mut(number, resource, RENTED) += lent * (parts[1] / supply);
            }
        }
    }

    /// Milli-credits that an instance does not earn, because others paid rent for its VRUs.
    pub(super) fn rented_out(&mut self, instance: u32, resource: usize) -> i128 {
        std::mem::take(self.of_mut(instance, resource, RENTED))
    }

    /// Lenders are paid at every full five seconds.
    pub(super) fn tick_lenders(&mut self, elapsed: u64) {
        let now_ms = self.leases.now_ms;
        if now_ms / 5000 > (now_ms - i128::from(elapsed)) / 5000 {
            for number in self.instances.keys().copied().collect::<Vec<_>>() {
                (0..RESOURCES).for_each(|resource| self.pay_lender(number, resource));
            }
        }
    }

    fn pay_lender(&mut self, instance: u32, resource: usize) {
        let row = self.instances[&instance];
        let Some(book) = self.book_of(row.tier, resource) else { return };
        let earned = self.of(instance, resource, EARNED);
        let micro = (earned / 1000).min(self.leases.paid);
        if micro > 0 {
            *self.of_mut(instance, resource, EARNED) -= micro * 1000;
            self.leases.paid -= micro;
            self.accounts[row.account].free += micro;
            self.said.push(Said::Earned { instance, account: row.account, book, micro });
        }
    }

    /// A lender leaves: what its tenants owe is collected for it.
    pub(super) fn end_loan(&mut self, instance: u32, resource: usize) {
        let tier = self.instances[&instance].tier;
        let Some(book) = self.book_of(tier, resource) else { return };
        if self.of(instance, resource, LENT) > 0 {
            let all = self.leases.all.iter().filter(|lease| lease.book == book);
            let mut all: Vec<_> = all.map(|lease| (lease.handle as u32, lease.number)).collect();
            all.sort_unstable();
            for (_, number) in all {
                self.note_moved(number);
                self.pay(number);
            }
        }
        self.pay_lender(instance, resource);
        *self.of_mut(instance, resource, LENT) = 0;
    }
}
