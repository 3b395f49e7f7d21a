//! `hvctl lease`: VRUs rented above a baseline, and lent below it.

use super::amount::funds;
use super::door::{Door, Reach, Trouble, Who};
use super::json;
use super::names::{Directory, find_instance, find_tier, instances, parse_resource, tiers};
use super::output::Output;
use super::table::{left, right};
use super::time::{parse_ms, rfc3339};
use serde_json::json;
use vendue_wire::code::{LeaseClass, Resource, Role};
use vendue_wire::message::*;

/// What to do with leases.
#[derive(Debug, clap::Subcommand)]
pub enum LeaseCommand {
    /// Bid for VRUs above an instance's baseline
    #[command(after_help = "\
The bid stands until it is cancelled, expires or cannot be paid. All leases of a class pay the same rent: \
the best that waits, at most the lowest that was served, at least the reserve. Ten seconds at the bid's own \
rent are held. `hvctl lease list` shows what it has; `hvctl audit` why it has no more (resource unavailable, \
price too low).

storage:TIER bids for a storage class: block I/O of another tier. While the lease has VRUs a VM's disks are \
moved to that tier's storage, running, and it may use so much there; when it ends they come home. An \
instance has one at a time; percent are of its own block I/O in bytes a second.")]
    Bid(Box<BidArgs>),
    /// Give a lease other terms; it waits behind others of its rent
    Change {
        /// Handle, as `hvctl lease list` shows it
        handle: u64,
        /// VRUs that it wants from now on
        vru: u32,
        /// The most that it pays, ticks a VRU-second
        rent: u32,
        #[command(flatten)]
        acting: Acting,
    },
    /// End a lease
    Cancel {
        /// Handle, as `hvctl lease list` shows it
        handle: u64,
        #[command(flatten)]
        acting: Acting,
    },
    /// Lend VRUs of an instance's baseline, or take them back at once
    #[command(after_help = "\
All VRUs that can be leased are alike, lent ones and those that nobody reserved: a lender earns the part of \
the book's rents that its VRUs are of them all. For so much of them as is in use it earns rent in place of \
credits; the rest goes on earning credits. Rent is paid every five seconds, as `rent earned` in `hvctl audit`; \
`hvctl report` has the sums, `hvctl lease rents` what there is to lease and what it costs.")]
    Lend {
        /// Instance, by name or number
        instance: String,
        /// Resource
        #[arg(value_parser = parse_resource)]
        resource: Resource,
        /// VRUs lent from now on; 0 takes all back
        vru: u32,
        #[command(flatten)]
        acting: Acting,
    },
    /// Entitle an instance to leases of class sla
    Grant {
        /// Instance, by name or number
        instance: String,
        /// Resource
        #[arg(value_parser = parse_resource)]
        resource: Resource,
        /// VRUs that its leases of the class may want together; 0 for none
        vru: u32,
    },
    /// Set the least rent of a class; leases that pay less end
    Reserve {
        /// Book, as `hvctl book` shows it
        book: u16,
        /// sla, bounded or speculative
        #[arg(value_parser = parse_class)]
        class: LeaseClass,
        /// Ticks a VRU-second, at least 1
        rent: u32,
    },
    /// Show leases
    List,
    /// Show what there is to lease, and what it costs
    Rents,
}

/// Whom a tenant acts for.
#[derive(Debug, clap::Args)]
pub struct Acting {
    /// Act as the tenant of this account instead of as operator
    #[arg(long, value_name = "NUMBER")]
    account: Option<u32>,
}

/// A bid.
#[derive(Debug, clap::Args)]
pub struct BidArgs {
    /// Instance, by name or number
    instance: String,
    /// Resource, or storage:TIER for another tier's block I/O, on that tier's storage
    #[arg(value_parser = parse_what, value_name = "RESOURCE|storage:TIER")]
    what: What,
    /// VRUs, or percent of the baseline: 12 or 20%
    #[arg(value_parser = parse_amount)]
    amount: (u32, bool),
    /// The most that it pays, ticks a VRU-second
    #[arg(long)]
    rent: u32,
    /// sla, bounded or speculative
    #[arg(long, default_value = "bounded", value_parser = parse_class)]
    class: LeaseClass,
    /// Nobody takes its VRUs for so many milliseconds once it has them, 1000 to 60000
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    hold_ms: u32,
    /// It ends at this time, in UTC: 2026-01-31T12:00:00Z [default: when it is cancelled]
    #[arg(long, value_name = "TIME", value_parser = parse_ms)]
    expires: Option<u64>,
    /// All of it or nothing
    #[arg(long)]
    all_or_none: bool,
    #[command(flatten)]
    acting: Acting,
}

/// A class by name.
pub fn parse_class(text: &str) -> Result<LeaseClass, String> {
    let found = LeaseClass::ALL.iter().find(|class| class.text() == text);
    found.copied().ok_or_else(|| "give sla, bounded or speculative".to_owned())
}

/// What a bid is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Resource(Resource),
    /// The tier's name.
    Storage(String),
}

/// A resource, or the storage of a tier.
fn parse_what(text: &str) -> Result<What, String> {
    match text.strip_prefix("storage:") {
        Some("") => Err("name the tier: storage:gold".to_owned()),
        Some(tier) => Ok(What::Storage(tier.to_owned())),
        None => parse_resource(text)
            .map(What::Resource)
            .map_err(|why| format!("{why}; or storage:TIER for another tier's storage")),
    }
}

/// VRUs or percent.
fn parse_amount(text: &str) -> Result<(u32, bool), String> {
    let (number, percent) = match text.strip_suffix('%') {
        Some(number) => (number, true),
        None => (text, false),
    };
    match number.parse() {
        Ok(amount @ 1..) => Ok((amount, percent)),
        _ => Err("give VRUs, or percent of the baseline: 12 or 20%".to_owned()),
    }
}

impl Acting {
    pub fn door(&self, reach: &Reach) -> Result<Door, Trouble> {
        reach.acting(match self.account {
            Some(account) => Who { role: Role::Tenant, account, instance: ANY },
            None => Who::OPERATOR,
        })
    }
}

/// Runs the command.
pub fn run(command: &LeaseCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        LeaseCommand::Bid(bid) => enter(bid, reach, out),
        LeaseCommand::Change { handle, vru, rent, acting } => {
            let mut door = acting.door(reach)?;
            let message = ChangeLease {
                client_id: door.next_client_id().into(),
                handle: (*handle).into(),
                vru: (*vru).into(),
                rent_ticks: (*rent).into(),
            };
            door.call(&message)?;
            let object = json!({
                "handle": handle.to_string(), "wanted_vru": vru, "rent_ticks": rent,
            });
            Ok(out.say(
                &object,
                &format!("lease {handle} wants {vru} VRUs for at most {rent} ticks"),
            )?)
        }
        LeaseCommand::Cancel { handle, acting } => {
            let mut door = acting.door(reach)?;
            let client_id = door.next_client_id().into();
            let done = door.call(&CancelLease { client_id, handle: (*handle).into() })?;
            let paid = done.value.get();
            let object = json!({ "handle": handle.to_string(), "paid_micro": paid });
            Ok(out.say(&object, &format!("lease {handle} ended; it paid {} in all", funds(paid)))?)
        }
        LeaseCommand::Lend { instance, resource, vru, acting } => {
            lend(instance, *resource, *vru, &mut acting.door(reach)?, out)
        }
        LeaseCommand::Grant { instance, resource, vru } => {
            grant(instance, *resource, *vru, reach, out)
        }
        LeaseCommand::Reserve { book, class, rent } => reserve(*book, *class, *rent, reach, out),
        LeaseCommand::List => list(reach, out),
        LeaseCommand::Rents => rents(reach, out),
    }
}

fn enter(bid: &BidArgs, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = bid.acting.door(reach)?;
    let number = find_instance(&bid.instance, &instances(&mut door)?)?;
    let (amount, percent) = bid.amount;
    let (resource, tier) = match &bid.what {
        What::Resource(resource) => (*resource, None),
        What::Storage(tier) => (Resource::BlockIo, Some(find_tier(tier, &tiers(&mut door)?)?)),
    };
    let message = BidLease {
        client_id: door.next_client_id().into(),
        expires_at_ms: bid.expires.unwrap_or(0).into(),
        instance: number.into(),
        amount: amount.into(),
        rent_ticks: bid.rent.into(),
        hold_ms: bid.hold_ms.into(),
        resource: resource as u8,
        class: bid.class as u8,
        percent: percent.into(),
        all_or_none: bid.all_or_none.into(),
        tier: tier.unwrap_or(0).into(),
        storage: tier.is_some().into(),
        reserved: 0,
    };
    let handle = door.call(&message)?.value.get();
    let rows = door.pages::<LeaseRow, _>(|from| QueryLeases { from: from.into() })?;
    let row = rows.iter().find(|row| row.handle.get() == handle);
    let (granted, wanted) = row.map_or((0, 0), |row| (row.granted_vru.get(), row.wanted_vru.get()));
    let object = json!({
        "handle": handle.to_string(), "instance": number, "granted_vru": granted,
        "wanted_vru": wanted,
    });
    Ok(out.say(&object, &format!("lease {handle} has {granted} of {wanted} VRUs"))?)
}

fn lend(
    instance: &str,
    resource: Resource,
    vru: u32,
    door: &mut Door,
    out: &mut Output,
) -> Result<(), Trouble> {
    let number = find_instance(instance, &instances(door)?)?;
    let message = Lend {
        client_id: door.next_client_id().into(),
        instance: number.into(),
        vru: vru.into(),
        resource: resource as u8,
        reserved: [0; 7],
    };
    let before = door.call(&message)?.value.get();
    let object = json!({ "instance": number, "lent_vru": vru, "before_vru": before });
    Ok(out.say(&object, &format!("instance {instance} lends {vru} VRUs of {resource}"))?)
}

fn grant(
    instance: &str,
    resource: Resource,
    vru: u32,
    reach: &Reach,
    out: &mut Output,
) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let number = find_instance(instance, &instances(&mut door)?)?;
    let message = EntitleInstance {
        client_id: door.next_client_id().into(),
        instance: number.into(),
        vru: vru.into(),
        resource: resource as u8,
        reserved: [0; 7],
    };
    let before = door.call(&message)?.value.get();
    let object = json!({ "instance": number, "sla_vru": vru, "before_vru": before });
    let text = format!("instance {instance} is entitled to {vru} VRUs of {resource} of class sla");
    Ok(out.say(&object, &text)?)
}

fn reserve(
    book: u16,
    class: LeaseClass,
    rent: u32,
    reach: &Reach,
    out: &mut Output,
) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let message = SetReserveRent {
        client_id: door.next_client_id().into(),
        rent_ticks: rent.into(),
        book: book.into(),
        class: class as u8,
        reserved: 0,
    };
    let before = door.call(&message)?.value.get();
    let object =
        json!({ "book": book, "class": class.text(), "reserve_ticks": rent, "before": before });
    let text = format!("leases of class {class} pay at least {rent} ticks in book {book}");
    Ok(out.say(&object, &text)?)
}

fn list(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let mut list = out.list(&[
        right("HANDLE"),
        left("INSTANCE"),
        left("BOOK"),
        left("CLASS"),
        right("WANTS"),
        right("HAS"),
        right("AT MOST"),
        right("PAID"),
        right("HELD"),
        left("EXPIRES"),
    ]);
    for row in door.pages::<LeaseRow, _>(|from| QueryLeases { from: from.into() })? {
        let expires = row.expires_at_ms.get();
        list.object(&json::lease(&row))?;
        list.cells(vec![
            row.handle.to_string(),
            names.instance(row.instance.get()),
            names.book(row.book.get()),
            LeaseClass::text_of(row.class).to_owned(),
            row.wanted_vru.to_string(),
            row.granted_vru.to_string(),
            row.rent_ticks.to_string(),
            funds(row.paid_micro.get()),
            funds(row.held_micro.get()),
            if expires == 0 { "-".to_owned() } else { rfc3339(expires.saturating_mul(1_000_000)) },
        ]);
    }
    Ok(list.show()?)
}

fn rents(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let mut list = out.list(&[
        left("BOOK"),
        right("SUPPLY"),
        right("LEASED"),
        right("LENT"),
        left("CLASS"),
        right("RENT"),
        right("RESERVE"),
        right("LEASES"),
    ]);
    for row in door.pages::<RentRow, _>(|from| QueryRents { from: from.into() })? {
        for (at, of) in LeaseClass::ALL.iter().enumerate() {
            let (rent, reserve) = (row.rent_ticks[at].get(), row.reserve_ticks[at].get());
            let leases = row.leases[at].get();
            list.object(&json::rent(&row, *of))?;
            list.cells(vec![
                names.book(row.book.get()),
                row.supply_vru.to_string(),
                row.granted_vru.to_string(),
                row.lent_vru.to_string(),
                of.text().to_owned(),
                rent.to_string(),
                reserve.to_string(),
                leases.to_string(),
            ]);
        }
    }
    Ok(list.show()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_vrus_or_percent() {
        assert_eq!(parse_amount("12"), Ok((12, false)));
        assert_eq!(parse_amount("20%"), Ok((20, true)));
        for wrong in ["", "0", "%", "-1", "1.5", "4294967296", "20%%"] {
            assert!(parse_amount(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_class("sla"), Ok(LeaseClass::Sla));
        assert!(parse_class("SLA ").is_err());
        assert_eq!(parse_what("cpu"), Ok(What::Resource(Resource::Cpu)));
        assert_eq!(parse_what("storage:gold"), Ok(What::Storage("gold".to_owned())));
        for wrong in ["storage", "storage:", "gold"] {
            assert!(parse_what(wrong).unwrap_err().contains("storage:"), "{wrong}");
        }
    }
}
