//! From an order to the limit in the kernel: a buyer's order is sent, the trade starts its burst, and
//! the raised limit stands in its cgroup's file. Beside a bare `pwrite` of such a file plus an echo.
//! Parts of that way: [`write`] (from the decision on), [`kvm`] (into a VM). Beside others' commands:
//! [`managers`].

mod kvm;
mod managers;
mod write;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hvctl::cgroup::CgroupHost;
use hvctl::host::{Backend, Host, Options};
use hvctl::limit::Knob;
use vendue_wire::client::Client;
use vendue_wire::code::{Resource, Side};
use vendue_wire::idle::Wait;
use vendue_wire::message::{Accepted, BookRow, Filled, NewOrder, QueryBooks};
use zerocopy::FromZeros;

use crate::daemon::{AnyError, Running, Setup, account, instance};
use crate::echo;
use crate::pin::{Processors, pin};
use crate::report::{NotMeasured, Pair};
use crate::rtt::{Collected, drive};
use crate::run::{calibrate, histogram};

/// Trades of one run.
const TRADES: usize = 40;
/// Credits that go to and fro.
const CREDITS: u32 = 1000;
/// VRUs each instance reserves.
const BASELINE_VRU: u32 = 8;
/// Least time between two writes of one limit; every order waits longer than that.
const QUANTUM: Duration = Duration::from_millis(10);
/// How long everybody rests before each order and each echo: both begin from sleep.
const REST: Duration = Duration::from_millis(30);
/// Longest wait for a limit.
const PATIENCE: Duration = Duration::from_secs(10);

/// A controller whose files are written.
struct Controller {
    name: &'static str,
    resource: Resource,
    /// The file that is raised first.
    file: &'static str,
    /// How long the market rests before each order: a `cpu.max` rises once its last writes are paid
    /// for, see [`hvctl::refill`].
    rest: Duration,
    open: fn(&str) -> Result<CgroupHost, hvctl::cgroup::DetectError>,
}

const CONTROLLERS: [Controller; 2] = [
    Controller {
        name: "hugetlb",
        resource: Resource::Memory,
        file: "hugetlb.2MB.rsvd.max",
        rest: REST,
        open: CgroupHost::detect_hugetlb,
    },
    Controller {
        name: "cpu",
        resource: Resource::Cpu,
        file: "cpu.max",
        rest: Duration::from_millis(300),
        open: |parent| CgroupHost::detect(parent, &[Resource::Cpu]),
    },
];

/// What is measured, each with the rows that begin with its name or are named in [`measure`].
pub const PARTS: [&str; 4] = ["hugetlb", "cpu", "kvm", "managers"];

/// Measures, or only that one of [`PARTS`]: of `hugetlb` and of `cpu`, each where cgroup v2 has that
/// controller and this user may write it, `limit.held` and `limit.thousand` or `limit.weight` and
/// `limit.weight-thousand`, and the whole way; `limit.kvm`; of `managers`, `limit.systemctl` and
/// `limit.virsh`. Says of the others why not.
///
/// # Errors
/// The daemon does not start or refuses.
pub fn measure(
    processors: Processors,
    runs: usize,
    directory: &Path,
    only: Option<&str>,
    show: &mut dyn FnMut(Pair),
) -> Result<Vec<NotMeasured>, AnyError> {
    pin(processors.asking)?;
    let is_meant = |part: &str| only.is_none_or(|only| only == part);
    let mut left_out = Vec::new();
    let mut leave = |controller: &Controller, reason| {
        left_out.push(NotMeasured { name: format!("limit.{}", controller.name), reason });
    };
    for controller in CONTROLLERS.iter().filter(|controller| is_meant(controller.name)) {
        match Group::make(controller) {
            Ok(group) => {
                write::measure(controller, processors, runs, &group, show)?;
                group.clear();
                match controller.measure(processors, runs, directory, &group) {
                    Ok(pair) => show(pair),
                    Err(error) => leave(controller, error.to_string()),
                }
            }
            Err(reason) => leave(controller, reason),
        }
    }
    if is_meant("kvm") {
        left_out.extend(kvm::measure(processors, runs, directory, show)?);
    }
    if is_meant("managers") {
        left_out.extend(managers::measure(runs, show)?);
    }
    Ok(left_out)
}

/// A group of the bench's own on cgroup v2, with the controller in it; removed when dropped.
struct Group {
    root: PathBuf,
    path: PathBuf,
    controller: &'static str,
    switched_on: bool,
}

impl Group {
    fn make(controller: &Controller) -> Result<Group, String> {
        let text = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let mount = text.lines().find(|line| line.contains(" - cgroup2 "));
        let root = mount.and_then(|line| line.split(' ').nth(4)).ok_or("no cgroup2 is mounted")?;
        let root = PathBuf::from(root);
        let words = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
        let has = |file| words(file).split_whitespace().any(|word| word == controller.name);
        let name = controller.name;
        if !has("cgroup.controllers") {
            return Err(format!(
                "the {name} controller is not on cgroup v2 at {}: it is bound to v1 or not there",
                root.display()
            ));
        }
        let refused = |what: &str| {
            let place = root.display();
            let what = what.to_owned();
            move |error| format!("{what} in {place}: {error}; run as root")
        };
        let switched_on = !has("cgroup.subtree_control");
        if switched_on {
            fs::write(root.join("cgroup.subtree_control"), format!("+{name}"))
                .map_err(refused("cannot switch the controller on"))?;
        }
        let path = root.join(format!("vendue-bench-{}", std::process::id()));
        let made = fs::create_dir(&path).map_err(refused("cannot make a group"));
        let group = Group { root: root.clone(), path, controller: name, switched_on };
        made.map(|()| group)
    }
}

impl Group {
    /// Removes what is below it.
    fn clear(&self) {
        let below = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let _ = remove(&entry.path());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = remove(&self.path);
        if self.switched_on {
            let off = format!("-{}", self.controller);
            let _ = fs::write(self.root.join("cgroup.subtree_control"), off);
        }
    }
}

fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

impl Controller {
    /// The file that a knob is written to: here memory may be stood in for.
    fn name_of(&self, knob: Knob) -> &'static str {
        match (self.resource, knob) {
            (Resource::Memory, Knob::MemoryMax) => self.file,
            (Resource::Memory, _) => "hugetlb.2MB.max",
            (_, knob) => knob.file(),
        }
    }

    fn measure(
        &self,
        processors: Processors,
        runs: usize,
        directory: &Path,
        group: &Group,
    ) -> Result<Pair, AnyError> {
        let ns_per_tick = calibrate();
        let setup = Setup::new()
            .key("sync", "\"never\"")
            .key("tick_ms", "10000")
            .threads(processors.answering, "park");
        let (mut echoed, mut bare, mut acked, mut ours) =
            (Collected::new(), Collected::new(), Collected::new(), Collected::new());
        for _ in 0..runs {
            let (mut echo, server) = echo::unix(Wait::Park)?;
            let serving = server.start(processors.answering, Wait::Park)?;
            echoed.add(rested(&mut echo, ns_per_tick)?)?;
            drop(echo);
            serving.join()?;
            let parent = group.path.to_str().ok_or("a group has a plain name")?;
            let cgroup = (self.open)(parent)?;
            let subtree = cgroup.subtree().to_owned();
            let options = Options { quantum_ns: QUANTUM.as_nanos() as u64, ..Options::default() };
            let host = Host::new(Backend::Cgroup(cgroup), &[self.resource], options);
            let mut running = Running::start_on(host, &setup, directory)?;
            let mut market = Market::open(&running, self, &subtree)?;
            let (ack, written) = market.trade()?;
            acked.add(ack)?;
            ours.add(written)?;
            bare.add(market.bare_writes()?)?;
            drop(market);
            running.stop()?;
            remove(&subtree)?;
        }
        Ok(self.pair(processors, [&echoed, &bare, &acked, &ours]))
    }

    fn pair(&self, processors: Processors, [echo, bare, acked, ours]: [&Collected; 4]) -> Pair {
        let sum = |(echo, bare): (&f64, &f64)| echo + bare;
        let floor: Vec<f64> = echo.medians.iter().zip(&bare.medians).map(sum).collect();
        let p50 = |side: &Collected| side.all.value_at_quantile(0.5);
        let pair = Pair::new(format!("limit.{}", self.name), "ns", &ours.medians, &floor);
        let met = p50(ours) <= p50(echo) + 3 * p50(bare);
        pair.quantiles(&ours.all, &echo.all)
            .goal("p50 <= echo + 3 x one bare pwrite", met)
            .fact("file", self.file)
            .fact("echo_p50_ns", p50(echo))
            .fact("bare_pwrite_p50_ns", p50(bare))
            .fact("order_to_ack_p50_ns", p50(acked))
            .method(format!(
                "{} interleaved runs of {TRADES} trades over the Unix socket, all threads parked \
                 before each; from sending the order to reading the raised limit in the buyer's \
                 file, looked at from CPU {} without pause; journal.sync = never",
                ours.medians.len(),
                processors.asking
            ))
    }
}

/// Round trips of an echo, each after a rest, ns.
fn rested(
    echo: &mut echo::Echo,
    ns_per_tick: f64,
) -> Result<hdrhistogram::Histogram<u64>, AnyError> {
    let mut all = histogram();
    for _ in 0..TRADES {
        std::thread::sleep(REST);
        all.add(drive(echo, (1, 1), Wait::Park, ns_per_tick)?)?;
    }
    Ok(all)
}

/// Two instances that sell one another the same credits.
struct Market {
    client: Client,
    sides: [(u32, File); 2],
    book: u16,
    rest: Duration,
}

impl Market {
    fn open(
        running: &Running,
        controller: &Controller,
        subtree: &Path,
    ) -> Result<Market, AnyError> {
        let mut client = running.operator(&running.unix())?;
        let resource = controller.resource;
        let books = client.ask::<BookRow, _>(&QueryBooks { from: 0.into() })?;
        let book = books
            .iter()
            .position(|row| row.tier.get() == 0 && row.resource == resource as u8)
            .ok_or("the first tier has such a book")?;
        let mut sides = Vec::new();
        for (name, millicredits) in [("one", u64::from(CREDITS) * 1000), ("other", 0)] {
            let account = account(&mut client, name)?;
            let reserved = (resource, BASELINE_VRU);
            let instance = instance(&mut client, account, name, reserved, millicredits)?;
            let group = subtree.join("tier-0").join(format!("instance-{instance}"));
            let path = group.join(controller.file);
            sides.push((
                instance,
                wait_for(|| OpenOptions::new().read(true).write(true).open(&path).ok())?,
            ));
        }
        let sides = <[_; 2]>::try_from(sides).map_err(|_| "there are two sides")?;
        Ok(Market { client, sides, book: book as u16, rest: controller.rest })
    }

    fn order(&mut self, instance: u32, side: Side) -> NewOrder {
        NewOrder {
            client_id: self.client.next_client_id().into(),
            instance: instance.into(),
            price_ticks: 10.into(),
            quantity: CREDITS.into(),
            book: self.book.into(),
            side: side as u8,
            ..NewOrder::new_zeroed()
        }
    }

    /// Sends the credits to and fro; from the order to its ack, and to the raised limit, ns.
    fn trade(
        &mut self,
    ) -> Result<(hdrhistogram::Histogram<u64>, hdrhistogram::Histogram<u64>), AnyError> {
        let (mut acked, mut written) = (histogram(), histogram());
        for at in 0..TRADES {
            let [seller, buyer] = [at % 2, 1 - at % 2];
            let sell = self.order(self.sides[seller].0, Side::Sell);
            self.client.call_for::<Accepted, _>(&sell)?;
            std::thread::sleep(self.rest);
            while self.client.try_recv()?.is_some() {}
            let before = read(&self.sides[buyer].1)?;
            let buy = self.order(self.sides[buyer].0, Side::Buy);
            let start = Instant::now();
            self.client.send(&buy)?;
            self.client.flush()?;
            while read(&self.sides[buyer].1)? == before {
                if start.elapsed() > PATIENCE {
                    return Err("the trade raised no limit".into());
                }
            }
            written.saturating_record(start.elapsed().as_nanos() as u64);
            acked.saturating_record(self.ack_of_another()?);
        }
        Ok((acked, written))
    }

    /// An order that trades nothing: how long its ack takes, ns, with nobody looking at files.
    fn ack_of_another(&mut self) -> Result<u64, AnyError> {
        while let Some(frame) = self.client.recv(QUANTUM)? {
            if frame.message::<Filled>().is_some_and(|filled| filled.remaining.get() > 0) {
                return Err("the order was to trade at once and whole".into());
            }
        }
        let order = NewOrder { price_ticks: 1.into(), ..self.order(self.sides[0].0, Side::Buy) };
        std::thread::sleep(REST);
        let start = Instant::now();
        let accepted = self.client.call_for::<Accepted, _>(&order)?;
        let took = start.elapsed();
        let cancel = vendue_wire::message::Cancel { handle: accepted.handle };
        self.client.call_for::<vendue_wire::message::Cancelled, _>(&cancel)?;
        Ok(took.as_nanos() as u64)
    }

    /// What one write to such a file costs, ns: two values in turns, so that each changes it.
    fn bare_writes(&self) -> Result<hdrhistogram::Histogram<u64>, AnyError> {
        let file = &self.sides[0].1;
        let before = read(file)?;
        let values: [&[u8]; 2] = if before.contains(' ') {
            [b"50000 100000", b"60000 100000"]
        } else {
            [b"33554432", b"67108864"]
        };
        let mut histogram = histogram();
        for at in 0..1000 {
            let start = Instant::now();
            file.write_at(values[at % 2], 0)?;
            histogram.saturating_record(start.elapsed().as_nanos() as u64);
        }
        Ok(histogram)
    }
}

fn read(file: &File) -> Result<String, AnyError> {
    let mut bytes = [0; 64];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).trim().to_owned())
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Result<T, AnyError> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            return Err("an instance got no group".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
