//! Which processors instances are kept to, in tiers that ask for it: `cpuset.cpus`, chosen by
//! [`crate::topology`] when an instance's cap is first known, and again when it grows beyond them.

use super::Host;
use crate::topology::{Taken, Topology, parse_list, shown_list};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The file.
const FILE: &str = "cpuset.cpus";

/// Who is where.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// All processors of tiers that place.
    host: Topology,
    tiers: BTreeMap<u16, Topology>,
    taken: Taken,
    /// An instance's processors, and the thousandths it took of them together.
    placed: BTreeMap<u32, (BTreeSet<u32>, u64)>,
}

impl Host {
    /// Places instances of these tiers from now on, each on the processors in its tier's list; all
    /// of `topology` for an empty one.
    pub fn place_on(&mut self, topology: &Topology, tiers: &BTreeMap<u16, String>) {
        let all = match tiers.values().any(String::is_empty) {
            true => String::new(),
            false => tiers.values().cloned().collect::<Vec<_>>().join(","),
        };
        let tiers = tiers.iter().map(|(&tier, list)| (tier, topology.only(list)));
        let (host, tiers) = (topology.only(&all), tiers.collect());
        self.placement = Placement { host, tiers, ..Placement::default() };
    }

    /// How far the processors left to instances that are placed lie in pieces, percent; 0 where no
    /// tier places.
    pub fn fragmentation_percent(&self) -> u8 {
        self.placement.host.fragmentation_percent(&self.placement.taken)
    }

    /// True if the instance's tier places and the group cannot be kept to processors.
    pub(super) fn cannot_place(&self, instance: u32) -> bool {
        let Some(held) = self.instances.get(&instance) else { return false };
        let has = held.place.dir().is_none_or(|dir| dir.join(FILE).exists());
        self.placement.tiers.contains_key(&held.home.tier) && !has
    }

    /// Places an instance that may use `millicores`, if its tier does that and it has too few.
    pub(super) fn place_cpus(&mut self, instance: u32, millicores: u64) {
        let Some(held) = self.instances.get(&instance) else { return };
        let Some(tier) = self.placement.tiers.get(&held.home.tier) else { return };
        let enough = |cpus: &BTreeSet<u32>| cpus.len() as u64 >= millicores.div_ceil(1000);
        let placed = self.placement.placed.get(&instance);
        if placed.is_some_and(|(cpus, _)| enough(cpus)) {
            return;
        }
        if let Some((cpus, taken)) = placed {
            self.placement.taken.remove(cpus, *taken);
        }
        // A daemon that starts again leaves instances where they are.
        let found = held.place.dir().filter(|_| placed.is_none()).and_then(read);
        let cpus = match found {
            Some(found) if !found.is_empty() && enough(&found) => found,
            _ => tier.place(&self.placement.taken, millicores),
        };
        self.placement.taken.add(&cpus, millicores);
        self.placement.placed.insert(instance, (cpus, millicores));
        self.keep_placed(instance);
    }

    /// Writes an instance's processors unless they stand there. 1 if they do not.
    pub(super) fn keep_placed(&mut self, instance: u32) -> u32 {
        let Some((cpus, _)) = self.placement.placed.get(&instance) else { return 0 };
        let Some(held) = self.instances.get(&instance) else { return 0 };
        let Some(dir) = held.place.dir() else { return 0 };
        match read(dir) {
            Some(says) if says != *cpus => {
                match fs::write(dir.join(FILE), shown_list(cpus)) {
                    Ok(()) => self.counters.written += 1,
                    Err(_) => self.counters.failed += 1,
                }
                1
            }
            _ => 0,
        }
    }

    /// Gives back what an instance took.
    pub(super) fn leave_cpus(&mut self, instance: u32, dir: Option<&Path>) {
        if let Some((cpus, taken)) = self.placement.placed.remove(&instance) {
            self.placement.taken.remove(&cpus, taken);
            // A group that is gone needs nothing.
            let _ = dir.map(|dir| fs::write(dir.join(FILE), "\n"));
        }
    }
}

fn read(dir: &Path) -> Option<BTreeSet<u32>> {
    parse_list(&fs::read_to_string(dir.join(FILE)).ok()?)
}
