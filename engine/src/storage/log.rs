//! The writer of the log.
//!
//! Records are laid out in one buffer while the other is being written. A flush takes everything
//! that arrived during the one before it (group commit), and the durable sequence moves when it
//! is on stable storage on every device.
//!
//! Writes are whole blocks. The last block of a flush is usually partial; its bytes are carried to
//! the front of the other buffer and written again, with more records behind them. That is safe:
//! the old bytes are a prefix of the new, so whichever of the two a crash leaves in each sector,
//! the records that were already durable read the same.
//!
//! A segment is left when a record does not fit it. The next one has been prepared by then, so
//! the log moves on by renaming a file.

use super::Point;
use super::medium::{BlockWriter, Flush, Host, Medium, MediumFile};
use super::prepare::{Prepared, Preparer, prepare_all};
use super::record::{BODY_BYTES_MAX, RECORD_BYTES_MAX, Record, record_bytes};
use super::recover::Recovered;
use super::segment::{
    self, BLOCK_BYTES, FileError, LockedDir, PREPARED_NAME, SegmentHash, SegmentHeader, failed,
};
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// When a record counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// When the devices say that it is on stable storage.
    Always,
    /// When the device has taken it, its cache not flushed: it survives the daemon, but not a power
    /// failure.
    Never,
}

/// How a log is written.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// Bytes of a segment: a multiple of 4096, at least 16 KiB.
    pub segment_bytes: u64,
    /// Bytes of each of the two buffers, the most that one flush writes: a multiple of 4096, at
    /// least 8 KiB, below 1 GiB, and at most a segment.
    pub buffer_bytes: usize,
    /// When a record counts as durable.
    pub sync: Sync,
}

/// Why the log has stopped, or could not start. It stays stopped: what was being written may or
/// may not be on the disk, and only recovery finds out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The configuration is refused.
    #[error("{0}")]
    Config(&'static str),
    /// A write, or the flush of a device's cache, failed.
    #[error("the log has stopped: {0}; {what}, then start again to recover", what = remedy(.0))]
    Device(Arc<FileError>),
    /// A device took only a part of a write.
    #[error(
        "the log has stopped: {} took {written} of {wanted} bytes; look for a limit on file size \
         or a failing device, then start again to recover", dir.display()
    )]
    ShortWrite {
        /// Directory on the device.
        dir: PathBuf,
        /// Bytes it took.
        written: usize,
        /// Bytes it was given.
        wanted: usize,
    },
    /// The segment is full and the next one could not be prepared.
    #[error(
        "the log has stopped: the segment is full and the next one could not be prepared: {0}; \
         {what}, then start again", what = remedy(.0)
    )]
    NoSegment(Arc<FileError>),
    /// io_uring itself failed.
    #[error("the log has stopped: cannot {what}: {source}")]
    Ring {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
}

/// What to do about a file operation that failed.
fn remedy(error: &FileError) -> &'static str {
    match error.source.kind() {
        io::ErrorKind::FileTooLarge => "raise the limit on file size",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room",
        _ => "mend the device",
    }
}

/// Why a record was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Append {
    /// The buffer is full: call [`Log::poll`] or [`Log::wait`] and try again.
    #[error("the log's buffer is full")]
    Full,
    /// The log has stopped.
    #[error(transparent)]
    Stopped(#[from] LogError),
}

/// The segment being written.
struct Active<F> {
    /// One file per device.
    files: Vec<F>,
    direct: bool,
    salt: u32,
    /// Over everything submitted so far.
    hasher: blake3::Hasher,
}

/// The buffer being filled.
#[derive(Clone, Copy)]
struct Fill {
    buffer: usize,
    /// Where in the segment its first byte goes.
    offset: u64,
    /// Bytes in it.
    used: usize,
    /// How many of them an earlier flush has already written.
    carried: usize,
    /// Records in it that no flush has written.
    records: u32,
}

/// A log open for appending. One thread uses it.
pub struct Log<M: Medium = Host> {
    config: LogConfig,
    medium: M,
    dirs: Vec<LockedDir<M>>,
    disk: M::Writer,
    preparer: Preparer<M>,
    /// The next segment, once the preparer has delivered it.
    next: Option<Vec<Prepared<M::File>>>,
    /// Why the preparer could not deliver, last time it tried.
    warning: Option<Arc<FileError>>,
    active: Active<M::File>,
    /// Files of the segment before, kept open until its last flush has completed.
    retired: Vec<M::File>,
    fill: Fill,
    /// A record did not fit the segment; the next one has to be begun.
    rolling: bool,
    last: Point,
    /// Last sequence of the flush in flight.
    flushing: u64,
    durable: u64,
    stopped: Option<LogError>,
}

impl<M: Medium> Log<M> {
    /// Opens the log behind what recovery found, in a new segment.
    ///
    /// # Errors
    /// The configuration is refused, io_uring is not to be had, or the first segment can not be
    /// written.
    pub fn open(config: LogConfig, recovered: Recovered<M>) -> Result<Log<M>, LogError> {
        check(&config)?;
        let Recovered { medium, last, previous, dirs, .. } = recovered;
        let paths: Vec<PathBuf> = dirs.iter().map(|dir| dir.path.clone()).collect();
        let disk = medium.writer(config.buffer_bytes, paths.clone())?;
        let never = AtomicBool::new(false);
        let prepared = prepare_all(&medium, &paths, config.segment_bytes, &never)
            .map_err(Arc::new)
            .map_err(no_segment)?;
        let mut log = Log {
            config,
            preparer: Preparer::idle(&medium, paths, config.segment_bytes)
                .map_err(failed("start the preparing thread for", &dirs[0].path))
                .map_err(Arc::new)
                .map_err(no_segment)?,
            medium,
            dirs,
            disk,
            next: None,
            warning: None,
            active: Active {
                files: Vec::new(),
                direct: false,
                salt: 0,
                hasher: blake3::Hasher::new(),
            },
            retired: Vec::new(),
            fill: Fill { buffer: 0, offset: 0, used: 0, carried: 0, records: 0 },
            rolling: false,
            last,
            flushing: last.sequence,
            durable: last.sequence,
            stopped: None,
        };
        log.begin_segment(prepared, previous)?;
        Ok(log)
    }

    /// Puts a record into the buffer. It is not durable before [`Log::durable`] reaches it.
    ///
    /// `sequence` must be the last one plus one, and `body` at most [`BODY_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// The buffer is full, or the log has stopped; nothing was taken.
    #[inline]
    pub fn append(
        &mut self,
        sequence: u64,
        time_ns: u64,
        session: u32,
        kind: u8,
        body: &[u8],
    ) -> Result<(), Append> {
        if let Some(error) = &self.stopped {
            return Err(Append::Stopped(error.clone()));
        }
        assert_eq!(sequence, self.last.sequence + 1, "the log takes records in order, once each");
        assert!(body.len() <= BODY_BYTES_MAX, "a body is longer than a record holds");
        let end = self.fill.used + record_bytes(body.len());
        if end > self.config.buffer_bytes {
            return Err(Append::Full);
        }
        if self.fill.offset + end as u64 > self.config.segment_bytes {
            self.rolling = true;
            return Err(Append::Full);
        }
        let record = Record {
            sequence,
            time_ns,
            session,
            kind,
            chain: self.last.chain,
            flush_index: self.fill.records,
            crc: 0,
            body,
        };
        let out = &mut self.disk.bytes_mut(self.fill.buffer)[self.fill.used..];
        let crc = record.encode(out, self.active.salt);
        self.last = Point { sequence, chain: Record { crc, ..record }.chain_after() };
        self.fill.used = end;
        self.fill.records += 1;
        Ok(())
    }

    /// Takes what has completed, starts the next flush if there is one to start, and returns the
    /// durable sequence. Never blocks.
    ///
    /// # Errors
    /// The log has stopped, now or before.
    #[inline]
    pub fn poll(&mut self) -> Result<u64, LogError> {
        self.guarded(Log::<M>::step)
    }

    /// Like [`Log::poll`], but starts no flush unless a record did not fit: for records that nobody
    /// waits for.
    ///
    /// # Errors
    /// The log has stopped, now or before.
    #[inline]
    pub fn reap(&mut self) -> Result<u64, LogError> {
        self.guarded(|log| if log.rolling { log.step() } else { log.reap_only() })
    }

    /// Bytes appended that no flush has taken yet.
    pub fn unsent_bytes(&self) -> usize {
        if self.fill.records > 0 { self.fill.used - self.fill.carried } else { 0 }
    }

    /// Like [`Log::poll`], but if a flush is in flight, or a segment being waited for, blocks
    /// until that has come.
    ///
    /// # Errors
    /// The log has stopped, now or before.
    pub fn wait(&mut self) -> Result<u64, LogError> {
        self.guarded(|log| {
            log.step()?;
            if log.disk.in_flight() {
                while !log.disk.reap()? {
                    log.disk.wait()?;
                }
            } else if log.rolling && log.next.is_none() {
                let result = log.preparer.wait();
                log.delivered(result);
            }
            log.step()
        })
    }

    /// Whether a flush has been started and not completed.
    pub fn in_flight(&self) -> bool {
        self.disk.in_flight()
    }

    /// Readable whenever a flush has completed and was not taken.
    pub fn watched(&self) -> Option<RawFd> {
        self.disk.watched()
    }

    /// Whether everything appended is durable.
    pub fn idle(&self) -> bool {
        !self.disk.in_flight() && self.fill.records == 0
    }

    /// Last durable sequence.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Last record appended.
    pub fn last(&self) -> Point {
        self.last
    }

    /// Whether writes go past the page cache (O_DIRECT) on every device.
    pub fn direct(&self) -> bool {
        self.active.direct
    }

    /// Why the next segment could not be prepared so far. It is tried again every second; the log
    /// stops if there is still none when it is needed.
    pub fn warning(&self) -> Option<&FileError> {
        self.warning.as_deref()
    }

    /// Makes everything appended durable, whatever [`Sync`] says, and closes the log.
    ///
    /// # Errors
    /// The log has stopped, now or before.
    pub fn close(mut self) -> Result<Point, LogError> {
        while !self.idle() {
            self.wait()?;
        }
        let Log { medium, dirs, preparer, last, config, durable, .. } = self;
        assert_eq!(durable, last.sequence, "an idle log is durable");
        drop(preparer);
        for dir in &dirs {
            close_dir(&medium, dir, config.sync)
                .map_err(|error| LogError::Device(Arc::new(error)))?;
        }
        Ok(last)
    }

    /// Runs a step unless the log has stopped, and stops it if the step fails.
    #[inline]
    fn guarded(
        &mut self,
        step: impl FnOnce(&mut Log<M>) -> Result<(), LogError>,
    ) -> Result<u64, LogError> {
        if let Some(error) = &self.stopped {
            return Err(error.clone());
        }
        if let Err(error) = step(self) {
            self.stopped = Some(error.clone());
            return Err(error);
        }
        Ok(self.durable)
    }

    /// Takes a flush that has completed.
    #[inline]
    fn reap_only(&mut self) -> Result<(), LogError> {
        if self.disk.in_flight() && self.disk.reap()? {
            self.durable = self.flushing;
            self.retired.clear();
        }
        Ok(())
    }

    #[inline]
    fn step(&mut self) -> Result<(), LogError> {
        if self.disk.in_flight() && !self.disk.reap()? {
            return Ok(());
        }
        assert!(self.durable <= self.flushing && self.flushing <= self.last.sequence);
        self.durable = self.flushing;
        self.retired.clear();
        while self.next.is_none()
            && let Some(result) = self.preparer.take()
        {
            self.delivered(result);
        }
        if self.fill.records > 0 {
            self.start_flush()?;
        }
        // Records may follow in the new segment while the last flush of the old one runs.
        if self.rolling && self.fill.records == 0 { self.roll() } else { Ok(()) }
    }

    fn delivered(&mut self, result: Result<Vec<Prepared<M::File>>, FileError>) {
        match result {
            Ok(prepared) => (self.next, self.warning) = (Some(prepared), None),
            Err(error) => self.warning = Some(Arc::new(error)),
        }
    }

    fn start_flush(&mut self) -> Result<(), LogError> {
        let Fill { buffer, offset, used, carried, .. } = self.fill;
        let bytes = used.next_multiple_of(BLOCK_BYTES);
        self.disk.bytes_mut(buffer)[used..bytes].fill(0);
        let sync = self.config.sync == Sync::Always;
        self.disk.start(&Flush { files: &self.active.files, buffer, bytes, offset, sync })?;
        self.flushing = self.last.sequence;
        // The device is busy meanwhile.
        self.active.hasher.update(&self.disk.bytes(buffer)[carried..used]);
        let whole = used - used % BLOCK_BYTES;
        self.disk.carry(buffer, whole..used);
        self.fill = Fill {
            buffer: 1 - buffer,
            offset: offset + whole as u64,
            used: used - whole,
            carried: used - whole,
            records: 0,
        };
        Ok(())
    }

    /// Moves on to the next segment, if it is there.
    fn roll(&mut self) -> Result<(), LogError> {
        let Some(next) = self.next.take() else {
            return self.warning.clone().map_or(Ok(()), |error| Err(LogError::NoSegment(error)));
        };
        let previous = *self.active.hasher.finalize().as_bytes();
        self.begin_segment(next, previous)
    }

    /// Names the prepared files and puts the segment's header at the front of the buffer.
    fn begin_segment(
        &mut self,
        prepared: Vec<Prepared<M::File>>,
        previous: SegmentHash,
    ) -> Result<(), LogError> {
        assert!(self.fill.records == 0 && prepared.len() == self.dirs.len());
        let first_sequence = self.last.sequence + 1;
        for dir in &self.dirs {
            let path = segment::path(&dir.path, first_sequence);
            self.medium
                .rename(&dir.path.join(PREPARED_NAME), &path)
                .map_err(|error| LogError::Device(Arc::new(failed("name", &path)(error))))?;
        }
        let salt = self.medium.salt().map_err(|error| {
            let path = segment::path(&self.dirs[0].path, first_sequence);
            LogError::Device(Arc::new(failed("draw a salt for", &path)(error)))
        })?;
        let header = SegmentHeader { salt, first_sequence, chain: self.last.chain, previous };
        header.encode(&mut self.disk.bytes_mut(self.fill.buffer)[..BLOCK_BYTES]);
        self.fill = Fill { offset: 0, used: BLOCK_BYTES, carried: 0, ..self.fill };
        let direct = prepared.iter().all(|prepared| prepared.direct);
        let files = prepared.into_iter().map(|prepared| prepared.file).collect();
        let active = Active { files, direct, salt, hasher: blake3::Hasher::new() };
        self.retired = std::mem::replace(&mut self.active, active).files;
        self.rolling = false;
        self.preparer.request();
        Ok(())
    }
}

fn no_segment(error: Arc<FileError>) -> LogError {
    LogError::NoSegment(error)
}

fn check(config: &LogConfig) -> Result<(), LogError> {
    let block = BLOCK_BYTES as u64;
    let refuse = |text| Err(LogError::Config(text));
    if !config.segment_bytes.is_multiple_of(block) || config.segment_bytes < 4 * block {
        return refuse("the log's segment size must be a multiple of 4096, at least 16384 bytes");
    }
    if !config.buffer_bytes.is_multiple_of(BLOCK_BYTES)
        || config.buffer_bytes < 2 * BLOCK_BYTES
        || config.buffer_bytes >= 1 << 30
        || config.buffer_bytes as u64 > config.segment_bytes
    {
        return refuse(
            "the log's buffer size must be a multiple of 4096, at least 8192 bytes, below 1 GiB, \
             and not above the segment size",
        );
    }
    Ok(())
}

// A buffer that holds a carried block or a header always has room for one more record.
const _: () = assert!(BLOCK_BYTES + RECORD_BYTES_MAX <= 2 * BLOCK_BYTES);

/// Flushes what [`Sync::Never`] left to the kernel and removes the segment nobody will use.
fn close_dir<M: Medium>(medium: &M, dir: &LockedDir<M>, sync: Sync) -> Result<(), FileError> {
    if sync == Sync::Never {
        for first in segment::list(medium, &dir.path)? {
            let path = segment::path(&dir.path, first);
            medium
                .open(&path, true)
                .and_then(|file| file.sync())
                .map_err(failed("flush", &path))?;
        }
    }
    let prepared = dir.path.join(PREPARED_NAME);
    match medium.remove(&prepared) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &prepared)(error));
        }
        _ => {}
    }
    segment::sync_dir(medium, &dir.path)
}
