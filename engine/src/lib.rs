//! The engine.

pub mod storage;
