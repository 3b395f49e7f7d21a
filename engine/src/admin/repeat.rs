//! Requests that may come again: a caller that did not hear an answer asks once more with the same
//! `Idempotency-Key`, and gets the answer of the first time. Kept in memory, so a restart forgets them.

use super::doors::Shown;
use super::problem::Problem;
use axum::http::StatusCode;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Answers kept at most.
const KEPT_MAX: usize = 1024;
/// How long.
const KEPT: Duration = Duration::from_secs(600);
/// Bytes of a key at most.
const KEY_BYTES_MAX: usize = 64;

type Done = Result<Value, Problem>;

/// Whose key it is, and the key.
type Name = [u8; 32];

struct Entry {
    begun: Instant,
    /// Hash of path and body.
    asked: [u8; 32],
    /// `None` while it is being done.
    done: Option<Done>,
}

/// Answers by key.
#[derive(Default)]
pub struct Repeats(Mutex<HashMap<Name, Entry>>);

/// A request that is being done for the first time.
pub struct Ticket<'a> {
    repeats: &'a Repeats,
    name: Name,
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

impl Repeats {
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request with a key, or has the answer of the first time.
    ///
    /// # Errors
    /// The key is none, was another request's, is being used, or too many are kept.
    pub fn begin(
        &self,
        shown: &Shown,
        key: &[u8],
        path: &str,
        body: &[u8],
    ) -> Result<Result<Ticket<'_>, Done>, Problem> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.is_ascii() {
            let why = format!("an Idempotency-Key has 1 to {KEY_BYTES_MAX} characters");
            return Err(Problem::malformed(why));
        }
        let name = hash(&[format!("{shown:?}").as_bytes(), key]);
        let asked = hash(&[path.as_bytes(), body]);
        let mut kept = self.lock();
        if let Some(entry) = kept.get(&name).filter(|entry| entry.begun.elapsed() < KEPT) {
            if entry.asked != asked {
                let why = "this Idempotency-Key was another request's";
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why));
            }
            let doing = || Problem::new(StatusCode::CONFLICT, "it is being done");
            return entry.done.clone().map(Err).ok_or_else(doing);
        }
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, entry| entry.begun.elapsed() < KEPT);
        }
        if kept.len() >= KEPT_MAX {
            return Err(Problem::busy(format!("{KEPT_MAX} keys are kept for ten minutes")));
        }
        kept.insert(name, Entry { begun: Instant::now(), asked, done: None });
        Ok(Ok(Ticket { repeats: self, name }))
    }
}

impl Ticket<'_> {
    /// Keeps the answer. What came to nothing and may be tried again is forgotten.
    pub fn end(self, done: &Done) {
        let again = matches!(done, Err(problem) if problem.status == StatusCode::TOO_MANY_REQUESTS
            || problem.status == StatusCode::UNAUTHORIZED);
        if !again && let Some(entry) = self.repeats.lock().get_mut(&self.name) {
            entry.done = Some(done.clone());
        }
    }
}

impl Drop for Ticket<'_> {
    /// A request whose caller went keeps nobody from asking again.
    fn drop(&mut self) {
        let mut kept = self.repeats.lock();
        if kept.get(&self.name).is_some_and(|entry| entry.done.is_none()) {
            kept.remove(&self.name);
        }
    }
}
