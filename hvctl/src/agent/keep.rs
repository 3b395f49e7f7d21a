//! One order at a time, kept fresh: replaced where it stands, never a second beside it.

use vendue_wire::code::Side;

/// A quantity that is wrong by at most one part in so many stays as it is: each sample moves it a
/// little, and a greater quantity loses its place in the queue.
const QUANTITY_PARTS: u32 = 10;

/// What an order offers or requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Offer ([`Side::Sell`]) or request ([`Side::Buy`]).
    pub side: Side,
    /// Price in ticks.
    pub price_ticks: u32,
    /// Credits.
    pub quantity: u32,
}

/// What to do about the order that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All is as it should be.
    Nothing,
    /// Enter this one: none stands.
    Enter(Order),
    /// Give the one that stands this price and quantity.
    Replace(Order),
    /// Take back the one that stands; if another should take its place, it is entered next.
    Cancel,
}

/// The next step from what stands towards what should. Taking it and asking again ends in
/// [`Step::Nothing`] after two.
pub fn step(standing: Option<Order>, wanted: Option<Order>) -> Step {
    match (standing, wanted) {
        (None, None) => Step::Nothing,
        (None, Some(wanted)) => Step::Enter(wanted),
        (Some(_), None) => Step::Cancel,
        (Some(standing), Some(wanted)) if standing.side != wanted.side => Step::Cancel,
        (Some(standing), Some(wanted)) if is_fresh(&standing, &wanted) => Step::Nothing,
        (Some(_), Some(wanted)) => Step::Replace(wanted),
    }
}

fn is_fresh(standing: &Order, wanted: &Order) -> bool {
    let off = standing.quantity.abs_diff(wanted.quantity);
    standing.price_ticks == wanted.price_ticks && off <= standing.quantity / QUANTITY_PARTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use Side::{Buy, Sell};

    fn order(side: Side, price_ticks: u32, quantity: u32) -> Option<Order> {
        Some(Order { side, price_ticks, quantity })
    }

    #[test]
    fn an_order_is_entered_replaced_or_taken_back() {
        let wanted = Order { side: Sell, price_ticks: 50, quantity: 100 };
        let step = |standing| step(standing, Some(wanted));
        assert_eq!(step(None), Step::Enter(wanted));
        assert_eq!(step(order(Sell, 50, 100)), Step::Nothing);
        assert_eq!(step(order(Sell, 51, 100)), Step::Replace(wanted), "the price moved");
        assert_eq!(step(order(Sell, 50, 60)), Step::Replace(wanted), "much was filled");
        assert_eq!(step(order(Sell, 50, 95)), Step::Nothing, "a little was filled");
        assert_eq!(step(order(Buy, 50, 100)), Step::Cancel, "the other side");
        assert_eq!(super::step(order(Sell, 50, 100), None), Step::Cancel);
        assert_eq!(super::step(None, None), Step::Nothing);
    }

    #[test]
    fn small_orders_are_exact() {
        let nine = order(Buy, 5, 9);
        assert_eq!(step(nine, order(Buy, 5, 9)), Step::Nothing);
        assert!(matches!(step(nine, order(Buy, 5, 10)), Step::Replace(_)));
    }

    #[test]
    fn two_steps_reach_what_is_wanted() {
        let orders = [None, order(Sell, 5, 10), order(Sell, 6, 10), order(Buy, 5, 90)];
        for start in orders {
            for wanted in orders {
                let mut standing = start;
                for _ in 0..2 {
                    standing = match step(standing, wanted) {
                        Step::Nothing => standing,
                        Step::Enter(order) | Step::Replace(order) => Some(order),
                        Step::Cancel => None,
                    };
                }
                assert_eq!(standing, wanted, "from {start:?}");
            }
        }
    }
}
