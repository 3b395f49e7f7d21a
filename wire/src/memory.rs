//! Memory shared between processes: a sealed memfd, seen as 64-bit atomic words.
//!
//! Everything that is shared is an [`AtomicU64`], payload included. A peer may rewrite a word at
//! any moment; a relaxed load then yields some value, never undefined behaviour, and costs what a
//! plain load costs. The size is sealed before anyone else holds the descriptor, so no peer can
//! truncate the file and turn our next load into a SIGBUS.
//!
//! Under loom and under Miri, which have no memfd, the words live on the heap; the algorithms
//! above this file are the same.

use std::io;

#[cfg(any(loom, miri))]
pub(crate) use heap::Mapping;
/// Asks the processor to bring the line where `value` begins into its caches. A hint: nothing depends
/// on it.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every x86-64 has the instruction; it changes nothing and faults on no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = value;
}

#[cfg(not(any(loom, miri)))]
pub(crate) use mapped::Mapping;

/// Words that several processes read and write, each of which stands alone: statistics.
#[cfg(not(any(loom, miri)))]
#[derive(Debug)]
pub struct Words(Mapping);

#[cfg(not(any(loom, miri)))]
impl Words {
    /// So many words of new memory, all 0.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn create(count: usize) -> io::Result<Words> {
        Ok(Words(Mapping::create(c"vendue-words", count, Access::Shared)?))
    }

    /// Maps words that another process made.
    ///
    /// # Errors
    /// It is no such memory, or not of so many words.
    pub fn from_fd(fd: std::os::fd::OwnedFd, count: usize) -> Result<Words, AttachError> {
        let mapping = Mapping::attach(fd, Access::Shared)?;
        let found = mapping.words().len();
        if found == count {
            Ok(Words(mapping))
        } else {
            Err(AttachError::Size { bytes: (found * WORD_BYTES) as i64 })
        }
    }

    /// The words.
    #[inline]
    pub fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        self.0.words()
    }
}

#[cfg(not(any(loom, miri)))]
impl std::os::fd::AsFd for Words {
    /// The descriptor to hand to another process.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.fd()
    }
}

/// Bytes of a shared word.
pub(crate) const WORD_BYTES: usize = 8;
/// Words kept for each field that one side writes while the other reads. 128 bytes: adjacent
/// 64-byte lines are fetched in pairs.
pub(crate) const LINE_WORDS: usize = if cfg!(loom) { 1 } else { 16 };

/// What the processes that receive the descriptor may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read and write: rings.
    Shared,
    /// Read only, enforced by the kernel: the board.
    ReadOnly,
}

/// Why a descriptor that came from elsewhere cannot be used as shared memory.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused a call.
    #[error("{call} failed on the shared memory: {source}")]
    Host {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// Not a memfd with small pages: touching it could fault.
    #[error("the descriptor is not a plain memfd; pass on the one that came with the attach reply")]
    NotMemory,
    /// Seals are missing: the peer could still resize the file under us, or write to the board.
    #[error("the memory's seals are {have:#x} but must include {want:#x}; its owner must seal it")]
    Seals {
        /// Seals found.
        have: i32,
        /// Seals needed.
        want: i32,
    },
    /// The file has a size that this structure cannot have.
    #[error("the memory is {bytes} bytes long, which is not what its header implies")]
    Size {
        /// Size found.
        bytes: i64,
    },
    /// The first word is not this structure's.
    #[error("the memory is of another kind (magic {0:#018x})")]
    Magic(u64),
    /// Laid out by another version.
    #[error("the memory has layout version {0}; this build knows only {LAYOUT_VERSION}")]
    Version(u64),
    /// The header names an impossible capacity or count.
    #[error("the memory's header names a capacity of {0}, which is out of range")]
    Capacity(u64),
    /// The cursors found are further apart than the ring is long.
    #[error("the ring's cursors are impossible; its other side is broken or hostile")]
    Cursors,
}

/// Version of the layouts of the ring and of the board.
pub const LAYOUT_VERSION: u64 = 1;

#[cfg(not(any(loom, miri)))]
mod mapped {
    use super::{Access, AttachError, WORD_BYTES};
    use crate::sync::AtomicU64;
    use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
    use nix::sys::stat::fstat;
    use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
    use std::ffi::CStr;
    use std::io;
    use std::num::NonZeroUsize;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::ptr::NonNull;

    /// Largest mapping, in bytes: the largest ring and its header. A peer must not make us map more.
    const MAPPING_BYTES_MAX: usize = (1 << 30) + (1 << 12);
    /// Seals that fix the size for good.
    const SIZE_SEALS: SealFlag =
        SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

    impl Access {
        fn seals(self) -> SealFlag {
            match self {
                Access::Shared => SIZE_SEALS,
                Access::ReadOnly => SIZE_SEALS.union(SealFlag::F_SEAL_FUTURE_WRITE),
            }
        }
    }

    /// A memfd and this process's mapping of all of it.
    #[derive(Debug)]
    pub(crate) struct Mapping {
        fd: OwnedFd,
        start: NonNull<AtomicU64>,
        words: usize,
    }

    // SAFETY: the mapping belongs to the process, not to a thread, and lives until drop; all
    // access to it goes through atomics.
    unsafe impl Send for Mapping {}
    // SAFETY: as for `Send`.
    unsafe impl Sync for Mapping {}

    impl Mapping {
        /// Makes zeroed memory of `words` words, maps it read-write, then seals it for `access`.
        pub(crate) fn create(name: &CStr, words: usize, access: Access) -> io::Result<Mapping> {
            let bytes = words * WORD_BYTES;
            assert!(words > 0 && bytes <= MAPPING_BYTES_MAX, "{bytes} bytes of shared memory");
            let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
            nix::unistd::ftruncate(&fd, bytes as i64)?;
            let mapping = Mapping::map(fd, words, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
            // Only now: F_SEAL_FUTURE_WRITE spares mappings that exist, ours.
            fcntl(&mapping.fd, FcntlArg::F_ADD_SEALS(access.seals()))?;
            Ok(mapping)
        }

        /// Maps memory that another process made, after checking that it cannot fault.
        pub(crate) fn attach(fd: OwnedFd, access: Access) -> Result<Mapping, AttachError> {
            let host =
                |call| move |errno: nix::Error| AttachError::Host { call, source: errno.into() };
            // A hugetlbfs memfd can run out of pages when touched; tmpfs is charged to us instead.
            let filesystem = fstatfs(&fd).map_err(host("fstatfs"))?.filesystem_type();
            if filesystem != TMPFS_MAGIC {
                return Err(AttachError::NotMemory);
            }
            let have = fcntl(&fd, FcntlArg::F_GET_SEALS).map_err(|_| AttachError::NotMemory)?;
            let want = access.seals();
            if !SealFlag::from_bits_retain(have).contains(want) {
                return Err(AttachError::Seals { have, want: want.bits() });
            }
            // The size is read after the seals are known to hold it.
            let bytes = fstat(&fd).map_err(host("fstat"))?.st_size;
            let words = usize::try_from(bytes)
                .ok()
                .filter(|&size| size <= MAPPING_BYTES_MAX && size % WORD_BYTES == 0 && size > 0)
                .map(|size| size / WORD_BYTES)
                .ok_or(AttachError::Size { bytes })?;
            let protection = match access {
                Access::Shared => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                Access::ReadOnly => ProtFlags::PROT_READ,
            };
            Mapping::map(fd, words, protection).map_err(host("mmap"))
        }

        fn map(fd: OwnedFd, words: usize, protection: ProtFlags) -> nix::Result<Mapping> {
            let bytes = NonZeroUsize::new(words * WORD_BYTES).ok_or(nix::Error::EINVAL)?;
            // Populated now, so that the hot path meets no page fault.
            let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
            // SAFETY: a new mapping at an address of the kernel's choice touches no existing
            // memory. The file is at least `bytes` long: we sized it, or its size is sealed.
            let start = unsafe { mmap(None, bytes, protection, flags, &fd, 0)? };
            Ok(Mapping { fd, start: start.cast(), words })
        }

        /// The shared words. Storing to a read-only mapping would fault: readers only load.
        #[inline]
        pub(crate) fn words(&self) -> &[AtomicU64] {
            // SAFETY: `start` is page-aligned and maps `words` words until drop, any bit pattern
            // is an AtomicU64, and nobody on this side makes a non-atomic reference to them.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
        }

        /// Gives the pages back, whoever else still maps them or holds the descriptor. All words
        /// read zero from then on.
        pub(crate) fn discard(&self) -> io::Result<()> {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            Ok(fallocate(&self.fd, flags, 0, (self.words * WORD_BYTES) as i64)?)
        }

        /// The descriptor to hand to another process.
        pub(crate) fn fd(&self) -> BorrowedFd<'_> {
            self.fd.as_fd()
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: `start` and the length are those of our mmap, and no borrow outlives self.
            let unmapped = unsafe { munmap(self.start.cast(), self.words * WORD_BYTES) };
            debug_assert!(unmapped.is_ok(), "{unmapped:?}");
        }
    }
}

#[cfg(any(loom, miri))]
mod heap {
    use crate::sync::AtomicU64;

    use super::Access;
    use std::{ffi::CStr, io};

    /// The stand-in for mapped memory.
    #[derive(Debug)]
    pub(crate) struct Mapping(Box<[AtomicU64]>);

    impl Mapping {
        pub(crate) fn create(_name: &CStr, words: usize, _access: Access) -> io::Result<Mapping> {
            Ok(Mapping((0..words).map(|_| AtomicU64::new(0)).collect()))
        }

        pub(crate) fn words(&self) -> &[AtomicU64] {
            &self.0
        }
    }
}
