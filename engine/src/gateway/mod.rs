//! The gateway: connections, who is on them, and what they may say. The ingress stage drives it.

pub mod access;
pub mod connection;
pub mod listen;
pub mod seal;
pub mod side;
pub mod throttle;
pub mod tls;
