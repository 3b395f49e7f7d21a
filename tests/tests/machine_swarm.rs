//! The machine's swarm against the source's pseudocode and against a naive model of the whole.
//!
//! Continuous integration plays a bounded number of cases; `VENDUE_SWARM_CASES=3000000` plays more.

use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{DefineBook, Genesis, OpenSession};
use vendue_engine::machine::event::{InstanceFrozen, InstanceRemoved, Outbox};
use vendue_tests::chance::Chance;
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_tests::swarm::{Account, Instance, Request, Said, Session, Swarm};
use vendue_tests::swarm::{allocate_resources, price};
use vendue_wire::code::{Reject, Role};
use vendue_wire::message::*;

fn cases(usual: u64) -> u64 {
    let asked = std::env::var("VENDUE_SWARM_CASES").ok();
    asked.map_or(usual, |cases| cases.parse().expect("VENDUE_SWARM_CASES is a number"))
}

fn genesis() -> Genesis {
    Genesis {
        instances_max: 12.into(),
        orders_per_instance_max: 8.into(),
        sessions_max: 6.into(),
        credit_cap_s: 60.into(),
        reversible_trades: 16.into(),
        maker_fee_bps: 10.into(),
        taker_fee_bps: 20.into(),
        ..small_genesis()
    }
}

/// A room with processors and accelerators, an operator in slot 0 and three accounts. The second sells
/// to the first; nobody else to anybody.
fn furnished(instances: &[(u32, [u32; 5])]) -> Room {
    let book = |resource: u8| DefineBook {
        capacity_vru: 100_000.into(),
        tick_micro: 100.into(),
        price_ticks_max: 20.into(),
        quantity_max: 30.into(),
        burst_percent: 200.into(),
        resource,
        name: field_cut("bronze"),
        ..small_book()
    };
    let mut room = Room::new(&genesis(), &[book(0), book(4)]);
    room.open(1, Role::Operator, ANY, false);
    for (group, masks) in [(0, (0, 2)), (1, (1, 0)), (2, (0, 0))] {
        let account = room.account(0, &format!("account {group}"), group, masks);
        room.deposit(0, account, FUNDS);
    }
    for (at, (account, vru)) in instances.iter().enumerate() {
        room.instance(0, *account, &format!("instance {at}"), *vru);
    }
    room
}

const FUNDS: u64 = 1 << 60;

fn group(room: &Room, account: u32, at: u16) -> SetGroup {
    SetGroup {
        client_id: room.next_id(),
        base_micro: [1000, 0, 0, 0, 50].map(U64::new),
        account: account.into(),
        high_permille: 900.into(),
        low_permille: 300.into(),
        group: ANY_BOOK.into(),
        name: field_cut(&format!("group {at}")),
        ..SetGroup::zeroed()
    }
}

fn join(room: &mut Room, instance: u32, group: u16) {
    let client_id = room.next_id();
    room.apply(
        0,
        &SetMember {
            client_id,
            instance: instance.into(),
            group: group.into(),
            reserved: 0.into(),
        },
    );
    assert_eq!(room.refusal(), None);
}

/// A number of any size up to `most`, small ones as often as large ones.
fn sized(chance: &mut Chance, most: u64) -> u64 {
    let bits = 1 + chance.below(64 - u64::from(most.leading_zeros()));
    (chance.draw() >> (64 - bits)).min(most)
}

#[test]
fn the_sources_pseudocode_grants_the_same() {
    let capacities = [1, 2, 3, 7, 10, 64, 300, 1000];
    let instances = capacities.map(|vru| (0, [vru, 0, 0, 0, 0]));
    let mut room = furnished(&instances);
    for at in 0..capacities.len() as u16 {
        let message = group(&room, 0, at);
        room.apply(0, &message);
        join(&mut room, at.into(), at);
    }
    let mut chance = Chance::new(0x5a17);
    let (mut rejected, mut partial, mut full) = (0, 0, 0);
    for case in 0..cases(30_000) {
        let at = chance.below(capacities.len() as u64) as usize;
        let mut rules = group(&room, 0, at as u16);
        rules.group = (at as u16).into();
        let steep = sized(&mut chance, 10_000);
        // Mostly such that about as many VRUs as there are pay.
        let base = 1 + sized(&mut chance, (1 << 40) - 1);
        (rules.base_micro[0], rules.steep_percent) = (base.into(), (steep as u32).into());
        room.apply(0, &rules);
        let duration = 1 + sized(&mut chance, u64::from(u32::MAX) - 1);
        let wanted = 1 + sized(&mut chance, 1023);
        let scale = u128::from(base) * u128::from(duration) / 1000;
        let about = scale * u128::from(sized(&mut chance, 1 << 12)) / 64;
        let bid = about.saturating_add(chance.below(5).into()).min(FUNDS.into()) as u64;
        let minimum = if chance.below(2) == 0 { 0 } else { sized(&mut chance, base) };
        let task = SubmitTask {
            client_id: room.next_id(),
            bid_micro: bid.into(),
            margin_min_micro: minimum.into(),
            duration_ms: (duration as u32).into(),
            vru_max: (wanted as u32).into(),
            instance: ANY.into(),
            account: ANY.into(),
            group: (at as u16).into(),
            ..SubmitTask::zeroed()
        };
        room.apply(0, &task);
        let granted = room.said::<TaskAdmitted>().first().map(|(_, row)| *row);
        let capacity = i128::from(capacities[at]);
        let expected = allocate_resources(
            (bid.into(), duration.into(), minimum.into()),
            (base.into(), steep.into(), capacity),
            wanted.into(),
        );
        let found = granted.map(|row| (i128::from(row.vru.get()), row.rate_micro.get().into()));
        // One that is not rejected but gets nothing is of no use to who does not wait.
        let expected = expected.filter(|(vru, _)| *vru > 0);
        assert_eq!(found, expected, "case {case}: {task:?} in {rules:?}");
        match granted {
            None => {
                rejected += 1;
                assert_eq!(room.refusal(), Some(Reject::MarginTooLow));
            }
            Some(row) if u64::from(row.vru.get()) < wanted.min(capacity as u64) => partial += 1,
            Some(_) => full += 1,
        }
        if let Some(row) = granted {
            let funds = room.account_row(0);
            assert_eq!(funds.held_micro.get(), bid);
            room.apply(0, &CancelTask { handle: row.handle });
            assert_eq!(room.one::<TaskEnded>().released_micro.get(), bid);
        }
        room.machine.check_conservation();
    }
    let least = cases(30_000) / 20;
    assert!(rejected.min(partial).min(full) > least, "{rejected} {partial} {full}");
}

// ---- the whole ---------------------------------------------------------------------------------

/// The machine, one that follows it, and the model.
struct Pair {
    room: Room,
    twin: (Machine, Outbox),
    model: Swarm,
    met: [u64; 12],
}

const INSTANCES: [(u32, [u32; 5]); 8] = [
    (0, [6, 0, 0, 0, 0]),
    (0, [4, 0, 0, 0, 2]),
    (0, [9, 0, 0, 0, 0]),
    (1, [5, 0, 0, 0, 1]),
    (1, [1, 0, 0, 0, 3]),
    (1, [12, 0, 0, 0, 0]),
    (2, [3, 0, 0, 0, 3]),
    (0, [2, 0, 0, 0, 0]),
];

impl Pair {
    fn new() -> Pair {
        let mut room = furnished(&INSTANCES);
        room.open(2, Role::Tenant, 0, false);
        room.open(3, Role::Tenant, 1, false);
        let mut agent = OpenSession::zeroed();
        (agent.session, agent.account, agent.instance) = (4.into(), ANY.into(), 1.into());
        agent.role = Role::Agent as u8;
        room.daemon(&agent);
        room.open(5, Role::Observer, ANY, false);
        let session = |role, account, instance| Session { role, account, instance };
        let sells = |to: &[usize]| Account { free: FUNDS.into(), held: 0, sells_to: to.to_vec() };
        let model = Swarm {
            now: i128::from(room.time_ns / 1_000_000),
            accounts: vec![sells(&[]), sells(&[0]), sells(&[])],
            instances: INSTANCES
                .map(|(account, capacity)| Instance {
                    account: account as usize,
                    capacity: capacity.map(i128::from),
                    frozen: false,
                    group: None,
                    parked: false,
                    gone: false,
                })
                .to_vec(),
            sessions: vec![
                session(Role::Operator, ANY, ANY),
                session(Role::Tenant, 0, ANY),
                session(Role::Tenant, 1, ANY),
                session(Role::Agent, ANY, 1),
                session(Role::Observer, ANY, ANY),
            ],
            ..Swarm::default()
        };
        // The first tick earns nothing; from then on time is known.
        room.tick(0);
        let copy = Machine::decode(&room.machine.encode()).expect("a state");
        let out = copy.outbox();
        Pair { room, twin: (copy, out), model, met: [0; 12] }
    }

    fn apply<M: Body>(&mut self, slot: u32, body: &M) {
        let env = self.room.apply(slot, body);
        let command = vendue_engine::machine::command::Command::parse(M::KIND, body.as_bytes());
        self.twin.1.clear();
        let command = command.expect("parsed before");
        self.twin.0.apply(&env, &command, &mut self.twin.1).expect("applied before");
        assert!(self.room.out.bytes() == self.twin.1.bytes(), "the twin says otherwise");
    }

    fn said(&self) -> Vec<Said> {
        let mut said = Vec::new();
        let margin = |word: U64| i128::from(word.get() as i64);
        for (to, m) in self.room.said::<TaskAdmitted>() {
            let (task, held, rate) =
                (m.client_id.get(), m.held_micro.get().into(), m.rate_micro.get().into());
            let (margin, instance) = (margin(m.margin_micro), m.instance.get());
            let vru = m.vru.get().into();
            said.push(Said::Admitted { to, task, held, rate, margin, instance, vru });
        }
        for (to, m) in self.room.said::<TaskChanged>() {
            let (task, rate) = (m.client_id.get(), m.rate_micro.get().into());
            let (margin, instance) = (margin(m.margin_micro), m.instance.get());
            said.push(Said::Changed { to, task, rate, margin, instance, vru: m.vru.get().into() });
        }
        for (to, m) in self.room.said::<TaskEnded>() {
            let (paid, released) = (m.paid_micro.get().into(), m.released_micro.get().into());
            let task = m.client_id.get();
            said.push(Said::Ended { to, task, paid, released, reason: m.reason });
        }
        for (_, m) in self.room.said::<InstanceFrozen>() {
            let (instance, frozen) = (m.instance.get(), m.frozen.get() == 1);
            said.push(Said::Frozen { instance, frozen });
        }
        let removed = self.room.said::<InstanceRemoved>();
        said.extend(removed.iter().map(|(_, m)| Said::Removed { instance: m.instance.get() }));
        let done = self.room.said::<Done>();
        said.extend(done.iter().map(|(_, m)| Said::Done { value: m.value.get() }));
        let refused = self.room.said::<Rejected>();
        said.extend(refused.iter().map(|(_, m)| Said::Rejected { code: m.code }));
        said.sort_unstable();
        said
    }

    fn step(&mut self, chance: &mut Chance) {
        let slot = match chance.below(8) {
            0..4 => 0,
            other => (other - 3) as u32,
        };
        let request = self.request(slot, chance);
        match &request {
            Request::Submit(m) => self.apply(slot, m),
            Request::Cancel(m) => self.apply(slot, m),
            Request::Report(m) => self.apply(slot, m),
            Request::SetGroup(m) => self.apply(slot, m),
            Request::SetMember(m) => self.apply(slot, m),
            Request::Freeze(m) => self.apply(slot, m),
            Request::Remove(instance) => {
                let mut m = RemoveInstance::zeroed();
                (m.client_id, m.instance) = (self.room.next_id(), (*instance).into());
                self.apply(slot, &m);
            }
            Request::Tick(elapsed) => {
                self.room.time_ns += *elapsed as u64 * 1_000_000;
                self.apply(ANY, &vendue_engine::machine::command::Tick::zeroed());
            }
        }
        let expected = self.model.ask(slot, &request);
        for (_, m) in self.room.said::<TaskAdmitted>() {
            self.model.learn(m.client_id.get(), m.handle.get());
        }
        assert_eq!(self.said(), expected, "{request:?} of {slot} in {:#?}", self.model);
        for row in &expected {
            let at = match row {
                Said::Admitted { vru: 0, .. } => 0,
                Said::Admitted { .. } => 1,
                Said::Changed { vru: 0, .. } => 2,
                Said::Changed { .. } => 3,
                Said::Ended { reason, .. } => 4 + usize::from(*reason),
                Said::Frozen { frozen, .. } if matches!(request, Request::Tick(_)) => {
                    9 + usize::from(*frozen)
                }
                _ => 11,
            };
            self.met[at] += 1;
        }
    }

    fn request(&self, slot: u32, chance: &mut Chance) -> Request {
        let client_id = self.room.next_id();
        let any_group = |chance: &mut Chance| match chance.below(24) {
            0 => ANY_BOOK,
            1 => 9,
            at => (at % 3) as u16,
        };
        let any_instance = |chance: &mut Chance| match chance.below(24) {
            0 => 40,
            at => (at % 8) as u32,
        };
        let handle = |chance: &mut Chance| match chance.below(20) {
            0 => chance.below(3),
            at if self.model.tasks.is_empty() => at << 32,
            _ => self.model.tasks[chance.below(self.model.tasks.len() as u64) as usize].handle,
        };
        match chance.below(64) {
            0..26 => Request::Submit(self.task(client_id, slot, chance)),
            26..30 => Request::Cancel(CancelTask { handle: handle(chance).into() }),
            30..34 => Request::Report(ReportTask {
                handle: handle(chance).into(),
                used_millivru: match chance.below(5) {
                    0 => u32::MAX,
                    _ => chance.below(9000) as u32,
                }
                .into(),
                progress_permille: [0, 400, 999, 1000, 1001][chance.below(5) as usize].into(),
                reserved: 0.into(),
            }),
            34 => {
                let at = any_group(chance);
                let account = [0, 1, 0, 3][usize::from(at) % 4];
                let mut m = group(&self.room, account, at);
                m.client_id = client_id;
                let base = 1 + chance.below(3000);
                m.base_micro = [base, 0, 0, 0, chance.below(3) * 400].map(U64::new);
                m.steep_percent = (chance.below(1000) as u32).into();
                m.hold_ms = ([0, 0, 700, 5000][chance.below(4) as usize]).into();
                m.cool_ms = ([0, 900, 4000][chance.below(3) as usize]).into();
                m.high_permille = (chance.below(1002) as u16).into();
                m.low_permille = (chance.below(800) as u16).into();
                m.active_min = (chance.below(3) as u16).into();
                m.group = at.into();
                Request::SetGroup(m)
            }
            35 | 36 => Request::SetMember(SetMember {
                client_id,
                instance: any_instance(chance).into(),
                group: any_group(chance).into(),
                reserved: 0.into(),
            }),
            37 if chance.below(2) == 0 => Request::Freeze(FreezeInstance {
                client_id,
                instance: any_instance(chance).into(),
                frozen: chance.below(2) as u8,
                reserved: [0; 3],
            }),
            38 if chance.below(30) == 0 => Request::Remove(any_instance(chance)),
            _ => Request::Tick([0, 1, 250, 1000, 3333][chance.below(5) as usize]),
        }
    }

    fn task(&self, client_id: U64, slot: u32, chance: &mut Chance) -> SubmitTask {
        let pinned = slot == 3 || chance.below(8) == 0;
        let instance = match chance.below(8) {
            _ if !pinned => ANY,
            0..6 if slot == 3 => 1,
            at => at as u32,
        };
        let duration = 1 + chance.below(20_000);
        SubmitTask {
            client_id,
            bid_micro: match chance.below(40) {
                0 => FUNDS + 1,
                _ => duration * chance.below(40),
            }
            .into(),
            margin_min_micro: (chance.below(3) * chance.below(2000)).into(),
            duration_ms: if chance.below(50) == 0 { 0 } else { duration as u32 }.into(),
            vru_max: (chance.below(14) as u32).into(),
            instance: instance.into(),
            account: [ANY, ANY, ANY, ANY, 0, 1, 2, 7][chance.below(8) as usize].into(),
            group: [0, 0, 0, 1, 1, 2, 5][chance.below(7) as usize].into(),
            resource: [0, 0, 0, 4, 4, 1][chance.below(6) as usize],
            queue: chance.below(2) as u8,
            ..SubmitTask::zeroed()
        }
    }

    /// Rows, balances and totals; then the twin goes on from a snapshot.
    fn compare(&mut self) {
        self.room.machine.check_conservation();
        let state = self.room.machine.encode();
        assert!(state == self.twin.0.encode(), "the twin's state differs");
        self.twin.0 = Machine::decode(&state).expect("a state");
        assert!(state == self.twin.0.encode(), "a restored state encodes otherwise");
        let free = |at: usize| {
            let row = self.room.machine.ledger().funds()[at].balance;
            (i128::from(row.free), i128::from(row.held))
        };
        for (at, row) in self.model.accounts.iter().enumerate() {
            assert_eq!(free(at), (row.free, row.held), "funds of {at}");
        }
        let rows = self.rows::<TaskRow, _>(|from| QueryTasks { from });
        assert_eq!(rows.len(), self.model.tasks.len());
        for task in &self.model.tasks {
            let row = rows.iter().find(|row| row.handle.get() == task.handle).expect("a row");
            let found = (row.vru.get().into(), row.rate_micro.get().into());
            assert_eq!(found, (task.vru, task.rate));
            assert_eq!(i128::from(row.paid_micro.get()), task.paid);
            assert_eq!(row.instance.get(), task.runs_in.map_or(ANY, |at| at as u32));
            let margin = task.margin(task.rate).shown();
            assert_eq!(i128::from(row.margin_micro.get() as i64), margin);
            let idle = task.used.is_some_and(|used| i128::from(used) * 4 < task.vru * 1000);
            assert_eq!((row.inefficient == 1, row.waits == 1), (idle, task.vru == 0));
            assert_eq!(row.progress_permille.get(), task.progress);
        }
        let rows = self.rows::<GroupRow, _>(|from| QueryGroups { from });
        for (row, group) in rows.iter().zip(&self.model.groups) {
            assert_eq!(i128::from(row.revenue_micro.get()), group.revenue);
            assert_eq!([row.activations.get(), row.deactivations.get()], group.acts);
            assert_eq!(row.demand, group.demand);
        }
        self.compare_members();
    }

    fn compare_members(&mut self) {
        for row in self.rows::<MemberRow, _>(|from| QueryMembers { from }) {
            let at = row.instance.get() as usize;
            let ours = &self.model.instances[at];
            let state = u8::from(ours.frozen) * if ours.parked { 1 } else { 2 };
            assert_eq!((ours.group, row.state), (Some(row.group.get().into()), state));
            let set = &self.model.groups[usize::from(row.group.get())].set;
            for resource in 0..5 {
                let here = |task: &&vendue_tests::swarm::Task| {
                    task.runs_in == Some(at) && usize::from(task.submitted.resource) == resource
                };
                let used: i128 = self.model.tasks.iter().filter(here).map(|task| task.vru).sum();
                assert_eq!(i128::from(row.used_vru[resource].get()), used);
                let all = ours.capacity[resource];
                let base = i128::from(set.base_micro[resource].get());
                let next = match all {
                    0 => 0,
                    _ => price(base, set.steep_percent.get().into(), used.min(all - 1), all),
                };
                assert_eq!(i128::from(row.price_micro[resource].get()), next);
            }
        }
    }

    /// Every row of an answer, page by page.
    fn rows<M: Body, Q: Body>(&mut self, ask: impl Fn(U32) -> Q) -> Vec<M> {
        let (mut rows, mut from) = (Vec::new(), 0_u32);
        loop {
            self.room.apply(0, &ask(from.into()));
            rows.extend(self.room.said::<M>().into_iter().map(|(_, row)| row));
            match self.room.one::<QueryEnd>().next.get() {
                u64::MAX => return rows,
                next => from = next as u32,
            }
        }
    }
}

/// What a task that bids for ten processors' VRUs of instance 0 gets.
fn task(room: &mut Room, queue: u8) -> Result<TaskAdmitted, Reject> {
    let client_id = room.next_id();
    let message = SubmitTask {
        client_id,
        bid_micro: 1_000_000.into(),
        duration_ms: 1000.into(),
        vru_max: 10.into(),
        instance: ANY.into(),
        account: ANY.into(),
        queue,
        name: field_cut("task"),
        ..SubmitTask::zeroed()
    };
    room.apply(0, &message);
    match room.refusal() {
        Some(why) => Err(why),
        None => Ok(room.one()),
    }
}

fn lend(room: &mut Room, vru: u32) -> Option<Reject> {
    let client_id = room.next_id();
    room.apply(0, &Lend { client_id, instance: 0.into(), vru: vru.into(), ..Lend::zeroed() });
    room.refusal()
}

#[test]
fn no_vru_is_lent_that_a_task_has_or_won_that_is_lent() {
    let mut room = furnished(&[(0, [10, 0, 0, 0, 0])]);
    let message = group(&room, 0, 0);
    room.apply(0, &message);
    join(&mut room, 0, 0);
    assert_eq!(lend(&mut room, 4), None);
    let won = task(&mut room, 0).unwrap();
    assert_eq!(won.vru.get(), 6, "what is lent cannot be won");
    assert_eq!(lend(&mut room, 5), Some(Reject::InsufficientCapacity));
    assert_eq!(lend(&mut room, 3), None, "less may be lent at any time");
    room.tick(1000);
    assert_eq!(room.one::<TaskChanged>().vru.get(), 7, "what came back is to be won");
    room.apply(0, &CancelTask { handle: won.handle });
    assert_eq!(lend(&mut room, 9), None);
}

#[test]
fn the_swarm_does_what_the_naive_model_does() {
    let mut met = [0; 12];
    let games = cases(60_000) / 1000;
    for seed in 0..games {
        let mut chance = Chance::new(seed);
        let mut pair = Pair::new();
        for (at, account) in [(0, 0), (1, 1), (2, 0)] {
            let request = group(&pair.room, account, at);
            pair.apply(0, &request);
            pair.model.ask(0, &Request::SetGroup(request));
        }
        for (instance, group) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (7, 2)] {
            let client_id = pair.room.next_id();
            let (instance, group) = (U32::new(instance), U16::new(group));
            let request = SetMember { client_id, instance, group, reserved: 0.into() };
            pair.apply(0, &request);
            pair.model.ask(0, &Request::SetMember(request));
        }
        for at in 0..1000 {
            pair.step(&mut chance);
            if at % 16 == 0 {
                pair.compare();
            }
        }
        pair.compare();
        met.iter_mut().zip(pair.met).for_each(|(all, met)| *all += met);
    }
    assert!(met.iter().all(|&met| met > games / 20), "some things hardly happen: {met:?}");
}
