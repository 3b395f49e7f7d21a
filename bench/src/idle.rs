//! What a daemon costs that nobody trades with: processor time and memory, at default bounds, with
//! a thousand instances.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use vendue_wire::code::Resource;

use crate::daemon::{AnyError, Running, Setup, account, instance};
use crate::report::Pair;
use crate::run::field_bytes;

const INSTANCES: u32 = 1000;
/// Length of one run.
const WATCHED: Duration = Duration::from_secs(3);
/// Goals: percent of a processor, MiB.
const CPU_PERCENT_MAX: f64 = 0.5;
const MEMORY_MIB_MAX: f64 = 64.0;

/// Measures `idle.cpu` and `idle.memory`: the embedded defaults, every thread parked. The floor is
/// the goal itself.
///
/// # Errors
/// The daemon does not start or refuses.
pub fn measure(runs: usize, directory: &Path, show: &mut dyn FnMut(Pair)) -> Result<(), AnyError> {
    let before = resident_mib()?;
    let mut running = Running::start(&Setup::new(), directory)?;
    let mut client = running.operator(&running.unix())?;
    let account = account(&mut client, "idle")?;
    for at in 0..INSTANCES {
        instance(&mut client, account, &format!("idle {at}"), (Resource::Cpu, 1), 0)?;
    }
    drop(client);
    let (mut cpu, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (start, used) = (Instant::now(), cpu_seconds()?);
        std::thread::sleep(WATCHED);
        cpu.push(100.0 * (cpu_seconds()? - used) / start.elapsed().as_secs_f64());
        memory.push(resident_mib()? - before);
    }
    running.stop()?;
    let pair = |name, unit, ours: &[f64], most: f64| {
        Pair::new(name, unit, ours, &vec![most; ours.len()])
            .at_most(1.0)
            .fact("instances", INSTANCES)
            .method(format!(
                "{runs} times {} s, embedded defaults on a dry-run host, every thread parked; the \
                 floor is the goal",
                WATCHED.as_secs()
            ))
    };
    show(pair("idle.cpu", "% of a CPU", &cpu, CPU_PERCENT_MAX));
    show(pair("idle.memory", "MiB", &memory, MEMORY_MIB_MAX));
    Ok(())
}

/// Processor time of this process, in which nothing else runs.
fn cpu_seconds() -> Result<f64, AnyError> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let us = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(us as f64 / 1e6)
}

fn resident_mib() -> Result<f64, AnyError> {
    Ok(field_bytes("/proc/self/status", "VmRSS:")? as f64 / f64::from(1 << 20))
}
