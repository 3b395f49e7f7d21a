//! KVM, from inside the VMM.
//!
//! A KVM ioctl from any process but the one that made the VM fails with `EIO`: the kernel compares
//! the caller's address space with the VM's, because a VM's memory is a view of its owner's. So
//! nothing outside a VMM can grow a VM or stop its vCPUs, whatever descriptors it holds, and Vendue
//! does not try. The VMM embeds a [`port::Port`] instead, which shares a ring with the engine's
//! side, the [`remote::Remote`]: the remote sends *intents*, the port applies them in the VMM's own
//! threads and answers each with what stands then, or with the reason why nothing changed. A remote
//! has rings and statistics and no descriptor that an ioctl could be sent to; see
//! [`stats::StatsError::NotStats`] for what happens if it is handed one.
//!
//! Read in this order: [`intent`] (what can be asked and answered), [`memory`] and [`gate`] (how it
//! is done: memory slots, vCPUs held back), [`port`] (the VMM's side), [`remote`] (the engine's),
//! [`stats`] (counters that the kernel lets anybody read), [`keeper`] (many cells at their instances'
//! entitlements). [`crate::cell`] is a VMM that embeds a port.
//!
//! Neither side trusts the other: everything that comes over is checked and bounded, and a side
//! that speaks nonsense loses the connection, nothing else.

pub mod intent;

pub mod memory;

pub mod gate;

pub mod port;

pub mod remote;

pub mod stats;

pub mod keeper;

mod calls;
mod counts;
mod hello;
