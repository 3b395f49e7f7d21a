//! Granting VRUs to tasks, beside a binary heap.
//!
//! *Ours* is the real machine: each step cancels a task and submits another, with the checks,
//! holds, placement, margins, refunds and reports that belong to it; what is counted is the VRUs
//! granted. *The floor* keeps the same number of entries in a `BinaryHeap` and, for each VRU that ours
//! granted, takes out the greatest and puts it back with a smaller key: what the bidding would cost if
//! a margin were a number and nothing had to be written down.

use std::collections::BinaryHeap;
use std::hint::black_box;
use std::time::Instant;

use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{Command, DefineBook, Envelope, Genesis, OpenSession};
use vendue_engine::machine::event::Outbox;
use vendue_wire::code::Role;
use vendue_wire::message::{
    ANY, ANY_BOOK, Body, CancelTask, CreateAccount, CreateInstance, Deposit, SetGroup, SetMember,
    SubmitTask, TaskAdmitted, U32, U64, field_cut,
};

use crate::daemon::AnyError;
use crate::pin::{Processors, pin};
use crate::report::Pair;

/// Instances of the group.
const INSTANCES: u32 = 16;
/// VRUs of each.
const VRUS: u32 = 64;
/// Steps of a run.
const STEPS: usize = 20_000;

/// Measures `swarm.grants`, tasks of eight VRUs where there are free ones, and `swarm.wins`, tasks
/// of one VRU that each wins from the task of the least margin, among a thousand.
///
/// # Errors
/// The thread cannot be pinned, or the machine grants something else.
pub fn measure(
    processors: Processors,
    runs: usize,
    show: &mut dyn FnMut(Pair),
) -> Result<(), AnyError> {
    pin(processors.asking)?;
    show(row("swarm.grants", 8, 100, processors, runs)?);
    show(row("swarm.wins", 1, 1000, processors, runs)?);
    Ok(())
}

fn row(
    name: &str,
    vru: u32,
    tasks: u32,
    processors: Processors,
    runs: usize,
) -> Result<Pair, AnyError> {
    let wins = name == "swarm.wins";
    // A thousand tasks of one VRU fill what there is for them.
    let vrus = if wins { tasks.div_ceil(INSTANCES) } else { VRUS };
    let mut swarm = Swarm::new(vrus);
    let mut handles = Vec::new();
    for _ in 0..if wins { vrus * INSTANCES } else { tasks } {
        handles.push(swarm.submit(vru)?);
    }
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for run in 0..=runs {
        let grants = (STEPS * vru as usize) as f64;
        let mut heap: BinaryHeap<u64> = (0..u64::from(tasks)).map(|at| at << 20).collect();
        let start = Instant::now();
        for at in 0..STEPS as u64 * u64::from(vru) {
            let top = heap.pop().unwrap_or_default();
            heap.push(black_box(top.wrapping_sub(1 + at % 4096)));
        }
        black_box(&heap);
        let heaped = start.elapsed().as_nanos() as f64 / grants;
        let start = Instant::now();
        for at in 0..STEPS {
            if !wins {
                let at = at % handles.len();
                swarm.cancel(handles[at]);
                handles[at] = swarm.submit(vru)?;
            } else {
                swarm.submit(vru)?;
            }
        }
        let granted = start.elapsed().as_nanos() as f64 / grants;
        // The first run brings the memory in.
        if run > 0 {
            floor.push(heaped);
            ours.push(granted);
        }
    }
    Ok(Pair::new(name, "ns/VRU", &ours, &floor)
        .fact("tasks", if wins { vrus * INSTANCES } else { tasks })
        .fact("VRUs a task", vru)
        .fact("instances", INSTANCES)
        .method(format!(
            "{runs} runs of {STEPS} tasks on CPU {}, each after a heap's of as many entries; every \
             task's VRUs are checked",
            processors.asking
        )))
}

/// A machine with one group, and an operator.
struct Swarm {
    machine: Machine,
    outbox: Outbox,
    sequence: u64,
    bid: u64,
}

impl Swarm {
    fn new(vrus: u32) -> Swarm {
        let genesis = Genesis {
            accounts_max: 1.into(),
            instances_max: INSTANCES.into(),
            orders_max: 1.into(),
            orders_per_instance_max: 1.into(),
            sessions_max: 1.into(),
            credit_cap_s: 60.into(),
            burst_resume_ms: 1.into(),
            limit_window_s: 60.into(),
            reversible_trades: 1.into(),
            leases_max: 64.into(),
            swap_every_ms: 0.into(),
            lease_margin_percent: 5.into(),
            maker_fee_bps: 0.into(),
            taker_fee_bps: 0.into(),
        };
        let machine = Machine::new(&genesis).expect("the bench's bounds are valid");
        let outbox = machine.outbox();
        let mut swarm = Swarm { machine, outbox, sequence: 0, bid: 1 << 40 };
        swarm.tell(ANY, &genesis);
        swarm.tell(ANY, &DefineBook { tier: 0.into(), ..crate::ours::definition(0, 0) });
        let operator = OpenSession {
            session: 1.into(),
            account: ANY.into(),
            instance: ANY.into(),
            role: Role::Operator as u8,
            ..OpenSession::zeroed()
        };
        swarm.tell(ANY, &operator);
        let name = field_cut("bidder");
        swarm.tell(0, &CreateAccount { client_id: 1.into(), name, ..CreateAccount::zeroed() });
        let amount_micro = (1 << 61).into();
        swarm.tell(0, &Deposit { client_id: 2.into(), amount_micro, ..Deposit::zeroed() });
        let group = SetGroup {
            client_id: 3.into(),
            base_micro: [1000, 0, 0, 0, 0].map(U64::new),
            steep_percent: 100.into(),
            high_permille: 1000.into(),
            group: ANY_BOOK.into(),
            name,
            ..SetGroup::zeroed()
        };
        swarm.tell(0, &group);
        for instance in 0..INSTANCES {
            let made = CreateInstance {
                client_id: u64::from(10 + 2 * instance).into(),
                baseline_vru: [vrus, 0, 0, 0, 0].map(U32::new),
                name: field_cut(&format!("instance {instance}")),
                ..CreateInstance::zeroed()
            };
            swarm.tell(0, &made);
            let client_id = u64::from(11 + 2 * instance).into();
            let member = SetMember { client_id, instance: instance.into(), ..SetMember::zeroed() };
            swarm.tell(0, &member);
        }
        swarm.sequence = 1000;
        swarm
    }

    fn tell<M: Body>(&mut self, session: u32, message: &M) {
        self.sequence += 1;
        let (sequence, time_ns) = (self.sequence, 1_000_000_000);
        let env = Envelope { sequence, time_ns, request: sequence, session, connection: 0 };
        let command = Command::parse(M::KIND, message.as_bytes()).expect("well-formed");
        self.outbox.clear();
        self.machine.apply(&env, &command, &mut self.outbox).expect("a command in order");
    }

    /// Submits a task that bids more than every one before, and gets all it wants.
    fn submit(&mut self, vru: u32) -> Result<u64, AnyError> {
        self.bid += 1 << 20;
        let task = SubmitTask {
            client_id: (self.sequence + 1).into(),
            bid_micro: self.bid.into(),
            duration_ms: 1000.into(),
            vru_max: vru.into(),
            instance: ANY.into(),
            account: ANY.into(),
            ..SubmitTask::zeroed()
        };
        self.tell(0, &task);
        let admitted = self.outbox.events().find_map(|event| event.read::<TaskAdmitted>().copied());
        match admitted {
            Some(admitted) if admitted.vru.get() == vru => Ok(admitted.handle.get()),
            other => Err(format!("a task of {vru} VRUs got {other:?}").into()),
        }
    }

    fn cancel(&mut self, handle: u64) {
        self.tell(0, &CancelTask { handle: handle.into() });
    }
}
