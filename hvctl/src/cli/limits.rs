//! `hvctl limits`: what the limits of each instance, of each capped account and of each tier should
//! be, were written as, and read back as.

use super::door::{Reach, Trouble};
use super::names::{Directory, find_instance, resource};
use super::output::Output;
use super::table::{left, right};
use super::time::rfc3339;
use serde_json::json;
use vendue_wire::message::*;

/// Which limits.
#[derive(Debug, clap::Args)]
pub struct LimitsCommand {
    /// Only this instance's, by name or number
    instance: Option<String>,
}

/// Runs the command.
pub fn run(command: &LimitsCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let only = match &command.instance {
        None => None,
        Some(wanted) => Some(find_instance(wanted, &names.instances)?),
    };
    let rows = door.pages::<LimitRow, _>(|from| QueryLimits { from: from.into() })?;
    let mut list = out.list(&[
        left("INSTANCE"),
        left("RESOURCE"),
        right("VRUS"),
        left("FILE"),
        left("WANTED"),
        left("WRITTEN"),
        left("READ BACK"),
        left("STATE"),
        right("WRITES"),
        left("LAST WRITE"),
    ]);
    let wanted =
        |row: &&LimitRow| only.is_none_or(|only| row.of_account == 0 && row.instance.get() == only);
    for row in rows.iter().filter(wanted) {
        let number = row.instance.get();
        // Which of the three it is about.
        let (instance, account, tier) = match number.checked_sub(TIER_BIT) {
            Some(tier) => (None, None, Some(tier as u16)),
            None if row.of_account == 1 => {
                (None, Some(number & 0xffff), Some((number >> 16) as u16))
            }
            None => (Some(number), None, None),
        };
        list.object(&json!({
            "instance": instance,
            "account": account,
            "tier": tier,
            "resource": resource(row.resource),
            "wanted_vru": row.wanted_vru.get(),
            "file": text(&row.file),
            "wanted": text(&row.wanted),
            "written": text(&row.written),
            "read_back": text(&row.read_back),
            "state": state(row.state),
            "writes": row.writes.get(),
            "written_at": rfc3339(row.written_at_ns.get()),
        }))?;
        let shown = |field: &[u8]| match text(field) {
            "" => "-".to_owned(),
            text => text.trim_end().to_owned(),
        };
        list.cells(vec![
            match (instance, account, tier) {
                (Some(instance), ..) => names.instance(instance),
                (_, Some(account), Some(tier)) => {
                    format!("account {}, tier {}", names.account(account), names.tier(tier))
                }
                (.., tier) => format!("tier {}", names.tier(tier.unwrap_or_default())),
            },
            resource(row.resource),
            row.wanted_vru.to_string(),
            shown(&row.file),
            shown(&row.wanted),
            shown(&row.written),
            shown(&row.read_back),
            state(row.state).to_owned(),
            row.writes.to_string(),
            rfc3339(row.written_at_ns.get()),
        ]);
    }
    Ok(list.show()?)
}

/// A limit's state as one word, or as two.
fn state(state: u8) -> &'static str {
    ["pending", "in force", "refused", "drifted", "gone", "dry run"]
        .get(usize::from(state))
        .copied()
        .unwrap_or("unknown")
}
