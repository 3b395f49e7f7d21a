//! Every message of the protocol: fixed layouts, little-endian, no implicit padding.
//!
//! Numbers of kinds: `0x01..` session, `0x10..` orders, `0x20..` administration, `0x30..` queries,
//! `0x40..0x4f` kept for the daemon's own journal and refused from outside, `0x80..` replies about
//! the session, `0x90..` reports, `0xa0..` and `0xd9..0xdf` notices to subscribers, `0xb0..` rows that
//! answer queries; `0xd0..0xd7` both, of tiers.
//!
//! A mutating request carries a `client_id`, greater than any the session has used before; that
//! one comparison makes ids unique and a retry harmless. Cancels need none: they carry a handle.

pub use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Stands for "every" or "none" in a 32-bit identifier.
pub const ANY: u32 = u32::MAX;
/// Stands for "every book".
pub const ANY_BOOK: u16 = u16::MAX;
/// Bytes of an account's or an instance's name, zero-padded UTF-8.
pub const NAME_BYTES: usize = 32;
/// Stands for "no limit" in an account's limits.
pub const UNLIMITED: u64 = u64::MAX;
/// Bytes of what a peer is known as, zero-padded UTF-8.
pub const PEER_BYTES: usize = 64;
/// Bytes of an instance's place on the host (a cgroup path), zero-padded UTF-8.
pub const PLACE_BYTES: usize = 192;
/// Bit of [`LimitRow::instance`]: what all instances of a tier may use together. The rest is the
/// tier's number; no instance has so high a one.
pub const TIER_BIT: u32 = 1 << 31;
/// Price levels a side that a depth row or the board holds.
pub const DEPTH_LEVELS: usize = 10;
/// Least bid of an instance, milli-credits a VRU-second.
pub const BID_MILLI_MIN: u32 = 100;
/// Greatest bid of an instance, milli-credits a VRU-second.
pub const BID_MILLI_MAX: u32 = 100_000;
/// Seconds that a bar can be wide.
pub const BAR_WIDTHS_S: [u32; 3] = [1, 60, 3600];
/// Bit of [`Subscribe::what`]: trades.
pub const TELL_SWAPS: u8 = 1;
/// Bit of [`Subscribe::what`]: changes of accounts' funds.
pub const TELL_FUNDS: u8 = 2;
/// Bit of [`Subscribe::what`]: changes of instances' credits.
pub const TELL_CREDITS: u8 = 4;
/// Bit of [`Subscribe::what`]: swaps between tiers.
pub const TELL_TIERS: u8 = 8;
/// [`SetTier::act`]: a spare tier becomes a tier.
pub const TIER_DEFINE: u8 = 0;
/// [`SetTier::act`]: other capacities.
pub const TIER_CHANGE: u8 = 1;
/// [`SetTier::act`]: no new instances, no orders, and nothing is swapped to it.
pub const TIER_DRAIN: u8 = 2;
/// [`SetTier::act`]: as before it was drained.
pub const TIER_RESUME: u8 = 3;
/// [`SetTier::act`]: a drained tier without instances becomes a spare one; its pool burns.
pub const TIER_DELETE: u8 = 4;
/// Every bit of [`Subscribe::what`].
pub const TELL_ALL: u8 = TELL_SWAPS | TELL_FUNDS | TELL_CREDITS | TELL_TIERS;
/// Seconds of its capacity whose credits a VRU takes along when it is swapped to another tier.
pub const SWAP_S: u64 = 60;
/// An exchange rate is at most so many to one, and at least one to so many.
pub const RATE_MAX: u32 = 1000;
/// Notices on their way to one subscriber at most.
pub const TAKE_MAX: u32 = 512;
/// Bytes of the longest notice's frame.
pub const NOTICE_BYTES_MAX: usize = size_of::<Header>() + size_of::<Swapped>();

/// A message body: a fixed layout with a kind.
pub trait Body: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Copy {
    /// The number in the header.
    const KIND: u8;
    /// The name in the schema.
    const NAME: &'static str;
    /// Name, offset and size in bytes of each field, in order.
    const FIELDS: &'static [(&'static str, usize, usize)];
}

/// Declares message bodies.
#[macro_export]
macro_rules! messages {
    ($($(#[$meta:meta])* $kind:literal $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ty,)* })+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, ::zerocopy::FromBytes, ::zerocopy::IntoBytes,
                ::zerocopy::KnownLayout, ::zerocopy::Immutable, ::zerocopy::Unaligned)]
            #[repr(C)]
            pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }

            impl $crate::message::Body for $name {
                const KIND: u8 = $kind;
                const NAME: &'static str = stringify!($name);
                const FIELDS: &'static [(&'static str, usize, usize)] =
                    &[$((stringify!($field), ::std::mem::offset_of!($name, $field), size_of::<$ty>()),)*];
            }

            impl $name {
                /// All fields zero.
                pub fn zeroed() -> Self { <Self as ::zerocopy::FromZeros>::new_zeroed() }
            }
        )+

        /// `(kind, name, body bytes, fields)` of every message declared here, in order.
        #[allow(clippy::type_complexity, reason = "a table row")]
        pub const SCHEMA: &[(u8, &str, usize, &[(&str, usize, usize)])] = &[
            $(($kind, stringify!($name), size_of::<$name>(), <$name as $crate::message::Body>::FIELDS),)+
        ];
    };
}

/// The header of every frame.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Bytes of the whole frame, header included.
    pub length: U16,
    /// [`crate::frame::VERSION`].
    pub version: u8,
    /// Which message the body is.
    pub kind: u8,
    /// Zero.
    pub reserved: U32,
    /// Session sequence. Towards the daemon: 1, 2, 3... within the session, heartbeats too.
    /// From the daemon: 1, 2, 3... for reports, which can be replayed; 0 for everything else.
    pub sequence: U64,
}

messages! {
    // ---- session -------------------------------------------------------------------------
    /// Opens or resumes a session. The first message on a connection, with sequence 0.
    0x01 Logon {
        /// The session's own number, chosen by the client; the same number resumes it.
        /// 0: anonymous; only queries are answered and nothing can be resumed.
        session: U64,
        /// Secret that plain TCP clients show (zero elsewhere: kernel or certificate vouch).
        token: [u8; 32],
        /// Replay reports from this sequence number; 0 for none.
        replay_from: U64,
        /// Account to act for; [`ANY`] where the credentials name one, or for operators.
        account: U32,
        /// Instance an agent acts for; [`ANY`] for other roles.
        instance: U32,
        /// Heartbeat interval proposed, milliseconds; the answer holds the one in force.
        heartbeat_ms: U32,
        /// A [`crate::code::Role`]; never more than the credentials allow.
        role: u8,
        /// 1 to cancel this session's orders when the connection ends.
        cancel_on_disconnect: u8,
        /// Zero.
        reserved: [u8; 2],
    }
    /// Says that the sender lives. Sent by either side when it has been silent for the interval.
    0x02 Heartbeat {}
    /// Ends the connection; the session can be resumed later.
    0x03 Logout {}
    /// Asks for reports again, from a sequence number.
    0x04 Replay {
        /// First report wanted.
        from: U64,
    }
    /// Asks for shared memory over the Unix socket. Answered by [`Attached`], with descriptors.
    0x05 Attach {
        /// 0: a ring pair that carries this session from now on; 1: the board (read-only).
        what: u8,
        /// Zero.
        reserved: [u8; 3],
        /// Bytes of each ring, a power of two within the daemon's bounds; 0 for the board.
        ring_bytes: U32,
    }
    /// Asks to be told of trades and balances from a place in the journal on. Answered by
    /// [`Subscribed`], then notices. Takes the place of the connection's subscription before.
    0x06 Subscribe {
        /// First journal record wanted; 0 for what comes next.
        from: U64,
        /// First part of that record wanted.
        part: U32,
        /// What is wanted, a sum: 1 trades, 2 accounts' funds, 4 instances' credits, 8 swaps
        /// between tiers (told to who sees all accounts).
        what: u8,
        /// Zero.
        reserved: [u8; 3],
    }
    /// Lets the daemon send more notices.
    0x07 Take {
        /// How many it may have sent since [`Subscribed`], at most what it has sent and
        /// [`Subscribed`]'s `take_max`.
        through: U64,
    }
    /// Ends the subscription. Answered by [`Unsubscribed`], if there is one.
    0x08 Unsubscribe {}

    // ---- orders --------------------------------------------------------------------------
    /// Enters an order. Answered by [`Accepted`] then reports, or by [`Rejected`].
    0x10 NewOrder {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// For [`crate::code::TimeInForce::Gtd`]: milliseconds since 1970 UTC; otherwise 0.
        expires_at_ms: U64,
        /// Instance whose credits are traded.
        instance: U32,
        /// Price in the book's ticks, 1 or more; for a market buy the worst price to pay.
        price_ticks: U32,
        /// Credits (VRU-seconds).
        quantity: U32,
        /// Book number, from [`QueryBooks`].
        book: U16,
        /// A [`crate::code::Side`].
        side: u8,
        /// A [`crate::code::OrderType`].
        order_type: u8,
        /// A [`crate::code::TimeInForce`].
        time_in_force: u8,
        /// 1: refuse the order if it would trade at once.
        post_only: u8,
        /// When it meets its own account: 0 cancels the rest of this order, 1 the resting one.
        self_trade: u8,
        /// Zero.
        reserved: u8,
    }
    /// Cancels the order a handle names. Answered by [`Cancelled`] or [`Rejected`].
    0x11 Cancel {
        /// From [`Accepted`] or [`Replaced`].
        handle: U64,
    }
    /// Changes price and open quantity. Keeps its place in the queue only if the price stays and
    /// the quantity shrinks. Answered by [`Replaced`] then reports, or by [`Rejected`].
    0x12 Replace {
        /// Greater than every earlier `client_id` of the session; the order's id from now on.
        client_id: U64,
        /// From [`Accepted`] or [`Replaced`].
        handle: U64,
        /// New price in ticks.
        price_ticks: U32,
        /// New open quantity in credits.
        quantity: U32,
    }
    /// Cancels many orders at once: [`Cancelled`] for each, then [`Done`] with their number.
    0x13 MassCancel {
        /// Only this instance, or [`ANY`] of the session's.
        instance: U32,
        /// Only this book, or [`ANY_BOOK`].
        book: U16,
        /// A [`crate::code::Side`], or 2 for both.
        side: u8,
        /// Zero.
        reserved: u8,
    }

    // ---- administration (operators) --------------------------------------------------------
    /// Creates an account. [`Done`] holds its number.
    0x20 CreateAccount {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Bit g set: sells to accounts of group g.
        sells_to: U64,
        /// Bit g set: buys from accounts of group g.
        buys_from: U64,
        /// Unique name.
        name: [u8; NAME_BYTES],
        /// Group, 0..=63.
        group: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// Pays funds into an account. [`Done`] holds the new free balance.
    0x21 Deposit {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Micro-units of funds.
        amount_micro: U64,
        /// Account number.
        account: U32,
        /// Zero.
        reserved: U32,
    }
    /// Pays funds out of an account. [`Done`] holds the new free balance.
    0x22 Withdraw {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Micro-units of funds.
        amount_micro: U64,
        /// Account number.
        account: U32,
        /// Zero.
        reserved: U32,
    }
    /// Puts an instance under Vendue's care. [`Done`] holds its number.
    0x23 CreateInstance {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Owning account.
        account: U32,
        /// Home tier.
        tier: U16,
        /// Zero.
        reserved: U16,
        /// VRUs reserved per resource, in the order of [`crate::code::Resource`].
        baseline_vru: [U32; 5],
        /// Zero.
        reserved2: U32,
        /// Unique name.
        name: [u8; NAME_BYTES],
        /// Where it runs: an absolute cgroup v2 path, or `pid:N` on a dry-run host, or empty.
        place: [u8; PLACE_BYTES],
    }
    /// Releases an instance: cancels its orders and burns its credits. Its limits are lifted.
    0x24 RemoveInstance {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Instance number.
        instance: U32,
        /// Zero.
        reserved: U32,
    }
    /// Issues credits to an instance beyond what it earns. [`Done`] holds the new free balance.
    0x25 GrantCredits {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Milli-credits.
        amount_millicredits: U64,
        /// Instance number.
        instance: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 3],
    }

    /// Sets what an instance bids for capacity that is contended: it weighs in proportion, and pays
    /// at most so much for what it uses above its baseline. [`Done`] holds the bid. For the
    /// instance's own agent, its tenant and operators.
    0x26 SetBid {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Milli-credits a VRU-second, 100 to 100,000; 1,000 until set.
        bid_milli: U32,
        /// Instance number.
        instance: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// Cancels the open orders of an account: [`Cancelled`] for each, then [`Done`] with their number.
    0x27 CancelAccount {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Account number.
        account: U32,
        /// Only this book, or [`ANY_BOOK`].
        book: U16,
        /// A [`crate::code::Side`], or 2 for both.
        side: u8,
        /// Zero.
        reserved: u8,
    }
    /// Puts a book into a phase, or back on its schedule. A book that becomes continuous holds the
    /// auction of its call first. [`Done`] holds the phase that is in force now.
    0x28 SetPhase {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Book number.
        book: U16,
        /// A [`crate::code::Phase`], in force until the next `SetPhase`; 3: as scheduled.
        phase: u8,
        /// Zero.
        reserved: [u8; 5],
    }
    /// Changes, drains, resumes or deletes a tier, or defines one in the place of a spare. [`Done`]
    /// holds the tier's number.
    0x2a SetTier {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// To define: size of a VRU of each resource in its unit; 0 for what it was. Otherwise 0.
        vru_size: [U64; 5],
        /// To define and to change: capacity of each resource in VRUs; 0 to leave it. Otherwise 0.
        capacity_vru: [U32; 5],
        /// Tier.
        tier: U16,
        /// One of [`TIER_DEFINE`], [`TIER_CHANGE`], [`TIER_DRAIN`], [`TIER_RESUME`], [`TIER_DELETE`].
        act: u8,
        /// Zero.
        reserved: u8,
        /// To define: unique name. Otherwise empty.
        name: [u8; NAME_BYTES],
    }
    /// Caps what the account's instances use of processors together, as far as they live below its
    /// group: section 7. [`Done`] holds the cap.
    0x2b SetAccountCap {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Account number.
        account: U32,
        /// Thousandths of a processor, 10 to 65,536,000; 0 for no cap.
        millicores: U32,
    }
    /// Swaps capacity, and the pool's credits that go with it, from a tier to another at the rate in
    /// force. [`Done`] holds the VRUs that arrived.
    0x2c SwapTiers {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// VRUs of the source, at most; what the rate leaves over stays there.
        vru: U32,
        /// Source tier.
        from: U16,
        /// Destination tier.
        to: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// Sets the rate of swaps from a tier to another, and the bounds that it stays in. [`Done`]
    /// holds the exchange's place in [`QueryExchanges`].
    0x2d SetRate {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// So many VRUs arrive for so many that leave: numerator, denominator.
        rate: [U32; 2],
        /// The least that it may be from now on; zeros for what it is.
        low: [U32; 2],
        /// The most that it may be from now on; zeros for what it is.
        high: [U32; 2],
        /// Source tier.
        from: U16,
        /// Destination tier.
        to: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// 1: it stays so; 0: demand may move it, where the configuration says so.
        fixed: u8,
        /// Zero.
        reserved: [u8; 2],
    }

    /// Sets whom an account may trade with, and how much: all of it at once. [`Done`] holds how many
    /// of its orders were cancelled because what is open passes the new limits of a window.
    0x2e SetLimits {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Bit g set: sells to accounts of group g.
        sells_to: U64,
        /// Bit g set: buys from accounts of group g.
        buys_from: U64,
        /// Credits it may sell in a window, or [`UNLIMITED`].
        sell_max_credits: U64,
        /// Credits it may buy in a window, or [`UNLIMITED`].
        buy_max_credits: U64,
        /// Micro-units that one order may be worth, or [`UNLIMITED`].
        order_max_micro: U64,
        /// Credits it may hold and have ordered, or [`UNLIMITED`].
        position_max_credits: U64,
        /// Account number.
        account: U32,
        /// Group, 0..=63.
        group: u8,
        /// 1: it swaps credits with other accounts, as the masks say; 0: with none.
        opted_in: u8,
        /// Zero.
        reserved: [u8; 2],
    }
    /// Undoes a trade: credits, funds and fees go back to whom they came from, if both parties still
    /// have them free. [`Done`] holds the trade's number; both parties get [`Reversed`].
    0x2f ReverseTrade {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Trade's number.
        trade: U64,
    }

    // ---- queries: rows, then QueryEnd ------------------------------------------------------
    /// How the daemon is: one [`StatusRow`], then a [`FaultRow`] for each standing fault.
    0x30 QueryStatus {}
    /// Accounts in order of number, a page at a time: an [`AccountRow`] each, followed by an
    /// [`AccountLimitsRow`] if it has limits.
    0x31 QueryAccounts {
        /// First number wanted.
        from: U32,
    }
    /// Instances in order of number, a page at a time.
    0x32 QueryInstances {
        /// First number wanted.
        from: U32,
    }
    /// Tiers: one [`TierRow`] for each tier and resource that it has.
    0x33 QueryTiers {}
    /// Books in order of number, a page at a time.
    0x34 QueryBooks {
        /// First number wanted.
        from: U32,
    }
    /// Open orders of an instance, a page at a time.
    0x35 QueryOrders {
        /// Instance number.
        instance: U32,
        /// First position wanted.
        from: U32,
    }
    /// The newest trades, oldest first.
    0x36 QueryTrades {
        /// At most this many, within the daemon's tape.
        limit: U32,
        /// Only this book, or [`ANY_BOOK`].
        book: U16,
        /// Zero.
        reserved: U16,
    }
    /// The house's accounts and totals: one [`LedgerRow`] for each.
    0x37 QueryLedger {}
    /// Limits wanted, written and read back, a page of instances at a time.
    0x38 QueryLimits {
        /// First instance wanted.
        from: U32,
    }
    /// The audit trail: one [`AuditRow`] for each transaction, the chain verified on the way.
    0x39 QueryAudit {
        /// First sequence number wanted.
        from: U64,
        /// At most this many journal records are read.
        limit: U32,
        /// Zero.
        reserved: U32,
    }
    /// The best [`DEPTH_LEVELS`] levels of each side of a book: one [`DepthRow`].
    0x3a QueryDepth {
        /// Book number.
        book: U16,
        /// Zero.
        reserved: U16,
    }

    /// What each book's market comes to: one [`MarketRow`] a book, a page at a time.
    0x3b QueryMarket {
        /// First book wanted.
        from: U32,
    }
    /// The bars of a book, oldest first, a page at a time: [`BarRow`]s. A bar in which nothing
    /// traded is left out.
    0x3c QueryBars {
        /// From the bar on that holds this moment, nanoseconds since 1970 UTC; 0 for the oldest.
        from_ns: U64,
        /// One of [`BAR_WIDTHS_S`].
        width_s: U32,
        /// Book number.
        book: U16,
        /// Zero.
        reserved: U16,
    }
    /// The tape of trades, oldest first, a page at a time: [`TradeRow`]s.
    0x3d QueryTape {
        /// From this trade's number on; 0 for the oldest that is kept.
        from: U64,
        /// Only this book, or [`ANY_BOOK`].
        book: U16,
        /// Zero.
        reserved: [u8; 6],
    }
    /// The exchanges between tiers that are not the usual: [`ExchangeRow`]s, a page at a time.
    0x3e QueryExchanges {
        /// First place wanted.
        from: U32,
    }

    // ---- replies about the session (sequence 0) --------------------------------------------
    /// The session is open. Sequenced messages follow from `next_sequence`.
    0x81 LogonAck {
        /// The session's number.
        session: U64,
        /// Highest sequence of a state-changing request that was executed; number on from here.
        last_request: U64,
        /// Highest `client_id` used.
        last_client_id: U64,
        /// Sequence the next new report will have.
        next_sequence: U64,
        /// Oldest report that can still be replayed (equals `next_sequence` when none is kept).
        oldest_sequence: U64,
        /// Daemon's clock, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Account in force, or [`ANY`].
        account: U32,
        /// Instance in force, or [`ANY`].
        instance: U32,
        /// Heartbeat interval in force, milliseconds.
        heartbeat_ms: U32,
        /// Role in force.
        role: u8,
        /// Zero.
        reserved: [u8; 3],
    }
    /// The last frame on a connection: why it ends.
    0x83 Farewell {
        /// A [`crate::code::Goodbye`].
        reason: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// Descriptors come with this frame. Ring pair: the request ring's memory, the report
    /// ring's memory, the bell (writing end of a pipe) that wakes the daemon, the doorbell
    /// (reading end of another) that wakes the client. Board: its memory.
    0x84 Attached {
        /// As asked.
        what: u8,
        /// Zero.
        reserved: [u8; 3],
        /// Bytes of each ring, or of the board.
        bytes: U32,
    }
    /// Replay is complete; `next` is the sequence of the next new report.
    0x85 ReplayEnd {
        /// Next new report.
        next: U64,
    }
    /// A request was refused before it reached the core. Not replayed: it never happened.
    0x86 Refused {
        /// Sequence of the request.
        request: U64,
        /// A number that helps: the oldest replayable sequence, the throttle's rate, an offset.
        detail: U64,
        /// Kind of the request.
        kind: u8,
        /// A [`crate::code::Reject`].
        code: u8,
        /// Zero.
        reserved: [u8; 6],
    }

    // ---- reports (sequenced, replayable) ---------------------------------------------------
    /// An order passed every check and has a handle. Fills and cancels follow.
    0x90 Accepted {
        /// Sequence of the request.
        request: U64,
        /// The order's id.
        client_id: U64,
        /// What cancels and replaces carry: slot in the low half, generation in the high one.
        handle: U64,
        /// Sequencer's time, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Instance.
        instance: U32,
        /// Price in ticks.
        price_ticks: U32,
        /// Quantity in credits.
        quantity: U32,
        /// Book.
        book: U16,
        /// A [`crate::code::Side`].
        side: u8,
        /// Zero.
        reserved: u8,
    }
    /// An order traded. Each party gets its own.
    0x91 Filled {
        /// Trade's number; the same in both parties' reports.
        trade: U64,
        /// The order's id.
        client_id: U64,
        /// The order's handle.
        handle: U64,
        /// Sequencer's time, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Instance.
        instance: U32,
        /// Price in ticks: the maker's, or the auction's.
        price_ticks: U32,
        /// Credits traded.
        quantity: U32,
        /// Credits of the order still open.
        remaining: U32,
        /// The other party's account.
        counterparty: U32,
        /// Micro-units of funds this trade costs this party as a fee.
        fee_micro: U64,
        /// Book.
        book: U16,
        /// A [`crate::code::Side`].
        side: u8,
        /// 1 if this order was resting (maker), 0 if it came in (taker), 2 in an auction: both
        /// rested and pay the maker's fee.
        maker: u8,
    }
    /// An order, or the rest of it, left the book unfilled.
    0x92 Cancelled {
        /// Sequence of the request that caused it, if this session sent it; otherwise 0.
        request: U64,
        /// The order's id.
        client_id: U64,
        /// The order's handle, now dead.
        handle: U64,
        /// Sequencer's time, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Instance.
        instance: U32,
        /// Credits that were still open.
        quantity: U32,
        /// Book.
        book: U16,
        /// A [`crate::code::Side`].
        side: u8,
        /// A [`crate::code::CancelReason`].
        reason: u8,
        /// The order's price in ticks.
        price_ticks: U32,
    }
    /// An order has a new price, quantity, id and, if it lost its place, a new handle.
    0x93 Replaced {
        /// Sequence of the request.
        request: U64,
        /// The order's new id.
        client_id: U64,
        /// Handle before.
        old_handle: U64,
        /// Handle from now on.
        handle: U64,
        /// Sequencer's time, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// New price in ticks.
        price_ticks: U32,
        /// New open quantity in credits.
        quantity: U32,
    }
    /// The core refused a request; nothing changed.
    0x94 Rejected {
        /// Sequence of the request.
        request: U64,
        /// Its `client_id`, or its handle for a cancel.
        client_id: U64,
        /// Sequencer's time, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Kind of the request.
        kind: u8,
        /// A [`crate::code::Reject`].
        code: u8,
        /// Zero.
        reserved: [u8; 6],
    }
    /// An administrative request or a mass cancel was carried out.
    0x95 Done {
        /// Sequence of the request.
        request: U64,
        /// Its `client_id`, or 0.
        client_id: U64,
        /// Sequencer's time, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// New number, balance or count, as the request says.
        value: U64,
        /// Kind of the request.
        kind: u8,
        /// Zero.
        reserved: [u8; 7],
    }

    /// An operator reversed a trade. Each party gets its own.
    0x9f Reversed {
        /// Trade's number.
        trade: U64,
        /// Sequencer's time, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Micro-units of funds that this party got back (buyer) or gave back (seller).
        funds_micro: U64,
        /// Its fee, which is part of that: the house gave it back.
        fee_micro: U64,
        /// Instance.
        instance: U32,
        /// Price in ticks that was paid.
        price_ticks: U32,
        /// Credits that this party gave back (buyer) or got back (seller).
        quantity: U32,
        /// The other party's account.
        counterparty: U32,
        /// Book.
        book: U16,
        /// This party's [`crate::code::Side`] in the trade.
        side: u8,
        /// Zero.
        reserved: [u8; 5],
    }

    // ---- notices to subscribers (sequence 0) -----------------------------------------------
    /// The subscription begins. What came before on this connection is of an earlier one.
    0xa0 Subscribed {
        /// Sequence of the request.
        request: U64,
        /// First journal record that will be told.
        from: U64,
        /// Last journal record that is durable.
        durable: U64,
        /// Notices that may be on their way: how many are sent before the first [`Take`].
        take_max: U32,
        /// Zero.
        reserved: U32,
    }
    /// A trade.
    0xa1 Swapped {
        /// Journal sequence.
        sequence: U64,
        /// Nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Number.
        trade: U64,
        /// What was paid without fees, micro-units of funds.
        notional_micro: U64,
        /// Seller's fee; 0 for who may not know it.
        seller_fee_micro: U64,
        /// Buyer's fee; 0 for who may not know it.
        buyer_fee_micro: U64,
        /// Which of the record's notices.
        part: U32,
        /// Credits.
        quantity: U32,
        /// Price in ticks.
        price_ticks: U32,
        /// Selling account.
        seller_account: U32,
        /// Selling instance; [`ANY`] for who may not know it.
        seller: U32,
        /// Buying account.
        buyer_account: U32,
        /// Buying instance; [`ANY`] for who may not know it.
        buyer: U32,
        /// Book.
        book: U16,
        /// Side of the order that came in: a [`crate::code::Side`]; 2 for a trade of an auction.
        taker_side: u8,
        /// Zero.
        reserved: u8,
    }
    /// A trade was reversed; what that changes is told besides.
    0xda SwapReversed {
        /// Journal sequence.
        sequence: U64,
        /// Nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Trade's number.
        trade: U64,
        /// What had been paid without fees, micro-units of funds.
        notional_micro: U64,
        /// Which of the record's notices.
        part: U32,
        /// Credits.
        quantity: U32,
        /// Price in ticks.
        price_ticks: U32,
        /// Account that had sold.
        seller_account: U32,
        /// Account that had bought.
        buyer_account: U32,
        /// Book.
        book: U16,
        /// Zero.
        reserved: U16,
    }
    /// An account's funds changed. Balances count what is held.
    0xa2 FundsChanged {
        /// Journal sequence.
        sequence: U64,
        /// Nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Micro-units more than before, two's complement.
        change_micro: U64,
        /// Micro-units now.
        balance_micro: U64,
        /// Which of the record's notices.
        part: U32,
        /// Account.
        account: U32,
        /// Kind of the request or command that did it.
        cause: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// An instance's credits of a resource changed. Balances count what is held.
    0xa3 CreditsChanged {
        /// Journal sequence.
        sequence: U64,
        /// Nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Milli-credits more than before, two's complement.
        change_millicredits: U64,
        /// Milli-credits now.
        balance_millicredits: U64,
        /// Which of the record's notices.
        part: U32,
        /// Instance.
        instance: U32,
        /// Account that owns it.
        account: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Kind of the request or command that did it.
        cause: u8,
        /// Zero.
        reserved: [u8; 2],
    }
    /// Everything up to this record has been told: go on from the next one.
    0xa4 CaughtUp {
        /// Journal sequence.
        sequence: U64,
    }
    /// The subscription has ended. Subscribe again from here to go on.
    0xa5 Unsubscribed {
        /// Journal sequence of the next notice.
        sequence: U64,
        /// Its part.
        part: U32,
        /// 0: asked for. `Busy`: too much waited, or for too long. `JournalStopped`: the journal
        /// cannot be read. Both are a [`crate::code::Reject`].
        code: u8,
        /// Zero.
        reserved: [u8; 3],
    }

    // ---- rows (sequence 0) -----------------------------------------------------------------
    /// Ends the answer to a query.
    0xb0 QueryEnd {
        /// Sequence of the request.
        request: U64,
        /// Where the next page starts, or `u64::MAX` if this was the last.
        next: U64,
    }
    /// The daemon's state.
    0xb1 StatusRow {
        /// Last sequence number given.
        sequenced: U64,
        /// Last sequence number on stable storage.
        durable: U64,
        /// Last sequence number executed.
        executed: U64,
        /// Sequence number of the newest snapshot, 0 if none.
        snapshot: U64,
        /// Trades since the journal began.
        trades: U64,
        /// Limits written to the host.
        limits_written: U64,
        /// Limit changes that needed no write: unchanged or overtaken.
        limits_spared: U64,
        /// Limit writes that failed.
        limits_failed: U64,
        /// Read-backs that differed from what was written.
        limits_drifted: U64,
        /// Milliseconds since the daemon started.
        uptime_ms: U64,
        /// Requests refused before the core.
        refused: U64,
        /// Live accounts.
        accounts: U32,
        /// Live instances.
        instances: U32,
        /// Open orders.
        orders: U32,
        /// Connections.
        connections: U32,
        /// Standing faults.
        faults: U32,
        /// 0 cgroup v2, 1 dry run.
        host: u8,
        /// 0 never, 1 always.
        journal_sync: u8,
        /// 1 while requests that change state are accepted.
        accepting: u8,
        /// Zero.
        reserved: u8,
    }
    /// A fault that stands.
    0xb2 FaultRow {
        /// When it was first seen, nanoseconds since 1970 UTC.
        since_ns: U64,
        /// How often it was seen.
        count: U64,
        /// Which part reports it.
        source: [u8; 16],
        /// What is wrong and what to do, UTF-8, zero-padded.
        text: [u8; 256],
    }
    /// An account.
    0xb3 AccountRow {
        /// Funds free to use, micro-units.
        free_micro: U64,
        /// Funds held for open orders, micro-units.
        held_micro: U64,
        /// Groups it sells to.
        sells_to: U64,
        /// Groups it buys from.
        buys_from: U64,
        /// Number.
        account: U32,
        /// Instances it owns.
        instances: U32,
        /// Name.
        name: [u8; NAME_BYTES],
        /// Thousandths of a processor that its instances may use together, 0 for no cap.
        cap_millicores: U32,
        /// Group.
        group: u8,
        /// 1 if it swaps credits with other accounts, as the masks say.
        opted_in: u8,
        /// Zero.
        reserved: [u8; 2],
    }
    /// The limits of an account that has some.
    0xbf AccountLimitsRow {
        /// Credits it may sell in a window, or [`UNLIMITED`].
        sell_max_credits: U64,
        /// Credits it may buy in a window, or [`UNLIMITED`].
        buy_max_credits: U64,
        /// Micro-units that one order may be worth, or [`UNLIMITED`].
        order_max_micro: U64,
        /// Credits it may hold and have ordered, or [`UNLIMITED`].
        position_max_credits: U64,
        /// Credits sold in this window.
        sold_credits: U64,
        /// Credits bought in this window.
        bought_credits: U64,
        /// Credits that its open orders offer.
        offered_credits: U64,
        /// Credits that its open orders want.
        wanted_credits: U64,
        /// When this window ends, nanoseconds since 1970 UTC.
        window_ends_ns: U64,
        /// Account number.
        account: U32,
        /// Zero.
        reserved: U32,
    }
    /// An instance.
    0xb4 InstanceRow {
        /// Number.
        instance: U32,
        /// Account.
        account: U32,
        /// Open orders.
        orders: U32,
        /// Tier.
        tier: U16,
        /// Bit r set: bursting in resource r.
        bursting: u8,
        /// Zero.
        reserved: u8,
        /// Reserved VRUs per resource.
        baseline_vru: [U32; 5],
        /// VRUs it may use now per resource.
        entitled_vru: [U32; 5],
        /// Milli-credits free per resource.
        free_millicredits: [U64; 5],
        /// Milli-credits held for open orders per resource.
        held_millicredits: [U64; 5],
        /// Name.
        name: [u8; NAME_BYTES],
        /// Where it runs.
        place: [u8; PLACE_BYTES],
    }
    /// A tier's resource.
    0xb5 TierRow {
        /// Size of a VRU in the resource's unit (millicores, bytes, bytes/s, bits/s, slots).
        vru_size: U64,
        /// Capacity in VRUs.
        capacity_vru: U64,
        /// VRUs reserved by baselines.
        reserved_vru: U64,
        /// Milli-credits in the tier's pool: earned by what nobody reserved.
        pool_millicredits: U64,
        /// Tier.
        tier: U16,
        /// Book that trades it.
        book: U16,
        /// Burst ceiling in hundredths of the baseline.
        burst_percent: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// 0 live, 1 draining, 2 spare: an operator can define it.
        state: u8,
        /// Zero.
        reserved: [u8; 6],
        /// Tier's name.
        name: [u8; NAME_BYTES],
    }
    /// A book.
    0xb6 BookRow {
        /// Micro-units of one tick.
        tick_micro: U64,
        /// Trades.
        trades: U64,
        /// Credits traded.
        volume: U64,
        /// In a call: credits that an auction would trade if all orders may meet. Otherwise 0.
        indicative_volume: U64,
        /// In a call: credits wanted less credits offered at the indicative price, two's
        /// complement. Otherwise 0.
        indicative_imbalance: U64,
        /// When the schedule acts next, milliseconds since 1970 UTC; 0 if it does not.
        next_phase_ms: U64,
        /// Number.
        book: U16,
        /// Tier.
        tier: U16,
        /// Highest price in ticks.
        price_ticks_max: U32,
        /// Last price in ticks, 0 if none.
        last_ticks: U32,
        /// Best bid in ticks, 0 if none.
        bid_ticks: U32,
        /// Best ask in ticks, 0 if none.
        ask_ticks: U32,
        /// Open orders.
        orders: U32,
        /// In a call: the price of an auction now; 0 if nothing crosses.
        indicative_ticks: U32,
        /// Schedule: an auction so often, milliseconds; 0 for none.
        auction_every_ms: U32,
        /// Schedule: the call lasts so long before each auction, milliseconds.
        call_ms: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// A [`crate::code::Phase`].
        phase: u8,
        /// 1 if the phase follows the schedule, 0 if an operator has set it.
        scheduled: u8,
        /// Zero.
        reserved: u8,
        /// Tier's name.
        tier_name: [u8; NAME_BYTES],
    }
    /// An open order.
    0xb7 OrderRow {
        /// Handle.
        handle: U64,
        /// The order's id.
        client_id: U64,
        /// Instance.
        instance: U32,
        /// Price in ticks.
        price_ticks: U32,
        /// Credits open.
        quantity: U32,
        /// Book.
        book: U16,
        /// A [`crate::code::Side`].
        side: u8,
        /// Zero.
        reserved: u8,
    }
    /// A trade.
    0xb8 TradeRow {
        /// Number.
        trade: U64,
        /// Journal sequence.
        sequence: U64,
        /// Nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Price in ticks.
        price_ticks: U32,
        /// Credits.
        quantity: U32,
        /// Selling instance.
        seller: U32,
        /// Buying instance.
        buyer: U32,
        /// Book.
        book: U16,
        /// Side of the order that came in: a [`crate::code::Side`]; 2 for a trade of an auction.
        taker_side: u8,
        /// 1 if it was reversed.
        reversed: u8,
        /// Zero.
        reserved: [u8; 4],
    }
    /// A line of the ledger. Each asset's lines sum to zero.
    0xb9 LedgerRow {
        /// Balance, two's complement: micro-units of funds or milli-credits.
        balance: U64,
        /// Tier, or [`ANY_BOOK`] for funds.
        tier: U16,
        /// A [`crate::code::Resource`], or 255 for funds.
        resource: u8,
        /// Zero.
        reserved: [u8; 5],
        /// Name of the line: `issue`, `burn`, `fees`, `free`, `held`, `pool`...
        line: [u8; NAME_BYTES],
    }
    /// A limit on the host.
    0xba LimitRow {
        /// What the machine decided, in VRUs.
        wanted_vru: U64,
        /// How often it was written.
        writes: U64,
        /// Nanoseconds since 1970 UTC of the last write, 0 if none.
        written_at_ns: U64,
        /// Instance, or [`TIER_BIT`] and a tier; with `of_account` an account, and its tier in the
        /// high half.
        instance: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// 0 pending, 1 in force (read back), 2 refused, 3 drifted, 4 gone, 5 dry run.
        state: u8,
        /// 1: of the group that an account's instances live below; `instance` is the account.
        of_account: u8,
        /// Zero.
        reserved: u8,
        /// File written, e.g. `cpu.max`.
        file: [u8; 16],
        /// Text wanted in the file.
        wanted: [u8; 32],
        /// Text last written.
        written: [u8; 32],
        /// Text last read back.
        read_back: [u8; 32],
    }
    /// A line of the audit trail.
    0xbb AuditRow {
        /// Journal sequence.
        sequence: U64,
        /// Nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Chain value of the record.
        chain: U64,
        /// Session that asked, 0 for the daemon itself.
        session: U64,
        /// Credits, milli-credits or micro-units, as `what` says.
        amount: U64,
        /// Micro-units of funds that moved, if any.
        funds_micro: U64,
        /// First party: account, or [`ANY`].
        account: U32,
        /// First party: instance, or [`ANY`].
        instance: U32,
        /// Second party: account, or [`ANY`].
        other_account: U32,
        /// Second party: instance, or [`ANY`].
        other_instance: U32,
        /// Price in ticks, 0 if none.
        price_ticks: U32,
        /// Book, or [`ANY_BOOK`].
        book: U16,
        /// A [`crate::code::Reject`] for a refusal, otherwise 0.
        code: u8,
        /// The [`crate::code::Role`] of who asked; 255 for the daemon itself.
        role: u8,
        /// What happened: `trade`, `order`, `deposit`...
        what: [u8; 24],
        /// What the peer that asked was known as when it logged on: `uid 1000`, `certificate alice`,
        /// `token operator.key`; empty for the daemon itself.
        peer: [u8; PEER_BYTES],
    }
    /// The best levels of a book, best first; unused levels are zero.
    0xbc DepthRow {
        /// Bid prices in ticks.
        bid_ticks: [U32; DEPTH_LEVELS],
        /// Bid quantities in credits.
        bid_quantity: [U64; DEPTH_LEVELS],
        /// Ask prices in ticks.
        ask_ticks: [U32; DEPTH_LEVELS],
        /// Ask quantities in credits.
        ask_quantity: [U64; DEPTH_LEVELS],
        /// Book.
        book: U16,
        /// Zero.
        reserved: [u8; 6],
    }
    /// What a book's market comes to. Prices are 0 where there is none; averages are weighted by
    /// quantity and rounded down.
    0xbd MarketRow {
        /// Trades since the journal began.
        trades: U64,
        /// Credits traded since the journal began.
        volume: U64,
        /// Trades of the last 24 hours, counted in whole minutes.
        day_trades: U64,
        /// Credits traded in them.
        day_volume: U64,
        /// Credits that open orders want to buy.
        bid_quantity: U64,
        /// Credits that open orders offer.
        ask_quantity: U64,
        /// When the last trade was, nanoseconds since 1970 UTC.
        last_time_ns: U64,
        /// Price of the last trade in ticks.
        last_ticks: U32,
        /// Credits of the last trade.
        last_quantity: U32,
        /// Best bid in ticks.
        bid_ticks: U32,
        /// Best ask in ticks.
        ask_ticks: U32,
        /// Average price of all open bids, in thousandths of a tick.
        average_bid_milliticks: U32,
        /// Average price of all open asks, in thousandths of a tick.
        average_ask_milliticks: U32,
        /// Average price of all trades, in thousandths of a tick.
        vwap_milliticks: U32,
        /// Average price of the trades of the last 24 hours, in thousandths of a tick.
        day_vwap_milliticks: U32,
        /// Book.
        book: U16,
        /// Zero.
        reserved: [u8; 6],
    }
    /// The trades of a book in one stretch of time. It grows until that is over.
    0xbe BarRow {
        /// When it begins, nanoseconds since 1970 UTC: a multiple of its width.
        start_ns: U64,
        /// Trades.
        trades: U64,
        /// Credits.
        volume: U64,
        /// Seconds it is wide.
        width_s: U32,
        /// First price in ticks.
        open_ticks: U32,
        /// Highest price in ticks.
        high_ticks: U32,
        /// Lowest price in ticks.
        low_ticks: U32,
        /// Last price in ticks.
        close_ticks: U32,
        /// Average price weighted by quantity, in thousandths of a tick, rounded down.
        vwap_milliticks: U32,
        /// Book.
        book: U16,
        /// Zero.
        reserved: [u8; 6],
    }

    // ---- tiers: a notice and a row (sequence 0) ----------------------------------------------
    /// A notice: capacity and pool credits were swapped from a tier to another.
    0xd0 TiersSwapped {
        /// Journal sequence.
        sequence: U64,
        /// Nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Milli-credits that left the source's pool.
        left_millicredits: U64,
        /// Milli-credits that arrived in the destination's.
        arrived_millicredits: U64,
        /// Which of the record's notices.
        part: U32,
        /// VRUs that left the source.
        left_vru: U32,
        /// VRUs that arrived.
        arrived_vru: U32,
        /// VRUs that were to be swapped and stayed with the source.
        rest_vru: U32,
        /// The rate: numerator, denominator.
        rate: [U32; 2],
        /// Source tier.
        from: U16,
        /// Destination tier.
        to: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Kind of the request or command that did it: [`SwapTiers`], or 0x42 for demand.
        cause: u8,
        /// Zero.
        reserved: [u8; 2],
    }
    /// An exchange between two tiers. Those without a row swap one to one, within [`RATE_MAX`].
    0xd1 ExchangeRow {
        /// Rate: numerator, denominator.
        rate: [U32; 2],
        /// The least that it may be.
        low: [U32; 2],
        /// The most that it may be.
        high: [U32; 2],
        /// Place of the row.
        number: U32,
        /// Demand is looked at so often, milliseconds; 0: never.
        every_ms: U32,
        /// VRUs that demand swaps at a time, at most.
        step_vru: U32,
        /// Source tier.
        from: U16,
        /// Destination tier.
        to: U16,
        /// The source is idle up to so many percent of its capacity.
        idle_percent: U16,
        /// The destination is saturated from so many percent of its capacity on.
        saturated_percent: U16,
        /// Looks in a row that must find them so before demand swaps.
        looks: U16,
        /// Looks in a row that did so far.
        found: U16,
        /// Percent that demand moves the rate by at each look.
        rate_step_percent: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// 1: demand does not move the rate.
        fixed: u8,
    }
}

/// The text of a zero-padded field, cut at the first character that is not UTF-8.
pub fn text(field: &[u8]) -> &str {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    match std::str::from_utf8(&field[..end]) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&field[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// A zero-padded field holding `text`, or `None` if it does not fit or holds a zero byte.
pub fn field<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() > N || text.as_bytes().contains(&0) {
        return None;
    }
    let mut out = [0; N];
    out[..text.len()].copy_from_slice(text.as_bytes());
    Some(out)
}

/// A zero-padded field holding as much of `text` as fits.
pub fn field_cut<const N: usize>(text: &str) -> [u8; N] {
    let mut end = text.len().min(N);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    field(&text[..end].replace('\0', " ")).unwrap_or([0; N])
}
