//! A file of every request and reply, in the order in which each session sent and received them,
//! and the check of such a file against the models of [`crate::check`] and [`crate::trades`].
//!
//! Little-endian: 16 bytes of head ([`Head`]), then for each frame 32 bytes ([`Entry`]) and the
//! frame as it went over the wire, whose first two bytes are its length.

use crate::SESSIONS_MAX;
use crate::check::{Asked, Checker, Counts, Terms, Violation};
use crate::report::{Histogram, histogram};
use crate::trades::{Judged, Trades};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use vendue_wire::client::Received;
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, HEADER_BYTES, encode, encode_raw};
use vendue_wire::message::{Body, Cancel, NewOrder, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first bytes of the file.
const MAGIC: [u8; 8] = *b"VENDREC1";
/// `Entry::due_ns` of a cancel sent after the run, to leave nothing behind.
pub const CLOSING: u64 = u64::MAX;

/// How the file begins.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Head {
    magic: [u8; 8],
    /// 1: the accounts traded only among themselves, each with every other.
    pub closed: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// What stands before each frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Entry {
    /// When it was sent or received, nanoseconds from the start.
    pub at_ns: U64,
    /// A request: when it was due, or [`CLOSING`]. A reply: 0.
    pub due_ns: U64,
    /// Number of the session in the run.
    pub session: U32,
    /// Account the session trades for.
    pub account: U32,
    /// 0: a request; 1: a reply.
    pub reply: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Why a record cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system refuses.
    #[error("record {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are no record.
    #[error("record {}: {what} at byte {at}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: u64,
    },
}

/// A record being written.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

impl Recorder {
    /// Starts a file; one that is there is replaced.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn create(path: &Path, closed: bool) -> Result<Recorder, RecordError> {
        let failed = |source| RecordError::Io { path: path.to_owned(), source };
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
        let head = Head { magic: MAGIC, closed: closed.into(), reserved: [0; 7] };
        file.write_all(head.as_bytes()).map_err(failed)?;
        Ok(Recorder { path: path.to_owned(), file: Mutex::new(file) })
    }

    fn failed(&self, source: io::Error) -> RecordError {
        RecordError::Io { path: self.path.clone(), source }
    }

    fn write(&self, entry: &Entry, frame: &[u8]) -> Result<(), RecordError> {
        // A thread that panicked while writing ends the run: the file is not believed then.
        let mut file = self.file.lock().unwrap_or_else(|error| error.into_inner());
        file.write_all(entry.as_bytes())
            .and_then(|()| file.write_all(frame))
            .map_err(|source| self.failed(source))
    }

    /// Writes a request down.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn request<M: Body>(
        &self,
        (session, account): (usize, u32),
        (at_ns, due_ns): (u64, u64),
        sequence: u64,
        message: &M,
    ) -> Result<(), RecordError> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = encode(sequence, message, &mut bytes);
        let entry = Entry { due_ns: due_ns.into(), ..entry(session, account, at_ns) };
        self.write(&entry, &bytes[..length])
    }

    /// Writes a reply down.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn reply(
        &self,
        (session, account): (usize, u32),
        at_ns: u64,
        frame: &Received,
    ) -> Result<(), RecordError> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = encode_raw(frame.kind(), frame.sequence(), frame.body(), &mut bytes);
        let entry = Entry { reply: 1, ..entry(session, account, at_ns) };
        self.write(&entry, &bytes[..length])
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn finish(&self) -> Result<(), RecordError> {
        let mut file = self.file.lock().unwrap_or_else(|error| error.into_inner());
        file.flush().map_err(|source| self.failed(source))
    }
}

fn entry(session: usize, account: u32, at_ns: u64) -> Entry {
    Entry {
        at_ns: at_ns.into(),
        due_ns: 0.into(),
        session: (session as u32).into(),
        account: account.into(),
        reply: 0,
        reserved: [0; 7],
    }
}

/// A record being read.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    at: u64,
    /// How it begins.
    pub head: Head,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open(path: &Path) -> Result<Reader, RecordError> {
        let failed = |source| RecordError::Io { path: path.to_owned(), source };
        let file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
        let head = Head { magic: MAGIC, closed: 0, reserved: [0; 7] };
        let mut reader = Reader { path: path.to_owned(), file, at: 0, head };
        let mut bytes = [0; size_of::<Head>()];
        if !reader.fill(&mut bytes)? || bytes[..8] != MAGIC {
            return Err(reader.malformed("this is no record of loadgen's"));
        }
        reader.head = zerocopy::transmute!(bytes);
        Ok(reader)
    }

    fn malformed(&self, what: &'static str) -> RecordError {
        RecordError::Malformed { path: self.path.clone(), what, at: self.at }
    }

    /// Reads exactly so many bytes; false at the end of the file.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<bool, RecordError> {
        let mut have = 0;
        while have < bytes.len() {
            match self.file.read(&mut bytes[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(self.malformed("the file ends amid a frame")),
                Ok(count) => have += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(RecordError::Io { path: self.path.clone(), source }),
            }
        }
        self.at += have as u64;
        Ok(true)
    }

    /// The next frame, if there is one.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn next_frame(&mut self) -> Result<Option<(Entry, Received)>, RecordError> {
        let mut bytes = [0; size_of::<Entry>()];
        if !self.fill(&mut bytes)? {
            return Ok(None);
        }
        let entry: Entry = zerocopy::transmute!(bytes);
        let mut bytes = [0; FRAME_BYTES_MAX];
        let amid = "the file ends amid a frame";
        if !self.fill(&mut bytes[..HEADER_BYTES])? {
            return Err(self.malformed(amid));
        }
        let length = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length) {
            return Err(self.malformed("no frame has this length"));
        }
        if length > HEADER_BYTES && !self.fill(&mut bytes[HEADER_BYTES..length])? {
            return Err(self.malformed(amid));
        }
        match Frame::parse(&bytes[..length]) {
            Ok(Some(frame)) => Ok(Some((entry, Received::of(&frame)))),
            _ => Err(self.malformed("these bytes are no frame")),
        }
    }
}

/// What the check of a record found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Sessions in it.
    pub sessions: usize,
    /// What was counted.
    pub counts: Counts,
    /// Trades judged.
    pub judged: Judged,
    /// From when an order was due to its answer.
    pub order_ack_ns: Histogram,
    /// What failed, if a check did, with the session's number if it concerns one.
    pub violation: Option<(Option<usize>, Violation)>,
}

/// Checks every reply of a record.
///
/// # Errors
/// [`RecordError`]; a failed check is no error but in the answer.
pub fn check(path: &Path) -> Result<Checked, RecordError> {
    let mut reader = Reader::open(path)?;
    let mut sessions: BTreeMap<usize, Checker> = BTreeMap::new();
    let mut trades = Trades::new(reader.head.closed == 1);
    let mut order_ack_ns = histogram();
    let mut violation = None;
    while let Some((entry, frame)) = reader.next_frame()? {
        let number = entry.session.get() as usize;
        if number >= SESSIONS_MAX || entry.reply > 1 {
            return Err(reader.malformed("no entry begins like this"));
        }
        let checker = sessions.entry(number).or_default();
        if entry.reply == 0 {
            let Some(asked) = asked(&entry, &frame) else {
                return Err(reader.malformed("loadgen sends no request like this"));
            };
            if !checker.may_send(frame.sequence()) {
                return Err(reader.malformed("a session's requests are out of order"));
            }
            checker.sent(frame.sequence(), asked, entry.due_ns.get());
            continue;
        }
        trades.report(entry.account.get(), &frame);
        match checker.received(&frame) {
            Ok(Some(answer)) if matches!(answer.asked, Asked::Order(_)) => {
                let latency_ns = entry.at_ns.get().saturating_sub(answer.intended_ns);
                order_ack_ns.saturating_record(latency_ns);
            }
            Ok(_) => {}
            Err(found) => {
                violation = Some((Some(number), found));
                break;
            }
        }
    }
    let mut counts = Counts::default();
    sessions.values().for_each(|checker| counts.add(&checker.counts));
    for (number, checker) in &sessions {
        let ended = checker.check_all_answered().and_then(|()| checker.check_none_open());
        violation = violation.or(ended.err().map(|found| (Some(*number), found)));
    }
    let mut judged = Judged::default();
    match trades.check() {
        Ok(all) => judged = all,
        Err(found) => violation = violation.or(Some((None, found))),
    }
    Ok(Checked { sessions: sessions.len(), counts, judged, order_ack_ns, violation })
}

fn asked(entry: &Entry, frame: &Received) -> Option<Asked> {
    if let Some(order) = frame.message::<NewOrder>() {
        return Terms::of(order).map(Asked::Order);
    }
    let handle = frame.message::<Cancel>()?.handle.get();
    Some(Asked::Cancel { handle, closing: entry.due_ns.get() == CLOSING })
}
