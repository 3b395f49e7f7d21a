//! Makes the next segment ready before the log needs it.
//!
//! Overwriting blocks that are allocated and written makes a flush cheap: measured here, a linked
//! write and fdatasync takes 43-48 us over pre-written blocks, 77 us over merely allocated ones.

use super::segment::{BLOCK_BYTES, FileError, PREPARED_NAME, failed, sync_dir};
use nix::libc;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Zeros written at a time.
const ZEROS_BYTES: usize = 256 * 1024;
/// Pause between attempts while the disk is full or failing.
const RETRY: Duration = Duration::from_secs(1);

#[repr(C, align(4096))]
struct Zeros([u8; ZEROS_BYTES]);
static ZEROS: Zeros = Zeros([0; ZEROS_BYTES]);
const _: () = assert!(align_of::<Zeros>() == BLOCK_BYTES);

/// A file of zeros on stable storage, called [`PREPARED_NAME`].
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) file: File,
    /// Whether writes go past the page cache.
    pub(crate) direct: bool,
}

/// A prepared segment on each device, or why there is none.
type Delivery = Result<Vec<Prepared>, FileError>;

/// The thread that prepares segments, one ahead. Dropping it stops the thread and waits for it.
pub(crate) struct Preparer {
    channels: Option<(SyncSender<()>, Receiver<Delivery>)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Preparer {
    /// Starts the thread, with nothing to do yet.
    pub(crate) fn idle(dirs: Vec<PathBuf>, segment_bytes: u64) -> io::Result<Preparer> {
        let (request, requested) = mpsc::sync_channel(1);
        // A failing device repeats its error; what does not fit is dropped.
        let (ready_out, ready) = mpsc::sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread =
            std::thread::Builder::new().name("journal-prepare".into()).spawn(move || {
                while requested.recv().is_ok() {
                    prepare_until_done(&dirs, segment_bytes, &stopped, &ready_out);
                }
            })?;
        Ok(Preparer { channels: Some((request, ready)), stop, thread: Some(thread) })
    }

    /// Asks for the next segment. To be called once for each that was taken.
    pub(crate) fn request(&self) {
        if let Some((request, _)) = &self.channels {
            // Room is left for the one request there can be. If the thread is gone, `take` says so.
            let _ = request.try_send(());
        }
    }

    /// The next segment if it is ready, or why it is not; `None` while it is being written.
    pub(crate) fn take(&self) -> Option<Delivery> {
        let (_, ready) = self.channels.as_ref()?;
        match ready.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(thread_ended())),
        }
    }

    /// Like [`Preparer::take`], but waits.
    pub(crate) fn wait(&self) -> Delivery {
        let Some((_, ready)) = &self.channels else { return Err(thread_ended()) };
        ready.recv().unwrap_or_else(|_| Err(thread_ended()))
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.channels = None;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn thread_ended() -> FileError {
    let path = Path::new(PREPARED_NAME);
    failed("prepare", path)(io::Error::other("the preparing thread has ended"))
}

/// Prepares one segment, again and again until it succeeds or the log is closed.
fn prepare_until_done(
    dirs: &[PathBuf],
    segment_bytes: u64,
    stop: &AtomicBool,
    ready: &SyncSender<Delivery>,
) {
    while !stop.load(Ordering::Relaxed) {
        match prepare_all(dirs, segment_bytes, stop) {
            Ok(prepared) => {
                // Fails only if the log was closed meanwhile.
                let _ = ready.send(Ok(prepared));
                return;
            }
            Err(error) => {
                let _ = ready.try_send(Err(error));
                std::thread::park_timeout(RETRY);
            }
        }
    }
}

/// Writes a file of zeros in each directory. On failure the space is given back.
pub(crate) fn prepare_all(dirs: &[PathBuf], segment_bytes: u64, stop: &AtomicBool) -> Delivery {
    let prepared: Delivery = dirs.iter().map(|dir| prepare(dir, segment_bytes, stop)).collect();
    if prepared.is_err() {
        for dir in dirs {
            let _ = fs::remove_file(dir.join(PREPARED_NAME));
        }
    }
    prepared
}

fn prepare(dir: &Path, segment_bytes: u64, stop: &AtomicBool) -> Result<Prepared, FileError> {
    let path = dir.join(PREPARED_NAME);
    let prepared = match write_zeros(&path, segment_bytes, libc::O_DIRECT, stop) {
        Ok(file) => Prepared { file, direct: true },
        // Filesystems say EINVAL when they do not take O_DIRECT, some on opening, some on writing.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let file = write_zeros(&path, segment_bytes, 0, stop);
            Prepared { file: file.map_err(failed("write", &path))?, direct: false }
        }
        Err(error) => return Err(failed("write", &path)(error)),
    };
    sync_dir(dir)?;
    Ok(prepared)
}

fn write_zeros(
    path: &Path,
    segment_bytes: u64,
    flags: libc::c_int,
    stop: &AtomicBool,
) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .custom_flags(flags)
        .open(path)?;
    let mut offset = 0;
    while offset < segment_bytes {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the log is being closed"));
        }
        let rest = usize::try_from(segment_bytes - offset).unwrap_or(usize::MAX);
        let chunk = &ZEROS.0[..rest.min(ZEROS_BYTES)];
        file.write_all_at(chunk, offset)?;
        offset += chunk.len() as u64;
    }
    file.sync_all()?;
    Ok(file)
}
