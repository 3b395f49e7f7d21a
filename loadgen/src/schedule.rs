//! When requests are due, fixed before the run: turns, evenly spaced at a rate that may rise or
//! fall in steps. Sessions take the turns one after the other.

/// Nanoseconds in a second.
const SECOND_NS: u128 = 1_000_000_000;

/// A while of one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RampStep {
    /// Requests a second over all sessions, at least 1.
    pub rate: u64,
    /// When it begins, nanoseconds from the start.
    pub start_ns: u64,
    /// When it ends: nothing is due at or after.
    pub end_ns: u64,
    /// Turns before it.
    first_turn: u64,
}

impl RampStep {
    /// Requests due in it.
    pub fn turns(&self) -> u64 {
        // Turn k is due before the end if k * 1e9 / rate, rounded down, is less than the length.
        let length_ns = u128::from(self.end_ns - self.start_ns);
        (length_ns * u128::from(self.rate)).div_ceil(SECOND_NS) as u64
    }
}

/// The whole run's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    steps: Vec<RampStep>,
}

impl Schedule {
    /// One rate until `end_ns`.
    pub fn steady(rate: u64, end_ns: u64) -> Schedule {
        Schedule::ramp(rate, rate, 1, end_ns)
    }

    /// `count` steps of one length and evenly spaced rates, the first `from`, the last `to`.
    ///
    /// # Panics
    /// If a rate or `count` is 0.
    pub fn ramp(from: u64, to: u64, count: usize, end_ns: u64) -> Schedule {
        assert!(from > 0 && to > 0 && count > 0, "a schedule has a step and rates above 0");
        let mut steps: Vec<RampStep> = Vec::with_capacity(count);
        let last = (count as i128 - 1).max(1);
        for at in 0..count {
            let rate = i128::from(from) + (i128::from(to) - i128::from(from)) * at as i128 / last;
            let edge = |at: usize| (u128::from(end_ns) * at as u128 / count as u128) as u64;
            let first_turn = steps.last().map_or(0, |step| step.first_turn + step.turns());
            let (start_ns, end_ns) = (edge(at), edge(at + 1));
            steps.push(RampStep { rate: rate as u64, start_ns, end_ns, first_turn });
        }
        Schedule { steps }
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[RampStep] {
        &self.steps
    }

    /// All turns.
    pub fn turns(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.first_turn + step.turns())
    }

    /// When turn `turn` (0, 1, 2...) is due, or `None` after the last.
    pub fn due_ns(&self, turn: u64) -> Option<u64> {
        // A step too short for a turn has the same first one as the next step.
        let at = self.steps.partition_point(|step| step.first_turn <= turn).checked_sub(1)?;
        let step = &self.steps[at];
        let within = u128::from(turn - step.first_turn) * SECOND_NS / u128::from(step.rate);
        let due = u64::try_from(u128::from(step.start_ns) + within).ok()?;
        Some(due).filter(|&due| due < step.end_ns)
    }

    /// The step that holds this moment; the last one also holds all after it.
    pub fn step_at(&self, at_ns: u64) -> usize {
        self.steps.partition_point(|step| step.end_ns <= at_ns).min(self.steps.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_evenly_spaced_and_all_fall_before_the_end() {
        let schedule = Schedule::steady(1_000, 10_000_000);
        let all: Vec<u64> = (0..).map_while(|turn| schedule.due_ns(turn)).collect();
        assert_eq!(all, (0..10).map(|turn| turn * 1_000_000).collect::<Vec<_>>());
        assert_eq!(schedule.turns(), 10);
    }

    #[test]
    fn the_number_of_turns_is_what_the_schedule_gives() {
        for (from, to, count, end_ns) in [
            (7, 7, 1, 999_999_999),
            (3, 5, 4, 1),
            (999_983, 1, 3, 12_345_678),
            (1, 3, 5, 2_000_000_000),
        ] {
            let schedule = Schedule::ramp(from, to, count, end_ns);
            let turns = schedule.turns();
            assert_eq!(schedule.due_ns(turns), None, "{schedule:?}");
            let dues: Vec<u64> = (0..turns).filter_map(|turn| schedule.due_ns(turn)).collect();
            assert_eq!(dues.len() as u64, turns, "{schedule:?}");
            assert!(dues.is_sorted(), "{schedule:?}");
            for step in schedule.steps() {
                let inside = dues.iter().filter(|&&d| d >= step.start_ns && d < step.end_ns);
                assert_eq!(inside.count() as u64, step.turns(), "{step:?}");
            }
        }
    }

    #[test]
    fn a_ramp_goes_from_the_first_rate_to_the_last() {
        let ramp = Schedule::ramp(100, 500, 5, 5_000_000_000);
        let rates: Vec<u64> = ramp.steps().iter().map(|step| step.rate).collect();
        assert_eq!(rates, [100, 200, 300, 400, 500]);
        let down = Schedule::ramp(500, 100, 3, 3);
        assert_eq!(down.steps().iter().map(|step| step.rate).collect::<Vec<_>>(), [500, 300, 100]);
        assert_eq!(ramp.due_ns(100), Some(1_000_000_000), "the second step's first turn");
        assert_eq!(ramp.due_ns(101), Some(1_005_000_000));
        let steps = [0, 999_999_999, 1_000_000_000, 4_999_999_999, 6_000_000_000];
        assert_eq!(steps.map(|at| ramp.step_at(at)), [0, 0, 1, 4, 4]);
    }

    #[test]
    fn the_highest_rate_for_a_day_does_not_overflow() {
        let (rate, end_ns) = (100_000_000, 86_400_000_000_000);
        let schedule = Schedule::steady(rate, end_ns);
        assert_eq!(schedule.due_ns(schedule.turns() - 1), Some(end_ns - 10));
        // A flow from a file ends by itself.
        assert_eq!(Schedule::steady(rate, u64::MAX).due_ns(1 << 40), Some((1 << 40) * 10));
    }
}
