//! What a trader or an operator would read about phases and auctions: one behaviour a test.

use vendue_engine::machine::command::{DefineBook, Genesis};
use vendue_engine::machine::event::{AuctionTrade, Fill, Indicative, PhaseChanged, Uncrossed};
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{OrderType, Phase, Reject, Role, Side, TimeInForce};
use vendue_wire::message::{
    ANY, BookRow, Cancel, Cancelled, Done, QueryBooks, Replace, Replaced, SetPhase, field_cut,
};

const OPERATOR: u32 = 0;
const EVERYONE: (u64, u64) = (u64::MAX, u64::MAX);
/// Micro-units of a price tick.
const TICK: u64 = 1000;
const FUNDS: u64 = 1_000_000_000;
/// Milli-credits that each instance begins with.
const CREDITS: u64 = 1_000_000;
const SCHEDULED: u8 = 3;

/// A room with an operator, four accounts of groups 0 to 3, an instance of each, and one book.
/// Account 3 trades with group 0 only.
fn market(schedule: (u32, u32), maker_fee_bps: u16) -> Room {
    let genesis = Genesis {
        accounts_max: 8.into(),
        orders_max: 256.into(),
        orders_per_instance_max: 64.into(),
        credit_cap_s: 60.into(),
        maker_fee_bps: maker_fee_bps.into(),
        taker_fee_bps: 50.into(),
        ..small_genesis()
    };
    let book = DefineBook {
        tick_micro: TICK.into(),
        burst_percent: 200.into(),
        auction_every_ms: schedule.0.into(),
        call_ms: schedule.1.into(),
        name: field_cut("bronze"),
        ..small_book()
    };
    let mut room = Room::new(&genesis, &[book]);
    assert_eq!(room.open(1, Role::Operator, ANY, false), OPERATOR);
    for at in 0..4_u8 {
        let masks = if at == 3 { (1, 1) } else { EVERYONE };
        let account = room.account(OPERATOR, &format!("account {at}"), at, masks);
        room.deposit(OPERATOR, account, FUNDS);
        room.instance(OPERATOR, account, &format!("instance {at}"), [10, 0, 0, 0, 0]);
        room.grant(OPERATOR, at.into(), CREDITS);
    }
    room
}

/// A market without fees whose book is in call.
fn call() -> Room {
    let mut room = market((0, 0), 0);
    set(&mut room, Phase::Call as u8);
    room
}

fn set(room: &mut Room, phase: u8) {
    let client_id = room.next_id();
    let message = SetPhase { client_id, book: 0.into(), phase, reserved: [0; 5] };
    room.apply(OPERATOR, &message);
}

/// Enters a limit order that must rest without trading.
fn rest(room: &mut Room, instance: u32, side: Side, price: u32, quantity: u32) -> u64 {
    let order = room.order(instance, side, price, quantity);
    room.apply(OPERATOR, &order);
    assert!(room.said::<Fill>().is_empty(), "it traded");
    room.handle().unwrap_or_else(|| panic!("refused: {:?}", room.refusal()))
}

/// Seller's instance, buyer's instance, price and credits of each trade of the last command.
fn trades(room: &Room) -> Vec<(u16, u16, u16, u32)> {
    let row = |trade: &AuctionTrade| {
        (trade.seller.get(), trade.buyer.get(), trade.price_ticks.get(), trade.quantity.get())
    };
    room.said::<AuctionTrade>().iter().map(|(_, trade)| row(trade)).collect()
}

fn book(room: &mut Room) -> BookRow {
    room.apply(ANY, &QueryBooks { from: 0.into() });
    room.one::<BookRow>()
}

#[test]
fn a_call_gathers_and_its_auction_trades_all_at_one_price() {
    let mut room = call();
    rest(&mut room, 0, Side::Sell, 8, 10);
    rest(&mut room, 1, Side::Buy, 12, 6);
    rest(&mut room, 1, Side::Buy, 9, 10);
    rest(&mut room, 2, Side::Sell, 9, 2);
    let row = book(&mut room);
    assert_eq!((row.bid_ticks.get(), row.ask_ticks.get()), (12, 8), "a crossed book shows");
    set(&mut room, Phase::Continuous as u8);
    assert_eq!(trades(&room), [(0, 1, 9, 6), (0, 1, 9, 4), (2, 1, 9, 2)]);
    let over = room.one::<Uncrossed>();
    assert_eq!((over.price_ticks.get(), over.volume.get(), over.trades.get()), (9, 12, 3));
    assert_eq!(over.imbalance.get(), 4, "four more were wanted at 9");
    assert_eq!(room.one::<Done>().value.get(), Phase::Continuous as u64);
    // What was held for a price of 12 is free again; what still rests is held for.
    let buyer = room.account_row(1);
    assert_eq!(buyer.held_micro.get(), 4 * 9 * TICK);
    assert_eq!(buyer.free_micro.get(), FUNDS - 16 * 9 * TICK);
    assert_eq!(room.account_row(0).free_micro.get(), FUNDS + 10 * 9 * TICK);
    assert_eq!(room.instance_row(1).free_millicredits[0].get(), CREDITS + 12_000);
    let row = book(&mut room);
    assert_eq!((row.last_ticks.get(), row.trades.get(), row.volume.get()), (9, 3, 12));
    assert_eq!((row.bid_ticks.get(), row.ask_ticks.get(), row.orders.get()), (9, 0, 1));
}

#[test]
fn both_parties_of_an_auction_pay_the_makers_fee_at_its_price() {
    // 1% as maker, 0.5% as taker.
    let mut room = market((0, 0), 100);
    set(&mut room, Phase::Call as u8);
    rest(&mut room, 1, Side::Buy, 20, 3);
    rest(&mut room, 0, Side::Sell, 10, 3);
    set(&mut room, Phase::Continuous as u8);
    // No last price: the middle.
    assert_eq!(trades(&room), [(0, 1, 15, 3)]);
    let (notional, fee) = (45 * TICK, 450);
    assert_eq!(room.account_row(1).free_micro.get(), FUNDS - notional - fee);
    assert_eq!(room.account_row(1).held_micro.get(), 0);
    assert_eq!(room.account_row(0).free_micro.get(), FUNDS + notional - fee);
    assert_eq!(room.machine.ledger().fees, 2 * fee);
}

/// The rule for the price, case by case: `(bids, asks, last)` and what comes of it.
#[test]
fn the_price_trades_most_then_leaves_least_then_is_nearest_the_last() {
    type Levels = &'static [(u32, u32)];
    let cases: [(Levels, Levels, u32, u32, &str); 11] = [
        (&[(10, 5)], &[(6, 5)], 0, 8, "no last price: the middle"),
        (&[(10, 5)], &[(7, 5)], 0, 8, "the middle, rounded down"),
        (&[(10, 5)], &[(6, 5)], 50, 10, "the last price is above"),
        (&[(10, 5)], &[(6, 5)], 2, 6, "the last price is below"),
        (&[(10, 5)], &[(6, 5)], 7, 7, "the last price itself"),
        (&[(10, 5), (8, 9)], &[(6, 9)], 50, 8, "most volume before all else"),
        (&[(10, 5), (8, 1)], &[(6, 5)], 2, 9, "least imbalance: not where more is wanted"),
        (&[(10, 5)], &[(6, 5), (8, 1)], 50, 7, "least imbalance: not where more is offered"),
        (&[(10, 5), (8, 2)], &[(6, 5), (9, 1)], 2, 9, "both sides add: the lesser"),
        (&[(10, 5), (8, 1)], &[(6, 5), (9, 2)], 50, 8, "both sides add: the lesser, other side"),
        (&[(10, 5), (8, 1)], &[(6, 5), (9, 1)], 50, 10, "both add as much: nearest the last"),
    ];
    for (bids, asks, last, price, what) in cases {
        let mut room = market((0, 0), 0);
        if last > 0 {
            rest(&mut room, 0, Side::Sell, last, 1);
            let take = room.order(1, Side::Buy, last, 1);
            room.apply(OPERATOR, &take);
        }
        set(&mut room, Phase::Call as u8);
        for &(price, quantity) in bids {
            rest(&mut room, 1, Side::Buy, price, quantity);
        }
        for &(price, quantity) in asks {
            rest(&mut room, 0, Side::Sell, price, quantity);
        }
        room.tick(1);
        assert_eq!(room.one::<Indicative>().price_ticks.get(), price, "said before: {what}");
        assert_eq!(book(&mut room).indicative_ticks.get(), price, "{what}");
        set(&mut room, Phase::Continuous as u8);
        assert_eq!(room.one::<Uncrossed>().price_ticks.get(), price as u16, "{what}");
        assert_eq!(room.one::<Indicative>().price_ticks.get(), 0, "nothing is said to cross");
    }
}

#[test]
fn at_the_margin_the_better_price_trades_first_then_the_older_order() {
    let mut room = call();
    rest(&mut room, 0, Side::Buy, 10, 4);
    rest(&mut room, 1, Side::Buy, 10, 4);
    rest(&mut room, 1, Side::Buy, 11, 1);
    let later = rest(&mut room, 0, Side::Buy, 10, 1);
    rest(&mut room, 2, Side::Sell, 5, 7);
    set(&mut room, Phase::Continuous as u8);
    assert_eq!(trades(&room), [(2, 1, 7, 1), (2, 0, 7, 4), (2, 1, 7, 2)]);
    room.apply(OPERATOR, &Cancel { handle: later.into() });
    assert_eq!(room.one::<Cancelled>().quantity.get(), 1, "the latest got nothing");
}

#[test]
fn who_may_not_meet_pass_one_another_and_keep_their_places() {
    let mut room = call();
    // Account 3 trades with account 0 only; account 2's orders are its own.
    rest(&mut room, 3, Side::Sell, 5, 7);
    rest(&mut room, 2, Side::Sell, 6, 4);
    rest(&mut room, 1, Side::Sell, 6, 4);
    rest(&mut room, 2, Side::Buy, 9, 5);
    rest(&mut room, 1, Side::Buy, 8, 6);
    set(&mut room, Phase::Continuous as u8);
    // Account 2 passes accounts 3's and its own offers; account 1 passes account 3's.
    assert_eq!(trades(&room), [(1, 2, 7, 4), (2, 1, 7, 4)]);
    // The one that was passed over is still the first.
    let take = room.order(0, Side::Buy, 9, 2);
    room.apply(OPERATOR, &take);
    let fill = room.one::<Fill>();
    assert_eq!((fill.maker.get(), fill.price_ticks.get(), fill.quantity.get()), (3, 5, 2));
    room.machine.check_conservation();
}

#[test]
fn orders_that_may_never_meet_hold_an_auction_without_trades() {
    let mut room = call();
    rest(&mut room, 1, Side::Sell, 5, 7);
    rest(&mut room, 1, Side::Buy, 9, 7);
    rest(&mut room, 3, Side::Buy, 8, 7);
    set(&mut room, Phase::Continuous as u8);
    let over = room.one::<Uncrossed>();
    assert_eq!((over.trades.get(), over.volume.get()), (0, 0));
    let row = book(&mut room);
    assert_eq!((row.last_ticks.get(), row.orders.get()), (0, 3), "all stay");
}

#[test]
fn a_call_takes_what_may_rest_and_refuses_the_rest() {
    let mut room = call();
    let handle = rest(&mut room, 0, Side::Sell, 8, 10);
    for (order_type, time_in_force) in [
        (OrderType::Market, TimeInForce::Ioc),
        (OrderType::Market, TimeInForce::Gtc),
        (OrderType::Limit, TimeInForce::Ioc),
        (OrderType::Limit, TimeInForce::Fok),
    ] {
        let mut order = room.order(1, Side::Buy, 9, 1);
        (order.order_type, order.time_in_force) = (order_type as u8, time_in_force as u8);
        room.apply(OPERATOR, &order);
        assert_eq!(room.refusal(), Some(Reject::BookInCall), "{order_type} {time_in_force}");
    }
    let mut post_only = room.order(1, Side::Buy, 9, 1);
    post_only.post_only = 1;
    room.apply(OPERATOR, &post_only);
    assert!(room.handle().is_some(), "nothing trades at once");
    let client_id = room.next_id();
    let (price_ticks, quantity) = (7.into(), 3.into());
    room.apply(OPERATOR, &Replace { client_id, handle: handle.into(), price_ticks, quantity });
    let replaced = room.one::<Replaced>().handle;
    assert!(room.said::<Fill>().is_empty());
    room.apply(OPERATOR, &Cancel { handle: replaced });
    assert_eq!(room.one::<Cancelled>().quantity.get(), 3);
}

#[test]
fn a_halted_book_only_lets_go() {
    let mut room = market((0, 0), 0);
    let handle = rest(&mut room, 0, Side::Sell, 8, 10);
    let mut dated = room.order(1, Side::Buy, 3, 1);
    (dated.time_in_force, dated.expires_at_ms) = (TimeInForce::Gtd as u8, 1050.into());
    room.apply(OPERATOR, &dated);
    set(&mut room, Phase::Halted as u8);
    assert_eq!(room.one::<PhaseChanged>().phase, Phase::Halted as u8);
    let order = room.order(1, Side::Buy, 9, 1);
    room.apply(OPERATOR, &order);
    assert_eq!(room.refusal(), Some(Reject::BookHalted));
    let client_id = room.next_id();
    let (price_ticks, quantity) = (8.into(), 3.into());
    room.apply(OPERATOR, &Replace { client_id, handle: handle.into(), price_ticks, quantity });
    assert_eq!(room.refusal(), Some(Reject::BookHalted));
    room.tick(100);
    assert_eq!(room.said::<Cancelled>().len(), 1, "dates pass all the same");
    room.apply(OPERATOR, &Cancel { handle: handle.into() });
    assert_eq!(room.one::<Cancelled>().quantity.get(), 10);
}

#[test]
fn a_book_halted_amid_a_call_holds_its_auction_when_it_is_resumed() {
    let mut room = call();
    rest(&mut room, 0, Side::Sell, 8, 1);
    rest(&mut room, 1, Side::Buy, 8, 1);
    set(&mut room, Phase::Halted as u8);
    assert!(trades(&room).is_empty());
    room.tick(10_000);
    assert!(trades(&room).is_empty());
    set(&mut room, SCHEDULED);
    assert_eq!(trades(&room), [(0, 1, 8, 1)]);
    assert_eq!(room.one::<Done>().value.get(), Phase::Continuous as u64, "it has no schedule");
}

#[test]
fn a_schedule_calls_and_holds_auctions_as_time_passes() {
    let mut room = market((1000, 300), 0);
    // Time begins at 1,000 ms.
    room.tick(100);
    assert_eq!(book(&mut room).next_phase_ms.get(), 1700);
    rest(&mut room, 0, Side::Sell, 8, 4);
    let take = room.order(1, Side::Buy, 8, 1);
    room.apply(OPERATOR, &take);
    assert_eq!(room.said::<Fill>().len(), 1, "continuous at first");
    room.tick(600);
    assert_eq!(room.one::<PhaseChanged>().phase, Phase::Call as u8);
    rest(&mut room, 1, Side::Buy, 9, 1);
    room.tick(299);
    assert_eq!(room.one::<Indicative>().volume.get(), 1);
    room.tick(1);
    assert_eq!(trades(&room), [(0, 1, 8, 1)]);
    assert_eq!(room.one::<PhaseChanged>().phase, Phase::Continuous as u8);
    // An operator's word stands until it is taken back.
    set(&mut room, Phase::Halted as u8);
    room.tick(700);
    let row = book(&mut room);
    assert_eq!((row.phase, row.scheduled), (Phase::Halted as u8, 0));
    set(&mut room, SCHEDULED);
    let row = book(&mut room);
    assert_eq!((row.phase, row.scheduled), (Phase::Call as u8, 1));
    assert_eq!(row.next_phase_ms.get(), 3000);
}

#[test]
fn a_book_that_is_always_in_call_goes_on_with_the_next_one() {
    let mut room = market((500, 500), 0);
    room.tick(1);
    for round in 0..3 {
        rest(&mut room, 0, Side::Sell, 8, 1);
        rest(&mut room, 1, Side::Buy, 8, 1);
        room.tick(if round == 0 { 499 } else { 500 });
        assert_eq!(trades(&room), [(0, 1, 8, 1)]);
        assert!(room.said::<PhaseChanged>().is_empty());
    }
}

#[test]
fn only_operators_change_phases() {
    let mut room = market((0, 0), 0);
    let tenant = room.open(2, Role::Tenant, 1, false);
    let client_id = room.next_id();
    let message = SetPhase { client_id, book: 0.into(), phase: 2, reserved: [0; 5] };
    room.apply(tenant, &message);
    assert_eq!(room.refusal(), Some(Reject::NotPermitted));
    room.apply(OPERATOR, &SetPhase { client_id: room.next_id(), book: 1.into(), ..message });
    assert_eq!(room.refusal(), Some(Reject::UnknownBook));
    assert_eq!(book(&mut room).phase, Phase::Continuous as u8);
}

/// Accounts of every group with masks of their own, each on both sides: no pair that may meet at
/// the price is left, whatever passed whom.
#[test]
fn no_two_orders_that_may_meet_at_the_price_are_left() {
    let mut chance = vendue_tests::chance::Chance::new(11);
    for _ in 0..40 {
        let mut room = market((0, 0), 0);
        for at in 4..8_u8 {
            let masks = (chance.below(256), chance.below(256));
            let account = room.account(OPERATOR, &format!("account {at}"), at % 5, masks);
            room.deposit(OPERATOR, account, FUNDS);
            room.instance(OPERATOR, account, &format!("instance {at}"), [10, 0, 0, 0, 0]);
            room.grant(OPERATOR, at.into(), CREDITS);
        }
        set(&mut room, Phase::Call as u8);
        let mut open = Vec::new();
        for _ in 0..120 {
            let instance = chance.below(8) as u32;
            let side = if chance.below(2) == 0 { Side::Buy } else { Side::Sell };
            let (price, quantity) = (1 + chance.below(20) as u32, 1 + chance.below(9) as u32);
            let handle = rest(&mut room, instance, side, price, quantity);
            open.push((handle, instance as usize, side, price, quantity));
        }
        set(&mut room, Phase::Continuous as u8);
        let price = u32::from(room.one::<Uncrossed>().price_ticks.get());
        for (_, trade) in room.said::<AuctionTrade>() {
            for (handle, left) in [
                (trade.seller_handle.get(), trade.seller_remaining.get()),
                (trade.buyer_handle.get(), trade.buyer_remaining.get()),
            ] {
                open.iter_mut().filter(|row| row.0 == handle).for_each(|row| row.4 = left);
            }
        }
        let rows: Vec<_> = (0..8).map(|at| room.account_row(at)).collect();
        for buyer in open.iter().filter(|row| row.2 == Side::Buy && row.3 >= price && row.4 > 0) {
            for seller in open.iter().filter(|row| row.2 == Side::Sell && row.3 <= price) {
                let (a, b) = (&rows[seller.1], &rows[buyer.1]);
                let may = seller.1 != buyer.1
                    && a.sells_to.get() >> b.group & 1 == 1
                    && b.buys_from.get() >> a.group & 1 == 1;
                assert!(!may || seller.4 == 0, "{buyer:?} was left beside {seller:?} at {price}");
            }
        }
        room.machine.check_conservation();
    }
}
