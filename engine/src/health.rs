//! What the daemon knows of itself: counters every stage writes and `hvctl status` reads, and the
//! faults that stand. Statistics only: no decision about money or order depends on them, except
//! `accepting`, which closes the door when the journal has stopped.

use crate::clock::Clock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vendue_wire::message::{FaultRow, StatusRow, field_cut};

/// Faults kept at most; further ones only count.
const FAULTS_MAX: usize = 64;

/// A number one stage writes and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to it.
    pub fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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
    pub accounts: Count,
    pub instances: Count,
    pub orders: Count,
    pub connections: Count,
    /// False: requests that change state are refused.
    accepting: AtomicBool,
    /// True: the daemon is asked to stop.
    stopping: AtomicBool,
    /// Raised by SIGHUP, lowered by who reloads.
    pub reloads: AtomicU32,
    faults: Mutex<Vec<Fault>>,
    clock: Clock,
    started: Instant,
    dry_run: bool,
    journal_sync: bool,
}

impl Health {
    /// A healthy daemon's state.
    pub fn new(dry_run: bool, journal_sync: bool, clock: Clock) -> Health {
        Health {
            sequenced: Count::default(),
            durable: Count::default(),
            executed: Count::default(),
            snapshot: Count::default(),
            trades: Count::default(),
            refused: Count::default(),
            limits_written: Count::default(),
            limits_spared: Count::default(),
            limits_failed: Count::default(),
            limits_drifted: Count::default(),
            accounts: Count::default(),
            instances: Count::default(),
            orders: Count::default(),
            connections: Count::default(),
            accepting: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            reloads: AtomicU32::new(0),
            faults: Mutex::new(Vec::new()),
            started: clock.instant(),
            clock,
            dry_run,
            journal_sync,
        }
    }

    /// True while requests that change state are accepted.
    pub fn accepting(&self) -> bool {
        self.accepting.load(Ordering::Relaxed)
    }

    /// Accepts nothing that changes state from now on.
    pub fn stop_accepting(&self) {
        self.accepting.store(false, Ordering::Relaxed);
    }

    /// True once the daemon is asked to stop.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Asks the daemon to stop.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
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
            return;
        }
        tracing::error!(source, "{text}");
        if faults.len() < FAULTS_MAX {
            faults.push(Fault { source, text, since_ns: self.clock.now_ns(), count: 1 });
        }
    }

    /// Replaces the standing faults of one source.
    pub fn restate(&self, source: &'static str, texts: &[String]) {
        let known: Vec<Fault> = {
            let mut faults = self.lock();
            faults.retain(|f| f.source != source || texts.contains(&f.text));
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
            faults: (self.lock().len() as u32).into(),
            host: self.dry_run.into(),
            journal_sync: self.journal_sync.into(),
            accepting: self.accepting().into(),
            reserved: 0,
        }
    }

    /// The standing faults, as rows.
    pub fn fault_rows(&self) -> Vec<FaultRow> {
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
