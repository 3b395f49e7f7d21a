//! Atomics, behind one module so that a model checker can replace them.
//!
//! With `--cfg loom` the same ring and seqlock run on loom's atomics, which explore every
//! interleaving and every stale value that the C11 memory model allows.

#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
};
