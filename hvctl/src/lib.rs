//! Host control: entitlements become the kernel's own limits, and real use is metered.
//!
//! One thread owns a [`host::Host`]: it says what each instance may use ([`host::Host::want`]),
//! lets due writes happen ([`host::Host::turn`]), looks for values that somebody else changed
//! ([`host::Host::verify`]) and samples use ([`host::Host::sample`]). No clock is read inside:
//! time is a parameter, in nanoseconds, and must not run backwards.
//!
//! Read in this order: [`limit`] (what a limit is and which file holds it), [`lever`] and [`refill`]
//! (when one is written), [`cgroup`], [`vcpu`], [`network`] and [`dry_run`] (where it is written),
//! [`meter`] (what was used), [`sense`] (how it fares), [`topology`] (which processors an instance is
//! kept to), [`host`] (all of it, for many instances),
//! [`lane`] (what is slow, on threads of its own), [`outcome`] (what came of what was wanted); [`kvm`] and [`cell`] (VMs whose VMM takes part); [`qmp`] (an instance that is a QEMU,
//! for threads that may wait). Beside them: [`guest`] (what an instance sees of itself) and [`agent`]
//! (what it should trade); [`json`] and [`time`] (how rows of the protocol are shown).

pub mod limit;

pub mod lever;
pub mod refill;

pub mod cgroup;
pub mod dry_run;
pub mod network;
pub mod vcpu;

pub mod meter;
pub mod sense;

pub mod topology;

pub mod host;

pub mod lane;

pub mod outcome;

pub mod kvm;

pub mod cell;

pub mod guest;

pub mod agent;

pub mod qmp;

pub mod json;
pub mod time;
