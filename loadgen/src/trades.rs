//! What the reports of all sessions must say together: both parties of a trade are told the same,
//! and no order is passed over by a trade with a worse or a later one.
//!
//! A client learns the order of requests only from the sequencer's clock, and many requests may
//! share one reading of it. So only what holds for *every* order within one reading is asserted:
//! an order that was accepted at an earlier reading than a trade's and was still open at a later
//! one was there to be traded with.

use crate::check::Violation;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use vendue_wire::client::Received;
use vendue_wire::code::Side;
use vendue_wire::message::{Accepted, Cancelled, Filled};

/// An order as its reports tell it.
#[derive(Clone, Copy, Debug)]
struct Order {
    account: u32,
    book: u16,
    side: u8,
    price_ticks: u32,
    accepted_ns: u64,
    /// When it was filled or cancelled.
    gone_ns: Option<u64>,
}

impl Order {
    /// Smaller is served first.
    fn rank(&self) -> u32 {
        if self.side == Side::Buy as u8 { u32::MAX - self.price_ticks } else { self.price_ticks }
    }
}

/// One party's report of a trade.
#[derive(Clone, Copy, Debug)]
struct Told {
    account: u32,
    report: Filled,
}

/// Collects reports; [`Trades::check`] judges them in the end.
#[derive(Debug)]
pub struct Trades {
    /// Every account of the run trades with every other, and with nobody else.
    closed: bool,
    orders: HashMap<u64, Order>,
    trades: BTreeMap<u64, Vec<Told>>,
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Trades.
    pub trades: u64,
    /// Credits in them.
    pub credits: u64,
}

impl Trades {
    /// For a run whose accounts trade only among themselves, each with every other, if `closed`;
    /// otherwise only what holds without that is checked.
    pub fn new(closed: bool) -> Trades {
        Trades { closed, orders: HashMap::new(), trades: BTreeMap::new() }
    }

    /// Takes in a reply to a session that trades for `account`. What is no report is passed over.
    pub fn report(&mut self, account: u32, frame: &Received) {
        if let Some(m) = frame.message::<Accepted>() {
            let order = Order {
                account,
                book: m.book.get(),
                side: m.side,
                price_ticks: m.price_ticks.get(),
                accepted_ns: m.time_ns.get(),
                gone_ns: None,
            };
            self.orders.insert(m.handle.get(), order);
        } else if let Some(m) = frame.message::<Cancelled>() {
            self.gone(m.handle.get(), m.time_ns.get());
        } else if let Some(m) = frame.message::<Filled>() {
            self.trades.entry(m.trade.get()).or_default().push(Told { account, report: *m });
            if m.remaining.get() == 0 {
                self.gone(m.handle.get(), m.time_ns.get());
            }
        }
    }

    fn gone(&mut self, handle: u64, at_ns: u64) {
        if let Some(order) = self.orders.get_mut(&handle) {
            order.gone_ns = Some(at_ns);
        }
    }

    /// Judges all that was reported.
    ///
    /// # Errors
    /// The first [`Violation`], by number of the trade.
    pub fn check(&self) -> Result<Judged, Violation> {
        let mut judged = Judged::default();
        for (&trade, told) in &self.trades {
            self.check_parties(trade, told)?;
            judged.trades += 1;
            judged.credits += u64::from(told[0].report.quantity.get());
        }
        if self.closed {
            self.check_priority()?;
        }
        Ok(judged)
    }

    fn check_parties(&self, trade: u64, told: &[Told]) -> Result<(), Violation> {
        let differs = |what| Err(Violation::TradeDiffers { trade, what });
        let (one, other) = match told {
            [one, other] => (one, other),
            [_] if self.closed => return Err(Violation::TradeHalfTold { trade }),
            [_] => return Ok(()),
            _ => return differs("their number"),
        };
        let (a, b) = (&one.report, &other.report);
        let pairs = [
            ("price", a.price_ticks == b.price_ticks),
            ("quantity", a.quantity == b.quantity),
            ("book", a.book == b.book),
            ("time", a.time_ns == b.time_ns),
            ("side", a.side != b.side),
            ("who rested", a.maker != b.maker || (a.maker, b.maker) == (2, 2)),
            ("counterparty", a.counterparty.get() == other.account),
            ("counterparty", b.counterparty.get() == one.account),
        ];
        pairs.iter().find(|(_, fits)| !fits).map_or(Ok(()), |(what, _)| differs(what))
    }

    /// Goes through the readings of the clock. At each, what was open before it and stays open
    /// after it is compared with what traded.
    fn check_priority(&self) -> Result<(), Violation> {
        let mut readings: BTreeMap<u64, Reading> = BTreeMap::new();
        for (&handle, order) in &self.orders {
            readings.entry(order.accepted_ns).or_default().accepted.push(handle);
            if let Some(gone_ns) = order.gone_ns {
                readings.entry(gone_ns).or_default().gone.push(handle);
            }
        }
        for (&trade, told) in &self.trades {
            let maker = told.iter().find(|told| told.report.maker == 1);
            let taker = told.iter().find(|told| told.report.maker == 0);
            if let (Some(maker), Some(taker)) = (maker, taker) {
                let at = readings.entry(maker.report.time_ns.get()).or_default();
                at.traded.push((trade, maker.report.handle.get(), taker.account));
            }
        }
        let mut open: HashMap<(u16, u8), BTreeSet<Place>> = HashMap::new();
        for reading in readings.values() {
            for &handle in &reading.gone {
                let (queue, place) = self.place(handle);
                open.entry(queue).or_default().remove(&place);
            }
            for &(trade, maker, taker) in &reading.traded {
                self.check_trade(&open, trade, maker, taker)?;
            }
            for &handle in &reading.accepted {
                // What is gone at the same reading never was open before another.
                let order = &self.orders[&handle];
                if order.gone_ns != Some(order.accepted_ns) {
                    let (queue, place) = self.place(handle);
                    open.entry(queue).or_default().insert(place);
                }
            }
        }
        Ok(())
    }

    fn check_trade(
        &self,
        open: &HashMap<(u16, u8), BTreeSet<Place>>,
        trade: u64,
        maker: u64,
        taker_account: u32,
    ) -> Result<(), Violation> {
        if !self.orders.contains_key(&maker) {
            return Ok(());
        }
        let (queue, (rank, accepted_ns, _)) = self.place(maker);
        let Some(places) = open.get(&queue) else { return Ok(()) };
        let passed_over = places
            .iter()
            .take_while(|place| (place.0, place.1) < (rank, accepted_ns))
            // An account never trades with itself.
            .find(|place| self.orders[&place.2].account != taker_account);
        match passed_over {
            Some(&(_, _, handle)) => Err(Violation::PassedOver { trade, handle }),
            None => Ok(()),
        }
    }

    fn place(&self, handle: u64) -> ((u16, u8), Place) {
        let order = &self.orders[&handle];
        ((order.book, order.side), (order.rank(), order.accepted_ns, handle))
    }
}

/// Rank of the price, time of arrival, handle.
type Place = (u32, u64, u64);

/// What happened at one reading of the sequencer's clock.
#[derive(Debug, Default)]
struct Reading {
    accepted: Vec<u64>,
    gone: Vec<u64>,
    /// Trade, the maker's handle, the taker's account.
    traded: Vec<(u64, u64, u32)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, encode};
    use vendue_wire::message::Body;

    fn frame<M: Body>(message: &M) -> Received {
        let mut bytes = [0; FRAME_BYTES_MAX];
        encode(1, message, &mut bytes);
        Received::of(&Frame::parse(&bytes).unwrap().unwrap())
    }

    fn accepted(handle: u64, side: Side, price: u32, at: u64) -> Received {
        frame(&Accepted {
            handle: handle.into(),
            side: side as u8,
            price_ticks: price.into(),
            time_ns: at.into(),
            ..Accepted::zeroed()
        })
    }

    fn filled(handle: u64, maker: bool, remaining: u32, counterparty: u32) -> Filled {
        Filled {
            trade: 1.into(),
            handle: handle.into(),
            time_ns: 50.into(),
            price_ticks: 10.into(),
            quantity: 5.into(),
            remaining: remaining.into(),
            counterparty: counterparty.into(),
            side: if maker { Side::Sell as u8 } else { Side::Buy as u8 },
            maker: maker.into(),
            ..Filled::zeroed()
        }
    }

    /// Account 1 offers, account 2 takes at time 50; what else was offered is the caller's.
    fn market(maker: Filled, taker: Filled) -> Trades {
        let mut trades = Trades::new(true);
        trades.report(1, &accepted(7, Side::Sell, 10, 20));
        trades.report(2, &accepted(8, Side::Buy, 12, 50));
        trades.report(1, &frame(&maker));
        trades.report(2, &frame(&taker));
        trades
    }

    fn fair() -> Trades {
        market(filled(7, true, 5, 2), filled(8, false, 0, 1))
    }

    #[test]
    fn a_fair_trade_is_counted() {
        assert_eq!(fair().check(), Ok(Judged { trades: 1, credits: 5 }));
    }

    #[test]
    fn parties_that_are_told_differently_are_found() {
        let maker = filled(7, true, 5, 2);
        for (what, maker) in [
            ("price", Filled { price_ticks: 11.into(), ..maker }),
            ("quantity", Filled { quantity: 4.into(), ..maker }),
            ("book", Filled { book: 1.into(), ..maker }),
            ("time", Filled { time_ns: 51.into(), ..maker }),
            ("side", Filled { side: Side::Buy as u8, ..maker }),
            ("who rested", Filled { maker: 0, ..maker }),
            ("counterparty", Filled { counterparty: 3.into(), ..maker }),
        ] {
            let found = market(maker, filled(8, false, 0, 1)).check();
            assert_eq!(found, Err(Violation::TradeDiffers { trade: 1, what }));
        }
        let mut thrice = fair();
        thrice.report(3, &frame(&filled(9, false, 0, 1)));
        let what = "their number";
        assert_eq!(thrice.check(), Err(Violation::TradeDiffers { trade: 1, what }));
    }

    #[test]
    fn a_trade_that_one_party_was_not_told_of_is_found() {
        for closed in [true, false] {
            let mut trades = Trades::new(closed);
            trades.report(2, &frame(&filled(8, false, 0, 1)));
            let found = trades.check();
            assert_eq!(found.is_err(), closed, "others may have traded: {found:?}");
        }
    }

    #[test]
    fn an_order_passed_over_is_found() {
        let passed = Err(Violation::PassedOver { trade: 1, handle: 9 });
        let with = |account, price, at| {
            let mut trades = fair();
            trades.report(account, &accepted(9, Side::Sell, price, at));
            trades
        };
        assert_eq!(with(3, 9, 30).check(), passed, "a better price");
        assert_eq!(with(3, 10, 19).check(), passed, "the same price, earlier");
        // Later, worse, on the other side, or at the same reading as the trade or the maker.
        for (price, at) in [(10, 21), (11, 10), (9, 50), (10, 20), (9, 60)] {
            assert!(with(3, price, at).check().is_ok(), "{price} at {at}");
        }
        let mut bid = fair();
        bid.report(3, &accepted(9, Side::Buy, 12, 10));
        assert!(bid.check().is_ok());
        assert!(with(2, 9, 30).check().is_ok(), "the taker's own is not for it");
        // Gone before, or at the same reading: it may have been first.
        for at in [40, 50] {
            let mut cancelled = with(3, 9, 30);
            let gone = Cancelled { handle: 9.into(), time_ns: at.into(), ..Cancelled::zeroed() };
            cancelled.report(3, &frame(&gone));
            assert!(cancelled.check().is_ok(), "{at}");
        }
    }

    #[test]
    fn bids_are_served_from_the_highest() {
        let mut trades = Trades::new(true);
        trades.report(1, &accepted(7, Side::Buy, 10, 20));
        trades.report(2, &accepted(8, Side::Sell, 9, 50));
        trades.report(3, &accepted(9, Side::Buy, 11, 30));
        let maker = Filled { side: Side::Buy as u8, ..filled(7, true, 0, 2) };
        let taker = Filled { side: Side::Sell as u8, ..filled(8, false, 0, 1) };
        trades.report(1, &frame(&maker));
        trades.report(2, &frame(&taker));
        assert_eq!(trades.check(), Err(Violation::PassedOver { trade: 1, handle: 9 }));
    }
}
