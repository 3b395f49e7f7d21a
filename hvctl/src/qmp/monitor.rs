//! A session on a monitor's Unix socket. The socket never blocks: waiting is `poll` with the
//! session's next deadline, so a QEMU that hangs costs its caller a known time and nobody else any.

use super::command::Command;
use super::reply::{Nothing, QemuVersion};
use super::session::{Answer, Event, Fault, SendError, Session, printable};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a healthy QEMU may take to answer a command, or to greet. What takes longer is a job or
/// a migration, whose commands are answered at once.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// What ends a call.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket cannot be reached.
    #[error("{}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The session is over; whatever was under way may or may not have happened.
    #[error("{}: {fault}", path.display())]
    Lost {
        /// The socket.
        path: PathBuf,
        /// Why.
        fault: Fault,
    },
    /// QEMU refused the command.
    #[error("QEMU refused {command}: {why}")]
    Refused {
        /// The command.
        command: &'static str,
        /// What QEMU said.
        why: String,
    },
    /// QEMU did not answer in time.
    #[error("QEMU did not answer {command} in time")]
    Late {
        /// The command.
        command: &'static str,
    },
    /// The answer cannot be true.
    #[error("QEMU's answer to {command} makes no sense: {why}")]
    Nonsense {
        /// The command.
        command: &'static str,
        /// Why.
        why: String,
    },
}

/// A connected monitor.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    path: PathBuf,
    session: Session,
    started: Instant,
    process: u32,
    patience: Duration,
}

impl Monitor {
    /// Connects and negotiates. `patience` is for the greeting and for each command; [`PATIENCE`]
    /// where nothing speaks for another.
    ///
    /// # Errors
    /// [`QmpError::Connect`], or [`QmpError::Lost`] when what listens there does not greet in time.
    pub fn connect(path: &Path, patience: Duration) -> Result<Monitor, QmpError> {
        let failed = |source| QmpError::Connect { path: path.to_owned(), source };
        let stream = open(path).map_err(|errno| failed(errno.into()))?;
        let peer = getsockopt(&stream, PeerCredentials).map_err(|errno| failed(errno.into()))?;
        let mut monitor = Monitor {
            stream,
            path: path.to_owned(),
            session: Session::new(nanoseconds(patience)),
            started: Instant::now(),
            process: u32::try_from(peer.pid()).unwrap_or(0),
            patience,
        };
        while !monitor.session.is_ready() {
            monitor.turn(patience)?;
        }
        Ok(monitor)
    }

    /// QEMU's version.
    pub fn version(&self) -> QemuVersion {
        self.session.version().expect("it greeted")
    }

    /// The process that listens on the socket.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// Any [`QmpError`] but [`QmpError::Connect`].
    pub fn call<T: DeserializeOwned>(&mut self, command: &Command) -> Result<T, QmpError> {
        let name = command.name();
        let deadline_ns = self.now_ns().saturating_add(nanoseconds(self.patience));
        let ticket = match self.session.send(command, deadline_ns) {
            Ok(ticket) => ticket,
            Err(SendError::Full) => return Err(QmpError::Late { command: name }),
            Err(SendError::NotReady) => return Err(self.lost()),
        };
        loop {
            match self.session.take(ticket, self.now_ns()) {
                Some(Answer::Returned(value)) => {
                    return serde_json::from_value(value).map_err(|error| QmpError::Nonsense {
                        command: name,
                        why: printable(&error.to_string()),
                    });
                }
                Some(Answer::Refused(refusal)) => {
                    return Err(QmpError::Refused { command: name, why: refusal.text });
                }
                Some(Answer::Late) => return Err(QmpError::Late { command: name }),
                None => self.turn(self.patience)?,
            }
        }
    }

    /// Sends a command that returns nothing.
    ///
    /// # Errors
    /// As [`Monitor::call`].
    pub fn tell(&mut self, command: &Command) -> Result<(), QmpError> {
        self.call::<Nothing>(command).map(drop)
    }

    /// Waits, and takes what QEMU tells meanwhile.
    ///
    /// # Errors
    /// [`QmpError::Lost`].
    pub fn rest(&mut self, time: Duration) -> Result<(), QmpError> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    /// The oldest event that was not taken yet.
    pub fn take_event(&mut self) -> Option<Event> {
        self.session.take_event()
    }

    /// True if no process listens behind the socket any more: it has ended.
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process));
        // The state stands behind the name, which is in parentheses and may hold any character.
        let state = |stat: String| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        match stat {
            Ok(stat) => matches!(state(stat), Some('Z' | 'X')),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.started.elapsed())
    }

    fn lost(&self) -> QmpError {
        let fault = self.session.fault().cloned().unwrap_or(Fault::Closed);
        QmpError::Lost { path: self.path.clone(), fault }
    }

    /// Moves bytes once one side is ready, something is late, or the time is over.
    fn turn(&mut self, longest: Duration) -> Result<(), QmpError> {
        let due = self.session.due_ns().map(|due| due.saturating_sub(self.now_ns()));
        let wait = longest.min(due.map_or(longest, Duration::from_nanos));
        // Rounded up: waking a little late is cheaper than turning until it is time.
        let ms = i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        let mut interest = PollFlags::POLLIN;
        if !self.session.outgoing().is_empty() {
            interest |= PollFlags::POLLOUT;
        }
        let mut ready = [PollFd::new(self.stream.as_fd(), interest)];
        match poll(&mut ready, PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => self.session.closed(),
        }
        if self.move_bytes().is_err() {
            self.session.closed();
        }
        self.session.pass(self.now_ns());
        match self.session.fault() {
            Some(_) => Err(self.lost()),
            None => Ok(()),
        }
    }

    /// Reads one chunk, so that a QEMU that never stops talking cannot hold the caller past its
    /// deadline, and writes what can be written.
    fn move_bytes(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.session.closed(),
            Ok(length) => self.session.receive(&chunk[..length]),
            Err(error) if is_temporary(&error) => {}
            Err(error) => return Err(error),
        }
        while !self.session.outgoing().is_empty() {
            match self.stream.write(self.session.outgoing()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => self.session.sent(length),
                Err(error) if is_temporary(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A connected socket. A queue of connections that is full is an error, not a wait.
fn open(path: &Path) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}
