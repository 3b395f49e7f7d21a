//! Prices: three policies, each within the band that the user set.
//!
//! Urgency is how far the predicted balance is beyond its threshold: 0 at the threshold, the most
//! where it is beyond by what the baseline earns in a whole horizon.
//!
//! | policy | offers at | requests at |
//! |---|---|---|
//! | `fixed` | the low price | the high price |
//! | `linear` | high, falling to low with urgency | low, rising to high with urgency |
//! | `last` | the last trade's price, less up to an eighth with urgency | the same, plus up to an eighth |
//!
//! Until the first trade the middle of the band stands for `last`'s last price. An eighth that is
//! no whole number of ticks is rounded up, so that small prices move too.

use vendue_wire::code::Side;

/// The highest urgency.
pub const URGENCY_MAX: u32 = 1000;
/// `last` moves from the last price by at most one part in so many.
const LAST_PARTS: u64 = 8;

/// How prices are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Always the same price: whatever is needed, at once.
    Fixed,
    /// The price follows the need, whatever others pay.
    Linear,
    /// The price follows the market, a little further the greater the need.
    Last,
}

impl Policy {
    /// Every policy and its name.
    pub const ALL: [(&'static str, Policy); 3] =
        [("fixed", Policy::Fixed), ("linear", Policy::Linear), ("last", Policy::Last)];
}

/// Nothing is sold below `low_ticks` nor bought above `high_ticks`, and no price is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// Lowest price, ticks.
    pub low_ticks: u32,
    /// Highest price, ticks.
    pub high_ticks: u32,
}

/// The price in ticks for an order of this side. `urgency` is at most [`URGENCY_MAX`];
/// `last_ticks` is 0 where nothing was traded yet.
pub fn price(policy: Policy, band: Band, side: Side, urgency: u32, last_ticks: u32) -> u32 {
    assert!(urgency <= URGENCY_MAX && band.low_ticks <= band.high_ticks);
    let (low, high) = (u64::from(band.low_ticks), u64::from(band.high_ticks));
    let (urgency, most) = (u64::from(urgency), u64::from(URGENCY_MAX));
    let price = match (policy, side) {
        (Policy::Fixed, Side::Sell) => low,
        (Policy::Fixed, Side::Buy) => high,
        (Policy::Linear, Side::Sell) => high - (high - low) * urgency / most,
        (Policy::Linear, Side::Buy) => low + (high - low) * urgency / most,
        (Policy::Last, side) => {
            let last = if last_ticks == 0 { (low + high) / 2 } else { last_ticks.into() };
            let moved = (last * urgency).div_ceil(most * LAST_PARTS);
            let price = if side == Side::Sell { last - moved } else { last + moved };
            price.clamp(low, high)
        }
    };
    price as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use Side::{Buy, Sell};

    const BAND: Band = Band { low_ticks: 20, high_ticks: 120 };

    #[test]
    fn fixed_prices_do_not_move() {
        for (urgency, last) in [(0, 0), (500, 70), (1000, 4000)] {
            assert_eq!(price(Policy::Fixed, BAND, Sell, urgency, last), 20);
            assert_eq!(price(Policy::Fixed, BAND, Buy, urgency, last), 120);
        }
    }

    #[test]
    fn linear_prices_follow_the_urgency_alone() {
        for (urgency, sell, buy) in [(0, 120, 20), (250, 95, 45), (999, 21, 119), (1000, 20, 120)] {
            for last in [0, 70] {
                assert_eq!(price(Policy::Linear, BAND, Sell, urgency, last), sell);
                assert_eq!(price(Policy::Linear, BAND, Buy, urgency, last), buy);
            }
        }
    }

    #[test]
    fn last_prices_follow_the_market_within_the_band() {
        for (last, urgency, sell, buy) in [
            (80, 0, 80, 80),
            (80, 500, 75, 85),
            (80, 1000, 70, 90),
            // An eighth of 21 is 2.6: three ticks, but not below the band.
            (25, 1000, 21, 29),
            (21, 1000, 20, 24),
            // Nothing traded yet: from the middle of the band.
            (0, 0, 70, 70),
            (0, 1000, 61, 79),
            // The market is outside of the band: this agent stays inside.
            (4000, 1000, 120, 120),
            (3, 1000, 20, 20),
        ] {
            assert_eq!(
                price(Policy::Last, BAND, Sell, urgency, last),
                sell,
                "sell {last} {urgency}"
            );
            assert_eq!(price(Policy::Last, BAND, Buy, urgency, last), buy, "buy {last} {urgency}");
        }
    }

    #[test]
    fn whoever_is_in_need_meets_the_other_side() {
        let wide = Band { low_ticks: 1, high_ticks: u32::MAX };
        for last in [1, 2, 7, 1_000, u32::MAX] {
            for urgency in [0, 1, 500, URGENCY_MAX] {
                let sell = price(Policy::Last, wide, Sell, urgency, last);
                let buy = price(Policy::Last, wide, Buy, urgency, last);
                assert!(1 <= sell && sell <= last && last <= buy, "{last} {urgency}");
            }
        }
    }
}
