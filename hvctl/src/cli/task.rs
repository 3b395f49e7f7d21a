//! `hvctl task`: work that bids for the VRUs of a group of instances.

use super::amount::{credits, decimal, funds, parse_credits, parse_funds};
use super::door::{Door, Reach, Trouble};
use super::names::{
    Directory, accounts, find_account, find_group, find_instance, instances, parse_resource,
    resource,
};
use super::order::Acting;
use super::output::Output;
use super::swarm::groups;
use super::table::{left, right};
use super::{task_run, task_run::TaskRun};
use hvctl::json::swarm as show;
use serde_json::json;
use std::time::Duration;
use vendue_wire::code::Resource;
use vendue_wire::message::*;

/// What to do with tasks.
#[derive(Debug, clap::Subcommand)]
pub enum TaskCommand {
    /// Bid for VRUs; prints the handle that cancels the task and says how far it is
    Submit(Terms),
    /// Bid for VRUs and run a command in a cgroup of its own that is limited to them
    Run(TaskRun),
    /// Show tasks: VRUs, margin, cost, and which use far less than they were granted
    List,
    /// End a task; what it did not cost is given back
    Cancel {
        /// From `task submit` or `task list`
        handle: u64,
        #[command(flatten)]
        acting: Acting,
    },
    /// Say how far a task is, and what it used
    Progress {
        /// From `task submit` or `task list`
        handle: u64,
        /// Percent of its work that are done, with one decimal at most; 100 ends it
        #[arg(value_parser = parse_permille)]
        done: u16,
        /// VRUs that it used on average
        #[arg(long, value_name = "VRUS", value_parser = parse_credits)]
        used: Option<u64>,
        #[command(flatten)]
        acting: Acting,
    },
}

/// What a task bids, and for what.
#[derive(Debug, clap::Args)]
pub struct Terms {
    /// Group, by name or number
    group: String,
    /// What it may cost at most, in units of funds; held while it lives
    #[arg(long, value_name = "FUNDS", value_parser = parse_funds)]
    bid: u64,
    /// How long it is expected to take, in seconds such as 1.5
    #[arg(long, value_name = "SECONDS", value_parser = parse_ms)]
    duration: u32,
    /// VRUs that it can use at most
    #[arg(long)]
    vru: u32,
    /// Resource
    #[arg(long, default_value = "cpu", value_parser = parse_resource)]
    pub resource: Resource,
    /// Least margin a second at which another VRU is taken, in units of funds
    #[arg(long, value_name = "FUNDS", default_value = "0", value_parser = parse_funds)]
    margin: u64,
    /// Wait for VRUs rather than be refused, or end
    #[arg(long)]
    queue: bool,
    /// Only this instance of the group, by name or number
    #[arg(long)]
    instance: Option<String>,
    /// Account that pays, by name or number [default: the session's; an operator's: the group's]
    #[arg(long)]
    payer: Option<String>,
    /// What it is called
    #[arg(long, default_value = "", value_parser = parse_name)]
    name: [u8; NAME_BYTES],
    #[command(flatten)]
    acting: Acting,
}

fn parse_name(name: &str) -> Result<[u8; NAME_BYTES], String> {
    field(name).ok_or_else(|| format!("a name has at most {NAME_BYTES} bytes"))
}

fn parse_ms(text: &str) -> Result<u32, String> {
    u32::try_from(parse_credits(text)?).map_err(|_| "more than 49 days".to_owned())
}

fn parse_permille(text: &str) -> Result<u16, String> {
    match parse_credits(text) {
        Ok(milli @ 0..=100_000) if milli % 100 == 0 => Ok((milli / 100) as u16),
        _ => Err("give 0 to 100, with one decimal at most".to_owned()),
    }
}

impl Terms {
    /// How long it is expected to take.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.duration.into())
    }

    /// Submits it: the session that it belongs to, and what was granted.
    pub fn submit(&self, reach: &Reach) -> Result<(Door, TaskAdmitted), Trouble> {
        let mut reader = reach.reader()?;
        let group = find_group(&self.group, &groups(&mut reader)?)?;
        let instance = match &self.instance {
            Some(wanted) => find_instance(wanted, &instances(&mut reader)?)?,
            None => ANY,
        };
        let account = match &self.payer {
            Some(wanted) => find_account(wanted, &accounts(&mut reader)?)?,
            None => ANY,
        };
        let mut door = self.acting.door(reach, &mut reader, instance)?;
        let message = SubmitTask {
            client_id: door.next_client_id().into(),
            bid_micro: self.bid.into(),
            margin_min_micro: self.margin.into(),
            duration_ms: self.duration.into(),
            vru_max: self.vru.into(),
            instance: instance.into(),
            account: account.into(),
            group: group.into(),
            resource: self.resource as u8,
            queue: self.queue.into(),
            reserved: [0; 4],
            name: self.name,
        };
        let admitted = door.client.call_for(&message)?;
        Ok((door, admitted))
    }
}

/// Runs the command.
pub fn run(command: &TaskCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        TaskCommand::Submit(terms) => {
            let (_, admitted) = terms.submit(reach)?;
            say(&admitted, out)
        }
        TaskCommand::Run(command) => task_run::run(command, reach, out),
        TaskCommand::List => list(&mut reach.reader()?, out),
        TaskCommand::Cancel { handle, acting } => {
            let mut door = acting.door(reach, &mut reach.reader()?, ANY)?;
            let paid = door.call(&CancelTask { handle: (*handle).into() })?.value.get();
            let object = json!({ "handle": handle.to_string(), "paid_micro": paid });
            Ok(out.say(&object, &format!("task {handle} is over; it cost {}", funds(paid)))?)
        }
        TaskCommand::Progress { handle, done, used, acting } => {
            let mut door = acting.door(reach, &mut reach.reader()?, ANY)?;
            let used = used.map_or(u32::MAX, |used| u32::try_from(used).unwrap_or(u32::MAX));
            let message = ReportTask {
                handle: (*handle).into(),
                used_millivru: used.into(),
                progress_permille: (*done).into(),
                reserved: 0.into(),
            };
            door.call(&message)?;
            let object = json!({ "handle": handle.to_string(), "progress_permille": done });
            let shown = decimal((*done).into(), 1);
            Ok(out.say(&object, &format!("task {handle} is done to {shown}%"))?)
        }
    }
}

/// Says what a task was granted.
pub fn say(admitted: &TaskAdmitted, out: &mut Output) -> Result<(), Trouble> {
    let (handle, vru) = (admitted.handle.get(), admitted.vru.get());
    let instance = Some(admitted.instance.get()).filter(|&instance| instance != ANY);
    let object = json!({
        "handle": handle.to_string(),
        "instance": instance,
        "vru": vru,
        "held_micro": admitted.held_micro.get(),
        "rate_micro": admitted.rate_micro.get(),
        "margin_micro": admitted.margin_micro.get() as i64,
    });
    let what = match instance {
        Some(instance) => format!(
            "has {vru} VRUs of instance {instance} for {} a second, margin {}",
            funds(admitted.rate_micro.get()),
            decimal((admitted.margin_micro.get() as i64).into(), 6),
        ),
        None => "waits for VRUs".to_owned(),
    };
    Ok(out.say(&object, &format!("task {handle} {what}"))?)
}

fn list(door: &mut Door, out: &mut Output) -> Result<(), Trouble> {
    let names = Directory::read(door)?;
    let groups = groups(door)?;
    let mut list = out.list(&[
        right("HANDLE"),
        left("NAME"),
        left("ACCOUNT"),
        left("GROUP"),
        left("INSTANCE"),
        left("RESOURCE"),
        right("VRUS"),
        right("OF"),
        right("USED"),
        right("DONE"),
        right("BID"),
        right("COST"),
        right("A SECOND"),
        right("MARGIN"),
        left("NOTE"),
    ]);
    for row in door.pages::<TaskRow, _>(|from| QueryTasks { from: from.into() })? {
        let used = Some(row.used_millivru.get()).filter(|&used| used != u32::MAX);
        let margin = row.margin_micro.get() as i64;
        list.object(&show::task(&row))?;
        let group = groups.iter().find(|group| group.group == row.group);
        let note = match (row.waits, row.inefficient) {
            (1, _) => "waits",
            (_, 1) => "inefficient",
            _ => "",
        };
        list.cells(vec![
            row.handle.to_string(),
            text(&row.name).to_owned(),
            names.account(row.account.get()),
            group.map_or_else(|| row.group.to_string(), |group| text(&group.name).to_owned()),
            names.instance(row.instance.get()),
            resource(row.resource),
            row.vru.to_string(),
            row.vru_max.to_string(),
            used.map_or_else(|| "-".to_owned(), |used| credits(used.into())),
            format!("{}%", decimal(row.progress_permille.get().into(), 1)),
            funds(row.bid_micro.get()),
            funds(row.paid_micro.get()),
            funds(row.rate_micro.get()),
            decimal(margin.into(), 6),
            note.to_owned(),
        ]);
    }
    Ok(list.show()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_percent_with_one_decimal() {
        assert_eq!(parse_permille("12.5"), Ok(125));
        assert_eq!((parse_permille("0"), parse_permille("100")), (Ok(0), Ok(1000)));
        for wrong in ["", "-1", "100.1", "12.55", "x"] {
            assert!(parse_permille(wrong).is_err(), "{wrong}");
        }
        assert_eq!((parse_ms("1.5"), parse_ms("4294968").is_err()), (Ok(1500), true));
    }
}
