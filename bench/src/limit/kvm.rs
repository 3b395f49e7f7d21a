//! A VM's port: an intent on the ring until the VMM's own thread has made the ioctl and its answer is
//! back. Beside an echo over such rings plus the bare ioctl; all sides sleep in between.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hvctl::kvm::intent::Intent;
use hvctl::kvm::memory::MemoryBounds;
use hvctl::kvm::port::{Bounds, Port};
use hvctl::kvm::remote::Remote;
use kvm_bindings::{KVM_CAP_HALT_POLL, kvm_enable_cap};
use kvm_ioctls::{Kvm, VmFd};
use vendue_wire::idle::Wait;

use crate::daemon::AnyError;
use crate::echo;
use crate::pin::{Processors, pin};
use crate::report::{NotMeasured, Pair};
use crate::rtt::{Collected, Peer, drive};
use crate::run::{calibrate, histogram, time_stamp};

/// Intents of one run, and as many echoes and ioctls.
const ROUND_TRIPS: u64 = 5000;
const WARM_UP: u64 = 200;
/// Goal, as a ratio.
const RATIO_MAX: f64 = 3.0;
/// Longest sleep for an answer, or for an intent.
const PATIENCE: Duration = Duration::from_secs(10);
const TURN: Duration = Duration::from_millis(100);
/// What is set, in turns.
const HALT_POLL_NS: [u32; 2] = [50_000, 100_000];

/// Measures `limit.kvm` where there is a KVM; says why not where there is none.
///
/// # Errors
/// The port or the echo ends.
pub(super) fn measure(
    processors: Processors,
    runs: usize,
    directory: &Path,
    show: &mut dyn FnMut(Pair),
) -> Result<Option<NotMeasured>, AnyError> {
    let vm = || Kvm::new().and_then(|kvm| kvm.create_vm());
    let (mut bare, guest) = match (vm(), vm()) {
        (Ok(bare), Ok(guest)) => (bare, guest),
        (Err(error), _) | (_, Err(error)) => {
            let reason =
                format!("/dev/kvm cannot be used ({error}); run as root on a host with KVM");
            return Ok(Some(NotMeasured { name: "limit.kvm".to_owned(), reason }));
        }
    };
    let ns_per_tick = calibrate();
    let place = tempfile::tempdir_in(directory)?;
    let mut vmm = Vmm::start(guest, &place.path().join("port"), processors.answering)?;
    let [mut echoed, mut called, mut ours] = [(); 3].map(|()| Collected::new());
    for _ in 0..runs {
        let (mut echo, server) = echo::shm(Wait::Park)?;
        let serving = server.start(processors.answering, Wait::Park)?;
        drive(&mut echo, (1, WARM_UP), Wait::Park, ns_per_tick)?;
        echoed.add(drive(&mut echo, (1, ROUND_TRIPS), Wait::Park, ns_per_tick)?)?;
        drop(echo);
        serving.join()?;
        called.add(ioctls(&mut bare, ns_per_tick)?)?;
        drive(&mut vmm, (1, WARM_UP), Wait::Park, ns_per_tick)?;
        ours.add(drive(&mut vmm, (1, ROUND_TRIPS), Wait::Park, ns_per_tick)?)?;
    }
    let sum = |(echo, call): (&f64, &f64)| echo + call;
    let floor: Vec<f64> = echoed.medians.iter().zip(&called.medians).map(sum).collect();
    let p50 = |side: &Collected| side.all.value_at_quantile(0.5);
    show(
        Pair::new("limit.kvm", "ns", &ours.medians, &floor)
            .quantiles(&ours.all, &echoed.all)
            .at_most(RATIO_MAX)
            .fact("echo_p50_ns", p50(&echoed))
            .fact("bare_ioctl_p50_ns", p50(&called))
            .method(format!(
                "{runs} interleaved runs of {ROUND_TRIPS} intents that set a VM's halt polling, asked \
                 from CPU {}, applied on CPU {} in a thread of the VM's process, both asleep in \
                 between; the floor is an echo over such rings, both asleep in between, plus the \
                 bare ioctl",
                processors.asking, processors.answering
            )),
    );
    Ok(None)
}

/// The ioctl alone, ns.
fn ioctls(vm: &mut VmFd, ns_per_tick: f64) -> Result<hdrhistogram::Histogram<u64>, AnyError> {
    let mut times = histogram();
    for at in 0..ROUND_TRIPS as usize {
        let args = [u64::from(HALT_POLL_NS[at % 2]), 0, 0, 0];
        let start = time_stamp();
        vm.enable_cap(&kvm_enable_cap { cap: KVM_CAP_HALT_POLL, args, ..Default::default() })?;
        times.saturating_record(((time_stamp() - start) as f64 * ns_per_tick) as u64);
    }
    Ok(times)
}

/// A VM whose port is served by a thread; it ends when dropped.
struct Vmm {
    remote: Remote,
    asked: usize,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Vmm {
    fn start(vm: VmFd, socket: &Path, cpu: usize) -> Result<Vmm, AnyError> {
        let memory = MemoryBounds { slots_max: 1, bytes_max: 1 << 20, boot_bytes: 0 };
        let bounds = Bounds { memory, vcpus_max: 0, halt_poll_ns_max: HALT_POLL_NS[1] };
        let start = Box::new(|_| Err(std::io::ErrorKind::Unsupported.into()));
        let mut port = Port::new(vm, bounds, UnixListener::bind(socket)?, start)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let told = is_over.clone();
        let serve = move || {
            // Where it runs is no matter of right or wrong.
            let _ = pin(cpu);
            while !told.load(Ordering::Acquire) && port.turn(TURN).is_ok() {}
        };
        let thread = Some(std::thread::Builder::new().name("port".to_owned()).spawn(serve)?);
        let remote = Remote::connect(socket)?;
        Ok(Vmm { remote, asked: 0, is_over, thread })
    }
}

impl Peer for Vmm {
    fn send(&mut self) -> Result<(), AnyError> {
        self.asked += 1;
        let nanoseconds = HALT_POLL_NS[self.asked % 2];
        self.remote.submit(Intent::HaltPoll { nanoseconds })?;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), AnyError> {
        Ok(())
    }

    fn take(&mut self, wait: bool) -> Result<u64, AnyError> {
        let mut answers = 0;
        while let Some(answer) = self.remote.poll()? {
            answer.outcome?;
            answers += 1;
        }
        if answers == 0 && wait {
            self.remote.wait(PATIENCE)?;
        }
        Ok(answers)
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
