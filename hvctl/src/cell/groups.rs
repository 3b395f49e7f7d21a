//! A cell's cgroup and, where cgroup v2 lets it have threads apart, a group for each vCPU below it.
//!
//! The jailed cell opens no files, so the groups of all vCPUs that it may ever have are made, and
//! held open, before. A group cannot be removed from within: when the cell has ended, whoever launched
//! it or the daemon that has its instance removes them, and a cell that finds some uses them again.

use super::CellError;
use crate::cgroup::make_group;
use crate::vcpu::{self, VcpuError};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where a vCPU's thread joins its group; empty if there are none.
#[derive(Debug)]
pub(super) struct Groups(Vec<File>);

impl Groups {
    /// Joins `directory`, made if it is not there, or stays where this process is; and makes a group
    /// for each of `vcpus` below. Only what `directory` names must succeed.
    pub(super) fn make(directory: Option<&Path>, vcpus: u32) -> Result<Groups, CellError> {
        let Some(directory) = directory else {
            let files = own_group().and_then(|group| below(&group, vcpus).ok());
            return Ok(Groups(files.unwrap_or_default()));
        };
        let failed = |source| {
            let what = format!(
                "live in {}, which has to be in a cgroup2 mount that this user may write",
                directory.display()
            );
            CellError::Host { what, source }
        };
        make_group(directory).map_err(failed)?;
        let joined = File::options().write(true).open(directory.join("cgroup.procs"));
        joined.and_then(|mut procs| procs.write_all(b"0")).map_err(failed)?;
        Ok(Groups(below(directory, vcpus).map_err(failed)?))
    }

    /// Moves the calling thread into its vCPU's group.
    pub(super) fn join(&self, vcpu: u32) -> io::Result<()> {
        let Some(mut threads) = self.0.get(vcpu as usize) else { return Ok(()) };
        threads.write_all(b"0")
    }
}

/// This process's own group of cgroup v2, unless that is the root, which is not ours to divide.
fn own_group() -> Option<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = crate::cgroup::mounts(&mountinfo).into_iter().find(|mount| mount.version == 2)?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    if path.is_empty() { None } else { Some(mount.point.join(path)) }
}

/// A group of threads for each vCPU.
fn below(group: &Path, vcpus: u32) -> io::Result<Vec<File>> {
    let mut files = Vec::with_capacity(vcpus as usize);
    match vcpu::make(group, (0..vcpus).map_while(|vcpu| vcpu.try_into().ok())) {
        Ok(()) | Err(VcpuError::NoController { .. }) => {}
        Err(error) => return Err(io::Error::other(error)),
    }
    for vcpu in 0..vcpus {
        let path = vcpu::group(group, vcpu);
        files.push(File::options().write(true).open(path.join("cgroup.threads"))?);
    }
    Ok(files)
}
