//! `hvctl tier`: classes of hardware, what is left of them, and swaps between them.

use super::amount::{credits, natural};
use super::door::{Reach, Trouble, Who};
use super::json;
use super::names::{Directory, find_tier, parse_new_name, parse_resource, resource, tiers};
use super::output::Output;
use super::table::{left, right};
use serde_json::json;
use vendue_wire::code::Resource;
use vendue_wire::message::*;

/// A rate on the command line.
type Rate = [u32; 2];

/// What to do with tiers.
#[derive(Debug, clap::Subcommand)]
pub enum TierCommand {
    /// Show every tier's resources and pools
    List,
    /// Swap capacity and pool credits from a tier to another at the rate in force
    #[command(after_help = "\
The source needs so many VRUs that nobody has reserved, and a minute's credits of each in its pool, \
which earns a credit a second for every VRU that nobody reserved. What arrives is rounded down; what \
is left over stays with the source. Instances keep their tier; the caps of both tiers follow (hvctl \
limits). A swap that is refused changes nothing.")]
    Swap {
        #[command(flatten)]
        pair: Pair,
        /// VRUs of the source, at most
        vru: u32,
    },
    /// Set the rate of swaps from a tier to another
    Rate {
        #[command(flatten)]
        pair: Pair,
        /// So many VRUs arrive for so many that leave: 1/2, or 2 for 2/1
        #[arg(value_parser = parse_rate)]
        rate: Rate,
        /// The least that it may be from now on [default: what it is]
        #[arg(long, value_name = "RATE", value_parser = parse_rate)]
        low: Option<Rate>,
        /// The most that it may be from now on [default: what it is]
        #[arg(long, value_name = "RATE", value_parser = parse_rate)]
        high: Option<Rate>,
        /// Demand does not move it, whatever the configuration says
        #[arg(long)]
        fixed: bool,
    },
    /// Give a spare tier a name and capacities: from now on it is one
    Define {
        /// The spare tier, by name or number
        tier: String,
        /// What it is called from now on
        #[arg(value_parser = parse_new_name)]
        name: [u8; NAME_BYTES],
        /// Capacity of each resource that it has, in VRUs: cpu=320
        #[arg(required = true, value_parser = parse_amount)]
        capacity: Vec<(Resource, u64)>,
        /// Size of a VRU of a resource: millicores, bytes, bytes/s, bits/s, slots
        #[arg(long, value_name = "RESOURCE=SIZE", value_parser = parse_amount)]
        vru_size: Vec<(Resource, u64)>,
    },
    /// Change a tier's capacities, down to what its instances reserve
    Resize {
        /// Tier, by name or number
        tier: String,
        /// Capacities that change, in VRUs: cpu=320
        #[arg(required = true, value_parser = parse_amount)]
        capacity: Vec<(Resource, u64)>,
    },
    /// Let a tier take no new instances, no orders and no swapped capacity
    Drain {
        /// Tier, by name or number
        tier: String,
    },
    /// Take a drain back
    Resume {
        /// Tier, by name or number
        tier: String,
    },
    /// Make a drained tier without instances a spare one; its pool burns
    Delete {
        /// Tier, by name or number
        tier: String,
    },
    /// Show the pairs of tiers that have a rate of their own; all others swap one to one
    Exchanges,
}

/// Which exchange.
#[derive(Debug, clap::Args)]
pub struct Pair {
    /// Source tier, by name or number
    from: String,
    /// Destination tier, by name or number
    to: String,
    /// Resource
    #[arg(value_parser = parse_resource)]
    resource: Resource,
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    let (num, den) = text.split_once('/').unwrap_or((text, "1"));
    match (num.parse(), den.parse()) {
        (Ok(num @ 1..), Ok(den @ 1..)) => Ok([num, den]),
        _ => Err("give a rate such as 1/2, or 2".to_owned()),
    }
}

/// A resource's amount: cpu=320.
fn parse_amount(text: &str) -> Result<(Resource, u64), String> {
    let (name, amount) = text.split_once('=').ok_or("give a resource's amount: cpu=320")?;
    match amount.parse() {
        Ok(amount @ 1..) => Ok((parse_resource(name)?, amount)),
        _ => Err(format!("{amount:?} is not a whole number from 1 on")),
    }
}

/// Runs the command.
pub fn run(command: &TierCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        TierCommand::List => list(reach, out),
        TierCommand::Swap { pair, vru } => swap(pair, *vru, reach, out),
        TierCommand::Rate { pair, rate, low, high, fixed } => {
            let bounds = [low.unwrap_or_default(), high.unwrap_or_default()];
            set_rate(pair, (*rate, bounds, *fixed), reach, out)
        }
        TierCommand::Exchanges => exchanges(reach, out),
        TierCommand::Define { tier, name, capacity, vru_size } => {
            let message = SetTier { name: *name, ..changed(TIER_DEFINE, capacity)? };
            let size = per_resource(vru_size).map(U64::new);
            set_tier(tier, SetTier { vru_size: size, ..message }, "defined", reach, out)
        }
        TierCommand::Resize { tier, capacity } => {
            set_tier(tier, changed(TIER_CHANGE, capacity)?, "resized", reach, out)
        }
        TierCommand::Drain { tier } => {
            set_tier(tier, changed(TIER_DRAIN, &[])?, "draining", reach, out)
        }
        TierCommand::Resume { tier } => {
            set_tier(tier, changed(TIER_RESUME, &[])?, "in use", reach, out)
        }
        TierCommand::Delete { tier } => {
            set_tier(tier, changed(TIER_DELETE, &[])?, "spare", reach, out)
        }
    }
}

fn swap(pair: &Pair, vru: u32, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let rows = tiers(&mut door)?;
    let message = SwapTiers {
        client_id: door.next_client_id().into(),
        vru: vru.into(),
        from: find_tier(&pair.from, &rows)?.into(),
        to: find_tier(&pair.to, &rows)?.into(),
        resource: pair.resource as u8,
        reserved: [0; 7],
    };
    let arrived = door.call(&message)?.value.get();
    let (from, to, resource) = (&pair.from, &pair.to, pair.resource);
    let object = json!({
        "from": message.from.get(),
        "to": message.to.get(),
        "resource": resource.text(),
        "offered_vru": vru,
        "arrived_vru": arrived,
    });
    let text = format!("{arrived} VRUs of {resource} arrived in {to} for at most {vru} of {from}");
    Ok(out.say(&object, &text)?)
}

fn per_resource(amounts: &[(Resource, u64)]) -> [u64; 5] {
    let mut all = [0; 5];
    for &(resource, amount) in amounts {
        all[resource as usize] = amount;
    }
    all
}

fn changed(act: u8, capacity: &[(Resource, u64)]) -> Result<SetTier, Trouble> {
    let mut message = SetTier { act, ..SetTier::zeroed() };
    for (field, vru) in message.capacity_vru.iter_mut().zip(per_resource(capacity)) {
        let wrong = |_| Trouble::Usage(format!("a capacity of {vru} VRUs is too much"));
        *field = u32::try_from(vru).map_err(wrong)?.into();
    }
    Ok(message)
}

fn set_tier(
    tier: &str,
    message: SetTier,
    done: &str,
    reach: &Reach,
    out: &mut Output,
) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let rows = tiers(&mut door)?;
    let number = find_tier(tier, &rows)?;
    let client_id = door.next_client_id().into();
    door.call(&SetTier { client_id, tier: number.into(), ..message })?;
    let object = json!({ "tier": number, "now": done });
    Ok(out.say(&object, &format!("tier {tier} is {done}"))?)
}

fn set_rate(
    pair: &Pair,
    (rate, [low, high], fixed): (Rate, [Rate; 2], bool),
    reach: &Reach,
    out: &mut Output,
) -> Result<(), Trouble> {
    let mut door = reach.acting(Who::OPERATOR)?;
    let rows = tiers(&mut door)?;
    let message = SetRate {
        client_id: door.next_client_id().into(),
        rate: rate.map(U32::new),
        low: low.map(U32::new),
        high: high.map(U32::new),
        from: find_tier(&pair.from, &rows)?.into(),
        to: find_tier(&pair.to, &rows)?.into(),
        resource: pair.resource as u8,
        fixed: fixed.into(),
        reserved: [0; 2],
    };
    let number = door.call(&message)?.value.get();
    let object = json!({
        "exchange": number,
        "from": message.from.get(),
        "to": message.to.get(),
        "resource": pair.resource.text(),
        "rate": json::rate(message.rate),
        "fixed": fixed,
    });
    let (from, to, resource) = (&pair.from, &pair.to, pair.resource);
    let text = format!("{resource} swaps from {from} to {to} at {}", json::rate(message.rate));
    Ok(out.say(&object, &text)?)
}

fn exchanges(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let rows = door.pages::<ExchangeRow, _>(|from| QueryExchanges { from: from.into() })?;
    let mut list = out.list(&[
        left("FROM"),
        left("TO"),
        left("RESOURCE"),
        right("RATE"),
        right("LOW"),
        right("HIGH"),
        left("DEMAND"),
        left("WHEN"),
        right("FOUND"),
    ]);
    for row in rows {
        let managed = row.every_ms.get() > 0;
        let object = json::exchange(&row);
        list.object(&object)?;
        let demand = match (managed, row.fixed) {
            (false, _) => "-".to_owned(),
            (true, 1) => format!("swaps {} VRUs", row.step_vru),
            (true, _) => format!("swaps {} VRUs, rate by {}%", row.step_vru, row.rate_step_percent),
        };
        let when = match managed {
            false => "-".to_owned(),
            true => format!(
                "{} <= {}%, {} >= {}%, {} times every {} ms",
                names.tier(row.from.get()),
                row.idle_percent,
                names.tier(row.to.get()),
                row.saturated_percent,
                row.looks,
                row.every_ms
            ),
        };
        list.cells(vec![
            names.tier(row.from.get()),
            names.tier(row.to.get()),
            resource(row.resource),
            json::rate(row.rate),
            json::rate(row.low),
            json::rate(row.high),
            demand,
            when,
            row.found.to_string(),
        ]);
    }
    Ok(list.show()?)
}

fn list(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut list = out.list(&[
        right("TIER"),
        left("NAME"),
        left("STATE"),
        left("RESOURCE"),
        right("BOOK"),
        right("CAPACITY"),
        right("RESERVED"),
        right("VRUS"),
        right("VRUS RESERVED"),
        right("VRU SIZE"),
        right("POOL"),
        right("BURST"),
    ]);
    for row in tiers(&mut reach.reader()?)? {
        let (capacity, reserved) = (row.capacity_vru.get(), row.reserved_vru.get());
        let size = row.vru_size.get();
        let kind = Resource::from_u8(row.resource);
        list.object(&json::tier(&row))?;
        list.cells(vec![
            row.tier.to_string(),
            text(&row.name).to_owned(),
            json::tier_state(row.state).to_owned(),
            resource(row.resource),
            row.book.to_string(),
            natural(kind, capacity, size),
            natural(kind, reserved, size),
            capacity.to_string(),
            reserved.to_string(),
            natural(kind, 1, size),
            credits(row.pool_millicredits.get()),
            format!("{}%", row.burst_percent),
        ]);
    }
    Ok(list.show()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_fractions_and_shown_in_lowest_terms() {
        assert_eq!(parse_rate("2/3"), Ok([2, 3]));
        assert_eq!(parse_rate("2"), Ok([2, 1]));
        for wrong in ["", "0", "1/0", "-1", "1/2/3", "1.5", "a/b", "4294967296"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
        let rate = |num: u32, den: u32| [num.into(), den.into()];
        assert_eq!(json::rate(rate(500_000, 1_000_000)), "1/2");
        assert_eq!((json::rate(rate(3, 1)), json::rate(rate(0, 0))), ("3/1".into(), "0/0".into()));
    }
}
