//! The taps that the processes of a group hold, by what the kernel says of their descriptors: a VMM
//! that is in the host's own network has no interface but these.

use nix::net::if_::if_nametoindex;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// What a tap's descriptor is opened from.
const DEVICE: &str = "/dev/net/tun";
/// Processes and, of each, descriptors that are looked at.
const PROCESSES_MAX: usize = 64;
const DESCRIPTORS_MAX: usize = 4096;
/// Bytes of a list of processes that are read.
const LIST_BYTES: usize = 4096;

/// Numbers of the taps in the calling thread's namespace that processes in the list hold.
pub(super) fn held_by(processes: &File) -> Vec<u32> {
    let mut bytes = [0; LIST_BYTES];
    let length = processes.read_at(&mut bytes, 0).unwrap_or(0);
    let list = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let processes = list.lines().filter_map(|line| line.trim().parse::<u32>().ok());
    let names: BTreeSet<String> = processes.take(PROCESSES_MAX).flat_map(names).collect();
    names.iter().filter_map(|name| if_nametoindex(name.as_str()).ok()).collect()
}

/// Names of the taps that a process holds.
fn names(process: u32) -> Vec<String> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let is_tap = |path: &std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.as_os_str() == DEVICE)
    };
    let taps = descriptors.take(DESCRIPTORS_MAX).map(|entry| entry.path()).filter(is_tap);
    let name = |path: std::path::PathBuf| {
        let number = path.file_name()?.to_str()?.to_owned();
        let text = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).ok()?;
        let name = text.lines().find_map(|line| line.strip_prefix("iff:"))?;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    };
    taps.filter_map(name).collect()
}
