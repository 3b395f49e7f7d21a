//! The way of a limit into the kernel: everything that is due is written before any of it is read
//! back, so that who waits for a write does not wait for the others' read-backs. What takes is
//! written before what gives.

use super::gate::Gate;
use super::schedule::Wait;
use super::{Counters, Host, Instance};
use crate::lever::{Failure, Lever, Verdict};

/// Values that one [`Host::turn`] reads back at most: it is not to hold up what comes next.
const READS_PER_TURN_MAX: usize = 64;

impl Host {
    /// Writes what is due at `now_ns`, up to the bound of one turn, and reads back what was written
    /// once nothing else is due. Returns when it is to be called next, nanoseconds (not after `now_ns`
    /// if a bound was reached), or `None` if nothing is pending.
    pub fn turn(&mut self, now_ns: u64) -> Option<u64> {
        let next_ns = self.write(now_ns);
        if next_ns.is_some_and(|next_ns| next_ns <= now_ns) {
            return next_ns;
        }
        if self.read_back(now_ns, READS_PER_TURN_MAX) { Some(now_ns) } else { self.next_ns(now_ns) }
    }

    /// The first half of a turn: only writes. Returns when the next write is due.
    pub fn write(&mut self, now_ns: u64) -> Option<u64> {
        while let Some(instance) = self.schedule.ripe(now_ns) {
            let Some(held) = self.instances.get_mut(&instance) else {
                unreachable!("who waits is held")
            };
            held.wait = Wait::Not;
            self.schedule.put(instance, held, now_ns);
        }
        let mut budget = self.options.writes_per_turn_max.max(1);
        for cuts in [true, false] {
            while budget > 0
                && let Some((instance, wait)) = self.schedule.next(cuts)
            {
                self.serve(instance, wait, now_ns, &mut budget);
            }
        }
        self.next_ns(now_ns)
    }

    /// The second half: reads back up to `reads_max` of the values that were written, in the order
    /// of their writes. True if some are left. What comes of each is in [`Host::limits`].
    pub fn read_back(&mut self, now_ns: u64, reads_max: usize) -> bool {
        for _ in 0..reads_max {
            let Some((instance, knob)) = self.unread.pop_front() else { return false };
            let Some(held) = self.instances.get_mut(&instance) else { continue };
            let is_meant = |lever: &Lever| lever.knob() == knob && lever.is_unread();
            let Some(index) = held.levers.iter().position(is_meant) else { continue };
            held.confirm(index, now_ns, &mut self.counters);
            self.schedule.put(instance, held, now_ns);
        }
        !self.unread.is_empty()
    }

    fn next_ns(&self, now_ns: u64) -> Option<u64> {
        self.schedule.next_ns().map(|next_ns| next_ns.max(now_ns))
    }

    /// Tries the due limits of one instance; if it waits to be cut, only the cuts.
    fn serve(&mut self, instance: u32, wait: Wait, now_ns: u64, budget: &mut u32) {
        let Some(held) = self.instances.get_mut(&instance) else { return };
        if held.wait != wait {
            return;
        }
        held.wait = Wait::Not;
        if held.lost {
            held.find(now_ns);
        }
        let quantum_ns = self.options.quantum_ns;
        for index in 0..held.levers.len() {
            if held.levers[index].is_unread() && held.levers[index].is_due(now_ns) {
                held.confirm(index, now_ns, &mut self.counters);
            }
            let lever = &held.levers[index];
            let is_meant = wait == Wait::ToRaise || lever.is_cut();
            if *budget == 0 || !is_meant || !lever.is_due(now_ns) {
                continue;
            }
            let gate =
                if held.lost { Gate::Failed(Failure::Gone) } else { held.gate(index, now_ns) };
            let outcome = match gate {
                Gate::Open => held.pull(index),
                Gate::Failed(failure) => Err(failure),
                Gate::Later => {
                    held.levers[index].defer(now_ns.saturating_add(quantum_ns));
                    continue;
                }
            };
            *budget -= 1;
            let lever = &mut held.levers[index];
            lever.wrote(now_ns, quantum_ns, outcome);
            match outcome {
                Ok(()) => {
                    self.counters.written += 1;
                    self.unread.push_back((instance, lever.knob()));
                }
                Err(failure) => {
                    self.counters.failed += 1;
                    if failure == Failure::Gone && !held.lost {
                        held.lose(now_ns);
                    }
                }
            }
        }
        self.schedule.put(instance, held, now_ns);
    }
}

impl Instance {
    /// Writes what lever `index` wants.
    fn pull(&mut self, index: usize) -> Result<(), Failure> {
        let lever = &self.levers[index];
        let Some(setting) = lever.wanted() else { unreachable!("a due lever has a goal") };
        self.place.write(lever.knob(), &setting)
    }

    /// Reads back what lever `index` wrote.
    fn confirm(&mut self, index: usize, now_ns: u64, counters: &mut Counters) {
        let says = self.place.read(self.levers[index].knob());
        match self.levers[index].confirmed(now_ns, says) {
            Verdict::Settled => {}
            Verdict::Drifted => counters.drifted += 1,
            Verdict::Failed => counters.failed += 1,
        }
        if says == Err(Failure::Gone) && !self.lost {
            self.lose(now_ns);
        }
    }
}
