//! The manager of swaps: looks for instances that are at risk and for tokens that could help them.
//!
//! Every [`Genesis::swap_every_ms`](super::command::Genesis) it makes a list of redeemed tokens whose
//! instances are at risk: a forecast that begins within [`LEAD_MS`], with what is planned up to then, says
//! that they need more than they have with a probability of [`RISK_PERMILLE`] or more. Of several forecasts
//! that of the greatest risk counts, the first among equals. On the list is what may be swapped and is not,
//! of accounts whose standing policy lets the daemon ask. Greatest risk first, ties by id, it looks at
//! [`LOOKS`] of them, each as things stand by then, and proposes at most [`PROPOSALS`] swaps; from there on
//! a proposal goes the way of any other. It asks for the difference to quantile 90 or what the source spares,
//! until the forecast is over, [`LASTS_MAX_MS`] at most, and no longer than the token itself will last.
//! An instance may be in an [experiment](super::experiment) with another probability and another quantile.
//!
//! **Sources** are tokens of the same book that have VRUs to spare: all but one of a token that nobody
//! redeemed; of a redeemed one what its instance has beyond its need, the greatest of quantile 97.5 of its
//! forecasts, with all that is planned, and what it was measured to use between the last two cycles, a
//! quarter and one more. What is neither measured nor forecast is not idle. The owner's policy takes what
//! the other's offers, and that account can pay it. Those of the lowest priority go first, then those with
//! the most to spare, then by id.
//!
//! **No flapping.** An instance borrows in one swap at a time of a book; the next follows [`COOL_MS`] after the
//! end of the last. A token is the source of one proposal at a time. A pair that came to nothing, or was
//! rolled back, is not tried again for [`AGAIN_MS`].

use super::Machine;
use super::config::RESOURCES;
use super::event::Outbox;
use super::forecast::short_permille;
use super::swap::{Swap, price_micro};
use super::token::Row;
use std::cmp::Reverse;
use vendue_wire::code::{Resource, SwapAnswer, SwapReason, SwapState};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Forecasts that begin so soon count, milliseconds.
pub const LEAD_MS: u64 = 600_000;
/// Probability of too little from which an instance is at risk, thousandths.
pub const RISK_PERMILLE: u16 = 100;
/// Tokens at risk that are looked at in a cycle at most.
pub const LOOKS: usize = 8;
/// Swaps that are proposed in a cycle at most.
pub const PROPOSALS: usize = 4;
/// Owners have so long to decide, milliseconds.
pub const ASK_MS: u64 = 600_000;
/// A proposed swap lasts so long at most, milliseconds: by then there is another forecast.
pub const LASTS_MAX_MS: u64 = 3_600_000;
/// And so long at least.
pub const LASTS_MIN_MS: u64 = 60_000;
/// An instance rests for so long after a swap, milliseconds.
pub const COOL_MS: u64 = 60_000;
/// A pair that came to nothing rests for so long, milliseconds.
pub const AGAIN_MS: u64 = 3_600_000;

/// What an instance uses of a resource.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Use {
    /// Milli-credits reported since the last cycle.
    pub used_milli: u64,
    /// Reports since then.
    pub reports: u32,
    /// VRUs used between the two cycles before, and one; 0: nobody knows.
    pub seen: u32,
}

/// An instance that may have too little.
#[derive(Clone, Copy)]
struct Danger {
    /// Token that it redeemed.
    at: usize,
    /// Probability times impact.
    risk: u64,
    /// VRUs that it lacks.
    lacks: u32,
    /// Until then, milliseconds.
    until_ms: u64,
}

impl Machine {
    /// Use was reported, of what leases cover too.
    pub(super) fn swap_used(&mut self, pocket: usize, used_milli: u64) {
        if self.genesis.swap_every_ms.get() > 0 {
            let row = &mut self.swaps.uses[pocket];
            row.used_milli = row.used_milli.saturating_add(used_milli);
            row.reports = row.reports.saturating_add(1);
        }
    }

    /// The daemon starts again: nothing was measured while it was down.
    pub(super) fn restart_swaps(&mut self) {
        self.swaps.uses.fill(Use::default());
        self.swaps.cycled_ms = self.now_ms();
    }

    /// An instance goes, and what it used with it.
    pub(super) fn forget_use(&mut self, instance: u16) {
        let from = usize::from(instance) * RESOURCES;
        self.swaps.uses[from..from + RESOURCES].fill(Use::default());
    }

    /// Looks for swaps, if it is time. The books are then to be cleared.
    pub(super) fn manage_swaps(&mut self, now_ms: u64, out: &mut Outbox) {
        let every_ms = u64::from(self.genesis.swap_every_ms.get());
        let elapsed_ms = now_ms.saturating_sub(self.swaps.cycled_ms);
        if every_ms == 0 || elapsed_ms < every_ms {
            return;
        }
        // Of what was used before the first cycle nobody knows since when.
        let is_first = std::mem::replace(&mut self.swaps.cycled_ms, now_ms) == 0;
        for row in self.swaps.uses.iter_mut().filter(|row| **row != Use::default()) {
            let vru = u32::try_from(row.used_milli.div_ceil(elapsed_ms)).unwrap_or(u32::MAX - 1);
            let seen = if row.reports > 0 && !is_first { vru.saturating_add(1) } else { 0 };
            *row = Use { seen, ..Use::default() };
        }
        let (mut last, mut proposed) = (None, 0);
        for _ in 0..LOOKS {
            let Some(danger) = self.next_danger(last) else { break };
            last = Some((danger.risk, Reverse(self.tokens.rows()[danger.at].id)));
            proposed += usize::from(self.propose_for(&danger, now_ms, out));
            if proposed == PROPOSALS {
                break;
            }
        }
    }

    /// The greatest danger below one that was looked at.
    fn next_danger(&self, last: Option<(u64, Reverse<u64>)>) -> Option<Danger> {
        let rank = |danger: &Danger| (danger.risk, Reverse(self.tokens.rows()[danger.at].id));
        let all = (0..self.tokens.rows().len()).filter_map(|at| self.danger(at));
        all.filter(|danger| last.is_none_or(|last| rank(danger) < last)).max_by_key(rank)
    }

    /// True if a token is redeemed and the daemon may ask for swaps for it.
    fn is_managed(&self, row: &Row) -> bool {
        let seeks = self.swaps.terms[usize::from(row.account)].seek == 1;
        seeks && row.redeemed == 1 && row.swap_eligible == 1
    }

    /// True if an instance has a token to which the daemon would have VRUs lent.
    pub(super) fn may_be_lent(&self, instance: u16, resource: Resource) -> bool {
        let its = |row: &Row| {
            row.instance == instance && self.books[usize::from(row.book)].resource == resource
        };
        let may = |row: &Row| its(row) && self.is_managed(row) && row.sticky == 0;
        self.holding(instance, resource).redeemed > 0 && self.tokens.rows().iter().any(may)
    }

    /// What threatens the instance of a token for which the daemon may ask for swaps.
    fn danger(&self, at: usize) -> Option<Danger> {
        let row = &self.tokens.rows()[at];
        if !self.is_managed(row) || row.is_swapped() {
            return None;
        }
        let resource = self.books[usize::from(row.book)].resource;
        let (risk_permille, quantile) = self.swap_terms(row.instance, resource);
        let has = self.firm_vru(row.instance, resource);
        let impact = u64::from(self.impact_milli(row.instance, resource));
        let near_ms = self.now_ms() + LEAD_MS;
        let dangers = self.foreseen(row.instance, resource, near_ms).filter_map(|window| {
            let short = short_permille(window.vru, has);
            let lacks = u64::from(window.vru[quantile]).saturating_sub(has);
            (short >= risk_permille && lacks > 0).then_some(Danger {
                at,
                risk: u64::from(short) * impact,
                lacks: lacks as u32,
                until_ms: window.ends_ms(),
            })
        });
        dangers.reduce(|most, other| if other.risk > most.risk { other } else { most })
    }

    /// Proposes a swap for an instance at risk. False if there is none to be had.
    fn propose_for(&mut self, danger: &Danger, now_ms: u64, out: &mut Outbox) -> bool {
        let row = self.tokens.rows()[danger.at];
        let busy = |swap: &Swap| {
            let its = (swap.instances[1], swap.book) == (row.instance, row.book);
            its && (!swap.state().is_over() || swap.ends_ms.saturating_add(COOL_MS) > now_ms)
        };
        let left_ms = row.until_ms.saturating_sub(now_ms + ASK_MS);
        let lasts_ms = danger.until_ms.saturating_sub(now_ms).min(LASTS_MAX_MS).min(left_ms);
        if self.swaps.rows.iter().any(busy) || lasts_ms < LASTS_MIN_MS {
            return false;
        }
        let wish = Swap {
            asked_ms: now_ms,
            deadline_ms: now_ms + ASK_MS,
            vru: 1,
            lasts_ms: lasts_ms as u32,
            book: row.book,
            by_manager: 1,
            reason: SwapReason::Forecast as u8,
            ..Swap::default()
        };
        if self.check_borrower(danger.at, &wish).is_err() {
            return false;
        }
        let source = self.pick_source(danger.at, &wish, |source, spare| {
            let vru = spare.min(danger.lacks);
            self.offer(source, &row, vru, wish.lasts_ms).is_some()
                && !self.is_tried([source.id, row.id], now_ms)
        });
        let Some(source) = source else { return false };
        let lender = self.tokens.rows()[source];
        let vru = self.spare(&lender).min(danger.lacks);
        let Some(incentive_micro) = self.offer(&lender, &row, vru, wish.lasts_ms) else {
            return false;
        };
        let wish = Swap { vru, incentive_micro, ..wish };
        let at = self.propose_swap([source, danger.at], wish);
        self.tell_swap(at, out);
        self.answer_swap(at, out);
        true
    }

    /// Micro-units that the daemon offers for a swap; none if its owner's terms or means do not allow it.
    fn offer(&self, source: &Row, destination: &Row, vru: u32, lasts_ms: u32) -> Option<u64> {
        let terms = |row: &Row| &self.swaps.terms[usize::from(row.account)];
        let (lends, pays) = (terms(source), terms(destination));
        let rate = match SwapAnswer::from_u8(lends.answer)? {
            _ if source.account == destination.account => 0,
            SwapAnswer::Ask => pays.pay_micro,
            SwapAnswer::Accept if lends.least_micro <= pays.pay_micro => lends.least_micro,
            SwapAnswer::Accept | SwapAnswer::Refuse => return None,
        };
        let micro = price_micro(rate, vru, lasts_ms);
        self.check_means(destination.account, micro).is_ok().then_some(micro)
    }

    /// True if a pair, or its source, is under way or came to nothing of late.
    fn is_tried(&self, tokens: [u64; 2], now_ms: u64) -> bool {
        self.swaps.rows.iter().any(|swap| {
            let of_late = swap.ends_ms.saturating_add(AGAIN_MS) > now_ms;
            match swap.state() {
                SwapState::Proposed => swap.tokens[0] == tokens[0],
                SwapState::Active | SwapState::Boosting | SwapState::Ended => false,
                _ => swap.tokens == tokens && of_late,
            }
        })
    }

    /// The source that a request leaves to the daemon.
    pub(super) fn pick_for(&self, destination: usize, wish: &Swap) -> Option<usize> {
        let own = self.tokens.rows()[destination].account;
        self.pick_source(destination, wish, |source, spare| {
            let terms = &self.swaps.terms[usize::from(source.account)];
            let least = price_micro(terms.least_micro, wish.vru, wish.lasts_ms);
            let willing = match SwapAnswer::from_u8(terms.answer) {
                _ if source.account == own => true,
                Some(SwapAnswer::Ask) => true,
                Some(SwapAnswer::Accept) => wish.incentive_micro >= least,
                Some(SwapAnswer::Refuse) | None => false,
            };
            willing && spare >= wish.vru
        })
    }

    /// The best source that can lend and is fit for it.
    fn pick_source(
        &self,
        destination: usize,
        wish: &Swap,
        fits: impl Fn(&Row, u32) -> bool,
    ) -> Option<usize> {
        let rows = self.tokens.rows().iter().enumerate();
        let can = rows.filter(|(at, _)| self.check_lender(*at, destination, wish).is_ok());
        let idle = can.map(|(at, row)| (at, row, self.spare(row)));
        let fit = idle.filter(|(_, row, spare)| *spare > 0 && fits(row, *spare));
        let best = fit.min_by_key(|(_, row, spare)| (row.priority, Reverse(*spare), row.id));
        best.map(|(at, ..)| at)
    }

    /// VRUs that a token does not need.
    fn spare(&self, row: &Row) -> u32 {
        let most = row.vru - 1;
        if row.redeemed == 0 {
            return most;
        }
        let resource = self.books[usize::from(row.book)].resource;
        let Some(need) = self.need_of(row.instance, resource) else { return 0 };
        let idle = self.firm_vru(row.instance, resource).saturating_sub(need);
        u32::try_from(idle).unwrap_or(u32::MAX).min(most)
    }

    /// VRUs that an instance will need, if that is known.
    fn need_of(&self, instance: u16, resource: Resource) -> Option<u64> {
        let all = self.foreseen(instance, resource, u64::MAX);
        let forecast = all.map(|window| u64::from(window.vru[2])).max();
        let row = self.swaps.uses[super::ledger::pocket(instance, resource)];
        let measured = row.seen.checked_sub(1).map(u64::from);
        let measured = measured.map(|vru| vru + vru / 4 + 1);
        forecast.max(measured)
    }
}
