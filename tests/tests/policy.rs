//! Standing policies through the real core: no price and no late tick makes one spend more than its
//! budget, and bidding ahead of a forecast serves more than reacting does for the same money.

use vendue_engine::machine::command::{DefineBook, Genesis};
use vendue_tests::chance::Chance;
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{Cover, Horizon, LeaseClass, PolicyAct, Resource, Role, Side, Source};
use vendue_wire::message::*;

const HOUR_MS: u64 = 3_600_000;
const CAPACITY_VRU: u32 = 1000;

/// A room with one book, an operator and so many accounts with an instance of 20 VRUs each.
fn room(instances: u32, funds_micro: u64, burst_percent: u32) -> Room {
    let genesis = Genesis {
        accounts_max: instances.into(),
        instances_max: instances.into(),
        orders_max: 256.into(),
        orders_per_instance_max: 64.into(),
        sessions_max: 4.into(),
        credit_cap_s: 600.into(),
        burst_resume_ms: 100.into(),
        limit_window_s: 60.into(),
        reversible_trades: 0.into(),
        taker_fee_bps: 30.into(),
        ..small_genesis()
    };
    let book = DefineBook {
        capacity_vru: u64::from(CAPACITY_VRU).into(),
        tick_micro: 10.into(),
        price_ticks_max: 200.into(),
        quantity_max: 100_000.into(),
        burst_percent: burst_percent.into(),
        ..small_book()
    };
    let mut room = Room::new(&genesis, &[book]);
    room.open(1, Role::Operator, ANY, false);
    for at in 0..instances {
        let account = room.account(0, &format!("account {at}"), 0, (u64::MAX, u64::MAX));
        room.deposit(0, account, funds_micro);
        room.instance(0, account, &format!("instance {at}"), [20, 0, 0, 0, 0]);
    }
    // The hour begins.
    room.time_ns = 1000 * HOUR_MS * 1_000_000;
    room.tick(0);
    room
}

fn funds(room: &Room, account: usize) -> u64 {
    let balance = room.machine.ledger().funds()[account].balance;
    balance.free + balance.held
}

fn policy(room: &mut Room, cover: Cover, budget_micro: u64, burst_micro: u64, lead_ms: u32) {
    let m = SetPolicy {
        client_id: room.next_id(),
        budget_micro: budget_micro.into(),
        burst_micro: burst_micro.into(),
        rent_ticks: 20.into(),
        price_ticks: 20.into(),
        lead_ms: lead_ms.into(),
        hold_ms: 10_000.into(),
        step_vru: 2.into(),
        class: LeaseClass::Bounded as u8,
        cover: cover as u8,
        ..SetPolicy::zeroed()
    };
    room.apply(0, &m);
    assert_eq!(room.refusal(), None);
}

fn policy_row(room: &mut Room) -> PolicyRow {
    room.apply(ANY, &QueryPolicies { from: 0.into() });
    room.one::<PolicyRow>()
}

/// Others bid, ask and let go of VRUs, at prices that jump.
fn stir(room: &mut Room, chance: &mut Chance) {
    let other = 1 + (chance.draw() % 3) as u32;
    let price = 1 + (chance.draw() % 30) as u32;
    match chance.draw() % 4 {
        0 => {
            let m = BidLease {
                client_id: room.next_id(),
                instance: other.into(),
                amount: (200 + (chance.draw() % 800) as u32).into(),
                rent_ticks: price.into(),
                class: LeaseClass::Bounded as u8,
                expires_at_ms: (room.time_ns / 1_000_000 + 5000 + chance.draw() % 60_000).into(),
                ..BidLease::zeroed()
            };
            room.apply(0, &m);
        }
        1 => {
            let m = SetReserveRent {
                client_id: room.next_id(),
                rent_ticks: (1 + price % 12).into(),
                class: LeaseClass::Bounded as u8,
                ..SetReserveRent::zeroed()
            };
            room.apply(0, &m);
        }
        2 => {
            let m =
                MassCancel { instance: other.into(), book: ANY_BOOK.into(), side: 2, reserved: 0 };
            room.apply(0, &m);
        }
        _ => {
            let m = room.order(other, Side::Sell, price, 1 + (chance.draw() % 300) as u32);
            room.apply(0, &m);
        }
    }
}

#[test]
fn no_hour_costs_more_than_the_budget_whatever_prices_do() {
    let mut acts = [0_u32; 4];
    for seed in 0..6 {
        let mut chance = Chance::new(seed);
        let mut room = room(4, 1 << 50, 200);
        let (budget, burst) = (3_000_000, [3_000_000, 500_000, 90_000][seed as usize % 3]);
        policy(&mut room, Cover::Measured, budget, burst, 0);
        let began_ms = room.time_ns / 1_000_000;
        let first = funds(&room, 0);
        let mut hours = Vec::new();
        for hour in 0..4 {
            let before = funds(&room, 0);
            let ends_ms = began_ms + (hour + 1) * HOUR_MS;
            loop {
                // Mostly seconds; now and then no tick comes for minutes.
                let step_ms =
                    if chance.below(60) == 0 { 240_000 } else { 200 + chance.draw() % 4000 };
                let now_ms = room.time_ns / 1_000_000;
                if now_ms + step_ms >= ends_ms {
                    room.time_ns = ends_ms * 1_000_000;
                    break;
                }
                stir(&mut room, &mut chance);
                let may = room.machine.entitlement(0, Resource::Cpu).expect("a book").0;
                room.use_credits(0, 0, may.min(10 + chance.draw() % 500) * step_ms);
                room.tick(step_ms);
                room.said::<PolicyActed>().iter().for_each(|(_, m)| acts[usize::from(m.act)] += 1);
                room.machine.check_conservation();
                let spent = first - funds(&room, 0);
                let flowed = u128::from(budget) * u128::from(room.time_ns / 1_000_000 - began_ms);
                assert!(u128::from(spent) <= u128::from(burst) + flowed / u128::from(HOUR_MS));
            }
            hours.push(before - funds(&room, 0));
            room.tick(0);
        }
        println!("budget {budget}, burst {burst}: spent {hours:?} an hour");
        assert!(hours.iter().all(|&spent| spent <= budget), "{hours:?} with a budget of {budget}");
        assert!(hours.iter().any(|&spent| spent > budget / 2), "{hours:?}: it hardly bid");
        // Leases settle to the last unit: nothing is held once the policy is gone.
        let m = SetPolicy { client_id: room.next_id(), ..SetPolicy::zeroed() };
        room.apply(0, &m);
        assert_eq!(room.machine.ledger().funds()[0].balance.held, 0);
    }
    assert!(PolicyAct::ALL[1..].iter().all(|act| acts[*act as usize] > 10), "{acts:?}");
}

// ---- ahead of a forecast, and after the fact --------------------------------------------------

/// Looks at demand in a slot, and slots a day.
const LOOKS: usize = 60;
const SLOTS: usize = 24;
/// Milliseconds between two looks: slots of five minutes, days of two hours.
const LOOK_MS: u64 = 5000;

/// A day of demand as traces of services have it: a slow swing, noise, and jobs on the hour that
/// need several times as much for some minutes.
fn day(chance: &mut Chance) -> Vec<u64> {
    let swing = [
        24, 22, 20, 20, 22, 26, 34, 44, 56, 64, 70, 72, 74, 72, 70, 66, 62, 60, 56, 50, 44, 38, 32,
        28,
    ];
    let job = |slot: usize| match slot % 6 {
        2 => 60,
        5 => 110,
        _ => 0,
    };
    let noise = |chance: &mut Chance| 90 + chance.draw() % 21;
    let looks =
        (0..SLOTS * LOOKS).map(|look| (look / LOOKS, swing[look / LOOKS] + job(look / LOOKS)));
    looks.map(|(_, vru)| vru * noise(chance) / 100).collect()
}

/// VRU-seconds served and wanted, and micro-units spent, over a day after `yesterday`.
fn serve(cover: Cover, yesterday: &[u64], today: &[u64], budget_micro: u64) -> [u64; 3] {
    let mut room = room(1, 1 << 50, 100);
    policy(&mut room, cover, budget_micro, budget_micro / 4, 2 * LOOK_MS as u32);
    let before = funds(&room, 0);
    let (mut served, mut wanted) = (0, 0);
    for (look, &demand) in today.iter().enumerate() {
        if look % LOOKS == 0 && cover != Cover::Measured {
            let slot = look / LOOKS;
            for (slot, starts_ms) in [(slot, 0), (slot + 1, LOOK_MS * LOOKS as u64)] {
                say(&mut room, &yesterday[slot % SLOTS * LOOKS..][..LOOKS], slot, starts_ms);
            }
        }
        let may = room.machine.entitlement(0, Resource::Cpu).expect("a book").0;
        let used = demand.min(may);
        (served, wanted) = (served + used * LOOK_MS / 1000, wanted + demand * LOOK_MS / 1000);
        // What was used in the time that passes now is known at its end.
        room.time_ns += LOOK_MS * 1_000_000;
        room.use_credits(0, 0, used * LOOK_MS);
        room.tick(0);
    }
    assert!(policy_row(&mut room).spent_micro.get() >= before - funds(&room, 0));
    [served, wanted, before - funds(&room, 0)]
}

/// The forecast of a slot is what it was yesterday.
fn say(room: &mut Room, yesterday: &[u64], slot: usize, starts_ms: u64) {
    let mut sorted = yesterday.to_vec();
    sorted.sort_unstable();
    let quantile = |permille: usize| (sorted[(sorted.len() - 1) * permille / 1000] as u32).into();
    let m = SetForecast {
        client_id: room.next_id(),
        starts_in_ms: (starts_ms as u32).into(),
        lasts_ms: (LOOK_MS as u32 * LOOKS as u32).into(),
        p50_vru: quantile(500),
        p90_vru: quantile(900),
        p975_vru: quantile(975),
        source: Source::Model as u8,
        // The next one must not take the place of this one.
        horizon: if slot.is_multiple_of(2) { Horizon::Hour } else { Horizon::Day } as u8,
        ..SetForecast::zeroed()
    };
    room.apply(0, &m);
    assert_eq!(room.refusal(), None);
}

#[test]
fn bidding_ahead_serves_more_than_reacting_for_the_same_cost() {
    let mut chance = Chance::new(11);
    let (mut ahead, mut after) = ([0; 3], [0; 3]);
    for _ in 0..4 {
        let [yesterday, today] = [(); 2].map(|()| day(&mut chance));
        // As much as it takes to lease two thirds of what the baseline does not cover, at 1 tick.
        let lacks: u64 = today.iter().map(|demand| demand.saturating_sub(20)).sum();
        let budget = lacks * LOOK_MS / 1000 * 10 * 2 / 3 / 2;
        for (sum, cover) in [(&mut ahead, Cover::P50), (&mut after, Cover::Measured)] {
            let day = serve(cover, &yesterday, &today, budget);
            sum.iter_mut().zip(day).for_each(|(sum, part)| *sum += part);
        }
    }
    for (how, [served, wanted, spent]) in
        [("ahead of a forecast", ahead), ("after the fact", after)]
    {
        let percent = served as f64 * 100.0 / wanted as f64;
        let each = (served as f64) / (spent as f64 / 1e6);
        println!(
            "{how}: {percent:.2}% of demand served for {spent} micro-units, {each:.0} VRU s a unit"
        );
    }
    assert!(ahead[0] > after[0], "ahead of the forecast less is served");
    assert!(ahead[2] <= after[2] + after[2] / 100, "and it costs more");
}
