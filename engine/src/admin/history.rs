//! The endpoint that tells what was used beside what had been foreseen.

use super::problem::Problem;
use super::read::array;
use super::route::{Route, get, list_of};
use super::words::Word;
use hvctl::json::history as show;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use vendue_wire::client::Client;
use vendue_wire::code::Resource;
use vendue_wire::message::*;

/// The endpoint.
pub fn routes() -> Vec<Route> {
    let answer = list_of(show::history);
    vec![get(
        "/history",
        "What an instance used, and what had been foreseen of it",
        answer,
        history,
    )]
}

/// Which part of whose.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct History {
    /// Instance.
    instance: u32,
    /// Resource.
    resource: Word<Resource>,
    /// Seconds of a row: 1, 60 or 3600.
    #[serde(default = "minute")]
    width_s: u16,
    /// From the first row on that begins at this moment or later, milliseconds since 1970 UTC.
    #[serde(default)]
    from_ms: u64,
}

fn minute() -> u16 {
    60
}

fn history(client: &mut Client, asked: History) -> Result<Value, Problem> {
    let from_ns = asked.from_ms.saturating_mul(1_000_000);
    let rows: Vec<HistoryRow> = client.ask_all(|next| QueryHistory {
        from_ns: from_ns.max(next).into(),
        instance: asked.instance.into(),
        width_s: asked.width_s.into(),
        resource: asked.resource.0 as u8,
        reserved: 0,
    })?;
    Ok(array(&rows, show::history))
}
