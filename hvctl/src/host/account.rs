//! Caps on what an account's instances use of processors together.
//!
//! Every write to `cpu.max` refills its quota, and instances' caps follow their credits; so the hard
//! bound is a parent's, which is hardly ever written. An account that is capped has a group of its
//! own. The instances below it keep their weights beside everybody's: the group weighs what they do
//! together.

use super::{Backend, Host, HostError, Place};
use crate::dry_run::DryRunPlace;
use crate::limit::{CPU_WEIGHT_MAX, CPU_WEIGHT_MIN, Knob, Setting};
use std::ops::RangeInclusive;
use vendue_wire::code::Resource;

/// The number that stands for an account among the instances', which have 16 bits.
pub const fn account_key(account: u32) -> u32 {
    (1 << 16) + account
}

impl Host {
    /// Caps what the instances of `account` that live below its group use of processors together;
    /// 0 lifts the cap. Instances elsewhere are [`Host::outside`]. Nothing is written before
    /// [`Host::turn`].
    ///
    /// # Errors
    /// The account's group cannot be made.
    pub fn cap(&mut self, account: u32, millicores: u64, now_ns: u64) -> Result<(), HostError> {
        let setting = if millicores == 0 {
            self.caps.remove(&account);
            Knob::CpuMax.lifted()
        } else {
            self.caps.insert(account, millicores);
            self.hold_account(account)?;
            Knob::CpuMax.setting(millicores, 1, self.page_bytes)
        };
        self.pull_account(account, Knob::CpuMax, (setting, millicores), now_ns);
        self.drop_account(account);
        Ok(())
    }

    /// Numbers of the accounts whose groups are held, as [`account_key`] gives them.
    pub fn accounts(&self, within: RangeInclusive<u32>) -> impl Iterator<Item = u32> + '_ {
        let accounts = self.instances.range(within).map(|(&number, _)| number);
        accounts.filter(|&number| number >= account_key(0))
    }

    /// Instances of capped accounts that do not live below their account's group, so that the cap
    /// does not bind them, in words; as many as [`super::Options::faults_max`] allows.
    pub fn outside(&self) -> Vec<String> {
        let Backend::Cgroup(host) = &self.backend else { return Vec::new() };
        let instances = self.instances.range(..account_key(0));
        let outside = instances
            .filter(|(_, held)| !held.below && self.caps.contains_key(&held.account))
            .map(|(instance, held)| {
                format!(
                    "instance {instance} lives in {}, outside of {}, so the cap of account {} does \
                     not bind it; launch it again, or adopt it there",
                    held.name,
                    host.account_group(held.account).display(),
                    held.account
                )
            });
        outside.take(self.options.faults_max).collect()
    }

    /// Has the account's group, making it if need be.
    pub(super) fn hold_account(&mut self, account: u32) -> Result<(), HostError> {
        let number = account_key(account);
        if self.instances.contains_key(&number) {
            return Ok(());
        }
        let (place, name) = match &self.backend {
            Backend::Cgroup(host) => {
                let opened = host.open_account(account)?;
                let name = opened.dir().to_string_lossy().into_owned();
                (Place::Cgroup(opened), name)
            }
            Backend::DryRun => (Place::DryRun(DryRunPlace::open("")?), String::new()),
        };
        let knobs = match self.resources.contains(&Resource::Cpu) {
            true => vec![Knob::CpuMax, Knob::CpuWeight],
            false => Vec::new(),
        };
        self.hold(number, (place, name), (account, false), knobs);
        Ok(())
    }

    /// Lets the account's group weigh as much as the instances below it.
    pub(super) fn weigh_account(&mut self, account: u32, now_ns: u64) {
        let (mut weights, mut vrus) = (0, 0);
        for instance in self.below.get(&account).into_iter().flatten() {
            let lever = self.instances.get(instance).and_then(|held| held.lever(Knob::CpuWeight));
            if let Some((lever, Setting::Weight(weight))) =
                lever.and_then(|lever| Some((lever, lever.wanted()?)))
            {
                weights += weight;
                vrus += lever.wanted_vru();
            }
        }
        if weights > 0 {
            let setting = Setting::Weight(weights.clamp(CPU_WEIGHT_MIN, CPU_WEIGHT_MAX));
            self.pull_account(account, Knob::CpuWeight, (setting, vrus), now_ns);
        }
    }

    /// An instance that lived below the account's group is gone.
    pub(super) fn leave_account(&mut self, instance: u32, account: u32) {
        if let Some(below) = self.below.get_mut(&account) {
            below.remove(&instance);
            if below.is_empty() {
                self.below.remove(&account);
            }
        }
        self.weigh_account(account, 0);
        self.drop_account(account);
    }

    /// Lets the account's group go if it is not capped and nothing lives below it.
    fn drop_account(&mut self, account: u32) {
        if self.caps.contains_key(&account) || self.below.contains_key(&account) {
            return;
        }
        // What somebody else still runs below it keeps the group; without a cap that hurts nobody.
        if let Some(held) = self.instances.remove(&account_key(account)) {
            let _ = self.let_go(account_key(account), held);
        }
    }

    /// Sets what a knob of the account's group is to be, if the group is held.
    fn pull_account(
        &mut self,
        account: u32,
        knob: Knob,
        (setting, vrus): (Setting, u64),
        now_ns: u64,
    ) {
        let Some(held) = self.instances.get_mut(&account_key(account)) else { return };
        for lever in held.levers.iter_mut().filter(|lever| lever.knob() == knob) {
            self.counters.spared += lever.want(setting, vrus);
        }
        self.reschedule(account_key(account), now_ns);
    }
}
