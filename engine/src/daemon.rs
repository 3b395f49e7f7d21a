//! The daemon's life: recover, start the pipeline, serve until told to stop, drain, snapshot. All of
//! it in one process, or one part of it.

#[cfg(not(any(sanitized, fuzzed)))]
use crate::admin::{self, Http};
use crate::apart::{self, Meeting, Part};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, HostKey, SyncKey, ThreadKeys};
use crate::gateway::access::Access;
use crate::gateway::seal::Seals;
use crate::gateway::{listen, tls};
use crate::health::{Health, WORDS};
use crate::pipeline::actuate::Actuate;
use crate::pipeline::ingress::{Ingress, Reload};
use crate::pipeline::{self, Stage, Threads};
use crate::start::{
    Core, ReloadEnds, StartError, make_actuate, make_core, make_ingress, make_stages, open_host,
    recover_state, system,
};
use crate::storage::Host;
use crate::trail::{Clerk, Dirs, Herald};
use crossbeam::channel::{Receiver, Sender};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use vendue_wire::doorbell::Doorbell;
use vendue_wire::memory::Words;

/// How long a stop waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);

type Thread<T> = std::thread::JoinHandle<T>;

/// A running daemon, or one part of it.
pub struct Daemon {
    health: Arc<Health>,
    /// Stops the core and the actuator.
    halted: Arc<AtomicBool>,
    /// Stops what tells of what they did, after them.
    halted_last: Arc<AtomicBool>,
    core: Option<CoreThreads>,
    actuate: Option<Thread<Vec<Stage>>>,
    gateway: Option<Gateway>,
    /// Of several processes, the one that has gone first without being told to.
    gone: Arc<OnceLock<Part>>,
    /// To the core, from another process of the daemon.
    to_core: Option<UnixStream>,
    pulse: Pulse,
}

/// What shows that the threads live: how often each has turned. The journal's is not among them: it
/// waits for a device as long as that takes.
#[derive(Clone, Default)]
pub struct Pulse(Vec<(&'static str, Arc<AtomicU64>)>);

impl Pulse {
    /// How often each thread has turned.
    pub fn turns(&self) -> Vec<u64> {
        self.0.iter().map(|(_, turns)| turns.load(Ordering::Relaxed)).collect()
    }

    /// The first thread that has not turned since it had turned so often.
    pub fn stalled(&self, before: &[u64]) -> Option<&'static str> {
        let same = self
            .0
            .iter()
            .zip(before)
            .find(|((_, turns), before)| turns.load(Ordering::Relaxed) == **before);
        same.map(|((name, _), _)| *name)
    }
}

/// What the core's stages run on.
struct CoreThreads {
    /// `None` where the gateway's thread runs it.
    core: Option<Thread<Vec<Stage>>>,
    /// As for the core.
    journal: Option<Thread<Vec<Stage>>>,
    /// `None` where the gateway is of the same process.
    publish: Option<Thread<Vec<Stage>>>,
    clerk: Thread<Clerk<Host>>,
    /// Handed back, so that its ends of rings go where the gateway's do.
    herald: Thread<Herald<Host>>,
}

/// The gateway's thread and what it has of the outside.
struct Gateway {
    thread: Thread<Vec<Stage>>,
    /// The socket's file, unless the service manager opened it.
    socket: Option<PathBuf>,
    reload: Sender<Reload>,
    /// Takes back a reload that the gateway has not taken.
    unread: Receiver<Reload>,
    #[cfg(not(any(sanitized, fuzzed)))]
    http: Option<Http>,
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
        let access = Access::load(&config.access)?;
        let (dirs, recovered) = recover(config, &health, &clock)?;
        let time = (&health, &clock);
        let stages = make_stages(config, &dirs, time, access, host, recovered)?;
        let mut daemon = Daemon::idle(health.clone());
        let keys = &config.pipeline;
        daemon.start_actuate(config, stages.actuate, stages.actuate_bell)?;
        let in_gateway = daemon.start_core(config, stages.core, keys.threads.into())?;
        daemon.start_gateway(config, stages.ingress, in_gateway, stages.reloads)?;
        Ok(daemon)
    }

    /// Starts one part of a daemon of several processes. The core returns before the others have
    /// come; they return once the core has let them in. If one of them goes, the others get SIGTERM;
    /// [`Daemon::stop`] then says who it was.
    ///
    /// # Errors
    /// As for [`Daemon::start`].
    pub fn start_part(config: &Config, part: Part) -> Result<Daemon, StartError> {
        match part {
            Part::Core => Daemon::start_core_apart(config),
            Part::Gateway => {
                let access = Access::load(&config.access)?;
                let (stream, ends, words) = apart::as_gateway(config)?;
                let health = shared_health(config, words);
                let (ingress, reloads) =
                    make_ingress(config, ends, access, (&health, &Clock::Host))?;
                let mut daemon = Daemon::idle(health);
                daemon.start_gateway(config, ingress, Vec::new(), reloads)?;
                daemon.watch(stream)?;
                Ok(daemon)
            }
            Part::Actuate => {
                let host = open_host(config)?;
                let (stream, ends, words) = apart::as_actuate(config)?;
                let health = shared_health(config, words);
                let (stage, bell) = make_actuate(config, ends, host, (&health, &Clock::Host));
                let mut daemon = Daemon::idle(health);
                daemon.start_actuate(config, stage, bell)?;
                daemon.watch(stream)?;
                Ok(daemon)
            }
        }
    }

    fn start_core_apart(config: &Config) -> Result<Daemon, StartError> {
        let words = Words::create(WORDS).map_err(system("make shared memory"))?;
        let health = shared_health(config, words);
        let (dirs, recovered) = recover(config, &health, &Clock::Host)?;
        let time = (&health, &Clock::Host);
        let (core, gateway, actuate) = make_core(config, &dirs, time, recovered, Threads::Apart)?;
        let meeting = Meeting::open(config, &health, &gateway, &actuate)?;
        let mut daemon = Daemon::idle(health.clone());
        daemon.start_core(config, core, Threads::Apart)?;
        let gone = daemon.gone.clone();
        std::thread::Builder::new()
            .name("meeting".to_owned())
            .spawn(move || {
                meeting.attend(move |part, was_told| tell_gone(&gone, part, was_told));
            })
            .map_err(system("start the thread meeting"))?;
        Ok(daemon)
    }

    /// Nothing runs yet.
    fn idle(health: Arc<Health>) -> Daemon {
        Daemon {
            health,
            halted: Arc::default(),
            halted_last: Arc::default(),
            core: None,
            actuate: None,
            gateway: None,
            gone: Arc::default(),
            to_core: None,
            pulse: Pulse::default(),
        }
    }

    /// Shows whether its threads live.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Starts the thread of some stages.
    fn run(
        &mut self,
        name: &'static str,
        stages: Vec<Stage>,
        bell: Doorbell,
        keys: &ThreadKeys,
        halted: &Arc<AtomicBool>,
    ) -> Result<Thread<Vec<Stage>>, StartError> {
        let turns = Arc::default();
        let thread = pipeline::start(name, stages, bell, keys, halted, &turns)
            .map_err(system(format!("start the thread {name}")))?;
        if name != "journal" {
            self.pulse.0.push((name, turns));
        }
        Ok(thread)
    }

    /// Has the process told to stop once the core is gone.
    fn watch(&mut self, stream: UnixStream) -> Result<(), StartError> {
        let gone = self.gone.clone();
        self.to_core = Some(stream.try_clone().map_err(system("keep the socket to the core"))?);
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                apart::wait_until_gone(stream);
                tell_gone(&gone, Part::Core, false);
            })
            .map_err(system("start the thread watch"))?;
        Ok(())
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
        let tls = new
            .gateway
            .tls
            .as_ref()
            .map(|keys| tls::load(&keys.dir, tls::Clients::MustShow))
            .transpose()?;
        let seals = new.gateway.token_keys.as_deref().map(Seals::load).transpose()?;
        #[cfg(not(any(sanitized, fuzzed)))]
        let http_tls = new.http.as_ref().map(admin::keys).transpose()?.flatten();
        if let Some(gateway) = &self.gateway {
            #[cfg(not(any(sanitized, fuzzed)))]
            if let Some(http) = &gateway.http {
                http.reload(access.clone(), http_tls);
            }
            // The gateway takes it within a second; what it has not taken by now is out of date.
            let _ = gateway.unread.try_recv();
            let _ =
                gateway.reload.try_send(Reload { access, keys: new.gateway.clone(), tls, seals });
        }
        Ok(needs_restart(old, new))
    }

    /// Drains, stops every thread, closes the journal and writes a snapshot.
    ///
    /// # Errors
    /// The journal could not be closed whole, or another process of the daemon went first; the text
    /// says why.
    pub fn stop(mut self) -> Result<(), String> {
        // Who goes from now on goes because all are told to stop.
        let gone = self.gone.get().copied();
        // A part that is told to stop alone takes the others along: they see it go.
        if self.core.is_some() {
            self.health.stop();
            self.drain();
        }
        #[cfg(not(any(sanitized, fuzzed)))]
        if let Some(http) = self.gateway.as_mut().and_then(|gateway| gateway.http.take()) {
            http.stop();
        }
        self.halted.store(true, Ordering::Release);
        join(self.actuate.take())?;
        join(self.core.as_mut().and_then(|core| core.core.take()))?;
        // Nothing is sequenced any more: the journal closes behind the last record.
        self.halted_last.store(true, Ordering::Release);
        join(self.core.as_mut().and_then(|core| core.journal.take()))?;
        join(self.core.as_mut().and_then(|core| core.publish.take()))?;
        if let Some(gateway) = self.gateway.take() {
            for stage in join(Some(gateway.thread))?.unwrap_or_default() {
                if let Stage::Ingress(mut ingress) = stage {
                    ingress.close_all();
                }
            }
            if let Some(socket) = gateway.socket {
                let _ = std::fs::remove_file(socket);
            }
        }
        if let Some(core) = self.core.take() {
            join(Some(core.herald))?;
            if let Some(mut clerk) = join(Some(core.clerk))?
                && self.health.accepting()
            {
                clerk.snapshot();
            }
        }
        match gone {
            _ if !self.health.accepting() => Err("the journal had stopped".to_owned()),
            Some(part) => Err(format!("the {} has gone; start all parts again", part.name())),
            None => {
                self.to_core.iter().for_each(apart::leave);
                Ok(())
            }
        }
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

    fn start_actuate(
        &mut self,
        config: &Config,
        mut stage: Actuate,
        bell: Doorbell,
    ) -> Result<(), StartError> {
        if let Some(bytes_max) = config.forecast.series_bytes_max() {
            stage.foresee(bytes_max, config.data_dir.join("forecast").join("series"));
        }
        let stages = vec![Stage::Actuate(Box::new(stage))];
        let halted = self.halted.clone();
        let keys = &config.pipeline.actuate;
        self.actuate = Some(self.run("actuate", stages, bell, keys, &halted)?);
        self.health.act();
        Ok(())
    }

    /// Starts the core's threads; returns the stages that the gateway's thread is to run, after
    /// ingress.
    fn start_core(
        &mut self,
        config: &Config,
        core: Core<Host>,
        threads: Threads,
    ) -> Result<Vec<Stage>, StartError> {
        let Core { sequence, execute, journal, publish, mut clerk, mut herald, doorbells } = core;
        let [core_bell, journal_bell, publish_bell] = doorbells;
        let sequence = Stage::Sequence(Box::new(sequence));
        let execute = Stage::Execute(Box::new(execute));
        let journal = Stage::Journal(Box::new(journal));
        let publish = Stage::Publish(Box::new(publish));
        let keys = &config.pipeline;
        let (halted, last) = (self.halted.clone(), self.halted_last.clone());
        let (mut core_thread, mut journal_thread, mut publish_thread) = (None, None, None);
        let mut in_gateway = Vec::new();
        if threads == Threads::One {
            in_gateway = match config.journal.sync {
                // In the order data takes; the device works while the machine does.
                SyncKey::Always => vec![sequence, journal, execute, publish],
                // Nobody waits for the journal: what was said goes out first.
                SyncKey::Never => vec![journal, sequence, execute, publish],
            };
        } else {
            let stages = vec![sequence, execute];
            core_thread = Some(self.run("core", stages, core_bell, &keys.core, &halted)?);
            let stages = vec![journal];
            journal_thread =
                Some(self.run("journal", stages, journal_bell, &keys.journal, &last)?);
            if threads == Threads::Apart {
                let keys = ThreadKeys { cpu: None, ..keys.gateway.clone() };
                let stages = vec![publish];
                publish_thread = Some(self.run("publish", stages, publish_bell, &keys, &last)?);
            } else {
                in_gateway = vec![publish];
            }
        }
        let (clerk_halted, herald_halted) = (last.clone(), last);
        self.core = Some(CoreThreads {
            core: core_thread,
            journal: journal_thread,
            publish: publish_thread,
            clerk: std::thread::Builder::new()
                .name("clerk".to_owned())
                .spawn(move || {
                    clerk.run(|| clerk_halted.load(Ordering::Acquire));
                    clerk
                })
                .map_err(system("start the thread clerk"))?,
            herald: std::thread::Builder::new()
                .name("herald".to_owned())
                .spawn(move || {
                    herald.run(|| herald_halted.load(Ordering::Acquire));
                    herald
                })
                .map_err(system("start the thread herald"))?,
        });
        Ok(in_gateway)
    }

    fn start_gateway(
        &mut self,
        config: &Config,
        ingress: Ingress,
        others: Vec<Stage>,
        (reload, unread): ReloadEnds,
    ) -> Result<(), StartError> {
        #[cfg(not(any(sanitized, fuzzed)))]
        let mut ingress = ingress;
        #[cfg(not(any(sanitized, fuzzed)))]
        let http = match &config.http {
            Some(keys) => {
                let tls = admin::keys(keys)?;
                let side = ingress.open_side().map_err(system("open the side door"))?;
                let callers = (side, ingress.access.clone());
                let listening = system(format!("serve HTTP on {}", keys.address.get_ref()));
                Some(Http::start(keys, tls, callers, &self.health).map_err(listening)?)
            }
            None => None,
        };
        let stages = [Stage::Ingress(Box::new(ingress))].into_iter().chain(others).collect();
        // The gateway waits in its poll: its doorbell is registered there, this one is never rung.
        let (_, unused) = vendue_wire::doorbell::pair().map_err(system("make a doorbell"))?;
        let keys = &config.pipeline.gateway;
        let halted = self.halted_last.clone();
        let thread = self.run("gateway", stages, unused, keys, &halted)?;
        let socket = (!listen::is_given("unix")).then(|| config.gateway.unix.clone());
        self.gateway = Some(Gateway {
            thread,
            socket,
            reload,
            unread,
            #[cfg(not(any(sanitized, fuzzed)))]
            http,
        });
        Ok(())
    }
}

/// Waits for a thread's end.
fn join<T>(thread: Option<Thread<T>>) -> Result<Option<T>, String> {
    thread.map(Thread::join).transpose().map_err(|_| "a stage has panicked".to_owned())
}

/// Brings the state back.
fn recover(
    config: &Config,
    health: &Arc<Health>,
    clock: &Clock,
) -> Result<(Dirs<Host>, crate::start::Recovered<Host>), StartError> {
    let dirs = Dirs::below(Host, &config.data_dir);
    std::fs::create_dir_all(&config.data_dir)
        .map_err(system(format!("make {}", config.data_dir.display())))?;
    let recovered = recover_state(config, &dirs, health, clock)?;
    Ok((dirs, recovered))
}

/// The numbers of a daemon of several processes.
fn shared_health(config: &Config, words: Words) -> Arc<Health> {
    let dry_run = config.host.kind == HostKey::DryRun;
    let sync = config.journal.sync == SyncKey::Always;
    Arc::new(Health::shared(words, dry_run, sync, Clock::Host))
}

/// Another process of the daemon has gone: this one stops as if it were told to.
fn tell_gone(gone: &OnceLock<Part>, part: Part, was_told: bool) {
    if was_told {
        tracing::info!(part = part.name(), "a part was told to stop");
    } else {
        let _ = gone.set(part);
    }
    if let Err(errno) = kill(Pid::this(), Signal::SIGTERM) {
        tracing::error!("cannot stop after the {}: {errno}", part.name());
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
            gateway.remove("token_keys");
        }
        _ => {}
    }
    Some(section)
}
