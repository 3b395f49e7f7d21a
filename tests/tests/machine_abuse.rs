//! Bytes no honest client sends: whatever arrives is refused or carried out, never a panic, and
//! no unit of funds or credits is made or lost.

use hvctl::host::{Backend, Home, Host, Options};
use std::collections::BTreeMap;
use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{self, Command, DefineBook, Genesis, is_internal};
use vendue_engine::machine::event::{Entitled, Weighted};
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{Kpi, LeaseClass, Rescue, Resource, Role};
use vendue_wire::message;
use vendue_wire::message::*;
use zerocopy::IntoBytes;

/// The generator of Marsaglia's "Xorshift RNGs", 64 bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What may be asked of migrations.
const MIGRATION: [u8; 8] = [0x62, 0x63, 0x63, 0x64, 0x65, 0x65, 0x65, 0x66];
/// What may be asked of the swarm.
const SWARM: [u8; 8] = [0x18, 0x18, 0x18, 0x19, 0x1a, 0x58, 0x59, 0x5c];

/// A small room: an operator in slot 0, a tenant in slot 1, four instances with orders open.
fn room() -> Room {
    let genesis = Genesis {
        accounts_max: 6.into(),
        instances_max: 6.into(),
        orders_max: 90.into(),
        orders_per_instance_max: 8.into(),
        sessions_max: 5.into(),
        credit_cap_s: 60.into(),
        maker_fee_bps: 10.into(),
        taker_fee_bps: 20.into(),
        ..small_genesis()
    };
    let book = DefineBook {
        capacity_vru: 1000.into(),
        tick_micro: 100.into(),
        price_ticks_max: 20.into(),
        quantity_max: 30.into(),
        burst_percent: 200.into(),
        name: field_cut("bronze"),
        ..small_book()
    };
    let mut room = Room::new(&genesis, &[book]);
    room.open(1, Role::Operator, ANY, false);
    for at in 0..4_u8 {
        let account = room.account(0, &format!("account {at}"), at, (u64::MAX, u64::MAX));
        room.deposit(0, account, 1_000_000);
        room.instance(0, account, &format!("instance {at}"), [5, 0, 0, 0, 0]);
        room.grant(0, at.into(), 500_000);
    }
    room.open(2, Role::Tenant, 1, true);
    for at in 0..12_u32 {
        let mut order = NewOrder::zeroed();
        order.client_id = room.next_id();
        order.instance = (at % 4).into();
        order.price_ticks = (1 + at % 8).into();
        order.quantity = (1 + at).into();
        order.side = (at % 2) as u8;
        if at % 3 == 0 {
            order.time_in_force = 1;
            order.expires_at_ms = 100_000.into();
        }
        room.apply(0, &order);
    }
    swarm(&mut room);
    rescue(&mut room);
    room.tick(1000);
    room.apply(0, &QueryObjectives { from: 0.into() });
    assert_eq!(room.one::<ObjectiveRow>().granted_vru.get(), 1, "a rescue is under way");
    room
}

/// An objective of instance 2 that is in breach.
fn rescue(room: &mut Room) {
    let objective = SetObjective {
        client_id: room.next_id(),
        budget_micro: 200_000.into(),
        instance: 2.into(),
        window_s: 3600.into(),
        breach_at: 100.into(),
        recover_at: 50.into(),
        breach_ms: 1000.into(),
        recover_ms: 1000.into(),
        step_vru: 1.into(),
        most_vru: 3.into(),
        rent_ticks: 1.into(),
        class: LeaseClass::Bounded as u8,
        ..SetObjective::zeroed()
    };
    room.apply(0, &objective);
    let kpi = Kpi::Latency as u8;
    let report = ReportKpi { instance: 2.into(), value: 200.into(), kpi, reserved: [0; 7] };
    room.apply(0, &report);
    assert_eq!(room.refusal(), None);
}

/// A group with a member and a task.
fn swarm(room: &mut Room) {
    let group = SetGroup {
        client_id: room.next_id(),
        base_micro: [100, 0, 0, 0, 0].map(U64::new),
        account: 1.into(),
        high_permille: 900.into(),
        group: message::ANY_BOOK.into(),
        name: field_cut("group"),
        ..SetGroup::zeroed()
    };
    room.apply(0, &group);
    let client_id = room.next_id();
    let member = SetMember { client_id, instance: 1.into(), group: 0.into(), reserved: 0.into() };
    room.apply(0, &member);
    let task = SubmitTask {
        client_id: room.next_id(),
        bid_micro: 90_000.into(),
        duration_ms: 100_000.into(),
        vru_max: 3.into(),
        instance: ANY.into(),
        account: ANY.into(),
        queue: 1,
        ..SubmitTask::zeroed()
    };
    room.apply(0, &task);
}

/// A body of the right size whose fields hold likely and unlikely values, or any bytes at all.
fn body(random: &mut Random, kind: u8, bytes: &mut Vec<u8>) {
    bytes.clear();
    let schema = message::SCHEMA.iter().chain(command::SCHEMA).find(|row| row.0 == kind);
    let Some((_, _, size, fields)) = schema.filter(|_| random.below(16) > 0) else {
        let length = random.below(320);
        bytes.extend((0..length).map(|_| random.next() as u8));
        return;
    };
    bytes.resize(*size, 0);
    for (name, offset, size) in *fields {
        let field = &mut bytes[*offset..*offset + *size];
        if name.starts_with("reserved") && random.below(32) > 0 {
            continue;
        }
        match random.below(8) {
            0 => {}
            1 => field.fill(0xff),
            2 => field.iter_mut().for_each(|byte| *byte = random.next() as u8),
            3 => field[0] = random.next() as u8,
            _ => field[0] = random.below(8) as u8,
        }
        if *name == "client_id" {
            let id = (1 << 40) + random.below(1 << 40);
            field.copy_from_slice(&id.to_le_bytes());
        }
        // Most groups are none that there could be.
        if (*name == "high_permille" || *name == "bid_micro") && random.below(2) == 0 {
            field[1] = 3;
        }
        // A handle's slot and generation.
        if *name == "handle" && random.below(2) == 0 {
            field[4] = 1 + 2 * random.below(3) as u8;
        }
    }
}

#[test]
fn no_bytes_make_the_machine_panic_or_lose_a_unit() {
    let mut random = Random(0x5eed_0001);
    let (mut parsed, mut bytes) = (0_u64, Vec::new());
    for _ in 0..150 {
        let mut room = room();
        for _ in 0..10_000 {
            let kind = match random.below(4) {
                0 => random.next() as u8,
                1 => 0x10 + random.below(4) as u8,
                2 => 0x20 + random.below(6) as u8,
                3 if random.below(2) == 0 => SWARM[random.below(8) as usize],
                3 if random.below(8) == 0 => MIGRATION[random.below(8) as usize],
                _ => 0x30 + random.below(0x20) as u8,
            };
            body(&mut random, kind, &mut bytes);
            let Ok(command) = Command::parse(kind, &bytes) else { continue };
            parsed += 1;
            room.time_ns += random.below(1 << 24);
            let foreign = random.below(64) == 0;
            let session = if is_internal(kind) != foreign { ANY } else { random.below(8) as u32 };
            let env = room.envelope(session);
            room.out.clear();
            // The daemon's own records may be called broken; a session's request never.
            let done = room.machine.apply(&env, &command, &mut room.out);
            assert!(done.is_ok() || session == ANY, "kind {kind:#x}: {done:?}");
            room.machine.check_conservation();
        }
        let bytes = room.machine.encode();
        let again = Machine::decode(&bytes).map(|machine| machine.encode());
        assert!(again.as_ref() == Ok(&bytes), "the state cannot be read back");
    }
    assert!(parsed > 500_000, "only {parsed} bodies parsed");
}

#[test]
fn damaged_state_bytes_are_an_error_or_a_machine_that_balances() {
    let mut random = Random(0x5eed_0002);
    let whole = room().machine.encode();
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(6) {
            // The tables first: the expiry wheel's buckets are most of the bytes.
            let span = if random.below(4) == 0 { bytes.len() } else { 4096 };
            let at = random.below(span as u64) as usize;
            bytes[at] = if random.below(2) == 0 { random.next() as u8 } else { 0xff };
        }
        match Machine::decode(&bytes) {
            Ok(machine) => machine.check_conservation(),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 1000, "only {refused} damaged states were refused");
}

#[test]
fn state_bytes_cut_short_or_drawn_out_are_refused() {
    let whole = room().machine.encode();
    for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        assert!(Machine::decode(&whole[..length]).is_err(), "{length} bytes were enough");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(Machine::decode(&longer).is_err(), "a byte too many was accepted");
    assert!(Machine::decode(&whole).is_ok());
}

// ---- flapping ------------------------------------------------------------------------------

const MS: u64 = 1_000_000;
/// The instance that flaps, its tenant's and its agent's slots.
const FLAPPER: u32 = 1;
const TENANT: u32 = 1;
const AGENT: u32 = 2;
/// Micro-units that its rescues may cost in an hour.
const BUDGET_MICRO: u64 = 60_000;

/// A room whose instance 1 has an objective and an agent, and the host that follows the room.
struct Stage {
    room: Room,
    host: Host,
    random: Random,
    leases: Vec<u64>,
    /// When each of the instance's limits was written, nanoseconds.
    writes: BTreeMap<String, Vec<u64>>,
    /// When bids, changes and loans were taken, nanoseconds.
    acts: Vec<u64>,
    /// What became of the objective.
    moved: Vec<Rescue>,
}

impl Stage {
    fn new() -> Stage {
        let mut room = room();
        room.deposit(0, 1, 1 << 40);
        let mut open = command::OpenSession::zeroed();
        (open.session, open.account) = (3.into(), 1.into());
        (open.instance, open.role) = (FLAPPER.into(), Role::Agent as u8);
        room.daemon(&open);
        let mut host = Host::new(Backend::DryRun, &[Resource::Cpu], Options::default());
        host.adopt(FLAPPER, Home { account: 1, tier: 0 }, "", &[]).unwrap();
        let objective = SetObjective {
            client_id: room.next_id(),
            budget_micro: BUDGET_MICRO.into(),
            instance: FLAPPER.into(),
            window_s: 3600.into(),
            breach_at: 100.into(),
            recover_at: 50.into(),
            breach_ms: 1000.into(),
            recover_ms: 1000.into(),
            step_vru: 5.into(),
            most_vru: 10.into(),
            rent_ticks: 5.into(),
            class: LeaseClass::Bounded as u8,
            ..SetObjective::zeroed()
        };
        room.apply(TENANT, &objective);
        assert_eq!(room.refusal(), None);
        let (leases, acts, moved) = (Vec::new(), Vec::new(), Vec::new());
        let random = Random(7);
        Stage { room, host, random, leases, writes: BTreeMap::new(), acts, moved }
    }

    /// Asks, and lets the host follow what came of it. True if it was carried out.
    fn ask<M: Body>(&mut self, session: u32, body: &M) -> bool {
        self.room.apply(session, body);
        let now_ns = self.room.time_ns;
        for (_, m) in self.room.said::<Entitled>() {
            if m.instance.get() == FLAPPER {
                let size = m.vru_size.get();
                self.host.want(FLAPPER, Resource::Cpu, m.vru.get(), size, now_ns).unwrap();
            }
        }
        for (_, m) in self.room.said::<Weighted>() {
            if m.instance.get() == FLAPPER {
                let (vru, size) = (m.weight_vru.get().into(), m.vru_size.get());
                self.host.weigh(FLAPPER, Resource::Cpu, vru, size, now_ns).unwrap();
            }
        }
        let moved = self.room.said::<ObjectiveMoved>().into_iter();
        let own = moved.filter(|(_, m)| m.instance.get() == FLAPPER);
        self.moved.extend(own.filter_map(|(_, m)| Rescue::from_u8(m.outcome)));
        self.host.turn(now_ns);
        for row in self.host.limits(FLAPPER) {
            let times = self.writes.entry(message::text(&row.file).to_owned()).or_default();
            if row.writes.get() as usize > times.len() {
                times.push(now_ns);
                assert_eq!(times.len() as u64, row.writes.get(), "written twice at once");
            }
        }
        self.room.refusal().is_none()
    }

    /// Ten milliseconds in which as much is tried as can be.
    fn flap(&mut self) {
        let now_ns = self.room.time_ns;
        let (client_id, instance) = (self.room.next_id(), FLAPPER.into());
        let (vru, rent_ticks) =
            ((1 + self.random.below(60) as u32).into(), (1 + self.random.below(20) as u32).into());
        let taken = match self.random.below(4) {
            0 | 1 => {
                let class = LeaseClass::Bounded as u8;
                let bid = BidLease {
                    client_id,
                    instance,
                    amount: vru,
                    rent_ticks,
                    class,
                    ..BidLease::zeroed()
                };
                let taken = self.ask(AGENT, &bid);
                if taken {
                    let done = self.room.said::<Done>();
                    self.leases.push(done[0].1.value.get());
                }
                taken
            }
            2 if !self.leases.is_empty() => {
                let handle = self.leases[0].into();
                self.ask(AGENT, &ChangeLease { client_id, handle, vru, rent_ticks })
            }
            _ => {
                let vru = (self.random.below(5) as u32).into();
                self.ask(TENANT, &Lend { client_id, instance, vru, ..Lend::zeroed() });
                false
            }
        };
        if taken {
            self.acts.push(now_ns);
        }
        if self.random.below(3) == 0 && !self.leases.is_empty() {
            let handle = self.leases.swap_remove(0).into();
            self.ask(AGENT, &CancelLease { client_id: self.room.next_id(), handle });
        }
    }

    fn report(&mut self, value: u32) -> bool {
        let (instance, value) = (FLAPPER.into(), value.into());
        self.ask(AGENT, &ReportKpi { instance, value, kpi: Kpi::Latency as u8, reserved: [0; 7] })
    }

    fn tick(&mut self, milliseconds: u64) {
        self.room.time_ns += milliseconds * MS;
        self.ask(ANY, &command::Tick::zeroed());
    }

    fn objective(&mut self) -> ObjectiveRow {
        self.room.apply(0, &QueryObjectives { from: 1.into() });
        self.room.one()
    }
}

/// The most of these moments that lie within a second.
fn most_a_second(times: &[u64]) -> usize {
    let within =
        |from: &u64| times.iter().filter(|at| (*from..from + 1000 * MS).contains(at)).count();
    times.iter().map(within).max().unwrap_or(0)
}

#[test]
fn bids_and_kpis_that_flap_never_thrash_the_host() {
    let mut stage = Stage::new();
    let mut reports = 0_u32;
    for step in 0..12_000_u32 {
        stage.flap();
        // In breach and not, in turn, as often as it is heard.
        reports += u32::from(stage.report(if reports.is_multiple_of(2) { 5000 } else { 0 }));
        stage.tick(10);
        assert!(reports <= 8 * (step / 100 + 2), "{reports} reports in {step} steps");
    }
    assert!(reports > 900, "it was hardly heard: {reports}");
    assert_eq!(stage.moved, [], "a KPI that flaps moved its objective");
    let worst = most_a_second(&stage.acts);
    println!("{} bids and changes, at most {worst} a second", stage.acts.len());
    // So many in each second of the clock: across its edge twice as many.
    assert!((8..=16).contains(&worst), "{worst} in a second");
    for (file, times) in &stage.writes {
        let (worst, quanta) = (most_a_second(times), 4);
        println!("{file}: {} writes, at most {worst} a second", times.len());
        // A cap may fall at once, but rises again only after its refills are paid for: a period of
        // the scheduler at least. Everything else keeps to its quantum.
        let bound = if file == "cpu.max" { 2 * 10 } else { quanta + 1 };
        assert!(worst <= bound, "{file} was written {worst} times in a second");
    }
    let caps = &stage.writes["cpu.max"];
    assert!(caps.len() > 100, "the cap hardly moved: {} writes", caps.len());
}

#[test]
fn what_a_guest_says_spends_its_own_budget_and_no_more() {
    let mut stage = Stage::new();
    let before = stage.room.account_row(1);
    let mut reports = 0;
    // It may set no objective, and cannot say what the host measures.
    let client_id = stage.room.next_id();
    let raised = SetObjective { client_id, instance: FLAPPER.into(), ..SetObjective::zeroed() };
    assert!(!stage.ask(AGENT, &raised));
    let lie = ReportKpi { instance: FLAPPER.into(), value: 9.into(), kpi: 2, reserved: [0; 7] };
    assert!(Command::parse(ReportKpi::KIND, lie.as_bytes()).is_err());
    for _ in 0..40_000 {
        reports += u32::from(stage.report(u32::MAX));
        stage.tick(10);
        let row = stage.objective();
        assert!(row.spent_micro.get() <= BUDGET_MICRO, "{} spent", row.spent_micro);
    }
    let after = stage.room.account_row(1);
    let all = |row: &AccountRow| row.free_micro.get() + row.held_micro.get();
    let row = stage.objective();
    println!("{reports} lies, {} spent: {:?}", row.spent_micro, stage.moved);
    assert_eq!(all(&before) - all(&after), row.spent_micro.get(), "it cost something else");
    assert!(row.spent_micro.get() > BUDGET_MICRO / 2, "the budget was hardly used");
    assert_eq!((row.wanted_vru.get(), row.lease.get()), (0, u64::MAX), "its lease goes on");
    assert_eq!(stage.moved[..2], [Rescue::Breached, Rescue::Raised]);
    assert_eq!(stage.moved.last(), Some(&Rescue::BudgetSpent));
    // In a new window there is a new budget; who stops reporting gives back.
    stage.tick(3_600_000);
    assert_eq!(stage.moved.last(), Some(&Rescue::BudgetSpent), "of what was said an hour ago");
    for _ in 0..150 {
        stage.report(u32::MAX);
        stage.tick(10);
    }
    assert_eq!(stage.moved.last(), Some(&Rescue::Breached));
    stage.tick(60_000);
    stage.tick(1);
    assert_eq!(stage.moved.last(), Some(&Rescue::Silent));
    assert_eq!(stage.objective().wanted_vru.get(), 0);
}
