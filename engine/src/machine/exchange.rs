//! Tier exchange: capacity and pool credits swapped from a tier to another, at a rational rate.
//!
//! Every tier has a pool of credits per resource: what nobody reserved earns for it, a credit a
//! VRU-second, up to `credit_cap_s` of it. A swap of `n` VRUs needs `n` that are unreserved and the
//! credits of [`SWAP_S`] seconds of them in the pool. At the rate `a/b`, `floor(n * a / b)` VRUs
//! arrive; the least that makes so many leaves, the rest stays with the source. Credits follow in
//! the same way. Instances keep their tier; only where their burst ceiling was the tier's whole
//! capacity does it follow that.
//!
//! Demand swaps too, where a [`DefineExchange`] says so. At each look a tier's load is the greater
//! of what is reserved and what was used since the last look. A source at `idle_percent` or below
//! beside a destination at `saturated_percent` or above, `looks` times in a row, gives up to
//! `step_vru`, but no more than keeps it idle. The rate moves at each look by `rate_step_percent`,
//! within its bounds: down, which makes capacity dearer, while the destination is saturated; up
//! while it is idle.

use super::command::{DefineExchange, Envelope};
use super::config::{BoundsError, EXCHANGES_MAX, MILLI, RESOURCES};
use super::event::{Outbox, RateMoved, Resized, TierSwap};
use super::tiers::TierState;
use super::{Broken, Machine};
use vendue_wire::code::{Reject, Resource};
use vendue_wire::message::{ANY, Body, RATE_MAX, SWAP_S, SetRate, SwapTiers, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A rational number: numerator, denominator.
pub type Rate = [u32; 2];

/// Denominator of rates that demand has moved.
const PARTS: u32 = 1_000_000;

const _: () = assert!(PARTS as u64 * RATE_MAX as u64 <= u32::MAX as u64, "a moved rate fits");

/// True if `a` is less than `b`.
fn less(a: Rate, b: Rate) -> bool {
    u64::from(a[0]) * u64::from(b[1]) < u64::from(b[0]) * u64::from(a[1])
}

/// True if bounds and rate are rates, in order.
pub(super) fn in_order(low: Rate, rate: Rate, high: Rate) -> bool {
    let whole = [low, rate, high].iter().all(|rate| rate[0] > 0 && rate[1] > 0);
    let ranks = [[1, RATE_MAX], low, rate, high, [RATE_MAX, 1]];
    whole && ranks.windows(2).all(|pair| !less(pair[1], pair[0]))
}

/// What arrives of `amount`, and the least that must leave for it.
fn convert(amount: u64, rate: Rate) -> Option<(u64, u64)> {
    let [num, den] = rate.map(u128::from);
    let arrives = u128::from(amount) * num / den;
    let leaves = (arrives * den).div_ceil(num);
    assert!(leaves <= u128::from(amount), "a swap takes more than was offered");
    Some((leaves as u64, u64::try_from(arrives).ok()?))
}

/// How a resource is swapped from a tier to another. Pairs without one have [`Exchange::usual`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Exchange {
    /// Use of source and destination up to the last look, milli-credits since the journal began.
    pub used_milli: [u128; 2],
    /// So many VRUs arrive for so many that leave.
    pub rate: Rate,
    /// The least that the rate may be.
    pub low: Rate,
    /// The most that the rate may be.
    pub high: Rate,
    /// When demand was looked at last, milliseconds; 0 before the first look.
    pub looked_ms: u64,
    /// Looks in a row that found reason to swap.
    pub found: u32,
    /// Source tier.
    pub from: u16,
    /// Destination tier.
    pub to: u16,
    /// A [`Resource`].
    pub resource: u8,
    /// 1: demand does not move the rate.
    pub fixed: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

impl Exchange {
    /// An unused row.
    pub const FREE: Exchange = Exchange::usual(u16::MAX, u16::MAX, Resource::Cpu);

    /// One to one, within the widest bounds.
    pub const fn usual(from: u16, to: u16, resource: Resource) -> Exchange {
        Exchange {
            rate: [1, 1],
            low: [1, RATE_MAX],
            high: [RATE_MAX, 1],
            looked_ms: 0,
            used_milli: [0; 2],
            found: 0,
            from,
            to,
            resource: resource as u8,
            fixed: 0,
            reserved: [0; 6],
        }
    }

    fn is_between(&self, from: u16, to: u16, resource: Resource) -> bool {
        (self.from, self.to, self.resource) == (from, to, resource as u8)
    }

    /// The rate a step of demand away: dearer (fewer arrive) or cheaper, within the bounds.
    fn moved(&self, percent: u16, dearer: bool) -> Rate {
        let [num, den] = self.rate.map(u64::from);
        let parts = num * u64::from(PARTS) / den;
        let step = (parts * u64::from(percent) / 100).max(1);
        let parts = if dearer { parts.saturating_sub(step) } else { parts + step };
        let [low, high] = [self.low, self.high].map(|bound| bound.map(u64::from));
        if parts * low[1] < low[0] * u64::from(PARTS) {
            self.low
        } else if high[0] * u64::from(PARTS) < parts * high[1] {
            self.high
        } else {
            // Not beyond what the bounds' own bound allows: it fits.
            [parts as u32, PARTS]
        }
    }
}

/// A swap that every check allows.
#[derive(Clone, Copy, Debug)]
struct Swap {
    /// Books of source and destination.
    from: usize,
    to: usize,
    rate: Rate,
    /// VRUs that leave, and that arrive.
    vru: (u64, u64),
    /// Milli-credits that leave, and that arrive.
    milli: (u64, u64),
    /// VRUs that were asked for and stay.
    rest_vru: u64,
}

impl Machine {
    /// Start-up: how a resource is swapped from a tier to another.
    pub(super) fn define_exchange(
        &mut self,
        m: &DefineExchange,
        resource: Resource,
    ) -> Result<(), Broken> {
        m.check()?;
        let (from, to) = (m.from.get(), m.to.get());
        let books = [from, to].map(|tier| self.book_at(tier, resource));
        let known = self.exchange_at(from, to, resource).is_some();
        if from == to || books.contains(&None) || known || self.exchanges_used >= EXCHANGES_MAX {
            let error = BoundsError::Order { tier: from, resource: m.resource };
            return Err(error.into());
        }
        self.exchange_rules.push(*m);
        let [rate, low, high] = [m.rate, m.low, m.high].map(|rate| rate.map(U32::get));
        let usual = Exchange::usual(from, to, resource);
        self.put_exchange(self.exchanges_used, Exchange { rate, low, high, ..usual });
        Ok(())
    }

    /// The book of a tier's resource.
    fn book_at(&self, tier: u16, resource: Resource) -> Option<usize> {
        let book = self.book_of.get(usize::from(tier))?[resource as usize];
        (book != u16::MAX).then_some(usize::from(book))
    }

    fn exchange_at(&self, from: u16, to: u16, resource: Resource) -> Option<usize> {
        self.exchanges().0.iter().position(|row| row.is_between(from, to, resource))
    }

    /// Writes a row, perhaps the first unused one.
    fn put_exchange(&mut self, at: usize, row: Exchange) {
        self.exchanges[at] = row;
        self.exchanges_used = self.exchanges_used.max(at + 1);
    }

    /// The exchanges that are not the usual, and what the configuration says of the first of them.
    pub fn exchanges(&self) -> (&[Exchange], &[DefineExchange]) {
        (&self.exchanges[..self.exchanges_used], &self.exchange_rules)
    }

    /// An operator swaps.
    pub(super) fn swap_tiers(
        &mut self,
        env: &Envelope,
        m: &SwapTiers,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let swap = self.plan(m.from.get(), m.to.get(), resource, m.vru.get().into())?;
        self.use_client_id(env, client_id);
        self.carry_out(&swap, out);
        self.tell_resized(out);
        self.report_done(env, SwapTiers::KIND, client_id, swap.vru.1, out);
        Ok(())
    }

    /// An operator sets a rate.
    pub(super) fn set_rate(
        &mut self,
        env: &Envelope,
        m: &SetRate,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let (from, to) = (m.from.get(), m.to.get());
        self.check_pair(from, to, resource)?;
        let known = self.exchange_at(from, to, resource);
        let row = known.map(|at| self.exchanges[at]);
        let row = row.unwrap_or(Exchange::usual(from, to, resource));
        let kept = |asked: [U32; 2], now: Rate| match asked.map(U32::get) {
            [0, 0] => now,
            asked => asked,
        };
        let (low, high) = (kept(m.low, row.low), kept(m.high, row.high));
        let rate = m.rate.map(U32::get);
        if !in_order(low, rate, high) {
            return Err(Reject::RateOutOfBounds);
        }
        if known.is_none() && self.exchanges_used >= EXCHANGES_MAX {
            return Err(Reject::ExchangesFull);
        }
        self.use_client_id(env, client_id);
        let row = Exchange { rate, low, high, fixed: m.fixed, ..row };
        let at = known.unwrap_or(self.exchanges_used);
        self.put_exchange(at, row);
        self.tell_rate(&row, out);
        self.report_done(env, SetRate::KIND, client_id, at as u64, out);
        Ok(())
    }

    /// The books of a pair of tiers; the destination must have the resource.
    fn check_pair(&self, from: u16, to: u16, resource: Resource) -> Result<(usize, usize), Reject> {
        let tiers = self.book_of.len();
        if usize::from(from) >= tiers || usize::from(to) >= tiers || from == to {
            return Err(Reject::UnknownTier);
        }
        // A tier that is being drained may give what it has.
        if self.tier_state(from) == TierState::Spare {
            return Err(Reject::UnknownTier);
        }
        self.check_live(to)?;
        let from = self.book_at(from, resource).ok_or(Reject::UnknownBook)?;
        let to = self.book_at(to, resource).ok_or(Reject::TierFull)?;
        Ok((from, to))
    }

    /// Checks a swap of `vru` VRUs of a tier, and reckons what would leave and arrive.
    fn plan(&self, from: u16, to: u16, resource: Resource, vru: u64) -> Result<Swap, Reject> {
        let books = self.check_pair(from, to, resource)?;
        let (source, destination) = (&self.books[books.0], &self.books[books.1]);
        // A tier is never swapped away whole.
        if vru > source.capacity_vru - self.spoken_for(books.0).max(1) {
            return Err(Reject::InsufficientCapacity);
        }
        if vru * SWAP_S * MILLI > self.ledger.pools[books.0].free {
            return Err(Reject::PoolTooSmall);
        }
        let row = self.exchange_at(from, to, resource);
        let rate = row.map_or([1, 1], |at| self.exchanges[at].rate);
        let (left, arrived) = convert(vru, rate).ok_or(Reject::Overflow)?;
        if arrived == 0 {
            return Err(Reject::BadQuantity);
        }
        let milli = convert(left * SWAP_S * MILLI, rate).ok_or(Reject::Overflow)?;
        let room = u64::from(u32::MAX) - destination.capacity_vru;
        if arrived > room || milli.1 > self.ledger.pool_room(books.1) {
            return Err(Reject::TierFull);
        }
        let rest_vru = vru - left;
        Ok(Swap { from: books.0, to: books.1, rate, vru: (left, arrived), milli, rest_vru })
    }

    fn carry_out(&mut self, swap: &Swap, out: &mut Outbox) {
        let Swap { from, to, rate, vru, milli, rest_vru } = *swap;
        self.ledger.drain_pool(from, milli.0);
        self.ledger.fill_pool(to, milli.1);
        self.books[from].capacity_vru -= vru.0;
        self.books[to].capacity_vru += vru.1;
        let left = self.books[from].capacity_vru;
        assert!(left >= self.spoken_for(from).max(1), "a swap took what is reserved");
        self.fold(vru.0 << 32 ^ vru.1 ^ milli.1.rotate_left(7) ^ (from as u64) << 48);
        let event = TierSwap {
            left_millicredits: milli.0.into(),
            arrived_millicredits: milli.1.into(),
            left_vru: (vru.0 as u32).into(),
            arrived_vru: (vru.1 as u32).into(),
            rest_vru: (rest_vru as u32).into(),
            rate: rate.map(U32::new),
            from_book: (from as u16).into(),
            to_book: (to as u16).into(),
        };
        out.push(ANY, &event);
        let mut books = [u16::MAX; RESOURCES];
        (books[0], books[1]) = (from as u16, to as u16);
        self.reclear_leases(&books, out);
    }

    fn tell_rate(&mut self, row: &Exchange, out: &mut Outbox) {
        self.fold(u64::from(row.rate[0]) << 32 | u64::from(row.rate[1]));
        let event = RateMoved {
            rate: row.rate.map(U32::new),
            from: row.from.into(),
            to: row.to.into(),
            resource: row.resource,
            reserved: [0; 3],
        };
        out.push(ANY, &event);
    }

    /// Tells the later stages of books whose capacity is another than they were told, and of the
    /// instances whose burst ceiling it was.
    pub(super) fn tell_resized(&mut self, out: &mut Outbox) {
        let resized = |m: &Machine, at: usize| m.told_vru[at] != m.shown_vru(at);
        if !(0..self.books.len()).any(|at| resized(self, at)) {
            return;
        }
        for instance in 0..self.instances.len() {
            let row = self.instances[instance];
            let books = if row.live == 1 {
                self.book_of[usize::from(row.tier)]
            } else {
                [u16::MAX; RESOURCES]
            };
            for &resource in Resource::ALL {
                let at = usize::from(books[resource as usize]);
                let Some(book) = self.books.get(at) else { continue };
                let least = self.told_vru[at].min(book.capacity_vru);
                let holding = self.holding(instance as u16, resource);
                let own = row.baseline_vru[resource as usize] - holding.lent;
                let most = book.uncapped_vru(own) + holding.above();
                if resized(self, at) && most > least {
                    self.announce(instance as u16, resource, out);
                }
            }
        }
        for at in 0..self.books.len() {
            if resized(self, at) {
                self.announce_capacity(at, out);
            }
        }
    }

    /// Capacity of a book as later stages know it: none if its tier is spare.
    pub(super) fn shown_vru(&self, at: usize) -> u64 {
        if self.is_spare(at) { 0 } else { self.books[at].capacity_vru }
    }

    /// Tells the later stages a book's capacity.
    pub(super) fn announce_capacity(&mut self, at: usize, out: &mut Outbox) {
        let (capacity_vru, book) = (self.shown_vru(at), &self.books[at]);
        self.told_vru[at] = capacity_vru;
        let event = Resized {
            capacity_vru: capacity_vru.into(),
            vru_size: book.vru_size.into(),
            tier: book.tier.into(),
            resource: book.resource as u8,
            reserved: [0; 5],
        };
        out.push(ANY, &event);
    }

    /// Time passes: what nobody reserved earns for the pools.
    pub(super) fn accrue_pools(&mut self, elapsed_ms: u64) {
        for (at, book) in self.books.iter().enumerate() {
            if self.is_spare(at) {
                continue;
            }
            let unreserved = book.capacity_vru - book.reserved_vru;
            let cap = unreserved.saturating_mul(u64::from(self.genesis.credit_cap_s.get()) * MILLI);
            let room = cap.saturating_sub(self.ledger.pools[at].free);
            let room = room.min(self.ledger.pool_room(at));
            let earned = unreserved.saturating_mul(elapsed_ms).min(room);
            if earned > 0 {
                self.ledger.fill_pool(at, earned);
            }
        }
    }

    /// Time passes: demand is looked at where that is due.
    pub(super) fn tick_exchanges(&mut self, now_ms: u64, out: &mut Outbox) {
        for at in 0..self.exchange_rules.len() {
            let every_ms = u64::from(self.exchange_rules[at].every_ms.get());
            let looked_ms = self.exchanges[at].looked_ms;
            let due = looked_ms == 0 || now_ms >= looked_ms + every_ms;
            if every_ms > 0 && due {
                self.look_at_demand(at, now_ms, out);
            }
        }
        self.tell_resized(out);
    }

    /// The daemon starts again: what was used while it was down is not known.
    pub(super) fn restart_exchanges(&mut self) {
        for row in &mut self.exchanges[..self.exchanges_used] {
            (row.looked_ms, row.found) = (0, 0);
        }
    }

    fn look_at_demand(&mut self, at: usize, now_ms: u64, out: &mut Outbox) {
        let (rules, mut row) = (self.exchange_rules[at], self.exchanges[at]);
        let Some(resource) = Resource::from_u8(row.resource) else { return };
        let Ok((from, to)) = self.check_pair(row.from, row.to, resource) else { return };
        let before = row;
        (row.looked_ms, row.used_milli) =
            (now_ms, [from, to].map(|at| self.rounds[at].total_milli));
        if before.looked_ms == 0 {
            self.exchanges[at] = row;
            return;
        }
        let elapsed_ms = now_ms - before.looked_ms;
        let load = |side: usize, at: usize| {
            let used_milli = row.used_milli[side].wrapping_sub(before.used_milli[side]);
            u128::from(self.books[at].reserved_vru).max(used_milli / u128::from(elapsed_ms))
        };
        let (source_load, destination_load) = (load(0, from), load(1, to));
        let idle = u128::from(rules.idle_percent.get());
        let is_idle = |at: usize, load: u128| {
            load.saturating_mul(100) <= u128::from(self.books[at].capacity_vru) * idle
        };
        let saturated = destination_load.saturating_mul(100)
            >= u128::from(self.books[to].capacity_vru) * u128::from(rules.saturated_percent.get());
        let source_idle = is_idle(from, source_load);
        let destination_idle = is_idle(to, destination_load);
        row.found = if saturated && source_idle { row.found + 1 } else { 0 };
        if row.fixed == 0 && rules.rate_step_percent.get() > 0 && (saturated || destination_idle) {
            row.rate = row.moved(rules.rate_step_percent.get(), saturated);
        }
        let swaps = row.found >= u32::from(rules.looks.get());
        if swaps {
            row.found = 0;
        }
        self.exchanges[at] = row;
        if row.rate != before.rate {
            self.tell_rate(&row, out);
        }
        if swaps {
            // What keeps the source idle, and what its pool pays for.
            let spare = self.books[from].capacity_vru - (source_load * 100).div_ceil(idle) as u64;
            let paid = self.ledger.pools[from].free / (SWAP_S * MILLI);
            let vru = u64::from(rules.step_vru.get()).min(spare).min(paid);
            if let Ok(swap) = self.plan(row.from, row.to, resource, vru) {
                self.carry_out(&swap, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_rounded_down_and_what_leaves_is_the_least_for_it() {
        assert_eq!(convert(10, [2, 3]), Some((9, 6)));
        assert_eq!(convert(10, [1, 1]), Some((10, 10)));
        assert_eq!(convert(10, [3, 2]), Some((10, 15)));
        assert_eq!(convert(1, [1, 2]), Some((0, 0)));
        assert_eq!(convert(u64::MAX, [2, 1]), None);
        for amount in 0..200 {
            for rate in [[1, 3], [7, 5], [1000, 1], [999_999, 1_000_000]] {
                let (left, arrived) = convert(amount, rate).unwrap();
                let of = |amount: u64| amount * u64::from(rate[0]) / u64::from(rate[1]);
                assert_eq!(of(left), arrived);
                assert!(left == 0 || of(left - 1) < arrived, "{amount} at {rate:?}");
            }
        }
    }

    #[test]
    fn demand_moves_a_rate_within_its_bounds_and_back() {
        let usual = Exchange::usual(0, 1, Resource::Cpu);
        let mut row = Exchange { rate: [1, 2], low: [1, 3], high: [2, 3], ..usual };
        let mut seen = Vec::new();
        for dearer in [true; 5].into_iter().chain([false; 8]) {
            row.rate = row.moved(10, dearer);
            assert!(in_order(row.low, row.rate, row.high));
            seen.push(row.rate);
        }
        assert_eq!(seen[0], [450_000, PARTS]);
        assert_eq!(seen[4], [1, 3], "exactly the bound");
        assert_eq!(seen.last(), Some(&[2, 3]));
    }
}
