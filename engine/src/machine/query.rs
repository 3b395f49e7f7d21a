//! Queries: what the machine knows, as rows, a page at a time. They change nothing.
//!
//! Who does not see the whole host is shown what is public and its own; another's is answered as
//! what does not exist is. Questions whose answer a later stage keeps (tape, depth, limits,
//! audit, report, replay) pass through as [`Asked`], so that every answer stands in the one order.

use super::Machine;
use super::command::{Envelope, Query};
use super::config::RESOURCES;
use super::event::{Asked, Outbox};
use super::handover::ARRIVED;
use super::limits::Limits;
use super::task::Task;
use vendue_wire::code::{Resource, Role, Side};
use vendue_wire::message::*;

/// Rows of one answer, so that no question keeps the core for long.
pub(super) const PAGE: usize = 16;
/// "That was the last page."
pub(super) const LAST: u64 = u64::MAX;

/// What a session is shown of accounts and instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    All,
    /// This account and its instances.
    Account(u32),
    /// This instance and its account.
    Instance(u32),
}

impl Machine {
    /// What a query's session is shown. The gateway lets nobody ask without a session who may not
    /// see everything.
    pub(super) fn sight(&self, env: &Envelope) -> Sight {
        let Some(session) = self.sessions.get(env.session as usize) else { return Sight::All };
        match session.role() {
            Role::Operator => Sight::All,
            Role::Observer if session.account == ANY => Sight::All,
            Role::Agent => Sight::Instance(session.instance),
            Role::Observer | Role::Tenant => Sight::Account(session.account),
        }
    }

    pub(super) fn shows_account(&self, sight: Sight, account: u32) -> bool {
        match sight {
            Sight::All => true,
            Sight::Account(own) => own == account,
            Sight::Instance(own) => {
                self.instance(own).is_some_and(|row| u32::from(row.account) == account)
            }
        }
    }

    pub(super) fn shows_instance(&self, sight: Sight, instance: u32) -> bool {
        self.present(instance).is_some_and(|row| match sight {
            Sight::All => true,
            Sight::Account(own) => u32::from(row.account) == own,
            Sight::Instance(own) => own == instance,
        })
    }

    pub(super) fn query(&self, env: &Envelope, query: &Query<'_>, out: &mut Outbox) {
        match query {
            Query::Accounts(m) => self.account_rows(env, m.from.get(), out),
            Query::Instances(m) => self.instance_rows(env, m.from.get(), out),
            Query::Tiers => self.tier_rows(env, out),
            Query::Books(m) => self.book_rows(env, m.from.get(), out),
            Query::Orders(m) => self.order_rows(env, m, out),
            Query::Ledger => self.ledger_rows(env, out),
            Query::Depth(m) => self.ask(env, QueryDepth::KIND, 0, 0, m.book.get(), out),
            Query::Replay(m) => self.ask(env, Replay::KIND, m.from.get(), 0, ANY_BOOK, out),
            // The gateway answers it: it must work when nothing else does.
            Query::Status => {}
            Query::Trades(m) => {
                self.ask(env, QueryTrades::KIND, 0, m.limit.get(), m.book.get(), out);
            }
            Query::Tape(m) => {
                self.ask(env, QueryTape::KIND, m.from.get(), 0, m.book.get(), out);
            }
            Query::Market(m) => {
                self.ask(env, QueryMarket::KIND, m.from.get().into(), 0, ANY_BOOK, out);
            }
            Query::Bars(m) => {
                let (from_ns, width_s) = (m.from_ns.get(), m.width_s.get());
                self.ask(env, QueryBars::KIND, from_ns, width_s, m.book.get(), out);
            }
            Query::Limits(m) => self.ask_host(env, QueryLimits::KIND, m.from.get(), out),
            Query::Sensors(m) => self.ask_host(env, QuerySensors::KIND, m.from.get(), out),
            Query::Audit(m) => {
                self.ask(env, QueryAudit::KIND, m.from.get(), m.limit.get(), ANY_BOOK, out);
            }
            Query::Report(m) => {
                let (from, limit) = (m.from.get(), m.limit.get());
                self.ask(env, QueryReport::KIND, from, limit, m.step_s.get(), out);
            }
            Query::Moment(m) => {
                self.ask(env, QueryMoment::KIND, m.time_ns.get(), 0, ANY_BOOK, out);
            }
            Query::Exchanges(m) => self.exchange_rows(env, m.from.get(), out),
            Query::Leases(m) => self.lease_rows(env, m.from.get(), out),
            Query::Objectives(m) => self.objective_rows(env, m.from.get(), out),
            Query::Rents(m) => self.rent_rows(env, m.from.get(), out),
            Query::Tasks(m) => self.task_rows(env, m.from.get(), out),
            Query::Groups(m) => self.group_rows(env, m.from.get(), out),
            Query::Members(m) => self.member_rows(env, m.from.get(), out),
            Query::Forecasts(m) => self.forecast_rows(env, m.from.get(), out),
            Query::Policies(m) => self.policy_rows(env, m.from.get(), out),
            Query::Events(m) => self.event_rows(env, m.from.get(), out),
            Query::Experiments(m) => self.experiment_rows(env, m.from.get(), out),
            Query::Exposures(m) => {
                self.exposure_rows(env, m.experiment.get(), m.from.get(), out);
            }
            Query::History(m, _) if !self.shows_instance(self.sight(env), m.instance.get()) => {
                end(env, LAST, out);
            }
            Query::History(m, resource) => {
                let (from, instance) = (m.from_ns.get(), m.instance.get());
                let width = BAR_WIDTHS_S.iter().position(|&s| s == u32::from(m.width_s.get()));
                let of = (*resource as u16) << 8 | width.unwrap_or_default() as u16;
                self.ask(env, QueryHistory::KIND, from, instance, of, out);
            }
            Query::Tokens(m) => self.token_rows(env, m.from.get(), out),
            Query::Swaps(m) => self.swap_rows(env, m.from.get(), out),
            Query::SwapPolicies(m) => self.swap_policy_rows(env, m.from.get(), out),
            Query::Migrations(m) => self.migration_rows(env, m.from.get(), out),
        }
    }

    /// Tasks, to who pays for them.
    fn task_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let sight = self.sight(env);
        let shows = |task: &Task| match sight {
            Sight::All => true,
            Sight::Account(own) => own == u32::from(task.account),
            Sight::Instance(own) => self.is_agents(own, task),
        };
        let rows = (0_u32..).zip(self.swarm().rows()).skip(from as usize);
        let mut shown = rows.filter(|(_, task)| task.is_live() && shows(task)).take(PAGE + 1);
        for (slot, task) in shown.by_ref().take(PAGE) {
            out.push(env.connection, &self.task_row(slot, task));
        }
        end(env, shown.next().map_or(LAST, |(slot, _)| slot.into()), out);
    }

    /// Groups, to those whose account they are of.
    fn group_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let sight = self.sight(env);
        let groups = (0_u16..).zip(self.swarm().groups()).skip(from as usize);
        let mut shown =
            groups.filter(|(_, row)| self.shows_account(sight, row.account.into())).take(PAGE + 1);
        for (at, _) in shown.by_ref().take(PAGE) {
            out.push(env.connection, &self.group_row(at));
        }
        end(env, shown.next().map_or(LAST, |(at, _)| at.into()), out);
    }

    fn member_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let instances = self.shown_instances(self.sight(env), from);
        let mut shown = instances.filter_map(|at| self.member_row(at as u16)).take(PAGE + 1);
        for row in shown.by_ref().take(PAGE) {
            out.push(env.connection, &row);
        }
        end(env, shown.next().map_or(LAST, |row| row.instance.get().into()), out);
    }

    /// Proposals, migrations and advice, to whose instances they are of.
    fn migration_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let sight = self.sight(env);
        let rows = (from as usize..self.migration_places()).filter_map(|at| {
            let row = self.migration_row(at)?;
            // Who arrived may be gone again, and its number another's.
            let own = row.state != ARRIVED && self.shows_instance(sight, row.instance.get());
            (own || sight == Sight::All).then_some((at, row))
        });
        let mut shown = rows.take(PAGE + 1);
        for (_, row) in shown.by_ref().take(PAGE) {
            out.push(env.connection, &row);
        }
        end(env, shown.next().map_or(LAST, |(at, _)| at as u64), out);
    }

    fn account_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let sight = self.sight(env);
        let mut shown =
            (from..self.accounts_used).filter(|&at| self.shows_account(sight, at)).take(PAGE + 1);
        for at in shown.by_ref().take(PAGE) {
            let at = at as usize;
            let (row, limits) = (&self.accounts[at], &self.limits[at]);
            let funds = self.ledger.funds()[at].balance;
            let answer = AccountRow {
                free_micro: funds.free.into(),
                held_micro: funds.held.into(),
                sells_to: limits.sells_to.into(),
                buys_from: limits.buys_from.into(),
                account: (at as u32).into(),
                instances: row.instances.into(),
                name: row.name,
                cap_millicores: row.cap_millicores.into(),
                group: row.group as u8,
                opted_in: limits.opted_in as u8,
                reserved: [0; 2],
            };
            out.push(env.connection, &answer);
            if limits.are_set() {
                out.push(env.connection, &self.limits_row(at as u32, limits));
            }
        }
        end(env, shown.next().map_or(LAST, u64::from), out);
    }

    fn limits_row(&self, account: u32, limits: &Limits) -> AccountLimitsRow {
        let [bought, sold] = limits.traded_in(self.limit_window());
        let ([buy_max, sell_max], [wanted, offered]) = (limits.window_max, limits.open);
        AccountLimitsRow {
            sell_max_credits: sell_max.into(),
            buy_max_credits: buy_max.into(),
            order_max_micro: limits.order_max_micro.into(),
            position_max_credits: limits.position_max.into(),
            sold_credits: sold.into(),
            bought_credits: bought.into(),
            offered_credits: offered.into(),
            wanted_credits: wanted.into(),
            window_ends_ns: self.limit_window_ends_ns().into(),
            account: account.into(),
            reserved: 0.into(),
        }
    }

    /// The instances that a session is shown, from a number on.
    pub(super) fn shown_instances(
        &self,
        sight: Sight,
        from: u32,
    ) -> impl Iterator<Item = u32> + '_ {
        (from..self.instances.len() as u32).filter(move |&at| self.shows_instance(sight, at))
    }

    fn instance_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let mut shown = self.shown_instances(self.sight(env), from).take(PAGE + 1);
        for at in shown.by_ref().take(PAGE) {
            out.push(env.connection, &self.instance_row(at as usize));
        }
        end(env, shown.next().map_or(LAST, u64::from), out);
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
            frozen: row.is_frozen().into(),
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
                pool_millicredits: self.ledger.pools[at].free.into(),
                tier: book.tier.into(),
                book: (at as u16).into(),
                burst_percent: book.burst_percent.into(),
                resource: book.resource as u8,
                state: self.tier_state(book.tier) as u8,
                reserved: [0; 6],
                name: book.tier_name,
            };
            if at < 4 * PAGE {
                out.push(env.connection, &answer);
            }
        }
        end(env, LAST, out);
    }

    fn exchange_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let (rows, rules) = self.exchanges();
        let first = (from as usize).min(rows.len());
        for (at, row) in rows.iter().enumerate().skip(first).take(PAGE) {
            let mut answer = ExchangeRow {
                rate: row.rate.map(U32::new),
                low: row.low.map(U32::new),
                high: row.high.map(U32::new),
                number: (at as u32).into(),
                from: row.from.into(),
                to: row.to.into(),
                found: (row.found as u16).into(),
                resource: row.resource,
                fixed: row.fixed,
                ..ExchangeRow::zeroed()
            };
            if let Some(rules) = rules.get(at) {
                answer.every_ms = rules.every_ms;
                answer.step_vru = rules.step_vru;
                answer.idle_percent = rules.idle_percent;
                answer.saturated_percent = rules.saturated_percent;
                answer.looks = rules.looks;
                answer.rate_step_percent = rules.rate_step_percent;
            }
            out.push(env.connection, &answer);
        }
        end(env, next_page(first, rows.len()), out);
    }

    fn lease_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let sight = self.sight(env);
        let leases = &self.rentals.leases;
        let shown = |slot: &u32| {
            let row = &leases[*slot as usize];
            row.live == 1 && self.shows_instance(sight, row.instance.into())
        };
        let mut shown = (from..self.rentals.used()).filter(shown).take(PAGE + 1);
        for slot in shown.by_ref().take(PAGE) {
            let row = &leases[slot as usize];
            let answer = LeaseRow {
                handle: self.rentals.handle(slot).into(),
                client_id: row.client_id.into(),
                expires_at_ms: row.expires_ms.into(),
                held_until_ms: if row.granted > 0 { row.firm_until_ms } else { 0 }.into(),
                paid_micro: row.paid_micro.into(),
                held_micro: row.held_micro.into(),
                instance: u32::from(row.instance).into(),
                wanted_vru: row.wanted.into(),
                granted_vru: row.granted.into(),
                rent_ticks: u32::from(row.rent).into(),
                book: row.book.into(),
                class: row.class,
                all_or_none: row.whole,
                reserved: [0; 4],
            };
            out.push(env.connection, &answer);
        }
        end(env, shown.next().map_or(LAST, u64::from), out);
    }

    fn objective_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let sight = self.sight(env);
        let rows = (0_u32..).zip(self.objectives.used()).skip(from as usize);
        let mut shown = rows
            .filter(|(_, row)| row.live == 1 && self.shows_instance(sight, row.instance.into()))
            .take(PAGE + 1);
        for (slot, row) in shown.by_ref().take(PAGE) {
            out.push(env.connection, &self.objective_row(slot, row));
        }
        end(env, shown.next().map_or(LAST, |(slot, _)| slot.into()), out);
    }

    fn rent_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let first = (from as usize).min(self.books.len());
        for (at, rental) in self.rentals.books.iter().enumerate().skip(first).take(PAGE) {
            let answer = RentRow {
                supply_vru: self.lease_supply(at).into(),
                granted_vru: rental.granted.into(),
                lent_vru: rental.lent.into(),
                rent_ticks: rental.meters.map(|meter| meter.rent.into()),
                reserve_ticks: rental.meters.map(|meter| meter.reserve.into()),
                leases: [0, 1, 2].map(|class| rental.leases(class).0.into()),
                book: (at as u16).into(),
                reserved: [0; 2],
            };
            out.push(env.connection, &answer);
        }
        end(env, next_page(first, self.books.len()), out);
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
        let count = match self.shows_instance(self.sight(env), instance) {
            true => self.slab.count(instance as u16) as usize,
            false => 0,
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
            ("rents", i128::from(self.ledger.rents)),
            ("free", free as i128),
            ("held", held as i128),
        ];
        for (line, balance) in lines {
            out.push(env.connection, &ledger_row(ANY_BOOK, 255, line, balance));
        }
        for (at, book) in self.books.iter().enumerate().take(4 * PAGE) {
            let (house, pool) = (&self.ledger.house[at], &self.ledger.pools[at]);
            let (mut free, mut held) = (0_u128, 0_u128);
            for (instance, row) in self.instances.iter().enumerate() {
                if row.live != 0 && row.tier == book.tier {
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
                ("pool issue", -(pool.issued as i128)),
                ("pool burn", pool.burned as i128),
                ("pool", pool.free.into()),
            ];
            for (line, balance) in lines {
                let row = ledger_row(book.tier, book.resource as u8, line, balance);
                out.push(env.connection, &row);
            }
        }
        end(env, LAST, out);
    }

    /// Passes a question on to who keeps the answer.
    fn ask(&self, env: &Envelope, kind: u8, from: u64, limit: u32, book: u16, out: &mut Outbox) {
        let asked = Asked {
            request: env.request.into(),
            from: from.into(),
            limit: limit.into(),
            connection: env.connection.into(),
            book: book.into(),
            kind,
            narrow: (self.sight(env) != Sight::All).into(),
            reserved: [0; 4],
        };
        out.push(env.session, &asked);
    }

    /// Who keeps limits and sensors does not know whose an instance is: a session that sees only its own
    /// is passed on instance by instance.
    fn ask_host(&self, env: &Envelope, kind: u8, from: u32, out: &mut Outbox) {
        let sight = self.sight(env);
        if sight == Sight::All {
            return self.ask(env, kind, from.into(), 0, ANY_BOOK, out);
        }
        let mut shown = self.shown_instances(sight, from);
        match shown.next() {
            Some(first) => {
                let next = shown.next().unwrap_or(ANY);
                self.ask(env, kind, first.into(), next, ANY_BOOK, out);
            }
            None => end(env, LAST, out),
        }
    }
}

fn next_page(first: usize, all: usize) -> u64 {
    if first + PAGE < all { (first + PAGE) as u64 } else { LAST }
}

/// Ends an answer.
pub(super) fn end(env: &Envelope, next: u64, out: &mut Outbox) {
    out.push(env.connection, &QueryEnd { request: env.request.into(), next: next.into() });
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
