//! What a cell gives up before its guest runs: privileges that it has, those it could get, and every
//! system call that it does not need.
//!
//! Threads take the jail over from the one that made them, so it closes while there is one.

use super::CellError;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::fmt::Display;

/// System calls that a running cell makes: its threads, its locks, its memory, its rings and pipes,
/// its one Unix socket, and its end. None opens a file, starts a program or reaches the network.
const ALLOWED: [libc::c_long; 41] = [
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_set_robust_list,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
];
/// Requests to KVM that a running cell makes, by number; and the one that makes a socket
/// nonblocking.
const IOCTLS: [u64; 17] = [
    0x5421,      // FIONBIO
    0xae03,      // KVM_CHECK_EXTENSION
    0xae41,      // KVM_CREATE_VCPU
    0x4010_ae42, // KVM_GET_DIRTY_LOG
    0x4020_ae46, // KVM_SET_USER_MEMORY_REGION
    0x40a0_ae49, // KVM_SET_USER_MEMORY_REGION2
    0xae80,      // KVM_RUN
    0x8090_ae81, // KVM_GET_REGS
    0x4090_ae82, // KVM_SET_REGS
    0x8138_ae83, // KVM_GET_SREGS
    0x4138_ae84, // KVM_SET_SREGS
    0x4004_ae8b, // KVM_SET_SIGNAL_MASK
    0x4008_ae90, // KVM_SET_CPUID2
    0x8004_ae98, // KVM_GET_MP_STATE
    0x4004_ae99, // KVM_SET_MP_STATE
    0x4068_aea3, // KVM_ENABLE_CAP
    0xaece,      // KVM_GET_STATS_FD
];
/// Threads have names; nothing else of prctl is needed.
const PRCTL_SET_NAME: u64 = libc::PR_SET_NAME as u64;

fn failed(error: impl Display) -> CellError {
    CellError::Jail(error.to_string())
}

/// Closes the jail around the calling thread, for good. A system call that is not allowed ends the
/// process with SIGSYS.
pub(super) fn close() -> Result<(), CellError> {
    // A dump of the guest's memory belongs to the guest.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed)?;
    drop_capabilities()?;
    nix::sys::prctl::set_no_new_privs().map_err(failed)?;
    seccompiler::apply_filter(&filter()?).map_err(failed)
}

fn drop_capabilities() -> Result<(), CellError> {
    use caps::{CapSet, Capability};
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)? {
        caps::clear(None, CapSet::Bounding).map_err(failed)?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(failed)?;
    }
    Ok(())
}

fn filter() -> Result<BpfProgram, CellError> {
    let argument_is = |at: u8, value: u64| -> Result<SeccompRule, CellError> {
        let equal = SeccompCondition::new(at, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
        SeccompRule::new(vec![equal.map_err(failed)?]).map_err(failed)
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    let ioctls: Result<_, _> = IOCTLS.iter().map(|&request| argument_is(1, request)).collect();
    rules.insert(libc::SYS_ioctl, ioctls?);
    rules.insert(libc::SYS_prctl, vec![argument_is(0, PRCTL_SET_NAME)?]);
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(failed)?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch);
    filter.and_then(TryInto::try_into).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Says in which of the two processes of the test this is.
    const INSIDE: &str = "VENDUE_TEST_JAILED";

    #[test]
    fn who_opens_a_file_in_jail_is_ended() {
        if std::env::var_os(INSIDE).is_some() {
            close().unwrap();
            let opened = std::fs::File::open("/proc/self/status");
            unreachable!("the jail lets {opened:?} through");
        }
        let test = "cell::jail::tests::who_opens_a_file_in_jail_is_ended";
        let mut inside = Command::new(std::env::current_exe().unwrap());
        inside.args(["--exact", test, "--nocapture"]).env(INSIDE, "");
        let output = inside.output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}");
    }
}
