//! Numeric codes: resources, roles, and the reasons a request is refused or a session ended.
//!
//! Codes are stable: a number, once published, never changes its meaning and is never reused.

/// Declares a byte-sized protocol enumeration with its names and a checked conversion.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)+ }

        impl $name {
            /// Every value, in numeric order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The value with this number, if there is one.
            pub const fn from_u8(value: u8) -> Option<$name> {
                match value { $($value => Some($name::$variant),)+ _ => None }
            }

            /// The text shown to people.
            pub const fn text(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }

            /// The text of the value with this number, shown as `unknown` if there is none.
            pub const fn text_of(value: u8) -> &'static str {
                match $name::from_u8(value) { Some(known) => known.text(), None => "unknown" }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.text())
            }
        }
    };
}

codes! {
    /// What can be sold, reserved and limited.
    Resource {
        /// Processor time; a VRU is 10 millicores by default.
        Cpu = 0 => "cpu",
        /// Memory; a VRU is 16 MiB by default.
        Memory = 1 => "memory",
        /// Block device bandwidth; a VRU is 1 MiB/s by default.
        BlockIo = 2 => "block-io",
        /// Network bandwidth; a VRU is 1 Mbit/s by default.
        Network = 3 => "network",
        /// Accelerator slots.
        Accelerator = 4 => "accelerator",
    }
}

/// Number of resources.
pub const RESOURCES: usize = Resource::ALL.len();

codes! {
    /// What a session may do.
    Role {
        /// Reads everything, or all of one account; changes nothing.
        Observer = 0 => "observer",
        /// Acts for one instance only.
        Agent = 1 => "agent",
        /// Acts for its own account and its instances.
        Tenant = 2 => "tenant",
        /// Acts for anyone and administers the host.
        Operator = 3 => "operator",
    }
}

codes! {
    /// Side of an order.
    Side {
        /// Buys credits with funds.
        Buy = 0 => "buy",
        /// Sells credits for funds.
        Sell = 1 => "sell",
    }
}

impl Side {
    /// The other side.
    pub const fn opposite(self) -> Side {
        match self {
            Side::Buy => Side::Sell,
            Side::Sell => Side::Buy,
        }
    }
}

codes! {
    /// How an order is priced.
    OrderType {
        /// Trades at its limit price or better.
        Limit = 0 => "limit",
        /// Trades at any price; what finds no counterparty is cancelled. `price_ticks` of a
        /// market buy is the worst price it may pay, which bounds what is held for it.
        Market = 1 => "market",
    }
}

codes! {
    /// How long an order stays.
    TimeInForce {
        /// Good till cancelled.
        Gtc = 0 => "gtc",
        /// Good till date: cancelled at the first tick at or after `expires_at_ms`.
        Gtd = 1 => "gtd",
        /// Immediate or cancel: the unmatched rest is cancelled at once.
        Ioc = 2 => "ioc",
        /// Fill or kill: trades whole at once or not at all.
        Fok = 3 => "fok",
    }
}

codes! {
    /// What a book does with orders.
    Phase {
        /// Orders that cross trade at once.
        Continuous = 0 => "continuous",
        /// Orders gather and rest; the call ends with one auction.
        Call = 1 => "call",
        /// Orders can only be cancelled.
        Halted = 2 => "halted",
    }
}

codes! {
    /// Why a limit on the host is not what was decided.
    Lag {
        /// The group is gone.
        Gone = 1 => "gone",
        /// The kernel offers no such file here.
        Missing = 2 => "no such file",
        /// The block device is not there.
        NoDevice = 3 => "no device",
        /// The instance has no network interface of its own.
        NoInterface = 4 => "no interface",
        /// The interface takes no such queueing discipline.
        NoDiscipline = 5 => "no discipline",
        /// The file may not be written.
        Denied = 6 => "denied",
        /// The kernel, or the VM, does not take the value.
        OutOfRange = 7 => "out of range",
        /// Another value is in force than was written.
        Differs = 8 => "differs",
        /// Somebody else changed it.
        Changed = 9 => "changed",
        /// What reads back makes no sense.
        Garbled = 10 => "garbled",
        /// Failed otherwise; the daemon's faults say how.
        Failed = 11 => "failed",
        /// It waits for its turn.
        Waiting = 12 => "waiting",
        /// What writes of `cpu.max` gave away is gone without first.
        Refills = 13 => "refills",
        /// More memory is in use: it is taken step by step.
        InUse = 14 => "in use",
        /// The guest has not followed yet.
        Guest = 15 => "guest",
        /// The VM's monitor or port does not answer.
        Unreachable = 16 => "unreachable",
    }
}

codes! {
    /// Why an order left the book without being filled.
    CancelReason {
        /// Its owner asked.
        Requested = 0 => "requested",
        /// Part of a mass cancel.
        MassCancel = 1 => "mass cancel",
        /// Its session ended and had asked for cancel-on-disconnect.
        Disconnected = 2 => "disconnected",
        /// Its date passed, or the credits that it offered expired.
        Expired = 3 => "expired",
        /// Immediate-or-cancel, fill-or-kill or market: no (more) counterparty.
        Unmatched = 4 => "unmatched",
        /// It would have traded with its own beneficial account.
        SelfTrade = 5 => "self-trade",
        /// Its instance was removed.
        InstanceRemoved = 6 => "instance removed",
        /// Its account's new limits leave no room for what is open on that side.
        LimitsChanged = 10 => "limits changed",
    }
}

codes! {
    /// Who goes first where leases compete.
    LeaseClass {
        /// Keeps promises to critical applications; only as far as an operator entitled the instance.
        Sla = 0 => "sla",
        /// Betters performance within bounds of cost.
        Bounded = 1 => "bounded",
        /// Takes what is left.
        Speculative = 2 => "speculative",
    }
}

codes! {
    /// What became of a lease, and why.
    LeaseOutcome {
        /// It has more VRUs than before.
        Granted = 0 => "granted",
        /// It waits for VRUs: no rent would get it more now.
        Unavailable = 1 => "resource unavailable",
        /// It waits for VRUs: a higher rent would get it more now.
        PriceTooLow = 2 => "price too low",
        /// It lost VRUs to a lease that goes first, and waits for them.
        Displaced = 3 => "displaced",
        /// It lost VRUs because there is less to lease, and waits for them.
        Withdrawn = 4 => "withdrawn",
        /// It ended: its owner asked.
        Cancelled = 5 => "cancelled",
        /// It ended: its date passed.
        Expired = 6 => "expired",
        /// It ended: its account could not cover what it may cost next.
        OutOfFunds = 7 => "out of funds",
        /// It ended: its instance was removed.
        InstanceRemoved = 8 => "instance removed",
        /// It ended: its instance is entitled to less of class sla.
        Revoked = 9 => "revoked",
        /// It ended: the reserve rent rose above its own.
        BelowReserve = 10 => "below the reserve",
        /// Its terms are others now.
        Changed = 11 => "changed",
    }
}

impl LeaseOutcome {
    /// True if the lease is over.
    pub const fn is_end(self) -> bool {
        (LeaseOutcome::Cancelled as u8) <= self as u8
            && self as u8 <= LeaseOutcome::BelowReserve as u8
    }
}

codes! {
    /// What an objective is about. Those an instance reports are its own word; the host measures the others.
    Kpi {
        /// Reported: how long the workload's answers take, microseconds.
        Latency = 0 => "latency",
        /// Reported: what the workload does in a second.
        Throughput = 1 => "throughput",
        /// Measured: time in which some of it waited for a processor in its run queue, thousandths.
        CpuWait = 2 => "cpu-wait",
        /// Measured: time in which it had used up its quota of processor time, thousandths.
        Throttled = 3 => "throttled",
        /// Measured: time in which some of it waited for memory, thousandths.
        MemoryWait = 4 => "memory-wait",
        /// Measured: time in which some of it waited for block I/O, thousandths.
        IoWait = 5 => "io-wait",
        /// Measured: pages a second that it needed again after they had been reclaimed.
        Refaults = 6 => "refaults",
        /// Measured: how long it waited for block devices, over its operations, microseconds.
        IoLatency = 7 => "io-latency",
    }
}

/// Number of KPIs.
pub const KPIS: usize = Kpi::ALL.len();

impl Kpi {
    /// True if instances say it; false if the host measures it.
    pub const fn is_reported(self) -> bool {
        matches!(self, Kpi::Latency | Kpi::Throughput)
    }
}

codes! {
    /// What became of an objective, and why.
    Rescue {
        /// It was in breach for its time: it bids for a lease.
        Breached = 0 => "breached",
        /// It is still in breach: it bids for more.
        Raised = 1 => "raised",
        /// It is still in breach and bids for all that it may.
        AtBound = 2 => "at its bound",
        /// It recovered for its time: its lease ended.
        Recovered = 3 => "recovered",
        /// Nobody told its value for a minute: its lease ended.
        Silent = 4 => "silent",
        /// Its budget of this window does not cover what it would bid, or its lease goes on costing.
        BudgetSpent = 5 => "budget spent",
        /// The account's free funds do not cover that.
        OutOfFunds = 6 => "out of funds",
        /// Its bid was refused; the event's `code` is a [`Reject`].
        Refused = 7 => "refused",
        /// Its lease ended otherwise; the event's `code` is a [`LeaseOutcome`].
        Ended = 8 => "ended",
        /// It was removed, or given other terms: its lease ended.
        Removed = 9 => "removed",
    }
}

codes! {
    /// Why a task is over.
    TaskEnd {
        /// It said that its work is done.
        Finished = 0 => "finished",
        /// Somebody who may asked.
        Requested = 1 => "requested",
        /// It has cost all that it bid.
        Exhausted = 2 => "bid exhausted",
        /// Tasks of a higher margin won its last VRU, and it does not wait.
        Displaced = 3 => "displaced",
        /// The instance it ran in, or had to run in, was removed.
        InstanceRemoved = 4 => "instance removed",
    }
}

codes! {
    /// Who says what will be needed.
    Source {
        /// The daemon's own forecaster, or an operator in its place.
        Model = 0 => "model",
        /// Who uses the instance.
        User = 1 => "user",
        /// A planned event: a scheduled job, a campaign.
        Plan = 2 => "plan",
    }
}

codes! {
    /// The place of a forecast. What it is called is no more than that: when it holds it says itself.
    Horizon {
        /// The next hour.
        Hour = 0 => "hour",
        /// The next day.
        Day = 1 => "day",
        /// The next week.
        Week = 2 => "week",
        /// An event.
        Event = 3 => "event",
    }
}

codes! {
    /// If an experiment goes on, or why it does not.
    ExperimentEnd {
        /// It goes on.
        Running = 0 => "running",
        /// An operator ended it.
        Stopped = 1 => "stopped",
        /// B was worse than A by more than was agreed.
        Harm = 2 => "harm",
        /// It has lasted as long as it should.
        Over = 3 => "over",
    }
}

codes! {
    /// What of a forecast a policy covers.
    Cover {
        /// Quantile 50.
        P50 = 0 => "p50",
        /// Quantile 90.
        P90 = 1 => "p90",
        /// Quantile 97.5.
        P975 = 2 => "p97.5",
        /// None: what is measured.
        Measured = 3 => "measured",
    }
}

codes! {
    /// What a policy did.
    PolicyAct {
        /// Nothing.
        Nothing = 0 => "nothing",
        /// It bid for a lease, or changed its own.
        Lease = 1 => "lease",
        /// It ended its lease.
        Release = 2 => "release",
        /// It bought credits.
        Buy = 3 => "buy",
    }
}

codes! {
    /// Why a policy did that.
    PolicyReason {
        /// The instance has enough without it.
        Enough = 0 => "enough",
        /// A forecast says that it will lack VRUs.
        Forecast = 1 => "forecast",
        /// It was measured to lack VRUs.
        Measured = 2 => "measured",
        /// The budget does not last for more.
        Budget = 3 => "budget",
        /// Rent and price are above what the policy pays.
        TooDear = 4 => "too dear",
        /// Credits are cheaper than the rent.
        Cheaper = 5 => "cheaper",
        /// The policy is set anew or removed.
        Removed = 6 => "set anew",
    }
}

codes! {
    /// Why a request was refused. A refused request changed nothing.
    Reject {
        /// The frame's kind is not a request, or is not known to this version.
        UnknownKind = 1 => "unknown message kind",
        /// The frame's length is not the one its kind has.
        BadLength = 2 => "wrong message length",
        /// A field holds a value outside its range, or padding is not zero.
        BadField = 3 => "field out of range",
        /// The role of this session does not allow the request.
        NotPermitted = 4 => "not permitted for this role",
        /// The session sent more than its throttle allows; wait and send again.
        Throttled = 5 => "throttled",
        /// A queue on the way to the core is full; wait and send again.
        Busy = 6 => "queue full",
        /// The journal has stopped; nothing that changes state is accepted any more.
        JournalStopped = 7 => "journal stopped",
        /// The daemon is shutting down.
        Draining = 8 => "draining",
        /// The request's `client_id` is not greater than every earlier one of the session.
        DuplicateClientId = 9 => "client id already used",
        /// Replay from this number is no longer possible; the reply names the oldest kept.
        ReplayGone = 10 => "too old to replay",
        /// The first message must be a logon.
        NotLoggedOn = 11 => "not logged on",
        /// A second logon on one connection.
        AlreadyLoggedOn = 12 => "already logged on",
        /// Credentials are unknown, or do not allow the account, role or instance asked for.
        BadCredentials = 13 => "credentials refused",
        /// Rings and the board are handed out on the Unix socket only.
        NotOnThisTransport = 14 => "not on this transport",
        /// The account's sessions together sent more than its throttle allows; wait and send again.
        AccountThrottled = 15 => "account throttled",

        /// No such account.
        UnknownAccount = 20 => "unknown account",
        /// No such instance.
        UnknownInstance = 21 => "unknown instance",
        /// No such tier.
        UnknownTier = 22 => "unknown tier",
        /// No such book.
        UnknownBook = 23 => "unknown book",
        /// The handle names no live order of this session's account.
        UnknownOrder = 24 => "unknown order",
        /// The name is empty, not UTF-8, or taken.
        BadName = 25 => "name empty or taken",

        /// The account's free funds do not cover what the order could cost.
        InsufficientFunds = 30 => "insufficient funds",
        /// The instance's free credits do not cover what the order sells.
        InsufficientCredits = 31 => "insufficient credits",
        /// The tier has too little unreserved capacity.
        InsufficientCapacity = 32 => "insufficient capacity",
        /// An amount would overflow.
        Overflow = 33 => "amount overflows",

        /// The price is zero or beyond the book's ladder.
        BadPrice = 40 => "price outside the ladder",
        /// The quantity is zero or above the book's maximum; of a swap, nothing would arrive.
        BadQuantity = 41 => "quantity out of range",
        /// A post-only order would have traded at once.
        WouldCross = 42 => "post-only would trade",
        /// The order's date is not in the future.
        BadExpiry = 43 => "expiry not in the future",
        /// The instance does not belong to the book's tier.
        WrongTier = 44 => "instance is of another tier",

        /// The table of accounts is full.
        AccountsFull = 50 => "account table full",
        /// The table of instances is full.
        InstancesFull = 51 => "instance table full",
        /// The table of orders is full.
        OrdersFull = 52 => "order table full",
        /// The instance has as many open orders as it may.
        InstanceOrdersFull = 53 => "too many open orders for this instance",
        /// The table of sessions is full.
        SessionsFull = 54 => "session table full",
        /// The account still has instances, orders or funds; the tier has instances.
        NotEmpty = 55 => "not empty",

        /// The book is halted: orders can only be cancelled.
        BookHalted = 60 => "book halted",
        /// The book is in a call: only limit orders that may rest are taken.
        BookInCall = 61 => "book in call",

        /// The exchange rate is outside its bounds, or the bounds are none.
        RateOutOfBounds = 70 => "exchange rate out of bounds",
        /// The source tier's pool has too few credits for the swap.
        PoolTooSmall = 71 => "tier's pool has too few credits",
        /// The destination tier has no capacity of the resource, or can take no more.
        TierFull = 72 => "destination tier takes no capacity",
        /// The table of exchanges is full.
        ExchangesFull = 73 => "exchange table full",
        /// The tier is being drained, or is not in the state (live, draining, spare) that this needs.
        WrongTierState = 74 => "tier is in another state",
        /// No such trade, or it is too old to be reversed.
        UnknownTrade = 80 => "unknown trade",
        /// The trade has been reversed.
        AlreadyReversed = 81 => "already reversed",
        /// The order is worth more than the account's orders may be.
        OrderValueLimit = 82 => "order above the account's largest value",
        /// With what is open and was traded in this window the account would pass its limit.
        WindowLimit = 83 => "beyond the account's limit of this window",
        /// With what it has and wants the account would hold more credits than it may.
        PositionLimit = 84 => "beyond the account's largest position",

        /// A storage class is another tier's: for more of its own an instance bids for block I/O.
        OwnTier = 89 => "storage of its own tier",
        /// The handle names no lease of an instance that this session acts for.
        UnknownLease = 90 => "unknown lease",
        /// The table of leases is full, or the instance has as many of the resource as it may.
        LeasesFull = 91 => "too many leases",
        /// The rent is below the class's reserve rent.
        RentTooLow = 92 => "rent below the reserve",
        /// No operator entitled the instance to so many VRUs of class sla.
        NotEntitled = 93 => "not entitled to the class",
        /// Bids, changes and loans of the instance's resource, or values of its KPI, came too fast; wait a second.
        TooOften = 94 => "too often",
        /// An objective bids for this lease: only the objective changes its terms.
        LeaseOfRescue = 97 => "an objective's lease",
        /// The table of objectives is full.
        ObjectivesFull = 98 => "objective table full",
        /// The instance has no objective of this KPI.
        UnknownObjective = 99 => "unknown objective",

        /// The task's margin with one VRU is not above its minimum, or not above zero.
        MarginTooLow = 110 => "margin too low",
        /// No instance of the group has a VRU that the task could be granted.
        SwarmFull = 111 => "no VRU to be had",
        /// The table of tasks is full.
        TasksFull = 112 => "task table full",
        /// No such group, or it does not sell to the account.
        UnknownGroup = 113 => "unknown group",
        /// The handle names no task of this session's account.
        UnknownTask = 114 => "unknown task",
        /// The table of groups is full, or the group has as many instances as it may.
        GroupsFull = 115 => "group table or group full",
        /// The group sells no VRUs of this resource.
        NotOffered = 116 => "group does not offer the resource",

        /// The table of policies is full.
        PoliciesFull = 120 => "policy table full",
        /// The table of migrations is full: settle some.
        MigrationsFull = 130 => "migration table full",
        /// No such proposal or ticket, or the ticket is another host's.
        UnknownMigration = 131 => "unknown migration",
        /// The record or the receipt is not that of this migration.
        WrongHandover = 132 => "record or receipt of another migration",
        /// The instance has arrived: that cannot be taken back.
        AlreadyArrived = 133 => "the instance has arrived",

        /// No such token of this session's account: it is over, or another daemon's.
        UnknownToken = 140 => "unknown token",
        /// The table of tokens is full.
        TokensFull = 141 => "token table full",
        /// The token's seal does not hold: nobody sealed it, its key is gone, or it was altered.
        TokenForged = 142 => "token's seal does not hold",
        /// The token was changed since; ask for it again.
        TokenStale = 143 => "token changed since",
        /// Its window has not begun, or is over.
        TokenNotOpen = 144 => "outside the token's window",
        /// It is redeemed: that is for good.
        TokenRedeemed = 145 => "token is redeemed",
        /// They differ in more than VRUs, or in more than windows that meet.
        TokensDiffer = 146 => "tokens do not go together",
        /// It is bound to another instance.
        TokenBound = 147 => "token is bound to another instance",
        /// The table of swaps is full, or as many of the account are not over as may be.
        SwapsFull = 148 => "too many swaps",
        /// No such swap of this session's account, or it is forgotten.
        UnknownSwap = 149 => "unknown swap",
        /// The swap does not wait for approval any more; its row says what became of it.
        SwapSettled = 150 => "swap is settled",
        /// The token was issued as not to be swapped.
        NotSwapEligible = 151 => "token is not to be swapped",
        /// The token is sticky and redeemed: a session on it is in progress.
        TokenSticky = 152 => "sticky token is in use",
        /// The token is part of a swap that is under way; what it may not until that ends.
        TokenInSwap = 153 => "token is in a swap",
        /// A token's window has not begun, or would be over before the swap and its boost are.
        BeyondWindow = 154 => "beyond a token's window",
        /// Moving a limit of the resource can take longer than an owner lets its workloads stand still.
        DowntimeTooLong = 155 => "longer downtime than agreed",
        /// No token that may be swapped for it has so many VRUs to spare.
        NoSource = 156 => "no token to have it from",
        /// The table of planned events is full, or 16 of the instance's resource are planned.
        EventsFull = 161 => "planned events are full",
        /// No such experiment, or it has ended.
        UnknownExperiment = 162 => "unknown experiment",
        /// Eight experiments are running, or have policies to be taken back.
        ExperimentsFull = 163 => "experiment table full",
        /// The daemon looks for no swaps, so that there is nothing to compare: `machine.swap_every_ms` is 0.
        NoSwapManager = 164 => "machine.swap_every_ms is 0",
    }
}

codes! {
    /// What became of a token.
    TokenOutcome {
        /// It was issued.
        Issued = 0 => "issued",
        /// An instance has its VRUs.
        Redeemed = 1 => "redeemed",
        /// Part of it is a token of its own now, or it is that part.
        Split = 2 => "split",
        /// It took another in.
        Merged = 3 => "merged",
        /// It is part of another and over.
        Absorbed = 4 => "absorbed",
        /// It is another account's.
        Transferred = 5 => "transferred",
        /// Its instance is gone: it is bound to none and not redeemed any more.
        Returned = 6 => "returned",
        /// An operator ended it.
        Revoked = 7 => "revoked",
        /// Its window is over, and so is it.
        Expired = 8 => "expired",
        /// A swap began or ended: it has fewer or more VRUs.
        Swapped = 9 => "swapped",
    }
}

codes! {
    /// What an account answers those who ask it for VRUs of its tokens.
    SwapAnswer {
        /// A person decides.
        Ask = 0 => "ask",
        /// Yes, if the incentive is enough; else no.
        Accept = 1 => "accept",
        /// No.
        Refuse = 2 => "refuse",
    }
}

codes! {
    /// How a swap of tokens stands.
    SwapState {
        /// It waits for the source's owner.
        Proposed = 0 => "proposed",
        /// The destination has VRUs of the source.
        Active = 1 => "active",
        /// The source has VRUs of the destination in return.
        Boosting = 2 => "boosting",
        /// It is over as agreed.
        Ended = 3 => "ended",
        /// It was ended before its time: each token has its own VRUs again.
        RolledBack = 4 => "rolled back",
        /// The source's owner, or its policy, did not want it.
        Rejected = 5 => "rejected",
        /// Who asked for it took it back.
        Withdrawn = 6 => "withdrawn",
        /// Nobody decided in time.
        Expired = 7 => "expired",
        /// It could not be carried out any more.
        Refused = 8 => "refused",
    }
}

impl SwapState {
    /// True if it is over.
    pub const fn is_over(self) -> bool {
        self as u8 >= SwapState::Ended as u8
    }
}

codes! {
    /// Why a swap of tokens stands as it does.
    SwapReason {
        /// Somebody asked for it.
        Requested = 0 => "requested",
        /// The daemon asked for it: a forecast says that the destination's instance will lack VRUs.
        Forecast = 1 => "forecast",
        /// The source's owner decided.
        Owner = 2 => "owner",
        /// The standing policy of the source's account decided.
        Policy = 3 => "policy",
        /// Both tokens are of one account.
        OneAccount = 4 => "one account",
        /// The incentive is less than the policy lends for.
        IncentiveTooLow = 5 => "incentive too low",
        /// Its time was over.
        Time = 6 => "time",
        /// A KPI of who lent was worse than agreed.
        Degraded = 7 => "degraded",
        /// A token was changed.
        TokenChanged = 8 => "token changed",
        /// A token is over.
        TokenOver = 9 => "token over",
        /// The instance of a token is gone.
        InstanceRemoved = 10 => "instance removed",
    }
}

codes! {
    /// Why the daemon closed a connection. Sent in the last frame, where one can still be sent.
    Goodbye {
        /// The peer logged out.
        LoggedOut = 0 => "logged out",
        /// A frame's header made no sense: framing is lost.
        BadFrame = 1 => "framing lost",
        /// The version is not spoken here.
        BadVersion = 2 => "unsupported version",
        /// A message's session sequence was not the last one plus one.
        SequenceGap = 3 => "session sequence gap",
        /// Nothing was heard for twice the agreed heartbeat interval.
        HeartbeatLost = 4 => "heartbeat lost",
        /// The peer read too slowly; log on again and replay.
        SlowReader = 5 => "reading too slowly",
        /// The same session logged on from another connection.
        Superseded = 6 => "superseded by another connection",
        /// The daemon stops.
        ShuttingDown = 7 => "shutting down",
        /// No logon arrived in time.
        LogonTimeout = 8 => "no logon in time",
        /// Credentials were refused.
        BadCredentials = 9 => "credentials refused",
        /// As many connections as the configuration allows are open.
        TooManyConnections = 10 => "too many connections",
        /// The journal has stopped: what was asked and not answered may or may not be remembered.
        /// After the daemon's next start, log on to the session again and replay.
        JournalStopped = 11 => "journal stopped",
    }
}
