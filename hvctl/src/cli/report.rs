//! `hvctl report`: what accounts, instances, tiers and tasks paid, earned and used over a period, summed
//! by the daemon from its journal: one HTML page with plots, and the same numbers as CSV or JSON.

mod page;
mod plot;
mod sums;
mod tables;

use super::door::{Door, Reach, Trouble};
use super::names::Directory;
use super::output::Output;
use super::time::{parse_ms, rfc3339};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use sums::Sums;
use vendue_wire::message::*;

/// Seconds of a step, to choose from. The last is the longest below the protocol's 16 bits that days are
/// a multiple of.
const STEPS_S: [u64; 8] = [1, 10, 60, 300, 1800, 7200, 21_600, 43_200];
/// Steps that a page should have at most; where that needs longer ones than there are, it has more.
const STEPS: u64 = 240;
/// Steps of a period at most: 5 years.
const STEPS_MAX: u64 = 4096;
/// Journal records summed at a time.
const PAGE_RECORDS: u64 = 100_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Which period, and what to write. Without --json and without FILE the page is vendue-report.html. With
/// --json the numbers are printed as one object, and the page is only written to a FILE that is named.
#[derive(Debug, clap::Args)]
pub struct ReportCommand {
    /// Write the page here
    file: Option<PathBuf>,
    /// The period: so long before --to, such as 90s, 30m, 24h or 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_length)]
    last: u64,
    /// Begin of the period, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "last", value_parser = parse_ms)]
    from: Option<u64>,
    /// End of the period; now if left out
    #[arg(long, value_name = "TIME", value_parser = parse_ms)]
    to: Option<u64>,
    /// Write each table into this directory too, as CSV with amounts in their smallest units
    #[arg(long, value_name = "DIR")]
    csv: Option<PathBuf>,
}

/// Seconds of a length such as `90s`, `30m`, `24h` or `7d`.
fn parse_length(text: &str) -> Result<u64, String> {
    let parsed = || {
        let unit = match text.chars().next_back()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        let digits = &text[..text.len() - 1];
        let number =
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>());
        number?.ok()?.checked_mul(unit).filter(|&seconds| seconds > 0)
    };
    parsed().ok_or_else(|| "give a length such as 90s, 30m, 24h or 7d".to_owned())
}

/// What is reported on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Begin, nanoseconds since 1970 UTC.
    pub from_ns: u64,
    /// End.
    pub to_ns: u64,
    /// Seconds of a step.
    pub step_s: u64,
}

impl Period {
    /// A period with the shortest steps that are not too many.
    ///
    /// # Errors
    /// It is empty, or too long.
    fn new(from_ns: u64, to_ns: u64) -> Result<Period, Trouble> {
        if from_ns >= to_ns {
            return Err(Trouble::Usage("the period ends before it begins".to_owned()));
        }
        let seconds = (to_ns - from_ns).div_ceil(SECOND_NS);
        let short = STEPS_S.into_iter().find(|step_s| seconds <= step_s * STEPS);
        let step_s = short.unwrap_or(STEPS_S[STEPS_S.len() - 1]);
        if seconds > step_s * STEPS_MAX {
            let years = step_s * STEPS_MAX / 86_400 / 365;
            return Err(Trouble::Usage(format!("a report is of {years} years at most")));
        }
        Ok(Period { from_ns, to_ns, step_s })
    }
}

/// Runs the command.
pub fn run(command: &ReportCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let period = period(command, &mut door)?;
    let sums = read(&mut door, &period)?;
    let names = Directory::read(&mut door)?;
    let groups = door.pages::<GroupRow, _>(|from| QueryGroups { from: from.into() })?;
    let status = door.rows::<StatusRow>(&QueryStatus {})?;
    let dry_run = status.first().is_some_and(|status| status.host == 1);
    let trials = door.pages::<ExperimentRow, _>(|from| QueryExperiments { from: from.into() })?;
    let tables = tables::all(&sums, &names, &groups, &trials);
    if let Some(dir) = &command.csv {
        std::fs::create_dir_all(dir).map_err(|error| unwritten(dir, &error))?;
        for table in &tables {
            let path = dir.join(format!("{}.csv", table.key));
            write(&path, &table.csv())?;
        }
    }
    let default = (!out.is_json()).then(|| PathBuf::from("vendue-report.html"));
    let file = command.file.clone().or(default);
    let plots = plot::all(&sums, &names, &groups, &period);
    if let Some(file) = &file {
        write(file, &page::html(&period, dry_run, &tables, &plots))?;
    }
    let (from, to) = (rfc3339(period.from_ns), rfc3339(period.to_ns));
    let said = file.map_or_else(String::new, |file| {
        format!(
            "{}: {from} to {to}, {} accounts, {} tasks",
            file.display(),
            sums.accounts(),
            sums.tasks.len()
        )
    });
    Ok(out.say(&tables::json(&period, dry_run, &tables), &said)?)
}

fn unwritten(path: &Path, error: &std::io::Error) -> Trouble {
    Trouble::Host(format!("cannot write {}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    std::fs::write(path, text).map_err(|error| unwritten(path, &error))
}

/// The period that is asked for, as far as there was a daemon.
fn period(command: &ReportCommand, door: &mut Door) -> Result<Period, Trouble> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let ns = |ms: u64| ms.saturating_mul(1_000_000);
    let to_ns = command.to.map_or(now_ns, ns).min(now_ns);
    let last_ns = command.last.saturating_mul(SECOND_NS);
    let from_ns = command.from.map_or_else(|| to_ns.saturating_sub(last_ns), ns);
    let first = QueryAudit { from: 1.into(), limit: 1.into(), reserved: 0.into() };
    let began_ns = door.rows::<AuditRow>(&first)?.first().map_or(0, |row| row.time_ns.get());
    if to_ns <= began_ns {
        let why = format!("the journal begins at {}", rfc3339(began_ns));
        return Err(Trouble::Refused(why));
    }
    Period::new(from_ns.max(began_ns), to_ns)
}

/// Sums up the period.
fn read(door: &mut Door, period: &Period) -> Result<Sums, Trouble> {
    let mut from = moment(door, period.from_ns)?;
    let end = moment(door, period.to_ns)?;
    let mut sums = Sums::default();
    while from < end {
        let query = QueryReport {
            from: from.into(),
            limit: ((end - from).min(PAGE_RECORDS) as u32).into(),
            step_s: (period.step_s as u16).into(),
            reserved: 0.into(),
        };
        let mut broken = None;
        let next = door.each(&query, |received| {
            if let Some(row) = received.message::<ReportFlowRow>() {
                sums.flow(row);
            } else if let Some(row) = received.message::<ReportSampleRow>() {
                sums.sample(row);
            } else if let Some(row) = received.message::<ReportTaskRow>() {
                sums.task(row);
            } else if let Some(fault) = received.message::<FaultRow>() {
                broken = Some(text(&fault.text).to_owned());
            }
        })?;
        if let Some(why) = broken {
            return Err(Trouble::Refused(format!("the journal cannot be read: {why}")));
        }
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    Ok(sums)
}

/// The first record of a time or later.
fn moment(door: &mut Door, time_ns: u64) -> Result<u64, Trouble> {
    let mut broken = None;
    let next = door.each(&QueryMoment { time_ns: time_ns.into() }, |received| {
        broken = received.message::<FaultRow>().map(|fault| text(&fault.text).to_owned());
    })?;
    match (next, broken) {
        (Some(next), None) => Ok(next),
        (_, why) => Err(Trouble::Refused(format!(
            "the journal cannot be read: {}",
            why.unwrap_or_default()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_a_unit() {
        assert_eq!((parse_length("90s"), parse_length("7d")), (Ok(90), Ok(604_800)));
        for wrong in ["", "s", "24", "0h", "-1h", "1.5h", "1 h", "24é", "99999999999999999999s"] {
            assert!(parse_length(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn steps_are_as_short_as_the_page_allows() {
        let step_s =
            |seconds: u64| Period::new(SECOND_NS, (seconds + 1) * SECOND_NS).map(|p| p.step_s);
        let of = [(1, 1), (240, 1), (241, 10), (86_400, 1800), (30 * 86_400, 21_600)];
        for (seconds, wanted) in of {
            assert_eq!(step_s(seconds).unwrap(), wanted, "{seconds} s");
        }
        assert_eq!(step_s(5 * 365 * 86_400).unwrap(), 43_200);
        assert!(matches!(step_s(6 * 365 * 86_400), Err(Trouble::Usage(_))));
        assert!(matches!(Period::new(5, 5), Err(Trouble::Usage(_))));
    }
}
