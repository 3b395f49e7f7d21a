//! In which order memory's limits move, so that a shrinking instance is never killed.
//!
//! Memory grows from the backstop down and shrinks from the level up. `memory.high` is not raised
//! above a `memory.max` that is still to rise. It is lowered once the kernel was asked, in small
//! steps, to reclaim what is too much: a level far below use throttles a group to a standstill and
//! keeps the writer waiting. `memory.max` is lowered only when less is in use, since a backstop below
//! use kills.

use super::Instance;
use crate::lever::{Failure, Lever};
use crate::limit::{Knob, Setting};

/// Least step of reclaim, bytes.
const STEP_BYTES_MIN: u64 = 16 << 20;
/// Greatest step of reclaim, bytes.
const STEP_BYTES_MAX: u64 = 256 << 20;
/// A step is this part of what is too much.
const STEP_PART: u64 = 4;
/// Steps before the level falls anyway: a busy group may allocate faster than is reclaimed.
const STEPS_MAX: u32 = 8;

/// Whether a lever may be pulled now.
pub(super) enum Gate {
    Open,
    /// Its turn has not come: look again a quantum later.
    Later,
    Failed(Failure),
}

impl Instance {
    /// Whether the lever at `index`, which is due at `now_ns`, may be pulled.
    pub(super) fn gate(&mut self, index: usize, now_ns: u64) -> Gate {
        let knob = self.levers[index].knob();
        if knob == Knob::CpuBurst {
            return self.gate_burst(index, now_ns);
        }
        if !matches!(knob, Knob::MemoryMax | Knob::MemoryHigh) {
            return Gate::Open;
        }
        let (Some(max), Some(high)) = (self.lever(Knob::MemoryMax), self.lever(Knob::MemoryHigh))
        else {
            return Gate::Open;
        };
        match knob {
            Knob::MemoryHigh if max.pending() && goal_bytes(high) > held_bytes(max) => Gate::Later,
            Knob::MemoryHigh if goal_bytes(high) < held_bytes(high) => {
                let goal_bytes = goal_bytes(high);
                self.shrink(goal_bytes)
            }
            Knob::MemoryMax if goal_bytes(max) < held_bytes(max) => {
                if high.pending() {
                    return Gate::Later;
                }
                match self.place.memory_bytes() {
                    Ok(used_bytes) if used_bytes < goal_bytes(max) => Gate::Open,
                    Ok(_) => Gate::Later,
                    Err(failure) => Gate::Failed(failure),
                }
            }
            _ => Gate::Open,
        }
    }

    /// A burst is at most the quota, which has to be there first. Writing it refills the quota.
    fn gate_burst(&mut self, index: usize, now_ns: u64) -> Gate {
        let wanted_us = match self.levers[index].wanted() {
            Some(Setting::Count(burst_us)) => burst_us.unwrap_or(u64::MAX),
            _ => 0,
        };
        let cap = self.levers.iter_mut().find(|lever| lever.knob() == Knob::CpuMax);
        let Some(cap) = cap else { return Gate::Open };
        if let Some(Setting::Quota { quota_us: Some(quota_us), .. }) = cap.presumed()
            && quota_us < wanted_us
        {
            return Gate::Later;
        }
        cap.refilled(now_ns);
        Gate::Open
    }

    /// Takes a step of reclaim if more than `goal_bytes` are in use; open once that is not so or
    /// helps no more.
    fn shrink(&mut self, goal_bytes: u64) -> Gate {
        let excess_bytes =
            self.place.memory_bytes().map_or(0, |used_bytes| used_bytes.saturating_sub(goal_bytes));
        let step_bytes = (excess_bytes / STEP_PART).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        if excess_bytes > 0
            && self.reclaims < STEPS_MAX
            && self.place.reclaim(step_bytes.min(excess_bytes))
        {
            self.reclaims += 1;
            return Gate::Later;
        }
        self.reclaims = 0;
        Gate::Open
    }
}

/// What a memory lever wants, bytes.
fn goal_bytes(lever: &Lever) -> u64 {
    lever.wanted().map_or(u64::MAX, Setting::bytes)
}

/// What the kernel holds, bytes. The unknown is taken for no limit.
fn held_bytes(lever: &Lever) -> u64 {
    lever.presumed().map_or(u64::MAX, Setting::bytes)
}
