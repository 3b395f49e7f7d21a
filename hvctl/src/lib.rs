//! Host control: entitlements become the kernel's own limits, and real use is metered.
//!
//! One thread owns a [`host::Host`]: it says what each instance may use ([`host::Host::want`]),
//! lets due writes happen ([`host::Host::turn`]), looks for values that somebody else changed
//! ([`host::Host::verify`]) and samples use ([`host::Host::sample`]). No clock is read inside:
//! time is a parameter, in nanoseconds, and must not run backwards.
//!
//! Read in this order: [`limit`] (what a limit is and which file holds it), [`lever`] (when one
//! is written), [`cgroup`] and [`dry_run`] (where it is written), [`meter`] (what was used),
//! [`host`] (all of it, for many instances). Beside them: [`guest`] (what an instance sees of itself)
//! and [`agent`] (what it should trade).

pub mod limit;

pub mod lever;

pub mod cgroup;
pub mod dry_run;

pub mod meter;

pub mod host;

pub mod guest;

pub mod agent;
