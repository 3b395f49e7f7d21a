//! The clerk: a thread off the hot path that writes snapshots and answers audits. Both replay the
//! journal through a machine of their own, so the core never pauses for them.

use super::{Dirs, State, TrailError, audit};
use crate::clock::Clock;
use crate::health::Health;
use crate::machine::event::Asked;
use crate::pipeline::record::{Delivery, TO_CONNECTION, take};
use crate::storage::{Host, Medium, Verify, segment};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vendue_wire::doorbell::Doorbell;
use vendue_wire::frame::{self, FRAME_BYTES_MAX};
use vendue_wire::message::{ANY, AuditRow, Body, FaultRow, QueryEnd, field_cut};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::{FromBytes, IntoBytes};

/// Rows of one audit answer, about.
const PAGE: usize = 256;
/// Records of one audit answer at most.
const RECORDS_MAX: u64 = 100_000;
/// How long an audit's state is kept for its next page.
const KEEP: Duration = Duration::from_secs(10);

/// The clerk.
pub struct Clerk<M: Medium = Host> {
    /// Audit questions, from publish.
    pub questions: Consumer,
    /// Rows, to the gateway.
    pub answers: Producer,
    /// Rung when a question comes.
    pub doorbell: Doorbell,
    /// Where journal and snapshots are.
    pub dirs: Dirs<M>,
    /// Shared counters.
    pub health: Arc<Health>,
    /// Time.
    pub clock: Clock,
    /// Records between snapshots.
    pub every_records: u64,
    /// Newest reports kept for each session, bytes.
    pub replay_bytes: usize,
    /// Durable sequence at which the next snapshot is due.
    pub due_at: u64,
    /// An audit's state, for its next page.
    pub open: Option<(State, Instant)>,
    /// Rows the gateway's ring had no room for, and the connection they are for.
    pub backlog: VecDeque<(u32, Vec<u8>)>,
}

impl<M: Medium> Clerk<M> {
    /// Works until `halted` says so.
    pub fn run(&mut self, halted: impl Fn() -> bool) {
        while !halted() {
            if self.turn() {
                continue;
            }
            if !self.backlog.is_empty() {
                // A ring has no "writable" event: look again soon.
                std::thread::sleep(Duration::from_millis(1));
            } else if self.questions.prepare_park() {
                // Every bell is held by publish while it lives; after that `halted` ends us.
                let _ = self.doorbell.wait(Some(Duration::from_millis(200)));
            }
            self.questions.cancel_park();
        }
    }

    /// Answers a question, or else writes the snapshot that is due. True if there was something.
    pub fn turn(&mut self) -> bool {
        let sent = self.drain_backlog();
        if !self.backlog.is_empty() {
            return sent;
        }
        let asked = take(&mut self.questions).map(|record| Asked::read_from_bytes(record.bytes));
        if let Some(Ok(asked)) = asked {
            self.answer(&asked);
            return true;
        }
        let due = self.health.durable.get() >= self.due_at;
        if due {
            self.snapshot();
            // After a failure too: it is tried again when as much has happened once more.
            self.due_at = self.health.durable.get() + self.every_records;
        }
        let now = self.clock.instant();
        if self.open.as_ref().is_some_and(|(_, used)| now.duration_since(*used) > KEEP) {
            self.open = None;
        }
        due | sent
    }

    /// Writes a snapshot of everything durable.
    pub fn snapshot(&mut self) {
        let through = self.health.durable.get();
        if through <= self.health.snapshot.get() {
            return;
        }
        let saved = State::newest(&self.dirs, self.replay_bytes).and_then(|(mut state, _)| {
            let from = state.point.sequence + 1;
            state.advance(&self.dirs, through, Verify::Records, |_, _, _| true)?;
            // With `journal.sync = "never"` the snapshot would outlive records it is made of.
            segment::sync(&self.dirs.medium, &self.dirs.journal, from, through)?;
            Ok(state.save(&self.dirs)?)
        });
        match saved {
            Ok(()) => {
                self.health.snapshot.set(through);
                self.health.restate("snapshot", &[]);
            }
            Err(error) => self.health.restate("snapshot", &[format!("no snapshot: {error}")]),
        }
    }

    /// One page of the audit trail.
    fn answer(&mut self, asked: &Asked) {
        let from = asked.from.get().max(1);
        let durable = self.health.durable.get();
        let mut rows = Vec::new();
        let read = self.page(from, asked.limit.get().into(), durable, &mut rows);
        for row in &rows {
            self.send(asked, row);
        }
        let next = match read {
            Ok(next) if next <= durable => next,
            Ok(_) => u64::MAX,
            Err(error) => {
                self.open = None;
                let text = field_cut(&error.to_string());
                let source = field_cut("audit");
                self.send(asked, &FaultRow { text, source, ..FaultRow::zeroed() });
                u64::MAX
            }
        };
        self.send(asked, &QueryEnd { request: asked.request, next: next.into() });
        self.drain_backlog();
    }

    /// Collects rows from record `from` on; returns where the next page starts.
    fn page(
        &mut self,
        from: u64,
        limit: u64,
        durable: u64,
        rows: &mut Vec<AuditRow>,
    ) -> Result<u64, TrailError> {
        let mut state = match self.open.take() {
            Some((state, _)) if state.point.sequence < from => state,
            _ => State::empty(self.replay_bytes),
        };
        let limit = if limit == 0 { RECORDS_MAX } else { limit.min(RECORDS_MAX) };
        let last = durable.min(from.saturating_add(limit - 1));
        state.advance(&self.dirs, last, Verify::Trail, |machine, record, outbox| {
            if record.sequence >= from {
                audit::rows(machine, record, outbox, rows);
            }
            rows.len() < PAGE
        })?;
        let next = (state.point.sequence + 1).max(from);
        self.open = Some((state, self.clock.instant()));
        Ok(next)
    }

    fn send<B: Body>(&mut self, asked: &Asked, body: &B) {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = frame::encode(0, body, &mut bytes);
        self.backlog.push_back((asked.connection.get(), bytes[..length].to_vec()));
    }

    /// Hands rows to the gateway while it has room. True if one was handed on.
    fn drain_backlog(&mut self) -> bool {
        let before = self.backlog.len();
        while let Some((connection, bytes)) = self.backlog.front() {
            let head = Delivery { connection: (*connection).into(), slot: ANY.into() };
            if self.answers.try_push(TO_CONNECTION, &[head.as_bytes(), bytes]).is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        self.answers.flush();
        self.backlog.len() != before
    }
}
