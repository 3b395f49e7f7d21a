//! `vendued`: the auction room of one host.
//!
//! In the order data takes: [`gateway`] and [`pipeline`] bring commands in and answers out,
//! [`machine`] decides, [`forecast`] foresees, [`desk`] words what each party is told, [`market`] keeps what all may see and
//! [`depth`] totals what is open, [`storage`] remembers.
//! [`start`] brings the state back and makes the stages, [`daemon`] runs them, in one process or
//! [`apart`]; [`config`] says how. `admin` lets people and control planes in by HTTP.

#[cfg(not(any(sanitized, fuzzed)))]
pub mod admin;
pub mod apart;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod depth;
pub mod desk;
pub mod forecast;
pub mod gateway;
pub mod health;
pub mod machine;
pub mod market;
pub mod pipeline;
pub mod start;
pub mod storage;
pub mod trail;
