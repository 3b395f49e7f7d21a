//! What the sensors of a thousand instances cost: one look at each of them, in as many groups of the
//! kernel's with a process in each that wakes once a second. Beside bare `pread`s of the same files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use hvctl::cgroup::CgroupHost;
use hvctl::host::{Backend, Home, Host, Options};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use vendue_engine::config::Config;

use crate::daemon::AnyError;
use crate::pin::{Processors, pin};
use crate::report::{NotMeasured, Pair};

const INSTANCES: u32 = 1000;
/// Looks at every instance in one run.
const ROUNDS: usize = 10;
/// Time between two looks: every process has woken since.
const PAUSE: Duration = Duration::from_millis(300);
/// Goal: percent of a processor.
const CPU_PERCENT_MAX: f64 = 2.0;
/// Files that a sample reads where the kernel has them.
const FILES: [&str; 7] = [
    "cpu.stat",
    "cpu.pressure",
    "memory.pressure",
    "io.pressure",
    "memory.stat",
    "memory.current",
    "io.stat",
];

/// Measures `sense.cpu` where cgroup v2 can be written; says why not where it cannot.
///
/// # Errors
/// A sensor cannot be read.
pub fn measure(
    processors: Processors,
    runs: usize,
    show: &mut dyn FnMut(Pair),
) -> Result<Option<NotMeasured>, AnyError> {
    pin(processors.asking)?;
    let mut crowd = match Crowd::gather() {
        Ok(crowd) => crowd,
        Err(error) => {
            let reason = error.to_string();
            return Ok(Some(NotMeasured { name: "sense.cpu".to_owned(), reason }));
        }
    };
    let every = Duration::from_millis(*Config::embedded()?.host.sense_ms.get_ref());
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    // The first look opens the files.
    crowd.sense()?;
    for _ in 0..runs {
        let (mut sensed, mut bare) = (0.0, 0.0);
        for _ in 0..ROUNDS {
            std::thread::sleep(PAUSE);
            sensed += crowd.sense()?;
            std::thread::sleep(PAUSE);
            bare += crowd.read()?;
        }
        let percent = |seconds: f64| 100.0 * seconds / ROUNDS as f64 / every.as_secs_f64();
        ours.push(percent(sensed));
        floor.push(percent(bare));
    }
    let files = crowd.files.len() / INSTANCES as usize;
    let pair = Pair::new("sense.cpu", "% of a CPU", &ours, &floor);
    let met = pair.ours.median < CPU_PERCENT_MAX;
    show(
        pair.goal(format!("below {CPU_PERCENT_MAX}% of a CPU"), met)
            .fact("instances", INSTANCES)
            .fact("sense_ms", every.as_millis() as u64)
            .fact("files of an instance", files as u64)
            .method(format!(
                "{runs} times {ROUNDS} looks at every instance, a process in each group that wakes once \
                 a second; processor time of the thread that looks, at the default rate; the floor \
                 reads the same files with one pread each"
            )),
    );
    Ok(None)
}

/// Instances with a process each; all ends when dropped.
struct Crowd {
    host: Host,
    files: Vec<File>,
    processes: Vec<Child>,
    group: PathBuf,
}

impl Crowd {
    fn gather() -> Result<Crowd, AnyError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let point = line.and_then(|line| line.split(' ').nth(4)).ok_or("no cgroup2 is mounted")?;
        let group = Path::new(point).join(format!("vendue-sense-{}", std::process::id()));
        fs::create_dir(&group)
            .map_err(|error| format!("cannot make {}: {error}; run as root", group.display()))?;
        let parent = group.to_string_lossy();
        // No limit is written; the controllers that are offered count all the same.
        let backend = CgroupHost::detect(&parent, &[]);
        let host =
            backend.map(|cgroup| Host::new(Backend::Cgroup(cgroup), &[], Options::default()));
        let host = host.inspect_err(|_| {
            let _ = remove(&group);
        })?;
        let mut crowd = Crowd { host, files: Vec::new(), processes: Vec::new(), group };
        for instance in 1..=INSTANCES {
            crowd.join(instance)?;
        }
        Ok(crowd)
    }

    fn join(&mut self, instance: u32) -> Result<(), AnyError> {
        self.host.adopt(instance, Home { account: 0, tier: 0 }, "", &[])?;
        let place = PathBuf::from(self.host.place(instance).ok_or("an adopted instance")?);
        let mut command = Command::new("tail");
        command.args(["-f", "-s", "1", "---disable-inotify", "/dev/null"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let pid = child.id();
        self.processes.push(child);
        fs::write(place.join("cgroup.procs"), pid.to_string())?;
        self.files.extend(FILES.iter().filter_map(|name| File::open(place.join(name)).ok()));
        Ok(())
    }

    /// Looks at every instance; processor seconds.
    fn sense(&mut self) -> Result<f64, AnyError> {
        let now_ns = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
        let start = thread_seconds()?;
        for instance in 1..=INSTANCES {
            std::hint::black_box(self.host.sense(instance, None, now_ns)?);
        }
        Ok(thread_seconds()? - start)
    }

    /// Reads every file; processor seconds.
    fn read(&self) -> Result<f64, AnyError> {
        let mut bytes = [0; 8192];
        let start = thread_seconds()?;
        for file in &self.files {
            std::hint::black_box(file.read_at(&mut bytes, 0)?);
        }
        Ok(thread_seconds()? - start)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = remove(&self.group);
    }
}

fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Processor time of the calling thread.
fn thread_seconds() -> Result<f64, AnyError> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let us = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(us as f64 / 1e6)
}
