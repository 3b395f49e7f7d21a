//! Actuate: turns entitlements into the host's own limits, and meters what instances use. A dead
//! lever is reported and retried by the host library; trading goes on.

use super::cells::Cells;
use super::foresight::Foresight;
use super::outcomes::Outcomes;
use super::record::{Arrival, Delivery, TO_CONNECTION, take};
use crate::apart::Part;
use crate::clock::Clock;
use crate::forecast::history::Answer;
use crate::health::Health;
use crate::machine::command::{self, HOST_KPIS};
use crate::machine::event::{
    AccountCapped, Asked, Entitled, InstanceCreated, InstanceFrozen, InstanceRemoved, Resized,
    Stored, Watched, Weighted,
};
use hvctl::host::{Home, Host, account_key};
use hvctl::kvm::keeper::split_place;
use hvctl::lane::MemoryLane;
use hvctl::limit::Device;
use hvctl::meter::Usage;
use hvctl::outcome::{Aim, Key, Reached};
use hvctl::qmp::lane::QemuLane;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vendue_wire::code::{Kpi, RESOURCES, Resource};
use vendue_wire::frame::{self, FRAME_BYTES_MAX};
use vendue_wire::message::{
    ANY, Body, LimitRow, QueryEnd, QueryHistory, QuerySensors, SensorRow, TIER_BIT, text,
};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::{FromBytes, IntoBytes};

/// Rows of one answer at most.
const PAGE: usize = 32;
/// Instances sensed in one turn at most, so that no limit waits long for it.
const SENSED_MAX: usize = 32;
/// An answer of the forecaster's is looked for so often.
const ANSWER_PAUSE: Duration = Duration::from_millis(5);
/// Limits read back in one turn at most.
const VERIFY_MAX: u32 = 128;

/// What is known of an instance here.
#[derive(Debug, Default)]
struct Metered {
    /// Size of a VRU of each resource, once an entitlement came: millicores, bytes, bytes/s.
    vru_size: [u64; RESOURCES],
    /// Use not yet told: less than a milli-credit, or told when there is room.
    rest: [u64; RESOURCES],
    /// When it was measured last, nanoseconds.
    at_ns: u64,
    /// How it fares, as sensed last.
    sensed: Option<Box<SensorRow>>,
    /// Bit k: it has an objective on the [`vendue_wire::code::Kpi`] of number k.
    watched: u8,
}

impl Metered {
    /// Adds what was used up to `now_ns`, in parts of which a milli-credit has as many as a VRU's
    /// size says. It is a VRU for a millisecond: of m millicores, m microseconds of processor
    /// time; of m bytes, those held for a millisecond; of m bytes/s, m thousandths of a byte, and of
    /// m bits/s, of a bit.
    fn add(&mut self, used: &Usage, now_ns: u64) {
        let held_ms = now_ns.saturating_sub(self.at_ns) / 1_000_000;
        // What is less than a millisecond counts with the next measurement.
        self.at_ns += held_ms * 1_000_000;
        let parts = [
            (Resource::Cpu, used.cpu_us),
            (Resource::Memory, used.memory_bytes.saturating_mul(held_ms)),
            (Resource::BlockIo, used.io_bytes.saturating_mul(1000)),
            // A VRU's size is bits a second there.
            (Resource::Network, used.network_bytes.saturating_mul(8 * 1000)),
        ];
        for (resource, parts) in parts {
            // What an instance reserved nothing of is not paid.
            if self.vru_size[resource as usize] > 0 {
                let rest = &mut self.rest[resource as usize];
                *rest = rest.saturating_add(parts);
            }
        }
    }
}

/// The stage.
pub struct Actuate {
    /// Entitlements and questions, from publish.
    pub intents: Consumer,
    /// Measured use, to the sequencer.
    pub measured: Producer,
    /// Answers, to the gateway.
    pub answers: Producer,
    /// The host's levers and meters, but for those of memory.
    pub host: Host,
    /// Those of memory, until a thread has them.
    slow: Option<Host>,
    /// That thread.
    memory: Option<MemoryLane>,
    /// The forecaster, told what is measured.
    foresight: Foresight,
    /// What came of what was wanted.
    pub(super) outcomes: Outcomes,
    /// By tier, block devices that `io.max` governs.
    pub devices: Vec<Vec<Device>>,
    /// By tier, where disks of its storage class are.
    pub(super) storage: Vec<Option<PathBuf>>,
    /// By instance, its own tier.
    pub(super) homes: BTreeMap<u32, u16>,
    /// The tier whose storage an instance leases or leased last, and the size of a VRU there.
    pub(super) stored: BTreeMap<u32, (u16, u64)>,
    /// What is wrong with that.
    pub(super) misplaced: BTreeMap<u32, String>,
    /// By the place of their instances, the monitors of QEMUs.
    pub monitors: BTreeMap<String, PathBuf>,
    /// Time between measurements, nanoseconds.
    pub meter_ns: u64,
    /// Time between read-backs, nanoseconds.
    pub verify_ns: u64,
    /// Time between two looks at the sensors of an instance, nanoseconds.
    pub sense_ns: u64,
    metered: BTreeMap<u32, Metered>,
    /// What instances that are QEMUs are set to.
    pub(super) lanes: BTreeMap<u32, QemuLane>,
    /// Tiers, by their numbers among the instances.
    tiers: BTreeSet<u32>,
    faults: BTreeMap<u32, String>,
    /// What was said to be left out.
    lacking: BTreeSet<String>,
    /// VMs whose VMM applies what they are entitled to.
    cells: Cells,
    next_meter_ns: u64,
    next_verify_ns: u64,
    next_sense_ns: u64,
    /// The instance that is sensed next.
    sense_from: u32,
    next_write_ns: Option<u64>,
    /// The intent that is taken now; kept for its room.
    body: Vec<u8>,
    health: Arc<Health>,
    pub(super) clock: Clock,
}

impl Actuate {
    /// The stage over `host`.
    pub fn new(
        (intents, measured, answers): (Consumer, Producer, Producer),
        mut host: Host,
        (devices, monitors): (Vec<Vec<Device>>, BTreeMap<String, PathBuf>),
        (meter_ns, verify_ns, sense_ns): (u64, u64, u64),
        (health, clock): (Arc<Health>, Clock),
    ) -> Actuate {
        let now = clock.now_ns();
        let (slow, outcomes) = (host.split_memory(), Outcomes::new(host.quantum_ns()));
        Actuate {
            intents,
            measured,
            answers,
            host,
            slow,
            memory: None,
            foresight: Foresight::default(),
            outcomes,
            devices,
            storage: Vec::new(),
            homes: BTreeMap::new(),
            stored: BTreeMap::new(),
            misplaced: BTreeMap::new(),
            monitors,
            meter_ns,
            verify_ns,
            sense_ns,
            metered: BTreeMap::new(),
            lanes: BTreeMap::new(),
            tiers: BTreeSet::new(),
            faults: BTreeMap::new(),
            lacking: BTreeSet::new(),
            cells: Cells::default(),
            next_meter_ns: now + meter_ns,
            next_verify_ns: now + verify_ns,
            next_sense_ns: now + sense_ns,
            sense_from: 0,
            next_write_ns: None,
            body: Vec::new(),
            health,
            clock,
        }
    }

    /// Has forecasts made, of series that take so many bytes at most and outlast the daemon in `file`.
    pub fn foresee(&mut self, series_bytes_max: usize, file: PathBuf) {
        self.foresight = Foresight::wanted(series_bytes_max, Some(file));
    }

    /// Has disks moved between these directories, by tier.
    pub fn move_disks(&mut self, storage: Vec<Option<PathBuf>>) {
        self.storage = storage;
    }

    /// Takes intents, writes what is due, measures. True if there was something.
    pub fn turn(&mut self) -> bool {
        let mut moved = false;
        self.start_memory();
        while let Some(record) = take(&mut self.intents) {
            let tag = record.tag as u8;
            self.body.clear();
            self.body.extend_from_slice(record.bytes);
            moved = true;
            let body = std::mem::take(&mut self.body);
            self.take(tag, &body);
            self.body = body;
        }
        let now = self.clock.now_ns();
        if moved || self.next_write_ns.is_some_and(|due| due <= now) {
            self.next_write_ns = self.host.turn(now);
        }
        if now >= self.next_meter_ns {
            self.next_meter_ns = now + self.meter_ns;
            self.meter(now);
            if let Err(error) = self.foresight.turn(now, &mut self.measured) {
                let text = format!("nothing is foreseen: no thread could be started ({error})");
                self.health.report("actuate", text);
            }
            moved |= self.cells.look(&mut self.measured);
        }
        moved |= self.tell_history();
        if now >= self.next_sense_ns {
            self.sense(now);
        }
        if now >= self.next_verify_ns {
            self.next_verify_ns = now + self.verify_ns;
            self.host.verify(now, VERIFY_MAX);
            self.next_write_ns = self.host.turn(now);
            moved = true;
        }
        if self.outcomes.due_ns().is_some_and(|due| due <= now) {
            self.tell_outcomes(now);
            moved = true;
        }
        if moved {
            self.tell_health();
        }
        self.health.tell_faults(Part::Actuate as u32, &mut self.answers);
        self.measured.flush();
        self.answers.flush();
        moved
    }

    /// Time until something is due.
    pub fn due_in(&self) -> Duration {
        let due = self.next_meter_ns.min(self.next_verify_ns).min(self.next_sense_ns);
        let others = [self.next_write_ns, self.outcomes.due_ns()];
        let due = others.into_iter().flatten().fold(due, u64::min);
        let due = Duration::from_nanos(due.saturating_sub(self.clock.now_ns()));
        // The forecaster rings no bell.
        if self.foresight.is_asked() { due.min(ANSWER_PAUSE) } else { due }
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        match kind {
            InstanceCreated::KIND => {
                if let Ok(created) = InstanceCreated::ref_from_bytes(body) {
                    self.adopt(created);
                }
            }
            InstanceRemoved::KIND => {
                if let Ok(removed) = InstanceRemoved::ref_from_bytes(body) {
                    self.release(removed.instance.get());
                }
            }
            Entitled::KIND => {
                if let Ok(entitled) = Entitled::ref_from_bytes(body) {
                    self.want(entitled);
                }
            }
            Stored::KIND => {
                if let Ok(stored) = Stored::ref_from_bytes(body) {
                    self.store(stored);
                }
            }
            Weighted::KIND => {
                if let Ok(weighted) = Weighted::ref_from_bytes(body) {
                    self.weigh(weighted);
                }
            }
            AccountCapped::KIND => {
                if let Ok(capped) = AccountCapped::ref_from_bytes(body) {
                    self.cap(capped);
                }
            }
            InstanceFrozen::KIND => {
                if let Ok(frozen) = InstanceFrozen::ref_from_bytes(body) {
                    let (instance, now) = (frozen.instance.get(), self.clock.now_ns());
                    // An instance that could not be adopted is reported already.
                    let _ = self.host.freeze(instance, frozen.frozen.get() == 1, now);
                    self.outcomes.want(instance, Aim::Freeze, Resource::Cpu, now);
                }
            }
            Watched::KIND => {
                if let Ok(watched) = Watched::ref_from_bytes(body)
                    && let Some(metered) = self.metered.get_mut(&watched.instance.get())
                {
                    metered.watched = watched.kpis;
                }
            }
            Resized::KIND => {
                if let Ok(resized) = Resized::ref_from_bytes(body) {
                    self.resize(resized);
                }
            }
            Asked::KIND => {
                if let Ok(asked) = Asked::ref_from_bytes(body) {
                    self.answer(asked);
                }
            }
            _ => {}
        }
    }

    /// Gives memory's limits to a thread of their own: here, where the process is what it will be.
    fn start_memory(&mut self) {
        let Some(host) = self.slow.take() else { return };
        match MemoryLane::start(host, self.verify_ns) {
            Ok(lane) => self.memory = Some(lane),
            Err(error) => {
                let text = format!("memory is not limited: no thread could be started ({error})");
                self.health.report("actuate", text);
            }
        }
    }

    fn adopt(&mut self, created: &InstanceCreated) {
        let (instance, tier) = (created.instance.get(), created.tier.get());
        let (place, port) = split_place(text(&created.place));
        self.metered.insert(instance, Metered { at_ns: self.clock.now_ns(), ..Metered::default() });
        self.faults.remove(&instance);
        let home = Home { account: created.account.get(), tier };
        self.foresight.meet(instance, crc32c::crc32c(&created.as_bytes()[size_of::<u32>()..]));
        self.homes.insert(instance, tier);
        let devices = devices_of(&self.devices, tier);
        if let Err(error) = self.host.adopt(instance, home, place, devices) {
            self.faults.insert(
                instance,
                format!("instance {instance} is traded but not limited: {error}"),
            );
        }
        if let (Some(memory), Some(place)) = (&self.memory, self.host.place(instance)) {
            memory.adopt(instance, home, place);
        }
        for text in self.host.lacking(instance) {
            if self.lacking.insert(text.clone()) {
                tracing::warn!("{text}");
            }
        }
        match self.monitors.get(place).map(|monitor| QemuLane::start(monitor)) {
            Some(Ok(lane)) => drop(self.lanes.insert(instance, lane)),
            Some(Err(error)) => {
                let text = format!("instance {instance}: its QEMU cannot be driven: {error}");
                self.faults.insert(instance, text);
            }
            None => {}
        }
        // What is only decided is not told to a cell either.
        if let Some(port) = port
            && !self.host.is_dry_run()
            && let Err(error) = self.cells.adopt(instance, port, created.place)
        {
            self.faults.insert(instance, format!("instance {instance}'s cell is let be: {error}"));
        }
    }

    fn release(&mut self, instance: u32) {
        self.metered.remove(&instance);
        self.foresight.forget(instance);
        self.lanes.remove(&instance);
        self.cells.release(instance);
        self.outcomes.forget(instance);
        self.homes.remove(&instance);
        self.stored.remove(&instance);
        self.misplaced.remove(&instance);
        if let Some(memory) = &self.memory {
            memory.release(instance);
        }
        let adopted = self.faults.remove(&instance).is_none();
        if let Err(error) = self.host.release(instance)
            && adopted
        {
            self.health.report("actuate", error.to_string());
        }
    }

    fn want(&mut self, entitled: &Entitled) {
        let Some(resource) = Resource::from_u8(entitled.resource) else { return };
        let (instance, size) = (entitled.instance.get(), entitled.vru_size.get());
        if let Some(metered) = self.metered.get_mut(&instance) {
            metered.vru_size[resource as usize] = size;
        }
        let (vrus, now) = (entitled.vru.get(), self.clock.now_ns());
        let qemu = self.lanes.get(&instance);
        if qemu.is_some_and(|lane| lane.want(resource, vrus, size))
            || self.cells.want(instance, resource, vrus, size)
        {
            self.outcomes.want(instance, Aim::Vm, resource, now);
        }
        // A guest's memory is not its QEMU's: no cgroup could give or take it.
        if resource == Resource::Memory && qemu.is_some() {
            return;
        }
        // An instance that could not be adopted is reported already.
        let _ = self.host.want(instance, resource, vrus, size, now);
        let baseline = (entitled.baseline_vru.get().into(), size);
        let _ = self.host.reserve(instance, resource, baseline, now);
        self.want_memory(instance, resource, (vrus, size));
        self.outcomes.want(instance, Aim::Limit, resource, now);
    }

    /// The slow lane's part of what an instance or a tier that is held may use.
    fn want_memory(&self, number: u32, resource: Resource, (vrus, bytes): (u64, u64)) {
        if let Some(memory) = &self.memory
            && resource == Resource::Memory
            && self.host.place(number).is_some()
        {
            memory.want(number, vrus, bytes);
        }
    }

    fn weigh(&mut self, weighted: &Weighted) {
        let Some(resource) = Resource::from_u8(weighted.resource) else { return };
        let (instance, size) = (weighted.instance.get(), weighted.vru_size.get());
        let (vrus, now) = (weighted.weight_vru.get().into(), self.clock.now_ns());
        // An instance that could not be adopted is reported already.
        let _ = self.host.weigh(instance, resource, vrus, size, now);
        self.outcomes.want(instance, Aim::Weight, resource, now);
    }

    fn cap(&mut self, capped: &AccountCapped) {
        let (account, millicores) = (capped.account.get(), capped.millicores.get());
        self.faults.remove(&account_key(account, 0));
        if let Err(error) = self.host.cap(account, millicores.into(), self.clock.now_ns()) {
            let text = format!("account {account} is not capped: {error}");
            self.faults.insert(account_key(account, 0), text);
        }
        let now = self.clock.now_ns();
        // In each tier where it has instances.
        for number in self.host.accounts(0..=u32::MAX).filter(|key| key & 0xffff == account) {
            self.outcomes.want(number, Aim::Limit, Resource::Cpu, now);
        }
    }

    /// A tier's capacity is the cap of all its instances together.
    fn resize(&mut self, resized: &Resized) {
        let Some(resource) = Resource::from_u8(resized.resource) else { return };
        let (tier, now) = (resized.tier.get(), self.clock.now_ns());
        let number = TIER_BIT | u32::from(tier);
        let capacity = (resized.capacity_vru.get(), resized.vru_size.get());
        if capacity.0 == 0 {
            // Deleted: the first of its resources says it. What was wrong with it is over.
            if self.tiers.remove(&number) {
                self.release(number);
            }
            self.faults.remove(&number);
            return;
        }
        let devices = devices_of(&self.devices, tier);
        match self.host.resize_tier(tier, resource, capacity, devices, now) {
            Ok(()) => {
                self.tiers.insert(number);
                self.faults.remove(&number);
                self.want_memory(number, resource, capacity);
                self.outcomes.want(number, Aim::Limit, resource, now);
            }
            Err(error) => {
                self.faults.insert(number, format!("tier {tier} is not limited: {error}"));
            }
        }
    }

    /// Measures every instance and tells the sequencer what each used.
    fn meter(&mut self, now: u64) {
        for (&instance, metered) in &mut self.metered {
            let Ok(used) = self.host.sample(instance, now) else {
                // Time without a measurement is not paid.
                metered.at_ns = now;
                continue;
            };
            metered.add(&used, now);
            for &resource in Resource::ALL {
                let size = metered.vru_size[resource as usize];
                let rest = &mut metered.rest[resource as usize];
                let Some(milli @ 1..) = rest.checked_div(size) else { continue };
                self.foresight.note(instance, resource, milli);
                if tell_use(&mut self.measured, instance, resource, milli) {
                    *rest %= size;
                }
            }
        }
    }

    /// Looks at the sensors of some instances, going round; all of them come in turn within
    /// `sense_ns`.
    fn sense(&mut self, now: u64) {
        let Actuate { metered, host, cells, sense_from, measured, .. } = self;
        let sensed = SENSED_MAX.min(metered.len());
        let next = |from| metered.range(from..).map(|(&instance, _)| instance);
        let turn: Vec<u32> = next(*sense_from).chain(next(0)).take(sensed).collect();
        for instance in &turn {
            let row = host.sense(*instance, cells.counts(*instance), now).ok();
            if let Some(metered) = metered.get_mut(instance) {
                if let Some(row) = &row {
                    tell_kpis(measured, *instance, metered.watched, row);
                }
                metered.sensed = row.map(Box::new);
            }
        }
        *sense_from = turn.last().map_or(0, |last| last + 1);
        let share = self.sense_ns * sensed.max(1) as u64 / metered.len().max(1) as u64;
        self.next_sense_ns = now + share.max(1);
    }

    /// Tells what came of what was wanted.
    fn tell_outcomes(&mut self, now: u64) {
        let Actuate { outcomes, host, memory, lanes, cells, measured, .. } = self;
        let reached = |key: Key| -> Option<Reached> {
            match (key, &*memory) {
                ((number, Aim::Limit, Resource::Memory), Some(memory)) => memory.reached(number),
                ((instance, Aim::Storage, _), _) if is_stored(lanes, instance) => {
                    Some(lanes.get(&instance)?.stored()?.reached())
                }
                ((instance, Aim::Vm, resource), _) => match lanes.get(&instance) {
                    Some(qemu) => Some(qemu.standing(resource)?.reached()),
                    None => cells.reached(instance, resource),
                },
                _ => host.reached(key),
            }
        };
        outcomes.look(now, reached, measured);
    }

    fn tell_health(&mut self) {
        let mut counters = self.host.counters();
        let slow = self.memory.as_ref().map(MemoryLane::counters).unwrap_or_default();
        counters.written += slow.written;
        counters.spared += slow.spared;
        counters.failed += slow.failed;
        counters.drifted += slow.drifted;
        self.health.limits_written.set(counters.written);
        self.health.limits_spared.set(counters.spared);
        self.health.limits_failed.set(counters.failed);
        self.health.limits_drifted.set(counters.drifted);
        self.health.fragmentation_percent.set(self.host.fragmentation_percent().into());
        let mut texts: Vec<String> =
            self.host.faults().into_iter().map(|fault| fault.text).collect();
        texts.extend(self.memory.iter().flat_map(MemoryLane::faults));
        texts.extend(self.host.outside());
        texts.extend(self.faults.values().cloned().chain(self.cells.faults()).take(16));
        texts.extend(self.misplaced.values().take(16).cloned());
        texts.extend(self.lanes.values().filter_map(QemuLane::fault).take(16));
        self.health.restate("limits", &texts);
    }

    fn answer(&mut self, asked: &Asked) {
        match asked.kind {
            QuerySensors::KIND => self.answer_sensors(asked),
            QueryHistory::KIND if self.foresight.ask(asked) => {}
            QueryHistory::KIND => {
                self.send(asked, &QueryEnd { request: asked.request, next: u64::MAX.into() });
            }
            _ => self.answer_limits(asked),
        }
    }

    /// Passes on what the forecaster answered. True if it did.
    fn tell_history(&mut self) -> bool {
        let mut told = false;
        while let Some(Answer { asked, rows, next }) = self.foresight.answer() {
            told = true;
            for row in &rows {
                self.send(&asked, row);
            }
            self.send(&asked, &QueryEnd { request: asked.request, next: next.into() });
        }
        told
    }

    /// A page of sensors.
    fn answer_sensors(&mut self, asked: &Asked) {
        let from = asked.from.get() as u32;
        // As with limits.
        let to = if asked.narrow == 1 { from } else { u32::MAX };
        let sensed = self.metered.range(from..=to);
        let mut rows = sensed.filter_map(|(&at, metered)| Some((at, **metered.sensed.as_ref()?)));
        let page: Vec<SensorRow> = rows.by_ref().take(PAGE).map(|(_, row)| row).collect();
        let mut next = rows.next().map_or(u64::MAX, |(at, _)| at.into());
        if asked.narrow == 1 && asked.limit.get() != ANY {
            next = asked.limit.get().into();
        }
        for row in &page {
            self.send(asked, row);
        }
        self.send(asked, &QueryEnd { request: asked.request, next: next.into() });
    }

    /// A page of limits.
    fn answer_limits(&mut self, asked: &Asked) {
        let mut rows: Vec<LimitRow> = Vec::new();
        let mut next = u64::MAX;
        let from = asked.from.get() as u32;
        // The machine has found the one instance that may be shown, and the next.
        let to = if asked.narrow == 1 { from } else { u32::MAX };
        let instances = self.metered.range(from..=to).map(|(&at, _)| at);
        let accounts = self.host.accounts(from..=to);
        let tiers = self.tiers.range(from..=to).copied();
        let whole = self.host.whole().filter(|number| (from..=to).contains(number));
        for instance in instances.chain(accounts).chain(tiers).chain(whole) {
            if rows.len() >= PAGE {
                next = instance.into();
                break;
            }
            rows.extend(self.host.limits(instance));
            rows.extend(self.memory.iter().flat_map(|memory| memory.limits(instance)));
            rows.extend(self.lanes.get(&instance).into_iter().flat_map(|it| it.limits(instance)));
            rows.extend(self.cells.limits(instance));
        }
        if asked.narrow == 1 && asked.limit.get() != ANY {
            next = asked.limit.get().into();
        }
        for row in &rows {
            self.send(asked, row);
        }
        self.send(asked, &QueryEnd { request: asked.request, next: next.into() });
    }

    fn send<M: Body>(&mut self, asked: &Asked, body: &M) {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = frame::encode(0, body, &mut bytes);
        let head = Delivery { connection: asked.connection, slot: ANY.into() };
        // A full ring loses the answer; the client asks again.
        let _ = self.answers.try_push(TO_CONNECTION, &[head.as_bytes(), &bytes[..length]]);
    }
}

/// True if an instance is a QEMU whose disks were told where they belong.
fn is_stored(lanes: &BTreeMap<u32, QemuLane>, instance: u32) -> bool {
    lanes.get(&instance).is_some_and(|lane| lane.stored().is_some())
}

/// The block devices of a tier.
pub(super) fn devices_of(devices: &[Vec<Device>], tier: u16) -> &[Device] {
    devices.get(usize::from(tier)).map_or(&[], Vec::as_slice)
}

/// Tells what was measured of KPIs that an instance has objectives on. A full ring loses it: the next
/// look tells more.
fn tell_kpis(measured: &mut Producer, instance: u32, watched: u8, row: &SensorRow) {
    let of = |kpi| match kpi {
        Kpi::CpuWait => row.cpu_wait_permille,
        Kpi::Throttled => row.throttled_permille,
        Kpi::MemoryWait => row.memory_some_permille,
        Kpi::IoWait => row.io_some_permille,
        Kpi::Refaults => row.refaults_per_s,
        Kpi::IoLatency => row.io_wait_us,
        // Not the host's.
        Kpi::Latency | Kpi::Throughput => u32::MAX.into(),
    };
    let is_watched = |kpi: Kpi| watched >> kpi as u8 & 1 == 1;
    let values = HOST_KPIS.map(|kpi| if is_watched(kpi) { of(kpi) } else { u32::MAX.into() });
    if values.iter().all(|value| value.get() == u32::MAX) {
        return;
    }
    let kpis = command::HostKpis { instance: instance.into(), values };
    let parts = [Arrival::OWN.as_bytes(), kpis.as_bytes()];
    let _ = measured.try_push(command::HostKpis::KIND.into(), &parts);
}

/// False if the sequencer's ring is full: the use is told with the next measurement.
fn tell_use(measured: &mut Producer, instance: u32, resource: Resource, milli: u64) -> bool {
    let usage = command::Usage {
        used_millicredits: milli.into(),
        instance: instance.into(),
        resource: resource as u8,
        reserved: [0; 3],
    };
    let parts = [Arrival::OWN.as_bytes(), usage.as_bytes()];
    measured.try_push(command::Usage::KIND.into(), &parts).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_milli_credit_is_a_vru_for_a_millisecond_of_every_resource() {
        let mut metered = Metered { at_ns: 5_000_000, ..Metered::default() };
        metered.vru_size = [10, 16 << 20, 1 << 20, 1_000_000, 0];
        // 20% of a processor, 24 MiB and 3 MiB in half a second, told in two measurements.
        for now_ns in [255_600_000, 505_000_000] {
            let used = Usage {
                cpu_us: 50_000,
                memory_bytes: 24 << 20,
                io_bytes: 3 << 19,
                network_bytes: 250_000,
            };
            metered.add(&used, now_ns);
        }
        let milli = |resource| metered.rest[resource] / metered.vru_size[resource];
        assert_eq!([0, 1, 2, 3].map(milli), [10_000, 750, 3_000, 4_000]);
    }

    #[test]
    fn what_was_not_reserved_is_not_paid() {
        let mut metered = Metered::default();
        metered.vru_size[Resource::Cpu as usize] = 10;
        let used =
            Usage { cpu_us: 7, memory_bytes: 1 << 30, io_bytes: 1 << 30, network_bytes: 1 << 30 };
        metered.add(&used, 1_000_000_000);
        assert_eq!(metered.rest, [7, 0, 0, 0, 0]);
    }
}
