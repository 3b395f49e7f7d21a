//! `hvctl order`, `cancel` and `orders`: the books' orders.

use super::door::{Door, Reach, Trouble, Who, refusal};
use super::json;
use super::names::{
    Directory, accounts, find_account, find_instance, instances, parse_resource, tiers,
};
use super::output::Output;
use super::table::{left, right};
use super::time::parse_ms;
use serde_json::json;
use std::time::{Duration, Instant};
use vendue_wire::client::{ANSWER_TIMEOUT, ClientError, Received};
use vendue_wire::code::{CancelReason, OrderType, Resource, Role, Side, TimeInForce};
use vendue_wire::message::*;

/// How long after an order's last report its outcome counts as complete.
const QUIET: Duration = Duration::from_millis(100);

/// Whom orders are sent for.
#[derive(Debug, clap::Args)]
pub struct Acting {
    /// Role to act in: agent, tenant or operator
    #[arg(long, default_value = "operator", value_parser = parse_role)]
    role: Role,
    /// Account to act for, by name or number, where the credentials do not name it
    #[arg(long)]
    account: Option<String>,
}

fn parse_role(text: &str) -> Result<Role, String> {
    let acting = [Role::Agent, Role::Tenant, Role::Operator];
    let found = acting.into_iter().find(|role| role.text() == text);
    found.ok_or_else(|| "a role is one of agent, tenant, operator".to_owned())
}

impl Acting {
    /// The session that acts for `instance`.
    pub fn door(&self, reach: &Reach, reader: &mut Door, instance: u32) -> Result<Door, Trouble> {
        let account = match &self.account {
            None => ANY,
            Some(wanted) => find_account(wanted, &accounts(reader)?)?,
        };
        let instance = if self.role == Role::Agent { instance } else { ANY };
        reach.acting(Who { role: self.role, account, instance })
    }
}

/// A side to trade on.
#[derive(Debug, clap::Subcommand)]
pub enum OrderCommand {
    /// Buy credits for funds
    Buy(Terms),
    /// Sell credits for funds
    Sell(Terms),
}

/// An order's terms.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["book", "resource"])))]
#[command(group(clap::ArgGroup::new("duration").args(["market", "ioc", "fok", "gtd"])))]
pub struct Terms {
    /// Instance whose credits are traded, by name or number
    instance: String,
    /// Book to trade in, by number
    #[arg(long)]
    book: Option<u16>,
    /// Resource to trade, in the book of the instance's tier: cpu, memory, block-io...
    #[arg(long, value_parser = parse_resource)]
    resource: Option<Resource>,
    /// Price in the book's ticks; with --market the worst to pay, and not needed to sell
    #[arg(long, value_name = "TICKS", required_unless_present = "market")]
    price: Option<u32>,
    /// Credits (VRU-seconds)
    #[arg(long, value_name = "CREDITS")]
    quantity: u32,
    /// Trade at any price; cancel what finds no counterparty
    #[arg(long)]
    market: bool,
    /// Immediate or cancel: cancel what does not trade at once
    #[arg(long)]
    ioc: bool,
    /// Fill or kill: trade whole at once or not at all
    #[arg(long)]
    fok: bool,
    /// Good till this time in UTC, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_ms)]
    gtd: Option<u64>,
    /// Refuse the order if it would trade at once
    #[arg(long, conflicts_with_all = ["market", "ioc", "fok"])]
    post_only: bool,
    /// When it meets its own account: cancel-incoming or cancel-resting
    #[arg(long, default_value = "cancel-incoming", value_parser = ["cancel-incoming", "cancel-resting"])]
    self_trade: String,
    #[command(flatten)]
    acting: Acting,
}

impl Terms {
    fn message(&self, side: Side, instance: u32, book: u16) -> Result<NewOrder, Trouble> {
        let price_ticks = match (self.price, side) {
            (Some(price), _) => price,
            (None, Side::Sell) => 1,
            (None, Side::Buy) => {
                let why = "a market buy needs --price, the worst price to pay";
                return Err(Trouble::Usage(why.to_owned()));
            }
        };
        let (order_type, time_in_force) = match (self.market, self.ioc, self.fok, self.gtd) {
            (true, ..) => (OrderType::Market, TimeInForce::Ioc),
            (_, true, ..) => (OrderType::Limit, TimeInForce::Ioc),
            (_, _, true, _) => (OrderType::Limit, TimeInForce::Fok),
            (.., Some(_)) => (OrderType::Limit, TimeInForce::Gtd),
            _ => (OrderType::Limit, TimeInForce::Gtc),
        };
        Ok(NewOrder {
            client_id: 0.into(),
            expires_at_ms: self.gtd.unwrap_or(0).into(),
            instance: instance.into(),
            price_ticks: price_ticks.into(),
            quantity: self.quantity.into(),
            book: book.into(),
            side: side as u8,
            order_type: order_type as u8,
            time_in_force: time_in_force as u8,
            post_only: u8::from(self.post_only),
            self_trade: u8::from(self.self_trade == "cancel-resting"),
            reserved: 0,
        })
    }

    /// The book asked for, or that of the instance's tier and the resource.
    fn book(&self, names: &Directory, instance: u32) -> Result<u16, Trouble> {
        let Some(resource) = self.resource else {
            return Ok(self.book.unwrap_or(ANY_BOOK));
        };
        let tier = names.instance_row(instance).map_or(ANY_BOOK, |row| row.tier.get());
        names.tier_resource(tier, resource as u8).map(|row| row.book.get()).ok_or_else(|| {
            Trouble::Refused(format!(
                "tier {} has no {resource}; see `hvctl tier list`",
                names.tier(tier)
            ))
        })
    }
}

/// Enters an order and prints what comes of it at once.
pub fn run(command: &OrderCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let (side, terms) = match command {
        OrderCommand::Buy(terms) => (Side::Buy, terms),
        OrderCommand::Sell(terms) => (Side::Sell, terms),
    };
    let mut reader = reach.reader()?;
    let names = Directory {
        instances: instances(&mut reader)?,
        tiers: tiers(&mut reader)?,
        ..Directory::default()
    };
    let instance = find_instance(&terms.instance, &names.instances)?;
    let order = terms.message(side, instance, terms.book(&names, instance)?)?;
    let mut door = terms.acting.door(reach, &mut reader, instance)?;
    let order = NewOrder { client_id: door.next_client_id().into(), ..order };
    let request = door.client.send(&order)?;
    let mut quiet_at = Instant::now() + ANSWER_TIMEOUT;
    let mut accepted = false;
    loop {
        let left = quiet_at.saturating_duration_since(Instant::now());
        match door.client.recv(left)? {
            Some(frame) if reports_on(frame, request, order.client_id.get()) => {
                accepted = true;
                if report(frame, &names, out)? == Outcome::Over {
                    return Ok(());
                }
                quiet_at = Instant::now() + QUIET;
            }
            Some(_) => {}
            None if accepted => return Ok(()),
            None => return Err(ClientError::Timeout("answer an order").into()),
        }
    }
}

/// True if the frame is about the order. Its session is its own, so every report is.
fn reports_on(frame: &Received, request: u64, client_id: u64) -> bool {
    frame.request() == Some(request)
        || frame.message::<Filled>().is_some_and(|filled| filled.client_id.get() == client_id)
        || frame.message::<Cancelled>().is_some_and(|gone| gone.client_id.get() == client_id)
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Open,
    Over,
}

/// Prints one report; says whether the order lives on.
fn report(frame: &Received, names: &Directory, out: &mut Output) -> Result<Outcome, Trouble> {
    if let Some(refused) = frame.message::<Refused>() {
        return Err(Trouble::Refused(refusal(refused.kind, refused.code)));
    }
    if let Some(rejected) = frame.message::<Rejected>() {
        return Err(Trouble::Refused(refusal(rejected.kind, rejected.code)));
    }
    if let Some(accepted) = frame.message::<Accepted>() {
        let (handle, book) = (accepted.handle.get(), accepted.book.get());
        let side = json::side(accepted.side);
        let object = json::accepted(accepted);
        let (quantity, price) = (accepted.quantity, accepted.price_ticks);
        let book = names.book(book);
        out.say(
            &object,
            &format!(
                "accepted: {side} {quantity} credits of {book} at {price} ticks, handle {handle}"
            ),
        )?;
        return Ok(Outcome::Open);
    }
    if let Some(filled) = frame.message::<Filled>() {
        let object = json::filled(filled);
        let Filled { trade, quantity, price_ticks, remaining, fee_micro, .. } = filled;
        let fee = super::amount::funds(fee_micro.get());
        out.say(
            &object,
            &format!("filled: {quantity} at {price_ticks} ticks (trade {trade}, fee {fee}), {remaining} open"),
        )?;
        return Ok(if remaining.get() == 0 { Outcome::Over } else { Outcome::Open });
    }
    match frame.message::<Cancelled>() {
        Some(cancelled) => {
            say_cancelled(cancelled, out)?;
            Ok(Outcome::Over)
        }
        None => Ok(Outcome::Open),
    }
}

fn say_cancelled(cancelled: &Cancelled, out: &mut Output) -> Result<(), Trouble> {
    let reason =
        CancelReason::from_u8(cancelled.reason).map_or("unknown reason", CancelReason::text);
    let (handle, quantity) = (cancelled.handle.get(), cancelled.quantity.get());
    let object = json::cancelled(cancelled);
    Ok(out.say(&object, &format!("cancelled: {quantity} credits of order {handle} ({reason})"))?)
}

/// What to cancel.
#[derive(Debug, clap::Args)]
pub struct CancelCommand {
    /// Handle of one order, as `order` and `orders` print it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    handle: Option<u64>,
    /// Every order the role may act on: an operator's are those of all tenants
    #[arg(long)]
    all: bool,
    /// Only this instance's orders, by name or number; an agent must name its own
    #[arg(long)]
    instance: Option<String>,
    /// Only orders in this book, by number
    #[arg(long, conflicts_with = "handle")]
    book: Option<u16>,
    #[command(flatten)]
    acting: Acting,
}

/// Cancels one order or many.
pub fn cancel(command: &CancelCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut reader = reach.reader()?;
    let instance = match &command.instance {
        None => ANY,
        Some(wanted) => find_instance(wanted, &instances(&mut reader)?)?,
    };
    let mut door = command.acting.door(reach, &mut reader, instance)?;
    if let Some(handle) = command.handle {
        let cancelled: Cancelled = door.client.call_for(&Cancel { handle: handle.into() })?;
        return say_cancelled(&cancelled, out);
    }
    let message = MassCancel {
        instance: instance.into(),
        book: command.book.unwrap_or(ANY_BOOK).into(),
        side: 2,
        reserved: 0,
    };
    let count = door.call(&message)?.value.get();
    Ok(out.say(&json!({ "cancelled": count }), &format!("{count} orders cancelled"))?)
}

/// Whose open orders to show.
#[derive(Debug, clap::Args)]
pub struct OrdersCommand {
    /// Instance, by name or number
    instance: String,
}

/// Prints an instance's open orders.
pub fn orders(command: &OrdersCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory {
        instances: instances(&mut door)?,
        tiers: tiers(&mut door)?,
        ..Directory::default()
    };
    let instance = find_instance(&command.instance, &names.instances)?;
    let query = |from: u32| QueryOrders { instance: instance.into(), from: from.into() };
    let mut list =
        out.list(&[right("HANDLE"), left("BOOK"), left("SIDE"), right("TICKS"), right("CREDITS")]);
    for row in door.pages::<OrderRow, _>(query)? {
        list.object(&json::order(&row))?;
        list.cells(vec![
            row.handle.to_string(),
            names.book(row.book.get()),
            json::side(row.side).to_owned(),
            row.price_ticks.to_string(),
            row.quantity.to_string(),
        ]);
    }
    Ok(list.show()?)
}
