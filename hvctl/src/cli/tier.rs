//! `hvctl tier`: classes of hardware and what is left of them.

use super::amount::natural;
use super::door::{Reach, Trouble};
use super::names::{resource, tiers};
use super::output::Output;
use super::table::{left, right};
use serde_json::json;
use vendue_wire::code::Resource;
use vendue_wire::message::text;

/// What to do with tiers.
#[derive(Debug, clap::Subcommand)]
pub enum TierCommand {
    /// Show every tier's resources
    List,
}

/// Runs the command.
pub fn run(command: &TierCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let TierCommand::List = command;
    let mut list = out.list(&[
        right("TIER"),
        left("NAME"),
        left("RESOURCE"),
        right("BOOK"),
        right("CAPACITY"),
        right("RESERVED"),
        right("VRUS"),
        right("VRUS RESERVED"),
        right("VRU SIZE"),
        right("BURST"),
    ]);
    for row in tiers(&mut reach.reader()?)? {
        let (capacity, reserved) = (row.capacity_vru.get(), row.reserved_vru.get());
        let size = row.vru_size.get();
        let kind = Resource::from_u8(row.resource);
        list.object(&json!({
            "tier": row.tier.get(),
            "name": text(&row.name),
            "resource": resource(row.resource),
            "book": row.book.get(),
            "vru_size": size,
            "capacity_vru": capacity,
            "reserved_vru": reserved,
            "burst_percent": row.burst_percent.get(),
        }))?;
        list.cells(vec![
            row.tier.to_string(),
            text(&row.name).to_owned(),
            resource(row.resource),
            row.book.to_string(),
            natural(kind, capacity, size),
            natural(kind, reserved, size),
            capacity.to_string(),
            reserved.to_string(),
            natural(kind, 1, size),
            format!("{}%", row.burst_percent),
        ]);
    }
    Ok(list.show()?)
}
