//! Sharing what nobody reserved: bids, market weights, and what use above a baseline costs.
//!
//! Use is paid a credit a VRU-second as it is reported. What was above the baseline pays the
//! clearing price of the round it was reported in, once a tick ends that round: the price at which
//! the weights share the capacity out, at least the tier's reserve price, at most what the user
//! itself bids. The same tick weighs everyone anew. Only processors are shared by weight by the
//! kernel; elsewhere the price is the reserve price.

use super::Machine;
use super::command::{DefineCredits, Envelope};
use super::config::MILLI;
use super::event::{Outbox, Weighted};
use super::ledger::pocket;
use super::tables::Book;
use super::weights::{self, BID_MILLI};
use super::{Broken, config::BoundsError};
use vendue_wire::code::{CancelReason, Reject, Resource, Side};
use vendue_wire::message::{ANY, BID_MILLI_MAX, BID_MILLI_MIN, Body, SetBid};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The use, in percent of a book's capacity, from which it counts as contended: measurements of
/// many instances are never quite of the same moment.
const CONTENDED_PERCENT: u128 = 95;

/// An instance's part in the sharing of a resource.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Stake {
    /// Milli-credits of use reported in this round.
    pub used_milli: u64,
    /// The least that its balance was since credits expired last.
    pub idle_milli: u64,
    /// End of the last round in which it reported, milliseconds.
    pub measured_ms: u64,
    /// What it bids, 0 for [`BID_MILLI`].
    pub bid_milli: u32,
    /// The weight announced last, VRUs.
    pub weight_vru: u32,
    /// Step of its wealth: see [`weights::step`].
    pub step: i8,
    /// Zero.
    pub reserved: [u8; 7],
}

impl Stake {
    /// What it bids, milli-credits a VRU-second.
    pub fn bid(&self) -> u32 {
        if self.bid_milli == 0 { BID_MILLI as u32 } else { self.bid_milli }
    }
}

/// The rounds of one book.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Round {
    /// Milli-credits of use reported since the journal began.
    pub total_milli: u128,
    /// 1 if use was reported since the last tick.
    pub reported: u64,
    /// When the last round that had reports ended, and the one before, milliseconds. A round of
    /// measurements may be split by a tick: then the older one is its beginning.
    pub ended_ms: [u64; 2],
    /// Clearing price of the last round, milli-credits a VRU-second.
    pub clearing_milli: u64,
    /// When credits expire next, milliseconds.
    pub expires_ms: u64,
    /// Zero.
    pub reserved: u64,
}

/// What a round has seen so far.
#[derive(Clone, Copy)]
struct Seen {
    /// Use, thousandths of VRUs.
    rate: u128,
    /// The least of weight / use, milli-credits a VRU-second: the level all are filled to.
    level_milli: u128,
}

impl Machine {
    /// Start-up: what a book's credits are worth.
    pub(super) fn define_credits(
        &mut self,
        m: &DefineCredits,
        resource: Resource,
    ) -> Result<(), Broken> {
        m.check()?;
        let tier = usize::from(m.tier.get());
        let book = self.book_of.get(tier).map_or(u16::MAX, |row| row[resource as usize]);
        let Some(rules) = self.rules.get_mut(usize::from(book)) else {
            let error = BoundsError::Order { tier: m.tier.get(), resource: m.resource };
            return Err(error.into());
        };
        *rules = *m;
        Ok(())
    }

    /// An instance bids for what is contended.
    pub(super) fn set_bid(
        &mut self,
        env: &Envelope,
        m: &SetBid,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        self.acting_row(env, m.instance.get())?;
        self.instance_book(m.instance.get() as u16, resource)?;
        let bid = m.bid_milli.get();
        if !(BID_MILLI_MIN..=BID_MILLI_MAX).contains(&bid) {
            return Err(Reject::BadPrice);
        }
        self.use_client_id(env, client_id);
        let instance = m.instance.get() as u16;
        self.stakes[pocket(instance, resource)].bid_milli = bid;
        self.weigh(instance, resource, out);
        self.report_done(env, SetBid::KIND, client_id, bid.into(), out);
        Ok(())
    }

    /// A new instance's part in the sharing.
    pub(super) fn launch_stakes(&mut self, instance: u16) {
        for &resource in Resource::ALL {
            let measured_ms = self.now_ms();
            self.stakes[pocket(instance, resource)] = Stake { measured_ms, ..Stake::default() };
        }
    }

    /// A new instance: launch credits, and a part in the sharing.
    pub(super) fn launch(&mut self, instance: u16) {
        let row = self.instances[usize::from(instance)];
        self.launch_stakes(instance);
        for &resource in Resource::ALL {
            let book = usize::from(self.book_of[usize::from(row.tier)][resource as usize]);
            let Some(rules) = self.rules.get(book) else { continue };
            let baseline = u64::from(row.baseline_vru[resource as usize]);
            let credits = baseline * u64::from(rules.launch_s.get()) * MILLI;
            let credits = credits.min(self.ledger.credit_room(book));
            if credits > 0 {
                self.ledger.issue(book, instance, resource, credits);
            }
        }
    }

    /// Notes reported use for the end of the round.
    pub(super) fn note_use(&mut self, instance: u16, resource: Resource, book: u16, used: u64) {
        let stake = &mut self.stakes[pocket(instance, resource)];
        stake.used_milli = stake.used_milli.saturating_add(used);
        let round = &mut self.rounds[usize::from(book)];
        round.reported = 1;
        round.total_milli = round.total_milli.wrapping_add(used.into());
    }

    /// Notes how much of a balance is lying idle; burns what did for the whole of its time.
    pub(super) fn expire_credits(
        &mut self,
        env: &Envelope,
        (instance, resource, book): (u16, Resource, u16),
        out: &mut Outbox,
    ) {
        let book = usize::from(book);
        if self.rules[book].expiry_s.get() == 0 {
            return;
        }
        let due = self.rounds[book].expires_ms <= self.accrued_ms;
        let stake = &mut self.stakes[pocket(instance, resource)];
        let balance = self.ledger.credit(instance, resource);
        let idle = stake.idle_milli.min(balance.free + balance.held);
        stake.idle_milli = idle;
        if due {
            self.take_back_offers(env, (instance, resource, book), idle, out);
            let burned = self.ledger.burn(book, instance, resource, idle);
            assert!(burned == idle, "what expires is free once its offers are taken back");
            let left = balance.free + balance.held - burned;
            self.stakes[pocket(instance, resource)].idle_milli = left;
        }
    }

    /// Cancels offers of an instance until so much of its credits is free. What lay idle expires
    /// whether it is offered or not: else a price that nobody pays would keep credits for ever.
    fn take_back_offers(
        &mut self,
        env: &Envelope,
        (instance, resource, book): (u16, Resource, usize),
        milli: u64,
        out: &mut Outbox,
    ) {
        let mut first = 0;
        while self.ledger.credit(instance, resource).free < milli {
            let mut slots = self.slab.orders(first, |owner| owner == instance);
            let slot = slots.find(|&slot| {
                let tag = self.slab.nodes[slot as usize].tag;
                tag.book() == book && tag.side() == Side::Sell as usize
            });
            drop(slots);
            let slot = slot.expect("held credits are held by offers");
            self.cancel_order(env, slot, CancelReason::Expired, out);
            first = slot + 1;
        }
    }

    /// The end of a tick: rounds with reports are charged, and everyone in them weighed anew.
    pub(super) fn settle(&mut self, out: &mut Outbox) {
        let now_ms = self.accrued_ms;
        for book in 0..self.rounds.len() {
            let (rules, round) = (&self.rules[book], &mut self.rounds[book]);
            let expiry_ms = u64::from(rules.expiry_s.get()) * 1000;
            if expiry_ms > 0 && round.expires_ms <= now_ms {
                round.expires_ms = now_ms + expiry_ms;
            }
            if round.reported == 1 {
                self.settle_round(book, now_ms, out);
            }
        }
    }

    fn settle_round(&mut self, book: usize, now_ms: u64, out: &mut Outbox) {
        let resource = self.books[book].resource;
        let began_ms = self.rounds[book].ended_ms[0];
        let mut seen = Seen { rate: 0, level_milli: u128::MAX };
        for instance in 0..self.instances.len() as u16 {
            if self.is_in(instance, book) {
                self.look(instance, resource, now_ms, began_ms, &mut seen);
            }
        }
        let reserve = u64::from(self.rules[book].reserve_milli.get());
        let capacity = u128::from(self.books[book].capacity_vru) * 1000;
        let contended = seen.rate * 100 >= capacity * CONTENDED_PERCENT;
        let price = match resource {
            Resource::Cpu if contended => {
                seen.level_milli.clamp(reserve.into(), BID_MILLI_MAX.into()) as u64
            }
            _ => reserve,
        };
        let round = &mut self.rounds[book];
        round.clearing_milli = price;
        round.reported = 0;
        round.ended_ms = [round.ended_ms[1], now_ms];
        self.fold(price ^ (book as u64) << 48);
        for instance in 0..self.instances.len() as u16 {
            if self.is_in(instance, book) {
                self.charge(instance, book, (price, reserve), (now_ms, began_ms), out);
            }
        }
        // Charged in full before anybody is weighed: fairness is between final balances.
        for instance in 0..self.instances.len() as u16 {
            if self.is_in(instance, book) {
                self.weigh(instance, resource, out);
            }
        }
    }

    fn is_in(&self, instance: u16, book: usize) -> bool {
        let row = &self.instances[usize::from(instance)];
        let Book { tier, resource, .. } = self.books[book];
        row.live == 1 && row.tier == tier && row.baseline_vru[resource as usize] > 0
    }

    /// Milliseconds in which the reported use was made.
    fn span_ms(stake: &Stake, now_ms: u64, began_ms: u64) -> u64 {
        now_ms.saturating_sub(stake.measured_ms.max(began_ms)).max(1)
    }

    fn look(&self, instance: u16, resource: Resource, now_ms: u64, began_ms: u64, seen: &mut Seen) {
        let stake = &self.stakes[pocket(instance, resource)];
        if stake.used_milli == 0 {
            return;
        }
        let span = u128::from(Self::span_ms(stake, now_ms, began_ms));
        let used = u128::from(stake.used_milli);
        seen.rate += used * 1000 / span;
        let level = u128::from(stake.weight_vru) * 1000 * span / used;
        seen.level_milli = seen.level_milli.min(level);
    }

    /// Charges what use above the baseline costs beyond the credit a VRU-second already paid.
    fn charge(
        &mut self,
        instance: u16,
        book: usize,
        (price, reserve): (u64, u64),
        (now_ms, began_ms): (u64, u64),
        out: &mut Outbox,
    ) {
        let resource = self.books[book].resource;
        let baseline =
            u64::from(self.instances[usize::from(instance)].baseline_vru[resource as usize]);
        let stake = &mut self.stakes[pocket(instance, resource)];
        if stake.used_milli == 0 {
            return;
        }
        let own = baseline.saturating_mul(Self::span_ms(stake, now_ms, began_ms));
        let over = stake.used_milli.saturating_sub(own);
        // Nobody pays more than it bids, whatever others do.
        let price = price.min(stake.bid().into()).max(reserve);
        stake.used_milli = 0;
        stake.measured_ms = now_ms;
        let extra = u128::from(over) * u128::from(price - BID_MILLI) / u128::from(BID_MILLI);
        let extra = u64::try_from(extra).unwrap_or(u64::MAX);
        if extra > 0 {
            self.ledger.burn(book, instance, resource, extra);
            self.reassess(instance, resource, out);
        }
    }

    /// Computes an instance's weight anew and tells the later stages if it changed.
    pub(super) fn weigh(&mut self, instance: u16, resource: Resource, out: &mut Outbox) {
        let row = &self.instances[usize::from(instance)];
        let baseline = row.baseline_vru[resource as usize];
        let book = usize::from(self.book_of[usize::from(row.tier)][resource as usize]);
        if resource != Resource::Cpu || baseline == 0 || book >= self.books.len() {
            return;
        }
        let house = &self.ledger.house[book];
        let reserved = u128::from(self.books[book].reserved_vru.max(1));
        let balance = self.ledger.credit(instance, resource);
        // Balance and fair balance, both times what is reserved: nothing is lost by dividing.
        let fair = (house.issued - house.burned) * u128::from(baseline);
        let balance = u128::from(balance.free) + u128::from(balance.held);
        let stake = &mut self.stakes[pocket(instance, resource)];
        let bid = weights::believed(stake.bid(), balance / u128::from(baseline));
        let balance = balance * reserved;
        let gamma = self.rules[book].wealth_percent.get();
        stake.step = weights::step(balance, fair, gamma, stake.step);
        let holding = &self.rentals.holdings[pocket(instance, resource)];
        let own = weights::weight(baseline - holding.lent, bid, stake.step);
        let weight = own.saturating_add(u32::try_from(holding.above()).unwrap_or(u32::MAX));
        if weight != stake.weight_vru {
            stake.weight_vru = weight;
            self.announce_weight(instance, resource, out);
        }
    }

    /// Tells the later stages an instance's weight, if it has one.
    pub(super) fn announce_weight(&mut self, instance: u16, resource: Resource, out: &mut Outbox) {
        let weight = self.stakes[pocket(instance, resource)].weight_vru;
        let Some((_, vru_size)) = self.entitlement(instance, resource) else { return };
        if weight == 0 {
            return;
        }
        self.fold(u64::from(weight) ^ u64::from(instance) << 32);
        let event = Weighted {
            vru_size: vru_size.into(),
            weight_vru: weight.into(),
            instance: u32::from(instance).into(),
            resource: resource as u8,
            reserved: [0; 7],
        };
        out.push(ANY, &event);
    }
}
