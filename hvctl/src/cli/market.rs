//! `hvctl market`: what each book's market comes to, and its bars.

use super::amount::decimal;
use super::book::{redraw, ticks};
use super::door::{Door, Reach, Trouble};
use super::json;
use super::names::Directory;
use super::output::Output;
use super::table::{Table, left, right};
use super::time::{parse_ms, rfc3339};
use std::io::IsTerminal;
use std::time::Duration;
use vendue_wire::message::*;

/// Between two drawings of the live view.
const REDRAW: Duration = Duration::from_secs(1);
/// Decimals of an average price in ticks.
const TICK_DECIMALS: u32 = 3;

/// Which book, and what of it. Averages are weighted by quantity; a day is the last 24 hours.
#[derive(Debug, clap::Args)]
pub struct MarketCommand {
    /// Only this book, by number
    book: Option<u16>,
    /// The book's bars of this width instead: 1s, 1m or 1h. The daemon keeps 600, 1440 and 720
    #[arg(long, value_name = "WIDTH", requires = "book", value_parser = parse_width)]
    bars: Option<u32>,
    /// Only bars from this time on, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", requires = "bars", value_parser = parse_ms)]
    since: Option<u64>,
    /// Keep showing, until Ctrl-C; once if this is no terminal
    #[arg(long, conflicts_with = "bars")]
    watch: bool,
}

fn parse_width(text: &str) -> Result<u32, String> {
    let names = ["1s", "1m", "1h"];
    let at = names.iter().position(|name| *name == text);
    at.map(|at| BAR_WIDTHS_S[at]).ok_or_else(|| format!("give one of {}", names.join(", ")))
}

/// Runs the command.
pub fn run(command: &MarketCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    if let (Some(book), Some(width_s)) = (command.book, command.bars) {
        let from_ns = command.since.unwrap_or(0).saturating_mul(1_000_000);
        return bars(&mut door, book, width_s, from_ns, out);
    }
    let names = Directory::read(&mut door)?;
    let mut rows = read(&mut door, command.book)?;
    if let (Some(number), true) = (command.book, rows.is_empty()) {
        return Err(Trouble::Refused(format!("no book {number}; see `hvctl book`")));
    }
    let live = command.watch && !out.is_json() && std::io::stdout().is_terminal();
    if !live {
        return show(&rows, &names, out);
    }
    out.print(b"\x1b[2J")?;
    loop {
        out.print(redraw(&table(&rows, &names)).as_bytes())?;
        // Waiting here keeps the session alive and notices when the daemon goes.
        door.client.recv(REDRAW)?;
        rows = read(&mut door, command.book)?;
    }
}

fn read(door: &mut Door, book: Option<u16>) -> Result<Vec<MarketRow>, Trouble> {
    let rows = door.pages::<MarketRow, _>(|from| QueryMarket { from: from.into() })?;
    let chosen = |row: &MarketRow| book.is_none_or(|number| row.book.get() == number);
    Ok(rows.into_iter().filter(chosen).collect())
}

fn show(rows: &[MarketRow], names: &Directory, out: &mut Output) -> Result<(), Trouble> {
    if !out.is_json() {
        return Ok(out.print(table(rows, names).as_bytes())?);
    }
    for row in rows {
        out.say(&json::market(row), "")?;
    }
    Ok(())
}

/// An average price, or `-` for none.
fn average(milliticks: U32) -> String {
    match milliticks.get() {
        0 => "-".to_owned(),
        price => decimal(price.into(), TICK_DECIMALS),
    }
}

fn table(rows: &[MarketRow], names: &Directory) -> String {
    let mut table = Table::new(&[
        right("BOOK"),
        left("MARKET"),
        right("LAST"),
        right("BID"),
        right("ASK"),
        right("AVG BID"),
        right("AVG ASK"),
        right("WANTED"),
        right("OFFERED"),
        right("DAY VWAP"),
        right("DAY VOLUME"),
        right("VWAP"),
        right("VOLUME"),
        right("TRADES"),
    ]);
    for row in rows {
        table.row(vec![
            row.book.to_string(),
            names.book(row.book.get()),
            ticks(row.last_ticks.get()),
            ticks(row.bid_ticks.get()),
            ticks(row.ask_ticks.get()),
            average(row.average_bid_milliticks),
            average(row.average_ask_milliticks),
            row.bid_quantity.to_string(),
            row.ask_quantity.to_string(),
            average(row.day_vwap_milliticks),
            row.day_volume.to_string(),
            average(row.vwap_milliticks),
            row.volume.to_string(),
            row.trades.to_string(),
        ]);
    }
    table.take(true)
}

fn bars(
    door: &mut Door,
    book: u16,
    width_s: u32,
    from_ns: u64,
    out: &mut Output,
) -> Result<(), Trouble> {
    let query = |next: u64| QueryBars {
        from_ns: from_ns.max(next).into(),
        width_s: width_s.into(),
        book: book.into(),
        reserved: 0.into(),
    };
    let mut list = out.list(&[
        left("FROM"),
        right("OPEN"),
        right("HIGH"),
        right("LOW"),
        right("CLOSE"),
        right("VWAP"),
        right("CREDITS"),
        right("TRADES"),
    ]);
    for row in door.client.ask_all::<BarRow, _>(query)? {
        list.object(&json::bar(book, &row))?;
        list.cells(vec![
            rfc3339(row.start_ns.get()),
            row.open_ticks.to_string(),
            row.high_ticks.to_string(),
            row.low_ticks.to_string(),
            row.close_ticks.to_string(),
            average(row.vwap_milliticks),
            row.volume.to_string(),
            row.trades.to_string(),
        ]);
    }
    Ok(list.show()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_shown_in_ticks() {
        let row = MarketRow {
            average_bid_milliticks: 10_250.into(),
            vwap_milliticks: 7.into(),
            ..MarketRow::zeroed()
        };
        let shown = table(&[row], &Directory::default());
        let cells: Vec<_> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        let expected =
            ["0", "0", "-", "-", "-", "10.250", "-", "0", "0", "-", "0", "0.007", "0", "0"];
        assert_eq!(cells, expected);
        assert_eq!(json::market(&row)["average_bid_milliticks"], 10_250);
    }

    #[test]
    fn a_width_is_one_of_three() {
        assert_eq!(["1s", "1m", "1h"].map(parse_width), [Ok(1), Ok(60), Ok(3600)]);
        assert!(parse_width("5m").unwrap_err().contains("1m"));
    }
}
