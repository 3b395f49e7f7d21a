//! The daemon's life: recover, start the pipeline, serve until told to stop, drain, snapshot.

use crate::config::{Config, ConfigError, HostKey, SyncKey};
use crate::gateway::access::Access;
use crate::gateway::listen;
use crate::health::{Health, now_ns};
use crate::machine::Machine;
use crate::machine::command::{CloseSession, Command, Envelope, Restart};
use crate::pipeline::actuate::Actuate;
use crate::pipeline::execute::Execute;
use crate::pipeline::ingress::{Ingress, Reload};
use crate::pipeline::journal::Journal;
use crate::pipeline::publish::Publish;
use crate::pipeline::record::{Arrival, Outcome};
use crate::pipeline::sequence::Sequence;
use crate::pipeline::{self, Doorbells, Rings, Stage};
use crate::storage::{
    Append, Log, LogConfig, LogError, RecoverError, Sync as LogSync, Verify, recover,
};
use crate::trail::{Clerk, Dirs, State, TrailError, start_records};
use crossbeam::channel::{Receiver, Sender};
use hvctl::cgroup::{CgroupHost, DetectError};
use hvctl::host::{Backend, Host, Options};
use hvctl::limit::Device;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vendue_wire::board::BoardWriter;
use vendue_wire::code::Resource;
use vendue_wire::doorbell::Doorbell;
use vendue_wire::message::{ANY, Body};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::IntoBytes;

/// How long a stop waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says it")]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error(transparent)]
    Trail(#[from] TrailError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0} (a dry run decides and meters, but writes no limit)")]
    Host(#[from] DetectError),
    #[error("cannot {what}: {source}")]
    System { what: String, source: io::Error },
    #[error(
        "the configuration's {what} differs from the journal's in {}: these are fixed when a \
         journal begins; put the old value back, or use a new data_dir", dir.display()
    )]
    Changed { what: String, dir: PathBuf },
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what: what.into(), source }
}

/// The host's levers as the configuration wants them.
///
/// # Errors
/// Cgroup v2 cannot be written; the text says why.
pub fn open_host(config: &Config) -> Result<Host, StartError> {
    let quantum_ns = *config.host.quantum_ms.get_ref() * 1_000_000;
    let instances_max = *config.machine.instances_max.get_ref() as usize;
    let options = Options { quantum_ns, instances_max, ..Options::default() };
    let resources: Vec<Resource> = Resource::ALL
        .iter()
        .copied()
        .filter(|&resource| config.books().iter().any(|book| book.resource == resource as u8))
        .filter(|&resource| resource != Resource::BlockIo || !config.host.devices.is_empty())
        .collect();
    let backend = match config.host.kind {
        HostKey::DryRun => Backend::DryRun,
        HostKey::Cgroup => {
            let parent = config.host.parent.to_string_lossy();
            Backend::Cgroup(CgroupHost::detect(&parent, &resources)?)
        }
    };
    Ok(Host::new(backend, &resources, options))
}

/// Where reloads go in, and out again where one was not taken yet.
type ReloadEnds = (Sender<Reload>, Receiver<Reload>);

/// What recovery leaves for the pipeline.
struct Recovered {
    machine: Machine,
    state: State,
    log: Log,
}

/// Rebuilds the state from snapshot and journal, starts the journal anew behind it, and ends the
/// sessions that were connected when it ended.
fn recover_state(config: &Config, dirs: &Dirs, health: &Health) -> Result<Recovered, StartError> {
    let replay_bytes = *config.gateway.replay_bytes_max.get_ref();
    let (mut state, damaged) = State::newest(dirs, replay_bytes)?;
    // Stands until the next start, however many good snapshots follow.
    damaged.into_iter().for_each(|text| health.report("recovery", text));
    health.snapshot.set(state.point.sequence);
    let recovered = recover(&dirs.journal, config.journal.mirror.as_deref(), state.point)?;
    for cut in &recovered.cuts {
        let (bytes, segment) = (cut.bytes, cut.segment.display());
        tracing::warn!("cut {bytes} bytes of a torn record from {segment}; it was never answered");
    }
    if let Some(rebuilt) = &recovered.rebuilt {
        tracing::warn!("rebuilt {} from the other copy of the journal", rebuilt.dir.display());
    }
    let through = recovered.last.sequence;
    let log_config = LogConfig {
        segment_bytes: *config.journal.segment_bytes.get_ref(),
        buffer_bytes: *config.journal.buffer_bytes.get_ref(),
        sync: match config.journal.sync {
            SyncKey::Always => LogSync::Always,
            SyncKey::Never => LogSync::Never,
        },
    };
    let started = Instant::now();
    state.advance(dirs, through, Verify::Records, |_, _, _| true)?;
    let mut log = Log::open(log_config, recovered)?;
    if through == 0 {
        for (kind, body) in start_records(&config.genesis(), &config.books()) {
            record(&mut state, &mut log, kind, &body)?;
        }
    }
    check_unchanged(config, &state)?;
    let connected: Vec<u32> = state.machine.iter().flat_map(Machine::connected_sessions).collect();
    for slot in connected {
        let body = CloseSession { slot: slot.into() };
        record(&mut state, &mut log, CloseSession::KIND, body.as_bytes())?;
    }
    if through > 0 {
        record(&mut state, &mut log, Restart::KIND, &[])?;
    }
    while !log.idle() {
        log.wait()?;
    }
    let machine = state.machine.take().ok_or(TrailError::NoGenesis)?;
    machine.check_conservation();
    tracing::info!(
        records = through,
        took_ms = started.elapsed().as_millis() as u64,
        direct_io = log.direct(),
        "state recovered"
    );
    Ok(Recovered { machine, state, log })
}

/// Executes and journals one of the daemon's own commands at start-up.
fn record(state: &mut State, log: &mut Log, kind: u8, body: &[u8]) -> Result<(), StartError> {
    let sequence = log.last().sequence + 1;
    let time_ns = now_ns().max(state.machine.as_ref().map_or(0, Machine::time_ns));
    let arrival = Arrival { request: 0.into(), session: ANY.into(), connection: ANY.into() };
    let bytes = [arrival.as_bytes(), body].concat();
    loop {
        match log.append(sequence, time_ns, ANY, kind, &bytes) {
            Ok(()) => break,
            Err(Append::Full) => {
                log.poll()?;
                log.wait()?;
            }
            Err(Append::Stopped(error)) => return Err(error.into()),
        }
    }
    log.poll()?;
    let Ok(command) = Command::parse(kind, body) else {
        panic!("the daemon's own command of kind {kind:#x} is malformed")
    };
    let env = Envelope { sequence, time_ns, request: 0, session: ANY, connection: ANY };
    state.apply(&env, &command)?;
    state.point = log.last();
    Ok(())
}

/// Bounds and tiers are part of the journal: another configuration would replay differently.
fn check_unchanged(config: &Config, state: &State) -> Result<(), StartError> {
    let Some(machine) = &state.machine else { return Ok(()) };
    let changed =
        |what: &str| StartError::Changed { what: what.to_owned(), dir: config.data_dir.clone() };
    if *machine.genesis() != config.genesis() {
        return Err(changed("[machine]"));
    }
    if machine.definitions() != config.books() {
        return Err(changed("[[tier]] list"));
    }
    Ok(())
}

/// A running daemon.
pub struct Daemon {
    health: Arc<Health>,
    /// Stops the core and the actuator.
    halted: Arc<AtomicBool>,
    /// Stops the journal, the gateway and the clerk, after them.
    halted_last: Arc<AtomicBool>,
    gateway: std::thread::JoinHandle<Vec<Stage>>,
    others: Vec<std::thread::JoinHandle<Vec<Stage>>>,
    journal: std::thread::JoinHandle<Vec<Stage>>,
    clerk: std::thread::JoinHandle<Clerk>,
    socket: PathBuf,
    reload: Sender<Reload>,
    /// Takes back a reload that the gateway has not taken.
    unread: Receiver<Reload>,
}

impl Daemon {
    /// Recovers and starts every thread. When it returns, peers are served.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(config: &Config) -> Result<Daemon, StartError> {
        let host = open_host(config)?;
        let sync = config.journal.sync == SyncKey::Always;
        let health = Arc::new(Health::new(host.is_dry_run(), sync));
        let dirs = Dirs::below(&config.data_dir);
        std::fs::create_dir_all(&config.data_dir)
            .map_err(system(format!("make {}", config.data_dir.display())))?;
        let access = Access::load(&config.access)?;
        let recovered = recover_state(config, &dirs, &health)?;
        let bells = Doorbells::new().map_err(system("make doorbells"))?;
        let rings = Rings::new(*config.pipeline.ring_bytes.get_ref(), &bells)
            .map_err(system("make the rings"))?;
        wire_up(config, &dirs, &health, access, host, recovered, bells, rings)
    }

    /// The daemon's state, shared.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Reads the configuration again and takes over what can change while running. Returns what
    /// differs but needs a restart.
    ///
    /// # Errors
    /// The new configuration is refused; the old one stays.
    pub fn reload(&self, old: &Config, new: &Config) -> Result<Vec<String>, ConfigError> {
        let access = Access::load(&new.access)?;
        // The gateway takes it within a second; what it has not taken by now is out of date.
        let _ = self.unread.try_recv();
        let _ = self.reload.try_send(Reload { access, keys: new.gateway.clone() });
        Ok(needs_restart(old, new))
    }

    /// Drains, stops every thread, closes the journal and writes a snapshot.
    ///
    /// # Errors
    /// The journal could not be closed whole; the text says why.
    pub fn stop(self) -> Result<(), String> {
        self.health.stop();
        self.drain();
        let gone = || "a stage has panicked".to_owned();
        self.halted.store(true, Ordering::Release);
        for thread in self.others {
            thread.join().map_err(|_| gone())?;
        }
        // Nothing is sequenced any more: the journal closes behind the last record.
        self.halted_last.store(true, Ordering::Release);
        self.journal.join().map_err(|_| gone())?;
        for stage in self.gateway.join().map_err(|_| gone())? {
            if let Stage::Ingress(mut ingress) = stage {
                ingress.close_all();
            }
        }
        let mut clerk = self.clerk.join().map_err(|_| gone())?;
        if self.health.accepting() {
            clerk.snapshot();
        }
        let _ = std::fs::remove_file(&self.socket);
        if self.health.accepting() { Ok(()) } else { Err("the journal had stopped".to_owned()) }
    }

    /// Waits until everything sequenced is executed and durable, and stays so for a moment.
    fn drain(&self) {
        let start = Instant::now();
        let mut quiet = 0;
        let mut last = 0;
        while quiet < 3 && start.elapsed() < DRAIN {
            std::thread::sleep(Duration::from_millis(20));
            let sequenced = self.health.sequenced.get();
            let done = self.health.durable.get() >= last && self.health.executed.get() >= last;
            quiet = if done || !self.health.accepting() { quiet + 1 } else { 0 };
            last = sequenced;
        }
    }
}

/// Names the sections that differ in more than what a reload takes over.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let names: BTreeSet<&String> = old.table.keys().chain(new.table.keys()).collect();
    let differs = |name: &&String| strip(&old.table, name) != strip(&new.table, name);
    names.into_iter().filter(differs).map(|name| format!("[{name}]")).collect()
}

/// A section without what a reload takes over.
fn strip(table: &toml::Table, name: &str) -> Option<toml::Value> {
    let mut section = table.get(name)?.clone();
    match (name, &mut section) {
        ("access" | "log", _) => return None,
        ("gateway", toml::Value::Table(gateway)) => {
            gateway.remove("throttle_per_s");
            gateway.remove("throttle_burst");
        }
        _ => {}
    }
    Some(section)
}

/// Makes every stage, connects them, starts their threads.
#[allow(clippy::too_many_arguments, reason = "the parts of the whole, once")]
fn wire_up(
    config: &Config,
    dirs: &Dirs,
    health: &Arc<Health>,
    access: Access,
    host: Host,
    recovered: Recovered,
    bells: Doorbells,
    rings: Rings,
) -> Result<Daemon, StartError> {
    let Recovered { mut machine, state, log } = recovered;
    let (last, time_ns) = (machine.sequence(), machine.time_ns());
    tell_health(health, &machine);
    let [from_publish, from_actuate, from_clerk] = rings.replies;
    let board = BoardWriter::create(state.desk.books()).map_err(system("make the board"))?;
    let shown = (
        board.as_fd().try_clone_to_owned().map_err(system("share the board"))?,
        board.bytes() as u32,
    );
    let mut outbox = machine.outbox();
    machine.announce_all(&mut outbox);
    let mut publish = Publish {
        events: rings.events.1,
        durable_input: rings.durable.1,
        replies: from_publish.0,
        intents: rings.intents.0,
        clerk: rings.questions.0,
        board,
        desk: state.desk,
        durable: last,
        held: Vec::new(),
        backlog: VecDeque::new(),
        overdue: BTreeMap::new(),
    };
    publish.begin(last, &outbox);
    outbox.clear();
    let sequence = Sequence {
        inputs: [rings.measured.1, rings.requests.1],
        digests: rings.digests.1,
        journal: rings.to_journal.0,
        execute: rings.to_execute.0,
        health: health.clone(),
        sequence: last,
        time_ns,
        tick_ns: *config.machine.tick_ms.get_ref() * 1_000_000,
        next_tick_ns: 0,
        digest: (0, 0),
    };
    let execute = Execute {
        input: rings.to_execute.1,
        events: rings.events.0,
        digests: rings.digests.0,
        machine,
        outbox,
        handed: 0,
        outcome: Outcome { sequence: last.into(), time_ns: time_ns.into() },
        health: health.clone(),
    };
    let journal = make_journal(rings.to_journal.1, rings.durable.0, log, health.clone());
    let actuate = make_actuate(
        config,
        (rings.intents.1, rings.measured.0, from_actuate.0),
        host,
        health.clone(),
    );
    let clerk_ends = (rings.questions.1, from_clerk.0);
    let clerk = make_clerk(config, clerk_ends, bells.clerk.1, dirs, health);
    let answers = [from_publish.1, from_actuate.1, from_clerk.1];
    let ends = (rings.requests.0, answers);
    let (ingress, reload) = make_ingress(config, ends, bells.gateway.1, access, shown, health)?;
    let stages = Stages {
        gateway: vec![Stage::Ingress(Box::new(ingress)), Stage::Publish(Box::new(publish))],
        core: vec![Stage::Sequence(Box::new(sequence)), Stage::Execute(Box::new(execute))],
        journal: vec![Stage::Journal(Box::new(journal))],
        actuate: vec![Stage::Actuate(Box::new(actuate))],
        clerk,
    };
    let doorbells = [bells.core.1, bells.journal.1, bells.actuate.1];
    start_threads(config, health, stages, doorbells, reload)
}

/// Which stages share a thread.
struct Stages {
    gateway: Vec<Stage>,
    core: Vec<Stage>,
    journal: Vec<Stage>,
    actuate: Vec<Stage>,
    clerk: Clerk,
}

fn tell_health(health: &Health, machine: &Machine) {
    let last = machine.sequence();
    health.sequenced.set(last);
    health.durable.set(last);
    health.executed.set(last);
    health.trades.set(machine.trades());
    health.orders.set(machine.open_orders().into());
    let (accounts, instances) = machine.census();
    health.accounts.set(accounts.into());
    health.instances.set(instances.into());
}

fn make_journal(input: Consumer, durable: Producer, log: Log, health: Arc<Health>) -> Journal {
    let told = log.last().sequence;
    Journal { input, durable, log: Some(log), waiting: None, health, told }
}

fn make_actuate(
    config: &Config,
    ends: (Consumer, Producer, Producer),
    host: Host,
    health: Arc<Health>,
) -> Actuate {
    let devices: Vec<Device> =
        config.host.devices.iter().filter_map(|text| Device::parse(text.get_ref())).collect();
    let meter_ns = *config.host.meter_ms.get_ref() * 1_000_000;
    let verify_ns = *config.host.verify_ms.get_ref() * 1_000_000;
    Actuate::new(ends, host, devices, (meter_ns, verify_ns), health)
}

fn make_clerk(
    config: &Config,
    (questions, answers): (Consumer, Producer),
    doorbell: Doorbell,
    dirs: &Dirs,
    health: &Arc<Health>,
) -> Clerk {
    let every_records = *config.snapshot.every_records.get_ref();
    Clerk {
        questions,
        answers,
        doorbell,
        dirs: dirs.clone(),
        health: health.clone(),
        every_records,
        replay_bytes: *config.gateway.replay_bytes_max.get_ref(),
        due_at: health.snapshot.get() + every_records,
        open: None,
    }
}

/// Opens the gateway's sockets; also gives the two ends that reloads need.
fn make_ingress(
    config: &Config,
    (requests, answers): (Producer, [Consumer; 3]),
    doorbell: Doorbell,
    access: Access,
    (board, board_bytes): (OwnedFd, u32),
    health: &Arc<Health>,
) -> Result<(Ingress, ReloadEnds), StartError> {
    let (reload, reloads) = crossbeam::channel::bounded(1);
    let unread = reloads.clone();
    let sessions = *config.machine.sessions_max.get_ref() as usize;
    let ingress = open_gateway(config, |poll, unix, tcp| Ingress {
        poll,
        found: mio::Events::with_capacity(1024),
        doorbell,
        unix,
        tcp,
        requests,
        answers,
        access,
        keys: config.gateway.clone(),
        board,
        board_bytes,
        admitted: 0,
        connections: Vec::new(),
        holders: vec![ANY; sessions],
        closing: VecDeque::new(),
        ended: VecDeque::new(),
        dirty: Vec::new(),
        turned_at: Instant::now(),
        timers_at: Instant::now(),
        reloads,
        health: health.clone(),
    })?;
    Ok((ingress, (reload, unread)))
}

/// Starts a thread for each group of stages.
fn start_threads(
    config: &Config,
    health: &Arc<Health>,
    stages: Stages,
    doorbells: [Doorbell; 3],
    (reload, unread): ReloadEnds,
) -> Result<Daemon, StartError> {
    let halted = Arc::new(AtomicBool::new(false));
    let halted_last = Arc::new(AtomicBool::new(false));
    let [core_bell, journal_bell, actuate_bell] = doorbells;
    let mut clerk = stages.clerk;
    let keys = &config.pipeline;
    // The gateway waits in its poll: its doorbell is registered there, this one is never rung.
    let (_, unused) = vendue_wire::doorbell::pair().map_err(system("make a doorbell"))?;
    let started = |name: &'static str| system(format!("start the thread {name}"));
    let start = pipeline::start;
    let clerk_halted = halted_last.clone();
    Ok(Daemon {
        health: health.clone(),
        journal: start("journal", stages.journal, journal_bell, &keys.journal, &halted_last)
            .map_err(started("journal"))?,
        others: vec![
            start("core", stages.core, core_bell, &keys.core, &halted).map_err(started("core"))?,
            start("actuate", stages.actuate, actuate_bell, &keys.actuate, &halted)
                .map_err(started("actuate"))?,
        ],
        gateway: start("gateway", stages.gateway, unused, &keys.gateway, &halted_last)
            .map_err(started("gateway"))?,
        clerk: std::thread::Builder::new()
            .name("clerk".to_owned())
            .spawn(move || {
                clerk.run(|| clerk_halted.load(Ordering::Acquire));
                clerk
            })
            .map_err(started("clerk"))?,
        halted,
        halted_last,
        socket: config.gateway.unix.clone(),
        reload,
        unread,
    })
}

/// Opens the listening sockets and registers them.
fn open_gateway(
    config: &Config,
    make: impl FnOnce(mio::Poll, mio::net::UnixListener, Option<mio::net::TcpListener>) -> Ingress,
) -> Result<Ingress, StartError> {
    let path = &config.gateway.unix;
    let poll = mio::Poll::new().map_err(system("make a poll"))?;
    let unix = listen::unix(path).map_err(system(format!("listen on {}", path.display())))?;
    let tcp = match &config.gateway.tcp {
        Some(address) => Some(
            listen::tcp(*address.get_ref())
                .map_err(system(format!("listen on {}", address.get_ref())))?,
        ),
        None => None,
    };
    let mut ingress = make(poll, unix, tcp);
    ingress.register().map_err(system("register the sockets"))?;
    Ok(ingress)
}
