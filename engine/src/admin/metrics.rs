//! `/metrics` for Prometheus: how the daemon is, and the market as everybody with an identity that sees
//! the whole host may see it. A scrape is one caller like another, with a token or a certificate of its
//! own; an observer's is enough.

use super::doors::Shown;
use super::problem::Problem;
use super::serve::{App, caller};
use crate::health::Health;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vendue_wire::client::Client;
use vendue_wire::message::*;

/// A dashboard of these metrics for Grafana.
pub const GRAFANA: &str = include_str!("grafana.json");

/// Micro-units of funds in a unit, and milli-credits in a credit.
const MICRO: f64 = 1e6;
const MILLI: f64 = 1e3;

/// Requests that were answered, by the first digit of the status.
#[derive(Default)]
pub struct Counts([AtomicU64; 4]);

/// The first digits that are counted.
const CLASSES: [(usize, &str); 3] = [(0, "2xx"), (2, "4xx"), (3, "5xx")];

impl Counts {
    /// A request was answered so.
    pub fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2).min(self.0.len() - 1);
        self.0[class].fetch_add(1, Ordering::Relaxed);
    }
}

/// Names and values of what tells one series of a metric from the others.
type Labels = Vec<(&'static str, String)>;
type Real = Gauge<f64, AtomicU64>;

/// What a scrape tells of the books, beside the daemon's own numbers.
#[derive(Default)]
struct Market {
    tiers: Vec<TierRow>,
    market: Vec<MarketRow>,
    rents: Vec<RentRow>,
    accounts: Vec<AccountRow>,
    faults: u64,
}

/// The metrics.
pub async fn serve(State(app): State<Arc<App>>, request: Request) -> Response {
    let shown = caller(&request);
    let scraped = scrape(&app, shown).await;
    let response = match scraped {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(problem) => problem.into_response(),
    };
    app.counts.answered(response.status());
    response
}

async fn scrape(app: &Arc<App>, shown: Result<Shown, Problem>) -> Result<String, Problem> {
    let (told, market) = std::sync::mpsc::sync_channel(1);
    let job = move |client: &mut Client| -> Result<Value, Problem> {
        let _ = told.send(Market::read(client)?);
        Ok(Value::Null)
    };
    app.doors.run(shown?, false, Box::new(job)).await?;
    let market = market.try_iter().next().unwrap_or_default();
    let mut registry = Registry::with_prefix("vendue");
    daemon(&app.health, market.faults, &mut registry);
    books(&market, &mut registry);
    requests(&app.counts, &mut registry);
    let mut text = String::new();
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written");
    encode(&mut text, &registry).map_err(failed)?;
    Ok(text)
}

impl Market {
    fn read(client: &mut Client) -> Result<Market, Problem> {
        let small = |from: u64| U32::new(u32::try_from(from).unwrap_or(u32::MAX));
        let mut faults = 0;
        client.ask_each(&QueryStatus {}, |received| {
            faults += u64::from(received.message::<FaultRow>().is_some());
        })?;
        Ok(Market {
            tiers: client.ask(&QueryTiers {})?,
            market: client.ask_all(|from| QueryMarket { from: small(from) })?,
            rents: client.ask_all(|from| QueryRents { from: small(from) })?,
            accounts: client.ask_all(|from| QueryAccounts { from: small(from) })?,
            faults,
        })
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Real::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

/// What the daemon knows of itself.
fn daemon(health: &Health, faults: u64, registry: &mut Registry) {
    let row = health.status_row();
    let flag = |set: bool| f64::from(u8::from(set));
    let up = Real::default();
    up.set(row.uptime_ms.get() as f64 / 1e3);
    registry.register_with_unit("uptime", "Since the daemon began to recover", Unit::Seconds, up);
    let ready = health.accepting() && !health.stopping();
    gauge(registry, "ready", "1 while requests that change state are taken", flag(ready));
    gauge(registry, "dry_run", "1 where no limit reaches the kernel", flag(row.host == 1));
    gauge(registry, "faults", "Faults that stand", faults as f64);
    let help = "Of what is left to place instances on, the part that lies in pieces";
    let ratio = f64::from(row.fragmentation_percent) / 100.0;
    gauge(registry, "fragmentation_ratio", help, ratio);
    for (name, help, value) in [
        ("accounts", "Tenants", row.accounts),
        ("instances", "VMs and containers", row.instances),
        ("orders", "Open orders", row.orders),
        ("connections", "Connections with the gateway", row.connections),
    ] {
        gauge(registry, name, help, value.get().into());
    }
    for (name, help, value) in [
        ("journal_sequenced_records", "Records that were given a number", row.sequenced),
        ("journal_durable_records", "Of them on stable storage", row.durable),
        ("executed_records", "Of them executed", row.executed),
        ("trades", "Trades", row.trades),
        ("requests_refused", "Requests refused at the gateway", row.refused),
        ("limits_written", "Limits written to the host", row.limits_written),
        ("limits_spared", "Limits that were in force already", row.limits_spared),
        ("limits_failed", "Limits that the host refused", row.limits_failed),
        ("limits_drifted", "Limits that somebody else had changed", row.limits_drifted),
    ] {
        counter(registry, name, help, value.get());
    }
}

/// A metric with a series for each book.
fn by_book<'a>(
    registry: &mut Registry,
    (name, help): (&str, &str),
    values: impl Iterator<Item = (Labels, f64)> + 'a,
) {
    let family = Family::<Labels, Real>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(value);
    }
    registry.register(name, help, family);
}

/// Prices, rents, capacity and what is free to be traded; money.
fn books(found: &Market, registry: &mut Registry) {
    let labels = |row: &TierRow| {
        let resource = hvctl::json::resource(row.resource);
        vec![("tier", text(&row.name).to_owned()), ("resource", resource)]
    };
    let of_tier =
        |value: fn(&TierRow) -> f64| found.tiers.iter().map(move |row| (labels(row), value(row)));
    let capacity = ("capacity_vrus", "What a tier has, VRUs");
    by_book(registry, capacity, of_tier(|row| row.capacity_vru.get() as f64));
    let reserved = ("reserved_vrus", "What instances reserved, VRUs");
    by_book(registry, reserved, of_tier(|row| row.reserved_vru.get() as f64));
    let pool = ("pool_credits", "Credits of a tier's pool");
    by_book(registry, pool, of_tier(|row| row.pool_millicredits.get() as f64 / MILLI));
    let of_book = |book: U16| found.tiers.iter().find(|tier| tier.book == book).map(labels);
    let of_market = |value: fn(&MarketRow) -> f64| {
        found.market.iter().filter_map(move |row| Some((of_book(row.book)?, value(row))))
    };
    for (name, help, value) in [
        (
            "bid_ticks",
            "The best bid, ticks; 0: none",
            (|row| row.bid_ticks.get().into()) as fn(&MarketRow) -> f64,
        ),
        ("ask_ticks", "The best offer, ticks; 0: none", |row| row.ask_ticks.get().into()),
        ("last_ticks", "Price of the last trade, ticks; 0: none", |row| {
            row.last_ticks.get().into()
        }),
        ("bid_credits", "Credits that are wanted", |row| row.bid_quantity.get() as f64),
        ("ask_credits", "Credits that are offered", |row| row.ask_quantity.get() as f64),
    ] {
        by_book(registry, (name, help), of_market(value));
    }
    let traded = Family::<Labels, Counter>::default();
    for (labels, row) in found.market.iter().filter_map(|row| Some((of_book(row.book)?, row))) {
        traded.get_or_create(&labels).inc_by(row.volume.get());
    }
    registry.register("traded_credits", "Credits that changed hands", traded);
    let of_rent = |value: fn(&RentRow) -> f64| {
        found.rents.iter().filter_map(move |row| Some((of_book(row.book)?, value(row))))
    };
    let leased = ("leased_vrus", "VRUs rented above baselines");
    by_book(registry, leased, of_rent(|row| row.granted_vru.get() as f64));
    let lent = ("lent_vrus", "VRUs that instances lend of their baselines");
    by_book(registry, lent, of_rent(|row| row.lent_vru.get() as f64));
    let funds = |value: fn(&AccountRow) -> u64| {
        found.accounts.iter().map(value).map(|micro| micro as f64).sum::<f64>() / MICRO
    };
    gauge(
        registry,
        "free_funds",
        "Funds of all accounts that are free",
        funds(|row| row.free_micro.get()),
    );
    gauge(
        registry,
        "held_funds",
        "Funds of all accounts that are held",
        funds(|row| row.held_micro.get()),
    );
}

/// What this server answered.
fn requests(counts: &Counts, registry: &mut Registry) {
    let family = Family::<Labels, Counter>::default();
    for (at, class) in CLASSES {
        let count = counts.0[at].load(Ordering::Relaxed);
        family.get_or_create(&vec![("status", class.to_owned())]).inc_by(count);
    }
    registry.register("http_requests", "Requests answered over HTTP", family);
}
