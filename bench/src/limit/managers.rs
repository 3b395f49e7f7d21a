//! The same change of a `cpu.weight` as others make it: ours on a held descriptor, and by the commands
//! of systemd and libvirt, each from its start to its end.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hvctl::cgroup::CgroupHost;
use hvctl::host::{Backend, Home, Host, Options};
use vendue_wire::code::Resource;

use super::{CONTROLLERS, Group};
use crate::daemon::AnyError;
use crate::report::{NotMeasured, Pair};
use crate::rtt::Collected;
use crate::run::{calibrate, histogram, time_stamp};

/// Changes of one run by each.
const CHANGES: u64 = 20;
/// The service whose weight is changed, and where its unit is as long as the system runs.
const UNIT: &str = "vendue-bench.service";
const UNITS: &str = "/run/systemd/system";
/// The group of the service.
const GROUP: &str = "/sys/fs/cgroup/system.slice/vendue-bench.service";
/// A domain of libvirt's whose weight may be changed, such as `qemu:///system web`.
const DOMAIN: &str = "VENDUE_BENCH_DOMAIN";
/// Longer than any quantum.
const STEP: Duration = Duration::from_secs(1);

/// Measures `limit.systemctl` and `limit.virsh` where they are; says why not where they are not.
///
/// # Errors
/// A command fails, or the kernel does not hold what it was given.
pub(super) fn measure(
    runs: usize,
    show: &mut dyn FnMut(Pair),
) -> Result<Vec<NotMeasured>, AnyError> {
    let mut left_out = Vec::new();
    let mut leave = |name: &str, reason: &str| {
        left_out.push(NotMeasured { name: name.to_owned(), reason: reason.to_owned() });
    };
    if !Path::new(UNITS).parent().is_some_and(Path::exists) {
        leave("limit.systemctl", "systemd does not run this system");
        leave("limit.virsh", "systemd does not run this system");
        return Ok(left_out);
    }
    let group = match Group::make(&CONTROLLERS[1]) {
        Ok(group) => group,
        Err(reason) => {
            leave("limit.systemctl", &reason);
            leave("limit.virsh", &reason);
            return Ok(left_out);
        }
    };
    let _service = Service::start()?;
    let mut ours = Ours::open(&group)?;
    let set = |weight: u64| {
        let property = format!("CPUWeight={weight}");
        run("systemctl", &["set-property", "--runtime", UNIT, &property])?;
        weighs(weight)
    };
    show(compare("limit.systemctl", "systemctl set-property --runtime", runs, &mut ours, set)?);
    match std::env::var(DOMAIN).ok().as_deref().and_then(|text| text.split_once(' ')) {
        None => leave(
            "limit.virsh",
            "VENDUE_BENCH_DOMAIN names no domain, such as `qemu:///system web`",
        ),
        Some((connection, domain)) => {
            let set = |weight: u64| {
                let shares = format!("cpu_shares={weight}");
                run("virsh", &["-c", connection, "schedinfo", domain, "--live", "--set", &shares])
            };
            show(compare("limit.virsh", "virsh schedinfo --live --set", runs, &mut ours, set)?);
        }
    }
    Ok(left_out)
}

fn compare(
    name: &str,
    command: &str,
    runs: usize,
    ours: &mut Ours,
    set: impl Fn(u64) -> Result<(), AnyError>,
) -> Result<Pair, AnyError> {
    let ns_per_tick = calibrate();
    let [mut near, mut far] = [Collected::new(), Collected::new()];
    for _ in 0..runs {
        let [mut quick, mut slow] = [histogram(), histogram()];
        let ns_since = |start: u64| ((time_stamp() - start) as f64 * ns_per_tick) as u64;
        for at in 0..CHANGES {
            let start = time_stamp();
            ours.set(100 + at)?;
            quick.saturating_record(ns_since(start));
            ours.settle(100 + at)?;
            let start = time_stamp();
            set(200 + at)?;
            slow.saturating_record(ns_since(start));
        }
        near.add(quick)?;
        far.add(slow)?;
    }
    let pair = Pair::new(name, "ns", &near.medians, &far.medians);
    let times = (1.0 / pair.ratio).round();
    Ok(pair
        .quantiles(&near.all, &far.all)
        .fact("rival", command)
        .fact("times slower than ours", times)
        .method(format!(
            "{runs} interleaved runs of {CHANGES} changes of one cpu.weight each; no floor but a rival: \
             `{command}` from its start to its end; ours from the decision to the end of the write"
        )))
}

/// A service of systemd's that does nothing; it ends when dropped.
struct Service;

impl Service {
    fn start() -> Result<Service, AnyError> {
        std::fs::create_dir_all(UNITS)?;
        let unit = "[Service]\nExecStart=/bin/sleep 100000\nCPUWeight=100\n";
        std::fs::write(Path::new(UNITS).join(UNIT), unit)?;
        let service = Service;
        run("systemctl", &["daemon-reload"])?;
        run("systemctl", &["start", UNIT])?;
        Ok(service)
    }
}

/// Fails if the service's group does not weigh so much.
fn weighs(weight: u64) -> Result<(), AnyError> {
    let says = std::fs::read_to_string(Path::new(GROUP).join("cpu.weight"))?;
    match says.trim() == weight.to_string() {
        true => Ok(()),
        false => Err(format!("{GROUP} weighs {says} instead of {weight}").into()),
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = run("systemctl", &["stop", UNIT]);
        let _ = std::fs::remove_file(Path::new(UNITS).join(UNIT));
        let _ = std::fs::remove_dir_all(format!("{UNITS}.control/{UNIT}.d"));
        let _ = run("systemctl", &["daemon-reload"]);
    }
}

/// Our own way to the service's weight.
struct Ours {
    host: Host,
    now_ns: u64,
}

impl Ours {
    fn open(group: &Group) -> Result<Ours, AnyError> {
        let parent = group.path.to_str().ok_or("a group has a plain name")?;
        let backend = Backend::Cgroup(CgroupHost::detect(parent, &[Resource::Cpu])?);
        let mut host = Host::new(backend, &[Resource::Cpu], Options::default());
        host.adopt(1, Home { account: 0, tier: 0 }, GROUP, &[])?;
        let mut ours = Ours { host, now_ns: 0 };
        ours.set(99)?;
        ours.settle(99)?;
        Ok(ours)
    }

    fn set(&mut self, weight: u64) -> Result<(), AnyError> {
        self.host.weigh(1, Resource::Cpu, weight, 10, self.now_ns)?;
        self.host.write(self.now_ns);
        Ok(())
    }

    /// Reads it back, and is ready for the next.
    fn settle(&mut self, weight: u64) -> Result<(), AnyError> {
        self.host.turn(self.now_ns);
        self.now_ns += STEP.as_nanos() as u64;
        match self.host.faults().first() {
            Some(fault) => Err(fault.text.clone().into()),
            None => weighs(weight),
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), AnyError> {
    let mut command = Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{program} {}: {}: {said}", arguments.join(" "), output.status).into())
}
