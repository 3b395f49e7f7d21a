//! `vendued`: the auction room of one host.

pub mod machine;
