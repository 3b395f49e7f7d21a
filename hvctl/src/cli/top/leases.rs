//! The table of leases.

use super::known::Known;
use super::sheet::{Cell, Column, Entry, Tone, numbers, words};
use crate::cli::amount::funds;
use crate::cli::time::rfc3339;
use vendue_wire::code::LeaseClass;
use vendue_wire::message::*;

/// Columns.
pub const COLUMNS: [Column; 10] = [
    words("INSTANCE", 16),
    words("BOOK", 18),
    words("CLASS", 11),
    numbers("WANTS", 7),
    numbers("HAS", 7),
    numbers("AT MOST", 8),
    numbers("COST/S", 10),
    numbers("PAID", 12),
    numbers("HELD", 12),
    words("EXPIRES", 20),
];

/// A row for each lease.
pub fn entries(known: &Known) -> Vec<Entry> {
    let entry = |row: &LeaseRow| Entry {
        id: row.handle.get(),
        instance: Some(row.instance.get()),
        cells: cells(known, row),
    };
    known.leases.iter().map(entry).collect()
}

fn cells(known: &Known, row: &LeaseRow) -> Vec<Cell> {
    let count = |of: U32| Cell::number(of.get(), of.to_string());
    let money = |micro: u64| Cell::number(micro, funds(micro));
    let waits = row.granted_vru.get() < row.wanted_vru.get();
    let expires = rfc3339(row.expires_at_ms.get().saturating_mul(1_000_000));
    vec![
        Cell::text(known.instance(row.instance.get())),
        Cell::text(known.book(row.book.get())),
        Cell::text(LeaseClass::text_of(row.class)),
        count(row.wanted_vru),
        count(row.granted_vru).toned(if waits { Tone::Warning } else { Tone::Plain }),
        count(row.rent_ticks),
        Cell::maybe(known.cost_micro(row), funds),
        money(row.paid_micro.get()),
        money(row.held_micro.get()),
        // To the second.
        Cell::text(expires.split('.').next().unwrap_or_default()),
    ]
}
