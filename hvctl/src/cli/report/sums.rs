//! The daemon's rows added up.

use std::collections::BTreeMap;
use vendue_wire::message::*;

/// Tasks that are kept one by one; of the rest, only how many and what they cost.
const TASKS_MAX: usize = 10_000;

/// What is added up of a [`ReportFlowRow`].
pub const FLOWS: usize = 15;
/// Places in [`Flow`], in the order of the row.
pub const DEPOSITED: usize = 0;
pub const WITHDRAWN: usize = 1;
pub const SOLD: usize = 2;
pub const BOUGHT: usize = 3;
pub const FEES: usize = 4;
pub const RENT_PAID: usize = 5;
pub const RENT_EARNED: usize = 6;
pub const TASK_COST: usize = 7;
pub const TASK_REVENUE: usize = 8;
pub const SOLD_CREDITS: usize = 9;
pub const BOUGHT_CREDITS: usize = 10;
pub const RESERVED: usize = 11;
pub const LEASED: usize = 12;
pub const LENT: usize = 13;
pub const USED: usize = 14;

/// What somebody paid, earned and used: micro-units, credits and VRU-milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow(pub [i128; FLOWS]);

impl Flow {
    fn of(row: &ReportFlowRow) -> Flow {
        let signed = |amount: U64| i128::from(amount.get() as i64);
        let whole = |amount: U64| i128::from(amount.get());
        Flow([
            whole(row.deposited_micro),
            whole(row.withdrawn_micro),
            signed(row.sold_micro),
            signed(row.bought_micro),
            signed(row.fee_micro),
            whole(row.rent_paid_micro),
            whole(row.rent_earned_micro),
            whole(row.task_cost_micro),
            whole(row.task_revenue_micro),
            signed(row.sold_credits),
            signed(row.bought_credits),
            whole(row.reserved_vru_ms),
            whole(row.leased_vru_ms),
            whole(row.lent_vru_ms),
            whole(row.used_vru_ms),
        ])
    }

    /// Adds another.
    pub fn add(&mut self, other: &Flow) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, amount)| *sum += amount);
    }

    /// What was earned.
    pub fn revenue(&self) -> i128 {
        self.0[SOLD] + self.0[RENT_EARNED] + self.0[TASK_REVENUE]
    }

    /// What was paid.
    pub fn cost(&self) -> i128 {
        self.0[BOUGHT] + self.0[FEES] + self.0[RENT_PAID] + self.0[TASK_COST]
    }

    /// By how much the balance changed.
    pub fn change(&self) -> i128 {
        self.0[DEPOSITED] - self.0[WITHDRAWN] + self.revenue() - self.cost()
    }
}

/// Whose flow: account, instance, book, and the instance's name then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    /// Account.
    pub account: u32,
    /// Instance, or [`ANY`].
    pub instance: u32,
    /// Book, or [`ANY_BOOK`].
    pub book: u16,
    /// The instance's name.
    pub name: [u8; NAME_BYTES],
}

/// What is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// A book, and its resource.
    Book(u16, u8),
    /// A group's resource.
    Group(u16, u8),
}

/// A book or group in one step or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// First, highest, lowest and last price; 0: none.
    pub prices: [u64; 4],
    /// Trades.
    pub trades: i128,
    /// Credits.
    pub volume: i128,
    /// Micro-units.
    pub notional: i128,
    /// VRU-milliseconds there were.
    pub capacity: i128,
    /// Reserved.
    pub reserved: i128,
    /// Leased, or granted to tasks.
    pub granted: i128,
    /// Lent.
    pub lent: i128,
    /// Used.
    pub used: i128,
    /// Rent of each class at the end, ticks.
    pub rents: [u32; 3],
}

impl Sample {
    fn of(row: &ReportSampleRow) -> Sample {
        let signed = |amount: U64| i128::from(amount.get() as i64);
        let whole = |amount: U64| i128::from(amount.get());
        Sample {
            prices: [row.open, row.high, row.low, row.close].map(U64::get),
            trades: signed(row.trades),
            volume: signed(row.volume_credits),
            notional: signed(row.notional_micro),
            capacity: whole(row.capacity_vru_ms),
            reserved: whole(row.reserved_vru_ms),
            granted: whole(row.granted_vru_ms),
            lent: whole(row.lent_vru_ms),
            used: whole(row.used_vru_ms),
            rents: row.rent_ticks.map(U32::get),
        }
    }

    /// Adds what came later.
    pub fn add(&mut self, later: &Sample) {
        let [open, high, low, _] = self.prices;
        let [_, later_high, later_low, later_close] = later.prices;
        self.prices = match (open, later_close) {
            (0, _) => later.prices,
            (_, 0) => self.prices,
            _ => [open, high.max(later_high), low.min(later_low), later_close],
        };
        self.trades += later.trades;
        self.volume += later.volume;
        self.notional += later.notional;
        self.capacity += later.capacity;
        self.reserved += later.reserved;
        self.granted += later.granted;
        self.lent += later.lent;
        self.used += later.used;
        self.rents = later.rents;
    }
}

/// A task over the period.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// As it was last.
    pub last: ReportTaskRow,
    /// Micro-units it cost.
    pub paid: i128,
    /// VRU-milliseconds it had.
    pub granted: i128,
    /// Those for which it said what it used.
    pub reported: i128,
    /// VRU-milliseconds it used, as it said.
    pub used: i128,
    /// Milliseconds for which it used less than a quarter of what it had.
    pub inefficient_ms: i128,
    /// Micro-units it cost meanwhile.
    pub inefficient_micro: i128,
}

/// Everything, added up.
#[derive(Debug, Default)]
pub struct Sums {
    /// By whom.
    pub flows: BTreeMap<Whose, Flow>,
    /// Earned and paid by account and step.
    pub money: BTreeMap<(u32, u64), [i128; 2]>,
    /// By book or group and step.
    pub samples: BTreeMap<Of, BTreeMap<u64, Sample>>,
    /// By number.
    pub tasks: BTreeMap<u64, Task>,
    /// Rows of tasks that were not kept, and what they cost.
    pub left_out: (u64, i128),
}

impl Sums {
    /// Accounts that are reported on.
    pub fn accounts(&self) -> usize {
        let mut accounts: Vec<u32> = self.flows.keys().map(|whose| whose.account).collect();
        accounts.dedup();
        accounts.len()
    }

    /// Adds a row.
    pub fn flow(&mut self, row: &ReportFlowRow) {
        let flow = Flow::of(row);
        let (account, instance) = (row.account.get(), row.instance.get());
        let whose = Whose { account, instance, book: row.book.get(), name: row.name };
        self.flows.entry(whose).or_default().add(&flow);
        if flow.revenue() != 0 || flow.cost() != 0 {
            let money = self.money.entry((account, row.step_ns.get())).or_default();
            money[0] += flow.revenue();
            money[1] += flow.cost();
        }
    }

    /// Adds a row.
    pub fn sample(&mut self, row: &ReportSampleRow) {
        let of = match row.group.get() {
            u16::MAX => Of::Book(row.book.get(), row.resource),
            group => Of::Group(group, row.resource),
        };
        let steps = self.samples.entry(of).or_default();
        steps.entry(row.step_ns.get()).or_default().add(&Sample::of(row));
    }

    /// Adds a row.
    pub fn task(&mut self, row: &ReportTaskRow) {
        let full = self.tasks.len() >= TASKS_MAX;
        if full && !self.tasks.contains_key(&row.number.get()) {
            self.left_out.0 += 1;
            self.left_out.1 += i128::from(row.paid_micro.get());
            return;
        }
        let task = self.tasks.entry(row.number.get()).or_insert(Task {
            last: *row,
            paid: 0,
            granted: 0,
            reported: 0,
            used: 0,
            inefficient_ms: 0,
            inefficient_micro: 0,
        });
        task.last = *row;
        task.paid += i128::from(row.paid_micro.get());
        task.granted += i128::from(row.granted_vru_ms.get());
        task.reported += i128::from(row.reported_vru_ms.get());
        task.used += i128::from(row.used_vru_ms.get());
        task.inefficient_ms += i128::from(row.inefficient_ms.get());
        task.inefficient_micro += i128::from(row.inefficient_micro.get());
    }
}
