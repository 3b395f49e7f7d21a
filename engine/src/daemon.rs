//! The daemon's life: recover, start the pipeline, serve until told to stop, drain, snapshot.

use crate::clock::Clock;
use crate::config::{Config, ConfigError, SyncKey, ThreadsKey};
use crate::gateway::access::Access;
use crate::gateway::tls;
use crate::health::Health;
use crate::pipeline::ingress::Reload;
use crate::pipeline::{self, Stage};
use crate::start::{ReloadEnds, Stages, StartError, make_stages, open_host, recover_state, system};
use crate::storage::Host;
use crate::trail::{Clerk, Dirs, Herald};
use crossbeam::channel::{Receiver, Sender};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a stop waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);

/// A running daemon.
pub struct Daemon {
    health: Arc<Health>,
    /// Stops the core and the actuator.
    halted: Arc<AtomicBool>,
    /// Stops the journal, the gateway, the clerk and the herald, after them.
    halted_last: Arc<AtomicBool>,
    gateway: std::thread::JoinHandle<Vec<Stage>>,
    others: Vec<std::thread::JoinHandle<Vec<Stage>>>,
    /// `None` where the gateway's thread runs it.
    journal: Option<std::thread::JoinHandle<Vec<Stage>>>,
    clerk: std::thread::JoinHandle<Clerk>,
    /// Handed back, so that its ends of rings go where the gateway's do.
    herald: std::thread::JoinHandle<Herald>,
    socket: PathBuf,
    reload: Sender<Reload>,
    /// Takes back a reload that the gateway has not taken.
    unread: Receiver<Reload>,
}

impl Daemon {
    /// Recovers and starts every thread. When it returns, peers are served.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(config: &Config) -> Result<Daemon, StartError> {
        Daemon::start_on(config, open_host(config)?)
    }

    /// As [`Daemon::start`], on a host that the caller has opened; `[host]` still says how often it
    /// is metered and read back.
    ///
    /// # Errors
    /// As for [`Daemon::start`].
    pub fn start_on(config: &Config, host: hvctl::host::Host) -> Result<Daemon, StartError> {
        let sync = config.journal.sync == SyncKey::Always;
        let clock = Clock::Host;
        let health = Arc::new(Health::new(host.is_dry_run(), sync, clock.clone()));
        let dirs = Dirs::below(Host, &config.data_dir);
        std::fs::create_dir_all(&config.data_dir)
            .map_err(system(format!("make {}", config.data_dir.display())))?;
        let access = Access::load(&config.access)?;
        let recovered = recover_state(config, &dirs, &health, &clock)?;
        let time = (&health, &clock);
        let stages = make_stages(config, &dirs, time, access, host, recovered)?;
        start_threads(config, &health, stages)
    }

    /// The daemon's state, shared.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Reads the configuration again and takes over what can change while running. Returns what
    /// differs but needs a restart.
    ///
    /// # Errors
    /// The new configuration is refused; the old one stays.
    pub fn reload(&self, old: &Config, new: &Config) -> Result<Vec<String>, ConfigError> {
        let access = Access::load(&new.access)?;
        let tls = new.gateway.tls.as_ref().map(|keys| tls::load(&keys.dir)).transpose()?;
        // The gateway takes it within a second; what it has not taken by now is out of date.
        let _ = self.unread.try_recv();
        let _ = self.reload.try_send(Reload { access, keys: new.gateway.clone(), tls });
        Ok(needs_restart(old, new))
    }

    /// Drains, stops every thread, closes the journal and writes a snapshot.
    ///
    /// # Errors
    /// The journal could not be closed whole; the text says why.
    pub fn stop(self) -> Result<(), String> {
        self.health.stop();
        self.drain();
        let gone = || "a stage has panicked".to_owned();
        self.halted.store(true, Ordering::Release);
        for thread in self.others {
            thread.join().map_err(|_| gone())?;
        }
        // Nothing is sequenced any more: the journal closes behind the last record.
        self.halted_last.store(true, Ordering::Release);
        if let Some(journal) = self.journal {
            journal.join().map_err(|_| gone())?;
        }
        for stage in self.gateway.join().map_err(|_| gone())? {
            if let Stage::Ingress(mut ingress) = stage {
                ingress.close_all();
            }
        }
        self.herald.join().map_err(|_| gone())?;
        let mut clerk = self.clerk.join().map_err(|_| gone())?;
        if self.health.accepting() {
            clerk.snapshot();
        }
        let _ = std::fs::remove_file(&self.socket);
        if self.health.accepting() { Ok(()) } else { Err("the journal had stopped".to_owned()) }
    }

    /// Waits until everything sequenced is executed and durable, and stays so for a moment.
    fn drain(&self) {
        let start = Instant::now();
        let mut quiet = 0;
        let mut last = 0;
        while quiet < 3 && start.elapsed() < DRAIN {
            std::thread::sleep(Duration::from_millis(20));
            let sequenced = self.health.sequenced.get();
            let done = self.health.durable.get() >= last && self.health.executed.get() >= last;
            quiet = if done || !self.health.accepting() { quiet + 1 } else { 0 };
            last = sequenced;
        }
    }
}

/// Names the sections that differ in more than what a reload takes over.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let names: BTreeSet<&String> = old.table.keys().chain(new.table.keys()).collect();
    let differs = |name: &&String| strip(&old.table, name) != strip(&new.table, name);
    names.into_iter().filter(differs).map(|name| format!("[{name}]")).collect()
}

/// A section without what a reload takes over.
fn strip(table: &toml::Table, name: &str) -> Option<toml::Value> {
    let mut section = table.get(name)?.clone();
    match (name, &mut section) {
        ("access" | "log", _) => return None,
        ("gateway", toml::Value::Table(gateway)) => {
            for throttle in ["throttle_per_s", "throttle_burst"] {
                gateway.remove(throttle);
                gateway.remove(&format!("account_{throttle}"));
            }
        }
        _ => {}
    }
    Some(section)
}

/// Starts a thread for each group of stages.
fn start_threads(
    config: &Config,
    health: &Arc<Health>,
    stages: Stages<Host>,
) -> Result<Daemon, StartError> {
    let Stages {
        ingress, publish, sequence, execute, journal, actuate, mut clerk, mut herald, ..
    } = stages;
    let ([core_bell, journal_bell, actuate_bell], reloads) = (stages.doorbells, stages.reloads);
    let ingress = Stage::Ingress(Box::new(ingress));
    let publish = Stage::Publish(Box::new(publish));
    let sequence = Stage::Sequence(Box::new(sequence));
    let execute = Stage::Execute(Box::new(execute));
    let journal = Stage::Journal(Box::new(journal));
    let actuate = vec![Stage::Actuate(Box::new(actuate))];
    let halted = Arc::new(AtomicBool::new(false));
    let halted_last = Arc::new(AtomicBool::new(false));
    let keys = &config.pipeline;
    // The gateway waits in its poll: its doorbell is registered there, this one is never rung.
    let (_, unused) = vendue_wire::doorbell::pair().map_err(system("make a doorbell"))?;
    let started = |name: &'static str| system(format!("start the thread {name}"));
    let start = pipeline::start;
    let mut others = vec![
        start("actuate", actuate, actuate_bell, &keys.actuate, &halted)
            .map_err(started("actuate"))?,
    ];
    let (gateway, journal) = match keys.threads {
        // In the order data takes; the device works while the machine does.
        ThreadsKey::One if config.journal.sync == SyncKey::Always => {
            (vec![ingress, sequence, journal, execute, publish], None)
        }
        // Nobody waits for the journal: what was said goes out first.
        ThreadsKey::One => (vec![ingress, journal, sequence, execute, publish], None),
        ThreadsKey::Each => {
            let core = start("core", vec![sequence, execute], core_bell, &keys.core, &halted);
            others.push(core.map_err(started("core"))?);
            let thread = start("journal", vec![journal], journal_bell, &keys.journal, &halted_last);
            (vec![ingress, publish], Some(thread.map_err(started("journal"))?))
        }
    };
    let (clerk_halted, herald_halted) = (halted_last.clone(), halted_last.clone());
    let (reload, unread): ReloadEnds = reloads;
    Ok(Daemon {
        health: health.clone(),
        journal,
        others,
        gateway: start("gateway", gateway, unused, &keys.gateway, &halted_last)
            .map_err(started("gateway"))?,
        clerk: std::thread::Builder::new()
            .name("clerk".to_owned())
            .spawn(move || {
                clerk.run(|| clerk_halted.load(Ordering::Acquire));
                clerk
            })
            .map_err(started("clerk"))?,
        herald: std::thread::Builder::new()
            .name("herald".to_owned())
            .spawn(move || {
                herald.run(|| herald_halted.load(Ordering::Acquire));
                herald
            })
            .map_err(started("herald"))?,
        halted,
        halted_last,
        socket: config.gateway.unix.clone(),
        reload,
        unread,
    })
}
