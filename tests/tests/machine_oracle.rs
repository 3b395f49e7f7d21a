//! The real machine against the naive model, after every one of millions of generated commands.
//!
//! Each case is a list of small operations, so that a failure shrinks to a short one. Three
//! worlds: a narrow one where everything collides and every table fills, a wide one with long
//! queues and pages of rows, and one at the edges of the arithmetic.
//!
//! `VENDUE_ORACLE_SEED` and `VENDUE_ORACLE_CASES` replace the built-in seed and case count.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use vendue_tests::duel::{
    Bounds, EDGE, FEES, Id, Met, NARROW, Op, Size, Terms, WIDE, Which, World, play,
};
use vendue_wire::code::{CancelReason, Reject};
use vendue_wire::message::{TIER_CHANGE, TIER_DEFINE, TIER_DELETE, TIER_DRAIN, TIER_RESUME};

// ---- generator ---------------------------------------------------------------------------

fn id() -> impl Strategy<Value = Id> {
    prop_oneof![
        40 => Just(Id::Next),
        3 => (1..9_u32).prop_map(Id::Ahead),
        2 => Just(Id::Again),
        1 => Just(Id::Zero),
    ]
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        16 => any::<u16>().prop_map(Which::Open),
        2 => any::<u16>().prop_map(Which::Ever),
        1 => any::<u64>().prop_map(Which::Forged),
    ]
}

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![
        8 => (0..3000_u32).prop_map(Size::Small),
        8 => (0..60_u32).prop_map(Size::Thousands),
        1 => (0..64_u8).prop_map(Size::Power),
        1 => (50..64_u8).prop_map(Size::BelowPower),
        1 => Just(Size::Max),
    ]
}

/// Mostly the operator, who may do anything; sometimes a slot beyond the table.
fn session() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(0_u8), 5 => 1..7_u8]
}

/// Mostly inside `1..=most`, with the ends and the values beyond them.
fn up_to(most: u32, usual: u32) -> impl Strategy<Value = u32> {
    prop_oneof![
        40 => 1..=usual,
        2 => 1..=most,
        1 => Just(most),
        1 => Just(0_u32),
        1 => Just(u32::MAX),
    ]
}

fn terms(world: &World) -> impl Strategy<Value = Terms> + use<> {
    let instances = world.instances_max as u8 + 1;
    let parties = (session(), 0..instances, 0..4_u8, any::<bool>(), any::<bool>());
    let amounts = (
        up_to(world.price_max, world.asks.0),
        up_to(world.quantity_max, world.asks.1),
        // 0 is not later than now.
        prop_oneof![19 => 0..4000_u32, 1 => Just(0_u32)],
        id(),
    );
    let kinds = (0..10_u8, 0..12_u8, proptest::bool::weighted(0.05));
    (parties, amounts, kinds).prop_map(|(parties, amounts, kinds)| {
        let (session, instance, book, sell, self_trade) = parties;
        let (price, quantity, expires_ms, id) = amounts;
        let market = kinds.0 == 0;
        let time_in_force = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3][usize::from(kinds.1)];
        let post_only = !market && time_in_force < 2 && kinds.0 == 1;
        Terms {
            session,
            wild: kinds.2,
            instance,
            book,
            sell,
            market,
            time_in_force,
            post_only,
            self_trade,
            price,
            quantity,
            expires_ms,
            id,
        }
    })
}

fn admin(world: &World) -> impl Strategy<Value = Op> + use<> {
    let instance = 0..world.instances_max as u8 + 1;
    let account = 0..world.accounts_max as u8 + 1;
    let mask = || prop_oneof![5 => Just(0xff_u8), 3 => any::<u8>()];
    let account_op = (session(), 0..8_u8, mask(), mask(), any::<u8>(), id());
    let instance_op = (session(), account.clone(), 0..3_u8, any::<[u16; 3]>(), any::<u8>(), id());
    prop_oneof![
        2 => account_op.prop_map(|(session, group, sells_to, buys_from, name, id)| {
            Op::Account { session, group, sells_to, buys_from, name, id }
        }),
        4 => (session(), account, size(), any::<bool>(), id())
            .prop_map(|(session, account, amount, out, id)| {
                Op::Funds { session, account, amount, out, id }
            }),
        3 => instance_op.prop_map(|(session, account, tier, vru, name, id)| {
            Op::Instance { session, account, tier, vru, name, id }
        }),
        1 => (session(), instance.clone(), id())
            .prop_map(|(session, instance, id)| Op::Remove { session, instance, id }),
        4 => (session(), instance.clone(), 0..4_u8, bid(), id()).prop_map(
            |(session, instance, resource, bid_milli, id)| {
                Op::Bid { session, instance, resource, bid_milli, id }
            },
        ),
        1 => (session(), 0..world.accounts_max as u8 + 1, cap(), id()).prop_map(
            |(session, account, millicores, id)| Op::Cap { session, account, millicores, id },
        ),
        6 => (session(), instance, 0..4_u8, size(), id())
            .prop_map(|(session, instance, resource, amount, id)| {
                Op::Grant { session, instance, resource, amount, id }
            }),
        4 => limits(world),
    ]
}

/// Whom accounts may trade with, and how much; what operators do about their orders and trades.
fn limits(world: &World) -> impl Strategy<Value = Op> + use<> {
    let account = 0..world.accounts_max as u8 + 1;
    let mask = || prop_oneof![5 => Just(0xff_u8), 3 => any::<u8>()];
    let whom = (0..8_u8, mask(), mask(), proptest::bool::weighted(0.9));
    let credits = world.asks.1.saturating_mul(5);
    let worth = world.asks.1.saturating_mul(world.asks.0);
    let position = (world.credits / 200).min(u32::MAX.into()) as u32;
    let most = [credits, credits, worth, position]
        .map(|most| proptest::option::weighted(0.4, prop_oneof![5 => 0..=most, 1 => any::<u32>()]));
    let cancel = (session(), account.clone(), proptest::option::of(0..4_u8), 0..3_u8, id());
    prop_oneof![
        6 => (session(), account, whom, most, id()).prop_map(
            |(session, account, whom, most, id)| Op::Limits(Bounds { session, account, whom, most, id }),
        ),
        1 => cancel.prop_map(|(session, account, book, side, id)| {
            Op::CancelAccount { session, account, book, side, id }
        }),
        6 => (session(), 0..9_u8, id())
            .prop_map(|(session, back, id)| Op::Reverse { session, back, id }),
    ]
}

/// Caps of accounts, within their bounds and not.
fn cap() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..4000_u32, 1 => 65_535_999..65_536_002_u32, 1 => any::<u32>()]
}

/// Mostly usual bids.
fn bid() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 100..20_000_u32, 1 => any::<u32>()]
}

fn daemon(world: &World) -> impl Strategy<Value = Op> + use<> {
    let instance = 0..world.instances_max as u8 + 1;
    let milliseconds = prop_oneof![
        40 => 0..1500_u64,
        2 => 0..10_000_000_u64,
        1 => 0..5_000_000_000_u64,
    ];
    let open = (0..12_u8, 0..4_u8, 0..7_u8, instance.clone(), any::<bool>());
    prop_oneof![
        6 => milliseconds.prop_map(|milliseconds| Op::Tick { milliseconds }),
        4 => (instance, 0..3_u8, size())
            .prop_map(|(instance, resource, amount)| Op::Usage { instance, resource, amount }),
        2 => open.prop_map(|(number, role, account, instance, cancel_on_disconnect)| {
            Op::Open { number, role, account, instance, cancel_on_disconnect }
        }),
        1 => (1..8_u8).prop_map(|slot| Op::Close { slot }),
        1 => Just(Op::Snapshot),
    ]
}

fn tiers(world: &World) -> impl Strategy<Value = Op> + use<> {
    let pair = || {
        let tier = || prop_oneof![12 => 0..2_u8, 1 => Just(2_u8)];
        (tier(), tier(), prop_oneof![8 => Just(0_u8), 1 => 0..4_u8])
    };
    let operator = || prop_oneof![9 => Just(0_u8), 1 => 0..7_u8];
    let few = (world.capacity_vru / 10).max(1) as u32;
    let vru = prop_oneof![
        4 => 0..6_u32,
        6 => 0..=few,
        2 => 0..=world.capacity_vru as u32,
        1 => any::<u32>()
    ];
    let part = || prop_oneof![9 => 1..12_u32, 1 => any::<u32>(), 1 => Just(0_u32)];
    let bound = || prop_oneof![4 => Just([0, 0]), 1 => [part(), part()]];
    let capacity = move || {
        let most = prop_oneof![6 => few..=10 * few, 1 => any::<u32>(), 1 => Just(0_u32)];
        (most, prop_oneof![6 => Just(0_u32), 1 => few..=10 * few])
    };
    let size = prop_oneof![4 => Just(0_u64), 4 => 1..100_u64, 1 => any::<u64>()];
    // What was drained is mostly taken back, or nobody could trade.
    let act = prop_oneof![
        3 => Just(TIER_DEFINE),
        3 => Just(TIER_CHANGE),
        1 => Just(TIER_DRAIN),
        4 => Just(TIER_RESUME),
        2 => Just(TIER_DELETE),
    ];
    let set = (operator(), prop_oneof![2 => 0..2_u8, 4 => Just(2_u8), 1 => Just(3_u8)], act);
    prop_oneof![
        2 => (set, capacity(), size, any::<u8>(), id()).prop_map(
            |((session, tier, act), (cpu, memory), size, name, id)| {
                Op::Tier { session, tier, act, capacity: [cpu, memory], size, name, id }
            },
        ),
        3 => (operator(), pair(), vru, id())
            .prop_map(|(session, pair, vru, id)| Op::Swap { session, pair, vru, id }),
        1 => (operator(), pair(), ([part(), part()], bound(), bound()), any::<bool>(), id())
            .prop_map(|(session, pair, rates, fixed, id)| {
                let rates = [rates.0, rates.1, rates.2];
                Op::Rate { session, pair, rates, fixed, id }
            }),
    ]
}

fn op(world: &World) -> impl Strategy<Value = Op> + use<> {
    let instance = 0..world.instances_max as u8 + 1;
    let (price, quantity) = (world.asks.0, world.asks.1);
    let replace = (
        session(),
        which(),
        up_to(world.price_max, price),
        up_to(world.quantity_max, quantity),
        id(),
    );
    let phase = prop_oneof![4 => Just(3_u8), 2 => Just(0_u8), 3 => Just(1_u8), 1 => Just(2_u8)];
    let phase = (prop_oneof![9 => Just(0_u8), 1 => 0..7_u8], 0..4_u8, phase, id());
    let mass = (session(), proptest::option::of(instance), proptest::option::of(0..4_u8), 0..3_u8);
    prop_oneof![
        120 => terms(world).prop_map(Op::Order),
        14 => (session(), which()).prop_map(|(session, which)| Op::Cancel { session, which }),
        24 => replace.prop_map(|(session, which, price, quantity, id)| {
            Op::Replace { session, which, price, quantity, id }
        }),
        2 => mass.prop_map(|(session, instance, book, side)| {
            Op::MassCancel { session, instance, book, side }
        }),
        2 => phase.prop_map(|(session, book, phase, id)| Op::Phase { session, book, phase, id }),
        6 => tiers(world),
        14 => admin(world),
        14 => daemon(world),
    ]
}

// ---- runs --------------------------------------------------------------------------------

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Plays `cases` generated lists of up to `length` operations in a world, over all fee schedules.
fn run(world: World, cases: u32, length: usize, seed: u64) -> Met {
    let seed = setting("VENDUE_ORACLE_SEED").unwrap_or(seed);
    let cases = setting("VENDUE_ORACLE_CASES").map_or(cases, |cases| cases as u32);
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let met = RefCell::new(Met::default());
    let ops = proptest::collection::vec(op(&world), 1..length);
    let outcome = runner.run(&(0..FEES.len(), ops), |(fees, ops)| {
        play(World { fees_bps: FEES[fees], ..world }, &ops, &met)
    });
    let met = met.into_inner();
    println!("seed {seed}: {} commands, {} trades", met.commands, met.trades);
    println!("{:?} swaps between tiers, {} rates moved", met.swapped, met.rates);
    println!("{} trades of auctions, {} reversed", met.auctioned, met.reversed);
    println!("{:?} {}", met.rejects, met.accepted);
    if let Err(failure) = outcome {
        panic!("seed {seed}: {failure}");
    }
    met
}

/// Refusals that every world's generator reaches.
const REJECTS: &[Reject] = &[
    Reject::NotPermitted,
    Reject::DuplicateClientId,
    Reject::UnknownAccount,
    Reject::UnknownInstance,
    Reject::UnknownTier,
    Reject::UnknownBook,
    Reject::UnknownOrder,
    Reject::BadName,
    Reject::InsufficientFunds,
    Reject::InsufficientCredits,
    Reject::InsufficientCapacity,
    Reject::Overflow,
    Reject::BadPrice,
    Reject::BadQuantity,
    Reject::WouldCross,
    Reject::BadExpiry,
    Reject::WrongTier,
    Reject::AccountsFull,
    Reject::InstancesFull,
    Reject::OrdersFull,
    Reject::InstanceOrdersFull,
    Reject::SessionsFull,
    Reject::BookHalted,
    Reject::BookInCall,
    Reject::RateOutOfBounds,
    Reject::PoolTooSmall,
    Reject::TierFull,
    Reject::WrongTierState,
    Reject::NotEmpty,
    Reject::UnknownTrade,
    Reject::AlreadyReversed,
    Reject::OrderValueLimit,
    Reject::WindowLimit,
    Reject::PositionLimit,
];

#[test]
fn narrow_markets_agree_with_the_model_and_meet_every_refusal() {
    let met = run(NARROW, 6000, 600, 1);
    let missing: Vec<_> =
        REJECTS.iter().filter(|code| !met.rejects.contains_key(&(**code as u8))).collect();
    assert!(missing.is_empty(), "the generator never met {missing:?}");
    assert!(met.auctioned * 1000 > met.commands, "only {} trades of auctions", met.auctioned);
    let (asked, demanded) = met.swapped;
    assert!(asked > 100 && demanded > 100 && met.rates > 100, "{:?} {}", met.swapped, met.rates);
    let never: Vec<_> = CancelReason::ALL
        .iter()
        .filter(|reason| !met.cancels.contains(&(**reason as u8)))
        .collect();
    assert!(never.is_empty(), "the generator never met cancels for reasons {never:?}");
    assert!(met.reversed * 1000 > met.commands, "only {} trades were reversed", met.reversed);
}

#[test]
fn wide_markets_agree_with_the_model() {
    let met = run(WIDE, 200, 2500, 2);
    assert!(met.trades * 20 > met.commands, "only {} trades", met.trades);
}

#[test]
fn markets_at_the_edges_of_the_arithmetic_agree_with_the_model() {
    let met = run(EDGE, 3000, 300, 3);
    assert!(met.trades * 50 > met.commands, "only {} trades", met.trades);
}
