//! What a limit is: the file that holds it, and the rule that turns VRUs into its content.

use std::fmt;
use vendue_wire::code::Resource;

/// Period of every `cpu.max`, microseconds.
pub const CPU_PERIOD_US: u64 = 100_000;
/// Least quota the kernel takes in `cpu.max`, microseconds a period.
pub const CPU_QUOTA_US_MIN: u64 = 1_000;
/// Greatest quota the kernel takes in `cpu.max`, microseconds a period.
pub const CPU_QUOTA_US_MAX: u64 = (1 << 44) - 1;
/// Range of `cpu.weight`.
pub const CPU_WEIGHT_MIN: u64 = 1;
/// Range of `cpu.weight`.
pub const CPU_WEIGHT_MAX: u64 = 10_000;
/// What the kernel gives a new group.
pub const CPU_WEIGHT_DEFAULT: u64 = 100;
/// Millicores that one unit of `cpu.weight` stands for: a whole core weighs 100, the default.
pub const CPU_WEIGHT_MILLICORES: u64 = 10;
/// Least distance of `memory.max` above `memory.high`, bytes.
pub const MEMORY_BACKSTOP_BYTES_MIN: u64 = 16 << 20;
/// Above this the kernel keeps a memory limit as `max`, bytes.
pub const MEMORY_BYTES_MAX: u64 = i64::MAX as u64;

const _: () = assert!(CPU_QUOTA_US_MIN <= CPU_PERIOD_US && CPU_PERIOD_US <= CPU_QUOTA_US_MAX);
const _: () = assert!(CPU_WEIGHT_DEFAULT * CPU_WEIGHT_MILLICORES == 1_000);

/// A block device's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Driver's number.
    pub major: u32,
    /// The driver's number for the device.
    pub minor: u32,
}

impl Device {
    /// Reads `MAJ:MIN`.
    pub fn parse(text: &str) -> Option<Device> {
        let (major, minor) = text.split_once(':')?;
        Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One thing that can be set: a file, or for `io.max` one device's line of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Knob {
    /// Ceiling on processor time.
    CpuMax,
    /// Share of processor time under contention.
    CpuWeight,
    /// Backstop above which the kernel reclaims at once and then kills.
    MemoryMax,
    /// Level above which the kernel reclaims and slows the group, without killing.
    MemoryHigh,
    /// Ceiling on a device's read and write rates.
    IoMax(Device),
}

/// Number of files that hold limits.
pub const FILES: usize = 5;

impl Knob {
    /// The knobs of `resource`. `Network` and `Accelerator` have none in a cgroup: nothing is
    /// written for them.
    pub fn of(resource: Resource, devices: &[Device]) -> Vec<Knob> {
        match resource {
            Resource::Cpu => vec![Knob::CpuMax, Knob::CpuWeight],
            // The backstop first, so that growth raises it before the level below it.
            Resource::Memory => vec![Knob::MemoryMax, Knob::MemoryHigh],
            Resource::BlockIo => devices.iter().copied().map(Knob::IoMax).collect(),
            Resource::Network | Resource::Accelerator => Vec::new(),
        }
    }

    /// The controller that offers the files of `resource`, if one does.
    pub const fn controller(resource: Resource) -> Option<&'static str> {
        match resource {
            Resource::Cpu => Some("cpu"),
            Resource::Memory => Some("memory"),
            Resource::BlockIo => Some("io"),
            Resource::Network | Resource::Accelerator => None,
        }
    }

    /// The file's name.
    pub const fn file(self) -> &'static str {
        match self {
            Knob::CpuMax => "cpu.max",
            Knob::CpuWeight => "cpu.weight",
            Knob::MemoryMax => "memory.max",
            Knob::MemoryHigh => "memory.high",
            Knob::IoMax(_) => "io.max",
        }
    }

    /// Index of the file in an array of [`FILES`].
    pub const fn slot(self) -> usize {
        match self {
            Knob::CpuMax => 0,
            Knob::CpuWeight => 1,
            Knob::MemoryMax => 2,
            Knob::MemoryHigh => 3,
            Knob::IoMax(_) => 4,
        }
    }

    /// The resource it limits.
    pub const fn resource(self) -> Resource {
        match self {
            Knob::CpuMax | Knob::CpuWeight => Resource::Cpu,
            Knob::MemoryMax | Knob::MemoryHigh => Resource::Memory,
            Knob::IoMax(_) => Resource::BlockIo,
        }
    }

    /// What an entitlement of `vrus`, each of `vru_size` (millicores, bytes or bytes/s), sets.
    ///
    /// - `cpu.max`: quota = millicores / 1000 of the period, at least the kernel's 1 ms.
    /// - `cpu.weight`: millicores / 10, within 1..=10000.
    /// - `memory.high`: the entitlement, whole pages.
    /// - `memory.max`: an eighth above `memory.high`, at least 16 MiB, whole pages: room for
    ///   reclaim to catch up before anything is killed.
    /// - `io.max`: bytes/s for reads and the same for writes, at least 1.
    ///
    /// Amounts beyond what the kernel can hold become its greatest value or `max`.
    pub fn setting(self, vrus: u64, vru_size: u64, page_bytes: u64) -> Setting {
        assert!(page_bytes.is_power_of_two(), "a page of {page_bytes} bytes");
        let amount = vrus.saturating_mul(vru_size);
        let backstop_bytes = amount.saturating_add((amount / 8).max(MEMORY_BACKSTOP_BYTES_MIN));
        match self {
            Knob::CpuMax => {
                let quota_us = amount.saturating_mul(CPU_PERIOD_US / 1_000);
                let quota_us = quota_us.clamp(CPU_QUOTA_US_MIN, CPU_QUOTA_US_MAX);
                Setting::Quota { quota_us: Some(quota_us), period_us: CPU_PERIOD_US }
            }
            Knob::CpuWeight => {
                let weight = amount / CPU_WEIGHT_MILLICORES;
                Setting::Weight(weight.clamp(CPU_WEIGHT_MIN, CPU_WEIGHT_MAX))
            }
            Knob::MemoryHigh => Setting::memory(amount, page_bytes),
            Knob::MemoryMax => Setting::memory(backstop_bytes, page_bytes),
            Knob::IoMax(device) => {
                // The kernel keeps u64::MAX as "max", which reads back as no limit.
                let rate = (amount < u64::MAX).then_some(amount.max(1));
                Setting::Rate { device, read: rate, write: rate }
            }
        }
    }

    /// What a group has before anybody limits it.
    pub const fn lifted(self) -> Setting {
        match self {
            Knob::CpuMax => Setting::Quota { quota_us: None, period_us: CPU_PERIOD_US },
            Knob::CpuWeight => Setting::Weight(CPU_WEIGHT_DEFAULT),
            Knob::MemoryMax | Knob::MemoryHigh => Setting::Bytes(None),
            Knob::IoMax(device) => Setting::Rate { device, read: None, write: None },
        }
    }

    /// What the file's text says, or `None` if it is not the text of such a file.
    pub fn parse(self, text: &str) -> Option<Setting> {
        match self {
            Knob::CpuMax => {
                let mut words = text.split_ascii_whitespace();
                let quota_us = amount(words.next()?)?;
                let period_us = words.next()?.parse().ok()?;
                words.next().is_none().then_some(Setting::Quota { quota_us, period_us })
            }
            Knob::CpuWeight => text.trim().parse().ok().map(Setting::Weight),
            Knob::MemoryMax | Knob::MemoryHigh => amount(text.trim()).map(Setting::Bytes),
            Knob::IoMax(device) => parse_rates(text, device),
        }
    }
}

/// `max` or a number.
fn amount(word: &str) -> Option<Option<u64>> {
    if word == "max" { Some(None) } else { word.parse().ok().map(Some) }
}

/// `device`'s line of an `io.max`; a device without a line has no limits.
fn parse_rates(text: &str, device: Device) -> Option<Setting> {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if Device::parse(words.next()?)? != device {
            continue;
        }
        let (mut read, mut write) = (None, None);
        for word in words {
            let (key, value) = word.split_once('=')?;
            match key {
                "rbps" => read = amount(value)?,
                "wbps" => write = amount(value)?,
                _ => {}
            }
        }
        return Some(Setting::Rate { device, read, write });
    }
    Some(Setting::Rate { device, read: None, write: None })
}

/// The content of a limit. `None` is `max`: no limit. `Display` is the text that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Of `cpu.max`, microseconds.
    Quota {
        /// Processor time a period.
        quota_us: Option<u64>,
        /// Length of a period.
        period_us: u64,
    },
    /// Of `cpu.weight`.
    Weight(u64),
    /// Of `memory.high` and `memory.max`.
    Bytes(Option<u64>),
    /// Of one device in `io.max`, bytes/s.
    Rate {
        /// The device.
        device: Device,
        /// Reads.
        read: Option<u64>,
        /// Writes.
        write: Option<u64>,
    },
}

impl Setting {
    fn memory(bytes: u64, page_bytes: u64) -> Setting {
        if bytes > MEMORY_BYTES_MAX {
            return Setting::Bytes(None);
        }
        Setting::Bytes(Some(bytes - bytes % page_bytes))
    }

    /// True if the kernel, asked for `self` and now saying `kernel`, does what was asked. It may
    /// round memory down to pages.
    pub fn agrees(self, kernel: Setting, page_bytes: u64) -> bool {
        match (self, kernel) {
            (Setting::Bytes(Some(asked)), Setting::Bytes(Some(says))) => {
                asked / page_bytes == says / page_bytes
            }
            _ => self == kernel,
        }
    }

    /// The bytes of a memory limit, `u64::MAX` without one.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Setting::Bytes(bytes) => bytes.unwrap_or(u64::MAX),
            _ => unreachable!("only memory limits hold bytes"),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Setting::Quota { quota_us, period_us } => {
                write!(f, "{} {period_us}", Amount(quota_us))
            }
            Setting::Weight(weight) => write!(f, "{weight}"),
            Setting::Bytes(bytes) => write!(f, "{}", Amount(bytes)),
            Setting::Rate { device, read, write } => {
                write!(f, "{device} rbps={} wbps={}", Amount(read), Amount(write))
            }
        }
    }
}

struct Amount(Option<u64>);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("max"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;
    const DISK: Device = Device { major: 259, minor: 3 };

    fn text(knob: Knob, vrus: u64, vru_size: u64) -> String {
        knob.setting(vrus, vru_size, PAGE).to_string()
    }

    #[test]
    fn cpu_follows_millicores() {
        assert_eq!(text(Knob::CpuMax, 25, 10), "25000 100000");
        assert_eq!(text(Knob::CpuMax, 400, 10), "400000 100000");
        assert_eq!(text(Knob::CpuMax, 0, 10), "1000 100000", "the kernel refuses less than 1 ms");
        assert_eq!(text(Knob::CpuMax, u64::MAX, 10), "17592186044415 100000");
        assert_eq!(text(Knob::CpuWeight, 100, 10), "100", "a core weighs the default");
        assert_eq!(text(Knob::CpuWeight, 25, 10), "25");
        assert_eq!(text(Knob::CpuWeight, 0, 10), "1");
        assert_eq!(text(Knob::CpuWeight, 2_000_000, 10), "10000");
    }

    #[test]
    fn memory_has_a_level_and_a_backstop_above_it() {
        let mib = 1 << 20;
        assert_eq!(text(Knob::MemoryHigh, 64, 16 * mib), (1024 * mib).to_string());
        assert_eq!(text(Knob::MemoryMax, 64, 16 * mib), (1152 * mib).to_string());
        assert_eq!(text(Knob::MemoryMax, 1, 16 * mib), (32 * mib).to_string(), "at least 16 MiB");
        assert_eq!(text(Knob::MemoryHigh, 1, 4097), "4096", "whole pages");
        assert_eq!(text(Knob::MemoryHigh, u64::MAX, 2), "max");
        assert_eq!(text(Knob::MemoryMax, 0, 1), (16 * mib).to_string());
    }

    #[test]
    fn block_io_names_its_device() {
        let knob = Knob::IoMax(DISK);
        assert_eq!(text(knob, 3, 1 << 20), "259:3 rbps=3145728 wbps=3145728");
        assert_eq!(text(knob, 0, 1 << 20), "259:3 rbps=1 wbps=1", "the kernel refuses 0");
        assert_eq!(text(knob, u64::MAX, 1), "259:3 rbps=max wbps=max");
        assert_eq!(knob.lifted().to_string(), "259:3 rbps=max wbps=max");
    }

    #[test]
    fn network_and_accelerator_have_no_file() {
        assert!(Knob::of(Resource::Network, &[DISK]).is_empty());
        assert!(Knob::of(Resource::Accelerator, &[DISK]).is_empty());
        assert_eq!(Knob::of(Resource::BlockIo, &[DISK]), [Knob::IoMax(DISK)]);
    }

    #[test]
    fn io_max_is_read_by_line() {
        let knob = Knob::IoMax(DISK);
        let file =
            "8:16 rbps=7 wbps=max riops=max wiops=120\n259:3 rbps=max wbps=9 riops=max wiops=max\n";
        let says = Setting::Rate { device: DISK, read: None, write: Some(9) };
        assert_eq!(knob.parse(file), Some(says));
        assert_eq!(knob.parse(""), Some(knob.lifted()), "no line, no limit");
        assert_eq!(knob.parse("8:16 rbps=7 wbps=8\n"), Some(knob.lifted()));
        assert_eq!(knob.parse("259:3 rbps\n"), None);
        assert_eq!(knob.parse("nonsense\n"), None);
    }

    #[test]
    fn other_text_is_not_a_setting() {
        for knob in [Knob::CpuMax, Knob::CpuWeight, Knob::MemoryHigh, Knob::MemoryMax] {
            for text in ["", "\n", "x", "-1", "1 2 3", "max max max", "99999999999999999999999"] {
                assert_eq!(knob.parse(text), None, "{knob:?} took {text:?}");
            }
        }
        assert_eq!(Knob::CpuMax.parse("max 100000\n"), Some(Knob::CpuMax.lifted()));
        assert_eq!(Knob::MemoryHigh.parse("max\n"), Some(Setting::Bytes(None)));
    }

    #[test]
    fn the_kernel_may_round_memory_down_and_nothing_else() {
        let asked = Setting::Bytes(Some(3 * PAGE + 5));
        assert!(asked.agrees(Setting::Bytes(Some(3 * PAGE)), PAGE));
        assert!(!asked.agrees(Setting::Bytes(Some(2 * PAGE)), PAGE));
        assert!(!asked.agrees(Setting::Bytes(None), PAGE));
        assert!(!Setting::Weight(3).agrees(Setting::Weight(2), PAGE));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(vrus: u64, size in 0..1u64 << 40, which in 0..5usize) {
            let knob = [Knob::CpuMax, Knob::CpuWeight, Knob::MemoryMax, Knob::MemoryHigh,
                Knob::IoMax(DISK)][which];
            let setting = knob.setting(vrus, size, PAGE);
            prop_assert_eq!(knob.parse(&format!("{setting}\n")), Some(setting));
            // Never more than asked for, except where the kernel has a least value.
            if let Setting::Quota { quota_us: Some(quota_us), .. } = setting {
                let asked_us = u128::from(vrus) * u128::from(size) * 100;
                prop_assert!(u128::from(quota_us) <= asked_us.max(1_000));
            }
            let (high, max) = (Knob::MemoryHigh.setting(vrus, size, PAGE),
                Knob::MemoryMax.setting(vrus, size, PAGE));
            prop_assert!(high.bytes() < max.bytes() || max == Setting::Bytes(None));
        }
    }
}
