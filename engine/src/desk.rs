//! The desk: turns the machine's events into what each party is told, numbers each session's
//! reports, keeps the newest of them for replay, and keeps the tape and the depth of the books.
//!
//! Like the machine it is a pure function of the commands, so start-up rebuilds it the same way:
//! from a snapshot and the log's tail. It runs behind the machine, in the publish stage.

use crate::depth::Depth;
use crate::machine::command::DefineBook;
use crate::machine::event::{
    Asked, AuctionTrade, Event, Fill, Indicative, PhaseChanged, SessionOpened, SessionRefused,
};
use crate::pipeline::record::{OPENED, Outcome, REFUSED, TO_CONNECTION, TO_SESSION};
use std::collections::VecDeque;
use vendue_wire::board::{BookView, Level};
use vendue_wire::code::Side;
use vendue_wire::frame::{self, FRAME_BYTES_MAX, Frame};
use vendue_wire::message::*;
use zerocopy::{FromBytes, IntoBytes};

/// Trades kept on the tape.
pub const TAPE_TRADES: usize = 4096;
/// Trades in one answer at most.
const TRADES_PAGE: usize = 64;
/// Neither party of an auction's trade took: `maker` and `taker_side` say so.
const IN_AUCTION: u8 = 2;

/// A frame on its way, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// `TO_SESSION`, `TO_CONNECTION`, `OPENED` or `REFUSED`.
    pub tag: u32,
    /// Connection, where the tag names one.
    pub connection: u32,
    /// Session's slot, where the tag names one.
    pub slot: u32,
    /// The encoded frame.
    pub frame: &'a [u8],
}

/// A session's reports: how many there were, and the newest of them.
#[derive(Debug, Default)]
struct Stream {
    /// Sequence of the next report, less one.
    last: u64,
    /// Frames, one after the other, the newest last.
    kept: VecDeque<u8>,
    /// How many frames that is.
    frames: u64,
}

/// A book as the public sees it.
#[derive(Debug)]
struct Shown {
    view: BookView,
    dirty: bool,
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    streams: Vec<Stream>,
    replay_bytes: usize,
    tape: VecDeque<TradeRow>,
    books: Vec<Shown>,
    depth: Depth,
}

/// Why bytes are not a desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot's sessions and tape cannot be read")]
pub struct DeskError;

impl Desk {
    /// A desk for `sessions` sessions, each keeping up to `replay_bytes` of its newest reports.
    pub fn new(sessions: u32, replay_bytes: usize) -> Desk {
        let streams = (0..sessions).map(|_| Stream::default()).collect();
        let (tape, books, depth) = (VecDeque::new(), Vec::new(), Depth::default());
        Desk { streams, replay_bytes, tape, books, depth }
    }

    /// Adds the next book.
    pub fn add_book(&mut self, book: &DefineBook) {
        self.books.push(Shown { view: BookView::default(), dirty: true });
        self.depth.add_book(book);
    }

    /// Number of books.
    pub fn books(&self) -> usize {
        self.books.len()
    }

    /// Takes one event in and tells who is concerned.
    pub fn absorb(
        &mut self,
        outcome: &Outcome,
        event: &Event<'_>,
        tell: &mut impl FnMut(Told<'_>),
    ) {
        if let Some(book) = self.depth.absorb(event) {
            let Shown { view, dirty } = &mut self.books[book];
            (view.sequence, view.time_ns) = (outcome.sequence.get(), outcome.time_ns.get());
            *dirty = true;
        }
        match event.kind {
            0x90..0xa0 => self.report(event.target, event.kind, event.body, tell),
            0xb0..0xc0 => row(event.target, event.kind, event.body, tell),
            _ => self.absorb_internal(outcome, event, tell),
        }
    }

    fn absorb_internal(
        &mut self,
        outcome: &Outcome,
        event: &Event<'_>,
        tell: &mut impl FnMut(Told<'_>),
    ) {
        if let Some(fill) = event.read::<Fill>() {
            self.fill(outcome, fill, tell);
        } else if let Some(trade) = event.read::<AuctionTrade>() {
            self.auction_trade(outcome, trade, tell);
        } else if let Some(changed) = event.read::<PhaseChanged>() {
            self.change(outcome, changed.book.get(), |view| view.phase = changed.phase);
        } else if let Some(m) = event.read::<Indicative>() {
            self.change(outcome, m.book.get(), |view| {
                view.indicative_ticks = m.price_ticks.get();
                view.indicative_volume = m.volume.get();
                view.indicative_imbalance = m.imbalance.get() as i64;
            });
        } else if let Some(opened) = event.read::<SessionOpened>() {
            self.opened(outcome, event.target, opened, tell);
        } else if let Some(refused) = event.read::<SessionRefused>() {
            let body = Refused { kind: Logon::KIND, code: refused.code, ..Refused::zeroed() };
            let mut bytes = [0; FRAME_BYTES_MAX];
            let length = frame::encode(0, &body, &mut bytes);
            let connection = refused.connection.get();
            tell(Told { tag: REFUSED, connection, slot: ANY, frame: &bytes[..length] });
        } else if let Some(asked) = event.read::<Asked>() {
            match asked.kind {
                Replay::KIND => self.replay(event.target, asked, tell),
                QueryTrades::KIND => self.trades(asked, tell),
                QueryDepth::KIND => self.depth_row(asked, tell),
                _ => {}
            }
        }
    }

    /// Numbers a report, keeps it, sends it.
    fn report(&mut self, slot: u32, kind: u8, body: &[u8], tell: &mut impl FnMut(Told<'_>)) {
        let Some(stream) = self.streams.get_mut(slot as usize) else { return };
        stream.last += 1;
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = frame::encode_raw(kind, stream.last, body, &mut bytes);
        let frame = &bytes[..length];
        if stream.kept.len() + length > self.replay_bytes {
            // An eighth at once: forgetting costs more than what is forgotten.
            stream.forget_down_to(self.replay_bytes - length.max(self.replay_bytes / 8));
        }
        stream.kept.extend(frame);
        stream.frames += 1;
        tell(Told { tag: TO_SESSION, connection: ANY, slot, frame });
    }

    fn fill(&mut self, outcome: &Outcome, fill: &Fill, tell: &mut impl FnMut(Told<'_>)) {
        let taker_side = fill.taker_side();
        let taker = Filled {
            trade: fill.trade,
            client_id: fill.taker_client_id,
            handle: fill.taker_handle,
            time_ns: outcome.time_ns,
            instance: fill.taker.into(),
            price_ticks: fill.price_ticks.into(),
            quantity: fill.quantity,
            remaining: fill.taker_remaining,
            counterparty: fill.maker_account.into(),
            fee_micro: fill.taker_fee_micro,
            book: fill.book().into(),
            side: taker_side as u8,
            maker: 0,
        };
        let maker = Filled {
            client_id: fill.maker_client_id,
            handle: fill.maker_handle,
            instance: fill.maker.into(),
            remaining: fill.maker_remaining,
            counterparty: fill.taker_account.into(),
            fee_micro: fill.maker_fee_micro,
            side: taker_side.opposite() as u8,
            maker: 1,
            ..taker
        };
        self.report(fill.maker_session.get().into(), Filled::KIND, maker.as_bytes(), tell);
        self.report(fill.taker_session.get().into(), Filled::KIND, taker.as_bytes(), tell);
        let (seller, buyer) = match taker_side {
            Side::Buy => (fill.maker, fill.taker),
            Side::Sell => (fill.taker, fill.maker),
        };
        self.record(TradeRow {
            trade: fill.trade,
            sequence: outcome.sequence,
            time_ns: outcome.time_ns,
            price_ticks: fill.price_ticks.into(),
            quantity: fill.quantity,
            seller: seller.into(),
            buyer: buyer.into(),
            book: fill.book().into(),
            taker_side: taker_side as u8,
            reserved: [0; 5],
        });
    }

    /// An auction's trade: both parties rested.
    fn auction_trade(
        &mut self,
        outcome: &Outcome,
        trade: &AuctionTrade,
        tell: &mut impl FnMut(Told<'_>),
    ) {
        let buyer = Filled {
            trade: trade.trade,
            client_id: trade.buyer_client_id,
            handle: trade.buyer_handle,
            time_ns: outcome.time_ns,
            instance: trade.buyer.into(),
            price_ticks: trade.price_ticks.into(),
            quantity: trade.quantity,
            remaining: trade.buyer_remaining,
            counterparty: trade.seller_account.into(),
            fee_micro: trade.buyer_fee_micro,
            book: trade.book,
            side: Side::Buy as u8,
            maker: IN_AUCTION,
        };
        let seller = Filled {
            client_id: trade.seller_client_id,
            handle: trade.seller_handle,
            instance: trade.seller.into(),
            remaining: trade.seller_remaining,
            counterparty: trade.buyer_account.into(),
            fee_micro: trade.seller_fee_micro,
            side: Side::Sell as u8,
            ..buyer
        };
        self.report(trade.seller_session.get().into(), Filled::KIND, seller.as_bytes(), tell);
        self.report(trade.buyer_session.get().into(), Filled::KIND, buyer.as_bytes(), tell);
        self.record(TradeRow {
            trade: trade.trade,
            sequence: outcome.sequence,
            time_ns: outcome.time_ns,
            price_ticks: trade.price_ticks.into(),
            quantity: trade.quantity,
            seller: trade.seller.into(),
            buyer: trade.buyer.into(),
            book: trade.book,
            taker_side: IN_AUCTION,
            reserved: [0; 5],
        });
    }

    /// Puts a trade on the tape and counts it in its book.
    fn record(&mut self, trade: TradeRow) {
        if self.tape.len() == TAPE_TRADES {
            self.tape.pop_front();
        }
        self.tape.push_back(trade);
        if let Some(book) = self.books.get_mut(usize::from(trade.book.get())) {
            book.view.last_ticks = trade.price_ticks.get();
            book.view.last_quantity = trade.quantity.get();
            book.view.trades += 1;
            book.view.volume += u64::from(trade.quantity.get());
            book.dirty = true;
        }
    }

    fn change(&mut self, outcome: &Outcome, book: u16, change: impl FnOnce(&mut BookView)) {
        let Some(book) = self.books.get_mut(usize::from(book)) else { return };
        change(&mut book.view);
        book.view.sequence = outcome.sequence.get();
        book.view.time_ns = outcome.time_ns.get();
        book.dirty = true;
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

    fn opened(
        &mut self,
        outcome: &Outcome,
        slot: u32,
        opened: &SessionOpened,
        tell: &mut impl FnMut(Told<'_>),
    ) {
        let Some(stream) = self.streams.get_mut(slot as usize) else { return };
        if opened.fresh == 1 {
            *stream = Stream::default();
        }
        let ack = LogonAck {
            session: opened.session,
            last_request: opened.last_request,
            last_client_id: opened.last_client_id,
            next_sequence: (stream.last + 1).into(),
            oldest_sequence: (stream.last + 1 - stream.frames).into(),
            time_ns: outcome.time_ns,
            account: opened.account,
            instance: opened.instance,
            heartbeat_ms: opened.heartbeat_ms,
            role: opened.role,
            reserved: [0; 3],
        };
        let connection = opened.connection.get();
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = frame::encode(0, &ack, &mut bytes);
        tell(Told { tag: OPENED, connection, slot, frame: &bytes[..length] });
        if opened.replay_from.get() != 0 {
            let asked = Asked {
                from: opened.replay_from,
                connection: opened.connection,
                ..Asked::zeroed()
            };
            self.replay(slot, &asked, tell);
        }
    }

    /// Sends kept reports again, then says where the new ones start.
    fn replay(&mut self, slot: u32, asked: &Asked, tell: &mut impl FnMut(Told<'_>)) {
        let Some(stream) = self.streams.get_mut(slot as usize) else { return };
        let connection = asked.connection.get();
        let oldest = stream.last + 1 - stream.frames;
        let mut bytes = [0; FRAME_BYTES_MAX];
        if asked.from.get() < oldest {
            let refused = Refused {
                request: asked.request,
                detail: oldest.into(),
                kind: Replay::KIND,
                code: vendue_wire::code::Reject::ReplayGone as u8,
                reserved: [0; 6],
            };
            let length = frame::encode(0, &refused, &mut bytes);
            tell(Told { tag: TO_CONNECTION, connection, slot, frame: &bytes[..length] });
            return;
        }
        let mut kept = &*stream.kept.make_contiguous();
        while let Ok(Some(frame)) = Frame::parse(kept) {
            let (head, rest) = kept.split_at(frame.len());
            kept = rest;
            if frame.header.sequence.get() >= asked.from.get() {
                tell(Told { tag: TO_CONNECTION, connection, slot, frame: head });
            }
        }
        let end = ReplayEnd { next: (stream.last + 1).into() };
        let length = frame::encode(0, &end, &mut bytes);
        tell(Told { tag: TO_CONNECTION, connection, slot, frame: &bytes[..length] });
    }

    fn trades(&self, asked: &Asked, tell: &mut impl FnMut(Told<'_>)) {
        let connection = asked.connection.get();
        let limit = (asked.limit.get() as usize).min(TRADES_PAGE);
        let book = asked.from.get() as u16;
        let wanted = |trade: &&TradeRow| book == ANY_BOOK || trade.book.get() == book;
        let count = self.tape.iter().filter(wanted).count();
        for trade in self.tape.iter().filter(wanted).skip(count.saturating_sub(limit)) {
            row(connection, TradeRow::KIND, trade.as_bytes(), tell);
        }
        let end = QueryEnd { request: asked.request, next: u64::MAX.into() };
        row(connection, QueryEnd::KIND, end.as_bytes(), tell);
    }

    fn depth_row(&self, asked: &Asked, tell: &mut impl FnMut(Told<'_>)) {
        let (connection, book) = (asked.connection.get(), asked.from.get() as usize);
        if book < self.books.len() {
            let mut depth = DepthRow { book: (book as u16).into(), ..DepthRow::zeroed() };
            for (at, (price, quantity)) in self.best(book, Side::Buy) {
                depth.bid_ticks[at] = u32::from(price).into();
                depth.bid_quantity[at] = quantity.into();
            }
            for (at, (price, quantity)) in self.best(book, Side::Sell) {
                depth.ask_ticks[at] = u32::from(price).into();
                depth.ask_quantity[at] = quantity.into();
            }
            row(connection, DepthRow::KIND, depth.as_bytes(), tell);
        }
        let end = QueryEnd { request: asked.request, next: u64::MAX.into() };
        row(connection, QueryEnd::KIND, end.as_bytes(), tell);
    }

    /// The best levels of a side, numbered.
    fn best(&self, book: usize, side: Side) -> impl Iterator<Item = (usize, (u16, u64))> {
        self.depth.levels(book, side).take(DEPTH_LEVELS).enumerate()
    }

    /// The desk as bytes, for a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let word = |out: &mut Vec<u8>, value: u64| out.extend(value.to_le_bytes());
        word(&mut out, self.streams.len() as u64);
        for stream in &self.streams {
            word(&mut out, stream.last);
            word(&mut out, stream.frames);
            word(&mut out, stream.kept.len() as u64);
            out.extend(stream.kept.iter());
        }
        word(&mut out, self.tape.len() as u64);
        self.tape.iter().for_each(|trade| out.extend(trade.as_bytes()));
        word(&mut out, self.books.len() as u64);
        for book in &self.books {
            let view = &book.view;
            for value in
                [view.last_ticks.into(), view.last_quantity.into(), view.trades, view.volume]
            {
                word(&mut out, value);
            }
        }
        out
    }

    /// Restores what [`Desk::encode`] wrote; `machine` gives the books and their depth.
    ///
    /// # Errors
    /// The bytes end early, hold more sessions than there may be, or reports that are none.
    pub fn decode(
        machine: &crate::machine::Machine,
        replay_bytes: usize,
        mut bytes: &[u8],
    ) -> Result<Desk, DeskError> {
        let sessions = machine.genesis().sessions_max.get();
        let mut desk = Desk::new(sessions, replay_bytes);
        let bytes = &mut bytes;
        if word(bytes)? != u64::from(sessions) {
            return Err(DeskError);
        }
        for stream in &mut desk.streams {
            stream.last = word(bytes)?;
            stream.frames = word(bytes)?;
            let length = word(bytes)? as usize;
            let kept = take(bytes, length)?;
            stream.check(kept)?;
            stream.kept = kept.iter().copied().collect();
            stream.forget_down_to(replay_bytes);
        }
        for _ in 0..word(bytes)?.min(TAPE_TRADES as u64) {
            let trade = take(bytes, size_of::<TradeRow>())?;
            desk.tape.push_back(TradeRow::read_from_bytes(trade).map_err(|_| DeskError)?);
        }
        if word(bytes)? != machine.books().len() as u64 {
            return Err(DeskError);
        }
        for book in machine.books() {
            let view = BookView {
                last_ticks: word(bytes)? as u32,
                last_quantity: word(bytes)? as u32,
                trades: word(bytes)?,
                volume: word(bytes)?,
                phase: book.phase as u8,
                indicative_ticks: book.indicative.price.into(),
                indicative_volume: book.indicative.volume,
                indicative_imbalance: book.indicative.imbalance,
                ..BookView::default()
            };
            desk.books.push(Shown { view, dirty: true });
        }
        desk.depth = Depth::of(machine);
        if bytes.is_empty() { Ok(desk) } else { Err(DeskError) }
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], DeskError> {
    let (head, rest) = bytes.split_at_checked(length).ok_or(DeskError)?;
    *bytes = rest;
    Ok(head)
}

fn word(bytes: &mut &[u8]) -> Result<u64, DeskError> {
    Ok(u64::from_le_bytes(take(bytes, 8)?.try_into().map_err(|_| DeskError)?))
}

impl Stream {
    /// Checks that `kept` holds whole frames, as many as it should, numbered up to the last.
    fn check(&self, mut kept: &[u8]) -> Result<(), DeskError> {
        let mut sequence = self.last.checked_sub(self.frames).ok_or(DeskError)?;
        while let Ok(Some(frame)) = Frame::parse(kept) {
            sequence = sequence.wrapping_add(1);
            if frame.header.sequence.get() != sequence {
                return Err(DeskError);
            }
            kept = &kept[frame.len()..];
        }
        if kept.is_empty() && sequence == self.last { Ok(()) } else { Err(DeskError) }
    }

    /// Forgets the oldest reports until at most `bytes` are kept.
    fn forget_down_to(&mut self, bytes: usize) {
        let mut end = 0;
        while self.kept.len() - end > bytes {
            end += usize::from(u16::from_le_bytes([self.kept[end], self.kept[end + 1]]));
            self.frames -= 1;
        }
        self.kept.drain(..end);
    }
}

/// Sends a row to the connection that asked.
fn row(connection: u32, kind: u8, body: &[u8], tell: &mut impl FnMut(Told<'_>)) {
    let mut bytes = [0; FRAME_BYTES_MAX];
    let length = frame::encode_raw(kind, 0, body, &mut bytes);
    tell(Told { tag: TO_CONNECTION, connection, slot: ANY, frame: &bytes[..length] });
}
