//! What the public learns of the market, against a naive model that keeps every trade and looks
//! at every open order: on the real machine with chance's orders, and on the real daemon across
//! restarts.

use std::time::Duration;
use vendue_engine::machine::command::{DefineBook, Genesis};
use vendue_engine::machine::event::{Asked, Fill};
use vendue_engine::market::{BARS_KEPT, Market, TAPE_TRADES};
use vendue_engine::pipeline::record::Outcome;
use vendue_tests::chance::Chance;
use vendue_tests::daemon::{Daemon, Setup, eventually};
use vendue_tests::market::{self, CREDITS, enter};
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::client::{Client, ClientError, Identity};
use vendue_wire::code::{Reject, Resource, Role, Side};
use vendue_wire::frame::Frame;
use vendue_wire::message::*;

const SECOND_NS: u64 = 1_000_000_000;
const BOOKS: u16 = 2;
const INSTANCES: u32 = 4;

fn room() -> Room {
    let genesis = Genesis {
        accounts_max: 8.into(),
        orders_max: 512.into(),
        orders_per_instance_max: 256.into(),
        sessions_max: 4.into(),
        credit_cap_s: 86_400.into(),
        burst_resume_ms: 5000.into(),
        ..small_genesis()
    };
    let book = |resource: Resource| DefineBook {
        capacity_vru: 1_000_000.into(),
        price_ticks_max: 60.into(),
        burst_percent: 400.into(),
        resource: resource as u8,
        ..small_book()
    };
    let mut room = Room::new(&genesis, &[book(Resource::Cpu), book(Resource::Memory)]);
    let operator = room.open(1, Role::Operator, ANY, false);
    for at in 0..INSTANCES {
        let account = room.account(operator, &format!("a{at}"), 0, (u64::MAX, u64::MAX));
        room.deposit(operator, account, 1 << 40);
        room.instance(operator, account, &format!("i{at}"), [100, 100, 0, 0, 0]);
        for resource in [Resource::Cpu, Resource::Memory] {
            let grant = GrantCredits {
                client_id: room.next_id(),
                amount_millicredits: (1 << 40).into(),
                instance: at.into(),
                resource: resource as u8,
                reserved: [0; 3],
            };
            room.apply(operator, &grant);
        }
    }
    room
}

/// Every trade there ever was.
#[derive(Default)]
struct Naive {
    trades: Vec<(u64, Fill)>,
}

/// Thousandths of the average price of pairs of price and quantity.
fn average(pairs: &[(u128, u128)]) -> u32 {
    let quantity: u128 = pairs.iter().map(|(_, quantity)| quantity).sum();
    let notional: u128 = pairs.iter().map(|(price, quantity)| price * quantity).sum();
    (1000 * notional).checked_div(quantity).unwrap_or(0) as u32
}

fn pairs<'a>(fills: impl Iterator<Item = &'a Fill>) -> Vec<(u128, u128)> {
    fills.map(|fill| (fill.price_ticks.get().into(), fill.quantity.get().into())).collect()
}

impl Naive {
    fn of_book(&self, book: u16) -> Vec<(u64, Fill)> {
        self.trades.iter().copied().filter(|(_, fill)| fill.book() == book).collect()
    }

    fn market_row(&self, book: u16, orders: &[OrderRow], now_ns: u64) -> MarketRow {
        let trades = self.of_book(book);
        let minute = |time_ns: u64| time_ns / SECOND_NS / 60;
        let day: Vec<&Fill> = trades
            .iter()
            .filter(|(time_ns, _)| minute(*time_ns) * 60 + 86_400 > now_ns / SECOND_NS)
            .map(|(_, fill)| fill)
            .collect();
        let side = |side: Side| -> Vec<(u128, u128)> {
            let of_side = |row: &&OrderRow| row.book.get() == book && row.side == side as u8;
            let pair = |row: &OrderRow| (row.price_ticks.get().into(), row.quantity.get().into());
            orders.iter().filter(of_side).map(pair).collect()
        };
        let (bids, asks) = (side(Side::Buy), side(Side::Sell));
        let quantity = |pairs: &[(u128, u128)]| {
            U64::new(pairs.iter().map(|(_, quantity)| *quantity as u64).sum())
        };
        let all = pairs(trades.iter().map(|(_, fill)| fill));
        let today = pairs(day.iter().copied());
        let last = trades.last();
        MarketRow {
            trades: (trades.len() as u64).into(),
            volume: quantity(&all),
            day_trades: (day.len() as u64).into(),
            day_volume: quantity(&today),
            bid_quantity: quantity(&bids),
            ask_quantity: quantity(&asks),
            last_time_ns: last.map_or(0, |(time_ns, _)| *time_ns).into(),
            last_ticks: last.map_or(0, |(_, fill)| u32::from(fill.price_ticks.get())).into(),
            last_quantity: last.map_or(U32::ZERO, |(_, fill)| fill.quantity),
            bid_ticks: (bids.iter().map(|(price, _)| *price).max().unwrap_or(0) as u32).into(),
            ask_ticks: (asks.iter().map(|(price, _)| *price).min().unwrap_or(0) as u32).into(),
            average_bid_milliticks: average(&bids).into(),
            average_ask_milliticks: average(&asks).into(),
            vwap_milliticks: average(&all).into(),
            day_vwap_milliticks: average(&today).into(),
            book: book.into(),
            reserved: [0; 6],
        }
    }

    fn bars(&self, book: u16, width: usize) -> Vec<BarRow> {
        let rows: Vec<TradeRow> = self.of_book(book).iter().map(trade_row).collect();
        let bars = bars_of(&rows, book, BAR_WIDTHS_S[width]);
        bars[bars.len().saturating_sub(BARS_KEPT[width])..].to_vec()
    }
}

fn trade_row((time_ns, fill): &(u64, Fill)) -> TradeRow {
    TradeRow {
        trade: fill.trade,
        time_ns: (*time_ns).into(),
        price_ticks: u32::from(fill.price_ticks.get()).into(),
        quantity: fill.quantity,
        book: fill.book().into(),
        ..TradeRow::zeroed()
    }
}

/// The bars of a book's trades.
fn bars_of(trades: &[TradeRow], book: u16, width_s: u32) -> Vec<BarRow> {
    let width_ns = u64::from(width_s) * SECOND_NS;
    let start = |row: &TradeRow| row.time_ns.get() / width_ns * width_ns;
    let bar = |rows: &[TradeRow]| {
        let prices = || rows.iter().map(|row| row.price_ticks.get());
        let pair = |row: &TradeRow| (row.price_ticks.get().into(), row.quantity.get().into());
        let pairs: Vec<(u128, u128)> = rows.iter().map(pair).collect();
        BarRow {
            start_ns: start(&rows[0]).into(),
            trades: (rows.len() as u64).into(),
            volume: rows.iter().map(|row| u64::from(row.quantity.get())).sum::<u64>().into(),
            width_s: width_s.into(),
            open_ticks: rows[0].price_ticks,
            high_ticks: prices().max().expect("a trade").into(),
            low_ticks: prices().min().expect("a trade").into(),
            close_ticks: rows[rows.len() - 1].price_ticks,
            vwap_milliticks: average(&pairs).into(),
            book: book.into(),
            reserved: [0; 6],
        }
    };
    let of_book: Vec<TradeRow> =
        trades.iter().copied().filter(|row| row.book.get() == book).collect();
    of_book.chunk_by(|a, b| start(a) == start(b)).map(bar).collect()
}

/// All pages of the market's answer.
fn ask<R: Body>(market: &Market, now_ns: u64, asked: &Asked) -> Result<Vec<R>, Refused> {
    let outcome = Outcome { sequence: 0.into(), time_ns: now_ns.into() };
    let (mut rows, mut asked) = (Vec::new(), *asked);
    loop {
        let (mut next, mut refused) = (0, None);
        market.answer(&outcome, &asked, &mut |told| {
            let frame = Frame::parse(told.frame).expect("a frame").expect("whole");
            rows.extend(frame.message::<R>().copied());
            next = frame.message::<QueryEnd>().map_or(next, |end| end.next.get());
            refused = refused.or(frame.message::<Refused>().copied());
        });
        match refused {
            Some(refused) => return Err(refused),
            None if next == u64::MAX => return Ok(rows),
            None => assert!(next > asked.from.get(), "page {next} after {}", asked.from),
        }
        asked.from = next.into();
    }
}

fn check(market: &Market, naive: &Naive, room: &mut Room) {
    let now_ns = room.time_ns;
    let mut orders = Vec::new();
    for instance in 0..INSTANCES {
        let mut from = 0_u64;
        while from != u64::MAX {
            let query = QueryOrders { instance: instance.into(), from: (from as u32).into() };
            room.apply(ANY, &query);
            orders.extend(room.said::<OrderRow>().into_iter().map(|(_, row)| row));
            from = room.one::<QueryEnd>().next.get();
        }
    }
    let asked = |kind| Asked { kind, ..Asked::zeroed() };
    let expected: Vec<_> = (0..BOOKS).map(|b| naive.market_row(b, &orders, now_ns)).collect();
    assert_eq!(ask::<MarketRow>(market, now_ns, &asked(QueryMarket::KIND)), Ok(expected));
    for book in 0..BOOKS {
        for (width, width_s) in BAR_WIDTHS_S.into_iter().enumerate() {
            let asked =
                Asked { book: book.into(), limit: width_s.into(), ..asked(QueryBars::KIND) };
            let bars = naive.bars(book, width);
            assert_eq!(ask::<BarRow>(market, now_ns, &asked).as_ref(), Ok(&bars));
            // From a moment within a bar on: that bar is the first.
            let middle = bars.len() / 2;
            let from = bars.get(middle).map_or(0, |bar| bar.start_ns.get() + 1);
            let asked = Asked { from: from.into(), ..asked };
            assert_eq!(ask::<BarRow>(market, now_ns, &asked), Ok(bars[middle..].to_vec()));
        }
    }
    let kept = &naive.trades[naive.trades.len().saturating_sub(TAPE_TRADES)..];
    let number = |row: &TradeRow| (row.trade, row.time_ns, row.price_ticks, row.quantity);
    let tape = |from: u64, book: u16| {
        let asked = Asked { from: from.into(), book: book.into(), ..asked(QueryTape::KIND) };
        ask::<TradeRow>(market, now_ns, &asked)
            .map(|rows| rows.iter().map(number).collect::<Vec<_>>())
    };
    let rows: Vec<TradeRow> = kept.iter().map(trade_row).collect();
    assert_eq!(tape(0, ANY_BOOK), Ok(rows.iter().map(number).collect()));
    let Some(oldest) = rows.first().map(|row| row.trade.get()) else { return };
    let (from, later) = (oldest + 7, |row: &&TradeRow| row.trade.get() >= oldest + 7);
    let of_one = |row: &&TradeRow| row.book.get() == 1;
    assert_eq!(tape(from, 1), Ok(rows.iter().filter(later).filter(of_one).map(number).collect()));
    if oldest > 1 {
        let refused = tape(oldest - 1, ANY_BOOK).expect_err("a trade that is gone");
        let told = (refused.code, refused.detail.get());
        assert_eq!(told, (Reject::ReplayGone as u8, oldest));
    }
}

/// A market fed with everything, and now and then restored from its own bytes, agrees with the
/// naive model, whatever the pauses between trades.
#[test]
fn the_market_is_what_its_trades_and_orders_say() {
    for seed in 0..3 {
        let mut chance = Chance::new(seed);
        let mut room = room();
        let mut market = Market::default();
        room.machine.definitions().iter().for_each(|book| market.add_book(book));
        let mut naive = Naive::default();
        for step in 1..=12_000_u64 {
            // Seconds, minutes, hours and once in a while days pass.
            let pause_ms = [1, 300, 2000, 90_000, 4_000_000, 100_000_000];
            let often = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 4];
            let kind = often[chance.below(often.len() as u64) as usize];
            let kind = if chance.below(500) == 0 { 5 } else { kind };
            room.time_ns += chance.below(pause_ms[kind] * 1_000_000);
            let order = NewOrder {
                client_id: room.next_id(),
                instance: (chance.below(INSTANCES.into()) as u32).into(),
                price_ticks: (1 + chance.below(60) as u32).into(),
                quantity: (1 + chance.below(1000) as u32).into(),
                book: (chance.below(BOOKS.into()) as u16).into(),
                side: chance.below(2) as u8,
                ..NewOrder::zeroed()
            };
            let cancel = MassCancel {
                instance: order.instance,
                book: order.book,
                side: order.side,
                reserved: 0,
            };
            let env = match chance.below(40) {
                0 => room.apply(0, &cancel),
                _ => room.apply(0, &order),
            };
            let outcome = Outcome { sequence: env.sequence.into(), time_ns: env.time_ns.into() };
            for event in room.out.events() {
                market.absorb(&outcome, &event);
                if let Some(fill) = event.read::<Fill>() {
                    naive.trades.push((env.time_ns, *fill));
                }
            }
            if chance.below(1500) == 0 {
                let mut bytes = Vec::new();
                market.encode(&mut bytes);
                let rest = &mut &bytes[..];
                market = Market::decode(&room.machine, rest).expect("its own bytes");
                assert!(rest.is_empty());
            }
            if step % 1000 == 0 {
                check(&market, &naive, &mut room);
            }
        }
        assert!(naive.trades.len() > TAPE_TRADES, "{} trades", naive.trades.len());
        for (width, kept) in BARS_KEPT.into_iter().enumerate() {
            let bars = naive.bars(0, width).len();
            assert!(bars == kept || width > 0, "{bars} bars of {} s", BAR_WIDTHS_S[width]);
        }
    }
}

/// All that the daemon tells of its market.
type Told = (Vec<MarketRow>, Vec<Vec<BarRow>>, Vec<TradeRow>);

fn told(client: &mut Client) -> Told {
    let market = client.ask_all(|from| QueryMarket { from: (from as u32).into() });
    let bars = BAR_WIDTHS_S.map(|width_s| {
        let bars = client.ask_all(|from_ns| QueryBars {
            from_ns: from_ns.into(),
            width_s: width_s.into(),
            book: market::BOOK.into(),
            reserved: 0.into(),
        });
        bars.expect("bars")
    });
    let tape = client.ask_all(|from| QueryTape {
        from: from.into(),
        book: ANY_BOOK.into(),
        reserved: [0; 6],
    });
    (market.expect("the market"), bars.to_vec(), tape.expect("the tape"))
}

/// Bars, VWAP and averages as the daemon tells them are those of its tape and its orders; a crash
/// and a clean stop, after which state comes from the journal and from a snapshot, change no bit.
#[test]
fn the_daemon_tells_of_its_market_and_forgets_nothing() {
    let mut daemon = Daemon::start(&Setup::small());
    let market = market::Market::open(&daemon);
    let mut chance = Chance::new(1);
    let (mut sold, mut trades) = (0, 0_u64);
    for round in 0..4 {
        let mut sells = daemon.client(&Identity::tenant(market.seller.account));
        let mut buys = daemon.client(&Identity::tenant(market.buyer.account));
        for _ in 0..40 {
            let price = 2 + chance.below(20) as u32;
            let quantity = 1 + chance.below(50) as u32;
            enter(&mut sells, market.seller, Side::Sell, price, quantity);
            enter(&mut buys, market.buyer, Side::Buy, price, quantity);
            (sold, trades) = (sold + quantity, trades + 1);
        }
        assert!(sold < CREDITS);
        // These stay: two levels a side, which do not meet.
        enter(&mut sells, market.seller, Side::Sell, 100 + round, 3);
        enter(&mut sells, market.seller, Side::Sell, 200, 5);
        enter(&mut buys, market.buyer, Side::Buy, 1, 7 + round);
        let before = told(&mut daemon.client(&Identity::observer()));
        check_told(&before, trades, round);
        // A clean stop snapshots, a crash does not.
        if round % 2 == 0 {
            daemon.kill_9()
        } else {
            assert!(daemon.terminate().success())
        }
        daemon.launch();
        let after = told(&mut daemon.client(&Identity::observer()));
        assert_eq!(after, before, "round {round}");
        // The next bar of a second.
        std::thread::sleep(Duration::from_millis(1100));
    }
    check_questions(&mut daemon.client(&Identity::observer()));
}

fn check_told((rows, bars, tape): &Told, trades: u64, round: u32) {
    let row = &rows[usize::from(market::BOOK)];
    assert_eq!(
        (tape.len() as u64, row.trades.get(), row.day_trades.get()),
        (trades, trades, trades)
    );
    for (bars, width_s) in bars.iter().zip(BAR_WIDTHS_S) {
        assert_eq!(*bars, bars_of(tape, market::BOOK, width_s));
    }
    let pair = |row: &TradeRow| (row.price_ticks.get().into(), row.quantity.get().into());
    let vwap = average(&tape.iter().map(pair).collect::<Vec<(u128, u128)>>());
    assert_eq!((row.vwap_milliticks.get(), row.day_vwap_milliticks.get()), (vwap, vwap));
    let last = tape.last().expect("trades");
    assert_eq!((row.last_ticks, row.last_quantity), (last.price_ticks, last.quantity));
    assert_eq!(row.last_time_ns, last.time_ns);
    let asks: Vec<(u128, u128)> =
        (0..=u128::from(round)).flat_map(|earlier| [(100 + earlier, 3), (200, 5)]).collect();
    let wanted: u64 = (0..=u64::from(round)).map(|earlier| 7 + earlier).sum();
    assert_eq!(row.average_ask_milliticks.get(), average(&asks));
    assert_eq!((row.average_bid_milliticks.get(), row.bid_quantity.get()), (1000, wanted));
    assert_eq!((row.bid_ticks.get(), row.ask_ticks.get()), (1, 100));
    assert_eq!(row.ask_quantity.get(), 8 * u64::from(round + 1));
}

/// A width that is none is refused; a book that is none has no bars; the tape goes on from any
/// trade.
fn check_questions(client: &mut Client) {
    let bars = |book: u16, width_s: u32| QueryBars {
        from_ns: 0.into(),
        width_s: width_s.into(),
        book: book.into(),
        reserved: 0.into(),
    };
    let refused = client.ask::<BarRow, _>(&bars(market::BOOK, 7));
    let bad_field = Reject::BadField as u8;
    assert!(matches!(refused, Err(ClientError::Refused { code, .. }) if code == bad_field));
    assert_eq!(client.ask::<BarRow, _>(&bars(999, 1)).expect("an answer"), []);
    let tape = |client: &mut Client, from: u64| {
        let query = QueryTape { from: from.into(), book: ANY_BOOK.into(), reserved: [0; 6] };
        client.ask::<TradeRow, _>(&query).expect("the tape")
    };
    let first = eventually("a trade", || tape(client, 0).first().copied());
    let some = tape(client, first.trade.get() + 9);
    assert_eq!(some[0].trade.get(), first.trade.get() + 9);
    assert_eq!(tape(client, first.trade.get() + 1_000_000), []);
}
