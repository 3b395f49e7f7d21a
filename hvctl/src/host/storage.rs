//! What an instance may use of block devices that are another tier's.

use super::{Host, HostError};
use crate::lever::Lever;
use crate::limit::{Device, Knob};
use vendue_wire::code::Resource;

/// True if it limits one of these devices.
pub(super) fn is_away(away: &[Device], knob: Knob) -> bool {
    matches!(knob, Knob::IoMax(device) if away.contains(&device))
}

impl Host {
    /// Sets what `instance` may use of another tier's block `devices`: `vrus` each, of `vru_size`
    /// bytes/s. A device that is its own tier's too stays as its own block I/O has it. Nothing is
    /// written before [`Host::turn`]; once set, a device is limited until the instance is let go.
    ///
    /// # Errors
    /// [`HostError::UnknownInstance`]; [`HostError::TooManyDevices`] if it would have more of other
    /// tiers than it may have of its own.
    pub fn store(
        &mut self,
        instance: u32,
        devices: &[Device],
        (vrus, vru_size): (u64, u64),
        now_ns: u64,
    ) -> Result<(), HostError> {
        let held = self.instances.get_mut(&instance).ok_or(HostError::UnknownInstance(instance))?;
        if !self.resources.contains(&Resource::BlockIo) {
            return Ok(());
        }
        let unknown = |device: &&Device| held.lever(Knob::IoMax(**device)).is_none();
        let new: Vec<Device> = devices.iter().filter(unknown).copied().collect();
        let all = held.away.len() + new.len();
        if all > self.options.devices_max {
            return Err(HostError::TooManyDevices(all));
        }
        for device in new {
            let knob = Knob::IoMax(device);
            let says = held.place.read(knob).ok();
            held.levers.push(Lever::new(knob, self.page_bytes, says));
            held.away.push(device);
        }
        for &device in devices.iter().filter(|device| held.away.contains(device)) {
            let knob = Knob::IoMax(device);
            let setting = knob.setting(vrus, vru_size, self.page_bytes);
            for lever in held.levers.iter_mut().filter(|lever| lever.knob() == knob) {
                self.counters.spared += lever.want(setting, vrus, now_ns);
            }
        }
        self.schedule.put(instance, held, now_ns);
        Ok(())
    }
}
