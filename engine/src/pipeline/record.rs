//! What travels in the rings between stages: a fixed header, then a message's body. The ring's
//! tag is the message's kind.

use crate::machine::command::Envelope;
use vendue_wire::message::{ANY, U32, U64};
use vendue_wire::ring::{Consumer, Record};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Before a command that has no place in the order yet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Arrival {
    /// Request's number within its session.
    pub request: U64,
    /// Session's slot, or `ANY` for the daemon's own.
    pub session: U32,
    /// Connection it came over, or `ANY`.
    pub connection: U32,
}

impl Arrival {
    /// The daemon's own: no request, no session, no connection.
    pub const OWN: Arrival =
        Arrival { request: U64::new(0), session: U32::new(ANY), connection: U32::new(ANY) };
}

/// Before a command that has its place in the order.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ordered {
    /// Its place.
    pub sequence: U64,
    /// The sequencer's time, nanoseconds since 1970 UTC.
    pub time_ns: U64,
    /// As it arrived.
    pub arrival: Arrival,
}

/// Where in an ordered record the command as it arrived begins.
pub const ARRIVAL_AT: usize = std::mem::offset_of!(Ordered, arrival);

impl Ordered {
    /// The machine's view of it.
    #[inline]
    pub fn envelope(&self) -> Envelope {
        Envelope {
            sequence: self.sequence.get(),
            time_ns: self.time_ns.get(),
            request: self.arrival.request.get(),
            session: self.arrival.session.get(),
            connection: self.arrival.connection.get(),
        }
    }
}

/// Before the machine's events of one command.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Outcome {
    /// Command's place: nothing of this is shown before that is durable.
    pub sequence: U64,
    /// Command's time, nanoseconds since 1970 UTC.
    pub time_ns: U64,
}

/// Before a frame on its way to a connection. The tag is one of the `TO_` constants.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Delivery {
    /// Connection, for [`TO_CONNECTION`] and [`OPENED`].
    pub connection: U32,
    /// Session's slot, for [`TO_SESSION`] and [`OPENED`].
    pub slot: U32,
}

/// Before what a connection says about its subscription. The tag is the message's kind.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Subscription {
    /// Request's number, 0 where the connection is gone.
    pub request: U64,
    /// Connection.
    pub connection: U32,
    /// Account it may know of, or `ANY`.
    pub account: U32,
}

/// The frame is for whoever holds the session's slot now.
pub const TO_SESSION: u32 = 1;
/// The frame is for this connection.
pub const TO_CONNECTION: u32 = 2;
/// The frame is the logon's answer; the connection holds the slot from now on.
pub const OPENED: u32 = 3;
/// The logon was refused: send the frame, then close.
pub const REFUSED: u32 = 4;
/// Not a frame: a fault of another process, whose number is in place of the connection's; the
/// slot counts that process's faults from 0, where it begins to tell them anew.
pub const FAULT: u32 = 5;

/// The oldest record of a ring between our own stages, or `None` if there is none now.
///
/// # Panics
/// If the ring is corrupt: nobody but our own stages writes it.
#[inline(always)]
pub fn take(ring: &mut Consumer) -> Option<Record<'_>> {
    match ring.pop() {
        Ok(record) => record,
        Err(corrupt) => panic!("a ring between our own stages is corrupt: {corrupt}"),
    }
}

/// Splits a ring record into its header and the rest.
///
/// # Panics
/// If the record is shorter than the header: only our own stages write these rings.
#[inline]
pub fn split<H: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8]) -> (&H, &[u8]) {
    match H::ref_from_prefix(bytes) {
        Ok(parts) => parts,
        Err(_) => panic!("a stage wrote a record shorter than its header"),
    }
}
