//! Execute: the machine, one command after the other. The core: no clock, no lock, no allocation.

use super::record::{Ordered, Outcome, split, take};
use crate::health::Health;
use crate::machine::command::{Command, Tick};
use crate::machine::event::{Events, Outbox};
use crate::machine::{Glimpse, Machine};
use std::sync::Arc;
use vendue_wire::frame::FRAME_BYTES_MAX;
use vendue_wire::message::{Body, U64};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::IntoBytes;

/// Commands executed in one turn at most.
const BATCH: usize = 256;
/// Event bytes in one ring record at most; a larger answer is cut between events.
const CHUNK_BYTES: usize = 32 << 10;
/// Commands in view: the one whose turn it is and those looked at before theirs, because fetching
/// what one touches takes as long as executing a few.
pub const VIEW: usize = 8;
/// So far ahead of its turn, what lies beside the node that a command begins with is fetched too.
pub const BESIDE: usize = 2;

/// A command that was taken before its turn.
#[derive(Clone)]
struct Waiting {
    kind: u8,
    /// What the machine foresaw.
    node: u32,
    length: usize,
    /// `length` bytes, then at least a glimpse's worth of zeros.
    bytes: [u8; WAITING_BYTES],
}

/// The longest command, and a glimpse beyond the shortest.
const WAITING_BYTES: usize = size_of::<Ordered>() + FRAME_BYTES_MAX;

/// The commands whose turn is next, oldest first: the processor fetches what they will touch while
/// those before them are executed.
struct Ahead {
    waiting: Box<[Waiting; VIEW]>,
    first: usize,
    count: usize,
}

impl Ahead {
    fn new() -> Ahead {
        let nothing = Waiting { kind: 0, node: 0, length: 0, bytes: [0; WAITING_BYTES] };
        Ahead { waiting: Box::new(std::array::from_fn(|_| nothing.clone())), first: 0, count: 0 }
    }

    /// Takes what comes next, as far as it looks, and has it foreseen.
    #[inline]
    fn look(&mut self, input: &mut Consumer, machine: &Machine) {
        while self.count < VIEW {
            let Some(record) = take(input) else { break };
            let last = (self.first + self.count) % VIEW;
            let waiting = &mut self.waiting[last];
            let length = record.bytes.len();
            waiting.bytes[..length].copy_from_slice(record.bytes);
            let glimpsed = size_of::<Ordered>() + size_of::<Glimpse>();
            if length < glimpsed {
                waiting.bytes[length..glimpsed].fill(0);
            }
            (waiting.kind, waiting.length) = (record.tag as u8, length);
            waiting.node = machine.foresee(waiting.kind, waiting.glimpse());
            self.count += 1;
        }
    }

    /// The command whose turn it is, and the one [`BESIDE`] after it.
    #[inline]
    fn next(&mut self) -> Option<(&Waiting, Option<&Waiting>)> {
        if self.count == 0 {
            return None;
        }
        let at = self.first;
        self.first = (at + 1) % VIEW;
        self.count -= 1;
        let later = (at + BESIDE) % VIEW;
        let later = (self.count >= BESIDE).then(|| &self.waiting[later]);
        Some((&self.waiting[at], later))
    }
}

impl Waiting {
    fn glimpse(&self) -> &Glimpse {
        let body = &self.bytes[size_of::<Ordered>()..];
        body.first_chunk().expect("a glimpse is shorter than a frame")
    }
}

/// The stage.
pub struct Execute {
    /// Commands from the sequencer.
    pub input: Consumer,
    ahead: Ahead,
    /// Events, to publish.
    pub events: Producer,
    /// Digests of ticks, to the sequencer.
    pub digests: Producer,
    /// The state.
    pub machine: Machine,
    /// What the last command said.
    pub outbox: Outbox,
    /// Bytes of the outbox already handed on.
    handed: usize,
    /// The last command's place and time.
    outcome: Outcome,
    /// Shared counters.
    health: Arc<Health>,
}

impl Execute {
    /// The stage, around a machine and between its rings.
    pub fn new(
        machine: Machine,
        input: Consumer,
        (events, digests): (Producer, Producer),
        health: Arc<Health>,
    ) -> Execute {
        let outcome =
            Outcome { sequence: machine.sequence().into(), time_ns: machine.time_ns().into() };
        let (ahead, outbox) = (Ahead::new(), machine.outbox());
        Execute { input, ahead, events, digests, machine, outbox, handed: 0, outcome, health }
    }

    /// Executes what arrived. True if there was something.
    pub fn turn(&mut self) -> bool {
        let mut taken = 0;
        while self.hand_on() && taken < BATCH && self.step() {
            taken += 1;
        }
        self.events.flush();
        if taken > 0 {
            self.digests.flush();
            self.health.executed.set(self.machine.sequence());
            self.health.trades.set(self.machine.trades());
            self.health.orders.set(self.machine.open_orders().into());
        }
        taken > 0
    }

    /// Executes one command; false if there is none.
    fn step(&mut self) -> bool {
        self.ahead.look(&mut self.input, &self.machine);
        let Some((waiting, later)) = self.ahead.next() else { return false };
        if let Some(later) = later {
            self.machine.foresee_beside(later.node);
        }
        let kind = waiting.kind;
        let (head, body) = split::<Ordered>(&waiting.bytes[..waiting.length]);
        self.outcome = Outcome { sequence: head.sequence, time_ns: head.time_ns };
        // The gateway has parsed it once: what fails here was never let in.
        let Ok(command) = Command::parse(kind, body) else {
            panic!("the gateway let in a malformed command of kind {kind:#04x}");
        };
        if let Err(broken) = self.machine.apply(&head.envelope(), &command, &mut self.outbox) {
            panic!("{broken}");
        }
        if kind == Tick::KIND {
            let (accounts, instances) = self.machine.census();
            self.health.accounts.set(accounts.into());
            self.health.instances.set(instances.into());
            let pair = [self.machine.sequence(), self.machine.digest()].map(U64::new);
            // Full: the sequencer is behind and will take a later one.
            let _ = self.digests.try_push(0, &[pair.as_bytes()]);
        }
        true
    }

    /// Hands the last command's events to publish; false while its ring has no room.
    fn hand_on(&mut self) -> bool {
        let bytes = self.outbox.bytes();
        while self.handed < bytes.len() {
            let rest = &bytes[self.handed..];
            let chunk = if rest.len() <= CHUNK_BYTES { rest.len() } else { cut(rest) };
            let parts = [self.outcome.as_bytes(), &rest[..chunk]];
            if self.events.try_push(0, &parts).is_err() {
                return false;
            }
            self.handed += chunk;
        }
        self.outbox.clear();
        self.handed = 0;
        true
    }
}

/// The length of as many whole events as fit a chunk.
fn cut(bytes: &[u8]) -> usize {
    let mut length = 0;
    for event in Events::new(bytes) {
        let next = length + size_of::<crate::machine::event::EventHeader>() + event.body.len();
        if next > CHUNK_BYTES {
            break;
        }
        length = next;
    }
    length
}
