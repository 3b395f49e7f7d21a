//! A VM's memory slots, and this process's memory under them.
//!
//! A slot's memory is reserved at its greatest size when it is added, and only what the guest
//! touches takes space. Sizes change by taking the slot away and adding it again, because KVM
//! resizes none: whoever calls keeps every vCPU out of the guest meanwhile.

use super::calls::{Region, set_memory};
use super::intent::{BITMAP_BITS_MAX, Confirmed, Dirty, PAGE_BYTES, Refusal};
use kvm_ioctls::{Cap, VmFd};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Memory of this process that a guest may use as its own.
#[derive(Debug)]
pub struct Span {
    start: NonNull<AtomicU8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and lives until drop; all access to
// it goes through atomics.
unsafe impl Send for Span {}
// SAFETY: as for `Send`.
unsafe impl Sync for Span {}

impl Span {
    /// Reserves zeroed memory; what is not touched takes no space.
    fn reserve(bytes: u64) -> Result<Span, Errno> {
        let length = usize::try_from(bytes).map_err(|_| Errno::ENOMEM)?;
        let size = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { mmap_anonymous(None, size, protection, flags)? };
        Ok(Span { start: start.cast(), length })
    }

    /// The bytes, which a guest may change at any time.
    pub fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: `start` maps `length` bytes until drop, any byte is an AtomicU8, and nobody on
        // this side makes a non-atomic reference to them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// Copies `bytes` to `at`.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        for (to, &byte) in self.bytes()[at..at + bytes.len()].iter().zip(bytes) {
            to.store(byte, Ordering::Relaxed);
        }
    }

    /// Gives the host back what lies behind the first `from` bytes; they read zero from then on.
    fn give_back(&self, from: u64) -> Result<(), Errno> {
        let rest = &self.bytes()[from as usize..];
        let Some(first) = rest.first() else { return Ok(()) };
        // SAFETY: the range is within our own private mapping; its bytes are only ever seen as
        // atomics, for which zeros are as good as any.
        unsafe { madvise(NonNull::from(first).cast(), rest.len(), MmapAdvise::MADV_DONTNEED) }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // SAFETY: `start` and the length are those of our mapping, and no borrow outlives self.
        let unmapped = unsafe { munmap(self.start.cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

#[derive(Debug)]
struct Slot {
    guest_address: u64,
    bytes: u64,
    tracked: bool,
    /// Taken out only when KVM has let go of it.
    span: ManuallyDrop<Span>,
}

/// What a VM's memory may be.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBounds {
    /// Slots; their numbers are below this.
    pub slots_max: u32,
    /// Bytes of all slots together.
    pub bytes_max: u64,
    /// Slot 0 has at least this many bytes, as long as there is a VM.
    pub boot_bytes: u64,
}

/// All memory slots of a VM.
#[derive(Debug)]
pub(super) struct Slots {
    vm: Arc<VmFd>,
    /// The kernel has `KVM_SET_USER_MEMORY_REGION2`.
    with_2: bool,
    bounds: MemoryBounds,
    slots: BTreeMap<u32, Slot>,
}

impl Slots {
    pub(super) fn new(vm: Arc<VmFd>, bounds: MemoryBounds) -> Slots {
        let with_2 = vm.check_extension(Cap::UserMemory2);
        Slots { vm, with_2, bounds, slots: BTreeMap::new() }
    }

    pub(super) fn span(&self, slot: u32) -> Option<&Span> {
        self.slots.get(&slot).map(|slot| &*slot.span)
    }

    fn total(&self) -> u64 {
        self.slots.values().map(|slot| slot.bytes).sum()
    }

    fn confirmed(&self, slot: u32) -> Confirmed {
        let bytes = self.slots.get(&slot).map_or(0, |slot| slot.bytes);
        Confirmed::Memory { slot, bytes, total_bytes: self.total() }
    }

    pub(super) fn add(
        &mut self,
        slot: u32,
        guest_address: u64,
        bytes: u64,
        bytes_max: u64,
    ) -> Result<Confirmed, Refusal> {
        if slot >= self.bounds.slots_max {
            return Err(Refusal::TooManySlots);
        }
        if self.slots.contains_key(&slot) {
            return Err(Refusal::SlotInUse);
        }
        let pages = [guest_address, bytes, bytes_max].iter().all(|n| n.is_multiple_of(PAGE_BYTES));
        if !pages || bytes == 0 || bytes_max < bytes {
            return Err(Refusal::NotPages);
        }
        // Ends at most at 2^63, so that no sum below overflows.
        let end = guest_address.checked_add(bytes_max).filter(|&end| end <= 1 << 63);
        let end = end.ok_or(Refusal::TooMuchMemory)?;
        if bytes_max > self.bounds.bytes_max || self.total() + bytes > self.bounds.bytes_max {
            return Err(Refusal::TooMuchMemory);
        }
        let overlaps = |other: &Slot| {
            guest_address < other.guest_address + other.span.bytes().len() as u64
                && other.guest_address < end
        };
        if self.slots.values().any(overlaps) {
            return Err(Refusal::Overlaps);
        }
        let span = Span::reserve(bytes_max).map_err(Refusal::Host)?;
        let region = Region { slot, guest_address, bytes, tracked: false };
        set_memory(&self.vm, self.with_2, region, &span)?;
        let span = ManuallyDrop::new(span);
        self.slots.insert(slot, Slot { guest_address, bytes, tracked: false, span });
        Ok(self.confirmed(slot))
    }

    /// Tells KVM the size and tracking of a slot that it has.
    fn set(&self, slot: u32, bytes: u64, tracked: bool) -> Result<(), Refusal> {
        let Some(known) = self.slots.get(&slot) else { return Err(Refusal::UnknownSlot) };
        let region = Region { slot, guest_address: known.guest_address, bytes, tracked };
        Ok(set_memory(&self.vm, self.with_2, region, &known.span)?)
    }

    pub(super) fn remove(&mut self, slot: u32) -> Result<Confirmed, Refusal> {
        if slot == 0 && self.bounds.boot_bytes > 0 {
            return Err(Refusal::BelowFloor);
        }
        self.set(slot, 0, false)?;
        if let Some(gone) = self.slots.remove(&slot) {
            // KVM has just let go of it.
            drop(ManuallyDrop::into_inner(gone.span));
        }
        Ok(self.confirmed(slot))
    }

    pub(super) fn resize(&mut self, slot: u32, bytes: u64) -> Result<Confirmed, Refusal> {
        let total = self.total();
        let Some(known) = self.slots.get(&slot) else { return Err(Refusal::UnknownSlot) };
        let (before, tracked) = (known.bytes, known.tracked);
        if !bytes.is_multiple_of(PAGE_BYTES) || bytes == 0 {
            return Err(Refusal::NotPages);
        }
        if slot == 0 && bytes < self.bounds.boot_bytes {
            return Err(Refusal::BelowFloor);
        }
        let room = self.bounds.bytes_max - (total - before);
        if bytes > known.span.bytes().len() as u64 || bytes > room {
            return Err(Refusal::TooMuchMemory);
        }
        if bytes == before {
            return Ok(self.confirmed(slot));
        }
        self.set(slot, 0, false)?;
        if let Err(refusal) = self.set(slot, bytes, tracked) {
            // As it was, which KVM took before.
            self.set(slot, before, tracked)?;
            return Err(refusal);
        }
        let known = self.slots.get_mut(&slot).expect("looked up above");
        known.bytes = bytes;
        if bytes < before {
            let given = known.span.give_back(bytes);
            debug_assert!(given.is_ok(), "{given:?}");
        }
        Ok(self.confirmed(slot))
    }

    pub(super) fn track(&mut self, slot: u32, on: bool) -> Result<Confirmed, Refusal> {
        let Some(known) = self.slots.get(&slot) else { return Err(Refusal::UnknownSlot) };
        if known.tracked != on {
            self.set(slot, known.bytes, on)?;
        }
        if let Some(known) = self.slots.get_mut(&slot) {
            known.tracked = on;
        }
        Ok(Confirmed::Tracked { slot, on })
    }

    pub(super) fn sample(&self, slot: u32) -> Result<Confirmed, Refusal> {
        let Some(known) = self.slots.get(&slot) else { return Err(Refusal::UnknownSlot) };
        if !known.tracked {
            return Err(Refusal::NotTracked);
        }
        let log = self.vm.get_dirty_log(slot, known.bytes as usize)?;
        Ok(Confirmed::Dirty(condensed(slot, log)))
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for slot in self.slots.keys().copied().collect::<Vec<_>>() {
            let released = self.set(slot, 0, false).is_ok();
            // Memory that KVM may still use stays mapped: a vCPU may run on behind our back.
            if let Some(gone) = self.slots.remove(&slot)
                && released
            {
                drop(ManuallyDrop::into_inner(gone.span));
            }
        }
    }
}

/// A dirty log with a bit for as few pages as the longest bitmap allows.
fn condensed(slot: u32, log: Vec<u64>) -> Dirty {
    let pages = log.iter().map(|word| u64::from(word.count_ones())).sum();
    let bits = log.len() as u64 * 64;
    let pages_per_bit = bits.div_ceil(BITMAP_BITS_MAX).next_power_of_two();
    if pages_per_bit == 1 {
        return Dirty { slot, pages, pages_per_bit, bitmap: log };
    }
    let mut bitmap = vec![0; bits.div_ceil(pages_per_bit * 64) as usize];
    for (at, word) in log.iter().enumerate() {
        let mut rest = *word;
        while rest != 0 {
            let page = at as u64 * 64 + u64::from(rest.trailing_zeros());
            let bit = page / pages_per_bit;
            bitmap[(bit / 64) as usize] |= 1 << (bit % 64);
            rest &= rest - 1;
        }
    }
    Dirty { slot, pages, pages_per_bit, bitmap }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With both calls that KVM has for it, on a real VM.
    #[test]
    fn what_is_cut_off_is_lost_and_what_stays_is_kept() {
        for with_2 in [false, true] {
            let vm = match kvm_ioctls::Kvm::new().and_then(|kvm| kvm.create_vm()) {
                Ok(vm) => Arc::new(vm),
                Err(error) => return println!("not shown: /dev/kvm cannot be used here ({error})"),
            };
            let bounds = MemoryBounds { slots_max: 2, bytes_max: 1 << 20, boot_bytes: 0 };
            let mut slots = Slots::new(vm, bounds);
            if with_2 && !slots.with_2 {
                return println!("not shown: this kernel has no KVM_SET_USER_MEMORY_REGION2");
            }
            slots.with_2 = with_2;
            slots.add(1, 0, 2 * PAGE_BYTES, 3 * PAGE_BYTES).unwrap();
            let page = PAGE_BYTES as usize;
            let bytes = |slots: &Slots, at: usize| {
                slots.span(1).unwrap().bytes()[at].load(Ordering::Relaxed)
            };
            slots.span(1).unwrap().write(page - 1, &[7, 8]);
            slots.track(1, true).unwrap();
            for pages in [1, 3] {
                let confirmed = slots.resize(1, pages * PAGE_BYTES).unwrap();
                let total_bytes = pages * PAGE_BYTES;
                let expected = Confirmed::Memory { slot: 1, bytes: total_bytes, total_bytes };
                assert_eq!(confirmed, expected);
            }
            assert_eq!((bytes(&slots, page - 1), bytes(&slots, page)), (7, 0));
            assert!(slots.sample(1).is_ok(), "still tracked");
            slots.remove(1).unwrap();
            assert_eq!(slots.sample(1), Err(Refusal::UnknownSlot));
        }
    }

    #[test]
    fn a_long_log_is_condensed_and_loses_no_page() {
        let words = (BITMAP_BITS_MAX / 64 * 3) as usize;
        let mut log = vec![0; words];
        log[0] = 0b1001;
        log[words - 1] = 1 << 63;
        let dirty = condensed(7, log);
        assert_eq!((dirty.pages, dirty.pages_per_bit), (3, 4));
        assert!(dirty.bitmap.len() as u64 * 64 <= BITMAP_BITS_MAX);
        assert!(dirty.has(0) && dirty.has(words as u64 * 64 - 1) && !dirty.has(4));
        let short = condensed(7, vec![0b1001]);
        assert_eq!((short.pages, short.pages_per_bit), (2, 1));
        assert!(short.has(3) && !short.has(1) && !short.has(1 << 40));
    }
}
