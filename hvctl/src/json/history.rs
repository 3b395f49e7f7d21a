//! What was used beside what had been foreseen.

use super::narrow;
use serde_json::{Value, json};
use vendue_wire::message::*;

/// A while of it.
pub fn history(row: &HistoryRow) -> Value {
    json!({
        "time_ns": row.time_ns.get(),
        "used_milli_vru": narrow(row.used_milli_vru),
        "p025_milli_vru": narrow(row.p025_milli_vru),
        "p10_milli_vru": narrow(row.p10_milli_vru),
        "p50_milli_vru": narrow(row.p50_milli_vru),
        "p90_milli_vru": narrow(row.p90_milli_vru),
        "p975_milli_vru": narrow(row.p975_milli_vru),
    })
}
