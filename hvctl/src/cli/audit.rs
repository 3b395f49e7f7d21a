//! `hvctl audit`: every transaction, the chain verified by the daemon on the way.

use super::amount::{credits, funds};
use super::door::{Door, Reach, Trouble};
use super::json;
use super::names::Directory;
use super::output::{List, Output};
use super::table::{left, right};
use super::time::rfc3339;
use std::time::Duration;
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

/// The amount for people: credits, or a number as `what` says.
fn amount(row: &AuditRow) -> String {
    match json::amount_key(text(&row.what)) {
        None => "-".to_owned(),
        Some("amount_millicredits") => credits(row.amount.get()),
        Some("held") if row.amount.get() == u64::MAX => "unbounded".to_owned(),
        Some(_) => row.amount.to_string(),
    }
}

/// Who asked, for people.
fn by(row: &AuditRow) -> String {
    match json::asked_as(row) {
        None => "-".to_owned(),
        Some(role) => format!("{role} {}", text(&row.peer)),
    }
}

fn line(row: &AuditRow, names: &Directory, list: &mut List<'_>) -> Result<(), Trouble> {
    list.object(&json::audit(row))?;
    // Instances by number: a name of today may have been another instance's then.
    let dash = |value: u64, shown: String| if value == 0 { "-".to_owned() } else { shown };
    let with = match (json::number(row.other_account), json::number(row.other_instance)) {
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
        json::number(row.instance).map_or("-".to_owned(), |instance| instance.to_string()),
        with,
        names.book(row.book.get()),
        amount(row),
        dash(row.price_ticks.get().into(), row.price_ticks.to_string()),
        dash(row.funds_micro.get(), funds(row.funds_micro.get())),
        dash(row.session.get(), row.session.to_string()),
        by(row),
        json::why_refused(row).to_owned(),
    ]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use vendue_wire::code::{Lag, Reject, Role};

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
        assert_eq!(json::audit(&row("grant"))["amount_millicredits"], 2500);
        assert_eq!(json::audit(&row("trade"))["amount_credits"], 2500);
        assert_eq!(json::audit(&row("account"))["number"], 2500);
        assert_eq!(json::audit(&row("tier limit applied"))["held"], 2500);
        let unbounded = AuditRow { amount: u64::MAX.into(), ..row("limit applied") };
        assert_eq!(
            (amount(&unbounded).as_str(), &json::audit(&unbounded)["held"]),
            ("unbounded", &Value::Null)
        );
        let late = AuditRow { code: Lag::InUse as u8, ..row("limit partial") };
        assert_eq!(json::audit(&late)["refused"], "in use");
    }

    #[test]
    fn parties_that_there_are_none_of_are_null_and_long_numbers_are_text() {
        let object = json::audit(&row("rejected"));
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
            (&json::audit(&row)["role"], &json::audit(&row)["peer"]),
            (&json!("operator"), &json!("uid 7"))
        );
        let own = AuditRow { role: u8::MAX, peer: [0; PEER_BYTES], ..row };
        assert_eq!((by(&own), &json::audit(&own)["peer"]), ("-".to_owned(), &Value::Null));
    }
}
