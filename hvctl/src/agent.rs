//! Decides what an instance offers and requests of one resource: what its balance will be, whether
//! that is more than it needs or less, and at what price it trades the difference.
//!
//! Everything here is integer arithmetic on what the caller has seen: no clock, file or socket. So
//! `hvctl agent` runs it beside an instance, and a replay runs thousands of them in one process.
//!
//! Units: demand in milli-VRUs, balances in milli-credits; one milli-VRU for one second is one
//! milli-credit. Thresholds are in seconds of the instance's baseline: what it earns in that time.
//!
//! Read in this order: [`predict`] (what the balance will be), [`series`] (demand that the user
//! knows), [`price`], [`keep`] (orders kept fresh), [`backoff`].

pub mod predict;
pub mod series;

pub mod price;

pub mod keep;

pub mod backoff;

use keep::Order;
use predict::Window;
use price::{Band, Policy, URGENCY_MAX};
use series::Series;
use vendue_wire::code::Side;

/// Longest time to plan ahead: a week.
pub const HORIZON_S_MAX: u32 = 7 * 86_400;
/// Largest threshold, seconds of baseline: a year.
pub const THRESHOLD_S_MAX: i32 = 365 * 86_400;
/// Of an account's free funds, the part that is never bid, so that fees can be paid: a 32nd.
const FEE_PART: u64 = 32;
const MILLI: i128 = 1000;

/// How an agent decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How far it looks ahead, seconds.
    pub horizon_s: u32,
    /// It offers what its predicted balance has above this, seconds of baseline.
    pub offer_above_s: i32,
    /// It requests what its predicted balance lacks below this, seconds of baseline; may be
    /// negative.
    pub request_below_s: i32,
    /// Weights of the moving average of demand, newest sample first; as many as the window has.
    pub weights: Vec<u32>,
    /// How prices are found.
    pub policy: Policy,
    /// Bounds of every price.
    pub band: Band,
}

/// Why settings make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// The horizon is zero or longer than [`HORIZON_S_MAX`].
    #[error("the horizon is from 1 to {HORIZON_S_MAX} seconds")]
    Horizon,
    /// A threshold is beyond [`THRESHOLD_S_MAX`], or they overlap.
    #[error(
        "requests begin below a smaller balance than offers begin above, and both are within \
         {THRESHOLD_S_MAX} seconds of baseline"
    )]
    Thresholds,
    /// No weight, none for the newest sample, or more than [`predict::WINDOW_MAX`].
    #[error("a window has from 1 to {max} weights, the first of them not 0", max = predict::WINDOW_MAX)]
    Weights,
    /// A price of zero, or a low one above the high one.
    #[error("the low price is at least 1 tick and at most the high one")]
    Band,
}

/// What the agent sees when it decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Situation {
    /// Seconds since 1970 UTC: where a demand series is looked up.
    pub now_s: u64,
    /// VRUs that the instance reserves.
    pub baseline_vru: u32,
    /// Credits that are the agent's to use: the free ones and those held for its own offer.
    pub balance_millicredits: u64,
    /// Funds that it may bid: the free ones and those held for its own request, micro-units.
    pub funds_micro: u64,
    /// Micro-units of a price tick.
    pub tick_micro: u64,
    /// Highest price of the book, ticks.
    pub price_ticks_max: u32,
    /// Price of the last trade, ticks; 0 if there was none.
    pub last_ticks: u32,
}

/// What it decided, and from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Average demand expected over the horizon, milli-VRUs.
    pub demand_milli_vru: u64,
    /// Balance expected at the horizon, milli-credits; negative where demand outruns it.
    pub predicted_millicredits: i64,
    /// The one order that should stand, if any.
    pub order: Option<Order>,
}

/// The deciding part of one instance's agent, for one resource.
#[derive(Clone, Debug)]
pub struct Agent {
    settings: Settings,
    window: Window,
    series: Option<Series>,
}

impl Agent {
    /// An agent that has seen nothing yet. Where `series` speaks it replaces the moving average.
    ///
    /// # Errors
    /// [`BadSettings`].
    pub fn new(settings: Settings, series: Option<Series>) -> Result<Agent, BadSettings> {
        if !(1..=HORIZON_S_MAX).contains(&settings.horizon_s) {
            return Err(BadSettings::Horizon);
        }
        let (low, high) = (settings.request_below_s, settings.offer_above_s);
        let within = -THRESHOLD_S_MAX..=THRESHOLD_S_MAX;
        if low > high || !within.contains(&low) || !within.contains(&high) {
            return Err(BadSettings::Thresholds);
        }
        if settings.band.low_ticks == 0 || settings.band.low_ticks > settings.band.high_ticks {
            return Err(BadSettings::Band);
        }
        let window = Window::new(settings.weights.clone()).ok_or(BadSettings::Weights)?;
        Ok(Agent { settings, window, series })
    }

    /// Takes in what was used lately, milli-VRUs.
    pub fn observe(&mut self, demand_milli_vru: u64) {
        self.window.push(demand_milli_vru);
    }

    /// Decides which order should stand now. `None` while nothing is known about the demand.
    ///
    /// `predicted = balance + (baseline - demand) x horizon`. What it has above the upper threshold
    /// is offered, but never so much that the balance of today falls below the lower one; what it
    /// lacks below the lower one is requested, as far as the funds reach.
    pub fn decide(&self, seen: &Situation) -> Option<Decision> {
        let horizon_s = u64::from(self.settings.horizon_s);
        let demand = self.demand_millicredits(seen.now_s, horizon_s)?;
        let earned = i128::from(seen.baseline_vru) * MILLI * i128::from(horizon_s);
        let balance = i128::from(seen.balance_millicredits);
        let predicted = balance + earned - i128::from(demand);
        let of_baseline =
            |seconds: i32| i128::from(seconds) * i128::from(seen.baseline_vru) * MILLI;
        let upper = of_baseline(self.settings.offer_above_s);
        let lower = of_baseline(self.settings.request_below_s);
        assert!(lower <= upper, "checked when the agent was made");
        // Beyond a threshold by what the baseline earns in a horizon: as urgent as can be.
        let urgency = |beyond: i128| {
            let most = i128::from(URGENCY_MAX);
            (beyond * most / earned.max(1)).clamp(0, most) as u32
        };
        let order = if predicted > upper {
            let spare = balance - lower.max(0);
            let credits = (predicted - upper).min(spare) / MILLI;
            self.order(seen, Side::Sell, urgency(predicted - upper), credits)
        } else if predicted < lower {
            let credits = (lower - predicted + MILLI - 1) / MILLI;
            self.order(seen, Side::Buy, urgency(lower - predicted), credits)
        } else {
            None
        };
        Some(Decision {
            demand_milli_vru: demand / horizon_s,
            predicted_millicredits: predicted.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
            order,
        })
    }

    /// Credits that the instance will use up to the horizon, milli-credits: the series' as far as
    /// it speaks, the moving average's for the rest.
    fn demand_millicredits(&self, now_s: u64, horizon_s: u64) -> Option<u64> {
        let (known_s, known) =
            self.series.as_ref().map_or((0, 0), |series| series.demand(now_s, horizon_s));
        let rest_s = horizon_s - known_s;
        if rest_s == 0 {
            return Some(known);
        }
        let rest = self.window.average()?.saturating_mul(rest_s);
        Some(known.saturating_add(rest))
    }

    fn order(&self, seen: &Situation, side: Side, urgency: u32, credits: i128) -> Option<Order> {
        let Settings { policy, band, .. } = &self.settings;
        let price_ticks =
            price::price(*policy, *band, side, urgency, seen.last_ticks).min(seen.price_ticks_max);
        let most = match side {
            Side::Sell => u64::MAX,
            Side::Buy => {
                let funds = seen.funds_micro - seen.funds_micro.div_ceil(FEE_PART);
                let each = u64::from(price_ticks).saturating_mul(seen.tick_micro);
                funds.checked_div(each).unwrap_or(0)
            }
        };
        let quantity = credits.clamp(0, most.min(u32::MAX.into()).into()) as u32;
        (quantity > 0 && price_ticks > 0).then_some(Order { side, price_ticks, quantity })
    }
}

#[cfg(test)]
mod tests;
