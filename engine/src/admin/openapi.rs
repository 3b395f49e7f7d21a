//! The OpenAPI document, made from the list of endpoints.

use super::route::{Route, one_of};
use axum::http::{Method, StatusCode};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Refusals that any endpoint may answer.
const REFUSALS: [u16; 7] = [401, 403, 404, 409, 422, 429, 503];

/// The document.
pub fn document(routes: &[Route]) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let paths: Map<String, Value> =
        routes.iter().map(|route| (route.path.to_owned(), path(route, &mut generator))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vendue",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "The auction room of one host. Callers are who the [[access]] table of vendued says, by the \
                token of a file or by their certificate. Amounts have their unit in the name; the words are those of `hvctl --json`. \
                Handles, sessions and chain values are text, since they use all of 64 bits; a handle is taken as either. \
                A POST with an `Idempotency-Key` that was used before is not done again: its answer is given again, for ten minutes.",
        },
        "paths": paths,
        "security": [{ "token": [] }],
        "components": { "securitySchemes": { "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "64 hexadecimal digits: the 32 bytes of a token_file",
        } } },
    })
}

fn path(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut schema = (route.input)(generator).to_value();
    bound(&mut schema);
    let mut operation = json!({
        "summary": route.summary,
        "operationId": route.path.trim_start_matches('/'),
        "responses": responses(&route.answer),
    });
    if route.method == Method::GET {
        operation["parameters"] = parameters(&schema).into();
        return json!({ "get": operation });
    }
    operation["requestBody"] = json!({
        "required": true,
        "content": { "application/json": { "schema": schema } },
    });
    operation["parameters"] = json!([{
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "any text of the caller's, new for each thing to be done",
        "schema": { "type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$" },
    }]);
    json!({ "post": operation })
}

fn parameters(schema: &Value) -> Vec<Value> {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object();
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        // A query has no word for null: what is not given is left out.
        if let Some(types) = schema["type"].as_array() {
            schema["type"] = types.first().cloned().unwrap_or_default();
        }
        let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({
            "name": name,
            "in": "query",
            "required": required.contains(&name.as_str()),
            "description": about,
            "schema": schema,
        })
    };
    properties.into_iter().flatten().map(parameter).collect()
}

fn responses(answer: &Value) -> Value {
    let problem = one_of(&[json!({ "code": 1, "name": "", "message": "" })]);
    let mut responses = Map::new();
    let done = json!({
        "description": "done",
        "content": { "application/json": { "schema": answer } },
    });
    responses.insert("200".to_owned(), done);
    // What is no HTTP at all is refused without a word.
    let garbled = "the request makes no sense: a problem as for the others, or nothing";
    responses.insert("400".to_owned(), json!({ "description": garbled }));
    for status in REFUSALS {
        let word = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let refusal = json!({
            "description": word,
            "content": { "application/problem+json": { "schema": problem } },
        });
        responses.insert(status.to_string(), refusal);
    }
    responses.into()
}

/// Says of whole numbers how large they may be: their format alone binds nobody.
fn bound(schema: &mut Value) {
    let most = match schema["format"].as_str() {
        Some("uint8") => Some(u64::from(u8::MAX)),
        Some("uint16") => Some(u64::from(u16::MAX)),
        Some("uint32") => Some(u64::from(u32::MAX)),
        Some("uint64") => Some(u64::MAX),
        _ => None,
    };
    match schema {
        Value::Object(object) => {
            if let Some(most) = most {
                object.insert("maximum".to_owned(), most.into());
            }
            object.values_mut().for_each(bound);
        }
        Value::Array(array) => array.iter_mut().for_each(bound),
        _ => {}
    }
}
