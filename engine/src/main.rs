//! `vendued`, the daemon's command line.

use clap::{Parser, Subcommand, ValueEnum};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use sd_notify::NotifyState;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use vendue_engine::apart::Part;
use vendue_engine::config::{Config, DEFAULT, HostKey, LogFormat};
use vendue_engine::daemon::{Daemon, Pulse};

// A sanitizer watches its own allocator, and would take what this one reuses for a race.
#[cfg(not(sanitized))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The auction room of one host: instances trade credits in microseconds, and the results are
/// written into the kernel's own limits.
#[derive(Parser)]
#[command(name = "vendued", version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Serve until SIGTERM or SIGINT; SIGHUP reloads.
    Run {
        /// Configuration file; the embedded defaults without one.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Overrides `data_dir`.
        #[arg(long)]
        data_dir: Option<PathBuf>,
        /// Overrides `gateway.unix`.
        #[arg(long)]
        socket: Option<PathBuf>,
        /// Overrides `host.kind`.
        #[arg(long)]
        host: Option<HostArgument>,
        /// Run one part, which meets the others at `pipeline.stages`; all in one process without.
        #[arg(long)]
        part: Option<Part>,
    },
    /// Run a daemon, real tenant processes and trading agents in a temporary directory, and watch.
    Demo {
        /// How long.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=86_400))]
        seconds: u64,
    },
    /// A demo tenant's work.
    #[command(hide = true)]
    Tenant {
        /// Percent of a CPU while busy.
        busy_percent: u32,
        /// Seconds busy.
        busy_s: u64,
        /// Seconds idle.
        idle_s: u64,
        /// Seconds into its first cycle.
        offset_s: u64,
    },
    /// Check a configuration and say what is wrong with it.
    Check {
        /// Configuration file.
        config: PathBuf,
    },
    /// Print the embedded default configuration.
    Defaults,
}

#[derive(Clone, Copy, ValueEnum)]
enum HostArgument {
    /// Write cgroup v2 limits.
    Cgroup,
    /// Decide and meter, write nothing.
    DryRun,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Action::Run { config, data_dir, socket, host, part } => run(part, &|| {
            let mut loaded = match &config {
                Some(path) => Config::read(path)?,
                None => Config::embedded()?,
            };
            if let Some(dir) = &data_dir {
                loaded.data_dir.clone_from(dir);
            }
            if let Some(path) = &socket {
                loaded.gateway.unix.clone_from(path);
            }
            match host {
                Some(HostArgument::Cgroup) => loaded.host.kind = HostKey::Cgroup,
                Some(HostArgument::DryRun) => loaded.host.kind = HostKey::DryRun,
                None => {}
            }
            Ok(loaded)
        }),
        Action::Demo { seconds } => {
            vendue_engine::demo::run(seconds).map_err(|error| error as Failure)
        }
        Action::Tenant { busy_percent, busy_s, idle_s, offset_s } => {
            vendue_engine::demo::work(busy_percent, busy_s, idle_s, offset_s)
        }
        Action::Check { config } => Config::read(&config).map(|_| ()).map_err(Into::into),
        Action::Defaults => {
            print!("{DEFAULT}");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vendued: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;
type Load<'a> = &'a dyn Fn() -> Result<Config, vendue_engine::config::ConfigError>;

/// Serves until a signal says stop.
fn run(part: Option<Part>, load: Load<'_>) -> Result<(), Failure> {
    let config = load()?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log)?;
    let (filter, level) = tracing_subscriber::reload::Layer::new(filter);
    {
        use tracing_subscriber::prelude::*;
        let lines =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
        let log = tracing_subscriber::registry().with(filter);
        match config.log_format {
            LogFormat::Text => log.with(lines).init(),
            LogFormat::Json => log.with(lines.json().flatten_event(true)).init(),
        }
    }
    // Blocked before any thread starts, so that all inherit it and only this one is told.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block()?;
    // A limit on file size is an error of the write that meets it, not the end of the daemon.
    SigSet::from_iter([Signal::SIGXFSZ]).thread_block()?;
    // Limits are written through held descriptors: several an instance.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    lock_memory()?;
    let daemon = match part {
        None => Daemon::start(&config)?,
        Some(part) => Daemon::start_part(&config, part)?,
    };
    match part {
        Some(part @ (Part::Core | Part::Actuate)) => tracing::info!(part = part.name(), "started"),
        None | Some(Part::Gateway) => {
            let host = config.host.kind;
            tracing::info!(socket = %config.gateway.unix.display(), ?host, "serving");
        }
    }
    watch_pulse(daemon.pulse());
    tell_manager(NotifyState::Ready);
    loop {
        match signals.wait()? {
            Signal::SIGHUP => match reload(&daemon, &config, load) {
                Ok((filter, kept)) => {
                    level.reload(filter)?;
                    tracing::info!("reloaded access, throttle and log");
                    if !kept.is_empty() {
                        let names = kept.join(", ");
                        tracing::warn!("changed but not taken over before a restart: {names}");
                    }
                }
                Err(error) => tracing::error!("the old configuration stays: {error}"),
            },
            signal => {
                tracing::info!(%signal, "stopping");
                break;
            }
        }
    }
    tell_manager(NotifyState::Stopping);
    daemon.stop()?;
    tracing::info!("stopped");
    Ok(())
}

/// Keeps what is touched in memory, where so much may be locked (`LimitMEMLOCK=infinity`): a page that
/// was swapped out would be waited for amid trading.
fn lock_memory() -> Result<(), Failure> {
    if getrlimit(Resource::RLIMIT_MEMLOCK)?.0 == RLIM_INFINITY {
        // What is reserved for bounds that are never reached is not brought in.
        let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
        mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)?;
    }
    Ok(())
}

/// Tells the service manager, if there is one.
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("cannot tell the service manager: {error}");
    }
}

/// Where the service manager watches (`WatchdogSec=`): tells it that every thread still turns, as
/// long as that is so.
fn watch_pulse(pulse: Pulse) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let watching = std::thread::Builder::new().name("pulse".to_owned()).spawn(move || {
        loop {
            let before = pulse.turns();
            // A thread turns once a second at least.
            std::thread::sleep((within / 2).max(Duration::from_secs(2)));
            match pulse.stalled(&before) {
                None => tell_manager(NotifyState::Watchdog),
                Some(thread) => tracing::error!(thread, "a thread stands still"),
            }
        }
    });
    if let Err(error) = watching {
        tracing::error!("the watchdog will bite: {error}");
    }
}

/// Reads the configuration again and takes over what can change while running. Returns the new
/// filter of log lines, and what differs but needs a restart. Nothing is taken over on an error.
fn reload(
    daemon: &Daemon,
    config: &Config,
    load: Load<'_>,
) -> Result<(tracing_subscriber::EnvFilter, Vec<String>), Failure> {
    let new = load()?;
    let filter = tracing_subscriber::EnvFilter::try_new(&new.log)
        .map_err(|error| format!("log = {:?}: {error}", new.log))?;
    Ok((filter, daemon.reload(config, &new)?))
}
