//! Sensors: how an instance fares, beside what it is billed for ([`crate::meter`]). Forecasts, rescue
//! bids and whoever watches read these; nothing is paid by them.
//!
//! A sample reads the meter's descriptors and four more (three of pressure and `memory.stat`), each
//! with one `pread`, and gives rates since the sample before. What the kernel does not tell, because a
//! controller is off or pressure is not accounted, is [`UNKNOWN`] and never 0.
//!
//! How long an instance's threads wait for a processor is the `some` of its `cpu.pressure`. Block I/O
//! has no latency of its own that a kernel tells without `blkcg_debug_stats`: `io.pressure` over the
//! operations says what waiting each cost.

use crate::meter::{Meter, MeterError, with_text};
use std::fs::File;
use std::path::Path;
use vendue_wire::message::{SensorRow, UNKNOWN};

const MICROS_PER_SECOND: u64 = 1_000_000;

/// What a virtual machine's own statistics descriptor counts, from its start on. Its owner has to hand
/// the descriptor over, because no other process can open it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtualCounts {
    /// Virtual processors.
    pub vcpus: u32,
    /// Exits to the host, of all virtual processors.
    pub exits: u64,
    /// Time that they halted for, nanoseconds.
    pub halt_ns: u64,
}

/// Time lost to waiting, microseconds: by anybody, and by all at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pressure {
    some_us: u64,
    full_us: u64,
}

/// What was counted so far. `None`: the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    cpu_us: Option<u64>,
    throttled_us: Option<u64>,
    cpu: Option<Pressure>,
    memory: Option<Pressure>,
    io: Option<Pressure>,
    /// Pages that were read again after they had been reclaimed.
    refaults: Option<u64>,
    disk: Option<Disk>,
    /// Received and sent.
    network: Option<(u64, u64)>,
    machine: Option<VirtualCounts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Disk {
    read_bytes: u64,
    write_bytes: u64,
    reads: u64,
    writes: u64,
    /// Time of devices, as the costs of operations say, microseconds.
    used_us: Option<u64>,
}

/// The sensors of one instance.
#[derive(Debug, Default)]
pub struct Sensors {
    cpu_pressure: Option<File>,
    memory_pressure: Option<File>,
    io_pressure: Option<File>,
    memory_stat: Option<File>,
    last: Option<(u64, Counts)>,
}

impl Sensors {
    /// Those of the cgroup at `dir`.
    pub fn cgroup(dir: &Path) -> Sensors {
        let open = |name| File::open(dir.join(name)).ok();
        Sensors {
            cpu_pressure: open("cpu.pressure"),
            memory_pressure: open("memory.pressure"),
            io_pressure: open("io.pressure"),
            memory_stat: open("memory.stat"),
            ..Sensors::default()
        }
    }

    /// How the instance that `meter` counts fared since the sample before; the first one knows no
    /// rates. `machine` is what it counts itself, if it is a virtual machine. Whose row it is, and what its network's queues hold, is left to the caller.
    ///
    /// # Errors
    /// The instance has gone.
    pub fn sample(
        &mut self,
        meter: &Meter,
        machine: Option<VirtualCounts>,
        now_ns: u64,
    ) -> Result<SensorRow, MeterError> {
        let counts = Counts { machine, ..self.count(meter)? };
        let before = self.last.replace((now_ns, counts));
        let interval_us =
            before.map_or(0, |(before_ns, _)| now_ns.saturating_sub(before_ns) / 1_000);
        let before = before.map(|(_, before)| before);
        Ok(row(now_ns, interval_us, meter.memory_now(), (before, counts)))
    }

    fn count(&self, meter: &Meter) -> Result<Counts, MeterError> {
        let (cpu_us, throttled_us) = meter.processor()?;
        let pressure = |file: &Option<File>| with_text(file.as_ref()?, parse_pressure).ok();
        Ok(Counts {
            cpu_us: Some(cpu_us),
            throttled_us,
            cpu: pressure(&self.cpu_pressure),
            memory: pressure(&self.memory_pressure),
            io: pressure(&self.io_pressure),
            refaults: self.memory_stat.as_ref().and_then(|f| with_text(f, parse_refaults).ok()),
            disk: meter.io_stat().and_then(|file| with_text(file, parse_disk).ok()),
            network: meter.network_bytes(),
            machine: None,
        })
    }
}

/// Rates of what two samples counted. A counter that went back is a new start: 0.
fn row(
    now_ns: u64,
    interval_us: u64,
    memory_bytes: Option<u64>,
    (before, now): (Option<Counts>, Counts),
) -> SensorRow {
    let rate = |count: fn(&Counts) -> Option<u64>, times: u64| {
        let (before, now) = before.as_ref().and_then(count).zip(count(&now))?;
        let more = u128::from(now.saturating_sub(before)) * u128::from(times);
        let rate = more.checked_div(interval_us.into())?;
        Some(u64::try_from(rate).unwrap_or(UNKNOWN - 1))
    };
    let wide = |count, times| rate(count, times).unwrap_or(UNKNOWN).into();
    let narrow = |count, times| {
        rate(count, times).map_or(u32::MAX, |rate| rate.min(u32::MAX.into()) as u32).into()
    };
    // Microseconds a second, in thousandths.
    let share = |count| narrow(count, 1000);
    let each_second = |count| narrow(count, MICROS_PER_SECOND);
    let network = |counts: &Counts| counts.network.map(|(received, sent)| received + sent);
    let waited_us = before.and_then(|before| io_wait_us(&before, &now));
    SensorRow {
        time_ns: now_ns.into(),
        memory_bytes: memory_bytes.unwrap_or(UNKNOWN).into(),
        read_bytes_per_s: wide(|c| Some(c.disk?.read_bytes), MICROS_PER_SECOND),
        write_bytes_per_s: wide(|c| Some(c.disk?.write_bytes), MICROS_PER_SECOND),
        network_bytes_per_s: wide(network, MICROS_PER_SECOND),
        network_sent_bytes_per_s: wide(|c| Some(c.network?.1), MICROS_PER_SECOND),
        network_backlog_bytes: UNKNOWN.into(),
        network_drops: UNKNOWN.into(),
        instance: 0.into(),
        interval_us: (interval_us.min(u32::MAX.into()) as u32).into(),
        cpu_millicores: share(|c| c.cpu_us),
        throttled_permille: share(|c| c.throttled_us),
        cpu_wait_permille: share(|c| Some(c.cpu?.some_us)),
        memory_some_permille: share(|c| Some(c.memory?.some_us)),
        memory_full_permille: share(|c| Some(c.memory?.full_us)),
        io_some_permille: share(|c| Some(c.io?.some_us)),
        io_full_permille: share(|c| Some(c.io?.full_us)),
        refaults_per_s: each_second(|c| c.refaults),
        reads_per_s: each_second(|c| Some(c.disk?.reads)),
        writes_per_s: each_second(|c| Some(c.disk?.writes)),
        exits_per_s: each_second(|c| Some(c.machine?.exits)),
        halt_permille: share(|c| Some(c.machine?.halt_ns / 1_000)),
        vcpus: now.machine.map_or(u32::MAX, |machine| machine.vcpus).into(),
        device_permille: share(|c| c.disk?.used_us),
        io_wait_us: waited_us.unwrap_or(u32::MAX).into(),
        network_delay_us: u32::MAX.into(),
    }
}

/// What waiting an operation cost, microseconds; `None` if there was none, or it is not told.
fn io_wait_us(before: &Counts, now: &Counts) -> Option<u32> {
    let operations = |counts: &Counts| counts.disk.map(|disk| disk.reads + disk.writes);
    let operations = operations(now)?.saturating_sub(operations(before)?);
    let waited_us = now.io?.some_us.saturating_sub(before.io?.some_us);
    Some(waited_us.checked_div(operations)?.min(u32::MAX as u64 - 1) as u32)
}

/// `some ... total=N` and `full ... total=N`, microseconds.
fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut totals = text.lines().map(|line| line.rsplit_once("total=")?.1.parse().ok());
    Some(Pressure { some_us: totals.next()??, full_us: totals.next()?? })
}

/// Pages of anonymous memory and of files together.
fn parse_refaults(text: &str) -> Option<u64> {
    let mut found = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("workingset_refault_") else { continue };
        let pages: u64 = rest.split_once(' ')?.1.parse().ok()?;
        found = Some(found.unwrap_or(0u64).checked_add(pages)?);
    }
    found
}

/// All devices together.
fn parse_disk(text: &str) -> Option<Disk> {
    let mut disk = Disk::default();
    for word in text.split_ascii_whitespace() {
        let Some((key, value)) = word.split_once('=') else { continue };
        let sum = match key {
            "rbytes" => &mut disk.read_bytes,
            "wbytes" => &mut disk.write_bytes,
            "rios" => &mut disk.reads,
            "wios" => &mut disk.writes,
            // Of devices in `host.io_cost`. Its waits, and averages of latency, are told by kernels
            // that were started for debugging alone.
            "cost.usage" => disk.used_us.get_or_insert_default(),
            _ => continue,
        };
        *sum = sum.checked_add(value.parse().ok()?)?;
    }
    Some(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_files_are_understood() {
        let text = "some avg10=0.00 avg60=0.12 avg300=1.00 total=1500\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=700\n";
        assert_eq!(parse_pressure(text), Some(Pressure { some_us: 1500, full_us: 700 }));
        assert_eq!(
            (parse_pressure(""), parse_pressure("some total=x\nfull total=1")),
            (None, None)
        );
        let text = "anon 5\nworkingset_refault_anon 3\nworkingset_refault_file 40\nslab 7\n";
        assert_eq!((parse_refaults(text), parse_refaults("anon 5\n")), (Some(43), None));
        let text = "8:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=5 dios=6\n254:0 rbytes=1 wios=2\n";
        let disk = Disk { read_bytes: 11, write_bytes: 20, reads: 3, writes: 6, used_us: None };
        assert_eq!(parse_disk(text), Some(disk));
        let text = format!("{} cost.vrate=100.00 cost.usage=77\n", text.trim_end());
        assert_eq!(parse_disk(&text), Some(Disk { used_us: Some(77), ..disk }));
        assert_eq!(parse_disk("8:0 rbytes=x"), None);
    }

    /// A plain directory: no kernel gives counters a test's values.
    #[test]
    fn rates_are_between_samples_and_what_is_not_told_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let set = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        set("cpu.stat", "usage_usec 1000\nthrottled_usec 50\n");
        set("cpu.pressure", "some total=100\nfull total=0\n");
        set("memory.stat", "workingset_refault_file 7\n");
        set("io.stat", "8:0 rbytes=100 wbytes=0 rios=1 wios=0 cost.usage=1000\n");
        let meter = Meter::cgroup(dir.path(), "memory.current").unwrap();
        let mut sensors = Sensors::cgroup(dir.path());
        let first = sensors.sample(&meter, None, 5_000_000_000).unwrap();
        assert_eq!(first.cpu_millicores.get(), u32::MAX, "no rate yet");
        assert_eq!((first.interval_us.get(), first.memory_bytes.get()), (0, UNKNOWN));

        set("cpu.stat", "usage_usec 501000\nthrottled_usec 20050\n");
        set("cpu.pressure", "some total=400100\nfull total=0\n");
        set("memory.stat", "workingset_refault_file 27\n");
        set("io.stat", "8:0 rbytes=8100 wbytes=4000 rios=5 wios=2 cost.usage=301000\n");
        let machine = Some(VirtualCounts { vcpus: 2, ..VirtualCounts::default() });
        let row = sensors.sample(&meter, machine, 7_000_000_000).unwrap();
        assert_eq!(row.interval_us.get(), 2_000_000);
        let rates = [
            (row.cpu_millicores, 250),
            (row.throttled_permille, 10),
            (row.cpu_wait_permille, 200),
            (row.refaults_per_s, 10),
            (row.reads_per_s, 2),
            (row.writes_per_s, 1),
            (row.io_some_permille, u32::MAX),
            (row.memory_full_permille, u32::MAX),
            (row.exits_per_s, u32::MAX),
            (row.vcpus, 2),
            (row.device_permille, 150),
            (row.io_wait_us, u32::MAX),
        ];
        for (at, (rate, expected)) in rates.into_iter().enumerate() {
            assert_eq!(rate.get(), expected, "rate {at}");
        }
        assert_eq!((row.read_bytes_per_s.get(), row.write_bytes_per_s.get()), (4000, 2000));
        assert_eq!(row.network_bytes_per_s.get(), UNKNOWN);

        set("cpu.stat", "usage_usec 7\n");
        let machine = VirtualCounts { vcpus: 2, exits: 900, halt_ns: 500_000_000 };
        let row = sensors.sample(&meter, Some(machine), 8_000_000_000).unwrap();
        assert_eq!(row.cpu_millicores.get(), 0, "a group made anew");
        assert_eq!(row.throttled_permille.get(), u32::MAX);
        assert_eq!((row.exits_per_s.get(), row.halt_permille.get()), (900, 500));
        let io = |some_us, operations| Counts {
            io: Some(Pressure { some_us, full_us: 0 }),
            disk: Some(Disk { reads: operations, ..Disk::default() }),
            ..Counts::default()
        };
        assert_eq!(io_wait_us(&io(100, 1), &io(5_100, 11)), Some(500));
        assert_eq!(io_wait_us(&io(100, 1), &io(5_100, 1)), None, "nothing was asked of a device");
    }
}
