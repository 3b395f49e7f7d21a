//! The machine's tables: accounts, instances, sessions, books. Dense arrays, bounded, indexed by
//! the numbers the protocol shows.

use super::auction::Indication;
use super::config::RESOURCES;
use super::ladder::{Ladder, NONE};
use super::phase::Schedule;
use vendue_wire::code::{Phase, Reject, Resource, Role, Side};
use vendue_wire::message::{ANY, NAME_BYTES, PLACE_BYTES};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Account {
    /// Bit g: sells to accounts of group g. None while it has not opted in: see [`super::limits`].
    pub sells_to: u64,
    /// Bit g: buys from accounts of group g. None while it has not opted in.
    pub buys_from: u64,
    /// Name, zero-padded.
    pub name: [u8; NAME_BYTES],
    /// Group, 0..=63.
    pub group: u32,
    /// Live instances.
    pub instances: u32,
    /// Thousandths of a processor that its instances may use together, 0 for no cap.
    pub cap_millicores: u32,
    /// Zero.
    pub reserved: u32,
}

impl Account {
    /// An unused row.
    pub const FREE: Account = Account {
        sells_to: 0,
        buys_from: 0,
        name: [0; NAME_BYTES],
        group: 0,
        instances: 0,
        cap_millicores: 0,
        reserved: 0,
    };

    /// True if both masks allow `self` to sell to `buyer`.
    #[inline]
    pub fn may_sell_to(&self, buyer: &Account) -> bool {
        (self.sells_to >> buyer.group) & (buyer.buys_from >> self.group) & 1 == 1
    }
}

/// A VM or container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Instance {
    /// VRUs reserved per resource.
    pub baseline_vru: [u32; RESOURCES],
    /// 1 while it exists; [`Instance::DEPARTING`] or [`Instance::ARRIVING`] on its way.
    pub live: u16,
    /// Bit r: bursting in resource r. [`Instance::LIMITED`]: its account has limits.
    /// [`Instance::FROZEN`]: an operator froze it.
    pub bursting: u16,
    /// Home tier.
    pub tier: u16,
    /// Owning account.
    pub account: u16,
    /// Name, zero-padded.
    pub name: [u8; NAME_BYTES],
    /// Place on the host, zero-padded.
    pub place: [u8; PLACE_BYTES],
}

impl Instance {
    /// Bit of `bursting`, beside those of the resources: an order reads that word anyway.
    pub const LIMITED: u16 = 1 << 15;
    /// Bit of `bursting`, of which no order takes notice.
    pub const FROZEN: u16 = 1 << 14;

    /// Of `live`: what it owns is in escrow for another host. Nobody acts for it.
    pub const DEPARTING: u16 = 2;
    /// Of `live`: it has room here and owns nothing yet. Nobody acts for it.
    pub const ARRIVING: u16 = 3;

    /// An unused row.
    pub const FREE: Instance = Instance {
        baseline_vru: [0; RESOURCES],
        live: 0,
        bursting: 0,
        tier: 0,
        account: 0,
        name: [0; NAME_BYTES],
        place: [0; PLACE_BYTES],
    };

    /// True if its account has limits.
    #[inline(always)]
    pub fn is_limited(&self) -> bool {
        self.bursting & Instance::LIMITED != 0
    }

    /// True if an operator froze it.
    pub fn is_frozen(&self) -> bool {
        self.bursting & Instance::FROZEN != 0
    }

    /// True if its burst in `resource` is on.
    #[inline]
    pub fn is_bursting(&self, resource: Resource) -> bool {
        self.bursting >> (resource as u16) & 1 == 1
    }
}

/// A session that was opened at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Session {
    /// The number its client chose; 0 marks an unused row.
    pub number: u64,
    /// Highest request executed.
    pub last_request: u64,
    /// Highest client id used.
    pub last_client_id: u64,
    /// When its connection went, for reuse of the row of the longest gone.
    pub closed_at_ns: u64,
    /// Account it acts for, or [`ANY`].
    pub account: u32,
    /// Instance it acts for, or [`ANY`].
    pub instance: u32,
    /// Open orders it entered.
    pub orders: u32,
    /// Connection that opened it last.
    pub connection: u32,
    /// A [`Role`].
    pub role: u8,
    /// 1 while connected.
    pub connected: u8,
    /// 1: cancel its orders when it goes.
    pub cancel_on_disconnect: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

impl Session {
    /// An unused row.
    pub const FREE: Session = Session {
        number: 0,
        last_request: 0,
        last_client_id: 0,
        closed_at_ns: 0,
        account: ANY,
        instance: ANY,
        orders: 0,
        connection: ANY,
        role: Role::Observer as u8,
        connected: 0,
        cancel_on_disconnect: 0,
        reserved: [0; 5],
    };

    /// Checks that a request's id is greater than every earlier one.
    ///
    /// # Errors
    /// [`Reject::DuplicateClientId`].
    #[inline(always)]
    pub fn fresh_client_id(&self, client_id: u64) -> Result<u64, Reject> {
        if client_id > self.last_client_id { Ok(client_id) } else { Err(Reject::DuplicateClientId) }
    }

    /// The row of an instance, if it may act for it.
    ///
    /// # Errors
    /// [`Reject::NotPermitted`] to who acts for nobody, [`Reject::UnknownInstance`] to others:
    /// another's is refused as if it did not exist.
    #[inline(always)]
    pub fn acting<'a>(&self, rows: &'a [Instance], instance: u32) -> Result<&'a Instance, Reject> {
        let row = rows.get(instance as usize).filter(|row| row.live == 1);
        match row {
            Some(row) if self.acts_for(instance, row) => Ok(row),
            _ if self.role() == Role::Observer => Err(Reject::NotPermitted),
            _ => Err(Reject::UnknownInstance),
        }
    }

    /// True if it may act for the instance of this number and row.
    #[inline(always)]
    pub fn acts_for(&self, instance: u32, row: &Instance) -> bool {
        match self.role() {
            Role::Operator => true,
            Role::Tenant => self.account == u32::from(row.account),
            Role::Agent => self.instance == instance,
            Role::Observer => false,
        }
    }

    /// Its role.
    #[inline(always)]
    pub fn role(&self) -> Role {
        Role::from_u8(self.role).unwrap_or(Role::Observer)
    }
}

/// The book of one tier's resource, with what the tier says of that resource.
#[derive(Debug)]
pub struct Book {
    /// Tier.
    pub tier: u16,
    /// Resource.
    pub resource: Resource,
    /// Tier's name, zero-padded.
    pub tier_name: [u8; NAME_BYTES],
    /// Size of a VRU in the resource's unit.
    pub vru_size: u64,
    /// Capacity in VRUs. Swaps between tiers move it.
    pub capacity_vru: u64,
    /// VRUs reserved by baselines.
    pub reserved_vru: u64,
    /// Burst ceiling in percent of the baseline.
    pub burst_percent: u32,
    /// Largest quantity of an order, credits.
    pub quantity_max: u32,
    /// Micro-units of one tick.
    pub tick_micro: u64,
    /// Highest price, ticks.
    pub price_max: u16,
    /// Last price, ticks; 0 if none.
    pub last: u16,
    /// Open orders.
    pub orders: u32,
    /// Trades.
    pub trades: u64,
    /// Credits traded.
    pub volume: u64,
    /// Buy ladder, sell ladder.
    pub sides: [Ladder; 2],
    /// First sentinel of each side's queues, in the order of levels.
    pub queues: [u32; 2],
    /// What it does with orders.
    pub phase: Phase,
    /// When it changes by itself.
    pub schedule: Schedule,
    /// What was last said of its auction.
    pub indicative: Indication,
}

impl Book {
    /// Sentinel of the queue that an order of this side and price joins if it rests; any number if
    /// the price is none.
    #[inline(always)]
    pub fn joined(&self, side: u8, price: u32) -> u32 {
        let own = usize::from(side);
        self.queues[own].wrapping_add(self.sides[own].level_of(price as u16))
    }

    /// Price nearest to the other side, highest bid or lowest ask; 0 if there is none.
    pub fn best(&self, side: Side) -> u16 {
        let ladder = &self.sides[side as usize];
        if ladder.best() == NONE { 0 } else { ladder.price_of(ladder.best()) }
    }

    /// VRUs an instance of this baseline may use while it bursts, were the tier's capacity without end.
    pub fn uncapped_vru(&self, baseline_vru: u32) -> u64 {
        u64::from(baseline_vru) * u64::from(self.burst_percent) / 100
    }
}
