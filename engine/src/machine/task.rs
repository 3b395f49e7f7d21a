//! A task's row, and the arithmetic of the swarm: what a VRU costs, and what a task gains by it.
//!
//! A task bids `bid` micro-units for work of about `duration`. Its VRUs cost `rate` micro-units a
//! second together: each keeps the price at which it was won. So
//! `margin = (bid - rate x duration) / duration`, in micro-units a second. A VRU is granted if the
//! margin with it is above zero and above the task's minimum. Margins are compared as fractions: only
//! what is shown is rounded, down.
//!
//! The next VRU of an instance of which `used` of `capacity` are granted costs
//! `base x (1 + steep x (used / capacity)^2)`, rounded up: dearer with each grant.

use vendue_wire::message::NAME_BYTES;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Stands for no instance, no session.
pub const NONE: u16 = u16::MAX;
/// Thousandths in a whole.
const MILLI: i128 = 1000;

/// Work that bids for VRUs. A row whose `flags` are 0 is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Task {
    /// Micro-units bid.
    pub bid_micro: u64,
    /// Micro-units of it still held.
    pub held_micro: u64,
    /// No VRU is granted that leaves the margin at so much or below, micro-units a second.
    pub margin_min_micro: u64,
    /// Micro-units a second that its VRUs cost.
    pub rate_micro: u64,
    /// Tasks submitted before it.
    pub number: u64,
    /// Its id.
    pub client_id: u64,
    /// What its VRUs cost when it was told last, micro-units a second.
    pub told_rate_micro: u64,
    /// Thousandths of a micro-unit owed, below 1000.
    pub owed_milli: u64,
    /// When it won its last VRU, milliseconds.
    pub since_ms: u64,
    /// When it was submitted, milliseconds.
    pub submitted_ms: u64,
    /// Expected to take so long, milliseconds, above 0.
    pub duration_ms: u32,
    /// VRUs it can use.
    pub vru_max: u32,
    /// VRUs granted.
    pub vru: u32,
    /// VRUs granted when it was told last.
    pub told_vru: u32,
    /// Thousandths of VRUs used, as it said.
    pub used_millivru: u32,
    /// How often this row was given out.
    pub generation: u32,
    /// Account that pays.
    pub account: u16,
    /// Slot of the session that is told, or [`NONE`].
    pub session: u16,
    /// Group.
    pub group: u16,
    /// Instance it has VRUs of, or [`NONE`].
    pub instance: u16,
    /// Instance when it was told last, or [`NONE`].
    pub told_instance: u16,
    /// The only instance it may run in, or [`NONE`].
    pub pinned: u16,
    /// Thousandths of its work done, as it said.
    pub progress_permille: u16,
    /// A resource's number.
    pub resource: u8,
    /// [`Task::LIVE`], [`Task::QUEUES`], [`Task::REPORTED`].
    pub flags: u8,
    /// What it is called.
    pub name: [u8; NAME_BYTES],
}

impl Task {
    /// The row is in use.
    pub const LIVE: u8 = 1;
    /// It waits while it has no VRU.
    pub const QUEUES: u8 = 2;
    /// It said what it used.
    pub const REPORTED: u8 = 4;

    /// A row that was never in use.
    pub const FREE: Task = Task {
        bid_micro: 0,
        held_micro: 0,
        margin_min_micro: 0,
        rate_micro: 0,
        number: 0,
        client_id: 0,
        told_rate_micro: 0,
        owed_milli: 0,
        since_ms: 0,
        submitted_ms: 0,
        duration_ms: 0,
        vru_max: 0,
        vru: 0,
        told_vru: 0,
        used_millivru: 0,
        generation: 0,
        account: 0,
        session: NONE,
        group: 0,
        instance: NONE,
        told_instance: NONE,
        pinned: NONE,
        progress_permille: 0,
        resource: 0,
        flags: 0,
        name: [0; NAME_BYTES],
    };

    /// True while the row is in use.
    #[inline]
    pub fn is_live(&self) -> bool {
        self.flags & Task::LIVE != 0
    }

    /// True if it waits rather than ends while it has no VRU.
    pub fn queues(&self) -> bool {
        self.flags & Task::QUEUES != 0
    }

    /// True if it may win another VRU.
    pub fn is_hungry(&self) -> bool {
        self.is_live() && self.vru < self.vru_max
    }

    /// Thousandths of VRUs it used, as it said; none if it said nothing.
    pub fn used(&self) -> Option<u32> {
        (self.flags & Task::REPORTED != 0).then_some(self.used_millivru)
    }

    /// True if it said that it uses less than a quarter of what it was granted.
    pub fn is_inefficient(&self) -> bool {
        self.used().is_some_and(|used| u64::from(used) * 4 < u64::from(self.vru) * 1000)
    }

    /// Its margin now.
    pub fn margin(&self) -> Margin {
        self.margin_at(self.rate_micro)
    }

    /// Its margin if its VRUs cost so much a second. Bids are below 2^62, rates below 2^58 and
    /// durations below 2^32, so nothing overflows.
    pub fn margin_at(&self, rate_micro: u64) -> Margin {
        let duration = i128::from(self.duration_ms);
        Margin {
            gain: i128::from(self.bid_micro) * MILLI - i128::from(rate_micro) * duration,
            duration: self.duration_ms,
        }
    }

    /// True if another VRU at this price leaves a margin above zero and above its minimum.
    pub fn is_worth(&self, price_micro: u64) -> bool {
        let min = i128::from(self.margin_min_micro) * i128::from(self.duration_ms);
        self.margin_at(self.rate_micro + price_micro).gain > min
    }

    /// True if its session knows what it has.
    pub fn is_told(&self) -> bool {
        (self.vru, self.rate_micro, self.instance)
            == (self.told_vru, self.told_rate_micro, self.told_instance)
    }

    /// Its session is told what it has.
    pub fn tell(&mut self) {
        self.told_vru = self.vru;
        self.told_rate_micro = self.rate_micro;
        self.told_instance = self.instance;
    }

    /// Wins a VRU.
    pub fn win(&mut self, price_micro: u64, now_ms: u64) {
        assert!(self.vru < self.vru_max, "a task wins more than it asked for");
        self.vru += 1;
        self.rate_micro += price_micro;
        self.since_ms = now_ms;
    }

    /// Loses a VRU: with it goes what its VRUs cost on average, rounded up.
    pub fn lose(&mut self) {
        assert!(self.vru > 0, "a task loses what it does not have");
        let rest = u128::from(self.rate_micro) * u128::from(self.vru - 1) / u128::from(self.vru);
        self.rate_micro = rest as u64;
        self.vru -= 1;
    }

    /// What its VRUs cost in so much time, micro-units; the rest is owed on.
    pub fn accrue(&mut self, elapsed_ms: u64) -> u128 {
        let owed =
            u128::from(self.rate_micro) * u128::from(elapsed_ms) + u128::from(self.owed_milli);
        self.owed_milli = (owed % 1000) as u64;
        owed / 1000
    }
}

/// A margin as a fraction: thousandths of micro-units gained, by milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Margin {
    gain: i128,
    duration: u32,
}

impl Margin {
    /// Micro-units a second, rounded down.
    pub fn shown(self) -> i64 {
        let floor = self.gain.div_euclid(self.duration.max(1).into());
        floor.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// How it compares with another, exactly. Both sides are below 2^123.
    pub fn compare(self, other: Margin) -> std::cmp::Ordering {
        let (ours, theirs) = (self.gain * i128::from(other.duration), other.gain);
        ours.cmp(&(theirs * i128::from(self.duration)))
    }
}

/// What the next VRU costs of an instance of which `used` of `capacity` are granted, micro-units a
/// second. The base is at most 2^40 and `steep_percent` 10,000, so nothing overflows.
pub fn price(base_micro: u64, steep_percent: u32, used: u32, capacity: u32) -> u64 {
    let whole = 100 * u128::from(capacity) * u128::from(capacity);
    if whole == 0 {
        return base_micro;
    }
    let used = u128::from(used.min(capacity));
    let dearer = u128::from(base_micro) * u128::from(steep_percent) * used * used;
    base_micro + dearer.div_ceil(whole) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vru_is_dearer_the_more_are_granted() {
        assert_eq!(price(1000, 300, 0, 10), 1000);
        assert_eq!(price(1000, 300, 5, 10), 1750);
        assert_eq!(price(1000, 300, 10, 10), 4000);
        assert_eq!(price(7, 100, 1, 3), 8, "rounded up");
        let prices = (0..=4096).map(|used| price(999_983, 9_973, used, 4096));
        assert!(prices.is_sorted());
        assert_eq!(price(1 << 40, 10_000, u32::MAX, u32::MAX), 101 << 40);
    }

    #[test]
    fn margins_compare_as_fractions() {
        let task = |bid_micro, duration_ms| Task { bid_micro, duration_ms, ..Task::FREE };
        // A third of a micro-unit a millisecond is more than three tenths.
        let (third, tenths) = (task(1, 3), task(3, 10));
        assert!(third.margin().compare(tenths.margin()).is_gt());
        assert_eq!((third.margin().shown(), tenths.margin().shown()), (333, 300));
        assert!(task(2, 6).margin().compare(third.margin()).is_eq());
        assert_eq!(task(1, 3000).margin_at(1).shown(), -1, "rounded down below zero too");
    }

    #[test]
    fn what_is_charged_loses_nothing_to_rounding() {
        let mut task = Task { rate_micro: 7, ..Task::FREE };
        let charged: u128 = [1, 10, 100, 3, 999, 887].map(|ms| task.accrue(ms)).iter().sum();
        assert_eq!(charged * 1000 + u128::from(task.owed_milli), 7 * 2000);
    }
}
