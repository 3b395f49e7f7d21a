//! `hvctl account limits`: whom an account may trade with, and how much.

use super::amount;
use super::door::{Door, Reach, Trouble, Who};
use super::json;
use super::names::{accounts, find_account, groups, parse_groups};
use super::output::Output;
use super::table::{left, right};
use super::time::rfc3339;
use serde_json::json;
use vendue_wire::message::*;

/// What to change; what is not named stays. Without any option: show what holds.
#[derive(Debug, clap::Args)]
pub struct LimitsOf {
    /// Account, by name or number
    account: String,
    /// Group it belongs to
    #[arg(long, value_parser = clap::value_parser!(u8).range(..=63))]
    group: Option<u8>,
    /// Groups it sells credits to: all, none, a mask (0x2f) or groups (0,3,5-7)
    #[arg(long, value_name = "MASK", value_parser = parse_groups)]
    sells_to: Option<u64>,
    /// Groups it buys credits from: all, none, a mask (0x2f) or groups (0,3,5-7)
    #[arg(long, value_name = "MASK", value_parser = parse_groups)]
    buys_from: Option<u64>,
    /// Let it swap credits with other accounts, as the masks say
    #[arg(long, conflicts_with = "opt_out")]
    opt_in: bool,
    /// Let it swap credits with nobody; the masks are kept
    #[arg(long)]
    opt_out: bool,
    /// Credits it may sell in a window (machine.limit_window_s), or none
    #[arg(long, value_name = "CREDITS", value_parser = parse_most)]
    sell_max: Option<u64>,
    /// Credits it may buy in a window, or none
    #[arg(long, value_name = "CREDITS", value_parser = parse_most)]
    buy_max: Option<u64>,
    /// Units of funds that one order may be worth, such as 12.5, or none
    #[arg(long, value_name = "AMOUNT", value_parser = parse_worth)]
    order_max: Option<u64>,
    /// Credits it may hold and have ordered, or none; only buying is refused
    #[arg(long, value_name = "CREDITS", value_parser = parse_most)]
    position_max: Option<u64>,
}

/// Whole credits, or `none` for no limit.
fn parse_most(text: &str) -> Result<u64, String> {
    match text {
        "none" => Ok(UNLIMITED),
        _ => text.parse().map_err(|_| "give a whole number of credits, or none".to_owned()),
    }
}

/// Funds, or `none` for no limit.
fn parse_worth(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(UNLIMITED) } else { amount::parse_funds(text) }
}

impl LimitsOf {
    fn changes_something(&self) -> bool {
        let numbers = [self.sell_max, self.buy_max, self.order_max, self.position_max];
        let masks = [self.sells_to, self.buys_from];
        self.opt_in
            || self.opt_out
            || self.group.is_some()
            || numbers.iter().chain(&masks).any(Option::is_some)
    }

    /// What holds from now on.
    fn message(&self, row: &AccountRow, now: &AccountLimitsRow) -> SetLimits {
        let or = |wanted: Option<u64>, now: U64| wanted.map_or(now, U64::new);
        SetLimits {
            client_id: 0.into(),
            sells_to: or(self.sells_to, row.sells_to),
            buys_from: or(self.buys_from, row.buys_from),
            sell_max_credits: or(self.sell_max, now.sell_max_credits),
            buy_max_credits: or(self.buy_max, now.buy_max_credits),
            order_max_micro: or(self.order_max, now.order_max_micro),
            position_max_credits: or(self.position_max, now.position_max_credits),
            account: row.account,
            group: self.group.unwrap_or(row.group),
            opted_in: u8::from((row.opted_in == 1 || self.opt_in) && !self.opt_out),
            reserved: [0; 2],
        }
    }
}

/// An account and its limits, where those of one without any are unlimited.
fn read(door: &mut Door, account: u32) -> Result<(AccountRow, AccountLimitsRow), Trouble> {
    let (mut row, mut limits) = (AccountRow::zeroed(), json::unlimited());
    door.each(&QueryAccounts { from: account.into() }, |received| {
        if let Some(found) = received.message::<AccountRow>().filter(|it| it.account == account) {
            row = *found;
        } else if let Some(found) = received.message::<AccountLimitsRow>()
            && found.account == account
        {
            limits = *found;
        }
    })?;
    Ok((row, limits))
}

/// Runs the command.
pub fn run(command: &LimitsOf, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let changes = command.changes_something();
    let mut door = if changes { reach.acting(Who::OPERATOR)? } else { reach.reader()? };
    let account = find_account(&command.account, &accounts(&mut door)?)?;
    let (row, limits) = read(&mut door, account)?;
    if !changes {
        return show(&row, &limits, out);
    }
    let client_id = door.next_client_id().into();
    let message = SetLimits { client_id, ..command.message(&row, &limits) };
    let cancelled = door.call(&message)?.value.get();
    let object = json!({ "account": account, "cancelled": cancelled });
    let text = match cancelled {
        0 => format!("the limits of account {} are set", command.account),
        _ => format!(
            "the limits of account {} are set; {cancelled} orders that no longer fit were cancelled",
            command.account
        ),
    };
    Ok(out.say(&object, &text)?)
}

fn most(value: U64) -> Option<u64> {
    Some(value.get()).filter(|&most| most != UNLIMITED)
}

fn show(row: &AccountRow, limits: &AccountLimitsRow, out: &mut Output) -> Result<(), Trouble> {
    let ends_ns = limits.window_ends_ns.get();
    let set = ends_ns != 0;
    let mut list = out.list(&[left("WHAT"), right("NOW"), right("AT MOST")]);
    list.object(&json::account_limits(row, limits))?;
    let now = |value: U64| if set { value.to_string() } else { "-".to_owned() };
    let limit = |value: U64| most(value).map_or("none".to_owned(), |most| most.to_string());
    let worth = most(limits.order_max_micro).map_or("none".to_owned(), amount::funds);
    let yes = if row.opted_in == 1 { "yes" } else { "no" };
    for [what, now, most] in [
        ["group".to_owned(), row.group.to_string(), String::new()],
        ["swaps with others".to_owned(), yes.to_owned(), String::new()],
        ["sells to groups".to_owned(), groups(row.sells_to.get()), String::new()],
        ["buys from groups".to_owned(), groups(row.buys_from.get()), String::new()],
        ["sold".to_owned(), now(limits.sold_credits), limit(limits.sell_max_credits)],
        ["  and offered".to_owned(), now(limits.offered_credits), String::new()],
        ["bought".to_owned(), now(limits.bought_credits), limit(limits.buy_max_credits)],
        ["  and wanted".to_owned(), now(limits.wanted_credits), String::new()],
        ["worth of an order".to_owned(), "-".to_owned(), worth],
        ["position".to_owned(), "-".to_owned(), limit(limits.position_max_credits)],
        [
            "window ends".to_owned(),
            if set { rfc3339(ends_ns) } else { "-".to_owned() },
            String::new(),
        ],
    ] {
        list.cells(vec![what, now, most]);
    }
    Ok(list.show()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitsOf,
    }

    fn parse(line: &str) -> LimitsOf {
        Line::try_parse_from(["limits"].into_iter().chain(line.split(' '))).unwrap().limits
    }

    #[test]
    fn what_is_not_named_stays() {
        let row = AccountRow {
            account: 3.into(),
            group: 5,
            opted_in: 1,
            sells_to: 7.into(),
            ..AccountRow::zeroed()
        };
        let mut now = AccountLimitsRow::zeroed();
        now.sell_max_credits = 100.into();
        now.buy_max_credits = UNLIMITED.into();
        let message = parse("alice --sell-max none --order-max 1.5").message(&row, &now);
        assert_eq!((message.account.get(), message.group, message.opted_in), (3, 5, 1));
        assert_eq!((message.sells_to.get(), message.buys_from.get()), (7, 0));
        assert_eq!(message.sell_max_credits.get(), UNLIMITED);
        assert_eq!(message.buy_max_credits.get(), UNLIMITED);
        assert_eq!(message.order_max_micro.get(), 1_500_000);
        assert_eq!(parse("alice --opt-out").message(&row, &now).opted_in, 0);
        let out = AccountRow { opted_in: 0, ..row };
        assert_eq!(parse("alice --group 1").message(&out, &now).opted_in, 0);
        assert_eq!(parse("alice --opt-in").message(&out, &now).opted_in, 1);
        assert!(!parse("alice").changes_something());
    }
}
