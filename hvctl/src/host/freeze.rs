//! Instances in which nothing may run: a limit like any other, but that it is not there until it is
//! first wanted.

use super::{Host, HostError};
use crate::lever::Lever;
use crate::limit::{Knob, Setting};

impl Host {
    /// Freezes `instance`, or lets it go on. In force is what `cgroup.events` says. Nothing is
    /// written before [`Host::turn`].
    ///
    /// # Errors
    /// [`HostError::UnknownInstance`].
    pub fn freeze(&mut self, instance: u32, frozen: bool, now_ns: u64) -> Result<(), HostError> {
        let page_bytes = self.page_bytes;
        let held = self.instances.get_mut(&instance).ok_or(HostError::UnknownInstance(instance))?;
        if held.lever(Knob::Freeze).is_none() {
            let says = held.place.read(Knob::Freeze).ok();
            held.levers.push(Lever::new(Knob::Freeze, page_bytes, says));
        }
        let setting = Setting::Count(Some(frozen.into()));
        for lever in held.levers.iter_mut().filter(|lever| lever.knob() == Knob::Freeze) {
            self.counters.spared += lever.want(setting, 0, now_ns);
        }
        self.reschedule(instance, now_ns);
        Ok(())
    }
}
