//! Groups of instances, their members and their tasks.

use super::resource;
use serde_json::{Value, json};
use vendue_wire::message::*;

/// A group, of its resource number `at`.
pub fn group(row: &GroupRow, at: usize) -> Value {
    json!({
        "group": row.group.get(),
        "name": text(&row.name),
        "account": row.account.get(),
        "resource": resource(at as u8),
        "base_micro": row.base_micro[at].get(),
        "used_vru": row.used_vru[at].get(),
        "active_vru": row.active_vru[at].get(),
        "active": row.active.get(),
        "members": row.members.get(),
        "activations": row.activations.get(),
        "deactivations": row.deactivations.get(),
        "demand": demand(row.demand),
        "running": row.running.get(),
        "waiting": row.waiting.get(),
        "revenue_micro": row.revenue_micro.get(),
        "steep_percent": row.steep_percent.get(),
        "hold_ms": row.hold_ms.get(),
        "cool_ms": row.cool_ms.get(),
        "high_permille": row.high_permille.get(),
        "low_permille": row.low_permille.get(),
        "active_min": row.active_min.get(),
    })
}

/// An instance of a group, of its resource number `at`.
pub fn member(row: &MemberRow, at: usize) -> Value {
    json!({
        "group": row.group.get(),
        "instance": row.instance.get(),
        "state": member_state(row.state),
        "resource": resource(at as u8),
        "used_vru": row.used_vru[at].get(),
        "capacity_vru": row.capacity_vru[at].get(),
        "price_micro": row.price_micro[at].get(),
    })
}

/// A task.
pub fn task(row: &TaskRow) -> Value {
    json!({
        "handle": row.handle.get().to_string(),
        "name": text(&row.name),
        "account": row.account.get(),
        "group": row.group.get(),
        "instance": super::number(row.instance),
        "resource": resource(row.resource),
        "vru": row.vru.get(),
        "vru_max": row.vru_max.get(),
        "used_millivru": super::narrow(row.used_millivru),
        "progress_permille": row.progress_permille.get(),
        "bid_micro": row.bid_micro.get(),
        "paid_micro": row.paid_micro.get(),
        "rate_micro": row.rate_micro.get(),
        "margin_micro": row.margin_micro.get() as i64,
        "margin_min_micro": row.margin_min_micro.get(),
        "duration_ms": row.duration_ms.get(),
        "waits": row.waits == 1,
        "inefficient": row.inefficient == 1,
    })
}

/// What a group's demand is.
pub fn demand(number: u8) -> &'static str {
    ["-", "high", "low"].get(usize::from(number)).copied().unwrap_or("?")
}

/// What an instance of a group does for it.
pub fn member_state(number: u8) -> &'static str {
    ["active", "deactivated", "frozen"].get(usize::from(number)).copied().unwrap_or("?")
}
