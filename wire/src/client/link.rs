//! Frames in and out of one connection: a nonblocking socket, and rings once they are attached.

use super::tls::Tls;
use super::{ClientError, Endpoint, Received};
use crate::descriptors;
use crate::doorbell::{Bell, Doorbell};
use crate::frame::{FRAME_BYTES_MAX, Frame};
use crate::ring::{Consumer, Memory, Producer, PushError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes read ahead of the caller, and bytes kept until a flush.
const BUFFER_BYTES: usize = 64 << 10;
/// Descriptors a frame may bring.
pub(super) const DESCRIPTORS_MAX: usize = 4;
/// With rings, how often a caller that never sleeps looks whether the socket has ended.
const SOCKET_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Looks in vain for which it looks at the clock once: a caller that never sleeps looks often.
const LOOKS_PER_CLOCK: u32 = 64;
/// How long to wait for room in a ring before looking again: its consumer has no bell for us.
const RING_ROOM_PAUSE: Duration = Duration::from_micros(50);

const _: () = assert!(BUFFER_BYTES >= 2 * FRAME_BYTES_MAX);

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<Tls>),
}

impl Socket {
    fn connect(endpoint: &Endpoint) -> io::Result<Socket> {
        match endpoint {
            Endpoint::Unix(path) | Endpoint::Shm { path, .. } => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(Socket::Unix(stream))
            }
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, super::ANSWER_TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(Socket::Tcp(stream))
            }
            Endpoint::Tls { dir, host, port } => {
                Ok(Socket::Tls(Box::new(Tls::connect(dir, host, *port)?)))
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.read(bytes),
            Socket::Tcp(stream) => stream.read(bytes),
            Socket::Tls(stream) => stream.read(bytes),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.write(bytes),
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Tls(stream) => stream.write(bytes),
        }
    }

    /// Hands the kernel what was written. True if nothing is left.
    fn push(&mut self) -> io::Result<bool> {
        match self {
            Socket::Unix(_) | Socket::Tcp(_) => Ok(true),
            Socket::Tls(stream) => stream.push(),
        }
    }

    /// True if something may be here that the descriptor does not tell of.
    fn may_have_more(&self) -> bool {
        matches!(self, Socket::Tls(stream) if stream.more)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Tls(stream) => stream.stream.as_fd(),
        }
    }
}

#[derive(Debug)]
struct Rings {
    requests: Producer,
    reports: Consumer,
    doorbell: Doorbell,
    /// The consumer announced that it sleeps, so the doorbell may have been rung.
    parked: bool,
    socket_look_at: Instant,
    /// How often nothing was found.
    looks_in_vain: u32,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    socket: Socket,
    /// Bytes read; `start..end` are not taken yet.
    inbox: Box<[u8]>,
    start: usize,
    end: usize,
    outbox: Vec<u8>,
    /// Room for the control message that brings descriptors.
    control: Vec<u8>,
    /// Descriptors that came with what was read, oldest first.
    pub(super) descriptors: Vec<OwnedFd>,
    /// The daemon's end of the socket is closed; what came before may still be taken.
    ended: bool,
    /// The daemon takes nothing more from this socket.
    pub(super) deaf: bool,
    rings: Option<Rings>,
}

impl Link {
    pub(super) fn connect(endpoint: &Endpoint) -> io::Result<Link> {
        Socket::connect(endpoint).map(Link::on)
    }

    pub(super) fn over(stream: UnixStream) -> io::Result<Link> {
        stream.set_nonblocking(true)?;
        Ok(Link::on(Socket::Unix(stream)))
    }

    fn on(socket: Socket) -> Link {
        Link {
            socket,
            inbox: vec![0; BUFFER_BYTES].into(),
            start: 0,
            end: 0,
            outbox: Vec::with_capacity(BUFFER_BYTES),
            control: nix::cmsg_space!([i32; DESCRIPTORS_MAX]),
            descriptors: Vec::with_capacity(DESCRIPTORS_MAX),
            ended: false,
            deaf: false,
            rings: None,
        }
    }

    /// Moves the session to the rings whose descriptors came: request ring, report ring, the
    /// daemon's bell, our doorbell.
    pub(super) fn attach_rings(&mut self) -> Result<(), ClientError> {
        let wrong = ClientError::Descriptors { got: self.descriptors.len(), want: DESCRIPTORS_MAX };
        let Ok([requests, reports, bell, doorbell]) =
            <[OwnedFd; DESCRIPTORS_MAX]>::try_from(std::mem::take(&mut self.descriptors))
        else {
            return Err(wrong);
        };
        self.rings = Some(Rings {
            requests: Producer::attach(Memory::from_fd(requests)?, Bell::from_fd(bell))?,
            reports: Consumer::attach(Memory::from_fd(reports)?)?,
            doorbell: Doorbell::from_fd(doorbell),
            parked: false,
            socket_look_at: Instant::now(),
            looks_in_vain: LOOKS_PER_CLOCK - 1,
        });
        Ok(())
    }

    /// Moves the next frame to `into`; false if no whole one is here. Never blocks.
    #[inline]
    pub(super) fn next(&mut self, into: &mut Received) -> Result<bool, ClientError> {
        if self.pop_ring(into)? || self.parse_inbox(into)? {
            return Ok(true);
        }
        if let Some(rings) = &mut self.rings
            && !self.ended
        {
            rings.looks_in_vain += 1;
            if !rings.looks_in_vain.is_multiple_of(LOOKS_PER_CLOCK) {
                return Ok(false);
            }
            let now = Instant::now();
            if now < rings.socket_look_at {
                return Ok(false);
            }
            rings.socket_look_at = now + SOCKET_LOOK_INTERVAL;
        }
        if !self.ended && !self.read_socket()? {
            return Ok(false);
        }
        if self.parse_inbox(into)? {
            return Ok(true);
        }
        if !self.ended {
            return Ok(false);
        }
        // The daemon's last words may have reached the ring after it was found empty.
        if self.pop_ring(into)? { Ok(true) } else { Err(ClientError::Closed) }
    }

    #[inline]
    fn pop_ring(&mut self, into: &mut Received) -> Result<bool, ClientError> {
        let Some(rings) = &mut self.rings else { return Ok(false) };
        if rings.parked {
            rings.reports.cancel_park();
            rings.parked = false;
            // An error means that every bell is gone, and with it the daemon.
            self.ended |= rings.doorbell.drain().is_err();
        }
        let record = match rings.reports.pop() {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(false),
            Err(corrupt) => return Err(self.ended_or(corrupt.into())),
        };
        match Frame::parse(record.bytes)? {
            Some(frame) if frame.len() == record.bytes.len() => {
                into.set(&frame);
                Ok(true)
            }
            _ => Err(ClientError::BadRecord { bytes: record.bytes.len() }),
        }
    }

    /// Why a ring makes no sense: the rings of a session that ended long ago are given back, and
    /// read as zeros.
    fn ended_or(&mut self, error: ClientError) -> ClientError {
        let unread = self.start != self.end;
        if !self.ended && !unread && self.read_socket().is_err() {
            return error;
        }
        if self.ended { ClientError::Closed } else { error }
    }

    fn parse_inbox(&mut self, into: &mut Received) -> Result<bool, ClientError> {
        let Some(frame) = Frame::parse(&self.inbox[self.start..self.end])? else {
            return Ok(false);
        };
        into.set(&frame);
        self.start += frame.len();
        Ok(true)
    }

    /// Reads what is here. True if there was anything, the end included.
    fn read_socket(&mut self) -> Result<bool, ClientError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.inbox.len() - self.end < FRAME_BYTES_MAX {
            self.inbox.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = &mut self.inbox[self.end..];
        assert!(!room.is_empty(), "a full buffer holds a whole frame, which was to be taken");
        let result = match &self.socket {
            // Only a socket that can bring descriptors is asked for them.
            Socket::Unix(stream) if self.rings.is_none() => {
                let kept = (&mut self.descriptors, DESCRIPTORS_MAX);
                descriptors::receive(stream, room, &mut self.control, kept)
            }
            _ => self.socket.read(room),
        };
        match result {
            Ok(0) => self.ended = true,
            Ok(count) => self.end += count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(false);
            }
            Err(error) if connection_is_over(&error) => self.ended = true,
            Err(source) => return Err(ClientError::Io { call: "reading from", source }),
        }
        Ok(true)
    }

    /// Buffers a frame. False if there is no room: flush and try again.
    pub(super) fn push(&mut self, frame: &[u8]) -> Result<bool, ClientError> {
        if let Some(rings) = &mut self.rings {
            return match rings.requests.try_push(0, &[frame]) {
                Ok(()) => Ok(true),
                Err(PushError::Full) => Ok(false),
                Err(error) => Err(self.ended_or(ClientError::Ring(error))),
            };
        }
        if self.outbox.len() + frame.len() > BUFFER_BYTES {
            return Ok(false);
        }
        self.outbox.extend_from_slice(frame);
        Ok(true)
    }

    /// Hands what is buffered to the kernel, or to the ring's consumer. True if nothing is left.
    /// A socket that takes nothing more only sets `deaf`: why, [`Link::next`] tells, behind what
    /// came before.
    pub(super) fn flush_some(&mut self) -> Result<bool, ClientError> {
        if let Some(rings) = &mut self.rings {
            rings.requests.flush();
            return Ok(true);
        }
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if connection_is_over(&error) => {
                    self.outbox.clear();
                    self.deaf = true;
                }
                Err(source) => return Err(ClientError::Io { call: "writing to", source }),
            }
        }
        match self.socket.push() {
            Err(error) if connection_is_over(&error) => {
                self.deaf = true;
                Ok(true)
            }
            pushed => pushed.map_err(|source| ClientError::Io { call: "writing to", source }),
        }
    }

    /// True if a look at the clock is due: always, unless a caller that never sleeps looks often.
    pub(super) fn clock_is_due(&self) -> bool {
        self.rings.as_ref().is_none_or(|rings| rings.looks_in_vain.is_multiple_of(LOOKS_PER_CLOCK))
    }

    /// Announces that the caller is about to wait for [`Link::as_fd`] to be readable. False:
    /// something is here already.
    pub(super) fn prepare_wait(&mut self) -> bool {
        let whole_frame = !matches!(Frame::parse(&self.inbox[self.start..self.end]), Ok(None));
        if whole_frame || self.ended || self.socket.may_have_more() {
            return false;
        }
        let Some(rings) = &mut self.rings else { return true };
        rings.parked = rings.parked || rings.reports.prepare_park();
        rings.parked
    }

    /// Sleeps until something came, at most `timeout`.
    pub(super) fn wait_readable(&mut self, timeout: Duration) -> Result<(), ClientError> {
        if !self.prepare_wait() {
            return Ok(());
        }
        let Some(rings) = &mut self.rings else {
            poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout)?;
            return Ok(());
        };
        let mut polled = [
            PollFd::new(rings.doorbell.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut polled, timeout)?;
        if polled[1].any() != Some(false) {
            rings.socket_look_at = Instant::now();
            rings.looks_in_vain = LOOKS_PER_CLOCK - 1;
        }
        Ok(())
    }

    /// Sleeps until there is room to send or something came, at most `timeout`.
    pub(super) fn wait_for_room(&mut self, timeout: Duration) -> Result<(), ClientError> {
        if self.rings.is_some() {
            std::thread::sleep(RING_ROOM_PAUSE.min(timeout));
            return Ok(());
        }
        let events = PollFlags::POLLIN | PollFlags::POLLOUT;
        poll(&mut [PollFd::new(self.socket.as_fd(), events)], timeout)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.as_ref().map_or(self.socket.as_fd(), |rings| rings.doorbell.as_fd())
    }
}

fn connection_is_over(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
    )
}

fn poll(polled: &mut [PollFd<'_>], timeout: Duration) -> Result<(), ClientError> {
    match ppoll(polled, Some(TimeSpec::from_duration(timeout)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(ClientError::Io { call: "waiting for", source: errno.into() }),
    }
}
