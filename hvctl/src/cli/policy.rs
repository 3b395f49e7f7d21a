//! `hvctl policy`: what the engine does for instances by itself.

use super::amount::{funds, parse_funds};
use super::door::{Reach, Trouble};
use super::json;
use super::lease::{Acting, parse_class};
use super::names::{Directory, find_instance, instances, parse_resource};
use super::output::Output;
use super::table::{left, right};
use serde_json::json;
use vendue_wire::code::{Cover, LeaseClass, PolicyAct, PolicyReason, Reject, Resource};
use vendue_wire::message::*;

/// What to do with standing policies.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Have the engine bid for an instance, ahead of what it will need and within an hourly budget
    #[command(after_help = "\
Every second the policy compares what the instance will need within its lead (`hvctl forecast list`; what is \
measured, where nothing is forecast) with what it has, and leases or buys credits, whichever is cheaper a \
VRU-second. The budget flows evenly; what is not spent is saved up to the burst. In an hour of the clock no \
more is spent than the budget. `hvctl audit` tells each act and why.")]
    Set(Box<SetArgs>),
    /// End a policy, and its lease
    Remove {
        /// Instance, by name or number
        instance: String,
        /// Resource
        #[arg(value_parser = parse_resource)]
        resource: Resource,
        #[command(flatten)]
        acting: Acting,
    },
    /// Show policies: what they spent, what is left, what they did last and why
    List,
}

/// A policy.
#[derive(Debug, clap::Args)]
pub struct SetArgs {
    /// Instance, by name or number
    instance: String,
    /// Resource
    #[arg(value_parser = parse_resource)]
    resource: Resource,
    /// Funds that it may spend an hour
    #[arg(long, value_parser = parse_funds)]
    budget: u64,
    /// Funds that it may save up to spend at once [default: a tenth of the budget]
    #[arg(long, value_parser = parse_funds)]
    burst: Option<u64>,
    /// The most that it pays to lease, ticks a VRU-second; 0: it does not lease
    #[arg(long, default_value_t = 0)]
    rent: u32,
    /// The most that it pays for a credit, ticks; 0: it buys none
    #[arg(long, default_value_t = 0)]
    price: u32,
    /// Of forecasts, what it covers: p50, p90, p97.5; or measured
    #[arg(long, default_value = "p90", value_parser = parse_cover)]
    cover: Cover,
    /// Class of its lease: sla, bounded or speculative
    #[arg(long, default_value = "bounded", value_parser = parse_class)]
    class: LeaseClass,
    /// It looks ahead so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    lead: u32,
    /// It gives nothing back within so many seconds of a change
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    hold: u32,
    /// It changes its lease by so many VRUs at least
    #[arg(long, value_name = "VRUS", default_value_t = 1)]
    step: u32,
    #[command(flatten)]
    acting: Acting,
}

/// What of a forecast a policy covers.
pub fn parse_cover(text: &str) -> Result<Cover, String> {
    let found = Cover::ALL.iter().find(|cover| cover.text() == text);
    found.copied().ok_or_else(|| "give p50, p90, p97.5 or measured".to_owned())
}

/// Runs the command.
pub fn run(command: &PolicyCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        PolicyCommand::Set(args) => set(args, reach, out),
        PolicyCommand::Remove { instance, resource, acting } => {
            let mut door = acting.door(reach)?;
            let number = find_instance(instance, &instances(&mut door)?)?;
            let message = SetPolicy {
                client_id: door.next_client_id().into(),
                instance: number.into(),
                resource: *resource as u8,
                ..SetPolicy::zeroed()
            };
            let was = door.call(&message)?.value.get() == 1;
            let object = json!({ "instance": number, "removed": was });
            let text = if was { "has no policy any more" } else { "had no policy" };
            Ok(out.say(&object, &format!("instance {instance}'s {resource} {text}"))?)
        }
        PolicyCommand::List => list(reach, out),
    }
}

fn set(args: &SetArgs, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = args.acting.door(reach)?;
    let number = find_instance(&args.instance, &instances(&mut door)?)?;
    let burst = args.burst.unwrap_or(args.budget / 10);
    let message = SetPolicy {
        client_id: door.next_client_id().into(),
        budget_micro: args.budget.into(),
        burst_micro: burst.into(),
        instance: number.into(),
        rent_ticks: args.rent.into(),
        price_ticks: args.price.into(),
        lead_ms: args.lead.saturating_mul(1000).into(),
        hold_ms: args.hold.saturating_mul(1000).into(),
        step_vru: args.step.into(),
        resource: args.resource as u8,
        class: args.class as u8,
        cover: args.cover as u8,
        reserved: [0; 5],
    };
    door.call(&message)?;
    let object = json!({
        "instance": number, "budget_micro": args.budget, "burst_micro": burst,
    });
    let (instance, resource) = (&args.instance, args.resource);
    let text = format!(
        "instance {instance}'s {resource} has a policy that spends {} an hour at most",
        funds(args.budget)
    );
    Ok(out.say(&object, &text)?)
}

fn list(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let mut list = out.list(&[
        left("INSTANCE"),
        left("RESOURCE"),
        left("COVERS"),
        right("NEEDS"),
        right("LEASES"),
        right("HAS"),
        right("BOUGHT"),
        right("BUDGET"),
        right("THIS HOUR"),
        right("LEFT"),
        right("SPENT"),
        left("LAST"),
        left("WHY"),
    ]);
    for row in door.pages::<PolicyRow, _>(|from| QueryPolicies { from: from.into() })? {
        let resource = Resource::text_of(row.resource);
        let cover = Cover::text_of(row.cover);
        let act = PolicyAct::text_of(row.act);
        let reason = PolicyReason::text_of(row.reason);
        let refused = Reject::from_u8(row.code).map(Reject::text);
        list.object(&json::policy(&row))?;
        list.cells(vec![
            names.instance(row.instance.get()),
            resource.to_owned(),
            cover.to_owned(),
            row.need_vru.to_string(),
            row.wanted_vru.to_string(),
            row.granted_vru.to_string(),
            row.bought_credits.to_string(),
            funds(row.budget_micro.get()),
            funds(row.hour_micro.get()),
            funds(row.left_micro.get()),
            funds(row.spent_micro.get()),
            act.to_owned(),
            refused.map_or_else(|| reason.to_owned(), |why| format!("{reason}, {why}")),
        ]);
    }
    Ok(list.show()?)
}
