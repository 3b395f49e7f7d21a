//! Who is to be served next, and when.
//!
//! What is due now waits in line: first those from whom something is taken, so that nothing is given
//! before it is there. What is due later is sorted by its time. Whoever has a fault is noted on the
//! way: to look for faults is not to cost more the more instances have none.

use super::Instance;
use std::collections::{BTreeSet, VecDeque};

/// Where an instance waits to be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing is pending.
    #[default]
    Not,
    /// Until then, nanoseconds.
    Until(u64),
    /// In line, with something to be taken from it.
    ToCut,
    /// In line.
    ToRaise,
}

/// All instances with pending limits. An entry in line counts only if its instance waits there.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    cuts: VecDeque<u32>,
    raises: VecDeque<u32>,
    later: BTreeSet<(u64, u32)>,
    /// Instances with limits in which a fault stands.
    faulty: BTreeSet<u32>,
}

impl Schedule {
    /// Puts `held`, number `instance`, where its levers belong at `now_ns`; to be called whenever they
    /// have changed. Who is in line keeps the place.
    pub(super) fn put(&mut self, instance: u32, held: &mut Instance, now_ns: u64) {
        let (mut due_ns, mut cuts, mut is_faulty) = (u64::MAX, false, false);
        for lever in &held.levers {
            is_faulty |= lever.is_faulty();
            let Some(at_ns) = lever.due_ns() else { continue };
            due_ns = due_ns.min(at_ns);
            cuts |= at_ns <= now_ns && lever.is_cut();
        }
        if is_faulty != held.is_faulty {
            held.is_faulty = is_faulty;
            let changed = match is_faulty {
                true => self.faulty.insert(instance),
                false => self.faulty.remove(&instance),
            };
            assert!(changed, "who has a fault is noted");
        }
        let wait = match held.wait {
            _ if due_ns == u64::MAX => Wait::Not,
            Wait::ToCut => Wait::ToCut,
            _ if cuts => Wait::ToCut,
            Wait::ToRaise => Wait::ToRaise,
            _ if due_ns <= now_ns => Wait::ToRaise,
            _ => Wait::Until(due_ns),
        };
        if wait == held.wait {
            return;
        }
        self.leave(instance, held);
        match wait {
            Wait::Not => {}
            Wait::Until(due_ns) => {
                assert!(self.later.insert((due_ns, instance)), "one entry an instance");
            }
            Wait::ToCut => self.cuts.push_back(instance),
            Wait::ToRaise => self.raises.push_back(instance),
        }
        held.wait = wait;
    }

    /// Forgets `held`, which goes.
    pub(super) fn forget(&mut self, instance: u32, held: &mut Instance) {
        self.leave(instance, held);
        self.faulty.remove(&instance);
    }

    /// Who is in line or whose time has come at `now_ns`.
    pub(super) fn due(&self, now_ns: u64) -> impl Iterator<Item = u32> + '_ {
        let later = self.later.range(..=(now_ns, u32::MAX)).map(|&(_, instance)| instance);
        self.cuts.iter().chain(&self.raises).copied().chain(later)
    }

    /// Who has a fault, in order.
    pub(super) fn faulty(&self) -> impl Iterator<Item = u32> + '_ {
        self.faulty.iter().copied()
    }

    fn leave(&mut self, instance: u32, held: &mut Instance) {
        if let Wait::Until(due_ns) = std::mem::take(&mut held.wait) {
            assert!(self.later.remove(&(due_ns, instance)), "who waits has an entry");
        }
    }

    /// The next whose time has come, who waits no more.
    pub(super) fn ripe(&mut self, now_ns: u64) -> Option<u32> {
        let &(due_ns, _) = self.later.first()?;
        if due_ns > now_ns { None } else { self.later.pop_first().map(|(_, instance)| instance) }
    }

    /// The next in line: an instance's number, and where it has to wait for the entry to count.
    pub(super) fn next(&mut self, cuts: bool) -> Option<(u32, Wait)> {
        match cuts {
            true => Some((self.cuts.pop_front()?, Wait::ToCut)),
            false => Some((self.raises.pop_front()?, Wait::ToRaise)),
        }
    }

    /// When somebody is to be served next, nanoseconds: 0 if somebody is in line.
    pub(super) fn next_ns(&self) -> Option<u64> {
        if !self.cuts.is_empty() || !self.raises.is_empty() {
            return Some(0);
        }
        self.later.first().map(|&(due_ns, _)| due_ns)
    }
}
