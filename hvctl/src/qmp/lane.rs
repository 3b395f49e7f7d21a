//! The slow lane of one QEMU: a thread of its own that keeps the guest at what its instance is
//! entitled to: its memory by its virtio-mem device, its processors, as many as the cap is worth, by
//! plugging and unplugging, its disks by throttles, and by moving them to the storage that it leases:
//! while one is copied, everything else goes on. Who wants never waits; of several wishes the
//! newest counts; a QEMU that hangs or is gone is tried again, ever more seldom.

use super::monitor::PATIENCE;
use super::reply::VirtioMem;
use super::storage::{self, Stored};
use super::{Go, Monitor, Outcome, QmpError, memory, throttle, vcpu};
use crate::lane::desk::Shared;
use crate::lane::now_ns;
use crate::lane::vm::{self, Standing, Standings};
use crate::lever::State;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use vendue_wire::code::Resource;
use vendue_wire::message::LimitRow;

/// How long a guest may take at once to plug or unplug; it goes on afterwards, and is looked at
/// again.
const GUEST: Duration = Duration::from_secs(10);
/// Pause before the first new try.
const RETRY: Duration = Duration::from_secs(1);
/// Longest pause between two tries, and between two looks at what is as it should be.
const LOOK: Duration = Duration::from_secs(30);

/// What resources should be, and where disks belong if that is due.
type Wishes = (Vec<(Resource, u64)>, Option<Stored>);

/// Wishes in, standings out.
#[derive(Debug, Default)]
struct Desk {
    standings: Standings,
    /// Where its disks belong, once that was said, and how that stands.
    stored: Option<(Stored, Standing)>,
    ended: bool,
}

/// Handle of a QEMU's thread. When it is dropped everything stays as it is, and the thread ends once
/// QEMU has answered or run out of time.
#[derive(Debug)]
pub struct QemuLane {
    monitor: PathBuf,
    shared: Arc<Shared<Desk>>,
}

impl QemuLane {
    /// Starts the thread; it does nothing before the first wish.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(monitor: &Path) -> io::Result<QemuLane> {
        let shared = Arc::new(Shared::default());
        let lane = QemuLane { monitor: monitor.to_owned(), shared: shared.clone() };
        let path = monitor.to_owned();
        thread::Builder::new().name("qemu".to_owned()).spawn(move || keep(&path, &shared))?;
        Ok(lane)
    }

    /// The guest should have so many VRUs of a resource in all, each of so many millicores, bytes or
    /// bytes/s. What it started with cannot be taken, and what there is no place for cannot be given.
    /// False if a QEMU has nothing that is set for it.
    pub fn want(&self, resource: Resource, vrus: u64, vru_size: u64) -> bool {
        let Some(amount) = vm::amount(resource, vrus, vru_size) else { return false };
        if vm::want(&mut self.shared.desk().standings, resource, vrus, amount) {
            self.shared.changed.notify_one();
        }
        true
    }

    /// The guest's disks belong there, and may be used so much: `vrus`, which are the rate in `stored`.
    pub fn store(&self, stored: Stored, vrus: u64) {
        let mut desk = self.shared.desk();
        if desk.stored.as_ref().is_some_and(|(known, _)| *known == stored) {
            return;
        }
        let before = desk.stored.take().map(|(_, standing)| standing);
        let standing = Standing::wished(before, vrus, stored.bytes_per_s);
        desk.stored = Some((stored, standing));
        self.shared.changed.notify_one();
    }

    /// How its disks stand, once it was said where they belong.
    pub fn stored(&self) -> Option<Standing> {
        self.shared.desk().stored.as_ref().map(|(_, standing)| standing.clone())
    }

    /// How a resource stands, once there was a wish for it.
    pub fn standing(&self, resource: Resource) -> Option<Standing> {
        self.shared.desk().standings.get(&resource).cloned()
    }

    /// What is wrong, if something is.
    pub fn fault(&self) -> Option<String> {
        let desk = self.shared.desk();
        if let Some((_, Standing { fault: Some(fault), .. })) = &desk.stored {
            return Some(format!("disks of the QEMU at {}: {fault}", self.monitor.display()));
        }
        let (resource, fault) = desk
            .standings
            .iter()
            .find_map(|(resource, standing)| Some((resource, standing.fault.as_ref()?)))?;
        Some(format!("{resource} of the QEMU at {}: {fault}", self.monitor.display()))
    }

    /// The same as limits among those of the instance, once there were wishes.
    pub fn limits(&self, instance: u32) -> Vec<LimitRow> {
        let desk = self.shared.desk();
        let row = |(&resource, standing): (&Resource, &Standing)| {
            let file = match resource {
                Resource::Cpu => "qemu vcpus",
                Resource::Memory => "virtio-mem",
                _ => "qemu throttle",
            };
            standing.limit(instance, resource, file)
        };
        let away = desk
            .stored
            .iter()
            .filter(|(stored, standing)| stored.is_away() || standing.state != State::InForce);
        let away = away.map(|(_, it)| it.limit(instance, Resource::BlockIo, "qemu storage"));
        desk.standings.iter().map(row).chain(away).collect()
    }
}

impl Drop for QemuLane {
    fn drop(&mut self) {
        self.shared.desk().ended = true;
        self.shared.changed.notify_one();
    }
}

/// The thread: does as wished, looks after it, and tries again what failed.
fn keep(path: &Path, shared: &Shared<Desk>) {
    let mut pause = LOOK;
    while let Some((wishes, stored)) = next(shared, pause) {
        let mut monitor = Monitor::connect(path, PATIENCE);
        let mut failed = serve(monitor.as_mut().map_err(|error| &*error), shared, wishes);
        if let Some(stored) = stored {
            let result = match &mut monitor {
                Ok(monitor) => apply_stored(monitor, &stored, shared, &mut failed),
                Err(error) => Err(failure(error)),
            };
            failed |= note_stored(shared, &stored, result);
        }
        pause = match (failed, pause) {
            (false, _) => LOOK,
            (true, LOOK) => RETRY,
            (true, pause) => (pause * 2).min(LOOK - RETRY),
        };
    }
}

/// Does as wished; true if something is wrong.
fn serve(
    mut monitor: Result<&mut Monitor, &QmpError>,
    shared: &Shared<Desk>,
    wishes: Vec<(Resource, u64)>,
) -> bool {
    let mut failed = false;
    for (resource, wanted) in wishes {
        let result = match &mut monitor {
            Ok(monitor) => apply(monitor, shared, resource, wanted).map_err(|e| failure(&e)),
            Err(error) => Err(failure(error)),
        };
        failed |= note(shared, resource, result);
    }
    failed
}

/// Brings disks to where they belong. What else is wished meanwhile is done, and where they belong
/// elsewhere by then, they go back.
fn apply_stored(
    monitor: &mut Monitor,
    stored: &Stored,
    shared: &Shared<Desk>,
    failed: &mut bool,
) -> Result<Outcome<u64>, (State, String)> {
    let home = shared.desk().standings.get(&Resource::BlockIo).map_or(0, |it| it.wanted);
    let meanwhile = |monitor: &mut Monitor| {
        let Some(wishes) = meanwhile(shared) else { return Go::Back };
        *failed |= serve(Ok(monitor), shared, wishes);
        Go::On
    };
    storage::keep(monitor, stored, home, meanwhile).map_err(|error| failure(&error))
}

/// New wishes for resources; none where there is another for disks, or nobody wishes any more.
fn meanwhile(shared: &Shared<Desk>) -> Option<Vec<(Resource, u64)>> {
    let mut desk = shared.desk();
    let is_overtaken = desk.stored.as_ref().is_some_and(|(_, standing)| standing.is_new);
    (!desk.ended && !is_overtaken).then(|| due(&mut desk, false))
}

/// As [`note`], of disks.
fn note_stored(
    shared: &Shared<Desk>,
    stored: &Stored,
    result: Result<Outcome<u64>, (State, String)>,
) -> bool {
    let mut desk = shared.desk();
    let Some((_, standing)) = desk.stored.as_mut().filter(|(known, _)| known == stored) else {
        // Overtaken: the next wish tells.
        return false;
    };
    match result {
        Ok(outcome) => {
            if standing.asked != Some(stored.bytes_per_s) {
                standing.writes += 1;
                standing.written_at_ns = now_ns();
            }
            standing.asked = Some(stored.bytes_per_s);
            if let Outcome::Applied(held) = outcome {
                standing.held = Some(held);
            }
            (standing.state, standing.fault) = judged(outcome);
        }
        Err((state, fault)) => (standing.state, standing.fault) = (state, Some(fault)),
    }
    standing.fault.is_some()
}

/// Where an error leaves a wish.
fn failure(error: &QmpError) -> (State, String) {
    let gone =
        matches!(error, QmpError::Connect { .. } | QmpError::Lost { .. } | QmpError::Late { .. });
    (if gone { State::Gone } else { State::Refused }, error.to_string())
}

/// Keeps what came of a wish; true if something is wrong.
fn note(
    shared: &Shared<Desk>,
    resource: Resource,
    result: Result<Applied, (State, String)>,
) -> bool {
    let mut desk = shared.desk();
    let Some(standing) = desk.standings.get_mut(&resource) else {
        unreachable!("what was wished stands somewhere")
    };
    match result {
        Ok(Applied { was_asked, asked, held, outcome }) => {
            if was_asked {
                standing.writes += 1;
                standing.written_at_ns = now_ns();
            }
            (standing.asked, standing.held) = (Some(asked), held);
            (standing.state, standing.fault) = judged(outcome);
        }
        Err((state, fault)) => (standing.state, standing.fault) = (state, Some(fault)),
    }
    if standing.is_new {
        standing.state = State::Pending;
    }
    standing.fault.is_some()
}

/// What is wished, once there is a new wish or the pause is over: the new ones, or all. None when
/// nobody wishes any more.
fn next(shared: &Shared<Desk>, pause: Duration) -> Option<Wishes> {
    let is_new = |desk: &Desk| {
        let stored = desk.stored.iter().map(|(_, standing)| standing);
        desk.standings.values().chain(stored).any(|standing| standing.is_new)
    };
    let idle = |desk: &mut Desk| !is_new(desk) && !desk.ended;
    // Before the first wish there is nothing to look after.
    drop(shared.wait(Duration::MAX, |desk| {
        desk.standings.is_empty() && desk.stored.is_none() && !desk.ended
    }));
    let mut desk = shared.wait(pause, idle);
    if desk.ended {
        return None;
    }
    let all = !is_new(&desk);
    let stored = desk.stored.as_mut().filter(|(_, standing)| all || standing.is_new);
    let stored = stored.map(|(stored, standing)| {
        standing.is_new = false;
        stored.clone()
    });
    Some((due(&mut desk, all), stored))
}

/// Takes the wishes for resources that are new, or all.
fn due(desk: &mut Desk, all: bool) -> Vec<(Resource, u64)> {
    let due = desk.standings.iter_mut().filter(|(_, standing)| all || standing.is_new);
    let take = |(&resource, standing): (&Resource, &mut Standing)| {
        standing.is_new = false;
        (resource, standing.wanted)
    };
    due.map(take).collect()
}

/// What was done and read back.
struct Applied {
    /// False: QEMU had been asked for this already.
    was_asked: bool,
    asked: u64,
    held: Option<u64>,
    outcome: Outcome<u64>,
}

/// Changes what has to be changed, reads back.
fn apply(
    monitor: &mut Monitor,
    shared: &Shared<Desk>,
    resource: Resource,
    wanted: u64,
) -> Result<Applied, QmpError> {
    match resource {
        Resource::Memory => apply_memory(monitor, wanted),
        Resource::Cpu => apply_vcpus(monitor, wanted),
        _ => {
            let away = shared.desk().stored.as_ref().map(|(stored, _)| stored.clone());
            apply_throttle(monitor, wanted, away.filter(Stored::is_away))
        }
    }
}

fn apply_memory(monitor: &mut Monitor, wanted: u64) -> Result<Applied, QmpError> {
    let before = memory::read(monitor)?;
    let [device] = before.devices.as_slice() else {
        let why = format!("the guest has {} virtio-mem devices, not one", before.devices.len());
        return Err(QmpError::Refused { command: "query-memory-devices", why });
    };
    let target = target(before.base_bytes, device, wanted);
    let was_asked = device.requested_size != target;
    let outcome = memory::resize(monitor, device.id.as_deref(), target, GUEST)?;
    let mut after = memory::read(monitor)?;
    after.devices.retain(|other| other.id == device.id);
    let device = after.devices.pop().unwrap_or_else(|| device.clone());
    let asked = after.base_bytes.saturating_add(device.requested_size);
    let held = Some(after.base_bytes.saturating_add(device.plugged_size));
    Ok(Applied { was_asked, asked, held, outcome })
}

/// What the device should hold, so that the guest has `wanted` bytes: whole blocks, no more.
fn target(base: u64, device: &VirtioMem, wanted: u64) -> u64 {
    let plugged = wanted.saturating_sub(base).min(device.max_size);
    plugged - plugged % device.block_size.max(1)
}

/// As many processors as QEMU has places for, and no fewer than it must keep.
fn apply_vcpus(monitor: &mut Monitor, wanted: u64) -> Result<Applied, QmpError> {
    let (least, now, most) = vcpu::range(monitor)?;
    let target = wanted.clamp(least.into(), most.into()) as u32;
    let was_asked = now != target;
    let outcome = match was_asked {
        true => vcpu::set_count(monitor, target, GUEST)?,
        false => Outcome::Applied(now),
    };
    let (_, held, _) = vcpu::range(monitor)?;
    let outcome = match outcome {
        Outcome::Applied(count) => Outcome::Applied(count.into()),
        Outcome::Partial { reached, why } => Outcome::Partial { reached: reached.into(), why },
        Outcome::Refused(why) => Outcome::Refused(why),
        Outcome::TimedOut(why) => Outcome::TimedOut(why),
    };
    Ok(Applied { was_asked, asked: target.into(), held: Some(held.into()), outcome })
}

/// Each disk gets the rate, but for those on storage that it leases; a limit of operations that
/// somebody set stays.
fn apply_throttle(
    monitor: &mut Monitor,
    wanted: u64,
    away: Option<Stored>,
) -> Result<Applied, QmpError> {
    let (mut was_asked, mut held, mut outcome) = (false, None, Outcome::Applied(wanted));
    for disk in throttle::disks(monitor)? {
        if away.as_ref().is_some_and(|stored| storage::lies_in(&disk, &stored.to)) {
            continue;
        }
        let before = disk.throttle();
        let limits = throttle::Throttle { bytes_per_s: wanted, ..before };
        was_asked |= before != limits;
        match throttle::set(monitor, &disk.device, limits)? {
            Outcome::Applied(now) => held = Some(now.bytes_per_s),
            Outcome::Partial { reached, why } => {
                outcome = Outcome::Partial { reached: reached.bytes_per_s, why };
            }
            Outcome::Refused(why) => outcome = Outcome::Refused(why),
            Outcome::TimedOut(why) => outcome = Outcome::TimedOut(why),
        }
    }
    Ok(Applied { was_asked, asked: wanted, held, outcome })
}

fn judged(outcome: Outcome<u64>) -> (State, Option<String>) {
    match outcome {
        Outcome::Applied(_) => (State::InForce, None),
        Outcome::Partial { why, .. } | Outcome::TimedOut(why) => (State::Drifted, Some(why)),
        Outcome::Refused(why) => (State::Refused, Some(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vendue_wire::code::Lag;
    use vendue_wire::message::text;

    #[test]
    fn a_guest_gets_whole_blocks_and_no_more_than_its_device_holds() {
        let device = VirtioMem {
            id: None,
            block_size: 2,
            max_size: 100,
            requested_size: 0,
            plugged_size: 0,
        };
        for (wanted, plugged) in [(0, 0), (500, 0), (501, 0), (507, 6), (600, 100), (900, 100)] {
            assert_eq!(target(500, &device, wanted), plugged, "{wanted}");
        }
    }

    #[test]
    fn who_wants_never_waits_and_is_told_that_there_is_no_qemu() {
        let lane = QemuLane::start(Path::new("/nonexistent/qmp")).unwrap();
        assert!(lane.standing(Resource::Memory).is_none());
        assert!(lane.limits(3).is_empty());
        assert!(!lane.want(Resource::Network, 5, 10), "a QEMU's network is its tap's");
        assert!(!lane.want(Resource::Cpu, 0, 10), "nothing was reserved");
        for (resource, vrus) in [(Resource::Memory, 5), (Resource::Memory, 7), (Resource::Cpu, 101)]
        {
            assert!(lane.want(resource, vrus, 10));
        }
        for resource in [Resource::Memory, Resource::Cpu] {
            while lane.standing(resource).unwrap().state != State::Gone {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let fault = lane.fault().expect("a fault");
        assert!(fault.contains("/nonexistent/qmp"), "{fault}");
        let [cpu, memory] = &lane.limits(3)[..] else { panic!("two wishes") };
        let shown = |row: &LimitRow| (row.instance.get(), row.wanted_vru.get(), row.writes.get());
        assert_eq!((shown(cpu), shown(memory)), ((3, 101, 0), (3, 7, 0)));
        assert_eq!((text(&memory.wanted), text(&memory.read_back)), ("70", ""));
        assert_eq!(text(&cpu.wanted), "2", "1.01 processors are two");
        assert_eq!(cpu.reason, Lag::Unreachable as u8);
    }
}
