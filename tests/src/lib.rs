//! What the whole-system tests stand on: a naive model of the market, a room to drive the real
//! machine in, and a virtual machine with a real kernel.

pub mod oracle;
pub mod room;
pub mod vm;
