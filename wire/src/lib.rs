//! Vendue's protocol and nothing else.
//!
//! Read in this order: [`message`] (what can be said), [`code`] (why something was refused),
//! [`frame`] (how a message becomes bytes), then the transports and the client.
//! The same text for people who write a client in another language is `PROTOCOL.md`.

#[cfg(target_endian = "big")]
compile_error!("Vendue's shared-memory structures are little-endian; port them before building");

pub mod code;
pub mod frame;
pub mod message;
