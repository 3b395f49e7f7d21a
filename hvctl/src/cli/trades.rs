//! `hvctl trades`: the newest trades, or the tape from one on. `hvctl reverse`: undoes one.

use super::door::{Reach, Trouble, Who};
use super::json;
use super::names::Directory;
use super::output::Output;
use super::table::{left, right};
use super::time::rfc3339;
use serde_json::json;
use vendue_wire::code::Side;
use vendue_wire::message::*;

/// Which trades. Tables show the parties by their present names, JSON by number.
#[derive(Debug, clap::Args)]
pub struct TradesCommand {
    /// Only this book's, by number
    #[arg(long)]
    book: Option<u16>,
    /// At most this many; the daemon may keep and answer fewer
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// From this trade's number on, all that the daemon's tape has; 0 for the oldest it keeps
    #[arg(long, value_name = "TRADE", conflicts_with = "limit")]
    from: Option<u64>,
}

/// Runs the command.
pub fn run(command: &TradesCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let book = command.book.unwrap_or(ANY_BOOK).into();
    let rows: Vec<TradeRow> = match command.from {
        Some(from) => door.client.ask_all(|next| QueryTape {
            from: from.max(next).into(),
            book,
            reserved: [0; 6],
        })?,
        None => {
            door.rows(&QueryTrades { limit: command.limit.into(), book, reserved: 0.into() })?
        }
    };
    let mut list = out.list(&[
        left("TIME"),
        right("TRADE"),
        left("BOOK"),
        left("SELLER"),
        left("BUYER"),
        right("CREDITS"),
        right("TICKS"),
        left("TAKER"),
        left("STATE"),
    ]);
    for row in rows {
        let taker_side = Side::from_u8(row.taker_side).map_or("auction", Side::text);
        list.object(&json::trade(&row))?;
        list.cells(vec![
            rfc3339(row.time_ns.get()),
            row.trade.to_string(),
            names.book(row.book.get()),
            names.instance(row.seller.get()),
            names.instance(row.buyer.get()),
            row.quantity.to_string(),
            row.price_ticks.to_string(),
            taker_side.to_owned(),
            if row.reversed == 1 { "reversed" } else { "" }.to_owned(),
        ]);
    }
    Ok(list.show()?)
}

/// Which trade to undo.
#[derive(Debug, clap::Args)]
pub struct ReverseCommand {
    /// Its number, as `hvctl trades` shows it; one of the newest machine.reversible_trades
    trade: u64,
}

/// Undoes a trade.
pub fn reverse(command: &ReverseCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let client_id = door.next_client_id().into();
    let trade = door.call(&ReverseTrade { client_id, trade: command.trade.into() })?.value.get();
    Ok(out.say(&json!({ "reversed": trade }), &format!("trade {trade} is reversed"))?)
}
