//! An instance that is a VM: its guest's memory follows what the market decides, and when the VM
//! ends by itself its orders and credits are settled.
//!
//! The daemon runs in this process, because where memory is bound to cgroup v1 it would not start by
//! itself: huge pages stand in for the instance's cgroup, which is not what is looked at here.

#[path = "../../hvctl/tests/cell/counters.rs"]
mod counters;

use hvctl::cgroup::CgroupHost;
use hvctl::host::{Backend, Host, Options};
use hvctl::kvm::keeper::join_place;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use vendue_engine::config::Config;
use vendue_tests::daemon::{self, Setup, eventually, hvctl};
use vendue_tests::market::{audit, check_ledger};
use vendue_wire::client::{Client, Endpoint, Identity};
use vendue_wire::code::{CancelReason, Lag, OrderType, Resource, Side, TimeInForce};
use vendue_wire::message::*;

const MIB: u64 = 1 << 20;
/// What the instance reserves, a MiB each.
const BASELINE_VRU: u32 = 5;
/// Its burst ceiling.
const BURST_VRU: u64 = 10;

/// The daemon's groups, removed when dropped.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a group and those below it.
fn remove(group: &Path) {
    for below in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if below.path().is_dir() {
            remove(&below.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

/// A running cell, ended when dropped, and what its guest says of its memory.
struct Cell {
    child: Child,
    memory_bytes: Arc<Mutex<u64>>,
    /// How far its second vCPU has counted.
    second: Arc<Mutex<u32>>,
}

impl Cell {
    fn start(directory: &Path, group: &Path) -> Cell {
        std::fs::write(directory.join("image"), counters::COUNTERS).unwrap();
        let hvctl = hvctl();
        let mut command = Command::new(hvctl);
        command.arg("cell").arg("--image").arg(directory.join("image"));
        command.arg("--port").arg(directory.join("port"));
        command.arg("--cgroup").arg(group);
        command.args(["--memory", "2M", "--memory-max", "16M", "--cpus-max", "2"]);
        command.stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let memory_bytes = Arc::new(Mutex::new(0));
        let second = Arc::new(Mutex::new(0));
        let heard = (memory_bytes.clone(), second.clone());
        std::thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            for line in lines.filter_map(|line| counters::parse(&line)) {
                assert_eq!(line.counters[1..], [0; 2], "there are two vCPUs, of which one reports");
                *heard.0.lock().unwrap() = line.memory_bytes;
                *heard.1.lock().unwrap() = line.counters[0];
            }
        });
        Cell { child, memory_bytes, second }
    }

    fn until_memory(&self, bytes: u64) {
        let what = format!("a guest with {bytes} bytes");
        eventually(&what, || (*self.memory_bytes.lock().unwrap() == bytes).then_some(()));
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where this can be shown, the groups' parent and the host above it.
fn host() -> Option<(Group, Host)> {
    let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    if let Err(error) = kvm {
        println!("not shown: /dev/kvm cannot be used here ({error})");
        return None;
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    });
    let group = Group(mount?.join(format!("vendue-cells-test-{}", std::process::id())));
    if let Err(error) = std::fs::create_dir(&group.0) {
        println!("not shown: no cgroup can be made here ({error})");
        return None;
    }
    match CgroupHost::detect_hugetlb(group.0.to_str().unwrap()) {
        Ok(cgroups) => {
            let backend = Backend::Cgroup(cgroups);
            Some((group, Host::new(backend, &[Resource::Memory], Options::default())))
        }
        Err(error) => {
            println!("not shown: {error}");
            None
        }
    }
}

fn config(files: &daemon::Daemon) -> Config {
    let text = std::fs::read_to_string(files.path("vendued.toml")).unwrap();
    let (text, _) = text.split_once("\n[[tier]]\n").unwrap();
    let tier = "\n[[tier]]\nname = \"cells\"\n\
                memory = { capacity_vru = 32, vru_size = 1048576, burst_percent = 200 }\n\
                cpu = { capacity_vru = 400, burst_percent = 150 }\n";
    let mut config = Config::parse("vendued.toml", &[text, tier].concat()).unwrap();
    config.data_dir = files.data_dir().to_owned();
    config.gateway.unix = files.path("socket");
    config
}

/// An account with the cell as its instance; its number.
fn adopt(operator: &mut Client, place: &str) -> u32 {
    let account = CreateAccount {
        client_id: operator.next_client_id().into(),
        name: field("owner").unwrap(),
        ..CreateAccount::zeroed()
    };
    let account = operator.call(&account).unwrap().value.get() as u32;
    let mut baseline_vru = [U32::ZERO; 5];
    baseline_vru[Resource::Memory as usize] = BASELINE_VRU.into();
    // A processor.
    baseline_vru[Resource::Cpu as usize] = 100.into();
    let instance = CreateInstance {
        client_id: operator.next_client_id().into(),
        account: account.into(),
        baseline_vru,
        name: field("cell").unwrap(),
        place: field(place).unwrap(),
        ..CreateInstance::zeroed()
    };
    operator.call(&instance).unwrap().value.get() as u32
}

/// Something of the cell as the daemon shows it: wanted, confirmed, state.
fn shown(client: &mut Client, instance: u32, file: &str) -> Option<(String, String, u8)> {
    let query = QueryLimits { from: instance.into() };
    let rows = client.ask::<LimitRow, _>(&query).unwrap();
    let row = rows.iter().find(|row| text(&row.file) == file)?;
    Some((text(&row.wanted).to_owned(), text(&row.read_back).to_owned(), row.state))
}

/// Waits until the audit trail says what came of something.
fn until_told(operator: &mut Client, what: &str, (amount, code): (u64, u8)) {
    let mut seen = Vec::new();
    for _ in 0..600 {
        let trail = audit(operator);
        seen = trail.iter().map(|it| (text(&it.what).to_owned(), it.amount.get())).collect();
        let is_it =
            |row: &AuditRow| (text(&row.what), row.amount.get(), row.code) == (what, amount, code);
        if trail.iter().any(is_it) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("no {what} of {amount}: {seen:?}");
}

/// What KVM counts of the cell's two vCPUs is the instance's, each time that it is looked at.
fn assert_counted(operator: &mut Client, instance: u32) {
    // The last look may be from before the second was there.
    let sensed = eventually("the exits of both", || {
        let query = QuerySensors { from: instance.into() };
        let rows = operator.ask::<SensorRow, _>(&query).unwrap();
        let row = rows.into_iter().find(|row| row.instance.get() == instance)?;
        let counted = (1..u32::MAX).contains(&row.exits_per_s.get());
        (counted && row.vcpus.get() == 2).then_some(row)
    });
    assert!(
        sensed.halt_permille.get() <= 2_200,
        "{sensed:?}: two vCPUs' time passes twice at most"
    );
}

/// Grants more credits than an instance may use up.
fn enrich(operator: &mut Client, instance: u32) {
    for resource in [Resource::Memory, Resource::Cpu] {
        let grant = GrantCredits {
            client_id: operator.next_client_id().into(),
            amount_millicredits: 1_000_000_000.into(),
            instance: instance.into(),
            resource: resource as u8,
            reserved: [0; 3],
        };
        operator.call(&grant).unwrap();
    }
}

/// Rests an order of it.
fn sell(operator: &mut Client, instance: u32) -> Accepted {
    let order = NewOrder {
        client_id: operator.next_client_id().into(),
        instance: instance.into(),
        price_ticks: 7.into(),
        quantity: 3.into(),
        side: Side::Sell as u8,
        order_type: OrderType::Limit as u8,
        time_in_force: TimeInForce::Gtc as u8,
        ..NewOrder::zeroed()
    };
    operator.call_for(&order).unwrap()
}

#[test]
fn a_cells_memory_follows_the_market_and_its_end_settles_its_orders() {
    let Some((group, host)) = host() else { return };
    let setup = Setup::small().key("tick_ms", "100").key("meter_ms", "100").key("sense_ms", "200");
    // Not by what it earns while a slow machine starts its VMM.
    let files = daemon::Daemon::prepare(&setup.key("burst_resume_ms", "60000"));
    let running = vendue_engine::daemon::Daemon::start_on(&config(&files), host).unwrap();
    let endpoint = Endpoint::Unix(files.path("socket"));
    let mut operator = Client::connect(&endpoint, &Identity::operator()).unwrap();
    let directory = tempfile::tempdir().unwrap();

    // Traded before its VMM is there, and known to be.
    let socket = directory.path().join("port");
    let group = group.0.join("vendue/tier-0/cell");
    eventually("its tier's group", || std::fs::create_dir(&group).ok());
    let place = join_place(group.to_str().unwrap(), socket.to_str().unwrap());
    let instance = adopt(&mut operator, &place);
    eventually("a fault", || files.status().1.iter().any(|it| it.contains("port")).then_some(()));
    until_told(&mut operator, "vm refused", (0, Lag::Unreachable as u8));
    // Five MiB are two and a half of its huge pages, and the kernel rounds down.
    until_told(&mut operator, "limit refused", (4 * MIB, Lag::Differs as u8));
    let mut cell = Cell::start(directory.path(), &group);
    cell.until_memory(u64::from(BASELINE_VRU) * MIB);
    let threads = std::fs::read_to_string(group.join("vcpu-0/cgroup.threads")).unwrap();
    assert!(!threads.is_empty(), "its vCPU's thread has a group");
    until_told(&mut operator, "vm applied", (u64::from(BASELINE_VRU) * MIB, 0));

    eventually("one vCPU", || {
        (shown(&mut operator, instance, "kvm vcpus")?.1 == "1").then_some(())
    });
    assert_eq!(*cell.second.lock().unwrap(), 0, "its second vCPU runs");

    // Credits raise what it may have to its burst ceiling, in the guest as well.
    enrich(&mut operator, instance);
    eventually("a second vCPU that counts", || (*cell.second.lock().unwrap() > 0).then_some(()));
    cell.until_memory(BURST_VRU * MIB);
    let all = (BURST_VRU * MIB).to_string();
    eventually("the daemon knows", || {
        (shown(&mut operator, instance, "kvm memory")? == (all.clone(), all.clone(), 1))
            .then_some(())
    });
    until_told(&mut operator, "limit applied", (BURST_VRU * MIB, 0));
    until_told(&mut operator, "vm applied", (BURST_VRU * MIB, 0));
    until_told(&mut operator, "vm applied", (2, 0));

    assert_counted(&mut operator, instance);

    let accepted = sell(&mut operator, instance);
    cell.child.kill().unwrap();
    let cancelled = loop {
        let frame = operator.recv(daemon::PATIENCE).unwrap().expect("the order is cancelled");
        if let Some(cancelled) = frame.message::<Cancelled>() {
            break *cancelled;
        }
    };
    assert_eq!(cancelled.handle, accepted.handle);
    assert_eq!(cancelled.reason, CancelReason::InstanceRemoved as u8);
    eventually("no instance", || {
        let rows = operator.ask::<InstanceRow, _>(&QueryInstances { from: 0.into() }).unwrap();
        rows.is_empty().then_some(())
    });
    eventually("no group of it", || (!group.exists()).then_some(()));
    check_ledger(&mut operator);
    let trail = audit(&mut operator);
    let perished: Vec<_> = trail.iter().filter(|row| text(&row.what) == "perished").collect();
    assert_eq!(perished.len(), 1, "its end is in the audit trail, once");
    assert_eq!(perished[0].instance.get(), instance);
    eventually("no fault", || files.status().1.is_empty().then_some(()));
    drop(operator);
    running.stop().unwrap();
}
