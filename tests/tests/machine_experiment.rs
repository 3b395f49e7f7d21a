//! Experiments with swaps: who takes part, what the manager does for each arm, what is said of the effect.

use std::collections::BTreeSet;
use vendue_engine::machine::command::{Command, DefineBook, Genesis};
use vendue_engine::machine::experiment::student_milli;
use vendue_tests::market::distant_objective;
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{Cover, ExperimentEnd, Kpi, Reject, Role, SwapAnswer};
use vendue_wire::message::*;
use zerocopy::IntoBytes;

/// Forecasts hold for so long.
const FORESEEN_MS: u32 = 3_000_000;
const HOUR_MS: u64 = 3_600_000;
/// Slot of the operator's session; those of the accounts follow.
const OPERATOR: u32 = 0;
/// Has tokens to lend.
const LENDER: u32 = 0;
/// Has the instances that take part.
const BORROWER: u32 = 1;
/// Has instances of its own.
const OTHER: u32 = 2;
/// Instances of the borrower, from 0 on.
const MANY: u32 = 16;
/// Those of the other, after them.
const OTHERS: u32 = 4;
const SALT: u64 = 5;

/// The arm that the protocol says.
fn arm_of(salt: u64, instance: u32) -> u8 {
    let step = |state: u64, _| state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut state = (0..=instance).fold(salt, step);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((state ^ (state >> 31)) % 2) as u8
}

fn in_arm(arm: u8) -> BTreeSet<u32> {
    (0..MANY).filter(|at| arm_of(SALT, *at) == arm).collect()
}

fn all_of(borrowers: bool, others: bool) -> BTreeSet<u32> {
    let own = (0..MANY).filter(|_| borrowers);
    own.chain((MANY..MANY + OTHERS).filter(|_| others)).collect()
}

fn genesis(swap_every_ms: u32) -> Genesis {
    Genesis {
        instances_max: 32.into(),
        reversible_trades: 1.into(),
        swap_every_ms: swap_every_ms.into(),
        ..small_genesis()
    }
}

/// A room where every instance has 10 VRUs reserved, and every account trades with the others.
fn bare(swap_every_ms: u32) -> Room {
    let book = DefineBook { capacity_vru: 4000.into(), ..small_book() };
    let mut room = Room::new(&genesis(swap_every_ms), &[book]);
    room.open(1, Role::Operator, ANY, false);
    for at in 0..3 {
        let account = room.account(OPERATOR, &format!("account {at}"), 0, (u64::MAX, u64::MAX));
        room.deposit(OPERATOR, account, 100_000_000);
        room.open(2 + u64::from(account), Role::Tenant, account, false);
    }
    for at in 0..MANY + OTHERS {
        let account = if at < MANY { BORROWER } else { OTHER };
        room.instance(OPERATOR, account, &format!("instance {at}"), [10, 0, 0, 0, 0]);
    }
    swap_policy(&mut room, LENDER, |m| m.answer = SwapAnswer::Accept as u8);
    room.tick(0);
    room
}

/// The same with tokens of 20 VRUs that all instances redeemed, as many to be lent, and accounts that let
/// the daemon ask.
fn room() -> Room {
    let mut room = bare(1000);
    for at in 0..MANY + OTHERS {
        lendable(&mut room);
        redeemed(&mut room, at, |_| {});
    }
    swap_policy(&mut room, BORROWER, |m| m.seek = 1);
    swap_policy(&mut room, OTHER, |m| m.seek = 1);
    room
}

fn swap_policy(room: &mut Room, account: u32, change: impl FnOnce(&mut SetSwapPolicy)) {
    let mut m = SetSwapPolicy {
        client_id: room.next_id(),
        account: account.into(),
        downtime_ms: u32::MAX.into(),
        ..SetSwapPolicy::zeroed()
    };
    change(&mut m);
    room.apply(1 + account, &m);
    assert_eq!(room.refusal(), None);
}

fn issue(room: &mut Room, account: u32, change: impl FnOnce(&mut IssueToken)) -> Token {
    let mut m = IssueToken {
        client_id: room.next_id(),
        until_ms: (room.time_ns / 1_000_000 + 4 * HOUR_MS).into(),
        account: account.into(),
        instance: ANY.into(),
        vru: 20.into(),
        profile: u8::MAX,
        swap_eligible: 1,
        ..IssueToken::zeroed()
    };
    change(&mut m);
    room.apply(OPERATOR, &m);
    assert_eq!(room.refusal(), None);
    let id = room.value();
    room.apply(OPERATOR, &QueryTokens { from: id.into() });
    *Token::of(room.said::<TokenRow>()[0].1.token())
}

fn lendable(room: &mut Room) {
    issue(room, LENDER, |_| {});
}

/// Issues a token to an instance's account, which redeems it; its id.
fn redeemed(room: &mut Room, instance: u32, change: impl FnOnce(&mut IssueToken)) -> u64 {
    let account = if instance < MANY { BORROWER } else { OTHER };
    let token = issue(room, account, change);
    let (client_id, reserved, id) = (room.next_id(), 0.into(), token.id.get());
    let token = zerocopy::transmute!(token);
    let m = RedeemToken { client_id, instance: instance.into(), reserved, token };
    room.apply(1 + account, &m);
    assert_eq!(room.refusal(), None);
    id
}

/// An experiment with swaps on the latency of the borrower's instances that lasts for an hour.
fn terms(risk_percent: [u8; 2]) -> StartExperiment {
    let cover = |percent| if (1..=100).contains(&percent) { Cover::P90 as u8 } else { 0 };
    StartExperiment {
        salt: SALT.into(),
        lasts_ms: HOUR_MS.into(),
        harm_milli: 1_000_000_000.into(),
        account: BORROWER.into(),
        tier: u16::MAX.into(),
        cover: risk_percent.map(cover),
        measure: Kpi::Latency as u8,
        risk_percent,
        name: field_cut("swaps"),
        ..StartExperiment::zeroed()
    }
}

/// Starts an experiment; its number.
fn start(room: &mut Room, m: &StartExperiment) -> u32 {
    room.apply(OPERATOR, &StartExperiment { client_id: room.next_id(), ..*m });
    assert_eq!(room.refusal(), None);
    room.value() as u32
}

/// Time for all to be exposed, or let go, and not for a forecast to be over.
fn settle(room: &mut Room) {
    (0..4 * (MANY + OTHERS)).for_each(|_| room.tick(10));
}

/// Instance and arm of all that take part.
fn exposed(room: &mut Room, experiment: u32) -> Vec<(u32, u8)> {
    let (mut rows, mut from) = (Vec::new(), 0);
    while from != u64::MAX {
        let from_place = (from as u32).into();
        room.apply(OPERATOR, &QueryExposures { from: from_place, experiment: experiment.into() });
        let page = room.said::<ExposureRow>().into_iter();
        rows.extend(page.map(|(_, row)| (row.instance.get(), row.arm)));
        from = room.one::<QueryEnd>().next.get();
    }
    rows.sort_unstable();
    rows
}

fn row(room: &mut Room, experiment: u32) -> ExperimentRow {
    room.apply(OPERATOR, &QueryExperiments { from: experiment.into() });
    room.said::<ExperimentRow>()[0].1
}

/// The manager looks often enough to help everybody.
fn cycles(room: &mut Room) {
    (0..8).for_each(|_| room.tick(1000));
}

/// Instances that the manager has lent to, and the VRUs that it asked for.
fn lent(room: &Room) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let rows = room.machine.swaps().rows.iter().filter(|row| row.by_manager == 1);
    rows.map(|row| (u32::from(row.instances[1]), row.vru)).unzip()
}

/// Declares what an instance's latency is to be, so that it may be told.
fn objective(room: &mut Room, instance: u32) {
    let m = distant_objective(room.next_id().get(), instance);
    room.apply(OPERATOR, &m);
    assert_eq!(room.refusal(), None);
}

fn report(room: &mut Room, instance: u32, value: u32) {
    let m = ReportKpi {
        instance: instance.into(),
        value: value.into(),
        kpi: Kpi::Latency as u8,
        ..ReportKpi::zeroed()
    };
    room.apply(OPERATOR, &m);
    assert_eq!(room.refusal(), None);
}

fn stop(room: &mut Room, experiment: u32) -> Result<u64, Reject> {
    let (client_id, reserved) = (room.next_id(), 0.into());
    room.apply(OPERATOR, &StopExperiment { client_id, experiment: experiment.into(), reserved });
    room.refusal().map_or_else(|| Ok(room.value()), Err)
}

#[test]
fn each_arm_has_its_risk_and_all_others_the_managers_own() {
    let mut room = room();
    let number = start(&mut room, &terms([10, 30]));
    settle(&mut room);
    let arms: Vec<_> = (0..MANY).map(|at| (at, arm_of(SALT, at))).collect();
    assert!(in_arm(0).len() >= 5 && in_arm(1).len() >= 5, "another salt");
    assert_eq!(exposed(&mut room, number), arms);
    let mut room = room.recovered();
    // Each has 30. It is too little with 214 of 1000, and 4 less than quantile 90.
    (0..MANY + OTHERS).for_each(|at| room.forecast(OPERATOR, at, FORESEEN_MS, [20, 34, 40]));
    cycles(&mut room);
    let helped: BTreeSet<u32> = in_arm(0).union(&all_of(false, true)).copied().collect();
    assert_eq!(lent(&room), (helped.clone(), [4].into()));
    // 277 of 1000 are not enough, 300 are.
    let waits = *in_arm(1).first().expect("one");
    for at in in_arm(1) {
        room.forecast(
            OPERATOR,
            at,
            FORESEEN_MS,
            if at == waits { [25, 34, 40] } else { [26, 34, 40] },
        );
    }
    cycles(&mut room);
    let all: BTreeSet<u32> = all_of(true, true).into_iter().filter(|at| *at != waits).collect();
    assert_eq!(lent(&room).0, all);
    assert_eq!(exposed(&mut room, number), arms, "it changes nobody's arm");
    room.machine.check_conservation();
}

#[test]
fn without_swaps_an_arm_has_none_until_the_end() {
    let mut room = room();
    let number = start(&mut room, &terms([0, RISK_NEVER]));
    settle(&mut room);
    (0..MANY + OTHERS).for_each(|at| room.forecast(OPERATOR, at, FORESEEN_MS, [36, 36, 36]));
    cycles(&mut room);
    let helped: BTreeSet<u32> = in_arm(0).union(&all_of(false, true)).copied().collect();
    assert_eq!(lent(&room), (helped, [6].into()));

    assert_eq!(stop(&mut room, number), Ok(0), "nothing is to be given back");
    assert_eq!(stop(&mut room, number), Err(Reject::UnknownExperiment));
    assert_eq!(row(&mut room, number).end, ExperimentEnd::Stopped as u8);
    // Its terms hold no more, though most are still to be let go.
    assert!(exposed(&mut room, number).len() > 8);
    cycles(&mut room);
    assert_eq!(lent(&room).0, all_of(true, true));
    settle(&mut room);
    assert_eq!(exposed(&mut room, number), []);
    // They may take part again, in other arms.
    let m = StartExperiment { salt: 99.into(), ..terms([RISK_NEVER, 0]) };
    let number = start(&mut room, &m);
    settle(&mut room);
    let arms: Vec<_> = (0..MANY).map(|at| (at, arm_of(99, at))).collect();
    assert_eq!(exposed(&mut room, number), arms);
}

#[test]
fn an_arm_may_be_lent_more_and_sooner() {
    let mut room = room();
    let cover = [Cover::P90 as u8, Cover::P975 as u8];
    start(&mut room, &StartExperiment { cover, ..terms([10, 3]) });
    settle(&mut room);
    // Each has 30, which is too little with 87 of 1000, and 10 less than quantile 97.5.
    (0..MANY + OTHERS).for_each(|at| room.forecast(OPERATOR, at, FORESEEN_MS, [10, 28, 40]));
    cycles(&mut room);
    assert_eq!(lent(&room), (in_arm(1), [10].into()));
}

#[test]
fn who_has_nothing_to_be_lent_to_takes_no_part() {
    let mut room = bare(1000);
    // Of the first four one has no token, two have such as are not swapped, one did not redeem its own.
    redeemed(&mut room, 1, |m| m.swap_eligible = 0);
    redeemed(&mut room, 2, |m| m.sticky = 1);
    issue(&mut room, BORROWER, |m| m.instance = 3.into());
    let tokens: Vec<u64> = (4..MANY + OTHERS).map(|at| redeemed(&mut room, at, |_| {})).collect();
    let everybody = StartExperiment { account: ANY.into(), ..terms([0, RISK_NEVER]) };
    let number = start(&mut room, &everybody);
    settle(&mut room);
    assert_eq!(exposed(&mut room, number), [], "no account lets the daemon ask");
    swap_policy(&mut room, BORROWER, |m| m.seek = 1);
    settle(&mut room);
    let of = |from: u32, to: u32| (from..to).map(|at| (at, arm_of(SALT, at))).collect::<Vec<_>>();
    assert_eq!(exposed(&mut room, number), of(4, MANY));
    // Who comes later does so too.
    redeemed(&mut room, 0, |_| {});
    swap_policy(&mut room, OTHER, |m| m.seek = 1);
    settle(&mut room);
    let first = of(0, 1);
    assert_eq!(exposed(&mut room, number), [&first[..], &of(4, MANY + OTHERS)].concat());
    // What is measured does not depend on what became of its token or of its account's mind.
    room.apply(OPERATOR, &RevokeToken { client_id: room.next_id(), id: tokens[0].into() });
    swap_policy(&mut room, OTHER, |_| {});
    settle(&mut room);
    assert_eq!(exposed(&mut room, number), [&first[..], &of(4, MANY + OTHERS)].concat());
    // Who goes is counted with what it was told.
    objective(&mut room, 5);
    report(&mut room, 5, 700);
    let (client_id, reserved) = (room.next_id(), 0.into());
    room.apply(OPERATOR, &RemoveInstance { client_id, instance: 5.into(), reserved });
    settle(&mut room);
    let left = [&first[..], &of(4, 5), &of(6, MANY + OTHERS)].concat();
    assert_eq!(exposed(&mut room, number), left);
    let shown = row(&mut room, number);
    let arm = usize::from(arm_of(SALT, 5));
    assert_eq!((shown.sample[arm].get(), shown.mean_milli[arm].get()), (1, 700_000));
    assert_eq!(shown.sample[1 - arm].get(), 0);
    room.recovered();
}

#[test]
fn a_policy_is_compared_at_the_same_time_and_its_owner_leaves_only_that() {
    let mut room = room();
    (0..MANY).for_each(|at| objective(&mut room, at));
    let swaps = start(&mut room, &terms([0, RISK_NEVER]));
    let bids = start(
        &mut room,
        &StartExperiment {
            salt: 8.into(),
            budget_micro: [0.into(), 1_000_000.into()],
            burst_micro: [0.into(), 100_000.into()],
            rent_ticks: [0.into(), 3.into()],
            lead_ms: [0.into(), 60_000.into()],
            hold_ms: [0.into(), 10_000.into()],
            class: [0, 1],
            cover: [0, 1],
            risk_percent: [0; 2],
            ..terms([0, RISK_NEVER])
        },
    );
    (0..2).for_each(|_| settle(&mut room));
    let of = |salt: u64| (0..MANY).map(|at| (at, arm_of(salt, at))).collect::<Vec<_>>();
    assert_eq!([swaps, bids].map(|number| exposed(&mut room, number)), [of(SALT), of(8)]);
    // One of each sort and no more.
    let third = start(&mut room, &terms([10, 30]));
    settle(&mut room);
    assert_eq!(exposed(&mut room, third), []);
    assert_eq!(stop(&mut room, third), Ok(0));

    let leaves = (0..MANY).find(|at| arm_of(8, *at) == 1).expect("one");
    let m = SetPolicy {
        client_id: room.next_id(),
        budget_micro: 5.into(),
        burst_micro: 5.into(),
        instance: leaves.into(),
        rent_ticks: 1.into(),
        lead_ms: 1000.into(),
        class: 1,
        ..SetPolicy::zeroed()
    };
    room.apply(1 + BORROWER, &m);
    assert_eq!(room.refusal(), None);
    (0..MANY).for_each(|at| report(&mut room, at, 100));
    let told = [swaps, bids].map(|number| {
        let row = row(&mut room, number);
        row.sample.map(|sample| sample.get()).iter().sum::<u32>()
    });
    assert_eq!(told, [MANY, MANY - 1]);
    let to_give_back = stop(&mut room, bids).expect("it runs");
    assert_eq!(to_give_back, u64::from(MANY), "with the arm that changes nothing");
    assert_eq!(stop(&mut room, swaps), Ok(0));
    let mut room = room.recovered();
    (0..2).for_each(|_| settle(&mut room));
    assert_eq!([swaps, bids].map(|number| exposed(&mut room, number)), [vec![], vec![]]);
}

/// What instances are told of three rounds: different levels, and B better by 40.
fn value(instance: u32, round: u32) -> u32 {
    500 + instance * 37 % 90 + instance * round * 13 % 41 - 40 * u32::from(arm_of(SALT, instance))
}

#[test]
fn the_effect_is_what_is_worked_out_from_the_values() {
    let mut room = room();
    (0..MANY).for_each(|at| objective(&mut room, at));
    let number = start(&mut room, &terms([10, 30]));
    settle(&mut room);
    for round in 0..3 {
        for at in 0..MANY {
            report(&mut room, at, value(at, round));
        }
        room.tick(1000);
    }
    let means = [0, 1].map(|arm| {
        let of = in_arm(arm).into_iter();
        of.map(|at| f64::from((0..3).map(|round| value(at, round)).sum::<u32>()) / 3.0)
            .collect::<Vec<f64>>()
    });
    let [a, b] = means.each_ref().map(|means| {
        let n = means.len() as f64;
        let mean = means.iter().sum::<f64>() / n;
        let squares: f64 = means.iter().map(|one| (one - mean).powi(2)).sum();
        (mean, squares / (n - 1.0) / n, n)
    });
    let variance = a.1 + b.1;
    let freedom = variance.powi(2) / (a.1.powi(2) / (a.2 - 1.0) + b.1.powi(2) / (b.2 - 1.0));
    let half = f64::from(student_milli(1_959_964, freedom as u64) as u32) / 1e3 * variance.sqrt();
    let shown = row(&mut room, number);
    let signed = |field: U64| field.get() as i64 as f64 / 1e3;
    let [effect, low, high] = [shown.effect_milli, shown.low_milli, shown.high_milli].map(signed);
    let close = |found: f64, wanted: f64| (found - wanted).abs() < 0.02;
    assert!(close(effect, b.0 - a.0), "{effect} beside {}", b.0 - a.0);
    assert!(close(high - low, 2.0 * half), "{low} to {high} beside {half}");
    assert!(effect < 0.0 && shown.has_interval == 1);
    let sample = shown.sample.map(|sample| sample.get() as usize);
    assert_eq!(sample, [in_arm(0).len(), in_arm(1).len()]);
    assert_eq!(shown.values.map(|values| values.get()), sample.map(|sample| 3 * sample as u64));
    assert_eq!((shown.risk_percent, shown.cover), ([10, 30], [1, 1]));
}

#[test]
fn harm_ends_it_and_the_manager_helps_everybody_again() {
    let mut room = room();
    (0..MANY).for_each(|at| objective(&mut room, at));
    let m = StartExperiment { harm_milli: 100_000.into(), ..terms([0, RISK_NEVER]) };
    let number = start(&mut room, &m);
    settle(&mut room);
    (0..MANY + OTHERS).for_each(|at| room.forecast(OPERATOR, at, FORESEEN_MS, [36, 36, 36]));
    cycles(&mut room);
    assert!(lent(&room).0.is_disjoint(&in_arm(1)));
    // Worse by 90 is what was agreed to, by 800 is not.
    for (worse, end) in [(90, ExperimentEnd::Running), (800, ExperimentEnd::Harm)] {
        for _ in 0..40 {
            for at in 0..MANY {
                report(&mut room, at, 1000 + at + worse * u32::from(arm_of(SALT, at)));
            }
            room.tick(1000);
        }
        assert_eq!(row(&mut room, number).end, end as u8);
    }
    assert_eq!(lent(&room).0, all_of(true, true));
    settle(&mut room);
    assert_eq!(exposed(&mut room, number), []);
    let shown = row(&mut room, number);
    assert!(shown.has_interval == 1 && shown.low_milli.get() as i64 > 100_000, "{shown:?}");
}

/// An experiment from beginning to end, in one life of the machine or in many; the state at its end.
fn story(crashes: bool) -> Vec<u8> {
    let mut room = room();
    (0..MANY).for_each(|at| objective(&mut room, at));
    let number = start(&mut room, &terms([10, 30]));
    for step in 0..120 {
        if step == 40 {
            (0..MANY + OTHERS)
                .for_each(|at| room.forecast(OPERATOR, at, FORESEEN_MS, [20, 34, 40]));
        }
        if step == 80 {
            assert_eq!(stop(&mut room, number), Ok(0));
        }
        report(&mut room, step % MANY, 500 + step);
        room.tick(if step > 40 { 300 } else { 10 });
        if crashes {
            room = room.recovered();
        }
    }
    assert!(!lent(&room).0.is_empty());
    room.machine.encode()
}

#[test]
fn a_machine_from_snapshots_goes_on_as_the_one_that_never_stopped() {
    let once = story(false);
    assert!(once == story(false), "the same again");
    assert!(once == story(true), "from snapshots");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let parsed = |m: &StartExperiment| Command::parse(StartExperiment::KIND, m.as_bytes()).err();
    let good = terms([0, RISK_NEVER]);
    assert_eq!(parsed(&good), None);
    assert_eq!(parsed(&terms([100, 1])), None);
    let budget_micro = [0.into(), 1.into()];
    for wrong in [
        terms([0, 0]),
        terms([101, 10]),
        terms([10, 254]),
        StartExperiment { measure: MEASURE_COST, ..good },
        StartExperiment { budget_micro, ..good },
        StartExperiment { rent_ticks: [0.into(), 1.into()], ..good },
        StartExperiment { cover: [1, 0], ..good },
        StartExperiment { cover: [1, Cover::Measured as u8], ..terms([10, 30]) },
        StartExperiment { cover: [1, 9], ..terms([10, 30]) },
        StartExperiment { reserved: 1, ..good },
    ] {
        assert_eq!(parsed(&wrong), Some(Reject::BadField), "{wrong:?}");
    }
    let mut room = bare(0);
    room.apply(OPERATOR, &StartExperiment { client_id: room.next_id(), ..good });
    assert_eq!(room.refusal(), Some(Reject::NoSwapManager));
    room.apply(1 + BORROWER, &StartExperiment { client_id: room.next_id(), ..good });
    assert_eq!(room.refusal(), Some(Reject::NotPermitted));
}
