//! What operators do about accounts, orders and trades, as everybody sees it: the operator with
//! `hvctl`, the parties, a subscriber, the tape, the audit trail, and all of them after a restart.

use serde_json::Value;
use std::time::Duration;
use vendue_tests::daemon::{Daemon, Setup, eventually};
use vendue_tests::market::*;
use vendue_wire::client::{Client, ClientError, Identity, Notice, Place, Subscription};
use vendue_wire::code::{CancelReason, Reject, Role, Side};
use vendue_wire::message::*;

const WAIT: Duration = Duration::from_secs(10);

/// Skips to the next frame that is an `M`.
#[track_caller]
fn until<M: Body>(client: &mut Client) -> M {
    loop {
        if let Some(found) = next(client).message::<M>() {
            return *found;
        }
    }
}

/// The notices about trades up to what was durable when asked.
fn swaps(daemon: &Daemon) -> Vec<Notice> {
    let client = daemon.client(&Identity::operator());
    let from = Place { sequence: 1, part: 0 };
    let mut subscription = Subscription::begin(client, from, TELL_SWAPS).expect("a subscription");
    let durable = subscription.begun().durable.get();
    let mut notices = Vec::new();
    loop {
        match subscription.next(WAIT).expect("a connection").expect("a notice in time") {
            Notice::CaughtUp(sequence) if sequence >= durable => return notices,
            Notice::CaughtUp(_) => {}
            notice => notices.push(notice),
        }
    }
}

fn tape(client: &mut Client) -> Vec<(u64, u8)> {
    let query = QueryTrades { limit: 64.into(), book: ANY_BOOK.into(), reserved: 0.into() };
    let rows = client.ask::<TradeRow, _>(&query).expect("the tape");
    rows.iter().map(|row| (row.trade.get(), row.reversed)).collect()
}

#[test]
fn a_reversed_trade_is_told_to_everyone_it_concerns_and_stays_so() {
    let mut daemon = Daemon::start(&Setup::small());
    let market = Market::open(&daemon);
    let (seller, buyer) = (market.seller, market.buyer);
    let mut selling = daemon.client(&Identity::tenant(seller.account));
    let mut buying = daemon.client(&Identity::tenant(buyer.account));
    for quantity in [30, 40] {
        enter(&mut selling, seller, Side::Sell, 10, quantity);
        enter(&mut buying, buyer, Side::Buy, 10, quantity);
    }
    let filled = until::<Filled>(&mut selling);
    let paid = until::<Filled>(&mut buying);
    let before = account_row(&mut buying, buyer.account).free_micro.get();
    assert_eq!(daemon.said(&["reverse", "1"])[0]["reversed"], 1);
    let [sold, bought] = [until::<Reversed>(&mut selling), until::<Reversed>(&mut buying)];
    for (row, party, other, side) in
        [(sold, seller, buyer, Side::Sell), (bought, buyer, seller, Side::Buy)]
    {
        assert_eq!((row.trade.get(), row.quantity.get(), row.price_ticks.get()), (1, 30, 10));
        assert_eq!((row.instance.get(), row.counterparty.get()), (party.instance, other.account));
        assert_eq!(row.side, side as u8);
    }
    assert_eq!([sold.fee_micro, bought.fee_micro], [filled.fee_micro, paid.fee_micro]);
    let after = account_row(&mut buying, buyer.account).free_micro.get();
    assert_eq!(after, before + bought.funds_micro.get());
    check_ledger(&mut daemon.client(&Identity::observer()));

    let check = |daemon: &Daemon| {
        let mut reader = daemon.client(&Identity::observer());
        assert_eq!(tape(&mut reader), [(1, 1), (2, 0)], "the tape marks it");
        let notices = swaps(daemon);
        let reversed: Vec<u64> = notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::Reversed(m) => Some(m.trade.get()),
                _ => None,
            })
            .collect();
        assert_eq!((notices.len(), &reversed[..]), (3, &[1][..]));
        let why = daemon.refused(&["reverse", "1"]);
        assert!(why.contains("already reversed"), "{why}");
        let why = daemon.refused(&["reverse", "99"]);
        assert!(why.contains("unknown trade"), "{why}");
    };
    check(&daemon);
    daemon.kill_9();
    daemon.launch();
    check(&daemon);
    daemon.terminate();
    daemon.launch();
    check(&daemon);
}

#[test]
fn an_operators_acts_are_in_the_audit_trail_with_who_did_them() {
    let daemon = Daemon::start(&Setup::small());
    let market = Market::open(&daemon);
    let (seller, buyer) = (market.seller, market.buyer);
    let mut selling = daemon.client(&Identity::tenant(seller.account));
    let mut buying = daemon.client(&Identity::tenant(buyer.account));
    enter(&mut selling, seller, Side::Sell, 10, 30);
    enter(&mut buying, buyer, Side::Buy, 10, 30);
    let one = enter(&mut selling, seller, Side::Sell, 20, 5).handle.get();
    for price in [21, 22, 23] {
        enter(&mut selling, seller, Side::Sell, price, 5);
    }
    daemon.said(&["cancel", &one.to_string()]);
    assert_eq!(until::<Cancelled>(&mut selling).reason, CancelReason::Requested as u8);
    assert_eq!(daemon.said(&["account", "cancel", "seller"])[0]["cancelled"], 3);
    assert_eq!(until::<Cancelled>(&mut selling).reason, CancelReason::MassCancel as u8);
    daemon.said(&["account", "limits", "seller", "--sell-max", "10", "--order-max", "0.000500"]);
    let order = limit(&mut selling, seller, Side::Sell, 10, 11);
    let error = selling.call_for::<Accepted, _>(&order).expect_err("beyond the limit");
    let code = Reject::WindowLimit as u8;
    assert!(matches!(error, ClientError::Rejected { code: c, .. } if c == code), "{error}");
    let shown = &daemon.said(&["account", "limits", "seller"])[0];
    assert_eq!((&shown["sell_max_credits"], &shown["order_max_micro"]), (&10.into(), &500.into()));
    assert_eq!((&shown["buy_max_credits"], &shown["opted_in"]), (&Value::Null, &true.into()));
    daemon.said(&["account", "limits", "seller", "--opt-out", "--sell-max", "none"]);
    let shown = &daemon.said(&["account", "limits", "seller"])[0];
    assert_eq!((&shown["sell_max_credits"], &shown["opted_in"]), (&Value::Null, &false.into()));
    assert_eq!(shown["order_max_micro"], 500, "what is not named stays");
    daemon.said(&["phase", "0", "halted"]);
    daemon.said(&["reverse", "1"]);

    let own = format!("uid {}", nix::unistd::getuid());
    let trail = daemon.said(&["audit"]);
    for what in ["set limits", "cancel account", "phase halted", "reversed 1"] {
        let row = trail.iter().find(|row| row["what"] == what);
        let row = row.unwrap_or_else(|| panic!("nothing of {what:?} in the trail"));
        assert_eq!((&row["role"], &row["peer"]), (&"operator".into(), &own.as_str().into()));
        assert_ne!(row["session"], "0");
    }
    let of = |what: &str| trail.iter().filter(|row| row["what"] == what).collect::<Vec<_>>();
    let role = |row: &&Value| row["role"].as_str().map(str::to_owned);
    let roles: Vec<_> = of("cancelled").iter().filter_map(role).collect();
    assert_eq!(roles.len(), roles.iter().filter(|role| *role == "operator").count());
    let roles: Vec<_> = of("trade").iter().filter_map(role).collect();
    assert_eq!(roles, [Role::Tenant.text()], "who traded did it itself");
    assert_eq!(of("set limits")[0]["account"], seller.account);
    let reversed = of("reversed 1")[0];
    assert_eq!((&reversed["amount_credits"], &reversed["price_ticks"]), (&30.into(), &10.into()));
}

/// Sends `count` questions at once and counts those that the account's throttle refused.
fn throttled(client: &mut Client, count: usize) -> usize {
    let query = QueryDepth { book: BOOK.into(), reserved: 0.into() };
    for _ in 0..count {
        client.send(&query).expect("a connection");
    }
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < count {
        let frame = next(client);
        answered += usize::from(frame.message::<QueryEnd>().is_some());
        if let Some(m) = frame.message::<Refused>() {
            assert_eq!(m.code, Reject::AccountThrottled as u8);
            refused += 1;
        }
    }
    refused
}

#[test]
fn an_accounts_sessions_are_throttled_together_and_alone() {
    let setup = Setup::small();
    let slow = setup.clone().key("account_throttle_per_s", "1").key("account_throttle_burst", "30");
    let daemon = Daemon::start(&slow);
    let market = Market::open(&daemon);
    let [mut one, mut two] =
        [(), ()].map(|()| daemon.client(&Identity::tenant(market.seller.account)));
    let mut other = daemon.client(&Identity::tenant(market.buyer.account));
    let refused = throttled(&mut one, 20) + throttled(&mut two, 40);
    assert!((20..=30).contains(&refused), "{refused} of 60 were refused");
    assert_eq!(throttled(&mut other, 20), 0, "another account has its own");
    let mut operator = daemon.client(&Identity::operator());
    assert_eq!(throttled(&mut operator, 60), 0, "an operator acts for nobody");
    daemon.configure(&setup);
    let told = daemon.reload();
    assert!(!told.contains("[gateway]"), "{told}");
    vendue_tests::daemon::eventually("the new throttle", || {
        (throttled(&mut two, 40) == 0).then_some(())
    });
}

#[test]
fn status_names_who_misses_its_objective_and_the_daemon_is_well_for_all_that() {
    let daemon = Daemon::start(&Setup::small());
    let market = Market::open(&daemon);
    let number = market.seller.instance.to_string();
    let missed = |daemon: &Daemon| daemon.said(&["status"])[0]["in_breach"].clone();
    assert_eq!(missed(&daemon), Value::from(Vec::<Value>::new()));
    let terms =
        ["--above", "100", "--recover", "20", "--rent", "1", "--budget", "1", "--step", "1"];
    daemon.said(&[&["objective", "set", &number, "latency"][..], &terms].concat());
    daemon.said(&["objective", "report", &number, "latency", "200"]);
    let rows = daemon.said(&["instance", "list"]);
    let own = rows.iter().find(|row| row["instance"] == market.seller.instance).expect("its row");
    assert_eq!(missed(&daemon), Value::from(vec![own["name"].clone()]));
    daemon.said(&["objective", "report", &number, "latency", "10"]);
    eventually("recovery", || missed(&daemon).as_array().expect("a list").is_empty().then_some(()));
}
