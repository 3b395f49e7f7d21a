//! Reports: what each record of the journal did to money and capacity, executed again by the machine and
//! summed by step. A pure function of the journal, so that a report over a period survives restarts and
//! needs no state of its own in the machine. What is kept is bounded by the machine's own tables.

use super::audit::book_of;
use crate::machine::Machine;
use crate::machine::command::{Outcomes, Restart, Tick, Usage};
use crate::machine::event::{
    AuctionTrade, Event, Fill, InstanceCreated, InstanceRemoved, Outbox, RentEarned, TradeReversed,
};
use crate::machine::task::Task;
use crate::pipeline::record::{Arrival, split};
use crate::storage::Record;
use std::collections::BTreeMap;
use vendue_wire::code::{LeaseOutcome, RESOURCES, Resource, Side, TaskEnd};
use vendue_wire::message::*;
use zerocopy::FromBytes;

/// Rows of instances in a step at most; where more moved, rows are of accounts alone.
const FLOWS_MAX: usize = 4096;
/// How often a group's prices are looked at, milliseconds.
const LOOK_MS: u64 = 1000;
/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;
/// Stands for no group.
const NO_GROUP: u16 = u16::MAX;
/// A task that goes on has no reason to be over.
const GOES_ON: u8 = u8::MAX;

/// One row of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Of an account or instance.
    Flow(ReportFlowRow),
    /// Of a book or group.
    Sample(ReportSampleRow),
    /// Of a task.
    Task(ReportTaskRow),
}

/// Whose flows: account, instance or [`ANY`], book or [`ANY_BOOK`].
type Whose = (u32, u32, u16);

/// What somebody paid, earned and used; see [`ReportFlowRow`]. Trades that are reversed count below zero.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    deposited: u64,
    withdrawn: u64,
    sold: i64,
    bought: i64,
    fees: i64,
    rent_paid: u64,
    rent_earned: u64,
    task_cost: u64,
    task_revenue: u64,
    sold_credits: i64,
    bought_credits: i64,
    span: Span,
    used: u64,
}

/// VRU-milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    reserved: u64,
    leased: u64,
    lent: u64,
}

/// Prices of a step, and what they were paid for; see [`ReportSampleRow`].
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    prices: [u64; 4],
    trades: i64,
    volume: i64,
    notional: i64,
    capacity: u64,
    reserved: u64,
    granted: u64,
    lent: u64,
    /// Of a group in thousandths.
    used: u64,
}

impl Sample {
    fn price(&mut self, price: u64) {
        let [open, high, low, _] = self.prices;
        self.prices = match open {
            0 => [price; 4],
            _ => [open, high.max(price), low.min(price), price],
        };
    }
}

/// An instance as it was when it was there last.
#[derive(Clone, Copy, Debug)]
struct Known {
    account: u16,
    tier: u16,
    name: [u8; NAME_BYTES],
}

/// A task as it was after the last record, and its sums.
#[derive(Clone, Copy, Debug)]
struct Seen {
    task: Task,
    instance: u32,
    paid_now: u64,
    granted: u64,
    reported: u64,
    /// Thousandths of VRU-milliseconds.
    used_milli: u128,
    inefficient_ms: u64,
    inefficient_micro: u64,
    fresh: bool,
}

/// Two parties of a trade and its terms.
struct Trade {
    seller: (U16, U16),
    buyer: (U16, U16),
    fees: [U64; 2],
    price: u64,
    quantity: U32,
    book: u16,
    /// 1, or -1 if it was reversed.
    sign: i64,
}

/// The sums of one page.
pub struct Fold {
    width_ns: u64,
    /// Beginning of the step at hand; `None` before the first record.
    step: Option<u64>,
    until_ns: u64,
    /// Up to when what counts over time was counted, milliseconds; 0: not yet.
    ticked_ms: u64,
    looked_ms: u64,
    flows: BTreeMap<Whose, Flow>,
    /// By instance and resource.
    spans: Vec<[Span; RESOURCES]>,
    known: Vec<Option<Known>>,
    books: Vec<Sample>,
    groups: Vec<[Sample; RESOURCES]>,
    /// What each lease has paid, by handle.
    leases: BTreeMap<u64, u64>,
    /// By slot.
    tasks: Vec<Option<Seen>>,
    rows: Vec<Row>,
}

impl Fold {
    /// Begins behind the last record that `machine` executed, `None` before the first, with steps of so
    /// many seconds.
    pub fn begin(machine: Option<&Machine>, step_s: u16) -> Fold {
        let mut fold = Fold {
            width_ns: u64::from(step_s.max(1)) * SECOND_NS,
            step: None,
            until_ns: 0,
            ticked_ms: 0,
            looked_ms: 0,
            flows: BTreeMap::new(),
            spans: Vec::new(),
            known: Vec::new(),
            books: Vec::new(),
            groups: Vec::new(),
            leases: BTreeMap::new(),
            tasks: Vec::new(),
            rows: Vec::new(),
        };
        if let Some(machine) = machine {
            fold.ticked_ms = machine.ticked_ms();
            fold.fit(machine);
            for slot in machine.live_leases() {
                let lease = &machine.rentals().leases[slot as usize];
                fold.leases.insert(machine.rentals().handle(slot), lease.paid_micro);
            }
            // What tasks paid before is of no step here.
            fold.look(machine);
            fold.tasks.iter_mut().flatten().for_each(Seen::begin);
            fold.flows.clear();
            fold.groups.fill([Sample::default(); RESOURCES]);
        }
        fold
    }

    /// Rows that are ready.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if none are.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows, now that no more records follow.
    pub fn finish(mut self, machine: Option<&Machine>) -> Vec<Row> {
        if let Some(machine) = machine
            && self.step.is_some()
        {
            self.flush(machine);
        }
        self.rows
    }

    /// Makes room for what the machine has.
    fn fit(&mut self, machine: &Machine) {
        self.books.resize(machine.books().len(), Sample::default());
        self.groups.resize(machine.swarm().groups().len(), [Sample::default(); RESOURCES]);
        if self.known.is_empty() {
            let instances = machine.genesis().instances_max.get();
            self.known = (0..instances).map(|at| known(machine, at)).collect();
            self.spans = vec![[Span::default(); RESOURCES]; instances as usize];
        }
    }

    /// Takes in what the machine's last record did.
    pub fn take(&mut self, machine: &Machine, record: &Record<'_>, outbox: &Outbox) {
        self.fit(machine);
        let step = record.time_ns - record.time_ns % self.width_ns;
        if self.step.is_some_and(|before| before != step) {
            self.flush(machine);
        }
        (self.step, self.until_ns) = (Some(step), record.time_ns);
        if record.kind == Tick::KIND {
            self.pass(machine);
        }
        for event in outbox.events() {
            self.event(machine, &event);
        }
        match record.kind {
            Usage::KIND => self.usage(machine, record),
            Deposit::KIND | Withdraw::KIND => self.deposit(record, outbox),
            Restart::KIND => self.ticked_ms = machine.ticked_ms(),
            // Most records, and no task is another after them.
            NewOrder::KIND | Cancel::KIND | Replace::KIND | MassCancel::KIND | Outcomes::KIND => {}
            _ => self.look(machine),
        }
    }

    fn flow(&mut self, whose: Whose) -> &mut Flow {
        self.flows.entry(whose).or_default()
    }

    /// An instance's own, in one of its books.
    fn of_instance(&self, machine: &Machine, instance: u32, resource: u8) -> Whose {
        match self.known.get(instance as usize).copied().flatten() {
            Some(row) => (row.account.into(), instance, book_of(machine, row.tier, resource)),
            None => (ANY, instance, ANY_BOOK),
        }
    }

    // ---- money ---------------------------------------------------------------------------

    fn event(&mut self, machine: &Machine, event: &Event<'_>) {
        if let Some(trade) = trade(event) {
            self.trade(machine, &trade);
        } else if let Some(m) = event.read::<LeaseMoved>() {
            self.lease(machine, m);
        } else if let Some(m) = event.read::<RentEarned>() {
            let whose = (m.account.get().into(), m.instance.get(), m.book.get());
            self.flow(whose).rent_earned += m.micro.get();
        } else if let Some(m) = event.read::<TaskEnded>() {
            self.task_ended(machine, m);
        } else if let Some(m) = event.read::<InstanceCreated>() {
            self.known[m.instance.get() as usize] = known(machine, m.instance.get());
        } else if let Some(m) = event.read::<InstanceRemoved>() {
            // Its number may be given away within the step.
            self.settle(machine, m.instance.get());
        }
    }

    fn trade(&mut self, machine: &Machine, trade: &Trade) {
        let Trade { quantity, price, book, sign, .. } = *trade;
        let Some(row) = machine.books().get(usize::from(book)) else { return };
        let notional = price * row.tick_micro * u64::from(quantity.get());
        let (notional, credits) = (sign * notional as i64, sign * i64::from(quantity.get()));
        let fees = trade.fees.map(|fee| sign * fee.get() as i64);
        let whose = |(account, instance): (U16, U16)| (account.into(), instance.into(), book);
        let seller = self.flow(whose(trade.seller));
        seller.sold = seller.sold.saturating_add(notional);
        seller.fees = seller.fees.saturating_add(fees[0]);
        seller.sold_credits += credits;
        let buyer = self.flow(whose(trade.buyer));
        buyer.bought = buyer.bought.saturating_add(notional);
        buyer.fees = buyer.fees.saturating_add(fees[1]);
        buyer.bought_credits += credits;
        let sample = &mut self.books[usize::from(book)];
        sample.notional = sample.notional.saturating_add(notional);
        sample.volume += credits;
        sample.trades += sign;
        if sign > 0 {
            sample.price(price);
        }
    }

    /// What a lease paid since it was looked at last.
    fn lease(&mut self, machine: &Machine, m: &LeaseMoved) {
        let (handle, paid) = (m.handle.get(), m.paid_micro.get());
        let is_end = LeaseOutcome::from_u8(m.outcome).is_some_and(LeaseOutcome::is_end);
        let before = match is_end {
            true => self.leases.remove(&handle),
            false => self.leases.insert(handle, paid),
        };
        self.rent(machine, m.instance.get(), m.book.get(), paid - before.unwrap_or(0));
    }

    fn rent(&mut self, machine: &Machine, instance: u32, book: u16, paid: u64) {
        if paid > 0 {
            let resource = machine.books()[usize::from(book)].resource;
            let whose = self.of_instance(machine, instance, resource as u8);
            self.flow(whose).rent_paid += paid;
        }
    }

    fn deposit(&mut self, record: &Record<'_>, outbox: &Outbox) {
        if !outbox.events().any(|event| event.kind == Done::KIND) {
            return;
        }
        let (_, body) = split::<Arrival>(record.body);
        // Deposit and withdrawal have one layout.
        let Ok(m) = Deposit::ref_from_bytes(body) else { return };
        let flow = self.flow((m.account.get(), ANY, ANY_BOOK));
        let sum =
            if record.kind == Deposit::KIND { &mut flow.deposited } else { &mut flow.withdrawn };
        *sum = sum.saturating_add(m.amount_micro.get());
    }

    fn usage(&mut self, machine: &Machine, record: &Record<'_>) {
        let (_, body) = split::<Arrival>(record.body);
        let Ok(m) = Usage::ref_from_bytes(body) else { return };
        if machine.instance(m.instance.get()).is_none() {
            return;
        }
        let whose = self.of_instance(machine, m.instance.get(), m.resource);
        let used = m.used_millicredits.get();
        let flow = self.flow(whose);
        flow.used = flow.used.saturating_add(used);
        if let Some(sample) = self.books.get_mut(usize::from(whose.2)) {
            sample.used = sample.used.saturating_add(used);
        }
    }

    // ---- time ----------------------------------------------------------------------------

    /// A tick: what was there since the last one counts for so long.
    fn pass(&mut self, machine: &Machine) {
        let now_ms = machine.ticked_ms();
        let elapsed_ms = if self.ticked_ms == 0 { 0 } else { now_ms - self.ticked_ms };
        self.ticked_ms = now_ms;
        for (instance, spans) in (0_u32..).zip(&mut self.spans) {
            let Some(row) = machine.instance(instance) else { continue };
            for (&resource, span) in Resource::ALL.iter().zip(spans) {
                let holding = machine.holding(instance as u16, resource);
                span.reserved += u64::from(row.baseline_vru[resource as usize]) * elapsed_ms;
                span.leased += u64::from(holding.granted) * elapsed_ms;
                span.lent += u64::from(holding.lent) * elapsed_ms;
            }
        }
        let rentals = &machine.rentals().books;
        for ((sample, book), rental) in self.books.iter_mut().zip(machine.books()).zip(rentals) {
            let over = |sum: &mut u64, vru: u64| {
                *sum = sum.saturating_add(vru.saturating_mul(elapsed_ms));
            };
            over(&mut sample.capacity, book.capacity_vru);
            over(&mut sample.reserved, book.reserved_vru);
            over(&mut sample.granted, rental.granted);
            over(&mut sample.lent, rental.lent);
        }
        for seen in self.tasks.iter_mut().flatten() {
            seen.pass(elapsed_ms, &mut self.groups);
        }
        for (group, samples) in (0_u16..).zip(&mut self.groups) {
            for (resource, sample) in samples.iter_mut().enumerate() {
                if machine.swarm().groups()[usize::from(group)].base_micro[resource] > 0 {
                    sample.capacity += machine.load(group, resource).1 * elapsed_ms;
                }
            }
        }
        if now_ms - self.looked_ms >= LOOK_MS {
            self.look_at_prices(machine);
        }
    }

    /// What the groups' next VRUs cost.
    fn look_at_prices(&mut self, machine: &Machine) {
        self.looked_ms = machine.ticked_ms();
        for (group, samples) in (0_u16..).zip(&mut self.groups) {
            for (resource, sample) in samples.iter_mut().enumerate() {
                if let Some(price) = machine.next_vru_price(group, resource) {
                    sample.price(price);
                }
            }
        }
    }

    // ---- tasks ---------------------------------------------------------------------------

    /// Looks at every task: what it paid since the last look, and what it is now.
    fn look(&mut self, machine: &Machine) {
        let rows = machine.swarm().rows();
        self.tasks.resize(self.tasks.len().max(rows.len()), None);
        for (slot, task) in rows.iter().enumerate().filter(|(_, task)| task.is_live()) {
            let seen = self.tasks[slot].filter(|seen| seen.task.generation == task.generation);
            let mut seen = seen.unwrap_or_else(|| Seen::first(task));
            self.charge(machine, &mut seen, task.bid_micro - task.held_micro);
            seen.task = *task;
            if task.instance != crate::machine::task::NONE {
                seen.instance = task.instance.into();
            }
            self.tasks[slot] = Some(seen);
        }
    }

    /// A task has paid so much in all.
    fn charge(&mut self, machine: &Machine, seen: &mut Seen, paid_micro: u64) {
        let cost = paid_micro - (seen.task.bid_micro - seen.task.held_micro);
        if cost == 0 {
            return;
        }
        seen.paid_now += cost;
        seen.inefficient_micro += if seen.task.is_inefficient() { cost } else { 0 };
        let (payer, group) = (seen.task.account, usize::from(seen.task.group));
        let (_, instance, book) = self.of_instance(machine, seen.instance, seen.task.resource);
        self.flow((payer.into(), instance, book)).task_cost += cost;
        let earner = machine.swarm().groups()[group].account;
        self.flow((earner.into(), instance, book)).task_revenue += cost;
        let sample = &mut self.groups[group][usize::from(seen.task.resource)];
        sample.notional = sample.notional.saturating_add(cost as i64);
    }

    fn task_ended(&mut self, machine: &Machine, m: &TaskEnded) {
        let handle = m.handle.get();
        let known = self.tasks.get_mut(handle as u32 as usize).and_then(Option::take);
        let Some(mut seen) = known.filter(|seen| seen.handle(handle as u32) == handle) else {
            return;
        };
        self.charge(machine, &mut seen, m.paid_micro.get());
        let step_ns = self.step.unwrap_or(0);
        let row = ReportTaskRow {
            ended_ns: m.time_ns,
            reason: m.reason,
            ..seen.row(step_ns, handle as u32)
        };
        let finished = m.reason == TaskEnd::Finished as u8;
        let progress_permille = if finished { 1000.into() } else { row.progress_permille };
        let row = ReportTaskRow { progress_permille, ..row };
        self.rows.push(Row::Task(row));
    }

    // ---- rows ----------------------------------------------------------------------------

    /// What an instance had over time becomes its account's flow.
    fn settle(&mut self, machine: &Machine, instance: u32) {
        let spans = std::mem::take(&mut self.spans[instance as usize]);
        for (&resource, span) in Resource::ALL.iter().zip(spans) {
            if span.reserved > 0 || span.leased > 0 {
                let whose = self.of_instance(machine, instance, resource as u8);
                let sum = &mut self.flow(whose).span;
                sum.reserved += span.reserved;
                sum.leased += span.leased;
                sum.lent += span.lent;
            }
        }
    }

    /// The step is over: rows of all that it was, and sums of the next begin at zero.
    fn flush(&mut self, machine: &Machine) {
        let step_ns = self.step.unwrap_or(0);
        for slot in machine.live_leases() {
            let lease = &machine.rentals().leases[slot as usize];
            let paid = lease.paid_micro;
            let before = self.leases.insert(machine.rentals().handle(slot), paid).unwrap_or(0);
            self.rent(machine, lease.instance.into(), lease.book, paid - before);
        }
        (0..self.spans.len() as u32).for_each(|instance| self.settle(machine, instance));
        self.look_at_prices(machine);
        let flows = bounded(std::mem::take(&mut self.flows));
        let nameless = [0; NAME_BYTES];
        let known = &self.known;
        let name = |instance: u32| {
            known.get(instance as usize).copied().flatten().map_or(nameless, |row| row.name)
        };
        let flows = flows.iter().map(|(whose, flow)| flow.row(step_ns, *whose, name(whose.1)));
        self.rows.extend(flows.map(Row::Flow));
        self.flush_samples(machine, step_ns);
        for (slot, seen) in (0_u32..).zip(&mut self.tasks) {
            let Some(seen) = seen else { continue };
            if seen.granted > 0 || seen.paid_now > 0 || seen.fresh {
                self.rows.push(Row::Task(seen.row(step_ns, slot)));
                seen.begin();
            }
        }
    }

    fn flush_samples(&mut self, machine: &Machine, step_ns: u64) {
        let until_ns = self.until_ns;
        let blank = ReportSampleRow {
            step_ns: step_ns.into(),
            until_ns: until_ns.into(),
            book: ANY_BOOK.into(),
            group: NO_GROUP.into(),
            ..ReportSampleRow::zeroed()
        };
        let rentals = &machine.rentals().books;
        for (at, (sample, row)) in self.books.iter_mut().zip(machine.books()).enumerate() {
            let sample = std::mem::take(sample);
            if row.capacity_vru == 0 && sample.trades == 0 && sample.capacity == 0 {
                continue;
            }
            let rent_ticks = rentals[at].meters.map(|meter| meter.rent.into());
            let (book, resource) = ((at as u16).into(), row.resource as u8);
            let head = ReportSampleRow { rent_ticks, book, resource, ..blank };
            self.rows.push(Row::Sample(sample.row(&head)));
        }
        for (group, samples) in (0_u16..).zip(&mut self.groups) {
            let offered = machine.swarm().groups()[usize::from(group)].base_micro;
            for (resource, sample) in (0_u8..).zip(samples) {
                // The rest is of the next step.
                let rest = Sample { used: sample.used % 1000, ..Sample::default() };
                let mut sample = std::mem::replace(sample, rest);
                sample.used /= 1000;
                if offered[usize::from(resource)] > 0 || sample.notional > 0 {
                    let head = ReportSampleRow { group: group.into(), resource, ..blank };
                    self.rows.push(Row::Sample(sample.row(&head)));
                }
            }
        }
    }
}

/// The flows of accounts alone, where there are too many.
fn bounded(flows: BTreeMap<Whose, Flow>) -> BTreeMap<Whose, Flow> {
    if flows.len() <= FLOWS_MAX {
        return flows;
    }
    let mut sums = BTreeMap::<Whose, Flow>::new();
    for ((account, _, _), flow) in flows {
        sums.entry((account, ANY, ANY_BOOK)).or_default().add(&flow);
    }
    sums
}

impl Flow {
    fn add(&mut self, other: &Flow) {
        self.deposited = self.deposited.saturating_add(other.deposited);
        self.withdrawn = self.withdrawn.saturating_add(other.withdrawn);
        self.sold = self.sold.saturating_add(other.sold);
        self.bought = self.bought.saturating_add(other.bought);
        self.fees = self.fees.saturating_add(other.fees);
        self.rent_paid = self.rent_paid.saturating_add(other.rent_paid);
        self.rent_earned = self.rent_earned.saturating_add(other.rent_earned);
        self.task_cost = self.task_cost.saturating_add(other.task_cost);
        self.task_revenue = self.task_revenue.saturating_add(other.task_revenue);
        self.sold_credits = self.sold_credits.saturating_add(other.sold_credits);
        self.bought_credits = self.bought_credits.saturating_add(other.bought_credits);
        self.span.reserved = self.span.reserved.saturating_add(other.span.reserved);
        self.span.leased = self.span.leased.saturating_add(other.span.leased);
        self.span.lent = self.span.lent.saturating_add(other.span.lent);
        self.used = self.used.saturating_add(other.used);
    }

    fn row(
        &self,
        step_ns: u64,
        (account, instance, book): Whose,
        name: [u8; NAME_BYTES],
    ) -> ReportFlowRow {
        let signed = |amount: i64| U64::new(amount as u64);
        ReportFlowRow {
            step_ns: step_ns.into(),
            deposited_micro: self.deposited.into(),
            withdrawn_micro: self.withdrawn.into(),
            sold_micro: signed(self.sold),
            bought_micro: signed(self.bought),
            fee_micro: signed(self.fees),
            rent_paid_micro: self.rent_paid.into(),
            rent_earned_micro: self.rent_earned.into(),
            task_cost_micro: self.task_cost.into(),
            task_revenue_micro: self.task_revenue.into(),
            sold_credits: signed(self.sold_credits),
            bought_credits: signed(self.bought_credits),
            reserved_vru_ms: self.span.reserved.into(),
            leased_vru_ms: self.span.leased.into(),
            lent_vru_ms: self.span.lent.into(),
            used_vru_ms: self.used.into(),
            account: account.into(),
            instance: instance.into(),
            book: book.into(),
            reserved: [0; 6],
            name,
        }
    }
}

impl Sample {
    fn row(&self, head: &ReportSampleRow) -> ReportSampleRow {
        let [open, high, low, close] = self.prices.map(U64::new);
        ReportSampleRow {
            open,
            high,
            low,
            close,
            trades: (self.trades as u64).into(),
            volume_credits: (self.volume as u64).into(),
            notional_micro: (self.notional as u64).into(),
            capacity_vru_ms: self.capacity.into(),
            reserved_vru_ms: self.reserved.into(),
            granted_vru_ms: self.granted.into(),
            lent_vru_ms: self.lent.into(),
            used_vru_ms: self.used.into(),
            ..*head
        }
    }
}

impl Seen {
    /// A task that was not there before, before it paid.
    fn first(task: &Task) -> Seen {
        Seen {
            task: Task { held_micro: task.bid_micro, ..*task },
            instance: ANY,
            paid_now: 0,
            granted: 0,
            reported: 0,
            used_milli: 0,
            inefficient_ms: 0,
            inefficient_micro: 0,
            fresh: true,
        }
    }

    /// The next step begins.
    fn begin(&mut self) {
        let Seen { task, instance, used_milli, .. } = *self;
        // The rest is of the next step.
        let used_milli = used_milli % 1000;
        *self = Seen { instance, used_milli, fresh: false, ..Seen::first(&task) };
        self.task = task;
    }

    fn handle(&self, slot: u32) -> u64 {
        u64::from(slot) | u64::from(self.task.generation) << 32
    }

    /// What it had counts for so long.
    fn pass(&mut self, elapsed_ms: u64, groups: &mut [[Sample; RESOURCES]]) {
        let granted = u64::from(self.task.vru) * elapsed_ms;
        self.granted += granted;
        let sample = &mut groups[usize::from(self.task.group)][usize::from(self.task.resource)];
        sample.granted += granted;
        if let Some(used) = self.task.used().filter(|_| self.task.vru > 0) {
            self.reported += granted;
            self.used_milli += u128::from(used) * u128::from(elapsed_ms);
            sample.used += u64::from(used) * elapsed_ms;
            self.inefficient_ms += if self.task.is_inefficient() { elapsed_ms } else { 0 };
        }
    }

    fn row(&self, step_ns: u64, slot: u32) -> ReportTaskRow {
        let task = &self.task;
        ReportTaskRow {
            step_ns: step_ns.into(),
            number: task.number.into(),
            handle: self.handle(slot).into(),
            submitted_ns: (task.submitted_ms * 1_000_000).into(),
            bid_micro: task.bid_micro.into(),
            paid_micro: self.paid_now.into(),
            rate_micro: task.rate_micro.into(),
            margin_micro: (task.margin().shown() as u64).into(),
            granted_vru_ms: self.granted.into(),
            reported_vru_ms: self.reported.into(),
            used_vru_ms: u64::try_from(self.used_milli / 1000).unwrap_or(u64::MAX).into(),
            inefficient_ms: self.inefficient_ms.into(),
            inefficient_micro: self.inefficient_micro.into(),
            duration_ms: task.duration_ms.into(),
            vru: task.vru.into(),
            vru_max: task.vru_max.into(),
            account: u32::from(task.account).into(),
            instance: self.instance.into(),
            group: task.group.into(),
            progress_permille: task.progress_permille.into(),
            resource: task.resource,
            reason: GOES_ON,
            name: task.name,
            ..ReportTaskRow::zeroed()
        }
    }
}

fn known(machine: &Machine, instance: u32) -> Option<Known> {
    let row = machine.instance(instance)?;
    Some(Known { account: row.account, tier: row.tier, name: row.name })
}

/// A trade, or one that was reversed.
fn trade(event: &Event<'_>) -> Option<Trade> {
    if let Some(fill) = event.read::<Fill>() {
        let maker = ((fill.maker_account, fill.maker), fill.maker_fee_micro);
        let taker = ((fill.taker_account, fill.taker), fill.taker_fee_micro);
        let bought = fill.taker_side() == Side::Buy;
        let (seller, buyer) = if bought { (maker, taker) } else { (taker, maker) };
        return Some(Trade {
            seller: seller.0,
            buyer: buyer.0,
            fees: [seller.1, buyer.1],
            price: fill.price_ticks.get().into(),
            quantity: fill.quantity,
            book: fill.book(),
            sign: 1,
        });
    }
    if let Some(m) = event.read::<AuctionTrade>() {
        return Some(Trade {
            seller: (m.seller_account, m.seller),
            buyer: (m.buyer_account, m.buyer),
            fees: [m.seller_fee_micro, m.buyer_fee_micro],
            price: m.price_ticks.get().into(),
            quantity: m.quantity,
            book: m.book.get(),
            sign: 1,
        });
    }
    let m = event.read::<TradeReversed>()?;
    Some(Trade {
        seller: (m.seller_account, m.seller),
        buyer: (m.buyer_account, m.buyer),
        fees: [m.seller_fee_micro, m.buyer_fee_micro],
        price: m.price_ticks.get().into(),
        quantity: m.quantity,
        book: m.book.get(),
        sign: -1,
    })
}
