//! Whether the guest's processors run.

use super::command::Command;
use super::reply::Status;
use super::{Monitor, Outcome, QmpError, settled};

/// Whether the guest runs, and QEMU's word for it.
///
/// # Errors
/// As [`Monitor::call`].
pub fn status(monitor: &mut Monitor) -> Result<Status, QmpError> {
    monitor.call(&Command::QueryStatus)
}

/// Lets the guest stand still: its memory stays, its processors use nothing. The value read back
/// is whether it runs.
///
/// # Errors
/// The QEMU is lost or makes no sense.
pub fn pause(monitor: &mut Monitor) -> Result<Outcome<bool>, QmpError> {
    settled(set(monitor, false))
}

/// Lets it go on.
///
/// # Errors
/// The QEMU is lost or makes no sense.
pub fn resume(monitor: &mut Monitor) -> Result<Outcome<bool>, QmpError> {
    settled(set(monitor, true))
}

fn set(monitor: &mut Monitor, run: bool) -> Result<Outcome<bool>, QmpError> {
    let before = status(monitor)?;
    if before.running == run {
        return Ok(Outcome::Applied(run));
    }
    if run && let Some(why) = unfit(&before.status) {
        return Ok(Outcome::Refused(why.to_owned()));
    }
    monitor.tell(if run { &Command::Cont } else { &Command::Stop })?;
    let after = status(monitor)?;
    match after.running == run {
        true => Ok(Outcome::Applied(run)),
        false => Ok(Outcome::Refused(format!("QEMU says that it is {}", after.status))),
    }
}

/// Why a guest in this state must not be resumed.
fn unfit(status: &str) -> Option<&'static str> {
    match status {
        "postmigrate" | "finish-migrate" => {
            Some("the guest was sent to another QEMU: two of it on the same disks destroy them")
        }
        "inmigrate" => Some("it waits for a guest to come"),
        _ => None,
    }
}
