//! Execute: the machine, one command after the other. The core: no clock, no lock, no allocation.

use super::record::{Ordered, Outcome, split, take};
use crate::health::Health;
use crate::machine::Machine;
use crate::machine::command::{Command, Tick};
use crate::machine::event::{Events, Outbox};
use std::sync::Arc;
use vendue_wire::message::{Body, U64};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::IntoBytes;

/// Commands executed in one turn at most.
const BATCH: usize = 256;
/// Event bytes in one ring record at most; a larger answer is cut between events.
const CHUNK_BYTES: usize = 32 << 10;

/// The stage.
pub struct Execute {
    /// Commands from the sequencer.
    pub input: Consumer,
    /// Events, to publish.
    pub events: Producer,
    /// Digests of ticks, to the sequencer.
    pub digests: Producer,
    /// The state.
    pub machine: Machine,
    /// What the last command said.
    pub outbox: Outbox,
    /// Bytes of the outbox already handed on.
    pub handed: usize,
    /// The last command's place and time.
    pub outcome: Outcome,
    /// Shared counters.
    pub health: Arc<Health>,
}

impl Execute {
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
        let Some(record) = take(&mut self.input) else { return false };
        let kind = record.tag as u8;
        let (head, body) = split::<Ordered>(record.bytes);
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
