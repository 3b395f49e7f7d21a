//! Swaps of tokens: each has exactly one outcome, and what it moves comes back.

use std::sync::Barrier;
use vendue_engine::machine::command::{DefineBook, Genesis, HOST_KPIS, HostKpis, Restart};
use vendue_engine::machine::swap_manager::{ASK_MS, COOL_MS};
use vendue_tests::daemon::{Daemon, Setup};
use vendue_tests::market::{Market, audit, check_ledger, instance_row, token_row};
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::client::{Client, ClientError, Identity};
use vendue_wire::code::{
    Kpi, Reject, Resource, Role, SwapAnswer, SwapReason, SwapState, TokenOutcome,
};
use vendue_wire::message::*;

/// Forecasts hold for so long.
const FORESEEN_MS: u32 = 1_800_000;
const HOUR_MS: u64 = 3_600_000;
/// Slots of the sessions.
const OPERATOR: u32 = 0;
const LENDER: u32 = 1;
const BORROWER: u32 = 2;
const STRANGER: u32 = 3;

/// A book of 200 VRUs, an operator, and three accounts with an instance each that have 100 units.
fn room() -> Room {
    let genesis = Genesis {
        instances_max: 16.into(),
        reversible_trades: 1.into(),
        leases_max: 16.into(),
        swap_every_ms: 1000.into(),
        ..small_genesis()
    };
    let book = DefineBook { capacity_vru: 200.into(), ..small_book() };
    let mut room = Room::new(&genesis, &[book]);
    room.open(1, Role::Operator, ANY, false);
    for at in 0..3 {
        let account = room.account(OPERATOR, &format!("account {at}"), 0, (u64::MAX, u64::MAX));
        room.deposit(OPERATOR, account, 100_000_000);
        room.instance(OPERATOR, account, &format!("instance {at}"), [10, 0, 0, 0, 0]);
        room.open(2 + u64::from(account), Role::Tenant, account, false);
    }
    room.tick(0);
    room
}

fn now_ms(room: &Room) -> u64 {
    room.time_ns / 1_000_000
}

/// Issues a token for the next two hours that may be swapped.
fn issue(room: &mut Room, account: u32, vru: u32, change: impl FnOnce(&mut IssueToken)) -> u64 {
    let mut m = IssueToken {
        client_id: room.next_id(),
        until_ms: (now_ms(room) + 2 * HOUR_MS).into(),
        account: account.into(),
        instance: ANY.into(),
        vru: vru.into(),
        profile: u8::MAX,
        swap_eligible: 1,
        ..IssueToken::zeroed()
    };
    change(&mut m);
    room.apply(OPERATOR, &m);
    assert_eq!(room.refusal(), None);
    room.value()
}

fn token(room: &mut Room, id: u64) -> Token {
    room.apply(OPERATOR, &QueryTokens { from: id.into() });
    let row = room.said::<TokenRow>().first().map(|(_, row)| *row).expect("a row");
    assert_eq!(row.id.get(), id);
    *Token::of(row.token())
}

/// VRUs and generations of tokens.
fn stand<const N: usize>(room: &mut Room, ids: [u64; N]) -> [(u32, u32); N] {
    ids.map(|id| {
        let token = token(room, id);
        (token.vru.get(), token.generation.get())
    })
}

fn redeem(room: &mut Room, session: u32, instance: u32, token: &Token) -> Option<Reject> {
    let (client_id, reserved) = (room.next_id(), 0.into());
    let token = zerocopy::transmute!(*token);
    room.apply(session, &RedeemToken { client_id, instance: instance.into(), reserved, token });
    room.refusal()
}

/// Redeems a token as it is.
fn redeemed(room: &mut Room, account: u32, id: u64) {
    let token = token(room, id);
    assert_eq!(redeem(room, 1 + account, account, &token), None);
}

/// A request for 10 VRUs for ten minutes, to be approved within a minute, for a unit.
fn request(room: &mut Room, source: u64, destination: u64) -> SwapRequest {
    let source_generation = if source == 0 { 0.into() } else { token(room, source).generation };
    SwapRequest {
        client_id: room.next_id(),
        source: source.into(),
        destination: destination.into(),
        deadline_ms: (now_ms(room) + 60_000).into(),
        incentive_micro: 1_000_000.into(),
        source_generation,
        destination_generation: token(room, destination).generation,
        vru: 10.into(),
        lasts_ms: 600_000.into(),
        ..SwapRequest::zeroed()
    }
}

/// Asks for a swap; its number.
fn ask(room: &mut Room, session: u32, m: &SwapRequest) -> Result<u64, Reject> {
    room.apply(session, &SwapRequest { client_id: room.next_id(), ..*m });
    room.refusal().map_or_else(|| Ok(room.value()), Err)
}

fn approve(room: &mut Room, session: u32, id: u64) -> Option<Reject> {
    room.apply(session, &SwapApprove { client_id: room.next_id(), id: id.into() });
    room.refusal()
}

fn reject(room: &mut Room, session: u32, id: u64, words: &str) -> Option<Reject> {
    let (client_id, words) = (room.next_id(), field_cut(words));
    room.apply(session, &SwapReject { client_id, id: id.into(), words });
    room.refusal()
}

fn policy(room: &mut Room, account: u32, change: impl FnOnce(&mut SetSwapPolicy)) {
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

fn swap(room: &mut Room, id: u64) -> SwapRow {
    room.apply(OPERATOR, &SwapList { from: id.into() });
    let row = room.said::<SwapRow>().first().map(|(_, row)| *row).expect("a row");
    assert_eq!(row.id.get(), id);
    row
}

fn state(room: &mut Room, id: u64) -> (SwapState, SwapReason) {
    let row = swap(room, id);
    (SwapState::from_u8(row.state).expect("a state"), SwapReason::from_u8(row.reason).expect("one"))
}

/// Free and held micro-units of an account.
fn funds(room: &mut Room, account: u32) -> (u64, u64) {
    let row = room.account_row(account);
    (row.free_micro.get(), row.held_micro.get())
}

fn entitled(room: &Room, instance: u16) -> u64 {
    room.machine.entitlement(instance, Resource::Cpu).expect("a tier with processors").0
}

/// A room with a token of 50 of account 0 and one of 20 of account 1, both redeemed.
fn two() -> (Room, u64, u64) {
    let mut room = room();
    let (source, destination) = (issue(&mut room, 0, 50, |_| {}), issue(&mut room, 1, 20, |_| {}));
    redeemed(&mut room, 0, source);
    redeemed(&mut room, 1, destination);
    (room, source, destination)
}

#[test]
fn vrus_are_lent_for_a_time_and_paid_for() {
    let (mut room, source, destination) = two();
    let m = request(&mut room, source, destination);
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    // Who lends is told, and so is who asked; nobody else.
    let told: Vec<u32> = room.said::<SwapMoved>().into_iter().map(|(to, _)| to).collect();
    assert_eq!(told, [ANY, BORROWER, LENDER]);
    assert_eq!(state(&mut room, id), (SwapState::Proposed, SwapReason::Requested));
    assert_eq!(funds(&mut room, 1), (99_000_000, 1_000_000), "the incentive is held");
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (60, 30), "nothing moved yet");

    assert_eq!(approve(&mut room, LENDER, id), None);
    assert_eq!(room.value(), 3, "the source's generation");
    assert_eq!(state(&mut room, id), (SwapState::Active, SwapReason::Owner));
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (50, 40));
    assert_eq!(stand(&mut room, [source, destination]), [(40, 3), (30, 3)]);
    assert_eq!(funds(&mut room, 1), (99_000_000, 0));
    assert_eq!(funds(&mut room, 0), (100_000_000, 1_000_000), "it is not earned yet");

    room.tick(599_999);
    assert_eq!(state(&mut room, id).0, SwapState::Active);
    room.tick(1);
    let moved = room.said::<TokenMoved>();
    assert!(moved.iter().all(|(_, m)| m.outcome == TokenOutcome::Swapped as u8), "{moved:?}");
    assert_eq!(state(&mut room, id), (SwapState::Ended, SwapReason::Time));
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (60, 30));
    assert_eq!(stand(&mut room, [source, destination]), [(50, 4), (20, 4)]);
    assert_eq!(funds(&mut room, 0), (101_000_000, 0));
    room.machine.check_conservation();
}

#[test]
fn a_boost_goes_the_other_way_round_afterwards() {
    let (mut room, source, destination) = two();
    let boost = |m: SwapRequest, vru: u32| SwapRequest {
        boost_vru: vru.into(),
        boost_ms: 300_000.into(),
        ..m
    };
    let m = request(&mut room, source, destination);
    assert_eq!(ask(&mut room, BORROWER, &boost(m, 20)), Err(Reject::BadQuantity), "all of it");
    let id = ask(&mut room, BORROWER, &boost(m, 15)).expect("a swap");
    assert_eq!(approve(&mut room, LENDER, id), None);
    room.tick(600_000);
    assert_eq!(state(&mut room, id), (SwapState::Boosting, SwapReason::Time));
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (75, 15));
    let mut room = room.recovered();
    room.tick(300_000);
    assert_eq!(state(&mut room, id), (SwapState::Ended, SwapReason::Time));
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (60, 30));
}

#[test]
fn there_is_exactly_one_outcome() {
    let (mut room, source, destination) = two();
    let spare = issue(&mut room, 0, 30, |_| {});
    let m = request(&mut room, source, destination);
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    let rival = ask(&mut room, BORROWER, &m).expect("another");
    // Strangers know of nothing; the borrower may not approve.
    assert_eq!(approve(&mut room, STRANGER, id), Some(Reject::UnknownSwap));
    assert_eq!(reject(&mut room, STRANGER, id, "no"), Some(Reject::UnknownSwap));
    assert_eq!(approve(&mut room, BORROWER, id), Some(Reject::NotPermitted));
    assert_eq!(approve(&mut room, LENDER, 99), Some(Reject::UnknownSwap));
    room.apply(STRANGER, &SwapList { from: 0.into() });
    assert!(room.said::<SwapRow>().is_empty());
    let others = SwapRequest { destination: source.into(), ..m };
    assert_eq!(ask(&mut room, STRANGER, &others), Err(Reject::UnknownToken));

    assert_eq!(approve(&mut room, LENDER, id), None);
    // Twice, against the rival, and against what it is about.
    assert_eq!(approve(&mut room, LENDER, id), Some(Reject::SwapSettled));
    assert_eq!(approve(&mut room, OPERATOR, id), Some(Reject::SwapSettled));
    assert_eq!(reject(&mut room, LENDER, id, "late"), Some(Reject::SwapSettled));
    assert_eq!(approve(&mut room, LENDER, rival), Some(Reject::SwapSettled));
    assert_eq!(state(&mut room, rival), (SwapState::Refused, SwapReason::TokenChanged));
    assert_eq!(ask(&mut room, BORROWER, &m), Err(Reject::TokenStale));
    let again = request(&mut room, source, destination);
    assert_eq!(ask(&mut room, BORROWER, &again), Err(Reject::TokenInSwap));
    let second = request(&mut room, spare, destination);
    assert_eq!(ask(&mut room, BORROWER, &second), Err(Reject::TokenInSwap));
    assert_eq!(funds(&mut room, 1).1, 0, "the rival's incentive is free again");

    // A redemption before the approval refuses the swap; an approval before it makes the token stale.
    let destination = issue(&mut room, 1, 20, |_| {});
    let seen = token(&mut room, destination);
    let m = request(&mut room, spare, destination);
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    assert_eq!(redeem(&mut room, BORROWER, 1, &seen), None);
    assert_eq!(approve(&mut room, LENDER, id), Some(Reject::SwapSettled));
    assert_eq!(state(&mut room, id), (SwapState::Refused, SwapReason::TokenChanged));
    let seen = token(&mut room, spare);
    let m = request(&mut room, spare, destination);
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    assert_eq!(approve(&mut room, LENDER, id), None);
    assert_eq!(redeem(&mut room, LENDER, 0, &seen), Some(Reject::TokenStale));
    let seen = token(&mut room, spare);
    assert_eq!(redeem(&mut room, LENDER, 0, &seen), None, "what is left of it");
    assert_eq!(entitled(&room, 0), 10 + 40 + 20);
    room.tick(600_000);
    assert_eq!(entitled(&room, 0), 10 + 50 + 30);
}

#[test]
fn what_is_in_a_swap_is_neither_split_nor_merged_nor_given_away() {
    let mut room = room();
    let (source, destination) = (issue(&mut room, 0, 50, |_| {}), issue(&mut room, 1, 20, |_| {}));
    let m = request(&mut room, source, destination);
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    assert_eq!(approve(&mut room, LENDER, id), None);
    for at in [source, destination] {
        let token: [u8; TOKEN_BYTES] = zerocopy::transmute!(token(&mut room, at));
        let (at_ms, reserved) = (0.into(), 0.into());
        let m = SplitToken { client_id: room.next_id(), at_ms, vru: 1.into(), reserved, token };
        room.apply(OPERATOR, &m);
        assert_eq!(room.refusal(), Some(Reject::TokenInSwap));
        room.apply(OPERATOR, &MergeTokens { client_id: room.next_id(), token, other: token });
        assert_eq!(room.refusal(), Some(Reject::TokenInSwap));
        let (client_id, account) = (room.next_id(), 2.into());
        room.apply(OPERATOR, &TransferToken { client_id, account, reserved, token });
        assert_eq!(room.refusal(), Some(Reject::TokenInSwap));
    }
    // Capacity that the swap only moved cannot be promised twice, nor after its end.
    assert_eq!(room.machine.spoken_for(0), 30 + 70);
    // An operator may end a token: each has its own again, and who paid has back what was not served.
    room.tick(150_000);
    room.apply(OPERATOR, &RevokeToken { client_id: room.next_id(), id: destination.into() });
    assert_eq!(state(&mut room, id), (SwapState::RolledBack, SwapReason::TokenOver));
    assert_eq!(stand(&mut room, [source]), [(50, 3)]);
    assert_eq!(funds(&mut room, 0), (100_250_000, 0));
    assert_eq!(funds(&mut room, 1), (99_750_000, 0));
    assert_eq!(room.machine.spoken_for(0), 30 + 50);
}

#[test]
fn an_instance_that_goes_ends_its_swap_first() {
    let (mut room, source, destination) = two();
    let m = request(&mut room, source, destination);
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    let waits = issue(&mut room, 0, 20, |_| {});
    let m = request(&mut room, waits, destination);
    assert_eq!(approve(&mut room, LENDER, id), None);
    assert_eq!(ask(&mut room, BORROWER, &m), Err(Reject::TokenStale));
    let (client_id, reserved) = (room.next_id(), 0.into());
    room.apply(OPERATOR, &RemoveInstance { client_id, instance: 1.into(), reserved });
    assert_eq!(state(&mut room, id), (SwapState::RolledBack, SwapReason::InstanceRemoved));
    assert_eq!(stand(&mut room, [source, destination]), [(50, 4), (20, 5)]);
    assert_eq!(entitled(&room, 0), 60);
    assert_eq!(funds(&mut room, 1), (100_000_000, 0), "nothing was served");
    room.recovered();
}

#[test]
fn windows_downtime_and_marks_are_kept_to() {
    let mut room = room();
    let source = issue(&mut room, 0, 50, |_| {});
    let destination = issue(&mut room, 1, 20, |_| {});
    let fixed = issue(&mut room, 0, 5, |m| m.swap_eligible = 0);
    let sticky = issue(&mut room, 0, 5, |m| m.sticky = 1);
    redeemed(&mut room, 0, sticky);
    let m = request(&mut room, source, destination);
    let try_with = |room: &mut Room, change: fn(&mut SwapRequest, u64)| {
        let (mut changed, now_ms) = (m, now_ms(room));
        change(&mut changed, now_ms);
        ask(room, BORROWER, &changed)
    };
    let try_source = |room: &mut Room, session: u32, source: u64| {
        let m = SwapRequest { vru: 1.into(), ..request(room, source, destination) };
        ask(room, session, &m)
    };
    // Of what is not to be swapped a stranger does not even learn that it is there.
    assert_eq!(try_source(&mut room, BORROWER, fixed), Err(Reject::UnknownToken));
    assert_eq!(try_source(&mut room, OPERATOR, fixed), Err(Reject::NotSwapEligible));
    assert_eq!(try_source(&mut room, BORROWER, sticky), Err(Reject::TokenSticky));
    assert_eq!(try_source(&mut room, BORROWER, destination), Err(Reject::TokensDiffer));
    assert_eq!(try_with(&mut room, |m, _| m.vru = 50.into()), Err(Reject::BadQuantity));
    assert_eq!(try_with(&mut room, |m, now| m.deadline_ms = now.into()), Err(Reject::BadExpiry));
    let late = |m: &mut SwapRequest, now: u64| m.deadline_ms = (now + 2 * HOUR_MS - 599_999).into();
    assert_eq!(try_with(&mut room, late), Err(Reject::BeyondWindow));
    let much = |m: &mut SwapRequest, _| m.incentive_micro = 100_000_001.into();
    assert_eq!(try_with(&mut room, much), Err(Reject::InsufficientFunds));
    policy(&mut room, 0, |m| m.downtime_ms = 99.into());
    assert_eq!(try_with(&mut room, |_, _| {}), Err(Reject::DowntimeTooLong));
    policy(&mut room, 0, |m| m.downtime_ms = 100.into());
    for _ in 0..ACCOUNT_SWAPS_MAX {
        assert!(try_with(&mut room, |_, _| {}).is_ok());
    }
    assert_eq!(try_with(&mut room, |_, _| {}), Err(Reject::SwapsFull));
    // Nobody decides: all that was held is free again.
    room.tick(60_000);
    assert_eq!(room.said::<SwapMoved>().len(), 3 * ACCOUNT_SWAPS_MAX);
    assert_eq!(funds(&mut room, 1), (100_000_000, 0));
    assert_eq!(state(&mut room, 1), (SwapState::Expired, SwapReason::Time));
}

#[test]
fn what_no_longer_may_be_is_not_approved() {
    let (mut room, source, destination) = two();
    let later = (now_ms(&room) + 1).into();
    let later = issue(&mut room, 1, 20, |m| m.from_ms = later);
    let m = request(&mut room, source, later);
    assert_eq!(ask(&mut room, BORROWER, &m), Err(Reject::BeyondWindow), "it has not begun");
    let m = request(&mut room, source, destination);
    let late = ask(&mut room, BORROWER, &m).expect("a swap");
    // No tick has told of its end yet.
    room.time_ns += 60_000_000_000;
    assert_eq!(approve(&mut room, LENDER, late), Some(Reject::SwapSettled));
    let m = request(&mut room, source, destination);
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    let alone = SetLimits {
        client_id: room.next_id(),
        sell_max_credits: UNLIMITED.into(),
        buy_max_credits: UNLIMITED.into(),
        order_max_micro: UNLIMITED.into(),
        position_max_credits: UNLIMITED.into(),
        ..SetLimits::zeroed()
    };
    room.apply(OPERATOR, &alone);
    assert_eq!(room.refusal(), None);
    assert_eq!(approve(&mut room, LENDER, id), Some(Reject::NotPermitted));
    assert_eq!(ask(&mut room, BORROWER, &m), Err(Reject::UnknownToken), "nor is it shown");
    // Sticky is what runs on it: of what nobody redeemed nothing does.
    let sticky = issue(&mut room, 1, 5, |m| m.sticky = 1);
    let m = SwapRequest { vru: 1.into(), ..request(&mut room, sticky, destination) };
    assert!(ask(&mut room, BORROWER, &m).is_ok());
}

#[test]
fn a_standing_policy_decides_by_the_incentive() {
    let (mut room, source, destination) = two();
    // 10 VRUs for 600 seconds at 100 micro-units: 600,000.
    policy(&mut room, 0, |m| (m.answer, m.least_micro) = (SwapAnswer::Accept as u8, 100.into()));
    let mut m = request(&mut room, source, destination);
    m.incentive_micro = 599_999.into();
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    assert_eq!(state(&mut room, id), (SwapState::Rejected, SwapReason::IncentiveTooLow));
    assert_eq!(funds(&mut room, 1), (100_000_000, 0));
    m.incentive_micro = 600_000.into();
    policy(&mut room, 0, |m| m.answer = SwapAnswer::Refuse as u8);
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    assert_eq!(state(&mut room, id), (SwapState::Rejected, SwapReason::Policy));
    policy(&mut room, 0, |m| (m.answer, m.least_micro) = (SwapAnswer::Accept as u8, 100.into()));
    // The daemon finds the source.
    let id = ask(
        &mut room,
        BORROWER,
        &SwapRequest { source: 0.into(), source_generation: 0.into(), ..m },
    );
    assert_eq!(id, Err(Reject::NoSource), "nobody knows what the redeemed one needs");
    let idle = issue(&mut room, 0, 11, |m| m.priority = 9);
    let id = ask(
        &mut room,
        BORROWER,
        &SwapRequest { source: 0.into(), source_generation: 0.into(), ..m },
    );
    let id = id.expect("a swap");
    assert_eq!(swap(&mut room, id).source.get(), idle);
    assert_eq!(state(&mut room, id), (SwapState::Active, SwapReason::Policy));
    // Both of one account: nobody is asked.
    let own = issue(&mut room, 2, 5, |_| {});
    let other = issue(&mut room, 2, 5, |_| {});
    let m = SwapRequest { vru: 4.into(), ..request(&mut room, own, other) };
    let id = ask(&mut room, STRANGER, &m).expect("a swap");
    assert_eq!(state(&mut room, id), (SwapState::Active, SwapReason::OneAccount));
    room.tick(600_000);
    assert_eq!(funds(&mut room, 2), (100_000_000, 0));
    // What is rejected says why, to both.
    let m = request(&mut room, source, destination);
    policy(&mut room, 0, |_| {});
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    assert_eq!(reject(&mut room, LENDER, id, "a release is due"), None);
    assert_eq!(text(&swap(&mut room, id).words), "a release is due");
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    assert_eq!(reject(&mut room, BORROWER, id, ""), None);
    assert_eq!(state(&mut room, id), (SwapState::Withdrawn, SwapReason::Owner));
}

fn report(room: &mut Room, instance: u32, kpi: Kpi, value: u32) -> Option<Reject> {
    let m = ReportKpi {
        instance: instance.into(),
        value: value.into(),
        kpi: kpi as u8,
        ..ReportKpi::zeroed()
    };
    room.apply(1 + instance, &m);
    room.refusal()
}

#[test]
fn a_degradation_beyond_the_agreed_one_rolls_it_back() {
    let mut room = room();
    // 200 us, and a tenth more while it lends.
    let source = issue(&mut room, 0, 50, |m| {
        (m.profile, m.profile_limit) = (Kpi::Latency as u8, 200.into());
    });
    let destination = issue(&mut room, 1, 20, |_| {});
    redeemed(&mut room, 0, source);
    redeemed(&mut room, 1, destination);
    policy(&mut room, 0, |m| m.degradation_percent = 10.into());
    let m = request(&mut room, source, destination);
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    assert_eq!(report(&mut room, 0, Kpi::Latency, 300), Some(Reject::UnknownObjective));
    assert_eq!(approve(&mut room, LENDER, id), None);
    room.tick(60_000);
    // Two that are worse, one that is not: the count begins anew.
    for value in [221, 300, 220, 221, 221] {
        assert_eq!(report(&mut room, 0, Kpi::Latency, value), None);
        assert_eq!(report(&mut room, 0, Kpi::Throughput, 0), Some(Reject::UnknownObjective));
        assert_eq!(report(&mut room, 1, Kpi::Latency, 900), Some(Reject::UnknownObjective));
    }
    assert_eq!(swap(&mut room, id).breaches, 2);
    let mut room = room.recovered();
    assert_eq!(state(&mut room, id).0, SwapState::Active);
    assert_eq!(report(&mut room, 0, Kpi::Latency, 221), None);
    assert_eq!(room.said::<SwapMoved>()[0].1.state, SwapState::RolledBack as u8);
    assert_eq!(state(&mut room, id), (SwapState::RolledBack, SwapReason::Degraded));
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (60, 30));
    assert_eq!(funds(&mut room, 0), (100_100_000, 0), "a tenth of the time was served");
    assert_eq!(funds(&mut room, 1), (99_900_000, 0));
    room.tick(HOUR_MS);
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (60, 30), "it is over for good");
}

#[test]
fn what_the_host_measures_rolls_it_back_too() {
    let mut room = room();
    let source = issue(&mut room, 0, 50, |m| {
        (m.profile, m.profile_limit) = (Kpi::CpuWait as u8, 50.into());
    });
    let destination = issue(&mut room, 1, 20, |_| {});
    redeemed(&mut room, 0, source);
    let m = request(&mut room, source, destination);
    let id = ask(&mut room, BORROWER, &m).expect("a swap");
    assert_eq!(approve(&mut room, LENDER, id), None);
    let watched = room.said::<vendue_engine::machine::event::Watched>();
    assert_eq!(watched.len(), 1, "the host is told to measure it");
    assert_eq!(watched[0].1.kpis, 1 << Kpi::CpuWait as u8);
    for _ in 0..SWAP_BREACHES {
        let values = HOST_KPIS.map(|kpi| if kpi == Kpi::CpuWait { 51 } else { u32::MAX }.into());
        room.daemon(&HostKpis { instance: 0.into(), values });
    }
    assert_eq!(state(&mut room, id), (SwapState::RolledBack, SwapReason::Degraded));
}

#[test]
fn the_manager_finds_who_is_at_risk_and_who_can_help() {
    let (mut room, source, destination) = two();
    policy(&mut room, 0, |m| (m.answer, m.least_micro) = (SwapAnswer::Accept as u8, 7.into()));
    // Needs 42 at most with 90%, has 30.
    room.forecast(OPERATOR, 1, FORESEEN_MS, [20, 42, 50]);
    for _ in 0..3 {
        room.use_credits(0, 0, 20_000);
        room.tick(1000);
    }
    assert!(room.machine.swaps().rows.is_empty(), "its account does not want the daemon to ask");
    policy(&mut room, 1, |m| (m.seek, m.pay_micro) = (1, 6.into()));
    room.use_credits(0, 0, 20_000);
    room.tick(1000);
    assert!(room.machine.swaps().rows.is_empty(), "it pays too little");
    policy(&mut room, 1, |m| (m.seek, m.pay_micro) = (1, 10.into()));
    // It has 60 and uses 20, which may become 26: 34 to spare.
    room.use_credits(0, 0, 20_000);
    room.tick(1000);
    let row = swap(&mut room, 1);
    assert_eq!((row.source.get(), row.destination.get()), (source, destination));
    assert_eq!((row.vru.get(), row.by_manager), (12, 1));
    assert_eq!(state(&mut room, 1), (SwapState::Active, SwapReason::Policy));
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (48, 42));
    // As long as the forecast, at what the policy lends for.
    let lasts_ms = u64::from(row.lasts_ms.get());
    assert_eq!(lasts_ms, 1_795_000);
    assert_eq!(row.incentive_micro.get(), (7 * 12 * lasts_ms).div_ceil(1000));
    let mut room = room.recovered();
    for _ in 0..5 {
        room.use_credits(0, 0, 20_000);
        room.tick(1000);
    }
    assert_eq!(room.machine.swaps().rows.len(), 1, "once");
    room.tick(lasts_ms);
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (60, 30));
    // It rests, and then helps again.
    room.forecast(OPERATOR, 1, FORESEEN_MS, [20, 42, 50]);
    room.use_credits(0, 0, 20_000);
    room.tick(1000);
    assert_eq!(room.machine.swaps().rows.len(), 1);
    room.tick(COOL_MS - 2000);
    room.use_credits(0, 0, 20_000);
    room.tick(1000);
    assert_eq!(room.machine.swaps().rows.len(), 2);
}

#[test]
fn the_manager_asks_people_and_takes_no_for_an_answer() {
    let mut room = room();
    let destination = issue(&mut room, 1, 20, |_| {});
    redeemed(&mut room, 1, destination);
    let (first, second) =
        (issue(&mut room, 0, 9, |m| m.priority = 1), issue(&mut room, 0, 30, |m| m.priority = 2));
    policy(&mut room, 1, |m| m.seek = 1);
    room.forecast(OPERATOR, 1, FORESEEN_MS, [30, 42, 50]);
    room.tick(1000);
    // The lowest priority first, though it has less to spare.
    let row = swap(&mut room, 1);
    assert_eq!((row.source.get(), row.vru.get()), (first, 8));
    assert_eq!(state(&mut room, 1), (SwapState::Proposed, SwapReason::Forecast));
    assert_eq!(row.deadline_ms.get() - row.asked_ms.get(), ASK_MS);
    room.tick(1000);
    assert_eq!(room.machine.swaps().rows.len(), 1, "one at a time");
    assert_eq!(reject(&mut room, LENDER, 1, "not mine"), None);
    room.tick(COOL_MS);
    let row = swap(&mut room, 2);
    assert_eq!((row.source.get(), row.vru.get()), (second, 12));
    assert_eq!(approve(&mut room, LENDER, 2), None);
    assert_eq!(entitled(&room, 1), 42);
}

#[test]
fn the_manager_sees_what_is_planned_ten_minutes_before() {
    let mut room = room();
    let (source, destination) = (issue(&mut room, 0, 50, |_| {}), issue(&mut room, 1, 20, |_| {}));
    redeemed(&mut room, 1, destination);
    policy(&mut room, 0, |m| m.answer = SwapAnswer::Accept as u8);
    policy(&mut room, 1, |m| m.seek = 1);
    // Has 30 and needs less, but for 20 more in 11 minutes.
    room.forecast(OPERATOR, 1, FORESEEN_MS, [20, 25, 28]);
    let event = PlanEvent {
        client_id: room.next_id(),
        starts_at_ms: (now_ms(&room) + 660_000).into(),
        lasts_ms: 60_000.into(),
        instance: 1.into(),
        add_vru: 20.into(),
        percent: 100.into(),
        name: field_cut("sale"),
        ..PlanEvent::zeroed()
    };
    room.apply(BORROWER, &event);
    assert_eq!(room.refusal(), None);
    room.tick(59_000);
    assert!(room.machine.swaps().rows.is_empty(), "it is too early");
    room.tick(1000);
    let row = swap(&mut room, 1);
    assert_eq!((row.source.get(), row.vru.get()), (source, 15));
    assert_eq!(row.lasts_ms.get(), 1_740_000, "as long as the forecast");
}

#[test]
fn the_manager_goes_by_what_was_used_between_two_looks() {
    let mut room = room();
    // An hour in which nothing was used, and no token to look at any more.
    let over = issue(&mut room, 0, 1, |_| {});
    room.tick(1000);
    room.apply(OPERATOR, &RevokeToken { client_id: room.next_id(), id: over.into() });
    room.tick(HOUR_MS);
    let (source, destination) = (issue(&mut room, 0, 50, |_| {}), issue(&mut room, 1, 20, |_| {}));
    redeemed(&mut room, 0, source);
    redeemed(&mut room, 1, destination);
    policy(&mut room, 0, |m| m.answer = SwapAnswer::Accept as u8);
    policy(&mut room, 1, |m| m.seek = 1);
    room.forecast(OPERATOR, 1, FORESEEN_MS, [30, 42, 50]);
    // Of 60 it uses 48, and may use 61 soon.
    room.use_credits(0, 0, 48_000);
    room.tick(1000);
    assert!(room.machine.swaps().rows.is_empty(), "it has none to spare");
    // 40, which may become 51; but who starts again does not know since when.
    room.use_credits(0, 0, 40_000);
    room.daemon(&Restart {});
    room.tick(1000);
    assert!(room.machine.swaps().rows.is_empty(), "it was not measured");
    room.use_credits(0, 0, 40_000);
    // What an instance used is nothing to the next of its number.
    let (client_id, reserved) = (room.next_id(), 0.into());
    room.apply(OPERATOR, &RemoveInstance { client_id, instance: 0.into(), reserved });
    room.instance(OPERATOR, 0, "another", [10, 0, 0, 0, 0]);
    assert_eq!(room.value(), 0);
    redeemed(&mut room, 0, source);
    room.tick(1000);
    assert!(room.machine.swaps().rows.is_empty(), "it was another's");
    room.use_credits(0, 0, 40_000);
    room.tick(1000);
    assert_eq!(swap(&mut room, 1).vru.get(), 9);
}

#[test]
fn the_manager_looks_at_eight_and_proposes_four_at_a_time() {
    let mut room = room();
    policy(&mut room, 1, |m| m.seek = 1);
    let mut borrowers = Vec::new();
    for at in 0..10 {
        issue(&mut room, 0, 2, |_| {});
        room.instance(OPERATOR, 1, &format!("borrower {at}"), [1, 0, 0, 0, 0]);
        let instance = room.value() as u32;
        let id = issue(&mut room, 1, 5, |_| {});
        let token = token(&mut room, id);
        assert_eq!(redeem(&mut room, BORROWER, instance, &token), None);
        borrowers.push((instance, id));
    }
    for &(instance, _) in &borrowers {
        room.forecast(OPERATOR, instance, FORESEEN_MS, [7, 8, 9]);
    }
    // The last one bids more: what it lacks matters most.
    let (first, _) = borrowers[9];
    let m = SetBid {
        client_id: room.next_id(),
        instance: first.into(),
        bid_milli: 2000.into(),
        ..SetBid::zeroed()
    };
    room.apply(BORROWER, &m);
    let mut asked = |milliseconds: u64| {
        room.tick(milliseconds);
        let rows = room.machine.swaps().rows.iter();
        rows.map(|row| row.tokens[1]).collect::<Vec<_>>()
    };
    let ids = |of: &[usize]| of.iter().map(|&at| borrowers[at].1).collect::<Vec<_>>();
    assert_eq!(asked(1000), ids(&[9, 0, 1, 2]));
    assert_eq!(asked(1000), ids(&[9, 0, 1, 2, 3, 4, 5, 6]));
    assert_eq!(asked(1000), ids(&[9, 0, 1, 2, 3, 4, 5, 6]), "all that it looks at wait");
}

#[test]
fn the_fullest_table_forgets_only_what_is_over() {
    let mut room = room();
    let (source, destination) = (issue(&mut room, 0, 50, |_| {}), issue(&mut room, 1, 20, |_| {}));
    let m = request(&mut room, source, destination);
    let first = ask(&mut room, BORROWER, &m).expect("a swap");
    for _ in 0..SWAPS_MAX + 10 {
        let id = ask(&mut room, BORROWER, &m).expect("a swap");
        assert_eq!(reject(&mut room, BORROWER, id, ""), None);
    }
    assert_eq!(room.machine.swaps().rows.len(), SWAPS_MAX);
    assert_eq!(state(&mut room, first).0, SwapState::Proposed);
    assert_eq!(approve(&mut room, LENDER, first + 1), Some(Reject::UnknownSwap));
    assert_eq!(approve(&mut room, LENDER, first), None);
}

// ---- the whole system --------------------------------------------------------------------

/// Issues a token to an account by name, for an hour; its id.
fn promised(daemon: &Daemon, account: &str, vru: &str) -> u64 {
    let issue = ["token", "issue", account, "bronze", "cpu", vru, "--lasts", "3600"];
    daemon.said_one(&[&issue[..], &["--swap-eligible"]].concat())["id"].as_u64().expect("an id")
}

fn code(answer: Result<Done, ClientError>) -> Option<Reject> {
    match answer {
        Ok(_) => None,
        Err(ClientError::Rejected { code, .. }) => Reject::from_u8(code),
        Err(other) => panic!("{other:?}"),
    }
}

/// Asks for 10 VRUs of the first for the second, for an hour less a quarter.
fn asked(client: &mut Client, source: &TokenRow, destination: &TokenRow) -> u64 {
    let m = SwapRequest {
        client_id: client.next_client_id().into(),
        source: source.id,
        destination: destination.id,
        deadline_ms: (destination.until_ms.get() - 2_700_000).into(),
        incentive_micro: 1000.into(),
        source_generation: source.generation,
        destination_generation: destination.generation,
        vru: 10.into(),
        lasts_ms: 2_400_000.into(),
        ..SwapRequest::zeroed()
    };
    client.call(&m).expect("a swap").value.get()
}

fn approved(client: &mut Client, id: u64) -> Option<Reject> {
    let client_id = client.next_client_id().into();
    code(client.call(&SwapApprove { client_id, id: id.into() }))
}

#[test]
fn of_two_who_race_exactly_one_is_first() {
    let daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    let (seller, buyer) = (market.seller, market.buyer);
    let identity = |session| Identity { session, ..Identity::tenant(seller.account) };
    let mut lenders = [11, 12].map(|session| daemon.client(&identity(session)));
    let mut borrower = daemon.client(&Identity::tenant(buyer.account));
    let mut firsts = [0_u32; 2];
    for round in 0..20 {
        let [source, destination] = [("seller", "30"), ("buyer", "20")]
            .map(|(account, vru)| token_row(&mut market.operator, promised(&daemon, account, vru)));
        let id = asked(&mut borrower, &source, &destination);
        let start = Barrier::new(2);
        let [one, two] = &mut lenders;
        let together = |a: &mut dyn FnMut() -> Option<Reject>| {
            start.wait();
            a()
        };
        let redeems = round % 2 == 1;
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| together(&mut || approved(one, id)));
            let second = scope.spawn(|| {
                together(&mut || {
                    if !redeems {
                        return approved(two, id);
                    }
                    // The destination is redeemed as it was when the swap was asked for.
                    let (client_id, reserved) = (borrower.next_client_id().into(), 0.into());
                    let token = *token_row(&mut borrower, destination.id.get()).token();
                    let seen = Token::of(&token).generation == destination.generation;
                    let instance = buyer.instance.into();
                    let m = RedeemToken { client_id, instance, reserved, token };
                    let answer = code(borrower.call(&m));
                    if seen { answer } else { Some(Reject::TokenStale) }
                })
            });
            (first.join().expect("the first"), second.join().expect("the second"))
        });
        let lost = if redeems { Reject::TokenStale } else { Reject::SwapSettled };
        match (first, second) {
            (None, Some(why)) => assert_eq!(why, lost),
            (Some(why), None) => assert_eq!(why, Reject::SwapSettled),
            other => panic!("round {round}: {other:?}"),
        }
        firsts[usize::from(first.is_some())] += 1;
        let row =
            market.operator.ask::<SwapRow, _>(&SwapList { from: id.into() }).expect("rows")[0];
        let went = first.is_none() || !redeems;
        let state = if went { SwapState::Active } else { SwapState::Refused };
        assert_eq!(row.state, state as u8);
        for id in [source.id, destination.id] {
            daemon.said_one(&["token", "revoke", &id.get().to_string()]);
        }
    }
    println!("the first was first {firsts:?}");
}

#[test]
fn a_swap_is_negotiated_by_hand_and_survives_a_crash() {
    let mut daemon = Daemon::start(&Setup::small().key("tick_ms", "100"));
    let mut market = Market::open(&daemon);
    let (seller, buyer) = (market.seller, market.buyer);
    let (lender, borrower) = (seller.account.to_string(), buyer.account.to_string());
    let [source, destination] =
        [promised(&daemon, "seller", "30"), promised(&daemon, "buyer", "20")]
            .map(|id| id.to_string());
    let before = instance_row(&mut market.operator, buyer.instance).entitled_vru[0].get();
    let redeem = ["token", "redeem", &destination, &buyer.instance.to_string()];
    daemon.said_one(&redeem);
    let ask = |more: &[&str]| {
        let request = ["swap", "request", &source, &destination, "10", "--lasts", "600"];
        let terms = ["--incentive", "0.5", "--account", &borrower, "--source-generation", "1"];
        daemon.said_one(&[&request[..], &terms, more].concat())
    };
    // Rejected with a reason, then approved by hand.
    let first = ask(&[])["id"].as_u64().expect("an id").to_string();
    let no =
        daemon.said_one(&["swap", "reject", &first, "--because", "busy", "--account", &lender]);
    assert_eq!(no["freed_micro"], 500_000);
    let why = daemon.refused(&["swap", "approve", &first, "--account", &lender]);
    assert!(why.contains("swap is settled"), "{why}");
    let id = ask(&["--within", "60"])["id"].as_u64().expect("an id").to_string();
    daemon.said_one(&["swap", "approve", &id, "--account", &lender]);
    let now = |operator: &mut Client| instance_row(operator, buyer.instance).entitled_vru[0].get();
    assert_eq!(now(&mut market.operator), before + 30);

    // In the middle of it the daemon is killed; journal and snapshot say the same.
    for graceful in [false, true] {
        if graceful {
            assert!(daemon.terminate().success())
        } else {
            daemon.kill_9()
        }
        daemon.launch();
        let row = daemon.said_one(&["swap", "show", &id]);
        assert_eq!(
            (row["state"].as_str(), row["reason"].as_str()),
            (Some("active"), Some("owner"))
        );
        let session = 80 + u64::from(graceful);
        let mut operator = daemon.client(&Identity { session, ..Identity::operator() });
        assert_eq!(now(&mut operator), before + 30);
    }

    // A standing policy answers the next at once.
    let refuse = ["swap", "policy", &lender, "--answer", "refuse", "--account", &lender];
    daemon.said_one(&refuse);
    let third = promised(&daemon, "seller", "5").to_string();
    let other = promised(&daemon, "buyer", "5").to_string();
    let row = daemon.said_one(&[
        "swap",
        "request",
        &third,
        &other,
        "1",
        "--lasts",
        "60",
        "--source-generation",
        "1",
    ]);
    assert_eq!((row["state"].as_str(), row["reason"].as_str()), (Some("rejected"), Some("policy")));
    assert_eq!(daemon.said(&["swap", "list"]).len(), 3);
    assert_eq!(daemon.said_one(&["swap", "policy", "--list"])["answer"], "refuse");

    daemon.said_one(&["token", "revoke", &destination]);
    let mut operator = daemon.client(&Identity { session: 90, ..Identity::operator() });
    assert_eq!(now(&mut operator), before);
    check_trail(&mut operator, &first, &id);
    check_ledger(&mut operator);
}

/// The trail has each step once, and why.
fn check_trail(operator: &mut Client, first: &str, id: &str) {
    let whats: Vec<String> = audit(operator).iter().map(|row| text(&row.what).to_owned()).collect();
    let steps: Vec<&str> =
        whats.iter().map(String::as_str).filter(|what| what.starts_with("swap ")).collect();
    let of = |id: &str, what: &str| format!("swap {id} {what}");
    let wanted = [
        of(first, "proposed"),
        of(first, "rejected"),
        of(id, "proposed"),
        of(id, "active"),
        of("3", "proposed"),
        of("3", "rejected"),
        of(id, "rolled back"),
    ];
    assert_eq!(steps, wanted);
    for why in ["busy", "why: owner", "why: policy", "why: token over"] {
        assert!(whats.iter().any(|what| what == why), "{why}: {whats:?}");
    }
}
