//! What the thread of a slow lane shares with those who want something of it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A desk where wishes are left and standings read, and a bell for who waits at it.
#[derive(Debug, Default)]
pub(crate) struct Shared<Desk> {
    desk: Mutex<Desk>,
    /// Rung when something was left.
    pub changed: Condvar,
}

impl<Desk> Shared<Desk> {
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing panics while it holds the desk.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while there is nothing to do, at most `pause`.
    pub fn wait(
        &self,
        pause: Duration,
        idle: impl FnMut(&mut Desk) -> bool,
    ) -> MutexGuard<'_, Desk> {
        let waited = self.changed.wait_timeout_while(self.desk(), pause, idle);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
