//! `vendued`, the daemon's command line.

use clap::{Parser, Subcommand, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::path::PathBuf;
use std::process::ExitCode;
use vendue_engine::config::{Config, DEFAULT, HostKey};
use vendue_engine::daemon::Daemon;

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
        Action::Run { config, data_dir, socket, host } => run(&|| {
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
fn run(load: Load<'_>) -> Result<(), Failure> {
    let config = load()?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log)?;
    let (filter, level) = tracing_subscriber::reload::Layer::new(filter);
    {
        use tracing_subscriber::prelude::*;
        let lines =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
        tracing_subscriber::registry().with(filter).with(lines).init();
    }
    // Blocked before any thread starts, so that all inherit it and only this one is told.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block()?;
    // A limit on file size is an error of the write that meets it, not the end of the daemon.
    SigSet::from_iter([Signal::SIGXFSZ]).thread_block()?;
    // Limits are written through held descriptors: several an instance.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let daemon = Daemon::start(&config)?;
    tracing::info!(socket = %config.gateway.unix.display(), host = ?config.host.kind, "serving");
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
    daemon.stop()?;
    tracing::info!("stopped");
    Ok(())
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
