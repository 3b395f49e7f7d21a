//! What the whole-system tests stand on: a naive model of the market and its duel with the real
//! machine, a room to drive that machine in, a simulator of the whole daemon, the real daemon as a
//! child process, and a virtual machine with a real kernel.

pub mod chance;
pub mod daemon;
pub mod duel;
pub mod journal;
pub mod market;
pub mod migration;
pub mod oracle;
pub mod python;
pub mod raw;
pub mod room;
pub mod sim;
pub mod swarm;
pub mod vm;

/// What `vendued` allocates with: the models and simulators make machines by the thousand, whose tables
/// another allocator would give back to the kernel each time.
#[cfg(not(sanitized))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
