//! What came of what was wanted: applied, with the value read back; partial, with the value reached
//! when its time was up; refused, with the reason. One outcome for each thing that was last wanted:
//! what was overtaken before it was tried has none, as it was never written.
//!
//! Weights move at every tick of a market: of those only outcomes that differ from the last one are
//! told. Everything is looked at once in a quantum of actuation, and told once it changes.

use std::collections::{BTreeMap, BTreeSet};
use vendue_wire::code::{Lag, Resource};

/// What an intent was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Aim {
    /// What may be used of a resource: the limits that an entitlement sets.
    Limit = 0,
    /// How much it weighs where a resource is contended.
    Weight = 1,
    /// Whether it may run at all.
    Freeze = 2,
    /// What its VM is to have of a resource.
    Vm = 3,
    /// Where its disks are, and what it may use there: of another tier's storage.
    Storage = 4,
}

impl Aim {
    /// The aim of this number.
    pub fn from_u8(number: u8) -> Option<Aim> {
        let all = [Aim::Limit, Aim::Weight, Aim::Freeze, Aim::Vm, Aim::Storage];
        all.get(usize::from(number)).copied()
    }

    /// As the audit trail calls it.
    pub const fn text(self) -> &'static str {
        ["limit", "weight", "freeze", "vm", "storage"][self as usize]
    }
}

/// What an intent is for: the number of an instance, a tier or an account as [`crate::host::Host`]
/// has it, the aim and the resource.
pub type Key = (u32, Aim, Resource);

/// How an intent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read back as wanted.
    Applied,
    /// Kept in memory: a dry run.
    Decided,
    /// Not yet there, and why.
    Pending(Lag),
    /// Could not be done, and why. It is tried again.
    Refused(Lag),
}

impl Effect {
    /// The number of its [`Lag`], 0 if there is none.
    pub const fn reason(self) -> u8 {
        match self {
            Effect::Applied | Effect::Decided => 0,
            Effect::Pending(lag) | Effect::Refused(lag) => lag as u8,
        }
    }
}

/// How far an intent has come, in the resource's unit: millicores, bytes, bytes/s, bits/s, or the
/// weight. What has no bound is `u64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// How it stands.
    pub effect: Effect,
    /// What is wanted.
    pub wanted: u64,
    /// What was read back; of memory that is still being taken, what is in use.
    pub held: u64,
}

/// An outcome to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of what.
    pub key: Key,
    /// What came of it; what is pending when its time is up was reached in part.
    pub reached: Reached,
}

#[derive(Debug)]
struct Intent {
    since_ns: u64,
    told: Option<Effect>,
}

/// The intents whose outcomes are to be told, each within its time.
#[derive(Debug)]
pub struct Intents {
    /// Time of an intent, nanoseconds, after which what was reached is told.
    deadline_ns: u64,
    /// Weights stay here when they are in force.
    intents: BTreeMap<Key, Intent>,
    /// Those that are looked at.
    open: BTreeSet<Key>,
    /// Outcomes nobody took yet: of each intent the latest.
    untold: BTreeMap<Key, Outcome>,
    /// Outcomes that a later one of the same intent replaced before they were taken.
    replaced: u64,
}

impl Intents {
    /// None yet.
    pub fn new(deadline_ns: u64) -> Intents {
        Intents {
            deadline_ns,
            intents: BTreeMap::new(),
            open: BTreeSet::new(),
            untold: BTreeMap::new(),
            replaced: 0,
        }
    }

    /// Something is wanted from `now_ns` on.
    pub fn want(&mut self, key: Key, now_ns: u64) {
        let intent = self.intents.entry(key).or_insert(Intent { since_ns: now_ns, told: None });
        intent.since_ns = now_ns;
        if key.1 != Aim::Weight {
            intent.told = None;
        }
        self.open.insert(key);
    }

    /// Nothing is wanted of `number` any more. What came of it before can still be taken.
    pub fn forget(&mut self, number: u32) {
        let of = (number, Aim::Limit, Resource::Cpu)..(number + 1, Aim::Limit, Resource::Cpu);
        let gone: Vec<Key> = self.intents.range(of).map(|(&key, _)| key).collect();
        for key in gone {
            self.intents.remove(&key);
            self.open.remove(&key);
        }
    }

    /// True if something is to be looked at.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Looks how far everything has come, as `reached` says.
    pub fn look(&mut self, now_ns: u64, reached: impl Fn(Key) -> Option<Reached>) {
        let mut settled = Vec::new();
        for &key in &self.open {
            let Some(intent) = self.intents.get_mut(&key) else {
                unreachable!("what is open is an intent")
            };
            let Some(reached) = reached(key) else {
                settled.push(key);
                continue;
            };
            let late = now_ns.saturating_sub(intent.since_ns) >= self.deadline_ns;
            let is_settled = matches!(reached.effect, Effect::Applied | Effect::Decided);
            let due = match reached.effect {
                Effect::Pending(_) => late && intent.told.is_none(),
                effect => intent.told != Some(effect),
            };
            if is_settled {
                settled.push(key);
            }
            if due {
                intent.told = Some(reached.effect);
                let outcome = Outcome { key, reached };
                self.replaced += u64::from(self.untold.insert(key, outcome).is_some());
            }
        }
        for key in settled {
            self.open.remove(&key);
            if key.1 != Aim::Weight {
                self.intents.remove(&key);
            }
        }
    }

    /// Outcomes to be told, in order of their keys, at most so many.
    pub fn untold(&self, most: usize) -> impl Iterator<Item = Outcome> {
        self.untold.values().take(most).copied()
    }

    /// True if none is to be told.
    pub fn all_told(&self) -> bool {
        self.untold.is_empty() && self.replaced == 0
    }

    /// How many were replaced by later ones since the last [`Intents::told`].
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// The first `count` of [`Intents::untold`] have been told, and how many were replaced.
    pub fn told(&mut self, count: usize) {
        for _ in 0..count {
            assert!(self.untold.pop_first().is_some(), "told what there was none of");
        }
        self.replaced = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = (7, Aim::Limit, Resource::Memory);
    const WEIGHT: Key = (7, Aim::Weight, Resource::Cpu);

    fn look(intents: &mut Intents, now_ns: u64, effect: Effect) -> Vec<(Key, Effect)> {
        intents.look(now_ns, |_| Some(Reached { effect, wanted: 4, held: 3 }));
        let told: Vec<_> = intents.untold(9).map(|it| (it.key, it.reached.effect)).collect();
        intents.told(told.len());
        told
    }

    #[test]
    fn what_takes_long_is_told_in_part_and_then_whole() {
        let mut intents = Intents::new(10);
        intents.want(KEY, 0);
        let pending = Effect::Pending(Lag::InUse);
        assert_eq!(look(&mut intents, 9, pending), []);
        assert_eq!(look(&mut intents, 10, pending), [(KEY, pending)]);
        assert_eq!(look(&mut intents, 99, pending), [], "once");
        assert_eq!(look(&mut intents, 100, Effect::Applied), [(KEY, Effect::Applied)]);
        assert!(!intents.is_open());
        // The same wish later is another intent.
        intents.want(KEY, 100);
        assert_eq!(look(&mut intents, 101, Effect::Applied), [(KEY, Effect::Applied)]);
    }

    #[test]
    fn what_is_refused_is_told_once_for_each_reason_and_when_it_succeeds() {
        let mut intents = Intents::new(10);
        intents.want(KEY, 0);
        for (now_ns, effect, told) in [
            (1, Effect::Refused(Lag::Denied), 1),
            (2, Effect::Refused(Lag::Denied), 0),
            (3, Effect::Refused(Lag::Gone), 1),
            (30, Effect::Pending(Lag::Waiting), 0),
            (31, Effect::Applied, 1),
        ] {
            assert_eq!(look(&mut intents, now_ns, effect).len(), told, "{effect:?}");
        }
    }

    #[test]
    fn of_weights_only_other_outcomes_are_told() {
        let mut intents = Intents::new(10);
        for (now_ns, effect, told) in [
            (1, Effect::Applied, 1),
            (2, Effect::Applied, 0),
            (3, Effect::Refused(Lag::Denied), 1),
            (4, Effect::Applied, 1),
        ] {
            intents.want(WEIGHT, now_ns);
            assert_eq!(look(&mut intents, now_ns, effect).len(), told, "{now_ns}");
        }
        intents.forget(7);
        intents.want(WEIGHT, 5);
        assert_eq!(look(&mut intents, 5, Effect::Applied).len(), 1, "another instance's");
    }

    #[test]
    fn what_nobody_took_is_replaced_and_counted() {
        let mut intents = Intents::new(10);
        let at = |effect| move |_| Some(Reached { effect, wanted: 1, held: 1 });
        for effect in [Effect::Refused(Lag::Denied), Effect::Applied] {
            intents.want(KEY, 0);
            intents.look(0, at(effect));
        }
        let left: Vec<_> = intents.untold(9).map(|outcome| outcome.reached.effect).collect();
        assert_eq!((left, intents.replaced()), (vec![Effect::Applied], 1));
        intents.told(1);
        assert!(intents.all_told());
    }
}
