//! Endpoints of experiments: what they found, who takes part, and their end.

use super::problem::Problem;
use super::read::{Nothing, array, pages};
use super::route::{Route, get, list_of, one_of, post};
use hvctl::json::experiment as show;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use vendue_wire::client::Client;
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

fn experiment_stop(client: &mut Client, asked: OfExperiment) -> Result<Value, Problem> {
    let client_id = client.next_client_id().into();
    let (experiment, reserved) = (asked.experiment.into(), 0.into());
    let left = client.call(&StopExperiment { client_id, experiment, reserved })?.value.get();
    Ok(json!({ "experiment": asked.experiment, "to_be_given_back": left }))
}
