//! The protocol's codes as the words that stand for them in JSON, and words of the caller's own.

use super::problem::Problem;
use axum::http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use vendue_wire::code::{Cover, Horizon, Kpi, LeaseClass, Resource, Side, Source, SwapAnswer};
use vendue_wire::message::{NAME_BYTES, field};

/// A code given by its word.
#[derive(Clone, Copy, Debug)]
pub struct Word<T>(pub T);

macro_rules! worded {
    ($($code:ident)*) => {$(
        impl<'de> Deserialize<'de> for Word<$code> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let found = $code::ALL.iter().find(|code| code.text() == text);
                found.copied().map(Word).ok_or_else(|| {
                    let all: Vec<_> = $code::ALL.iter().map(|code| code.text()).collect();
                    let all = all.join(", ");
                    serde::de::Error::custom(format!("{text:?} is not one of {all}"))
                })
            }
        }

        impl JsonSchema for Word<$code> {
            fn schema_name() -> Cow<'static, str> {
                stringify!($code).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let all: Vec<_> = $code::ALL.iter().map(|code| code.text()).collect();
                json_schema!({ "type": "string", "enum": all })
            }
        }
    )*};
}
worded! { Cover Horizon Kpi LeaseClass Resource Side Source SwapAnswer }

/// What somebody calls something, or says of it, as the protocol has it.
///
/// # Errors
/// It is too long, or has a zero byte; `what` says what it is.
pub fn short(text: &str, what: &str) -> Result<[u8; NAME_BYTES], Problem> {
    field(text).ok_or_else(|| {
        let why = format!("{what}: at most {NAME_BYTES} bytes, none of them zero");
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why)
    })
}
