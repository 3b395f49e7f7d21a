//! All instances of one host: what each may use, and when that is written.

mod account;
mod baseline;
mod freeze;
mod gate;
mod placement;
mod reached;
mod schedule;
mod settings;
mod slow;
mod storage;
mod turn;
mod vcpus;
mod whole;

pub use account::{Home, account_key};
use account::{is_account, shown_number};
use placement::Placement;
use schedule::{Schedule, Wait};
pub use whole::{ALL_TIERS, WHOLE_HOST};

use crate::cgroup::{CgroupHost, CgroupPlace, PlaceError};
use crate::dry_run::{DryRunError, DryRunPlace};
use crate::lever::{Failure, Lever, Standing, State, Verdict};
use crate::limit::{Device, Knob, Setting};
use crate::meter::{MeterError, Usage};
use crate::sense::VirtualCounts;
use crate::vcpu::VcpuError;
use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use vendue_wire::code::Resource;
use vendue_wire::message::{LimitRow, SensorRow, TIER_BIT, field_cut};

/// Where limits go.
#[derive(Debug)]
pub enum Backend {
    /// Into the kernel.
    Cgroup(CgroupHost),
    /// Into memory; every limit's state says so.
    DryRun,
}

/// Bounds and pace.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Least time between two writes of one limit, nanoseconds.
    pub quantum_ns: u64,
    /// Instances that may be held.
    pub instances_max: usize,
    /// Block devices of one instance.
    pub devices_max: usize,
    /// Writes that one [`Host::turn`] tries.
    pub writes_per_turn_max: u32,
    /// Faults that [`Host::faults`] lists.
    pub faults_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            quantum_ns: 250_000_000,
            instances_max: 16_384,
            devices_max: 8,
            writes_per_turn_max: 256,
            faults_max: 64,
        }
    }
}

/// Why an instance was not taken in, changed or let go.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// As many instances are held as may be.
    #[error("{0} instances are held, as many as host.instances_max allows; raise it")]
    Full(usize),
    /// The number is taken.
    #[error("instance {0} is already held")]
    Held(u32),
    /// The number is not known.
    #[error("instance {0} is not held")]
    UnknownInstance(u32),
    /// Two instances would write one group's limits.
    #[error("{place:?} is already held for {}; one group, one instance", called(*.instance))]
    PlaceTaken {
        /// The place.
        place: String,
        /// Who has it.
        instance: u32,
    },
    /// Too many block devices.
    #[error("{0} block devices are more than one instance may have")]
    TooManyDevices(usize),
    /// The place is not one for an instance.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The place is not one for a dry run.
    #[error(transparent)]
    DryRun(#[from] DryRunError),
    /// Its threads cannot have groups of their own.
    #[error("instance {instance}: {error}")]
    Vcpu {
        /// The instance.
        instance: u32,
        /// Why.
        error: VcpuError,
    },
    /// Let go, but a limit could not be lifted.
    #[error("instance {instance} was let go, but its {file} could not be lifted: {failure}")]
    NotLifted {
        /// The instance.
        instance: u32,
        /// The file.
        file: &'static str,
        /// Why.
        failure: Failure,
    },
    /// Let go with its limits lifted, but its group could not be removed.
    #[error(
        "instance {instance} was let go, but its group {path} stays ({errno}): end what runs in it, then rmdir it"
    )]
    NotRemoved {
        /// The instance.
        instance: u32,
        /// The group.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Limits that the kernel took.
    pub written: u64,
    /// Changes that needed no write: unchanged, or overtaken.
    pub spared: u64,
    /// Writes and read-backs that failed.
    pub failed: u64,
    /// Read-backs that differed from what was written.
    pub drifted: u64,
}

/// A fault that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose limit: an instance's, or what [`account_key`] says of an account.
    pub instance: u32,
    /// When it was first seen, nanoseconds.
    pub since_ns: u64,
    /// How often it was seen.
    pub count: u64,
    /// What is wrong.
    pub failure: Failure,
    /// What is wrong and what to do.
    pub text: String,
}

#[derive(Debug)]
enum Place {
    Cgroup(CgroupPlace),
    DryRun(DryRunPlace),
}

impl Place {
    fn write(&mut self, knob: Knob, setting: &Setting) -> Result<(), Failure> {
        match self {
            Place::Cgroup(place) => place.write(knob, setting),
            Place::DryRun(place) => {
                place.write(knob, setting);
                Ok(())
            }
        }
    }

    fn read(&mut self, knob: Knob) -> Result<Setting, Failure> {
        match self {
            Place::Cgroup(place) => place.read(knob),
            Place::DryRun(place) => Ok(place.read(knob)),
        }
    }

    /// Memory held now, bytes; nothing in a dry run, where no limit can hurt.
    fn memory_bytes(&self) -> Result<u64, Failure> {
        match self {
            Place::Cgroup(place) => place.memory_bytes(),
            Place::DryRun(_) => Ok(0),
        }
    }

    /// The group's directory, if there is one.
    fn dir(&self) -> Option<&Path> {
        match self {
            Place::Cgroup(place) => Some(place.dir()),
            Place::DryRun(_) => None,
        }
    }

    /// Asks the kernel to reclaim so many bytes; true if it did.
    fn reclaim(&self, bytes: u64) -> bool {
        match self {
            Place::Cgroup(place) => place.reclaim(bytes),
            Place::DryRun(_) => false,
        }
    }

    fn sample(&mut self) -> Result<Usage, MeterError> {
        let (meter, without) = match self {
            // A group whose counters cannot be opened is one that has gone.
            Place::Cgroup(place) => (place.meter(), MeterError::Gone),
            Place::DryRun(place) => (place.meter(), MeterError::NotMetered),
        };
        meter.ok_or(without)?.sample()
    }
}

#[derive(Debug)]
struct Instance {
    place: Place,
    /// As adopted; unique unless empty.
    name: String,
    levers: Vec<Lever>,
    /// Block devices of other tiers that it may use, or could; see [`Host::store`].
    away: Vec<Device>,
    /// Whose it is; of an account's own group, that account's.
    home: Home,
    /// It lives below its account's group.
    below: bool,
    /// The group has gone; a verification looks whether it is back.
    lost: bool,
    /// Steps of reclaim taken since `memory.high` was written.
    reclaims: u32,
    /// Where it is in the host's schedule.
    wait: Wait,
    /// It is noted there as one with a fault.
    is_faulty: bool,
}

impl Instance {
    fn lever(&self, knob: Knob) -> Option<&Lever> {
        self.levers.iter().find(|lever| lever.knob() == knob)
    }

    /// The group has gone.
    fn lose(&mut self, now_ns: u64) {
        self.lost = true;
        if let Place::Cgroup(place) = &mut self.place {
            place.close();
        }
        for lever in &mut self.levers {
            lever.moved(now_ns, None);
        }
    }

    /// Looks whether a lost group is back, and takes it up again if so.
    fn find(&mut self, now_ns: u64) -> bool {
        assert!(self.lost, "looked for a group that was not lost");
        if let Place::Cgroup(place) = &mut self.place
            && place.reopen().is_err()
        {
            return false;
        }
        self.lost = false;
        for lever in &mut self.levers {
            if let Ok(says) = self.place.read(lever.knob()) {
                lever.moved(now_ns, Some(says));
            }
        }
        true
    }
}

/// What people call it.
fn called(number: u32) -> String {
    match number.checked_sub(TIER_BIT) {
        Some(_) if number == WHOLE_HOST => "the host".to_owned(),
        Some(_) if number == ALL_TIERS => "all tiers".to_owned(),
        Some(tier) => format!("tier {tier}"),
        None if is_account(number) => {
            let Home { account, tier } = Home::of(number);
            format!("account {account} in tier {tier}")
        }
        None => format!("instance {number}"),
    }
}

/// The limits of one host. Owned by one thread.
#[derive(Debug)]
pub struct Host {
    backend: Backend,
    /// Resources that are limited here.
    resources: Vec<Resource>,
    options: Options,
    /// Another host makes and removes the groups; see [`Host::split_memory`].
    is_part: bool,
    page_bytes: u64,
    instances: BTreeMap<u32, Box<Instance>>,
    /// Caps on accounts' instances together, thousandths of a processor.
    caps: BTreeMap<u32, u64>,
    /// The instances that live below each account's group, by its [`account_key`]. Accounts that are
    /// in here, or capped and have instances in the tier, have their group held.
    below: BTreeMap<u32, BTreeSet<u32>>,
    /// By tier, what its instances are set to whatever they are entitled to.
    settings: BTreeMap<u16, Vec<(Knob, Setting)>>,
    placement: Placement,
    /// Who has which place; places without a name are nobody's.
    places: BTreeMap<String, u32>,
    /// When each instance with pending limits is to be served.
    schedule: Schedule,
    /// What was written and is to be read back, in order.
    unread: VecDeque<(u32, Knob)>,
    /// Where the next verification starts: instance, and index of its lever.
    cursor: (u32, usize),
    counters: Counters,
}

impl Host {
    /// An empty host that limits `resources`.
    pub fn new(backend: Backend, resources: &[Resource], options: Options) -> Host {
        let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        let mut resources = resources.to_vec();
        resources.sort_unstable();
        resources.dedup();
        Host {
            backend,
            resources,
            // A turn ends because what was tried or put off is due later, not now.
            options: Options { quantum_ns: options.quantum_ns.max(1), ..options },
            is_part: false,
            page_bytes: page_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096),
            instances: BTreeMap::new(),
            caps: BTreeMap::new(),
            below: BTreeMap::new(),
            settings: BTreeMap::new(),
            placement: Placement::default(),
            places: BTreeMap::new(),
            schedule: Schedule::default(),
            unread: VecDeque::new(),
            cursor: (0, 0),
            counters: Counters::default(),
        }
    }

    /// True if nothing is written to the kernel.
    pub fn is_dry_run(&self) -> bool {
        matches!(self.backend, Backend::DryRun)
    }

    /// Vendue's own subtree on cgroup v2; `None` in a dry run.
    pub fn subtree(&self) -> Option<&Path> {
        match &self.backend {
            Backend::Cgroup(host) => Some(host.subtree()),
            Backend::DryRun => None,
        }
    }

    /// Takes instance `instance` in at `place`: on cgroup v2 the absolute path of a group, or empty
    /// for a group of its own, below its account's if that is capped, else below its tier's; in a dry
    /// run `pid:N`, or any label. `devices` are the block devices its tier's `io.max` covers. Nothing
    /// is written until something is wanted.
    ///
    /// # Errors
    /// A bound is reached, the number or the place is taken, or the place is not one.
    pub fn adopt(
        &mut self,
        instance: u32,
        home: Home,
        place: &str,
        devices: &[Device],
    ) -> Result<(), HostError> {
        assert!(instance < account_key(0, 0), "an instance's number has 16 bits");
        if self.instances.contains_key(&instance) {
            return Err(HostError::Held(instance));
        }
        let held = self.instances.range(..account_key(0, 0)).count();
        if held >= self.options.instances_max {
            return Err(HostError::Full(held));
        }
        if devices.len() > self.options.devices_max {
            return Err(HostError::TooManyDevices(devices.len()));
        }
        let opened = self.open(instance, home, place);
        if opened.is_err() {
            self.drop_account(home);
        }
        let (opened, name, below) = opened?;
        let knobs = self.resources.iter().flat_map(|&resource| Knob::of(resource, devices));
        let mut knobs: Vec<Knob> = knobs.collect();
        let settings = self.offered(&opened, home.tier);
        knobs.extend(settings.iter().map(|&(knob, _)| knob));
        self.hold(instance, (opened, name), (home, below), knobs);
        self.settle(instance, &settings);
        Ok(())
    }

    /// Opens an instance's place; its name, and whether it is below the account's group.
    fn open(
        &mut self,
        instance: u32,
        home: Home,
        place: &str,
    ) -> Result<(Place, String, bool), HostError> {
        if self.caps.contains_key(&home.account.into()) {
            self.hold_account(home)?;
        }
        let (opened, below) = match &self.backend {
            Backend::Cgroup(host) => {
                let opened = host.open(instance, home, place)?;
                let below =
                    !self.is_part && opened.dir().parent() == Some(&host.account_group(home));
                (Place::Cgroup(opened), below)
            }
            Backend::DryRun => (Place::DryRun(DryRunPlace::open(place)?), false),
        };
        let name = match &opened {
            Place::Cgroup(opened) => opened.dir().to_string_lossy().into_owned(),
            Place::DryRun(_) => place.to_string(),
        };
        if let Some(&instance) = self.places.get(&name) {
            return Err(HostError::PlaceTaken { place: name, instance });
        }
        if below {
            self.hold_account(home)?;
            self.below.entry(home.key()).or_default().insert(instance);
        }
        Ok((opened, name, below))
    }

    /// Sets what all instances of a tier together may use of `resource`, and how much they weigh
    /// beside other tiers': as much as `vrus`, each of `vru_size`, do. It holds for instances whose
    /// groups are below the tier's, [`CgroupHost::tier_group`]. The first time makes that group;
    /// `devices` are as with [`Host::adopt`].
    ///
    /// # Errors
    /// The group cannot be made.
    pub fn resize_tier(
        &mut self,
        tier: u16,
        resource: Resource,
        (vrus, vru_size): (u64, u64),
        devices: &[Device],
        now_ns: u64,
    ) -> Result<(), HostError> {
        let number = TIER_BIT | u32::from(tier);
        if !self.instances.contains_key(&number) {
            let place = match &self.backend {
                Backend::Cgroup(host) if self.is_part => {
                    let group = host.tier_group(tier);
                    let home = Home { account: 0, tier };
                    Place::Cgroup(host.open(number, home, &group.to_string_lossy())?)
                }
                Backend::Cgroup(host) => Place::Cgroup(host.open_tier(tier)?),
                Backend::DryRun => Place::DryRun(DryRunPlace::open("")?),
            };
            let name = match &place {
                Place::Cgroup(place) => place.dir().to_string_lossy().into_owned(),
                Place::DryRun(_) => String::new(),
            };
            // A tier has no interfaces: what its instances may send together is not limited.
            let knobs = self.resources.iter().flat_map(|&resource| Knob::of(resource, devices));
            let knobs = knobs.filter(|knob| !matches!(knob, Knob::Network(_)));
            let knobs = knobs.chain(self.low_knob(tier)).chain(self.partition_knob(tier)).collect();
            self.hold(number, (place, name), (Home { account: 0, tier }, false), knobs);
            self.part(tier, now_ns);
            self.protect(Home { account: 0, tier }, now_ns);
        }
        let is_meant = |knob: Knob| knob.resource() == resource && knob.is_entitled();
        self.set(number, (vrus, vru_size), now_ns, is_meant)
    }

    /// Holds a group's limits from now on.
    fn hold(
        &mut self,
        number: u32,
        (mut place, name): (Place, String),
        (home, below): (Home, bool),
        knobs: Vec<Knob>,
    ) {
        if !name.is_empty() {
            self.places.insert(name.clone(), number);
        }
        let lever = |knob| Lever::new(knob, self.page_bytes, place.read(knob).ok());
        let levers = knobs.into_iter().map(lever).collect();
        let (lost, reclaims, wait, is_faulty) = (false, 0, Wait::Not, false);
        let away = Vec::new();
        let held =
            Instance { place, name, levers, away, home, below, lost, reclaims, wait, is_faulty };
        self.instances.insert(number, Box::new(held));
    }

    /// Lifts the limits of `instance` that Vendue set, at once, and lets it go. A group that
    /// Vendue made is removed; one that has gone already is no error.
    ///
    /// # Errors
    /// [`HostError::UnknownInstance`]. After the other errors it *is* let go, and the error says
    /// what was left behind.
    pub fn release(&mut self, instance: u32) -> Result<(), HostError> {
        let held = self.instances.remove(&instance).ok_or(HostError::UnknownInstance(instance))?;
        let home = held.home;
        let released = self.let_go(instance, *held);
        if instance < account_key(0, 0) {
            self.leave_account(instance, home);
            self.protect(home, 0);
        }
        released
    }

    /// Lifts the limits of what is held no more.
    fn let_go(&mut self, instance: u32, mut held: Instance) -> Result<(), HostError> {
        self.schedule.forget(instance, &mut held);
        let Instance { mut place, levers, name, .. } = held;
        if !name.is_empty() {
            assert_eq!(self.places.remove(&name), Some(instance), "a held place has its entry");
        }
        let mut left_behind = None;
        // The backstop is lifted before the level below it, as levers are ordered.
        for lever in levers.iter().filter(|lever| lever.wanted().is_some()) {
            let lifted = lever.knob().lifted();
            if lever.written().is_none() && lever.held() == Some(lifted) {
                continue;
            }
            match place.write(lever.knob(), &lifted) {
                Ok(()) => self.counters.written += 1,
                Err(Failure::Gone) => break,
                // What was never there was never limited.
                Err(Failure::Missing | Failure::NoDevice) if lever.written().is_none() => {}
                // A network ends with the last process that is in it.
                Err(Failure::NoInterface | Failure::NoQueue) => {}
                Err(failure) => {
                    self.counters.failed += 1;
                    let file = lever.knob().file();
                    left_behind = Some(HostError::NotLifted { instance, file, failure });
                }
            }
        }
        self.leave_cpus(instance, place.dir());
        if !self.is_part
            && let Place::Cgroup(place) = &mut place
            && let Err(errno) = place.remove()
        {
            let path = place.dir().to_path_buf();
            left_behind.get_or_insert(HostError::NotRemoved { instance, path, errno });
        }
        left_behind.map_or(Ok(()), Err)
    }

    /// Sets what `instance` may use of `resource`: `vrus`, each of `vru_size` (millicores,
    /// bytes, bytes/s). A resource without a file here changes nothing. Nothing is written
    /// before [`Host::turn`].
    ///
    /// # Errors
    /// [`HostError::UnknownInstance`].
    pub fn want(
        &mut self,
        instance: u32,
        resource: Resource,
        vrus: u64,
        vru_size: u64,
        now_ns: u64,
    ) -> Result<(), HostError> {
        self.set(instance, (vrus, vru_size), now_ns, |knob| {
            knob.resource() == resource && knob.is_entitled() && knob != Knob::CpuWeight
        })?;
        if resource == Resource::Cpu {
            self.place_cpus(instance, vrus.saturating_mul(vru_size));
        }
        Ok(())
    }

    /// Sets how much `instance` weighs beside others where `resource` is contended: as much as
    /// `vrus` do. The rest is as with [`Host::want`].
    ///
    /// # Errors
    /// [`HostError::UnknownInstance`].
    pub fn weigh(
        &mut self,
        instance: u32,
        resource: Resource,
        vrus: u64,
        vru_size: u64,
        now_ns: u64,
    ) -> Result<(), HostError> {
        self.set(instance, (vrus, vru_size), now_ns, |knob| {
            matches!(knob, Knob::CpuWeight) && knob.resource() == resource
        })
    }

    fn set(
        &mut self,
        instance: u32,
        (vrus, vru_size): (u64, u64),
        now_ns: u64,
        is_meant: impl Fn(Knob) -> bool,
    ) -> Result<(), HostError> {
        let held = self.instances.get_mut(&instance).ok_or(HostError::UnknownInstance(instance))?;
        let Instance { levers, away, .. } = &mut **held;
        let is_meant = |knob| is_meant(knob) && !storage::is_away(away, knob);
        for lever in levers.iter_mut().filter(|lever| is_meant(lever.knob())) {
            let setting = lever.knob().setting(vrus, vru_size, self.page_bytes);
            self.counters.spared += lever.want(setting, vrus, now_ns);
        }
        self.schedule.put(instance, held, now_ns);
        if held.below {
            let home = held.home;
            self.weigh_account(home, now_ns);
        }
        Ok(())
    }

    /// Reads up to `reads_max` limits back, going round all instances from call to call. A value
    /// that somebody else changed is counted, reported as a fault and due again; so is what
    /// failed before, and a group that is back. Returns how many were found changed.
    pub fn verify(&mut self, now_ns: u64, reads_max: u32) -> u32 {
        let (mut reads, mut drifted) = (0, 0);
        for _ in 0..self.instances.len() {
            let from = self.cursor.0;
            let next = self.instances.range(from..).next().or(self.instances.iter().next());
            let Some((&instance, _)) = next else { break };
            if instance != from {
                self.cursor = (instance, 0);
            }
            if reads >= reads_max {
                break;
            }
            drifted += self.verify_instance(instance, now_ns, reads_max, &mut reads);
            self.reschedule(instance, now_ns);
        }
        self.counters.drifted += u64::from(drifted);
        drifted
    }

    /// Goes on from the cursor through one instance's limits, and moves the cursor.
    fn verify_instance(
        &mut self,
        instance: u32,
        now_ns: u64,
        reads_max: u32,
        reads: &mut u32,
    ) -> u32 {
        let Some(held) = self.instances.get_mut(&instance) else {
            unreachable!("the cursor stands at a held instance")
        };
        let mut drifted = 0;
        if held.lost {
            *reads += 1;
            if !held.find(now_ns) {
                held.lose(now_ns);
            }
            self.cursor = (instance.wrapping_add(1), 0);
            return 0;
        }
        for index in self.cursor.1..held.levers.len() {
            if *reads >= reads_max {
                self.cursor = (instance, index);
                return drifted;
            }
            let knob = held.levers[index].knob();
            if held.levers[index].wanted().is_none() {
                continue;
            }
            *reads += 1;
            let says = held.place.read(knob);
            match held.levers[index].verified(now_ns, says) {
                Verdict::Settled => {}
                Verdict::Drifted => drifted += 1,
                Verdict::Failed => self.counters.failed += 1,
            }
            if says == Err(Failure::Gone) {
                held.lose(now_ns);
                break;
            }
        }
        self.cursor = (instance.wrapping_add(1), 0);
        drifted + self.keep_placed(instance)
    }

    /// Brings the schedule in line with the instance's levers.
    fn reschedule(&mut self, instance: u32, now_ns: u64) {
        let Some(held) = self.instances.get_mut(&instance) else { return };
        self.schedule.put(instance, held, now_ns);
    }

    /// Where `instance` is: its group's path, or the dry run's label.
    pub fn place(&self, instance: u32) -> Option<&str> {
        self.instances.get(&instance).map(|held| held.name.as_str())
    }

    /// What `instance` used since its last sample (the first: since it was adopted).
    ///
    /// # Errors
    /// The instance is unknown, has no counters, or has gone; a group that is back is metered
    /// again after the next [`Host::verify`].
    pub fn sample(&mut self, instance: u32, now_ns: u64) -> Result<Usage, MeterError> {
        let held = self.instances.get_mut(&instance).ok_or(MeterError::UnknownInstance)?;
        let sample = held.place.sample();
        let is_group = matches!(held.place, Place::Cgroup(_));
        if sample == Err(MeterError::Gone) && is_group && !held.lost {
            held.lose(now_ns);
            self.reschedule(instance, now_ns);
        }
        sample
    }

    /// How `instance` fares, between its last two samples; `machine` is what it counts itself, if it is
    /// a virtual machine. Of a process in a dry run only what `/proc` says is known.
    ///
    /// # Errors
    /// As with [`Host::sample`].
    pub fn sense(
        &mut self,
        instance: u32,
        machine: Option<VirtualCounts>,
        now_ns: u64,
    ) -> Result<SensorRow, MeterError> {
        let held = self.instances.get_mut(&instance).ok_or(MeterError::UnknownInstance)?;
        let row = match &mut held.place {
            Place::Cgroup(place) => place.sense(machine, now_ns),
            Place::DryRun(place) => place.sense(now_ns),
        };
        row.map(|row| SensorRow { instance: instance.into(), ..row })
    }

    /// The limits of `instance`, or of what [`account_key`] stands for: what is wanted, written and
    /// read back. Empty until something is wanted, and for what is not held.
    pub fn limits(&self, instance: u32) -> Vec<LimitRow> {
        let levers = self.instances.get(&instance).into_iter().flat_map(|held| &held.levers);
        levers.filter_map(|lever| self.row(instance, lever)).collect()
    }

    fn row(&self, instance: u32, lever: &Lever) -> Option<LimitRow> {
        let wanted = lever.wanted()?;
        let state = if self.is_dry_run() { State::DryRun } else { lever.state() };
        let shown = |setting: Option<Setting>| {
            let text = setting.map(|setting| setting.to_string()).unwrap_or_default();
            // The device of a line stands beside the file's name.
            let rates = text.split_once(" rbps=").or(text.split_once(" enable="));
            let rates = rates.map(|(device, _)| device.len() + 1);
            field_cut(&text[rates.unwrap_or(0)..])
        };
        Some(LimitRow {
            wanted_vru: lever.wanted_vru().into(),
            writes: lever.writes().into(),
            written_at_ns: lever.written_at_ns().into(),
            instance: shown_number(instance).into(),
            resource: lever.knob().resource() as u8,
            state: state as u8,
            of_account: is_account(instance).into(),
            reason: lever.effect().reason(),
            file: field_cut(&lever.knob().shown()),
            wanted: shown(Some(wanted)),
            written: shown(lever.written()),
            read_back: shown(lever.held()),
        })
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The faults that stand, in order of instance, up to the bound.
    pub fn faults(&self) -> Vec<Fault> {
        let standing = self.standing().take(self.options.faults_max);
        let fault = |(instance, lever, place, fault): (u32, &Lever, &str, Standing)| Fault {
            instance,
            since_ns: fault.since_ns,
            count: fault.count,
            failure: fault.failure,
            text: format!(
                "{}: {} in {place}: {}",
                called(instance),
                lever.knob().shown(),
                fault.failure
            ),
        };
        standing.map(fault).collect()
    }

    /// How many faults stand, beyond the bound too.
    pub fn faults_standing(&self) -> usize {
        self.standing().count()
    }

    fn standing(&self) -> impl Iterator<Item = (u32, &Lever, &str, Standing)> {
        debug_assert!(
            self.instances
                .values()
                .all(|held| { held.is_faulty == held.levers.iter().any(Lever::is_faulty) }),
            "a fault that is not noted"
        );
        let faulty = self.schedule.faulty();
        let held = faulty.filter_map(|instance| Some((instance, self.instances.get(&instance)?)));
        held.flat_map(|(instance, held)| {
            let faulty =
                move |lever| Some((instance, lever, held.name.as_str(), Lever::fault(lever)?));
            held.levers.iter().filter_map(faulty)
        })
    }
}

#[cfg(test)]
mod tests;
