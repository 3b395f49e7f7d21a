//! Seeds of the simulator. One that fails prints the command that runs it again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use vendue_tests::sim::disk::BrokenDisk;
use vendue_tests::sim::{Broken, Options, Outcome, Summary, Violation, simulate};

/// Seeds run where nobody says how many.
const SEEDS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs a seed; a panic of the daemon is a violation too.
fn run(seed: u64, options: Options) -> Result<Summary, Violation> {
    catch_unwind(AssertUnwindSafe(|| simulate(seed, options))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation { what: format!("panic: {}", text.unwrap_or_default()), log: Vec::new() })
    })
}

/// Runs seeds on every core and hands each result on.
fn run_all(
    seeds: std::ops::Range<u64>,
    options: Options,
    each: impl Fn(u64, Result<Summary, Violation>) + Sync,
) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    each(seed, run(seed, options));
                }
            });
        }
    });
}

/// `VENDUE_SIM_SEEDS=N` runs another number of seeds, `VENDUE_SIM_FROM=N` others.
#[test]
fn every_seed_holds() {
    let from = number("VENDUE_SIM_FROM").unwrap_or(0);
    let seeds = from..from + number("VENDUE_SIM_SEEDS").unwrap_or(SEEDS);
    let summaries = Mutex::new(Vec::new());
    let failures = Mutex::new(Vec::new());
    run_all(seeds.clone(), Options::default(), |seed, result| match result {
        Ok(summary) => summaries.lock().unwrap().push(summary),
        Err(violation) => failures.lock().unwrap().push((seed, violation.what)),
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    for (seed, what) in &failures {
        println!(
            "seed {seed}: {what}\n    again, with every step: VENDUE_SIM_SEED={seed} cargo test \
             -p vendue-tests --test simulation one_seed -- --nocapture"
        );
    }
    let summaries = summaries.into_inner().unwrap();
    let sum = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
    let mut outcomes = BTreeMap::new();
    summaries.iter().for_each(|summary| *outcomes.entry(summary.outcome).or_insert(0) += 1);
    println!(
        "{} seeds: {outcomes:?}, {} mended from the mirror; {} restarts, {} records, {} trades, {} \
         reports, {} device failures",
        summaries.len(),
        sum(|s| s.mended.into()),
        sum(|s| s.restarts),
        sum(|s| s.records),
        sum(|s| s.trades),
        sum(|s| s.reports),
        sum(|s| s.faults),
    );
    assert!(failures.is_empty(), "{} of {seeds:?} failed", failures.len());
    if seeds.end - seeds.start >= SEEDS {
        // So many seeds meet everything there is to meet.
        for outcome in [Outcome::Rested, Outcome::Stopped, Outcome::Unwitnessed, Outcome::Unsynced]
        {
            assert!(outcomes.contains_key(&outcome), "no seed ended as {outcome:?}");
        }
        assert!(sum(|s| s.mended.into()) > 0, "no device that lied was mended");
        assert!(sum(|s| s.trades) > 0 && sum(|s| s.faults) > 0 && sum(|s| s.restarts) > SEEDS);
    }
}

/// One seed by hand, with the log of every step: `VENDUE_SIM_SEED=N`.
#[test]
fn one_seed() {
    let Some(seed) = number("VENDUE_SIM_SEED") else { return };
    match run(seed, Options { log: true, ..Options::default() }) {
        Ok(summary) => println!("seed {seed}: {summary:?}"),
        Err(Violation { what, log }) => {
            log.iter().for_each(|line| println!("{line}"));
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn a_seed_comes_again_exactly() {
    for seed in 0..20 {
        let [first, second] = [0, 1].map(|_| {
            run(seed, Options::default()).unwrap_or_else(|violation| panic!("{}", violation.what))
        });
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_eq!((first.records, first.reports), (second.records, second.reports));
    }
}

/// A simulator that finds nothing shows nothing: it must find these.
#[test]
fn what_is_broken_is_found_out() {
    let disks = [BrokenDisk::AcksBeforeFlush, BrokenDisk::DropsWrites].map(Broken::Disk);
    for broken in disks.into_iter().chain([Broken::ShowsEarly, Broken::LosesRequests]) {
        let found = AtomicU64::new(0);
        let options = Options { broken: Some(broken), ..Options::default() };
        run_all(0..20, options, |_, result| {
            found.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
        });
        let found = found.into_inner();
        println!("{broken:?}: found in {found} of 20 seeds");
        assert!(found >= 5, "{broken:?} was found in {found} of 20 seeds");
    }
}
