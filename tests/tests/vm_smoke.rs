//! The VM harness itself: a guest boots, its kernel enforces `cpu.max`, failures are told apart.
//! Needs what `tests/vm/fetch` brings.

use std::time::Duration;

use vendue_tests::vm::shares::mean_percent;
use vendue_tests::vm::{Vm, VmError, binaries, boot};

/// Far beyond what a slow machine needs: only a guest that hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(300);

fn guest(scenario: &str) -> Vm<'_> {
    Vm { memory_mib: 256, cpus: 2, files: Vec::new(), scenario, timeout: PATIENCE }
}

/// Files come along, the disk takes direct writes and limits, a cap binds who is busy, and the
/// scenario's end is told.
#[test]
fn a_guest_has_files_a_disk_and_controllers_that_bind() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "answer = 42\n").unwrap();
    let scenario = "
        grep -q 'answer = 42' /etc/vendue/config.toml
        dd if=/dev/zero of=/data/file bs=4096 count=8 oflag=direct
        cmp -n 32768 /data/file /dev/zero
        mkdir /sys/fs/cgroup/slow
        echo \"$(cat /sys/block/nvme0n1/dev) wbps=1048576\" >/sys/fs/cgroup/slow/io.max
        cat /sys/fs/cgroup/slow/io.max
        ping -c 1 127.0.0.1
        cgroup=/sys/fs/cgroup
        cat $cgroup/cgroup.controllers
        mkdir $cgroup/small $cgroup/large
        echo 20000 100000 >$cgroup/small/cpu.max
        echo 60000 100000 >$cgroup/large/cpu.max
        vm-burn 60 $cgroup/small &
        vm-burn 60 $cgroup/large &
        wait_for 60 grep -q . $cgroup/small/cgroup.procs
        wait_for 60 grep -q . $cgroup/large/cgroup.procs
        mark busy
        vm-shares 3 $cgroup/small $cgroup/large
        mark done
        (exit 7)
        echo unreachable
    ";
    let mut files = binaries(&["vm-burn", "vm-shares"]).unwrap();
    files.push((config, "/etc/vendue/config.toml".to_owned()));
    let outcome = boot(&Vm { files, ..guest(scenario) }).unwrap();
    let console = &outcome.console;
    assert_eq!(outcome.status, 7, "{console}");
    assert!(console.contains("wbps=1048576") && !console.contains("unreachable"), "{console}");
    let controllers = console.lines().find(|line| line.contains("cpuset")).expect(console);
    for controller in ["cpu", "memory", "io", "cpuset", "pids"] {
        assert!(controllers.split(' ').any(|name| name == controller), "{controller}: {console}");
    }
    let (busy_ms, done_ms) = (outcome.mark_ms("busy").unwrap(), outcome.mark_ms("done").unwrap());
    assert!(done_ms >= busy_ms + 3000, "{console}");
    let samples = outcome.samples();
    let small = mean_percent(&samples, 0, busy_ms, done_ms).expect(console);
    let large = mean_percent(&samples, 1, busy_ms, done_ms).expect(console);
    assert!((12..=28).contains(&small), "{small}% of 20%: {console}");
    assert!((42..=72).contains(&large), "{large}% of 60%: {console}");
}

#[test]
fn guests_that_hang_flood_or_die_are_errors() {
    let hung = boot(&Vm { timeout: Duration::from_secs(5), ..guest("sleep 1000") });
    assert!(matches!(hung, Err(VmError::TimedOut { .. })), "{hung:?}");

    let flood = boot(&guest("yes"));
    assert!(matches!(flood, Err(VmError::ConsoleTooLong { .. })), "{flood:?}");

    let dead = boot(&guest("echo last words; poweroff -f; sleep 1000"));
    let Err(VmError::NoStatus { console, .. }) = dead else { panic!("{dead:?}") };
    assert!(console.contains("last words"), "{console}");

    let small = boot(&Vm { memory_mib: 64, ..guest("") });
    assert!(matches!(small, Err(VmError::MemoryTooSmall { .. })), "{small:?}");
}

#[test]
fn a_binary_that_is_not_built_is_named() {
    let error = format!("{:?}", binaries(&["vm-burn", "no-such-binary"]).unwrap_err());
    assert!(error.contains("no-such-binary is not built; run `cargo build"), "{error}");
}
