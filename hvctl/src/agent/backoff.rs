//! Pauses that double while the other side says no.

use std::time::Duration;

/// Longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long to wait before the next try.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    /// The first pause is `first`, but at most [`PAUSE_MAX`].
    pub fn new(first: Duration) -> Backoff {
        let first = first.min(PAUSE_MAX);
        Backoff { first, next: first }
    }

    /// The pause to make now; the next one is twice as long, up to [`PAUSE_MAX`].
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// It worked: begin with the first pause again.
    pub fn worked(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let pauses = [(); 5].map(|()| backoff.pause().as_secs());
        assert_eq!(pauses, [10, 20, 40, 60, 60]);
        backoff.worked();
        assert_eq!(backoff.pause().as_secs(), 10);
        assert_eq!(Backoff::new(Duration::MAX).pause(), PAUSE_MAX);
    }
}
