//! Endpoints that ask: the rows of the protocol's queries, in the names and forms of `hvctl --json`.

use super::problem::Problem;
use super::route::{Route, get, list_of, one_of, samples};
use hvctl::json as show;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use vendue_wire::board::{BookView, Level};
use vendue_wire::client::Client;
use vendue_wire::code::LeaseClass;
use vendue_wire::message::*;

/// Trades that are shown where nobody says how many.
const TRADES: u32 = 100;
/// Records of the journal that one look at the audit trail reads where nobody says how many, and at
/// most.
const RECORDS: u32 = 10_000;
const RECORDS_MAX: u32 = 100_000;
/// Of which so many are asked for at a time.
const PAGE_RECORDS: u32 = 1024;
/// A look ends with the page in which it has found so many.
const ROWS_MAX: usize = 10_000;

/// No query.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// All endpoints that ask.
pub fn routes() -> Vec<Route> {
    house().into_iter().chain(trading()).chain(planning()).collect()
}

/// Of the daemon, tenants, instances and tiers.
fn house() -> Vec<Route> {
    let status: Vec<_> = samples::<StatusRow>()
        .iter()
        .map(|row| show::status(row, &samples::<FaultRow>(), &["web".to_owned()]))
        .collect();
    vec![
        get(
            "/status",
            "How the daemon is, its faults, who misses its objective",
            one_of(&status),
            status_of,
        ),
        get("/accounts", "Tenants and their funds", list_of(show::account), accounts),
        get(
            "/account_limits",
            "Whom accounts may trade with, and how much",
            limits_schema(),
            account_limits,
        ),
        get(
            "/instances",
            "VMs and containers: what is reserved, entitled and earned",
            instances_schema(),
            instances,
        ),
        get("/tiers", "Classes of hardware: a row for each resource", list_of(show::tier), tiers),
        get(
            "/exchanges",
            "Exchanges of capacity between tiers",
            list_of(show::exchange),
            exchanges,
        ),
        get(
            "/limits",
            "Limits on the host: wanted, written, read back",
            list_of(show::limit),
            limits,
        ),
        get("/sensors", "What instances use and wait for", list_of(show::sensors), sensors),
    ]
}

/// Of books and leases.
fn trading() -> Vec<Route> {
    vec![
        get("/books", "Books and their depth", books_schema(), books),
        get("/market", "Prices and volumes of the books", list_of(show::market), market),
        get("/bars", "Open, high, low and close of a book", list_of(|row| show::bar(0, row)), bars),
        get(
            "/trades",
            "The newest trades, or the tape from a trade on",
            list_of(show::trade),
            trades,
        ),
        get("/orders", "An instance's open orders", list_of(show::order), orders),
        get("/leases", "VRUs rented above baselines", list_of(show::lease), leases),
        get(
            "/rents",
            "What leases cost, by book and class",
            list_of(|row| show::rent(row, LeaseClass::Sla)),
            rents,
        ),
    ]
}

/// Of what is foreseen and reserved, and of what was done.
fn planning() -> Vec<Route> {
    vec![
        get(
            "/objectives",
            "What instances are to reach, and what is done about it",
            list_of(show::objective),
            objectives,
        ),
        get(
            "/policies",
            "What the engine does for instances by itself",
            list_of(show::policy),
            policies,
        ),
        get(
            "/forecasts",
            "What instances will need, and the risk",
            list_of(show::forecast),
            forecasts,
        ),
        get(
            "/events",
            "What is planned for instances: jobs, campaigns",
            list_of(show::event),
            events,
        ),
        get(
            "/tokens",
            "Reservations of VRUs; one alone comes sealed, to be handed on",
            list_of(show::token),
            tokens,
        ),
        get("/swaps", "Swaps of tokens: waiting, under way, over", list_of(show::swap), swaps),
        get(
            "/swap_policies",
            "What accounts think of swaps",
            list_of(show::swap_policy),
            swap_policies,
        ),
        get("/ledger", "Lines of the ledger", ledger_schema(), ledger),
        get(
            "/audit",
            "Transactions from a place in the journal on, the chain verified on the way",
            audit_schema(),
            audit,
        )
        .slow(),
    ]
}

/// A list of what `show` makes of rows.
pub fn array<R>(rows: &[R], show: impl Fn(&R) -> Value) -> Value {
    rows.iter().map(show).collect::<Vec<_>>().into()
}

/// The rows of all pages, where pages start at numbers of 32 bits.
///
/// # Errors
/// The gateway's refusal.
pub fn pages<R: Body, Q: Body>(
    client: &mut Client,
    query: impl Fn(U32) -> Q,
) -> Result<Vec<R>, Problem> {
    Ok(client.ask_all(|from| query(u32::try_from(from).unwrap_or(u32::MAX).into()))?)
}

fn status_of(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let (mut status, mut faults) = (StatusRow::zeroed(), Vec::new());
    client.ask_each(&QueryStatus {}, |received| {
        if let Some(row) = received.message::<StatusRow>() {
            status = *row;
        }
        faults.extend(received.message::<FaultRow>().copied());
    })?;
    let mut breached = Vec::new();
    // One that does not accept requests may not answer this either.
    if status.accepting == 1 {
        let rows: Vec<ObjectiveRow> = pages(client, |from| QueryObjectives { from })?;
        let missing: Vec<u32> = rows
            .iter()
            .filter(|row| show::is_breached(row))
            .map(|row| row.instance.get())
            .collect();
        if !missing.is_empty() {
            let rows: Vec<InstanceRow> = pages(client, |from| QueryInstances { from })?;
            let rows = rows.iter().filter(|row| missing.contains(&row.instance.get()));
            breached.extend(rows.map(|row| text(&row.name).to_owned()));
        }
    }
    Ok(show::status(&status, &faults, &breached))
}

fn accounts(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let rows: Vec<AccountRow> = pages(client, |from| QueryAccounts { from })?;
    Ok(array(&rows, show::account))
}

fn limits_schema() -> Value {
    let rows: Vec<_> = samples::<AccountLimitsRow>()
        .iter()
        .map(|limits| show::account_limits(&AccountRow::zeroed(), limits))
        .collect();
    json!({ "type": "array", "items": one_of(&rows) })
}

fn account_limits(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let (mut rows, mut limits) = (Vec::new(), Vec::new());
    let query = |from| QueryAccounts { from: u32::try_from(from).unwrap_or(u32::MAX).into() };
    client.ask_all_each(query, |received| {
        rows.extend(received.message::<AccountRow>().copied());
        limits.extend(received.message::<AccountLimitsRow>().copied());
    })?;
    let unlimited = show::unlimited();
    Ok(array(&rows, |row: &AccountRow| {
        let found = limits.iter().find(|limits| limits.account == row.account);
        show::account_limits(row, found.unwrap_or(&unlimited))
    }))
}

fn instances_schema() -> Value {
    let one = |row: &InstanceRow| {
        show::instance(row, &[TierRow { tier: row.tier, resource: 0, ..TierRow::zeroed() }])
    };
    list_of(one)
}

fn instances(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let tiers: Vec<TierRow> = client.ask(&QueryTiers {})?;
    let rows: Vec<InstanceRow> = pages(client, |from| QueryInstances { from })?;
    Ok(array(&rows, |row| show::instance(row, &tiers)))
}

fn tiers(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let rows: Vec<TierRow> = client.ask(&QueryTiers {})?;
    Ok(array(&rows, show::tier))
}

fn exchanges(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let rows: Vec<ExchangeRow> = pages(client, |from| QueryExchanges { from })?;
    Ok(array(&rows, show::exchange))
}

/// Of which book.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfBook {
    /// Only this book.
    book: Option<u16>,
}

fn books_schema() -> Value {
    let mut view = BookView::default();
    view.bids[0] = Level { price_ticks: 1, quantity: 1 };
    view.asks[0] = Level { price_ticks: 2, quantity: 1 };
    list_of(|row| show::book(row, &view, true))
}

fn books(client: &mut Client, asked: OfBook) -> Result<Value, Problem> {
    let mut rows: Vec<BookRow> = pages(client, |from| QueryBooks { from })?;
    rows.retain(|row| asked.book.is_none_or(|book| row.book == book));
    let mut shown = Vec::new();
    for row in rows {
        let depth: Vec<DepthRow> =
            client.ask(&QueryDepth { book: row.book, reserved: 0.into() })?;
        let depth = depth.first().copied().unwrap_or(DepthRow::zeroed());
        shown.push(show::book(&row, &show::view(&row, &depth), true));
    }
    Ok(shown.into())
}

fn market(client: &mut Client, asked: OfBook) -> Result<Value, Problem> {
    let mut rows: Vec<MarketRow> = pages(client, |from| QueryMarket { from })?;
    rows.retain(|row| asked.book.is_none_or(|book| row.book == book));
    Ok(array(&rows, show::market))
}

/// Which bars.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bars {
    /// Book.
    book: u16,
    /// Seconds of a bar: 1, 60 or 3600.
    #[serde(default = "minute")]
    width_s: u32,
    /// From the bar on that holds this moment, milliseconds since 1970 UTC.
    #[serde(default)]
    from_ms: u64,
}

fn minute() -> u32 {
    60
}

fn bars(client: &mut Client, asked: Bars) -> Result<Value, Problem> {
    let from_ns = asked.from_ms.saturating_mul(1_000_000);
    let rows: Vec<BarRow> = client.ask_all(|next| QueryBars {
        from_ns: from_ns.max(next).into(),
        width_s: asked.width_s.into(),
        book: asked.book.into(),
        reserved: 0.into(),
    })?;
    Ok(array(&rows, |row| show::bar(asked.book, row)))
}

/// Which trades.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trades {
    /// Only in this book.
    book: Option<u16>,
    /// The newest, so many; 100 unless `from` is given.
    limit: Option<u32>,
    /// From this trade's number on, all that the tape has.
    from: Option<u64>,
}

fn trades(client: &mut Client, asked: Trades) -> Result<Value, Problem> {
    let book = asked.book.unwrap_or(ANY_BOOK).into();
    let mut rows: Vec<TradeRow> = match asked.from {
        Some(from) => client.ask_all(|next| QueryTape {
            from: from.max(next).into(),
            book,
            reserved: [0; 6],
        })?,
        None => {
            let limit = asked.limit.unwrap_or(TRADES).into();
            client.ask(&QueryTrades { limit, book, reserved: 0.into() })?
        }
    };
    rows.truncate(asked.limit.map_or(usize::MAX, |limit| limit as usize));
    Ok(array(&rows, show::trade))
}

/// Of one instance.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfInstance {
    /// Instance.
    instance: u32,
}

/// Of all instances, or one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MayBeOfInstance {
    /// Only this instance.
    instance: Option<u32>,
}

fn orders(client: &mut Client, asked: OfInstance) -> Result<Value, Problem> {
    let instance = asked.instance.into();
    let rows: Vec<OrderRow> = pages(client, |from| QueryOrders { instance, from })?;
    Ok(array(&rows, show::order))
}

fn limits(client: &mut Client, asked: MayBeOfInstance) -> Result<Value, Problem> {
    let mut rows: Vec<LimitRow> = pages(client, |from| QueryLimits { from })?;
    let only = |of: u32| move |row: &LimitRow| row.of_account == 0 && row.instance.get() == of;
    rows.retain(|row| asked.instance.is_none_or(|of| only(of)(row)));
    Ok(array(&rows, show::limit))
}

macro_rules! of_instances {
    ($name:ident, $row:ident, $query:ident, $show:path) => {
        fn $name(client: &mut Client, asked: MayBeOfInstance) -> Result<Value, Problem> {
            let mut rows: Vec<$row> = pages(client, |from| $query { from })?;
            rows.retain(|row| asked.instance.is_none_or(|of| row.instance == of));
            Ok(array(&rows, $show))
        }
    };
}
of_instances!(sensors, SensorRow, QuerySensors, show::sensors);
of_instances!(leases, LeaseRow, QueryLeases, show::lease);
of_instances!(objectives, ObjectiveRow, QueryObjectives, show::objective);
of_instances!(policies, PolicyRow, QueryPolicies, show::policy);
of_instances!(forecasts, ForecastRow, QueryForecasts, show::forecast);
of_instances!(events, EventRow, QueryEvents, show::event);

fn rents(client: &mut Client, asked: OfBook) -> Result<Value, Problem> {
    let mut rows: Vec<RentRow> = pages(client, |from| QueryRents { from })?;
    rows.retain(|row| asked.book.is_none_or(|book| row.book == book));
    let all = |row: &RentRow| LeaseClass::ALL.iter().map(|class| show::rent(row, *class)).collect();
    Ok(rows.iter().flat_map(|row| -> Vec<Value> { all(row) }).collect::<Vec<_>>().into())
}

/// Which tokens.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Only this one.
    id: Option<u64>,
}

fn tokens(client: &mut Client, asked: Tokens) -> Result<Value, Problem> {
    let rows: Vec<TokenRow> = match asked.id {
        None => client.ask_all(|from| QueryTokens { from: from.into() })?,
        Some(id) => {
            let rows: Vec<TokenRow> = client.ask(&QueryTokens { from: id.into() })?;
            let found: Vec<_> = rows.into_iter().filter(|row| row.id == id).collect();
            if found.is_empty() {
                return Err(Problem::absent(format!("no token {id} that you may see")));
            }
            found
        }
    };
    Ok(array(&rows, show::token))
}

fn swaps(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let rows: Vec<SwapRow> = client.ask_all(|from| SwapList { from: from.into() })?;
    Ok(array(&rows, show::swap))
}

fn swap_policies(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let rows: Vec<SwapPolicyRow> = pages(client, |from| QuerySwapPolicies { from })?;
    Ok(array(&rows, show::swap_policy))
}

fn ledger_schema() -> Value {
    let row = LedgerRow::zeroed();
    let lines = [true, false].map(|of_funds| show::ledger("funds", of_funds, &row));
    json!({ "type": "array", "items": one_of(&lines) })
}

fn ledger(client: &mut Client, _: Nothing) -> Result<Value, Problem> {
    let tiers: Vec<TierRow> = client.ask(&QueryTiers {})?;
    let rows: Vec<LedgerRow> = client.ask(&QueryLedger {})?;
    Ok(array(&rows, |row| {
        let of = |tier: &&TierRow| tier.tier == row.tier && tier.resource == row.resource;
        let found = tiers.iter().find(of);
        let asset =
            found.map(|tier| format!("{}/{}", text(&tier.name), show::resource(tier.resource)));
        let funds = row.tier == ANY_BOOK;
        let unnamed = || format!("{}/{}", row.tier, show::resource(row.resource));
        let asset = asset.unwrap_or_else(|| if funds { "funds".to_owned() } else { unnamed() });
        show::ledger(&asset, funds, row)
    }))
}

/// Which part of the audit trail. Whatever is named must hold.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// First sequence number wanted; `next` of the answer before.
    #[serde(default)]
    from: u64,
    /// So many records of the journal are read at most, 10,000 unless said otherwise.
    records: Option<u32>,
    /// Part of what was done: trade, limit, lease...
    what: Option<String>,
    /// Account on either side.
    account: Option<u32>,
    /// Instance on either side.
    instance: Option<u32>,
    /// Part of who asked: a role, a user id, a certificate's name.
    by: Option<String>,
}

impl Audit {
    fn wants(&self, row: &AuditRow) -> bool {
        let sides = |one: U32, other: U32, wanted: Option<u32>| {
            wanted.is_none_or(|wanted| one == wanted || other == wanted)
        };
        let by = || format!("{} {}", show::asked_as(row).unwrap_or("-"), text(&row.peer));
        self.what.as_ref().is_none_or(|what| text(&row.what).contains(what))
            && sides(row.account, row.other_account, self.account)
            && sides(row.instance, row.other_instance, self.instance)
            && self.by.as_ref().is_none_or(|who| by().contains(who))
    }
}

fn audit_schema() -> Value {
    json!({
        "type": "object",
        "required": ["rows", "next", "broken"],
        "properties": {
            "rows": list_of(show::audit),
            "next": { "type": ["integer", "null"], "description": "where to go on" },
            "broken": { "type": ["string", "null"], "description": "why the trail is not to be trusted" },
        },
    })
}

fn audit(client: &mut Client, asked: Audit) -> Result<Value, Problem> {
    let mut left = asked.records.unwrap_or(RECORDS).clamp(1, RECORDS_MAX);
    let (mut rows, mut broken, mut next) = (Vec::new(), None, Some(asked.from));
    while let Some(from) = next
        && left > 0
        && rows.len() < ROWS_MAX
        && broken.is_none()
    {
        let limit = left.min(PAGE_RECORDS);
        left -= limit;
        let query = QueryAudit { from: from.into(), limit: limit.into(), reserved: 0.into() };
        next = client.ask_each(&query, |received| {
            if let Some(row) = received.message::<AuditRow>().filter(|row| asked.wants(row)) {
                rows.push(show::audit(row));
            } else if let Some(fault) = received.message::<FaultRow>() {
                broken = Some(text(&fault.text).to_owned());
            }
        })?;
    }
    Ok(json!({ "rows": rows, "next": next, "broken": broken }))
}
