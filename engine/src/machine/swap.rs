//! Swaps of tokens: some VRUs of one are lent to another of the same book, for a time.
//!
//! Who owns the destination, or the daemon for it ([`super::swap_manager`]), proposes a swap; who owns
//! the source approves or rejects it, in person or by a standing policy ([`Terms`]), until a deadline.
//! Approved it begins at once and in one piece: the source has fewer VRUs and the destination as many
//! more, both keep their ids, and both generations go up, as they do again at its end. So what tokens
//! reserve together is the same at every moment ([`Row::own`]), and a copy of a token of before is stale.
//! Where a token is redeemed its instance's limit follows at once.
//!
//! **Exactly one outcome.** A proposal is about two tokens as they are: whatever changes one of them
//! first (it is redeemed, given away, swapped otherwise) refuses it. While a swap is under way its tokens
//! can be redeemed, and nothing else; what ends one of them, or its instance, ends the swap first.
//!
//! **The incentive** is held of the destination's account from the proposal on, and of the source's from
//! the approval on. The source's account earns it evenly by time: what is not earned when a swap
//! is rolled back goes back. A *boost* is a swap the other way round that follows one which ran its time.
//!
//! **Downtime** is how long a workload may stand still while a limit is moved ([`downtime_ms`]): limits
//! are rewritten under a running instance, so it is what the kernel's own lever needs.
//!
//! **Degradation.** While a swap is under way each report of the KPI that is the profile of who lends is
//! compared with the profile's limit. [`SWAP_BREACHES`] in a row that are worse by more than what its
//! owner agreed to roll the swap back.

use super::Machine;
use super::command::Envelope;
use super::event::Outbox;
use super::ledger::pocket;
use super::query::{LAST, PAGE, Sight, end};
use super::swap_manager::Use;
use super::token::{Row, number};
use vendue_wire::code::{
    Kpi, Reject, Resource, Role, SwapAnswer, SwapReason, SwapState, TokenOutcome,
};
use vendue_wire::message::{
    ACCOUNT_SWAPS_MAX, ANY, Body, NAME_BYTES, SWAP_BREACHES, SWAPS_MAX, SetSwapPolicy, SwapApprove,
    SwapMoved, SwapPolicyRow, SwapReject, SwapRequest, SwapRow,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Tenants of both accounts that are told of a swap at most, beside who asked for it.
pub const PARTIES: usize = 4;
/// Which of [`Swap::tokens`] lends.
const SOURCE: usize = 0;
const DESTINATION: usize = 1;

/// How long a workload can stand still while its limit of a resource is moved, milliseconds: of
/// processors a period of `cpu.max`, of memory as long as a limit is given to be reached before it goes
/// on in small steps beside the workload, of block I/O a slice of the kernel's throttle. A network
/// discipline is changed between two packets; accelerators have no lever.
pub const fn downtime_ms(resource: Resource) -> u32 {
    match resource {
        Resource::Cpu | Resource::BlockIo => 100,
        Resource::Memory => 1000,
        Resource::Network | Resource::Accelerator => 0,
    }
}

/// A swap.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Swap {
    /// Its own number.
    pub id: u64,
    /// Ids of source and destination.
    pub tokens: [u64; 2],
    /// When it was asked for, milliseconds.
    pub asked_ms: u64,
    /// It is approved by then or expires, milliseconds.
    pub deadline_ms: u64,
    /// When it was approved, milliseconds; 0: it was not.
    pub begun_ms: u64,
    /// When that which it does now ends, or when it was over; 0 while it waits.
    pub ends_ms: u64,
    /// Micro-units offered.
    pub incentive_micro: u64,
    /// Micro-units of them that the source's account has earned.
    pub paid_micro: u64,
    /// Number of the session that asked for it.
    pub session: u64,
    /// Generations of both tokens that it is about.
    pub generations: [u32; 2],
    /// VRUs.
    pub vru: u32,
    /// Milliseconds.
    pub lasts_ms: u32,
    /// VRUs of the boost.
    pub boost_vru: u32,
    /// Milliseconds of the boost.
    pub boost_ms: u32,
    /// Their accounts.
    pub accounts: [u16; 2],
    /// Their instances when it was asked for, or 65,535.
    pub instances: [u16; 2],
    /// What each account agreed to: percent.
    pub degradation_percent: [u16; 2],
    /// Book of both.
    pub book: u16,
    /// Slot of the session that asked for it.
    pub slot: u16,
    /// A [`SwapState`].
    pub state: u8,
    /// A [`SwapReason`].
    pub reason: u8,
    /// 1: the daemon asked for it.
    pub by_manager: u8,
    /// Reports in a row that were worse than agreed.
    pub breaches: u8,
    /// What who rejected it said.
    pub words: [u8; NAME_BYTES],
    /// Zero.
    pub reserved: [u8; 4],
}

impl Swap {
    /// How it stands.
    pub fn state(&self) -> SwapState {
        SwapState::from_u8(self.state).expect("a state")
    }

    /// True if it waits for its source's owner.
    pub fn waits(&self) -> bool {
        self.state() == SwapState::Proposed
    }

    /// Which of its tokens lends, and how much, if it is under way.
    fn lending(&self) -> Option<(usize, u32)> {
        match self.state() {
            SwapState::Active => Some((SOURCE, self.vru)),
            SwapState::Boosting => Some((DESTINATION, self.boost_vru)),
            _ => None,
        }
    }

    /// Both tokens' windows have to hold everything up to here, milliseconds.
    fn over_ms(&self) -> u64 {
        let lasts_ms = u64::from(self.lasts_ms) + u64::from(self.boost_ms);
        self.deadline_ms.saturating_add(lasts_ms)
    }

    /// When something happens to it by itself, milliseconds.
    fn due_ms(&self) -> u64 {
        match self.state() {
            SwapState::Proposed => self.deadline_ms,
            SwapState::Active | SwapState::Boosting => self.ends_ms,
            _ => u64::MAX,
        }
    }

    /// Micro-units that the source's account has earned by now.
    fn earned_micro(&self, now_ms: u64) -> u64 {
        let served_ms = now_ms.min(self.ends_ms).saturating_sub(self.begun_ms);
        let earned = u128::from(self.incentive_micro) * u128::from(served_ms);
        (earned / u128::from(self.lasts_ms.max(1))) as u64
    }
}

/// What an account thinks of swaps of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Terms {
    /// Micro-units a VRU-second that it lends for.
    pub least_micro: u64,
    /// Micro-units a VRU-second that the daemon may offer for it.
    pub pay_micro: u64,
    /// Its workloads may stand still for so long, milliseconds.
    pub downtime_ms: u32,
    /// Percent by which a KPI may be worse than its profile's limit.
    pub degradation_percent: u16,
    /// A [`SwapAnswer`].
    pub answer: u8,
    /// 1: the daemon asks for it.
    pub seek: u8,
}

impl Terms {
    /// What holds for who said nothing: people decide, and the daemon does not ask.
    pub const USUAL: Terms = Terms {
        least_micro: 0,
        pay_micro: 0,
        downtime_ms: u32::MAX,
        degradation_percent: 0,
        answer: SwapAnswer::Ask as u8,
        seek: 0,
    };
}

/// Micro-units that so many VRUs for so long cost at a rate a VRU-second, rounded up.
pub fn price_micro(rate_micro: u64, vru: u32, lasts_ms: u32) -> u64 {
    let milli = u128::from(vru) * u128::from(lasts_ms) * u128::from(rate_micro);
    u64::try_from(milli.div_ceil(1000)).unwrap_or(u64::MAX)
}

/// All swaps that are remembered, and what accounts think of them.
#[derive(Debug)]
pub struct Swaps {
    /// By id; never more than there was room made for.
    pub rows: Vec<Swap>,
    /// The newest id.
    pub last_id: u64,
    /// By account.
    pub terms: Box<[Terms]>,
    /// As the ledger's credits: what is measured for the manager.
    pub uses: Box<[Use]>,
    /// When the manager looked last, milliseconds.
    pub cycled_ms: u64,
    /// When something happens to one by itself. Follows from the rows.
    due_ms: u64,
    /// How many wait. Follows from the rows.
    waiting: usize,
    /// How many are under way. Follows from the rows.
    underway: usize,
}

impl Swaps {
    /// No swaps, of so many accounts and places for measured use.
    pub(super) fn new(accounts: u32, pockets: usize) -> Swaps {
        Swaps {
            rows: Vec::with_capacity(SWAPS_MAX),
            last_id: 0,
            terms: vec![Terms::USUAL; accounts as usize].into_boxed_slice(),
            uses: vec![Use::default(); pockets].into_boxed_slice(),
            cycled_ms: 0,
            due_ms: u64::MAX,
            waiting: 0,
            underway: 0,
        }
    }

    /// Finds what follows from the rows.
    pub(super) fn reckon(&mut self) {
        self.due_ms = self.rows.iter().map(Swap::due_ms).min().unwrap_or(u64::MAX);
        self.waiting = self.rows.iter().filter(|row| row.waits()).count();
        self.underway = self.rows.iter().filter(|row| row.lending().is_some()).count();
    }

    /// Makes room for one more. False if all that are remembered are not over.
    fn make_room(&mut self) -> bool {
        if self.rows.len() < SWAPS_MAX {
            return true;
        }
        let over = self.rows.iter().position(|row| row.state().is_over());
        over.map(|at| self.rows.remove(at)).is_some()
    }

    /// Swaps of a destination's account that are not over.
    fn open_of(&self, account: u16) -> usize {
        let own = |row: &&Swap| row.accounts[DESTINATION] == account && !row.state().is_over();
        self.rows.iter().filter(own).count()
    }
}

impl Machine {
    /// All swaps.
    pub fn swaps(&self) -> &Swaps {
        &self.swaps
    }

    // ---- requests ------------------------------------------------------------------------

    pub(super) fn request_swap(
        &mut self,
        env: &Envelope,
        m: &SwapRequest,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let own = self.swapper(env)?;
        let destination = self.own_token(m.destination.get(), own)?;
        let row = self.tokens.rows()[destination];
        if row.generation != m.destination_generation.get() {
            return Err(Reject::TokenStale);
        }
        let wish = Swap {
            asked_ms: self.now_ms(),
            deadline_ms: m.deadline_ms.get(),
            incentive_micro: m.incentive_micro.get(),
            session: self.sessions[env.session as usize].number,
            vru: m.vru.get(),
            lasts_ms: m.lasts_ms.get(),
            boost_vru: m.boost_vru.get(),
            boost_ms: m.boost_ms.get(),
            book: row.book,
            slot: env.session as u16,
            ..Swap::default()
        };
        let source = match m.source.get() {
            0 => None,
            id => Some(self.others_token(id, own, &row)?),
        };
        if let Some(at) = source
            && self.tokens.rows()[at].generation != m.source_generation.get()
        {
            return Err(Reject::TokenStale);
        }
        self.check_borrower(destination, &wish)?;
        let source = match source {
            Some(at) => at,
            None => self.pick_for(destination, &wish).ok_or(Reject::NoSource)?,
        };
        self.check_lender(source, destination, &wish)?;
        self.check_means(row.account, wish.incentive_micro)?;
        self.use_client_id(env, client_id);
        let at = self.propose_swap([source, destination], wish);
        self.report_done(env, SwapRequest::KIND, client_id, self.swaps.last_id, out);
        self.tell_swap(at, out);
        self.answer_swap(at, out);
        self.clear_stirred(out);
        Ok(())
    }

    pub(super) fn approve_swap(
        &mut self,
        env: &Envelope,
        m: &SwapApprove,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let own = self.swapper(env)?;
        let at = self.waiting_swap(m.id.get(), own)?;
        let accounts = self.swaps.rows[at].accounts;
        if own.is_some_and(|own| own != accounts[SOURCE]) {
            return Err(Reject::NotPermitted);
        }
        if !self.may_swap(accounts[SOURCE], accounts[DESTINATION]) {
            return Err(Reject::NotPermitted);
        }
        self.use_client_id(env, client_id);
        // Those whose windows ended since the last tick make room for it.
        self.expire_tokens(out);
        let source = self.tokens.find(self.swaps.rows[at].tokens[SOURCE]).expect("it holds it");
        let generation = self.tokens.rows()[source].generation + 1;
        self.report_done(env, SwapApprove::KIND, client_id, generation.into(), out);
        self.begin_swap(at, SwapReason::Owner, out);
        self.clear_stirred(out);
        Ok(())
    }

    pub(super) fn reject_swap(
        &mut self,
        env: &Envelope,
        m: &SwapReject,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let own = self.swapper(env)?;
        let at = self.waiting_swap(m.id.get(), own)?;
        self.use_client_id(env, client_id);
        let row = &mut self.swaps.rows[at];
        row.words = m.words;
        let is_source = own.is_none_or(|own| own == row.accounts[SOURCE]);
        let micro = row.incentive_micro;
        self.report_done(env, SwapReject::KIND, client_id, micro, out);
        let state = if is_source { SwapState::Rejected } else { SwapState::Withdrawn };
        self.close_swap(at, state, SwapReason::Owner, out);
        Ok(())
    }

    pub(super) fn set_swap_policy(
        &mut self,
        env: &Envelope,
        m: &SetSwapPolicy,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let own = self.swapper(env)?;
        let account = self.known_account(m.account)?;
        if own.is_some_and(|own| own != account) {
            return Err(Reject::UnknownAccount);
        }
        self.use_client_id(env, client_id);
        self.swaps.terms[usize::from(account)] = Terms {
            least_micro: m.least_micro.get(),
            pay_micro: m.pay_micro.get(),
            downtime_ms: m.downtime_ms.get(),
            degradation_percent: m.degradation_percent.get(),
            answer: m.answer,
            seek: m.seek,
        };
        self.report_done(env, SetSwapPolicy::KIND, client_id, account.into(), out);
        Ok(())
    }

    // ---- checks --------------------------------------------------------------------------

    /// The account that a session acts for; none: any.
    fn swapper(&self, env: &Envelope) -> Result<Option<u16>, Reject> {
        let session = &self.sessions[env.session as usize];
        match session.role() {
            Role::Operator => Ok(None),
            Role::Tenant => Ok(Some(session.account as u16)),
            Role::Agent | Role::Observer => Err(Reject::NotPermitted),
        }
    }

    fn own_token(&self, id: u64, own: Option<u16>) -> Result<usize, Reject> {
        let at = self.tokens.find(id).ok_or(Reject::UnknownToken)?;
        let account = self.tokens.rows()[at].account;
        if own.is_none_or(|own| own == account) { Ok(at) } else { Err(Reject::UnknownToken) }
    }

    /// A token that a session may ask for: its own, or one that is there to be swapped by an account that
    /// swaps with its own. Others are unknown to it.
    fn others_token(&self, id: u64, own: Option<u16>, other: &Row) -> Result<usize, Reject> {
        let at = self.tokens.find(id).ok_or(Reject::UnknownToken)?;
        let row = &self.tokens.rows()[at];
        let open = row.swap_eligible == 1 && self.may_swap(row.account, other.account);
        let known = own.is_none_or(|own| own == row.account) || open;
        if known { Ok(at) } else { Err(Reject::UnknownToken) }
    }

    /// True if an account may lend to another.
    fn may_swap(&self, from: u16, to: u16) -> bool {
        let [from_row, to_row] = [from, to].map(|account| &self.accounts[usize::from(account)]);
        from == to || from_row.may_sell_to(to_row)
    }

    /// What both tokens of a swap have to be.
    fn check_party(&self, row: &Row, wish: &Swap) -> Result<(), Reject> {
        let resource = self.books[usize::from(row.book)].resource;
        let terms = &self.swaps.terms[usize::from(row.account)];
        let checks = [
            (row.swap_eligible == 0, Reject::NotSwapEligible),
            (row.sticky == 1 && row.redeemed == 1, Reject::TokenSticky),
            (row.is_swapped(), Reject::TokenInSwap),
            (row.generation == u32::MAX, Reject::Overflow),
            (row.from_ms > self.now_ms() || row.until_ms < wish.over_ms(), Reject::BeyondWindow),
            (terms.downtime_ms < downtime_ms(resource), Reject::DowntimeTooLong),
        ];
        let failed = checks.into_iter().find(|(failed, _)| *failed);
        failed.map_or(Ok(()), |(_, code)| Err(code))
    }

    pub(super) fn check_borrower(&self, at: usize, wish: &Swap) -> Result<(), Reject> {
        let row = &self.tokens.rows()[at];
        if wish.vru == 0 || wish.boost_vru >= row.vru {
            return Err(Reject::BadQuantity);
        }
        if wish.deadline_ms <= self.now_ms() {
            return Err(Reject::BadExpiry);
        }
        self.check_party(row, wish)
    }

    pub(super) fn check_lender(
        &self,
        at: usize,
        destination: usize,
        wish: &Swap,
    ) -> Result<(), Reject> {
        let (row, other) = (&self.tokens.rows()[at], &self.tokens.rows()[destination]);
        if at == destination || row.book != other.book {
            return Err(Reject::TokensDiffer);
        }
        if !self.may_swap(row.account, other.account) {
            return Err(Reject::NotPermitted);
        }
        if wish.vru >= row.vru {
            return Err(Reject::BadQuantity);
        }
        self.check_party(row, wish)
    }

    /// Room for a proposal of an account, and its incentive.
    pub(super) fn check_means(&self, account: u16, micro: u64) -> Result<(), Reject> {
        let open = self.swaps.rows.iter().filter(|row| !row.state().is_over()).count();
        if open >= SWAPS_MAX || self.swaps.open_of(account) >= ACCOUNT_SWAPS_MAX {
            return Err(Reject::SwapsFull);
        }
        let free = self.ledger.funds()[usize::from(account)].balance.free;
        if free < micro { Err(Reject::InsufficientFunds) } else { Ok(()) }
    }

    /// A swap that waits, if a session's account is part of it.
    fn waiting_swap(&self, id: u64, own: Option<u16>) -> Result<usize, Reject> {
        let at = self.swaps.rows.binary_search_by_key(&id, |row| row.id);
        let at = at.map_err(|_| Reject::UnknownSwap)?;
        let row = &self.swaps.rows[at];
        if own.is_some_and(|own| !row.accounts.contains(&own)) {
            return Err(Reject::UnknownSwap);
        }
        // What its deadline took will be told at the next tick.
        let waits = row.waits() && row.deadline_ms > self.now_ms();
        if waits { Ok(at) } else { Err(Reject::SwapSettled) }
    }

    // ---- what happens --------------------------------------------------------------------

    /// Puts a proposal in, its incentive held. All was checked.
    pub(super) fn propose_swap(&mut self, tokens: [usize; 2], wish: Swap) -> usize {
        assert!(self.swaps.make_room(), "the table was looked at");
        self.swaps.last_id += 1;
        let rows = tokens.map(|at| self.tokens.rows()[at]);
        let accounts = rows.map(|row| row.account);
        let agreed = |account: u16| self.swaps.terms[usize::from(account)].degradation_percent;
        let swap = Swap {
            id: self.swaps.last_id,
            tokens: rows.map(|row| row.id),
            generations: rows.map(|row| row.generation),
            accounts,
            instances: rows.map(|row| row.instance),
            degradation_percent: accounts.map(agreed),
            ..wish
        };
        self.ledger.hold_funds(accounts[DESTINATION], wish.incentive_micro);
        self.swaps.rows.push(swap);
        self.swaps.reckon();
        self.swaps.rows.len() - 1
    }

    /// Decides on a new proposal where no person is asked.
    pub(super) fn answer_swap(&mut self, at: usize, out: &mut Outbox) {
        let row = &self.swaps.rows[at];
        let [source, destination] = row.accounts;
        if source == destination {
            self.expire_tokens(out);
            return self.begin_swap(at, SwapReason::OneAccount, out);
        }
        let terms = &self.swaps.terms[usize::from(source)];
        let least = price_micro(terms.least_micro, row.vru, row.lasts_ms);
        match SwapAnswer::from_u8(terms.answer).expect("it was checked") {
            SwapAnswer::Ask => {}
            SwapAnswer::Accept if row.incentive_micro >= least => {
                self.expire_tokens(out);
                self.begin_swap(at, SwapReason::Policy, out);
            }
            SwapAnswer::Accept => {
                self.close_swap(at, SwapState::Rejected, SwapReason::IncentiveTooLow, out);
            }
            SwapAnswer::Refuse => {
                self.close_swap(at, SwapState::Rejected, SwapReason::Policy, out);
            }
        }
    }

    /// A proposal is not carried out: its incentive is free again.
    fn close_swap(&mut self, at: usize, state: SwapState, reason: SwapReason, out: &mut Outbox) {
        let now_ms = self.now_ms();
        let row = &mut self.swaps.rows[at];
        assert!(row.waits(), "a swap is settled once");
        (row.state, row.reason, row.ends_ms) = (state as u8, reason as u8, now_ms);
        let (account, micro) = (row.accounts[DESTINATION], row.incentive_micro);
        self.ledger.release_funds(account, micro);
        self.swaps.reckon();
        self.tell_swap(at, out);
    }

    /// Carries a proposal out. The books are then to be cleared.
    fn begin_swap(&mut self, at: usize, reason: SwapReason, out: &mut Outbox) {
        let now_ms = self.now_ms();
        let row = &mut self.swaps.rows[at];
        assert!(row.waits(), "a swap begins once");
        (row.state, row.reason) = (SwapState::Active as u8, reason as u8);
        (row.begun_ms, row.ends_ms) = (now_ms, now_ms + u64::from(row.lasts_ms));
        let row = *row;
        let [source, destination] = row.accounts;
        self.ledger.pass_held(destination, source, row.incentive_micro);
        self.swaps.reckon();
        self.tell_swap(at, out);
        self.lend_token(&row, SOURCE, row.vru, out);
        self.settle_proposals(out);
    }

    /// What a swap does now is over, by time or before: whoever lends has its VRUs back, and what was
    /// earned is paid. A boost may follow. The books are then to be cleared.
    fn end_swap(&mut self, at: usize, state: SwapState, reason: SwapReason, out: &mut Outbox) {
        let (row, now_ms) = (self.swaps.rows[at], self.now_ms());
        let (lender, vru) = row.lending().expect("it is under way");
        let mut next = Swap { state: state as u8, reason: reason as u8, breaches: 0, ..row };
        next.ends_ms = now_ms;
        if lender == SOURCE {
            let earned = row.earned_micro(now_ms);
            let [source, destination] = row.accounts;
            self.ledger.release_funds(source, earned);
            self.ledger.pay_held(source, destination, row.incentive_micro - earned);
            next.paid_micro = earned;
            // Late ticks leave less of it.
            let boost_ends_ms = row.ends_ms + u64::from(row.boost_ms);
            if state == SwapState::Ended && row.boost_vru > 0 && boost_ends_ms > now_ms {
                (next.state, next.ends_ms) = (SwapState::Boosting as u8, boost_ends_ms);
            }
        }
        self.swaps.rows[at] = next;
        self.swaps.reckon();
        self.tell_swap(at, out);
        self.return_token_vru(&row, lender, vru, out);
        if next.state() == SwapState::Boosting {
            self.lend_token(&next, DESTINATION, next.boost_vru, out);
        }
        self.settle_proposals(out);
    }

    /// Moves VRUs from a swap's token to the other.
    fn lend_token(&mut self, swap: &Swap, lender: usize, vru: u32, out: &mut Outbox) {
        let [from, to] = [lender, 1 - lender]
            .map(|side| self.tokens.find(swap.tokens[side]).expect("a swap's token is there"));
        self.tokens.change(from, |row| (row.vru, row.lent) = (row.vru - vru, vru));
        self.tokens.change(to, |row| (row.vru, row.extra) = (row.vru + vru, vru));
        self.follow_tokens(from, to, vru, out);
    }

    /// Moves them back.
    fn return_token_vru(&mut self, swap: &Swap, lender: usize, vru: u32, out: &mut Outbox) {
        let [to, from] = [lender, 1 - lender]
            .map(|side| self.tokens.find(swap.tokens[side]).expect("a swap's token is there"));
        self.tokens.change(from, |row| (row.vru, row.extra) = (row.vru - vru, 0));
        self.tokens.change(to, |row| (row.vru, row.lent) = (row.vru + vru, 0));
        self.follow_tokens(from, to, vru, out);
    }

    /// Instances have what their tokens say, and are told when the book is cleared.
    fn follow_tokens(&mut self, from: usize, to: usize, vru: u32, out: &mut Outbox) {
        let now_ms = self.now_ms();
        for (at, gains) in [(from, false), (to, true)] {
            let row = self.tokens.rows()[at];
            self.tell_token(at, TokenOutcome::Swapped, out);
            if row.redeemed == 0 {
                continue;
            }
            let resource = self.books[usize::from(row.book)].resource;
            let at = pocket(row.instance, resource);
            let holding = &mut self.rentals.holdings[at];
            holding.cover(now_ms);
            holding.redeemed = if gains { holding.redeemed + vru } else { holding.redeemed - vru };
            self.tokens.reckon_redeemed(row.book.into(), vru, gains);
            // Once leases lost what it gained.
            self.rentals.books[usize::from(row.book)].stirred = true;
            self.rentals.shift(at);
            if Kpi::from_u8(row.profile).is_some_and(|kpi| !kpi.is_reported()) {
                self.announce_watched(row.instance, out);
            }
        }
    }

    /// A token is about to be over, or its instance goes: its swap ends first.
    pub(super) fn leave_swap(&mut self, token: u64, reason: SwapReason, out: &mut Outbox) {
        let now_ms = self.now_ms();
        let under_way = |row: &Swap| row.lending().is_some() && row.tokens.contains(&token);
        // A boost may follow what has had its time.
        while let Some(at) = self.swaps.rows.iter().position(under_way) {
            let (state, reason) = match self.swaps.rows[at].ends_ms <= now_ms {
                true => (SwapState::Ended, SwapReason::Time),
                false => (SwapState::RolledBack, reason),
            };
            self.end_swap(at, state, reason, out);
        }
    }

    /// Tokens changed: proposals about what they were are refused.
    pub(super) fn settle_proposals(&mut self, out: &mut Outbox) {
        if self.swaps.waiting == 0 {
            return;
        }
        for at in 0..self.swaps.rows.len() {
            let row = &self.swaps.rows[at];
            if !row.waits() {
                continue;
            }
            let found = row.tokens.map(|id| self.tokens.find(id));
            let stands = |side: usize| {
                let token = found[side].map(|at| self.tokens.rows()[at].generation);
                token == Some(row.generations[side])
            };
            let reason = match found {
                [Some(_), Some(_)] if stands(SOURCE) && stands(DESTINATION) => continue,
                [Some(_), Some(_)] => SwapReason::TokenChanged,
                _ => SwapReason::TokenOver,
            };
            self.close_swap(at, SwapState::Refused, reason, out);
        }
    }

    /// Time passes: nobody decided, or a swap has had its time.
    pub(super) fn tick_swaps(&mut self, now_ms: u64, out: &mut Outbox) {
        if self.swaps.due_ms > now_ms {
            return;
        }
        for at in 0..self.swaps.rows.len() {
            let row = &self.swaps.rows[at];
            if row.due_ms() > now_ms {
                continue;
            }
            match row.waits() {
                true => self.close_swap(at, SwapState::Expired, SwapReason::Time, out),
                false => self.end_swap(at, SwapState::Ended, SwapReason::Time, out),
            }
        }
    }

    // ---- what lending does to a workload -------------------------------------------------

    /// Somebody tells a KPI: who lends may be worse off than agreed.
    pub(super) fn swap_kpi(&mut self, instance: u16, kpi: Kpi, value: u32, out: &mut Outbox) {
        if self.swaps.underway == 0 {
            return;
        }
        for at in 0..self.swaps.rows.len() {
            let Some((limit, percent)) = self.agreed(&self.swaps.rows[at], instance, kpi) else {
                continue;
            };
            let row = &mut self.swaps.rows[at];
            row.breaches = if is_worse(kpi, value, limit, percent) { row.breaches + 1 } else { 0 };
            let breaches = row.breaches;
            self.fold(u64::from(value) << 32 ^ (at as u64) << 8 ^ u64::from(breaches));
            if breaches >= SWAP_BREACHES {
                self.end_swap(at, SwapState::RolledBack, SwapReason::Degraded, out);
            }
        }
        self.clear_stirred(out);
    }

    /// The limit of a KPI and the percent beyond it that were agreed to, if the instance lends in a swap
    /// and that is its token's profile.
    fn agreed(&self, swap: &Swap, instance: u16, kpi: Kpi) -> Option<(u64, u16)> {
        let (lender, _) = swap.lending()?;
        let row = &self.tokens.rows()[self.tokens.find(swap.tokens[lender])?];
        let its = (row.redeemed, row.instance, row.profile) == (1, instance, kpi as u8);
        its.then_some((row.profile_limit, swap.degradation_percent[lender]))
    }

    /// True if an instance lends and this KPI says what that does to it.
    pub(super) fn is_profiled(&self, instance: u16, kpi: Kpi) -> bool {
        self.swaps.underway > 0
            && self.swaps.rows.iter().any(|row| self.agreed(row, instance, kpi).is_some())
    }

    // ---- telling -------------------------------------------------------------------------

    /// Says what became of a swap: once for the audit trail, then to who asked for it and to tenants of
    /// both accounts.
    pub(super) fn tell_swap(&mut self, at: usize, out: &mut Outbox) {
        let row = self.swaps.rows[at];
        let report = SwapMoved {
            id: row.id.into(),
            time_ns: self.time_ns.into(),
            source: row.tokens[SOURCE].into(),
            destination: row.tokens[DESTINATION].into(),
            ends_ms: row.ends_ms.into(),
            paid_micro: row.paid_micro.into(),
            source_account: u32::from(row.accounts[SOURCE]).into(),
            destination_account: u32::from(row.accounts[DESTINATION]).into(),
            vru: row.lending().map_or(row.vru, |(_, vru)| vru).into(),
            book: row.book.into(),
            state: row.state,
            reason: row.reason,
            words: row.words,
        };
        self.fold(row.id << 16 ^ u64::from(row.state) << 8 ^ u64::from(row.reason));
        self.fold(row.paid_micro ^ u64::from(row.vru) << 32);
        out.push(ANY, &report);
        let asker = match row.by_manager {
            1 => ANY,
            _ => self.addressee(row.slot, row.session),
        };
        if asker != ANY {
            out.push(asker, &report);
        }
        let sessions = (0..self.broker()).zip(self.sessions.iter());
        let tenants = sessions.filter(|(slot, session)| {
            let its = row.accounts.iter().any(|&account| session.account == u32::from(account));
            session.connected == 1 && its && session.role() == Role::Tenant && *slot != asker
        });
        tenants.take(PARTIES).for_each(|(slot, _)| out.push(slot, &report));
    }

    fn swap_row(&self, row: &Swap) -> SwapRow {
        let lender = row.lending().map_or(SOURCE, |(lender, _)| lender);
        SwapRow {
            id: row.id.into(),
            source: row.tokens[SOURCE].into(),
            destination: row.tokens[DESTINATION].into(),
            asked_ms: row.asked_ms.into(),
            deadline_ms: row.deadline_ms.into(),
            ends_ms: row.ends_ms.into(),
            incentive_micro: row.incentive_micro.into(),
            paid_micro: row.paid_micro.into(),
            source_account: u32::from(row.accounts[SOURCE]).into(),
            destination_account: u32::from(row.accounts[DESTINATION]).into(),
            source_instance: number(row.instances[SOURCE]).into(),
            destination_instance: number(row.instances[DESTINATION]).into(),
            source_generation: row.generations[SOURCE].into(),
            destination_generation: row.generations[DESTINATION].into(),
            vru: row.vru.into(),
            lasts_ms: row.lasts_ms.into(),
            boost_vru: row.boost_vru.into(),
            boost_ms: row.boost_ms.into(),
            degradation_percent: row.degradation_percent[lender].into(),
            book: row.book.into(),
            state: row.state,
            reason: row.reason,
            by_manager: row.by_manager,
            breaches: row.breaches,
            words: row.words,
        }
    }

    /// Swaps, to both accounts; agents see those of their instance.
    pub(super) fn swap_rows(&self, env: &Envelope, from: u64, out: &mut Outbox) {
        let sight = self.sight(env);
        let own = |numbers: [u16; 2], own: u32| numbers.iter().any(|&at| u32::from(at) == own);
        let shows = |row: &&Swap| match sight {
            Sight::All => true,
            Sight::Account(account) => own(row.accounts, account),
            Sight::Instance(instance) => own(row.instances, instance),
        };
        let first = self.swaps.rows.partition_point(|row| row.id < from);
        let mut shown = self.swaps.rows[first..].iter().filter(shows).take(PAGE + 1);
        for row in shown.by_ref().take(PAGE) {
            out.push(env.connection, &self.swap_row(row));
        }
        end(env, shown.next().map_or(LAST, |row| row.id), out);
    }

    /// What accounts think of swaps, to themselves.
    pub(super) fn swap_policy_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let sight = self.sight(env);
        let terms = &self.swaps.terms;
        let set = |&at: &u32| terms[at as usize] != Terms::USUAL && self.shows_account(sight, at);
        let mut shown = (from..self.accounts_used).filter(set).take(PAGE + 1);
        for at in shown.by_ref().take(PAGE) {
            let row = &terms[at as usize];
            let answer = SwapPolicyRow {
                least_micro: row.least_micro.into(),
                pay_micro: row.pay_micro.into(),
                account: at.into(),
                downtime_ms: row.downtime_ms.into(),
                degradation_percent: row.degradation_percent.into(),
                answer: row.answer,
                seek: row.seek,
                reserved: 0.into(),
            };
            out.push(env.connection, &answer);
        }
        end(env, shown.next().map_or(LAST, u64::from), out);
    }

    /// False if restored swaps contradict tokens, accounts or one another.
    pub(super) fn swaps_are_whole(&self) -> bool {
        let swaps = &self.swaps;
        let ids = swaps.rows.is_sorted_by(|a, b| a.id < b.id);
        let known = swaps.rows.last().is_none_or(|row| row.id <= swaps.last_id);
        let terms = |row: &Terms| SwapAnswer::from_u8(row.answer).is_some() && row.seek <= 1;
        let count =
            |count: fn(&Row) -> u32| self.tokens.rows().iter().filter(|row| count(row) > 0).count();
        ids && known
            && swaps.rows.len() <= SWAPS_MAX
            && swaps.terms.iter().all(terms)
            && swaps.rows.iter().all(|row| self.is_whole(row))
            && [count(|row| row.lent), count(|row| row.extra)] == [swaps.underway; 2]
            && self.incentives_are_held()
    }

    /// True if an account holds what swaps hold of it.
    fn incentives_are_held(&self) -> bool {
        (0..self.accounts_used as u16).all(|account| {
            let held = self.swaps.rows.iter().map(|row| {
                let own = |side: usize| row.accounts[side] == account;
                let holds = match row.state() {
                    SwapState::Proposed => own(DESTINATION),
                    SwapState::Active => own(SOURCE),
                    _ => false,
                };
                if holds { u128::from(row.incentive_micro) } else { 0 }
            });
            held.sum::<u128>() <= self.ledger.funds()[usize::from(account)].balance.held.into()
        })
    }

    fn is_whole(&self, row: &Swap) -> bool {
        let states = SwapReason::from_u8(row.reason).is_some() && row.breaches < SWAP_BREACHES;
        let accounts = row.accounts.iter().all(|&at| u32::from(at) < self.accounts_used);
        if !states || !accounts || row.vru == 0 || row.tokens[0] == row.tokens[1] {
            return false;
        }
        if row.state().is_over() {
            return row.paid_micro <= row.incentive_micro;
        }
        let [Some(source), Some(destination)] = row.tokens.map(|id| self.tokens.find(id)) else {
            return false;
        };
        let tokens = [source, destination].map(|at| &self.tokens.rows()[at]);
        let its = (0..2).all(|side| {
            let token = tokens[side];
            (token.account, token.book) == (row.accounts[side], row.book)
                && token.from_ms <= self.now_ms()
                && row.ends_ms <= token.until_ms
        });
        let stands = match row.lending() {
            None => {
                let same = |side: usize| tokens[side].generation == row.generations[side];
                let free = tokens.iter().all(|token| !token.is_swapped());
                let fits = row.vru < tokens[SOURCE].vru && row.boost_vru < tokens[DESTINATION].vru;
                let within = tokens.iter().all(|token| row.over_ms() <= token.until_ms);
                same(SOURCE) && same(DESTINATION) && free && fits && within
            }
            Some((lender, vru)) => {
                let (from, to) = (tokens[lender], tokens[1 - lender]);
                let moved = (from.lent, from.extra, to.lent, to.extra) == (vru, 0, 0, vru);
                let boost_ends_ms = row.ends_ms.saturating_add(row.boost_ms.into());
                let within = tokens.iter().all(|token| boost_ends_ms <= token.until_ms);
                let boosts =
                    lender == DESTINATION || (within && row.boost_vru < tokens[DESTINATION].own());
                moved && boosts && row.begun_ms < row.ends_ms && row.lasts_ms > 0
            }
        };
        its && stands
    }
}

/// True if a KPI's value is beyond its limit by more than so many percent.
fn is_worse(kpi: Kpi, value: u32, limit: u64, percent: u16) -> bool {
    let (value, limit) = (u128::from(value) * 100, u128::from(limit));
    match kpi {
        // The only one of which more is better.
        Kpi::Throughput => value < limit * 100_u128.saturating_sub(percent.into()),
        _ => value > limit * (100 + u128::from(percent)),
    }
}

/// Checks what no token is needed for.
pub(super) fn check(m: &SwapRequest) -> Result<(), Reject> {
    let least = vendue_wire::message::SWAP_MS_MIN;
    let (boost_vru, boost_ms) = (m.boost_vru.get(), m.boost_ms.get());
    let boost = if boost_vru == 0 { boost_ms == 0 } else { boost_ms >= least };
    let source = m.source.get() != 0 || m.source_generation.get() == 0;
    if boost && source && m.lasts_ms.get() >= least { Ok(()) } else { Err(Reject::BadField) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_worse_only_of_throughput() {
        assert!(!is_worse(Kpi::Latency, 110, 100, 10));
        assert!(is_worse(Kpi::Latency, 111, 100, 10));
        assert!(!is_worse(Kpi::Throughput, 90, 100, 10));
        assert!(is_worse(Kpi::Throughput, 89, 100, 10));
        assert!(!is_worse(Kpi::Throughput, 0, 100, 1000));
        assert!(!is_worse(Kpi::Latency, u32::MAX, u64::MAX, u16::MAX));
    }

    #[test]
    fn a_price_is_rounded_up_and_never_overflows() {
        assert_eq!(price_micro(3, 5, 1000), 15);
        assert_eq!(price_micro(1, 1, 1), 1);
        assert_eq!(price_micro(0, u32::MAX, u32::MAX), 0);
        assert_eq!(price_micro(u64::MAX, u32::MAX, u32::MAX), u64::MAX);
    }
}
