//! `hvctl`: the one command an operator of Vendue learns. It speaks to the daemon through
//! `vendue-wire` only.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
