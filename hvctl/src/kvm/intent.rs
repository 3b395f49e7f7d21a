//! What can be asked of a VMM, and what it answers: records of both rings.
//!
//! A record's tag is its kind; its payload is five 64-bit words, little-endian: the number that
//! ties an answer to its intent, and four arguments. A sample's answer has a bitmap behind them.

use nix::errno::Errno;

/// Bytes of a page, as dirty pages are counted.
pub const PAGE_BYTES: u64 = 4096;
/// Longest bitmap of a sample, in bits.
pub const BITMAP_BITS_MAX: u64 = 1 << 18;
/// Bytes of each of the two rings: room for a few samples.
pub(super) const RING_BYTES: usize = 1 << 17;
const WORDS: usize = 5;
const RECORD_BYTES: usize = WORDS * 8;

const _: () = assert!(RECORD_BYTES + BITMAP_BITS_MAX as usize / 8 <= RING_BYTES / 2);
const _: () = assert!(BITMAP_BITS_MAX as usize / 8 < vendue_wire::ring::RECORD_BYTES_MAX);

/// One thing that is asked of a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// A new memory slot. Addresses and sizes are whole pages.
    AddMemory {
        /// Number of the slot.
        slot: u32,
        /// Where the guest sees it.
        guest_address: u64,
        /// Size now.
        bytes: u64,
        /// What it can be resized to; that much of the guest's address space is kept for it.
        bytes_max: u64,
    },
    /// Takes a slot away. What was in it is lost.
    RemoveMemory {
        /// Number of the slot.
        slot: u32,
    },
    /// Grows or shrinks a slot at its end. What is cut off is lost and goes back to the host.
    ResizeMemory {
        /// Number of the slot.
        slot: u32,
        /// Size from now on.
        bytes: u64,
    },
    /// Starts (or ends) counting the pages of a slot that the guest writes.
    TrackDirty {
        /// Number of the slot.
        slot: u32,
        /// Whether to count.
        on: bool,
    },
    /// Which pages of a tracked slot were written since the last sample: its working set, if taken
    /// at intervals.
    SampleDirty {
        /// Number of the slot.
        slot: u32,
    },
    /// A new vCPU, which runs at once.
    CreateVcpu {
        /// Its number, from 0.
        vcpu: u32,
    },
    /// Takes a vCPU out of the guest until it is unparked.
    Park {
        /// Its number.
        vcpu: u32,
    },
    /// Lets a parked vCPU go on.
    Unpark {
        /// Its number.
        vcpu: u32,
    },
    /// How long a halted vCPU's processor is kept awake before it sleeps (`KVM_CAP_HALT_POLL`).
    HaltPoll {
        /// At most this long.
        nanoseconds: u32,
    },
}

/// What stands after an intent was applied, as the VMM's kernel took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// A slot has this size; 0: there is none.
    Memory {
        /// Number of the slot.
        slot: u32,
        /// Its size.
        bytes: u64,
        /// All slots together.
        total_bytes: u64,
    },
    /// A slot is tracked, or is not.
    Tracked {
        /// Number of the slot.
        slot: u32,
        /// Whether its written pages are counted.
        on: bool,
    },
    /// Pages of a slot that were written since the last sample.
    Dirty(Dirty),
    /// A vCPU is there.
    Vcpu {
        /// Its number.
        vcpu: u32,
        /// Whether it is kept out of the guest.
        parked: bool,
    },
    /// The limit on halt polling.
    HaltPoll {
        /// At most this long.
        nanoseconds: u32,
    },
}

/// Pages that a guest wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// Number of the slot.
    pub slot: u32,
    /// Pages written.
    pub pages: u64,
    /// Pages that one bit of `bitmap` stands for: 1, or a power of two where the slot has more than
    /// [`BITMAP_BITS_MAX`] pages.
    pub pages_per_bit: u64,
    /// Which were written, the lowest bit of the first word first.
    pub bitmap: Vec<u64>,
}

impl Dirty {
    /// True if a page of the group that `page` is in was written.
    pub fn has(&self, page: u64) -> bool {
        let bit = page / self.pages_per_bit;
        let word = self.bitmap.get((bit / 64) as usize).copied().unwrap_or(0);
        word >> (bit % 64) & 1 == 1
    }
}

/// Why nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another version of this protocol, or nonsense.
    #[error("the VMM does not know this intent")]
    UnknownIntent,
    /// No such slot.
    #[error("there is no such memory slot")]
    UnknownSlot,
    /// The number is taken.
    #[error("the memory slot is in use; resize it, or take another number")]
    SlotInUse,
    /// More slots than the VMM allows.
    #[error("the slot's number is beyond what this VMM allows")]
    TooManySlots,
    /// Not whole pages, or none.
    #[error("memory comes in whole pages of {PAGE_BYTES} bytes, at least one")]
    NotPages,
    /// The guest has something there already.
    #[error("another slot lies in this range of guest addresses")]
    Overlaps,
    /// Beyond the slot's, or the VMM's, most memory.
    #[error("this is more memory than the slot or the VMM may have")]
    TooMuchMemory,
    /// Below what the guest was booted with.
    #[error("the guest was booted in this slot, which cannot become that small")]
    BelowFloor,
    /// The slot's pages are not counted.
    #[error("the slot is not tracked; ask for that first")]
    NotTracked,
    /// No such vCPU.
    #[error("there is no such vCPU")]
    UnknownVcpu,
    /// The number is taken.
    #[error("the vCPU exists")]
    VcpuExists,
    /// More vCPUs than the VMM allows.
    #[error("the vCPU's number is beyond what this VMM allows")]
    TooManyVcpus,
    /// The vCPU's thread is gone.
    #[error("the vCPU has ended")]
    VcpuEnded,
    /// A vCPU did not come out of the guest in time.
    #[error("a vCPU did not come out of the guest in time; try again")]
    VcpuBusy,
    /// Longer than the VMM allows.
    #[error("halt polling of that length is beyond what this VMM allows")]
    HaltPollTooLong,
    /// The VMM's kernel refused.
    #[error("the VMM's kernel refused: {0}")]
    Host(Errno),
}

const REFUSALS: [Refusal; 15] = [
    Refusal::UnknownIntent,
    Refusal::UnknownSlot,
    Refusal::SlotInUse,
    Refusal::TooManySlots,
    Refusal::NotPages,
    Refusal::Overlaps,
    Refusal::TooMuchMemory,
    Refusal::BelowFloor,
    Refusal::NotTracked,
    Refusal::UnknownVcpu,
    Refusal::VcpuExists,
    Refusal::TooManyVcpus,
    Refusal::VcpuEnded,
    Refusal::VcpuBusy,
    Refusal::HaltPollTooLong,
];
/// Tag of a refusal by the VMM's kernel; the others follow it in the order of [`REFUSALS`].
const REFUSED_BY_HOST: u32 = 0x100;

impl From<kvm_ioctls::Error> for Refusal {
    fn from(error: kvm_ioctls::Error) -> Refusal {
        Refusal::Host(Errno::from_raw(error.errno()))
    }
}

/// A record before it is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) tag: u32,
    words: [u64; WORDS],
}

impl Record {
    fn new(tag: u32, id: u64, arguments: [u64; WORDS - 1]) -> Record {
        let [a, b, c, d] = arguments;
        Record { tag, words: [id, a, b, c, d] }
    }

    /// The record and the bytes behind it, or `None` if it is too short.
    fn parse(tag: u32, bytes: &[u8]) -> Option<(Record, &[u8])> {
        let (words, rest) = bytes.split_first_chunk::<RECORD_BYTES>()?;
        let mut record = Record { tag, words: [0; WORDS] };
        for (word, bytes) in record.words.iter_mut().zip(words.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some((record, rest))
    }

    pub(super) fn bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.words) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    fn small(&self, at: usize) -> Option<u32> {
        u32::try_from(self.words[at]).ok()
    }

    fn flag(&self, at: usize) -> Option<bool> {
        match self.words[at] {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Intent {
    pub(super) fn record(&self, id: u64) -> Record {
        let (tag, arguments) = match *self {
            Intent::AddMemory { slot, guest_address, bytes, bytes_max } => {
                (1, [slot.into(), guest_address, bytes, bytes_max])
            }
            Intent::RemoveMemory { slot } => (2, [slot.into(), 0, 0, 0]),
            Intent::ResizeMemory { slot, bytes } => (3, [slot.into(), bytes, 0, 0]),
            Intent::TrackDirty { slot, on } => (4, [slot.into(), on.into(), 0, 0]),
            Intent::SampleDirty { slot } => (5, [slot.into(), 0, 0, 0]),
            Intent::CreateVcpu { vcpu } => (6, [vcpu.into(), 0, 0, 0]),
            Intent::Park { vcpu } => (7, [vcpu.into(), 0, 0, 0]),
            Intent::Unpark { vcpu } => (8, [vcpu.into(), 0, 0, 0]),
            Intent::HaltPoll { nanoseconds } => (9, [nanoseconds.into(), 0, 0, 0]),
        };
        Record::new(tag, id, arguments)
    }

    /// Number and intent of a record; `None` if not even the number can be told. Nonsense behind
    /// the number is an unknown intent.
    pub(super) fn parse(tag: u32, bytes: &[u8]) -> Option<(u64, Result<Intent, Refusal>)> {
        let (record, rest) = Record::parse(tag, bytes)?;
        let intent = if rest.is_empty() { Intent::of(&record) } else { None };
        Some((record.words[0], intent.ok_or(Refusal::UnknownIntent)))
    }

    fn of(record: &Record) -> Option<Intent> {
        let first = record.small(1)?;
        let intent = match record.tag {
            1 => Intent::AddMemory {
                slot: first,
                guest_address: record.words[2],
                bytes: record.words[3],
                bytes_max: record.words[4],
            },
            2 => Intent::RemoveMemory { slot: first },
            3 => Intent::ResizeMemory { slot: first, bytes: record.words[2] },
            4 => Intent::TrackDirty { slot: first, on: record.flag(2)? },
            5 => Intent::SampleDirty { slot: first },
            6 => Intent::CreateVcpu { vcpu: first },
            7 => Intent::Park { vcpu: first },
            8 => Intent::Unpark { vcpu: first },
            9 => Intent::HaltPoll { nanoseconds: first },
            _ => return None,
        };
        Some(intent)
    }

    /// True if `confirmed` can be the answer to this: of its kind, and about its subject.
    pub(super) fn is_answered_by(&self, confirmed: &Confirmed) -> bool {
        match (self, confirmed) {
            (
                Intent::AddMemory { slot, .. }
                | Intent::RemoveMemory { slot }
                | Intent::ResizeMemory { slot, .. },
                Confirmed::Memory { slot: of, .. },
            )
            | (Intent::TrackDirty { slot, .. }, Confirmed::Tracked { slot: of, .. })
            | (Intent::SampleDirty { slot }, Confirmed::Dirty(Dirty { slot: of, .. })) => {
                slot == of
            }
            (
                Intent::CreateVcpu { vcpu } | Intent::Park { vcpu } | Intent::Unpark { vcpu },
                Confirmed::Vcpu { vcpu: of, .. },
            ) => vcpu == of,
            (Intent::HaltPoll { .. }, Confirmed::HaltPoll { .. }) => true,
            _ => false,
        }
    }
}

/// The answer as a record, and the bitmap that goes behind it.
pub(super) fn answer_record(id: u64, answer: &Result<Confirmed, Refusal>) -> (Record, Vec<u8>) {
    let (tag, arguments) = match answer {
        Ok(Confirmed::Memory { slot, bytes, total_bytes }) => {
            (1, [(*slot).into(), *bytes, *total_bytes, 0])
        }
        Ok(Confirmed::Tracked { slot, on }) => (2, [(*slot).into(), (*on).into(), 0, 0]),
        Ok(Confirmed::Dirty(dirty)) => {
            let bitmap = dirty.bitmap.iter().flat_map(|word| word.to_le_bytes()).collect();
            let arguments = [dirty.slot.into(), dirty.pages, dirty.pages_per_bit, 0];
            return (Record::new(3, id, arguments), bitmap);
        }
        Ok(Confirmed::Vcpu { vcpu, parked }) => (4, [(*vcpu).into(), (*parked).into(), 0, 0]),
        Ok(Confirmed::HaltPoll { nanoseconds }) => (5, [(*nanoseconds).into(), 0, 0, 0]),
        Err(Refusal::Host(errno)) => (REFUSED_BY_HOST, [*errno as i32 as u64, 0, 0, 0]),
        Err(refusal) => {
            let at = REFUSALS.iter().position(|other| other == refusal);
            (REFUSED_BY_HOST + 1 + at.expect("every refusal is listed") as u32, [0; 4])
        }
    };
    (Record::new(tag, id, arguments), Vec::new())
}

/// Number and answer of a record; `None` if no correct VMM sends it.
pub(super) fn parse_answer(tag: u32, bytes: &[u8]) -> Option<(u64, Result<Confirmed, Refusal>)> {
    let (record, rest) = Record::parse(tag, bytes)?;
    let id = record.words[0];
    if tag == 3 {
        let dirty = Dirty {
            slot: record.small(1)?,
            pages: record.words[2],
            pages_per_bit: record.words[3],
            bitmap: rest.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect(),
        };
        let bits = dirty.bitmap.len() as u64 * 64;
        let marked: u64 = dirty.bitmap.iter().map(|word| u64::from(word.count_ones())).sum();
        let can_be = rest.len() % 8 == 0
            && bits <= BITMAP_BITS_MAX
            && dirty.pages_per_bit.is_power_of_two()
            && dirty.pages >= marked
            && dirty.pages <= marked.saturating_mul(dirty.pages_per_bit);
        return can_be.then_some((id, Ok(Confirmed::Dirty(dirty))));
    }
    if !rest.is_empty() {
        return None;
    }
    let answer = match tag {
        1 => Ok(Confirmed::Memory {
            slot: record.small(1)?,
            bytes: record.words[2],
            total_bytes: record.words[3],
        }),
        2 => Ok(Confirmed::Tracked { slot: record.small(1)?, on: record.flag(2)? }),
        4 => Ok(Confirmed::Vcpu { vcpu: record.small(1)?, parked: record.flag(2)? }),
        5 => Ok(Confirmed::HaltPoll { nanoseconds: record.small(1)? }),
        REFUSED_BY_HOST => {
            Err(Refusal::Host(Errno::from_raw(i32::try_from(record.words[1]).ok()?)))
        }
        tag => {
            let at = usize::try_from(tag.checked_sub(REFUSED_BY_HOST + 1)?).ok()?;
            Err(*REFUSALS.get(at)?)
        }
    };
    Some((id, answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn intents_and_answers_read_back() {
        let intents = [
            Intent::AddMemory { slot: 1, guest_address: 2, bytes: 3, bytes_max: u64::MAX },
            Intent::RemoveMemory { slot: u32::MAX },
            Intent::ResizeMemory { slot: 3, bytes: 1 << 40 },
            Intent::TrackDirty { slot: 4, on: true },
            Intent::SampleDirty { slot: 5 },
            Intent::CreateVcpu { vcpu: 6 },
            Intent::Park { vcpu: 7 },
            Intent::Unpark { vcpu: 8 },
            Intent::HaltPoll { nanoseconds: 9 },
        ];
        for (id, intent) in (70..).zip(intents) {
            let record = intent.record(id);
            assert_eq!(Intent::parse(record.tag, &record.bytes()), Some((id, Ok(intent))));
            assert_eq!(Intent::parse(record.tag, &record.bytes()[1..]), None, "{intent:?}");
        }
        let dirty = Dirty { slot: 2, pages: 3, pages_per_bit: 2, bitmap: vec![0, 5] };
        let confirmed = [
            Confirmed::Memory { slot: 1, bytes: 2, total_bytes: 3 },
            Confirmed::Tracked { slot: 1, on: false },
            Confirmed::Dirty(dirty),
            Confirmed::Vcpu { vcpu: 3, parked: true },
            Confirmed::HaltPoll { nanoseconds: 4 },
        ];
        let refused = REFUSALS.into_iter().chain([Refusal::Host(Errno::ENOMEM)]).map(Err);
        for answer in confirmed.into_iter().map(Ok).chain(refused) {
            let (record, bitmap) = answer_record(9, &answer);
            let bytes = [&record.bytes()[..], &bitmap].concat();
            assert_eq!(parse_answer(record.tag, &bytes), Some((9, answer)));
        }
    }

    #[test]
    fn a_sample_that_contradicts_itself_is_no_answer() {
        for (pages, pages_per_bit) in [(1, 1), (3, 1), (5, 2), (2, 0), (2, 3)] {
            let dirty = Dirty { slot: 0, pages, pages_per_bit, bitmap: vec![3] };
            let (record, bitmap) = answer_record(1, &Ok(Confirmed::Dirty(dirty)));
            let bytes = [&record.bytes()[..], &bitmap].concat();
            assert_eq!(parse_answer(record.tag, &bytes), None, "{pages} of {pages_per_bit}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_peer_sends_breaks_the_reader(
            tag in prop_oneof![0..12_u32, 0xff..0x120_u32, any::<u32>()],
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Some((id, Ok(intent))) = Intent::parse(tag, &bytes) {
                prop_assert_eq!(&intent.record(id).bytes()[..8], &bytes[..8]);
            }
            if let Some((_, Ok(Confirmed::Dirty(dirty)))) = parse_answer(tag, &bytes) {
                let _ = dirty.has(u64::MAX);
            }
        }
    }
}
