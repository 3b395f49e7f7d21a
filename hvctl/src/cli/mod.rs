//! The command line: parsed once, then one file a group of commands.

mod amount;
mod names;
mod table;

mod alarm;
mod door;
mod output;

mod account;
mod account_limits;
mod agent;
mod audit;
mod book;
mod cell;
mod experiment;
mod forecast;
mod group;
mod instance;
mod launch;
mod lease;
mod ledger;
mod limits;
mod market;
mod migration;
mod migration_run;
mod objective;
mod order;
mod phase;
mod pki;
mod plan;
mod policy;
mod qemu;
mod report;
mod sensors;
mod status;
mod subscribe;
mod swap;
mod swarm;
mod task;
mod task_run;
mod tier;
mod token;
mod top;
mod trades;

use hvctl::{json, time};

use clap::{CommandFactory, Parser, Subcommand};
use door::{Reach, Trouble};
use output::Output;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

const REFUSED: u8 = 1;
/// As clap exits on a wrong command line.
const USAGE: u8 = 2;
const NO_CONNECTION: u8 = 3;
/// Heading of the options that every command has.
const GLOBAL: &str = "Options of every command";

/// Operates Vendue, the auction room of one host.
#[derive(Debug, Parser)]
#[command(
    name = "hvctl",
    version,
    propagate_version = true,
    after_help = "\
Exit codes: 0 done; 1 refused, or what was printed says that something is wrong; 2 the command \
line makes no sense; 3 the daemon cannot be reached, or is gone (for `qemu`: its monitor). \
`instance launch` ends with the launched command's own exit code.

Accounts, instances and tiers go by name or number; only digits are always a number. With --json \
each result is one object on a line of its own; handles, sessions and chain values are strings \
there, since they use all of 64 bits."
)]
struct Cli {
    /// Where vendued listens: unix:PATH, shm:PATH, tcp:ADDRESS:PORT or tls:DIR@HOST:PORT, with DIR
    /// as `hvctl pki client` makes it
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_name = "ENDPOINT",
        env = "VENDUE_CONNECT",
        default_value = "unix:/run/vendued/vendued.sock"
    )]
    connect: String,
    /// File with the 32 bytes that vendued asks for over plain TCP
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show how the daemon is; exit code 1 if faults stand or it accepts nothing
    Status,
    /// Tenants and their funds
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Classes of hardware
    #[command(subcommand)]
    Tier(tier::TierCommand),
    /// VMs and containers
    #[command(subcommand)]
    Instance(instance::InstanceCommand),
    /// VRUs rented above a baseline, and lent below it
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Reservations of VRUs over a window of time
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// VRUs of a token lent to another for a time
    #[command(subcommand)]
    Swap(swap::SwapCommand),
    /// What instances are said to need
    #[command(subcommand)]
    Forecast(forecast::ForecastCommand),
    /// What the engine does for instances by itself, within budgets
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Policies compared on the instances there are
    #[command(subcommand)]
    Experiment(experiment::ExperimentCommand),
    /// What instances are to reach; while they do not, the engine bids for leases by itself
    #[command(subcommand)]
    Objective(objective::ObjectiveCommand),
    /// Instances that move to other hosts
    #[command(subcommand)]
    Migration(migration::MigrationCommand),
    /// Groups of instances whose VRUs tasks win
    #[command(subcommand)]
    Swarm(swarm::SwarmCommand),
    /// Work that bids for the VRUs of a group of instances
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Enter an order and show what comes of it at once
    #[command(subcommand)]
    Order(order::OrderCommand),
    /// Cancel an order, or many
    Cancel(order::CancelCommand),
    /// Show an instance's open orders
    Orders(order::OrdersCommand),
    /// Show the books, or the depth of one
    Book(book::BookCommand),
    /// Halt a book, call it to an auction, or let it go on
    Phase(phase::PhaseCommand),
    /// Show average prices, VWAP and volume of the books, or the bars of one
    Market(market::MarketCommand),
    /// Show the newest trades, or the tape from a trade on
    Trades(trades::TradesCommand),
    /// Undo a trade: credits, funds and fees go back, if both parties still have them free
    Reverse(trades::ReverseCommand),
    /// Show the ledger; exit code 1 if an asset does not sum to zero
    Ledger,
    /// Show every transaction, the chain verified; exit code 1 if it is broken
    Audit(audit::AuditCommand),
    /// Write a report of a period: accounts, instances, tiers, swarms and tasks, with plots
    Report(report::ReportCommand),
    /// Tell every trade and balance that changes, each once and in order, until Ctrl-C
    Subscribe(subscribe::SubscribeCommand),
    /// Show the limits on the host: wanted, written, read back
    Limits(limits::LimitsCommand),
    /// Watch instances, prices, leases and tasks live: sort, filter, look into one
    Top(top::TopCommand),
    /// Make the certificates of a small site, for TLS between hosts
    #[command(subcommand)]
    Pki(pki::PkiCommand),
    /// Show and change a VM by QEMU's monitor: processors, memory, disks, migration
    Qemu(qemu::QemuCommand),
    /// Trade for an instance: offer the credits it will not need, request those it will lack
    Agent(agent::AgentCommand),
    /// Run a flat guest under KVM in a jail, its memory and vCPUs open to Vendue through a port
    Cell(cell::Cell),
    /// Print the completions for a shell
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
}

/// Parses the command line, runs it, says what went wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads has seen enough.
        Err(Trouble::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Trouble::Ended(code)) => ExitCode::from(code),
        Err(Trouble::Unhealthy) => ExitCode::from(REFUSED),
        Err(trouble) => {
            eprintln!("hvctl: {trouble}");
            ExitCode::from(match trouble {
                Trouble::Usage(_) => USAGE,
                Trouble::Connection(_) => NO_CONNECTION,
                _ => REFUSED,
            })
        }
    }
}

fn run(cli: &Cli) -> Result<(), Trouble> {
    let mut out = Output::new(cli.json);
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "hvctl", &mut script);
        return Ok(out.print(&script)?);
    }
    if let Command::Pki(command) = &cli.command {
        return pki::run(command, &mut out);
    }
    if let Command::Qemu(command) = &cli.command {
        return qemu::run(command, &mut out);
    }
    if let Command::Cell(cell) = &cli.command {
        return cell::run(cell);
    }
    let reach = Reach::new(&cli.connect, cli.token_file.as_deref())?;
    match &cli.command {
        Command::Status => status::run(&reach, &mut out),
        Command::Account(command) => account::run(command, &reach, &mut out),
        Command::Tier(command) => tier::run(command, &reach, &mut out),
        Command::Instance(command) => instance::run(command, &reach, &mut out),
        Command::Migration(command) => migration::run(command, &reach, &mut out),
        Command::Swarm(command) => swarm::run(command, &reach, &mut out),
        Command::Task(command) => task::run(command, &reach, &mut out),
        Command::Order(command) => order::run(command, &reach, &mut out),
        Command::Cancel(command) => order::cancel(command, &reach, &mut out),
        Command::Orders(command) => order::orders(command, &reach, &mut out),
        Command::Book(command) => book::run(command, &reach, &mut out),
        Command::Lease(command) => lease::run(command, &reach, &mut out),
        Command::Experiment(command) => experiment::run(command, &reach, &mut out),
        Command::Forecast(command) => forecast::run(command, &reach, &mut out),
        Command::Token(command) => token::run(command, &reach, &mut out),
        Command::Swap(command) => swap::run(command, &reach, &mut out),
        Command::Policy(command) => policy::run(command, &reach, &mut out),
        Command::Objective(command) => objective::run(command, &reach, &mut out),
        Command::Phase(command) => phase::run(command, &reach, &mut out),
        Command::Market(command) => market::run(command, &reach, &mut out),
        Command::Trades(command) => trades::run(command, &reach, &mut out),
        Command::Reverse(command) => trades::reverse(command, &reach, &mut out),
        Command::Ledger => ledger::run(&reach, &mut out),
        Command::Audit(command) => audit::run(command, &reach, &mut out),
        Command::Report(command) => report::run(command, &reach, &mut out),
        Command::Subscribe(command) => subscribe::run(command, &reach, &mut out),
        Command::Limits(command) => limits::run(command, &reach, &mut out),
        Command::Agent(command) => agent::run(command, &reach, &mut out),
        Command::Top(command) => top::run(command, reach, &out),
        Command::Pki(_) | Command::Qemu(_) | Command::Cell(_) | Command::Completions { .. } => {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn orders_that_contradict_themselves_are_refused() {
        let order = |rest: &str| parses(&format!("hvctl order buy web --quantity 5 {rest}"));
        assert!(order("--book 1 --price 3"));
        assert!(order("--resource cpu --price 3 --ioc --self-trade cancel-resting"));
        assert!(order("--resource cpu --price 3 --gtd 2026-01-31T12:00:00Z --post-only"));
        assert!(order("--resource cpu --market"));
        for wrong in [
            "--price 3",
            "--book 1",
            "--book 1 --resource cpu --price 3",
            "--book 1 --price 3 --ioc --fok",
            "--book 1 --price 3 --ioc --post-only",
            "--book 1 --price 3 --gtd tomorrow",
            "--book 1 --price 3 --self-trade never",
            "--book 1 --price 3 --role observer",
            "--book 70000 --price 3",
            "--resource gold --price 3",
        ] {
            assert!(!order(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_cancel_names_one_order_or_all() {
        for right in
            ["7", "--all", "--all --instance web --book 2", "7 --role agent --instance web"]
        {
            assert!(parses(&format!("hvctl cancel {right}")), "{right}");
        }
        for wrong in ["7 --all", "--instance web", "7 --book 2", "-1", "x"] {
            assert!(!parses(&format!("hvctl cancel {wrong}")), "{wrong}");
        }
    }
}
