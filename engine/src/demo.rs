//! The demo: a real daemon, real tenant processes, agents that trade from what their processes
//! really used, and a live view. Everything lives in a temporary directory and is gone at the end.

mod agent;
mod stage;
mod tenant;
mod view;

pub use tenant::work;

use agent::{Agent, Seen};
use hdrhistogram::Histogram;
use stage::Stage;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Why the demo failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Longest latency recorded, nanoseconds.
const LATENCY_MAX_NS: u64 = 10_000_000_000;

/// What agents and view share.
pub struct Shared {
    /// Order-to-answer latency, nanoseconds.
    pub latency: Mutex<Histogram<u64>>,
    /// What each agent saw last, by tenant.
    pub seen: Mutex<Vec<Seen>>,
    /// The demo is over.
    pub over: AtomicBool,
}

impl Shared {
    fn new(tenants: usize) -> Result<Shared, Failure> {
        Ok(Shared {
            latency: Mutex::new(Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)?),
            seen: Mutex::new(vec![Seen::default(); tenants]),
            over: AtomicBool::new(false),
        })
    }

    /// Percentiles 50, 99 and 99.9 of the latency, and how many were measured.
    pub fn percentiles(&self) -> ([u64; 3], u64) {
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let at = [50.0, 99.0, 99.9].map(|percentile| latency.value_at_percentile(percentile));
        (at, latency.len())
    }
}

/// Runs the demo for `seconds` and prints its summary.
///
/// # Errors
/// Whatever kept it from running, or from trading.
pub fn run(seconds: u64) -> Result<(), Failure> {
    let mut stage = Stage::set()?;
    let shared = Arc::new(Shared::new(stage.tenants.len())?);
    let mut agents = Vec::new();
    for at in 0..stage.tenants.len() {
        let mut agent = Agent::new(at, &stage, shared.clone())?;
        agents.push(
            std::thread::Builder::new().name(format!("agent {at}")).spawn(move || agent.run())?,
        );
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut view = view::View::open(&stage)?;
    while Instant::now() < end && !stage.interrupted() {
        std::thread::sleep(
            Duration::from_secs(1).min(end.saturating_duration_since(Instant::now())),
        );
        view.show(&mut stage, &shared, end)?;
    }
    shared.over.store(true, Ordering::Relaxed);
    for agent in agents {
        agent.join().map_err(|_| "an agent has panicked")??;
    }
    view.summary(&mut stage, &shared)?;
    stage.strike()
}
