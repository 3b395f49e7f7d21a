//! Throttles: how much a connection, and all sessions of an account together, may ask for.

use std::time::Instant;

/// A request costs this many millionths of a token.
const TOKEN_SCALE: u64 = 1_000_000;

/// A bucket of tokens, of which every request takes one.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Millionths.
    tokens: u64,
    /// When tokens were last added.
    filled_at: Instant,
}

impl Bucket {
    /// As full as it may be.
    pub fn full(now: Instant) -> Bucket {
        Bucket { tokens: u64::MAX, filled_at: now }
    }

    /// Takes a token; false if there is none. `per_s` are added in a second, up to `burst`.
    pub fn take(&mut self, now: Instant, per_s: u64, burst: u64) -> bool {
        let most = burst.saturating_mul(TOKEN_SCALE);
        // The clock is looked at only when they run out, or the bounds have changed.
        if self.tokens < TOKEN_SCALE || self.tokens > most {
            let elapsed = now.saturating_duration_since(self.filled_at);
            let earned = (elapsed.as_micros() as u64).saturating_mul(per_s);
            self.tokens = self.tokens.saturating_add(earned).min(most);
            self.filled_at = self.filled_at.max(now);
        }
        let taken = self.tokens >= TOKEN_SCALE;
        self.tokens -= if taken { TOKEN_SCALE } else { 0 };
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        let mut given = |after_ms: u64| {
            let now = start + Duration::from_millis(after_ms);
            (0..100).filter(|_| bucket.take(now, 10, 5)).count()
        };
        assert_eq!(given(0), 5);
        assert_eq!(given(300), 3);
        assert_eq!(given(100), 0, "time does not go back");
        assert_eq!(given(60_000), 5);
    }
}
