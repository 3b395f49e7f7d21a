//! What a hostile peer, a bad disk or a wrong file can make of Vendue: for each door a function
//! that takes any bytes, makes of them what could come through that door, lets it in, and panics
//! when something happens that must not.
//!
//! libFuzzer finds the bytes (`tests/fuzz/run`); what it found worth keeping lies in `corpus/` and
//! is played again by every `cargo test`.

pub mod config;
pub mod frames;
pub mod journal;
pub mod machine;
pub mod qmp;
pub mod ring;
pub mod session;
pub mod snapshot;

/// A target's name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("config", config::run),
    ("frames", frames::run),
    ("journal", journal::run),
    ("machine", machine::run),
    ("qmp", qmp::run),
    ("ring", ring::run),
    ("session", session::run),
    ("snapshot", snapshot::run),
];
