//! The dry-run host: limits are kept in memory and change nothing; use is still measured.

use crate::limit::{Knob, Setting};
use crate::meter::{Meter, MeterError};
use crate::sense::Sensors;
use std::collections::BTreeMap;
use vendue_wire::message::SensorRow;

/// Why a place is not one for a dry run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DryRunError {
    /// `pid:` is followed by something else than a number.
    #[error("{0:?} does not name a process; write pid:N")]
    BadPid(String),
    /// The process cannot be metered.
    #[error("{place:?} cannot be metered: {error}")]
    NotMetered {
        /// As given.
        place: String,
        /// Why.
        error: MeterError,
    },
}

/// What would be an instance's limit files.
#[derive(Debug)]
pub(crate) struct DryRunPlace {
    values: BTreeMap<Knob, Setting>,
    meter: Option<Meter>,
    sensors: Sensors,
}

impl DryRunPlace {
    /// `pid:N` is metered from the process; any other text is a label.
    pub(crate) fn open(place: &str) -> Result<DryRunPlace, DryRunError> {
        let meter = match place.strip_prefix("pid:") {
            None => None,
            Some(pid) => {
                let pid = pid.parse().map_err(|_| DryRunError::BadPid(place.to_string()))?;
                let not_metered =
                    |error| DryRunError::NotMetered { place: place.to_string(), error };
                Some(Meter::process(pid).map_err(not_metered)?)
            }
        };
        Ok(DryRunPlace { values: BTreeMap::new(), meter, sensors: Sensors::default() })
    }

    pub(crate) fn write(&mut self, knob: Knob, setting: &Setting) {
        self.values.insert(knob, *setting);
    }

    pub(crate) fn read(&self, knob: Knob) -> Setting {
        self.values.get(&knob).copied().unwrap_or(knob.lifted())
    }

    pub(crate) fn sense(&mut self, now_ns: u64) -> Result<SensorRow, MeterError> {
        let meter = self.meter.as_ref().ok_or(MeterError::NotMetered)?;
        self.sensors.sample(meter, None, now_ns)
    }

    pub(crate) fn meter(&mut self) -> Option<&mut Meter> {
        self.meter.as_mut()
    }
}
