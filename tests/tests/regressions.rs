//! What the simulator has found, each as a history of its own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vendue_engine::clock::{Clock, Hands};
use vendue_engine::config::{Config, SyncKey};
use vendue_engine::gateway::access::Access;
use vendue_engine::health::Health;
use vendue_engine::start::{Recovered, Stages, StartError, make_stages, open_host, recover_state};
use vendue_engine::storage::{Log, LogConfig, Point, Sync as LogSync, recover};
use vendue_engine::trail::Dirs;
use vendue_tests::chance::Chance;
use vendue_tests::sim::configuration;
use vendue_tests::sim::disk::{Fault, SimDisk, Tear};
use vendue_wire::code::Role;
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, encode};
use vendue_wire::message::{ANY, Body, CreateAccount, Logon, LogonAck, field_cut};

/// A daemon's surroundings.
struct Place {
    disk: SimDisk,
    config: Config,
    clock: Clock,
    health: Arc<Health>,
    home: tempfile::TempDir,
}

impl Place {
    fn new(seed: u64) -> Place {
        let mut chance = Chance::new(seed);
        let home = tempfile::tempdir().unwrap();
        let config = configuration(&mut chance, home.path(), seed % 2 == 1);
        let clock = Clock::Set(Arc::new(Hands::at(1_000_000_000)));
        let health = Arc::new(Health::new(true, true, clock.clone()));
        Place { disk: SimDisk::new(chance, false), config, clock, health, home }
    }

    fn dirs(&self) -> Dirs<SimDisk> {
        Dirs::below(self.disk.clone(), &self.config.data_dir)
    }

    fn recover(&self) -> Result<Recovered<SimDisk>, StartError> {
        recover_state(&self.config, &self.dirs(), &self.health, &self.clock)
    }

    fn stages(&self) -> Stages<SimDisk> {
        let access = Access::load(&self.config.access).unwrap();
        let (time, host) = ((&self.health, &self.clock), open_host(&self.config).unwrap());
        let recovered = self.recover().unwrap();
        make_stages(&self.config, &self.dirs(), time, access, host, recovered).unwrap()
    }
}

/// A crash between the records that begin a journal left one that no start accepted.
#[test]
fn a_first_start_that_crashed_anywhere_is_finished_by_the_next() {
    let mut half_begun = 0;
    for operations in 1..40 {
        for seed in 0..8 {
            let place = Place::new(seed);
            place.disk.die_in(operations);
            let first = place.recover();
            let crashed = first.is_err();
            drop(first);
            place.disk.lose_power(Tear::InOrder);
            let dirs = place.dirs();
            let left = recover(&place.disk, &dirs.journal, None, Point::START).unwrap().last;
            half_begun += u64::from(crashed && left.sequence == 1);
            let second = place.recover().unwrap_or_else(|error| panic!("{operations}: {error}"));
            assert_eq!(second.machine.definitions(), place.config.books());
        }
    }
    assert!(half_begun > 0, "no crash came between the records");
}

/// After a failed flush some systems take what is in memory for written. What a restarted daemon
/// read back and answered for went with the power.
#[test]
fn what_is_recovered_after_a_failed_flush_outlives_the_power() {
    let dir = Path::new("/log/journal");
    let config =
        LogConfig { segment_bytes: 16 << 10, buffer_bytes: 8 << 10, sync: LogSync::Always };
    let open = |disk: &SimDisk| {
        let recovered = recover(disk, dir, None, Point::START).unwrap();
        (recovered.last.sequence, Log::open(config, recovered).unwrap())
    };
    let append = |log: &mut Log<SimDisk>| {
        let sequence = log.last().sequence + 1;
        log.append(sequence, sequence, 0, 7, &[5; 100]).unwrap();
    };
    for seed in 0..200 {
        let disk = SimDisk::new(Chance::new(seed), false);
        let (_, mut log) = open(&disk);
        (0..20).for_each(|_| append(&mut log));
        disk.fail(Fault::Flush, 0, 1);
        while log.wait().is_ok() {}
        drop(log);
        disk.kill();
        let (answered, mut log) = open(&disk);
        append(&mut log);
        while !log.idle() {
            log.wait().unwrap();
        }
        drop(log);
        disk.lose_power(Tear::InOrder);
        let (kept, _) = open(&disk);
        assert_eq!(kept, answered + 1, "seed {seed}");
    }
}

/// With `journal.sync = "never"` a snapshot outlived the records it was made of, and no start
/// accepted the two together.
#[test]
fn a_snapshot_does_not_outlive_its_records() {
    for seed in 0..16 {
        let mut place = Place::new(seed);
        place.config.journal.sync = SyncKey::Never;
        let mut stages = place.stages();
        turn(&mut stages);
        stages.core.clerk.snapshot();
        drop(stages);
        place.disk.lose_power(Tear::InOrder);
        place.recover().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// Connects over the daemon's socket.
fn connect(home: &Path) -> UnixStream {
    let socket: PathBuf = home.join("socket");
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

fn send<M: Body>(stream: &mut UnixStream, number: u64, message: &M) {
    let mut bytes = [0; FRAME_BYTES_MAX];
    let length = encode(number, message, &mut bytes);
    stream.write_all(&bytes[..length]).unwrap();
}

fn log_on(stream: &mut UnixStream) {
    let mut logon = Logon::zeroed();
    logon.session = 7.into();
    (logon.account, logon.instance) = (ANY.into(), ANY.into());
    logon.role = Role::Operator as u8;
    send(stream, 0, &logon);
}

/// The answer to a logon, the first frame that came.
fn logon_ack(stream: &mut UnixStream) -> LogonAck {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes).unwrap();
    let frame = Frame::parse(&bytes[..count]).unwrap().unwrap();
    *frame.message::<LogonAck>().unwrap()
}

fn turn(stages: &mut Stages<SimDisk>) {
    for _ in 0..50 {
        stages.ingress.turn();
        stages.core.sequence.turn();
        stages.core.execute.turn();
        stages.core.journal.turn();
        stages.core.publish.turn();
    }
}

/// A request on the former connection was executed after the new one had been told what was.
#[test]
fn a_former_connection_is_not_heard_once_another_resumes_its_session() {
    let place = Place::new(2);
    let mut stages = place.stages();
    let mut former = connect(place.home.path());
    log_on(&mut former);
    turn(&mut stages);
    assert_eq!(logon_ack(&mut former).last_request.get(), 0);
    let mut resuming = connect(place.home.path());
    log_on(&mut resuming);
    // The logon is on its way to the machine when the former connection's request arrives.
    (0..3).for_each(|_| _ = stages.ingress.turn());
    let mut account = CreateAccount::zeroed();
    (account.client_id, account.name) = (1.into(), field_cut("late"));
    send(&mut former, 1, &account);
    (0..3).for_each(|_| _ = stages.ingress.turn());
    turn(&mut stages);
    assert_eq!(logon_ack(&mut resuming).last_request.get(), 0);
    assert_eq!(stages.core.execute.machine.census().0, 0, "it was told that nothing was executed");
    // It may say it again.
    send(&mut resuming, 1, &account);
    turn(&mut stages);
    assert_eq!(stages.core.execute.machine.census().0, 1);
}
