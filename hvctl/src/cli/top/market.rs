//! The table of books, and the depth of one.

use super::known::Known;
use super::sheet::{Cell, Column, Entry, Tone, numbers, words};
use super::units::ticks;
use crate::cli::amount::decimal;
use hvctl::json::phase_name;
use vendue_wire::code::Phase;
use vendue_wire::message::*;

/// Columns.
pub const COLUMNS: [Column; 14] = [
    words("BOOK", 18),
    numbers("BID", 7),
    numbers("ASK", 7),
    numbers("LAST", 7),
    words("PHASE", 10),
    numbers("WANTED", 9),
    numbers("OFFERED", 9),
    numbers("DAY VWAP", 10),
    numbers("DAY VOLUME", 12),
    numbers("VOLUME", 10),
    numbers("TRADES", 8),
    numbers("TO LEASE", 9),
    numbers("LEASED", 8),
    words("RENTS", 14),
];

/// A row for each book.
pub fn entries(known: &Known) -> Vec<Entry> {
    let entry = |row: &BookRow| Entry {
        id: row.book.get().into(),
        instance: None,
        cells: cells(known, row),
    };
    known.books.iter().map(entry).collect()
}

fn cells(known: &Known, row: &BookRow) -> Vec<Cell> {
    let number = row.book.get();
    let market = known.markets.get(number);
    let rents = known.rents.get(number);
    let count = |of: Option<u64>| Cell::maybe(of, |count| count.to_string());
    let phase = Cell::text(phase_name(row.phase));
    let odd = row.phase != Phase::Continuous as u8;
    let average = market.map(|row| row.day_vwap_milliticks.get()).filter(|&price| price != 0);
    let rent = rents.map(|row| row.rent_ticks.map(|ticks| ticks.to_string()).join("/"));
    vec![
        Cell::text(known.book(number)),
        ticks(row.bid_ticks.get()),
        ticks(row.ask_ticks.get()),
        ticks(row.last_ticks.get()),
        phase.toned(if odd { Tone::Warning } else { Tone::Plain }),
        count(market.map(|row| row.bid_quantity.get())),
        count(market.map(|row| row.ask_quantity.get())),
        Cell::maybe(average, |milliticks| decimal(milliticks.into(), 3)),
        count(market.map(|row| row.day_volume.get())),
        Cell::number(row.volume.get(), row.volume.to_string()),
        Cell::number(row.trades.get(), row.trades.to_string()),
        count(rents.map(|row| row.supply_vru.get())),
        count(rents.map(|row| row.granted_vru.get())),
        Cell::text(rent.unwrap_or_else(|| "-".to_owned())),
    ]
}

/// The two sides of a book beside each other, best first.
pub fn depth(row: &DepthRow) -> Vec<String> {
    let side = |ticks: u32, quantity: u64| match ticks {
        0 => ["-".to_owned(), String::new()],
        ticks => [ticks.to_string(), quantity.to_string()],
    };
    let mut lines = vec![format!("{:>12} {:>8}   {:<8} {:<12}", "WANTED", "BID", "ASK", "OFFERED")];
    for level in 0..DEPTH_LEVELS {
        let [bid, wanted] = side(row.bid_ticks[level].get(), row.bid_quantity[level].get());
        let [ask, offered] = side(row.ask_ticks[level].get(), row.ask_quantity[level].get());
        if level == 0 || bid != "-" || ask != "-" {
            lines.push(format!("{wanted:>12} {bid:>8}   {ask:<8} {offered:<12}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_shows_the_levels_in_use_side_by_side() {
        let mut row = DepthRow::zeroed();
        assert_eq!(depth(&row).len(), 2);
        (row.bid_ticks[0], row.bid_quantity[0]) = (40.into(), 5.into());
        (row.ask_ticks[0], row.ask_quantity[0]) = (42.into(), 7.into());
        (row.ask_ticks[1], row.ask_quantity[1]) = (43.into(), 1.into());
        let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = depth(&row).iter().map(words).collect();
        assert_eq!(lines[1..], [vec!["5", "40", "42", "7"], vec!["-", "43", "1"]]);
    }
}
