//! HTTP as those who call see it: who is let in and as what, what is answered, what a scrape and a
//! page get, and that no request however wrong is answered as if the daemon were at fault.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use vendue_tests::daemon::{Daemon, Setup, eventually, free_address, hvctl};
use vendue_tests::market::*;
use vendue_tests::python::{installed, succeeds};

const ROOT: [u8; 32] = [7; 32];
const SELLER: [u8; 32] = [8; 32];
const WATCHER: [u8; 32] = [9; 32];
const STRANGER: [u8; 32] = [10; 32];

const GRANTS: &str = r#"
[[access]]
token_file = "{dir}/root"
role = "operator"
[[access]]
token_file = "{dir}/seller"
role = "tenant"
account = 0
[[access]]
token_file = "{dir}/watcher"
role = "observer"
"#;

/// Programs from PyPI, held to versions that go together.
const PYTHON: [&str; 3] =
    ["schemathesis==4.4.1", "hypothesis==6.135.0", "prometheus-client==0.23.1"];

/// A daemon that serves HTTP on loopback, and its market.
struct House {
    daemon: Daemon,
    address: SocketAddr,
    market: Market,
}

fn setup(address: SocketAddr, http: &str, grants: &str) -> Setup {
    let http = format!("[http]\naddress = \"{address}\"\n{http}");
    Setup::small().key("log_format", "\"json\"").with(&format!("{grants}\n{http}"))
}

impl House {
    fn open() -> House {
        House::with(|setup| setup)
    }

    fn with(change: impl Fn(Setup) -> Setup) -> House {
        let address = free_address();
        let mut daemon = Daemon::prepare(&change(setup(address, "", GRANTS)));
        for (name, token) in [("root", ROOT), ("seller", SELLER), ("watcher", WATCHER)] {
            std::fs::write(daemon.path(name), token).expect("write a token");
        }
        daemon.launch();
        let market = Market::open(&daemon);
        House { daemon, address, market }
    }

    fn get(&self, token: [u8; 32], path: &str) -> (u16, Value) {
        self.ask(token, "GET", path, "", None)
    }

    fn post(&self, token: [u8; 32], path: &str, body: &Value) -> (u16, Value) {
        self.ask(token, "POST", path, "Content-Type: application/json\r\n", Some(&body.to_string()))
    }

    fn ask(
        &self,
        token: [u8; 32],
        method: &str,
        path: &str,
        more: &str,
        body: Option<&str>,
    ) -> (u16, Value) {
        let (length, body) = body.map_or((String::new(), ""), |body| {
            (format!("Content-Length: {}\r\n", body.len()), body)
        });
        let digits: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: vendue\r\nConnection: close\r\n\
             Authorization: Bearer {digits}\r\n{more}{length}\r\n{body}"
        );
        let (status, text) = self.say(request.as_bytes());
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Says something on a connection of its own; the status, and all that came.
    fn say(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.write_all(bytes).expect("send a request");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        (status, text)
    }

    fn metrics(&self, token: [u8; 32]) -> String {
        let digits: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        let head = format!(
            "GET /metrics HTTP/1.1\r\nHost: v\r\nConnection: close\r\nAuthorization: Bearer {digits}\r\n\r\n"
        );
        let (status, text) = self.say(head.as_bytes());
        assert_eq!(status, 200, "{text}");
        text.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/callers.py")
}

/// Who calls sees and does what the table of access says, as on any other way in.
#[test]
fn callers_are_who_the_table_says() {
    let house = House::open();
    let (seller, buyer) = (house.market.seller, house.market.buyer);
    let names = |token| {
        let (status, rows) = house.get(token, "/instances");
        let rows = rows.as_array().cloned().unwrap_or_default();
        (status, rows.iter().filter_map(|row| row["instance"].as_u64()).collect::<Vec<_>>())
    };
    let both = vec![u64::from(seller.instance), u64::from(buyer.instance)];
    assert_eq!(names(ROOT), (200, both.clone()));
    assert_eq!(names(WATCHER), (200, both));
    assert_eq!(names(SELLER), (200, vec![u64::from(seller.instance)]));
    assert_eq!(names(STRANGER), (401, vec![]));
    let (status, text) =
        house.say(b"GET /instances HTTP/1.1\r\nHost: v\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 401, "{text}");
    assert!(text.contains("www-authenticate: Bearer"), "{text}");

    let until_ms = u64::MAX / 2_000_000;
    let token = json!({ "account": seller.account, "tier": 0, "resource": "cpu", "vru": 5, "until_ms": until_ms });
    for (who, expected) in [(SELLER, 403), (WATCHER, 403), (STRANGER, 401), (ROOT, 200)] {
        let (status, answer) = house.post(who, "/token_issue", &token);
        assert_eq!(status, expected, "{answer}");
    }
    let (_, tokens) = house.get(SELLER, "/tokens");
    let id = tokens[0]["id"].as_u64().expect("a token");
    // Another's instance does not exist for who may not see it.
    let (status, answer) =
        house.post(SELLER, "/token_redeem", &json!({ "token": id, "instance": buyer.instance }));
    assert_eq!(status, 404, "{answer}");
    assert_eq!(answer["name"], "unknown instance");
    let (status, answer) =
        house.post(SELLER, "/token_redeem", &json!({ "token": id, "instance": seller.instance }));
    assert_eq!((status, answer["generation"].as_u64()), (200, Some(2)), "{answer}");
    let (status, answer) =
        house.post(SELLER, "/token_redeem", &json!({ "token": id, "instance": seller.instance }));
    assert_eq!((status, &answer["name"]), (409, &json!("token is redeemed")));
    // The audit trail knows the caller by what it showed, and only who sees all may read it.
    assert_eq!(house.get(SELLER, "/audit").0, 403);
    let (status, trail) = house.get(ROOT, "/audit?what=token&by=seller");
    assert_eq!(status, 200);
    assert_eq!(trail["broken"], Value::Null);
    let peers: Vec<_> =
        trail["rows"].as_array().expect("rows").iter().map(|row| &row["peer"]).collect();
    assert!(!peers.is_empty() && peers.iter().all(|peer| **peer == "token seller"), "{trail}");
}

/// An order by HTTP is one of the book; a request that comes again with its key is not done again.
#[test]
fn orders_trade_and_retries_do_nothing_twice() {
    let house = House::open();
    let (seller, buyer) = (house.market.seller, house.market.buyer);
    let order = |instance: u32, side: &str| json!({ "instance": instance, "book": 0, "side": side, "price_ticks": 10, "quantity_credits": 3 });
    let keyed = "Content-Type: application/json\r\nIdempotency-Key: sell-1\r\n";
    let body = order(seller.instance, "sell").to_string();
    let first = house.ask(SELLER, "POST", "/order_place", keyed, Some(&body));
    assert_eq!((first.0, &first.1[0]["event"]), (200, &json!("accepted")), "{}", first.1);
    assert_eq!(house.ask(SELLER, "POST", "/order_place", keyed, Some(&body)), first);
    let other = order(seller.instance, "buy").to_string();
    assert_eq!(house.ask(SELLER, "POST", "/order_place", keyed, Some(&other)).0, 422);
    let path = format!("/orders?instance={}", seller.instance);
    let (_, open) = house.get(SELLER, &path);
    assert_eq!(
        open.as_array().map(Vec::len),
        Some(1),
        "one order, though it was sent twice: {open}"
    );
    let (_, book) = house.get(WATCHER, "/books?book=0");
    assert_eq!(book[0]["asks"][0], json!({ "price_ticks": 10, "quantity_credits": 3 }));
    let (status, traded) = house.post(ROOT, "/order_place", &order(buyer.instance, "buy"));
    assert_eq!((status, &traded[1]["event"]), (200, &json!("filled")), "{traded}");
    assert_eq!(traded[1]["quantity_credits"], 3);
    let (_, trades) = house.get(WATCHER, "/trades");
    assert_eq!(trades[0]["price_ticks"], 10);
    let (_, mine) = house.post(SELLER, "/order_place", &order(seller.instance, "sell"));
    let handle = json!({ "handle": mine[0]["handle"] });
    assert_eq!(house.post(SELLER, "/order_cancel", &handle).1["event"], "cancelled");
    assert_eq!(house.post(SELLER, "/order_cancel", &handle).0, 404);
    // A key is its caller's own: to another it says nothing of what was answered.
    let (status, others) = house.ask(ROOT, "POST", "/order_place", keyed, Some(&body));
    assert_eq!(status, 200, "{others}");
    assert_ne!(others[0]["handle"], first.1[0]["handle"]);
}

/// Handles are text wherever JSON holds one, and lead back to what they are of.
#[test]
fn handles_are_text_and_lead_back() {
    let house = House::with(|setup| setup.key("tick_ms", "20"));
    let instance = house.market.buyer.instance;
    let bid = json!({ "instance": instance, "resource": "cpu", "amount": 3, "rent_ticks": 2, "class": "bounded" });
    let (status, lease) = house.post(ROOT, "/lease_bid", &bid);
    assert_eq!(status, 200, "{lease}");
    let handle = lease["handle"].as_str().expect("text").to_owned();
    let [(_, shown), (_, described)] =
        ["/leases", "/openapi.json"].map(|path| house.get(ROOT, path));
    assert_eq!(shown[0]["handle"], handle.as_str());
    assert_eq!(house.daemon.said_one(&["lease", "list"])["handle"], handle.as_str());
    for said in [json!(handle), json!(handle.parse::<u64>().expect("digits"))] {
        let terms = json!({ "handle": said, "vru": 4, "rent_ticks": 2 });
        let (status, changed) = house.post(ROOT, "/lease_change", &terms);
        assert_eq!((status, &changed["handle"]), (200, &json!(handle)), "{changed}");
    }
    let changed = house.daemon.said_one(&["lease", "change", &handle, "5", "2"]);
    assert_eq!((&changed["handle"], &changed["wanted_vru"]), (&json!(handle), &json!(5)));
    let (status, ended) = house.post(ROOT, "/lease_end", &json!({ "handle": handle }));
    assert_eq!((status, &ended["handle"]), (200, &json!(handle)), "{ended}");
    let name = instance.to_string();
    let bid = house.daemon.said_one(&["lease", "bid", &name, "cpu", "3", "--rent", "2"]);
    let handle = bid["handle"].as_str().expect("text");
    let ended = house.daemon.said_one(&["lease", "cancel", handle]);
    assert_eq!(ended["handle"], handle);

    // Of a policy it is the lease that it bid for; there is none before.
    house.daemon.said(&["policy", "set", &name, "memory", "--budget", "9", "--rent", "1"]);
    house.daemon.said(&["policy", "set", &name, "cpu", "--budget", "900", "--rent", "12"]);
    house.daemon.said(&["forecast", "set", &name, "cpu", "1100", "--lasts", "3600"]);
    eventually("a lease of the policy's", || {
        let leases = house.daemon.said(&["lease", "list"]);
        let policies = house.daemon.said(&["policy", "list"]);
        let of = |resource: &str| {
            policies.iter().find(|row| row["resource"] == resource).expect("a policy")["handle"]
                .clone()
        };
        assert_eq!(of("memory"), Value::Null);
        (of("cpu").is_string() && leases.first()?["handle"] == of("cpu")).then_some(())
    });
    assert_eq!(not_text("", &described), Vec::<String>::new());
}

/// Where a published description has a handle or a lease that cannot be text.
fn not_text(at: &str, described: &Value) -> Vec<String> {
    let inner = |(name, of): (&String, &Value)| {
        let text =
            !["handle", "lease"].contains(&name.as_str()) || of.to_string().contains("string");
        let here = (!text).then(|| format!("{at}/{name}"));
        here.into_iter().chain(not_text(&format!("{at}/{name}"), of)).collect::<Vec<_>>()
    };
    match described {
        Value::Object(object) => object.iter().flat_map(inner).collect(),
        Value::Array(array) => array.iter().flat_map(|of| not_text(at, of)).collect(),
        _ => Vec::new(),
    }
}

/// What makes no sense is the caller's fault, and says so.
#[test]
fn nonsense_is_refused_with_a_reason() {
    let house = House::open();
    let json_type = "Content-Type: application/json\r\n";
    let huge = format!("{{\"id\": 1, \"words\": \"{}\"}}", "x".repeat(100_000));
    for (method, path, more, body, expected) in [
        ("GET", "/nowhere", "", None, 404),
        ("POST", "/books", json_type, Some("{}"), 405),
        ("GET", "/books?colour=red", "", None, 400),
        ("GET", "/books?book=70000", "", None, 400),
        ("GET", "/orders", "", None, 400),
        ("GET", "/bars?book=0&width_s=7", "", None, 422),
        ("GET", "/tokens?id=9", "", None, 404),
        ("POST", "/lease_end", json_type, Some("{\"handle\": 5, \"more\": 1}"), 400),
        ("POST", "/lease_end", json_type, Some("{\"handle\": \"x\"}"), 422),
        ("POST", "/lease_end", json_type, Some("{\"handle\": 5"), 400),
        ("POST", "/lease_end", "", Some("{\"handle\": 5}"), 415),
        ("POST", "/lease_end", json_type, Some("{\"handle\": 5}"), 404),
        ("POST", "/experiment_stop", json_type, Some("{\"experiment\": 5}"), 404),
        ("GET", "/exposures", "", None, 400),
        ("POST", "/swap_reject", json_type, Some(huge.as_str()), 413),
    ] {
        let (status, answer) = house.ask(ROOT, method, path, more, body);
        assert_eq!(status, expected, "{method} {path}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|why| !why.is_empty()), "{path}: {answer}");
    }
    for garbage in [&b"\x16\x03\x01\x00\xa5"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"] {
        assert!(matches!(house.say(&[garbage, b"\r\n\r\n"].concat()).0, 0 | 400 | 505));
    }
    let many = "X: y\r\n".repeat(200);
    let (status, _) = house.say(format!("GET /healthz HTTP/1.1\r\n{many}\r\n").as_bytes());
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(house.get(ROOT, "/status").0, 200, "it serves on");
}

/// Health needs nobody's leave; a page comes without anything from elsewhere; logs are JSON.
#[test]
fn health_pages_and_logs_are_there() {
    let mut house = House::open();
    let bare = |path: &str| {
        house.say(format!("GET {path} HTTP/1.1\r\nHost: v\r\nConnection: close\r\n\r\n").as_bytes())
    };
    for path in ["/healthz", "/readyz", "/openapi.json", "/grafana.json", "/"] {
        assert_eq!(bare(path).0, 200, "{path}");
    }
    let page = bare("/").1;
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    assert!(
        !page.split_once("\r\n\r\n").expect("a body").1.contains("http"),
        "from elsewhere: {page}"
    );
    assert_eq!(bare("/metrics").0, 401);
    // Who is taken out of the table is locked out.
    assert_eq!(house.get(SELLER, "/tokens").0, 200);
    let grants = GRANTS.replace("account = 0", "account = 1");
    house.daemon.configure(&setup(house.address, "", &grants));
    house.daemon.reload();
    eventually("another account", || {
        let (status, rows) = house.get(SELLER, "/instances");
        let other = rows[0]["instance"] == house.market.buyer.instance;
        (status == 200 && other).then_some(())
    });
    assert!(house.daemon.terminate().success());
    let log = house.daemon.log();
    for line in log.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    assert!(log.lines().count() > 2, "{log}");
}

/// A certificate is an identity here too; without one a token is, and nothing is in plain text.
#[test]
fn certificates_are_identities() {
    let address = free_address();
    let grants = "[[access]]\ncertificate = \"alice\"\nrole = \"tenant\"\naccount = 0";
    let setup = setup(address, "tls = \"{dir}/pki/localhost\"", grants);
    let mut daemon = Daemon::prepare(&setup);
    let pki = daemon.path("pki");
    let hvctl = hvctl();
    let made: [&[&str]; 4] = [
        &["ca"],
        &["server", "localhost", "127.0.0.1"],
        &["client", "alice"],
        &["client", "mallory"],
    ];
    for what in made {
        succeeds(Command::new(&hvctl).arg("pki").args(what).arg("--dir").arg(&pki));
    }
    daemon.launch();
    let market = Market::open(&daemon);
    let ask = |name: &str, path: &str| {
        let mut python = Command::new("python3");
        python.arg(script()).args(["tls", "localhost", &address.port().to_string()]);
        let said = succeeds(python.arg(&pki).args([name, path]));
        let (status, body) = said.split_once(' ').expect("status and body");
        (status.to_owned(), serde_json::from_str::<Value>(body).unwrap_or_default())
    };
    let (status, rows) = ask("alice", "/instances");
    assert_eq!((status.as_str(), &rows[0]["instance"]), ("200", &json!(market.seller.instance)));
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
    assert_eq!(ask("mallory", "/instances").0, "401");
    assert_eq!(ask("-", "/instances").0, "401");
    assert_eq!(ask("-", "/readyz").0, "200");
}

/// Experiments of both sorts begin and end, as `hvctl` shows them.
#[test]
fn experiments_begin_and_end() {
    let house = House::open();
    let asked = |a: Value, b: Value| {
        json!({
            "name": "lab", "resource": "cpu", "measure": "latency", "harm_milli": 500,
            "lasts_ms": 90_000, "salt": 7, "account": house.market.seller.account, "a": a, "b": b,
        })
    };
    let policy = json!({ "budget_micro": 3_000_000, "rent_ticks": 12 });
    let later = json!({ "risk_percent": 30, "cover": "p97.5" });
    for (number, a, b) in [(1, json!({}), policy.clone()), (2, json!({ "no_swaps": true }), later)]
    {
        let (status, begun) = house.post(ROOT, "/experiment_start", &asked(a, b));
        assert_eq!((status, &begun["experiment"]), (200, &json!(number)), "{begun}");
        let shown = house.daemon.said_one(&["experiment", "show", &number.to_string()]);
        let of = ["name", "resource", "measure", "better", "harm_milli", "salt", "end"];
        let wanted = json!(["lab", "cpu", "latency", "less", 500, 7, "running"]);
        assert_eq!(json!(of.map(|key| &shown[key])), wanted);
        let terms = |arm: usize| {
            let arm = &shown["arms"][arm];
            json!([arm["budget_micro"], arm["swaps"], arm["risk_percent"], arm["cover"]])
        };
        let wanted = match number {
            1 => [json!([0, true, null, null]), json!([3_000_000, true, null, "p90"])],
            _ => [json!([0, false, null, null]), json!([0, true, 30, "p97.5"])],
        };
        assert_eq!([terms(0), terms(1)], wanted);
    }
    let both = json!({ "risk_percent": 30, "no_swaps": true });
    for (token, a, b, status) in [
        (SELLER, json!({}), policy.clone(), 403),
        (WATCHER, json!({}), policy.clone(), 403),
        (ROOT, json!({}), json!({}), 422),
        (ROOT, json!({}), both, 422),
        (ROOT, json!({ "no_swaps": true }), policy, 422),
        (ROOT, json!({}), json!({ "risk_percent": 0 }), 422),
    ] {
        let (found, why) = house.post(token, "/experiment_start", &asked(a.clone(), b.clone()));
        assert_eq!(found, status, "{a} against {b}: {why}");
    }
    for (number, status) in [(1, 200), (1, 404), (9, 404)] {
        let stop = json!({ "experiment": number });
        assert_eq!(house.post(ROOT, "/experiment_stop", &stop).0, status, "{number}");
    }
    assert_eq!(house.daemon.said_one(&["experiment", "show", "1"])["end"], "stopped");
}

/// The published description holds for whatever is sent, and nothing makes the daemon fail.
#[test]
fn the_api_is_as_described_and_never_fails() {
    let house = House::open();
    let python = installed(&PYTHON);
    let scraped = house.daemon.path("metrics");
    std::fs::write(&scraped, house.metrics(WATCHER)).expect("write what was scraped");
    let grafana = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src/admin/grafana.json");
    let mut metrics = Command::new("python3");
    metrics.env("PYTHONPATH", &python).arg(script()).arg("metrics").args([&scraped, &grafana]);
    succeeds(&mut metrics);
    let until_ms = u64::MAX / 2_000_000;
    for account in [house.market.seller.account, house.market.buyer.account] {
        let token = json!({ "account": account, "tier": 0, "resource": "cpu", "vru": 5, "until_ms": until_ms, "swap_eligible": true });
        assert_eq!(house.post(ROOT, "/token_issue", &token).0, 200);
    }
    let digits: String = ROOT.iter().map(|byte| format!("{byte:02x}")).collect();
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection";
    succeeds(
        Command::new("python3")
            .env("PYTHONPATH", &python)
            .args([
                "-m",
                "schemathesis.cli",
                "run",
                &format!("http://{}/openapi.json", house.address),
            ])
            .args(["-H", &format!("Authorization: Bearer {digits}")])
            .args(["--phases", "fuzzing", "--max-examples", "12", "--seed", "1"])
            .args(["--checks", checks, "--no-color", "--suppress-health-check", "all"])
            .current_dir(house.daemon.path("")),
    );
    assert_eq!(house.get(ROOT, "/readyz").0, 200);
}
