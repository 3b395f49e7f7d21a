//! What follows from what an instance reserved, whatever it may use now: memory that is reclaimed
//! last, and processor time that it may save up.
//!
//! Memory is protected only as far as the groups above are: each protects what those below it do
//! together, no more, because a kernel that shares out what is left over would otherwise protect
//! instances beyond what they reserved.

use super::account_key;
use super::{Host, HostError};
use crate::limit::{Knob, Setting};
use vendue_wire::code::Resource;
use vendue_wire::message::TIER_BIT;

use super::{ALL_TIERS, Home};

impl Host {
    /// Sets what `instance` reserved of `resource`: `vrus`, each of `vru_size`. Nothing is written
    /// before [`Host::turn`], and nothing at all where its tier's settings do not ask for it.
    ///
    /// # Errors
    /// [`HostError::UnknownInstance`].
    pub fn reserve(
        &mut self,
        instance: u32,
        resource: Resource,
        (vrus, vru_size): (u64, u64),
        now_ns: u64,
    ) -> Result<(), HostError> {
        let held = self.instances.get_mut(&instance).ok_or(HostError::UnknownInstance(instance))?;
        let home = held.home;
        let parts = self.settings.get(&home.tier).into_iter().flatten();
        let mut changed = false;
        for &(knob, part) in
            parts.filter(|(knob, _)| knob.follows_baseline() && knob.resource() == resource)
        {
            let Setting::Percent(part) = part else { unreachable!("a part is in percent") };
            let setting = knob.part_of(vrus.saturating_mul(vru_size), part, self.page_bytes);
            for lever in held.levers.iter_mut().filter(|lever| lever.knob() == knob) {
                if lever.wanted() != Some(setting) {
                    self.counters.spared += lever.want(setting, vrus, now_ns);
                    changed = true;
                }
            }
        }
        if changed {
            self.reschedule(instance, now_ns);
            self.protect(home, now_ns);
        }
        Ok(())
    }

    /// The knob that the groups above a tier's instances need for what these have protected.
    pub(super) fn low_knob(&self, tier: u16) -> Option<Knob> {
        let settings = self.settings.get(&tier).into_iter().flatten();
        settings.map(|&(knob, _)| knob).find(|&knob| knob == Knob::MemoryLow)
    }

    /// Has the groups above an instance at home there protect what those below them do.
    pub(super) fn protect(&mut self, home: Home, now_ns: u64) {
        if self.low_knob(home.tier).is_none() {
            return;
        }
        let low = |held: &super::Instance| match held.lever(Knob::MemoryLow)?.wanted()? {
            Setting::Bytes(bytes) => bytes,
            _ => None,
        };
        let instances = || self.instances.range(..account_key(0, 0)).map(|(_, held)| held.as_ref());
        let sum = |is_meant: &dyn Fn(&super::Instance) -> bool| {
            let meant = instances().filter(|held| is_meant(held));
            meant.filter_map(low).fold(0u64, u64::saturating_add)
        };
        let sums = [
            (home.key(), sum(&|held| held.home == home && held.below)),
            (TIER_BIT | u32::from(home.tier), sum(&|held| held.home.tier == home.tier)),
            (ALL_TIERS, sum(&|_| true)),
        ];
        self.hold_all_tiers();
        for (number, bytes) in sums {
            let Some(held) = self.instances.get_mut(&number) else { continue };
            let setting = Setting::memory(bytes, self.page_bytes);
            for lever in held.levers.iter_mut().filter(|lever| lever.knob() == Knob::MemoryLow) {
                self.counters.spared += lever.want(setting, 0, now_ns);
            }
            self.reschedule(number, now_ns);
        }
    }
}
