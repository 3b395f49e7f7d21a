//! `hvctl migration`: proposals to serve a lease elsewhere, and instances that move to another host.

use super::door::{Door, Reach, Trouble, Who};
use super::names::{accounts, find_account, parse_new_name, resource};
use super::output::Output;
use super::table::{left, right};
use super::{migration_run, time::rfc3339};
use serde_json::json;
use vendue_wire::message::*;

/// Words for [`MigrationRow::state`].
const STATES: [&str; 8] =
    ["over", "proposed", "accepted", "declined", "expected", "arrived", "departing", "advice"];

/// What to do with migrations.
#[derive(Debug, clap::Subcommand)]
pub enum MigrationCommand {
    /// Show proposals, migrations under way, and advice
    #[command(after_help = "\
A lease of class sla that waits for a minute cannot be served here: it is proposed to move its instance. \
Accepting says where to; `migration run` does it. Advice names the smallest instance of a tier in which \
little is reserved: elsewhere, the tier would be empty. `hvctl status` says into how many pieces the \
processors that are left are cut.")]
    List,
    /// Accept a proposal
    Accept {
        /// Its number
        id: u64,
        /// What the other host is called
        #[arg(long, value_name = "HOST", value_parser = parse_new_name)]
        to: [u8; NAME_BYTES],
    },
    /// Decline a proposal for as long as its lease waits
    Decline {
        /// Its number
        id: u64,
    },
    /// Accept an account's proposals as they come, from now on; without --to not any more
    Stand {
        /// Account, by name or number
        account: String,
        /// What the other host is called
        #[arg(long, value_name = "HOST", value_parser = parse_new_name)]
        to: Option<[u8; NAME_BYTES]>,
    },
    /// Move an instance to another host, or go on with a move that was interrupted
    #[command(after_help = "\
Both daemons are asked how they stand, so the same command may be given again whatever happened before: \
the instance and its credits end up at one of the hosts, once. With --qmp its guest is sent to the \
QEMU at --to-qmp, which was started with `-incoming defer` in the cgroup that --place names. If that \
fails before the guest has left, everything stays here. Orders, loans and tasks end; leases are bid for \
anew, paid by the account of the same name there.")]
    Run(Box<migration_run::Run>),
}

/// Runs the command.
pub fn run(command: &MigrationCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        MigrationCommand::List => list(reach, out),
        MigrationCommand::Accept { id, to } => {
            let act = SettleMigration { act: MIGRATION_ACCEPT, to: *to, ..decision(*id) };
            decide(&act, &format!("accepted, to {}", text(to)), reach, out)
        }
        MigrationCommand::Decline { id } => {
            let act = SettleMigration { act: MIGRATION_DECLINE, ..decision(*id) };
            decide(&act, "declined", reach, out)
        }
        MigrationCommand::Stand { account, to } => {
            let mut door = reach.reader()?;
            let number = find_account(account, &accounts(&mut door)?)?;
            let to = to.unwrap_or_default();
            let act =
                SettleMigration { account: number.into(), act: MIGRATION_STAND, to, ..decision(0) };
            let says = if to[0] == 0 { "decided one by one" } else { "accepted as they come" };
            decide(&act, says, reach, out)
        }
        MigrationCommand::Run(run) => migration_run::run(run, reach, out),
    }
}

fn decision(id: u64) -> SettleMigration {
    SettleMigration { ticket: id.into(), ..SettleMigration::zeroed() }
}

fn decide(
    act: &SettleMigration,
    says: &str,
    reach: &Reach,
    out: &mut Output,
) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let client_id = door.next_client_id().into();
    let value = door.call(&SettleMigration { client_id, ..*act })?.value.get();
    let object = json!({ "act": act.act, "number": value.to_string(), "to": text(&act.to) });
    let what = if act.act == MIGRATION_STAND { "proposals of account" } else { "proposal" };
    Ok(out.say(&object, &format!("{what} {value} {says}"))?)
}

/// Migrations as a daemon knows them.
pub fn rows(door: &mut Door) -> Result<Vec<MigrationRow>, Trouble> {
    door.pages(|from| QueryMigrations { from: from.into() })
}

fn list(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let mut list = out.list(&[
        right("ID"),
        left("STATE"),
        left("INSTANCE"),
        left("TO"),
        left("WHY"),
        right("SHORT"),
        left("SINCE"),
    ]);
    for row in rows(&mut door)? {
        let state = STATES.get(usize::from(row.state)).copied().unwrap_or("unknown");
        let why = match row.reason {
            1 => format!("{} for sla", resource(row.resource)),
            2 => "tier nearly empty".to_owned(),
            _ => String::new(),
        };
        let since = row.since_ms.get();
        list.object(&json!({
            "id": row.ticket.get().to_string(),
            "house": row.house.get().to_string(),
            "state": state,
            "instance": row.instance.get(),
            "name": text(&row.name),
            "account": text(&row.account),
            "to": text(&row.to),
            "reason": why,
            "short_vru": row.short_vru.get(),
            "credit_millicredits": row.credit_millicredits.map(U64::get),
            "leases": row.leases,
            "since_ms": since,
        }))?;
        list.cells(vec![
            row.ticket.to_string(),
            state.to_owned(),
            text(&row.name).to_owned(),
            text(&row.to).to_owned(),
            why,
            row.short_vru.to_string(),
            if since == 0 { "-".to_owned() } else { rfc3339(since.saturating_mul(1_000_000)) },
        ]);
    }
    Ok(list.show()?)
}
