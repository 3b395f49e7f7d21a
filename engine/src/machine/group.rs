//! Groups of instances: their VRU prices, who is in them, and how many of them run.
//!
//! Demand is *high* while the active instances' VRUs of some resource are granted from the high mark
//! on, or while a task waits that would run in an empty instance; it is *low* while those of every
//! resource are granted up to the low mark only. Once it has been high for the group's cool-down an
//! instance that the group deactivated is activated (thawed); once it has been low for so long, the
//! active instance with the fewest VRUs granted is emptied into the others and deactivated (frozen), if
//! its tasks fit there without making demand high. Each act starts the cool-down anew. What an
//! operator freezes or thaws by hand the group leaves alone.

use super::Machine;
use super::admin::check_name;
use super::command::Envelope;
use super::config::RESOURCES;
use super::event::Outbox;
use super::swarm::{MEMBERS_MAX, shown};
use super::tables::Instance;
use super::task::{NONE, Task};
use vendue_wire::code::Reject;
use vendue_wire::message::{
    ANY_BOOK, Body, GroupRow, MemberRow, NAME_BYTES, STEEP_PERCENT_MAX, SetGroup, SetMember,
    TaskRow, U32, U64, VRU_PRICE_MAX_MICRO,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Demand is neither high nor low.
const NEITHER: u16 = 0;
/// Demand is high.
const HIGH: u16 = 1;
/// Demand is low.
const LOW: u16 = 2;

/// A group of instances of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Group {
    /// Micro-units a VRU-second of each resource while nothing is granted; 0: not offered.
    pub base_micro: [u64; RESOURCES],
    /// Micro-units that tasks paid.
    pub revenue_micro: u64,
    /// Since when demand has been what it is, or the last act, milliseconds.
    pub since_ms: u64,
    /// How much dearer the last VRU is, percent of the base.
    pub steep_percent: u32,
    /// A task keeps a VRU so long, milliseconds.
    pub hold_ms: u32,
    /// Demand must stay so long, milliseconds.
    pub cool_ms: u32,
    /// Instances activated.
    pub activations: u32,
    /// Instances deactivated.
    pub deactivations: u32,
    /// Account.
    pub account: u16,
    /// Demand is high from so many thousandths on.
    pub high_permille: u16,
    /// Demand is low up to so many thousandths.
    pub low_permille: u16,
    /// So many stay active.
    pub active_min: u16,
    /// What demand is: 0 neither, 1 high, 2 low.
    pub demand: u16,
    /// Zero.
    pub reserved: u16,
    /// Name.
    pub name: [u8; NAME_BYTES],
}

impl Group {
    /// An unused row.
    pub const FREE: Group = Group {
        base_micro: [0; RESOURCES],
        revenue_micro: 0,
        since_ms: 0,
        steep_percent: 0,
        hold_ms: 0,
        cool_ms: 0,
        activations: 0,
        deactivations: 0,
        account: 0,
        high_permille: 0,
        low_permille: 0,
        active_min: 0,
        demand: NEITHER,
        reserved: 0,
        name: [0; NAME_BYTES],
    };
}

/// What an instance is to a group.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Member {
    /// Its group and one, 0 for none.
    pub joined: u16,
    /// 1 if the group deactivated it.
    pub parked: u16,
}

/// Whether an instance's tasks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They do.
    Active,
    /// Its group deactivated it.
    Parked,
    /// An operator froze it.
    Frozen,
}

impl Machine {
    /// An operator makes a group, or changes one.
    pub(super) fn set_group(
        &mut self,
        env: &Envelope,
        m: &SetGroup,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let account = self.known_account(m.account)?;
        let used = self.swarm.groups_used;
        let at = match m.group.get() {
            ANY_BOOK => used,
            group if usize::from(group) < used => usize::from(group),
            _ => return Err(Reject::UnknownGroup),
        };
        let others = self.swarm.groups[..used].iter().enumerate();
        check_name(&m.name, others.filter(|(other, _)| *other != at).map(|(_, row)| &row.name))?;
        let dear = m.base_micro.iter().any(|base| base.get() > VRU_PRICE_MAX_MICRO);
        if dear || m.steep_percent.get() > STEEP_PERCENT_MAX {
            return Err(Reject::BadPrice);
        }
        let (low, high) = (m.low_permille.get(), m.high_permille.get());
        if low >= high || high > 1000 {
            return Err(Reject::BadField);
        }
        let before = *self.swarm.groups.get(at).ok_or(Reject::GroupsFull)?;
        if at < used && before.account != account && !self.swarm.is_unused(at as u16) {
            return Err(Reject::NotEmpty);
        }
        self.use_client_id(env, client_id);
        self.swarm.groups_used = used.max(at + 1);
        self.swarm.groups[at] = Group {
            base_micro: m.base_micro.map(U64::get),
            steep_percent: m.steep_percent.get(),
            hold_ms: m.hold_ms.get(),
            cool_ms: m.cool_ms.get(),
            account,
            high_permille: high,
            low_permille: low,
            active_min: m.active_min.get(),
            name: m.name,
            ..before
        };
        self.report_done(env, SetGroup::KIND, client_id, at as u64, out);
        Ok(())
    }

    /// An operator puts an instance into a group, or takes it out.
    pub(super) fn set_member(
        &mut self,
        env: &Envelope,
        m: &SetMember,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let row = *self.instance(m.instance.get()).ok_or(Reject::UnknownInstance)?;
        let joined = match m.group.get() {
            ANY_BOOK => 0,
            group if usize::from(group) < self.swarm.groups_used => group + 1,
            _ => return Err(Reject::UnknownGroup),
        };
        // An instance is of its account's groups only.
        if joined > 0 && self.swarm.groups[usize::from(joined) - 1].account != row.account {
            return Err(Reject::UnknownGroup);
        }
        let instance = m.instance.get() as u16;
        let member = self.swarm.members[usize::from(instance)];
        if member.joined != joined && self.swarm.names_instance(instance) {
            return Err(Reject::NotEmpty);
        }
        let full = |group| self.swarm.of_group(group).len() == MEMBERS_MAX;
        if joined > 0 && member.joined != joined && full(joined - 1) {
            return Err(Reject::GroupsFull);
        }
        self.use_client_id(env, client_id);
        if member.joined != joined {
            self.swarm.members[usize::from(instance)] = Member { joined, parked: 0 };
            self.swarm.find_roster();
            if member.parked == 1 {
                self.thaw(instance, out);
            }
        }
        self.report_done(env, SetMember::KIND, client_id, instance.into(), out);
        Ok(())
    }

    /// Whether an instance's tasks run.
    pub(super) fn standing(&self, instance: u16) -> Standing {
        let at = usize::from(instance);
        match self.instances[at].is_frozen() {
            false => Standing::Active,
            true if self.swarm.members[at].parked == 1 => Standing::Parked,
            true => Standing::Frozen,
        }
    }

    /// The instances of a group that stand so, in order of number.
    pub(super) fn members(
        &self,
        group: u16,
        standing: Standing,
    ) -> impl DoubleEndedIterator<Item = u16> + '_ {
        let all = self.swarm.of_group(group).iter().copied();
        all.filter(move |&at| self.standing(at) == standing)
    }

    /// VRUs granted of a group's active instances, and all they have, of a resource.
    pub fn load(&self, group: u16, resource: usize) -> (u64, u64) {
        let active = self.members(group, Standing::Active);
        active.fold((0, 0), |(used, all), at| {
            let (granted, capacity) = self.granted(at, resource);
            (used + u64::from(granted), all + u64::from(capacity))
        })
    }

    /// What the cheapest next VRU of a group's active instances costs, micro-units a second; `None` if
    /// there is none or it is not for sale.
    pub fn next_vru_price(&self, group: u16, resource: usize) -> Option<u64> {
        let offered = self.swarm.groups[usize::from(group)].base_micro[resource] > 0;
        let active = offered.then(|| self.members(group, Standing::Active));
        let have = active.into_iter().flatten().filter(|&at| self.granted(at, resource).1 > 0);
        have.map(|at| self.vru_price(group, at, resource)).min()
    }

    /// VRUs of an instance that tasks have, and all that they can have: what it lends they cannot.
    pub(super) fn granted(&self, instance: u16, resource: usize) -> (u32, u32) {
        let at = usize::from(instance);
        let lent = self.rentals.holdings[at * RESOURCES + resource].lent;
        (self.swarm.used[at][resource], self.instances[at].baseline_vru[resource] - lent)
    }

    /// Time passes: groups activate and deactivate instances.
    pub(super) fn tick_groups(&mut self, now_ms: u64, out: &mut Outbox) {
        for group in 0..self.swarm.groups_used as u16 {
            let demand = self.demand(group);
            let row = &mut self.swarm.groups[usize::from(group)];
            if row.demand != demand {
                (row.demand, row.since_ms) = (demand, now_ms);
            }
            if now_ms - row.since_ms < u64::from(row.cool_ms) {
                continue;
            }
            let acted = match demand {
                HIGH => self.activate(group, out),
                LOW => self.deactivate(group, out),
                _ => false,
            };
            if acted {
                self.swarm.groups[usize::from(group)].since_ms = now_ms;
                self.fold(u64::from(group) << 8 | u64::from(demand));
            }
        }
    }

    fn demand(&self, group: u16) -> u16 {
        let row = &self.swarm.groups[usize::from(group)];
        let offered = (0..RESOURCES).filter(|&resource| row.base_micro[resource] > 0);
        let mut all_low = true;
        for (used, all) in offered.map(|resource| self.load(group, resource)) {
            if all > 0 && used * 1000 >= all * u64::from(row.high_permille) {
                return HIGH;
            }
            all_low &= used * 1000 <= all * u64::from(row.low_permille);
        }
        let waits = self.swarm.live().any(|task| {
            let base = row.base_micro[usize::from(task.resource)];
            task.group == group && task.vru == 0 && task.pinned == NONE && task.is_worth(base)
        });
        match waits {
            true => HIGH,
            false if all_low => LOW,
            false => NEITHER,
        }
    }

    fn activate(&mut self, group: u16, out: &mut Outbox) -> bool {
        let Some(instance) = self.members(group, Standing::Parked).next() else { return false };
        self.swarm.members[usize::from(instance)].parked = 0;
        self.swarm.groups[usize::from(group)].activations += 1;
        self.thaw(instance, out);
        true
    }

    fn thaw(&mut self, instance: u16, out: &mut Outbox) {
        self.instances[usize::from(instance)].bursting &= !Instance::FROZEN;
        self.announce_frozen(instance, out);
    }

    fn deactivate(&mut self, group: u16, out: &mut Outbox) -> bool {
        let active = self.members(group, Standing::Active).count();
        if active <= usize::from(self.swarm.groups[usize::from(group)].active_min) {
            return false;
        }
        let total = |at: &u16| self.swarm.used[usize::from(*at)].map(u64::from).iter().sum::<u64>();
        // Of those with as few the last.
        let Some(instance) = self.members(group, Standing::Active).rev().min_by_key(total) else {
            return false;
        };
        if !self.stays_below(group, instance) || !self.empty(group, instance) {
            return false;
        }
        self.swarm.members[usize::from(instance)].parked = 1;
        self.swarm.groups[usize::from(group)].deactivations += 1;
        self.instances[usize::from(instance)].bursting |= Instance::FROZEN;
        self.announce_frozen(instance, out);
        true
    }

    /// True if demand is not high once a group does without an instance.
    fn stays_below(&self, group: u16, without: u16) -> bool {
        let row = &self.swarm.groups[usize::from(group)];
        (0..RESOURCES).filter(|&resource| row.base_micro[resource] > 0).all(|resource| {
            let (used, all) = self.load(group, resource);
            let all = all - u64::from(self.granted(without, resource).1);
            used == 0 || used * 1000 < all * u64::from(row.high_permille)
        })
    }

    /// Moves an instance's tasks, each whole, to where the least stays free. False, and nothing has
    /// moved, if one finds no room.
    fn empty(&mut self, group: u16, instance: u16) -> bool {
        for slot in 0..self.swarm.end {
            let task = self.swarm.tasks[slot as usize];
            if !task.is_live() || task.instance != instance {
                continue;
            }
            let resource = usize::from(task.resource);
            let free = |at: u16| {
                let (used, all) = self.granted(at, resource);
                all - used
            };
            let others = self.members(group, Standing::Active).filter(|&at| at != instance);
            let room = others.filter(|&at| free(at) >= task.vru).min_by_key(|&at| free(at));
            match room {
                Some(to) if task.pinned == NONE => self.swarm.move_task(slot, to),
                _ => {
                    self.move_back(slot, instance);
                    return false;
                }
            }
        }
        true
    }

    /// Undoes the moves of an instance's tasks in slots before this one: they are those that were told
    /// to be there, because whatever moved them before told them.
    fn move_back(&mut self, end: u32, instance: u16) {
        for slot in 0..end {
            let task = &self.swarm.tasks[slot as usize];
            if task.is_live() && task.instance != instance && task.told_instance == instance {
                self.swarm.move_task(slot, instance);
            }
        }
    }
}

/// What is shown of the swarm.
impl Machine {
    pub(super) fn task_row(&self, slot: u32, task: &Task) -> TaskRow {
        TaskRow {
            handle: self.swarm.handle(slot).into(),
            client_id: task.client_id.into(),
            bid_micro: task.bid_micro.into(),
            paid_micro: (task.bid_micro - task.held_micro).into(),
            rate_micro: task.rate_micro.into(),
            margin_micro: (task.margin().shown() as u64).into(),
            margin_min_micro: task.margin_min_micro.into(),
            submitted_ms: task.submitted_ms.into(),
            duration_ms: task.duration_ms.into(),
            vru: task.vru.into(),
            vru_max: task.vru_max.into(),
            used_millivru: task.used().unwrap_or(u32::MAX).into(),
            account: u32::from(task.account).into(),
            instance: shown(task.instance).into(),
            group: task.group.into(),
            progress_permille: task.progress_permille.into(),
            resource: task.resource,
            waits: u8::from(task.vru == 0),
            inefficient: u8::from(task.is_inefficient()),
            reserved: 0,
            name: task.name,
        }
    }

    pub(super) fn group_row(&self, group: u16) -> GroupRow {
        let row = &self.swarm.groups[usize::from(group)];
        let loads: [(u64, u64); RESOURCES] = std::array::from_fn(|at| self.load(group, at));
        let tasks = || self.swarm.live().filter(|task| task.group == group);
        GroupRow {
            base_micro: row.base_micro.map(U64::new),
            revenue_micro: row.revenue_micro.into(),
            used_vru: loads.map(|(used, _)| U32::new(used as u32)),
            active_vru: loads.map(|(_, all)| U32::new(all as u32)),
            account: u32::from(row.account).into(),
            steep_percent: row.steep_percent.into(),
            hold_ms: row.hold_ms.into(),
            cool_ms: row.cool_ms.into(),
            running: (tasks().filter(|task| task.vru > 0).count() as u32).into(),
            waiting: (tasks().filter(|task| task.vru == 0).count() as u32).into(),
            activations: row.activations.into(),
            deactivations: row.deactivations.into(),
            high_permille: row.high_permille.into(),
            low_permille: row.low_permille.into(),
            active_min: row.active_min.into(),
            group: group.into(),
            members: (self.swarm.of_group(group).len() as u16).into(),
            active: (self.members(group, Standing::Active).count() as u16).into(),
            demand: row.demand as u8,
            reserved: [0; 3],
            name: row.name,
        }
    }

    /// An instance as its group has it, if it is in one.
    pub(super) fn member_row(&self, instance: u16) -> Option<MemberRow> {
        let group = self.swarm.members[usize::from(instance)].joined.checked_sub(1)?;
        let granted: [(u32, u32); RESOURCES] = std::array::from_fn(|at| self.granted(instance, at));
        let price = |at: usize| match granted[at].1 {
            0 => 0,
            _ => self.vru_price(group, instance, at),
        };
        Some(MemberRow {
            price_micro: std::array::from_fn(|at| U64::new(price(at))),
            used_vru: granted.map(|(used, _)| U32::new(used)),
            capacity_vru: granted.map(|(_, all)| U32::new(all)),
            instance: u32::from(instance).into(),
            group: group.into(),
            state: self.standing(instance) as u8,
            reserved: 0,
        })
    }
}
