//! What operators do about accounts, orders and trades, as everybody sees it: the operator with
//! `hvctl`, the parties, a subscriber, the tape, the audit trail, and all of them after a restart.

use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;
use vendue_tests::daemon::{Daemon, Setup};
use vendue_tests::market::*;
use vendue_tests::vm::binaries;
use vendue_wire::client::{Client, ClientError, Identity, Notice, Place, Subscription};
use vendue_wire::code::{CancelReason, Reject, Role, Side};
use vendue_wire::message::*;

const WAIT: Duration = Duration::from_secs(10);

fn hvctl(daemon: &Daemon, arguments: &[&str]) -> Output {
    let program = binaries(&["hvctl"]).expect("hvctl is built").remove(0).0;
    let connect = daemon.unix().to_string();
    let all = [&["--json", "--connect", connect.as_str()], arguments].concat();
    Command::new(program).args(all).output().expect("run hvctl")
}

/// What `hvctl` printed, which must have gone well: an object a line.
#[track_caller]
fn said(daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let output = hvctl(daemon, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Why `hvctl` was refused.
#[track_caller]
fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = hvctl(daemon, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

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
    assert_eq!(said(&daemon, &["reverse", "1"])[0]["reversed"], 1);
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
        let why = refused(daemon, &["reverse", "1"]);
        assert!(why.contains("already reversed"), "{why}");
        let why = refused(daemon, &["reverse", "99"]);
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
    said(&daemon, &["cancel", &one.to_string()]);
    assert_eq!(until::<Cancelled>(&mut selling).reason, CancelReason::Requested as u8);
    assert_eq!(said(&daemon, &["account", "cancel", "seller"])[0]["cancelled"], 3);
    assert_eq!(until::<Cancelled>(&mut selling).reason, CancelReason::MassCancel as u8);
    said(&daemon, &["account", "limits", "seller", "--sell-max", "10", "--order-max", "0.000500"]);
    let order = limit(&mut selling, seller, Side::Sell, 10, 11);
    let error = selling.call_for::<Accepted, _>(&order).expect_err("beyond the limit");
    let code = Reject::WindowLimit as u8;
    assert!(matches!(error, ClientError::Rejected { code: c, .. } if c == code), "{error}");
    let shown = &said(&daemon, &["account", "limits", "seller"])[0];
    assert_eq!((&shown["sell_max_credits"], &shown["order_max_micro"]), (&10.into(), &500.into()));
    assert_eq!((&shown["buy_max_credits"], &shown["opted_in"]), (&Value::Null, &true.into()));
    said(&daemon, &["account", "limits", "seller", "--opt-out", "--sell-max", "none"]);
    let shown = &said(&daemon, &["account", "limits", "seller"])[0];
    assert_eq!((&shown["sell_max_credits"], &shown["opted_in"]), (&Value::Null, &false.into()));
    assert_eq!(shown["order_max_micro"], 500, "what is not named stays");
    said(&daemon, &["phase", "0", "halted"]);
    said(&daemon, &["reverse", "1"]);

    let own = format!("uid {}", nix::unistd::getuid());
    let trail = said(&daemon, &["audit"]);
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
