//! What is read of QEMU's answers. Fields that nobody here uses are skipped.

use serde::{Deserialize, Serialize};

/// What a monitor says first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Greeting {
    /// Of QEMU.
    pub version: Version,
}

/// Versions of QEMU and its package.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// Of QEMU.
    pub qemu: QemuVersion,
}

/// A version's three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct QemuVersion {
    /// First.
    pub major: u32,
    /// Second.
    pub minor: u32,
    /// Third.
    pub micro: u32,
}

/// Of commands that only do something.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Nothing {}

/// Of `query-status`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// The guest's processors run.
    pub running: bool,
    /// QEMU's word for its state.
    pub status: String,
}

/// Of `query-cpus-fast`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CpuFast {
    /// Number of the processor.
    pub cpu_index: u32,
    /// Thread that runs it.
    pub thread_id: u32,
}

/// Of `query-hotpluggable-cpus`: a place for a processor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HotpluggableCpu {
    /// Kind of processor that fits.
    pub r#type: String,
    /// Processors that come at once.
    pub vcpus_count: u32,
    /// Where it is.
    pub props: VcpuPlace,
    /// The processor, if one is there.
    pub qom_path: Option<String>,
}

/// Where a processor sits. Sent back as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct VcpuPlace {
    /// NUMA node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<u32>,
    /// Socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_id: Option<u32>,
    /// Die.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub die_id: Option<u32>,
    /// Cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<u32>,
    /// Module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_id: Option<u32>,
    /// Core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_id: Option<u32>,
    /// Thread of the core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<u32>,
}

/// Of `query-memory-size-summary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemorySize {
    /// Bytes at start.
    pub base_memory: u64,
    /// Bytes plugged since; absent where nothing can be.
    pub plugged_memory: Option<u64>,
}

/// Of `query-memory-devices`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MemoryDevice {
    /// Its kind; `virtio-mem` is one that can be resized.
    pub r#type: String,
    /// A [`VirtioMem`], if it is one.
    pub data: serde_json::Value,
}

/// A virtio-mem device; all sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VirtioMem {
    /// Its id, if it was given one.
    pub id: Option<String>,
    /// Sizes are multiples of this.
    pub block_size: u64,
    /// Most it can hold.
    pub max_size: u64,
    /// What it was last asked to hold.
    pub requested_size: u64,
    /// What the guest has plugged.
    #[serde(rename = "size")]
    pub plugged_size: u64,
}

/// Of `query-balloon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Balloon {
    /// Bytes that the guest has.
    pub actual: u64,
}

/// Of `query-block`: a drive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BlockDevice {
    /// Name of an old-style drive, or empty.
    pub device: String,
    /// QOM path or id of the guest's device.
    pub qdev: Option<String>,
    /// What is in it.
    pub inserted: Option<Medium>,
}

/// What is in a drive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Medium {
    /// Node of its image.
    #[serde(rename = "node-name")]
    pub node_name: Option<String>,
    /// Format.
    pub drv: String,
    /// File as QEMU opened it.
    pub file: String,
    /// True if it cannot be written.
    pub ro: bool,
    /// The image in it.
    pub image: Image,
    /// How the host caches it.
    pub cache: Cache,
    /// Limit, bytes a second; 0 for none.
    pub bps: u64,
    /// Limit of reads.
    pub bps_rd: u64,
    /// Limit of writes.
    pub bps_wr: u64,
    /// Limit, operations a second; 0 for none.
    pub iops: u64,
    /// Limit of reads.
    pub iops_rd: u64,
    /// Limit of writes.
    pub iops_wr: u64,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Image {
    /// Bytes that the guest sees.
    pub virtual_size: u64,
}

/// How the host caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cache {
    /// `O_DIRECT`.
    pub direct: bool,
    /// Flushes are ignored.
    pub no_flush: bool,
}

/// Of `query-jobs`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Job {
    /// Its name.
    pub id: String,
    /// How it is.
    pub status: JobStatus,
    /// Done so far, in units of its own: bytes for a mirror.
    pub current_progress: u64,
    /// Estimate of all that is to do.
    pub total_progress: u64,
    /// Why it failed, once it has ended.
    pub error: Option<String>,
}

/// How a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobStatus {
    /// A mirror whose copy is complete.
    Ready,
    /// Ended, well or not.
    Concluded,
    /// On its way, in any of a number of states.
    #[serde(other)]
    Underway,
}

/// Of `query-migrate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Migration {
    /// How it is; absent if there was none.
    pub status: Option<MigrationStatus>,
    /// Memory sent, from when sending began.
    pub ram: Option<MigratedRam>,
    /// Ms that the guest stood still; once it has ended.
    pub downtime: Option<u64>,
    /// Why it failed.
    pub error_desc: Option<String>,
}

/// How a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationStatus {
    /// The guest is over there.
    Completed,
    /// It is not and will not be.
    Failed,
    /// It was given up.
    Cancelled,
    /// On its way, in any of a number of states.
    #[serde(other)]
    Underway,
}

/// Memory of a migration, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct MigratedRam {
    /// Sent.
    pub transferred: u64,
    /// Not yet.
    pub remaining: u64,
}
