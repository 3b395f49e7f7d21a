//! Sends a running guest to another QEMU on this host, and takes it back when that fails.
//!
//! The other QEMU was started for the same machine, with `-incoming defer` and on the same disks.
//! A guest never runs twice: the second QEMU takes it in standing still and is told to let it run
//! only once all of it is there. The first goes on only if the second never was told so, and either
//! has ended or never had all of the guest.

use super::command::Command;
use super::power::status;
use super::reply::{Migration, MigrationStatus};
use super::{Go, Monitor, Outcome, Progress, QmpError, settled};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks at how it goes.
const LOOK: Duration = Duration::from_millis(100);
/// How long the second QEMU may take to take over, and the first to take back.
const END: Duration = Duration::from_secs(60);
/// How long a QEMU that closed its monitor may take to be gone.
const TO_END: Duration = Duration::from_secs(5);

/// How to send a guest.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Absolute path of a socket that the second QEMU makes and the first connects to.
    pub through: &'a Path,
    /// Bytes sent a second; 0 for as fast as it goes.
    pub bytes_per_s: u64,
    /// How long the guest may stand still, in ms. A guest that writes faster than this lets it be
    /// sent does not arrive.
    pub downtime_ms: u64,
    /// Longest time until the guest has arrived.
    pub patience: Duration,
}

/// A guest that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// It runs; false if it was paused when it left.
    pub running: bool,
    /// How long it stood still, in ms, as the first QEMU says.
    pub downtime_ms: u64,
    /// Bytes of memory sent.
    pub sent_bytes: u64,
}

/// How sending ended.
enum Sent {
    Over(Migration),
    Back(String),
    Late,
}

/// Sends the guest of `from` to `to`. `tell` is told how far it is several times a second and may
/// have it taken back.
///
/// # Errors
/// Either QEMU is lost or makes no sense, and it is not known that the guest is whole elsewhere.
pub fn migrate(
    from: &mut Monitor,
    to: &mut Monitor,
    plan: &Plan<'_>,
    tell: impl FnMut(Progress) -> Go,
) -> Result<Outcome<Arrived>, QmpError> {
    settled(prepare_and_send(from, to, plan, tell))
}

fn prepare_and_send(
    from: &mut Monitor,
    to: &mut Monitor,
    plan: &Plan<'_>,
    tell: impl FnMut(Progress) -> Go,
) -> Result<Outcome<Arrived>, QmpError> {
    let until = Instant::now() + plan.patience;
    let Some(path) = plan.through.to_str().filter(|_| plan.through.is_absolute()) else {
        let why = format!("{} is no absolute path in UTF-8", plan.through.display());
        return Ok(Outcome::Refused(why));
    };
    let uri = format!("unix:{path}");
    let waiting = status(to)?.status;
    if waiting != "inmigrate" {
        let why = format!("the other QEMU is {waiting:?}: start it with -incoming defer");
        return Ok(Outcome::Refused(why));
    }
    let before = status(from)?;
    if matches!(before.status.as_str(), "inmigrate" | "postmigrate" | "finish-migrate") {
        let why = format!("there is no guest to send: QEMU is {:?}", before.status);
        return Ok(Outcome::Refused(why));
    }
    from.tell(&Command::MigrateSetParameters {
        max_bandwidth: plan.bytes_per_s,
        downtime_limit: plan.downtime_ms,
    })?;
    // While it waits, this means: do not let the guest run by yourself.
    to.tell(&Command::Stop)?;
    to.tell(&Command::MigrateIncoming { uri: uri.clone() })?;
    from.tell(&Command::Migrate { uri })?;
    match send(from, until, tell)? {
        Sent::Over(migration) => arrive(from, to, before.running, &migration),
        Sent::Back(reason) => {
            take_back(from, before.running)?;
            Ok(Outcome::Refused(format!("{reason}; the guest stays where it was")))
        }
        Sent::Late => {
            take_back(from, before.running)?;
            let why = "not done in time; the guest stays where it was".to_owned();
            Ok(Outcome::TimedOut(why))
        }
    }
}

/// Looks until the guest is over there, or will not be.
fn send(
    from: &mut Monitor,
    until: Instant,
    mut tell: impl FnMut(Progress) -> Go,
) -> Result<Sent, QmpError> {
    loop {
        let migration: Migration = from.call(&Command::QueryMigrate)?;
        let ram = migration.ram;
        let go = tell(Progress {
            done_bytes: ram.map_or(0, |ram| ram.transferred),
            left_bytes: ram.map_or(0, |ram| ram.remaining),
        });
        match migration.status {
            Some(MigrationStatus::Completed) => return Ok(Sent::Over(migration)),
            Some(MigrationStatus::Failed) => return Ok(Sent::Back(failure(&migration))),
            Some(MigrationStatus::Cancelled) => {
                return Ok(Sent::Back("somebody else cancelled it".to_owned()));
            }
            _ if go == Go::Back => {
                return Ok(match cancel(from)? {
                    Some(over) => Sent::Over(over),
                    None => Sent::Back("given up as asked".to_owned()),
                });
            }
            _ if Instant::now() >= until => {
                return Ok(cancel(from)?.map_or(Sent::Late, Sent::Over));
            }
            _ => from.rest(LOOK)?,
        }
    }
}

fn failure(migration: &Migration) -> String {
    let said = migration.error_desc.as_deref().unwrap_or("QEMU does not say why");
    format!("sending failed: {}", super::session::printable(said))
}

/// Gives it up; what it was, if it was done before that.
fn cancel(from: &mut Monitor) -> Result<Option<Migration>, QmpError> {
    from.tell(&Command::MigrateCancel)?;
    let until = Instant::now() + END;
    while Instant::now() < until {
        let migration: Migration = from.call(&Command::QueryMigrate)?;
        match migration.status {
            Some(MigrationStatus::Completed) => return Ok(Some(migration)),
            Some(MigrationStatus::Failed | MigrationStatus::Cancelled) | None => return Ok(None),
            Some(MigrationStatus::Underway) => from.rest(LOOK)?,
        }
    }
    Err(QmpError::Late { command: Command::MigrateCancel.name() })
}

/// Has the first QEMU go on as it was.
fn take_back(from: &mut Monitor, running: bool) -> Result<(), QmpError> {
    if running && !status(from)?.running {
        from.tell(&Command::Cont)?;
    }
    let now = status(from)?;
    match now.running == running {
        true => Ok(()),
        false => {
            let why = format!("the guest was taken back, and is {}", now.status);
            Err(QmpError::Nonsense { command: Command::Cont.name(), why })
        }
    }
}

/// Has the guest run in the second QEMU once that has all of it.
fn arrive(
    from: &mut Monitor,
    to: &mut Monitor,
    running: bool,
    migration: &Migration,
) -> Result<Outcome<Arrived>, QmpError> {
    let arrived = Arrived {
        running,
        downtime_ms: migration.downtime.unwrap_or(0),
        sent_bytes: migration.ram.map_or(0, |ram| ram.transferred),
    };
    let stands = |why: String| {
        let why = format!("the guest is in the second QEMU and stands still: {why}");
        Outcome::Partial { reached: Arrived { running: false, ..arrived }, why }
    };
    let until = Instant::now() + END;
    loop {
        match status(to) {
            Ok(now) if now.status != "inmigrate" => break,
            Ok(_) if Instant::now() >= until => {
                return Ok(stands("it has not taken it in yet".to_owned()));
            }
            Ok(_) => {}
            // Nobody had told it to let the guest run.
            Err(_) if ends(to) => {
                take_back(from, running)?;
                let why = "the second QEMU ended; the guest stays where it was".to_owned();
                return Ok(Outcome::Refused(why));
            }
            Err(error) => return Err(error),
        }
        // A loss is seen by the next look.
        let _ = to.rest(LOOK);
    }
    if !running {
        return Ok(Outcome::Applied(arrived));
    }
    match to.tell(&Command::Cont) {
        Err(QmpError::Refused { why, .. }) => return Ok(stands(why)),
        told => told?,
    }
    let now = status(to)?;
    Ok(if now.running { Outcome::Applied(arrived) } else { stands(now.status) })
}

/// True if the QEMU whose connection was lost ends now.
fn ends(qemu: &Monitor) -> bool {
    let until = Instant::now() + TO_END;
    while !qemu.has_ended() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}
