//! What the whole-system tests stand on.

pub mod vm;
