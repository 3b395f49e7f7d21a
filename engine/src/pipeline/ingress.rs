//! Ingress: the gateway's stage. Reads frames from sockets and shared memory, checks who says
//! what, hands valid requests to the sequencer, and carries answers back.

use super::record::{
    Arrival, Delivery, FAULT, OPENED, REFUSED, Subscription, TO_CONNECTION, TO_SESSION, split, take,
};
use crate::clock::Clock;
use crate::config::GatewayKeys;
use crate::gateway::access::Access;
use crate::gateway::connection::{Connection, Found, Named, Socket, Stage};
use crate::gateway::seal::{self, Seals};
use crate::gateway::side::{Arriving, SideDoor};
use crate::gateway::throttle::Bucket;
use crate::gateway::tls::TlsStream;
use crate::health::Health;
use crate::machine::command::{CloseSession, Command, OpenSession, Query, is_internal, is_query};
use crossbeam::channel::Receiver;
use mio::net::{TcpListener, UnixListener};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustls::ServerConfig;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vendue_wire::code::{Goodbye, Reject, Role};
use vendue_wire::doorbell::Doorbell;
use vendue_wire::frame::{self, FRAME_BYTES_MAX, Frame, HEADER_BYTES};
use vendue_wire::message::*;
use vendue_wire::ring::{Consumer, Memory, Producer, RECORD_BYTES_MAX};
use zerocopy::IntoBytes;

const DOORBELL: Token = Token(usize::MAX - 1);
const UNIX: Token = Token(usize::MAX - 2);
const TCP: Token = Token(usize::MAX - 3);
/// The journal's ring, where it shares this thread: woken when a flush has ended.
const FLUSHED: Token = Token(usize::MAX - 4);
const TLS: Token = Token(usize::MAX - 5);
const SIDE: Token = Token(usize::MAX - 6);
/// Connections whose TLS handshakes go on in one turn at most: the others' requests do not wait
/// for a crowd at the door.
const HANDSHAKES_PER_TURN: u32 = 1;
/// Frames taken from one connection in a turn at most, so that all get theirs.
const FRAMES_PER_TURN: usize = 256;
/// Deliveries carried back in a turn at most.
const DELIVERIES_PER_TURN: usize = 4096;
/// The last of so many parts of the queue to the core is shared out...
const KEPT_PARTS: usize = 8;
/// ...so many requests to each connection, until there is room again.
const SHARE_MAX: u32 = 32;
/// Questions of one connection whose answers have not ended, at most.
const QUESTIONS_MAX: u32 = 64;
/// An answer that has not ended by now was lost to an overload: the question may be asked again.
const ANSWER_LOST: Duration = Duration::from_secs(1);
/// While sessions speak in shared memory, sockets are asked once in so many turns: asking is a
/// system call.
pub const TURNS_PER_POLL: u32 = 128;
/// One that moved something takes longer and counts for so many.
const BUSY_TURN: u32 = 2;
/// How long the rings of a connection that has ended stay readable: its peer may not have read
/// the farewell.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often timers are looked at.
const TIMERS: Duration = Duration::from_millis(50);
/// Low bits of a connection's number: its place in the table. The rest counts its reuses, so that
/// an answer never reaches the next peer at the same place.
const PLACE_BITS: u32 = 14;
/// A connection's doorbell has its socket's token and this.
const RUNG: usize = 1 << PLACE_BITS;

/// What a reload hands over.
pub struct Reload {
    /// The new table of grants.
    pub access: Access,
    /// The new bounds, of which the throttles are taken.
    pub keys: GatewayKeys,
    /// The new TLS keys, for connections from then on.
    pub tls: Option<Arc<ServerConfig>>,
    /// The new keys of tokens.
    pub seals: Option<Seals>,
}

/// The stage.
pub struct Ingress {
    /// Waits for sockets and for the doorbell.
    pub poll: Poll,
    /// What `poll` found.
    pub found: Events,
    /// Rung by the stages that answer.
    pub doorbell: Doorbell,
    /// Local peers.
    pub unix: UnixListener,
    /// Loopback peers.
    pub tcp: Option<TcpListener>,
    /// Peers from anywhere, and the keys that connections are made with.
    pub tls: Option<(TcpListener, Arc<ServerConfig>)>,
    /// Connections that other threads of this process open.
    pub side: Option<Arriving>,
    /// Requests, to the sequencer.
    pub requests: Producer,
    /// Subscriptions, to the herald.
    pub subscriptions: Producer,
    /// Frames back, from publish, the actuator, the clerk and the herald.
    pub answers: [Consumer; 4],
    /// Who may log on as what.
    pub access: Access,
    /// What tokens are sealed with.
    pub seals: Seals,
    /// Bounds.
    pub keys: GatewayKeys,
    /// Descriptor of the board, for readers who ask.
    pub board: std::os::fd::OwnedFd,
    /// Bytes of the board.
    pub board_bytes: u32,
    /// Connections admitted so far.
    pub admitted: u32,
    /// Throttles of accounts: of all their sessions together.
    pub accounts: Box<[Bucket]>,
    /// Open connections by place.
    pub connections: Vec<Option<Connection>>,
    /// Connection that holds each session slot.
    pub holders: Vec<u32>,
    /// Sessions whose end the sequencer's ring had no room for, and the connections that ended.
    pub closing: VecDeque<(u32, u32)>,
    /// Subscribers that are gone, whom the herald's ring had no room for.
    pub deaf: VecDeque<u32>,
    /// Connections whose session the machine is opening.
    pub opening: Vec<u32>,
    /// Rings of connections that have ended, and when: what a peer still maps would be charged to
    /// the daemon. No more of them than there may be connections.
    pub ended: VecDeque<(Instant, [Memory; 2])>,
    /// Connections that have something to send.
    pub dirty: Vec<u32>,
    /// What a socket gave, before it is known whose it is.
    pub received: Box<[u8]>,
    /// Turns since sockets were asked.
    pub turns_unpolled: u32,
    /// When sockets were asked last: now, near enough.
    pub turned_at: Instant,
    /// When timers were last looked at.
    pub timers_at: Instant,
    /// When something was last carried back.
    pub carried_at: Instant,
    /// The queue to the core is nearly full.
    pub crowded: bool,
    /// How often it came to that.
    pub crowdings: u64,
    /// A connection could not be accepted: nothing else tells that it still waits.
    pub accept_again: bool,
    /// New access tables and throttles.
    pub reloads: Receiver<Reload>,
    /// Shared counters.
    pub health: Arc<Health>,
    /// Time.
    pub clock: Clock,
}

impl Ingress {
    /// Registers what is listened to.
    ///
    /// # Errors
    /// The system refuses.
    pub fn register(&mut self) -> io::Result<()> {
        let registry = self.poll.registry();
        let fd = self.doorbell.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), DOORBELL, Interest::READABLE)?;
        registry.register(&mut self.unix, UNIX, Interest::READABLE)?;
        if let Some(tcp) = &mut self.tcp {
            registry.register(tcp, TCP, Interest::READABLE)?;
        }
        if let Some((tls, _)) = &mut self.tls {
            registry.register(tls, TLS, Interest::READABLE)?;
        }
        Ok(())
    }

    /// Opens a door for other threads of this process.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open_side(&mut self) -> io::Result<SideDoor> {
        let (door, arriving) = SideDoor::new(mio::Waker::new(self.poll.registry(), SIDE)?);
        self.side = Some(arriving);
        Ok(door)
    }

    /// Watches the journal's flushes too, which wake this thread when they end.
    ///
    /// # Errors
    /// The system refuses.
    pub fn watch_flushes(&mut self, fd: RawFd) -> io::Result<()> {
        let mut source = mio::unix::SourceFd(&fd);
        self.poll.registry().register(&mut source, FLUSHED, Interest::READABLE)
    }

    /// Does what there is to do. True if there was something.
    pub fn turn(&mut self) -> bool {
        // Made once: it is cleared each time.
        let mut bytes = [0; FRAME_BYTES_MAX];
        // Answers first: somebody waits for them.
        let mut moved = self.carry_back(&mut bytes);
        if moved {
            self.flush_dirty();
        }
        self.turns_unpolled += 1;
        if self.turns_unpolled >= TURNS_PER_POLL || !self.has_rings() {
            self.poll_only(Duration::ZERO);
        }
        // While stopping everything read is refused: a peer that goes on asking is no reason to
        // go on running.
        moved |= self.read_all(&mut bytes) && !self.health.stopping();
        self.turns_unpolled += if moved { BUSY_TURN - 1 } else { 0 };
        // They go by the time of the last poll: in this turn, or in the wait before it.
        if self.turns_unpolled < BUSY_TURN {
            self.look_at_timers();
        }
        self.retry_closing();
        self.requests.flush();
        self.subscriptions.flush();
        self.flush_dirty();
        moved
    }

    /// Waits for sockets and the doorbell at most `timeout`, and notes what they have.
    pub fn poll_only(&mut self, timeout: Duration) {
        self.turns_unpolled = 0;
        // Before looking: peers are judged by it, after all that they said before it was read.
        self.turned_at = self.clock.instant();
        let waited = self.poll.poll(&mut self.found, Some(timeout));
        if let Err(error) = waited
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.health.report("gateway", format!("cannot wait for sockets: {error}"));
        }
        let found = std::mem::replace(&mut self.found, Events::with_capacity(0));
        for event in &found {
            match event.token() {
                DOORBELL => {
                    // Broken: the stages that ring it have ended, and this one is about to.
                    let _ = self.doorbell.drain();
                }
                token @ (UNIX | TCP | TLS) => self.accept(token),
                SIDE => self.accept_side(),
                // The journal's stage looks for itself.
                FLUSHED => {}
                Token(at) if at >= RUNG => {
                    if let Some(Some(Connection { rings: Some(rings), .. })) =
                        self.connections.get(at - RUNG)
                    {
                        // Broken: the peer's end, which its socket tells as well.
                        let _ = rings.doorbell.drain();
                    }
                }
                Token(at) => {
                    if let Some(Some(connection)) = self.connections.get_mut(at) {
                        connection.readable |= event.is_readable();
                        connection.hung_up |= event.is_read_closed();
                        mark(&mut self.dirty, at as u32);
                    }
                }
            }
        }
        self.found = found;
    }

    fn has_rings(&self) -> bool {
        self.connections.iter().flatten().any(|connection| connection.rings.is_some())
    }

    /// Announces to every ring that this thread is about to wait; false if one has something.
    pub fn prepare_park(&mut self) -> bool {
        let rings = self.connections.iter_mut().flatten().filter_map(|c| c.rings.as_mut());
        let mut empty = self.answers.iter_mut().all(Consumer::prepare_park);
        for rings in rings {
            empty &= rings.requests.prepare_park();
        }
        let reading = |connection: &Connection| connection.readable && connection.rings.is_none();
        let reading = (0..)
            .zip(&self.connections)
            .any(|(at, connection)| connection.as_ref().is_some_and(reading) && !self.yields(at));
        empty && !reading && self.closing.is_empty() && self.deaf.is_empty()
    }

    /// Withdraws what [`Ingress::prepare_park`] announced.
    pub fn cancel_park(&mut self) {
        self.answers.iter_mut().for_each(Consumer::cancel_park);
        let rings = self.connections.iter_mut().flatten().filter_map(|c| c.rings.as_mut());
        rings.for_each(|rings| rings.requests.cancel_park());
    }

    /// How long it may wait: timers only matter while somebody is there.
    pub fn due_in(&self) -> Duration {
        let idle = self.ended.is_empty() && self.connections.iter().all(Option::is_none);
        if idle { Duration::from_secs(1) } else { TIMERS }
    }

    // ---- connections -----------------------------------------------------------------------

    fn accept(&mut self, token: Token) {
        loop {
            let accepted = match (token, &self.tcp, &self.tls) {
                (UNIX, ..) => self.unix.accept().map(|(stream, _)| Socket::Unix(stream)),
                (TCP, Some(tcp), _) => tcp.accept().map(|(stream, _)| Socket::Tcp(stream)),
                (TLS, _, Some((tls, keys))) => tls.accept().and_then(|(stream, _)| {
                    Ok(Socket::Tls(Box::new(TlsStream::new(stream, keys)?)))
                }),
                _ => return,
            };
            match accepted {
                Ok(socket) => self.admit_connection(socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    let text = format!(
                        "cannot accept: {error}; raise the limit of open descriptors, or lower \
                         gateway.connections_max"
                    );
                    self.health.restate("accept", &[text]);
                    self.accept_again = true;
                    return;
                }
            }
        }
    }

    fn accept_side(&mut self) {
        while let Some((stream, peer)) = self.side.as_ref().and_then(Arriving::next) {
            self.admit_connection(Socket::Side(stream, peer));
        }
    }

    /// Tries once more what failed: the listener tells of a connection only once.
    fn retry_accepting(&mut self) {
        if std::mem::take(&mut self.accept_again) {
            self.accept(UNIX);
            self.accept(TCP);
            self.accept(TLS);
            if !self.accept_again {
                self.health.restate("accept", &[]);
            }
        }
    }

    /// Once the journal has stopped, what was asked and is not durable will never be answered: its
    /// sessions are told so, and after a restart resume to learn what became of it. All that is
    /// durable has gone out by then.
    fn end_sessions_if_stopped(&mut self) {
        let told = self.health.executed.get() >= self.health.durable.get()
            && self.turned_at.duration_since(self.carried_at) >= TIMERS;
        if self.health.accepting() || self.health.stopping() || !told {
            return;
        }
        for at in 0..self.connections.len() {
            let stage = self.connections[at].as_ref().map(|connection| connection.stage);
            let waits = match stage {
                Some(Stage::Open { slot, .. }) => slot != ANY,
                Some(Stage::Opening) => true,
                _ => false,
            };
            if waits {
                self.close(at as u32, Some(Goodbye::JournalStopped));
            }
        }
    }

    fn admit_connection(&mut self, socket: Socket) {
        let now = self.clock.instant();
        self.admitted = self.admitted.wrapping_add(1);
        let Ok(mut connection) = Connection::new(socket, self.admitted, now) else { return };
        let free = self.connections.iter().position(Option::is_none);
        let at = match free {
            Some(at) => at,
            None if self.connections.len() < *self.keys.connections_max.get_ref() => {
                self.connections.push(None);
                self.connections.len() - 1
            }
            None => {
                let body = Farewell { reason: Goodbye::TooManyConnections as u8, reserved: [0; 7] };
                let mut bytes = [0; FRAME_BYTES_MAX];
                let length = frame::encode(0, &body, &mut bytes);
                connection.queue(&bytes[..length], FRAME_BYTES_MAX);
                let _ = connection.flush();
                return;
            }
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(connection.source(), Token(at), interest).is_ok() {
            self.connections[at] = Some(connection);
            self.health.connections.add(1);
        }
    }

    /// Ends a connection: says why if it can still be said, and lets the machine know.
    fn close(&mut self, at: u32, reason: Option<Goodbye>) {
        let Some(slot) = self.connections.get_mut(at as usize) else { return };
        let Some(connection) = slot else { return };
        let session = connection.slot();
        let number = connection.admission << PLACE_BITS | at;
        if let Some(reason) = reason {
            let body = Farewell { reason: reason as u8, reserved: [0; 7] };
            let mut bytes = [0; FRAME_BYTES_MAX];
            let length = frame::encode(0, &body, &mut bytes);
            connection.queue(&bytes[..length], usize::MAX / 2);
            connection.stage = Stage::Closing;
            let _ = connection.flush();
        }
        self.opening.retain(|&opening| opening != at);
        if let Some(mut connection) = slot.take() {
            let _ = self.poll.registry().deregister(connection.source());
            if let Some(rings) = &connection.rings {
                let memories = [rings.requests.memory().clone(), rings.reports.memory().clone()];
                self.ended.push_back((self.clock.instant(), memories));
                self.discard_ended();
            }
            if connection.listens {
                self.deaf.push_back(number);
                self.retry_closing();
            }
        }
        let connections = self.health.connections.get();
        self.health.connections.set(connections.saturating_sub(1));
        if let Some(session) = session.filter(|&s| self.holders[s as usize] == at) {
            self.holders[session as usize] = ANY;
            self.closing.push_back((session, number));
            self.retry_closing();
        }
    }

    /// Gives back the rings that ended long ago, and the oldest beyond the bound.
    fn discard_ended(&mut self) {
        while let Some((since, memories)) = self.ended.front()
            && (self.clock.instant().duration_since(*since) >= LAST_WORDS
                || self.ended.len() > *self.keys.connections_max.get_ref())
        {
            for memory in memories {
                if let Err(error) = memory.discard() {
                    self.health.report("gateway", format!("cannot give memory back: {error}"));
                }
            }
            self.ended.pop_front();
        }
    }

    fn retry_closing(&mut self) {
        while let Some(&(slot, number)) = self.closing.front() {
            let body = CloseSession { slot: slot.into() };
            if !self.submit(CloseSession::KIND, ANY, number, 0, body.as_bytes()) {
                return;
            }
            self.closing.pop_front();
        }
        while let Some(&number) = self.deaf.front() {
            if !self.tell_herald(Unsubscribe::KIND, number, 0, ANY, &[]) {
                return;
            }
            self.deaf.pop_front();
        }
    }

    fn look_at_timers(&mut self) {
        // Of the turn's beginning: what came before has been read since, however long that took.
        let now = self.turned_at;
        if now.duration_since(self.timers_at) < TIMERS {
            return;
        }
        self.timers_at = now;
        self.retry_accepting();
        self.end_sessions_if_stopped();
        self.discard_ended();
        if let Ok(Reload { access, keys, tls, seals }) = self.reloads.try_recv() {
            self.access = access;
            if let Some(new) = seals {
                self.seals = new;
            }
            if let (Some((_, keys)), Some(new)) = (&mut self.tls, tls) {
                *keys = new;
            }
            self.keys.throttle_per_s = keys.throttle_per_s;
            self.keys.throttle_burst = keys.throttle_burst;
            self.keys.account_throttle_per_s = keys.account_throttle_per_s;
            self.keys.account_throttle_burst = keys.account_throttle_burst;
        }
        let logon_timeout = Duration::from_millis(*self.keys.logon_timeout_ms.get_ref());
        for at in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[at] else { continue };
            if std::mem::take(&mut connection.spoke) {
                // Not when the turn began: this thread may have stood still since.
                connection.heard = self.clock.instant();
            }
            let silent = now.duration_since(connection.heard);
            if connection.heartbeat_ms == 0 {
                if silent > logon_timeout {
                    self.close(at as u32, Some(Goodbye::LogonTimeout));
                }
                continue;
            }
            // The disk decides how long a logon takes: the peer waits, and hears the answer first.
            if connection.stage == Stage::Opening {
                continue;
            }
            let interval = Duration::from_millis(connection.heartbeat_ms.into());
            if silent > 2 * interval {
                self.close(at as u32, Some(Goodbye::HeartbeatLost));
            } else if matches!(connection.stage, Stage::Open { .. })
                && now.duration_since(connection.said) >= interval
            {
                // Not before the logon is answered: that answer comes first.
                self.send(at as u32, 0, &Heartbeat {});
            }
        }
    }

    // ---- towards the core ------------------------------------------------------------------

    fn read_all(&mut self, bytes: &mut [u8; FRAME_BYTES_MAX]) -> bool {
        let mut moved = false;
        let mut handshakes = 0;
        for at in 0..self.connections.len() as u32 {
            if let Some(Some(connection)) = self.connections.get(at as usize)
                && connection.readable
                && connection.is_handshaking()
            {
                handshakes += 1;
                if handshakes > HANDSHAKES_PER_TURN {
                    continue;
                }
            }
            moved |= self.read_one(at, bytes);
        }
        // Who waits for a turn at the door is something to do.
        moved || handshakes > HANDSHAKES_PER_TURN
    }

    /// Handles what a connection has said; each frame is copied to `bytes` first.
    fn read_one(&mut self, at: u32, bytes: &mut [u8; FRAME_BYTES_MAX]) -> bool {
        let mut frames = 0;
        while frames < FRAMES_PER_TURN {
            if self.yields(at) {
                break;
            }
            let Some(Some(connection)) = self.connections.get_mut(at as usize) else { break };
            if !connection.may_have_frames() {
                break;
            }
            let ringed = connection.rings.is_some();
            let next = if let Some(rings) = &mut connection.rings {
                match rings.requests.pop() {
                    Ok(Some(record)) => copy_frame(record.bytes, bytes),
                    Ok(None) => Ok(0),
                    Err(_) => Err(Goodbye::BadFrame),
                }
            } else {
                connection.next_frame(bytes).map_err(|error| match error {
                    frame::FrameError::Version(_) => Goodbye::BadVersion,
                    _ => Goodbye::BadFrame,
                })
            };
            match next {
                Ok(0) if connection.readable => match connection.read(&mut self.received) {
                    // Once attached, a session speaks in its rings only.
                    Found::More | Found::Last if ringed => {
                        self.close(at, Some(Goodbye::BadFrame));
                        return true;
                    }
                    Found::More => {}
                    Found::Last | Found::Drained => connection.readable = false,
                    Found::Gone => {
                        self.close(at, None);
                        return true;
                    }
                },
                Ok(0) => break,
                Ok(length) => {
                    frames += 1;
                    self.handle(at, &bytes[..length]);
                }
                Err(reason) => {
                    self.close(at, Some(reason));
                    return true;
                }
            }
        }
        frames > 0
    }

    /// Whether another connection is resuming this one's session. What this one says from now on
    /// would be executed after the new one is told what was: it is not listened to until the
    /// machine has decided.
    fn yields(&self, at: u32) -> bool {
        let named = |at: u32| self.connections.get(at as usize)?.as_ref()?.session;
        let others = || self.opening.iter().filter(|&&opening| opening != at);
        // Nobody is opening, nearly always; a stopped journal lets no request in and no session.
        !self.opening.is_empty()
            && self.health.accepting()
            && named(at).is_some_and(|ours| others().any(|&other| named(other) == Some(ours)))
    }

    /// Handles one whole frame.
    fn handle(&mut self, at: u32, bytes: &[u8]) {
        let Ok(Some(frame)) = Frame::parse(bytes) else {
            return self.close(at, Some(Goodbye::BadFrame));
        };
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return };
        // Until it logs on, whatever it says buys a peer no time.
        if connection.stage != Stage::New {
            connection.heard = self.turned_at;
            connection.spoke = true;
        }
        let (kind, sequence) = (frame.header.kind, frame.header.sequence.get());
        let slot = match connection.stage {
            Stage::New if kind == Logon::KIND => return self.logon(at, &frame),
            Stage::New => return self.refuse(at, sequence, kind, Reject::NotLoggedOn, 0),
            Stage::Opening => return self.refuse(at, sequence, kind, Reject::NotLoggedOn, 0),
            Stage::Closing => return,
            Stage::Open { slot } => slot,
        };
        if sequence != connection.next_request {
            return self.close(at, Some(Goodbye::SequenceGap));
        }
        connection.next_request += 1;
        match kind {
            Heartbeat::KIND => {}
            Logon::KIND => self.refuse(at, sequence, kind, Reject::AlreadyLoggedOn, 0),
            Logout::KIND => self.close(at, Some(Goodbye::LoggedOut)),
            Attach::KIND => self.attach(at, &frame),
            Subscribe::KIND | Take::KIND | Unsubscribe::KIND => {
                if let Err((code, detail)) = self.listen(at, &frame) {
                    self.refuse(at, sequence, kind, code, detail);
                }
            }
            _ => {
                if let Err((code, detail)) = self.request(at, slot, &frame) {
                    self.refuse(at, sequence, kind, code, detail);
                }
            }
        }
    }

    /// A request for the core, or a question the gateway answers itself.
    fn request(&mut self, at: u32, slot: u32, frame: &Frame<'_>) -> Result<(), (Reject, u64)> {
        let (kind, sequence) = (frame.header.kind, frame.header.sequence.get());
        if is_internal(kind) {
            return Err((Reject::UnknownKind, 0));
        }
        let command = Command::parse(kind, frame.body).map_err(|code| (code, 0))?;
        self.throttle(at)?;
        if let Command::Query(Query::Status) = command {
            self.status(at, sequence);
            return Ok(());
        }
        let anonymous = slot == ANY;
        if anonymous && (!is_query(kind) || kind == Replay::KIND) {
            return Err((Reject::NotPermitted, 0));
        }
        let whole = matches!(
            command,
            Command::Query(Query::Audit(_) | Query::Report(_) | Query::Moment(_) | Query::Ledger)
        );
        if whole && !self.sees_all(at) {
            return Err((Reject::NotPermitted, 0));
        }
        if self.health.stopping() {
            return Err((Reject::Draining, 0));
        }
        // The machine may have executed what will never be durable: its answers stay unseen too.
        if !self.health.accepting() {
            return Err((Reject::JournalStopped, 0));
        }
        let asks = is_query(kind);
        if asks && !self.may_ask(at) {
            return Err((Reject::Busy, 0));
        }
        let mut room;
        let body = if seal::presents(kind) {
            room = [0; FRAME_BYTES_MAX - HEADER_BYTES];
            self.seals.open(kind, frame.body, &mut room).map_err(|code| (code, 0))?
        } else {
            frame.body
        };
        if !self.may_push(at) || !self.push(kind, slot, at, sequence, body) {
            return Err((Reject::Busy, 0));
        }
        if asks && let Some(Some(connection)) = self.connections.get_mut(at as usize) {
            connection.questions += 1;
            connection.asked_at = self.turned_at;
        }
        Ok(())
    }

    /// True for who may see what is everybody's: operators, and observers of no one account.
    fn sees_all(&self, at: u32) -> bool {
        let Some(Some(connection)) = self.connections.get(at as usize) else { return false };
        connection.session.is_none_or(|session| match session.role {
            Role::Operator => true,
            Role::Observer => session.account == ANY,
            Role::Agent | Role::Tenant => false,
        })
    }

    /// What a connection says about its subscription, to the herald. Operators and observers may
    /// know everything, a tenant what concerns its account.
    fn listen(&mut self, at: u32, frame: &Frame<'_>) -> Result<(), (Reject, u64)> {
        let (kind, request) = (frame.header.kind, frame.header.sequence.get());
        let length = SCHEMA.iter().find(|row| row.0 == kind).map_or(0, |row| row.2);
        if frame.body.len() != length {
            return Err((Reject::BadLength, 0));
        }
        if let Some(message) = frame.message::<Subscribe>() {
            let nothing = message.what == 0 || message.what & !TELL_ALL != 0;
            let unplaced = message.from.get() == 0 && message.part.get() != 0;
            if nothing || unplaced || message.reserved != [0; 3] {
                return Err((Reject::BadField, 0));
            }
        }
        self.throttle(at)?;
        let all = self.sees_all(at);
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return Ok(()) };
        let account = match connection.session {
            _ if all => Some(ANY),
            Some(session) if session.role != Role::Agent => Some(session.account),
            _ => None,
        };
        let Some(account) = account else { return Err((Reject::NotPermitted, 0)) };
        connection.listens |= kind == Subscribe::KIND;
        let number = connection.admission << PLACE_BITS | at;
        if self.tell_herald(kind, number, request, account, frame.body) {
            Ok(())
        } else {
            Err((Reject::Busy, 0))
        }
    }

    /// False if the herald's ring is full.
    fn tell_herald(
        &mut self,
        kind: u8,
        connection: u32,
        request: u64,
        account: u32,
        body: &[u8],
    ) -> bool {
        let head = Subscription {
            request: request.into(),
            connection: connection.into(),
            account: account.into(),
        };
        self.subscriptions.try_push(kind.into(), &[head.as_bytes(), body]).is_ok()
    }

    /// False if the queue is nearly full and this connection has had its share of the last part,
    /// which is kept so that a flood refuses itself before those who ask for little.
    fn may_push(&mut self, at: u32) -> bool {
        let kept = self.requests.memory().capacity_bytes() / KEPT_PARTS;
        if self.requests.record_fits(kept.min(RECORD_BYTES_MAX)) {
            self.crowded = false;
            return true;
        }
        if !std::mem::replace(&mut self.crowded, true) {
            self.crowdings += 1;
        }
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return false };
        if connection.crowding != self.crowdings {
            (connection.crowding, connection.pushed) = (self.crowdings, 0);
        }
        connection.pushed += 1;
        connection.pushed <= SHARE_MAX
    }

    /// False while too many questions of the connection wait for the end of their answers. A small
    /// question may have a long answer: who does not read must not keep the core busy with more.
    fn may_ask(&mut self, at: u32) -> bool {
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return false };
        if self.turned_at.duration_since(connection.asked_at) > ANSWER_LOST {
            connection.questions = 0;
        }
        connection.questions < QUESTIONS_MAX
    }

    /// Takes a token from the connection's bucket, and one from that of the account it acts for.
    fn throttle(&mut self, at: u32) -> Result<(), (Reject, u64)> {
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return Ok(()) };
        let (keys, now) = (&self.keys, connection.heard);
        let per_s = *keys.throttle_per_s.get_ref();
        if !connection.bucket.take(now, per_s, *keys.throttle_burst.get_ref()) {
            return Err((Reject::Throttled, per_s));
        }
        let account = connection.session.map_or(ANY, |session| session.account);
        let Some(bucket) = self.accounts.get_mut(account as usize) else { return Ok(()) };
        let per_s = *keys.account_throttle_per_s.get_ref();
        if !bucket.take(now, per_s, *keys.account_throttle_burst.get_ref()) {
            return Err((Reject::AccountThrottled, per_s));
        }
        Ok(())
    }

    fn logon(&mut self, at: u32, frame: &Frame<'_>) {
        let refuse = |ingress: &mut Ingress, code| {
            ingress.refuse(at, 0, Logon::KIND, code, 0);
            ingress.close(at, Some(Goodbye::BadCredentials));
        };
        let Some(logon) = frame.message::<Logon>() else {
            return refuse(self, Reject::BadLength);
        };
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return };
        if logon.cancel_on_disconnect > 1 || logon.reserved != [0; 2] {
            return refuse(self, Reject::BadField);
        }
        let peer = connection.peer().map_err(|_| Reject::BadCredentials);
        let admitted = match peer.and_then(|peer| self.access.admit(&peer, logon)) {
            Ok(admitted) => admitted,
            Err(code) => return refuse(self, code),
        };
        let least = *self.keys.heartbeat_ms_min.get_ref();
        let most = *self.keys.heartbeat_ms_max.get_ref();
        let heartbeat_ms = match logon.heartbeat_ms.get() {
            0 => most,
            asked => asked.clamp(least, most),
        };
        connection.heartbeat_ms = heartbeat_ms;
        if logon.session.get() == 0 {
            return self.open_anonymous(at, heartbeat_ms);
        }
        connection.stage = Stage::Opening;
        connection.session = Some(Named {
            number: logon.session.get(),
            account: admitted.account,
            instance: admitted.instance,
            role: admitted.role,
        });
        let body = OpenSession {
            session: logon.session,
            replay_from: logon.replay_from,
            account: admitted.account.into(),
            instance: admitted.instance.into(),
            heartbeat_ms: heartbeat_ms.into(),
            role: admitted.role as u8,
            cancel_on_disconnect: logon.cancel_on_disconnect,
            reserved: [0; 2],
            peer: admitted.peer,
        };
        if self.health.stopping() {
            return refuse(self, Reject::Draining);
        }
        if !self.health.accepting() {
            return refuse(self, Reject::JournalStopped);
        }
        if !self.push(OpenSession::KIND, ANY, at, 0, body.as_bytes()) {
            return refuse(self, Reject::Busy);
        }
        self.opening.push(at);
    }

    /// A session that only asks: the machine need not know of it.
    fn open_anonymous(&mut self, at: u32, heartbeat_ms: u32) {
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return };
        connection.stage = Stage::Open { slot: ANY };
        connection.next_request = 1;
        let ack = LogonAck {
            time_ns: self.clock.now_ns().into(),
            account: ANY.into(),
            instance: ANY.into(),
            heartbeat_ms: heartbeat_ms.into(),
            next_sequence: 1.into(),
            oldest_sequence: 1.into(),
            ..LogonAck::zeroed()
        };
        self.send(at, 0, &ack);
    }

    /// Hands out shared memory.
    fn attach(&mut self, at: u32, frame: &Frame<'_>) {
        let sequence = frame.header.sequence.get();
        let Some(message) = frame.message::<Attach>() else {
            return self.refuse(at, sequence, Attach::KIND, Reject::BadLength, 0);
        };
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return };
        if !connection.is_unix() || connection.rings.is_some() {
            return self.refuse(at, sequence, Attach::KIND, Reject::NotOnThisTransport, 0);
        }
        let ring_bytes = message.ring_bytes.get();
        let most = *self.keys.shared_ring_bytes_max.get_ref();
        let sized = (4096..=most).contains(&ring_bytes) && ring_bytes.is_power_of_two();
        if message.reserved != [0; 3] || message.what > 1 || (message.what == 0 && !sized) {
            return self.refuse(at, sequence, Attach::KIND, Reject::BadField, most.into());
        }
        let bytes = if message.what == 0 { ring_bytes } else { self.board_bytes };
        let body = Attached { what: message.what, reserved: [0; 3], bytes: bytes.into() };
        let mut encoded = [0; FRAME_BYTES_MAX];
        let length = frame::encode(0, &body, &mut encoded);
        let _ = connection.flush();
        let attached = if message.what == 0 {
            let registry = self.poll.registry();
            connection.attach_rings(ring_bytes, &encoded[..length], |doorbell| {
                let fd = doorbell.as_fd().as_raw_fd();
                let token = Token(RUNG + at as usize);
                registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
            })
        } else {
            connection.send_with(&encoded[..length], &[self.board.as_fd()])
        };
        if attached.is_err() {
            self.refuse(at, sequence, Attach::KIND, Reject::Busy, 0);
        }
    }

    /// Hands a command to the sequencer; false if its ring is full.
    fn push(&mut self, kind: u8, slot: u32, connection: u32, request: u64, body: &[u8]) -> bool {
        let number = match self.connections.get(connection as usize) {
            Some(Some(open)) => open.admission << PLACE_BITS | connection,
            _ => ANY,
        };
        self.submit(kind, slot, number, request, body)
    }

    /// As [`Ingress::push`], for the connection with this number, which may be gone.
    fn submit(&mut self, kind: u8, slot: u32, number: u32, request: u64, body: &[u8]) -> bool {
        let head =
            Arrival { request: request.into(), session: slot.into(), connection: number.into() };
        self.requests.try_push(kind.into(), &[head.as_bytes(), body]).is_ok()
    }

    // ---- back to the peers -----------------------------------------------------------------

    fn carry_back(&mut self, bytes: &mut [u8; FRAME_BYTES_MAX]) -> bool {
        let mut moved = false;
        for at in 0..self.answers.len() {
            for _ in 0..DELIVERIES_PER_TURN {
                let Some(record) = take(&mut self.answers[at]) else { break };
                let tag = record.tag;
                let (head, frame) = split::<Delivery>(record.bytes);
                let head = *head;
                let length = frame.len();
                bytes[..length].copy_from_slice(frame);
                if tag == TO_CONNECTION {
                    self.seals.seal_answer(&mut bytes[..length]);
                }
                moved = true;
                self.deliver(tag, &head, &bytes[..length]);
            }
        }
        if moved {
            self.carried_at = self.turned_at;
        }
        moved
    }

    /// The place of the connection with this number, if it is still that one; otherwise one
    /// that does not exist.
    fn place(&self, number: u32) -> u32 {
        let at = number & ((1 << PLACE_BITS) - 1);
        match self.connections.get(at as usize) {
            Some(Some(open)) if open.admission << PLACE_BITS | at == number => at,
            _ => ANY,
        }
    }

    fn deliver(&mut self, tag: u32, head: &Delivery, bytes: &[u8]) {
        let (connection, slot) = (self.place(head.connection.get()), head.slot.get());
        match tag {
            TO_SESSION => {
                let holder = self.holders[slot as usize];
                self.queue(holder, bytes);
            }
            TO_CONNECTION => {
                self.answered(connection, bytes);
                self.queue(connection, bytes);
            }
            OPENED => self.opened(head.connection.get(), slot, bytes),
            FAULT => self.health.hear_fault(head.connection.get(), slot, bytes),
            REFUSED => {
                self.queue(connection, bytes);
                self.close(connection, Some(Goodbye::BadCredentials));
            }
            _ => {}
        }
    }

    /// Notes the end of a question's answer.
    fn answered(&mut self, at: u32, bytes: &[u8]) {
        const ENDS: [u8; 3] = [QueryEnd::KIND, ReplayEnd::KIND, Refused::KIND];
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return };
        if matches!(Frame::parse(bytes), Ok(Some(frame)) if ENDS.contains(&frame.header.kind)) {
            connection.questions = connection.questions.saturating_sub(1);
        }
    }

    /// The machine has opened a session: its connection holds the slot from now on.
    fn opened(&mut self, number: u32, slot: u32, bytes: &[u8]) {
        let at = self.place(number);
        let former = std::mem::replace(&mut self.holders[slot as usize], ANY);
        if former != ANY && former != at {
            self.close(former, Some(Goodbye::Superseded));
        }
        let opening = match self.connections.get_mut(at as usize) {
            Some(Some(connection)) if connection.stage == Stage::Opening => connection,
            // It went while the machine was busy: close its session again.
            _ => {
                self.closing.push_back((slot, number));
                return;
            }
        };
        opening.stage = Stage::Open { slot };
        opening.heard = self.turned_at;
        self.opening.retain(|&opening| opening != at);
        if let Ok(Some(frame)) = Frame::parse(bytes)
            && let Some(ack) = frame.message::<LogonAck>()
        {
            opening.next_request = ack.last_request.get() + 1;
        }
        self.holders[slot as usize] = at;
        self.queue(at, bytes);
    }

    fn queue(&mut self, at: u32, bytes: &[u8]) {
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return };
        if connection.stage == Stage::New {
            return;
        }
        if !connection.queue(bytes, *self.keys.outbound_bytes_max.get_ref()) {
            return self.close(at, Some(Goodbye::SlowReader));
        }
        connection.said = self.turned_at;
        mark(&mut self.dirty, at);
    }

    fn send<M: Body>(&mut self, at: u32, sequence: u64, body: &M) {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = frame::encode(sequence, body, &mut bytes);
        let Some(Some(connection)) = self.connections.get_mut(at as usize) else { return };
        if !connection.queue(&bytes[..length], *self.keys.outbound_bytes_max.get_ref()) {
            return self.close(at, Some(Goodbye::SlowReader));
        }
        connection.said = self.turned_at;
        mark(&mut self.dirty, at);
    }

    fn refuse(&mut self, at: u32, request: u64, kind: u8, code: Reject, detail: u64) {
        self.health.refused.add(1);
        let body = Refused {
            request: request.into(),
            detail: detail.into(),
            kind,
            code: code as u8,
            reserved: [0; 6],
        };
        self.send(at, 0, &body);
    }

    fn status(&mut self, at: u32, request: u64) {
        let mut status = self.health.status_row();
        if self.sees_all(at) {
            self.send(at, 0, &status);
            for row in self.health.fault_rows() {
                self.send(at, 0, &row);
            }
        } else {
            // How the daemon is concerns everyone; how many others there are, and what ails their
            // instances, does not.
            let hidden = [&mut status.accounts, &mut status.instances, &mut status.orders];
            hidden.into_iter().for_each(|count| *count = U32::ZERO);
            (status.connections, status.faults) = (U32::ZERO, U32::ZERO);
            self.send(at, 0, &status);
        }
        self.send(at, 0, &QueryEnd { request: request.into(), next: u64::MAX.into() });
    }

    fn flush_dirty(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        if dirty.len() > 1 {
            dirty.sort_unstable();
            dirty.dedup();
        }
        for at in dirty.drain(..) {
            let Some(Some(connection)) = self.connections.get_mut(at as usize) else { continue };
            if connection.flush().is_err() {
                self.close(at, None);
            } else if self.connections[at as usize]
                .as_ref()
                .is_some_and(|c| c.rings.is_some() && !c.is_flushed())
            {
                // A ring has no "writable" event: try again next turn.
                self.dirty.push(at);
            }
        }
        // The room is kept: making it anew would allocate in every turn.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Says goodbye to everyone: the daemon stops.
    pub fn close_all(&mut self) {
        for at in 0..self.connections.len() as u32 {
            self.close(at, Some(Goodbye::ShuttingDown));
        }
    }
}

/// Notes a connection that has something to send: once where many frames go to the same.
#[inline]
fn mark(dirty: &mut Vec<u32>, at: u32) {
    if dirty.last() != Some(&at) {
        dirty.push(at);
    }
}

/// Copies a ring record that must be exactly one frame.
fn copy_frame(record: &[u8], out: &mut [u8; FRAME_BYTES_MAX]) -> Result<usize, Goodbye> {
    match Frame::parse(record) {
        Ok(Some(frame)) if frame.len() == record.len() => {
            out[..record.len()].copy_from_slice(record);
            Ok(record.len())
        }
        Err(frame::FrameError::Version(_)) => Err(Goodbye::BadVersion),
        _ => Err(Goodbye::BadFrame),
    }
}
