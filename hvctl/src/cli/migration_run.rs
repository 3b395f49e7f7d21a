//! `hvctl migration run`: carries an instance from a daemon to another. What was done before is asked
//! of both, nothing of it is kept here; so it may be interrupted anywhere and given again.

use super::door::{Door, Reach, Trouble, Who};
use super::migration::rows;
use super::names::{accounts, find_account, find_tier, instances, parse_new_name, tiers};
use super::output::Output;
use hvctl::qmp::migrate::{self, Plan};
use hvctl::qmp::monitor::PATIENCE;
use hvctl::qmp::{Go, Monitor, Outcome, power};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use vendue_wire::client::ClientError;
use vendue_wire::code::Reject;
use vendue_wire::message::*;

/// [`MigrationRow::state`].
const EXPECTED: u8 = 4;
const ARRIVED: u8 = 5;
const DEPARTING: u8 = 6;

/// What to move and where to.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Instance, by name, or the number of a proposal
    instance: String,
    /// The other host's vendued: as --connect
    #[arg(long, value_name = "ENDPOINT")]
    to: String,
    /// File with the 32 bytes that it asks for over plain TCP
    #[arg(long, value_name = "FILE")]
    to_token_file: Option<PathBuf>,
    /// What people call that host
    #[arg(long, value_name = "HOST", value_parser = parse_new_name, default_value = "elsewhere")]
    called: [u8; NAME_BYTES],
    /// Its tier there, by name or number [default: the name of its tier here]
    #[arg(long)]
    tier: Option<String>,
    /// Where it runs there: an absolute cgroup v2 path, or `pid:N` on a dry-run host
    #[arg(long, default_value = "")]
    place: String,
    /// Monitor of its QEMU
    #[arg(long, value_name = "SOCKET", requires = "to_qmp", requires = "through")]
    qmp: Option<PathBuf>,
    /// Monitor of the QEMU that takes it in
    #[arg(long, value_name = "SOCKET", requires = "qmp")]
    to_qmp: Option<PathBuf>,
    /// Absolute path of a socket to send the guest through, which the other QEMU makes
    #[arg(long, value_name = "SOCKET", requires = "qmp")]
    through: Option<PathBuf>,
    /// Take the instance back instead, if it has departed and not arrived there
    #[arg(long)]
    back: bool,
    /// How long the guest may stand still, in ms
    #[arg(long, value_name = "MS", default_value_t = 300)]
    downtime_ms: u64,
    /// How long sending it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    patience: u32,
}

/// Both ends of a move.
struct Move<'a> {
    run: &'a Run,
    name: String,
    source: Door,
    destination: Door,
}

/// Runs the command.
pub fn run(run: &Run, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut source = reach.acting(Who::OPERATOR)?;
    let there = Reach::new(&run.to, run.to_token_file.as_deref())?;
    let destination = there.acting(Who::OPERATOR)?;
    let proposals = rows(&mut source)?;
    let proposal = proposals.iter().find(|row| row.ticket.to_string() == run.instance);
    let name = proposal.map_or_else(|| run.instance.clone(), |row| text(&row.name).to_owned());
    Move { run, name, source, destination }.go(out)
}

impl Move<'_> {
    fn go(mut self, out: &mut Output) -> Result<(), Trouble> {
        let row = match self.row_here()? {
            Some(row) if self.run.back => {
                self.take_back(&row)?;
                let object = json!({ "name": self.name, "back": true });
                return Ok(out.say(&object, &format!("{} stays here", self.name))?);
            }
            Some(row) => row,
            None if self.run.back => {
                return Err(Trouble::Refused(format!("{} is not departing", self.name)));
            }
            None if self.is_here()? => self.depart()?,
            // Everything but the end was done before.
            None => return self.close(out),
        };
        if self.row_there()?.is_some_and(|there| there.state == EXPECTED) {
            // Where it is not known that the guest stayed, nothing is taken back.
            if let Some(why) = self.send_guest()? {
                self.take_back(&row)?;
                return Err(Trouble::Refused(why));
            }
            self.arrive(&row)?;
        }
        match self.row_there()? {
            Some(there) if there.state == ARRIVED && there.ticket == row.ticket => self.close(out),
            // Refused there, and not taken back here.
            _ => {
                self.take_back(&row)?;
                Err(Trouble::Refused(format!("{} was refused there and stays here", self.name)))
            }
        }
    }

    /// The record of the instance, if it departed.
    fn row_here(&mut self) -> Result<Option<MigrationRow>, Trouble> {
        let is = |row: &MigrationRow| row.state == DEPARTING && text(&row.name) == self.name;
        Ok(rows(&mut self.source)?.into_iter().find(is))
    }

    /// Its ticket at the other host.
    fn row_there(&mut self) -> Result<Option<MigrationRow>, Trouble> {
        let is = |row: &MigrationRow| {
            [EXPECTED, ARRIVED].contains(&row.state) && text(&row.name) == self.name
        };
        Ok(rows(&mut self.destination)?.into_iter().find(is))
    }

    fn is_here(&mut self) -> Result<bool, Trouble> {
        Ok(instances(&mut self.source)?.iter().any(|row| text(&row.name) == self.name))
    }

    /// Has room made there, and lets the instance depart.
    fn depart(&mut self) -> Result<MigrationRow, Trouble> {
        let here = instances(&mut self.source)?;
        let here = here.into_iter().find(|row| text(&row.name) == self.name);
        let Some(here) = here else {
            return Err(Trouble::Refused(format!("there is no instance {}", self.name)));
        };
        let ticket = match self.row_there()? {
            Some(row) if row.state == EXPECTED => row,
            // It was there once before and came back: what is left of that is closed first.
            Some(row) => {
                self.settle_arrival(&row)?;
                self.expect(&here)?
            }
            None => self.expect(&here)?,
        };
        let client_id = self.source.next_client_id().into();
        self.source.call(&Depart {
            client_id,
            house: ticket.house,
            ticket: ticket.ticket,
            instance: here.instance,
            reserved: 0.into(),
            to: self.run.called,
        })?;
        self.row_here()?.ok_or_else(|| Trouble::Refused("it departed and is not shown".into()))
    }

    fn expect(&mut self, here: &InstanceRow) -> Result<MigrationRow, Trouble> {
        let own = accounts(&mut self.source)?;
        let account = own.iter().find(|row| row.account == here.account);
        let account = account.map(|row| text(&row.name).to_owned()).unwrap_or_default();
        let account = find_account(&account, &accounts(&mut self.destination)?)?;
        let tier = self.tier_there(here)?;
        let place = field(&self.run.place);
        let place = place.ok_or_else(|| Trouble::Usage("--place is too long".into()))?;
        let client_id = self.destination.next_client_id().into();
        self.destination.call(&ExpectInstance {
            client_id,
            account: account.into(),
            tier: tier.into(),
            baseline_vru: here.baseline_vru,
            name: here.name,
            place,
            ..ExpectInstance::zeroed()
        })?;
        self.row_there()?.ok_or_else(|| Trouble::Refused("it is expected and not shown".into()))
    }

    /// The tier there, if its VRUs are of the same sizes: a record of others would not be taken.
    fn tier_there(&mut self, here: &InstanceRow) -> Result<u16, Trouble> {
        let own = tiers(&mut self.source)?;
        let there = tiers(&mut self.destination)?;
        let of_own = |row: &&TierRow| row.tier == here.tier;
        let own_name = own.iter().find(of_own).map(|row| text(&row.name)).unwrap_or_default();
        let tier = find_tier(self.run.tier.as_deref().unwrap_or(own_name), &there)?;
        for row in own.iter().filter(of_own) {
            let reserved = here.baseline_vru[usize::from(row.resource)].get() > 0;
            let same = there.iter().any(|other| {
                (other.tier.get(), other.resource, other.vru_size)
                    == (tier, row.resource, row.vru_size)
            });
            if reserved && !same {
                return Err(Trouble::Refused(format!(
                    "VRUs of resource {} are of another size there, or there are none",
                    row.resource
                )));
            }
        }
        Ok(tier)
    }

    /// Sends the guest of a QEMU, if that was asked for and not done before. Why it stayed where it was,
    /// if it did.
    fn send_guest(&mut self) -> Result<Option<String>, Trouble> {
        let run = self.run;
        let (Some(qmp), Some(to), Some(through)) = (&run.qmp, &run.to_qmp, &run.through) else {
            return Ok(None);
        };
        let mut to = Monitor::connect(to, PATIENCE)?;
        if power::status(&mut to)?.running {
            return Ok(None);
        }
        let mut from = Monitor::connect(qmp, PATIENCE)?;
        let plan = Plan {
            through,
            bytes_per_s: 0,
            downtime_ms: run.downtime_ms,
            patience: Duration::from_secs(run.patience.into()),
        };
        match migrate::migrate(&mut from, &mut to, &plan, |_| Go::On)? {
            Outcome::Applied(_) => Ok(None),
            Outcome::Partial { why, .. } | Outcome::Refused(why) | Outcome::TimedOut(why) => {
                Ok(Some(why))
            }
        }
    }

    fn arrive(&mut self, row: &MigrationRow) -> Result<(), Trouble> {
        let client_id = self.destination.next_client_id().into();
        self.destination.call(&Arrive { client_id, ..Arrive::from(row) }).map(drop)
    }

    /// Settles with both sides what has arrived.
    fn close(&mut self, out: &mut Output) -> Result<(), Trouble> {
        let arrived = self.row_there()?.filter(|row| row.state == ARRIVED);
        let Some(row) = arrived else {
            let name = &self.name;
            return Err(Trouble::Refused(format!("{name} is not here, nor did it arrive there")));
        };
        self.settle_arrival(&row)?;
        let object = json!({
            "name": self.name,
            "instance": row.instance.get(),
            "credit_millicredits": row.credit_millicredits.map(U64::get),
            "leases": row.leases,
        });
        let text = format!("{} is there as instance {}", self.name, row.instance);
        Ok(out.say(&object, &text)?)
    }

    fn settle_arrival(&mut self, row: &MigrationRow) -> Result<(), Trouble> {
        let settle = SettleMigration {
            house: row.house,
            ticket: row.ticket,
            receipt: row.receipt,
            act: MIGRATION_DEPARTED,
            ..SettleMigration::zeroed()
        };
        let client_id = self.source.next_client_id().into();
        let receipt = self.source.call(&SettleMigration { client_id, ..settle })?.value;
        let client_id = self.destination.next_client_id().into();
        let close = SettleMigration { client_id, receipt, act: MIGRATION_CLOSE, ..settle };
        self.destination.call(&close).map(drop)
    }

    /// Has the ticket refused there, and everything given back here.
    fn take_back(&mut self, row: &MigrationRow) -> Result<(), Trouble> {
        let settle = SettleMigration {
            house: row.house,
            ticket: row.ticket,
            act: MIGRATION_REFUSE,
            ..SettleMigration::zeroed()
        };
        let client_id = self.destination.next_client_id().into();
        let refused = self.destination.client.call(&SettleMigration { client_id, ..settle });
        let receipt = match refused {
            Ok(done) => done.value,
            Err(ClientError::Rejected { code, .. }) if code == Reject::UnknownMigration as u8 => {
                return Err(Trouble::Refused(format!(
                    "{} departed to another host than this; give that one with --to",
                    self.name
                )));
            }
            Err(error) => return Err(error.into()),
        };
        let client_id = self.source.next_client_id().into();
        let abort = SettleMigration { client_id, receipt, act: MIGRATION_ABORT, ..settle };
        self.source.call(&abort).map(drop)
    }
}
