//! Keeps cells at the memory and the vCPUs that their instances are entitled to: the slow lane of
//! KVM.
//!
//! Each cell has a thread of its own here, because what a cell is asked may take as long as its
//! guest takes to stop, and a cell that answers nothing is to hold up nobody but itself. The thread
//! connects to the cell's port, sets slot 0 to what is wanted, and has as many vCPUs run as the cap on
//! processors is worth, rounded up; latest wins; and it holds what the cell confirmed against it. A cell that was there and is not any more is dead; one that only drops the
//! connection is connected to again.

use super::counts::Counters;
use super::intent::{Confirmed, Intent, PAGE_BYTES, Refusal};
use super::remote::{Remote, RemoteError};
use crate::lane::now_ns;
use crate::lane::vm::{self, Standings};
use crate::lever::State;
use crate::outcome::Reached;
use crate::sense::VirtualCounts;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vendue_wire::code::Resource;
use vendue_wire::doorbell::{self, Bell, Doorbell};
use vendue_wire::message::LimitRow;

/// Cells that are kept at most: each has a thread.
pub const CELLS_MAX: usize = 1024;
/// Between an instance's cgroup and its cell's socket, in its place.
const PORT: &str = ",port=";
/// How long a cell may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon something is tried again, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a cell that has nothing to do is looked after.
const LOOK: Duration = Duration::from_secs(5);

/// An instance's place without its port, and the port: `PATH,port=SOCKET`.
pub fn split_place(place: &str) -> (&str, Option<&Path>) {
    match place.split_once(PORT) {
        Some((path, socket)) => (path, Some(Path::new(socket))),
        None => (place, None),
    }
}

/// The place of an instance in `path` whose cell's port is at `socket`.
pub fn join_place(path: &str, socket: &str) -> String {
    format!("{path}{PORT}{socket}")
}

/// How a cell stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its memory and its vCPUs.
    pub resources: Standings,
    /// What is wrong, and what to do.
    pub trouble: Option<String>,
    /// It was there, and has ended.
    pub is_dead: bool,
    /// Its thread is to end.
    is_released: bool,
}

#[derive(Debug)]
struct Kept {
    standing: Arc<Mutex<Standing>>,
    counters: Counters,
    bell: Bell,
}

/// All cells of a host, by instance.
#[derive(Debug, Default)]
pub struct Keeper {
    kept: BTreeMap<u32, Kept>,
}

fn lock(standing: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    // Each field is whole by itself, so what a panic leaves can be used.
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Keeps the cell whose port is at `socket`, which need not be there yet.
    ///
    /// # Errors
    /// As many cells are kept as may be, or the system has no thread left.
    pub fn keep(&mut self, instance: u32, socket: &Path) -> io::Result<()> {
        if self.kept.len() >= CELLS_MAX {
            return Err(io::Error::other(format!("{CELLS_MAX} cells are kept already")));
        }
        let standing = Arc::new(Mutex::new(Standing::default()));
        let (bell, doorbell) = doorbell::pair()?;
        let (shared, socket) = (standing.clone(), socket.to_owned());
        let counters = Counters::default();
        let counted = counters.clone();
        let keeping = move || keep(&socket, &shared, &counted, &doorbell);
        std::thread::Builder::new().name(format!("cell-{instance}")).spawn(keeping)?;
        self.release(instance);
        self.kept.insert(instance, Kept { standing, counters, bell });
        Ok(())
    }

    /// Lets a cell go, as it is; does nothing for other instances.
    pub fn release(&mut self, instance: u32) {
        if let Some(kept) = self.kept.remove(&instance) {
            lock(&kept.standing).is_released = true;
            kept.bell.ring();
        }
    }

    /// Sets what a cell is to have of a resource: VRUs of so many bytes or millicores. False for
    /// other instances, and for what a cell cannot be set to.
    pub fn want(&mut self, instance: u32, resource: Resource, vrus: u64, vru_size: u64) -> bool {
        let Some(kept) = self.kept.get(&instance) else { return false };
        let amount = match (resource, vm::amount(resource, vrus, vru_size)) {
            (Resource::Memory, Some(bytes)) => bytes - bytes % PAGE_BYTES,
            (Resource::Cpu, Some(vcpus)) => vcpus,
            _ => return false,
        };
        vm::want(&mut lock(&kept.standing).resources, resource, vrus, amount);
        kept.bell.ring();
        true
    }

    /// How far a resource of a cell has come.
    pub fn reached(&self, instance: u32, resource: Resource) -> Option<Reached> {
        let standing = lock(&self.kept.get(&instance)?.standing);
        Some(standing.resources.get(&resource)?.reached())
    }

    /// How every cell stands.
    pub fn standings(&self) -> impl Iterator<Item = (u32, Standing)> {
        self.kept.iter().map(|(&instance, kept)| (instance, lock(&kept.standing).clone()))
    }

    /// What a cell's vCPUs counted so far; `None` for other instances, and while it is not there.
    pub fn counts(&self, instance: u32) -> Option<VirtualCounts> {
        self.kept.get(&instance)?.counters.count()
    }

    /// How a cell stands, as limits: the files are `kvm memory` and `kvm vcpus`.
    pub fn limits(&self, instance: u32) -> Vec<LimitRow> {
        let Some(kept) = self.kept.get(&instance) else { return Vec::new() };
        let standing = lock(&kept.standing);
        let rows = standing.resources.iter().map(|(&resource, standing)| {
            let file = if resource == Resource::Cpu { "kvm vcpus" } else { "kvm memory" };
            standing.limit(instance, resource, file)
        });
        rows.collect()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        for instance in self.kept.keys().copied().collect::<Vec<_>>() {
            self.release(instance);
        }
    }
}

/// Why a cell is not served any more.
enum Over {
    Released,
    Error(RemoteError),
}

impl From<RemoteError> for Over {
    fn from(error: RemoteError) -> Over {
        Over::Error(error)
    }
}

/// A cell's thread.
fn keep(socket: &Path, standing: &Mutex<Standing>, counters: &Counters, doorbell: &Doorbell) {
    let mut pause = RETRY_MIN;
    let mut was_there = false;
    loop {
        let error = match Remote::connect(socket) {
            Ok(mut remote) => {
                (was_there, pause) = (true, RETRY_MIN);
                lock(standing).trouble = None;
                let over = serve(&mut remote, standing, counters, doorbell);
                counters.clear();
                match over {
                    Over::Released => return,
                    Over::Error(error) => error,
                }
            }
            Err(error) => error,
        };
        let nobody = matches!(&error, RemoteError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound));
        let mut now = lock(standing);
        if now.is_released {
            return;
        }
        for standing in now.resources.values_mut() {
            (standing.held, standing.state) = (None, State::Gone);
        }
        now.trouble = Some(format!("{error} ({})", socket.display()));
        if was_there && nobody {
            now.is_dead = true;
            now.trouble = Some("its cell has ended".to_owned());
            return;
        }
        drop(now);
        // An error means that the keeper is gone.
        if doorbell.wait(Some(pause)).is_err() {
            return;
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Keeps a connected cell at what is wanted.
fn serve(
    remote: &mut Remote,
    standing: &Mutex<Standing>,
    counters: &Counters,
    doorbell: &Doorbell,
) -> Over {
    let mut pause = RETRY_MIN;
    loop {
        if let Err(error) = remote.poll() {
            return error.into();
        }
        counters.follow(remote.vcpu_stats());
        let now = lock(standing).clone();
        if now.is_released {
            return Over::Released;
        }
        let (mut wait, mut trouble) = (LOOK, None);
        for (resource, wish) in now.resources {
            let can_be = possible(remote, resource, wish.wanted);
            let why = if wish.held == Some(can_be) {
                beyond(remote, resource, wish.wanted)
            } else {
                match apply(remote, resource, can_be, standing) {
                    Ok(()) => beyond(remote, resource, wish.wanted),
                    Err(RemoteError::Refused(refusal)) => {
                        wait = pause;
                        Some(format!("its cell refuses {resource} of {can_be}: {refusal}"))
                    }
                    Err(error) => return error.into(),
                }
            };
            judge(standing, resource, (wish.wanted, can_be), why.clone());
            trouble = trouble.or(why);
        }
        pause = if wait == LOOK { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
        lock(standing).trouble = trouble;
        if let Err(error) = remote.wait_beside(doorbell.as_fd(), wait) {
            return error.into();
        }
        // Who else wants something rings; an error means that the keeper is gone.
        if doorbell.drain().is_err() {
            return Over::Released;
        }
    }
}

/// The nearest to `wanted` that the cell allows.
fn possible(remote: &Remote, resource: Resource, wanted: u64) -> u64 {
    let bounds = remote.bounds();
    match resource {
        Resource::Cpu => wanted.clamp(1, bounds.vcpus_max.max(1).into()),
        _ => wanted.min(bounds.memory.bytes_max).max(bounds.memory.boot_bytes),
    }
}

/// What is wrong with a wish that the cell cannot fulfil. More processors than it has vCPUs is
/// nothing: its cap counts.
fn beyond(remote: &Remote, resource: Resource, wanted: u64) -> Option<String> {
    let memory = remote.bounds().memory;
    let beyond = resource == Resource::Memory && possible(remote, resource, wanted) != wanted;
    beyond.then(|| {
        format!(
            "its cell can have {} to {} bytes of memory and not {wanted}; see --memory-max of hvctl \
             cell",
            memory.boot_bytes, memory.bytes_max
        )
    })
}

/// Says how a wish stands, unless there is a newer one.
fn judge(
    standing: &Mutex<Standing>,
    resource: Resource,
    (wanted, can_be): (u64, u64),
    why: Option<String>,
) {
    let mut now = lock(standing);
    let Some(wish) = now.resources.get_mut(&resource).filter(|wish| wish.wanted == wanted) else {
        return;
    };
    wish.is_new = false;
    wish.state = match (wish.held == Some(can_be), &why) {
        (true, None) => State::InForce,
        _ => State::Refused,
    };
    wish.fault = why;
}

/// Sets a resource, and notes what the cell confirms.
fn apply(
    remote: &mut Remote,
    resource: Resource,
    amount: u64,
    standing: &Mutex<Standing>,
) -> Result<(), RemoteError> {
    let held = match resource {
        Resource::Cpu => run_vcpus(remote, amount as u32)?,
        _ => {
            let intent = Intent::ResizeMemory { slot: 0, bytes: amount };
            match remote.ask(intent, ANSWER_TIMEOUT)? {
                Confirmed::Memory { bytes, .. } => bytes,
                _ => return Ok(()),
            }
        }
    };
    if let Some(wish) = lock(standing).resources.get_mut(&resource) {
        (wish.asked, wish.held) = (Some(amount), Some(held));
        wish.writes += 1;
        wish.written_at_ns = now_ns();
    }
    match held == amount {
        true => Ok(()),
        false => Err(RemoteError::Protocol("another size than was asked for")),
    }
}

/// Has the first `count` vCPUs run, made where they are not there yet, and parks the others. How many
/// the cell confirmed to run.
fn run_vcpus(remote: &mut Remote, count: u32) -> Result<u64, RemoteError> {
    let mut running = 0;
    let mut runs = |confirmed| {
        running += u64::from(matches!(confirmed, Confirmed::Vcpu { parked: false, .. }));
    };
    for vcpu in 0..count {
        match remote.ask(Intent::Unpark { vcpu }, ANSWER_TIMEOUT) {
            Err(RemoteError::Refused(Refusal::UnknownVcpu)) => {
                runs(remote.ask(Intent::CreateVcpu { vcpu }, ANSWER_TIMEOUT)?);
            }
            answer => runs(answer?),
        }
    }
    for vcpu in count..remote.bounds().vcpus_max {
        match remote.ask(Intent::Park { vcpu }, ANSWER_TIMEOUT) {
            // They are made in order.
            Err(RemoteError::Refused(Refusal::UnknownVcpu)) => break,
            answer => runs(answer?),
        }
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_may_name_a_port() {
        assert_eq!(split_place("/sys/fs/cgroup/web"), ("/sys/fs/cgroup/web", None));
        let place = join_place("/sys/fs/cgroup/web", "/run/web.sock");
        assert_eq!(split_place(&place), ("/sys/fs/cgroup/web", Some(Path::new("/run/web.sock"))));
        assert_eq!(split_place(",port=/p"), ("", Some(Path::new("/p"))));
    }
}
