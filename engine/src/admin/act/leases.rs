//! Leases and loans.

use super::{Handle, numbers};
use crate::admin::problem::Problem;
use crate::admin::route::{Route, one_of, post};
use crate::admin::words::Word;
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
            "/lease_bid",
            "Bid for VRUs above an instance's baseline",
            handle_and(&["instance", "granted_vru", "wanted_vru"]),
            lease_bid,
        ),
        post(
            "/lease_change",
            "Give a lease other terms",
            handle_and(&["wanted_vru", "rent_ticks"]),
            lease_change,
        ),
        post("/lease_end", "End a lease", handle_and(&["paid_micro"]), lease_end),
        post(
            "/lend",
            "Lend VRUs of a baseline, or take them back",
            numbers(&["instance", "lent_vru", "before_vru"]),
            lend,
        ),
    ]
}

/// Schema of an answer that holds a lease's handle, and numbers under these names.
fn handle_and(names: &[&str]) -> Value {
    let numbers = names.iter().map(|name| ((*name).to_owned(), json!(1)));
    let handle = ("handle".to_owned(), json!(""));
    one_of(&[Value::Object(numbers.chain([handle]).collect())])
}

/// A bid for a lease.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LeaseBid {
    /// Instance.
    instance: u32,
    /// Resource.
    resource: Word<Resource>,
    /// VRUs, or percent of the baseline.
    amount: u32,
    /// The amount is percent.
    #[serde(default)]
    percent: bool,
    /// The most that it pays, ticks a VRU-second.
    rent_ticks: u32,
    /// Class.
    class: Word<LeaseClass>,
    /// Nobody takes its VRUs for so long; 1000 to 60,000, 0: 1000.
    #[serde(default)]
    hold_ms: u32,
    /// All of it or nothing.
    #[serde(default)]
    all_or_none: bool,
    /// It ends by itself, milliseconds since 1970 UTC; 0: it does not.
    #[serde(default)]
    expires_at_ms: u64,
    /// Block I/O of this tier's storage instead of the instance's own.
    storage_tier: Option<u16>,
}

fn lease_bid(client: &mut Client, asked: LeaseBid) -> Result<Value, Problem> {
    let message = BidLease {
        client_id: client.next_client_id().into(),
        expires_at_ms: asked.expires_at_ms.into(),
        instance: asked.instance.into(),
        amount: asked.amount.into(),
        rent_ticks: asked.rent_ticks.into(),
        hold_ms: asked.hold_ms.into(),
        resource: asked.resource.0 as u8,
        class: asked.class.0 as u8,
        percent: asked.percent.into(),
        all_or_none: asked.all_or_none.into(),
        tier: asked.storage_tier.unwrap_or(0).into(),
        storage: asked.storage_tier.is_some().into(),
        reserved: 0,
    };
    let handle = client.call(&message)?.value.get();
    let rows: Vec<LeaseRow> = client
        .ask_all(|from| QueryLeases { from: u32::try_from(from).unwrap_or(u32::MAX).into() })?;
    let row = rows.iter().find(|row| row.handle == handle);
    let (granted, wanted) = row.map_or((0, 0), |row| (row.granted_vru.get(), row.wanted_vru.get()));
    Ok(json!({
        "handle": handle.to_string(), "instance": asked.instance, "granted_vru": granted,
        "wanted_vru": wanted,
    }))
}

/// A lease's new terms.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LeaseChange {
    /// Handle of the lease.
    handle: Handle,
    /// VRUs.
    vru: u32,
    /// The most that it pays, ticks a VRU-second.
    rent_ticks: u32,
}

fn lease_change(client: &mut Client, asked: LeaseChange) -> Result<Value, Problem> {
    let handle = asked.handle.number()?;
    let client_id = client.next_client_id().into();
    client.call(&ChangeLease {
        client_id,
        handle: handle.into(),
        vru: asked.vru.into(),
        rent_ticks: asked.rent_ticks.into(),
    })?;
    let (handle, vru) = (handle.to_string(), asked.vru);
    Ok(json!({ "handle": handle, "wanted_vru": vru, "rent_ticks": asked.rent_ticks }))
}

/// A lease.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LeaseEnd {
    /// Handle of the lease.
    handle: Handle,
}

fn lease_end(client: &mut Client, asked: LeaseEnd) -> Result<Value, Problem> {
    let handle = asked.handle.number()?;
    let client_id = client.next_client_id().into();
    let paid = client.call(&CancelLease { client_id, handle: handle.into() })?.value.get();
    Ok(json!({ "handle": handle.to_string(), "paid_micro": paid }))
}

/// VRUs that an instance lends.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LendOut {
    /// Instance.
    instance: u32,
    /// Resource.
    resource: Word<Resource>,
    /// VRUs from now on; 0: none.
    vru: u32,
}

fn lend(client: &mut Client, asked: LendOut) -> Result<Value, Problem> {
    let message = Lend {
        client_id: client.next_client_id().into(),
        instance: asked.instance.into(),
        vru: asked.vru.into(),
        resource: asked.resource.0 as u8,
        reserved: [0; 7],
    };
    let before = client.call(&message)?.value.get();
    Ok(json!({ "instance": asked.instance, "lent_vru": asked.vru, "before_vru": before }))
}
