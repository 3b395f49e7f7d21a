//! Boots Debian's cloud kernel with real binaries in an initramfs and runs a shell script in it.
//!
//! QEMU emulates the processors (TCG), so no KVM is needed. The guest has cgroup v2 with the cpu,
//! memory, io, cpuset and pids controllers enabled for the children of the root group, a loopback
//! interface, and an ext4 filesystem on an NVMe disk at `/data` (both drivers are built into the
//! kernel, so no modules are loaded). What the script prints arrives as the console's text.

mod host;
mod initramfs;
pub mod shares;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use host::binaries;
use shares::Sample;

/// Most text taken from a guest's console, in bytes.
const CONSOLE_BYTES_MAX: usize = 1 << 20;
/// How much of the console's end an error shows, in bytes.
const CONSOLE_BYTES_SHOWN: usize = 4096;
/// Size of the disk at `/data`, in bytes; sparse on the host.
const DISK_BYTES: u64 = 256 << 20;
/// What the kernel takes of the guest's memory for itself, with room to run, in MiB.
const KERNEL_MIB: u64 = 96;
/// The init script prints its scenario's exit status on a line that starts like this.
const EXIT_MARK: &str = "vm-exit ";

/// A guest to boot and what to run in it.
pub struct Vm<'a> {
    /// Memory of the guest, in MiB: 96 and three times the size of its files at least.
    pub memory_mib: u32,
    /// Number of virtual processors.
    pub cpus: u32,
    /// Host files to put into the guest, each with its absolute path there. Programs bring the
    /// shared libraries they are linked to along; modes are kept.
    pub files: Vec<(PathBuf, String)>,
    /// Shell script, run by busybox with `set -eu` in `/tmp`. It can call `mark NAME` and
    /// `wait_for SECONDS COMMAND...` besides busybox's own commands.
    pub scenario: &'a str,
    /// Longest time from start to power-off.
    pub timeout: Duration,
}

/// What a guest that ran its scenario to the end left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status of the scenario.
    pub status: i32,
    /// All that the guest printed, lines ended by `\n`.
    pub console: String,
}

impl Outcome {
    /// Time of the last `mark NAME` of the scenario, in ms since the guest's boot.
    pub fn mark_ms(&self, name: &str) -> Option<u64> {
        let is_mark = |line: &&str| line.split(' ').take(2).eq(["mark", name]);
        let seconds = self.console.lines().rfind(is_mark)?.split(' ').nth(2)?;
        let (whole, hundredths) = seconds.split_once('.')?;
        Some(whole.parse::<u64>().ok()? * 1000 + hundredths.parse::<u64>().ok()? * 10)
    }

    /// Every line that `vm-shares` printed, in order.
    pub fn samples(&self) -> Vec<Sample> {
        self.console.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// Why a guest could not be booted or did not tell the status of its scenario.
#[derive(thiserror::Error)]
pub enum VmError {
    /// A program or a part that `tests/vm/fetch` brings is not on this machine.
    #[error("{what} is missing (looked in {looked_in}); run tests/vm/fetch")]
    Missing {
        /// The program or file.
        what: &'static str,
        /// Where it was looked for.
        looked_in: String,
    },
    /// A binary of this workspace is not beside the running test.
    #[error("{} is not built; run `cargo build --workspace --bins` with this test's profile", path.display())]
    NotBuilt {
        /// Where it should be.
        path: PathBuf,
    },
    /// A file of the host could not be read or made.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program of the host could not do its part.
    #[error("{program} failed: {detail}")]
    Program {
        /// The program.
        program: &'static str,
        /// What it or the system said.
        detail: String,
    },
    /// The files do not fit beside the kernel.
    #[error(
        "the files need a guest of {needed_mib} MiB, it has {memory_mib} MiB: raise memory_mib"
    )]
    MemoryTooSmall {
        /// What they need, in MiB.
        needed_mib: u64,
        /// What the guest was given, in MiB.
        memory_mib: u32,
    },
    /// The guest did not power off in time and was killed.
    #[error("the guest ran longer than {} s; its console ends:\n{}", timeout.as_secs(), end(console))]
    TimedOut {
        /// The time it had.
        timeout: Duration,
        /// All that it printed.
        console: String,
    },
    /// The guest printed more than a test may and was killed.
    #[error(
        "the guest printed more than {CONSOLE_BYTES_MAX} bytes; its console ends:\n{}",
        end(console)
    )]
    ConsoleTooLong {
        /// What it printed up to there.
        console: String,
    },
    /// The guest stopped before it told its scenario's status: a panic, or QEMU refused to start.
    #[error(
        "QEMU ended ({exit}) before the scenario did: {stderr}\nthe console ends:\n{}",
        end(console)
    )]
    NoStatus {
        /// How QEMU ended.
        exit: ExitStatus,
        /// What QEMU complained of.
        stderr: String,
        /// All that the guest printed.
        console: String,
    },
}

/// Reads as the message itself, because that is what a test that unwraps shows.
impl fmt::Debug for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One guest at a time in a process: two at once on a small machine disturb each other's shares.
static ONE_GUEST: Mutex<()> = Mutex::new(());

/// Boots a guest, runs its scenario and waits until it is powered off.
///
/// A scenario that fails is an [`Outcome`] with a status other than 0. QEMU never outlives this
/// call, nor the process that made it.
///
/// # Errors
/// [`VmError`], when a part is missing or the guest does not get to the end of its scenario.
pub fn boot(vm: &Vm) -> Result<Outcome, VmError> {
    let parts = host::Parts::find()?;
    let work = tempfile::tempdir().map_err(|source| at(&std::env::temp_dir(), source))?;
    let initrd = work.path().join("initrd");
    let disk = work.path().join("disk");
    let stderr = work.path().join("stderr");
    initramfs::write(&initrd, &parts, vm)?;
    check_memory(&initrd, vm)?;
    host::make_disk(&parts, &disk, DISK_BYTES)?;

    let _turn = ONE_GUEST.lock().unwrap_or_else(PoisonError::into_inner);
    let errors = File::create(&stderr).map_err(|source| at(&stderr, source))?;
    let mut qemu = Qemu(
        command(&parts, vm, &initrd, &disk)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|source| at(&parts.setpriv, source))?,
    );
    let console = qemu.console(vm.timeout)?;
    let exit = qemu.0.wait().map_err(|source| at(&parts.qemu, source))?;
    match status(&console) {
        Some(status) => Ok(Outcome { status, console }),
        None => {
            let stderr = std::fs::read_to_string(&stderr).map_err(|source| at(&stderr, source))?;
            Err(VmError::NoStatus { exit, stderr, console })
        }
    }
}

/// The command that starts QEMU, told to die with the thread that runs it.
fn command(parts: &host::Parts, vm: &Vm, initrd: &Path, disk: &Path) -> Command {
    let mut command = Command::new(&parts.setpriv);
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&parts.qemu)
        .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .args(["-smp", &vm.cpus.to_string(), "-m", &format!("{}M", vm.memory_mib)])
        .arg("-kernel")
        .arg(&parts.kernel)
        .arg("-initrd")
        .arg(initrd)
        .arg("-drive")
        .arg(format!("if=none,id=data,format=raw,cache=unsafe,file={}", disk.display()))
        .args(["-device", "nvme,drive=data,serial=data"])
        // The emulated TSC is the same on all processors, which the kernel cannot know; without
        // it every look at the clock is a slow access to an emulated timer chip.
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"]);
    command
}

/// A running QEMU, killed when dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Qemu {
    /// All that the guest prints until QEMU ends.
    fn console(&mut self, timeout: Duration) -> Result<String, VmError> {
        let deadline = Instant::now() + timeout;
        let chunks = read_chunks(self.0.stdout.take().expect("stdout is piped"));
        let mut console = Vec::new();
        loop {
            match chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => console.extend_from_slice(&chunk),
                Err(RecvTimeoutError::Disconnected) => return Ok(text(&console)),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(VmError::TimedOut { timeout, console: text(&console) });
                }
            }
            if console.len() > CONSOLE_BYTES_MAX {
                return Err(VmError::ConsoleTooLong { console: text(&console) });
            }
        }
    }
}

/// Reads a pipe on a thread of its own, which ends with the pipe or with the receiver.
fn read_chunks(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(16);
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            if sender.send(chunk[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Refuses a guest in which the kernel would run out of memory while it unpacks the files: for a
/// while it holds the archive and its contents, and it gives files half of the memory at most.
fn check_memory(initrd: &Path, vm: &Vm) -> Result<(), VmError> {
    let archive_bytes = initrd.metadata().map_err(|source| at(initrd, source))?.len();
    let needed_mib = KERNEL_MIB + 3 * archive_bytes.div_ceil(1 << 20);
    if u64::from(vm.memory_mib) < needed_mib {
        return Err(VmError::MemoryTooSmall { needed_mib, memory_mib: vm.memory_mib });
    }
    Ok(())
}

/// The scenario's exit status, from the last line that tells one.
fn status(console: &str) -> Option<i32> {
    console.lines().rev().find_map(|line| line.strip_prefix(EXIT_MARK)?.parse().ok())
}

/// A console's bytes as text, its terminal line ends as `\n`.
fn text(console: &[u8]) -> String {
    String::from_utf8_lossy(console).replace("\r\n", "\n")
}

/// The end of a console's text, short enough for an error.
fn end(console: &str) -> &str {
    &console[console.ceil_char_boundary(console.len().saturating_sub(CONSOLE_BYTES_SHOWN))..]
}

/// A system's error with the file it is about.
fn at(path: &Path, source: std::io::Error) -> VmError {
    VmError::File { path: path.to_owned(), source }
}
