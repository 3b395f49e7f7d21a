//! The configuration: one TOML file with every bound in it, parsed once into valid values.
//!
//! A wrong value is refused with its line and the reason; an unknown key is an error. The file
//! embedded here is the default, and the commented example in one.

use crate::machine::command::{DefineBook, DefineCredits, DefineExchange, Genesis, SpareTiers};
use crate::machine::config::{BoundsError, EXCHANGES_MAX};
use crate::machine::exchange::{Exchange, Rate};
use hvctl::cgroup::Hardware;
use hvctl::limit::{
    CPU_WEIGHT_MAX, CPU_WEIGHT_MIN, Device, Knob, MEMORY_BYTES_MAX, Own, Setting, percent,
};
use hvctl::topology::parse_list;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use vendue_wire::code::{Resource, Role};
use vendue_wire::idle::Wait;
use vendue_wire::message::{U32, field};

/// The configuration that holds where no file says otherwise.
pub const DEFAULT: &str = include_str!("vendued.toml");

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not TOML, or holds a key or a type that is not known.
    #[error("{origin}: {message}")]
    Parse {
        /// File, or "embedded defaults".
        origin: String,
        /// Line, column and reason.
        message: String,
    },
    /// A value is outside its range.
    #[error("{origin}: line {line}: {reason}")]
    Value {
        /// File, or "embedded defaults".
        origin: String,
        /// Line of the value.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct Config {
    pub data_dir: PathBuf,
    pub log: String,
    #[serde(default)]
    pub log_format: LogFormat,
    pub machine: MachineKeys,
    pub journal: JournalKeys,
    pub snapshot: SnapshotKeys,
    pub pipeline: PipelineKeys,
    pub gateway: GatewayKeys,
    pub http: Option<HttpKeys>,
    pub host: HostKeys,
    #[serde(default)]
    pub forecast: ForecastKeys,
    pub access: Vec<Spanned<AccessKeys>>,
    pub tier: Vec<TierKeys>,
    #[serde(default)]
    pub exchange: Vec<Spanned<ExchangeKeys>>,
    #[serde(default)]
    pub qemu: Vec<Spanned<QemuKeys>>,
    /// The text as a table, to compare two configurations.
    #[serde(skip)]
    pub table: toml::Table,
}

/// `log_format`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each value is explained in vendued.toml")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// `[machine]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct MachineKeys {
    pub accounts_max: Spanned<u32>,
    pub instances_max: Spanned<u32>,
    pub orders_max: Spanned<u32>,
    pub orders_per_instance_max: Spanned<u32>,
    pub sessions_max: Spanned<u32>,
    pub tick_ms: Spanned<u64>,
    pub credit_cap_s: Spanned<u32>,
    pub burst_resume_ms: Spanned<u32>,
    pub limit_window_s: Spanned<u32>,
    pub reversible_trades: Spanned<u32>,
    pub leases_max: Spanned<u32>,
    pub swap_every_ms: Spanned<u32>,
    pub lease_margin_percent: Spanned<u16>,
    pub maker_fee_bps: Spanned<u16>,
    pub taker_fee_bps: Spanned<u16>,
}

/// `[journal]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct JournalKeys {
    pub sync: SyncKey,
    pub mirror: Option<PathBuf>,
    pub segment_bytes: Spanned<u64>,
    pub buffer_bytes: Spanned<usize>,
}

/// `journal.sync`
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each value is explained in vendued.toml")]
pub enum SyncKey {
    Always,
    Never,
}

/// `[snapshot]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct SnapshotKeys {
    pub every_records: Spanned<u64>,
}

/// `[pipeline]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct PipelineKeys {
    pub ring_bytes: Spanned<usize>,
    pub threads: ThreadsKey,
    pub stages: PathBuf,
    pub gateway: ThreadKeys,
    pub core: ThreadKeys,
    pub journal: ThreadKeys,
    pub actuate: ThreadKeys,
}

/// `pipeline.threads`
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each value is explained in vendued.toml")]
pub enum ThreadsKey {
    Each,
    One,
}

/// A thread of the pipeline.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct ThreadKeys {
    #[serde(deserialize_with = "wait")]
    pub wait: Wait,
    pub cpu: Option<usize>,
}

fn wait<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Wait, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// `[gateway]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct GatewayKeys {
    pub unix: PathBuf,
    pub tcp: Option<Spanned<SocketAddr>>,
    pub tls: Option<TlsKeys>,
    pub token_keys: Option<PathBuf>,
    pub connections_max: Spanned<usize>,
    pub outbound_bytes_max: Spanned<usize>,
    pub replay_bytes_max: Spanned<usize>,
    pub shared_ring_bytes_max: Spanned<u32>,
    pub logon_timeout_ms: Spanned<u64>,
    pub heartbeat_ms_min: Spanned<u32>,
    pub heartbeat_ms_max: Spanned<u32>,
    pub throttle_per_s: Spanned<u64>,
    pub throttle_burst: Spanned<u64>,
    pub account_throttle_per_s: Spanned<u64>,
    pub account_throttle_burst: Spanned<u64>,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct HttpKeys {
    pub address: Spanned<SocketAddr>,
    pub tls: Option<PathBuf>,
    #[serde(default = "http_connections_max")]
    pub connections_max: usize,
}

fn http_connections_max() -> usize {
    256
}

/// `gateway.tls`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct TlsKeys {
    pub address: SocketAddr,
    pub dir: PathBuf,
}

/// `[host]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct HostKeys {
    pub kind: HostKey,
    pub parent: PathBuf,
    pub quantum_ms: Spanned<u64>,
    pub meter_ms: Spanned<u64>,
    pub verify_ms: Spanned<u64>,
    pub sense_ms: Spanned<u64>,
    pub devices: Vec<Spanned<String>>,
    #[serde(default)]
    pub io_cost: Vec<Spanned<String>>,
}

/// `[forecast]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct ForecastKeys {
    pub enabled: bool,
    pub memory_mib: Spanned<usize>,
}

impl Default for ForecastKeys {
    fn default() -> ForecastKeys {
        ForecastKeys { enabled: true, memory_mib: Spanned::new(0..0, 64) }
    }
}

impl ForecastKeys {
    /// Bytes that series may take, if there are to be forecasts.
    pub fn series_bytes_max(&self) -> Option<usize> {
        self.enabled.then(|| *self.memory_mib.get_ref() << 20)
    }
}

/// `host.kind`
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each value is explained in vendued.toml")]
pub enum HostKey {
    Cgroup,
    DryRun,
}

/// `[[access]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct AccessKeys {
    pub uid: Option<u32>,
    pub token_file: Option<Spanned<PathBuf>>,
    pub certificate: Option<Spanned<String>>,
    #[serde(deserialize_with = "role")]
    pub role: Role,
    pub account: Option<u32>,
    pub instance: Option<u32>,
}

fn role<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    let text = String::deserialize(deserializer)?;
    Role::ALL.iter().copied().find(|role| role.text() == text).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "role {text:?} is not one of observer, agent, tenant, operator"
        ))
    })
}

/// `[[tier]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct TierKeys {
    pub name: Spanned<String>,
    #[serde(default)]
    pub spare: bool,
    #[serde(default)]
    pub placement: bool,
    pub cpus: Option<Spanned<String>>,
    pub nodes: Option<Spanned<String>>,
    pub partition: Option<Spanned<PartitionKey>>,
    pub devices: Option<Vec<Spanned<String>>>,
    pub storage: Option<Spanned<PathBuf>>,
    pub instance: Option<Spanned<InstanceKeys>>,
    pub cpu: Option<Spanned<BookKeys>>,
    pub memory: Option<Spanned<BookKeys>>,
    pub block_io: Option<Spanned<BookKeys>>,
    pub network: Option<Spanned<BookKeys>>,
    pub accelerator: Option<Spanned<BookKeys>>,
}

/// `partition` of a `[[tier]]`
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each value is explained in vendued.toml")]
pub enum PartitionKey {
    Root,
    Isolated,
}

/// What each instance of a tier is set to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct InstanceKeys {
    pub pids_max: Option<u64>,
    pub swap_max_mib: Option<u64>,
    pub huge_pages_max: Option<u64>,
    pub io_weight: Option<u64>,
    pub uclamp_min: Option<String>,
    pub uclamp_max: Option<String>,
    pub memory_low_percent: Option<u32>,
    pub cpu_burst_percent: Option<u32>,
}

impl InstanceKeys {
    /// The files that are set, and to what; or why not.
    fn settings(&self) -> Result<Vec<(Knob, Setting)>, String> {
        let bytes = |name: &str, count: u64, bytes: u64| {
            let bytes = count.checked_mul(bytes).filter(|&bytes| bytes <= MEMORY_BYTES_MAX);
            bytes.map(|bytes| Setting::Bytes(Some(bytes))).ok_or(format!("{name} is too much"))
        };
        let mut settings = Vec::new();
        for (knob, text) in
            [(Knob::UclampMin, &self.uclamp_min), (Knob::UclampMax, &self.uclamp_max)]
        {
            let Some(text) = text else { continue };
            let part = percent(text)
                .ok_or(format!("{text:?} is not \"max\" or a percentage such as \"12.5\""))?;
            settings.push((knob, Setting::Percent(part)));
        }
        if let Some(mib) = self.swap_max_mib {
            settings.push((Knob::SwapMax, bytes("swap-max-mib", mib, 1 << 20)?));
        }
        if let Some(pages) = self.huge_pages_max {
            settings.push((Knob::HugePages, bytes("huge-pages-max", pages, 2 << 20)?));
        }
        if let Some(weight) = self.io_weight {
            if !(CPU_WEIGHT_MIN..=CPU_WEIGHT_MAX).contains(&weight) {
                return Err(format!("io-weight {weight} is not within 1 to 10000"));
            }
            settings.push((Knob::IoWeight, Setting::Weight(weight)));
        }
        for (knob, name, percent) in [
            (Knob::MemoryLow, "memory-low-percent", self.memory_low_percent),
            (Knob::CpuBurst, "cpu-burst-percent", self.cpu_burst_percent),
        ] {
            let Some(percent) = percent else { continue };
            if percent > 100 {
                return Err(format!("{name} {percent} is more than what an instance reserved"));
            }
            settings.push((knob, Setting::Percent(percent * 100)));
        }
        if let Some(pids) = self.pids_max {
            if pids == 0 {
                return Err("pids-max 0 would let nothing start".to_owned());
            }
            settings.push((Knob::PidsMax, Setting::Count(Some(pids))));
        }
        Ok(settings)
    }
}

/// A tier's resource.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct BookKeys {
    pub capacity_vru: u64,
    pub vru_size: Option<u64>,
    #[serde(default = "burst_percent")]
    pub burst_percent: u32,
    #[serde(default = "price_ticks_max")]
    pub price_ticks_max: u32,
    #[serde(default = "tick_micro")]
    pub tick_micro: u64,
    #[serde(default = "quantity_max")]
    pub quantity_max: u32,
    pub launch_s: Option<u32>,
    pub expiry_s: Option<u32>,
    pub reserve_milli: Option<u32>,
    pub wealth_percent: Option<u32>,
    pub spent_percent: Option<u32>,
    #[serde(default)]
    pub auction_every_ms: u32,
    pub call_ms: Option<u32>,
}

/// Each has a thread of its own.
const QEMUS_MAX: usize = 1024;

/// `[[qemu]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct QemuKeys {
    pub cgroup: String,
    pub monitor: PathBuf,
}

/// `[[exchange]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in vendued.toml")]
pub struct ExchangeKeys {
    pub from: String,
    pub to: String,
    #[serde(deserialize_with = "resource")]
    pub resource: Resource,
    #[serde(default, deserialize_with = "rate")]
    pub rate: Option<Rate>,
    #[serde(default, deserialize_with = "rate")]
    pub low: Option<Rate>,
    #[serde(default, deserialize_with = "rate")]
    pub high: Option<Rate>,
    #[serde(default)]
    pub every_ms: u32,
    #[serde(default = "step_vru")]
    pub step_vru: u32,
    #[serde(default = "idle_percent")]
    pub idle_percent: u16,
    #[serde(default = "saturated_percent")]
    pub saturated_percent: u16,
    #[serde(default = "looks")]
    pub looks: u16,
    #[serde(default)]
    pub rate_step_percent: u16,
}

fn resource<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Resource, D::Error> {
    let text = String::deserialize(deserializer)?;
    Resource::ALL.iter().copied().find(|resource| resource.text() == text).ok_or_else(|| {
        let all = Resource::ALL.iter().map(|resource| resource.text()).collect::<Vec<_>>();
        serde::de::Error::custom(format!("resource {text:?} is not one of {}", all.join(", ")))
    })
}

fn rate<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Rate>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let (num, den) = text.split_once('/').unwrap_or((&text, "1"));
    match (num.parse(), den.parse()) {
        (Ok(num), Ok(den)) => Ok(Some([num, den])),
        _ => Err(serde::de::Error::custom(format!("rate {text:?} is not one such as \"1/2\""))),
    }
}

fn step_vru() -> u32 {
    10
}

fn idle_percent() -> u16 {
    50
}

fn saturated_percent() -> u16 {
    90
}

fn looks() -> u16 {
    3
}

fn burst_percent() -> u32 {
    400
}

fn price_ticks_max() -> u32 {
    4095
}

fn tick_micro() -> u64 {
    1
}

fn quantity_max() -> u32 {
    10_000_000
}

/// A VRU's size where the tier does not say: millicores, bytes, bytes/s, bits/s, slots.
fn default_vru_size(resource: Resource) -> u64 {
    match resource {
        Resource::Cpu => 10,
        Resource::Memory => 16 << 20,
        Resource::BlockIo => 1 << 20,
        Resource::Network => 1_000_000,
        Resource::Accelerator => 1,
    }
}

/// A configuration's text, to find lines in.
struct Source<'a> {
    origin: String,
    text: &'a str,
}

impl Source<'_> {
    fn wrong(&self, span: &Range<usize>, reason: impl Into<String>) -> ConfigError {
        let line = 1 + self.text[..span.start.min(self.text.len())].matches('\n').count();
        ConfigError::Value { origin: self.origin.clone(), line, reason: reason.into() }
    }

    fn range<T>(&self, name: &str, value: &Spanned<T>, range: Range<T>) -> Result<(), ConfigError>
    where
        T: PartialOrd + std::fmt::Display,
    {
        if range.contains(value.get_ref()) {
            return Ok(());
        }
        let reason = format!(
            "{name} is {}; it must be at least {} and below {}",
            value.get_ref(),
            range.start,
            range.end
        );
        Err(self.wrong(&value.span(), reason))
    }
}

impl Config {
    /// The embedded defaults.
    ///
    /// # Errors
    /// Never, as the tests check; a typed error all the same.
    pub fn embedded() -> Result<Config, ConfigError> {
        Config::parse("embedded defaults", DEFAULT)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or [`Config::parse`] refuses it.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(&path.display().to_string(), &text)
    }

    /// Parses and checks a configuration's text.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(origin: &str, text: &str) -> Result<Config, ConfigError> {
        let refused = |error: toml::de::Error| ConfigError::Parse {
            origin: origin.to_owned(),
            message: error.to_string(),
        };
        let mut config: Config = toml::from_str(text).map_err(refused)?;
        config.table = toml::from_str(text).map_err(refused)?;
        let source = Source { origin: origin.to_owned(), text };
        config.check(&source)?;
        config.check_gateway(&source)?;
        config.check_machine(&source)?;
        Ok(config)
    }

    fn check(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        source.range("machine.tick_ms", &self.machine.tick_ms, 1..10_001)?;
        let segment = &self.journal.segment_bytes;
        source.range("journal.segment_bytes", segment, 16 << 10..(16 << 30) + 1)?;
        let buffer = &self.journal.buffer_bytes;
        source.range("journal.buffer_bytes", buffer, 8 << 10..(64 << 20) + 1)?;
        if !segment.get_ref().is_multiple_of(4096) {
            return Err(
                source.wrong(&segment.span(), "journal.segment_bytes is no multiple of 4096")
            );
        }
        if !buffer.get_ref().is_multiple_of(4096) || *buffer.get_ref() as u64 > *segment.get_ref() {
            let reason = "journal.buffer_bytes must be a multiple of 4096 and at most a segment";
            return Err(source.wrong(&buffer.span(), reason));
        }
        source.range("snapshot.every_records", &self.snapshot.every_records, 1000..1 << 40)?;
        let ring = &self.pipeline.ring_bytes;
        source.range("pipeline.ring_bytes", ring, 256 << 10..(1 << 30) + 1)?;
        if !ring.get_ref().is_power_of_two() {
            return Err(source.wrong(&ring.span(), "pipeline.ring_bytes is no power of two"));
        }
        source.range("host.quantum_ms", &self.host.quantum_ms, 10..60_001)?;
        source.range("host.meter_ms", &self.host.meter_ms, 10..60_001)?;
        let resume = &self.machine.burst_resume_ms;
        if u64::from(*resume.get_ref()) < *self.host.meter_ms.get_ref() {
            let reason = format!(
                "machine.burst_resume_ms is {}, less than host.meter_ms ({}): a burst would use \
                 more than it has in hand before it is first measured",
                resume.get_ref(),
                self.host.meter_ms.get_ref()
            );
            return Err(source.wrong(&resume.span(), reason));
        }
        source.range("host.verify_ms", &self.host.verify_ms, 100..3_600_001)?;
        source.range("host.sense_ms", &self.host.sense_ms, 10..3_600_001)?;
        source.range("forecast.memory_mib", &self.forecast.memory_mib, 1..65_537)?;
        let of_tiers = self.tier.iter().filter_map(|tier| tier.devices.as_ref()).flatten();
        for device in self.host.devices.iter().chain(&self.host.io_cost).chain(of_tiers) {
            if Device::parse(device.get_ref()).is_none() {
                let reason = format!("{:?} is not a device's MAJOR:MINOR", device.get_ref());
                return Err(source.wrong(&device.span(), reason));
            }
        }
        for dir in self.tier.iter().filter_map(|tier| tier.storage.as_ref()) {
            if !dir.get_ref().is_absolute() {
                let reason = format!("storage {:?} is no absolute path", dir.get_ref());
                return Err(source.wrong(&dir.span(), reason));
            }
        }
        for keys in self.tier.iter().filter_map(|tier| tier.instance.as_ref()) {
            if let Err(reason) = keys.get_ref().settings() {
                return Err(source.wrong(&keys.span(), format!("instance: {reason}")));
            }
        }
        Ok(())
    }

    fn check_gateway(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let gateway = &self.gateway;
        source.range("gateway.connections_max", &gateway.connections_max, 1..16_384)?;
        source.range(
            "gateway.outbound_bytes_max",
            &gateway.outbound_bytes_max,
            4096..(1 << 30) + 1,
        )?;
        source.range("gateway.replay_bytes_max", &gateway.replay_bytes_max, 1024..(1 << 30) + 1)?;
        source.range(
            "gateway.shared_ring_bytes_max",
            &gateway.shared_ring_bytes_max,
            4096..(1 << 30) + 1,
        )?;
        source.range("gateway.logon_timeout_ms", &gateway.logon_timeout_ms, 10..600_001)?;
        source.range("gateway.heartbeat_ms_min", &gateway.heartbeat_ms_min, 10..600_001)?;
        let max = &gateway.heartbeat_ms_max;
        source.range(
            "gateway.heartbeat_ms_max",
            max,
            *gateway.heartbeat_ms_min.get_ref()..600_001,
        )?;
        for (name, value) in [
            ("gateway.throttle_per_s", &gateway.throttle_per_s),
            ("gateway.throttle_burst", &gateway.throttle_burst),
            ("gateway.account_throttle_per_s", &gateway.account_throttle_per_s),
            ("gateway.account_throttle_burst", &gateway.account_throttle_burst),
        ] {
            source.range(name, value, 1..1_000_000_001)?;
        }
        if let Some(tcp) = &gateway.tcp
            && !tcp.get_ref().ip().is_loopback()
        {
            let reason = "gateway.tcp must be a loopback address: this transport is not encrypted; \
                          use gateway.tls between hosts";
            return Err(source.wrong(&tcp.span(), reason));
        }
        if let Some(http) = &self.http {
            let (address, most) = (&http.address, 1..65_537);
            if http.tls.is_none() && !address.get_ref().ip().is_loopback() {
                let reason = "http.address must be a loopback address: nothing is encrypted there; \
                              name http.tls to serve other hosts";
                return Err(source.wrong(&address.span(), reason));
            }
            if !most.contains(&http.connections_max) {
                let reason = "http.connections_max must be 1 to 65536";
                return Err(source.wrong(&address.span(), reason));
            }
        }
        self.access.iter().try_for_each(|access| {
            access.get_ref().check().map_err(|reason| source.wrong(&access.span(), reason))
        })
    }

    fn check_machine(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        if let Err(error) = self.genesis().check() {
            let keys = &self.machine;
            let span = match &error {
                BoundsError::Range { name: "accounts_max", .. } => keys.accounts_max.span(),
                BoundsError::Range { name: "instances_max", .. } => keys.instances_max.span(),
                BoundsError::Range { name: "orders_max", .. } => keys.orders_max.span(),
                BoundsError::Range { name: "orders_per_instance_max", .. } => {
                    keys.orders_per_instance_max.span()
                }
                BoundsError::Range { name: "sessions_max", .. } => keys.sessions_max.span(),
                BoundsError::Range { name: "credit_cap_s", .. } => keys.credit_cap_s.span(),
                BoundsError::Range { name: "burst_resume_ms", .. } => keys.burst_resume_ms.span(),
                BoundsError::Range { name: "limit_window_s", .. } => keys.limit_window_s.span(),
                BoundsError::Range { name: "reversible_trades", .. } => {
                    keys.reversible_trades.span()
                }
                BoundsError::Range { name: "leases_max", .. } => keys.leases_max.span(),
                BoundsError::Range { name: "swap_every_ms", .. } => keys.swap_every_ms.span(),
                BoundsError::Range { name: "lease_margin_percent", .. } => {
                    keys.lease_margin_percent.span()
                }
                BoundsError::Range { name: "maker_fee_bps", .. } => keys.maker_fee_bps.span(),
                _ => keys.taker_fee_bps.span(),
            };
            return Err(source.wrong(&span, format!("machine.{error}")));
        }
        if self.tier.is_empty() {
            return Err(source.wrong(&(0..0), "there must be a [[tier]]"));
        }
        for (at, tier) in self.tier.iter().enumerate() {
            let name = tier.name.get_ref();
            let taken = self.tier[..at].iter().any(|other| other.name.get_ref() == name);
            if name.is_empty() || field::<32>(name).is_none() || taken {
                let reason = "tier.name must be unique and of 1 to 32 bytes";
                return Err(source.wrong(&tier.name.span(), reason));
            }
            if tier.resources().next().is_none() {
                return Err(source.wrong(&tier.name.span(), "this tier has no resource"));
            }
            for list in [&tier.cpus, &tier.nodes].into_iter().flatten() {
                let plain = |byte: u8| byte.is_ascii_digit() || byte == b',' || byte == b'-';
                if list.get_ref().is_empty() || !list.get_ref().bytes().all(plain) {
                    let reason = "cpus and nodes of a tier are lists such as \"0-3,8\"";
                    return Err(source.wrong(&list.span(), reason));
                }
            }
            let before = at.checked_sub(1).map(|before| &self.tier[before]);
            if tier.spare && before.is_none() || !tier.spare && before.is_some_and(|t| t.spare) {
                let reason = "spare tiers come last, after at least one that is not";
                return Err(source.wrong(&tier.name.span(), reason));
            }
        }
        for (span, book) in self.spanned_books() {
            book.check().map_err(|error| source.wrong(&span, error.to_string()))?;
        }
        for ((span, _), credits) in self.spanned_books().iter().zip(self.credits()) {
            credits.check().map_err(|error| source.wrong(span, error.to_string()))?;
        }
        self.check_partitions(source)?;
        self.check_qemus(source)?;
        self.check_exchanges(source)
    }

    /// What one tier has alone no other may have, so all must say where they run.
    fn check_partitions(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let cpus = |tier: &TierKeys| parse_list(tier.cpus.as_ref()?.get_ref());
        for tier in &self.tier {
            let Some(partition) = &tier.partition else { continue };
            let own = cpus(tier).unwrap_or_default();
            let others = || self.tier.iter().filter(|other| other.name != tier.name);
            let reason = if self.tier.iter().any(|tier| cpus(tier).is_none()) {
                "partition: where a tier has its processors alone, every tier names its cpus"
            } else if others().filter_map(cpus).any(|other| !other.is_disjoint(&own)) {
                "partition: another tier has some of these cpus too"
            } else {
                continue;
            };
            return Err(source.wrong(&partition.span(), reason));
        }
        Ok(())
    }

    fn check_qemus(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        for (at, spanned) in self.qemu.iter().enumerate() {
            let keys = spanned.get_ref();
            let same = |other: &Spanned<QemuKeys>| {
                let other = other.get_ref();
                other.cgroup == keys.cgroup || other.monitor == keys.monitor
            };
            let reason = if at >= QEMUS_MAX {
                format!("there are more than {QEMUS_MAX} [[qemu]]")
            } else if !keys.cgroup.starts_with('/') || !keys.monitor.is_absolute() {
                "cgroup and monitor of a [[qemu]] are absolute paths".to_owned()
            } else if self.qemu[..at].iter().any(same) {
                "each cgroup and each monitor is of one [[qemu]]".to_owned()
            } else {
                continue;
            };
            return Err(source.wrong(&spanned.span(), reason));
        }
        Ok(())
    }

    /// By the place of their instances, the monitors of QEMUs.
    pub fn monitors(&self) -> BTreeMap<String, PathBuf> {
        let pair = |keys: &Spanned<QemuKeys>| {
            let keys = keys.get_ref();
            (keys.cgroup.clone(), keys.monitor.clone())
        };
        self.qemu.iter().map(pair).collect()
    }

    fn check_exchanges(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        for (at, spanned) in self.exchange.iter().enumerate() {
            let (span, keys) = (spanned.span(), spanned.get_ref());
            let same = |other: &Spanned<ExchangeKeys>| {
                let other = other.get_ref();
                (&other.from, &other.to, other.resource) == (&keys.from, &keys.to, keys.resource)
            };
            for name in [&keys.from, &keys.to] {
                let has = |tier: &TierKeys| {
                    tier.name.get_ref() == name
                        && !tier.spare
                        && tier.resources().any(|(resource, _)| resource == keys.resource)
                };
                if !self.tier.iter().any(has) {
                    let reason = format!("there is no [[tier]] {name:?} with {}", keys.resource);
                    return Err(source.wrong(&span, reason));
                }
            }
            if keys.from == keys.to || self.exchange[..at].iter().any(same) {
                let reason = "an [[exchange]] is between two tiers, and there is one of each";
                return Err(source.wrong(&span, reason));
            }
            if at >= EXCHANGES_MAX {
                let reason = format!("there are more than {EXCHANGES_MAX} [[exchange]]");
                return Err(source.wrong(&span, reason));
            }
            let checked = self.definition(keys).check();
            checked.map_err(|error| source.wrong(&span, error.to_string()))?;
        }
        Ok(())
    }

    /// The hardware of tiers that are not to run everywhere.
    pub fn hardware(&self) -> BTreeMap<u16, Hardware> {
        let list = |keys: &Option<Spanned<String>>| {
            keys.as_ref().map(|list| list.get_ref().clone()).unwrap_or_default()
        };
        let of = |(tier, keys): (usize, &TierKeys)| {
            let own = match keys.partition.as_ref().map(|key| *key.get_ref()) {
                None => Own::Shared,
                Some(PartitionKey::Root) => Own::Root,
                Some(PartitionKey::Isolated) => Own::Isolated,
            };
            let hardware = Hardware { cpus: list(&keys.cpus), nodes: list(&keys.nodes), own };
            (hardware != Hardware::default()).then_some((tier as u16, hardware))
        };
        self.tier.iter().enumerate().filter_map(of).collect()
    }

    /// The tiers that place their instances, each with the list of its processors.
    pub fn placing(&self) -> BTreeMap<u16, String> {
        let list = |keys: &TierKeys| {
            keys.cpus.as_ref().map(|list| list.get_ref().clone()).unwrap_or_default()
        };
        let placing = self.tier.iter().enumerate().filter(|(_, keys)| keys.placement);
        placing.map(|(tier, keys)| (tier as u16, list(keys))).collect()
    }

    /// What the instances of tiers are set to, whatever they are entitled to.
    pub fn settings(&self) -> BTreeMap<u16, Vec<(Knob, Setting)>> {
        let of = |(tier, keys): (usize, &TierKeys)| {
            let settings = keys.instance.as_ref()?.get_ref().settings().ok()?;
            Some((tier as u16, settings))
        };
        self.tier.iter().enumerate().filter_map(of).collect()
    }

    /// Block devices whose time is weighed.
    pub fn io_cost(&self) -> Vec<Device> {
        self.host.io_cost.iter().filter_map(|text| Device::parse(text.get_ref())).collect()
    }

    /// By tier, the block devices that its instances' `io.max` governs.
    pub fn devices(&self) -> Vec<Vec<Device>> {
        let own = |tier: &TierKeys| {
            let named = tier.devices.as_ref().unwrap_or(&self.host.devices);
            named.iter().filter_map(|text| Device::parse(text.get_ref())).collect()
        };
        self.tier.iter().map(own).collect()
    }

    /// By tier, where disks of its storage class are.
    pub fn storage(&self) -> Vec<Option<PathBuf>> {
        let dir = |tier: &TierKeys| tier.storage.as_ref().map(|dir| dir.get_ref().clone());
        self.tier.iter().map(dir).collect()
    }

    /// Which tiers are spare, as a record of the journal holds it, if some are.
    pub fn spare_tiers(&self) -> Option<SpareTiers> {
        let from = self.tier.iter().position(|tier| tier.spare)?;
        Some(SpareTiers { from: (from as u16).into() })
    }

    /// The exchanges between tiers, as the journal's next records hold them.
    pub fn exchanges(&self) -> Vec<DefineExchange> {
        self.exchange.iter().map(|keys| self.definition(keys.get_ref())).collect()
    }

    fn definition(&self, keys: &ExchangeKeys) -> DefineExchange {
        let number = |name: &String| {
            let at = self.tier.iter().position(|tier| tier.name.get_ref() == name);
            at.unwrap_or_default() as u16
        };
        let (from, to) = (number(&keys.from), number(&keys.to));
        let usual = Exchange::usual(from, to, keys.resource);
        DefineExchange {
            rate: keys.rate.unwrap_or(usual.rate).map(U32::new),
            low: keys.low.unwrap_or(usual.low).map(U32::new),
            high: keys.high.unwrap_or(usual.high).map(U32::new),
            every_ms: keys.every_ms.into(),
            step_vru: keys.step_vru.into(),
            idle_percent: keys.idle_percent.into(),
            saturated_percent: keys.saturated_percent.into(),
            looks: keys.looks.into(),
            rate_step_percent: keys.rate_step_percent.into(),
            from: from.into(),
            to: to.into(),
            resource: keys.resource as u8,
            reserved: [0; 3],
        }
    }

    /// The machine's bounds, as the journal's first record holds them.
    pub fn genesis(&self) -> Genesis {
        let keys = &self.machine;
        Genesis {
            accounts_max: (*keys.accounts_max.get_ref()).into(),
            instances_max: (*keys.instances_max.get_ref()).into(),
            orders_max: (*keys.orders_max.get_ref()).into(),
            orders_per_instance_max: (*keys.orders_per_instance_max.get_ref()).into(),
            sessions_max: (*keys.sessions_max.get_ref()).into(),
            credit_cap_s: (*keys.credit_cap_s.get_ref()).into(),
            burst_resume_ms: (*keys.burst_resume_ms.get_ref()).into(),
            limit_window_s: (*keys.limit_window_s.get_ref()).into(),
            reversible_trades: (*keys.reversible_trades.get_ref()).into(),
            leases_max: (*keys.leases_max.get_ref()).into(),
            swap_every_ms: (*keys.swap_every_ms.get_ref()).into(),
            lease_margin_percent: (*keys.lease_margin_percent.get_ref()).into(),
            maker_fee_bps: (*keys.maker_fee_bps.get_ref()).into(),
            taker_fee_bps: (*keys.taker_fee_bps.get_ref()).into(),
        }
    }

    /// The books, as the journal's next records hold them.
    pub fn books(&self) -> Vec<DefineBook> {
        self.spanned_books().into_iter().map(|(_, book)| book).collect()
    }

    /// What each book's credits are worth.
    pub fn credits(&self) -> Vec<DefineCredits> {
        let tier = |(tier, keys): (usize, &TierKeys)| {
            let rules = |(resource, book): (Resource, &Spanned<BookKeys>)| {
                book.get_ref().credits(tier as u16, resource as u8)
            };
            keys.resources().map(rules).collect::<Vec<_>>()
        };
        self.tier.iter().enumerate().flat_map(tier).collect()
    }

    /// Those of [`Config::credits`] that a journal has to say, because they are not the usual.
    pub fn unusual_credits(&self) -> Vec<DefineCredits> {
        let usual = |rules: &DefineCredits| {
            *rules == DefineCredits::usual(rules.tier.get(), rules.resource)
        };
        self.credits().into_iter().filter(|rules| !usual(rules)).collect()
    }

    fn spanned_books(&self) -> Vec<(Range<usize>, DefineBook)> {
        let mut books = Vec::new();
        for (tier, keys) in self.tier.iter().enumerate() {
            for (resource, spanned) in keys.resources() {
                let book = spanned.get_ref();
                let size = book.vru_size.unwrap_or_else(|| default_vru_size(resource));
                let message = DefineBook {
                    vru_size: size.into(),
                    capacity_vru: book.capacity_vru.into(),
                    tick_micro: book.tick_micro.into(),
                    price_ticks_max: book.price_ticks_max.into(),
                    quantity_max: book.quantity_max.into(),
                    burst_percent: book.burst_percent.into(),
                    auction_every_ms: book.auction_every_ms.into(),
                    call_ms: book.call_ms.unwrap_or(book.auction_every_ms).into(),
                    tier: (tier as u16).into(),
                    resource: resource as u8,
                    reserved: 0,
                    name: field(keys.name.get_ref()).unwrap_or_default(),
                };
                books.push((spanned.span(), message));
            }
        }
        books
    }
}

impl BookKeys {
    fn credits(&self, tier: u16, resource: u8) -> DefineCredits {
        let mut rules = DefineCredits::usual(tier, resource);
        let keys = [
            (&mut rules.launch_s, self.launch_s),
            (&mut rules.expiry_s, self.expiry_s),
            (&mut rules.reserve_milli, self.reserve_milli),
            (&mut rules.wealth_percent, self.wealth_percent),
            (&mut rules.spent_percent, self.spent_percent),
        ];
        for (rule, value) in keys {
            if let Some(value) = value {
                *rule = value.into();
            }
        }
        rules
    }
}

impl AccessKeys {
    fn check(&self) -> Result<(), &'static str> {
        let proofs = [self.uid.is_some(), self.token_file.is_some(), self.certificate.is_some()];
        if proofs.iter().filter(|&&given| given).count() != 1 {
            return Err("[[access]] needs one of uid, token_file and certificate");
        }
        if self.role == Role::Operator && self.account.is_some() {
            return Err("[[access]] of an operator takes no account: operators act for all");
        }
        // An instance's number is given out again when it is removed, an account's is not.
        if self.instance.is_some() && (self.role != Role::Agent || self.account.is_none()) {
            return Err("[[access]] with an instance must be an agent's and name its account");
        }
        Ok(())
    }
}

impl TierKeys {
    fn resources(&self) -> impl Iterator<Item = (Resource, &Spanned<BookKeys>)> {
        let keys = [&self.cpu, &self.memory, &self.block_io, &self.network, &self.accelerator];
        Resource::ALL.iter().copied().zip(keys).filter_map(|(r, book)| Some((r, book.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_defaults_are_valid() {
        let config = Config::embedded().expect("embedded defaults");
        assert_eq!(config.tier.len(), 4);
    }

    #[test]
    fn a_tier_has_its_own_devices_or_the_hosts() {
        let text = DEFAULT.replacen("devices = []", "devices = [\"8:0\"]", 1);
        let own = "name = \"bronze\"\ndevices = [\"259:1\", \"259:2\"]";
        let text = text.replacen("name = \"bronze\"", own, 1);
        let config = Config::parse("x.toml", &text).expect("valid");
        let device = |major, minor| Device { major, minor };
        let devices = config.devices();
        assert_eq!(devices[0], [device(259, 1), device(259, 2)]);
        assert_eq!(devices[1..], [[device(8, 0)], [device(8, 0)], [device(8, 0)]]);

        let error = Config::parse("x.toml", &text.replacen("259:2", "nvme0n1", 1)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("nvme0n1") && error.contains("line"), "{error}");
    }

    #[test]
    fn storage_is_somewhere_wherever_the_daemon_was_started() {
        let with = |dir: &str| {
            let gold = format!("name = \"gold\"\nstorage = \"{dir}\"");
            Config::parse("x.toml", &DEFAULT.replacen("name = \"gold\"", &gold, 1))
        };
        let gold = Some(PathBuf::from("/mnt/gold"));
        assert_eq!(with("/mnt/gold").expect("valid").storage(), [None, None, gold, None]);
        let error = with("gold").unwrap_err().to_string();
        assert!(error.contains("absolute") && error.contains("line"), "{error}");
    }

    #[test]
    fn what_one_tier_has_alone_no_other_has() {
        let tier = |name: &str, keys: &str| {
            format!("[[tier]]\nname = \"{name}\"\n{keys}\ncpu = {{ capacity_vru = 100 }}\n")
        };
        let head = &DEFAULT[..DEFAULT.find("\n[[tier]]").expect("tiers come last")];
        let with = |one: &str, two: &str| {
            Config::parse("x.toml", &format!("{head}\n{}{}", tier("one", one), tier("two", two)))
        };
        let own = "cpus = \"0-3\"\npartition = \"isolated\"";
        let hardware = with(own, "cpus = \"4\"").expect("valid").hardware();
        assert_eq!((hardware[&0].own, hardware[&1].own), (Own::Isolated, Own::Shared));
        for (one, two, reason) in [
            (own, "cpus = \"2-5\"", "another tier has some"),
            (own, "", "every tier names"),
            ("partition = \"root\"", "cpus = \"1\"", "every tier names"),
        ] {
            let error = with(one, two).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("line"), "{one}, {two}: {error}");
        }
    }

    #[test]
    fn what_a_tiers_instances_are_set_to_is_checked() {
        let with = |keys: &str| {
            let own = format!("name = \"bronze\"\ninstance = {{ {keys} }}");
            Config::parse("x.toml", &DEFAULT.replacen("name = \"bronze\"", &own, 1))
        };
        let keys = "pids-max = 64, swap-max-mib = 3, uclamp-max = \"12.5\", io-weight = 7";
        let settings = with(keys).expect("valid").settings();
        let texts = settings[&0].iter().map(|(knob, to)| format!("{} {to}", knob.file()));
        assert_eq!(
            texts.collect::<Vec<_>>(),
            ["cpu.uclamp.max 12.50", "memory.swap.max 3145728", "io.weight 7", "pids.max 64"]
        );
        assert_eq!(settings.len(), 1);
        let text = DEFAULT.replacen("name = \"gold\"", "name = \"gold\"\nplacement = true", 1);
        let placing = Config::parse("x.toml", &text).expect("valid").placing();
        assert_eq!(placing, [(2, String::new())].into());
        for wrong in [
            "pids-max = 0",
            "cpu-burst-percent = 101",
            "io-weight = 0",
            "io-weight = 10001",
            "uclamp-min = \"100.01\"",
            "uclamp-min = \"x\"",
            "swap-max-mib = 9000000000000",
        ] {
            let error = with(wrong).unwrap_err().to_string();
            assert!(error.contains("instance: ") && error.contains("line"), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_instance_has_one_qemu_and_a_qemu_one_instance() {
        let qemu = |cgroup: &str, monitor: &str| {
            format!("[[qemu]]\ncgroup = \"{cgroup}\"\nmonitor = \"{monitor}\"\n")
        };
        let parse =
            |qemus: &[String]| Config::parse("x.toml", &format!("{DEFAULT}\n{}", qemus.concat()));
        let config = parse(&[qemu("/a", "/run/a"), qemu("/b", "/run/b")]).expect("valid");
        assert_eq!(config.monitors()["/b"], PathBuf::from("/run/b"));
        for (wrong, part) in [
            ([qemu("/a", "/run/a"), qemu("/a", "/run/b")], "one [[qemu]]"),
            ([qemu("/a", "/run/a"), qemu("/b", "/run/a")], "one [[qemu]]"),
            ([qemu("/a", "/run/a"), qemu("b", "/run/b")], "absolute"),
            ([qemu("/a", "/run/a"), qemu("/b", "run/b")], "absolute"),
        ] {
            let error = parse(&wrong).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("line"), "{error}");
        }
    }

    /// A wrong value, an unknown key and a missing one are refused with the line they stand on.
    #[test]
    fn refusals_name_the_line() {
        let wrong = DEFAULT.replacen("tick_ms = 100", "tick_ms = 0", 1);
        let line = 1 + wrong[..wrong.find("tick_ms = 0").unwrap()].matches('\n').count();
        let error = Config::parse("x.toml", &wrong).unwrap_err().to_string();
        assert!(error.contains(&format!("line {line}")) && error.contains("tick_ms"), "{error}");

        let wrong = DEFAULT.replacen("tick_ms", "tock_ms", 1);
        let error = Config::parse("x.toml", &wrong).unwrap_err().to_string();
        assert!(error.contains("tock_ms") && error.contains("line"), "{error}");

        let wrong =
            DEFAULT.replacen("orders_per_instance_max = ", "orders_per_instance_max = 9", 1);
        let error = Config::parse("x.toml", &wrong).unwrap_err().to_string();
        assert!(error.contains("orders_per_instance_max"), "{error}");

        let wrong = DEFAULT.replacen("burst_resume_ms = 5000", "burst_resume_ms = 999", 1);
        let line = 1 + wrong[..wrong.find("burst_resume_ms = 999").unwrap()].matches('\n').count();
        let error = Config::parse("x.toml", &wrong).unwrap_err().to_string();
        assert!(error.contains(&format!("line {line}")) && error.contains("meter_ms"), "{error}");

        let wrong = DEFAULT.replacen("# tcp = \"127.0.0.1:7411\"", "tcp = \"10.0.0.1:7411\"", 1);
        let error = Config::parse("x.toml", &wrong).unwrap_err().to_string();
        assert!(error.contains("loopback"), "{error}");

        let wrong = DEFAULT.replacen("wait = \"park\"", "wait = \"sleep\"", 1);
        let error = Config::parse("x.toml", &wrong).unwrap_err().to_string();
        assert!(error.contains("sleep") && error.contains("line"), "{error}");
    }
}
