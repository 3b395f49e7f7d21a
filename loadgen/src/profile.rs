//! How the tenants of a run behave.

use std::fmt;
use std::str::FromStr;

/// The period of a bursty session: all that falls into one is due at its beginning.
const BURST_PERIOD_NS: u64 = 1_000_000_000;

/// How one session behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Rests orders, cancels some, takes some.
    Mixed,
    /// Rests orders beside the middle and cancels them again.
    Maker,
    /// Takes what others offer; nothing of it rests.
    Taker,
    /// As mixed, but a whole second's requests are due at once.
    Bursty,
    /// Logs on and asks for nothing.
    Idle,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 5] =
        [Profile::Mixed, Profile::Maker, Profile::Taker, Profile::Bursty, Profile::Idle];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Mixed => "mixed",
            Profile::Maker => "maker",
            Profile::Taker => "taker",
            Profile::Bursty => "bursty",
            Profile::Idle => "idle",
        }
    }

    /// Of 100 steps, how many rest an order, and how many rest or cancel one.
    pub const fn shares(self) -> (u64, u64) {
        match self {
            Profile::Mixed | Profile::Bursty => (45, 75),
            Profile::Maker => (60, 100),
            Profile::Taker | Profile::Idle => (0, 0),
        }
    }

    /// When a request is due that would be due at `due_ns` were it evenly spaced.
    pub const fn due_ns(self, due_ns: u64) -> u64 {
        match self {
            Profile::Bursty => due_ns - due_ns % BURST_PERIOD_NS,
            _ => due_ns,
        }
    }
}

/// How many sessions of each profile. Written `maker=2,taker=8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Profile, usize)>);

/// The text names no mix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mix; write PROFILE=SESSIONS,... with mixed, maker, taker, bursty or idle")]
pub struct BadMix(String);

impl Mix {
    /// `count` sessions of one profile.
    pub fn of(profile: Profile, count: usize) -> Mix {
        Mix(vec![(profile, count)])
    }

    /// All sessions.
    pub fn sessions(&self) -> usize {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The profile of each session, in order.
    pub fn profiles(&self) -> Vec<Profile> {
        self.0.iter().flat_map(|&(profile, count)| std::iter::repeat_n(profile, count)).collect()
    }
}

impl FromStr for Mix {
    type Err = BadMix;

    fn from_str(text: &str) -> Result<Mix, BadMix> {
        let bad = || BadMix(text.to_owned());
        let mut mix = Vec::new();
        for part in text.split(',') {
            let (name, count) = part.split_once('=').ok_or_else(bad)?;
            let profile = Profile::ALL.into_iter().find(|profile| profile.name() == name);
            // A count that fits 16 bits: their sum cannot overflow.
            let count: u16 = count.parse().map_err(|_| bad())?;
            mix.push((profile.ok_or_else(bad)?, usize::from(count)));
        }
        Ok(Mix(mix))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (profile, count)) in self.0.iter().enumerate() {
            write!(f, "{}{}={count}", if at == 0 { "" } else { "," }, profile.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_and_written() {
        let mix: Mix = "maker=2,idle=1,taker=0".parse().unwrap();
        assert_eq!(mix.to_string(), "maker=2,idle=1,taker=0");
        assert_eq!(mix.sessions(), 3);
        assert_eq!(mix.profiles(), [Profile::Maker, Profile::Maker, Profile::Idle]);
        for bad in ["", "maker", "maker=", "maker=-1", "maker=70000", "baker=1", "maker=1,"] {
            assert_eq!(bad.parse::<Mix>(), Err(BadMix(bad.into())), "{bad}");
        }
    }

    #[test]
    fn what_falls_into_a_second_bursts_at_its_beginning() {
        let due = |profile: Profile| [0, 999_999_999, 1_000_000_001].map(|at| profile.due_ns(at));
        assert_eq!(due(Profile::Bursty), [0, 0, 1_000_000_000]);
        assert_eq!(due(Profile::Taker), [0, 999_999_999, 1_000_000_001]);
    }
}
