//! `hvctl account`: tenants and their funds.

use super::account_limits::{self, LimitsOf};
use super::amount;
use super::door::{Door, Reach, Trouble, Who};
use super::json;
use super::names::{accounts, find_account, groups, parse_groups, parse_new_name};
use super::output::Output;
use super::table::{left, right};
use serde_json::json;
use vendue_wire::message::*;

/// What to do with accounts.
#[derive(Debug, clap::Subcommand)]
pub enum AccountCommand {
    /// Show every account
    List,
    /// Create an account; it trades with other accounts only as far as both allow
    Create {
        /// Unique name, not a number
        #[arg(value_parser = parse_new_name)]
        name: [u8; NAME_BYTES],
        /// Group it belongs to
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=63))]
        group: u8,
        /// Groups it sells credits to: all, none, a mask (0x2f) or groups (0,3,5-7)
        #[arg(long, value_name = "MASK", default_value = "none", value_parser = parse_groups)]
        sells_to: u64,
        /// Groups it buys credits from: all, none, a mask (0x2f) or groups (0,3,5-7)
        #[arg(long, value_name = "MASK", default_value = "none", value_parser = parse_groups)]
        buys_from: u64,
    },
    /// Pay funds in
    Deposit(Payment),
    /// Pay free funds out
    Withdraw(Payment),
    /// Show or change whom an account may trade with, and how much
    Limits(LimitsOf),
    /// Cancel all open orders of an account
    Cancel {
        /// Account, by name or number
        account: String,
        /// Only orders in this book, by number
        #[arg(long)]
        book: Option<u16>,
    },
    /// Cap what its instances use of processors together, or lift the cap
    ///
    /// Binds the instances that are launched once it is capped, in a group of the account's own; the
    /// daemon says of which others it does not. See `hvctl limits` for what is in force.
    Cap {
        /// Account, by name or number
        account: String,
        /// Thousandths of a processor, or none
        #[arg(value_parser = parse_cap)]
        millicores: u32,
    },
}

fn parse_cap(text: &str) -> Result<u32, String> {
    match (text, text.parse()) {
        ("none", _) => Ok(0),
        (_, Ok(millicores @ 10..=65_536_000)) => Ok(millicores),
        _ => Err("write 10 to 65536000 thousandths of a processor, or none".to_owned()),
    }
}

/// Funds in or out.
#[derive(Debug, clap::Args)]
pub struct Payment {
    /// Account, by name or number
    account: String,
    /// Units of funds with at most six decimals, such as 12.5
    #[arg(value_parser = amount::parse_funds)]
    amount: u64,
}

/// Runs the command.
pub fn run(command: &AccountCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        AccountCommand::List => list(&mut reach.reader()?, out),
        AccountCommand::Create { name, group, sells_to, buys_from } => {
            let mut door = reach.acting(Who::OPERATOR)?;
            let message = CreateAccount {
                client_id: door.next_client_id().into(),
                sells_to: (*sells_to).into(),
                buys_from: (*buys_from).into(),
                name: *name,
                group: *group,
                reserved: [0; 7],
            };
            let number = door.call(&message)?.value.get();
            let name = text(name);
            if *sells_to == 0 || *buys_from == 0 {
                eprintln!(
                    "hvctl: note: account {name} sells to {} and buys from {} of the groups; \
                     other accounts are met only through --sells-to and --buys-from",
                    groups(*sells_to),
                    groups(*buys_from),
                );
            }
            let object = json!({ "account": number, "name": name });
            Ok(out.say(&object, &format!("account {name} has number {number}"))?)
        }
        AccountCommand::Deposit(payment) => pay(payment, true, reach, out),
        AccountCommand::Withdraw(payment) => pay(payment, false, reach, out),
        AccountCommand::Limits(command) => account_limits::run(command, reach, out),
        AccountCommand::Cancel { account, book } => cancel(account, *book, reach, out),
        AccountCommand::Cap { account, millicores } => {
            let mut door = reach.acting(Who::OPERATOR)?;
            let number = find_account(account, &accounts(&mut door)?)?;
            let (client_id, millicores) = (door.next_client_id().into(), (*millicores).into());
            door.call(&SetAccountCap { client_id, account: number.into(), millicores })?;
            let object = json!({ "account": number, "cap_millicores": millicores.get() });
            let shown = cap(millicores.get());
            Ok(out.say(&object, &format!("account {account} has the cap {shown}"))?)
        }
    }
}

fn cancel(
    account: &str,
    book: Option<u16>,
    reach: &Reach,
    out: &mut Output,
) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let message = CancelAccount {
        account: find_account(account, &accounts(&mut door)?)?.into(),
        client_id: door.next_client_id().into(),
        book: book.unwrap_or(ANY_BOOK).into(),
        side: 2,
        reserved: 0,
    };
    let count = door.call(&message)?.value.get();
    let text = format!("{count} orders of account {account} cancelled");
    Ok(out.say(&json!({ "cancelled": count }), &text)?)
}

/// A cap for people.
fn cap(millicores: u32) -> String {
    if millicores == 0 { "none".to_owned() } else { format!("{millicores}m") }
}

fn list(door: &mut Door, out: &mut Output) -> Result<(), Trouble> {
    let mut list = out.list(&[
        right("ACCOUNT"),
        left("NAME"),
        right("FREE"),
        right("HELD"),
        right("GROUP"),
        left("SELLS TO"),
        left("BUYS FROM"),
        left("OPTED IN"),
        right("INSTANCES"),
        right("CAP"),
    ]);
    for row in accounts(door)? {
        list.object(&json::account(&row))?;
        list.cells(vec![
            row.account.to_string(),
            text(&row.name).to_owned(),
            amount::funds(row.free_micro.get()),
            amount::funds(row.held_micro.get()),
            row.group.to_string(),
            groups(row.sells_to.get()),
            groups(row.buys_from.get()),
            if row.opted_in == 1 { "yes" } else { "no" }.to_owned(),
            row.instances.to_string(),
            cap(row.cap_millicores.get()),
        ]);
    }
    Ok(list.show()?)
}

fn pay(payment: &Payment, inwards: bool, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let account = find_account(&payment.account, &accounts(&mut door)?)?;
    let client_id = door.next_client_id().into();
    let (amount_micro, reserved) = (payment.amount.into(), 0.into());
    let account_number = account.into();
    let done = if inwards {
        door.call(&Deposit { client_id, amount_micro, account: account_number, reserved })?
    } else {
        door.call(&Withdraw { client_id, amount_micro, account: account_number, reserved })?
    };
    let free_micro = done.value.get();
    let object = json!({
        "account": account, "amount_micro": payment.amount, "free_micro": free_micro,
    });
    let text = format!("account {} has {} free", payment.account, amount::funds(free_micro));
    Ok(out.say(&object, &text)?)
}
