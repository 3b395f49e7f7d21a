//! What the daemon knows of itself: counters every stage writes and `hvctl status` reads, and the
//! faults that stand. Statistics only: no decision about money or order depends on them, except
//! `accepting`, which closes the door when the journal has stopped.
//!
//! Where stages are processes of their own the numbers are words that all of them map, and each
//! process tells the gateway, which shows them, of its faults.

use crate::clock::Clock;
use crate::pipeline::record::{Delivery, FAULT};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vendue_wire::memory::Words;
use vendue_wire::message::{FaultRow, StatusRow, field_cut};
use vendue_wire::ring::Producer;
use zerocopy::{FromBytes, IntoBytes};

/// Faults kept at most of a process; further ones only count.
const FAULTS_MAX: usize = 64;
/// Words of [`Health`]: its counts and its flags.
pub const WORDS: usize = 18;
/// Word that is not 0 once nothing that changes state is accepted any more.
const REFUSING: usize = 15;
/// Word that is not 0 once the daemon is asked to stop.
const STOPPING: usize = 16;
/// Word that is not 0 once there is an actuator.
const ACTING: usize = 17;

/// Where the numbers are.
#[derive(Debug)]
enum Numbers {
    /// Of one process.
    Own(Box<[AtomicU64]>),
    /// Of several.
    Shared(Words),
}

impl Numbers {
    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        match self {
            Numbers::Own(words) => &words[at],
            Numbers::Shared(words) => &words.words()[at],
        }
    }
}

/// A number one stage writes and others read.
#[derive(Debug)]
pub struct Count {
    numbers: Arc<Numbers>,
    at: usize,
}

impl Count {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.numbers.word(self.at).store(value, Ordering::Relaxed);
    }

    /// Adds to it.
    pub fn add(&self, value: u64) {
        self.numbers.word(self.at).fetch_add(value, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn get(&self) -> u64 {
        self.numbers.word(self.at).load(Ordering::Relaxed)
    }
}

/// A fault that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which part reports it.
    pub source: &'static str,
    /// What is wrong and what to do.
    pub text: String,
    /// When it was first seen, nanoseconds since 1970 UTC.
    pub since_ns: u64,
    /// How often it was seen.
    pub count: u64,
}

/// The daemon's state, shared by all stages.
#[derive(Debug)]
#[allow(missing_docs, reason = "the status row's fields, described there")]
pub struct Health {
    pub sequenced: Count,
    pub durable: Count,
    pub executed: Count,
    pub snapshot: Count,
    pub trades: Count,
    pub refused: Count,
    pub limits_written: Count,
    pub limits_spared: Count,
    pub limits_failed: Count,
    pub limits_drifted: Count,
    pub fragmentation_percent: Count,
    pub accounts: Count,
    pub instances: Count,
    pub orders: Count,
    pub connections: Count,
    numbers: Arc<Numbers>,
    faults: Mutex<Vec<Fault>>,
    /// True where this process's faults are still to be told.
    untold: AtomicBool,
    /// The faults of other processes, by process.
    elsewhere: Mutex<BTreeMap<u32, Vec<FaultRow>>>,
    clock: Clock,
    started: Instant,
    dry_run: bool,
    journal_sync: bool,
}

impl Health {
    /// A healthy daemon's state.
    pub fn new(dry_run: bool, journal_sync: bool, clock: Clock) -> Health {
        let words = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Health::over(Numbers::Own(words), dry_run, journal_sync, clock)
    }

    /// As [`Health::new`], of a daemon of several processes, which share `words`.
    pub fn shared(words: Words, dry_run: bool, journal_sync: bool, clock: Clock) -> Health {
        Health::over(Numbers::Shared(words), dry_run, journal_sync, clock)
    }

    fn over(numbers: Numbers, dry_run: bool, journal_sync: bool, clock: Clock) -> Health {
        let numbers = Arc::new(numbers);
        let count = |at: usize| {
            assert!(at < REFUSING, "count {at} has no word");
            Count { numbers: numbers.clone(), at }
        };
        Health {
            sequenced: count(0),
            durable: count(1),
            executed: count(2),
            snapshot: count(3),
            trades: count(4),
            refused: count(5),
            limits_written: count(6),
            limits_spared: count(7),
            limits_failed: count(8),
            limits_drifted: count(9),
            accounts: count(10),
            instances: count(11),
            orders: count(12),
            connections: count(13),
            fragmentation_percent: count(14),
            faults: Mutex::new(Vec::new()),
            untold: AtomicBool::new(false),
            elsewhere: Mutex::default(),
            started: clock.instant(),
            numbers,
            clock,
            dry_run,
            journal_sync,
        }
    }

    /// The memory that other processes map, if there are others.
    pub fn words(&self) -> Option<BorrowedFd<'_>> {
        match &*self.numbers {
            Numbers::Own(_) => None,
            Numbers::Shared(words) => Some(words.as_fd()),
        }
    }

    fn flag(&self, at: usize) -> bool {
        self.numbers.word(at).load(Ordering::Relaxed) != 0
    }

    fn raise(&self, at: usize) {
        self.numbers.word(at).store(1, Ordering::Relaxed);
    }

    /// True while requests that change state are accepted.
    pub fn accepting(&self) -> bool {
        !self.flag(REFUSING)
    }

    /// Accepts nothing that changes state from now on.
    pub fn stop_accepting(&self) {
        self.raise(REFUSING);
    }

    /// True once the daemon is asked to stop.
    pub fn stopping(&self) -> bool {
        self.flag(STOPPING)
    }

    /// Asks the daemon to stop.
    pub fn stop(&self) {
        self.raise(STOPPING);
    }

    /// There is an actuator from now on: if it ends, so does the daemon.
    pub fn act(&self) {
        self.raise(ACTING);
    }

    /// That there is no actuator, if it is a process of its own that has not come.
    fn absent(&self) -> Option<FaultRow> {
        self.words()?;
        let since_ns = self.clock.now_ns().saturating_sub(self.uptime().as_nanos() as u64);
        (!self.flag(ACTING)).then(|| FaultRow {
            since_ns: since_ns.into(),
            count: 1.into(),
            source: field_cut("actuate"),
            text: field_cut(
                "actuator: absent; no limit is written and no use is measured: start \
                 vendued --part actuate",
            ),
        })
    }

    /// Tells the gateway's process of this one's faults if they changed. `process` is any number that
    /// no other process has.
    pub fn tell_faults(&self, process: u32, answers: &mut Producer) {
        if self.words().is_none() || !self.untold.swap(false, Ordering::Relaxed) {
            return;
        }
        let rows = self.own_rows();
        let mut bodies: Vec<&[u8]> = rows.iter().map(IntoBytes::as_bytes).collect();
        // None at all are told as well.
        bodies.extend(rows.is_empty().then_some(&[] as &[u8]));
        for (at, body) in bodies.into_iter().enumerate() {
            let head = Delivery { connection: process.into(), slot: (at as u32).into() };
            if answers.try_push(FAULT, &[head.as_bytes(), body]).is_err() {
                self.untold.store(true, Ordering::Relaxed);
                break;
            }
        }
        answers.flush();
    }

    /// Hears what another process tells in [`Health::tell_faults`].
    pub fn hear_fault(&self, process: u32, at: u32, body: &[u8]) {
        let mut elsewhere =
            self.elsewhere.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let rows = elsewhere.entry(process).or_default();
        if at == 0 {
            rows.clear();
        }
        if let Ok(row) = FaultRow::read_from_bytes(body)
            && rows.len() < FAULTS_MAX
        {
            rows.push(row);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        // A panic elsewhere must not take the list of faults with it.
        self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Reports a fault, or counts it if it stands already.
    pub fn report(&self, source: &'static str, text: String) {
        let mut faults = self.lock();
        if let Some(known) = faults.iter_mut().find(|f| f.source == source && f.text == text) {
            known.count += 1;
            self.untold.store(true, Ordering::Relaxed);
            return;
        }
        tracing::error!(source, "{text}");
        self.untold.store(true, Ordering::Relaxed);
        if faults.len() < FAULTS_MAX {
            faults.push(Fault { source, text, since_ns: self.clock.now_ns(), count: 1 });
        }
    }

    /// Replaces the standing faults of one source.
    pub fn restate(&self, source: &'static str, texts: &[String]) {
        let known: Vec<Fault> = {
            let mut faults = self.lock();
            let before = faults.len();
            faults.retain(|f| f.source != source || texts.contains(&f.text));
            if faults.len() < before {
                self.untold.store(true, Ordering::Relaxed);
            }
            faults.iter().filter(|f| f.source == source).cloned().collect()
        };
        for text in texts.iter().filter(|text| !known.iter().any(|f| f.text == **text)) {
            self.report(source, text.clone());
        }
    }

    fn uptime(&self) -> Duration {
        self.clock.instant().duration_since(self.started)
    }

    /// The status row.
    pub fn status_row(&self) -> StatusRow {
        StatusRow {
            sequenced: self.sequenced.get().into(),
            durable: self.durable.get().into(),
            executed: self.executed.get().into(),
            snapshot: self.snapshot.get().into(),
            trades: self.trades.get().into(),
            limits_written: self.limits_written.get().into(),
            limits_spared: self.limits_spared.get().into(),
            limits_failed: self.limits_failed.get().into(),
            limits_drifted: self.limits_drifted.get().into(),
            uptime_ms: (self.uptime().as_millis() as u64).into(),
            refused: self.refused.get().into(),
            accounts: (self.accounts.get() as u32).into(),
            instances: (self.instances.get() as u32).into(),
            orders: (self.orders.get() as u32).into(),
            connections: (self.connections.get() as u32).into(),
            faults: (self.fault_rows().len() as u32).into(),
            host: self.dry_run.into(),
            journal_sync: self.journal_sync.into(),
            accepting: self.accepting().into(),
            fragmentation_percent: self.fragmentation_percent.get() as u8,
        }
    }

    /// The standing faults, as rows: of this process and of those that told theirs.
    pub fn fault_rows(&self) -> Vec<FaultRow> {
        let mut rows = self.own_rows();
        let elsewhere = self.elsewhere.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rows.extend(elsewhere.values().flatten().copied());
        rows.extend(self.absent());
        rows
    }

    fn own_rows(&self) -> Vec<FaultRow> {
        let faults = self.lock();
        let row = |fault: &Fault| FaultRow {
            since_ns: fault.since_ns.into(),
            count: fault.count.into(),
            source: field_cut(fault.source),
            text: field_cut(&fault.text),
        };
        faults.iter().map(row).collect()
    }
}
