//! `hvctl book`: the books, the depth of one, and a live view of either.

use super::amount::funds;
use super::door::{Door, Reach, Trouble};
use super::json;
use super::names::resource;
use super::output::Output;
use super::table::{Table, left, right};
use super::time::rfc3339;
use hvctl::json::phase_name;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;
use vendue_wire::board::{BoardReader, BookView, Level};
use vendue_wire::code::Phase;
use vendue_wire::message::*;

/// Between two drawings of the live view.
const REDRAW: Duration = Duration::from_millis(250);

/// Which book, and for how long.
#[derive(Debug, clap::Args)]
pub struct BookCommand {
    /// Book to show the depth of, by number; all books without their depth if left out
    book: Option<u16>,
    /// Keep showing, from shared memory, until Ctrl-C; one snapshot if this is no terminal
    #[arg(long)]
    watch: bool,
    /// With --watch: one snapshot, then end
    #[arg(long, requires = "watch")]
    once: bool,
}

/// Runs the command.
pub fn run(command: &BookCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let books = door.pages::<BookRow, _>(|from| QueryBooks { from: from.into() })?;
    let chosen: Vec<BookRow> = match command.book {
        None => books,
        Some(number) => books.into_iter().filter(|row| row.book.get() == number).collect(),
    };
    if let (Some(number), true) = (command.book, chosen.is_empty()) {
        return Err(Trouble::Refused(format!("no book {number}; see `hvctl book`")));
    }
    let depth = command.book.is_some();
    if !command.watch {
        let shown = Source::polling(&mut door, &chosen)?;
        return print(&shown, depth, out);
    }
    let board = match door.client.attach_board() {
        Ok(board) => Some(board),
        Err(vendue_wire::client::ClientError::Refused { .. }) => {
            eprintln!("hvctl: note: no shared memory on this transport; asking again and again");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let mut source = Source { board, shown: Vec::new() };
    let live = !command.once && !out.is_json() && std::io::stdout().is_terminal();
    source.refresh(&mut door, &chosen)?;
    if !live {
        return print(&source.shown, depth, out);
    }
    out.print(b"\x1b[2J")?;
    loop {
        out.print(redraw(&screen(&source.shown, depth)).as_bytes())?;
        // Waiting here keeps the session alive and notices when the daemon goes.
        door.client.recv(REDRAW)?;
        source.refresh(&mut door, &chosen)?;
    }
}

/// A book and what it holds.
type Shown = (BookRow, BookView);

/// Where views come from: the shared memory if there is some, or queries.
struct Source {
    board: Option<BoardReader>,
    shown: Vec<Shown>,
}

impl Source {
    /// Reads the books again. A book that the daemon is writing just now keeps its last view.
    fn refresh(&mut self, door: &mut Door, books: &[BookRow]) -> Result<(), Trouble> {
        let Some(board) = &self.board else {
            let fresh = door.pages::<BookRow, _>(|from| QueryBooks { from: from.into() })?;
            let chosen = |row: &&BookRow| books.iter().any(|book| book.book == row.book);
            let fresh: Vec<_> = fresh.iter().filter(chosen).copied().collect();
            self.shown = Source::polling(door, &fresh)?;
            return Ok(());
        };
        for (at, row) in books.iter().enumerate() {
            let view = board.read(row.book.get().into());
            match (view, self.shown.get_mut(at)) {
                (Some(view), Some(shown)) => shown.1 = view,
                (Some(view), None) => self.shown.push((*row, view)),
                (None, Some(_)) => {}
                (None, None) => {
                    let number = row.book.get();
                    let why = format!("book {number} cannot be read from shared memory just now");
                    return Err(Trouble::Refused(format!("{why}; see `hvctl status`")));
                }
            }
        }
        Ok(())
    }

    /// Asks the daemon for each book's depth.
    fn polling(door: &mut Door, books: &[BookRow]) -> Result<Vec<Shown>, Trouble> {
        let mut shown = Vec::new();
        for row in books {
            let depth =
                door.rows::<DepthRow>(&QueryDepth { book: row.book, reserved: 0.into() })?;
            let depth = depth.first().copied().unwrap_or(DepthRow::zeroed());
            shown.push((*row, json::view(row, &depth)));
        }
        Ok(shown)
    }
}

fn print(shown: &[Shown], depth: bool, out: &mut Output) -> Result<(), Trouble> {
    if out.is_json() {
        for row in shown {
            out.say(&json::book(&row.0, &row.1, depth), "")?;
        }
        return Ok(());
    }
    Ok(out.print(screen(shown, depth).as_bytes())?)
}

/// What one look shows.
fn screen(shown: &[Shown], depth: bool) -> String {
    if !depth {
        return tops(shown);
    }
    shown.iter().map(depth_screen).collect()
}

/// A price in ticks, or `-` for none.
pub fn ticks(price: u32) -> String {
    if price == 0 { "-".to_owned() } else { price.to_string() }
}

fn tops(shown: &[Shown]) -> String {
    let mut table = Table::new(&[
        right("BOOK"),
        left("TIER"),
        left("RESOURCE"),
        right("BID"),
        right("ASK"),
        right("LAST"),
        right("TRADES"),
        right("VOLUME"),
        right("TICK"),
        left("PHASE"),
    ]);
    for (row, view) in shown {
        table.row(vec![
            row.book.to_string(),
            text(&row.tier_name).to_owned(),
            resource(row.resource),
            ticks(view.bids[0].price_ticks),
            ticks(view.asks[0].price_ticks),
            ticks(view.last_ticks),
            view.trades.to_string(),
            view.volume.to_string(),
            funds(row.tick_micro.get()),
            phase_name(view.phase).to_owned(),
        ]);
    }
    table.take(true)
}

/// What the book does, if it does not trade continuously.
fn phase_line(view: &BookView) -> Option<String> {
    let phase = phase_name(view.phase);
    if view.phase == Phase::Continuous as u8 {
        return None;
    }
    if view.phase == Phase::Halted as u8 {
        return Some("halted: orders can only be cancelled".to_owned());
    }
    if view.indicative_ticks == 0 {
        return Some(format!("{phase}: nothing crosses"));
    }
    let BookView { indicative_ticks, indicative_volume, indicative_imbalance, .. } = view;
    let more = indicative_imbalance.unsigned_abs();
    let imbalance = match indicative_imbalance {
        1.. => format!("{more} more are wanted"),
        0 => "all that is wanted is offered".to_owned(),
        _ => format!("{more} more are offered"),
    };
    Some(format!("{phase}: {indicative_volume} credits at {indicative_ticks} now, {imbalance}"))
}

fn depth_screen((row, view): &Shown) -> String {
    let mut screen = String::new();
    let name = super::table::printable(text(&row.tier_name));
    let _ = writeln!(
        screen,
        "book {}: {name}/{}, last {}, {} trades, {} credits, a tick is {}",
        row.book,
        resource(row.resource),
        ticks(view.last_ticks),
        view.trades,
        view.volume,
        funds(row.tick_micro.get()),
    );
    if let Some(line) = phase_line(view) {
        let _ = writeln!(screen, "{line}");
    }
    if view.time_ns != 0 {
        let _ = writeln!(screen, "changed {} (sequence {})", rfc3339(view.time_ns), view.sequence);
    }
    let mut table = Table::new(&[right("CREDITS"), right("BID"), right("ASK"), right("CREDITS")]);
    for (bid, ask) in view.bids.iter().zip(&view.asks) {
        if bid.price_ticks == 0 && ask.price_ticks == 0 {
            break;
        }
        let quantity = |level: &Level| match level.price_ticks {
            0 => String::new(),
            _ => level.quantity.to_string(),
        };
        let price = |level: &Level| match level.price_ticks {
            0 => String::new(),
            price => price.to_string(),
        };
        table.row(vec![quantity(bid), price(bid), price(ask), quantity(ask)]);
    }
    screen + &table.take(true)
}

/// The text drawn over the last one: from the top, each line's rest and all below it cleared.
pub fn redraw(screen: &str) -> String {
    format!("\x1b[H{}\x1b[J", screen.replace('\n', "\x1b[K\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown() -> Shown {
        let row = BookRow {
            book: 3.into(),
            tick_micro: 10.into(),
            tier_name: field("gold").unwrap(),
            ..BookRow::zeroed()
        };
        let mut view = BookView { last_ticks: 41, trades: 2, volume: 9, ..BookView::default() };
        view.bids[0] = Level { price_ticks: 40, quantity: 5 };
        view.asks[0] = Level { price_ticks: 42, quantity: 1234 };
        view.asks[1] = Level { price_ticks: 43, quantity: 1 };
        (row, view)
    }

    #[test]
    fn depth_shows_the_two_sides_beside_each_other() {
        let expected = "\
book 3: gold/cpu, last 41, 2 trades, 9 credits, a tick is 0.000010
CREDITS  BID  ASK  CREDITS
      5   40   42     1234
               43        1
";
        assert_eq!(screen(&[shown()], true), expected);
    }

    #[test]
    fn a_call_says_what_its_auction_would_do() {
        let (row, view) = shown();
        let call = BookView {
            phase: Phase::Call as u8,
            indicative_ticks: 41,
            indicative_volume: 12,
            indicative_imbalance: -3,
            ..view
        };
        let screen = screen(&[(row, call)], true);
        let line = screen.lines().nth(1).unwrap();
        assert_eq!(line, "call: 12 credits at 41 now, 3 more are offered");
        assert_eq!(json::book(&row, &call, false)["indicative_imbalance_credits"], -3);
        let halted = BookView { phase: Phase::Halted as u8, ..view };
        assert_eq!(phase_line(&halted).unwrap(), "halted: orders can only be cancelled");
    }

    #[test]
    fn only_levels_in_use_are_told_as_json() {
        let object = {
            let (row, view) = shown();
            json::book(&row, &view, true)
        };
        assert_eq!(object["bids"], json!([{ "price_ticks": 40, "quantity_credits": 5 }]));
        assert_eq!(object["asks"].as_array().unwrap().len(), 2);
        assert_eq!((&object["bid_ticks"], &object["ask_ticks"]), (&json!(40), &json!(42)));
        let top = {
            let (row, view) = shown();
            json::book(&row, &view, false)
        };
        assert!(top.get("bids").is_none());
    }

    #[test]
    fn an_empty_book_has_no_prices() {
        let empty = (shown().0, BookView::default());
        let line = tops(&[empty]).lines().nth(1).unwrap().to_owned();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>()[3..6], ["-", "-", "-"]);
    }

    #[test]
    fn a_drawing_clears_what_it_does_not_cover() {
        assert_eq!(redraw("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
