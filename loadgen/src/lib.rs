//! Open-loop load on a running daemon, with every reply checked.
//!
//! Read in this order: [`steps`] (what is sent, and when it is due), [`check`] (what must come
//! back), [`setup`] (accounts and instances to trade with), [`worker`] (threads that drive the
//! sessions), [`report`] (what is said in the end).
//!
//! [`meflow`] holds the file format of orders that `bench` and `loadgen` share.
//!
//! When a request is due is fixed before the run; its latency counts from then, not from when it
//! could be sent, so a daemon that stalls is charged for every request that waited meanwhile.

pub mod check;
pub mod meflow;
pub mod random;
pub mod report;
pub mod setup;
pub mod steps;
pub mod worker;

use std::time::Duration;
use vendue_wire::client::{ClientError, Endpoint};

/// Most sessions of one run.
pub const SESSIONS_MAX: usize = 1024;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The daemon.
    pub endpoint: Endpoint,
    /// Secret for TCP; zero elsewhere.
    pub token: [u8; 32],
    /// Sessions, each with its own connection.
    pub sessions: usize,
    /// Requests a second over all sessions; 0 for a closed loop.
    pub rate: u64,
    /// Closed loop: requests each session keeps unanswered.
    pub depth: usize,
    /// How long to send.
    pub time: Duration,
    /// Decides the flow.
    pub seed: u64,
    /// Names of instances to trade with; made when empty.
    pub instances: Vec<String>,
    /// Book to trade in.
    pub book: u16,
    /// How the names of what is made begin.
    pub prefix: String,
}

/// Why a run did not come to its end. A failed check is no error: it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Of the operator's session.
    #[error("setting up: {0}")]
    Setup(ClientError),
    /// Of a session under load.
    #[error("session {session}: {source}")]
    Session {
        /// Its number in this run.
        session: usize,
        /// Why.
        source: ClientError,
    },
    /// The daemon has no such book.
    #[error("the daemon has no book {0}; `hvctl tier` lists them")]
    NoBook(u16),
    /// The book's ladder is too short for the flow.
    #[error("book {book} has prices only up to {max}; the flow needs {need}")]
    ShortLadder {
        /// The book.
        book: u16,
        /// Its highest price in ticks.
        max: u32,
        /// Highest price in ticks needed.
        need: u32,
    },
    /// An instance named on the command line does not exist, or trades in another tier's books.
    #[error("no instance {0:?} in the tier of this book; `hvctl instance` lists them")]
    NoInstance(String),
    /// A name made of prefix, seed and number is too long.
    #[error("the name {0:?} is too long; use a shorter --account-prefix")]
    LongName(String),
    /// The host refused a call.
    #[error("waiting for the sessions: {0}")]
    Host(#[from] nix::errno::Errno),
}
