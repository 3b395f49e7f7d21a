//! The audit trail as rows: what each record of the journal did, executed again by the machine.

use crate::machine::Machine;
use crate::machine::command::{CloseSession, Tick, Usage};
use crate::machine::event::{
    AccountCapped, AuctionTrade, Event, Fill, Outbox, PhaseChanged, RateMoved, SessionOpened,
    TierSwap, TradeReversed, Uncrossed,
};
use crate::pipeline::record::{Arrival, split};
use crate::storage::Record;
use vendue_wire::code::{Phase, Side};
use vendue_wire::message::*;
use zerocopy::FromBytes;

/// Role of what the daemon does itself.
const NOBODY: u8 = u8::MAX;

/// The rows of one record.
pub fn rows(machine: &Machine, record: &Record<'_>, outbox: &Outbox, out: &mut Vec<AuditRow>) {
    let (arrival, body) = split::<Arrival>(record.body);
    let session = machine.session_number(arrival.session.get()).unwrap_or(0);
    let peer = machine.session_peer(arrival.session.get());
    let blank = AuditRow {
        sequence: record.sequence.into(),
        time_ns: record.time_ns.into(),
        chain: record.chain_after().into(),
        session: session.into(),
        account: ANY.into(),
        instance: ANY.into(),
        other_account: ANY.into(),
        other_instance: ANY.into(),
        book: ANY_BOOK.into(),
        role: peer.map_or(NOBODY, |(role, _)| role as u8),
        peer: peer.map_or([0; PEER_BYTES], |(_, peer)| *peer),
        ..AuditRow::zeroed()
    };
    if record.kind == Tick::KIND && outbox.is_empty() {
        return;
    }
    let before = out.len();
    match record.kind {
        Usage::KIND => out.extend(usage(machine, &blank, body)),
        CloseSession::KIND => out.push(AuditRow { what: field_cut("logoff"), ..blank }),
        SetTier::KIND => out.extend(set_tier(&blank, body, outbox)),
        Deposit::KIND | Withdraw::KIND | GrantCredits::KIND => {
            out.extend(amount(record.kind, &blank, body, outbox));
        }
        SetLimits::KIND | CancelAccount::KIND => {
            out.extend(of_account(record.kind, &blank, body, outbox));
        }
        _ => {}
    }
    for event in outbox.events() {
        if let Some(swap) = event.read::<TierSwap>() {
            out.extend(tier_swap(&blank, swap));
        } else if let Some(moved) = event.read::<RateMoved>() {
            out.extend(rate_moved(machine, &blank, moved));
        }
        out.extend(row(machine, &blank, &event));
    }
    // What leaves no trace of its own is still a record of the journal.
    if out.len() == before && record.kind != Tick::KIND {
        out.push(AuditRow { what: field_cut(name(record.kind)), ..blank });
    }
}

/// What a record of this kind is called.
fn name(kind: u8) -> &'static str {
    let schemas = [vendue_wire::message::SCHEMA, crate::machine::command::SCHEMA];
    let all = schemas.into_iter().flatten();
    all.into_iter().find(|entry| entry.0 == kind).map_or("unknown", |entry| entry.1)
}

fn usage(machine: &Machine, blank: &AuditRow, body: &[u8]) -> Option<AuditRow> {
    let usage = Usage::ref_from_bytes(body).ok()?;
    Some(AuditRow {
        amount: usage.used_millicredits,
        instance: usage.instance,
        account: account(machine, usage.instance.get()),
        what: field_cut("usage"),
        ..*blank
    })
}

/// Deposits, withdrawals and grants that were carried out.
fn amount(kind: u8, blank: &AuditRow, body: &[u8], outbox: &Outbox) -> Option<AuditRow> {
    outbox.events().find(|event| event.kind == Done::KIND)?;
    match kind {
        GrantCredits::KIND => {
            let grant = GrantCredits::ref_from_bytes(body).ok()?;
            let amount = grant.amount_millicredits;
            let what = field_cut("grant");
            Some(AuditRow { amount, instance: grant.instance, what, ..*blank })
        }
        _ => {
            // Deposit and withdrawal have one layout.
            let deposit = Deposit::ref_from_bytes(body).ok()?;
            let what = field_cut(if kind == Deposit::KIND { "deposit" } else { "withdraw" });
            let account = deposit.account;
            Some(AuditRow { funds_micro: deposit.amount_micro, account, what, ..*blank })
        }
    }
}

/// What was done to a tier.
fn set_tier(blank: &AuditRow, body: &[u8], outbox: &Outbox) -> Option<AuditRow> {
    outbox.events().find(|event| event.kind == Done::KIND)?;
    let m = SetTier::ref_from_bytes(body).ok()?;
    let what = match m.act {
        TIER_DEFINE => "tier define",
        TIER_CHANGE => "tier change",
        TIER_DRAIN => "tier drain",
        TIER_RESUME => "tier resume",
        _ => "tier delete",
    };
    let amount = u64::from(m.tier.get()).into();
    Some(AuditRow { amount, what: field_cut(what), ..*blank })
}

/// What was done to an account, with the number of its orders that went.
fn of_account(kind: u8, blank: &AuditRow, body: &[u8], outbox: &Outbox) -> Option<AuditRow> {
    let amount = outbox.events().find_map(|event| event.read::<Done>())?.value;
    let (what, account) = match kind {
        SetLimits::KIND => ("set limits", SetLimits::ref_from_bytes(body).ok()?.account),
        _ => ("cancel account", CancelAccount::ref_from_bytes(body).ok()?.account),
    };
    Some(AuditRow { amount, account, what: field_cut(what), ..*blank })
}

fn account(machine: &Machine, instance: u32) -> U32 {
    machine.instance(instance).map_or(ANY, |row| row.account.into()).into()
}

fn row(machine: &Machine, blank: &AuditRow, event: &Event<'_>) -> Option<AuditRow> {
    if let Some(row) = trade_row(machine, blank, event) {
        return Some(row);
    }
    if let Some(row) = book_row(blank, event) {
        return Some(row);
    }
    if let Some(m) = event.read::<AccountCapped>() {
        let amount = u64::from(m.millicores.get()).into();
        return Some(AuditRow { amount, account: m.account, what: field_cut("cap"), ..*blank });
    }
    if let Some(m) = event.read::<Accepted>() {
        let side = if m.side == Side::Buy as u8 { "order buy" } else { "order sell" };
        return Some(AuditRow {
            amount: u64::from(m.quantity.get()).into(),
            account: account(machine, m.instance.get()),
            instance: m.instance,
            price_ticks: m.price_ticks,
            book: m.book,
            what: field_cut(side),
            ..*blank
        });
    }
    if let Some(m) = event.read::<Cancelled>() {
        return Some(AuditRow {
            amount: u64::from(m.quantity.get()).into(),
            account: account(machine, m.instance.get()),
            instance: m.instance,
            book: m.book,
            what: field_cut("cancelled"),
            ..*blank
        });
    }
    if let Some(m) = event.read::<Replaced>() {
        return Some(AuditRow {
            amount: u64::from(m.quantity.get()).into(),
            price_ticks: m.price_ticks,
            what: field_cut("replaced"),
            ..*blank
        });
    }
    if let Some(m) = event.read::<Rejected>() {
        return Some(AuditRow { code: m.code, what: field_cut("rejected"), ..*blank });
    }
    if let Some(m) = event.read::<SessionOpened>() {
        let peer = machine.session_peer(event.target);
        return Some(AuditRow {
            session: m.session,
            role: m.role,
            peer: peer.map_or([0; PEER_BYTES], |(_, peer)| *peer),
            account: m.account,
            instance: m.instance,
            what: field_cut("logon"),
            ..*blank
        });
    }
    let m = event.read::<Done>()?;
    let what = match m.kind {
        CreateAccount::KIND => "account",
        CreateInstance::KIND => "instance",
        RemoveInstance::KIND => "remove",
        MassCancel::KIND => "mass cancel",
        // Also where the phase stays what it was.
        SetPhase::KIND => "set phase",
        _ => return None,
    };
    Some(AuditRow { amount: m.value, what: field_cut(what), ..*blank })
}

/// A trade, or what became of one.
fn trade_row(machine: &Machine, blank: &AuditRow, event: &Event<'_>) -> Option<AuditRow> {
    if let Some(fill) = event.read::<Fill>() {
        return Some(trade(machine, blank, fill));
    }
    if let Some(m) = event.read::<AuctionTrade>() {
        let parties = [m.seller_account, m.seller, m.buyer_account, m.buyer];
        return Some(sale(machine, blank, m.book.get(), (m.price_ticks, m.quantity), parties));
    }
    let m = event.read::<TradeReversed>()?;
    let parties = [m.seller_account, m.seller, m.buyer_account, m.buyer];
    let terms = (m.price_ticks, m.quantity);
    let what = field_cut(&format!("reversed {}", m.trade));
    Some(AuditRow { what, ..sale(machine, blank, m.book.get(), terms, parties) })
}

fn trade(machine: &Machine, blank: &AuditRow, fill: &Fill) -> AuditRow {
    let bought = fill.taker_side() == Side::Buy;
    let parties = if bought {
        [fill.maker_account, fill.maker, fill.taker_account, fill.taker]
    } else {
        [fill.taker_account, fill.taker, fill.maker_account, fill.maker]
    };
    sale(machine, blank, fill.book(), (fill.price_ticks, fill.quantity), parties)
}

/// A trade between a seller's and a buyer's account and instance.
fn sale(
    machine: &Machine,
    blank: &AuditRow,
    book: u16,
    (price_ticks, quantity): (U16, U32),
    [account, instance, other_account, other_instance]: [U16; 4],
) -> AuditRow {
    let tick_micro = machine.books().get(usize::from(book)).map_or(0, |book| book.tick_micro);
    let notional = u64::from(price_ticks.get()) * tick_micro * u64::from(quantity.get());
    AuditRow {
        amount: u64::from(quantity.get()).into(),
        funds_micro: notional.into(),
        account: account.into(),
        instance: instance.into(),
        other_account: other_account.into(),
        other_instance: other_instance.into(),
        price_ticks: price_ticks.into(),
        book: book.into(),
        what: field_cut("trade"),
        ..*blank
    }
}

/// A swap between tiers: a line for each thing that moved, at the book of the tier it moved from or
/// to, and the rate.
fn tier_swap(blank: &AuditRow, m: &TierSwap) -> [AuditRow; 6] {
    let vru = |vru: U32| U64::from(u64::from(vru.get()));
    let line = |what: &str, book: U16, amount: U64| AuditRow {
        amount,
        book,
        what: field_cut(what),
        ..*blank
    };
    [
        line("tier out", m.from_book, vru(m.left_vru)),
        line("tier in", m.to_book, vru(m.arrived_vru)),
        line("tier rest", m.from_book, vru(m.rest_vru)),
        line("pool out", m.from_book, m.left_millicredits),
        line("pool in", m.to_book, m.arrived_millicredits),
        line(&at(m.rate), m.from_book, 0.into()),
    ]
}

fn at([num, den]: [U32; 2]) -> String {
    format!("at {num}/{den}")
}

/// The rate of an exchange: a line at the book it leaves, with the rate, and one at the other.
fn rate_moved(machine: &Machine, blank: &AuditRow, m: &RateMoved) -> [AuditRow; 2] {
    let book = |tier: U16| {
        let of = |book: &crate::machine::tables::Book| {
            (book.tier, book.resource as u8) == (tier.get(), m.resource)
        };
        machine.books().iter().position(of).map_or(ANY_BOOK, |at| at as u16).into()
    };
    let line = |what: &str, tier| AuditRow { book: book(tier), what: field_cut(what), ..*blank };
    [line("rate from", m.from), line(&at(m.rate), m.to)]
}

/// What became of a whole book.
fn book_row(blank: &AuditRow, event: &Event<'_>) -> Option<AuditRow> {
    if let Some(m) = event.read::<PhaseChanged>() {
        let phase = Phase::from_u8(m.phase).map_or("unknown", Phase::text);
        let what = field_cut(&format!("phase {phase}"));
        return Some(AuditRow { book: m.book, what, ..*blank });
    }
    let m = event.read::<Uncrossed>()?;
    Some(AuditRow {
        amount: m.volume,
        price_ticks: u32::from(m.price_ticks.get()).into(),
        book: m.book,
        what: field_cut("auction"),
        ..*blank
    })
}
