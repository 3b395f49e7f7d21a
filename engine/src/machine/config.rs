//! The machine's bounds, as compile-time relations and as checked start-up commands.

use super::command::{DefineBook, DefineCredits, DefineExchange, Genesis};
use super::exchange::in_order;
use super::slab::BOOKS_MAX;
use super::tiers::VRU_SIZE_MAX;
use vendue_wire::message::{RATE_MAX, U32};

/// Number of resources.
pub const RESOURCES: usize = vendue_wire::code::RESOURCES;

/// Milli-credits of one credit.
pub const MILLI: u64 = 1000;

/// All funds together, micro-units: leaves head room in every 64-bit sum.
pub const FUNDS_MAX_MICRO: u64 = 1 << 62;

/// All credits of a book together, milli-credits: whoever ends up with them, no balance overflows.
pub const CREDITS_MAX_MILLI: u64 = 1 << 62;

/// An order's largest notional, micro-units: times 10,000 basis points it fits 64 bits.
pub const NOTIONAL_MAX_MICRO: u64 = u64::MAX / 20_000;

/// Tiers at most.
pub const TIERS_MAX: usize = BOOKS_MAX / RESOURCES;

/// Exchanges between tiers at most that are not the usual.
pub const EXCHANGES_MAX: usize = 256;

/// Why bounds cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundsError {
    /// A number is outside its range.
    #[error("{name} is {value}; it must be {low} to {high}")]
    Range {
        /// Name as in the configuration.
        name: &'static str,
        /// The value given.
        value: u64,
        /// Lowest allowed.
        low: u64,
        /// Highest allowed.
        high: u64,
    },
    /// An order could be worth more than the arithmetic allows.
    #[error(
        "price_ticks_max x tick_micro x quantity_max is above {NOTIONAL_MAX_MICRO} micro-units; \
         lower one of them"
    )]
    Notional,
    /// An exchange rate is outside its bounds, or these are none.
    #[error("low <= rate <= high must hold, between 1/{RATE_MAX} and {RATE_MAX}/1")]
    Rate,
    /// Tiers and resources must come in order, each once.
    #[error("tier {tier} resource {resource} is out of order or defined twice")]
    Order {
        /// Tier number.
        tier: u16,
        /// Resource number.
        resource: u8,
    },
}

pub(super) fn range(
    name: &'static str,
    value: u64,
    low: u64,
    high: u64,
) -> Result<(), BoundsError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(BoundsError::Range { name, value, low, high })
    }
}

impl Genesis {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first bound outside its range.
    pub fn check(&self) -> Result<(), BoundsError> {
        range("accounts_max", self.accounts_max.get().into(), 1, 65_535)?;
        range("instances_max", self.instances_max.get().into(), 1, 65_535)?;
        range("orders_max", self.orders_max.get().into(), 1, 1 << 24)?;
        let per_instance = u64::from(self.orders_per_instance_max.get());
        range("orders_per_instance_max", per_instance, 1, self.orders_max.get().into())?;
        range("sessions_max", self.sessions_max.get().into(), 1, 65_535)?;
        range("credit_cap_s", self.credit_cap_s.get().into(), 1, 31 * 86_400)?;
        range("burst_resume_ms", self.burst_resume_ms.get().into(), 1, 3_600_000)?;
        range("limit_window_s", self.limit_window_s.get().into(), 1, 31 * 86_400)?;
        range("reversible_trades", self.reversible_trades.get().into(), 0, 1 << 20)?;
        range("leases_max", self.leases_max.get().into(), 1, 1 << 20)?;
        range("swap_every_ms", self.swap_every_ms.get().into(), 0, 86_400_000)?;
        range("lease_margin_percent", self.lease_margin_percent.get().into(), 0, 1000)?;
        range("maker_fee_bps", self.maker_fee_bps.get().into(), 0, 10_000)?;
        range("taker_fee_bps", self.taker_fee_bps.get().into(), 0, 10_000)
    }
}

impl DefineBook {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first bound outside its range.
    pub fn check(&self) -> Result<(), BoundsError> {
        range("tier", self.tier.get().into(), 0, TIERS_MAX as u64 - 1)?;
        range("vru_size", self.vru_size.get(), 1, VRU_SIZE_MAX)?;
        range("capacity_vru", self.capacity_vru.get(), 1, u32::MAX.into())?;
        range("tick_micro", self.tick_micro.get(), 1, 1 << 40)?;
        range("price_ticks_max", self.price_ticks_max.get().into(), 1, 65_535)?;
        range("quantity_max", self.quantity_max.get().into(), 1, u32::MAX.into())?;
        range("burst_percent", self.burst_percent.get().into(), 100, 100_000)?;
        let every_ms = self.auction_every_ms.get().into();
        range("auction_every_ms", every_ms, 0, 86_400_000)?;
        range("call_ms", self.call_ms.get().into(), every_ms.min(1), every_ms)?;
        let notional = u128::from(self.price_ticks_max.get())
            * u128::from(self.tick_micro.get())
            * u128::from(self.quantity_max.get());
        if notional > u128::from(NOTIONAL_MAX_MICRO) {
            return Err(BoundsError::Notional);
        }
        Ok(())
    }
}

impl DefineCredits {
    /// What holds for a book of which nothing else was said: nothing at launch, no expiry, a
    /// reserve price of one credit, wealth to the power of 2.5, and the baseline for who has none.
    pub fn usual(tier: u16, resource: u8) -> DefineCredits {
        DefineCredits {
            launch_s: 0.into(),
            expiry_s: 0.into(),
            reserve_milli: 1000.into(),
            wealth_percent: 250.into(),
            spent_percent: 100.into(),
            tier: tier.into(),
            resource,
            reserved: 0,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// The first bound outside its range.
    pub fn check(&self) -> Result<(), BoundsError> {
        range("launch_s", self.launch_s.get().into(), 0, 31 * 86_400)?;
        range("expiry_s", self.expiry_s.get().into(), 0, 31 * 86_400)?;
        range("reserve_milli", self.reserve_milli.get().into(), 1000, 100_000)?;
        range("wealth_percent", self.wealth_percent.get().into(), 0, 1000)?;
        range("spent_percent", self.spent_percent.get().into(), 100, 100_000)
    }
}

impl DefineExchange {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first bound outside its range.
    pub fn check(&self) -> Result<(), BoundsError> {
        let [low, rate, high] = [self.low, self.rate, self.high].map(|rate| rate.map(U32::get));
        if !in_order(low, rate, high) {
            return Err(BoundsError::Rate);
        }
        range("every_ms", self.every_ms.get().into(), 0, 86_400_000)?;
        range("step_vru", self.step_vru.get().into(), 1, u32::MAX.into())?;
        let saturated = self.saturated_percent.get().into();
        range("saturated_percent", saturated, 2, 100)?;
        range("idle_percent", self.idle_percent.get().into(), 1, saturated - 1)?;
        range("looks", self.looks.get().into(), 1, 10_000)?;
        range("rate_step_percent", self.rate_step_percent.get().into(), 0, 50)
    }
}
