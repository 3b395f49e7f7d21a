//! What a tier's instances are set to whatever they are entitled to: written once, read back and
//! set back like any other limit.

use super::{Host, Place};
use crate::limit::{Knob, Setting};
use std::collections::BTreeMap;

impl Host {
    /// Says what instances that are adopted from now on are set to, by tier.
    pub fn configure(&mut self, settings: BTreeMap<u16, Vec<(Knob, Setting)>>) {
        let fixed = |(knob, _): &(Knob, Setting)| !knob.is_entitled() && knob.vcpu().is_none();
        assert!(settings.values().flatten().all(fixed), "a setting that is not fixed");
        self.settings = settings;
    }

    /// The settings of the tier whose files the instance's group has: not every kernel has all.
    pub(super) fn offered(&self, place: &Place, tier: u16) -> Vec<(Knob, Setting)> {
        let settings = self.settings.get(&tier).into_iter().flatten().copied();
        let has = |knob| match place {
            Place::Cgroup(place) => place.has(knob),
            Place::DryRun(_) => true,
        };
        settings.filter(|&(knob, _)| has(knob)).collect()
    }

    /// Wants `settings` of an instance.
    pub(super) fn settle(&mut self, instance: u32, settings: &[(Knob, Setting)]) {
        let Some(held) = self.instances.get_mut(&instance) else { return };
        // What follows the baseline waits for that.
        for &(knob, setting) in settings.iter().filter(|(knob, _)| !knob.follows_baseline()) {
            for lever in held.levers.iter_mut().filter(|lever| lever.knob() == knob) {
                self.counters.spared += lever.want(setting, 0, 0);
            }
        }
        self.reschedule(instance, 0);
    }

    /// What `instance` should be set to and cannot be here, in words.
    pub fn lacking(&self, instance: u32) -> Vec<String> {
        let Some(held) = self.instances.get(&instance) else { return Vec::new() };
        let tier = held.home.tier;
        let settings = self.settings.get(&tier).into_iter().flatten();
        let lacking = settings.filter(|(knob, _)| held.lever(*knob).is_none());
        let text = |&(knob, _): &(Knob, Setting)| {
            format!("the kernel offers no {} here: tier {tier}'s is left out", knob.file())
        };
        let unplaced = self.cannot_place(instance).then(|| {
            format!("the kernel offers no cpuset.cpus here: instance {instance} runs anywhere")
        });
        lacking.map(text).chain(unplaced).collect()
    }
}
