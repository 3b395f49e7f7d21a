//! `hvctl audit`: every transaction, the chain verified by the daemon on the way.

use super::amount::{credits, funds};
use super::door::{Door, Reach, Trouble};
use super::names::Directory;
use super::output::{List, Output};
use super::table::{left, right};
use super::time::rfc3339;
use serde_json::{Value, json};
use std::time::Duration;
use vendue_wire::code::{Reject, Role};
use vendue_wire::message::*;

/// Journal records read for one page.
const PAGE_RECORDS: u32 = 1024;
/// Between two looks for new transactions.
const FOLLOW: Duration = Duration::from_millis(500);

/// Which part of the trail.
#[derive(Debug, clap::Args)]
pub struct AuditCommand {
    /// First journal sequence wanted
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,
    /// At most this many transactions; all if left out
    #[arg(long)]
    limit: Option<u64>,
    /// Wait for new transactions, until Ctrl-C
    #[arg(long)]
    follow: bool,
}

/// Prints the trail; [`Trouble::Refused`] if the daemon finds it broken.
pub fn run(command: &AuditCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let mut names = Directory::read(&mut door)?;
    let mut list = out.list(&[
        right("SEQUENCE").at_least(10),
        left("TIME").at_least(30),
        left("WHAT").at_least(16),
        left("ACCOUNT").at_least(10),
        right("INSTANCE"),
        left("WITH (INSTANCE)").at_least(16),
        left("BOOK").at_least(14),
        right("AMOUNT").at_least(12),
        right("TICKS"),
        right("FUNDS").at_least(12),
        right("SESSION").at_least(20),
        left("BY").at_least(18),
        left("REFUSED"),
    ]);
    let (mut from, mut left) = (command.from, command.limit.unwrap_or(u64::MAX));
    let mut seen = 0;
    loop {
        // A last page holds at least everything that was durable before it was asked for. To go
        // on from there lets the daemon go on too, instead of reading its journal anew.
        let durable = if command.follow { durable(&mut door)? } else { 0 };
        let query =
            QueryAudit { from: from.into(), limit: PAGE_RECORDS.into(), reserved: 0.into() };
        let (mut rows, mut broken) = (Vec::new(), None);
        let next = door.each(&query, |received| {
            if let Some(row) = received.message::<AuditRow>() {
                rows.extend(Some(*row).filter(|row| row.sequence.get() > seen));
            } else if let Some(fault) = received.message::<FaultRow>() {
                broken = Some(text(&fault.text).to_owned());
            }
        })?;
        for row in rows.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            line(row, &names, &mut list)?;
        }
        list.show()?;
        left = left.saturating_sub(rows.len() as u64);
        if left == 0 {
            return Ok(());
        }
        if let Some(why) = broken {
            return Err(Trouble::Refused(format!("the audit trail cannot be trusted: {why}")));
        }
        seen = rows.last().map_or(seen, |row| row.sequence.get());
        match next {
            Some(next) => from = next,
            None if !command.follow => return Ok(()),
            None => {
                from = from.max(durable + 1);
                door.client.recv(FOLLOW)?;
            }
        }
        if !rows.is_empty() && command.follow {
            names = Directory::read(&mut door)?;
        }
    }
}

/// The last sequence number on stable storage.
fn durable(door: &mut Door) -> Result<u64, Trouble> {
    let status = door.rows::<StatusRow>(&QueryStatus {})?;
    Ok(status.first().map_or(0, |status| status.durable.get()))
}

/// What `amount` counts; `None` if the transaction has none.
fn amount_key(what: &str) -> Option<&'static str> {
    match what {
        "usage" | "grant" | "pool out" | "pool in" => Some("amount_millicredits"),
        "tier out" | "tier in" | "tier rest" => Some("amount_vru"),
        "trade" | "order buy" | "order sell" | "cancelled" | "replaced" | "auction" => {
            Some("amount_credits")
        }
        "account" | "instance" | "remove" => Some("number"),
        "tier define" | "tier change" | "tier drain" | "tier resume" | "tier delete" => {
            Some("number")
        }
        "mass cancel" | "set limits" | "cancel account" => Some("count"),
        what if what.starts_with("reversed ") => Some("amount_credits"),
        "cap" => Some("millicores"),
        _ => None,
    }
}

/// The amount for people: credits, or a number as `what` says.
fn amount(row: &AuditRow) -> String {
    match amount_key(text(&row.what)) {
        None => "-".to_owned(),
        Some("amount_millicredits") => credits(row.amount.get()),
        Some(_) => row.amount.to_string(),
    }
}

/// The number of an account or an instance, if there is one.
fn number(number: U32) -> Option<u32> {
    Some(number.get()).filter(|&number| number != ANY)
}

/// The role of who asked, unless that is the daemon itself.
fn role(row: &AuditRow) -> Option<&'static str> {
    Role::from_u8(row.role).map(Role::text)
}

/// Who asked, for people.
fn by(row: &AuditRow) -> String {
    match role(row) {
        None => "-".to_owned(),
        Some(role) => format!("{role} {}", text(&row.peer)),
    }
}

fn refused(row: &AuditRow) -> &'static str {
    Reject::from_u8(row.code).map_or("", Reject::text)
}

fn object(row: &AuditRow) -> Value {
    let mut object = json!({
        "sequence": row.sequence.get(),
        "time": rfc3339(row.time_ns.get()),
        "what": text(&row.what),
        "session": row.session.get().to_string(),
        "role": role(row),
        "peer": Some(text(&row.peer)).filter(|peer| !peer.is_empty()),
        "account": number(row.account),
        "instance": number(row.instance),
        "other_account": number(row.other_account),
        "other_instance": number(row.other_instance),
        "book": Some(row.book.get()).filter(|&book| book != ANY_BOOK),
        "price_ticks": row.price_ticks.get(),
        "funds_micro": row.funds_micro.get(),
        "code": row.code,
        "refused": refused(row),
        "chain": format!("{:016x}", row.chain.get()),
    });
    if let Some(key) = amount_key(text(&row.what)) {
        object[key] = row.amount.get().into();
    }
    object
}

fn line(row: &AuditRow, names: &Directory, list: &mut List<'_>) -> Result<(), Trouble> {
    list.object(&object(row))?;
    // Instances by number: a name of today may have been another instance's then.
    let dash = |value: u64, shown: String| if value == 0 { "-".to_owned() } else { shown };
    let with = match (number(row.other_account), number(row.other_instance)) {
        (None, None) => "-".to_owned(),
        (Some(account), None) => names.account(account),
        (None, Some(instance)) => instance.to_string(),
        (Some(account), Some(instance)) => format!("{} ({instance})", names.account(account)),
    };
    list.cells(vec![
        row.sequence.to_string(),
        rfc3339(row.time_ns.get()),
        text(&row.what).to_owned(),
        names.account(row.account.get()),
        number(row.instance).map_or("-".to_owned(), |instance| instance.to_string()),
        with,
        names.book(row.book.get()),
        amount(row),
        dash(row.price_ticks.get().into(), row.price_ticks.to_string()),
        dash(row.funds_micro.get(), funds(row.funds_micro.get())),
        dash(row.session.get(), row.session.to_string()),
        by(row),
        refused(row).to_owned(),
    ]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(what: &str) -> AuditRow {
        AuditRow {
            sequence: 7.into(),
            session: u64::MAX.into(),
            chain: 0xabc.into(),
            amount: 2500.into(),
            account: 3.into(),
            instance: ANY.into(),
            book: ANY_BOOK.into(),
            code: Reject::BadName as u8,
            role: Role::Operator as u8,
            peer: field("uid 7").unwrap(),
            what: field(what).unwrap(),
            ..AuditRow::zeroed()
        }
    }

    #[test]
    fn amounts_are_told_in_their_own_unit() {
        assert_eq!((amount(&row("usage")), amount(&row("trade"))), ("2.500".into(), "2500".into()));
        assert_eq!(amount(&row("logon")), "-");
        assert_eq!(object(&row("grant"))["amount_millicredits"], 2500);
        assert_eq!(object(&row("trade"))["amount_credits"], 2500);
        assert_eq!(object(&row("account"))["number"], 2500);
    }

    #[test]
    fn parties_that_there_are_none_of_are_null_and_long_numbers_are_text() {
        let object = object(&row("rejected"));
        assert_eq!((&object["account"], &object["instance"]), (&json!(3), &Value::Null));
        assert_eq!(object["book"], Value::Null);
        assert_eq!(object["session"], u64::MAX.to_string());
        assert_eq!((&object["chain"], &object["code"]), (&json!("0000000000000abc"), &json!(25)));
        assert_eq!(object["refused"], Reject::BadName.text());
    }

    #[test]
    fn who_asked_is_named() {
        let row = row("set limits");
        assert_eq!(by(&row), "operator uid 7");
        assert_eq!(
            (&object(&row)["role"], &object(&row)["peer"]),
            (&json!("operator"), &json!("uid 7"))
        );
        let own = AuditRow { role: u8::MAX, peer: [0; PEER_BYTES], ..row };
        assert_eq!((by(&own), &object(&own)["peer"]), ("-".to_owned(), &Value::Null));
    }
}
