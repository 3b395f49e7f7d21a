//! What an agent does on a connection: looks, decides, acts, listens, and says what happened.

use super::Subject;
use super::desk::{Desk, OWN, Standing};
use super::sampler::Sampler;
use crate::cli::amount::decimal;
use crate::cli::door::{Trouble, refusal};
use crate::cli::output::Output;
use hvctl::agent::Decision;
use hvctl::agent::keep::{Order, Step};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use vendue_wire::client::{ANSWER_TIMEOUT, Client, ClientError, Received};
use vendue_wire::code::{CancelReason, Goodbye, Reject, Side};
use vendue_wire::message::*;

/// Most steps towards a decision: back from one side, then in on the other.
const STEPS_MAX: usize = 2;

/// Why trading does not go on as it did.
#[derive(Debug)]
pub enum Stop {
    /// The daemon wants less; the connection goes on.
    Slow(ClientError),
    /// The connection is of no use any more.
    Lost(ClientError),
    /// For good.
    Over(Trouble),
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Stop {
        let code = match &error {
            ClientError::Refused { code, .. } => Reject::from_u8(*code),
            ClientError::Farewell { reason } if *reason == Goodbye::Superseded as u8 => {
                let why = "another agent has taken over this instance; one is enough";
                return Stop::Over(Trouble::Refused(why.to_owned()));
            }
            _ => return Stop::Lost(error),
        };
        match code {
            Some(Reject::Throttled | Reject::AccountThrottled | Reject::Busy) => Stop::Slow(error),
            Some(Reject::JournalStopped | Reject::Draining | Reject::SessionsFull) => {
                Stop::Lost(error)
            }
            _ => Stop::Over(error.into()),
        }
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Stop {
        Stop::Over(trouble)
    }
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Trouble {
        match stop {
            Stop::Slow(error) | Stop::Lost(error) => error.into(),
            Stop::Over(trouble) => trouble,
        }
    }
}

/// An instance's trader.
#[derive(Debug)]
pub struct Trader<'a> {
    pub subject: Subject,
    /// Number of the last report heard, once there is a session.
    pub seen: Option<u64>,
    sampler: Option<Sampler>,
    sampled_at: Instant,
    every: Duration,
    desks: Vec<Desk>,
    /// Last id given to a request.
    client_id: u64,
    out: &'a mut Output,
}

impl<'a> Trader<'a> {
    pub fn new(
        subject: Subject,
        sampler: Option<Sampler>,
        desks: Vec<Desk>,
        every: Duration,
        out: &'a mut Output,
    ) -> Trader<'a> {
        let sampled_at = Instant::now();
        Trader { subject, seen: None, sampler, sampled_at, every, desks, client_id: 0, out }
    }

    /// Goes on with the ids of the session that was opened or resumed.
    pub fn resume(&mut self, client: &Client) {
        self.client_id = client.ack.last_client_id.get().max(OWN);
    }

    /// Looks at everything anew and does what is due.
    pub fn step(&mut self, client: &mut Client) -> Result<(), Stop> {
        self.sample()?;
        let instance = self.instance(client)?;
        let orders = self.orders(client)?;
        let account = QueryAccounts { from: self.subject.account.into() };
        let account = client.ask::<AccountRow, _>(&account)?.first().copied();
        // Who may not see them bids as it likes, and is told if they do not reach.
        let funds = account.filter(|row| row.account.get() == self.subject.account);
        let mut funds = funds.map_or(u64::MAX, |row| row.free_micro.get());
        for at in 0..self.desks.len() {
            let mut own = self.desks[at].own(&orders);
            let standing = own.pop();
            for extra in own {
                self.cancel(client, at, extra)?;
            }
            let book = QueryBooks { from: u32::from(self.desks[at].book).into() };
            let Some(book) = client.ask::<BookRow, _>(&book)?.first().copied() else { continue };
            let Some(decision) = self.desks[at].decide(&instance, &book, funds, standing) else {
                continue;
            };
            self.carry_out(client, at, standing, &decision)?;
            if let Some(order) = decision.order.filter(|order| order.side == Side::Buy) {
                let bid = u64::from(order.price_ticks) * u64::from(order.quantity);
                funds = funds.saturating_sub(bid.saturating_mul(book.tick_micro.get()));
            }
        }
        Ok(())
    }

    /// Measures what was used, unless that was done just now.
    fn sample(&mut self) -> Result<(), Stop> {
        let elapsed = self.sampled_at.elapsed();
        let Some(sampler) = self.sampler.as_mut().filter(|_| elapsed >= self.every / 2) else {
            return Ok(());
        };
        let used = sampler.sample().map_err(|error| {
            Trouble::Host(format!(
                "instance {} cannot be measured: {error}",
                text(&self.subject.name)
            ))
        })?;
        self.sampled_at = Instant::now();
        for desk in &mut self.desks {
            desk.observe(&used, elapsed);
        }
        Ok(())
    }

    fn instance(&self, client: &mut Client) -> Result<InstanceRow, Stop> {
        let Subject { instance, account, name } = &self.subject;
        let rows = client.ask::<InstanceRow, _>(&QueryInstances { from: (*instance).into() })?;
        let same = |row: &&InstanceRow| {
            row.instance.get() == *instance && row.account.get() == *account && row.name == *name
        };
        rows.iter().find(same).copied().ok_or_else(|| self.subject.gone().into())
    }

    fn orders(&self, client: &mut Client) -> Result<Vec<OrderRow>, Stop> {
        let instance = self.subject.instance.into();
        let page = |from: u64| u32::try_from(from).unwrap_or(u32::MAX).into();
        Ok(client.ask_all(|from| QueryOrders { instance, from: page(from) })?)
    }

    /// Goes the steps from what stands to what was decided.
    fn carry_out(
        &mut self,
        client: &mut Client,
        at: usize,
        mut standing: Option<Standing>,
        decision: &Decision,
    ) -> Result<(), Stop> {
        if standing.is_some() {
            self.desks[at].worked();
        }
        for _ in 0..STEPS_MAX {
            match (self.desks[at].step(standing, decision), standing) {
                (Step::Cancel, Some(old)) => {
                    self.cancel(client, at, old)?;
                    standing = None;
                }
                (Step::Enter(order), _) => return self.enter(client, at, order, decision),
                (Step::Replace(order), Some(old)) => {
                    return self.replace(client, at, old, order, decision);
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        client: &mut Client,
        at: usize,
        order: Order,
        decision: &Decision,
    ) -> Result<(), Stop> {
        let message = NewOrder {
            client_id: self.next_client_id(),
            instance: self.subject.instance.into(),
            price_ticks: order.price_ticks.into(),
            quantity: order.quantity.into(),
            book: self.desks[at].book.into(),
            side: order.side as u8,
            ..NewOrder::zeroed()
        };
        match self.ask_for(client, &message)? {
            Ok(()) => self.say_order("entered", at, order, decision),
            Err(code) => self.turned_down(at, order, NewOrder::KIND, code),
        }
    }

    fn replace(
        &mut self,
        client: &mut Client,
        at: usize,
        old: Standing,
        order: Order,
        decision: &Decision,
    ) -> Result<(), Stop> {
        let message = Replace {
            client_id: self.next_client_id(),
            handle: old.handle.into(),
            price_ticks: order.price_ticks.into(),
            quantity: order.quantity.into(),
        };
        match self.ask_for(client, &message)? {
            Ok(()) => self.say_order("replaced", at, order, decision),
            // It traded or was cancelled meanwhile: the next step sees.
            Err(code) if code == Reject::UnknownOrder as u8 => Ok(()),
            Err(code) => self.turned_down(at, order, Replace::KIND, code),
        }
    }

    /// Takes an order back. One that is gone already is none to take back.
    fn cancel(&mut self, client: &mut Client, at: usize, old: Standing) -> Result<(), Stop> {
        match self.ask_for(client, &Cancel { handle: old.handle.into() })? {
            Err(code) if code != Reject::UnknownOrder as u8 => {
                self.turned_down(at, old.order, Cancel::KIND, code)
            }
            _ => Ok(()),
        }
    }

    /// Takes back all its orders.
    pub fn withdraw(&mut self, client: &mut Client) -> Result<(), Stop> {
        let orders = self.orders(client)?;
        for at in 0..self.desks.len() {
            for standing in self.desks[at].own(&orders) {
                self.cancel(client, at, standing)?;
            }
        }
        Ok(())
    }

    fn next_client_id(&mut self) -> U64 {
        self.client_id += 1;
        self.client_id.into()
    }

    /// Sends a request and listens until it is answered; the inner error is why the core would not.
    fn ask_for<M: Body>(
        &mut self,
        client: &mut Client,
        message: &M,
    ) -> Result<Result<(), u8>, Stop> {
        let request = client.send(message)?;
        loop {
            let frame = client.recv(ANSWER_TIMEOUT)?;
            let frame = frame.ok_or(ClientError::Timeout("answer a request"))?;
            self.hear(frame)?;
            if frame.request() != Some(request) {
                continue;
            }
            if let Some(&Refused { kind, code, detail, .. }) = frame.message::<Refused>() {
                return Err(ClientError::Refused { kind, code, detail: detail.get() }.into());
            }
            return Ok(frame.message::<Rejected>().map_or(Ok(()), |rejected| Err(rejected.code)));
        }
    }

    fn turned_down(&mut self, at: usize, order: Order, kind: u8, code: u8) -> Result<(), Stop> {
        if code == Reject::BadQuantity as u8 {
            self.desks[at].too_large(order.quantity);
        }
        self.say_refused(at, &refusal(kind, code))
    }

    /// Takes in a report: fills, and orders that ended otherwise than by its own cancel.
    pub fn hear(&mut self, frame: &Received) -> Result<(), Stop> {
        self.seen = self.seen.max(Some(frame.sequence()));
        if let Some(filled) = frame.message::<Filled>() {
            return self.say_filled(filled);
        }
        let Some(cancelled) = frame.message::<Cancelled>() else { return Ok(()) };
        let reason = CancelReason::from_u8(cancelled.reason);
        let at = self.desks.iter().position(|desk| desk.book == cancelled.book.get());
        match at {
            Some(at) if reason == Some(CancelReason::SelfTrade) => {
                let why = "its own account is on the other side, and does not trade with itself";
                self.say_refused(at, why)
            }
            Some(at) => {
                let why = reason.map_or("unknown reason", CancelReason::text);
                let (quantity, resource) = (cancelled.quantity.get(), self.desks[at].resource);
                let object = json!({
                    "event": "cancelled",
                    "resource": resource.text(),
                    "quantity_credits": quantity,
                    "reason": why,
                });
                self.tell(&object, &format!("{resource}: {quantity} credits cancelled ({why})"))
            }
            None => Ok(()),
        }
    }

    fn tell(&mut self, object: &Value, text: &str) -> Result<(), Stop> {
        Ok(self.out.say(object, text).map_err(Trouble::from)?)
    }

    /// Says that something happened.
    pub fn say(&mut self, event: &str, text: &str) -> Result<(), Trouble> {
        Ok(self.out.say(&json!({ "event": event }), text)?)
    }

    /// Says for whom and for what it trades.
    pub fn say_started(&mut self) -> Result<(), Trouble> {
        let name = text(&self.subject.name);
        let resources: Vec<&str> = self.desks.iter().map(|desk| desk.resource.text()).collect();
        let object = json!({ "event": "started", "instance": name, "resources": &resources });
        Ok(self.out.say(&object, &format!("trades {} for {name}", resources.join(", ")))?)
    }

    /// Says why it pauses, and for how long.
    pub fn say_pause(
        &mut self,
        event: &str,
        error: &ClientError,
        pause: Duration,
    ) -> Result<(), Trouble> {
        let pause_ms = pause.as_millis() as u64;
        let object = json!({ "event": event, "why": error.to_string(), "pause_ms": pause_ms });
        Ok(self.out.say(&object, &format!("{event}: {error}; waits {pause_ms} ms"))?)
    }

    fn say_refused(&mut self, at: usize, why: &str) -> Result<(), Stop> {
        let resource = self.desks[at].resource;
        let pause_ms = self.desks[at].refused().as_millis() as u64;
        let object = json!({
            "event": "refused", "resource": resource.text(), "why": why, "pause_ms": pause_ms,
        });
        self.tell(&object, &format!("{resource}: {why}; waits {pause_ms} ms"))
    }

    fn say_order(
        &mut self,
        event: &str,
        at: usize,
        order: Order,
        decision: &Decision,
    ) -> Result<(), Stop> {
        let resource = self.desks[at].resource;
        let Order { side, price_ticks, quantity } = order;
        let object = json!({
            "event": event,
            "resource": resource.text(),
            "side": side.text(),
            "price_ticks": price_ticks,
            "quantity_credits": quantity,
            "predicted_millicredits": decision.predicted_millicredits,
            "demand_milli_vru": decision.demand_milli_vru,
        });
        let does = if side == Side::Sell { "offers" } else { "requests" };
        let predicted = decimal(decision.predicted_millicredits.into(), 3);
        let demand = decimal(decision.demand_milli_vru.into(), 3);
        let text = format!(
            "{resource}: {does} {quantity} credits at {price_ticks} ticks (demand {demand} VRU, \
             predicted balance {predicted} credits)"
        );
        self.tell(&object, &text)
    }

    fn say_filled(&mut self, filled: &Filled) -> Result<(), Stop> {
        let Filled { trade, quantity, price_ticks, remaining, .. } = filled;
        let desk = self.desks.iter_mut().find(|desk| desk.book == filled.book.get());
        let resource = desk.map_or("?", |desk| {
            desk.worked();
            desk.resource.text()
        });
        let side = Side::from_u8(filled.side).map_or("?", Side::text);
        let object = json!({
            "event": "filled",
            "resource": resource,
            "side": side,
            "trade": trade.get(),
            "price_ticks": price_ticks.get(),
            "quantity_credits": quantity.get(),
            "remaining_credits": remaining.get(),
        });
        let does = if filled.side == Side::Sell as u8 { "sold" } else { "bought" };
        self.tell(
            &object,
            &format!(
                "{resource}: {does} {quantity} credits at {price_ticks} ticks, {remaining} open"
            ),
        )
    }
}
