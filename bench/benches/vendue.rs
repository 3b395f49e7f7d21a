//! `cargo bench -p vendue-bench -- COMMAND`: starts a benchmark and prints what it found.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use vendue_bench::flow::{FLOW_A, FLOW_B, Flow};
use vendue_bench::pin::Processors;
use vendue_bench::report::Pair;
use vendue_bench::run::{self, RUNS_MAX};
use vendue_bench::{
    arbitrate, auction, codec, forecast, idle, instructions, journal, limit, quality, replay, ring,
    rtt, scale, sense, swarm, token,
};
use vendue_wire::idle::Wait;

/// Vendue's benchmarks, each beside a floor measured in the same run.
#[derive(Parser)]
#[command(name = "vendue-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Cargo adds this.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// The order book on a flow, beside the bare ladder.
    Book(Book),
    /// The order book with fees and groups of accounts, beside the same book without.
    Rules(Runs),
    /// The shared-memory ring between two threads, beside a bare array and bare counters.
    Ring(Runs),
    /// Encoding and decoding, beside a copy of the same bytes.
    Codec(Runs),
    /// Seals of tokens that are checked, beside the bare keyed hash.
    Token(Runs),
    /// Records until they are durable, beside raw write + fdatasync.
    Journal(Runs),
    /// Recovery from a journal, beside reading it.
    Replay(Runs),
    /// The machine as live orders, books and instances grow, beside the bare ladder.
    Scale(Runs),
    /// An auction of 100,000 orders, beside one pass over them in memory.
    Auction(Runs),
    /// One bid for a lease against 10^2 to 10^6 that stand, beside an ordered map.
    Arbitrate(Runs),
    /// VRUs that tasks win, beside a binary heap.
    Swarm(Runs),
    /// From an order, and from a decision, to the limit in its cgroup's file or in a VM, beside an echo
    /// and a bare pwrite.
    Limit(Limit),
    /// What looking at a thousand instances' sensors costs, beside bare preads.
    Sense(Runs),
    /// What a daemon costs that nobody trades with.
    Idle(Runs),
    /// Instructions under valgrind, beside the baseline; fails if they have grown.
    Instructions {
        /// Writes the baseline anew.
        #[arg(long)]
        refresh: bool,
    },
    /// One piece of work whose instructions are counted.
    #[command(hide = true)]
    Work {
        /// Its name.
        name: String,
    },
    /// Allocation quality: a trace of demand replayed through allocators.
    Quality(Quality),
    /// Forecasts of a trace, an hour ahead, a day and a week where it is so long, beside its last value.
    Forecast(Forecast),
    /// All of them, with their defaults.
    All(Runs),
    /// Order to acknowledgement over each transport, beside an echo.
    Rtt(Rtt),
}

#[derive(Args)]
struct Runs {
    /// Interleaved runs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=RUNS_MAX as u64))]
    runs: u64,
    /// Prints one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

impl Runs {
    fn count(&self) -> usize {
        self.runs as usize
    }

    /// Prints a row as soon as it is there.
    fn show(&self) -> impl FnMut(Pair) {
        let json = self.json;
        move |pair| if json { println!("{}", pair.to_json()) } else { println!("{pair}") }
    }
}

#[derive(Args)]
struct Quality {
    /// Demand, one column a VM and one row five minutes; or rows of `date,vm,s0,s1,...`, a day of a
    /// VM each. May be gzipped.
    #[arg(long, value_name = "FILE.csv[.gz]")]
    trace: PathBuf,
    /// What each VM was sold, `vm,capacity` in the trace's unit [default: its 99.9th percentile].
    #[arg(long, value_name = "FILE.csv[.gz]")]
    capacities: Option<PathBuf>,
    /// Prints one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Forecast {
    /// Use, as for `quality`.
    #[arg(long, value_name = "FILE.csv[.gz]")]
    trace: PathBuf,
    /// Prints one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Rtt {
    #[command(flatten)]
    runs: Runs,
    /// Only over this: shm, unix, tcp, tls.
    #[arg(long)]
    over: Option<String>,
    /// How both sides wait [default: shm spins, sockets park].
    #[arg(long)]
    wait: Option<Wait>,
}

#[derive(Args)]
struct Limit {
    #[command(flatten)]
    runs: Runs,
    /// Only this part of it.
    #[arg(long, value_parser = limit::PARTS)]
    only: Option<String>,
}

#[derive(Args)]
struct Book {
    /// A MEFLOW-1 file [default: the published flows A and B].
    #[arg(long)]
    flow: Option<PathBuf>,
    /// Records of FILE that build the book before the timed part.
    #[arg(long, default_value_t = 100_000, requires = "flow")]
    prefill: usize,
    /// Times only the first so many operations.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    ops: Option<u64>,
    /// Interleaved runs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=RUNS_MAX as u64))]
    runs: u64,
    /// Prints one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

type AnyError = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Some(Command::Book(arguments)) => book(&arguments),
        Some(Command::Instructions { refresh }) => instructions(refresh),
        Some(Command::Work { name }) => instructions::work(&name),
        Some(Command::Quality(arguments)) => quality(&arguments),
        Some(Command::Forecast(Forecast { trace, json })) => {
            forecast::measure(&trace, &mut |row| {
                if json { println!("{}", row.to_json()) } else { println!("{row}") }
            })
        }
        Some(command) => pairs(&command),
        // Not an error: `cargo test --all-targets` starts benches without arguments.
        None => Arguments::command().print_help().map_err(AnyError::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vendue-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one of the benchmarks whose rows are pairs.
fn pairs(command: &Command) -> Result<(), AnyError> {
    let processors = Processors::find()?;
    // The device below the target directory is the one that durability is measured on.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    match command {
        Command::Rules(runs) => rules(runs.count(), &mut runs.show())?,
        Command::Ring(runs) => ring::measure(processors, runs.count(), &mut runs.show())?,
        Command::Token(runs) => token::measure(processors, runs.count(), &mut runs.show())?,
        Command::Codec(runs) => codec::measure(processors, runs.count(), &mut runs.show())?,
        Command::Rtt(Rtt { runs, over, wait }) => {
            let only = (over.as_deref(), *wait);
            rtt::measure(processors, runs.count(), directory, only, &mut runs.show())?;
        }
        Command::Journal(runs) => {
            journal::measure(processors, runs.count(), directory, &mut runs.show())?;
        }
        Command::Replay(runs) => {
            replay::measure(processors, runs.count(), directory, &mut runs.show())?;
        }
        Command::Scale(runs) => scale::measure(processors, runs.count(), &mut runs.show())?,
        Command::Auction(runs) => auction::measure(processors, runs.count(), &mut runs.show())?,
        Command::Arbitrate(runs) => {
            arbitrate::measure(processors, runs.count(), &mut runs.show())?;
        }
        Command::Swarm(runs) => swarm::measure(processors, runs.count(), &mut runs.show())?,
        Command::Limit(Limit { runs, only }) => {
            // In the guest of `vm-limit` there is no target directory.
            let elsewhere = std::env::temp_dir();
            let directory = if directory.is_dir() { directory } else { &elsewhere };
            let (count, only) = (runs.count(), only.as_deref());
            for row in limit::measure(processors, count, directory, only, &mut runs.show())? {
                if runs.json { println!("{}", row.to_json()) } else { println!("{row}") }
            }
        }
        Command::Sense(runs) => {
            if let Some(row) = sense::measure(processors, runs.count(), &mut runs.show())? {
                if runs.json { println!("{}", row.to_json()) } else { println!("{row}") }
            }
        }
        Command::Idle(runs) => idle::measure(runs.count(), directory, &mut runs.show())?,
        Command::All(runs) => return all(runs),
        Command::Book(_)
        | Command::Quality(_)
        | Command::Forecast(_)
        | Command::Instructions { .. }
        | Command::Work { .. } => unreachable!("their rows are no pairs"),
    }
    Ok(())
}

fn rules(runs: usize, show: &mut dyn FnMut(Pair)) -> Result<(), AnyError> {
    for published in [FLOW_A, FLOW_B] {
        let flow = published.load(&flows())?;
        show(run::rules(&format!("rules.flow-{}", published.name), &flow, runs)?);
    }
    Ok(())
}

fn quality(arguments: &Quality) -> Result<(), AnyError> {
    let Quality { trace, capacities, json } = arguments;
    quality::measure(trace, capacities.as_deref(), &mut |row| {
        if *json { println!("{}", row.to_json()) } else { println!("{row}") }
    })
}

fn instructions(refresh: bool) -> Result<(), AnyError> {
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    let told = instructions::measure(&std::env::current_exe()?, &baseline, refresh)?;
    print!("{told}");
    Ok(())
}

/// Each in a process of its own: memory that one frees, and processors it is kept on, are no
/// matter of the next.
fn all(runs: &Runs) -> Result<(), AnyError> {
    for name in [
        "book",
        "rules",
        "ring",
        "codec",
        "token",
        "rtt",
        "journal",
        "limit",
        "sense",
        "replay",
        "scale",
        "auction",
        "arbitrate",
        "swarm",
        "idle",
    ] {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg(name).arg("--runs").arg(runs.runs.to_string());
        command.args(runs.json.then_some("--json"));
        let status = command.status()?;
        if !status.success() {
            return Err(format!("{name} failed: {status}").into());
        }
    }
    Ok(())
}

/// Where the published flows are kept once they were made.
fn flows() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("flow")
}

fn book(arguments: &Book) -> Result<(), AnyError> {
    if let Some(path) = &arguments.flow {
        let name =
            path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        return book_on(&name, Flow::read(path, arguments.prefill)?, arguments);
    }
    for published in [FLOW_A, FLOW_B] {
        book_on(published.name, published.load(&flows())?, arguments)?;
    }
    Ok(())
}

fn book_on(flow_name: &str, flow: Flow, arguments: &Book) -> Result<(), AnyError> {
    let flow = match arguments.ops {
        Some(ops) => flow.cut(usize::try_from(ops)?)?,
        None => flow,
    };
    let comparison = run::book(&format!("book.flow-{flow_name}"), &flow, arguments.runs as usize)?;
    if arguments.json {
        println!("{}", comparison.to_json());
    } else {
        println!("{comparison}");
    }
    Ok(())
}
