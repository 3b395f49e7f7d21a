//! Demand that the user knows beforehand, as a table in CSV:
//!
//! ```csv
//! day,cpu,memory
//! 0,5,64
//! 28800,40,256
//! 64800,5,64
//! ```
//!
//! The first column says when, in seconds, and its heading from when on: `time` since 1970 UTC,
//! `day` since midnight UTC and again every day, `week` since Monday midnight UTC and again every
//! week. The others are named for resources and hold VRUs (decimals allowed). A value stands until
//! the next row's time. The last row of a `time` table stands as long as the one before it did; one
//! row alone stands for ever. Empty lines and lines that begin with `#` are skipped.

use vendue_wire::code::Resource;

/// Most rows of a table.
pub const ROWS_MAX: usize = 1 << 20;
/// Most VRUs of a value.
const VRU_MAX: f64 = 4e9;
const DAY_S: u64 = 86_400;
const WEEK_S: u64 = 7 * DAY_S;
/// 1970 began on a Thursday: so many seconds after Monday's midnight.
const EPOCH_IN_WEEK_S: u64 = 3 * DAY_S;

/// Why a table makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadSeries {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// Demand over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// It begins again after so many seconds.
    period_s: Option<u64>,
    /// From when on, seconds, and how much, milli-VRUs; in order of time.
    rows: Vec<(u64, u64)>,
    /// When the last row's value ends.
    end_s: u64,
}

impl Series {
    /// Reads the column of `resource`; `None` if the table has none.
    ///
    /// # Errors
    /// [`BadSeries`], also for what is wrong in other columns' headings.
    pub fn parse(text: &str, resource: Resource) -> Result<Option<Series>, BadSeries> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let mut lines = lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#'));
        let (line, heading) = lines.next().unwrap_or((1, ""));
        let bad = |line, what: &str| BadSeries { line, what: what.to_owned() };
        let mut names = heading.split(',').map(str::trim);
        let period_s = match names.next() {
            Some("time") => None,
            Some("day") => Some(DAY_S),
            Some("week") => Some(WEEK_S),
            _ => return Err(bad(line, "the first heading is time, day or week")),
        };
        let names: Vec<&str> = names.collect();
        for (at, name) in names.iter().enumerate() {
            if !Resource::ALL.iter().any(|known| known.text() == *name) {
                return Err(bad(line, &format!("{name:?} is no resource")));
            }
            if names[..at].contains(name) {
                return Err(bad(line, &format!("there are two columns {name}")));
            }
        }
        let Some(column) = names.iter().position(|name| *name == resource.text()) else {
            return Ok(None);
        };
        let mut rows: Vec<(u64, u64)> = Vec::new();
        for (line, text) in lines {
            let cells: Vec<&str> = text.split(',').map(str::trim).collect();
            if cells.len() != names.len() + 1 {
                let want = names.len() + 1;
                return Err(bad(line, &format!("{} cells, but {want} headings", cells.len())));
            }
            let time = cells[0].parse::<u64>();
            let time = time.map_err(|_| bad(line, "the time is not a whole number of seconds"))?;
            if rows.last().is_some_and(|&(before, _)| before >= time) {
                return Err(bad(line, "the time is not after the row before"));
            }
            if period_s.is_some_and(|period| time >= period) {
                return Err(bad(line, "the time is beyond the day or week"));
            }
            if rows.len() == ROWS_MAX {
                return Err(bad(line, &format!("more than {ROWS_MAX} rows")));
            }
            let value =
                cells[column + 1].parse::<f64>().ok().filter(|v| (0.0..=VRU_MAX).contains(v));
            let value = value.ok_or_else(|| bad(line, "the demand is not a number of VRUs"))?;
            rows.push((time, (value * 1000.0).round() as u64));
        }
        let end_s = match (period_s, &rows[..]) {
            (_, []) => return Err(bad(line, "no rows follow the headings")),
            (Some(period), _) => period,
            (None, [.., before, last]) => last.0.saturating_add(last.0 - before.0),
            (None, [_]) => u64::MAX,
        };
        Ok(Some(Series { period_s, rows, end_s }))
    }

    /// Demand from `now_s` (seconds since 1970) for `seconds`: for how many of those it is known,
    /// and how many milli-credits those take.
    pub fn demand(&self, now_s: u64, seconds: u64) -> (u64, u64) {
        let Some(period) = self.period_s else {
            return self.between(now_s, now_s.saturating_add(seconds));
        };
        let (mut known_s, mut sum) = (0, 0_u64);
        // A week begins on Monday; whole weeks, and so whole days too, are left out of it.
        let mut at = now_s.saturating_add(EPOCH_IN_WEEK_S) % period;
        while known_s < seconds {
            let until = period.min(at + (seconds - known_s));
            let (_, part) = self.between(at, until);
            // Before its first row a day is as the last one ended.
            let wrapped = self.rows[0].0.min(until).saturating_sub(at);
            let last = self.rows[self.rows.len() - 1].1;
            sum = sum.saturating_add(part).saturating_add(last.saturating_mul(wrapped));
            known_s += until - at;
            at = 0;
        }
        (known_s, sum)
    }

    /// What the rows themselves say about the time from `from` to `until`.
    fn between(&self, from: u64, until: u64) -> (u64, u64) {
        let (mut known_s, mut sum) = (0, 0_u64);
        let first = self.rows.partition_point(|&(time, _)| time <= from).saturating_sub(1);
        for (at, &(time, value)) in self.rows.iter().enumerate().skip(first) {
            if time >= until {
                break;
            }
            let end = self.rows.get(at + 1).map_or(self.end_s, |&(next, _)| next);
            let seconds = end.min(until).saturating_sub(time.max(from));
            known_s += seconds;
            sum = sum.saturating_add(value.saturating_mul(seconds));
        }
        (known_s, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(text: &str) -> Series {
        Series::parse(text, Resource::Cpu).unwrap().unwrap()
    }

    #[test]
    fn a_table_over_time_ends() {
        let series = cpu("# known jobs\ntime, memory, cpu\n100,7,10\n\n110,7,2.5\n");
        // Ten seconds of 10 VRUs, then as long of 2.5.
        assert_eq!(series.demand(100, 10), (10, 100_000));
        assert_eq!(series.demand(104, 8), (8, 65_000));
        assert_eq!(series.demand(95, 10), (5, 50_000), "nothing is known before");
        assert_eq!(series.demand(115, 60), (5, 12_500), "nor after");
        assert_eq!(series.demand(120, 60), (0, 0));
        assert_eq!(series.demand(0, 100), (0, 0));
        let memory = Series::parse("time,memory\n5,1\n", Resource::Memory).unwrap().unwrap();
        assert_eq!(memory.demand(1_000_000, 60), (60, 60_000), "one row stands for ever");
    }

    #[test]
    fn a_day_begins_again() {
        let series = cpu("day,cpu\n3600,10\n7200,1\n");
        let day = 20_000 * DAY_S;
        assert_eq!(series.demand(day + 3600, 60), (60, 600_000));
        assert_eq!(series.demand(day + 7190, 20), (20, 110_000));
        // Before the first row it is as the last day ended.
        assert_eq!(series.demand(day, 60), (60, 60_000));
        assert_eq!(series.demand(day + 3590, 20), (20, 110_000));
        assert_eq!(series.demand(day + DAY_S - 30, 60), (60, 60_000), "over midnight");
        let whole = (DAY_S - 3600) * 1000 + 3600 * 10_000;
        assert_eq!(series.demand(day + 55, DAY_S), (DAY_S, whole));
    }

    #[test]
    fn a_week_begins_on_monday() {
        let series = cpu("week,cpu\n0,3\n86400,1\n");
        // 5 January 1970 was the first Monday.
        assert_eq!(series.demand(4 * DAY_S, 10), (10, 30_000));
        assert_eq!(series.demand(5 * DAY_S, 10), (10, 10_000));
        assert_eq!(series.demand(4 * DAY_S - 5, 10), (10, 20_000));
        assert_eq!(series.demand(10, 2 * WEEK_S).1, 2 * (DAY_S * 3000 + 6 * DAY_S * 1000));
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_line() {
        for (text, line, what) in [
            ("", 1, "first heading"),
            ("hour,cpu\n0,1", 1, "first heading"),
            ("time,gpu\n0,1", 1, "\"gpu\" is no resource"),
            ("time,cpu,cpu\n0,1,1", 1, "two columns"),
            ("time,cpu\n", 1, "no rows"),
            ("time,cpu\n0,1\n0,1", 3, "not after"),
            ("time,cpu\n\n0", 3, "1 cells, but 2"),
            ("time,cpu\n-1,1", 2, "whole number"),
            ("time,cpu\n1,-1", 2, "number of VRUs"),
            ("time,cpu\n1,NaN", 2, "number of VRUs"),
            ("time,cpu\n1,5e9", 2, "number of VRUs"),
            ("day,cpu\n86400,1", 2, "beyond the day"),
        ] {
            let bad = Series::parse(text, Resource::Cpu).unwrap_err();
            assert_eq!(bad.line, line, "{text:?}: {bad}");
            assert!(bad.what.contains(what), "{text:?}: {bad}");
        }
        assert_eq!(Series::parse("time,cpu\n0,1", Resource::Memory), Ok(None));
    }
}
