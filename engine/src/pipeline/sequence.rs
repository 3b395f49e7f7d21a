//! Sequence: gives every command its place in the one order and the only time there is, then
//! hands it to the journal and the machine side by side. Makes the ticks.

use super::record::{Arrival, Ordered, take};
use crate::clock::Clock;
use crate::health::Health;
use crate::machine::command::{Tick, is_query};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vendue_wire::message::{Body, U64};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::{FromBytes, IntoBytes};

/// Commands taken in one turn at most.
const BATCH: usize = 256;
/// The coarse clock is at most so far behind.
const COARSE_NS: u64 = 10_000_000;
/// Room one command may need in each ring, header included.
const ROOM_BYTES: usize = super::journal::RECORD_BYTES_MAX;

/// Time passes at most so much faster or slower than it does, as one in so many parts, while it
/// follows the host's clock.
const SLEW: u64 = 10;
/// The host's clock and ours may be so far apart before it is a fault.
const APART_NS: u64 = 5_000_000_000;

/// The host's clock is asked again after so long: what it shows between is as much later as time
/// has passed, and to ask costs as much as a look at the clock that nobody sets.
const ASK_NS: u64 = 1_000_000;

/// How the host's clock is followed.
#[derive(Debug)]
pub struct Following {
    /// Up to when time has passed, on a clock that nobody sets.
    read_at: Instant,
    /// A moment not after it on a coarser clock, nanoseconds.
    coarse_ns: u64,
    /// When the host's clock was asked last...
    asked_at: Instant,
    /// ...and what it showed, nanoseconds since 1970 UTC.
    host_ns: u64,
    /// It and ours are too far apart, and that was said.
    apart: bool,
}

impl Following {
    /// From now on.
    pub fn begin(clock: &Clock) -> Following {
        let now = clock.instant();
        let (coarse_ns, host_ns) = (clock.coarse_ns(), clock.now_ns());
        Following { read_at: now, coarse_ns, asked_at: now, host_ns, apart: false }
    }

    /// What the host's clock shows, nanoseconds since 1970 UTC.
    fn host_ns(&mut self, clock: &Clock, now: Instant) -> u64 {
        let since_ns = now.duration_since(self.asked_at).as_nanos() as u64;
        if since_ns < ASK_NS {
            return self.host_ns + since_ns;
        }
        (self.asked_at, self.host_ns) = (now, clock.now_ns());
        self.host_ns
    }
}

/// The stage.
pub struct Sequence {
    /// Measured use from the actuator, then requests from the gateway: no flood of requests
    /// keeps use from being paid for.
    pub inputs: [Consumer; 2],
    /// Digests of executed ticks, from the machine.
    pub digests: Consumer,
    /// To the journal.
    pub journal: Producer,
    /// To the machine.
    pub execute: Producer,
    /// Shared counters.
    pub health: Arc<Health>,
    /// The host's time.
    pub clock: Clock,
    /// Last sequence given.
    pub sequence: u64,
    /// Last time given, nanoseconds since 1970 UTC.
    pub time_ns: u64,
    /// How the host's clock is followed.
    pub following: Following,
    /// Time between ticks, nanoseconds.
    pub tick_ns: u64,
    /// When the next tick is due.
    pub next_tick_ns: u64,
    /// Sequence and digest of the newest executed tick.
    pub digest: (u64, u64),
}

impl Sequence {
    /// Takes what arrived. True if there was something.
    pub fn turn(&mut self) -> bool {
        // The clock costs more than a look: while nothing is here, a coarse one says enough.
        if self.inputs.iter().all(Consumer::is_empty) {
            let coarse_ns = self.clock.coarse_ns();
            let idle_ns = coarse_ns.saturating_sub(self.following.coarse_ns) + COARSE_NS;
            // Our time passes a tenth faster at most.
            if self.time_ns + idle_ns + idle_ns / 10 < self.next_tick_ns {
                return false;
            }
            self.following.coarse_ns = coarse_ns;
        }
        self.pass();
        let mut taken = 0;
        if self.time_ns >= self.next_tick_ns && self.room() {
            self.tick();
            taken += 1;
        }
        for at in 0..self.inputs.len() {
            while taken < BATCH && self.room() && self.take(at) {
                taken += 1;
            }
        }
        if taken > 0 {
            self.journal.flush();
            self.execute.flush();
            self.health.sequenced.set(self.sequence);
        }
        taken > 0
    }

    /// Lets time pass: as much as did, a little more or less to follow the host's clock. That may
    /// be set at any moment; ours neither jumps nor stands still for it, or a wrong step would
    /// expire every order, and its correction would stop ticks until the clock has caught up.
    fn pass(&mut self) {
        let now = self.clock.instant();
        let host_ns = self.following.host_ns(&self.clock, now);
        let elapsed_ns = now.duration_since(self.following.read_at).as_nanos() as u64;
        self.following.read_at = now;
        self.time_ns = follow(self.time_ns, host_ns, elapsed_ns);
        let apart = self.time_ns.abs_diff(host_ns) > APART_NS;
        if apart != self.following.apart {
            self.following.apart = apart;
            let text = if host_ns > self.time_ns {
                "the host's clock was set forward; it is followed at a tenth of the speed of time: \
                 restart to follow at once"
            } else {
                "the journal's time is ahead of the host's clock: it passes at nine tenths until \
                 the clock has caught up; check the clock"
            };
            let texts = apart.then(|| text.to_owned());
            self.health.restate("clock", texts.as_slice());
        }
    }

    /// Time until the next tick.
    pub fn due_in(&self) -> Duration {
        Duration::from_nanos(self.next_tick_ns.saturating_sub(self.time_ns))
    }

    fn room(&mut self) -> bool {
        self.journal.record_fits(ROOM_BYTES) && self.execute.record_fits(ROOM_BYTES)
    }

    fn take(&mut self, at: usize) -> bool {
        let Some(record) = take(&mut self.inputs[at]) else { return false };
        let kind = record.tag as u8;
        let query = is_query(kind);
        // A stopped journal lets nothing pass that would have to be remembered.
        if !query && !self.health.accepting() {
            return true;
        }
        if !query {
            self.sequence += 1;
        }
        let head = [self.sequence, self.time_ns].map(U64::new);
        let parts = [head.as_bytes(), record.bytes];
        if !query {
            must(self.journal.try_push(kind.into(), &parts));
        }
        must(self.execute.try_push(kind.into(), &parts));
        true
    }

    fn tick(&mut self) {
        while let Some(record) = take(&mut self.digests) {
            if let Ok(pair) = <[U64; 2]>::read_from_bytes(record.bytes) {
                self.digest = (pair[0].get(), pair[1].get());
            }
        }
        self.next_tick_ns = self.time_ns + self.tick_ns;
        if !self.health.accepting() {
            return;
        }
        self.sequence += 1;
        let head = Ordered {
            sequence: self.sequence.into(),
            time_ns: self.time_ns.into(),
            arrival: Arrival::OWN,
        };
        let tick = Tick { digest_sequence: self.digest.0.into(), digest: self.digest.1.into() };
        let parts = [head.as_bytes(), tick.as_bytes()];
        must(self.journal.try_push(Tick::KIND.into(), &parts));
        must(self.execute.try_push(Tick::KIND.into(), &parts));
    }
}

/// The time after `elapsed_ns`, nearer to the host's than it would be by itself.
fn follow(time_ns: u64, host_ns: u64, elapsed_ns: u64) -> u64 {
    let passed = time_ns.saturating_add(elapsed_ns);
    let most = elapsed_ns / SLEW;
    if host_ns >= passed {
        passed + (host_ns - passed).min(most)
    } else {
        passed - (passed - host_ns).min(most)
    }
}

/// Room was checked before.
#[inline]
fn must(pushed: Result<(), vendue_wire::ring::PushError>) {
    if let Err(error) = pushed {
        panic!("a ring refused a record it had room for: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn time_follows_a_clock_that_goes_right() {
        let mut time_ns = 100 * SECOND_NS;
        for turn in 1..1000 {
            time_ns = follow(time_ns, 100 * SECOND_NS + turn * 1_000, 1_000);
            assert_eq!(time_ns, 100 * SECOND_NS + turn * 1_000);
        }
    }

    #[test]
    fn time_neither_jumps_nor_stands_still_when_the_clock_is_set() {
        for step_ns in [-3600, -1, 1, 3600, 1 << 30].map(|seconds| seconds * SECOND_NS as i64) {
            let start = 2_000_000_000 * SECOND_NS;
            let (mut time_ns, mut host_ns) = (start, start.saturating_add_signed(step_ns));
            for _ in 0..1000 {
                let before = time_ns;
                host_ns += SECOND_NS / 100;
                time_ns = follow(time_ns, host_ns, SECOND_NS / 100);
                let passed = time_ns - before;
                assert!((9 * SECOND_NS / 1000..=11 * SECOND_NS / 1000).contains(&passed));
            }
            // Ten seconds close the gap by one.
            let left = time_ns.abs_diff(host_ns);
            assert_eq!(left, step_ns.unsigned_abs() - SECOND_NS, "{step_ns}");
        }
    }
}
