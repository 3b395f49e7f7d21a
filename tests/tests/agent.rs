//! `hvctl agent` beside the real daemon: what it trades, and what is left when either is killed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use vendue_tests::daemon::{Daemon, Setup, eventually, hvctl};
use vendue_tests::market::*;
use vendue_wire::client::{Client, Identity};
use vendue_wire::code::{Resource, Side};
use vendue_wire::message::*;

/// Needs nothing, all day long.
const IDLE: &str = "day,cpu\n0,0\n";
/// Needs three times the baseline of [`BASELINE_VRU`].
const BUSY: &str = "day,cpu\n0,3000\n";

/// A running agent, killed with the test.
struct Agent {
    child: Child,
    said: PathBuf,
    complained: PathBuf,
}

impl Agent {
    /// Starts an agent that takes a step every 20 ms.
    fn start(daemon: &Daemon, instance: &str, options: &[&str]) -> Agent {
        let number = std::fs::read_dir(daemon.path("")).expect("the directory").count();
        let said = daemon.path(&format!("agent-{number}.out"));
        let complained = daemon.path(&format!("agent-{number}.err"));
        let hvctl = hvctl();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(hvctl)
            .args(["--json", "--connect", &daemon.unix().to_string()])
            .args(["agent", instance, "--every-ms", "20"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(File::create(&said).expect("a file"))
            .stderr(File::create(&complained).expect("a file"))
            .spawn()
            .expect("start setpriv");
        Agent { child, said, complained }
    }

    /// Starts an agent that knows its demand beforehand.
    fn with_demand(daemon: &Daemon, instance: &str, table: &str, options: &[&str]) -> Agent {
        let file = daemon.path(&format!("{instance}.csv"));
        std::fs::write(&file, table).expect("write a table");
        let file = file.to_str().expect("a plain path");
        Agent::start(daemon, instance, &[&["--demand", file], options].concat())
    }

    /// Everything of this kind that it said so far.
    fn events(&self, event: &str) -> Vec<Value> {
        let said = std::fs::read_to_string(&self.said).expect("what it said");
        // The last line may be half written.
        let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == event).collect()
    }

    /// Waits until it has said this so often, and returns the last.
    #[track_caller]
    fn says(&self, event: &str, times: usize) -> Value {
        let what = format!("{event} from the agent, after {:?}", self.complaint());
        eventually(&what, || self.events(event).get(times - 1).cloned())
    }

    fn complaint(&self) -> String {
        std::fs::read_to_string(&self.complained).expect("what it complained of")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("signal the agent");
    }

    fn ends(&mut self) -> ExitStatus {
        eventually("the agent's end", || self.child.try_wait().expect("look after the agent"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn orders(client: &mut Client, party: Party) -> Vec<OrderRow> {
    let query = QueryOrders { instance: party.instance.into(), from: 0.into() };
    client.ask(&query).expect("orders")
}

/// The only order of the instance, once there is one.
#[track_caller]
fn only_order(client: &mut Client, party: Party) -> OrderRow {
    let rows = eventually("an order", || {
        let rows = orders(client, party);
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(rows.len(), 1, "one order and no more: {rows:?}");
    rows[0]
}

/// Two others trade a credit, so that this is the last price.
fn trade_at(market: &mut Market, other: Party, price: u32) {
    enter(&mut market.operator, other, Side::Sell, price, 1);
    let buyer = market.buyer;
    enter(&mut market.operator, buyer, Side::Buy, price, 1);
}

/// A daemon, a market and a third party that has credits to trade with the buyer.
fn open(setup: &Setup) -> (Daemon, Market, Party) {
    let daemon = Daemon::start(setup);
    let mut market = Market::open(&daemon);
    let other = create_party(&mut market.operator, "other", "");
    grant(&mut market.operator, other.instance, 1000);
    (daemon, market, other)
}

#[test]
fn a_rich_instance_and_a_poor_one_trade() {
    let (daemon, mut market, _) = open(&Setup::small());
    let rich = Agent::with_demand(&daemon, "seller", IDLE, &[]);
    let entered = rich.says("entered", 1);
    // 5000 s of baseline and 60 more by the horizon, offered above 120; nothing was traded yet, so
    // an eighth below the middle of 10 and 100.
    assert_eq!((&entered["side"], &entered["price_ticks"]), (&"sell".into(), &48.into()));
    assert_eq!(entered["quantity_credits"], CREDITS + 60 * BASELINE_VRU - 120 * BASELINE_VRU);
    let offered = only_order(&mut market.operator, market.seller);
    assert_eq!(offered.quantity.get(), CREDITS - 60 * BASELINE_VRU);

    let poor = Agent::with_demand(&daemon, "buyer", BUSY, &[]);
    let entered = poor.says("entered", 1);
    // 60 s at twice the baseline are missing, and 30 in hand.
    let lack = (60 * 2 + 30) * BASELINE_VRU;
    assert_eq!((&entered["side"], &entered["price_ticks"]), (&"buy".into(), &62.into()));
    assert_eq!(entered["quantity_credits"], lack);
    for (agent, side) in [(&rich, "sell"), (&poor, "buy")] {
        let filled = agent.says("filled", 1);
        assert_eq!((&filled["side"], &filled["price_ticks"]), (&side.into(), &48.into()));
        assert_eq!(filled["quantity_credits"], lack);
    }
    let buyer = market.buyer;
    let balance = instance_row(&mut market.operator, buyer.instance).free_millicredits[0].get();
    assert!(balance >= u64::from(lack) * 1000);
    assert!(orders(&mut market.operator, buyer).is_empty(), "the buyer has what it needs");
    check_ledger(&mut market.operator);
}

#[test]
fn an_order_follows_the_price_and_never_has_a_second_beside_it() {
    let (daemon, mut market, other) = open(&Setup::small());
    let seller = market.seller;
    // Somebody's own order for the instance is not the agent's to touch.
    let manual = enter(&mut market.operator, seller, Side::Sell, 4000, 7);
    let mut agent = Agent::with_demand(&daemon, "seller", IDLE, &[]);
    agent.says("entered", 1);
    for (times, last, price) in [(1, 40, 35), (2, 30, 26), (3, 20, 17), (4, 11, 10)] {
        trade_at(&mut market, other, last);
        // Below its offer, so that the two meet each other and not the agent.
        let replaced = agent.says("replaced", times);
        assert_eq!(replaced["price_ticks"], price, "after a trade at {last}");
        let mut rows = orders(&mut market.operator, seller);
        rows.retain(|row| row.handle != manual.handle);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].price_ticks.get(), price);
    }
    assert_eq!(agent.events("entered").len(), 1);
    agent.signal(Signal::SIGTERM);
    assert!(agent.ends().success());
    assert_eq!(only_order(&mut market.operator, seller).handle, manual.handle);
}

#[test]
fn one_order_stands_whoever_is_killed() {
    let (mut daemon, mut market, other) = open(&Setup::small());
    let seller = market.seller;
    let mut agent = Agent::with_demand(&daemon, "seller", IDLE, &[]);
    agent.says("entered", 1);
    let first = only_order(&mut market.operator, seller);
    for times in 1..=3 {
        daemon.kill_9();
        agent.says("lost", times);
        daemon.launch();
        agent.says("connected", times);
        market.operator = daemon.client(&Identity::operator());
        let order = only_order(&mut market.operator, seller);
        assert_eq!(order.handle, first.handle, "it kept its place");
    }
    // A step of the agent that lived through it all still finds its order.
    trade_at(&mut market, other, 30);
    assert_eq!(agent.says("replaced", 1)["price_ticks"], 26);
    assert_eq!(only_order(&mut market.operator, seller).price_ticks.get(), 26);

    for (at, (last, price)) in [(24, 21), (16, 14), (13, 11), (11, 10)].into_iter().enumerate() {
        agent.signal(Signal::SIGKILL);
        agent.ends();
        let left = only_order(&mut market.operator, seller);
        agent = Agent::with_demand(&daemon, "seller", IDLE, &[]);
        agent.says("started", 1);
        if at % 2 == 1 {
            // The daemon too, while the new agent begins.
            daemon.kill_9();
            daemon.launch();
            market.operator = daemon.client(&Identity::operator());
        }
        trade_at(&mut market, other, last);
        assert_eq!(agent.says("replaced", 1)["price_ticks"], price);
        assert_eq!(agent.events("entered").len(), 0, "it went on with {left:?}");
        only_order(&mut market.operator, seller);
    }
    check_ledger(&mut market.operator);
}

/// Agents that are killed at any point of their first step leave nothing that arrives later.
#[test]
fn a_request_under_way_is_not_made_twice() {
    let (daemon, mut market, _) = open(&Setup::small());
    let seller = market.seller;
    for round in 0..10 {
        let mut doomed = Agent::with_demand(&daemon, "seller", IDLE, &[]);
        doomed.says("started", 1);
        std::thread::sleep(Duration::from_micros(300 * round));
        doomed.signal(Signal::SIGKILL);
        doomed.ends();
        let mut next = Agent::with_demand(&daemon, "seller", IDLE, &[]);
        next.says("started", 1);
        only_order(&mut market.operator, seller);
        next.signal(Signal::SIGTERM);
        assert!(next.ends().success());
        assert!(orders(&mut market.operator, seller).is_empty(), "round {round}");
    }
}

/// Fills that happened while the connection was lost are told once it is back, and once only.
#[test]
fn reports_of_the_time_between_are_heard() {
    let (mut daemon, mut market, _) = open(&Setup::small());
    let (seller, buyer) = (market.seller, market.buyer);
    let agent = Agent::with_demand(&daemon, "seller", IDLE, &[]);
    agent.says("entered", 1);
    let endpoint = daemon.unix();
    for times in 1..=3 {
        // It stands still while its order is filled, the daemon dies and starts again, and the order
        // is filled once more before anyone is connected who could be told.
        agent.signal(Signal::SIGSTOP);
        enter(&mut market.operator, buyer, Side::Buy, 48, 100);
        daemon.kill_9();
        daemon.launch();
        market.operator = Client::connect(&endpoint, &Identity::operator()).expect("a logon");
        enter(&mut market.operator, buyer, Side::Buy, 48, 200);
        agent.signal(Signal::SIGCONT);
        agent.says("connected", times);
        assert_eq!(agent.says("filled", 2 * times)["quantity_credits"], 200);
        only_order(&mut market.operator, seller);
    }
    let filled = agent.events("filled");
    let quantities: Vec<_> = filled.iter().map(|line| line["quantity_credits"].clone()).collect();
    assert_eq!(quantities, [100, 200, 100, 200, 100, 200]);
    let mut trades: Vec<_> = filled.iter().map(|line| line["trade"].as_u64()).collect();
    trades.dedup();
    assert_eq!(trades.len(), 6, "each is told once");
}

#[test]
fn a_throttled_agent_asks_ever_less() {
    let setup = Setup::small();
    let slow = setup.clone().key("throttle_per_s", "1").key("throttle_burst", "5");
    let (daemon, mut market, other) = open(&setup);
    daemon.configure(&slow);
    daemon.reload();
    // What the throttle lets through at once is enough for a first order.
    let mut agent = Agent::with_demand(&daemon, "seller", IDLE, &[]);
    agent.says("entered", 1);
    let before = daemon.status().0.refused.get();
    let seen = agent.events("throttled").len() as u64;
    agent.says("throttled", 4);
    let pauses: Vec<u64> =
        agent.events("throttled").iter().map(|line| line["pause_ms"].as_u64().unwrap()).collect();
    assert_eq!(pauses[..4], [40, 80, 160, 320]);
    let refused = daemon.status().0.refused.get() - before;
    let told = agent.events("throttled").len() as u64 - seen;
    assert!(refused <= told + 1, "{refused} refusals, {told} of them heard: it does not insist");
    only_order(&mut market.operator, market.seller);

    daemon.configure(&setup);
    daemon.reload();
    trade_at(&mut market, other, 30);
    assert_eq!(agent.says("replaced", 1)["price_ticks"], 26);
    only_order(&mut market.operator, market.seller);
    agent.signal(Signal::SIGINT);
    assert!(agent.ends().success());
}

#[test]
fn an_agent_whose_instance_is_removed_says_so_and_ends() {
    let (daemon, mut market, _) = open(&Setup::small());
    let mut agent = Agent::with_demand(&daemon, "seller", IDLE, &[]);
    agent.says("entered", 1);
    let client_id = market.operator.next_client_id().into();
    let instance = market.seller.instance.into();
    market.operator.call(&RemoveInstance { client_id, instance, reserved: 0.into() }).unwrap();
    assert_eq!(agent.ends().code(), Some(1));
    let said = agent.complaint();
    assert!(said.contains("instance seller was removed"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_second_agent_takes_over_from_the_first() {
    let (daemon, mut market, other) = open(&Setup::small());
    let mut first = Agent::with_demand(&daemon, "seller", IDLE, &[]);
    first.says("entered", 1);
    let second = Agent::with_demand(&daemon, "seller", IDLE, &["--policy", "fixed"]);
    assert_eq!(first.ends().code(), Some(1));
    assert!(first.complaint().contains("another agent has taken over"), "{}", first.complaint());
    assert_eq!(second.says("replaced", 1)["price_ticks"], 10);
    trade_at(&mut market, other, 9);
    assert_eq!(only_order(&mut market.operator, market.seller).price_ticks.get(), 10);
}

/// Two instances of one account stand on the two sides: they do not trade, and do not storm.
#[test]
fn an_account_that_would_trade_with_itself_waits() {
    let (daemon, mut market, _) = open(&Setup::small());
    let mut baseline_vru = [U32::ZERO; 5];
    baseline_vru[0] = 100.into();
    let account = market.seller.account;
    instance(&mut market.operator, account, "sibling", baseline_vru, "");
    deposit(&mut market.operator, account, FUNDS_MICRO);
    let rich = Agent::with_demand(&daemon, "seller", IDLE, &[]);
    rich.says("entered", 1);
    let poor = Agent::with_demand(&daemon, "sibling", BUSY, &[]);
    poor.says("refused", 4);
    let pauses: Vec<_> =
        poor.events("refused").iter().map(|line| line["pause_ms"].as_u64().unwrap()).collect();
    assert_eq!(pauses[..4], [40, 80, 160, 320]);
    assert_eq!(daemon.status().0.trades.get(), 0);
    only_order(&mut market.operator, market.seller);
}

fn instance(
    operator: &mut Client,
    account: u32,
    name: &str,
    baseline_vru: [U32; 5],
    place: &str,
) -> Party {
    let create = CreateInstance {
        client_id: operator.next_client_id().into(),
        account: account.into(),
        baseline_vru,
        name: field(name).expect("a short name"),
        place: field(place).expect("a short place"),
        ..CreateInstance::zeroed()
    };
    let instance = operator.call(&create).expect("an instance").value.get() as u32;
    Party { account, instance }
}

#[test]
fn what_a_process_uses_is_measured() {
    let (daemon, mut market, _) = open(&Setup::small());
    let Busy(busy) = &mut Busy::start();
    let mut baseline_vru = [U32::ZERO; 5];
    baseline_vru[0] = 1.into();
    let place = format!("pid:{}", busy.id());
    let account = market.buyer.account;
    let party = instance(&mut market.operator, account, "busy", baseline_vru, &place);
    let mut agent = Agent::start(&daemon, "busy", &["--window", "3"]);
    let entered = agent.says("entered", 1);
    assert_eq!(entered["side"], "buy");
    assert!(entered["demand_milli_vru"].as_u64().unwrap() > 1000, "{entered}");
    only_order(&mut market.operator, party);
    busy.kill().expect("end the process");
    busy.wait().expect("wait for the process");
    assert_eq!(agent.ends().code(), Some(1));
    assert!(agent.complaint().contains("busy cannot be measured: gone"), "{}", agent.complaint());
    assert!(orders(&mut market.operator, party).is_empty(), "it took its order back");
}

/// A process that uses all the processor time it gets; it ends with the test.
struct Busy(Child);

impl Busy {
    fn start() -> Busy {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "sh", "-c", "while :; do :; done"]);
        Busy(command.spawn().expect("start a shell"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_owns_an_instance_sees_how_it_fares_and_nobody_else_does() {
    let (daemon, mut market, _) = open(&Setup::small().key("sense_ms", "100"));
    let busy = [Busy::start(), Busy::start()];
    let mut baseline_vru = [U32::ZERO; 5];
    baseline_vru[0] = 1.into();
    let account = market.buyer.account;
    let parties = [0, 1].map(|at| {
        let place = format!("pid:{}", busy[at].0.id());
        instance(&mut market.operator, account, &format!("busy {at}"), baseline_vru, &place)
    });
    let all = |client: &mut Client| {
        let query = |from: u64| QuerySensors { from: (from as u32).into() };
        client.ask_all::<SensorRow, _>(query).expect("sensors")
    };
    let mut owner = daemon.client(&Identity::tenant(account));
    let rows = eventually("the rates of both", || {
        let rows = all(&mut owner);
        let busy = |row: &SensorRow| (100..2_000).contains(&row.cpu_millicores.get());
        (rows.len() == 2 && rows.iter().all(busy)).then_some(rows)
    });
    for (row, party) in rows.iter().zip(parties) {
        assert_eq!(row.instance.get(), party.instance);
        assert!(row.interval_us.get() >= 100_000 && row.memory_bytes.get() > 0, "{row:?}");
        assert_eq!(row.network_bytes_per_s.get(), UNKNOWN, "it shares the host's: {row:?}");
    }
    // The market's own instances are labels of a dry run, with nothing to measure.
    assert_eq!(all(&mut market.operator).len(), 2);
    let mut other = daemon.client(&Identity::tenant(market.seller.account));
    assert!(all(&mut other).is_empty());
    let hvctl = hvctl();
    let output = Command::new(hvctl)
        .args(["--json", "--connect", &daemon.unix().to_string(), "instance", "sensors", "busy 1"])
        .output()
        .expect("run hvctl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(shown["instance"], parties[1].instance);
    assert!(shown["cpu_millicores"].is_u64(), "{shown}");
    assert!(shown["exits_per_s"].is_null(), "{shown}");
    drop(busy);
    eventually("nothing of what has ended", || all(&mut owner).is_empty().then_some(()));
}

/// The files of a cgroup are read where the instance's place says; plain ones stand in here, as any
/// text can be put into them.
#[test]
fn what_a_cgroup_uses_is_measured() {
    let (daemon, mut market, _) = open(&Setup::small());
    let group = daemon.path("group");
    std::fs::create_dir(&group).expect("a directory");
    for (name, counted) in [
        ("cpu.stat", "usage_usec 5000\n"),
        ("memory.current", "67108864\n"),
        ("io.stat", "8:0 rbytes=0 wbytes=0\n"),
    ] {
        std::fs::write(group.join(name), counted).expect("a counter");
    }
    let mut baseline_vru = [U32::ZERO; 5];
    (baseline_vru[0], baseline_vru[1], baseline_vru[2]) = (1.into(), 1.into(), 1.into());
    let account = market.buyer.account;
    let place = group.to_str().expect("a plain path");
    let party = instance(&mut market.operator, account, "group", baseline_vru, place);
    grant(&mut market.operator, party.instance, 1000);
    let agent = Agent::start(&daemon, "group", &["--resource", "cpu,memory,block-io"]);
    agent.says("entered", 2);
    let entered = agent.events("entered");
    // It has 1000 s of baseline of CPU and uses none; it holds 4 VRUs of memory and has reserved 1;
    // of block I/O it neither has nor uses any, which is between the thresholds.
    let said = |at: usize, key: &str| entered[at][key].clone();
    assert_eq!((said(0, "resource"), said(0, "side")), ("cpu".into(), "sell".into()));
    assert_eq!((said(0, "demand_milli_vru"), said(0, "quantity_credits")), (0.into(), 940.into()));
    assert_eq!((said(1, "resource"), said(1, "side")), ("memory".into(), "buy".into()));
    // 60 s at 3 VRUs above the baseline, and 30 in hand.
    assert_eq!(said(1, "demand_milli_vru"), 4000);
    assert_eq!(said(1, "quantity_credits"), 210);
    assert_eq!(orders(&mut market.operator, party).len(), 2);
}

#[test]
fn a_guest_measures_itself() {
    let (daemon, mut market, _) = open(&Setup::small());
    let mut baseline_vru = [U32::ZERO; 5];
    baseline_vru[Resource::Memory as usize] = 1.into();
    let account = market.buyer.account;
    let party = instance(&mut market.operator, account, "guest", baseline_vru, "");
    let agent = Agent::start(&daemon, "guest", &["--guest", "--resource", "memory"]);
    let entered = agent.says("entered", 1);
    // This machine holds more than the 16 MiB that are reserved.
    assert_eq!((&entered["resource"], &entered["side"]), (&"memory".into(), &"buy".into()));
    let row = only_order(&mut market.operator, party);
    assert_eq!(row.book.get(), 1);
    let mut nowhere = Agent::start(&daemon, "guest", &["--resource", "memory"]);
    assert_eq!(nowhere.ends().code(), Some(2));
    assert!(nowhere.complaint().contains("--guest"), "{}", nowhere.complaint());
}
