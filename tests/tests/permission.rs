//! Permission: who may meet whom. Orders that may not meet pass one another without losing their
//! place, so that among those that may, price and then time decide, exactly.

use std::collections::BTreeMap;
use vendue_engine::machine::command::{DefineBook, Genesis};
use vendue_engine::machine::event::Fill;
use vendue_tests::chance::Chance;
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{CancelReason, Role, Side};
use vendue_wire::message::{
    ANY, Cancel, Cancelled, Deposit, GrantCredits, Replace, Replaced, SetLimits, UNLIMITED,
    field_cut,
};

const OPERATOR: u32 = 0;
const ACCOUNTS: u32 = 24;

fn room() -> Room {
    let genesis = Genesis {
        accounts_max: ACCOUNTS.into(),
        instances_max: ACCOUNTS.into(),
        orders_max: 4096.into(),
        orders_per_instance_max: 4096.into(),
        sessions_max: 2.into(),
        credit_cap_s: 60.into(),
        reversible_trades: 16.into(),
        maker_fee_bps: 5.into(),
        taker_fee_bps: 10.into(),
        ..small_genesis()
    };
    let book = DefineBook {
        capacity_vru: 1000.into(),
        tick_micro: 10.into(),
        burst_percent: 200.into(),
        name: field_cut("bronze"),
        ..small_book()
    };
    let mut room = Room::new(&genesis, &[book]);
    assert_eq!(room.open(1, Role::Operator, ANY, false), OPERATOR);
    for at in 0..ACCOUNTS {
        let account = room.account(OPERATOR, &format!("account {at}"), 0, (0, 0));
        room.instance(OPERATOR, account, &format!("instance {at}"), [1, 0, 0, 0, 0]);
        let (client_id, amount_micro) = (room.next_id(), (1 << 50).into());
        let account = account.into();
        room.apply(OPERATOR, &Deposit { client_id, amount_micro, account, reserved: 0.into() });
        let mut grant = GrantCredits::zeroed();
        grant.client_id = room.next_id();
        (grant.instance, grant.amount_millicredits) = (at.into(), (1 << 50).into());
        room.apply(OPERATOR, &grant);
    }
    room
}

/// Whom an account may trade with.
#[derive(Clone, Copy, Debug)]
struct Whom {
    group: u8,
    sells_to: u64,
    buys_from: u64,
    opted_in: bool,
}

impl Whom {
    /// A few groups, so that many may meet and many may not.
    fn any(chance: &mut Chance) -> Whom {
        Whom {
            group: [0, 1, 2, 31, 62, 63][chance.below(6) as usize],
            sells_to: chance.draw() | chance.draw(),
            buys_from: chance.draw() | chance.draw(),
            opted_in: chance.below(8) > 0,
        }
    }

    fn sells_to(&self, buyer: &Whom) -> bool {
        let listed = |mask: u64, group: u8| mask & 1 << group != 0;
        let both_in = self.opted_in && buyer.opted_in;
        both_in && listed(self.sells_to, buyer.group) && listed(buyer.buys_from, self.group)
    }
}

/// A resting order, as simply as one can be thought of.
#[derive(Clone, Copy, Debug)]
struct Resting {
    handle: u64,
    account: u32,
    side: Side,
    price: u32,
    quantity: u32,
    /// When it took its place.
    place: u64,
}

/// The market: every resting order in one list, and who may meet whom.
struct Naive {
    resting: Vec<Resting>,
    whom: Vec<Whom>,
    places: u64,
}

impl Naive {
    /// What an order that comes in trades: handle and credits of each maker, in order. Its rest
    /// stays, unless it met its own account: the second part.
    fn enter(&mut self, mut order: Resting) -> (Vec<(u64, u32)>, bool) {
        self.places += 1;
        order.place = self.places;
        let worse = |resting: &Resting| match order.side {
            Side::Buy => (resting.price, resting.place),
            Side::Sell => (1000 - resting.price, resting.place),
        };
        let mut facing: Vec<Resting> = self
            .resting
            .iter()
            .filter(|resting| resting.side != order.side)
            .filter(|resting| match order.side {
                Side::Buy => resting.price <= order.price,
                Side::Sell => resting.price >= order.price,
            })
            .copied()
            .collect();
        facing.sort_by_key(worse);
        let mut trades = Vec::new();
        for maker in facing {
            if order.quantity == 0 {
                break;
            }
            if maker.account == order.account {
                return (trades, true);
            }
            let [ours, theirs] = [order, maker].map(|it| self.whom[it.account as usize]);
            let may = match order.side {
                Side::Buy => theirs.sells_to(&ours),
                Side::Sell => ours.sells_to(&theirs),
            };
            if may {
                let quantity = order.quantity.min(maker.quantity);
                order.quantity -= quantity;
                self.shrink(maker.handle, maker.quantity - quantity);
                trades.push((maker.handle, quantity));
            }
        }
        if order.quantity > 0 {
            self.resting.push(order);
        }
        (trades, false)
    }

    fn shrink(&mut self, handle: u64, quantity: u32) {
        for resting in self.resting.iter_mut().filter(|resting| resting.handle == handle) {
            resting.quantity = quantity;
        }
        self.resting.retain(|resting| resting.quantity > 0);
    }
}

/// Changes whom an account may trade with, on both sides.
fn allow(room: &mut Room, naive: &mut Naive, account: u32, whom: Whom) {
    let message = SetLimits {
        client_id: room.next_id(),
        sells_to: whom.sells_to.into(),
        buys_from: whom.buys_from.into(),
        sell_max_credits: UNLIMITED.into(),
        buy_max_credits: UNLIMITED.into(),
        order_max_micro: UNLIMITED.into(),
        position_max_credits: UNLIMITED.into(),
        account: account.into(),
        group: whom.group,
        opted_in: whom.opted_in.into(),
        reserved: [0; 2],
    };
    room.apply(OPERATOR, &message);
    assert_eq!(room.value(), 0, "changing whom one meets cancels nothing");
    naive.whom[account as usize] = whom;
}

/// Maker's handle and credits of each trade of the last command.
fn fills(room: &Room) -> Vec<(u64, u32)> {
    let row = |fill: &Fill| (fill.maker_handle.get(), fill.quantity.get());
    room.said::<Fill>().iter().map(|(_, fill)| row(fill)).collect()
}

/// True if the last command's rest went because it met its own account.
fn met_itself(room: &Room) -> bool {
    let cancelled = room.said::<Cancelled>();
    assert!(cancelled.iter().all(|(_, row)| row.reason == CancelReason::SelfTrade as u8));
    !cancelled.is_empty()
}

#[test]
fn among_orders_that_may_meet_price_and_then_time_decide_exactly() {
    let (mut passed, mut traded, mut itself) = (0, 0, 0);
    for seed in 0..6 {
        let mut chance = Chance::new(seed);
        let mut room = room();
        let whom = (0..ACCOUNTS).map(|_| Whom::any(&mut chance)).collect::<Vec<_>>();
        let mut naive = Naive { resting: Vec::new(), whom: whom.clone(), places: 0 };
        for (account, whom) in (0..ACCOUNTS).zip(whom) {
            allow(&mut room, &mut naive, account, whom);
        }
        for _ in 0..3000 {
            let account = chance.below(ACCOUNTS.into()) as u32;
            let side = if chance.below(2) == 0 { Side::Buy } else { Side::Sell };
            let (price, quantity) = (1 + chance.below(12) as u32, 1 + chance.below(30) as u32);
            let resting = chance.below(naive.resting.len().max(1) as u64) as usize;
            let open = naive.resting.get(resting).copied();
            let order = Resting { handle: 0, account, side, price, quantity, place: 0 };
            let (order, old) = match (chance.below(20), open) {
                (0, _) => {
                    allow(&mut room, &mut naive, account, Whom::any(&mut chance));
                    continue;
                }
                (1 | 2, Some(open)) => {
                    room.apply(OPERATOR, &Cancel { handle: open.handle.into() });
                    naive.shrink(open.handle, 0);
                    continue;
                }
                (3, Some(open)) => {
                    // The same price and less of it: it keeps its place.
                    let quantity = 1 + open.quantity / 2;
                    replace(&mut room, open.handle, open.price, quantity);
                    naive.shrink(open.handle, quantity);
                    assert!(fills(&room).is_empty());
                    continue;
                }
                (4, Some(open)) if open.price != price => {
                    replace(&mut room, open.handle, price, quantity);
                    (Resting { price, quantity, ..open }, Some(open.handle))
                }
                _ => {
                    let message = room.order(account, side, price, quantity);
                    room.apply(OPERATOR, &message);
                    (order, None)
                }
            };
            old.into_iter().for_each(|handle| naive.shrink(handle, 0));
            let replaced = room.said::<Replaced>().first().map(|(_, row)| row.handle.get());
            let handle = replaced.or(room.handle()).expect("every order is let in");
            let order = Resting { handle, ..order };
            let best = naive.resting.iter().filter(|it| it.side != order.side);
            let crossed = best.filter(|it| match order.side {
                Side::Buy => it.price <= order.price,
                Side::Sell => it.price >= order.price,
            });
            let crossed = crossed.count();
            let (expected, stopped) = naive.enter(order);
            assert_eq!(fills(&room), expected, "seed {seed}: {order:?}");
            assert_eq!(met_itself(&room), stopped, "seed {seed}: {order:?}");
            traded += expected.len();
            passed += usize::from(crossed > expected.len());
            itself += usize::from(stopped);
        }
        assert_eq!(room.machine.open_orders() as usize, naive.resting.len());
        room.machine.check_conservation();
    }
    assert!(traded > 3000 && passed > 3000 && itself > 100, "{traded}, {passed}, {itself}");
}

fn replace(room: &mut Room, handle: u64, price: u32, quantity: u32) {
    let (client_id, handle) = (room.next_id(), handle.into());
    let (price_ticks, quantity) = (price.into(), quantity.into());
    room.apply(OPERATOR, &Replace { client_id, handle, price_ticks, quantity });
}

/// However many strangers go by, and however often, an order's place is its own.
#[test]
fn an_order_that_strangers_pass_keeps_its_place() {
    let mut room = room();
    let open = Whom { group: 0, sells_to: u64::MAX, buys_from: u64::MAX, opted_in: true };
    let mut naive = Naive { resting: Vec::new(), whom: vec![open; 24], places: 0 };
    for account in 0..4 {
        allow(&mut room, &mut naive, account, open);
    }
    // Account 3 is a stranger to 0, who came first, but not to 1 and 2.
    allow(&mut room, &mut naive, 0, Whom { group: 1, ..open });
    allow(&mut room, &mut naive, 3, Whom { group: 3, buys_from: !2, ..open });
    let mut handles = BTreeMap::new();
    for account in [0, 1, 2] {
        let order = room.order(account, Side::Sell, 10, 5);
        room.apply(OPERATOR, &order);
        handles.insert(account, room.handle().expect("let in"));
    }
    for _ in 0..3 {
        let order = room.order(3, Side::Buy, 10, 1);
        room.apply(OPERATOR, &order);
        assert_eq!(fills(&room), [(handles[&1], 1)], "the stranger passes the oldest");
    }
    allow(&mut room, &mut naive, 3, open);
    let order = room.order(3, Side::Buy, 10, 12);
    room.apply(OPERATOR, &order);
    assert_eq!(fills(&room), [(handles[&0], 5), (handles[&1], 2), (handles[&2], 5)]);
}
