//! Commands: what can be asked of the machine, parsed once and valid from then on.
//!
//! Requests of sessions are the protocol's own messages. The daemon's own commands (start-up,
//! time, measured use, sessions) live here, in the range of kinds the gateway refuses.

use vendue_wire::code::{
    Cover, Horizon, Kpi, Lag, LeaseClass, OrderType, Phase, Reject, Resource, Role, Side, Source,
    SwapAnswer, TimeInForce,
};
use vendue_wire::message::*;
use vendue_wire::messages;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

messages! {
    /// The first record of a journal: the machine's bounds and rules, fixed for its life.
    0x40 Genesis {
        /// Accounts, at most.
        accounts_max: U32,
        /// Instances, at most 65,535.
        instances_max: U32,
        /// Open orders, at most.
        orders_max: U32,
        /// Open orders of one instance, at most.
        orders_per_instance_max: U32,
        /// Sessions remembered, at most 65,535.
        sessions_max: U32,
        /// Seconds of baseline that a balance may hold.
        credit_cap_s: U32,
        /// Milliseconds of baseline a balance must hold before a burst starts again.
        burst_resume_ms: U32,
        /// Seconds of a window in which accounts' limits count what they swap.
        limit_window_s: U32,
        /// The newest trades that an operator can reverse, at most so many.
        reversible_trades: U32,
        /// Leases, granted or waiting, at most.
        leases_max: U32,
        /// Swaps of tokens are looked for so often, milliseconds; 0: never.
        swap_every_ms: U32,
        /// Maker's fee in basis points of the notional.
        maker_fee_bps: U16,
        /// Taker's fee in basis points of the notional.
        taker_fee_bps: U16,
        /// A lease is displaced by one whose rent is so many percent higher.
        lease_margin_percent: U16,
    }
    /// A tier's resource and the book that trades its credits. Follows [`Genesis`].
    0x41 DefineBook {
        /// Size of a VRU in the resource's unit.
        vru_size: U64,
        /// Capacity in VRUs.
        capacity_vru: U64,
        /// Micro-units of funds of one price tick.
        tick_micro: U64,
        /// Highest price in ticks, at most 65,535.
        price_ticks_max: U32,
        /// Largest quantity of an order, in credits.
        quantity_max: U32,
        /// Burst ceiling in percent of the baseline.
        burst_percent: U32,
        /// A call auction so often, at multiples of it since 1970 UTC, milliseconds; 0: none.
        auction_every_ms: U32,
        /// The call lasts so long before each auction, milliseconds; as long as
        /// `auction_every_ms` if the book is never continuous.
        call_ms: U32,
        /// Tier; tiers are defined in order.
        tier: U16,
        /// A [`Resource`].
        resource: u8,
        /// Zero.
        reserved: u8,
        /// Tier's name.
        name: [u8; NAME_BYTES],
    }
    /// Time passes. Also carries what the machine answered to an earlier tick, so that a replay
    /// that went another way is found out.
    0x42 Tick {
        /// Sequence of that earlier tick, 0 for none.
        digest_sequence: U64,
        /// Running digest right after it.
        digest: U64,
    }
    /// The host measured use.
    0x43 Usage {
        /// Milli-credits used since the last report.
        used_millicredits: U64,
        /// Instance.
        instance: U32,
        /// A [`Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 3],
    }
    /// What an instance ran in has ended by itself.
    0x49 Perished {
        /// Instance.
        instance: U32,
        /// Zero.
        reserved: U32,
        /// Where it ran: the number may be another's by now.
        place: [u8; PLACE_BYTES],
    }
    /// The host measured KPIs of an instance that has objectives on them.
    0x4d HostKpis {
        /// Instance.
        instance: U32,
        /// As [`HOST_KPIS`]; all bits set: not measured, or of no objective.
        values: [U32; HOST_KPIS.len()],
    }
    /// What came of things that were to be set on the host. Changes nothing here: the journal
    /// remembers it.
    0x48 Outcomes {
        /// Outcomes that later ones replaced before they could be told.
        replaced: U64,
        /// Zeros where there are no more.
        rows: [OutcomeRow; OUTCOMES_MAX],
    }
    /// A logon that the gateway has authenticated.
    0x44 OpenSession {
        /// The session's own number.
        session: U64,
        /// First report to replay, 0 for none.
        replay_from: U64,
        /// Account it acts for, or [`ANY`].
        account: U32,
        /// Instance it acts for, or [`ANY`].
        instance: U32,
        /// Heartbeat interval agreed, milliseconds.
        heartbeat_ms: U32,
        /// A [`Role`].
        role: u8,
        /// 1: cancel its orders when it goes.
        cancel_on_disconnect: u8,
        /// Zero.
        reserved: [u8; 2],
        /// What the peer is known as: the audit trail names it.
        peer: [u8; PEER_BYTES],
    }
    /// A session's connection is gone.
    0x45 CloseSession {
        /// Slot of the session.
        slot: U32,
    }
    /// What a book's credits are worth. Follows the books; a book without one has
    /// [`DefineCredits::usual`].
    0x47 DefineCredits {
        /// Seconds of baseline that an instance is launched with.
        launch_s: U32,
        /// Seconds after which credits that lay idle all the while burn; 0: never.
        expiry_s: U32,
        /// Reserve price of use above the baseline, milli-credits a VRU-second.
        reserve_milli: U32,
        /// Power of wealth in a weight, hundredths.
        wealth_percent: U32,
        /// Cap of an instance without credits, in hundredths of its baseline.
        spent_percent: U32,
        /// Tier.
        tier: U16,
        /// A [`Resource`].
        resource: u8,
        /// Zero.
        reserved: u8,
    }
    /// How a resource is swapped from a tier to another. Follows the books; pairs without one have
    /// [`super::exchange::Exchange::usual`].
    0x4f DefineExchange {
        /// Rate: so many VRUs arrive for so many that leave.
        rate: [U32; 2],
        /// The least that the rate may be.
        low: [U32; 2],
        /// The most that the rate may be.
        high: [U32; 2],
        /// Demand is looked at so often, milliseconds; 0: never.
        every_ms: U32,
        /// VRUs that demand swaps at a time, at most.
        step_vru: U32,
        /// The source is idle up to so many percent of its capacity.
        idle_percent: U16,
        /// The destination is saturated from so many percent of its capacity on.
        saturated_percent: U16,
        /// Looks in a row that must find them so before demand swaps.
        looks: U16,
        /// Percent that demand moves the rate by at each look; 0: it does not.
        rate_step_percent: U16,
        /// Source tier.
        from: U16,
        /// Destination tier.
        to: U16,
        /// A [`Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 3],
    }
    /// The tiers from one on are spare: an operator can define them. Follows the books.
    0x4e SpareTiers {
        /// First spare tier.
        from: U16,
    }
    /// The daemon starts again. While it was down nothing was measured, so nothing is earned.
    0x46 Restart {}
}

/// The KPIs that the host measures, in order of their numbers.
pub const HOST_KPIS: [Kpi; 6] =
    [Kpi::CpuWait, Kpi::Throttled, Kpi::MemoryWait, Kpi::IoWait, Kpi::Refaults, Kpi::IoLatency];
/// Outcomes in one [`Outcomes`] at most.
pub const OUTCOMES_MAX: usize = 16;
/// [`OutcomeRow::aim`] at most.
const AIM_MAX: u8 = 4;
/// [`OutcomeRow::effect`]: read back as wanted.
pub const APPLIED: u8 = 1;
/// [`OutcomeRow::effect`]: not there in time; it goes on.
pub const PARTIAL: u8 = 2;
/// [`OutcomeRow::effect`]: could not be done; it is tried again.
pub const REFUSED: u8 = 3;
/// [`OutcomeRow::effect`]: kept in memory, in a dry run.
pub const DECIDED: u8 = 4;

/// What came of one thing. Amounts are in the resource's unit, or a weight; without a bound all bits
/// are set.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct OutcomeRow {
    /// What was to be.
    pub wanted: U64,
    /// What was read back, or reached.
    pub held: U64,
    /// Instance, [`TIER_BIT`] and a tier, or what [`hvctl::host::account_key`] says of an account.
    pub number: U32,
    /// A [`hvctl::outcome::Aim`].
    pub aim: u8,
    /// A [`Resource`].
    pub resource: u8,
    /// [`APPLIED`], [`PARTIAL`], [`REFUSED`] or [`DECIDED`]; 0: no outcome.
    pub effect: u8,
    /// A [`Lag`], 0 if there is none.
    pub reason: u8,
}

impl OutcomeRow {
    /// Checks its fields.
    fn check(&self) -> Result<(), Reject> {
        if self.effect == 0 {
            return zero(self.as_bytes());
        }
        let known = Resource::from_u8(self.resource).is_some()
            && self.aim <= AIM_MAX
            && self.effect <= DECIDED
            && (self.reason == 0 || Lag::from_u8(self.reason).is_some());
        if known { Ok(()) } else { Err(Reject::BadField) }
    }
}

/// Where a command comes from and when. Everything the machine knows of the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Place in the one order of all commands.
    pub sequence: u64,
    /// The only time there is: nanoseconds since 1970 UTC, never going back.
    pub time_ns: u64,
    /// The request's number within its session, 0 for the daemon's own commands.
    pub request: u64,
    /// Slot of the session, or [`ANY`].
    pub session: u32,
    /// Connection that query answers and logon answers go to.
    pub connection: u32,
}

/// A parsed command. Enumerations and reserved bytes have been checked.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each variant is the message of the same name")]
pub enum Command<'a> {
    NewOrder(NewOrderTerms<'a>),
    Cancel(&'a Cancel),
    Replace(&'a Replace),
    MassCancel(&'a MassCancel, Option<Side>),
    CreateAccount(&'a CreateAccount),
    Deposit(&'a Deposit),
    Withdraw(&'a Withdraw),
    CreateInstance(&'a CreateInstance),
    RemoveInstance(&'a RemoveInstance),
    GrantCredits(&'a GrantCredits, Resource),
    SetBid(&'a SetBid, Resource),
    FreezeInstance(&'a FreezeInstance),
    SetPhase(&'a SetPhase, Option<Phase>),
    CancelAccount(&'a CancelAccount, Option<Side>),
    SetLimits(&'a SetLimits),
    ReverseTrade(&'a ReverseTrade),
    SetAccountCap(&'a SetAccountCap),
    SwapTiers(&'a SwapTiers, Resource),
    SetRate(&'a SetRate, Resource),
    SetTier(&'a SetTier),
    BidLease(&'a BidLease, (Resource, LeaseClass)),
    ChangeLease(&'a ChangeLease),
    CancelLease(&'a CancelLease),
    Lend(&'a Lend, Resource),
    SetReserveRent(&'a SetReserveRent, LeaseClass),
    EntitleInstance(&'a EntitleInstance, Resource),
    SetObjective(&'a SetObjective, Resource),
    ReportKpi(&'a ReportKpi),
    SubmitTask(&'a SubmitTask, Resource),
    CancelTask(&'a CancelTask),
    ReportTask(&'a ReportTask),
    SetGroup(&'a SetGroup),
    SetMember(&'a SetMember),
    SetForecast(&'a SetForecast, (Resource, Source, Horizon)),
    SetPolicy(&'a SetPolicy, (Resource, LeaseClass, Cover)),
    PlanEvent(&'a PlanEvent, Resource),
    StartExperiment(&'a StartExperiment, Resource),
    StopExperiment(&'a StopExperiment),
    /// An operator reserves VRUs for an account.
    IssueToken(&'a IssueToken, Resource),
    /// An instance gets the VRUs of a token.
    RedeemToken(&'a RedeemToken),
    /// A part of a token becomes one of its own.
    SplitToken(&'a SplitToken),
    /// Two tokens become one.
    MergeTokens(&'a MergeTokens),
    /// A token becomes another account's.
    TransferToken(&'a TransferToken),
    /// An operator ends a token.
    RevokeToken(&'a RevokeToken),
    SwapRequest(&'a SwapRequest),
    SwapApprove(&'a SwapApprove),
    SwapReject(&'a SwapReject),
    SetSwapPolicy(&'a SetSwapPolicy),
    ExpectInstance(&'a ExpectInstance),
    Depart(&'a Depart),
    Arrive(&'a Arrive),
    SettleMigration(&'a SettleMigration),
    Genesis(&'a Genesis),
    DefineBook(&'a DefineBook, Resource),
    DefineCredits(&'a DefineCredits, Resource),
    DefineExchange(&'a DefineExchange, Resource),
    SpareTiers(&'a SpareTiers),
    Tick(&'a Tick),
    Usage(&'a Usage, Resource),
    HostKpis(&'a HostKpis),
    Perished(&'a Perished),
    Outcomes(&'a Outcomes),
    OpenSession(&'a OpenSession, Role),
    CloseSession(&'a CloseSession),
    Restart,
    Query(Query<'a>),
}

/// A parsed query: changes nothing, is not journaled.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each variant is the message of the same name")]
pub enum Query<'a> {
    Replay(&'a Replay),
    Status,
    Accounts(&'a QueryAccounts),
    Instances(&'a QueryInstances),
    Tiers,
    Books(&'a QueryBooks),
    Orders(&'a QueryOrders),
    Trades(&'a QueryTrades),
    Ledger,
    Limits(&'a QueryLimits),
    Audit(&'a QueryAudit),
    Depth(&'a QueryDepth),
    Market(&'a QueryMarket),
    Bars(&'a QueryBars),
    Tape(&'a QueryTape),
    Exchanges(&'a QueryExchanges),
    Sensors(&'a QuerySensors),
    Leases(&'a QueryLeases),
    Rents(&'a QueryRents),
    Objectives(&'a QueryObjectives),
    Tasks(&'a QueryTasks),
    Groups(&'a QueryGroups),
    Members(&'a QueryMembers),
    Forecasts(&'a QueryForecasts),
    Policies(&'a QueryPolicies),
    Events(&'a QueryEvents),
    Experiments(&'a QueryExperiments),
    Exposures(&'a QueryExposures),
    History(&'a QueryHistory, Resource),
    /// Tokens.
    Tokens(&'a QueryTokens),
    Swaps(&'a SwapList),
    SwapPolicies(&'a QuerySwapPolicies),
    Migrations(&'a QueryMigrations),
    Report(&'a QueryReport),
    Moment(&'a QueryMoment),
}

/// A new order with its enumerations parsed.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the message's own fields, typed")]
pub struct NewOrderTerms<'a> {
    pub message: &'a NewOrder,
    pub side: Side,
    /// None: a limit order that stays until it is cancelled, which nearly all orders are.
    pub style: Option<Style>,
}

/// How an order trades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Limit or market.
    pub order_type: OrderType,
    /// How long it stays.
    pub time_in_force: TimeInForce,
    /// Refused if it would trade at once.
    pub post_only: bool,
    /// Where its own account is in the way, the resting order goes.
    pub cancel_maker: bool,
}

impl Style {
    /// A limit order that stays until it is cancelled: what nearly all orders are.
    pub const PLAIN: Style = Style {
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Gtc,
        post_only: false,
        cancel_maker: false,
    };

    /// True if what is not traded at once stays in the book.
    #[inline(always)]
    pub fn rests(self) -> bool {
        self.order_type == OrderType::Limit
            && matches!(self.time_in_force, TimeInForce::Gtc | TimeInForce::Gtd)
    }
}

/// True for kinds that change nothing and are not journaled.
pub fn is_query(kind: u8) -> bool {
    matches!(kind, Replay::KIND | 0x30..0x40 | 0x54..0x58 | 0x5a..=0x5f | QueryMigrations::KIND | QueryTokens::KIND | QueryHistory::KIND | QueryEvents::KIND | QueryExperiments::KIND | QueryExposures::KIND | SwapList::KIND | QuerySwapPolicies::KIND)
}

/// True for kinds that only the daemon itself may issue.
pub fn is_internal(kind: u8) -> bool {
    (0x40..0x50).contains(&kind)
}

fn body<M: Body>(bytes: &[u8]) -> Result<&M, Reject> {
    M::ref_from_bytes(bytes).map_err(|_| Reject::BadLength)
}

fn zero(bytes: &[u8]) -> Result<(), Reject> {
    if bytes.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(Reject::BadField) }
}

fn flag(value: u8) -> Result<(), Reject> {
    if value <= 1 { Ok(()) } else { Err(Reject::BadField) }
}

impl<'a> Command<'a> {
    /// Parses the body of a message of kind `kind`.
    ///
    /// # Errors
    /// [`Reject::UnknownKind`], [`Reject::BadLength`] or [`Reject::BadField`].
    #[inline(always)]
    pub fn parse(kind: u8, bytes: &'a [u8]) -> Result<Command<'a>, Reject> {
        match kind {
            NewOrder::KIND => Ok(Command::NewOrder(parse_new_order(body(bytes)?)?)),
            Cancel::KIND => Ok(Command::Cancel(body(bytes)?)),
            Replace::KIND => Ok(Command::Replace(body(bytes)?)),
            MassCancel::KIND => parse_mass_cancel(body(bytes)?),
            0x20..0x30 => parse_admin(kind, bytes),
            SetForecast::KIND => parse_forecast(body(bytes)?),
            SetPolicy::KIND => parse_policy(body(bytes)?),
            PlanEvent::KIND => parse_event(body(bytes)?),
            StartExperiment::KIND | StopExperiment::KIND => parse_experiment(kind, bytes),
            kind if is_query(kind) => Ok(Command::Query(parse_query(kind, bytes)?)),
            0x14..0x18 | 0x1c | 0x50..0x53 => parse_lease(kind, bytes),
            0x18..0x1c | 0x58..0x5c => parse_swarm(kind, bytes),
            0x62..=0x65 => parse_migration(kind, bytes),
            0x67..=0x6c => parse_token(kind, bytes),
            0x6e..=0x72 => parse_swap(kind, bytes),
            0x40..0x50 => parse_internal(kind, bytes),
            _ => Err(Reject::UnknownKind),
        }
    }
}

impl Command<'_> {
    /// Kind and id by which a reject names a session's request; zeros for other commands.
    #[inline(always)]
    pub fn request(&self) -> (u8, u64) {
        match self {
            Command::NewOrder(terms) => (NewOrder::KIND, terms.message.client_id.get()),
            Command::Cancel(m) => (Cancel::KIND, m.handle.get()),
            Command::Replace(m) => (Replace::KIND, m.client_id.get()),
            Command::MassCancel(..) => (MassCancel::KIND, 0),
            Command::CreateAccount(m) => (CreateAccount::KIND, m.client_id.get()),
            Command::Deposit(m) => (Deposit::KIND, m.client_id.get()),
            Command::Withdraw(m) => (Withdraw::KIND, m.client_id.get()),
            Command::CreateInstance(m) => (CreateInstance::KIND, m.client_id.get()),
            Command::RemoveInstance(m) => (RemoveInstance::KIND, m.client_id.get()),
            Command::GrantCredits(m, _) => (GrantCredits::KIND, m.client_id.get()),
            Command::SetBid(m, _) => (SetBid::KIND, m.client_id.get()),
            Command::FreezeInstance(m) => (FreezeInstance::KIND, m.client_id.get()),
            Command::SetPhase(m, _) => (SetPhase::KIND, m.client_id.get()),
            Command::CancelAccount(m, _) => (CancelAccount::KIND, m.client_id.get()),
            Command::SetLimits(m) => (SetLimits::KIND, m.client_id.get()),
            Command::ReverseTrade(m) => (ReverseTrade::KIND, m.client_id.get()),
            Command::SetAccountCap(m) => (SetAccountCap::KIND, m.client_id.get()),
            Command::SwapTiers(m, _) => (SwapTiers::KIND, m.client_id.get()),
            Command::SetRate(m, _) => (SetRate::KIND, m.client_id.get()),
            Command::SetTier(m) => (SetTier::KIND, m.client_id.get()),
            Command::BidLease(m, _) => (BidLease::KIND, m.client_id.get()),
            Command::ChangeLease(m) => (ChangeLease::KIND, m.client_id.get()),
            Command::CancelLease(m) => (CancelLease::KIND, m.client_id.get()),
            Command::Lend(m, _) => (Lend::KIND, m.client_id.get()),
            Command::SetReserveRent(m, _) => (SetReserveRent::KIND, m.client_id.get()),
            Command::EntitleInstance(m, _) => (EntitleInstance::KIND, m.client_id.get()),
            Command::SetObjective(m, _) => (SetObjective::KIND, m.client_id.get()),
            Command::ReportKpi(m) => (ReportKpi::KIND, m.instance.get().into()),
            Command::SubmitTask(m, _) => (SubmitTask::KIND, m.client_id.get()),
            Command::CancelTask(m) => (CancelTask::KIND, m.handle.get()),
            Command::ReportTask(m) => (ReportTask::KIND, m.handle.get()),
            Command::SetGroup(m) => (SetGroup::KIND, m.client_id.get()),
            Command::SetMember(m) => (SetMember::KIND, m.client_id.get()),
            Command::SetForecast(m, _) => (SetForecast::KIND, m.client_id.get()),
            Command::SetPolicy(m, _) => (SetPolicy::KIND, m.client_id.get()),
            Command::PlanEvent(m, _) => (PlanEvent::KIND, m.client_id.get()),
            Command::StartExperiment(m, _) => (StartExperiment::KIND, m.client_id.get()),
            Command::StopExperiment(m) => (StopExperiment::KIND, m.client_id.get()),
            Command::IssueToken(m, _) => (IssueToken::KIND, m.client_id.get()),
            Command::RedeemToken(m) => (RedeemToken::KIND, m.client_id.get()),
            Command::SplitToken(m) => (SplitToken::KIND, m.client_id.get()),
            Command::MergeTokens(m) => (MergeTokens::KIND, m.client_id.get()),
            Command::TransferToken(m) => (TransferToken::KIND, m.client_id.get()),
            Command::RevokeToken(m) => (RevokeToken::KIND, m.client_id.get()),
            Command::SwapRequest(m) => (SwapRequest::KIND, m.client_id.get()),
            Command::SwapApprove(m) => (SwapApprove::KIND, m.client_id.get()),
            Command::SwapReject(m) => (SwapReject::KIND, m.client_id.get()),
            Command::SetSwapPolicy(m) => (SetSwapPolicy::KIND, m.client_id.get()),
            Command::ExpectInstance(m) => (ExpectInstance::KIND, m.client_id.get()),
            Command::Depart(m) => (Depart::KIND, m.client_id.get()),
            Command::Arrive(m) => (Arrive::KIND, m.client_id.get()),
            Command::SettleMigration(m) => (SettleMigration::KIND, m.client_id.get()),
            _ => (0, 0),
        }
    }
}

#[inline(always)]
fn parse_new_order(message: &NewOrder) -> Result<NewOrderTerms<'_>, Reject> {
    let NewOrder { order_type, time_in_force, post_only, self_trade, reserved, .. } = *message;
    let side = Side::from_u8(message.side).ok_or(Reject::BadField)?;
    // Four at once: most orders have nothing in them.
    let style = [order_type, time_in_force, post_only, self_trade];
    if u32::from_le_bytes(style) != 0 || reserved != 0 || message.expires_at_ms != U64::ZERO {
        return Ok(NewOrderTerms { message, side, style: Some(parse_style(message)?) });
    }
    Ok(NewOrderTerms { message, side, style: None })
}

#[cold]
fn parse_style(message: &NewOrder) -> Result<Style, Reject> {
    zero(&[message.reserved])?;
    flag(message.post_only)?;
    flag(message.self_trade)?;
    let style = Style {
        order_type: OrderType::from_u8(message.order_type).ok_or(Reject::BadField)?,
        time_in_force: TimeInForce::from_u8(message.time_in_force).ok_or(Reject::BadField)?,
        post_only: message.post_only == 1,
        cancel_maker: message.self_trade == 1,
    };
    if style.post_only && !style.rests() {
        return Err(Reject::BadField);
    }
    if (style.time_in_force == TimeInForce::Gtd) != (message.expires_at_ms.get() != 0) {
        return Err(Reject::BadField);
    }
    Ok(style)
}

fn parse_mass_cancel(message: &MassCancel) -> Result<Command<'_>, Reject> {
    zero(&[message.reserved])?;
    Ok(Command::MassCancel(message, side_or_both(message.side)?))
}

fn side_or_both(side: u8) -> Result<Option<Side>, Reject> {
    match side {
        2 => Ok(None),
        side => Side::from_u8(side).map(Some).ok_or(Reject::BadField),
    }
}

fn parse_admin(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    match kind {
        CreateAccount::KIND => {
            let message: &CreateAccount = body(bytes)?;
            zero(&message.reserved)?;
            if message.group > 63 {
                return Err(Reject::BadField);
            }
            Ok(Command::CreateAccount(message))
        }
        Deposit::KIND => {
            let message: &Deposit = body(bytes)?;
            zero(message.reserved.as_ref())?;
            Ok(Command::Deposit(message))
        }
        Withdraw::KIND => {
            let message: &Withdraw = body(bytes)?;
            zero(message.reserved.as_ref())?;
            Ok(Command::Withdraw(message))
        }
        CreateInstance::KIND => {
            let message: &CreateInstance = body(bytes)?;
            zero(message.reserved.as_ref())?;
            zero(message.reserved2.as_ref())?;
            Ok(Command::CreateInstance(message))
        }
        RemoveInstance::KIND => {
            let message: &RemoveInstance = body(bytes)?;
            zero(message.reserved.as_ref())?;
            Ok(Command::RemoveInstance(message))
        }
        GrantCredits::KIND => {
            let message: &GrantCredits = body(bytes)?;
            zero(&message.reserved)?;
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::GrantCredits(message, resource))
        }
        SetBid::KIND => {
            let message: &SetBid = body(bytes)?;
            zero(&message.reserved)?;
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::SetBid(message, resource))
        }
        SetPhase::KIND => {
            let message: &SetPhase = body(bytes)?;
            zero(&message.reserved)?;
            let phase = match message.phase {
                3 => None,
                phase => Some(Phase::from_u8(phase).ok_or(Reject::BadField)?),
            };
            Ok(Command::SetPhase(message, phase))
        }
        CancelAccount::KIND => {
            let message: &CancelAccount = body(bytes)?;
            zero(&[message.reserved])?;
            Ok(Command::CancelAccount(message, side_or_both(message.side)?))
        }
        _ => parse_bounds(kind, bytes),
    }
}

/// What an operator lets accounts and instances do.
fn parse_bounds(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    match kind {
        SetLimits::KIND => {
            let message: &SetLimits = body(bytes)?;
            zero(&message.reserved)?;
            flag(message.opted_in)?;
            if message.group > 63 {
                return Err(Reject::BadField);
            }
            Ok(Command::SetLimits(message))
        }
        FreezeInstance::KIND => {
            let message: &FreezeInstance = body(bytes)?;
            zero(&message.reserved)?;
            flag(message.frozen)?;
            Ok(Command::FreezeInstance(message))
        }
        ReverseTrade::KIND => Ok(Command::ReverseTrade(body(bytes)?)),
        SetAccountCap::KIND => Ok(Command::SetAccountCap(body(bytes)?)),
        _ => parse_exchange(kind, bytes),
    }
}

/// What operators may ask of tiers.
fn parse_exchange(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    match kind {
        SwapTiers::KIND => {
            let message: &SwapTiers = body(bytes)?;
            zero(&message.reserved)?;
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::SwapTiers(message, resource))
        }
        SetRate::KIND => {
            let message: &SetRate = body(bytes)?;
            zero(&message.reserved)?;
            flag(message.fixed)?;
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::SetRate(message, resource))
        }
        SetTier::KIND => {
            let message: &SetTier = body(bytes)?;
            zero(&[message.reserved])?;
            if message.act > TIER_DELETE {
                return Err(Reject::BadField);
            }
            // What an act does not look at is zero.
            if message.act != TIER_DEFINE {
                zero(message.vru_size.as_bytes())?;
                zero(&message.name)?;
            }
            if message.act > TIER_CHANGE {
                zero(message.capacity_vru.as_bytes())?;
            }
            Ok(Command::SetTier(message))
        }
        _ => Err(Reject::UnknownKind),
    }
}

/// Leases, and what operators may ask about them.
fn parse_lease(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    let resource = |resource: u8| Resource::from_u8(resource).ok_or(Reject::BadField);
    let class = |class: u8| LeaseClass::from_u8(class).ok_or(Reject::BadField);
    match kind {
        BidLease::KIND => {
            let message: &BidLease = body(bytes)?;
            zero(&[message.reserved])?;
            flag(message.percent)?;
            flag(message.all_or_none)?;
            flag(message.storage)?;
            // A storage class is block I/O; what is none names no tier.
            if message.storage == 0 {
                zero(message.tier.as_bytes())?;
            } else if message.resource != Resource::BlockIo as u8 {
                return Err(Reject::BadField);
            }
            Ok(Command::BidLease(message, (resource(message.resource)?, class(message.class)?)))
        }
        ChangeLease::KIND => Ok(Command::ChangeLease(body(bytes)?)),
        CancelLease::KIND => Ok(Command::CancelLease(body(bytes)?)),
        Lend::KIND => {
            let message: &Lend = body(bytes)?;
            zero(&message.reserved)?;
            Ok(Command::Lend(message, resource(message.resource)?))
        }
        SetReserveRent::KIND => {
            let message: &SetReserveRent = body(bytes)?;
            zero(&[message.reserved])?;
            Ok(Command::SetReserveRent(message, class(message.class)?))
        }
        EntitleInstance::KIND => {
            let message: &EntitleInstance = body(bytes)?;
            zero(&message.reserved)?;
            Ok(Command::EntitleInstance(message, resource(message.resource)?))
        }
        _ => parse_objective(kind, bytes),
    }
}

/// What may be asked about objectives.
fn parse_objective(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    match kind {
        SetObjective::KIND => {
            let message: &SetObjective = body(bytes)?;
            zero(&message.reserved)?;
            flag(message.below)?;
            flag(message.remove)?;
            Kpi::from_u8(message.kpi).ok_or(Reject::BadField)?;
            LeaseClass::from_u8(message.class).ok_or(Reject::BadField)?;
            if message.remove == 1 {
                let SetObjective { client_id, instance, kpi, remove, .. } = *message;
                let rest =
                    SetObjective { client_id, instance, kpi, remove, ..SetObjective::zeroed() };
                if rest != *message {
                    return Err(Reject::BadField);
                }
            }
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::SetObjective(message, resource))
        }
        ReportKpi::KIND => {
            let message: &ReportKpi = body(bytes)?;
            zero(&message.reserved)?;
            // What the host measures it does not take from others.
            if !Kpi::from_u8(message.kpi).is_some_and(Kpi::is_reported) {
                return Err(Reject::BadField);
            }
            Ok(Command::ReportKpi(message))
        }
        _ => Err(Reject::UnknownKind),
    }
}

/// What may be asked of the swarm.
fn parse_swarm(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    match kind {
        SubmitTask::KIND => {
            let message: &SubmitTask = body(bytes)?;
            zero(&message.reserved)?;
            flag(message.queue)?;
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::SubmitTask(message, resource))
        }
        CancelTask::KIND => Ok(Command::CancelTask(body(bytes)?)),
        ReportTask::KIND => {
            let message: &ReportTask = body(bytes)?;
            zero(message.reserved.as_bytes())?;
            Ok(Command::ReportTask(message))
        }
        SetGroup::KIND => Ok(Command::SetGroup(body(bytes)?)),
        SetMember::KIND => {
            let message: &SetMember = body(bytes)?;
            zero(message.reserved.as_bytes())?;
            Ok(Command::SetMember(message))
        }
        _ => Err(Reject::UnknownKind),
    }
}

fn parse_forecast(m: &SetForecast) -> Result<Command<'_>, Reject> {
    zero(&m.reserved)?;
    let resource = Resource::from_u8(m.resource).ok_or(Reject::BadField)?;
    let source = Source::from_u8(m.source).ok_or(Reject::BadField)?;
    let horizon = Horizon::from_u8(m.horizon).ok_or(Reject::BadField)?;
    let vru = [m.p50_vru, m.p90_vru, m.p975_vru].map(U32::get);
    let (starts_ms, lasts_ms) = (u64::from(m.starts_in_ms.get()), u64::from(m.lasts_ms.get()));
    let nothing = starts_ms == 0 && vru == [0; 3];
    let within = vru.is_sorted() && starts_ms + lasts_ms <= FORECAST_MS_MAX.into();
    if !within || (lasts_ms == 0 && !nothing) {
        return Err(Reject::BadField);
    }
    Ok(Command::SetForecast(m, (resource, source, horizon)))
}

fn parse_event(m: &PlanEvent) -> Result<Command<'_>, Reject> {
    zero(&m.reserved)?;
    let resource = Resource::from_u8(m.resource).ok_or(Reject::BadField)?;
    super::plan::check_message(m)?;
    Ok(Command::PlanEvent(m, resource))
}

fn parse_experiment(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    if kind == StopExperiment::KIND {
        let message: &StopExperiment = body(bytes)?;
        zero(message.reserved.as_bytes())?;
        return Ok(Command::StopExperiment(message));
    }
    let message: &StartExperiment = body(bytes)?;
    zero(&[message.reserved])?;
    super::experiment::check(message)?;
    let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
    Ok(Command::StartExperiment(message, resource))
}

fn parse_history(m: &QueryHistory) -> Result<Query<'_>, Reject> {
    zero(&[m.reserved])?;
    if !BAR_WIDTHS_S.contains(&m.width_s.get().into()) {
        return Err(Reject::BadField);
    }
    let resource = Resource::from_u8(m.resource).ok_or(Reject::BadField)?;
    Ok(Query::History(m, resource))
}

fn parse_policy(m: &SetPolicy) -> Result<Command<'_>, Reject> {
    zero(&m.reserved)?;
    super::policy::check(m)?;
    let resource = Resource::from_u8(m.resource).ok_or(Reject::BadField)?;
    let class = LeaseClass::from_u8(m.class).ok_or(Reject::BadField)?;
    let cover = Cover::from_u8(m.cover).ok_or(Reject::BadField)?;
    Ok(Command::SetPolicy(m, (resource, class, cover)))
}

/// What may be asked of migrations.
fn parse_migration(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    match kind {
        ExpectInstance::KIND => {
            let message: &ExpectInstance = body(bytes)?;
            zero(message.reserved.as_bytes())?;
            zero(message.reserved2.as_bytes())?;
            Ok(Command::ExpectInstance(message))
        }
        Depart::KIND => {
            let message: &Depart = body(bytes)?;
            zero(message.reserved.as_bytes())?;
            Ok(Command::Depart(message))
        }
        Arrive::KIND => {
            let message: &Arrive = body(bytes)?;
            zero(&message.reserved)?;
            let leases = usize::from(message.leases);
            if leases > MIGRATION_LEASES {
                return Err(Reject::BadField);
            }
            for at in 0..leases {
                let known = LeaseClass::from_u8(message.lease_class[at]).is_some()
                    && Resource::from_u8(message.lease_resource[at]).is_some();
                flag(message.lease_all_or_none[at])?;
                if !known {
                    return Err(Reject::BadField);
                }
            }
            Ok(Command::Arrive(message))
        }
        SettleMigration::KIND => {
            let message: &SettleMigration = body(bytes)?;
            zero(&message.reserved)?;
            if message.act > MIGRATION_CLOSE {
                return Err(Reject::BadField);
            }
            Ok(Command::SettleMigration(message))
        }
        _ => Err(Reject::UnknownKind),
    }
}

/// What may be asked of tokens. Nobody has checked a seal here.
fn parse_token(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    match kind {
        IssueToken::KIND => {
            let message: &IssueToken = body(bytes)?;
            zero(&[message.reserved])?;
            flag(message.swap_eligible)?;
            flag(message.sticky)?;
            if message.profile != u8::MAX && Kpi::from_u8(message.profile).is_none() {
                return Err(Reject::BadField);
            }
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::IssueToken(message, resource))
        }
        RedeemToken::KIND => {
            let message: &RedeemToken = body(bytes)?;
            zero(message.reserved.as_bytes())?;
            Ok(Command::RedeemToken(message))
        }
        SplitToken::KIND => {
            let message: &SplitToken = body(bytes)?;
            zero(message.reserved.as_bytes())?;
            // By one or the other.
            if (message.vru == U32::ZERO) == (message.at_ms == U64::ZERO) {
                return Err(Reject::BadField);
            }
            Ok(Command::SplitToken(message))
        }
        MergeTokens::KIND => Ok(Command::MergeTokens(body(bytes)?)),
        TransferToken::KIND => {
            let message: &TransferToken = body(bytes)?;
            zero(message.reserved.as_bytes())?;
            Ok(Command::TransferToken(message))
        }
        RevokeToken::KIND => Ok(Command::RevokeToken(body(bytes)?)),
        _ => Err(Reject::UnknownKind),
    }
}

/// What may be asked of swaps of tokens.
fn parse_swap(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    match kind {
        SwapRequest::KIND => {
            let message: &SwapRequest = body(bytes)?;
            super::swap::check(message)?;
            Ok(Command::SwapRequest(message))
        }
        SwapApprove::KIND => Ok(Command::SwapApprove(body(bytes)?)),
        SwapReject::KIND => {
            let message: &SwapReject = body(bytes)?;
            // Text, and then nothing.
            let shown = text(&message.words);
            zero(&message.words[shown.len()..])?;
            Ok(Command::SwapReject(message))
        }
        SetSwapPolicy::KIND => {
            let message: &SetSwapPolicy = body(bytes)?;
            zero(message.reserved.as_bytes())?;
            flag(message.seek)?;
            let percent = message.degradation_percent.get();
            if SwapAnswer::from_u8(message.answer).is_none() || percent > DEGRADATION_PERCENT_MAX {
                return Err(Reject::BadField);
            }
            Ok(Command::SetSwapPolicy(message))
        }
        _ => Err(Reject::UnknownKind),
    }
}

fn parse_internal(kind: u8, bytes: &[u8]) -> Result<Command<'_>, Reject> {
    match kind {
        Genesis::KIND => Ok(Command::Genesis(body(bytes)?)),
        DefineBook::KIND => {
            let message: &DefineBook = body(bytes)?;
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::DefineBook(message, resource))
        }
        DefineCredits::KIND => {
            let message: &DefineCredits = body(bytes)?;
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::DefineCredits(message, resource))
        }
        DefineExchange::KIND => {
            let message: &DefineExchange = body(bytes)?;
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::DefineExchange(message, resource))
        }
        SpareTiers::KIND => Ok(Command::SpareTiers(body(bytes)?)),
        Tick::KIND => Ok(Command::Tick(body(bytes)?)),
        Usage::KIND => {
            let message: &Usage = body(bytes)?;
            let resource = Resource::from_u8(message.resource).ok_or(Reject::BadField)?;
            Ok(Command::Usage(message, resource))
        }
        HostKpis::KIND => Ok(Command::HostKpis(body(bytes)?)),
        Perished::KIND => {
            let message: &Perished = body(bytes)?;
            zero(message.reserved.as_bytes())?;
            Ok(Command::Perished(message))
        }
        Outcomes::KIND => {
            let message: &Outcomes = body(bytes)?;
            message.rows.iter().try_for_each(OutcomeRow::check)?;
            Ok(Command::Outcomes(message))
        }
        OpenSession::KIND => {
            let message: &OpenSession = body(bytes)?;
            let role = Role::from_u8(message.role).ok_or(Reject::BadField)?;
            Ok(Command::OpenSession(message, role))
        }
        CloseSession::KIND => Ok(Command::CloseSession(body(bytes)?)),
        Restart::KIND => body::<Restart>(bytes).map(|_| Command::Restart),
        _ => Err(Reject::UnknownKind),
    }
}

fn parse_query(kind: u8, bytes: &[u8]) -> Result<Query<'_>, Reject> {
    Ok(match kind {
        Replay::KIND => Query::Replay(body(bytes)?),
        QueryStatus::KIND => body::<QueryStatus>(bytes).map(|_| Query::Status)?,
        QueryAccounts::KIND => Query::Accounts(body(bytes)?),
        QueryInstances::KIND => Query::Instances(body(bytes)?),
        QueryTiers::KIND => body::<QueryTiers>(bytes).map(|_| Query::Tiers)?,
        QueryBooks::KIND => Query::Books(body(bytes)?),
        QueryOrders::KIND => Query::Orders(body(bytes)?),
        QueryTrades::KIND => Query::Trades(body(bytes)?),
        QueryLedger::KIND => body::<QueryLedger>(bytes).map(|_| Query::Ledger)?,
        QueryLimits::KIND => Query::Limits(body(bytes)?),
        QueryAudit::KIND => Query::Audit(body(bytes)?),
        QueryDepth::KIND => Query::Depth(body(bytes)?),
        QueryMarket::KIND => Query::Market(body(bytes)?),
        QueryBars::KIND => {
            let message: &QueryBars = body(bytes)?;
            zero(message.reserved.as_ref())?;
            if !BAR_WIDTHS_S.contains(&message.width_s.get()) {
                return Err(Reject::BadField);
            }
            Query::Bars(message)
        }
        QueryTape::KIND => {
            let message: &QueryTape = body(bytes)?;
            zero(&message.reserved)?;
            Query::Tape(message)
        }
        QueryExchanges::KIND => Query::Exchanges(body(bytes)?),
        QuerySensors::KIND => Query::Sensors(body(bytes)?),
        QueryLeases::KIND => Query::Leases(body(bytes)?),
        QueryRents::KIND => Query::Rents(body(bytes)?),
        QueryObjectives::KIND => Query::Objectives(body(bytes)?),
        QueryTasks::KIND => Query::Tasks(body(bytes)?),
        QueryGroups::KIND => Query::Groups(body(bytes)?),
        QueryMembers::KIND => Query::Members(body(bytes)?),
        QueryForecasts::KIND => Query::Forecasts(body(bytes)?),
        QueryPolicies::KIND => Query::Policies(body(bytes)?),
        QueryEvents::KIND => Query::Events(body(bytes)?),
        QueryExperiments::KIND => Query::Experiments(body(bytes)?),
        QueryExposures::KIND => Query::Exposures(body(bytes)?),
        QueryHistory::KIND => parse_history(body(bytes)?)?,
        QueryTokens::KIND => Query::Tokens(body(bytes)?),
        SwapList::KIND => Query::Swaps(body(bytes)?),
        QuerySwapPolicies::KIND => Query::SwapPolicies(body(bytes)?),
        QueryMigrations::KIND => Query::Migrations(body(bytes)?),
        QueryReport::KIND => {
            let message: &QueryReport = body(bytes)?;
            zero(message.reserved.as_ref())?;
            if message.step_s.get() == 0 {
                return Err(Reject::BadField);
            }
            Query::Report(message)
        }
        QueryMoment::KIND => Query::Moment(body(bytes)?),
        _ => return Err(Reject::UnknownKind),
    })
}
