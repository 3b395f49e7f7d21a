//! A group for each thread that runs a virtual processor, below its instance's.
//!
//! cgroup v2 keeps the threads of a process in one group, except below a *threaded domain*: there
//! groups of type `threaded` may hold single threads, and have the controllers that know threads
//! (cpu; not memory or io, which stay with the instance). The instance's group becomes
//! such a domain with the first `vcpu-N` below it and is an ordinary group again after the last.

use crate::cgroup::{errno, make_group};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Name of a virtual processor's group, before its number.
pub const VCPU: &str = "vcpu-";
/// Virtual processors of an instance.
pub const VCPUS_MAX: usize = 1024;
/// What is handed on to the threads' groups, whoever makes them. Not cpuset: with a group that has it,
/// kernels before 6.2 forget which processors a thread was bound to. The instance's own cpuset binds its
/// threads all the same.
const CONTROLLER: &str = "cpu";

/// Why threads have no groups of their own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VcpuError {
    /// More virtual processors than may be.
    #[error("{0} virtual processors are more than an instance may have, {VCPUS_MAX}")]
    TooMany(usize),
    /// One number, two threads.
    #[error("virtual processor {0} is named twice")]
    Twice(u16),
    /// There is no real group: a dry run.
    #[error("a dry run has no groups for threads")]
    DryRun,
    /// The group cannot be made a thread's.
    #[error(
        "{path} cannot be made a group for a thread ({errno}); the group above it must not hand on \
         memory or io itself, nor have other groups below it"
    )]
    NotThreaded {
        /// The group.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The cpu controller cannot be had.
    #[error("{path} cannot hand on cpu to its threads' groups ({errno})")]
    NoController {
        /// The instance's group.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The thread is not of this instance, or has ended.
    #[error(
        "thread {thread} cannot be moved to {path} ({errno}); name threads of processes that are in \
         the instance's group"
    )]
    NotMoved {
        /// The thread.
        thread: u32,
        /// Where to.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

/// The group of a virtual processor of the instance at `dir`.
pub(crate) fn group(dir: &Path, vcpu: impl std::fmt::Display) -> PathBuf {
    dir.join(format!("{VCPU}{vcpu}"))
}

/// The virtual processors that have groups below `dir`.
fn found(dir: &Path) -> BTreeSet<u16> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix(VCPU)?.parse().ok();
    entries.filter_map(number).collect()
}

/// Makes a group for each of `vcpus`, or finds it made, with the controller that threads' groups have.
///
/// # Errors
/// After [`VcpuError::NoController`] the groups are there, and tell the threads apart all the same.
pub(crate) fn make(dir: &Path, vcpus: impl Iterator<Item = u16>) -> Result<(), VcpuError> {
    let mut any = false;
    for vcpu in vcpus {
        make_threaded(&group(dir, vcpu))?;
        any = true;
    }
    if any { hand_on(dir) } else { Ok(()) }
}

/// Gives each of `threads` its group: its virtual processor's number, and its id. Groups that are
/// there are used again; those of virtual processors that are not named go, and their threads are
/// the instance's again.
pub(crate) fn arrange(dir: &Path, threads: &[(u16, u32)]) -> Result<(), VcpuError> {
    if threads.len() > VCPUS_MAX {
        return Err(VcpuError::TooMany(threads.len()));
    }
    let mut named = BTreeSet::new();
    if let Some(&(twice, _)) = threads.iter().find(|(vcpu, _)| !named.insert(*vcpu)) {
        return Err(VcpuError::Twice(twice));
    }
    make(dir, named.iter().copied())?;
    for &(vcpu, thread) in threads {
        let path = group(dir, vcpu);
        // What is there already is left: a move costs a lock of the whole host.
        if threads_of(&path).contains(&thread) {
            continue;
        }
        fs::write(path.join("cgroup.threads"), thread.to_string()).map_err(|error| {
            VcpuError::NotMoved { thread, path: path.clone(), errno: errno(&error) }
        })?;
    }
    for vcpu in found(dir).difference(&named) {
        remove(dir, *vcpu);
    }
    Ok(())
}

/// Gives all threads back to the instance's group and removes theirs. What cannot be removed shows
/// when the instance's is.
pub(crate) fn disband(dir: &Path) {
    let groups = found(dir);
    for &vcpu in &groups {
        remove(dir, vcpu);
    }
    if !groups.is_empty() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("-{CONTROLLER}"));
    }
}

fn remove(dir: &Path, vcpu: u16) {
    let path = group(dir, vcpu);
    for thread in threads_of(&path) {
        // It may end meanwhile.
        let _ = fs::write(dir.join("cgroup.threads"), thread.to_string());
    }
    let _ = fs::remove_dir(&path);
}

fn threads_of(path: &Path) -> BTreeSet<u32> {
    let text = fs::read_to_string(path.join("cgroup.threads")).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Makes a group for threads, or finds it made.
fn make_threaded(path: &Path) -> Result<(), VcpuError> {
    let not_threaded = |error| VcpuError::NotThreaded { path: path.into(), errno: errno(&error) };
    make_group(path).map_err(not_threaded)?;
    let kind = path.join("cgroup.type");
    if fs::read_to_string(&kind).map_err(not_threaded)?.trim() == "threaded" {
        return Ok(());
    }
    fs::write(&kind, "threaded").map_err(|error| {
        let _ = fs::remove_dir(path);
        not_threaded(error)
    })
}

fn hand_on(dir: &Path) -> Result<(), VcpuError> {
    let control = dir.join("cgroup.subtree_control");
    let on = fs::read_to_string(&control).unwrap_or_default();
    if on.split_ascii_whitespace().any(|word| word == CONTROLLER) {
        return Ok(());
    }
    fs::write(&control, format!("+{CONTROLLER}"))
        .map_err(|error| VcpuError::NoController { path: dir.into(), errno: errno(&error) })
}
