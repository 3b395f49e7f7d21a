//! Notices: what each record of the journal did to trades and balances, executed again by the
//! machine. A pure function of the journal, so that a notice has the same sequence, part and
//! content whenever and however often it is made.

use crate::desk::IN_AUCTION;
use crate::machine::Machine;
use crate::machine::command::{Outcomes, Usage};
use crate::machine::event::{AuctionTrade, Event, Fill, Outbox, TierSwap, TradeReversed};
use crate::storage::Record;
use vendue_wire::code::{RESOURCES, Resource, Side};
use vendue_wire::message::*;

/// A change of the market, and whom it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A trade.
    Swapped(Swapped),
    /// A trade that was reversed.
    Reversed(SwapReversed),
    /// An account's funds.
    Funds(FundsChanged),
    /// An instance's credits.
    Credits(CreditsChanged),
    /// A swap between tiers.
    Tiers(TiersSwapped),
}

impl Notice {
    /// Its bit in [`Subscribe::what`].
    pub fn bit(&self) -> u8 {
        match self {
            Notice::Swapped(_) | Notice::Reversed(_) => TELL_SWAPS,
            Notice::Funds(_) => TELL_FUNDS,
            Notice::Credits(_) => TELL_CREDITS,
            Notice::Tiers(_) => TELL_TIERS,
        }
    }

    /// True if it concerns this account; [`ANY`] sees all.
    pub fn concerns(&self, account: u32) -> bool {
        let parties = match self {
            Notice::Swapped(m) => [m.seller_account, m.buyer_account],
            Notice::Reversed(m) => [m.seller_account, m.buyer_account],
            Notice::Funds(m) => [m.account; 2],
            Notice::Credits(m) => [m.account; 2],
            // The house's own affair.
            Notice::Tiers(_) => return account == ANY,
        };
        account == ANY || parties.contains(&account.into())
    }
}

/// A trade as one of its parties may know it: not the other's instance, nor its fee.
pub fn seen_by(m: &Swapped, account: u32) -> Swapped {
    let mut seen = *m;
    if account != ANY && m.seller_account.get() != account {
        (seen.seller, seen.seller_fee_micro) = (ANY.into(), 0.into());
    }
    if account != ANY && m.buyer_account.get() != account {
        (seen.buyer, seen.buyer_fee_micro) = (ANY.into(), 0.into());
    }
    seen
}

/// Every balance as it was after the last record, held amounts included.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shadow {
    funds: Vec<u64>,
    credits: Vec<u64>,
    owners: Vec<u32>,
}

impl Shadow {
    /// The balances of a machine.
    pub fn of(machine: &Machine) -> Shadow {
        let ledger = machine.ledger();
        let total = |balance: &crate::machine::ledger::Balance| balance.free + balance.held;
        let instances = ledger.credits().len() / RESOURCES;
        let mut shadow = Shadow {
            funds: ledger.funds().iter().map(|pocket| total(&pocket.balance)).collect(),
            credits: ledger.credits().iter().map(|pocket| total(&pocket.balance)).collect(),
            owners: vec![ANY; instances],
        };
        shadow.learn_owners(machine);
        shadow
    }

    fn learn_owners(&mut self, machine: &Machine) {
        for (instance, owner) in (0_u32..).zip(&mut self.owners) {
            *owner = machine.instance(instance).map_or(ANY, |row| row.account.into());
        }
    }

    /// Appends what the machine's last record did, in order: trades, then swaps between tiers, then
    /// funds by account, then credits by instance and resource. Everything is compared, apart from the records there are
    /// most of: those move balances only of the parties of their trades, or of whose use they tell.
    pub fn take(
        &mut self,
        machine: &Machine,
        record: &Record<'_>,
        outbox: &Outbox,
        out: &mut Vec<Notice>,
    ) {
        if self.funds.is_empty() {
            // The journal's first record: nobody has anything.
            *self = Shadow::of(machine);
        }
        let first = out.len();
        let mut parties = Vec::new();
        for event in outbox.events() {
            let fill = event.read::<Fill>().map(|fill| swapped(machine, record, fill));
            let swapped = fill.or_else(|| {
                let trade = event.read::<AuctionTrade>()?;
                Some(swapped_in_auction(machine, record, trade))
            });
            if let Some(swapped) = swapped {
                parties.extend([swapped.seller.get(), swapped.buyer.get()]);
                out.push(Notice::Swapped(swapped));
            }
            out.extend(reversed(record, &event));
        }
        let swaps = outbox.events().filter_map(|event| event.read::<TierSwap>().copied());
        out.extend(swaps.map(|swap| Notice::Tiers(tiers_swapped(machine, record, &swap))));
        let narrow = match record.kind {
            NewOrder::KIND | Cancel::KIND | Replace::KIND | MassCancel::KIND => true,
            // Moves no balance.
            Outcomes::KIND => true,
            Usage::KIND => {
                parties.extend(used_by(record));
                true
            }
            _ => false,
        };
        let mut instances = if narrow { parties } else { (0..self.owners.len() as u32).collect() };
        instances.sort_unstable();
        instances.dedup();
        let mut accounts: Vec<u32> = if narrow {
            instances.iter().map(|&instance| self.owner(machine, instance)).collect()
        } else {
            (0..self.funds.len() as u32).collect()
        };
        accounts.sort_unstable();
        accounts.dedup();
        for account in accounts {
            out.extend(self.funds_notice(machine, record, account));
        }
        for instance in instances {
            for &resource in Resource::ALL {
                out.extend(self.credits_notice(machine, record, instance, resource));
            }
        }
        if !narrow {
            self.learn_owners(machine);
        }
        for (part, notice) in (0_u32..).zip(&mut out[first..]) {
            match notice {
                Notice::Swapped(m) => m.part = part.into(),
                Notice::Reversed(m) => m.part = part.into(),
                Notice::Funds(m) => m.part = part.into(),
                Notice::Credits(m) => m.part = part.into(),
                Notice::Tiers(m) => m.part = part.into(),
            }
        }
    }

    /// The owner of an instance; of one that this record removed, its last one.
    fn owner(&self, machine: &Machine, instance: u32) -> u32 {
        let now = machine.instance(instance).map(|row| row.account.into());
        now.or_else(|| self.owners.get(instance as usize).copied()).unwrap_or(ANY)
    }

    fn funds_notice(
        &mut self,
        machine: &Machine,
        record: &Record<'_>,
        account: u32,
    ) -> Option<Notice> {
        let before = self.funds.get_mut(account as usize)?;
        let balance = machine.ledger().funds()[account as usize].balance;
        let after = balance.free + balance.held;
        let change = after.wrapping_sub(*before);
        *before = after;
        (change != 0).then(|| {
            Notice::Funds(FundsChanged {
                sequence: record.sequence.into(),
                time_ns: record.time_ns.into(),
                change_micro: change.into(),
                balance_micro: after.into(),
                part: 0.into(),
                account: account.into(),
                cause: record.kind,
                reserved: [0; 7],
            })
        })
    }

    fn credits_notice(
        &mut self,
        machine: &Machine,
        record: &Record<'_>,
        instance: u32,
        resource: Resource,
    ) -> Option<Notice> {
        let account = self.owner(machine, instance);
        let at = instance as usize * RESOURCES + resource as usize;
        let before = self.credits.get_mut(at)?;
        let balance = machine.ledger().credits()[at].balance;
        let after = balance.free + balance.held;
        let change = after.wrapping_sub(*before);
        *before = after;
        (change != 0).then(|| {
            Notice::Credits(CreditsChanged {
                sequence: record.sequence.into(),
                time_ns: record.time_ns.into(),
                change_millicredits: change.into(),
                balance_millicredits: after.into(),
                part: 0.into(),
                instance: instance.into(),
                account: account.into(),
                resource: resource as u8,
                cause: record.kind,
                reserved: [0; 2],
            })
        })
    }
}

/// The instance whose use a record tells.
fn used_by(record: &Record<'_>) -> Option<u32> {
    use crate::pipeline::record::{Arrival, split};
    use zerocopy::FromBytes;
    let (_, body) = split::<Arrival>(record.body);
    Usage::ref_from_bytes(body).ok().map(|usage| usage.instance.get())
}

fn swapped(machine: &Machine, record: &Record<'_>, fill: &Fill) -> Swapped {
    let maker = (fill.maker_account, fill.maker, fill.maker_fee_micro);
    let taker = (fill.taker_account, fill.taker, fill.taker_fee_micro);
    let (seller, buyer) = match fill.taker_side() {
        Side::Buy => (maker, taker),
        Side::Sell => (taker, maker),
    };
    Swapped {
        sequence: record.sequence.into(),
        time_ns: record.time_ns.into(),
        trade: fill.trade,
        notional_micro: notional(machine, fill.book(), fill.price_ticks, fill.quantity),
        seller_fee_micro: seller.2,
        buyer_fee_micro: buyer.2,
        part: 0.into(),
        quantity: fill.quantity,
        price_ticks: fill.price_ticks.into(),
        seller_account: seller.0.into(),
        seller: seller.1.into(),
        buyer_account: buyer.0.into(),
        buyer: buyer.1.into(),
        book: fill.book().into(),
        taker_side: fill.taker_side() as u8,
        reserved: 0,
    }
}

fn swapped_in_auction(machine: &Machine, record: &Record<'_>, trade: &AuctionTrade) -> Swapped {
    Swapped {
        sequence: record.sequence.into(),
        time_ns: record.time_ns.into(),
        trade: trade.trade,
        notional_micro: notional(machine, trade.book.get(), trade.price_ticks, trade.quantity),
        seller_fee_micro: trade.seller_fee_micro,
        buyer_fee_micro: trade.buyer_fee_micro,
        part: 0.into(),
        quantity: trade.quantity,
        price_ticks: trade.price_ticks.into(),
        seller_account: trade.seller_account.into(),
        seller: trade.seller.into(),
        buyer_account: trade.buyer_account.into(),
        buyer: trade.buyer.into(),
        book: trade.book,
        taker_side: IN_AUCTION,
        reserved: 0,
    }
}

fn tiers_swapped(machine: &Machine, record: &Record<'_>, swap: &TierSwap) -> TiersSwapped {
    let book = |number: U16| machine.books().get(usize::from(number.get()));
    let tier = |number: U16| book(number).map_or(ANY_BOOK, |book| book.tier).into();
    TiersSwapped {
        sequence: record.sequence.into(),
        time_ns: record.time_ns.into(),
        left_millicredits: swap.left_millicredits,
        arrived_millicredits: swap.arrived_millicredits,
        part: 0.into(),
        left_vru: swap.left_vru,
        arrived_vru: swap.arrived_vru,
        rest_vru: swap.rest_vru,
        rate: swap.rate,
        from: tier(swap.from_book),
        to: tier(swap.to_book),
        resource: book(swap.from_book).map_or(0, |book| book.resource as u8),
        cause: record.kind,
        reserved: [0; 2],
    }
}

fn reversed(record: &Record<'_>, event: &Event<'_>) -> Option<Notice> {
    let m = event.read::<TradeReversed>()?;
    Some(Notice::Reversed(SwapReversed {
        sequence: record.sequence.into(),
        time_ns: record.time_ns.into(),
        trade: m.trade,
        notional_micro: m.notional_micro,
        part: 0.into(),
        quantity: m.quantity,
        price_ticks: m.price_ticks.into(),
        seller_account: m.seller_account.into(),
        buyer_account: m.buyer_account.into(),
        book: m.book,
        reserved: 0.into(),
    }))
}

/// What a trade comes to, micro-units.
fn notional(machine: &Machine, book: u16, price_ticks: U16, quantity: U32) -> U64 {
    let tick_micro = machine.books().get(usize::from(book)).map_or(0, |book| book.tick_micro);
    (u64::from(price_ticks.get()) * tick_micro * u64::from(quantity.get())).into()
}
