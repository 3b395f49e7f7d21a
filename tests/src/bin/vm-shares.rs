//! `vm-shares SECONDS CGROUP...`: prints every 100 ms what each cgroup used of a processor.

use std::process::ExitCode;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use vendue_tests::vm::shares::Sample;

const INTERVAL: Duration = Duration::from_millis(100);
const SECONDS_MAX: u64 = 3600;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((seconds, groups)) = arguments.split_first().filter(|(_, groups)| !groups.is_empty())
    else {
        eprintln!("usage: vm-shares SECONDS CGROUP...");
        return ExitCode::FAILURE;
    };
    match sample(seconds, groups) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("vm-shares: {message}");
            ExitCode::FAILURE
        }
    }
}

fn sample(seconds: &str, groups: &[String]) -> Result<(), String> {
    let seconds = seconds.parse::<u64>().map_err(|_| "SECONDS is a whole number".to_owned())?;
    let end = since_boot()? + Duration::from_secs(seconds.min(SECONDS_MAX));
    let (mut before, mut used_before) = (since_boot()?, usage_us(groups)?);
    while before < end {
        std::thread::sleep(INTERVAL);
        let (now, used) = (since_boot()?, usage_us(groups)?);
        let over_us = now.as_micros().abs_diff(before.as_micros()) as u64;
        let percent = used.iter().zip(&used_before).map(|(now, before)| {
            let used_us = now - before;
            (used_us * 100 + over_us / 2) / over_us
        });
        let sample = Sample {
            at_ms: now.as_millis() as u64,
            over_ms: over_us / 1000,
            percent: percent.collect(),
        };
        println!("{sample}");
        (before, used_before) = (now, used);
    }
    Ok(())
}

/// Time since boot: the clock of /proc/uptime.
fn since_boot() -> Result<Duration, String> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|error| error.to_string())?;
    Ok(now.into())
}

/// What each group used since it was made, in microseconds of processor time.
fn usage_us(groups: &[String]) -> Result<Vec<u64>, String> {
    let usage = |group: &String| {
        let path = format!("{group}/cpu.stat");
        let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
        line.and_then(|us| us.parse().ok()).ok_or_else(|| format!("{path}: no usage_usec"))
    };
    groups.iter().map(usage).collect()
}
