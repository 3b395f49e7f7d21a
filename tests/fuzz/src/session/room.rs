//! The daemon without its threads: the stages between the sockets and the machine, and stand-ins
//! for the disk and the host.

use super::peer::Peer;
use crossbeam::channel::{Receiver, Sender};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use vendue_engine::clock::Clock;
use vendue_engine::config::{Config, DEFAULT};
use vendue_engine::desk::Desk;
use vendue_engine::gateway::connection::INBOUND_BYTES;
use vendue_engine::gateway::{access::Access, listen, seal::Seals, throttle::Bucket};
use vendue_engine::health::Health;
use vendue_engine::machine::Machine;
use vendue_engine::pipeline::execute::Execute;
use vendue_engine::pipeline::ingress::{Ingress, Reload, TURNS_PER_POLL};
use vendue_engine::pipeline::publish::Publish;
use vendue_engine::pipeline::record::{Ordered, split, take};
use vendue_engine::pipeline::sequence::{Following, Sequence};
use vendue_engine::pipeline::{Doorbells, Rings, Threads};
use vendue_tests::duel::NARROW;
use vendue_tests::room::Room;
use vendue_wire::board::BoardWriter;
use vendue_wire::code::Role;
use vendue_wire::message::{ANY, U64};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::IntoBytes;

/// Bytes of each ring between stages.
const RING_BYTES: usize = 128 << 10;
/// Reports kept a session.
const REPLAY_BYTES: usize = 1 << 10;
/// Turns after which everything that was said must have been answered.
const TURNS_MAX: usize = 20_000;
/// Idle turns after which nothing more will move: sockets are not looked at in each.
const QUIET_TURNS: usize = TURNS_PER_POLL as usize + 8;
/// No tick but those asked for.
const NEVER_NS: u64 = 1 << 62;

/// Accounts and instances there are: each account has the instances of its parity.
pub const ACCOUNTS: u32 = 2;
pub const INSTANCES: u32 = 4;

/// The stages.
pub struct House {
    ingress: Ingress,
    sequence: Sequence,
    execute: Execute,
    publish: Publish,
    /// The disk: commands to write, and how far they are durable.
    disk: (Consumer, Producer),
    written: u64,
    /// While the disk answers nothing, nothing new may be seen.
    pub stalled: bool,
    /// What the host and the clerk are asked, and the ends of theirs that nobody uses.
    asked: [Consumer; 3],
    _silent: ([Producer; 4], Sender<Reload>, Doorbells),
    socket: PathBuf,
}

impl House {
    /// A house with accounts, funds and credits, and nobody in it.
    pub fn open() -> House {
        let socket = socket();
        let _ = std::fs::remove_file(&socket);
        let machine = machine();
        let health = Arc::new(Health::new(true, true, Clock::Host));
        let bells = Doorbells::new(Threads::Each).expect("doorbells");
        let rings = Rings::new(RING_BYTES, Threads::Each, &bells).expect("rings");
        let [from_publish, from_actuate, from_clerk, from_herald] = rings.replies;
        let last = machine.sequence();
        let mut desk = Desk::new(NARROW.sessions_max, REPLAY_BYTES);
        NARROW.definitions().iter().for_each(|book| desk.market.add_book(book));
        let board = BoardWriter::create(desk.market.books()).expect("a board");
        let answers = [from_publish.1, from_actuate.1, from_clerk.1, from_herald.1];
        let (reload, reloads) = crossbeam::channel::bounded(1);
        let ingress = ingress(
            &socket,
            (rings.requests.0, rings.subscriptions.0, answers),
            &board,
            reloads,
            &health,
        );
        let time_ns = machine.time_ns();
        House {
            ingress,
            sequence: Sequence {
                inputs: [rings.measured.1, rings.requests.1],
                digests: rings.digests.1,
                journal: rings.to_journal.0,
                execute: rings.to_execute.0,
                health: health.clone(),
                clock: Clock::Host,
                sequence: last,
                time_ns,
                following: Following::begin(&Clock::Host),
                tick_ns: NEVER_NS,
                next_tick_ns: u64::MAX,
                digest: (0, 0),
            },
            execute: Execute::new(
                machine,
                rings.to_execute.1,
                (rings.events.0, rings.digests.0),
                health,
            ),
            publish: Publish {
                events: rings.events.1,
                durable_input: rings.durable.1,
                replies: from_publish.0,
                intents: rings.intents.0,
                clerk: rings.questions.0,
                board,
                desk,
                durable: last,
                unshown: 1,
                held: Vec::new(),
                backlog: VecDeque::new(),
                overdue: BTreeMap::new(),
            },
            disk: (rings.to_journal.1, rings.durable.0),
            written: last,
            stalled: false,
            asked: [rings.intents.1, rings.questions.1, rings.subscriptions.1],
            _silent: (
                [rings.measured.0, from_actuate.0, from_clerk.0, from_herald.0],
                reload,
                bells,
            ),
            socket,
        }
    }

    /// Where peers connect.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Lets time pass.
    pub fn tick(&mut self) {
        self.sequence.next_tick_ns = 0;
    }

    /// Every stage once.
    pub fn turn(&mut self) {
        self.turned();
    }

    fn turned(&mut self) -> bool {
        let mut moved = self.ingress.turn();
        moved |= self.sequence.turn();
        moved |= self.execute.turn();
        moved |= self.write();
        moved |= self.publish.turn();
        for ring in &mut self.asked {
            while take(ring).is_some() {}
        }
        moved
    }

    /// The disk: takes what there is, and says it is durable unless it is stalled.
    fn write(&mut self) -> bool {
        let before = self.written;
        if self.stalled {
            return false;
        }
        while let Some(record) = take(&mut self.disk.0) {
            self.written = split::<Ordered>(record.bytes).0.sequence.get();
        }
        if self.written != before {
            self.disk.1.try_push(0, &[U64::new(self.written).as_bytes()]).expect("room");
            self.disk.1.flush();
        }
        self.written != before
    }

    /// Turns until nothing moves.
    pub fn settle(&mut self, peers: &mut [Peer]) {
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            let moved = self.turned();
            peers.iter_mut().for_each(Peer::listen);
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet == QUIET_TURNS {
                return;
            }
        }
        panic!("still busy after {TURNS_MAX} turns");
    }

    /// Everybody has gone: nothing is left of them but their orders and their money.
    pub fn check_empty(&self) {
        let machine = &self.execute.machine;
        machine.check_conservation();
        assert!(self.ingress.connections.iter().all(Option::is_none), "a connection stays");
        assert_eq!(self.ingress.health.connections.get(), 0);
        assert!(self.ingress.holders.iter().all(|holder| *holder == ANY), "a slot is held");
        assert!(self.ingress.closing.is_empty());
        assert_eq!(machine.connected_sessions().count(), 0, "a session stays connected");
    }
}

/// The gateway's stage, listening.
fn ingress(
    socket: &Path,
    (requests, subscriptions, answers): (Producer, Producer, [Consumer; 4]),
    board: &BoardWriter,
    reloads: Receiver<Reload>,
    health: &Arc<Health>,
) -> Ingress {
    let (_, doorbell) = vendue_wire::doorbell::pair().expect("a doorbell");
    let mut ingress = Ingress {
        poll: mio::Poll::new().expect("a poll"),
        found: mio::Events::with_capacity(64),
        doorbell,
        unix: listen::unix(socket).expect("a socket"),
        tcp: None,
        tls: None,
        side: None,
        requests,
        subscriptions,
        answers,
        access: access(),
        seals: Seals::of(vec![(1, [7; 32])]),
        keys: config().gateway.clone(),
        board: board.as_fd().try_clone_to_owned().expect("a descriptor"),
        board_bytes: board.bytes() as u32,
        admitted: 0,
        accounts: vec![Bucket::full(Instant::now()); NARROW.accounts_max as usize].into(),
        connections: Vec::new(),
        holders: vec![ANY; NARROW.sessions_max as usize],
        closing: VecDeque::new(),
        deaf: VecDeque::new(),
        opening: Vec::new(),
        ended: VecDeque::new(),
        dirty: Vec::new(),
        received: vec![0; INBOUND_BYTES].into(),
        turns_unpolled: 0,
        turned_at: Instant::now(),
        timers_at: Instant::now(),
        carried_at: Instant::now(),
        crowded: false,
        crowdings: 0,
        accept_again: false,
        reloads,
        health: health.clone(),
        clock: Clock::Host,
    };
    ingress.register().expect("a poll that takes sockets");
    ingress
}

/// Small bounds, and no timer that a run could meet.
fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let mut text = DEFAULT.to_owned();
        for (key, value) in [
            ("connections_max", 6),
            ("outbound_bytes_max", 4096),
            ("replay_bytes_max", REPLAY_BYTES),
            ("shared_ring_bytes_max", 8192),
            ("logon_timeout_ms", 600_000),
            ("heartbeat_ms_min", 600_000),
            ("heartbeat_ms_max", 600_000),
        ] {
            let start = format!("\n{key} = ");
            let at = text.find(&start).expect(key) + start.len();
            let end = at + text[at..].find([' ', '\n']).expect(key);
            text.replace_range(at..end, &value.to_string());
        }
        Config::parse("small", &text).expect("a valid configuration")
    })
}

/// Whoever runs this may be anyone.
fn access() -> Access {
    let mut config = Config::embedded().expect("the embedded defaults");
    config.access[0].as_mut().uid = Some(nix::unistd::getuid().as_raw());
    Access::load(&config.access).expect("no token file")
}

/// A machine with accounts, funds, instances and credits.
fn machine() -> Machine {
    static STATE: OnceLock<Vec<u8>> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        let mut room = Room::new(&NARROW.genesis(), &NARROW.definitions());
        let operator = room.open(u64::MAX, Role::Operator, ANY, false);
        for account in 0..ACCOUNTS {
            let name = format!("account {account}");
            let account = room.account(operator, &name, account as u8, (u64::MAX, u64::MAX));
            room.deposit(operator, account, 1 << 40);
        }
        for instance in 0..INSTANCES {
            let name = format!("instance {instance}");
            room.instance(operator, instance % ACCOUNTS, &name, [2, 0, 0, 0, 0]);
            room.grant(operator, instance, 1 << 40);
        }
        room.close(operator);
        room.machine.encode()
    });
    Machine::decode(state).expect("a machine's own state")
}

/// A path of this process's own, removed with its directory when the process ends.
fn socket() -> PathBuf {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIR.get_or_init(|| tempfile::tempdir().expect("make a directory")).path().join("socket")
}
