//! One instance alone: what it has, how it fared, its limits and why they stand as they do, its
//! leases, objectives and orders.

use super::history::{History, Sample, bars};
use super::instances::{stands, state};
use super::known::Known;
use super::sheet::Tone;
use crate::cli::amount::{credits, funds, natural};
use crate::cli::limits;
use crate::cli::names::resource;
use crate::cli::table::{Column, Table, left, printable, right};
use hvctl::json::standing;
use vendue_wire::code::{Kpi, LeaseClass, Resource, Side};
use vendue_wire::message::*;

/// Characters before a line of bars.
const LABEL: usize = 26;

/// A line and how it is meant.
pub type Line = (String, Tone);

/// All lines about an instance, for a screen so wide.
pub fn lines(known: &Known, instance: u32, width: usize) -> Vec<Line> {
    let Some(row) = known.instances.get(instance) else {
        return vec![(format!("there is no instance {instance} (any more)"), Tone::Warning)];
    };
    let title = format!(
        "{} is instance {instance} of {}, tier {}; it {}",
        printable(text(&row.name)),
        known.account(row.account.get()),
        known.tier(row.tier.get()),
        match row.frozen {
            1 => "is frozen".to_owned(),
            _ => state(row).text,
        },
    );
    let mut lines = vec![(title, Tone::Heading)];
    if !text(&row.place).is_empty() {
        lines.push((format!("at {}", printable(text(&row.place))), Tone::Dim));
    }
    resources(known, row, &mut lines);
    usage(known.history(instance), width, &mut lines);
    limits_of(known, instance, &mut lines);
    leases(known, instance, &mut lines);
    objectives(known, instance, &mut lines);
    orders(known, instance, &mut lines);
    lines
}

/// Adds a heading and a table, or what is said where there are no rows.
fn section(
    name: &str,
    columns: &[Column],
    rows: Vec<(Vec<String>, Tone)>,
    none: &str,
    lines: &mut Vec<Line>,
) {
    lines.push((String::new(), Tone::Plain));
    if rows.is_empty() {
        lines.push((format!("{name}: {none}"), Tone::Dim));
        return;
    }
    lines.push((name.to_owned(), Tone::Heading));
    let mut table = Table::new(columns);
    let mut tones = vec![Tone::Dim];
    for (cells, tone) in rows {
        table.row(cells);
        tones.push(tone);
    }
    let text = table.take(true);
    lines.extend(text.lines().map(str::to_owned).zip(tones));
}

fn resources(known: &Known, row: &InstanceRow, lines: &mut Vec<Line>) {
    let tier = row.tier.get();
    let mut rows = Vec::new();
    for r in 0..row.baseline_vru.len() {
        let Some(size) = known.vru_size(tier, r as u8) else { continue };
        let amount = |vru: U32| natural(Resource::from_u8(r as u8), vru.get().into(), size);
        let cells = vec![
            resource(r as u8),
            amount(row.baseline_vru[r]),
            amount(row.entitled_vru[r]),
            if row.bursting >> r & 1 == 1 { "yes" } else { "no" }.to_owned(),
            credits(row.free_millicredits[r].get()),
            credits(row.held_millicredits[r].get()),
        ];
        rows.push((cells, Tone::Plain));
    }
    let columns = [
        left("RESOURCE"),
        right("RESERVED"),
        right("MAY USE"),
        left("BURSTS"),
        right("CREDITS FREE"),
        right("HELD"),
    ];
    section("resources", &columns, rows, "its tier is not known", lines);
}

/// What a line of bars is about: its label, its value, what the highest bar is at least, the unit.
type Series = (&'static str, fn(&Sample) -> Option<u32>, u32, &'static str);

const SERIES: [Series; 5] = [
    ("CPU", |sample| sample.cpu_millicores, 1, "m"),
    ("memory", |sample| sample.memory_mib, 1, " MiB"),
    ("CPU PSI", |sample| sample.waited_permille[0], 1000, ""),
    ("memory PSI", |sample| sample.waited_permille[1], 1000, ""),
    ("I/O PSI", |sample| sample.waited_permille[2], 1000, ""),
];

fn usage(history: Option<&History>, width: usize, lines: &mut Vec<Line>) {
    lines.push((String::new(), Tone::Plain));
    let Some(history) = history else {
        lines.push(("usage: it is not measured".to_owned(), Tone::Dim));
        return;
    };
    lines.push(("usage, the newest on the right".to_owned(), Tone::Heading));
    for (label, of, full, unit) in SERIES {
        let series = history.series(of);
        let now = match series.last().copied().flatten() {
            None => "-".to_owned(),
            Some(permille) if full == 1000 => super::units::percent(permille),
            Some(value) => format!("{value}{unit}"),
        };
        let bars = bars(&series, full, width.saturating_sub(LABEL));
        lines.push((format!("{label:<11}{now:>13}  {bars}"), Tone::Plain));
    }
}

fn limits_of(known: &Known, instance: u32, lines: &mut Vec<Line>) {
    let row = |row: &LimitRow| {
        let tone = match (stands(row), row.state) {
            (true, _) => Tone::Plain,
            (_, 0) => Tone::Warning,
            _ => Tone::Bad,
        };
        (limits::cells(row).to_vec(), tone)
    };
    let rows = known.limits.get(instance).map(|rows| rows.iter().map(row).collect());
    section("limits", &limits::columns(), rows.unwrap_or_default(), "none yet", lines);
}

fn leases(known: &Known, instance: u32, lines: &mut Vec<Line>) {
    let row = |row: &LeaseRow| {
        let cells = vec![
            known.book(row.book.get()),
            LeaseClass::text_of(row.class).to_owned(),
            row.wanted_vru.to_string(),
            row.granted_vru.to_string(),
            row.rent_ticks.to_string(),
            known.cost_micro(row).map_or_else(|| "-".to_owned(), funds),
            funds(row.paid_micro.get()),
        ];
        let waits = row.granted_vru.get() < row.wanted_vru.get();
        (cells, if waits { Tone::Warning } else { Tone::Plain })
    };
    let of_it = known.leases.iter().filter(|row| row.instance.get() == instance);
    let columns = [
        left("BOOK"),
        left("CLASS"),
        right("WANTS"),
        right("HAS"),
        right("AT MOST"),
        right("COST/S"),
        right("PAID"),
    ];
    section("leases", &columns, of_it.map(row).collect(), "none", lines);
}

fn objectives(known: &Known, instance: u32, lines: &mut Vec<Line>) {
    let row = |row: &ObjectiveRow| {
        let (sign, told) = (if row.below == 1 { "<=" } else { ">=" }, row.told_at_ms.get() > 0);
        let cells = vec![
            Kpi::text_of(row.kpi).to_owned(),
            if told { row.value.to_string() } else { "-".to_owned() },
            format!("{sign} {}", row.breach_at),
            standing(row).to_owned(),
            resource(row.resource),
            row.wanted_vru.to_string(),
            row.granted_vru.to_string(),
            funds(row.spent_micro.get()),
            funds(row.budget_micro.get()),
        ];
        let breached = row.breached_since_ms.get() > 0;
        (cells, if breached { Tone::Bad } else { Tone::Plain })
    };
    let of_it = known.objectives.iter().filter(|row| row.instance.get() == instance);
    let columns = [
        left("KPI"),
        right("VALUE"),
        right("BREACH"),
        left("STANDING"),
        left("RESOURCE"),
        right("WANTS"),
        right("HAS"),
        right("SPENT"),
        right("BUDGET"),
    ];
    section("objectives", &columns, of_it.map(row).collect(), "none", lines);
}

fn orders(known: &Known, instance: u32, lines: &mut Vec<Line>) {
    let (of, rows) = &known.orders;
    let row = |row: &OrderRow| {
        let cells = vec![
            row.handle.to_string(),
            known.book(row.book.get()),
            Side::text_of(row.side).to_owned(),
            row.price_ticks.to_string(),
            row.quantity.to_string(),
        ];
        (cells, Tone::Plain)
    };
    let rows = rows.iter().filter(|_| *of == instance).map(row).collect();
    let columns =
        [right("ORDER"), left("BOOK"), left("SIDE"), right("PRICE"), right("CREDITS OPEN")];
    section("orders", &columns, rows, "none", lines);
}
