//! The desk: turns the machine's events into what each party is told, numbers each session's
//! reports, and keeps the newest of them for replay. What the public sees is the
//! [`market`](crate::market)'s, which it keeps beside them.
//!
//! Like the machine it is a pure function of the commands, so start-up rebuilds it the same way:
//! from a snapshot and the log's tail. It runs behind the machine, in the publish stage.

use crate::machine::event::{
    Asked, AuctionTrade, Event, Fill, SessionOpened, SessionRefused, TradeReversed,
};
use crate::market::Market;
use crate::pipeline::record::{OPENED, Outcome, REFUSED, TO_CONNECTION, TO_SESSION};
use std::collections::VecDeque;
use vendue_wire::code::Side;
use vendue_wire::frame::{self, FRAME_BYTES_MAX, Frame};
use vendue_wire::message::*;
use zerocopy::IntoBytes;

/// Neither party of an auction's trade took: `maker` and `taker_side` say so.
pub(crate) const IN_AUCTION: u8 = 2;

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

/// The desk.
#[derive(Debug)]
pub struct Desk {
    streams: Vec<Stream>,
    replay_bytes: usize,
    /// Where reports are encoded: one made for each would have to be cleared for each.
    frame: [u8; FRAME_BYTES_MAX],
    /// What the public sees.
    pub market: Market,
}

/// Why bytes are not a desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot's sessions and market data cannot be read")]
pub struct DeskError;

impl Desk {
    /// A desk for `sessions` sessions, each keeping up to `replay_bytes` of its newest reports.
    pub fn new(sessions: u32, replay_bytes: usize) -> Desk {
        let streams = (0..sessions).map(|_| Stream::default()).collect();
        let frame = [0; FRAME_BYTES_MAX];
        Desk { streams, replay_bytes, frame, market: Market::default() }
    }

    /// Takes one event in and tells who is concerned.
    pub fn absorb(
        &mut self,
        outcome: &Outcome,
        event: &Event<'_>,
        tell: &mut impl FnMut(Told<'_>),
    ) {
        self.market.absorb(outcome, event);
        match event.kind {
            0x90..0xa0 | SwapMoved::KIND => self.report(event.target, event.kind, event.body, tell),
            0xb0..0xc0 | 0xd0..0xda | 0xde | 0xdf | 0xe7..0xee => {
                row(event.target, event.kind, event.body, tell)
            }
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
        } else if let Some(reversed) = event.read::<TradeReversed>() {
            self.reversed(outcome, reversed, tell);
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
                _ => self.market.answer(outcome, asked, tell),
            }
        }
    }

    /// Numbers a report, keeps it, sends it.
    fn report(&mut self, slot: u32, kind: u8, body: &[u8], tell: &mut impl FnMut(Told<'_>)) {
        let Some(stream) = self.streams.get_mut(slot as usize) else { return };
        stream.last += 1;
        let length = frame::encode_raw(kind, stream.last, body, &mut self.frame);
        let frame = &self.frame[..length];
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
    }

    /// A trade is undone: both parties are told, if their sessions are not forgotten.
    fn reversed(&mut self, outcome: &Outcome, m: &TradeReversed, tell: &mut impl FnMut(Told<'_>)) {
        let notional = m.notional_micro.get();
        let (seller_fee, buyer_fee) = (m.seller_fee_micro.get(), m.buyer_fee_micro.get());
        let seller = Reversed {
            trade: m.trade,
            time_ns: outcome.time_ns,
            funds_micro: (notional - seller_fee).into(),
            fee_micro: m.seller_fee_micro,
            instance: m.seller.into(),
            price_ticks: m.price_ticks.into(),
            quantity: m.quantity,
            counterparty: m.buyer_account.into(),
            book: m.book,
            side: Side::Sell as u8,
            reserved: [0; 5],
        };
        let buyer = Reversed {
            funds_micro: (notional + buyer_fee).into(),
            fee_micro: m.buyer_fee_micro,
            instance: m.buyer.into(),
            counterparty: m.seller_account.into(),
            side: Side::Buy as u8,
            ..seller
        };
        for (session, report) in [(m.seller_session, seller), (m.buyer_session, buyer)] {
            self.report(session.get().into(), Reversed::KIND, report.as_bytes(), tell);
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
        self.market.encode(&mut out);
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
        desk.market = Market::decode(machine, bytes)?;
        if bytes.is_empty() { Ok(desk) } else { Err(DeskError) }
    }
}

/// The next `length` bytes of a snapshot.
pub(crate) fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], DeskError> {
    let (head, rest) = bytes.split_at_checked(length).ok_or(DeskError)?;
    *bytes = rest;
    Ok(head)
}

/// The next number of a snapshot.
pub(crate) fn word(bytes: &mut &[u8]) -> Result<u64, DeskError> {
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
pub(crate) fn row(connection: u32, kind: u8, body: &[u8], tell: &mut impl FnMut(Told<'_>)) {
    let mut bytes = [0; FRAME_BYTES_MAX];
    let length = frame::encode_raw(kind, 0, body, &mut bytes);
    tell(Told { tag: TO_CONNECTION, connection, slot: ANY, frame: &bytes[..length] });
}
