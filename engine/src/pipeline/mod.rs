//! The pipeline: every stage, every ring and every thread, on one screen.
//!
//! ```text
//!  peers ──> ingress ──requests──> sequence ──┬──> journal ──durable──┐
//!    ^  (sockets, rings)              ^  ^    └──> execute ──events──> publish ──> board
//!    │                                │  └──digests───┘                 │  │  │
//!    └──────────replies───────────────│─────────────────────────────────┘  │  └─questions─> clerk
//!                                     └──measured── actuate <───intents────┘
//!                                                      └──> cgroup v2
//! ```
//!
//! Subscriptions go from ingress to the herald, which follows the journal by itself and answers as
//! the clerk does. Stages speak only through rings. A stage never waits inside a turn: it does what it can and
//! returns; its thread waits when none of its stages could do anything.

pub mod record;

pub mod ingress;
pub mod sequence;

pub mod execute;
pub mod journal;

pub mod publish;

pub mod actuate;
mod cells;
mod foresight;
mod outcomes;
mod stored;

use crate::config::{ThreadKeys, ThreadsKey};
use crossbeam::utils::Backoff;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use vendue_wire::doorbell::{self, Bell, Doorbell};
use vendue_wire::idle::Wait;
use vendue_wire::ring::{Consumer, Producer};

/// A thread turns at least so often, whatever its stages wait for: so that it can be seen to live.
const LOOK: Duration = Duration::from_secs(1);
/// Pause of a thread whose stage waits for room in another's ring, which rings no bell: the other
/// needs the processor more.
const STUCK_PAUSE: Duration = Duration::from_micros(50);

/// A stage, by name.
#[allow(missing_docs, reason = "each variant is the stage of the same name")]
pub enum Stage {
    Ingress(Box<ingress::Ingress>),
    Sequence(Box<sequence::Sequence>),
    Journal(Box<journal::Journal>),
    Execute(Box<execute::Execute>),
    Publish(Box<publish::Publish>),
    Actuate(Box<actuate::Actuate>),
}

/// Which stages share a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// All but the actuator.
    One,
    /// Ingress and publish; sequence and execute.
    Each,
    /// Sequence and execute: gateway and actuator are processes of their own.
    Apart,
}

impl From<ThreadsKey> for Threads {
    fn from(key: ThreadsKey) -> Threads {
        match key {
            ThreadsKey::One => Threads::One,
            ThreadsKey::Each => Threads::Each,
        }
    }
}

/// A ring's two ends.
pub type Ring = (Producer, Consumer);

/// Every ring between stages. The name says what it carries, the comment who reads it.
pub struct Rings {
    /// Read by sequence (core thread).
    pub requests: Ring,
    /// Read by sequence (core thread).
    pub measured: Ring,
    /// Read by sequence (core thread).
    pub digests: Ring,
    /// Read by journal.
    pub to_journal: Ring,
    /// Read by execute (core thread).
    pub to_execute: Ring,
    /// Read by publish (gateway thread).
    pub events: Ring,
    /// Read by publish (gateway thread).
    pub durable: Ring,
    /// Read by actuate.
    pub intents: Ring,
    /// Read by the clerk.
    pub questions: Ring,
    /// Read by the herald.
    pub subscriptions: Ring,
    /// Read by ingress (gateway thread): from publish, actuate, the clerk and the herald.
    pub replies: [Ring; 4],
}

/// Each thread's doorbell and the bell that rings it. Where stages share the gateway's thread,
/// their bells are the gateway's.
pub struct Doorbells {
    /// Ingress.
    pub gateway: (Bell, Doorbell),
    /// Publish.
    pub publish: (Bell, Doorbell),
    /// Sequence and execute.
    pub core: (Bell, Doorbell),
    /// Journal.
    pub journal: (Bell, Doorbell),
    /// Actuate.
    pub actuate: (Bell, Doorbell),
    /// Clerk.
    pub clerk: (Bell, Doorbell),
    /// Herald.
    pub herald: (Bell, Doorbell),
}

impl Doorbells {
    /// One for each thread.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(threads: Threads) -> io::Result<Doorbells> {
        let gateway = doorbell::pair()?;
        let own = |shared| {
            let (bell, doorbell) = doorbell::pair()?;
            io::Result::Ok((if shared { gateway.0.clone() } else { bell }, doorbell))
        };
        Ok(Doorbells {
            publish: own(threads != Threads::Apart)?,
            core: own(threads == Threads::One)?,
            journal: own(threads == Threads::One)?,
            gateway,
            actuate: doorbell::pair()?,
            clerk: doorbell::pair()?,
            herald: doorbell::pair()?,
        })
    }
}

impl Rings {
    /// All rings, `bytes` each; the small ones carry numbers only.
    ///
    /// # Errors
    /// No memory or descriptors are left.
    pub fn new(bytes: usize, threads: Threads, bells: &Doorbells) -> io::Result<Rings> {
        let small = bytes.min(64 << 10);
        let between =
            |bytes, (bell, _): &(Bell, Doorbell)| vendue_wire::ring::pair(bytes, bell.clone());
        // Between two of gateway, core and journal.
        let ring = |bytes, bells: &(Bell, Doorbell)| match threads {
            Threads::Each | Threads::Apart => between(bytes, bells),
            Threads::One => vendue_wire::ring::pair_within(bytes),
        };
        Ok(Rings {
            requests: ring(bytes, &bells.core)?,
            measured: between(bytes, &bells.core)?,
            digests: vendue_wire::ring::pair_within(small)?,
            to_journal: ring(bytes, &bells.journal)?,
            to_execute: vendue_wire::ring::pair_within(bytes)?,
            events: ring(bytes, &bells.publish)?,
            durable: ring(small, &bells.publish)?,
            intents: between(bytes, &bells.actuate)?,
            questions: between(small, &bells.clerk)?,
            subscriptions: between(small, &bells.herald)?,
            replies: [
                ring(bytes, &bells.gateway)?,
                between(bytes, &bells.gateway)?,
                between(bytes, &bells.gateway)?,
                between(bytes, &bells.gateway)?,
            ],
        })
    }
}

impl Stage {
    /// Does what there is to do. True if there was something.
    fn turn(&mut self) -> bool {
        match self {
            Stage::Ingress(stage) => stage.turn(),
            Stage::Sequence(stage) => stage.turn(),
            Stage::Journal(stage) => stage.turn(),
            Stage::Execute(stage) => stage.turn(),
            Stage::Publish(stage) => stage.turn(),
            Stage::Actuate(stage) => stage.turn(),
        }
    }

    /// Announces to every ring the stage reads that its thread is about to wait; false if one
    /// has something.
    fn prepare_park(&mut self) -> bool {
        match self {
            Stage::Ingress(stage) => stage.prepare_park(),
            Stage::Sequence(stage) => {
                stage.inputs.iter_mut().fold(true, |empty, ring| empty & ring.prepare_park())
            }
            // A flush under way wakes the thread when it ends; what waits for room, waits for that.
            Stage::Journal(stage) => {
                let waits = stage.waiting.is_some() && !stage.in_flight();
                !waits && !stage.has_untold() && stage.input.prepare_park()
            }
            Stage::Execute(stage) => stage.outbox.is_empty() && stage.input.prepare_park(),
            Stage::Publish(stage) => {
                // What is held waits for the durable ring alone.
                let durable = stage.durable_input.prepare_park();
                durable && !stage.pending() && (stage.is_holding() || stage.events.prepare_park())
            }
            Stage::Actuate(stage) => stage.intents.prepare_park(),
        }
    }

    /// Withdraws what [`Stage::prepare_park`] announced.
    fn cancel_park(&mut self) {
        match self {
            Stage::Ingress(stage) => stage.cancel_park(),
            Stage::Sequence(stage) => stage.inputs.iter_mut().for_each(Consumer::cancel_park),
            Stage::Journal(stage) => stage.input.cancel_park(),
            Stage::Execute(stage) => stage.input.cancel_park(),
            Stage::Publish(stage) => {
                stage.durable_input.cancel_park();
                stage.events.cancel_park();
            }
            Stage::Actuate(stage) => stage.intents.cancel_park(),
        }
    }

    /// How long the stage may be left alone.
    fn due_in(&self) -> Duration {
        match self {
            Stage::Ingress(stage) => stage.due_in(),
            Stage::Sequence(stage) => stage.due_in(),
            Stage::Actuate(stage) => stage.due_in(),
            Stage::Journal(stage) => stage.due_in(),
            Stage::Execute(_) | Stage::Publish(_) => Duration::from_secs(1),
        }
    }

    /// Closes what has to be closed by the thread that used it: io_uring. True if something was.
    fn close(&mut self) -> bool {
        match self {
            Stage::Journal(journal) => journal.close(),
            _ => false,
        }
    }
}

/// Runs stages on one thread until `halted` and nothing is left to do; returns them. Counts its
/// `turns`.
pub fn run(
    mut stages: Vec<Stage>,
    doorbell: &Doorbell,
    wait: Wait,
    halted: &AtomicBool,
    turns: &AtomicU64,
) -> Vec<Stage> {
    let backoff = Backoff::new();
    let (mut stuck, mut turn) = (false, 0);
    loop {
        turn += 1;
        turns.store(turn, Ordering::Relaxed);
        let moved = stages.iter_mut().fold(false, |moved, stage| stage.turn() | moved);
        if moved {
            backoff.reset();
            stuck = false;
            continue;
        }
        if halted.load(Ordering::Acquire) {
            // What closing made durable is still to be told by stages of the same thread.
            if stages.iter_mut().fold(false, |closed, stage| stage.close() | closed) {
                continue;
            }
            return stages;
        }
        match wait {
            // Backing off would be for rivals; what is waited for here comes all the later for it.
            Wait::Spin => std::hint::spin_loop(),
            Wait::Yield => backoff.snooze(),
            Wait::Park if !backoff.is_completed() => backoff.snooze(),
            Wait::Park => {
                if stuck {
                    std::thread::sleep(STUCK_PAUSE);
                }
                stuck = !park(&mut stages, doorbell);
            }
        }
    }
}

/// Waits until something arrives or is due. False if a stage has something that it cannot move on.
fn park(stages: &mut [Stage], doorbell: &Doorbell) -> bool {
    let due_in = stages.iter().map(Stage::due_in).fold(LOOK, Duration::min);
    if let [Stage::Journal(journal)] = stages {
        // What arrives during a flush is the next group: no need to be woken for it.
        if journal.in_flight() {
            journal.wait();
            return true;
        }
    }
    let empty = stages.iter_mut().all(Stage::prepare_park);
    if empty && !due_in.is_zero() {
        match &mut stages[0] {
            Stage::Ingress(ingress) => {
                ingress.poll_only(due_in);
            }
            _ => doorbell.rest(due_in),
        }
    }
    stages.iter_mut().for_each(Stage::cancel_park);
    // What is due and was not done waits for room as well.
    empty && !due_in.is_zero()
}

/// Starts a named, optionally pinned thread that runs `stages`.
///
/// # Errors
/// The system has no thread to give.
pub fn start(
    name: &str,
    stages: Vec<Stage>,
    doorbell: Doorbell,
    keys: &ThreadKeys,
    halted: &Arc<AtomicBool>,
    turns: &Arc<AtomicU64>,
) -> io::Result<JoinHandle<Vec<Stage>>> {
    let (wait, cpu, halted, turns) = (keys.wait, keys.cpu, halted.clone(), turns.clone());
    let thread = name.to_owned();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Some(cpu) = cpu
            && let Err(errno) = pin(cpu)
        {
            tracing::warn!(thread, cpu, "cannot pin the thread: {errno}");
        }
        run(stages, &doorbell, wait, &halted, &turns)
    })
}

fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}
