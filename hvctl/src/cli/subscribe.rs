//! `hvctl subscribe`: every trade and every balance that changes, each exactly once and in order.

use super::amount::{credits, decimal, funds};
use super::door::{Reach, Trouble, Who};
use super::names::{Directory, accounts, find_account, resource};
use super::output::{List, Output};
use super::table::{left, right};
use super::time::rfc3339;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use vendue_wire::client::{Notice, Place, Subscription};
use vendue_wire::code::{Reject, Role};
use vendue_wire::message::*;

/// How long a look for the next notice takes at most.
const LOOK: Duration = Duration::from_secs(1);
/// Names given since are learnt so often, while there is nothing to tell.
const LEARN: Duration = Duration::from_secs(5);

/// What is told, and from where on.
#[derive(Debug, clap::Args)]
pub struct SubscribeCommand {
    /// First notice wanted: a journal sequence, or the id of a notice; what comes next if left out.
    /// To go on after a crash, give the last id dealt with, its part plus one: 12.3 after 12.2
    #[arg(long, value_name = "SEQ[.PART]", value_parser = parse_place)]
    from: Option<Place>,
    /// Only these: swaps, funds, credits, tiers (swaps between tiers)
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = parse_kind)]
    only: Vec<u8>,
    /// As a tenant: only what concerns this account
    #[arg(long)]
    account: Option<String>,
}

fn parse_place(text: &str) -> Result<Place, String> {
    let (sequence, part) = text.split_once('.').unwrap_or((text, "0"));
    match (sequence.parse(), part.parse()) {
        (Ok(sequence), Ok(part)) if sequence > 0 => Ok(Place { sequence, part }),
        _ => Err("give a sequence from 1 on such as 12, or an id such as 12.3".to_owned()),
    }
}

fn parse_kind(text: &str) -> Result<u8, String> {
    match text {
        "swaps" => Ok(TELL_SWAPS),
        "funds" => Ok(TELL_FUNDS),
        "credits" => Ok(TELL_CREDITS),
        "tiers" => Ok(TELL_TIERS),
        _ => Err("give swaps, funds, credits or tiers".to_owned()),
    }
}

/// Runs the command until it is interrupted.
pub fn run(command: &SubscribeCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut reader = reach.reader()?;
    let mut names = Directory::read(&mut reader)?;
    let door = match &command.account {
        None => reach.reader()?,
        Some(wanted) => {
            let account = find_account(wanted, &accounts(&mut reader)?)?;
            reach.acting(Who { role: Role::Tenant, account, instance: ANY })?
        }
    };
    let what = command.only.iter().fold(0, |sum, bit| sum | bit);
    let what = if what == 0 { TELL_ALL } else { what };
    let from = command.from.unwrap_or_default();
    let mut subscription = Subscription::begin(door.client, from, what)?;
    let (shows_names, mut learnt) = (!out.is_json(), Instant::now());
    let mut list = out.list(&[
        right("ID").at_least(10),
        left("TIME").at_least(30),
        left("WHAT").at_least(7),
        left("OF").at_least(16),
        left("ON").at_least(14),
        right("CHANGE").at_least(14),
        right("NOW").at_least(14),
        left("BECAUSE"),
    ]);
    list.show()?;
    loop {
        // Keeps the other session alive.
        reader.client.try_recv()?;
        let Some(notice) = subscription.next(LOOK)? else { continue };
        match notice {
            Notice::Swapped(m) => swapped(&m, &names, &mut list)?,
            Notice::Reversed(m) => reversed(&m, &names, &mut list)?,
            Notice::Funds(m) => funds_changed(&m, &names, &mut list)?,
            Notice::Credits(m) => credits_changed(&m, &names, &mut list)?,
            Notice::Tiers(m) => tiers_swapped(&m, &names, &mut list)?,
            Notice::CaughtUp(_) if shows_names && learnt.elapsed() > LEARN => {
                names = Directory::read(&mut reader)?;
                learnt = Instant::now();
            }
            Notice::CaughtUp(_) => {}
            Notice::Ended(next, code) => {
                let why = Reject::from_u8(code).map_or("ended", Reject::text);
                let text = format!("the subscription ended ({why}); go on with --from {next}");
                return Err(Trouble::Refused(text));
            }
        }
        list.show()?;
    }
}

/// What every notice begins with.
fn object(sequence: U64, part: U32, time_ns: U64, what: &str) -> Value {
    let (sequence, part) = (sequence.get(), part.get());
    json!({
        "id": Place { sequence, part }.to_string(),
        "sequence": sequence,
        "part": part,
        "time": rfc3339(time_ns.get()),
        "what": what,
    })
}

fn with(mut object: Value, more: Value) -> Value {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

/// An instance's or an account's number, or none.
fn number(number: U32) -> Option<u32> {
    Some(number.get()).filter(|&number| number != ANY)
}

/// The request or command that did it.
fn cause(kind: u8) -> String {
    match kind {
        NewOrder::KIND | Replace::KIND => "trade".to_owned(),
        Deposit::KIND => "deposit".to_owned(),
        Withdraw::KIND => "withdraw".to_owned(),
        RemoveInstance::KIND => "removal".to_owned(),
        GrantCredits::KIND => "grant".to_owned(),
        SetPhase::KIND => "auction".to_owned(),
        ReverseTrade::KIND => "reversal".to_owned(),
        // Credits that were earned, and auctions that were due.
        0x42 => "time".to_owned(),
        0x43 => "used".to_owned(),
        other => format!("{other:#04x}"),
    }
}

fn swapped(m: &Swapped, names: &Directory, list: &mut List<'_>) -> Result<(), Trouble> {
    list.object(&with(
        object(m.sequence, m.part, m.time_ns, "swap"),
        json!({
            "trade": m.trade.get(),
            "book": m.book.get(),
            "price_ticks": m.price_ticks.get(),
            "quantity_credits": m.quantity.get(),
            "notional_micro": m.notional_micro.get(),
            "seller_account": number(m.seller_account),
            "seller": number(m.seller),
            "seller_fee_micro": m.seller_fee_micro.get(),
            "buyer_account": number(m.buyer_account),
            "buyer": number(m.buyer),
            "buyer_fee_micro": m.buyer_fee_micro.get(),
        }),
    ))?;
    list.cells(vec![
        id(m.sequence, m.part),
        rfc3339(m.time_ns.get()),
        "swap".to_owned(),
        format!(
            "{} > {}",
            names.account(m.seller_account.get()),
            names.account(m.buyer_account.get())
        ),
        names.book(m.book.get()),
        m.quantity.to_string(),
        format!("at {}", m.price_ticks),
        "trade".to_owned(),
    ]);
    Ok(())
}

fn reversed(m: &SwapReversed, names: &Directory, list: &mut List<'_>) -> Result<(), Trouble> {
    let (seller, buyer) = (m.seller_account.get(), m.buyer_account.get());
    list.object(&with(
        object(m.sequence, m.part, m.time_ns, "reversed"),
        json!({
            "trade": m.trade.get(),
            "book": m.book.get(),
            "price_ticks": m.price_ticks.get(),
            "quantity_credits": m.quantity.get(),
            "notional_micro": m.notional_micro.get(),
            "seller_account": seller,
            "buyer_account": buyer,
        }),
    ))?;
    list.cells(vec![
        id(m.sequence, m.part),
        rfc3339(m.time_ns.get()),
        "reversed".to_owned(),
        format!("{} < {}", names.account(seller), names.account(buyer)),
        names.book(m.book.get()),
        m.quantity.to_string(),
        format!("at {}", m.price_ticks),
        format!("trade {}", m.trade),
    ]);
    Ok(())
}

fn funds_changed(m: &FundsChanged, names: &Directory, list: &mut List<'_>) -> Result<(), Trouble> {
    let change = m.change_micro.get() as i64;
    list.object(&with(
        object(m.sequence, m.part, m.time_ns, "funds"),
        json!({
            "account": m.account.get(),
            "change_micro": change,
            "balance_micro": m.balance_micro.get(),
            "cause": cause(m.cause),
        }),
    ))?;
    list.cells(vec![
        id(m.sequence, m.part),
        rfc3339(m.time_ns.get()),
        "funds".to_owned(),
        names.account(m.account.get()),
        "-".to_owned(),
        decimal(change.into(), super::amount::FUNDS_DECIMALS),
        funds(m.balance_micro.get()),
        cause(m.cause),
    ]);
    Ok(())
}

fn credits_changed(
    m: &CreditsChanged,
    names: &Directory,
    list: &mut List<'_>,
) -> Result<(), Trouble> {
    let change = m.change_millicredits.get() as i64;
    list.object(&with(
        object(m.sequence, m.part, m.time_ns, "credits"),
        json!({
            "account": number(m.account),
            "instance": m.instance.get(),
            "resource": resource(m.resource),
            "change_millicredits": change,
            "balance_millicredits": m.balance_millicredits.get(),
            "cause": cause(m.cause),
        }),
    ))?;
    list.cells(vec![
        id(m.sequence, m.part),
        rfc3339(m.time_ns.get()),
        "credits".to_owned(),
        names.instance(m.instance.get()),
        resource(m.resource),
        decimal(change.into(), super::amount::CREDIT_DECIMALS),
        credits(m.balance_millicredits.get()),
        cause(m.cause),
    ]);
    Ok(())
}

fn tiers_swapped(m: &TiersSwapped, names: &Directory, list: &mut List<'_>) -> Result<(), Trouble> {
    let cause = if m.cause == SwapTiers::KIND { "operator" } else { "demand" };
    let [num, den] = m.rate;
    list.object(&with(
        object(m.sequence, m.part, m.time_ns, "tiers"),
        json!({
            "from": m.from.get(),
            "to": m.to.get(),
            "resource": resource(m.resource),
            "rate": format!("{num}/{den}"),
            "left_vru": m.left_vru.get(),
            "arrived_vru": m.arrived_vru.get(),
            "rest_vru": m.rest_vru.get(),
            "left_millicredits": m.left_millicredits.get(),
            "arrived_millicredits": m.arrived_millicredits.get(),
            "cause": cause,
        }),
    ))?;
    list.cells(vec![
        id(m.sequence, m.part),
        rfc3339(m.time_ns.get()),
        "tiers".to_owned(),
        format!("{} > {}", names.tier(m.from.get()), names.tier(m.to.get())),
        resource(m.resource),
        format!("{} > {}", m.left_vru, m.arrived_vru),
        format!("at {num}/{den}"),
        cause.to_owned(),
    ]);
    Ok(())
}

fn id(sequence: U64, part: U32) -> String {
    Place { sequence: sequence.get(), part: part.get() }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_sequence_and_perhaps_a_part() {
        assert_eq!(parse_place("12"), Ok(Place { sequence: 12, part: 0 }));
        assert_eq!(parse_place("12.3"), Ok(Place { sequence: 12, part: 3 }));
        assert_eq!(
            parse_place(&Place { sequence: 12, part: 3 }.after().to_string()).unwrap().part,
            4
        );
        for wrong in ["", "0", "-1", "12.", ".3", "a.b", "1.2.3", "1.4294967296"] {
            assert!(parse_place(wrong).is_err(), "{wrong}");
        }
    }
}
