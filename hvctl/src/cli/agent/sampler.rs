//! Where an agent learns what its instance uses.

use crate::cli::door::Trouble;
use hvctl::guest::Guest;
use hvctl::meter::{Meter, MeterError, Usage};
use std::path::Path;
use vendue_wire::code::Resource;

/// The counters of one instance.
#[derive(Debug)]
pub enum Sampler {
    /// The host's: its cgroup or, on a dry-run host, its process.
    Host(Meter),
    /// Its own, from inside.
    Guest(Guest),
}

impl Sampler {
    /// The counters of this machine if `guest`, otherwise those at the instance's place; `None` if
    /// it has none.
    pub fn open(guest: bool, place: &str) -> Result<Option<Sampler>, Trouble> {
        let failed = |what: &str, error: MeterError| {
            Trouble::Host(format!(
                "cannot measure {what}: {error}; inside of the instance use --guest"
            ))
        };
        if guest {
            let guest = Guest::open().map_err(|error| failed("this machine", error))?;
            return Ok(Some(Sampler::Guest(guest)));
        }
        let meter = match (place.strip_prefix("pid:"), place) {
            (_, "") => return Ok(None),
            (Some(pid), _) => {
                pid.parse().map_err(|_| MeterError::NotMetered).and_then(Meter::process)
            }
            (None, place) => Meter::cgroup(Path::new(place), "memory.current"),
        };
        meter.map(|meter| Some(Sampler::Host(meter))).map_err(|error| failed(place, error))
    }

    /// True if it measures this resource.
    pub fn counts(&self, resource: Resource) -> bool {
        match self {
            Sampler::Host(meter) => meter.counts(resource),
            Sampler::Guest(_) => matches!(resource, Resource::Cpu | Resource::Memory),
        }
    }

    /// What was used since the last sample.
    pub fn sample(&mut self) -> Result<Usage, MeterError> {
        match self {
            Sampler::Host(meter) => meter.sample(),
            Sampler::Guest(guest) => guest.sample(),
        }
    }
}
