//! What the whole-system tests stand on.

pub mod chance;
pub mod daemon;
pub mod journal;
pub mod market;
pub mod raw;
pub mod vm;
