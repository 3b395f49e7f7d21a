//! What all vCPUs of a cell count together, read by whoever wants to know how the cell fares: one
//! system call for each vCPU, none of which the cell has a part in.

use super::stats::Stats;
use crate::sense::VirtualCounts;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Times that a vCPU had nothing to do, by the kernel's names: asleep, and looking out for work
/// before it slept, in vain or not.
const HALTS: [&str; 3] = ["halt_wait_ns", "halt_poll_success_ns", "halt_poll_fail_ns"];
/// Exits to the host.
const EXITS: &str = "exits";

/// The statistics of a cell's vCPUs, shared with the thread that keeps the cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters(Arc<Mutex<BTreeMap<u32, Stats>>>);

impl Counters {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Stats>> {
        // Each entry is whole by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what vCPUs there are now.
    pub(super) fn follow(&self, vcpus: &BTreeMap<u32, Stats>) {
        let mut kept = self.lock();
        for (&vcpu, stats) in vcpus {
            if !kept.contains_key(&vcpu)
                && let Ok(another) = stats.try_clone()
            {
                kept.insert(vcpu, another);
            }
        }
    }

    /// The cell is there no more.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// What they counted so far; `None` while there is none that can be read.
    pub(super) fn count(&self) -> Option<VirtualCounts> {
        let mut counts = VirtualCounts::default();
        for stats in self.lock().values_mut() {
            if stats.refresh().is_err() {
                continue;
            }
            counts.vcpus += 1;
            counts.exits += stats.value(EXITS)?;
            counts.halt_ns += HALTS.iter().filter_map(|name| stats.nanoseconds(name)).sum::<u64>();
        }
        (counts.vcpus > 0).then_some(counts)
    }
}
