//! Real cells on the real /dev/kvm: guests of a few dozen bytes, changed through the port while they
//! run, from this other process.

mod counters;

use counters::{COUNTERS, Line, parse};
use hvctl::kvm::intent::{Confirmed, Intent, PAGE_BYTES, Refusal};
use hvctl::kvm::remote::{Remote, RemoteError};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// Long enough for any machine: nothing is measured with it.
const PATIENCE: Duration = Duration::from_secs(60);

/// 16 bits: says "hi" and ends with 7.
const GREETER: &[u8] = b"\
\xba\xf8\x03\
\xb0h\xee\
\xb0i\xee\
\xb0\n\xee\
\xba\xf4\x00\
\xb0\x07\xee";
// mov dx, 0x3f8; then three times: mov al, char; out dx, al; then mov dx, 0xf4; mov al, 7; out dx, al

/// True if there is no KVM here, having said so.
fn no_kvm() -> bool {
    let device = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    if let Err(error) = &device {
        println!("not shown: /dev/kvm cannot be used here ({error})");
    }
    device.is_err()
}

/// A running `hvctl cell`, ended when dropped.
struct Cell {
    child: Child,
    lines: Receiver<Line>,
    directory: TempDir,
}

impl Cell {
    fn command(directory: &Path, image: &[u8]) -> Command {
        std::fs::write(directory.join("image"), image).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hvctl"));
        command.arg("cell").arg("--image").arg(directory.join("image"));
        command.arg("--port").arg(directory.join("port"));
        command
    }

    /// Starts the counting guest, and waits until it says something.
    fn counting(arguments: &[&str]) -> Cell {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Cell::command(directory.path(), COUNTERS);
        command.args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Begun lines and lost bytes are passed over.
            for line in out.lines().map_while(Result::ok).filter_map(|line| parse(&line)) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let cell = Cell { child, lines, directory };
        cell.until("the guest runs", |_| true);
        cell
    }

    fn remote(&self) -> Remote {
        Remote::connect(&self.port()).unwrap()
    }

    fn port(&self) -> PathBuf {
        self.directory.path().join("port")
    }

    /// Reads on until the guest says what is `wanted`.
    fn until(&self, wanted: &str, is_so: impl Fn(&Line) -> bool) -> Line {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            let line = self.lines.recv_timeout(PATIENCE).expect("the guest goes on");
            if is_so(&line) {
                return line;
            }
            last = Some(line);
        }
        panic!("never: {wanted}; last was {last:?}");
    }

    /// Reads on until counter `still` has stood still for many lines, while `running` went on.
    fn until_still(&self, still: usize, running: usize) {
        const LINES: usize = 40;
        let deadline = Instant::now() + PATIENCE;
        let mut seen: Vec<Line> = Vec::new();
        while Instant::now() < deadline {
            let line = self.lines.recv_timeout(PATIENCE).expect("the guest goes on");
            if seen.first().is_some_and(|first| first.counters[still] != line.counters[still]) {
                seen.clear();
            }
            seen.push(line);
            if seen.len() >= LINES && seen[0].counters[running] != line.counters[running] {
                return;
            }
        }
        panic!("counter {still} does not stand still while {running} goes on; last {seen:?}");
    }

    /// The thread of this name. It gets that a moment after it was made.
    fn thread(&self, name: &str) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some((_, thread)) = self.threads().into_iter().find(|(found, _)| found == name) {
                return thread;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("no thread {name}: {:?}", self.threads());
    }

    /// Threads of the cell by name.
    fn threads(&self) -> Vec<(String, i32)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let named = tasks.map(|task| {
            let path = task.unwrap().path();
            let name = std::fs::read_to_string(path.join("comm")).unwrap().trim().to_owned();
            (name, path.file_name().unwrap().to_str().unwrap().parse().unwrap())
        });
        named.collect()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn refused(remote: &mut Remote, intent: Intent) -> Refusal {
    match remote.ask(intent, PATIENCE) {
        Err(RemoteError::Refused(refusal)) => refusal,
        other => panic!("{intent:?}: {other:?}"),
    }
}

#[test]
fn a_real_mode_guest_speaks_and_ends() {
    if no_kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output =
        Cell::command(directory.path(), GREETER).args(["--mode", "real"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hi\n", "{output:?}");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

#[test]
fn a_guest_sees_its_memory_grow_and_shrink() {
    if no_kvm() {
        return;
    }
    let cell = Cell::counting(&["--memory", "4M", "--memory-max", "8M"]);
    let mut remote = cell.remote();
    let slot = 0;
    cell.until("4 MiB", |line| line.memory_bytes == 4 * MIB);
    for mib in [6, 2, 8, 3] {
        let bytes = mib * MIB;
        let confirmed = remote.ask(Intent::ResizeMemory { slot, bytes }, PATIENCE).unwrap();
        assert_eq!(confirmed, Confirmed::Memory { slot, bytes, total_bytes: bytes });
        cell.until("the new size", |line| line.memory_bytes == bytes);
    }
    let add = |guest_address, bytes| Intent::AddMemory {
        slot: 1,
        guest_address,
        bytes,
        bytes_max: bytes,
    };
    for (intent, refusal) in [
        (Intent::ResizeMemory { slot, bytes: 9 * MIB }, Refusal::TooMuchMemory),
        (Intent::ResizeMemory { slot, bytes: PAGE_BYTES }, Refusal::BelowFloor),
        (Intent::ResizeMemory { slot, bytes: MIB + 1 }, Refusal::NotPages),
        (Intent::ResizeMemory { slot: 7, bytes: MIB }, Refusal::UnknownSlot),
        (Intent::RemoveMemory { slot }, Refusal::BelowFloor),
        (add(4 * MIB, MIB), Refusal::Overlaps),
        (add(64 * MIB, 6 * MIB), Refusal::TooMuchMemory),
        (add(u64::MAX - PAGE_BYTES + 1, PAGE_BYTES), Refusal::TooMuchMemory),
        (add(64 * MIB, 0), Refusal::NotPages),
        (Intent::SampleDirty { slot }, Refusal::NotTracked),
        (Intent::HaltPoll { nanoseconds: u32::MAX }, Refusal::HaltPollTooLong),
    ] {
        assert_eq!(self::refused(&mut remote, intent), refusal, "{intent:?}");
    }
    // Beside the first slot, another; and both count.
    let added = remote.ask(add(64 * MIB, 5 * MIB), PATIENCE).unwrap();
    assert_eq!(added, Confirmed::Memory { slot: 1, bytes: 5 * MIB, total_bytes: 8 * MIB });
    let grow = Intent::ResizeMemory { slot, bytes: 4 * MIB };
    assert_eq!(self::refused(&mut remote, grow), Refusal::TooMuchMemory);
    let removed = remote.ask(Intent::RemoveMemory { slot: 1 }, PATIENCE).unwrap();
    assert_eq!(removed, Confirmed::Memory { slot: 1, bytes: 0, total_bytes: 3 * MIB });
    remote.ask(grow, PATIENCE).unwrap();
    cell.until("all of it, after all", |line| line.memory_bytes == 4 * MIB);
    let polled = remote.ask(Intent::HaltPoll { nanoseconds: 50_000 }, PATIENCE).unwrap();
    assert_eq!(polled, Confirmed::HaltPoll { nanoseconds: 50_000 });
}

#[test]
fn vcpus_start_and_stop() {
    if no_kvm() {
        return;
    }
    let cell = Cell::counting(&["--cpus", "2", "--cpus-max", "3"]);
    let mut remote = cell.remote();
    let first = cell.until("the second vCPU counts", |line| line.counters[0] > 0);
    assert_eq!(first.counters[1], 0, "there is no third vCPU yet");
    let created = remote.ask(Intent::CreateVcpu { vcpu: 2 }, PATIENCE).unwrap();
    assert_eq!(created, Confirmed::Vcpu { vcpu: 2, parked: false });
    cell.until("the new vCPU counts", |line| line.counters[1] > 0);

    let parked = remote.ask(Intent::Park { vcpu: 1 }, PATIENCE).unwrap();
    assert_eq!(parked, Confirmed::Vcpu { vcpu: 1, parked: true });
    cell.until_still(0, 1);
    // Memory changes stop and start the others, not this one.
    let resize = Intent::ResizeMemory { slot: 0, bytes: 8 * MIB };
    remote.ask(resize, PATIENCE).unwrap();
    cell.until_still(0, 1);
    let still = cell.until("a line", |_| true).counters[0];
    let unparked = remote.ask(Intent::Unpark { vcpu: 1 }, PATIENCE).unwrap();
    assert_eq!(unparked, Confirmed::Vcpu { vcpu: 1, parked: false });
    cell.until("it counts on", |line| line.counters[0] > still);

    assert_eq!(refused(&mut remote, Intent::Park { vcpu: 9 }), Refusal::UnknownVcpu);
    assert_eq!(refused(&mut remote, Intent::CreateVcpu { vcpu: 1 }), Refusal::VcpuExists);
    assert_eq!(refused(&mut remote, Intent::CreateVcpu { vcpu: 3 }), Refusal::TooManyVcpus);

    // The kernel's own counters of each vCPU can be read from here, whatever they are called.
    remote.poll().unwrap();
    let stats = remote.vcpu_stats();
    assert_eq!(stats.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    let reporter = stats.get_mut(&0).unwrap();
    reporter.refresh().unwrap();
    let before = reporter.value("exits").expect("KVM counts exits");
    // 36 characters a line, each an exit.
    const EXITS: u64 = 20 * 36;
    let counted = (0..10_000).any(|_| {
        cell.until("a line", |_| true);
        reporter.refresh().unwrap();
        reporter.value("exits").unwrap() - before >= EXITS
    });
    assert!(counted, "10,000 lines and not {EXITS} exits");
    let vm = remote.vm_stats();
    vm.refresh().unwrap();
    let names: Vec<&str> = vm.layout().counters().iter().map(|of| of.name.as_str()).collect();
    assert!(names.contains(&"remote_tlb_flush"), "{names:?}");
}

#[test]
fn the_dirty_log_shows_what_a_guest_writes() {
    if no_kvm() {
        return;
    }
    let cell = Cell::counting(&["--memory", "4M", "--cpus", "2"]);
    let mut remote = cell.remote();
    let slot = 0;
    let track = |on| Intent::TrackDirty { slot, on };
    assert_eq!(remote.ask(track(true), PATIENCE).unwrap(), Confirmed::Tracked { slot, on: true });
    let mut sample = || match remote.ask(Intent::SampleDirty { slot }, PATIENCE).unwrap() {
        Confirmed::Dirty(dirty) => dirty,
        other => panic!("{other:?}"),
    };
    // What was written until now does not count.
    sample();
    // The counters' page, the stack's, and the first of each MiB behind the first.
    let writes = BTreeSet::from([0x10, 0x1f, 0x100, 0x200, 0x300]);
    let mut seen = BTreeSet::new();
    while seen != writes {
        cell.until("a line", |_| true);
        let dirty = sample();
        let written = (0..4 * MIB / PAGE_BYTES).filter(|&page| dirty.has(page));
        seen.extend(written);
        assert!(seen.is_subset(&writes), "{seen:x?}");
        assert_eq!(dirty.pages_per_bit, 1);
    }
    remote.ask(Intent::Park { vcpu: 0 }, PATIENCE).unwrap();
    remote.ask(Intent::Park { vcpu: 1 }, PATIENCE).unwrap();
    let mut sample = || remote.ask(Intent::SampleDirty { slot }, PATIENCE).unwrap();
    sample();
    let idle = sample();
    assert!(matches!(&idle, Confirmed::Dirty(dirty) if dirty.pages == 0), "{idle:?}");
    remote.ask(track(false), PATIENCE).unwrap();
    assert_eq!(refused(&mut remote, Intent::SampleDirty { slot }), Refusal::NotTracked);
}

#[test]
fn a_cell_is_jailed_serves_one_remote_and_its_death_is_noticed() {
    if no_kvm() {
        return;
    }
    let mut cell = Cell::counting(&["--cpus", "2"]);
    let mut remote = cell.remote();
    assert_eq!(remote.pid() as u32, cell.child.id());
    remote.ask(Intent::Unpark { vcpu: 1 }, PATIENCE).unwrap();

    for name in ["vcpu-0", "vcpu-1", "port", "voice"] {
        cell.thread(name);
    }
    for (name, thread) in cell.threads() {
        let path = format!("/proc/{}/task/{thread}/status", cell.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let says = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.strip_prefix(":\t")).unwrap_or("").trim().to_owned()
        };
        assert_eq!((says("NoNewPrivs").as_str(), says("Seccomp").as_str()), ("1", "2"), "{name}");
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(says(set), "0000000000000000", "{name}: {set}");
        }
    }

    let second = Remote::connect(&cell.port());
    assert!(matches!(second, Err(RemoteError::Gone)), "{second:?}");
    // Who goes makes room for the next.
    drop(remote);
    let mut remote = loop {
        match Remote::connect(&cell.port()) {
            Err(RemoteError::Gone) => std::thread::yield_now(),
            connected => break connected.unwrap(),
        }
    };
    remote.ask(Intent::Park { vcpu: 1 }, PATIENCE).unwrap();
    assert_eq!(remote.poll().unwrap(), None);
    cell.child.kill().unwrap();
    remote.wait(PATIENCE).unwrap();
    let gone = loop {
        match remote.poll() {
            Ok(None) => remote.wait(PATIENCE).unwrap(),
            other => break other,
        }
    };
    assert!(matches!(gone, Err(RemoteError::Gone)), "{gone:?}");
}

/// A directory of cgroups, emptied and removed when dropped.
struct Group(PathBuf);

impl Group {
    /// Makes one in the first mount of this kind that may be written.
    fn make(kind: &str, option: &str) -> Option<Group> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (point, found, options) = (words.next()?, words.next()?, words.next()?);
            let has = option.is_empty() || options.split(',').any(|other| other == option);
            (found == kind && has).then(|| PathBuf::from(point))
        });
        let path = mount?.join(format!("vendue-cell-test-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(Group(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A thread that has just been killed leaves its group a moment later.
        for _ in 0..500 {
            for below in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(below.path());
            }
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn each_vcpu_has_a_group_of_threads() {
    if no_kvm() {
        return;
    }
    let Some(group) = Group::make("cgroup2", "") else {
        println!("not shown: no cgroup2 mount may be written here");
        return;
    };
    let path = group.0.to_str().unwrap();
    let cell = Cell::counting(&["--cpus", "2", "--cpus-max", "3", "--cgroup", path]);
    let mut remote = cell.remote();
    remote.ask(Intent::CreateVcpu { vcpu: 2 }, PATIENCE).unwrap();
    cell.until("the new vCPU counts", |line| line.counters[1] > 0);
    for vcpu in 0..3 {
        let name = format!("vcpu-{vcpu}");
        let says = |file: &str| std::fs::read_to_string(group.0.join(&name).join(file)).unwrap();
        assert_eq!(says("cgroup.type"), "threaded\n");
        // The kernel's own threads for the VM live where the first vCPU entered the guest.
        let inside = says("cgroup.threads");
        let inside: Vec<i32> = inside.lines().map(|line| line.parse().unwrap()).collect();
        for (thread, number) in cell.threads() {
            let is_ours = thread.starts_with("vcpu-") || ["port", "voice"].contains(&&*thread);
            assert!(!is_ours || inside.contains(&number) == (thread == name), "{thread} {name}");
        }
    }
    drop(cell);
}

/// Where cgroup v2 has the CPU controller, the cell's own groups would do; here v1's take their part.
#[test]
fn a_vcpu_counts_as_fast_as_its_share_is_large() {
    if no_kvm() {
        return;
    }
    let groups = Group::make("cgroup", "cpu").and_then(|group| {
        let of = |name: &str, shares: &str| {
            let path = group.0.join(name);
            std::fs::create_dir(&path).ok()?;
            std::fs::write(path.join("cpu.shares"), shares).ok()?;
            Some(path)
        };
        let made = Some((of("large", "1024")?, of("small", "256")?));
        made.map(|(large, small)| (group, large, small))
    });
    let Some((_group, large, small)) = groups else {
        println!("not shown: the cpu controller of cgroup v1 may not be used here");
        return;
    };
    let cell = Cell::counting(&["--cpus", "3"]);
    for (name, group) in [("vcpu-1", &large), ("vcpu-2", &small)] {
        let thread = cell.thread(name);
        std::fs::write(group.join("tasks"), thread.to_string()).unwrap();
        // On one processor, so that they have to share it.
        let mut processor = nix::sched::CpuSet::new();
        processor.set(0).unwrap();
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(thread), &processor).unwrap();
    }
    let begin = cell.until("both count", |line| line.counters[0] > 0 && line.counters[1] > 0);
    // Long enough for many turns of both.
    std::thread::sleep(Duration::from_secs(3));
    for _ in cell.lines.try_iter() {}
    let end = cell.until("a line", |_| true);
    let counted = |of: usize| f64::from(end.counters[of].wrapping_sub(begin.counters[of]));
    let ratio = counted(0) / counted(1);
    println!("shares of 4 to 1, counted {ratio:.2} to 1");
    assert!((2.5..6.0).contains(&ratio), "{begin:?} to {end:?}: {ratio}");
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let run = |image: &[u8], arguments: &[&str]| {
        let output = Cell::command(directory.path(), image).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (arguments, code) in [
        (&["--memory", "4097"][..], 2),
        (&["--cpus", "0"], 2),
        (&["--cpus", "3", "--cpus-max", "2"], 2),
        (&["--memory", "8M", "--memory-max", "4M"], 2),
    ] {
        assert_eq!(run(GREETER, arguments).0, Some(code), "{arguments:?}");
    }
    let (code, why) = run(&[], &[]);
    assert_eq!(code, Some(1));
    assert!(why.contains("image has 0 bytes"), "{why}");
    let (code, why) = run(GREETER, &["--memory", "32K"]);
    assert_eq!(code, Some(1));
    assert!(why.contains("room for them in --memory"), "{why}");
    if no_kvm() {
        return;
    }
    // A guest that jumps into nothing fails, and the cell says so.
    let (code, why) = run(&[0x0f, 0x0b], &[]);
    assert_eq!(code, Some(1));
    assert!(why.contains("the guest failed"), "{why}");
}
