//! Double entry over funds and credits.
//!
//! Every amount that leaves one balance enters another; the house's own lines (issue, burn, fees)
//! take part like any other. [`Gap`] sums each command's postings and must be zero when it
//! ends: [`Ledger::assert_balanced`] is called after every command, in release builds too. [`Ledger::check`] compares the whole against the house's totals.

use super::config::{CREDITS_MAX_MILLI, FUNDS_MAX_MICRO, RESOURCES};
use std::hint::select_unpredictable;
use vendue_wire::code::{Reject, Resource, Side};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A balance: what its owner may use, and what is held for open orders.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Balance {
    /// Free to use.
    pub free: u64,
    /// Held for open orders.
    pub held: u64,
}

impl Balance {
    /// Moves free to held.
    #[inline(always)]
    pub fn hold(&mut self, amount: u64) {
        assert!(self.free >= amount, "more is held than is free");
        self.free -= amount;
        self.held += amount;
    }

    /// Moves held back to free.
    #[inline(always)]
    pub fn release(&mut self, amount: u64) {
        assert!(self.held >= amount, "more is released than is held");
        self.held -= amount;
        self.free += amount;
    }
}

/// A balance with the range of free amounts in which nothing follows from it. An account's funds
/// never leave theirs; an instance's credits of a resource leave it where a burst flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pocket {
    /// The balance.
    pub balance: Balance,
    /// The range begins at this free amount...
    low: u64,
    /// ...and is so long.
    span: u64,
}

impl Pocket {
    /// An empty one from which nothing follows.
    pub const EMPTY: Pocket =
        Pocket { balance: Balance { free: 0, held: 0 }, low: 0, span: u64::MAX };

    /// Sets the range `low..high`.
    pub fn stay_within(&mut self, low: u64, high: u64) {
        (self.low, self.span) = (low, high - low);
    }

    /// True if the free amount has left the range.
    #[inline(always)]
    pub fn flips(&self) -> bool {
        self.balance.free.wrapping_sub(self.low) >= self.span
    }
}

/// What postings sum to: nothing, once a command is through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Micro-units of funds, milli-credits.
    sums: [i64; 2],
}

/// The house's lines of one tier and resource, in milli-credits since the journal began.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct CreditHouse {
    /// Issued by accrual and by operators.
    pub issued: u128,
    /// Burned by payment for use and with removed instances.
    pub burned: u128,
}

/// The pool of one tier and resource, milli-credits, and the house's lines of it. Kept apart from
/// the instances' credits: what lies in a pool is no instance's wealth.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Pool {
    /// Earned by unreserved capacity or come in a swap, since the journal began.
    pub issued: u128,
    /// Gone in a swap, since the journal began.
    pub burned: u128,
    /// In it now.
    pub free: u64,
    /// Zero.
    pub reserved: u64,
}

impl Pool {
    /// True if nothing was made or lost in it, and it may hold what it does.
    pub fn is_sound(&self) -> bool {
        let sum = self.burned.checked_add(self.free.into());
        sum == Some(self.issued) && self.free <= CREDITS_MAX_MILLI
    }
}

/// Index of an instance's pocket of a resource.
#[inline(always)]
pub fn pocket(instance: u16, resource: Resource) -> usize {
    usize::from(instance) * RESOURCES + resource as usize
}

/// All balances.
#[derive(Debug)]
pub struct Ledger {
    /// By the side that spends them: funds of each account, micro-units; milli-credits of each
    /// instance and resource, `instance * RESOURCES + resource`.
    pockets: [Box<[Pocket]>; 2],
    /// Micro-units paid in and not paid out again.
    pub funds_issued: u64,
    /// Micro-units of fees taken.
    pub fees: u64,
    /// Micro-units of rent taken for leases and not passed on to lenders.
    pub rents: u64,
    /// House lines of each book.
    pub house: Vec<CreditHouse>,
    /// Pool of each book.
    pub pools: Vec<Pool>,
    gap: Gap,
}

impl Ledger {
    /// Empty balances for `accounts` and `instances`.
    pub fn new(accounts: u32, instances: u32) -> Ledger {
        Ledger {
            pockets: [accounts as usize, instances as usize * RESOURCES]
                .map(|count| vec![Pocket::EMPTY; count].into_boxed_slice()),
            funds_issued: 0,
            fees: 0,
            rents: 0,
            house: Vec::new(),
            pools: Vec::new(),
            gap: Gap::default(),
        }
    }

    /// Funds of each account, micro-units.
    #[inline(always)]
    pub fn funds(&self) -> &[Pocket] {
        &self.pockets[0]
    }

    /// Milli-credits of each instance and resource: `instance * RESOURCES + resource`.
    #[inline(always)]
    pub fn credits(&self) -> &[Pocket] {
        &self.pockets[1]
    }

    /// Every account's funds and every instance's credits.
    pub fn pockets_mut(&mut self) -> &mut [Box<[Pocket]>; 2] {
        &mut self.pockets
    }

    /// An instance's balance of a resource, milli-credits.
    #[inline]
    pub fn credit(&self, instance: u16, resource: Resource) -> Balance {
        self.credits()[pocket(instance, resource)].balance
    }

    #[inline]
    fn credit_mut(&mut self, instance: u16, resource: Resource) -> &mut Balance {
        &mut self.pockets[1][pocket(instance, resource)].balance
    }

    /// What an order of this side spends: the account's funds or the instance's credits.
    #[inline(always)]
    pub fn pocket(
        &mut self,
        side: Side,
        account: u16,
        instance: u16,
        resource: Resource,
    ) -> &mut Pocket {
        let credits = pocket(instance, resource);
        let at = select_unpredictable(side == Side::Sell, credits, usize::from(account));
        &mut self.pockets[side as usize][at]
    }

    /// What an order of this side spends, and what it gains.
    #[inline(always)]
    pub fn pockets(
        &mut self,
        side: Side,
        account: u16,
        instance: u16,
        resource: Resource,
    ) -> (&mut Pocket, &mut Pocket) {
        let [funds, credits] = &mut self.pockets;
        let funds = &mut funds[usize::from(account)];
        let credits = &mut credits[pocket(instance, resource)];
        match side {
            Side::Buy => (funds, credits),
            Side::Sell => (credits, funds),
        }
    }

    /// Pays funds into an account.
    ///
    /// # Errors
    /// [`Reject::Overflow`] if all funds together would pass the ledger's maximum.
    pub fn deposit(&mut self, account: u16, micro: u64) -> Result<u64, Reject> {
        let issued = self.funds_issued.checked_add(micro).ok_or(Reject::Overflow)?;
        if issued > FUNDS_MAX_MICRO {
            return Err(Reject::Overflow);
        }
        self.funds_issued = issued;
        self.gap.sums[0] -= micro as i64;
        self.funds_free_add(account, micro);
        Ok(self.funds()[usize::from(account)].balance.free)
    }

    /// Pays funds out of an account.
    ///
    /// # Errors
    /// [`Reject::InsufficientFunds`] if the free balance does not cover it.
    pub fn withdraw(&mut self, account: u16, micro: u64) -> Result<u64, Reject> {
        if self.funds()[usize::from(account)].balance.free < micro {
            return Err(Reject::InsufficientFunds);
        }
        self.funds_free_take(account, micro);
        self.funds_issued -= micro;
        self.gap.sums[0] += micro as i64;
        Ok(self.funds()[usize::from(account)].balance.free)
    }

    #[inline]
    fn funds_free_add(&mut self, account: u16, micro: u64) {
        self.pockets[0][usize::from(account)].balance.free += micro;
        self.gap.sums[0] = self.gap.sums[0].wrapping_add(micro as i64);
    }

    #[inline]
    fn funds_free_take(&mut self, account: u16, micro: u64) {
        let balance = &mut self.pockets[0][usize::from(account)].balance;
        assert!(balance.free >= micro, "funds of account {account} would go negative");
        balance.free -= micro;
        self.gap.sums[0] = self.gap.sums[0].wrapping_sub(micro as i64);
    }

    /// Holds free funds of an account.
    pub fn hold_funds(&mut self, account: u16, micro: u64) {
        self.pockets[0][usize::from(account)].balance.hold(micro);
    }

    /// Frees held funds of an account.
    pub fn release_funds(&mut self, account: u16, micro: u64) {
        self.pockets[0][usize::from(account)].balance.release(micro);
    }

    /// Pays rent to the house, out of what is held and what is free.
    pub fn pay_rent(&mut self, account: u16, held: u64, free: u64) {
        self.release_funds(account, held);
        self.funds_free_take(account, held + free);
        self.rents += held + free;
        self.gap.sums[0] = self.gap.sums[0].wrapping_add((held + free) as i64);
    }

    /// Passes rent that the house took on to a lender.
    pub fn pass_rent(&mut self, account: u16, micro: u64) {
        assert!(micro <= self.rents, "the house passes on rent that it does not have");
        self.rents -= micro;
        self.gap.sums[0] = self.gap.sums[0].wrapping_sub(micro as i64);
        self.funds_free_add(account, micro);
    }

    /// Pays what a task cost, or what is left of an incentive: from what is held of an account to
    /// another's free funds.
    pub fn pay_held(&mut self, from: u16, to: u16, micro: u64) {
        let payer = &mut self.pockets[0][usize::from(from)].balance;
        assert!(payer.held >= micro, "more is paid than is held for it");
        payer.held -= micro;
        self.gap.sums[0] = self.gap.sums[0].wrapping_sub(micro as i64);
        self.funds_free_add(to, micro);
    }

    /// Passes funds that are held of an account on to another, of which they are held then.
    pub fn pass_held(&mut self, from: u16, to: u16, micro: u64) {
        let payer = &mut self.pockets[0][usize::from(from)].balance;
        assert!(payer.held >= micro, "more is passed on than is held");
        payer.held -= micro;
        self.pockets[0][usize::from(to)].balance.held += micro;
    }

    /// Gives back what a trade cost: to the buyer what it paid, from the seller what it got, from
    /// the house both fees. `accounts` and `fees` are the seller's and the buyer's.
    ///
    /// # Errors
    /// [`Reject::InsufficientFunds`] if the seller's free balance does not cover it.
    pub fn refund(
        &mut self,
        accounts: [u16; 2],
        notional: u64,
        fees: [u64; 2],
    ) -> Result<(), Reject> {
        let got = notional.checked_sub(fees[0]).ok_or(Reject::Overflow)?;
        if self.funds()[usize::from(accounts[0])].balance.free < got {
            return Err(Reject::InsufficientFunds);
        }
        self.fees = self.fees.checked_sub(fees[0] + fees[1]).ok_or(Reject::Overflow)?;
        self.gap.sums[0] = self.gap.sums[0].wrapping_sub((fees[0] + fees[1]) as i64);
        self.funds_free_take(accounts[0], got);
        self.funds_free_add(accounts[1], notional + fees[1]);
        Ok(())
    }

    /// Moves free credits of a resource from an instance to another.
    pub fn move_credits(&mut self, from: u16, to: u16, resource: Resource, milli: u64) {
        let balance = self.credit_mut(from, resource);
        assert!(balance.free >= milli, "credits of instance {from} would go negative");
        balance.free -= milli;
        self.credit_mut(to, resource).free += milli;
    }

    /// Holds all free credits of an instance's resource and returns what is held.
    pub fn hold_credits(&mut self, instance: u16, resource: Resource) -> u64 {
        let balance = self.credit_mut(instance, resource);
        balance.hold(balance.free);
        balance.held
    }

    /// Frees all held credits of an instance's resource.
    pub fn release_credits(&mut self, instance: u16, resource: Resource) {
        let balance = self.credit_mut(instance, resource);
        balance.release(balance.held);
    }

    /// Brings in postings that were summed up elsewhere, and the fees they took.
    #[inline(always)]
    pub fn close(&mut self, gap: Gap, fees: u64) {
        self.fees += fees;
        self.gap.sums[0] = self.gap.sums[0].wrapping_add(gap.sums[0]).wrapping_add(fees as i64);
        self.gap.sums[1] = self.gap.sums[1].wrapping_add(gap.sums[1]);
    }

    /// Milli-credits that a book may still issue.
    pub fn credit_room(&self, book: usize) -> u64 {
        let house = &self.house[book];
        CREDITS_MAX_MILLI - (house.issued - house.burned) as u64
    }

    /// Issues credits to an instance; at most [`Ledger::credit_room`].
    pub fn issue(&mut self, book: usize, instance: u16, resource: Resource, milli: u64) {
        assert!(milli <= self.credit_room(book), "book {book} issues more than it may");
        self.house[book].issued += u128::from(milli);
        self.gap.sums[1] = self.gap.sums[1].wrapping_sub(milli as i64);
        self.credit_mut(instance, resource).free += milli;
        self.gap.sums[1] = self.gap.sums[1].wrapping_add(milli as i64);
    }

    /// Burns up to `milli` free credits of an instance and returns how many it burned.
    pub fn burn(&mut self, book: usize, instance: u16, resource: Resource, milli: u64) -> u64 {
        let balance = self.credit_mut(instance, resource);
        let burned = milli.min(balance.free);
        balance.free -= burned;
        self.gap.sums[1] = self.gap.sums[1].wrapping_sub(burned as i64);
        self.house[book].burned += u128::from(burned);
        self.gap.sums[1] = self.gap.sums[1].wrapping_add(burned as i64);
        burned
    }

    /// Milli-credits that a book's pool may still take.
    pub fn pool_room(&self, book: usize) -> u64 {
        CREDITS_MAX_MILLI - self.pools[book].free
    }

    /// Issues credits to a pool; at most [`Ledger::pool_room`].
    pub fn fill_pool(&mut self, book: usize, milli: u64) {
        assert!(milli <= self.pool_room(book), "pool {book} takes more than it may");
        let pool = &mut self.pools[book];
        pool.issued += u128::from(milli);
        self.gap.sums[1] = self.gap.sums[1].wrapping_sub(milli as i64);
        pool.free += milli;
        self.gap.sums[1] = self.gap.sums[1].wrapping_add(milli as i64);
    }

    /// Burns credits of a pool.
    pub fn drain_pool(&mut self, book: usize, milli: u64) {
        let pool = &mut self.pools[book];
        assert!(pool.free >= milli, "pool {book} would go negative");
        pool.free -= milli;
        self.gap.sums[1] = self.gap.sums[1].wrapping_sub(milli as i64);
        pool.burned += u128::from(milli);
        self.gap.sums[1] = self.gap.sums[1].wrapping_add(milli as i64);
    }

    /// The end of every command: all its postings sum to zero.
    #[inline]
    pub fn assert_balanced(&self) {
        assert!(self.gap.sums[0] | self.gap.sums[1] == 0, "postings do not sum to zero");
    }

    /// What is wrong with the whole ledger against the house's totals, if a unit of funds or credits was
    /// made or lost. `book_of` gives for each instance and resource the book whose house issued its
    /// credits. Sums wrap: a snapshot may hold any numbers.
    pub fn imbalance(
        &self,
        book_of: impl Fn(usize, usize) -> Option<usize>,
    ) -> Option<&'static str> {
        let sum =
            |pocket: &Pocket| u128::from(pocket.balance.free) + u128::from(pocket.balance.held);
        let total: u128 = self.funds().iter().map(sum).sum();
        let kept = u128::from(self.fees) + u128::from(self.rents);
        if total + kept != u128::from(self.funds_issued) {
            return Some("funds are not conserved");
        }
        let mut totals = vec![0_u128; self.house.len()];
        for (at, pocket) in self.credits().iter().enumerate() {
            match book_of(at / RESOURCES, at % RESOURCES) {
                Some(book) => totals[book] += sum(pocket),
                None if sum(pocket) == 0 => {}
                None => return Some("credits outside any book"),
            }
        }
        let mut houses = totals.iter().zip(&self.house);
        if !houses.all(|(total, house)| total.wrapping_add(house.burned) == house.issued) {
            return Some("credits are not conserved");
        }
        (!self.pools.iter().all(Pool::is_sound)).then_some("credits of a pool are not conserved")
    }
}

/// What is bought and sold in one or more trades.
#[derive(Clone, Copy, Debug)]
pub struct Sale {
    /// Price times quantity, micro-units.
    pub notional: u64,
    /// The party's fee, micro-units.
    pub fee: u64,
    /// Milli-credits.
    pub milli: u64,
}

impl Sale {
    /// What a side pays and what it gets. A seller's fee comes off what it gets: it is never more,
    /// because no fee is more than its notional.
    #[inline(always)]
    fn of(&self, side: Side) -> (u64, u64) {
        let Sale { notional, fee, milli } = *self;
        assert!(fee <= notional, "a fee takes more than the sale brings");
        ([notional + fee, milli][side as usize], [milli, notional - fee][side as usize])
    }
}

impl Gap {
    /// Posts a maker's side of a trade: what it pays was held, what it gets is free. `spent` and
    /// `gained` are its pockets, as its side has them.
    #[inline(always)]
    pub fn maker(&mut self, side: Side, sale: &Sale, spent: &mut Balance, gained: &mut Balance) {
        let (pays, gets) = sale.of(side);
        assert!(spent.held >= pays, "what a maker holds does not cover its trade");
        spent.held -= pays;
        gained.free += gets;
        self.post(side, pays, gets);
    }

    /// Posts a taker's side of its trades: what it pays is free and so is what it gets.
    #[inline(always)]
    pub fn taker(&mut self, side: Side, sale: &Sale, spent: &mut Balance, gained: &mut Balance) {
        let (pays, gets) = sale.of(side);
        assert!(spent.free >= pays, "what a taker has does not cover its trades");
        spent.free -= pays;
        gained.free += gets;
        self.post(side, pays, gets);
    }

    #[inline(always)]
    fn post(&mut self, side: Side, pays: u64, gets: u64) {
        let (paid, got) = (side as usize, side.opposite() as usize);
        self.sums[paid] = self.sums[paid].wrapping_sub(pays as i64);
        self.sums[got] = self.sums[got].wrapping_add(gets as i64);
    }
}
