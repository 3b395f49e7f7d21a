//! When a limit is written. One lever per limit; no file and no clock in here.
//!
//! The rules, and why: every write to `cpu.max`, even of the same value, refills the quota, so
//! a value that is in force is never written again, and a limit is written at most once a
//! quantum. The first change after a quiet quantum goes out at once; later ones wait for its
//! end, and the latest wins. What counts as in force is what was read back, not what was asked.

use crate::limit::{Knob, Setting};
use nix::errno::Errno;

/// Why a limit is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The cgroup was removed.
    #[error("the cgroup is gone; start its workload again or remove the instance")]
    Gone,
    /// The cgroup lives, the file does not.
    #[error("no such file; enable its controller in cgroup.subtree_control of the parent group")]
    Missing,
    /// `io.max` named a device that is not there.
    #[error("no such block device; correct the tier's devices")]
    NoDevice,
    /// The file may not be written: a read-only filesystem, or somebody else's.
    #[error("may not be written ({0}); run as root, or delegate the group to this user")]
    Denied(Errno),
    /// The kernel does not take the value.
    #[error("value refused by the kernel ({0}); correct the baseline or the VRU size")]
    OutOfRange(Errno),
    /// The kernel took the value and now says another.
    #[error("the kernel keeps another value than the one written")]
    Differs,
    /// Somebody else changed the value since it was read back.
    #[error("somebody else changed it; stop the other controller, it was set back")]
    Changed,
    /// The file's text is not that of such a limit.
    #[error("the file's text is not a limit; is this a cgroup v2 file?")]
    Garbled,
    /// Anything else.
    #[error("failed ({0}); it is tried again at the next verification")]
    Other(Errno),
}

/// Where a limit stands. The numbers are those of [`vendue_wire::message::LimitRow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Wanted, not yet written.
    Pending = 0,
    /// Read back as wanted.
    InForce = 1,
    /// Could not be written.
    Refused = 2,
    /// Reads back differently.
    Drifted = 3,
    /// Its cgroup is gone.
    Gone = 4,
    /// Kept in memory only.
    DryRun = 5,
}

/// A fault that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is wrong.
    pub failure: Failure,
    /// When it was first seen, nanoseconds.
    pub since_ns: u64,
    /// How often it was seen.
    pub count: u64,
}

/// What came of a look at the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing new.
    Settled,
    /// Somebody else changed the value; it is pending again.
    Drifted,
    /// It could not be read.
    Failed,
}

/// One limit of one instance.
#[derive(Debug)]
pub struct Lever {
    knob: Knob,
    page_bytes: u64,
    wanted: Option<Setting>,
    wanted_vru: u64,
    /// What the kernel said last.
    held: Option<Setting>,
    written: Option<Setting>,
    not_before_ns: u64,
    writes: u64,
    written_at_ns: u64,
    /// The wanted value failed: wait for another one, or for a verification.
    blocked: bool,
    fault: Option<Standing>,
}

impl Lever {
    /// A lever whose file says `held`, if it could be read. The kernel may round what it says
    /// to `page_bytes`.
    pub fn new(knob: Knob, page_bytes: u64, held: Option<Setting>) -> Lever {
        Lever {
            knob,
            page_bytes,
            wanted: None,
            wanted_vru: 0,
            held,
            written: None,
            not_before_ns: 0,
            writes: 0,
            written_at_ns: 0,
            blocked: false,
            fault: None,
        }
    }

    /// Sets the goal: `setting`, decided as `vrus`. Returns how many changes need no write for
    /// it: this one if it is unchanged or already in force, and one that it overtakes.
    pub fn want(&mut self, setting: Setting, vrus: u64) -> u64 {
        self.wanted_vru = vrus;
        if self.wanted == Some(setting) {
            return 1;
        }
        let overtaken = self.pending();
        self.wanted = Some(setting);
        self.blocked = false;
        let in_force = !self.pending();
        if in_force && self.fault.is_some_and(|fault| fault.failure != Failure::Changed) {
            self.fault = None;
        }
        u64::from(overtaken) + u64::from(in_force)
    }

    /// True if a write is needed and may be tried.
    pub fn pending(&self) -> bool {
        !self.blocked && self.wanted.is_some() && !self.reached()
    }

    /// True if the kernel holds what is wanted.
    fn reached(&self) -> bool {
        match (self.wanted, self.held) {
            (Some(wanted), Some(held)) => wanted.agrees(held, self.page_bytes),
            _ => false,
        }
    }

    /// When the next write may go out, nanoseconds; `None` if none is needed.
    pub fn due_ns(&self) -> Option<u64> {
        self.pending().then_some(self.not_before_ns)
    }

    /// Puts a due write off until `until_ns` without having tried it.
    pub fn defer(&mut self, until_ns: u64) {
        assert!(self.pending() && until_ns >= self.not_before_ns, "deferred what was not due");
        self.not_before_ns = until_ns;
    }

    /// Takes the outcome of a write tried at `now_ns`: whether the kernel took it, and what it
    /// said afterwards.
    ///
    /// # Panics
    /// If nothing was due: an unneeded write, or a second one within a quantum, is a bug.
    pub fn tried(
        &mut self,
        now_ns: u64,
        quantum_ns: u64,
        taken: bool,
        says: Result<Setting, Failure>,
    ) {
        assert!(self.pending(), "wrote {:?} without need", self.knob);
        assert!(now_ns >= self.not_before_ns, "wrote {:?} twice in a quantum", self.knob);
        self.not_before_ns = now_ns.saturating_add(quantum_ns);
        if taken {
            self.writes += 1;
            self.written_at_ns = now_ns;
            self.written = self.wanted;
        }
        match says {
            Ok(held) => {
                self.held = Some(held);
                if !self.reached() {
                    self.fail(now_ns, Failure::Differs);
                } else if self.fault.is_some_and(|fault| fault.failure != Failure::Changed) {
                    self.fault = None;
                }
            }
            Err(failure) => {
                if taken {
                    self.held = None;
                }
                self.fail(now_ns, failure);
            }
        }
        assert!(!self.pending(), "{:?} is still pending after a try", self.knob);
    }

    /// Takes what a verification read at `now_ns`. A failed write becomes due again.
    pub fn verified(&mut self, now_ns: u64, says: Result<Setting, Failure>) -> Verdict {
        let says = match says {
            Ok(says) => says,
            Err(failure) => {
                self.held = None;
                self.fail(now_ns, failure);
                return Verdict::Failed;
            }
        };
        let was_reached = self.reached();
        self.held = Some(says);
        self.blocked = false;
        if self.reached() {
            self.fault = None;
        } else if was_reached {
            self.note(now_ns, Failure::Changed);
            return Verdict::Drifted;
        }
        Verdict::Settled
    }

    /// Takes the end of the cgroup, or its return with what the file says now.
    pub fn moved(&mut self, now_ns: u64, says: Option<Setting>) {
        self.held = says;
        match says {
            Some(_) => self.blocked = false,
            None if self.wanted.is_some() => self.fail(now_ns, Failure::Gone),
            None => {}
        }
        if self.reached() {
            self.fault = None;
        }
    }

    fn fail(&mut self, now_ns: u64, failure: Failure) {
        self.blocked = true;
        self.note(now_ns, failure);
    }

    fn note(&mut self, now_ns: u64, failure: Failure) {
        match &mut self.fault {
            Some(fault) if fault.failure == failure => fault.count += 1,
            fault => *fault = Some(Standing { failure, since_ns: now_ns, count: 1 }),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        match self.fault.map(|fault| fault.failure) {
            Some(Failure::Gone) => State::Gone,
            // A change that was set back stays a fault until a verification finds it kept.
            Some(Failure::Changed) if self.reached() => State::InForce,
            Some(Failure::Changed | Failure::Differs) => State::Drifted,
            Some(_) => State::Refused,
            None if self.reached() => State::InForce,
            None => State::Pending,
        }
    }

    /// What it sets.
    pub fn knob(&self) -> Knob {
        self.knob
    }

    /// The goal, if there is one.
    pub fn wanted(&self) -> Option<Setting> {
        self.wanted
    }

    /// The goal in VRUs.
    pub fn wanted_vru(&self) -> u64 {
        self.wanted_vru
    }

    /// What was written last.
    pub fn written(&self) -> Option<Setting> {
        self.written
    }

    /// What the kernel said last.
    pub fn held(&self) -> Option<Setting> {
        self.held
    }

    /// Writes that the kernel took.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// When the last of them was, nanoseconds; 0 if there was none.
    pub fn written_at_ns(&self) -> u64 {
        self.written_at_ns
    }

    /// The fault that stands.
    pub fn fault(&self) -> Option<Standing> {
        self.fault
    }
}
