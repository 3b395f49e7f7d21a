//! A subscription: every trade and every balance that changed, each exactly once and in order.
//!
//! To miss none and do none twice across crashes of either side, remember the place of the last
//! notice that was dealt with, together with what was done for it, and begin again behind it.

use super::{Client, ClientError};
use crate::message::{
    Body, CaughtUp, CreditsChanged, FundsChanged, Refused, Subscribe, Subscribed, SwapReversed,
    Swapped, Take, TiersSwapped, U32, U64, Unsubscribed,
};
use std::fmt;
use std::time::Duration;

/// Pause before what was refused is said again.
const AGAIN: Duration = Duration::from_millis(10);

/// Where a notice stands: what makes it the same wherever and however often it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Record of the journal.
    pub sequence: u64,
    /// Which of its notices.
    pub part: u32,
}

impl Place {
    /// The place right behind this one: where to begin again.
    #[must_use]
    pub fn after(self) -> Place {
        Place { part: self.part + 1, ..self }
    }

    fn of(sequence: U64, part: U32) -> Place {
        Place { sequence: sequence.get(), part: part.get() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.sequence, self.part)
    }
}

/// What a subscriber is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A trade.
    Swapped(Swapped),
    /// A trade was reversed.
    Reversed(SwapReversed),
    /// An account's funds changed.
    Funds(FundsChanged),
    /// An instance's credits changed.
    Credits(CreditsChanged),
    /// A swap between tiers.
    Tiers(TiersSwapped),
    /// Everything up to this record has been told.
    CaughtUp(u64),
    /// The daemon tells no more; begin again from there. The code is [`Unsubscribed::code`].
    Ended(Place, u8),
}

impl Notice {
    /// Its place, if it is a trade, a reversal or a change.
    pub fn place(&self) -> Option<Place> {
        match self {
            Notice::Swapped(m) => Some(Place::of(m.sequence, m.part)),
            Notice::Reversed(m) => Some(Place::of(m.sequence, m.part)),
            Notice::Funds(m) => Some(Place::of(m.sequence, m.part)),
            Notice::Credits(m) => Some(Place::of(m.sequence, m.part)),
            Notice::Tiers(m) => Some(Place::of(m.sequence, m.part)),
            Notice::CaughtUp(_) | Notice::Ended(..) => None,
        }
    }
}

/// A client that listens.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    begun: Subscribed,
    /// Notices that came, and how many may have been sent.
    told: u64,
    allowed: u64,
    /// Where the last one stood.
    last: Option<Place>,
}

impl Subscription {
    /// Subscribes to `what`, a sum of [`TELL_SWAPS`](crate::message::TELL_SWAPS),
    /// [`TELL_FUNDS`](crate::message::TELL_FUNDS), [`TELL_CREDITS`](crate::message::TELL_CREDITS) and
    /// [`TELL_TIERS`](crate::message::TELL_TIERS), from a place on; from sequence 0: to what comes next.
    ///
    /// # Errors
    /// As for [`Client::call_for`].
    pub fn begin(mut client: Client, from: Place, what: u8) -> Result<Subscription, ClientError> {
        let Place { sequence, part } = from;
        let reserved = [0; 3];
        let message = Subscribe { from: sequence.into(), part: part.into(), what, reserved };
        let begun: Subscribed = client.call_for(&message)?;
        Ok(Subscription {
            client,
            begun,
            told: 0,
            allowed: begun.take_max.get().into(),
            last: None,
        })
    }

    /// The daemon's answer.
    pub fn begun(&self) -> &Subscribed {
        &self.begun
    }

    /// The next notice, waiting for it at most `timeout`; `None` after that. Whoever asks for it has
    /// dealt with those before: that is when the daemon may send more.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] for a notice out of order, or why the connection is over.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Notice>, ClientError> {
        loop {
            self.take_more()?;
            let Some(frame) = self.client.recv(timeout)? else { return Ok(None) };
            if frame.message::<Refused>().is_some_and(|refused| refused.kind == Take::KIND) {
                std::thread::sleep(AGAIN);
                self.allowed = self.told;
                continue;
            }
            let notice = if let Some(m) = frame.message::<Swapped>() {
                Notice::Swapped(*m)
            } else if let Some(m) = frame.message::<SwapReversed>() {
                Notice::Reversed(*m)
            } else if let Some(m) = frame.message::<FundsChanged>() {
                Notice::Funds(*m)
            } else if let Some(m) = frame.message::<CreditsChanged>() {
                Notice::Credits(*m)
            } else if let Some(m) = frame.message::<TiersSwapped>() {
                Notice::Tiers(*m)
            } else if let Some(m) = frame.message::<CaughtUp>() {
                Notice::CaughtUp(m.sequence.get())
            } else if let Some(m) = frame.message::<Unsubscribed>() {
                return Ok(Some(Notice::Ended(Place::of(m.sequence, m.part), m.code)));
            } else {
                continue;
            };
            self.told += 1;
            if let Some(place) = notice.place() {
                if self.last.is_some_and(|last| place <= last) {
                    let (kind, wanted) = (frame.kind(), "a later notice");
                    return Err(ClientError::Unexpected { kind, wanted });
                }
                self.last = Some(place);
            }
            return Ok(Some(notice));
        }
    }

    /// Lets the daemon send more once a quarter of what may be under way has come.
    fn take_more(&mut self) -> Result<(), ClientError> {
        let most = u64::from(self.begun.take_max.get());
        if self.told + most - self.allowed > most / 4 {
            self.allowed = self.told + most;
            self.client.send(&Take { through: self.allowed.into() })?;
        }
        Ok(())
    }
}
