//! The daemon as its peers see it: orders in, reports out, and what outlives a connection or the
//! daemon itself.

use nix::sys::signal::Signal;
use vendue_tests::daemon::{Daemon, Setup, eventually, free_address};
use vendue_tests::journal::flip_a_byte;
use vendue_tests::market::*;
use vendue_tests::raw::{Raw, logon};
use vendue_wire::board::BoardReader;
use vendue_wire::client::{Client, ClientError, Endpoint, Identity, Received};
use vendue_wire::code::{CancelReason, Goodbye, Reject, Role, Side};
use vendue_wire::frame::{FRAME_BYTES_MAX, encode};
use vendue_wire::message::*;
use zerocopy::FromBytes;

/// A tenant's identity with the token that TCP asks for.
fn tenant(account: u32, token: [u8; 32]) -> Identity {
    Identity { token, ..Identity::tenant(account) }
}

fn wanted_vru(client: &mut Client, instance: u32) -> Option<u64> {
    let rows = client.ask::<LimitRow, _>(&QueryLimits { from: instance.into() }).expect("limits");
    let cpu = rows.iter().find(|row| row.instance.get() == instance && row.resource == 0)?;
    assert_eq!(cpu.state, 5, "a dry run writes nothing");
    Some(cpu.wanted_vru.get())
}

/// An order that trades, from both sides: reports, funds, credits, limits, tape, audit.
fn trade(market: &mut Market, endpoint: &Endpoint, token: [u8; 32]) {
    let (seller, buyer) = (market.seller, market.buyer);
    let connect = |account| Client::connect(endpoint, &tenant(account, token)).expect("a logon");
    let (mut sells, mut buys) = (connect(seller.account), connect(buyer.account));
    eventually("the seller's burst", || {
        (wanted_vru(&mut sells, seller.instance)? == 3200).then_some(())
    });
    assert_eq!(wanted_vru(&mut buys, buyer.instance), Some(1000));

    let free = instance_row(&mut sells, seller.instance).free_millicredits[0].get();
    let quantity = (free / 1000) as u32;
    let resting = enter(&mut sells, seller, Side::Sell, 10, quantity);
    let orders =
        sells.ask::<OrderRow, _>(&QueryOrders { instance: seller.instance.into(), from: 0.into() });
    let orders = orders.expect("orders");
    assert_eq!(
        (orders.len(), orders[0].handle, orders[0].quantity.get()),
        (1, resting.handle, quantity)
    );
    let depth = sells.ask::<DepthRow, _>(&QueryDepth { book: BOOK.into(), reserved: 0.into() });
    let depth = depth.expect("a depth")[0];
    assert_eq!((depth.ask_ticks[0].get(), depth.ask_quantity[0].get()), (10, quantity.into()));
    assert_eq!(depth.bid_ticks[0].get(), 0);

    let incoming = enter(&mut buys, buyer, Side::Buy, 12, quantity);
    let (made, took) = (expect::<Filled>(&mut sells), expect::<Filled>(&mut buys));
    let notional = u64::from(quantity) * 10;
    let (maker_fee, taker_fee) = (notional * 5 / 10_000, notional * 10 / 10_000);
    assert_eq!(made.trade, took.trade);
    assert_eq!((made.handle, took.handle), (resting.handle, incoming.handle));
    assert_eq!((made.maker, took.maker), (1, 0));
    assert_eq!((made.fee_micro.get(), took.fee_micro.get()), (maker_fee, taker_fee));
    assert_eq!((made.counterparty.get(), took.counterparty.get()), (buyer.account, seller.account));
    for filled in [made, took] {
        let terms = (filled.price_ticks.get(), filled.quantity.get(), filled.remaining.get());
        assert_eq!(terms, (10, quantity, 0));
    }

    let funds = |client: &mut Client, account| {
        let row = account_row(client, account);
        (row.free_micro.get(), row.held_micro.get())
    };
    assert_eq!(funds(&mut sells, seller.account), (notional - maker_fee, 0));
    assert_eq!(funds(&mut buys, buyer.account), (FUNDS_MICRO - notional - taker_fee, 0));
    let bought = instance_row(&mut buys, buyer.instance).free_millicredits[0].get();
    assert!(bought >= u64::from(quantity) * 1000);
    eventually("both limits to move", || {
        let limits = [seller, buyer].map(|party| wanted_vru(&mut market.operator, party.instance));
        (limits == [Some(1000), Some(3200)]).then_some(())
    });
    check_ledger(&mut market.operator);

    let tape = buys.ask::<TradeRow, _>(&QueryTrades {
        limit: 10.into(),
        book: BOOK.into(),
        reserved: 0.into(),
    });
    let tape = tape.expect("trades");
    assert_eq!(tape.len(), 1);
    assert_eq!(
        (tape[0].trade, tape[0].quantity.get(), tape[0].taker_side),
        (made.trade, quantity, 0)
    );
    assert_eq!((tape[0].seller.get(), tape[0].buyer.get()), (ANY, ANY), "the public tape");
    check_audit(&mut market.operator, &tape[0], (seller.account, buyer.account), notional);
}

/// The audit trail has one trade, the tape's, and all that led to it.
fn check_audit(operator: &mut Client, tape: &TradeRow, parties: (u32, u32), notional: u64) {
    // It is read from the journal, which may be written a little after the answers.
    let rows = eventually("the trade in the journal", || {
        let rows = audit(operator);
        rows.iter().any(|row| text(&row.what) == "trade").then_some(rows)
    });
    let trades: Vec<&AuditRow> = rows.iter().filter(|row| text(&row.what) == "trade").collect();
    assert_eq!(trades.len(), 1);
    assert_eq!(trades[0].sequence, tape.sequence);
    let quantity = tape.quantity.get().into();
    assert_eq!((trades[0].amount.get(), trades[0].funds_micro.get()), (quantity, notional));
    assert_eq!((trades[0].account.get(), trades[0].other_account.get()), parties);
    for what in ["account", "instance", "deposit", "grant", "logon", "order sell", "order buy"] {
        assert!(rows.iter().any(|row| text(&row.what) == what), "no {what} in the audit trail");
    }
}

/// Gateway, core and journal on one thread, over sockets and shared memory, with and without waiting
/// for stable storage; a clean stop keeps all.
#[test]
fn one_thread_trades_like_many() {
    for sync in ["\"always\"", "\"never\""] {
        let setup = Setup::small().key("threads", "\"one\"").key("sync", sync);
        for shared in [false, true] {
            let mut daemon = Daemon::start(&setup);
            let endpoint = if shared { daemon.shm() } else { daemon.unix() };
            let mut market = Market::open(&daemon);
            trade(&mut market, &endpoint, [0; 32]);
            let trades = daemon.status().0.trades.get();
            assert!(trades > 0 && daemon.terminate().success());
            daemon.launch();
            let (status, faults) = daemon.status();
            assert_eq!((status.trades.get(), faults), (trades, Vec::new()));
        }
    }
}

#[test]
fn a_trade_over_the_unix_socket() {
    let daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    trade(&mut market, &daemon.unix(), [0; 32]);
}

#[test]
fn a_trade_over_shared_memory() {
    let daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    trade(&mut market, &daemon.shm(), [0; 32]);
}

#[test]
fn a_trade_over_tcp_needs_a_token() {
    let address = free_address();
    let setup = Setup::small()
        .key("tcp", &format!("\"{address}\""))
        .with("[[access]]\ntoken_file = \"{dir}/token\"\nrole = \"tenant\"");
    let token = *b"0123456789abcdef0123456789abcdef";
    let mut daemon = Daemon::prepare(&setup);
    std::fs::write(daemon.path("token"), token).unwrap();
    daemon.launch();
    let mut market = Market::open(&daemon);
    let tcp = Endpoint::Tcp(address);
    for (token, role) in
        [([0; 32], Role::Observer), ([7; 32], Role::Tenant), (token, Role::Operator)]
    {
        let identity = Identity { role, ..tenant(market.seller.account, token) };
        let code = Reject::BadCredentials as u8;
        let refused = Client::connect(&tcp, &identity);
        assert!(
            matches!(refused, Err(ClientError::Refused { code: c, .. }) if c == code),
            "{refused:?}"
        );
    }
    let mut client = Client::connect(&tcp, &tenant(market.seller.account, token)).unwrap();
    let code = Reject::NotOnThisTransport as u8;
    assert!(
        matches!(client.attach_board(), Err(ClientError::Refused { code: c, .. }) if c == code)
    );
    drop(client);
    trade(&mut market, &tcp, token);
}

/// The board shows what a query for the depth answers.
#[test]
fn the_board_equals_the_depth() {
    let daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    let (seller, buyer) = (market.seller, market.buyer);
    for at in 0..12 {
        enter(&mut market.operator, seller, Side::Sell, 20 + at, 5 + at);
        enter(&mut market.operator, buyer, Side::Buy, 19 - at, 7 + at);
    }
    enter(&mut market.operator, buyer, Side::Buy, 21, 6);
    for endpoint in [daemon.unix(), daemon.shm()] {
        let mut client = Client::connect(&endpoint, &Identity::observer()).unwrap();
        let board: BoardReader = client.attach_board().unwrap();
        let query = QueryDepth { book: BOOK.into(), reserved: 0.into() };
        let depth = client.ask::<DepthRow, _>(&query).unwrap()[0];
        let view = eventually("the board to follow", || {
            let view = board.read(BOOK.into()).expect("the book");
            (view.trades == 2).then_some(view)
        });
        assert_eq!((view.last_ticks, view.last_quantity, view.volume), (21, 1, 6));
        for at in 0..DEPTH_LEVELS {
            let bid = (view.bids[at].price_ticks, view.bids[at].quantity);
            let ask = (view.asks[at].price_ticks, view.asks[at].quantity);
            assert_eq!(bid, (depth.bid_ticks[at].get(), depth.bid_quantity[at].get()));
            assert_eq!(ask, (depth.ask_ticks[at].get(), depth.ask_quantity[at].get()));
        }
        assert_eq!((view.bids[0].price_ticks, view.asks[0].price_ticks), (19, 21));
    }
}

/// Every report of a session from number `from` on, asked for with its logon.
fn replayed(daemon: &Daemon, identity: &Identity, from: u64) -> Vec<(u64, u8, Vec<u8>)> {
    let mut client = daemon.client(&Identity { replay_from: from, ..identity.clone() });
    let mut reports = Vec::new();
    loop {
        let frame: Received = next(&mut client);
        if let Some(end) = frame.message::<ReplayEnd>() {
            assert_eq!(end.next, client.ack.next_sequence);
            return reports;
        }
        reports.push((frame.sequence(), frame.kind(), frame.body().to_vec()));
    }
}

/// Reports can be had again, the same to the byte: after a new connection, after a clean restart
/// (from the snapshot) and after a kill (from the journal).
#[test]
fn reports_are_replayed_after_anything() {
    let mut daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    let (seller, buyer) = (market.seller, market.buyer);
    let identity = Identity::tenant(seller.account);
    let mut client = daemon.client(&identity);
    let first = enter(&mut client, seller, Side::Sell, 10, 100);
    enter(&mut client, seller, Side::Sell, 11, 100);
    enter(&mut market.operator, buyer, Side::Buy, 10, 60);
    expect::<Filled>(&mut client);
    client.call_for::<Cancelled, _>(&Cancel { handle: first.handle }).unwrap();
    drop(client);

    let all = replayed(&daemon, &identity, 1);
    let kinds: Vec<u8> = all.iter().map(|report| report.1).collect();
    assert_eq!(kinds, [Accepted::KIND, Accepted::KIND, Filled::KIND, Cancelled::KIND]);
    assert!(all.iter().map(|report| report.0).eq(1..=4));
    assert_eq!(replayed(&daemon, &identity, 3), all[2..]);

    daemon.kill_9();
    daemon.launch();
    assert_eq!(daemon.status().0.snapshot.get(), 0);
    assert_eq!(replayed(&daemon, &identity, 1), all, "after a kill");
    assert!(daemon.terminate().success());
    daemon.launch();
    assert_ne!(daemon.status().0.snapshot.get(), 0);
    assert_eq!(replayed(&daemon, &identity, 1), all, "after a clean restart");
    daemon.kill_9();
    daemon.launch();
    assert_eq!(replayed(&daemon, &identity, 2), all[1..], "from the snapshot and the tail");
}

/// A request that is sent again because its answer was lost is not carried out twice.
#[test]
fn a_retry_is_harmless() {
    let mut daemon = Daemon::start(&Setup::small());
    let market = Market::open(&daemon);
    let seller = market.seller;
    let identity = Identity::tenant(seller.account);
    let mut client = daemon.client(&identity);
    let order = limit(&mut client, seller, Side::Sell, 10, 100);
    client.call_for::<Accepted, _>(&order).unwrap();
    let used = Reject::DuplicateClientId as u8;
    for restart in [false, false, true] {
        if restart {
            daemon.kill_9();
            daemon.launch();
        }
        let mut client = daemon.client(&identity);
        assert_eq!(client.ack.last_client_id, order.client_id);
        let again = client.call_for::<Accepted, _>(&order);
        assert!(
            matches!(again, Err(ClientError::Rejected { code, .. }) if code == used),
            "{again:?}"
        );
        assert_eq!(instance_row(&mut client, seller.instance).orders.get(), 1);
    }
}

#[test]
fn orders_go_with_a_connection_that_asked_for_it() {
    let daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    let seller = market.seller;
    let goes = Identity { cancel_on_disconnect: true, ..Identity::tenant(seller.account) };
    let stays = Identity::tenant(seller.account);
    for identity in [&goes, &stays] {
        enter(&mut daemon.client(identity), seller, Side::Sell, 10, 5);
    }
    eventually("one order to go", || {
        (instance_row(&mut market.operator, seller.instance).orders.get() == 1).then_some(())
    });
    let reports = replayed(&daemon, &goes, 2);
    let cancelled = Cancelled::read_from_bytes(&reports[0].2).unwrap();
    assert_eq!(cancelled.reason, CancelReason::Disconnected as u8);
    assert_eq!(replayed(&daemon, &stays, 1).len(), 1);
}

/// The newest connection of a session has it; the one before is told, and its orders stay.
#[test]
fn a_second_logon_supersedes_the_first() {
    let daemon = Daemon::start(&Setup::small());
    let market = Market::open(&daemon);
    let seller = market.seller;
    let identity = Identity { cancel_on_disconnect: true, ..Identity::tenant(seller.account) };
    let mut first = daemon.client(&identity);
    enter(&mut first, seller, Side::Sell, 10, 5);
    let mut second = daemon.client(&identity);
    let superseded = Goodbye::Superseded as u8;
    let end = first.call_for::<Accepted, _>(&limit(&mut second, seller, Side::Sell, 10, 5));
    assert!(
        matches!(end, Err(ClientError::Farewell { reason }) if reason == superseded),
        "{end:?}"
    );
    enter(&mut second, seller, Side::Sell, 10, 5);
    assert_eq!(instance_row(&mut second, seller.instance).orders.get(), 2);
}

/// A client that reconnects before the daemon has noticed the end of its former connection keeps
/// its session, whichever of the two the daemon looks at first.
#[test]
fn a_late_end_does_not_end_the_next_connection() {
    let daemon = Daemon::start(&Setup::small());
    let market = Market::open(&daemon);
    let seller = market.seller;
    let socket = daemon.path("socket");
    let identity = Identity { cancel_on_disconnect: true, ..Identity::tenant(seller.account) };
    // The next connection is looked at before the former one: its place is an earlier one.
    let mut next_connection = Raw::connect(&socket);
    eventually("the connection", || (daemon.status().0.connections.get() == 3).then_some(()));
    let mut former = daemon.client(&identity);
    enter(&mut former, seller, Side::Sell, 10, 5);
    daemon.signal(Signal::SIGSTOP);
    next_connection.send(0, &logon(&identity));
    drop(former);
    daemon.signal(Signal::SIGCONT);
    let ack = next_connection.next_said().expect("an answer").message::<LogonAck>();
    let sequence = ack.expect("a logon's answer").last_request.get() + 1;
    for at in 0..3 {
        let instance = seller.instance.into();
        next_connection.send(sequence + at, &QueryOrders { instance, from: 0.into() });
        let row = next_connection.next_said().expect("an order").message::<OrderRow>();
        assert!(row.is_some(), "the order went with a connection that had gone before");
        assert!(next_connection.next_said().expect("the end").message::<QueryEnd>().is_some());
    }
}

/// Sends `count` questions at once and counts the throttled ones.
fn throttled(daemon: &Daemon, count: usize) -> usize {
    let mut client = daemon.client(&Identity::observer());
    let query = QueryDepth { book: BOOK.into(), reserved: 0.into() };
    for _ in 0..count {
        client.send(&query).unwrap();
    }
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < count {
        let frame = next(&mut client);
        answered += usize::from(frame.message::<QueryEnd>().is_some());
        if let Some(throttled) = frame.message::<Refused>() {
            assert_eq!(throttled.code, Reject::Throttled as u8);
            refused += 1;
        }
    }
    refused
}

/// SIGHUP takes over throttle and access, names what it does not, and refuses a wrong file whole.
#[test]
fn sighup_reloads_what_can_be() {
    let setup = Setup::small();
    let slow = setup.clone().key("throttle_per_s", "1").key("throttle_burst", "5");
    let daemon = Daemon::start(&slow);
    assert!(throttled(&daemon, 50) >= 40);
    daemon.configure(&setup.clone().key("role", "\"observer\"").key("verify_ms", "4000"));
    let said = daemon.reload();
    assert!(said.contains("[host]") && !said.contains("[gateway]"), "{said}");
    eventually("the new throttle", || (throttled(&daemon, 50) == 0).then_some(()));
    let code = Reject::BadCredentials as u8;
    let refused = Client::connect(&daemon.unix(), &Identity::operator());
    assert!(
        matches!(refused, Err(ClientError::Refused { code: c, .. }) if c == code),
        "{refused:?}"
    );

    let no_token = setup.clone().with("[[access]]\ntoken_file = \"{dir}/none\"\nrole = \"tenant\"");
    let wrong = [
        (setup.clone().key("tick_ms", "0"), "tick_ms"),
        (no_token, "none"),
        (setup.clone().key("log", "\"a=b=c\""), "a=b=c"),
    ];
    for (wrong, named) in wrong {
        daemon.configure(&wrong);
        let said = daemon.reload();
        assert!(said.contains("stays") && said.contains(named), "{said}");
        assert!(Client::connect(&daemon.unix(), &Identity::operator()).is_err());
    }
    daemon.configure(&setup);
    daemon.reload();
    eventually("the operator", || Client::connect(&daemon.unix(), &Identity::operator()).ok());
}

/// The last of two reloads in a row holds.
#[test]
fn the_last_reload_holds() {
    let observers = Setup::small().key("role", "\"observer\"");
    let daemon = Daemon::start(&observers);
    // Without connections the gateway looks for reloads once a second.
    daemon.reload();
    daemon.configure(&Setup::small());
    daemon.reload();
    eventually("the operator", || Client::connect(&daemon.unix(), &Identity::operator()).ok());
}

#[test]
fn heartbeats_go_both_ways() {
    let daemon = Daemon::start(&Setup::small());
    let identity = Identity { heartbeat_ms: 1000, ..Identity::operator() };
    let mut client = daemon.client(&identity);
    assert_eq!(client.ack.heartbeat_ms.get(), 1000);
    // The client sends its heartbeats from within this call; without them it would be cut off.
    assert!(client.recv(std::time::Duration::from_secs(3)).unwrap().is_none());
    client.ask::<StatusRow, _>(&QueryStatus {}).unwrap();

    let mut half_open =
        Raw::logged_on(&daemon.path("socket"), &Identity { heartbeat_ms: 1, ..identity });
    assert!(half_open.frame().expect("a frame").message::<Heartbeat>().is_some());
    assert_eq!(half_open.farewell(), Goodbye::HeartbeatLost);

    // Its rings are given back some seconds after the farewell, which it then cannot read.
    let identity = Identity { heartbeat_ms: 100, ..Identity::operator() };
    let mut silent = Client::connect(&daemon.shm(), &identity).unwrap();
    silent.ask::<StatusRow, _>(&QueryStatus {}).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(4));
    let asked = silent.ask::<StatusRow, _>(&QueryStatus {});
    assert!(
        matches!(asked, Err(ClientError::Closed | ClientError::Farewell { .. })),
        "told {asked:?}"
    );
}

/// A reader that does not read is cut off; nobody else notices.
#[test]
fn a_slow_reader_is_cut_off() {
    let daemon = Daemon::start(&Setup::small().key("outbound_bytes_max", "65536"));
    let market = Market::open(&daemon);
    for kind in [QueryLedger::KIND, QueryStatus::KIND, NewOrder::KIND] {
        let mut slow = Raw::logged_on(&daemon.path("socket"), &Identity::observer());
        let mut sequence = 0;
        // Blocks while the daemon reads slowly; fails when it has closed the connection.
        eventually("the slow reader's end", || {
            (0..50)
                .any(|_| {
                    sequence += 1;
                    !slow.send_raw(kind, sequence, &[])
                })
                .then_some(())
        });
        check_alive(&daemon, &market, &daemon.unix());
    }
}

/// Sends heartbeats as fast as they are taken, until the daemon ends the connection.
fn talk(mut raw: Raw) -> Goodbye {
    let mut frame = [0; FRAME_BYTES_MAX];
    let length = encode(0, &Heartbeat {}, &mut frame);
    // Only the sequence differs, at the header's end: faster to make than to read.
    let mut batch = frame[..length].repeat(4000);
    let mut sequence = 0_u64;
    let mut number = || {
        for frame in batch.chunks_exact_mut(length) {
            sequence += 1;
            frame[length - 8..].copy_from_slice(&sequence.to_le_bytes());
        }
        raw.send_bytes(&batch)
    };
    while number() {}
    raw.farewell()
}

/// A stop refuses what comes, also from a peer that never stops talking, and leaves a snapshot from
/// which the next start begins.
#[test]
fn sigterm_ends_a_busy_daemon_with_a_snapshot() {
    let mut daemon = Daemon::start(&Setup::small());
    let market = Market::open(&daemon);
    let mut idle = Raw::logged_on(&daemon.path("socket"), &Identity::observer());
    let talkers: Vec<_> = (0..6)
        .map(|_| Raw::logged_on(&daemon.path("socket"), &Identity::observer()))
        .map(|raw| std::thread::spawn(move || talk(raw)))
        .collect();
    assert!(daemon.terminate().success());
    for talker in talkers {
        assert_eq!(talker.join().unwrap(), Goodbye::ShuttingDown);
    }
    assert_eq!(idle.farewell(), Goodbye::ShuttingDown);
    assert!(!daemon.path("socket").exists());
    daemon.launch();
    let (status, faults) = daemon.status();
    assert!(status.snapshot.get() > 0 && faults.is_empty(), "{faults:?}");
    assert!(daemon.log().contains("state recovered"));
    check_alive(&daemon, &market, &daemon.unix());
}

/// What a journal began with stays: another configuration is refused, and so is a second daemon.
#[test]
fn what_does_not_fit_the_journal_is_refused() {
    let setup = Setup::small();
    let mut daemon = Daemon::start(&setup);
    let market = Market::open(&daemon);
    let refused = |daemon: &Daemon, texts: &[&str]| {
        let (status, said) = daemon.launch_refused();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(texts.iter().all(|text| said.contains(text)), "{said}");
    };
    refused(&daemon, &["in use by another daemon"]);
    check_alive(&daemon, &market, &daemon.unix());
    daemon.kill_9();
    for (wrong, what) in [
        (setup.clone().key("orders_max", "8192"), "[machine]"),
        (setup.clone().key("cpu", "{ capacity_vru = 3000 }"), "[[tier]]"),
    ] {
        daemon.configure(&wrong);
        refused(&daemon, &[what, "put the old value back"]);
    }
    daemon.configure(&setup);
    daemon.launch();
    check_alive(&daemon, &market, &daemon.unix());
}

/// Without waiting for stable storage the daemon says so, and a clean stop still keeps all.
#[test]
fn a_journal_that_never_waits() {
    let mut daemon = Daemon::start(&Setup::small().key("sync", "\"never\""));
    let market = Market::open(&daemon);
    assert_eq!(daemon.status().0.journal_sync, 0);
    check_alive(&daemon, &market, &daemon.unix());
    assert!(daemon.terminate().success());
    daemon.launch();
    assert_eq!(daemon.status().0.trades.get(), 1);
    check_alive(&daemon, &market, &daemon.unix());
}

/// A damaged journal is rebuilt from its mirror, without the loss of a record.
#[test]
fn the_mirror_heals_the_journal() {
    let mut daemon = Daemon::start(&Setup::small().key("mirror", "\"{dir}/mirror\""));
    let mut market = Market::open(&daemon);
    for _ in 0..50 {
        deposit(&mut market.operator, market.buyer.account, 1);
    }
    let before = account_row(&mut market.operator, market.buyer.account);
    daemon.kill_9();
    flip_a_byte(&daemon.data_dir().join("journal"));
    daemon.launch();
    assert!(daemon.log().contains("rebuilt"), "{}", daemon.log());
    let mut client = daemon.client(&Identity::observer());
    assert_eq!(account_row(&mut client, market.buyer.account), before);
    check_alive(&daemon, &market, &daemon.unix());
}

/// A filesystem of its own, gone with this.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(path: std::path::PathBuf, size: &str) -> Tmpfs {
        std::fs::create_dir(&path).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "vendue-test"]).arg(&path);
        assert!(mount.status().unwrap().success(), "mount needs root");
        Tmpfs(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a daemon that a failed test leaves may still be in it.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A full disk stops what changes state, cleanly; what was acknowledged is there afterwards.
#[test]
fn a_full_disk_stops_the_journal_and_nothing_else() {
    let setup = Setup::small().key("segment_bytes", "65536").key("buffer_bytes", "16384");
    let mut daemon = Daemon::prepare(&setup);
    let disk = Tmpfs::mount(daemon.path("disk"), "4m");
    daemon.keep_data_in(&disk.0.join("data"));
    daemon.launch();
    let mut market = Market::open(&daemon);
    let filler = disk.0.join("filler");
    let mut filling = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut filling, &[1; 4096]).is_ok() {}
    drop(filling);

    let account = market.buyer.account.into();
    let mut acknowledged = FUNDS_MICRO;
    let operator = &mut market.operator;
    let mut some_deposits = || -> Result<(), ClientError> {
        for _ in 0..100 {
            let client_id = operator.next_client_id().into();
            let reserved = 0.into();
            operator.send(&Deposit { client_id, amount_micro: 1.into(), account, reserved })?;
        }
        operator.flush()?;
        while let Some(frame) = operator.try_recv()? {
            let done = frame.message::<Done>().map_or(0, |done| done.value.get());
            acknowledged = acknowledged.max(done);
        }
        Ok(())
    };
    let told = eventually("the journal's stop", || some_deposits().err());
    let reason = Goodbye::JournalStopped as u8;
    assert!(matches!(told, ClientError::Farewell { reason: said } if said == reason), "{told:?}");
    let stopped = Reject::JournalStopped as u8;
    let refused = Client::connect(&daemon.unix(), &Identity::operator());
    assert!(
        matches!(refused, Err(ClientError::Refused { code, .. }) if code == stopped),
        "{refused:?}"
    );
    // What the machine holds may never become durable: it is not shown.
    let mut observer = daemon.client(&Identity::observer());
    let refused = observer.ask::<AccountRow, _>(&QueryAccounts { from: 0.into() });
    assert!(
        matches!(refused, Err(ClientError::Refused { code, .. }) if code == stopped),
        "{refused:?}"
    );
    let (status, faults) = daemon.status();
    assert_eq!((status.accepting, status.faults.get() as usize), (0, faults.len()));
    assert!(
        faults.iter().any(|fault| fault.starts_with("journal: ") && fault.contains("stopped")),
        "{faults:?}"
    );
    assert_eq!(daemon.terminate().code(), Some(1));

    std::fs::remove_file(&filler).unwrap();
    daemon.launch();
    let mut observer = daemon.client(&Identity::observer());
    let free = account_row(&mut observer, market.buyer.account).free_micro.get();
    assert!(free >= acknowledged && acknowledged > FUNDS_MICRO, "{free} of {acknowledged}");
    check_alive(&daemon, &market, &daemon.unix());
    daemon.kill_9();
    drop(disk);
}
