//! Threads that drive the sessions, each a share of them, without ever blocking on one.

use crate::check::{Asked, Checker, Counts, Violation};
use crate::report::{Histogram, histogram};
use crate::setup::Market;
use crate::steps::{Flow, Schedule, Step};
use crate::{LoadError, Options};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vendue_wire::client::{Client, ClientError, Identity};
use vendue_wire::code::{OrderType, TimeInForce};
use vendue_wire::message::{Cancel, NewOrder};

/// Requests a session leaves unanswered at most; what is due beyond waits, and its clock runs.
const UNANSWERED_MAX: usize = 1 << 14;
/// How long the last replies may take after the last request.
const GRACE: Duration = Duration::from_secs(10);
/// How often the last cancels are tried.
const CLOSING_ROUNDS_MAX: usize = 100;
/// How often a thread looks at every session, so that heartbeats go out, and tells how it goes.
const SWEEP_NS: u64 = 250_000_000;

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
    stop: AtomicBool,
}

impl Shared {
    /// For `threads` threads.
    pub fn new(threads: usize) -> Shared {
        let live = Live { order_ack_ns: histogram(), counts: vec![Counts::default(); threads] };
        Shared { live: Mutex::new(live), stop: AtomicBool::new(false) }
    }
}

/// What a thread found.
#[derive(Debug)]
pub struct Outcome {
    /// Counts of its sessions.
    pub counts: Counts,
    /// From when an order was due to its answer, nanoseconds.
    pub order_ack_ns: Histogram,
    /// From when a cancel was due to its answer, nanoseconds.
    pub cancel_ack_ns: Histogram,
    /// Requests due that were not sent before the end, because too many were unanswered.
    pub unsent: u64,
    /// The first violation, with the session's number.
    pub violation: Option<(usize, Violation)>,
}

/// Why a session stops.
enum Stop {
    Check(Violation),
    Client(ClientError),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Stop {
        Stop::Check(violation)
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Stop {
        match error {
            ClientError::Gap { expected, got } => Stop::Check(Violation::Gap { expected, got }),
            error => Stop::Client(error),
        }
    }
}

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Open(Schedule),
    Closed { depth: usize, end_ns: u64 },
}

struct Session {
    number: usize,
    client: Client,
    checker: Checker,
    flow: Flow,
    instance: u32,
    book: u16,
    /// Steps sent so far.
    step: u64,
    ready: bool,
}

impl Session {
    fn connect(options: &Options, market: &Market, number: usize) -> Result<Session, LoadError> {
        let seat = market.seats[number];
        let identity = Identity {
            token: options.token,
            cancel_on_disconnect: true,
            ..Identity::tenant(seat.account)
        };
        let client = Client::connect(&options.endpoint, &identity)
            .map_err(|source| LoadError::Session { session: number, source })?;
        Ok(Session {
            number,
            client,
            checker: Checker::default(),
            flow: Flow::new(options.seed, number as u64, market.price_ticks_max),
            instance: seat.instance,
            book: options.book,
            step: 0,
            ready: true,
        })
    }

    /// When the next request is due; `None`: not before something is answered, or never.
    fn due_ns(&self, pace: Pace, now_ns: u64) -> Option<u64> {
        let unanswered = self.checker.unanswered();
        match pace {
            Pace::Open(schedule) => schedule
                .due_ns(self.number as u64, self.step)
                .filter(|_| unanswered < UNANSWERED_MAX),
            Pace::Closed { depth, end_ns } => {
                (unanswered < depth && now_ns < end_ns).then_some(now_ns)
            }
        }
    }

    /// Sends what is due. Returns when the next request is.
    fn send_due(&mut self, pace: Pace, now_ns: u64) -> Result<Option<u64>, Stop> {
        let mut sent = false;
        let next = loop {
            match self.due_ns(pace, now_ns) {
                Some(due) if due <= now_ns => self.send_step(due)?,
                next => break next,
            }
            sent = true;
        };
        if sent {
            self.client.flush()?;
        }
        Ok(next)
    }

    fn send_step(&mut self, intended_ns: u64) -> Result<(), Stop> {
        self.step += 1;
        match self.flow.next(self.checker.resting_at_most(), self.checker.cancellable()) {
            Step::Cancel { pick } => {
                let Some((client_id, handle)) = self.checker.take_cancellable(pick) else {
                    unreachable!("a cancel is chosen only if there is something to cancel")
                };
                let sequence = self.client.send(&Cancel { handle: handle.into() })?;
                let asked = Asked::Cancel { client_id, handle, closing: false };
                self.checker.sent(sequence, asked, intended_ns);
            }
            Step::Order { side, price_ticks, quantity, rests } => {
                let client_id = self.client.next_client_id();
                let force = if rests { TimeInForce::Gtc } else { TimeInForce::Ioc };
                let order = NewOrder {
                    client_id: client_id.into(),
                    instance: self.instance.into(),
                    price_ticks: price_ticks.into(),
                    quantity: quantity.into(),
                    book: self.book.into(),
                    side: side as u8,
                    order_type: OrderType::Limit as u8,
                    time_in_force: force as u8,
                    ..NewOrder::zeroed()
                };
                let sequence = self.client.send(&order)?;
                let asked = Asked::Order { client_id, side, price_ticks, quantity, rests };
                self.checker.sent(sequence, asked, intended_ns);
            }
        }
        Ok(())
    }

    /// Cancels every resting order: one by one, since others may trade for this instance too.
    fn cancel_all(&mut self, now_ns: u64) -> Result<(), Stop> {
        while let Some((client_id, handle)) = self.checker.take_cancellable(0) {
            let sequence = self.client.send(&Cancel { handle: handle.into() })?;
            let asked = Asked::Cancel { client_id, handle, closing: true };
            self.checker.sent(sequence, asked, now_ns);
        }
        Ok(self.client.flush()?)
    }
}

/// One thread's share of the sessions.
pub struct Worker<'a> {
    number: usize,
    sessions: Vec<Session>,
    pace: Pace,
    shared: &'a Shared,
    start: Instant,
    end_ns: u64,
    sweep_at_ns: u64,
    recent: Histogram,
    outcome: Outcome,
}

impl<'a> Worker<'a> {
    /// Connects sessions `number`, `number + threads`...
    ///
    /// # Errors
    /// [`LoadError::Session`].
    pub fn connect(
        options: &Options,
        market: &Market,
        (number, threads): (usize, usize),
        shared: &'a Shared,
    ) -> Result<Worker<'a>, LoadError> {
        let sessions = (number..options.sessions)
            .step_by(threads)
            .map(|session| Session::connect(options, market, session))
            .collect::<Result<Vec<_>, _>>()?;
        let end_ns = options.time.as_nanos() as u64;
        let pace = match options.rate {
            0 => Pace::Closed { depth: options.depth.min(UNANSWERED_MAX), end_ns },
            rate => Pace::Open(Schedule { rate, sessions: options.sessions as u64, end_ns }),
        };
        Ok(Worker {
            number,
            sessions,
            pace,
            shared,
            start: Instant::now(),
            end_ns,
            sweep_at_ns: 0,
            recent: histogram(),
            outcome: Outcome {
                counts: Counts::default(),
                order_ack_ns: histogram(),
                cancel_ack_ns: histogram(),
                unsent: 0,
                violation: None,
            },
        })
    }

    /// Sends from `start` to the end, waits for what is unanswered, cancels what rests, and
    /// checks all of it. A failed check stops every thread.
    ///
    /// # Errors
    /// [`LoadError::Session`] or [`LoadError::Host`].
    pub fn run(mut self, start: Instant) -> Result<Outcome, LoadError> {
        // Sleeps end within microseconds of when they should, not within the default fifty.
        nix::sys::prctl::set_timerslack(1)?;
        self.start = start;
        std::thread::sleep(start.saturating_duration_since(Instant::now()));
        let result = self.load().and_then(|()| self.settle());
        self.count();
        if result.is_err() {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        match result {
            Ok(()) => Ok(self.outcome),
            Err(Failure::Host(errno)) => Err(errno.into()),
            Err(Failure::Session(session, Stop::Client(source))) => {
                Err(LoadError::Session { session, source })
            }
            Err(Failure::Session(session, Stop::Check(violation))) => {
                self.outcome.violation = Some((session, violation));
                Ok(self.outcome)
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn load(&mut self) -> Result<(), Failure> {
        while !self.stopped() {
            // The last steps are due just before the end: send once more after it.
            let now_ns = self.now_ns();
            let mut wake_ns = self.end_ns.max(now_ns);
            for session in &mut self.sessions {
                let next = session.send_due(self.pace, now_ns).map_err(at(session.number))?;
                wake_ns = wake_ns.min(next.unwrap_or(wake_ns));
            }
            if now_ns >= self.end_ns {
                break;
            }
            self.wait(wake_ns.saturating_sub(now_ns))?;
            self.receive()?;
        }
        if let Pace::Open(schedule) = self.pace {
            self.outcome.unsent = self
                .sessions
                .iter()
                .map(|session| schedule.steps(session.number as u64) - session.step)
                .sum();
        }
        Ok(())
    }

    /// Waits for the last replies, cancels what rests, and checks that nothing is left.
    fn settle(&mut self) -> Result<(), Failure> {
        self.await_answers()?;
        for _ in 0..CLOSING_ROUNDS_MAX {
            if self.stopped() {
                return Ok(());
            }
            let now_ns = self.now_ns();
            for session in &mut self.sessions {
                session.cancel_all(now_ns).map_err(at(session.number))?;
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
            let checked = session.checker.check_none_open();
            checked.map_err(Stop::Check).map_err(at(session.number))?;
        }
        Ok(())
    }

    fn await_answers(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + GRACE;
        while !self.stopped()
            && Instant::now() < deadline
            && self.sessions.iter().any(|session| session.checker.unanswered() > 0)
        {
            self.wait(SWEEP_NS)?;
            self.receive()?;
        }
        if self.stopped() {
            return Ok(());
        }
        for session in &self.sessions {
            let checked = session.checker.check_all_answered();
            checked.map_err(Stop::Check).map_err(at(session.number))?;
        }
        Ok(())
    }

    /// Sleeps until a session has something to read or `timeout_ns` has passed.
    fn wait(&mut self, timeout_ns: u64) -> Result<(), Failure> {
        let now_ns = self.now_ns();
        if now_ns >= self.sweep_at_ns {
            self.sweep_at_ns = now_ns + SWEEP_NS;
            self.sessions.iter_mut().for_each(|session| session.ready = true);
            self.tell();
            return Ok(());
        }
        let mut timeout_ns = timeout_ns.min(self.sweep_at_ns - now_ns);
        for session in &mut self.sessions {
            session.ready = !session.client.prepare_wait();
            if session.ready {
                timeout_ns = 0;
            }
        }
        let mut polled: Vec<PollFd<'_>> = self
            .sessions
            .iter()
            .map(|session| PollFd::new(session.client.as_fd(), PollFlags::POLLIN))
            .collect();
        let timeout = TimeSpec::from_duration(Duration::from_nanos(timeout_ns));
        match ppoll(&mut polled, Some(timeout), None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(Failure::Host(errno)),
        }
        let readable: Vec<bool> = polled.iter().map(|fd| fd.any() != Some(false)).collect();
        for (session, readable) in self.sessions.iter_mut().zip(readable) {
            session.ready |= readable;
        }
        Ok(())
    }

    /// Takes everything that came for the ready sessions.
    fn receive(&mut self) -> Result<(), Failure> {
        for session in self.sessions.iter_mut().filter(|session| session.ready) {
            let number = session.number;
            let mut take = || -> Result<(), Stop> {
                while let Some(frame) = session.client.try_recv()? {
                    let Some(answer) = session.checker.received(&frame)? else { continue };
                    let now_ns = self.start.elapsed().as_nanos() as u64;
                    let latency_ns = now_ns.saturating_sub(answer.intended_ns);
                    match answer.asked {
                        Asked::Order { .. } => {
                            self.outcome.order_ack_ns.saturating_record(latency_ns);
                            self.recent.saturating_record(latency_ns);
                        }
                        Asked::Cancel { closing: false, .. } => {
                            self.outcome.cancel_ack_ns.saturating_record(latency_ns);
                        }
                        Asked::Cancel { closing: true, .. } => {}
                    }
                }
                Ok(())
            };
            take().map_err(at(number))?;
        }
        Ok(())
    }

    fn count(&mut self) {
        self.outcome.counts = Counts::default();
        for session in &self.sessions {
            self.outcome.counts.add(&session.checker.counts);
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

enum Failure {
    Session(usize, Stop),
    Host(Errno),
}

fn at<S: Into<Stop>>(session: usize) -> impl Fn(S) -> Failure {
    move |stop| Failure::Session(session, stop.into())
}
