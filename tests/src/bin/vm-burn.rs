//! `vm-burn SECONDS [CGROUP]`: keeps one processor busy, counting primes; with a cgroup v2
//! directory it moves itself there first.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How many numbers are tried between two looks at the clock.
const NUMBERS_A_LOOK: u64 = 1000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (seconds, group) = match arguments.as_slice() {
        [seconds] => (seconds.parse(), None),
        [seconds, group] => (seconds.parse(), Some(group)),
        _ => return fail("usage: vm-burn SECONDS [CGROUP]"),
    };
    let Ok(seconds) = seconds else { return fail("vm-burn: SECONDS is a whole number") };
    if let Some(group) = group
        && let Err(error) = std::fs::write(format!("{group}/cgroup.procs"), "0")
    {
        return fail(&format!("vm-burn: cannot join {group}: {error}"));
    }
    let end = Instant::now() + Duration::from_secs(u64::from(u32::min(seconds, 86_400)));
    let (mut next, mut primes) = (2, 0);
    while Instant::now() < end {
        primes += (next..next + NUMBERS_A_LOOK).filter(|&number| is_prime(number)).count();
        next += NUMBERS_A_LOOK;
    }
    println!("primes {primes}");
    ExitCode::SUCCESS
}

fn is_prime(number: u64) -> bool {
    (2..)
        .take_while(|divisor| divisor * divisor <= number)
        .all(|divisor| !number.is_multiple_of(divisor))
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}
