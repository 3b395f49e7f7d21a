//! What the naive model knows of swaps of tokens: a list. A token's own VRUs never change by them: what it
//! has is these, and the sum over all swaps under way.

use super::tokens::Token;
use super::{Caller, Market, Said};
use vendue_wire::code::{Kpi, Reject, Role, SwapAnswer, SwapReason, SwapState, TokenOutcome};
use vendue_wire::message::{
    ACCOUNT_SWAPS_MAX, ANY, Body, SWAPS_MAX, SetSwapPolicy, SwapApprove, SwapReject, SwapRequest,
};

/// A swap of tokens.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "what is not plain is explained")]
pub struct TokenSwap {
    pub id: u64,
    /// Source, destination.
    pub tokens: [u64; 2],
    pub generations: [u32; 2],
    pub accounts: [usize; 2],
    pub book: usize,
    pub terms: SwapRequest,
    pub state: SwapState,
    pub reason: SwapReason,
    /// Instance of the destination when it was asked for.
    pub(super) borrower: Option<u32>,
    pub by_manager: bool,
    begun_ms: i128,
    pub ends_ms: i128,
    pub paid: i128,
    /// Percent that each agreed to.
    percents: [i128; 2],
    pub breaches: u8,
    pub words: [u8; 32],
    session: (u32, u64),
}

impl TokenSwap {
    /// Which lends, and how much.
    fn lends(&self) -> Option<(usize, i128)> {
        match self.state {
            SwapState::Active => Some((0, self.terms.vru.get().into())),
            SwapState::Boosting => Some((1, self.terms.boost_vru.get().into())),
            _ => None,
        }
    }

    fn is_part(&self, token: u64) -> bool {
        self.lends().is_some() && self.tokens.contains(&token)
    }

    fn incentive(&self) -> i128 {
        self.terms.incentive_micro.get().into()
    }
}

/// The moment by which all that is asked for would be over.
fn over_ms(m: &SwapRequest) -> i128 {
    let lasts = [m.lasts_ms, m.boost_ms].map(|ms| i128::from(ms.get()));
    i128::from(m.deadline_ms.get()) + lasts[0] + lasts[1]
}

fn now_ms(who: &Caller) -> i128 {
    i128::from(who.time_ns / 1_000_000)
}

/// Numbers that follow from the list.
impl Market {
    /// VRUs that a token has.
    pub fn has(&self, token: &Token) -> i128 {
        let swaps = self.token_swaps.iter().filter(|swap| swap.is_part(token.id));
        let moved = swaps.map(|swap| {
            let (lender, vru) = swap.lends().expect("it is under way");
            if swap.tokens[lender] == token.id { -vru } else { vru }
        });
        token.vru + moved.sum::<i128>()
    }

    /// True while a token is part of a swap.
    pub(super) fn is_swapped(&self, token: u64) -> bool {
        self.token_swaps.iter().any(|swap| swap.is_part(token))
    }

    /// Micro-units held of an account for swaps.
    pub(super) fn held_for_swaps(&self, account: usize) -> i128 {
        let held = self.token_swaps.iter().filter(|swap| match swap.state {
            SwapState::Proposed => swap.accounts[1] == account,
            SwapState::Active => swap.accounts[0] == account,
            _ => false,
        });
        held.map(TokenSwap::incentive).sum()
    }

    pub(super) fn thinks(&self, account: usize) -> Option<&SetSwapPolicy> {
        self.swap_policies.iter().find(|m| m.account.get() as usize == account)
    }

    pub(super) fn token(&self, id: u64) -> Option<Token> {
        self.tokens.iter().find(|token| token.id == id).copied()
    }

    fn may_swap(&self, from: usize, to: usize) -> bool {
        let (giver, taker) = (&self.accounts[from], &self.accounts[to]);
        let both = giver.opted_in && taker.opted_in;
        let sells = giver.sells_to & (1 << taker.group) != 0;
        let buys = taker.buys_from & (1 << giver.group) != 0;
        from == to || (both && sells && buys)
    }
}

/// What may be asked.
impl Market {
    /// The account that a session acts for, or none for any.
    fn swaps_for(&self, who: &Caller) -> Result<Option<usize>, Reject> {
        let session = &self.sessions[who.session as usize];
        match session.role {
            Role::Operator => Ok(None),
            Role::Tenant => Ok(Some(session.account as usize)),
            Role::Agent | Role::Observer => Err(Reject::NotPermitted),
        }
    }

    pub(super) fn request_swap(&mut self, who: &Caller, m: &SwapRequest) -> Result<(), Reject> {
        let client_id = m.client_id.get();
        self.fresh(who, client_id)?;
        let own = self.swaps_for(who)?;
        let is_own = |token: &Token| own.is_none_or(|own| own == token.account);
        let destination = self.token(m.destination.get()).filter(is_own);
        let destination = destination.ok_or(Reject::UnknownToken)?;
        if destination.generation != m.destination_generation.get() {
            return Err(Reject::TokenStale);
        }
        let mut source = None;
        if m.source.get() != 0 {
            let open = |token: &Token| {
                let offered = token.marks[0] == 1;
                is_own(token) || (offered && self.may_swap(token.account, destination.account))
            };
            let found = self.token(m.source.get()).filter(open).ok_or(Reject::UnknownToken)?;
            if found.generation != m.source_generation.get() {
                return Err(Reject::TokenStale);
            }
            source = Some(found);
        }
        if m.vru.get() == 0 || i128::from(m.boost_vru.get()) >= self.has(&destination) {
            return Err(Reject::BadQuantity);
        }
        if i128::from(m.deadline_ms.get()) <= now_ms(who) {
            return Err(Reject::BadExpiry);
        }
        self.fits(who, &destination, m)?;
        let source = match source {
            Some(source) => source,
            None => self.best_source(who, &destination, m).ok_or(Reject::NoSource)?,
        };
        self.lends_to(who, &source, &destination, m)?;
        self.has_means(&destination, m.incentive_micro.get().into())?;
        self.use_id(who, client_id);
        self.done(who, SwapRequest::KIND, client_id, i128::from(self.swap_ids) + 1);
        self.propose(who, &source, &destination, m, SwapReason::Requested);
        self.clear_all(who);
        Ok(())
    }

    /// Room for another proposal for a token, and the money.
    pub(super) fn has_means(&self, to: &Token, incentive: i128) -> Result<(), Reject> {
        let open = |swap: &&TokenSwap| !swap.state.is_over();
        let all = self.token_swaps.iter().filter(open).count();
        let same = |swap: &&TokenSwap| open(swap) && swap.accounts[1] == to.account;
        let of_account = self.token_swaps.iter().filter(same).count();
        if all >= SWAPS_MAX || of_account >= ACCOUNT_SWAPS_MAX {
            return Err(Reject::SwapsFull);
        }
        let free = self.accounts[to.account].free;
        if free < incentive { Err(Reject::InsufficientFunds) } else { Ok(()) }
    }

    /// Asks for a swap, and answers where no person has to.
    pub(super) fn propose(
        &mut self,
        who: &Caller,
        source: &Token,
        destination: &Token,
        m: &SwapRequest,
        reason: SwapReason,
    ) {
        self.accounts[destination.account].free -= i128::from(m.incentive_micro.get());
        self.put_swap(who, source, destination, m, reason);
        let at = self.token_swaps.len() - 1;
        self.say_swap(who, at);
        self.decide(who, at);
    }

    fn put_swap(
        &mut self,
        who: &Caller,
        source: &Token,
        destination: &Token,
        m: &SwapRequest,
        reason: SwapReason,
    ) {
        if self.token_swaps.len() == SWAPS_MAX {
            let over = self.token_swaps.iter().position(|swap| swap.state.is_over());
            self.token_swaps.remove(over.expect("one is over"));
        }
        self.swap_ids += 1;
        let accounts = [source.account, destination.account];
        let percent =
            |account: usize| self.thinks(account).map_or(0, |m| m.degradation_percent.get().into());
        let number = self.sessions.get(who.session as usize).map_or(0, |row| row.number);
        let swap = TokenSwap {
            id: self.swap_ids,
            tokens: [source.id, destination.id],
            generations: [source.generation, destination.generation],
            accounts,
            book: source.book,
            terms: *m,
            state: SwapState::Proposed,
            reason,
            borrower: destination.instance,
            by_manager: who.session == ANY,
            begun_ms: 0,
            ends_ms: 0,
            paid: 0,
            percents: accounts.map(percent),
            breaches: 0,
            words: [0; 32],
            session: (who.session, number),
        };
        self.token_swaps.push(swap);
    }

    /// What both tokens have to be.
    pub(super) fn fits(&self, who: &Caller, token: &Token, m: &SwapRequest) -> Result<(), Reject> {
        let [eligible, sticky, ..] = token.marks;
        // Processors, memory, block I/O, network, accelerators.
        let takes_ms = [100, 1000, 100, 0, 0][self.books[token.book].resource];
        let bears_ms = self.thinks(token.account).map_or(u32::MAX, |m| m.downtime_ms.get());
        if eligible == 0 {
            Err(Reject::NotSwapEligible)
        } else if sticky == 1 && token.redeemed {
            Err(Reject::TokenSticky)
        } else if self.is_swapped(token.id) {
            Err(Reject::TokenInSwap)
        } else if token.window.0 > now_ms(who) || token.window.1 < over_ms(m) {
            Err(Reject::BeyondWindow)
        } else if bears_ms < takes_ms {
            Err(Reject::DowntimeTooLong)
        } else {
            Ok(())
        }
    }

    pub(super) fn lends_to(
        &self,
        who: &Caller,
        source: &Token,
        destination: &Token,
        m: &SwapRequest,
    ) -> Result<(), Reject> {
        if source.id == destination.id || source.book != destination.book {
            return Err(Reject::TokensDiffer);
        }
        if !self.may_swap(source.account, destination.account) {
            return Err(Reject::NotPermitted);
        }
        if i128::from(m.vru.get()) >= self.has(source) {
            return Err(Reject::BadQuantity);
        }
        self.fits(who, source, m)
    }

    fn best_source(&self, who: &Caller, to: &Token, m: &SwapRequest) -> Option<Token> {
        let willing = |token: &Token| {
            let Some(policy) = self.thinks(token.account).filter(|_| token.account != to.account)
            else {
                return true;
            };
            match SwapAnswer::from_u8(policy.answer) {
                Some(SwapAnswer::Ask) => true,
                Some(SwapAnswer::Accept) => i128::from(m.incentive_micro.get()) >= least(policy, m),
                _ => false,
            }
        };
        let mut all: Vec<(u8, i128, u64)> = Vec::new();
        for token in &self.tokens {
            let spare = self.spare(who, token);
            let lends = self.lends_to(who, token, to, m).is_ok() && willing(token);
            if lends && spare >= i128::from(m.vru.get()) {
                all.push((token.marks[2], -spare, token.id));
            }
        }
        all.sort_unstable();
        all.first().and_then(|(_, _, id)| self.token(*id))
    }

    fn waiting(&self, who: &Caller, id: u64, own: Option<usize>) -> Result<usize, Reject> {
        let at = self.token_swaps.iter().position(|swap| swap.id == id);
        let at = at.ok_or(Reject::UnknownSwap)?;
        let swap = &self.token_swaps[at];
        if own.is_some_and(|own| !swap.accounts.contains(&own)) {
            return Err(Reject::UnknownSwap);
        }
        let late = i128::from(swap.terms.deadline_ms.get()) <= now_ms(who);
        if swap.state != SwapState::Proposed || late { Err(Reject::SwapSettled) } else { Ok(at) }
    }

    pub(super) fn approve_swap(&mut self, who: &Caller, m: &SwapApprove) -> Result<(), Reject> {
        self.fresh(who, m.client_id.get())?;
        let own = self.swaps_for(who)?;
        let at = self.waiting(who, m.id.get(), own)?;
        let swap = self.token_swaps[at];
        let [from, to] = swap.accounts;
        if own.is_some_and(|own| own != from) || !self.may_swap(from, to) {
            return Err(Reject::NotPermitted);
        }
        self.use_id(who, m.client_id.get());
        self.expire_tokens(who);
        let value = i128::from(swap.generations[0]) + 1;
        self.done(who, SwapApprove::KIND, m.client_id.get(), value);
        self.begin(who, at, SwapReason::Owner);
        self.clear_all(who);
        Ok(())
    }

    pub(super) fn reject_swap(&mut self, who: &Caller, m: &SwapReject) -> Result<(), Reject> {
        self.fresh(who, m.client_id.get())?;
        let own = self.swaps_for(who)?;
        let at = self.waiting(who, m.id.get(), own)?;
        self.use_id(who, m.client_id.get());
        let swap = &mut self.token_swaps[at];
        swap.words = m.words;
        let (incentive, takes_back) =
            (swap.incentive(), own.is_some_and(|o| o != swap.accounts[0]));
        self.done(who, SwapReject::KIND, m.client_id.get(), incentive);
        let state = if takes_back { SwapState::Withdrawn } else { SwapState::Rejected };
        self.close_swap(who, at, state, SwapReason::Owner);
        Ok(())
    }

    pub(super) fn set_swap_policy(
        &mut self,
        who: &Caller,
        m: &SetSwapPolicy,
    ) -> Result<(), Reject> {
        self.fresh(who, m.client_id.get())?;
        let (own, account) = (self.swaps_for(who)?, m.account.get() as usize);
        if account >= self.accounts.len() || own.is_some_and(|own| own != account) {
            return Err(Reject::UnknownAccount);
        }
        self.use_id(who, m.client_id.get());
        self.swap_policies.retain(|other| other.account != m.account);
        self.swap_policies.push(*m);
        self.done(who, SetSwapPolicy::KIND, m.client_id.get(), account as i128);
        Ok(())
    }
}

/// Micro-units for which a policy lends.
fn least(policy: &SetSwapPolicy, m: &SwapRequest) -> i128 {
    let seconds = i128::from(m.vru.get()) * i128::from(m.lasts_ms.get());
    (seconds * i128::from(policy.least_micro.get()) + 999) / 1000
}

/// What happens.
impl Market {
    fn decide(&mut self, who: &Caller, at: usize) {
        let swap = self.token_swaps[at];
        let policy = self.thinks(swap.accounts[0]).copied();
        let answer = policy.and_then(|policy| SwapAnswer::from_u8(policy.answer));
        if swap.accounts[0] == swap.accounts[1] {
            self.expire_tokens(who);
            return self.begin(who, at, SwapReason::OneAccount);
        }
        match (answer, policy) {
            (Some(SwapAnswer::Accept), Some(policy)) => {
                if swap.incentive() >= least(&policy, &swap.terms) {
                    self.expire_tokens(who);
                    self.begin(who, at, SwapReason::Policy);
                } else {
                    self.close_swap(who, at, SwapState::Rejected, SwapReason::IncentiveTooLow);
                }
            }
            (Some(SwapAnswer::Refuse), _) => {
                self.close_swap(who, at, SwapState::Rejected, SwapReason::Policy);
            }
            _ => {}
        }
    }

    fn close_swap(&mut self, who: &Caller, at: usize, state: SwapState, reason: SwapReason) {
        let swap = &mut self.token_swaps[at];
        (swap.state, swap.reason, swap.ends_ms) = (state, reason, now_ms(who));
        let (account, incentive) = (swap.accounts[1], swap.incentive());
        self.accounts[account].free += incentive;
        self.say_swap(who, at);
    }

    fn begin(&mut self, who: &Caller, at: usize, reason: SwapReason) {
        let swap = &mut self.token_swaps[at];
        (swap.state, swap.reason, swap.begun_ms) = (SwapState::Active, reason, now_ms(who));
        swap.ends_ms = now_ms(who) + i128::from(swap.terms.lasts_ms.get());
        let tokens = swap.tokens;
        self.say_swap(who, at);
        self.both_changed(who, tokens);
        self.settle_swaps(who);
    }

    /// Both tokens of a swap changed, who has less now named first.
    fn both_changed(&mut self, who: &Caller, tokens: [u64; 2]) {
        for id in tokens {
            let token = self.tokens.iter_mut().find(|token| token.id == id);
            token.expect("a swap's token is there").generation += 1;
        }
        tokens.iter().for_each(|&id| self.say_token(who, id, TokenOutcome::Swapped));
    }

    fn finish(&mut self, who: &Caller, at: usize, state: SwapState, reason: SwapReason) {
        let now_ms = now_ms(who);
        let swap = &mut self.token_swaps[at];
        let (lender, _) = swap.lends().expect("it is under way");
        let due_ms = swap.ends_ms;
        (swap.state, swap.reason, swap.ends_ms, swap.breaches) = (state, reason, now_ms, 0);
        let [from, to] = swap.tokens;
        if lender == 0 {
            let lasts = i128::from(swap.terms.lasts_ms.get());
            let served = (now_ms.min(due_ms) - swap.begun_ms).clamp(0, lasts);
            swap.paid = swap.incentive() * served / lasts;
            let boost_ends_ms = due_ms + i128::from(swap.terms.boost_ms.get());
            if state == SwapState::Ended && swap.terms.boost_vru.get() > 0 && boost_ends_ms > now_ms
            {
                (swap.state, swap.ends_ms) = (SwapState::Boosting, boost_ends_ms);
            }
            let (accounts, paid, all) = (swap.accounts, swap.paid, swap.incentive());
            self.accounts[accounts[0]].free += paid;
            self.accounts[accounts[1]].free += all - paid;
        }
        let boosts = self.token_swaps[at].state == SwapState::Boosting;
        self.say_swap(who, at);
        if boosts {
            // First all is as it was, then it goes the other way.
            self.token_swaps[at].state = SwapState::Ended;
            self.both_changed(who, [to, from]);
            self.token_swaps[at].state = SwapState::Boosting;
            self.both_changed(who, [to, from]);
        } else if lender == 0 {
            self.both_changed(who, [to, from]);
        } else {
            self.both_changed(who, [from, to]);
        }
        self.settle_swaps(who);
    }

    /// A token is about to be over, or its instance goes.
    pub(super) fn leave_swaps(&mut self, who: &Caller, token: u64, reason: SwapReason) {
        while let Some(at) = self.token_swaps.iter().position(|swap| swap.is_part(token)) {
            let in_time = self.token_swaps[at].ends_ms <= now_ms(who);
            match in_time {
                true => self.finish(who, at, SwapState::Ended, SwapReason::Time),
                false => self.finish(who, at, SwapState::RolledBack, reason),
            }
        }
    }

    /// Refuses what is about tokens that are not as they were.
    pub(super) fn settle_swaps(&mut self, who: &Caller) {
        for at in 0..self.token_swaps.len() {
            let swap = self.token_swaps[at];
            let found = swap.tokens.map(|id| self.token(id).map(|token| token.generation));
            if swap.state != SwapState::Proposed || found == swap.generations.map(Some) {
                continue;
            }
            let over = found.contains(&None);
            let reason = if over { SwapReason::TokenOver } else { SwapReason::TokenChanged };
            self.close_swap(who, at, SwapState::Refused, reason);
        }
    }

    /// Time passes. True if a swap ended.
    pub(super) fn tick_swaps(&mut self, who: &Caller) -> bool {
        let mut ended = false;
        for at in 0..self.token_swaps.len() {
            let swap = &self.token_swaps[at];
            let waits = swap.state == SwapState::Proposed;
            if waits && i128::from(swap.terms.deadline_ms.get()) <= now_ms(who) {
                self.close_swap(who, at, SwapState::Expired, SwapReason::Time);
            } else if swap.lends().is_some() && swap.ends_ms <= now_ms(who) {
                self.finish(who, at, SwapState::Ended, SwapReason::Time);
                ended = true;
            }
        }
        ended
    }

    /// An instance has a token to which the manager would have VRUs lent.
    pub(super) fn may_be_lent(&self, instance: u32, resource: usize) -> bool {
        self.tokens.iter().any(|token| {
            let [eligible, sticky, ..] = token.marks;
            let its = token.redeemed && token.instance == Some(instance);
            let seeks = self.thinks(token.account).is_some_and(|m| m.seek == 1);
            let of = self.books[token.book].resource == resource;
            its && of && seeks && (eligible, sticky) == (1, 0)
        })
    }

    /// What its owner agreed to, of a swap in which an instance lends and this is its KPI.
    fn agreed(&self, swap: &TokenSwap, instance: u32, kpi: u8) -> Option<(i128, i128)> {
        let (lender, _) = swap.lends()?;
        let token = self.token(swap.tokens[lender])?;
        let its = token.redeemed && token.instance == Some(instance) && token.marks[3] == kpi;
        its.then_some((token.profile_limit.into(), swap.percents[lender]))
    }

    /// True if an instance lends and may say what that does to it.
    pub(super) fn is_profiled(&self, instance: u32, kpi: u8) -> bool {
        self.token_swaps.iter().any(|swap| self.agreed(swap, instance, kpi).is_some())
    }

    /// Somebody says what a KPI is.
    pub(super) fn swap_kpi(&mut self, who: &Caller, instance: u32, kpi: u8, value: u32) {
        let mut rolled_back = false;
        for at in 0..self.token_swaps.len() {
            let agreed = self.agreed(&self.token_swaps[at], instance, kpi);
            let Some((limit, percent)) = agreed else { continue };
            let value = i128::from(value) * 100;
            let worse = if kpi == Kpi::Throughput as u8 {
                value < limit * (100 - percent).max(0)
            } else {
                value > limit * (100 + percent)
            };
            let swap = &mut self.token_swaps[at];
            swap.breaches = if worse { swap.breaches + 1 } else { 0 };
            if swap.breaches == 3 {
                self.finish(who, at, SwapState::RolledBack, SwapReason::Degraded);
                rolled_back = true;
            }
        }
        if rolled_back {
            self.clear_all(who);
        }
    }

    /// Once for the record, then to who asked for it, then to the first four tenants of both.
    fn say_swap(&mut self, who: &Caller, at: usize) {
        let swap = self.token_swaps[at];
        let (slot, number) = swap.session;
        let known = self.sessions.get(slot as usize).is_some_and(|row| row.number == number);
        let asker = known.then_some(slot);
        let tenants = (0..self.rules.sessions_max as u32).filter(|&at| {
            let row = &self.sessions[at as usize];
            let its = swap.accounts.iter().any(|&account| row.account == account as u32);
            row.connected && row.role == Role::Tenant && its && Some(at) != asker
        });
        let told: Vec<u32> = [ANY].into_iter().chain(asker).chain(tenants.take(4)).collect();
        for to in told {
            self.said.push(Said::TokenSwap {
                to,
                id: swap.id,
                time_ns: who.time_ns,
                tokens: swap.tokens,
                accounts: swap.accounts,
                ends_ms: swap.ends_ms,
                paid: swap.paid,
                vru: swap.lends().map_or(swap.terms.vru.get().into(), |(_, vru)| vru),
                book: swap.book,
                state: (swap.state, swap.reason),
                words: swap.words,
            });
        }
    }
}
