//! The file in which series outlast the daemon: what was used, and what had been foreseen of it.
//!
//! It is written to a name of its own, made durable, and then takes the place of the one before, so that
//! there is always a whole one. It begins with [`MAGIC`] and the version and ends with a checksum of all before;
//! what is not as it should be is not read at all. Nothing depends on it but advice.

use super::LEVELS;
use super::series::Series;
use crc32c::crc32c_append;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

const MAGIC: [u8; 8] = *b"VENDFORE";
const VERSION: u32 = 1;
/// Forecasts kept of a series by view: a day's, a week's and a month's steps.
pub const STOOD_MAX: [usize; 3] = [288, 84, 60];
/// Bytes of a file at most, beside those of series in memory.
const FILE_BYTES_MAX: usize = 1 << 30;

/// A forecast of a step, the last that was made before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stood {
    /// When the step begins, seconds since 1970 UTC.
    pub begins_s: u32,
    /// What was foreseen, packed as values of series are.
    pub quantiles: [u16; LEVELS.len()],
}

/// A series and what was foreseen of it, by view.
#[derive(Debug, Default)]
pub struct Saved {
    /// Instance and resource.
    pub key: (u32, u8),
    /// What the instance is, as far as that can be told: its number may be another's some day.
    pub whose: u32,
    /// What was used.
    pub series: Series,
    /// What had been foreseen.
    pub stood: [VecDeque<Stood>; 3],
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says it")]
pub enum StoreError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not whole")]
    Torn,
    #[error("it is of another version ({0})")]
    Version(u32),
}

/// Sums what goes through it.
struct Summed<W: Write> {
    to: W,
    sum: u32,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum = crc32c_append(self.sum, bytes);
        self.to.write_all(bytes)
    }
}

/// Writes what was known at a moment, seconds since 1970 UTC, in the place of what `path` held.
///
/// # Errors
/// The directory or the file cannot be made or written.
pub fn save<'a>(
    path: &Path,
    at_s: u64,
    all: impl ExactSizeIterator<Item = ((u32, u8), u32, &'a Series, [&'a VecDeque<Stood>; 3])>,
) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let beside = path.with_extension("new");
    let mut out = Summed { to: BufWriter::new(File::create(&beside)?), sum: 0 };
    out.put(&MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    out.put(&(all.len() as u32).to_le_bytes())?;
    out.put(&at_s.to_le_bytes())?;
    let mut bytes = Vec::new();
    for ((instance, resource), whose, series, stood) in all {
        bytes.clear();
        bytes.extend(instance.to_le_bytes());
        bytes.extend(whose.to_le_bytes());
        bytes.push(resource);
        series.encode(&mut bytes);
        for stood in stood {
            bytes.extend((stood.len() as u16).to_le_bytes());
            for Stood { begins_s, quantiles } in stood {
                bytes.extend(begins_s.to_le_bytes());
                quantiles.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
        }
        out.put(&bytes)?;
    }
    let sum = out.sum.to_le_bytes();
    out.to.write_all(&sum)?;
    let file = out.to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// Reads a file: when it was written, and what was known.
///
/// # Errors
/// [`StoreError`]; nothing of it is used then.
pub fn load(path: &Path) -> Result<(u64, Vec<Saved>), StoreError> {
    let length = fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX as u64 {
        return Err(StoreError::Torn);
    }
    let bytes = fs::read(path)?;
    let (all, sum) = bytes.split_last_chunk::<4>().ok_or(StoreError::Torn)?;
    let rest = all.strip_prefix(&MAGIC).ok_or(StoreError::Torn)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(StoreError::Torn)?;
    if u32::from_le_bytes(*version) != VERSION {
        return Err(StoreError::Version(u32::from_le_bytes(*version)));
    }
    if crc32c_append(0, all) != u32::from_le_bytes(*sum) {
        return Err(StoreError::Torn);
    }
    read(rest).ok_or(StoreError::Torn)
}

fn read(mut bytes: &[u8]) -> Option<(u64, Vec<Saved>)> {
    let bytes = &mut bytes;
    let many = u32::from_le_bytes(take(bytes)?);
    let at_s = u64::from_le_bytes(take(bytes)?);
    let mut all = Vec::new();
    for _ in 0..many {
        let instance = u32::from_le_bytes(take(bytes)?);
        let whose = u32::from_le_bytes(take(bytes)?);
        let [resource] = take(bytes)?;
        let series = Series::decode(bytes)?;
        let mut saved = Saved { key: (instance, resource), whose, series, ..Saved::default() };
        for (stood, most) in saved.stood.iter_mut().zip(STOOD_MAX) {
            let kept = usize::from(u16::from_le_bytes(take(bytes)?));
            if kept > most {
                return None;
            }
            for _ in 0..kept {
                let begins_s = u32::from_le_bytes(take(bytes)?);
                let mut quantiles = [0; LEVELS.len()];
                for value in &mut quantiles {
                    *value = u16::from_le_bytes(take(bytes)?);
                }
                stood.push_back(Stood { begins_s, quantiles });
            }
        }
        all.push(saved);
    }
    bytes.is_empty().then_some((at_s, all))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::series::Step;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("below").join("series");
        let mut series = Series::default();
        (0..500).for_each(|at| series.add(at as f32, 7));
        let stood = Stood { begins_s: 1_700_000_000, quantiles: [1, 2, 3, 4, 5, 6, 7] };
        let kept = VecDeque::from([stood; 3]);
        let none = VecDeque::new();
        let all = [((3, 1), 77, &series, [&kept, &none, &kept]); 2];
        save(&path, 42, all.into_iter()).expect("written");
        save(&path, 43, all.into_iter()).expect("written again");
        let (at_s, read) = load(&path).expect("whole");
        assert_eq!((at_s, read.len()), (43, 2));
        assert_eq!((read[1].key, read[1].whose), ((3, 1), 77));
        assert_eq!(read[1].series.values(Step::Minute), series.values(Step::Minute));
        assert_eq!(read[1].stood, [kept.clone(), VecDeque::new(), kept]);

        let bytes = fs::read(&path).expect("its bytes");
        for cut in [0, 3, 12, 20, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).expect("cut");
            assert!(load(&path).is_err(), "cut at {cut}");
        }
        for at in (0..bytes.len()).step_by(41) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            fs::write(&path, &flipped).expect("flipped");
            assert!(load(&path).is_err(), "flipped at {at}");
        }
        let mut older = bytes;
        older[8] = 9;
        fs::write(&path, &older).expect("of another version");
        assert!(matches!(load(&path), Err(StoreError::Version(9))));
    }
}
