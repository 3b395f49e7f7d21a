//! The io_uring under the log: two registered buffers, and one flush at a time.
//!
//! A flush is a write linked to a flush of the device's cache, one such pair per device, all
//! submitted with one system call. The kernel starts the second of a pair only when the first
//! wrote everything.

use super::log::LogError;
use super::medium::{BlockWriter, Flush};
use super::segment::{BLOCK_BYTES, FileError};
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use nix::libc;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Devices a log is written to: its own and the mirror.
pub(crate) const DEVICES_MAX: usize = 2;
const RING_ENTRIES: u32 = 2 * DEVICES_MAX as u32;
/// Set in `user_data` for the second operation of a pair.
const IS_SYNC: u64 = 1;

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// The ring and its buffers.
pub struct Disk {
    ring: IoUring,
    buffers: [Vec<Block>; 2],
    /// For messages: the directory on each device.
    dirs: Vec<PathBuf>,
    /// Buffer the kernel is reading.
    busy: Option<usize>,
    /// Bytes each write of the flush has to report.
    busy_bytes: usize,
    /// Operations that have not completed.
    pending: usize,
}

impl Disk {
    /// A ring with two buffers of `buffer_bytes`, a multiple of [`BLOCK_BYTES`].
    pub(crate) fn new(buffer_bytes: usize, dirs: Vec<PathBuf>) -> Result<Disk, LogError> {
        assert!(dirs.len() <= DEVICES_MAX && buffer_bytes.is_multiple_of(BLOCK_BYTES));
        let ring = IoUring::new(RING_ENTRIES).map_err(ring_failed("set up io_uring"))?;
        let blocks = vec![Block([0; BLOCK_BYTES]); buffer_bytes / BLOCK_BYTES];
        let mut buffers = [blocks.clone(), blocks];
        let registered = buffers.each_mut().map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_bytes().as_mut_ptr().cast(),
            iov_len: buffer_bytes,
        });
        // SAFETY: the buffers live as long as the ring: they are fields of the same struct, never
        // resized, and `drop` leaks them if operations can not be waited for.
        unsafe { ring.submitter().register_buffers(&registered) }
            .map_err(ring_failed("register the log's buffers (RLIMIT_MEMLOCK may be too low)"))?;
        Ok(Disk { ring, buffers, dirs, busy: None, busy_bytes: 0, pending: 0 })
    }

    /// # Safety
    /// What the entry points to stays valid until the operation has completed.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: passed on to the caller.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("the ring holds all operations of a flush");
        self.pending += 1;
    }
}

impl BlockWriter for Disk {
    type File = File;

    #[inline]
    fn bytes(&self, buffer: usize) -> &[u8] {
        self.buffers[buffer].as_bytes()
    }

    #[inline]
    fn bytes_mut(&mut self, buffer: usize) -> &mut [u8] {
        assert!(self.busy != Some(buffer), "a buffer is changed while it is being written");
        self.buffers[buffer].as_mut_bytes()
    }

    fn carry(&mut self, from: usize, range: Range<usize>) {
        assert!(self.busy != Some(1 - from), "a buffer is changed while it is being written");
        let [first, second] = &mut self.buffers;
        let (source, target) = if from == 0 { (first, second) } else { (second, first) };
        let bytes = range.len();
        target.as_mut_bytes()[..bytes].copy_from_slice(&source.as_bytes()[range]);
    }

    #[inline]
    fn in_flight(&self) -> bool {
        self.busy.is_some()
    }

    fn watched(&self) -> Option<RawFd> {
        Some(self.ring.as_raw_fd())
    }

    fn start(&mut self, flush: &Flush<'_, File>) -> Result<(), LogError> {
        assert!(self.busy.is_none() && self.pending == 0, "one flush at a time");
        assert!(flush.files.len() == self.dirs.len() && flush.bytes > 0);
        assert!(flush.bytes.is_multiple_of(BLOCK_BYTES));
        let bytes = &self.buffers[flush.buffer].as_bytes()[..flush.bytes];
        let length = u32::try_from(flush.bytes).expect("a buffer is smaller than 4 GiB");
        let (address, index) = (bytes.as_ptr(), flush.buffer as u16);
        for (device, file) in flush.files.iter().enumerate() {
            let fd = Fd(file.as_raw_fd());
            let data = (device as u64) << 1;
            let write = opcode::WriteFixed::new(fd, address, length, index)
                .offset(flush.offset)
                .build()
                .user_data(data);
            // SAFETY: the buffer is registered, stays in place, and is not changed before the
            // write has completed (`busy`); the log keeps the file open as long.
            unsafe {
                if flush.sync {
                    self.push(&write.flags(squeue::Flags::IO_LINK));
                    let sync = opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build();
                    self.push(&sync.user_data(data | IS_SYNC));
                } else {
                    self.push(&write);
                }
            }
        }
        self.busy = Some(flush.buffer);
        self.busy_bytes = flush.bytes;
        // If the kernel took only a part, a pair may have been split: its second half could then
        // run before the first. So this is as fatal as an error.
        match self.ring.submit() {
            Ok(taken) if taken == self.pending => Ok(()),
            Ok(_) => Err(ring_failed("submit a whole flush")(io::ErrorKind::WouldBlock.into())),
            Err(error) => Err(ring_failed("submit a flush")(error)),
        }
    }

    #[inline]
    fn reap(&mut self) -> Result<bool, LogError> {
        // The first failure is the cause: a write that fails also cancels the flush linked to it.
        let mut failure = None;
        for entry in self.ring.completion() {
            self.pending -= 1;
            let dir = &self.dirs[(entry.user_data() >> 1) as usize];
            let is_sync = entry.user_data() & IS_SYNC != 0;
            let wanted = if is_sync { 0 } else { self.busy_bytes };
            match usize::try_from(entry.result()) {
                Ok(done) if done == wanted => {}
                Ok(written) => {
                    let dir = dir.clone();
                    failure.get_or_insert(LogError::ShortWrite { dir, written, wanted });
                }
                Err(_) => {
                    let what = if is_sync { "flush the log in" } else { "write the log in" };
                    let source = io::Error::from_raw_os_error(-entry.result());
                    let error = FileError { what, path: dir.clone(), source };
                    failure.get_or_insert(LogError::Device(Arc::new(error)));
                }
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if self.pending == 0 {
            self.busy = None;
        }
        Ok(self.busy.is_none())
    }

    fn wait(&mut self) -> Result<(), LogError> {
        assert!(self.pending > 0, "nothing to wait for");
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ring_failed("wait for a flush")(error)),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The kernel may still be reading a buffer; freed, it would write what comes to lie there.
        while self.pending > 0 {
            if self.wait().is_err() {
                std::mem::forget(std::mem::take(&mut self.buffers));
                return;
            }
            self.pending -= self.ring.completion().count().min(self.pending);
        }
    }
}

fn ring_failed(what: &'static str) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Ring { what, source: Arc::new(source) }
}
