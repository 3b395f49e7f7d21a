//! Start-up: brings the state back from snapshot and journal, then makes every stage and connects
//! them. What runs the stages is not decided here: the daemon gives them threads.

use crate::apart::ApartError;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, HostKey, SyncKey};
use crate::gateway::access::Access;
use crate::gateway::connection::INBOUND_BYTES;
use crate::gateway::seal::Seals;
use crate::gateway::throttle::Bucket;
use crate::gateway::{listen, tls};
use crate::health::Health;
use crate::machine::Machine;
use crate::machine::command::{CloseSession, Command, Envelope, Restart};
use crate::pipeline::actuate::Actuate;
use crate::pipeline::execute::Execute;
use crate::pipeline::ingress::{Ingress, Reload};
use crate::pipeline::journal::{self, Journal};
use crate::pipeline::publish::Publish;
use crate::pipeline::record::Arrival;
use crate::pipeline::sequence::{Following, Sequence};
use crate::pipeline::{Doorbells, Rings, Threads};
use crate::storage::{
    self, Append, Log, LogConfig, LogError, Medium, RecoverError, Sync as LogSync, Verify, handover,
};
use crate::trail::{Clerk, Dirs, Herald, State, TrailError, start_records};
use crossbeam::channel::{Receiver, Sender};
use hvctl::cgroup::{CgroupHost, DetectError};
use hvctl::host::{Backend, Host, Options};
use hvctl::topology::Topology;
use mio::net::{TcpListener, UnixListener};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use toml::Spanned;
use vendue_wire::board::BoardWriter;
use vendue_wire::code::Resource;
use vendue_wire::doorbell::Doorbell;
use vendue_wire::message::{ANY, Body, NOTICE_BYTES_MAX, TAKE_MAX};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::IntoBytes;

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
    #[error(transparent)]
    Apart(#[from] ApartError),
    #[error("cannot {what}: {source}")]
    System { what: String, source: io::Error },
    #[error(
        "the configuration's {what} differs from the journal's in {}: these are fixed when a \
         journal begins; put the old value back, or use a new data_dir", dir.display()
    )]
    Changed { what: String, dir: PathBuf },
}

pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
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
        .filter(|&resource| {
            resource != Resource::BlockIo || config.devices().iter().any(|of| !of.is_empty())
        })
        .collect();
    let backend = match config.host.kind {
        HostKey::DryRun => Backend::DryRun,
        HostKey::Cgroup => {
            let parent = config.host.parent.to_string_lossy();
            let mut host = CgroupHost::detect(&parent, &resources)?;
            host.confine(config.hardware());
            let settings: &[&str] =
                if config.settings().is_empty() { &[] } else { &["pids", "hugetlb", "io"] };
            let placing: &[&str] = if config.placing().is_empty() { &[] } else { &["cpuset"] };
            host.wish(&[settings, placing].concat());
            Backend::Cgroup(host)
        }
    };
    let mut host = Host::new(backend, &resources, options);
    host.configure(config.settings());
    host.cost(&config.io_cost(), 0);
    if !config.placing().is_empty() {
        let root = Path::new("/sys/devices/system");
        let topology = Topology::read(root).map_err(system("read the processors' topology"))?;
        host.place_on(&topology, &config.placing());
    }
    Ok(host)
}

/// Where reloads go in, and out again where one was not taken yet.
pub type ReloadEnds = (Sender<Reload>, Receiver<Reload>);

/// What recovery leaves for the pipeline.
pub struct Recovered<M: Medium> {
    /// The machine, as the journal left it.
    pub machine: Machine,
    /// The rest of the state.
    pub state: State,
    /// The journal, open behind its last record.
    pub log: Log<M>,
}

/// Rebuilds the state from snapshot and journal, starts the journal anew behind it, and ends the
/// sessions that were connected when it ended.
///
/// # Errors
/// The journal or the newest snapshot cannot be used, or belongs to another configuration; the
/// text says what to do.
pub fn recover_state<M: Medium>(
    config: &Config,
    dirs: &Dirs<M>,
    health: &Health,
    clock: &Clock,
) -> Result<Recovered<M>, StartError> {
    let replay_bytes = *config.gateway.replay_bytes_max.get_ref();
    let (state, damaged) = State::newest(dirs, replay_bytes)?;
    // Stands until the next start, however many good snapshots follow.
    damaged.into_iter().for_each(|text| health.report("recovery", text));
    health.snapshot.set(state.point.sequence);
    let started = clock.instant();
    let (mut state, recovered) = replay(dirs, config.journal.mirror.as_deref(), state)?;
    for cut in &recovered.cuts {
        let (bytes, segment) = (cut.bytes, cut.segment.display());
        tracing::warn!("cut {bytes} bytes of a torn record from {segment}; it was never answered");
    }
    if let Some(rebuilt) = &recovered.rebuilt {
        tracing::warn!("rebuilt {} from the other copy of the journal", rebuilt.dir.display());
    }
    let through = recovered.last.sequence;
    let mut log = Log::open(log_config(config), recovered)?;
    // A crash may have come before the last of the start-up records.
    let (books, exchanges) = (config.books(), config.exchanges());
    let (credits, spare) = (config.unusual_credits(), config.spare_tiers());
    let start = start_records(&config.genesis(), &books, &credits, &exchanges, spare);
    check_unchanged(config, &state, through < start.len() as u64)?;
    for (kind, body) in start.iter().skip(through as usize) {
        record(&mut state, &mut log, clock, *kind, body)?;
    }
    let connected: Vec<u32> = state.machine.iter().flat_map(Machine::connected_sessions).collect();
    for slot in connected {
        let body = CloseSession { slot: slot.into() };
        record(&mut state, &mut log, clock, CloseSession::KIND, body.as_bytes())?;
    }
    if through > 0 {
        record(&mut state, &mut log, clock, Restart::KIND, &[])?;
    }
    while !log.idle() {
        log.wait()?;
    }
    let machine = state.machine.take().ok_or(TrailError::NoGenesis)?;
    machine.check_conservation();
    tracing::info!(
        records = through,
        took_ms = clock.instant().duration_since(started).as_millis() as u64,
        direct_io = log.direct(),
        "state recovered"
    );
    Ok(Recovered { machine, state, log })
}

/// Verifies and mends the journal, and executes what follows `state`. Without a mirror both are done
/// side by side: what is verified is executed by a thread of its own. With one, which side is whole
/// is known only when both have been looked at.
///
/// # Errors
/// The journal cannot be used; what else might be wrong with its records comes second.
pub fn replay<M: Medium>(
    dirs: &Dirs<M>,
    mirror: Option<&Path>,
    mut state: State,
) -> Result<(State, storage::Recovered<M>), StartError> {
    let (medium, journal, known) = (&dirs.medium, &dirs.journal, state.point);
    let recovered = if mirror.is_some() {
        let recovered = storage::recover(medium, journal, mirror, known)?;
        state.advance(dirs, recovered.last.sequence, Verify::Records, |_, _, _| true)?;
        recovered
    } else {
        let (handing, handed) = handover();
        let executed = &mut state;
        thread::scope(|scope| {
            let executing = thread::Builder::new()
                .name("replay".to_owned())
                .spawn_scoped(scope, move || executed.execute_all(&handed))
                .map_err(system("start a thread"))?;
            let recovered = storage::recover_handing(medium, journal, known, handing);
            let executed = executing.join().unwrap_or_else(|panic| resume_unwind(panic));
            let recovered = recovered?;
            executed?;
            Ok::<_, StartError>(recovered)
        })?
    };
    assert_eq!(state.point, recovered.last, "all that was recovered was executed");
    Ok((state, recovered))
}

fn log_config(config: &Config) -> LogConfig {
    LogConfig {
        segment_bytes: *config.journal.segment_bytes.get_ref(),
        buffer_bytes: *config.journal.buffer_bytes.get_ref(),
        sync: match config.journal.sync {
            SyncKey::Always => LogSync::Always,
            SyncKey::Never => LogSync::Never,
        },
    }
}

/// Executes and journals one of the daemon's own commands at start-up.
fn record<M: Medium>(
    state: &mut State,
    log: &mut Log<M>,
    clock: &Clock,
    kind: u8,
    body: &[u8],
) -> Result<(), StartError> {
    let sequence = log.last().sequence + 1;
    let time_ns = clock.now_ns().max(state.machine.as_ref().map_or(0, Machine::time_ns));
    let bytes = [Arrival::OWN.as_bytes(), body].concat();
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

/// Bounds and tiers are part of the journal: another configuration would replay differently. Of a
/// journal that had only begun there may be just the first.
fn check_unchanged(config: &Config, state: &State, begun: bool) -> Result<(), StartError> {
    let Some(machine) = &state.machine else { return Ok(()) };
    let changed =
        |what: &str| StartError::Changed { what: what.to_owned(), dir: config.data_dir.clone() };
    if *machine.genesis() != config.genesis() {
        return Err(changed("[machine]"));
    }
    let (defined, books) = (machine.definitions(), config.books());
    if !books.starts_with(defined) || (!begun && defined.len() < books.len()) {
        return Err(changed("[[tier]] list"));
    }
    if !begun && machine.credit_rules() != config.credits() {
        return Err(changed("[[tier]] list (launch_s, expiry_s, reserve_milli, ...)"));
    }
    let spare = config.spare_tiers().map(|spare| spare.from.get());
    if !begun && machine.first_spare() != spare {
        return Err(changed("[[tier]] list (spare)"));
    }
    let (defined, exchanges) = (machine.exchanges().1, config.exchanges());
    if !exchanges.starts_with(defined) || (!begun && defined.len() < exchanges.len()) {
        return Err(changed("[[exchange]] list"));
    }
    Ok(())
}

/// Every stage and the clerk, connected, and what runs them needs.
pub struct Stages<M: Medium> {
    /// Gateway thread, first.
    pub ingress: Ingress,
    /// All between the gateway and the actuator.
    pub core: Core<M>,
    /// A thread of its own.
    pub actuate: Actuate,
    /// Wakes it.
    pub actuate_bell: Doorbell,
    /// Where reloads go in.
    pub reloads: ReloadEnds,
}

/// What decides and remembers: every stage but those that peers and the host speak with.
pub struct Core<M: Medium> {
    /// Core thread, first.
    pub sequence: Sequence,
    /// Core thread, second.
    pub execute: Execute,
    /// A thread of its own.
    pub journal: Journal<M>,
    /// Gateway thread, second, or one of its own.
    pub publish: Publish,
    /// A thread of its own.
    pub clerk: Clerk<M>,
    /// A thread of its own.
    pub herald: Herald<M>,
    /// Of sequence and execute, of journal, and of publish; clerk and herald hold theirs.
    pub doorbells: [Doorbell; 3],
}

/// What the gateway is connected to the others by.
pub struct GatewayEnds {
    /// To sequence.
    pub requests: Producer,
    /// To the herald.
    pub subscriptions: Producer,
    /// From publish, actuate, the clerk and the herald.
    pub answers: [Consumer; 4],
    /// Rung by those.
    pub doorbell: Doorbell,
    /// The board, and its bytes.
    pub board: (OwnedFd, u32),
}

/// What the actuator is connected to the others by.
pub struct ActuateEnds {
    /// From publish.
    pub intents: Consumer,
    /// To sequence.
    pub measured: Producer,
    /// To the gateway.
    pub answers: Producer,
    /// Rung by publish.
    pub doorbell: Doorbell,
}

/// Makes every stage and connects them.
///
/// # Errors
/// No memory or descriptors are left, or a socket cannot be listened to.
pub fn make_stages<M: Medium>(
    config: &Config,
    dirs: &Dirs<M>,
    time: (&Arc<Health>, &Clock),
    access: Access,
    host: Host,
    recovered: Recovered<M>,
) -> Result<Stages<M>, StartError> {
    let threads = config.pipeline.threads.into();
    let (core, gateway, actuate) = make_core(config, dirs, time, recovered, threads)?;
    let (mut ingress, reloads) = make_ingress(config, gateway, access, time)?;
    let flushes = core.journal.log.as_ref().and_then(Log::watched);
    if let Some(flushes) = flushes.filter(|_| threads == Threads::One) {
        ingress.watch_flushes(flushes).map_err(system("watch the journal's flushes"))?;
    }
    let (actuate, actuate_bell) = make_actuate(config, actuate, host, time);
    Ok(Stages { ingress, core, actuate, actuate_bell, reloads })
}

/// Makes the stages of the core, and the ends that connect it to the others.
///
/// # Errors
/// No memory or descriptors are left.
pub fn make_core<M: Medium>(
    config: &Config,
    dirs: &Dirs<M>,
    (health, clock): (&Arc<Health>, &Clock),
    recovered: Recovered<M>,
    threads: Threads,
) -> Result<(Core<M>, GatewayEnds, ActuateEnds), StartError> {
    let bells = Doorbells::new(threads).map_err(system("make doorbells"))?;
    let rings = Rings::new(*config.pipeline.ring_bytes.get_ref(), threads, &bells)
        .map_err(system("make the rings"))?;
    let Recovered { machine, state, log } = recovered;
    let (last, time_ns) = (machine.sequence(), machine.time_ns());
    tell_health(health, &machine);
    let [from_publish, from_actuate, from_clerk, from_herald] = rings.replies;
    let board = BoardWriter::create(state.desk.market.books()).map_err(system("make the board"))?;
    let shown = (
        board.as_fd().try_clone_to_owned().map_err(system("share the board"))?,
        board.bytes() as u32,
    );
    let lazy = config.journal.sync == SyncKey::Never;
    let inputs = [rings.measured.1, rings.requests.1];
    let sequence_ends = (inputs, rings.digests.1, rings.to_journal.0, rings.to_execute.0);
    let sequence = make_sequence(config, sequence_ends, (last, time_ns), health, clock);
    let outputs = (rings.events.0, rings.digests.0);
    let mut execute = Execute::new(machine, rings.to_execute.1, outputs, health.clone());
    let publish = Publish {
        events: rings.events.1,
        durable_input: rings.durable.1,
        replies: from_publish.0,
        intents: rings.intents.0,
        clerk: rings.questions.0,
        board,
        desk: state.desk,
        // Where an answer does not wait for storage, everything may be told.
        durable: if lazy { u64::MAX } else { last },
        unshown: 1,
        held: Vec::new(),
        backlog: VecDeque::new(),
        overdue: BTreeMap::new(),
    };
    let publish = announce(&mut execute, publish);
    let ends = (rings.to_journal.1, rings.durable.0);
    let journal = make_journal(ends, log, lazy, (health, clock));
    let clerk_ends = (rings.questions.1, from_clerk.0);
    let clerk = make_clerk(config, clerk_ends, bells.clerk.1, dirs, health, clock);
    let herald_ends = (rings.subscriptions.1, from_herald.0);
    let herald = make_herald(config, herald_ends, bells.herald.1, dirs, health, clock);
    let gateway = GatewayEnds {
        requests: rings.requests.0,
        subscriptions: rings.subscriptions.0,
        answers: [from_publish.1, from_actuate.1, from_clerk.1, from_herald.1],
        doorbell: bells.gateway.1,
        board: shown,
    };
    let actuate = ActuateEnds {
        intents: rings.intents.1,
        measured: rings.measured.0,
        answers: from_actuate.0,
        doorbell: bells.actuate.1,
    };
    let doorbells = [bells.core.1, bells.journal.1, bells.publish.1];
    let core = Core { sequence, execute, journal, publish, clerk, herald, doorbells };
    Ok((core, gateway, actuate))
}

/// Passes on what the machine says of every instance, before any stage turns.
fn announce(execute: &mut Execute, mut publish: Publish) -> Publish {
    execute.machine.announce_all(&mut execute.outbox);
    publish.begin(execute.machine.sequence(), &execute.outbox);
    execute.outbox.clear();
    publish
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

fn make_sequence(
    config: &Config,
    (inputs, digests, journal, execute): ([Consumer; 2], Consumer, Producer, Producer),
    (sequence, time_ns): (u64, u64),
    health: &Arc<Health>,
    clock: &Clock,
) -> Sequence {
    Sequence {
        inputs,
        digests,
        journal,
        execute,
        health: health.clone(),
        clock: clock.clone(),
        sequence,
        time_ns,
        following: Following::begin(clock),
        tick_ns: *config.machine.tick_ms.get_ref() * 1_000_000,
        next_tick_ns: 0,
        digest: (0, 0),
    }
}

fn make_journal<M: Medium>(
    (input, durable): (Consumer, Producer),
    log: Log<M>,
    lazy: bool,
    (health, clock): (&Arc<Health>, &Clock),
) -> Journal<M> {
    let (health, clock) = (health.clone(), clock.clone());
    let told = log.last().sequence;
    let log = Some(log);
    let waiting_bytes = Vec::with_capacity(journal::RECORD_BYTES_MAX);
    let (waiting, since_ns) = (None, None);
    Journal { input, durable, log, waiting, waiting_bytes, health, told, since_ns, lazy, clock }
}

/// The actuator over `host`, and what wakes its thread.
pub fn make_actuate(
    config: &Config,
    ends: ActuateEnds,
    host: Host,
    (health, clock): (&Arc<Health>, &Clock),
) -> (Actuate, Doorbell) {
    let ActuateEnds { intents, measured, answers, doorbell } = ends;
    let meter_ns = *config.host.meter_ms.get_ref() * 1_000_000;
    let verify_ns = *config.host.verify_ms.get_ref() * 1_000_000;
    let sense_ns = *config.host.sense_ms.get_ref() * 1_000_000;
    let (ends, often) = ((intents, measured, answers), (meter_ns, verify_ns, sense_ns));
    let places = (config.devices(), config.monitors());
    let mut actuate = Actuate::new(ends, host, places, often, (health.clone(), clock.clone()));
    actuate.move_disks(config.storage());
    (actuate, doorbell)
}

fn make_clerk<M: Medium>(
    config: &Config,
    (questions, answers): (Consumer, Producer),
    doorbell: Doorbell,
    dirs: &Dirs<M>,
    health: &Arc<Health>,
    clock: &Clock,
) -> Clerk<M> {
    let every_records = *config.snapshot.every_records.get_ref();
    Clerk {
        questions,
        answers,
        doorbell,
        dirs: dirs.clone(),
        health: health.clone(),
        clock: clock.clone(),
        every_records,
        replay_bytes: *config.gateway.replay_bytes_max.get_ref(),
        due_at: health.snapshot.get() + every_records,
        open: None,
        backlog: VecDeque::new(),
    }
}

fn make_herald<M: Medium>(
    config: &Config,
    (subscriptions, frames): (Consumer, Producer),
    doorbell: Doorbell,
    dirs: &Dirs<M>,
    health: &Arc<Health>,
    clock: &Clock,
) -> Herald<M> {
    // What is on its way must never make its reader a slow one.
    let fit = *config.gateway.outbound_bytes_max.get_ref() / NOTICE_BYTES_MAX / 2;
    Herald {
        subscriptions,
        frames,
        doorbell,
        dirs: dirs.clone(),
        health: health.clone(),
        clock: clock.clone(),
        take_max: TAKE_MAX.min(fit as u32),
        runs: Vec::new(),
        backlog: VecDeque::new(),
    }
}

/// Opens the gateway's sockets; also gives the two ends that reloads need.
///
/// # Errors
/// A socket cannot be listened to, or TLS has no usable keys.
pub fn make_ingress(
    config: &Config,
    ends: GatewayEnds,
    access: Access,
    (health, clock): (&Arc<Health>, &Clock),
) -> Result<(Ingress, ReloadEnds), StartError> {
    let GatewayEnds { requests, subscriptions, answers, doorbell, board: (board, board_bytes) } =
        ends;
    let seals = Seals::new(config.gateway.token_keys.as_deref())?;
    let (reload, reloads) = crossbeam::channel::bounded(1);
    let unread = reloads.clone();
    let sessions = *config.machine.sessions_max.get_ref() as usize;
    let accounts = *config.machine.accounts_max.get_ref() as usize;
    let ingress = open_gateway(config, |poll, unix, tcp, tls| Ingress {
        poll,
        found: mio::Events::with_capacity(1024),
        doorbell,
        unix,
        tcp,
        tls,
        side: None,
        requests,
        subscriptions,
        answers,
        access,
        seals,
        keys: config.gateway.clone(),
        board,
        board_bytes,
        admitted: 0,
        accounts: vec![Bucket::full(clock.instant()); accounts].into(),
        connections: Vec::new(),
        holders: vec![ANY; sessions],
        closing: VecDeque::new(),
        deaf: VecDeque::new(),
        opening: Vec::new(),
        ended: VecDeque::new(),
        dirty: Vec::with_capacity(*config.gateway.connections_max.get_ref()),
        received: vec![0; INBOUND_BYTES].into(),
        turns_unpolled: 0,
        turned_at: clock.instant(),
        timers_at: clock.instant(),
        carried_at: clock.instant(),
        crowded: false,
        crowdings: 0,
        accept_again: false,
        reloads,
        health: health.clone(),
        clock: clock.clone(),
    })?;
    Ok((ingress, (reload, unread)))
}

/// Where TLS is spoken, and the keys it is spoken with.
type TlsListener = Option<(TcpListener, Arc<rustls::ServerConfig>)>;

/// Opens the listening sockets and registers them.
fn open_gateway(
    config: &Config,
    make: impl FnOnce(mio::Poll, UnixListener, Option<TcpListener>, TlsListener) -> Ingress,
) -> Result<Ingress, StartError> {
    let keys = &config.gateway.tls;
    // Before anyone is listened to.
    let loaded =
        keys.as_ref().map(|keys| tls::load(&keys.dir, tls::Clients::MustShow)).transpose()?;
    let path = &config.gateway.unix;
    let poll = mio::Poll::new().map_err(system("make a poll"))?;
    let unix = listen::unix(path).map_err(system(format!("listen on {}", path.display())))?;
    let refused = |address: SocketAddr| system(format!("listen on {address}"));
    let tcp = match config.gateway.tcp.as_ref().map(Spanned::get_ref) {
        Some(&address) => Some(listen::tcp(address).map_err(refused(address))?),
        None => None,
    };
    let tls = match keys.as_ref().zip(loaded) {
        Some((keys, loaded)) => {
            Some((listen::tls(keys.address).map_err(refused(keys.address))?, loaded))
        }
        None => None,
    };
    let mut ingress = make(poll, unix, tcp, tls);
    ingress.register().map_err(system("register the sockets"))?;
    Ok(ingress)
}
