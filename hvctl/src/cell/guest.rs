//! What a flat guest finds when it starts: its image, and in long mode tables that map the first
//! 4 GiB of its memory onto themselves.

use crate::kvm::memory::Span;
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// Where the image lies and every vCPU starts.
pub const IMAGE_AT: u64 = 0x8000;
/// Longest image: below the hole that PCs have at 640 KiB.
pub const IMAGE_BYTES_MAX: usize = 0xa_0000 - IMAGE_AT as usize;

/// Page tables, from here up to the image: one of level 4, one of level 3, four of level 2.
const LEVEL_4_AT: u64 = 0x1000;
const LEVEL_3_AT: u64 = 0x2000;
const LEVEL_2_AT: u64 = 0x3000;
const DESCRIPTORS_AT: u64 = 0x7000;
/// Present and writable; and for a large page, the end of the walk.
const TABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 0x83;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
const LEVEL_2_TABLES: u64 = 4;
const ENTRIES: u64 = 512;
const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;
/// 64-bit code and flat data, as the processor reads them.
const DESCRIPTORS: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// Protection, its companions, and paging.
const CR0_LONG: u64 = 0x8005_0033;
/// Long mode needs physical address extension; guests may use SSE.
const CR4_LONG: u64 = 0x20 | 0x600;
/// Long mode, enabled and active.
const EFER_LONG: u64 = 0x500;

const _: () = assert!(LEVEL_2_AT + LEVEL_2_TABLES * 0x1000 <= DESCRIPTORS_AT);
const _: () = assert!(DESCRIPTORS_AT + 0x1000 <= IMAGE_AT);

/// How a guest's processors start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16 bits, every segment at 0.
    Real,
    /// 64 bits, the first 4 GiB mapped onto themselves.
    Long,
}

/// What a guest cannot do without: its tables and its image, in whole pages.
pub(super) fn boot_bytes(image_bytes: usize) -> u64 {
    (IMAGE_AT + image_bytes as u64).next_multiple_of(crate::kvm::intent::PAGE_BYTES)
}

/// Fills slot 0.
pub(super) fn load(memory: &Span, mode: Mode, image: &[u8]) {
    memory.write(IMAGE_AT as usize, image);
    if mode == Mode::Real {
        return;
    }
    let put = |at: u64, entry: u64| memory.write(at as usize, &entry.to_le_bytes());
    put(LEVEL_4_AT, LEVEL_3_AT | TABLE);
    for table in 0..LEVEL_2_TABLES {
        put(LEVEL_3_AT + table * 8, (LEVEL_2_AT + table * 0x1000) | TABLE);
    }
    for page in 0..LEVEL_2_TABLES * ENTRIES {
        put(LEVEL_2_AT + page * 8, (page * LARGE_PAGE_BYTES) | LARGE_PAGE);
    }
    for (at, descriptor) in (0..).zip(DESCRIPTORS) {
        put(DESCRIPTORS_AT + at * 8, descriptor);
    }
}

/// The special registers of a vCPU that starts in `mode`, made from those it came with.
pub(super) fn special_registers(mode: Mode, mut came: kvm_sregs) -> kvm_sregs {
    let segments =
        [&mut came.cs, &mut came.ds, &mut came.es, &mut came.fs, &mut came.gs, &mut came.ss];
    if mode == Mode::Real {
        for segment in segments {
            (segment.base, segment.selector) = (0, 0);
        }
        return came;
    }
    let flat = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    let data = kvm_segment { selector: DATA_SELECTOR, type_: 3, db: 1, ..flat };
    for segment in segments {
        *segment = data;
    }
    came.cs = kvm_segment { selector: CODE_SELECTOR, type_: 11, l: 1, ..flat };
    (came.gdt.base, came.gdt.limit) = (DESCRIPTORS_AT, size_of_val(&DESCRIPTORS) as u16 - 1);
    (came.cr0, came.cr3, came.cr4, came.efer) = (CR0_LONG, LEVEL_4_AT, CR4_LONG, EFER_LONG);
    came
}

/// The general registers of vCPU `number`.
pub(super) fn registers(number: u32, memory_bytes: u64) -> kvm_regs {
    /// The one bit of the flags that is always set.
    const FLAGS: u64 = 2;
    kvm_regs {
        rip: IMAGE_AT,
        rflags: FLAGS,
        rbx: number.into(),
        rsi: memory_bytes,
        ..Default::default()
    }
}
