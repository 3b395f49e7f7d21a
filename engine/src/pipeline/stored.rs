//! Storage classes on the host: what an instance may use of another tier's block devices, and where the
//! disks of its QEMU belong.

use super::actuate::{Actuate, devices_of};
use crate::machine::event::Stored;
use hvctl::outcome::Aim;
use hvctl::qmp::storage;
use std::path::PathBuf;
use vendue_wire::code::Resource;

impl Actuate {
    /// An instance leases another tier's storage, or does no more.
    pub(super) fn store(&mut self, stored: &Stored) {
        let (instance, tier, vrus) =
            (stored.instance.get(), stored.tier.get(), (stored.vru.get(), stored.vru_size.get()));
        let Some(&home) = self.homes.get(&instance) else { return };
        let now = self.clock.now_ns();
        let away = vrus.0 > 0;
        let before = match away {
            true => self.stored.insert(instance, (tier, vrus.1)),
            false => self.stored.remove(&instance),
        };
        // Of storage that it leases no more it keeps a VRU: enough to get away what it has there.
        if let Some((old, size)) = before.filter(|&(old, _)| old != tier || !away) {
            let _ = self.host.store(instance, devices_of(&self.devices, old), (1, size), now);
        }
        self.misplaced.remove(&instance);
        let devices = devices_of(&self.devices, tier);
        if away && let Err(error) = self.host.store(instance, devices, vrus, now) {
            let text = format!("instance {instance} is not limited on storage it leases: {error}");
            self.misplaced.insert(instance, text);
        }
        let moves = self.move_to(instance, (home, tier), vrus);
        if away && !moves && devices.is_empty() {
            let text = format!(
                "instance {instance} leases storage of tier {tier}, which has no devices here, and no \
                 directory that its disks can be moved to: see storage in [[tier]]"
            );
            self.misplaced.insert(instance, text);
        }
        self.outcomes.want(instance, Aim::Storage, Resource::BlockIo, now);
    }

    /// Tells a QEMU where its disks belong; false if it is none, or the tiers have no directories.
    fn move_to(
        &self,
        instance: u32,
        (home, tier): (u16, u16),
        (vrus, vru_size): (u64, u64),
    ) -> bool {
        let dir = |tier: u16| -> Option<PathBuf> { self.storage.get(usize::from(tier))?.clone() };
        let (Some(lane), Some(home), Some(to)) = (self.lanes.get(&instance), dir(home), dir(tier))
        else {
            return false;
        };
        lane.store(storage::Stored { home, to, bytes_per_s: vrus.saturating_mul(vru_size) }, vrus);
        true
    }
}
