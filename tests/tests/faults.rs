//! What the host can do to the daemon: take its room for files, its descriptors, its time. Each
//! time it recovers, or stops with a sentence that says what to do; what was acknowledged stays.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;
use vendue_engine::machine::command::Tick;
use vendue_engine::pipeline::record::Arrival;
use vendue_engine::storage::{Host, Log, LogConfig, Point, Sync, recover};
use vendue_tests::daemon::{Daemon, Setup, eventually};
use vendue_tests::market::*;
use vendue_tests::raw::Raw;
use vendue_wire::client::{Client, ClientError, Identity};
use vendue_wire::code::{Goodbye, Side, TimeInForce};
use vendue_wire::message::*;
use zerocopy::IntoBytes;

/// Sets a limit of the running daemon.
fn limit_daemon(daemon: &Daemon, limit: &str) {
    let pid = daemon.pid().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, limit]).status();
    assert!(status.expect("run prlimit").success(), "prlimit {limit}");
}

/// Descriptors the daemon has open.
fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("its descriptors").count()
}

fn one_more(client: &mut Client, account: u32) -> Deposit {
    let client_id = client.next_client_id().into();
    Deposit { client_id, amount_micro: 1.into(), account: account.into(), reserved: 0.into() }
}

/// Files may not grow beyond a limit: the journal stops and says so. Who has a request under way
/// is told at once instead of being left to wait, and finds out after the restart what became of
/// it.
#[test]
fn a_limit_on_file_size_stops_the_journal_with_a_word_to_everyone() {
    let setup = Setup::small().key("segment_bytes", "1048576").key("buffer_bytes", "16384");
    let mut daemon = Daemon::start(&setup);
    let market = Market::open(&daemon);
    let account = market.buyer.account;
    let identity = Identity::operator();
    let mut client = daemon.client(&identity);
    let mut idle = daemon.client(&Identity::tenant(account));
    let mut shared = Client::connect(&daemon.shm(), &Identity::operator()).expect("a session");
    limit_daemon(&daemon, "--fsize=65536");

    let (mut acknowledged, mut sent) = (0, 0);
    let mut over = None;
    while over.is_none() {
        let ended = (|| -> Result<(), ClientError> {
            while sent < acknowledged + 200 {
                let deposit = one_more(&mut client, account);
                client.send(&deposit)?;
                sent += 1;
            }
            let frame = client.recv(Duration::from_secs(10))?;
            let frame = frame.expect("an answer, or a farewell");
            acknowledged = frame.message::<Done>().map_or(acknowledged, |m| m.client_id.get());
            Ok(())
        })();
        over = ended.err();
    }
    let stopped = |error: &Option<ClientError>| {
        let reason = Goodbye::JournalStopped as u8;
        matches!(error, Some(ClientError::Farewell { reason: said }) if *said == reason)
    };
    assert!(stopped(&over) && acknowledged > 0, "{over:?} after {acknowledged} of {sent}");
    for session in [&mut idle, &mut shared] {
        let told = eventually("a farewell", || session.try_recv().err());
        assert!(stopped(&Some(told)), "a session that waits for nothing is told too");
    }
    let (status, faults) = daemon.status();
    assert_eq!(status.accepting, 0);
    let fault = faults.iter().find(|fault| fault.starts_with("journal: ")).expect("a fault");
    assert!(fault.contains("limit on file size") && fault.contains("start again"), "{fault}");
    assert_eq!(daemon.terminate().code(), Some(1));

    daemon.launch();
    let mut client = daemon.client(&identity);
    let done = client.ack.last_client_id.get();
    assert!((acknowledged..=sent).contains(&done), "{acknowledged} <= {done} <= {sent}");
    let free = account_row(&mut client, account).free_micro.get();
    assert_eq!(free, FUNDS_MICRO + done);
    check_alive(&daemon, &market, &daemon.unix());
}

/// Files may not grow beyond a limit that a snapshot exceeds: it is an error like any other, not a
/// signal that ends the daemon in the middle of a word. The journal has everything.
#[test]
fn a_snapshot_beyond_the_limit_costs_nothing_but_the_snapshot() {
    // A table that makes the snapshot larger than the journal will be.
    let setup = Setup::small().key("every_records", "1000").key("orders_max", "65536");
    let mut daemon = Daemon::start(&setup);
    let mut market = Market::open(&daemon);
    let account = market.buyer.account;
    limit_daemon(&daemon, "--fsize=524288");
    for _ in 0..1100 {
        deposit(&mut market.operator, account, 1);
    }
    let told = |faults: &[String]| faults.iter().any(|fault| fault.contains("File too large"));
    eventually("a fault", || told(&daemon.status().1).then_some(()));
    deposit(&mut market.operator, account, 1);
    assert!(daemon.terminate().code().is_some(), "a signal ended it");
    daemon.launch();
    let mut client = daemon.client(&Identity::observer());
    assert_eq!(account_row(&mut client, account).free_micro.get(), FUNDS_MICRO + 1101);
    check_ledger(&mut client);
}

/// No descriptor is left for another connection: who is there is served, the fault says what to
/// do, and who waited is served as soon as there is one again, though nobody new knocks.
#[test]
fn without_descriptors_those_who_are_there_are_served() {
    let daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    let socket = daemon.path("socket");
    let before = descriptors(&daemon);
    limit_daemon(&daemon, &format!("--nofile={}:", before + 4));
    let mut there: Vec<Raw> =
        (0..4).map(|_| Raw::logged_on(&socket, &Identity::observer())).collect();
    let waiting = UnixStream::connect(&socket).expect("the kernel keeps it for the daemon");
    let account = market.buyer.account;
    deposit(&mut market.operator, account, 1);
    there[0].send(1, &QueryStatus {});
    let mut faults = Vec::new();
    loop {
        let came = there[0].next_said().expect("an answer");
        faults.extend(came.message::<FaultRow>().map(|row| text(&row.text).to_owned()));
        if came.message::<QueryEnd>().is_some() {
            break;
        }
    }
    let said = faults.iter().any(|fault| {
        fault.contains("Too many open files") && fault.contains("raise the limit of open")
    });
    assert!(said, "{faults:?}");

    there.pop();
    let mut waiting = Raw::over(waiting);
    waiting.send(0, &vendue_tests::raw::logon(&Identity::observer()));
    let ack = waiting.frame().expect("an answer to the logon");
    assert!(ack.message::<LogonAck>().is_some(), "{ack:?}");
    drop((there, waiting));
    limit_daemon(&daemon, &format!("--nofile={}:", before + 64));
    eventually("the end of the fault", || daemon.status().1.is_empty().then_some(()));
    check_alive(&daemon, &market, &daemon.unix());
}

/// Ten thousand connections, a wave at a time: some log on, some say nothing, some are cut off in
/// the middle of a word. Nothing of them is left.
#[test]
fn ten_thousand_connects_leave_nothing_behind() {
    const WAVES: usize = 20;
    const WAVE: usize = 500;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("raise the limit");
    let daemon = Daemon::start(&Setup::small().key("connections_max", "1024"));
    let market = Market::open(&daemon);
    let socket = daemon.path("socket");
    let before = descriptors(&daemon);
    for wave in 0..WAVES {
        let mut peers: Vec<Raw> = (0..WAVE).map(|_| Raw::connect(&socket)).collect();
        for (at, peer) in peers.iter_mut().enumerate() {
            match (wave + at) % 3 {
                0 => {
                    peer.send(0, &vendue_tests::raw::logon(&Identity::observer()));
                }
                1 => {
                    peer.send_bytes(&[80, 0, 1, 1, 0]);
                }
                _ => {}
            }
        }
        for (_, peer) in peers.iter_mut().enumerate().filter(|(at, _)| (wave + at) % 3 == 0) {
            let ack = peer.frame().expect("an answer to the logon");
            assert!(ack.message::<LogonAck>().is_some(), "{ack:?}");
        }
    }
    // The one that asks is a connection too.
    eventually("the end of all connections", || {
        (daemon.status().0.connections.get() <= 2).then_some(())
    });
    eventually("the end of all descriptors", || (descriptors(&daemon) <= before).then_some(()));
    check_alive(&daemon, &market, &daemon.unix());
}

/// The daemon is stopped for longer than its peers may be silent, again and again. They were not
/// silent: when it goes on it finds their heartbeats, and ends nobody's session.
#[test]
fn a_daemon_that_stood_still_does_not_blame_its_peers() {
    const HEARTBEAT_MS: u32 = 500;
    let daemon = Daemon::start(&Setup::small());
    let market = Market::open(&daemon);
    let identity =
        Identity { heartbeat_ms: HEARTBEAT_MS, ..Identity::tenant(market.buyer.account) };
    let mut clients = [
        daemon.client(&identity),
        Client::connect(&daemon.shm(), &Identity { session: 77, ..identity }).expect("a session"),
    ];
    for round in 0..3 {
        daemon.signal(Signal::SIGSTOP);
        let stopped_at = std::time::Instant::now();
        while stopped_at.elapsed() < Duration::from_millis(u64::from(3 * HEARTBEAT_MS)) {
            for client in &mut clients {
                assert!(client.try_recv().expect("the connection goes on").is_none());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon.signal(Signal::SIGCONT);
        for (at, client) in clients.iter_mut().enumerate() {
            let ended = client.ask_each(&QueryStatus {}, |_| {});
            assert!(ended.is_ok(), "{ended:?} of {at} in {round}");
        }
    }
    check_alive(&daemon, &market, &daemon.unix());
}

/// The clock was wrong, ahead, when the journal was written, and is right again. Time goes on from
/// there, so that orders expire; the fault says so until the clock has caught up.
#[test]
fn a_journal_from_the_future_does_not_stop_time() {
    const AHEAD_NS: u64 = 3_600_000_000_000;
    let mut daemon = Daemon::start(&Setup::small().key("tick_ms", "10"));
    let market = Market::open(&daemon);
    assert_eq!(daemon.terminate().code(), Some(0));
    let future_ns = now_ns() + AHEAD_NS;
    append_tick(&daemon.data_dir().join("journal"), future_ns);
    daemon.launch();

    let (_, faults) = daemon.status();
    let told = |faults: &[String]| {
        faults.iter().any(|fault| fault.starts_with("clock: ") && fault.contains("check the clock"))
    };
    assert!(told(&faults), "{faults:?}");
    let mut seller = daemon.client(&Identity::tenant(market.seller.account));
    assert!(seller.ack.time_ns.get() >= future_ns, "time never goes back");
    let expires_at_ms = seller.ack.time_ns.get() / 1_000_000 + 200;
    let order = NewOrder {
        time_in_force: TimeInForce::Gtd as u8,
        expires_at_ms: expires_at_ms.into(),
        ..limit(&mut seller, market.seller, Side::Sell, 9, 1)
    };
    seller.call_for::<Accepted, _>(&order).expect("an order");
    let cancelled = expect::<Cancelled>(&mut seller);
    let at_ms = cancelled.time_ns.get() / 1_000_000;
    assert!((expires_at_ms..expires_at_ms + 60_000).contains(&at_ms), "{at_ms} {expires_at_ms}");
    check_ledger(&mut daemon.client(&Identity::observer()));
}

fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("a clock after 1970").as_nanos() as u64
}

/// Writes one more record to a journal: a tick at this time.
fn append_tick(journal: &std::path::Path, time_ns: u64) {
    let recovered = recover(&Host, journal, None, Point::START).expect("a whole journal");
    let sequence = recovered.last.sequence + 1;
    let config = LogConfig { segment_bytes: 1 << 20, buffer_bytes: 1 << 18, sync: Sync::Always };
    let mut log = Log::open(config, recovered).expect("a journal to write");
    let arrival = Arrival { request: 0.into(), session: ANY.into(), connection: ANY.into() };
    let body = [arrival.as_bytes(), Tick::zeroed().as_bytes()].concat();
    log.append(sequence, time_ns, ANY, Tick::KIND, &body).expect("room for a record");
    while !log.idle() {
        log.wait().expect("a record written");
    }
    log.close().expect("a journal closed");
}
