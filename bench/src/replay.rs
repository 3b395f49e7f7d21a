//! Recovery: orders a second from a journal into a running state, beside reading the same bytes and
//! checking their checksums.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{Command, Envelope};
use vendue_engine::machine::event::Outbox;
use vendue_engine::pipeline::record::Arrival;
use vendue_engine::start::replay;
use vendue_engine::storage::{Append, Host, Log, LogConfig, Point, Sync, recover};
use vendue_engine::trail::{Dirs, State};
use vendue_wire::code::Resource;
use vendue_wire::message::{
    ANY, Accepted, Body, Cancel, CreateAccount, CreateInstance, Deposit, GrantCredits, U32,
    field_cut,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::daemon::AnyError;
use crate::flow::{CANCEL, Flow};
use crate::generate::generate;
use crate::ours::{self, ACCOUNTS};
use crate::pin::{Processors, pin, pin_to};
use crate::report::Pair;
use crate::run::median;

/// Live orders the flow keeps to, and operations behind them.
const LIVE: usize = 20_000;
const OPERATIONS: usize = 1_000_000;
/// Bytes of reports kept for each session, as in the embedded configuration.
const REPLAY_BYTES: usize = 64 << 10;

const CONFIG: LogConfig =
    LogConfig { segment_bytes: 16 << 20, buffer_bytes: 1 << 20, sync: Sync::Never };

/// Measures `replay.orders` on the device below `directory`.
///
/// # Errors
/// The journal cannot be written or read.
pub fn measure(
    processors: Processors,
    runs: usize,
    directory: &Path,
    show: &mut dyn FnMut(Pair),
) -> Result<(), AnyError> {
    pin(processors.asking)?;
    let dir = tempfile::tempdir_in(directory)?;
    let dirs = Dirs::below(Host, dir.path());
    let (records, digest) = write(&dirs, &generate(7, 1, LIVE, OPERATIONS))?;
    let (mut ours, mut floor, mut own_time) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..runs {
        let start = Instant::now();
        bytes = checksum(&dirs.journal)?;
        floor.push(records as f64 / start.elapsed().as_secs_f64());
        pin_to(&[processors.asking, processors.answering])?;
        let (start, used) = (Instant::now(), processor_seconds()?);
        let (state, _log) = replay(&dirs, None, State::empty(REPLAY_BYTES))?;
        ours.push(records as f64 / start.elapsed().as_secs_f64());
        own_time.push(records as f64 / (processor_seconds()? - used));
        pin(processors.asking)?;
        let machine = state.machine.ok_or("the journal makes a machine")?;
        if (machine.sequence(), machine.digest()) != (records, digest) {
            return Err("the journal replays to another state than it was written from".into());
        }
    }
    let pair = Pair::new("replay.orders", "orders/s", &ours, &floor);
    let met = pair.ours.median >= 5e6;
    show(
        pair.goal(">= 5000000 orders a second", met)
            .fact("records", records)
            .fact("bytes", bytes)
            .fact("orders_per_second_of_own_time", median(own_time).round())
            .method(format!(
                "{runs} interleaved runs on CPUs {} and {}, the journal in the page cache, the \
                 digest compared; verified on one and executed on the other, as at start-up; floor: \
                 the same bytes read and their CRC32C computed, on one",
                processors.asking, processors.answering
            )),
    );
    Ok(())
}

/// Processor time of this process: what others take of the processors is not in it.
fn processor_seconds() -> Result<f64, AnyError> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

/// Reads every byte of the journal and computes the checksum of each portion; bytes read.
fn checksum(journal: &Path) -> Result<u64, AnyError> {
    let mut buffer = vec![0; 256 << 10];
    let (mut bytes, mut sum) = (0, 0);
    for entry in std::fs::read_dir(journal)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "log") && !path.is_file() {
            continue;
        }
        let mut file = File::open(path)?;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            sum ^= crc32c::crc32c(&buffer[..read]);
            bytes += read as u64;
        }
    }
    std::hint::black_box(sum);
    Ok(bytes)
}

/// A machine and the log of what it was told.
struct Writer {
    machine: Machine,
    outbox: Outbox,
    log: Log,
    sequence: u64,
}

impl Writer {
    fn tell<M: Body>(&mut self, session: u32, body: &M) -> Result<(), AnyError> {
        self.sequence += 1;
        let sequence = self.sequence;
        let request = if session == ANY { 0 } else { sequence };
        let env = Envelope { sequence, time_ns: sequence, request, session, connection: ANY };
        let arrival =
            Arrival { request: request.into(), session: session.into(), connection: ANY.into() };
        let mut bytes = arrival.as_bytes().to_vec();
        bytes.extend_from_slice(body.as_bytes());
        loop {
            match self.log.append(sequence, sequence, session, M::KIND, &bytes) {
                Ok(()) => break,
                Err(Append::Full) => drop(self.log.wait()?),
                Err(error) => return Err(error.into()),
            }
        }
        let command = Command::parse(M::KIND, body.as_bytes()).map_err(|code| format!("{code}"))?;
        self.outbox.clear();
        self.machine.apply(&env, &command, &mut self.outbox)?;
        if self.outbox.events().any(|event| event.kind == 0x94) {
            return Err(format!("{} was rejected", M::NAME).into());
        }
        Ok(())
    }

    fn handle(&self) -> u64 {
        let accepted = |event: vendue_engine::machine::event::Event<'_>| {
            event.read::<Accepted>().map(|accepted| accepted.handle.get())
        };
        self.outbox.events().find_map(accepted).unwrap_or_default()
    }
}

/// Writes the flow as a journal; its records, and the digest it must replay to.
fn write(dirs: &Dirs, flow: &Flow) -> Result<(u64, u64), AnyError> {
    let genesis = ours::genesis(ACCOUNTS, 1, flow.expected.live_max + 1);
    let machine = Machine::new(&genesis).map_err(|error| error.to_string())?;
    let outbox = machine.outbox();
    let log = Log::open(CONFIG, recover(&Host, &dirs.journal, None, Point::START)?)?;
    let mut writer = Writer { machine, outbox, log, sequence: 0 };
    writer.tell(ANY, &genesis)?;
    set_up(&mut writer)?;
    let mut handles = vec![0; flow.records.len() + 1];
    let timed = flow.prefill + flow.ops;
    for record in &flow.records[..timed] {
        if record.kind == CANCEL {
            let handle = handles[record.id as usize];
            writer.tell(1, &Cancel { handle: u64::into(handle) })?;
            continue;
        }
        let sells = u32::from(record.side);
        let order = ours::order(record, sells * ACCOUNTS + record.id % ACCOUNTS);
        writer.tell(1, &order)?;
        handles[record.id as usize] = writer.handle();
    }
    let Writer { machine, log, .. } = writer;
    log.close()?;
    Ok((machine.sequence(), machine.digest()))
}

fn set_up(writer: &mut Writer) -> Result<(), AnyError> {
    writer.tell(ANY, &ours::definition(0, Resource::Cpu as u8))?;
    writer.tell(ANY, &ours::operator(1))?;
    for trader in 0..2 * ACCOUNTS {
        let name = field_cut(&format!("trader {trader}"));
        let client_id = |at: u64| (u64::from(trader) * 4 + at).into();
        let (sells_to, buys_from) = (u64::MAX.into(), u64::MAX.into());
        let account = CreateAccount {
            client_id: client_id(1),
            sells_to,
            buys_from,
            name,
            ..FromZeros::new_zeroed()
        };
        writer.tell(0, &account)?;
        let amount_micro = (1 << 57).into();
        let deposit = Deposit {
            client_id: client_id(2),
            amount_micro,
            account: trader.into(),
            reserved: U32::ZERO,
        };
        writer.tell(0, &deposit)?;
        let instance = CreateInstance {
            client_id: client_id(3),
            account: trader.into(),
            baseline_vru: [1, 0, 0, 0, 0].map(U32::new),
            name,
            ..FromZeros::new_zeroed()
        };
        writer.tell(0, &instance)?;
        let grant = GrantCredits {
            client_id: client_id(4),
            amount_millicredits: (1 << 50).into(),
            instance: trader.into(),
            resource: 0,
            reserved: [0; 3],
        };
        writer.tell(0, &grant)?;
    }
    writer.tell(ANY, &ours::operator(2))
}
