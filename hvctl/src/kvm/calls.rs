//! KVM calls that `kvm-ioctls` has not, or leaves to the caller to be sound.

use super::memory::Span;
use kvm_bindings::{
    KVM_MEM_LOG_DIRTY_PAGES, kvm_signal_mask, kvm_userspace_memory_region,
    kvm_userspace_memory_region2,
};
use kvm_ioctls::{Error, VcpuFd, VmFd};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What KVM is told of a memory slot. 0 bytes: take it away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) slot: u32,
    pub(super) guest_address: u64,
    pub(super) bytes: u64,
    pub(super) tracked: bool,
}

/// Gives the first bytes of `span` to the VM as a slot, with `KVM_SET_USER_MEMORY_REGION2` where the
/// kernel has it (`with_2`). The caller keeps the span mapped until it has taken the slot away.
pub(super) fn set_memory(
    vm: &VmFd,
    with_2: bool,
    region: Region,
    span: &Span,
) -> Result<(), Error> {
    assert!(region.bytes <= span.bytes().len() as u64, "a slot beyond its memory");
    let userspace_addr = span.bytes().as_ptr() as u64;
    let flags = if region.tracked { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
    let Region { slot, guest_address: guest_phys_addr, bytes: memory_size, .. } = region;
    if with_2 {
        let region = kvm_userspace_memory_region2 {
            slot,
            flags,
            guest_phys_addr,
            memory_size,
            userspace_addr,
            ..Default::default()
        };
        // SAFETY: the range lies in `span`, which is mapped and outlives the slot, see above; the
        // bytes are seen through atomics here, so the guest may write them at any time.
        return unsafe { vm.set_user_memory_region2(region) };
    }
    let region =
        kvm_userspace_memory_region { slot, flags, guest_phys_addr, memory_size, userspace_addr };
    // SAFETY: as above.
    unsafe { vm.set_user_memory_region(region) }
}

mod raw {
    // The kernel takes no argument for the first and a length with that many bytes for the second.
    nix::ioctl_none!(get_stats_fd, kvm_bindings::KVMIO, 0xce);
    nix::ioctl_write_ptr!(
        set_signal_mask,
        kvm_bindings::KVMIO,
        0x8b,
        kvm_bindings::kvm_signal_mask
    );
}

/// The descriptor that the statistics of a VM or a vCPU can be read from, by any process.
pub(super) fn stats_fd(of: &impl AsRawFd) -> nix::Result<OwnedFd> {
    // SAFETY: on whatever descriptor this is, the call reads and writes no memory of ours.
    let number = unsafe { raw::get_stats_fd(of.as_raw_fd())? };
    // SAFETY: the kernel has just made this descriptor; nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Bytes of a signal set as the kernel has it.
const SIGSET_BYTES: usize = 8;

#[repr(C)]
struct Mask {
    head: kvm_signal_mask,
    signals: [u8; SIGSET_BYTES],
}

/// While this vCPU runs the guest, `signal` interrupts it although the thread blocks it: one that
/// comes just before the guest is entered is then not lost.
pub(super) fn let_interrupt(vcpu: &VcpuFd, signal: Signal) -> nix::Result<()> {
    let blocked = SigSet::thread_get_mask()?;
    let mut signals = 0_u64;
    for other in blocked.iter().filter(|&other| other != signal) {
        signals |= 1 << (other as i32 - 1);
    }
    let head = kvm_signal_mask { len: SIGSET_BYTES as u32, ..Default::default() };
    let mask = Mask { head, signals: signals.to_le_bytes() };
    // SAFETY: the kernel reads the length and as many bytes behind it, which `Mask` has there.
    unsafe { raw::set_signal_mask(vcpu.as_raw_fd(), (&raw const mask).cast())? };
    Ok(())
}

/// Takes every pending `signal` of this thread, which blocks it.
pub(super) fn take_pending(signal: Signal) -> io::Result<()> {
    let set = SigSet::from(signal);
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: set and time are valid, and the kernel writes nothing where none is asked for.
        let taken = unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &at_once) };
        if taken >= 0 {
            continue;
        }
        return match Errno::last() {
            Errno::EAGAIN | Errno::EINTR => Ok(()),
            errno => Err(errno.into()),
        };
    }
}
