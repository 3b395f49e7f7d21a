//! Migration between real machines, each coming back from its stored state at every step, against a
//! naive model: every order of messages, repeated, lost, late or at the wrong host, for one instance; and
//! long generated histories of several, with time, trades and leases.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use vendue_engine::machine::command::{DefineBook, Genesis};
use vendue_engine::machine::migrate::PROPOSE_MS;
use vendue_tests::chance::Chance;
use vendue_tests::migration::{Host, Receipt, Record, Stand};
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{LeaseClass, Reject, Role, Side};
use vendue_wire::message::*;

const NAMES: [&str; 3] = ["web", "db", "batch"];
const FUNDS: u64 = 1 << 40;

fn genesis() -> Genesis {
    Genesis {
        accounts_max: 2.into(),
        instances_max: 4.into(),
        orders_per_instance_max: 8.into(),
        sessions_max: 2.into(),
        reversible_trades: 16.into(),
        leases_max: 16.into(),
        ..small_genesis()
    }
}

/// A host of this number: an account `acme` with funds, an operator in slot 0, processors and memory.
fn host(at: u64) -> Room {
    let book = |resource: u8| DefineBook {
        price_ticks_max: 20.into(),
        burst_percent: 200.into(),
        resource,
        name: field_cut("bronze"),
        ..small_book()
    };
    let mut room = Room::begun(&genesis(), &[book(0), book(1)], (at + 1) * 1_000_000_000);
    room.open(1, Role::Operator, ANY, false);
    let account = room.account(0, "acme", 0, (1, 1));
    room.deposit(0, account, FUNDS);
    room
}

/// What can be sent, and to which host.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "a few at a time")]
enum Message {
    Expect(usize),
    Depart(usize, (u64, u64)),
    Arrive(Arrive),
    Settle(u8, (u64, u64), u64),
}

/// Hosts, what their carrier knows, and what should be.
struct World {
    /// Shared with the worlds before and after, if nothing but questions came to them since.
    rooms: Vec<Rc<RefCell<Room>>>,
    naive: Vec<Host>,
    tickets: Vec<(u64, u64)>,
    records: Vec<Arrive>,
    receipts: BTreeMap<u64, Receipt>,
}

impl World {
    fn new(hosts: usize, names: usize) -> World {
        let mut rooms: Vec<Room> = (0..hosts as u64).map(host).collect();
        let house = |room: &Room| Host { house: room.machine.house(), ..Host::default() };
        let mut naive: Vec<Host> = rooms.iter().map(house).collect();
        for (at, name) in NAMES.iter().take(names).enumerate() {
            rooms[0].instance(0, 0, name, [10, 2, 0, 0, 0]);
            rooms[0].grant(0, at as u32, 12_345 + at as u64);
            let credits = [12_345 + at as u64, 0, 0, 0, 0];
            naive[0].instances.insert((*name).into(), (Stand::Live, credits));
        }
        let rooms = rooms.into_iter().map(|room| Rc::new(RefCell::new(room))).collect();
        let (tickets, records, receipts) = (Vec::new(), Vec::new(), BTreeMap::new());
        World { rooms, naive, tickets, records, receipts }
    }

    /// The same, these hosts after a crash.
    fn recovered(&self, hosts: impl Fn(usize) -> bool) -> World {
        let room = |(at, room): (usize, &Rc<RefCell<Room>>)| match hosts(at) {
            true => Rc::new(RefCell::new(room.borrow().recovered())),
            false => room.clone(),
        };
        World {
            rooms: self.rooms.iter().enumerate().map(room).collect(),
            naive: self.naive.clone(),
            tickets: self.tickets.clone(),
            records: self.records.clone(),
            receipts: self.receipts.clone(),
        }
    }

    fn room(&self, at: usize) -> RefMut<'_, Room> {
        self.rooms[at].borrow_mut()
    }

    /// The host of a house.
    fn host_of(&self, house: u64) -> usize {
        self.naive.iter().position(|host| host.house == house).expect("a host of that house")
    }

    /// Everything that matters of it.
    fn key(&self) -> String {
        let (naive, receipts) = (&self.naive, self.receipts.keys());
        let records = self.records.iter().map(|record| record.seal.get());
        format!("{naive:?} {:?} {:?} {:?}", self.tickets, records.collect::<Vec<_>>(), receipts)
    }

    /// Sends a message that must be carried out, without the naive model, in which time stands still.
    fn send_unchecked(&mut self, at: usize, message: &Message) -> u64 {
        let value = self.deliver(at, message).expect("it is carried out");
        if matches!(message, Message::Expect(_)) {
            self.tickets.push((self.naive[at].house, value));
        }
        value
    }

    /// Sends a message; the real host and the naive one must say the same.
    fn send(&mut self, at: usize, message: &Message) -> Result<u64, Reject> {
        let answer = self.deliver(at, message);
        self.compare(at, message, answer);
        self.learn(at);
        self.check(at);
        answer
    }

    fn deliver(&self, at: usize, message: &Message) -> Result<u64, Reject> {
        let mut room = self.room(at);
        let client_id = room.next_id();
        match *message {
            Message::Expect(name) => {
                let m = ExpectInstance {
                    client_id,
                    baseline_vru: [10, 2, 0, 0, 0].map(U32::new),
                    name: field_cut(NAMES[name]),
                    ..ExpectInstance::zeroed()
                };
                room.apply(0, &m);
            }
            Message::Depart(name, (house, ticket)) => {
                let instance = instance_of(&mut room, NAMES[name]);
                let (house, ticket, to) = (house.into(), ticket.into(), field_cut("other"));
                let reserved = 0.into();
                let instance = instance.into();
                room.apply(0, &Depart { client_id, house, ticket, instance, reserved, to });
            }
            Message::Arrive(record) => {
                room.apply(0, &Arrive { client_id, ..record });
            }
            Message::Settle(act, (house, ticket), receipt) => {
                let m = SettleMigration {
                    client_id,
                    house: house.into(),
                    ticket: ticket.into(),
                    receipt: receipt.into(),
                    act,
                    ..SettleMigration::zeroed()
                };
                room.apply(0, &m);
            }
        }
        let answer = match room.refusal() {
            Some(why) => Err(why),
            None => Ok(room.value()),
        };
        room.machine.check_conservation();
        answer
    }

    fn compare(&mut self, at: usize, message: &Message, answer: Result<u64, Reject>) {
        let house = self.naive[at].house;
        let departure = match *message {
            Message::Depart(_, ticket) => {
                let of = |row: &MigrationRow| (row.house.get(), row.ticket.get()) == ticket;
                let rows = rows(&mut self.room(at));
                rows.into_iter().find(of).map(|row| row.departure.get())
            }
            _ => None,
        };
        let (host, receipts) = (&mut self.naive[at], &self.receipts);
        let known = |receipt: u64| receipts.get(&receipt);
        let wanted = match *message {
            Message::Expect(name) => host.expect(NAMES[name], answer.ok()).map(|()| None),
            Message::Depart(name, (house, ticket)) => {
                host.depart(NAMES[name], (house, ticket), departure).map(|()| None)
            }
            Message::Arrive(record) => host.arrive(&Record::from(&record)).map(Some),
            Message::Settle(act, (house, ticket), receipt) => match act {
                MIGRATION_REFUSE => host.refuse(house, ticket).map(Some),
                MIGRATION_ABORT => host.abort(house, ticket, known(receipt)).map(|()| None),
                MIGRATION_DEPARTED => host.departed(house, ticket, known(receipt)).map(Some),
                _ => host.close(house, ticket, known(receipt)).map(|()| None),
            },
        };
        let context = format!("host {at}, {message:?}");
        assert_eq!(answer.err(), wanted.as_ref().err().copied(), "{context}");
        match (answer, wanted) {
            (Ok(value), Ok(Some(receipt))) => {
                let before = self.receipts.insert(value, receipt.clone());
                // A receipt of a departure that was asked for with nonsense says nothing.
                let nonsense = matches!(receipt, Receipt::Departed(_, None));
                assert!(nonsense || before.is_none_or(|before| before == receipt), "{context}");
            }
            (Ok(ticket), _) if matches!(message, Message::Expect(_)) => {
                self.tickets.push((house, ticket));
            }
            _ => {}
        }
    }

    /// The records that a host shows to who asks.
    fn learn(&mut self, at: usize) {
        let rows = rows(&mut self.room(at));
        for row in rows {
            let record = Arrive::from(&row);
            if row.state == 6 && !self.records.contains(&record) {
                self.records.push(record);
            }
        }
    }

    /// Each instance of a host is as it should be, with what it owns, and none lives at two hosts.
    fn check(&self, at: usize) {
        let mut room = self.room(at);
        room.apply(0, &QueryInstances { from: 0.into() });
        let found: BTreeMap<String, _> = room
            .said::<InstanceRow>()
            .into_iter()
            .map(|(_, row)| {
                let owns = (row.free_millicredits, row.held_millicredits);
                (text(&row.name).to_owned(), (owns.0.map(U64::get), owns.1.map(U64::get)))
            })
            .collect();
        let wanted = self.naive[at].instances.iter().map(|(name, (stand, credits))| {
            let owns = match stand {
                Stand::Live => (*credits, [0; 5]),
                Stand::Expected(_) => ([0; 5], [0; 5]),
                Stand::Departing(record) => ([0; 5], record.credits),
            };
            (name.clone(), owns)
        });
        assert_eq!(found, wanted.collect(), "host {at}: free and held");
        for name in NAMES {
            let of =
                |host: &&Host| host.instances.get(name).is_some_and(|row| row.0 == Stand::Live);
            assert!(self.naive.iter().filter(of).count() <= 1, "{name} lives twice");
        }
    }

    /// Everything that its carrier could send next.
    fn messages(
        &self,
        names: usize,
        (tickets_max, departures_max): (usize, usize),
    ) -> Vec<(usize, Message)> {
        let mut all = Vec::new();
        for at in 0..self.rooms.len() {
            for name in 0..names {
                if self.tickets.len() < tickets_max {
                    all.push((at, Message::Expect(name)));
                }
                if self.records.len() < departures_max {
                    all.extend(self.tickets.iter().map(|&t| (at, Message::Depart(name, t))));
                }
            }
            all.extend(self.records.iter().map(|record| (at, Message::Arrive(*record))));
            for &ticket in &self.tickets {
                all.push((at, Message::Settle(MIGRATION_REFUSE, ticket, 0)));
                for act in [MIGRATION_ABORT, MIGRATION_DEPARTED, MIGRATION_CLOSE] {
                    // Receipts of receipts of receipts would have no end.
                    let useful = self.receipts.iter().filter(|(_, receipt)| {
                        act != MIGRATION_DEPARTED || matches!(receipt, Receipt::Arrived(_))
                    });
                    all.extend(useful.map(|(&r, _)| (at, Message::Settle(act, ticket, r))));
                }
            }
        }
        all
    }

    /// What who comes late and knows nothing does: asks all hosts how they stand and ends what is
    /// under way.
    fn resume(&mut self) {
        for at in 0..self.rooms.len() {
            let rows = rows(&mut self.room(at));
            rows.iter().filter(|row| row.state == 6).for_each(|row| self.resume_departure(at, row));
        }
        for at in 0..self.rooms.len() {
            let rows = rows(&mut self.room(at));
            for row in rows {
                let ticket = (row.house.get(), row.ticket.get());
                if row.state == 4 {
                    let refuse = Message::Settle(MIGRATION_REFUSE, ticket, 0);
                    self.send(at, &refuse).expect("nothing arrived");
                } else if row.state == 5 {
                    let from = self.host_of(row.source.get());
                    let settle = Message::Settle(MIGRATION_DEPARTED, ticket, row.receipt.get());
                    let receipt = self.send(from, &settle).expect("it is gone");
                    let close = Message::Settle(MIGRATION_CLOSE, ticket, receipt);
                    self.send(at, &close).expect("the receipt of the departure");
                }
            }
        }
        // What departed to a ticket that another record took goes back once that is closed.
        for at in 0..self.rooms.len() {
            let rows = rows(&mut self.room(at));
            rows.iter().filter(|row| row.state == 6).for_each(|row| self.resume_departure(at, row));
        }
    }

    fn resume_departure(&mut self, at: usize, row: &MigrationRow) {
        let ticket = (row.house.get(), row.ticket.get());
        let to = self.host_of(ticket.0);
        if let Ok(receipt) = self.send(to, &Message::Arrive(Arrive::from(row))) {
            let settle = Message::Settle(MIGRATION_DEPARTED, ticket, receipt);
            self.send(at, &settle).expect("the receipt of the arrival");
        } else if let Ok(receipt) = self.send(to, &Message::Settle(MIGRATION_REFUSE, ticket, 0)) {
            let abort = Message::Settle(MIGRATION_ABORT, ticket, receipt);
            self.send(at, &abort).expect("the receipt of the refusal");
        }
    }

    /// Nothing is under way, and every instance lives once, with its credits.
    fn check_settled(&mut self, names: usize) {
        for at in 0..self.rooms.len() {
            assert_eq!(rows(&mut self.room(at)), []);
        }
        for (at, name) in NAMES.iter().take(names).enumerate() {
            let of = |host: &Host| host.instances.get(*name).cloned();
            let found: Vec<_> = self.naive.iter().filter_map(of).collect();
            assert_eq!(found, [(Stand::Live, [12_345 + at as u64, 0, 0, 0, 0])], "{name}");
        }
    }
}

/// Migrations as a host shows them, without advice.
fn rows(room: &mut Room) -> Vec<MigrationRow> {
    room.apply(0, &QueryMigrations { from: 0.into() });
    room.said::<MigrationRow>()
        .into_iter()
        .map(|(_, row)| row)
        .filter(|row| row.state != 7)
        .collect()
}

fn instance_of(room: &mut Room, name: &str) -> u32 {
    room.apply(0, &QueryInstances { from: 0.into() });
    let of = |(_, row): &(u32, InstanceRow)| (text(&row.name) == name).then(|| row.instance.get());
    room.said::<InstanceRow>().iter().find_map(of).unwrap_or(ANY)
}

/// Every state that hosts and their messages can get into, with so many tickets and departures.
fn walk(hosts: usize, bounds: (usize, usize)) -> usize {
    let first = World::new(hosts, 1);
    let mut seen = BTreeSet::from([first.key()]);
    let mut next = VecDeque::from([first]);
    let mut ends = BTreeSet::new();
    while let Some(world) = next.pop_front() {
        let mut resumed = world.recovered(|_| true);
        resumed.resume();
        resumed.check_settled(1);
        ends.insert(resumed.naive.iter().position(|host| !host.instances.is_empty()));
        for (at, message) in world.messages(1, bounds) {
            let mut after = world.recovered(|host| host == at);
            let _ = after.send(at, &message);
            if seen.insert(after.key()) {
                next.push_back(after);
            }
        }
    }
    assert!(ends.len() > 1, "the instance ends here or there");
    seen.len()
}

#[test]
fn whatever_comes_in_whatever_order_the_instance_is_at_one_host() {
    let (tickets, departures) = match std::env::var("VENDUE_MIGRATION_WALK") {
        Ok(_) => (3, 3),
        Err(_) => (2, 3),
    };
    let states = walk(2, (tickets, departures));
    println!("{states} states");
    assert!(states > 100, "{states} states");
}

#[test]
fn histories_of_several_instances_and_hosts_agree_with_the_naive_model() {
    for seed in 0..40 {
        let mut chance = Chance::new(seed);
        let mut world = World::new(3, 3);
        for _ in 0..120 {
            let all = world.messages(3, (24, 24));
            let (at, message) = all[chance.below(all.len() as u64) as usize];
            if chance.below(4) == 0 {
                world = world.recovered(|host| host == at);
            }
            let _ = world.send(at, &message);
        }
        world.resume();
        world.check_settled(3);
    }
}

/// An instance's bid for a lease.
fn lease(room: &mut Room, vru: u32, rent: u32, class: LeaseClass) {
    let m = BidLease {
        client_id: room.next_id(),
        amount: vru.into(),
        rent_ticks: rent.into(),
        class: class as u8,
        ..BidLease::zeroed()
    };
    room.apply(0, &m);
    assert_eq!(room.refusal(), None);
}

fn leases(room: &mut Room) -> Vec<(u32, u32, u32, u8)> {
    room.apply(0, &QueryLeases { from: 0.into() });
    let said = room.said::<LeaseRow>().into_iter().map(|(_, row)| row);
    said.map(|m| (m.wanted_vru.get(), m.granted_vru.get(), m.rent_ticks.get(), m.class)).collect()
}

fn funds(room: &mut Room) -> (u64, u64) {
    let row = room.account_row(0);
    (row.free_micro.get(), row.held_micro.get())
}

#[test]
fn leases_orders_and_time_move_along_or_come_back() {
    for arrives in [true, false] {
        let mut world = World::new(2, 1);
        {
            let mut room = world.room(0);
            let client_id = room.next_id();
            let entitle =
                EntitleInstance { client_id, vru: 30.into(), ..EntitleInstance::zeroed() };
            room.apply(0, &entitle);
            lease(&mut room, 20, 7, LeaseClass::Sla);
            lease(&mut room, 5, 3, LeaseClass::Speculative);
            let order = room.order(0, Side::Sell, 5, 2);
            room.apply(0, &order);
            // The first one only says when time began.
            room.tick(1);
            room.tick(700);
        }
        let before = leases(&mut world.room(0));
        world.send_unchecked(1, &Message::Expect(0));
        let ticket = world.tickets[0];
        world.send_unchecked(0, &Message::Depart(0, ticket));
        world.learn(0);
        let record = world.records[0];
        // 12,345 granted, 700 ms of 10 VRUs earned.
        assert_eq!(record.credit_millicredits[0].get(), 12_345 + 7000);
        assert_eq!(leases(&mut world.room(0)), [], "leases end");
        assert_eq!(funds(&mut world.room(0)).1, 0, "nothing is held any more");
        for at in 0..2 {
            // On the way it earns and pays nothing.
            let mut room = world.room(at);
            room.tick(5000);
            room.use_credits(0, 0, 3000);
            let order = room.order(0, Side::Sell, 5, 1);
            room.apply(0, &order);
            assert_eq!(room.refusal(), Some(Reject::UnknownInstance));
        }
        let end = if arrives {
            let receipt = world.send_unchecked(1, &Message::Arrive(record));
            world.send_unchecked(0, &Message::Settle(MIGRATION_DEPARTED, ticket, receipt));
            assert_eq!(instance_of(&mut world.room(0), "web"), ANY);
            1
        } else {
            let refuse = Message::Settle(MIGRATION_REFUSE, ticket, 0);
            let receipt = world.send_unchecked(1, &refuse);
            world.send_unchecked(0, &Message::Settle(MIGRATION_ABORT, ticket, receipt));
            assert_eq!(instance_of(&mut world.room(1), "web"), ANY);
            0
        };
        let mut room = world.room(end).recovered();
        assert_eq!(leases(&mut room), before, "the same leases, at host {end}");
        assert_eq!(funds(&mut room).1, (20 * 7 + 5 * 3) * 10, "their rent is held there");
        let row = room.instance_row(0);
        assert_eq!(row.free_millicredits[0].get(), 12_345 + 7000);
        room.tick(1000);
        assert!(room.instance_row(0).free_millicredits[0].get() > 12_345 + 7000, "it earns again");
        room.machine.check_conservation();
    }
}

#[test]
fn a_lease_that_cannot_be_served_here_is_proposed_and_decided_on() {
    let world = World::new(1, 1);
    let mut room = world.room(0);
    let client_id = room.next_id();
    let entitle = EntitleInstance { client_id, vru: 95.into(), ..EntitleInstance::zeroed() };
    room.apply(0, &entitle);
    // Of a hundred VRUs ten are reserved.
    lease(&mut room, 95, 7, LeaseClass::Sla);
    let all = |room: &mut Room| {
        rows(room).iter().map(|row| (row.state, row.short_vru.get())).collect::<Vec<_>>()
    };
    for _ in 0..PROPOSE_MS / 1000 {
        room.tick(1000);
    }
    assert_eq!(all(&mut room), [], "others' holds may be over by then");
    room.tick(1000);
    room.tick(1000);
    assert_eq!(all(&mut room), [(1, 5)]);
    let number = rows(&mut room)[0].ticket.get();
    let decide = |room: &mut Room, act: u8, number: u64, to: &str| {
        let client_id = room.next_id();
        let (ticket, to) = (number.into(), field_cut(to));
        room.apply(0, &SettleMigration { client_id, ticket, act, to, ..SettleMigration::zeroed() });
        room.refusal()
    };
    let unknown = Some(Reject::UnknownMigration);
    assert_eq!(decide(&mut room, MIGRATION_ACCEPT, number + 1, "far"), unknown);
    assert_eq!(decide(&mut room, MIGRATION_ACCEPT, number, ""), Some(Reject::BadName));
    assert_eq!(decide(&mut room, MIGRATION_DECLINE, number, ""), None);
    let mut room = room.recovered();
    room.tick(60_000);
    assert_eq!(all(&mut room), [(3, 5)], "declined for as long as it waits");
    assert_eq!(decide(&mut room, MIGRATION_ACCEPT, number, "far"), None);
    assert_eq!(text(&rows(&mut room)[0].to), "far");
    // What is free now serves it, and nothing is proposed any more.
    let client_id = room.next_id();
    room.apply(0, &CancelLease { client_id, handle: 0.into() });
    room.tick(1000);
    assert_eq!(all(&mut room), []);
    // Decided beforehand.
    assert_eq!(decide(&mut room, MIGRATION_STAND, 0, "further"), None);
    lease(&mut room, 95, 7, LeaseClass::Sla);
    for _ in 0..63 {
        room.tick(1000);
    }
    assert_eq!(all(&mut room), [(2, 5)]);
    assert_eq!(text(&rows(&mut room)[0].to), "further");
}

#[test]
fn migrations_are_for_operators() {
    let world = World::new(1, 1);
    let mut room = world.room(0);
    let tenant = room.open(2, Role::Tenant, 0, false);
    let client_id = room.next_id();
    room.apply(tenant, &ExpectInstance { client_id, ..ExpectInstance::zeroed() });
    assert_eq!(room.refusal(), Some(Reject::NotPermitted));
    room.apply(tenant, &Depart { client_id, ..Depart::zeroed() });
    assert_eq!(room.refusal(), Some(Reject::NotPermitted));
    room.apply(tenant, &Arrive { client_id, ..Arrive::zeroed() });
    assert_eq!(room.refusal(), Some(Reject::NotPermitted));
    room.apply(tenant, &SettleMigration { client_id, ..SettleMigration::zeroed() });
    assert_eq!(room.refusal(), Some(Reject::NotPermitted));
    assert_eq!(instance_of(&mut room, "web"), 0);
}
