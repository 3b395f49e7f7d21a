//! Where measuring threads run. Two processors: one for whoever asks, one for whoever answers.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The processors of a measurement between two threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processors {
    /// Of the thread that asks and measures.
    pub asking: usize,
    /// Of the threads that answer.
    pub answering: usize,
}

impl Processors {
    /// The two highest this thread may use; the same one twice where there is only one. Ask once,
    /// before anything pins it.
    ///
    /// # Errors
    /// The system does not say.
    pub fn find() -> Result<Processors, nix::Error> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut usable = (0..CpuSet::count()).rev().filter(|&cpu| allowed.is_set(cpu) == Ok(true));
        let asking = usable.next().ok_or(nix::Error::EINVAL)?;
        Ok(Processors { asking, answering: usable.next().unwrap_or(asking) })
    }
}

/// Keeps the calling thread on one processor.
///
/// # Errors
/// The system refuses.
pub fn pin(cpu: usize) -> Result<(), nix::Error> {
    pin_to(&[cpu])
}

/// Keeps the calling thread, and those it starts, on some processors.
///
/// # Errors
/// The system refuses.
pub fn pin_to(cpus: &[usize]) -> Result<(), nix::Error> {
    let mut only = CpuSet::new();
    cpus.iter().try_for_each(|&cpu| only.set(cpu))?;
    sched_setaffinity(Pid::from_raw(0), &only)
}
