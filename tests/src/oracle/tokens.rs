//! What the naive model knows of tokens: a list, and sums over every moment.

use super::{Caller, Market, Said};
use vendue_wire::code::{Reject, Role, SwapReason, TokenOutcome};
use vendue_wire::message::{
    ANY, Body, IssueToken, MergeTokens, RedeemToken, RevokeToken, SplitToken, TOKEN_BYTES,
    TOKENS_MAX, Token as Shown, TransferToken, U32,
};

/// A reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the protocol")]
pub struct Token {
    pub id: u64,
    pub account: usize,
    pub instance: Option<u32>,
    pub book: usize,
    /// Its own, beyond swaps.
    pub vru: i128,
    /// From, until.
    pub window: (i128, i128),
    pub generation: u32,
    /// Swap eligible, sticky, priority, profile.
    pub marks: [u8; 4],
    pub profile_limit: u64,
    pub redeemed: bool,
    /// Slot and number of the session that changed it last.
    session: (u32, u64),
}

impl Token {
    fn is_open(&self, at_ms: i128) -> bool {
        self.window.0 <= at_ms && at_ms < self.window.1
    }
}

fn now_ms(who: &Caller) -> i128 {
    i128::from(who.time_ns / 1_000_000)
}

/// What may be asked.
impl Market {
    /// VRUs of a book that tokens reserve at a moment.
    fn promised_at(&self, book: usize, at_ms: i128) -> i128 {
        let open = self.tokens.iter().filter(|token| token.book == book && token.is_open(at_ms));
        open.map(|token| token.vru).sum()
    }

    /// The most that they reserve at one moment: sums only grow where a window begins.
    pub fn pledged(&self, book: usize) -> i128 {
        let begins = self.tokens.iter().map(|token| token.window.0);
        begins.map(|at_ms| self.promised_at(book, at_ms)).max().unwrap_or(0)
    }

    /// VRUs of a book that are reserved by baselines, or will be by tokens.
    pub fn spoken_for(&self, book: usize) -> i128 {
        let (tier, resource) = (self.books[book].tier, self.books[book].resource);
        self.reserved(tier, resource) + self.pledged(book)
    }

    /// VRUs of tokens that an instance has.
    pub fn redeemed(&self, instance: u32, resource: usize) -> i128 {
        let own = self.tokens.iter().filter(|token| token.redeemed);
        let own = own.filter(|token| token.instance == Some(instance));
        let own = own.filter(|token| self.books[token.book].resource == resource);
        own.map(|token| self.has(token)).sum()
    }

    fn role(&self, who: &Caller) -> Role {
        self.sessions[who.session as usize].role
    }

    pub(super) fn issue_token(&mut self, who: &Caller, m: &IssueToken) -> Result<(), Reject> {
        if self.role(who) != Role::Operator {
            return Err(Reject::NotPermitted);
        }
        self.fresh(who, m.client_id.get())?;
        let (account, tier) = (m.account.get() as usize, m.tier.get());
        if account >= self.accounts.len() {
            return Err(Reject::UnknownAccount);
        }
        if usize::from(tier) >= self.tiers.len() {
            return Err(Reject::UnknownTier);
        }
        self.in_use(tier)?;
        let book = self.book_of(tier, m.resource.into()).ok_or(Reject::UnknownBook)?;
        let instance = Some(m.instance.get()).filter(|&number| number != ANY);
        if let Some(number) = instance {
            let row = self.instances.get(&number).filter(|row| row.account == account);
            if row.ok_or(Reject::UnknownInstance)?.tier != tier {
                return Err(Reject::WrongTier);
            }
        }
        let vru = i128::from(m.vru.get());
        if vru == 0 {
            return Err(Reject::BadQuantity);
        }
        let window = (now_ms(who).max(m.from_ms.get().into()), i128::from(m.until_ms.get()));
        if window.0 >= window.1 {
            return Err(Reject::BadExpiry);
        }
        if self.tokens.len() == TOKENS_MAX {
            return Err(Reject::TokensFull);
        }
        let here = |at: &i128| window.0 <= *at && *at < window.1;
        let begins = self.tokens.iter().map(|token| token.window.0).filter(here);
        let moments = begins.chain([window.0]);
        let most = moments.map(|at| self.promised_at(book, at)).max().unwrap_or(0);
        let reserved = self.reserved(tier, m.resource.into());
        if reserved + most + vru > self.books[book].capacity_vru {
            return Err(Reject::InsufficientCapacity);
        }
        self.use_id(who, m.client_id.get());
        self.token_ids += 1;
        self.tokens.push(Token {
            id: self.token_ids,
            account,
            instance,
            book,
            vru,
            window,
            generation: 1,
            marks: [m.swap_eligible, m.sticky, m.priority, m.profile],
            profile_limit: m.profile_limit.get(),
            redeemed: false,
            session: self.signature(who),
        });
        self.done(who, IssueToken::KIND, m.client_id.get(), self.token_ids.into());
        self.say_token(who, self.token_ids, TokenOutcome::Issued);
        Ok(())
    }

    fn signature(&self, who: &Caller) -> (u32, u64) {
        (who.session, self.sessions[who.session as usize].number)
    }

    /// The token that is shown, if the session may show it and it is what it says.
    fn shown(&self, who: &Caller, bytes: &[u8; TOKEN_BYTES]) -> Result<Token, Reject> {
        let shown = Shown::of(bytes);
        let token = self.tokens.iter().find(|token| token.id == shown.id.get());
        let session = &self.sessions[who.session as usize];
        let may = |token: &&Token| match session.role {
            Role::Operator => true,
            Role::Tenant => session.account == token.account as u32,
            Role::Agent => Some(session.instance) == token.instance,
            Role::Observer => false,
        };
        let ours = shown.house.get() == self.house;
        let token = *token.filter(may).filter(|_| ours).ok_or(Reject::UnknownToken)?;
        if token.generation != shown.generation.get() {
            return Err(Reject::TokenStale);
        }
        if self.show(&token).sealed() != shown.sealed() {
            return Err(Reject::TokenForged);
        }
        if token.redeemed { Err(Reject::TokenRedeemed) } else { Ok(token) }
    }

    /// As [`Market::shown`], of one that is not part of a swap.
    fn whole(&self, who: &Caller, bytes: &[u8; TOKEN_BYTES]) -> Result<Token, Reject> {
        let token = self.shown(who, bytes)?;
        if self.is_swapped(token.id) { Err(Reject::TokenInSwap) } else { Ok(token) }
    }

    /// A token as it is to be shown, without a seal.
    pub fn show(&self, token: &Token) -> Shown {
        let book = &self.books[token.book];
        let [swap_eligible, sticky, priority, profile] = token.marks;
        Shown {
            house: self.house.into(),
            id: token.id.into(),
            from_ms: (token.window.0 as u64).into(),
            until_ms: (token.window.1 as u64).into(),
            profile_limit: token.profile_limit.into(),
            vru: (self.has(token) as u32).into(),
            generation: token.generation.into(),
            account: (token.account as u32).into(),
            instance: token.instance.map_or(ANY.into(), U32::new),
            tier: book.tier.into(),
            resource: book.resource as u8,
            priority,
            profile,
            swap_eligible,
            sticky,
            reserved: 0,
            key: 0.into(),
            mac: [0; 32],
        }
    }

    fn for_accounts(&self, who: &Caller) -> Result<(), Reject> {
        match self.role(who) {
            Role::Operator | Role::Tenant => Ok(()),
            Role::Agent | Role::Observer => Err(Reject::NotPermitted),
        }
    }

    fn alter(&mut self, who: &Caller, id: u64, change: impl FnOnce(&mut Token)) -> u32 {
        let session = self.signature(who);
        let token = self.tokens.iter_mut().find(|token| token.id == id).expect("it is there");
        change(token);
        token.generation += 1;
        token.session = session;
        token.generation
    }

    pub(super) fn redeem_token(&mut self, who: &Caller, m: &RedeemToken) -> Result<(), Reject> {
        let (client_id, number) = (m.client_id.get(), m.instance.get());
        self.fresh(who, client_id)?;
        self.may_act(who, number)?;
        let row = self.instances[&number];
        let token = self.shown(who, &m.token)?;
        let book = &self.books[token.book];
        let refusals = [
            (token.account != row.account, Reject::UnknownToken),
            (token.instance.is_some_and(|own| own != number), Reject::TokenBound),
            (book.tier != row.tier, Reject::WrongTier),
            (row.baseline[book.resource] == 0, Reject::BadQuantity),
            (!token.is_open(now_ms(who)), Reject::TokenNotOpen),
        ];
        if let Some((_, why)) = refusals.into_iter().find(|(refused, _)| *refused) {
            return Err(why);
        }
        self.use_id(who, client_id);
        self.expire_tokens(who);
        let generation = self
            .alter(who, token.id, |token| (token.instance, token.redeemed) = (Some(number), true));
        self.done(who, RedeemToken::KIND, client_id, generation.into());
        self.say_token(who, token.id, TokenOutcome::Redeemed);
        self.clear_all(who);
        self.settle_swaps(who);
        Ok(())
    }

    pub(super) fn split_token(&mut self, who: &Caller, m: &SplitToken) -> Result<(), Reject> {
        let client_id = m.client_id.get();
        self.fresh(who, client_id)?;
        self.for_accounts(who)?;
        let token = self.whole(who, &m.token)?;
        let (vru, at_ms) = (i128::from(m.vru.get()), i128::from(m.at_ms.get()));
        let by_time = at_ms != 0;
        if !by_time && vru >= token.vru {
            return Err(Reject::BadQuantity);
        }
        let within = token.window.0 < at_ms && at_ms < token.window.1 && at_ms > now_ms(who);
        if by_time && !within {
            return Err(Reject::BadExpiry);
        }
        if self.tokens.len() == TOKENS_MAX {
            return Err(Reject::TokensFull);
        }
        self.use_id(who, client_id);
        self.alter(
            who,
            token.id,
            |token| {
                if by_time { token.window.1 = at_ms } else { token.vru -= vru }
            },
        );
        self.token_ids += 1;
        self.tokens.push(Token {
            id: self.token_ids,
            generation: 1,
            vru: if by_time { token.vru } else { vru },
            window: if by_time { (at_ms, token.window.1) } else { token.window },
            session: self.signature(who),
            ..token
        });
        self.done(who, SplitToken::KIND, client_id, self.token_ids.into());
        self.say_token(who, token.id, TokenOutcome::Split);
        self.say_token(who, self.token_ids, TokenOutcome::Split);
        self.settle_swaps(who);
        Ok(())
    }

    pub(super) fn merge_tokens(&mut self, who: &Caller, m: &MergeTokens) -> Result<(), Reject> {
        let client_id = m.client_id.get();
        self.fresh(who, client_id)?;
        self.for_accounts(who)?;
        let (token, other) = (self.whole(who, &m.token)?, self.whole(who, &m.other)?);
        let same = |token: &Token| {
            (token.account, token.instance, token.book, token.marks, token.profile_limit)
        };
        let (vru, window) = if token.window == other.window {
            (token.vru + other.vru, token.window)
        } else if token.vru == other.vru && token.window.1 == other.window.0 {
            (token.vru, (token.window.0, other.window.1))
        } else if token.vru == other.vru && other.window.1 == token.window.0 {
            (token.vru, (other.window.0, token.window.1))
        } else {
            return Err(Reject::TokensDiffer);
        };
        if token.id == other.id || same(&token) != same(&other) {
            return Err(Reject::TokensDiffer);
        }
        self.use_id(who, client_id);
        let generation =
            self.alter(who, token.id, |token| (token.vru, token.window) = (vru, window));
        self.done(who, MergeTokens::KIND, client_id, generation.into());
        self.say_token(who, token.id, TokenOutcome::Merged);
        self.end_token(who, other.id, TokenOutcome::Absorbed);
        Ok(())
    }

    pub(super) fn transfer_token(&mut self, who: &Caller, m: &TransferToken) -> Result<(), Reject> {
        let client_id = m.client_id.get();
        self.fresh(who, client_id)?;
        self.for_accounts(who)?;
        let token = self.whole(who, &m.token)?;
        let to = m.account.get() as usize;
        let taker = self.accounts.get(to).ok_or(Reject::UnknownAccount)?;
        let giver = &self.accounts[token.account];
        let both = giver.opted_in && taker.opted_in;
        let sells = giver.sells_to & (1 << taker.group) != 0;
        let buys = taker.buys_from & (1 << giver.group) != 0;
        if !(both && sells && buys) {
            return Err(Reject::NotPermitted);
        }
        self.use_id(who, client_id);
        let generation =
            self.alter(who, token.id, |token| (token.account, token.instance) = (to, None));
        self.done(who, TransferToken::KIND, client_id, generation.into());
        self.say_token(who, token.id, TokenOutcome::Transferred);
        self.settle_swaps(who);
        Ok(())
    }

    pub(super) fn revoke_token(&mut self, who: &Caller, m: &RevokeToken) -> Result<(), Reject> {
        if self.role(who) != Role::Operator {
            return Err(Reject::NotPermitted);
        }
        self.fresh(who, m.client_id.get())?;
        let id = m.id.get();
        let token = *self.tokens.iter().find(|token| token.id == id).ok_or(Reject::UnknownToken)?;
        self.use_id(who, m.client_id.get());
        self.done(who, RevokeToken::KIND, m.client_id.get(), self.has(&token));
        self.end_token(who, id, TokenOutcome::Revoked);
        self.clear_all(who);
        Ok(())
    }
}

/// What happens.
impl Market {
    fn drop_token(&mut self, who: &Caller, id: u64, why: TokenOutcome) {
        self.leave_swaps(who, id, SwapReason::TokenOver);
        self.say_token(who, id, why);
        self.tokens.retain(|token| token.id != id);
    }

    fn end_token(&mut self, who: &Caller, id: u64, why: TokenOutcome) {
        self.drop_token(who, id, why);
        self.settle_swaps(who);
    }

    pub(super) fn expire_tokens(&mut self, who: &Caller) -> bool {
        let over = self.tokens.iter().filter(|token| token.window.1 <= now_ms(who));
        let over: Vec<u64> = over.map(|token| token.id).rev().collect();
        over.iter().for_each(|&id| self.drop_token(who, id, TokenOutcome::Expired));
        self.settle_swaps(who);
        !over.is_empty()
    }

    pub(super) fn tick_tokens(&mut self, who: &Caller) {
        let expired = self.expire_tokens(who);
        let ended = self.tick_swaps(who);
        if self.look_for_swaps(who) || ended || expired {
            self.clear_all(who);
        }
    }

    /// An instance goes, and its tokens are not its any more.
    pub(super) fn return_tokens(&mut self, who: &Caller, number: u32) {
        let own = self.tokens.iter().filter(|token| token.instance == Some(number));
        let own: Vec<u64> = own.map(|token| token.id).collect();
        for token in self.tokens.iter_mut().filter(|token| own.contains(&token.id)) {
            token.redeemed = false;
            token.generation += 1;
        }
        for id in own {
            self.leave_swaps(who, id, SwapReason::InstanceRemoved);
            let token = self.tokens.iter_mut().find(|token| token.id == id).expect("it is there");
            token.instance = None;
            self.say_token(who, id, TokenOutcome::Returned);
        }
        self.settle_swaps(who);
    }

    pub(super) fn say_token(&mut self, who: &Caller, id: u64, outcome: TokenOutcome) {
        let token = *self.tokens.iter().find(|token| token.id == id).expect("it is there");
        let (slot, number) = token.session;
        let same = self.sessions.get(slot as usize).is_some_and(|row| row.number == number);
        self.said.push(Said::Token {
            to: if same { slot } else { ANY },
            id,
            time_ns: who.time_ns,
            window: token.window,
            account: token.account,
            instance: token.instance,
            vru: self.has(&token),
            generation: token.generation,
            book: token.book,
            outcome,
        });
    }
}
