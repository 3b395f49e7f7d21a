//! The wish to stop, as something that can be waited for beside a connection.

use super::door::Trouble;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Rings on SIGINT and SIGTERM, and never stops.
#[derive(Debug)]
pub struct Alarm(SignalFd);

impl Alarm {
    /// From now on the signals only ring.
    pub fn set() -> Result<Alarm, Trouble> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        let failed = |errno: Errno| Trouble::Host(format!("cannot watch for signals: {errno}"));
        signals.thread_block().map_err(failed)?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).map(Alarm).map_err(failed)
    }

    /// Waits until it rings, `other` is readable or `timeout` has passed. True if it rings.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, timeout: Duration) -> Result<bool, Trouble> {
        let mut polled = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        polled.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
        match ppoll(&mut polled, Some(TimeSpec::from_duration(timeout)), None) {
            // The signal is not taken out of it, so it rings on.
            Ok(_) => Ok(polled[0].any() != Some(false)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(Trouble::Host(format!("cannot wait: {errno}"))),
        }
    }
}
