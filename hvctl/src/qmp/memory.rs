//! The guest's memory: virtio-mem devices, whose size is what the guest has plugged, and a balloon,
//! which is what it has given back.

use super::command::{Command, RequestedSize};
use super::reply::{Balloon, MemoryDevice, MemorySize, VirtioMem};
use super::{Monitor, Outcome, QmpError, settled};
use std::time::{Duration, Instant};

/// Between two looks at how far the guest is.
const LOOK: Duration = Duration::from_millis(50);

/// Memory of a guest, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// At start.
    pub base_bytes: u64,
    /// Plugged since.
    pub plugged_bytes: u64,
    /// Devices that can be resized.
    pub devices: Vec<VirtioMem>,
    /// What the balloon leaves to the guest, if it has one.
    pub balloon_bytes: Option<u64>,
}

/// Reads the guest's memory.
///
/// # Errors
/// As [`Monitor::call`].
pub fn read(monitor: &mut Monitor) -> Result<Memory, QmpError> {
    let size: MemorySize = monitor.call(&Command::QueryMemorySizeSummary)?;
    let balloon = match monitor.call::<Balloon>(&Command::QueryBalloon) {
        Ok(balloon) => Some(balloon.actual),
        Err(QmpError::Refused { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Memory {
        base_bytes: size.base_memory,
        plugged_bytes: size.plugged_memory.unwrap_or(0),
        devices: devices(monitor)?,
        balloon_bytes: balloon,
    })
}

fn devices(monitor: &mut Monitor) -> Result<Vec<VirtioMem>, QmpError> {
    let all: Vec<MemoryDevice> = monitor.call(&Command::QueryMemoryDevices)?;
    let resizable = all.into_iter().filter(|device| device.r#type == "virtio-mem");
    resizable.map(|device| serde_json::from_value(device.data)).collect::<Result<_, _>>().map_err(
        |error| QmpError::Nonsense {
            command: Command::QueryMemoryDevices.name(),
            why: super::session::printable(&error.to_string()),
        },
    )
}

/// The device called `id`; without a name, the only one.
fn device(monitor: &mut Monitor, id: Option<&str>) -> Result<Result<VirtioMem, String>, QmpError> {
    let mut all = devices(monitor)?;
    all.retain(|device| device.id.is_some() && (id.is_none() || device.id.as_deref() == id));
    Ok(match (all.len(), id) {
        (1, _) => Ok(all.remove(0)),
        (0, Some(id)) => Err(format!("there is no virtio-mem device {id:?}")),
        (0, None) => Err("the guest has no virtio-mem device with an id".to_owned()),
        _ => Err("there are several virtio-mem devices: name one".to_owned()),
    })
}

/// Why the device cannot have this size.
fn possible(device: &VirtioMem, wanted_bytes: u64) -> Result<(), String> {
    let block = device.block_size.max(1);
    if wanted_bytes > device.max_size {
        return Err(format!("the device holds {} bytes at most", device.max_size));
    }
    if !wanted_bytes.is_multiple_of(block) {
        return Err(format!("not a multiple of the device's block of {block} bytes"));
    }
    Ok(())
}

/// Asks a virtio-mem device (the only one, if `id` is none) for a size, and gives the guest
/// `patience` to plug or unplug it. A request that the guest meets only in part stands: the guest
/// goes on trying.
///
/// The value read back is what the guest has plugged, in bytes.
///
/// # Errors
/// The QEMU is lost or makes no sense.
pub fn resize(
    monitor: &mut Monitor,
    id: Option<&str>,
    wanted_bytes: u64,
    patience: Duration,
) -> Result<Outcome<u64>, QmpError> {
    settled(resize_device(monitor, id, wanted_bytes, patience))
}

fn resize_device(
    monitor: &mut Monitor,
    id: Option<&str>,
    wanted_bytes: u64,
    patience: Duration,
) -> Result<Outcome<u64>, QmpError> {
    let before = match device(monitor, id)? {
        Ok(device) => device,
        Err(why) => return Ok(Outcome::Refused(why)),
    };
    if let Err(why) = possible(&before, wanted_bytes) {
        return Ok(Outcome::Refused(why));
    }
    let path = before.id.expect("devices without an id are not taken");
    if before.requested_size != wanted_bytes {
        monitor.tell(&Command::ResizeVirtioMem {
            path: path.clone(),
            property: RequestedSize::RequestedSize,
            value: wanted_bytes,
        })?;
    }
    let read = |monitor: &mut Monitor| {
        let device = device(monitor, Some(&path))?;
        device
            .map(|device| device.plugged_size)
            .map_err(|why| QmpError::Nonsense { command: Command::QueryMemoryDevices.name(), why })
    };
    reach(monitor, before.plugged_size, wanted_bytes, patience, read)
}

/// Asks the balloon to leave the guest `wanted_bytes`, and gives the guest `patience` for it.
///
/// The value read back is what the guest has, in bytes.
///
/// # Errors
/// The QEMU is lost or makes no sense.
pub fn balloon(
    monitor: &mut Monitor,
    wanted_bytes: u64,
    patience: Duration,
) -> Result<Outcome<u64>, QmpError> {
    settled(inflate(monitor, wanted_bytes, patience))
}

fn inflate(
    monitor: &mut Monitor,
    wanted_bytes: u64,
    patience: Duration,
) -> Result<Outcome<u64>, QmpError> {
    let read = |monitor: &mut Monitor| {
        monitor.call::<Balloon>(&Command::QueryBalloon).map(|balloon| balloon.actual)
    };
    let before = read(monitor)?;
    let size: MemorySize = monitor.call(&Command::QueryMemorySizeSummary)?;
    let all = size.base_memory.saturating_add(size.plugged_memory.unwrap_or(0));
    if wanted_bytes == 0 || wanted_bytes > all {
        return Ok(Outcome::Refused(format!("the guest has {all} bytes: leave it some of them")));
    }
    monitor.tell(&Command::Balloon { value: wanted_bytes })?;
    reach(monitor, before, wanted_bytes, patience, read)
}

/// Looks until the value is the one wanted, or patience ends.
fn reach(
    monitor: &mut Monitor,
    before: u64,
    wanted: u64,
    patience: Duration,
    read: impl Fn(&mut Monitor) -> Result<u64, QmpError>,
) -> Result<Outcome<u64>, QmpError> {
    let until = Instant::now() + patience;
    let mut reached = read(monitor)?;
    while reached != wanted && Instant::now() < until {
        monitor.rest(LOOK)?;
        reached = read(monitor)?;
    }
    let why = format!("the guest stands at {reached} bytes; it may still go on");
    Ok(match reached {
        _ if reached == wanted => Outcome::Applied(reached),
        _ if reached == before => Outcome::TimedOut(why),
        _ => Outcome::Partial { reached, why },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_cannot_be_are_refused_with_a_reason() {
        let (block_size, max_size) = (2 << 20, 256 << 20);
        let device =
            VirtioMem { id: None, block_size, max_size, requested_size: 0, plugged_size: 0 };
        assert_eq!(possible(&device, 256 << 20), Ok(()));
        assert_eq!(possible(&device, 0), Ok(()));
        assert!(possible(&device, 258 << 20).unwrap_err().contains("at most"));
        assert!(possible(&device, 3 << 20).unwrap_err().contains("multiple"));
    }
}
