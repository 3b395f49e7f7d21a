//! A daemon of three processes: they find one another, say what is wrong, and end together. That
//! nothing is lost when one is killed is in `recovery.rs`.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use vendue_tests::daemon::{Daemon, Setup, eventually, free_address};
use vendue_tests::market::*;
use vendue_wire::client::{Client, Identity};
use vendue_wire::message::*;

/// Trades go through, over every transport, and the limits that follow are decided in the third.
#[test]
fn three_processes_are_one_daemon() {
    let daemon = Daemon::start_apart(&Setup::small());
    let market = Market::open(&daemon);
    for endpoint in [daemon.unix(), daemon.shm()] {
        check_alive(&daemon, &market, &endpoint);
    }
    let mut client = daemon.client(&Identity::operator());
    let limits = eventually("limits that the actuator decided", || {
        let mut rows = 0;
        let ask = QueryLimits { from: 0.into() };
        client
            .ask_each(&ask, |row| rows += u32::from(row.message::<LimitRow>().is_some()))
            .expect("limits");
        (rows > 0).then_some(rows)
    });
    assert!(limits > 0);
    assert!(!daemon.path("stages").exists(), "nobody else may come in");
}

/// What an operator is answered over HTTP: the status, and the body if it is JSON.
fn ask(address: SocketAddr, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (digits, body) = ("2a".repeat(32), body.to_string());
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: v\r\nConnection: close\r\nAuthorization: Bearer {digits}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("send a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok()).expect("a status");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// HTTP is the gateway's: what is ordered there is the core's to match, and outlasts both.
#[test]
fn an_order_by_http_reaches_the_core() {
    let keys = tempfile::tempdir().expect("a directory");
    let token = keys.path().join("root");
    std::fs::write(&token, [0x2a; 32]).expect("a token");
    let address = free_address();
    let grant = format!("[[access]]\ntoken_file = \"{}\"\nrole = \"operator\"", token.display());
    let http = format!("[http]\naddress = \"{address}\"");
    let mut daemon = Daemon::start_apart(&Setup::small().with(&grant).with(&http));
    let Market { seller, buyer, .. } = Market::open(&daemon);
    assert_eq!(ask(address, "GET", "/readyz", &Value::Null), (200, json!({ "ready": true })));
    let place = |instance: u32, side: &str| {
        let order = json!({ "instance": instance, "book": 0, "side": side, "price_ticks": 10, "quantity_credits": 3 });
        let (status, events) = ask(address, "POST", "/order_place", &order);
        assert_eq!(status, 200, "{events}");
        events
    };
    let sold = place(seller.instance, "sell");
    let open = daemon.said_one(&["orders", &seller.instance.to_string()]);
    assert_eq!((&open["handle"], &sold[0]["event"]), (&sold[0]["handle"], &json!("accepted")));
    let bought = place(buyer.instance, "buy");
    assert_eq!(
        (&bought[1]["event"], &bought[1]["quantity_credits"]),
        (&json!("filled"), &json!(3))
    );
    assert_eq!(daemon.said_one(&["trades"])["price_ticks"], 10);
    eventually("the core's numbers", || {
        let (status, shown) = ask(address, "GET", "/status", &Value::Null);
        assert_eq!(status, 200, "{shown}");
        (shown["trades"] == 1 && shown["durable"] == daemon.status().0.durable.get()).then_some(())
    });

    daemon.kill_9();
    assert!(TcpStream::connect(address).is_err(), "nobody listens without a core");
    daemon.launch();
    let trades = ask(address, "GET", "/trades", &Value::Null);
    assert_eq!((trades.0, &trades.1[0]["price_ticks"]), (200, &json!(10)), "{}", trades.1);
    assert!(daemon.terminate().success(), "{}", daemon.log());
}

/// A fault of another process is shown by the gateway.
#[test]
fn faults_of_other_processes_are_shown() {
    let mut daemon = Daemon::start_apart(&Setup::small().key("every_records", "1000"));
    let mut market = Market::open(&daemon);
    for _ in 0..1100 {
        deposit(&mut market.operator, market.buyer.account, 1);
    }
    eventually("a snapshot", || (daemon.status().0.snapshot.get() > 0).then_some(()));
    daemon.kill_9();
    for file in std::fs::read_dir(daemon.data_dir().join("snapshots")).unwrap() {
        std::fs::write(file.unwrap().path(), b"not a snapshot").unwrap();
    }
    daemon.launch();
    // Once the clerk has looked.
    let faults = eventually("the core's fault, and no more", || {
        let (_, faults) = daemon.status();
        (faults.len() == 1 && faults[0].starts_with("recovery: ")).then_some(faults)
    });
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("recovery: ") && faults[0].contains("damaged"), "{faults:?}");
}

/// A process, ended when dropped.
struct Part(std::process::Child);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Without the third nothing is limited, and that is said.
#[test]
fn an_actuator_that_has_not_come_is_missed() {
    let daemon = Daemon::prepare(&Setup::small());
    let _core = Part(daemon.launch_part("core"));
    let _gateway = Part(daemon.launch_part("gateway"));
    let absent = || daemon.status().1.iter().any(|fault| fault.contains("actuator: absent"));
    eventually("a gateway", || {
        Client::connect(&daemon.unix(), &Identity::observer()).is_ok().then_some(())
    });
    assert!(absent(), "{:?}", daemon.status().1);
    let _actuate = Part(daemon.launch_part("actuate"));
    eventually("an actuator", || (!absent()).then_some(()));
    assert_eq!(daemon.status().1, Vec::<String>::new());
}

/// There is one of each part, and all of one configuration.
#[test]
fn who_does_not_fit_is_not_let_in() {
    let daemon = Daemon::prepare(&Setup::small());
    let mut core = daemon.launch_part("core");
    let ended = |child: &mut std::process::Child| {
        eventually("an end", || child.try_wait().expect("look after a part"))
    };
    eventually("a core that listens", || daemon.path("stages").exists().then_some(()));
    daemon.configure(&Setup::small().key("throttle_burst", "77"));
    assert_eq!(ended(&mut daemon.launch_part("gateway")).code(), Some(1));
    assert!(daemon.log().contains("its configuration or version is another"), "{}", daemon.log());
    daemon.configure(&Setup::small());
    let mut first = daemon.launch_part("gateway");
    eventually("a gateway", || daemon.path("socket").exists().then_some(()));
    assert_eq!(ended(&mut daemon.launch_part("gateway")).code(), Some(1));
    assert!(daemon.log().contains("there is one already"), "{}", daemon.log());
    assert_eq!(ended(&mut daemon.launch_part("core")).code(), Some(1), "one core");
    // Whoever was let in ends with the core.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(core.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(ended(&mut core).code(), Some(0), "{}", daemon.log());
    assert_eq!(ended(&mut first).code(), Some(1));
    assert!(daemon.log().contains("the core has gone"), "{}", daemon.log());
}

/// Told to stop, the core drains, tells everyone, and leaves a snapshot.
#[test]
fn a_stop_is_clean() {
    let mut daemon = Daemon::start_apart(&Setup::small());
    let mut market = Market::open(&daemon);
    let account = market.buyer.account;
    let free = deposit(&mut market.operator, account, 5);
    assert!(daemon.terminate().success(), "{}", daemon.log());
    assert!(daemon.data_dir().join("snapshots").read_dir().unwrap().next().is_some());
    daemon.launch();
    let mut client = daemon.client(&Identity::observer());
    assert_eq!(account_row(&mut client, account).free_micro.get(), free);
}

/// The service manager stops the other parts first: that is no failure of the core's.
#[test]
fn a_part_that_is_told_to_stop_takes_the_core_along_cleanly() {
    for part in ["gateway", "actuate"] {
        let mut daemon = Daemon::start_apart(&Setup::small());
        let status = daemon.terminate_part(part);
        assert!(status.success(), "{part}: {}", daemon.log());
        assert!(daemon.log().contains("a part was told to stop"), "{}", daemon.log());
    }
}
