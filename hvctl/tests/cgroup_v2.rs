//! The real cpu and memory controllers of cgroup v2.
//!
//! Needs root and a cgroup2 filesystem with the cpu and memory controllers. Where they are
//! missing each test says so and returns; `tests/tests/vm_cgroup.rs` runs this file in a virtual
//! machine that has them.

use hvctl::cgroup::{CgroupHost, Hardware};
use hvctl::host::{ALL_TIERS, Backend, Home, Host, HostError, Options, WHOLE_HOST};
use hvctl::lane::MemoryLane;
use hvctl::lever::{Failure, State};
use hvctl::limit::{Device, Knob, Own, PERCENT_MAX, Setting};
use hvctl::outcome::{Aim, Effect, Intents, Reached};
use hvctl::topology::Topology;
use hvctl::vcpu::VcpuError;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vendue_wire::code::{Lag, Resource};
use vendue_wire::message::text;

const MIB: u64 = 1 << 20;
const QUANTUM_NS: u64 = 250_000_000;
/// Says to [`child`] what to do.
const CHILD: &str = "HVCTL_TEST_CHILD";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The host with one instance in a group of its own; removed with the test.
struct Room {
    host: Host,
    group: PathBuf,
    subtree: PathBuf,
    children: Vec<Child>,
    _alone: MutexGuard<'static, ()>,
}

impl Room {
    fn open() -> Option<Room> {
        Room::with(&[Resource::Cpu, Resource::Memory], &[])
    }

    fn with(resources: &[Resource], devices: &[Device]) -> Option<Room> {
        Room::configured(resources, devices, &[])
    }

    fn configured(
        resources: &[Resource],
        devices: &[Device],
        settings: &[(Knob, Setting)],
    ) -> Option<Room> {
        Room::confined(resources, devices, settings, BTreeMap::new())
    }

    fn confined(
        resources: &[Resource],
        devices: &[Device],
        settings: &[(Knob, Setting)],
        hardware: BTreeMap<u16, Hardware>,
    ) -> Option<Room> {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut backend = match CgroupHost::detect("", resources) {
            Ok(backend) => backend,
            Err(error) => {
                println!("not run, no writable cgroup v2 controllers: {error}");
                return None;
            }
        };
        let subtree = backend.subtree().to_path_buf();
        backend.wish(&["pids", "hugetlb", "io", "cpuset"]);
        backend.confine(hardware);
        let mut host = Host::new(Backend::Cgroup(backend), resources, Options::default());
        host.configure([(0, settings.to_vec())].into());
        host.adopt(1, Home { account: 0, tier: 0 }, "", devices).unwrap();
        let group = PathBuf::from(host.place(1).unwrap());
        Some(Room { host, group, subtree, children: Vec::new(), _alone: alone })
    }

    /// Starts [`child`] in the group.
    fn start(&mut self, what: &str) {
        let group = self.group.clone();
        self.start_in(&group, what);
    }

    fn start_in(&mut self, group: &Path, what: &str) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env(CHILD, what);
        self.children.push(command.spawn().unwrap());
        let pid = self.children.last().unwrap().id().to_string();
        fs::write(group.join("cgroup.procs"), pid).unwrap();
    }

    fn read(&self, file: &str) -> String {
        read(&self.group, file)
    }

    fn states(&self) -> Vec<(String, u8)> {
        let rows = self.host.limits(1);
        rows.iter().map(|row| (text(&row.file).to_string(), row.state)).collect()
    }

    fn stop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stop();
        let _ = self.host.release(1);
        let _ = fs::remove_dir(&self.group);
        let _ = self.group.parent().map(fs::remove_dir);
        let _ = fs::remove_dir(&self.subtree);
    }
}

fn read(group: &Path, file: &str) -> String {
    fs::read_to_string(group.join(file)).unwrap().trim().to_string()
}

/// Not a test of its own: what the tests start in a group. Without its order it does nothing.
#[test]
fn child() {
    match std::env::var(CHILD).as_deref() {
        Ok("spin") => loop {
            black_box(0);
        },
        Ok("pulse") => loop {
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(15) {
                black_box(0);
            }
            std::thread::sleep(Duration::from_millis(130));
        },
        Ok(name @ ("cache-a" | "cache-b")) => {
            wait_for_group();
            let mut file = fs::File::create(work_file().with_file_name(name)).unwrap();
            let piece = vec![7u8; MIB as usize];
            (0..CACHE_MIB).for_each(|_| file.write_all(&piece).unwrap());
            // Only clean pages can be had back.
            file.sync_all().unwrap();
            fs::write(work_file().with_file_name(format!("{name}-done")), "").unwrap();
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        Ok("vcpus") => {
            // On one processor only weights tell the threads apart. Joining a group forgets it.
            wait_for_group();
            let mut first = CpuSet::new();
            first.set(0).unwrap();
            sched_setaffinity(Pid::from_raw(0), &first).unwrap();
            for name in ["CPU 0/KVM", "CPU 1/KVM"] {
                let thread = std::thread::Builder::new().name(name.to_owned());
                thread
                    .spawn(|| {
                        loop {
                            black_box(0);
                        }
                    })
                    .unwrap();
            }
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        Ok("serve") => {
            wait_for_group();
            let path = work_file();
            let mut piece = vec![7u8; MIB as usize];
            let mut file = fs::File::create(&path).unwrap();
            (0..FILE_MIB).for_each(|_| file.write_all(&piece).unwrap());
            let mut held = black_box(vec![1u8; 24 << 20]);
            loop {
                held.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
                let mut file = fs::File::open(&path).unwrap();
                while file.read(&mut piece).unwrap() > 0 {}
            }
        }
        Ok("hold") => {
            wait_for_group();
            let held = black_box(vec![1u8; 96 << 20]);
            loop {
                std::thread::sleep(Duration::from_secs(1));
                black_box(&held);
            }
        }
        _ => {}
    }
}

/// Memory is taken only once a child is in its group.
fn wait_for_group() {
    let own = || fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    while !own().contains("/vendue/") {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Pages that a child leaves in the cache, MiB.
const CACHE_MIB: u64 = 48;

/// What a child reads over and over, MiB.
const FILE_MIB: u64 = 96;

/// A file on a real disk, whose pages can be had back.
fn work_file() -> PathBuf {
    let disk = Path::new("/data");
    if disk.is_dir() { disk.join("served") } else { std::env::temp_dir().join("served") }
}

#[test]
fn cpu_limits_are_written_and_read_back() {
    let Some(mut room) = Room::open() else { return };
    for (turn, millicores) in [10u64, 250, 990, 1_000, 7_770, 64_000, 5].into_iter().enumerate() {
        // Long enough apart for every rise to be paid for.
        let now_ns = turn as u64 * 240 * QUANTUM_NS;
        room.host.want(1, Resource::Cpu, millicores, 1, now_ns).unwrap();
        room.host.weigh(1, Resource::Cpu, millicores, 1, now_ns).unwrap();
        assert_eq!(room.host.turn(now_ns), None);
        let quota_us = (millicores * 100).max(1_000);
        assert_eq!(room.read("cpu.max"), format!("{quota_us} 100000"));
        assert_eq!(room.read("cpu.weight"), (millicores / 10).clamp(1, 10_000).to_string());
        let in_force = |(_, state): (String, u8)| state == State::InForce as u8;
        assert!(room.states().into_iter().all(in_force), "{:?}", room.states());
    }
    fs::write(room.group.join("cpu.max"), "max 50000").unwrap();
    assert_eq!(room.host.verify(1_700 * QUANTUM_NS, 100), 1);
    room.host.turn(1_700 * QUANTUM_NS);
    assert_eq!(room.read("cpu.max"), "1000 100000");
    let group = room.group.clone();
    room.host.release(1).unwrap();
    assert!(!group.exists());
}

#[test]
fn every_weight_reads_back_as_written() {
    let Some(mut room) = Room::open() else { return };
    for (turn, weight) in (1..=10_000u64).step_by(37).chain([10_000]).enumerate() {
        let now_ns = turn as u64 * QUANTUM_NS;
        room.host.weigh(1, Resource::Cpu, weight, 10, now_ns).unwrap();
        room.host.turn(now_ns);
        assert_eq!(room.read("cpu.weight"), weight.to_string());
    }
    assert_eq!((room.host.counters().failed, room.host.counters().drifted), (0, 0));
}

#[test]
fn a_busy_process_stays_under_its_cap_and_is_metered() {
    let Some(mut room) = Room::open() else { return };
    room.host.want(1, Resource::Cpu, 20, 10, 0).unwrap();
    room.host.turn(0);
    room.start("spin");
    let mut used_us = 0;
    while used_us == 0 {
        used_us = room.host.sample(1, 0).unwrap().cpu_us;
    }
    let started = Instant::now();
    room.host.sample(1, 0).unwrap();
    // The same wish over and over: were it written, each write would refill the quota.
    while started.elapsed() < Duration::from_secs(3) {
        room.host.want(1, Resource::Cpu, 20, 10, 0).unwrap();
        room.host.turn(0);
        std::thread::sleep(Duration::from_millis(20));
    }
    let used_us = room.host.sample(1, 0).unwrap().cpu_us;
    let wall_us = started.elapsed().as_micros() as u64;
    // 20% and room for the kernel's slices; rewriting gave 92%. A slow machine uses less.
    assert!(used_us > 0 && used_us < wall_us * 2 / 5, "{used_us} us of {wall_us} us");
}

/// What a busy process in the room uses while `step` is done over and over, thousandths of a
/// processor.
fn millicores(room: &mut Room, clock: Instant, mut step: impl FnMut(&mut Host, u64)) -> u64 {
    let since_start_ns = || clock.elapsed().as_nanos() as u64;
    let from_ns = since_start_ns();
    room.host.sample(1, from_ns).unwrap();
    let mut now_ns = from_ns;
    while now_ns - from_ns < 4_000_000_000 {
        step(&mut room.host, now_ns);
        room.host.turn(now_ns);
        std::thread::sleep(Duration::from_millis(5));
        now_ns = since_start_ns();
    }
    let used_us = room.host.sample(1, now_ns).unwrap().cpu_us;
    used_us * 1_000_000 / (now_ns - from_ns)
}

#[test]
fn a_cap_that_moves_all_the_time_gains_nothing() {
    // With a burst, which each write refills as well.
    let burst = [(Knob::CpuBurst, Setting::Percent(PERCENT_MAX / 2))];
    let Some(mut room) = Room::configured(&[Resource::Cpu], &[], &burst) else { return };
    room.host.reserve(1, Resource::Cpu, (200, 1), 0).unwrap();
    let clock = Instant::now();
    let want = |host: &mut Host, millicores, now_ns| {
        host.want(1, Resource::Cpu, millicores, 1, now_ns).unwrap();
    };
    want(&mut room.host, 220, 0);
    room.host.turn(0);
    assert_eq!(
        (room.read("cpu.max"), room.read("cpu.max.burst")),
        ("22000 100000".into(), "10000".into())
    );
    room.start("spin");
    while room.host.sample(1, 0).unwrap().cpu_us == 0 {}
    let still = millicores(&mut room, clock, |host, now_ns| want(host, 220, now_ns));
    // A tenth down and up again as often as can be: without a price for it, each write is worth a
    // refill.
    let mut low = false;
    let moved = millicores(&mut room, clock, |host, now_ns| {
        low = !low;
        want(host, if low { 198 } else { 220 }, now_ns);
    });
    let group = room.group.clone();
    let naive = millicores(&mut room, clock, |_, now_ns| {
        let quota_us = 19_800 + now_ns % 2_200;
        fs::write(group.join("cpu.max"), format!("{quota_us} 100000")).unwrap();
    });
    println!(
        "of a cap of 220 m: {still} m held still, {moved} m moved, {naive} m rewritten naively"
    );
    // A period's quota and what it saved up, and the kernel's slices.
    assert!(still <= 220 + 220 / 10, "{still} m under a cap of 220 m");
    assert!(moved <= still + still / 20, "{moved} m by moving, {still} m without");
    assert!(naive >= 2 * still, "{naive} m by rewriting shows nothing, {still} m without");
}

#[test]
fn what_was_saved_up_is_used_and_no_more() {
    let burst = [(Knob::CpuBurst, Setting::Percent(PERCENT_MAX))];
    let Some(mut room) = Room::configured(&[Resource::Cpu], &[], &burst) else { return };
    // The cap has to be there first: the kernel refuses a burst beyond it.
    room.host.want(1, Resource::Cpu, 50, 1, 0).unwrap();
    room.host.turn(0);
    room.host.reserve(1, Resource::Cpu, (100, 1), 0).unwrap();
    room.host.turn(0);
    assert_eq!(room.read("cpu.max.burst"), "0");
    room.host.want(1, Resource::Cpu, 100, 1, 40 * QUANTUM_NS).unwrap();
    for quantum in 40..44 {
        room.host.turn(quantum * QUANTUM_NS);
    }
    assert_eq!(
        (room.read("cpu.max"), room.read("cpu.max.burst")),
        ("10000 100000".into(), "10000".into())
    );
    // 15 ms of work in 145 ms: within the mean, beyond a period's quota.
    room.start("pulse");
    while room.host.sample(1, 0).unwrap().cpu_us == 0 {}
    let started = Instant::now();
    room.host.sample(1, 0).unwrap();
    let counted = |room: &Room, key: &str| -> u64 {
        let text = room.read("cpu.stat");
        text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().parse().unwrap()
    };
    while counted(&room, "nr_bursts") < 3 {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", room.read("cpu.stat"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let elapsed_us = started.elapsed().as_micros() as u64;
    let used_us = room.host.sample(1, 0).unwrap().cpu_us;
    println!("{used_us} us in {elapsed_us} us, {} us of them bursts", counted(&room, "burst_usec"));
    // A period more, what was saved up, and slices that processors hold.
    assert!(
        used_us <= elapsed_us / 10 + 10_000 + 10_000 + 10_000,
        "{used_us} us in {elapsed_us} us"
    );
    // Somebody else's change is set back, and what that refills is paid for.
    fs::write(room.group.join("cpu.max.burst"), "0").unwrap();
    assert_eq!(room.host.verify(48 * QUANTUM_NS, 100), 1);
    room.host.turn(48 * QUANTUM_NS);
    assert_eq!(room.read("cpu.max.burst"), "10000");
    room.host.want(1, Resource::Cpu, 110, 1, 49 * QUANTUM_NS).unwrap();
    assert!(room.host.turn(49 * QUANTUM_NS).unwrap() > 50 * QUANTUM_NS, "rises unpaid");
}

#[test]
fn memory_that_an_instance_reserved_is_taken_last() {
    let low = [(Knob::MemoryLow, Setting::Percent(PERCENT_MAX))];
    let Some(mut room) = Room::configured(&[Resource::Memory], &[], &low) else { return };
    room.host.adopt(2, Home { account: 0, tier: 0 }, "", &[]).unwrap();
    let other = PathBuf::from(room.host.place(2).unwrap());
    let tier = room.group.parent().unwrap().to_owned();
    room.host.resize_tier(0, Resource::Memory, (64, 16 * MIB), &[], 0).unwrap();
    room.host.reserve(1, Resource::Memory, (4, 16 * MIB), 0).unwrap();
    room.host.turn(0);
    let low = |group: &Path| read(group, "memory.low");
    for group in [&room.group, &tier, &room.subtree] {
        assert_eq!(low(group), (64 * MIB).to_string(), "{}", group.display());
    }
    assert_eq!(low(&other), "0", "nothing reserved");
    room.start("cache-a");
    room.start_in(&other, "cache-b");
    let current = |group: &Path| read(group, "memory.current").parse::<u64>().unwrap();
    let done = |name: &str| work_file().with_file_name(format!("{name}-done"));
    while !done("cache-a").exists() || !done("cache-b").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = current(&room.group);
    // The kernel takes it from everybody in proportion otherwise.
    fs::write(tier.join("memory.reclaim"), (40 * MIB).to_string()).unwrap();
    let (kept, taken) = (current(&room.group), current(&other));
    println!("of {CACHE_MIB} MiB each, {kept} bytes kept of the reserved and {taken} of the other");
    assert!(kept >= before - before / 10, "{kept} of {before} bytes that are protected");
    assert!(taken <= (CACHE_MIB - 24) * MIB, "{taken} bytes of those that are not");

    fs::write(room.subtree.join("memory.low"), "0").unwrap();
    assert_eq!(room.host.verify(4 * QUANTUM_NS, 100), 1);
    room.host.turn(4 * QUANTUM_NS);
    assert_eq!(low(&room.subtree), (64 * MIB).to_string());
    assert_eq!(room.host.whole().collect::<Vec<_>>(), [ALL_TIERS]);
    room.stop();
    room.host.release(2).unwrap();
    room.host.release(1).unwrap();
    room.host.turn(8 * QUANTUM_NS);
    assert_eq!((low(&tier), low(&room.subtree)), ("0".into(), "0".into()), "nobody's is protected");
    for name in ["cache-a", "cache-b"] {
        let _ = fs::remove_file(work_file().with_file_name(name));
        let _ = fs::remove_file(done(name));
    }
}

#[test]
fn a_tier_may_have_its_processors_alone() {
    let hardware = Hardware { cpus: "1".to_owned(), nodes: String::new(), own: Own::Isolated };
    let alone = [(0, hardware)].into();
    let Some(mut room) = Room::confined(&[Resource::Cpu], &[], &[], alone) else { return };
    room.host.resize_tier(0, Resource::Cpu, (100, 10), &[], 0).unwrap();
    room.host.turn(0);
    let tier = room.group.parent().unwrap().to_owned();
    let says = || read(&tier, "cpuset.cpus.partition");
    assert_eq!(
        (says(), read(&room.subtree, "cpuset.cpus.partition")),
        ("isolated".into(), "root".into())
    );
    let root = room.subtree.parent().unwrap();
    assert_eq!(read(root, "cpuset.cpus.effective"), "0", "the rest of the host keeps off");
    assert_eq!(room.read("cpuset.cpus.effective"), "1");
    // Undone by somebody, also above, it is done again.
    fs::write(room.subtree.join("cpuset.cpus.partition"), "member").unwrap();
    assert!(says().starts_with("isolated invalid"), "{}", says());
    assert_eq!(room.host.verify(QUANTUM_NS, 100), 1);
    room.host.turn(QUANTUM_NS);
    assert_eq!((says().as_str(), room.host.faults_standing()), ("isolated", 1), "told, and mended");
    room.host.verify(2 * QUANTUM_NS, 100);
    assert_eq!(room.host.faults_standing(), 0);
    // A neighbour of the subtree that has the processor too, and the kernel gives it to nobody alone.
    let neighbour = root.join("neighbour");
    fs::create_dir(&neighbour).unwrap();
    fs::write(room.subtree.join("cpuset.cpus.partition"), "member").unwrap();
    fs::write(neighbour.join("cpuset.cpus"), "1").unwrap();
    room.host.verify(4 * QUANTUM_NS, 100);
    room.host.turn(4 * QUANTUM_NS);
    let faults = room.host.faults();
    fs::remove_dir(&neighbour).unwrap();
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert_eq!(fault.failure, Failure::NotAlone);
    assert!(fault.text.contains("no other group's cpuset.cpus"), "{}", fault.text);
    room.host.verify(8 * QUANTUM_NS, 100);
    room.host.turn(8 * QUANTUM_NS);
    assert_eq!(says(), "isolated", "once it can be");
    // Without such a configuration it is over.
    room.host.release(1).unwrap();
    let mut backend = CgroupHost::detect("", &[Resource::Cpu]).unwrap();
    let shared = Hardware { cpus: "1".to_owned(), nodes: String::new(), own: Own::Shared };
    backend.confine([(0, shared)].into());
    let mut host = Host::new(Backend::Cgroup(backend), &[Resource::Cpu], Options::default());
    host.adopt(1, Home { account: 0, tier: 0 }, "", &[]).unwrap();
    assert_eq!((says(), read(root, "cpuset.cpus.effective")), ("member".into(), "0-1".into()));
    host.release(1).unwrap();
}

#[test]
fn a_devices_time_is_weighed_where_that_is_asked_for() {
    let absent = Device { major: 4_094, minor: 77 };
    let Some(disk) = data_disk() else { return println!("not run: no block device") };
    let weight = [(Knob::IoWeight, Setting::Weight(300))];
    let Some(mut room) = Room::configured(&[Resource::BlockIo], &[disk], &weight) else { return };
    room.host.cost(&[disk, absent], 0);
    room.host.turn(0);
    let qos = Path::new("/sys/fs/cgroup/io.cost.qos");
    let says = || fs::read_to_string(qos).unwrap();
    assert!(says().contains(&format!("{disk} enable=1")), "{}", says());
    let states: Vec<u8> = room.host.limits(WHOLE_HOST).iter().map(|row| row.state).collect();
    assert_eq!(states, [State::InForce as u8, State::Refused as u8]);
    let faults = room.host.faults();
    assert_eq!((faults.len(), faults[0].failure), (1, Failure::NoDevice));
    assert!(faults[0].text.starts_with("the host: io.cost 4094:77"), "{}", faults[0].text);
    // What an instance's operations cost is counted from now on, and weighs as its group does.
    room.start("cache-a");
    let counted = |room: &Room| room.read("io.stat").contains("cost.usage=");
    let started = Instant::now();
    while !counted(&room) {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", room.read("io.stat"));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(room.read("io.weight"), "default 300");
    fs::write(qos, format!("{disk} enable=0")).unwrap();
    assert_eq!(room.host.verify(4 * QUANTUM_NS, 100), 1);
    room.host.turn(4 * QUANTUM_NS);
    assert!(says().contains(&format!("{disk} enable=1")), "set back");
    fs::write(qos, format!("{disk} enable=0")).unwrap();
    room.stop();
    for name in ["cache-a", "cache-a-done"] {
        let _ = fs::remove_file(work_file().with_file_name(name));
    }
}

#[test]
fn shrinking_below_use_reclaims_and_never_kills() {
    let Some(mut room) = Room::open() else { return };
    room.start("hold");
    let current = |room: &Room| room.read("memory.current").parse::<u64>().unwrap();
    while current(&room) < 96 * MIB {
        assert!(room.children[0].try_wait().unwrap().is_none(), "the child ended early");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Without swap the child's pages cannot be reclaimed: it stays above the wish.
    room.host.want(1, Resource::Memory, 2, 16 * MIB, 0).unwrap();
    for quantum in 0..4 {
        room.host.turn(quantum * QUANTUM_NS);
    }
    assert_eq!(room.read("memory.high"), (32 * MIB).to_string());
    if current(&room) >= 48 * MIB {
        assert_eq!(room.read("memory.max"), "max", "lowered below use");
    }
    assert!(room.children[0].try_wait().unwrap().is_none(), "the child was killed");
    room.stop();
    while current(&room) >= 48 * MIB {
        std::thread::sleep(Duration::from_millis(10));
    }
    room.host.turn(9 * QUANTUM_NS);
    assert_eq!(room.read("memory.max"), (48 * MIB).to_string());
}

#[test]
fn a_tenant_that_loses_memory_under_load_lives() {
    let Some(mut room) = Room::open() else { return };
    room.start("serve");
    let current = |room: &Room| room.read("memory.current").parse::<u64>().unwrap();
    while current(&room) < (FILE_MIB + 16) * MIB {
        assert!(room.children[0].try_wait().unwrap().is_none(), "the child ended early");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Steps of reclaim come first, then the level, then the backstop.
    room.host.want(1, Resource::Memory, 4, 16 * MIB, 0).unwrap();
    let before = current(&room);
    room.host.turn(0);
    let after_a_step = current(&room);
    assert!(after_a_step < before, "{after_a_step} of {before} bytes after a step of reclaim");
    assert_eq!(room.read("memory.high"), "max", "the level before the steps");
    let mut quantum = 0;
    while room.read("memory.max") == "max" {
        quantum += 1;
        assert!(quantum < 100, "the backstop never came: {:?}", room.states());
        room.host.turn(quantum * QUANTUM_NS);
        let high_is_set = room.read("memory.high") != "max";
        assert!(high_is_set || room.read("memory.max") == "max", "the backstop before the level");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{before} bytes, {after_a_step} after a step, {} after {quantum}", current(&room));
    assert_eq!(room.read("memory.high"), (64 * MIB).to_string());
    assert_eq!(room.read("memory.max"), (80 * MIB).to_string());
    // It goes on working below the level.
    let stat = room.read("cpu.stat");
    std::thread::sleep(Duration::from_secs(1));
    assert!(current(&room) <= 80 * MIB, "{} bytes", current(&room));
    assert_ne!(stat, room.read("cpu.stat"), "it stands still");
    assert!(room.children[0].try_wait().unwrap().is_none(), "the child was killed");
    let events = room.read("memory.events");
    assert!(events.contains("oom_kill 0"), "{events}");
    room.stop();
    let _ = fs::remove_file(work_file());
}

#[test]
fn processors_are_limited_while_the_slow_lane_takes_memory() {
    let Some(mut room) = Room::open() else { return };
    let groups = CgroupHost::detect("", &[Resource::Memory]).unwrap();
    let mut whole = Host::new(Backend::Cgroup(groups), &[Resource::Memory], Options::default());
    let lane = MemoryLane::start(whole.split_memory().unwrap(), u64::MAX).unwrap();
    room.start("serve");
    let current = |room: &Room| room.read("memory.current").parse::<u64>().unwrap();
    while current(&room) < (FILE_MIB + 16) * MIB {
        assert!(room.children[0].try_wait().unwrap().is_none(), "the child ended early");
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = current(&room);
    // What takes longer than no time at all is told in part.
    let (key, mut intents) = ((1, Aim::Limit, Resource::Memory), Intents::new(0));
    lane.adopt(1, Home { account: 0, tier: 0 }, room.group.to_str().unwrap());
    lane.want(1, 4, 16 * MIB);
    intents.want(key, 0);
    let (mut outcomes, mut limited) = (Vec::new(), 0);
    while !matches!(outcomes.last(), Some(Reached { effect: Effect::Applied, .. })) {
        let reached = lane.reached(1).expect("something is wanted");
        let is_begun = reached.effect != Effect::Pending(Lag::Waiting);
        // So far apart that no refill is owed.
        limited += 1;
        let now_ns = limited * 600_000_000_000;
        let quota = if limited % 2 == 0 { 20 } else { 40 };
        room.host.want(1, Resource::Cpu, quota, 10, now_ns).unwrap();
        assert_eq!(room.host.turn(now_ns), None);
        assert_eq!(room.read("cpu.max"), format!("{quota}000 100000"));
        if is_begun {
            intents.look(now_ns, |_| lane.reached(1));
        }
        let told: Vec<Reached> = intents.untold(9).map(|outcome| outcome.reached).collect();
        intents.told(told.len());
        outcomes.extend(told);
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("from {before} bytes, {limited} limits of processors meanwhile: {outcomes:?}");
    let [partial, applied] = outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((partial.effect, partial.wanted), (Effect::Pending(Lag::InUse), 64 * MIB));
    assert!(partial.held > 64 * MIB && partial.held < u64::MAX, "{partial:?}");
    assert_eq!((applied.wanted, applied.held), (64 * MIB, 64 * MIB));
    assert!(limited > 1, "memory was taken before anything else could be limited");
    assert!(current(&room) <= 80 * MIB, "{} bytes", current(&room));
    assert!(room.children[0].try_wait().unwrap().is_none(), "the child was killed");
    let events = room.read("memory.events");
    assert!(events.contains("oom_kill 0"), "{events}");
    room.stop();
    let _ = fs::remove_file(work_file());
}

/// The thread of that name in the room's child.
fn thread(room: &Room, name: &str) -> u32 {
    let tasks = format!("/proc/{}/task", room.children[0].id());
    loop {
        let named = |task: &Path| {
            fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let mut tasks = fs::read_dir(&tasks).unwrap().flatten().map(|entry| entry.path());
        if let Some(task) = tasks.find(|task| named(task)) {
            return task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What each of the two virtual processors used in two seconds, milliseconds.
fn progress(room: &Room) -> [u64; 2] {
    let used_us = |vcpu: usize| {
        let text = read(&room.group.join(format!("vcpu-{vcpu}")), "cpu.stat");
        text.lines().next().unwrap().split(' ').nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = [0, 1].map(used_us);
    std::thread::sleep(Duration::from_secs(2));
    [0, 1].map(|vcpu| (used_us(vcpu) - before[vcpu]) / 1000)
}

#[test]
fn threads_of_virtual_processors_have_shares_and_caps_of_their_own() {
    let Some(mut room) = Room::open() else { return };
    room.start("vcpus");
    let threads = [(0, thread(&room, "CPU 0/KVM")), (1, thread(&room, "CPU 1/KVM"))];
    room.host.place_vcpus(1, &threads).unwrap();
    room.host.place_vcpus(1, &threads).unwrap();
    assert_eq!(room.read("cgroup.type"), "domain threaded");
    assert_eq!(room.read("vcpu-1/cgroup.threads"), threads[1].1.to_string());
    room.host.weigh_vcpu(1, 0, 3000, 0).unwrap();
    room.host.weigh_vcpu(1, 1, 1000, 0).unwrap();
    room.host.want(1, Resource::Memory, 8, 16 * MIB, 0).unwrap();
    for quantum in 0..4 {
        room.host.turn(quantum * QUANTUM_NS);
    }
    assert_eq!(room.read("vcpu-0/cpu.weight"), "300");
    assert_eq!(room.read("memory.max"), (144 * MIB).to_string(), "memory stays the instance's");
    let [heavy, light] = progress(&room);
    println!("weights of 3 to 1: {heavy} ms and {light} ms");
    assert!(heavy >= 2 * light && light > 0, "{heavy} ms and {light} ms");

    room.host.cap_vcpu(1, 0, 200, 4 * QUANTUM_NS).unwrap();
    room.host.turn(4 * QUANTUM_NS);
    let [capped, free] = progress(&room);
    println!("capped at 200 m: {capped} ms of 2 s, beside it {free} ms");
    assert!(capped <= 600 && free >= 2 * capped, "{capped} ms and {free} ms");
    let used_us = room.host.sample(1, 0).unwrap().cpu_us;
    assert!(used_us / 1000 >= capped + free, "their use is the instance's");

    fs::write(room.group.join("vcpu-0/cpu.max"), "max").unwrap();
    assert_eq!(room.host.verify(8 * QUANTUM_NS, 100), 1);
    assert!(room.host.faults()[0].text.contains("v0/cpu.max"), "{:?}", room.host.faults());
    room.host.turn(8 * QUANTUM_NS);
    assert_eq!(room.read("vcpu-0/cpu.max"), "20000 100000");

    let stranger = room.host.place_vcpus(1, &[(0, 1)]);
    let not_moved = |error: &VcpuError| matches!(error, VcpuError::NotMoved { thread: 1, .. });
    assert!(matches!(&stranger, Err(HostError::Vcpu { error, .. }) if not_moved(error)));
    // One is unplugged; its thread is the instance's again.
    room.host.place_vcpus(1, &threads[1..]).unwrap();
    assert!(!room.group.join("vcpu-0").exists());
    assert!(room.read("cgroup.threads").contains(&threads[0].1.to_string()));
    let files: Vec<String> = room.states().into_iter().map(|(file, _)| file).collect();
    assert!(!files.iter().any(|file| file.starts_with("v0/")), "{files:?}");

    // Let go while it runs, it is an ordinary group again, and another host takes it up.
    let left = room.host.release(1);
    assert!(matches!(left, Err(HostError::NotRemoved { .. })), "{left:?}");
    assert_eq!(
        (room.read("cgroup.type"), room.read("cgroup.subtree_control")),
        ("domain".into(), "".into())
    );
    room.host.adopt(1, Home { account: 0, tier: 0 }, "", &[]).unwrap();
    room.host.place_vcpus(1, &threads).unwrap();
    room.stop();
    room.host.release(1).unwrap();
    assert!(!room.group.exists());
}

#[test]
fn instances_are_placed_on_processors_apart_and_kept_there() {
    let Some(mut room) = Room::open() else { return };
    let topology = Topology::read(Path::new("/sys/devices/system")).unwrap();
    room.host.place_on(&topology, &[(0, String::new())].into());
    room.host.adopt(2, Home { account: 0, tier: 0 }, "", &[]).unwrap();
    let other = PathBuf::from(room.host.place(2).unwrap());
    for instance in [1, 2] {
        room.host.want(instance, Resource::Cpu, 900, 1, 0).unwrap();
    }
    assert_eq!((room.read("cpuset.cpus"), read(&other, "cpuset.cpus")), ("0".into(), "1".into()));
    assert_eq!((room.host.fragmentation_percent(), room.host.lacking(1)), (0, vec![]));
    fs::write(room.group.join("cpuset.cpus"), "1").unwrap();
    assert_eq!(room.host.verify(QUANTUM_NS, 100), 1);
    assert_eq!(room.read("cpuset.cpus"), "0", "somebody else's change is set back");
    room.host.want(1, Resource::Cpu, 1500, 1, QUANTUM_NS).unwrap();
    assert_eq!(room.read("cpuset.cpus"), "0-1", "a cap that grew has room to be used");
    room.host.want(1, Resource::Cpu, 100, 1, QUANTUM_NS).unwrap();
    assert_eq!(room.read("cpuset.cpus"), "0-1", "nobody is moved to and fro");
    room.host.release(2).unwrap();
}

#[test]
fn a_frozen_instance_uses_nothing_until_it_thaws() {
    let Some(mut room) = Room::open() else { return };
    room.start("spin");
    while room.host.sample(1, 0).unwrap().cpu_us == 0 {}
    room.host.freeze(1, true, 0).unwrap();
    room.host.turn(0);
    assert!(room.read("cgroup.events").contains("frozen 1"));
    let freeze = ("cgroup.freeze".to_owned(), State::InForce as u8);
    assert_eq!(room.states(), [freeze]);
    room.host.sample(1, 0).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(room.host.sample(1, 0).unwrap().cpu_us, 0);
    // Somebody else's thaw is set back.
    fs::write(room.group.join("cgroup.freeze"), "0").unwrap();
    while room.read("cgroup.events").contains("frozen 1") {}
    assert_eq!(room.host.verify(4 * QUANTUM_NS, 100), 1);
    room.host.turn(4 * QUANTUM_NS);
    assert!(room.read("cgroup.events").contains("frozen 1"));
    room.host.freeze(1, false, 8 * QUANTUM_NS).unwrap();
    room.host.turn(8 * QUANTUM_NS);
    while room.host.sample(1, 0).unwrap().cpu_us == 0 {}
    // Whoever is let go is not left frozen.
    room.host.freeze(1, true, 12 * QUANTUM_NS).unwrap();
    room.host.turn(12 * QUANTUM_NS);
    let left = room.host.release(1);
    assert!(matches!(left, Err(HostError::NotRemoved { .. })), "{left:?}");
    assert_eq!(room.read("cgroup.freeze"), "0");
}

#[test]
fn a_tiers_instances_are_set_as_configured_where_the_kernel_can() {
    let settings = [
        (Knob::PidsMax, Setting::Count(Some(64)), "64"),
        (Knob::SwapMax, Setting::Bytes(Some(0)), "0"),
        (Knob::HugePages, Setting::Bytes(Some(4 * MIB)), "4194304"),
        (Knob::IoWeight, Setting::Weight(250), "default 250"),
        (Knob::UclampMin, Setting::Percent(1250), "12.50"),
    ];
    let wanted = settings.map(|(knob, setting, _)| (knob, setting));
    let Some(mut room) = Room::configured(&[Resource::Cpu, Resource::Memory], &[], &wanted) else {
        return;
    };
    let lacking = room.host.lacking(1);
    println!("{lacking:?}");
    room.host.turn(0);
    for (knob, _, text) in settings {
        let file = knob.file();
        if lacking.iter().any(|said| said.contains(file)) {
            assert!(!room.group.join(file).exists(), "{file} is there");
            continue;
        }
        assert_eq!(room.read(file), text, "{file}");
    }
    assert_eq!(room.host.faults_standing(), 0, "what is not there is no fault");
    assert!(!lacking.iter().any(|said| said.contains("pids.max")), "{lacking:?}");
    // As for any limit: what somebody else changes is set back, an entitlement changes nothing.
    fs::write(room.group.join("pids.max"), "max").unwrap();
    assert_eq!(room.host.verify(4 * QUANTUM_NS, 100), 1);
    room.host.want(1, Resource::Cpu, 100, 10, 4 * QUANTUM_NS).unwrap();
    room.host.turn(4 * QUANTUM_NS);
    assert_eq!(room.read("pids.max"), "64");
    assert!(room.states().iter().all(|(_, state)| *state == State::InForce as u8));
}

fn data_disk() -> Option<Device> {
    let blocks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let number = |path: PathBuf| Device::parse(fs::read_to_string(path.join("dev")).ok()?.trim());
    blocks.filter_map(|block| number(block.path())).next()
}

#[test]
fn storage_of_another_tier_is_limited_beside_its_own() {
    let Some(disk) = data_disk() else { return println!("not run: no block device") };
    let Some(mut room) = Room::with(&[Resource::BlockIo], &[]) else { return };
    let line = |bytes: u64| format!("{disk} rbps={bytes} wbps={bytes} riops=max wiops=max");
    assert_eq!(room.read("io.max"), "", "who leases none is not limited there");
    room.host.store(1, &[disk], (5, MIB), 0).unwrap();
    room.host.turn(0);
    assert_eq!(room.read("io.max"), line(5 * MIB));
    // What it may use at home is no matter there.
    room.host.want(1, Resource::BlockIo, 3, MIB, QUANTUM_NS).unwrap();
    room.host.turn(QUANTUM_NS);
    assert_eq!(room.read("io.max"), line(5 * MIB));
    let stands = room.host.reached((1, Aim::Storage, Resource::BlockIo)).expect("it is wanted");
    assert_eq!((stands.effect, stands.held), (Effect::Applied, 5 * MIB));
    room.host.store(1, &[disk], (1, MIB), 2 * QUANTUM_NS).unwrap();
    room.host.turn(2 * QUANTUM_NS);
    assert_eq!(room.read("io.max"), line(MIB));
}

#[test]
fn block_rates_are_kept_for_each_device() {
    let Some(disk) = data_disk() else { return println!("not run: no block device") };
    let absent = Device { major: 4_094, minor: 77 };
    let Some(mut room) = Room::with(&[Resource::BlockIo], &[disk, absent]) else { return };
    room.host.want(1, Resource::BlockIo, 3, MIB, 0).unwrap();
    assert_eq!(room.host.turn(0), None);
    let line = |bytes: u64| format!("{disk} rbps={bytes} wbps={bytes} riops=max wiops=max");
    assert_eq!(room.read("io.max"), line(3 * MIB));
    let states: Vec<u8> = room.states().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [State::InForce as u8, State::Refused as u8]);
    let failures: Vec<Failure> = room.host.faults().iter().map(|fault| fault.failure).collect();
    assert_eq!(failures, [Failure::NoDevice], "the group itself is there");

    fs::write(room.group.join("io.max"), format!("{disk} wbps=max")).unwrap();
    assert_eq!(room.host.verify(QUANTUM_NS, 100), 1);
    room.host.turn(QUANTUM_NS);
    assert_eq!(room.read("io.max"), line(3 * MIB));
    room.host.want(1, Resource::BlockIo, u64::MAX, 1, 2 * QUANTUM_NS).unwrap();
    room.host.turn(2 * QUANTUM_NS);
    assert_eq!(room.read("io.max"), "", "no limit, no line");
    assert_eq!(room.states()[0].1, State::InForce as u8);
}
