//! What the daemon has acknowledged outlives it, however it ends; what is damaged is not believed.

use std::sync::mpsc;
use std::time::Duration;
use vendue_tests::chance::Chance;
use vendue_tests::daemon::{Daemon, Setup, eventually};
use vendue_tests::journal::{flip_a_byte, tear};
use vendue_tests::market::*;
use vendue_wire::client::{Client, Identity, Received};
use vendue_wire::code::{Side, TimeInForce};
use vendue_wire::message::*;

/// Operations sent before the answer to the first of them is waited for.
const WINDOW: u64 = 64;
/// Operations of one round at most.
const ROUND_MAX: u64 = 50_000;

/// Operation `id` of the load: a sale that rests, the purchase that takes it, a deposit, in turn.
fn send(client: &mut Client, market: (Party, Party), id: u64) -> bool {
    let (seller, buyer) = market;
    let terms = |party: Party, side, price_ticks: u64, time_in_force| NewOrder {
        client_id: id.into(),
        instance: party.instance.into(),
        price_ticks: (price_ticks as u32).into(),
        quantity: 1.into(),
        side: side as u8,
        time_in_force: time_in_force as u8,
        ..NewOrder::zeroed()
    };
    let sent = match id % 3 {
        0 => client.send(&terms(seller, Side::Sell, price(id), TimeInForce::Gtc)),
        1 => client.send(&terms(buyer, Side::Buy, 100, TimeInForce::Ioc)),
        _ => client.send(&Deposit {
            client_id: id.into(),
            amount_micro: id.into(),
            account: buyer.account.into(),
            reserved: 0.into(),
        }),
    };
    sent.is_ok()
}

/// Price in ticks at which operation `id` sells.
fn price(id: u64) -> u64 {
    1 + id % 100
}

/// What the first `count` operations lead to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    trades: u64,
    orders: u32,
    seller_micro: u64,
    buyer_micro: u64,
}

/// The load's model. Each trade costs both parties a fee of one micro-unit.
fn expected(count: u64) -> Expected {
    let mut state = Expected { buyer_micro: FUNDS_MICRO, ..Expected::default() };
    let mut resting = None;
    for id in 1..=count {
        match id % 3 {
            0 => resting = Some(price(id)),
            1 => {
                if let Some(price) = resting.take() {
                    state.trades += 1;
                    state.seller_micro += price - 1;
                    state.buyer_micro -= price + 1;
                }
            }
            _ => state.buyer_micro += id,
        }
    }
    state.orders = resting.is_some().into();
    state
}

fn found(client: &mut Client, (seller, buyer): (Party, Party)) -> Expected {
    let mut trades = 0;
    client
        .ask_each(&QueryBooks { from: 0.into() }, |row| {
            trades += row.message::<BookRow>().map_or(0, |book| book.trades.get());
        })
        .expect("books");
    let held = account_row(client, buyer.account).held_micro.get();
    assert_eq!(held, 0, "nothing is held for orders that are gone");
    Expected {
        trades,
        orders: instance_row(client, seller.instance).orders.get(),
        seller_micro: account_row(client, seller.account).free_micro.get(),
        buyer_micro: account_row(client, buyer.account).free_micro.get(),
    }
}

/// The `client_id` that a report acknowledges.
fn acknowledged(frame: &Received) -> u64 {
    let accepted = frame.message::<Accepted>().map(|report| report.client_id);
    let done = frame.message::<Done>().map(|report| report.client_id);
    assert!(frame.message::<Rejected>().is_none(), "{:?}", frame.message::<Rejected>());
    accepted.or(done).map_or(0, U64::get)
}

/// Sends operations until the daemon is gone. Returns the last one sent, and the last one
/// acknowledged.
fn load(mut client: Client, market: (Party, Party), began: &mpsc::Sender<()>) -> (u64, u64) {
    let mut sent = client.ack.last_client_id.get();
    let (first, mut known) = (sent, sent);
    let last = sent + ROUND_MAX;
    loop {
        while sent < last && sent < known + WINDOW {
            if !send(&mut client, market, sent + 1) {
                return (sent + 1, known);
            }
            sent += 1;
        }
        match client.recv(Duration::from_secs(10)) {
            Ok(Some(frame)) => {
                let news = acknowledged(frame);
                if news > known && known == first {
                    let _ = began.send(());
                }
                known = known.max(news);
            }
            Ok(None) if known == last => {}
            Ok(None) => panic!("no answer, {known} of {sent} acknowledged"),
            Err(_) => return (sent, known),
        }
    }
}

/// Kills of one run: `VENDUE_KILLS` of them, by default a few.
fn kills() -> u32 {
    let asked = std::env::var("VENDUE_KILLS").ok();
    asked.map_or(20, |text| text.parse().expect("VENDUE_KILLS is a number"))
}

/// Again and again: load, a kill at a random moment, a restart. The state is that of a prefix of what
/// was sent, at least as long as what was acknowledged.
#[test]
fn what_was_acknowledged_outlives_a_kill() {
    acknowledgements_outlive_kills("each", kills(), Daemon::start, |daemon, _| daemon.kill_9());
}

/// The same where gateway, core and journal share a thread.
#[test]
fn what_one_thread_acknowledged_outlives_a_kill() {
    acknowledgements_outlive_kills("one", kills(), Daemon::start, |daemon, _| daemon.kill_9());
}

/// The same of three processes, whichever of them is killed: the others end by themselves.
#[test]
fn what_three_processes_acknowledged_outlives_a_kill_of_any_of_them() {
    let kill = |daemon: &mut Daemon, round: u32| match round % 3 {
        0 => daemon.kill_9(),
        1 => daemon.kill_part("gateway"),
        _ => daemon.kill_part("actuate"),
    };
    acknowledgements_outlive_kills("each", kills().div_ceil(3), Daemon::start_apart, kill);
}

fn acknowledgements_outlive_kills(
    threads: &str,
    kills: u32,
    start: fn(&Setup) -> Daemon,
    kill: impl Fn(&mut Daemon, u32),
) {
    // Ticks carry digests, and snapshots come every 1000 records: recovery starts from those too.
    let setup = Setup::small()
        .key("threads", &format!("\"{threads}\""))
        .key("tick_ms", "20")
        .key("every_records", "1000");
    let mut daemon = start(&setup);
    let market = Market::open(&daemon);
    let parties = (market.seller, market.buyer);
    drop(market);
    let identity = Identity::operator();
    let mut chance = Chance::new(20);
    let mut before = 0;
    for round in 0..kills {
        let client = daemon.client(&identity);
        let (began, begins) = mpsc::channel();
        let loading = std::thread::spawn(move || load(client, parties, &began));
        begins.recv().expect("the load begins");
        std::thread::sleep(Duration::from_micros(chance.below(60_000)));
        kill(&mut daemon, round);
        let (sent, known) = loading.join().expect("the load");
        daemon.launch();

        let mut client = daemon.client(&identity);
        let count = client.ack.last_client_id.get();
        assert!((known..=sent).contains(&count), "round {round}: {known} <= {count} <= {sent}");
        assert!(known > before, "round {round}: nothing was done");
        assert_eq!(found(&mut client, parties), expected(count), "round {round}, {count} done");
        check_ledger(&mut client);
        before = count;
    }
    assert!(daemon.status().0.snapshot.get() > 0);
    let rows = audit(&mut daemon.client(&identity));
    let trades = rows.iter().filter(|row| text(&row.what) == "trade").count();
    assert_eq!(trades as u64, expected(before).trades);
    assert!(rows.is_sorted_by_key(|row| row.sequence.get()));
}

/// A record that was torn while it was written is cut off, and nothing else.
#[test]
fn a_torn_record_is_cut_off() {
    let mut daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    let account = market.buyer.account;
    let kept = deposit(&mut market.operator, account, 1);
    for bytes in [1, 2, 9, 20, 33] {
        // Its session is open until the kill; what became of a limit may be recorded behind it.
        let mut client = daemon.client(&Identity::operator());
        assert_eq!(deposit(&mut client, account, 1), kept + 1);
        daemon.kill_9();
        tear(&daemon.data_dir().join("journal"), Deposit::KIND, bytes);
        let before = daemon.log().len();
        daemon.launch();
        let said = daemon.log()[before..].to_owned();
        assert!(said.contains("torn record"), "{bytes} bytes: {said}");
        let mut client = daemon.client(&Identity::observer());
        assert_eq!(account_row(&mut client, account).free_micro.get(), kept, "{bytes} bytes");
        check_ledger(&mut client);
    }
    check_alive(&daemon, &market, &daemon.unix());
}

/// Damage in the middle is a lost write: the daemon does not start over it.
#[test]
fn damage_in_the_middle_is_refused() {
    let mut daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    for _ in 0..50 {
        deposit(&mut market.operator, market.buyer.account, 1);
    }
    let free = account_row(&mut market.operator, market.buyer.account).free_micro;
    daemon.kill_9();
    let journal = daemon.data_dir().join("journal");
    flip_a_byte(&journal);
    for _ in 0..2 {
        let (status, said) = daemon.launch_refused();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(
            said.contains("the log is whole up to record") && said.contains("then damaged"),
            "{said}"
        );
    }
    // A refusal changes nothing: with the bit turned back all is there.
    flip_a_byte(&journal);
    daemon.launch();
    let mut client = daemon.client(&Identity::observer());
    assert_eq!(account_row(&mut client, market.buyer.account).free_micro, free);
}

/// Snapshots are written while the daemon serves, and a damaged one is passed over and reported.
#[test]
fn a_damaged_snapshot_is_passed_over() {
    let mut daemon = Daemon::start(&Setup::small().key("every_records", "1000"));
    let mut market = Market::open(&daemon);
    let account = market.buyer.account;
    for _ in 0..1100 {
        deposit(&mut market.operator, account, 1);
    }
    eventually("a snapshot", || (daemon.status().0.snapshot.get() > 0).then_some(()));
    daemon.kill_9();
    let snapshots = std::fs::read_dir(daemon.data_dir().join("snapshots")).unwrap();
    for file in snapshots {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    daemon.launch();
    let (_, faults) = daemon.status();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("recovery: ") && faults[0].contains("damaged"), "{faults:?}");
    let mut client = daemon.client(&Identity::observer());
    assert_eq!(account_row(&mut client, account).free_micro.get(), FUNDS_MICRO + 1100);
}
