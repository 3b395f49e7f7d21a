//! The load generator's program on the real daemon: what it finds right is right, what is wrong it
//! finds, and a script can trust its exit code.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use vendue_loadgen::attack::Kind;
use vendue_loadgen::meflow::{self, generate::generate};
use vendue_loadgen::record::{Entry, Reader};
use vendue_tests::daemon::{Daemon, Setup, eventually, free_address};
use vendue_tests::market::*;
use vendue_tests::vm::binaries;
use vendue_wire::client::Endpoint;
use vendue_wire::code::{Goodbye, Reject};
use vendue_wire::message::{Accepted, Body, Cancelled, Filled};

const TOKEN: [u8; 32] = [7; 32];

fn program() -> PathBuf {
    match binaries(&["loadgen"]) {
        Ok(mut found) => found.remove(0).0,
        Err(error) => panic!("{error}"),
    }
}

fn loadgen(endpoint: &Endpoint, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["--json", "--connect", &endpoint.to_string()]).args(arguments);
    command.stdin(Stdio::null());
    command
}

/// The exit code and what it printed.
fn ended(output: &Output) -> (Option<i32>, String) {
    let streams = [&output.stdout, &output.stderr];
    let text = streams.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    (output.status.code(), text)
}

#[track_caller]
fn ran(mut command: Command) -> (Option<i32>, String) {
    ended(&command.output().expect("run loadgen"))
}

/// The report of a run that must have passed every check.
#[track_caller]
fn passed(command: Command) -> Value {
    let (code, text) = ran(command);
    assert_eq!(code, Some(0), "{text}");
    let report: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!(report["violation"], Value::Null, "{text}");
    report
}

#[track_caller]
fn number(report: &Value, path: &str) -> u64 {
    let value = report.pointer(path).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("no number {path} in {report}"))
}

/// Room for sessions that rest hundreds of orders each.
fn roomy() -> Setup {
    Setup::small().key("orders_max", "65536").key("orders_per_instance_max", "8192")
}

/// Also reached over TCP, with a token.
fn reachable() -> (Daemon, Endpoint, PathBuf) {
    let address = free_address();
    let setup = roomy()
        .key("tcp", &format!("\"{address}\""))
        .with("[[access]]\ntoken_file = \"{dir}/token\"\nrole = \"operator\"");
    let mut daemon = Daemon::prepare(&setup);
    let token = daemon.path("token");
    std::fs::write(&token, TOKEN).expect("write the token");
    daemon.launch();
    (daemon, Endpoint::Tcp(address), token)
}

/// A mix of tenants over each transport: all checks pass, the daemon counted the same trades, and
/// the record of it checks out afterwards.
#[test]
fn every_transport_is_driven_and_checked() {
    let (daemon, tcp, token) = reachable();
    let mut trades = 0;
    for (at, endpoint) in [daemon.unix(), daemon.shm(), tcp].into_iter().enumerate() {
        let (record, plot) = (daemon.path(&format!("{at}.rec")), daemon.path(&format!("{at}.svg")));
        let mut command = loadgen(&endpoint, &["--mix", "maker=3,taker=2,mixed=2,bursty=1,idle=2"]);
        command.args(["--rate", "3000", "--seconds", "2", "--seed", &at.to_string()]);
        command.arg("--record").arg(&record).arg("--plot").arg(&plot);
        command.arg("--token-file").arg(&token);
        let report = passed(command);
        assert_eq!(number(&report, "/sessions"), 10);
        assert_eq!(number(&report, "/sent") + number(&report, "/unsent"), 6000);
        let found = number(&report, "/trades");
        assert!(found > 50 && number(&report, "/trades_checked") == found, "{report}");
        trades += found;
        assert_eq!(daemon.status().0.trades.get(), trades, "the daemon counted others");
        let profiles: BTreeSet<&String> =
            report["profile_ack_ns"].as_object().expect("profiles").keys().collect();
        assert_eq!(profiles.len(), 4, "idle sessions ask for nothing: {profiles:?}");
        let svg = std::fs::read_to_string(&plot).expect("the picture");
        assert!(svg.starts_with("<svg") && svg.contains("order-to-ack") && svg.contains("taker"));

        let checked = passed(check(&record));
        assert_eq!(number(&checked, "/trades"), found);
        for count in ["/orders", "/accepted", "/filled", "/cancelled", "/sessions"] {
            let idle = if count == "/sessions" { 2 } else { 0 };
            assert_eq!(number(&checked, count) + idle, number(&report, count), "{count}");
        }
    }
    let (status, faults) = daemon.status();
    assert_eq!((status.orders.get(), &faults[..]), (0, &[][..]), "nothing is left behind");
}

fn check(record: &Path) -> Command {
    let mut command = Command::new(program());
    command.arg("--json").arg("--check").arg(record);
    command
}

/// Entries of a record: where each begins and how long it is with its frame.
fn entries(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 16;
    while at < bytes.len() {
        let frame = at + size_of::<Entry>();
        let length =
            size_of::<Entry>() + usize::from(u16::from_le_bytes([bytes[frame], bytes[frame + 1]]));
        found.push((at, length));
        at += length;
    }
    found
}

/// A record in which one reply is missing, doubled or changed fails its check; what is no record
/// is told from it by the exit code.
#[test]
fn a_falsified_record_is_found_out() {
    let daemon = Daemon::start(&roomy());
    let path = daemon.path("run.rec");
    let mut command = loadgen(&daemon.unix(), &["--rate", "2000", "--seconds", "1"]);
    command.arg("--record").arg(&path);
    passed(command);
    let bytes = std::fs::read(&path).expect("the record");
    assert!(Reader::open(&path).expect("a record").head.closed == 1);
    let kind = |at: usize| bytes[at + size_of::<Entry>() + 3];
    let all = entries(&bytes);
    let nth = |wanted: u8, n: usize| {
        let mut of_kind = all.iter().filter(|(at, _)| kind(*at) == wanted);
        *of_kind.nth(n).unwrap_or_else(|| panic!("no {wanted:#04x} number {n}"))
    };
    let without = |(at, length): (usize, usize)| [&bytes[..at], &bytes[at + length..]].concat();
    let twice = |(at, length): (usize, usize)| {
        [&bytes[..at + length], &bytes[at..at + length], &bytes[at + length..]].concat()
    };
    let changed = |(at, _): (usize, usize), field: usize| {
        let mut bytes = bytes.clone();
        bytes[at + size_of::<Entry>() + 16 + field] ^= 1;
        bytes
    };
    let field = |fields: &[(&str, usize, usize)], name: &str| {
        fields.iter().find(|field| field.0 == name).expect("a field of this name").1
    };
    let filled = nth(Filled::KIND, 10);
    let damaged = [
        ("an acceptance missing", without(nth(Accepted::KIND, 20))),
        ("a fill missing", without(filled)),
        ("a cancel missing", without(nth(Cancelled::KIND, 5))),
        ("an acceptance twice", twice(nth(Accepted::KIND, 20))),
        ("a fill twice", twice(filled)),
        ("another price", changed(filled, field(Filled::FIELDS, "price_ticks"))),
        ("another quantity", changed(filled, field(Filled::FIELDS, "quantity"))),
        ("another counterparty", changed(filled, field(Filled::FIELDS, "counterparty"))),
        ("another trade", changed(filled, field(Filled::FIELDS, "trade") + 7)),
        ("another handle", changed(nth(Accepted::KIND, 20), field(Accepted::FIELDS, "handle"))),
    ];
    for (what, bytes) in damaged {
        std::fs::write(&path, bytes).expect("write the record");
        let (code, text) = ran(check(&path));
        assert_eq!(code, Some(1), "{what}: {text}");
        assert!(text.contains("check failed: "), "{what}: {text}");
    }
    for (what, bytes) in [
        ("ends amid a frame", &bytes[..bytes.len() - 1]),
        ("ends amid a frame", &bytes[..16 + 40]),
        ("no record", &b"something else altogether"[..]),
        ("no record", &b""[..]),
    ] {
        std::fs::write(&path, bytes).expect("write the record");
        let (code, text) = ran(check(&path));
        assert_eq!((code, text.contains(what)), (Some(2), true), "{text}");
    }
}

/// The daemon stands still for a second in the middle of a run. An open loop charges it for every
/// request that was due meanwhile; a closed one asks nothing meanwhile, and hides it.
#[test]
fn a_stall_shows_in_an_open_loop_and_hides_in_a_closed_one() {
    let p90 = |rate: &str| {
        let daemon = Daemon::start(&roomy());
        let arguments = ["--rate", rate, "--depth", "1", "--seconds", "4", "--progress"];
        let mut command = loadgen(&daemon.unix(), &arguments);
        let load = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let load = load.expect("start loadgen");
        eventually("the load", || (daemon.status().0.trades.get() > 100).then_some(()));
        daemon.signal(Signal::SIGSTOP);
        std::thread::sleep(Duration::from_secs(1));
        daemon.signal(Signal::SIGCONT);
        let (code, text) = ended(&load.wait_with_output().expect("the end of the load"));
        assert_eq!(code, Some(0), "{text}");
        let report: Value = serde_json::from_str(&text).expect("JSON");
        let max = number(&report, "/order_ack_ns/max");
        assert!(max >= 900_000_000, "one request at least waited out the stall: {report}");
        number(&report, "/order_ack_ns/p90")
    };
    // A second of four is a quarter of what is due: most of it waits longer than half a second.
    let (open, closed) = (p90("1000"), p90("0"));
    assert!(open >= 400_000_000, "the stall does not show: p90 of {open} ns");
    assert!(closed < open, "the closed loop shows it too: p90 of {closed} ns");
}

/// A flow from a file, by one session and by one for each book: every fill is the naive matcher's.
#[test]
fn a_flow_file_trades_as_it_must() {
    let flow = generate(7, 3, 300, 4000);
    for sessions in ["1", "3"] {
        let daemon = Daemon::start(&roomy());
        let path = daemon.path("flow.bin");
        meflow::write(&path, &flow.records).expect("write the flow");
        let arguments = ["--prefill", "300", "--rate", "4000", "--sessions", sessions];
        let mut command = loadgen(&daemon.shm(), &arguments);
        command.arg("--flow").arg(&path);
        let report = passed(command);
        let swept = flow.expected.swept;
        for (name, expected) in
            [("trades", swept.trades), ("volume", swept.volume), ("notional", swept.notional)]
        {
            assert_eq!(number(&report, &format!("/flow/{name}")), expected, "{report}");
        }
        let hash = report["flow"]["hash"].as_u64();
        assert_eq!(hash, (sessions == "1").then_some(swept.hash));
        let timed =
            number(&report, "/order_ack_ns/count") + number(&report, "/cancel_ack_ns/count");
        assert_eq!(timed, 4000, "neither the building of the book nor the sweeps count");
        assert_eq!(daemon.status().0.orders.get(), 0);
    }
}

/// What a flow needs and the daemon does not have is said, and the check fails.
#[test]
fn a_flow_that_does_not_fit_is_refused() {
    let daemon = Daemon::start(&Setup::small().key("orders_per_instance_max", "20"));
    let path = daemon.path("flow.bin");
    meflow::write(&path, &generate(7, 1, 300, 400).records).expect("write the flow");
    let with = |arguments: &[&str]| {
        let mut command = loadgen(&daemon.unix(), arguments);
        command.arg("--flow").arg(&path);
        ran(command)
    };
    let (code, text) = with(&["--prefill", "300"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("too many open orders for this instance"), "{text}");
    let (code, text) = with(&["--prefill", "700"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("lower --prefill"), "{text}");
    let market = Market::open(&daemon);
    enter(&mut daemon.client(&tenant(&market)), market.seller, vendue_wire::code::Side::Sell, 9, 1);
    let (code, text) = with(&["--prefill", "300"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("needs empty books"), "{text}");
}

fn tenant(market: &Market) -> vendue_wire::client::Identity {
    vendue_wire::client::Identity::tenant(market.seller.account)
}

/// Every kind of attacker at once: each is answered or cut off as the protocol says, every reply
/// to the honest sessions is right, and what they lost is in the report.
#[test]
fn honest_sessions_are_served_right_beside_attackers() {
    let setup = roomy().key("throttle_per_s", "2000").key("throttle_burst", "2000");
    let setup = setup.key("logon_timeout_ms", "200").key("outbound_bytes_max", "65536");
    let daemon = Daemon::start(&setup);
    let arguments = ["--rate", "400", "--seconds", "6", "--attack", "--attackers", "2"];
    let report = passed(loadgen(&daemon.unix(), &arguments));
    let attack = &report["attack"];
    for window in ["calm_ack_ns", "attacked_ack_ns"] {
        let count = number(&attack[window], "/count");
        assert!((900..=1200).contains(&count), "{window}: {count} of 1200 less what settles");
    }
    assert!(attack["p99_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{attack}");
    let answered = |kind: Kind, reason: &str| {
        let fate = &attack["attackers"][kind.name()];
        assert!(number(fate, "/connections") > 0 && number(fate, "/bytes") > 0, "{fate}");
        assert!(number(fate, &format!("/ended/{reason}")) > 0, "{}: {fate}", kind.name());
    };
    answered(Kind::Flood, "left by itself");
    answered(Kind::Garbage, Goodbye::BadVersion.text());
    answered(Kind::Truncated, "left amid a frame");
    answered(Kind::Oversized, Goodbye::BadFrame.text());
    answered(Kind::Stale, Goodbye::SequenceGap.text());
    answered(Kind::HalfOpen, Goodbye::LogonTimeout.text());
    answered(Kind::SlowReader, "cut off, not reading");
    assert!(attack["p50_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{attack}");
    let market = Market::open(&daemon);
    check_alive(&daemon, &market, &daemon.unix());
}

/// Who asks for what is not its own, for what makes no sense or for what was done before is refused by
/// reason, each time; who asks too much is throttled, and nobody else is. Every request of the honest
/// sessions is answered, or the run would have failed its checks, and none of them is refused.
#[test]
fn attackers_get_typed_refusals_only_and_the_throttle_holds_nobody_else() {
    let setup = roomy().key("throttle_per_s", "1000").key("throttle_burst", "200");
    let daemon = Daemon::start(&setup);
    let kinds = "flood,forge,absurd,replay";
    let arguments = ["--rate", "200", "--seconds", "4", "--attack", kinds, "--attackers", "1"];
    let report = passed(loadgen(&daemon.unix(), &arguments));
    assert_eq!(number(&report, "/unsent"), 0, "{report}");
    assert!(report["refused"].as_object().is_some_and(serde_json::Map::is_empty), "{report}");
    let fate = |kind: Kind| &report["attack"]["attackers"][kind.name()];
    let reasons = |kind: Kind| -> BTreeSet<&str> {
        let refused = fate(kind)["refused"].as_object().expect("reasons");
        refused.keys().map(String::as_str).collect()
    };
    for (kind, expected) in [
        (Kind::Flood, &[Reject::Throttled][..]),
        (
            Kind::Forge,
            &[
                Reject::NotPermitted,
                Reject::UnknownInstance,
                Reject::UnknownOrder,
                Reject::Throttled,
            ],
        ),
        (
            Kind::Absurd,
            &[
                Reject::BadPrice,
                Reject::BadQuantity,
                Reject::BadField,
                Reject::BadExpiry,
                Reject::UnknownBook,
                Reject::Throttled,
            ],
        ),
        (Kind::Replay, &[Reject::DuplicateClientId, Reject::Throttled]),
    ] {
        let expected: BTreeSet<&str> = expected.iter().map(|code| code.text()).collect();
        assert_eq!(reasons(kind), expected, "{}: {}", kind.name(), fate(kind));
        let ended = fate(kind)["ended"].as_object().expect("ends");
        assert!(ended.keys().all(|end| end == "left by itself"), "{}", fate(kind));
    }
    for (kind, most) in [(Kind::Forge, 0), (Kind::Absurd, 0), (Kind::Replay, 1)] {
        let granted = number(fate(kind), "/granted");
        assert!(granted <= most, "{} got {granted} through: {report}", kind.name());
    }
    check_alive(&daemon, &Market::open(&daemon), &daemon.unix());
}

/// A flood that no throttle holds fills the queue to the core. It is refused itself, not those who
/// ask for little.
#[test]
fn a_flood_is_refused_before_the_others() {
    let daemon = Daemon::start(&roomy());
    let arguments = ["--rate", "200", "--seconds", "4", "--attack", "flood", "--attackers", "4"];
    let report = passed(loadgen(&daemon.unix(), &arguments));
    // A few may be, where the whole queue stood still for long.
    let refused = report["refused"]["queue full"].as_u64().unwrap_or(0);
    assert!(refused * 20 <= number(&report, "/sent"), "{report}");
    let (status, _) = daemon.status();
    assert!(status.refused.get() > 1000, "no flood: {} refused", status.refused.get());
}

/// Thousands of sessions in one process, most of them idle.
#[test]
fn thousands_of_sessions_are_driven_at_once() {
    let mut setup = roomy();
    for bound in ["accounts_max", "instances_max", "sessions_max", "connections_max"] {
        setup = setup.key(bound, "4096");
    }
    let daemon = Daemon::start(&setup);
    let arguments = ["--mix", "mixed=1000,idle=2000", "--rate", "3000", "--seconds", "2"];
    let report = passed(loadgen(&daemon.unix(), &arguments));
    assert_eq!(number(&report, "/sessions"), 3000);
    assert_eq!(number(&report, "/sent") + number(&report, "/unsent"), 6000);
    assert!(number(&report, "/trades") > 0);
}

/// Who asks for more sessions than the daemon has room for is told what to raise.
#[test]
fn too_many_sessions_are_told_which_bound_to_raise() {
    let bounds = ["accounts_max", "instances_max", "sessions_max", "connections_max"];
    for narrow in bounds {
        let bound = |key| if key == narrow { "8" } else { "64" };
        let setup = bounds.into_iter().fold(roomy(), |setup, key| setup.key(key, bound(key)));
        let daemon = Daemon::start(&setup);
        let (code, text) = ran(loadgen(&daemon.unix(), &["--mix", "idle=20", "--seconds", "1"]));
        assert_eq!((code, text.contains(narrow)), (Some(2), true), "{narrow}: {text}");
    }
}

/// A ramp's steps are told apart, each with its own rate and percentiles.
#[test]
fn a_ramp_is_reported_step_by_step() {
    let daemon = Daemon::start(&roomy());
    let arguments = ["--ramp", "200..1000", "--steps", "3", "--seconds", "3"];
    let report = passed(loadgen(&daemon.shm(), &arguments));
    let steps = report["ramp"]["steps"].as_array().expect("steps");
    let of = |path: &str| steps.iter().map(|step| number(step, path)).collect::<Vec<_>>();
    assert_eq!(of("/rate"), [200, 600, 1000]);
    assert_eq!(of("/ack_ns/count"), [200, 600, 1000]);
}

/// What a script may rely on: 2 for a run that could not be made.
#[test]
fn runs_that_cannot_be_made_exit_with_two() {
    let daemon = Daemon::start(&roomy());
    let nowhere = Endpoint::Unix(daemon.path("nowhere"));
    let unix = daemon.unix();
    for (endpoint, arguments, what) in [
        (&nowhere, &[][..], "is vendued running"),
        (&unix, &["--book", "999"][..], "no book 999"),
        (&unix, &["--mix", "baker=1"][..], "is no mix"),
        (&unix, &["--mix", "idle=0"][..], "1 to 16384 sessions"),
        (&unix, &["--ramp", "0..5"][..], "two rates"),
        (&unix, &["--attack", "fire"][..], "is no attack"),
        (&unix, &["--attack", "--seconds", "1"][..], "two seconds"),
        (&unix, &["--flow", "no-such-file"][..], "no-such-file"),
        (&unix, &["--check", "x"][..], "cannot be used with"),
        (&unix, &["--seconds", "1", "--record", "no/such/dir"][..], "no/such/dir"),
        (&unix, &["--seconds", "1", "--plot", "no/such/dir"][..], "no/such/dir"),
        (&unix, &["--seconds", "1", "--sessions", "16000"][..], "descriptors"),
    ] {
        let mut command = loadgen(endpoint, arguments);
        if what == "descriptors" {
            let limited = "ulimit -n 1000; exec \"$0\" \"$@\"";
            let mut shell = Command::new("sh");
            shell.args(["-c", limited]).arg(command.get_program()).args(command.get_args());
            command = shell;
        }
        let (code, text) = ran(command);
        assert_eq!((code, text.contains(what)), (Some(2), true), "{arguments:?}: {text}");
    }
}
