//! A simulator of the whole daemon on one thread: the real stages, machine, desk, journal,
//! recovery and snapshots, over a disk that crashes, fails and lies ([`disk`]), clients whose
//! connections are cut at any byte ([`peer`]), and a clock that only moves when it is moved.
//!
//! Everything is drawn from a seed, so a seed is a whole history and comes again exactly. What is
//! real: every line of the daemon but its threads, its io_uring and its files; sockets are real
//! ones, in a directory of their own. What holds, and is checked on the way:
//!
//! - What the journal had called durable is there after every restart, with the same chain value.
//!   Where a device lied, the daemon may stop instead with a typed error; where it lied about
//!   the very last it was given and nothing on it bears witness, nobody can know. With a mirror a
//!   device that lied is mended from the other.
//! - State and desk after a restart are those of an uninterrupted run of the journal's commands.
//! - No client is told anything twice, differently, or with a gap; what was carried out stays so,
//!   what was said never to have happened does not happen later.
//! - A subscriber is told every trade and every balance that changed, once and in order, whatever is
//!   cut or crashes: what all records of the journal did, and nothing else.
//! - Funds and credits are conserved, and the funds are those that were paid in.
//! - When everything is mended, everything comes to rest: nobody waits for ever.

pub mod disk;
pub mod listener;
pub mod peer;

use crate::chance::Chance;
use disk::{BrokenDisk, Fault, Lie, SimDisk, Tear};
use listener::{Ledgers, Listener};
use peer::{ACCOUNTS, Peer, Stage};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use vendue_engine::clock::{Clock, Hands};
use vendue_engine::config::{Config, HostKey, SyncKey};
use vendue_engine::gateway::access::Access;
use vendue_engine::health::Health;
use vendue_engine::machine::Machine;
use vendue_engine::machine::command::Usage;
use vendue_engine::pipeline::record::{Arrival, split};
use vendue_engine::start::{Stages, StartError, make_stages, open_host, recover_state};
use vendue_engine::storage::{RecoverError, Verify, segment};
use vendue_engine::trail::{Dirs, State};
use vendue_wire::message::{ANY, Body, text};
use zerocopy::IntoBytes;

/// When the world begins, nanoseconds since 1970 UTC.
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;
/// Clients.
const PEERS: u64 = 4;
/// Times a restart is tried while power and devices fail.
const RESTARTS_MAX: u32 = 20;
/// Records that subscribers may not have been told of yet when everything is at rest: time passes.
const TOLD_LATER_MAX: u64 = 40;
/// Rounds in which everything must come to rest.
const REST_ROUNDS: u32 = 20_000;

/// How a seed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything came to rest and everything held.
    Rested,
    /// A device had lied; the daemon stopped with an error that says what to do.
    Stopped,
    /// A device had lied about the last it was given; nothing is left that bears witness of it.
    Unwitnessed,
    /// Power took what `journal.sync = "never"` had not asked any device to keep.
    Unsynced,
}

/// What happened in a seed.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Records in the journal.
    pub records: u64,
    /// Restarts.
    pub restarts: u64,
    /// Trades.
    pub trades: u64,
    /// Reports that clients got.
    pub reports: u64,
    /// Failures that devices reported.
    pub faults: u64,
    /// A device lied and was mended from its mirror.
    pub mended: bool,
    /// A number that differs when anything in the history does.
    pub digest: u64,
}

/// How something is broken that the simulator takes for sound: a test of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The disk.
    Disk(BrokenDisk),
    /// The daemon shows what is not durable yet.
    ShowsEarly,
    /// The gateway's ring loses a request now and then.
    LosesRequests,
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps before everything is mended.
    pub steps: u64,
    /// What the simulator is to find out.
    pub broken: Option<Broken>,
    /// Keep the log of every step.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { steps: 6000, broken: None, log: false }
    }
}

/// Something did not hold.
#[derive(Debug)]
pub struct Violation {
    /// What.
    pub what: String,
    /// The log of every step, if it was kept.
    pub log: Vec<String>,
}

/// Simulates one seed.
///
/// # Errors
/// Something did not hold.
///
/// # Panics
/// If the daemon does.
pub fn simulate(seed: u64, options: Options) -> Result<Summary, Violation> {
    let mut world = World::new(seed, options);
    world.live().map_err(|what| {
        world.note(|| format!("VIOLATION: {what}"));
        Violation { what, log: std::mem::take(&mut world.log) }
    })
}

/// Says that something did not hold.
macro_rules! holds {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}

/// A running daemon.
struct Room {
    stages: Stages<SimDisk>,
    health: Arc<Health>,
}

/// What may go wrong in a seed.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// One in so many steps ends in a crash; 0: none does.
    crash_one_in: u64,
    /// One in so many steps cuts a connection.
    cut_one_in: u64,
    /// How power is lost.
    tear: Tear,
    /// One in so many incarnations has a device that fails.
    fault_one_in: u64,
    /// The lie that is told once.
    lie: Option<Lie>,
}

struct World {
    chance: Chance,
    options: Options,
    weather: Weather,
    disk: SimDisk,
    dirs: Dirs<SimDisk>,
    hands: Arc<Hands>,
    clock: Clock,
    config: Config,
    access: Access,
    _home: tempfile::TempDir,
    room: Option<Room>,
    peers: Vec<Peer>,
    listener: Listener,
    /// What the journal has called durable.
    durable: u64,
    /// Chain values by sequence, as the log had them.
    /// Last record executed: with `journal.sync = "never"` it may have been answered.
    executed: u64,
    points: BTreeMap<u64, u64>,
    /// Power was lost, out of order, since the last restart.
    scattered: bool,
    /// Power was lost since the last restart.
    powerless: bool,
    calm: bool,
    /// A crash soon after the lie was considered.
    tempted: bool,
    /// Stage that does not get its turn, and until which step.
    stalled: (u64, u64),
    restarts: u64,
    ended: Option<Outcome>,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, options: Options) -> World {
        let mut chance = Chance::new(seed);
        let home = tempfile::tempdir().expect("a directory for the socket");
        let lies =
            [Lie::Phantom, Lie::Misdirected, Lie::Torn, Lie::Flipped, Lie::Early, Lie::Rotten];
        let weather = Weather {
            crash_one_in: [0, 400, 1000, 2500][chance.below(4) as usize],
            cut_one_in: [20, 60, 300][chance.below(3) as usize],
            tear: if chance.below(3) == 0 { Tear::Scattered } else { Tear::InOrder },
            fault_one_in: 1 + chance.below(6),
            lie: (chance.below(3) == 0).then(|| lies[chance.below(6) as usize]),
        };
        let weather = match options.broken {
            // A client takes a lost request for a refused one when it logs on again: so nobody does.
            Some(Broken::LosesRequests) => {
                Weather { lie: None, crash_one_in: 0, cut_one_in: u64::MAX, ..weather }
            }
            // The simulator expects no other trouble than that the power goes.
            Some(_) => Weather { lie: None, tear: Tear::InOrder, crash_one_in: 400, ..weather },
            None => weather,
        };
        let mirrored = options.broken.is_none() && chance.below(2) == 0;
        let mut config = configuration(&mut chance, home.path(), mirrored);
        let disk = SimDisk::new(Chance::new(chance.draw()), options.log);
        if options.broken.is_none() && weather.lie.is_none() && chance.below(6) == 0 {
            config.journal.sync = SyncKey::Never;
        }
        if let Some(Broken::Disk(broken)) = options.broken {
            disk.break_with(broken);
        }
        if let Some(lie) = weather.lie {
            let device = if mirrored { chance.below(2) as usize } else { 0 };
            disk.lie(lie, device, 1 + chance.below(60));
        }
        let hands = Arc::new(Hands::at(BEGIN_NS));
        let access = Access::load(&config.access).expect("a table of grants");
        let peers = (1..=PEERS).map(|number| Peer::new(number, Chance::new(chance.draw())));
        let peers = peers.collect();
        let loses = config.journal.sync != SyncKey::Always;
        World {
            peers,
            listener: Listener::new(Chance::new(chance.draw()), loses),
            chance,
            options,
            weather,
            dirs: Dirs::below(disk.clone(), &config.data_dir),
            disk,
            clock: Clock::Set(hands.clone()),
            hands,
            config,
            access,
            _home: home,
            room: None,
            durable: 0,
            executed: 0,
            points: BTreeMap::new(),
            scattered: false,
            powerless: false,
            calm: false,
            tempted: false,
            stalled: (0, 0),
            restarts: 0,
            ended: None,
            log: Vec::new(),
        }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.options.log {
            self.log
                .extend(self.disk.take_trace().into_iter().map(|line| format!("    disk {line}")));
            self.log.push(text());
        }
    }

    /// The whole history.
    fn live(&mut self) -> Result<Summary, String> {
        let weather = self.weather;
        let (mirrored, synced) = (self.config.journal.mirror.is_some(), self.syncs());
        self.note(|| format!("weather {weather:?}, mirrored {mirrored}, synced {synced}"));
        self.restart()?;
        for step in 0..self.options.steps {
            if self.ended.is_some() {
                break;
            }
            self.step(step)?;
        }
        if self.ended.is_none() {
            self.rest()?;
        }
        let outcome = self.ended.unwrap_or(Outcome::Rested);
        if outcome == Outcome::Rested {
            self.check_end()?;
        }
        Ok(self.summary(outcome))
    }

    fn summary(&self, outcome: Outcome) -> Summary {
        let machine = self.room.as_ref().map(|room| &room.stages.core.execute.machine);
        let reports = self.peers.iter().map(|peer| peer.reports.len() as u64).sum();
        let digest = machine.map_or(0, Machine::digest);
        let told = self.peers.iter().flat_map(|peer| peer.reports.iter().flatten());
        let fold = |sum: u64, &byte: &u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Summary {
            outcome,
            records: self.durable,
            restarts: self.restarts,
            trades: machine.map_or(0, Machine::trades),
            reports,
            faults: self.disk.faults(),
            mended: outcome == Outcome::Rested
                && self.config.journal.mirror.is_some()
                && self.disk.lied() != [false; 2],
            digest: told.fold(digest ^ self.disk.operations(), fold),
        }
    }

    // ---- one step --------------------------------------------------------------------------

    fn step(&mut self, step: u64) -> Result<(), String> {
        match self.chance.below(100) {
            0..62 => self.turn(step)?,
            62..64 => {
                let moved = self.disk.run_asides();
                self.note(|| format!("{step}: beside the log: {moved}"));
            }
            64..78 => self.carry(step)?,
            78..95 => self.act(step),
            95..99 => self.pass_time(step),
            _ => self.measure(),
        }
        if self.disk.is_dead() {
            self.crash(step)?;
            return self.restart();
        }
        self.look()?;
        self.trouble(step)
    }

    /// One turn of one stage.
    fn turn(&mut self, step: u64) -> Result<(), String> {
        if self.chance.below(60) == 0 {
            // A thread is not scheduled, or a device is slow.
            self.stalled = (self.chance.below(5), step + self.chance.below(150));
        }
        let at = self.chance.below(22);
        let Some(room) = &mut self.room else { return Ok(()) };
        let stages = &mut room.stages;
        let (name, moved) = match at / 4 {
            stage if stage == self.stalled.0 && step < self.stalled.1 => return Ok(()),
            0 => ("ingress", stages.ingress.turn()),
            1 => ("sequence", stages.core.sequence.turn()),
            2 => ("execute", stages.core.execute.turn()),
            3 => ("journal", stages.core.journal.turn()),
            4 => ("publish", stages.core.publish.turn()),
            _ if at == 20 => {
                ("actuate and herald", stages.actuate.turn() | stages.core.herald.turn())
            }
            _ => ("clerk", stages.core.clerk.turn()),
        };
        if moved {
            self.note(|| format!("{step}: {name}"));
        }
        Ok(())
    }

    fn carry(&mut self, step: u64) -> Result<(), String> {
        if self.chance.below(4) == 0 && self.listener.carry(false)? {
            self.note(|| format!("{step}: bytes of the listener"));
        }
        let at = self.chance.below(PEERS) as usize;
        if self.peers[at].carry(false)? {
            self.note(|| format!("{step}: bytes of peer {}", at + 1));
        }
        Ok(())
    }

    fn act(&mut self, step: u64) {
        let at = self.chance.below(PEERS) as usize;
        if self.chance.below(8) == 0 {
            self.listener.connect(&self.config.gateway.unix);
            if self.chance.below(self.weather.cut_one_in) == 0 {
                self.listener.cut();
            }
        }
        let (cut, beat) =
            (self.chance.below(self.weather.cut_one_in) == 0, self.chance.below(30) == 0);
        let peer = &mut self.peers[at];
        if peer.stage == Stage::Down {
            peer.connect(&self.config.gateway.unix);
        } else if cut {
            peer.cut();
            self.note(|| format!("{step}: peer {} is cut", at + 1));
        } else if beat {
            peer.beat();
        } else {
            // Alone or in a burst.
            let burst = 1 + self.chance.below(4);
            (0..burst).for_each(|_| peer.act(true));
        }
    }

    fn pass_time(&mut self, step: u64) {
        let ms = match self.chance.below(10) {
            0 => self.chance.below(2000),
            _ => self.chance.below(60),
        };
        self.hands.pass(Duration::from_millis(ms));
        if self.chance.below(40) == 0 {
            // A time service or an operator sets the clock, a minute forth or back at most.
            let now = self.clock.now_ns();
            let set = now - 60_000_000_000 + self.chance.below(120_000_000_000);
            self.hands.set_wall(set);
            self.note(|| format!("{step}: the clock is set from {now} to {set}"));
        }
    }

    /// The host measures use.
    fn measure(&mut self) {
        let Some(room) = &mut self.room else { return };
        if self.options.broken == Some(Broken::LosesRequests) {
            let _ = room.stages.core.sequence.inputs[1].pop();
        }
        let head = Arrival { request: 0.into(), session: ANY.into(), connection: ANY.into() };
        let mut usage = Usage::zeroed();
        usage.used_millicredits = self.chance.below(5000).into();
        usage.instance = (self.chance.below(u64::from(ACCOUNTS)) as u32).into();
        let measured = &mut room.stages.actuate.measured;
        let _ = measured.try_push(Usage::KIND.into(), &[head.as_bytes(), usage.as_bytes()]);
        measured.flush();
    }

    /// What must hold after every step.
    fn look(&mut self) -> Result<(), String> {
        let shows_early = self.options.broken == Some(Broken::ShowsEarly);
        let Some(room) = &mut self.room else { return Ok(()) };
        if shows_early {
            room.stages.core.publish.durable = u64::MAX;
        }
        let Room { stages, health } = room;
        stages.core.execute.machine.check_conservation();
        if let Some(log) = &stages.core.journal.log {
            let last = log.last();
            self.points.insert(last.sequence, last.chain);
            holds!(log.durable() <= last.sequence, "durable {} of {last:?}", log.durable());
        } else {
            holds!(!health.accepting(), "the journal has stopped and requests are accepted");
            let faults = health.fault_rows();
            holds!(!faults.is_empty(), "the journal has stopped and nobody is told");
        }
        self.executed = health.executed.get();
        let durable = health.durable.get();
        holds!(durable >= self.durable, "durable went back from {} to {durable}", self.durable);
        // Without syncing, answers do not wait for the journal.
        let waits = self.config.journal.sync == SyncKey::Always;
        holds!(
            shows_early || !waits || stages.core.publish.durable <= durable,
            "published beyond {durable}"
        );
        self.durable = durable;
        Ok(())
    }

    // ---- trouble ---------------------------------------------------------------------------

    /// Crashes, failures and stops, as the weather has them.
    fn trouble(&mut self, step: u64) -> Result<(), String> {
        let stopped = self.room.as_ref().is_some_and(|room| !room.health.accepting());
        if stopped && self.chance.below(20) == 0 {
            self.note(|| format!("{step}: the operator restarts a stopped daemon"));
            self.crash(step)?;
            return self.restart();
        }
        if !self.tempted && self.disk.lied() != [false; 2] {
            self.tempted = true;
            if self.chance.below(2) == 0 {
                self.note(|| format!("{step}: dies soon after the lie"));
                self.disk.die_in(1 + self.chance.below(4));
                return Ok(());
            }
        }
        if self.weather.crash_one_in == 0 || self.chance.below(self.weather.crash_one_in) > 0 {
            return Ok(());
        }
        match self.chance.below(6) {
            0 => {
                self.note(|| format!("{step}: a clean stop"));
                self.stop_cleanly()?;
                self.restart()
            }
            1 | 2 => {
                self.crash(step)?;
                self.restart()
            }
            _ => {
                let operations = 1 + self.chance.below(8);
                self.disk.die_in(operations);
                self.note(|| format!("{step}: dies {operations} operations from now"));
                Ok(())
            }
        }
    }

    /// The daemon or the power goes.
    fn crash(&mut self, step: u64) -> Result<(), String> {
        self.room = None;
        let kill = self.options.broken.is_none() && self.chance.below(3) == 0;
        if kill {
            self.disk.kill();
        } else {
            self.lose_power();
        }
        self.note(|| format!("{step}: crash, {}", if kill { "killed" } else { "without power" }));
        if self.weather.lie == Some(Lie::Rotten) && self.chance.below(2) == 0 {
            let device =
                usize::from(self.config.journal.mirror.is_some() && self.restarts % 2 == 1);
            if self.disk.lied() == [false; 2] {
                self.disk.rot(device);
            }
        }
        Ok(())
    }

    /// As the daemon stops when it is told to.
    fn stop_cleanly(&mut self) -> Result<(), String> {
        let Some(room) = &mut self.room else { return Ok(()) };
        room.health.stop();
        turn_until_quiet(room, &self.disk);
        let Room { stages, health } = room;
        stages.core.journal.close();
        turn_gateway(stages);
        stages.ingress.close_all();
        if health.accepting() {
            stages.core.clerk.snapshot();
        }
        let clean = health.accepting() && !self.disk.is_dead();
        let (durable, sequenced) = (health.durable.get(), health.sequenced.get());
        self.durable = durable;
        if clean {
            holds!(durable == sequenced, "a clean stop left {durable} of {sequenced}");
        }
        self.room = None;
        if self.disk.is_dead() {
            self.lose_power();
        } else {
            self.disk.kill();
        }
        Ok(())
    }

    // ---- restarts --------------------------------------------------------------------------

    /// Starts the daemon; again while power or a device fails meanwhile.
    fn restart(&mut self) -> Result<(), String> {
        for _ in 0..RESTARTS_MAX {
            self.plan_faults();
            self.scattered |= self.disk.take_scattered();
            let failures = self.disk.faults();
            self.disk.take_unread();
            let witness = self.witness();
            let sync = self.syncs();
            let health = Arc::new(Health::new(true, sync, self.clock.clone()));
            let recovered = recover_state(&self.config, &self.dirs, &health, &self.clock);
            self.restarts += 1;
            match recovered {
                Ok(recovered) => {
                    let logged = segment::list(&self.disk, &self.dirs.journal);
                    let through = logged.ok().and_then(|list| list.last().map(|first| first - 1));
                    let through = through.unwrap_or(0);
                    self.note(|| format!("recovered through {through}"));
                    return self.open(recovered, health, through, witness);
                }
                Err(error) => {
                    self.note(|| format!("no start: {error}"));
                    if self.disk.is_dead() {
                        self.lose_power();
                    } else if self.disk.faults() == failures {
                        return self.judge_stop(&error);
                    } else {
                        self.disk.kill();
                    }
                }
            }
        }
        Err(format!("no start in {RESTARTS_MAX} attempts"))
    }

    /// Lets a device fail in this incarnation, or the power during recovery.
    fn plan_faults(&mut self) {
        if self.calm || self.options.broken.is_some() {
            return;
        }
        if self.weather.crash_one_in > 0 && self.chance.below(5) == 0 {
            self.disk.die_in(1 + self.chance.below(30));
        }
        if self.chance.below(self.weather.fault_one_in) == 0 {
            let faults = [
                Fault::Write,
                Fault::ShortWrite,
                Fault::Flush,
                Fault::Space,
                Fault::Sync,
                Fault::Name,
                Fault::Read,
            ];
            let fault = faults[self.chance.below(7) as usize];
            let device =
                usize::from(self.config.journal.mirror.is_some() && self.chance.below(2) == 0);
            let after = 1 + self.chance.below(40);
            self.disk.fail(fault, device, after);
            self.note(|| format!("device {device} will fail: {fault:?} after {after}"));
        }
    }

    fn syncs(&self) -> bool {
        self.config.journal.sync == SyncKey::Always
    }

    fn lose_power(&mut self) {
        self.disk.lose_power(self.weather.tear);
        self.scattered |= self.weather.tear == Tear::Scattered;
        self.powerless = true;
    }

    /// The highest record that anything on the devices bears witness of.
    fn witness(&self) -> u64 {
        if self.disk.lied() == [false; 2] {
            return u64::MAX;
        }
        let snapshots = self.disk.files(&self.dirs.snapshots);
        let snapshot = snapshots.keys().filter_map(|name| name.strip_suffix(".snap")?.parse().ok());
        let mirror = self.config.journal.mirror.as_deref();
        let dirs = [Some(&*self.dirs.journal), mirror];
        let logs = dirs.into_iter().flatten().map(|dir| self.disk.evidence(dir));
        snapshot.chain(logs).max().unwrap_or(0)
    }

    /// Whether an error may keep the daemon from starting here.
    fn judge_stop(&mut self, error: &StartError) -> Result<(), String> {
        let lied = self.disk.lied();
        let mirrored = self.config.journal.mirror.is_some();
        let durable = self.durable;
        // Power may leave this of a flush on a device that writes out of order; on any, of what
        // nobody had synced.
        let power = |error: &RecoverError| {
            let lost = matches!(error, RecoverError::LostWrite { .. });
            let powerless = self.powerless || self.scattered;
            (!self.syncs() && powerless && lost) || (self.scattered && may_be_power(error, durable))
        };
        let allowed = match error {
            _ if lied == [true; 2] || (lied[0] && !mirrored) => true,
            StartError::Recover(_) if !self.syncs() && mirrored && self.powerless => true,
            StartError::Recover(RecoverError::BothDamaged { log, mirror }) => {
                (lied[0] || power(log)) && (lied[1] || power(mirror))
            }
            // What only the side that lied has was never acknowledged, but nobody can know.
            StartError::Recover(RecoverError::Stale { dir, last, damage }) => {
                // Two devices at once: this one lied, and power took the middle of a flush from the
                // other.
                let stale = usize::from(*dir != self.dirs.journal);
                let both = lied[stale] && (lied[1 - stale] || power(damage));
                let unknown = *last >= durable || !self.syncs();
                both || unknown && (lied != [false; 2] || power(damage))
            }
            StartError::Recover(error) => !mirrored && power(error),
            _ => false,
        };
        holds!(allowed, "no start, though nothing was lost (lied {lied:?}): {error}");
        let text = error.to_string();
        let says = ["estore", "emove", "ove away", "mend", "audit", "archive", "put the old"];
        holds!(
            says.iter().any(|word| text.contains(word)) || text.contains("damaged"),
            "an error that does not say what to do: {text}"
        );
        self.note(|| format!("stopped, as it may: {text}"));
        self.ended = Some(Outcome::Stopped);
        Ok(())
    }

    /// Holds what was recovered against what was durable and against an uninterrupted run, then
    /// makes the stages.
    fn open(
        &mut self,
        recovered: vendue_engine::start::Recovered<SimDisk>,
        health: Arc<Health>,
        through: u64,
        witness: u64,
    ) -> Result<(), String> {
        let (lied, unread) = (self.disk.lied(), self.disk.take_unread());
        let mirrored = self.config.journal.mirror.is_some();
        let last = recovered.log.last();
        let state = recovered.machine.encode();
        let desk = recovered.state.desk.encode();
        recovered.machine.check_conservation();
        let faults = health.fault_rows();
        holds!(
            faults.is_empty() || lied[0] || unread[0],
            "start-up complains of a sound disk: {:?}",
            faults.first().map(|fault| text(&fault.text).to_owned())
        );
        let mut dirs = vec![self.dirs.clone()];
        if let Some(mirror) = &self.config.journal.mirror {
            dirs.push(Dirs { journal: mirror.clone(), ..self.dirs.clone() });
        }
        self.points.retain(|&sequence, _| sequence <= self.durable);
        let mut lost = None;
        for (device, dirs) in dirs.iter().enumerate() {
            match self.disk.watch(|| self.replay(dirs, last.sequence)) {
                Ok((replayed, differs)) => {
                    let machine = replayed.machine.as_ref().map(Machine::encode);
                    holds!(
                        machine.as_ref() == Some(&state) && replayed.desk.encode() == desk,
                        "device {device}: the state is not that of an uninterrupted run to {}",
                        last.sequence
                    );
                    lost = differs;
                }
                // What start-up does not need is left to the audit, which finds it.
                Err(error) => {
                    // Nobody syncs a mirror with `journal.sync = "never"`.
                    let unsynced = !self.syncs() && mirrored;
                    holds!(
                        lied[device] || unsynced,
                        "device {device}: the trail is broken: {error}"
                    );
                    self.note(|| format!("the audit finds on device {device}: {error}"));
                }
            }
        }
        if !self.syncs() && through < self.executed {
            self.note(|| "what was answered and not written yet is lost".to_owned());
            self.ended = Some(Outcome::Unsynced);
            return Ok(());
        }
        if let Some(sequence) = lost.or((through < self.durable).then_some(through + 1)) {
            if !self.syncs() && self.powerless {
                self.note(|| format!("lost from {sequence}, as nothing was synced"));
                self.ended = Some(Outcome::Unsynced);
                return Ok(());
            }
            // A lie on one device and a read error on the other are two devices at once.
            let both = mirrored && (lied[0] && unread[1] || lied[1] && unread[0]);
            let durable = self.durable;
            holds!(
                both || (lied[0] && !mirrored && witness <= through),
                "record {sequence} was durable (through {durable}) and is lost: recovered \
                 {through}, witnessed {witness}, lied {lied:?}"
            );
            self.note(|| format!("lost from {sequence}, and nothing bears witness"));
            self.ended = Some(Outcome::Unwitnessed);
            return Ok(());
        }
        (self.scattered, self.powerless) = (self.disk.take_scattered(), false);
        let host = open_host(&self.config).map_err(|error| error.to_string())?;
        let time = (&health, &self.clock);
        let access = self.access.clone();
        let stages = make_stages(&self.config, &self.dirs, time, access, host, recovered)
            .map_err(|error| error.to_string())?;
        self.room = Some(Room { stages, health });
        self.look()
    }

    /// The state of an uninterrupted run of the journal in `dirs`, and the first sequence whose
    /// chain value is not the one that was durable.
    fn replay(&self, dirs: &Dirs<SimDisk>, through: u64) -> Result<(State, Option<u64>), String> {
        let mut state = State::empty(*self.config.gateway.replay_bytes_max.get_ref());
        let mut differs = None;
        let points = &self.points;
        state
            .advance(dirs, through, Verify::Trail, |_, record, _| {
                let known = points.get(&record.sequence);
                if differs.is_none() && known.is_some_and(|&chain| chain != record.chain_after()) {
                    differs = Some(record.sequence);
                }
                true
            })
            .map_err(|error| error.to_string())?;
        Ok((state, differs))
    }

    // ---- the end ---------------------------------------------------------------------------

    /// Mends everything and waits until everything has come to rest.
    fn rest(&mut self) -> Result<(), String> {
        self.note(|| "everything is mended".to_owned());
        self.calm = true;
        self.disk.mend();
        for round in 0..REST_ROUNDS {
            if self.room.as_ref().is_some_and(|room| !room.health.accepting()) {
                self.crash(u64::from(round))?;
                self.restart()?;
                if self.ended.is_some() {
                    return Ok(());
                }
            }
            let Some(room) = &mut self.room else { return Err("no daemon".to_owned()) };
            turn_gateway(&mut room.stages);
            turn_core(&mut room.stages, &self.disk);
            self.listener.connect(&self.config.gateway.unix);
            self.listener.carry(true)?;
            for peer in &mut self.peers {
                peer.carry(true)?;
                if peer.stage == Stage::Down {
                    peer.connect(&self.config.gateway.unix);
                }
                peer.act(!peer.has_set_up());
            }
            self.look()?;
            self.hands.pass(Duration::from_millis(1));
            // A journal that its device lied about may be unreadable, and then nobody is told more.
            let told = self.listener.told_through() + TOLD_LATER_MAX >= self.durable
                || self.disk.lied()[0];
            if round > 50 && told && self.peers.iter().all(Peer::is_settled) && self.is_quiet() {
                return Ok(());
            }
            if round % 400 == 399 {
                // Silence for longer than a heartbeat: the daemon would rightly hang up.
                self.peers.iter_mut().for_each(Peer::beat);
            }
        }
        let stages: Vec<Stage> = self.peers.iter().map(|peer| peer.stage).collect();
        Err(format!("nothing comes to rest: {stages:?}"))
    }

    fn is_quiet(&self) -> bool {
        let Some(room) = &self.room else { return true };
        let health = &room.health;
        let (sequenced, durable) = (health.sequenced.get(), health.durable.get());
        // A tick may always be under way.
        durable + 2 >= sequenced && health.executed.get() + 2 >= sequenced
    }

    /// What must hold of the whole.
    fn check_end(&mut self) -> Result<(), String> {
        let funds: i128 = self.peers.iter().map(|peer| peer.funds_micro).sum();
        let told: Vec<Vec<Vec<u8>>> =
            self.peers.iter_mut().map(|peer| std::mem::take(&mut peer.reports)).collect();
        self.stop_cleanly()?;
        self.restart()?;
        if self.ended.is_some() {
            return Ok(());
        }
        self.check_trail()?;
        let Some(room) = &self.room else { return Err("no daemon at the end".to_owned()) };
        let issued = i128::from(room.stages.core.execute.machine.ledger().funds_issued);
        holds!(issued == funds, "{funds} were paid in, {issued} are there");
        // Everything that anybody was told can be had again, the same.
        for (at, before) in told.into_iter().enumerate() {
            let mut again = Peer::new(at as u64 + 1, Chance::new(1));
            again.made = std::mem::take(&mut self.peers[at].made);
            self.peers[at] = again;
            self.hear_again(at, &before)?;
        }
        Ok(())
    }

    /// The journal holds what clients asked for, and nothing else.
    fn check_trail(&mut self) -> Result<(), String> {
        let (peers, durable, mut wrong) = (&self.peers, self.durable, None);
        let (mut ledgers, mut told) = (Ledgers::default(), Ok(()));
        let mut state = State::empty(1024);
        let read = state.advance(&self.dirs, durable, Verify::Trail, |machine, record, outbox| {
            if told.is_ok() {
                told = ledgers.check(&self.listener, record.sequence, machine, outbox);
            }
            let (arrival, body) = split::<Arrival>(record.body);
            let Some(number) = machine.session_number(arrival.session.get()) else { return true };
            let peer = &peers[number as usize - 1];
            if !peer.has_made(record.kind, body) {
                wrong = Some((record.sequence, number));
            }
            wrong.is_none()
        });
        holds!(
            read.is_ok() || self.disk.lied() != [false; 2],
            "the journal cannot be read: {:?}",
            read.err()
        );
        holds!(wrong.is_none(), "record and peer {wrong:?}: nobody asked for this");
        told?;
        Ok(())
    }

    fn hear_again(&mut self, at: usize, before: &[Vec<u8>]) -> Result<(), String> {
        self.peers[at].connect(&self.config.gateway.unix);
        for _ in 0..REST_ROUNDS {
            let Some(room) = &mut self.room else { return Err("no daemon".to_owned()) };
            turn_gateway(&mut room.stages);
            turn_core(&mut room.stages, &self.disk);
            self.peers[at].carry(true)?;
            self.hands.pass(Duration::from_millis(1));
            if self.peers[at].stage == Stage::Open {
                let now = &self.peers[at].reports;
                // A session's orders may be cancelled when its connection goes: more, not other.
                holds!(
                    now.len() >= before.len() && now[..before.len()] == *before,
                    "peer {}: {} reports were told, now {} others",
                    at + 1,
                    before.len(),
                    now.len()
                );
                return Ok(());
            }
        }
        Err(format!("peer {} cannot log on at the end", at + 1))
    }
}

/// Whether this may be what power lost in the middle of a flush leaves, on a device that writes
/// out of order, with everything acknowledged still there.
fn may_be_power(error: &RecoverError, durable: u64) -> bool {
    matches!(
        error,
        RecoverError::LostWrite { good_through, one_flush: true, .. } if *good_through >= durable
    )
}

fn turn_gateway(stages: &mut Stages<SimDisk>) -> bool {
    stages.ingress.turn() | stages.core.publish.turn()
}

fn turn_core(stages: &mut Stages<SimDisk>, disk: &SimDisk) -> bool {
    let core = stages.core.sequence.turn() | stages.core.execute.turn();
    let aside = stages.core.clerk.turn() | stages.core.herald.turn() | disk.run_asides();
    core | stages.core.journal.turn() | stages.actuate.turn() | aside
}

fn turn_until_quiet(room: &mut Room, disk: &SimDisk) {
    let mut quiet = 0;
    for _ in 0..REST_ROUNDS {
        let moved = turn_gateway(&mut room.stages) | turn_core(&mut room.stages, disk);
        let waits = room.stages.core.journal.in_flight();
        quiet = if moved || waits { 0 } else { quiet + 1 };
        if quiet == 3 || disk.is_dead() {
            return;
        }
    }
}

fn spanned<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

/// A small daemon, so that every bound is near.
pub fn configuration(chance: &mut Chance, home: &Path, mirrored: bool) -> Config {
    let mut config = Config::embedded().expect("the embedded defaults");
    config.data_dir = "/log".into();
    config.host.kind = HostKey::DryRun;
    config.access[0].as_mut().uid = Some(nix::unistd::getuid().as_raw());
    config.tier.truncate(2);
    let (every_ms, call_ms) = [(0, 0), (100, 100), (200, 60)][chance.below(3) as usize];
    for tier in &mut config.tier {
        (tier.memory, tier.block_io, tier.network) = (None, None, None);
        if let Some(cpu) = &mut tier.cpu {
            cpu.get_mut().auction_every_ms = every_ms;
            cpu.get_mut().call_ms = Some(call_ms);
        }
    }
    let machine = &mut config.machine;
    machine.accounts_max = spanned(4);
    machine.instances_max = spanned(6);
    machine.orders_max = spanned(64);
    machine.orders_per_instance_max = spanned(24);
    machine.sessions_max = spanned(8);
    machine.tick_ms = spanned(20);
    machine.limit_window_s = spanned(1);
    machine.reversible_trades = spanned(16);
    machine.leases_max = spanned(16);
    let journal = &mut config.journal;
    journal.sync = SyncKey::Always;
    journal.mirror = mirrored.then(|| "/mirror".into());
    journal.segment_bytes = spanned([16, 24, 64][chance.below(3) as usize] << 10);
    journal.buffer_bytes = spanned([8, 16][chance.below(2) as usize] << 10);
    config.snapshot.every_records = spanned([20, 100, 1000][chance.below(3) as usize]);
    config.pipeline.ring_bytes = spanned(256 << 10);
    config.gateway.unix = home.join("socket");
    config.gateway.replay_bytes_max = spanned(16 << 20);
    config.gateway.logon_timeout_ms = spanned(3000);
    config
}
