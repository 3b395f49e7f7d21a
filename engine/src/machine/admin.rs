//! What operators may ask: accounts, instances, deposits, withdrawals, grants.

use super::Machine;
use super::command::Envelope;
use super::config::RESOURCES;
use super::event::{InstanceCreated, InstanceRemoved, Outbox};
use super::ledger::pocket;
use super::limits::Limits;
use super::shares::Stake;
use super::tables::{Account, Instance};
use vendue_wire::code::{CancelReason, Reject, Resource, Role};
use vendue_wire::message::{
    ANY, Body, CreateAccount, CreateInstance, Deposit, GrantCredits, RemoveInstance, U32, Withdraw,
    text,
};

impl Machine {
    pub(super) fn operator(&self, env: &Envelope) -> Result<(), Reject> {
        match self.sessions[env.session as usize].role() {
            Role::Operator => Ok(()),
            _ => Err(Reject::NotPermitted),
        }
    }

    pub(super) fn known_account(&self, account: U32) -> Result<u16, Reject> {
        if account.get() < self.accounts_used {
            Ok(account.get() as u16)
        } else {
            Err(Reject::UnknownAccount)
        }
    }

    pub(super) fn create_account(
        &mut self,
        env: &Envelope,
        m: &CreateAccount,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let used = self.accounts_used as usize;
        check_name(&m.name, self.accounts[..used].iter().map(|row| &row.name))?;
        let row = self.accounts.get_mut(used).ok_or(Reject::AccountsFull)?;
        *row = Account {
            sells_to: m.sells_to.get(),
            buys_from: m.buys_from.get(),
            name: m.name,
            group: m.group.into(),
            ..Account::FREE
        };
        self.limits[used] = Limits::none(m.sells_to.get(), m.buys_from.get());
        self.accounts_used += 1;
        self.use_client_id(env, client_id);
        self.report_done(env, CreateAccount::KIND, client_id, used as u64, out);
        Ok(())
    }

    pub(super) fn deposit(
        &mut self,
        env: &Envelope,
        m: &Deposit,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let account = self.known_account(m.account)?;
        let free = self.ledger.deposit(account, m.amount_micro.get())?;
        self.use_client_id(env, client_id);
        self.report_done(env, Deposit::KIND, client_id, free, out);
        Ok(())
    }

    pub(super) fn withdraw(
        &mut self,
        env: &Envelope,
        m: &Withdraw,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let account = self.known_account(m.account)?;
        let free = self.ledger.withdraw(account, m.amount_micro.get())?;
        self.use_client_id(env, client_id);
        self.report_done(env, Withdraw::KIND, client_id, free, out);
        Ok(())
    }

    pub(super) fn create_instance(
        &mut self,
        env: &Envelope,
        m: &CreateInstance,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let account = self.known_account(m.account)?;
        let tier = usize::from(m.tier.get());
        let books = *self.book_of.get(tier).ok_or(Reject::UnknownTier)?;
        self.check_live(m.tier.get())?;
        let live = self.instances.iter().filter(|row| row.live == 1);
        check_name(&m.name, live.map(|row| &row.name))?;
        self.check_capacity(&books, m)?;
        let slot = self.instances.iter().position(|row| row.live == 0);
        let slot = slot.ok_or(Reject::InstancesFull)?;
        self.instances[slot] = Instance {
            baseline_vru: m.baseline_vru.map(U32::get),
            live: 1,
            bursting: if self.limits[usize::from(account)].are_set() {
                Instance::LIMITED
            } else {
                0
            },
            tier: m.tier.get(),
            account,
            name: m.name,
            place: m.place,
        };
        self.owner[slot] = account;
        self.find_edges(slot as u16);
        self.accounts[usize::from(account)].instances += 1;
        for (book, vru) in books.iter().zip(m.baseline_vru) {
            if let Some(book) = self.books.get_mut(usize::from(*book)) {
                book.reserved_vru += u64::from(vru.get());
            }
        }
        self.use_client_id(env, client_id);
        self.launch(slot as u16);
        self.announce_created(slot as u16, out);
        for &resource in Resource::ALL {
            self.announce(slot as u16, resource, out);
            self.reassess(slot as u16, resource, out);
            self.weigh(slot as u16, resource, out);
        }
        self.report_done(env, CreateInstance::KIND, client_id, slot as u64, out);
        Ok(())
    }

    /// Baselines are reservations: together they never exceed the tier's capacity.
    fn check_capacity(&self, books: &[u16; RESOURCES], m: &CreateInstance) -> Result<(), Reject> {
        for (book, vru) in books.iter().zip(m.baseline_vru) {
            let vru = u64::from(vru.get());
            match self.books.get(usize::from(*book)) {
                None if vru > 0 => return Err(Reject::InsufficientCapacity),
                Some(book) if book.reserved_vru + vru > book.capacity_vru => {
                    return Err(Reject::InsufficientCapacity);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Tells the later stages that an instance exists and where it runs.
    pub(super) fn announce_created(&self, instance: u16, out: &mut Outbox) {
        let row = &self.instances[usize::from(instance)];
        let event = InstanceCreated {
            instance: u32::from(instance).into(),
            tier: row.tier.into(),
            account: row.account.into(),
            place: row.place,
        };
        out.push(ANY, &event);
    }

    pub(super) fn remove_instance(
        &mut self,
        env: &Envelope,
        m: &RemoveInstance,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let row = *self.instance(m.instance.get()).ok_or(Reject::UnknownInstance)?;
        let instance = m.instance.get() as u16;
        self.use_client_id(env, client_id);
        let own = |_: &Machine, owner| owner == instance;
        self.cancel_where(env, CancelReason::InstanceRemoved, out, own, |_| true);
        self.slab.forget(instance);
        self.orphan_trades(instance);
        for &resource in Resource::ALL {
            let at = usize::from(self.book_of[usize::from(row.tier)][resource as usize]);
            if let Some(book) = self.books.get_mut(at) {
                book.reserved_vru -= u64::from(row.baseline_vru[resource as usize]);
                self.ledger.burn(at, instance, resource, u64::MAX);
            }
        }
        self.accounts[usize::from(row.account)].instances -= 1;
        self.instances[usize::from(instance)] = Instance::FREE;
        for &resource in Resource::ALL {
            self.stakes[pocket(instance, resource)] = Stake::default();
        }
        self.find_edges(instance);
        // Its number may be given out again: its agents must not act for the next one.
        for session in self.sessions.iter_mut().filter(|s| s.instance == m.instance.get()) {
            session.instance = ANY;
        }
        out.push(ANY, &InstanceRemoved { instance: m.instance });
        self.report_done(env, RemoveInstance::KIND, client_id, m.instance.get().into(), out);
        Ok(())
    }

    pub(super) fn grant(
        &mut self,
        env: &Envelope,
        m: &GrantCredits,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let row = self.instance(m.instance.get()).ok_or(Reject::UnknownInstance)?;
        let book = self.book_of[usize::from(row.tier)][resource as usize];
        if book == u16::MAX {
            return Err(Reject::UnknownBook);
        }
        let instance = m.instance.get() as u16;
        let amount = m.amount_millicredits.get();
        if amount > self.ledger.credit_room(usize::from(book)) {
            return Err(Reject::Overflow);
        }
        self.use_client_id(env, client_id);
        self.ledger.issue(usize::from(book), instance, resource, amount);
        self.reassess(instance, resource, out);
        let free = self.ledger.credit(instance, resource).free;
        self.report_done(env, GrantCredits::KIND, client_id, free, out);
        Ok(())
    }
}

/// A name must be whole UTF-8, not empty, and not taken.
pub(super) fn check_name<'a>(
    name: &[u8; 32],
    mut taken: impl Iterator<Item = &'a [u8; 32]>,
) -> Result<(), Reject> {
    let shown = text(name);
    let padded = name[shown.len()..].iter().all(|&byte| byte == 0);
    if shown.is_empty() || !padded || taken.any(|other| other == name) {
        return Err(Reject::BadName);
    }
    Ok(())
}
