//! What a crash left, made fit to go on with.
//!
//! Every record from the one the caller needs is verified: checksum, sequence, chain value, and
//! the links between segments. Then there are three cases.
//!
//! - Behind the last whole record there is nothing that is a record: the log was cut off in the
//!   middle of a write that nobody had been told of. What is left of that write is cut away.
//! - Behind the last whole record there is another whole one: something that had been written is
//!   gone. Going on would silently forget it, so recovery stops with [`RecoverError::LostWrite`].
//! - There is a mirror. The side that is whole, or the longer one if both are, is copied over the
//!   other before anything new is accepted.
//!
//! Nothing is changed before all of it has been looked at. The log goes on in a new segment, so
//! nothing is ever written behind bytes that a crash left; and the last one is written anew, so
//! that nothing rests on a flush that may have failed.

use super::Point;
use super::handover::Handing;
use super::medium::{Host, Medium, MediumFile};
use super::reader::{OpenError, SegmentCursor, Tail, read_some, search};
use super::segment::{
    self, COPY_NAME, FileError, HeaderError, LockError, LockedDir, PREPARED_NAME, SegmentHash,
    failed,
};
use nix::libc;
use std::io;
use std::path::{Path, PathBuf};

/// Why the log can not be used as it is. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A directory is in use, or can not be made.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file can not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A record is missing or damaged in front of others that are whole.
    #[error(
        "{}: the log is whole up to record {good_through} and then damaged, but was written up to \
         record {found} at least: a device lost or changed what it had confirmed. {} Nothing was \
         changed. Restore the directory from its mirror or a backup; or, to go on without the \
         records above {good_through}, move it away and keep it for the audit", segment.display(),
        if *one_flush {
            "Everything behind the damage belongs to the same last write, so this may also be a \
             power failure in the middle of it, on a device that writes out of order; the records \
             concerned may not have been acknowledged."
        } else {
            "Records that were acknowledged are lost."
        }
    )]
    LostWrite {
        /// The segment in which the damage starts.
        segment: PathBuf,
        /// Last record before the damage.
        good_through: u64,
        /// Last record known to have been written.
        found: u64,
        /// Whether all that was found belongs to the same flush as the damage.
        one_flush: bool,
    },
    /// The segments do not reach back to what is needed.
    #[error(
        "{} holds no segment with record {needed}: restore the missing segments, or a newer \
         snapshot that does not need them", dir.display()
    )]
    Missing {
        /// The log's directory.
        dir: PathBuf,
        /// The record.
        needed: u64,
    },
    /// The log ends before the caller's state does.
    #[error(
        "{} ends with record {last}, but a snapshot of record {known} exists: restore the newest \
         segments from the mirror or a backup", dir.display()
    )]
    Behind {
        /// The log's directory.
        dir: PathBuf,
        /// Last record of the log.
        last: u64,
        /// Record of the snapshot.
        known: u64,
    },
    /// The caller's state comes from another history.
    #[error(
        "the snapshot of record {known} does not belong to the log in {}: its chain value \
         differs. Bring together a log and its own snapshots", dir.display()
    )]
    OtherLog {
        /// The log's directory.
        dir: PathBuf,
        /// Record of the snapshot.
        known: u64,
    },
    /// A segment was written by another version of the program.
    #[error("{}: {reason}; use the version that wrote it", segment.display())]
    Version {
        /// The segment.
        segment: PathBuf,
        /// Which version.
        reason: HeaderError,
    },
    /// A segment is whole, but does not follow the one before it.
    #[error(
        "{} does not continue the log behind record {good_through}: {what}. Segments were \
         exchanged or changed; restore the directory from its mirror or a backup",
        segment.display()
    )]
    Broken {
        /// The segment.
        segment: PathBuf,
        /// Last record before it.
        good_through: u64,
        /// What does not match.
        what: &'static str,
    },
    /// Log and mirror are both whole and differ.
    #[error(
        "{} and {} hold different histories up to record {sequence}: they are not mirrors of each \
         other. Move away the wrong one", dir.display(), mirror.display()
    )]
    Diverged {
        /// The log's directory.
        dir: PathBuf,
        /// The mirror's.
        mirror: PathBuf,
        /// Last record that should be the same.
        sequence: u64,
    },
    /// One side is damaged, and the other is too old to mend it.
    #[error(
        "the log in {} is whole but ends with record {last}, before what the damaged other side \
         had written, so it can not mend it. The damage: {damage}", dir.display()
    )]
    Stale {
        /// The side that is whole.
        dir: PathBuf,
        /// Its last record.
        last: u64,
        /// What is wrong with the other side.
        damage: Box<RecoverError>,
    },
    /// Neither side is whole.
    #[error("the log and its mirror are both damaged. The log: {log} The mirror: {mirror}")]
    BothDamaged {
        /// What is wrong with the log.
        log: Box<RecoverError>,
        /// What is wrong with the mirror.
        mirror: Box<RecoverError>,
    },
}

/// A torn tail that was cut away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub segment: PathBuf,
    /// Bytes behind its last whole record, up to the last one that was not zero.
    pub bytes: u64,
}

/// A side that was copied from the other.
#[derive(Debug)]
pub struct Rebuilt {
    /// The directory that was rebuilt.
    pub dir: PathBuf,
    /// Segments copied.
    pub segments: u64,
    /// What was wrong with it; `None` if it was only shorter.
    pub damage: Option<RecoverError>,
}

/// A log that is whole, and locked for [`super::Log::open`].
#[derive(Debug)]
pub struct Recovered<M: Medium = Host> {
    /// Its last record.
    pub last: Point,
    /// What was cut away, on either side.
    pub cuts: Vec<Cut>,
    /// The side that was rebuilt, if one was.
    pub rebuilt: Option<Rebuilt>,
    /// Hash of the last segment, for the header of the next.
    pub(crate) previous: SegmentHash,
    /// The log's directory, then the mirror's.
    pub(crate) dirs: Vec<LockedDir<M>>,
    pub(crate) medium: M,
}

/// Verifies the log in `dir` and its `mirror` behind `known`, and mends what can be mended.
///
/// `known` is where a snapshot was taken, or [`Point::START`]; older segments may be missing and
/// are left to the audit ([`super::Verify::Trail`]). The directories are made if need be, and locked.
///
/// # Errors
/// The log is damaged beyond a torn tail and no whole mirror can mend it, or is not the log of
/// `known`, or a directory can not be used. The log is then as it was.
pub fn recover<M: Medium>(
    medium: &M,
    dir: &Path,
    mirror: Option<&Path>,
    known: Point,
) -> Result<Recovered<M>, RecoverError> {
    let Some(mirror) = mirror else { return recover_one(medium, dir, known, None) };
    let dirs = vec![LockedDir::take(medium, dir)?, LockedDir::take(medium, mirror)?];
    let examine = |dir| Side::examine(medium, dir, known, None);
    let sides = (examine(dir), examine(mirror));
    let (good, other, damage) = match sides {
        (Ok(log), Ok(copy)) if log.last == copy.last && log.hash == copy.hash => {
            let cuts = log.settle()?.into_iter().chain(copy.settle()?).collect();
            let (last, previous, medium) = (log.last, log.hash, medium.clone());
            return Ok(Recovered { last, cuts, rebuilt: None, previous, dirs, medium });
        }
        (Ok(log), Ok(copy)) => {
            let log_is_longer = log.last.sequence >= copy.last.sequence;
            let (good, shorter) = if log_is_longer { (log, copy) } else { (copy, log) };
            good.check_continues(&shorter, dir, mirror)?;
            let other = if log_is_longer { mirror } else { dir };
            (good, other, None)
        }
        (Ok(log), Err(damage)) => (log, mirror, Some(damage)),
        (Err(damage), Ok(copy)) => (copy, dir, Some(damage)),
        (Err(log), Err(copy)) => {
            let (log, mirror) = (Box::new(log), Box::new(copy));
            return Err(RecoverError::BothDamaged { log, mirror });
        }
    };
    let damage = damage.map(|damage| good.check_can_mend(other, damage)).transpose()?;
    let cuts = good.settle()?.into_iter().collect();
    let segments = good.copy_to(other)?;
    let rebuilt = Some(Rebuilt { dir: other.to_owned(), segments, damage });
    let (last, previous, medium) = (good.last, good.hash, medium.clone());
    Ok(Recovered { last, cuts, rebuilt, previous, dirs, medium })
}

/// As [`recover`] without a mirror. Each record is handed over as soon as it is verified, from the
/// segment on that holds `known`; also if the log then turns out to be damaged behind it.
///
/// # Errors
/// As [`recover`]; what was handed over then means nothing.
pub fn recover_handing<M: Medium>(
    medium: &M,
    dir: &Path,
    known: Point,
    handing: Handing,
) -> Result<Recovered<M>, RecoverError> {
    recover_one(medium, dir, known, Some(handing))
}

fn recover_one<M: Medium>(
    medium: &M,
    dir: &Path,
    known: Point,
    handing: Option<Handing>,
) -> Result<Recovered<M>, RecoverError> {
    let dirs = vec![LockedDir::take(medium, dir)?];
    let side = Side::examine(medium, dir, known, handing)?;
    let cuts = side.settle()?.into_iter().collect();
    let (last, previous) = (side.last, side.hash);
    Ok(Recovered { last, cuts, rebuilt: None, previous, dirs, medium: medium.clone() })
}

/// A file that may be a segment.
#[derive(Clone, Debug)]
struct Candidate {
    first: u64,
    path: PathBuf,
}

/// One directory whose log is whole, and what has to be done to leave it tidy.
#[derive(Debug)]
struct Side<'a, M> {
    medium: &'a M,
    dir: PathBuf,
    /// Segments that were verified, in order.
    segments: Vec<Candidate>,
    last: Point,
    /// Where in the last segment its last record ends.
    end: u64,
    /// Of the last segment; zeros if there is none.
    hash: SegmentHash,
    torn_bytes: u64,
    /// Files that hold no record.
    waste: Vec<PathBuf>,
}

impl<'a, M: Medium> Side<'a, M> {
    /// Verifies a directory without changing it.
    fn examine(
        medium: &'a M,
        dir: &Path,
        known: Point,
        handing: Option<Handing>,
    ) -> Result<Side<'a, M>, RecoverError> {
        let (mut candidates, prepared) = candidates(medium, dir)?;
        let mut side = Side {
            medium,
            dir: dir.to_owned(),
            segments: Vec::new(),
            last: Point::START,
            end: 0,
            hash: [0; 32],
            torn_bytes: 0,
            waste: Vec::new(),
        };
        if let Some(last) = candidates.last()
            && is_void(medium, &last.path)?
        {
            side.waste.extend(candidates.pop().map(|last| last.path));
        }
        let needed = known.sequence.max(1);
        let older = candidates.partition_point(|candidate| candidate.first <= needed);
        if older == 0 && (known.sequence > 0 || !candidates.is_empty()) {
            return Err(RecoverError::Missing { dir: dir.to_owned(), needed });
        }
        candidates.drain(..older.saturating_sub(1));
        // A segment is begun only when the one before it is complete, so its name is a proof.
        let written = candidates.last().map_or(0, |last| last.first - 1);
        for candidate in candidates {
            side.examine_segment(candidate, written, known, handing.clone())?;
        }
        // Whoever executes may end: what else there is to look at holds no record.
        drop(handing);
        if let Some(path) = prepared {
            let tail = search_file(medium, &path, side.last.sequence)?;
            if tail.highest.is_some() {
                return Err(lost(&path, side.last.sequence, written, tail));
            }
            side.waste.push(path);
        }
        if side.last.sequence < known.sequence {
            let (last, known) = (side.last.sequence, known.sequence);
            return Err(RecoverError::Behind { dir: dir.to_owned(), last, known });
        }
        Ok(side)
    }

    /// Verifies the next segment. `written` is the last record that segment names are proof of.
    fn examine_segment(
        &mut self,
        candidate: Candidate,
        written: u64,
        known: Point,
        handing: Option<Handing>,
    ) -> Result<(), RecoverError> {
        let mut cursor = self.open_segment(&candidate, written)?;
        cursor.handing = handing;
        while cursor.step()? {
            if cursor.last.sequence == known.sequence && cursor.last.chain != known.chain {
                let (dir, known) = (self.dir.clone(), known.sequence);
                return Err(RecoverError::OtherLog { dir, known });
            }
        }
        if candidate.first > written {
            let tail = cursor.tail()?;
            if tail.highest.is_some() {
                return Err(lost(&candidate.path, cursor.last.sequence, written, tail));
            }
            if cursor.last.sequence < candidate.first {
                // A header and no record: the log goes on from the segment before.
                if self.segments.is_empty() {
                    self.last = cursor.last;
                }
                self.waste.push(candidate.path);
                return Ok(());
            }
            self.torn_bytes = tail.torn_bytes;
        }
        (self.last, self.end, self.hash) = (cursor.last, cursor.end(), cursor.hash());
        cursor.hand_over();
        self.segments.push(candidate);
        Ok(())
    }

    /// Opens a segment and verifies that it follows the one before it.
    fn open_segment(
        &self,
        candidate: &Candidate,
        written: u64,
    ) -> Result<SegmentCursor<M::File>, RecoverError> {
        let Candidate { first, path } = candidate;
        let before = self.segments.last();
        let good_through = if before.is_some() { self.last.sequence } else { first - 1 };
        if let Some(before) = before
            && *first > good_through + 1
        {
            return Err(lost(&before.path, good_through, written, Tail::default()));
        }
        let cursor = match SegmentCursor::open(self.medium, path, true) {
            Ok(cursor) => cursor,
            Err(OpenError::File(error)) => return Err(error.into()),
            Err(OpenError::Header(reason @ HeaderError::Version(_))) => {
                return Err(RecoverError::Version { segment: path.clone(), reason });
            }
            Err(OpenError::Header(_)) => {
                let tail = search_file(self.medium, path, good_through)?;
                return Err(lost(path, good_through, written, tail));
            }
        };
        let header = &cursor.header;
        let follows = before.is_some() || *first == 1;
        let what = if header.first_sequence != *first || *first != good_through + 1 {
            "its header names another first record"
        } else if follows && header.chain != self.last.chain {
            "its chain value differs"
        } else if follows && header.previous != self.hash {
            "its hash of the segment before differs"
        } else {
            return Ok(cursor);
        };
        Err(RecoverError::Broken { segment: path.clone(), good_through, what })
    }

    /// Verifies that this side holds everything the shorter one holds.
    fn check_continues(
        &self,
        shorter: &Side<'_, M>,
        dir: &Path,
        mirror: &Path,
    ) -> Result<(), RecoverError> {
        let sequence = shorter.last.sequence;
        if sequence == 0 {
            return Ok(());
        }
        let diverged =
            || RecoverError::Diverged { dir: dir.to_owned(), mirror: mirror.to_owned(), sequence };
        // Verified before, so anything but the chain value is a file that became unreadable.
        let mut at = None;
        if let Some(segment) = self.segments.iter().rfind(|candidate| candidate.first <= sequence) {
            let mut cursor = match SegmentCursor::open(self.medium, &segment.path, false) {
                Ok(cursor) => cursor,
                Err(OpenError::File(error)) => return Err(error.into()),
                Err(OpenError::Header(_)) => return Err(diverged()),
            };
            while cursor.last.sequence < sequence && cursor.step()? {}
            at = Some(cursor.last);
        }
        if at == Some(shorter.last) { Ok(()) } else { Err(diverged()) }
    }

    /// Whether this side has everything that the damaged one may have acknowledged; if so, hands
    /// the damage back for the report.
    ///
    /// A record is acknowledged when both sides have it. So a side that is whole has all of them,
    /// unless it was not written along for a while.
    fn check_can_mend(
        &self,
        damaged: &Path,
        damage: RecoverError,
    ) -> Result<RecoverError, RecoverError> {
        let last = self.last.sequence;
        // Its last segment may not have got its name yet.
        let (held, _) = candidates(self.medium, damaged)?;
        let written = held.last().map_or(0, |last| last.first - 1);
        let has_all = match &damage {
            // The last flush of the damaged side never came here: it was not acknowledged.
            RecoverError::LostWrite { good_through, one_flush: true, .. } => last >= *good_through,
            RecoverError::LostWrite { found, .. } => last >= *found,
            RecoverError::Missing { .. } | RecoverError::Behind { .. } => last >= written,
            RecoverError::File(error) if error.source.raw_os_error() == Some(libc::EIO) => {
                last >= written
            }
            // Nothing that a device does: an operator has to look.
            _ => return Err(damage),
        };
        if has_all {
            return Ok(damage);
        }
        let (dir, damage) = (self.dir.clone(), Box::new(damage));
        Err(RecoverError::Stale { dir, last, damage })
    }

    /// Removes what holds no record, cuts the torn tail, and makes everything durable.
    fn settle(&self) -> Result<Option<Cut>, FileError> {
        for path in &self.waste {
            self.medium.remove(path).map_err(failed("remove", path))?;
        }
        let mut cut = None;
        for (index, Candidate { first, path }) in self.segments.iter().enumerate() {
            let file = self.medium.open(path, true).map_err(failed("open", path))?;
            let named = segment::path(&self.dir, *first);
            if index + 1 == self.segments.len() {
                cut = (self.torn_bytes > 0)
                    .then(|| Cut { segment: named.clone(), bytes: self.torn_bytes });
            }
            // Records that a killed daemon had not flushed yet become visible now.
            file.sync().map_err(failed("flush", path))?;
            if *path != named {
                self.medium.rename(path, &named).map_err(failed("name", &named))?;
            }
        }
        if let Some(last) = self.segments.last() {
            self.rewrite(&segment::path(&self.dir, last.first))?;
        }
        segment::sync_dir(self.medium, &self.dir)?;
        Ok(cut)
    }

    /// Writes the last segment anew, up to its last record. If a flush of it had failed, a system
    /// may take what it has in memory for written, and a second flush would only seem to succeed.
    fn rewrite(&self, path: &Path) -> Result<(), FileError> {
        let copy = self.dir.join(COPY_NAME);
        copy_file(self.medium, path, &copy, self.end).map_err(failed("copy to", &copy))?;
        self.medium.rename(&copy, path).map_err(failed("name", path))
    }

    /// Makes the other directory the same as this one, which is settled. Returns how many
    /// segments had to be copied.
    fn copy_to(&self, other: &Path) -> Result<u64, FileError> {
        let verified_from = self.segments.first().map_or(0, |segment| segment.first);
        let segments = segment::list(self.medium, &self.dir)?;
        // It may be a segment that is about to be copied under its name; both would be too many.
        remove_if_there(self.medium, &other.join(PREPARED_NAME))?;
        segment::sync_dir(self.medium, other)?;
        let mut copied = 0;
        for &first in &segments {
            let source = segment::path(&self.dir, first);
            let target = segment::path(other, first);
            if same(self.medium, &source, &target, first >= verified_from) {
                continue;
            }
            let copy = other.join(COPY_NAME);
            copy_file(self.medium, &source, &copy, u64::MAX).map_err(failed("copy to", &copy))?;
            self.medium.rename(&copy, &target).map_err(failed("name", &target))?;
            copied += 1;
        }
        for first in segment::list(self.medium, other)? {
            if !segments.contains(&first) {
                let path = segment::path(other, first);
                self.medium.remove(&path).map_err(failed("remove", &path))?;
            }
        }
        remove_if_there(self.medium, &other.join(COPY_NAME))?;
        segment::sync_dir(self.medium, other)?;
        Ok(copied)
    }
}

/// The segments in a directory, and the prepared file if it is not one of them.
fn candidates<M: Medium>(
    medium: &M,
    dir: &Path,
) -> Result<(Vec<Candidate>, Option<PathBuf>), RecoverError> {
    let mut candidates: Vec<Candidate> = segment::list(medium, dir)?
        .into_iter()
        .filter(|&first| first > 0)
        .map(|first| Candidate { first, path: segment::path(dir, first) })
        .collect();
    let path = dir.join(PREPARED_NAME);
    if !medium.exists(&path) {
        return Ok((candidates, None));
    }
    match SegmentCursor::open(medium, &path, false) {
        // A segment whose new name had not reached the disk.
        Ok(cursor) => {
            let first = cursor.header.first_sequence.max(1);
            candidates.push(Candidate { first, path });
            candidates.sort_by_key(|candidate| candidate.first);
            Ok((candidates, None))
        }
        Err(OpenError::Header(_)) => Ok((candidates, Some(path))),
        Err(OpenError::File(error)) => Err(error.into()),
    }
}

/// Whether a file has neither a header nor a record: a segment that was named and not written.
fn is_void<M: Medium>(medium: &M, path: &Path) -> Result<bool, RecoverError> {
    match SegmentCursor::open(medium, path, false) {
        Ok(_) | Err(OpenError::Header(HeaderError::Version(_))) => Ok(false),
        Err(OpenError::Header(_)) => Ok(search_file(medium, path, 0)?.highest.is_none()),
        Err(OpenError::File(error)) => Err(error.into()),
    }
}

/// Looks through a file without a header for whole records above `above`.
fn search_file<M: Medium>(medium: &M, path: &Path, above: u64) -> Result<Tail, FileError> {
    let file = medium.open(path, false).map_err(failed("open", path))?;
    search(&file, path, 0, None, above)
}

fn lost(segment: &Path, good_through: u64, written: u64, tail: Tail) -> RecoverError {
    let (highest, first_of_flush) = tail.highest.unwrap_or((good_through, u64::MAX));
    RecoverError::LostWrite {
        segment: segment.to_owned(),
        good_through,
        found: written.max(highest),
        one_flush: written <= good_through && first_of_flush <= good_through + 1,
    }
}

/// Bytes copied or compared at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Whether two files are the same; by size only if `bytes` is false. Unreadable ones are not.
fn same<M: Medium>(medium: &M, source: &Path, target: &Path, bytes: bool) -> bool {
    let (Ok(source), Ok(target)) = (medium.open(source, false), medium.open(target, false)) else {
        return false;
    };
    let (Ok(ours), Ok(theirs)) = (source.length(), target.length()) else { return false };
    ours == theirs && (!bytes || same_bytes(&source, &target).unwrap_or(false))
}

fn same_bytes<F: MediumFile>(source: &F, target: &F) -> io::Result<bool> {
    let mut buffers = [vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]];
    let mut at = 0;
    loop {
        let [ours, theirs] = &mut buffers;
        let read = read_some(source, ours, at)?;
        if read_some(target, theirs, at)? != read || ours[..read] != theirs[..read] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
        at += read as u64;
    }
}

/// Copies a file up to `end` and makes the copy's content durable.
fn copy_file<M: Medium>(medium: &M, source: &Path, copy: &Path, end: u64) -> io::Result<()> {
    let (source, copy) = (medium.open(source, false)?, medium.create(copy, false)?);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let rest = usize::try_from(end - at).unwrap_or(usize::MAX);
        let read = read_some(&source, &mut buffer[..rest.min(CHUNK_BYTES)], at)?;
        if read == 0 {
            return copy.sync();
        }
        copy.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
}

fn remove_if_there<M: Medium>(medium: &M, path: &Path) -> Result<(), FileError> {
    match medium.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}
