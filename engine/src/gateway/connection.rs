//! A connection: its transport, its buffers, and how far its session has come.

use super::access::Peer;
use super::throttle::Bucket;
use super::tls::TlsStream;
use mio::net::{TcpStream, UnixStream};
use nix::sys::socket::{getsockopt, sockopt};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;
use vendue_wire::code::Role;
use vendue_wire::descriptors;
use vendue_wire::doorbell::{self, Doorbell};
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame};
use vendue_wire::message::ANY;
use vendue_wire::ring::{Consumer, Memory, Producer, PushError};

/// Bytes read from a socket at once, and kept while a frame is incomplete.
pub const INBOUND_BYTES: usize = 64 << 10;
/// Room for what is to be sent, made with the first frame: answers to a few requests at once fit.
const OUTBOUND_BYTES: usize = 2 << 10;

/// A socket.
#[derive(Debug)]
pub enum Socket {
    /// On the Unix socket.
    Unix(UnixStream),
    /// On TCP.
    Tcp(TcpStream),
    /// On TCP, encrypted.
    Tls(Box<TlsStream>),
    /// From this process: whom it speaks for was found out by who opened it.
    Side(UnixStream, Peer),
}

impl Socket {
    fn stream(&mut self) -> &mut dyn ReadWrite {
        match self {
            Socket::Unix(stream) | Socket::Side(stream, _) => stream,
            Socket::Tcp(stream) => stream,
            Socket::Tls(stream) => &mut **stream,
        }
    }

    /// The socket, to register for events.
    pub fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Socket::Unix(stream) | Socket::Side(stream, _) => stream,
            Socket::Tcp(stream) => stream,
            Socket::Tls(stream) => &mut stream.socket,
        }
    }
}

trait ReadWrite: Read + Write {}
impl ReadWrite for UnixStream {}
impl ReadWrite for TcpStream {}
impl ReadWrite for TlsStream {}

/// Rings that carry the session in place of the socket.
#[derive(Debug)]
pub struct Rings {
    /// Requests.
    pub requests: Consumer,
    /// Rung for requests. Each peer has a pipe to itself: whoever holds one end of it can fill it,
    /// and can make writing to it block for everybody else who holds that end.
    pub doorbell: Doorbell,
    /// Reports.
    pub reports: Producer,
}

/// How far the session on a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was said yet.
    New,
    /// The machine is opening the session.
    Opening,
    /// The session is open; the slot is [`ANY`] for an anonymous one.
    Open {
        /// Slot.
        slot: u32,
    },
    /// A farewell is on its way out, then the connection closes.
    Closing,
}

/// A session as a logon names it: another logon that names the same resumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Number the client chose.
    pub number: u64,
    /// Account it acts for, or [`ANY`].
    pub account: u32,
    /// Instance it acts for, or [`ANY`].
    pub instance: u32,
    /// Role.
    pub role: Role,
}

/// What reading found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There may be more to read.
    More,
    /// Something, and nothing more for now.
    Last,
    /// Nothing more for now.
    Drained,
    /// The peer is gone.
    Gone,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    /// How many connections had been admitted with it; tells it from the next at its place.
    pub admission: u32,
    /// How far its session is.
    pub stage: Stage,
    /// Session it logged on to, unless anonymous.
    pub session: Option<Named>,
    /// Sequence the next message must have.
    pub next_request: u64,
    /// Bytes that arrived and are not handled yet.
    inbound: Vec<u8>,
    handled: usize,
    /// Bytes on their way out.
    outbound: Vec<u8>,
    sent: usize,
    /// Shared-memory rings, once attached.
    pub rings: Option<Rings>,
    /// True until the socket said that there is nothing to read.
    pub readable: bool,
    /// The peer sends nothing more: what it sent ends with the end of the stream.
    pub hung_up: bool,
    /// When something was last heard.
    pub heard: Instant,
    /// The last crowding of the queue to the core in which it passed something on.
    pub crowding: u64,
    /// How many requests it passed on in that.
    pub pushed: u32,
    /// Questions passed on whose answers have not ended.
    pub questions: u32,
    /// When the last one was passed on.
    pub asked_at: Instant,
    /// It has subscribed: the herald is to know when it goes.
    pub listens: bool,
    /// Something was heard since timers were last looked at.
    pub spoke: bool,
    /// When something was last said.
    pub said: Instant,
    /// Heartbeat interval, milliseconds; 0 before the logon.
    pub heartbeat_ms: u32,
    /// Its throttle.
    pub bucket: Bucket,
}

impl Connection {
    /// A connection just accepted.
    ///
    /// # Errors
    /// The socket is of no use.
    pub fn new(mut socket: Socket, admission: u32, now: Instant) -> io::Result<Connection> {
        match &mut socket {
            Socket::Unix(_) | Socket::Side(..) => {}
            Socket::Tcp(stream) => stream.set_nodelay(true)?,
            Socket::Tls(stream) => stream.socket.set_nodelay(true)?,
        }
        Ok(Connection {
            socket,
            admission,
            stage: Stage::New,
            session: None,
            next_request: 0,
            inbound: Vec::new(),
            handled: 0,
            outbound: Vec::new(),
            sent: 0,
            rings: None,
            readable: true,
            hung_up: false,
            heard: now,
            crowding: 0,
            pushed: 0,
            questions: 0,
            asked_at: now,
            listens: false,
            spoke: false,
            said: now,
            heartbeat_ms: 0,
            bucket: Bucket::full(now),
        })
    }

    /// The socket, to register for events.
    pub fn source(&mut self) -> &mut dyn mio::event::Source {
        self.socket.source()
    }

    /// How the peer is known.
    ///
    /// # Errors
    /// The kernel does not say who the peer is.
    pub fn peer(&self) -> io::Result<Peer> {
        Ok(match &self.socket {
            Socket::Unix(stream) => Peer::User(getsockopt(stream, sockopt::PeerCredentials)?.uid()),
            Socket::Tcp(_) => Peer::Tcp,
            Socket::Tls(stream) => Peer::Certificate(stream.names()),
            Socket::Side(_, peer) => peer.clone(),
        })
    }

    /// True while its peer proves who it is, which costs far more than a request.
    pub fn is_handshaking(&self) -> bool {
        matches!(&self.socket, Socket::Tls(stream) if stream.is_handshaking())
    }

    /// True on the Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.socket, Socket::Unix(_))
    }

    /// Slot of its open session, if it has one that the machine knows.
    pub fn slot(&self) -> Option<u32> {
        match self.stage {
            Stage::Open { slot, .. } if slot != ANY => Some(slot),
            _ => None,
        }
    }

    /// False if it would be of no use to look for frames now.
    pub fn may_have_frames(&self) -> bool {
        self.readable || self.rings.is_some() || self.handled < self.inbound.len()
    }

    /// Reads what the socket has, as far as the buffer goes; `buffer`, of [`INBOUND_BYTES`], is
    /// what it is read into first.
    pub fn read(&mut self, buffer: &mut [u8]) -> Found {
        self.inbound.drain(..self.handled);
        self.handled = 0;
        let room = INBOUND_BYTES - self.inbound.len();
        if room == 0 {
            return Found::More;
        }
        let read = self.socket.stream().read(&mut buffer[..room]);
        self.inbound.extend_from_slice(&buffer[..read.as_ref().copied().unwrap_or(0)]);
        match read {
            Ok(0) => Found::Gone,
            // Edge-triggered: a stream that gave less than was asked for has nothing left, and
            // tells anew when it has.
            Ok(count) if count < room && !self.hung_up => Found::Last,
            Ok(_) => Found::More,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Found::Drained,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Found::More,
            Err(_) => Found::Gone,
        }
    }

    /// Copies the next whole frame out of the socket's bytes; its length, 0 if there is none.
    ///
    /// # Errors
    /// Framing is lost.
    pub fn next_frame(
        &mut self,
        out: &mut [u8; FRAME_BYTES_MAX],
    ) -> Result<usize, vendue_wire::frame::FrameError> {
        let bytes = &self.inbound[self.handled..];
        let Some(frame) = Frame::parse(bytes)? else { return Ok(0) };
        let length = frame.len();
        out[..length].copy_from_slice(&bytes[..length]);
        self.handled += length;
        Ok(length)
    }

    /// Queues a frame; false if the peer has let too much wait.
    pub fn queue(&mut self, frame: &[u8], bytes_max: usize) -> bool {
        if let Some(rings) = &mut self.rings
            && self.outbound.is_empty()
            && rings.reports.try_push(0, &[frame]).is_ok()
        {
            return true;
        }
        if self.outbound.len() - self.sent + frame.len() > bytes_max {
            return false;
        }
        if self.outbound.capacity() == 0 {
            self.outbound.reserve(OUTBOUND_BYTES);
        }
        self.outbound.extend_from_slice(frame);
        true
    }

    /// True if nothing waits to go out.
    pub fn is_flushed(&self) -> bool {
        self.outbound.is_empty()
    }

    /// Sends what the transport takes now.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.rings.is_some() {
            return self.flush_rings();
        }
        while self.sent < self.outbound.len() {
            match self.socket.stream().write(&self.outbound[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.forget_sent();
        // What is encrypted and did not go out then.
        self.socket.stream().flush()
    }

    /// Gives back the room of what was sent, once that is half of it: a peer that never quite
    /// catches up must not let the buffer grow.
    fn forget_sent(&mut self) {
        if 2 * self.sent >= self.outbound.len() {
            self.outbound.drain(..self.sent);
            self.sent = 0;
        }
    }

    fn flush_rings(&mut self) -> io::Result<()> {
        let Some(rings) = &mut self.rings else { return Ok(()) };
        while self.sent < self.outbound.len() {
            let rest = &self.outbound[self.sent..];
            let length = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
            match rings.reports.try_push(0, &[&rest[..length]]) {
                Ok(()) => self.sent += length,
                Err(PushError::Full) => break,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        rings.reports.flush();
        self.forget_sent();
        Ok(())
    }

    /// Sends `frame` with descriptors, at once and whole.
    ///
    /// # Errors
    /// Something still waits to go out, or the socket does not take it now.
    pub fn send_with(&mut self, frame: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if !self.is_flushed() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Nonblocking, as all of the gateway's; only Unix sockets carry descriptors.
        let Socket::Unix(stream) = &self.socket else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        descriptors::send(stream, frame, fds)
    }

    /// Makes a ring pair, hands the client its ends with `frame`, and speaks over them from now
    /// on. `listen` registers the doorbell that the client rings.
    ///
    /// # Errors
    /// The memory cannot be made or the frame not be sent; the socket goes on as before.
    pub fn attach_rings(
        &mut self,
        bytes: u32,
        frame: &[u8],
        listen: impl FnOnce(&Doorbell) -> io::Result<()>,
    ) -> io::Result<()> {
        let attached = |error| io::Error::other(format!("{error}"));
        let requests = Memory::create(bytes as usize)?;
        let reports = Memory::create(bytes as usize)?;
        let (bell, doorbell) = doorbell::pair()?;
        let (client_bell, client_doorbell) = doorbell::pair()?;
        let shared = [requests.as_fd(), reports.as_fd()].map(|fd| fd.try_clone_to_owned());
        let [request_memory, report_memory] = shared;
        let (request_memory, report_memory) = (request_memory?, report_memory?);
        // Checked before the peer can write to it: what it does then ends the session, no more.
        let rings = Rings {
            requests: Consumer::attach(requests).map_err(attached)?,
            reports: Producer::attach(reports, client_bell).map_err(attached)?,
            doorbell,
        };
        listen(&rings.doorbell)?;
        let fds =
            [request_memory.as_fd(), report_memory.as_fd(), bell.as_fd(), client_doorbell.as_fd()];
        self.send_with(frame, &fds)?;
        self.rings = Some(rings);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that reads as fast as it is written to, but is always a little behind.
    #[test]
    fn a_lagging_peer_does_not_let_the_buffer_grow() {
        const FRAME: [u8; 512] = [7; 512];
        const BYTES_MAX: usize = 1 << 20;
        let (ours, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let socket = Socket::Unix(UnixStream::from_std(ours));
        let mut connection = Connection::new(socket, 1, Instant::now()).unwrap();
        while connection.is_flushed() {
            assert!(connection.queue(&FRAME, BYTES_MAX));
            connection.flush().unwrap();
        }
        for _ in 0..20_000 {
            assert!(connection.queue(&FRAME, BYTES_MAX));
            peer.read_exact(&mut [0; FRAME.len()]).unwrap();
            connection.flush().unwrap();
        }
        assert!(connection.outbound.capacity() <= 2 * BYTES_MAX, "{}", connection.outbound.len());
    }
}
