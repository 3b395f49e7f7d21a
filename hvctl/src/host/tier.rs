//! A tier's capacity as the cap of all its instances together: the limits of the group above theirs.
//!
//! The group weighs what the instances below it do together, so that each weighs beside everybody
//! what it would without the group. Instances of a capped account live below that account's group
//! instead, those that are adopted where they are outside of both.

use super::{Backend, Host, HostError, Place, account_key};
use crate::dry_run::DryRunPlace;
use crate::limit::{Device, Knob};
use vendue_wire::code::Resource;

/// The number that stands for a tier among the instances' and accounts', which have 16 bits.
pub const fn tier_key(tier: u16) -> u32 {
    account_key(tier_owner(tier))
}

/// The number that stands for a tier among the accounts'.
pub(super) const fn tier_owner(tier: u16) -> u32 {
    (1 << 16) + tier as u32
}

/// True if an account's number stands for a tier.
pub(super) const fn is_tier(owner: u32) -> bool {
    owner >= tier_owner(0)
}

impl Host {
    /// Sets what all instances of a tier together may use of `resource`: `vrus`, each of `vru_size`,
    /// for the instances whose groups are below [`crate::cgroup::CgroupHost::tier_group`]. The first
    /// time makes that group; `devices` are as with [`Host::adopt`]. [`Host::release`] of
    /// [`tier_key`] lets it go.
    ///
    /// # Errors
    /// The group cannot be made.
    pub fn resize_tier(
        &mut self,
        tier: u16,
        resource: Resource,
        capacity: (u64, u64),
        devices: &[Device],
        now_ns: u64,
    ) -> Result<(), HostError> {
        self.hold_tier(tier, devices)?;
        self.set(tier_key(tier), capacity, now_ns, |knob| {
            knob.resource() == resource && knob != Knob::CpuWeight
        })
    }

    /// Has the tier's group, making it if need be.
    pub(super) fn hold_tier(&mut self, tier: u16, devices: &[Device]) -> Result<(), HostError> {
        if self.instances.contains_key(&tier_key(tier)) {
            return Ok(());
        }
        let (place, name) = match &self.backend {
            Backend::Cgroup(host) => {
                let opened = host.open_tier(tier)?;
                let name = opened.dir().to_string_lossy().into_owned();
                (Place::Cgroup(opened), name)
            }
            Backend::DryRun => (Place::DryRun(DryRunPlace::open("")?), String::new()),
        };
        let all = self.resources.iter().flat_map(|&resource| Knob::of(resource, devices));
        let knobs = all.collect();
        self.hold(tier_key(tier), (place, name), (tier_owner(tier), None), knobs);
        Ok(())
    }
}
