//! `hvctl instance launch`: a command in a cgroup of its own, under Vendue's care while it runs.
//!
//! The new process waits before its first instruction until the daemon has accepted the instance,
//! so a refused launch runs nothing and an accepted one runs nothing outside its group.

use super::door::{Door, Reach, Trouble, Who};
use super::group::Group;
use super::instance::{Reservation, create, parse_port, place, remove};
use super::names::accounts;
use super::output::Output;
use hvctl::cgroup::ACCOUNT;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use vendue_wire::message::*;

/// `StatusRow.host` of a dry run.
const DRY_RUN: u8 = 1;

/// What to launch.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs in the foreground and ends with the command's exit code (128 + signal if a signal ended it); \
then the instance is removed, what is left in its cgroup is killed, and the cgroup goes. SIGTERM \
and SIGHUP are passed on to the command. Where the daemon is on a dry-run host there is no \
cgroup: the command runs unlimited and is only metered.")]
pub struct Launch {
    #[command(flatten)]
    reservation: Reservation,
    /// Directory to make the cgroup in [default: vendue/tier-N in the daemon's own group, the package's or
    /// the first cgroup2 mount, N being the tier's number, and below the account's group if it has a cap;
    /// what the tier's instances use together is limited there]
    #[arg(long, value_name = "CGROUP_DIR")]
    parent: Option<PathBuf>,
    /// Socket of the port that the command makes (see `hvctl cell`), through which its memory follows
    #[arg(long, value_name = "SOCKET", value_parser = parse_port)]
    port: Option<String>,
    /// Return at once; the instance stays until `hvctl instance remove`, its cgroup longer
    #[arg(long)]
    detach: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command; [`Trouble::Ended`] with its exit code once it has ended.
pub fn run(launch: &Launch, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let message = launch.reservation.message(&mut door)?;
    let status = door.rows::<StatusRow>(&QueryStatus {})?;
    let group = if status.first().is_some_and(|status| status.host == DRY_RUN) {
        eprintln!(
            "hvctl: note: the daemon is on a dry-run host, so the command runs without limits"
        );
        None
    } else {
        let account = message.account.get();
        let rows = accounts(&mut door)?;
        let mut capped = rows.iter().filter(|row| row.cap_millicores.get() > 0);
        let below = capped.any(|row| row.account.get() == account);
        let below = below.then(|| format!("{ACCOUNT}{account}"));
        let tier = message.tier.get();
        let parent = (launch.parent.as_deref(), reach.process());
        Some(Group::make(parent, tier, below.as_deref(), text(&message.name))?)
    };
    let started = start(launch, group.as_ref(), message, &mut door, out);
    // The session is not held while the command runs; another one ends the instance.
    drop(door);
    match (started, launch.detach) {
        (Ok(_), true) => Ok(()),
        (Ok((mut child, instance)), false) => {
            let status = wait(&mut child);
            let removed =
                reach.acting(Who::OPERATOR).and_then(|mut door| remove(&mut door, instance));
            // The daemon watches a port itself, and may have been the first to see the end.
            if let Err(trouble) = removed
                && !(launch.port.is_some() && matches!(trouble, Trouble::Refused(_)))
            {
                eprintln!(
                    "hvctl: instance {instance} could not be removed: {trouble}; \
                     try `hvctl instance remove {instance}`"
                );
            }
            group.map_or(Ok(()), Group::remove)?;
            Err(Trouble::Ended(exit_code(status.map_err(host("wait for the command"))?)))
        }
        (Err(trouble), _) => {
            // The first trouble is the one to tell.
            let _ = group.map_or(Ok(()), Group::remove);
            Err(trouble)
        }
    }
}

/// The code that shells give for this end.
pub fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => 128_u8.wrapping_add(signal.unwrap_or(0) as u8),
    }
}

fn host(what: &'static str) -> impl Fn(io::Error) -> Trouble {
    move |error| Trouble::Host(format!("cannot {what}: {error}"))
}

/// Starts the command, gets it accepted, lets it go; says so. Returns it and its instance.
fn start(
    launch: &Launch,
    group: Option<&Group>,
    message: CreateInstance,
    door: &mut Door,
    out: &mut Output,
) -> Result<(Child, u32), Trouble> {
    block_signals(launch.detach)?;
    let (mut hear_pid, tell_pid) = io::pipe().map_err(host("make a pipe"))?;
    let (hear_go, mut tell_go) = io::pipe().map_err(host("make a pipe"))?;
    let mut command = Command::new(&launch.command[0]);
    command.args(&launch.command[1..]);
    if launch.detach {
        command.stdin(Stdio::null()).process_group(0);
    }
    let procs = group.map(Group::open_procs).transpose()?;
    let held = Held { procs, tell_pid, hear_go, tell_go_fd: tell_go.as_raw_fd() };
    // SAFETY: between fork and exec the closure only calls write, getpid, close, read and
    // pthread_sigmask, which are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(move || held.wait()) };
    let (adopted, spawned) = std::thread::scope(|scope| {
        // `spawn` returns when the process has left `wait`, so it needs a thread; it takes the
        // command along, and with its end the process's ends of the pipes are closed here.
        let spawning = scope.spawn(move || command.spawn());
        let mut pid = [0; 4];
        let adopted = match hear_pid.read_exact(&mut pid) {
            Ok(()) => {
                let port = launch.port.as_deref();
                adopt(u32::from_le_bytes(pid), (group, port), message, door, out).and_then(
                    |number| {
                        tell_go.write_all(&[1]).map_err(host("let the command go"))?;
                        Ok(Some(number))
                    },
                )
            }
            // It ended before: `spawn` knows why.
            Err(_) => Ok(None),
        };
        drop(tell_go);
        (adopted, spawning.join())
    });
    let spawned = spawned.map_err(|_| Trouble::Host("the spawning thread panicked".to_owned()))?;
    match (adopted?, spawned) {
        (Some(number), Ok(child)) => Ok((child, number)),
        (number, spawned) => {
            if let Some(number) = number {
                remove(door, number)?;
            }
            let why = spawned.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
            Err(Trouble::Host(format!("cannot start {}: {why}", launch.command[0].display())))
        }
    }
}

fn adopt(
    pid: u32,
    (group, port): (Option<&Group>, Option<&str>),
    message: CreateInstance,
    door: &mut Door,
    out: &mut Output,
) -> Result<u32, Trouble> {
    let path = group.map_or_else(|| format!("pid:{pid}"), |group| group.path().to_owned());
    let message = CreateInstance { place: place(&path, port)?, ..message };
    let place = text(&message.place);
    let number = create(door, message)?;
    let name = text(&message.name);
    let object = json!({ "instance": number, "name": name, "pid": pid, "place": place });
    // A reader who has gone away does not end the command.
    let _ =
        out.say(&object, &format!("instance {name} has number {number}, pid {pid}, at {place}"));
    Ok(number)
}

/// What the new process holds before it becomes the command.
struct Held {
    procs: Option<File>,
    tell_pid: PipeWriter,
    hear_go: PipeReader,
    /// The process's own copy of the end that lets it go.
    tell_go_fd: i32,
}

impl Held {
    /// Runs in the new process: joins the group, tells its pid, waits to be let go.
    fn wait(&self) -> io::Result<()> {
        // With its own copy open it would never see that nobody is left to let it go.
        nix::unistd::close(self.tell_go_fd)?;
        if let Some(mut procs) = self.procs.as_ref() {
            procs.write_all(b"0")?;
        }
        (&self.tell_pid).write_all(&std::process::id().to_le_bytes())?;
        let mut go = [0];
        (&self.hear_go).read_exact(&mut go)?;
        SigSet::empty().thread_set_mask()?;
        Ok(())
    }
}

/// The signals that must not end `hvctl` before it has cleaned up, and the one that wakes it.
fn awaited_signals() -> SigSet {
    SigSet::from_iter([
        Signal::SIGCHLD,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ])
}

/// From before the start, so that no signal can fall between start and cleaning up.
fn block_signals(detach: bool) -> Result<(), Trouble> {
    if detach {
        return Ok(());
    }
    awaited_signals().thread_block().map_err(|errno| host("block signals")(errno.into()))
}

/// Waits for the command's end. A terminal's Ctrl-C has reached it by itself; what was sent to
/// `hvctl` alone is passed on.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if let signal @ (Signal::SIGTERM | Signal::SIGHUP) = awaited_signals().wait()? {
            // Not reaped yet, so the number is still its own.
            kill(Pid::from_raw(child.id() as i32), signal)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_shells() {
        for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
            let status = Command::new("sh").args(["-c", script]).status().unwrap();
            assert_eq!(exit_code(status), code, "{script}");
        }
    }
}
