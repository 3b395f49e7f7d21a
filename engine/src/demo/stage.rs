//! The demo's stage: the daemon as a child process, accounts, instances and their processes.

use super::Failure;
use crate::config::{Config, DEFAULT, HostKey};
use crate::start::open_host;
use hvctl::host::Host;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vendue_wire::client::{Client, Endpoint, Identity};
use vendue_wire::message::{
    CreateAccount, CreateInstance, Deposit, GrantCredits, U32, field, field_cut,
};

/// Seconds of baseline in hand at the start.
const LAUNCH_S: u64 = 10;
/// Funds of each tenant at the start, micro-units.
const FUNDS_MICRO: u64 = 10_000_000;
/// How long the daemon may take to start.
const START: Duration = Duration::from_secs(20);

/// A tenant's part: what it reserved and what it really does.
struct Part {
    name: &'static str,
    /// Reserved: percent of a CPU.
    baseline_vru: u32,
    /// Percent of a CPU while busy.
    busy_percent: u32,
    busy_s: u64,
    idle_s: u64,
    /// Seconds into its first cycle.
    offset_s: u64,
}

impl Part {
    const fn new(
        name: &'static str,
        baseline_vru: u32,
        busy_percent: u32,
        (busy_s, idle_s, offset_s): (u64, u64, u64),
    ) -> Part {
        Part { name, baseline_vru, busy_percent, busy_s, idle_s, offset_s }
    }
}

/// As on a real host: some reserved little and burst, some reserved much and idle.
const CAST: [Part; 5] = [
    Part::new("web", 8, 55, (5, 7, 0)),
    Part::new("batch", 10, 45, (6, 8, 8)),
    Part::new("index", 8, 40, (4, 9, 11)),
    Part::new("mail", 35, 12, (3, 9, 1)),
    Part::new("cache", 35, 8, (2, 10, 5)),
];

/// A tenant: its process, its account and instance.
pub struct Tenant {
    /// Name.
    pub name: &'static str,
    /// Account number.
    pub account: u32,
    /// Instance number.
    pub instance: u32,
    /// Reserved VRUs.
    pub baseline_vru: u32,
    /// Its process.
    pub process: Child,
    cgroup: Option<PathBuf>,
}

/// Everything that runs.
pub struct Stage {
    /// The daemon's socket.
    pub endpoint: Endpoint,
    /// The operator's session.
    pub operator: Client,
    /// Tenants.
    pub tenants: Vec<Tenant>,
    /// Why limits are only pretended; `None` on cgroup v2.
    pub dry_run: Option<String>,
    /// Where the daemon's log is.
    pub log: PathBuf,
    daemon: Child,
    interrupted: Arc<AtomicBool>,
    _dir: TempDir,
}

impl Stage {
    /// Starts the daemon and the tenants.
    ///
    /// # Errors
    /// A process cannot be started, or the daemon does not answer.
    pub fn set() -> Result<Stage, Failure> {
        let interrupted = watch_for_interrupts()?;
        let dir = tempfile::Builder::new().prefix("vendue-demo-").tempdir()?;
        let socket = dir.path().join("vendued.sock");
        let (config, dry_run) = configure(dir.path(), &socket)?;
        let log = dir.path().join("vendued.log");
        let daemon = Command::new(std::env::current_exe()?)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let endpoint = Endpoint::Unix(socket);
        let operator = match wait_for(&endpoint) {
            Ok(operator) => operator,
            Err(error) => {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("the daemon does not answer: {error}\n{said}").into());
            }
        };
        let mut stage = Stage {
            endpoint,
            operator,
            tenants: Vec::new(),
            dry_run,
            log,
            daemon,
            interrupted,
            _dir: dir,
        };
        for part in &CAST {
            stage.admit(part)?;
        }
        Ok(stage)
    }

    /// True once the user pressed Ctrl-C.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Starts a tenant's process and puts it under the daemon's care.
    fn admit(&mut self, part: &Part) -> Result<(), Failure> {
        let &Part { name, baseline_vru: baseline, busy_percent, busy_s, idle_s, offset_s } = part;
        let numbers = [u64::from(busy_percent), busy_s, idle_s, offset_s];
        let process = Command::new(std::env::current_exe()?)
            .arg("tenant")
            .args(numbers.map(|number| number.to_string()))
            .stdin(Stdio::null())
            .spawn()?;
        let mut tenant =
            Tenant { name, account: 0, instance: 0, baseline_vru: baseline, process, cgroup: None };
        let (place, cgroup) = match &self.dry_run {
            Some(_) => (format!("pid:{}", tenant.process.id()), None),
            None => {
                let group = own_group(name)?;
                fs::write(group.join("cgroup.procs"), tenant.process.id().to_string())?;
                (group.to_string_lossy().into_owned(), Some(group))
            }
        };
        tenant.cgroup = cgroup;
        // From here on the end of the demo ends the process too.
        self.tenants.push(tenant);
        let account = self.account(name)?;
        let client_id = self.operator.next_client_id().into();
        let mut baseline_vru = [U32::ZERO; 5];
        baseline_vru[0] = baseline.into();
        let instance = CreateInstance {
            client_id,
            account: account.into(),
            baseline_vru,
            name: field_cut(name),
            place: field(&place).ok_or("the cgroup's path is too long")?,
            ..CreateInstance::zeroed()
        };
        let instance = self.operator.call(&instance)?.value.get() as u32;
        let grant = GrantCredits {
            client_id: self.operator.next_client_id().into(),
            amount_millicredits: (u64::from(baseline) * LAUNCH_S * 1000).into(),
            instance: instance.into(),
            resource: 0,
            reserved: [0; 3],
        };
        self.operator.call(&grant)?;
        if let Some(tenant) = self.tenants.last_mut() {
            tenant.account = account;
            tenant.instance = instance;
        }
        Ok(())
    }

    fn account(&mut self, name: &str) -> Result<u32, Failure> {
        let create = CreateAccount {
            client_id: self.operator.next_client_id().into(),
            sells_to: u64::MAX.into(),
            buys_from: u64::MAX.into(),
            name: field_cut(name),
            group: 0,
            reserved: [0; 7],
        };
        let account = self.operator.call(&create)?.value.get() as u32;
        let deposit = Deposit {
            client_id: self.operator.next_client_id().into(),
            amount_micro: FUNDS_MICRO.into(),
            account: account.into(),
            reserved: 0.into(),
        };
        self.operator.call(&deposit)?;
        Ok(account)
    }

    /// Stops the daemon as an operator would, and checks that it ends well.
    ///
    /// # Errors
    /// It does not.
    pub fn strike(mut self) -> Result<(), Failure> {
        kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM)?;
        let start = Instant::now();
        while start.elapsed() < START {
            if let Some(status) = self.daemon.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("the daemon ended with {status}\n{said}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the daemon does not stop".into())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        for tenant in &mut self.tenants {
            let _ = tenant.process.kill();
            let _ = tenant.process.wait();
            if let Some(group) = &tenant.cgroup {
                let _ = fs::remove_dir(group);
            }
        }
    }
}

/// Sets a flag on Ctrl-C and SIGTERM, so that everything started is ended.
fn watch_for_interrupts() -> Result<Arc<AtomicBool>, Failure> {
    let signals = nix::sys::signal::SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    let flag = Arc::new(AtomicBool::new(false));
    let raised = flag.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.wait().is_ok() {
            raised.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(flag)
}

/// Writes the embedded defaults with the demo's paths, on cgroup v2 if it can be written.
fn configure(dir: &Path, socket: &Path) -> Result<(PathBuf, Option<String>), Failure> {
    let mut table: toml::Table = toml::from_str(DEFAULT)?;
    let text = |path: &Path| toml::Value::String(path.to_string_lossy().into_owned());
    table.insert("data_dir".to_owned(), text(&dir.join("data")));
    let section = |table: &mut toml::Table, name: &str, key: &str, value: toml::Value| {
        if let Some(toml::Value::Table(section)) = table.get_mut(name) {
            section.insert(key.to_owned(), value);
        }
    };
    section(&mut table, "gateway", "unix", text(socket));
    section(&mut table, "host", "meter_ms", toml::Value::Integer(250));
    let mut access = toml::Table::new();
    access.insert("uid".to_owned(), toml::Value::Integer(geteuid().as_raw().into()));
    access.insert("role".to_owned(), toml::Value::String("operator".to_owned()));
    table.insert("access".to_owned(), toml::Value::Array(vec![toml::Value::Table(access)]));
    let probe = Config::parse("demo", &toml::to_string(&table)?)?;
    let dry_run = open_host(&probe).err().map(|why| why.to_string());
    if dry_run.is_some() {
        let kind = toml::Value::String("dry-run".to_owned());
        section(&mut table, "host", "kind", kind);
    }
    let path = dir.join("vendued.toml");
    fs::write(&path, toml::to_string(&table)?)?;
    Ok((path, dry_run))
}

/// A cgroup of the demo's own, in the daemon's subtree.
fn own_group(name: &str) -> Result<PathBuf, Failure> {
    let config = Config::embedded()?;
    assert_eq!(config.host.kind, HostKey::Cgroup, "the defaults write cgroup v2");
    let host: Host = open_host(&config)?;
    let subtree = host.subtree().ok_or("the host has no subtree")?;
    let group = subtree.join(format!("demo-{}-{name}", std::process::id()));
    fs::create_dir(&group)?;
    Ok(group)
}

/// Connects as soon as the daemon answers.
fn wait_for(endpoint: &Endpoint) -> Result<Client, Failure> {
    let start = Instant::now();
    loop {
        match Client::connect(endpoint, &Identity::operator()) {
            Ok(client) => return Ok(client),
            Err(error) if start.elapsed() > START => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
