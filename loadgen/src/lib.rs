//! Load on a running daemon, with every reply checked.
//!
//! Read in this order: [`schedule`] (when requests are due), [`profile`] and [`steps`] (what
//! tenants ask for), [`meflow`] (what a file asks for, shared with the benchmarks), [`check`] (what
//! must come back to one session), [`trades`] (what the reports of all must say together),
//! [`setup`] (accounts and instances to trade with), [`session`] and [`worker`] (threads that drive
//! thousands of sessions), [`attack`] (peers without manners beside them), [`record`] (every frame
//! in a file, and its check), [`run`] (the whole), [`report`] and [`plot`] (what is said in the end).
//!
//! When a request is due is fixed before the run; its latency counts from then, not from when it
//! could be sent, so a daemon that stalls is charged for every request that waited meanwhile.

pub mod attack;
pub mod check;
pub mod meflow;
pub mod plot;
pub mod profile;
pub mod random;
pub mod record;
pub mod report;
pub mod run;
pub mod schedule;
pub mod session;
pub mod setup;
pub mod steps;
pub mod trades;
pub mod worker;

use profile::Mix;
use std::path::PathBuf;
use std::time::Duration;
use vendue_wire::client::{ClientError, Endpoint};
use vendue_wire::code::{Goodbye, Reject};

/// Most sessions of one run.
pub const SESSIONS_MAX: usize = 1 << 14;
/// Most steps of a ramp.
pub const RAMP_STEPS_MAX: usize = 100;

/// A rate that changes in steps over the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ramp {
    /// Requests a second at first.
    pub from: u64,
    /// Requests a second in the last step.
    pub to: u64,
    /// Steps, all of one length.
    pub steps: usize,
}

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// The daemon.
    pub endpoint: Endpoint,
    /// Secret for TCP; zero elsewhere.
    pub token: [u8; 32],
    /// Sessions, each with its own connection, and how they behave.
    pub mix: Mix,
    /// Requests a second over all sessions; 0 for a closed loop.
    pub rate: u64,
    /// Instead of one rate.
    pub ramp: Option<Ramp>,
    /// Closed loop: requests each session keeps unanswered.
    pub depth: usize,
    /// How long to send; a flow file is sent whole instead.
    pub time: Duration,
    /// Decides what is sent.
    pub seed: u64,
    /// Names of instances to trade with; made when empty.
    pub instances: Vec<String>,
    /// Book to trade in, or the first of a flow's.
    pub book: u16,
    /// How the names of what is made begin.
    pub prefix: String,
    /// Requests from a file instead of drawn ones.
    pub flow: Option<meflow::Flow>,
    /// Attackers beside the sessions: which, and how many of each kind.
    pub attack: Option<(attack::Kinds, usize)>,
    /// Where every request and reply is written down.
    pub record: Option<PathBuf>,
}

/// What to do where the daemon has no room for so many sessions.
fn raise(error: &ClientError) -> String {
    const REJECTS: [(Reject, &str); 3] = [
        (Reject::AccountsFull, "machine.accounts_max (of a new journal)"),
        (Reject::InstancesFull, "machine.instances_max (of a new journal)"),
        (Reject::SessionsFull, "machine.sessions_max (of a new journal)"),
    ];
    let bound = match *error {
        ClientError::Rejected { code, .. } | ClientError::Refused { code, .. } => {
            REJECTS.iter().find(|(reject, _)| *reject as u8 == code).map(|&(_, bound)| bound)
        }
        ClientError::Farewell { reason } if reason == Goodbye::TooManyConnections as u8 => {
            Some("gateway.connections_max")
        }
        _ => None,
    };
    bound.map_or_else(String::new, |bound| format!("; raise {bound}, or drive fewer sessions"))
}

/// Why a run did not come to its end. A failed check is no error: it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Of the operator's session.
    #[error("setting up: {error}{what}", error = .0, what = raise(.0))]
    Setup(ClientError),
    /// Of a session under load.
    #[error("session {session}: {source}{what}", what = raise(source))]
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
    /// A flow file says what comes out only of empty books.
    #[error("book {book} has {orders} open orders; a flow file needs empty books")]
    BookInUse {
        /// The book.
        book: u16,
        /// Orders in it.
        orders: u32,
    },
    /// An instance named on the command line does not exist, or trades in another tier's books.
    #[error("no instance {0:?} in the tier of this book; `hvctl instance` lists them")]
    NoInstance(String),
    /// An instance of that name is another account's or another tier's.
    #[error("the instance {0:?} is another's already; use another --account-prefix or --seed")]
    NameTaken(String),
    /// A name made of prefix, seed and number is too long.
    #[error("the name {0:?} is too long; use a shorter --account-prefix")]
    LongName(String),
    /// Client ids rise, so the ids of a flow's orders must.
    #[error("order {0} of the flow comes after one with a higher id; ids must rise")]
    FlowIds(u32),
    /// The system gives too few descriptors for the sessions.
    #[error(
        "{need} sessions and attackers need more than the {have} descriptors a process may \
             have; raise the limit (ulimit -Hn) or use fewer"
    )]
    Descriptors {
        /// Connections.
        need: usize,
        /// Descriptors.
        have: u64,
    },
    /// The record cannot be written or read.
    #[error(transparent)]
    Record(#[from] record::RecordError),
    /// The picture cannot be written.
    #[error("plot {}: {what}", path.display())]
    Plot {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The host refused a call.
    #[error("waiting for the sessions: {0}")]
    Host(#[from] std::io::Error),
}
