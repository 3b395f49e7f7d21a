//! The table of instances.

use super::known::Known;
use super::sheet::{Cell, Column, Entry, Tone, numbers, words};
use super::units::{bytes, waited};
use crate::cli::amount::{credits, funds};
use crate::cli::table::printable;
use hvctl::json::{narrow, wide};
use std::collections::BTreeMap;
use vendue_wire::code::{Lag, Resource};
use vendue_wire::message::*;

/// Columns.
pub const COLUMNS: [Column; 20] = [
    words("NAME", 16),
    words("ACCOUNT", 10),
    words("TIER", 8),
    words("STATE", 7),
    numbers("CPU", 7),
    numbers("MAY", 7),
    numbers("RESERVED", 9),
    numbers("CPU PSI", 8),
    numbers("MEM", 6),
    numbers("MEM MAY", 8),
    numbers("MEM PSI", 8),
    numbers("IO/S", 6),
    numbers("IO PSI", 7),
    numbers("NET/S", 6),
    numbers("CPU CREDITS", 13),
    numbers("LEASED", 7),
    numbers("RENT/S", 10),
    numbers("ORDERS", 7),
    numbers("BEHIND", 7),
    words("LIMITS", 24),
];
/// The column by which the table is sorted at first.
pub const CPU: usize = 4;

/// States of a [`LimitRow`].
const IN_FORCE: u8 = 1;
const DRY_RUN: u8 = 5;

/// What an instance leases: processors in millicores, and what all its leases cost, micro-units a second.
#[derive(Clone, Copy, Debug, Default)]
struct Leased {
    cpu_millicores: u64,
    cost_micro: u64,
}

/// A row for each instance.
pub fn entries(known: &Known) -> Vec<Entry> {
    let mut leased = BTreeMap::<u32, Leased>::new();
    for lease in known.leases.iter() {
        let sum = leased.entry(lease.instance.get()).or_default();
        sum.cost_micro = sum.cost_micro.saturating_add(known.cost_micro(lease).unwrap_or(0));
        let book = known.books.get(lease.book.get());
        if let Some(book) = book.filter(|book| book.resource == Resource::Cpu as u8) {
            let size = known.vru_size(book.tier.get(), book.resource).unwrap_or(0);
            let millicores = u64::from(lease.granted_vru.get()).saturating_mul(size);
            sum.cpu_millicores = sum.cpu_millicores.saturating_add(millicores);
        }
    }
    let entry = |row: &InstanceRow| Entry {
        id: row.instance.get().into(),
        instance: Some(row.instance.get()),
        cells: cells(known, row, leased.get(&row.instance.get()).copied()),
    };
    known.instances.iter().map(entry).collect()
}

fn cells(known: &Known, row: &InstanceRow, leased: Option<Leased>) -> Vec<Cell> {
    let number = row.instance.get();
    let sensors = known.sensors.get(number);
    let sensed = |of: fn(&SensorRow) -> U32| sensors.and_then(|row| narrow(of(row)));
    let size = |r: Resource| known.vru_size(row.tier.get(), r as u8);
    let amount = |vru: U32, r| size(r).map(|size| u64::from(vru.get()).saturating_mul(size));
    let cpu = |vru: U32| Cell::maybe(amount(vru, Resource::Cpu), millicores);
    let sum = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.saturating_add(b));
    let io = sum(
        sensors.and_then(|row| wide(row.read_bytes_per_s)),
        sensors.and_then(|row| wide(row.write_bytes_per_s)),
    );
    let credit = row.free_millicredits[Resource::Cpu as usize].get();
    let (behind, limits) = limits(known.limits.get(number).map(Vec::as_slice));
    vec![
        Cell::text(printable(text(&row.name))),
        Cell::text(known.account(row.account.get())),
        Cell::text(known.tier(row.tier.get())),
        state(row),
        Cell::maybe(sensed(|row| row.cpu_millicores).map(u64::from), millicores),
        cpu(row.entitled_vru[Resource::Cpu as usize]),
        cpu(row.baseline_vru[Resource::Cpu as usize]),
        waited(sensed(|row| row.cpu_wait_permille)),
        Cell::maybe(sensors.and_then(|row| wide(row.memory_bytes)), bytes),
        Cell::maybe(amount(row.entitled_vru[Resource::Memory as usize], Resource::Memory), bytes),
        waited(sensed(|row| row.memory_some_permille)),
        Cell::maybe(io, bytes),
        waited(sensed(|row| row.io_some_permille)),
        Cell::maybe(sensors.and_then(|row| wide(row.network_bytes_per_s)), bytes),
        Cell::number(credit, credits(credit)),
        Cell::maybe(leased.map(|sum| sum.cpu_millicores), millicores),
        Cell::maybe(leased.map(|sum| sum.cost_micro), funds),
        Cell::number(row.orders.get(), row.orders.to_string()),
        behind,
        limits,
    ]
}

fn millicores(millicores: u64) -> String {
    format!("{millicores}m")
}

/// Whether it runs, and above its baseline.
pub fn state(row: &InstanceRow) -> Cell {
    match (row.frozen, row.bursting) {
        (1, _) => Cell::text("frozen").toned(Tone::Warning),
        (_, 0) => Cell::text("runs"),
        _ => Cell::text("bursts").toned(Tone::Good),
    }
}

/// Whether a limit stands as wanted.
pub fn stands(row: &LimitRow) -> bool {
    matches!(row.state, IN_FORCE | DRY_RUN)
}

/// How many limits are not as wanted, and how they stand, in words.
fn limits(rows: Option<&[LimitRow]>) -> (Cell, Cell) {
    let behind: Vec<_> = rows.unwrap_or_default().iter().filter(|row| !stands(row)).collect();
    let words = match (rows, behind.first()) {
        (None, _) => return (Cell::maybe(None::<u64>, |_| String::new()), Cell::text("-")),
        (_, Some(row)) => {
            let why = Lag::from_u8(row.reason).map_or("pending", Lag::text);
            Cell::text(format!("{}: {why}", printable(text(&row.file))))
        }
        (Some(rows), None) if rows.iter().any(|row| row.state == DRY_RUN) => Cell::text("dry run"),
        _ => Cell::text("in force"),
    };
    let refused = |row: &&LimitRow| row.state != 0;
    let tone = match behind.len() {
        0 => Tone::Plain,
        _ if behind.iter().any(refused) => Tone::Bad,
        _ => Tone::Warning,
    };
    let count = Cell::number(behind.len() as u64, behind.len().to_string());
    (count.toned(tone), words.toned(tone))
}
