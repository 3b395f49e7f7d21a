//! What the log, its recovery and its snapshots stand on: files, and a way to write blocks and
//! know when they are on stable storage. [`Host`] is this machine's; the simulator in `tests`
//! stands in for it with a disk that crashes, fails and lies. Chosen at compile time, so the
//! host's costs nothing more than calling the system.

use super::disk::Disk;
use super::log::LogError;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pause between attempts of work that fails.
const RETRY: Duration = Duration::from_secs(1);

/// Files and directories. Nothing is durable before a `sync` has succeeded.
pub trait Medium: Clone + Debug + Send + 'static {
    /// An open file.
    type File: MediumFile;
    /// Holds a lock until it is dropped.
    type Lock: Debug + Send;
    /// Writes blocks of a log.
    type Writer: BlockWriter<File = Self::File>;
    /// Work that goes on beside its owner.
    type Aside: Aside;

    /// Makes a directory and what leads to it, unless it is there.
    ///
    /// # Errors
    /// What the system says.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock file at `path`, making it if need be; `None` if another process has it.
    ///
    /// # Errors
    /// What the system says.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;

    /// Names in a directory, in no order; those that are not UTF-8 are left out.
    ///
    /// # Errors
    /// What the system says.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Whether there is a file.
    fn exists(&self, path: &Path) -> bool;

    /// Opens a file that is there, to read, and to write if `write`.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path, write: bool) -> io::Result<Self::File>;

    /// Makes an empty file to write, or empties the one that is there. With `direct` its writes
    /// go past the page cache; they are then whole blocks from aligned memory.
    ///
    /// # Errors
    /// What the system says; `EINVAL` if it takes no direct writes.
    fn create(&self, path: &Path, direct: bool) -> io::Result<Self::File>;

    /// Gives a file another name, in place of the file that has it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in a directory durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// A number nobody can foresee.
    ///
    /// # Errors
    /// What the system says.
    fn salt(&self) -> io::Result<u32>;

    /// A writer with two buffers of `buffer_bytes`, a multiple of [`super::segment::BLOCK_BYTES`], to the
    /// directories `dirs`, which it names in its errors.
    ///
    /// # Errors
    /// The system has none to give.
    fn writer(&self, buffer_bytes: usize, dirs: Vec<PathBuf>) -> Result<Self::Writer, LogError>;

    /// Has `attempt` made whenever it is asked for, again after a pause until it returns true. It
    /// returns soon once the flag it is given is raised.
    ///
    /// # Errors
    /// The system has no thread to give.
    fn aside(
        &self,
        name: &'static str,
        attempt: impl FnMut(&AtomicBool) -> bool + Send + 'static,
    ) -> io::Result<Self::Aside>;
}

/// An open file.
pub trait MediumFile: Debug + Send {
    /// Reads some bytes at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at `offset`.
    ///
    /// # Errors
    /// What the system says.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or fills it up with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Its length, bytes.
    ///
    /// # Errors
    /// What the system says.
    fn length(&self) -> io::Result<u64>;

    /// Makes what was written, and its length, durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> io::Result<()>;
}

/// What one flush writes, to the same place of each device.
pub struct Flush<'a, F> {
    /// The segment on each device.
    pub files: &'a [F],
    /// Index of the buffer.
    pub buffer: usize,
    /// Bytes from its start; a multiple of [`super::segment::BLOCK_BYTES`].
    pub bytes: usize,
    /// Where in the files; a multiple of [`super::segment::BLOCK_BYTES`].
    pub offset: u64,
    /// Whether the device's cache is flushed too.
    pub sync: bool,
}

/// Two buffers, one being filled while the other is being written; one flush at a time.
pub trait BlockWriter: Send {
    /// What it writes to.
    type File;

    /// A buffer's bytes.
    fn bytes(&self, buffer: usize) -> &[u8];

    /// A buffer's bytes, to be changed: never those being written.
    fn bytes_mut(&mut self, buffer: usize) -> &mut [u8];

    /// Copies part of a buffer to the start of the other one.
    fn carry(&mut self, from: usize, range: Range<usize>);

    /// Whether a flush has not completed.
    fn in_flight(&self) -> bool;

    /// What becomes readable when a flush completes, if there is such a descriptor.
    fn watched(&self) -> Option<RawFd>;

    /// Starts a flush. None may be in flight.
    ///
    /// # Errors
    /// It may or may not have been started.
    fn start(&mut self, flush: &Flush<'_, Self::File>) -> Result<(), LogError>;

    /// Takes what has completed; `true` when the whole flush has. Never blocks.
    ///
    /// # Errors
    /// A device failed.
    fn reap(&mut self) -> Result<bool, LogError>;

    /// Blocks until something has completed. A flush must be in flight.
    ///
    /// # Errors
    /// Waiting failed.
    fn wait(&mut self) -> Result<(), LogError>;
}

/// Work that goes on beside its owner. Dropping it stops the work and waits for its end.
pub trait Aside: Send {
    /// Asks for the work to be done once more. Once at a time.
    fn ask(&self);

    /// Makes an attempt now if nothing else would while the owner waits.
    fn help(&self);
}

/// This machine's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

impl Medium for Host {
    type File = File;
    type Lock = Flock<File>;
    type Writer = Disk;
    type Aside = Thread;

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Flock<File>>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(dir)?;
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.map(|entry| entry.file_name().into_string().ok()).transpose()
        };
        entries.filter_map(name).collect()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(write).open(path)
    }

    fn create(&self, path: &Path, direct: bool) -> io::Result<File> {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        OpenOptions::new().create(true).truncate(true).write(true).custom_flags(flags).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn salt(&self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn writer(&self, buffer_bytes: usize, dirs: Vec<PathBuf>) -> Result<Disk, LogError> {
        Disk::new(buffer_bytes, dirs)
    }

    fn aside(
        &self,
        name: &'static str,
        mut attempt: impl FnMut(&AtomicBool) -> bool + Send + 'static,
    ) -> io::Result<Thread> {
        let [asked, stop] = [(), ()].map(|()| Arc::new(AtomicBool::new(false)));
        let (wanted, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                if !wanted.swap(false, Ordering::Acquire) {
                    std::thread::park();
                    continue;
                }
                while !stopped.load(Ordering::Acquire) && !attempt(&stopped) {
                    std::thread::park_timeout(RETRY);
                }
            }
        })?;
        Ok(Thread { asked, stop, thread: Some(thread) })
    }
}

impl MediumFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// A thread that works when it is asked to.
#[derive(Debug)]
pub struct Thread {
    asked: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Aside for Thread {
    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    fn help(&self) {}
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
