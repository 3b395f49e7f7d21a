//! Everything at once: sessions over every transport, readers of the board, questions, reloads and
//! connections that come and go, while the host's limits follow. Built with ThreadSanitizer or
//! AddressSanitizer (`tests/sanitize`) the daemon ends at the first race or bad access; built
//! without, this is one more test that nothing is lost in the crowd.

use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use vendue_tests::daemon::{Daemon, Setup, eventually, free_address};
use vendue_tests::market::*;
use vendue_wire::client::{Client, Endpoint, Identity};
use vendue_wire::code::Side;
use vendue_wire::message::*;

/// Orders of each session, and sessions of each side over each transport.
const ORDERS: u32 = 300;
/// Largest price, so that the sides meet.
const PRICES: u32 = 20;
const TOKEN: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

/// Enters orders that trade, and cancels what is left of them.
fn trade(endpoint: &Endpoint, party: Party, side: Side) {
    let identity = Identity { token: TOKEN, ..Identity::tenant(party.account) };
    let mut client = Client::connect(endpoint, &identity).expect("a session");
    for at in 0..ORDERS {
        let price = 1 + at * 7 % PRICES;
        let entered = enter(&mut client, party, side, price, 1 + at % 3);
        if at % 3 == 0 {
            let cancel = Cancel { handle: entered.handle };
            // Filled by now, perhaps.
            let _ = client.call_for::<Cancelled, _>(&cancel);
        }
    }
    let all = MassCancel {
        instance: party.instance.into(),
        book: ANY_BOOK.into(),
        side: side as u8,
        reserved: 0,
    };
    client.call(&all).expect("a mass cancel");
    client.logout().expect("a farewell");
}

/// Comes, looks and goes, over and over.
fn look_around(daemon: &Daemon, done: &AtomicBool) {
    let mut board = daemon.client(&Identity::observer()).attach_board().expect("the board");
    while !done.load(Ordering::Relaxed) {
        let mut observer = daemon.client(&Identity::observer());
        check_ledger(&mut observer);
        observer.ask::<AuditRow, _>(&QueryAudit::zeroed()).expect("the audit");
        observer.ask::<LimitRow, _>(&QueryLimits::zeroed()).expect("limits");
        for book in 0..board.books() {
            let seen = board.read(book).expect("a board that is written to now and then");
            assert!(
                seen.bids[0].price_ticks == 0
                    || seen.asks[0].price_ticks == 0
                    || seen.bids[0].price_ticks < seen.asks[0].price_ticks,
                "a crossed book: {seen:?}"
            );
        }
        board = daemon.client(&Identity::observer()).attach_board().expect("the board");
        daemon.reload();
    }
}

#[test]
fn everything_at_once() {
    let address = free_address();
    let setup = Setup::small()
        .key("tick_ms", "10")
        .key("meter_ms", "20")
        .key("verify_ms", "100")
        .key("every_records", "1000")
        .key("tcp", &format!("\"{address}\""))
        .with("[[access]]\ntoken_file = \"{dir}/token\"\nrole = \"tenant\"");
    let mut daemon = Daemon::prepare(&setup);
    std::fs::write(daemon.path("token"), TOKEN).expect("write the token");
    daemon.launch();
    let market = Market::open(&daemon);
    let endpoints = [daemon.unix(), daemon.shm(), Endpoint::Tcp(address)];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sides = [(market.seller, Side::Sell), (market.buyer, Side::Buy)];
        let sessions: Vec<_> = endpoints
            .iter()
            .flat_map(|endpoint| sides.map(|(party, side)| (endpoint, party, side)))
            .map(|(endpoint, party, side)| scope.spawn(move || trade(endpoint, party, side)))
            .collect();
        let looking = scope.spawn(|| look_around(&daemon, &done));
        let ended: Vec<_> = sessions.into_iter().map(|session| session.join()).collect();
        done.store(true, Ordering::Relaxed);
        looking.join().expect("an observer");
        ended.into_iter().for_each(|session| session.expect("a session"));
    });
    check_ledger(&mut daemon.client(&Identity::observer()));
    let status = daemon.status().0;
    assert!(status.trades.get() > u64::from(ORDERS) && status.orders.get() == 0, "{status:?}");
    drop(market);
    eventually("the last connection's end", || {
        (daemon.status().0.connections.get() == 1).then_some(())
    });
    daemon.signal(Signal::SIGHUP);
    let status = daemon.terminate();
    assert!(status.success(), "{status}\n{}", daemon.log());
}
