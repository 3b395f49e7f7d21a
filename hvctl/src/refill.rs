//! What a cap's own changes give away, and when the next rise has been paid for.
//!
//! Every write to `cpu.max` refills the quota, so a tenant that lets its cap change often, by
//! trading, would run on refills: a cap of 22% that moves by a tenth twice in half a second is
//! worth 30%. The account below is kept in processor time. It owes a whole quota for each write and
//! what the kernel allowed beyond what was wanted; what was wanted and withheld pays that back, and
//! a hundredth of the cap is forgiven all the time. A fall is never put off for it. A rise waits
//! until nothing is owed: the less there is to gain by a rise, the longer.

use crate::limit::CPU_PERIOD_US;

/// Part of the cap that is forgiven.
const FORGIVEN: u64 = 100;

/// The account of one cap. Quotas are microseconds a period, `None` for no cap.
#[derive(Debug, Default)]
pub struct Refill {
    /// Processor time, nanoseconds.
    owed_ns: u64,
    /// Up to when it is settled, nanoseconds.
    at_ns: u64,
}

impl Refill {
    /// Settles up to `now_ns` for a time in which the kernel held `held` and `wanted` was the goal.
    pub fn settle(&mut self, now_ns: u64, held: Option<u64>, wanted: Option<u64>) {
        let elapsed_ns = now_ns.saturating_sub(self.at_ns);
        self.at_ns = self.at_ns.max(now_ns);
        // What is not bounded cannot be exceeded, and nothing is withheld from it.
        let (Some(held_us), Some(wanted_us)) = (held, wanted) else { return };
        let part = |us| scaled(elapsed_ns, us, CPU_PERIOD_US);
        self.owed_ns = match held_us.checked_sub(wanted_us) {
            Some(over_us @ 1..) => self.owed_ns.saturating_add(part(over_us)),
            _ => self.owed_ns.saturating_sub(part(paid_us(held_us, wanted_us))),
        };
    }

    /// A cap of `quota` was written.
    pub fn wrote(&mut self, quota: Option<u64>) {
        self.owed_ns = match quota {
            Some(quota_us) => self.owed_ns.saturating_add(quota_us.saturating_mul(1000)),
            None => 0,
        };
    }

    /// From when on the cap may be written, nanoseconds.
    pub fn due_ns(&self, held: Option<u64>, wanted: Option<u64>) -> u64 {
        match (held, wanted) {
            (Some(held_us), Some(wanted_us)) if wanted_us > held_us && self.owed_ns > 0 => {
                let wait_ns = scaled(self.owed_ns, CPU_PERIOD_US, paid_us(held_us, wanted_us));
                // Rounded down: one more is enough.
                self.at_ns.saturating_add(wait_ns).saturating_add(1)
            }
            _ => 0,
        }
    }

    /// What is owed, nanoseconds of processor time.
    pub fn owed_ns(&self) -> u64 {
        self.owed_ns
    }
}

/// What a period pays back, microseconds.
fn paid_us(held_us: u64, wanted_us: u64) -> u64 {
    assert!(wanted_us >= held_us, "a fall pays nothing");
    wanted_us - held_us + (wanted_us / FORGIVEN).max(1)
}

fn scaled(value: u64, by: u64, of: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(by) / u128::from(of);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_rise_waits_the_longer_the_less_it_brings() {
        let after_a_fall_to = |low_us: u64, high_us: u64| {
            let mut refill = Refill::default();
            refill.wrote(Some(high_us));
            refill.wrote(Some(low_us));
            refill.due_ns(Some(low_us), Some(high_us)) / MS
        };
        assert_eq!(Refill::default().due_ns(Some(20_000), Some(60_000)), 0, "after a quiet time");
        assert_eq!(after_a_fall_to(20_000, 60_000), 197);
        assert_eq!(after_a_fall_to(20_000, 22_000), 1891);
        assert_eq!(after_a_fall_to(20_000, 20_001), 19_900);
    }

    #[test]
    fn a_fall_and_the_unbounded_never_wait() {
        let mut refill = Refill::default();
        refill.wrote(Some(60_000));
        assert_eq!(refill.due_ns(Some(60_000), Some(20_000)), 0);
        assert_eq!(refill.due_ns(None, Some(20_000)), 0);
        assert_eq!(refill.due_ns(Some(20_000), None), 0);
        refill.settle(u64::MAX, None, Some(1));
        assert_eq!(refill.owed_ns(), 60 * MS, "no cap, no excess");
        refill.wrote(None);
        assert_eq!(refill.owed_ns(), 0);
    }

    #[test]
    fn what_was_withheld_pays_and_what_was_too_much_costs() {
        let mut refill = Refill::default();
        refill.settle(100 * MS, Some(60_000), Some(20_000));
        assert_eq!(refill.owed_ns(), 40 * MS, "a fall that came 100 ms late");
        refill.settle(150 * MS, Some(20_000), Some(60_000));
        assert_eq!(refill.owed_ns(), 40 * MS - 20 * MS - 300_000, "and a hundredth of the cap");
        refill.settle(9_000 * MS, Some(60_000), Some(60_000));
        assert_eq!(refill.owed_ns(), 0, "forgiven");
    }
}
