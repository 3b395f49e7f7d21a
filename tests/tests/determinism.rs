//! A recorded journal replays to the same state, from its first record and from every snapshot, in
//! every build. The records are mixed commands through the real log, the snapshots are made as the
//! daemon makes them.
//!
//! `VENDUE_REPLAY_COMMANDS=N` records another number of commands. With `VENDUE_REPLAY_DIR=D` the
//! journal stays there, and a run that finds one replays it and holds the result against that of
//! the run that recorded it: `tests/replay` does so with the release and the debug build.

use std::fs;
use std::path::{Path, PathBuf};
use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{
    CloseSession, DefineBook, Envelope, Genesis, OpenSession, Restart, Tick, Usage,
};
use vendue_engine::machine::event::Outbox;
use vendue_engine::pipeline::record::Arrival;
use vendue_engine::storage::{
    Append, Host, Log, LogConfig, Point, Record, Sync as LogSync, Verify, recover, segment,
};
use vendue_engine::trail::notices::{Notice, Shadow};
use vendue_engine::trail::{Dirs, State, start_records};
use vendue_tests::chance::Chance;
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{Resource, Role};
use vendue_wire::message::*;
use zerocopy::IntoBytes;

/// Commands where nobody says how many.
const COMMANDS: u64 = 200_000;
const SNAPSHOTS: u64 = 8;
const ACCOUNTS: u32 = 16;
const INSTANCES: u32 = 48;
const SESSIONS: u32 = 12;
const REPLAY_BYTES: usize = 16 << 10;

fn genesis() -> Genesis {
    Genesis {
        accounts_max: ACCOUNTS.into(),
        instances_max: (2 * INSTANCES).into(),
        orders_max: 8192.into(),
        orders_per_instance_max: 256.into(),
        sessions_max: (2 * SESSIONS).into(),
        credit_cap_s: 86_400.into(),
        burst_resume_ms: 5000.into(),
        maker_fee_bps: 5.into(),
        taker_fee_bps: 10.into(),
        ..small_genesis()
    }
}

fn books() -> Vec<DefineBook> {
    let book = |tier: u16, resource: Resource| DefineBook {
        capacity_vru: 1_000_000.into(),
        tick_micro: 3.into(),
        price_ticks_max: 1023.into(),
        quantity_max: 10_000.into(),
        burst_percent: 400.into(),
        auction_every_ms: if resource == Resource::Memory { 1000 } else { 0 }.into(),
        call_ms: if resource == Resource::Memory { 1000 } else { 0 }.into(),
        tier: tier.into(),
        resource: resource as u8,
        name: field_cut(&format!("tier {tier}")),
        ..small_book()
    };
    vec![book(0, Resource::Cpu), book(0, Resource::Memory), book(1, Resource::Cpu)]
}

/// Makes commands, has the machine execute them, and journals them.
struct Recorder {
    room: Room,
    log: Log,
    chance: Chance,
    handles: Vec<u64>,
    ids: u64,
    /// Sequence and digest of the last tick.
    digest: (u64, u64),
}

impl Recorder {
    fn new(dirs: &Dirs) -> Recorder {
        let config =
            LogConfig { segment_bytes: 16 << 20, buffer_bytes: 1 << 20, sync: LogSync::Never };
        let recovered = recover(&Host, &dirs.journal, None, Point::START).expect("an empty log");
        let log = Log::open(config, recovered).expect("a log");
        let room = Room::new(&genesis(), &books());
        let (handles, chance) = (Vec::new(), Chance::new(6));
        let mut recorder = Recorder { room, log, chance, handles, ids: 0, digest: (0, 0) };
        // The room has executed these already.
        for (sequence, (kind, body)) in
            (1..).zip(start_records(&genesis(), &books(), &[], &[], None))
        {
            let time_ns = recorder.room.time_ns;
            let env = Envelope { sequence, time_ns, request: 0, session: ANY, connection: ANY };
            recorder.append(&env, kind, &body);
        }
        recorder.people();
        recorder
    }

    fn append(&mut self, env: &Envelope, kind: u8, body: &[u8]) {
        let arrival = Arrival {
            request: env.request.into(),
            session: env.session.into(),
            connection: env.connection.into(),
        };
        let bytes = [arrival.as_bytes(), body].concat();
        while let Err(full) = self.log.append(env.sequence, env.time_ns, env.session, kind, &bytes)
        {
            assert!(matches!(full, Append::Full), "{full}");
            self.log.wait().expect("the log goes on");
        }
    }

    fn apply<M: Body>(&mut self, session: u32, message: &M) {
        let env = self.room.apply(session, message);
        self.append(&env, M::KIND, message.as_bytes());
        if let Some(handle) = self.room.handle() {
            self.handles.push(handle);
        }
    }

    fn id(&mut self) -> U64 {
        self.ids += 1;
        self.ids.into()
    }

    fn open(&mut self, number: u64, role: Role, account: u32) {
        let mut message = OpenSession::zeroed();
        message.session = number.into();
        (message.account, message.instance) = (account.into(), ANY.into());
        message.role = role as u8;
        message.cancel_on_disconnect = u8::from(number.is_multiple_of(3));
        self.apply(ANY, &message);
    }

    fn create_instance(&mut self, account: u32) {
        let mut instance = CreateInstance::zeroed();
        instance.client_id = self.id();
        instance.account = account.into();
        instance.tier = (self.chance.below(2) as u16).into();
        instance.baseline_vru[0] = (1 + self.chance.below(50) as u32).into();
        if instance.tier.get() == 0 {
            instance.baseline_vru[1] = (self.chance.below(50) as u32).into();
        }
        instance.name = field_cut(&format!("instance {}", self.ids));
        self.apply(0, &instance);
    }

    fn people(&mut self) {
        self.open(1, Role::Operator, ANY);
        for account in 0..ACCOUNTS {
            let mut message = CreateAccount::zeroed();
            message.client_id = self.id();
            (message.sells_to, message.buys_from) = (u64::MAX.into(), u64::MAX.into());
            message.name = field_cut(&format!("account {account}"));
            self.apply(0, &message);
        }
        (1..SESSIONS).for_each(|at| self.open(u64::from(at) + 1, Role::Tenant, at % ACCOUNTS));
        (0..INSTANCES).for_each(|at| self.create_instance(at % ACCOUNTS));
    }

    /// The next command of the mix.
    fn step(&mut self) {
        self.room.time_ns += self.chance.below(40_000);
        let session = 1 + self.chance.below(u64::from(SESSIONS) - 1) as u32;
        match self.chance.below(1000) {
            0..10 => self.tick(),
            10..30 => self.usage(),
            30..36 => self.administer(),
            36..38 => {
                self.apply(ANY, &CloseSession { slot: session.into() });
                self.open(u64::from(session) + 1, Role::Tenant, session % ACCOUNTS);
            }
            38 => self.apply(ANY, &Restart {}),
            39..42 => {
                let mut all = MassCancel::zeroed();
                (all.instance, all.book, all.side) = (ANY.into(), ANY_BOOK.into(), 2);
                self.apply(session, &all);
            }
            42..300 => {
                let handle = self.some_handle();
                self.apply(session, &Cancel { handle });
            }
            300..400 => {
                let replace = Replace {
                    client_id: self.id(),
                    handle: self.some_handle(),
                    price_ticks: (480 + self.chance.below(40) as u32).into(),
                    quantity: (1 + self.chance.below(50) as u32).into(),
                };
                self.apply(session, &replace);
            }
            _ => self.order(session),
        }
    }

    fn some_handle(&mut self) -> U64 {
        if self.handles.is_empty() {
            return 0.into();
        }
        let at = self.chance.below(self.handles.len() as u64) as usize;
        self.handles.swap_remove(at).into()
    }

    fn tick(&mut self) {
        self.room.time_ns += self.chance.below(200_000_000);
        let (digest_sequence, digest) = (self.digest.0.into(), self.digest.1.into());
        self.apply(ANY, &Tick { digest_sequence, digest });
        self.digest = (self.room.machine.sequence(), self.room.machine.digest());
    }

    fn usage(&mut self) {
        let mut usage = Usage::zeroed();
        usage.used_millicredits = self.chance.below(20_000).into();
        usage.instance = (self.chance.below(u64::from(INSTANCES)) as u32).into();
        usage.resource = self.chance.below(2) as u8;
        self.apply(ANY, &usage);
    }

    fn administer(&mut self) {
        let client_id = self.id();
        let account: U32 = (self.chance.below(u64::from(ACCOUNTS)) as u32).into();
        let instance: U32 = (self.chance.below(u64::from(INSTANCES)) as u32).into();
        let amount: U64 = (1 + self.chance.below(1 << 30)).into();
        let reserved = 0.into();
        match self.chance.below(13) {
            12 => {
                let mut swap = SwapTiers::zeroed();
                let to = self.chance.below(2) as u16;
                (swap.client_id, swap.from, swap.to) = (client_id, (1 - to).into(), to.into());
                swap.vru = (self.chance.below(9) as u32).into();
                self.apply(0, &swap);
            }
            9 => self.limit(account),
            10 => {
                let trade = self.room.machine.trades().saturating_sub(self.chance.below(80));
                self.apply(0, &ReverseTrade { client_id, trade: trade.into() });
            }
            11 => {
                let (book, side) = (1.into(), self.chance.below(3) as u8);
                self.apply(0, &CancelAccount { client_id, account, book, side, reserved: 0 });
            }
            8 => {
                let mut phase = SetPhase::zeroed();
                (phase.client_id, phase.book) = (client_id, 2.into());
                phase.phase = [3, 0, 1, 2][self.chance.below(4) as usize];
                self.apply(0, &phase);
            }
            0..3 => self.apply(0, &Deposit { client_id, amount_micro: amount, account, reserved }),
            3 => self.apply(0, &Withdraw { client_id, amount_micro: amount, account, reserved }),
            4 => {
                let instance = (INSTANCES + self.chance.below(8) as u32).into();
                self.apply(0, &RemoveInstance { client_id, instance, reserved });
            }
            5 => self.create_instance(account.get()),
            _ => {
                let mut grant = GrantCredits::zeroed();
                (grant.client_id, grant.instance) = (client_id, instance);
                grant.amount_millicredits = (amount.get() % (1 << 24)).into();
                grant.resource = self.chance.below(2) as u8;
                self.apply(0, &grant);
            }
        }
    }

    /// Sometimes so narrow that orders are refused, and those that are open go.
    fn limit(&mut self, account: U32) {
        let client_id = self.id();
        let mut most = || match self.chance.below(4) {
            0 => (1000 + self.chance.below(5000)).into(),
            _ => UNLIMITED.into(),
        };
        let limits = SetLimits {
            client_id,
            sells_to: u64::MAX.into(),
            buys_from: u64::MAX.into(),
            sell_max_credits: most(),
            buy_max_credits: most(),
            order_max_micro: UNLIMITED.into(),
            position_max_credits: UNLIMITED.into(),
            account,
            group: 0,
            opted_in: u8::from(self.chance.below(8) > 0),
            reserved: [0; 2],
        };
        self.apply(0, &limits);
    }

    fn order(&mut self, session: u32) {
        let account = u64::from(session % ACCOUNTS);
        let mut order = NewOrder::zeroed();
        order.client_id = self.id();
        let nth = self.chance.below(u64::from(INSTANCES / ACCOUNTS));
        order.instance = ((account + nth * u64::from(ACCOUNTS)) as u32).into();
        order.book = (self.chance.below(3) as u16).into();
        order.price_ticks = (480 + self.chance.below(40) as u32).into();
        order.quantity = (1 + self.chance.below(50) as u32).into();
        order.side = self.chance.below(2) as u8;
        match self.chance.below(12) {
            0 => (order.order_type, order.time_in_force) = (1, 2),
            1 => order.time_in_force = 2,
            2 => order.time_in_force = 3,
            3 => {
                order.time_in_force = 1;
                let later_ms = self.room.time_ns / 1_000_000 + 1 + self.chance.below(2000);
                order.expires_at_ms = later_ms.into();
            }
            4 => order.post_only = 1,
            _ => order.self_trade = self.chance.below(2) as u8,
        }
        self.apply(session, &order);
    }

    fn flush(&mut self) {
        while !self.log.idle() {
            self.log.wait().expect("the log goes on");
        }
    }
}

/// Where the snapshot of that number is kept: storage itself keeps the newest two only.
fn kept(base: &Path, number: u64) -> PathBuf {
    base.join(format!("snapshots-{number}"))
}

fn dirs(base: &Path, number: u64) -> Dirs {
    Dirs { medium: Host, journal: base.join("journal"), snapshots: kept(base, number) }
}

/// Records that many commands, with snapshots on the way; returns the state they led to.
fn record(base: &Path, commands: u64) -> Vec<u8> {
    let mut recorder = Recorder::new(&dirs(base, 0));
    let mut state = State::empty(REPLAY_BYTES);
    for number in 1..=SNAPSHOTS {
        while recorder.log.last().sequence < commands * number / (SNAPSHOTS + 1) {
            recorder.step();
        }
        recorder.flush();
        let dirs = dirs(base, number);
        // As the clerk does: on from the last snapshot, through the journal.
        if number > 1 {
            let before = Dirs { snapshots: kept(base, number - 1), ..dirs.clone() };
            state = State::newest(&before, REPLAY_BYTES).expect("the last snapshot").0;
        }
        let through = recorder.log.durable();
        state.advance(&dirs, through, Verify::Records, |_, _, _| true).expect("it replays");
        state.save(&dirs).expect("a snapshot");
    }
    while recorder.log.last().sequence < commands {
        recorder.step();
    }
    recorder.log.close().expect("the log closes");
    let machine = &recorder.room.machine;
    machine.check_conservation();
    assert!(machine.trades() > commands / 100, "{} trades", machine.trades());
    machine.encode()
}

/// The state after the whole journal, from the snapshot of that number (0: from the start).
fn replay(base: &Path, number: u64, through: u64) -> (Machine, Vec<u8>) {
    let dirs = dirs(base, number);
    let (mut state, damaged) = State::newest(&dirs, REPLAY_BYTES).expect("a snapshot");
    assert!(damaged.is_empty() && (state.point.sequence > 0) == (number > 0));
    let verify = if number == 0 { Verify::Trail } else { Verify::Records };
    let mut notices = Notices::behind(&state, through);
    state
        .advance(&dirs, through, verify, |machine, record, outbox| {
            notices.take(machine, record, outbox);
            true
        })
        .expect("it replays");
    let (desk, told) = (state.desk.encode(), notices.digest);
    let machine = state.machine.expect("a machine");
    assert!(notices.shadow == Shadow::of(&machine), "the notices do not sum to the balances");
    (machine, [&desk[..], &told.to_le_bytes()].concat())
}

/// What subscribers are told of a journal: the same from wherever it is read, and nothing changes
/// that they are not told of.
struct Notices {
    shadow: Shadow,
    told: Vec<Notice>,
    /// Of the records behind every snapshot.
    digest: u64,
    from: u64,
}

impl Notices {
    fn behind(state: &State, through: u64) -> Notices {
        let shadow = state.machine.as_ref().map_or_else(Shadow::default, Shadow::of);
        let from = through - through / (SNAPSHOTS + 1) / 2;
        Notices { shadow, told: Vec::new(), digest: 0, from }
    }

    fn take(&mut self, machine: &Machine, record: &Record<'_>, outbox: &Outbox) {
        self.told.clear();
        self.shadow.take(machine, record, outbox, &mut self.told);
        if record.sequence.is_multiple_of(101) {
            let sequence = record.sequence;
            assert!(self.shadow == Shadow::of(machine), "record {sequence} hid a change");
        }
        if record.sequence > self.from {
            for notice in &self.told {
                self.digest ^= fold(format!("{notice:?}").as_bytes()).rotate_left(9);
                self.digest = self.digest.wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
}

fn fold(bytes: &[u8]) -> u64 {
    let mix = |sum: u64, &byte: &u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

#[test]
fn a_journal_replays_the_same_from_everywhere_and_in_every_build() {
    let wanted = std::env::var("VENDUE_REPLAY_COMMANDS").ok();
    let commands = wanted.map_or(COMMANDS, |text| text.parse().expect("a number of commands"));
    let temporary = tempfile::tempdir().expect("a directory");
    let given = std::env::var_os("VENDUE_REPLAY_DIR").map(PathBuf::from);
    let base = given.as_deref().unwrap_or(temporary.path());
    let noted = base.join("digests");
    let recorded = (!noted.exists()).then(|| record(base, commands));
    let (machine, desk) = replay(base, 0, commands);
    let state = machine.encode();
    assert!(recorded.is_none_or(|recorded| recorded == state), "replayed to another state");
    for number in 1..=SNAPSHOTS {
        let (other, other_desk) = replay(base, number, commands);
        assert_eq!(other.digest(), machine.digest(), "from snapshot {number}");
        assert!(other.encode() == state && other_desk == desk, "from snapshot {number}");
    }
    let digests =
        format!("{commands} {:016x} {:016x} {:016x}", machine.digest(), fold(&state), fold(&desk));
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let segments = segment::list(&Host, &base.join("journal")).expect("segments").len();
    println!("{build}: {segments} segments, {} trades, digests {digests}", machine.trades());
    match fs::read_to_string(&noted) {
        Ok(before) => assert_eq!(digests, before, "the build that recorded it computed another"),
        Err(_) => fs::write(&noted, digests).expect("note the digests"),
    }
}
