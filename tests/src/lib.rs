<<<<<<< HEAD
//! What the whole-system tests stand on.

pub mod vm;
=======
//! What the whole-system tests share: a naive model of the market, and a room to drive the real
//! machine in.

pub mod oracle;
pub mod room;
>>>>>>> oracle
