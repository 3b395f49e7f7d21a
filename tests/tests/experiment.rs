//! An experiment with the real daemon: who is in which arm stays so, what is said of the effect is what was
//! made so, and harm ends it.

use serde_json::Value;
use vendue_tests::daemon::{Daemon, Setup, eventually};
use vendue_tests::market::*;
use vendue_wire::client::{Client, Identity};
use vendue_wire::code::{Kpi, Resource};
use vendue_wire::message::*;

/// Instances that there are from the beginning.
const INSTANCES: usize = 14;
const SALT: u64 = 5;

/// The arm that the protocol says, in other words than the daemon's.
fn arm_of(instance: u32) -> &'static str {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = (0..=instance).fold(SALT, |state, _| state.wrapping_add(STEP));
    for (shift, times) in [(30, 0xbf58_476d_1ce4_e5b9), (27, 0x94d0_49bb_1331_11eb_u64)] {
        state = (state ^ (state >> shift)).wrapping_mul(times);
    }
    if (state ^ (state >> 31)) % 2 == 0 { "a" } else { "b" }
}

/// An instance that declared what its latency is to be.
fn instance(operator: &mut Client, account: u32, name: &str) -> u32 {
    let mut baseline_vru = [U32::ZERO; 5];
    baseline_vru[Resource::Cpu as usize] = 1.into();
    let created = CreateInstance {
        client_id: operator.next_client_id().into(),
        account: account.into(),
        baseline_vru,
        name: field(name).expect("a short name"),
        ..CreateInstance::zeroed()
    };
    let instance = operator.call(&created).expect("an instance").value.get() as u32;
    let objective = distant_objective(operator.next_client_id(), instance);
    operator.call(&objective).expect("an objective");
    instance
}

/// Issues a token of 5 VRUs that may be swapped to an account; its id.
fn token(daemon: &Daemon, account: &str) -> String {
    let issue = ["token", "issue", account, "bronze", "cpu", "5", "--lasts", "7200"];
    daemon.said_one(&[&issue[..], &["--swap-eligible"]].concat())["id"].to_string()
}

/// An instance redeems a token, and its account has one more to lend.
fn redeem(daemon: &Daemon, account: &str, instance: u32) {
    token(daemon, account);
    daemon.said_one(&["token", "redeem", &token(daemon, account), &instance.to_string()]);
}

/// Says that an instance will need so many VRUs for most of an hour.
fn needs(operator: &mut Client, instance: u32, vru: u32) {
    let m = SetForecast {
        client_id: operator.next_client_id().into(),
        instance: instance.into(),
        lasts_ms: 3_000_000.into(),
        p50_vru: vru.into(),
        p90_vru: vru.into(),
        p975_vru: vru.into(),
        ..SetForecast::zeroed()
    };
    operator.call(&m).expect("a forecast");
}

/// Instances that the daemon had VRUs lent to.
fn lent(daemon: &Daemon) -> Vec<u32> {
    let rows = daemon.said(&["swap", "list"]);
    let to = |row: &Value| row["destination_instance"].as_u64().expect("an instance") as u32;
    let mut all: Vec<u32> = rows.iter().map(to).collect();
    all.sort_unstable();
    all
}

/// Each says that its latency is 1000 and its number, and more by what its arm does to it.
fn report(operator: &mut Client, all: &[u32], worse: u32) {
    for &instance in all {
        let more = if arm_of(instance) == "b" { worse } else { 0 };
        let value = 1000 + instance + more;
        let m = ReportKpi {
            instance: instance.into(),
            value: value.into(),
            kpi: Kpi::Latency as u8,
            ..ReportKpi::zeroed()
        };
        operator.call(&m).expect("a report");
    }
}

/// What their means differ by, worked out here.
fn difference(all: &[u32], worse: f64) -> f64 {
    let mean = |arm: &str| {
        let of: Vec<f64> =
            all.iter().filter(|at| arm_of(**at) == arm).map(|at| f64::from(*at)).collect();
        of.iter().sum::<f64>() / of.len() as f64
    };
    mean("b") - mean("a") + worse
}

fn start(daemon: &Daemon, name: &str, harm: f64) -> String {
    start_arms(daemon, name, harm, "[a]\n[b]\nbudget = 3.0\nrent = 12\n")
}

fn start_arms(daemon: &Daemon, name: &str, harm: f64, arms: &str) -> String {
    let file = daemon.path(&format!("{name}.toml"));
    let text = format!(
        "name = '{name}'\nresource = 'cpu'\nmeasure = 'latency'\nbetter = 'less'\nharm = {harm:?}\n\
         lasts_s = 3600\nsalt = {SALT}\n{arms}"
    );
    std::fs::write(&file, text).expect("a file");
    let done = daemon.said(&["experiment", "start", file.to_str().expect("a path")]).remove(0);
    done["experiment"].to_string()
}

fn show(daemon: &Daemon, number: &str) -> Value {
    daemon.said(&["experiment", "show", number]).remove(0)
}

/// Instance and arm of all that take part, once so many do.
fn arms(daemon: &Daemon, number: &str, many: usize) -> Vec<(u64, String)> {
    eventually("every instance takes part", || {
        let shown = show(daemon, number);
        let rows = shown["instances"].as_array().expect("rows").clone();
        let arm = |row: &Value| {
            let text = row["arm"].as_str().expect("an arm").to_owned();
            (row["instance"].as_u64().expect("a number"), text)
        };
        let mut all: Vec<_> = rows.iter().map(arm).collect();
        all.sort();
        (all.len() == many).then_some(all)
    })
}

/// Budgets of policies, by instance.
fn budgets(operator: &mut Client) -> Vec<(u32, u64)> {
    let rows =
        operator.ask_all::<PolicyRow, _>(|from| QueryPolicies { from: (from as u32).into() });
    let rows = rows.expect("policies");
    let mut all: Vec<_> =
        rows.iter().map(|row| (row.instance.get(), row.budget_micro.get())).collect();
    all.sort_unstable();
    all
}

/// Waits until so many rows of the audit trail say this: it follows the journal at its own pace.
fn audited(daemon: &Daemon, what: &str, times: usize) {
    eventually(&format!("{what:?} in the audit trail, {times} times"), || {
        let rows = daemon.said(&["audit"]);
        let says = |row: &&Value| row["what"].as_str().is_some_and(|text| text.contains(what));
        (rows.iter().filter(says).count() == times).then_some(())
    });
}

fn close(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() < 0.01
}

#[test]
fn arms_stay_the_effect_is_found_and_harm_ends_it() {
    let mut daemon = Daemon::start(&Setup::small().key("tick_ms", "20"));
    let mut operator = daemon.client(&Identity::operator());
    // The first instance says nothing: it takes part and is not measured.
    let Party { account, .. } = create_party(&mut operator, "owner", "");
    deposit(&mut operator, account, FUNDS_MICRO);
    let mut all: Vec<u32> =
        (0..INSTANCES).map(|at| instance(&mut operator, account, &format!("web {at}"))).collect();
    let treated: Vec<u32> = all.iter().copied().filter(|at| arm_of(*at) == "b").collect();
    assert!(treated.len() >= 5 && all.len() - treated.len() >= 4, "{treated:?}: another salt");
    // One has a policy of its own already.
    let own = ["policy", "set", &treated[0].to_string(), "cpu", "--budget", "7"];
    daemon.said(&[&own[..], &["--rent", "5"]].concat());
    let before = budgets(&mut operator);

    let number = start(&daemon, "longer lead", 100_000.0);
    let first = arms(&daemon, &number, INSTANCES + 1);
    assert!(first.iter().all(|(instance, arm)| arm == arm_of(*instance as u32)), "{first:?}");
    let during = budgets(&mut operator);
    let of_b = (0..=INSTANCES as u32).filter(|at| arm_of(*at) == "b");
    assert_eq!(during, of_b.map(|at| (at, 3_000_000)).collect::<Vec<_>>());
    audited(&daemon, ": exposed", INSTANCES + 1);

    report(&mut operator, &all, 250);
    drop(operator);
    assert!(daemon.terminate().success());
    daemon.launch();
    let mut operator = daemon.client(&Identity::operator());
    assert_eq!(arms(&daemon, &number, INSTANCES + 1), first, "a restart moves nobody");
    all.push(instance(&mut operator, account, "a later one"));
    let later = arms(&daemon, &number, INSTANCES + 2);
    assert!(later.iter().all(|(instance, arm)| arm == arm_of(*instance as u32)), "{later:?}");

    let measured = &all[..INSTANCES];
    report(&mut operator, measured, 250);
    let shown = show(&daemon, &number);
    let milli = |value: &Value| value.as_i64().expect("a number") as f64 / 1e3;
    let effect = milli(&shown["effect_milli"]);
    assert!(close(effect, difference(measured, 250.0)), "{effect}: {shown}");
    let interval = &shown["interval_95_milli"];
    let (low, high) = (milli(&interval[0]), milli(&interval[1]));
    // Numbers of instances are all that A and B differ by otherwise.
    assert!(low < 250.0 && 250.0 < high && high - low < 30.0, "{shown}");
    assert_eq!(shown["arms"][1]["values"].as_u64(), Some(2 * treated.len() as u64));
    let page = daemon.path("page.html");
    let path = page.to_str().expect("a path");
    let report_of = daemon.said(&["report", path]).remove(0);
    assert_eq!(report_of["experiments"][0]["effect_milli"], shown["effect_milli"], "{report_of}");

    // Who sets a policy itself takes part no more.
    let leaves = treated[1];
    let leaving = ["policy", "set", &leaves.to_string(), "cpu", "--budget", "9", "--rent", "1"];
    daemon.said(&leaving);
    audited(&daemon, "experiment 1 B: left", 1);
    daemon.said(&["experiment", "stop", &number]);
    let after = [&before[..], &[(leaves, 9_000_000)]].concat();
    eventually("policies are as before", || (budgets(&mut operator) == after).then_some(()));
    audited(&daemon, "experiment 1 stopped", 1);

    let number = start(&daemon, "worse", 100.0);
    arms(&daemon, &number, INSTANCES + 2);
    eventually("harm ends it", || {
        report(&mut operator, measured, 250);
        std::thread::sleep(std::time::Duration::from_millis(300));
        (show(&daemon, &number)["end"] == "harm").then_some(())
    });
    eventually("policies are as before", || (budgets(&mut operator) == after).then_some(()));
    audited(&daemon, "experiment 2 harm", 1);
    daemon.refused(&["experiment", "stop", &number]);
    drop(operator);
    assert!(daemon.terminate().success());
}

#[test]
fn swaps_on_are_compared_with_swaps_off() {
    let setup = Setup::small().key("tick_ms", "20").key("swap_every_ms", "100");
    let mut daemon = Daemon::start(&setup);
    let mut operator = daemon.client(&Identity::operator());
    // Its first instance has no token and takes no part.
    let Party { account, .. } = create_party(&mut operator, "owner", "");
    deposit(&mut operator, account, FUNDS_MICRO);
    let all: Vec<u32> =
        (0..INSTANCES).map(|at| instance(&mut operator, account, &format!("web {at}"))).collect();
    let of =
        |arm: &str| -> Vec<u32> { all.iter().copied().filter(|at| arm_of(*at) == arm).collect() };
    assert!(of("a").len() >= 4 && of("b").len() >= 4, "another salt");
    all.iter().for_each(|at| redeem(&daemon, "owner", *at));
    daemon.said_one(&["swap", "policy", "owner", "--seek"]);

    let arms_of = "account = 'owner'\n[a]\n[b]\nswaps = false\n";
    let number = start_arms(&daemon, "swaps off", 100_000.0, arms_of);
    let first = arms(&daemon, &number, INSTANCES);
    let wanted = all.iter().map(|at| (u64::from(*at), arm_of(*at).to_owned()));
    assert_eq!(first, wanted.collect::<Vec<_>>());
    audited(&daemon, "experiment 1 A: exposed", of("a").len());
    audited(&daemon, "experiment 1 B: exposed", of("b").len());

    all.iter().for_each(|at| needs(&mut operator, *at, 10));
    eventually("A is lent to", || (lent(&daemon) == of("a")).then_some(()));
    drop(operator);
    daemon.kill_9();
    daemon.launch();
    let mut operator = daemon.client(&Identity { session: 80, ..Identity::operator() });
    assert_eq!(arms(&daemon, &number, INSTANCES), first, "a crash moves nobody");
    // Another account's instance is at risk later than they, and helped: B would have been before it.
    let other = create_party(&mut operator, "other", "");
    redeem(&daemon, "other", other.instance);
    daemon.said_one(&["swap", "policy", "other", "--seek"]);
    needs(&mut operator, other.instance, BASELINE_VRU + 9);
    let and_other = [&of("a")[..], &[other.instance]].concat();
    eventually("who takes no part is lent to", || {
        (lent(&daemon).len() > of("a").len()).then_some(())
    });
    assert_eq!(lent(&daemon), and_other, "and B is left alone");

    report(&mut operator, &all, 250);
    let shown = show(&daemon, &number);
    let milli = |value: &Value| value.as_i64().expect("a number") as f64 / 1e3;
    let effect = milli(&shown["effect_milli"]);
    assert!(close(effect, difference(&all, 250.0)), "{effect}: {shown}");
    let interval = &shown["interval_95_milli"];
    assert!(milli(&interval[0]) < effect && effect < milli(&interval[1]), "{shown}");
    assert_eq!((&shown["compares"], &shown["arms"][0]["swaps"]), (&"swaps".into(), &true.into()));
    assert_eq!(shown["arms"][1]["swaps"], false);
    assert_eq!(shown["arms"][1]["sample"].as_u64(), Some(of("b").len() as u64));
    let page = daemon.path("page.html");
    let report_of = daemon.said(&["report", page.to_str().expect("a path")]).remove(0);
    let told = &report_of["experiments"][0];
    assert_eq!(told["effect_milli"], shown["effect_milli"], "{report_of}");
    assert_eq!(told["compares"], "swaps");

    let stopped = daemon.said_one(&["experiment", "stop", &number]);
    assert_eq!(stopped["to_be_given_back"], 0);
    let everybody = [&all[..], &[other.instance]].concat();
    eventually("B is lent to as well", || (lent(&daemon) == everybody).then_some(()));
    audited(&daemon, ": over", INSTANCES);

    // Thresholds are compared like that too.
    let arms = "[a]\nrisk_percent = 10\n[b]\nrisk_percent = 30\ncover = 'p97.5'\n";
    let number = start_arms(&daemon, "later", 1.0, arms);
    let shown = show(&daemon, &number);
    let terms =
        [0, 1].map(|arm| (&shown["arms"][arm]["risk_percent"], &shown["arms"][arm]["cover"]));
    assert_eq!(terms, [(&10.into(), &"p90".into()), (&30.into(), &"p97.5".into())]);
    drop(operator);
    assert!(daemon.terminate().success());
}
