//! What went wrong, as a caller is told: a status and a JSON object.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use vendue_wire::client::ClientError;
use vendue_wire::code::Reject;

/// Seconds after which somebody who asked too much may ask again.
const RETRY_AFTER_S: &str = "1";

/// A refusal.
#[derive(Clone, Debug)]
pub struct Problem {
    /// HTTP's status.
    pub status: StatusCode,
    /// A [`Reject`], or 0 where the request did not come as far as the gateway.
    pub code: u8,
    /// The code's name.
    pub name: &'static str,
    /// What is wrong and what to do.
    pub message: String,
    /// The session that it happened on is of no use any more.
    pub lost: bool,
}

impl Problem {
    /// A refusal that the gateway has no part in.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Problem {
        let name = status.canonical_reason().unwrap_or("refused");
        Problem { status, code: 0, name, message: message.into(), lost: false }
    }

    /// The request makes no sense.
    pub fn malformed(why: impl std::fmt::Display) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, why.to_string())
    }

    /// Nothing of this name that the caller may see.
    pub fn absent(what: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, what)
    }

    /// Too much at once.
    pub fn busy(what: impl Into<String>) -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, what)
    }

    fn reject(kind: u8, code: u8) -> Problem {
        let what = vendue_wire::message::SCHEMA.iter().find(|row| row.0 == kind);
        let what = what.map_or("the request", |row| row.1);
        let known = Reject::from_u8(code);
        let name = known.map_or("unknown", Reject::text);
        Problem {
            status: known.map_or(StatusCode::CONFLICT, status),
            code,
            name,
            message: format!("{what}: {name}"),
            lost: false,
        }
    }

    /// As the caller reads it.
    pub fn json(&self) -> Value {
        json!({ "code": self.code, "name": self.name, "message": self.message })
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Problem {
        match error {
            ClientError::Rejected { kind, code } | ClientError::Refused { kind, code, .. } => {
                Problem::reject(kind, code)
            }
            other => Problem {
                lost: true,
                ..Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("the session with the gateway is gone: {other}"),
                )
            },
        }
    }
}

/// HTTP's word for a refusal.
fn status(reject: Reject) -> StatusCode {
    match reject {
        Reject::BadCredentials | Reject::NotLoggedOn => StatusCode::UNAUTHORIZED,
        Reject::NotPermitted | Reject::NotEntitled => StatusCode::FORBIDDEN,
        Reject::UnknownAccount
        | Reject::UnknownInstance
        | Reject::UnknownTier
        | Reject::UnknownBook
        | Reject::UnknownOrder
        | Reject::UnknownTrade
        | Reject::UnknownLease
        | Reject::UnknownObjective
        | Reject::UnknownGroup
        | Reject::UnknownTask
        | Reject::UnknownMigration
        | Reject::UnknownExperiment
        | Reject::UnknownToken
        | Reject::UnknownSwap => StatusCode::NOT_FOUND,
        Reject::Throttled | Reject::AccountThrottled | Reject::Busy | Reject::TooOften => {
            StatusCode::TOO_MANY_REQUESTS
        }
        Reject::JournalStopped | Reject::Draining => StatusCode::SERVICE_UNAVAILABLE,
        Reject::UnknownKind
        | Reject::BadLength
        | Reject::BadField
        | Reject::BadName
        | Reject::BadPrice
        | Reject::BadQuantity
        | Reject::BadExpiry
        | Reject::Overflow
        | Reject::TokenForged => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::CONFLICT,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
