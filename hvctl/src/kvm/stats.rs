//! Counters of a VM or a vCPU, as KVM describes them (`KVM_GET_STATS_FD`, Linux 5.14).
//!
//! The VMM opens the descriptor; whoever it hands it to can read it, at one system call a sample,
//! without the VMM's help. The kernel says in the file itself which counters there are, so nothing
//! here knows their names. The layout is that of the KVM API, section 4.133: a header, an identifier,
//! descriptors, values.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Bytes of the header that are known.
const HEADER_BYTES: usize = 24;
/// Bytes of a descriptor before its name.
const DESCRIPTOR_BYTES: usize = 16;
/// Longest name.
const NAME_BYTES_MAX: usize = 256;
/// Most counters of one file, most values of one counter, and most bytes of all values.
const COUNTERS_MAX: usize = 1024;
const VALUES_MAX: usize = 1024;
const DATA_BYTES_MAX: usize = 64 << 10;
/// What the kernel calls these files.
const KINDS: [&str; 2] = ["anon_inode:kvm-vm-stats", "anon_inode:kvm-vcpu-stats"];

/// Why statistics cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// Another kind of descriptor.
    #[error(
        "the descriptor is {found:?}, not KVM statistics. A VM's or vCPU's own descriptor is of no \
         use outside its VMM: KVM answers EIO to ioctls from any process but the VM's own. Send an \
         intent instead, and have the VMM pass what KVM_GET_STATS_FD gave it"
    )]
    NotStats {
        /// What it is.
        found: String,
    },
    /// The file makes no sense.
    #[error("the statistics make no sense: {0}")]
    Layout(&'static str),
    /// It cannot be read.
    #[error("the statistics cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// How a counter behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Cumulative,
    /// What is so now.
    Instant,
    /// The greatest so far.
    Peak,
    /// Counts by ranges of equal width.
    LinearHistogram {
        /// Width of a range.
        width: u32,
    },
    /// Counts by ranges that double.
    LogHistogram,
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    None,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Cycles of the processor.
    Cycles,
    /// Yes or no.
    Boolean,
}

/// One counter's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The kernel's name for it.
    pub name: String,
    /// How it behaves.
    pub kind: Kind,
    /// What it counts, in units of `base`^`exponent`.
    pub unit: Unit,
    /// 10 or 2.
    pub base: u8,
    /// -9 with seconds and base 10: nanoseconds.
    pub exponent: i16,
    /// Values it has: 1, or as many as its histogram has ranges.
    pub values: usize,
    /// Where its first value lies in a sample, in values.
    at: usize,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    data_offset: u64,
    data_bytes: usize,
    counters: Vec<Counter>,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    name_bytes: usize,
    counters: usize,
    descriptors_offset: u64,
    data_offset: u64,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, StatsError> {
        let header = Header {
            name_bytes: word(bytes, 4) as usize,
            counters: word(bytes, 8) as usize,
            descriptors_offset: word(bytes, 16).into(),
            data_offset: word(bytes, 20).into(),
        };
        // Flags in the first word are of no kind that is known.
        if word(bytes, 0) != 0 {
            return Err(StatsError::Layout("unknown flags"));
        }
        if header.name_bytes == 0 || header.name_bytes > NAME_BYTES_MAX {
            return Err(StatsError::Layout("names of an impossible length"));
        }
        if header.counters == 0 || header.counters > COUNTERS_MAX {
            return Err(StatsError::Layout("an impossible number of counters"));
        }
        Ok(header)
    }

    fn descriptors_bytes(&self) -> usize {
        self.counters * (DESCRIPTOR_BYTES + self.name_bytes)
    }
}

impl Layout {
    fn parse(header: Header, descriptors: &[u8]) -> Result<Layout, StatsError> {
        let mut counters = Vec::with_capacity(header.counters);
        let mut data_bytes = 0;
        for bytes in descriptors.chunks_exact(DESCRIPTOR_BYTES + header.name_bytes) {
            let counter = Counter::parse(bytes)?;
            let end = (counter.at + counter.values) * 8;
            if end > DATA_BYTES_MAX {
                return Err(StatsError::Layout("a counter far behind the others"));
            }
            data_bytes = data_bytes.max(end);
            counters.push(counter);
        }
        Ok(Layout { data_offset: header.data_offset, data_bytes, counters })
    }

    /// The counters, in the kernel's order.
    pub fn counters(&self) -> &[Counter] {
        &self.counters
    }
}

impl Counter {
    fn parse(bytes: &[u8]) -> Result<Counter, StatsError> {
        let flags = word(bytes, 0);
        let (values, offset) = (usize::from(half(bytes, 6)), word(bytes, 8) as usize);
        let kind = match flags & 0xf {
            0 => Kind::Cumulative,
            1 => Kind::Instant,
            2 => Kind::Peak,
            3 => Kind::LinearHistogram { width: word(bytes, 12) },
            4 => Kind::LogHistogram,
            _ => return Err(StatsError::Layout("a counter of unknown kind")),
        };
        let unit = match flags >> 4 & 0xf {
            0 => Unit::None,
            1 => Unit::Bytes,
            2 => Unit::Seconds,
            3 => Unit::Cycles,
            4 => Unit::Boolean,
            _ => return Err(StatsError::Layout("a counter of unknown unit")),
        };
        let base = match flags >> 8 & 0xf {
            0 => 10,
            1 => 2,
            _ => return Err(StatsError::Layout("a counter of unknown base")),
        };
        if values == 0 || values > VALUES_MAX || !offset.is_multiple_of(8) {
            return Err(StatsError::Layout("a counter with impossible values"));
        }
        let name = &bytes[DESCRIPTOR_BYTES..];
        let name = &name[..name.iter().position(|&byte| byte == 0).unwrap_or(name.len())];
        let printable = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
        if !printable {
            return Err(StatsError::Layout("a counter without a printable name"));
        }
        let name = String::from_utf8_lossy(name).into_owned();
        let exponent = half(bytes, 4) as i16;
        Ok(Counter { name, kind, unit, base, exponent, values, at: offset / 8 })
    }
}

/// Statistics that can be read again and again.
#[derive(Debug)]
pub struct Stats {
    file: File,
    layout: Layout,
    sample: Vec<u8>,
}

impl Stats {
    /// Reads what `descriptor` holds, if it is of KVM's statistics.
    ///
    /// # Errors
    /// It is of something else, or what it says makes no sense.
    pub fn open(descriptor: OwnedFd) -> Result<Stats, StatsError> {
        // Another file could block the reader, or say what its owner likes.
        let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let found = std::fs::read_link(link)?.to_string_lossy().into_owned();
        // A path begins with a slash, so no file can be called this.
        if !KINDS.iter().any(|kind| found.starts_with(kind)) {
            return Err(StatsError::NotStats { found });
        }
        let file = File::from(descriptor);
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let header = Header::parse(&header)?;
        let mut descriptors = vec![0; header.descriptors_bytes()];
        file.read_exact_at(&mut descriptors, header.descriptors_offset)?;
        let layout = Layout::parse(header, &descriptors)?;
        let sample = vec![0; layout.data_bytes];
        Ok(Stats { file, layout, sample })
    }

    /// What there is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Reads all values anew, with one system call.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn refresh(&mut self) -> Result<(), StatsError> {
        Ok(self.file.read_exact_at(&mut self.sample, self.layout.data_offset)?)
    }

    /// The values of a counter when last read; none if there is no such counter.
    pub fn values(&self, name: &str) -> impl Iterator<Item = u64> {
        let counter = self.layout.counters.iter().find(|counter| counter.name == name);
        let range = counter.map_or(0..0, |of| of.at * 8..(of.at + of.values) * 8);
        self.sample[range].as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The first value of a counter of time when last read, nanoseconds; `None` if there is none.
    pub fn nanoseconds(&self, name: &str) -> Option<u64> {
        let counter = self.layout.counters.iter().find(|counter| counter.name == name)?;
        if (counter.unit, counter.base) != (Unit::Seconds, 10) {
            return None;
        }
        let (value, shift) = (self.value(name)?, i32::from(counter.exponent) + 9);
        let times = 10u64.checked_pow(shift.unsigned_abs())?;
        if shift < 0 { Some(value / times) } else { value.checked_mul(times) }
    }

    /// The same statistics, for another reader.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Stats> {
        let (layout, sample) = (self.layout.clone(), self.sample.clone());
        Ok(Stats { file: self.file.try_clone()?, layout, sample })
    }

    /// The first value of a counter when last read.
    pub fn value(&self, name: &str) -> Option<u64> {
        self.values(name).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_descriptors_are_refused_and_told_why() {
        let (reader, _writer) = io::pipe().unwrap();
        let error = Stats::open(reader.into()).unwrap_err().to_string();
        assert!(error.contains("pipe:") && error.contains("EIO"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("anon_inode:kvm-vm-stats")).unwrap();
        let error = Stats::open(file.into()).unwrap_err();
        assert!(matches!(error, StatsError::NotStats { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn nonsense_is_refused_or_stays_in_bounds(
            header in any::<[u8; HEADER_BYTES]>(),
            tame in any::<bool>(),
            descriptors in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut header = header;
            if tame {
                // Small numbers, so that what is behind them is reached.
                header[..4].fill(0);
                header[5..8].fill(0);
                header[9..12].fill(0);
            }
            let Ok(header) = Header::parse(&header) else { return Ok(()) };
            prop_assert!(header.descriptors_bytes() <= 1 << 20);
            if let Ok(layout) = Layout::parse(header, &descriptors) {
                for counter in layout.counters() {
                    prop_assert!((counter.at + counter.values) * 8 <= layout.data_bytes);
                }
                prop_assert!(layout.data_bytes <= DATA_BYTES_MAX);
            }
        }
    }
}
