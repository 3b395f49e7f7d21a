//! What a migration between hosts is kept as: tickets of instances that are expected or have arrived,
//! records of instances that departed, and proposals.
//!
//! **Exactly once.** The host that is to get an instance gives out a *ticket*, a number that it never gives
//! out again; the host that it leaves makes out the instance's record to that ticket, with what it
//! owns in escrow. A ticket is expected, then arrived or refused, and never goes back; a record is
//! settled only with the *receipt* of what became of its ticket. So what the record holds is at one of
//! the two hosts and nowhere else, whatever is lost, repeated or restarted, and whoever carries the
//! messages. A ticket that is not in the table cannot arrive any more: forgetting is refusing.
//!
//! A host's *house* is the time of its journal's first record: no other journal has it.

use vendue_wire::message::{Arrive, MIGRATION_LEASES, NAME_BYTES};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Migrations under way at most.
pub const HANDOVERS_MAX: usize = 64;
/// Accounts whose proposals are accepted as they come, at most.
pub const STANDING_MAX: usize = 16;

/// [`Proposal::state`]: its lease waits, but not long enough.
pub const WATCHED: u8 = 8;
/// [`Proposal::state`], as in the protocol.
pub const PROPOSED: u8 = 1;
/// [`Proposal::state`].
pub const ACCEPTED: u8 = 2;
/// [`Proposal::state`].
pub const DECLINED: u8 = 3;
/// [`Handover::state`], as in the protocol: room is reserved.
pub const EXPECTED: u8 = 4;
/// [`Handover::state`]: the instance is here.
pub const ARRIVED: u8 = 5;
/// [`Handover::state`]: what the instance owns is in escrow here.
pub const DEPARTING: u8 = 6;
/// Of a row: the instance would better be elsewhere.
pub const ADVISED: u8 = 7;

/// A migration under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Handover {
    /// The instance's record: whole once it departed; before, the ticket alone.
    pub record: Arrive,
    /// What the other host is called.
    pub to: [u8; NAME_BYTES],
    /// Since when it is in this state, milliseconds.
    pub since_ms: u64,
    /// Instance here.
    pub instance: u16,
    /// [`EXPECTED`], [`ARRIVED`] or [`DEPARTING`]; 0: a free place.
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

const _: () = assert!(size_of::<Arrive>().is_multiple_of(8), "no padding before `since_ms`");

impl Handover {
    /// The receipt of what became of it, or will.
    pub fn receipt(&self, verdict: Verdict) -> u64 {
        let Arrive { house, ticket, source, seal, .. } = self.record;
        let arrived = receipt([Verdict::Arrived as u64, house.get(), ticket.get(), seal.get()]);
        match verdict {
            Verdict::Arrived => arrived,
            Verdict::Departed => departed(source.get(), arrived),
            Verdict::Refused => refused(house.get(), ticket.get()),
        }
    }
}

/// What a receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The record was taken.
    Arrived = 1,
    /// It never will be.
    Refused = 2,
    /// What was in escrow is burned.
    Departed = 3,
}

/// The receipt of a refusal.
pub fn refused(house: u64, ticket: u64) -> u64 {
    receipt([Verdict::Refused as u64, house, ticket, 0])
}

/// The receipt of a departure that was settled with this one.
pub fn departed(source: u64, arrived: u64) -> u64 {
    receipt([Verdict::Departed as u64, source, arrived, 0])
}

fn receipt(words: [u64; 4]) -> u64 {
    let mut digest = 0;
    words.into_iter().for_each(|word| super::fold(&mut digest, word));
    digest
}

/// The seal of a record: of every byte but the id of the request that carries it and the seal itself.
/// It finds damage and mistakes; that nobody forges it is the operator's session's affair.
pub fn seal(record: &Arrive) -> u64 {
    let plain = Arrive { client_id: 0.into(), seal: 0.into(), ..*record };
    let mut digest = 0;
    for chunk in plain.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        super::fold(&mut digest, u64::from_le_bytes(word));
    }
    digest
}

/// That a book's first lease of class sla that waits is served on another host instead.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Proposal {
    /// The lease.
    pub lease: u64,
    /// Its own number, once it is proposed.
    pub number: u64,
    /// Since when it is in this state, milliseconds.
    pub since_ms: u64,
    /// What the host is called that was accepted.
    pub to: [u8; NAME_BYTES],
    /// [`WATCHED`] to [`DECLINED`]; 0: none.
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Proposals of an account are accepted as they come.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Standing {
    /// To this host; empty: a free place.
    pub to: [u8; NAME_BYTES],
    /// Account.
    pub account: u32,
}

/// All migrations.
#[derive(Debug)]
pub struct Handovers {
    /// Under way.
    pub rows: Box<[Handover]>,
    /// By book.
    pub proposals: Vec<Proposal>,
    /// Who decided beforehand.
    pub standing: [Standing; STANDING_MAX],
    /// This host's.
    pub house: u64,
    /// The newest ticket or proposal's number.
    pub number: u64,
    /// When waiting leases are looked at next, milliseconds.
    pub looks_ms: u64,
}

impl Handovers {
    /// None yet, and places for so many.
    pub fn new(places: usize) -> Handovers {
        Handovers {
            rows: vec![Handover::new_zeroed(); places].into_boxed_slice(),
            proposals: Vec::new(),
            standing: [Standing::default(); STANDING_MAX],
            house: 0,
            number: 0,
            looks_ms: 0,
        }
    }

    /// A number that was never given out.
    pub fn fresh(&mut self, time_ns: u64) -> u64 {
        self.number = time_ns.max(self.number + 1);
        self.number
    }

    /// Place of a ticket's row.
    pub fn find(&self, house: u64, ticket: u64) -> Option<usize> {
        self.rows.iter().position(|row| {
            row.state != 0 && (row.record.house.get(), row.record.ticket.get()) == (house, ticket)
        })
    }

    /// A free place.
    pub fn room(&self) -> Option<usize> {
        self.rows.iter().position(|row| row.state == 0)
    }

    /// Frees a place.
    pub fn free(&mut self, at: usize) {
        self.rows[at] = Handover::new_zeroed();
    }

    /// Where an account's proposals are accepted to.
    pub fn stands(&self, account: u32) -> Option<&Standing> {
        self.standing.iter().find(|row| row.to[0] != 0 && row.account == account)
    }
}

/// A lease's terms, as they move along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When it ends by itself, milliseconds; 0: it does not.
    pub expires_ms: u64,
    /// VRUs it wants.
    pub vru: u32,
    /// Milliseconds that it holds.
    pub hold_ms: u32,
    /// The most that it pays, ticks.
    pub rent: u16,
    /// A [`vendue_wire::code::LeaseClass`].
    pub class: u8,
    /// A [`vendue_wire::code::Resource`].
    pub resource: u8,
    /// 1: all or nothing.
    pub whole: u8,
}

impl Terms {
    /// Those at a place of a record.
    pub fn of(record: &Arrive, at: usize) -> Terms {
        Terms {
            expires_ms: record.lease_expires_ms[at].get(),
            vru: record.lease_vru[at].get(),
            hold_ms: record.lease_hold_ms[at].get(),
            rent: record.lease_rent_ticks[at].get(),
            class: record.lease_class[at],
            resource: record.lease_resource[at],
            whole: record.lease_all_or_none[at],
        }
    }

    /// Writes them behind those that a record has. False if it has no place left.
    pub fn add(&self, record: &mut Arrive) -> bool {
        let at = usize::from(record.leases);
        if at == MIGRATION_LEASES {
            return false;
        }
        record.lease_expires_ms[at] = self.expires_ms.into();
        record.lease_vru[at] = self.vru.into();
        record.lease_hold_ms[at] = self.hold_ms.into();
        record.lease_rent_ticks[at] = self.rent.into();
        record.lease_class[at] = self.class;
        record.lease_resource[at] = self.resource;
        record.lease_all_or_none[at] = self.whole;
        record.leases += 1;
        true
    }
}
