//! The package under a real service manager: installed, killed part by part, restarted, upgraded and
//! rebooted amid trading, then removed. Needs what `tests/vm/fetch` brings.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vendue_tests::vm::service::try_package;

/// Far beyond what a slow machine needs: only a guest that hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is checked on the way is in `tests/vm/service`, in the order in which it happens.
#[test]
fn the_package_trades_through_kills_an_upgrade_and_a_reboot_and_goes_without_a_trace() {
    let outcome = try_package(PATIENCE).unwrap();
    let console = &outcome.console;
    assert_eq!(outcome.status, 0, "{console}");
    let at = |name| outcome.mark_ms(name).unwrap_or_else(|| panic!("no mark {name}: {console}"));
    println!("installed in {} ms, upgraded {} ms after boot", at("installed"), at("upgraded"));
    println!("back {} ms after the reboot, purged {} ms after it", at("back"), at("purged"));
    let line = |start: &str| {
        console.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{console}"))
    };

    // As each part runs: whose it is, and what is left to it.
    let no_capabilities = "CapEff: 0000000000000000";
    // CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_SYS_PTRACE and CAP_SYS_ADMIN.
    let actuator = "CapEff: 0000000000281002";
    for (part, root, capabilities) in [
        ("vendued ", false, no_capabilities),
        ("vendued-gateway ", false, no_capabilities),
        ("vendued-actuate ", true, actuator),
    ] {
        let row = line(&format!("sandbox {part}"));
        assert_eq!(row.contains("Uid: 0 0 0 0"), root, "{row}");
        for wanted in [capabilities, "NoNewPrivs: 1", "Seccomp: 2"] {
            assert!(row.contains(wanted), "{wanted}: {row}");
        }
        assert!(!row.contains("VmLck: 0 kB"), "memory is not locked: {row}");
    }
    let asked: u32 = line("asked ")["asked ".len()..].parse().expect(console);
    assert!(asked >= 3, "{asked} asked while the daemon was upgraded: {console}");
    assert!(line("Version: ").ends_with("+newer"), "{console}");
}

/// What `systemd-analyze security` says of a unit, 0 to 10.
fn exposure(unit: &str) -> f64 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/package").join(unit);
    let path = path.canonicalize().unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager"]).arg(path);
    let output = command.output().expect("systemd-analyze; run tests/vm/fetch");
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.lines().find_map(|line| line.split_once("Overall exposure level for"));
    let (_, told) = told.unwrap_or_else(|| panic!("{unit}: {output:?}"));
    let number = told.split(' ').find_map(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("{unit}: {told}"))
}

#[test]
fn each_unit_is_sandboxed() {
    for (unit, most) in [
        ("vendued.service", 1.0),
        ("vendued-gateway.service", 1.0),
        ("vendued-instances.service", 1.0),
        ("vendued-actuate.service", 2.5),
    ] {
        let exposure = exposure(unit);
        assert!(exposure <= most, "{unit}: exposure {exposure}, at most {most}");
    }
}
