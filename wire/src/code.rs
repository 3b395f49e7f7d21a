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
