//! Time, as the stages are given it: nobody below [`crate::daemon`] looks at a clock of its own,
//! so that a simulator can set it and a run comes again exactly.

use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where time comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The host's clocks.
    Host,
    /// Hands that somebody sets.
    Set(Arc<Hands>),
}

/// A clock's hands: they move only when they are moved.
#[derive(Debug)]
pub struct Hands {
    start: Instant,
    began_ns: u64,
    elapsed_ns: AtomicU64,
    wall_ns: AtomicU64,
}

impl Hands {
    /// Hands that show `wall_ns` nanoseconds since 1970 UTC.
    pub fn at(wall_ns: u64) -> Hands {
        let (began_ns, wall_ns) = (wall_ns, AtomicU64::new(wall_ns));
        Hands { start: Instant::now(), began_ns, elapsed_ns: AtomicU64::new(0), wall_ns }
    }

    /// Lets time pass.
    pub fn pass(&self, duration: Duration) {
        let ns = duration.as_nanos() as u64;
        self.elapsed_ns.fetch_add(ns, Ordering::Relaxed);
        self.wall_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Sets the wall clock, forward or back, as an operator or a time service does; no time
    /// passes.
    pub fn set_wall(&self, wall_ns: u64) {
        self.wall_ns.store(wall_ns, Ordering::Relaxed);
    }
}

impl Clock {
    /// Nanoseconds since 1970 UTC; may step back.
    pub fn now_ns(&self) -> u64 {
        match self {
            Clock::Host => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos() as u64),
            Clock::Set(hands) => hands.wall_ns.load(Ordering::Relaxed),
        }
    }

    /// Nanoseconds that only go forward, as time does, whoever sets the host's clock: for what is
    /// measured and repeated.
    pub fn steady_ns(&self) -> u64 {
        static START: LazyLock<(Instant, u64)> =
            LazyLock::new(|| (Instant::now(), Clock::Host.now_ns()));
        match self {
            Clock::Host => START.1 + START.0.elapsed().as_nanos() as u64,
            Clock::Set(hands) => hands.began_ns + hands.elapsed_ns.load(Ordering::Relaxed),
        }
    }

    /// Nanoseconds since some moment, going on as [`Clock::steady_ns`] does, a few milliseconds
    /// behind and for much less.
    pub fn coarse_ns(&self) -> u64 {
        match self {
            Clock::Host => {
                let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE);
                now.map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
            }
            Clock::Set(hands) => hands.elapsed_ns.load(Ordering::Relaxed),
        }
    }

    /// A moment to measure from; never steps back.
    pub fn instant(&self) -> Instant {
        match self {
            Clock::Host => Instant::now(),
            Clock::Set(hands) => {
                hands.start + Duration::from_nanos(hands.elapsed_ns.load(Ordering::Relaxed))
            }
        }
    }
}
