//! What outlives the process: the log, its recovery, and snapshots.
//!
//! Read in the order in which bytes take it: a [`record`](Record) is laid out in a buffer, the
//! [`Log`] writes it into a [`segment`] of each device, [`recover`] checks what a crash left,
//! [`Reader`] reads it back, and [`snapshot`] shortens the way. All of it stands on a [`Medium`].
//! Storage knows nothing of what a record means.

pub mod medium;
pub use medium::{Host, Medium};

pub mod record;
pub mod segment;

mod disk;
mod prepare;

mod log;
pub use log::{Append, Log, LogConfig, LogError, Sync};

mod handover;
pub use handover::{Block, Handed, Handing, handover};

mod reader;
pub use reader::{ReadError, Reader, Stop, Verify};

mod recover;
pub use recover::{Cut, Rebuilt, RecoverError, Recovered, recover, recover_handing};

pub mod snapshot;

pub use record::{BODY_BYTES_MAX, Record};

/// A place in the log: everything up to and including `sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Point {
    /// Last sequence included; 0 before the first record.
    pub sequence: u64,
    /// Chain value after that record; 0 before the first.
    pub chain: u64,
}

impl Point {
    /// Before the first record.
    pub const START: Point = Point { sequence: 0, chain: 0 };
}
