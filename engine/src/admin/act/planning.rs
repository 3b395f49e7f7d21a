//! Policies and forecasts.

use super::numbers;
use crate::admin::problem::Problem;
use crate::admin::route::{Route, one_of, post};
use crate::admin::words::Word;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use vendue_wire::client::Client;
use vendue_wire::code::*;
use vendue_wire::message::*;

/// The endpoints.
pub fn routes() -> Vec<Route> {
    vec![
        post(
            "/policy_set",
            "Have the engine bid for an instance within a budget",
            policy_schema(),
            policy_set,
        ),
        post("/policy_remove", "End a policy", removed_schema(), policy_remove),
        post(
            "/forecast_set",
            "Say what an instance will need",
            numbers(&["instance", "standing"]),
            forecast_set,
        ),
    ]
}

/// What the engine does for an instance by itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PolicySet {
    /// Instance.
    instance: u32,
    /// Resource.
    resource: Word<Resource>,
    /// Micro-units of funds that it may spend an hour.
    #[schemars(range(min = 1))]
    budget_micro: u64,
    /// What it may save up to spend at once; a tenth of the budget unless said otherwise.
    burst_micro: Option<u64>,
    /// The most that it pays to lease, ticks a VRU-second; 0: it does not lease.
    #[serde(default)]
    rent_ticks: u32,
    /// The most that it pays for a credit, ticks; 0: it buys none.
    #[serde(default)]
    price_ticks: u32,
    /// What of forecasts it covers.
    cover: Word<Cover>,
    /// Class of its lease.
    class: Word<LeaseClass>,
    /// It looks so far ahead.
    #[serde(default = "lead_ms")]
    lead_ms: u32,
    /// It gives nothing back so soon after a change.
    #[serde(default = "hold_ms")]
    hold_ms: u32,
    /// It changes its lease by so many VRUs at least.
    #[serde(default)]
    step_vru: u32,
}

fn lead_ms() -> u32 {
    60_000
}

fn hold_ms() -> u32 {
    10_000
}

fn policy_schema() -> Value {
    one_of(&[json!({ "instance": 1, "budget_micro": 1, "burst_micro": 1 })])
}

fn policy_set(client: &mut Client, asked: PolicySet) -> Result<Value, Problem> {
    let burst = asked.burst_micro.unwrap_or(asked.budget_micro / 10);
    if asked.budget_micro == 0 {
        let why = "a policy without a budget is none; see /policy_remove";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    let client_id = client.next_client_id().into();
    client.call(&SetPolicy {
        client_id,
        budget_micro: asked.budget_micro.into(),
        burst_micro: burst.into(),
        instance: asked.instance.into(),
        rent_ticks: asked.rent_ticks.into(),
        price_ticks: asked.price_ticks.into(),
        lead_ms: asked.lead_ms.into(),
        hold_ms: asked.hold_ms.into(),
        step_vru: asked.step_vru.into(),
        resource: asked.resource.0 as u8,
        class: asked.class.0 as u8,
        cover: asked.cover.0 as u8,
        reserved: [0; 5],
    })?;
    let (instance, budget) = (asked.instance, asked.budget_micro);
    Ok(json!({ "instance": instance, "budget_micro": budget, "burst_micro": burst }))
}

/// Which policy.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PolicyRemove {
    /// Instance.
    instance: u32,
    /// Resource.
    resource: Word<Resource>,
}

fn removed_schema() -> Value {
    one_of(&[json!({ "instance": 1, "removed": true })])
}

fn policy_remove(client: &mut Client, asked: PolicyRemove) -> Result<Value, Problem> {
    let message = SetPolicy {
        client_id: client.next_client_id().into(),
        instance: asked.instance.into(),
        resource: asked.resource.0 as u8,
        ..SetPolicy::zeroed()
    };
    let was = client.call(&message)?.value == 1;
    Ok(json!({ "instance": asked.instance, "removed": was }))
}

/// What an instance will need.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ForecastSet {
    /// Instance.
    instance: u32,
    /// Resource.
    resource: Word<Resource>,
    /// Who says so.
    source: Word<Source>,
    /// How far ahead.
    horizon: Word<Horizon>,
    /// It holds from so many milliseconds from now on.
    #[serde(default)]
    starts_in_ms: u32,
    /// And for so long; 0 takes it back.
    lasts_ms: u32,
    /// VRUs: as likely more as less.
    #[serde(default)]
    p50_vru: u32,
    /// VRUs that will do with 90%; the same unless said otherwise.
    p90_vru: Option<u32>,
    /// VRUs that will do with 97.5%; as with 90% unless said otherwise.
    p975_vru: Option<u32>,
}

fn forecast_set(client: &mut Client, asked: ForecastSet) -> Result<Value, Problem> {
    let p90 = asked.p90_vru.unwrap_or(asked.p50_vru);
    let message = SetForecast {
        client_id: client.next_client_id().into(),
        starts_in_ms: asked.starts_in_ms.into(),
        lasts_ms: asked.lasts_ms.into(),
        p50_vru: asked.p50_vru.into(),
        p90_vru: p90.into(),
        p975_vru: asked.p975_vru.unwrap_or(p90).into(),
        instance: asked.instance.into(),
        resource: asked.resource.0 as u8,
        source: asked.source.0 as u8,
        horizon: asked.horizon.0 as u8,
        reserved: [0; 5],
    };
    let standing = client.call(&message)?.value.get();
    Ok(json!({ "instance": asked.instance, "standing": standing }))
}
