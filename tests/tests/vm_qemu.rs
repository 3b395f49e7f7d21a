//! A real Linux guest in a real QEMU, changed over its monitor with `hvctl qemu`: every change is
//! seen *inside the guest*. Needs what `tests/vm/fetch` brings.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use vendue_tests::daemon::{Daemon, Setup, eventually, hvctl};
use vendue_tests::vm::live::{Live, Machine};

/// Far beyond what a slow machine needs: only a guest that hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(300);
const DISK_BYTES: u64 = 16 << 20;

/// A guest, and what is used to change it.
struct Scene {
    guest: Live,
    hvctl: PathBuf,
    directory: tempfile::TempDir,
    disk: PathBuf,
}

impl Scene {
    fn set() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("bronze.img");
        File::create_new(&disk).unwrap().set_len(DISK_BYTES).unwrap();
        let guest = Live::boot(&machine(&disk)).unwrap();
        let hvctl = hvctl();
        Scene { guest, hvctl, directory, disk }
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.hvctl);
        command.args(["--json", "qemu", "--qmp"]).arg(self.guest.monitor());
        command.args(arguments.split(' '));
        command
    }

    /// The last object that `hvctl qemu` prints, and its exit code.
    fn qemu(&self, arguments: &str) -> (Value, i32) {
        let output = self.command(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_else(|| panic!("{arguments}: {output:?}"));
        let object = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {last}"));
        (object, output.status.code().expect("it ends by itself"))
    }

    /// The value of a change that was applied.
    fn applied(&self, arguments: &str) -> Value {
        let (object, code) = self.qemu(arguments);
        assert_eq!((&object["outcome"], code), (&json!("applied"), 0), "{arguments}: {object}");
        object["value"].clone()
    }

    /// Why a change was not applied.
    fn why(&self, arguments: &str, outcome: &str) -> String {
        let (object, code) = self.qemu(arguments);
        assert_eq!((&object["outcome"], code), (&json!(outcome), 1), "{arguments}: {object}");
        object["why"].as_str().expect("a reason").to_owned()
    }

    /// Starts a command that tells its progress, and waits until it tells.
    fn underway(&self, arguments: &str) -> (Child, BufReader<std::process::ChildStdout>) {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let progress: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(progress["left_bytes"].is_u64(), "{arguments}: {progress}");
        (child, lines)
    }

    fn number(&mut self, line: &str) -> u64 {
        let printed = self.guest.run(line).unwrap();
        printed.trim().parse().unwrap_or_else(|e| panic!("{line}: {e}: {printed}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn machine(disk: &Path) -> Machine<'_> {
    Machine { memory_mib: 192, cpus_max: 3, plug_max_mib: 256, disk, patience: PATIENCE }
}

/// The rest of what a command prints: its outcome.
fn outcome(mut child: Child, lines: BufReader<std::process::ChildStdout>) -> Value {
    let last = lines.lines().map(Result::unwrap).last().expect("an outcome");
    child.wait().unwrap();
    serde_json::from_str(&last).unwrap_or_else(|e| panic!("{e}: {last}"))
}

#[test]
fn a_guest_sees_each_change_of_its_qemu() {
    let mut scene = Scene::set();
    processors(&mut scene);
    memory(&mut scene);
    pause(&mut scene);
    throttle(&mut scene);
    mirror(&mut scene);
    migrate(&mut scene);
    fewer_processors(&mut scene);
    trade(&mut scene);
}

fn processors(scene: &mut Scene) {
    assert_eq!(scene.number("nproc"), 1);
    assert_eq!(scene.applied("vcpus 2"), 2);
    assert_eq!(scene.number(&online(1)), 2);
    let output = scene.command("vcpus").output().unwrap();
    let threads: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(threads.len(), 2, "{threads:?}");
    for thread in &threads {
        let task = format!("/proc/{}/task/{}/comm", scene.guest.process(), thread["thread"]);
        let name = std::fs::read_to_string(&task).unwrap_or_else(|e| panic!("{task}: {e}"));
        assert!(name.starts_with(&format!("CPU {}/", thread["vcpu"])), "{name}");
    }
    assert!(scene.why("vcpus 4", "refused").contains("maxcpus"));
    assert!(scene.why("vcpus 0", "refused").contains("from the start"));
}

/// Has the guest use a processor once it is there, and print how many it uses.
fn online(cpu: u32) -> String {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    format!("wait_for 30 test -e {file}; echo 1 >{file}; nproc")
}

/// After the migration, because QEMU 7.2 with emulated processors corrupts its memory when it
/// migrates a guest that gave a processor back.
fn fewer_processors(scene: &mut Scene) {
    assert_eq!(scene.number("nproc"), 2);
    assert_eq!(scene.applied("vcpus 3"), 3);
    assert_eq!(scene.number(&online(2)), 3);
    assert_eq!(scene.applied("vcpus 1"), 1);
    assert_eq!(scene.number("nproc"), 1);
}

fn memory(scene: &mut Scene) {
    let define = "total() { sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }; \
        between() { [ $(total) -ge $1 ] && [ $(total) -le $2 ]; }; start=$(total); total";
    let before = scene.number(define);
    // The guest takes a moment to use what it has plugged.
    let grows_mib = |scene: &mut Scene, from: i64, to: i64| {
        let kib = |mib: i64| before as i64 + mib * 1024;
        let line = format!("wait_for 30 between {} {}", kib(from), kib(to));
        scene.guest.run(&line).unwrap_or_else(|e| panic!("{before} kB: {e}"));
    };
    assert_eq!(scene.applied("memory --plugged 128M"), 128 << 20);
    grows_mib(scene, 112, 128);
    assert_eq!(scene.applied("memory --plugged 0"), 0);
    grows_mib(scene, -4, 4);
    assert!(scene.why("memory --plugged 512M", "refused").contains("at most"));
    assert!(scene.why("memory --plugged 5", "refused").contains("multiple"));

    assert_eq!(scene.applied("memory --balloon 160M"), 160 << 20);
    grows_mib(scene, -34, -30);
    assert_eq!(scene.applied("memory --balloon 192M"), 192 << 20);
    grows_mib(scene, -4, 4);
    assert!(scene.why("memory --balloon 4G", "refused").contains("bytes"));
}

fn pause(scene: &mut Scene) {
    // Counts for as long as the guest lives, wherever that is.
    let count = "while sleep 0.05; do n=$((${n:-0} + 1)); echo $n >/tmp/next; \
                 mv /tmp/next /tmp/n; done & wait_for 30 test -e /tmp/n";
    scene.guest.run(count).unwrap();
    assert_eq!(scene.applied("pause"), json!({ "running": false }));
    let (status, _) = scene.qemu("status");
    assert_eq!((&status["running"], &status["vcpus"]), (&json!(false), &json!(2)), "{status}");
    scene.guest.ask("cat /tmp/n").unwrap();
    assert!(!scene.guest.prints_within(Duration::from_secs(2)), "a paused guest answers");
    assert_eq!(scene.applied("resume"), json!({ "running": true }));
    let first: u64 = scene.guest.answer().unwrap().trim().parse().unwrap();
    assert!(scene.number("sleep 0.5; cat /tmp/n") > first, "it does not count on");
}

/// The time that the guest needs to write 3 MiB, in ms.
const WRITE: &str = "a=$(cut -d' ' -f1 /proc/uptime | tr -d .); \
    dd if=/dev/zero of=/dev/vda bs=64k count=48 oflag=direct 2>/dev/null; \
    b=$(cut -d' ' -f1 /proc/uptime | tr -d .); echo $(((b - a) * 10))";

fn throttle(scene: &mut Scene) {
    let free_ms = scene.number(WRITE);
    let limits = json!({ "bytes_per_s": 1 << 20, "operations_per_s": 0 });
    assert_eq!(scene.applied("throttle data --bytes-per-s 1M"), limits);
    // A tenth of a second's bytes go at once.
    let limited_ms = scene.number(WRITE);
    assert!(limited_ms >= 2500, "3 MiB at 1 MiB/s in {limited_ms} ms");
    let (status, _) = scene.qemu("status");
    assert_eq!(status["disks"][0]["limits"], limits, "{status}");
    scene.applied("throttle data");
    let freed_ms = scene.number(WRITE);
    assert!(free_ms.min(freed_ms) * 2 < limited_ms, "{free_ms}, {limited_ms}, {freed_ms} ms");
    assert!(scene.why("throttle sda", "refused").contains("but: data"));
}

/// A sum over the disk as the guest reads it.
const SUM: &str = "sync; dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | md5sum | cut -d' ' -f1";

/// The same over a file of the host.
fn sum(file: &Path) -> String {
    let output = Command::new("md5sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

fn mirror(scene: &mut Scene) {
    let (old, gold) = (scene.disk.clone(), scene.path("gold.img"));
    let fill = "dd if=/dev/urandom of=/dev/vda bs=1M count=16 oflag=direct 2>/dev/null";
    scene.guest.run(fill).unwrap();
    let to = |rest: &str| format!("mirror data --to {}{rest}", gold.display());

    // Writes on while the disk is copied, each time something else.
    scene
        .guest
        .run(
            "while [ ! -e /tmp/quiet ]; do head -c 4096 /dev/urandom | dd of=/dev/vda bs=4096 \
              seek=1000 conv=notrunc oflag=direct 2>/dev/null; done & writer=$!; echo",
        )
        .unwrap();
    let why = scene.why(&to(" --bytes-per-s 1M --patience 1"), "timed-out");
    assert!(why.contains("stays where it was") && !why.contains("remains"), "{why}");
    assert!(!gold.exists(), "what was copied is left behind");
    let (child, lines) = scene.underway(&to(" --bytes-per-s 1M"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let given_up = outcome(child, lines);
    assert_eq!(given_up["outcome"], "refused", "{given_up}");
    assert!(!gold.exists(), "what was copied is left behind");

    let (child, lines) = scene.underway(&to(" --bytes-per-s 8M"));
    let moved = outcome(child, lines);
    assert_eq!((&moved["outcome"], &moved["value"]["file"]), (&json!("applied"), &json!(gold)));
    scene.guest.run("touch /tmp/quiet; wait $writer").unwrap();
    let seen = scene.guest.run(SUM).unwrap();
    assert_eq!(seen.trim(), sum(&gold), "the guest's disk is not the new file");
    assert_ne!(seen.trim(), sum(&old), "the guest's writes still reach the old file");
    assert!(scene.why(&to(""), "refused").contains("exists already"));
    scene.disk = gold;
}

fn migrate(scene: &mut Scene) {
    let through = scene.path("through");
    // The processor that was plugged has to be there on the other side too.
    let plugged = ["max-x86_64-cpu,id=vendue-vcpu-1,socket-id=0,die-id=0,core-id=1,thread-id=0"];
    let send = |to: &Live, rest: &str| {
        let (to, through) = (to.monitor(), through.display().to_string());
        format!("migrate --to {} --through {through}{rest}", to.display())
    };
    let counted = scene.number("cat /tmp/n");

    // The second QEMU is killed in the middle: the guest stays.
    let second = Live::await_guest(&machine(&scene.disk), &plugged).unwrap();
    let (child, lines) = scene.underway(&send(&second, " --bytes-per-s 1M"));
    drop(second);
    let failed = outcome(child, lines);
    assert_eq!(failed["outcome"], "refused", "{failed}");
    let still = scene.number("cat /tmp/n");
    assert!(still > counted, "the guest does not run on where it was");

    // Too slow for the time it has: taken back.
    let second = Live::await_guest(&machine(&scene.disk), &plugged).unwrap();
    let why = scene.why(&send(&second, " --bytes-per-s 1M --patience 1"), "timed-out");
    assert!(why.contains("stays where it was"), "{why}");
    drop(second);
    let still = scene.number("sleep 0.5; cat /tmp/n");

    let second = Live::await_guest(&machine(&scene.disk), &plugged).unwrap();
    move_to(scene, &second, &through);
    assert!(scene.why("resume", "refused").contains("another QEMU"));
    assert!(scene.why(&send(&second, ""), "refused").contains("incoming"));
    drop(std::mem::replace(&mut scene.guest, second));
    let there = scene.number("cat /tmp/n");
    assert!(there > still, "{there} after {still}: it does not count on where it arrived");
    scene.guest.run("dd if=/dev/urandom of=/dev/vda bs=4096 count=9 oflag=direct").unwrap();
    assert_eq!(scene.guest.run(SUM).unwrap().trim(), sum(&scene.disk));

    // A guest that stands still goes so, and stays so.
    scene.applied("pause");
    let third = Live::await_guest(&machine(&scene.disk), &plugged).unwrap();
    assert_eq!(scene.applied(&send(&third, ""))["running"], false);
    scene.guest = third;
    scene.guest.ask("cat /tmp/n").unwrap();
    assert!(!scene.guest.prints_within(Duration::from_secs(1)), "a paused guest answers");
    scene.applied("resume");
    let first: u64 = scene.guest.answer().unwrap().trim().parse().unwrap();
    assert!(first >= there && scene.number("sleep 0.5; cat /tmp/n") > first);
}

/// What a daemon answers `hvctl`, by line.
fn ask(hvctl: &Path, daemon: &Daemon, line: &str) -> Vec<Value> {
    let connect = format!("unix:{}", daemon.path("socket").display());
    let mut command = Command::new(hvctl);
    let output = command.args(["--json", "--connect", &connect]).args(line.split(' ')).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The guest goes from a QEMU to another and its instance from a daemon to another, with its credits.
fn move_to(scene: &Scene, second: &Live, through: &Path) {
    let daemons = [(); 2].map(|()| Daemon::start(&Setup::small()));
    let hvctl = |at: usize, line: &str| ask(&scene.hvctl, &daemons[at], line);
    for at in 0..2 {
        hvctl(at, "account create acme");
    }
    hvctl(0, "instance adopt web --account acme --tier bronze --cpu 10 --cgroup /web");
    hvctl(0, "instance grant web cpu 4321");
    let credits = |at: usize| {
        let rows = hvctl(at, "instance list");
        rows.iter().map(|row| row["free_millicredits"].clone()).collect::<Vec<_>>()
    };
    let owned = credits(0);
    let moved = format!(
        "migration run web --to unix:{} --place /web --qmp {} --to-qmp {} --through {}",
        daemons[1].path("socket").display(),
        scene.guest.monitor().display(),
        second.monitor().display(),
        through.display(),
    );
    hvctl(0, &moved);
    assert_eq!((credits(0), credits(1)), (vec![], owned), "each credit is there and none here");
}

/// The daemon moves the memory of an instance that is a QEMU, here by what it is entitled to with
/// credits and without: a trade takes memory out of the running guest.
fn trade(scene: &mut Scene) {
    let qemu = format!("[[qemu]]\ncgroup = \"/web\"\nmonitor = {:?}", scene.guest.monitor());
    let gold = scene.path("fast");
    std::fs::create_dir(&gold).unwrap();
    let storage = |dir: &Path| format!("storage = {dir:?}");
    let setup = Setup::small().tier("bronze", &storage(scene.directory.path()));
    let daemon = Daemon::start(&setup.tier("gold", &storage(&gold)).with(&qemu));
    let program = scene.hvctl.clone();
    let hvctl = |line: &str| ask(&program, &daemon, line);
    for name in ["seller", "buyer"] {
        hvctl(&format!("account create {name} --sells-to all --buys-from all"));
        hvctl(&format!("account deposit {name} 1000"));
    }
    // Of 16 MiB: the guest's own 192 MiB and 64 more; four times as much with credits, but the
    // device ends at 256 MiB.
    hvctl(
        "instance adopt web --account seller --tier bronze --memory 16 --block-io 8 --cgroup /web",
    );
    hvctl("instance adopt other --account buyer --tier bronze --memory 1 --cgroup /other");
    let mut stands = |held_mib: u64, plugged_mib: u64| {
        let held = (held_mib << 20).to_string();
        let row = eventually("the guest has followed", || {
            let is_it = |row: &Value| row["instance"] == 0 && row["file"] == "virtio-mem";
            let row = hvctl("limits web").into_iter().find(is_it)?;
            (row["read_back"] == held && row["state"] == "in force").then_some(row)
        });
        assert_eq!(row["resource"], "memory", "{row}");
        let (least, most) = ((plugged_mib - 8) << 10, (plugged_mib + 8) << 10);
        let line = format!("wait_for 30 between $((start + {least})) $((start + {most}))");
        scene.guest.run(&line).unwrap_or_else(|e| panic!("{plugged_mib} MiB: {e}"));
    };
    stands(256, 64);
    hvctl("instance grant web memory 100000");
    stands(448, 256);
    hvctl("order sell web --resource memory --price 1 --quantity 100000");
    hvctl("order buy other --resource memory --price 1 --quantity 100000");
    stands(256, 64);
    storage_class(scene, &gold, &hvctl);
    let (_, faults) = daemon.status();
    assert!(!faults.iter().any(|fault| fault.contains("QEMU")), "{faults:?}");
}

/// The running guest's disk goes to the storage that its instance leases, and home when that ends; the
/// name of the disk leads to it throughout.
fn storage_class(scene: &mut Scene, gold: &Path, hvctl: &impl Fn(&str) -> Vec<Value>) {
    let fill = "dd if=/dev/urandom of=/dev/vda bs=64k count=4 oflag=direct 2>/dev/null";
    let name = scene.disk.clone();
    let is_it = |row: &Value| row["file"] == "qemu storage";
    let bid = hvctl("lease bid web storage:gold 64 --rent 5");
    let row = eventually("the disk is there", || {
        let row = hvctl("limits web").into_iter().find(is_it)?;
        (row["state"] == "in force").then_some(row)
    });
    assert_eq!(row["read_back"], (64_u64 << 20).to_string(), "{row}");
    let there = std::fs::read_link(&name).unwrap();
    assert_eq!(there.parent().unwrap(), gold.canonicalize().unwrap());
    scene.guest.run(fill).unwrap();
    assert_eq!(scene.guest.run(SUM).unwrap().trim(), sum(&name), "its name leads elsewhere");

    let handle = bid[0]["handle"].as_str().expect("a handle is text");
    hvctl(&format!("lease cancel {handle}"));
    eventually("the disk is at home", || {
        let at_home = !hvctl("limits web").iter().any(is_it);
        at_home.then_some(())
    });
    assert!(name.symlink_metadata().unwrap().is_file() && !there.exists());
    scene.guest.run(fill).unwrap();
    assert_eq!(scene.guest.run(SUM).unwrap().trim(), sum(&name), "it is not at home");
    eventually("the audit trail has it, there and back", || {
        let audit = hvctl("audit");
        let applied = audit.iter().filter(|row| row.to_string().contains("storage applied"));
        (applied.count() == 2).then_some(())
    });
}
