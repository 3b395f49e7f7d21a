//! Reversal: an operator undoes a trade, to the last micro-unit, or is told why that cannot be.
//!
//! The newest `reversible_trades` trades are remembered, each in its place of a ring. A trade
//! reverses once, and only if the buyer's instance still has the credits and the seller's account
//! the funds, free. The seller gets its credits back, the buyer what it paid, both their fees. What
//! was told of the trade stays told: prices and volumes count it, and so do limits of windows.

use super::Machine;
use super::command::Envelope;
use super::config::{MILLI, NOTIONAL_MAX_MICRO};
use super::event::{Outbox, TradeReversed};
use super::slab::Tag;
use vendue_wire::code::{Reject, Side};
use vendue_wire::message::{ANY, Body, ReverseTrade};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Slot of a session that was forgotten.
const NO_SESSION: u16 = u16::MAX;

/// The trade stands.
const STANDS: u64 = 0;
/// It was reversed.
const REVERSED: u64 = 1;
/// One of its instances was removed.
const ORPHANED: u64 = 2;

/// A trade that may still be reversed: half a cache line, because every fill writes one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Kept {
    /// Maker's fee, or of an auction the seller's, in micro-units; the state in the two highest bits,
    /// which no fee has.
    maker_fee: u64,
    /// The other party's.
    taker_fee: u64,
    /// Tag of the maker's order, or of an auction the seller's, at the trade's price.
    maker: u64,
    /// Instance and session of the other one, as its tag has them, and the credits.
    taker: u64,
}

/// Where the state begins.
const STATE_AT: u32 = 62;
const _: () = assert!(NOTIONAL_MAX_MICRO < 1 << STATE_AT, "a fee is no more than the notional");

impl Kept {
    /// A trade that stands, at the price of the first tag. `fees` and `tags` are the maker's and the
    /// taker's, or of an auction the seller's and the buyer's.
    #[inline(always)]
    pub fn new(fees: [u64; 2], tags: [Tag; 2], quantity: u32) -> Kept {
        Kept {
            maker_fee: fees[0] | STANDS << STATE_AT,
            taker_fee: fees[1],
            maker: tags[0].0,
            taker: tags[1].0 & 0xffff_ffff | u64::from(quantity) << 32,
        }
    }

    fn parties(&mut self) -> [&mut u64; 2] {
        [&mut self.maker, &mut self.taker]
    }

    fn maker(&self) -> Tag {
        Tag(self.maker)
    }

    /// Of this only the instance and the session mean something.
    fn taker(&self) -> Tag {
        Tag(self.taker)
    }

    fn maker_fee(&self) -> u64 {
        self.maker_fee & !(0b11 << STATE_AT)
    }

    fn quantity(&self) -> u32 {
        (self.taker >> 32) as u32
    }

    fn state(&self) -> u64 {
        self.maker_fee >> STATE_AT
    }

    fn set_state(&mut self, state: u64) {
        self.maker_fee = self.maker_fee() | state << STATE_AT;
    }
}

/// Places of the ring for so many trades: a power of two, so that a trade's place is bits of its
/// number.
pub(super) fn places(trades: u32) -> usize {
    (trades.max(1) as usize).next_power_of_two()
}

/// Remembers a trade in the place of one that is too old.
#[inline(always)]
pub(super) fn keep(ring: &mut [Kept], trade: u64, kept: Kept) {
    let last = ring.len() - 1;
    ring[trade as usize & last] = kept;
}

impl Machine {
    /// Where a trade is remembered, if it is.
    fn place_of(&self, trade: u64) -> Option<usize> {
        let newer = self.trades.checked_sub(trade)?;
        let known = trade > 0 && newer < u64::from(self.genesis.reversible_trades.get());
        known.then_some(trade as usize & (self.kept.len() - 1))
    }

    pub(super) fn reverse_trade(
        &mut self,
        env: &Envelope,
        m: &ReverseTrade,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let at = self.place_of(m.trade.get()).ok_or(Reject::UnknownTrade)?;
        let kept = self.kept[at];
        match kept.state() {
            STANDS => {}
            REVERSED => return Err(Reject::AlreadyReversed),
            _ => return Err(Reject::UnknownInstance),
        }
        let parties = [(kept.maker(), kept.maker_fee()), (kept.taker(), kept.taker_fee)];
        // Which of them sold.
        let sold = usize::from(kept.maker().side() == Side::Buy as usize);
        let [(seller, seller_fee), (buyer, buyer_fee)] = [parties[sold], parties[1 - sold]];
        let accounts = [seller, buyer].map(|tag| self.owner[usize::from(tag.instance())]);
        let number = kept.maker().book();
        let book = &self.books[number];
        let (quantity, price) = (kept.quantity(), kept.maker().price());
        let (resource, milli) = (book.resource, u64::from(quantity) * MILLI);
        let notional = u64::from(price) * book.tick_micro * u64::from(quantity);
        if self.ledger.credit(buyer.instance(), resource).free < milli {
            return Err(Reject::InsufficientCredits);
        }
        self.ledger.refund(accounts, notional, [seller_fee, buyer_fee])?;
        self.ledger.move_credits(buyer.instance(), seller.instance(), resource, milli);
        self.use_client_id(env, client_id);
        self.kept[at].set_state(REVERSED);
        self.fold(m.trade.get());
        let event = TradeReversed {
            trade: m.trade,
            notional_micro: notional.into(),
            seller_fee_micro: seller_fee.into(),
            buyer_fee_micro: buyer_fee.into(),
            quantity: quantity.into(),
            seller_account: accounts[0].into(),
            buyer_account: accounts[1].into(),
            seller: seller.instance().into(),
            seller_session: seller.session().into(),
            buyer: buyer.instance().into(),
            buyer_session: buyer.session().into(),
            price_ticks: price.into(),
            book: (number as u16).into(),
        };
        out.push(ANY, &event);
        [seller, buyer].iter().for_each(|tag| self.reassess(tag.instance(), resource, out));
        self.report_done(env, ReverseTrade::KIND, client_id, m.trade.get(), out);
        Ok(())
    }

    /// An instance is removed: what it traded stands from now on. Its number may be given out again.
    pub(super) fn orphan_trades(&mut self, instance: u16) {
        for kept in self.kept.iter_mut().filter(|kept| kept.state() == STANDS) {
            if [kept.maker(), kept.taker()].iter().any(|party| party.instance() == instance) {
                kept.set_state(ORPHANED);
            }
        }
    }

    /// A session's slot is given to another: that one is told nothing of the first one's trades.
    pub(super) fn forget_session(&mut self, slot: u16) {
        for party in self.kept.iter_mut().flat_map(Kept::parties) {
            if Tag(*party).session() == slot {
                *party = Tag(*party).entered_by(NO_SESSION).0;
            }
        }
    }

    /// True if what is remembered of trades points into the tables: of a snapshot.
    pub(super) fn trades_are_whole(&self) -> bool {
        (self.trades.saturating_sub(self.kept.len() as u64)..self.trades).all(|before| {
            let kept = self.kept[(before + 1) as usize & (self.kept.len() - 1)];
            let book = self.books.get(kept.maker().book());
            let (quantity, price) = (kept.quantity(), kept.maker().price());
            let bounded = |tag: Tag| usize::from(tag.instance()) < self.instances.len();
            let fees = |notional: u64| kept.maker_fee().max(kept.taker_fee) <= notional;
            bounded(kept.maker())
                && bounded(kept.taker())
                && book.is_some_and(|book| {
                    (1..=book.price_max).contains(&price)
                        && (1..=book.quantity_max).contains(&quantity)
                        && fees(u64::from(price) * book.tick_micro * u64::from(quantity))
                })
        })
    }
}
