//! The blocking client that every program and test of the house speaks through.
//!
//! One [`Client`] is one session on one connection, used by one thread. Requests are numbered,
//! buffered and sent on [`Client::flush`]; every waiting call flushes first. Heartbeats go out by
//! themselves from within any call. Reports are checked to come without a gap. While a call waits
//! for its own answer, other frames are kept, in order, for [`Client::recv`]. Nothing grows
//! without bound, nothing waits for ever.

mod endpoint;
mod link;
mod subscription;
mod tls;

pub use endpoint::{BadEndpoint, Endpoint, RING_BYTES_DEFAULT};
pub use subscription::{Notice, Place, Subscription};

use crate::board::BoardReader;
use crate::code::{Goodbye, Reject, Role};
use crate::frame::{FRAME_BYTES_MAX, Frame, FrameError, encode};
use crate::memory::AttachError;
use crate::message::{
    ANY, Attach, Attached, Body, Done, Farewell, Header, Heartbeat, Logon, LogonAck, Logout,
    QueryEnd, Refused, Rejected, Replay, SwapMoved, U64,
};
use crate::ring::{Corrupt, PushError};
use link::Link;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use zerocopy::{FromBytes, FromZeros};

/// How long a call waits for its answer, or for room to send, before it gives up.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of frames kept for [`Client::recv`] while a call waits for its own answer.
pub const STASH_BYTES_MAX: usize = 8 << 20;
/// Most rows taken from one page of an answer; no daemon sends pages that long.
pub const PAGE_ROWS_MAX: usize = 1 << 16;
/// Kinds of the sequenced reports, but for [`SwapMoved`].
const REPORT_KINDS: std::ops::RangeInclusive<u8> = 0x90..=0x9f;
/// `QueryEnd.next` after the last page.
const LAST_PAGE: u64 = u64::MAX;

/// Why a call on a [`Client`] failed. Unless said otherwise the connection is of no use any more:
/// drop the client, connect again with the same session number and replay.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or it may not be reached.
    #[error("cannot connect to {endpoint}: {source}; is vendued running, and is this its address?")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The two sides do not trust one another; the text says why and what to do.
    #[error("no TLS with {endpoint}: {source}")]
    Tls {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong.
        source: io::Error,
    },
    /// The kernel refused a call on an open connection.
    #[error("{call} the connection failed: {source}")]
    Io {
        /// What was tried.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The daemon ended the connection and said why.
    #[error("the daemon ended the connection: {}", goodbye_text(*reason))]
    Farewell {
        /// A [`Goodbye`].
        reason: u8,
    },
    /// The daemon is gone without a word.
    #[error("the daemon closed the connection without a reason; look at its log")]
    Closed,
    /// A request was refused before the core. The connection goes on, except after a logon.
    #[error("request {kind:#04x} refused: {} (detail {detail})", reject_text(*code))]
    Refused {
        /// Kind of the request.
        kind: u8,
        /// A [`Reject`].
        code: u8,
        /// See [`Refused::detail`].
        detail: u64,
    },
    /// The core refused a request; nothing changed and the connection goes on.
    #[error("request {kind:#04x} rejected: {}", reject_text(*code))]
    Rejected {
        /// Kind of the request.
        kind: u8,
        /// A [`Reject`].
        code: u8,
    },
    /// A report is missing or doubled.
    #[error("report {got} came where {expected} was due; connect again and replay from {expected}")]
    Gap {
        /// Sequence due.
        expected: u64,
        /// Sequence that came.
        got: u64,
    },
    /// Bytes that are no frame.
    #[error("the daemon sent bytes that are no frame: {0}")]
    Frame(#[from] FrameError),
    /// A ring record that is not one whole frame.
    #[error("the daemon sent a ring record of {bytes} bytes that is not one whole frame")]
    BadRecord {
        /// Bytes of the record.
        bytes: usize,
    },
    /// A frame that cannot come here.
    #[error("a frame of kind {kind:#04x} came where {wanted} was due")]
    Unexpected {
        /// Its kind.
        kind: u8,
        /// What was due.
        wanted: &'static str,
    },
    /// No answer came, or no room to send, within [`ANSWER_TIMEOUT`].
    #[error("the daemon did not {0} within {wait} s; look at `hvctl status`", wait = ANSWER_TIMEOUT.as_secs())]
    Timeout(&'static str),
    /// More than [`STASH_BYTES_MAX`] arrived while a call waited for its answer.
    #[error("too many reports arrived while waiting for an answer; receive more often")]
    StashFull,
    /// An answer's page has more than [`PAGE_ROWS_MAX`] rows.
    #[error("an answer has more than {PAGE_ROWS_MAX} rows in one page")]
    PageTooLong,
    /// An attach reply came with the wrong number of descriptors.
    #[error("{got} descriptors came with the attach reply instead of {want}")]
    Descriptors {
        /// Descriptors that came.
        got: usize,
        /// Descriptors due.
        want: usize,
    },
    /// Shared memory that came makes no sense.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The request ring makes no sense, or is too small for a frame.
    #[error(transparent)]
    Ring(PushError),
    /// The report ring makes no sense.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

fn reject_text(code: u8) -> String {
    Reject::from_u8(code).map_or(format!("unknown code {code}"), |reject| reject.to_string())
}

fn goodbye_text(reason: u8) -> String {
    Goodbye::from_u8(reason).map_or(format!("unknown reason {reason}"), |bye| bye.to_string())
}

/// Who logs on.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The session's number; 0 for an anonymous one that only reads.
    pub session: u64,
    /// Role asked for.
    pub role: Role,
    /// Account to act for, or [`ANY`].
    pub account: u32,
    /// Instance to act for, or [`ANY`].
    pub instance: u32,
    /// Secret to show over TCP; zero elsewhere.
    pub token: [u8; 32],
    /// Cancel this session's orders when the connection ends.
    pub cancel_on_disconnect: bool,
    /// Heartbeat interval proposed, milliseconds.
    pub heartbeat_ms: u32,
    /// Report from which to replay; 0 for none.
    pub replay_from: u64,
}

impl Identity {
    /// An anonymous session that only reads.
    pub fn observer() -> Identity {
        Identity {
            session: 0,
            role: Role::Observer,
            account: ANY,
            instance: ANY,
            token: [0; 32],
            cancel_on_disconnect: false,
            heartbeat_ms: 5_000,
            replay_from: 0,
        }
    }

    /// A new session that operates the host.
    pub fn operator() -> Identity {
        Identity { session: fresh_session(), role: Role::Operator, ..Identity::observer() }
    }

    /// A new session that acts for `account`.
    pub fn tenant(account: u32) -> Identity {
        Identity { session: fresh_session(), role: Role::Tenant, account, ..Identity::observer() }
    }

    /// The message that it logs on with.
    pub fn logon(&self) -> Logon {
        Logon {
            session: self.session.into(),
            token: self.token,
            replay_from: self.replay_from.into(),
            account: self.account.into(),
            instance: self.instance.into(),
            heartbeat_ms: self.heartbeat_ms.into(),
            role: self.role as u8,
            cancel_on_disconnect: u8::from(self.cancel_on_disconnect),
            reserved: [0; 2],
        }
    }
}

/// A session number that no other session has, for all practical purposes: made of the clock, the
/// process and a counter. Never zero.
pub fn fresh_session() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let seed = (now.as_nanos() as u64) ^ u64::from(std::process::id()) << 40 ^ call << 20;
    // SplitMix64's finaliser: near inputs give far outputs.
    let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31).max(1)
}

/// A frame that arrived, owned and without allocation. It is long, so it is better lent than moved.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its checked header.
    pub header: Header,
    /// Only the bytes that the header tells of are its own.
    body: [u8; FRAME_BYTES_MAX],
}

impl Received {
    /// A copy of `frame`.
    pub fn of(frame: &Frame<'_>) -> Received {
        let mut received = Received { header: frame.header, body: [0; FRAME_BYTES_MAX] };
        received.set(frame);
        received
    }

    /// Becomes a copy of `frame`.
    #[inline]
    fn set(&mut self, frame: &Frame<'_>) {
        self.header = frame.header;
        self.body[..frame.body.len()].copy_from_slice(frame.body);
    }

    /// Its kind.
    pub fn kind(&self) -> u8 {
        self.header.kind
    }

    /// Its number among the session's reports, or 0.
    pub fn sequence(&self) -> u64 {
        self.header.sequence.get()
    }

    /// The body's bytes.
    pub fn body(&self) -> &[u8] {
        &self.body[..usize::from(self.header.length.get()) - size_of::<Header>()]
    }

    /// The body as message `M`, if the kind and the length are `M`'s.
    pub fn message<M: Body>(&self) -> Option<&M> {
        if self.kind() != M::KIND {
            return None;
        }
        M::ref_from_bytes(self.body()).ok()
    }

    /// The request that this frame answers: the number in its `request` field, if it has one that
    /// is not 0.
    pub fn request(&self) -> Option<u64> {
        use crate::message::{Accepted, Cancelled, Replaced, Subscribed, TaskAdmitted};
        let kind = self.kind();
        let answers = [
            Refused::KIND,
            Accepted::KIND,
            Cancelled::KIND,
            Replaced::KIND,
            Rejected::KIND,
            Done::KIND,
            QueryEnd::KIND,
            Subscribed::KIND,
            TaskAdmitted::KIND,
        ];
        if !answers.contains(&kind) {
            return None;
        }
        let (number, _) = U64::read_from_prefix(self.body()).ok()?;
        Some(number.get()).filter(|&number| number != 0)
    }
}

/// Frames kept for later, as bytes: rows of small frames take what they need and no more.
#[derive(Debug, Default)]
struct Stash(VecDeque<u8>);

impl Stash {
    fn push(&mut self, frame: &Received) -> Result<(), ClientError> {
        if self.0.len() + FRAME_BYTES_MAX > STASH_BYTES_MAX {
            return Err(ClientError::StashFull);
        }
        let mut bytes = [0; FRAME_BYTES_MAX];
        let (kind, sequence) = (frame.kind(), frame.sequence());
        let length = crate::frame::encode_raw(kind, sequence, frame.body(), &mut bytes);
        self.0.extend(&bytes[..length]);
        Ok(())
    }

    /// Moves the oldest frame to `into`; false if there is none.
    #[inline]
    fn pop(&mut self, into: &mut Received) -> bool {
        if self.0.is_empty() {
            return false;
        }
        self.pop_oldest(into);
        true
    }

    #[inline(never)]
    fn pop_oldest(&mut self, into: &mut Received) {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let have = self.0.len().min(FRAME_BYTES_MAX);
        for (to, from) in bytes[..have].iter_mut().zip(&self.0) {
            *to = *from;
        }
        match Frame::parse(&bytes[..have]) {
            Ok(Some(frame)) => into.set(&frame),
            other => panic!("a stashed frame reads back as {other:?}"),
        }
        self.0.drain(..usize::from(into.header.length.get()));
    }
}

/// One session on one connection.
#[derive(Debug)]
pub struct Client {
    /// The daemon's answer to the logon.
    pub ack: LogonAck,
    endpoint: Endpoint,
    link: Link,
    stash: Stash,
    /// The frame taken last: it is lent from here.
    frame: Box<Received>,
    /// Sequence of the last message sent.
    sequence: u64,
    /// Last `client_id` given out.
    client_id: u64,
    /// Sequence the next report must have.
    expected: u64,
    /// First report of a replay that was asked for and has not begun.
    replay_due: Option<u64>,
    /// A heartbeat is sent after so much silence; half the agreed interval.
    beat_after: Option<Duration>,
    last_sent: Instant,
    /// Something was sent since `last_sent` was noted: whoever waits looks at the clock anyway.
    sent: bool,
}

impl Client {
    /// Connects and logs on; for shared memory also moves the session to its rings.
    ///
    /// # Errors
    /// Any [`ClientError`]; a refused logon is [`ClientError::Refused`] or
    /// [`ClientError::Farewell`].
    pub fn connect(endpoint: &Endpoint, identity: &Identity) -> Result<Client, ClientError> {
        let link = Link::connect(endpoint).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => ClientError::Tls { endpoint: endpoint.clone(), source },
            _ => ClientError::Connect { endpoint: endpoint.clone(), source },
        })?;
        Client::log_on(link, endpoint.clone(), identity)
    }

    /// Logs on over a connection that is there already: one end of a pair whose other end the daemon
    /// has.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub fn over(stream: UnixStream, identity: &Identity) -> Result<Client, ClientError> {
        let link =
            Link::over(stream).map_err(|source| ClientError::Io { call: "setting up", source })?;
        Client::log_on(link, Endpoint::Unix(PathBuf::new()), identity)
    }

    fn log_on(link: Link, endpoint: Endpoint, identity: &Identity) -> Result<Client, ClientError> {
        let mut client = Client {
            ack: LogonAck::zeroed(),
            endpoint,
            link,
            stash: Stash::default(),
            frame: Box::new(Received { header: Header::new_zeroed(), body: [0; FRAME_BYTES_MAX] }),
            sequence: 0,
            client_id: 0,
            expected: 1,
            replay_due: None,
            beat_after: None,
            last_sent: Instant::now(),
            sent: false,
        };
        client.push(0, &identity.logon())?;
        client.ack = client.wait_for_ack()?;
        client.sequence = client.ack.last_request.get();
        client.client_id = client.ack.last_client_id.get();
        client.expected = match identity.replay_from {
            0 => client.ack.next_sequence.get(),
            from => from,
        };
        let heartbeat = Duration::from_millis(client.ack.heartbeat_ms.get().into());
        client.beat_after = Some(heartbeat / 2).filter(|beat| !beat.is_zero());
        if let Endpoint::Shm { ring_bytes, .. } = client.endpoint {
            client.attach(0, ring_bytes)?;
            client.link.attach_rings()?;
        }
        Ok(client)
    }

    fn wait_for_ack(&mut self) -> Result<LogonAck, ClientError> {
        let frame = self.await_frame("answer the logon")?;
        if let Some(refused) = frame.message::<Refused>() {
            return Err(refusal(refused));
        }
        let kind = frame.kind();
        frame.message().copied().ok_or(ClientError::Unexpected { kind, wanted: "a logon's answer" })
    }

    /// Sends `Attach` and waits for its answer, whose descriptors are then in the link.
    fn attach(&mut self, what: u8, ring_bytes: u32) -> Result<(), ClientError> {
        self.link.descriptors.clear();
        let request =
            self.send(&Attach { what, reserved: [0; 3], ring_bytes: ring_bytes.into() })?;
        loop {
            let frame = self.await_frame("hand over shared memory")?;
            if frame.message::<Attached>().is_some_and(|attached| attached.what == what) {
                return Ok(());
            }
            check_refusal(frame, request)?;
            self.stash.push(&self.frame)?;
        }
    }

    /// The board: market data read with no system call. With shared memory it is asked for over
    /// a short connection of its own, since descriptors cannot travel in a ring.
    ///
    /// # Errors
    /// [`ClientError::Refused`] over TCP; otherwise any [`ClientError`].
    pub fn attach_board(&mut self) -> Result<BoardReader, ClientError> {
        if let Endpoint::Shm { path, .. } = &self.endpoint {
            let socket = Endpoint::Unix(path.clone());
            let who = Identity {
                session: if self.ack.session.get() == 0 { 0 } else { fresh_session() },
                role: Role::from_u8(self.ack.role).unwrap_or(Role::Observer),
                account: self.ack.account.get(),
                instance: self.ack.instance.get(),
                ..Identity::observer()
            };
            return Client::connect(&socket, &who)?.attach_board();
        }
        self.attach(1, 0)?;
        let got = self.link.descriptors.len();
        match (got, self.link.descriptors.pop()) {
            (1, Some(board)) => Ok(BoardReader::attach(board)?),
            _ => Err(ClientError::Descriptors { got, want: 1 }),
        }
    }

    /// A `client_id` greater than every earlier one of the session.
    pub fn next_client_id(&mut self) -> u64 {
        self.client_id += 1;
        self.client_id
    }

    /// Buffers a message and returns the sequence it got. [`Client::flush`], or any call that
    /// waits, sends it.
    ///
    /// # Errors
    /// Any [`ClientError`] of a connection that is over.
    pub fn send<M: Body>(&mut self, message: &M) -> Result<u64, ClientError> {
        self.sequence += 1;
        self.push(self.sequence, message)?;
        Ok(self.sequence)
    }

    /// As [`Client::send`], but never waits: `None` if there is no room for the message now.
    ///
    /// # Errors
    /// Any [`ClientError`] of a connection that is over.
    pub fn try_send<M: Body>(&mut self, message: &M) -> Result<Option<u64>, ClientError> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = encode(self.sequence + 1, message, &mut bytes);
        if !self.link.push(&bytes[..length])? {
            return Ok(None);
        }
        self.sequence += 1;
        self.last_sent = Instant::now();
        Ok(Some(self.sequence))
    }

    /// Hands to the daemon what it takes now of what is buffered, and never waits. True if nothing
    /// is left. That the connection is over, the next [`Client::try_recv`] tells.
    ///
    /// # Errors
    /// Any [`ClientError`] of a connection that is over.
    pub fn try_flush(&mut self) -> Result<bool, ClientError> {
        self.link.flush_some()
    }

    fn push<M: Body>(&mut self, sequence: u64, message: &M) -> Result<(), ClientError> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = encode(sequence, message, &mut bytes);
        if !self.link.push(&bytes[..length])? {
            self.make_room(&bytes[..length])?;
        }
        self.sent = true;
        Ok(())
    }

    /// Flushes until `frame` could be buffered. What arrives meanwhile is kept, so that a daemon
    /// which waits for us to read does not wait for ever.
    fn make_room(&mut self, frame: &[u8]) -> Result<(), ClientError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            self.link.flush_some()?;
            if self.link.push(frame)? {
                return Ok(());
            }
            self.absorb_until_room(deadline)?;
        }
    }

    /// Hands everything buffered to the daemon.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if it takes nothing; otherwise why the connection is over.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while !self.link.flush_some()? {
            self.absorb_until_room(deadline)?;
        }
        if !self.link.deaf {
            return Ok(());
        }
        // The reason may be among what it sent before.
        while self.take()? {
            self.stash.push(&self.frame)?;
        }
        Err(ClientError::Closed)
    }

    fn absorb_until_room(&mut self, deadline: Instant) -> Result<(), ClientError> {
        while self.take()? {
            self.stash.push(&self.frame)?;
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(ClientError::Timeout("take requests"));
        }
        self.link.wait_for_room(deadline - now)
    }

    /// The next frame that concerns the caller, waiting for it at most `timeout`; `None` after
    /// that. Flushes first.
    ///
    /// # Errors
    /// [`ClientError::Gap`], [`ClientError::Farewell`], or why the connection is over.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<&Received>, ClientError> {
        let mut found = self.stash.pop(&mut self.frame);
        if !found {
            self.flush()?;
            // What came while flushing is older than what is still on the connection.
            found = self.stash.pop(&mut self.frame) || self.take_within(timeout)?;
        }
        Ok(found.then_some(&*self.frame))
    }

    /// The next frame that concerns the caller, if one is here. Does not flush, apart from a
    /// heartbeat that is due.
    ///
    /// # Errors
    /// As for [`Client::recv`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<&Received>, ClientError> {
        let found = self.stash.pop(&mut self.frame) || self.take()?;
        if !found && self.link.clock_is_due() {
            self.beat()?;
        }
        Ok(found.then_some(&*self.frame))
    }

    /// For callers that poll several clients: true if nothing is here now and the next arrival
    /// will make this client's descriptor (see [`AsFd`]) readable. After polling, call
    /// [`Client::try_recv`] until it returns `None`.
    pub fn prepare_wait(&mut self) -> bool {
        self.stash.0.is_empty() && self.link.prepare_wait()
    }

    /// Asks for the reports from number `from` again; `ReplayEnd` follows them.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub fn replay(&mut self, from: u64) -> Result<u64, ClientError> {
        self.replay_due = Some(from);
        self.send(&Replay { from: from.into() })
    }

    /// Says goodbye and closes the connection; the session can be resumed.
    ///
    /// # Errors
    /// As for [`Client::flush`]; a farewell that is already there is none.
    pub fn logout(mut self) -> Result<(), ClientError> {
        self.send(&Logout {})?;
        match self.flush() {
            Err(ClientError::Farewell { .. } | ClientError::Closed) => Ok(()),
            other => other,
        }
    }

    /// One page of a query's answer: calls `row` with each row, returns where the next page
    /// starts, if there is one. Other frames that arrive are kept for [`Client::recv`]. No other
    /// query of this client may be unanswered, since rows do not name theirs.
    ///
    /// # Errors
    /// [`ClientError::Refused`]; [`ClientError::Timeout`]; why the connection is over.
    pub fn ask_each<Q: Body>(
        &mut self,
        query: &Q,
        mut row: impl FnMut(&Received),
    ) -> Result<Option<u64>, ClientError> {
        // 0xd0 is a notice.
        let is_row = |kind| matches!(kind, 0xb1..=0xbf | 0xd1..=0xd9 | 0xdb..=0xdf | 0xe6..=0xed);
        let request = self.send(query)?;
        let mut rows = 0;
        loop {
            let frame = self.await_frame("answer a query")?;
            check_refusal(frame, request)?;
            if let Some(end) = frame.message::<QueryEnd>()
                && end.request.get() == request
            {
                return Ok(Some(end.next.get()).filter(|&next| next != LAST_PAGE));
            }
            if is_row(frame.kind()) {
                rows += 1;
                if rows > PAGE_ROWS_MAX {
                    return Err(ClientError::PageTooLong);
                }
                row(frame);
            } else {
                self.stash.push(&self.frame)?;
            }
        }
    }

    /// The rows of kind `R` in one page of a query's answer.
    ///
    /// # Errors
    /// As for [`Client::ask_each`].
    pub fn ask<R: Body, Q: Body>(&mut self, query: &Q) -> Result<Vec<R>, ClientError> {
        let mut rows = Vec::new();
        self.ask_each(query, |row| rows.extend(row.message::<R>()))?;
        Ok(rows)
    }

    /// The rows of kind `R` in all pages: `query` makes the question for the page that starts at
    /// its argument, first 0.
    ///
    /// # Errors
    /// As for [`Client::ask_each`].
    pub fn ask_all<R: Body, Q: Body>(
        &mut self,
        query: impl FnMut(u64) -> Q,
    ) -> Result<Vec<R>, ClientError> {
        let mut rows = Vec::new();
        self.ask_all_each(query, |row| rows.extend(row.message::<R>()))?;
        Ok(rows)
    }

    /// Each row in all pages, of whatever kind; `query` as for [`Client::ask_all`].
    ///
    /// # Errors
    /// As for [`Client::ask_each`].
    pub fn ask_all_each<Q: Body>(
        &mut self,
        mut query: impl FnMut(u64) -> Q,
        mut row: impl FnMut(&Received),
    ) -> Result<(), ClientError> {
        let mut from = 0;
        while let Some(next) = self.ask_each(&query(from), &mut row)? {
            // Pages go forward, or there would be no last one.
            if next <= from {
                return Err(ClientError::Unexpected {
                    kind: QueryEnd::KIND,
                    wanted: "a later page",
                });
            }
            from = next;
        }
        Ok(())
    }

    /// Sends a request and waits for the `R` that answers it (`Accepted`, `Cancelled`, `Done`...).
    /// Other frames are kept for [`Client::recv`].
    ///
    /// # Errors
    /// [`ClientError::Rejected`] or [`ClientError::Refused`] if that is the answer;
    /// [`ClientError::Timeout`]; why the connection is over.
    pub fn call_for<R: Body, M: Body>(&mut self, message: &M) -> Result<R, ClientError> {
        let request = self.send(message)?;
        loop {
            let frame = self.await_frame("answer a request")?;
            check_refusal(frame, request)?;
            if frame.request() == Some(request)
                && let Some(answer) = frame.message::<R>()
            {
                return Ok(*answer);
            }
            self.stash.push(&self.frame)?;
        }
    }

    /// Sends an administrative request or a mass cancel and waits for its [`Done`].
    ///
    /// # Errors
    /// As for [`Client::call_for`].
    pub fn call<M: Body>(&mut self, message: &M) -> Result<Done, ClientError> {
        self.call_for(message)
    }

    /// The next frame off the connection, past what is stashed.
    fn await_frame(&mut self, what: &'static str) -> Result<&Received, ClientError> {
        self.flush()?;
        let came = self.take_within(ANSWER_TIMEOUT)?;
        came.then_some(&*self.frame).ok_or(ClientError::Timeout(what))
    }

    /// Waits for the next frame off the connection; false if none came. Stashes nothing: a caller's
    /// own answer must not end there.
    fn take_within(&mut self, timeout: Duration) -> Result<bool, ClientError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if self.take()? {
                return Ok(true);
            }
            self.beat()?;
            let now = Instant::now();
            let left = deadline.map_or(ANSWER_TIMEOUT, |deadline| deadline - now);
            if left.is_zero() {
                return Ok(false);
            }
            let until_beat = self.beat_after.map(|beat| beat.saturating_sub(now - self.last_sent));
            self.link.wait_readable(until_beat.map_or(left, |beat| beat.min(left)))?;
        }
    }

    /// Takes the next frame off the connection, heartbeats and farewells handled, reports checked;
    /// false if none is here.
    #[inline]
    fn take(&mut self) -> Result<bool, ClientError> {
        while self.link.next(&mut self.frame)? {
            let frame = &self.frame;
            if frame.kind() == Heartbeat::KIND {
                continue;
            }
            if let Some(farewell) = frame.message::<Farewell>() {
                return Err(ClientError::Farewell { reason: farewell.reason });
            }
            if REPORT_KINDS.contains(&frame.kind()) || frame.kind() == SwapMoved::KIND {
                self.check_sequence(frame.sequence())?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn check_sequence(&mut self, got: u64) -> Result<(), ClientError> {
        if got == self.expected {
            self.expected += 1;
        } else if self.replay_due == Some(got) {
            self.expected = got + 1;
        } else {
            return Err(ClientError::Gap { expected: self.expected, got });
        }
        if self.replay_due == Some(got) {
            self.replay_due = None;
        }
        Ok(())
    }

    /// Sends a heartbeat if nothing was sent for long enough. Never blocks; where there is no room
    /// for it, the daemon has enough from us to read.
    fn beat(&mut self) -> Result<(), ClientError> {
        if std::mem::take(&mut self.sent) {
            self.last_sent = Instant::now();
        }
        if self.beat_after.is_none_or(|beat| self.last_sent.elapsed() < beat) {
            return Ok(());
        }
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = encode(self.sequence + 1, &Heartbeat {}, &mut bytes);
        if self.link.push(&bytes[..length])? {
            self.sequence += 1;
        }
        self.last_sent = Instant::now();
        self.link.flush_some()?;
        Ok(())
    }
}

impl AsFd for Client {
    /// Readable when something arrived; see [`Client::prepare_wait`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// Says why, if the frame refuses that request.
fn check_refusal(frame: &Received, request: u64) -> Result<(), ClientError> {
    if frame.request() != Some(request) {
        return Ok(());
    }
    if let Some(refused) = frame.message::<Refused>() {
        return Err(refusal(refused));
    }
    if let Some(rejected) = frame.message::<Rejected>() {
        return Err(ClientError::Rejected { kind: rejected.kind, code: rejected.code });
    }
    Ok(())
}

fn refusal(refused: &Refused) -> ClientError {
    ClientError::Refused { kind: refused.kind, code: refused.code, detail: refused.detail.get() }
}

#[cfg(test)]
mod tests;
