//! The swarm: tasks win VRUs of the instances of a group, one after another, by what they gain.
//!
//! A task is put where the next VRU is cheapest: where one is free before where none is, then by
//! price, then by number. There it is granted VRUs while any is free and each leaves a margin above
//! zero and above its minimum. Where none is free it wins them from the task of the least margin
//! that has kept its last one for the group's hold, while its own margin with the VRU is the greater.
//! A task that can have none waits, if it asked to, or is refused; one that loses its last waits, or ends.
//!
//! Its bid is held from the moment it is taken. Every tick pays what its VRUs cost since the last
//! one to the account of the group, to the micro-unit; what is held is never passed. Then groups act
//! ([`super::group`]), and tasks that want more get a turn each, those of the greatest margin first.

use super::Machine;
use super::command::Envelope;
use super::config::{FUNDS_MAX_MICRO, RESOURCES};
use super::event::Outbox;
use super::group::{Group, Member, Standing};
use super::slots::{SLOTS_MAX, Slots};
use super::task::{self, NONE, Task};
use vendue_wire::code::{Reject, Resource, Role, TaskEnd};
use vendue_wire::message::{
    ANY, Body, CancelTask, ReportTask, STEEP_PERCENT_MAX, SubmitTask, TASK_VRU_MAX, TaskAdmitted,
    TaskChanged, TaskEnded, VRU_PRICE_MAX_MICRO,
};

/// Tasks at most.
pub const TASKS_MAX: usize = SLOTS_MAX;
/// Groups at most.
pub const GROUPS_MAX: usize = 64;
/// Instances of a group at most.
pub const MEMBERS_MAX: usize = 64;
/// What a VRU costs at most, micro-units a second.
const VRU_RATE_MAX_MICRO: u64 = VRU_PRICE_MAX_MICRO * (1 + STEEP_PERCENT_MAX as u64 / 100);
/// VRUs that tasks win from one another at one command, at most.
const WINS_MAX: u32 = 64;

/// What the swarm knows.
#[derive(Debug)]
pub struct Swarm {
    pub(super) groups: Box<[Group]>,
    pub(super) groups_used: usize,
    /// What each instance is to a group.
    pub(super) members: Box<[Member]>,
    /// VRUs of each instance and resource that tasks have. Follows from the tasks.
    pub(super) used: Box<[[u32; RESOURCES]]>,
    pub(super) tasks: Box<[Task]>,
    /// Every row from here on is free. Follows from the tasks.
    pub(super) end: u32,
    /// Rows in use. Follows from the tasks.
    taken: Slots,
    /// Those among which all are whose VRUs changed since they were told. Follows from the tasks.
    changed: Slots,
    /// Tasks that have VRUs: by instance, resource and margin, the least first. Follows from the
    /// tasks.
    ranking: Vec<u16>,
    /// Tasks submitted so far.
    pub(super) submitted: u64,
    /// Instances that are in groups, by group and number, and where each group's begin. They follow
    /// from `members`.
    roster: Box<[u16]>,
    starts: [u16; GROUPS_MAX + 1],
    /// Room for an order of tasks, no part of the state.
    order: Box<[u32]>,
}

/// How a task comes by its next VRU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// One is free, at this price.
    Free(u64),
    /// The task in this slot loses one.
    Won(u64, u32),
    /// The margin is too low.
    TooLow,
    /// There is none.
    Nothing,
}

impl Swarm {
    /// No group, no task.
    pub fn new(instances: u32) -> Swarm {
        let instances = instances as usize;
        Swarm {
            groups: vec![Group::FREE; GROUPS_MAX].into_boxed_slice(),
            groups_used: 0,
            members: vec![Member::default(); instances].into_boxed_slice(),
            used: vec![[0; RESOURCES]; instances].into_boxed_slice(),
            tasks: vec![Task::FREE; TASKS_MAX].into_boxed_slice(),
            end: 0,
            taken: Slots::default(),
            changed: Slots::default(),
            ranking: Vec::with_capacity(TASKS_MAX),
            submitted: 0,
            roster: vec![0; instances].into_boxed_slice(),
            starts: [0; GROUPS_MAX + 1],
            order: vec![0; TASKS_MAX].into_boxed_slice(),
        }
    }

    /// Finds the roster, after instances came or went.
    pub(super) fn find_roster(&mut self) {
        self.starts.fill(0);
        for member in self.members.iter().filter(|member| member.joined > 0) {
            self.starts[usize::from(member.joined)] += 1;
        }
        for group in 1..=GROUPS_MAX {
            self.starts[group] += self.starts[group - 1];
        }
        let mut next = self.starts;
        for (at, member) in (0..=u16::MAX).zip(self.members.iter()) {
            if let Some(group) = member.joined.checked_sub(1) {
                let place = &mut next[usize::from(group)];
                self.roster[usize::from(*place)] = at;
                *place += 1;
            }
        }
    }

    /// The instances of a group, in order of number.
    pub fn of_group(&self, group: u16) -> &[u16] {
        let ends = [group, group + 1].map(|at| usize::from(self.starts[usize::from(at)]));
        &self.roster[ends[0]..ends[1]]
    }

    /// The tasks there are, in order of slot.
    pub fn live(&self) -> impl Iterator<Item = &Task> {
        self.tasks[..self.end as usize].iter().filter(|task| task.is_live())
    }

    /// The tasks' rows, free ones among them, up to the last in use.
    pub fn rows(&self) -> &[Task] {
        &self.tasks[..self.end as usize]
    }

    /// The groups there are.
    pub fn groups(&self) -> &[Group] {
        &self.groups[..self.groups_used]
    }

    /// True if no instance and no task is of this group.
    pub(super) fn is_unused(&self, group: u16) -> bool {
        self.of_group(group).is_empty() && self.live().all(|task| task.group != group)
    }

    /// True if a task runs in this instance, or must.
    pub(super) fn names_instance(&self, instance: u16) -> bool {
        self.live().any(|task| task.instance == instance || task.pinned == instance)
    }

    pub(super) fn handle(&self, slot: u32) -> u64 {
        u64::from(slot) | u64::from(self.tasks[slot as usize].generation) << 32
    }

    fn add(&mut self, task: Task) -> u32 {
        let slot = self.taken.first_missing();
        let row = &mut self.tasks[slot as usize];
        *row = Task { generation: row.generation.wrapping_add(1), ..task };
        self.taken.insert(slot);
        self.end = self.end.max(slot + 1);
        slot
    }

    /// Frees a row that has no VRUs.
    fn remove(&mut self, slot: u32) {
        let row = &mut self.tasks[slot as usize];
        assert!(row.vru == 0 && row.held_micro == 0, "a task goes with what it has");
        *row = Task { generation: row.generation, ..Task::FREE };
        self.taken.remove(slot);
        self.end = self.taken.end();
    }

    /// Finds what follows from the tasks: of a snapshot.
    pub(super) fn find_rows(&mut self) {
        for slot in 0..TASKS_MAX as u32 {
            let row = self.tasks[slot as usize];
            if !row.is_live() {
                continue;
            }
            self.taken.insert(slot);
            self.changed.insert(slot);
            if row.vru > 0 {
                let used = &mut self.used[usize::from(row.instance)][usize::from(row.resource)];
                *used = used.saturating_add(row.vru);
                self.rank(slot);
            }
        }
        self.end = self.taken.end();
    }

    /// Where a task that has VRUs stands in the ranking, or would.
    fn find_rank(&self, slot: u32) -> Result<usize, usize> {
        let of = |row: &Task| (row.instance, row.resource);
        let own = &self.tasks[slot as usize];
        self.ranking.binary_search_by(|&other| {
            let row = &self.tasks[usize::from(other)];
            let by_margin = || row.margin().compare(own.margin());
            let by_age = || own.number.cmp(&row.number).then(u32::from(other).cmp(&slot));
            of(row).cmp(&of(own)).then_with(by_margin).then_with(by_age)
        })
    }

    fn rank(&mut self, slot: u32) {
        if self.tasks[slot as usize].vru > 0 {
            assert!(self.ranking.len() < TASKS_MAX, "more tasks have VRUs than there are");
            let at = self.find_rank(slot).expect_err("a task is ranked once");
            self.ranking.insert(at, slot as u16);
        }
    }

    /// To be called before anything changes that a task is ranked by.
    fn unrank(&mut self, slot: u32) {
        self.changed.insert(slot);
        if self.tasks[slot as usize].vru > 0 {
            let at = self.find_rank(slot).expect("a task with VRUs is ranked");
            self.ranking.remove(at);
        }
    }

    /// The tasks that have VRUs of an instance's resource, those of the least margin first, and of
    /// these the younger first.
    fn losers(&self, instance: u16, resource: u8) -> impl Iterator<Item = (u32, &Task)> {
        let rows = |at: &u16| (u32::from(*at), &self.tasks[usize::from(*at)]);
        let of = move |(_, row): &(u32, &Task)| (row.instance, row.resource);
        let from = self.ranking.partition_point(|at| of(&rows(at)) < (instance, resource));
        let ranked = self.ranking[from..].iter().map(rows);
        ranked.take_while(move |row| of(row) == (instance, resource))
    }

    fn grant(&mut self, slot: u32, instance: u16, price_micro: u64, now_ms: u64) {
        self.unrank(slot);
        let row = &mut self.tasks[slot as usize];
        row.win(price_micro, now_ms);
        row.instance = instance;
        self.used[usize::from(instance)][usize::from(row.resource)] += 1;
        self.rank(slot);
    }

    fn take(&mut self, slot: u32) {
        self.unrank(slot);
        let row = &mut self.tasks[slot as usize];
        row.lose();
        self.used[usize::from(row.instance)][usize::from(row.resource)] -= 1;
        if row.vru == 0 {
            row.instance = NONE;
        }
        self.rank(slot);
    }

    fn take_all(&mut self, slot: u32) {
        self.unrank(slot);
        let row = &mut self.tasks[slot as usize];
        if row.vru > 0 {
            self.used[usize::from(row.instance)][usize::from(row.resource)] -= row.vru;
        }
        (row.vru, row.rate_micro, row.instance) = (0, 0, NONE);
    }

    /// Moves a task with all its VRUs.
    pub(super) fn move_task(&mut self, slot: u32, to: u16) {
        self.unrank(slot);
        let row = &mut self.tasks[slot as usize];
        let resource = usize::from(row.resource);
        self.used[usize::from(row.instance)][resource] -= row.vru;
        self.used[usize::from(to)][resource] += row.vru;
        row.instance = to;
        self.rank(slot);
    }
}

impl Machine {
    /// The swarm, to read.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// Somebody wants VRUs for a task.
    pub(super) fn submit_task(
        &mut self,
        env: &Envelope,
        m: &SubmitTask,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let account = self.payer(env, m)?;
        if self.swarm.groups[usize::from(m.group.get())].base_micro[resource as usize] == 0 {
            return Err(Reject::NotOffered);
        }
        if m.duration_ms.get() == 0 || !(1..=TASK_VRU_MAX).contains(&m.vru_max.get()) {
            return Err(Reject::BadQuantity);
        }
        if self.swarm.taken.first_missing() as usize == TASKS_MAX {
            return Err(Reject::TasksFull);
        }
        let bid_micro = m.bid_micro.get();
        if self.ledger.funds()[usize::from(account)].balance.free < bid_micro {
            return Err(Reject::InsufficientFunds);
        }
        let now_ms = self.now_ms();
        let task = Task {
            bid_micro,
            held_micro: bid_micro,
            margin_min_micro: m.margin_min_micro.get(),
            number: self.swarm.submitted,
            client_id,
            since_ms: now_ms,
            submitted_ms: now_ms,
            duration_ms: m.duration_ms.get(),
            vru_max: m.vru_max.get(),
            account,
            session: env.session as u16,
            group: m.group.get(),
            pinned: m.instance.get() as u16,
            resource: m.resource,
            flags: if m.queue == 1 { Task::LIVE | Task::QUEUES } else { Task::LIVE },
            name: m.name,
            ..Task::FREE
        };
        if !task.queues() {
            match self.place(&task).map(|at| self.next_vru(None, &task, at, now_ms)) {
                Some(Next::Free(_) | Next::Won(..)) => {}
                Some(Next::TooLow) => return Err(Reject::MarginTooLow),
                Some(Next::Nothing) | None => return Err(Reject::SwarmFull),
            }
        }
        self.use_client_id(env, client_id);
        self.ledger.hold_funds(account, bid_micro);
        self.swarm.submitted += 1;
        let slot = self.swarm.add(task);
        self.grow(slot, now_ms, &mut { WINS_MAX });
        self.report_admitted(env, slot, out);
        self.tell_tasks(out);
        Ok(())
    }

    /// True if what is said of groups and tasks points into the tables: of a snapshot.
    pub(super) fn swarm_is_whole(&self) -> bool {
        let (groups, instances) = (self.swarm.groups_used, self.instances.len());
        let accounts = self.accounts_used;
        let known = |at: u16| at == NONE || usize::from(at) < instances;
        self.swarm.groups().iter().all(|row| {
            u32::from(row.account) < accounts
                && row.base_micro.iter().all(|&base| base <= VRU_PRICE_MAX_MICRO)
                && row.steep_percent <= STEEP_PERCENT_MAX
        }) && self.swarm.members.iter().all(|row| usize::from(row.joined) <= groups)
            && self.swarm.tasks.iter().filter(|row| row.is_live()).all(|row| {
                usize::from(row.group) < groups
                    && u32::from(row.account) < accounts
                    && usize::from(row.resource) < RESOURCES
                    && known(row.instance)
                    && known(row.pinned)
                    && (row.vru > 0) == (row.instance != NONE)
                    && (row.session == NONE || usize::from(row.session) < self.sessions.len())
                    && row.duration_ms > 0
                    && row.vru <= row.vru_max
                    && row.vru_max <= TASK_VRU_MAX
                    && row.held_micro <= row.bid_micro
                    && row.bid_micro <= FUNDS_MAX_MICRO
                    && row.rate_micro <= u64::from(row.vru) * VRU_RATE_MAX_MICRO
            })
    }

    /// True if every instance kept the VRUs that its tasks have: of a snapshot.
    pub(super) fn instances_hold_tasks(&self) -> bool {
        (0..self.instances.len() as u16).all(|at| {
            (0..RESOURCES).all(|resource| {
                let (used, all) = self.granted(at, resource);
                used <= all
            })
        })
    }

    /// The account that pays for a task, if it may have VRUs of the group that it names.
    fn payer(&self, env: &Envelope, m: &SubmitTask) -> Result<u16, Reject> {
        let session = &self.sessions[env.session as usize];
        let (role, instance) = (session.role(), m.instance.get());
        if role == Role::Observer {
            return Err(Reject::NotPermitted);
        }
        if role == Role::Agent && (instance == ANY || instance != session.instance) {
            return Err(Reject::UnknownInstance);
        }
        let own = match role {
            Role::Operator => m.account.get(),
            Role::Agent => self.instance(instance).map_or(ANY, |row| row.account.into()),
            _ => session.account,
        };
        // Before the group: who may not have its VRUs is not told that there is one.
        if m.account.get() != ANY && m.account.get() != own {
            return Err(Reject::UnknownAccount);
        }
        let group = m.group.get();
        let row = self.swarm.groups().get(usize::from(group)).ok_or(Reject::UnknownGroup)?;
        let wanted = if own == ANY { u32::from(row.account) } else { own };
        let account = self.known_account(wanted.into())?;
        let [owner, payer] = [row.account, account].map(|at| &self.accounts[usize::from(at)]);
        if account != row.account && !owner.may_sell_to(payer) {
            return Err(Reject::UnknownGroup);
        }
        let of_group = |at: u32| {
            let member = self.swarm.members.get(at as usize);
            member.is_some_and(|member| member.joined == group + 1)
        };
        match instance == ANY || of_group(instance) {
            true => Ok(account),
            false => Err(Reject::UnknownInstance),
        }
    }

    /// Where a task's next VRU is cheapest.
    fn place(&self, task: &Task) -> Option<u16> {
        let resource = usize::from(task.resource);
        let has_any = |at: &u16| {
            self.granted(*at, resource).1 > 0 && (task.pinned == NONE || task.pinned == *at)
        };
        self.members(task.group, Standing::Active).filter(has_any).min_by_key(|&at| {
            let (used, all) = self.granted(at, resource);
            (used >= all, self.vru_price(task.group, at, resource))
        })
    }

    /// What the next VRU of an instance costs; of one that is full, its last.
    pub(super) fn vru_price(&self, group: u16, instance: u16, resource: usize) -> u64 {
        let row = &self.swarm.groups[usize::from(group)];
        let (used, all) = self.granted(instance, resource);
        let used = used.min(all.saturating_sub(1));
        task::price(row.base_micro[resource], row.steep_percent, used, all)
    }

    /// How a task comes by its next VRU of an instance.
    fn next_vru(&self, slot: Option<u32>, task: &Task, instance: u16, now_ms: u64) -> Next {
        let resource = usize::from(task.resource);
        let price = self.vru_price(task.group, instance, resource);
        if !task.is_worth(price) {
            return Next::TooLow;
        }
        let (used, all) = self.granted(instance, resource);
        if used < all {
            return Next::Free(price);
        }
        let gains = task.margin_at(task.rate_micro + price);
        let hold_ms = u64::from(self.swarm.groups[usize::from(task.group)].hold_ms);
        let mut losers = self.swarm.losers(instance, task.resource);
        let loser = losers.find(|(at, row)| Some(*at) != slot && now_ms - row.since_ms >= hold_ms);
        match loser {
            Some((at, row)) if gains.compare(row.margin()).is_gt() => Next::Won(price, at),
            _ => Next::Nothing,
        }
    }

    /// A task's turn: VRUs one after another, so many of others at most.
    fn grow(&mut self, slot: u32, now_ms: u64, wins: &mut u32) {
        let row = self.swarm.tasks[slot as usize];
        if !row.is_hungry() {
            return;
        }
        let runs_in = (row.vru > 0).then_some(row.instance);
        let Some(instance) = runs_in.or_else(|| self.place(&row)) else { return };
        if self.standing(instance) != Standing::Active {
            return;
        }
        while self.swarm.tasks[slot as usize].is_hungry() {
            let task = self.swarm.tasks[slot as usize];
            match self.next_vru(Some(slot), &task, instance, now_ms) {
                Next::Free(price) => self.swarm.grant(slot, instance, price, now_ms),
                Next::Won(price, loser) if *wins > 0 => {
                    *wins -= 1;
                    self.swarm.take(loser);
                    self.swarm.grant(slot, instance, price, now_ms);
                }
                _ => return,
            }
        }
    }

    /// Somebody wants a task to end.
    pub(super) fn cancel_task(
        &mut self,
        env: &Envelope,
        m: &CancelTask,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let slot = self.acting_task(env, m.handle.get())?;
        let row = &self.swarm.tasks[slot as usize];
        let paid = row.bid_micro - row.held_micro;
        self.report_done(env, CancelTask::KIND, m.handle.get(), paid, out);
        self.end_task(slot, TaskEnd::Requested, out);
        Ok(())
    }

    /// Somebody says how far a task is.
    pub(super) fn report_task(
        &mut self,
        env: &Envelope,
        m: &ReportTask,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let slot = self.acting_task(env, m.handle.get())?;
        let progress = m.progress_permille.get();
        if progress > 1000 {
            return Err(Reject::BadField);
        }
        let row = &mut self.swarm.tasks[slot as usize];
        row.progress_permille = progress;
        if m.used_millivru.get() != u32::MAX {
            row.used_millivru = m.used_millivru.get();
            row.flags |= Task::REPORTED;
        }
        self.report_done(env, ReportTask::KIND, m.handle.get(), progress.into(), out);
        if progress == 1000 {
            self.end_task(slot, TaskEnd::Finished, out);
        }
        Ok(())
    }

    /// The slot of the task that a handle names, if the session may act for it.
    fn acting_task(&self, env: &Envelope, handle: u64) -> Result<u32, Reject> {
        let session = &self.sessions[env.session as usize];
        if session.role() == Role::Observer {
            return Err(Reject::NotPermitted);
        }
        let slot = handle as u32;
        let row = self
            .swarm
            .tasks
            .get(slot as usize)
            .filter(|row| row.is_live() && row.generation == (handle >> 32) as u32);
        let row = row.ok_or(Reject::UnknownTask)?;
        let may = match session.role() {
            Role::Operator => true,
            Role::Tenant => session.account == u32::from(row.account),
            Role::Agent => self.is_agents(session.instance, row),
            Role::Observer => false,
        };
        if may { Ok(slot) } else { Err(Reject::UnknownTask) }
    }

    /// True for an agent's own tasks: those that must run in its instance and that its account pays.
    pub(super) fn is_agents(&self, instance: u32, task: &Task) -> bool {
        instance == u32::from(task.pinned)
            && self.instance(instance).is_some_and(|row| row.account == task.account)
    }

    fn end_task(&mut self, slot: u32, reason: TaskEnd, out: &mut Outbox) {
        self.swarm.take_all(slot);
        let row = &mut self.swarm.tasks[slot as usize];
        let released = std::mem::take(&mut row.held_micro);
        let row = *row;
        self.ledger.release_funds(row.account, released);
        let handle = self.swarm.handle(slot);
        self.fold(handle ^ released);
        let report = TaskEnded {
            client_id: row.client_id.into(),
            handle: handle.into(),
            time_ns: self.time_ns.into(),
            paid_micro: (row.bid_micro - released).into(),
            released_micro: released.into(),
            reason: reason as u8,
            reserved: [0; 7],
        };
        self.swarm.remove(slot);
        out.push(shown(row.session), &report);
    }

    /// An instance goes: what runs there or must run there ends, and its group forgets it.
    pub(super) fn leave_swarm(&mut self, instance: u16, out: &mut Outbox) {
        for slot in 0..self.swarm.end {
            let row = &self.swarm.tasks[slot as usize];
            if row.is_live() && (row.instance == instance || row.pinned == instance) {
                self.end_task(slot, TaskEnd::InstanceRemoved, out);
            }
        }
        if self.swarm.members[usize::from(instance)] != Member::default() {
            self.swarm.members[usize::from(instance)] = Member::default();
            self.swarm.find_roster();
        }
    }

    /// A session's slot is given to another: that one is told nothing of the first one's tasks.
    pub(super) fn forget_tasks_of(&mut self, session: u16) {
        for row in self.swarm.tasks.iter_mut().filter(|row| row.session == session) {
            row.session = NONE;
        }
    }

    /// Time passes: tasks pay, groups act, tasks grow.
    pub(super) fn tick_swarm(&mut self, elapsed_ms: u64, now_ms: u64, out: &mut Outbox) {
        if self.swarm.groups_used == 0 {
            return;
        }
        for slot in 0..self.swarm.end {
            self.bill(slot, elapsed_ms, out);
        }
        self.tick_groups(now_ms, out);
        // Also those that have all they want: others may win it before their turn.
        let mut turns = 0;
        for slot in 0..self.swarm.end {
            if self.swarm.tasks[slot as usize].is_live() {
                self.swarm.order[turns] = slot;
                turns += 1;
            }
        }
        let (order, tasks) = (&mut self.swarm.order[..turns], &self.swarm.tasks);
        order.sort_unstable_by(|a, b| {
            let [a, b] = [a, b].map(|slot| &tasks[*slot as usize]);
            b.margin().compare(a.margin()).then(a.number.cmp(&b.number))
        });
        let mut wins = WINS_MAX;
        for at in 0..turns {
            self.grow(self.swarm.order[at], now_ms, &mut wins);
        }
        self.tell_tasks(out);
    }

    /// Pays what a task's VRUs cost since the last tick; what nothing ran in costs nothing.
    fn bill(&mut self, slot: u32, elapsed_ms: u64, out: &mut Outbox) {
        let row = &mut self.swarm.tasks[slot as usize];
        if row.vru == 0 || self.instances[usize::from(row.instance)].is_frozen() {
            return;
        }
        let cost = row.accrue(elapsed_ms).min(row.held_micro.into()) as u64;
        row.held_micro -= cost;
        let row = *row;
        let group = &mut self.swarm.groups[usize::from(row.group)];
        group.revenue_micro = group.revenue_micro.saturating_add(cost);
        self.ledger.pay_held(row.account, group.account, cost);
        self.fold(cost ^ u64::from(slot) << 48);
        if row.held_micro == 0 {
            self.end_task(slot, TaskEnd::Exhausted, out);
        }
    }

    fn report_admitted(&mut self, env: &Envelope, slot: u32, out: &mut Outbox) {
        let handle = self.swarm.handle(slot);
        let row = &mut self.swarm.tasks[slot as usize];
        row.tell();
        let row = *row;
        self.fold(handle ^ u64::from(row.vru) << 24 ^ row.rate_micro);
        let report = TaskAdmitted {
            request: env.request.into(),
            client_id: row.client_id.into(),
            handle: handle.into(),
            time_ns: env.time_ns.into(),
            held_micro: row.held_micro.into(),
            rate_micro: row.rate_micro.into(),
            margin_micro: (row.margin().shown() as u64).into(),
            instance: shown(row.instance).into(),
            vru: row.vru.into(),
        };
        out.push(env.session, &report);
    }

    /// Tells every task that has other VRUs than it was told, or runs elsewhere; one that has none and
    /// does not wait ends.
    fn tell_tasks(&mut self, out: &mut Outbox) {
        let mut next = 0;
        while let Some(slot) = self.swarm.changed.from(next) {
            next = slot + 1;
            self.swarm.changed.remove(slot);
            let row = self.swarm.tasks[slot as usize];
            if !row.is_live() || row.is_told() {
                continue;
            }
            if row.vru == 0 && !row.queues() {
                self.end_task(slot, TaskEnd::Displaced, out);
                continue;
            }
            self.swarm.tasks[slot as usize].tell();
            let handle = self.swarm.handle(slot);
            self.fold(handle ^ u64::from(row.vru) << 24 ^ row.rate_micro);
            let report = TaskChanged {
                client_id: row.client_id.into(),
                handle: handle.into(),
                time_ns: self.time_ns.into(),
                rate_micro: row.rate_micro.into(),
                margin_micro: (row.margin().shown() as u64).into(),
                instance: shown(row.instance).into(),
                vru: row.vru.into(),
            };
            if row.session != NONE {
                out.push(row.session.into(), &report);
            }
        }
    }
}

/// A number, or none, as the protocol has it.
pub(super) fn shown(number: u16) -> u32 {
    if number == NONE { ANY } else { number.into() }
}
