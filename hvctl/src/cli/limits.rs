//! `hvctl limits`: what the limits of each instance, of each capped account and of each tier should
//! be, were written as, and read back as.

use super::door::{Reach, Trouble};
use super::json;
use super::names::{Directory, find_instance, resource};
use super::output::Output;
use super::table::{Column, left, right};
use super::time::rfc3339;
use hvctl::host::ALL_TIERS;
use vendue_wire::code::Lag;
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
    let wanted = command.instance.as_ref();
    let only = wanted.map(|name| find_instance(name, &names.instances)).transpose()?;
    let rows = door.pages::<LimitRow, _>(|from| QueryLimits { from: from.into() })?;
    let whose_columns = [left("INSTANCE"), left("RESOURCE"), right("VRUS")];
    let all = whose_columns.into_iter().chain(columns()).chain([left("LAST WRITE")]);
    let mut list = out.list(&all.collect::<Vec<_>>());
    let wanted =
        |row: &&LimitRow| only.is_none_or(|only| row.of_account == 0 && row.instance.get() == only);
    for row in rows.iter().filter(wanted) {
        let number = row.instance.get();
        let (instance, account, tier) = json::limited(row);
        list.object(&json::limit(row))?;
        let mut line = vec![
            match (instance, account, tier) {
                (Some(instance), ..) => names.instance(instance),
                (_, Some(account), Some(tier)) => {
                    format!("account {}, tier {}", names.account(account), names.tier(tier))
                }
                (.., Some(tier)) => format!("tier {}", names.tier(tier)),
                _ if number == ALL_TIERS => "all tiers".to_owned(),
                _ => "the host".to_owned(),
            },
            resource(row.resource),
            row.wanted_vru.to_string(),
        ];
        line.extend(cells(row));
        line.push(rfc3339(row.written_at_ns.get()));
        list.cells(line);
    }
    Ok(list.show()?)
}

/// Columns of a limit itself, whoever's it is: what [`cells`] says.
pub fn columns() -> [Column; 7] {
    [
        left("FILE"),
        left("WANTED"),
        left("WRITTEN"),
        left("READ BACK"),
        left("STATE"),
        left("WHY"),
        right("WRITES"),
    ]
}

/// How a limit stands.
pub fn cells(row: &LimitRow) -> [String; 7] {
    let shown = |field: &[u8]| match text(field) {
        "" => "-".to_owned(),
        text => text.trim_end().to_owned(),
    };
    [
        shown(&row.file),
        shown(&row.wanted),
        shown(&row.written),
        shown(&row.read_back),
        json::limit_state(row.state).to_owned(),
        Lag::from_u8(row.reason).map_or("-", Lag::text).to_owned(),
        row.writes.to_string(),
    ]
}
