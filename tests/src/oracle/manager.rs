//! The manager of swaps, said as simply as possible: whenever it looks, all is listed and sorted anew.

use super::leases::ENTITLED;
use super::swaps::TokenSwap;
use super::tokens::Token;
use super::{Caller, Market};
use vendue_wire::code::{SwapAnswer, SwapReason, SwapState};
use vendue_wire::message::SwapRequest;

const MINUTE_MS: i128 = 60_000;
const HOUR_MS: i128 = 60 * MINUTE_MS;
/// Owners are asked for so long, and forecasts that begin so soon count.
const TEN_MINUTES_MS: i128 = 10 * MINUTE_MS;

/// What the manager knows.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    /// When it looked last.
    last_ms: Option<i128>,
    /// Instance, resource and milli-credits of each report since then.
    reports: Vec<(u32, usize, i128)>,
    /// Instance, resource and VRUs used between the two looks before.
    measured: Vec<(u32, usize, i128)>,
}

/// A token whose instance may have too little.
#[derive(Clone, Copy, Debug)]
struct Danger {
    token: u64,
    risk: i128,
    lacks: i128,
    until_ms: i128,
}

impl Danger {
    /// The greatest risk goes first, then the oldest token.
    fn rank(&self) -> (i128, u64) {
        (-self.risk, self.token)
    }
}

fn now_ms(who: &Caller) -> i128 {
    i128::from(who.time_ns / 1_000_000)
}

/// What is known.
impl Market {
    pub(super) fn note_use(&mut self, instance: u32, resource: usize, milli: u64) {
        if self.rules.swap_every_ms > 0 {
            self.looks.reports.push((instance, resource, milli.into()));
        }
    }

    pub(super) fn forget_use(&mut self, instance: u32) {
        self.looks.reports.retain(|report| report.0 != instance);
        self.looks.measured.retain(|measured| measured.0 != instance);
    }

    fn reckon_use(&mut self, now_ms: i128) {
        let reports = std::mem::take(&mut self.looks.reports);
        let last_ms = self.looks.last_ms.replace(now_ms);
        self.looks.measured.clear();
        // Before there was a look nobody knows since when.
        let Some(last_ms) = last_ms else { return };
        for &(instance, resource, _) in &reports {
            let of = |report: &(u32, usize, i128)| (report.0, report.1) == (instance, resource);
            if self.looks.measured.iter().any(of) {
                continue;
            }
            let all: i128 = reports.iter().filter(|report| of(report)).map(|report| report.2).sum();
            let passed_ms = now_ms - last_ms;
            let vru = (all.min(u64::MAX.into()) + passed_ms - 1) / passed_ms;
            self.looks.measured.push((instance, resource, vru.min(i128::from(u32::MAX) - 1)));
        }
    }

    /// VRUs that an instance will need, if anybody knows.
    fn needs(&self, who: &Caller, instance: u32, resource: usize) -> Option<i128> {
        let said = self.standing(who.time_ns).into_iter();
        let said = said.filter(|forecast| (forecast.of.0, forecast.of.1) == (instance, resource));
        let said = said.map(|forecast| self.with_plans(&forecast, who.time_ns, None).vru[2]);
        let measured = self.looks.measured.iter();
        let measured = measured.filter(|row| (row.0, row.1) == (instance, resource));
        said.chain(measured.map(|row| row.2 + row.2 / 4 + 1)).max()
    }

    /// VRUs that a token can spare: all but one, unless it is redeemed; then what its instance will not
    /// need, if that is known.
    pub(super) fn spare(&self, who: &Caller, token: &Token) -> i128 {
        let most = self.has(token) - 1;
        let Some(instance) = token.instance.filter(|_| token.redeemed) else { return most };
        let resource = self.books[token.book].resource;
        let Some(need) = self.needs(who, instance, resource) else { return 0 };
        (self.firm(instance, resource) - need).clamp(0, most)
    }

    /// What it would matter if an instance had too little.
    pub fn impact(&self, instance: u32, resource: usize) -> i128 {
        let entitled = self.of(instance, resource, ENTITLED) > 0;
        self.instances[&instance].bid[resource] * if entitled { 2 } else { 1 }
    }
}

/// What is looked for.
impl Market {
    /// True if it looked.
    pub(super) fn look_for_swaps(&mut self, who: &Caller) -> bool {
        let (every_ms, now_ms) = (self.rules.swap_every_ms, now_ms(who));
        if every_ms == 0 || now_ms - self.looks.last_ms.unwrap_or(0) < every_ms {
            return false;
        }
        self.reckon_use(now_ms);
        let (mut seen, mut proposed) = (None, 0);
        for _ in 0..8 {
            let dangers = self.dangers(who);
            let next = dangers.iter().find(|danger| seen.is_none_or(|seen| danger.rank() > seen));
            let Some(danger) = next else { break };
            seen = Some(danger.rank());
            if self.help(who, danger) {
                proposed += 1;
            }
            if proposed == 4 {
                break;
            }
        }
        true
    }

    fn dangers(&self, who: &Caller) -> Vec<Danger> {
        let mut all = Vec::new();
        for token in &self.tokens {
            let seeks = self.thinks(token.account).is_some_and(|policy| policy.seek == 1);
            let may = token.marks[0] == 1 && !self.is_swapped(token.id);
            let Some(instance) = token.instance.filter(|_| token.redeemed && seeks && may) else {
                continue;
            };
            let resource = self.books[token.book].resource;
            let mut dangers = self.dangers_of(who, token.id, instance, resource);
            // The sort is stable: of those that are as great the first one stays first.
            dangers.sort_by_key(Danger::rank);
            all.extend(dangers.first());
        }
        all.sort_by_key(Danger::rank);
        all
    }

    /// What each forecast that begins soon says.
    fn dangers_of(&self, who: &Caller, token: u64, of: u32, resource: usize) -> Vec<Danger> {
        let (has, soon_ms) = (self.firm(of, resource), now_ms(who) + TEN_MINUTES_MS);
        let (least, quantile) = self.swap_terms(of, resource);
        let mut found = Vec::new();
        for forecast in self.standing(who.time_ns) {
            if (forecast.of.0, forecast.of.1) != (of, resource) || forecast.holds_ms.0 > soon_ms {
                continue;
            }
            let forecast = self.with_plans(&forecast, who.time_ns, Some(soon_ms + 1));
            let (short, lacks) = (forecast.short_permille(has), forecast.vru[quantile] - has);
            if short >= least && lacks > 0 {
                let (risk, until_ms) = (short * self.impact(of, resource), forecast.holds_ms.1);
                found.push(Danger { token, risk, lacks, until_ms });
            }
        }
        found
    }

    /// True if an instance has a swap, or had one a minute ago.
    fn rests(&self, who: &Caller, token: &Token) -> bool {
        let own = |swap: &&TokenSwap| (swap.book, swap.borrower) == (token.book, token.instance);
        let mut own = self.token_swaps.iter().filter(own);
        own.any(|swap| !swap.state.is_over() || now_ms(who) < swap.ends_ms + MINUTE_MS)
    }

    /// Asks for what is lacking. False if nobody can spare it.
    fn help(&mut self, who: &Caller, danger: &Danger) -> bool {
        let now_ms = now_ms(who);
        let to = self.token(danger.token).expect("it was listed");
        let deadline_ms = now_ms + TEN_MINUTES_MS;
        let times = [danger.until_ms - now_ms, HOUR_MS, to.window.1 - deadline_ms];
        let lasts_ms = times.into_iter().min().unwrap_or(0);
        if lasts_ms < MINUTE_MS || self.rests(who, &to) {
            return false;
        }
        let mut m = SwapRequest {
            destination: to.id.into(),
            deadline_ms: (deadline_ms as u64).into(),
            lasts_ms: (lasts_ms as u32).into(),
            ..SwapRequest::zeroed()
        };
        if self.fits(who, &to, &m).is_err() {
            return false;
        }
        let mut sources = Vec::new();
        for token in &self.tokens {
            let spare = self.spare(who, token);
            m.vru = (spare.min(danger.lacks) as u32).into();
            let lends = spare > 0 && self.lends_to(who, token, &to, &m).is_ok();
            let Some(offer) = self.offer(token, &to, &m).filter(|_| lends) else { continue };
            if self.has_means(&to, offer).is_ok() && !self.is_tried(who, token, &to) {
                sources.push((token.marks[2], -spare, token.id, m.vru, offer as u64));
            }
        }
        sources.sort_by_key(|source| (source.0, source.1, source.2));
        let Some(&(_, _, id, vru, incentive)) = sources.first() else { return false };
        let source = self.token(id).expect("it was listed");
        (m.source, m.vru, m.incentive_micro) = (id.into(), vru, incentive.into());
        self.propose(who, &source, &to, &m, SwapReason::Forecast);
        true
    }

    /// Micro-units for a swap: what the source's owner lends for if that is not too much; to people all that
    /// would be paid; none between one account's. `None` if its owner does not want to.
    fn offer(&self, token: &Token, to: &Token, m: &SwapRequest) -> Option<i128> {
        let policy = self.thinks(token.account);
        let answer = policy.map_or(Some(SwapAnswer::Ask), |row| SwapAnswer::from_u8(row.answer))?;
        let least = policy.map_or(0, |row| row.least_micro.get());
        let most = self.thinks(to.account).map_or(0, |row| row.pay_micro.get());
        let rate = match answer {
            _ if token.account == to.account => 0,
            SwapAnswer::Ask => most,
            SwapAnswer::Accept if least <= most => least,
            SwapAnswer::Accept | SwapAnswer::Refuse => return None,
        };
        let milliseconds = i128::from(m.vru.get()) * i128::from(m.lasts_ms.get());
        Some((milliseconds * i128::from(rate) + 999) / 1000)
    }

    /// True if the source is asked for already, or the pair came to nothing within an hour.
    fn is_tried(&self, who: &Caller, source: &Token, to: &Token) -> bool {
        self.token_swaps.iter().any(|swap| {
            let late = now_ms(who) < swap.ends_ms + HOUR_MS;
            match swap.state {
                SwapState::Proposed => swap.tokens[0] == source.id,
                SwapState::Active | SwapState::Boosting | SwapState::Ended => false,
                SwapState::Rejected
                | SwapState::Withdrawn
                | SwapState::Refused
                | SwapState::Expired
                | SwapState::RolledBack => swap.tokens == [source.id, to.id] && late,
            }
        })
    }
}
