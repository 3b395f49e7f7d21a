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
use std::collections::BTreeMap;
use vendue_tests::duel::{
    Bearer, Bounds, EDGE, FEES, Goal, Id, Lie, Met, NARROW, Op, Rent, Size, SwapAct, Swapper,
    TRADED, Terms, TokenAct, WIDE, Which, World, play,
};
use vendue_wire::code::{
    CancelReason, LeaseOutcome, PolicyAct, PolicyReason, Reject, Rescue, SwapReason, SwapState,
    TokenOutcome,
};
use vendue_wire::message::{
    RISK_NEVER, TIER_CHANGE, TIER_DEFINE, TIER_DELETE, TIER_DRAIN, TIER_RESUME,
};

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

/// A book that is traded.
fn book() -> impl Strategy<Value = u8> {
    proptest::sample::select(&TRADED[..])
}

fn terms(world: &World) -> impl Strategy<Value = Terms> + use<> {
    let instances = world.instances_max as u8 + 1;
    let parties = (session(), 0..instances, book(), any::<bool>(), any::<bool>());
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
        1 => (session(), instance.clone(), any::<bool>(), id())
            .prop_map(|(session, instance, frozen, id)| Op::Freeze { session, instance, frozen, id }),
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
    let cancel = (session(), account.clone(), proptest::option::of(book()), 0..3_u8, id());
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
    let gone = instance.clone();
    prop_oneof![
        6 => milliseconds.prop_map(|milliseconds| Op::Tick { milliseconds }),
        4 => (instance, 0..3_u8, size())
            .prop_map(|(instance, resource, amount)| Op::Usage { instance, resource, amount }),
        2 => open.prop_map(|(number, role, account, instance, cancel_on_disconnect)| {
            Op::Open { number, role, account, instance, cancel_on_disconnect }
        }),
        1 => (gone, any::<bool>()).prop_map(|(instance, same)| Op::Perish { instance, same }),
        1 => (any::<u32>(), 0..=16_u8).prop_map(|(number, rows)| Op::Outcomes { number, rows }),
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

fn leases(world: &World) -> impl Strategy<Value = Op> + use<> {
    let operator = || prop_oneof![9 => Just(0_u8), 3 => 0..7_u8];
    let last = world.instances_max as u8;
    let instance = move || prop_oneof![6 => 0..3_u8, 3 => 0..=last];
    let resource = || prop_oneof![8 => Just(0_u8), 3 => Just(1_u8), 1 => 0..5_u8];
    let few = (world.capacity_vru / 4).max(2) as u32;
    let amount =
        move || prop_oneof![12 => 1..8_u32, 4 => 1..=few, 1 => any::<u32>(), 1 => Just(0_u32)];
    let rent = up_to(world.price_max, world.asks.0.min(40));
    let hold = prop_oneof![6 => Just(0_u32), 4 => 1000..4000_u32, 1 => any::<u32>()];
    let expires = prop_oneof![8 => Just(0_u32), 4 => 1..9000_u32];
    let class = || prop_oneof![2 => Just(0_u8), 4 => Just(1_u8), 4 => Just(2_u8)];
    let who = (operator(), instance(), resource(), class());
    let terms = (amount(), proptest::bool::weighted(0.2), rent, hold, expires);
    let storage = proptest::option::weighted(0.2, prop_oneof![9 => 0..2_u8, 1 => 2..5_u8]);
    let bid = (who, terms, (proptest::bool::weighted(0.25), storage), id());
    let rent = up_to(world.price_max, world.asks.0.min(40));
    let change = (operator(), which(), amount(), rent, proptest::bool::weighted(0.4), id());
    let loan = (operator(), instance(), resource(), amount(), proptest::bool::weighted(0.5), id());
    let rent = prop_oneof![30 => 0..3_u32, 1 => 0..=world.price_max, 1 => any::<u32>()];
    let reserve = (operator(), 0..7_u8, class(), rent, id());
    prop_oneof![
        16 => bid.prop_map(|(who, terms, (whole, storage), id)| {
            let (session, instance, resource, class) = who;
            let (amount, percent, rent, hold_ms, expires_ms) = terms;
            let amount = if percent { amount.saturating_mul(50) } else { amount };
            let terms = Rent {
                session, instance, resource, class, amount, percent, rent, hold_ms, expires_ms, whole,
                storage, id,
            };
            Op::Lease(terms)
        }),
        6 => change.prop_map(|(session, which, vru, rent, end, id)| {
            Op::Releases { session, which, vru, rent, end, id }
        }),
        6 => loan.prop_map(|(session, instance, resource, vru, entitles, id)| {
            Op::Loan { session, instance, resource, vru, entitles, id }
        }),
        1 => reserve.prop_map(|(session, book, class, rent, id)| {
            Op::Reserve { session, book, class, rent, id }
        }),
    ]
}

fn forecast(world: &World) -> impl Strategy<Value = Op> + use<> {
    let session = proptest::option::weighted(0.7, prop_oneof![2 => Just(0_u8), 3 => 1..7_u8]);
    let who = (session, 0..=world.instances_max as u8, prop_oneof![5 => Just(0_u8), 1 => 0..5_u8]);
    let ms = (0..4000_u32, prop_oneof![1 => Just(0_u32), 9 => 1..12_000_u32]);
    let vru = prop_oneof![9 => proptest::array::uniform3(0..16_u16), 1 => any::<[u16; 3]>()];
    (who, (0..3_u8, 0..4_u8), ms, vru, id()).prop_map(|(who, of, ms, vru, id)| {
        let (session, instance, resource) = who;
        Op::Forecast { session, instance, resource, of, ms, vru, id }
    })
}

fn event(world: &World) -> impl Strategy<Value = Op> + use<> {
    let session = prop_oneof![4 => Just(0_u8), 3 => 1..7_u8];
    let resource = prop_oneof![6 => Just(0_u8), 1 => 0..5_u8];
    let name = prop_oneof![6 => 0..4_u8, 1 => 0..40_u8];
    let who = (session, 0..=world.instances_max as u8, resource, name);
    let ms = (0..5000_u32, prop_oneof![1 => Just(0_u32), 9 => 1..6000_u32, 1 => any::<u32>()]);
    let days = (prop_oneof![2 => Just(0_u8), 1 => 1..9_u8], 0..12_u8, 0..4_u8);
    let shift = (
        prop_oneof![3 => Just(100_u16), 5 => 0..300_u16, 1 => 9000..10_002_u16],
        prop_oneof![8 => 0..9_u32, 1 => any::<u32>()],
    );
    (who, ms, days, shift, id()).prop_map(|(who, ms, days, shift, id)| {
        let (session, instance, resource, name) = who;
        Op::Event { session, instance, resource, name, ms, days, shift, id }
    })
}

fn trial(world: &World) -> impl Strategy<Value = Op> + use<> {
    let session = prop_oneof![9 => Just(0_u8), 2 => 1..7_u8];
    let some = |range: std::ops::Range<u8>| proptest::option::weighted(0.2, range);
    let of = (some(0..5), some(0..4), prop_oneof![9 => Just(0_u8), 2 => 0..5_u8]);
    let measure = prop_oneof![2 => Just(255_u8), 4 => 0..2_u8, 1 => 2..8_u8];
    let pays = prop_oneof![9 => 0..=world.asks.0.min(world.price_max), 1 => any::<u32>()];
    let arm = (0..3_u8, 0..4_u8, 1..90_000_u32, pays, 0..=world.asks.0.min(world.price_max));
    let arms = proptest::array::uniform2(proptest::option::weighted(0.6, arm));
    let risk = prop_oneof![1 => Just(0_u8), 4 => 1..=100_u8, 2 => Just(RISK_NEVER)];
    let risks = prop_oneof![3 => Just([0, 0]), 2 => [risk.clone(), risk]];
    let rest = (any::<u64>(), 0..90_000_u32, prop_oneof![2 => 0..2_u32, 1 => any::<u32>()]);
    let start = (session.clone(), of, (measure, any::<bool>()), rest, (arms, risks), id());
    let start = start.prop_map(|(session, (account, tier, resource), measure, rest, arms, id)| {
        let ((salt, lasts_ms, harm), (arms, risks)) = (rest, arms);
        Op::Trial {
            session,
            account,
            tier,
            resource,
            measure,
            salt,
            lasts_ms,
            harm,
            arms,
            risks,
            id,
        }
    });
    let stop =
        (session, 0..4_u8, id()).prop_map(|(session, back, id)| Op::EndTrial { session, back, id });
    prop_oneof![3 => start, 2 => stop]
}

fn policy(world: &World) -> impl Strategy<Value = Op> + use<> {
    let session = prop_oneof![6 => Just(0_u8), 3 => 0..7_u8];
    let resource = prop_oneof![8 => Just(0_u8), 1 => Just(1_u8), 1 => 0..5_u8];
    let who = (session, 0..=world.instances_max as u8, resource);
    let of = (prop_oneof![1 => Just(0_u8), 4 => Just(1_u8), 3 => Just(2_u8)], 0..4_u8);
    let funds = (prop_oneof![1 => Just(0_u32), 5 => 1..200_u32, 8 => 200..90_000_u32], 0..9000_u32);
    let price = world.asks.0.min(world.price_max);
    let pays = prop_oneof![
        3 => (Just(0_u32), 1..=price), 6 => (0..=price, 0..=price), 1 => (any::<u32>(), any::<u32>()),
    ];
    let pace = (0..6000_u32, 0..4000_u32, 0..4_u32);
    (who, of, funds, pays, pace, id()).prop_map(|(who, of, funds, pays, pace, id)| {
        let (session, instance, resource) = who;
        Op::Policy { session, instance, resource, of, funds, pays, pace, id }
    })
}

/// Policies, what they read and what they trade.
fn standing(world: &World) -> impl Strategy<Value = Op> + use<> {
    let order = terms(world).prop_map(Op::Order);
    let last = world.instances_max as u8;
    let used = (0..=last, 0..2_u8, 0..30_u32).prop_map(|(instance, resource, amount)| Op::Usage {
        instance,
        resource,
        amount: Size::Thousands(amount),
    });
    let tick = (200..4000_u64).prop_map(|milliseconds| Op::Tick { milliseconds });
    let later = (0..5_400_000_u64).prop_map(|milliseconds| Op::Tick { milliseconds });
    let ask = (0..=last, 1..=world.asks.0.min(world.price_max), 1..9_u32);
    let ask = ask.prop_map(|(instance, price, quantity)| {
        let (session, wild, book, sell) = (0, false, 0, true);
        let (market, time_in_force, post_only, self_trade, id) = (false, 0, true, false, Id::Next);
        let flags = Terms {
            session,
            wild,
            instance,
            book,
            sell,
            market,
            time_in_force,
            post_only,
            self_trade,
            price,
            quantity,
            expires_ms: 0,
            id,
        };
        Op::Order(flags)
    });
    let rent = (proptest::sample::select(&TRADED[..3]), 1..4_u32, 0..3_u8).prop_map(
        |(book, rent, class)| Op::Reserve { session: 0, book, class, rent, id: Id::Next },
    );
    prop_oneof![
        8 => policy(world), 10 => forecast(world), 6 => event(world), 3 => trial(world), 8 => leases(world), 10 => order,
        14 => ask,
        16 => used, 40 => tick, 1 => later, 2 => admin(world), 2 => daemon(world), 3 => rent,
        1 => Just(Op::Snapshot),
    ]
}

/// Objectives and what KPIs are.
fn rescues(world: &World) -> impl Strategy<Value = Op> + use<> {
    let session = || prop_oneof![9 => Just(0_u8), 3 => 0..7_u8];
    let last = world.instances_max as u8;
    let instance = move || prop_oneof![6 => 0..3_u8, 2 => 0..=last];
    let kpi = || prop_oneof![6 => 0..2_u8, 3 => 2..8_u8];
    let resource = prop_oneof![8 => Just(0_u8), 2 => Just(1_u8), 1 => 0..5_u8];
    let class = prop_oneof![1 => Just(0_u8), 4 => Just(1_u8), 4 => Just(2_u8)];
    let at = prop_oneof![12 => Just((60_u32, 40_u32)), 3 => Just((40, 60)), 1 => (0..100_u32, 0..100_u32)];
    let time = || prop_oneof![8 => 1000..3000_u32, 1 => 900..1001_u32, 1 => any::<u32>()];
    let vru = prop_oneof![9 => (1..4_u32, 3..9_u32), 1 => (0..4_u32, any::<u32>())];
    let rent = up_to(world.price_max, world.asks.0.min(40));
    let tick = world.tick_micro;
    let budget = prop_oneof![
        6 => (1..4000_u64).prop_map(move |vru| vru * tick),
        6 => (4000..400_000_u64).prop_map(move |vru| vru * tick),
        1 => any::<u64>(), 1 => Just(0_u64),
    ];
    let window =
        prop_oneof![4 => Just(3600_u32), 6 => 5..60_u32, 1 => any::<u32>(), 1 => Just(0_u32)];
    let who = (session(), instance(), kpi(), resource, class);
    let when = (at, proptest::bool::weighted(0.2), (time(), time()), window);
    let goal = (who, when, (vru, rent, budget), proptest::bool::weighted(0.1), id());
    let goal = goal.prop_map(|(who, when, what, remove, id)| {
        let (session, instance, kpi, resource, class) = who;
        let (at, below, times_ms, window_s) = when;
        let (vru, rent, budget) = what;
        Op::Goal(Goal {
            session,
            instance,
            kpi,
            below,
            resource,
            class,
            at,
            times_ms,
            vru,
            rent,
            budget,
            window_s,
            remove,
            id,
        })
    });
    // Mostly bad: what is not is told now and then.
    let value = prop_oneof![6 => 60..90_u32, 2 => 0..40_u32, 1 => 40..60_u32];
    let session = prop_oneof![3 => session().prop_map(Some), 2 => Just(None)];
    let told = (session, instance(), prop_oneof![6 => Just(0_u8), 4 => 0..8_u8], value);
    let told =
        told.prop_map(|(session, instance, kpi, value)| Op::Kpi { session, instance, kpi, value });
    prop_oneof![2 => goal, 6 => told]
}

/// Mostly rescues.
fn rescuing(world: &World) -> impl Strategy<Value = Op> + use<> {
    let tick = prop_oneof![8 => 200..2000_u64, 1 => 2000..20_000_u64];
    let tick = tick.prop_map(|milliseconds| Op::Tick { milliseconds });
    prop_oneof![
        40 => rescues(world), 24 => tick, 8 => leases(world), 2 => admin(world), 2 => daemon(world),
        1 => tiers(world), 1 => trial(world),
    ]
}

/// Instances that go, with whatever they have.
fn gone() -> impl Strategy<Value = Op> {
    (0..4_u8).prop_map(|instance| Op::Remove { session: 0, instance, id: Id::Next })
}

/// And others in their place.
fn come() -> impl Strategy<Value = Op> {
    (0..4_u8, any::<u8>()).prop_map(|(account, name)| Op::Instance {
        session: 0,
        account,
        tier: 0,
        vru: [1, 1, 0],
        name,
        id: Id::Next,
    })
}

/// What is done with tokens.
fn tokens(world: &World) -> impl Strategy<Value = Op> + use<> {
    let act = prop_oneof![
        5 => Just(TokenAct::Issue), 7 => Just(TokenAct::Redeem), 4 => Just(TokenAct::Split),
        4 => Just(TokenAct::Merge), 2 => Just(TokenAct::Transfer), 1 => Just(TokenAct::Revoke),
    ];
    let session = prop_oneof![9 => Just(0_u8), 4 => 0..7_u8];
    let last = world.instances_max as u8;
    let instance = prop_oneof![3 => Just(None), 2 => (0..=last).prop_map(Some)];
    let party = (prop_oneof![8 => 0..4_u8, 1 => 0..=last], instance);
    let of = (
        prop_oneof![8 => Just(0_u8), 2 => Just(1_u8), 1 => 0..4_u8],
        prop_oneof![8 => Just(0_u8), 2 => Just(1_u8), 1 => 0..5_u8],
    );
    let few = (world.capacity_vru / 4).max(2) as u32;
    // By time where it is none.
    let vru = prop_oneof![6 => 1..4_u32, 4 => 1..=few, 3 => Just(0_u32), 1 => any::<u32>()];
    let window = (0..6_u32, prop_oneof![12 => 1..8_u32, 1 => Just(0_u32)]);
    let window = window.prop_map(|(begins, lasts)| (begins * 500, lasts * 500));
    // Few kinds of marks: tokens that differ cannot be merged.
    let marks = prop_oneof![8 => Just([0_u8, 255, 0]), 1 => (any::<u8>(), 0..8_u8, 0..4_u8).prop_map(|(a, b, c)| [a, b, c])];
    let lie = prop_oneof![
        20 => Just(Lie::None), 1 => Just(Lie::Stale), 1 => Just(Lie::MoreVru), 1 => Just(Lie::Longer),
        1 => Just(Lie::Foreign), 1 => Just(Lie::Invented),
    ];
    let what = (act, any::<(u16, u16)>(), party, of);
    (session, what, (vru, window, marks), lie, id()).prop_map(|(session, what, terms, lie, id)| {
        let (act, which, party, of) = what;
        let (vru, window, marks) = terms;
        let vru = if matches!(act, TokenAct::Issue) { vru.max(1) } else { vru };
        Op::Token(Bearer { session, act, which, party, of, vru, window, marks, lie, id })
    })
}

/// Mostly tokens.
fn reserving(world: &World) -> impl Strategy<Value = Op> + use<> {
    let tick = prop_oneof![9 => 100..900_u64, 1 => 900..9000_u64];
    let tick = tick.prop_map(|milliseconds| Op::Tick { milliseconds });
    prop_oneof![
        2 => gone(), 6 => come(),
        50 => tokens(world), 14 => leases(world), 12 => tick, 5 => tiers(world), 7 => admin(world),
        6 => daemon(world), 4 => forecast(world),
    ]
}

/// What is done with swaps of tokens.
fn swapping_of(world: &World) -> impl Strategy<Value = Op> + use<> {
    let act = prop_oneof![
        6 => Just(SwapAct::Request), 5 => Just(SwapAct::Approve), 2 => Just(SwapAct::Reject),
        1 => Just(SwapAct::Policy),
    ];
    let session = prop_oneof![3 => Just(0_u8), 3 => 0..7_u8];
    let few = (world.capacity_vru / 8).max(2) as u32;
    let vru =
        (prop_oneof![1 => Just(0_u32), 20 => 1..=few], prop_oneof![2 => Just(0), 1 => 1..4_u32]);
    let ms = (prop_oneof![1 => Just(0_u32), 20 => 1..900_u32], 1000..2500_u32, 1000..1500_u32);
    let funds = prop_oneof![4 => 0..50_u32, 1 => any::<u32>()];
    let policy = (
        0..5_u8,
        0..3_u8,
        prop_oneof![Just(0_u8), 0..30_u8],
        prop_oneof![
            8 => Just(u32::MAX), 1 => Just(99_u32),
        ],
    );
    let pays = proptest::option::of(Just(0_u32));
    let lie = prop_oneof![20 => Just(Lie::None), 1 => Just(Lie::Stale), 1 => Just(Lie::Invented)];
    let what = (act, any::<(u16, u16)>(), proptest::bool::weighted(0.1), vru, ms);
    (session, what, funds, (policy, pays), lie, id()).prop_map(
        |(session, what, funds, of, lie, id)| {
            let ((act, which, any, vru, ms), (policy, pays)) = (what, of);
            Op::TokenSwap(Swapper {
                session,
                act,
                which,
                any,
                vru,
                ms,
                funds,
                policy,
                pays,
                lie,
                id,
            })
        },
    )
}

/// Mostly swaps of tokens.
fn swapping(world: &World) -> impl Strategy<Value = Op> + use<> {
    let tick = prop_oneof![9 => 50..600_u64, 1 => 900..4000_u64];
    let tick = tick.prop_map(|milliseconds| Op::Tick { milliseconds });
    // Most tokens can be swapped, and have a profile that is easily missed.
    let token = (tokens(world), 0..10_u8).prop_map(|(op, chance)| match op {
        Op::Token(mut bearer) if chance > 0 => {
            bearer.session = if chance > 1 { 0 } else { bearer.session };
            bearer.marks = [chance % 2, chance % 8 / 7, if chance > 8 { 3 } else { 1 }];
            bearer.window = (if chance > 8 { 500 } else { 0 }, bearer.window.1.max(500) * 4);
            bearer.act = match (bearer.act, chance % 4) {
                (TokenAct::Merge | TokenAct::Split | TokenAct::Transfer, 1..) => TokenAct::Redeem,
                (TokenAct::Redeem, 1) => TokenAct::Issue,
                (act, _) => act,
            };
            if chance > 1 {
                (bearer.party.1, bearer.of) = (None, (0, 0));
                bearer.vru = bearer.vru.clamp(3, 9);
            }
            if matches!(bearer.act, TokenAct::Redeem) {
                bearer.party.1 = Some(u8::MAX);
            }
            Op::Token(bearer)
        }
        other => other,
    });
    let kpi = (
        0..4_u8,
        prop_oneof![5 => Just(0_u8), 1 => 0..3_u8],
        prop_oneof![4 => Just(9_u32), 1 => 0..4_u32],
        any::<bool>(),
    )
        .prop_map(|(instance, kpi, value, said)| {
            let session = said.then_some(0).filter(|_| kpi < 2);
            Op::Kpi { session, instance, kpi, value }
        });
    prop_oneof![
        40 => token, 50 => swapping_of(world), 20 => tick, 70 => kpi, 1 => gone(), 5 => come(),
        3 => admin(world), 2 => daemon(world), 3 => leases(world), 5 => forecast(world),
    ]
}

/// What makes instances such as the manager of swaps looks after: tokens that may be swapped, and accounts
/// that let the daemon ask.
fn lendable(last: u8) -> impl Strategy<Value = Op> {
    let seek = (0..4_u8, proptest::bool::weighted(0.9)).prop_map(|(account, seeks)| {
        Op::TokenSwap(Swapper {
            session: 0,
            act: SwapAct::Policy,
            which: (0, 0),
            any: false,
            vru: (1, 0),
            ms: (0, 0, 0),
            funds: 0,
            policy: (account, 0, 0, u32::MAX),
            pays: seeks.then_some(0),
            lie: Lie::None,
            id: Id::Next,
        })
    });
    let act = prop_oneof![1 => Just(TokenAct::Issue), 3 => Just(TokenAct::Redeem)];
    // Some are not to be swapped, some are sticky.
    let flags = prop_oneof![8 => Just(1_u8), 1 => Just(0_u8), 1 => Just(3_u8)];
    let token = (act, any::<u16>(), 0..=last, 30_000..200_000_u32, flags);
    let token = token.prop_map(|(act, which, party, lasts_ms, flags)| {
        let party = if matches!(act, TokenAct::Issue) { party % 4 } else { party };
        Op::Token(Bearer {
            session: 0,
            act,
            which: (which, 0),
            party: (party, None),
            of: (0, 0),
            vru: 2,
            window: (1, lasts_ms),
            marks: [0, 255, flags],
            lie: Lie::None,
            id: Id::Next,
        })
    });
    prop_oneof![4 => seek, 50 => token]
}

/// Mostly what experiments with swaps need: tokens that may be swapped, accounts that let the daemon ask, and
/// KPIs that are told.
fn comparing(world: &World) -> impl Strategy<Value = Op> + use<> {
    let last = world.made.1 as u8 - 1;
    let goal = (0..=last).prop_map(|instance| {
        Op::Goal(Goal {
            session: 0,
            instance,
            kpi: 0,
            below: false,
            resource: 0,
            class: 1,
            at: (100, 1),
            times_ms: (3_600_000, 3_600_000),
            vru: (1, 1),
            rent: 1,
            budget: 1,
            window_s: 3600,
            remove: false,
            id: Id::Next,
        })
    });
    let told = (0..=last, 0..90_u32);
    let told =
        told.prop_map(|(instance, value)| Op::Kpi { session: Some(0), instance, kpi: 0, value });
    let tick = (100..1500_u64).prop_map(|milliseconds| Op::Tick { milliseconds });
    let trial = trial(world).prop_map(|mut op| match &mut op {
        Op::Trial { session, account, tier, resource, measure, harm, risks, id, .. }
            if *risks != [0; 2] =>
        {
            (*session, *account, *tier, *resource) = (0, None, None, 0);
            (*measure, *harm, *id) = ((0, false), *harm % 20_000, Id::Next);
            op
        }
        Op::EndTrial { .. } => Op::Snapshot,
        _ => op,
    });
    // Boxed: by value all of it would be too much for a thread's stack.
    prop_oneof![
        54 => lendable(last).boxed(), 8 => goal.boxed(), 60 => told.boxed(), 30 => tick.boxed(),
        3 => trial.boxed(), 12 => swapping(world).boxed(), 2 => policy(world).boxed(),
        2 => rescues(world).boxed(),
    ]
}

/// What accounts think of swaps: mostly the daemon may ask.
fn seeking() -> impl Strategy<Value = Op> {
    let answer = prop_oneof![2 => Just(0_u8), 5 => Just(1_u8), 1 => Just(2_u8)];
    let downtime = prop_oneof![9 => Just(u32::MAX), 1 => Just(99_u32)];
    let policy = (0..5_u8, answer, 0..9_u8, downtime);
    let pays =
        prop_oneof![1 => Just(None), 12 => (0..60_u32).prop_map(Some), 1 => Just(Some(u32::MAX))];
    (policy, 0..40_u32, pays).prop_map(|(policy, funds, pays)| {
        let (session, act, lie, id) = (0, SwapAct::Policy, Lie::None, Id::Next);
        let (which, any, vru, ms) = ((0, 0), false, (0, 0), (0, 0, 0));
        Op::TokenSwap(Swapper { session, act, which, any, vru, ms, funds, policy, pays, lie, id })
    })
}

/// Over hours: who will lack VRUs and who has some to spare, which the manager of swaps finds.
fn managing(world: &World) -> impl Strategy<Value = Op> + use<> {
    let last = world.instances_max as u8;
    let cpu = || prop_oneof![30 => Just(0_u8), 1 => 0..4_u8];
    let tick =
        prop_oneof![9 => 1000..50_000_u64, 6 => 50_000..120_000_u64, 1 => 120_000..4_000_000_u64];
    let tick = tick.prop_map(|milliseconds| Op::Tick { milliseconds });
    let amount = prop_oneof![9 => (0..900_u32).prop_map(Size::Thousands), 1 => size()];
    let used = (0..=last, cpu(), amount).prop_map(|(instance, resource, amount)| Op::Usage {
        instance,
        resource,
        amount,
    });
    let need = || prop_oneof![3 => 0..8_u16, 4 => 8..40_u16];
    let ms = (prop_oneof![3 => 0..500_000_u32, 1 => 500_000..900_000_u32], 30_000..6_000_000_u32);
    let of = (0..3_u8, 0..4_u8);
    let forecast = (0..=last, cpu(), of, ms, [need(), need(), need()]).prop_map(
        |(instance, resource, of, ms, vru)| {
            let (session, id) = (Some(0), Id::Next);
            Op::Forecast { session, instance, resource, of, ms, vru, id }
        },
    );
    let shift = (prop_oneof![2 => Just(100_u16), 3 => 0..300_u16], 0..9_u32);
    let ms = (0..900_000_u32, prop_oneof![1 => Just(0_u32), 9 => 1000..900_000_u32]);
    let planned = (0..=last, 0..4_u8, ms, shift).prop_map(|(instance, name, ms, shift)| {
        let (session, resource, days, id) = (0, 0, (0, 0, 0), Id::Next);
        Op::Event { session, instance, resource, name, ms, days, shift, id }
    });
    let token = (tokens(world), 3..10_u32, 1_200_000..14_000_000_u32, 0..20_u8);
    let token = token.prop_map(|(op, vru, lasts_ms, chance)| match op {
        Op::Token(mut bearer) if chance > 1 => {
            bearer.session = 0;
            bearer.act = match bearer.act {
                TokenAct::Split | TokenAct::Merge => TokenAct::Redeem,
                act => act,
            };
            bearer.party.1 = matches!(bearer.act, TokenAct::Redeem).then_some(u8::MAX);
            (bearer.party.0, bearer.of, bearer.vru) = (bearer.party.0 % 5, (0, 0), vru);
            bearer.window = (0, lasts_ms);
            let (eligible, sticky) = (1, if chance > 18 { 2 } else { 0 });
            let profile = if chance > 9 { 1 } else { u8::MAX };
            bearer.marks = [chance % 3, profile, eligible | sticky];
            bearer.lie = Lie::None;
            Op::Token(bearer)
        }
        other => other,
    });
    let people = (swapping_of(world), 60_000..600_000_u32).prop_map(|(op, ms)| match op {
        Op::TokenSwap(mut swapper) if !matches!(swapper.act, SwapAct::Policy) => {
            swapper.ms = (ms, 2 * ms, 3 * ms);
            Op::TokenSwap(swapper)
        }
        other => other,
    });
    let kpi = (0..=last, prop_oneof![6 => Just(9_u32), 1 => Just(0_u32)])
        .prop_map(|(instance, value)| Op::Kpi { session: Some(0), instance, kpi: 0, value });
    let bid = (0..=last, bid()).prop_map(|(instance, bid_milli)| {
        let (session, resource, id) = (0, 0, Id::Next);
        Op::Bid { session, instance, resource, bid_milli, id }
    });
    prop_oneof![
        60 => token, 8 => seeking(), 36 => forecast, 4 => planned, 30 => used, 30 => tick, 14 => people,
        8 => kpi, 6 => bid, 1 => gone(), 3 => come(), 2 => leases(world), 1 => admin(world), 1 => daemon(world),
    ]
}

/// Mostly leases.
fn renting(world: &World) -> impl Strategy<Value = Op> + use<> {
    let order = terms(world).prop_map(Op::Order);
    prop_oneof![
        50 => leases(world), 10 => order, 5 => tiers(world), 8 => admin(world), 14 => daemon(world),
        4 => forecast(world),
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
    let phase = (prop_oneof![9 => Just(0_u8), 1 => 0..7_u8], book(), phase, id());
    let mass = (session(), proptest::option::of(instance), proptest::option::of(book()), 0..3_u8);
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
        8 => leases(world),
        2 => tokens(world),
        4 => rescues(world),
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
    run_of(op(&world), world, cases, length, seed)
}

/// As [`run`], of these operations.
fn run_of(
    op: impl Strategy<Value = Op>,
    world: World,
    cases: u32,
    length: usize,
    seed: u64,
) -> Met {
    let seed = setting("VENDUE_ORACLE_SEED").unwrap_or(seed);
    let cases = setting("VENDUE_ORACLE_CASES").map_or(cases, |cases| cases as u32);
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let met = RefCell::new(Met::default());
    let ops = proptest::collection::vec(op, 1..length);
    let outcome = runner.run(&(0..FEES.len(), ops), |(fees, ops)| {
        play(World { fees_bps: FEES[fees], ..world }, &ops, &met)
    });
    let met = met.into_inner();
    println!("seed {seed}: {} commands, {} trades", met.commands, met.trades);
    println!("{:?} swaps between tiers, {} rates moved", met.swapped, met.rates);
    println!("{} trades of auctions, {} reversed", met.auctioned, met.reversed);
    println!("leases {:?}, rescues {:?}", met.leases, met.rescues);
    println!("lenders paid {} times", met.earned);
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

/// What bids for leases are refused for.
const LEASE_REJECTS: &[Reject] = &[
    Reject::NotPermitted,
    Reject::UnknownInstance,
    Reject::UnknownBook,
    Reject::UnknownLease,
    Reject::BadField,
    Reject::BadPrice,
    Reject::BadQuantity,
    Reject::BadExpiry,
    Reject::InsufficientFunds,
    Reject::LeasesFull,
    Reject::RentTooLow,
    Reject::NotEntitled,
    Reject::TooOften,
    Reject::UnknownTier,
    Reject::OwnTier,
];

#[test]
fn leases_agree_with_the_model_and_meet_every_outcome_and_refusal() {
    let tight = World { capacity_vru: 20, funds: 40_000_000, leases: (14, 25), ..NARROW };
    // Where instances reserve enough to lend some of it.
    let lending = World { capacity_vru: 48, ..tight };
    let worlds = [(tight, 200, 4), (WIDE, 8, 5), (EDGE, 40, 6), (lending, 120, 9)];
    for (world, cases, seed) in worlds {
        let met = run_of(renting(&world), world, cases, 500, seed);
        if world.capacity_vru == lending.capacity_vru {
            assert!(met.earned > 50, "lenders were paid {} times", met.earned);
        }
        if world.capacity_vru == tight.capacity_vru {
            let missing: Vec<_> = LEASE_REJECTS
                .iter()
                .filter(|code| !met.rejects.contains_key(&(**code as u8)))
                .collect();
            assert!(missing.is_empty(), "the generator never met {missing:?}");
            let never: Vec<_> = LeaseOutcome::ALL
                .iter()
                .filter(|outcome| !met.leases.contains_key(&(**outcome as u8)))
                .collect();
            assert!(never.is_empty(), "no lease ever was {never:?}");
            assert!(met.stored > 100, "disks belonged elsewhere only {} times", met.stored);
        }
    }
}

/// What is refused of tokens.
const TOKEN_REJECTS: &[Reject] = &[
    Reject::NotPermitted,
    Reject::DuplicateClientId,
    Reject::UnknownAccount,
    Reject::UnknownInstance,
    Reject::UnknownTier,
    Reject::UnknownBook,
    Reject::UnknownToken,
    Reject::BadQuantity,
    Reject::BadExpiry,
    Reject::InsufficientCapacity,
    Reject::WrongTier,
    Reject::WrongTierState,
    Reject::TokenForged,
    Reject::TokenStale,
    Reject::TokenNotOpen,
    Reject::TokenRedeemed,
    Reject::TokensDiffer,
    Reject::TokenBound,
];

#[test]
fn tokens_agree_with_the_model_and_meet_every_outcome_and_refusal() {
    let tight = World { capacity_vru: 30, funds: 40_000_000, leases: (14, 25), ..NARROW };
    for (world, cases, seed) in [(tight, 120, 9), (WIDE, 6, 10), (EDGE, 20, 11)] {
        let met = run_of(reserving(&world), world, cases, 500, seed);
        println!("tokens {:?}", met.tokens);
        if world.capacity_vru == tight.capacity_vru {
            let met_code = |code: &&Reject| met.rejects.contains_key(&(**code as u8));
            let missing: Vec<_> = TOKEN_REJECTS.iter().filter(|code| !met_code(code)).collect();
            assert!(missing.is_empty(), "the generator never met {missing:?}");
            let few = |outcome: &&TokenOutcome| {
                // Swaps have a test of their own.
                **outcome != TokenOutcome::Swapped
                    && met.tokens.get(&(**outcome as u8)).is_none_or(|&count| count < 10)
            };
            let few: Vec<_> = TokenOutcome::ALL.iter().filter(few).collect();
            assert!(few.is_empty(), "tokens were hardly ever {few:?}: {:?}", met.tokens);
        }
    }
}

/// What is refused of swaps of tokens.
const SWAP_REJECTS: &[Reject] = &[
    Reject::NotPermitted,
    Reject::DuplicateClientId,
    Reject::UnknownAccount,
    Reject::UnknownToken,
    Reject::TokenStale,
    Reject::BadQuantity,
    Reject::BadExpiry,
    Reject::InsufficientFunds,
    Reject::TokensDiffer,
    Reject::UnknownSwap,
    Reject::SwapSettled,
    Reject::NotSwapEligible,
    Reject::TokenSticky,
    Reject::TokenInSwap,
    Reject::BeyondWindow,
    Reject::DowntimeTooLong,
    Reject::NoSource,
];

#[test]
fn swaps_agree_with_the_model_and_meet_every_outcome_and_refusal() {
    let tight = World { capacity_vru: 40, funds: 40_000_000, leases: (14, 25), ..NARROW };
    for (world, cases, seed) in [(tight, 250, 21), (WIDE, 6, 22), (EDGE, 20, 23)] {
        let met = run_of(swapping(&world), world, cases, 700, seed);
        println!("swaps {:?}", met.token_swaps);
        if world.capacity_vru != tight.capacity_vru {
            continue;
        }
        let met_code = |code: &&Reject| met.rejects.contains_key(&(**code as u8));
        let missing: Vec<_> = SWAP_REJECTS.iter().filter(|code| !met_code(code)).collect();
        assert!(missing.is_empty(), "the generator never met {missing:?}");
        let few = |count: u64| count < 5;
        let states = SwapState::ALL.iter().filter(|&&state| {
            let of = met.token_swaps.iter().filter(|(key, _)| key.0 == state as u8);
            few(of.map(|(_, count)| count).sum())
        });
        let states: Vec<_> = states.collect();
        assert!(states.is_empty(), "swaps were hardly ever {states:?}: {:?}", met.token_swaps);
        let reasons = SwapReason::ALL.iter().filter(|&&reason| {
            let of = met.token_swaps.iter().filter(|(key, _)| key.1 == reason as u8);
            // The manager has a test of its own.
            reason != SwapReason::Forecast && few(of.map(|(_, count)| count).sum())
        });
        let reasons: Vec<_> = reasons.collect();
        assert!(reasons.is_empty(), "hardly ever for {reasons:?}: {:?}", met.token_swaps);
    }
}

#[test]
fn experiments_with_swaps_agree_with_the_model() {
    let roomy = World { capacity_vru: 200, instances_max: 16, made: (4, 14), ..NARROW };
    let roomy = World { swap_every_ms: 20_000, ..roomy };
    let met = run_of(comparing(&roomy), roomy, 100, 900, 24);
    println!("measured {:?}", met.samples);
    // Enough for an interval.
    assert!(met.samples[1] >= 4, "too few instances were measured: {:?}", met.samples);
}

#[test]
fn the_manager_of_swaps_agrees_with_the_model_and_its_swaps_come_to_everything() {
    let many = World { capacity_vru: 400, accounts_max: 6, instances_max: 20, ..NARROW };
    let many = World { made: (5, 18), funds: 40_000_000, swap_every_ms: 20_000, ..many };
    let met = run_of(managing(&many), many, 90, 700, 31);
    println!("swaps {:?}, by the manager {:?}", met.token_swaps, met.managed);
    let of = |state: SwapState| met.managed.get(&(state as u8)).copied().unwrap_or(0);
    assert!(of(SwapState::Proposed) > 250, "it proposed {}", of(SwapState::Proposed));
    // Who asks for no boost gets none, and nobody else takes back what the daemon asked for.
    let few = |state: &&SwapState| {
        !matches!(state, SwapState::Boosting | SwapState::Withdrawn) && of(**state) < 5
    };
    let few: Vec<_> = SwapState::ALL.iter().filter(few).collect();
    assert!(few.is_empty(), "its swaps were hardly ever {few:?}: {:?}", met.managed);
}

/// What objectives and reports are refused for.
const RESCUE_REJECTS: &[Reject] = &[
    Reject::NotPermitted,
    Reject::UnknownInstance,
    Reject::UnknownBook,
    Reject::UnknownObjective,
    Reject::BadField,
    Reject::BadPrice,
    Reject::BadQuantity,
    Reject::LeaseOfRescue,
];

#[test]
fn rescues_agree_with_the_model_and_meet_every_outcome_and_refusal() {
    let tight = World { capacity_vru: 40, funds: 40_000_000, leases: (14, 25), ..NARROW };
    for (world, cases, seed) in [(tight, 120, 7), (EDGE, 10, 8)] {
        let met = run_of(rescuing(&world), world, cases, 500, seed);
        if world.capacity_vru == tight.capacity_vru {
            let met_code = |code: &&Reject| met.rejects.contains_key(&(**code as u8));
            let missing: Vec<_> = RESCUE_REJECTS.iter().filter(|code| !met_code(code)).collect();
            assert!(missing.is_empty(), "the generator never met {missing:?}");
            let never: Vec<_> = Rescue::ALL
                .iter()
                .filter(|outcome| !met.rescues.contains_key(&(**outcome as u8)))
                .collect();
            assert!(never.is_empty(), "no objective ever was {never:?}");
        }
    }
}

#[test]
fn policies_agree_with_the_model_and_do_everything_for_every_reason() {
    let wide = World { capacity_vru: 30, funds: 900_000_000, leases: (20, 10), ..NARROW };
    let wide = World { burst_percent: 900, credit_cap_s: 60, ..wide };
    let mut did = BTreeMap::new();
    for (world, cases, seed) in [(wide, 300, 7), (WIDE, 4, 8)] {
        let met = run_of(standing(&world), world, cases, 400, seed);
        met.policies.into_iter().for_each(|(key, count)| *did.entry(key).or_insert(0) += count);
    }
    let acts = |act: PolicyAct| did.keys().any(|key| key.0 == act as u8);
    let whys = |why: PolicyReason| did.keys().any(|key| key.1 == why as u8);
    let missing: Vec<_> = PolicyAct::ALL.iter().filter(|act| !acts(**act)).collect();
    assert!(missing.is_empty(), "no policy ever did {missing:?}: {did:?}");
    let missing: Vec<_> = PolicyReason::ALL.iter().filter(|why| !whys(**why)).collect();
    assert!(missing.is_empty(), "no policy ever acted for {missing:?}: {did:?}");
}

#[test]
fn narrow_markets_agree_with_the_model_and_meet_every_refusal() {
    let met = run(NARROW, 1200, 600, 1);
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
    assert!(met.reversed * 3000 > met.commands, "only {} trades were reversed", met.reversed);
}

#[test]
fn wide_markets_agree_with_the_model() {
    let met = run(WIDE, 80, 2500, 2);
    assert!(met.trades * 20 > met.commands, "only {} trades", met.trades);
}

#[test]
fn markets_at_the_edges_of_the_arithmetic_agree_with_the_model() {
    let met = run(EDGE, 500, 300, 3);
    assert!(met.trades * 50 > met.commands, "only {} trades", met.trades);
}
