//! A market of two: an operator, a seller with credits and a buyer with funds.

use crate::daemon::Daemon;
use std::time::Duration;
use vendue_wire::client::{Client, Endpoint, Identity, Received};
use vendue_wire::code::{Kpi, OrderType, Resource, Side, TimeInForce};
use vendue_wire::message::*;

/// Funds the buyer starts with, micro-units.
pub const FUNDS_MICRO: u64 = 1_000_000_000;
/// Credits the seller starts with: more than an hour of its baseline, so that it bursts.
pub const CREDITS: u32 = 5_000_000;
/// What both reserve, in VRUs of CPU.
pub const BASELINE_VRU: u32 = 1000;
/// Book of the first tier's CPU credits.
pub const BOOK: u16 = 0;
/// How long a frame that must come is waited for.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// An account with one instance.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Account.
    pub account: u32,
    /// Instance.
    pub instance: u32,
}

/// A daemon's market.
#[derive(Debug)]
pub struct Market {
    /// A session that may do everything.
    pub operator: Client,
    /// Has credits.
    pub seller: Party,
    /// Has funds.
    pub buyer: Party,
}

impl Market {
    /// Opens a market on a fresh daemon.
    ///
    /// # Panics
    /// If the daemon refuses any of it.
    pub fn open(daemon: &Daemon) -> Market {
        let mut operator = daemon.client(&Identity::operator());
        let seller = create_party(&mut operator, "seller", "");
        let buyer = create_party(&mut operator, "buyer", "");
        deposit(&mut operator, buyer.account, FUNDS_MICRO);
        grant(&mut operator, seller.instance, CREDITS);
        Market { operator, seller, buyer }
    }
}

/// Creates an account and an instance of the same name, which runs at `place`.
pub fn create_party(operator: &mut Client, name: &str, place: &str) -> Party {
    let account = CreateAccount {
        client_id: operator.next_client_id().into(),
        sells_to: u64::MAX.into(),
        buys_from: u64::MAX.into(),
        name: field(name).expect("a short name"),
        group: 0,
        reserved: [0; 7],
    };
    let account = operator.call(&account).expect("an account").value.get() as u32;
    let mut baseline_vru = [U32::ZERO; 5];
    baseline_vru[Resource::Cpu as usize] = BASELINE_VRU.into();
    let instance = CreateInstance {
        client_id: operator.next_client_id().into(),
        account: account.into(),
        tier: 0.into(),
        reserved: 0.into(),
        baseline_vru,
        reserved2: 0.into(),
        name: field(name).expect("a short name"),
        place: field(place).expect("a short place"),
    };
    let instance = operator.call(&instance).expect("an instance").value.get() as u32;
    Party { account, instance }
}

/// Pays funds in and returns the free balance, micro-units.
pub fn deposit(operator: &mut Client, account: u32, amount_micro: u64) -> u64 {
    let client_id = operator.next_client_id().into();
    let (amount_micro, account) = (amount_micro.into(), account.into());
    let deposit = Deposit { client_id, amount_micro, account, reserved: 0.into() };
    operator.call(&deposit).expect("a deposit").value.get()
}

/// Takes an account's limits away and lets it trade with everybody.
pub fn unlimit(operator: &mut Client, account: u32) {
    let client_id = operator.next_client_id().into();
    operator.call(&SetLimits { client_id, ..unlimited(account) }).expect("limits");
}

/// An account's limits: none, and it trades with everybody. The client id is still to come.
pub fn unlimited(account: u32) -> SetLimits {
    SetLimits {
        client_id: 0.into(),
        sells_to: u64::MAX.into(),
        buys_from: u64::MAX.into(),
        sell_max_credits: UNLIMITED.into(),
        buy_max_credits: UNLIMITED.into(),
        order_max_micro: UNLIMITED.into(),
        position_max_credits: UNLIMITED.into(),
        account: account.into(),
        group: 0,
        opted_in: 1,
        reserved: [0; 2],
    }
}

/// Grants CPU credits.
pub fn grant(operator: &mut Client, instance: u32, credits: u32) {
    let grant = GrantCredits {
        client_id: operator.next_client_id().into(),
        amount_millicredits: (u64::from(credits) * 1000).into(),
        instance: instance.into(),
        resource: Resource::Cpu as u8,
        reserved: [0; 3],
    };
    operator.call(&grant).expect("a grant");
}

/// A limit order that stays, in the market's one book.
pub fn limit(client: &mut Client, party: Party, side: Side, price: u32, quantity: u32) -> NewOrder {
    NewOrder {
        client_id: client.next_client_id().into(),
        expires_at_ms: 0.into(),
        instance: party.instance.into(),
        price_ticks: price.into(),
        quantity: quantity.into(),
        book: BOOK.into(),
        side: side as u8,
        order_type: OrderType::Limit as u8,
        time_in_force: TimeInForce::Gtc as u8,
        post_only: 0,
        self_trade: 0,
        reserved: 0,
    }
}

/// Enters a limit order and returns how it was accepted.
#[track_caller]
pub fn enter(client: &mut Client, party: Party, side: Side, price: u32, quantity: u32) -> Accepted {
    let order = limit(client, party, side, price, quantity);
    match client.call_for(&order) {
        Ok(accepted) => accepted,
        Err(error) => panic!("{error}"),
    }
}

/// The next frame, which must come.
#[track_caller]
pub fn next(client: &mut Client) -> Received {
    match client.recv(FRAME_TIMEOUT) {
        Ok(Some(frame)) => *frame,
        Ok(None) => panic!("nothing came"),
        Err(error) => panic!("{error}"),
    }
}

/// The next frame, which must be an `M`.
#[track_caller]
pub fn expect<M: Body>(client: &mut Client) -> M {
    let frame = next(client);
    match frame.message() {
        Some(message) => *message,
        None => panic!("a frame of kind {:#04x} came instead of {}", frame.kind(), M::NAME),
    }
}

/// An account's row.
pub fn account_row(client: &mut Client, account: u32) -> AccountRow {
    let rows = client.ask::<AccountRow, _>(&QueryAccounts { from: account.into() });
    *rows.expect("accounts").first().expect("the account")
}

/// An instance's row.
pub fn instance_row(client: &mut Client, instance: u32) -> InstanceRow {
    let rows = client.ask::<InstanceRow, _>(&QueryInstances { from: instance.into() });
    *rows.expect("instances").first().expect("the instance")
}

/// Checks that the lines of each asset of the ledger sum to zero.
///
/// # Panics
/// If they do not.
pub fn check_ledger(client: &mut Client) {
    let rows = client.ask::<LedgerRow, _>(&QueryLedger {}).expect("a ledger");
    let mut sums = std::collections::BTreeMap::<(u16, u8), i128>::new();
    for row in &rows {
        let sum = sums.entry((row.tier.get(), row.resource)).or_default();
        *sum += i128::from(row.balance.get() as i64);
    }
    assert!(sums.len() > 1, "a ledger of {} assets", sums.len());
    assert!(sums.values().all(|&sum| sum == 0), "the ledger does not balance: {sums:?}");
}

/// Shows that the daemon is well: it accepts requests, no fault stands, two others trade, and
/// the ledger balances.
///
/// # Panics
/// If any of it is not so.
#[track_caller]
pub fn check_alive(daemon: &Daemon, market: &Market, endpoint: &Endpoint) {
    let (before, faults) = daemon.status();
    assert_eq!((before.accepting, &faults[..]), (1, &[][..]));
    let connect = |account| Client::connect(endpoint, &Identity::tenant(account));
    let mut seller = connect(market.seller.account).expect("the seller logs on");
    let mut buyer = connect(market.buyer.account).expect("the buyer logs on");
    enter(&mut seller, market.seller, Side::Sell, 10, 1);
    enter(&mut buyer, market.buyer, Side::Buy, 10, 1);
    assert_eq!(expect::<Filled>(&mut seller).trade, expect::<Filled>(&mut buyer).trade);
    check_ledger(&mut daemon.client(&Identity::observer()));
    let (after, faults) = daemon.status();
    assert_eq!((after.trades.get(), &faults[..]), (before.trades.get() + 1, &[][..]));
}

/// The whole audit trail, whose chain the daemon verifies on the way.
///
/// # Panics
/// If the trail cannot be read to its end.
pub fn audit(client: &mut Client) -> Vec<AuditRow> {
    let mut rows = Vec::new();
    let mut from = 0;
    loop {
        let query = QueryAudit { from: from.into(), limit: 0.into(), reserved: 0.into() };
        let page = client.ask_each(&query, |row| {
            assert_ne!(row.kind(), FaultRow::KIND, "the trail cannot be read: {:?}", row.body());
            rows.extend(row.message::<AuditRow>().copied());
        });
        match page.expect("a page of the audit trail") {
            Some(next) if next > from => from = next,
            Some(next) => panic!("page {next} after {from}"),
            None => return rows,
        }
    }
}

/// A token as the daemon shows it.
///
/// # Panics
/// If there is none of this id.
#[track_caller]
pub fn token_row(client: &mut Client, id: u64) -> TokenRow {
    let rows = client.ask::<TokenRow, _>(&QueryTokens { from: id.into() }).expect("an answer");
    *rows.iter().find(|row| row.id.get() == id).expect("a row")
}

/// An objective of latency that an hour of the worst would not breach: whoever has it may tell its latency.
pub fn distant_objective(client_id: u64, instance: u32) -> SetObjective {
    SetObjective {
        client_id: client_id.into(),
        budget_micro: 1.into(),
        instance: instance.into(),
        window_s: 3600.into(),
        breach_at: 1_000_000.into(),
        recover_at: 1.into(),
        breach_ms: 3_600_000.into(),
        recover_ms: 3_600_000.into(),
        step_vru: 1.into(),
        most_vru: 1.into(),
        rent_ticks: 1.into(),
        kpi: Kpi::Latency as u8,
        class: 1,
        ..SetObjective::zeroed()
    }
}
