//! Endpoints that change something: each is one request of the protocol, by the same rules.

mod leases;
mod orders;
mod planning;
mod swaps;
mod tokens;

use super::problem::Problem;
use super::route::{Route, one_of};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// All of them.
pub fn routes() -> Vec<Route> {
    let groups =
        [tokens::routes(), swaps::routes(), orders::routes(), leases::routes(), planning::routes()];
    groups.into_iter().flatten().collect()
}

/// Schema of an answer that holds numbers under these names.
fn numbers(names: &[&str]) -> Value {
    let object = names.iter().map(|name| ((*name).to_owned(), json!(1)));
    one_of(&[Value::Object(object.collect())])
}

/// A handle, as its digits, which is how answers hold it, or as a number.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Handle {
    /// A number.
    Number(u64),
    /// Its decimal digits, which every language reads whole.
    Digits(#[schemars(regex(pattern = r"^[0-9]+$"))] String),
}

impl Handle {
    /// It.
    ///
    /// # Errors
    /// The digits are no number of 64 bits.
    pub fn number(&self) -> Result<u64, Problem> {
        match self {
            Handle::Number(number) => Ok(*number),
            Handle::Digits(digits) => digits.parse().map_err(|_| {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "a handle is a number of 64 bits")
            }),
        }
    }
}
