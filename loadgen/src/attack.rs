//! Attackers: peers without manners beside the honest sessions, to see what those lose.
//!
//! They come and go in windows: the run's even seconds are calm, in its odd ones every attacker is
//! at work. So both kinds of seconds see the same machine, and their latencies can be compared.
//! One thread drives all of them; it never waits for one.

mod requests;

use crate::random::SplitMix;
use crate::setup::Seat;
use mio::net::{TcpStream, UnixStream};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vendue_wire::client::{Endpoint, fresh_session};
use vendue_wire::code::{Goodbye, Reject, Role};
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, VERSION, encode};
use vendue_wire::message::{
    ANY, Accepted, Body, Cancelled, Done, Farewell, Logon, LogonAck, NewOrder, QueryInstances,
    QueryStatus, Refused, Rejected, Replaced,
};

/// How long the calm and the attack take in turn.
const WINDOW_NS: u64 = 1_000_000_000;
/// What is due so soon after a change counts as neither.
const SETTLE_NS: u64 = 100_000_000;
/// Requests that an attacker who hears every answer keeps unanswered.
const UNANSWERED_MAX: u64 = 64;
/// Bytes an attacker sends in a turn at most.
const TURN_BYTES: usize = 64 << 10;
/// Pause between two turns of all attackers.
const PAUSE: Duration = Duration::from_millis(1);
/// Attackers of each kind at most.
pub const PER_KIND_MAX: usize = 64;

/// What a moment of the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// No attacker is there.
    Calm,
    /// Every attacker is at work.
    Attack,
}

/// The window that a moment counts in, if in any.
pub fn window(at_ns: u64) -> Option<Window> {
    let attack = (at_ns / WINDOW_NS) % 2 == 1;
    let counts = at_ns < WINDOW_NS || at_ns % WINDOW_NS >= SETTLE_NS;
    counts.then_some(if attack { Window::Attack } else { Window::Calm })
}

/// What an attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Sends orders as fast as they are taken, far beyond any throttle.
    Flood,
    /// Sends random bytes.
    Garbage,
    /// Leaves in the middle of a frame.
    Truncated,
    /// Announces frames longer than any.
    Oversized,
    /// Asks for what is not its own: others' instances and orders, what only operators may.
    Forge,
    /// Sends prices, quantities and fields that no book takes.
    Absurd,
    /// Sends an order that was executed again, each time as a new request.
    Replay,
    /// Sends a request again under its old number, and ids used long ago.
    Stale,
    /// Begins to log on and says no more.
    HalfOpen,
    /// Asks without end and reads nothing.
    SlowReader,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 10] = [
        Kind::Flood,
        Kind::Forge,
        Kind::Absurd,
        Kind::Replay,
        Kind::Garbage,
        Kind::Truncated,
        Kind::Oversized,
        Kind::Stale,
        Kind::HalfOpen,
        Kind::SlowReader,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Flood => "flood",
            Kind::Forge => "forge",
            Kind::Absurd => "absurd",
            Kind::Replay => "replay",
            Kind::Garbage => "garbage",
            Kind::Truncated => "truncated",
            Kind::Oversized => "oversized",
            Kind::Stale => "stale",
            Kind::HalfOpen => "half-open",
            Kind::SlowReader => "slow-reader",
        }
    }
}

/// Which attackers. Written `flood,garbage` or `all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(pub Vec<Kind>);

/// The text names no attackers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no attack; use all, or of flood, forge, absurd, replay, garbage, truncated, oversized, \
     stale, half-open, slow-reader those you want, with commas between"
)]
pub struct BadKinds(String);

impl FromStr for Kinds {
    type Err = BadKinds;

    fn from_str(text: &str) -> Result<Kinds, BadKinds> {
        if text == "all" {
            return Ok(Kinds(Kind::ALL.to_vec()));
        }
        let kind = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let kinds = text.split(',').map(kind).collect::<Option<Vec<_>>>();
        kinds.map(Kinds).ok_or_else(|| BadKinds(text.to_owned()))
    }
}

/// What became of the attackers of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// Connections made.
    pub connections: u64,
    /// Connections that could not be made.
    pub not_connected: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Requests that were refused, by the reason given.
    pub refused: BTreeMap<String, u64>,
    /// Requests that were carried out.
    pub granted: u64,
    /// How connections ended, by the daemon's reason.
    pub ended: BTreeMap<String, u64>,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn connect(endpoint: &Endpoint) -> io::Result<Stream> {
        match endpoint {
            Endpoint::Unix(path) | Endpoint::Shm { path, .. } => {
                UnixStream::connect(path).map(Stream::Unix)
            }
            Endpoint::Tcp(address) => TcpStream::connect(*address).map(Stream::Tcp),
            // Without a handshake: what is sent to a door that stays shut.
            Endpoint::Tls { host, port, .. } => {
                let stream = std::net::TcpStream::connect((host.as_str(), *port))?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Tcp(TcpStream::from_std(stream)))
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(bytes),
            Stream::Tcp(stream) => stream.read(bytes),
        }
    }
}

/// A connection of an attacker.
struct Connection {
    stream: Stream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// Number of its next request, once it is logged on.
    next: Option<u64>,
    /// Requests sent and not answered yet.
    unanswered: u64,
    /// The last id its session used before.
    used_id: u64,
    /// It has said all that it has to say.
    said: bool,
    /// Why the daemon ends it, once it has said so.
    farewell: Option<u8>,
}

/// An attacker: one connection after the other.
struct Attacker {
    kind: Kind,
    seat: Seat,
    session: u64,
    token: [u8; 32],
    book: u16,
    victims: Vec<Seat>,
    random: SplitMix,
    connection: Option<Connection>,
    fate: Fate,
}

/// What is attacked, and by whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The daemon.
    pub endpoint: Endpoint,
    /// Secret for TCP.
    pub token: [u8; 32],
    /// Whom the attackers trade for.
    pub seat: Seat,
    /// Book they send orders for.
    pub book: u16,
    /// The honest sessions' seats.
    pub victims: Vec<Seat>,
    /// Kinds.
    pub kinds: Kinds,
    /// Attackers of each kind.
    pub per_kind: usize,
    /// Decides the garbage.
    pub seed: u64,
}

/// Attacks in every second window from `start` on until `over`; says what became of it.
pub fn run(plan: &Plan, start: Instant, over: &AtomicBool) -> BTreeMap<String, Fate> {
    let mut attackers: Vec<Attacker> = plan
        .kinds
        .0
        .iter()
        .flat_map(|&kind| (0..plan.per_kind).map(move |at| (kind, at)))
        .map(|(kind, at)| Attacker::new(plan, kind, at as u64))
        .collect();
    while !over.load(Ordering::Relaxed) {
        let now_ns = Instant::now().saturating_duration_since(start).as_nanos() as u64;
        if (now_ns / WINDOW_NS) % 2 == 1 {
            attackers.iter_mut().for_each(|attacker| attacker.turn(&plan.endpoint));
        } else {
            attackers.iter_mut().for_each(Attacker::leave);
        }
        std::thread::sleep(PAUSE);
    }
    attackers.iter_mut().for_each(Attacker::leave);
    let mut fates: BTreeMap<String, Fate> = BTreeMap::new();
    for attacker in attackers {
        let fate = fates.entry(attacker.kind.name().to_owned()).or_default();
        fate.connections += attacker.fate.connections;
        fate.not_connected += attacker.fate.not_connected;
        fate.bytes += attacker.fate.bytes;
        fate.granted += attacker.fate.granted;
        for (reason, count) in attacker.fate.refused {
            *fate.refused.entry(reason).or_default() += count;
        }
        for (reason, count) in attacker.fate.ended {
            *fate.ended.entry(reason).or_default() += count;
        }
    }
    fates
}

impl Attacker {
    fn new(plan: &Plan, kind: Kind, at: u64) -> Attacker {
        Attacker {
            kind,
            seat: plan.seat,
            session: fresh_session(),
            token: plan.token,
            book: plan.book,
            victims: plan.victims.clone(),
            random: SplitMix(plan.seed ^ at << 8 ^ kind as u64),
            connection: None,
            fate: Fate::default(),
        }
    }

    fn end(&mut self, reason: String) {
        self.connection = None;
        *self.fate.ended.entry(reason).or_default() += 1;
    }

    fn leave(&mut self) {
        if self.connection.is_some() {
            self.end("left by itself".to_owned());
        }
    }

    fn turn(&mut self, endpoint: &Endpoint) {
        if self.connection.is_none() && !self.connect(endpoint) {
            return;
        }
        let Some(mut connection) = self.connection.take() else { return };
        let gone = self.read(&mut connection);
        if !gone {
            self.speak(&mut connection);
        }
        let broken = gone || self.flush(&mut connection);
        let reason = connection.farewell;
        let left = self.kind == Kind::Truncated && connection.said && connection.outbox.is_empty();
        self.connection = Some(connection);
        match reason.map(Goodbye::from_u8) {
            _ if !broken && left => self.end("left amid a frame".to_owned()),
            _ if !broken => {}
            Some(Some(reason)) => self.end(reason.to_string()),
            _ if self.kind == Kind::SlowReader => self.end("cut off, not reading".to_owned()),
            _ => self.end("closed without a reason".to_owned()),
        }
    }

    fn connect(&mut self, endpoint: &Endpoint) -> bool {
        let Ok(stream) = Stream::connect(endpoint) else {
            self.fate.not_connected += 1;
            return false;
        };
        self.fate.connections += 1;
        let mut outbox = Vec::new();
        match self.kind {
            Kind::Flood
            | Kind::Forge
            | Kind::Absurd
            | Kind::Replay
            | Kind::Stale
            | Kind::Truncated => {
                put(&mut outbox, 0, &self.logon(self.session, Role::Tenant));
            }
            Kind::SlowReader => put(&mut outbox, 0, &self.logon(0, Role::Observer)),
            Kind::HalfOpen => {
                put(&mut outbox, 0, &self.logon(self.session, Role::Tenant));
                outbox.truncate(20);
            }
            Kind::Garbage | Kind::Oversized => {}
        }
        self.connection = Some(Connection {
            stream,
            inbox: Vec::new(),
            outbox,
            next: None,
            unanswered: 0,
            used_id: 0,
            said: false,
            farewell: None,
        });
        true
    }

    fn logon(&self, session: u64, role: Role) -> Logon {
        let account = if role == Role::Tenant { self.seat.account } else { ANY };
        Logon {
            session: session.into(),
            token: self.token,
            account: account.into(),
            instance: ANY.into(),
            role: role as u8,
            ..Logon::zeroed()
        }
    }

    /// An order that nobody meets and that does not stay.
    fn order(&self, client_id: u64) -> NewOrder {
        requests::order(client_id, self.seat.instance, self.book)
    }

    /// Asks for what must be refused, as far as answers have come.
    fn provoke(&mut self, connection: &mut Connection, mut next: u64) {
        let outbox = &mut connection.outbox;
        while connection.unanswered < UNANSWERED_MAX {
            match self.kind {
                Kind::Forge => {
                    let who = (self.seat, self.victims.as_slice());
                    requests::forged(outbox, next, who, (self.book, &mut self.random));
                }
                Kind::Absurd => requests::absurd(outbox, next, self.seat, self.book),
                // Its first one is carried out, ever.
                _ => put(outbox, next, &self.order(connection.used_id.max(1))),
            }
            next += 1;
            connection.unanswered += 1;
        }
        connection.next = Some(next);
    }

    /// Puts into the outbox what this kind has to say now.
    fn speak(&mut self, connection: &mut Connection) {
        let room = TURN_BYTES.saturating_sub(connection.outbox.len());
        let outbox = &mut connection.outbox;
        match (self.kind, connection.next) {
            (Kind::Garbage, _) => {
                let count = 1 + self.random.below(4096) as usize;
                let draw = std::iter::repeat_with(|| self.random.draw() as u8);
                outbox.extend(draw.take(count.min(room)));
            }
            (Kind::Oversized, _) if !connection.said => {
                let length = FRAME_BYTES_MAX as u16 + 1 + self.random.below(60_000) as u16;
                outbox.extend(length.to_le_bytes());
                outbox.extend([VERSION, NewOrder::KIND]);
                outbox.extend([0; 60]);
                connection.said = true;
            }
            (Kind::Flood, Some(mut next)) => {
                while outbox.len() + 64 <= TURN_BYTES {
                    put(outbox, next, &self.order(next));
                    next += 1;
                }
                connection.next = Some(next);
            }
            (Kind::Forge | Kind::Absurd | Kind::Replay, Some(next)) => {
                self.provoke(connection, next);
            }
            (Kind::SlowReader, Some(mut next)) => {
                while outbox.len() + 64 <= TURN_BYTES {
                    put(outbox, next, &QueryInstances { from: 0.into() });
                    next += 1;
                }
                connection.next = Some(next);
            }
            (Kind::Stale, Some(next)) if !connection.said => {
                // Ids of an earlier connection, then a frame a second time.
                put(outbox, next, &self.order(1));
                put(outbox, next + 1, &QueryStatus {});
                put(outbox, next, &self.order(1));
                connection.said = true;
            }
            (Kind::Truncated, Some(next)) if !connection.said => {
                put(outbox, next, &self.order(1));
                let half = outbox.len() - 1 - self.random.below(50) as usize % outbox.len();
                outbox.truncate(half);
                connection.said = true;
            }
            _ => {}
        }
    }

    /// Sends what is taken now. True if the connection is over.
    fn flush(&mut self, connection: &mut Connection) -> bool {
        while !connection.outbox.is_empty() {
            match connection.stream.write(&connection.outbox) {
                Ok(count) => {
                    connection.outbox.drain(..count);
                    self.fate.bytes += count as u64;
                }
                Err(error) if waits(&error) => return false,
                Err(_) => return true,
            }
        }
        false
    }

    /// Reads what came, except for who does not read. True if the connection is over.
    fn read(&mut self, connection: &mut Connection) -> bool {
        if self.kind == Kind::SlowReader && connection.next.is_some() {
            return false;
        }
        let mut bytes = [0; 16 << 10];
        let mut left = TURN_BYTES;
        while left > 0 {
            match connection.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(count) => {
                    left = left.saturating_sub(count);
                    connection.inbox.extend_from_slice(&bytes[..count]);
                    connection.take_frames(&mut self.fate);
                }
                Err(error) if waits(&error) => return false,
                Err(_) => return true,
            }
        }
        false
    }
}

impl Connection {
    fn take_frames(&mut self, fate: &mut Fate) {
        let mut at = 0;
        while let Ok(Some(frame)) = Frame::parse(&self.inbox[at..]) {
            at += frame.len();
            if let Some(ack) = frame.message::<LogonAck>() {
                self.next = Some(ack.last_request.get() + 1);
                self.used_id = ack.last_client_id.get();
            }
            let code = match (frame.message::<Rejected>(), frame.message::<Refused>()) {
                (Some(rejected), _) => Some(rejected.code),
                (_, Some(refused)) => Some(refused.code),
                _ => None,
            };
            if let Some(code) = code {
                let reason = Reject::from_u8(code).map_or("no reason", Reject::text);
                *fate.refused.entry(reason.to_owned()).or_default() += 1;
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            // An order's first answer is that it was accepted; a cancel of it comes after.
            let done = [Accepted::KIND, Replaced::KIND, Done::KIND].contains(&frame.header.kind)
                || frame.message::<Cancelled>().is_some_and(|m| m.reason < 2);
            if done {
                fate.granted += 1;
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            if let Some(farewell) = frame.message::<Farewell>() {
                self.farewell = Some(farewell.reason);
            }
        }
        self.inbox.drain(..at);
    }
}

/// True if the connection is not made yet, or takes or has nothing now.
fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected)
}

fn put<M: Body>(outbox: &mut Vec<u8>, sequence: u64, message: &M) {
    let mut bytes = [0; FRAME_BYTES_MAX];
    let length = encode(sequence, message, &mut bytes);
    outbox.extend_from_slice(&bytes[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_and_attack_take_turns_and_changes_count_as_neither() {
        let at = |ms: u64| window(ms * 1_000_000);
        assert_eq!([at(0), at(999)], [Some(Window::Calm); 2]);
        assert_eq!([at(1000), at(1099), at(2000), at(2099)], [None; 4]);
        assert_eq!([at(1100), at(1999), at(3500)], [Some(Window::Attack); 3]);
        assert_eq!(at(2100), Some(Window::Calm));
    }

    #[test]
    fn attacks_are_named() {
        assert_eq!("all".parse::<Kinds>().unwrap().0, Kind::ALL);
        let two = "flood,half-open".parse::<Kinds>().unwrap();
        assert_eq!(two.0, [Kind::Flood, Kind::HalfOpen]);
        for bad in ["", "fire", "flood,", "all,flood"] {
            assert_eq!(bad.parse::<Kinds>(), Err(BadKinds(bad.into())));
        }
    }
}
