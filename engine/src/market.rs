//! The market: what the public sees of each book. Its last trade, the tape of the newest trades,
//! depth, average prices, and bars of a second, a minute and an hour.
//!
//! A pure function of what the machine said and when, in integers: start-up rebuilds it from a
//! snapshot and the journal's tail, and it comes out the same to the last bit as if the daemon had
//! never stopped. It stands beside the [`desk`](crate::desk), behind the core.

use crate::depth::Depth;
use crate::desk::{DeskError, IN_AUCTION, Told, row, take, word};
use crate::machine::Machine;
use crate::machine::command::DefineBook;
use crate::machine::event::{
    Asked, AuctionTrade, Event, Fill, Indicative, PhaseChanged, TradeReversed,
};
use crate::pipeline::record::{Outcome, TO_CONNECTION};
use std::collections::VecDeque;
use vendue_wire::board::{BookView, Level};
use vendue_wire::code::{Reject, Side};
use vendue_wire::frame::{self, FRAME_BYTES_MAX};
use vendue_wire::message::*;
use zerocopy::{FromBytes, IntoBytes};

/// Trades kept on the tape.
pub const TAPE_TRADES: usize = 4096;
/// Bars kept of each of [`BAR_WIDTHS_S`]: ten minutes, a day and thirty days without a gap. A bar
/// in which nothing traded takes no room.
pub const BARS_KEPT: [usize; 3] = [600, 1440, 720];
/// The width whose bars make up the day's figures.
const MINUTE: usize = 1;
/// Seconds of a day.
const DAY_S: u64 = 86_400;
const _: () = assert!(BARS_KEPT[MINUTE] as u64 * BAR_WIDTHS_S[MINUTE] as u64 >= DAY_S);

/// Trades or bars in one answer at most.
const PAGE: usize = 64;
/// Books in one answer at most.
const BOOKS_PAGE: usize = 16;
/// "That was the last page."
const LAST: u64 = u64::MAX;
const SECOND_NS: u64 = 1_000_000_000;

/// What was traded in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    trades: u64,
    /// Credits.
    volume: u64,
    /// Ticks times credits.
    notional: u128,
}

impl Sum {
    fn add(&mut self, other: &Sum) {
        self.trades += other.trades;
        self.volume += other.volume;
        self.notional += other.notional;
    }

    /// Thousandths of a tick, rounded down; 0 if nothing was traded.
    fn average(&self) -> U32 {
        average(self.notional, self.volume)
    }
}

/// An average price in thousandths of a tick, rounded down; 0 of nothing. Prices have 16 bits.
fn average(notional: u128, quantity: u64) -> U32 {
    let milliticks = (notional * 1000).checked_div(quantity.into()).unwrap_or(0);
    (milliticks as u32).into()
}

/// What is open on a side of a book.
struct Open {
    best_ticks: U32,
    /// Credits.
    quantity: u64,
    /// Ticks times credits.
    notional: u128,
}

impl Open {
    fn of(depth: &Depth, book: usize, side: Side) -> Open {
        let best = depth.levels(book, side).next();
        let (quantity, notional) = depth.sums(book, side);
        Open { best_ticks: best.map_or(0, |(price, _)| price.into()).into(), quantity, notional }
    }
}

/// The trades of one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bar {
    /// When it begins, seconds since 1970 UTC: a multiple of its width.
    start_s: u64,
    /// Open, high, low and close, in ticks.
    prices: [u16; 4],
    sum: Sum,
}

/// A book as the public sees it.
#[derive(Debug)]
struct Shown {
    view: BookView,
    /// It changed since the board showed it.
    dirty: bool,
    /// All trades since the journal began.
    all: Sum,
    /// When the last one was, nanoseconds since 1970 UTC.
    last_ns: u64,
    bars: [VecDeque<Bar>; 3],
}

/// The market.
#[derive(Debug, Default)]
pub struct Market {
    tape: VecDeque<TradeRow>,
    books: Vec<Shown>,
    depth: Depth,
}

impl Market {
    /// Adds the next book.
    pub fn add_book(&mut self, book: &DefineBook) {
        self.depth.add_book(book);
        self.books.push(Shown::new());
    }

    /// Number of books.
    pub fn books(&self) -> usize {
        self.books.len()
    }

    /// Takes in what the machine said.
    pub fn absorb(&mut self, outcome: &Outcome, event: &Event<'_>) {
        if let Some(fill) = event.read::<Fill>() {
            self.fill(outcome, fill);
        } else if let Some(trade) = event.read::<AuctionTrade>() {
            self.auction_trade(outcome, trade);
        } else if let Some(m) = event.read::<TradeReversed>() {
            // Prices and volumes go on counting it: they are what was traded at.
            let at = self.tape.partition_point(|row| row.trade.get() < m.trade.get());
            let kept = self.tape.get_mut(at).filter(|row| row.trade == m.trade);
            kept.into_iter().for_each(|row| row.reversed = 1);
        } else if let Some(changed) = event.read::<PhaseChanged>() {
            self.change(outcome, changed.book.get().into(), |view| view.phase = changed.phase);
        } else if let Some(m) = event.read::<Indicative>() {
            self.change(outcome, m.book.get().into(), |view| {
                view.indicative_ticks = m.price_ticks.get();
                view.indicative_volume = m.volume.get();
                view.indicative_imbalance = m.imbalance.get() as i64;
            });
        }
        if let Some(book) = self.depth.absorb(event) {
            self.change(outcome, book, |_| {});
        }
    }

    fn change(&mut self, outcome: &Outcome, book: usize, change: impl FnOnce(&mut BookView)) {
        let Shown { view, dirty, .. } = &mut self.books[book];
        change(view);
        (view.sequence, view.time_ns) = (outcome.sequence.get(), outcome.time_ns.get());
        *dirty = true;
    }

    fn fill(&mut self, outcome: &Outcome, fill: &Fill) {
        let taker_side = fill.taker_side();
        let (seller, buyer) = match taker_side {
            Side::Buy => (fill.maker, fill.taker),
            Side::Sell => (fill.taker, fill.maker),
        };
        self.trade(TradeRow {
            trade: fill.trade,
            sequence: outcome.sequence,
            time_ns: outcome.time_ns,
            price_ticks: fill.price_ticks.into(),
            quantity: fill.quantity,
            seller: seller.into(),
            buyer: buyer.into(),
            book: fill.book().into(),
            taker_side: taker_side as u8,
            reversed: 0,
            reserved: [0; 4],
        });
    }

    fn auction_trade(&mut self, outcome: &Outcome, trade: &AuctionTrade) {
        self.trade(TradeRow {
            trade: trade.trade,
            sequence: outcome.sequence,
            time_ns: outcome.time_ns,
            price_ticks: trade.price_ticks.into(),
            quantity: trade.quantity,
            seller: trade.seller.into(),
            buyer: trade.buyer.into(),
            book: trade.book,
            taker_side: IN_AUCTION,
            reversed: 0,
            reserved: [0; 4],
        });
    }

    /// Puts a trade on the tape and counts it in its book.
    fn trade(&mut self, trade: TradeRow) {
        if self.tape.len() == TAPE_TRADES {
            self.tape.pop_front();
        }
        self.tape.push_back(trade);
        if let Some(book) = self.books.get_mut(usize::from(trade.book.get())) {
            let price = trade.price_ticks.get() as u16;
            book.trade(trade.time_ns.get(), price, trade.quantity.get());
        }
    }

    /// Calls `show` for each book that changed since the last call.
    pub fn show_changed(&mut self, mut show: impl FnMut(usize, &BookView)) {
        for (at, book) in self.books.iter_mut().enumerate().filter(|(_, book)| book.dirty) {
            book.dirty = false;
            for (side, shown) in
                [(Side::Buy, &mut book.view.bids), (Side::Sell, &mut book.view.asks)]
            {
                *shown = Default::default();
                for (row, (price, quantity)) in shown.iter_mut().zip(self.depth.levels(at, side)) {
                    *row = Level { price_ticks: price.into(), quantity };
                }
            }
            show(at, &book.view);
        }
    }

    /// Answers a question about it; others are not its own.
    pub fn answer(&self, outcome: &Outcome, asked: &Asked, tell: &mut impl FnMut(Told<'_>)) {
        let next = match asked.kind {
            QueryTrades::KIND => self.newest_trades(asked, tell),
            QueryDepth::KIND => self.depth_row(asked, tell),
            QueryTape::KIND => match self.tape_from(asked, tell) {
                Some(next) => next,
                None => return self.too_old(asked, tell),
            },
            QueryMarket::KIND => self.market_rows(outcome, asked, tell),
            QueryBars::KIND => self.bar_rows(asked, tell),
            _ => return,
        };
        let end = QueryEnd { request: asked.request, next: next.into() };
        row(asked.connection.get(), QueryEnd::KIND, end.as_bytes(), tell);
    }

    fn depth_row(&self, asked: &Asked, tell: &mut impl FnMut(Told<'_>)) -> u64 {
        let book = usize::from(asked.book.get());
        if book < self.books.len() {
            let mut depth = DepthRow { book: asked.book, ..DepthRow::zeroed() };
            for (at, (price, quantity)) in self.best(book, Side::Buy) {
                depth.bid_ticks[at] = u32::from(price).into();
                depth.bid_quantity[at] = quantity.into();
            }
            for (at, (price, quantity)) in self.best(book, Side::Sell) {
                depth.ask_ticks[at] = u32::from(price).into();
                depth.ask_quantity[at] = quantity.into();
            }
            row(asked.connection.get(), DepthRow::KIND, depth.as_bytes(), tell);
        }
        LAST
    }

    /// The best levels of a side, numbered.
    fn best(&self, book: usize, side: Side) -> impl Iterator<Item = (usize, (u16, u64))> {
        self.depth.levels(book, side).take(DEPTH_LEVELS).enumerate()
    }

    fn newest_trades(&self, asked: &Asked, tell: &mut impl FnMut(Told<'_>)) -> u64 {
        let limit = (asked.limit.get() as usize).min(PAGE);
        let wanted = of_book(asked.book.get());
        let count = self.tape.iter().filter(wanted).count();
        for trade in self.tape.iter().filter(wanted).skip(count.saturating_sub(limit)) {
            trade_row(asked, trade, tell);
        }
        LAST
    }

    /// The number of the oldest trade that is kept; without one, of the next.
    fn oldest(&self) -> u64 {
        self.tape.front().map_or(0, |trade| trade.trade.get())
    }

    /// A page of the tape from a trade's number on; `None` if that is no longer kept.
    fn tape_from(&self, asked: &Asked, tell: &mut impl FnMut(Told<'_>)) -> Option<u64> {
        let from = asked.from.get();
        if from != 0 && from < self.oldest() {
            return None;
        }
        let first = self.tape.partition_point(|trade| trade.trade.get() < from);
        let mut wanted = self.tape.range(first..).filter(of_book(asked.book.get()));
        for trade in wanted.by_ref().take(PAGE) {
            trade_row(asked, trade, tell);
        }
        Some(wanted.next().map_or(LAST, |trade| trade.trade.get()))
    }

    fn too_old(&self, asked: &Asked, tell: &mut impl FnMut(Told<'_>)) {
        let refused = Refused {
            request: asked.request,
            detail: self.oldest().into(),
            kind: QueryTape::KIND,
            code: Reject::ReplayGone as u8,
            reserved: [0; 6],
        };
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = frame::encode(0, &refused, &mut bytes);
        let (connection, frame) = (asked.connection.get(), &bytes[..length]);
        tell(Told { tag: TO_CONNECTION, connection, slot: ANY, frame });
    }

    fn market_rows(
        &self,
        outcome: &Outcome,
        asked: &Asked,
        tell: &mut impl FnMut(Told<'_>),
    ) -> u64 {
        let now_s = outcome.time_ns.get() / SECOND_NS;
        let first = (asked.from.get() as usize).min(self.books.len());
        for (at, book) in self.books.iter().enumerate().skip(first).take(BOOKS_PAGE) {
            let sides = [Side::Buy, Side::Sell].map(|side| Open::of(&self.depth, at, side));
            let answer = book.market_row(at as u16, &sides, now_s);
            row(asked.connection.get(), MarketRow::KIND, answer.as_bytes(), tell);
        }
        let next = first + BOOKS_PAGE;
        if next < self.books.len() { next as u64 } else { LAST }
    }

    /// A page of a book's bars from the one that holds a moment on.
    fn bar_rows(&self, asked: &Asked, tell: &mut impl FnMut(Told<'_>)) -> u64 {
        let width = BAR_WIDTHS_S.iter().position(|&width_s| width_s == asked.limit.get());
        let (Some(width), Some(book)) = (width, self.books.get(usize::from(asked.book.get())))
        else {
            return LAST;
        };
        let width_s = BAR_WIDTHS_S[width];
        let bars = &book.bars[width];
        let from = start_of(asked.from.get(), width_s);
        let first = bars.partition_point(|bar| bar.start_s < from);
        for bar in bars.range(first..).take(PAGE) {
            let answer = bar.row(asked.book, width_s);
            row(asked.connection.get(), BarRow::KIND, answer.as_bytes(), tell);
        }
        bars.get(first + PAGE).map_or(LAST, |bar| bar.start_s * SECOND_NS)
    }

    /// Appends the market to a snapshot. Depth is not in it: the machine's orders make it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.tape.len() as u64);
        self.tape.iter().for_each(|trade| out.extend(trade.as_bytes()));
        put(out, self.books.len() as u64);
        for book in &self.books {
            put(out, book.view.last_ticks.into());
            put(out, book.view.last_quantity.into());
            put(out, book.last_ns);
            book.all.encode(out);
            for bars in &book.bars {
                put(out, bars.len() as u64);
                bars.iter().for_each(|bar| bar.encode(out));
            }
        }
    }

    /// Restores what [`Market::encode`] wrote; `machine` gives the depth and the phases of the
    /// books.
    ///
    /// # Errors
    /// The bytes end early, or hold other books, more than is kept, or bars out of order.
    pub fn decode(machine: &Machine, bytes: &mut &[u8]) -> Result<Market, DeskError> {
        let mut market = Market { depth: Depth::of(machine), ..Market::default() };
        for _ in 0..at_most(bytes, TAPE_TRADES)? {
            let trade = take(bytes, size_of::<TradeRow>())?;
            market.tape.push_back(TradeRow::read_from_bytes(trade).map_err(|_| DeskError)?);
        }
        if word(bytes)? != machine.books().len() as u64 {
            return Err(DeskError);
        }
        for book in machine.books() {
            let mut shown = Shown::new();
            shown.view.phase = book.phase as u8;
            shown.view.indicative_ticks = book.indicative.price.into();
            shown.view.indicative_volume = book.indicative.volume;
            shown.view.indicative_imbalance = book.indicative.imbalance;
            shown.decode(bytes)?;
            market.books.push(shown);
        }
        Ok(market)
    }
}

impl Shown {
    fn new() -> Shown {
        Shown {
            view: BookView::default(),
            dirty: true,
            all: Sum::default(),
            last_ns: 0,
            // All that they will ever need: untouched memory costs nothing.
            bars: BARS_KEPT.map(VecDeque::with_capacity),
        }
    }

    fn trade(&mut self, time_ns: u64, price: u16, quantity: u32) {
        let notional = u128::from(price) * u128::from(quantity);
        let sum = Sum { trades: 1, volume: quantity.into(), notional };
        self.all.add(&sum);
        self.last_ns = time_ns;
        self.view.last_ticks = price.into();
        self.view.last_quantity = quantity;
        self.view.trades = self.all.trades;
        self.view.volume = self.all.volume;
        for (width, bars) in self.bars.iter_mut().enumerate() {
            let start_s = start_of(time_ns, BAR_WIDTHS_S[width]);
            match bars.back_mut().filter(|bar| bar.start_s == start_s) {
                Some(bar) => bar.add(price, &sum),
                None => {
                    if bars.len() == BARS_KEPT[width] {
                        bars.pop_front();
                    }
                    bars.push_back(Bar { start_s, prices: [price; 4], sum });
                }
            }
        }
    }

    fn market_row(&self, book: u16, [bids, asks]: &[Open; 2], now_s: u64) -> MarketRow {
        let mut day = Sum::default();
        let recent = self.bars[MINUTE].iter().rev();
        let within = |bar: &&Bar| bar.start_s + DAY_S > now_s;
        recent.take_while(within).for_each(|bar| day.add(&bar.sum));
        MarketRow {
            trades: self.all.trades.into(),
            volume: self.all.volume.into(),
            day_trades: day.trades.into(),
            day_volume: day.volume.into(),
            bid_quantity: bids.quantity.into(),
            ask_quantity: asks.quantity.into(),
            last_time_ns: self.last_ns.into(),
            last_ticks: self.view.last_ticks.into(),
            last_quantity: self.view.last_quantity.into(),
            bid_ticks: bids.best_ticks,
            ask_ticks: asks.best_ticks,
            average_bid_milliticks: average(bids.notional, bids.quantity),
            average_ask_milliticks: average(asks.notional, asks.quantity),
            vwap_milliticks: self.all.average(),
            day_vwap_milliticks: day.average(),
            book: book.into(),
            reserved: [0; 6],
        }
    }

    fn decode(&mut self, bytes: &mut &[u8]) -> Result<(), DeskError> {
        self.view.last_ticks = word(bytes)? as u32;
        self.view.last_quantity = word(bytes)? as u32;
        self.last_ns = word(bytes)?;
        self.all = Sum::decode(bytes)?;
        self.view.trades = self.all.trades;
        self.view.volume = self.all.volume;
        for (width, bars) in self.bars.iter_mut().enumerate() {
            for _ in 0..at_most(bytes, BARS_KEPT[width])? {
                let bar = Bar::decode(bytes)?;
                let later = bars.back().is_none_or(|last| last.start_s < bar.start_s);
                if !later || bar.start_s % u64::from(BAR_WIDTHS_S[width]) != 0 {
                    return Err(DeskError);
                }
                bars.push_back(bar);
            }
        }
        Ok(())
    }
}

impl Bar {
    fn add(&mut self, price: u16, sum: &Sum) {
        let [_, high, low, close] = &mut self.prices;
        *high = price.max(*high);
        *low = price.min(*low);
        *close = price;
        self.sum.add(sum);
    }

    fn row(&self, book: U16, width_s: u32) -> BarRow {
        let [open_ticks, high_ticks, low_ticks, close_ticks] =
            self.prices.map(|price| U32::from(u32::from(price)));
        BarRow {
            start_ns: (self.start_s * SECOND_NS).into(),
            trades: self.sum.trades.into(),
            volume: self.sum.volume.into(),
            width_s: width_s.into(),
            open_ticks,
            high_ticks,
            low_ticks,
            close_ticks,
            vwap_milliticks: self.sum.average(),
            book,
            reserved: [0; 6],
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.start_s);
        self.prices.iter().for_each(|price| out.extend(price.to_le_bytes()));
        self.sum.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Bar, DeskError> {
        let start_s = word(bytes)?;
        let prices = word(bytes)?;
        let prices = [0, 16, 32, 48].map(|shift| (prices >> shift) as u16);
        Ok(Bar { start_s, prices, sum: Sum::decode(bytes)? })
    }
}

impl Sum {
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.trades);
        put(out, self.volume);
        out.extend(self.notional.to_le_bytes());
    }

    fn decode(bytes: &mut &[u8]) -> Result<Sum, DeskError> {
        let (trades, volume) = (word(bytes)?, word(bytes)?);
        let notional = u128::from(word(bytes)?) | u128::from(word(bytes)?) << 64;
        Ok(Sum { trades, volume, notional })
    }
}

/// When the bar that holds a moment begins, in seconds.
fn start_of(time_ns: u64, width_s: u32) -> u64 {
    let second = time_ns / SECOND_NS;
    second - second % u64::from(width_s)
}

/// A trade of the tape, which is public; who stands behind it is not.
fn trade_row(asked: &Asked, trade: &TradeRow, tell: &mut impl FnMut(Told<'_>)) {
    let mut shown = *trade;
    if asked.narrow == 1 {
        (shown.seller, shown.buyer) = (ANY.into(), ANY.into());
    }
    row(asked.connection.get(), TradeRow::KIND, shown.as_bytes(), tell);
}

fn of_book(book: u16) -> impl Fn(&&TradeRow) -> bool + Copy {
    move |trade| book == ANY_BOOK || trade.book.get() == book
}

fn put(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_le_bytes());
}

/// A count, which may be so much.
fn at_most(bytes: &mut &[u8], most: usize) -> Result<u64, DeskError> {
    word(bytes).and_then(|count| if count <= most as u64 { Ok(count) } else { Err(DeskError) })
}
