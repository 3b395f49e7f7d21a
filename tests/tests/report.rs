//! Reports: what `hvctl report` writes about trades, leases, swarms and use on a real daemon, against the
//! ledger, the balances and the audit trail; read by parsers of another language.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use vendue_tests::daemon::{Daemon, Setup, eventually};
use vendue_tests::market::*;
use vendue_wire::client::{Client, Identity};
use vendue_wire::code::{LeaseClass, Resource, Side};
use vendue_wire::message::*;

/// Names that would be markup if nobody escaped them.
const SELLER: &str = "<script>alert(1)</script>";
const BUYER: &str = "b&b \"co\" 'x', y";
const WASTEFUL: &str = "</table><b>waste & want";
/// What a parser of another language finds: the page is well-formed, runs nothing and fetches nothing, and
/// its tables and the CSV files say what the JSON object says.
const READER: &str = r##"
import csv, json, sys, xml.etree.ElementTree as tree
page, folder, told = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
root = tree.parse(page).getroot()
tags = [node.tag for node in root.iter()]
assert "script" not in tags and "link" not in tags and "img" not in tags, set(tags)
for node in root.iter():
    assert not any(name in ("src", "href") or name.startswith("on") for name in node.attrib), node.attrib
tables = {node.get("id"): node for node in root.iter("table")}
for name, rows in told.items():
    if not isinstance(rows, list):
        continue
    with open(f"{folder}/{name}.csv", newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lines = list(reader)
    text = lambda value: "" if value is None else str(value)
    assert lines == [{key: text(value) for key, value in row.items()} for row in rows], name
    if name not in tables:
        assert not rows or name.endswith("_history"), name
        continue
    shown = [["".join(cell.itertext()) for cell in row] for row in tables[name].find("tbody")]
    assert len(shown) == len(rows), name
    for cells, row in zip(shown, rows):
        for cell, value in zip(cells, (row[key] for key in reader.fieldnames)):
            if isinstance(value, int):
                assert int(cell.replace(".", "")) == value, (name, cell, value)
            else:
                assert cell == ("-" if value is None else value), (name, cell, value)
print(len(tables), tags.count("svg"))
"##;

/// The numbers of a report.
#[track_caller]
fn report(daemon: &Daemon, arguments: &[&str]) -> Value {
    daemon.said_one(&[&["report"], arguments].concat())
}

/// Writes a report in all its forms and reads it back; returns the numbers, and how many tables and plots
/// the page has.
#[track_caller]
fn written(daemon: &Daemon, name: &str, arguments: &[&str]) -> (Value, Vec<usize>) {
    let path = |end: &str| daemon.path(&format!("{name}{end}")).to_str().expect("UTF-8").to_owned();
    let (page, folder, told) = (path(".html"), path("-csv"), path(".json"));
    let all = [&[page.as_str(), "--csv", &folder], arguments].concat();
    let numbers = report(daemon, &all);
    std::fs::write(&told, numbers.to_string()).expect("write the numbers");
    let reader = ["-c", READER, &page, &folder, &told];
    let read = Command::new("python3").args(reader).output().expect("run python3");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let counts = String::from_utf8(read.stdout).expect("text");
    (numbers, counts.split_whitespace().map(|count| count.parse().expect("a count")).collect())
}

fn rows<'a>(report: &'a Value, table: &str) -> &'a [Value] {
    report[table].as_array().expect("a table")
}

fn number(row: &Value, key: &str) -> i64 {
    row[key].as_i64().unwrap_or_else(|| panic!("{key} of {row}"))
}

fn sum(rows: &[Value], key: &str) -> i64 {
    rows.iter().map(|row| number(row, key)).sum()
}

/// What each account holds, held amounts included.
fn balances(client: &mut Client) -> BTreeMap<i64, i64> {
    let rows = client.ask_all::<AccountRow, _>(|from| QueryAccounts { from: (from as u32).into() });
    let balance = |row: &AccountRow| (row.free_micro.get() + row.held_micro.get()) as i64;
    rows.expect("accounts").iter().map(|row| (row.account.get().into(), balance(row))).collect()
}

fn ledger(client: &mut Client, line: &str) -> i64 {
    let rows = client.ask::<LedgerRow, _>(&QueryLedger {}).expect("a ledger");
    let found = rows.iter().find(|row| text(&row.line) == line).expect("the line");
    found.balance.get() as i64
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    now.as_millis() as u64
}

fn tasks(client: &mut Client) -> Vec<TaskRow> {
    client.ask(&QueryTasks { from: 0.into() }).expect("tasks")
}

/// An operator's market with all that a report is about.
struct Scene {
    operator: Client,
    seller: Party,
    buyer: Party,
}

impl Scene {
    fn open(daemon: &Daemon) -> Scene {
        let mut operator = daemon.client(&Identity::operator());
        // It is this process whose use is measured.
        let place = format!("pid:{}", std::process::id());
        let seller = create_party(&mut operator, SELLER, &place);
        let buyer = create_party(&mut operator, BUYER, "");
        deposit(&mut operator, seller.account, 5_000_000);
        deposit(&mut operator, buyer.account, FUNDS_MICRO);
        grant(&mut operator, seller.instance, CREDITS);
        Scene { operator, seller, buyer }
    }

    /// A trade; returns its number.
    fn trade(&mut self, price: u32, quantity: u32) -> u64 {
        enter(&mut self.operator, self.seller, Side::Sell, price, quantity);
        enter(&mut self.operator, self.buyer, Side::Buy, price, quantity);
        let mut trade = || loop {
            if let Some(filled) = next(&mut self.operator).message::<Filled>() {
                return filled.trade.get();
            }
        };
        let sold = trade();
        assert_eq!(sold, trade(), "both parties are told");
        sold
    }

    fn lease(&mut self) -> u64 {
        let client_id = self.operator.next_client_id().into();
        let (instance, resource) = (self.seller.instance.into(), Resource::Cpu as u8);
        let lend = Lend { client_id, instance, vru: 50.into(), resource, reserved: [0; 7] };
        self.operator.call(&lend).expect("a loan");
        let bid = BidLease {
            client_id: self.operator.next_client_id().into(),
            instance: self.buyer.instance.into(),
            amount: 100.into(),
            rent_ticks: 1000.into(),
            class: LeaseClass::Bounded as u8,
            ..BidLease::zeroed()
        };
        self.operator.call(&bid).expect("a lease").value.get()
    }

    fn swarm(&mut self) {
        let group = SetGroup {
            client_id: self.operator.next_client_id().into(),
            base_micro: [100_000, 0, 0, 0, 0].map(U64::new),
            account: self.seller.account.into(),
            steep_percent: 100.into(),
            high_permille: 900.into(),
            // It is not put to sleep before it has work.
            active_min: 1.into(),
            group: ANY_BOOK.into(),
            name: field("swarm <1>").expect("a short name"),
            ..SetGroup::zeroed()
        };
        self.operator.call(&group).expect("a group");
        let client_id = self.operator.next_client_id().into();
        let instance = self.seller.instance.into();
        let member = SetMember { client_id, instance, group: 0.into(), reserved: 0.into() };
        self.operator.call(&member).expect("a member");
    }

    /// A task of ten VRUs; returns its handle.
    fn task(&mut self, name: &str) -> u64 {
        let task = SubmitTask {
            client_id: self.operator.next_client_id().into(),
            bid_micro: 300_000_000.into(),
            duration_ms: 60_000.into(),
            vru_max: 10.into(),
            instance: ANY.into(),
            account: self.buyer.account.into(),
            name: field(name).expect("a short name"),
            ..SubmitTask::zeroed()
        };
        let admitted: TaskAdmitted = self.operator.call_for(&task).expect("a task");
        assert_eq!(admitted.vru.get(), 10);
        admitted.handle.get()
    }

    fn progress(&mut self, handle: u64, used_millivru: u32, progress_permille: u16) {
        let report = ReportTask {
            handle: handle.into(),
            used_millivru: used_millivru.into(),
            progress_permille: progress_permille.into(),
            reserved: 0.into(),
        };
        self.operator.call(&report).expect("progress");
    }
}

/// Adds up all that is a sum in the rows of a report that is asked for so many records at a time.
fn added_up(client: &mut Client, limit: u32, end: u64) -> BTreeMap<String, i128> {
    let (mut sums, mut from) = (BTreeMap::new(), 1);
    let mut add = |key: String, amounts: &[U64]| {
        for (at, amount) in amounts.iter().enumerate() {
            *sums.entry(format!("{key} {at}")).or_default() += i128::from(amount.get() as i64);
        }
    };
    while from <= end {
        let limit = limit.min((end + 1 - from) as u32).into();
        let query = QueryReport { from: from.into(), limit, step_s: 1.into(), reserved: 0.into() };
        let next = client.ask_each(&query, |row| {
            if let Some(m) = row.message::<ReportFlowRow>() {
                let money = [m.sold_micro, m.bought_micro, m.fee_micro, m.rent_paid_micro];
                let tasks = [m.task_cost_micro, m.task_revenue_micro, m.deposited_micro];
                let spans = [m.reserved_vru_ms, m.leased_vru_ms, m.lent_vru_ms, m.used_vru_ms];
                let whose = format!("flow {} {} {}", m.account, m.instance, m.book);
                add(whose, &[&money[..], &tasks, &spans].concat());
            } else if let Some(m) = row.message::<ReportSampleRow>() {
                let sums = [m.trades, m.volume_credits, m.notional_micro, m.capacity_vru_ms];
                let spans = [m.reserved_vru_ms, m.granted_vru_ms, m.lent_vru_ms];
                add(format!("sample {} {}", m.book, m.group), &[&sums[..], &spans].concat());
            } else if let Some(m) = row.message::<ReportTaskRow>() {
                let sums = [m.paid_micro, m.granted_vru_ms, m.inefficient_ms, m.inefficient_micro];
                add(format!("task {}", m.number), &sums);
            }
        });
        from = next.expect("a page").unwrap_or(u64::MAX);
    }
    sums.retain(|_, sum| *sum != 0);
    sums
}

#[test]
fn a_report_says_what_the_ledger_and_the_journal_say() {
    let setup = Setup::small().key("tick_ms", "20").key("meter_ms", "50");
    let mut daemon = Daemon::start(&setup);
    let mut scene = Scene::open(&daemon);
    let mut observer = daemon.client(&Identity::observer());
    scene.trade(700, 3000);
    let reversed = scene.trade(900, 1000);
    let client_id = scene.operator.next_client_id().into();
    scene.operator.call(&ReverseTrade { client_id, trade: reversed.into() }).expect("undone");
    scene.trade(800, 500);
    let lease = scene.lease();
    scene.swarm();
    let [frugal, wasteful] = ["frugal", WASTEFUL].map(|name| scene.task(name));
    scene.progress(frugal, 9000, 500);
    scene.progress(wasteful, 500, 100);
    let paid =
        |client: &mut Client| tasks(client).iter().map(|row| row.paid_micro.get()).sum::<u64>();
    eventually("tasks that paid", || (paid(&mut observer) > 1_000_000).then_some(()));
    // A lease and two tasks are under way here, and go on.
    let middle_ms = now_ms();
    let so_far = paid(&mut observer);
    eventually("tasks that paid more", || (paid(&mut observer) > so_far + 1_000_000).then_some(()));
    scene.progress(wasteful, 500, 1000);
    scene.operator.call(&CancelTask { handle: frugal.into() }).expect("an end");
    let client_id = scene.operator.next_client_id().into();
    scene.operator.call(&CancelLease { client_id, handle: lease.into() }).expect("an end");
    // It owes for seconds: lenders are paid every five.
    eventually("a lender that was paid", || {
        let trail = audit(&mut observer);
        let ended = trail.iter().position(|row| text(&row.what) == "lease cancelled")?;
        trail[ended..].iter().any(|row| text(&row.what) == "rent earned").then_some(())
    });
    eventually("use that was measured", || {
        let trail = audit(&mut observer);
        let used = trail.iter().filter(|row| text(&row.what) == "usage");
        used.clone().any(|row| row.amount.get() > 0).then_some(())
    });

    let end = daemon.status().0.durable.get();
    let end_ms = now_ms();
    let (whole, counts) = written(&daemon, "whole", &[]);
    // House, accounts, instances, tiers, swarms, inefficient tasks, tasks; a plot of each kind.
    assert_eq!((counts[0], counts[1] >= 5), (7, true), "{counts:?}");
    let money = rows(&whole, "accounts");
    let changes: BTreeMap<_, _> =
        money.iter().map(|row| (number(row, "account"), number(row, "change_micro"))).collect();
    assert_eq!(changes, balances(&mut observer), "balances began at zero");
    let names: Vec<_> = money.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, [SELLER, BUYER]);
    let house = &rows(&whole, "house")[0];
    assert_eq!(number(house, "fee_micro"), ledger(&mut observer, "fees"));
    assert_eq!(number(house, "rent_micro"), ledger(&mut observer, "rents"));
    assert!(number(house, "rent_micro") > 0);
    check_rents(&whole, &mut observer);
    assert_eq!(sum(money, "task_cost_micro"), sum(money, "task_revenue_micro"));
    assert_eq!(sum(money, "sold_micro"), 3000 * 700 + 500 * 800, "but for what was reversed");
    let of = |row: &Value, key| {
        (number(&money[0], key), number(&money[1], key)) == (number(row, key), 0)
    };
    assert!(of(&money[0], "task_revenue_micro"), "the seller's swarm earned it all");

    check_capacity(&whole, &mut observer);
    check_tasks(&whole);
    check_parts(&daemon, &whole, (middle_ms, end_ms));
    let pages = added_up(&mut observer, 100_000, end);
    assert!(pages.len() > 20, "{pages:?}");
    assert_eq!(added_up(&mut observer, 7, end), pages, "pages may end anywhere");

    // Use goes on being measured, so both are up to one moment.
    let to = rfc3339(end_ms);
    let before = report(&daemon, &["--to", &to]);
    assert!(daemon.terminate().success());
    daemon.launch();
    let again = report(&daemon, &["--to", &to]);
    for table in ["accounts", "tasks", "inefficient_tasks"] {
        assert_eq!(again[table], before[table], "a restart changes nothing");
    }
}

/// Rents: of the buyer, to the lender as the audit trail has it, or the house's.
fn check_rents(whole: &Value, observer: &mut Client) {
    let money = rows(whole, "accounts");
    let of = |key| [number(&money[0], key), number(&money[1], key)];
    let ([earned, nothing], [none, paid]) = (of("rent_earned_micro"), of("rent_paid_micro"));
    assert!(earned > 0 && (nothing, none) == (0, 0), "{earned} of {paid}");
    assert_eq!(paid - earned, number(&rows(whole, "house")[0], "rent_micro"));
    let trail = audit(observer).into_iter().filter(|row| text(&row.what) == "rent earned");
    assert_eq!(trail.map(|row| row.funds_micro.get()).sum::<u64>() as i64, earned);
}

/// Books and instances against the audit trail and each other.
fn check_capacity(whole: &Value, observer: &mut Client) {
    let used: u64 = audit(observer)
        .iter()
        .filter(|row| text(&row.what) == "usage")
        .map(|row| row.amount.get())
        .sum();
    let instances = rows(whole, "instances");
    let reported = sum(instances, "used_vru_ms");
    // Use goes on being measured; a report is of a moment before.
    assert!(reported > 0 && reported as u64 <= used, "{reported} of {used}");
    let tier = &rows(whole, "tiers")[0];
    assert_eq!(number(tier, "used_vru_ms"), reported);
    assert_eq!((number(tier, "trades"), number(tier, "volume_credits")), (2, 3500));
    let prices = ["open_ticks", "high_ticks", "low_ticks", "close_ticks"];
    assert_eq!(prices.map(|key| number(tier, key)), [700, 900, 700, 800]);
    assert_eq!(sum(instances, "sold_credits"), 3500);
    let (leased, lent) = (sum(instances, "leased_vru_ms"), sum(instances, "lent_vru_ms"));
    assert!(leased > 0 && lent >= leased / 2, "{leased} leased, {lent} lent");
    let history = rows(whole, "book_history").iter();
    let of_book: Vec<Value> = history.filter(|row| number(row, "number") == 0).cloned().collect();
    for key in ["leased_vru_ms", "lent_vru_ms", "used_vru_ms"] {
        assert_eq!(sum(&of_book, key), sum(instances, key), "{key} step by step");
    }
}

/// Tasks: who wastes is named with the evidence, who does not is not.
fn check_tasks(whole: &Value) {
    let tasks = rows(whole, "tasks");
    assert_eq!(sum(tasks, "paid_micro"), sum(rows(whole, "accounts"), "task_cost_micro"));
    let states: Vec<_> =
        tasks.iter().map(|row| (row["name"].clone(), row["state"].clone())).collect();
    let told = |name: &str, state: &str| (Value::from(name), Value::from(state));
    assert_eq!(states, [told("frugal", "requested"), told(WASTEFUL, "finished")]);
    let [waste] = rows(whole, "inefficient_tasks") else { panic!("{whole}") };
    assert_eq!(waste["name"], WASTEFUL);
    // Rounded down, what is left of a step's last millisecond besides.
    assert!((49..=50).contains(&number(waste, "used_permille")), "a twentieth: {waste}");
    let (cost, all) = (number(waste, "inefficient_micro"), number(waste, "paid_micro"));
    assert!(cost > 0 && cost <= all && number(waste, "inefficient_ms") > 0, "{waste}");
    assert_eq!(number(waste, "granted_vru_ms"), 10 * number(waste, "inefficient_ms"));
}

/// Two periods that meet are the whole.
fn check_parts(daemon: &Daemon, whole: &Value, (middle_ms, end_ms): (u64, u64)) {
    let (middle, end) = (rfc3339(middle_ms), rfc3339(end_ms));
    let first = report(daemon, &["--to", &middle]);
    let second = report(daemon, &["--from", &middle, "--to", &end]);
    for (table, key) in [
        ("accounts", "net_micro"),
        ("accounts", "task_cost_micro"),
        ("accounts", "rent_paid_micro"),
        ("accounts", "rent_earned_micro"),
        ("tasks", "paid_micro"),
        ("tasks", "granted_vru_ms"),
        ("inefficient_tasks", "inefficient_micro"),
        ("instances", "leased_vru_ms"),
    ] {
        let parts = [&first, &second].map(|part| sum(rows(part, table), key));
        assert!(parts[0] != 0 || key.starts_with("rent_"), "{key} in the first part");
        assert_ne!(parts[1], 0, "{key} in the second part");
        assert_eq!(parts[0] + parts[1], sum(rows(whole, table), key), "{table} {key}");
    }
}

/// A moment as `hvctl` takes it.
fn rfc3339(ms: u64) -> String {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%S", "-d", &format!("@{}", ms / 1000)])
        .output()
        .expect("run date");
    let text = String::from_utf8(output.stdout).expect("text");
    format!("{}.{:03}Z", text.trim(), ms % 1000)
}

#[test]
fn where_nothing_happened_the_report_says_so() {
    let daemon = Daemon::start(&Setup::small());
    let (empty, counts) = written(&daemon, "empty", &["--last", "90s"]);
    assert_eq!(rows(&empty, "accounts"), &[] as &[Value]);
    assert_eq!(number(&rows(&empty, "house")[0], "trades"), 0);
    assert!(counts[0] >= 1, "{counts:?}");
    let dir = daemon.path("plain");
    std::fs::create_dir(&dir).expect("a directory");
    let page = dir.join("page.html");
    let said = daemon.hvctl(&["report", path(&page)]);
    let said = String::from_utf8(said.stdout).expect("text");
    assert!(said.starts_with(path(&page)) && said.contains("0 accounts"), "{said}");
    let text = std::fs::read_to_string(&page).expect("the page");
    assert!(text.contains("DRY RUN") && text.contains("Nothing was traded."));
    for (arguments, code) in [
        (&["report", "--to", "2001-01-01T00:00:00Z"][..], 1),
        (&["report", "--from", "2999-01-01T00:00:00Z"], 2),
        (&["report", "--last", "1h", "--from", "2026-01-01T00:00:00Z"], 2),
        (&["report", "/nonexistent/page.html"], 1),
    ] {
        let output = daemon.hvctl(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
