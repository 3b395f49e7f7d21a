//! `hvctl qemu`: a QEMU's processors, memory and disks, by its monitor. Speaks to QEMU, not to
//! vendued.

use super::alarm::Alarm;
use super::door::Trouble;
use super::output::Output;
use super::table::{left, right};
use clap::Subcommand;
use hvctl::qmp::migrate::{self, Arrived};
use hvctl::qmp::monitor::PATIENCE;
use hvctl::qmp::throttle::{self, Disk, Throttle};
use hvctl::qmp::vcpu::{self, VcpuThread};
use hvctl::qmp::{Go, Monitor, Outcome, Progress, QmpError, memory, mirror, power};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;
/// Between two lines of progress.
const TELL: Duration = Duration::from_secs(1);

/// Which QEMU.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Start QEMU with `-qmp unix:SOCKET,server=on,wait=off` for this alone: a monitor serves one client at \
a time, and one that libvirt or a shell holds gives no greeting.

What is printed was read back from QEMU after the change. With --json a change is one object: \
`outcome` is applied, partial, refused or timed-out, `value` what was read back, `why` what is \
missing. Exit code 1 unless it was applied.

Sizes are bytes, or have a suffix K, M, G or T of 1024.")]
pub struct QemuCommand {
    /// QEMU's monitor
    #[arg(long, value_name = "SOCKET")]
    qmp: PathBuf,
    #[command(subcommand)]
    action: Action,
}

/// What to see or to change.
#[derive(Debug, Subcommand)]
enum Action {
    /// Show state, processors, memory and disks
    Status,
    /// Show the processors' threads, or plug and unplug until there are so many
    Vcpus {
        /// Processors; those that were there from the start stay
        count: Option<u32>,
        /// How long the guest may take to give processors back, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        patience: u32,
    },
    /// Show memory, or resize it
    Memory {
        /// What a virtio-mem device should hold
        #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
        plugged: Option<u64>,
        /// Which virtio-mem device, if there are several
        #[arg(long, value_name = "ID", requires = "plugged")]
        device: Option<String>,
        /// What the balloon should leave to the guest
        #[arg(long, value_name = "SIZE", value_parser = parse_bytes, conflicts_with = "plugged")]
        balloon: Option<u64>,
        /// How long the guest may take, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        patience: u32,
    },
    /// Limit a disk, reads and writes together; without limits, free it
    Throttle {
        /// The disk, as `status` shows it
        disk: String,
        /// Bytes a second; 0 for no limit
        #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "0")]
        bytes_per_s: u64,
        /// Operations a second; 0 for no limit
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        operations_per_s: u64,
    },
    /// Let the guest stand still
    Pause,
    /// Let it go on
    Resume,
    /// Move a disk to another file while the guest uses it
    #[command(after_help = "\
The new file is a raw image that QEMU makes. When the copy is complete the disk goes over and the old \
file is closed, not removed. Whatever fails before, Ctrl-C or the end of --patience, and the disk \
stays where it was and the new file is removed.")]
    Mirror {
        /// The disk, as `status` shows it
        disk: String,
        /// Absolute path of the new file, which must not exist
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Bytes copied a second; 0 for as fast as it goes
        #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "0")]
        bytes_per_s: u64,
        /// How long it may take, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        patience: u32,
    },
    /// Send the guest to another QEMU on this host, without stopping it for long
    #[command(after_help = "\
The other QEMU has the same machine, processors, memory and disks (plugged processors as `-device`), \
and was started with `-incoming defer`. Whatever fails, Ctrl-C or the end of --patience, and the guest \
stays where it was. It never runs in both.")]
    Migrate {
        /// The other QEMU's monitor
        #[arg(long, value_name = "SOCKET")]
        to: PathBuf,
        /// Absolute path of a socket to send it through, which the other QEMU makes
        #[arg(long, value_name = "SOCKET")]
        through: PathBuf,
        /// Bytes sent a second; 0 for as fast as it goes
        #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "0")]
        bytes_per_s: u64,
        /// How long the guest may stand still, in ms
        #[arg(long, value_name = "MS", default_value_t = 300)]
        downtime_ms: u64,
        /// How long it may take, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        patience: u32,
    },
}

impl From<QmpError> for Trouble {
    fn from(error: QmpError) -> Trouble {
        match error {
            QmpError::Connect { .. } | QmpError::Lost { .. } => {
                Trouble::Connection(error.to_string())
            }
            other => Trouble::Refused(other.to_string()),
        }
    }
}

/// Runs the command.
pub fn run(command: &QemuCommand, out: &mut Output) -> Result<(), Trouble> {
    let mut monitor = Monitor::connect(&command.qmp, PATIENCE)?;
    let qemu = &mut monitor;
    match &command.action {
        Action::Status => status(qemu, out),
        Action::Vcpus { count: None, .. } => show_threads(qemu, out),
        Action::Vcpus { count: Some(count), patience } => {
            let outcome = vcpu::set_count(qemu, *count, seconds(*patience))?;
            say(out, outcome, |count| json!(count), |count| format!("{count} processors"))
        }
        Action::Memory { plugged: Some(bytes), device, patience, .. } => {
            let outcome = memory::resize(qemu, device.as_deref(), *bytes, seconds(*patience))?;
            say(out, outcome, |bytes| json!(bytes), |bytes| format!("{} plugged", size(*bytes)))
        }
        Action::Memory { balloon: Some(bytes), patience, .. } => {
            let outcome = memory::balloon(qemu, *bytes, seconds(*patience))?;
            let text = |bytes: &u64| format!("{} left to the guest", size(*bytes));
            say(out, outcome, |bytes| json!(bytes), text)
        }
        Action::Memory { .. } => show_memory(qemu, out),
        Action::Throttle { disk, bytes_per_s, operations_per_s } => {
            let (bytes_per_s, operations_per_s) = (*bytes_per_s, *operations_per_s);
            let outcome = throttle::set(qemu, disk, Throttle { bytes_per_s, operations_per_s })?;
            say(out, outcome, limits_object, limits_text)
        }
        Action::Pause => say(out, power::pause(qemu)?, running_object, running_text),
        Action::Resume => say(out, power::resume(qemu)?, running_object, running_text),
        Action::Mirror { disk, to, bytes_per_s, patience } => {
            let (bytes_per_s, patience) = (*bytes_per_s, seconds(*patience));
            let plan = mirror::Plan { disk, to, bytes_per_s, patience };
            let outcome =
                with_progress(out, |tell| mirror::mirror(qemu, &plan, |_, far| tell(far)))?;
            say(out, outcome, |file| json!({ "file": file }), |file| format!("in {file}"))
        }
        Action::Migrate { to, through, bytes_per_s, downtime_ms, patience } => {
            let plan = migrate::Plan {
                through,
                bytes_per_s: *bytes_per_s,
                downtime_ms: *downtime_ms,
                patience: seconds(*patience),
            };
            send(qemu, to, &plan, out)
        }
    }
}

fn send(
    from: &mut Monitor,
    to: &Path,
    plan: &migrate::Plan<'_>,
    out: &mut Output,
) -> Result<(), Trouble> {
    let mut to = Monitor::connect(to, PATIENCE)?;
    let outcome = with_progress(out, |tell| migrate::migrate(from, &mut to, plan, tell))?;
    let object = |arrived: &Arrived| {
        json!({
            "running": arrived.running,
            "downtime_ms": arrived.downtime_ms,
            "sent_bytes": arrived.sent_bytes,
        })
    };
    let text = |arrived: &Arrived| {
        let (sent, stood) = (size(arrived.sent_bytes), arrived.downtime_ms);
        format!("arrived; stood still for {stood} ms, {sent} sent")
    };
    say(out, outcome, object, text)
}

/// Runs what takes long: tells how far it is, and has it taken back on SIGINT and SIGTERM.
fn with_progress<T>(
    out: &mut Output,
    run: impl FnOnce(&mut dyn FnMut(Progress) -> Go) -> Result<T, QmpError>,
) -> Result<T, Trouble> {
    let alarm = Alarm::set()?;
    let mut told: Option<Instant> = None;
    let mut broken = None;
    let mut tell = |progress: Progress| {
        if told.is_none_or(|told| told.elapsed() >= TELL) {
            told = Some(Instant::now());
            let Progress { done_bytes, left_bytes } = progress;
            let object = json!({ "done_bytes": done_bytes, "left_bytes": left_bytes });
            let text = format!("{} done, {} left", size(done_bytes), size(left_bytes));
            broken = out.say(&object, &text).err().or(broken.take());
        }
        match alarm.wait(None, Duration::ZERO) {
            Ok(false) if broken.is_none() => Go::On,
            _ => Go::Back,
        }
    };
    let result = run(&mut tell)?;
    match broken {
        Some(error) => Err(Trouble::Output(error)),
        None => Ok(result),
    }
}

/// Prints an outcome; anything but success ends with exit code 1.
fn say<T>(
    out: &mut Output,
    outcome: Outcome<T>,
    object: impl Fn(&T) -> Value,
    text: impl Fn(&T) -> String,
) -> Result<(), Trouble> {
    let (word, value, why) = match &outcome {
        Outcome::Applied(value) => ("applied", Some(value), None),
        Outcome::Partial { reached, why } => ("partial", Some(reached), Some(why)),
        Outcome::Refused(why) => ("refused", None, Some(why)),
        Outcome::TimedOut(why) => ("timed-out", None, Some(why)),
    };
    if out.is_json() {
        let value = value.map_or(Value::Null, object);
        out.say(&json!({ "outcome": word, "value": value, "why": why }), "")?;
        return if why.is_none() { Ok(()) } else { Err(Trouble::Ended(1)) };
    }
    match (value, why) {
        (Some(value), None) => Ok(out.say(&Value::Null, &text(value))?),
        (Some(value), Some(why)) => {
            Err(Trouble::Refused(format!("only in part: {}; {why}", text(value))))
        }
        (None, why) => Err(Trouble::Refused(format!("{word}: {}", why.map_or("", String::as_str)))),
    }
}

fn status(qemu: &mut Monitor, out: &mut Output) -> Result<(), Trouble> {
    let version = qemu.version();
    let version = format!("{}.{}.{}", version.major, version.minor, version.micro);
    let state = power::status(qemu)?;
    let threads = vcpu::threads(qemu)?;
    let memory = memory::read(qemu)?;
    let disks = throttle::disks(qemu)?;
    let object = json!({
        "qemu": version,
        "process": qemu.process(),
        "running": state.running,
        "state": state.status,
        "vcpus": threads.len(),
        "memory": memory_object(&memory),
        "disks": disks.iter().map(disk_object).collect::<Vec<_>>(),
    });
    let mut lines = vec![
        format!("qemu      {version}, process {}, {}", qemu.process(), state.status),
        format!("vcpus     {}", threads.len()),
        format!("memory    {}", memory_text(&memory)),
    ];
    lines.extend(disks.iter().map(|disk| {
        let (name, file, bytes) = (&disk.name, disk.file(), size(disk.size_bytes()));
        format!("disk      {name}: {bytes} in {file}, {}", limits_text(&disk.throttle()))
    }));
    let text: Vec<_> = lines.iter().map(|line| super::table::printable(line)).collect();
    Ok(out.say(&object, &text.join("\n"))?)
}

fn show_threads(qemu: &mut Monitor, out: &mut Output) -> Result<(), Trouble> {
    let threads = vcpu::threads(qemu)?;
    let mut list = out.list(&[right("VCPU"), left("THREAD")]);
    for VcpuThread { index, tid } in threads {
        list.object(&json!({ "vcpu": index, "thread": tid }))?;
        list.cells(vec![index.to_string(), tid.to_string()]);
    }
    Ok(list.show()?)
}

fn show_memory(qemu: &mut Monitor, out: &mut Output) -> Result<(), Trouble> {
    let memory = memory::read(qemu)?;
    Ok(out.say(&memory_object(&memory), &memory_text(&memory))?)
}

fn memory_object(memory: &memory::Memory) -> Value {
    let devices = memory.devices.iter().map(|device| {
        json!({
            "id": device.id,
            "block_bytes": device.block_size,
            "max_bytes": device.max_size,
            "requested_bytes": device.requested_size,
            "plugged_bytes": device.plugged_size,
        })
    });
    json!({
        "base_bytes": memory.base_bytes,
        "plugged_bytes": memory.plugged_bytes,
        "balloon_bytes": memory.balloon_bytes,
        "devices": devices.collect::<Vec<_>>(),
    })
}

fn memory_text(memory: &memory::Memory) -> String {
    let (base, plugged) = (size(memory.base_bytes), size(memory.plugged_bytes));
    let mut text = format!("{base} and {plugged} plugged");
    if let Some(bytes) = memory.balloon_bytes {
        text += &format!("; the balloon leaves {}", size(bytes));
    }
    for device in &memory.devices {
        let id = device.id.as_deref().unwrap_or("without an id");
        let (now, wanted) = (size(device.plugged_size), size(device.requested_size));
        text += &format!("; {id}: {now} of {wanted}, at most {}", size(device.max_size));
    }
    text
}

fn disk_object(disk: &Disk) -> Value {
    json!({
        "name": disk.name,
        "file": disk.file(),
        "bytes": disk.size_bytes(),
        "limits": limits_object(&disk.throttle()),
    })
}

fn limits_object(limits: &Throttle) -> Value {
    json!({ "bytes_per_s": limits.bytes_per_s, "operations_per_s": limits.operations_per_s })
}

fn limits_text(limits: &Throttle) -> String {
    match (limits.bytes_per_s, limits.operations_per_s) {
        (0, 0) => "not limited".to_owned(),
        (bytes, 0) => format!("{bytes} bytes/s at most"),
        (0, operations) => format!("{operations} operations/s at most"),
        (bytes, operations) => format!("{bytes} bytes/s and {operations} operations/s at most"),
    }
}

fn running_object(running: &bool) -> Value {
    json!({ "running": running })
}

fn running_text(running: &bool) -> String {
    (if *running { "runs" } else { "stands still" }).to_owned()
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes >= MIB {
        true => format!("{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB),
        false => format!("{bytes} bytes"),
    }
}

/// Parses `64M` as 67108864.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let shift = match text.bytes().last() {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| plain);
    // QEMU counts in signed numbers.
    let fits = |bytes: &u64| i64::try_from(*bytes).is_ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(fits)
        .ok_or_else(|| "give bytes, or a number and K, M, G or T".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_with_or_without_a_suffix() {
        for (text, bytes) in [("0", 0), ("512", 512), ("64M", 64 << 20), ("2T", 2 << 40)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "M", "+1", "-1", "1.5G", "1KB", "1k", "99999999T", "9223372036854775808"]
        {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!((size(5), size(3 << 19)), ("5 bytes".to_owned(), "1.5 MiB".to_owned()));
    }
}
