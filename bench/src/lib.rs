//! Vendue's benchmarks: every number stands beside a floor measured in the same run.
//!
//! The book, in this order: [`flow`] (the orders every engine is run on), [`oracle`] (what must come
//! out), [`generate`] (where the flows come from), [`floor`] (the bare ladder), [`ours`] (the real
//! book), [`run`] (how it is measured), [`report`] (how it is shown), [`scale`] (at other sizes), [`auction`] (all at once), [`arbitrate`] (leases),
//! [`swarm`] (tasks),
//! [`instructions`] (what CI gates on). Parts of the daemon: [`ring`], [`codec`], [`token`], [`journal`],
//! [`replay`], beside the bare device ([`stable`]). The whole ([`daemon`]): [`rtt`] beside an
//! [`echo`], [`limit`], [`sense`], [`idle`]. What capacity is worth as it is shared: [`quality`]; how
//! well its use is foreseen: [`forecast`]. [`pin`] gives out processors.
//! `cargo bench -p vendue-bench -- --help` says how to start one.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("latencies are read from the x86-64 time stamp counter; port `run` before building");

pub mod arbitrate;
pub mod auction;
pub mod codec;
pub mod daemon;
pub mod echo;
pub mod floor;
pub mod forecast;
pub mod idle;
pub mod instructions;
pub mod journal;
pub mod limit;
pub mod ours;
pub mod pin;
pub mod quality;
pub mod replay;
pub mod report;
pub mod ring;
pub mod rtt;
pub mod run;
pub mod scale;
pub mod sense;
pub mod stable;
pub mod swarm;
pub mod token;

// The flows live with the load generator, which sends the same files to a running daemon.
pub use vendue_loadgen::meflow::{self as flow, generate, oracle};
