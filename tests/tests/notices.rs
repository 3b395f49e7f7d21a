//! Subscriptions to trades and balances, on the real daemon: whatever is killed, the union of what
//! was delivered has no gap and no double, is in order, and sums to the accounts' balances.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use vendue_engine::clock::{Clock, Hands};
use vendue_engine::health::Health;
use vendue_engine::pipeline::record::{Delivery, Subscription as Said};
use vendue_engine::storage::Host;
use vendue_engine::trail::{Dirs, Herald};
use vendue_tests::chance::Chance;
use vendue_tests::daemon::{Daemon, Setup, eventually, hvctl};
use vendue_tests::market::{Market, account_row, audit, deposit, instance_row, limit};
use vendue_wire::client::{Client, ClientError, Identity, Notice, Place, Subscription};
use vendue_wire::code::{Phase, RESOURCES, Reject, Resource, Role, Side};
use vendue_wire::frame::Frame;
use vendue_wire::message::*;
use vendue_wire::ring;
use zerocopy::{FromBytes, IntoBytes};

const ALL: u8 = TELL_ALL;
const WAIT: Duration = Duration::from_secs(10);
const START: Place = Place { sequence: 1, part: 0 };

/// A notice as both the library and `hvctl --json` tell it: its place, what it is about, two
/// numbers.
type Line = (Place, String, i64, u64);

fn line(notice: &Notice) -> Option<Line> {
    let place = notice.place()?;
    Some(match notice {
        Notice::Swapped(m) => {
            (place, format!("swap {}", m.trade), m.quantity.get().into(), m.notional_micro.get())
        }
        Notice::Funds(m) => {
            let change = m.change_micro.get() as i64;
            (place, format!("funds {}", m.account), change, m.balance_micro.get())
        }
        Notice::Credits(m) => {
            let resource = Resource::from_u8(m.resource).map_or("?", Resource::text);
            let of = format!("credits {} {resource}", m.instance);
            (place, of, m.change_millicredits.get() as i64, m.balance_millicredits.get())
        }
        Notice::Tiers(m) => {
            let of = format!("tiers {} {}", m.from, m.to);
            (place, of, m.left_vru.get().into(), m.arrived_vru.get().into())
        }
        Notice::Reversed(_) | Notice::CaughtUp(_) | Notice::Ended(..) => return None,
    })
}

fn parsed(text: &str) -> Line {
    let object: Value = serde_json::from_str(text).expect("a line of JSON");
    let number = |key: &str| object[key].as_u64().unwrap_or_else(|| panic!("{key} in {text}"));
    let signed = |key: &str| object[key].as_i64().unwrap_or_else(|| panic!("{key} in {text}"));
    let place = Place { sequence: number("sequence"), part: number("part") as u32 };
    assert_eq!(object["id"], place.to_string());
    match object["what"].as_str().expect("what it is") {
        "swap" => (
            place,
            format!("swap {}", number("trade")),
            signed("quantity_credits"),
            number("notional_micro"),
        ),
        "funds" => (
            place,
            format!("funds {}", number("account")),
            signed("change_micro"),
            number("balance_micro"),
        ),
        "credits" => {
            let resource = object["resource"].as_str().expect("a resource");
            let of = format!("credits {} {resource}", number("instance"));
            (place, of, signed("change_millicredits"), number("balance_millicredits"))
        }
        "tiers" => (
            place,
            format!("tiers {} {}", number("from"), number("to")),
            signed("left_vru"),
            number("arrived_vru"),
        ),
        other => panic!("what is {other}?"),
    }
}

/// All notices from a place until everything that was durable when asked has been told.
fn read(client: Client, from: Place, what: u8) -> Vec<Notice> {
    let mut subscription = Subscription::begin(client, from, what).expect("a subscription");
    let durable = subscription.begun().durable.get();
    let mut notices = Vec::new();
    loop {
        match subscription.next(WAIT).expect("a connection").expect("a notice in time") {
            Notice::CaughtUp(sequence) if sequence >= durable => return notices,
            Notice::CaughtUp(_) => {}
            Notice::Ended(place, code) => panic!("ended at {place} with code {code}"),
            notice => notices.push(notice),
        }
    }
}

/// `hvctl subscribe` as a process that can be killed, and what it wrote until then.
struct Follower {
    child: Child,
    lines: JoinHandle<Vec<Line>>,
}

impl Follower {
    fn start(daemon: &Daemon, from: Place) -> Follower {
        let hvctl = hvctl();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(hvctl)
            .args(["--json", "--connect", &daemon.unix().to_string()])
            .args(["subscribe", "--from", &from.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start hvctl");
        let mut output = child.stdout.take().expect("a pipe");
        let lines = std::thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).expect("text");
            // What was cut in the middle was not dealt with.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.lines().map(parsed).collect()
        });
        Follower { child, lines }
    }

    /// Kills it, or takes it when it has ended; gives its whole lines.
    fn end(mut self) -> Vec<Line> {
        let _ = self.child.kill();
        self.child.wait().expect("its end");
        self.lines.join().expect("lines that parse")
    }
}

/// Trades, deposits and withdrawals until the daemon is gone.
fn load(daemon: &Daemon, market: &Market, seed: u64) -> JoinHandle<()> {
    let mut operator = daemon.client(&Identity::operator());
    let (seller, buyer) = (market.seller, market.buyer);
    let (mut chance, mut sells) = (Chance::new(seed), false);
    std::thread::spawn(move || {
        loop {
            // Each sell is met by the next buy, more or less: the book does not fill.
            sells = !sells;
            let quantity = 1 + chance.below(5) as u32;
            let (party, side, price) = match sells {
                true => (seller, Side::Sell, 1 + chance.below(5) as u32),
                false => (buyer, Side::Buy, 5 + chance.below(5) as u32),
            };
            let order = limit(&mut operator, party, side, price, quantity);
            let client_id = operator.next_client_id().into();
            let amount_micro = (1 + chance.below(1000)).into();
            let (account, reserved) = (buyer.account.into(), 0.into());
            let sent = match chance.below(12) {
                0 => operator.send(&Deposit { client_id, amount_micro, account, reserved }),
                1 => operator.send(&Withdraw { client_id, amount_micro, account, reserved }),
                _ => operator.send(&order),
            };
            if sent.is_err() || operator.flush().is_err() {
                return;
            }
            loop {
                match operator.try_recv() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            std::thread::sleep(Duration::from_micros(300));
        }
    })
}

#[test]
fn nothing_is_missed_or_told_twice_whatever_is_killed() {
    // Credits are earned ten times a second meanwhile.
    let setup = Setup::small().key("tick_ms", "100").key("every_records", "1000");
    let mut daemon = Daemon::start(&setup);
    let market = Market::open(&daemon);
    let mut chance = Chance::new(4);
    let (mut told, mut next) = (Vec::<Line>::new(), START);
    for round in 0..8 {
        let work = load(&daemon, &market, round);
        let traded = daemon.status().0.trades.get();
        // The subscriber dies some times while the daemon lives, in the end the daemon does.
        for death in 0..4 {
            let follower = Follower::start(&daemon, next);
            std::thread::sleep(Duration::from_millis(chance.below(250)));
            if death == 3 {
                // However slow the machine: each round has something to tell.
                eventually("trades", || {
                    (daemon.status().0.trades.get() > traded + 30).then_some(())
                });
                daemon.kill_9();
            }
            told.extend(follower.end());
            next = told.last().map_or(START, |line| line.0.after());
        }
        work.join().expect("the load ends with the daemon");
        daemon.launch();
        if round % 2 == 0 {
            let caught_up = read(daemon.client(&Identity::observer()), next, ALL);
            told.extend(caught_up.iter().filter_map(line));
            next = told.last().map_or(START, |line| line.0.after());
        }
    }
    told.extend(read(daemon.client(&Identity::observer()), next, ALL).iter().filter_map(line));
    let next = told.last().expect("notices").0.after();
    // Once more from the start, without an interruption.
    let mut whole: Vec<Line> = Vec::new();
    whole.extend(read(daemon.client(&Identity::observer()), START, ALL).iter().filter_map(line));
    let (told, common): (Vec<_>, Vec<_>) = (told, whole.iter().filter(|l| l.0 < next).collect());
    assert!(told.iter().eq(common.iter().copied()), "the pieces are not the whole");
    assert!(told.len() > 500, "{} notices", told.len());
    check_trades(&mut daemon.client(&Identity::observer()), &whole);
    check_balances(&daemon, whole);
}

/// The journal's trades are those that were told.
fn check_trades(client: &mut Client, lines: &[Line]) {
    let trades: Vec<(u64, i64, u64)> = audit(client)
        .iter()
        .filter(|row| text(&row.what) == "trade")
        .map(|row| (row.sequence.get(), row.amount.get() as i64, row.funds_micro.get()))
        .collect();
    let swaps = lines.iter().filter(|line| line.1.starts_with("swap "));
    let told: Vec<_> = swaps.map(|line| (line.0.sequence, line.2, line.3)).collect();
    assert!(told.len() > 50, "{} trades", told.len());
    assert_eq!(trades, told);
}

/// The changes sum to each balance that was told, and in the end to those that queries show, which
/// move on with every tick.
fn check_balances(daemon: &Daemon, mut lines: Vec<Line>) {
    let mut sums = BTreeMap::<String, i64>::new();
    let mut client = daemon.client(&Identity::observer());
    let mut done = 0;
    eventually("balances that agree", || {
        for (place, of, change, balance) in &lines[done..] {
            if !of.starts_with("swap ") {
                let sum = sums.entry(of.clone()).or_default();
                *sum += change;
                assert_eq!(*sum as u64, *balance, "{of} at {place}");
            }
        }
        done = lines.len();
        let next = lines.last().expect("notices").0.after();
        let accounts = [0, 1].map(|account| {
            let row = account_row(&mut client, account);
            (row.free_micro.get() + row.held_micro.get()) as i64
        });
        let credits = [0, 1].map(|instance| {
            let row = instance_row(&mut client, instance);
            let total = |r: usize| row.free_millicredits[r].get() + row.held_millicredits[r].get();
            (0..RESOURCES).map(total).sum::<u64>() as i64
        });
        let sum = |of: &str| sums.get(of).copied().unwrap_or(0);
        let funds = [0, 1].map(|account| sum(&format!("funds {account}")));
        let of_instance = |instance: u32| {
            let prefix = format!("credits {instance} ");
            sums.iter().filter(|(of, _)| of.starts_with(&prefix)).map(|(_, sum)| sum).sum::<i64>()
        };
        if (funds, [0, 1].map(of_instance)) == (accounts, credits) {
            return Some(());
        }
        let more = read(daemon.client(&Identity::observer()), next, ALL);
        lines.extend(more.iter().filter_map(line));
        None
    });
}

/// A tenant is told what concerns its account and of a trade no more than its own side; agents are
/// told nothing; a place that is not reached yet and nonsense are refused.
#[test]
fn each_role_is_told_what_it_may_know() {
    let daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    let (seller, buyer) = (market.seller, market.buyer);
    for (party, side) in [(seller, Side::Sell), (buyer, Side::Buy)] {
        vendue_tests::market::enter(&mut market.operator, party, side, 10, 5);
    }
    deposit(&mut market.operator, buyer.account, 7);
    let told = |identity: &Identity, what| read(daemon.client(identity), START, what);
    let all = told(&Identity::operator(), ALL);
    assert_eq!(told(&Identity::observer(), ALL), all);
    let funds: Vec<_> = all.iter().filter(|n| matches!(n, Notice::Funds(_))).copied().collect();
    assert_eq!(told(&Identity::observer(), TELL_FUNDS), funds);
    let swapped = |notices: &[Notice]| {
        let swap = notices.iter().find_map(|notice| match notice {
            Notice::Swapped(m) => Some(*m),
            _ => None,
        });
        swap.expect("the trade")
    };
    let whole = swapped(&all);
    assert_eq!((whole.seller.get(), whole.buyer.get()), (seller.instance, buyer.instance));
    for party in [seller, buyer] {
        let own = told(&Identity::tenant(party.account), ALL);
        assert!(own.len() > 2 && own.len() < all.len());
        for notice in &own {
            match notice {
                Notice::Funds(m) => assert_eq!(m.account.get(), party.account),
                Notice::Credits(m) => assert_eq!(m.account.get(), party.account),
                _ => {}
            }
        }
        let trade = swapped(&own);
        let sells = party.account == seller.account;
        let shown = (trade.seller.get(), trade.buyer.get());
        assert_eq!(shown, if sells { (seller.instance, ANY) } else { (ANY, buyer.instance) });
        assert_eq!(trade.seller_fee_micro.get() > 0, sells);
        assert_eq!(trade.buyer_fee_micro.get() > 0, !sells);
        assert_eq!((trade.sequence, trade.part), (whole.sequence, whole.part));
    }
    let agent =
        Identity { role: Role::Agent, instance: buyer.instance, ..Identity::tenant(buyer.account) };
    let refused = |identity: &Identity, from, what| match Subscription::begin(
        daemon.client(identity),
        from,
        what,
    ) {
        Err(ClientError::Refused { code, .. }) => Reject::from_u8(code),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&agent, START, ALL), Some(Reject::NotPermitted));
    let observer = Identity::observer();
    assert_eq!(refused(&observer, START, 0), Some(Reject::BadField));
    assert_eq!(refused(&observer, START, 16), Some(Reject::BadField));
    let beyond = Place { sequence: 1 << 40, part: 0 };
    assert_eq!(refused(&observer, beyond, ALL), Some(Reject::BadField));
}

/// A herald over the journal of a daemon that has stopped, with a clock that only the test moves.
struct Stage {
    herald: Herald,
    hands: Arc<Hands>,
    says: ring::Producer,
    hears: ring::Consumer,
}

impl Stage {
    fn over(data_dir: &Path, durable: u64) -> Stage {
        let hands = Arc::new(Hands::at(1 << 60));
        let clock = Clock::Set(hands.clone());
        let health = Arc::new(Health::new(true, true, clock.clone()));
        health.durable.set(durable);
        let (says, subscriptions) = ring::pair_within(1 << 16).expect("a ring");
        let (frames, hears) = ring::pair_within(1 << 20).expect("a ring");
        let (_, doorbell) = vendue_wire::doorbell::pair().expect("a doorbell");
        let herald = Herald {
            subscriptions,
            frames,
            doorbell,
            dirs: Dirs::below(Host, data_dir),
            health,
            clock,
            take_max: 8,
            runs: Vec::new(),
            backlog: Default::default(),
        };
        Stage { herald, hands, says, hears }
    }

    fn say<M: Body>(&mut self, connection: u32, message: &M) {
        let (request, account) = (1.into(), ANY.into());
        let head = Said { request, connection: connection.into(), account };
        let parts = [head.as_bytes(), message.as_bytes()];
        self.says.try_push(M::KIND.into(), &parts).expect("room");
        self.says.flush();
    }

    fn subscribe(&mut self, connection: u32, from: Place) {
        let Place { sequence, part } = from;
        let (from, part) = (sequence.into(), part.into());
        self.say(connection, &Subscribe { from, part, what: ALL, reserved: [0; 3] });
    }

    /// Lets it work until it has nothing to do; gives the bodies that each connection was sent.
    fn turn(&mut self) -> BTreeMap<u32, Vec<(u8, Vec<u8>)>> {
        let mut sent = BTreeMap::<u32, Vec<(u8, Vec<u8>)>>::new();
        loop {
            let moved = self.herald.turn();
            while let Some(record) = self.hears.pop().expect("whole records") {
                let (head, bytes) = Delivery::ref_from_prefix(record.bytes).expect("a header");
                let frame = Frame::parse(bytes).expect("a frame").expect("whole");
                let body = (frame.header.kind, frame.body.to_vec());
                sent.entry(head.connection.get()).or_default().push(body);
            }
            if !moved {
                return sent;
            }
        }
    }
}

/// Nobody is sent more than it takes; who takes nothing is told where to go on, and going on there
/// completes what it had.
#[test]
fn who_does_not_take_is_told_and_resumes() {
    let mut daemon = Daemon::start(&Setup::small());
    let mut market = Market::open(&daemon);
    for amount in 1..200 {
        deposit(&mut market.operator, market.buyer.account, amount);
    }
    let whole = read(daemon.client(&Identity::observer()), START, ALL);
    assert!(daemon.terminate().success());
    let durable = whole.last().and_then(Notice::place).expect("notices").sequence;
    let mut stage = Stage::over(daemon.data_dir(), durable);
    stage.subscribe(1, START);
    stage.subscribe(2, START);
    let sent = stage.turn();
    // The answer and eight notices.
    assert_eq!([sent[&1].len(), sent[&2].len()], [9, 9]);
    assert!(stage.turn().is_empty());
    let mut got = sent[&2][1..].to_vec();
    while got.len() < whole.len() {
        stage.hands.pass(Duration::from_millis(100));
        stage.say(2, &Take { through: (got.len() as u64 + 8).into() });
        let sent = stage.turn();
        let more = &sent[&2];
        assert!(more.len() <= 8 && !more.is_empty(), "{}", more.len());
        got.extend_from_slice(more);
        got.retain(|(kind, _)| *kind != CaughtUp::KIND);
    }
    stage.hands.pass(Duration::from_secs(31));
    let ended = stage.turn().remove(&1).expect("an end");
    let [(Unsubscribed::KIND, body)] = &ended[..] else { panic!("{ended:?}") };
    let end = Unsubscribed::read_from_bytes(body).expect("whole");
    assert_eq!(end.code, Reject::Busy as u8);
    let place = Place { sequence: end.sequence.get(), part: end.part.get() };
    assert_eq!(Some(place), whole[7].place().map(Place::after));
    stage.subscribe(1, place);
    let sent = stage.turn();
    assert_eq!(sent[&1][1..], got[8..16]);
    // A connection that is gone is forgotten, and so is its state.
    stage.say(1, &Unsubscribe {});
    stage.say(2, &Unsubscribe {});
    stage.turn();
    assert!(stage.herald.runs.is_empty());
}

fn set_phase(operator: &mut Client, phase: Phase) {
    let client_id = operator.next_client_id().into();
    let book = vendue_tests::market::BOOK.into();
    let message = SetPhase { client_id, book, phase: phase as u8, reserved: [0; 5] };
    operator.send(&message).expect("a connection");
    // The reports of its trades come first.
    while vendue_tests::market::next(operator).message::<Done>().is_none() {}
}

/// Trades of an auction are told as others are, without a taker; each balance that they changed is
/// told with the request that held the auction, and the tape and the averages count them.
#[test]
fn an_auction_is_told_with_all_that_it_changes() {
    // 5%: both pay something for each trade.
    let mut daemon = Daemon::start(&Setup::small().key("maker_fee_bps", "500"));
    let mut market = Market::open(&daemon);
    let (seller, buyer) = (market.seller, market.buyer);
    set_phase(&mut market.operator, Phase::Call);
    // From 8 to 11 all of it trades: the middle, rounded down.
    for (party, side, price, quantity) in
        [(seller, Side::Sell, 8, 10), (buyer, Side::Buy, 12, 6), (buyer, Side::Buy, 11, 4)]
    {
        vendue_tests::market::enter(&mut market.operator, party, side, price, quantity);
    }
    set_phase(&mut market.operator, Phase::Continuous);
    let observe = |daemon: &Daemon| daemon.client(&Identity::observer());
    let notices = read(observe(&daemon), START, ALL);
    let swaps: Vec<_> = notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::Swapped(m) => Some(*m),
            _ => None,
        })
        .collect();
    let shown = |m: &Swapped| (m.price_ticks.get(), m.quantity.get(), m.taker_side, m.part.get());
    assert_eq!(swaps.iter().map(shown).collect::<Vec<_>>(), [(9, 6, 2, 0), (9, 4, 2, 1)]);
    for m in &swaps {
        assert_eq!((m.seller.get(), m.buyer.get()), (seller.instance, buyer.instance));
        assert!(m.seller_fee_micro.get() > 0 && m.buyer_fee_micro.get() > 0);
    }
    let sequence = swaps[0].sequence;
    let sum = |of: fn(&Swapped) -> u64| swaps.iter().map(of).sum::<u64>() as i64;
    let earned = sum(|m| m.notional_micro.get() - m.seller_fee_micro.get());
    let paid = sum(|m| m.notional_micro.get() + m.buyer_fee_micro.get());
    let changes: Vec<_> = notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::Funds(m) if m.sequence == sequence => {
                Some((m.cause, m.account.get(), m.change_micro.get() as i64))
            }
            Notice::Credits(m) if m.sequence == sequence => {
                Some((m.cause, m.instance.get(), m.change_millicredits.get() as i64))
            }
            _ => None,
        })
        .collect();
    let mut expected = [
        (SetPhase::KIND, seller.account, earned),
        (SetPhase::KIND, buyer.account, -paid),
        (SetPhase::KIND, seller.instance, -10_000),
        (SetPhase::KIND, buyer.instance, 10_000),
    ];
    // By account, by instance.
    expected[..2].sort_by_key(|change| change.1);
    expected[2..].sort_by_key(|change| change.1);
    assert_eq!(changes, expected);
    let told = |client: &mut Client| {
        let row = client.ask::<MarketRow, _>(&QueryMarket { from: 0.into() }).expect("rows")[0];
        let (book, reserved) = (ANY_BOOK.into(), [0; 6]);
        let tape = client.ask::<TradeRow, _>(&QueryTape { from: 0.into(), book, reserved });
        let tape: Vec<_> = tape.expect("the tape").iter().map(|row| row.taker_side).collect();
        (row.trades.get(), row.volume.get(), row.vwap_milliticks.get(), tape)
    };
    let before = told(&mut observe(&daemon));
    assert_eq!(before, (2, 10, 9000, vec![2, 2]));
    daemon.kill_9();
    daemon.launch();
    assert_eq!(told(&mut observe(&daemon)), before);
    let lines: Vec<Line> = notices.iter().filter_map(line).collect();
    check_balances(&daemon, lines);
}
