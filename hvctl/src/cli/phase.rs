//! `hvctl phase`: halts a book, calls it to an auction, lets it go on.

use super::door::{Reach, Trouble, Who};
use super::output::Output;
use hvctl::json::phase_name;
use serde_json::json;
use vendue_wire::code::Phase;
use vendue_wire::message::SetPhase;

/// `SetPhase.phase`: as scheduled.
const SCHEDULED: u8 = 3;

/// What a book does from now on.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Wanted {
    /// Orders that cross trade at once; the auction of a call is held first
    Continuous,
    /// Limit orders gather until the book becomes continuous; then they trade at one price
    Call,
    /// Orders can only be cancelled
    Halted,
    /// What the schedule says: continuous, where the configuration names no auctions
    Scheduled,
}

/// Which book, and what it does.
#[derive(Debug, clap::Args)]
pub struct PhaseCommand {
    /// Book, by number
    book: u16,
    /// Stands until the next such command
    phase: Wanted,
}

/// Runs the command.
pub fn run(command: &PhaseCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let phase = match command.phase {
        Wanted::Continuous => Phase::Continuous as u8,
        Wanted::Call => Phase::Call as u8,
        Wanted::Halted => Phase::Halted as u8,
        Wanted::Scheduled => SCHEDULED,
    };
    let (client_id, book) = (door.next_client_id().into(), command.book.into());
    let done = door.call(&SetPhase { client_id, book, phase, reserved: [0; 5] })?;
    let now = phase_name(done.value.get() as u8);
    let object = json!({ "book": command.book, "phase": now, "scheduled": phase == SCHEDULED });
    Ok(out.say(&object, &format!("book {} is {now}", command.book))?)
}
