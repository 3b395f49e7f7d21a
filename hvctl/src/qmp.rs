//! QEMU, driven over its monitor protocol (QMP): what an instance that is a VM has beside its
//! cgroup. A slow lane: each lever blocks its thread until QEMU has confirmed, refused or run out
//! of time, so it is never called from the thread that owns a [`crate::host::Host`].
//!
//! A QEMU may have been taken over by its guest. So only the commands of [`command::Command`] are
//! ever sent, and what comes back is bounded in size, depth and number, typed, matched by id, and
//! never believed because it was asked for: a lever's [`Outcome`] holds what was *read back*.
//!
//! Read in this order: [`command`] (all that may be sent), [`reply`] (what is read of the answers),
//! [`frame`] (objects out of bytes), [`session`] (the protocol, pure: no clock, no socket),
//! [`monitor`] (a session on a Unix socket); then the levers: [`power`], [`vcpu`], [`memory`],
//! [`throttle`], [`mirror`], [`migrate`]; then [`lane`] (a thread that keeps what an instance is entitled
//! to).

pub mod command;
pub mod frame;
pub mod reply;
pub mod session;

pub mod monitor;

pub mod memory;
pub mod migrate;
pub mod mirror;
pub mod power;
pub mod storage;
pub mod throttle;
pub mod vcpu;

pub mod lane;

pub use monitor::{Monitor, QmpError};

/// What became of a change that was asked of QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Done; this was read back afterwards.
    Applied(T),
    /// Only some of it was done in time; this was read back last.
    Partial {
        /// How far it came.
        reached: T,
        /// What is missing, and what to do about it.
        why: String,
    },
    /// Nothing was changed, or all of it was taken back.
    Refused(String),
    /// Nothing was seen to change in time. What the text does not say was taken back still stands
    /// and may yet happen.
    TimedOut(String),
}

impl<T> Outcome<T> {
    /// The value read back, if all was done.
    pub fn applied(&self) -> Option<&T> {
        match self {
            Outcome::Applied(value) => Some(value),
            _ => None,
        }
    }
}

/// What a long-running lever does after it has told how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// Goes on.
    On,
    /// Takes everything back.
    Back,
}

/// How far a mirror or a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes copied so far; some are copied more than once, because the guest goes on writing.
    pub done_bytes: u64,
    /// Bytes known to be missing.
    pub left_bytes: u64,
}

/// A refusal by QEMU or an answer that did not come, as an outcome; a lost or lying QEMU remains
/// an error.
fn settled<T>(result: Result<Outcome<T>, QmpError>) -> Result<Outcome<T>, QmpError> {
    match result {
        Err(QmpError::Refused { command, why }) => {
            Ok(Outcome::Refused(format!("QEMU refused {command}: {why}")))
        }
        Err(QmpError::Late { command }) => {
            Ok(Outcome::TimedOut(format!("QEMU did not answer {command} in time")))
        }
        other => other,
    }
}
