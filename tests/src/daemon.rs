//! The real daemon as a child process, in a directory of its own that goes with it.
//!
//! What goes wrong here panics with the reason: these are the hands of a test, and what they
//! cannot do the test cannot show.

use crate::vm::binaries;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vendue_wire::client::{Client, Endpoint, Identity};
use vendue_wire::message::{FaultRow, QueryStatus, StatusRow, text};

/// Longest wait for anything that is to happen; reached only where it does not.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// How much of the daemon's log a failing test prints, in bytes.
const LOG_BYTES_SHOWN: usize = 8 << 10;

/// Looks again and again until `look` finds something.
///
/// # Panics
/// If it finds nothing within [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen in {} s", PATIENCE.as_secs());
        std::thread::sleep(PAUSE);
    }
}

/// How a daemon is configured: the embedded defaults with small bounds, changed by a test.
#[derive(Clone, Debug)]
pub struct Setup {
    text: String,
}

impl Setup {
    /// The embedded defaults with small bounds. Ticks are 10 s apart, so that no credits accrue
    /// while a test counts them, and a burst takes an hour of baseline to start.
    pub fn small() -> Setup {
        let output = Command::new(vendued()).arg("defaults").output().expect("run vendued");
        assert!(output.status.success(), "vendued defaults: {}", output.status);
        let text = String::from_utf8(output.stdout).expect("the defaults are text");
        Setup { text }
            .key("accounts_max", "64")
            .key("instances_max", "64")
            .key("orders_max", "4096")
            .key("orders_per_instance_max", "256")
            .key("sessions_max", "64")
            .key("tick_ms", "10000")
            .key("burst_resume_ms", "3600000")
            .key("segment_bytes", "1048576")
            .key("buffer_bytes", "262144")
            .key("ring_bytes", "262144")
            .key("connections_max", "64")
            .key("quantum_ms", "10")
            .key("stages", "\"{dir}/stages\"")
            .key("kind", "\"dry-run\"")
    }

    /// Sets the first key of this name, also where the defaults have it in a comment.
    ///
    /// # Panics
    /// If the defaults have no such key.
    #[must_use]
    pub fn key(mut self, name: &str, value: &str) -> Setup {
        let mut found = false;
        let start = format!("{name} = ");
        let lines = self.text.lines().map(|line| {
            if !found && line.trim_start_matches("# ").starts_with(&start) {
                found = true;
                return format!("{start}{value}");
            }
            line.to_owned()
        });
        self.text = lines.collect::<Vec<_>>().join("\n");
        assert!(found, "the defaults have no key {name}");
        self
    }

    /// Adds keys to a tier of the defaults.
    ///
    /// # Panics
    /// If there is no such tier.
    #[must_use]
    pub fn tier(mut self, name: &str, keys: &str) -> Setup {
        let line = format!("\nname = \"{name}\"\n");
        assert!(self.text.contains(&line), "the defaults have no tier {name}");
        self.text = self.text.replacen(&line, &format!("{line}{keys}\n"), 1);
        self
    }

    /// Adds text at the end.
    #[must_use]
    pub fn with(mut self, text: &str) -> Setup {
        self.text.push('\n');
        self.text.push_str(text);
        self.text.push('\n');
        self
    }
}

/// The daemon's program: what `VENDUED` names (one built otherwise), or that beside the running
/// test.
fn vendued() -> PathBuf {
    if let Some(path) = std::env::var_os("VENDUED") {
        return path.into();
    }
    match binaries(&["vendued"]) {
        Ok(mut found) => found.remove(0).0,
        Err(error) => panic!("{error}"),
    }
}

/// The operator's program, beside the running test.
///
/// # Panics
/// If it is not built.
pub fn hvctl() -> PathBuf {
    binaries(&["hvctl"]).expect("hvctl is built").remove(0).0
}

/// A daemon and its directory. Dropping it kills the one and removes the other; a failing test
/// prints the end of the daemon's log.
#[derive(Debug)]
pub struct Daemon {
    dir: TempDir,
    data_dir: PathBuf,
    /// All of it, or its core.
    child: Option<Child>,
    /// Its other processes, if it has any.
    parts: Vec<(&'static str, Child)>,
    apart: bool,
}

impl Daemon {
    /// A daemon that answers.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(setup: &Setup) -> Daemon {
        let mut daemon = Daemon::prepare(setup);
        daemon.launch();
        daemon
    }

    /// A daemon of three processes, that answers.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_apart(setup: &Setup) -> Daemon {
        let mut daemon = Daemon::prepare(setup);
        daemon.apart = true;
        daemon.launch();
        daemon
    }

    /// A directory with a configuration, no daemon in it yet.
    pub fn prepare(setup: &Setup) -> Daemon {
        let dir = tempfile::tempdir().expect("make a directory");
        let data_dir = dir.path().join("data");
        let daemon = Daemon { data_dir, dir, child: None, parts: Vec::new(), apart: false };
        daemon.configure(setup);
        daemon
    }

    /// Keeps the daemon's data elsewhere from its next start on.
    pub fn keep_data_in(&mut self, data_dir: &Path) {
        self.data_dir = data_dir.to_owned();
    }

    /// Writes another configuration, for the next start or [`Daemon::reload`]. `{dir}` in it
    /// stands for the daemon's directory.
    pub fn configure(&self, setup: &Setup) {
        let dir = self.dir.path().to_str().expect("temporary directories have plain names");
        std::fs::write(self.path("vendued.toml"), setup.text.replace("{dir}", dir))
            .expect("write the configuration");
    }

    /// A path in the daemon's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where its journal and snapshots are.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("the daemon runs").id() as i32)
    }

    fn spawn(&self, socket: &Path, part: Option<&str>) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.path("log"));
        // It dies with the test that started it, whatever becomes of that.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(vendued())
            .args(["run", "--host", "dry-run", "--config"])
            .arg(self.path("vendued.toml"))
            .arg("--data-dir")
            .arg(&self.data_dir)
            .arg("--socket")
            .arg(socket)
            .args(part.map(|part| format!("--part={part}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("open the log"))
            .spawn()
            .expect("start setpriv")
    }

    /// Starts it beside what this handle keeps, for a caller that ends it; its answer to anyone
    /// may be a refusal.
    pub fn launch_unready(&self) -> Child {
        self.spawn(&self.path("socket"), None)
    }

    /// Starts one more process of a daemon of several, for a caller that ends it.
    pub fn launch_part(&self, part: &'static str) -> Child {
        self.spawn(&self.path("socket"), Some(part))
    }

    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn launch(&mut self) {
        assert!(self.child.is_none() && self.parts.is_empty(), "one daemon at a time");
        let mut child = self.spawn(&self.path("socket"), self.apart.then_some("core"));
        if self.apart {
            self.parts = ["gateway", "actuate"].map(|part| (part, self.launch_part(part))).into();
        }
        let ready = eventually("a daemon that answers", || {
            let ended = child.try_wait().expect("look after the daemon");
            let answers = Client::connect(&self.unix(), &Identity::observer()).is_ok();
            if answers && !self.misses_a_part() { Some(Ok(())) } else { ended.map(Err) }
        });
        match ready {
            Ok(()) => self.child = Some(child),
            Err(status) => panic!("vendued ended at once ({status}):\n{}", self.log()),
        }
    }

    /// True if the actuator has not come yet; that the gateway has, its answer shows.
    fn misses_a_part(&self) -> bool {
        self.apart && self.status().1.iter().any(|fault| fault.contains("actuator: absent"))
    }

    /// Starts it where it must refuse to run, beside a running one too. Returns how it ended and
    /// what it wrote.
    pub fn launch_refused(&self) -> (ExitStatus, String) {
        let before = self.log().len();
        let mut child = self.spawn(&self.path("refused"), None);
        let status = eventually("a refusal to start", || {
            let ended = child.try_wait().expect("look after the daemon");
            if ended.is_none() && self.path("refused").exists() {
                let _ = child.kill();
                let _ = child.wait();
                panic!("it started and serves:\n{}", self.log());
            }
            ended
        });
        (status, self.log()[before..].to_owned())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("signal the daemon");
    }

    /// Kills it without a chance to clean up, and waits until it is gone. Of several processes the
    /// core is killed.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("kill the daemon");
        child.wait().expect("wait for the daemon");
        self.wait_for_parts();
    }

    /// Kills one of the other processes, and waits until all have ended.
    pub fn kill_part(&mut self, part: &str) {
        let status = self.end_part(part, Signal::SIGKILL);
        assert_eq!(status.code(), Some(1), "the core ends as one that has failed");
    }

    /// Tells one of the other processes to stop, waits until all have ended, and returns how the
    /// core did.
    pub fn terminate_part(&mut self, part: &str) -> ExitStatus {
        self.end_part(part, Signal::SIGTERM)
    }

    fn end_part(&mut self, part: &str, signal: Signal) -> ExitStatus {
        let (_, ended) = self.parts.iter().find(|(name, _)| *name == part).expect("such a part");
        kill(Pid::from_raw(ended.id() as i32), signal).expect("end a part");
        let status = eventually("the core's end", || {
            let core = self.child.as_mut().expect("the daemon runs");
            core.try_wait().expect("look after the core")
        });
        self.child = None;
        self.wait_for_parts();
        status
    }

    /// The other processes end by themselves once the core has.
    fn wait_for_parts(&mut self) {
        for (part, mut child) in self.parts.drain(..) {
            eventually("the end of every part", || child.try_wait().expect("look after a part"));
            drop((part, child));
        }
    }

    /// Asks it to stop and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let status = eventually("a clean stop", || {
            let child = self.child.as_mut().expect("the daemon runs");
            child.try_wait().expect("look after the daemon")
        });
        self.child = None;
        self.wait_for_parts();
        status
    }

    /// Makes it read its configuration again, and waits until it has said so.
    pub fn reload(&self) -> String {
        let before = self.log().len();
        self.signal(Signal::SIGHUP);
        eventually("a reload", || {
            let said = self.log()[before..].to_owned();
            ["reloaded", "stays"].iter().any(|word| said.contains(word)).then_some(said)
        })
    }

    /// All that it wrote.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.path("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its Unix socket.
    pub fn unix(&self) -> Endpoint {
        Endpoint::Unix(self.path("socket"))
    }

    /// Shared memory, handed over its Unix socket.
    pub fn shm(&self) -> Endpoint {
        Endpoint::Shm { path: self.path("socket"), ring_bytes: 64 << 10 }
    }

    /// A session over the Unix socket.
    ///
    /// # Panics
    /// If it is refused.
    #[track_caller]
    pub fn client(&self, identity: &Identity) -> Client {
        match Client::connect(&self.unix(), identity) {
            Ok(client) => client,
            Err(error) => panic!("{error}"),
        }
    }

    /// What became of `hvctl` with these arguments, as an operator beside the daemon.
    ///
    /// # Panics
    /// If it does not run.
    pub fn hvctl(&self, arguments: &[&str]) -> Output {
        let connect = self.unix().to_string();
        Command::new(hvctl())
            .args(["--connect", &connect])
            .args(arguments)
            .output()
            .expect("run hvctl")
    }

    /// What `hvctl --json` printed, which must have gone well: an object a line.
    ///
    /// # Panics
    /// If it failed, or printed something else.
    #[track_caller]
    pub fn said(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.hvctl(&[&["--json"], arguments].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The only object that `hvctl --json` printed.
    ///
    /// # Panics
    /// If it failed, or printed more or less.
    #[track_caller]
    pub fn said_one(&self, arguments: &[&str]) -> Value {
        let mut said = self.said(arguments);
        assert_eq!(said.len(), 1, "{arguments:?}: {said:?}");
        said.remove(0)
    }

    /// Why the daemon refused what `hvctl` asked of it.
    ///
    /// # Panics
    /// If it was not refused.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.hvctl(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    /// Its status and the faults that stand, asked anonymously over a connection of its own.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn status(&self) -> (StatusRow, Vec<String>) {
        let mut client = self.client(&Identity::observer());
        let mut status = None;
        let mut faults = Vec::new();
        let answer = client.ask_each(&QueryStatus {}, |row| {
            status = status.or(row.message::<StatusRow>().copied());
            let fault = row.message::<FaultRow>();
            faults.extend(fault.map(|row| format!("{}: {}", text(&row.source), text(&row.text))));
        });
        answer.expect("a status");
        (status.expect("a status row"), faults)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let parts = self.parts.drain(..).map(|(_, child)| child);
        for mut child in self.child.take().into_iter().chain(parts) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.ceil_char_boundary(log.len().saturating_sub(LOG_BYTES_SHOWN));
            eprintln!("vendued's log ends:\n{}", &log[from..]);
        }
    }
}

/// A loopback address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    let probe = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    probe.local_addr().expect("a bound port has an address")
}
