//! How far what is wanted has come.

use super::storage::is_away;
use super::{Host, Instance};
use crate::lever::Lever;
use crate::limit::{Knob, Setting};
use crate::outcome::{Aim, Effect, Key, Reached};

/// True if an intent of this aim and resource sets the knob.
fn is_meant(key: Key, knob: Knob, away: bool) -> bool {
    let (_, aim, resource) = key;
    match aim {
        Aim::Storage => away,
        _ if away => false,
        Aim::Limit => knob.resource() == resource && knob.is_entitled() && knob != Knob::CpuWeight,
        Aim::Weight => knob.resource() == resource && knob == Knob::CpuWeight,
        Aim::Freeze => knob == Knob::Freeze,
        Aim::Vm => false,
    }
}

impl Host {
    /// Least time between two writes of one limit, nanoseconds.
    pub fn quantum_ns(&self) -> u64 {
        self.options.quantum_ns
    }

    /// How far an intent has come; `None` if nothing of that kind is wanted here.
    pub fn reached(&self, key: Key) -> Option<Reached> {
        let held = self.instances.get(&key.0)?;
        let levers = held.levers.iter();
        let levers = levers.filter(|lever| {
            let away = is_away(&held.away, lever.knob());
            lever.wanted().is_some() && is_meant(key, lever.knob(), away)
        });
        let slowest = levers.max_by_key(|lever| match lever.effect() {
            Effect::Refused(_) => 3,
            Effect::Pending(_) => 2,
            // Of equals the last is taken, and that is the level, not the backstop.
            Effect::Applied | Effect::Decided => 1,
        })?;
        let effect = match slowest.effect() {
            Effect::Applied if self.is_dry_run() => Effect::Decided,
            effect => effect,
        };
        let goal = held.level(slowest);
        let says = |setting: Option<Setting>| setting.map_or(u64::MAX, Setting::amount);
        let reached = match (effect, goal.knob()) {
            (Effect::Pending(_), Knob::MemoryHigh) => held.place.memory_bytes().ok(),
            _ => None,
        };
        Some(Reached {
            effect,
            wanted: says(goal.wanted()),
            held: reached.unwrap_or(says(goal.held())),
        })
    }
}

impl Instance {
    /// What stands for a lever: of memory, the level, whose backstop is a matter of safety.
    fn level<'a>(&'a self, lever: &'a Lever) -> &'a Lever {
        match lever.knob() {
            Knob::MemoryMax => self.lever(Knob::MemoryHigh).unwrap_or(lever),
            _ => lever,
        }
    }
}
