//! What a stage does while its rings are empty.

use std::fmt;
use std::str::FromStr;

/// How a thread waits for work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Looks again at once. Lowest latency; burns a whole core.
    Spin,
    /// Gives its time slice away, then looks again. For machines with fewer cores than stages.
    Yield,
    /// Sleeps until a producer rings. Costs nothing while idle, a wake-up when work comes.
    #[default]
    Park,
}

impl Wait {
    /// Every strategy, fastest first.
    pub const ALL: [Wait; 3] = [Wait::Spin, Wait::Yield, Wait::Park];

    /// The name used in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Wait::Spin => "spin",
            Wait::Yield => "yield",
            Wait::Park => "park",
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no wait strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a wait strategy; use spin, yield or park")]
pub struct UnknownWait(String);

impl FromStr for Wait {
    type Err = UnknownWait;

    fn from_str(text: &str) -> Result<Wait, UnknownWait> {
        Wait::ALL
            .into_iter()
            .find(|wait| wait.name() == text)
            .ok_or_else(|| UnknownWait(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_nothing_else_does() {
        for wait in Wait::ALL {
            assert_eq!(wait.to_string().parse(), Ok(wait));
        }
        for text in ["", "Spin", "spin ", "sleep"] {
            let error = text.parse::<Wait>().unwrap_err();
            assert!(error.to_string().contains("spin, yield or park"), "{error}");
        }
    }
}
