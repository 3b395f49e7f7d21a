//! Experiments and who takes part in them.

use serde_json::{Value, json};
use vendue_wire::code::{Cover, ExperimentEnd, Kpi, Resource};
use vendue_wire::message::*;

/// What is measured, as it is written.
pub fn measure(number: u8) -> &'static str {
    if number == MEASURE_COST { "cost" } else { Kpi::text_of(number) }
}

/// True if terms of the manager of swaps are compared, not policies.
pub fn is_of_swaps(row: &ExperimentRow) -> bool {
    row.risk_percent != [0; 2]
}

/// What sort of terms are compared.
pub fn compares(row: &ExperimentRow) -> &'static str {
    if is_of_swaps(row) { "swaps" } else { "policies" }
}

/// An experiment.
pub fn experiment(row: &ExperimentRow) -> Value {
    let signed = |field: U64| field.get() as i64;
    let interval =
        (row.has_interval == 1).then(|| json!([signed(row.low_milli), signed(row.high_milli)]));
    let effect = (row.has_interval == 1).then(|| signed(row.effect_milli));
    let arms = [0, 1].map(|arm| {
        let percent = Some(row.risk_percent[arm]).filter(|percent| (1..=100).contains(percent));
        let covers = percent.is_some() || row.budget_micro[arm].get() > 0;
        json!({
            "exposed": row.exposed[arm].get(),
            "sample": row.sample[arm].get(),
            "values": row.values[arm].get(),
            "mean_milli": row.mean_milli[arm].get(),
            "budget_micro": row.budget_micro[arm].get(),
            "swaps": row.risk_percent[arm] != RISK_NEVER,
            "risk_percent": percent,
            "cover": covers.then(|| Cover::text_of(row.cover[arm])),
        })
    });
    json!({
        "experiment": row.experiment.get(),
        "name": text(&row.name),
        "compares": compares(row),
        "end": ExperimentEnd::text_of(row.end),
        "started_at_ms": row.started_at_ms.get(),
        "ends_at_ms": row.ends_at_ms.get(),
        "account": Some(row.account.get()).filter(|account| *account != ANY),
        "tier": Some(row.tier.get()).filter(|tier| *tier != u16::MAX),
        "resource": Resource::text_of(row.resource),
        "measure": measure(row.measure),
        "better": if row.more_is_better == 1 { "more" } else { "less" },
        "salt": row.salt.get(),
        "harm_milli": row.harm_milli.get(),
        "looks": row.looks,
        "effect_milli": effect,
        "interval_95_milli": interval,
        "arms": arms,
    })
}

/// The mean of what an instance told, thousandths, if it told anything.
pub fn mean(row: &ExposureRow) -> Option<u64> {
    Some(row.mean_milli.get()).filter(|mean| *mean != u64::MAX)
}

/// An instance that takes part in an experiment.
pub fn exposure(row: &ExposureRow) -> Value {
    json!({
        "instance": row.instance.get(),
        "arm": if row.arm == 0 { "a" } else { "b" },
        "since_ms": row.since_ms.get(),
        "values": row.values.get(),
        "mean_milli": mean(row),
        "left": row.left == 1,
    })
}
