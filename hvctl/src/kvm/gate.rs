//! The gate between a vCPU's thread and its guest: it goes through before each entry, and whoever
//! wants it out closes the gate, kicks it out of the guest and waits until it stands outside.
//!
//! The kick is a signal that the thread blocks always and KVM lets through only while the guest
//! runs (`KVM_SET_SIGNAL_MASK`). One that is sent between gate and guest stays pending and ends the
//! entry at once, so none is lost and no handler runs.

use super::calls::{let_interrupt, take_pending};
use kvm_ioctls::VcpuFd;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Interrupts a running guest. The VMM must leave it alone.
pub const KICK: Signal = Signal::SIGUSR1;

/// Who keeps the gate closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// The vCPU is parked.
    Parked = 1,
    /// Memory is about to change.
    Change = 2,
}

#[derive(Debug, Default)]
struct State {
    /// Bits of [`Hold`].
    holds: u8,
    /// The thread stands outside.
    outside: bool,
    /// While the thread is there.
    thread: Option<Pthread>,
    /// The thread is gone.
    ended: bool,
}

/// One vCPU's gate. Its thread has the [`Seat`].
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// Why a vCPU is not known to stand outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOutside {
    /// It did not come out in time.
    InTime,
    /// Its thread is gone, so it never runs again.
    Ended,
}

impl Gate {
    /// Before the thread is there, nobody is inside.
    pub(super) fn new() -> Gate {
        let state = State { outside: true, ..State::default() };
        Gate { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so what a panic leaves is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the gate and kicks the vCPU out of the guest.
    pub(super) fn close(&self, hold: Hold) {
        let mut state = self.lock();
        state.holds |= hold as u8;
        if let (Some(thread), false) = (state.thread, state.outside) {
            // The seat takes its thread out, under this lock, before the thread can end.
            let kicked = pthread_kill(thread, KICK);
            debug_assert!(kicked.is_ok(), "{kicked:?}");
        }
    }

    /// Opens the gate, unless somebody else keeps it closed.
    pub(super) fn open(&self, hold: Hold) {
        self.lock().holds &= !(hold as u8);
        self.changed.notify_all();
    }

    /// Waits until the vCPU stands outside a closed gate.
    pub(super) fn wait_outside(&self, deadline: Instant) -> Result<(), NotOutside> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return Err(NotOutside::Ended);
            }
            if state.outside {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(NotOutside::InTime);
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn is_held(&self, hold: Hold) -> bool {
        self.lock().holds & hold as u8 != 0
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }
}

/// What a vCPU's thread holds while it runs the guest. Dropping it says that the vCPU has ended.
#[derive(Debug)]
pub struct Seat {
    gate: Arc<Gate>,
    /// A `Pthread` is the thread's that took the seat.
    _stays: std::marker::PhantomData<*const ()>,
}

impl Seat {
    /// Takes the seat; call it in the vCPU's thread.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn take(gate: Arc<Gate>, vcpu: &VcpuFd) -> io::Result<Seat> {
        SigSet::from(KICK).thread_block()?;
        let_interrupt(vcpu, KICK)?;
        let mut state = gate.lock();
        assert!(state.thread.is_none() && !state.ended, "a vCPU has one thread");
        state.thread = Some(pthread_self());
        drop(state);
        Ok(Seat { gate, _stays: std::marker::PhantomData })
    }

    /// Waits until the gate is open and goes through; call it before each `KVM_RUN`.
    pub fn pass(&self) {
        let mut state = self.gate.lock();
        if state.holds != 0 {
            state.outside = true;
            self.gate.changed.notify_all();
            while state.holds != 0 {
                state = self.gate.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.outside = false;
    }

    /// Forgets the kicks so far; call it when `KVM_RUN` ended with `EINTR`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn kicked(&self) -> io::Result<()> {
        take_pending(KICK)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        (state.thread, state.ended, state.outside) = (None, true, true);
        self.gate.changed.notify_all();
    }
}
