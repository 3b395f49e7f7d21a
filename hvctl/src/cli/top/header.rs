//! The lines above the tables: the daemon, what is wrong, sums, prices.

use super::known::Known;
use super::one::Line;
use super::sheet::Tone;
use super::state::State;
use crate::cli::amount::{credits, funds};
use crate::cli::book::ticks;
use crate::cli::status::duration;
use crate::cli::table::printable;
use vendue_wire::code::Resource;
use vendue_wire::message::*;

/// The lines, most important first.
pub fn lines(known: &Known, state: &State) -> Vec<Line> {
    let mut lines = vec![daemon(known, state)];
    lines.extend(away(state));
    lines.extend(fault(known));
    if let Some(status) = &known.status {
        lines.push((counts(known, status), Tone::Plain));
    }
    lines.push((sums(known), Tone::Plain));
    lines.push((prices(known), Tone::Plain));
    lines
}

fn daemon(known: &Known, state: &State) -> Line {
    let every = match state.paused {
        true => "PAUSED".to_owned(),
        false => format!("every {:?}", state.interval),
    };
    let Some(row) = &known.status else {
        return (format!("vendued at {}, {every}", printable(&state.endpoint)), Tone::Heading);
    };
    let host = match row.host {
        0 => "",
        1 => "DRY RUN, ",
        _ => "unknown host, ",
    };
    let accepting = if row.accepting == 1 { "" } else { "NOT ACCEPTING, " };
    let line = format!(
        "vendued: {accepting}{host}up {}, {every}, sequence {} ({} durable), at {}",
        duration(row.uptime_ms.get()),
        row.executed,
        row.durable,
        printable(&state.endpoint),
    );
    (line, if row.accepting == 1 { Tone::Heading } else { Tone::Bad })
}

fn away(state: &State) -> Option<Line> {
    let away = state.away.as_ref()?;
    let next = match away.again_in.as_secs_f32().ceil() as u64 {
        0 => "trying now".to_owned(),
        seconds => format!("next try in {seconds} s"),
    };
    let tries = away.tries;
    let line = format!("vendued is away, {next} ({tries} so far): {}", printable(&away.why));
    Some((line, Tone::Bad))
}

fn fault(known: &Known) -> Option<Line> {
    let first = known.faults.first()?;
    let others = match known.faults.len() {
        1 => String::new(),
        all => format!(" (and {} more: hvctl status)", all - 1),
    };
    let (source, what) = (printable(text(&first.source)), printable(text(&first.text)));
    Some((format!("fault: {source}: {what}{others}"), Tone::Bad))
}

fn counts(known: &Known, row: &StatusRow) -> String {
    // The daemon counts now and then; of what is not known yet it alone can tell.
    let of = |known: usize, counted: U32| match counted.get() as usize {
        all if all > known => format!("{known} of {all}"),
        _ => known.to_string(),
    };
    format!(
        "{} instances, {} accounts, {} orders, {} trades; limits: {} written, {} failed, {} drifted; \
         {} faults",
        of(known.instances.len(), row.instances),
        of(known.accounts.len(), row.accounts),
        row.orders,
        row.trades,
        row.limits_written,
        row.limits_failed,
        row.limits_drifted,
        row.faults,
    )
}

/// Sums over what is known.
fn sums(known: &Known) -> String {
    let sum = |of: fn(&AccountRow) -> U64| {
        known.accounts.iter().fold(0_u64, |sum, row| sum.saturating_add(of(row).get()))
    };
    let mut line = format!(
        "funds {} free, {} held; credits",
        funds(sum(|row| row.free_micro)),
        funds(sum(|row| row.held_micro)),
    );
    for &r in Resource::ALL {
        let of = |row: &InstanceRow| row.free_millicredits[r as usize].get();
        let free = known.instances.iter().fold(0_u64, |sum, row| sum.saturating_add(of(row)));
        if r == Resource::Cpu || free > 0 {
            line.push_str(&format!(" {r} {}", credits(free)));
        }
    }
    line
}

/// Best bid, best ask and last price of the books that have any.
fn prices(known: &Known) -> String {
    let priced = |row: &&BookRow| {
        [row.bid_ticks, row.ask_ticks, row.last_ticks].iter().any(|price| price.get() != 0)
    };
    let price = |row: &BookRow| {
        let [bid, ask, last] =
            [row.bid_ticks, row.ask_ticks, row.last_ticks].map(|price| ticks(price.get()));
        format!("{} {bid}/{ask} last {last}", known.book(row.book.get()))
    };
    let shown: Vec<_> = known.books.iter().filter(priced).map(price).collect();
    match shown.is_empty() {
        true => "bid/ask: no book has a price".to_owned(),
        false => format!("bid/ask: {}", shown.join(", ")),
    }
}
