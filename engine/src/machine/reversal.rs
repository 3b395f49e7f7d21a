//! Reversal: an operator undoes a trade, to the last micro-unit, or is told why that cannot be.
//!
//! The newest `reversible_trades` trades are remembered, each in its place of a ring. A trade
//! reverses once, and only if the buyer's instance still has the credits and the seller's account
//! the funds, free. The seller gets its credits back, the buyer what it paid, both their fees. What
//! was told of the trade stays told: prices and volumes count it, and so do limits of windows.

use super::Machine;
use super::command::Envelope;
use super::config::MILLI;
use super::event::{Outbox, TradeReversed};
use super::slab::Tag;
use vendue_wire::code::Reject;
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

/// A trade that may still be reversed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Kept {
    /// Maker's fee, or of an auction the seller's; micro-units.
    maker_fee: u64,
    /// The other party's.
    taker_fee: u64,
    /// Tag of the maker's order, or of an auction the seller's, at the trade's price.
    maker: u64,
    /// Tag of the other one.
    taker: u64,
    /// Credits, and the state in the upper half.
    terms: u64,
}

impl Kept {
    /// A trade that stands, at the price of the first tag. `fees` and `tags` are the maker's and the
    /// taker's, or of an auction the seller's and the buyer's.
    #[inline(always)]
    pub fn new(fees: [u64; 2], tags: [Tag; 2], quantity: u32) -> Kept {
        Kept {
            maker_fee: fees[0],
            taker_fee: fees[1],
            maker: tags[0].0,
            taker: tags[1].0,
            terms: u64::from(quantity) | STANDS << 32,
        }
    }

    fn tags(&mut self) -> [&mut u64; 2] {
        [&mut self.maker, &mut self.taker]
    }

    fn quantity(&self) -> u32 {
        self.terms as u32
    }

    fn price(&self) -> u16 {
        Tag(self.maker).price()
    }

    fn state(&self) -> u64 {
        self.terms >> 32
    }

    fn set_state(&mut self, state: u64) {
        self.terms = u64::from(self.quantity()) | state << 32;
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
        let parties = [(Tag(kept.maker), kept.maker_fee), (Tag(kept.taker), kept.taker_fee)];
        let sold = usize::from(parties[1].0.side() == 1);
        let [(seller, seller_fee), (buyer, buyer_fee)] = [parties[sold], parties[1 - sold]];
        let accounts = [seller, buyer].map(|tag| self.owner[usize::from(tag.instance())]);
        let book = &self.books[seller.book()];
        let (quantity, price) = (kept.quantity(), kept.price());
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
            book: (seller.book() as u16).into(),
        };
        out.push(ANY, &event);
        [seller, buyer].iter().for_each(|tag| self.reassess(tag.instance(), resource, out));
        self.report_done(env, ReverseTrade::KIND, client_id, m.trade.get(), out);
        Ok(())
    }

    /// An instance is removed: what it traded stands from now on. Its number may be given out again.
    pub(super) fn orphan_trades(&mut self, instance: u16) {
        for kept in self.kept.iter_mut().filter(|kept| kept.state() == STANDS) {
            if kept.tags().into_iter().any(|tag| Tag(*tag).instance() == instance) {
                kept.set_state(ORPHANED);
            }
        }
    }

    /// A session's slot is given to another: that one is told nothing of the first one's trades.
    pub(super) fn forget_session(&mut self, slot: u16) {
        for tag in self.kept.iter_mut().flat_map(Kept::tags) {
            if Tag(*tag).session() == slot {
                *tag = Tag(*tag).entered_by(NO_SESSION).0;
            }
        }
    }

    /// True if what is remembered of trades points into the tables: of a snapshot.
    pub(super) fn trades_are_whole(&self) -> bool {
        (self.trades.saturating_sub(self.kept.len() as u64)..self.trades).all(|before| {
            let kept = self.kept[(before + 1) as usize & (self.kept.len() - 1)];
            let [maker, taker] = [Tag(kept.maker), Tag(kept.taker)];
            let book = self.books.get(maker.book());
            let (quantity, price) = (kept.quantity(), kept.price());
            let bounded = |tag: Tag| usize::from(tag.instance()) < self.instances.len();
            let fees = |notional: u64| kept.maker_fee.max(kept.taker_fee) <= notional;
            bounded(maker)
                && bounded(taker)
                && maker.side() != taker.side()
                && book.is_some_and(|book| {
                    (1..=book.price_max).contains(&price)
                        && (1..=book.quantity_max).contains(&quantity)
                        && fees(u64::from(price) * book.tick_micro * u64::from(quantity))
                })
        })
    }
}
