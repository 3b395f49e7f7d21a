//! `hvctl status`: the daemon on one screen, and whether it is well.

use super::door::{Door, Reach, Trouble};
use super::json;
use super::names::{instances, name_or_number};
use super::output::Output;
use super::table::printable;
use super::time::rfc3339;
use hvctl::json::is_breached;
use std::collections::BTreeSet;
use std::fmt::Write;
use vendue_wire::message::*;

/// Instances that the screen names at most.
const NAMED_MAX: usize = 8;

/// Prints the daemon's state; [`Trouble::Unhealthy`] if it is not accepting or faults stand. That an
/// instance is in breach of its objective is told, and no fault of the daemon's.
pub fn run(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut status = None;
    let mut faults = Vec::new();
    let mut door = reach.reader()?;
    door.each(&QueryStatus {}, |received| {
        if let Some(row) = received.message::<StatusRow>() {
            status = Some(*row);
        } else if let Some(row) = received.message::<FaultRow>() {
            faults.push(*row);
        }
    })?;
    let Some(status) = status else {
        return Err(Trouble::Refused("the daemon did not say how it is".to_owned()));
    };
    // One that does not accept requests may not answer this either.
    let breached = if status.accepting == 1 { breached(&mut door)? } else { Vec::new() };
    let object = json::status(&status, &faults, &breached);
    out.say(&object, screen(&status, &faults, &breached).trim_end())?;
    let well = status.accepting == 1 && status.faults.get() == 0 && faults.is_empty();
    if well { Ok(()) } else { Err(Trouble::Unhealthy) }
}

/// Names of the instances that are in breach of an objective.
fn breached(door: &mut Door) -> Result<Vec<String>, Trouble> {
    let rows = door.pages::<ObjectiveRow, _>(|from| QueryObjectives { from: from.into() })?;
    let breached = rows.iter().filter(|row| is_breached(row)).map(|row| row.instance.get());
    let breached: BTreeSet<u32> = breached.collect();
    if breached.is_empty() {
        return Ok(Vec::new());
    }
    let known = instances(door)?;
    let name = |number: &u32| {
        let found = known.iter().find(|row| row.instance.get() == *number);
        name_or_number(found.map(|row| &row.name), *number)
    };
    Ok(breached.iter().map(name).collect())
}

/// How many there are and the names of the first.
fn named(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len() {
        0 => "none in breach".to_owned(),
        count @ ..=NAMED_MAX => format!("{count} in breach: {shown}"),
        count => format!("{count} in breach: {shown} and {} more", count - NAMED_MAX),
    }
}

fn screen(row: &StatusRow, faults: &[FaultRow], breached: &[String]) -> String {
    let accepting = match row.accepting {
        1 => "accepting requests",
        _ => "NOT ACCEPTING: requests that change state are refused",
    };
    let host = match row.host {
        0 => "cgroup v2",
        1 => "DRY RUN: no limit reaches the kernel",
        _ => "of a kind this hvctl does not know",
    };
    let sync = match row.journal_sync {
        0 => "never synced: what was acknowledged can be lost with the machine",
        1 => "synced before anything is acknowledged",
        _ => "of a kind this hvctl does not know",
    };
    let snapshot = match row.snapshot.get() {
        0 => "none yet".to_owned(),
        sequence => format!("at {sequence}"),
    };
    let lines = [
        ("vendued", format!("{accepting}, up {}", duration(row.uptime_ms.get()))),
        ("host", host.to_owned()),
        ("journal", sync.to_owned()),
        (
            "sequence",
            format!(
                "{} given, {} durable, {} executed, snapshot {snapshot}",
                row.sequenced, row.durable, row.executed,
            ),
        ),
        (
            "tenants",
            format!(
                "{} accounts, {} instances, {} open orders, {} trades",
                row.accounts, row.instances, row.orders, row.trades,
            ),
        ),
        (
            "sessions",
            format!(
                "{} connections, {} requests refused at the door",
                row.connections, row.refused
            ),
        ),
        (
            "limits",
            format!(
                "{} written, {} spared, {} failed, {} drifted",
                row.limits_written, row.limits_spared, row.limits_failed, row.limits_drifted,
            ),
        ),
        ("pieces", format!("{}% of what is left to place instances on", row.fragmentation_percent)),
        ("objectives", named(breached)),
        ("faults", if row.faults.get() == 0 { "none".to_owned() } else { row.faults.to_string() }),
    ];
    let mut screen = String::new();
    for (heading, line) in lines {
        let _ = writeln!(screen, "{heading:<12}{line}");
    }
    for fault in faults {
        let since = rfc3339(fault.since_ns.get());
        let (source, what) = (printable(text(&fault.source)), printable(text(&fault.text)));
        let _ = writeln!(screen, "  {source}: {what} (since {since}, seen {} times)", fault.count);
    }
    screen
}

/// Milliseconds as days, hours, minutes and seconds, the two largest that are not zero.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let parts = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let first = parts.iter().position(|(size, _)| seconds >= *size).unwrap_or(parts.len() - 1);
    let mut rest = seconds;
    let shown = parts[first..].iter().take(2).map(|(size, unit)| {
        let count = rest / size;
        rest %= size;
        format!("{count} {unit}")
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status() -> StatusRow {
        StatusRow {
            accepting: 1,
            host: 1,
            journal_sync: 1,
            sequenced: 30.into(),
            durable: 20.into(),
            executed: 25.into(),
            faults: 1.into(),
            ..StatusRow::zeroed()
        }
    }

    fn fault() -> FaultRow {
        FaultRow {
            since_ns: 1_000_000_000.into(),
            count: 3.into(),
            source: field("actuate").unwrap(),
            text: field("cpu.max\x07 vanished").unwrap(),
        }
    }

    #[test]
    fn a_dry_run_and_its_faults_are_told_plainly() {
        let screen = screen(&status(), &[fault()], &[]);
        assert!(screen.contains("host        DRY RUN"), "{screen}");
        assert!(
            screen.contains("30 given, 20 durable, 25 executed, snapshot none yet"),
            "{screen}"
        );
        assert!(
            screen.contains("  actuate: cpu.max? vanished (since 1970-01-01T00:00:01"),
            "{screen}"
        );
        let object = json::status(&status(), &[fault()], &[]);
        assert_eq!((&object["host"], &object["accepting"]), (&json!("dry-run"), &json!(true)));
        assert_eq!(object["faults"][0]["count"], 3);
    }

    #[test]
    fn a_daemon_that_refuses_says_so() {
        let row = StatusRow { accepting: 0, host: 0, journal_sync: 0, ..status() };
        let screen = screen(&row, &[], &[]);
        assert!(screen.contains("NOT ACCEPTING") && !screen.contains("DRY RUN"), "{screen}");
        assert_eq!(json::status(&row, &[], &[])["journal_sync"], "never");
    }

    #[test]
    fn instances_in_breach_are_counted_and_the_first_of_them_named() {
        let names = |count| (0..count).map(|at| format!("i{at}")).collect::<Vec<_>>();
        let shown = |count| screen(&status(), &[], &names(count));
        assert!(shown(0).contains("objectives  none in breach\n"), "{}", shown(0));
        assert!(shown(2).contains("objectives  2 in breach: i0, i1\n"), "{}", shown(2));
        assert!(shown(8).contains("8 in breach: i0, i1, i2, i3, i4, i5, i6, i7\n"));
        assert!(shown(11).contains("11 in breach: i0, i1, i2, i3, i4, i5, i6, i7 and 3 more\n"));
        assert_eq!(json::status(&status(), &[], &names(11))["in_breach"][10], "i10", "all of them");
    }

    #[test]
    fn durations_name_their_two_largest_parts() {
        for (seconds, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (90_061, "1 d 1 h"),
        ] {
            assert_eq!(duration(seconds * 1000), shown);
        }
    }
}
