//! A cell: a minimal VMM that hosts one flat guest, with a [`crate::kvm::port`] embedded.
//!
//! One thread a vCPU, one for the port, one for what the guest says; the thread that called waits
//! for the guest's end. Everything that needs the file system or a privilege happens before
//! [`jail`] closes; the guest's first instruction runs behind it.
//!
//! A guest finds its image at [`IMAGE_AT`] and starts there on every vCPU, interrupts off, with the
//! vCPU's number in (e)bx and the size of slot 0 in (r)si. Bytes written to port 0x3f8 are what it
//! says; a byte written to port 0xf4 ends the cell with that exit code. What no slot backs reads as
//! ones and swallows writes, so that a guest sees where its memory ends.

mod groups;
mod guest;
mod jail;
mod vcpu;

pub use guest::{IMAGE_AT, IMAGE_BYTES_MAX, Mode};

use crate::kvm::intent::{Intent, Refusal};
use crate::kvm::memory::MemoryBounds;
use crate::kvm::port::{Bounds, NewVcpu, Note, Port};
use groups::Groups;
use kvm_ioctls::Kvm;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// Memory slots of a cell.
const SLOTS_MAX: u32 = 32;
/// Longest halt polling that may be asked for.
const HALT_POLL_NS_MAX: u32 = 1_000_000;
/// Where three pages lie that Intel's processors need, out of every guest's way.
const TSS_AT: usize = 0xfffb_d000;
/// How long the port's thread sleeps at most.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that a guest may be ahead of whoever reads what it says. More are lost, as on a real
/// serial line, so that a reader who stops cannot stop the guest's vCPUs.
const SAID_BYTES_MAX: usize = 1 << 16;
/// How long the last words may take to be written.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// A cell before it runs.
#[derive(Debug)]
pub struct Plan {
    /// What is put at [`IMAGE_AT`].
    pub image: Vec<u8>,
    /// How its processors start.
    pub mode: Mode,
    /// Bytes of slot 0.
    pub memory_bytes: u64,
    /// What the port may raise all memory to.
    pub memory_bytes_max: u64,
    /// vCPUs that start.
    pub vcpus: u32,
    /// What the port may raise them to.
    pub vcpus_max: u32,
    /// Where the port listens.
    pub port: PathBuf,
    /// A cgroup v2 directory to make and live in.
    pub cgroup: Option<PathBuf>,
}

/// Why a cell does not run, or ended other than its guest meant.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// KVM is not there, or refuses.
    #[error("KVM refuses ({what}): {source}; a cell needs /dev/kvm, readable and writable")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The image cannot be a guest's.
    #[error(
        "the image has {bytes} bytes; a flat guest has 1 to {IMAGE_BYTES_MAX}, and room for them in --memory"
    )]
    Image {
        /// Its length.
        bytes: usize,
    },
    /// The guest's memory or vCPUs could not be made.
    #[error("cannot make the guest's {what}: {source}")]
    Guest {
        /// Memory or vCPU.
        what: &'static str,
        /// Why.
        source: Refusal,
    },
    /// The host refused something.
    #[error("cannot {what}: {source}")]
    Host {
        /// What.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The jail could not be closed, so no guest ran.
    #[error("the jail does not close: {0}")]
    Jail(String),
    /// A vCPU stopped.
    #[error("the guest failed: {0}")]
    Failed(String),
}

/// How a guest ends.
#[derive(Debug)]
enum End {
    /// It said so, with this exit code.
    Code(u8),
    /// It cannot go on.
    Failed(String),
}

/// What a guest says goes this way; a channel that is full loses it.
#[derive(Clone, Debug)]
struct Voice(SyncSender<Said>);

#[derive(Debug)]
enum Said {
    Byte(u8),
    /// All that came before is to be written, and the sender told so.
    Flush(Sender<()>),
}

impl Voice {
    /// Starts the thread that writes to standard output.
    fn start() -> io::Result<Voice> {
        let (sender, said) = sync_channel(SAID_BYTES_MAX);
        std::thread::Builder::new().name("voice".to_owned()).spawn(move || write_out(&said))?;
        Ok(Voice(sender))
    }

    fn say(&self, byte: u8) {
        let _ = self.0.try_send(Said::Byte(byte));
    }

    /// Waits a moment for what was said to be written.
    fn flush(&self) {
        let (done, wait) = channel();
        if self.0.try_send(Said::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(LAST_WORDS_TIMEOUT);
        }
    }
}

fn write_out(said: &Receiver<Said>) {
    let mut out = io::stdout();
    while let Ok(first) = said.recv() {
        let mut bytes = Vec::new();
        let mut flushed = Vec::new();
        for said in std::iter::once(first).chain(said.try_iter()).take(SAID_BYTES_MAX) {
            match said {
                Said::Byte(byte) => bytes.push(byte),
                Said::Flush(done) => flushed.push(done),
            }
        }
        // Who listens may have gone; the guest does not end for that.
        let _ = out.write_all(&bytes).and_then(|()| out.flush());
        for done in flushed {
            let _ = done.send(());
        }
    }
}

/// Runs a cell until its guest ends, and returns the guest's exit code.
///
/// # Errors
/// The cell cannot be made or jailed, or the guest failed.
pub fn run(plan: Plan) -> Result<u8, CellError> {
    let room = plan.memory_bytes.saturating_sub(IMAGE_AT);
    let length = plan.image.len();
    if length == 0 || length > IMAGE_BYTES_MAX || length as u64 > room {
        return Err(CellError::Image { bytes: length });
    }
    let kvm_says =
        |what| move |error: kvm_ioctls::Error| CellError::Kvm { what, source: error.into() };
    let kvm = Kvm::new().map_err(kvm_says("open /dev/kvm"))?;
    let vm = kvm.create_vm().map_err(kvm_says("make a VM"))?;
    vm.set_tss_address(TSS_AT).map_err(kvm_says("set the TSS address"))?;
    vm.create_irq_chip().map_err(kvm_says("make interrupt controllers"))?;
    let cpuid = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(kvm_says("tell what the processor can"))?;
    let listener = listen(&plan.port)?;
    let groups = Arc::new(Groups::make(plan.cgroup.as_deref(), plan.vcpus_max)?);

    jail::close()?;

    let (ends, ended) = channel();
    let voice = Voice::start().map_err(host("start a thread"))?;
    let seats = vcpu::Seats {
        mode: plan.mode,
        memory_bytes: plan.memory_bytes,
        cpuid,
        groups,
        voice: voice.clone(),
        ends,
    };
    let bounds = Bounds {
        memory: MemoryBounds {
            slots_max: SLOTS_MAX,
            bytes_max: plan.memory_bytes_max,
            boot_bytes: guest::boot_bytes(length),
        },
        vcpus_max: plan.vcpus_max,
        halt_poll_ns_max: HALT_POLL_NS_MAX,
    };
    let start = Box::new(move |new: NewVcpu| seats.start(new));
    let port = Port::new(vm, bounds, listener, start).map_err(host("make the port"))?;
    let mut port = boot(port, &plan)?;
    let serve = move || {
        loop {
            match port.turn(TURN_TIMEOUT) {
                Ok(note) => note.iter().for_each(log),
                Err(error) => return eprintln!("cell: the port has ended: {error}"),
            }
        }
    };
    let named = std::thread::Builder::new().name("port".to_owned());
    named.spawn(serve).map_err(host("start a thread"))?;
    let end = ended.recv();
    voice.flush();
    match end {
        Ok(End::Code(code)) => Ok(code),
        Ok(End::Failed(why)) => Err(CellError::Failed(why)),
        Err(_) => Err(CellError::Failed("every vCPU is gone".to_owned())),
    }
}

fn host(what: &str) -> impl Fn(io::Error) -> CellError {
    move |source| CellError::Host { what: what.to_owned(), source }
}

/// Loads the guest and starts its vCPUs.
fn boot(mut port: Port, plan: &Plan) -> Result<Port, CellError> {
    let refused = |what| move |source| CellError::Guest { what, source };
    let (bytes, bytes_max) = (plan.memory_bytes, plan.memory_bytes_max);
    port.apply(Intent::AddMemory { slot: 0, guest_address: 0, bytes, bytes_max })
        .map_err(refused("memory"))?;
    guest::load(port.span(0).expect("just made"), plan.mode, &plan.image);
    for vcpu in 0..plan.vcpus {
        port.apply(Intent::CreateVcpu { vcpu }).map_err(refused("vCPU"))?;
    }
    Ok(port)
}

fn log(note: &Note) {
    match note {
        Note::Connected { pid } => eprintln!("cell: process {pid} has the port"),
        Note::Disconnected { why } => eprintln!("cell: the port is free: {why}"),
    }
}

/// Listens at `path`; a socket that nobody listens at any more is replaced.
fn listen(path: &Path) -> Result<UnixListener, CellError> {
    let failed = |source| CellError::Host { what: format!("listen at {}", path.display()), source };
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound.map_err(failed),
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)?;
            UnixListener::bind(path).map_err(failed)
        }
        _ => Err(failed(io::ErrorKind::AddrInUse.into())),
    }
}
