//! The slow lane of memory: a thread of its own that keeps groups' memory at what their instances are
//! entitled to.
//!
//! To take memory the kernel has to reclaim it first, and a write to `memory.high` or
//! `memory.reclaim` returns only then. No limit of processors, of I/O or of networks waits for that:
//! those are the fast lane, which is the thread that owns the [`Host`] this one was split off. Who
//! wants here never waits: of several wishes for one group the newest counts, and there is at most
//! one entry a group, so that the queue needs no other bound.

pub(crate) mod desk;
pub mod vm;

use self::desk::Shared;
use crate::host::{Counters, Home, Host};
use crate::lever::State;
use crate::limit::Knob;
use crate::outcome::{Aim, Effect, Key, Reached};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vendue_wire::code::{Lag, Resource};
use vendue_wire::message::{LimitRow, TIER_BIT, field_cut};

/// Limits read back in one turn at most.
const VERIFY_MAX: u32 = 128;
/// How long what is still to be done when the lane ends may take.
const LAST: Duration = Duration::from_secs(2);

/// What is to be done about one group, in this order.
#[derive(Clone, Debug, Default)]
struct Order {
    release: bool,
    adopt: Option<(Home, String)>,
    /// VRUs, and bytes of each.
    want: Option<(u64, u64)>,
}

/// What is known of one group.
#[derive(Clone, Debug, Default)]
struct Shown {
    rows: Vec<LimitRow>,
    reached: Option<Reached>,
    /// Why it is not limited.
    fault: Option<String>,
}

#[derive(Debug, Default)]
struct Desk {
    /// By number, what the thread has not seen yet.
    orders: BTreeMap<u32, Order>,
    /// What it is at, and wishes of which it has not shown what came of them.
    at_work: BTreeMap<u32, Order>,
    shown: BTreeMap<u32, Shown>,
    faults: Vec<String>,
    counters: Counters,
    ended: bool,
    /// The thread has done all there was to do, after `ended`.
    done: bool,
}

/// Handle of the thread. Dropping it lets the thread do what is still to be done, and waits for that
/// a moment.
#[derive(Debug)]
pub struct MemoryLane(Arc<Shared<Desk>>);

impl MemoryLane {
    /// Starts the thread over what [`Host::split_memory`] gave, which reads its limits back every
    /// `verify_ns`.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(host: Host, verify_ns: u64) -> io::Result<MemoryLane> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let keep = move || keep(host, &theirs, verify_ns);
        std::thread::Builder::new().name("memory".to_owned()).spawn(keep)?;
        Ok(MemoryLane(shared))
    }

    fn order(&self, number: u32, change: impl FnOnce(&mut Order)) {
        change(self.0.desk().orders.entry(number).or_default());
        self.0.changed.notify_all();
    }

    /// Takes an instance in whose group is at `place`.
    pub fn adopt(&self, instance: u32, home: Home, place: &str) {
        self.order(instance, |order| order.adopt = Some((home, place.to_owned())));
    }

    /// Lifts the limits of an instance or a tier, and lets it go.
    pub fn release(&self, number: u32) {
        self.order(number, |order| *order = Order { release: true, ..Order::default() });
        self.0.desk().shown.remove(&number);
    }

    /// Sets what an instance, or with [`TIER_BIT`] a tier, may use: VRUs of so many bytes.
    pub fn want(&self, number: u32, vrus: u64, vru_bytes: u64) {
        self.order(number, |order| order.want = Some((vrus, vru_bytes)));
    }

    /// The limits of an instance or a tier, as [`Host::limits`] says them.
    pub fn limits(&self, number: u32) -> Vec<LimitRow> {
        let desk = self.0.desk();
        let mut rows = desk.shown.get(&number).map(|shown| shown.rows.clone()).unwrap_or_default();
        if let Some((vrus, bytes)) = desk.wished(number) {
            if rows.is_empty() {
                rows.push(LimitRow {
                    file: field_cut(Knob::MemoryHigh.file()),
                    ..LimitRow::zeroed()
                });
            }
            for row in &mut rows {
                row.wanted_vru = vrus.into();
                row.instance = number.into();
                row.resource = Resource::Memory as u8;
                (row.state, row.reason) = (State::Pending as u8, Lag::Waiting as u8);
                if *row.file.as_ref() == field_cut::<16>(Knob::MemoryHigh.file()) {
                    row.wanted = field_cut(&vrus.saturating_mul(bytes).to_string());
                }
            }
        }
        rows
    }

    /// How far what is wanted of a group has come; `None` if nothing is.
    pub fn reached(&self, number: u32) -> Option<Reached> {
        let desk = self.0.desk();
        let shown = desk.shown.get(&number);
        let reached = shown.and_then(|shown| shown.reached);
        match desk.wished(number) {
            None => reached,
            Some((vrus, bytes)) => Some(Reached {
                effect: Effect::Pending(Lag::Waiting),
                wanted: vrus.saturating_mul(bytes),
                held: reached.map_or(u64::MAX, |reached| reached.held),
            }),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.0.desk().counters
    }

    /// What is wrong.
    pub fn faults(&self) -> Vec<String> {
        let desk = self.0.desk();
        let kept_out = desk.shown.values().filter_map(|shown| shown.fault.clone());
        desk.faults.iter().cloned().chain(kept_out).collect()
    }
}

impl Desk {
    /// A wish for a group of which nothing is shown yet.
    fn wished(&self, number: u32) -> Option<(u64, u64)> {
        let orders = [&self.orders, &self.at_work];
        orders.into_iter().find_map(|orders| orders.get(&number)?.want)
    }
}

impl Drop for MemoryLane {
    fn drop(&mut self) {
        self.0.desk().ended = true;
        self.0.changed.notify_all();
        // A write that takes longer ends by itself.
        drop(self.0.wait(LAST, |desk| !desk.done));
    }
}

/// Nanoseconds since 1970 UTC.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The thread.
fn keep(mut host: Host, shared: &Shared<Desk>, verify_ns: u64) {
    let (mut due_ns, mut verify_at_ns) = (None, now_ns().saturating_add(verify_ns));
    while let Some(orders) = next(shared, verify_at_ns.min(due_ns.unwrap_or(u64::MAX))) {
        let mut touched: BTreeSet<u32> = orders.keys().copied().collect();
        let mut faults = BTreeMap::new();
        for (number, order) in orders {
            if let Err(fault) = apply(&mut host, number, order, now_ns()) {
                faults.insert(number, fault);
            }
        }
        let now = now_ns();
        touched.extend(host.unsettled(now));
        if now >= verify_at_ns {
            verify_at_ns = now.saturating_add(verify_ns);
            host.verify(now, VERIFY_MAX);
            touched.extend(host.unsettled(now));
        }
        due_ns = host.turn(now);
        show(&host, shared, &touched, &mut faults);
    }
    let mut desk = shared.desk();
    desk.done = true;
    shared.changed.notify_all();
}

/// What is to be done, once something is or it is `until_ns`; none when the lane has ended.
fn next(shared: &Shared<Desk>, until_ns: u64) -> Option<BTreeMap<u32, Order>> {
    let pause = Duration::from_nanos(until_ns.saturating_sub(now_ns()));
    let idle = |desk: &mut Desk| desk.orders.is_empty() && !desk.ended;
    let mut desk = shared.wait(pause, idle);
    if desk.ended && desk.orders.is_empty() {
        return None;
    }
    desk.at_work = std::mem::take(&mut desk.orders);
    Some(desk.at_work.clone())
}

/// Does what is ordered, or says why the group is not limited.
fn apply(host: &mut Host, number: u32, order: Order, now_ns: u64) -> Result<(), String> {
    let told = |error: crate::host::HostError| format!("memory is not limited: {error}");
    if order.release {
        // What was not taken in is let go by that.
        let _ = host.release(number);
    }
    if let Some((home, place)) = order.adopt {
        host.adopt(number, home, &place, &[]).map_err(told)?;
    }
    let Some((vrus, bytes)) = order.want else { return Ok(()) };
    match number.checked_sub(TIER_BIT) {
        Some(tier) => host.resize_tier(tier as u16, Resource::Memory, (vrus, bytes), &[], now_ns),
        None => host.want(number, Resource::Memory, vrus, bytes, now_ns),
    }
    .map_err(told)
}

/// Shows how those stand that may have changed.
fn show(
    host: &Host,
    shared: &Shared<Desk>,
    touched: &BTreeSet<u32>,
    faults: &mut BTreeMap<u32, String>,
) {
    let look = |&number: &u32| {
        let key: Key = (number, Aim::Limit, Resource::Memory);
        let fault = faults.remove(&number);
        (number, Shown { rows: host.limits(number), reached: host.reached(key), fault })
    };
    let looked: Vec<(u32, Shown)> = touched.iter().map(look).collect();
    let standing = host.faults().into_iter().map(|fault| fault.text).collect();
    let mut desk = shared.desk();
    for (number, shown) in looked {
        let gone = shown.rows.is_empty() && shown.fault.is_none();
        // Released meanwhile: the order says the rest.
        let released = desk.orders.get(&number).is_some_and(|order| order.release);
        if gone || released {
            desk.shown.remove(&number);
        } else {
            desk.shown.insert(number, shown);
        }
    }
    desk.faults = standing;
    desk.counters = host.counters();
    desk.at_work.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::CgroupHost;
    use crate::host::{Backend, Options};
    use std::fs;
    use std::path::Path;
    use std::process::Command;
    use vendue_wire::message::text;

    const MIB: u64 = 1 << 20;

    /// A directory that looks like a group, but that to ask it for memory takes as long as the test
    /// wants: no kernel can be made to.
    fn slow_group(root: &Path) -> (CgroupHost, String) {
        let leaf = root.join("leaf");
        for dir in [root.join("vendue"), leaf.clone()] {
            fs::create_dir(&dir).unwrap();
        }
        for dir in [root, &root.join("vendue")] {
            fs::write(dir.join("cgroup.controllers"), "cpu memory\n").unwrap();
            fs::write(dir.join("cgroup.subtree_control"), "cpu memory\n").unwrap();
        }
        for (file, text) in [
            ("cpu.max", "max 100000\n"),
            ("cpu.weight", "100\n"),
            ("cpu.stat", "usage_usec 0\n"),
            ("memory.max", "max\n"),
            ("memory.high", "max\n"),
            ("memory.current", &(200 * MIB).to_string()),
        ] {
            fs::write(leaf.join(file), text).unwrap();
        }
        let made = Command::new("mkfifo").arg(leaf.join("memory.reclaim")).status().unwrap();
        assert!(made.success());
        let mounts = format!("41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n", root.display());
        let host = CgroupHost::with_controllers("", &["cpu", "memory"], &mounts).unwrap();
        (host, leaf.to_str().unwrap().to_owned())
    }

    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..60_000 {
            if is_so() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("not in a minute: {what}");
    }

    #[test]
    fn memory_that_is_slow_to_take_delays_no_other_limit() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let (groups, place) = slow_group(&root);
        let resources = [Resource::Cpu, Resource::Memory];
        let mut host = Host::new(Backend::Cgroup(groups), &resources, Options::default());
        let slow = host.split_memory().expect("memory is limited");
        let lane = MemoryLane::start(slow, u64::MAX).unwrap();
        let home = Home { account: 0, tier: 0 };
        host.adopt(1, home, &place, &[]).unwrap();
        lane.adopt(1, home, &place);
        lane.want(1, 4, 16 * MIB);
        until("it is at work", || lane.0.desk().orders.is_empty());
        for (second, vrus) in (1..).zip([20, 40, 30, 60]) {
            // As long apart as refills ask for.
            let now_ns = second * 600_000_000_000;
            host.want(1, Resource::Cpu, vrus, 10, now_ns).unwrap();
            assert_eq!(host.turn(now_ns), None);
            assert_eq!(text(&host.limits(1)[0].read_back), format!("{vrus}000 100000"));
            let pending = lane.reached(1).map(|reached| (reached.effect, reached.wanted));
            assert_eq!(pending, Some((Effect::Pending(Lag::Waiting), 64 * MIB)));
        }
        // Of what is wanted meanwhile the latest counts.
        for vrus in [5, 6, 20] {
            lane.want(1, vrus, 16 * MIB);
        }
        assert_eq!(lane.limits(1)[0].state, State::Pending as u8);
        let asked = fs::read_to_string(Path::new(&place).join("memory.reclaim")).unwrap();
        assert_eq!(asked, (34 * MIB).to_string(), "a quarter of what was too much");
        until("the latest is in force", || {
            lane.reached(1).is_some_and(|reached| reached.effect == Effect::Applied)
        });
        let rows = lane.limits(1);
        let high = rows.iter().find(|row| text(&row.file) == "memory.high").unwrap();
        assert_eq!((text(&high.read_back), high.writes.get()), ("335544320", 1));
    }
}
