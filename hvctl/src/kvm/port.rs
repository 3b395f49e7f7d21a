//! The VMM's side: applies intents in the thread that calls [`Port::turn`], one of the VMM's own,
//! because KVM takes ioctls from the VM's own process only.
//!
//! The VMM makes its VM, gives it to a port, and from then on changes memory and vCPUs through
//! [`Port::apply`] itself, so that the port knows all there is. One remote at a time is served, over
//! the Unix socket that the VMM listens on; who may connect is a matter of the socket's permissions,
//! and besides only root and the VMM's own user are let in.

use super::calls::stats_fd;
use super::gate::{Gate, Hold, NotOutside};
use super::hello::{Message, VCPUS_MAX};
use super::intent::{Confirmed, Intent, RING_BYTES, Refusal, answer_record};
use super::memory::{MemoryBounds, Slots, Span};
use kvm_bindings::{KVM_CAP_HALT_POLL, kvm_enable_cap};
use kvm_ioctls::{VcpuFd, VmFd};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::time::TimeSpec;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vendue_wire::descriptors;
use vendue_wire::doorbell::{self, Bell, Doorbell};
use vendue_wire::ring::{Consumer, Memory, Producer, record_ring_bytes};

/// How long a vCPU may take to come out of the guest.
const OUTSIDE_TIMEOUT: Duration = Duration::from_secs(2);
/// Intents that one turn applies at most.
const INTENTS_PER_TURN: usize = 64;
/// How soon a remote that has not taken its answers is looked after again.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// What may be asked of a VM at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Its memory.
    pub memory: MemoryBounds,
    /// vCPUs; their numbers are below this. At most 1024.
    pub vcpus_max: u32,
    /// Longest halt polling.
    pub halt_poll_ns_max: u32,
}

/// A vCPU that the VMM is to set up and run in a thread of its own.
#[derive(Debug)]
pub struct NewVcpu {
    /// Its number.
    pub number: u32,
    /// The vCPU.
    pub fd: VcpuFd,
    /// Where its thread takes its [`super::gate::Seat`].
    pub gate: Arc<Gate>,
}

/// Starts a vCPU's thread.
pub type Start = Box<dyn FnMut(NewVcpu) -> io::Result<()> + Send>;

#[derive(Debug)]
struct Vcpu {
    number: u32,
    gate: Arc<Gate>,
    stats: OwnedFd,
}

/// A remote that is connected.
#[derive(Debug)]
struct Peer {
    socket: UnixStream,
    intents: Consumer,
    answers: Producer,
    doorbell: Doorbell,
}

/// What a turn has to tell the VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A remote has connected.
    Connected {
        /// Its process.
        pid: i32,
    },
    /// The remote is gone, or was sent away.
    Disconnected {
        /// Why.
        why: String,
    },
}

/// See the module.
pub struct Port {
    vm: Arc<VmFd>,
    bounds: Bounds,
    slots: Slots,
    vcpus: Vec<Vcpu>,
    vm_stats: OwnedFd,
    start: Start,
    listener: UnixListener,
    /// Somebody may want to connect.
    knocked: bool,
    peer: Option<Peer>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").field("bounds", &self.bounds).field("vcpus", &self.vcpus).finish()
    }
}

impl Port {
    /// A port for `vm`, which has neither memory nor vCPUs yet. `start` is called for each new vCPU.
    ///
    /// # Errors
    /// What the kernel said; `Unsupported` where it has no `KVM_GET_STATS_FD` (before Linux 5.14).
    pub fn new(vm: VmFd, bounds: Bounds, listener: UnixListener, start: Start) -> io::Result<Port> {
        if bounds.vcpus_max > VCPUS_MAX {
            let why = format!("{} vCPUs; at most {VCPUS_MAX}", bounds.vcpus_max);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        listener.set_nonblocking(true)?;
        let vm_stats = stats_fd(&vm).map_err(|errno| match errno {
            Errno::ENOTTY | Errno::EINVAL => io::ErrorKind::Unsupported.into(),
            errno => io::Error::from(errno),
        })?;
        let vm = Arc::new(vm);
        let slots = Slots::new(vm.clone(), bounds.memory);
        let (vcpus, peer) = (Vec::new(), None);
        Ok(Port { vm, bounds, slots, vcpus, vm_stats, start, listener, knocked: true, peer })
    }

    /// The memory of a slot, as long as the guest may reach.
    pub fn span(&self, slot: u32) -> Option<&Span> {
        self.slots.span(slot)
    }

    /// Applies one intent, of the VMM's own or of the remote's.
    ///
    /// # Errors
    /// Why nothing changed.
    pub fn apply(&mut self, intent: Intent) -> Result<Confirmed, Refusal> {
        match intent {
            Intent::AddMemory { slot, guest_address, bytes, bytes_max } => {
                self.slots.add(slot, guest_address, bytes, bytes_max)
            }
            Intent::RemoveMemory { slot } => self.with_vcpus_outside(|slots| slots.remove(slot)),
            Intent::ResizeMemory { slot, bytes } => {
                self.with_vcpus_outside(|slots| slots.resize(slot, bytes))
            }
            Intent::TrackDirty { slot, on } => self.slots.track(slot, on),
            Intent::SampleDirty { slot } => self.slots.sample(slot),
            Intent::CreateVcpu { vcpu } => self.create_vcpu(vcpu),
            Intent::Park { vcpu } => self.park(vcpu),
            Intent::Unpark { vcpu } => {
                let gate = &self.vcpu(vcpu)?.gate;
                if gate.has_ended() {
                    return Err(Refusal::VcpuEnded);
                }
                gate.open(Hold::Parked);
                Ok(Confirmed::Vcpu { vcpu, parked: gate.is_held(Hold::Parked) })
            }
            Intent::HaltPoll { nanoseconds } => self.halt_poll(nanoseconds),
        }
    }

    fn vcpu(&self, number: u32) -> Result<&Vcpu, Refusal> {
        let found = self.vcpus.iter().find(|vcpu| vcpu.number == number);
        found.ok_or(Refusal::UnknownVcpu)
    }

    fn create_vcpu(&mut self, number: u32) -> Result<Confirmed, Refusal> {
        if number >= self.bounds.vcpus_max {
            return Err(Refusal::TooManyVcpus);
        }
        if self.vcpu(number).is_ok() {
            return Err(Refusal::VcpuExists);
        }
        let fd = self.vm.create_vcpu(number.into())?;
        let stats = stats_fd(&fd).map_err(Refusal::Host)?;
        let gate = Arc::new(Gate::new());
        let new = NewVcpu { number, fd, gate: gate.clone() };
        (self.start)(new)
            .map_err(|error| Refusal::Host(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
        let vcpu = Vcpu { number, gate, stats };
        if let Some(peer) = &self.peer
            && let Err(error) = send_stats(&peer.socket, &vcpu)
        {
            // The remote notices, connects again and is told of every vCPU.
            let _ = peer.socket.shutdown(std::net::Shutdown::Both);
            debug_assert!(error.kind() != io::ErrorKind::InvalidInput, "{error}");
        }
        self.vcpus.push(vcpu);
        Ok(Confirmed::Vcpu { vcpu: number, parked: false })
    }

    fn park(&mut self, vcpu: u32) -> Result<Confirmed, Refusal> {
        let gate = &self.vcpu(vcpu)?.gate;
        let was_parked = gate.is_held(Hold::Parked);
        gate.close(Hold::Parked);
        match gate.wait_outside(Instant::now() + OUTSIDE_TIMEOUT) {
            Ok(()) => Ok(Confirmed::Vcpu { vcpu, parked: true }),
            Err(NotOutside::Ended) => Err(Refusal::VcpuEnded),
            Err(NotOutside::InTime) => {
                if !was_parked {
                    gate.open(Hold::Parked);
                }
                Err(Refusal::VcpuBusy)
            }
        }
    }

    /// Runs `change` while no vCPU is in the guest.
    fn with_vcpus_outside(
        &mut self,
        change: impl FnOnce(&mut Slots) -> Result<Confirmed, Refusal>,
    ) -> Result<Confirmed, Refusal> {
        for vcpu in &self.vcpus {
            vcpu.gate.close(Hold::Change);
        }
        let deadline = Instant::now() + OUTSIDE_TIMEOUT;
        let busy = |vcpu: &Vcpu| vcpu.gate.wait_outside(deadline) == Err(NotOutside::InTime);
        let result = if self.vcpus.iter().any(busy) {
            Err(Refusal::VcpuBusy)
        } else {
            change(&mut self.slots)
        };
        for vcpu in &self.vcpus {
            vcpu.gate.open(Hold::Change);
        }
        result
    }

    fn halt_poll(&self, nanoseconds: u32) -> Result<Confirmed, Refusal> {
        if nanoseconds > self.bounds.halt_poll_ns_max {
            return Err(Refusal::HaltPollTooLong);
        }
        let args = [u64::from(nanoseconds), 0, 0, 0];
        self.vm.enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_HALT_POLL,
            args,
            ..Default::default()
        })?;
        Ok(Confirmed::HaltPoll { nanoseconds })
    }

    /// Takes a remote in, applies what it asks, and sleeps at most `timeout` if there is nothing to
    /// do.
    ///
    /// # Errors
    /// The listener is of no use any more. What a remote does is never an error, only a [`Note`].
    pub fn turn(&mut self, timeout: Duration) -> io::Result<Option<Note>> {
        if std::mem::take(&mut self.knocked)
            && let Some(note) = self.accept()?
        {
            return Ok(Some(note));
        }
        let busy = match self.serve() {
            Ok(busy) => busy,
            Err(why) => {
                self.peer = None;
                return Ok(Some(Note::Disconnected { why }));
            }
        };
        match busy {
            Busy::MoreToDo => Ok(None),
            Busy::NoRoom => self.sleep(ROOM_PAUSE.min(timeout), false),
            Busy::Idle => self.sleep(timeout, true),
        }
    }

    fn accept(&mut self) -> io::Result<Option<Note>> {
        let socket = match self.listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionAborted => Ok(None),
                    _ => Err(error),
                };
            }
        };
        if self.peer.is_some() {
            // One remote at a time: the end of its connection tells the other so.
            return Ok(None);
        }
        Ok(Some(match self.welcome(socket) {
            Ok((peer, pid)) => {
                self.peer = Some(peer);
                Note::Connected { pid }
            }
            Err(error) => Note::Disconnected { why: error.to_string() },
        }))
    }

    fn welcome(&self, socket: UnixStream) -> io::Result<(Peer, i32)> {
        socket.set_nonblocking(true)?;
        let who = getsockopt(&socket, sockopt::PeerCredentials)?;
        if who.uid() != 0 && who.uid() != nix::unistd::geteuid().as_raw() {
            let why = format!("user {} may not speak to this VMM", who.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let (intents, answers) = (Memory::create(RING_BYTES)?, Memory::create(RING_BYTES)?);
        let (bell, doorbell) = doorbell::pair()?;
        let (their_bell, their_doorbell) = doorbell::pair()?;
        let ours = [
            intents.as_fd(),
            answers.as_fd(),
            bell.as_fd(),
            their_doorbell.as_fd(),
            self.vm_stats.as_fd(),
        ];
        descriptors::send(&socket, &Message::Hello(self.bounds).bytes(), &ours)?;
        for vcpu in &self.vcpus {
            send_stats(&socket, vcpu)?;
        }
        let intents = Consumer::attach(intents).map_err(io::Error::other)?;
        let answers = attach_producer(answers, their_bell)?;
        Ok((Peer { socket, intents, answers, doorbell }, who.pid()))
    }

    /// Applies what is asked.
    fn serve(&mut self) -> Result<Busy, String> {
        for _ in 0..INTENTS_PER_TURN {
            let Some(peer) = &mut self.peer else { return Ok(Busy::Idle) };
            // An answer has to fit before its intent is applied.
            if peer.answers.free_bytes() < record_ring_bytes(RING_BYTES / 2) {
                return Ok(Busy::NoRoom);
            }
            let record = peer.intents.pop().map_err(|error| error.to_string())?;
            let Some(record) = record else { return Ok(Busy::Idle) };
            let parsed = Intent::parse(record.tag, record.bytes);
            let (id, intent) = parsed.ok_or("a record that is no intent")?;
            let answer = intent.and_then(|intent| self.apply(intent));
            let (record, bitmap) = answer_record(id, &answer);
            let Some(peer) = &mut self.peer else { return Ok(Busy::Idle) };
            let pushed = peer.answers.try_push(record.tag, &[&record.bytes(), &bitmap]);
            pushed.map_err(|error| error.to_string())?;
            peer.answers.flush();
        }
        Ok(Busy::MoreToDo)
    }

    /// Sleeps until somebody connects, asks or goes.
    fn sleep(&mut self, timeout: Duration, may_park: bool) -> io::Result<Option<Note>> {
        let Some(peer) = &mut self.peer else {
            let mut polled = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            wait(&mut polled, timeout)?;
            self.knocked = true;
            return Ok(None);
        };
        if may_park && !peer.intents.prepare_park() {
            return Ok(None);
        }
        let mut polled = [
            PollFd::new(peer.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(peer.doorbell.as_fd(), PollFlags::POLLIN),
        ];
        // Without room there is nothing to be rung for.
        let watched = if may_park { 3 } else { 2 };
        wait(&mut polled[..watched], timeout)?;
        let socket_is_ready = polled[0].any() != Some(false);
        self.knocked = polled[1].any() != Some(false);
        let rung = watched == 3 && polled[2].any() != Some(false);
        if may_park {
            peer.intents.cancel_park();
        }
        let gone = (rung && peer.doorbell.drain().is_err()) || {
            // A remote says nothing here, so what can be read is its end.
            socket_is_ready && !would_block((&peer.socket).read(&mut [0; 1]))
        };
        if gone {
            self.peer = None;
            return Ok(Some(Note::Disconnected { why: "the remote is gone".to_owned() }));
        }
        Ok(None)
    }
}

/// What is left after a look at the remote's intents.
enum Busy {
    MoreToDo,
    NoRoom,
    Idle,
}

fn attach_producer(memory: Memory, bell: Bell) -> io::Result<Producer> {
    Producer::attach(memory, bell).map_err(io::Error::other)
}

fn send_stats(socket: &UnixStream, vcpu: &Vcpu) -> io::Result<()> {
    let message = Message::Vcpu(vcpu.number).bytes();
    descriptors::send(socket, &message, &[vcpu.stats.as_fd()])
}

pub(super) fn would_block<T>(result: io::Result<T>) -> bool {
    let retry = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
    matches!(result, Err(error) if retry.contains(&error.kind()))
}

pub(super) fn wait(polled: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    match ppoll(polled, Some(TimeSpec::from_duration(timeout)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
