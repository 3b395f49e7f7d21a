//! Limits of accounts, and what operators do about others' orders and trades.

use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{DefineBook, Genesis};
use vendue_engine::machine::event::{AuctionTrade, Fill, TradeReversed};
use vendue_tests::market::unlimited;
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::code::{CancelReason, OrderType, Phase, Reject, Role, Side, TimeInForce};
use vendue_wire::message::{
    ANY, ANY_BOOK, AccountLimitsRow, Cancel, CancelAccount, Cancelled, Deposit, NewOrder,
    QueryAccounts, RemoveInstance, Replace, ReverseTrade, SetLimits, SetPhase, Withdraw, field_cut,
};

const OPERATOR: u32 = 0;
/// Micro-units of a price tick.
const TICK: u64 = 100;
/// Milliseconds of a window.
const WINDOW_MS: u64 = 10_000;
const EVERYONE: (u64, u64) = (u64::MAX, u64::MAX);

fn room() -> Room {
    let genesis = Genesis {
        accounts_max: 8.into(),
        orders_max: 128.into(),
        orders_per_instance_max: 64.into(),
        sessions_max: 3.into(),
        credit_cap_s: 60.into(),
        burst_resume_ms: 1_000_000.into(),
        limit_window_s: ((WINDOW_MS / 1000) as u32).into(),
        reversible_trades: 3.into(),
        maker_fee_bps: 30.into(),
        taker_fee_bps: 70.into(),
        ..small_genesis()
    };
    let book = DefineBook {
        capacity_vru: 1000.into(),
        tick_micro: TICK.into(),
        burst_percent: 200.into(),
        name: field_cut("bronze"),
        ..small_book()
    };
    let mut room = Room::new(&genesis, &[book]);
    assert_eq!(room.open(1, Role::Operator, ANY, false), OPERATOR);
    for at in 0..3 {
        let account = room.account(OPERATOR, &format!("account {at}"), 0, EVERYONE);
        room.instance(OPERATOR, account, &format!("instance {at}"), [0; 5]);
        let (client_id, amount_micro) = (room.next_id(), 100_000_000.into());
        let account = account.into();
        room.apply(OPERATOR, &Deposit { client_id, amount_micro, account, reserved: 0.into() });
        room.grant(OPERATOR, at, 500_000);
    }
    room
}

/// Sets limits and returns how many orders went.
fn limit(room: &mut Room, limits: SetLimits) -> u64 {
    let client_id = room.next_id();
    room.apply(OPERATOR, &SetLimits { client_id, ..limits });
    room.value()
}

fn enter(room: &mut Room, instance: u32, side: Side, price: u32, quantity: u32) -> Option<Reject> {
    let order = room.order(instance, side, price, quantity);
    room.apply(OPERATOR, &order);
    room.refusal()
}

fn limits_row(room: &mut Room, account: u32) -> AccountLimitsRow {
    room.apply(ANY, &QueryAccounts { from: account.into() });
    let rows = room.said::<AccountLimitsRow>();
    rows.iter().find(|(_, row)| row.account == account).expect("the account has limits").1
}

fn reverse(room: &mut Room, trade: u64) -> Option<Reject> {
    let client_id = room.next_id();
    room.apply(OPERATOR, &ReverseTrade { client_id, trade: trade.into() });
    room.refusal()
}

fn set_phase(room: &mut Room, phase: Phase) {
    let client_id = room.next_id();
    let message = SetPhase { client_id, book: 0.into(), phase: phase as u8, reserved: [0; 5] };
    room.apply(OPERATOR, &message);
}

#[test]
fn what_is_open_and_what_was_sold_share_a_windows_limit() {
    let mut room = room();
    limit(&mut room, SetLimits { sell_max_credits: 100.into(), ..unlimited(0) });
    assert_eq!(enter(&mut room, 0, Side::Sell, 10, 101), Some(Reject::WindowLimit));
    assert_eq!(enter(&mut room, 0, Side::Sell, 10, 70), None);
    let resting = room.handle().unwrap();
    assert_eq!(enter(&mut room, 0, Side::Sell, 11, 31), Some(Reject::WindowLimit));
    assert_eq!(enter(&mut room, 0, Side::Sell, 11, 30), None);
    // Buying is another matter, and so are other accounts.
    assert_eq!(enter(&mut room, 0, Side::Buy, 1, 500), None);
    assert_eq!(enter(&mut room, 1, Side::Sell, 12, 400), None);
    // As a maker it sells 40; nothing becomes free by that.
    assert_eq!(enter(&mut room, 2, Side::Buy, 10, 40), None);
    assert_eq!(enter(&mut room, 0, Side::Sell, 11, 1), Some(Reject::WindowLimit));
    let row = limits_row(&mut room, 0);
    assert_eq!((row.sold_credits.get(), row.offered_credits.get()), (40, 60));
    assert_eq!((row.bought_credits.get(), row.wanted_credits.get()), (0, 500));
    // What is cancelled may be offered again; as a taker it sells 20 of it.
    room.apply(OPERATOR, &Cancel { handle: resting.into() });
    assert_eq!(enter(&mut room, 2, Side::Buy, 9, 20), None);
    assert_eq!(enter(&mut room, 0, Side::Sell, 9, 30), None);
    assert_eq!(room.said::<Fill>().len(), 1);
    assert_eq!(enter(&mut room, 0, Side::Sell, 11, 1), Some(Reject::WindowLimit));
    let row = limits_row(&mut room, 0);
    assert_eq!((row.sold_credits.get(), row.offered_credits.get()), (60, 40));
    // A new window begins with nothing sold; what is open still counts.
    let left_ms = WINDOW_MS - room.time_ns / 1_000_000 % WINDOW_MS;
    room.tick(left_ms - 1);
    assert_eq!(enter(&mut room, 0, Side::Sell, 11, 1), Some(Reject::WindowLimit));
    room.tick(1);
    assert_eq!(enter(&mut room, 0, Side::Sell, 11, 61), Some(Reject::WindowLimit));
    assert_eq!(enter(&mut room, 0, Side::Sell, 11, 60), None);
    room.machine.check_conservation();
}

#[test]
fn replacements_and_orders_that_do_not_rest_count_what_is_left_of_them() {
    let mut room = room();
    limit(&mut room, SetLimits { buy_max_credits: 50.into(), ..unlimited(0) });
    assert_eq!(enter(&mut room, 0, Side::Buy, 5, 50), None);
    let replace = |room: &mut Room, handle: u64, price: u32, quantity: u32| {
        let (client_id, handle) = (room.next_id(), handle.into());
        let (price_ticks, quantity) = (price.into(), quantity.into());
        room.apply(OPERATOR, &Replace { client_id, handle, price_ticks, quantity });
        room.refusal()
    };
    let handle = room.handle().unwrap();
    assert_eq!(replace(&mut room, handle, 5, 51), Some(Reject::WindowLimit));
    // Smaller at its place, then as large as before at another price.
    assert_eq!(replace(&mut room, handle, 5, 20), None);
    assert_eq!(limits_row(&mut room, 0).wanted_credits.get(), 20);
    assert_eq!(replace(&mut room, handle, 6, 50), None);
    assert_eq!(limits_row(&mut room, 0).wanted_credits.get(), 50);
    room.apply(OPERATOR, &CancelAccount { side: 2, ..of_account(&room, 0) });
    // Immediate-or-cancel: what found nobody is free again.
    assert_eq!(enter(&mut room, 1, Side::Sell, 5, 10), None);
    let order = room.order(0, Side::Buy, 5, 50);
    room.apply(OPERATOR, &NewOrder { time_in_force: TimeInForce::Ioc as u8, ..order });
    let row = limits_row(&mut room, 0);
    assert_eq!((row.bought_credits.get(), row.wanted_credits.get()), (10, 0));
    assert_eq!(enter(&mut room, 0, Side::Buy, 5, 40), None);
}

fn of_account(room: &Room, account: u32) -> CancelAccount {
    CancelAccount {
        client_id: room.next_id(),
        account: account.into(),
        book: ANY_BOOK.into(),
        side: 2,
        reserved: 0,
    }
}

#[test]
fn an_auction_counts_for_both_sides() {
    let mut room = room();
    limit(&mut room, SetLimits { sell_max_credits: 30.into(), ..unlimited(0) });
    limit(&mut room, SetLimits { buy_max_credits: 30.into(), ..unlimited(1) });
    set_phase(&mut room, Phase::Call);
    assert_eq!(enter(&mut room, 0, Side::Sell, 8, 30), None);
    assert_eq!(enter(&mut room, 1, Side::Buy, 12, 20), None);
    set_phase(&mut room, Phase::Continuous);
    assert_eq!(room.said::<AuctionTrade>().len(), 1);
    let row = limits_row(&mut room, 0);
    assert_eq!((row.sold_credits.get(), row.offered_credits.get()), (20, 10));
    let row = limits_row(&mut room, 1);
    assert_eq!((row.bought_credits.get(), row.wanted_credits.get()), (20, 0));
}

#[test]
fn a_narrower_window_cancels_what_no_longer_fits_it() {
    let mut room = room();
    assert_eq!(enter(&mut room, 0, Side::Sell, 10, 60), None);
    assert_eq!(enter(&mut room, 0, Side::Sell, 11, 20), None);
    assert_eq!(enter(&mut room, 0, Side::Buy, 1, 90), None);
    let narrow = SetLimits { sell_max_credits: 79.into(), ..unlimited(0) };
    assert_eq!(limit(&mut room, SetLimits { sell_max_credits: 80.into(), ..narrow }), 0);
    assert_eq!(limit(&mut room, narrow), 2, "both that sell, and not the one that buys");
    let cancelled = room.said::<Cancelled>();
    let reasons: Vec<u8> = cancelled.iter().map(|(_, row)| row.reason).collect();
    assert_eq!(reasons, [CancelReason::LimitsChanged as u8; 2]);
    assert_eq!(limits_row(&mut room, 0).wanted_credits.get(), 90);
    // Without limits nothing is counted, nor shown.
    limit(&mut room, unlimited(0));
    room.apply(ANY, &QueryAccounts { from: 0.into() });
    assert!(room.said::<AccountLimitsRow>().is_empty());
    assert_eq!(enter(&mut room, 0, Side::Sell, 11, 400), None);
}

#[test]
fn an_order_is_worth_no_more_than_its_account_may_spend_on_one() {
    let mut room = room();
    limit(&mut room, SetLimits { order_max_micro: (50 * TICK).into(), ..unlimited(0) });
    assert_eq!(enter(&mut room, 0, Side::Buy, 5, 11), Some(Reject::OrderValueLimit));
    assert_eq!(enter(&mut room, 0, Side::Buy, 5, 10), None);
    assert_eq!(enter(&mut room, 0, Side::Sell, 6, 9), Some(Reject::OrderValueLimit));
    // A sale at any price is worth what the best buyer pays.
    assert_eq!(enter(&mut room, 1, Side::Buy, 25, 10), None);
    let order = room.order(0, Side::Sell, 1, 3);
    let order = NewOrder { order_type: OrderType::Market as u8, ..order };
    room.apply(OPERATOR, &NewOrder { time_in_force: TimeInForce::Ioc as u8, ..order });
    assert_eq!(room.refusal(), Some(Reject::OrderValueLimit));
    assert_eq!(enter(&mut room, 0, Side::Sell, 1, 2), None);
}

#[test]
fn a_position_counts_credits_and_open_buys() {
    let mut room = room();
    // It has 500 credits.
    limit(&mut room, SetLimits { position_max_credits: 520.into(), ..unlimited(0) });
    assert_eq!(enter(&mut room, 0, Side::Buy, 5, 21), Some(Reject::PositionLimit));
    assert_eq!(enter(&mut room, 0, Side::Buy, 5, 15), None);
    assert_eq!(enter(&mut room, 0, Side::Buy, 5, 6), Some(Reject::PositionLimit));
    assert_eq!(enter(&mut room, 1, Side::Sell, 5, 15), None);
    assert_eq!(room.said::<Fill>().len(), 1);
    assert_eq!(enter(&mut room, 0, Side::Buy, 5, 6), Some(Reject::PositionLimit));
    // Who sells may buy again.
    assert_eq!(enter(&mut room, 1, Side::Buy, 4, 30), None);
    assert_eq!(enter(&mut room, 0, Side::Sell, 4, 30), None);
    assert_eq!(enter(&mut room, 0, Side::Buy, 3, 35), None);
    assert_eq!(enter(&mut room, 0, Side::Buy, 3, 1), Some(Reject::PositionLimit));
}

#[test]
fn who_has_not_opted_in_meets_nobody() {
    let mut room = room();
    limit(&mut room, SetLimits { opted_in: 0, ..unlimited(0) });
    let row = room.account_row(0);
    assert_eq!((row.opted_in, row.sells_to.get()), (0, u64::MAX), "its masks are kept");
    assert_eq!(enter(&mut room, 0, Side::Sell, 5, 10), None);
    assert_eq!(enter(&mut room, 1, Side::Buy, 5, 10), None);
    assert!(room.said::<Fill>().is_empty());
    limit(&mut room, unlimited(0));
    assert_eq!(enter(&mut room, 2, Side::Buy, 5, 4), None);
    assert_eq!(room.said::<Fill>().len(), 1);
}

#[test]
fn an_operator_cancels_anybodys_orders() {
    let mut room = room();
    let tenant = room.open(7, Role::Tenant, 0, false);
    let order = room.order(0, Side::Sell, 5, 10);
    room.apply(tenant, &order);
    let handle = room.handle().unwrap();
    room.apply(OPERATOR, &Cancel { handle: handle.into() });
    let told: Vec<u32> = room.said::<Cancelled>().iter().map(|(to, _)| *to).collect();
    assert_eq!(told, [tenant, OPERATOR], "both are told");
    for (side, price) in [(Side::Sell, 5), (Side::Sell, 6), (Side::Buy, 1)] {
        assert_eq!(enter(&mut room, 0, side, price, 10), None);
        assert_eq!(enter(&mut room, 1, side, price, 10), None);
    }
    let message = CancelAccount { side: Side::Sell as u8, ..of_account(&room, 0) };
    room.apply(tenant, &message);
    assert_eq!(room.refusal(), Some(Reject::NotPermitted));
    let message = CancelAccount { side: Side::Sell as u8, ..of_account(&room, 0) };
    room.apply(OPERATOR, &message);
    assert_eq!(room.value(), 2);
    assert_eq!(room.machine.open_orders(), 4, "one of its own and the other account's");
    let message = CancelAccount { book: 1.into(), ..of_account(&room, 0) };
    room.apply(OPERATOR, &message);
    assert_eq!(room.refusal(), Some(Reject::UnknownBook));
}

/// Every balance, and the house's fees.
fn balances(machine: &Machine) -> Vec<u64> {
    let ledger = machine.ledger();
    let pockets = ledger.funds().iter().chain(ledger.credits());
    let all = pockets.flat_map(|pocket| [pocket.balance.free, pocket.balance.held]);
    all.chain([ledger.fees, ledger.funds_issued]).collect()
}

#[test]
fn a_reversed_trade_leaves_no_trace_in_the_ledger_and_reverses_once() {
    let mut room = room();
    let before = balances(&room.machine);
    assert_eq!(enter(&mut room, 0, Side::Sell, 7, 33), None);
    assert_eq!(enter(&mut room, 1, Side::Buy, 9, 33), None);
    assert_ne!(balances(&room.machine), before);
    assert_eq!(reverse(&mut room, 1), None);
    let said = room.one::<TradeReversed>();
    assert_eq!((said.seller.get(), said.buyer.get(), said.price_ticks.get()), (0, 1, 7));
    assert_eq!(u32::from(said.seller_session.get()), OPERATOR);
    assert_eq!(balances(&room.machine), before, "to the last micro-unit, fees too");
    assert_eq!(reverse(&mut room, 1), Some(Reject::AlreadyReversed));
    assert_eq!(reverse(&mut room, 2), Some(Reject::UnknownTrade));
    assert_eq!(reverse(&mut room, 0), Some(Reject::UnknownTrade));
    room.machine.check_conservation();
    let restored = Machine::decode(&room.machine.encode()).expect("a state");
    assert_eq!(restored.encode(), room.machine.encode());
    room.machine = restored;
    assert_eq!(reverse(&mut room, 1), Some(Reject::AlreadyReversed), "also after a restart");
}

#[test]
fn a_trade_of_an_auction_reverses_at_the_auctions_price() {
    let mut room = room();
    set_phase(&mut room, Phase::Call);
    let before = balances(&room.machine);
    assert_eq!(enter(&mut room, 2, Side::Sell, 8, 30), None);
    assert_eq!(enter(&mut room, 1, Side::Buy, 12, 30), None);
    set_phase(&mut room, Phase::Continuous);
    assert_eq!(room.one::<AuctionTrade>().price_ticks.get(), 10);
    assert_eq!(reverse(&mut room, 1), None);
    assert_eq!(balances(&room.machine), before);
}

#[test]
fn what_is_gone_cannot_be_given_back_and_then_nothing_changes() {
    let mut room = room();
    // The buyer sells what it bought, and all it had.
    assert_eq!(enter(&mut room, 0, Side::Sell, 7, 10), None);
    assert_eq!(enter(&mut room, 1, Side::Buy, 7, 10), None);
    assert_eq!(enter(&mut room, 1, Side::Sell, 50, 501), None);
    let before = balances(&room.machine);
    assert_eq!(reverse(&mut room, 1), Some(Reject::InsufficientCredits));
    assert_eq!(balances(&room.machine), before);
    let message = of_account(&room, 1);
    room.apply(OPERATOR, &message);
    // The seller has spent what it got.
    let free = room.machine.ledger().funds()[0].balance.free;
    let (client_id, amount_micro, account) = (room.next_id(), free.into(), 0.into());
    room.apply(OPERATOR, &Withdraw { client_id, amount_micro, account, reserved: 0.into() });
    let before = balances(&room.machine);
    assert_eq!(reverse(&mut room, 1), Some(Reject::InsufficientFunds));
    assert_eq!(balances(&room.machine), before);
    room.deposit(OPERATOR, 0, free);
    assert_eq!(reverse(&mut room, 1), None);
}

#[test]
fn old_trades_and_those_of_removed_instances_stand() {
    let mut room = room();
    for _ in 0..4 {
        assert_eq!(enter(&mut room, 0, Side::Sell, 7, 1), None);
        assert_eq!(enter(&mut room, 1, Side::Buy, 7, 1), None);
    }
    assert_eq!(reverse(&mut room, 1), Some(Reject::UnknownTrade), "only three are remembered");
    assert_eq!(reverse(&mut room, 2), None);
    let client_id = room.next_id();
    let (instance, reserved) = (1.into(), 0.into());
    room.apply(OPERATOR, &RemoveInstance { client_id, instance, reserved });
    // The number is another's from now on.
    room.instance(OPERATOR, 2, "another", [0; 5]);
    assert_eq!(room.value(), 1);
    room.grant(OPERATOR, 1, 500_000);
    assert_eq!(reverse(&mut room, 3), Some(Reject::UnknownInstance));
    assert_eq!(reverse(&mut room, 2), Some(Reject::AlreadyReversed));
}

#[test]
fn who_takes_a_sessions_place_learns_nothing_of_its_trades() {
    let mut room = room();
    let seller = room.open(7, Role::Tenant, 0, false);
    let order = room.order(0, Side::Sell, 7, 5);
    room.apply(seller, &order);
    assert_eq!(enter(&mut room, 1, Side::Buy, 7, 5), None);
    room.close(seller);
    room.open(8, Role::Tenant, 2, false);
    assert_eq!(room.open(9, Role::Tenant, 2, false), seller, "the slot is given to another");
    assert_eq!(reverse(&mut room, 1), None);
    let said = room.one::<TradeReversed>();
    assert_eq!((said.seller_session.get(), u32::from(said.buyer_session.get())), (u16::MAX, 0));
}

#[test]
fn only_operators_set_limits_and_reverse_trades() {
    let mut room = room();
    assert_eq!(enter(&mut room, 0, Side::Sell, 7, 1), None);
    assert_eq!(enter(&mut room, 1, Side::Buy, 7, 1), None);
    let tenant = room.open(7, Role::Tenant, 0, false);
    let client_id = room.next_id();
    room.apply(tenant, &SetLimits { client_id, ..unlimited(0) });
    assert_eq!(room.refusal(), Some(Reject::NotPermitted));
    room.apply(tenant, &ReverseTrade { client_id, trade: 1.into() });
    assert_eq!(room.refusal(), Some(Reject::NotPermitted));
}
