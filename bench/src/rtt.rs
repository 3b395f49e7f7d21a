//! Order to acknowledgement over each transport, beside an echo of frames of the same size over
//! the same transport, between the same processors, waited for in the same way.
//!
//! Half of the requests are orders that rest, half cancel those.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use vendue_wire::client::{Client, Endpoint};
use vendue_wire::code::Resource;
use vendue_wire::idle::Wait;
use vendue_wire::message::{Accepted, Cancel, Cancelled, NewOrder, U64};

use crate::daemon::{AnyError, Running, Setup, account, instance};
use crate::echo::{self, Echo};
use crate::pin::{Processors, pin};
use crate::report::Pair;
use crate::run::{calibrate, histogram, time_stamp};
use crate::stable::{BLOCK_BYTES, Raw};

/// Requests under way at once.
const DEPTHS: [u64; 2] = [1, 16];
/// Requests of one run before the timed ones.
const WARM_UP: u64 = 200;
/// Orders that rest before one is cancelled.
const RESTING: usize = 64;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is asked: our daemon, or an echo.
pub trait Peer {
    /// Buffers a request.
    fn send(&mut self) -> Result<(), AnyError>;
    /// Hands over what is buffered.
    fn flush(&mut self) -> Result<(), AnyError>;
    /// How many answers came; none if there are none. With `wait` it sleeps for the first.
    fn take(&mut self, wait: bool) -> Result<u64, AnyError>;
}

/// Keeps `depth` requests under way until `count` are answered; what each took, ns.
///
/// # Errors
/// The connection ends.
pub fn drive(
    peer: &mut dyn Peer,
    (depth, count): (u64, u64),
    wait: Wait,
    ns_per_tick: f64,
) -> Result<Histogram<u64>, AnyError> {
    let mut histogram = histogram();
    let mut sent_at = VecDeque::with_capacity(depth as usize);
    let (mut sent, mut done) = (0, 0);
    while done < count {
        while sent - done < depth && sent < count {
            sent_at.push_back(time_stamp());
            peer.send()?;
            sent += 1;
        }
        peer.flush()?;
        let mut answers = peer.take(wait == Wait::Park)?;
        while answers == 0 {
            if wait == Wait::Yield {
                std::thread::yield_now();
            }
            answers = peer.take(wait == Wait::Park)?;
        }
        let now = time_stamp();
        for at in sent_at.drain(..answers as usize) {
            histogram.saturating_record(((now - at) as f64 * ns_per_tick) as u64);
        }
        done += answers;
    }
    Ok(histogram)
}

/// A session with the daemon.
pub struct Trader {
    client: Client,
    instance: u32,
    resting: VecDeque<U64>,
}

impl Trader {
    /// Makes an account and an instance and trades for it.
    ///
    /// # Errors
    /// The daemon refuses.
    pub fn new(running: &Running, endpoint: &Endpoint, name: &str) -> Result<Trader, AnyError> {
        let mut client = running.operator(endpoint)?;
        let account = account(&mut client, name)?;
        let instance = instance(&mut client, account, name, (Resource::Cpu, 1), 0)?;
        Ok(Trader { client, instance, resting: VecDeque::new() })
    }

    /// The least order that rests: nobody sells at this price.
    fn order(&mut self) -> NewOrder {
        NewOrder {
            client_id: self.client.next_client_id().into(),
            instance: self.instance.into(),
            price_ticks: 1.into(),
            quantity: 1.into(),
            ..<NewOrder as zerocopy::FromZeros>::new_zeroed()
        }
    }
}

impl Peer for Trader {
    fn send(&mut self) -> Result<(), AnyError> {
        if self.resting.len() >= RESTING {
            let handle = self.resting.pop_front().ok_or("an order rests")?;
            self.client.send(&Cancel { handle })?;
        } else {
            let order = self.order();
            self.client.send(&order)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), AnyError> {
        Ok(self.client.flush()?)
    }

    fn take(&mut self, wait: bool) -> Result<u64, AnyError> {
        let mut answers = 0;
        let mut next = if wait { self.client.recv(PATIENCE)? } else { self.client.try_recv()? };
        while let Some(frame) = next {
            if let Some(accepted) = frame.message::<Accepted>() {
                self.resting.push_back(accepted.handle);
            } else if frame.message::<Cancelled>().is_none() {
                return Err(format!("an answer of kind {:#04x}", frame.kind()).into());
            }
            answers += 1;
            next = self.client.try_recv()?;
        }
        Ok(answers)
    }
}

/// How a transport is waited for, and how many requests a run makes at depth 1.
struct Transport {
    name: &'static str,
    wait: Wait,
    endpoint: fn(&Running) -> Endpoint,
    echo: fn(Wait) -> Result<(Echo, echo::Server), AnyError>,
}

const TRANSPORTS: [Transport; 4] = [
    Transport { name: "shm", wait: Wait::Spin, endpoint: Running::shm, echo: echo::shm },
    Transport { name: "unix", wait: Wait::Park, endpoint: Running::unix, echo: echo::unix },
    Transport { name: "tcp", wait: Wait::Park, endpoint: Running::tcp, echo: echo::tcp },
    Transport { name: "tls", wait: Wait::Park, endpoint: Running::tls, echo: echo::tls },
];

/// Measures `rtt.*`: `journal.sync = "never"` at depth 1 and 16, and durable.
///
/// # Errors
/// The daemon or the echo does not start, or ends.
pub fn measure(
    processors: Processors,
    runs: usize,
    directory: &Path,
    (only, wait): (Option<&str>, Option<Wait>),
    show: &mut dyn FnMut(Pair),
) -> Result<(), AnyError> {
    pin(processors.asking)?;
    for transport in TRANSPORTS.iter().filter(|of| only.is_none_or(|only| of.name == only)) {
        let wait = wait.unwrap_or(transport.wait);
        for sync in ["never", "always"] {
            // Who waits for a device sleeps: spinning would take the processor from its driver.
            let wait = if sync == "always" { Wait::Park } else { wait };
            transport
                .measure(processors, runs, directory, wait, sync)?
                .into_iter()
                .for_each(&mut *show);
        }
    }
    Ok(())
}

impl Transport {
    fn measure(
        &self,
        processors: Processors,
        runs: usize,
        directory: &Path,
        wait: Wait,
        sync: &str,
    ) -> Result<Vec<Pair>, AnyError> {
        let durable = sync == "always";
        let setup = Setup::new()
            .key("sync", &format!("\"{sync}\""))
            .threads(processors.answering, wait.name());
        let count = if durable { 500 } else { 10_000 };
        let drive = |peer: &mut dyn Peer, sides: [&mut Collected; 2]| {
            let ns_per_tick = calibrate();
            for (depth, side) in DEPTHS.into_iter().zip(sides) {
                drive(peer, (depth, WARM_UP), wait, ns_per_tick)?;
                side.add(drive(peer, (depth, count), wait, ns_per_tick)?)?;
            }
            Ok::<_, AnyError>(())
        };
        let sides = || [Collected::new(), Collected::new()];
        let (mut echoed, mut ours, mut raw) = (sides(), sides(), sides());
        // Made once: who has just written much is a poor rival for the processor.
        let mut device = Raw::new(directory, BLOCK_BYTES)?;
        // One at a time: what spins takes the other's processor.
        for _ in 0..runs {
            let (mut echo, server) = (self.echo)(wait)?;
            let serving = server.start(processors.answering, wait)?;
            drive(&mut echo, echoed.each_mut())?;
            drop(echo);
            serving.join()?;
            let mut running = Running::start(&setup, directory)?;
            let mut trader = Trader::new(&running, &(self.endpoint)(&running), self.name)?;
            drive(&mut trader, ours.each_mut())?;
            drop(trader);
            running.stop()?;
            for side in raw.iter_mut().filter(|_| durable) {
                side.add(device.times(200)?)?;
            }
        }
        let sides = echoed.iter().zip(&ours).zip(&raw);
        Ok(DEPTHS
            .into_iter()
            .zip(sides)
            .map(|(depth, ((echo, ours), raw))| {
                self.pair(depth, wait, [echo, ours, raw], processors)
            })
            .collect())
    }

    fn pair(
        &self,
        depth: u64,
        wait: Wait,
        [echo, ours, raw]: [&Collected; 3],
        processors: Processors,
    ) -> Pair {
        let durable = !raw.medians.is_empty();
        let name = |suffix| format!("rtt.{}{suffix}", self.name);
        let name = match (durable, depth) {
            (false, 1) => name(""),
            (false, _) => name("-depth16"),
            (true, 1) => name("-durable"),
            (true, _) => name("-durable-depth16"),
        };
        let method = format!(
            "{} interleaved runs; asked from CPU {}, answered on CPU {}, both sides {wait}; floor: \
             an echo of the same frames over the same transport",
            ours.medians.len(),
            processors.asking,
            processors.answering,
        );
        if !durable {
            let most = if self.name == "shm" { 2.0 } else { 1.3 };
            return Pair::new(name, "ns", &ours.medians, &echo.medians)
                .quantiles(&ours.all, &echo.all)
                .at_most(most)
                .fact("wait", wait.name())
                .fact("depth", depth)
                .method(method);
        }
        // Its quickest tenth: on a busy machine the rest is waiting for the processor, not the device.
        let raw_p10 = raw.all.value_at_quantile(0.1);
        let floor: Vec<f64> = echo.medians.iter().map(|echo| echo + raw_p10 as f64).collect();
        let pair = Pair::new(name, "ns", &ours.medians, &floor);
        let echo_p50 = echo.all.value_at_quantile(0.5);
        let most = echo_p50 as f64 + 1.5 * raw_p10 as f64;
        let met = ours.all.value_at_quantile(0.5) as f64 <= most;
        pair.quantiles(&ours.all, &raw.all)
            .goal("p50 <= echo + 1.5 x one raw write + fdatasync", met)
            .fact("wait", wait.name())
            .fact("depth", depth)
            .fact("echo_p50_ns", echo_p50)
            .fact("raw_write_fdatasync_p10_ns", raw_p10)
            .method(format!("{method}, plus one raw write + fdatasync of a block on the device"))
    }
}

/// Medians of each run, and everything.
pub(crate) struct Collected {
    pub(crate) medians: Vec<f64>,
    pub(crate) all: Histogram<u64>,
}

impl Collected {
    pub(crate) fn new() -> Collected {
        Collected { medians: Vec::new(), all: histogram() }
    }

    pub(crate) fn add(&mut self, run: Histogram<u64>) -> Result<(), AnyError> {
        self.medians.push(run.value_at_quantile(0.5) as f64);
        Ok(self.all.add(run)?)
    }
}
