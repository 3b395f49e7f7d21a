//! What operators may ask: accounts, instances, deposits, withdrawals, grants.

use super::Machine;
use super::command::{Envelope, Perished};
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
        let (slot, account) = self.find_seat(m)?;
        self.use_client_id(env, client_id);
        self.seat(slot, account, 1, m);
        self.launch(slot);
        self.launch_leases(slot);
        self.announce_seat(slot, out);
        self.report_done(env, CreateInstance::KIND, client_id, slot.into(), out);
        Ok(())
    }

    /// A place for a new instance, and its account.
    pub(super) fn find_seat(&self, m: &CreateInstance) -> Result<(u16, u16), Reject> {
        let account = self.known_account(m.account)?;
        let tier = usize::from(m.tier.get());
        let books = *self.book_of.get(tier).ok_or(Reject::UnknownTier)?;
        self.check_live(m.tier.get())?;
        let live = self.instances.iter().filter(|row| row.live != 0);
        check_name(&m.name, live.map(|row| &row.name))?;
        self.check_capacity(&books, m)?;
        let slot = self.instances.iter().position(|row| row.live == 0);
        Ok((slot.ok_or(Reject::InstancesFull)? as u16, account))
    }

    /// Puts a new instance into its place and reserves its baselines.
    pub(super) fn seat(&mut self, instance: u16, account: u16, live: u16, m: &CreateInstance) {
        let slot = usize::from(instance);
        let limited = live == 1 && self.limits[usize::from(account)].are_set();
        self.instances[slot] = Instance {
            baseline_vru: m.baseline_vru.map(U32::get),
            live,
            bursting: if limited { Instance::LIMITED } else { 0 },
            tier: m.tier.get(),
            account,
            name: m.name,
            place: m.place,
        };
        self.owner[slot] = account;
        self.find_edges(instance);
        self.accounts[usize::from(account)].instances += 1;
        let books = self.book_of[usize::from(m.tier.get())];
        for (book, vru) in books.iter().zip(m.baseline_vru) {
            if let Some(book) = self.books.get_mut(usize::from(*book)) {
                book.reserved_vru += u64::from(vru.get());
            }
        }
    }

    /// Tells the later stages of a new instance, and those who lease what it reserved.
    pub(super) fn announce_seat(&mut self, instance: u16, out: &mut Outbox) {
        let tier = self.instances[usize::from(instance)].tier;
        self.reclear_leases(&self.book_of[usize::from(tier)].clone(), out);
        self.announce_created(instance, out);
        for &resource in Resource::ALL {
            self.announce(instance, resource, out);
            self.reassess(instance, resource, out);
            self.weigh(instance, resource, out);
        }
    }

    /// Baselines are reservations: together with tokens they never exceed the tier's capacity.
    fn check_capacity(&self, books: &[u16; RESOURCES], m: &CreateInstance) -> Result<(), Reject> {
        for (book, vru) in books.iter().zip(m.baseline_vru) {
            let vru = u64::from(vru.get());
            let at = usize::from(*book);
            match self.books.get(at) {
                None if vru > 0 => return Err(Reject::InsufficientCapacity),
                Some(book) if self.spoken_for(at) + vru > book.capacity_vru => {
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
        self.use_client_id(env, client_id);
        self.dissolve(env, m.instance.get() as u16, &row, out);
        self.report_done(env, RemoveInstance::KIND, client_id, m.instance.get().into(), out);
        Ok(())
    }

    /// What an instance ran in has ended by itself: it goes as if an operator had removed it.
    pub(super) fn perished(&mut self, env: &Envelope, m: &Perished, out: &mut Outbox) {
        let row = self.instance(m.instance.get()).copied();
        if let Some(row) = row.filter(|row| row.place == m.place) {
            self.dissolve(env, m.instance.get() as u16, &row, out);
        }
    }

    /// Ends everything that an instance has under way: orders, leases, loans, tasks, and what the engine
    /// does for it. Its trades cannot be reversed any more.
    pub(super) fn unwind(&mut self, env: &Envelope, instance: u16, out: &mut Outbox) {
        let own = |_: &Machine, owner| owner == instance;
        self.cancel_where(env, CancelReason::InstanceRemoved, out, own, |_| true);
        self.return_tokens(instance, out);
        self.dissolve_leases(instance, out);
        self.forget_forecasts(instance);
        self.forget_events(instance);
        self.forget_exposures(instance);
        self.forget_use(instance);
        self.forget_policies(instance);
        self.forget_objectives(instance);
        self.leave_swarm(instance, out);
        self.orphan_trades(instance);
    }

    /// Cancels an instance's orders, burns its credits and frees its number.
    pub(super) fn dissolve(
        &mut self,
        env: &Envelope,
        instance: u16,
        row: &Instance,
        out: &mut Outbox,
    ) {
        self.unwind(env, instance, out);
        self.slab.forget(instance);
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
        let number = u32::from(instance);
        for session in self.sessions.iter_mut().filter(|session| session.instance == number) {
            session.instance = ANY;
        }
        out.push(ANY, &InstanceRemoved { instance: number.into() });
        self.reclear_leases(&self.book_of[usize::from(row.tier)].clone(), out);
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
        self.instance(m.instance.get()).ok_or(Reject::UnknownInstance)?;
        let instance = m.instance.get() as u16;
        let book = self.instance_book(instance, resource)?;
        let amount = m.amount_millicredits.get();
        if amount > self.ledger.credit_room(book) {
            return Err(Reject::Overflow);
        }
        self.use_client_id(env, client_id);
        self.ledger.issue(book, instance, resource, amount);
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
