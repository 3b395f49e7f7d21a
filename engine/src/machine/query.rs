//! Queries: what the machine knows, as rows, a page at a time. They change nothing.
//!
//! Questions whose answer a later stage keeps (tape, depth, limits, audit, replay) pass through as
//! [`Asked`], so that every answer stands in the one order.

use super::Machine;
use super::command::{Envelope, Query};
use super::config::RESOURCES;
use super::event::{Asked, Outbox};
use vendue_wire::code::{Resource, Side};
use vendue_wire::message::*;

/// Rows of one answer, so that no question keeps the core for long.
const PAGE: usize = 16;
/// "That was the last page."
const LAST: u64 = u64::MAX;

impl Machine {
    pub(super) fn query(&self, env: &Envelope, query: &Query<'_>, out: &mut Outbox) {
        match query {
            Query::Accounts(m) => self.account_rows(env, m.from.get(), out),
            Query::Instances(m) => self.instance_rows(env, m.from.get(), out),
            Query::Tiers => self.tier_rows(env, out),
            Query::Books(m) => self.book_rows(env, m.from.get(), out),
            Query::Orders(m) => self.order_rows(env, m, out),
            Query::Ledger => self.ledger_rows(env, out),
            Query::Depth(m) => ask(env, QueryDepth::KIND, m.book.get().into(), 0, out),
            Query::Replay(m) => ask(env, Replay::KIND, m.from.get(), 0, out),
            // The gateway answers it: it must work when nothing else does.
            Query::Status => {}
            Query::Trades(m) => {
                ask(env, QueryTrades::KIND, m.book.get().into(), m.limit.get(), out);
            }
            Query::Limits(m) => ask(env, QueryLimits::KIND, m.from.get().into(), 0, out),
            Query::Audit(m) => ask(env, QueryAudit::KIND, m.from.get(), m.limit.get(), out),
        }
    }

    fn account_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let used = self.accounts_used as usize;
        let first = (from as usize).min(used);
        for (at, row) in self.accounts[..used].iter().enumerate().skip(first).take(PAGE) {
            let funds = self.ledger.funds()[at].balance;
            let answer = AccountRow {
                free_micro: funds.free.into(),
                held_micro: funds.held.into(),
                sells_to: row.sells_to.into(),
                buys_from: row.buys_from.into(),
                account: (at as u32).into(),
                instances: row.instances.into(),
                name: row.name,
                group: row.group as u8,
                reserved: [0; 7],
            };
            out.push(env.connection, &answer);
        }
        end(env, next_page(first, used), out);
    }

    fn instance_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let mut rows = (from as usize..self.instances.len())
            .filter(|&at| self.instances[at].live == 1)
            .take(PAGE + 1);
        for at in rows.by_ref().take(PAGE) {
            out.push(env.connection, &self.instance_row(at));
        }
        end(env, rows.next().map_or(LAST, |at| at as u64), out);
    }

    fn instance_row(&self, at: usize) -> InstanceRow {
        let row = &self.instances[at];
        let pockets = &self.ledger.credits()[at * RESOURCES..(at + 1) * RESOURCES];
        let mut answer = InstanceRow {
            instance: (at as u32).into(),
            account: u32::from(row.account).into(),
            orders: self.slab.count(at as u16).into(),
            tier: row.tier.into(),
            bursting: row.bursting as u8,
            reserved: 0,
            baseline_vru: row.baseline_vru.map(U32::new),
            entitled_vru: [U32::ZERO; RESOURCES],
            free_millicredits: [U64::ZERO; RESOURCES],
            held_millicredits: [U64::ZERO; RESOURCES],
            name: row.name,
            place: row.place,
        };
        for &resource in Resource::ALL {
            let r = resource as usize;
            let entitled = self.entitlement(at as u16, resource).map_or(0, |(vru, _)| vru);
            answer.entitled_vru[r] = (entitled as u32).into();
            answer.free_millicredits[r] = pockets[r].balance.free.into();
            answer.held_millicredits[r] = pockets[r].balance.held.into();
        }
        answer
    }

    fn tier_rows(&self, env: &Envelope, out: &mut Outbox) {
        for (at, book) in self.books.iter().enumerate() {
            let answer = TierRow {
                vru_size: book.vru_size.into(),
                capacity_vru: book.capacity_vru.into(),
                reserved_vru: book.reserved_vru.into(),
                tier: book.tier.into(),
                book: (at as u16).into(),
                burst_percent: book.burst_percent.into(),
                resource: book.resource as u8,
                reserved: [0; 7],
                name: book.tier_name,
            };
            if at < 4 * PAGE {
                out.push(env.connection, &answer);
            }
        }
        end(env, LAST, out);
    }

    fn book_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let first = (from as usize).min(self.books.len());
        for (at, book) in self.books.iter().enumerate().skip(first).take(PAGE) {
            let answer = BookRow {
                tick_micro: book.tick_micro.into(),
                trades: book.trades.into(),
                volume: book.volume.into(),
                indicative_volume: book.indicative.volume.into(),
                indicative_imbalance: (book.indicative.imbalance as u64).into(),
                next_phase_ms: book.schedule.next_phase_ms().into(),
                book: (at as u16).into(),
                tier: book.tier.into(),
                price_ticks_max: u32::from(book.price_max).into(),
                last_ticks: u32::from(book.last).into(),
                bid_ticks: u32::from(book.best(Side::Buy)).into(),
                ask_ticks: u32::from(book.best(Side::Sell)).into(),
                orders: book.orders.into(),
                indicative_ticks: u32::from(book.indicative.price).into(),
                auction_every_ms: book.schedule.every_ms.into(),
                call_ms: book.schedule.call_ms.into(),
                resource: book.resource as u8,
                phase: book.phase as u8,
                scheduled: book.schedule.followed.into(),
                reserved: 0,
                tier_name: book.tier_name,
            };
            out.push(env.connection, &answer);
        }
        end(env, next_page(first, self.books.len()), out);
    }

    fn order_rows(&self, env: &Envelope, m: &QueryOrders, out: &mut Outbox) {
        let instance = m.instance.get();
        let count = match self.instance(instance) {
            Some(_) => self.slab.count(instance as u16) as usize,
            None => 0,
        };
        let first = (m.from.get() as usize).min(count);
        let slots = self.slab.orders(0, |owner| u32::from(owner) == instance);
        for slot in slots.take(count).skip(first).take(PAGE) {
            let node = &self.slab.nodes[slot as usize];
            let answer = OrderRow {
                handle: self.slab.handle(slot).into(),
                client_id: node.client_id.into(),
                instance: m.instance,
                price_ticks: u32::from(node.tag.price()).into(),
                quantity: node.quantity.into(),
                book: (node.tag.book() as u16).into(),
                side: node.tag.side() as u8,
                reserved: 0,
            };
            out.push(env.connection, &answer);
        }
        end(env, next_page(first, count), out);
    }

    fn ledger_rows(&self, env: &Envelope, out: &mut Outbox) {
        let funds = self.ledger.funds();
        let free = funds.iter().map(|b| u128::from(b.balance.free)).sum::<u128>();
        let held = funds.iter().map(|b| u128::from(b.balance.held)).sum::<u128>();
        let lines = [
            ("issue", -i128::from(self.ledger.funds_issued)),
            ("fees", i128::from(self.ledger.fees)),
            ("free", free as i128),
            ("held", held as i128),
        ];
        for (line, balance) in lines {
            out.push(env.connection, &ledger_row(ANY_BOOK, 255, line, balance));
        }
        for (at, book) in self.books.iter().enumerate().take(4 * PAGE) {
            let house = &self.ledger.house[at];
            let (mut free, mut held) = (0_u128, 0_u128);
            for (instance, row) in self.instances.iter().enumerate() {
                if row.live == 1 && row.tier == book.tier {
                    let balance = self.ledger.credit(instance as u16, book.resource);
                    free += u128::from(balance.free);
                    held += u128::from(balance.held);
                }
            }
            let lines = [
                ("issue", -(house.issued as i128)),
                ("burn", house.burned as i128),
                ("free", free as i128),
                ("held", held as i128),
            ];
            for (line, balance) in lines {
                let row = ledger_row(book.tier, book.resource as u8, line, balance);
                out.push(env.connection, &row);
            }
        }
        end(env, LAST, out);
    }
}

fn next_page(first: usize, all: usize) -> u64 {
    if first + PAGE < all { (first + PAGE) as u64 } else { LAST }
}

/// Ends an answer.
fn end(env: &Envelope, next: u64, out: &mut Outbox) {
    out.push(env.connection, &QueryEnd { request: env.request.into(), next: next.into() });
}

fn ask(env: &Envelope, kind: u8, from: u64, limit: u32, out: &mut Outbox) {
    let asked = Asked {
        request: env.request.into(),
        from: from.into(),
        limit: limit.into(),
        connection: env.connection.into(),
        kind,
        reserved: [0; 7],
    };
    out.push(env.session, &asked);
}

fn ledger_row(tier: u16, resource: u8, line: &str, balance: i128) -> LedgerRow {
    let balance = balance.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    LedgerRow {
        balance: (balance as u64).into(),
        tier: tier.into(),
        resource,
        reserved: [0; 5],
        line: field_cut(line),
    }
}
