//! Snapshots: a state of the machine as a file, so that start-up need not replay the whole log.
//!
//! `<sequence as 20 digits>.snap` holds a header of 80 bytes and the payload, which storage does
//! not look into. A snapshot is written under another name, flushed, and renamed, so a file with
//! a snapshot's name is whole unless a device damaged it.

use super::Point;
use super::medium::{Medium, MediumFile};
use super::reader::read_some;
use super::segment::{FileError, failed, numbered, sync_dir};
use std::io;
use std::path::{Path, PathBuf};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Snapshots kept: the newest, and one in case it is damaged.
pub const KEPT: usize = 2;
/// Version of the header written by this code.
pub const VERSION: u32 = 2;

const MAGIC: [u8; 8] = *b"VENDUESN";
const SUFFIX: &str = ".snap";
const PARTIAL_NAME: &str = "snapshot.partial";

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    /// CRC32C of the rest of the header.
    crc: U32,
    version: U32,
    magic: [u8; 8],
    sequence: U64,
    chain: U64,
    time_ns: U64,
    payload_bytes: U64,
    /// BLAKE3 of the payload.
    payload_hash: [u8; 32],
}

const CRC_BYTES: usize = 4;
const _: () = assert!(size_of::<Header>() == 80);

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The place in the log whose state it holds.
    pub point: Point,
    /// Sequencer's time of that record, nanoseconds since 1970 UTC.
    pub time_ns: u64,
}

/// Why a snapshot can not be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The snapshot.
        path: PathBuf,
        /// What does not match.
        what: &'static str,
    },
    /// It was written by another version.
    #[error(
        "{} has format version {version}, this program reads version {VERSION}", path.display()
    )]
    Version {
        /// The snapshot.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// The newest snapshot that is whole.
#[derive(Debug)]
pub struct Newest {
    /// Header and payload, if there is one.
    pub snapshot: Option<(Meta, Vec<u8>)>,
    /// Newer ones that can not be used.
    pub damaged: Vec<SnapshotError>,
}

/// Where the snapshot of this sequence lies.
pub fn path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:020}{SUFFIX}"))
}

/// Writes a snapshot, on stable storage when this returns, and deletes all but the newest
/// [`KEPT`]. The directory is made if need be; one thread at a time.
///
/// # Errors
/// A file can not be written or removed. Older snapshots are still there.
pub fn write<M: Medium>(
    medium: &M,
    dir: &Path,
    sequence: u64,
    chain: u64,
    time_ns: u64,
    payload: &[u8],
) -> Result<(), FileError> {
    medium.make_dir(dir).map_err(failed("make the directory", dir))?;
    let mut header = Header {
        crc: U32::ZERO,
        version: U32::new(VERSION),
        magic: MAGIC,
        sequence: U64::new(sequence),
        chain: U64::new(chain),
        time_ns: U64::new(time_ns),
        payload_bytes: U64::new(payload.len() as u64),
        payload_hash: *blake3::hash(payload).as_bytes(),
    };
    header.crc = U32::new(crc32c::crc32c(&header.as_bytes()[CRC_BYTES..]));
    let partial = dir.join(PARTIAL_NAME);
    let written = medium.create(&partial, false).and_then(|file| {
        file.write_all_at(header.as_bytes(), 0)?;
        file.write_all_at(payload, size_of::<Header>() as u64)?;
        file.sync()
    });
    if let Err(error) = written {
        // The space is needed more than the half of a snapshot.
        let _ = medium.remove(&partial);
        return Err(failed("write", &partial)(error));
    }
    let path = path(dir, sequence);
    medium.rename(&partial, &path).map_err(failed("name", &path))?;
    sync_dir(medium, dir)?;
    for old in numbered(medium, dir, SUFFIX)?.into_iter().rev().skip(KEPT) {
        let path = self::path(dir, old);
        medium.remove(&path).map_err(failed("remove", &path))?;
    }
    Ok(())
}

/// The newest snapshot that is whole, and why newer ones are not. Without a directory there is
/// none.
///
/// # Errors
/// The directory can not be read.
pub fn newest_valid<M: Medium>(medium: &M, dir: &Path) -> Result<Newest, FileError> {
    newest_valid_through(medium, dir, u64::MAX)
}

/// As [`newest_valid`], of those up to sequence `through`.
///
/// # Errors
/// The directory can not be read.
pub fn newest_valid_through<M: Medium>(
    medium: &M,
    dir: &Path,
    through: u64,
) -> Result<Newest, FileError> {
    let mut damaged = Vec::new();
    let numbers = match numbered(medium, dir, SUFFIX) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Vec::new(),
        numbers => numbers?,
    };
    for sequence in numbers.into_iter().rev().filter(|&sequence| sequence <= through) {
        match read(medium, dir, sequence) {
            Ok(snapshot) => return Ok(Newest { snapshot: Some(snapshot), damaged }),
            Err(error) => damaged.push(error),
        }
    }
    Ok(Newest { snapshot: None, damaged })
}

fn read<M: Medium>(
    medium: &M,
    dir: &Path,
    sequence: u64,
) -> Result<(Meta, Vec<u8>), SnapshotError> {
    let path = path(dir, sequence);
    let mut payload = read_whole(medium, &path).map_err(failed("read", &path))?;
    let damaged = |what| SnapshotError::Damaged { path: path.clone(), what };
    let (header, rest) =
        Header::read_from_prefix(&payload).map_err(|_| damaged("it is too short"))?;
    if header.magic != MAGIC {
        return Err(damaged("it does not start with a snapshot header"));
    }
    if crc32c::crc32c(&header.as_bytes()[CRC_BYTES..]) != header.crc.get() {
        return Err(damaged("the checksum of its header does not match"));
    }
    if header.version.get() != VERSION {
        let version = header.version.get();
        return Err(SnapshotError::Version { path, version });
    }
    if header.sequence.get() != sequence {
        return Err(damaged("its header names another sequence"));
    }
    if rest.len() as u64 != header.payload_bytes.get() {
        return Err(damaged("its length is not the one its header names"));
    }
    if *blake3::hash(rest).as_bytes() != header.payload_hash {
        return Err(damaged("its hash does not match"));
    }
    let point = Point { sequence, chain: header.chain.get() };
    payload.drain(..size_of::<Header>());
    Ok((Meta { point, time_ns: header.time_ns.get() }, payload))
}

fn read_whole<M: Medium>(medium: &M, path: &Path) -> io::Result<Vec<u8>> {
    let file = medium.open(path, false)?;
    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let mut bytes = vec![0; usize::try_from(file.length()?).map_err(too_large)?];
    let read = read_some(&file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Host;
    use std::fs;

    #[test]
    fn the_newest_two_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for sequence in [5, 9, 12] {
            write(&Host, dir.path(), sequence, sequence + 100, 7, &vec![sequence as u8; 9000])
                .unwrap();
        }
        assert_eq!(numbered(&Host, dir.path(), SUFFIX).unwrap(), [9, 12]);
        assert!(!dir.path().join(PARTIAL_NAME).exists());
        let newest = newest_valid(&Host, dir.path()).unwrap();
        assert!(newest.damaged.is_empty());
        let meta = Meta { point: Point { sequence: 12, chain: 112 }, time_ns: 7 };
        assert_eq!(newest.snapshot, Some((meta, vec![12; 9000])));
    }

    #[test]
    fn a_damaged_one_is_reported_and_the_one_before_it_used() {
        let dir = tempfile::tempdir().unwrap();
        write(&Host, dir.path(), 5, 1, 7, b"older").unwrap();
        write(&Host, dir.path(), 9, 2, 7, b"newer").unwrap();
        let path = path(dir.path(), 9);
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let newest = newest_valid(&Host, dir.path()).unwrap();
            assert_eq!(newest.damaged.len(), 1, "bit {bit}");
            assert!(newest.damaged[0].to_string().contains("09.snap"));
            assert_eq!(newest.snapshot.unwrap().1, b"older");
        }
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(newest_valid(&Host, dir.path()).unwrap().snapshot.unwrap().1, b"older");
        }
    }

    #[test]
    fn no_snapshot_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let newest = newest_valid(&Host, &dir.path().join("not-there")).unwrap();
        assert!(newest.snapshot.is_none() && newest.damaged.is_empty());
    }
}
