//! Measured shares of a processor, as `vm-shares` prints them in a guest and tests read them.

use std::fmt;
use std::str::FromStr;

/// What each of some cgroups used over a short time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the time ended, in ms since boot.
    pub at_ms: u64,
    /// How long it was, in ms.
    pub over_ms: u64,
    /// What each group used, in percent of one processor.
    pub percent: Vec<u64>,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shares {} {}", self.at_ms, self.over_ms)?;
        self.percent.iter().try_for_each(|percent| write!(f, " {percent}"))
    }
}

impl FromStr for Sample {
    type Err = NotASample;

    fn from_str(line: &str) -> Result<Sample, NotASample> {
        let mut words = line.strip_prefix("shares ").ok_or(NotASample)?.split(' ');
        let mut number = || words.next().map(|word| word.parse::<u64>().map_err(|_| NotASample));
        let at_ms = number().ok_or(NotASample)??;
        let over_ms = number().ok_or(NotASample)??;
        let percent = std::iter::from_fn(number).collect::<Result<Vec<_>, _>>()?;
        Ok(Sample { at_ms, over_ms, percent })
    }
}

/// A line that is no [`Sample`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a line of vm-shares: \"shares AT_MS OVER_MS PERCENT...\"")]
pub struct NotASample;

/// What a group used from `from_ms` to `to_ms` since boot, in percent of one processor, from the
/// samples that lie wholly within; `None` where there is none.
pub fn mean_percent(samples: &[Sample], group: usize, from_ms: u64, to_ms: u64) -> Option<u64> {
    let within = |s: &&Sample| s.at_ms - s.over_ms >= from_ms && s.at_ms <= to_ms;
    let mut used = 0;
    let mut over_ms = 0;
    for sample in samples.iter().filter(within) {
        used += sample.percent.get(group)? * sample.over_ms;
        over_ms += sample.over_ms;
    }
    used.checked_div(over_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_reads_as_it_prints_and_other_lines_do_not() {
        let sample = Sample { at_ms: 2300, over_ms: 101, percent: vec![20, 0, 199] };
        assert_eq!(sample.to_string(), "shares 2300 101 20 0 199");
        assert_eq!(sample.to_string().parse(), Ok(sample));
        for line in ["", "shares ", "shares 1", "shares 1 2 x", "mark busy 2.30", "primes 78498"] {
            assert_eq!(line.parse::<Sample>(), Err(NotASample), "{line}");
        }
    }

    #[test]
    fn a_mean_weighs_by_time_and_takes_only_samples_within() {
        let sample = |at_ms, over_ms, percent| Sample { at_ms, over_ms, percent: vec![0, percent] };
        let samples = [sample(1000, 100, 90), sample(1100, 100, 10), sample(1400, 300, 50)];
        assert_eq!(mean_percent(&samples, 1, 1000, 1400), Some(40));
        assert_eq!(mean_percent(&samples, 1, 900, 1399), Some(50));
        assert_eq!(mean_percent(&samples, 1, 1050, 1300), None);
        assert_eq!(mean_percent(&samples, 2, 900, 1400), None);
    }
}
