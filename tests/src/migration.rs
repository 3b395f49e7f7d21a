//! A naive model of migration between hosts: who may do what with which ticket, record and receipt,
//! and where an instance's credits are. Written from the protocol's text: lists and whole values, no
//! seals, no numbers in place of receipts. Time stands still.

use std::collections::BTreeMap;
use vendue_wire::code::Reject;
use vendue_wire::message::Arrive;

/// What is known of a departed instance, but for its seal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "plain")]
pub struct Record {
    pub house: u64,
    pub ticket: u64,
    pub source: u64,
    pub departure: u64,
    pub name: String,
    pub credits: [u64; 5],
}

/// What a receipt stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "plain")]
pub enum Receipt {
    Arrived(Record),
    Refused(u64, u64),
    /// By this source, to one that was asked with this.
    Departed(u64, Option<Box<Receipt>>),
}

/// Where an instance stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "plain")]
pub enum Stand {
    Live,
    Expected(u64),
    Departing(Record),
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "plain")]
pub struct Host {
    pub house: u64,
    pub instances: BTreeMap<String, (Stand, [u64; 5])>,
    /// Tickets whose instances arrived and that are not closed.
    pub arrived: BTreeMap<u64, Record>,
    /// The newest ticket.
    pub newest: u64,
}

impl Host {
    fn expected(&self, ticket: u64) -> Option<String> {
        let of = |(name, (stand, _)): (&String, &(Stand, _))| {
            (*stand == Stand::Expected(ticket)).then(|| name.clone())
        };
        self.instances.iter().find_map(of)
    }

    fn departing(&self, house: u64, ticket: u64) -> Option<(String, Record)> {
        self.instances.iter().find_map(|(name, (stand, _))| match stand {
            Stand::Departing(record) if (record.house, record.ticket) == (house, ticket) => {
                Some((name.clone(), record.clone()))
            }
            _ => None,
        })
    }

    fn own(&self, house: u64, ticket: u64) -> Result<(), Reject> {
        let own = house == self.house && ticket <= self.newest;
        if own { Ok(()) } else { Err(Reject::UnknownMigration) }
    }

    /// An instance is expected; the machine chose the ticket.
    pub fn expect(&mut self, name: &str, ticket: Option<u64>) -> Result<(), Reject> {
        if self.instances.contains_key(name) {
            return Err(Reject::BadName);
        }
        let ticket = ticket.expect("a ticket is given out");
        assert!(ticket > self.newest, "a ticket is given out twice");
        self.newest = ticket;
        self.instances.insert(name.into(), (Stand::Expected(ticket), [0; 5]));
        Ok(())
    }

    /// An instance departs; the machine chose the number.
    pub fn depart(
        &mut self,
        name: &str,
        (house, ticket): (u64, u64),
        departure: Option<u64>,
    ) -> Result<(), Reject> {
        let known = self.departing(house, ticket);
        let here = self.own(house, ticket).is_ok()
            && (self.expected(ticket).is_some() || self.arrived.contains_key(&ticket));
        if let Some((other, _)) = known {
            return if other == name { Ok(()) } else { Err(Reject::WrongHandover) };
        }
        if here {
            return Err(Reject::WrongHandover);
        }
        let source = self.house;
        let Some((stand, credits)) =
            self.instances.get_mut(name).filter(|row| row.0 == Stand::Live)
        else {
            return Err(Reject::UnknownInstance);
        };
        if house == source {
            return Err(Reject::WrongHandover);
        }
        let (credits, name) = (*credits, name.to_owned());
        let departure = departure.expect("a departure has a number");
        *stand = Stand::Departing(Record { house, ticket, source, departure, name, credits });
        Ok(())
    }

    /// A record arrives.
    pub fn arrive(&mut self, record: &Record) -> Result<Receipt, Reject> {
        self.own(record.house, record.ticket)?;
        let receipt = Receipt::Arrived(record.clone());
        if let Some(known) = self.arrived.get(&record.ticket) {
            return if known == record { Ok(receipt) } else { Err(Reject::WrongHandover) };
        }
        let name = self.expected(record.ticket).ok_or(Reject::UnknownMigration)?;
        if name != record.name {
            return Err(Reject::WrongHandover);
        }
        self.instances.insert(name, (Stand::Live, record.credits));
        self.arrived.insert(record.ticket, record.clone());
        Ok(receipt)
    }

    /// A ticket is refused.
    pub fn refuse(&mut self, house: u64, ticket: u64) -> Result<Receipt, Reject> {
        self.own(house, ticket)?;
        if self.arrived.contains_key(&ticket) {
            return Err(Reject::AlreadyArrived);
        }
        // The row of a departure to another host may have the same number, but not its house.
        if let Some(name) = self.expected(ticket) {
            self.instances.remove(&name);
        }
        Ok(Receipt::Refused(house, ticket))
    }

    /// A departure is taken back.
    pub fn abort(
        &mut self,
        house: u64,
        ticket: u64,
        receipt: Option<&Receipt>,
    ) -> Result<(), Reject> {
        let (name, record) = self.departing(house, ticket).ok_or(Reject::UnknownMigration)?;
        if receipt != Some(&Receipt::Refused(house, ticket)) {
            return Err(Reject::WrongHandover);
        }
        self.instances.insert(name, (Stand::Live, record.credits));
        Ok(())
    }

    /// A departure is settled.
    pub fn departed(
        &mut self,
        house: u64,
        ticket: u64,
        receipt: Option<&Receipt>,
    ) -> Result<Receipt, Reject> {
        let of = |(name, (stand, _)): (&String, &(Stand, _))| match stand {
            Stand::Departing(record) if receipt == Some(&Receipt::Arrived(record.clone())) => {
                Some((name.clone(), record.clone()))
            }
            _ => None,
        };
        if let Some((name, record)) = self.instances.iter().find_map(of) {
            if (record.house, record.ticket) != (house, ticket) {
                return Err(Reject::WrongHandover);
            }
            self.instances.remove(&name);
        }
        Ok(Receipt::Departed(self.house, receipt.cloned().map(Box::new)))
    }

    /// An arrival is closed.
    pub fn close(
        &mut self,
        house: u64,
        ticket: u64,
        receipt: Option<&Receipt>,
    ) -> Result<(), Reject> {
        self.own(house, ticket)?;
        if self.expected(ticket).is_some() {
            return Err(Reject::WrongHandover);
        }
        let Some(record) = self.arrived.get(&ticket) else { return Ok(()) };
        let wanted =
            Receipt::Departed(record.source, Some(Box::new(Receipt::Arrived(record.clone()))));
        if receipt != Some(&wanted) {
            return Err(Reject::WrongHandover);
        }
        self.arrived.remove(&ticket);
        Ok(())
    }
}

impl From<&Arrive> for Record {
    fn from(m: &Arrive) -> Record {
        Record {
            house: m.house.get(),
            ticket: m.ticket.get(),
            source: m.source.get(),
            departure: m.departure.get(),
            name: vendue_wire::message::text(&m.name).into(),
            credits: m.credit_millicredits.map(|milli| milli.get()),
        }
    }
}
