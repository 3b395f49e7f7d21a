//! Swaps of tokens: asked for, approved, rejected.

use super::numbers;
use crate::admin::problem::Problem;
use crate::admin::route::{Route, one_of, post};
use crate::admin::words::{Word, short};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use vendue_wire::client::Client;
use vendue_wire::code::SwapAnswer;
use vendue_wire::message::*;

/// A request waits for approval so long where nobody says how long.
const WAIT_MS: u64 = 3_600_000;

/// The endpoints.
pub fn routes() -> Vec<Route> {
    vec![
        post(
            "/swap_request",
            "Ask for VRUs of a token for another, for a time",
            numbers(&["id"]),
            swap_request,
        ),
        post(
            "/swap_approve",
            "Approve a swap, which begins at once",
            numbers(&["id", "generation"]),
            swap_approve,
        ),
        post(
            "/swap_reject",
            "Reject a swap, or take it back",
            numbers(&["id", "freed_micro"]),
            swap_reject,
        ),
        post(
            "/swap_policy_set",
            "Say what an account thinks of swaps of its tokens",
            one_of(&[json!({ "account": 1, "answer": "ask", "seek": true })]),
            swap_policy_set,
        ),
    ]
}

/// VRUs of one token for another.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Request {
    /// Id of the token whose VRUs are lent; the daemon picks one where none is named.
    source: Option<u64>,
    /// Its generation that was seen; needed of a token that the caller may not see.
    source_generation: Option<u32>,
    /// Id of the token that has them meanwhile.
    destination: u64,
    /// Its generation that was seen.
    destination_generation: Option<u32>,
    /// VRUs, fewer than the source has.
    vru: u32,
    /// For so long from its approval on; 1000 at least.
    lasts_ms: u32,
    /// Approved by then, milliseconds since 1970 UTC, or it expires; an hour from now unless said otherwise.
    deadline_ms: Option<u64>,
    /// Micro-units of funds for the source's account.
    #[serde(default)]
    incentive_micro: u64,
    /// VRUs that the destination lends the source afterwards.
    #[serde(default)]
    boost_vru: u32,
    /// For so long.
    #[serde(default)]
    boost_ms: u32,
}

fn swap_request(client: &mut Client, asked: Request) -> Result<Value, Problem> {
    let (source, source_generation) = match (asked.source, asked.source_generation) {
        (None, _) => (0, 0),
        (Some(source), seen) => (source, generation(client, source, seen)?),
    };
    let seen = generation(client, asked.destination, asked.destination_generation)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let message = SwapRequest {
        client_id: client.next_client_id().into(),
        source: source.into(),
        destination: asked.destination.into(),
        deadline_ms: asked.deadline_ms.unwrap_or(now + WAIT_MS).into(),
        incentive_micro: asked.incentive_micro.into(),
        source_generation: source_generation.into(),
        destination_generation: seen.into(),
        vru: asked.vru.into(),
        lasts_ms: asked.lasts_ms.into(),
        boost_vru: asked.boost_vru.into(),
        boost_ms: asked.boost_ms.into(),
    };
    Ok(json!({ "id": client.call(&message)?.value.get() }))
}

/// The generation that was seen, or that is.
fn generation(client: &mut Client, token: u64, seen: Option<u32>) -> Result<u32, Problem> {
    if let Some(seen) = seen {
        return Ok(seen);
    }
    let rows: Vec<TokenRow> = client.ask(&QueryTokens { from: token.into() })?;
    let row = rows.iter().find(|row| row.id == token);
    let absent =
        || Problem::absent(format!("no token {token} that you may see; give its generation"));
    row.map(|row| row.generation.get()).ok_or_else(absent)
}

/// A swap.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Approve {
    /// The swap.
    id: u64,
}

fn swap_approve(client: &mut Client, asked: Approve) -> Result<Value, Problem> {
    let client_id = client.next_client_id().into();
    let generation = client.call(&SwapApprove { client_id, id: asked.id.into() })?.value.get();
    Ok(json!({ "id": asked.id, "generation": generation }))
}

/// A swap that is not to be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reject {
    /// The swap.
    id: u64,
    /// Why; 32 bytes at most.
    #[serde(default)]
    words: String,
}

fn swap_reject(client: &mut Client, asked: Reject) -> Result<Value, Problem> {
    let words = short(&asked.words, "words")?;
    let client_id = client.next_client_id().into();
    let message = SwapReject { client_id, id: asked.id.into(), words };
    Ok(json!({ "id": asked.id, "freed_micro": client.call(&message)?.value.get() }))
}

/// What an account thinks of swaps.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Policy {
    /// Account.
    account: u32,
    /// What it answers by itself.
    answer: Word<SwapAnswer>,
    /// It lends for that much at least, micro-units a VRU-second.
    #[serde(default)]
    least_micro: u64,
    /// The daemon asks for swaps on its behalf.
    #[serde(default)]
    seek: bool,
    /// And may offer that much, micro-units a VRU-second.
    #[serde(default)]
    pay_micro: u64,
    /// Its workloads may stand still for so long; any time unless said otherwise.
    downtime_ms: Option<u32>,
    /// Their KPIs may be worse by so many percent.
    #[serde(default)]
    degradation_percent: u16,
}

fn swap_policy_set(client: &mut Client, asked: Policy) -> Result<Value, Problem> {
    let message = SetSwapPolicy {
        client_id: client.next_client_id().into(),
        least_micro: asked.least_micro.into(),
        pay_micro: asked.pay_micro.into(),
        account: asked.account.into(),
        downtime_ms: asked.downtime_ms.unwrap_or(u32::MAX).into(),
        degradation_percent: asked.degradation_percent.into(),
        answer: asked.answer.0 as u8,
        seek: asked.seek.into(),
        reserved: U32::ZERO,
    };
    client.call(&message)?;
    Ok(json!({ "account": asked.account, "answer": asked.answer.0.text(), "seek": asked.seek }))
}
