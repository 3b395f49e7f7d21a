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

/// All, in hundredths of a percent.
pub const PERCENT_MAX: u32 = 10_000;

const _: () = assert!(CPU_QUOTA_US_MIN <= CPU_PERIOD_US && CPU_PERIOD_US <= CPU_QUOTA_US_MAX);
const _: () = assert!(CPU_WEIGHT_DEFAULT * CPU_WEIGHT_MILLICORES == 1_000);

/// Least rate of a network interface, bytes/s: the greatest packet, of 64 KiB, takes a minute, and
/// longer debts than that the kernel forgets.
pub const NETWORK_RATE_MIN: u64 = 1_250;

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
    /// Ceiling on the processor time of a virtual processor's thread.
    VcpuMax(u16),
    /// Share of a virtual processor's thread beside the others of its instance.
    VcpuWeight(u16),
    /// Least utilisation that the frequency governor takes the group to have.
    UclampMin,
    /// Greatest utilisation that the frequency governor takes the group to have.
    UclampMax,
    /// Ceiling on swap.
    SwapMax,
    /// Ceiling on huge pages of 2 MiB.
    HugePages,
    /// Share of block devices under contention.
    IoWeight,
    /// Ceiling on tasks.
    PidsMax,
    /// Whether anything in the group may run.
    Freeze,
    /// Memory that is reclaimed last.
    MemoryLow,
    /// Processor time that may be saved up and used beyond a period's quota.
    CpuBurst,
    /// Whether a group's processors are its own.
    Partition,
    /// Whether a device's time is weighed by what each operation costs; of the root group alone.
    IoCost(Device),
    /// Ceiling on the rate of an instance's network interfaces: no file, but the kernel's own
    /// queueing discipline.
    Network(Way),
}

/// Which way traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Away from the instance.
    Sent,
    /// To the instance.
    Received,
}

/// Number of files that hold limits of a group itself.
pub const FILES: usize = 16;

/// The knobs of a group itself, those of devices for any.
pub(crate) const OWN: [Knob; FILES] = [
    Knob::CpuMax,
    Knob::CpuWeight,
    Knob::MemoryMax,
    Knob::MemoryHigh,
    Knob::IoMax(Device { major: 0, minor: 0 }),
    Knob::UclampMin,
    Knob::UclampMax,
    Knob::SwapMax,
    Knob::HugePages,
    Knob::IoWeight,
    Knob::PidsMax,
    Knob::Freeze,
    Knob::MemoryLow,
    Knob::CpuBurst,
    Knob::Partition,
    Knob::IoCost(Device { major: 0, minor: 0 }),
];

impl Knob {
    /// The knobs of `resource`. `Accelerator` has none: nothing is written for it.
    pub fn of(resource: Resource, devices: &[Device]) -> Vec<Knob> {
        match resource {
            Resource::Cpu => vec![Knob::CpuMax, Knob::CpuWeight],
            // The backstop first, so that growth raises it before the level below it.
            Resource::Memory => vec![Knob::MemoryMax, Knob::MemoryHigh],
            Resource::BlockIo => devices.iter().copied().map(Knob::IoMax).collect(),
            Resource::Network => vec![Knob::Network(Way::Sent), Knob::Network(Way::Received)],
            Resource::Accelerator => Vec::new(),
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

    /// The file's name; of a limit that is in none, what it limits.
    pub const fn file(self) -> &'static str {
        match self {
            Knob::CpuMax | Knob::VcpuMax(_) => "cpu.max",
            Knob::CpuWeight | Knob::VcpuWeight(_) => "cpu.weight",
            Knob::MemoryMax => "memory.max",
            Knob::MemoryHigh => "memory.high",
            Knob::IoMax(_) => "io.max",
            Knob::UclampMin => "cpu.uclamp.min",
            Knob::UclampMax => "cpu.uclamp.max",
            Knob::SwapMax => "memory.swap.max",
            Knob::HugePages => "hugetlb.2MB.max",
            Knob::IoWeight => "io.weight",
            Knob::PidsMax => "pids.max",
            Knob::Freeze => "cgroup.freeze",
            Knob::MemoryLow => "memory.low",
            Knob::CpuBurst => "cpu.max.burst",
            Knob::Partition => "cpuset.cpus.partition",
            Knob::IoCost(_) => "io.cost.qos",
            Knob::Network(Way::Sent) => "net.sent",
            Knob::Network(Way::Received) => "net.received",
        }
    }

    /// The file's name with the device or the virtual processor that is meant, `v3/cpu.max`.
    pub fn shown(self) -> String {
        match self {
            Knob::IoMax(device) => format!("{} {device}", self.file()),
            Knob::VcpuMax(vcpu) | Knob::VcpuWeight(vcpu) => format!("v{vcpu}/{}", self.file()),
            // A row has no room for more.
            Knob::IoCost(device) => format!("io.cost {device}"),
            Knob::Partition => "cpuset.partition".to_owned(),
            _ => self.file().to_owned(),
        }
    }

    /// The virtual processor whose group holds the file.
    pub const fn vcpu(self) -> Option<u16> {
        match self {
            Knob::VcpuMax(vcpu) | Knob::VcpuWeight(vcpu) => Some(vcpu),
            _ => None,
        }
    }

    /// Index of the file in an array of [`FILES`]; a virtual processor's is that of its name.
    ///
    /// # Panics
    /// If it is in no file.
    pub const fn slot(self) -> usize {
        match self {
            Knob::CpuMax | Knob::VcpuMax(_) => 0,
            Knob::CpuWeight | Knob::VcpuWeight(_) => 1,
            Knob::MemoryMax => 2,
            Knob::MemoryHigh => 3,
            Knob::IoMax(_) => 4,
            Knob::UclampMin => 5,
            Knob::UclampMax => 6,
            Knob::SwapMax => 7,
            Knob::HugePages => 8,
            Knob::IoWeight => 9,
            Knob::PidsMax => 10,
            Knob::Freeze => 11,
            Knob::MemoryLow => 12,
            Knob::CpuBurst => 13,
            Knob::Partition => 14,
            Knob::IoCost(_) => 15,
            Knob::Network(_) => panic!("no file holds a network's rate"),
        }
    }

    /// The resource it limits, or belongs to.
    pub const fn resource(self) -> Resource {
        match self {
            Knob::CpuMax
            | Knob::CpuWeight
            | Knob::VcpuMax(_)
            | Knob::VcpuWeight(_)
            | Knob::UclampMin
            | Knob::UclampMax
            | Knob::PidsMax
            | Knob::Freeze
            | Knob::CpuBurst
            | Knob::Partition => Resource::Cpu,
            Knob::MemoryMax
            | Knob::MemoryHigh
            | Knob::SwapMax
            | Knob::HugePages
            | Knob::MemoryLow => Resource::Memory,
            Knob::IoMax(_) | Knob::IoWeight | Knob::IoCost(_) => Resource::BlockIo,
            Knob::Network(_) => Resource::Network,
        }
    }

    /// True if an instance's entitlement decides it; otherwise it stays as configured.
    pub const fn is_entitled(self) -> bool {
        matches!(
            self,
            Knob::CpuMax
                | Knob::CpuWeight
                | Knob::MemoryMax
                | Knob::MemoryHigh
                | Knob::IoMax(_)
                | Knob::Network(_)
        )
    }

    /// True if it is configured as a part of what an instance reserved.
    pub const fn follows_baseline(self) -> bool {
        matches!(self, Knob::MemoryLow | Knob::CpuBurst)
    }

    /// What a knob that follows the baseline is set to: so many hundredths of a percent of an
    /// `amount` (millicores, bytes). Never more than the amount, so that a burst is at most the
    /// least quota, which the kernel insists on.
    ///
    /// # Panics
    /// If it follows no baseline, or `part` is more than all.
    pub fn part_of(self, amount: u64, part: u32, page_bytes: u64) -> Setting {
        assert!(part <= PERCENT_MAX, "{part} is more than all");
        let portion = |amount: u64| {
            let portion = u128::from(amount) * u128::from(part) / u128::from(PERCENT_MAX);
            u64::try_from(portion).unwrap_or(u64::MAX)
        };
        match self {
            Knob::MemoryLow => Setting::memory(portion(amount), page_bytes),
            Knob::CpuBurst => {
                let quota_us = amount.saturating_mul(CPU_PERIOD_US / 1_000);
                // A quota and its burst together are bounded as a quota is.
                let quota_us = quota_us.clamp(CPU_QUOTA_US_MIN, CPU_QUOTA_US_MAX / 2);
                Setting::Count(Some(portion(quota_us)))
            }
            _ => unreachable!("{self:?} follows no baseline"),
        }
    }

    /// What an entitlement of `vrus`, each of `vru_size` (millicores, bytes, bytes/s or bits/s), sets.
    ///
    /// - `cpu.max`: quota = millicores / 1000 of the period, at least the kernel's 1 ms.
    /// - `cpu.weight`: millicores / 10, within 1..=10000.
    /// - `memory.high`: the entitlement, whole pages.
    /// - `memory.max`: an eighth above `memory.high`, at least 16 MiB, whole pages: room for
    ///   reclaim to catch up before anything is killed.
    /// - `io.max`: bytes/s for reads and the same for writes, at least 1.
    /// - network: bytes/s sent and the same received, at least [`NETWORK_RATE_MIN`].
    ///
    /// Amounts beyond what the kernel can hold become its greatest value or `max`.
    ///
    /// # Panics
    /// If nothing decided in VRUs sets it.
    pub fn setting(self, vrus: u64, vru_size: u64, page_bytes: u64) -> Setting {
        assert!(page_bytes.is_power_of_two(), "a page of {page_bytes} bytes");
        let amount = vrus.saturating_mul(vru_size);
        let backstop_bytes = amount.saturating_add((amount / 8).max(MEMORY_BACKSTOP_BYTES_MIN));
        match self {
            Knob::CpuMax | Knob::VcpuMax(_) => {
                let quota_us = amount.saturating_mul(CPU_PERIOD_US / 1_000);
                let quota_us = quota_us.clamp(CPU_QUOTA_US_MIN, CPU_QUOTA_US_MAX);
                Setting::Quota { quota_us: Some(quota_us), period_us: CPU_PERIOD_US }
            }
            Knob::CpuWeight | Knob::VcpuWeight(_) => {
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
            Knob::Network(_) => {
                Setting::Pace { bytes_per_s: Some((amount / 8).max(NETWORK_RATE_MIN)) }
            }
            _ => unreachable!("{self:?} is not decided in VRUs"),
        }
    }

    /// What a group has before anybody limits it.
    pub const fn lifted(self) -> Setting {
        match self {
            Knob::CpuMax | Knob::VcpuMax(_) => {
                Setting::Quota { quota_us: None, period_us: CPU_PERIOD_US }
            }
            Knob::CpuWeight | Knob::VcpuWeight(_) | Knob::IoWeight => {
                Setting::Weight(CPU_WEIGHT_DEFAULT)
            }
            Knob::MemoryMax | Knob::MemoryHigh | Knob::SwapMax | Knob::HugePages => {
                Setting::Bytes(None)
            }
            Knob::IoMax(device) => Setting::Rate { device, read: None, write: None },
            Knob::PidsMax => Setting::Count(None),
            Knob::Freeze | Knob::CpuBurst => Setting::Count(Some(0)),
            Knob::MemoryLow => Setting::Bytes(Some(0)),
            Knob::Partition => Setting::Partition { own: Own::Shared, valid: true },
            Knob::IoCost(device) => Setting::Costed { device, on: false },
            Knob::UclampMin => Setting::Percent(0),
            Knob::UclampMax => Setting::Percent(PERCENT_MAX),
            Knob::Network(_) => Setting::Pace { bytes_per_s: None },
        }
    }

    /// What the file's text says, or `None` if it is not the text of such a file.
    pub fn parse(self, text: &str) -> Option<Setting> {
        match self {
            Knob::CpuMax | Knob::VcpuMax(_) => {
                let mut words = text.split_ascii_whitespace();
                let quota_us = amount(words.next()?)?;
                let period_us = words.next()?.parse().ok()?;
                words.next().is_none().then_some(Setting::Quota { quota_us, period_us })
            }
            Knob::CpuWeight | Knob::VcpuWeight(_) => text.trim().parse().ok().map(Setting::Weight),
            Knob::IoWeight => {
                let weight = text.lines().find_map(|line| line.strip_prefix("default "));
                weight.unwrap_or(text).trim().parse().ok().map(Setting::Weight)
            }
            Knob::MemoryMax
            | Knob::MemoryHigh
            | Knob::SwapMax
            | Knob::HugePages
            | Knob::MemoryLow => amount(text.trim()).map(Setting::Bytes),
            Knob::IoMax(device) => parse_rates(text, device),
            Knob::IoCost(device) => parse_cost(text, device),
            Knob::Partition => parse_partition(text.trim()),
            Knob::PidsMax | Knob::CpuBurst => amount(text.trim()).map(Setting::Count),
            // Of `cgroup.events`: what is, not what was asked.
            Knob::Freeze => {
                let frozen = text.lines().find_map(|line| line.strip_prefix("frozen "));
                frozen?.trim().parse().ok().map(|frozen| Setting::Count(Some(frozen)))
            }
            Knob::UclampMin | Knob::UclampMax => percent(text.trim()).map(Setting::Percent),
            Knob::Network(_) => {
                amount(text.trim()).map(|bytes_per_s| Setting::Pace { bytes_per_s })
            }
        }
    }
}

/// `max` or a number.
fn amount(word: &str) -> Option<Option<u64>> {
    if word == "max" { Some(None) } else { word.parse().ok().map(Some) }
}

/// Hundredths of a percent: `12.34`, or `max` for all.
pub fn percent(word: &str) -> Option<u32> {
    if word == "max" {
        return Some(PERCENT_MAX);
    }
    let (whole, part) = word.split_once('.').unwrap_or((word, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > 2 {
        return None;
    }
    let part: u32 = format!("{part:0<2}").parse().ok()?;
    let hundredths = whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part)?;
    (hundredths <= PERCENT_MAX).then_some(hundredths)
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

/// `device`'s line of an `io.cost.qos`; a device without a line is not weighed.
fn parse_cost(text: &str, device: Device) -> Option<Setting> {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if Device::parse(words.next()?)? == device {
            let on = words.find_map(|word| word.strip_prefix("enable="))? == "1";
            return Some(Setting::Costed { device, on });
        }
    }
    Some(Setting::Costed { device, on: false })
}

/// `root`, `isolated invalid (...)` and so on.
fn parse_partition(text: &str) -> Option<Setting> {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let own = [Own::Shared, Own::Root, Own::Isolated].into_iter().find(|own| own.text() == kind)?;
    Some(Setting::Partition { own, valid: !rest.starts_with("invalid") })
}

/// Whose a group's processors are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Own {
    /// Everybody's who may run there.
    #[default]
    Shared,
    /// The group's alone; the kernel spreads its threads over them.
    Root,
    /// The group's alone, and no thread is moved between them.
    Isolated,
}

impl Own {
    /// As the kernel calls it.
    pub const fn text(self) -> &'static str {
        match self {
            Own::Shared => "member",
            Own::Root => "root",
            Own::Isolated => "isolated",
        }
    }
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
    /// Of `cpu.weight` and `io.weight`.
    Weight(u64),
    /// Of memory's files.
    Bytes(Option<u64>),
    /// Of `pids.max`, of `cpu.max.burst` in microseconds, and 1 or 0 of `cgroup.freeze`.
    Count(Option<u64>),
    /// Of `cpu.uclamp`, hundredths of a percent; of what follows the baseline, the part that is
    /// configured.
    Percent(u32),
    /// Of one device in `io.max`, bytes/s.
    Rate {
        /// The device.
        device: Device,
        /// Reads.
        read: Option<u64>,
        /// Writes.
        write: Option<u64>,
    },
    /// Of `cpuset.cpus.partition`.
    Partition {
        /// Whose the processors are.
        own: Own,
        /// False if the kernel cannot keep it so.
        valid: bool,
    },
    /// Of one device in `io.cost.qos`.
    Costed {
        /// The device.
        device: Device,
        /// Whether its time is weighed.
        on: bool,
    },
    /// Of a network's interfaces, one way.
    Pace {
        /// Frames with their headers, bytes/s.
        bytes_per_s: Option<u64>,
    },
}

impl Setting {
    /// The same in its resource's unit: millicores, a weight, bytes, bytes/s, bits/s, a count or
    /// hundredths of a percent. What has no bound is `u64::MAX`.
    pub fn amount(self) -> u64 {
        let amount = match self {
            Setting::Quota { quota_us, period_us } => {
                quota_us.map(|quota_us| quota_us.saturating_mul(1000) / period_us.max(1))
            }
            Setting::Weight(weight) => Some(weight),
            Setting::Bytes(amount) | Setting::Count(amount) => amount,
            Setting::Percent(part) => Some(part.into()),
            Setting::Rate { read, .. } => read,
            Setting::Partition { .. } | Setting::Costed { .. } => None,
            Setting::Pace { bytes_per_s } => bytes_per_s.map(|bytes| bytes.saturating_mul(8)),
        };
        amount.unwrap_or(u64::MAX)
    }

    pub(crate) fn memory(bytes: u64, page_bytes: u64) -> Setting {
        if bytes > MEMORY_BYTES_MAX {
            return Setting::Bytes(None);
        }
        Setting::Bytes(Some(bytes & !(page_bytes - 1)))
    }

    /// True if the kernel, asked for `self` and now saying `kernel`, does what was asked. It may
    /// round memory down to pages.
    pub fn agrees(self, kernel: Setting, page_bytes: u64) -> bool {
        match (self, kernel) {
            (Setting::Bytes(Some(asked)), Setting::Bytes(Some(says))) => {
                // A page is a power of two, and dividing is slow.
                asked ^ says < page_bytes
            }
            _ => self == kernel,
        }
    }

    /// True if `self` allows less than `other`, in part at least.
    pub(crate) fn is_below(self, other: Setting) -> bool {
        let below = |a: Option<u64>, b: Option<u64>| a.unwrap_or(u64::MAX) < b.unwrap_or(u64::MAX);
        match (self, other) {
            (Setting::Quota { quota_us: a, .. }, Setting::Quota { quota_us: b, .. })
            | (Setting::Bytes(a), Setting::Bytes(b))
            | (Setting::Count(a), Setting::Count(b))
            | (Setting::Pace { bytes_per_s: a }, Setting::Pace { bytes_per_s: b }) => below(a, b),
            (Setting::Weight(a), Setting::Weight(b)) => a < b,
            (
                Setting::Rate { read, write, .. },
                Setting::Rate { read: other_read, write: other_write, .. },
            ) => below(read, other_read) || below(write, other_write),
            _ => false,
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

impl Setting {
    /// What is written to the file, without an allocation.
    pub(crate) fn text(self) -> Text {
        let mut text = Text { bytes: [0; CONTENT_BYTES_MAX], start: CONTENT_BYTES_MAX };
        match self {
            Setting::Quota { quota_us, period_us } => {
                text.number(period_us);
                text.put(b" ");
                text.amount(quota_us);
            }
            Setting::Weight(weight) => text.number(weight),
            Setting::Bytes(amount)
            | Setting::Count(amount)
            | Setting::Pace { bytes_per_s: amount } => text.amount(amount),
            Setting::Percent(PERCENT_MAX) => text.put(b"max"),
            Setting::Percent(part) => {
                text.put(&[b'.', b'0' + (part / 10 % 10) as u8, b'0' + (part % 10) as u8]);
                text.number((part / 100).into());
            }
            Setting::Rate { device, read, write } => {
                text.amount(write);
                text.put(b" wbps=");
                text.amount(read);
                text.put(b" rbps=");
                text.number(device.minor.into());
                text.put(b":");
                text.number(device.major.into());
            }
            Setting::Partition { own, valid } => {
                text.put(if valid { b"" } else { b" invalid" });
                text.put(own.text().as_bytes());
            }
            Setting::Costed { device, on } => {
                text.number(on.into());
                text.put(b" enable=");
                text.number(device.minor.into());
                text.put(b":");
                text.number(device.major.into());
            }
        }
        text
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        f.write_str(std::str::from_utf8(text.as_bytes()).expect("digits and names"))
    }
}

/// Of the longest content there is: an `io.max` line with the greatest numbers has 73.
const CONTENT_BYTES_MAX: usize = 80;
/// The content of a limit as text. It grows from its end to its start, as numbers give their digits.
pub(crate) struct Text {
    bytes: [u8; CONTENT_BYTES_MAX],
    start: usize,
}

impl Text {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Puts `bytes` before what is there.
    fn put(&mut self, bytes: &[u8]) {
        let end = self.start;
        self.start -= bytes.len();
        self.bytes[self.start..end].copy_from_slice(bytes);
    }

    fn number(&mut self, mut number: u64) {
        loop {
            self.start -= 1;
            self.bytes[self.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return;
            }
        }
    }

    fn amount(&mut self, amount: Option<u64>) {
        match amount {
            Some(number) => self.number(number),
            None => self.put(b"max"),
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
    fn an_accelerator_has_no_limit_and_a_network_one_each_way() {
        let knobs = [Knob::Network(Way::Sent), Knob::Network(Way::Received)];
        assert_eq!(Knob::of(Resource::Network, &[DISK]), knobs);
        assert_eq!(text(knobs[0], 20, 1_000_000), "2500000", "a VRU is bits a second");
        assert_eq!(text(knobs[1], 0, 1_000_000), "1250");
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
        fn what_is_written_reads_back(vrus: u64, size in 0..1u64 << 40, which in 0..6usize) {
            let knob = [Knob::CpuMax, Knob::CpuWeight, Knob::MemoryMax, Knob::MemoryHigh,
                Knob::IoMax(DISK), Knob::Network(Way::Sent)][which];
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
