//! Leases, said as simply as possible: one list, everything searched for and added up each time.

use super::{Caller, Market, Said};
use std::cmp::Reverse;
use vendue_wire::code::{LeaseOutcome, RESOURCES, Reject, Role};
use vendue_wire::message::{
    ANY, BidLease, Body, CancelLease, ChangeLease, EntitleInstance, Lend, SetReserveRent,
};

/// A lease.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "what is not plain is explained")]
pub struct Lease {
    pub handle: u64,
    /// Order of arrival.
    pub number: u64,
    /// Slot and number of the session that bid.
    pub session: (u32, u64),
    pub client_id: u64,
    pub instance: u32,
    pub book: usize,
    pub class: u8,
    pub rent: i128,
    pub wanted: i128,
    pub granted: i128,
    pub whole: bool,
    pub hold_ms: i128,
    pub expires_ms: Option<i128>,
    /// Nobody takes its VRUs before; `None` if somebody may.
    pub firm_until_ms: Option<i128>,
    pub pays_ms: i128,
    /// Since when it waits, and since when it has VRUs or may lose them: places in line.
    pub lines: (u64, u64),
    /// Thousandths of micro-units.
    pub owed: i128,
    pub paid: i128,
    pub held: i128,
    /// Place of the objective that bids for it.
    pub objective: Option<usize>,
    /// Of another tier's block I/O.
    pub storage: bool,
}

/// Who bids, and for what.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "what is not plain is explained")]
pub(super) struct Bidder {
    /// Slot and number; `None`: no session.
    pub session: Option<(u32, u64)>,
    pub client_id: u64,
    pub instance: u32,
    pub resource: usize,
    pub class: u8,
    pub objective: Option<usize>,
    /// The tier whose storage it is.
    pub storage: Option<u16>,
}

impl Lease {
    fn due_ms(&self) -> Option<i128> {
        let has = self.granted > 0;
        let times =
            [self.expires_ms, self.firm_until_ms.filter(|_| has), has.then_some(self.pays_ms)];
        times.into_iter().flatten().min()
    }
}

/// All about leases.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "what is not plain is explained")]
pub struct Leases {
    pub all: Vec<Lease>,
    /// By book and class, ticks.
    pub reserve: Vec<[i128; 3]>,
    /// As they were cleared last.
    pub rents: Vec<[i128; 3]>,
    /// Micro-units that the house got and did not pass on.
    pub paid: i128,
    /// By instance: VRUs lent, VRUs of class sla it is entitled to, use that leases covered, thousandths
    /// of micro-units that its loan earned, and milli-credits that it will not earn for it.
    pub of: std::collections::BTreeMap<u32, [[i128; 5]; RESOURCES]>,
    /// By book: of rents and of use, what is still to be divided among the VRUs of its supply.
    pub undivided: Vec<[i128; 2]>,
    /// Instance, resource and second of each bid, change and loan.
    acts: Vec<(u32, usize, u64)>,
    /// VRU-milliseconds that leases of storage covered, of which no use was told yet.
    stored: std::collections::BTreeMap<u32, i128>,
    /// Free slots, the next one last; and what was given out: generations.
    free: Vec<usize>,
    generations: Vec<u64>,
    count: u64,
    line: u64,
    pub(super) now_ms: i128,
    pub(super) time_ns: u64,
    /// Who moved in the request at hand: number, what it had, and why.
    moved: Vec<(u64, i128, Option<LeaseOutcome>)>,
}

pub(super) const LENT: usize = 0;
pub(super) const ENTITLED: usize = 1;
const COVERED: usize = 2;
pub(super) const EARNED: usize = 3;
pub(super) const RENTED: usize = 4;
const BLOCK_IO: usize = 2;
/// Of storage, where resources are counted.
const STORAGE: usize = RESOURCES;

/// What instances have.
impl Market {
    pub(super) fn of(&self, instance: u32, resource: usize, what: usize) -> i128 {
        self.leases.of.get(&instance).map_or(0, |row| row[resource][what])
    }

    pub(super) fn of_mut(&mut self, instance: u32, resource: usize, what: usize) -> &mut i128 {
        &mut self.leases.of.entry(instance).or_default()[resource][what]
    }

    /// VRUs that an instance leases or has of tokens, and that it lends.
    pub fn leased(&self, instance: u32, resource: usize) -> (i128, i128) {
        let own = self.leases.all.iter().filter(|lease| lease.instance == instance);
        let own = own.filter(|lease| !lease.storage && self.books[lease.book].resource == resource);
        let leased: i128 = own.map(|lease| lease.granted).sum();
        (leased + self.redeemed(instance, resource), self.of(instance, resource, LENT))
    }

    fn storage_lease(&self, instance: u32) -> Option<&Lease> {
        self.leases.all.iter().find(|lease| lease.storage && lease.instance == instance)
    }

    /// Where an instance's disks belong, and the VRUs it may use there.
    pub fn stored(&self, instance: u32) -> (u16, i128) {
        match self.storage_lease(instance) {
            Some(lease) if lease.granted > 0 => (self.books[lease.book].tier, lease.granted),
            _ => (self.instances[&instance].tier, 0),
        }
    }

    /// What a lease of storage covered is covered at home, as many bytes.
    fn bring_home(&mut self, instance: u32) {
        let Some(lease) = self.storage_lease(instance).copied() else { return };
        let covered = self.leases.stored.remove(&instance).unwrap_or(0);
        let tier = self.instances[&instance].tier;
        let Some(home) = self.book_of(tier, BLOCK_IO) else { return };
        let sizes = [lease.book, home].map(|book| i128::from(self.books[book].vru_size));
        *self.of_mut(instance, BLOCK_IO, COVERED) += covered * sizes[0] / sizes[1];
    }

    /// Micro-units held for an account's leases.
    pub fn held_for_leases(&self, account: usize) -> i128 {
        let own = self.leases.all.iter();
        own.filter(|lease| self.payer_of(lease) == account).map(|lease| lease.held).sum()
    }

    fn payer_of(&self, lease: &Lease) -> usize {
        self.instances[&lease.instance].account
    }

    /// VRUs of a book that can be leased.
    pub fn supply(&self, book: usize) -> i128 {
        let (tier, resource) = (self.books[book].tier, self.books[book].resource);
        let of_tier = self.instances.iter().filter(|(_, row)| row.tier == tier);
        let lent: i128 = of_tier.map(|(&number, _)| self.of(number, resource, LENT)).sum();
        let tokens = self.tokens.iter().filter(|token| token.redeemed && token.book == book);
        let redeemed: i128 = tokens.map(|token| self.has(token)).sum();
        self.books[book].capacity_vru - self.reserved(tier, resource) - redeemed + lent
    }

    /// Time goes on: everybody owes what its class pays.
    pub(super) fn meter_leases(&mut self, time_ns: u64) {
        let now_ms = i128::from(time_ns / 1_000_000);
        self.leases.time_ns = time_ns;
        let elapsed = now_ms - self.leases.now_ms;
        self.leases.now_ms = now_ms;
        self.leases.rents.resize(self.books.len(), [1; 3]);
        self.leases.reserve.resize(self.books.len(), [1; 3]);
        self.share_rents(elapsed);
        self.meter_tokens(elapsed);
        for at in 0..self.leases.all.len() {
            let lease = &mut self.leases.all[at];
            let rent = self.leases.rents[lease.book][usize::from(lease.class)];
            lease.owed += lease.granted * rent * self.books[lease.book].tick_micro * elapsed;
            let Lease { instance, granted, book, storage, .. } = *lease;
            if storage {
                *self.leases.stored.entry(instance).or_default() += granted * elapsed;
                continue;
            }
            *self.of_mut(instance, self.books[book].resource, COVERED) += granted * elapsed;
        }
    }

    /// As [`Market::meter_leases`], of what tokens cover.
    fn meter_tokens(&mut self, elapsed: i128) {
        for at in 0..self.tokens.len() {
            let token = self.tokens[at];
            if let Some(instance) = token.instance.filter(|_| token.redeemed) {
                let resource = self.books[token.book].resource;
                let vru = self.has(&token);
                *self.of_mut(instance, resource, COVERED) += vru * elapsed;
            }
        }
    }

    /// Use beyond what leases covered since the last report.
    pub(super) fn beyond_leases(&mut self, instance: u32, resource: usize, used: i128) -> i128 {
        if resource == BLOCK_IO {
            self.bring_home(instance);
        }
        let covered = std::mem::take(self.of_mut(instance, resource, COVERED));
        (used - covered).max(0)
    }
}

/// Requests.
impl Market {
    fn check_lease(&self, book: usize, class: u8, vru: i128, rent: u32) -> Result<(), Reject> {
        if rent == 0 || i128::from(rent) > self.books[book].price_max {
            return Err(Reject::BadPrice);
        }
        if vru < 1 || vru > self.books[book].capacity_vru {
            return Err(Reject::BadQuantity);
        }
        if i128::from(rent) < self.leases.reserve[book][usize::from(class)] {
            return Err(Reject::RentTooLow);
        }
        Ok(())
    }

    fn sla_wanted(&self, instance: u32, book: usize) -> i128 {
        let own = self.leases.all.iter();
        let own =
            own.filter(|lease| (lease.instance, lease.book, lease.class) == (instance, book, 0));
        own.map(|lease| lease.wanted).sum()
    }

    fn check_entitled(
        &self,
        instance: u32,
        book: usize,
        class: u8,
        more: i128,
    ) -> Result<(), Reject> {
        let home = self.instances[&instance].tier == self.books[book].tier;
        let of = self.of(instance, self.books[book].resource, ENTITLED);
        let entitled = if home { of } else { 0 };
        let beyond = self.sla_wanted(instance, book) + more > entitled;
        if class == 0 && beyond { Err(Reject::NotEntitled) } else { Ok(()) }
    }

    fn check_act(&self, who: &Caller, instance: u32, resource: usize) -> Result<(), Reject> {
        let act = (instance, resource, who.time_ns / 1_000_000_000);
        let acts = self.leases.acts.iter().filter(|&&other| other == act).count();
        if acts >= 8 { Err(Reject::TooOften) } else { Ok(()) }
    }

    fn act(&mut self, who: &Caller, instance: u32, resource: usize) {
        self.leases.acts.push((instance, resource, who.time_ns / 1_000_000_000));
    }

    /// Ten seconds at the lease's own rent.
    fn cover(&self, book: usize, wanted: i128, rent: i128) -> Result<i128, Reject> {
        let cover = wanted * rent * self.books[book].tick_micro * 10;
        if cover > u64::MAX.into() { Err(Reject::Overflow) } else { Ok(cover) }
    }

    pub(super) fn bid_lease(&mut self, who: &Caller, m: &BidLease) -> Result<(), Reject> {
        let (client_id, instance) = (m.client_id.get(), m.instance.get());
        let resource = usize::from(m.resource);
        self.fresh(who, client_id)?;
        self.may_act(who, instance)?;
        let row = self.instances[&instance];
        let amount = i128::from(m.amount.get());
        let storage = (m.storage == 1).then_some(m.tier.get());
        let mut of_own = row.baseline[resource] * amount;
        if let (1, Some(tier)) = (m.percent, storage) {
            let away = self.storage_book(instance, tier)?;
            let size = |book: usize| i128::from(self.books[book].vru_size);
            let home = self.book_of(row.tier, resource);
            of_own = home.map_or(0, |home| of_own * size(home) / size(away));
        }
        let wanted = if m.percent == 1 { of_own / 100 } else { amount };
        let number = self.sessions[who.session as usize].number;
        let bidder = Bidder {
            session: Some((who.session, number)),
            client_id,
            instance,
            resource,
            class: m.class,
            objective: None,
            storage,
        };
        let times = (m.hold_ms.get().into(), m.expires_at_ms.get().into());
        let rent = m.rent_ticks.get();
        let number = self.enter_bid(who, bidder, wanted, rent, times, m.all_or_none == 1)?;
        self.use_id(who, client_id);
        let handle = self.lease(number).handle;
        self.done(who, BidLease::KIND, client_id, handle.into());
        self.clear_leases(who, self.lease(number).book);
        self.say_waiting(who, number);
        Ok(())
    }

    /// Checks a bid and puts it among the others: its number.
    pub(super) fn enter_bid(
        &mut self,
        who: &Caller,
        bidder: Bidder,
        wanted: i128,
        rent: u32,
        (hold_ms, expires): (i128, i128),
        whole: bool,
    ) -> Result<u64, Reject> {
        let Bidder { instance, resource, class, .. } = bidder;
        let row = self.instances[&instance];
        let book = match bidder.storage {
            None => self.book_of(row.tier, resource).ok_or(Reject::UnknownBook)?,
            Some(tier) => self.storage_book(instance, tier)?,
        };
        let counted = if bidder.storage.is_some() { STORAGE } else { resource };
        self.in_use(self.books[book].tier)?;
        self.check_lease(book, class, wanted, rent)?;
        if row.baseline[resource] == 0 {
            return Err(Reject::BadQuantity);
        }
        let hold_ms = if hold_ms == 0 { 1000 } else { hold_ms };
        if !(1000..=60_000).contains(&hold_ms) {
            return Err(Reject::BadField);
        }
        if expires != 0 && expires <= self.leases.now_ms {
            return Err(Reject::BadExpiry);
        }
        self.check_entitled(instance, book, class, wanted)?;
        self.check_act(who, instance, counted)?;
        let all = &self.leases.all;
        let own = all.iter().filter(|lease| (lease.instance, lease.book) == (instance, book));
        let away = bidder.storage.is_some() && self.storage_lease(instance).is_some();
        let wholes = all
            .iter()
            .filter(|lease| (lease.whole, lease.book, lease.class) == (true, book, class));
        let too_many = whole && wholes.count() >= 64;
        if too_many || away || own.count() >= 64 || all.len() >= self.rules.leases_max {
            return Err(Reject::LeasesFull);
        }
        let rent = i128::from(rent);
        let held = self.cover(book, wanted, rent)?;
        let left = self.budget_left(bidder.objective);
        if self.accounts[row.account].free < held || left.is_some_and(|left| left < held) {
            return Err(Reject::InsufficientFunds);
        }
        self.act(who, instance, counted);
        self.accounts[row.account].free -= held;
        Ok(self.enter_lease(Lease {
            handle: 0,
            number: 0,
            session: bidder.session.unwrap_or((ANY, 0)),
            client_id: bidder.client_id,
            instance,
            book,
            class,
            rent,
            wanted,
            granted: 0,
            whole,
            hold_ms,
            expires_ms: (expires != 0).then_some(expires),
            firm_until_ms: None,
            pays_ms: 0,
            lines: (0, 0),
            owed: 0,
            paid: 0,
            held,
            objective: bidder.objective,
            storage: bidder.storage.is_some(),
        }))
    }

    fn storage_book(&self, instance: u32, tier: u16) -> Result<usize, Reject> {
        if usize::from(tier) >= self.tiers.len() {
            return Err(Reject::UnknownTier);
        }
        if self.instances[&instance].tier == tier {
            return Err(Reject::OwnTier);
        }
        self.book_of(tier, BLOCK_IO).ok_or(Reject::UnknownBook)
    }

    fn enter_lease(&mut self, mut lease: Lease) -> u64 {
        let leases = &mut self.leases;
        let slot = leases.free.pop().unwrap_or_else(|| {
            leases.generations.push(0);
            leases.generations.len() - 1
        });
        leases.count += 1;
        leases.line += 1;
        (lease.number, lease.lines) = (leases.count, (leases.line, 0));
        lease.handle = slot as u64 | leases.generations[slot] << 32;
        leases.all.push(lease);
        leases.count
    }

    pub(super) fn lease(&self, number: u64) -> &Lease {
        let found = self.leases.all.iter().find(|lease| lease.number == number);
        found.expect("a lease of this number")
    }

    fn lease_mut(&mut self, number: u64) -> &mut Lease {
        let found = self.leases.all.iter_mut().find(|lease| lease.number == number);
        found.expect("a lease of this number")
    }

    fn acting_lease(&self, who: &Caller, handle: u64) -> Result<Lease, Reject> {
        let lease = self.leases.all.iter().find(|lease| lease.handle == handle);
        let observer = self.sessions[who.session as usize].role == Role::Observer;
        match lease {
            _ if observer => Err(Reject::NotPermitted),
            Some(lease) if self.may_act(who, lease.instance).is_ok() => Ok(*lease),
            _ => Err(Reject::UnknownLease),
        }
    }

    pub(super) fn change_lease(&mut self, who: &Caller, m: &ChangeLease) -> Result<(), Reject> {
        let client_id = m.client_id.get();
        self.fresh(who, client_id)?;
        let lease = self.acting_lease(who, m.handle.get())?;
        let broker = who.session as usize == self.rules.sessions_max;
        if self.policy_with(lease.handle).is_some() && !broker {
            return Err(Reject::NotPermitted);
        }
        let Lease { number, book, objective, .. } = lease;
        if objective.is_some() {
            return Err(Reject::LeaseOfRescue);
        }
        self.alter_lease(who, number, m.vru.get().into(), m.rent_ticks.get())?;
        self.use_id(who, client_id);
        self.done(who, ChangeLease::KIND, client_id, m.handle.get().into());
        self.clear_leases(who, book);
        self.say_lease(who, number, LeaseOutcome::Changed);
        self.say_waiting(who, number);
        Ok(())
    }

    /// Gives a lease other terms, if it may have them.
    pub(super) fn alter_lease(
        &mut self,
        who: &Caller,
        number: u64,
        wanted: i128,
        rent: u32,
    ) -> Result<(), Reject> {
        let lease = *self.lease(number);
        let Lease { book, class, instance, .. } = lease;
        self.check_lease(book, class, wanted, rent)?;
        let rent = i128::from(rent);
        self.check_entitled(instance, book, class, (wanted - lease.wanted).max(0))?;
        let resource = if lease.storage { STORAGE } else { self.books[book].resource };
        self.check_act(who, instance, resource)?;
        let cover = self.cover(book, wanted, rent)?;
        let account = self.payer_of(&lease);
        let needs = cover + (lease.owed + 999) / 1000;
        let left = self.budget_left(lease.objective);
        if self.accounts[account].free + lease.held < needs || left.is_some_and(|left| left < needs)
        {
            return Err(Reject::InsufficientFunds);
        }
        self.act(who, instance, resource);
        self.note_moved(number);
        self.leases.line += 2;
        let line = self.leases.line;
        let keeps =
            if lease.whole && lease.granted < wanted { 0 } else { lease.granted.min(wanted) };
        let row = self.lease_mut(number);
        (row.wanted, row.rent, row.granted) = (wanted, rent, keeps);
        row.lines = (line - 1, line);
        if keeps == 0 {
            row.firm_until_ms = None;
        }
        self.pay(number);
        let row = self.lease_mut(number);
        let held = std::mem::replace(&mut row.held, cover);
        self.accounts[account].free += held - cover;
        Ok(())
    }

    pub(super) fn cancel_lease(&mut self, who: &Caller, m: &CancelLease) -> Result<(), Reject> {
        let client_id = m.client_id.get();
        self.fresh(who, client_id)?;
        let lease = self.acting_lease(who, m.handle.get())?;
        self.use_id(who, client_id);
        let paid = self.end_lease(who, lease.number, LeaseOutcome::Cancelled);
        self.done(who, CancelLease::KIND, client_id, paid);
        self.clear_leases(who, lease.book);
        Ok(())
    }

    pub(super) fn lend(&mut self, who: &Caller, m: &Lend) -> Result<(), Reject> {
        let (client_id, instance) = (m.client_id.get(), m.instance.get());
        let resource = usize::from(m.resource);
        self.fresh(who, client_id)?;
        self.may_act(who, instance)?;
        let row = self.instances[&instance];
        let book = self.book_of(row.tier, resource).ok_or(Reject::UnknownBook)?;
        let (vru, before) = (i128::from(m.vru.get()), self.of(instance, resource, LENT));
        if vru > 0 && vru >= row.baseline[resource] {
            return Err(Reject::BadQuantity);
        }
        if vru > before {
            self.check_act(who, instance, resource)?;
            self.act(who, instance, resource);
        }
        self.use_id(who, client_id);
        self.done(who, Lend::KIND, client_id, before);
        *self.of_mut(instance, resource, LENT) = vru;
        self.clear_leases(who, book);
        Ok(())
    }

    pub(super) fn set_reserve_rent(
        &mut self,
        who: &Caller,
        m: &SetReserveRent,
    ) -> Result<(), Reject> {
        let (client_id, book) = (m.client_id.get(), usize::from(m.book.get()));
        self.operator_only(who)?;
        self.fresh(who, client_id)?;
        let most = self.books.get(book).ok_or(Reject::UnknownBook)?.price_max;
        let rent = i128::from(m.rent_ticks.get());
        if !(1..=most).contains(&rent) {
            return Err(Reject::BadPrice);
        }
        self.use_id(who, client_id);
        let reserve = &mut self.leases.reserve[book][usize::from(m.class)];
        let before = std::mem::replace(reserve, rent);
        self.done(who, SetReserveRent::KIND, client_id, before);
        let all = self.leases.all.iter();
        let mut below: Vec<Lease> = all
            .filter(|lease| (lease.book, lease.class) == (book, m.class) && lease.rent < rent)
            .copied()
            .collect();
        below.sort_by_key(|lease| lease.handle as u32);
        for lease in below {
            self.end_lease(who, lease.number, LeaseOutcome::BelowReserve);
        }
        self.clear_leases(who, book);
        Ok(())
    }

    pub(super) fn entitle(&mut self, who: &Caller, m: &EntitleInstance) -> Result<(), Reject> {
        let (client_id, instance) = (m.client_id.get(), m.instance.get());
        let (resource, vru) = (usize::from(m.resource), i128::from(m.vru.get()));
        self.operator_only(who)?;
        self.fresh(who, client_id)?;
        let tier = self.instances.get(&instance).ok_or(Reject::UnknownInstance)?.tier;
        let book = self.book_of(tier, resource).ok_or(Reject::UnknownBook)?;
        self.use_id(who, client_id);
        let before = std::mem::replace(self.of_mut(instance, resource, ENTITLED), vru);
        self.done(who, EntitleInstance::KIND, client_id, before);
        while self.sla_wanted(instance, book) > vru {
            let own = self.leases.all.iter();
            let own = own
                .filter(|lease| (lease.instance, lease.book, lease.class) == (instance, book, 0));
            let newest = own.map(|lease| lease.number).max().expect("one that wants something");
            self.end_lease(who, newest, LeaseOutcome::Revoked);
        }
        self.clear_leases(who, book);
        Ok(())
    }

    fn operator_only(&self, who: &Caller) -> Result<(), Reject> {
        match self.sessions[who.session as usize].role {
            Role::Operator => Ok(()),
            _ => Err(Reject::NotPermitted),
        }
    }
}

/// Money and words.
impl Market {
    pub(super) fn note_moved(&mut self, number: u64) {
        let had = self.lease(number).granted;
        if !self.leases.moved.iter().any(|moved| moved.0 == number) {
            self.leases.moved.push((number, had, None));
        }
    }

    pub(super) fn pay(&mut self, number: u64) {
        let lease = *self.lease(number);
        let account = self.payer_of(&lease);
        let owed = lease.owed / 1000;
        let held = owed.min(lease.held);
        // Out of what is held alone.
        let own = lease.objective.is_some() || self.policy_with(lease.handle).is_some();
        let more = if own { 0 } else { owed - held };
        let free = more.min(self.accounts[account].free);
        self.accounts[account].free -= free;
        self.leases.paid += held + free;
        let row = self.lease_mut(number);
        row.owed %= 1000;
        row.held -= held;
        row.paid += held + free;
        self.note_rescue_paid(lease.objective, held);
    }

    pub(super) fn end_lease(&mut self, who: &Caller, number: u64, why: LeaseOutcome) -> i128 {
        self.pay(number);
        let lease = *self.lease(number);
        let account = self.payer_of(&lease);
        self.accounts[account].free += lease.held;
        self.policy_lease_ended(lease.handle, lease.held);
        self.say_lease(who, number, why);
        self.rescue_lost(who, &lease, why);
        if lease.storage {
            self.bring_home(lease.instance);
        }
        self.leases.all.retain(|other| other.number != number);
        self.leases.moved.retain(|moved| moved.0 != number);
        let slot = lease.handle as u32 as usize;
        self.leases.generations[slot] += 1;
        self.leases.free.push(slot);
        lease.paid
    }

    fn say_lease(&mut self, who: &Caller, number: u64, outcome: LeaseOutcome) {
        let lease = *self.lease(number);
        let session = self.sessions.get(lease.session.0 as usize);
        let same = session.is_some_and(|session| session.number == lease.session.1);
        self.said.push(Said::Lease {
            to: if same { lease.session.0 } else { ANY },
            handle: lease.handle,
            client_id: lease.client_id,
            time_ns: who.time_ns,
            paid: lease.paid,
            instance: lease.instance,
            granted: if outcome.is_end() { 0 } else { lease.granted },
            wanted: lease.wanted,
            rent: self.leases.rents[lease.book][usize::from(lease.class)],
            book: lease.book,
            class: lease.class,
            outcome,
        });
    }

    /// Why a lease waits: VRUs that others may lose, or none.
    pub(super) fn say_waiting(&mut self, who: &Caller, number: u64) {
        let lease = *self.lease(number);
        if lease.granted == lease.wanted {
            return;
        }
        let others = self.leases.all.iter().filter(|other| {
            (other.book, other.firm_until_ms) == (lease.book, None)
                && other.class >= lease.class
                && other.number != number
        });
        let loose: i128 = others.map(|other| other.granted).sum();
        let free = self.supply(lease.book) - self.granted(lease.book);
        let least = if lease.whole { lease.wanted } else { 1 };
        let dear = free + loose >= least;
        let why = if dear { LeaseOutcome::PriceTooLow } else { LeaseOutcome::Unavailable };
        self.say_lease(who, number, why);
    }

    fn say_moved(&mut self, who: &Caller) {
        for (number, had, why) in std::mem::take(&mut self.leases.moved) {
            self.pay(number);
            let granted = self.lease(number).granted;
            if granted > had {
                self.say_lease(who, number, LeaseOutcome::Granted);
            } else if let Some(why) = why.filter(|_| granted < had) {
                self.say_lease(who, number, why);
            }
        }
    }

    /// VRUs of a book that are leased.
    pub fn granted(&self, book: usize) -> i128 {
        let own = self.leases.all.iter().filter(|lease| lease.book == book);
        own.map(|lease| lease.granted).sum()
    }
}

/// Clearing.
impl Market {
    /// The lease that gives way first.
    fn last(&self, book: usize, firm_too: bool) -> Option<Lease> {
        let has = self.leases.all.iter().filter(|lease| lease.book == book && lease.granted > 0);
        let may = has.filter(|lease| firm_too || lease.firm_until_ms.is_none());
        may.min_by_key(|lease| {
            let firm = lease.firm_until_ms.is_some();
            (firm, Reverse(lease.class), lease.rent, Reverse(lease.lines.1))
        })
        .copied()
    }

    fn takes_from(&self, lease: &Lease, other: &Lease) -> bool {
        let dearer = lease.rent * 100 >= other.rent * (100 + self.rules.lease_margin_percent);
        let same = lease.class == other.class;
        lease.class < other.class || same && lease.rent > other.rent && dearer
    }

    /// The lease that is served next.
    fn first(&self, book: usize, free: i128) -> Option<Lease> {
        let here = self.leases.all.iter().filter(|lease| lease.book == book);
        let takes = |lease: &Lease| -> i128 {
            let others = here.clone().filter(|other| other.firm_until_ms.is_none());
            others.filter(|other| self.takes_from(lease, other)).map(|other| other.granted).sum()
        };
        let mut waits: Vec<&Lease> =
            here.clone().filter(|lease| lease.granted < lease.wanted).collect();
        waits.sort_by_key(|lease| (lease.class, Reverse(lease.rent), lease.lines.0));
        let gets =
            |lease: &&&Lease| free + takes(lease) >= if lease.whole { lease.wanted } else { 1 };
        waits.iter().find(gets).map(|lease| **lease)
    }

    pub(super) fn clear_leases(&mut self, who: &Caller, book: usize) {
        loop {
            let free = self.supply(book) - self.granted(book);
            if free < 0 {
                let last = self.last(book, true).expect("somebody has too much");
                self.take(&last, -free, LeaseOutcome::Withdrawn);
                continue;
            }
            let Some(lease) = self.first(book, free) else { break };
            let most = lease.wanted - lease.granted;
            if free >= if lease.whole { most } else { 1 } {
                self.give(&lease, most.min(free));
            } else {
                let last = self.last(book, false).expect("somebody can lose something");
                self.take(&last, most - free, LeaseOutcome::Displaced);
            }
        }
        self.leases.rents[book] = [0, 1, 2].map(|class| self.rent(book, class));
        self.say_moved(who);
    }

    /// The best rent that waits, at most what everybody with VRUs pays; at least the reserve.
    fn rent(&self, book: usize, class: u8) -> i128 {
        let all = self.leases.all.iter();
        let own = all.filter(|lease| (lease.book, lease.class) == (book, class));
        let waits = own.clone().filter(|lease| lease.granted < lease.wanted);
        let has = own.filter(|lease| lease.granted > 0).map(|lease| lease.rent).min();
        let rent = waits.map(|lease| lease.rent).max().zip(has).map_or(0, |(a, b)| a.min(b));
        rent.max(self.leases.reserve[book][usize::from(class)])
    }

    fn take(&mut self, lease: &Lease, vru: i128, why: LeaseOutcome) {
        self.note_moved(lease.number);
        let moved = self.leases.moved.iter_mut().find(|moved| moved.0 == lease.number);
        moved.expect("just noted").2 = Some(why);
        let taken = if lease.whole { lease.granted } else { vru.min(lease.granted) };
        let waited = lease.granted < lease.wanted;
        self.leases.line += 1;
        let line = self.leases.line;
        let row = self.lease_mut(lease.number);
        row.granted -= taken;
        if !waited {
            row.lines.0 = line;
        }
        if row.granted == 0 {
            row.firm_until_ms = None;
        }
    }

    fn give(&mut self, lease: &Lease, vru: i128) {
        self.note_moved(lease.number);
        self.leases.line += 1;
        let (line, now_ms) = (self.leases.line, self.leases.now_ms);
        let row = self.lease_mut(lease.number);
        if row.granted == 0 {
            row.firm_until_ms = Some(now_ms + row.hold_ms);
            row.pays_ms = now_ms + 5000;
            row.lines.1 = line;
        }
        row.granted += vru;
    }
}

/// Time, and what happens around leases.
impl Market {
    pub(super) fn tick_leases(&mut self, who: &Caller) {
        let now_ms = self.leases.now_ms;
        let rescues = self.tick_rescue(who);
        let all = self.leases.all.iter();
        let mut due: Vec<(i128, u64)> = all
            .filter_map(|lease| Some((lease.due_ms()?, lease.number)))
            .filter(|due| due.0 <= now_ms)
            .collect();
        due.sort_unstable();
        for (_, number) in &due {
            self.lease_due(who, *number, now_ms);
        }
        self.say_moved(who);
        if rescues || !due.is_empty() {
            self.clear_all(who);
        }
        self.say_rescues_that_wait(who);
    }

    pub(super) fn clear_all(&mut self, who: &Caller) {
        (0..self.books.len()).for_each(|book| self.clear_leases(who, book));
    }

    fn lease_due(&mut self, who: &Caller, number: u64, now_ms: i128) {
        let lease = *self.lease(number);
        if lease.expires_ms.is_some_and(|at| at <= now_ms) {
            self.end_lease(who, number, LeaseOutcome::Expired);
            return;
        }
        if lease.granted > 0 && lease.firm_until_ms.is_some_and(|at| at <= now_ms) {
            self.leases.line += 1;
            let line = self.leases.line;
            let row = self.lease_mut(number);
            (row.firm_until_ms, row.lines.1) = (None, line);
        }
        if lease.granted > 0 && lease.pays_ms <= now_ms {
            self.pay(number);
            let account = self.payer_of(&lease);
            let cover = self.cover(lease.book, lease.wanted, lease.rent).unwrap_or(0);
            let lack = cover - self.lease(number).held;
            let left = self.budget_left(lease.objective);
            let may = self.accounts[account].free >= lack && left.is_none_or(|left| left >= cover);
            if !may || !self.policy_holds(lease.handle, lack) {
                self.end_lease(who, number, LeaseOutcome::OutOfFunds);
                return;
            }
            self.accounts[account].free -= lack;
            let row = self.lease_mut(number);
            (row.held, row.pays_ms) = (cover, now_ms + 5000);
        }
    }

    pub(super) fn end_leases_of(&mut self, who: &Caller, instance: u32) {
        if let Some(lease) = self.storage_lease(instance).copied() {
            self.end_lease(who, lease.number, LeaseOutcome::InstanceRemoved);
            self.clear_leases(who, lease.book);
        }
        for resource in 0..RESOURCES {
            let own = self.leases.all.iter().filter(|lease| lease.instance == instance);
            let own = own.filter(|lease| self.books[lease.book].resource == resource);
            let mut own: Vec<u64> = own.map(|lease| lease.number).collect();
            own.sort_unstable();
            for number in own.into_iter().rev() {
                self.end_lease(who, number, LeaseOutcome::InstanceRemoved);
            }
            self.end_loan(instance, resource);
        }
        self.forget_objectives(instance);
        self.leases.of.remove(&instance);
        self.leases.acts.retain(|act| act.0 != instance);
    }

    /// There is more or less to lease in a tier.
    pub(super) fn reclear(&mut self, books: &[usize]) {
        let who = Caller { session: ANY, request: 0, time_ns: self.leases.time_ns };
        books.iter().for_each(|&book| self.clear_leases(&who, book));
    }

    /// As [`Market::reclear`], of all resources of a tier.
    pub(super) fn reclear_tier(&mut self, tier: u16) {
        let here = |&book: &usize| self.books[book].tier == tier;
        let books: Vec<usize> = (0..self.books.len()).filter(here).collect();
        self.reclear(&books);
    }
}
