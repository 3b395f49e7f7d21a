//! `hvctl instance`: the VMs and containers under Vendue's care.

use super::amount::{credits, natural, parse_credits};
use super::door::{Door, Reach, Trouble, Who};
use super::json;
use super::launch::{self, Launch};
use super::names::{
    Directory, accounts, find_account, find_instance, find_tier, instances, parse_new_name,
    parse_resource, resource, tiers,
};
use super::output::Output;
use super::sensors;
use super::table::{left, right};
use hvctl::kvm::keeper::join_place;
use serde_json::json;
use std::time::Duration;
use vendue_wire::code::Resource;
use vendue_wire::message::*;

/// The file that says whether an instance is frozen, as [`LimitRow`] names it.
const FREEZE_FILE: &str = "cgroup.freeze";
/// States of a [`LimitRow`].
const IN_FORCE: u8 = 1;
const DRY_RUN: u8 = 5;
/// How often and how long apart the host is asked whether it has frozen an instance.
const CONFIRM_LOOKS: u32 = 50;
const CONFIRM_PAUSE: Duration = Duration::from_millis(100);

/// What to do with instances.
#[derive(Debug, clap::Subcommand)]
pub enum InstanceCommand {
    /// Show every instance, a line for each resource it has
    List,
    /// Put an existing cgroup under Vendue's care
    Adopt {
        #[command(flatten)]
        reservation: Reservation,
        /// Its cgroup v2 directory as an absolute path; on a dry-run host also pid:N
        #[arg(long, value_name = "PATH", value_parser = parse_place)]
        cgroup: [u8; PLACE_BYTES],
        /// Socket of its VMM's port (see `hvctl cell`), through which its memory follows
        #[arg(long, value_name = "SOCKET", value_parser = parse_port)]
        port: Option<String>,
    },
    /// Start a command in a cgroup of its own and put that under Vendue's care
    Launch(Launch),
    /// Release an instance: its orders are cancelled, its credits burned, its limits lifted
    Remove {
        /// Instance, by name or number
        instance: String,
    },
    /// Show how instances fare: what they use, and what they wait for
    Sensors {
        /// Only this instance, by name or number
        instance: Option<String>,
    },
    /// Let nothing in an instance run; it keeps its reservation, credits and orders, which trade on
    Freeze {
        /// Instance, by name or number
        instance: String,
    },
    /// Let a frozen instance go on
    Thaw {
        /// Instance, by name or number
        instance: String,
    },
    /// Issue credits to an instance beyond what it earns
    Grant {
        /// Instance, by name or number
        instance: String,
        /// Resource: cpu, memory, block-io, network or accelerator
        #[arg(value_parser = parse_resource)]
        resource: Resource,
        /// Credits (VRU-seconds) with at most three decimals
        #[arg(value_parser = parse_credits)]
        credits: u64,
    },
    /// Bid for what is contended: an instance weighs in proportion, and pays no more than it bids
    Bid {
        /// Instance, by name or number
        instance: String,
        /// Resource: cpu, memory, block-io, network or accelerator
        #[arg(value_parser = parse_resource)]
        resource: Resource,
        /// Credits for each VRU and second above the baseline, 0.1 to 100; 1 until set
        #[arg(value_parser = parse_credits)]
        bid: u64,
    },
}

/// What an instance is called and what is reserved for it.
#[derive(Debug, clap::Args)]
pub struct Reservation {
    /// Unique name, not a number
    #[arg(value_parser = parse_new_name)]
    pub name: [u8; NAME_BYTES],
    /// Owning account, by name or number
    #[arg(long)]
    account: String,
    /// Home tier, by name or number
    #[arg(long)]
    tier: String,
    /// VRUs of CPU reserved; see `hvctl tier list` for their size
    #[arg(long, value_name = "VRUS", default_value_t = 0)]
    cpu: u32,
    /// VRUs of memory reserved
    #[arg(long, value_name = "VRUS", default_value_t = 0)]
    memory: u32,
    /// VRUs of block device bandwidth reserved
    #[arg(long, value_name = "VRUS", default_value_t = 0)]
    block_io: u32,
    /// VRUs of network bandwidth reserved
    #[arg(long, value_name = "VRUS", default_value_t = 0)]
    network: u32,
    /// Accelerator slots reserved
    #[arg(long, value_name = "SLOTS", default_value_t = 0)]
    accelerator: u32,
}

impl Reservation {
    /// The request, but for its id and place.
    pub fn message(&self, door: &mut Door) -> Result<CreateInstance, Trouble> {
        let account = find_account(&self.account, &accounts(door)?)?;
        let tier = find_tier(&self.tier, &tiers(door)?)?;
        let baseline = [self.cpu, self.memory, self.block_io, self.network, self.accelerator];
        Ok(CreateInstance {
            account: account.into(),
            tier: tier.into(),
            baseline_vru: baseline.map(U32::new),
            name: self.name,
            ..CreateInstance::zeroed()
        })
    }
}

fn parse_place(text: &str) -> Result<[u8; PLACE_BYTES], String> {
    let pid = text.strip_prefix("pid:");
    let is_pid = pid.is_some_and(|pid| pid.parse::<u32>().is_ok_and(|pid| pid > 0));
    if !is_pid && !text.starts_with('/') {
        return Err("give an absolute path, such as /sys/fs/cgroup/web".to_owned());
    }
    field(text).ok_or_else(|| format!("a place has at most {PLACE_BYTES} bytes"))
}

/// Reads the path of a port's socket, and makes it absolute.
pub fn parse_port(path: &str) -> Result<String, String> {
    let absolute = std::path::absolute(path).map_err(|error| error.to_string())?;
    absolute.into_os_string().into_string().map_err(|_| "not UTF-8".to_owned())
}

/// An instance's place: where it runs, and its VMM's port if it has one.
pub fn place(path: &str, port: Option<&str>) -> Result<[u8; PLACE_BYTES], Trouble> {
    let place = port.map_or_else(|| path.to_owned(), |port| join_place(path, port));
    let too_long = || Trouble::Usage(format!("{place} is longer than {PLACE_BYTES} bytes"));
    field(&place).ok_or_else(too_long)
}

/// Runs the command.
pub fn run(command: &InstanceCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        InstanceCommand::List => list(&mut reach.reader()?, out),
        InstanceCommand::Adopt { reservation, cgroup, port } => {
            let place = place(text(cgroup), port.as_deref())?;
            let mut door = reach.acting(Who::OPERATOR)?;
            let message = CreateInstance { place, ..reservation.message(&mut door)? };
            let number = create(&mut door, message)?;
            let (name, place) = (text(&message.name), text(&place));
            let object = json!({ "instance": number, "name": name, "place": place });
            Ok(out.say(&object, &format!("instance {name} has number {number}, at {place}"))?)
        }
        InstanceCommand::Launch(command) => launch::run(command, reach, out),
        InstanceCommand::Remove { instance } => {
            let mut door = reach.acting(Who::OPERATOR)?;
            let number = find_instance(instance, &instances(&mut door)?)?;
            remove(&mut door, number)?;
            let object = json!({ "instance": number, "removed": true });
            Ok(out.say(&object, &format!("instance {instance} is removed"))?)
        }
        InstanceCommand::Sensors { instance } => {
            sensors::show(instance.as_deref(), &mut reach.reader()?, out)
        }
        InstanceCommand::Freeze { instance } => {
            freeze(instance, true, &mut reach.acting(Who::OPERATOR)?, out)
        }
        InstanceCommand::Thaw { instance } => {
            freeze(instance, false, &mut reach.acting(Who::OPERATOR)?, out)
        }
        InstanceCommand::Grant { instance, resource, credits } => {
            grant(instance, *resource, *credits, &mut reach.acting(Who::OPERATOR)?, out)
        }
        InstanceCommand::Bid { instance, resource, bid: amount } => {
            bid(instance, *resource, *amount, &mut reach.acting(Who::OPERATOR)?, out)
        }
    }
}

/// Creates an instance; returns its number.
pub fn create(door: &mut Door, message: CreateInstance) -> Result<u32, Trouble> {
    let client_id = door.next_client_id().into();
    let done = door.call(&CreateInstance { client_id, ..message })?;
    Ok(done.value.get() as u32)
}

/// Removes an instance.
pub fn remove(door: &mut Door, instance: u32) -> Result<(), Trouble> {
    let client_id = door.next_client_id().into();
    let message = RemoveInstance { client_id, instance: instance.into(), reserved: 0.into() };
    door.call(&message).map(drop)
}

/// Freezes or thaws an instance, and waits until the host's kernel has confirmed it.
fn freeze(instance: &str, frozen: bool, door: &mut Door, out: &mut Output) -> Result<(), Trouble> {
    let number = find_instance(instance, &instances(door)?)?;
    let message = FreezeInstance {
        client_id: door.next_client_id().into(),
        instance: number.into(),
        frozen: frozen.into(),
        reserved: [0; 3],
    };
    door.call(&message)?;
    let says = if frozen { "frozen" } else { "going on" };
    for _ in 0..CONFIRM_LOOKS {
        let rows = door.pages::<LimitRow, _>(|from| QueryLimits { from: from.into() })?;
        let of_it = |row: &&LimitRow| {
            row.instance.get() == number && row.of_account == 0 && text(&row.file) == FREEZE_FILE
        };
        let row = rows.iter().find(of_it);
        let state = row.filter(|row| text(&row.wanted) == u8::from(frozen).to_string());
        let host = match state.map(|row| row.state) {
            Some(IN_FORCE) => "the kernel says so",
            Some(DRY_RUN) => "in a dry run: its processes run as before",
            _ => {
                std::thread::sleep(CONFIRM_PAUSE);
                continue;
            }
        };
        let object = json!({ "instance": number, "frozen": frozen, "host": host });
        return Ok(out.say(&object, &format!("instance {instance} is {says}; {host}"))?);
    }
    Err(Trouble::Refused(format!(
        "instance {instance} should be {says}, but the kernel has not confirmed it; \
         see `hvctl limits {instance}` and `hvctl status`"
    )))
}

fn grant(
    instance: &str,
    resource: Resource,
    amount: u64,
    door: &mut Door,
    out: &mut Output,
) -> Result<(), Trouble> {
    let number = find_instance(instance, &instances(door)?)?;
    let message = GrantCredits {
        client_id: door.next_client_id().into(),
        amount_millicredits: amount.into(),
        instance: number.into(),
        resource: resource as u8,
        reserved: [0; 3],
    };
    let free = door.call(&message)?.value.get();
    let object = json!({
        "instance": number,
        "resource": resource.text(),
        "amount_millicredits": amount,
        "free_millicredits": free,
    });
    let text = format!("instance {instance} has {} credits of {resource} free", credits(free));
    Ok(out.say(&object, &text)?)
}

fn bid(
    instance: &str,
    resource: Resource,
    milli: u64,
    door: &mut Door,
    out: &mut Output,
) -> Result<(), Trouble> {
    let number = find_instance(instance, &instances(door)?)?;
    let message = SetBid {
        client_id: door.next_client_id().into(),
        // Beyond what a bid may be anyway, and refused as such.
        bid_milli: u32::try_from(milli).unwrap_or(u32::MAX).into(),
        instance: number.into(),
        resource: resource as u8,
        reserved: [0; 7],
    };
    let set = door.call(&message)?.value.get();
    let object = json!({ "instance": number, "resource": resource.text(), "bid_milli": set });
    let text = format!("instance {instance} bids {} for {resource}", credits(set));
    Ok(out.say(&object, &text)?)
}

fn list(door: &mut Door, out: &mut Output) -> Result<(), Trouble> {
    let names = Directory::read(door)?;
    let mut list = out.list(&[
        right("INSTANCE"),
        left("NAME"),
        left("ACCOUNT"),
        left("TIER"),
        left("RESOURCE"),
        right("RESERVED"),
        right("MAY USE"),
        left("BURST"),
        right("CREDITS FREE"),
        right("HELD"),
        right("ORDERS"),
        left("PLACE"),
    ]);
    for row in &names.instances {
        list.object(&json::instance(row, &names.tiers))?;
        for r in lines(row, &names) {
            list.cells(cells(row, r, &names));
        }
    }
    Ok(list.show()?)
}

/// The resources of the instance's tier.
fn resources<'a>(row: &'a InstanceRow, names: &'a Directory) -> impl Iterator<Item = usize> + 'a {
    let tier = row.tier.get();
    (0..row.baseline_vru.len()).filter(move |&r| names.tier_resource(tier, r as u8).is_some())
}

/// The resources that the instance has any of, or its tier's first.
fn lines(row: &InstanceRow, names: &Directory) -> Vec<usize> {
    let has = |r: &usize| {
        row.baseline_vru[*r].get() > 0
            || row.entitled_vru[*r].get() > 0
            || row.free_millicredits[*r].get() > 0
            || row.held_millicredits[*r].get() > 0
    };
    let lines: Vec<_> = resources(row, names).filter(has).collect();
    if lines.is_empty() { resources(row, names).take(1).collect() } else { lines }
}

/// The instance's line for resource `r`.
fn cells(row: &InstanceRow, r: usize, names: &Directory) -> Vec<String> {
    let size = names.tier_resource(row.tier.get(), r as u8).map_or(1, |tier| tier.vru_size.get());
    let shown = |vru: U32| natural(Resource::from_u8(r as u8), vru.get().into(), size);
    vec![
        row.instance.to_string(),
        text(&row.name).to_owned(),
        names.account(row.account.get()),
        names.tier(row.tier.get()),
        resource(r as u8),
        shown(row.baseline_vru[r]),
        shown(row.entitled_vru[r]),
        if row.bursting >> r & 1 == 1 { "yes" } else { "no" }.to_owned(),
        credits(row.free_millicredits[r].get()),
        credits(row.held_millicredits[r].get()),
        row.orders.to_string(),
        text(&row.place).to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let tier = |resource, vru_size: u64| TierRow {
            vru_size: vru_size.into(),
            resource,
            name: field("gold").unwrap(),
            ..TierRow::zeroed()
        };
        Directory { tiers: vec![tier(0, 10), tier(1, 16 << 20)], ..Directory::default() }
    }

    #[test]
    fn an_instance_is_shown_with_its_tiers_resources_only() {
        let mut row = InstanceRow { bursting: 0b10, ..InstanceRow::zeroed() };
        row.baseline_vru[0] = 50.into();
        row.entitled_vru[1] = 4.into();
        row.free_millicredits[1] = 1500.into();
        let object = json::instance(&row, &directory().tiers);
        let resources = object["resources"].as_array().unwrap();
        assert_eq!(resources.len(), 2);
        assert_eq!(resources[0]["baseline_vru"], 50);
        assert_eq!(resources[1]["bursting"], true);
        assert_eq!(resources[1]["free_millicredits"], 1500);
        let line = cells(&row, 1, &directory());
        assert_eq!(line[3..9], ["gold", "memory", "0 MiB", "64 MiB", "yes", "1.500"]);
        assert_eq!(cells(&row, 0, &directory())[5], "500m");
        assert_eq!(lines(&row, &directory()), [0, 1]);
        row.baseline_vru[0] = 0.into();
        row.free_millicredits[1] = 0.into();
        assert_eq!(lines(&row, &directory()), [1]);
        assert_eq!(lines(&InstanceRow::zeroed(), &directory()), [0]);
    }

    #[test]
    fn a_place_is_an_absolute_path_or_a_process() {
        assert_eq!(text(&parse_place("/sys/fs/cgroup/web").unwrap()), "/sys/fs/cgroup/web");
        assert_eq!(text(&parse_place("pid:42").unwrap()), "pid:42");
        for wrong in
            ["", "web", "pid:", "pid:0", "pid:x", "./web", &format!("/{}", "x".repeat(192))]
        {
            assert!(parse_place(wrong).is_err(), "{wrong:?}");
        }
    }
}
