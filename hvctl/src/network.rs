//! Network: an instance's rate, kept by the kernel on the interfaces of its network namespace.
//!
//! An instance with a network namespace of its own has interfaces in there, and what it sends leaves
//! through them. What it receives comes through the other ends of those that are virtual Ethernet
//! pairs into our own namespace. Each end gets a queueing discipline ([`htb`]) with the entitlement as
//! its rate: so much sent, and so much received, as `io.max` has it for reads and writes. The end
//! outside is out of the instance's reach. The one inside can be taken off by who has CAP_NET_ADMIN in
//! the namespace; it is put back at the next read-back, which reports it, and use is billed as measured.
//!
//! An instance that shares the host's network is a VMM with taps there, or nothing of it can be told
//! apart and nothing is limited. What goes to the guest waits in its tap's queue; what comes from it has
//! none: a queueing discipline holds what leaves by an interface, and that enters by it.
//!
//! Interfaces come and go with the instance's processes, so they are looked up at each use. Each
//! instance has its own, so none has a parent that would be its tier's: what a tier's instances carry
//! together is bounded by what they are entitled to.

mod htb;
mod netlink;
mod tap;

use crate::lever::Failure;
use crate::limit::{Setting, Way};
use crate::meter::first_process;
use netlink::{Interface, Netlink};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// What interfaces queue and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queues {
    /// Bytes that wait for their turn.
    pub(crate) backlog_bytes: u64,
    /// Packets that were dropped because too many waited.
    pub(crate) drops: u64,
    /// How long what waits takes to leave at the rate, microseconds.
    pub(crate) delay_us: u64,
}

/// Two queues' packets wait for one another's rate not at all: the longer delay is the one.
fn together(one: Queues, other: Queues) -> Queues {
    Queues {
        backlog_bytes: one.backlog_bytes + other.backlog_bytes,
        drops: one.drops + other.drops,
        delay_us: one.delay_us.max(other.delay_us),
    }
}

/// The interfaces of one cgroup's processes.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// The group's `cgroup.procs`.
    processes: Option<File>,
    inside: Option<Inside>,
    /// By way, as last read.
    queues: [Option<Queues>; 2],
}

/// A namespace that is not ours.
#[derive(Debug)]
struct Inside {
    namespace: File,
    /// Device and inode of the namespace.
    key: (u64, u64),
    netlink: Netlink,
}

impl Network {
    /// The interfaces of the processes of the group at `dir`.
    pub(crate) fn of_group(dir: &Path) -> Network {
        Network { processes: File::open(dir.join("cgroup.procs")).ok(), ..Network::default() }
    }

    /// Sets a rate on every end of one way that has another.
    pub(crate) fn write(&mut self, way: Way, setting: &Setting) -> Result<(), Failure> {
        let Setting::Pace { bytes_per_s } = *setting else {
            unreachable!("a network has rates only")
        };
        self.on_each(way, |netlink, index| {
            if netlink.rate(index)?.map(|class| class.bytes_per_s) == bytes_per_s {
                return Ok(());
            }
            match bytes_per_s {
                Some(rate) => netlink.set_rate(index, rate),
                None => netlink.lift(index),
            }
        })
    }

    /// The rate of one way; of several ends that do not agree, none.
    pub(crate) fn read(&mut self, way: Way) -> Result<Setting, Failure> {
        let (mut agreed, mut queues) = (None, None);
        self.on_each(way, |netlink, index| {
            let class = netlink.rate(index)?;
            let rate = class.map(|class| class.bytes_per_s);
            agreed = Some(rate.filter(|_| agreed.is_none_or(|agreed| agreed == rate)));
            if let Some(class) = class {
                let backlog_us = class.queues.backlog_bytes.saturating_mul(1_000_000);
                let delay_us = backlog_us.checked_div(class.bytes_per_s).unwrap_or(0);
                let queued = Queues { delay_us, ..class.queues };
                queues = Some(queues.map_or(queued, |before| together(before, queued)));
            }
            Ok(())
        })?;
        self.queues[way as usize] = queues;
        Ok(Setting::Pace { bytes_per_s: agreed.flatten() })
    }

    /// What its queues held and had lost when they were last read, both ways together; `None` if they
    /// never were.
    pub(crate) fn queues(&self) -> Option<Queues> {
        self.queues.into_iter().flatten().reduce(together)
    }

    /// Does something to every end of one way.
    fn on_each(
        &mut self,
        way: Way,
        mut act: impl FnMut(&Netlink, u32) -> Result<(), Errno>,
    ) -> Result<(), Failure> {
        let inside = match self.enter() {
            Err(Failure::NoInterface) => return self.on_taps(way, act),
            inside => inside?,
        };
        let within = inside.netlink.interfaces().map_err(failure)?;
        let ours;
        let (netlink, ends) = match way {
            Way::Sent => {
                (&inside.netlink, within.iter().map(|interface| interface.index).collect())
            }
            Way::Received => {
                ours = Netlink::open().map_err(failure)?;
                (&ours, inside.outside(&within, &ours).map_err(failure)?)
            }
        };
        if ends.is_empty() {
            return Err(Failure::NoInterface);
        }
        ends.into_iter().try_for_each(|end| act(netlink, end)).map_err(failure)
    }

    /// As [`Network::on_each`], for taps in our own namespace.
    fn on_taps(
        &self,
        way: Way,
        mut act: impl FnMut(&Netlink, u32) -> Result<(), Errno>,
    ) -> Result<(), Failure> {
        let taps = self.processes.as_ref().map(tap::held_by).unwrap_or_default();
        if taps.is_empty() {
            return Err(Failure::NoInterface);
        }
        if way == Way::Sent {
            return Err(Failure::NoQueue);
        }
        let ours = Netlink::open().map_err(failure)?;
        taps.into_iter().try_for_each(|tap| act(&ours, tap)).map_err(failure)
    }

    /// The namespace that the group's first process is in now, unless it is ours.
    fn enter(&mut self) -> Result<&Inside, Failure> {
        let process = self.processes.as_ref().and_then(first_of);
        let namespace =
            process.and_then(|process| File::open(format!("/proc/{process}/ns/net")).ok());
        let key = namespace.as_ref().and_then(key_of);
        let ours = File::open("/proc/thread-self/ns/net").ok().as_ref().and_then(key_of);
        let (Some(namespace), Some(key)) = (namespace, key.filter(|_| key != ours)) else {
            // An open socket would keep a namespace that nobody is in any more.
            self.inside = None;
            return Err(Failure::NoInterface);
        };
        if self.inside.as_ref().is_none_or(|inside| inside.key != key) {
            let netlink = open_in(&namespace).map_err(failure)?;
            self.inside = Some(Inside { namespace, key, netlink });
        }
        self.inside.as_ref().ok_or(Failure::NoInterface)
    }
}

impl Inside {
    /// The ends in our own namespace of the pairs that have their other one in here.
    fn outside(&self, within: &[Interface], ours: &Netlink) -> Result<Vec<u32>, Errno> {
        let Some(number) = ours.number_of(self.namespace.as_raw_fd())? else {
            return Ok(Vec::new());
        };
        let mut ends = Vec::new();
        for interface in within.iter().filter(|interface| interface.peer_namespace.is_some()) {
            let Some(peer) = interface.peer else { continue };
            // Its number alone could be that of somebody else's interface: a peer names us back.
            let end = ours.interface(peer)?.filter(|end| {
                end.peer == Some(interface.index) && end.peer_namespace == Some(number)
            });
            ends.extend(end.map(|end| end.index));
        }
        Ok(ends)
    }
}

/// The first process of a list of any length.
fn first_of(processes: &File) -> Option<u32> {
    let mut bytes = [0; 32];
    let length = processes.read_at(&mut bytes, 0).ok()?;
    first_process(std::str::from_utf8(&bytes[..length]).ok()?)
}

fn key_of(namespace: &File) -> Option<(u64, u64)> {
    namespace.metadata().ok().map(|at| (at.dev(), at.ino()))
}

/// A socket in another namespace. A thread enters it, and ends.
fn open_in(namespace: &File) -> Result<Netlink, Errno> {
    let enter = || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Netlink::open()
    };
    std::thread::scope(|scope| scope.spawn(enter).join()).unwrap_or(Err(Errno::EIO))
}

fn failure(errno: Errno) -> Failure {
    match errno {
        Errno::EACCES | Errno::EPERM => Failure::Denied(errno),
        Errno::ENODEV => Failure::NoInterface,
        Errno::EINVAL | Errno::ERANGE | Errno::EOVERFLOW => Failure::OutOfRange(errno),
        Errno::EOPNOTSUPP | Errno::ENOENT => Failure::NoDiscipline,
        _ => Failure::Other(errno),
    }
}
