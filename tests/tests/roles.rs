//! Every role, every request and question of the protocol, asked for what is the peer's own, for
//! another's and for what does not exist. Generated from the protocol's schema: a message that is
//! new is refused to everybody but operators until it is named here.

use std::time::Duration;
use vendue_engine::machine::command::{is_internal, is_query};
use vendue_tests::daemon::{Daemon, Setup, eventually};
use vendue_tests::market::*;
use vendue_tests::raw::{Came, Raw};
use vendue_wire::client::{Client, Identity};
use vendue_wire::code::{LeaseClass, OrderType, Role, Side};
use vendue_wire::message::*;
use zerocopy::IntoBytes;

/// Who asks. The own party has the lowest numbers, so that rows from another's on are none of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Anonymous,
    Observer,
    /// An observer that is bound to the own account.
    Auditor,
    Agent,
    Tenant,
    Operator,
}

const EVERYONE: [Who; 6] =
    [Who::Anonymous, Who::Observer, Who::Auditor, Who::Agent, Who::Tenant, Who::Operator];

impl Who {
    fn identity(self, own: Party) -> Identity {
        let tenant = Identity::tenant(own.account);
        match self {
            Who::Anonymous => Identity::observer(),
            Who::Observer => Identity { role: Role::Observer, account: ANY, ..tenant },
            Who::Auditor => Identity { role: Role::Observer, ..tenant },
            Who::Agent => Identity { role: Role::Agent, instance: own.instance, ..tenant },
            Who::Tenant => tenant,
            Who::Operator => Identity::operator(),
        }
    }

    /// Sees only what is public or its own.
    fn is_narrow(self) -> bool {
        matches!(self, Who::Auditor | Who::Agent | Who::Tenant)
    }

    /// What it may ask for at all. Who is not named here may do nothing.
    fn may(self, kind: u8) -> bool {
        const HOLDS: [u8; 3] = [SplitToken::KIND, MergeTokens::KIND, TransferToken::KIND];
        const SWAPS: [u8; 4] =
            [SwapRequest::KIND, SwapApprove::KIND, SwapReject::KIND, SetSwapPolicy::KIND];
        const TRADES: [u8; 17] = [
            PlanEvent::KIND,
            RedeemToken::KIND,
            SetPolicy::KIND,
            SetForecast::KIND,
            NewOrder::KIND,
            Cancel::KIND,
            Replace::KIND,
            MassCancel::KIND,
            SetBid::KIND,
            BidLease::KIND,
            ChangeLease::KIND,
            CancelLease::KIND,
            Lend::KIND,
            ReportKpi::KIND,
            SubmitTask::KIND,
            CancelTask::KIND,
            ReportTask::KIND,
        ];
        const SHOWN_TO_ALL: [u8; 30] = [
            SwapList::KIND,
            QuerySwapPolicies::KIND,
            QueryExperiments::KIND,
            QueryExposures::KIND,
            QueryEvents::KIND,
            QueryHistory::KIND,
            QueryTokens::KIND,
            QueryPolicies::KIND,
            QueryForecasts::KIND,
            QueryMigrations::KIND,
            QueryTasks::KIND,
            QueryGroups::KIND,
            QueryMembers::KIND,
            QueryStatus::KIND,
            QueryAccounts::KIND,
            QueryInstances::KIND,
            QueryTiers::KIND,
            QueryBooks::KIND,
            QueryOrders::KIND,
            QueryTrades::KIND,
            QueryLimits::KIND,
            QueryDepth::KIND,
            QueryMarket::KIND,
            QueryBars::KIND,
            QueryTape::KIND,
            QueryExchanges::KIND,
            QuerySensors::KIND,
            QueryLeases::KIND,
            QueryObjectives::KIND,
            QueryRents::KIND,
        ];
        const OF_THE_HOUSE: [u8; 4] =
            [QueryLedger::KIND, QueryAudit::KIND, QueryReport::KIND, QueryMoment::KIND];
        match self {
            Who::Operator => true,
            _ if SHOWN_TO_ALL.contains(&kind) => true,
            Who::Anonymous => OF_THE_HOUSE.contains(&kind),
            Who::Observer => OF_THE_HOUSE.contains(&kind) || kind == Replay::KIND,
            Who::Auditor => kind == Replay::KIND,
            // No word of a guest moves what it can spend.
            Who::Tenant if kind == SetObjective::KIND || HOLDS.contains(&kind) => true,
            Who::Tenant if SWAPS.contains(&kind) => true,
            Who::Agent | Who::Tenant => TRADES.contains(&kind) || kind == Replay::KIND,
        }
    }
}

/// Whose things a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    account: u32,
    instance: u32,
    handle: u64,
    lease: u64,
    trade: u64,
    task: u64,
    group: u16,
    /// Two tokens that go together.
    tokens: [[u8; TOKEN_BYTES]; 2],
    /// A swap that waits.
    swap: u64,
}

impl Target {
    fn of(party: Party, handle: u64, trade: u64, (task, group): (u64, u16)) -> Target {
        let Party { account, instance } = party;
        let tokens = [[0; TOKEN_BYTES]; 2];
        Target { account, instance, handle, lease: 0, trade, task, group, tokens, swap: 0 }
    }
}

/// A message of the schema.
#[derive(Clone, Copy)]
struct Message {
    kind: u8,
    name: &'static str,
    bytes: usize,
    fields: &'static [(&'static str, usize, usize)],
}

/// Every request and question that a session may send, but for those about the connection itself or
/// its subscription: whom that tells what has tests of its own. Those that remove whom others name
/// come last.
fn requests() -> impl Iterator<Item = Message> {
    let of_the_connection = [
        Logon::KIND,
        Heartbeat::KIND,
        Logout::KIND,
        Attach::KIND,
        Subscribe::KIND,
        Take::KIND,
        Unsubscribe::KIND,
        // Taken only to a ticket and from another host: `machine_migrate.rs` says from whom.
        Arrive::KIND,
    ];
    let all = SCHEMA
        .iter()
        .map(|&(kind, name, bytes, fields)| Message { kind, name, bytes, fields })
        .filter(move |message| {
            is_request(message.kind) && !of_the_connection.contains(&message.kind)
        });
    let (last, first): (Vec<_>, Vec<_>) =
        all.partition(|message| [RemoveInstance::KIND, Depart::KIND].contains(&message.kind));
    first.into_iter().chain(last)
}

/// True for what a session may send at all.
fn is_request(kind: u8) -> bool {
    kind < 0x80 && !is_internal(kind)
}

fn message(kind: u8) -> Option<Message> {
    let row = SCHEMA.iter().find(|row| row.0 == kind)?;
    Some(Message { kind, name: row.1, bytes: row.2, fields: row.3 })
}

impl Message {
    fn is_question(&self) -> bool {
        is_query(self.kind)
    }

    /// What a field of this message names, if that is somebody's.
    fn named(&self, field: &str, target: &Target) -> Option<u64> {
        match (field, self.kind) {
            ("account", _) | ("from", QueryAccounts::KIND) => Some(target.account.into()),
            ("instance", _)
            | (
                "from",
                QueryInstances::KIND | QueryLimits::KIND | QuerySensors::KIND | QueryMembers::KIND,
            ) => Some(target.instance.into()),
            ("handle", ChangeLease::KIND | CancelLease::KIND) => Some(target.lease),
            ("handle", CancelTask::KIND | ReportTask::KIND) => Some(target.task),
            ("handle", _) => Some(target.handle),
            ("group", SubmitTask::KIND | SetGroup::KIND | SetMember::KIND) => {
                Some(target.group.into())
            }
            ("trade", ReverseTrade::KIND) => Some(target.trade),
            // Of the trades that are reversed the first had one before it, and no experiment did.
            ("experiment", StopExperiment::KIND) => Some(target.trade - 1),
            ("id", SwapApprove::KIND | SwapReject::KIND) => Some(target.swap),
            ("destination", SwapRequest::KIND) => Some(Token::of(&target.tokens[0]).id.get()),
            ("source", SwapRequest::KIND) => Some(Token::of(&target.tokens[1]).id.get()),
            ("destination_generation", SwapRequest::KIND) => {
                Some(Token::of(&target.tokens[0]).generation.get().into())
            }
            ("source_generation", SwapRequest::KIND) => {
                Some(Token::of(&target.tokens[1]).generation.get().into())
            }
            ("id" | "token", _) => Some(Token::of(&target.tokens[0]).id.get()),
            _ => None,
        }
    }

    fn names_somebody(&self) -> bool {
        let anyone = Target::of(Party { account: 0, instance: 0 }, 0, 1, (0, 0));
        self.fields.iter().any(|field| self.named(field.0, &anyone).is_some())
    }

    /// A body that would be carried out for whom it is allowed.
    fn body(&self, target: &Target, client_id: u64) -> Vec<u8> {
        let mut body = self.template(client_id);
        for &(field, at, bytes) in self.fields {
            let token = ["token", "other"].iter().position(|name| *name == field);
            if let Some(token) = token {
                body[at..at + bytes].copy_from_slice(&target.tokens[token]);
                continue;
            }
            let value = match field {
                "client_id" => Some(client_id),
                _ => self.named(field, target),
            };
            if let Some(value) = value {
                body[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
        }
        body
    }

    fn template(&self, number: u64) -> Vec<u8> {
        let name = field::<NAME_BYTES>(&format!("made {number}")).expect("a short name");
        match self.kind {
            NewOrder::KIND => NewOrder {
                price_ticks: 900.into(),
                quantity: 1.into(),
                book: BOOK.into(),
                side: Side::Sell as u8,
                order_type: OrderType::Limit as u8,
                ..NewOrder::zeroed()
            }
            .as_bytes()
            .to_vec(),
            Replace::KIND => {
                Replace { price_ticks: 901.into(), quantity: 1.into(), ..Replace::zeroed() }
                    .as_bytes()
                    .to_vec()
            }
            MassCancel::KIND => {
                MassCancel { book: ANY_BOOK.into(), side: 2, ..MassCancel::zeroed() }
                    .as_bytes()
                    .to_vec()
            }
            CreateAccount::KIND => {
                CreateAccount { name, ..CreateAccount::zeroed() }.as_bytes().to_vec()
            }
            CreateInstance::KIND => {
                CreateInstance { name, ..CreateInstance::zeroed() }.as_bytes().to_vec()
            }
            Deposit::KIND => {
                Deposit { amount_micro: 1.into(), ..Deposit::zeroed() }.as_bytes().to_vec()
            }
            Withdraw::KIND => {
                Withdraw { amount_micro: 1.into(), ..Withdraw::zeroed() }.as_bytes().to_vec()
            }
            SetLimits::KIND => SetLimits {
                sells_to: u64::MAX.into(),
                buys_from: u64::MAX.into(),
                sell_max_credits: UNLIMITED.into(),
                buy_max_credits: UNLIMITED.into(),
                order_max_micro: UNLIMITED.into(),
                position_max_credits: UNLIMITED.into(),
                opted_in: 1,
                ..SetLimits::zeroed()
            }
            .as_bytes()
            .to_vec(),
            CancelAccount::KIND => {
                CancelAccount { book: ANY_BOOK.into(), side: 2, ..CancelAccount::zeroed() }
                    .as_bytes()
                    .to_vec()
            }
            SubmitTask::KIND => waiting_task().as_bytes().to_vec(),
            SetGroup::KIND => SetGroup { name, ..offer() }.as_bytes().to_vec(),
            SetBid::KIND => {
                SetBid { bid_milli: 1000.into(), ..SetBid::zeroed() }.as_bytes().to_vec()
            }
            SwapTiers::KIND => {
                SwapTiers { vru: 1.into(), to: 1.into(), ..SwapTiers::zeroed() }.as_bytes().to_vec()
            }
            SetRate::KIND => SetRate { rate: [1.into(); 2], to: 1.into(), ..SetRate::zeroed() }
                .as_bytes()
                .to_vec(),
            SetTier::KIND => {
                let capacity = [0, 4096 + number as u32 % 7, 0, 0, 0].map(U32::new);
                let change =
                    SetTier { act: TIER_CHANGE, capacity_vru: capacity, ..SetTier::zeroed() };
                change.as_bytes().to_vec()
            }
            _ => self.lease(name),
        }
    }

    fn lease(&self, name: [u8; NAME_BYTES]) -> Vec<u8> {
        match self.kind {
            ExpectInstance::KIND => {
                ExpectInstance { name, ..ExpectInstance::zeroed() }.as_bytes().to_vec()
            }
            SettleMigration::KIND => {
                let stand = SettleMigration { act: MIGRATION_STAND, ..SettleMigration::zeroed() };
                SettleMigration { to: name, ..stand }.as_bytes().to_vec()
            }
            BidLease::KIND => {
                BidLease { amount: 1.into(), rent_ticks: 1.into(), class: 1, ..BidLease::zeroed() }
                    .as_bytes()
                    .to_vec()
            }
            ChangeLease::KIND => {
                let change = ChangeLease { vru: 2.into(), ..ChangeLease::zeroed() };
                ChangeLease { rent_ticks: 1.into(), ..change }.as_bytes().to_vec()
            }
            SetObjective::KIND => objective().as_bytes().to_vec(),
            SetReserveRent::KIND => {
                SetReserveRent { rent_ticks: 1.into(), ..SetReserveRent::zeroed() }
                    .as_bytes()
                    .to_vec()
            }
            IssueToken::KIND => {
                IssueToken { until_ms: u64::MAX.into(), vru: 1.into(), ..IssueToken::zeroed() }
                    .as_bytes()
                    .to_vec()
            }
            SplitToken::KIND => {
                SplitToken { vru: 1.into(), ..SplitToken::zeroed() }.as_bytes().to_vec()
            }
            SetForecast::KIND => {
                SetForecast { lasts_ms: 1000.into(), source: 1, ..SetForecast::zeroed() }
                    .as_bytes()
                    .to_vec()
            }
            PlanEvent::KIND => {
                PlanEvent { lasts_ms: 1000.into(), ..PlanEvent::zeroed() }.as_bytes().to_vec()
            }
            StartExperiment::KIND => StartExperiment {
                lasts_ms: 60_000.into(),
                budget_micro: [1.into(), 0.into()],
                tier: u16::MAX.into(),
                ..StartExperiment::zeroed()
            }
            .as_bytes()
            .to_vec(),
            SwapRequest::KIND => lending().as_bytes().to_vec(),
            SetSwapPolicy::KIND => {
                let borne = SetSwapPolicy { downtime_ms: 1000.into(), ..SetSwapPolicy::zeroed() };
                borne.as_bytes().to_vec()
            }
            _ => self.question(),
        }
    }

    fn question(&self) -> Vec<u8> {
        match self.kind {
            QueryHistory::KIND => {
                QueryHistory { width_s: 60.into(), ..QueryHistory::zeroed() }.as_bytes().to_vec()
            }
            QueryTrades::KIND => {
                QueryTrades { limit: 64.into(), book: ANY_BOOK.into(), ..QueryTrades::zeroed() }
                    .as_bytes()
                    .to_vec()
            }
            QueryBars::KIND => {
                QueryBars { width_s: 60.into(), book: BOOK.into(), ..QueryBars::zeroed() }
                    .as_bytes()
                    .to_vec()
            }
            QueryReport::KIND => {
                QueryReport { step_s: 60.into(), ..QueryReport::zeroed() }.as_bytes().to_vec()
            }
            QueryTape::KIND => {
                QueryTape { book: ANY_BOOK.into(), ..QueryTape::zeroed() }.as_bytes().to_vec()
            }
            Replay::KIND => Replay { from: 1.into() }.as_bytes().to_vec(),
            _ => vec![0; self.bytes],
        }
    }
}

/// An objective that is met.
fn objective() -> SetObjective {
    SetObjective {
        budget_micro: 1.into(),
        window_s: 60.into(),
        breach_at: 9.into(),
        breach_ms: 1000.into(),
        recover_ms: 1000.into(),
        step_vru: 1.into(),
        most_vru: 1.into(),
        rent_ticks: 1.into(),
        class: LeaseClass::Bounded as u8,
        ..SetObjective::zeroed()
    }
}

/// A swap of one VRU for a minute, to be approved whenever.
fn lending() -> SwapRequest {
    SwapRequest {
        deadline_ms: (u64::MAX / 2).into(),
        vru: 1.into(),
        lasts_ms: 60_000.into(),
        ..SwapRequest::zeroed()
    }
}

/// A task that is never worth its while: it waits until it is cancelled.
fn waiting_task() -> SubmitTask {
    SubmitTask {
        bid_micro: 1.into(),
        margin_min_micro: u64::MAX.into(),
        duration_ms: 1.into(),
        vru_max: 1.into(),
        queue: 1,
        ..SubmitTask::zeroed()
    }
}

/// What holds in a group of processors.
fn offer() -> SetGroup {
    let base_micro = [1, 0, 0, 0, 0].map(U64::new);
    SetGroup { base_micro, high_permille: 900.into(), ..SetGroup::zeroed() }
}

/// A task of a party's account that must run in its instance.
fn task(operator: &mut Client, party: Party, group: u16) -> u64 {
    let task = SubmitTask {
        client_id: operator.next_client_id().into(),
        account: party.account.into(),
        instance: party.instance.into(),
        group: group.into(),
        ..waiting_task()
    };
    let admitted: TaskAdmitted = operator.call_for(&task).expect("a task");
    admitted.handle.get()
}

/// A group of a party's one instance; its number.
fn group(operator: &mut Client, party: Party, called: &str) -> u16 {
    let client_id = operator.next_client_id().into();
    let (account, group) = (party.account.into(), ANY_BOOK.into());
    let name = field(called).expect("a short name");
    let made = operator.call(&SetGroup { client_id, account, group, name, ..offer() });
    let group = made.expect("a group").value.get() as u16;
    let client_id = operator.next_client_id().into();
    let (instance, reserved) = (party.instance.into(), 0.into());
    let member = SetMember { client_id, instance, group: group.into(), reserved };
    operator.call(&member).expect("a member");
    group
}

/// The value of a field of at most eight bytes.
fn value(came: &Came, wanted: &str) -> Option<u64> {
    let fields = message(came.kind)?.fields;
    let &(_, at, bytes) = fields.iter().find(|field| field.0 == wanted)?;
    let mut value = [0; 8];
    value[..bytes].copy_from_slice(&came.body[at..at + bytes]);
    Some(u64::from_le_bytes(value))
}

/// An answer without what tells one asking from another.
fn plain(answer: &[Came]) -> Vec<(u8, Vec<u8>)> {
    let cleared = |came: &Came| {
        let mut body = came.body.clone();
        for &(field, at, bytes) in message(came.kind).map_or(&[][..], |message| message.fields) {
            if ["request", "client_id", "time_ns"].contains(&field) {
                body[at..at + bytes].fill(0);
            }
        }
        (came.kind, body)
    };
    answer.iter().map(cleared).collect()
}

fn is_refused(answer: &[Came]) -> bool {
    matches!(answer, [came] if [Refused::KIND, Rejected::KIND].contains(&came.kind))
}

/// A session and how far it is.
struct Asker {
    raw: Raw,
    sequence: u64,
}

impl Asker {
    /// Reads past what others' doings told this session.
    fn catch_up(&mut self) {
        self.sequence += 1;
        assert!(self.raw.send(self.sequence, &QueryTiers {}));
        loop {
            let came = self.raw.next_said().expect("an answer");
            if came.kind == QueryEnd::KIND && value(&came, "request") == Some(self.sequence) {
                return;
            }
        }
    }

    /// Sends a request and returns all that comes of it.
    fn ask(&mut self, message: &Message, target: &Target) -> Vec<Came> {
        self.sequence += 1;
        let request = self.sequence;
        let body = message.body(target, request);
        assert!(self.raw.send_raw(message.kind, request, &body));
        let last = if message.is_question() {
            request
        } else {
            // Answers come in the one order: after this one nothing more comes of the request.
            self.sequence += 1;
            assert!(self.raw.send(self.sequence, &QueryTiers {}));
            self.sequence
        };
        let mut answer = Vec::new();
        loop {
            let came = self.raw.next_said().expect("an answer");
            let of = value(&came, "request");
            let ends = [QueryEnd::KIND, Refused::KIND].contains(&came.kind) && of == Some(last);
            let fence = !message.is_question() && (ends || came.kind == TierRow::KIND);
            let replayed = message.kind == Replay::KIND && came.kind == ReplayEnd::KIND;
            if !fence {
                answer.push(came);
            }
            if ends || replayed {
                return answer;
            }
        }
    }
}

/// Nothing in an answer to a narrow session is another's.
fn check_own(who: Who, message: &Message, answer: &[Came], own: Party) {
    for came in answer {
        for field in ["account", "other_account", "instance", "other_instance", "seller", "buyer"] {
            let own = if field.contains("account") { own.account } else { own.instance };
            let shown = value(came, field);
            assert!(
                shown.is_none_or(|shown| shown == u64::from(own) || shown == u64::from(ANY)),
                "{who:?} is shown {field} {shown:?} by {}",
                message.name
            );
        }
        let name = came.body.windows(5).any(|bytes| bytes == b"buyer");
        assert!(!name, "{who:?} is shown another's name by {}", message.name);
    }
}

/// Bids for a lease, and returns its handle.
fn lease(operator: &mut Client, of: Party) -> u64 {
    let bid = BidLease {
        client_id: operator.next_client_id().into(),
        instance: of.instance.into(),
        amount: 1.into(),
        rent_ticks: 1.into(),
        class: LeaseClass::Bounded as u8,
        ..BidLease::zeroed()
    };
    operator.call(&bid).expect("a lease").value.get()
}

/// A swap of a party's token for another's, which waits for that party; its number.
fn waiting_swap(operator: &mut Client, lender: Party, borrower: Party) -> u64 {
    let [source, destination] = [lender, borrower].map(|of| tokens(operator, of)[0]);
    let (source, destination) = (Token::of(&source), Token::of(&destination));
    let m = SwapRequest {
        client_id: operator.next_client_id().into(),
        source: source.id,
        source_generation: source.generation,
        destination: destination.id,
        destination_generation: destination.generation,
        ..lending()
    };
    operator.call(&m).expect("a swap").value.get()
}

/// Two tokens of a party's, sealed, that may be swapped and only its instance may redeem.
fn tokens(operator: &mut Client, of: Party) -> [[u8; TOKEN_BYTES]; 2] {
    let m = IssueToken {
        client_id: operator.next_client_id().into(),
        until_ms: u64::MAX.into(),
        account: of.account.into(),
        instance: of.instance.into(),
        vru: 4.into(),
        profile: u8::MAX,
        swap_eligible: 1,
        ..IssueToken::zeroed()
    };
    let from = operator.call(&m).expect("a token").value;
    let rows = operator.ask::<TokenRow, _>(&QueryTokens { from }).expect("rows");
    let token = *rows[0].token();
    let client_id = operator.next_client_id().into();
    let (at_ms, vru, reserved) = (0.into(), 2.into(), 0.into());
    let split = SplitToken { client_id, at_ms, vru, reserved, token };
    let part = operator.call(&split).expect("a part").value;
    [from, part].map(|from| {
        let rows = operator.ask::<TokenRow, _>(&QueryTokens { from }).expect("rows");
        *rows[0].token()
    })
}

/// Tokens of a party's that are over: nobody has them.
fn lost(operator: &mut Client, of: Party) -> [[u8; TOKEN_BYTES]; 2] {
    let tokens = tokens(operator, of);
    for token in &tokens {
        let client_id = operator.next_client_id().into();
        operator.call(&RevokeToken { client_id, id: Token::of(token).id }).expect("its end");
    }
    tokens
}

/// Tokens of a party's, if a message is about some.
fn held(operator: &mut Client, message: &Message, of: Party) -> [[u8; TOKEN_BYTES]; 2] {
    let of_tokens = (IssueToken::KIND..=SwapRequest::KIND).contains(&message.kind);
    if of_tokens { tokens(operator, of) } else { [[0; TOKEN_BYTES]; 2] }
}

/// Sets an objective: an agent reports what it may not set.
fn declare(operator: &mut Client, of: Party) {
    let (client_id, instance) = (operator.next_client_id().into(), of.instance.into());
    operator.call(&SetObjective { client_id, instance, ..objective() }).expect("an objective");
}

/// Trades to reverse, by number.
const FIRST: u64 = 2;
const SECOND: u64 = 3;

/// What there is before anybody asks.
struct Stage {
    another: Target,
    nobody: Target,
    /// Of the own party.
    group: u16,
    /// Of the own party.
    leases: Vec<u64>,
}

impl Stage {
    fn set(operator: &mut Client, own: Party, other: Party) -> Stage {
        deposit(operator, own.account, FUNDS_MICRO);
        enter(operator, own, Side::Sell, 10, 1);
        enter(operator, other, Side::Buy, 10, 1);
        let others = enter(operator, other, Side::Buy, 5, 1).handle.get();
        eventually("limits of both", || {
            let rows = operator.ask::<LimitRow, _>(&QueryLimits { from: 0.into() }).ok()?;
            rows.iter().any(|row| row.instance.get() == other.instance).then_some(())
        });
        // Two trades to reverse: no party is another's alone.
        for _ in 0..2 {
            enter(operator, own, Side::Sell, 10, 1);
            enter(operator, other, Side::Buy, 10, 1);
        }
        let groups = [group(operator, own, "one"), group(operator, other, "two")];
        let tasks = task(operator, other, groups[1]);
        let another = Target::of(other, others, FIRST, (tasks, groups[1]));
        let third = create_party(operator, "third", "");
        let another = Target {
            lease: lease(operator, other),
            tokens: tokens(operator, other),
            swap: waiting_swap(operator, other, third),
            ..another
        };
        let [handle, task_handle] = [others, tasks].map(|handle| handle.wrapping_add(1 << 32));
        let nobody =
            Target::of(Party { account: 60, instance: 60 }, handle, 1 << 40, (task_handle, 9));
        let nobody =
            Target { lease: 9 << 32, tokens: lost(operator, other), swap: 1 << 40, ..nobody };
        declare(operator, own);
        // One for each role that may end it; only so many bids are taken in a second.
        let leases = (0..3).map(|_| lease(operator, own)).collect();
        Stage { another, nobody, group: groups[0], leases }
    }
}

#[test]
fn every_role_gets_its_own_and_nobody_elses() {
    // Time passes, so that there is something in the tiers' pools.
    let setup = Setup::small().key("tick_ms", "1000").key("orders_per_instance_max", "1024");
    let setup = setup.key("cpu", "{ capacity_vru = 9600 }");
    let daemon = Daemon::start(&setup);
    let mut market = Market::open(&daemon);
    eventually("a pool that pays for swaps", || {
        let rows = market.operator.ask::<TierRow, _>(&QueryTiers {}).ok()?;
        (rows[0].pool_millicredits.get() > 600_000).then_some(())
    });
    let (own, other) = (market.seller, market.buyer);
    let operator = &mut market.operator;
    let Stage { another, nobody, group, mut leases } = Stage::set(operator, own, other);
    std::thread::sleep(Duration::from_millis(1100));
    let (mut permitted, mut refused) = (0, 0);
    for who in EVERYONE {
        let raw = Raw::logged_on(&daemon.path("socket"), &who.identity(own));
        let mut asker = Asker { raw, sequence: 0 };
        for message in requests() {
            let handle = enter(operator, own, Side::Sell, 900, 1).handle.get();
            let tasks = (task(operator, own, group), group);
            let ends = message.kind == CancelLease::KIND && who.may(message.kind);
            let lease = if ends { leases.pop() } else { leases.last().copied() };
            let (lease, tokens) = (lease.unwrap_or(0), held(operator, &message, own));
            let swap = match message.kind {
                SwapApprove::KIND | SwapReject::KIND => waiting_swap(operator, own, other),
                _ => 0,
            };
            let owned = Target { lease, tokens, swap, ..Target::of(own, handle, SECOND, tasks) };
            asker.catch_up();
            let context = format!("{who:?}, {}", message.name);
            let [anothers, nobodys] = [another, nobody].map(|target| asker.ask(&message, &target));
            if message.names_somebody() && (who.is_narrow() || !who.may(message.kind)) {
                assert_eq!(plain(&anothers), plain(&nobodys), "{context}: another's shows");
            }
            if message.kind == RemoveInstance::KIND && who == Who::Operator {
                // It has just removed the other's.
                assert!(is_refused(&nobodys) && !is_refused(&anothers), "{context}");
                continue;
            }
            let owns = asker.ask(&message, &owned);
            if who.is_narrow() {
                for answer in [&anothers, &nobodys, &owns] {
                    check_own(who, &message, answer, own);
                }
            }
            if who.may(message.kind) {
                assert!(!is_refused(&owns), "{context}: {owns:?}");
                permitted += 1;
            } else {
                assert!(is_refused(&owns), "{context}: {owns:?}");
                assert_eq!(plain(&owns), plain(&nobodys), "{context}: what is refused exists");
                refused += 1;
            }
        }
    }
    assert!(permitted > 60 && refused > 30, "{permitted} permitted, {refused} refused");
}
