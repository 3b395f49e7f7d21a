//! A naive model of the swarm: what tasks, groups and their instances must do, said as simply as
//! possible. Written from the design and from the source's pseudocode, not from the machine: lists,
//! linear searches, fractions, sums computed anew each time. It shares nothing with the machine but
//! messages and codes.

use std::cmp::Ordering;
use vendue_wire::code::{Reject, Role, TaskEnd};
use vendue_wire::message::{
    ANY, ANY_BOOK, CancelTask, FreezeInstance, ReportTask, SetGroup, SetMember, SubmitTask,
};

/// VRUs that change hands at one command, at most.
const WINS_MAX: usize = 64;

/// A fraction with a denominator above zero.
#[derive(Clone, Copy, Debug)]
pub struct Fraction(pub i128, pub i128);

impl Fraction {
    /// Rounded down, as far as the protocol's field goes.
    pub fn shown(self) -> i128 {
        self.0.div_euclid(self.1).clamp(i64::MIN.into(), i64::MAX.into())
    }

    fn compare(self, other: Fraction) -> Ordering {
        (self.0 * other.1).cmp(&(other.0 * self.1))
    }
}

/// What the next VRU costs, micro-units a second: dearer with the square of what is taken.
pub fn price(base: i128, steep_percent: i128, used: i128, capacity: i128) -> i128 {
    let square = capacity * capacity * 100;
    let above = base * steep_percent * used * used;
    base + above / square + i128::from(above % square != 0)
}

/// The source's pseudocode for one instance of which nothing else is granted: `None` if the task is
/// rejected, otherwise the VRUs allocated and what they cost a second. `current_cost` is what the
/// VRUs cost over the task's duration, with the one that is next.
pub fn allocate_resources(
    (bid, duration_ms, minimum): (i128, i128, i128),
    (base, steep, capacity): (i128, i128, i128),
    wanted: i128,
) -> Option<(i128, i128)> {
    let (mut allocated, mut rate) = (0, 0);
    let margin = |rate: i128| Fraction(bid * 1000 - rate * duration_ms, duration_ms);
    let mut profit_margin = margin(price(base, steep, 0, capacity));
    if profit_margin.compare(Fraction(0, 1)) != Ordering::Greater {
        return None;
    }
    while allocated < capacity.min(wanted)
        && profit_margin.compare(Fraction(minimum, 1)) == Ordering::Greater
    {
        rate += price(base, steep, allocated, capacity);
        allocated += 1;
        profit_margin = margin(rate + price(base, steep, allocated, capacity));
    }
    Some((allocated, rate))
}

/// A tenant.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in the protocol")]
pub struct Account {
    pub free: i128,
    pub held: i128,
    /// Accounts whose tasks its instances take.
    pub sells_to: Vec<usize>,
}

/// An instance.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in the protocol")]
pub struct Instance {
    pub account: usize,
    pub capacity: [i128; 5],
    pub frozen: bool,
    pub group: Option<usize>,
    /// Frozen by its group.
    pub parked: bool,
    pub gone: bool,
}

/// A group.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in the protocol")]
pub struct Group {
    pub set: SetGroup,
    pub revenue: i128,
    pub demand: u8,
    pub since: i128,
    pub acts: [u32; 2],
}

/// A task.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in the protocol")]
pub struct Task {
    pub submitted: SubmitTask,
    pub handle: u64,
    pub session: u32,
    pub payer: usize,
    pub paid: i128,
    /// Thousandths of a micro-unit not paid yet.
    pub owed: i128,
    pub vru: i128,
    pub rate: i128,
    pub runs_in: Option<usize>,
    pub since: i128,
    pub used: Option<u32>,
    pub progress: u16,
}

impl Task {
    fn bid(&self) -> i128 {
        self.submitted.bid_micro.get().into()
    }

    fn duration(&self) -> i128 {
        self.submitted.duration_ms.get().into()
    }

    fn group(&self) -> usize {
        self.submitted.group.get().into()
    }

    fn resource(&self) -> usize {
        self.submitted.resource.into()
    }

    fn wants(&self) -> bool {
        self.vru < self.submitted.vru_max.get().into()
    }

    fn must_run_in(&self) -> Option<usize> {
        let instance = self.submitted.instance.get();
        (instance != ANY).then_some(instance as usize)
    }

    /// Its margin when its VRUs cost so much a second.
    pub fn margin(&self, rate: i128) -> Fraction {
        Fraction(self.bid() * 1000 - rate * self.duration(), self.duration())
    }

    fn likes(&self, price: i128) -> bool {
        let minimum = Fraction(i128::from(self.submitted.margin_min_micro.get()), 1);
        self.margin(self.rate + price).compare(minimum) == Ordering::Greater
    }

    fn lose(&mut self) {
        self.rate = self.rate * (self.vru - 1) / self.vru;
        self.vru -= 1;
        if self.vru == 0 {
            self.runs_in = None;
        }
    }
}

/// What is said, of tasks by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the messages of the same names")]
pub enum Said {
    Admitted { to: u32, task: u64, held: i128, rate: i128, margin: i128, instance: u32, vru: i128 },
    Changed { to: u32, task: u64, rate: i128, margin: i128, instance: u32, vru: i128 },
    Ended { to: u32, task: u64, paid: i128, released: i128, reason: u8 },
    Frozen { instance: u32, frozen: bool },
    Done { value: u64 },
    Rejected { code: u8 },
    Removed { instance: u32 },
}

/// A session.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as in the protocol")]
pub struct Session {
    pub role: Role,
    pub account: u32,
    pub instance: u32,
}

/// What can be asked; ids are always fresh.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the messages of the same names")]
pub enum Request {
    Submit(SubmitTask),
    Cancel(CancelTask),
    Report(ReportTask),
    SetGroup(SetGroup),
    SetMember(SetMember),
    Freeze(FreezeInstance),
    Remove(u32),
    Tick(i128),
}

/// The whole of it.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "plain")]
pub struct Swarm {
    pub now: i128,
    pub accounts: Vec<Account>,
    pub instances: Vec<Instance>,
    pub groups: Vec<Group>,
    /// In order of submission.
    pub tasks: Vec<Task>,
    pub sessions: Vec<Session>,
    pub said: Vec<Said>,
}

impl Swarm {
    /// Carries a request out and returns what is said, sorted.
    pub fn ask(&mut self, slot: u32, request: &Request) -> Vec<Said> {
        let before: Vec<_> = self.tasks.iter().map(Swarm::has).collect();
        let result = match request {
            Request::Submit(m) => self.submit(slot, m),
            Request::Cancel(m) => self.act(slot, m.handle.get()).map(|at| {
                self.said.push(Said::Done { value: self.tasks[at].paid as u64 });
                self.end(at, TaskEnd::Requested);
            }),
            Request::Report(m) => self.report(slot, m),
            Request::Tick(elapsed) => {
                self.tick(*elapsed);
                Ok(())
            }
            _ if self.sessions[slot as usize].role != Role::Operator => Err(Reject::NotPermitted),
            Request::SetGroup(m) => self.set_group(m),
            Request::SetMember(m) => self.set_member(m),
            Request::Freeze(m) => self.freeze(m.instance.get() as usize, m.frozen == 1),
            Request::Remove(instance) => self.remove(*instance as usize),
        };
        match result {
            Err(code) => self.said.push(Said::Rejected { code: code as u8 }),
            Ok(()) => self.tell(&before),
        }
        let mut said = std::mem::take(&mut self.said);
        said.sort_unstable();
        said
    }

    /// The next task that is admitted has this handle.
    pub fn learn(&mut self, task: u64, handle: u64) {
        for row in &mut self.tasks {
            if row.submitted.client_id.get() == task {
                row.handle = handle;
            }
        }
    }

    fn has(task: &Task) -> (u64, i128, i128, Option<usize>) {
        (task.submitted.client_id.get(), task.vru, task.rate, task.runs_in)
    }

    /// Says what tasks that were there before have now.
    fn tell(&mut self, before: &[(u64, i128, i128, Option<usize>)]) {
        for id in before.iter().map(|before| before.0) {
            let Some(at) = self.tasks.iter().position(|row| row.submitted.client_id.get() == id)
            else {
                continue;
            };
            let row = &self.tasks[at];
            if before.contains(&Swarm::has(row)) {
                continue;
            }
            if row.vru == 0 && row.submitted.queue == 0 {
                self.end(at, TaskEnd::Displaced);
                continue;
            }
            let margin = row.margin(row.rate).shown();
            self.said.push(Said::Changed {
                to: row.session,
                task: id,
                rate: row.rate,
                margin,
                instance: row.runs_in.map_or(ANY, |at| at as u32),
                vru: row.vru,
            });
        }
    }

    fn used(&self, instance: usize, resource: usize) -> i128 {
        let here = |task: &&Task| task.runs_in == Some(instance) && task.resource() == resource;
        self.tasks.iter().filter(here).map(|task| task.vru).sum()
    }

    fn price(&self, group: usize, instance: usize, resource: usize) -> i128 {
        let capacity = self.instances[instance].capacity[resource];
        // Of a full one the last VRU is what is won.
        let used = self.used(instance, resource).min(capacity - 1);
        let set = &self.groups[group].set;
        price(set.base_micro[resource].get().into(), set.steep_percent.get().into(), used, capacity)
    }

    fn active(&self, group: usize) -> Vec<usize> {
        let active = |at: &usize| {
            let row = &self.instances[*at];
            !row.gone && row.group == Some(group) && !row.frozen
        };
        (0..self.instances.len()).filter(active).collect()
    }

    fn submit(&mut self, slot: u32, m: &SubmitTask) -> Result<(), Reject> {
        let payer = self.payer(slot, m)?;
        let group = usize::from(m.group.get());
        if self.groups[group].set.base_micro[usize::from(m.resource)].get() == 0 {
            return Err(Reject::NotOffered);
        }
        if m.duration_ms.get() == 0 || m.vru_max.get() == 0 || m.vru_max.get() > 1024 {
            return Err(Reject::BadQuantity);
        }
        let bid = i128::from(m.bid_micro.get());
        if self.accounts[payer].free < bid {
            return Err(Reject::InsufficientFunds);
        }
        let task = Task {
            submitted: *m,
            handle: u64::MAX,
            session: slot,
            payer,
            paid: 0,
            owed: 0,
            vru: 0,
            rate: 0,
            runs_in: None,
            since: self.now,
            used: None,
            progress: 0,
        };
        self.tasks.push(task);
        let at = self.tasks.len() - 1;
        let seen = self.clone();
        let why = self.grow(at, &mut { WINS_MAX });
        let task = &self.tasks[at];
        if task.vru == 0 && m.queue == 0 {
            *self = seen;
            self.tasks.pop();
            return Err(why.unwrap_or(Reject::SwarmFull));
        }
        let margin = task.margin(task.rate).shown();
        self.said.push(Said::Admitted {
            to: slot,
            task: m.client_id.get(),
            held: bid,
            rate: task.rate,
            margin,
            instance: task.runs_in.map_or(ANY, |at| at as u32),
            vru: task.vru,
        });
        self.accounts[payer].free -= bid;
        self.accounts[payer].held += bid;
        Ok(())
    }

    fn payer(&self, slot: u32, m: &SubmitTask) -> Result<usize, Reject> {
        let session = self.sessions[slot as usize];
        let instance = m.instance.get();
        match session.role {
            Role::Observer => return Err(Reject::NotPermitted),
            Role::Agent if instance == ANY || instance != session.instance => {
                return Err(Reject::UnknownInstance);
            }
            _ => {}
        }
        let wanted = (m.account.get() != ANY).then_some(m.account.get());
        let own = match session.role {
            Role::Operator => None,
            Role::Tenant => Some(session.account),
            _ => Some(self.instances[instance as usize].account as u32),
        };
        if own.is_some() && wanted.is_some() && wanted != own {
            return Err(Reject::UnknownAccount);
        }
        let group = usize::from(m.group.get());
        let owner = self.groups.get(group).ok_or(Reject::UnknownGroup)?.set.account.get();
        let payer = own.or(wanted).unwrap_or(owner);
        if payer as usize >= self.accounts.len() {
            return Err(Reject::UnknownAccount);
        }
        let sold = self.accounts[owner as usize].sells_to.contains(&(payer as usize));
        if payer != owner && !sold {
            return Err(Reject::UnknownGroup);
        }
        let of_group = self
            .instances
            .get(instance as usize)
            .is_some_and(|row| !row.gone && row.group == Some(group));
        if instance == ANY || of_group { Ok(payer as usize) } else { Err(Reject::UnknownInstance) }
    }

    /// Gives a task VRUs one after another; says why it gets no more.
    fn grow(&mut self, at: usize, wins: &mut usize) -> Option<Reject> {
        let task = self.tasks[at].clone();
        let (group, resource) = (task.group(), task.resource());
        let mut places = self.active(group);
        places.retain(|&place| {
            self.instances[place].capacity[resource] > 0
                && task.runs_in.is_none_or(|runs_in| runs_in == place)
                && task.must_run_in().is_none_or(|must| must == place)
        });
        places.sort_by_key(|&place| {
            let full = self.used(place, resource) >= self.instances[place].capacity[resource];
            (full, self.price(group, place, resource), place)
        });
        let place = *places.first()?;
        let hold = i128::from(self.groups[group].set.hold_ms.get());
        while self.tasks[at].wants() {
            let price = self.price(group, place, resource);
            if !self.tasks[at].likes(price) {
                return Some(Reject::MarginTooLow);
            }
            if self.used(place, resource) >= self.instances[place].capacity[resource] {
                let ours = self.tasks[at].margin(self.tasks[at].rate + price);
                let loser = self.loser(at, place, resource, hold)?;
                let theirs = self.tasks[loser].margin(self.tasks[loser].rate);
                if ours.compare(theirs) != Ordering::Greater || *wins == 0 {
                    return None;
                }
                *wins -= 1;
                self.tasks[loser].lose();
            }
            let now = self.now;
            let task = &mut self.tasks[at];
            (task.vru, task.rate) = (task.vru + 1, task.rate + price);
            (task.since, task.runs_in) = (now, Some(place));
        }
        None
    }

    /// The task of the least margin in an instance that may lose a VRU; of equals the youngest.
    fn loser(&self, but: usize, place: usize, resource: usize, hold: i128) -> Option<usize> {
        let mut found: Option<usize> = None;
        for (at, task) in self.tasks.iter().enumerate() {
            let may = at != but
                && task.runs_in == Some(place)
                && task.resource() == resource
                && self.now >= task.since + hold;
            let less = |other: usize| {
                let other = &self.tasks[other];
                task.margin(task.rate).compare(other.margin(other.rate)) != Ordering::Greater
            };
            if may && found.is_none_or(less) {
                found = Some(at);
            }
        }
        found
    }

    fn act(&self, slot: u32, handle: u64) -> Result<usize, Reject> {
        let session = self.sessions[slot as usize];
        if session.role == Role::Observer {
            return Err(Reject::NotPermitted);
        }
        let may = |task: &Task| match session.role {
            Role::Operator => true,
            Role::Tenant => task.payer == session.account as usize,
            _ => {
                let own = session.instance as usize;
                task.must_run_in() == Some(own)
                    && !self.instances[own].gone
                    && task.payer == self.instances[own].account
            }
        };
        let at = self.tasks.iter().position(|task| task.handle == handle && may(task));
        at.ok_or(Reject::UnknownTask)
    }

    fn report(&mut self, slot: u32, m: &ReportTask) -> Result<(), Reject> {
        let at = self.act(slot, m.handle.get())?;
        let progress = m.progress_permille.get();
        if progress > 1000 {
            return Err(Reject::BadField);
        }
        let used = Some(m.used_millivru.get()).filter(|&used| used != u32::MAX);
        self.tasks[at].used = used.or(self.tasks[at].used);
        self.tasks[at].progress = progress;
        self.said.push(Said::Done { value: progress.into() });
        if progress == 1000 {
            self.end(at, TaskEnd::Finished);
        }
        Ok(())
    }

    fn end(&mut self, at: usize, reason: TaskEnd) {
        let task = self.tasks.remove(at);
        let rest = task.bid() - task.paid;
        self.accounts[task.payer].held -= rest;
        self.accounts[task.payer].free += rest;
        self.said.push(Said::Ended {
            to: task.session,
            task: task.submitted.client_id.get(),
            paid: task.paid,
            released: rest,
            reason: reason as u8,
        });
    }

    fn set_group(&mut self, m: &SetGroup) -> Result<(), Reject> {
        if m.account.get() as usize >= self.accounts.len() {
            return Err(Reject::UnknownAccount);
        }
        let at = match m.group.get() {
            ANY_BOOK => self.groups.len(),
            group if usize::from(group) < self.groups.len() => group.into(),
            _ => return Err(Reject::UnknownGroup),
        };
        let others = || self.groups.iter().enumerate().filter(|(other, _)| *other != at);
        if m.name[0] == 0 || others().any(|(_, row)| row.set.name == m.name) {
            return Err(Reject::BadName);
        }
        if m.base_micro.iter().any(|base| base.get() > 1 << 40) || m.steep_percent.get() > 10_000 {
            return Err(Reject::BadPrice);
        }
        if m.low_permille.get() >= m.high_permille.get() || m.high_permille.get() > 1000 {
            return Err(Reject::BadField);
        }
        if at == 64 {
            return Err(Reject::GroupsFull);
        }
        match self.groups.get(at) {
            None => {
                let (revenue, demand, since) = (0, 0, 0);
                self.groups.push(Group { set: *m, revenue, demand, since, acts: [0; 2] });
            }
            Some(row) => {
                let joined = self.instances.iter().any(|row| !row.gone && row.group == Some(at));
                let tasks = self.tasks.iter().any(|task| task.group() == at);
                if row.set.account != m.account && (joined || tasks) {
                    return Err(Reject::NotEmpty);
                }
                self.groups[at].set = *m;
            }
        }
        self.said.push(Said::Done { value: at as u64 });
        Ok(())
    }

    fn set_member(&mut self, m: &SetMember) -> Result<(), Reject> {
        let at = m.instance.get() as usize;
        let row = self.instances.get(at).filter(|row| !row.gone).ok_or(Reject::UnknownInstance)?;
        let group = match m.group.get() {
            ANY_BOOK => None,
            group => Some(usize::from(group)),
        };
        let of = |group: usize| self.groups.get(group).map(|group| group.set.account.get());
        if group.is_some_and(|group| of(group) != Some(row.account as u32)) {
            return Err(Reject::UnknownGroup);
        }
        if row.group != group {
            let named = |task: &Task| task.runs_in == Some(at) || task.must_run_in() == Some(at);
            if self.tasks.iter().any(named) {
                return Err(Reject::NotEmpty);
            }
            let row = &mut self.instances[at];
            row.group = group;
            if row.parked {
                (row.parked, row.frozen) = (false, false);
                self.said.push(Said::Frozen { instance: at as u32, frozen: false });
            }
        }
        self.said.push(Said::Done { value: at as u64 });
        Ok(())
    }

    fn freeze(&mut self, at: usize, frozen: bool) -> Result<(), Reject> {
        let row = self.instances.get_mut(at).filter(|row| !row.gone);
        let row = row.ok_or(Reject::UnknownInstance)?;
        (row.frozen, row.parked) = (frozen, false);
        self.said.push(Said::Frozen { instance: at as u32, frozen });
        self.said.push(Said::Done { value: frozen.into() });
        Ok(())
    }

    fn remove(&mut self, at: usize) -> Result<(), Reject> {
        self.instances.get(at).filter(|row| !row.gone).ok_or(Reject::UnknownInstance)?;
        while let Some(task) = self
            .tasks
            .iter()
            .position(|task| task.runs_in == Some(at) || task.must_run_in() == Some(at))
        {
            self.end(task, TaskEnd::InstanceRemoved);
        }
        self.instances[at].gone = true;
        for session in &mut self.sessions {
            if session.instance == at as u32 {
                session.instance = ANY;
            }
        }
        self.said.push(Said::Removed { instance: at as u32 });
        self.said.push(Said::Done { value: at as u64 });
        Ok(())
    }

    fn tick(&mut self, elapsed: i128) {
        self.now += elapsed;
        let mut at = 0;
        while at < self.tasks.len() {
            if self.bill(at, elapsed) {
                self.end(at, TaskEnd::Exhausted);
            } else {
                at += 1;
            }
        }
        for group in 0..self.groups.len() {
            self.groups_turn(group);
        }
        let mut turns: Vec<u64> =
            self.tasks.iter().map(|task| task.submitted.client_id.get()).collect();
        let margin = |id: &u64| {
            let task = self.tasks.iter().find(|task| task.submitted.client_id.get() == *id);
            task.map_or(Fraction(0, 1), |task| task.margin(task.rate))
        };
        // Stable: of equals the older first.
        turns.sort_by(|a, b| margin(b).compare(margin(a)));
        let mut wins = WINS_MAX;
        for id in turns {
            let at = self.tasks.iter().position(|task| task.submitted.client_id.get() == id);
            if let Some(at) = at
                && self.tasks[at].runs_in.is_none_or(|place| !self.instances[place].frozen)
            {
                self.grow(at, &mut wins);
            }
        }
    }

    /// True if the task has paid all it bid.
    fn bill(&mut self, at: usize, elapsed: i128) -> bool {
        let task = &mut self.tasks[at];
        let Some(place) = task.runs_in else { return false };
        if self.instances[place].frozen {
            return false;
        }
        task.owed += task.rate * elapsed;
        let cost = (task.owed / 1000).min(task.bid() - task.paid);
        task.owed %= 1000;
        task.paid += cost;
        let group = task.group();
        let payee = self.groups[group].set.account.get() as usize;
        let done = task.paid == task.bid();
        let payer = task.payer;
        self.accounts[payer].held -= cost;
        self.accounts[payee].free += cost;
        self.groups[group].revenue += cost;
        done
    }

    fn groups_turn(&mut self, group: usize) {
        let demand = self.demand(group);
        let now = self.now;
        let row = &mut self.groups[group];
        if row.demand != demand {
            (row.demand, row.since) = (demand, now);
        }
        if now - row.since < i128::from(row.set.cool_ms.get()) {
            return;
        }
        let acted = match demand {
            1 => self.activate(group),
            2 => self.deactivate(group),
            _ => false,
        };
        if acted {
            self.groups[group].since = now;
            self.groups[group].acts[usize::from(demand) - 1] += 1;
        }
    }

    /// Used and all VRUs of the active instances, but for one.
    fn load(&self, group: usize, resource: usize, but: Option<usize>) -> (i128, i128) {
        let mut sums = (0, 0);
        for at in self.active(group) {
            sums.0 += self.used(at, resource);
            if Some(at) != but {
                sums.1 += self.instances[at].capacity[resource];
            }
        }
        sums
    }

    fn offered(&self, group: usize) -> Vec<usize> {
        let set = &self.groups[group].set;
        (0..5).filter(|&resource| set.base_micro[resource].get() > 0).collect()
    }

    fn demand(&self, group: usize) -> u8 {
        let set = &self.groups[group].set;
        let (high, low) = (i128::from(set.high_permille.get()), i128::from(set.low_permille.get()));
        let loads: Vec<_> =
            self.offered(group).iter().map(|&at| self.load(group, at, None)).collect();
        let waits = self.tasks.iter().any(|task| {
            let base = i128::from(set.base_micro[task.resource()].get());
            task.group() == group
                && task.runs_in.is_none()
                && task.must_run_in().is_none()
                && task.likes(base)
        });
        if waits || loads.iter().any(|&(used, all)| all > 0 && used * 1000 >= all * high) {
            1
        } else if loads.iter().all(|&(used, all)| used * 1000 <= all * low) {
            2
        } else {
            0
        }
    }

    fn activate(&mut self, group: usize) -> bool {
        let parked =
            |row: &Instance| !row.gone && row.group == Some(group) && row.frozen && row.parked;
        let Some(at) = self.instances.iter().position(parked) else { return false };
        (self.instances[at].frozen, self.instances[at].parked) = (false, false);
        self.said.push(Said::Frozen { instance: at as u32, frozen: false });
        true
    }

    fn deactivate(&mut self, group: usize) -> bool {
        let active = self.active(group);
        if active.len() <= usize::from(self.groups[group].set.active_min.get()) {
            return false;
        }
        let total = |at: usize| (0..5).map(|resource| self.used(at, resource)).sum::<i128>();
        let least = active.iter().map(|&at| total(at)).min();
        let Some(at) = active.iter().copied().rfind(|&at| Some(total(at)) == least) else {
            return false;
        };
        let high = i128::from(self.groups[group].set.high_permille.get());
        let stays = self.offered(group).iter().all(|&resource| {
            let (used, all) = self.load(group, resource, Some(at));
            used == 0 || used * 1000 < all * high
        });
        let before = self.tasks.clone();
        if !stays || !self.empty(at, &active) {
            self.tasks = before;
            return false;
        }
        (self.instances[at].frozen, self.instances[at].parked) = (true, true);
        self.said.push(Said::Frozen { instance: at as u32, frozen: true });
        true
    }

    fn empty(&mut self, from: usize, active: &[usize]) -> bool {
        let mut slots: Vec<usize> = (0..self.tasks.len()).collect();
        slots.retain(|&at| self.tasks[at].runs_in == Some(from));
        slots.sort_by_key(|&at| self.tasks[at].handle as u32);
        for at in slots {
            let (vru, resource) = (self.tasks[at].vru, self.tasks[at].resource());
            let free = |place: usize| {
                self.instances[place].capacity[resource] - self.used(place, resource)
            };
            let places = active.iter().copied().filter(|&place| place != from);
            let place = places.filter(|&place| free(place) >= vru).min_by_key(|&at| free(at));
            let Some(place) = place.filter(|_| self.tasks[at].must_run_in().is_none()) else {
                return false;
            };
            self.tasks[at].runs_in = Some(place);
        }
        true
    }
}
