//! Between the actuator and the forecaster: measurements go out, forecasts come back and go to the
//! sequencer as commands. What finds no room is dropped: it is advice.

use super::record::Arrival;
use crate::forecast::history::Answer;
use crate::forecast::service::{Batch, Ends, Told, start};
use crate::machine::event::Asked;
use std::io;
use std::path::PathBuf;
use vendue_wire::code::Resource;
use vendue_wire::message::{Body, SetForecast};
use vendue_wire::ring::Producer;
use zerocopy::IntoBytes;

/// Forecasts that are passed on in one turn at most.
const PASSED_MAX: usize = 32;

/// The actuator's side of the forecaster.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    /// Bytes its series may take, until it is started.
    wanted: Option<(usize, Option<PathBuf>)>,
    ends: Option<Ends>,
    batch: Batch,
    /// Up to when use was told, nanoseconds.
    told_ns: u64,
    /// A forecast that found no room.
    waiting: Option<SetForecast>,
    /// Questions that are not answered yet.
    asked: u32,
}

impl Drop for Foresight {
    /// Waits until what is known is written down.
    fn drop(&mut self) {
        if let Some(Ends { told, thread, .. }) = self.ends.take() {
            drop(told);
            let _ = thread.join();
        }
    }
}

impl Foresight {
    /// Starts at its first turn: there the process is what it will be.
    pub(super) fn wanted(series_bytes_max: usize, file: Option<PathBuf>) -> Foresight {
        let mut foresight = Foresight::default();
        foresight.wanted = Some((series_bytes_max, file));
        foresight
    }

    /// An instance is there, and what tells it from others that have its number some time.
    pub(super) fn meet(&mut self, instance: u32, whose: u32) {
        if self.ends.is_some() || self.wanted.is_some() {
            self.batch.came.push((instance, whose));
        }
    }

    /// Passes a question on. False if nothing is ever foreseen here.
    pub(super) fn ask(&mut self, asked: &Asked) -> bool {
        if let Some(ends) = &self.ends {
            // Without room it is not answered: who asked asks again.
            self.asked += u32::from(ends.told.try_send(Told::Asked(*asked)).is_ok());
        }
        self.ends.is_some()
    }

    /// True while an answer is to come.
    pub(super) fn is_asked(&self) -> bool {
        self.asked > 0
    }

    /// The next answer, if it is there.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        let answer = self.ends.as_ref()?.answers.try_recv().ok()?;
        self.asked = self.asked.saturating_sub(1);
        Some(answer)
    }

    /// An instance used so many thousandths of VRU-seconds since the last turn.
    pub(super) fn note(&mut self, instance: u32, resource: Resource, milli: u64) {
        if self.ends.is_some() {
            self.batch.used.push((instance, resource, milli as f32 / 1e3));
        }
    }

    /// An instance is no more.
    pub(super) fn forget(&mut self, instance: u32) {
        if self.ends.is_some() {
            self.batch.gone.push(instance);
        }
    }

    /// Hands over what was noted and passes on what is foreseen.
    pub(super) fn turn(&mut self, now_ns: u64, measured: &mut Producer) -> io::Result<()> {
        if let Some((bytes_max, file)) = self.wanted.take() {
            self.ends = Some(start(bytes_max, file)?);
            self.told_ns = now_ns;
        }
        let Some(ends) = &self.ends else { return Ok(()) };
        let seconds = (now_ns.saturating_sub(self.told_ns) + 500_000_000) / 1_000_000_000;
        // What is less than a second counts with the next.
        if seconds > 0 {
            self.told_ns += seconds * 1_000_000_000;
            let mut batch = std::mem::take(&mut self.batch);
            batch.until_s = self.told_ns / 1_000_000_000;
            batch.seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            batch.used.iter_mut().for_each(|(_, _, vru)| *vru /= seconds as f32);
            // A forecaster that is so far behind does without.
            let _ = ends.told.try_send(Told::Batch(batch));
        }
        for _ in 0..PASSED_MAX {
            let Some(said) = self.waiting.take().or_else(|| ends.said.try_recv().ok()) else {
                break;
            };
            if measured
                .try_push(SetForecast::KIND.into(), &[Arrival::OWN.as_bytes(), said.as_bytes()])
                .is_err()
            {
                self.waiting = Some(said);
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::record::take;
    use std::time::Duration;
    use vendue_wire::code::{Horizon, Source};
    use vendue_wire::ring::pair_within;
    use zerocopy::FromBytes;

    #[test]
    fn what_is_measured_comes_back_as_a_command_that_foresees_it() {
        const TURN_S: u64 = 300;
        let (mut producer, mut consumer) = pair_within(64 << 10).expect("a ring");
        let mut foresight = Foresight::wanted(1 << 20, None);
        let said = (0..100_000).find_map(|turn| {
            foresight.note(7, Resource::Network, 20_000 * TURN_S);
            foresight.turn(turn * TURN_S * 1_000_000_000, &mut producer).expect("a thread");
            producer.flush();
            std::thread::sleep(Duration::from_millis(2));
            let record = take(&mut consumer)?;
            assert_eq!(record.tag, u32::from(SetForecast::KIND));
            let (head, body) = record.bytes.split_at(size_of::<Arrival>());
            let head = Arrival::read_from_bytes(head).expect("its head");
            assert_eq!(head.session, Arrival::OWN.session, "it is the daemon's own");
            Some(SetForecast::read_from_bytes(body).expect("a forecast"))
        });
        let said = said.expect("a forecast after some hours");
        assert_eq!((said.instance.get(), said.resource), (7, Resource::Network as u8));
        assert_eq!((said.source, said.horizon), (Source::Model as u8, Horizon::Hour as u8));
        let vrus = [said.p50_vru, said.p90_vru, said.p975_vru].map(|vrus| vrus.get());
        assert_eq!(vrus, [20; 3], "it always used twenty");
        assert_eq!(said.lasts_ms.get(), 3_600_000);
    }
}
