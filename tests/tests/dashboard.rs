//! The dashboard in a real browser: a market with something of everything, and dashboard.py, which looks at
//! it and works it as a person does.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use vendue_tests::daemon::{Daemon, Setup, eventually, free_address, hvctl};
use vendue_tests::market::*;
use vendue_tests::python::{installed, succeeds};
use vendue_tests::vm::binaries;
use vendue_wire::client::{Client, Identity};
use vendue_wire::code::Side;
use vendue_wire::message::*;

const TOKENS: [(&str, [u8; 32]); 2] = [("operator", [0xa7; 32]), ("observer", [0x0b; 32])];
/// A tenant's own words, as long as a name may be.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";
/// Instances besides those that trade.
const CROWD: u32 = 1000;
/// Instances of experiments.
const SUBJECTS: usize = 10;
/// Requests of them under way.
const AT_ONCE: u32 = 50;
/// What drives the browser, and what it stands on.
const PLAYWRIGHT: [&str; 4] =
    ["playwright==1.64.0", "greenlet==3.5.6", "pyee==13.0.1", "typing_extensions==4.16.0"];

#[track_caller]
fn operate(daemon: &Daemon, line: &str) {
    let connect = daemon.unix().to_string();
    succeeds(Command::new(hvctl()).args(["--connect", &connect]).args(line.split(' ')));
}

/// A daemon that serves HTTP on loopback, and where.
fn serving() -> (Daemon, String) {
    let address = free_address();
    let mut setup = Setup::small()
        .key("instances_max", "1100")
        .key("sync", "\"never\"")
        .key("sense_ms", "500")
        .with(&format!("[http]\naddress = \"{address}\""));
    for (role, _) in TOKENS {
        setup =
            setup.with(&format!("[[access]]\ntoken_file = \"{{dir}}/{role}\"\nrole = \"{role}\""));
    }
    let mut daemon = Daemon::prepare(&setup);
    for (role, token) in TOKENS {
        std::fs::write(daemon.path(role), token).expect("write a token");
    }
    daemon.launch();
    (daemon, format!("http://{address}"))
}

/// Asks for an instance of an account, in another tier than [`create_party`]'s.
fn create(operator: &mut Client, account: u32, tier: u16, name: &str) {
    let mut baseline_vru = [U32::ZERO; 5];
    baseline_vru[0] = 1.into();
    let m = CreateInstance {
        client_id: operator.next_client_id().into(),
        account: account.into(),
        tier: tier.into(),
        baseline_vru,
        name: field(name).expect("a short name"),
        ..CreateInstance::zeroed()
    };
    operator.send(&m).expect("a request");
}

/// A process that uses a tenth of a processor until it is dropped.
struct Busy(Child);

impl Busy {
    fn begin() -> Busy {
        let vendued = binaries(&["vendued"]).expect("vendued is built").remove(0).0;
        let arguments = ["--pdeathsig", "KILL", "--"];
        let mut command = Command::new("setpriv");
        command.args(arguments).arg(vendued).args(["tenant", "10", "3600", "0", "0"]);
        Busy(command.stdin(Stdio::null()).spawn().expect("a process"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Plans for an instance what goes on now and every day, and what comes soon.
fn plan(daemon: &Daemon) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let time = |s: u64| hvctl::time::rfc3339(s * 1_000_000_000).replace(".000000000", "");
    let (begun, comes) = (time(now - 120), time(now + 1200));
    let of = "instance = 'seller'\nresource = 'cpu'\nlasts_s = 1800";
    let text = format!(
        "[[event]]\nname = '{HOSTILE}'\n{of}\nfrom = {begun}\npercent = 150\nadd = 4\nevery_days = 1\n\
         [[event]]\nname = 'backup'\n{of}\nfrom = {comes}\nadd = 2\n"
    );
    let file = daemon.path("plan.toml");
    std::fs::write(&file, text).expect("a file");
    operate(daemon, &format!("forecast plan {}", file.display()));
}

/// Starts an experiment on an account's instances, of which those of arm B get a policy.
fn start_experiment(daemon: &Daemon, name: &str, account: &str, resource: &str, harm: f64) {
    let text = format!(
        "name = '{name}'\naccount = '{account}'\nresource = '{resource}'\nmeasure = 'latency'\n\
         better = 'less'\nharm = {harm:?}\nlasts_s = 3600\n[a]\n[b]\nbudget = 3.0\nrent = 12\n"
    );
    let file = daemon.path("experiment.toml");
    std::fs::write(&file, text).expect("a file");
    operate(daemon, &format!("experiment start {}", file.display()));
}

/// Something of everything that the page shows.
fn set_the_stage(daemon: &Daemon, busy: &Busy) {
    let mut operator = daemon.client(&Identity::operator());
    let seller = create_party(&mut operator, "seller", &format!("pid:{}", busy.0.id()));
    let buyer = create_party(&mut operator, "buyer", "");
    deposit(&mut operator, seller.account, FUNDS_MICRO);
    deposit(&mut operator, buyer.account, FUNDS_MICRO);
    grant(&mut operator, seller.instance, CREDITS);
    for step in 0..6 {
        enter(&mut operator, seller, Side::Sell, 12 + step, 100 + 35 * step);
        enter(&mut operator, buyer, Side::Buy, 9 - step, 80 + 25 * step);
    }
    for quantity in [30, 7, 25] {
        enter(&mut operator, buyer, Side::Buy, 13, quantity);
        for _ in 0..2 {
            expect::<Filled>(&mut operator);
        }
    }
    create(&mut operator, seller.account, 2, HOSTILE);
    expect::<Done>(&mut operator);
    // Some at once, fewer than fill a queue.
    for first in (0..CROWD).step_by(AT_ONCE as usize) {
        let some = first..CROWD.min(first + AT_ONCE);
        for at in some.clone() {
            create(&mut operator, buyer.account, 1, &format!("crowd-{at:04}"));
        }
        for _ in some {
            expect::<Done>(&mut operator);
        }
    }
    // Each pair of tokens has a swap that waits: 2k + 1 lends to 2k + 2.
    for swap in 0..3 {
        operate(daemon, "token issue seller bronze cpu 40 --lasts 7200 --swap-eligible");
        operate(daemon, "token issue buyer bronze cpu 25 --lasts 7200 --swap-eligible");
        let tokens = format!("{} {}", 2 * swap + 1, 2 * swap + 2);
        operate(daemon, &format!("swap request {tokens} 10 --lasts 600 --incentive 1.5"));
    }
    for line in [
        "lease bid buyer cpu 15 --rent 7",
        "forecast set buyer cpu 900 --p90 1200 --p975 1500 --lasts 3600",
        "forecast set seller cpu 40 --p90 60 --p975 90 --lasts 3600",
        "swarm define works --account seller --base cpu=0.001",
        "swarm join works seller",
        "task submit works --bid 2 --duration 60 --vru 15 --name render",
        "account create nobody",
    ] {
        operate(daemon, line);
    }
    plan(daemon);
    start_experiment(daemon, HOSTILE, "nobody", "cpu", 1.0);
}

/// Two experiments on ten instances: one that has done harm, one that goes on. Each instance says that
/// its latency is by so much higher as its number is, and by more in arm B.
fn set_the_laboratory(daemon: &Daemon) {
    operate(daemon, "account create lab");
    operate(daemon, "account deposit lab 1000");
    for at in 0..SUBJECTS {
        operate(
            daemon,
            &format!(
                "instance adopt lab-{at} --account lab --tier bronze --cpu 1 --cgroup /lab-{at}"
            ),
        );
        operate(
            daemon,
            &format!(
                "objective set lab-{at} latency --above 1000000 --recover 1 --for 3600 --calm 3600 --step 1 --most 1 --rent 1 --budget 1"
            ),
        );
    }
    start_experiment(daemon, "worse", "lab", "memory", 50.0);
    start_experiment(daemon, "lead", "lab", "cpu", 400.0);
    let taking_part = eventually("every instance takes part in both", || {
        let [one, other] = ["1", "2"].map(|number| {
            let shown = daemon.said_one(&["experiment", "show", number]);
            shown["instances"].as_array().expect("instances").clone()
        });
        (one.len() == SUBJECTS && other.len() == SUBJECTS).then_some(other)
    });
    let is_treated = |row: &Value| row["arm"] == "b";
    assert_eq!(taking_part.iter().filter(|row| is_treated(row)).count(), SUBJECTS / 2);
    for row in &taking_part {
        let number = row["instance"].as_u64().expect("a number");
        let latency = 1000 + 20 * number + if is_treated(row) { 250 } else { 0 };
        operate(daemon, &format!("objective report {number} latency {latency}"));
    }
    // One leaves: somebody sets its policy.
    let leaves = &taking_part.iter().find(|row| is_treated(row)).expect("one of arm B")["instance"];
    operate(daemon, &format!("policy set {leaves} cpu --budget 9 --rent 1"));
}

/// Has the browser do what dashboard.py does for this stage.
fn look(daemon: &Daemon, what: &str, origin: &str, more: &[(&str, &str)]) {
    let shots = TempDir::new().expect("a directory");
    // For who wants to look at the pictures.
    let kept = std::env::var_os("VENDUE_SHOTS").map(PathBuf::from);
    let said = succeeds(
        Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard.py"))
            .arg(what)
            .env("PYTHONPATH", installed(&PLAYWRIGHT))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("VENDUE_HTTP", origin)
            .env("VENDUE_CONNECT", daemon.unix().to_string())
            .env("VENDUE_HVCTL", hvctl())
            .env("VENDUE_HOSTILE", HOSTILE)
            .env("VENDUE_CHROMIUM", "/usr/bin/chromium")
            .env("VENDUE_SHOTS", kept.as_deref().unwrap_or(shots.path()))
            .envs(more.iter().copied()),
    );
    println!("{said}");
}

#[test]
fn a_person_reads_and_works_the_dashboard() {
    let (daemon, origin) = serving();
    let busy = Busy::begin();
    set_the_stage(&daemon, &busy);
    eventually("limits on the host", || {
        let shown = Command::new(hvctl())
            .args(["--connect", &daemon.unix().to_string(), "limits", "seller"])
            .output()
            .expect("hvctl runs");
        String::from_utf8_lossy(&shown.stdout).contains("dry run").then_some(())
    });
    let digits = |at: usize| TOKENS[at].1.map(|byte| format!("{byte:02x}")).concat();
    let (operator, observer) = (digits(0), digits(1));
    let tokens = [("VENDUE_OPERATOR", operator.as_str()), ("VENDUE_OBSERVER", observer.as_str())];
    look(&daemon, "house", &origin, &tokens);
}

/// The browser's certificate is who somebody is: no token, and as many rights.
#[test]
fn a_person_with_a_certificate_works_experiments() {
    let address = free_address();
    let setup = Setup::small()
        .key("tick_ms", "20")
        .with(&format!("[http]\naddress = \"{address}\"\ntls = \"{{dir}}/pki/localhost\""))
        .with("[[access]]\ncertificate = \"root\"\nrole = \"operator\"");
    let mut daemon = Daemon::prepare(&setup);
    let pki = daemon.path("pki");
    let made: [&[&str]; 4] = [
        &["ca"],
        &["server", "localhost", "127.0.0.1"],
        &["client", "root"],
        &["client", "mallory"],
    ];
    for what in made {
        succeeds(Command::new(hvctl()).arg("pki").args(what).arg("--dir").arg(&pki));
    }
    daemon.launch();
    set_the_laboratory(&daemon);
    let origin = format!("https://localhost:{}", address.port());
    let pki = pki.to_str().expect("temporary directories have plain names");
    look(&daemon, "laboratory", &origin, &[("VENDUE_PKI", pki)]);
}
