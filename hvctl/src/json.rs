//! Rows as JSON objects: what `hvctl --json` prints and the daemon's HTTP API answers, in the same names
//! and forms. Counts and sizes are numbers with their unit in the name; what uses all of 64 bits (handles,
//! sessions, chain values) is text, since many languages read numbers no further than 2^53; what there is none
//! of is null.

pub mod experiment;
pub mod history;
pub mod swarm;

use crate::host::ALL_TIERS;
use crate::time::rfc3339;
use serde_json::{Value, json};
use vendue_wire::board::{BookView, Level};
use vendue_wire::code::*;
use vendue_wire::message::*;

/// A resource's name, or its number where this version knows none.
pub fn resource(number: u8) -> String {
    Resource::from_u8(number).map_or_else(|| number.to_string(), |resource| resource.to_string())
}

/// How the daemon is; `breached`: the instances that miss an objective.
pub fn status(row: &StatusRow, faults: &[FaultRow], breached: &[String]) -> Value {
    let fault = |row: &FaultRow| {
        json!({
            "since": rfc3339(row.since_ns.get()),
            "count": row.count.get(),
            "source": text(&row.source),
            "text": text(&row.text),
        })
    };
    json!({
        "accepting": row.accepting == 1,
        "sequenced": row.sequenced.get(),
        "durable": row.durable.get(),
        "executed": row.executed.get(),
        "snapshot": row.snapshot.get(),
        "trades": row.trades.get(),
        "limits_written": row.limits_written.get(),
        "limits_spared": row.limits_spared.get(),
        "limits_failed": row.limits_failed.get(),
        "limits_drifted": row.limits_drifted.get(),
        "fragmentation_percent": row.fragmentation_percent,
        "uptime_ms": row.uptime_ms.get(),
        "refused": row.refused.get(),
        "accounts": row.accounts.get(),
        "instances": row.instances.get(),
        "orders": row.orders.get(),
        "connections": row.connections.get(),
        "host": host_word(row.host),
        "journal_sync": sync_word(row.journal_sync),
        "in_breach": breached,
        "faults_standing": row.faults.get(),
        "faults": faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

/// The host's kind as one word.
fn host_word(host: u8) -> &'static str {
    match host {
        0 => "cgroup-v2",
        1 => "dry-run",
        _ => "unknown",
    }
}

fn sync_word(sync: u8) -> &'static str {
    match sync {
        0 => "never",
        1 => "always",
        _ => "unknown",
    }
}

/// An account.
pub fn account(row: &AccountRow) -> Value {
    json!({
        "account": row.account.get(),
        "name": text(&row.name),
        "free_micro": row.free_micro.get(),
        "held_micro": row.held_micro.get(),
        "group": row.group,
        "sells_to": format!("{:#x}", row.sells_to.get()),
        "buys_from": format!("{:#x}", row.buys_from.get()),
        "opted_in": row.opted_in == 1,
        "instances": row.instances.get(),
        "cap_millicores": row.cap_millicores.get(),
    })
}

/// The limits of an account that has none.
pub fn unlimited() -> AccountLimitsRow {
    AccountLimitsRow {
        sell_max_credits: UNLIMITED.into(),
        buy_max_credits: UNLIMITED.into(),
        order_max_micro: UNLIMITED.into(),
        position_max_credits: UNLIMITED.into(),
        ..AccountLimitsRow::zeroed()
    }
}

/// Whom an account may trade with and how much, and how far it is.
pub fn account_limits(row: &AccountRow, limits: &AccountLimitsRow) -> Value {
    let ends_ns = limits.window_ends_ns.get();
    let set = ends_ns != 0;
    let counted = |value: U64| if set { json!(value.get()) } else { Value::Null };
    let most = |value: U64| Some(value.get()).filter(|&most| most != UNLIMITED);
    json!({
        "account": row.account.get(),
        "name": text(&row.name),
        "group": row.group,
        "sells_to": format!("{:#x}", row.sells_to.get()),
        "buys_from": format!("{:#x}", row.buys_from.get()),
        "opted_in": row.opted_in == 1,
        "sell_max_credits": most(limits.sell_max_credits),
        "buy_max_credits": most(limits.buy_max_credits),
        "order_max_micro": most(limits.order_max_micro),
        "position_max_credits": most(limits.position_max_credits),
        "sold_credits": counted(limits.sold_credits),
        "bought_credits": counted(limits.bought_credits),
        "offered_credits": counted(limits.offered_credits),
        "wanted_credits": counted(limits.wanted_credits),
        "window_ends": set.then(|| rfc3339(ends_ns)),
    })
}

/// An instance, with the resources that its tier has: `tiers` are all of them.
pub fn instance(row: &InstanceRow, tiers: &[TierRow]) -> Value {
    let has = |r: &usize| {
        tiers.iter().any(|tier| tier.tier == row.tier && usize::from(tier.resource) == *r)
    };
    let one = |r: usize| {
        json!({
            "resource": resource(r as u8),
            "baseline_vru": row.baseline_vru[r].get(),
            "entitled_vru": row.entitled_vru[r].get(),
            "bursting": row.bursting >> r & 1 == 1,
            "free_millicredits": row.free_millicredits[r].get(),
            "held_millicredits": row.held_millicredits[r].get(),
        })
    };
    json!({
        "instance": row.instance.get(),
        "name": text(&row.name),
        "account": row.account.get(),
        "tier": row.tier.get(),
        "orders": row.orders.get(),
        "frozen": row.frozen == 1,
        "place": text(&row.place),
        "resources": (0..row.baseline_vru.len()).filter(has).map(one).collect::<Vec<_>>(),
    })
}

/// A resource of a tier.
pub fn tier(row: &TierRow) -> Value {
    json!({
        "tier": row.tier.get(),
        "name": text(&row.name),
        "state": tier_state(row.state),
        "resource": resource(row.resource),
        "book": row.book.get(),
        "vru_size": row.vru_size.get(),
        "capacity_vru": row.capacity_vru.get(),
        "reserved_vru": row.reserved_vru.get(),
        "pool_millicredits": row.pool_millicredits.get(),
        "burst_percent": row.burst_percent.get(),
    })
}

/// An exchange of capacity between tiers.
pub fn exchange(row: &ExchangeRow) -> Value {
    json!({
        "exchange": row.number.get(),
        "from": row.from.get(),
        "to": row.to.get(),
        "resource": resource(row.resource),
        "rate": rate(row.rate),
        "low": rate(row.low),
        "high": rate(row.high),
        "fixed": row.fixed == 1,
        "every_ms": row.every_ms.get(),
        "idle_percent": row.idle_percent.get(),
        "saturated_percent": row.saturated_percent.get(),
        "looks": row.looks.get(),
        "found": row.found.get(),
        "step_vru": row.step_vru.get(),
        "rate_step_percent": row.rate_step_percent.get(),
    })
}

/// A tier's state as a word.
pub fn tier_state(state: u8) -> &'static str {
    ["live", "draining", "spare"].get(usize::from(state)).copied().unwrap_or("unknown")
}

/// A rate as it is written, in its lowest terms.
pub fn rate(rate: [U32; 2]) -> String {
    let [num, den] = rate.map(U32::get);
    let (mut a, mut b) = (num, den);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let divisor = a.max(1);
    format!("{}/{}", num / divisor, den / divisor)
}

/// A book as `view` has it, with its `depth` if that is asked for.
pub fn book(row: &BookRow, view: &BookView, depth: bool) -> Value {
    let levels = |levels: &[Level]| -> Vec<Value> {
        used(levels)
            .map(|level| {
                json!({ "price_ticks": level.price_ticks, "quantity_credits": level.quantity })
            })
            .collect()
    };
    let mut object = json!({
        "book": row.book.get(),
        "tier": text(&row.tier_name),
        "resource": resource(row.resource),
        "tick_micro": row.tick_micro.get(),
        "price_ticks_max": row.price_ticks_max.get(),
        "bid_ticks": view.bids[0].price_ticks,
        "ask_ticks": view.asks[0].price_ticks,
        "last_ticks": view.last_ticks,
        "trades": view.trades,
        "volume_credits": view.volume,
        "phase": phase_name(view.phase),
        "indicative_ticks": view.indicative_ticks,
        "indicative_volume_credits": view.indicative_volume,
        "indicative_imbalance_credits": view.indicative_imbalance,
        "auction_every_ms": row.auction_every_ms.get(),
        "call_ms": row.call_ms.get(),
    });
    if depth {
        object["bids"] = levels(&view.bids).into();
        object["asks"] = levels(&view.asks).into();
    }
    object
}

/// What a book's rows say of it, as the board would.
pub fn view(row: &BookRow, depth: &DepthRow) -> BookView {
    let side = |ticks: [U32; DEPTH_LEVELS], quantity: [U64; DEPTH_LEVELS]| {
        std::array::from_fn(|at| Level {
            price_ticks: ticks[at].get(),
            quantity: quantity[at].get(),
        })
    };
    BookView {
        last_ticks: row.last_ticks.get(),
        trades: row.trades.get(),
        volume: row.volume.get(),
        phase: row.phase,
        indicative_ticks: row.indicative_ticks.get(),
        indicative_volume: row.indicative_volume.get(),
        indicative_imbalance: row.indicative_imbalance.get() as i64,
        bids: side(depth.bid_ticks, depth.bid_quantity),
        asks: side(depth.ask_ticks, depth.ask_quantity),
        ..BookView::default()
    }
}

/// The levels that hold something.
pub fn used(levels: &[Level]) -> impl Iterator<Item = &Level> {
    levels.iter().filter(|level| level.price_ticks != 0)
}

/// A phase of a book as a word.
pub fn phase_name(phase: u8) -> &'static str {
    Phase::text_of(phase)
}

/// An open order.
pub fn order(row: &OrderRow) -> Value {
    json!({
        "handle": row.handle.get().to_string(),
        "client_id": row.client_id.get(),
        "instance": row.instance.get(),
        "book": row.book.get(),
        "side": side(row.side),
        "price_ticks": row.price_ticks.get(),
        "quantity_credits": row.quantity.get(),
    })
}

/// An order that was accepted.
pub fn accepted(accepted: &Accepted) -> Value {
    json!({
        "event": "accepted",
        "handle": accepted.handle.get().to_string(),
        "time": rfc3339(accepted.time_ns.get()),
        "instance": accepted.instance.get(),
        "book": accepted.book.get(),
        "side": side(accepted.side),
        "price_ticks": accepted.price_ticks.get(),
        "quantity_credits": accepted.quantity.get(),
    })
}

/// What an order traded.
pub fn filled(filled: &Filled) -> Value {
    json!({
        "event": "filled",
        "handle": filled.handle.get().to_string(),
        "time": rfc3339(filled.time_ns.get()),
        "trade": filled.trade.get(),
        "price_ticks": filled.price_ticks.get(),
        "quantity_credits": filled.quantity.get(),
        "remaining_credits": filled.remaining.get(),
        "counterparty_account": filled.counterparty.get(),
        "fee_micro": filled.fee_micro.get(),
        "maker": filled.maker != 0,
    })
}

/// An order that is gone.
pub fn cancelled(cancelled: &Cancelled) -> Value {
    json!({
        "event": "cancelled",
        "handle": cancelled.handle.get().to_string(),
        "time": rfc3339(cancelled.time_ns.get()),
        "quantity_credits": cancelled.quantity.get(),
        "reason": CancelReason::from_u8(cancelled.reason)
            .map_or("unknown reason", CancelReason::text),
    })
}

/// A side as a word.
pub fn side(side: u8) -> &'static str {
    Side::from_u8(side).map_or("?", Side::text)
}

/// A trade; its instances only for who may see them.
pub fn trade(row: &TradeRow) -> Value {
    json!({
        "trade": row.trade.get(),
        "sequence": row.sequence.get(),
        "time": rfc3339(row.time_ns.get()),
        "book": row.book.get(),
        "seller": party(row.seller),
        "buyer": party(row.buyer),
        "quantity_credits": row.quantity.get(),
        "price_ticks": row.price_ticks.get(),
        "taker_side": Side::from_u8(row.taker_side).map_or("auction", Side::text),
        "reversed": row.reversed == 1,
    })
}

/// An instance, unless who asks may not see whose trade it was.
fn party(instance: U32) -> Option<u32> {
    Some(instance.get()).filter(|&instance| instance != ANY)
}

/// Prices and volumes of a book.
pub fn market(row: &MarketRow) -> Value {
    json!({
        "book": row.book.get(),
        "last_ticks": row.last_ticks.get(),
        "last_quantity_credits": row.last_quantity.get(),
        "last_time": rfc3339(row.last_time_ns.get()),
        "bid_ticks": row.bid_ticks.get(),
        "ask_ticks": row.ask_ticks.get(),
        "bid_credits": row.bid_quantity.get(),
        "ask_credits": row.ask_quantity.get(),
        "average_bid_milliticks": row.average_bid_milliticks.get(),
        "average_ask_milliticks": row.average_ask_milliticks.get(),
        "trades": row.trades.get(),
        "volume_credits": row.volume.get(),
        "vwap_milliticks": row.vwap_milliticks.get(),
        "day_trades": row.day_trades.get(),
        "day_volume_credits": row.day_volume.get(),
        "day_vwap_milliticks": row.day_vwap_milliticks.get(),
    })
}

/// A bar of a book.
pub fn bar(book: u16, row: &BarRow) -> Value {
    json!({
        "book": book,
        "start": rfc3339(row.start_ns.get()),
        "width_s": row.width_s.get(),
        "open_ticks": row.open_ticks.get(),
        "high_ticks": row.high_ticks.get(),
        "low_ticks": row.low_ticks.get(),
        "close_ticks": row.close_ticks.get(),
        "vwap_milliticks": row.vwap_milliticks.get(),
        "volume_credits": row.volume.get(),
        "trades": row.trades.get(),
    })
}

/// A line of the ledger; what `asset` is called, and whether that is money.
pub fn ledger(asset: &str, of_funds: bool, row: &LedgerRow) -> Value {
    let unit = if of_funds { "balance_micro" } else { "balance_millicredits" };
    json!({
        "asset": asset,
        "line": text(&row.line),
        unit: row.balance.get() as i64,
    })
}

/// A limit on the host.
pub fn limit(row: &LimitRow) -> Value {
    let (instance, account, tier) = limited(row);
    json!({
        "instance": instance,
        "account": account,
        "tier": tier,
        "resource": resource(row.resource),
        "wanted_vru": row.wanted_vru.get(),
        "file": text(&row.file),
        "wanted": text(&row.wanted),
        "written": text(&row.written),
        "read_back": text(&row.read_back),
        "state": limit_state(row.state),
        "reason": Lag::from_u8(row.reason).map(Lag::text),
        "writes": row.writes.get(),
        "written_at": rfc3339(row.written_at_ns.get()),
    })
}

/// The instance, account and tier that a limit is about; none of them: what is above the tiers.
pub fn limited(row: &LimitRow) -> (Option<u32>, Option<u32>, Option<u16>) {
    let number = row.instance.get();
    match number.checked_sub(TIER_BIT) {
        Some(_) if number >= ALL_TIERS => (None, None, None),
        Some(tier) => (None, None, Some(tier as u16)),
        None if row.of_account == 1 => (None, Some(number & 0xffff), Some((number >> 16) as u16)),
        None => (Some(number), None, None),
    }
}

/// A limit's state as one word, or as two.
pub fn limit_state(state: u8) -> &'static str {
    ["pending", "in force", "refused", "drifted", "gone", "dry run"]
        .get(usize::from(state))
        .copied()
        .unwrap_or("unknown")
}

/// How an instance fares.
pub fn sensors(row: &SensorRow) -> Value {
    json!({
        "instance": row.instance.get(),
        "sampled_at": rfc3339(row.time_ns.get()),
        "interval_us": row.interval_us.get(),
        "cpu_millicores": narrow(row.cpu_millicores),
        "cpu_wait_permille": narrow(row.cpu_wait_permille),
        "throttled_permille": narrow(row.throttled_permille),
        "memory_bytes": wide(row.memory_bytes),
        "memory_some_permille": narrow(row.memory_some_permille),
        "memory_full_permille": narrow(row.memory_full_permille),
        "refaults_per_s": narrow(row.refaults_per_s),
        "read_bytes_per_s": wide(row.read_bytes_per_s),
        "write_bytes_per_s": wide(row.write_bytes_per_s),
        "reads_per_s": narrow(row.reads_per_s),
        "writes_per_s": narrow(row.writes_per_s),
        "io_some_permille": narrow(row.io_some_permille),
        "io_full_permille": narrow(row.io_full_permille),
        "io_wait_us": narrow(row.io_wait_us),
        "device_permille": narrow(row.device_permille),
        "network_bytes_per_s": wide(row.network_bytes_per_s),
        "network_sent_bytes_per_s": wide(row.network_sent_bytes_per_s),
        "network_delay_us": narrow(row.network_delay_us),
        "network_backlog_bytes": wide(row.network_backlog_bytes),
        "network_drops": wide(row.network_drops),
        "vcpus": narrow(row.vcpus),
        "exits_per_s": narrow(row.exits_per_s),
        "halt_permille": narrow(row.halt_permille),
    })
}

/// A measured value; `None` where it is not measured.
pub fn wide(field: U64) -> Option<u64> {
    Some(field.get()).filter(|&value| value != UNKNOWN)
}

/// A measured value; `None` where it is not measured.
pub fn narrow(field: U32) -> Option<u32> {
    Some(field.get()).filter(|&value| value != u32::MAX)
}

/// A lease.
pub fn lease(row: &LeaseRow) -> Value {
    json!({
        "handle": row.handle.get().to_string(),
        "instance": row.instance.get(),
        "book": row.book.get(),
        "class": LeaseClass::text_of(row.class),
        "wanted_vru": row.wanted_vru.get(),
        "granted_vru": row.granted_vru.get(),
        "rent_ticks": row.rent_ticks.get(),
        "all_or_none": row.all_or_none == 1,
        "held_until_ms": row.held_until_ms.get(),
        "expires_at_ms": row.expires_at_ms.get(),
        "paid_micro": row.paid_micro.get(),
        "held_micro": row.held_micro.get(),
    })
}

/// What a class of leases costs in a book.
pub fn rent(row: &RentRow, class: LeaseClass) -> Value {
    json!({
        "book": row.book.get(),
        "supply_vru": row.supply_vru.get(),
        "granted_vru": row.granted_vru.get(),
        "lent_vru": row.lent_vru.get(),
        "class": class.text(),
        "rent_ticks": row.rent_ticks[class as usize].get(),
        "reserve_ticks": row.reserve_ticks[class as usize].get(),
        "leases": row.leases[class as usize].get(),
    })
}

/// What an instance is to reach.
pub fn objective(row: &ObjectiveRow) -> Value {
    let told = row.told_at_ms.get() > 0;
    let lease = Some(row.lease.get()).filter(|&lease| lease != u64::MAX);
    json!({
        "instance": row.instance.get(),
        "kpi": Kpi::text_of(row.kpi),
        "value": Some(row.value.get()).filter(|_| told),
        "told_at": Some(row.told_at_ms.get().saturating_mul(1_000_000)).filter(|_| told).map(rfc3339),
        "standing": standing(row),
        "breach_at": row.breach_at.get(),
        "recover_at": row.recover_at.get(),
        "below": row.below == 1,
        "breach_ms": row.breach_ms.get(),
        "recover_ms": row.recover_ms.get(),
        "resource": resource(row.resource),
        "class": LeaseClass::text_of(row.class),
        "step_vru": row.step_vru.get(),
        "most_vru": row.most_vru.get(),
        "rent_ticks": row.rent_ticks.get(),
        "lease": lease.map(|lease| lease.to_string()),
        "wanted_vru": row.wanted_vru.get(),
        "granted_vru": row.granted_vru.get(),
        "budget_micro": row.budget_micro.get(),
        "spent_micro": row.spent_micro.get(),
        "paid_micro": row.paid_micro.get(),
        "window_s": row.window_s.get(),
        "window_ends": rfc3339(row.window_ends_ms.get().saturating_mul(1_000_000)),
    })
}

/// True while an instance does not reach what it is to reach.
pub fn is_breached(row: &ObjectiveRow) -> bool {
    row.told_at_ms.get() > 0 && row.breached_since_ms.get() > 0
}

/// How an objective stands.
pub fn standing(row: &ObjectiveRow) -> &'static str {
    match (row.told_at_ms.get(), row.recovered_since_ms.get()) {
        (0, _) => "silent",
        _ if is_breached(row) => "in breach",
        (_, 1..) => "met",
        _ => "between",
    }
}

/// A standing policy.
pub fn policy(row: &PolicyRow) -> Value {
    let lease = Some(row.handle.get()).filter(|&lease| lease != 0);
    json!({
        "instance": row.instance.get(),
        "resource": Resource::text_of(row.resource),
        "class": LeaseClass::text_of(row.class),
        "cover": Cover::text_of(row.cover),
        "need_vru": row.need_vru.get(),
        "wanted_vru": row.wanted_vru.get(),
        "granted_vru": row.granted_vru.get(),
        "handle": lease.map(|lease| lease.to_string()),
        "bought_credits": row.bought_credits.get(),
        "budget_micro": row.budget_micro.get(),
        "burst_micro": row.burst_micro.get(),
        "hour_micro": row.hour_micro.get(),
        "left_micro": row.left_micro.get(),
        "spent_micro": row.spent_micro.get(),
        "rent_ticks": row.rent_ticks.get(),
        "price_ticks": row.price_ticks.get(),
        "lead_ms": row.lead_ms.get(),
        "hold_ms": row.hold_ms.get(),
        "step_vru": row.step_vru.get(),
        "acted_at_ms": row.acted_at_ms.get(),
        "act": PolicyAct::text_of(row.act),
        "reason": PolicyReason::text_of(row.reason),
        "refused": Reject::from_u8(row.code).map(Reject::text),
    })
}

/// A forecast.
pub fn forecast(row: &ForecastRow) -> Value {
    json!({
        "instance": row.instance.get(),
        "resource": Resource::text_of(row.resource),
        "source": Source::text_of(row.source),
        "horizon": Horizon::text_of(row.horizon),
        "starts_at_ms": row.starts_at_ms.get(),
        "ends_at_ms": row.ends_at_ms.get(),
        "p50_vru": row.p50_vru.get(),
        "p90_vru": row.p90_vru.get(),
        "p975_vru": row.p975_vru.get(),
        "has_vru": row.has_vru.get(),
        "short_permille": row.short_permille.get(),
        "impact_milli": row.impact_milli.get(),
        "risk": row.risk.get(),
    })
}

/// A planned event.
pub fn event(row: &EventRow) -> Value {
    json!({
        "instance": row.instance.get(),
        "resource": Resource::text_of(row.resource),
        "name": text(&row.name),
        "starts_at_ms": row.starts_at_ms.get(),
        "until_ms": row.until_ms.get(),
        "next_at_ms": row.next_at_ms.get(),
        "lasts_ms": row.lasts_ms.get(),
        "percent": row.percent.get(),
        "add_vru": row.add_vru.get(),
        "every_days": row.every_days.get(),
    })
}

/// A token, sealed if whoever asks may have it.
pub fn token(row: &TokenRow) -> Value {
    let instance = Some(row.instance.get()).filter(|&number| number != ANY);
    json!({
        "id": row.id.get(),
        "account": row.account.get(),
        "instance": instance,
        "tier": row.tier.get(),
        "resource": Resource::text_of(row.resource),
        "vru": row.vru.get(),
        "from_ms": row.from_ms.get(),
        "until_ms": row.until_ms.get(),
        "generation": row.generation.get(),
        "redeemed": row.redeemed == 1,
        "priority": row.priority,
        "swap_eligible": row.swap_eligible == 1,
        "sticky": row.sticky == 1,
        "profile": Kpi::from_u8(row.profile).map(Kpi::text),
        "profile_limit": row.profile_limit.get(),
        "key": row.key.get(),
        "token": (row.sealed == 1).then(|| hex(row.token())),
    })
}

/// A sealed token out of its hexadecimal digits.
pub fn from_hex(text: &str) -> Option<[u8; TOKEN_BYTES]> {
    let digits = text.as_bytes();
    let mut bytes = [0; TOKEN_BYTES];
    if digits.len() != 2 * TOKEN_BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A transaction of the audit trail.
pub fn audit(row: &AuditRow) -> Value {
    let mut object = json!({
        "sequence": row.sequence.get(),
        "time": rfc3339(row.time_ns.get()),
        "what": text(&row.what),
        "session": row.session.get().to_string(),
        "role": asked_as(row),
        "peer": Some(text(&row.peer)).filter(|peer| !peer.is_empty()),
        "account": number(row.account),
        "instance": number(row.instance),
        "other_account": number(row.other_account),
        "other_instance": number(row.other_instance),
        "book": Some(row.book.get()).filter(|&book| book != ANY_BOOK),
        "price_ticks": row.price_ticks.get(),
        "funds_micro": row.funds_micro.get(),
        "code": row.code,
        "refused": why_refused(row),
        "chain": format!("{:016x}", row.chain.get()),
    });
    if let Some(key) = amount_key(text(&row.what)) {
        let unbounded = key == "held" && row.amount.get() == u64::MAX;
        object[key] = if unbounded { Value::Null } else { row.amount.get().into() };
    }
    object
}

/// What `amount` counts; `None` if the transaction has none.
pub fn amount_key(what: &str) -> Option<&'static str> {
    match what {
        "usage" | "grant" | "pool out" | "pool in" => Some("amount_millicredits"),
        "tier out" | "tier in" | "tier rest" => Some("amount_vru"),
        "trade" | "order buy" | "order sell" | "cancelled" | "replaced" | "auction" => {
            Some("amount_credits")
        }
        "account" | "instance" | "remove" => Some("number"),
        "tier define" | "tier change" | "tier drain" | "tier resume" | "tier delete" => {
            Some("number")
        }
        "mass cancel" | "set limits" | "cancel account" => Some("count"),
        what if what.starts_with("reversed ") => Some("amount_credits"),
        "cap" => Some("millicores"),
        "outcomes replaced" => Some("count"),
        what if is_outcome(what) => Some("held"),
        what => of_objective(what),
    }
}

/// The same of what concerns an objective: a KPI's value, or the VRUs that are bid for.
fn of_objective(what: &str) -> Option<&'static str> {
    match Kpi::ALL.iter().find_map(|kpi| what.strip_prefix(kpi.text())) {
        Some("") => Some("value"),
        Some(rest) if rest.starts_with(' ') => Some("wanted_vru"),
        _ => None,
    }
}

/// True of what came of something that was to be set on the host.
fn is_outcome(what: &str) -> bool {
    let ends = ["applied", "partial", "refused", "dry run"];
    ends.iter().any(|end| what.ends_with(&format!(" {end}")))
}

/// The number of an account or an instance, if there is one.
pub fn number(number: U32) -> Option<u32> {
    Some(number.get()).filter(|&number| number != ANY)
}

/// The role of who asked, unless that is the daemon itself.
pub fn asked_as(row: &AuditRow) -> Option<&'static str> {
    Role::from_u8(row.role).map(Role::text)
}

/// Why it was refused, or of an outcome, is not as it should be.
pub fn why_refused(row: &AuditRow) -> &'static str {
    if is_outcome(text(&row.what)) {
        return Lag::from_u8(row.code).map_or("", Lag::text);
    }
    Reject::from_u8(row.code).map_or("", Reject::text)
}

/// A swap of tokens.
pub fn swap(row: &SwapRow) -> Value {
    let instance = |number: U32| Some(number.get()).filter(|&number| number != ANY);
    json!({
        "id": row.id.get(),
        "state": SwapState::text_of(row.state),
        "reason": SwapReason::text_of(row.reason),
        "words": text(&row.words),
        "source": row.source.get(),
        "destination": row.destination.get(),
        "source_account": row.source_account.get(),
        "destination_account": row.destination_account.get(),
        "source_instance": instance(row.source_instance),
        "destination_instance": instance(row.destination_instance),
        "source_generation": row.source_generation.get(),
        "destination_generation": row.destination_generation.get(),
        "book": row.book.get(),
        "vru": row.vru.get(),
        "lasts_ms": row.lasts_ms.get(),
        "boost_vru": row.boost_vru.get(),
        "boost_ms": row.boost_ms.get(),
        "asked_ms": row.asked_ms.get(),
        "deadline_ms": row.deadline_ms.get(),
        "ends_ms": row.ends_ms.get(),
        "incentive_micro": row.incentive_micro.get(),
        "paid_micro": row.paid_micro.get(),
        "degradation_percent": row.degradation_percent.get(),
        "breaches": row.breaches,
        "by_manager": row.by_manager == 1,
    })
}

/// What an account thinks of swaps.
pub fn swap_policy(row: &SwapPolicyRow) -> Value {
    json!({
        "account": row.account.get(),
        "answer": SwapAnswer::text_of(row.answer),
        "least_micro": row.least_micro.get(),
        "seek": row.seek == 1,
        "pay_micro": row.pay_micro.get(),
        "downtime_ms": Some(row.downtime_ms.get()).filter(|&ms| ms != u32::MAX),
        "degradation_percent": row.degradation_percent.get(),
    })
}
