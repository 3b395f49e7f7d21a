//! When a limit is written. One lever per limit; no file and no clock in here.
//!
//! The rules, and why: every write to `cpu.max`, even of the same value, refills the quota, so
//! a value that is in force is never written again, and a limit is written at most once a
//! quantum. The first change after a quiet quantum goes out at once; later ones wait for its
//! end, and the latest wins. A `cpu.max` rises once its writes before are paid for, see
//! [`crate::refill`], and then at once; and a fall that undoes a rise goes out at once as well: what
//! was lent returns when its owner needs it. What fails is tried again at a verification, after each
//! failure of one kind twice as late. What counts as in force is what was read back, not what was
//! asked.
//!
//! A write and its read-back are two steps, so that all writes of a moment can go out before the
//! first of them is read back. Between them the lever presumes that the kernel holds what it took.

use crate::limit::{Knob, Setting};
use crate::outcome::Effect;
use crate::refill::Refill;
use nix::errno::Errno;
use vendue_wire::code::Lag;

/// Pause before what failed twice is tried again; it doubles with each further failure...
const RETRY_NS_MIN: u64 = 1_000_000_000;
/// ...so many times.
const DOUBLINGS_MAX: u64 = 5;

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
    /// There is no network to limit.
    #[error(
        "it has no network interface of its own to limit; start its workload in a network namespace, \
         for what it receives with a veth end in Vendue's, or reserve no network"
    )]
    NoInterface,
    /// What enters by an interface waits in no queue of it.
    #[error(
        "what its tap brings from the guest waits in no queue that could hold it back; start its VMM in a \
         network namespace of its own, with a veth end in Vendue's"
    )]
    NoQueue,
    /// The interface takes no queueing discipline.
    #[error("the interface takes no htb queueing discipline; have sch_htb in the kernel")]
    NoDiscipline,
    /// The file may not be written: a read-only filesystem, or somebody else's.
    #[error("may not be written ({0}); run as root, or delegate the group to this user")]
    Denied(Errno),
    /// The kernel does not take the value.
    #[error("value refused by the kernel ({0}); correct the baseline or the VRU size")]
    OutOfRange(Errno),
    /// The kernel weighs no device's time.
    #[error(
        "the kernel has no io.cost here (CONFIG_BLK_CGROUP_IOCOST, and the whole tree of cgroups \
         rather than a container's part); take the device out of host.io_cost"
    )]
    NoCost,
    /// The processors cannot be a group's own.
    #[error(
        "the kernel does not leave these processors to it alone; each has to be in no other \
         group's cpuset.cpus, one must be left for the rest of the host, and host.parent must be the \
         root or itself a partition"
    )]
    NotAlone,
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

impl Failure {
    /// The same as a number of the protocol.
    pub const fn lag(self) -> Lag {
        match self {
            Failure::Gone => Lag::Gone,
            Failure::Missing => Lag::Missing,
            Failure::NoDevice => Lag::NoDevice,
            Failure::NoInterface => Lag::NoInterface,
            Failure::NoDiscipline | Failure::NoQueue => Lag::NoDiscipline,
            Failure::NoCost => Lag::Missing,
            Failure::NotAlone => Lag::Denied,
            Failure::Denied(_) => Lag::Denied,
            Failure::OutOfRange(_) => Lag::OutOfRange,
            Failure::Differs => Lag::Differs,
            Failure::Changed => Lag::Changed,
            Failure::Garbled => Lag::Garbled,
            Failure::Other(_) => Lag::Failed,
        }
    }
}

/// Where a limit stands. The numbers are those of [`vendue_wire::message::LimitRow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Wanted, not yet written or not yet read back.
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
    /// Somebody else changed the value, and it is pending again; or the kernel keeps another than
    /// was just written.
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
    /// What the kernel said last; unknown from a write on until it is read back.
    held: Option<Setting>,
    written: Option<Setting>,
    /// What was written last has not been read back.
    unread: bool,
    not_before_ns: u64,
    writes: u64,
    written_at_ns: u64,
    /// The last write of a `cpu.max` lowered it.
    fell: bool,
    /// The wanted value failed: wait for another one, or for a verification after `retry_ns`.
    blocked: bool,
    retry_ns: u64,
    /// A write is needed and may be tried: known when anything above has changed.
    pending: bool,
    fault: Option<Standing>,
    /// Only of `cpu.max`.
    refill: Refill,
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
            unread: false,
            not_before_ns: 0,
            writes: 0,
            written_at_ns: 0,
            fell: false,
            blocked: false,
            retry_ns: 0,
            pending: false,
            fault: None,
            refill: Refill::default(),
        }
    }

    /// Sets the goal at `now_ns`: `setting`, decided as `vrus`. Returns how many changes need no write for
    /// it: this one if it is unchanged or already in force, and one that it overtakes.
    pub fn want(&mut self, setting: Setting, vrus: u64, now_ns: u64) -> u64 {
        self.wanted_vru = vrus;
        if self.wanted == Some(setting) {
            return 1;
        }
        self.settle(now_ns);
        let overtaken = self.pending;
        self.wanted = Some(setting);
        self.blocked = false;
        self.refresh();
        let in_force = !self.pending;
        if in_force && self.fault.is_some_and(|fault| fault.failure != Failure::Changed) {
            self.fault = None;
        }
        u64::from(overtaken) + u64::from(in_force)
    }

    /// True if a write is needed and may be tried.
    pub fn pending(&self) -> bool {
        self.pending
    }

    fn refresh(&mut self) {
        self.pending = !self.blocked && self.wanted.is_some() && !self.reached();
    }

    /// True if the kernel holds what is wanted, or took it and was not asked since.
    fn reached(&self) -> bool {
        match (self.wanted, self.presumed()) {
            (Some(wanted), Some(held)) => wanted.agrees(held, self.page_bytes),
            _ => false,
        }
    }

    /// What the kernel said last; until it is asked again, what it took.
    pub fn presumed(&self) -> Option<Setting> {
        if self.unread { self.written } else { self.held }
    }

    /// True if what is wanted is less than what the kernel holds.
    pub fn is_cut(&self) -> bool {
        match (self.wanted, self.presumed()) {
            // Frozen is 1.
            (Some(wanted), Some(held)) if self.knob == Knob::Freeze => held.is_below(wanted),
            (Some(wanted), Some(held)) => wanted.is_below(held),
            _ => false,
        }
    }

    /// True if what was written last is still to be read back.
    pub fn is_unread(&self) -> bool {
        self.unread
    }

    /// When the next write may go out, nanoseconds; `None` if none is needed.
    pub fn due_ns(&self) -> Option<u64> {
        self.pending.then(|| match self.is_cap().then(|| self.quotas()).flatten() {
            Some((held, wanted)) if !falls(held, wanted) => self.refill.due_ns(held, wanted),
            Some(_) if !self.fell => 0,
            _ => self.not_before_ns,
        })
    }

    /// True if a write may go out at `now_ns`.
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.due_ns().is_some_and(|due_ns| due_ns <= now_ns)
    }

    /// True of a `cpu.max`, whose writes refill a quota.
    fn is_cap(&self) -> bool {
        matches!(self.knob, Knob::CpuMax | Knob::VcpuMax(_))
    }

    /// Of a `cpu.max`, the quotas that are held and wanted.
    fn quotas(&self) -> Option<(Option<u64>, Option<u64>)> {
        match (self.presumed(), self.wanted) {
            (
                Some(Setting::Quota { quota_us: held, .. }),
                Some(Setting::Quota { quota_us: wanted, .. }),
            ) => Some((held, wanted)),
            _ => None,
        }
    }

    /// Settles what refills gave away. What cannot be written is nobody's doing.
    fn settle(&mut self, now_ns: u64) {
        if !self.is_cap() {
            return;
        }
        let quotas = if self.blocked { None } else { self.quotas() };
        let (held, wanted) = quotas.unwrap_or_default();
        self.refill.settle(now_ns, held, wanted);
    }

    /// Puts a due write off until `until_ns` without having tried it.
    pub fn defer(&mut self, until_ns: u64) {
        assert!(self.pending && until_ns >= self.not_before_ns, "deferred what was not due");
        self.not_before_ns = until_ns;
    }

    /// Takes the outcome of a write tried at `now_ns`: whether the kernel took it. What it took is
    /// to be read back, see [`Lever::confirmed`].
    ///
    /// # Panics
    /// If nothing was due: an unneeded write, or a second one within a quantum, is a bug; so is one
    /// before the last was read back.
    pub fn wrote(&mut self, now_ns: u64, quantum_ns: u64, outcome: Result<(), Failure>) {
        assert!(self.pending, "wrote {:?} without need", self.knob);
        assert!(!self.unread, "wrote {:?} before it was read back", self.knob);
        assert!(
            self.due_ns() <= Some(now_ns),
            "wrote {:?} too early: in its quantum, or owing for its refills",
            self.knob
        );
        self.settle(now_ns);
        self.not_before_ns = now_ns.saturating_add(quantum_ns);
        self.fell = self.quotas().is_none_or(|(held, wanted)| falls(held, wanted));
        match outcome {
            Ok(()) => {
                self.writes += 1;
                self.written_at_ns = now_ns;
                self.written = self.wanted;
                (self.held, self.unread, self.pending) = (None, true, false);
                if let Some(Setting::Quota { quota_us, .. }) = self.wanted {
                    self.refill.wrote(quota_us);
                }
            }
            Err(failure) => self.fail(now_ns, failure),
        }
        assert!(!self.pending, "{:?} is still pending after a try", self.knob);
    }

    /// Takes what the kernel says, at `now_ns`, of what was written. If it is not that, the same is
    /// not written again before a verification; what is wanted by now may be something else.
    ///
    /// # Panics
    /// If nothing was to be read back.
    pub fn confirmed(&mut self, now_ns: u64, says: Result<Setting, Failure>) -> Verdict {
        assert!(self.unread, "{:?} was read back without need", self.knob);
        self.settle(now_ns);
        self.unread = false;
        self.held = says.ok();
        let (failure, verdict) = match (says, self.written) {
            (Ok(held), Some(written)) if written.agrees(held, self.page_bytes) => {
                if self.fault.is_some_and(|fault| fault.failure != Failure::Changed) {
                    self.fault = None;
                }
                self.refresh();
                return Verdict::Settled;
            }
            (Ok(Setting::Partition { valid: false, .. }), _) => {
                (Failure::NotAlone, Verdict::Drifted)
            }
            (Ok(_), _) => (Failure::Differs, Verdict::Drifted),
            (Err(failure), _) => (failure, Verdict::Failed),
        };
        self.blocked = self.wanted == self.written;
        self.refresh();
        self.note(now_ns, failure);
        self.put_off(now_ns);
        verdict
    }

    /// Takes note at `now_ns` that the quota was refilled by something other than a write of its own.
    pub fn refilled(&mut self, now_ns: u64) {
        self.settle(now_ns);
        if let Some(Setting::Quota { quota_us, .. }) = self.presumed() {
            self.refill.wrote(quota_us);
        }
    }

    /// Takes what a verification read at `now_ns`. A failed write becomes due again.
    pub fn verified(&mut self, now_ns: u64, says: Result<Setting, Failure>) -> Verdict {
        if self.unread {
            return self.confirmed(now_ns, says);
        }
        self.settle(now_ns);
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
        self.blocked &= !was_reached && now_ns < self.retry_ns;
        self.refresh();
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
        self.settle(now_ns);
        (self.held, self.unread) = (says, false);
        match says {
            Some(_) => self.blocked = false,
            None if self.wanted.is_some() => self.fail(now_ns, Failure::Gone),
            None => {}
        }
        self.refresh();
        if self.reached() {
            self.fault = None;
        }
    }

    fn fail(&mut self, now_ns: u64, failure: Failure) {
        (self.blocked, self.pending) = (true, false);
        self.note(now_ns, failure);
        self.put_off(now_ns);
    }

    /// What failed before is tried again the later the more often it failed.
    fn put_off(&mut self, now_ns: u64) {
        let again = self.fault.map_or(0, |fault| fault.count.saturating_sub(1));
        let pause_ns = if again == 0 { 0 } else { RETRY_NS_MIN << (again - 1).min(DOUBLINGS_MAX) };
        self.retry_ns = now_ns.saturating_add(pause_ns);
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
            Some(Failure::Changed) if self.reached() && !self.unread => State::InForce,
            Some(Failure::Changed | Failure::Differs) => State::Drifted,
            Some(_) => State::Refused,
            None if self.reached() && !self.unread => State::InForce,
            None => State::Pending,
        }
    }

    /// How what is wanted stands.
    pub fn effect(&self) -> Effect {
        match self.fault {
            _ if self.reached() && !self.unread => Effect::Applied,
            Some(fault) if self.blocked => Effect::Refused(fault.failure.lag()),
            _ => Effect::Pending(self.waits_for()),
        }
    }

    /// Why a pending write has not gone out.
    fn waits_for(&self) -> Lag {
        match (self.quotas(), self.presumed(), self.wanted) {
            (Some((held, wanted)), ..) if self.refill.due_ns(held, wanted) > 0 => Lag::Refills,
            (_, held, Some(Setting::Bytes(Some(wanted))))
                if held.is_none_or(|held| held.bytes() > wanted) =>
            {
                Lag::InUse
            }
            _ => Lag::Waiting,
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

    /// What the kernel said last, `None` as long as the last write is not read back.
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

    /// True if a fault stands.
    pub fn is_faulty(&self) -> bool {
        self.fault.is_some()
    }

    /// The fault that stands.
    pub fn fault(&self) -> Option<Standing> {
        self.fault
    }
}

/// True if a quota becomes less; `None` is without bound.
fn falls(held: Option<u64>, wanted: Option<u64>) -> bool {
    held.unwrap_or(u64::MAX) > wanted.unwrap_or(u64::MAX)
}
