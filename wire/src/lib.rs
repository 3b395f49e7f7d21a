//! Vendue's protocol and nothing else.
//!
//! Read in this order: [`message`] (what can be said), [`code`] (why something was refused),
//! [`frame`] (how a message becomes bytes), then the transports and the client. What processes
//! share without a socket: [`ring`] (records one way), [`doorbell`] and [`idle`] (how its reader
//! waits), [`board`] (market data for any number of readers).
//! The same text for people who write a client in another language is `PROTOCOL.md`.

#[cfg(target_endian = "big")]
compile_error!("Vendue's shared-memory structures are little-endian; port them before building");

pub mod code;
pub mod frame;
pub mod message;

#[cfg(not(any(loom, miri)))]
pub mod client;
#[cfg(not(any(loom, miri)))]
pub mod descriptors;

pub mod board;
pub mod doorbell;
pub mod idle;
pub mod memory;
pub mod ring;
mod sync;

#[cfg(all(test, loom))]
mod loom_tests;
