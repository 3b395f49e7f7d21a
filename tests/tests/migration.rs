//! `hvctl migration` between two real daemons: an instance moves with its credits and leases, a move
//! that was interrupted is gone on with or taken back, and a restart in between changes nothing.

use serde_json::{Value, json};
use vendue_tests::daemon::{Daemon, Setup};
use vendue_wire::client::Identity;
use vendue_wire::message::*;

/// What `hvctl` said to a line.
#[track_caller]
fn said(daemon: &Daemon, line: &str) -> Vec<Value> {
    daemon.said(&line.split(' ').collect::<Vec<_>>())
}

/// Name, free and held milli-credits of processors, of each instance.
fn owners(daemon: &Daemon) -> Vec<(String, u64, u64)> {
    let rows = daemon
        .client(&Identity::operator())
        .ask::<InstanceRow, _>(&QueryInstances { from: 0.into() });
    let row = |row: &InstanceRow| {
        let (free, held) = (row.free_millicredits[0].get(), row.held_millicredits[0].get());
        (text(&row.name).to_owned(), free, held)
    };
    rows.expect("instances").iter().map(row).collect()
}

fn states(daemon: &Daemon) -> Vec<Value> {
    let rows = said(daemon, "migration list");
    rows.into_iter().map(|row| row["state"].clone()).filter(|state| state != "advice").collect()
}

/// Departs as `hvctl` would have before it died.
fn depart(source: &Daemon, destination: &Daemon, instance: u32) {
    let (mut here, mut there) =
        (source.client(&Identity::operator()), destination.client(&Identity::operator()));
    let client_id = there.next_client_id().into();
    let expect = ExpectInstance {
        client_id,
        baseline_vru: [10, 0, 0, 0, 0].map(U32::new),
        name: field("web").expect("a short name"),
        ..ExpectInstance::zeroed()
    };
    let ticket = there.call(&expect).expect("room").value;
    let rows = there.ask::<MigrationRow, _>(&QueryMigrations { from: 0.into() }).expect("rows");
    let house = rows.iter().find(|row| row.ticket == ticket).expect("the ticket").house;
    let client_id = here.next_client_id().into();
    let (instance, reserved, to) = (instance.into(), 0.into(), [0; NAME_BYTES]);
    here.call(&Depart { client_id, house, ticket, instance, reserved, to }).expect("it departs");
}

#[test]
fn an_instance_moves_to_another_daemon_and_back() {
    let [mut here, there] = [(); 2].map(|()| Daemon::start(&Setup::small()));
    for daemon in [&here, &there] {
        said(daemon, "account create acme --sells-to all --buys-from all");
        said(daemon, "account deposit acme 1000");
    }
    said(&here, "instance adopt web --account acme --tier bronze --cpu 10 --cgroup /web");
    said(&here, "instance grant web cpu 777");
    said(&here, "order sell web --resource cpu --price 9 --quantity 7");
    said(&here, "lease bid web cpu 3 --rent 2");
    let before = owners(&here)[0].clone();
    let all = before.1 + before.2;
    assert!(all >= 777, "{before:?}");

    let run = |to: &Daemon, rest: &str| format!("migration run web --to {}{rest}", to.unix());
    let moved = said(&here, &run(&there, " --called far --place /web"));
    assert_eq!(moved[0]["credit_millicredits"][0], json!(all));
    assert_eq!(owners(&here), []);
    let arrived = owners(&there);
    assert_eq!(arrived, [("web".to_owned(), all, 0)], "its credits stand there, to the unit");
    let leases = said(&there, "lease list");
    assert_eq!((&leases[0]["granted_vru"], leases.len()), (&json!(3), 1), "{leases:?}");
    assert_eq!((states(&here), states(&there)), (vec![], vec![]), "nothing is left under way");
    let audit: Vec<Value> = said(&there, "audit");
    for what in ["migration expected", "migration arrived"] {
        assert!(audit.iter().any(|row| row["what"] == what), "{what}");
    }
    assert!(here.refused(&run(&there, "").split(' ').collect::<Vec<_>>()).contains("is not here"));

    // Back: whoever carried it dies after the departure, and the daemon restarts.
    depart(&there, &here, 0);
    here.kill_9();
    here.launch();
    assert_eq!(
        (states(&here), states(&there)),
        (vec![json!("expected")], vec![json!("departing")])
    );
    assert_eq!(owners(&there), [("web".to_owned(), 0, all)], "in escrow");
    said(&there, &run(&here, ""));
    assert_eq!((owners(&here), owners(&there)), (arrived.clone(), vec![]));

    // And once more, but it is taken back.
    depart(&here, &there, 0);
    said(&here, &run(&there, " --back"));
    assert_eq!((owners(&here), owners(&there)), (arrived, vec![]));
    for daemon in [&here, &there] {
        said(daemon, "ledger");
        assert_eq!(states(daemon), Vec::<Value>::new());
    }
}
