//! Boots Debian's cloud kernel with real binaries in an initramfs and runs a shell script in it.
//!
//! QEMU emulates the processors (TCG), so no KVM is needed. The guest has cgroup v2 with the cpu,
//! memory, io, cpuset and pids controllers enabled for the children of the root group, a loopback
//! interface, and an ext4 filesystem on an NVMe disk at `/data` (both drivers are built into the
//! kernel, so no modules are loaded). What the script prints arrives as the console's text.

mod host;
mod initramfs;
pub mod live;
pub mod service;
pub mod shares;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use host::{bench, binaries, tests_of};
use shares::Sample;

/// Most text taken from a guest's console, in bytes.
const CONSOLE_BYTES_MAX: usize = 1 << 20;
/// A processor that the guest's kernel says has stood still for so many seconds never moves again.
const STUCK_S: u64 = 100;
/// How often a guest is booted whose processors hang.
const BOOTS: u32 = 2;
/// How much of the console's end an error shows, in bytes.
const CONSOLE_BYTES_SHOWN: usize = 4096;
/// Size of the disk at `/data`, in bytes; sparse on the host.
const DISK_BYTES: u64 = 512 << 20;
/// What the kernel takes of the guest's memory for itself, with room to run, in MiB.
const KERNEL_MIB: u64 = 96;
/// The emulated TSC is the same on all processors, which the kernel cannot know; without
/// `tsc=reliable` every look at the clock is a slow access to an emulated timer chip.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable";
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
    /// The guest's kernel said that a processor stands still, and the guest was killed.
    #[error("the emulated processors hang; the console ends:\n{}", end(console))]
    Hung {
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
    run(vm, "shutdown")
}

/// As [`boot`], but a guest that reboots starts again, with the same disk.
///
/// # Errors
/// As for [`boot`].
pub fn boot_again(vm: &Vm) -> Result<Outcome, VmError> {
    run(vm, "reset")
}

/// Runs a guest to its end; `reboot` is what a reboot is to QEMU: `shutdown` or `reset`.
///
/// Once in some hundreds of boots the emulated processors wait for one another in the kernel, for ever.
/// No scenario can do that, so such a guest gets another try; a guest that is merely slow does not.
fn run(vm: &Vm, reboot: &str) -> Result<Outcome, VmError> {
    for _ in 1..BOOTS {
        match run_once(vm, reboot) {
            Err(hung @ VmError::Hung { .. }) => eprintln!("booting once more: {hung}"),
            ended => return ended,
        }
    }
    run_once(vm, reboot)
}

fn run_once(vm: &Vm, reboot: &str) -> Result<Outcome, VmError> {
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
            .args(["-action", &format!("reboot={reboot}")])
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

/// The command that starts QEMU for a guest with an initramfs and a disk.
fn command(parts: &host::Parts, vm: &Vm, initrd: &Path, disk: &Path) -> Command {
    let mut command = emulator(parts);
    command
        .args(["-smp", &vm.cpus.to_string(), "-m", &format!("{}M", vm.memory_mib)])
        .arg("-kernel")
        .arg(&parts.kernel)
        .arg("-initrd")
        .arg(initrd)
        .arg("-drive")
        .arg(format!("if=none,id=data,format=raw,cache=unsafe,file={}", disk.display()))
        .args(["-device", "nvme,drive=data,serial=data"])
        .args(["-append", KERNEL_ARGUMENTS]);
    command
}

/// The emulator with what all guests have, told to die with the thread that runs it.
fn emulator(parts: &host::Parts) -> Command {
    let mut command = Command::new(&parts.setpriv);
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&parts.qemu)
        .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"]);
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
                Ok(chunk) => {
                    console.extend_from_slice(&chunk);
                    if stuck_s(&console) >= STUCK_S {
                        return Err(VmError::Hung { console: text(&console) });
                    }
                }
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

/// How long, by the last line with which the guest's kernel said so, a processor has stood still.
fn stuck_s(console: &[u8]) -> u64 {
    let end = &console[console.len().saturating_sub(CONSOLE_BYTES_SHOWN)..];
    let end = String::from_utf8_lossy(end);
    let line = end.lines().rev().find_map(|line| line.split_once("BUG: soft lockup - CPU#"));
    let seconds = line.and_then(|(_, told)| told.split_once("stuck for ")?.1.split_once('s'));
    seconds.and_then(|(seconds, _)| seconds.parse().ok()).unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_whose_processor_stands_still_is_told_from_one_that_prints() {
        let line = |s| {
            format!("[  112.5] watchdog: BUG: soft lockup - CPU#0 stuck for {s}s! [init:1]\r\n")
        };
        assert_eq!(stuck_s(line(104).as_bytes()), 104);
        assert_eq!(stuck_s((line(26) + "and more\n").as_bytes()), 26);
        assert_eq!(stuck_s(line(104).split_once("s!").unwrap().0.as_bytes()), 0, "half a line");
        assert_eq!(stuck_s("stuck for 104s".as_bytes()), 0);
        assert_eq!(stuck_s(&[0xff; CONSOLE_BYTES_SHOWN + 1]), 0);
    }
}
