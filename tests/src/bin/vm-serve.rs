//! `vm-serve ENDPOINT INSTANCE SECONDS EVERY_MS WORK_MS CGROUP`: a server whose requests come every so
//! often, whether it keeps up or not, and take so much processor time each. It serves them in order from
//! within its group, and each second tells the daemon, as the instance's agent, how long they took; the
//! daemon may not care. Its last line is `latency COUNT P50_US P99_US`, of what was due in the second half.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use vendue_wire::client::{Client, ClientError, Endpoint, Identity};
use vendue_wire::code::{Kpi, Role};
use vendue_wire::message::ReportKpi;

/// Between two reports.
const REPORT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match serve(&arguments) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("vm-serve: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Serves to the end and says how long requests took.
fn serve(arguments: &[String]) -> Result<String, String> {
    let [endpoint, instance, seconds, every_ms, work_ms, group] = arguments else {
        return Err("usage: vm-serve ENDPOINT INSTANCE SECONDS EVERY_MS WORK_MS CGROUP".to_owned());
    };
    let endpoint: Endpoint = endpoint.parse().map_err(|_| "ENDPOINT is unix:PATH".to_owned())?;
    let number = |text: &String| text.parse::<u32>().map_err(|error| format!("{text}: {error}"));
    let [instance, seconds, every_ms, work_ms] =
        [number(instance)?, number(seconds)?, number(every_ms)?, number(work_ms)?];
    let [every, work] = [every_ms, work_ms].map(|ms| Duration::from_millis(ms.into()));
    std::fs::write(format!("{group}/cgroup.procs"), "0").map_err(|e| format!("{group}: {e}"))?;
    let identity = Identity { role: Role::Agent, instance, ..Identity::operator() };
    let mut client = Client::connect(&endpoint, &identity).map_err(|error| error.to_string())?;

    let begun = Instant::now();
    let lasting = Duration::from_secs(seconds.into());
    // Of each request when it was due, and how long it took.
    let mut served: Vec<(Duration, Duration)> = Vec::new();
    let (mut due, mut told, mut untold) = (Duration::ZERO, Duration::ZERO, 0);
    while begun.elapsed() < lasting {
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
        busy(work)?;
        served.push((due, begun.elapsed().saturating_sub(due)));
        due += every;
        if begun.elapsed() >= told + REPORT {
            told = begun.elapsed();
            let late = part(&served[untold..], 99).max(told.saturating_sub(due));
            untold = served.len();
            report(&mut client, instance, late)?;
        }
    }
    // What waits still is as late as it is now.
    while due < lasting {
        served.push((due, begun.elapsed().saturating_sub(due)));
        due += every;
    }
    served.retain(|(due, _)| *due >= lasting / 2);
    let [middle, late] = [50, 99].map(|percent| part(&served, percent).as_micros());
    Ok(format!("latency {} {middle} {late}", served.len()))
}

/// Uses so much processor time.
fn busy(work: Duration) -> Result<(), String> {
    let used = || {
        let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        now.map(Duration::from).map_err(|error| error.to_string())
    };
    let end = used()? + work;
    while used()? < end {}
    Ok(())
}

/// How long so many percent of the requests took at most.
fn part(served: &[(Duration, Duration)], percent: usize) -> Duration {
    let mut times: Vec<Duration> = served.iter().map(|request| request.1).collect();
    times.sort_unstable();
    times
        .get((times.len() * percent / 100).min(times.len().max(1) - 1))
        .copied()
        .unwrap_or_default()
}

/// Tells the daemon; without an objective it refuses to hear it.
fn report(client: &mut Client, instance: u32, late: Duration) -> Result<(), String> {
    let value = u32::try_from(late.as_micros()).unwrap_or(u32::MAX);
    let (instance, value) = (instance.into(), value.into());
    let kpi = ReportKpi { instance, value, kpi: Kpi::Latency as u8, reserved: [0; 7] };
    match client.call(&kpi) {
        Ok(_) | Err(ClientError::Rejected { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
