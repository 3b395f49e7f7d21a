//! The tables of a report. The page, the CSV files and the JSON object are all made of them, so that they
//! have the same numbers.

use super::super::amount::decimal;
use super::super::json::experiment::{compares, measure};
use super::super::names::{Directory, resource};
use super::super::time::rfc3339;
use super::Period;
use super::sums::{self, Flow, Of, Sample, Sums, Task};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use vendue_wire::code::{ExperimentEnd, TaskEnd};
use vendue_wire::message::*;

/// Decimals of funds in micro-units, and of VRU-seconds in VRU-milliseconds.
const FUNDS: u32 = 6;
const SECONDS: u32 = 3;
/// Of thousandths as percent.
const PERCENT: u32 = 1;

/// What stands in a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A name, a time, a word.
    Text(String),
    /// A number, in units of the column's last decimal.
    Number(i128),
    /// Nothing: it is not known, or there is none.
    Nothing,
}

impl From<i128> for Cell {
    fn from(number: i128) -> Cell {
        Cell::Number(number)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name for programs, with the unit of whole numbers.
    pub key: &'static str,
    /// Its heading.
    pub head: &'static str,
    /// Unit that is shown.
    pub unit: &'static str,
    /// Decimals that are shown.
    pub decimals: u32,
    /// True for words.
    pub left: bool,
}

const fn number(
    key: &'static str,
    head: &'static str,
    unit: &'static str,
    decimals: u32,
) -> Column {
    Column { key, head, unit, decimals, left: false }
}

const fn funds(key: &'static str, head: &'static str) -> Column {
    number(key, head, "funds", FUNDS)
}

const fn span(key: &'static str, head: &'static str) -> Column {
    number(key, head, "VRU·s", SECONDS)
}

const fn percent(key: &'static str, head: &'static str) -> Column {
    number(key, head, "%", PERCENT)
}

const fn word(key: &'static str, head: &'static str) -> Column {
    Column { key, head, unit: "", decimals: 0, left: true }
}

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Its name for programs.
    pub key: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What is to be known about it.
    pub note: String,
    /// Columns.
    pub columns: &'static [Column],
    /// Rows, with a cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// True if the page shows it; of histories it has plots.
    pub shown: bool,
}

impl Table {
    fn new(key: &'static str, title: &'static str, columns: &'static [Column]) -> Table {
        Table { key, title, note: String::new(), columns, rows: Vec::new(), shown: true }
    }

    fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    /// As CSV (RFC 4180), numbers whole.
    pub fn csv(&self) -> String {
        let keys: Vec<&str> = self.columns.iter().map(|column| column.key).collect();
        let mut out = keys.join(",") + "\r\n";
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(csv_cell).collect();
            out += &(cells.join(",") + "\r\n");
        }
        out
    }

    fn json(&self) -> Value {
        let object = |row: &Vec<Cell>| {
            let pairs = self.columns.iter().zip(row);
            let entries = pairs.map(|(column, cell)| (column.key.to_owned(), json_cell(cell)));
            Value::Object(entries.collect::<Map<_, _>>())
        };
        self.rows.iter().map(object).collect()
    }
}

fn csv_cell(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) if text.contains(['"', ',', '\r', '\n']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Cell::Text(text) => text.clone(),
        Cell::Number(number) => number.to_string(),
        Cell::Nothing => String::new(),
    }
}

/// Sums beyond 64 bits are text.
fn json_cell(cell: &Cell) -> Value {
    match cell {
        Cell::Text(text) => json!(text),
        Cell::Number(number) => match i64::try_from(*number) {
            Ok(number) => json!(number),
            Err(_) => json!(number.to_string()),
        },
        Cell::Nothing => Value::Null,
    }
}

/// A cell as people read it.
pub fn shown(cell: &Cell, column: &Column) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        Cell::Number(number) if column.decimals == 0 => number.to_string(),
        Cell::Number(number) => decimal(*number, column.decimals),
        Cell::Nothing => "-".to_owned(),
    }
}

/// All tables as one object.
pub fn json(period: &Period, dry_run: bool, tables: &[Table]) -> Value {
    let entries = tables.iter().map(|table| (table.key.to_owned(), table.json()));
    let mut object: Map<String, Value> = entries.collect();
    object.insert("from".to_owned(), json!(rfc3339(period.from_ns)));
    object.insert("to".to_owned(), json!(rfc3339(period.to_ns)));
    object.insert("step_s".to_owned(), json!(period.step_s));
    object.insert("dry_run".to_owned(), json!(dry_run));
    Value::Object(object)
}

/// Every table of a report.
pub fn all(
    sums: &Sums,
    names: &Directory,
    groups: &[GroupRow],
    trials: &[ExperimentRow],
) -> Vec<Table> {
    let naming = Naming { names, groups };
    vec![
        house(sums),
        accounts(sums, &naming),
        instances(sums, &naming),
        tiers(sums, &naming),
        swarms(sums, &naming),
        inefficient(sums, &naming),
        tasks(sums, &naming),
        experiments(trials),
        book_history(sums, &naming),
        swarm_history(sums, &naming),
        account_history(sums, &naming),
    ]
}

/// Names of what has numbers.
struct Naming<'a> {
    names: &'a Directory,
    groups: &'a [GroupRow],
}

impl Naming<'_> {
    fn account(&self, account: u32) -> Cell {
        self.names.account(account).into()
    }

    fn group(&self, group: u16) -> Cell {
        group_name(self.groups, group).into()
    }
}

/// A group's name, or its number.
pub fn group_name(groups: &[GroupRow], group: u16) -> String {
    let found = groups.iter().find(|row| row.group.get() == group);
    found.map_or_else(|| group.to_string(), |row| text(&row.name).to_owned())
}

/// Thousandths that a part is of the whole.
pub fn permille(part: i128, whole: i128) -> Option<i128> {
    (whole > 0).then(|| part * 1000 / whole)
}

fn maybe(number: Option<i128>) -> Cell {
    number.map_or(Cell::Nothing, Cell::Number)
}

fn house(sums: &Sums) -> Table {
    const COLUMNS: &[Column] = &[
        number("trades", "Trades", "", 0),
        funds("deposited_micro", "Deposited"),
        funds("withdrawn_micro", "Withdrawn"),
        funds("fee_micro", "Fees to the house"),
        funds("rent_micro", "Rents to the house"),
        number("tasks", "Tasks", "", 0),
        number("inefficient_tasks", "Inefficient", "", 0),
        funds("inefficient_micro", "Cost while inefficient"),
    ];
    let mut table = Table::new("house", "The house", COLUMNS);
    let mut all = Flow::default();
    sums.flows.values().for_each(|flow| all.add(flow));
    let books = sums.samples.iter().filter(|(of, _)| matches!(of, Of::Book(..)));
    let trades = books.flat_map(|(_, steps)| steps.values()).map(|sample| sample.trades).sum();
    let wasteful = || sums.tasks.values().filter(|task| task.inefficient_ms > 0);
    table.row(vec![
        Cell::Number(trades),
        all.0[sums::DEPOSITED].into(),
        all.0[sums::WITHDRAWN].into(),
        all.0[sums::FEES].into(),
        (all.0[sums::RENT_PAID] - all.0[sums::RENT_EARNED]).into(),
        (sums.tasks.len() as i128).into(),
        (wasteful().count() as i128).into(),
        wasteful().map(|task| task.inefficient_micro).sum::<i128>().into(),
    ]);
    table
}

fn accounts(sums: &Sums, naming: &Naming<'_>) -> Table {
    const COLUMNS: &[Column] = &[
        number("account", "Number", "", 0),
        word("name", "Account"),
        funds("sold_micro", "Sold"),
        funds("rent_earned_micro", "Lent for"),
        funds("task_revenue_micro", "Tasks earned"),
        funds("bought_micro", "Bought"),
        funds("fee_micro", "Fees"),
        funds("rent_paid_micro", "Rents"),
        funds("task_cost_micro", "Tasks cost"),
        funds("net_micro", "Net"),
        funds("deposited_micro", "Deposited"),
        funds("withdrawn_micro", "Withdrawn"),
        funds("change_micro", "Change of balance"),
        span("used_vru_ms", "Used"),
    ];
    let mut table = Table::new("accounts", "Accounts", COLUMNS);
    table.note =
        "Net is what was earned less what was paid; with deposits and withdrawals it is the \
                  change of the balance, what is held included."
            .to_owned();
    let mut accounts = BTreeMap::<u32, Flow>::new();
    for (whose, flow) in &sums.flows {
        accounts.entry(whose.account).or_default().add(flow);
    }
    for (account, flow) in accounts {
        let of = |place: usize| Cell::Number(flow.0[place]);
        table.row(vec![
            Cell::Number(account.into()),
            naming.account(account),
            of(sums::SOLD),
            of(sums::RENT_EARNED),
            of(sums::TASK_REVENUE),
            of(sums::BOUGHT),
            of(sums::FEES),
            of(sums::RENT_PAID),
            of(sums::TASK_COST),
            (flow.revenue() - flow.cost()).into(),
            of(sums::DEPOSITED),
            of(sums::WITHDRAWN),
            flow.change().into(),
            of(sums::USED),
        ]);
    }
    table
}

fn instances(sums: &Sums, naming: &Naming<'_>) -> Table {
    const COLUMNS: &[Column] = &[
        number("instance", "Number", "", 0),
        word("name", "Instance"),
        word("account", "Paid by"),
        word("book", "Tier/resource"),
        span("reserved_vru_ms", "Reserved"),
        span("leased_vru_ms", "Leased"),
        span("lent_vru_ms", "Lent"),
        span("used_vru_ms", "Used"),
        percent("used_permille", "Of what it had"),
        number("sold_credits", "Sold", "credits", 0),
        number("bought_credits", "Bought", "credits", 0),
        funds("revenue_micro", "Revenue"),
        funds("cost_micro", "Cost"),
    ];
    let mut table = Table::new("instances", "Instances", COLUMNS);
    table.note =
        "Used is what the host measured, also by bursts of credits; it is compared with what \
                  was reserved and leased, less what was lent."
            .to_owned();
    for (whose, flow) in sums.flows.iter().filter(|(whose, _)| whose.instance != ANY) {
        let of = |place: usize| Cell::Number(flow.0[place]);
        let had = flow.0[sums::RESERVED] + flow.0[sums::LEASED] - flow.0[sums::LENT];
        table.row(vec![
            Cell::Number(whose.instance.into()),
            text(&whose.name).to_owned().into(),
            naming.account(whose.account),
            naming.names.book(whose.book).into(),
            of(sums::RESERVED),
            of(sums::LEASED),
            of(sums::LENT),
            of(sums::USED),
            maybe(permille(flow.0[sums::USED], had)),
            of(sums::SOLD_CREDITS),
            of(sums::BOUGHT_CREDITS),
            flow.revenue().into(),
            flow.cost().into(),
        ]);
    }
    table
}

/// All steps of a book or group together.
fn whole(steps: &BTreeMap<u64, Sample>) -> Sample {
    let mut whole = Sample::default();
    steps.values().for_each(|sample| whole.add(sample));
    whole
}

/// A price, if there is one.
fn price(price: u64) -> Cell {
    if price == 0 { Cell::Nothing } else { Cell::Number(price.into()) }
}

fn tiers(sums: &Sums, naming: &Naming<'_>) -> Table {
    const COLUMNS: &[Column] = &[
        number("number", "Book", "", 0),
        word("book", "Tier/resource"),
        span("capacity_vru_ms", "Capacity"),
        percent("reserved_permille", "Reserved"),
        percent("leased_permille", "Leased"),
        percent("lent_permille", "Lent"),
        span("used_vru_ms", "Used"),
        percent("used_permille", "Utilisation"),
        number("trades", "Trades", "", 0),
        number("volume_credits", "Volume", "credits", 0),
        funds("notional_micro", "Traded for"),
        number("open_ticks", "Open", "ticks", 0),
        number("high_ticks", "High", "ticks", 0),
        number("low_ticks", "Low", "ticks", 0),
        number("close_ticks", "Close", "ticks", 0),
        funds("rent_paid_micro", "Rents"),
        funds("rent_earned_micro", "Of them to lenders"),
    ];
    let mut table = Table::new("tiers", "Tiers", COLUMNS);
    table.note = "Shares are of the capacity there was.".to_owned();
    for (of, steps) in &sums.samples {
        let Of::Book(book, _) = *of else { continue };
        let sample = whole(steps);
        let flows = sums.flows.iter().filter(|(whose, _)| whose.book == book);
        let rents = flows.fold([0, 0], |[paid, earned], (_, flow)| {
            [paid + flow.0[sums::RENT_PAID], earned + flow.0[sums::RENT_EARNED]]
        });
        let share = |part: i128| maybe(permille(part, sample.capacity));
        let [open, high, low, close] = sample.prices.map(price);
        table.row(vec![
            Cell::Number(book.into()),
            naming.names.book(book).into(),
            sample.capacity.into(),
            share(sample.reserved),
            share(sample.granted),
            share(sample.lent),
            sample.used.into(),
            share(sample.used),
            sample.trades.into(),
            sample.volume.into(),
            sample.notional.into(),
            open,
            high,
            low,
            close,
            rents[0].into(),
            rents[1].into(),
        ]);
    }
    table
}

fn swarms(sums: &Sums, naming: &Naming<'_>) -> Table {
    const COLUMNS: &[Column] = &[
        word("group", "Swarm"),
        word("resource", "Resource"),
        span("capacity_vru_ms", "Capacity"),
        span("granted_vru_ms", "Granted"),
        percent("granted_permille", "Granted"),
        span("used_vru_ms", "Used, as tasks said"),
        funds("revenue_micro", "Revenue"),
        funds("open_micro", "VRU price, open"),
        funds("high_micro", "High"),
        funds("low_micro", "Low"),
        funds("close_micro", "Close"),
    ];
    let mut table = Table::new("swarms", "Swarms", COLUMNS);
    table.note = "The VRU price is what the cheapest next VRU costs a second.".to_owned();
    for (of, steps) in &sums.samples {
        let Of::Group(group, number) = *of else { continue };
        let sample = whole(steps);
        let [open, high, low, close] = sample.prices.map(price);
        table.row(vec![
            naming.group(group),
            resource(number).into(),
            sample.capacity.into(),
            sample.granted.into(),
            maybe(permille(sample.granted, sample.capacity)),
            sample.used.into(),
            sample.notional.into(),
            open,
            high,
            low,
            close,
        ]);
    }
    table
}

/// How a task stands, or why it is over.
fn state(task: &Task) -> String {
    match (TaskEnd::from_u8(task.last.reason), task.last.vru.get()) {
        (Some(reason), _) => reason.text().to_owned(),
        (None, 0) => "waits".to_owned(),
        (None, _) => "runs".to_owned(),
    }
}

fn instance_number(task: &Task) -> Cell {
    match task.last.instance.get() {
        ANY => Cell::Nothing,
        number => Cell::Number(number.into()),
    }
}

fn tasks(sums: &Sums, naming: &Naming<'_>) -> Table {
    const COLUMNS: &[Column] = &[
        number("number", "Number", "", 0),
        word("name", "Task"),
        word("account", "Account"),
        word("group", "Swarm"),
        number("instance", "Instance", "", 0),
        word("resource", "Resource"),
        word("submitted", "Submitted"),
        word("state", "State"),
        number("progress_permille", "Done", "%", PERCENT),
        number("vru", "VRUs last", "", 0),
        span("granted_vru_ms", "Granted"),
        span("used_vru_ms", "Used, as it said"),
        funds("bid_micro", "Bid"),
        funds("paid_micro", "Cost"),
        funds("rate_micro", "Rate last, a second"),
        funds("margin_micro", "Margin last, a second"),
    ];
    let mut table = Table::new("tasks", "Tasks", COLUMNS);
    if sums.left_out.0 > 0 {
        table.note = format!(
            "More tasks than are listed: theirs are {} rows that cost {}.",
            sums.left_out.0,
            decimal(sums.left_out.1, FUNDS)
        );
    }
    for (number, task) in &sums.tasks {
        let row = &task.last;
        let used = if task.reported > 0 { task.used.into() } else { Cell::Nothing };
        table.row(vec![
            Cell::Number((*number).into()),
            text(&row.name).to_owned().into(),
            naming.account(row.account.get()),
            naming.group(row.group.get()),
            instance_number(task),
            resource(row.resource).into(),
            rfc3339(row.submitted_ns.get()).into(),
            state(task).into(),
            Cell::Number(row.progress_permille.get().into()),
            Cell::Number(row.vru.get().into()),
            task.granted.into(),
            used,
            Cell::Number(row.bid_micro.get().into()),
            task.paid.into(),
            Cell::Number(row.rate_micro.get().into()),
            Cell::Number((row.margin_micro.get() as i64).into()),
        ]);
    }
    table
}

fn inefficient(sums: &Sums, naming: &Naming<'_>) -> Table {
    const COLUMNS: &[Column] = &[
        number("number", "Number", "", 0),
        word("name", "Task"),
        word("account", "Account"),
        word("group", "Swarm"),
        number("instance", "Instance", "", 0),
        word("resource", "Resource"),
        word("state", "State"),
        span("granted_vru_ms", "Granted"),
        span("used_vru_ms", "Used of it, as it said"),
        percent("used_permille", "Used"),
        number("inefficient_ms", "Below a quarter for", "s", SECONDS),
        funds("inefficient_micro", "Cost meanwhile"),
        funds("paid_micro", "Cost in all"),
    ];
    let mut table = Table::new("inefficient_tasks", "Inefficient tasks", COLUMNS);
    table.note =
        "Tasks that said they used less than a quarter of what they had, those that cost most \
                  first. Granted counts while they had said what they use."
            .to_owned();
    let wasteful = sums.tasks.iter().filter(|(_, task)| task.inefficient_ms > 0);
    let mut wasteful: Vec<_> = wasteful.collect();
    wasteful.sort_by_key(|(number, task)| (-task.inefficient_micro, **number));
    for (number, task) in wasteful {
        let row = &task.last;
        table.row(vec![
            Cell::Number((*number).into()),
            text(&row.name).to_owned().into(),
            naming.account(row.account.get()),
            naming.group(row.group.get()),
            instance_number(task),
            resource(row.resource).into(),
            state(task).into(),
            task.reported.into(),
            task.used.into(),
            maybe(permille(task.used, task.reported)),
            task.inefficient_ms.into(),
            task.inefficient_micro.into(),
            task.paid.into(),
        ]);
    }
    table
}

/// Experiments as they stand, whenever they were.
fn experiments(rows: &[ExperimentRow]) -> Table {
    const MILLI: u32 = 3;
    const COLUMNS: &[Column] = &[
        number("experiment", "Number", "", 0),
        word("name", "Experiment"),
        word("compares", "Compares"),
        word("state", "State"),
        word("measure", "Measure"),
        word("better", "Better"),
        number("sample_a", "Sample A", "", 0),
        number("sample_b", "Sample B", "", 0),
        number("mean_a_milli", "Mean A", "", MILLI),
        number("mean_b_milli", "Mean B", "", MILLI),
        number("effect_milli", "B - A", "", MILLI),
        number("low_milli", "95% from", "", MILLI),
        number("high_milli", "to", "", MILLI),
    ];
    let mut table = Table::new("experiments", "Experiments", COLUMNS);
    table.note =
        "As they stand now. A sample is of instances; each counts once, with its mean.".into();
    for row in rows {
        let mean = |arm: usize| {
            let milli = i128::from(row.mean_milli[arm].get());
            if row.sample[arm].get() > 0 { Cell::Number(milli) } else { Cell::Nothing }
        };
        let signed =
            |field: U64| maybe((row.has_interval == 1).then(|| (field.get() as i64).into()));
        let better = if row.more_is_better == 1 { "more" } else { "less" };
        table.row(vec![
            i128::from(row.experiment.get()).into(),
            text(&row.name).to_owned().into(),
            compares(row).to_owned().into(),
            ExperimentEnd::text_of(row.end).to_owned().into(),
            measure(row.measure).to_owned().into(),
            better.to_owned().into(),
            i128::from(row.sample[0].get()).into(),
            i128::from(row.sample[1].get()).into(),
            mean(0),
            mean(1),
            signed(row.effect_milli),
            signed(row.low_milli),
            signed(row.high_milli),
        ]);
    }
    table
}

fn book_history(sums: &Sums, naming: &Naming<'_>) -> Table {
    const COLUMNS: &[Column] = &[
        word("time", "Time"),
        number("number", "Book", "", 0),
        word("book", "Tier/resource"),
        number("open_ticks", "Open", "ticks", 0),
        number("high_ticks", "High", "ticks", 0),
        number("low_ticks", "Low", "ticks", 0),
        number("close_ticks", "Close", "ticks", 0),
        number("trades", "Trades", "", 0),
        number("volume_credits", "Volume", "credits", 0),
        funds("notional_micro", "Traded for"),
        number("rent_sla_ticks", "Rent, sla", "ticks", 0),
        number("rent_bounded_ticks", "Rent, bounded", "ticks", 0),
        number("rent_speculative_ticks", "Rent, speculative", "ticks", 0),
        span("capacity_vru_ms", "Capacity"),
        span("reserved_vru_ms", "Reserved"),
        span("leased_vru_ms", "Leased"),
        span("lent_vru_ms", "Lent"),
        span("used_vru_ms", "Used"),
    ];
    let mut table = Table::new("book_history", "Books by step", COLUMNS);
    table.shown = false;
    for (of, steps) in &sums.samples {
        let Of::Book(book, _) = *of else { continue };
        for (step_ns, sample) in steps {
            let mut row = vec![rfc3339(*step_ns).into()];
            row.extend([Cell::Number(book.into()), naming.names.book(book).into()]);
            row.extend(sample.prices.map(price));
            row.extend([sample.trades, sample.volume, sample.notional].map(Cell::Number));
            row.extend(sample.rents.map(|rent| Cell::Number(rent.into())));
            let spans =
                [sample.capacity, sample.reserved, sample.granted, sample.lent, sample.used];
            row.extend(spans.map(Cell::Number));
            table.row(row);
        }
    }
    table
}

fn swarm_history(sums: &Sums, naming: &Naming<'_>) -> Table {
    const COLUMNS: &[Column] = &[
        word("time", "Time"),
        word("group", "Swarm"),
        word("resource", "Resource"),
        funds("open_micro", "VRU price, open"),
        funds("high_micro", "High"),
        funds("low_micro", "Low"),
        funds("close_micro", "Close"),
        span("capacity_vru_ms", "Capacity"),
        span("granted_vru_ms", "Granted"),
        span("used_vru_ms", "Used, as tasks said"),
        funds("revenue_micro", "Revenue"),
    ];
    let mut table = Table::new("swarm_history", "Swarms by step", COLUMNS);
    table.shown = false;
    for (of, steps) in &sums.samples {
        let Of::Group(group, number) = *of else { continue };
        for (step_ns, sample) in steps {
            let mut row = vec![rfc3339(*step_ns).into(), naming.group(group)];
            row.push(resource(number).into());
            row.extend(sample.prices.map(price));
            let sums = [sample.capacity, sample.granted, sample.used, sample.notional];
            row.extend(sums.map(Cell::Number));
            table.row(row);
        }
    }
    table
}

fn account_history(sums: &Sums, naming: &Naming<'_>) -> Table {
    const COLUMNS: &[Column] = &[
        word("time", "Time"),
        number("account", "Number", "", 0),
        word("name", "Account"),
        funds("revenue_micro", "Revenue"),
        funds("cost_micro", "Cost"),
    ];
    let mut table = Table::new("account_history", "Accounts by step", COLUMNS);
    table.shown = false;
    for ((account, step_ns), [revenue, cost]) in &sums.money {
        table.row(vec![
            rfc3339(*step_ns).into(),
            Cell::Number((*account).into()),
            naming.account(*account),
            (*revenue).into(),
            (*cost).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_what_it_must() {
        let quoted = |text: &str| csv_cell(&Cell::Text(text.to_owned()));
        assert_eq!(quoted("plain <b>"), "plain <b>");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"hi\""), "\"say \"\"hi\"\"\"");
        assert_eq!(
            (csv_cell(&Cell::Nothing), csv_cell(&Cell::Number(-5))),
            ("".into(), "-5".into())
        );
    }

    #[test]
    fn numbers_beyond_64_bits_are_text() {
        assert_eq!(json_cell(&Cell::Number(i64::MAX.into())), json!(i64::MAX));
        assert_eq!(json_cell(&Cell::Number(1 << 63)), json!("9223372036854775808"));
        assert_eq!((permille(1, 3), permille(1, 0)), (Some(333), None));
    }

    #[test]
    fn nothing_to_report_is_still_every_table() {
        let tables = all(&Sums::default(), &Directory::default(), &[], &[]);
        assert!(tables.iter().all(|table| table.csv().ends_with("\r\n")));
        let rows: usize = tables.iter().map(|table| table.rows.len()).sum();
        assert_eq!(rows, 1, "the house alone has a row");
    }
}
