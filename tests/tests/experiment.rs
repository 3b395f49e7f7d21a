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
    let objective = SetObjective {
        client_id: operator.next_client_id().into(),
        budget_micro: 1.into(),
        instance: instance.into(),
        window_s: 3600.into(),
        breach_at: 1_000_000.into(),
        recover_at: 1.into(),
        breach_ms: 3_600_000.into(),
        recover_ms: 3_600_000.into(),
        step_vru: 1.into(),
        most_vru: 1.into(),
        rent_ticks: 1.into(),
        kpi: Kpi::Latency as u8,
        class: 1,
        ..SetObjective::zeroed()
    };
    operator.call(&objective).expect("an objective");
    instance
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
    let file = daemon.path(&format!("{name}.toml"));
    let text = format!(
        "name = '{name}'\nresource = 'cpu'\nmeasure = 'latency'\nbetter = 'less'\nharm = {harm:?}\n\
         lasts_s = 3600\nsalt = {SALT}\n[a]\n[b]\nbudget = 3.0\nrent = 12\n"
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
