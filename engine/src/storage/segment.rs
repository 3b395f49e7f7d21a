//! Segments: the files a log consists of, and the directory they lie in.
//!
//! A segment is named after its first record, `<sequence as 20 digits>.log`. Its first block of
//! [`BLOCK_BYTES`] is the [`SegmentHeader`]; records follow; zeros fill the rest. Each header
//! carries the BLAKE3 hash of the previous segment from its first byte to the end of its last
//! record, so the segments form a cryptographic chain.
//!
//! The file that will be the next segment is called [`PREPARED_NAME`] and holds zeros only. It
//! gets its name when the log moves on to it, and its header with the first records, in one
//! write. The directory is not flushed at that moment: a prepared file with a valid header is a
//! segment whose new name had not reached the disk, and recovery gives it that name.

use super::medium::{Medium, MediumFile};
use std::io;
use std::path::{Path, PathBuf};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Unit of every write, in bytes; what O_DIRECT asks for.
pub const BLOCK_BYTES: usize = 4096;
/// Where the first record of a segment starts.
pub const RECORDS_AT: u64 = BLOCK_BYTES as u64;
/// Name of the file that will be the next segment.
pub const PREPARED_NAME: &str = "prepared";
/// A file being copied from the other device.
pub(crate) const COPY_NAME: &str = "copy";
/// Version of segments and records written by this code.
pub const VERSION: u32 = 2;

const MAGIC: [u8; 8] = *b"VENDUELG";
const LOCK_NAME: &str = "lock";
const CRC_BYTES: usize = 4;

/// BLAKE3 of a segment.
pub type SegmentHash = [u8; 32];

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried.
    pub what: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Turns an `io::Error` into a [`FileError`].
pub(crate) fn failed<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { what, path: path.to_owned(), source }
}

/// The first block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Marks the segment's records; random.
    pub salt: u32,
    /// Sequence of its first record.
    pub first_sequence: u64,
    /// Chain value of everything before its first record.
    pub chain: u64,
    /// BLAKE3 of the previous segment up to the end of its last record; zeros if there is none.
    pub previous: SegmentHash,
}

/// Why a block is not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It does not start as one.
    #[error("it does not start with a segment header")]
    Magic,
    /// Written by another version.
    #[error("its format has version {0}, this program reads version {VERSION}")]
    Version(u32),
    /// The bytes are not those that were written.
    #[error("the checksum of its header does not match")]
    Crc,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    /// CRC32C of the rest of the block.
    crc: U32,
    version: U32,
    magic: [u8; 8],
    first_sequence: U64,
    chain: U64,
    previous: SegmentHash,
    salt: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<RawHeader>() == 72 && size_of::<RawHeader>() < BLOCK_BYTES);

impl SegmentHeader {
    /// Fills a block with the header.
    pub(crate) fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_BYTES, "a segment header takes one block");
        let raw = RawHeader {
            crc: U32::ZERO,
            version: U32::new(VERSION),
            magic: MAGIC,
            first_sequence: U64::new(self.first_sequence),
            chain: U64::new(self.chain),
            previous: self.previous,
            salt: U32::new(self.salt),
            reserved: U32::ZERO,
        };
        block.fill(0);
        block[..size_of::<RawHeader>()].copy_from_slice(raw.as_bytes());
        let crc = crc32c::crc32c(&block[CRC_BYTES..]);
        block[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header from a block of [`BLOCK_BYTES`].
    ///
    /// # Errors
    /// Says why the block is not one.
    pub fn decode(block: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let (raw, _) = RawHeader::ref_from_prefix(block).map_err(|_| HeaderError::Magic)?;
        if raw.magic != MAGIC || block.len() != BLOCK_BYTES {
            return Err(HeaderError::Magic);
        }
        if crc32c::crc32c(&block[CRC_BYTES..]) != raw.crc.get() {
            return Err(HeaderError::Crc);
        }
        if raw.version.get() != VERSION {
            return Err(HeaderError::Version(raw.version.get()));
        }
        Ok(SegmentHeader {
            salt: raw.salt.get(),
            first_sequence: raw.first_sequence.get(),
            chain: raw.chain.get(),
            previous: raw.previous,
        })
    }
}

/// Where the segment that starts with this record lies.
pub fn path(dir: &Path, first_sequence: u64) -> PathBuf {
    dir.join(format!("{first_sequence:020}.log"))
}

/// First sequences of the segments in a directory, ascending. Other files are left alone.
///
/// # Errors
/// The directory can not be read.
pub fn list<M: Medium>(medium: &M, dir: &Path) -> Result<Vec<u64>, FileError> {
    numbered(medium, dir, ".log")
}

/// Numbers of the files called `<20 digits><suffix>`, ascending.
pub(crate) fn numbered<M: Medium>(
    medium: &M,
    dir: &Path,
    suffix: &str,
) -> Result<Vec<u64>, FileError> {
    let mut numbers = Vec::new();
    for name in medium.names(dir).map_err(failed("list", dir))? {
        let Some(digits) = name.strip_suffix(suffix) else { continue };
        if digits.len() == 20
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && let Ok(number) = digits.parse()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the records `from..=through` durable, which are written.
///
/// # Errors
/// A segment can not be opened or flushed.
pub fn sync<M: Medium>(medium: &M, dir: &Path, from: u64, through: u64) -> Result<(), FileError> {
    let segments = list(medium, dir)?;
    let held = segments.partition_point(|&first| first <= from).saturating_sub(1);
    for &first in segments[held..].iter().take_while(|&&first| first <= through) {
        let path = path(dir, first);
        let flushed = medium.open(&path, true).and_then(|file| file.sync());
        flushed.map_err(failed("flush", &path))?;
    }
    Ok(())
}

/// Makes creations, renames and removals in a directory durable.
pub(crate) fn sync_dir<M: Medium>(medium: &M, dir: &Path) -> Result<(), FileError> {
    medium.sync_dir(dir).map_err(failed("flush the directory", dir))
}

/// Why a directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{} is in use by another daemon: stop it, or give this one a directory of its own",
        dir.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The lock file can not be made or locked.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A log directory that belongs to this process until this is dropped.
#[derive(Debug)]
pub(crate) struct LockedDir<M: Medium> {
    pub(crate) path: PathBuf,
    _lock: M::Lock,
}

impl<M: Medium> LockedDir<M> {
    /// Makes the directory if need be and takes it.
    pub(crate) fn take(medium: &M, dir: &Path) -> Result<LockedDir<M>, LockError> {
        medium.make_dir(dir).map_err(failed("make the directory", dir))?;
        let path = dir.join(LOCK_NAME);
        match medium.lock(&path).map_err(failed("lock", &path))? {
            Some(lock) => Ok(LockedDir { path: dir.to_owned(), _lock: lock }),
            None => Err(LockError::InUse { dir: dir.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Host;
    use std::fs;

    const HEADER: SegmentHeader =
        SegmentHeader { salt: 5, first_sequence: 17, chain: 23, previous: [9; 32] };

    #[test]
    fn a_header_comes_back_and_no_bit_of_its_block_can_change() {
        let mut block = [0xff; BLOCK_BYTES];
        HEADER.encode(&mut block);
        assert_eq!(SegmentHeader::decode(&block), Ok(HEADER));
        for bit in (0..BLOCK_BYTES * 8).step_by(37) {
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&block).is_err(), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(SegmentHeader::decode(&[0; BLOCK_BYTES]), Err(HeaderError::Magic));
    }

    #[test]
    fn another_version_is_named() {
        let mut block = [0; BLOCK_BYTES];
        HEADER.encode(&mut block);
        block[4] = 9;
        let crc = crc32c::crc32c(&block[4..]);
        block[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderError::Version(9)));
    }

    #[test]
    fn only_segments_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["00000000000000000012.log", "00000000000000000001.log", "lock", "1.log"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        fs::write(dir.path().join("99999999999999999999.log"), b"").unwrap(); // above u64::MAX
        assert_eq!(list(&Host, dir.path()).unwrap(), [1, 12]);
        assert!(path(dir.path(), 12).exists());
    }

    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let owner = LockedDir::take(&Host, dir.path()).unwrap();
        let second = LockedDir::take(&Host, dir.path()).unwrap_err();
        assert!(matches!(second, LockError::InUse { .. }));
        assert!(second.to_string().contains("in use by another daemon"));
        drop(owner);
        LockedDir::take(&Host, dir.path()).unwrap();
    }
}
