//! The gateway and the actuator as processes of their own, each with its own sandbox.
//!
//! Stages speak through rings, and a ring is memory that can be handed to another process. The core
//! listens on a Unix socket (`pipeline.stages`), and hands each part that comes its ends of the
//! rings, once. Then the socket says only one thing: that the other side is gone, and whether it was
//! told to go. Whoever loses it stops, cleanly, and the service manager starts all of them again.
//!
//! A part says [`Hello`]; the core answers with a [`Welcome`] and the descriptors, in the order of
//! [`Parcel`], or with a text that says why not.

use crate::config::Config;
use crate::gateway::listen;
use crate::health::{Health, WORDS};
use crate::start::{ActuateEnds, GatewayEnds};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vendue_wire::descriptors;
use vendue_wire::doorbell::{Bell, Doorbell};
use vendue_wire::memory::{AttachError, Words};
use vendue_wire::message::{U32, text};
use vendue_wire::ring::{Consumer, Memory, Producer};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How long a part waits for the core to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long either side waits for the other's one message.
const MESSAGE: Duration = Duration::from_secs(2);
/// Descriptors handed over at most.
const FDS_MAX: usize = 16;

/// What a process runs of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// What decides and remembers.
    Core = 0,
    /// What peers speak with.
    Gateway = 1,
    /// What the host's limits are written by.
    Actuate = 2,
}

impl Part {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        ["core", "gateway", "actuate"][self as usize]
    }
}

/// Why a part is not let in, or cannot come in.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says it")]
pub enum ApartError {
    #[error("cannot {what} {}: {source}", path.display())]
    Socket { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the core at {} does not let this process in: {why}", path.display())]
    Refused { path: PathBuf, why: String },
    #[error(
        "what the core handed over is not what this build expects; start all parts of one version"
    )]
    Parcel,
    #[error("what the core handed over cannot be used: {0}")]
    Memory(#[from] AttachError),
}

/// What a part says.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Hello {
    magic: [u8; 8],
    /// A [`Part`].
    part: U32,
    /// Of configuration and version: parts of two would not fit.
    checksum: U32,
}

/// What the core answers.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Welcome {
    /// Bytes of the board.
    board_bytes: U32,
    /// Descriptors that come along.
    fds: U32,
    /// Why there are none.
    why: [u8; 120],
}

const MAGIC: [u8; 8] = *b"VENDPART";

fn checksum(config: &Config) -> u32 {
    let text = format!("{} {}", env!("CARGO_PKG_VERSION"), config.table);
    crc32c::crc32c(text.as_bytes())
}

/// What one part is handed.
struct Parcel {
    fds: Vec<OwnedFd>,
    board_bytes: u32,
}

/// Collects descriptors.
fn copies<'a>(fds: impl IntoIterator<Item = BorrowedFd<'a>>) -> io::Result<Vec<OwnedFd>> {
    fds.into_iter().map(|fd| fd.try_clone_to_owned()).collect()
}

fn bell(producer: &Producer) -> BorrowedFd<'_> {
    match producer.bell() {
        Some(bell) => bell.as_fd(),
        None => panic!("a ring to another process has no bell"),
    }
}

impl Parcel {
    /// Rings, board, numbers; then bells and the doorbell.
    fn of_gateway(ends: &GatewayEnds, words: BorrowedFd<'_>) -> io::Result<Parcel> {
        let answers = ends.answers.iter().map(|ring| ring.memory().as_fd());
        let fds = [ends.requests.memory().as_fd(), ends.subscriptions.memory().as_fd()]
            .into_iter()
            .chain(answers)
            .chain([ends.board.0.as_fd(), words])
            .chain([bell(&ends.requests), bell(&ends.subscriptions), ends.doorbell.as_fd()]);
        Ok(Parcel { fds: copies(fds)?, board_bytes: ends.board.1 })
    }

    /// Rings, numbers; then bells and the doorbell.
    fn of_actuate(ends: &ActuateEnds, words: BorrowedFd<'_>) -> io::Result<Parcel> {
        let fds = [
            ends.intents.memory().as_fd(),
            ends.measured.memory().as_fd(),
            ends.answers.memory().as_fd(),
            words,
            bell(&ends.measured),
            bell(&ends.answers),
            ends.doorbell.as_fd(),
        ];
        Ok(Parcel { fds: copies(fds)?, board_bytes: 0 })
    }

    fn gateway(self) -> Result<(GatewayEnds, Words), ApartError> {
        let fds: [OwnedFd; 11] = self.fds.try_into().map_err(|_| ApartError::Parcel)?;
        let [requests, subscriptions, a, b, c, d, board, words, core, herald, doorbell] = fds;
        let answer = |fd| Consumer::attach(Memory::from_fd(fd)?);
        let ends = GatewayEnds {
            requests: Producer::attach(Memory::from_fd(requests)?, Bell::from_fd(core))?,
            subscriptions: Producer::attach(
                Memory::from_fd(subscriptions)?,
                Bell::from_fd(herald),
            )?,
            answers: [answer(a)?, answer(b)?, answer(c)?, answer(d)?],
            doorbell: Doorbell::from_fd(doorbell),
            board: (board, self.board_bytes),
        };
        Ok((ends, Words::from_fd(words, WORDS)?))
    }

    fn actuate(self) -> Result<(ActuateEnds, Words), ApartError> {
        let fds: [OwnedFd; 7] = self.fds.try_into().map_err(|_| ApartError::Parcel)?;
        let [intents, measured, answers, words, core, gateway, doorbell] = fds;
        let ends = ActuateEnds {
            intents: Consumer::attach(Memory::from_fd(intents)?)?,
            measured: Producer::attach(Memory::from_fd(measured)?, Bell::from_fd(core))?,
            answers: Producer::attach(Memory::from_fd(answers)?, Bell::from_fd(gateway))?,
            doorbell: Doorbell::from_fd(doorbell),
        };
        Ok((ends, Words::from_fd(words, WORDS)?))
    }
}

/// The core's side: where the parts come to.
pub struct Meeting {
    listener: UnixListener,
    path: PathBuf,
    checksum: u32,
    /// By part, but for the core's.
    parcels: [Option<Parcel>; 2],
}

impl Meeting {
    /// Listens, with what each part is to get. Only who may write to the socket's file can come:
    /// the core's user and group.
    ///
    /// # Errors
    /// The socket cannot be made, or no descriptors are left.
    pub fn open(
        config: &Config,
        health: &Health,
        gateway: &GatewayEnds,
        actuate: &ActuateEnds,
    ) -> Result<Meeting, ApartError> {
        let path = config.pipeline.stages.clone();
        let failed = |what| {
            let path = path.clone();
            move |source| ApartError::Socket { what, path, source }
        };
        let listener = listen::bind(&path, 0o660).map_err(failed("listen on"))?;
        let Some(words) = health.words() else { panic!("a core apart shares its numbers") };
        let parcels = [
            Some(Parcel::of_gateway(gateway, words).map_err(failed("hand over on"))?),
            Some(Parcel::of_actuate(actuate, words).map_err(failed("hand over on"))?),
        ];
        Ok(Meeting { listener, path, checksum: checksum(config), parcels })
    }

    /// Lets each part in once; `gone` is told which goes, and whether it was told to. Blocks until
    /// all have come.
    pub fn attend(mut self, gone: impl Fn(Part, bool) + Send + Clone + 'static) {
        while self.parcels.iter().any(Option::is_some) {
            let Ok((stream, _)) = self.listener.accept() else {
                // Out of descriptors, or a peer that went again: neither lasts.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            let Ok(part) = self.welcome(&stream) else { continue };
            tracing::info!(part = part.name(), "a part of the pipeline has come");
            let gone = gone.clone();
            let watch = move || {
                let was_told = wait_until_gone(stream);
                gone(part, was_told);
            };
            if std::thread::Builder::new().name("watch".to_owned()).spawn(watch).is_err() {
                tracing::error!("no thread to watch the {} with", part.name());
            }
        }
    }

    /// Hands a part what is for it.
    fn welcome(&mut self, mut stream: &UnixStream) -> io::Result<Part> {
        stream.set_read_timeout(Some(MESSAGE))?;
        let mut hello = Hello::new_zeroed();
        stream.read_exact(hello.as_mut_bytes())?;
        let part = match hello.part.get() {
            1 => Part::Gateway,
            2 => Part::Actuate,
            _ => Part::Core,
        };
        let place = (part as usize).checked_sub(1).and_then(|at| self.parcels.get_mut(at));
        let mut welcome = Welcome::new_zeroed();
        let why = match &place {
            _ if hello.magic != MAGIC => "it is no part of a pipeline",
            None => "there is one core",
            Some(None) => "there is one already; stop that first",
            Some(Some(_)) if hello.checksum.get() != self.checksum => {
                "its configuration or version is another; restart all parts"
            }
            Some(Some(_)) => "",
        };
        let Some(parcel) = place.filter(|_| why.is_empty()).and_then(Option::take) else {
            tracing::warn!("a process was not let in: {why}");
            welcome.why[..why.len()].copy_from_slice(why.as_bytes());
            stream.write_all(welcome.as_bytes())?;
            return Err(io::Error::other(why));
        };
        welcome.fds = (parcel.fds.len() as u32).into();
        welcome.board_bytes = parcel.board_bytes.into();
        let fds: Vec<BorrowedFd<'_>> = parcel.fds.iter().map(AsFd::as_fd).collect();
        descriptors::send(stream, welcome.as_bytes(), &fds)?;
        stream.set_read_timeout(None)?;
        Ok(part)
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Returns once the other side has gone: true if it took its [`leave`].
pub fn wait_until_gone(mut stream: UnixStream) -> bool {
    loop {
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            heard => return heard.is_ok_and(|bytes| bytes > 0),
        }
    }
}

/// Says that this side goes because it was told to: nothing has failed.
pub fn leave(mut stream: &UnixStream) {
    // Where nobody hears it, the other side has gone first.
    let _ = stream.write_all(&[0]);
}

/// A part's side: comes to the core and gets what is for it.
fn come(config: &Config, part: Part) -> Result<(UnixStream, Parcel), ApartError> {
    let path = &config.pipeline.stages;
    let failed = |what| move |source| ApartError::Socket { what, path: path.clone(), source };
    let begun = Instant::now();
    let mut stream = loop {
        match UnixStream::connect(path) {
            Ok(stream) => break stream,
            Err(error) if begun.elapsed() > PATIENCE => {
                return Err(failed("reach the core at")(error));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let hello =
        Hello { magic: MAGIC, part: (part as u32).into(), checksum: checksum(config).into() };
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed("set up"))?;
    stream.write_all(hello.as_bytes()).map_err(failed("speak to the core at"))?;
    let (mut welcome, mut fds) = (Welcome::new_zeroed(), Vec::new());
    let mut control = nix::cmsg_space!([RawFd; FDS_MAX]);
    let (bytes, kept) = (welcome.as_mut_bytes(), (&mut fds, FDS_MAX));
    let heard = descriptors::receive(&stream, bytes, &mut control, kept);
    if heard.map_err(failed("hear the core at"))? != size_of::<Welcome>() {
        return Err(failed("hear the core at")(io::ErrorKind::UnexpectedEof.into()));
    }
    if welcome.why[0] != 0 {
        let why = text(&welcome.why).to_owned();
        return Err(ApartError::Refused { path: path.clone(), why });
    }
    if fds.len() != welcome.fds.get() as usize {
        return Err(ApartError::Parcel);
    }
    stream.set_read_timeout(None).map_err(failed("set up"))?;
    Ok((stream, Parcel { fds, board_bytes: welcome.board_bytes.get() }))
}

/// As the gateway: the connection to the core, the ends of the rings, and the numbers.
///
/// # Errors
/// The core cannot be reached or does not let this process in.
pub fn as_gateway(config: &Config) -> Result<(UnixStream, GatewayEnds, Words), ApartError> {
    let (stream, parcel) = come(config, Part::Gateway)?;
    let (ends, words) = parcel.gateway()?;
    Ok((stream, ends, words))
}

/// As the actuator.
///
/// # Errors
/// The core cannot be reached or does not let this process in.
pub fn as_actuate(config: &Config) -> Result<(UnixStream, ActuateEnds, Words), ApartError> {
    let (stream, parcel) = come(config, Part::Actuate)?;
    let (ends, words) = parcel.actuate()?;
    Ok((stream, ends, words))
}
