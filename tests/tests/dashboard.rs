//! The dashboard in a real browser: a market with something of everything, and dashboard.py, which looks at
//! it and works it as a person does.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
    ] {
        operate(daemon, line);
    }
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
    let shots = TempDir::new().expect("a directory");
    // For who wants to look at the pictures.
    let kept = std::env::var_os("VENDUE_SHOTS").map(PathBuf::from);
    let digits = |at: usize| TOKENS[at].1.map(|byte| format!("{byte:02x}")).concat();
    let said = succeeds(
        Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard.py"))
            .env("PYTHONPATH", installed(&PLAYWRIGHT))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("VENDUE_HTTP", origin)
            .env("VENDUE_CONNECT", daemon.unix().to_string())
            .env("VENDUE_HVCTL", hvctl())
            .env("VENDUE_HOSTILE", HOSTILE)
            .env("VENDUE_OPERATOR", digits(0))
            .env("VENDUE_OBSERVER", digits(1))
            .env("VENDUE_CHROMIUM", "/usr/bin/chromium")
            .env("VENDUE_SHOTS", kept.as_deref().unwrap_or(shots.path())),
    );
    println!("{said}");
}
