//! The trail: state from the journal, and what the journal says.
//!
//! Start-up, snapshots, the audit and subscriptions read the same records through the same machine, so that
//! there is one way to rebuild a state and it is exercised all the time.

use crate::desk::{Desk, DeskError};
use crate::machine::command::{
    Command, DefineBook, DefineCredits, DefineExchange, Envelope, Genesis, SpareTiers,
};
use crate::machine::event::Outbox;
use crate::machine::state::StateError;
use crate::machine::{Broken, Machine};
use crate::pipeline::record::{Arrival, Outcome};
use crate::storage::segment::FileError;
use crate::storage::{Handed, Host, Medium, Point, ReadError, Reader, Record, Verify, snapshot};
use std::path::{Path, PathBuf};
use vendue_wire::code::Reject;
use vendue_wire::message::Body;
use zerocopy::FromBytes;

mod audit;
mod clerk;
mod herald;
pub mod notices;
pub mod report;

pub use clerk::Clerk;
pub use herald::Herald;

/// Why a state cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum TrailError {
    /// The journal cannot be read or is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A directory or file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A record cannot be executed.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A snapshot's content cannot be used.
    #[error(
        "the snapshot at {sequence} cannot be used: {why}; remove it to start from an older one"
    )]
    Snapshot {
        /// Its sequence.
        sequence: u64,
        /// Why.
        why: String,
    },
    /// The journal does not begin as one.
    #[error("the journal does not begin with a start-up record")]
    NoGenesis,
}

/// Where the daemon keeps things.
#[derive(Clone, Debug)]
pub struct Dirs<M: Medium = Host> {
    /// What they lie on.
    pub medium: M,
    /// Segments.
    pub journal: PathBuf,
    /// Snapshots.
    pub snapshots: PathBuf,
}

impl<M: Medium> Dirs<M> {
    /// Below a data directory.
    pub fn below(medium: M, data_dir: &Path) -> Dirs<M> {
        Dirs { medium, journal: data_dir.join("journal"), snapshots: data_dir.join("snapshots") }
    }
}

/// A state and the place in the journal it belongs to.
pub struct State {
    /// The machine; `None` before the first record.
    pub machine: Option<Machine>,
    /// The desk.
    pub desk: Desk,
    /// Last record in it.
    pub point: Point,
    outbox: Outbox,
    replay_bytes: usize,
}

impl State {
    /// Before the first record.
    pub fn empty(replay_bytes: usize) -> State {
        let desk = Desk::new(0, replay_bytes);
        State { machine: None, desk, point: Point::START, outbox: Outbox::new(0), replay_bytes }
    }

    /// The newest whole snapshot's state, or [`State::empty`]. Also says which newer snapshots
    /// are damaged.
    ///
    /// # Errors
    /// The directory cannot be read, or the snapshot is whole but not of this build.
    pub fn newest<M: Medium>(
        dirs: &Dirs<M>,
        replay_bytes: usize,
    ) -> Result<(State, Vec<String>), TrailError> {
        State::newest_through(dirs, replay_bytes, u64::MAX)
    }

    /// As [`State::newest`], of the snapshots of records up to `through`.
    ///
    /// # Errors
    /// As for [`State::newest`].
    pub fn newest_through<M: Medium>(
        dirs: &Dirs<M>,
        replay_bytes: usize,
        through: u64,
    ) -> Result<(State, Vec<String>), TrailError> {
        let newest = snapshot::newest_valid_through(&dirs.medium, &dirs.snapshots, through)?;
        let damaged = newest.damaged.iter().map(ToString::to_string).collect();
        let Some((meta, payload)) = newest.snapshot else {
            return Ok((State::empty(replay_bytes), damaged));
        };
        let sequence = meta.point.sequence;
        let wrong = |why: String| TrailError::Snapshot { sequence, why };
        let (machine, desk) = decode(&payload, replay_bytes).map_err(wrong)?;
        if machine.sequence() != sequence {
            return Err(wrong("it holds another sequence than it says".to_owned()));
        }
        let outbox = machine.outbox();
        let state = State { machine: Some(machine), desk, point: meta.point, outbox, replay_bytes };
        Ok((state, damaged))
    }

    /// Executes the records after this state, through `through`, calling `seen` after each with
    /// the machine and what it said.
    ///
    /// # Errors
    /// The journal is damaged, or a record cannot be executed.
    pub fn advance<M: Medium>(
        &mut self,
        dirs: &Dirs<M>,
        through: u64,
        verify: Verify,
        mut seen: impl FnMut(&Machine, &Record<'_>, &Outbox) -> bool,
    ) -> Result<(), TrailError> {
        if through <= self.point.sequence {
            return Ok(());
        }
        let mut reader =
            Reader::open(&dirs.medium, &dirs.journal, self.point.sequence + 1, through, verify)?;
        let mut go_on = true;
        while go_on && let Some(record) = reader.next()? {
            self.execute(&record)?;
            if let Some(machine) = &self.machine {
                go_on = seen(machine, &record, &self.outbox);
            }
        }
        Ok(())
    }

    /// Executes the records after this state of all blocks that are handed over.
    ///
    /// # Errors
    /// A record cannot be executed.
    pub fn execute_all(&mut self, handed: &Handed) -> Result<(), TrailError> {
        while let Some(block) = handed.next_block() {
            let known = self.point.sequence;
            for record in block.records().filter(|record| record.sequence > known) {
                self.execute(&record)?;
            }
            handed.give_back(block);
        }
        Ok(())
    }

    /// Executes the next record; its events stay in the outbox.
    fn execute(&mut self, record: &Record<'_>) -> Result<(), TrailError> {
        let (sequence, kind) = (record.sequence, record.kind);
        let broken = |why| Broken::Record { sequence, kind, why };
        let parts = Arrival::ref_from_prefix(record.body);
        let (arrival, body) = parts.map_err(|_| broken(Reject::BadLength))?;
        let env = Envelope {
            sequence: record.sequence,
            time_ns: record.time_ns,
            request: arrival.request.get(),
            session: arrival.session.get(),
            connection: arrival.connection.get(),
        };
        let command = Command::parse(kind, body).map_err(broken)?;
        self.apply(&env, &command)?;
        self.point = Point { sequence, chain: record.chain_after() };
        Ok(())
    }

    /// Applies one command to machine and desk; its events stay in the outbox.
    ///
    /// # Errors
    /// [`Broken`], or the journal does not begin as one.
    pub fn apply(&mut self, env: &Envelope, command: &Command<'_>) -> Result<(), TrailError> {
        if let Command::Genesis(genesis) = command {
            self.begin(genesis)?;
        }
        let machine = self.machine.as_mut().ok_or(TrailError::NoGenesis)?;
        self.outbox.clear();
        machine.apply(env, command, &mut self.outbox)?;
        if let Command::DefineBook(book, _) = command {
            self.desk.market.add_book(book);
        }
        let outcome = Outcome { sequence: env.sequence.into(), time_ns: env.time_ns.into() };
        for event in self.outbox.events() {
            self.desk.absorb(&outcome, &event, &mut |_| {});
        }
        Ok(())
    }

    fn begin(&mut self, genesis: &Genesis) -> Result<(), TrailError> {
        let machine = Machine::new(genesis).map_err(Broken::Bounds)?;
        self.outbox = machine.outbox();
        self.desk = Desk::new(genesis.sessions_max.get(), self.replay_bytes);
        self.machine = Some(machine);
        Ok(())
    }

    /// Writes a snapshot of this state.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save<M: Medium>(&self, dirs: &Dirs<M>) -> Result<(), FileError> {
        let Some(machine) = &self.machine else { return Ok(()) };
        let state = machine.encode();
        let mut payload = Vec::with_capacity(state.len() + 8);
        payload.extend((state.len() as u64).to_le_bytes());
        payload.extend(state);
        payload.extend(self.desk.encode());
        let Point { sequence, chain } = self.point;
        let (medium, dir) = (&dirs.medium, &dirs.snapshots);
        snapshot::write(medium, dir, sequence, chain, machine.time_ns(), &payload)
    }
}

fn decode(payload: &[u8], replay_bytes: usize) -> Result<(Machine, Desk), String> {
    let short = || StateError::Length("snapshot").to_string();
    let (length, rest) = payload.split_at_checked(8).ok_or_else(short)?;
    let length = u64::from_le_bytes(length.try_into().map_err(|_| short())?) as usize;
    let (state, desk) = rest.split_at_checked(length).ok_or_else(short)?;
    let machine = Machine::decode(state).map_err(|error| error.to_string())?;
    // The digest that must match is the whole: what was read is what would be written.
    if machine.encode() != state {
        return Err("its state does not survive being read".to_owned());
    }
    let desk =
        Desk::decode(&machine, replay_bytes, desk).map_err(|error: DeskError| error.to_string())?;
    Ok((machine, desk))
}

/// The start-up records of a new journal: `credits` only of books that do not have the usual.
pub fn start_records(
    genesis: &Genesis,
    books: &[DefineBook],
    credits: &[DefineCredits],
    exchanges: &[DefineExchange],
    spare: Option<SpareTiers>,
) -> Vec<(u8, Vec<u8>)> {
    use zerocopy::IntoBytes;
    std::iter::once((Genesis::KIND, genesis.as_bytes().to_vec()))
        .chain(books.iter().map(|book| (DefineBook::KIND, book.as_bytes().to_vec())))
        .chain(credits.iter().map(|rules| (DefineCredits::KIND, rules.as_bytes().to_vec())))
        .chain(spare.iter().map(|spare| (SpareTiers::KIND, spare.as_bytes().to_vec())))
        .chain(exchanges.iter().map(|row| (DefineExchange::KIND, row.as_bytes().to_vec())))
        .collect()
}
