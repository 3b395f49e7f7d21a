//! Every command that may ever be sent to a QEMU. Nothing else can be: there is no way to send text.

use serde::Serialize;

/// A command and its arguments, as QMP spells them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(
    tag = "execute",
    content = "arguments",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Command {
    /// Ends the negotiation; the session sends it by itself.
    #[serde(rename = "qmp_capabilities")]
    Capabilities,
    /// Does the guest run?
    QueryStatus,
    /// Lets the guest's processors stand still.
    Stop,
    /// Lets them go on.
    Cont,
    /// The processors and their threads.
    QueryCpusFast,
    /// The places for processors, taken and free.
    QueryHotpluggableCpus,
    /// Plugs a processor into a free place.
    #[serde(rename = "device_add")]
    PlugVcpu(VcpuDevice),
    /// Asks the guest to give a processor back.
    #[serde(rename = "device_del")]
    UnplugVcpu {
        /// The processor's id or QOM path.
        id: String,
    },
    /// Memory at start and plugged later.
    QueryMemorySizeSummary,
    /// The memory devices.
    QueryMemoryDevices,
    /// Asks a virtio-mem device for a size.
    #[serde(rename = "qom-set")]
    ResizeVirtioMem {
        /// The device's id.
        path: String,
        /// Always this one.
        property: RequestedSize,
        /// Bytes.
        value: u64,
    },
    /// Memory that the balloon leaves to the guest.
    QueryBalloon,
    /// Asks the balloon to leave this much.
    Balloon {
        /// Bytes.
        value: u64,
    },
    /// The disks.
    QueryBlock,
    /// Limits a disk.
    #[serde(rename = "block_set_io_throttle")]
    Throttle(ThrottleLimits),
    /// Makes a file; a job.
    BlockdevCreate {
        /// Name of the job.
        job_id: String,
        /// What to make.
        options: NewFile,
    },
    /// Opens a file.
    BlockdevAdd(RawNode),
    /// Closes a file that no disk uses.
    BlockdevDel {
        /// Node.
        node_name: String,
    },
    /// Copies a disk while it is in use; a job.
    BlockdevMirror(MirrorJob),
    /// Lets a disk go over to the copy.
    JobComplete {
        /// Job.
        id: String,
    },
    /// Gives a job up.
    BlockJobCancel {
        /// Job.
        device: String,
        /// True: do not even go over to a copy that is ready.
        force: bool,
    },
    /// Jobs, also ended ones.
    QueryJobs,
    /// Forgets an ended job.
    JobDismiss {
        /// Job.
        id: String,
    },
    /// Bounds of a migration.
    MigrateSetParameters {
        /// Bytes a second; 0 for no bound.
        max_bandwidth: u64,
        /// How long the guest may stand still at the end, in ms.
        downtime_limit: u64,
    },
    /// Sends the guest away.
    Migrate {
        /// `unix:PATH`.
        uri: String,
    },
    /// Waits for a guest to come.
    MigrateIncoming {
        /// `unix:PATH`.
        uri: String,
    },
    /// How the migration goes.
    QueryMigrate,
    /// Gives it up.
    #[serde(rename = "migrate_cancel")]
    MigrateCancel,
}

/// A processor to plug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VcpuDevice {
    /// QEMU's name of this kind of processor; [`super::vcpu`] takes only what ends in `-cpu`.
    pub driver: String,
    /// Its id from now on.
    pub id: String,
    /// Where it goes.
    #[serde(flatten)]
    pub place: super::reply::VcpuPlace,
}

/// The one property that is ever set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestedSize {
    /// Of a virtio-mem device.
    RequestedSize,
}

/// Limits of a disk, all of which QEMU wants to be told; 0 for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThrottleLimits {
    /// The disk's device.
    pub id: String,
    /// Bytes a second.
    pub bps: u64,
    /// Bytes read a second.
    pub bps_rd: u64,
    /// Bytes written a second.
    pub bps_wr: u64,
    /// Operations a second.
    pub iops: u64,
    /// Reads a second.
    pub iops_rd: u64,
    /// Writes a second.
    pub iops_wr: u64,
}

/// A file that QEMU makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "driver", rename = "file")]
pub struct NewFile {
    /// Absolute path.
    pub filename: String,
    /// Bytes.
    pub size: u64,
}

/// A raw image in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "driver", rename = "raw", rename_all = "kebab-case")]
pub struct RawNode {
    /// Its name from now on.
    pub node_name: String,
    /// Where it is.
    pub file: FileNode,
    /// Past the host's page cache or not.
    pub cache: CacheMode,
    /// Freed blocks are freed in the file too.
    pub discard: Discard,
}

/// A file of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "driver", rename = "file")]
pub struct FileNode {
    /// Absolute path.
    pub filename: String,
    /// As the image's.
    pub cache: CacheMode,
    /// As the image's.
    pub discard: Discard,
}

/// How the host caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CacheMode {
    /// `O_DIRECT`.
    pub direct: bool,
    /// Flushes are ignored.
    pub no_flush: bool,
}

/// What becomes of blocks that are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discard {
    /// They are given back to the host.
    Unmap,
}

/// A mirror to start. An error on either side ends it and the disk stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MirrorJob {
    /// Name of the job.
    pub job_id: String,
    /// The disk's node.
    pub device: String,
    /// The copy's node.
    pub target: String,
    /// Bytes a second; 0 for no bound.
    pub speed: u64,
    /// What is copied.
    pub sync: Sync,
    /// How what the guest writes meanwhile gets there.
    pub copy_mode: CopyMode,
    /// False: an ended job stays until it was asked how it ended.
    pub auto_dismiss: bool,
}

/// What a mirror copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// Everything.
    Full,
}

/// How a mirror keeps up with a guest that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyMode {
    /// Each write of the guest goes to both: slower for the guest, but the end is sure to come.
    WriteBlocking,
}

impl Command {
    /// The command's name, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Capabilities => "qmp_capabilities",
            Command::QueryStatus => "query-status",
            Command::Stop => "stop",
            Command::Cont => "cont",
            Command::QueryCpusFast => "query-cpus-fast",
            Command::QueryHotpluggableCpus => "query-hotpluggable-cpus",
            Command::PlugVcpu(_) => "device_add",
            Command::UnplugVcpu { .. } => "device_del",
            Command::QueryMemorySizeSummary => "query-memory-size-summary",
            Command::QueryMemoryDevices => "query-memory-devices",
            Command::ResizeVirtioMem { .. } => "qom-set",
            Command::QueryBalloon => "query-balloon",
            Command::Balloon { .. } => "balloon",
            Command::QueryBlock => "query-block",
            Command::Throttle(_) => "block_set_io_throttle",
            Command::BlockdevCreate { .. } => "blockdev-create",
            Command::BlockdevAdd(_) => "blockdev-add",
            Command::BlockdevDel { .. } => "blockdev-del",
            Command::BlockdevMirror(_) => "blockdev-mirror",
            Command::JobComplete { .. } => "job-complete",
            Command::BlockJobCancel { .. } => "block-job-cancel",
            Command::QueryJobs => "query-jobs",
            Command::JobDismiss { .. } => "job-dismiss",
            Command::MigrateSetParameters { .. } => "migrate-set-parameters",
            Command::Migrate { .. } => "migrate",
            Command::MigrateIncoming { .. } => "migrate-incoming",
            Command::QueryMigrate => "query-migrate",
            Command::MigrateCancel => "migrate_cancel",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, to_value};

    #[test]
    fn commands_are_spelt_as_qemu_reads_them() {
        let said = |command: Command| {
            let value = to_value(&command).unwrap();
            assert_eq!(value["execute"], command.name());
            value["arguments"].clone()
        };
        assert_eq!(said(Command::QueryCpusFast), json!(null));
        assert_eq!(said(Command::Capabilities), json!(null));
        assert_eq!(
            said(Command::ResizeVirtioMem {
                path: "vm0".to_owned(),
                property: RequestedSize::RequestedSize,
                value: 5
            }),
            json!({ "path": "vm0", "property": "requested-size", "value": 5 })
        );
        assert_eq!(
            said(Command::BlockJobCancel { device: "j".to_owned(), force: true }),
            json!({ "device": "j", "force": true })
        );
        assert_eq!(
            said(Command::BlockdevCreate {
                job_id: "j".to_owned(),
                options: NewFile { filename: "/f".to_owned(), size: 1 },
            }),
            json!({ "job-id": "j", "options": { "driver": "file", "filename": "/f", "size": 1 } })
        );
        let cache = CacheMode { direct: false, no_flush: true };
        let file = FileNode { filename: "/f".to_owned(), cache, discard: Discard::Unmap };
        let node = RawNode { node_name: "n".to_owned(), file, cache, discard: Discard::Unmap };
        let cache = json!({ "direct": false, "no-flush": true });
        assert_eq!(
            said(Command::BlockdevAdd(node)),
            json!({
                "driver": "raw", "node-name": "n", "discard": "unmap", "cache": cache,
                "file": { "driver": "file", "filename": "/f", "discard": "unmap", "cache": cache },
            })
        );
    }
}
