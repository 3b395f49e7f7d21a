//! Measured use, from the host's own counters, never from what a guest says.
//!
//! Files are held open and read with one `pread` into the stack: a sample allocates nothing.
//! A sample holds what was used since the sample before it (the first: since the meter was
//! opened). Remainders stay inside: differences are taken between whole cumulative counts, so
//! nothing is lost or doubled over many samples. A counter that went back (a group made anew, a
//! device removed) is a new start: that sample is 0, because use is billed and only what was
//! measured may be.

use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use vendue_wire::code::Resource;

/// Bytes of a counter file that are read; `io.stat` of some 150 devices.
const TEXT_BYTES: usize = 16 * 1024;
const MICROS_PER_SECOND: u64 = 1_000_000;

/// What an instance used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the last sample, microseconds.
    pub cpu_us: u64,
    /// Memory held now, bytes; 0 where the memory controller is off.
    pub memory_bytes: u64,
    /// Read from and written to block devices since the last sample, bytes; 0 where the io
    /// controller is off.
    pub io_bytes: u64,
    /// Received and sent by the network namespace of its own since the last sample, bytes,
    /// loopback aside; 0 where it shares the host's.
    pub network_bytes: u64,
}

/// Why there is no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeterError {
    /// The cgroup or the process has ended.
    #[error("gone: the cgroup was removed or the process has ended")]
    Gone,
    /// The place has nothing to measure.
    #[error("not metered: give the instance a cgroup, or pid:N on a dry-run host")]
    NotMetered,
    /// The instance is not on this host.
    #[error("no such instance")]
    UnknownInstance,
    /// The text is not that of such a counter file.
    #[error("the counter file's text makes no sense")]
    Garbled,
    /// It could not be read.
    #[error("the counter file cannot be read ({0})")]
    Io(Errno),
}

impl From<io::Error> for MeterError {
    fn from(error: io::Error) -> MeterError {
        match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            Errno::ENODEV | Errno::ENOENT | Errno::ESRCH => MeterError::Gone,
            errno => MeterError::Io(errno),
        }
    }
}

/// The counters of one instance.
#[derive(Debug)]
pub struct Meter {
    source: Source,
    cpu_us: u64,
    io_bytes: u64,
    network: Network,
}

#[derive(Debug)]
enum Source {
    Cgroup {
        cpu_stat: File,
        memory_current: Option<File>,
        io_stat: Option<File>,
        processes: Option<File>,
    },
    /// `/proc/N/stat`. The descriptor belongs to this very process: when it has ended, reads
    /// fail even if its number is used again.
    Process { pid: u32, stat: File, ticks_per_second: u64, page_bytes: u64 },
}

impl Meter {
    /// Opens the counters of the cgroup at `dir`. `memory_current` is a file name in it.
    ///
    /// # Errors
    /// There is no such cgroup, or its counters cannot be read.
    pub fn cgroup(dir: &Path, memory_current: &str) -> Result<Meter, MeterError> {
        let source = Source::Cgroup {
            cpu_stat: File::open(dir.join("cpu.stat"))?,
            memory_current: File::open(dir.join(memory_current)).ok(),
            io_stat: File::open(dir.join("io.stat")).ok(),
            processes: File::open(dir.join("cgroup.procs")).ok(),
        };
        Meter::start(source)
    }

    /// Opens the counters of process `pid`, with its threads and the children it has reaped.
    /// Kept by the kernel in clock ticks of 10 ms. Block I/O is not counted.
    pub fn process(pid: u32) -> Result<Meter, MeterError> {
        let source = Source::Process {
            pid,
            stat: File::open(format!("/proc/{pid}/stat"))?,
            ticks_per_second: system_number(SysconfVar::CLK_TCK)?,
            page_bytes: system_number(SysconfVar::PAGE_SIZE)?,
        };
        Meter::start(source)
    }

    fn start(source: Source) -> Result<Meter, MeterError> {
        let (cpu_us, _, io_bytes) = source.read()?;
        Ok(Meter { source, cpu_us, io_bytes, network: Network::default() })
    }

    /// What was used since the last sample.
    pub fn sample(&mut self) -> Result<Usage, MeterError> {
        let (cpu_us, memory_bytes, io_bytes) = self.source.read()?;
        let usage = Usage {
            cpu_us: cpu_us.saturating_sub(self.cpu_us),
            memory_bytes,
            io_bytes: io_bytes.saturating_sub(self.io_bytes),
            network_bytes: self.network.sample(self.source.process()),
        };
        (self.cpu_us, self.io_bytes) = (cpu_us, io_bytes);
        Ok(usage)
    }

    /// True if it counts this resource: without its controller a cgroup's use reads as 0.
    pub fn counts(&self, resource: Resource) -> bool {
        match (&self.source, resource) {
            (_, Resource::Cpu) | (Source::Process { .. }, Resource::Memory) => true,
            (Source::Cgroup { memory_current, .. }, Resource::Memory) => memory_current.is_some(),
            (Source::Cgroup { io_stat, .. }, Resource::BlockIo) => io_stat.is_some(),
            _ => false,
        }
    }

    /// Processor time so far, and how long a cap held it back, microseconds.
    pub(crate) fn processor(&self) -> Result<(u64, Option<u64>), MeterError> {
        let Source::Cgroup { cpu_stat, .. } = &self.source else {
            return self.source.read().map(|(cpu_us, ..)| (cpu_us, None));
        };
        let used = |text: &str| Some((parse_cpu_stat(text)?, parse_throttled(text)));
        with_text(cpu_stat, used)
    }

    /// Memory held now, bytes, where it is counted.
    pub(crate) fn memory_now(&self) -> Option<u64> {
        match &self.source {
            Source::Cgroup { memory_current, .. } => {
                with_text(memory_current.as_ref()?, parse_number).ok()
            }
            Source::Process { .. } => {
                self.source.read().ok().map(|(_, memory_bytes, _)| memory_bytes)
            }
        }
    }

    /// The file that counts block I/O.
    pub(crate) fn io_stat(&self) -> Option<&File> {
        match &self.source {
            Source::Cgroup { io_stat, .. } => io_stat.as_ref(),
            Source::Process { .. } => None,
        }
    }

    /// Bytes that its own network received and sent so far, once a sample has found that.
    pub(crate) fn network_bytes(&self) -> Option<(u64, u64)> {
        self.network.read()
    }

    /// Memory held now, bytes. An error where it cannot be known.
    pub(crate) fn memory_bytes(&self) -> Result<u64, MeterError> {
        match &self.source {
            Source::Cgroup { memory_current, .. } => {
                with_text(memory_current.as_ref().ok_or(MeterError::NotMetered)?, parse_number)
            }
            Source::Process { .. } => self.source.read().map(|(_, memory_bytes, _)| memory_bytes),
        }
    }
}

/// The counters of a network namespace, once a process that has one of its own was seen.
#[derive(Debug, Default)]
struct Network {
    /// `/proc/N/net/dev`: it belongs to the namespace and outlives the process.
    devices: Option<File>,
    bytes: u64,
}

impl Network {
    /// Bytes since the last sample; the first finds the place to count from.
    fn sample(&mut self, process: Option<u32>) -> u64 {
        if self.devices.is_none() {
            self.devices = process.and_then(own_devices);
            self.bytes = self.carried().unwrap_or(0);
            return 0;
        }
        let Some(bytes) = self.carried() else { return 0 };
        let used = bytes.saturating_sub(self.bytes);
        self.bytes = bytes;
        used
    }

    fn carried(&self) -> Option<u64> {
        let (received, sent) = self.read()?;
        received.checked_add(sent)
    }

    fn read(&self) -> Option<(u64, u64)> {
        with_text(self.devices.as_ref()?, parse_devices).ok()
    }
}

/// The counters of a process's network namespace, unless that is ours: then they are the host's.
fn own_devices(pid: u32) -> Option<File> {
    let namespace = |whose: &str| {
        std::fs::metadata(format!("/proc/{whose}/ns/net")).ok().map(|at| (at.dev(), at.ino()))
    };
    let (theirs, ours) = (namespace(&pid.to_string())?, namespace("thread-self")?);
    if theirs == ours { None } else { File::open(format!("/proc/{pid}/net/dev")).ok() }
}

impl Source {
    /// A process of it, to find its network by.
    fn process(&self) -> Option<u32> {
        match self {
            Source::Cgroup { processes, .. } => with_text(processes.as_ref()?, first_process).ok(),
            Source::Process { pid, .. } => Some(*pid),
        }
    }

    /// Cumulative processor microseconds, memory bytes now, cumulative block bytes.
    fn read(&self) -> Result<(u64, u64, u64), MeterError> {
        match self {
            Source::Cgroup { cpu_stat, memory_current, io_stat, .. } => {
                let cpu_us = with_text(cpu_stat, parse_cpu_stat)?;
                let memory_bytes = match memory_current {
                    Some(file) => with_text(file, parse_number)?,
                    None => 0,
                };
                let io_bytes = match io_stat {
                    Some(file) => with_text(file, parse_io_stat)?,
                    None => 0,
                };
                Ok((cpu_us, memory_bytes, io_bytes))
            }
            Source::Process { stat, ticks_per_second, page_bytes, .. } => {
                let (ticks, pages) = with_text(stat, parse_process_stat)?;
                let cpu_us = u128::from(ticks) * u128::from(MICROS_PER_SECOND)
                    / u128::from(*ticks_per_second);
                let cpu_us = u64::try_from(cpu_us).map_err(|_| MeterError::Garbled)?;
                Ok((cpu_us, pages.saturating_mul(*page_bytes), 0))
            }
        }
    }
}

pub(crate) fn system_number(what: SysconfVar) -> Result<u64, MeterError> {
    let value = sysconf(what).map_err(MeterError::Io)?;
    value
        .and_then(|value| u64::try_from(value).ok())
        .filter(|&value| value > 0)
        .ok_or(MeterError::Garbled)
}

/// Reads `file` from its start and parses it. A text that fills the buffer is refused: its tail
/// may be missing, and with it use that was counted before.
pub(crate) fn with_text<T>(
    file: &File,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, MeterError> {
    let mut bytes = [0; TEXT_BYTES];
    let length = file.read_at(&mut bytes, 0)?;
    if length == TEXT_BYTES {
        return Err(MeterError::Garbled);
    }
    std::str::from_utf8(&bytes[..length]).ok().and_then(parse).ok_or(MeterError::Garbled)
}

/// The first of a list of processes; 0 stands for one that is not in our own list of them.
pub(crate) fn first_process(text: &str) -> Option<u32> {
    text.lines().next()?.trim().parse().ok().filter(|&pid| pid > 0)
}

/// Bytes received and sent by every device but loopback.
fn parse_devices(text: &str) -> Option<(u64, u64)> {
    let mut bytes = [0u64; 2];
    for line in text.lines().skip(2) {
        let (name, counters) = line.split_once(':')?;
        // Eight counters of what was received stand before those of what was sent.
        let mut counters = counters.split_ascii_whitespace().step_by(8);
        for way in &mut bytes {
            let counter: u64 = counters.next()?.parse().ok()?;
            if name.trim() != "lo" {
                *way = way.checked_add(counter)?;
            }
        }
    }
    Some(bytes.into())
}

fn parse_number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn parse_cpu_stat(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()
}

fn parse_throttled(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("throttled_usec "))?.trim().parse().ok()
}

fn parse_io_stat(text: &str) -> Option<u64> {
    let mut bytes = 0u64;
    for word in text.split_ascii_whitespace() {
        if let Some(value) = word.strip_prefix("rbytes=").or(word.strip_prefix("wbytes=")) {
            bytes = bytes.checked_add(value.parse().ok()?)?;
        }
    }
    Some(bytes)
}

/// Ticks used by the process and its reaped children, and resident pages. The name, in
/// parentheses, may itself hold spaces and parentheses: fields count from the last one.
fn parse_process_stat(text: &str) -> Option<(u64, u64)> {
    let fields = &text[text.rfind(')')? + 1..];
    // The first word is field 3 of proc(5): utime 14, stime 15, cutime 16, cstime 17, rss 24.
    let mut words = fields.split_ascii_whitespace().skip(11);
    let mut ticks = 0u64;
    for _ in 0..4 {
        ticks = ticks.checked_add(words.next()?.parse().ok()?)?;
    }
    let pages = words.nth(6)?.parse().ok()?;
    Some((ticks, pages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    #[test]
    fn counter_files_are_understood() {
        assert_eq!(parse_cpu_stat("usage_usec 1234\nuser_usec 1\n"), Some(1234));
        assert_eq!(parse_cpu_stat("user_usec 1\n"), None);
        let io =
            "8:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=500 dios=0\n254:0 rbytes=1 wbytes=2\n";
        assert_eq!(parse_io_stat(io), Some(33));
        assert_eq!(parse_io_stat(""), Some(0));
        assert_eq!(parse_io_stat("8:0 rbytes=x"), None);
        let devices = "Inter-| Receive | Transmit\n face |bytes packets\n\
            \x20   lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n\
            \x20 eth0: 100 2 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n\
            \x20 eth1:4 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n";
        assert_eq!(parse_devices(devices), Some((104, 35)));
        assert_eq!(parse_devices("a\nb\neth0: 1 2\n"), None);
        assert_eq!(
            (first_process("12\n13\n"), first_process("0\n"), first_process("")),
            (Some(12), None, None)
        );
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0 1 0 555 9999 77 1844 1";
        assert_eq!(parse_process_stat(stat), Some((127, 77)));
        assert_eq!(parse_process_stat("7 (a) S 1 2 3"), None);
        assert_eq!(parse_process_stat(""), None);
    }

    /// A child process that ends with the test, also when that fails.
    struct Running(Child);

    impl Running {
        fn shell(script: &str) -> Running {
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            Running(shell.spawn().unwrap())
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_is_metered_from_now_on_and_its_end_is_noticed() {
        let child = Running::shell("while :; do :; done");
        let pid = child.0.id();
        let mut meter = Meter::process(pid).unwrap();
        let mut used_us = 0;
        while used_us < 50_000 {
            let usage = meter.sample().unwrap();
            assert_eq!(usage.cpu_us % 10_000, 0, "whole ticks");
            used_us += usage.cpu_us;
        }
        let late = Meter::process(pid).unwrap();
        assert!(late.cpu_us >= 50_000, "a late meter starts at the counter, not at 0");
        drop(child);
        assert_eq!(meter.sample(), Err(MeterError::Gone));
        assert_eq!(Meter::process(pid).unwrap_err(), MeterError::Gone);
    }

    #[test]
    fn memory_is_what_the_process_holds() {
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        let usage = Meter::process(std::process::id()).unwrap().sample().unwrap();
        assert!(usage.memory_bytes > 32 << 20, "{usage:?} while holding {} bytes", held.len());
    }

    #[test]
    fn what_goes_through_the_hosts_own_network_is_nobodys() {
        let child = Running::shell("read x");
        assert!(own_devices(child.0.id()).is_none());
        assert_eq!(Meter::process(child.0.id()).unwrap().sample().unwrap().network_bytes, 0);
    }

    #[test]
    fn reaped_children_count() {
        // The child spins in a grandchild, reaps it, says so, and waits for its input to end.
        let spin = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo; read x";
        let mut child = Running::shell(spin);
        let mut meter = Meter::process(child.0.id()).unwrap();
        io::Read::read_exact(child.0.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let usage = meter.sample().unwrap();
        assert!(usage.cpu_us >= 20_000, "the grandchild's use is missing: {usage:?}");
    }

    #[test]
    fn a_counter_that_goes_back_is_a_new_start() {
        // A plain directory: no kernel counter can be made to go back.
        let dir = tempfile::tempdir().unwrap();
        let set = |cpu: u64, io: u64| {
            std::fs::write(dir.path().join("cpu.stat"), format!("usage_usec {cpu}\n")).unwrap();
            std::fs::write(dir.path().join("io.stat"), format!("8:0 rbytes={io} wbytes=0\n"))
                .unwrap();
        };
        set(1_000, 10);
        let mut meter = Meter::cgroup(dir.path(), "memory.current").unwrap();
        let mut next = |cpu, io| {
            set(cpu, io);
            let usage = meter.sample().unwrap();
            (usage.cpu_us, usage.io_bytes)
        };
        assert_eq!(next(1_500, 30), (500, 20));
        assert_eq!(next(200, 5), (0, 0));
        assert_eq!(next(260, 6), (60, 1));
    }
}
