//! Threads that drive the sessions, each a share of them, without ever blocking on one.

use crate::LoadError;
use crate::check::{Asked, Counts, Violation};
use crate::report::{Histogram, Tally, histogram};
use crate::schedule::Schedule;
use crate::session::{Session, Stop};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Requests a session leaves unanswered at most; what is due beyond waits, and its clock runs.
pub const UNANSWERED_MAX: usize = 1 << 14;
/// How long the last replies may take after the last request.
const GRACE: Duration = Duration::from_secs(10);
/// How often the last cancels are tried.
const CLOSING_ROUNDS_MAX: usize = 1000;
/// How often a thread looks at every session, so that heartbeats go out, and tells how it goes.
const SWEEP_NS: u64 = 250_000_000;
/// How often a session that found no room to send tries again.
const RETRY_NS: u64 = 1_000_000;
/// Requests sent before the sockets are looked at again.
const SENDS_PER_TURN: usize = 1024;
/// Events taken at once.
const EVENTS: usize = 1024;

/// How it goes, for the live line: reset by its reader.
#[derive(Debug)]
pub struct Live {
    /// Latency of orders since last read, in nanoseconds.
    pub order_ack_ns: Histogram,
    /// Totals of each thread so far.
    pub counts: Vec<Counts>,
}

/// What all threads share.
#[derive(Debug)]
pub struct Shared {
    /// For the live line.
    pub live: Mutex<Live>,
    /// Ends every thread early.
    pub stop: AtomicBool,
}

impl Shared {
    /// For `threads` threads.
    pub fn new(threads: usize) -> Shared {
        let live = Live { order_ack_ns: histogram(), counts: vec![Counts::default(); threads] };
        Shared { live: Mutex::new(live), stop: AtomicBool::new(false) }
    }
}

/// When requests are sent.
#[derive(Clone, Debug)]
pub enum Pace {
    /// When they are due, whatever comes back.
    Open(Schedule),
    /// When an answer makes room.
    Closed {
        /// Requests each session keeps unanswered.
        depth: usize,
    },
}

/// A part of a run.
#[derive(Clone, Debug)]
pub struct Phase {
    /// When requests are sent.
    pub pace: Pace,
    /// When it ends at the latest, nanoseconds from the start.
    pub end_ns: u64,
    /// Whether its latencies count.
    pub timed: bool,
    /// Where a flow file's part ends.
    pub records_end: usize,
}

/// What a thread found.
#[derive(Debug)]
pub struct Outcome {
    /// Counts of its sessions.
    pub counts: Counts,
    /// Latencies.
    pub tally: Tally,
    /// Nanoseconds from the start to the end of the timed phase.
    pub timed_ns: u64,
    /// Requests due that were not sent before the end, because too many were unanswered.
    pub unsent: u64,
    /// Fills of a flow file that its sessions were told of.
    pub flow: crate::meflow::Totals,
    /// The first violation, with the session's number.
    pub violation: Option<(usize, Violation)>,
}

/// One thread's share of the sessions.
pub struct Worker<'a> {
    number: usize,
    sessions: Vec<Session<'a>>,
    /// Due times of sessions that have something to send, earliest first.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// When the next request of a session was due that could not be sent then.
    blocked: Vec<Option<u64>>,
    /// How many of those there are.
    blocked_count: usize,
    /// Sessions that may have something to read.
    ready: Vec<usize>,
    is_ready: Vec<bool>,
    /// Sessions whose buffers the daemon did not take whole.
    unflushed: Vec<usize>,
    poll: Poll,
    events: Events,
    shared: &'a Shared,
    start: Instant,
    sweep_at_ns: u64,
    retry_at_ns: u64,
    timed: bool,
    recent: Histogram,
    outcome: Outcome,
}

enum Failure {
    Session(usize, Stop),
    Host(io::Error),
}

fn at<S: Into<Stop>>(session: usize) -> impl Fn(S) -> Failure {
    move |stop| Failure::Session(session, stop.into())
}

impl<'a> Worker<'a> {
    /// For sessions that are logged on.
    ///
    /// # Errors
    /// [`LoadError::Host`].
    pub fn new(
        number: usize,
        sessions: Vec<Session<'a>>,
        tally: Tally,
        shared: &'a Shared,
    ) -> Result<Worker<'a>, LoadError> {
        let poll = Poll::new()?;
        for (at, session) in sessions.iter().enumerate() {
            let fd = session.client.as_fd().as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), Token(at), Interest::READABLE)?;
        }
        let count = sessions.len();
        Ok(Worker {
            number,
            sessions,
            due: BinaryHeap::with_capacity(count),
            blocked: vec![None; count],
            blocked_count: 0,
            ready: Vec::with_capacity(count),
            is_ready: vec![false; count],
            unflushed: Vec::new(),
            poll,
            events: Events::with_capacity(EVENTS),
            shared,
            start: Instant::now(),
            sweep_at_ns: 0,
            retry_at_ns: 0,
            timed: false,
            recent: histogram(),
            outcome: Outcome {
                counts: Counts::default(),
                tally,
                timed_ns: 0,
                unsent: 0,
                flow: crate::meflow::Totals::default(),
                violation: None,
            },
        })
    }

    /// Goes through the phases, the timed one from the moment that `start` returns; then waits for
    /// what is unanswered, cancels what rests, and checks all of it. A failed check stops every
    /// thread.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn run(
        mut self,
        phases: &[Phase],
        start: impl Fn() -> Instant,
    ) -> Result<Outcome, LoadError> {
        // Sleeps end within microseconds of when they should, not within the default fifty.
        nix::sys::prctl::set_timerslack(1).map_err(io::Error::from)?;
        let result = self.phases(phases, start).and_then(|()| self.settle());
        self.count();
        if result.is_err() {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        match result {
            Ok(()) => Ok(self.outcome),
            Err(Failure::Host(error)) => Err(error.into()),
            Err(Failure::Session(session, Stop::Client(source))) => {
                Err(LoadError::Session { session, source })
            }
            Err(Failure::Session(_, Stop::Record(error))) => Err(error.into()),
            Err(Failure::Session(session, Stop::Check(violation))) => {
                self.outcome.violation = Some((session, violation));
                Ok(self.outcome)
            }
        }
    }

    fn phases(&mut self, phases: &[Phase], start: impl Fn() -> Instant) -> Result<(), Failure> {
        for phase in phases {
            if phase.timed {
                // All threads begin at one moment, and no phase reaches into the next.
                self.start = start();
                std::thread::sleep(self.start.saturating_duration_since(Instant::now()));
                (self.sweep_at_ns, self.retry_at_ns) = (0, 0);
            }
            self.timed = phase.timed;
            self.drive(phase)?;
            if phase.timed {
                self.outcome.timed_ns = self.now_ns();
                self.count_unsent(&phase.pace);
            }
            self.await_answers()?;
        }
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn count_unsent(&mut self, pace: &Pace) {
        let Pace::Open(schedule) = pace else { return };
        let turns = schedule.turns();
        let left = |session: &Session<'_>| match (&session.source, session.turn()) {
            (crate::session::Source::Drawn { turn: (_, all), .. }, Some(next)) => {
                turns.saturating_sub(next).div_ceil(*all)
            }
            _ => 0,
        };
        self.outcome.unsent = self.sessions.iter().map(left).sum();
    }

    /// Sends until the phase's end, or until nothing more is to be sent.
    fn drive(&mut self, phase: &Phase) -> Result<(), Failure> {
        self.due.clear();
        self.blocked.fill(None);
        self.blocked_count = 0;
        for at in 0..self.sessions.len() {
            self.sessions[at].go_on_to(phase.records_end);
            self.schedule(at, &phase.pace);
        }
        let mut moved_at = Instant::now();
        while !self.stopped() {
            let now_ns = self.now_ns();
            let mut moved = self.send_due(&phase.pace, now_ns)?;
            let waiting = self.blocked_count > 0;
            // The last steps are due just before the end: they were sent after it.
            if now_ns >= phase.end_ns || (self.due.is_empty() && !waiting) {
                break;
            }
            let next_ns = self.due.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
            self.wait(next_ns.min(phase.end_ns), waiting)?;
            moved |= self.receive(&phase.pace)?;
            if moved || !waiting {
                moved_at = Instant::now();
            } else if moved_at.elapsed() > GRACE {
                break;
            }
        }
        Ok(())
    }

    /// Notes when the session's next request is due, if it has one.
    fn schedule(&mut self, at: usize, pace: &Pace) {
        let session = &self.sessions[at];
        let Some(turn) = session.turn() else { return };
        let due = match pace {
            Pace::Open(schedule) => schedule.due_ns(turn).map(|due| session.profile.due_ns(due)),
            Pace::Closed { .. } => Some(self.now_ns()),
        };
        self.due.extend(due.map(|due| Reverse((due, at))));
    }

    /// Sends what is due. True if there was something.
    fn send_due(&mut self, pace: &Pace, now_ns: u64) -> Result<bool, Failure> {
        let limit = match pace {
            Pace::Open(_) => UNANSWERED_MAX,
            Pace::Closed { depth } => *depth,
        };
        let mut dirty = std::mem::take(&mut self.unflushed);
        let mut sent = 0;
        while sent < SENDS_PER_TURN
            && let Some(&Reverse((due_ns, at))) = self.due.peek()
            && due_ns <= now_ns
        {
            self.due.pop();
            let session = &mut self.sessions[at];
            let number = session.number;
            if session.checker.unanswered() >= limit
                || !session.send_next(now_ns, due_ns).map_err(self::at(number))?
            {
                self.blocked[at] = Some(due_ns);
                self.blocked_count += 1;
                continue;
            }
            if self.timed {
                self.outcome.tally.sent(now_ns.saturating_sub(due_ns));
            }
            sent += 1;
            dirty.push(at);
            self.schedule(at, pace);
        }
        dirty.sort_unstable();
        dirty.dedup();
        for at in dirty {
            let session = &mut self.sessions[at];
            let number = session.number;
            if !session.client.try_flush().map_err(self::at(number))? {
                self.unflushed.push(at);
            }
        }
        Ok(sent > 0)
    }

    /// Sleeps until `until_ns`, or until a session has something to read.
    fn wait(&mut self, until_ns: u64, blocked: bool) -> Result<(), Failure> {
        let now_ns = self.now_ns();
        if now_ns >= self.sweep_at_ns {
            self.sweep_at_ns = now_ns + SWEEP_NS;
            (0..self.sessions.len()).for_each(|at| self.mark_ready(at));
            self.tell();
        }
        let mut until_ns = until_ns.min(self.sweep_at_ns);
        if blocked || !self.unflushed.is_empty() {
            self.retry(now_ns);
            until_ns = until_ns.min(self.retry_at_ns);
        }
        if self.ready.is_empty() && until_ns > now_ns {
            let timeout = TimeSpec::from_duration(Duration::from_nanos(until_ns - now_ns));
            sleep_until_readable(self.poll.registry().as_fd(), timeout).map_err(Failure::Host)?;
        }
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Failure::Host(error));
            }
            _ => {}
        }
        let tokens: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        tokens.into_iter().for_each(|at| self.mark_ready(at));
        Ok(())
    }

    /// From time to time lets sessions that found no room try again.
    fn retry(&mut self, now_ns: u64) {
        if now_ns < self.retry_at_ns {
            return;
        }
        self.retry_at_ns = now_ns + RETRY_NS;
        for at in 0..self.sessions.len() {
            let due_ns = self.blocked[at].take();
            self.due.extend(due_ns.map(|due_ns| Reverse((due_ns, at))));
        }
        self.blocked_count = 0;
    }

    fn mark_ready(&mut self, at: usize) {
        if !std::mem::replace(&mut self.is_ready[at], true) {
            self.ready.push(at);
        }
    }

    /// Takes everything that came for the ready sessions. True if there was something.
    fn receive(&mut self, pace: &Pace) -> Result<bool, Failure> {
        let mut any = false;
        for at in std::mem::take(&mut self.ready) {
            self.is_ready[at] = false;
            let session = &mut self.sessions[at];
            let (number, profile) = (session.number, session.profile);
            let (tally, recent, timed) = (&mut self.outcome.tally, &mut self.recent, self.timed);
            let came = session
                .receive(self.start, |answer, now_ns| {
                    let order = match answer.asked {
                        Asked::Order(_) => true,
                        Asked::Cancel { closing: false, .. } => false,
                        Asked::Cancel { closing: true, .. } => return,
                    };
                    if timed {
                        tally.answered(profile, order, answer.intended_ns, now_ns);
                    }
                    if timed && order {
                        recent.saturating_record(now_ns.saturating_sub(answer.intended_ns));
                    }
                })
                .map_err(self::at(number))?;
            any |= came;
            if !session.client.prepare_wait() {
                self.mark_ready(at);
            }
            if came && let Some(due_ns) = self.blocked[at].take() {
                self.blocked_count -= 1;
                // In a closed loop a request is due when an answer makes room for it.
                let closed = matches!(pace, Pace::Closed { .. });
                let due_ns = if closed { self.now_ns() } else { due_ns };
                self.due.push(Reverse((due_ns, at)));
            }
        }
        Ok(any)
    }

    /// Waits for the last replies, cancels what rests, and checks that nothing is left.
    fn settle(&mut self) -> Result<(), Failure> {
        self.timed = false;
        for _ in 0..CLOSING_ROUNDS_MAX {
            if self.stopped() {
                return Ok(());
            }
            let now_ns = self.now_ns();
            for session in &mut self.sessions {
                let number = session.number;
                session.cancel_all(now_ns).map_err(at(number))?;
            }
            self.await_answers()?;
            // A cancel that was refused (a full queue) is tried again.
            if self.sessions.iter().all(|session| session.checker.cancellable() == 0) {
                break;
            }
        }
        if self.stopped() {
            return Ok(());
        }
        for session in &self.sessions {
            session.check_end().map_err(at(session.number))?;
        }
        Ok(())
    }

    fn await_answers(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + GRACE;
        let pace = Pace::Closed { depth: 0 };
        self.due.clear();
        self.blocked.fill(None);
        self.blocked_count = 0;
        self.unflushed = (0..self.sessions.len()).collect();
        while !self.stopped()
            && Instant::now() < deadline
            && self.sessions.iter().any(|session| session.checker.unanswered() > 0)
        {
            self.send_due(&pace, 0)?;
            self.wait(u64::MAX, false)?;
            self.receive(&pace)?;
        }
        if self.stopped() {
            return Ok(());
        }
        for session in &self.sessions {
            let checked = session.checker.check_all_answered();
            checked.map_err(at(session.number))?;
        }
        Ok(())
    }

    fn count(&mut self) {
        self.outcome.counts = Counts::default();
        self.outcome.flow = crate::meflow::Totals::default();
        for session in &self.sessions {
            self.outcome.counts.add(&session.checker.counts);
            if let crate::session::Source::File(part) = &session.source {
                let flow = &mut self.outcome.flow;
                flow.trades += part.totals.trades;
                flow.volume += part.totals.volume;
                flow.notional += part.totals.notional;
                flow.hash = part.totals.hash;
            }
        }
    }

    /// Tells the live line how it goes.
    fn tell(&mut self) {
        self.count();
        // A thread that panicked while telling leaves whole values behind.
        let mut live = self.shared.live.lock().unwrap_or_else(|error| error.into_inner());
        live.counts[self.number].clone_from(&self.outcome.counts);
        live.order_ack_ns.add(&self.recent).expect("histograms of one range");
        self.recent.reset();
    }
}

/// Sleeps at most `timeout`. The poll's own wait counts in milliseconds, which is too coarse for
/// requests that are due microseconds apart.
fn sleep_until_readable(poll: BorrowedFd<'_>, timeout: TimeSpec) -> io::Result<()> {
    match ppoll(&mut [PollFd::new(poll, PollFlags::POLLIN)], Some(timeout), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
