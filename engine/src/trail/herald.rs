//! The herald: a thread off the hot path that tells subscribers every trade and every balance that
//! changed, exactly once and in order, from any record of the journal on.
//!
//! Its one source is the journal, read up to what is durable and executed again: what is told is
//! durable, a subscriber that comes back after any crash is told the very same from where it asks,
//! and nothing has to be kept for those who are away. All subscribers near the journal's end share
//! one state; who is behind gets one of its own until it has caught up.

use super::notices::{Notice, Shadow, seen_by};
use super::{Dirs, State, TrailError};
use crate::clock::Clock;
use crate::health::Health;
use crate::pipeline::record::{Delivery, Subscription, TO_CONNECTION, split, take};
use crate::storage::{Host, Medium, Point, Reader, Verify};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vendue_wire::code::Reject;
use vendue_wire::doorbell::Doorbell;
use vendue_wire::frame::{self, FRAME_BYTES_MAX};
use vendue_wire::message::*;
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::{FromBytes, IntoBytes};

/// States at a time: one for all who have caught up, the others for who has not.
const RUNS_MAX: usize = 4;
/// Records executed for a state in one turn at most.
const STEP: usize = 256;
/// A state so near to the journal's end takes newcomers in.
const NEAR: u64 = 4096;
/// A state goes on while less than this waits for one of its subscribers...
const BATCH_BYTES: usize = 64 << 10;
/// ...and leaves those behind for whom more than this does.
const PENDING_BYTES_MAX: usize = 4 << 20;
/// Who takes nothing for so long while something waits is told to come again.
const STALLED: Duration = Duration::from_secs(30);
/// Between two looks for what has become durable: each reads the journal's end.
const LOOK: Duration = Duration::from_millis(10);
/// While nobody does, or between two tries after a fault.
const IDLE: Duration = Duration::from_millis(200);
/// Bytes of reports that its states keep for each session, which nobody asks them for: the least.
const REPLAY_BYTES: usize = 1024;
/// Between two frames that say how far a subscriber has been told at least.
const REMIND: Duration = Duration::from_millis(100);

/// The herald.
pub struct Herald<M: Medium = Host> {
    /// Who wants what, from the gateway.
    pub subscriptions: Consumer,
    /// Notices, to the gateway.
    pub frames: Producer,
    /// Rung when a subscription comes.
    pub doorbell: Doorbell,
    /// Where journal and snapshots are.
    pub dirs: Dirs<M>,
    /// Shared counters.
    pub health: Arc<Health>,
    /// Time.
    pub clock: Clock,
    /// Notices on their way to one subscriber at most.
    pub take_max: u32,
    /// States on their way through the journal.
    pub runs: Vec<Run<M>>,
    /// Answers the gateway's ring had no room for, and the connection they are for.
    pub backlog: VecDeque<(u32, Vec<u8>)>,
}

/// A state on its way through the journal, and who listens to it.
pub struct Run<M: Medium> {
    state: State,
    shadow: Shadow,
    /// Behind `state`; `None` before the first look.
    reader: Option<Reader<M>>,
    /// Last record the reader may read, and when it was looked for.
    through: (u64, Instant),
    subscribers: Vec<Subscriber>,
}

/// Who listens.
struct Subscriber {
    connection: u32,
    /// Account it may know of, or [`ANY`].
    account: u32,
    /// Which notices.
    what: u8,
    /// First notice wanted: sequence and part.
    from: (u64, u32),
    /// Notices sent, and how many may be.
    sent: u64,
    allowed: u64,
    /// Frames not sent yet.
    pending: VecDeque<u8>,
    /// Too much waited while others had room: it is told no more.
    late: bool,
    /// Since when it may not be sent what waits.
    stalled_since: Option<Instant>,
    /// Record it was said to have caught up with, and when.
    reminded: (u64, Instant),
}

impl<M: Medium> Herald<M> {
    /// Works until `halted` says so.
    pub fn run(&mut self, halted: impl Fn() -> bool) {
        while !halted() {
            if self.turn() {
                continue;
            }
            let pause = if self.runs.is_empty() { IDLE } else { LOOK };
            if self.subscriptions.prepare_park() {
                self.doorbell.rest(pause);
            }
            self.subscriptions.cancel_park();
        }
    }

    /// Does what there is to do. True if there was something.
    pub fn turn(&mut self) -> bool {
        let mut moved = self.drain_backlog();
        while self.backlog.is_empty()
            && let Some(record) = take(&mut self.subscriptions)
        {
            let (tag, (head, body)) = (record.tag as u8, split::<Subscription>(record.bytes));
            let (head, body) = (*head, body.to_vec());
            self.hear(tag, &head, &body);
            moved = true;
        }
        for at in 0..self.runs.len() {
            match self.advance(at) {
                Ok(advanced) => moved |= advanced,
                Err(error) => self.give_up(at, &error),
            }
        }
        self.merge();
        let now = self.clock.instant();
        for at in 0..self.runs.len() {
            moved |= self.serve(at, now);
        }
        self.runs.retain(|run| !run.subscribers.is_empty());
        self.frames.flush();
        moved
    }

    fn hear(&mut self, kind: u8, head: &Subscription, body: &[u8]) {
        let connection = head.connection.get();
        let known = self.runs.iter_mut().flat_map(|run| &mut run.subscribers);
        let known = known.into_iter().find(|who| who.connection == connection);
        match kind {
            Subscribe::KIND => {
                self.forget(connection);
                let Ok(message) = Subscribe::ref_from_bytes(body) else { return };
                self.subscribe(head, message);
            }
            Take::KIND => {
                if let (Some(who), Ok(message)) = (known, Take::ref_from_bytes(body)) {
                    let most = who.sent + u64::from(self.take_max);
                    who.allowed = who.allowed.max(message.through.get().min(most));
                    who.stalled_since = None;
                }
            }
            _ => {
                let next = known.map(|who| who.next());
                self.forget(connection);
                // Without a request nobody waits for an answer: the connection is gone.
                if let (Some((sequence, part)), true) = (next, head.request.get() != 0) {
                    self.answer(connection, &unsubscribed(sequence, part, 0));
                }
            }
        }
    }

    fn forget(&mut self, connection: u32) {
        for run in &mut self.runs {
            run.subscribers.retain(|who| who.connection != connection);
        }
        self.runs.retain(|run| !run.subscribers.is_empty());
    }

    fn subscribe(&mut self, head: &Subscription, message: &Subscribe) {
        let durable = self.health.durable.get();
        let connection = head.connection.get();
        let from = match message.from.get() {
            0 => (durable + 1, 0),
            from => (from, message.part.get()),
        };
        if from.0 > durable + 1 {
            return self.refuse(head, Reject::BadField, durable + 1);
        }
        let at = match self.run_for(from.0, durable) {
            Ok(at) => at,
            Err(code) => return self.refuse(head, code, 0),
        };
        let now = self.clock.instant();
        self.runs[at].subscribers.push(Subscriber {
            connection,
            account: head.account.get(),
            what: message.what,
            from,
            sent: 0,
            allowed: self.take_max.into(),
            pending: VecDeque::new(),
            late: false,
            stalled_since: None,
            reminded: (0, now),
        });
        let (request, from) = (head.request, from.0.into());
        let (durable, take_max) = (durable.into(), self.take_max.into());
        let body = Subscribed { request, from, durable, take_max, reserved: 0.into() };
        self.answer(connection, &body);
    }

    /// A state that has not passed this record: that of those who have caught up, or a new one.
    fn run_for(&mut self, sequence: u64, durable: u64) -> Result<usize, Reject> {
        let shared = |run: &Run<M>| {
            let at = run.state.point.sequence;
            at < sequence && at + NEAR > durable
        };
        if let Some(at) = self.runs.iter().position(shared) {
            return Ok(at);
        }
        if self.runs.len() == RUNS_MAX {
            return Err(Reject::Busy);
        }
        let (state, _) =
            State::newest_through(&self.dirs, REPLAY_BYTES, sequence - 1).map_err(|error| {
                self.health.restate("notices", &[error.to_string()]);
                Reject::JournalStopped
            })?;
        self.health.restate("notices", &[]);
        let shadow = state.machine.as_ref().map_or_else(Shadow::default, Shadow::of);
        let through = (state.point.sequence, self.clock.instant());
        self.runs.push(Run { state, shadow, reader: None, through, subscribers: Vec::new() });
        Ok(self.runs.len() - 1)
    }

    /// Executes what has become durable, unless nobody has room for what it says.
    fn advance(&mut self, at: usize) -> Result<bool, TrailError> {
        let (durable, dirs, now) = (self.health.durable.get(), &self.dirs, self.clock.instant());
        let Run { state, shadow, reader, through, subscribers } = &mut self.runs[at];
        if state.point.sequence >= through.0 {
            let early = reader.is_some() && now.duration_since(through.1) < LOOK;
            if early || state.point.sequence >= durable {
                return Ok(false);
            }
            *through = (durable, now);
            match reader {
                Some(reader) => reader.extend(durable),
                None => {
                    let next = state.point.sequence + 1;
                    let (medium, dir) = (&dirs.medium, &dirs.journal);
                    *reader = Some(Reader::open(medium, dir, next, durable, Verify::Records)?);
                }
            }
        }
        let Some(reader) = reader else { return Ok(false) };
        let mut notices = Vec::new();
        let mut steps = 0;
        while steps < STEP && subscribers.iter().any(Subscriber::has_room) {
            let Some(record) = reader.next()? else { break };
            subscribers
                .iter_mut()
                .for_each(|who| who.late |= who.pending.len() > PENDING_BYTES_MAX);
            state.execute(&record)?;
            if let Some(machine) = &state.machine {
                notices.clear();
                shadow.take(machine, &record, &state.outbox, &mut notices);
                subscribers.iter_mut().for_each(|who| who.note(&notices, record.sequence));
            }
            state.point = Point { sequence: record.sequence, chain: record.chain_after() };
            state.outbox.clear();
            steps += 1;
        }
        Ok(steps > 0)
    }

    /// The journal cannot be read: who listens is told where it ended.
    fn give_up(&mut self, at: usize, error: &TrailError) {
        self.health.restate("notices", &[format!("no notices: {error}")]);
        for who in std::mem::take(&mut self.runs[at].subscribers) {
            let (sequence, part) = who.next();
            let body = unsubscribed(sequence, part, Reject::JournalStopped as u8);
            self.answer(who.connection, &body);
        }
    }

    /// States at the same place are one.
    fn merge(&mut self) {
        for at in (1..self.runs.len()).rev() {
            let place = self.runs[at].state.point.sequence;
            let same = |run: &Run<M>| run.state.point.sequence == place;
            if let Some(other) = self.runs[..at].iter().position(same) {
                let subscribers = std::mem::take(&mut self.runs[at].subscribers);
                self.runs[other].subscribers.extend(subscribers);
                let run = self.runs.remove(at);
                debug_assert_eq!(run.shadow, self.runs[other].shadow);
            }
        }
    }

    /// Sends each subscriber what it takes; ends those that take too little. True if something was
    /// to be done.
    fn serve(&mut self, at: usize, now: Instant) -> bool {
        let durable = self.health.durable.get();
        let Run { state, subscribers, .. } = &mut self.runs[at];
        let place = state.point.sequence;
        let (mut sent, mut ended) = (false, Vec::new());
        for who in subscribers.iter_mut() {
            if who.pending.is_empty() && !who.late && place >= durable {
                who.remind(place, now);
            }
            sent |= who.send(&mut self.frames);
            let stalls = !who.pending.is_empty() && who.sent >= who.allowed;
            who.stalled_since = who.stalled_since.or(stalls.then_some(now)).filter(|_| stalls);
            let stalled =
                who.stalled_since.is_some_and(|since| now.duration_since(since) > STALLED);
            if stalled || who.late {
                ended.push(who.connection);
            }
        }
        let moved = sent | !ended.is_empty();
        for connection in ended {
            let found = subscribers.iter().position(|who| who.connection == connection);
            let Some((sequence, part)) = found.map(|found| subscribers.remove(found).next()) else {
                continue;
            };
            let body = unsubscribed(sequence, part, Reject::Busy as u8);
            push_back(&mut self.backlog, connection, &body);
        }
        moved
    }

    fn refuse(&mut self, head: &Subscription, code: Reject, detail: u64) {
        let body = Refused {
            request: head.request,
            detail: detail.into(),
            kind: Subscribe::KIND,
            code: code as u8,
            reserved: [0; 6],
        };
        self.answer(head.connection.get(), &body);
    }

    fn answer<B: Body>(&mut self, connection: u32, body: &B) {
        push_back(&mut self.backlog, connection, body);
        self.drain_backlog();
    }

    fn drain_backlog(&mut self) -> bool {
        let before = self.backlog.len();
        while let Some((connection, bytes)) = self.backlog.front() {
            if !push(&mut self.frames, *connection, bytes) {
                break;
            }
            self.backlog.pop_front();
        }
        self.backlog.len() != before
    }
}

impl Subscriber {
    fn has_room(&self) -> bool {
        !self.late && self.pending.len() < BATCH_BYTES
    }

    /// Keeps those of a record's notices that it asked for and may know.
    fn note(&mut self, notices: &[Notice], sequence: u64) {
        for (part, notice) in (0_u32..).zip(notices) {
            let wanted = (sequence, part) >= self.from && notice.bit() & self.what != 0;
            if self.late || !wanted || !notice.concerns(self.account) {
                continue;
            }
            match notice {
                Notice::Swapped(m) => self.keep(&seen_by(m, self.account)),
                Notice::Reversed(m) => self.keep(m),
                Notice::Funds(m) => self.keep(m),
                Notice::Credits(m) => self.keep(m),
                Notice::Tiers(m) => self.keep(m),
            }
        }
    }

    fn keep<B: Body>(&mut self, body: &B) {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = frame::encode(0, body, &mut bytes);
        self.pending.extend(&bytes[..length]);
    }

    /// Says how far it has been told, if that is news.
    fn remind(&mut self, sequence: u64, now: Instant) {
        let (last, at) = self.reminded;
        if sequence > last && (last == 0 || now.duration_since(at) >= REMIND) {
            self.reminded = (sequence, now);
            self.keep(&CaughtUp { sequence: sequence.into() });
        }
    }

    /// Sends what it takes and the ring has room for. True if something was sent.
    fn send(&mut self, frames: &mut Producer) -> bool {
        let before = self.sent;
        let waiting = &*self.pending.make_contiguous();
        let mut done = 0;
        while done < waiting.len() && self.sent < self.allowed {
            let length = frame_bytes(&waiting[done..]);
            let frame = &waiting[done..done + length];
            if !push(frames, self.connection, frame) {
                break;
            }
            // Where it would go on, were this the last.
            self.from = after(frame).unwrap_or(self.from);
            self.sent += 1;
            done += length;
        }
        self.pending.drain(..done);
        self.sent != before
    }

    /// The first notice that it has not been sent: its place, or where to ask for it.
    fn next(&self) -> (u64, u32) {
        self.from
    }
}

/// Bytes of the frame that begins here.
fn frame_bytes(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The place behind a notice.
fn after(bytes: &[u8]) -> Option<(u64, u32)> {
    let frame = frame::Frame::parse(bytes).ok()??;
    let behind = |sequence: U64, part: U32| (sequence.get(), part.get() + 1);
    if let Some(m) = frame.message::<Swapped>() {
        return Some(behind(m.sequence, m.part));
    }
    if let Some(m) = frame.message::<SwapReversed>() {
        return Some(behind(m.sequence, m.part));
    }
    if let Some(m) = frame.message::<FundsChanged>() {
        return Some(behind(m.sequence, m.part));
    }
    if let Some(m) = frame.message::<CreditsChanged>() {
        return Some(behind(m.sequence, m.part));
    }
    if let Some(m) = frame.message::<TiersSwapped>() {
        return Some(behind(m.sequence, m.part));
    }
    frame.message::<CaughtUp>().map(|m| (m.sequence.get() + 1, 0))
}

fn unsubscribed(sequence: u64, part: u32, code: u8) -> Unsubscribed {
    Unsubscribed { sequence: sequence.into(), part: part.into(), code, reserved: [0; 3] }
}

fn push_back<B: Body>(backlog: &mut VecDeque<(u32, Vec<u8>)>, connection: u32, body: &B) {
    let mut bytes = [0; FRAME_BYTES_MAX];
    let length = frame::encode(0, body, &mut bytes);
    backlog.push_back((connection, bytes[..length].to_vec()));
}

fn push(frames: &mut Producer, connection: u32, frame: &[u8]) -> bool {
    let head = Delivery { connection: connection.into(), slot: ANY.into() };
    frames.try_push(TO_CONNECTION, &[head.as_bytes(), frame]).is_ok()
}
