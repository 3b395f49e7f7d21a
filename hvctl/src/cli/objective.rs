//! `hvctl objective`: what instances are to reach, and the leases that the engine bids for meanwhile.

use super::amount::{funds, parse_credits, parse_funds};
use super::door::{Door, Reach, Trouble};
use super::json;
use super::names::{Directory, find_instance, instances, parse_resource, resource};
use super::order::Acting;
use super::output::Output;
use super::table::{left, right};
use serde_json::json;
use vendue_wire::code::{Kpi, LeaseClass, Resource};
use vendue_wire::message::*;

/// What to do with objectives.
#[derive(Debug, clap::Subcommand)]
pub enum ObjectiveCommand {
    /// Set an objective of an instance: while it is breached, the engine bids for a lease by itself
    #[command(after_help = "\
KPIs that the workload reports (`hvctl objective report`): latency (microseconds), throughput (a second). \
KPIs that the host measures every host.sense_ms: cpu-wait, throttled, memory-wait and io-wait \
(thousandths of time), refaults (pages a second), io-latency (microseconds).

In breach for --for it bids for --step VRUs, in breach for as long again for so many more, up to --most. \
Recovered for --calm its lease ends. What its leases cost in --window never passes --budget, whatever \
is reported. `hvctl objective list` shows how it stands, `hvctl audit` what it did and why.")]
    Set(Box<SetArgs>),
    /// Remove an objective; its lease ends
    Remove {
        /// Instance, by name or number
        instance: String,
        /// KPI
        #[arg(value_parser = parse_kpi)]
        kpi: Kpi,
        #[command(flatten)]
        acting: Acting,
    },
    /// Show objectives: their values, leases, and what these cost
    List,
    /// Tell the value of a KPI that workloads report, at most 8 times a second
    Report {
        /// Instance, by name or number
        instance: String,
        /// latency or throughput
        #[arg(value_parser = parse_kpi)]
        kpi: Kpi,
        /// Microseconds, or a second
        value: u32,
        #[command(flatten)]
        acting: Acting,
    },
}

/// An objective.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("threshold").required(true))]
pub struct SetArgs {
    /// Instance, by name or number
    instance: String,
    /// KPI
    #[arg(value_parser = parse_kpi)]
    kpi: Kpi,
    /// It is in breach at this value and above
    #[arg(long, group = "threshold", value_name = "VALUE")]
    above: Option<u32>,
    /// It is in breach at this value and below
    #[arg(long, group = "threshold", value_name = "VALUE")]
    below: Option<u32>,
    /// It has recovered from this value on
    #[arg(long, value_name = "VALUE")]
    recover: u32,
    /// Seconds such as 2.5 in breach before it bids, and before it bids for more, 1 to 3600
    #[arg(long = "for", value_name = "SECONDS", default_value = "2", value_parser = parse_ms)]
    breach_ms: u32,
    /// Seconds recovered before its lease ends, 1 to 3600
    #[arg(long = "calm", value_name = "SECONDS", default_value = "10", value_parser = parse_ms)]
    recover_ms: u32,
    /// Resource that it bids for
    #[arg(long, default_value = "cpu", value_parser = parse_resource)]
    resource: Resource,
    /// VRUs that it bids for at a time
    #[arg(long, value_name = "VRUS")]
    step: u32,
    /// VRUs that it bids for at most [default: those of one step]
    #[arg(long, value_name = "VRUS")]
    most: Option<u32>,
    /// The most that its lease pays, ticks a VRU-second
    #[arg(long)]
    rent: u32,
    /// sla (as far as the instance is entitled), bounded or speculative
    #[arg(long, default_value = "bounded", value_parser = super::lease::parse_class)]
    class: LeaseClass,
    /// What its leases may cost in a window, in units of funds
    #[arg(long, value_name = "FUNDS", value_parser = parse_funds)]
    budget: u64,
    /// Seconds of a window
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    window: u32,
    #[command(flatten)]
    acting: Acting,
}

/// A KPI by its name.
///
/// # Errors
/// Says which there are.
pub fn parse_kpi(name: &str) -> Result<Kpi, String> {
    let found = Kpi::ALL.iter().find(|kpi| kpi.text() == name).copied();
    found.ok_or_else(|| {
        let all: Vec<_> = Kpi::ALL.iter().map(|kpi| kpi.text()).collect();
        format!("one of {}", all.join(", "))
    })
}

fn parse_ms(text: &str) -> Result<u32, String> {
    u32::try_from(parse_credits(text)?).map_err(|_| "more than an hour".to_owned())
}

/// Runs the command.
pub fn run(command: &ObjectiveCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        ObjectiveCommand::Set(args) => set(args, reach, out),
        ObjectiveCommand::Remove { instance, kpi, acting } => {
            let (mut door, number) = door(acting, reach, instance)?;
            let message = SetObjective {
                client_id: door.next_client_id().into(),
                instance: number.into(),
                kpi: *kpi as u8,
                remove: 1,
                ..SetObjective::zeroed()
            };
            let paid = door.call(&message)?.value.get();
            let object = json!({ "instance": number, "kpi": kpi.text(), "paid_micro": paid });
            let text = format!(
                "instance {instance} has no objective of {kpi} any more; its leases cost {} in all",
                funds(paid)
            );
            Ok(out.say(&object, &text)?)
        }
        ObjectiveCommand::List => list(reach, out),
        ObjectiveCommand::Report { instance, kpi, value, acting } => {
            let (mut door, number) = door(acting, reach, instance)?;
            let message = ReportKpi {
                instance: number.into(),
                value: (*value).into(),
                kpi: *kpi as u8,
                reserved: [0; 7],
            };
            door.call(&message)?;
            let object = json!({ "instance": number, "kpi": kpi.text(), "value": value });
            Ok(out.say(&object, &format!("{kpi} of instance {instance} is {value}"))?)
        }
    }
}

/// The session that acts for an instance, and its number.
fn door(acting: &Acting, reach: &Reach, instance: &str) -> Result<(Door, u32), Trouble> {
    let mut reader = reach.reader()?;
    let number = find_instance(instance, &instances(&mut reader)?)?;
    Ok((acting.door(reach, &mut reader, number)?, number))
}

fn set(args: &SetArgs, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let (mut door, number) = door(&args.acting, reach, &args.instance)?;
    let message = SetObjective {
        client_id: door.next_client_id().into(),
        budget_micro: args.budget.into(),
        instance: number.into(),
        window_s: args.window.into(),
        breach_at: args.above.or(args.below).unwrap_or(0).into(),
        recover_at: args.recover.into(),
        breach_ms: args.breach_ms.into(),
        recover_ms: args.recover_ms.into(),
        step_vru: args.step.into(),
        most_vru: args.most.unwrap_or(args.step).into(),
        rent_ticks: args.rent.into(),
        kpi: args.kpi as u8,
        below: args.below.is_some().into(),
        resource: args.resource as u8,
        class: args.class as u8,
        remove: 0,
        reserved: [0; 3],
    };
    let spent = door.call(&message)?.value.get();
    let object = json!({ "instance": number, "kpi": args.kpi.text(), "spent_micro": spent });
    let text = format!(
        "instance {} has an objective of {}; {} of {} spent in this window",
        args.instance,
        args.kpi,
        funds(spent),
        funds(args.budget)
    );
    Ok(out.say(&object, &text)?)
}

fn list(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let mut list = out.list(&[
        left("INSTANCE"),
        left("KPI"),
        right("VALUE"),
        right("BREACH"),
        right("RECOVERY"),
        left("STANDING"),
        left("RESOURCE"),
        left("CLASS"),
        right("WANTS"),
        right("HAS"),
        right("MOST"),
        right("SPENT"),
        right("BUDGET"),
    ]);
    for row in door.pages::<ObjectiveRow, _>(|from| QueryObjectives { from: from.into() })? {
        let kpi = Kpi::text_of(row.kpi);
        let class = LeaseClass::text_of(row.class);
        let told = row.told_at_ms.get() > 0;
        list.object(&json::objective(&row))?;
        let sign = if row.below == 1 { "<=" } else { ">=" };
        let back = if row.below == 1 { ">=" } else { "<=" };
        list.cells(vec![
            names.instance(row.instance.get()),
            kpi.to_owned(),
            if told { row.value.to_string() } else { "-".to_owned() },
            format!("{sign} {}", row.breach_at),
            format!("{back} {}", row.recover_at),
            json::standing(&row).to_owned(),
            resource(row.resource),
            class.to_owned(),
            row.wanted_vru.to_string(),
            row.granted_vru.to_string(),
            row.most_vru.to_string(),
            funds(row.spent_micro.get()),
            funds(row.budget_micro.get()),
        ]);
    }
    Ok(list.show()?)
}
