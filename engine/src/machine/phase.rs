//! Phases: a book is continuous, in a call or halted, by its schedule or by an operator's word.
//!
//! - *Continuous*: orders that cross trade at once.
//! - *Call*: limit orders that may rest do, also where they cross; others are refused
//!   ([`Reject::BookInCall`]). Cancels and replacements work. What an auction would do is said
//!   after every tick.
//! - *Halted*: nothing but cancels ([`Reject::BookHalted`]).
//!
//! A call ends with an auction: at the end of its period, or when the book becomes continuous. A
//! book that is halted holds none; one that becomes continuous again holds it first, because it may
//! have been halted amid a call.

use super::Machine;
use super::auction::{Indication, indicate};
use super::command::{Envelope, Style};
use super::event::{Indicative, Outbox, PhaseChanged};
use super::tables::Book;
use vendue_wire::code::{Phase, Reject};
use vendue_wire::message::{ANY, Body, SetPhase};

/// When a book's phase changes by itself: in call for the last `call_ms` of every `every_ms`.
/// Periods begin at multiples of `every_ms` since 1970 UTC, so that books of one period meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Milliseconds from auction to auction, 0 for none.
    pub every_ms: u32,
    /// Milliseconds that a call lasts.
    pub call_ms: u32,
    /// When it acts next, milliseconds since 1970 UTC.
    pub next_ms: u64,
    /// False while a phase that an operator has set stands.
    pub followed: bool,
}

impl Schedule {
    /// One that acts for the first time at the first tick.
    pub fn new(every_ms: u32, call_ms: u32) -> Schedule {
        Schedule { every_ms, call_ms, next_ms: 0, followed: true }
    }

    /// The phase that it wants now, and until when.
    fn at(&self, now_ms: u64) -> (Phase, u64) {
        if self.every_ms == 0 {
            return (Phase::Continuous, u64::MAX);
        }
        let end_ms = now_ms - now_ms % u64::from(self.every_ms) + u64::from(self.every_ms);
        let call_at_ms = end_ms - u64::from(self.call_ms);
        if now_ms >= call_at_ms { (Phase::Call, end_ms) } else { (Phase::Continuous, call_at_ms) }
    }

    /// When it acts next, milliseconds since 1970 UTC; 0 if it does not.
    pub fn next_phase_ms(&self) -> u64 {
        if self.followed && self.every_ms > 0 { self.next_ms } else { 0 }
    }
}

impl Book {
    /// Refuses an order that its phase does not take. True if the book is continuous, which one
    /// branch says of nearly all orders.
    #[inline(always)]
    pub(super) fn admit(&self, style: Style) -> Result<bool, Reject> {
        match self.phase {
            Phase::Continuous => Ok(true),
            Phase::Call if style.rests() => Ok(false),
            Phase::Call => Err(Reject::BookInCall),
            Phase::Halted => Err(Reject::BookHalted),
        }
    }
}

impl Machine {
    /// Time passes: schedules act, and every call says what its auction would do.
    pub(super) fn tick_phases(&mut self, now_ms: u64, out: &mut Outbox) {
        for at in 0..self.books.len() {
            let Book { phase, schedule, .. } = self.books[at];
            if schedule.followed && now_ms >= schedule.next_ms {
                let (next, next_ms) = schedule.at(now_ms);
                self.books[at].schedule.next_ms = next_ms;
                if phase == Phase::Call {
                    self.uncross(at, out);
                }
                self.enter_phase(at, next, out);
            }
            if phase == Phase::Call || self.books[at].phase == Phase::Call {
                self.say_indicative(at, out);
            }
        }
    }

    pub(super) fn set_phase(
        &mut self,
        env: &Envelope,
        m: &SetPhase,
        wanted: Option<Phase>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let at = usize::from(m.book.get());
        let tier = self.books.get(at).ok_or(Reject::UnknownBook)?.tier;
        self.check_live(tier)?;
        self.use_client_id(env, client_id);
        let phase = self.take_phase(at, wanted, out);
        self.report_done(env, SetPhase::KIND, client_id, phase as u64, out);
        Ok(())
    }

    /// Gives a book a phase, or the one of its schedule; holds the auction that ends a call.
    pub(super) fn take_phase(
        &mut self,
        at: usize,
        wanted: Option<Phase>,
        out: &mut Outbox,
    ) -> Phase {
        let now_ms = self.now_ms();
        let book = &mut self.books[at];
        let before = book.phase;
        let phase = match wanted {
            Some(phase) => phase,
            // A tick that is about to come holds its auction.
            None if book.schedule.followed => before,
            None => {
                let (phase, next_ms) = book.schedule.at(now_ms);
                book.schedule.next_ms = next_ms;
                phase
            }
        };
        book.schedule.followed = wanted.is_none();
        if phase == Phase::Continuous && before != Phase::Continuous {
            self.uncross(at, out);
        }
        self.enter_phase(at, phase, out);
        self.say_indicative(at, out);
        phase
    }

    fn enter_phase(&mut self, at: usize, phase: Phase, out: &mut Outbox) {
        if self.books[at].phase != phase {
            self.books[at].phase = phase;
            self.fold(phase as u64 | (at as u64) << 8);
            let (book, phase) = ((at as u16).into(), phase as u8);
            out.push(ANY, &PhaseChanged { book, phase, reserved: 0 });
        }
    }

    /// Says what an auction would do if that has changed; nothing outside a call.
    fn say_indicative(&mut self, at: usize, out: &mut Outbox) {
        let book = &mut self.books[at];
        let now = match book.phase {
            Phase::Call => indicate(book, &self.slab, &mut self.hall),
            _ => Indication::NONE,
        };
        if book.indicative != now {
            book.indicative = now;
            self.fold(u64::from(now.price) << 48 ^ now.volume);
            let event = Indicative {
                volume: now.volume.into(),
                imbalance: (now.imbalance as u64).into(),
                price_ticks: u32::from(now.price).into(),
                book: (at as u16).into(),
                reserved: 0.into(),
            };
            out.push(ANY, &event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_calls_before_each_auction() {
        let schedule = Schedule::new(1000, 200);
        assert_eq!(schedule.at(5000), (Phase::Continuous, 5800));
        assert_eq!(schedule.at(5799), (Phase::Continuous, 5800));
        assert_eq!(schedule.at(5800), (Phase::Call, 6000));
        assert_eq!(schedule.at(5999), (Phase::Call, 6000));
        assert_eq!(Schedule::new(1000, 1000).at(6000), (Phase::Call, 7000));
        assert_eq!(Schedule::new(0, 0).at(6000), (Phase::Continuous, u64::MAX));
    }
}
