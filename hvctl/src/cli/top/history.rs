//! The last samples of a sensor, for a line of bars.

use std::collections::VecDeque;

/// Samples kept of each instance.
pub const SAMPLES_MAX: usize = 120;
/// Bars of a line, from nothing to the most.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is kept of one sample; what was not measured is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Thousandths of a processor.
    pub cpu_millicores: Option<u32>,
    /// Memory held, MiB.
    pub memory_mib: Option<u32>,
    /// Time that some of it waited for processors, memory and block I/O, thousandths.
    pub waited_permille: [Option<u32>; 3],
}

/// The last [`SAMPLES_MAX`] samples of an instance, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    newest_ns: u64,
}

impl History {
    /// Adds what was sampled at `time_ns`, unless it is known.
    pub fn add(&mut self, time_ns: u64, sample: Sample) {
        if time_ns <= self.newest_ns {
            return;
        }
        self.newest_ns = time_ns;
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// One series, oldest first.
    pub fn series(&self, of: impl Fn(&Sample) -> Option<u32>) -> Vec<Option<u32>> {
        self.samples.iter().map(of).collect()
    }
}

/// The newest `width` values as bars, the highest as high as the highest value or `full`, whichever
/// is more. `·` stands for what was not measured.
pub fn bars(series: &[Option<u32>], full: u32, width: usize) -> String {
    let shown = &series[series.len().saturating_sub(width)..];
    let top = shown.iter().flatten().copied().max().unwrap_or(0).max(full).max(1);
    let steps = BARS.len() as u64 - 1;
    let bar = |value: &Option<u32>| match value {
        None => '·',
        // Whatever is not nothing is seen.
        Some(value) => BARS[(u64::from(*value) * steps).div_ceil(u64::from(top)) as usize],
    };
    shown.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_rise_with_the_values_and_show_what_was_not_measured() {
        let series = [Some(0), Some(1), Some(50), None, Some(100)];
        assert_eq!(bars(&series, 100, 10), " ▁▄·█");
        assert_eq!(bars(&series, 200, 10), " ▁▂·▄");
        assert_eq!(bars(&series, 0, 2), "·█");
        assert_eq!((bars(&[], 0, 5), bars(&[Some(0)], 0, 5)), (String::new(), " ".into()));
        assert_eq!(bars(&[Some(u32::MAX)], 1, 1), "█");
    }

    #[test]
    fn a_history_is_bounded_and_takes_each_sample_once() {
        let mut history = History::default();
        for at in 1..=300 {
            let sample = Sample { cpu_millicores: Some(at), ..Sample::default() };
            history.add(at.into(), sample);
            history.add(at.into(), sample);
        }
        let series = history.series(|sample| sample.cpu_millicores);
        assert_eq!(series.len(), SAMPLES_MAX);
        assert_eq!((series[0], series[SAMPLES_MAX - 1]), (Some(181), Some(300)));
    }
}
