//! `hvctl status`: the daemon on one screen, and whether it is well.

use super::door::{Reach, Trouble};
use super::output::Output;
use super::table::printable;
use super::time::rfc3339;
use serde_json::{Value, json};
use std::fmt::Write;
use vendue_wire::message::*;

/// Prints the daemon's state; [`Trouble::Unhealthy`] if it is not accepting or faults stand.
pub fn run(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut status = None;
    let mut faults = Vec::new();
    reach.reader()?.each(&QueryStatus {}, |received| {
        if let Some(row) = received.message::<StatusRow>() {
            status = Some(*row);
        } else if let Some(row) = received.message::<FaultRow>() {
            faults.push(*row);
        }
    })?;
    let Some(status) = status else {
        return Err(Trouble::Refused("the daemon did not say how it is".to_owned()));
    };
    out.say(&object(&status, &faults), screen(&status, &faults).trim_end())?;
    let well = status.accepting == 1 && status.faults.get() == 0 && faults.is_empty();
    if well { Ok(()) } else { Err(Trouble::Unhealthy) }
}

/// The host's kind as one word.
fn host_word(host: u8) -> &'static str {
    match host {
        0 => "cgroup-v2",
        1 => "dry-run",
        _ => "unknown",
    }
}

fn sync_word(sync: u8) -> &'static str {
    match sync {
        0 => "never",
        1 => "always",
        _ => "unknown",
    }
}

fn object(row: &StatusRow, faults: &[FaultRow]) -> Value {
    let fault = |row: &FaultRow| {
        json!({
            "since": rfc3339(row.since_ns.get()),
            "count": row.count.get(),
            "source": text(&row.source),
            "text": text(&row.text),
        })
    };
    json!({
        "accepting": row.accepting == 1,
        "sequenced": row.sequenced.get(),
        "durable": row.durable.get(),
        "executed": row.executed.get(),
        "snapshot": row.snapshot.get(),
        "trades": row.trades.get(),
        "limits_written": row.limits_written.get(),
        "limits_spared": row.limits_spared.get(),
        "limits_failed": row.limits_failed.get(),
        "limits_drifted": row.limits_drifted.get(),
        "uptime_ms": row.uptime_ms.get(),
        "refused": row.refused.get(),
        "accounts": row.accounts.get(),
        "instances": row.instances.get(),
        "orders": row.orders.get(),
        "connections": row.connections.get(),
        "host": host_word(row.host),
        "journal_sync": sync_word(row.journal_sync),
        "faults_standing": row.faults.get(),
        "faults": faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

fn screen(row: &StatusRow, faults: &[FaultRow]) -> String {
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
        ("faults", if row.faults.get() == 0 { "none".to_owned() } else { row.faults.to_string() }),
    ];
    let mut screen = String::new();
    for (heading, line) in lines {
        let _ = writeln!(screen, "{heading:<10}{line}");
    }
    for fault in faults {
        let since = rfc3339(fault.since_ns.get());
        let (source, what) = (printable(text(&fault.source)), printable(text(&fault.text)));
        let _ = writeln!(screen, "  {source}: {what} (since {since}, seen {} times)", fault.count);
    }
    screen
}

/// Milliseconds as days, hours, minutes and seconds, the two largest that are not zero.
fn duration(ms: u64) -> String {
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
        let screen = screen(&status(), &[fault()]);
        assert!(screen.contains("host      DRY RUN"), "{screen}");
        assert!(
            screen.contains("30 given, 20 durable, 25 executed, snapshot none yet"),
            "{screen}"
        );
        assert!(
            screen.contains("  actuate: cpu.max? vanished (since 1970-01-01T00:00:01"),
            "{screen}"
        );
        let object = object(&status(), &[fault()]);
        assert_eq!((&object["host"], &object["accepting"]), (&json!("dry-run"), &json!(true)));
        assert_eq!(object["faults"][0]["count"], 3);
    }

    #[test]
    fn a_daemon_that_refuses_says_so() {
        let row = StatusRow { accepting: 0, host: 0, journal_sync: 0, ..status() };
        let screen = screen(&row, &[]);
        assert!(screen.contains("NOT ACCEPTING") && !screen.contains("DRY RUN"), "{screen}");
        assert_eq!(object(&row, &[])["journal_sync"], "never");
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
