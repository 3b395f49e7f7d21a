//! Market weights: `baseline x bid x (balance / fair balance)^gamma`, in integers.
//!
//! A Fisher market's shares, written as weights: whoever saved and whoever bids gets more of what
//! is contended, and the scheduler, which knows demand at every instant, needs no forecast. The
//! power is taken through tabulated logarithms and rounded to eighths of an octave (9%), with
//! hysteresis, so that a weight changes - and a file is written - only when there is a reason.

/// Parts of an octave in which logarithms are kept.
const OCTAVE: i64 = 1024;
/// Steps of an octave to which wealth is rounded.
const STEPS: i64 = 8;
/// Parts of a step.
const STEP: i64 = OCTAVE / STEPS;
/// A step is left only when wealth is farther from it than this: half a step and a quarter.
const SLACK: i64 = STEP * 3 / 4;
/// The least that wealth makes of a weight, 2^(-14/8) = 0.30: who has nothing is not starved.
pub const STEP_MIN: i8 = -14;
/// The most, 2^(32/8) = 16.
pub const STEP_MAX: i8 = 32;
/// A weight is at most so many baselines: that of a core then still fits `cpu.weight`.
pub const MULTIPLE_MAX: u64 = 100;
/// A bid that changes nothing: one credit a VRU-second, in milli-credits.
pub const BID_MILLI: u64 = 1000;

/// A bid up to ten credits a VRU-second is believed, of who has nothing too...
const TRUSTED_MILLI: u32 = 10_000;
/// ...and a higher one as far as the balance would pay it for so many seconds. Without this, whoever
/// bids the most is served before all others long after it can pay nothing.
const COVER_S: u128 = 60;

const _: () = assert!(OCTAVE % STEPS == 0 && 2 * SLACK > STEP && SLACK < STEP);

/// log2(1 + i/64) in parts of [`OCTAVE`].
const LOGS: [i64; 65] = [
    0, 23, 45, 68, 90, 111, 132, 153, 174, 194, 214, 234, 254, 273, 292, 311, 330, 348, 366, 384,
    402, 419, 436, 454, 470, 487, 504, 520, 536, 552, 568, 584, 599, 614, 629, 644, 659, 674, 689,
    703, 717, 731, 745, 759, 773, 787, 800, 813, 827, 840, 853, 866, 879, 891, 904, 916, 929, 941,
    953, 965, 977, 989, 1001, 1012, 1024,
];

/// 2^(i/8) times 1024.
const POWERS: [u128; 8] = [1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878];

/// log2 of `value`, which is not 0, in parts of [`OCTAVE`]: the table, and a straight line between
/// its points.
fn log2(value: u128) -> i64 {
    assert!(value > 0, "0 has no logarithm");
    let octaves = value.ilog2();
    // The bits behind the leading one, as a fraction of 2^16.
    let fraction = ((value << (127 - octaves) << 1) >> 112) as i64;
    let (at, rest) = ((fraction >> 10) as usize, fraction & 1023);
    i64::from(octaves) * OCTAVE + LOGS[at] + (((LOGS[at + 1] - LOGS[at]) * rest) >> 10)
}

/// The step of an instance's wealth, `(balance / fair)^gamma` in eighths of an octave; `last` is
/// the step it was at. `balance` and `fair` are in one unit, `gamma` in hundredths. Where nobody
/// has anything all are equal.
pub fn step(balance: u128, fair: u128, gamma_percent: u32, last: i8) -> i8 {
    if fair == 0 {
        return 0;
    }
    if balance == 0 {
        return STEP_MIN;
    }
    let wealth = (log2(balance) - log2(fair)) * i64::from(gamma_percent) / 100;
    let wealth = wealth.clamp(i64::from(STEP_MIN) * STEP, i64::from(STEP_MAX) * STEP);
    if (wealth - i64::from(last) * STEP).abs() <= SLACK {
        return last;
    }
    (wealth + STEP / 2).div_euclid(STEP) as i8
}

/// What of a bid counts, milli-credits a VRU-second, if the balance is so many milli-credits for each
/// VRU of the baseline. In doublings, so that a balance that is spent does not move weights all the
/// while.
pub fn believed(bid_milli: u32, balance_milli: u128) -> u32 {
    let mut most = TRUSTED_MILLI;
    while most < bid_milli && u128::from(2 * most) * COVER_S <= balance_milli {
        most *= 2;
    }
    bid_milli.min(most)
}

/// The weight, in VRUs, of an instance with this baseline (VRUs), bid (milli-credits a VRU-second)
/// and step of wealth: at least 1, at most [`MULTIPLE_MAX`] baselines.
pub fn weight(baseline_vru: u32, bid_milli: u32, step: i8) -> u32 {
    assert!((STEP_MIN..=STEP_MAX).contains(&step), "step {step} of wealth");
    let (octaves, eighth) = (step.div_euclid(STEPS as i8), step.rem_euclid(STEPS as i8));
    // Parts of 2^20 and of a thousand.
    let power = (POWERS[eighth as usize] << 10 << 8) >> (8 - octaves);
    let weight = u128::from(baseline_vru) * u128::from(bid_milli) * power;
    let weight = (weight / u128::from(BID_MILLI)) >> 20;
    let most = u128::from(baseline_vru) * u128::from(MULTIPLE_MAX);
    weight.min(most).clamp(1, u128::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_mathematics() {
        for value in (1..5000_u128).chain([u128::from(u64::MAX), 1 << 90, u128::MAX]) {
            let exact = (value as f64).log2() * OCTAVE as f64;
            assert!((log2(value) as f64 - exact).abs() < 2.0, "{value}: {} {exact}", log2(value));
        }
    }

    /// The whole formula beside floats: off by half a step at most, less rounding.
    #[test]
    fn wealth_raises_the_weight_by_its_power() {
        for gamma in [50, 100, 250, 400] {
            for balance in (1..4000_u128).step_by(7) {
                let step = step(balance, 500, gamma, i8::MIN / 2);
                let exact = (balance as f64 / 500.0).powf(f64::from(gamma) / 100.0);
                let exact = exact.clamp(0.297_3, 16.0) * 1e6;
                let ratio = f64::from(weight(1_000_000, 1000, step)) / exact;
                assert!((0.955..1.047).contains(&ratio), "{balance}^{gamma}: {ratio}");
            }
        }
    }

    #[test]
    fn bids_and_baselines_multiply() {
        assert_eq!(weight(100, 1000, 0), 100);
        assert_eq!(weight(100, 2500, 0), 250);
        assert_eq!(weight(100, 1000, 8), 200);
        assert_eq!(weight(100, 1000, STEP_MIN), 29);
        assert_eq!(weight(100, 100_000, STEP_MAX), 10_000, "bounded");
        assert_eq!(weight(1, 100, STEP_MIN), 1, "never nothing");
        assert_eq!(weight(u32::MAX, 100_000, STEP_MAX), u32::MAX);
    }

    #[test]
    fn a_high_bid_counts_as_far_as_the_balance_pays_it_for_a_minute() {
        assert_eq!(believed(700, 0), 700);
        assert_eq!(believed(10_000, 0), 10_000, "ten are believed");
        assert_eq!(believed(100_000, 20_000 * 60 - 1), 10_000);
        assert_eq!(believed(100_000, 20_000 * 60), 20_000);
        assert_eq!(believed(25_000, u128::MAX), 25_000);
        assert_eq!(believed(100_000, u128::MAX), 100_000);
    }

    #[test]
    fn a_balance_that_wavers_keeps_its_step() {
        assert_eq!(step(0, 0, 250, 5), 0);
        assert_eq!(step(0, 10, 250, 5), STEP_MIN);
        assert_eq!(step(u128::MAX, 1, 400, 0), STEP_MAX);
        // Half a step is where rounding would waver: 2^(1/16) = 1.044.
        let up = step(1_070, 1_000, 100, 0);
        assert_eq!(up, 1);
        for balance in [1_040, 1_045, 1_050, 1_030] {
            assert_eq!(step(balance, 1_000, 100, up), up);
        }
        assert_eq!(step(1_010, 1_000, 100, up), 0);
    }
}
