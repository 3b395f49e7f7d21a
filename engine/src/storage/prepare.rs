//! Makes the next segment ready before the log needs it.
//!
//! Overwriting blocks that are allocated and written makes a flush cheap: measured here, a linked
//! write and fdatasync takes 43-48 us over pre-written blocks, 77 us over merely allocated ones.

use super::medium::{Aside, Medium, MediumFile};
use super::segment::{BLOCK_BYTES, FileError, PREPARED_NAME, failed, sync_dir};
use crossbeam::channel::{Receiver, TryRecvError, TrySendError, bounded};
use nix::libc;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Zeros written at a time.
const ZEROS_BYTES: usize = 256 * 1024;

#[repr(C, align(4096))]
struct Zeros([u8; ZEROS_BYTES]);
static ZEROS: Zeros = Zeros([0; ZEROS_BYTES]);
const _: () = assert!(align_of::<Zeros>() == BLOCK_BYTES);

/// A file of zeros on stable storage, called [`PREPARED_NAME`].
#[derive(Debug)]
pub(crate) struct Prepared<F> {
    pub(crate) file: F,
    /// Whether writes go past the page cache.
    pub(crate) direct: bool,
}

/// A prepared segment on each device, or why there is none.
type Delivery<F> = Result<Vec<Prepared<F>>, FileError>;

/// Prepares segments beside the log, one ahead.
pub(crate) struct Preparer<M: Medium> {
    ready: Receiver<Delivery<M::File>>,
    aside: M::Aside,
}

impl<M: Medium> Preparer<M> {
    /// Ready to be asked.
    pub(crate) fn idle(
        medium: &M,
        dirs: Vec<PathBuf>,
        segment_bytes: u64,
    ) -> io::Result<Preparer<M>> {
        // A failing device repeats its error; what does not fit is dropped.
        let (out, ready) = bounded(1);
        let files = medium.clone();
        let mut made = None;
        let aside = medium.aside("journal-prepare", move |stop| {
            let delivery =
                made.take().unwrap_or_else(|| prepare_all(&files, &dirs, segment_bytes, stop));
            let done = delivery.is_ok();
            match out.try_send(delivery) {
                // The log has not taken an older error yet.
                Err(TrySendError::Full(delivery)) if done => {
                    made = Some(delivery);
                    false
                }
                _ => done,
            }
        })?;
        Ok(Preparer { ready, aside })
    }

    /// Asks for the next segment. To be called once for each that was taken.
    pub(crate) fn request(&self) {
        self.aside.ask();
    }

    /// The next segment if it is ready, or why it is not; `None` while it is being written.
    pub(crate) fn take(&self) -> Option<Delivery<M::File>> {
        match self.ready.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(thread_ended())),
        }
    }

    /// Like [`Preparer::take`], but waits.
    pub(crate) fn wait(&self) -> Delivery<M::File> {
        self.aside.help();
        self.ready.recv().unwrap_or_else(|_| Err(thread_ended()))
    }
}

fn thread_ended() -> FileError {
    let path = Path::new(PREPARED_NAME);
    failed("prepare", path)(io::Error::other("the preparing thread has ended"))
}

/// Writes a file of zeros in each directory. On failure the space is given back.
pub(crate) fn prepare_all<M: Medium>(
    medium: &M,
    dirs: &[PathBuf],
    segment_bytes: u64,
    stop: &AtomicBool,
) -> Delivery<M::File> {
    let prepare = |dir: &PathBuf| prepare(medium, dir, segment_bytes, stop);
    let prepared: Delivery<M::File> = dirs.iter().map(prepare).collect();
    if prepared.is_err() {
        for dir in dirs {
            let _ = medium.remove(&dir.join(PREPARED_NAME));
        }
    }
    prepared
}

fn prepare<M: Medium>(
    medium: &M,
    dir: &Path,
    segment_bytes: u64,
    stop: &AtomicBool,
) -> Result<Prepared<M::File>, FileError> {
    let path = dir.join(PREPARED_NAME);
    let prepared = match write_zeros(medium, &path, segment_bytes, true, stop) {
        Ok(file) => Prepared { file, direct: true },
        // Filesystems say EINVAL when they do not take O_DIRECT, some on opening, some on writing.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let file = write_zeros(medium, &path, segment_bytes, false, stop);
            Prepared { file: file.map_err(failed("write", &path))?, direct: false }
        }
        Err(error) => return Err(failed("write", &path)(error)),
    };
    sync_dir(medium, dir)?;
    Ok(prepared)
}

fn write_zeros<M: Medium>(
    medium: &M,
    path: &Path,
    segment_bytes: u64,
    direct: bool,
    stop: &AtomicBool,
) -> io::Result<M::File> {
    let file = medium.create(path, direct)?;
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
    file.sync()?;
    Ok(file)
}
