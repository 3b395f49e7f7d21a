//! What the daemon has said so far: pages of rows come in, whole tables are kept.

use super::history::{History, Sample};
use crate::cli::names::{name_or_number, resource};
use crate::cli::table::printable;
use hvctl::json::{narrow, wide};
use std::collections::BTreeMap;
use vendue_wire::message::*;

/// Most rows kept of a kind: more than any daemon's bounds.
const ROWS_MAX: usize = 1 << 16;
/// Most instances whose samples are kept.
const HISTORIES_MAX: usize = 4096;

/// Consecutive rows of a query's answer: all there are with keys from `from` on and below `next`, or
/// all that follow.
#[derive(Clone, Debug)]
pub struct Stretch<Row> {
    /// Key from which on rows were asked for.
    pub from: u64,
    /// Key from which on there are more.
    pub next: Option<u64>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A part of an answer.
#[derive(Clone, Debug)]
pub enum Page {
    /// How the daemon is.
    Status(StatusRow, Vec<FaultRow>),
    /// All tiers.
    Tiers(Vec<TierRow>),
    /// Some accounts.
    Accounts(Stretch<AccountRow>),
    /// Some books.
    Books(Stretch<BookRow>),
    /// What some books' markets come to.
    Markets(Stretch<MarketRow>),
    /// What leases of some books cost.
    Rents(Stretch<RentRow>),
    /// The depth of a book.
    Depth(DepthRow),
    /// Some instances.
    Instances(Stretch<InstanceRow>),
    /// How some instances fare.
    Sensors(Stretch<SensorRow>),
    /// The limits of some instances.
    Limits(Stretch<LimitRow>),
    /// Some leases.
    Leases(Stretch<LeaseRow>),
    /// Some objectives.
    Objectives(Stretch<ObjectiveRow>),
    /// Some tasks.
    Tasks(Stretch<TaskRow>),
    /// Some groups.
    Groups(Stretch<GroupRow>),
    /// Open orders of an instance.
    Orders(u32, Vec<OrderRow>),
}

/// A row that has a place among those of its kind.
pub trait Keyed {
    /// What pages are counted by.
    fn key(&self) -> u64;
}

macro_rules! keyed {
    ($($row:ty: $field:ident,)+) => {
        $(impl Keyed for $row {
            fn key(&self) -> u64 {
                u64::from(self.$field.get())
            }
        })+
    };
}

keyed! {
    AccountRow: account, BookRow: book, MarketRow: book, RentRow: book, InstanceRow: instance,
    SensorRow: instance, LimitRow: instance, ObjectiveRow: number, GroupRow: group,
}

/// Their handles hold the slot in the low half.
impl Keyed for LeaseRow {
    fn key(&self) -> u64 {
        self.handle.get() & u64::from(u32::MAX)
    }
}

impl Keyed for TaskRow {
    fn key(&self) -> u64 {
        self.handle.get() & u64::from(u32::MAX)
    }
}

/// The rows of a kind by key.
#[derive(Clone, Debug)]
pub struct Rows<Row>(BTreeMap<u64, Row>);

impl<Row> Default for Rows<Row> {
    fn default() -> Rows<Row> {
        Rows(BTreeMap::new())
    }
}

impl<Row> Rows<Row> {
    /// The row with this key.
    pub fn get(&self, key: impl Into<u64>) -> Option<&Row> {
        self.0.get(&key.into())
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts rows in the place of all that were known between two keys.
    fn replace(&mut self, from: u64, next: Option<u64>, rows: impl Iterator<Item = (u64, Row)>) {
        let end = next.unwrap_or(u64::MAX).max(from);
        self.0.extract_if(from..end, |_, _| true).for_each(drop);
        for (key, row) in rows {
            if self.0.len() < ROWS_MAX {
                self.0.insert(key, row);
            }
        }
    }
}

impl<Row: Keyed> Rows<Row> {
    fn learn(&mut self, stretch: Stretch<Row>) {
        let rows = stretch.rows.into_iter().map(|row| (row.key(), row));
        self.replace(stretch.from, stretch.next, rows);
    }
}

/// All that is known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// How the daemon is.
    pub status: Option<StatusRow>,
    /// What is wrong with it.
    pub faults: Vec<FaultRow>,
    /// Tiers, a row for each resource.
    pub tiers: Vec<TierRow>,
    /// Accounts.
    pub accounts: Rows<AccountRow>,
    /// Books.
    pub books: Rows<BookRow>,
    /// What the books' markets come to.
    pub markets: Rows<MarketRow>,
    /// What leases cost, by book.
    pub rents: Rows<RentRow>,
    /// The depth of the book that was asked for last.
    pub depth: Option<DepthRow>,
    /// Instances.
    pub instances: Rows<InstanceRow>,
    /// How instances fare.
    pub sensors: Rows<SensorRow>,
    /// Limits by instance.
    pub limits: Rows<Vec<LimitRow>>,
    /// Leases by slot.
    pub leases: Rows<LeaseRow>,
    /// Objectives by slot.
    pub objectives: Rows<ObjectiveRow>,
    /// Tasks by slot.
    pub tasks: Rows<TaskRow>,
    /// Groups.
    pub groups: Rows<GroupRow>,
    /// The instance whose orders were asked for last, and these.
    pub orders: (u32, Vec<OrderRow>),
    histories: BTreeMap<u32, History>,
}

impl Known {
    /// Takes in a part of an answer.
    pub fn learn(&mut self, page: Page) {
        match page {
            Page::Status(status, faults) => (self.status, self.faults) = (Some(status), faults),
            Page::Tiers(rows) => self.tiers = rows,
            Page::Accounts(rows) => self.accounts.learn(rows),
            Page::Books(rows) => self.books.learn(rows),
            Page::Markets(rows) => self.markets.learn(rows),
            Page::Rents(rows) => self.rents.learn(rows),
            Page::Depth(row) => self.depth = Some(row),
            Page::Instances(rows) => self.instances.learn(rows),
            Page::Sensors(rows) => self.learn_sensors(rows),
            Page::Limits(rows) => self.learn_limits(rows),
            Page::Leases(rows) => self.leases.learn(rows),
            Page::Objectives(rows) => self.objectives.learn(rows),
            Page::Tasks(rows) => self.tasks.learn(rows),
            Page::Groups(rows) => self.groups.learn(rows),
            Page::Orders(instance, rows) => self.orders = (instance, rows),
        }
    }

    fn learn_sensors(&mut self, stretch: Stretch<SensorRow>) {
        for row in &stretch.rows {
            let number = row.instance.get();
            if self.histories.len() < HISTORIES_MAX || self.histories.contains_key(&number) {
                self.histories.entry(number).or_default().add(row.time_ns.get(), sample(row));
            }
        }
        self.sensors.learn(stretch);
        let instances = &self.instances;
        self.histories.retain(|&number, _| instances.get(number).is_some());
    }

    /// Limits of instances only: those of tiers and accounts are not theirs to be told of.
    fn learn_limits(&mut self, stretch: Stretch<LimitRow>) {
        let mut by_instance = BTreeMap::<u64, Vec<LimitRow>>::new();
        for row in stretch.rows {
            if row.of_account == 0 && row.instance.get() < TIER_BIT {
                by_instance.entry(row.key()).or_default().push(row);
            }
        }
        self.limits.replace(stretch.from, stretch.next, by_instance.into_iter());
    }

    /// An instance's last samples.
    pub fn history(&self, instance: u32) -> Option<&History> {
        self.histories.get(&instance)
    }

    /// An account's name, or its number.
    pub fn account(&self, number: u32) -> String {
        named(self.accounts.get(number).map(|row| &row.name), number)
    }

    /// An instance's name, or its number, or `-` for none.
    pub fn instance(&self, number: u32) -> String {
        named(self.instances.get(number).map(|row| &row.name), number)
    }

    /// A tier's name, or its number.
    pub fn tier(&self, number: u16) -> String {
        let found = self.tiers.iter().find(|row| row.tier.get() == number);
        named(found.map(|row| &row.name), number.into())
    }

    /// A group's name, or its number.
    pub fn group(&self, number: u16) -> String {
        named(self.groups.get(number).map(|row| &row.name), number.into())
    }

    /// `tier/resource` of a book, or its number.
    pub fn book(&self, number: u16) -> String {
        match self.books.get(number) {
            Some(row) => format!("{}/{}", printable(text(&row.tier_name)), resource(row.resource)),
            None => number.to_string(),
        }
    }

    /// Size of a tier's VRU of a resource, in the resource's unit.
    pub fn vru_size(&self, tier: u16, resource: u8) -> Option<u64> {
        let found =
            self.tiers.iter().find(|row| row.tier.get() == tier && row.resource == resource);
        found.map(|row| row.vru_size.get())
    }

    /// What a lease costs now, micro-units a second.
    pub fn cost_micro(&self, lease: &LeaseRow) -> Option<u64> {
        let rents = self.rents.get(lease.book.get())?;
        let rent_ticks = rents.rent_ticks.get(usize::from(lease.class))?.get();
        let tick_micro = self.books.get(lease.book.get())?.tick_micro.get();
        let vru = u64::from(lease.granted_vru.get());
        Some(vru.saturating_mul(rent_ticks.into()).saturating_mul(tick_micro))
    }
}

fn sample(row: &SensorRow) -> Sample {
    let mib = |bytes: u64| u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    let waited = [row.cpu_wait_permille, row.memory_some_permille, row.io_some_permille];
    Sample {
        cpu_millicores: narrow(row.cpu_millicores),
        memory_mib: wide(row.memory_bytes).map(mib),
        waited_permille: waited.map(narrow),
    }
}

fn named(name: Option<&[u8; NAME_BYTES]>, number: u32) -> String {
    printable(&name_or_number(name, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(from: u64, next: Option<u64>, numbers: &[u32]) -> Page {
        let row = |&number: &u32| InstanceRow { instance: number.into(), ..InstanceRow::zeroed() };
        Page::Instances(Stretch { from, next, rows: numbers.iter().map(row).collect() })
    }

    fn numbers(known: &Known) -> Vec<u32> {
        known.instances.iter().map(|row| row.instance.get()).collect()
    }

    #[test]
    fn a_page_replaces_what_was_known_of_its_stretch_and_nothing_else() {
        let mut known = Known::default();
        known.learn(instances(0, Some(5), &[0, 1, 4]));
        known.learn(instances(5, None, &[5, 9]));
        assert_eq!(numbers(&known), [0, 1, 4, 5, 9]);
        // 1 is gone; what lies beyond the page is as it was.
        known.learn(instances(0, Some(5), &[0, 4]));
        assert_eq!(numbers(&known), [0, 4, 5, 9]);
        known.learn(instances(4, None, &[4]));
        assert_eq!(numbers(&known), [0, 4]);
        known.learn(instances(0, None, &[]));
        assert_eq!(known.instances.len(), 0);
    }

    #[test]
    fn limits_go_by_instance_and_those_of_tiers_and_accounts_are_left_out() {
        let row = |instance: u32, of_account, file| LimitRow {
            instance: instance.into(),
            of_account,
            file: field(file).unwrap(),
            ..LimitRow::zeroed()
        };
        let rows = vec![
            row(3, 0, "cpu.max"),
            row(3, 0, "cpu.weight"),
            row(4, 0, "cpu.max"),
            row(3, 1, "cpu.max"),
            row(TIER_BIT, 0, "cpu.max"),
        ];
        let mut known = Known::default();
        known.learn(Page::Limits(Stretch { from: 0, next: None, rows }));
        let count = |number: u32| known.limits.get(number).map(Vec::len);
        assert_eq!((count(3), count(4), known.limits.len()), (Some(2), Some(1), 2));
    }

    #[test]
    fn samples_are_kept_while_their_instance_lives() {
        let mut known = Known::default();
        let sensors = |time_ns: u64| {
            let row = SensorRow {
                instance: 7.into(),
                time_ns: time_ns.into(),
                cpu_millicores: 250.into(),
                memory_some_permille: u32::MAX.into(),
                ..SensorRow::zeroed()
            };
            Page::Sensors(Stretch { from: 0, next: None, rows: vec![row] })
        };
        known.learn(instances(0, None, &[7]));
        known.learn(sensors(1));
        known.learn(sensors(1));
        known.learn(sensors(2));
        let history = known.history(7).expect("samples");
        assert_eq!(history.series(|sample| sample.cpu_millicores), [Some(250), Some(250)]);
        assert_eq!(history.series(|sample| sample.waited_permille[1]), [None, None]);
        known.learn(instances(0, None, &[]));
        known.learn(Page::Sensors(Stretch { from: 0, next: None, rows: vec![] }));
        assert!(known.history(7).is_none());
    }
}
