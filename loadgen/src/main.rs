//! `loadgen`'s command line. Exits with 0 if every check passed, 1 if one failed, 2 if the run
//! could not be made.

use clap::{ArgGroup, Parser};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use vendue_loadgen::attack::{Kinds, PER_KIND_MAX};
use vendue_loadgen::meflow::Flow;
use vendue_loadgen::profile::{Mix, Profile};
use vendue_loadgen::report::Percentiles;
use vendue_loadgen::{Options, RAMP_STEPS_MAX, Ramp, SESSIONS_MAX, plot, record, run};
use vendue_wire::client::Endpoint;

const AFTER_HELP: &str = "\
Every reply is checked as it comes, whatever the options: each request is answered once and in
order, no order is filled beyond its quantity or at another price than it may, none is lost. The
check of a record adds what only all sessions together show: both parties of a trade are told the
same, and no order is passed over.

Each session has a connection, an account and an instance of its own, so thousands of them need
`machine.accounts_max`, `instances_max`, `sessions_max` and `gateway.connections_max` as high.

Exit codes: 0 every check passed; 1 a check failed; 2 the run could not be made or did not end.

Examples:
  loadgen --connect unix:/run/vendued/vendued.sock --rate 20000 --plot run.svg
  loadgen --connect shm:/run/vendued/vendued.sock --ramp 1000..100000 --steps 12 --seconds 60
  loadgen --connect unix:s --mix maker=8,taker=8,bursty=4,idle=2000 --record run.rec
  loadgen --connect unix:s --attack --seconds 20
  loadgen --connect unix:s --flow flow.bin --sessions 1 --rate 50000
  loadgen --check run.rec";

/// Load on a running vendued, with every reply checked. Latency counts from when a request was
/// due, not from when it could be sent.
#[derive(Parser)]
#[command(name = "loadgen", version, after_help = AFTER_HELP)]
#[command(group = ArgGroup::new("what").required(true).args(["connect", "check"]))]
struct Arguments {
    /// The daemon: unix:PATH, shm:PATH, tcp:ADDRESS:PORT or tls:DIR@HOST:PORT.
    #[arg(long, value_name = "ENDPOINT")]
    connect: Option<Endpoint>,
    /// Check every reply of a record made with --record, instead of a run.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// File with the 32 bytes of an operator's token, for plain TCP.
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// Sessions, each with a connection, an account and an instance of its own.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=SESSIONS_MAX as i64))]
    sessions: u16,
    /// Sessions that behave differently: mixed, maker, taker, bursty (a second's requests at
    /// once), idle. The rate is shared evenly by all but the idle ones.
    #[arg(long, value_name = "PROFILE=SESSIONS,...", conflicts_with = "sessions")]
    mix: Option<Mix>,
    /// Requests a second over all sessions; 0: as fast as the answers come.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    rate: u64,
    /// A rate that changes over the run, in steps; shows each step's percentiles, and the knee.
    #[arg(long, value_name = "FROM..TO", value_parser = ramp, conflicts_with = "rate")]
    ramp: Option<(u64, u64)>,
    /// With --ramp: steps, all of one length.
    #[arg(long, default_value_t = 10, requires = "ramp", value_parser = clap::value_parser!(u16).range(2..=RAMP_STEPS_MAX as i64))]
    steps: u16,
    /// With --rate 0: requests each session keeps unanswered.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    depth: u16,
    /// How long to send.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Decides what is sent; the same seed uses the same accounts again.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Send the orders of a MEFLOW-1 file instead, whole: as many books as it has from --book on,
    /// shared out to the sessions. Every fill must be the naive matcher's.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mix", "ramp", "seconds", "instances"])]
    flow: Option<PathBuf>,
    /// With --flow: records that build the book before the timed part.
    #[arg(long, default_value_t = 100_000, requires = "flow")]
    prefill: usize,
    /// With --flow: send only the first so many operations, then empty the book.
    #[arg(long, requires = "flow", value_parser = clap::value_parser!(u64).range(1..))]
    ops: Option<u64>,
    /// Attack the daemon in every second second, and show what the sessions lost: all, or of
    /// flood, forge, absurd, replay, garbage, truncated, oversized, stale, half-open, slow-reader.
    #[arg(long, value_name = "KIND,...", num_args = 0..=1, default_missing_value = "all")]
    attack: Option<Kinds>,
    /// With --attack: attackers of each kind.
    #[arg(long, default_value_t = 2, requires = "attack", value_parser = clap::value_parser!(u16).range(1..=PER_KIND_MAX as i64))]
    attackers: u16,
    /// Write every request and reply to a file, and check it in the end as --check does.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    record: Option<PathBuf>,
    /// Draw the percentiles into an SVG file.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    plot: Option<PathBuf>,
    /// Print one JSON object instead of the summary.
    #[arg(long)]
    json: bool,
    /// Show a line a second on standard error though it is no terminal.
    #[arg(long)]
    progress: bool,
    /// Trade with these instances, in turn, instead of making some.
    #[arg(long, value_delimiter = ',')]
    instances: Vec<String>,
    /// Book to trade in.
    #[arg(long, default_value_t = 0)]
    book: u16,
    /// How the names of the accounts and instances that are made begin.
    #[arg(long, default_value = "loadgen", value_name = "TEXT")]
    account_prefix: String,
}

/// `FROM..TO`, both above 0.
fn ramp(text: &str) -> Result<(u64, u64), String> {
    let rate = |text: &str| text.parse().ok().filter(|rate| (1..=100_000_000).contains(rate));
    let ends = text.split_once("..").and_then(|(from, to)| Some((rate(from)?, rate(to)?)));
    ends.ok_or_else(|| "write FROM..TO, two rates from 1 to 100000000".to_owned())
}

type AnyError = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.check {
        Some(path) => check(path, arguments.json),
        None => load(arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(2)
        }
    }
}

/// True if every check passed.
fn load(arguments: Arguments) -> Result<bool, AnyError> {
    let (json, plot) = (arguments.json, arguments.plot.clone());
    let progress = arguments.progress || std::io::stderr().is_terminal();
    let options = options(arguments)?;
    let (report, tally) = run::run(&options, progress)?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    if let Some(path) = plot {
        let title = format!("{}, {} sessions", report.endpoint, report.sessions);
        plot::write(&path, &title, &tally)?;
    }
    if let Some(violation) = &report.violation {
        eprintln!("loadgen: check failed: {violation}");
    }
    Ok(report.violation.is_none())
}

fn options(arguments: Arguments) -> Result<Options, AnyError> {
    let flow = match (&arguments.flow, arguments.ops) {
        (Some(path), None) => Some(Flow::read(path, arguments.prefill)?),
        (Some(path), Some(ops)) => {
            Some(Flow::read(path, arguments.prefill)?.cut(usize::try_from(ops)?)?)
        }
        (None, _) => None,
    };
    let all = Mix::of(Profile::Mixed, arguments.sessions.into());
    let mix = arguments.mix.unwrap_or(all);
    if !(1..=SESSIONS_MAX).contains(&mix.sessions()) {
        return Err(format!("--mix: there must be 1 to {SESSIONS_MAX} sessions").into());
    }
    if arguments.attack.is_some() && arguments.seconds < 2 {
        return Err("--attack needs two seconds: one is calm, one is not".into());
    }
    let steps = arguments.steps.into();
    Ok(Options {
        endpoint: arguments.connect.ok_or("--connect says which daemon to load")?,
        token: arguments.token_file.as_deref().map_or(Ok([0; 32]), token)?,
        mix,
        rate: arguments.rate,
        ramp: arguments.ramp.map(|(from, to)| Ramp { from, to, steps }),
        depth: arguments.depth.into(),
        time: Duration::from_secs(arguments.seconds),
        seed: arguments.seed,
        instances: arguments.instances,
        book: arguments.book,
        prefix: arguments.account_prefix,
        flow,
        attack: arguments.attack.map(|kinds| (kinds, arguments.attackers.into())),
        record: arguments.record,
    })
}

fn token(path: &Path) -> Result<[u8; 32], String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let length = bytes.len();
    bytes.try_into().map_err(|_| format!("{}: a token is 32 bytes, not {length}", path.display()))
}

/// Checks a record. True if every check passed.
fn check(path: &Path, json: bool) -> Result<bool, AnyError> {
    let checked = record::check(path)?;
    let counts = &checked.counts;
    let violation = checked.violation.as_ref().map(|(session, found)| match session {
        Some(number) => format!("session {number}: {found}"),
        None => found.to_string(),
    });
    if json {
        let object = serde_json::json!({
            "sessions": checked.sessions,
            "orders": counts.orders,
            "cancels": counts.cancels,
            "accepted": counts.accepted,
            "cancelled": counts.cancelled,
            "filled": counts.fills,
            "trades": checked.judged.trades,
            "credits_traded": checked.judged.credits,
            "rejected": counts.rejected.values().sum::<u64>(),
            "refused": counts.refused.values().sum::<u64>(),
            "order_ack_ns": Percentiles::of(&checked.order_ack_ns),
            "violation": violation,
        });
        println!("{object}");
    } else {
        println!(
            "{} sessions, {} orders, {} cancels, {} trades of {} credits",
            checked.sessions,
            counts.orders,
            counts.cancels,
            checked.judged.trades,
            checked.judged.credits
        );
    }
    match &violation {
        Some(found) => eprintln!("loadgen: check failed: {found}"),
        None if !json => println!("every reply is as it should be"),
        None => {}
    }
    Ok(violation.is_none())
}
