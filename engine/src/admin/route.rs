//! An endpoint: what it takes, what it answers, and how. The router and the OpenAPI document are made
//! from the same list of them.

use super::doors::Job;
use super::problem::Problem;
use axum::extract::Query;
use axum::http::{Method, StatusCode, Uri};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use vendue_wire::client::Client;
use vendue_wire::message::Body;

/// What is asked, and of whom: text until an endpoint has read it.
pub struct Input<'a> {
    /// With the query.
    pub uri: &'a Uri,
    /// JSON, of requests that change something.
    pub body: &'a [u8],
}

type Make = Box<dyn Fn(&Input<'_>) -> Result<Job, Problem> + Send + Sync>;

/// An endpoint.
pub struct Route {
    /// GET: asks. POST: changes something.
    pub method: Method,
    /// Path.
    pub path: &'static str,
    /// What it is for.
    pub summary: &'static str,
    /// Schema of the query, or of the body.
    pub input: fn(&mut SchemaGenerator) -> Schema,
    /// Schema of the answer.
    pub answer: Value,
    /// It may take long.
    pub slow: bool,
    /// Reads what is asked; the job does it on the caller's session.
    pub make: Make,
}

/// An endpoint that asks: its query is a `Q`.
pub fn get<Q: DeserializeOwned + JsonSchema + Send + 'static>(
    path: &'static str,
    summary: &'static str,
    answer: Value,
    run: fn(&mut Client, Q) -> Result<Value, Problem>,
) -> Route {
    let make = move |input: &Input<'_>| -> Result<Job, Problem> {
        let query = Query::<Q>::try_from_uri(input.uri).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, format!("the query: {error}"))
        })?;
        Ok(Box::new(move |client| run(client, query.0)))
    };
    let input = schema_of::<Q>;
    Route { method: Method::GET, path, summary, input, answer, slow: false, make: Box::new(make) }
}

/// An endpoint that changes something: its body is a `B`.
pub fn post<B: DeserializeOwned + JsonSchema + Send + 'static>(
    path: &'static str,
    summary: &'static str,
    answer: Value,
    run: fn(&mut Client, B) -> Result<Value, Problem>,
) -> Route {
    let make = move |input: &Input<'_>| -> Result<Job, Problem> {
        let body: B = serde_json::from_slice(input.body)
            .map_err(|error| Problem::malformed(format!("the body: {error}")))?;
        Ok(Box::new(move |client| run(client, body)))
    };
    let input = schema_of::<B>;
    Route { method: Method::POST, path, summary, input, answer, slow: false, make: Box::new(make) }
}

impl Route {
    /// It may take long: its session is another one, so that the caller's other requests do not wait.
    pub fn slow(self) -> Route {
        Route { slow: true, ..self }
    }
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// Rows of the protocol as samples for a schema: all zeros, all ones, and others that set flags and
/// codes.
pub fn samples<R: Body>() -> Vec<R> {
    let filled = |byte: u8| {
        let bytes = vec![byte; size_of::<R>()];
        R::read_from_bytes(&bytes).unwrap_or_else(|_| unreachable!("as long as a row"))
    };
    [0, 1, 2, u8::MAX].map(filled).into()
}

/// Schema of a list of what `show` makes of rows.
pub fn list_of<R: Body>(show: impl Fn(&R) -> Value) -> Value {
    json!({ "type": "array", "items": one_of(&samples::<R>().iter().map(show).collect::<Vec<_>>()) })
}

/// Schema that all of these values fit: what is null in one and a number in another may be both.
pub fn one_of(values: &[Value]) -> Value {
    let mut types = BTreeSet::new();
    let mut objects: Vec<&Map<String, Value>> = Vec::new();
    let mut items = Vec::new();
    for value in values {
        types.insert(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(found) => {
                items.extend(found.iter().cloned());
                "array"
            }
            Value::Object(object) => {
                objects.push(object);
                "object"
            }
        });
    }
    let types: Vec<_> = types.into_iter().collect();
    let mut schema = match types[..] {
        [] => return json!({}),
        [one] => json!({ "type": one }),
        _ => json!({ "type": types }),
    };
    if !items.is_empty() {
        schema["items"] = one_of(&items);
    }
    if !objects.is_empty() {
        let names: BTreeSet<&String> = objects.iter().flat_map(|object| object.keys()).collect();
        let of = |name: &&String| {
            let found: Vec<_> = objects.iter().filter_map(|o| o.get(*name)).cloned().collect();
            ((*name).clone(), one_of(&found))
        };
        let required = |name: &&&String| objects.iter().all(|object| object.contains_key(**name));
        schema["properties"] = names.iter().map(of).collect::<Map<_, _>>().into();
        let required: Vec<String> =
            names.iter().filter(required).map(|name| (*name).clone()).collect();
        schema["required"] = required.into();
    }
    schema
}
