//! Endpoints of experiments: what they found, who takes part, and their end.

use super::problem::Problem;
use super::read::{Nothing, array, pages};
use super::route::{Route, get, list_of, one_of, post};
use super::words::{Word, short};
use axum::http::StatusCode;
use hvctl::json::experiment as show;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use vendue_wire::client::Client;
use vendue_wire::code::{Cover, Kpi, LeaseClass, Resource};
use vendue_wire::message::*;

/// All of them.
pub fn routes() -> Vec<Route> {
    vec![
        get(
            "/experiments",
            "Policies compared on the instances there are: the effect with its 95% interval",
            list_of(show::experiment),
            experiments,
        ),
        get(
            "/exposures",
            "Instances that take part in an experiment",
            list_of(show::exposure),
            exposures,
        ),
        post(
            "/experiment_start",
            "Compare two policies, or two ways to look for swaps, on the instances there are",
            one_of(&[json!({ "experiment": 1 })]),
            experiment_start,
        ),
        post(
            "/experiment_stop",
            "End an experiment and give instances their own policies back",
            one_of(&[json!({ "experiment": 1, "to_be_given_back": 1 })]),
            experiment_stop,
        ),
    ]
}

fn experiments(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let rows: Vec<ExperimentRow> = pages(client, |from| QueryExperiments { from })?;
    Ok(array(&rows, show::experiment))
}

/// Which experiment.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OfExperiment {
    /// Its number.
    experiment: u32,
}

fn exposures(client: &mut Client, asked: OfExperiment) -> Result<Value, Problem> {
    let experiment = asked.experiment.into();
    let rows: Vec<ExposureRow> = pages(client, |from| QueryExposures { from, experiment })?;
    Ok(array(&rows, show::exposure))
}

/// What is compared, on whose instances, and when it ends.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExperimentStart {
    /// What people call it; 32 bytes at most.
    name: String,
    /// Resource.
    resource: Word<Resource>,
    /// What is measured; what an instance spends on a VRU-second unless said.
    measure: Option<Word<Kpi>>,
    /// More of it is better, not less.
    #[serde(default)]
    more_is_better: bool,
    /// By how much of it B may be worse than A, thousandths.
    harm_milli: u64,
    /// It lasts so long.
    lasts_ms: u64,
    /// Another number, other arms.
    #[serde(default)]
    salt: u64,
    /// Of instances of this tier alone.
    tier: Option<u16>,
    /// Of instances of this account alone.
    account: Option<u32>,
    /// What instances of arm A are given; nothing: they stay as they are.
    #[serde(default)]
    a: Arm,
    /// The same of arm B.
    #[serde(default)]
    b: Arm,
}

/// A policy, as of `/policy_set`, or what the manager of swaps does for an instance.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Arm {
    /// Micro-units of funds that the policy may spend an hour; 0: no policy.
    budget_micro: u64,
    /// What it may save up to spend at once; a tenth of the budget unless said otherwise.
    burst_micro: Option<u64>,
    /// The most that it pays to lease, ticks a VRU-second.
    rent_ticks: u32,
    /// The most that it pays for a credit, ticks.
    price_ticks: u32,
    /// It looks so far ahead; a minute unless said otherwise.
    lead_ms: Option<u32>,
    /// It gives nothing back so soon after a change; ten seconds unless said otherwise.
    hold_ms: Option<u32>,
    /// It changes its lease by so many VRUs at least.
    step_vru: u32,
    /// Class of its lease.
    class: Option<Word<LeaseClass>>,
    /// What of forecasts is covered, by the policy or by swaps; quantile 90 unless said otherwise.
    cover: Option<Word<Cover>>,
    /// Swaps are looked for from this probability of too little; as always unless said otherwise.
    #[schemars(range(min = 1, max = 100))]
    risk_percent: Option<u8>,
    /// No swaps are looked for.
    no_swaps: bool,
}

impl Arm {
    /// What of it is said of swaps, as it is sent; `None` if that cannot be.
    fn risk_percent(&self) -> Option<u8> {
        match (self.risk_percent, self.no_swaps) {
            (None, no_swaps) => Some(if no_swaps { RISK_NEVER } else { 0 }),
            (Some(percent @ 1..=100), false) => Some(percent),
            _ => None,
        }
    }
}

fn experiment_start(client: &mut Client, asked: ExperimentStart) -> Result<Value, Problem> {
    let wrong = |why: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    let mut m = StartExperiment {
        client_id: client.next_client_id().into(),
        salt: asked.salt.into(),
        lasts_ms: asked.lasts_ms.into(),
        harm_milli: asked.harm_milli.into(),
        account: asked.account.unwrap_or(ANY).into(),
        tier: asked.tier.unwrap_or(u16::MAX).into(),
        resource: asked.resource.0 as u8,
        measure: asked.measure.map_or(MEASURE_COST, |kpi| kpi.0 as u8),
        more_is_better: asked.more_is_better.into(),
        name: short(&asked.name, "name")?,
        ..StartExperiment::zeroed()
    };
    for (at, arm) in [&asked.a, &asked.b].into_iter().enumerate() {
        let risk = arm.risk_percent();
        m.risk_percent[at] = risk.ok_or_else(|| wrong("give 1 to 100 percent, or no_swaps"))?;
        let covers = arm.budget_micro > 0 || arm.risk_percent.is_some();
        m.cover[at] = if covers { arm.cover.map_or(Cover::P90, |word| word.0) as u8 } else { 0 };
        if arm.budget_micro > 0 {
            m.budget_micro[at] = arm.budget_micro.into();
            m.burst_micro[at] = arm.burst_micro.unwrap_or(arm.budget_micro / 10).into();
            m.rent_ticks[at] = arm.rent_ticks.into();
            m.price_ticks[at] = arm.price_ticks.into();
            m.lead_ms[at] = arm.lead_ms.unwrap_or(60_000).into();
            m.hold_ms[at] = arm.hold_ms.unwrap_or(10_000).into();
            m.step_vru[at] = arm.step_vru.into();
            m.class[at] = arm.class.map_or(LeaseClass::Bounded, |word| word.0) as u8;
        }
    }
    Ok(json!({ "experiment": client.call(&m)?.value.get() }))
}

fn experiment_stop(client: &mut Client, asked: OfExperiment) -> Result<Value, Problem> {
    let client_id = client.next_client_id().into();
    let (experiment, reserved) = (asked.experiment.into(), 0.into());
    let left = client.call(&StopExperiment { client_id, experiment, reserved })?.value.get();
    Ok(json!({ "experiment": asked.experiment, "to_be_given_back": left }))
}
