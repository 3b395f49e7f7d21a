//! `hvctl swarm`: groups of instances whose VRUs tasks win.

use super::amount::{funds, parse_funds};
use super::door::{Door, Reach, Trouble, Who};
use super::names::{
    Directory, accounts, find_account, find_group, find_instance, instances, parse_new_name,
    parse_resource, resource,
};
use super::output::Output;
use super::table::{left, right};
use hvctl::json::swarm as show;
use serde_json::json;
use vendue_wire::code::{RESOURCES, Resource};
use vendue_wire::message::*;

/// What to do with groups.
#[derive(Debug, clap::Subcommand)]
pub enum SwarmCommand {
    /// Show every group, a line for each resource that it offers
    List,
    /// Show the instances that are in groups, and what their next VRUs cost
    Members,
    /// Make a group of an account's instances, or change one
    Define(Define),
    /// Put an instance into a group of its account
    Join {
        /// Group, by name or number
        group: String,
        /// Instance, by name or number
        instance: String,
    },
    /// Take an instance without tasks out of its group; if that had frozen it, it goes on
    Leave {
        /// Instance, by name or number
        instance: String,
    },
}

/// What holds in a group.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The next VRU of an instance costs base x (1 + steep/100 x (granted/all)^2) a second. Tasks whose margin \
(bid - cost) / duration is greater win VRUs from others, which keep each for the hold. With --high of the \
VRUs granted, or a task waiting, for the cool-down, an instance that the group froze is thawed; with at \
most --low for so long, the one with the fewest is emptied into the others and frozen.")]
pub struct Define {
    /// Unique name; that of a group which exists changes it
    #[arg(value_parser = parse_new_name)]
    name: [u8; NAME_BYTES],
    /// Account whose instances it is made of, by name or number
    #[arg(long)]
    account: String,
    /// Price of a VRU-second of a resource while nothing is granted: cpu=0.001
    #[arg(long, required = true, value_name = "RESOURCE=FUNDS", value_parser = parse_base)]
    base: Vec<(Resource, u64)>,
    /// Percent of the base by which the last VRU is dearer than the first
    #[arg(long, default_value_t = 100)]
    steep: u32,
    /// Milliseconds that a task keeps each VRU
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    hold_ms: u32,
    /// Milliseconds that demand must stay high or low before each act
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    cool_ms: u32,
    /// Demand is high from so many percent of the VRUs on
    #[arg(long, default_value_t = 90, value_name = "PERCENT")]
    high: u16,
    /// Demand is low up to so many percent
    #[arg(long, default_value_t = 30, value_name = "PERCENT")]
    low: u16,
    /// Instances that stay active
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    active_min: u16,
}

fn parse_base(text: &str) -> Result<(Resource, u64), String> {
    let (name, price) = text.split_once('=').ok_or("give a resource's price: cpu=0.001")?;
    Ok((parse_resource(name)?, parse_funds(price)?))
}

/// Every group.
pub fn groups(door: &mut Door) -> Result<Vec<GroupRow>, Trouble> {
    door.pages(|from| QueryGroups { from: from.into() })
}

/// Runs the command.
pub fn run(command: &SwarmCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        SwarmCommand::List => list(&mut reach.reader()?, out),
        SwarmCommand::Members => members(&mut reach.reader()?, out),
        SwarmCommand::Define(command) => define(command, reach, out),
        SwarmCommand::Join { group, instance } => {
            let mut door = reach.acting(Who::OPERATOR)?;
            let number = find_group(group, &groups(&mut door)?)?;
            member(&mut door, instance, number)?;
            let object = json!({ "instance": instance, "group": number });
            Ok(out.say(&object, &format!("instance {instance} is in group {group}"))?)
        }
        SwarmCommand::Leave { instance } => {
            member(&mut reach.acting(Who::OPERATOR)?, instance, ANY_BOOK)?;
            let object = json!({ "instance": instance, "group": null });
            Ok(out.say(&object, &format!("instance {instance} is in no group"))?)
        }
    }
}

fn member(door: &mut Door, instance: &str, group: u16) -> Result<(), Trouble> {
    let instance = find_instance(instance, &instances(door)?)?.into();
    let client_id = door.next_client_id().into();
    let message = SetMember { client_id, instance, group: group.into(), reserved: 0.into() };
    door.call(&message).map(drop)
}

fn define(command: &Define, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let account = find_account(&command.account, &accounts(&mut door)?)?;
    let known = groups(&mut door)?;
    let same = known.iter().find(|row| row.name == command.name);
    let mut base_micro = [U64::ZERO; RESOURCES];
    for (resource, price) in &command.base {
        base_micro[*resource as usize] = (*price).into();
    }
    let message = SetGroup {
        client_id: door.next_client_id().into(),
        base_micro,
        account: account.into(),
        steep_percent: command.steep.into(),
        hold_ms: command.hold_ms.into(),
        cool_ms: command.cool_ms.into(),
        high_permille: command.high.saturating_mul(10).into(),
        low_permille: command.low.saturating_mul(10).into(),
        active_min: command.active_min.into(),
        group: same.map_or(ANY_BOOK.into(), |row| row.group),
        name: command.name,
    };
    let number = door.call(&message)?.value.get();
    let name = text(&command.name);
    let object = json!({ "group": number, "name": name });
    Ok(out.say(&object, &format!("group {name} has number {number}"))?)
}

fn list(door: &mut Door, out: &mut Output) -> Result<(), Trouble> {
    let names = Directory::read(door)?;
    let mut list = out.list(&[
        right("GROUP"),
        left("NAME"),
        left("ACCOUNT"),
        left("RESOURCE"),
        right("BASE"),
        right("VRUS GRANTED"),
        right("OF"),
        right("ACTIVE"),
        right("MEMBERS"),
        left("DEMAND"),
        right("RUNNING"),
        right("WAITING"),
        right("REVENUE"),
    ]);
    for row in groups(door)? {
        for at in (0..RESOURCES).filter(|&at| row.base_micro[at].get() > 0) {
            list.object(&show::group(&row, at))?;
            list.cells(vec![
                row.group.to_string(),
                text(&row.name).to_owned(),
                names.account(row.account.get()),
                resource(at as u8),
                funds(row.base_micro[at].get()),
                row.used_vru[at].to_string(),
                row.active_vru[at].to_string(),
                row.active.to_string(),
                row.members.to_string(),
                show::demand(row.demand).to_owned(),
                row.running.to_string(),
                row.waiting.to_string(),
                funds(row.revenue_micro.get()),
            ]);
        }
    }
    Ok(list.show()?)
}

fn members(door: &mut Door, out: &mut Output) -> Result<(), Trouble> {
    let names = Directory::read(door)?;
    let mut list = out.list(&[
        right("GROUP"),
        left("INSTANCE"),
        left("STATE"),
        left("RESOURCE"),
        right("VRUS GRANTED"),
        right("OF"),
        right("NEXT COSTS"),
    ]);
    for row in door.pages::<MemberRow, _>(|from| QueryMembers { from: from.into() })? {
        let state = show::member_state(row.state);
        for at in (0..RESOURCES).filter(|&at| row.price_micro[at].get() > 0) {
            list.object(&show::member(&row, at))?;
            list.cells(vec![
                row.group.to_string(),
                names.instance(row.instance.get()),
                state.to_owned(),
                resource(at as u8),
                row.used_vru[at].to_string(),
                row.capacity_vru[at].to_string(),
                funds(row.price_micro[at].get()),
            ]);
        }
    }
    Ok(list.show()?)
}
