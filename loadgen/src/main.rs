//! `loadgen`'s command line. Exits with 0 if every check passed, 1 if one failed, 2 if the run
//! could not be made.

use clap::Parser;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use vendue_loadgen::{Options, SESSIONS_MAX, report};
use vendue_wire::client::Endpoint;

/// Load on a running vendued, with every reply checked. Latency counts from when a request was
/// due, not from when it could be sent.
#[derive(Parser)]
#[command(name = "loadgen", version)]
struct Arguments {
    /// The daemon: unix:PATH, shm:PATH or tcp:ADDRESS:PORT.
    #[arg(long, value_name = "ENDPOINT")]
    connect: Endpoint,
    /// File with the 32 bytes of an operator's token, for TCP.
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// Sessions, each with a connection, an account and an instance of its own.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=SESSIONS_MAX as i64))]
    sessions: u16,
    /// Requests a second over all sessions; 0: as fast as the answers come.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    rate: u64,
    /// With --rate 0: requests each session keeps unanswered.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    depth: u16,
    /// How long to send.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Decides the flow; the same seed uses the same accounts again.
    #[arg(long, default_value_t = 1)]
    seed: u64,
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(2)
        }
    }
}

/// True if every check passed.
fn run(arguments: Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let options = Options {
        endpoint: arguments.connect,
        token: arguments.token_file.as_deref().map_or(Ok([0; 32]), token)?,
        sessions: arguments.sessions.into(),
        rate: arguments.rate,
        depth: arguments.depth.into(),
        time: Duration::from_secs(arguments.seconds),
        seed: arguments.seed,
        instances: arguments.instances,
        book: arguments.book,
        prefix: arguments.account_prefix,
    };
    let progress = arguments.progress || std::io::stderr().is_terminal();
    let report = report::run(&options, progress)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    if let Some(violation) = &report.violation {
        eprintln!("loadgen: check failed: {violation}");
    }
    Ok(report.violation.is_none())
}

fn token(path: &std::path::Path) -> Result<[u8; 32], String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let length = bytes.len();
    bytes.try_into().map_err(|_| format!("{}: a token is 32 bytes, not {length}", path.display()))
}
