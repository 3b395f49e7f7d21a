//! Limits above those of instances and tiers: of the group above all tiers, and of the host itself.

use super::{Backend, Home, Host, Place};
use crate::dry_run::DryRunPlace;
use crate::limit::{Device, Knob, Own, Setting};
use vendue_wire::message::{ANY, TIER_BIT};

/// The number that stands for the group above those of all tiers.
pub const ALL_TIERS: u32 = ANY - 1;
/// The number that stands for the host itself.
pub const WHOLE_HOST: u32 = ANY;

impl Host {
    /// Has these devices' time weighed by what each operation costs (io.cost), which is what
    /// `io.weight` needs. It stays so when Vendue has ended.
    pub fn cost(&mut self, devices: &[Device], now_ns: u64) {
        if devices.is_empty() {
            return;
        }
        let place = match &self.backend {
            Backend::Cgroup(host) => Place::Cgroup(host.open_root()),
            Backend::DryRun => dry_place(),
        };
        let knobs: Vec<Knob> = devices.iter().copied().map(Knob::IoCost).collect();
        self.hold_whole(WHOLE_HOST, place, knobs);
        for &device in devices {
            let on = Setting::Costed { device, on: true };
            self.want_whole(WHOLE_HOST, Knob::IoCost(device), on, now_ns);
        }
    }

    /// Numbers of what is held above the tiers.
    pub fn whole(&self) -> impl Iterator<Item = u32> + '_ {
        self.instances.range(ALL_TIERS..).map(|(&number, _)| number)
    }

    pub(super) fn hold_all_tiers(&mut self) {
        if self.instances.contains_key(&ALL_TIERS) {
            return;
        }
        let place = match &self.backend {
            Backend::Cgroup(host) => Place::Cgroup(host.open_subtree()),
            Backend::DryRun => dry_place(),
        };
        self.hold_whole(ALL_TIERS, place, vec![Knob::MemoryLow]);
    }

    fn hold_whole(&mut self, number: u32, place: Place, knobs: Vec<Knob>) {
        let name = place.dir().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
        self.hold(number, (place, name), (Home { account: 0, tier: 0 }, false), knobs);
    }

    fn want_whole(&mut self, number: u32, knob: Knob, setting: Setting, now_ns: u64) {
        let Some(held) = self.instances.get_mut(&number) else { return };
        for lever in held.levers.iter_mut().filter(|lever| lever.knob() == knob) {
            self.counters.spared += lever.want(setting, 0, now_ns);
        }
        self.reschedule(number, now_ns);
    }

    /// The knob of a tier that has its processors alone.
    pub(super) fn partition_knob(&self, tier: u16) -> Option<Knob> {
        (self.own(tier) != Own::Shared).then_some(Knob::Partition)
    }

    /// Has a tier's processors be its alone, if they are to be.
    pub(super) fn part(&mut self, tier: u16, now_ns: u64) {
        let setting = Setting::Partition { own: self.own(tier), valid: true };
        self.want_whole(TIER_BIT | u32::from(tier), Knob::Partition, setting, now_ns);
    }

    fn own(&self, tier: u16) -> Own {
        match &self.backend {
            Backend::Cgroup(host) => host.own(tier),
            Backend::DryRun => Own::Shared,
        }
    }
}

fn dry_place() -> Place {
    match DryRunPlace::open("") {
        Ok(place) => Place::DryRun(place),
        Err(error) => unreachable!("a label is a place: {error}"),
    }
}
