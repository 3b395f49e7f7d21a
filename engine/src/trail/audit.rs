//! The audit trail as rows: what each record of the journal did, executed again by the machine.

use crate::machine::Machine;
use crate::machine::command::{
    APPLIED, CloseSession, HOST_KPIS, HostKpis, OutcomeRow, Outcomes, PARTIAL, Perished, REFUSED,
    Tick, Usage,
};
use crate::machine::event::{
    AccountCapped, AuctionTrade, Event, ExperimentMoved, Exposed, Fill, InstanceFrozen,
    InstanceRemoved, Outbox, PhaseChanged, RateMoved, RentEarned, SessionOpened, TierSwap,
    TradeReversed, Uncrossed,
};
use crate::pipeline::record::{Arrival, split};
use crate::storage::Record;
use hvctl::outcome::Aim;
use vendue_wire::code::{
    ExperimentEnd, Kpi, LeaseOutcome, Phase, PolicyAct, PolicyReason, Rescue, Side, SwapReason,
    SwapState, TaskEnd, TokenOutcome,
};
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
        Perished::KIND => out.extend(perished(&blank, outbox)),
        Outcomes::KIND => outcomes(machine, &blank, body, out),
        CloseSession::KIND => out.push(AuditRow { what: field_cut("logoff"), ..blank }),
        SetObjective::KIND => out.extend(set_objective(machine, &blank, body, outbox)),
        ReportKpi::KIND => {
            let told = outbox.events().any(|event| event.kind == Done::KIND);
            let m = ReportKpi::ref_from_bytes(body).ok().filter(|_| told);
            let of = |m: &ReportKpi| Some((m.instance, Kpi::from_u8(m.kpi)?, m.value));
            out.extend(m.and_then(of).map(|value| kpi(machine, &blank, value)));
        }
        HostKpis::KIND => {
            let Ok(m) = HostKpis::ref_from_bytes(body) else { return };
            let values =
                HOST_KPIS.iter().zip(m.values).filter(|(_, value)| value.get() != u32::MAX);
            out.extend(values.map(|(&of, value)| kpi(machine, &blank, (m.instance, of, value))));
        }
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
        of_event(machine, &blank, &event, out);
    }
    // What leaves no trace of its own is still a record of the journal.
    if out.len() == before && record.kind != Tick::KIND {
        out.push(AuditRow { what: field_cut(name(record.kind)), ..blank });
    }
}

/// The rows of one event.
fn of_event(machine: &Machine, blank: &AuditRow, event: &Event<'_>, out: &mut Vec<AuditRow>) {
    if let Some(swap) = event.read::<TierSwap>() {
        out.extend(tier_swap(blank, swap));
    } else if let Some(moved) = event.read::<RateMoved>() {
        out.extend(rate_moved(machine, blank, moved));
    }
    swap_rows(blank, event, out);
    if let Some(acted) = event.read::<PolicyActed>() {
        out.push(policy_row(machine, blank, acted));
    }
    if let Some(exposed) = event.read::<Exposed>() {
        out.push(exposed_row(machine, blank, exposed));
    } else if let Some(moved) = event.read::<ExperimentMoved>() {
        out.push(experiment_row(blank, moved));
    }
    if let Some(moved) = event.read::<LeaseMoved>() {
        out.push(lease_row(machine, blank, moved));
        return;
    }
    if let Some(moved) = event.read::<ObjectiveMoved>() {
        out.push(objective_row(machine, blank, moved));
    }
    out.extend(row(machine, blank, event));
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

/// An instance that ended by itself, if it was still there.
fn perished(blank: &AuditRow, outbox: &Outbox) -> Option<AuditRow> {
    let removed = outbox.events().find_map(|event| event.read::<InstanceRemoved>().copied())?;
    Some(AuditRow { instance: removed.instance, what: field_cut("perished"), ..*blank })
}

/// What came of things that were to be set on the host.
fn outcomes(machine: &Machine, blank: &AuditRow, body: &[u8], out: &mut Vec<AuditRow>) {
    let Ok(record) = Outcomes::ref_from_bytes(body) else { return };
    let rows = record.rows.iter().filter(|row| row.effect != 0);
    out.extend(rows.map(|row| outcome(machine, blank, row)));
    if record.replaced.get() > 0 {
        let what = field_cut("outcomes replaced");
        out.push(AuditRow { amount: record.replaced, what, ..*blank });
    }
}

fn outcome(machine: &Machine, blank: &AuditRow, m: &OutcomeRow) -> AuditRow {
    let number = m.number.get();
    // Accounts stand between instances and tiers, each in a tier; see `hvctl::host::account_key`.
    let (whose, account, instance, tier) = match (number.checked_sub(TIER_BIT), number >> 16) {
        (Some(tier), _) => ("tier ", ANY, ANY, Some(tier as u16)),
        (None, 0) => {
            let row = machine.instance(number);
            let account = row.map_or(ANY, |row| row.account.into());
            ("", account, number, row.map(|row| row.tier))
        }
        (None, above) => ("account ", number & 0xffff, ANY, Some((above - 1) as u16)),
    };
    let book = tier.map_or(ANY_BOOK, |tier| book_of(machine, tier, m.resource));
    let effect = match m.effect {
        APPLIED => "applied",
        PARTIAL => "partial",
        REFUSED => "refused",
        _ => "dry run",
    };
    let aim = Aim::from_u8(m.aim).map_or("unknown", Aim::text);
    AuditRow {
        amount: m.held,
        account: account.into(),
        instance: instance.into(),
        book: book.into(),
        code: m.reason,
        what: field_cut(&format!("{whose}{aim} {effect}")),
        ..*blank
    }
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

/// The book of a tier's resource, or [`ANY_BOOK`].
pub fn book_of(machine: &Machine, tier: u16, resource: u8) -> u16 {
    let of =
        |book: &crate::machine::tables::Book| (book.tier, book.resource as u8) == (tier, resource);
    machine.books().iter().position(of).map_or(ANY_BOOK, |at| at as u16)
}

fn account(machine: &Machine, instance: u32) -> U32 {
    machine.instance(instance).map_or(ANY, |row| row.account.into()).into()
}

fn row(machine: &Machine, blank: &AuditRow, event: &Event<'_>) -> Option<AuditRow> {
    let row = trade_row(machine, blank, event)
        .or_else(|| book_row(blank, event))
        .or_else(|| rent_row(blank, event));
    if let Some(row) = row.or_else(|| task_row(machine, blank, event)) {
        return Some(row);
    }
    if let Some(m) = event.read::<AccountCapped>() {
        let amount = u64::from(m.millicores.get()).into();
        return Some(AuditRow { amount, account: m.account, what: field_cut("cap"), ..*blank });
    }
    if let Some(m) = event.read::<InstanceFrozen>() {
        let account = account(machine, m.instance.get());
        let what = field_cut(if m.frozen.get() == 1 { "freeze" } else { "thaw" });
        return Some(AuditRow { account, instance: m.instance, what, ..*blank });
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

/// What became of a lease; of one that waits, why it has no more.
fn lease_row(machine: &Machine, blank: &AuditRow, m: &LeaseMoved) -> AuditRow {
    let what = match LeaseOutcome::from_u8(m.outcome) {
        // What it has not, not what it has.
        Some(why @ (LeaseOutcome::Unavailable | LeaseOutcome::PriceTooLow)) => {
            why.text().to_owned()
        }
        outcome => format!("lease {}", outcome.map_or("unknown", LeaseOutcome::text)),
    };
    AuditRow {
        amount: u64::from(m.granted_vru.get()).into(),
        funds_micro: m.paid_micro,
        account: account(machine, m.instance.get()),
        instance: m.instance,
        price_ticks: m.rent_ticks,
        book: m.book,
        what: field_cut(&what),
        ..*blank
    }
}

/// What a lender was paid.
fn rent_row(blank: &AuditRow, event: &Event<'_>) -> Option<AuditRow> {
    let m = event.read::<RentEarned>()?;
    Some(AuditRow {
        funds_micro: m.micro,
        account: u32::from(m.account.get()).into(),
        instance: m.instance,
        book: m.book,
        what: field_cut("rent earned"),
        ..*blank
    })
}

/// What a policy did, and why; what it has spent so far.
fn policy_row(machine: &Machine, blank: &AuditRow, m: &PolicyActed) -> AuditRow {
    let act = PolicyAct::text_of(m.act);
    let reason = PolicyReason::text_of(m.reason);
    AuditRow {
        amount: u64::from(m.amount.get()).into(),
        funds_micro: m.spent_micro,
        account: account(machine, m.instance.get()),
        instance: m.instance,
        price_ticks: m.price_ticks,
        code: m.code,
        what: field_cut(&format!("policy {act}: {reason}")),
        ..*blank
    }
}

/// An instance that takes part in an experiment, or does not any more.
fn exposed_row(machine: &Machine, blank: &AuditRow, m: &Exposed) -> AuditRow {
    let state = ["exposed", "left", "over"][usize::from(m.state).min(2)];
    let arm = ["A", "B"][usize::from(m.arm & 1)];
    AuditRow {
        amount: u64::from(m.experiment.get()).into(),
        account: account(machine, m.instance.get()),
        instance: m.instance,
        what: field_cut(&format!("experiment {} {arm}: {state}", m.experiment)),
        ..*blank
    }
}

/// An experiment that begins or ends.
fn experiment_row(blank: &AuditRow, m: &ExperimentMoved) -> AuditRow {
    let end = ExperimentEnd::text_of(m.end);
    AuditRow {
        amount: u64::from(m.experiment.get()).into(),
        what: field_cut(&format!("experiment {} {end}", m.experiment)),
        ..*blank
    }
}

/// An objective that was set: the VRUs that it may bid for at most, and its budget.
fn set_objective(
    machine: &Machine,
    blank: &AuditRow,
    body: &[u8],
    outbox: &Outbox,
) -> Option<AuditRow> {
    outbox.events().find(|event| event.kind == Done::KIND)?;
    let m = SetObjective::ref_from_bytes(body).ok().filter(|m| m.remove == 0)?;
    Some(AuditRow {
        amount: u64::from(m.most_vru.get()).into(),
        funds_micro: m.budget_micro,
        price_ticks: m.rent_ticks,
        account: account(machine, m.instance.get()),
        instance: m.instance,
        what: field_cut(&format!("{} objective", Kpi::from_u8(m.kpi).map_or("", Kpi::text))),
        ..*blank
    })
}

/// The value of a KPI.
fn kpi(machine: &Machine, blank: &AuditRow, (instance, kpi, value): (U32, Kpi, U32)) -> AuditRow {
    AuditRow {
        amount: u64::from(value.get()).into(),
        account: account(machine, instance.get()),
        instance,
        what: field_cut(kpi.text()),
        ..*blank
    }
}

/// What became of an objective: what it bids for, what it has cost in this window, and why not more.
fn objective_row(machine: &Machine, blank: &AuditRow, m: &ObjectiveMoved) -> AuditRow {
    let kpi = Kpi::text_of(m.kpi);
    let outcome = Rescue::from_u8(m.outcome);
    // An audit row's code is a reject's: why a lease ended its own row says.
    let code = if outcome == Some(Rescue::Refused) { m.code } else { 0 };
    let outcome = outcome.map_or("unknown", Rescue::text);
    AuditRow {
        amount: u64::from(m.wanted_vru.get()).into(),
        funds_micro: m.spent_micro,
        account: account(machine, m.instance.get()),
        instance: m.instance,
        code,
        what: field_cut(&format!("{kpi} {outcome}")),
        ..*blank
    }
}

/// A migration that was proposed or went a step further.
fn migration_row(machine: &Machine, blank: &AuditRow, m: &MigrationMoved) -> AuditRow {
    let step = match m.state {
        0 => "over",
        1 => "proposed",
        2 => "accepted",
        3 => "declined",
        4 => "expected",
        5 => "arrived",
        _ => "departing",
    };
    let instance = m.instance.get();
    let account = machine.present(instance).map_or(ANY, |row| row.account.into()).into();
    let credits = m.credit_millicredits.iter().map(|milli| milli.get()).sum::<u64>();
    AuditRow {
        amount: credits.into(),
        account,
        instance: m.instance,
        what: field_cut(&format!("migration {step}")),
        ..*blank
    }
}

/// What became of a token: its VRUs.
fn token_row(blank: &AuditRow, m: &TokenMoved) -> AuditRow {
    let outcome = TokenOutcome::text_of(m.outcome);
    AuditRow {
        amount: u64::from(m.vru.get()).into(),
        account: m.account,
        instance: m.instance,
        book: m.book,
        what: field_cut(&format!("token {} {outcome}", m.id)),
        ..*blank
    }
}

/// What became of a swap of tokens, why, and what who rejected it said: VRUs, what the source earned,
/// the accounts of source and destination.
fn swap_rows(blank: &AuditRow, event: &Event<'_>, out: &mut Vec<AuditRow>) {
    // Whoever else is told of it is told the same.
    let Some(m) = event.read::<SwapMoved>().filter(|_| event.target == ANY) else { return };
    let row = AuditRow {
        amount: u64::from(m.vru.get()).into(),
        funds_micro: m.paid_micro,
        account: m.source_account,
        other_account: m.destination_account,
        book: m.book,
        ..*blank
    };
    let state = format!("swap {} {}", m.id, SwapState::text_of(m.state));
    let reason = format!("why: {}", SwapReason::text_of(m.reason));
    let words = text(&m.words);
    // Two rows where one is too narrow.
    let (said, rest) = words.split_at(words.floor_char_boundary(size_of_val(&row.what)));
    for what in [&state, &reason, said, rest].into_iter().filter(|what| !what.is_empty()) {
        out.push(AuditRow { what: field_cut(what), ..row });
    }
}

/// A task that was admitted, with what it bid, or ended, with what it cost; or a migration's step.
fn task_row(machine: &Machine, blank: &AuditRow, event: &Event<'_>) -> Option<AuditRow> {
    if let Some(m) = event.read::<TaskAdmitted>() {
        return Some(AuditRow {
            amount: u64::from(m.vru.get()).into(),
            funds_micro: m.held_micro,
            account: account(machine, m.instance.get()),
            instance: m.instance,
            what: field_cut("task"),
            ..*blank
        });
    }
    if let Some(m) = event.read::<MigrationMoved>() {
        return Some(migration_row(machine, blank, m));
    }
    if let Some(m) = event.read::<TokenMoved>() {
        return Some(token_row(blank, m));
    }
    let m = event.read::<TaskEnded>()?;
    let why = TaskEnd::from_u8(m.reason).map_or("", TaskEnd::text);
    let what = field_cut(&format!("task {why}"));
    Some(AuditRow { funds_micro: m.paid_micro, what, ..*blank })
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
    let book = |tier: U16| book_of(machine, tier.get(), m.resource).into();
    let line = |what: &str, tier| AuditRow { book: book(tier), what: field_cut(what), ..*blank };
    [line("rate from", m.from), line(&at(m.rate), m.to)]
}

/// What became of a whole book.
fn book_row(blank: &AuditRow, event: &Event<'_>) -> Option<AuditRow> {
    if let Some(m) = event.read::<PhaseChanged>() {
        let phase = Phase::text_of(m.phase);
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
