//! What the host library adds to a write: a decision handed over until its file is written, for one
//! instance and for a thousand at once, beside bare `pwrite`s to the same held files. Nothing is
//! trusted unread: after each measurement every value is read back.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use hvctl::host::{Backend, Home, Host, Options};
use hvctl::limit::Knob;
use nix::sys::resource::{Resource as Limited, getrlimit, setrlimit};
use vendue_wire::code::Resource;

use super::{Controller, Group};
use crate::daemon::AnyError;
use crate::pin::Processors;
use crate::report::Pair;
use crate::rtt::Collected;
use crate::run::{calibrate, histogram, time_stamp};

/// Instances that are held all the time, and limited anew at once.
const INSTANCES: u32 = 1000;
/// Decisions for one instance in one run.
const SINGLES: u32 = 4000;
/// Decisions for all instances in one run.
const ROUNDS: u32 = 20;
/// Goal: one decision, as a ratio.
const HELD_RATIO_MAX: f64 = 2.0;
/// Goal: all at once, as a ratio.
const THOUSAND_RATIO_MAX: f64 = 1.2;
/// Bytes of a VRU of memory: whole huge pages, also of the backstop above it.
const VRU_BYTES: u64 = 16 << 20;
/// Millicores of a VRU of processor time: one unit of weight.
const VRU_MILLICORES: u64 = 10;
const PAGE_BYTES: u64 = 4096;
/// Longer than any quantum: no write waits for the one before.
const STEP: Duration = Duration::from_secs(1);

/// Measures a decision for one instance, and for a thousand at once.
///
/// # Errors
/// The kernel takes a value not, or keeps another.
pub(super) fn measure(
    controller: &Controller,
    processors: Processors,
    runs: usize,
    group: &Group,
    show: &mut dyn FnMut(Pair),
) -> Result<(), AnyError> {
    let mut crowd = Crowd::gather(controller, group)?;
    let sides = || [Collected::new(), Collected::new()];
    let (mut single, mut all, mut write) = (sides(), sides(), Collected::new());
    for _ in 0..runs {
        for (side, times) in single.iter_mut().zip(crowd.singles()?) {
            side.add(times)?;
        }
        let [ours, bare, written] = crowd.rounds()?;
        write.add(written)?;
        for (side, times) in all.iter_mut().zip([ours, bare]) {
            side.add(times)?;
        }
    }
    let is_weight = controller.resource == Resource::Cpu;
    let [held, thousand] = match is_weight {
        true => ["limit.weight", "limit.weight-thousand"],
        false => ["limit.held", "limit.thousand"],
    };
    let files = crowd.knobs.iter().map(|&knob| controller.name_of(knob)).collect::<Vec<_>>();
    let method = format!(
        "{runs} interleaved runs on CPU {}, {INSTANCES} instances held, every value read back \
         afterwards",
        processors.asking
    );
    let pair = |name, [ours, bare]: &[Collected; 2]| {
        Pair::new(name, "ns", &ours.medians, &bare.medians)
            .quantiles(&ours.all, &bare.all)
            .fact("files of an instance", files.join(" "))
    };
    show(pair(held, &single).at_most(HELD_RATIO_MAX).method(format!(
        "{method}; {SINGLES} decisions for one instance after the other, each from handing it to the \
         host until its files are written; the floor is the bare pwrites to the same files"
    )));
    let share = write.all.value_at_quantile(0.5) as f64 / all[0].all.value_at_quantile(0.5) as f64;
    show(
        pair(thousand, &all)
            .at_most(THOUSAND_RATIO_MAX)
            .fact("share of the call that writes", (share * 100.0).round() / 100.0)
            .method(format!(
                "{method}; {ROUNDS} times a decision for every instance, handed over one after the \
                 other and written with one call; the floor is the bare pwrites to the same files"
            )),
    );
    Ok(())
}

/// Instances with the files of their limits.
struct Crowd {
    host: Host,
    resource: Resource,
    knobs: Vec<Knob>,
    /// Of instance 1 and so on, in the order of `knobs`.
    files: Vec<Vec<File>>,
    /// How often something was decided: all values differ from those before.
    steps: u64,
    ns_per_tick: f64,
}

impl Crowd {
    fn gather(controller: &Controller, group: &Group) -> Result<Crowd, AnyError> {
        let (_, most) = getrlimit(Limited::RLIMIT_NOFILE)?;
        setrlimit(Limited::RLIMIT_NOFILE, most, most)?;
        let parent = group.path.to_str().ok_or("a group has a plain name")?;
        let backend = Backend::Cgroup((controller.open)(parent)?);
        let options = Options { writes_per_turn_max: 4 * INSTANCES, ..Options::default() };
        let mut host = Host::new(backend, &[controller.resource], options);
        let knobs = match controller.resource {
            Resource::Cpu => vec![Knob::CpuWeight],
            _ => vec![Knob::MemoryMax, Knob::MemoryHigh],
        };
        let mut files = Vec::new();
        for instance in 1..=INSTANCES {
            host.adopt(instance, Home { account: 0, tier: 0 }, "", &[])?;
            let place = Path::new(host.place(instance).ok_or("an adopted instance")?);
            let open = |&knob: &Knob| {
                let path = place.join(controller.name_of(knob));
                OpenOptions::new().read(true).write(true).open(path)
            };
            files.push(knobs.iter().map(open).collect::<Result<_, _>>()?);
        }
        let (resource, ns_per_tick) = (controller.resource, calibrate());
        let mut crowd = Crowd { host, resource, knobs, files, steps: 0, ns_per_tick };
        // The first writes open the host's own files. Memory comes down from no limit in two steps.
        crowd.steps = 1;
        (1..=INSTANCES).try_for_each(|instance| crowd.decide(instance))?;
        for _ in 0..2 {
            crowd.host.write(crowd.now_ns());
            crowd.steps += 1;
        }
        crowd.settle()?;
        Ok(crowd)
    }

    /// A moment at which everything may be written.
    fn now_ns(&self) -> u64 {
        self.steps * STEP.as_nanos() as u64
    }

    /// What the instance is to have at this step. Weights rise and fall in turns; memory rises,
    /// because what shrinks is reclaimed first.
    fn vrus(&self, instance: u32) -> (u64, u64) {
        match self.resource {
            Resource::Cpu => {
                let swing = (self.steps + u64::from(instance)) % 2 * 4500;
                (100 + swing + self.steps % 4000, VRU_MILLICORES)
            }
            _ => (2 + self.steps, VRU_BYTES),
        }
    }

    fn decide(&mut self, instance: u32) -> Result<(), AnyError> {
        let ((vrus, size), now_ns) = (self.vrus(instance), self.now_ns());
        match self.resource {
            Resource::Cpu => self.host.weigh(instance, Resource::Cpu, vrus, size, now_ns)?,
            resource => self.host.want(instance, resource, vrus, size, now_ns)?,
        }
        Ok(())
    }

    /// What is written for it, in the order of the files.
    fn texts(&self, instance: u32) -> Vec<String> {
        let (vrus, size) = self.vrus(instance);
        let text = |knob: &Knob| knob.setting(vrus, size, PAGE_BYTES).to_string();
        self.knobs.iter().map(text).collect()
    }

    /// Reads every written value back.
    fn settle(&mut self) -> Result<(), AnyError> {
        let now_ns = self.now_ns();
        while self.host.read_back(now_ns, INSTANCES as usize) {}
        let (faults, next_ns) = (self.host.faults(), self.host.turn(now_ns));
        match faults.first() {
            Some(fault) => Err(fault.text.clone().into()),
            None if next_ns.is_some() => Err("a limit is still pending".into()),
            None => Ok(()),
        }
    }

    fn ns_since(&self, start: u64) -> u64 {
        ((time_stamp() - start) as f64 * self.ns_per_tick) as u64
    }

    /// Decisions for one instance after the other: ours, and bare.
    fn singles(&mut self) -> Result<[hdrhistogram::Histogram<u64>; 2], AnyError> {
        let [mut ours, mut bare] = [histogram(), histogram()];
        for at in 0..SINGLES {
            let instance = 1 + at * 7 % INSTANCES;
            // Who comes first finds the kernel's part in no cache.
            for is_ours in [at % 2 == 0, at % 2 != 0] {
                self.steps += 1;
                if is_ours {
                    let start = time_stamp();
                    self.decide(instance)?;
                    self.host.write(self.now_ns());
                    ours.saturating_record(self.ns_since(start));
                    self.settle()?;
                } else {
                    let texts = self.texts(instance);
                    let start = time_stamp();
                    self.write_bare(instance, &texts)?;
                    bare.saturating_record(self.ns_since(start));
                }
            }
        }
        Ok([ours, bare])
    }

    /// Decisions for all at once: ours, bare, and the part of ours that writes.
    fn rounds(&mut self) -> Result<[hdrhistogram::Histogram<u64>; 3], AnyError> {
        let [mut ours, mut bare, mut written] = [histogram(), histogram(), histogram()];
        for _ in 0..ROUNDS {
            self.steps += 1;
            let before = self.host.counters().written;
            let start = time_stamp();
            (1..=INSTANCES).try_for_each(|instance| self.decide(instance))?;
            let decided_ns = self.ns_since(start);
            self.host.write(self.now_ns());
            let took_ns = self.ns_since(start);
            ours.saturating_record(took_ns);
            written.saturating_record(took_ns - decided_ns);
            let files = u64::from(INSTANCES) * self.knobs.len() as u64;
            if self.host.counters().written != before + files {
                return Err("not every limit was written".into());
            }
            self.settle()?;

            self.steps += 1;
            let texts: Vec<_> = (1..=INSTANCES).map(|instance| self.texts(instance)).collect();
            let start = time_stamp();
            for (instance, texts) in (1..).zip(&texts) {
                self.write_bare(instance, texts)?;
            }
            bare.saturating_record(self.ns_since(start));
        }
        Ok([ours, bare, written])
    }

    fn write_bare(&self, instance: u32, texts: &[String]) -> std::io::Result<()> {
        let files = &self.files[instance as usize - 1];
        files
            .iter()
            .zip(texts)
            .try_for_each(|(file, text)| file.write_at(text.as_bytes(), 0).map(drop))
    }
}
