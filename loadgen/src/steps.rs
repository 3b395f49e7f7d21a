//! What a session sends, decided by the seed and its profile alone.

use crate::profile::Profile;
use crate::random::SplitMix;
use vendue_wire::code::Side;

/// Orders a session lets rest at most. Beyond it the flow cancels.
pub const RESTING_MAX: usize = 256;
/// Largest quantity of an order, in credits.
pub const QUANTITY_MAX: u32 = 100;
/// How far from the middle a resting order's price may be, in ticks.
pub const DISTANCE_MAX: u32 = 16;
/// How far across the middle an aggressive order reaches, in ticks.
const REACH: u32 = 4;
/// The middle moves by at most one tick in so many steps.
const STEPS_PER_MOVE: u64 = 32;
/// Lowest highest price a book must have for this flow, in ticks.
pub const LADDER_MIN: u32 = 8 * DISTANCE_MAX;

/// What to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new limit order.
    Order {
        /// Side.
        side: Side,
        /// Limit in ticks.
        price_ticks: u32,
        /// Credits.
        quantity: u32,
        /// True: rests beside the middle. False: reaches across it, the rest is cancelled.
        rests: bool,
    },
    /// Cancel the resting order at `pick` modulo their number.
    Cancel {
        /// Any number.
        pick: u64,
    },
}

/// One session's flow: its profile says how many steps rest an order, cancel one, or take what
/// others offer, around a middle that walks, the same for every session of a seed.
#[derive(Clone, Debug)]
pub struct Flow {
    own: SplitMix,
    walk: SplitMix,
    rest_to: u64,
    cancel_to: u64,
    steps: u64,
    middle_ticks: u32,
    lowest_ticks: u32,
    highest_ticks: u32,
}

impl Flow {
    /// The flow of session `session` in a book with prices up to `price_ticks_max`, at least
    /// [`LADDER_MIN`].
    pub fn new(profile: Profile, seed: u64, session: u64, price_ticks_max: u32) -> Flow {
        assert!(price_ticks_max >= LADDER_MIN, "a ladder of {price_ticks_max} ticks is too short");
        let mut own = SplitMix(seed);
        let stream = own.draw() ^ session.wrapping_mul(0xd134_2543_de82_ef95);
        let (rest_to, cancel_to) = profile.shares();
        Flow {
            own: SplitMix(stream),
            walk: SplitMix(!seed),
            rest_to,
            cancel_to,
            steps: 0,
            middle_ticks: price_ticks_max / 2,
            lowest_ticks: price_ticks_max / 4,
            highest_ticks: price_ticks_max / 4 * 3,
        }
    }

    /// The next step, given how many orders rest (or soon may) and how many of them can be cancelled. Both
    /// decide only what a step becomes, not the random numbers behind the later ones.
    pub fn next(&mut self, resting: usize, cancellable: usize) -> Step {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_MOVE) {
            self.middle_ticks = match self.walk.draw() % 3 {
                0 => (self.middle_ticks + 1).min(self.highest_ticks),
                1 => (self.middle_ticks - 1).max(self.lowest_ticks),
                _ => self.middle_ticks,
            };
        }
        let (roll, detail) = (self.own.draw() % 100, self.own.draw());
        let full = resting >= RESTING_MAX;
        if cancellable > 0 && (full || (self.rest_to..self.cancel_to).contains(&roll)) {
            return Step::Cancel { pick: detail };
        }
        let side = if detail & 1 == 0 { Side::Buy } else { Side::Sell };
        let quantity = 1 + (detail >> 8) as u32 % QUANTITY_MAX;
        let rests = !full && roll < self.cancel_to;
        // Below the middle for a resting buy, across it for an aggressive one.
        let (distance, below) = if rests {
            (1 + (detail >> 40) as u32 % DISTANCE_MAX, side == Side::Buy)
        } else {
            (REACH, side == Side::Sell)
        };
        let price_ticks =
            if below { self.middle_ticks - distance } else { self.middle_ticks + distance };
        Step::Order { side, price_ticks, quantity, rests }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(seed: u64, session: u64) -> Vec<Step> {
        let mut flow = Flow::new(Profile::Mixed, seed, session, 4095);
        (0..5_000).map(|_| flow.next(10, 10)).collect()
    }

    #[test]
    fn a_seed_and_a_session_decide_the_flow() {
        assert_eq!(steps(1, 0), steps(1, 0));
        assert_ne!(steps(1, 0), steps(1, 1));
        assert_ne!(steps(1, 0), steps(2, 0));
    }

    #[test]
    fn a_step_that_could_not_be_does_not_change_the_later_ones() {
        let (mut one, mut other) =
            (Flow::new(Profile::Mixed, 3, 0, 4095), Flow::new(Profile::Mixed, 3, 0, 4095));
        for _ in 0..100 {
            let _ = (one.next(10, 10), other.next(RESTING_MAX, 0));
        }
        (0..100).for_each(|_| assert_eq!(one.next(10, 10), other.next(10, 10)));
    }

    #[test]
    fn the_mix_and_the_prices_are_as_described() {
        let steps = steps(7, 3);
        let share = |what: fn(&Step) -> bool| {
            steps.iter().filter(|step| what(step)).count() * 100 / steps.len()
        };
        let rest = share(|step| matches!(step, Step::Order { rests: true, .. }));
        let take = share(|step| matches!(step, Step::Order { rests: false, .. }));
        assert!((42..49).contains(&rest) && (22..28).contains(&take), "{rest} {take}");
        let buys = share(|step| matches!(step, Step::Order { side: Side::Buy, .. }));
        assert!((30..40).contains(&buys), "{buys}");
        for step in steps {
            let Step::Order { price_ticks, quantity, .. } = step else { continue };
            assert!((1..=QUANTITY_MAX).contains(&quantity));
            // The middle cannot walk further than its moves.
            assert!(price_ticks.abs_diff(2047) <= 5_000 / STEPS_PER_MOVE as u32 + DISTANCE_MAX);
        }
    }

    #[test]
    fn resting_buys_stay_below_resting_sells_and_takers_cross_them() {
        let mut flow = Flow::new(Profile::Mixed, 9, 0, LADDER_MIN);
        for _ in 0..100_000 {
            let step = flow.next(0, 0);
            let middle = flow.middle_ticks;
            let Step::Order { side, price_ticks, rests, .. } = step else {
                panic!("nothing rests, so nothing can be cancelled")
            };
            assert!((1..=LADDER_MIN).contains(&price_ticks));
            assert_eq!(price_ticks < middle, (side == Side::Buy) == rests);
        }
    }

    #[test]
    fn a_full_session_rests_no_more() {
        let mut flow = Flow::new(Profile::Mixed, 9, 0, 4095);
        for _ in 0..1_000 {
            assert!(matches!(flow.next(RESTING_MAX, 1), Step::Cancel { .. }));
            assert!(matches!(flow.next(RESTING_MAX, 0), Step::Order { rests: false, .. }));
        }
    }

    #[test]
    fn makers_only_rest_and_cancel_and_takers_only_take() {
        let all = |profile| {
            let mut flow = Flow::new(profile, 5, 0, 4095);
            (0..1_000).map(move |_| flow.next(10, 10))
        };
        let (mut rested, mut cancelled) = (0, 0);
        for step in all(Profile::Maker) {
            match step {
                Step::Order { rests, .. } => {
                    assert!(rests);
                    rested += 1;
                }
                Step::Cancel { .. } => cancelled += 1,
            }
        }
        assert!(rested > cancelled && cancelled > 300, "{rested} {cancelled}");
        let taken = |step| matches!(step, Step::Order { rests: false, .. });
        assert!(all(Profile::Taker).all(taken));
    }
}
