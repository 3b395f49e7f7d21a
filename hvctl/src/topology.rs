//! Which processors an instance is kept to: few NUMA nodes, whole cores, and what is left in as few
//! pieces as can be.
//!
//! An instance goes to the node where it fits with the least room to spare (best fit), so that the
//! large holes stay whole; there it gets whole cores with the least reserved on them. What fits
//! nowhere is spread over the nodes with the most room. Nothing is moved once it is placed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

/// Thousandths of a processor that one has.
const MILLICORES: u64 = 1000;

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu {
    /// NUMA node.
    pub node: u32,
    /// The first of the processors that share its core.
    pub core: u32,
    /// Number.
    pub number: u32,
}

/// The processors of a host, or of a tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    cpus: Vec<Cpu>,
}

impl Topology {
    /// The online processors that `root`, a `/sys/devices/system`, tells of. Where it tells nothing
    /// of nodes there is one, and where nothing of cores each processor is one.
    ///
    /// # Errors
    /// There is no list of processors.
    pub fn read(root: &Path) -> io::Result<Topology> {
        let list = |path: &str| {
            fs::read_to_string(root.join(path)).ok().and_then(|text| parse_list(&text))
        };
        let online = fs::read_to_string(root.join("cpu/online"))?;
        let online = parse_list(&online).ok_or(io::ErrorKind::InvalidData)?;
        let nodes = list("node/online").unwrap_or_default();
        let of_node = |node: u32| list(&format!("node/node{node}/cpulist")).unwrap_or_default();
        let nodes: Vec<(u32, BTreeSet<u32>)> =
            nodes.into_iter().map(|node| (node, of_node(node))).collect();
        let cpu = |number: u32| {
            let siblings = list(&format!("cpu/cpu{number}/topology/thread_siblings_list"));
            let node = nodes.iter().find(|(_, cpus)| cpus.contains(&number));
            Cpu {
                node: node.map_or(0, |(node, _)| *node),
                core: siblings.and_then(|cpus| cpus.first().copied()).unwrap_or(number),
                number,
            }
        };
        let mut cpus: Vec<Cpu> = online.into_iter().map(cpu).collect();
        cpus.sort_unstable();
        Ok(Topology { cpus })
    }

    /// Only the processors in a list such as `0-3,8`; all for an empty one.
    pub fn only(&self, list: &str) -> Topology {
        let wanted = parse_list(list).unwrap_or_default();
        let cpus = self.cpus.iter().copied();
        let is_wanted = |cpu: &Cpu| wanted.is_empty() || wanted.contains(&cpu.number);
        Topology { cpus: cpus.filter(is_wanted).collect() }
    }

    fn by_node(&self) -> BTreeMap<u32, Vec<Cpu>> {
        let mut nodes: BTreeMap<u32, Vec<Cpu>> = BTreeMap::new();
        for cpu in &self.cpus {
            nodes.entry(cpu.node).or_default().push(*cpu);
        }
        nodes
    }

    /// The processors for an instance that may use `millicores`, beside what is `taken` of each:
    /// at least as many as that is worth, or all there are.
    pub fn place(&self, taken: &Taken, millicores: u64) -> BTreeSet<u32> {
        let count = millicores.div_ceil(MILLICORES).max(1) as usize;
        let mut nodes: Vec<(u64, u32, Vec<Cpu>)> = self
            .by_node()
            .into_iter()
            .map(|(node, cpus)| (taken.free(&cpus), node, cpus))
            .collect();
        let fits =
            |(free, _, cpus): &&(u64, u32, Vec<Cpu>)| *free >= millicores && cpus.len() >= count;
        if let Some((_, _, cpus)) = nodes.iter().filter(fits).min_by_key(|of| (of.0, of.1)) {
            return taken.least_used(cpus).into_iter().take(count).collect();
        }
        nodes.sort_by_key(|&(free, node, _)| (u64::MAX - free, node));
        let spread = nodes.iter().flat_map(|(_, _, cpus)| taken.least_used(cpus));
        spread.take(count).collect()
    }

    /// How far what is free lies in pieces, in percent: 0 if an instance as large as a node, or as
    /// all that is free, finds room in one node; towards 100 as the largest room shrinks beside that.
    pub fn fragmentation_percent(&self, taken: &Taken) -> u8 {
        let nodes = self.by_node();
        let free = nodes.values().map(|cpus| taken.free(cpus));
        let (largest, total) = (free.clone().max().unwrap_or(0), free.sum::<u64>());
        let node = nodes.values().map(Vec::len).max().unwrap_or(0) as u64 * MILLICORES;
        let best = total.min(node);
        (largest * 100).checked_div(best).map_or(0, |percent| 100 - percent as u8)
    }
}

/// What is taken of each processor by those placed on it, thousandths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken(BTreeMap<u32, u64>);

impl Taken {
    /// An instance that may use `millicores` takes as much of each of its processors.
    pub fn add(&mut self, cpus: &BTreeSet<u32>, millicores: u64) {
        for &cpu in cpus {
            *self.0.entry(cpu).or_default() += millicores / cpus.len() as u64;
        }
    }

    /// It is gone.
    pub fn remove(&mut self, cpus: &BTreeSet<u32>, millicores: u64) {
        for &cpu in cpus {
            let of = self.0.entry(cpu).or_default();
            *of = of.saturating_sub(millicores / cpus.len() as u64);
        }
    }

    fn of(&self, cpu: &Cpu) -> u64 {
        self.0.get(&cpu.number).copied().unwrap_or(0)
    }

    fn free(&self, cpus: &[Cpu]) -> u64 {
        cpus.iter().map(|cpu| MILLICORES.saturating_sub(self.of(cpu))).sum()
    }

    /// A node's processors core by core, the core with the least taken first.
    fn least_used(&self, cpus: &[Cpu]) -> Vec<u32> {
        let mut cores: BTreeMap<u32, u64> = BTreeMap::new();
        for cpu in cpus {
            *cores.entry(cpu.core).or_default() += self.of(cpu);
        }
        let mut order: Vec<&Cpu> = cpus.iter().collect();
        order.sort_by_key(|cpu| (cores[&cpu.core], cpu.core, self.of(cpu), cpu.number));
        order.into_iter().map(|cpu| cpu.number).collect()
    }
}

/// The numbers of a list such as `0-3,8`.
pub fn parse_list(text: &str) -> Option<BTreeSet<u32>> {
    let mut numbers = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last - first > 65_535 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// The list of some numbers, as the kernel writes it.
pub fn shown_list(numbers: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let run = |(first, last): (u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.into_iter().map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A recorded `/sys/devices/system`: of each processor its siblings, of each node its list.
    fn recorded(siblings: &[&str], nodes: &[&str]) -> Topology {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: String, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        };
        write("cpu/online".into(), &format!("0-{}", siblings.len() - 1));
        for (cpu, list) in siblings.iter().enumerate() {
            write(format!("cpu/cpu{cpu}/topology/thread_siblings_list"), list);
        }
        if !nodes.is_empty() {
            write("node/online".into(), &format!("0-{}", nodes.len() - 1));
        }
        for (node, list) in nodes.iter().enumerate() {
            write(format!("node/node{node}/cpulist"), list);
        }
        Topology::read(dir.path()).unwrap()
    }

    /// Two sockets of two cores with two threads each, as a common server numbers them.
    fn two_sockets() -> Topology {
        let siblings = ["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"];
        recorded(&siblings, &["0-1,4-5", "2-3,6-7"])
    }

    fn place(topology: &Topology, taken: &mut Taken, millicores: u64) -> String {
        let cpus = topology.place(taken, millicores);
        taken.add(&cpus, millicores);
        shown_list(&cpus)
    }

    #[test]
    fn an_instance_gets_whole_cores_of_one_node_and_holes_stay_large() {
        let host = two_sockets();
        let mut taken = Taken::default();
        assert_eq!(place(&host, &mut taken, 2000), "0,4", "both threads of a core");
        assert_eq!(host.fragmentation_percent(&taken), 0, "the other node is whole");
        assert_eq!(place(&host, &mut taken, 1500), "1,5", "where it fits best");
        assert_eq!(place(&host, &mut taken, 4000), "2-3,6-7", "which leaves room for a large one");
        assert_eq!(place(&host, &mut taken, 400), "1", "what is left of a core that is in use");
        assert_eq!(host.fragmentation_percent(&taken), 0, "all that is left is in one place");
        taken.remove(&host.only("2-3,6-7").place(&Taken::default(), 4000), 4000);
        assert_eq!(place(&host, &mut taken, 3000), "2-3,6");
    }

    #[test]
    fn what_fits_in_no_node_is_spread_and_small_pieces_are_counted() {
        let host = two_sockets();
        let mut taken = Taken::default();
        assert_eq!(place(&host, &mut taken, 5000), "0-2,4-5");
        assert_eq!(place(&host, &mut Taken::default(), 64_000), "0-7", "all there are");
        let mut halves = Taken::default();
        for cpus in ["0,4", "2,6"] {
            halves.add(&parse_list(cpus).unwrap(), 2000);
        }
        assert_eq!(host.fragmentation_percent(&halves), 50, "two halves of nodes");
        halves.add(&parse_list("0-7").unwrap(), 8000);
        assert_eq!(host.fragmentation_percent(&halves), 0, "nothing is free");
    }

    #[test]
    fn a_laptop_has_one_node_and_a_tier_some_processors() {
        let siblings = ["0-1", "0-1", "2-3", "2-3", "4", "5"];
        let laptop = recorded(&siblings, &[]);
        let mut taken = Taken::default();
        assert_eq!(place(&laptop, &mut taken, 1000), "0");
        assert_eq!(place(&laptop, &mut taken, 2000), "2-3", "a whole core before half a used one");
        assert_eq!(place(&laptop.only("4-5"), &mut taken, 1500), "4-5");
        assert_eq!(laptop.fragmentation_percent(&taken), 0, "one node is one piece");
        assert!(Topology::read(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn lists_are_read_and_shown_as_the_kernels() {
        for list in ["", "0", "0-3", "0-3,8,10-11"] {
            assert_eq!(shown_list(&parse_list(&format!("{list}\n")).unwrap()), list);
        }
        for wrong in ["x", "3-1", "1-", "0-4294967295"] {
            assert_eq!(parse_list(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_instance_has_enough_processors_and_what_it_took_comes_back(
            wants in prop::collection::vec(1..9_000u64, 1..20),
        ) {
            let host = two_sockets();
            let mut taken = Taken::default();
            let mut placed = Vec::new();
            for &want in &wants {
                let cpus = host.place(&taken, want);
                prop_assert_eq!(cpus.len() as u64, want.div_ceil(1000).min(8));
                // Within a node wherever one has the room.
                let nodes = host.by_node();
                let room = nodes.values().any(|of| taken.free(of) >= want && want <= 4000);
                let within = |of: &Vec<Cpu>| of.iter().filter(|cpu| cpus.contains(&cpu.number)).count();
                let used = nodes.values().filter(|of| within(of) > 0).count();
                prop_assert!(!room || used == 1, "{want} spread over {used} nodes");
                taken.add(&cpus, want);
                prop_assert!(host.fragmentation_percent(&taken) <= 100);
                placed.push((cpus, want));
            }
            for (cpus, want) in placed {
                taken.remove(&cpus, want);
            }
            prop_assert!(taken.0.values().all(|&of| of == 0));
        }
    }
}
