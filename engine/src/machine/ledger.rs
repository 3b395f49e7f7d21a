//! Double entry over funds and credits.
//!
//! Every amount that leaves one balance enters another; the house's own lines (issue, burn, fees)
//! take part like any other. `funds_gap` and `credits_gap` sum each command's postings and must
//! be zero when it ends: [`Ledger::assert_balanced`] is called after every command, in release
//! builds too. [`Ledger::check`] compares the whole against the house's totals.

use super::config::{CREDITS_MAX_MILLI, FUNDS_MAX_MICRO, RESOURCES};
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

/// All balances.
#[derive(Debug)]
pub struct Ledger {
    /// Funds of each account, micro-units.
    pub funds: Box<[Balance]>,
    /// Milli-credits of each instance and resource: `instance * RESOURCES + resource`.
    pub credits: Box<[Balance]>,
    /// Micro-units paid in and not paid out again.
    pub funds_issued: u64,
    /// Micro-units of fees taken.
    pub fees: u64,
    /// House lines of each book.
    pub house: Vec<CreditHouse>,
    funds_gap: i64,
    credits_gap: i64,
}

impl Ledger {
    /// Empty balances for `accounts` and `instances`.
    pub fn new(accounts: u32, instances: u32) -> Ledger {
        Ledger {
            funds: vec![Balance::default(); accounts as usize].into_boxed_slice(),
            credits: vec![Balance::default(); instances as usize * RESOURCES].into_boxed_slice(),
            funds_issued: 0,
            fees: 0,
            house: Vec::new(),
            funds_gap: 0,
            credits_gap: 0,
        }
    }

    /// An instance's balance of a resource, milli-credits.
    #[inline]
    pub fn credit(&self, instance: u16, resource: Resource) -> Balance {
        self.credits[usize::from(instance) * RESOURCES + resource as usize]
    }

    #[inline]
    fn credit_mut(&mut self, instance: u16, resource: Resource) -> &mut Balance {
        &mut self.credits[usize::from(instance) * RESOURCES + resource as usize]
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
        self.funds_gap -= micro as i64;
        self.funds_free_add(account, micro);
        Ok(self.funds[usize::from(account)].free)
    }

    /// Pays funds out of an account.
    ///
    /// # Errors
    /// [`Reject::InsufficientFunds`] if the free balance does not cover it.
    pub fn withdraw(&mut self, account: u16, micro: u64) -> Result<u64, Reject> {
        if self.funds[usize::from(account)].free < micro {
            return Err(Reject::InsufficientFunds);
        }
        self.funds_free_take(account, micro);
        self.funds_issued -= micro;
        self.funds_gap += micro as i64;
        Ok(self.funds[usize::from(account)].free)
    }

    #[inline]
    fn funds_free_add(&mut self, account: u16, micro: u64) {
        self.funds[usize::from(account)].free += micro;
        self.funds_gap = self.funds_gap.wrapping_add(micro as i64);
    }

    #[inline]
    fn funds_free_take(&mut self, account: u16, micro: u64) {
        let balance = &mut self.funds[usize::from(account)];
        assert!(balance.free >= micro, "funds of account {account} would go negative");
        balance.free -= micro;
        self.funds_gap = self.funds_gap.wrapping_sub(micro as i64);
    }

    /// Moves free funds to held.
    #[inline(always)]
    pub fn hold_funds(&mut self, account: u16, micro: u64) {
        let balance = &mut self.funds[usize::from(account)];
        assert!(balance.free >= micro, "hold beyond the free funds of account {account}");
        balance.free -= micro;
        balance.held += micro;
    }

    /// Moves held funds back to free.
    #[inline(always)]
    pub fn release_funds(&mut self, account: u16, micro: u64) {
        let balance = &mut self.funds[usize::from(account)];
        assert!(balance.held >= micro, "release beyond the held funds of account {account}");
        balance.held -= micro;
        balance.free += micro;
    }

    /// Moves free credits to held.
    #[inline(always)]
    pub fn hold_credits(&mut self, instance: u16, resource: Resource, milli: u64) {
        let balance = self.credit_mut(instance, resource);
        assert!(balance.free >= milli, "hold beyond the free credits of instance {instance}");
        balance.free -= milli;
        balance.held += milli;
    }

    /// Moves held credits back to free.
    #[inline(always)]
    pub fn release_credits(&mut self, instance: u16, resource: Resource, milli: u64) {
        let balance = self.credit_mut(instance, resource);
        assert!(balance.held >= milli, "release beyond the held credits of instance {instance}");
        balance.held -= milli;
        balance.free += milli;
    }

    /// Posts a maker's side of a trade: what it pays was held, what it gets is free.
    #[inline(always)]
    pub fn settle_maker(&mut self, maker: &SideOfTrade) {
        let SideOfTrade { side, account, instance, resource, notional, fee, milli } = *maker;
        match side {
            Side::Buy => {
                let cost = notional + fee;
                let funds = &mut self.funds[usize::from(account)];
                assert!(funds.held >= cost, "held funds of a buyer do not cover its trade");
                funds.held -= cost;
                self.funds_gap = self.funds_gap.wrapping_sub(cost as i64);
                self.credits_free_add(instance, resource, milli);
            }
            Side::Sell => {
                assert!(fee <= notional, "a fee takes more than the sale brings");
                self.funds_free_add(account, notional - fee);
                let credits = self.credit_mut(instance, resource);
                assert!(credits.held >= milli, "held credits of a seller do not cover its trade");
                credits.held -= milli;
                self.credits_gap = self.credits_gap.wrapping_sub(milli as i64);
            }
        }
        self.take_fee(fee);
    }

    /// Posts a taker's side of one or more trades: what it pays is free and so is what it gets.
    #[inline(always)]
    pub fn settle_taker(&mut self, taker: &SideOfTrade) {
        let SideOfTrade { side, account, instance, resource, notional, fee, milli } = *taker;
        match side {
            Side::Buy => {
                self.funds_free_take(account, notional + fee);
                self.credits_free_add(instance, resource, milli);
            }
            Side::Sell => {
                assert!(fee <= notional, "a fee takes more than the sale brings");
                self.funds_free_add(account, notional - fee);
                let credits = self.credit_mut(instance, resource);
                assert!(credits.free >= milli, "free credits of a seller do not cover its trade");
                credits.free -= milli;
                self.credits_gap = self.credits_gap.wrapping_sub(milli as i64);
            }
        }
        self.take_fee(fee);
    }

    #[inline(always)]
    fn credits_free_add(&mut self, instance: u16, resource: Resource, milli: u64) {
        self.credit_mut(instance, resource).free += milli;
        self.credits_gap = self.credits_gap.wrapping_add(milli as i64);
    }

    #[inline(always)]
    fn take_fee(&mut self, micro: u64) {
        self.fees += micro;
        self.funds_gap = self.funds_gap.wrapping_add(micro as i64);
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
        self.credits_gap = self.credits_gap.wrapping_sub(milli as i64);
        self.credit_mut(instance, resource).free += milli;
        self.credits_gap = self.credits_gap.wrapping_add(milli as i64);
    }

    /// Burns up to `milli` free credits of an instance and returns how many it burned.
    pub fn burn(&mut self, book: usize, instance: u16, resource: Resource, milli: u64) -> u64 {
        let balance = self.credit_mut(instance, resource);
        let burned = milli.min(balance.free);
        balance.free -= burned;
        self.credits_gap = self.credits_gap.wrapping_sub(burned as i64);
        self.house[book].burned += u128::from(burned);
        self.credits_gap = self.credits_gap.wrapping_add(burned as i64);
        burned
    }

    /// The end of every command: all its postings sum to zero.
    #[inline]
    pub fn assert_balanced(&self) {
        assert!(self.funds_gap == 0 && self.credits_gap == 0, "postings do not sum to zero");
    }

    /// The whole ledger against the house's totals. `books` gives for each instance and resource
    /// the book whose house issued its credits.
    ///
    /// # Panics
    /// If a unit of funds or credits was made or lost: going on would hand out wrong balances.
    pub fn check(&self, book_of: impl Fn(usize, usize) -> Option<usize>) {
        let total: u128 = self.funds.iter().map(|b| u128::from(b.free) + u128::from(b.held)).sum();
        assert_eq!(
            total + u128::from(self.fees),
            u128::from(self.funds_issued),
            "funds are not conserved"
        );
        let mut totals = vec![0_u128; self.house.len()];
        for (at, balance) in self.credits.iter().enumerate() {
            let sum = u128::from(balance.free) + u128::from(balance.held);
            match book_of(at / RESOURCES, at % RESOURCES) {
                Some(book) => totals[book] += sum,
                None => assert_eq!(sum, 0, "credits outside any book"),
            }
        }
        for (book, house) in self.house.iter().enumerate() {
            assert_eq!(
                totals[book] + house.burned,
                house.issued,
                "credits of book {book} are not conserved"
            );
        }
    }
}

/// One party's side of a trade with one or more others.
#[derive(Clone, Copy, Debug)]
pub struct SideOfTrade {
    /// Whether it buys or sells.
    pub side: Side,
    /// Its account.
    pub account: u16,
    /// Its instance.
    pub instance: u16,
    /// What is traded.
    pub resource: Resource,
    /// Price times quantity, micro-units.
    pub notional: u64,
    /// Its fee, micro-units.
    pub fee: u64,
    /// Milli-credits traded.
    pub milli: u64,
}
