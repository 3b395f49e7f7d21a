//! What is foreseen with the real daemon: what was used is shown and outlasts it, what is planned shifts
//! forecasts.

use std::process::{Child, Command};
use vendue_tests::daemon::{Daemon, Setup, eventually};
use vendue_tests::market::*;
use vendue_wire::client::{Client, Identity};
use vendue_wire::code::Resource;
use vendue_wire::message::*;

/// A process that holds a little memory and does nothing, killed with the test.
struct Still(Child);

impl Still {
    fn start() -> Still {
        let sleep = ["--pdeathsig", "KILL", "--", "sleep", "infinity"];
        Still(Command::new("setpriv").args(sleep).spawn().expect("start setpriv"))
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An account with an instance that is this process.
fn holder(daemon: &Daemon, still: &Still) -> Party {
    let mut operator = daemon.client(&Identity::operator());
    let account = create_party(&mut operator, "owner", "").account;
    let mut baseline_vru = [U32::ZERO; 5];
    baseline_vru[Resource::Memory as usize] = 1.into();
    let instance = CreateInstance {
        client_id: operator.next_client_id().into(),
        account: account.into(),
        baseline_vru,
        name: field("web").expect("a short name"),
        place: field(&format!("pid:{}", still.0.id())).expect("a short place"),
        ..CreateInstance::zeroed()
    };
    let instance = operator.call(&instance).expect("an instance").value.get() as u32;
    Party { account, instance }
}

fn seconds(client: &mut Client, instance: u32) -> Vec<HistoryRow> {
    let query = |from_ns: u64| QueryHistory {
        from_ns: from_ns.into(),
        instance: instance.into(),
        width_s: 1.into(),
        resource: Resource::Memory as u8,
        reserved: 0,
    };
    client.ask_all(query).expect("a history")
}

fn setup() -> Setup {
    Setup::small().key("meter_ms", "100")
}

#[test]
fn what_was_used_is_shown_and_outlasts_the_daemon() {
    let mut daemon = Daemon::start(&setup());
    let still = Still::start();
    let party = holder(&daemon, &still);
    let mut owner = daemon.client(&Identity::tenant(party.account));
    let used = |rows: &[HistoryRow]| {
        // Some of 16 MiB.
        rows.iter().filter(|row| (1..1000).contains(&row.used_milli_vru.get())).count()
    };
    let rows = eventually("some seconds of use", || {
        let rows = seconds(&mut owner, party.instance);
        (used(&rows) >= 3).then_some(rows)
    });
    let steps = rows.windows(2).map(|two| two[1].time_ns.get() - two[0].time_ns.get());
    assert!(steps.into_iter().all(|step| step == 1_000_000_000), "a row a second");
    assert_eq!(rows[0].p50_milli_vru.get(), u32::MAX, "nothing was foreseen of it");
    let shown = daemon.said(&["forecast", "history", "web", "memory", "--step", "second"]);
    assert!(shown.iter().any(|row| row["used_milli_vru"].as_u64() > Some(0)), "{shown:?}");
    assert!(shown[0]["p50_milli_vru"].is_null(), "{shown:?}");
    let other = create_party(&mut daemon.client(&Identity::operator()), "other", "").account;
    let mut other = daemon.client(&Identity::tenant(other));
    assert!(seconds(&mut other, party.instance).is_empty(), "it is another's");

    assert!(daemon.terminate().success());
    let file = daemon.data_dir().join("forecast").join("series");
    let written = std::fs::read(&file).expect("what was used is written down");
    daemon.launch();
    let mut owner = daemon.client(&Identity::tenant(party.account));
    let begins = rows[0].time_ns.get() / 1_000_000_000;
    eventually("what was used before", || {
        let again = seconds(&mut owner, party.instance);
        let first = again.first()?.time_ns.get() / 1_000_000_000;
        // Of seconds that are rounded to whole ones the clock of the host makes one more or less.
        (first.abs_diff(begins) <= 2 && used(&again) > used(&rows)).then_some(())
    });

    daemon.kill_9();
    std::fs::write(&file, &written[..written.len() / 2]).expect("torn");
    daemon.launch();
    let mut owner = daemon.client(&Identity::tenant(party.account));
    let anew = eventually("use that is measured anew", || {
        let rows = seconds(&mut owner, party.instance);
        (used(&rows) > 0).then_some(rows)
    });
    assert!(anew[0].time_ns.get() / 1_000_000_000 > begins + 2, "the torn file is not used");
    let log = daemon.log();
    assert!(log.contains("what was used before is not known"), "{log}");
    drop(owner);
    assert!(daemon.terminate().success());
}

#[test]
fn a_file_of_events_shifts_what_is_foreseen() {
    let mut daemon = Daemon::start(&Setup::small());
    let party = create_party(&mut daemon.client(&Identity::operator()), "web", "");
    let p50s = |daemon: &Daemon| -> Vec<u64> {
        let rows = daemon.said(&["forecast", "list"]);
        rows.iter().map(|row| row["p50_vru"].as_u64().expect("a number")).collect()
    };
    for (source, horizon) in [("model", "day"), ("user", "event")] {
        let of = ["--source", source, "--horizon", horizon, "--lasts", "86400"];
        let all = [&["forecast", "set", "web", "cpu", "10", "--p90", "20"], &of[..]].concat();
        daemon.said(&all);
    }
    assert_eq!(p50s(&daemon), [10, 10]);
    let now = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().expect("a clock");
    let now = String::from_utf8(now.stdout).expect("text").trim().to_owned();
    let table = format!(
        "[[event]]\nname = 'sale'\ninstance = 'web'\nresource = 'cpu'\nfrom = {now}\n\
         lasts_s = 3600\npercent = 150\nadd = 7\n"
    );
    let file = daemon.path("plan.toml");
    let plan = |daemon: &Daemon, text: &str| {
        std::fs::write(&file, text).expect("a file");
        daemon.said(&["forecast", "plan", file.to_str().expect("a path")]).remove(0)
    };
    assert_eq!(plan(&daemon, &table)["planned"], 1);
    assert_eq!(p50s(&daemon), [22, 10], "what somebody else said stays");
    assert_eq!(plan(&daemon, &table)["unchanged"], 1, "what is planned is not said again");

    assert!(daemon.terminate().success());
    daemon.launch();
    assert_eq!(p50s(&daemon), [22, 10]);
    let rows = daemon.said(&["forecast", "events"]);
    assert_eq!((rows.len(), &rows[0]["name"]), (1, &"sale".into()));

    let stamp = now.replace(['-', ':'], "");
    let calendar = format!(
        "BEGIN:VEVENT\r\nUID:night\r\nSUMMARY:web cpu 50%\r\nDTSTART:{stamp}\r\nDURATION:P1D\r\n\
         RRULE:FREQ=DAILY\r\nEND:VEVENT\r\nBEGIN:VEVENT\r\nSUMMARY:lunch\r\nEND:VEVENT\r\n"
    );
    let file = daemon.path("plan.ics");
    std::fs::write(&file, calendar).expect("a file");
    let path = file.to_str().expect("a path");
    let mut owner = daemon.client(&Identity::tenant(party.account));
    let account = party.account.to_string();
    let done = daemon.said(&["forecast", "plan", path, "--account", &account]).remove(0);
    let counts = ["planned", "removed", "not_understood"].map(|key| done[key].as_u64());
    assert_eq!(counts, [Some(1); 3], "{done}");
    assert_eq!(p50s(&daemon), [5, 10]);
    assert_eq!(
        owner
            .ask_all::<EventRow, _>(|from| QueryEvents { from: (from as u32).into() })
            .expect("events")
            .len(),
        1
    );
    std::fs::write(&file, "").expect("a file");
    daemon.said(&["forecast", "plan", path]);
    assert_eq!(p50s(&daemon), [10, 10]);
    drop(owner);
    assert!(daemon.terminate().success());
}
