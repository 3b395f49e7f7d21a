//! What was, beside what had been foreseen of it, for who asks.

use super::LEVELS;
use super::series::{Step, unpack};
use super::service::{Forecaster, Kept};
use crate::machine::event::Asked;
use vendue_wire::message::HistoryRow;

/// Rows of one answer at most.
const PAGE: usize = 64;
/// "That was the last page."
const LAST: u64 = u64::MAX;
/// Not known, or not foreseen.
const NONE: u32 = u32::MAX;
const SECOND_NS: u64 = 1_000_000_000;
/// Which of [`LEVELS`] a row shows.
const SHOWN: [usize; 5] = [0, 1, super::MEDIAN, LEVELS.len() - 2, LEVELS.len() - 1];

/// A page of an answer.
#[derive(Debug)]
pub struct Answer {
    /// Whose it is.
    pub asked: Asked,
    /// The rows.
    pub rows: Vec<HistoryRow>,
    /// Where the next page begins, nanoseconds since 1970 UTC.
    pub next: u64,
}

impl Forecaster {
    /// A page of what an instance used of a resource: see `QueryHistory`.
    pub fn answer(&self, asked: &Asked) -> Answer {
        let [width, resource] = asked.book.get().to_le_bytes();
        let kept = self.kept.get(&(asked.limit.get(), resource));
        let (rows, next) =
            kept.map_or((Vec::new(), LAST), |kept| self.page(kept, width, asked.from.get()));
        Answer { asked: *asked, rows, next }
    }

    fn page(&self, kept: &Kept, width: u8, from_ns: u64) -> (Vec<HistoryRow>, u64) {
        // Hours are foreseen by the day, and those behind that by the week.
        let (step, seconds, views) = match width {
            0 => (Step::Second, 1, 0..1),
            1 => (Step::Minute, 60, 0..1),
            _ => (Step::Hour, 3600, 1..3),
        };
        let used = kept.series.values(step);
        let end_s = self.now_s.saturating_sub(kept.series.open_s(step));
        let begin_s = end_s.saturating_sub(used.len() as u64 * seconds);
        let foreseen_s = views
            .clone()
            .filter_map(|view| {
                let served = kept.served[view].as_ref()?;
                Some(served.said_s + served.said.len() as u64 * self.views[view].step_s)
            })
            .fold(end_s, u64::max);
        let many = (foreseen_s - begin_s) / seconds;
        let first = from_ns.div_ceil(SECOND_NS).saturating_sub(begin_s).div_ceil(seconds);
        let time_s = |at: u64| begin_s + at * seconds;
        let rows = (first..many).take(PAGE).map(|at| {
            let used = used.get(at as usize).map_or(NONE, |vru| milli(*vru));
            let said = views.clone().find_map(|view| self.foreseen(kept, view, time_s(at)));
            let [p025, p10, p50, p90, p975] = said.unwrap_or([NONE; SHOWN.len()]);
            HistoryRow {
                time_ns: (time_s(at) * SECOND_NS).into(),
                used_milli_vru: used.into(),
                p025_milli_vru: p025.into(),
                p10_milli_vru: p10.into(),
                p50_milli_vru: p50.into(),
                p90_milli_vru: p90.into(),
                p975_milli_vru: p975.into(),
            }
        });
        let next = first.saturating_add(PAGE as u64);
        (rows.collect(), if next < many { time_s(next) * SECOND_NS } else { LAST })
    }

    /// What was foreseen of a moment by the last forecast made before its step.
    fn foreseen(&self, kept: &Kept, view: usize, at_s: u64) -> Option<[u32; SHOWN.len()]> {
        let step_s = self.views[view].step_s;
        if let Some(served) = &kept.served[view]
            && let Some(since_s) = at_s.checked_sub(served.said_s)
        {
            let said = served.said.get((since_s / step_s) as usize)?;
            return Some(SHOWN.map(|level| milli(said[level])));
        }
        let stood = &kept.stood[view];
        let after = stood.partition_point(|stood| u64::from(stood.begins_s) <= at_s);
        let stood = stood.get(after.checked_sub(1)?)?;
        let holds = at_s < u64::from(stood.begins_s) + step_s;
        holds.then(|| SHOWN.map(|level| milli(unpack(stood.quantiles[level]))))
    }
}

fn milli(vru: f32) -> u32 {
    ((f64::from(vru) * 1e3).round() as u32).min(NONE - 1)
}
