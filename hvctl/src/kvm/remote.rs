//! The engine's side: sends intents to a VMM's port, takes the answers, and reads the statistics.
//!
//! It has no VM and no vCPU to send an ioctl to, and would get `EIO` if it had; see [`super`].

use super::hello::{HELLO_DESCRIPTORS, MESSAGE_BYTES, Message, VCPUS_MAX};
use super::intent::{Confirmed, Intent, RING_BYTES, Refusal, parse_answer};
use super::port::{Bounds, wait};
use super::stats::{Stats, StatsError};
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{getsockopt, sockopt};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use vendue_wire::descriptors;
use vendue_wire::doorbell::{Bell, Doorbell};
use vendue_wire::memory::AttachError;
use vendue_wire::ring::{Consumer, Corrupt, Memory, Producer, PushError};

/// Intents that may wait for their answers.
pub const PENDING_MAX: usize = 64;
/// How long a VMM may take to introduce itself.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages taken from the socket at a time.
const MESSAGES_PER_LOOK: usize = 64;

/// Why a VMM cannot be spoken to, or not any more. After any of these but [`RemoteError::Full`] and
/// [`RemoteError::Timeout`] the remote is of no use; connect again, if the VMM still runs.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Nothing listens there, or the kernel refused a call.
    #[error("cannot {what} the VMM's port: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The VMM has ended, or serves another remote.
    #[error("the VMM is gone, or serves another remote; its guest's state went with it")]
    Gone,
    /// The VMM says what no correct port says.
    #[error("the VMM breaks the port's protocol: {0}")]
    Protocol(&'static str),
    /// The shared memory cannot be used.
    #[error("the VMM's ring cannot be used: {0}")]
    Attach(#[from] AttachError),
    /// The shared memory makes no sense.
    #[error("the VMM's ring is corrupt: {0}")]
    Corrupt(#[from] Corrupt),
    /// Statistics that came are none.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// Too many intents wait for their answers.
    #[error("{PENDING_MAX} intents wait for the VMM's answers; wait for some")]
    Full,
    /// No answer in time. It may still come.
    #[error("the VMM did not answer in time; whether the intent was applied is not known yet")]
    Timeout,
    /// The VMM answered, and changed nothing.
    #[error("the VMM refused: {0}")]
    Refused(#[from] Refusal),
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> RemoteError {
    move |source| RemoteError::Io { what, source }
}

/// An answer, to the intent of that number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What [`Remote::submit`] gave.
    pub id: u64,
    /// The intent.
    pub intent: Intent,
    /// What came of it.
    pub outcome: Result<Confirmed, Refusal>,
}

/// A connected VMM.
#[derive(Debug)]
pub struct Remote {
    socket: UnixStream,
    control: Vec<u8>,
    bounds: Bounds,
    pid: i32,
    intents: Producer,
    answers: Consumer,
    doorbell: Doorbell,
    pending: BTreeMap<u64, Intent>,
    next_id: u64,
    vm_stats: Stats,
    vcpu_stats: BTreeMap<u32, Stats>,
}

impl Remote {
    /// Connects to the port at `path`.
    ///
    /// # Errors
    /// Nothing listens, or what listens is no port.
    pub fn connect(path: &Path) -> Result<Remote, RemoteError> {
        let socket = UnixStream::connect(path).map_err(io_error("connect to"))?;
        socket.set_read_timeout(Some(HELLO_TIMEOUT)).map_err(io_error("wait for"))?;
        let who = getsockopt(&socket, sockopt::PeerCredentials)
            .map_err(|errno| io_error("look at")(errno.into()))?;
        let mut control = nix::cmsg_space!([RawFd; HELLO_DESCRIPTORS]);
        let (message, came) = receive(&socket, &mut control)?.ok_or(RemoteError::Gone)?;
        let Message::Hello(bounds) = message else {
            return Err(RemoteError::Protocol("no hello"));
        };
        let Ok([intents, answers, bell, doorbell, vm_stats]) =
            <[OwnedFd; HELLO_DESCRIPTORS]>::try_from(came)
        else {
            return Err(RemoteError::Protocol("a hello without its descriptors"));
        };
        let (intents, answers) = (Memory::from_fd(intents)?, Memory::from_fd(answers)?);
        if intents.capacity_bytes() != RING_BYTES || answers.capacity_bytes() != RING_BYTES {
            return Err(RemoteError::Protocol("rings of another size"));
        }
        socket.set_nonblocking(true).map_err(io_error("set up"))?;
        let mut remote = Remote {
            socket,
            control,
            bounds,
            pid: who.pid(),
            intents: Producer::attach(intents, Bell::from_fd(bell))?,
            answers: Consumer::attach(answers)?,
            doorbell: Doorbell::from_fd(doorbell),
            pending: BTreeMap::new(),
            next_id: 1,
            vm_stats: Stats::open(vm_stats)?,
            vcpu_stats: BTreeMap::new(),
        };
        remote.look_at_socket()?;
        Ok(remote)
    }

    /// The VMM's process, as the kernel says.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What the VMM says that may be asked of it.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Statistics of the VM.
    pub fn vm_stats(&mut self) -> &mut Stats {
        &mut self.vm_stats
    }

    /// Statistics of each vCPU whose descriptor has come.
    pub fn vcpu_stats(&mut self) -> &mut BTreeMap<u32, Stats> {
        &mut self.vcpu_stats
    }

    /// Sends an intent; its answer comes from [`Remote::poll`] with the number that this returns.
    ///
    /// # Errors
    /// [`RemoteError::Full`], or the ring is corrupt.
    pub fn submit(&mut self, intent: Intent) -> Result<u64, RemoteError> {
        if self.pending.len() >= PENDING_MAX {
            return Err(RemoteError::Full);
        }
        let id = self.next_id;
        let record = intent.record(id);
        match self.intents.try_push(record.tag, &[&record.bytes()]) {
            Ok(()) => self.intents.flush(),
            Err(PushError::Corrupt(corrupt)) => return Err(corrupt.into()),
            Err(PushError::Full | PushError::TooLong { .. }) => return Err(RemoteError::Full),
        }
        self.next_id += 1;
        self.pending.insert(id, intent);
        Ok(id)
    }

    /// The next answer, if one is here. Also takes in the statistics of new vCPUs, and notices when
    /// the VMM is gone. Never blocks.
    ///
    /// # Errors
    /// The VMM is gone, or broken; answers that came before are told first.
    pub fn poll(&mut self) -> Result<Option<Answer>, RemoteError> {
        if self.answers.is_empty() {
            let gone = self.look_at_socket();
            // What a VMM said before it ended is in the ring by then.
            if self.answers.is_empty() {
                return gone.map(|()| None);
            }
        }
        let Some(record) = self.answers.pop()? else { return Ok(None) };
        let parsed = parse_answer(record.tag, record.bytes);
        let (id, outcome) = parsed.ok_or(RemoteError::Protocol("a record that is no answer"))?;
        let intent = self.pending.remove(&id);
        let intent = intent.ok_or(RemoteError::Protocol("an answer to no intent"))?;
        if outcome.as_ref().is_ok_and(|confirmed| !intent.is_answered_by(confirmed)) {
            return Err(RemoteError::Protocol("an answer to another intent"));
        }
        Ok(Some(Answer { id, intent, outcome }))
    }

    /// Sleeps until something may have come, at most `timeout`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn wait(&mut self, timeout: Duration) -> Result<(), RemoteError> {
        self.sleep(None, timeout)
    }

    /// As [`Remote::wait`], and until `other` can be read.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn wait_beside(
        &mut self,
        other: BorrowedFd<'_>,
        timeout: Duration,
    ) -> Result<(), RemoteError> {
        self.sleep(Some(other), timeout)
    }

    fn sleep(
        &mut self,
        other: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) -> Result<(), RemoteError> {
        if !self.answers.prepare_park() {
            return Ok(());
        }
        let ours = [self.doorbell.as_fd(), self.socket.as_fd()];
        let watched = ours.into_iter().chain(other);
        let mut polled: Vec<PollFd<'_>> =
            watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let waited = wait(&mut polled, timeout).map_err(io_error("wait for"));
        self.answers.cancel_park();
        // An error means that the VMM is gone, which the socket tells as well.
        let _ = self.doorbell.drain();
        waited
    }

    /// Sends an intent and waits for what comes of it; for callers with nothing else under way.
    ///
    /// # Errors
    /// The VMM refused, did not answer in `timeout`, or is gone.
    pub fn ask(&mut self, intent: Intent, timeout: Duration) -> Result<Confirmed, RemoteError> {
        let deadline = Instant::now() + timeout;
        let id = self.submit(intent)?;
        loop {
            // Answers to what timed out before are passed over.
            match self.poll()? {
                Some(answer) if answer.id == id => return Ok(answer.outcome?),
                Some(_) => continue,
                None => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(RemoteError::Timeout);
            }
            self.wait(left)?;
        }
    }

    /// Takes what the VMM says on its socket.
    fn look_at_socket(&mut self) -> Result<(), RemoteError> {
        for _ in 0..MESSAGES_PER_LOOK {
            let Some((message, came)) = receive(&self.socket, &mut self.control)? else {
                return Ok(());
            };
            let Message::Vcpu(vcpu) = message else {
                return Err(RemoteError::Protocol("a second hello"));
            };
            let Ok([stats]) = <[OwnedFd; 1]>::try_from(came) else {
                return Err(RemoteError::Protocol("a vCPU without its statistics"));
            };
            assert!(vcpu < VCPUS_MAX, "checked when parsed");
            self.vcpu_stats.insert(vcpu, Stats::open(stats)?);
        }
        Ok(())
    }
}

/// A message and what came with it; `None` if nothing is here.
fn receive(
    socket: &UnixStream,
    control: &mut [u8],
) -> Result<Option<(Message, Vec<OwnedFd>)>, RemoteError> {
    let mut bytes = [0; MESSAGE_BYTES];
    let mut came = Vec::new();
    let kept = (&mut came, HELLO_DESCRIPTORS);
    match descriptors::receive(socket, &mut bytes, control, kept) {
        Ok(0) => Err(RemoteError::Gone),
        Ok(MESSAGE_BYTES) => {
            let message = Message::parse(&bytes);
            let message = message.ok_or(RemoteError::Protocol("a message of no port"))?;
            Ok(Some((message, came)))
        }
        Ok(_) => Err(RemoteError::Protocol("half a message")),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(RemoteError::Gone),
            _ => Err(io_error("read from")(error)),
        },
    }
}
