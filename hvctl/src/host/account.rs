//! Caps on what an account's instances use of processors together.
//!
//! Every write to `cpu.max` refills its quota, and instances' caps follow their credits; so the hard
//! bound is a parent's, which is hardly ever written. An account that is capped has a group of its
//! own in each tier in which it has instances, and the cap holds in each for itself. The instances
//! below it keep their weights beside everybody's: the group weighs what they do together.

use super::{Backend, Host, HostError, Place};
use crate::dry_run::DryRunPlace;
use crate::limit::{CPU_WEIGHT_MAX, CPU_WEIGHT_MIN, Knob, Setting};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use vendue_wire::code::Resource;
use vendue_wire::message::TIER_BIT;

/// Whose an instance is, and where it is at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Home {
    /// Account.
    pub account: u16,
    /// Tier.
    pub tier: u16,
}

impl Home {
    pub(super) fn key(self) -> u32 {
        account_key(self.account.into(), self.tier)
    }

    /// Of what [`account_key`] stands for.
    pub(super) fn of(number: u32) -> Home {
        Home { account: number as u16, tier: ((number >> 16) - 1) as u16 }
    }
}

/// The number that stands for an account in a tier among the instances', which have 16 bits.
pub const fn account_key(account: u32, tier: u16) -> u32 {
    ((tier as u32 + 1) << 16) + account
}

/// True of what [`account_key`] gives.
pub(super) fn is_account(number: u32) -> bool {
    (account_key(0, 0)..TIER_BIT).contains(&number)
}

/// How a [`vendue_wire::message::LimitRow`] names it.
pub(super) fn shown_number(number: u32) -> u32 {
    if is_account(number) { number - account_key(0, 0) } else { number }
}

impl Host {
    /// Caps what the instances of `account` in a tier that live below its group use of processors
    /// together; 0 lifts the cap. Instances elsewhere are [`Host::outside`]. Nothing is written
    /// before [`Host::turn`].
    ///
    /// # Errors
    /// A group of the account cannot be made.
    pub fn cap(&mut self, account: u32, millicores: u64, now_ns: u64) -> Result<(), HostError> {
        let instances = self.instances.range(..account_key(0, 0));
        let own = instances.filter(|(_, held)| u32::from(held.home.account) == account);
        let homes: BTreeSet<Home> = own.map(|(_, held)| held.home).collect();
        if millicores == 0 {
            self.caps.remove(&account);
        } else {
            self.caps.insert(account, millicores);
        }
        for home in homes {
            if millicores > 0 {
                self.hold_account(home)?;
            }
            self.pull_cap(home, now_ns);
            self.drop_account(home);
        }
        Ok(())
    }

    /// Numbers of the accounts whose groups are held, as [`account_key`] gives them.
    pub fn accounts(&self, within: RangeInclusive<u32>) -> impl Iterator<Item = u32> + '_ {
        let accounts = self.instances.range(within).map(|(&number, _)| number);
        accounts.filter(|&number| is_account(number))
    }

    /// Instances of capped accounts that do not live below their account's group, so that the cap
    /// does not bind them, in words; as many as [`super::Options::faults_max`] allows.
    pub fn outside(&self) -> Vec<String> {
        let Backend::Cgroup(host) = &self.backend else { return Vec::new() };
        if self.caps.is_empty() {
            return Vec::new();
        }
        let instances = self.instances.range(..account_key(0, 0));
        let outside = instances
            .filter(|(_, held)| !held.below && self.caps.contains_key(&held.home.account.into()))
            .map(|(instance, held)| {
                format!(
                    "instance {instance} lives in {}, outside of {}, so the cap of account {} does \
                     not bind it; launch it again, or adopt it there",
                    held.name,
                    host.account_group(held.home).display(),
                    held.home.account
                )
            });
        outside.take(self.options.faults_max).collect()
    }

    /// Has the account's group, making it if need be; it is capped as the account is.
    pub(super) fn hold_account(&mut self, home: Home) -> Result<(), HostError> {
        if self.instances.contains_key(&home.key()) {
            return Ok(());
        }
        let (place, name) = match &self.backend {
            Backend::Cgroup(host) => {
                let opened = host.open_account(home)?;
                let name = opened.dir().to_string_lossy().into_owned();
                (Place::Cgroup(opened), name)
            }
            Backend::DryRun => (Place::DryRun(DryRunPlace::open("")?), String::new()),
        };
        let mut knobs = match self.resources.contains(&Resource::Cpu) {
            true => vec![Knob::CpuMax, Knob::CpuWeight],
            false => Vec::new(),
        };
        knobs.extend(self.low_knob(home.tier));
        self.hold(home.key(), (place, name), (home, false), knobs);
        if self.caps.contains_key(&home.account.into()) {
            self.pull_cap(home, 0);
        }
        Ok(())
    }

    /// Lets the account's group weigh as much as the instances below it.
    pub(super) fn weigh_account(&mut self, home: Home, now_ns: u64) {
        let (mut weights, mut vrus) = (0, 0);
        for instance in self.below.get(&home.key()).into_iter().flatten() {
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
            self.pull_account(home, Knob::CpuWeight, (setting, vrus), now_ns);
        }
    }

    /// An instance of the account is gone.
    pub(super) fn leave_account(&mut self, instance: u32, home: Home) {
        if let Some(below) = self.below.get_mut(&home.key()) {
            below.remove(&instance);
            if below.is_empty() {
                self.below.remove(&home.key());
            }
        }
        self.weigh_account(home, 0);
        self.drop_account(home);
    }

    /// Lets the account's group go if nothing lives below it and, where the account is capped, it
    /// has no other instance in the tier either.
    pub(super) fn drop_account(&mut self, home: Home) {
        let mut instances = self.instances.range(..account_key(0, 0));
        let capped = self.caps.contains_key(&home.account.into());
        if self.below.contains_key(&home.key())
            || (capped && instances.any(|(_, held)| held.home == home))
        {
            return;
        }
        // What somebody else still runs below it keeps the group; without a cap that hurts nobody.
        if let Some(held) = self.instances.remove(&home.key()) {
            let _ = self.let_go(home.key(), *held);
        }
    }

    /// Caps the account's group as the account is.
    fn pull_cap(&mut self, home: Home, now_ns: u64) {
        let millicores = self.caps.get(&home.account.into()).copied().unwrap_or(0);
        let setting = match millicores {
            0 => Knob::CpuMax.lifted(),
            _ => Knob::CpuMax.setting(millicores, 1, self.page_bytes),
        };
        self.pull_account(home, Knob::CpuMax, (setting, millicores), now_ns);
    }

    /// Sets what a knob of the account's group is to be, if the group is held.
    fn pull_account(
        &mut self,
        home: Home,
        knob: Knob,
        (setting, vrus): (Setting, u64),
        now_ns: u64,
    ) {
        let Some(held) = self.instances.get_mut(&home.key()) else { return };
        for lever in held.levers.iter_mut().filter(|lever| lever.knob() == knob) {
            self.counters.spared += lever.want(setting, vrus, now_ns);
        }
        self.reschedule(home.key(), now_ns);
    }
}
