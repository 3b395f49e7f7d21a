//! Journal: writes every command to the log and says how far it is durable. A failure is final:
//! nothing that changes state is accepted any more, and what is not durable stays unseen.

use super::record::{ARRIVAL_AT, Ordered, split, take};
use crate::clock::Clock;
use crate::health::Health;
use crate::storage::{Append, Host, Log, LogError, Medium};
use std::sync::Arc;
use std::time::Duration;
use vendue_wire::frame::FRAME_BYTES_MAX;
use vendue_wire::message::U64;
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::IntoBytes;

/// Records taken in one turn at most.
const BATCH: usize = 1024;
/// Bytes of the longest record.
pub const RECORD_BYTES_MAX: usize = FRAME_BYTES_MAX + size_of::<Ordered>();
/// Where nobody waits for a record, it is on its way to the device after so long, and a few
/// milliseconds more by the coarse clock.
const LAG_NS: u64 = 1_000_000;
/// And as soon as so much has come together.
const LAZY_BYTES: usize = 64 << 10;

/// The stage.
pub struct Journal<M: Medium = Host> {
    /// Commands from the sequencer.
    pub input: Consumer,
    /// Durable sequence numbers, to publish.
    pub durable: Producer,
    /// The log; `None` once it has stopped or was closed.
    pub log: Option<Log<M>>,
    /// Kind of a record the log's buffer had no room for...
    pub waiting: Option<u8>,
    /// ...and the record, in room that is kept.
    pub waiting_bytes: Vec<u8>,
    /// Shared counters.
    pub health: Arc<Health>,
    /// Sequence last told to publish.
    pub told: u64,
    /// With `journal.sync = "never"`: when the oldest record that is not on its way was appended, on
    /// the coarse clock: it is looked at in every turn.
    pub since_ns: Option<u64>,
    /// True: nobody waits for a record to be durable.
    pub lazy: bool,
    /// What time it is.
    pub clock: Clock,
}

impl<M: Medium> Journal<M> {
    /// Appends what arrived and moves the flushes on. True if something moved.
    pub fn turn(&mut self) -> bool {
        if self.log.is_none() {
            return self.discard();
        }
        let appended = self.append();
        let before = self.told;
        match appended.and_then(|moved| self.poll(moved).map(|()| moved)) {
            // What could not be told for want of room has not moved.
            Ok(moved) => moved | (self.told != before),
            Err(error) => {
                self.stop(&error);
                true
            }
        }
    }

    /// True if publish has not been told of all that is durable, for want of room.
    pub fn has_untold(&self) -> bool {
        self.log.is_some() && self.health.durable.get() != self.told
    }

    /// True while a flush is under way: wait for the device, not for the doorbell.
    pub fn in_flight(&self) -> bool {
        self.log.as_ref().is_some_and(Log::<M>::in_flight)
    }

    /// Waits for the flush under way.
    pub fn wait(&mut self) {
        let Some(log) = &mut self.log else { return };
        match log.wait() {
            Ok(durable) => self.tell(durable),
            Err(error) => self.stop(&error),
        }
    }

    /// Writes everything out and closes the log; false if there is none any more.
    pub fn close(&mut self) -> bool {
        while self.turn() || self.in_flight() {
            self.wait();
        }
        let Some(log) = self.log.take() else { return false };
        match log.close() {
            Ok(point) => self.tell(point.sequence),
            Err(error) => self.stop(&error),
        }
        true
    }

    /// Time until records that nobody waits for have to be on their way.
    pub fn due_in(&self) -> Duration {
        match self.since_ns {
            Some(since_ns) if !self.in_flight() => {
                let passed_ns = self.clock.coarse_ns().saturating_sub(since_ns);
                Duration::from_nanos(LAG_NS.saturating_sub(passed_ns))
            }
            _ => Duration::from_secs(1),
        }
    }

    fn append(&mut self) -> Result<bool, LogError> {
        let Some(log) = &mut self.log else { return Ok(false) };
        if let Some(kind) = self.waiting
            && !put(log, kind, &self.waiting_bytes)?
        {
            return Ok(false);
        }
        self.waiting = None;
        let mut moved = false;
        for _ in 0..BATCH {
            let Some(record) = take(&mut self.input) else { break };
            moved = true;
            if !put(log, record.tag as u8, record.bytes)? {
                self.waiting = Some(record.tag as u8);
                self.waiting_bytes.clear();
                self.waiting_bytes.extend_from_slice(record.bytes);
                break;
            }
        }
        Ok(moved)
    }

    /// Moves the flushes on; `busy` if something was appended just now.
    fn poll(&mut self, busy: bool) -> Result<(), LogError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let durable = if self.lazy {
            let unsent = log.unsent_bytes();
            let lags = |since_ns| self.clock.coarse_ns().saturating_sub(since_ns) >= LAG_NS;
            let due = unsent >= LAZY_BYTES
                || self.waiting.is_some()
                || (!busy && self.since_ns.is_some_and(lags));
            self.since_ns = match (unsent, due) {
                (0, _) | (_, true) => None,
                _ => self.since_ns.or_else(|| Some(self.clock.coarse_ns())),
            };
            if due { log.poll()? } else { log.reap()? }
        } else {
            log.poll()?
        };
        if let Some(warning) = log.warning() {
            self.health.report("journal", format!("{warning}; make room before it is needed"));
        }
        self.tell(durable);
        Ok(())
    }

    /// Tells publish. If the ring is full a later, higher number will do.
    fn tell(&mut self, durable: u64) {
        if durable == self.told {
            return;
        }
        assert!(durable > self.told, "the durable sequence went back");
        self.health.durable.set(durable);
        if self.durable.try_push(0, &[U64::new(durable).as_bytes()]).is_ok() {
            self.told = durable;
        }
        self.durable.flush();
    }

    fn stop(&mut self, error: &LogError) {
        self.health.stop_accepting();
        self.health.report("journal", error.to_string());
        self.log = None;
    }

    /// After a stop: what arrives can not be kept, and is never shown either.
    fn discard(&mut self) -> bool {
        self.waiting = None;
        take(&mut self.input).is_some()
    }
}

/// Appends one record; false if the log's buffer has no room now.
fn put<M: Medium>(log: &mut Log<M>, kind: u8, bytes: &[u8]) -> Result<bool, LogError> {
    let (head, _) = split::<Ordered>(bytes);
    let session = head.arrival.session.get();
    let (sequence, time_ns) = (head.sequence.get(), head.time_ns.get());
    // What is kept is the command as it arrived: `Arrival`, then the message's body.
    match log.append(sequence, time_ns, session, kind, &bytes[ARRIVAL_AT..]) {
        Ok(()) => Ok(true),
        Err(Append::Full) => Ok(false),
        Err(Append::Stopped(error)) => Err(error),
    }
}
