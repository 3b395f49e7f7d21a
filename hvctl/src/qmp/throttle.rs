//! Disks, and the limits that QEMU puts on them.

use super::command::{Command, ThrottleLimits};
use super::reply::{BlockDevice, Medium};
use super::session::printable;
use super::{Monitor, Outcome, QmpError, settled};

/// Limits of a disk, reads and writes together; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Bytes a second.
    pub bytes_per_s: u64,
    /// Operations a second.
    pub operations_per_s: u64,
}

/// A disk of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The id of the guest's device, or the old-style drive's name.
    pub name: String,
    /// What is limited: QEMU's path of the device.
    pub(super) device: String,
    /// What is in it.
    pub(super) medium: Medium,
}

impl Disk {
    /// The file that it is in, as QEMU opened it.
    pub fn file(&self) -> String {
        printable(&self.medium.file)
    }

    /// Bytes that the guest sees.
    pub fn size_bytes(&self) -> u64 {
        self.medium.image.virtual_size
    }

    /// Its limits of reads and writes together.
    pub fn throttle(&self) -> Throttle {
        Throttle { bytes_per_s: self.medium.bps, operations_per_s: self.medium.iops }
    }

    /// True if reads or writes have limits of their own, which others have set.
    fn has_separate_limits(&self) -> bool {
        let medium = &self.medium;
        [medium.bps_rd, medium.bps_wr, medium.iops_rd, medium.iops_wr].iter().any(|&n| n > 0)
    }
}

/// The guest's disks that have something in them.
///
/// # Errors
/// As [`Monitor::call`].
pub fn disks(monitor: &mut Monitor) -> Result<Vec<Disk>, QmpError> {
    let all: Vec<BlockDevice> = monitor.call(&Command::QueryBlock)?;
    let disk = |block: BlockDevice| {
        let medium = block.inserted?;
        let device = block.qdev.unwrap_or_else(|| block.device.clone());
        let name = match block.device.is_empty() {
            true => printable(short_name(&device)),
            false => printable(&block.device),
        };
        (!device.is_empty()).then_some(Disk { name, device, medium })
    };
    Ok(all.into_iter().filter_map(disk).collect())
}

/// The id in a QOM path such as `/machine/peripheral/data/virtio-backend`; other text as it is.
fn short_name(path: &str) -> &str {
    let inside = path.strip_prefix("/machine/peripheral/");
    inside.and_then(|inside| inside.split('/').next()).unwrap_or(path)
}

/// The disk of this name.
pub(super) fn find(monitor: &mut Monitor, name: &str) -> Result<Result<Disk, String>, QmpError> {
    let mut all = disks(monitor)?;
    let names: Vec<String> = all.iter().map(|disk| disk.name.clone()).collect();
    all.retain(|disk| disk.name == name || disk.device == name);
    Ok(match all.len() {
        1 => Ok(all.remove(0)),
        0 => Err(format!("there is no disk {name:?}, but: {}", names.join(", "))),
        _ => Err(format!("several disks are called {name:?}")),
    })
}

/// Limits a disk, at once. What is limited so already is not written again, because QEMU begins a
/// new measuring period each time.
///
/// # Errors
/// The QEMU is lost or makes no sense.
pub fn set(
    monitor: &mut Monitor,
    disk: &str,
    wanted: Throttle,
) -> Result<Outcome<Throttle>, QmpError> {
    settled(limit(monitor, disk, wanted))
}

fn limit(
    monitor: &mut Monitor,
    name: &str,
    wanted: Throttle,
) -> Result<Outcome<Throttle>, QmpError> {
    let before = match find(monitor, name)? {
        Ok(disk) => disk,
        Err(why) => return Ok(Outcome::Refused(why)),
    };
    if before.throttle() == wanted && !before.has_separate_limits() {
        return Ok(Outcome::Applied(wanted));
    }
    monitor.tell(&Command::Throttle(ThrottleLimits {
        id: before.device.clone(),
        bps: wanted.bytes_per_s,
        iops: wanted.operations_per_s,
        ..ThrottleLimits::default()
    }))?;
    let after = match find(monitor, &before.device)? {
        Ok(disk) => disk.throttle(),
        Err(why) => return Ok(Outcome::Refused(why)),
    };
    Ok(match after == wanted {
        true => Outcome::Applied(after),
        false => Outcome::Partial { reached: after, why: "QEMU took another limit".to_owned() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_go_by_the_id_of_their_device() {
        assert_eq!(short_name("/machine/peripheral/data/virtio-backend"), "data");
        assert_eq!(short_name("/machine/peripheral/sda"), "sda");
        assert_eq!(
            short_name("/machine/peripheral-anon/device[1]"),
            "/machine/peripheral-anon/device[1]"
        );
    }
}
