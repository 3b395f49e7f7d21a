//! An agent's desk for one resource: what it knows and decides about one book.

use hvctl::agent::backoff::Backoff;
use hvctl::agent::keep::{Order, Step, step};
use hvctl::agent::predict::demand_milli_vru;
use hvctl::agent::{Agent, Decision, Situation};
use hvctl::meter::Usage;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vendue_wire::code::{Resource, Side};
use vendue_wire::message::*;

/// Client ids of agents' orders are above this, so that they know their own from those that people
/// or other programs enter for the instance, whichever session asked.
pub const OWN: u64 = 1 << 62;
/// Largest order tried at first, the daemon's default bound; halved when that is refused.
const QUANTITY_MAX: u32 = 10_000_000;

/// An order of this agent's, or of one before it, that stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub handle: u64,
    pub order: Order,
}

/// One resource.
#[derive(Debug)]
pub struct Desk {
    pub resource: Resource,
    pub book: u16,
    vru_size: u64,
    agent: Agent,
    measured: bool,
    quantity_max: u32,
    refused: Backoff,
    quiet_until: Option<Instant>,
}

impl Desk {
    /// A desk for the book of `tier`'s resource; `measured` if samples tell its use.
    pub fn new(
        resource: Resource,
        tier: &TierRow,
        agent: Agent,
        measured: bool,
        every: Duration,
    ) -> Desk {
        Desk {
            resource,
            book: tier.book.get(),
            vru_size: tier.vru_size.get(),
            agent,
            measured,
            quantity_max: QUANTITY_MAX,
            refused: Backoff::new(2 * every),
            quiet_until: None,
        }
    }

    /// Takes in what was used in the last `elapsed`.
    pub fn observe(&mut self, used: &Usage, elapsed: Duration) {
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let demand = demand_milli_vru(self.resource, used, elapsed_us, self.vru_size);
        if let Some(demand) = demand.filter(|_| self.measured) {
            self.agent.observe(demand);
        }
    }

    /// The agents' orders among the instance's, in the order of their ids.
    pub fn own(&self, rows: &[OrderRow]) -> Vec<Standing> {
        let own = |row: &&OrderRow| row.book.get() == self.book && row.client_id.get() > OWN;
        let mut rows: Vec<&OrderRow> = rows.iter().filter(own).collect();
        rows.sort_by_key(|row| row.client_id.get());
        rows.iter()
            .filter_map(|row| {
                let (price_ticks, quantity) = (row.price_ticks.get(), row.quantity.get());
                let order = Order { side: Side::from_u8(row.side)?, price_ticks, quantity };
                Some(Standing { handle: row.handle.get(), order })
            })
            .collect()
    }

    /// What should stand. `None` while it knows too little, or waits after a refusal.
    pub fn decide(
        &mut self,
        instance: &InstanceRow,
        book: &BookRow,
        funds_micro: u64,
        standing: Option<Standing>,
    ) -> Option<Decision> {
        if self.quiet_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let tick_micro = book.tick_micro.get();
        // What the standing order holds is the agent's to use again.
        let (mut offered, mut bid) = (0, 0);
        match standing.map(|standing| standing.order) {
            Some(Order { side: Side::Sell, quantity, .. }) => offered = u64::from(quantity) * 1000,
            Some(Order { side: Side::Buy, price_ticks, quantity }) => {
                bid = (u64::from(price_ticks) * u64::from(quantity)).saturating_mul(tick_micro);
            }
            None => {}
        }
        let free = instance.free_millicredits[self.resource as usize].get();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut decision = self.agent.decide(&Situation {
            now_s: now.as_secs(),
            baseline_vru: instance.baseline_vru[self.resource as usize].get(),
            balance_millicredits: free.saturating_add(offered),
            funds_micro: funds_micro.saturating_add(bid),
            tick_micro,
            price_ticks_max: book.price_ticks_max.get(),
            last_ticks: book.last_ticks.get(),
        })?;
        if let Some(order) = &mut decision.order {
            order.quantity = order.quantity.min(self.quantity_max);
        }
        Some(decision)
    }

    /// The next step from what stands to what was decided.
    pub fn step(&self, standing: Option<Standing>, decision: &Decision) -> Step {
        step(standing.map(|standing| standing.order), decision.order)
    }

    /// The daemon would not have it: waits, each time twice as long, and says for how long.
    pub fn refused(&mut self) -> Duration {
        let pause = self.refused.pause();
        self.quiet_until = Some(Instant::now() + pause);
        pause
    }

    /// The order was too large: tries half of it from now on.
    pub fn too_large(&mut self, quantity: u32) {
        self.quantity_max = (quantity / 2).max(1);
    }

    /// An order stood, or traded.
    pub fn worked(&mut self) {
        self.refused.worked();
    }
}
