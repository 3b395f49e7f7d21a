//! Tokens: reservations of VRUs over a window of time, held by accounts and redeemed by instances.
//!
//! An operator issues a token to an account. Until the window ends an instance of that account may
//! redeem it, and then has its VRUs on top of its baseline, without rent and without credits. Its
//! holder may split it, merge it with another and give it away; its id stays, and its generation goes
//! up with every change, so that a copy of what it was before is refused.
//!
//! **Never more than there is.** At every moment the tokens whose windows hold it and the baselines
//! are together at most the capacity. A baseline has no end, so it has to fit beside the greatest sum of
//! tokens that there will ever be ([`Tokens::pledged`]); a token only beside those that its window meets.
//! Class sla does not count: it is a right to bid first, not a reservation.
//!
//! **Nothing idle.** A token that nobody redeemed takes nothing: its VRUs are for rent and burst like
//! others. Redeeming takes them back at once, from leases within their hold too, as a reservation does.
//!
//! **Presented** ([`vendue_wire::message::Token`]) are whole tokens. The gateway checks the seal and
//! takes it off, so that the journal holds no secret; here all that was sealed must be what the token is
//! now. Whom a token is not of, it is unknown to.

use super::Machine;
use super::command::Envelope;
use super::event::Outbox;
use super::ledger::pocket;
use super::query::{LAST, PAGE, Sight, end};
use vendue_wire::code::{Reject, Resource, Role, SwapReason, TokenOutcome};
use vendue_wire::message::{
    ANY, Body, IssueToken, MergeTokens, RedeemToken, RevokeToken, SplitToken, TOKEN_BYTES,
    TOKENS_MAX, Token, TokenMoved, TokenRow, TransferToken,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Of [`Row::instance`]: none.
pub(super) const NONE: u16 = u16::MAX;

/// A token.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Row {
    /// Its own number, which no other ever has.
    pub id: u64,
    /// Its window's beginning, milliseconds.
    pub from_ms: u64,
    /// The window's end, milliseconds.
    pub until_ms: u64,
    /// Value of the profile's KPI that is to be reached.
    pub profile_limit: u64,
    /// Number of the session that changed it last.
    pub session: u64,
    /// VRUs.
    pub vru: u32,
    /// Changes so far, and one.
    pub generation: u32,
    /// VRUs that it lends in a swap, which are not in `vru`.
    pub lent: u32,
    /// VRUs of `vru` that it was lent in a swap.
    pub extra: u32,
    /// Account.
    pub account: u16,
    /// Instance that it is bound to or redeemed for, or [`NONE`].
    pub instance: u16,
    /// Book of its tier and resource.
    pub book: u16,
    /// Slot of the session that changed it last.
    pub slot: u16,
    /// Greater goes first.
    pub priority: u8,
    /// A [`vendue_wire::code::Kpi`], or 255.
    pub profile: u8,
    /// 1: it may be swapped.
    pub swap_eligible: u8,
    /// 1: what runs on it is not to be moved.
    pub sticky: u8,
    /// 1: redeemed.
    pub redeemed: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl Row {
    /// VRUs that it reserves beyond swaps. What a swap takes from one token it gives to another.
    pub fn own(&self) -> u32 {
        self.vru + self.lent - self.extra
    }

    /// True while it is part of a swap.
    pub fn is_swapped(&self) -> bool {
        (self.lent, self.extra) != (0, 0)
    }

    /// True if nothing but VRUs and windows tells them apart.
    fn is_like(&self, other: &Row) -> bool {
        let rest = |row: &Row| Row {
            id: 0,
            from_ms: 0,
            until_ms: 0,
            session: 0,
            slot: 0,
            vru: 0,
            generation: 0,
            ..*row
        };
        rest(self) == rest(other)
    }

    /// Both as one, if they go together.
    fn with(&self, other: &Row) -> Option<Row> {
        if !self.is_like(other) {
            return None;
        }
        let windows = [(self.from_ms, self.until_ms), (other.from_ms, other.until_ms)];
        if windows[0] == windows[1] {
            return Some(Row { vru: self.vru.checked_add(other.vru)?, ..*self });
        }
        let meet = windows[0].1 == windows[1].0 || windows[1].1 == windows[0].0;
        (meet && self.vru == other.vru).then_some(Row {
            from_ms: self.from_ms.min(other.from_ms),
            until_ms: self.until_ms.max(other.until_ms),
            ..*self
        })
    }
}

/// All tokens that are not over.
#[derive(Debug)]
pub struct Tokens {
    /// By id; never more than there was room made for.
    rows: Vec<Row>,
    /// The newest id.
    last_id: u64,
    /// By book, VRUs of tokens that are redeemed.
    redeemed: Vec<u64>,
    /// By book, the most VRUs that tokens reserve at one moment.
    pledged: Vec<u64>,
    /// Room to reckon in, no part of the state: moments, and what begins and ends there.
    edges: Vec<(u64, i64)>,
}

impl Tokens {
    /// No tokens.
    pub(super) fn new() -> Tokens {
        Tokens {
            rows: Vec::with_capacity(TOKENS_MAX),
            last_id: 0,
            redeemed: Vec::new(),
            pledged: Vec::new(),
            edges: Vec::with_capacity(2 * TOKENS_MAX),
        }
    }

    /// Start-up: a book.
    pub fn define(&mut self) {
        self.redeemed.push(0);
        self.pledged.push(0);
    }

    /// Tokens by id.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The newest id there was.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// VRUs of a book's tokens that are redeemed.
    pub fn redeemed(&self, book: usize) -> u64 {
        self.redeemed[book]
    }

    /// The most VRUs of a book that tokens reserve at one moment.
    pub fn pledged(&self, book: usize) -> u64 {
        self.pledged[book]
    }

    pub(super) fn find(&self, id: u64) -> Option<usize> {
        self.rows.binary_search_by_key(&id, |row| row.id).ok()
    }

    /// The most VRUs of a book that tokens reserve at one moment within a window.
    fn promised(&mut self, book: usize, from_ms: u64, until_ms: u64) -> u64 {
        self.edges.clear();
        for row in self.rows.iter().filter(|row| usize::from(row.book) == book) {
            let (begins, ends) = (row.from_ms.max(from_ms), row.until_ms.min(until_ms));
            if begins < ends {
                self.edges.push((begins, i64::from(row.own())));
                self.edges.push((ends, -i64::from(row.own())));
            }
        }
        // What ends at a moment goes before what begins there.
        self.edges.sort_unstable();
        let (mut sum, mut most) = (0_i64, 0_i64);
        for &(_, vru) in &self.edges {
            sum += vru;
            most = most.max(sum);
        }
        assert_eq!(sum, 0, "what begins also ends");
        most as u64
    }

    /// Changes a token: what it was is stale from then on. Who was told of the last generation there can
    /// be is not lied to.
    pub(super) fn change(&mut self, at: usize, change: impl FnOnce(&mut Row)) {
        let row = &mut self.rows[at];
        change(row);
        row.generation = row.generation.saturating_add(1);
    }

    /// So many VRUs more, or fewer, of a book's tokens are redeemed.
    pub(super) fn reckon_redeemed(&mut self, book: usize, vru: u32, more: bool) {
        let vru = u64::from(vru);
        self.redeemed[book] =
            if more { self.redeemed[book] + vru } else { self.redeemed[book] - vru };
    }

    /// Reckons a book's greatest sum anew, after its tokens changed.
    fn pledge(&mut self, book: usize) {
        self.pledged[book] = self.promised(book, 0, u64::MAX);
    }

    /// Restores what [`Tokens::rows`] and [`Tokens::last_id`] gave. False if the rows contradict one
    /// another.
    pub(super) fn restore(&mut self, rows: &[Row], last_id: u64) -> bool {
        let ids = rows.is_sorted_by(|a, b| a.id < b.id);
        let known = rows.last().is_none_or(|row| row.id <= last_id);
        let sound = |row: &Row| {
            usize::from(row.book) < self.redeemed.len()
                && row.vru > row.extra
                && row.vru.checked_add(row.lent).is_some()
                && (row.lent == 0 || row.extra == 0)
                && row.from_ms < row.until_ms
                && row.redeemed <= 1
                && !(row.redeemed == 1 && row.instance == NONE)
        };
        if rows.len() > TOKENS_MAX || !ids || !known || !rows.iter().all(sound) {
            return false;
        }
        self.rows.extend_from_slice(rows);
        self.last_id = last_id;
        for row in rows.iter().filter(|row| row.redeemed == 1) {
            self.redeemed[usize::from(row.book)] += u64::from(row.vru);
        }
        (0..self.redeemed.len()).for_each(|book| self.pledge(book));
        true
    }
}

impl Machine {
    /// All tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// VRUs of a book that are spoken for: baselines, and the most of tokens at one moment.
    pub fn spoken_for(&self, at: usize) -> u64 {
        self.books[at].reserved_vru + self.tokens.pledged[at]
    }

    // ---- requests ------------------------------------------------------------------------

    pub(super) fn issue_token(
        &mut self,
        env: &Envelope,
        m: &IssueToken,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let account = self.known_account(m.account)?;
        let (tier, now_ms) = (m.tier.get(), self.now_ms());
        let books = *self.book_of.get(usize::from(tier)).ok_or(Reject::UnknownTier)?;
        self.check_live(tier)?;
        let book = books[resource as usize];
        let Some(terms) = self.books.get(usize::from(book)) else {
            return Err(Reject::UnknownBook);
        };
        let capacity = terms.capacity_vru - terms.reserved_vru;
        let instance = match m.instance.get() {
            ANY => NONE,
            number => {
                let row = self.instance(number).filter(|row| row.account == account);
                if row.ok_or(Reject::UnknownInstance)?.tier != tier {
                    return Err(Reject::WrongTier);
                }
                number as u16
            }
        };
        if m.vru.get() == 0 {
            return Err(Reject::BadQuantity);
        }
        let (from_ms, until_ms) = (m.from_ms.get().max(now_ms), m.until_ms.get());
        if until_ms <= from_ms {
            return Err(Reject::BadExpiry);
        }
        if self.tokens.rows.len() >= TOKENS_MAX {
            return Err(Reject::TokensFull);
        }
        let promised = self.tokens.promised(book.into(), from_ms, until_ms);
        if promised + u64::from(m.vru.get()) > capacity {
            return Err(Reject::InsufficientCapacity);
        }
        self.use_client_id(env, client_id);
        let row = Row {
            from_ms,
            until_ms,
            profile_limit: m.profile_limit.get(),
            vru: m.vru.get(),
            generation: 1,
            account,
            instance,
            book,
            priority: m.priority,
            profile: m.profile,
            swap_eligible: m.swap_eligible,
            sticky: m.sticky,
            ..Row::default()
        };
        let at = self.add_token(env, row);
        self.tokens.pledge(book.into());
        self.report_done(env, IssueToken::KIND, client_id, self.tokens.last_id, out);
        self.tell_token(at, TokenOutcome::Issued, out);
        Ok(())
    }

    pub(super) fn redeem_token(
        &mut self,
        env: &Envelope,
        m: &RedeemToken,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let instance = *self.acting_row(env, m.instance.get())?;
        let number = m.instance.get() as u16;
        let row = self.tokens.rows[self.presented(env, &m.token)?];
        if row.account != instance.account {
            return Err(Reject::UnknownToken);
        }
        if row.instance != NONE && row.instance != number {
            return Err(Reject::TokenBound);
        }
        let (tier, resource) =
            (self.books[usize::from(row.book)].tier, self.books[usize::from(row.book)].resource);
        if tier != instance.tier {
            return Err(Reject::WrongTier);
        }
        // Of what it reserved nothing of it is not held to a limit either.
        if instance.baseline_vru[resource as usize] == 0 {
            return Err(Reject::BadQuantity);
        }
        let now_ms = self.now_ms();
        if !(row.from_ms..row.until_ms).contains(&now_ms) {
            return Err(Reject::TokenNotOpen);
        }
        self.use_client_id(env, client_id);
        // Those whose windows ended since the last tick make room for it.
        self.expire_tokens(out);
        let at = self.tokens.find(row.id).expect("its window is open");
        // A swap may have ended with them.
        let row = self.tokens.rows[at];
        let book = usize::from(row.book);
        self.change_token(env, at, |row| (row.instance, row.redeemed) = (number, 1));
        self.tokens.redeemed[book] += u64::from(row.vru);
        self.rentals.books[book].stirred = true;
        let holding = &mut self.rentals.holdings[pocket(number, resource)];
        holding.cover(now_ms);
        holding.redeemed += row.vru;
        let generation = self.tokens.rows[at].generation;
        self.report_done(env, RedeemToken::KIND, client_id, generation.into(), out);
        self.tell_token(at, TokenOutcome::Redeemed, out);
        // Whoever had them loses them first.
        self.clear_stirred(out);
        self.tell_limit(number, resource, out);
        if row.lent > 0 {
            self.announce_watched(number, out);
        }
        self.settle_proposals(out);
        Ok(())
    }

    pub(super) fn split_token(
        &mut self,
        env: &Envelope,
        m: &SplitToken,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let at = self.held_token(env, &m.token)?;
        let row = self.tokens.rows[at];
        let (vru, at_ms) = (m.vru.get(), m.at_ms.get());
        if at_ms == 0 && !(1..row.vru).contains(&vru) {
            return Err(Reject::BadQuantity);
        }
        // No part is over at once.
        let begun_ms = row.from_ms.max(self.now_ms());
        if at_ms != 0 && (at_ms <= begun_ms || at_ms >= row.until_ms) {
            return Err(Reject::BadExpiry);
        }
        if self.tokens.rows.len() >= TOKENS_MAX {
            return Err(Reject::TokensFull);
        }
        self.use_client_id(env, client_id);
        let part = if at_ms == 0 { Row { vru, ..row } } else { Row { from_ms: at_ms, ..row } };
        self.change_token(env, at, |row| match at_ms {
            0 => row.vru -= vru,
            at_ms => row.until_ms = at_ms,
        });
        let new = self.add_token(env, Row { generation: 1, ..part });
        self.report_done(env, SplitToken::KIND, client_id, self.tokens.last_id, out);
        self.tell_token(at, TokenOutcome::Split, out);
        self.tell_token(new, TokenOutcome::Split, out);
        self.settle_proposals(out);
        Ok(())
    }

    pub(super) fn merge_tokens(
        &mut self,
        env: &Envelope,
        m: &MergeTokens,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let at = self.held_token(env, &m.token)?;
        let other = self.held_token(env, &m.other)?;
        let both = self.tokens.rows[at].with(&self.tokens.rows[other]);
        let both = both.filter(|_| at != other).ok_or(Reject::TokensDiffer)?;
        self.use_client_id(env, client_id);
        self.change_token(env, at, |row| {
            (row.from_ms, row.until_ms, row.vru) = (both.from_ms, both.until_ms, both.vru);
        });
        let generation = self.tokens.rows[at].generation;
        self.report_done(env, MergeTokens::KIND, client_id, generation.into(), out);
        self.tell_token(at, TokenOutcome::Merged, out);
        self.end_token(other, TokenOutcome::Absorbed, out);
        Ok(())
    }

    pub(super) fn transfer_token(
        &mut self,
        env: &Envelope,
        m: &TransferToken,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let at = self.held_token(env, &m.token)?;
        let account = self.known_account(m.account)?;
        let from = &self.accounts[usize::from(self.tokens.rows[at].account)];
        if !from.may_sell_to(&self.accounts[usize::from(account)]) {
            return Err(Reject::NotPermitted);
        }
        self.use_client_id(env, client_id);
        self.change_token(env, at, |row| (row.account, row.instance) = (account, NONE));
        let generation = self.tokens.rows[at].generation;
        self.report_done(env, TransferToken::KIND, client_id, generation.into(), out);
        self.tell_token(at, TokenOutcome::Transferred, out);
        self.settle_proposals(out);
        Ok(())
    }

    pub(super) fn revoke_token(
        &mut self,
        env: &Envelope,
        m: &RevokeToken,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let at = self.tokens.find(m.id.get()).ok_or(Reject::UnknownToken)?;
        self.use_client_id(env, client_id);
        let row = self.tokens.rows[at];
        self.report_done(env, RevokeToken::KIND, client_id, row.vru.into(), out);
        self.end_token(at, TokenOutcome::Revoked, out);
        self.clear_stirred(out);
        Ok(())
    }

    // ---- checks --------------------------------------------------------------------------

    /// The token that is presented, if it is still the one that was sealed and the session may present
    /// it. Whether it may *act* for the account is for the caller to say.
    fn presented(&self, env: &Envelope, token: &[u8; TOKEN_BYTES]) -> Result<usize, Reject> {
        let token = Token::of(token);
        let known = self.tokens.find(token.id.get()).filter(|&at| {
            let (row, session) = (&self.tokens.rows[at], &self.sessions[env.session as usize]);
            let shown = match session.role() {
                Role::Operator => true,
                Role::Tenant => session.account == u32::from(row.account),
                // No guest takes what is its account's for itself.
                Role::Agent => session.instance == u32::from(row.instance),
                Role::Observer => false,
            };
            shown && token.house.get() == self.handovers.house
        });
        let at = known.ok_or(Reject::UnknownToken)?;
        let row = &self.tokens.rows[at];
        if token.generation.get() != row.generation {
            return Err(Reject::TokenStale);
        }
        if token.sealed() != self.token(row).sealed() {
            return Err(Reject::TokenForged);
        }
        if row.redeemed == 1 {
            return Err(Reject::TokenRedeemed);
        }
        // It would be as it was before.
        if row.generation == u32::MAX {
            return Err(Reject::Overflow);
        }
        Ok(at)
    }

    /// The same for those who act for the whole account.
    fn held_token(&self, env: &Envelope, token: &[u8; TOKEN_BYTES]) -> Result<usize, Reject> {
        match self.sessions[env.session as usize].role() {
            Role::Operator | Role::Tenant => {
                let at = self.presented(env, token)?;
                let swapped = self.tokens.rows[at].is_swapped();
                if swapped { Err(Reject::TokenInSwap) } else { Ok(at) }
            }
            Role::Agent | Role::Observer => Err(Reject::NotPermitted),
        }
    }

    // ---- what happens --------------------------------------------------------------------

    /// Puts a token in, with an id of its own. There is room for it.
    fn add_token(&mut self, env: &Envelope, row: Row) -> usize {
        self.tokens.last_id += 1;
        let session = (self.sessions[env.session as usize].number, env.session as u16);
        let row = Row { id: self.tokens.last_id, session: session.0, slot: session.1, ..row };
        assert!(self.tokens.rows.len() < TOKENS_MAX, "the table was looked at");
        self.tokens.rows.push(row);
        self.tokens.rows.len() - 1
    }

    /// Changes a token in a session's name: what it was is stale from then on.
    fn change_token(&mut self, env: &Envelope, at: usize, change: impl FnOnce(&mut Row)) {
        self.tokens.change(at, change);
        let row = &mut self.tokens.rows[at];
        (row.session, row.slot) = (self.sessions[env.session as usize].number, env.session as u16);
    }

    /// Takes back what a token gave its instance. Its book is then to be cleared.
    fn withdraw_token(&mut self, row: &Row) {
        let (book, now_ms) = (usize::from(row.book), self.now_ms());
        let resource = self.books[book].resource;
        let holding = &mut self.rentals.holdings[pocket(row.instance, resource)];
        holding.cover(now_ms);
        holding.redeemed -= row.vru;
        self.tokens.redeemed[book] -= u64::from(row.vru);
        self.rentals.books[book].stirred = true;
    }

    /// Ends a token. Books that are stirred are then to be cleared.
    fn end_token(&mut self, at: usize, outcome: TokenOutcome, out: &mut Outbox) {
        let book = self.tokens.rows[at].book;
        self.drop_token(at, outcome, out);
        self.tokens.pledge(book.into());
        self.settle_proposals(out);
    }

    /// As [`Machine::end_token`], but what its book's tokens pledge is then to be reckoned.
    fn drop_token(&mut self, at: usize, outcome: TokenOutcome, out: &mut Outbox) {
        if self.tokens.rows[at].is_swapped() {
            self.leave_swap(self.tokens.rows[at].id, SwapReason::TokenOver, out);
        }
        let row = self.tokens.rows[at];
        self.tell_token(at, outcome, out);
        self.tokens.rows.remove(at);
        if row.redeemed == 1 {
            self.withdraw_token(&row);
            let resource = self.books[usize::from(row.book)].resource;
            self.tell_limit(row.instance, resource, out);
        }
    }

    /// Ends the tokens whose windows are over.
    pub(super) fn expire_tokens(&mut self, out: &mut Outbox) {
        let now_ms = self.now_ms();
        let is_over = |row: &Row| row.until_ms <= now_ms;
        for at in (0..self.tokens.rows.len()).rev() {
            let row = self.tokens.rows[at];
            if is_over(&row) {
                self.drop_token(at, TokenOutcome::Expired, out);
                // Once a book: many windows end together.
                let same = |other: &Row| is_over(other) && other.book == row.book;
                if !self.tokens.rows[..at].iter().any(same) {
                    self.tokens.pledge(row.book.into());
                }
            }
        }
        self.settle_proposals(out);
    }

    /// Time passes: windows end, and swaps; new ones are looked for.
    pub(super) fn tick_tokens(&mut self, now_ms: u64, out: &mut Outbox) {
        if self.tokens.rows.iter().any(|row| row.until_ms <= now_ms) {
            self.expire_tokens(out);
        }
        self.tick_swaps(now_ms, out);
        self.manage_swaps(now_ms, out);
        self.clear_stirred(out);
    }

    /// An instance goes: its tokens are its account's, to be redeemed by another. Who calls clears the
    /// books of its tier.
    pub(super) fn return_tokens(&mut self, instance: u16, out: &mut Outbox) {
        let gone = |row: &Row| row.instance == instance;
        for at in 0..self.tokens.rows.len() {
            let row = self.tokens.rows[at];
            if !gone(&row) {
                continue;
            }
            if row.redeemed == 1 {
                self.withdraw_token(&row);
            }
            self.tokens.change(at, |row| row.redeemed = 0);
        }
        // What they were part of ends once it has none of their VRUs: it is not told of its end.
        for at in 0..self.tokens.rows.len() {
            if !gone(&self.tokens.rows[at]) {
                continue;
            }
            if self.tokens.rows[at].is_swapped() {
                self.leave_swap(self.tokens.rows[at].id, SwapReason::InstanceRemoved, out);
            }
            self.tokens.rows[at].instance = NONE;
            self.tell_token(at, TokenOutcome::Returned, out);
        }
        self.settle_proposals(out);
    }

    pub(super) fn tell_token(&mut self, at: usize, outcome: TokenOutcome, out: &mut Outbox) {
        let row = self.tokens.rows[at];
        let to = self.addressee(row.slot, row.session);
        let report = TokenMoved {
            id: row.id.into(),
            time_ns: self.time_ns.into(),
            from_ms: row.from_ms.into(),
            until_ms: row.until_ms.into(),
            account: u32::from(row.account).into(),
            instance: number(row.instance).into(),
            vru: row.vru.into(),
            generation: row.generation.into(),
            book: row.book.into(),
            outcome: outcome as u8,
            reserved: [0; 5],
        };
        self.fold(row.id << 8 ^ u64::from(row.vru) << 32 ^ outcome as u64);
        self.fold(row.from_ms ^ row.until_ms.rotate_left(32) ^ u64::from(row.account) << 48);
        out.push(to, &report);
    }

    // ---- rows ----------------------------------------------------------------------------

    /// A token as requests carry it, but for its seal.
    fn token(&self, row: &Row) -> Token {
        let book = &self.books[usize::from(row.book)];
        Token {
            house: self.handovers.house.into(),
            id: row.id.into(),
            from_ms: row.from_ms.into(),
            until_ms: row.until_ms.into(),
            profile_limit: row.profile_limit.into(),
            vru: row.vru.into(),
            generation: row.generation.into(),
            account: u32::from(row.account).into(),
            instance: number(row.instance).into(),
            tier: book.tier.into(),
            resource: book.resource as u8,
            priority: row.priority,
            profile: row.profile,
            swap_eligible: row.swap_eligible,
            sticky: row.sticky,
            reserved: 0,
            key: 0.into(),
            mac: [0; 32],
        }
    }

    /// Tokens, to their accounts and to the instances they are bound to; the gateway seals them for who
    /// may present them.
    pub(super) fn token_rows(&self, env: &Envelope, from: u64, out: &mut Outbox) {
        let sight = self.sight(env);
        let shows = |row: &&Row| match sight {
            Sight::All => true,
            Sight::Account(own) => own == u32::from(row.account),
            Sight::Instance(own) => own == u32::from(row.instance),
        };
        let session = self.sessions.get(env.session as usize);
        let sealed = session.is_some_and(|session| session.role() != Role::Observer);
        let first = self.tokens.rows.partition_point(|row| row.id < from);
        let mut shown = self.tokens.rows[first..].iter().filter(shows).take(PAGE + 1);
        for row in shown.by_ref().take(PAGE) {
            let mut answer = TokenRow::zeroed();
            answer.as_mut_bytes()[..TOKEN_BYTES].copy_from_slice(self.token(row).as_bytes());
            (answer.redeemed, answer.sealed) = (row.redeemed, sealed.into());
            out.push(env.connection, &answer);
        }
        end(env, shown.next().map_or(LAST, |row| row.id), out);
    }

    /// True if what tokens say of accounts, instances and books holds.
    pub(super) fn tokens_are_whole(&self) -> bool {
        let mut redeemed = vec![0_u64; self.rentals.holdings.len()];
        let known = self.tokens.rows.iter().all(|row| {
            let book = &self.books[usize::from(row.book)];
            let instance = match row.instance {
                NONE => return u32::from(row.account) < self.accounts_used,
                number => self.instance(number.into()),
            };
            let its = instance.is_some_and(|at| (at.account, at.tier) == (row.account, book.tier));
            if its && row.redeemed == 1 {
                redeemed[pocket(row.instance, book.resource)] += u64::from(row.vru);
            }
            its
        });
        let held = self.rentals.holdings.iter().map(|row| u64::from(row.redeemed)).eq(redeemed);
        let fits = |at: usize| self.spoken_for(at) <= self.books[at].capacity_vru;
        known && held && (0..self.books.len()).all(fits)
    }
}

/// An instance's number as the protocol says it.
pub(super) fn number(instance: u16) -> u32 {
    if instance == NONE { ANY } else { instance.into() }
}
