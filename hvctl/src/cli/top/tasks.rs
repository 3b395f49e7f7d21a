//! The table of tasks.

use super::known::Known;
use super::sheet::{Cell, Column, Entry, Tone, numbers, words};
use super::units::percent;
use crate::cli::amount::{credits, decimal, funds};
use crate::cli::names::resource;
use crate::cli::table::printable;
use hvctl::json::narrow;
use vendue_wire::message::*;

/// Columns.
pub const COLUMNS: [Column; 13] = [
    words("TASK", 16),
    words("ACCOUNT", 10),
    words("GROUP", 10),
    words("INSTANCE", 16),
    words("RESOURCE", 12),
    numbers("VRUS", 6),
    numbers("OF", 6),
    numbers("USED", 8),
    numbers("DONE", 7),
    numbers("COST/S", 10),
    numbers("COST", 12),
    numbers("MARGIN/S", 12),
    words("NOTE", 12),
];

/// A row for each task.
pub fn entries(known: &Known) -> Vec<Entry> {
    let entry = |row: &TaskRow| Entry {
        id: row.handle.get(),
        instance: Some(row.instance.get()).filter(|&instance| instance != ANY),
        cells: cells(known, row),
    };
    known.tasks.iter().map(entry).collect()
}

fn cells(known: &Known, row: &TaskRow) -> Vec<Cell> {
    let count = |of: U32| Cell::number(of.get(), of.to_string());
    let money = |micro: u64| Cell::number(micro, funds(micro));
    let margin = row.margin_micro.get() as i64;
    let (note, tone) = match (row.waits, row.inefficient) {
        (1, _) => ("waits", Tone::Warning),
        (_, 1) => ("inefficient", Tone::Warning),
        _ => ("", Tone::Plain),
    };
    vec![
        Cell::text(printable(text(&row.name))),
        Cell::text(known.account(row.account.get())),
        Cell::text(known.group(row.group.get())),
        Cell::text(known.instance(row.instance.get())),
        Cell::text(resource(row.resource)),
        count(row.vru),
        count(row.vru_max),
        Cell::maybe(narrow(row.used_millivru).map(u64::from), credits),
        Cell::number(row.progress_permille.get(), percent(row.progress_permille.get().into())),
        money(row.rate_micro.get()),
        money(row.paid_micro.get()),
        Cell::number(margin, decimal(margin.into(), 6)),
        Cell::text(note).toned(tone),
    ]
}
