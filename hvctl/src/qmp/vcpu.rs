//! The guest's processors: their threads, plugging and unplugging.

use super::command::{Command, VcpuDevice};
use super::reply::{CpuFast, HotpluggableCpu, Nothing};
use super::{Monitor, Outcome, QmpError, settled};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Most processors taken for true.
const VCPUS_MAX: usize = 4096;
/// Between two looks at whether the guest has given a processor back.
const LOOK: Duration = Duration::from_millis(50);
/// After so long a guest is asked again: while it gives one back it may miss that it is asked for another.
const AGAIN: Duration = Duration::from_secs(5);
/// Where QEMU has the devices that were given an id, and only those can be unplugged.
const PERIPHERAL: &str = "/machine/peripheral/";
/// Ids of processors that were plugged here begin so.
const PREFIX: &str = "vendue-vcpu-";

/// A processor of the guest and the thread of the host that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VcpuThread {
    /// QEMU's number of the processor, from 0.
    pub index: u32,
    /// The host's thread id, as `cgroup.threads` takes it.
    pub tid: u32,
}

/// The threads that run the guest's processors, by index. Each was seen to be a thread of the
/// process behind the socket: a QEMU that lies cannot have anybody else's thread limited.
///
/// # Errors
/// As [`Monitor::call`]; [`QmpError::Nonsense`] for threads that are not QEMU's.
pub fn threads(monitor: &mut Monitor) -> Result<Vec<VcpuThread>, QmpError> {
    let cpus: Vec<CpuFast> = monitor.call(&Command::QueryCpusFast)?;
    let process = monitor.process();
    let is_thread = |tid| Path::new(&format!("/proc/{process}/task/{tid}")).is_dir();
    check(&cpus, process, is_thread)
        .map_err(|why| QmpError::Nonsense { command: Command::QueryCpusFast.name(), why })
}

fn check(
    cpus: &[CpuFast],
    process: u32,
    is_thread: impl Fn(u32) -> bool,
) -> Result<Vec<VcpuThread>, String> {
    if cpus.is_empty() || cpus.len() > VCPUS_MAX {
        return Err(format!("{} processors", cpus.len()));
    }
    let mut threads: Vec<VcpuThread> =
        cpus.iter().map(|cpu| VcpuThread { index: cpu.cpu_index, tid: cpu.thread_id }).collect();
    threads.sort_unstable();
    if threads.windows(2).any(|pair| pair[0].index == pair[1].index) {
        return Err("a processor twice".to_owned());
    }
    let tids: BTreeSet<u32> = threads.iter().map(|thread| thread.tid).collect();
    if tids.len() < threads.len() {
        return Err("one thread for several processors: start QEMU with -accel kvm or \
             tcg,thread=multi"
            .to_owned());
    }
    match tids.iter().find(|tid| !is_thread(**tid)) {
        Some(tid) => Err(format!("thread {tid} is not of process {process}, which is QEMU's")),
        None => Ok(threads),
    }
}

/// Plugs or unplugs processors until there are `wanted`. Plugged ones are there at once, and it is
/// for the guest to use them (`echo 1 > /sys/devices/system/cpu/cpuN/online`, or a rule of udev);
/// unplugged ones the guest must give back, for which it has `patience`. Only processors that were
/// plugged can be unplugged.
///
/// The value read back is the number of processors.
///
/// # Errors
/// The QEMU is lost or makes no sense.
pub fn set_count(
    monitor: &mut Monitor,
    wanted: u32,
    patience: Duration,
) -> Result<Outcome<u32>, QmpError> {
    settled(change(monitor, wanted, patience))
}

/// How few processors there can be, how many there are, and how many there can be.
///
/// # Errors
/// As [`Monitor::call`].
pub fn range(monitor: &mut Monitor) -> Result<(u32, u32, u32), QmpError> {
    let places: Vec<HotpluggableCpu> = monitor.call(&Command::QueryHotpluggableCpus)?;
    let now = count(monitor)?;
    let most = (places.len() as u32).max(now);
    Ok((least(&places, now), now, most))
}

/// Those that were there from the start stay.
fn least(places: &[HotpluggableCpu], now: u32) -> u32 {
    let removable = places.iter().filter(|place| is_removable(place)).count() as u32;
    now.saturating_sub(removable).max(1)
}

fn change(
    monitor: &mut Monitor,
    wanted: u32,
    patience: Duration,
) -> Result<Outcome<u32>, QmpError> {
    let mut places: Vec<HotpluggableCpu> = monitor.call(&Command::QueryHotpluggableCpus)?;
    // QEMU lists them backwards.
    places.sort_by_key(|place| place.props);
    let before = count(monitor)?;
    if let Err(why) = possible(&places, before, wanted) {
        return Ok(Outcome::Refused(why));
    }
    if wanted > before {
        plug(monitor, &places, before, wanted)
    } else {
        unplug(monitor, &places, before, wanted, patience)
    }
}

/// Says why there cannot be `wanted` processors.
fn possible(places: &[HotpluggableCpu], now: u32, wanted: u32) -> Result<(), String> {
    if places.len() > VCPUS_MAX || places.iter().any(|place| place.vcpus_count != 1) {
        return Err("QEMU has other than one processor in a place: not supported".to_owned());
    }
    let most = places.len() as u32;
    if wanted > most {
        return Err(format!("there are places for {most}: start QEMU with a larger -smp maxcpus"));
    }
    let least = least(places, now);
    if wanted < least {
        return Err(format!("{least} were there from the start and cannot be unplugged"));
    }
    Ok(())
}

fn is_removable(place: &HotpluggableCpu) -> bool {
    place.qom_path.as_ref().is_some_and(|path| path.starts_with(PERIPHERAL))
}

/// The number of processors that QEMU runs.
fn count(monitor: &mut Monitor) -> Result<u32, QmpError> {
    let cpus: Vec<CpuFast> = monitor.call(&Command::QueryCpusFast)?;
    Ok(cpus.len() as u32)
}

fn plug(
    monitor: &mut Monitor,
    places: &[HotpluggableCpu],
    before: u32,
    wanted: u32,
) -> Result<Outcome<u32>, QmpError> {
    let free = places.iter().enumerate().filter(|(_, place)| place.qom_path.is_none());
    let mut failed = None;
    for (at, place) in free.take((wanted - before) as usize) {
        if !place.r#type.ends_with("-cpu") {
            return Ok(Outcome::Refused(format!("{:?} is no kind of processor", place.r#type)));
        }
        let device = VcpuDevice {
            driver: place.r#type.clone(),
            id: format!("{PREFIX}{at}"),
            place: place.props,
        };
        match monitor.call::<Nothing>(&Command::PlugVcpu(device)) {
            Ok(_) => {}
            Err(QmpError::Refused { why, .. }) => {
                failed = Some(why);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let reached = count(monitor)?;
    Ok(match failed {
        None if reached == wanted => Outcome::Applied(reached),
        Some(why) if reached == before => Outcome::Refused(why),
        why => Outcome::Partial { reached, why: why.unwrap_or_default() },
    })
}

fn unplug(
    monitor: &mut Monitor,
    places: &[HotpluggableCpu],
    before: u32,
    wanted: u32,
    patience: Duration,
) -> Result<Outcome<u32>, QmpError> {
    let until = Instant::now() + patience;
    let removable = places.iter().rev().filter(|place| is_removable(place));
    let paths = removable.map(|place| place.qom_path.clone().expect("removable ones have a path"));
    let mut asked: Vec<String> = paths.take((before - wanted) as usize).collect();
    let failed = ask_back(monitor, &asked)?;
    let mut again = Instant::now() + AGAIN;
    let mut reached = count(monitor)?;
    while reached > wanted && failed.is_none() && Instant::now() < until {
        monitor.rest(LOOK)?;
        if Instant::now() >= again {
            let places: Vec<HotpluggableCpu> = monitor.call(&Command::QueryHotpluggableCpus)?;
            asked.retain(|path| places.iter().any(|place| place.qom_path.as_ref() == Some(path)));
            // It was taken the first time: refused now, it is under way.
            ask_back(monitor, &asked)?;
            again += AGAIN;
        }
        reached = count(monitor)?;
    }
    let waiting = "the guest has not given them back; it may still";
    Ok(match failed {
        _ if reached == wanted => Outcome::Applied(reached),
        Some(why) if reached == before => Outcome::Refused(why),
        Some(why) => Outcome::Partial { reached, why },
        None if reached == before => Outcome::TimedOut(waiting.to_owned()),
        None => Outcome::Partial { reached, why: waiting.to_owned() },
    })
}

/// Asks the guest for processors; says why one was refused.
fn ask_back(monitor: &mut Monitor, paths: &[String]) -> Result<Option<String>, QmpError> {
    let mut failed = None;
    for id in paths {
        match monitor.tell(&Command::UnplugVcpu { id: id.clone() }) {
            Ok(()) => {}
            Err(QmpError::Refused { why, .. }) => failed = Some(why),
            Err(error) => return Err(error),
        }
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::super::reply::VcpuPlace;
    use super::*;

    fn cpu(cpu_index: u32, thread_id: u32) -> CpuFast {
        CpuFast { cpu_index, thread_id }
    }

    #[test]
    fn threads_of_others_and_shared_ones_are_not_believed() {
        let own = |tid| (100..200).contains(&tid);
        let threads = check(&[cpu(1, 102), cpu(0, 101)], 100, own).unwrap();
        assert_eq!(threads[0], VcpuThread { index: 0, tid: 101 });
        for (lie, part) in [
            (&[][..], "0 processors"),
            (&[cpu(0, 101), cpu(0, 102)], "twice"),
            (&[cpu(0, 101), cpu(1, 101)], "one thread"),
            (&[cpu(0, 101), cpu(1, 1)], "thread 1 is not of process 100"),
        ] {
            let why = check(lie, 100, own).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn counts_that_cannot_be_are_refused_with_a_reason() {
        let place = |core, path: Option<&str>| {
            let none = None;
            let props = VcpuPlace {
                node_id: none,
                socket_id: none,
                die_id: none,
                cluster_id: none,
                module_id: none,
                core_id: Some(core),
                thread_id: none,
            };
            let qom_path = path.map(str::to_owned);
            HotpluggableCpu { r#type: "max-x86_64-cpu".to_owned(), vcpus_count: 1, props, qom_path }
        };
        let places = [
            place(0, Some("/machine/unattached/device[0]")),
            place(1, Some("/machine/peripheral/c1")),
            place(2, None),
        ];
        assert_eq!(possible(&places, 2, 3), Ok(()));
        assert_eq!(possible(&places, 2, 1), Ok(()));
        assert!(possible(&places, 2, 4).unwrap_err().contains("places for 3"));
        assert!(possible(&places, 2, 0).unwrap_err().contains("1 were there"));
    }
}
