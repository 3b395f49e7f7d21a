//! The real cpu and memory controllers of cgroup v2.
//!
//! Needs root and a cgroup2 filesystem with the cpu and memory controllers. Where they are
//! missing each test says so and returns; the whole-system tests run this file in a virtual
//! machine that has them.

use hvctl::cgroup::CgroupHost;
use hvctl::host::{Backend, Home, Host, Options};
use hvctl::lever::{Failure, State};
use hvctl::limit::Device;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vendue_wire::code::Resource;
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
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let backend = match CgroupHost::detect("", resources) {
            Ok(backend) => backend,
            Err(error) => {
                println!("not run, no writable cgroup v2 controllers: {error}");
                return None;
            }
        };
        let subtree = backend.subtree().to_path_buf();
        let mut host = Host::new(Backend::Cgroup(backend), resources, Options::default());
        host.adopt(1, Home { account: 0, tier: 0 }, "", devices).unwrap();
        let group = PathBuf::from(host.place(1).unwrap());
        Some(Room { host, group, subtree, children: Vec::new(), _alone: alone })
    }

    /// Starts [`child`] in the group.
    fn start(&mut self, what: &str) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env(CHILD, what);
        self.children.push(command.spawn().unwrap());
        let pid = self.children.last().unwrap().id().to_string();
        fs::write(self.group.join("cgroup.procs"), pid).unwrap();
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
        Ok("hold") => {
            // Takes memory only once it is in its group.
            let own = || fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            while !own().contains("/vendue/") {
                std::thread::sleep(Duration::from_millis(1));
            }
            let held = black_box(vec![1u8; 96 << 20]);
            loop {
                std::thread::sleep(Duration::from_secs(1));
                black_box(&held);
            }
        }
        _ => {}
    }
}

#[test]
fn cpu_limits_are_written_and_read_back() {
    let Some(mut room) = Room::open() else { return };
    for (turn, millicores) in [10u64, 250, 990, 1_000, 7_770, 64_000, 5].into_iter().enumerate() {
        let now_ns = turn as u64 * QUANTUM_NS;
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
    assert_eq!(room.host.verify(9 * QUANTUM_NS, 100), 1);
    room.host.turn(9 * QUANTUM_NS);
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
fn block_rates_are_kept_for_each_device() {
    let blocks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let number = |path: PathBuf| Device::parse(fs::read_to_string(path.join("dev")).ok()?.trim());
    let Some(disk) = blocks.filter_map(|block| number(block.path())).next() else {
        println!("not run: no block device");
        return;
    };
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
