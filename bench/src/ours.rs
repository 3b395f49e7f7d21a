//! The real book, as the bench drives it. This file is the only one that knows the engine.

use crate::flow::{Fill, Record};
use crate::run::Matcher;

/// The real book with permissions, fees and reservations on.
pub enum Ours {}

impl Ours {
    /// Empty books with room for `capacity` resting orders in all; `None` while this build has no
    /// book to measure.
    #[must_use]
    pub fn new(_books: usize, _capacity: usize) -> Option<Self> {
        None
    }
}

impl Matcher for Ours {
    fn add(&mut self, _order: &Record, _on_fill: impl FnMut(Fill)) -> u64 {
        match *self {}
    }

    fn cancel(&mut self, _handle: u64) {
        match *self {}
    }
}
