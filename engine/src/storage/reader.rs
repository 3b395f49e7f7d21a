//! Reading the log back: at start-up, for snapshots, for audit, also while it is being written.

use super::Point;
use super::handover::Handing;
use super::medium::{Host, Medium, MediumFile};
use super::record::{ALIGN_BYTES, HEADER_BYTES, RECORD_BYTES_MAX, Record, RecordError, decode};
use super::segment::{
    self, BLOCK_BYTES, FileError, HeaderError, SegmentHash, SegmentHeader, failed,
};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes read at a time: what fits a core's cache beside the rest.
const BUFFER_BYTES: usize = 256 * 1024;
const _: () = assert!(BUFFER_BYTES > 2 * RECORD_BYTES_MAX && BUFFER_BYTES > BLOCK_BYTES);
const _: () = assert!(RECORD_BYTES_MAX.is_multiple_of(ALIGN_BYTES));

/// How much a [`Reader`] verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Every record's checksum, sequence and chain value, and each segment's header.
    Records,
    /// Also the BLAKE3 hash of each whole segment read that has a successor.
    Trail,
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The first record asked for is in no segment that is left.
    #[error("{} has no segment that holds record {sequence}", dir.display())]
    Missing {
        /// The log's directory.
        dir: PathBuf,
        /// The record.
        sequence: u64,
    },
    /// A segment's header is not whole.
    #[error("{} is damaged: {reason}", path.display())]
    Header {
        /// The segment.
        path: PathBuf,
        /// What is wrong with it.
        reason: HeaderError,
    },
    /// A segment does not continue the one before it.
    #[error("{} does not continue the log behind record {sequence}: {what}", path.display())]
    Broken {
        /// The segment.
        path: PathBuf,
        /// Last record before it.
        sequence: u64,
        /// What does not match.
        what: &'static str,
    },
    /// A record that should be there is not whole.
    #[error("{} is damaged at byte {offset}, where record {sequence} should be: {stop}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The record.
        sequence: u64,
        /// What was found.
        stop: Stop,
    },
}

/// Why there is no next record at a place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The bytes are no whole record.
    #[error("{0}")]
    NoRecord(RecordError),
    /// A whole record, but not the next one.
    #[error("it has sequence {0}")]
    Sequence(u64),
    /// The next record, of another history.
    #[error("its chain value differs")]
    Chain,
}

/// Reads one segment from its start, verifying as it goes, up to the first thing that is not the
/// next record.
pub(crate) struct SegmentCursor<F> {
    pub(crate) path: PathBuf,
    file: F,
    pub(crate) header: SegmentHeader,
    /// Last record read.
    pub(crate) last: Point,
    buffer: Vec<u8>,
    /// Where in the file the buffer starts.
    buffer_at: u64,
    /// Valid bytes in the buffer.
    filled: usize,
    /// Start of the next record in the buffer.
    next: usize,
    /// Hash of everything before `hashed` in the buffer, if it is wanted.
    hasher: Option<blake3::Hasher>,
    hashed: usize,
    /// Who is handed the records, if somebody is; the first in the buffer starts at `unhanded`.
    pub(crate) handing: Option<Handing>,
    unhanded: usize,
    /// The record read last, without its body, and where in the buffer that is.
    record: Record<'static>,
    body_at: usize,
    body_bytes: usize,
    /// Why `step` said no, last time.
    pub(crate) stop: Stop,
}

/// Why a segment can not even be begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Header(HeaderError),
}

impl<F: MediumFile> SegmentCursor<F> {
    /// Opens a segment and reads its header. The hash is made if it is asked for.
    pub(crate) fn open<M: Medium<File = F>>(
        medium: &M,
        path: &Path,
        hash: bool,
    ) -> Result<SegmentCursor<F>, OpenError> {
        let file = medium.open(path, false).map_err(failed("open", path))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let filled = read_some(&file, &mut buffer, 0).map_err(failed("read", path))?;
        let block = buffer[..filled].get(..BLOCK_BYTES).unwrap_or_default();
        let header = SegmentHeader::decode(block).map_err(OpenError::Header)?;
        Ok(SegmentCursor {
            path: path.to_owned(),
            file,
            header,
            last: Point { sequence: header.first_sequence.saturating_sub(1), chain: header.chain },
            buffer,
            buffer_at: 0,
            filled,
            next: BLOCK_BYTES,
            hasher: hash.then(blake3::Hasher::new),
            hashed: 0,
            handing: None,
            unhanded: BLOCK_BYTES,
            record: Record {
                sequence: 0,
                time_ns: 0,
                session: 0,
                kind: 0,
                chain: 0,
                flush_index: 0,
                crc: 0,
                body: &[],
            },
            body_at: 0,
            body_bytes: 0,
            stop: Stop::NoRecord(RecordError::Short),
        })
    }

    /// Where the last record ends, in bytes from the start of the file.
    pub(crate) fn end(&self) -> u64 {
        self.buffer_at + self.next as u64
    }

    /// BLAKE3 of everything up to [`SegmentCursor::end`].
    pub(crate) fn hash(&mut self) -> SegmentHash {
        let hasher = self.hasher.as_mut().expect("the hash was asked for when opening");
        hasher.update(&self.buffer[self.hashed..self.next]);
        self.hashed = self.next;
        *hasher.finalize().as_bytes()
    }

    /// Forgets what was read ahead, so that what has been written since is seen.
    fn forget(&mut self) {
        self.filled = self.next;
    }

    /// Goes to the next record; `false` (and the reason in `stop`) where there is none.
    #[inline]
    pub(crate) fn step(&mut self) -> Result<bool, FileError> {
        if self.filled - self.next < RECORD_BYTES_MAX {
            self.fill()?;
        }
        let bytes = &self.buffer[self.next..self.filled];
        let record = match decode(bytes, Some(self.header.salt)) {
            Ok(record) => record,
            Err(error) => return Ok(self.stopped(Stop::NoRecord(error))),
        };
        let last = Point { sequence: record.sequence, chain: record.chain_after() };
        let (bytes, body_bytes) = (record.bytes(), record.body.len());
        // Only the body borrows the buffer.
        let record = Record { body: &[], ..record };
        if Some(record.sequence) != self.last.sequence.checked_add(1) {
            return Ok(self.stopped(Stop::Sequence(record.sequence)));
        }
        if record.chain != self.last.chain {
            return Ok(self.stopped(Stop::Chain));
        }
        (self.record, self.body_at, self.body_bytes) =
            (record, self.next + HEADER_BYTES, body_bytes);
        self.last = last;
        self.next += bytes;
        Ok(true)
    }

    #[cold]
    fn stopped(&mut self, stop: Stop) -> bool {
        self.stop = stop;
        false
    }

    /// The record that `step` went to.
    #[inline]
    pub(crate) fn record(&self) -> Record<'_> {
        let body = &self.buffer[self.body_at..self.body_at + self.body_bytes];
        Record { body, ..self.record }
    }

    /// Moves what is left to the front of the buffer and reads on.
    #[cold]
    fn fill(&mut self) -> Result<(), FileError> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.buffer[self.hashed..self.next]);
        }
        match &self.handing {
            Some(handing) => {
                let mut buffer = handing.buffer(BUFFER_BYTES);
                let rest = &self.buffer[self.next..self.filled];
                buffer[..rest.len()].copy_from_slice(rest);
                let full = std::mem::replace(&mut self.buffer, buffer);
                handing.give(full, self.unhanded..self.next);
            }
            None => self.buffer.copy_within(self.next..self.filled, 0),
        }
        self.buffer_at += self.next as u64;
        self.filled -= self.next;
        (self.next, self.hashed, self.unhanded) = (0, 0, 0);
        let at = self.buffer_at + self.filled as u64;
        let read = read_some(&self.file, &mut self.buffer[self.filled..], at);
        self.filled += read.map_err(failed("read", &self.path))?;
        Ok(())
    }

    /// Hands over the last of the records.
    pub(crate) fn hand_over(self) {
        if let Some(handing) = self.handing {
            handing.give(self.buffer, self.unhanded..self.next);
        }
    }

    /// What lies behind the last record.
    pub(crate) fn tail(&self) -> Result<Tail, FileError> {
        let salt = Some(self.header.salt);
        search(&self.file, &self.path, self.end(), salt, self.last.sequence)
    }
}

/// What a search found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The highest whole record: its sequence, and that of the first flushed with it.
    pub(crate) highest: Option<(u64, u64)>,
    /// Bytes up to the last one that is not zero.
    pub(crate) torn_bytes: u64,
}

/// Looks at every 8th byte from `from` on for whole records above `above`. Without a salt, any
/// segment's records count.
pub(crate) fn search<F: MediumFile>(
    file: &F,
    path: &Path,
    from: u64,
    salt: Option<u32>,
    above: u64,
) -> Result<Tail, FileError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut at, mut tail) = (from, Tail::default());
    loop {
        let filled = read_some(file, &mut buffer, at).map_err(failed("read", path))?;
        let at_end = filled < BUFFER_BYTES;
        if let Some(last) = buffer[..filled].iter().rposition(|&byte| byte != 0) {
            tail.torn_bytes = at - from + last as u64 + 1;
            // A record that may go on behind the buffer is looked at in the next round.
            let limit = if at_end { filled } else { filled - RECORD_BYTES_MAX };
            for start in (0..limit).step_by(ALIGN_BYTES) {
                if let Ok(record) = decode(&buffer[start..filled], salt)
                    && record.sequence > tail.highest.map_or(above, |(sequence, _)| sequence)
                {
                    let first = record.sequence.saturating_sub(u64::from(record.flush_index));
                    tail.highest = Some((record.sequence, first));
                }
            }
        }
        if at_end {
            return Ok(tail);
        }
        at += (BUFFER_BYTES - RECORD_BYTES_MAX) as u64;
    }
}

/// Reads as much as the file has and the buffer takes.
pub(crate) fn read_some<F: MediumFile>(file: &F, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads records in order, across segments, up to a sequence that is known to be written.
pub struct Reader<M: Medium = Host> {
    medium: M,
    dir: PathBuf,
    verify: Verify,
    from: u64,
    through: u64,
    cursor: SegmentCursor<M::File>,
}

impl<M: Medium> Reader<M> {
    /// A reader of the records `from..=through`, the first being 1.
    ///
    /// The log may be open for appending, here or in another process, as long as `through` is at
    /// most its durable sequence.
    ///
    /// # Errors
    /// The segment that holds `from` is missing or damaged.
    pub fn open(
        medium: &M,
        dir: &Path,
        from: u64,
        through: u64,
        verify: Verify,
    ) -> Result<Reader<M>, ReadError> {
        let missing = || ReadError::Missing { dir: dir.to_owned(), sequence: from };
        let segments = segment::list(medium, dir)?;
        let held = segments.partition_point(|&first| first <= from);
        let first = *segments[..held].last().ok_or_else(missing)?;
        let cursor = open_segment(medium, dir, first, verify)?;
        let (medium, dir) = (medium.clone(), dir.to_owned());
        Ok(Reader { medium, dir, verify, from, through, cursor })
    }

    /// The next record; `None` after `through`.
    ///
    /// # Errors
    /// A record that should be there is not, or is not whole.
    #[inline]
    #[allow(clippy::should_implement_trait)] // the record borrows the reader's buffer
    pub fn next(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        while self.cursor.last.sequence < self.through {
            if !self.cursor.step()? {
                self.next_segment()?;
            } else if self.cursor.last.sequence >= self.from {
                return Ok(Some(self.cursor.record()));
            }
        }
        Ok(None)
    }

    /// The place behind the record read last.
    pub fn point(&self) -> Point {
        self.cursor.last
    }

    /// Lets the reader go on to a later record, now that it is durable.
    pub fn extend(&mut self, through: u64) {
        self.through = self.through.max(through);
        self.cursor.forget();
    }

    /// Moves on to the segment that starts where this one ends.
    #[cold]
    fn next_segment(&mut self) -> Result<(), ReadError> {
        let last = self.cursor.last;
        let path = segment::path(&self.dir, last.sequence + 1);
        if path == self.cursor.path || !self.medium.exists(&path) {
            return Err(ReadError::Damaged {
                path: self.cursor.path.clone(),
                offset: self.cursor.end(),
                sequence: last.sequence + 1,
                stop: self.cursor.stop,
            });
        }
        let next = open_segment(&self.medium, &self.dir, last.sequence + 1, self.verify)?;
        let broken = |what| ReadError::Broken { path, sequence: last.sequence, what };
        if next.header.chain != last.chain {
            return Err(broken("its chain value differs"));
        }
        if self.verify == Verify::Trail && next.header.previous != self.cursor.hash() {
            return Err(broken("its hash of the segment before differs"));
        }
        self.cursor = next;
        Ok(())
    }
}

fn open_segment<M: Medium>(
    medium: &M,
    dir: &Path,
    first: u64,
    verify: Verify,
) -> Result<SegmentCursor<M::File>, ReadError> {
    let path = segment::path(dir, first);
    let cursor =
        SegmentCursor::open(medium, &path, verify == Verify::Trail).map_err(
            |error| match error {
                OpenError::File(error) => ReadError::File(error),
                OpenError::Header(reason) => ReadError::Header { path: path.clone(), reason },
            },
        )?;
    if cursor.header.first_sequence != first {
        let what = "its header names another first record";
        return Err(ReadError::Broken { path, sequence: first.saturating_sub(1), what });
    }
    Ok(cursor)
}
