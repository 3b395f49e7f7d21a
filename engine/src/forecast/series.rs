//! What was used, compacted as it ages: each second of an hour, each minute of a week, each hour of a
//! year. Numbers are kept to 1 in 500, in pieces that are allocated as they come; a piece of which all
//! values are the same is one number. A series that moves all the time takes 51 KiB after a year, one
//! that never does 6.

use std::collections::VecDeque;

/// Values of a piece, and of a step that become one of the next: seconds of a minute, minutes of an hour.
const PIECE: usize = 60;
/// Pieces kept: of seconds, minutes and hours.
const KEPT: [usize; 3] = [60, 168, 146];
/// The greatest packed number that is one.
const PACKED_MAX: u16 = 0xfeff;
/// A value is held for so many seconds at most: what is not told of for longer is not known.
pub const HELD_S_MAX: u32 = 3600;

/// How far apart values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A second; those of an hour are kept.
    Second,
    /// A minute; those of a week are kept.
    Minute,
    /// An hour; those of a year are kept.
    Hour,
}

#[derive(Clone, Debug)]
enum Piece {
    Same(u16),
    Each(Box<[u16; PIECE]>),
}

/// The newest values at one step.
#[derive(Clone, Debug, Default)]
struct Run {
    pieces: VecDeque<Piece>,
    open: Vec<u16>,
    /// Sum of the open values, not rounded.
    sum: f64,
}

/// What an instance used of a resource, VRUs.
#[derive(Clone, Debug, Default)]
pub struct Series {
    runs: [Run; 3],
}

impl Series {
    /// Adds what was used in the mean of the next `seconds`, [`HELD_S_MAX`] at most.
    pub fn add(&mut self, vru: f32, seconds: u32) {
        assert!(vru >= 0.0 && vru.is_finite(), "use is a number");
        for _ in 0..seconds.min(HELD_S_MAX) {
            let mut value = f64::from(vru);
            for (run, kept) in self.runs.iter_mut().zip(KEPT) {
                match run.add(value, kept) {
                    Some(mean) => value = mean,
                    None => break,
                }
            }
        }
    }

    /// The newest values, the oldest first: means of `each` steps, so many that all of them are whole.
    pub fn means(&self, step: Step, each: usize) -> Vec<f32> {
        let values = self.values(step);
        let whole = values.len() / each * each;
        let newest = values[values.len() - whole..].chunks_exact(each);
        newest.map(|values| values.iter().sum::<f32>() / each as f32).collect()
    }

    /// All values that are kept, the oldest first.
    pub fn values(&self, step: Step) -> Vec<f32> {
        let run = &self.runs[step as usize];
        let mut values = Vec::with_capacity((run.pieces.len() + 1) * PIECE);
        for piece in &run.pieces {
            match piece {
                Piece::Same(value) => values.extend([unpack(*value); PIECE]),
                Piece::Each(each) => values.extend(each.iter().copied().map(unpack)),
            }
        }
        values.extend(run.open.iter().copied().map(unpack));
        values
    }

    /// Seconds since the newest of these values was whole.
    pub fn open_s(&self, step: Step) -> u64 {
        let below = self.runs.iter().zip([1, 60, 3600]).take(step as usize);
        below.map(|(run, seconds)| run.open.len() as u64 * seconds).sum()
    }

    /// Memory of it, bytes.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(Run::bytes).sum::<usize>() + size_of::<Series>()
    }

    /// Appends what it holds, as [`Series::decode`] reads it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for run in &self.runs {
            out.extend((run.pieces.len() as u16).to_le_bytes());
            for piece in &run.pieces {
                match piece {
                    Piece::Same(value) => {
                        out.push(0);
                        out.extend(value.to_le_bytes());
                    }
                    Piece::Each(each) => {
                        out.push(1);
                        each.iter().for_each(|value| out.extend(value.to_le_bytes()));
                    }
                }
            }
            out.push(run.open.len() as u8);
            run.open.iter().for_each(|value| out.extend(value.to_le_bytes()));
            out.extend(run.sum.to_le_bytes());
        }
    }

    /// What [`Series::encode`] wrote; `None` if it wrote something else.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Series> {
        let mut series = Series::default();
        for (run, kept) in series.runs.iter_mut().zip(KEPT) {
            let pieces = usize::from(number(bytes)?);
            if pieces > kept {
                return None;
            }
            for _ in 0..pieces {
                let piece = match bytes.split_off_first()? {
                    0 => Piece::Same(number(bytes)?),
                    1 => {
                        let mut each = Box::new([0; PIECE]);
                        for value in each.iter_mut() {
                            *value = number(bytes)?;
                        }
                        Piece::Each(each)
                    }
                    _ => return None,
                };
                run.pieces.push_back(piece);
            }
            let open = usize::from(*bytes.split_off_first()?);
            if open >= PIECE {
                return None;
            }
            run.open = (0..open).map(|_| number(bytes)).collect::<Option<_>>()?;
            run.sum = f64::from_le_bytes(*bytes.split_off(..8)?.first_chunk()?);
            if !run.sum.is_finite() || run.sum < 0.0 {
                return None;
            }
        }
        Some(series)
    }

    /// Forgets the oldest piece of what takes most. False if there is none left.
    pub fn forget(&mut self) -> bool {
        let most = self.runs.iter_mut().max_by_key(|run| run.bytes());
        most.is_some_and(|run| run.pieces.pop_front().is_some())
    }
}

impl Run {
    /// Adds a value; the mean of a piece once that is whole.
    fn add(&mut self, value: f64, kept: usize) -> Option<f64> {
        self.open.push(pack(value as f32));
        self.sum += value;
        if self.open.len() < PIECE {
            return None;
        }
        if self.pieces.len() == kept {
            self.pieces.pop_front();
        }
        let first = self.open[0];
        let is_same = self.open.iter().all(|value| *value == first);
        let each = || Box::new(std::array::from_fn(|at| self.open[at]));
        self.pieces.push_back(if is_same { Piece::Same(first) } else { Piece::Each(each()) });
        self.open.clear();
        Some(std::mem::take(&mut self.sum) / PIECE as f64)
    }

    fn bytes(&self) -> usize {
        let each = self.pieces.iter().filter(|piece| matches!(piece, Piece::Each(_))).count();
        let held = self.pieces.capacity() * size_of::<Piece>();
        held + each * size_of::<[u16; PIECE]>() + self.open.capacity() * size_of::<u16>()
    }
}

/// The next packed number that was encoded.
fn number(bytes: &mut &[u8]) -> Option<u16> {
    let number = u16::from_le_bytes(*bytes.split_off(..2)?.first_chunk()?);
    // No sign, no infinity.
    (number <= PACKED_MAX).then_some(number)
}

/// A number that is not negative, in 16 bits: an f32 without its sign and the last of its fraction.
pub(super) fn pack(value: f32) -> u16 {
    ((value.to_bits() + (1 << 14)) >> 15).min(PACKED_MAX.into()) as u16
}

pub(super) fn unpack(packed: u16) -> f32 {
    f32::from_bits(u32::from(packed) << 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_are_means_of_every_second() {
        let (mut series, mut all, mut state) = (Series::default(), Vec::new(), 1_u64);
        while all.len() < 9 * 86_400 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (vru, seconds) = ((state >> 44) as f32 / 1e3, 1 + (state >> 33) as u32 % 97);
            let vru = if state >> 61 == 0 { 0.0 } else { vru };
            series.add(vru, seconds);
            all.extend(std::iter::repeat_n(f64::from(vru), seconds as usize));
        }
        for (step, seconds, kept) in
            [(Step::Second, 1, 3600), (Step::Minute, 60, 10_080), (Step::Hour, 3600, 8_760)]
        {
            let naive: Vec<f64> = all
                .chunks_exact(seconds)
                .map(|part| part.iter().sum::<f64>() / seconds as f64)
                .collect();
            let ours = series.values(step);
            assert!(ours.len() >= kept.min(naive.len()), "{step:?}: {}", ours.len());
            assert!(ours.len() < kept + PIECE, "{step:?} is bounded");
            for (ours, naive) in ours.iter().rev().zip(naive.iter().rev()) {
                assert!((f64::from(*ours) - naive).abs() <= naive / 500.0, "{ours} {naive}");
            }
        }
    }

    #[test]
    fn memory_is_as_promised_and_can_be_given_back() {
        let (mut moving, mut still) = (Series::default(), Series::default());
        for second in 0..40 * 86_400 {
            moving.add((second % 7_919) as f32, 1);
        }
        for _ in 0..400 * 24 {
            moving.add((moving.bytes() % 7) as f32 + 1.0, 1800);
            moving.add(9.0, 1800);
            still.add(3.0, 3600);
        }
        assert!(moving.bytes() <= 51 << 10, "{}", moving.bytes());
        assert!(still.bytes() <= 10 << 10, "{}", still.bytes());
        let before = moving.bytes();
        assert!(moving.forget() && moving.bytes() < before);
        while moving.forget() {}
        assert!(!moving.forget());
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_whole_is_none() {
        let mut series = Series::default();
        (0..4000).for_each(|at| series.add((at % 97) as f32 / 3.0, 41));
        let mut bytes = Vec::new();
        series.encode(&mut bytes);
        let mut rest = &bytes[..];
        let mut read = Series::decode(&mut rest).expect("whole");
        assert!(rest.is_empty());
        for (series, vru) in [(&mut series, 7.5), (&mut read, 7.5)] {
            series.add(vru, 3000);
        }
        for step in [Step::Second, Step::Minute, Step::Hour] {
            assert_eq!(read.values(step), series.values(step));
            assert_eq!(read.open_s(step), series.open_s(step));
        }
        for length in 0..bytes.len() {
            assert!(Series::decode(&mut &bytes[..length]).is_none(), "cut at {length}");
        }
    }

    #[test]
    fn means_are_of_the_newest_values() {
        let mut series = Series::default();
        (0..7).for_each(|minute| series.add(minute as f32, 60));
        assert_eq!(series.means(Step::Minute, 2), [1.5, 3.5, 5.5]);
        assert_eq!(series.means(Step::Hour, 2), [0.0_f32; 0]);
    }
}
