//! Orders.

use super::Handle;
use crate::admin::problem::Problem;
use crate::admin::route::{Route, one_of, post};
use crate::admin::words::Word;
use hvctl::json as show;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use vendue_wire::client::Client;
use vendue_wire::code::*;
use vendue_wire::message::*;

/// How long after an order is accepted its outcome counts as complete.
const QUIET: Duration = Duration::from_millis(20);

/// The endpoints.
pub fn routes() -> Vec<Route> {
    vec![
        post(
            "/order_place",
            "Enter an order; what comes of it at once",
            orders_schema(),
            order_place,
        ),
        post(
            "/order_cancel",
            "Cancel an open order",
            one_of(&[show::cancelled(&Cancelled::zeroed())]),
            order_cancel,
        ),
    ]
}

/// How long an order waits.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Lasting {
    /// Until it is cancelled.
    #[default]
    Gtc,
    /// What does not trade at once is cancelled.
    Ioc,
    /// It trades whole at once or not at all.
    Fok,
    /// Until `expires_at_ms`.
    Gtd,
}

/// An order.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OrderPlace {
    /// Instance whose credits are traded.
    instance: u32,
    /// Book.
    book: u16,
    /// Side.
    side: Word<Side>,
    /// Price in the book's ticks; of a market order the worst.
    price_ticks: u32,
    /// Credits.
    quantity_credits: u32,
    /// It trades at any price up to that; what finds nobody is cancelled.
    #[serde(default)]
    market: bool,
    /// How long it waits.
    #[serde(default)]
    lasting: Lasting,
    /// Milliseconds since 1970 UTC.
    #[serde(default)]
    expires_at_ms: u64,
    /// It is refused if it would trade at once.
    #[serde(default)]
    post_only: bool,
    /// When it meets its own account, the other order is cancelled and not this one.
    #[serde(default)]
    cancel_resting: bool,
}

fn orders_schema() -> Value {
    let all = [
        show::accepted(&Accepted::zeroed()),
        show::filled(&Filled::zeroed()),
        show::cancelled(&Cancelled::zeroed()),
    ];
    json!({ "type": "array", "items": { "anyOf": all.map(|one| one_of(&[one])) } })
}

fn order_place(client: &mut Client, asked: OrderPlace) -> Result<Value, Problem> {
    let (order_type, time_in_force) = match (asked.market, asked.lasting) {
        (true, _) => (OrderType::Market, TimeInForce::Ioc),
        (_, Lasting::Gtc) => (OrderType::Limit, TimeInForce::Gtc),
        (_, Lasting::Ioc) => (OrderType::Limit, TimeInForce::Ioc),
        (_, Lasting::Fok) => (OrderType::Limit, TimeInForce::Fok),
        (_, Lasting::Gtd) => (OrderType::Limit, TimeInForce::Gtd),
    };
    let client_id = client.next_client_id();
    let order = NewOrder {
        client_id: client_id.into(),
        expires_at_ms: asked.expires_at_ms.into(),
        instance: asked.instance.into(),
        price_ticks: asked.price_ticks.into(),
        quantity: asked.quantity_credits.into(),
        book: asked.book.into(),
        side: asked.side.0 as u8,
        order_type: order_type as u8,
        time_in_force: time_in_force as u8,
        post_only: asked.post_only.into(),
        self_trade: asked.cancel_resting.into(),
        reserved: 0,
    };
    let accepted: Accepted = client.call_for(&order)?;
    let mut events = vec![show::accepted(&accepted)];
    let quiet_at = Instant::now() + QUIET;
    loop {
        let left = quiet_at.saturating_duration_since(Instant::now());
        let Some(frame) = client.recv(left)? else { break };
        if let Some(filled) = frame.message::<Filled>().filter(|row| row.client_id == client_id) {
            events.push(show::filled(filled));
            if filled.remaining == 0 {
                break;
            }
        }
        if let Some(gone) = frame.message::<Cancelled>().filter(|row| row.client_id == client_id) {
            events.push(show::cancelled(gone));
            break;
        }
    }
    Ok(events.into())
}

/// An open order.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OrderCancel {
    /// Its handle.
    handle: Handle,
}

fn order_cancel(client: &mut Client, asked: OrderCancel) -> Result<Value, Problem> {
    let handle = asked.handle.number()?.into();
    let cancelled: Cancelled = client.call_for(&Cancel { handle })?;
    Ok(show::cancelled(&cancelled))
}
