//! Sequence: gives every command its place in the one order and the only time there is, then
//! hands it to the journal and the machine side by side. Makes the ticks.

use super::record::{Arrival, Ordered, take};
use crate::clock::Clock;
use crate::health::Health;
use crate::machine::command::{Tick, is_query};
use std::sync::Arc;
use std::time::Duration;
use vendue_wire::message::{ANY, Body, U64};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::{FromBytes, IntoBytes};

/// Commands taken in one turn at most.
const BATCH: usize = 256;
/// Room one command may need in each ring, header included.
const ROOM_BYTES: usize = vendue_wire::frame::FRAME_BYTES_MAX + size_of::<Ordered>();

/// The stage.
pub struct Sequence {
    /// Measured use from the actuator, then requests from the gateway: no flood of requests
    /// keeps use from being paid for.
    pub inputs: [Consumer; 2],
    /// Digests of executed ticks, from the machine.
    pub digests: Consumer,
    /// To the journal.
    pub journal: Producer,
    /// To the machine.
    pub execute: Producer,
    /// Shared counters.
    pub health: Arc<Health>,
    /// The host's time.
    pub clock: Clock,
    /// Last sequence given.
    pub sequence: u64,
    /// Last time given, nanoseconds since 1970 UTC.
    pub time_ns: u64,
    /// Time between ticks, nanoseconds.
    pub tick_ns: u64,
    /// When the next tick is due.
    pub next_tick_ns: u64,
    /// Sequence and digest of the newest executed tick.
    pub digest: (u64, u64),
}

impl Sequence {
    /// Takes what arrived. True if there was something.
    pub fn turn(&mut self) -> bool {
        // The host's clock may step back; ours does not.
        self.time_ns = self.time_ns.max(self.clock.now_ns());
        let mut taken = 0;
        if self.time_ns >= self.next_tick_ns && self.room() {
            self.tick();
            taken += 1;
        }
        for at in 0..self.inputs.len() {
            while taken < BATCH && self.room() && self.take(at) {
                taken += 1;
            }
        }
        if taken > 0 {
            self.journal.flush();
            self.execute.flush();
            self.health.sequenced.set(self.sequence);
        }
        taken > 0
    }

    /// Time until the next tick.
    pub fn due_in(&self) -> Duration {
        Duration::from_nanos(self.next_tick_ns.saturating_sub(self.clock.now_ns()))
    }

    fn room(&mut self) -> bool {
        self.journal.record_fits(ROOM_BYTES) && self.execute.record_fits(ROOM_BYTES)
    }

    fn take(&mut self, at: usize) -> bool {
        let Some(record) = take(&mut self.inputs[at]) else { return false };
        let kind = record.tag as u8;
        let query = is_query(kind);
        // A stopped journal lets nothing pass that would have to be remembered.
        if !query && !self.health.accepting() {
            return true;
        }
        if !query {
            self.sequence += 1;
        }
        let head = [self.sequence, self.time_ns].map(U64::new);
        let parts = [head.as_bytes(), record.bytes];
        if !query {
            must(self.journal.try_push(kind.into(), &parts));
        }
        must(self.execute.try_push(kind.into(), &parts));
        true
    }

    fn tick(&mut self) {
        while let Some(record) = take(&mut self.digests) {
            if let Ok(pair) = <[U64; 2]>::read_from_bytes(record.bytes) {
                self.digest = (pair[0].get(), pair[1].get());
            }
        }
        self.next_tick_ns = self.time_ns + self.tick_ns;
        if !self.health.accepting() {
            return;
        }
        self.sequence += 1;
        let arrival = Arrival { request: 0.into(), session: ANY.into(), connection: ANY.into() };
        let head =
            Ordered { sequence: self.sequence.into(), time_ns: self.time_ns.into(), arrival };
        let tick = Tick { digest_sequence: self.digest.0.into(), digest: self.digest.1.into() };
        let parts = [head.as_bytes(), tick.as_bytes()];
        must(self.journal.try_push(Tick::KIND.into(), &parts));
        must(self.execute.try_push(Tick::KIND.into(), &parts));
    }
}

/// Room was checked before.
#[inline]
fn must(pushed: Result<(), vendue_wire::ring::PushError>) {
    if let Err(error) = pushed {
        panic!("a ring refused a record it had room for: {error}");
    }
}
