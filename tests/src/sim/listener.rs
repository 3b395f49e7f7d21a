//! A subscriber of everything, as the protocol asks for: after a cut or a crash it asks for what
//! comes after the last notice it was told. It checks that none comes twice or out of order, and
//! keeps them all, so that the whole can be held against the journal.

use super::peer::Link;
use crate::chance::Chance;
use std::collections::BTreeMap;
use std::path::Path;
use vendue_engine::machine::Machine;
use vendue_engine::machine::event::{AuctionTrade, Fill, Outbox, TierSwap, TradeReversed};
use vendue_wire::code::{RESOURCES, Reject, Role};
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, encode};
use vendue_wire::message::*;

/// What a record of the journal did: trades and reversals by trade's number, in order; VRUs that
/// left and arrived in swaps between tiers; new balances, held amounts included, of accounts, and of
/// instances and resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    trades: Vec<u64>,
    reversals: Vec<u64>,
    tiers: Vec<(u32, u32)>,
    funds: BTreeMap<u32, u64>,
    credits: BTreeMap<(u32, u8), u64>,
}

/// The subscriber.
#[derive(Debug)]
pub struct Listener {
    chance: Chance,
    link: Option<Link>,
    /// The daemon has said that it is subscribed.
    listens: bool,
    /// The first notice that it has not been told: record and part.
    next: (u64, u32),
    /// Frames since it subscribed, and how many may be on their way.
    taken: u64,
    take_max: u64,
    requests: u64,
    /// By record.
    told: BTreeMap<u64, Deeds>,
    /// Whether what is told may be lost again: with `journal.sync = "never"`.
    loses: bool,
}

impl Listener {
    /// One that has been told nothing.
    pub fn new(chance: Chance, loses: bool) -> Listener {
        Listener {
            chance,
            link: None,
            listens: false,
            next: (1, 0),
            taken: 0,
            take_max: 0,
            requests: 0,
            told: BTreeMap::new(),
            loses,
        }
    }

    /// Everything up to this record has been told.
    pub fn told_through(&self) -> u64 {
        self.next.0 - 1
    }

    /// Connects, if it is not connected; nothing if the daemon does not listen.
    pub fn connect(&mut self, socket: &Path) {
        if self.link.is_some() {
            return;
        }
        self.link = Link::connect(socket);
        (self.listens, self.requests) = (false, 0);
        let mut logon = Logon::zeroed();
        (logon.account, logon.instance) = (ANY.into(), ANY.into());
        logon.role = Role::Observer as u8;
        self.send(0, &logon);
    }

    /// Cuts the connection.
    pub fn cut(&mut self) {
        self.link = None;
    }

    fn send<M: Body>(&mut self, number: u64, message: &M) {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = encode(number, message, &mut bytes);
        if let Some(link) = &mut self.link {
            link.out.extend(&bytes[..length]);
        }
    }

    fn request<M: Body>(&mut self, message: &M) {
        self.requests += 1;
        self.send(self.requests, message);
    }

    /// Lets some bytes arrive.
    ///
    /// # Errors
    /// What it is told contradicts what it was told.
    pub fn carry(&mut self, all: bool) -> Result<bool, String> {
        let Some(mut link) = self.link.take() else { return Ok(false) };
        let moved = link.carry_out(&mut self.chance, all) | link.carry_in(&mut self.chance, all);
        let frames = link.frames();
        let over = link.ended && link.inbound.is_empty();
        self.link = Some(link);
        for frame in frames? {
            self.hear(&frame)?;
        }
        if over {
            self.link = None;
        }
        Ok(moved)
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        let frame = Frame::parse(bytes).map_err(|error| error.to_string())?;
        let Some(frame) = frame else { return Err("half a frame".to_owned()) };
        if frame.message::<LogonAck>().is_some() {
            self.subscribe();
        } else if let Some(m) = frame.message::<Subscribed>() {
            (self.listens, self.taken, self.take_max) = (true, 0, m.take_max.get().into());
        } else if let Some(m) = frame.message::<Refused>() {
            self.refused(m)?;
        } else if let Some(m) = frame.message::<Unsubscribed>() {
            let place = (m.sequence.get(), m.part.get());
            if self.listens && place != self.next {
                return Err(format!("unsubscribed at {place:?}, told up to {:?}", self.next));
            }
            self.cut();
        } else {
            self.notice(&frame)?;
        }
        Ok(())
    }

    fn subscribe(&mut self) {
        let (from, part) = self.next;
        let what = TELL_SWAPS | TELL_FUNDS | TELL_CREDITS | TELL_TIERS;
        self.request(&Subscribe { from: from.into(), part: part.into(), what, reserved: [0; 3] });
    }

    fn refused(&mut self, m: &Refused) -> Result<(), String> {
        match Reject::from_u8(m.code) {
            Some(Reject::Busy | Reject::Throttled | Reject::Draining | Reject::JournalStopped) => {}
            // What was told is not there any more.
            Some(Reject::BadField) if self.loses => {}
            code => return Err(format!("the listener at {:?}: {code:?}", self.next)),
        }
        self.cut();
        Ok(())
    }

    /// A notice: the next one of its record, or the first of a later one.
    fn notice(&mut self, frame: &Frame<'_>) -> Result<(), String> {
        let (place, deeds) = if let Some(m) = frame.message::<Swapped>() {
            let place = (m.sequence.get(), m.part.get());
            (place, Deeds { trades: vec![m.trade.get()], ..Deeds::default() })
        } else if let Some(m) = frame.message::<SwapReversed>() {
            let place = (m.sequence.get(), m.part.get());
            (place, Deeds { reversals: vec![m.trade.get()], ..Deeds::default() })
        } else if let Some(m) = frame.message::<TiersSwapped>() {
            let tiers = vec![(m.left_vru.get(), m.arrived_vru.get())];
            ((m.sequence.get(), m.part.get()), Deeds { tiers, ..Deeds::default() })
        } else if let Some(m) = frame.message::<FundsChanged>() {
            let funds = BTreeMap::from([(m.account.get(), m.balance_micro.get())]);
            ((m.sequence.get(), m.part.get()), Deeds { funds, ..Deeds::default() })
        } else if let Some(m) = frame.message::<CreditsChanged>() {
            let whose = (m.instance.get(), m.resource);
            let credits = BTreeMap::from([(whose, m.balance_millicredits.get())]);
            ((m.sequence.get(), m.part.get()), Deeds { credits, ..Deeds::default() })
        } else if let Some(m) = frame.message::<CaughtUp>() {
            let next = (m.sequence.get() + 1, 0);
            if next < self.next {
                return Err(format!("caught up with {}, told {:?}", next.0 - 1, self.next));
            }
            self.next = next;
            self.take();
            return Ok(());
        } else {
            return Ok(());
        };
        let right = place == self.next || (place.0 > self.next.0 && place.1 == 0);
        if !right {
            return Err(format!("notice {place:?} comes where {:?} should", self.next));
        }
        self.next = (place.0, place.1 + 1);
        let all = self.told.entry(place.0).or_default();
        all.trades.extend(deeds.trades);
        all.reversals.extend(deeds.reversals);
        all.tiers.extend(deeds.tiers);
        all.funds.extend(deeds.funds);
        all.credits.extend(deeds.credits);
        self.take();
        Ok(())
    }

    /// Another frame was taken; says so now and then.
    fn take(&mut self) {
        self.taken += 1;
        if self.taken.is_multiple_of((self.take_max / 2).max(1)) {
            let through = (self.taken + self.take_max).into();
            self.request(&Take { through });
        }
    }
}

/// What the records of a journal do, found by comparing all balances after each.
#[derive(Debug, Default)]
pub struct Ledgers {
    funds: Vec<u64>,
    credits: Vec<u64>,
}

impl Ledgers {
    /// Holds what a record did against what the listener was told of it.
    ///
    /// # Errors
    /// It was told otherwise.
    pub fn check(
        &mut self,
        listener: &Listener,
        sequence: u64,
        machine: &Machine,
        outbox: &Outbox,
    ) -> Result<(), String> {
        let mut deeds = Deeds::default();
        for event in outbox.events() {
            let fill = event.read::<Fill>().map(|fill| fill.trade.get());
            let trade = event.read::<AuctionTrade>().map(|trade| trade.trade.get());
            deeds.trades.extend(fill.or(trade));
            deeds.reversals.extend(event.read::<TradeReversed>().map(|m| m.trade.get()));
            let swap = event.read::<TierSwap>();
            deeds.tiers.extend(swap.map(|m| (m.left_vru.get(), m.arrived_vru.get())));
        }
        let (funds, credits) = (machine.ledger().funds(), machine.ledger().credits());
        self.funds.resize(funds.len(), 0);
        self.credits.resize(credits.len(), 0);
        for (account, (was, pocket)) in (0_u32..).zip(self.funds.iter_mut().zip(funds)) {
            let is = pocket.balance.free + pocket.balance.held;
            if std::mem::replace(was, is) != is {
                deeds.funds.insert(account, is);
            }
        }
        for (at, (was, pocket)) in self.credits.iter_mut().zip(credits).enumerate() {
            let is = pocket.balance.free + pocket.balance.held;
            if std::mem::replace(was, is) != is {
                deeds.credits.insert(((at / RESOURCES) as u32, (at % RESOURCES) as u8), is);
            }
        }
        let told = listener.told.get(&sequence).cloned().unwrap_or_default();
        if sequence <= listener.told_through() && told != deeds {
            return Err(format!("record {sequence} did {deeds:?}, told was {told:?}"));
        }
        Ok(())
    }
}
