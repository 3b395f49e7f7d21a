//! The clerk: a thread off the hot path that writes snapshots, answers audits and sums up reports. All replay
//! the journal through a machine of their own, so the core never pauses for them.

use super::report::{Fold, Row};
use super::{Dirs, State, TrailError, audit};
use crate::apart::Part;
use crate::clock::Clock;
use crate::health::Health;
use crate::machine::event::Asked;
use crate::pipeline::record::{Delivery, TO_CONNECTION, take};
use crate::storage::{Host, Medium, ReadError, Reader, Verify, segment};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vendue_wire::doorbell::Doorbell;
use vendue_wire::frame::{self, FRAME_BYTES_MAX};
use vendue_wire::message::{
    ANY, AuditRow, Body, FaultRow, QueryEnd, QueryMoment, QueryReport, field_cut,
};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::{FromBytes, IntoBytes};

/// Rows of one audit answer, about.
const PAGE: usize = 256;
/// Rows of one page of a report, and those of a step besides.
const REPORT_PAGE: usize = 1024;
/// Records of one audit's or report's answer at most.
const RECORDS_MAX: u64 = 100_000;
/// A page of a report ends after this, wherever it is: who asked waits for it.
const REPORT_FOR: Duration = Duration::from_secs(1);
/// How long such a state is kept for its next page.
const KEEP: Duration = Duration::from_secs(10);

/// The clerk.
pub struct Clerk<M: Medium = Host> {
    /// Questions about the journal, from publish.
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
    /// An audit's or a report's state, for its next page.
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
                self.doorbell.rest(Duration::from_millis(200));
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
        self.health.tell_faults(Part::Core as u32, &mut self.answers);
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

    /// One page of the audit trail or of a report, or where a moment is.
    fn answer(&mut self, asked: &Asked) {
        let from = asked.from.get();
        let durable = self.health.durable.get();
        let last = |next| if next <= durable { next } else { u64::MAX };
        let next = match asked.kind {
            QueryMoment::KIND => self.moment(from, durable).map_err(TrailError::from),
            QueryReport::KIND => self.sums(asked, durable).map(last),
            _ => self.trail(asked, durable).map(last),
        };
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                self.open = None;
                let text = field_cut(&error.to_string());
                let source = field_cut("journal");
                self.send(asked, &FaultRow { text, source, ..FaultRow::zeroed() });
                u64::MAX
            }
        };
        self.send(asked, &QueryEnd { request: asked.request, next: next.into() });
        self.drain_backlog();
    }

    /// The first record of a time or later, or the next one there will be.
    fn moment(&self, time_ns: u64, durable: u64) -> Result<u64, ReadError> {
        let Dirs { medium, journal, .. } = &self.dirs;
        let read = |from| Reader::open(medium, journal, from, durable, Verify::Records);
        let segments = segment::list(medium, journal)?;
        let durable_ones = segments.partition_point(|&first| first <= durable);
        // The last segment that begins before it holds it, or the next one begins with it.
        let (mut low, mut high) = (0, durable_ones);
        while low < high {
            let middle = low.midpoint(high);
            let first = read(segments[middle])?.next()?.map(|record| record.time_ns);
            match first.is_some_and(|first_ns| first_ns < time_ns) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let Some(before) = low.checked_sub(1) else { return Ok(1) };
        let mut reader = read(segments[before])?;
        while let Some(record) = reader.next()? {
            if record.time_ns >= time_ns {
                return Ok(record.sequence);
            }
        }
        Ok(durable + 1)
    }

    /// Sends the sums of the records that are asked for; returns where the next page starts.
    fn sums(&mut self, asked: &Asked, durable: u64) -> Result<u64, TrailError> {
        let from = asked.from.get().max(1);
        let mut state = match self.open.take() {
            Some((state, _)) if state.point.sequence < from => state,
            _ => State::newest_through(&self.dirs, self.replay_bytes, from - 1)?.0,
        };
        let clock = &self.clock;
        let began = clock.instant();
        let in_time = || clock.instant().duration_since(began) < REPORT_FOR;
        let before = durable.min(from - 1);
        state.advance(&self.dirs, before, Verify::Records, |_, _, _| in_time())?;
        if state.point.sequence < before {
            self.open = Some((state, self.clock.instant()));
            return Ok(from);
        }
        let mut fold = Fold::begin(state.machine.as_ref(), asked.book.get());
        let last = last_record(asked, from, durable);
        state.advance(&self.dirs, last, Verify::Records, |machine, record, outbox| {
            fold.take(machine, record, outbox);
            fold.len() < REPORT_PAGE && in_time()
        })?;
        for row in fold.finish(state.machine.as_ref()) {
            match row {
                Row::Flow(row) => self.send(asked, &row),
                Row::Sample(row) => self.send(asked, &row),
                Row::Task(row) => self.send(asked, &row),
            }
        }
        let next = (state.point.sequence + 1).max(from);
        self.open = Some((state, self.clock.instant()));
        Ok(next)
    }

    /// Sends rows of the records that are asked for; returns where the next page starts.
    fn trail(&mut self, asked: &Asked, durable: u64) -> Result<u64, TrailError> {
        let from = asked.from.get().max(1);
        let mut rows = Vec::new();
        let read = self.page(from, last_record(asked, from, durable), &mut rows);
        for row in &rows {
            self.send(asked, row);
        }
        read
    }

    /// Collects rows from record `from` on; returns where the next page starts.
    fn page(&mut self, from: u64, last: u64, rows: &mut Vec<AuditRow>) -> Result<u64, TrailError> {
        let mut state = match self.open.take() {
            Some((state, _)) if state.point.sequence < from => state,
            _ => State::empty(self.replay_bytes),
        };
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

/// The last record that a page asks for.
fn last_record(asked: &Asked, from: u64, durable: u64) -> u64 {
    let limit = match asked.limit.get() {
        0 => RECORDS_MAX,
        limit => u64::from(limit).min(RECORDS_MAX),
    };
    durable.min(from.saturating_add(limit - 1))
}
