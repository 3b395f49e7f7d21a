//! What credits are worth: launch credits, expiry, weights and the price of what is contended.

use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{DefineBook, DefineCredits, Restart};
use vendue_engine::machine::event::{Entitled, Fill, RentEarned, Weighted};
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{LeaseClass, Reject, Resource, Role, Side};
use vendue_wire::message::{
    ANY, BidLease, Body, Cancelled, Done, Lend, Rejected, RemoveInstance, SetBid, SetReserveRent,
};

const CPU: Resource = Resource::Cpu;
/// Whole credits as the machine keeps them.
const CREDIT: u64 = 1000;

/// A host of 100 VRUs with three instances of 20 VRUs, of two accounts.
struct Host {
    room: Room,
    operator: u32,
}

fn host(change: impl FnOnce(&mut DefineCredits)) -> Host {
    let genesis = small_genesis();
    let book = DefineBook { burst_percent: 400.into(), resource: CPU as u8, ..small_book() };
    let mut room = Room::new(&genesis, &[book]);
    let mut rules = DefineCredits::usual(0, CPU as u8);
    change(&mut rules);
    room.daemon(&rules);
    let operator = room.open(1, Role::Operator, ANY, false);
    for name in ["ada", "bob"] {
        room.account(operator, name, 0, (1, 1));
    }
    room.tick(1000);
    for (name, account) in [("a", 0), ("b", 1), ("c", 1)] {
        room.instance(operator, account, name, [20, 0, 0, 0, 0]);
    }
    Host { room, operator }
}

impl Host {
    fn free(&self, instance: u16) -> u64 {
        self.room.machine.ledger().credit(instance, CPU).free
    }

    /// A second in which each used so many VRUs; returns the weights that were told.
    fn second(&mut self, used: [u64; 3]) -> Vec<(u32, u32)> {
        self.room.tick(1000);
        for (instance, vrus) in (0..).zip(used) {
            if vrus > 0 {
                self.room.use_credits(instance, CPU as u8, vrus * 1000);
            }
        }
        self.room.tick(0);
        self.room.machine.check_conservation();
        self.weights()
    }

    /// Sells so many credits from one instance to another at once.
    fn trade(&mut self, seller: u32, buyer: u32, quantity: u32) {
        for (instance, side) in [(seller, Side::Sell), (buyer, Side::Buy)] {
            let order = self.room.order(instance, side, 1, quantity);
            self.room.apply(self.operator, &order);
            assert_eq!(self.room.refusal(), None, "{instance}");
        }
        assert_eq!(self.room.said::<Fill>().len(), 1);
    }

    fn weights(&self) -> Vec<(u32, u32)> {
        let told = self.room.said::<Weighted>().into_iter();
        told.map(|(_, m)| (m.instance.get(), m.weight_vru.get())).collect()
    }

    fn bid(&mut self, session: u32, instance: u32, milli: u32) {
        let mut m = SetBid::zeroed();
        m.client_id = self.room.next_id();
        (m.instance, m.bid_milli) = (instance.into(), milli.into());
        self.room.apply(session, &m);
    }

    fn refused(&self) -> u8 {
        self.room.one::<Rejected>().code
    }
}

#[test]
fn launch_credits_are_there_at_once_and_let_it_burst() {
    let host = host(|rules| rules.launch_s = 60.into());
    assert_eq!(host.free(2), 60 * 20 * CREDIT);
    let last = host.room.said::<Entitled>().pop().expect("a cap").1;
    assert_eq!((last.instance.get(), last.vru.get()), (2, 80), "the burst ceiling");
    host.room.machine.check_conservation();
}

#[test]
fn credits_that_lay_idle_for_their_time_burn_and_those_in_use_do_not() {
    let mut host = host(|rules| rules.expiry_s = 10.into());
    // a saves all; b uses what it earns.
    for _ in 0..9 {
        host.second([0, 20, 0]);
    }
    host.room.grant(host.operator, 1, 5 * CREDIT);
    assert_eq!(host.free(0), 9 * 20 * CREDIT);
    for _ in 0..3 {
        host.second([0, 20, 0]);
    }
    // The time began with the first tick, before a had anything, so nothing was idle throughout.
    assert_eq!((host.free(0), host.free(1)), (12 * 20 * CREDIT, 5 * CREDIT));
    let saved = host.free(0);
    let mut burned = 0;
    for second in 13..=22 {
        host.second([0, 20, 0]);
        burned = (second * 20 * CREDIT) - host.free(0);
    }
    assert!((saved - 40 * CREDIT..=saved).contains(&burned), "{burned} of {saved} burned");
    assert_eq!(host.free(1), 0, "what was granted lay idle as well");
}

#[test]
fn saving_ends_at_the_cap_and_what_was_bought_beyond_it_earns_nothing_more() {
    let mut host = host(|_| {});
    let cap = 3600 * 20 * CREDIT;
    host.room.tick(7200 * 1000);
    assert_eq!([0, 1, 2].map(|instance| host.free(instance)), [cap; 3]);
    host.room.deposit(host.operator, 0, 1_000_000);
    host.trade(2, 0, 100);
    assert_eq!((host.free(0), host.free(2)), (cap + 100 * CREDIT, cap - 100 * CREDIT));
    host.room.tick(3600 * 1000);
    assert_eq!((host.free(0), host.free(2)), (cap + 100 * CREDIT, cap));
}

#[test]
fn a_hoarder_has_at_most_what_two_periods_brought_it_even_if_it_offers_all_at_a_price_nobody_pays()
{
    const PERIOD_S: u64 = 10;
    let mut host = host(|rules| rules.expiry_s = (PERIOD_S as u32).into());
    host.room.deposit(host.operator, 1, 1_000_000);
    let (mut most, mut taken_back) = (0, 0);
    for second in 1..=100 {
        host.room.tick(1000);
        taken_back += host.room.said::<Cancelled>().len();
        // All that a earns goes to b, which now and then offers what it has.
        host.trade(0, 1, 20);
        if second % 7 == 0 {
            let quantity = (host.free(1) / CREDIT) as u32;
            let offer = host.room.order(1, Side::Sell, 100, quantity.min(1000));
            host.room.apply(host.operator, &offer);
            assert_eq!(host.room.refusal(), None);
        }
        // What lies idle is looked at in ticks.
        host.room.tick(0);
        taken_back += host.room.said::<Cancelled>().len();
        let balance = host.room.machine.ledger().credit(1, CPU);
        most = (balance.free + balance.held).max(most);
        host.room.machine.check_conservation();
    }
    let brought = PERIOD_S * (20 + 20) * CREDIT;
    assert!((brought..=2 * brought).contains(&most), "{most} hoarded, {brought} a period");
    assert!(taken_back > 5, "offers taken back: {taken_back}");
}

#[test]
fn use_costs_one_credit_and_only_contended_use_above_the_baseline_more() {
    let mut host = host(|_| {});
    for instance in 0..3 {
        host.room.grant(host.operator, instance, 10_000 * CREDIT);
    }
    // Two thirds of the host, a above its baseline by 20: a credit a VRU-second.
    host.second([40, 20, 7]);
    let spent = |host: &Host, from: u64, instance| from - host.free(instance);
    let granted = 10_000 * CREDIT;
    assert_eq!(spent(&host, granted + 20 * CREDIT, 0), 40 * CREDIT);
    // Full, and a fills up to twice its weight: the price is 20 VRUs of weight / 40 of use, below
    // the reserve price.
    let before = host.free(0);
    host.second([40, 40, 20]);
    assert_eq!(spent(&host, before + 20 * CREDIT, 0), 40 * CREDIT);
    // a and b bid four, and so they weigh: both get 40 of the full host for a weight of some 80,
    // c 20 for 20: c is at the level all are filled to, and the price is the reserve price.
    for instance in 0..2 {
        host.bid(host.operator, instance, 4000);
    }
    let before = host.free(0);
    host.second([40, 40, 20]);
    assert_eq!(spent(&host, before + 20 * CREDIT, 0), 40 * CREDIT);
    // Without c the level is 80 / 50 = 1.6: 30 above the baseline cost 1.6 credits each.
    let before = [host.free(0), host.free(1)];
    host.second([50, 50, 0]);
    for instance in 0..2 {
        let paid = spent(&host, before[usize::from(instance)] + 20 * CREDIT, instance);
        assert_eq!(paid, 20 * CREDIT + 30 * 1600);
    }
    // b takes its bid back: it pays no more than that, whatever a bids.
    host.bid(host.operator, 1, 1000);
    host.bid(host.operator, 0, 100_000);
    let before = host.free(1);
    host.second([50, 50, 0]);
    assert_eq!(spent(&host, before + 20 * CREDIT, 1), 50 * CREDIT);
}

#[test]
fn the_reserve_price_is_the_least_for_use_above_the_baseline() {
    let mut host = host(|rules| rules.reserve_milli = 1500.into());
    host.room.grant(host.operator, 0, 1000 * CREDIT);
    host.second([30, 0, 0]);
    assert_eq!(host.free(0), (1000 + 20 - 20 - 15) * CREDIT);
}

#[test]
fn weights_follow_wealth_and_are_told_only_when_they_change() {
    let mut host = host(|_| {});
    assert_eq!(host.weights(), [(2, 20)], "all are equal while nobody has anything");
    // a saves, b and c use all they earn: a has everything.
    let told = host.second([0, 20, 20]);
    // Three times the fair balance: 3^2.5 = 15.6, in eighths of an octave 16. The others have
    // nothing, and the least weight.
    assert_eq!(told, [(0, 20 * 16), (1, 5), (2, 5)]);
    assert_eq!(host.second([0, 20, 20]), [], "told already");
    // Equal balances again.
    let rich = host.free(0);
    host.room.grant(host.operator, 1, rich);
    host.room.grant(host.operator, 2, rich);
    assert_eq!(host.second([20, 20, 20]), [(0, 20), (1, 20), (2, 20)]);
    assert_eq!(host.second([20, 20, 20]), []);
}

#[test]
fn only_its_own_may_bid_for_an_instance_and_only_within_bounds() {
    let mut host = host(|_| {});
    let tenant = host.room.open(2, Role::Tenant, 1, false);
    let observer = host.room.open(3, Role::Observer, ANY, false);
    host.bid(tenant, 1, 2000);
    assert_eq!(host.room.one::<Done>().value.get(), 2000);
    assert_eq!(host.weights(), [(1, 40)]);
    host.bid(tenant, 0, 2000);
    assert_eq!(host.refused(), Reject::UnknownInstance as u8, "another's is none");
    host.bid(observer, 1, 2000);
    assert_eq!(host.refused(), Reject::NotPermitted as u8);
    host.bid(tenant, 7, 2000);
    assert_eq!(host.refused(), Reject::UnknownInstance as u8);
    for milli in [0, 99, 100_001] {
        host.bid(tenant, 1, milli);
        assert_eq!(host.refused(), Reject::BadPrice as u8);
    }
    let mut m = SetBid::zeroed();
    m.client_id = host.room.next_id();
    (m.instance, m.bid_milli, m.resource) = (1.into(), 1000.into(), Resource::Network as u8);
    host.room.apply(tenant, &m);
    assert_eq!(host.refused(), Reject::UnknownBook as u8);
}

#[test]
fn who_has_no_credits_may_use_what_the_rules_say() {
    let mut host = host(|rules| rules.spent_percent = 150.into());
    let last = host.room.said::<Entitled>().pop().expect("a cap").1;
    assert_eq!(last.vru.get(), 30, "one and a half baselines");
    host.room.grant(host.operator, 2, 100 * CREDIT);
    assert_eq!(host.room.one::<Entitled>().vru.get(), 80);
    host.room.use_credits(2, CPU as u8, 100 * CREDIT);
    assert_eq!(host.room.one::<Entitled>().vru.get(), 30);
}

#[test]
fn bids_weights_and_rounds_survive_a_snapshot_and_a_restart() {
    let mut host = host(|rules| (rules.launch_s, rules.expiry_s) = (60.into(), 100.into()));
    host.bid(host.operator, 1, 3000);
    host.second([50, 50, 0]);
    host.room.use_credits(0, CPU as u8, 1234);
    let bytes = host.room.machine.encode();
    let restored = Machine::decode(&bytes).expect("a state");
    assert!(restored.encode() == bytes);
    host.room.machine = restored;
    let mut out = host.room.machine.outbox();
    host.room.machine.announce_all(&mut out);
    let told: Vec<u32> =
        out.events().filter_map(|event| Some(event.read::<Weighted>()?.weight_vru.get())).collect();
    assert_eq!(told.len(), 3);
    assert!(told[1] >= 2 * told[0], "b bids more: {told:?}");
    // What happened while the daemon was down was not measured and is nobody's baseline.
    host.room.time_ns += 3600 * 1_000_000_000;
    host.room.daemon(&Restart {});
    host.second([50, 50, 0]);
}

/// Processors lent and leased, in ticks of a micro-unit.
impl Host {
    fn ask<M: Body>(&mut self, m: &M) {
        self.room.apply(self.operator, m);
        assert_eq!(self.room.refusal(), None, "{}", M::NAME);
        self.room.machine.check_conservation();
    }

    fn lend(&mut self, instance: u32, vru: u32) {
        let client_id = self.room.next_id();
        let (instance, vru) = (instance.into(), vru.into());
        self.ask(&Lend { client_id, instance, vru, ..Lend::zeroed() });
    }

    /// A lease of a class that costs so much.
    fn lease(&mut self, instance: u32, vru: u32, class: LeaseClass, rent: u32) {
        let (client_id, rent_ticks) = (self.room.next_id(), rent.into());
        let class = class as u8;
        self.ask(&SetReserveRent { client_id, rent_ticks, class, ..SetReserveRent::zeroed() });
        self.ask(&BidLease {
            client_id: self.room.next_id(),
            instance: instance.into(),
            amount: vru.into(),
            rent_ticks,
            class,
            ..BidLease::zeroed()
        });
    }

    /// Micro-units of an account, free and held.
    fn funds(&self, account: usize) -> u64 {
        let balance = self.room.machine.ledger().funds()[account].balance;
        balance.free + balance.held
    }

    /// What the last command paid lenders: instance and micro-units.
    fn earned(&self) -> Vec<(u32, u64)> {
        let told = self.room.said::<RentEarned>().into_iter();
        told.map(|(_, m)| (m.instance.get(), m.micro.get())).collect()
    }
}

/// Two accounts with funds; ada's instance lends 10 VRUs beside the 40 that nobody reserved.
fn lender() -> Host {
    let mut host = host(|_| {});
    host.room.deposit(host.operator, 0, 1_000_000);
    host.room.deposit(host.operator, 1, 1_000_000);
    host.lend(0, 10);
    host
}

#[test]
fn lenders_earn_rent_in_place_of_credits_while_what_they_lent_is_in_use() {
    let mut host = lender();
    host.second([0; 3]);
    assert_eq!(host.free(0), 20 * CREDIT, "what nobody leases earns credits as ever");
    // Half of the 50 VRUs, at 4 and at 8 ticks: 15 x 4 + 10 x 8 = 140 a second, a fifth of it ada's.
    host.lease(1, 15, LeaseClass::Bounded, 4);
    host.lease(2, 10, LeaseClass::Speculative, 8);
    for second in 1..=7 {
        host.room.tick(1000);
        assert_eq!(host.free(0), (20 + 15 * second) * CREDIT, "half of its loan is in use");
        // Tenants pay five seconds after they have something.
        let paid = if second == 7 { vec![(0, 7 * 28)] } else { vec![] };
        assert_eq!(host.earned(), paid, "{second}");
    }
    assert_eq!(host.funds(0), 1_000_000 + 7 * 28);
    // It takes its own back: that earns credits at once, and what it earned is still due.
    host.room.tick(2000);
    host.lend(0, 0);
    host.room.tick(2000);
    assert_eq!(host.free(0), (20 + 9 * 15 + 2 * 20) * CREDIT);
    host.room.tick(1000);
    assert_eq!(host.earned(), [(0, 2 * 28)]);
    host.room.tick(60_000);
    assert_eq!((host.earned(), host.funds(0)), (vec![], 1_000_000 + 9 * 28));
    assert_eq!(
        host.room.machine.ledger().rents,
        (12 + 60) * 140 - 9 * 28,
        "the house has the rest"
    );
}

#[test]
fn rents_that_do_not_divide_evenly_are_paid_to_the_last_unit_in_time() {
    let mut host = lender();
    host.lend(0, 7);
    // Two VRUs of 47, at a tick: 14/47 of a micro-unit a second.
    host.lease(1, 2, LeaseClass::Bounded, 1);
    let before = host.funds(0);
    (0..47 * 100).for_each(|_| host.room.tick(37));
    host.room.tick(6100);
    host.room.machine.check_conservation();
    let seconds = (47 * 3700 + 6100) / 1000;
    let due = seconds * 14 / 47;
    assert_eq!(host.funds(0) - before, due);
}

#[test]
fn who_lends_to_itself_gets_nothing_for_nothing() {
    let mut host = lender();
    host.lend(0, 0);
    // Nothing is left that nobody reserved: all that can be leased is bob's own.
    host.room.instance(host.operator, 0, "rest", [40, 0, 0, 0, 0]);
    host.lend(1, 10);
    host.lease(2, 10, LeaseClass::Bounded, 9);
    let (funds, credits) = (host.funds(1), host.free(1) + host.free(2));
    for _ in 0..20 {
        host.second([0, 0, 20]);
    }
    host.room.tick(10_000);
    let kept = host.room.machine.ledger().rents;
    assert_eq!(host.funds(1) + kept, funds, "rent goes round, but for what is due");
    assert!(kept <= 5 * 90, "{kept}");
    let earned = host.free(1) + host.free(2) - credits;
    // They reserve 40 VRUs, and used 20 for twenty seconds: the leases made no credits, and for ten
    // seconds in which nobody used what was leased they cost some.
    assert_eq!(earned, (30 * 40 - 20 * 20 - 10 * 10) * CREDIT);
}

#[test]
fn a_lender_that_leaves_is_paid_what_its_tenants_owe_by_then() {
    let mut host = lender();
    host.lease(1, 50, LeaseClass::Bounded, 4);
    host.room.tick(1000);
    host.room.tick(2300);
    let m = RemoveInstance { client_id: host.room.next_id(), ..RemoveInstance::zeroed() };
    host.ask(&m);
    assert_eq!(host.earned(), [(0, 33 * 4)], "10 VRUs for 3.3 seconds");
    assert_eq!(host.room.machine.ledger().rents, 40 * 4 * 33 / 10, "the house had the others");
    host.room.tick(60_000);
    assert_eq!(host.earned(), [], "and nothing afterwards");
}

#[test]
fn loans_survive_a_snapshot_and_earn_nothing_while_the_daemon_is_down() {
    let mut host = lender();
    host.lease(1, 25, LeaseClass::Bounded, 4);
    host.room.tick(2345);
    let mut twin = host.room.recovered();
    for room in [&mut host.room, &mut twin] {
        room.tick(1000);
        room.time_ns += 3600 * 1_000_000_000;
        room.daemon(&Restart {});
        room.tick(10_000);
        room.machine.check_conservation();
    }
    assert!(host.room.machine.encode() == twin.machine.encode(), "the twin is another");
    assert!(host.funds(0) - 1_000_000 <= 14 * 20, "an hour of rent was not due to anybody");
    assert!(host.funds(0) > 1_000_000);
}
