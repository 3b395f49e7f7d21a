//! The `hvctl` binary as scripts meet it, without a daemon.

use std::io::Read;
use std::process::{Command, Output, Stdio};

fn hvctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hvctl"))
        .args(arguments)
        .env_remove("VENDUE_CONNECT")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Every command that asks the daemon, with arguments that parse.
const ASKING: &[&[&str]] = &[
    &["status"],
    &["account", "list"],
    &["account", "create", "alice"],
    &["account", "deposit", "alice", "1.5"],
    &["account", "withdraw", "0", "1"],
    &["account", "limits", "alice"],
    &["account", "limits", "alice", "--opt-out", "--sell-max", "5", "--order-max", "none"],
    &["account", "cancel", "alice", "--book", "1"],
    &["tier", "list"],
    &["instance", "list"],
    &["instance", "adopt", "web", "--account", "a", "--tier", "t", "--cgroup", "/x"],
    &["instance", "launch", "web", "--account", "a", "--tier", "t", "--", "true"],
    &["instance", "remove", "web"],
    &["instance", "grant", "web", "cpu", "2.5"],
    &["order", "buy", "web", "--resource", "cpu", "--price", "3", "--quantity", "5"],
    &["order", "sell", "web", "--book", "0", "--market", "--quantity", "5"],
    &["cancel", "7"],
    &["cancel", "--all"],
    &["orders", "web"],
    &["book"],
    &["book", "1", "--watch", "--once"],
    &["phase", "1", "halted"],
    &["market"],
    &["market", "1", "--bars", "1m", "--since", "2026-01-31T12:00:00Z"],
    &["market", "1", "--watch"],
    &["trades", "--book", "1", "--limit", "5"],
    &["trades", "--from", "7"],
    &["reverse", "7"],
    &["ledger"],
    &["audit", "--from", "2", "--limit", "3", "--follow"],
    &["subscribe", "--from", "12.3", "--only", "swaps,funds"],
    &["limits"],
    &["agent", "web", "--resource", "cpu,memory", "--weights", "3,2,1", "--request-below", "-5"],
];

#[test]
fn without_a_daemon_every_command_says_so_in_one_line_and_ends_with_3() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("no.sock");
    let nowhere = nowhere.to_str().unwrap();
    for arguments in ASKING {
        let ended = hvctl(&[&["--connect", nowhere], *arguments].concat());
        assert_eq!(ended.status.code(), Some(3), "{arguments:?}: {}", text(&ended.stderr));
        assert!(ended.stdout.is_empty(), "{arguments:?}");
        let said = text(&ended.stderr);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("hvctl: cannot connect to") && said.contains(nowhere), "{said}");
    }
}

#[test]
fn without_a_qemu_its_monitor_is_named() {
    let ended = hvctl(&["qemu", "--qmp", "/nonexistent/qmp", "status"]);
    assert_eq!(ended.status.code(), Some(3));
    let said = text(&ended.stderr);
    assert!(said.starts_with("hvctl: /nonexistent/qmp: ") && said.lines().count() == 1, "{said}");
}

#[test]
fn the_environment_names_the_daemon_and_the_option_overrides_it() {
    let run = |arguments: &[&str]| {
        let ended = Command::new(env!("CARGO_BIN_EXE_hvctl"))
            .args(arguments)
            .env("VENDUE_CONNECT", "unix:/nonexistent/from-environment")
            .output()
            .unwrap();
        text(&ended.stderr).to_owned()
    };
    assert!(run(&["status"]).contains("/nonexistent/from-environment"));
    let said = run(&["status", "--connect", "shm:/nonexistent/from-option"]);
    assert!(said.contains("/nonexistent/from-option"), "{said}");
}

#[test]
fn command_lines_that_make_no_sense_end_with_2() {
    for arguments in [
        &[][..],
        &["dance"],
        &["status", "--loud"],
        &["--connect", "tcp:somewhere", "status"],
        &["--token-file", "/nonexistent/token", "status"],
        &["account", "create", "42"],
        &["account", "create", "x", "--group", "64"],
        &["account", "deposit", "alice", "1.0000001"],
        &["account", "deposit", "alice", "-1"],
        &["instance", "adopt", "web", "--account", "a", "--tier", "t", "--cgroup", "relative"],
        &["instance", "launch", "web", "--account", "a", "--tier", "t"],
        &["instance", "grant", "web", "gold", "1"],
        &["order", "buy", "web", "--book", "1", "--price", "3"],
        &["agent", "web", "--policy", "dance"],
        &["agent", "web", "--low", "5", "--high", "4"],
        &["agent", "web", "--offer-above", "5", "--request-below", "6"],
        &["agent", "web", "--weights", "0,1"],
        &["agent", "web", "--weights", "1", "--window", "3"],
        &["agent", "web", "--window", "0"],
        &["agent", "web", "--window", "2000"],
        &["agent", "web", "--horizon", "0"],
        &["agent", "web", "--every-ms", "1"],
        &["agent", "web", "--demand", "/nonexistent/table"],
        &["cancel"],
        &["book", "--once"],
        &["completions", "dos"],
        &["qemu", "status"],
        &["qemu", "--qmp", "/nonexistent/qmp", "memory", "--plugged", "1.5G"],
        &["qemu", "--qmp", "/nonexistent/qmp", "memory", "--plugged", "1G", "--balloon", "1G"],
        &["qemu", "--qmp", "/nonexistent/qmp", "mirror", "data"],
    ] {
        let ended = hvctl(arguments);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_command_explains_itself() {
    let top = hvctl(&["--help"]);
    assert!(top.status.success());
    assert!(text(&top.stdout).contains("3 the daemon cannot be reached"));
    for arguments in ASKING.iter().chain(&[&["completions", "bash"][..], &["qemu", "status"]]) {
        let group = ["account", "tier", "instance", "order"].contains(&arguments[0]);
        let names = &arguments[..if group { 2 } else { 1 }];
        let ended = hvctl(&[names, &["--help"]].concat());
        assert!(ended.status.success(), "{names:?}");
        let usage = format!("Usage: hvctl {}", names.join(" "));
        assert!(text(&ended.stdout).contains(&usage), "{}", text(&ended.stdout));
        assert!(text(&top.stdout).contains(names[0]));
    }
}

#[test]
fn shells_get_completions_that_name_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = hvctl(&["completions", shell]);
        assert!(ended.status.success());
        for word in ["status", "instance", "launch", "--watch", "--self-trade"] {
            // Fish writes options without their dashes.
            let word = word.trim_start_matches('-');
            assert!(text(&ended.stdout).contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn a_reader_who_leaves_early_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hvctl"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(said, "");
}
