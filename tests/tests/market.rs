//! What a trader, a tenant or an operator would read about: one behaviour a test.

use vendue_engine::machine::command::{DefineBook, Genesis, Restart};
use vendue_engine::machine::event::{Entitled, Fill, InstanceCreated, SessionRefused};
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{CancelReason, OrderType, Reject, Resource, Role, Side, TimeInForce};
use vendue_wire::message::{
    ANY, ANY_BOOK, Cancel, Cancelled, Deposit, Done, MassCancel, RemoveInstance, Replace, Replaced,
    U32, field_cut,
};

const OPERATOR: u32 = 0;
const EVERYONE: (u64, u64) = (u64::MAX, u64::MAX);
/// Micro-units of a price tick.
const TICK: u64 = 1000;
/// Funds that each account begins with, micro-units.
const FUNDS: u64 = 1_000_000_000;
/// Milli-credits that each instance begins with.
const CREDITS: u64 = 100_000;
/// VRUs reserved for each instance; the burst ceiling is twice that.
const BASELINE: u32 = 10;

fn genesis(maker_fee_bps: u16, taker_fee_bps: u16) -> Genesis {
    Genesis {
        accounts_max: 8.into(),
        orders_max: 128.into(),
        credit_cap_s: 60.into(),
        maker_fee_bps: maker_fee_bps.into(),
        taker_fee_bps: taker_fee_bps.into(),
        ..small_genesis()
    }
}

fn book() -> DefineBook {
    DefineBook {
        capacity_vru: 50.into(),
        tick_micro: TICK.into(),
        price_ticks_max: 1000.into(),
        burst_percent: 200.into(),
        name: field_cut("bronze"),
        ..small_book()
    }
}

/// A room with an operator, three accounts of groups 0, 1, 2 and an instance of each.
fn market_with_fees(maker_fee_bps: u16, taker_fee_bps: u16) -> Room {
    let mut room = Room::new(&genesis(maker_fee_bps, taker_fee_bps), &[book()]);
    assert_eq!(room.open(1, Role::Operator, ANY, false), OPERATOR);
    for at in 0..3_u8 {
        let account = room.account(OPERATOR, &format!("account {at}"), at, EVERYONE);
        room.deposit(OPERATOR, account, FUNDS);
        room.instance(OPERATOR, account, &format!("instance {at}"), [BASELINE, 0, 0, 0, 0]);
        room.grant(OPERATOR, at.into(), CREDITS);
    }
    room
}

fn market() -> Room {
    market_with_fees(0, 0)
}

/// Enters a limit order that must be accepted, and returns its handle.
fn place(room: &mut Room, instance: u32, side: Side, price: u32, quantity: u32) -> u64 {
    let order = room.order(instance, side, price, quantity);
    room.apply(OPERATOR, &order);
    room.handle().unwrap_or_else(|| panic!("refused: {:?}", room.refusal()))
}

fn replace(room: &mut Room, handle: u64, price: u32, quantity: u32) {
    let client_id = room.next_id();
    let (price_ticks, quantity) = (price.into(), quantity.into());
    room.apply(OPERATOR, &Replace { client_id, handle: handle.into(), price_ticks, quantity });
}

/// Maker's instance, price and quantity of each trade that the last command made.
fn fills(room: &Room) -> Vec<(u32, u32, u32)> {
    let row =
        |fill: &Fill| (fill.maker.get().into(), fill.price_ticks.get().into(), fill.quantity.get());
    room.said::<Fill>().iter().map(|(_, fill)| row(fill)).collect()
}

/// Quantity and reason of each cancel that the last command made.
fn cancels(room: &Room) -> Vec<(u32, CancelReason)> {
    let reason = |row: &Cancelled| CancelReason::from_u8(row.reason).expect("a known reason");
    room.said::<Cancelled>().iter().map(|(_, row)| (row.quantity.get(), reason(row))).collect()
}

/// Instance and cap in VRUs of each change that the last command announced.
fn caps(room: &Room) -> Vec<(u32, u64)> {
    let rows = room.said::<Entitled>();
    rows.iter().map(|(_, row)| (row.instance.get(), row.vru.get())).collect()
}

fn free_credits(room: &mut Room, instance: u32) -> u64 {
    room.instance_row(instance).free_millicredits[0].get()
}

#[test]
fn the_better_price_trades_first_then_the_older_order() {
    let mut room = market();
    place(&mut room, 0, Side::Sell, 6, 1);
    place(&mut room, 1, Side::Sell, 5, 2);
    place(&mut room, 0, Side::Sell, 5, 3);
    place(&mut room, 2, Side::Buy, 6, 6);
    assert_eq!(fills(&room), [(1, 5, 2), (0, 5, 3), (0, 6, 1)]);
}

#[test]
fn a_partly_filled_order_rests_with_what_is_left() {
    let mut room = market();
    place(&mut room, 0, Side::Sell, 5, 4);
    place(&mut room, 1, Side::Buy, 5, 10);
    assert_eq!(fills(&room), [(0, 5, 4)]);
    let row = room.account_row(1);
    assert_eq!(row.held_micro.get(), 6 * 5 * TICK, "the rest of the order is held for");
    assert_eq!(row.free_micro.get(), FUNDS - 10 * 5 * TICK);
    place(&mut room, 2, Side::Sell, 5, 7);
    assert_eq!(fills(&room), [(1, 5, 6)]);
    assert_eq!(room.account_row(1).held_micro.get(), 0);
}

#[test]
fn a_post_only_order_that_would_trade_is_refused() {
    let mut room = market();
    place(&mut room, 0, Side::Sell, 5, 4);
    let mut maker = room.order(1, Side::Buy, 5, 1);
    maker.post_only = 1;
    room.apply(OPERATOR, &maker);
    assert_eq!(room.refusal(), Some(Reject::WouldCross));
    let mut maker = room.order(1, Side::Buy, 4, 1);
    maker.post_only = 1;
    room.apply(OPERATOR, &maker);
    assert!(room.handle().is_some() && fills(&room).is_empty());
}

#[test]
fn an_immediate_or_cancel_order_never_rests() {
    let mut room = market();
    place(&mut room, 0, Side::Sell, 5, 4);
    let mut ioc = room.order(1, Side::Buy, 5, 10);
    ioc.time_in_force = TimeInForce::Ioc as u8;
    room.apply(OPERATOR, &ioc);
    assert_eq!(fills(&room), [(0, 5, 4)]);
    assert_eq!(cancels(&room), [(6, CancelReason::Unmatched)]);
    assert_eq!(room.machine.open_orders(), 0);
    assert_eq!(room.account_row(1).held_micro.get(), 0);
}

#[test]
fn a_fill_or_kill_order_trades_whole_or_not_at_all() {
    let mut room = market();
    place(&mut room, 0, Side::Sell, 5, 4);
    place(&mut room, 0, Side::Sell, 6, 4);
    let mut fok = room.order(1, Side::Buy, 6, 9);
    fok.time_in_force = TimeInForce::Fok as u8;
    room.apply(OPERATOR, &fok);
    assert!(fills(&room).is_empty());
    assert_eq!(cancels(&room), [(9, CancelReason::Unmatched)]);
    let mut fok = room.order(1, Side::Buy, 6, 8);
    fok.time_in_force = TimeInForce::Fok as u8;
    room.apply(OPERATOR, &fok);
    assert_eq!(fills(&room), [(0, 5, 4), (0, 6, 4)]);
}

#[test]
fn a_market_buy_pays_the_makers_prices_up_to_its_worst() {
    let mut room = market();
    place(&mut room, 0, Side::Sell, 5, 1);
    place(&mut room, 0, Side::Sell, 7, 1);
    let mut buy = room.order(1, Side::Buy, 6, 3);
    buy.order_type = OrderType::Market as u8;
    room.apply(OPERATOR, &buy);
    assert_eq!(fills(&room), [(0, 5, 1)]);
    assert_eq!(cancels(&room), [(2, CancelReason::Unmatched)]);
    assert_eq!(room.account_row(1).free_micro.get(), FUNDS - 5 * TICK);
}

#[test]
fn a_market_sale_takes_any_price() {
    let mut room = market();
    place(&mut room, 0, Side::Buy, 1, 2);
    let mut sell = room.order(1, Side::Sell, 900, 2);
    sell.order_type = OrderType::Market as u8;
    room.apply(OPERATOR, &sell);
    assert_eq!(fills(&room), [(0, 1, 2)]);
}

#[test]
fn a_dated_order_goes_at_the_first_tick_at_or_after_its_date() {
    let mut room = market();
    let now_ms = room.time_ns / 1_000_000;
    let mut dated = room.order(0, Side::Sell, 5, 4);
    dated.time_in_force = TimeInForce::Gtd as u8;
    dated.expires_at_ms = now_ms.into();
    room.apply(OPERATOR, &dated);
    assert_eq!(room.refusal(), Some(Reject::BadExpiry));
    dated.expires_at_ms = (now_ms + 1500).into();
    room.apply(OPERATOR, &dated);
    room.tick(1499);
    assert_eq!(cancels(&room), []);
    room.tick(1);
    assert_eq!(cancels(&room), [(4, CancelReason::Expired)]);
    assert_eq!(room.instance_row(0).held_millicredits[0].get(), 0);
}

#[test]
fn a_replacement_keeps_its_place_only_if_it_shrinks() {
    for (price, quantity, first) in [(5, 3, 0), (5, 4, 0), (5, 5, 1), (4, 3, 1)] {
        let mut room = market();
        let handle = place(&mut room, 0, Side::Buy, 5, 4);
        place(&mut room, 1, Side::Buy, 5, 4);
        replace(&mut room, handle, price, quantity);
        let replaced: Replaced = room.one();
        assert_eq!(replaced.handle == replaced.old_handle, first == 0);
        place(&mut room, 2, Side::Sell, 4, 1);
        assert_eq!(fills(&room)[0].0, first, "replaced by {quantity} at {price}");
    }
}

#[test]
fn a_refused_replacement_changes_nothing() {
    let mut room = market();
    let handle = place(&mut room, 0, Side::Sell, 5, 90);
    let row = room.instance_row(0);
    replace(&mut room, handle, 5, 101);
    assert_eq!(room.refusal(), Some(Reject::InsufficientCredits));
    replace(&mut room, handle, 1001, 90);
    assert_eq!(room.refusal(), Some(Reject::BadPrice));
    assert_eq!(room.instance_row(0), row);
    place(&mut room, 1, Side::Buy, 5, 90);
    assert_eq!(fills(&room), [(0, 5, 90)]);
}

#[test]
fn a_replacement_may_use_what_the_old_order_held() {
    let mut room = market();
    let handle = place(&mut room, 0, Side::Sell, 5, 100);
    replace(&mut room, handle, 4, 100);
    assert_eq!(room.refusal(), None);
    assert_eq!(room.instance_row(0).held_millicredits[0].get(), CREDITS);
}

#[test]
fn an_order_that_meets_its_own_account_is_cancelled() {
    let mut room = market();
    place(&mut room, 1, Side::Sell, 4, 1);
    place(&mut room, 0, Side::Sell, 5, 4);
    place(&mut room, 0, Side::Buy, 5, 3);
    assert_eq!(fills(&room), [(1, 4, 1)]);
    assert_eq!(cancels(&room), [(2, CancelReason::SelfTrade)]);
    place(&mut room, 2, Side::Buy, 5, 4);
    assert_eq!(fills(&room), [(0, 5, 4)], "the resting order stayed");
}

#[test]
fn an_order_may_cancel_its_own_accounts_resting_orders_instead() {
    let mut room = market();
    place(&mut room, 0, Side::Sell, 4, 4);
    place(&mut room, 1, Side::Sell, 5, 3);
    let mut buy = room.order(0, Side::Buy, 5, 3);
    buy.self_trade = 1;
    room.apply(OPERATOR, &buy);
    assert_eq!(cancels(&room), [(4, CancelReason::SelfTrade)]);
    assert_eq!(fills(&room), [(1, 5, 3)]);
}

#[test]
fn forbidden_counterparties_pass_and_keep_their_place() {
    let mut room = Room::new(&genesis(0, 0), &[book()]);
    room.open(1, Role::Operator, ANY, false);
    // Account 0 does not sell to group 2.
    for (at, masks) in [(0_u8, (!(1 << 2), u64::MAX)), (1, EVERYONE), (2, EVERYONE)] {
        let account = room.account(OPERATOR, &format!("account {at}"), at, masks);
        room.deposit(OPERATOR, account, FUNDS);
        room.instance(OPERATOR, account, &format!("instance {at}"), [BASELINE, 0, 0, 0, 0]);
        room.grant(OPERATOR, at.into(), CREDITS);
    }
    place(&mut room, 0, Side::Sell, 5, 2);
    place(&mut room, 1, Side::Sell, 5, 2);
    place(&mut room, 2, Side::Buy, 5, 1);
    assert_eq!(fills(&room), [(1, 5, 1)], "the older order may not meet group 2");
    let account = room.account(OPERATOR, "account 3", 3, EVERYONE);
    room.deposit(OPERATOR, account, FUNDS);
    room.instance(OPERATOR, account, "instance 3", [0; 5]);
    place(&mut room, 3, Side::Buy, 5, 3);
    assert_eq!(fills(&room), [(0, 5, 2), (1, 5, 1)], "it kept its place");
}

#[test]
fn fees_round_up_once_for_an_order_however_many_its_trades() {
    let mut room = market_with_fees(1, 3);
    place(&mut room, 0, Side::Sell, 1, 3);
    // One tick of notional: 0.1 micro-units for the maker, 0.3 for the taker.
    let fees = |room: &Room| {
        let fill: Fill = room.one();
        (fill.maker_fee_micro.get(), fill.taker_fee_micro.get())
    };
    let mut charged = Vec::new();
    for _ in 0..3 {
        place(&mut room, 1, Side::Buy, 1, 1);
        charged.push(fees(&room));
    }
    assert_eq!(charged.iter().map(|fee| fee.0).sum::<u64>(), 1, "the maker's one order");
    assert!(charged.iter().all(|fee| fee.1 == 1), "each taker's own order: {charged:?}");
    assert_eq!(room.account_row(0).free_micro.get(), FUNDS + 3 * TICK - 1);
    assert_eq!(room.account_row(1).free_micro.get(), FUNDS - 3 * TICK - 3);
    assert_eq!(room.machine.ledger().fees, 4);
}

#[test]
fn a_buyer_needs_the_notional_and_the_highest_fee_at_its_limit() {
    let mut room = market_with_fees(10, 100);
    let notional = 1000 * 1000 * TICK;
    let mut buy = room.order(0, Side::Buy, 1000, 1000);
    buy.client_id = 500.into();
    room.apply(OPERATOR, &buy);
    assert_eq!(room.refusal(), Some(Reject::InsufficientFunds));
    let top_up = Deposit {
        client_id: 501.into(),
        amount_micro: (notional + notional / 100 - FUNDS).into(),
        account: 0.into(),
        reserved: 0.into(),
    };
    room.apply(OPERATOR, &top_up);
    buy.client_id = 502.into();
    room.apply(OPERATOR, &buy);
    assert_eq!(room.refusal(), Some(Reject::InsufficientFunds), "a micro-unit is missing");
    let (client_id, amount_micro) = (503.into(), 1.into());
    room.apply(OPERATOR, &Deposit { client_id, amount_micro, ..top_up });
    buy.client_id = 504.into();
    room.apply(OPERATOR, &buy);
    assert_eq!(room.refusal(), None);
    assert_eq!(room.account_row(0).held_micro.get(), notional + notional / 1000);
}

#[test]
fn a_seller_needs_free_credits() {
    let mut room = market();
    place(&mut room, 0, Side::Sell, 5, 60);
    let more = room.order(0, Side::Sell, 9, 41);
    room.apply(OPERATOR, &more);
    assert_eq!(room.refusal(), Some(Reject::InsufficientCredits));
    place(&mut room, 0, Side::Sell, 9, 40);
    assert_eq!(room.instance_row(0).free_millicredits[0].get(), 0);
}

#[test]
fn a_client_id_counts_once_and_a_refused_request_does_not_use_it_up() {
    let mut room = market();
    let mut sell = room.order(0, Side::Sell, 5, 1000);
    sell.client_id = 900.into();
    room.apply(OPERATOR, &sell);
    assert_eq!(room.refusal(), Some(Reject::InsufficientCredits));
    sell.quantity = 1.into();
    room.apply(OPERATOR, &sell);
    assert_eq!(room.refusal(), None, "the refused request did not use 900 up");
    room.apply(OPERATOR, &sell);
    assert_eq!(room.refusal(), Some(Reject::DuplicateClientId), "the retry is harmless");
    sell.client_id = 899.into();
    room.apply(OPERATOR, &sell);
    assert_eq!(room.refusal(), Some(Reject::DuplicateClientId));
    assert_eq!(room.machine.open_orders(), 1);
}

#[test]
fn a_burst_lasts_while_credits_do_and_starts_again_with_enough_of_them() {
    let mut room = market();
    room.use_credits(0, 0, CREDITS - 1000);
    assert_eq!(caps(&room), [], "one credit is left");
    room.use_credits(0, 0, 1);
    assert_eq!(caps(&room), [(0, BASELINE.into())], "the burst ends below one credit");
    // A second of baseline is needed to start again.
    room.grant(OPERATOR, 0, 9_000);
    assert_eq!(caps(&room), []);
    room.grant(OPERATOR, 0, 1);
    assert_eq!(caps(&room), [(0, 2 * u64::from(BASELINE))]);
}

#[test]
fn a_trade_that_empties_the_seller_and_fills_the_buyer_moves_both_caps() {
    let mut room = market();
    room.use_credits(1, 0, CREDITS);
    place(&mut room, 1, Side::Buy, 5, 100);
    assert_eq!(caps(&room), []);
    place(&mut room, 0, Side::Sell, 5, 100);
    let mut moved = caps(&room);
    moved.sort_unstable();
    assert_eq!(moved, [(0, BASELINE.into()), (1, 2 * u64::from(BASELINE))]);
}

#[test]
fn a_fraction_of_a_credit_that_cannot_be_sold_keeps_no_burst_on() {
    let mut room = market();
    room.use_credits(1, 0, CREDITS);
    room.grant(OPERATOR, 0, 999);
    place(&mut room, 1, Side::Buy, 5, 100);
    place(&mut room, 0, Side::Sell, 5, 100);
    assert_eq!(free_credits(&mut room, 0), 999);
    assert_eq!(room.machine.entitlement(0, Resource::Cpu), Some((BASELINE.into(), 10)));
}

#[test]
fn time_in_which_the_daemon_was_down_earns_nothing() {
    let mut room = market();
    room.tick(0);
    let before = free_credits(&mut room, 0);
    room.time_ns += 3_600 * 1_000_000_000;
    room.daemon(&Restart {});
    room.tick(1000);
    assert_eq!(free_credits(&mut room, 0), before + u64::from(BASELINE) * 1000);
}

#[test]
fn accrual_stops_at_the_cap() {
    let mut room = market();
    room.tick(0);
    room.tick(1000);
    assert_eq!(free_credits(&mut room, 0), CREDITS + u64::from(BASELINE) * 1000);
    room.tick(3_600_000);
    assert_eq!(free_credits(&mut room, 0), u64::from(BASELINE) * 60 * 1000);
    // What is held for an order counts.
    place(&mut room, 0, Side::Sell, 5, 100);
    room.tick(3_600_000);
    assert_eq!(free_credits(&mut room, 0), u64::from(BASELINE) * 60 * 1000 - CREDITS);
    // More than the cap stays, but earns nothing.
    room.grant(OPERATOR, 1, 1_000_000);
    let before = free_credits(&mut room, 1);
    room.tick(1000);
    assert_eq!(free_credits(&mut room, 1), before);
}

#[test]
fn a_removed_instance_leaves_no_orders_and_no_credits() {
    let mut room = market();
    place(&mut room, 0, Side::Sell, 5, 30);
    place(&mut room, 0, Side::Buy, 4, 10);
    let client_id = room.next_id();
    let message = RemoveInstance { client_id, instance: 0.into(), reserved: 0.into() };
    room.apply(OPERATOR, &message);
    let mut gone = cancels(&room);
    gone.sort_unstable();
    let why = CancelReason::InstanceRemoved;
    assert_eq!(gone, [(10, why), (30, why)]);
    assert_eq!(room.machine.instance(0), None);
    assert_eq!(room.account_row(0).free_micro.get(), FUNDS, "its account keeps its funds");
    assert_eq!(room.machine.ledger().house[0].burned, u128::from(CREDITS));
    room.machine.check_conservation();
    // Its number and its reservation are free again; nothing of it is left there.
    room.instance(OPERATOR, 0, "next", [2 * BASELINE + BASELINE, 0, 0, 0, 0]);
    assert_eq!(room.value(), 0);
    assert_eq!(free_credits(&mut room, 0), 0);
}

#[test]
fn baselines_together_never_exceed_the_capacity() {
    let mut room = market();
    room.instance(OPERATOR, 0, "too large", [21, 0, 0, 0, 0]);
    assert_eq!(room.refusal(), Some(Reject::InsufficientCapacity));
    room.instance(OPERATOR, 0, "not sold here", [1, 1, 0, 0, 0]);
    assert_eq!(room.refusal(), Some(Reject::InsufficientCapacity));
    room.instance(OPERATOR, 0, "fits", [20, 0, 0, 0, 0]);
    assert_eq!(room.refusal(), None);
    room.grant(OPERATOR, 3, 1_000_000);
    assert_eq!(caps(&room), [(3, 40)]);
}

#[test]
fn a_burst_ceiling_is_at_most_the_capacity() {
    let mut room = Room::new(&genesis(0, 0), &[book()]);
    room.open(1, Role::Operator, ANY, false);
    room.account(OPERATOR, "account", 0, EVERYONE);
    room.instance(OPERATOR, 0, "instance", [30, 0, 0, 0, 0]);
    room.grant(OPERATOR, 0, 1_000_000);
    assert_eq!(caps(&room), [(0, 50)]);
}

#[test]
fn who_ends_a_session_that_asked_for_it_loses_its_orders() {
    let mut room = market();
    let tenant = room.open(2, Role::Tenant, 1, true);
    place(&mut room, 1, Side::Sell, 5, 7);
    let own = room.order(1, Side::Sell, 5, 3);
    room.apply(tenant, &own);
    room.close(tenant);
    assert_eq!(cancels(&room), [(3, CancelReason::Disconnected)]);
    assert_eq!(room.machine.open_orders(), 1, "the operator's order stays");
}

#[test]
fn nobody_acts_for_another_account() {
    let mut room = market();
    let tenant = room.open(2, Role::Tenant, 1, false);
    let observer = room.open(3, Role::Observer, ANY, false);
    let foreign = place(&mut room, 0, Side::Sell, 5, 7);
    for (session, code) in [(tenant, Reject::UnknownInstance), (observer, Reject::NotPermitted)] {
        let sell = room.order(0, Side::Sell, 5, 7);
        room.apply(session, &sell);
        assert_eq!(room.refusal(), Some(code));
        room.apply(session, &Cancel { handle: foreign.into() });
        assert_eq!(room.refusal(), Some(Reject::UnknownOrder));
        room.deposit(session, 1, 5);
        assert_eq!(room.refusal(), Some(Reject::NotPermitted));
    }
    let own = room.order(1, Side::Buy, 4, 7);
    room.apply(tenant, &own);
    assert_eq!(room.refusal(), None);
}

#[test]
fn a_mass_cancel_reports_every_order_to_who_asked_and_to_who_entered_it() {
    let mut room = market();
    let tenant = room.open(2, Role::Tenant, 1, false);
    let own = room.order(1, Side::Sell, 5, 3);
    room.apply(tenant, &own);
    place(&mut room, 0, Side::Sell, 6, 2);
    let (instance, book) = (U32::new(ANY), ANY_BOOK.into());
    room.apply(OPERATOR, &MassCancel { instance, book, side: 2, reserved: 0 });
    assert_eq!(room.one::<Done>().value.get(), 2);
    let mut told: Vec<_> = room
        .said::<Cancelled>()
        .iter()
        .map(|(target, row)| (*target, row.quantity.get(), row.request.get() > 0))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [(OPERATOR, 2, true), (OPERATOR, 3, true), (tenant, 3, false)]);
}

#[test]
fn session_number_zero_is_refused() {
    let mut room = market();
    room.open(0, Role::Observer, ANY, false);
    let refused: SessionRefused = room.one();
    assert_eq!(Reject::from_u8(refused.code), Some(Reject::BadField));
    assert_eq!(room.machine.connected_sessions().count(), 1);
}

#[test]
fn the_credits_of_a_book_are_bounded_together() {
    let mut room = market();
    let room_left = (1_u64 << 62) - 3 * CREDITS;
    room.grant(OPERATOR, 0, room_left - 10);
    assert_eq!(room.refusal(), None);
    room.grant(OPERATOR, 1, 11);
    assert_eq!(room.refusal(), Some(Reject::Overflow));
    // What accrues is cut to what is left, not refused.
    room.tick(0);
    room.tick(1000);
    let earned = free_credits(&mut room, 1) + free_credits(&mut room, 2) - 2 * CREDITS;
    assert_eq!(earned, 10);
    room.machine.check_conservation();
    // Burned credits make room again.
    room.use_credits(0, 0, 1 << 61);
    room.grant(OPERATOR, 1, 1 << 61);
    assert_eq!(room.refusal(), None);
}

#[test]
fn start_up_says_every_instance_however_few_the_orders() {
    let instances = 1000;
    let bounds = Genesis {
        instances_max: instances.into(),
        orders_max: 1.into(),
        orders_per_instance_max: 1.into(),
        ..genesis(0, 0)
    };
    let books = [0_u8, 1, 2, 3, 4].map(|resource| DefineBook {
        resource,
        capacity_vru: 100_000.into(),
        ..book()
    });
    let mut room = Room::new(&bounds, &books);
    room.open(1, Role::Operator, ANY, false);
    room.account(OPERATOR, "account", 0, EVERYONE);
    for at in 0..instances {
        room.instance(OPERATOR, 0, &format!("instance {at}"), [1; 5]);
    }
    room.out.clear();
    room.machine.announce_all(&mut room.out);
    assert_eq!(room.said::<InstanceCreated>().len(), instances as usize);
    assert_eq!(room.said::<Entitled>().len(), 5 * instances as usize);
}
