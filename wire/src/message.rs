//! Every message of the protocol: fixed layouts, little-endian, no implicit padding.
//!
//! Numbers of kinds: `0x01..` session, `0x10..` orders, `0x20..` administration, `0x14..0x17` leases, `0x30..` queries,
//! `0x40..0x4f` kept for the daemon's own journal and refused from outside, `0x50..0x57` leases again (objectives: `0x1c`, `0x52`, `0x56`), `0x80..` replies about
//! the session, `0x90..` reports, `0xa0..` and `0xda` notices to subscribers, `0xb0..` rows that
//! answer queries; `0xd0..0xd7` both, of tiers and of the host. Of the swarm: `0x18..0x1b` and
//! `0x58..0x59` requests, `0x5c..0x5e` queries, `0x9a..0x9d` reports, `0xe8..0xeb` rows. Of forecasts
//! and policies: `0x1b`, `0x53` requests, `0x57`, `0x5a` queries, `0x97` a report, `0xd8`, `0xd9` rows, and of
//! what is planned and was: `0x76` a request, `0x61`, `0x77` queries, `0xe6`, `0xe7` rows. Of experiments:
//! `0x7a..0x7b` requests, `0x7c..0x7d` queries, `0xec`, `0xed` rows. Of
//! migration: `0x62..0x65` requests, `0x66` a query, `0x98` a report, `0xde` a row. Of reports over a
//! period: `0x5b` and `0x5f` queries, `0xdb..0xdd` rows. Of tokens: `0x67..0x6c` requests, `0x6d` a query,
//! `0x99` a report, `0xdf` a row. Of swaps of tokens: `0x6e..0x70` and `0x72` requests, `0x71` and `0x73`
//! queries, `0xa6` a report, `0xd2`, `0xd3` rows.
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
/// Of a [`SensorRow`]: not measured. All bits of narrower fields say the same.
pub const UNKNOWN: u64 = u64::MAX;
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
/// VRUs that a task can ask for at most.
pub const TASK_VRU_MAX: u32 = 1024;
/// Base price of a VRU-second at most, micro-units.
pub const VRU_PRICE_MAX_MICRO: u64 = 1 << 40;
/// [`SetGroup::steep_percent`] at most.
pub const STEEP_PERCENT_MAX: u32 = 10_000;
/// [`StartExperiment::measure`]: micro-units of funds a VRU-second that was used.
pub const MEASURE_COST: u8 = 255;
/// [`StartExperiment::risk_percent`]: the manager of swaps leaves instances of the arm alone.
pub const RISK_NEVER: u8 = 255;
/// An experiment lasts so long at most, milliseconds: 90 days.
pub const EXPERIMENT_MS_MAX: u64 = 90 * 86_400_000;
/// A forecast is over at most so many milliseconds after it was made: 35 days.
pub const FORECAST_MS_MAX: u32 = 35 * 86_400_000;
/// [`PlanEvent::percent`] at most.
pub const EVENT_PERCENT_MAX: u16 = 10_000;
/// [`SettleMigration::act`]: a proposal is accepted, to a host.
pub const MIGRATION_ACCEPT: u8 = 0;
/// [`SettleMigration::act`]: a proposal is declined, for as long as its lease waits.
pub const MIGRATION_DECLINE: u8 = 1;
/// [`SettleMigration::act`]: proposals of an account are accepted from now on, to a host; without one
/// they are not any more.
pub const MIGRATION_STAND: u8 = 2;
/// [`SettleMigration::act`], where an instance is expected: it shall never arrive.
pub const MIGRATION_REFUSE: u8 = 3;
/// [`SettleMigration::act`], where it departed, with the receipt of that: it stays.
pub const MIGRATION_ABORT: u8 = 4;
/// [`SettleMigration::act`], where it departed, with the receipt of its arrival: it is gone.
pub const MIGRATION_DEPARTED: u8 = 5;
/// [`SettleMigration::act`], where it arrived, with the receipt of its departure: nothing is left to do.
pub const MIGRATION_CLOSE: u8 = 6;
/// Leases that move along with an instance at most.
pub const MIGRATION_LEASES: usize = 8;
/// Bytes of a token as requests carry it: a [`Token`].
pub const TOKEN_BYTES: usize = 104;
/// Tokens that are not over at most.
pub const TOKENS_MAX: usize = 1024;
/// Swaps of tokens that are remembered at most; those that are over make room for others.
pub const SWAPS_MAX: usize = 256;
/// Swaps of an account's tokens that were asked for and are not over, at most.
pub const ACCOUNT_SWAPS_MAX: usize = 32;
/// A swap, or its boost, lasts so long at least, milliseconds.
pub const SWAP_MS_MIN: u32 = 1000;
/// [`SetSwapPolicy::degradation_percent`] at most.
pub const DEGRADATION_PERCENT_MAX: u16 = 1000;
/// Reports of a KPI in a row that are worse than agreed and roll a swap back.
pub const SWAP_BREACHES: u8 = 3;
/// Notices on their way to one subscriber at most.
pub const TAKE_MAX: u32 = 512;
/// Bytes of the longest notice's frame.
pub const NOTICE_BYTES_MAX: usize = size_of::<Header>() + size_of::<Swapped>();

/// A reservation of VRUs over a window, as requests carry it: what a [`TokenRow`] begins with, which
/// says what each field is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
#[allow(missing_docs, reason = "the fields of TokenRow")]
pub struct Token {
    pub house: U64,
    pub id: U64,
    pub from_ms: U64,
    pub until_ms: U64,
    pub profile_limit: U64,
    pub vru: U32,
    pub generation: U32,
    pub account: U32,
    pub instance: U32,
    pub tier: U16,
    pub resource: u8,
    pub priority: u8,
    pub profile: u8,
    pub swap_eligible: u8,
    pub sticky: u8,
    pub reserved: u8,
    pub key: U64,
    pub mac: [u8; 32],
}

/// Bytes of a [`Token`] that its seal is of: one block of the hash.
pub const TOKEN_SEALED_BYTES: usize = 64;

const _: () = {
    assert!(size_of::<Token>() == TOKEN_BYTES);
    assert!(std::mem::offset_of!(Token, key) == TOKEN_SEALED_BYTES);
    assert!(std::mem::offset_of!(TokenRow, key) == TOKEN_SEALED_BYTES);
    assert!(std::mem::offset_of!(TokenRow, redeemed) == TOKEN_BYTES);
};

impl Token {
    /// The bytes that its seal is of.
    pub fn sealed(&self) -> &[u8] {
        &self.as_bytes()[..TOKEN_SEALED_BYTES]
    }

    /// The token that a request carries.
    pub fn of(bytes: &[u8; TOKEN_BYTES]) -> &Token {
        zerocopy::transmute_ref!(bytes)
    }

    /// The same without its seal.
    pub fn bare(&self) -> Token {
        Token { key: U64::ZERO, mac: [0; 32], ..*self }
    }
}

impl TokenRow {
    /// The token, as requests carry it.
    pub fn token(&self) -> &[u8; TOKEN_BYTES] {
        let bytes = &self.as_bytes()[..TOKEN_BYTES];
        bytes.try_into().expect("a row is longer than a token")
    }
}

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

    // ---- leases --------------------------------------------------------------------------
    /// Bids for VRUs above an instance's baseline. `Done` holds the lease's handle; then
    /// `LeaseMoved` says what it got. For the instance's own agent, its tenant and operators.
    0x14 BidLease {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// When it ends by itself, milliseconds since 1970 UTC; 0: it does not.
        expires_at_ms: U64,
        /// Instance number.
        instance: U32,
        /// VRUs, or percent of the baseline, rounded down to whole VRUs.
        amount: U32,
        /// The most that it pays, in ticks of the book's micro-units a VRU-second.
        rent_ticks: U32,
        /// Once it has VRUs no other lease takes them for so many milliseconds; 1000 to 60,000, 0: 1000.
        hold_ms: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// A [`crate::code::LeaseClass`].
        class: u8,
        /// 1: `amount` is percent.
        percent: u8,
        /// 1: all of it or nothing.
        all_or_none: u8,
        /// Of a bid for a storage class, the tier whose block I/O it is; otherwise zero.
        tier: U16,
        /// 1: for a storage class: block I/O of another tier, on that tier's storage.
        storage: u8,
        /// Zero.
        reserved: u8,
    }
    /// Gives a lease other terms. What it has it keeps, as far as the new terms go; it waits behind
    /// others of its rent. `Done` holds the handle.
    0x15 ChangeLease {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Handle of the lease.
        handle: U64,
        /// VRUs.
        vru: U32,
        /// The most that it pays, in ticks of the book's micro-units a VRU-second.
        rent_ticks: U32,
    }
    /// Ends a lease. `LeaseMoved` tells who bid; `Done` holds the micro-units it paid in all.
    0x16 CancelLease {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Handle of the lease.
        handle: U64,
    }
    /// Lends VRUs of an instance's baseline to who leases them, or takes them back at once. `Done` holds
    /// what was lent before.
    0x17 Lend {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Instance number.
        instance: U32,
        /// VRUs lent from now on, less than its baseline; 0: none.
        vru: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 7],
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
        /// Where it runs: an absolute cgroup v2 path, or `pid:N` on a dry-run host, or empty. Behind
        /// that `,port=SOCKET`, if it is a VM whose VMM has a port there.
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
    /// Freezes an instance or lets it go on: section 7. [`Done`] holds 1 for frozen, 0 for not.
    0x29 FreezeInstance {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Instance.
        instance: U32,
        /// 1: nothing in it runs; 0: it goes on.
        frozen: u8,
        /// Zero.
        reserved: [u8; 3],
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
    /// How instances fare on the host: [`SensorRow`]s, a page at a time.
    0x3f QuerySensors {
        /// First instance wanted.
        from: U32,
    }

    // ---- leases: operators, queries ------------------------------------------------------
    /// Sets the least rent of a class. Leases that pay less end. `Done` holds what it was before.
    0x50 SetReserveRent {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Ticks of the book's micro-units a VRU-second, at least 1.
        rent_ticks: U32,
        /// Book.
        book: U16,
        /// A [`crate::code::LeaseClass`].
        class: u8,
        /// Zero.
        reserved: u8,
    }
    /// Entitles an instance to leases of class sla. Leases beyond that end, the newest first. `Done`
    /// holds what it was entitled to before.
    0x51 EntitleInstance {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Instance number.
        instance: U32,
        /// VRUs that its leases of the class may want together.
        vru: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// Sets an objective of an instance: while its KPI breaches it, the engine itself bids for a lease,
    /// within its budget (section 7, *Rescue*). One there is of the KPI gets these terms, its lease ends.
    /// `Done` holds the micro-units it has spent in this window. For the instance's tenant and operators.
    0x52 SetObjective {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Micro-units that its leases may cost in a window.
        budget_micro: U64,
        /// Instance number.
        instance: U32,
        /// Seconds of a window, 1 to 2,678,400. Windows begin at multiples of it since 1970 UTC.
        window_s: U32,
        /// It is in breach at this value and above; with `below`, and below.
        breach_at: U32,
        /// It has recovered at this value and below; with `below`, and above.
        recover_at: U32,
        /// It must be in breach so long before it bids, and again before it bids for more, 1000 to
        /// 3,600,000 milliseconds.
        breach_ms: U32,
        /// It must have recovered so long before its lease ends, 1000 to 3,600,000 milliseconds.
        recover_ms: U32,
        /// VRUs that it bids for at first, and by which it bids for more.
        step_vru: U32,
        /// VRUs that it bids for at most.
        most_vru: U32,
        /// The most that its lease pays, in ticks of the book's micro-units a VRU-second.
        rent_ticks: U32,
        /// A [`crate::code::Kpi`].
        kpi: u8,
        /// 1: low values are a breach.
        below: u8,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// A [`crate::code::LeaseClass`].
        class: u8,
        /// 1: removes the objective; all but the id, the instance and the KPI is zero. `Done` holds the
        /// micro-units that its leases paid in all.
        remove: u8,
        /// Zero.
        reserved: [u8; 3],
    }
    /// Asks for [`LeaseRow`]s, by slot.
    0x54 QueryLeases {
        /// First slot.
        from: U32,
    }
    /// Asks for [`RentRow`]s.
    0x55 QueryRents {
        /// First book.
        from: U32,
    }

    /// Asks for [`ObjectiveRow`]s, by slot.
    0x56 QueryObjectives {
        /// First slot.
        from: U32,
    }
    /// A workload's own word on a KPI of which its instance has an objective. At most 8 a second of each;
    /// `Done` holds the value. For the instance's own agent, its tenant and operators.
    0x1c ReportKpi {
        /// Instance number; a `Rejected` names it as `client_id`.
        instance: U32,
        /// Latency in microseconds, or throughput a second.
        value: U32,
        /// A [`crate::code::Kpi`] that is reported.
        kpi: u8,
        /// Zero.
        reserved: [u8; 7],
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
    /// What became of a lease, to the session that bid.
    0x96 LeaseMoved {
        /// Handle of the lease.
        handle: U64,
        /// The id that its bid carried.
        client_id: U64,
        /// When, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Micro-units of funds it has paid so far.
        paid_micro: U64,
        /// Instance number.
        instance: U32,
        /// VRUs it has now.
        granted_vru: U32,
        /// VRUs it wants.
        wanted_vru: U32,
        /// What its class pays now, in ticks of the book's micro-units a VRU-second.
        rent_ticks: U32,
        /// Book.
        book: U16,
        /// A [`crate::code::LeaseClass`].
        class: u8,
        /// A [`crate::code::LeaseOutcome`].
        outcome: u8,
        /// Zero.
        reserved: [u8; 4],
    }
    /// What became of an objective, told to the session that set it.
    0x9e ObjectiveMoved {
        /// When, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Its lease; all bits set if it has none, or no more.
        lease: U64,
        /// Micro-units that its leases cost in this window.
        spent_micro: U64,
        /// Instance number.
        instance: U32,
        /// The value told last.
        value: U32,
        /// VRUs that it bids for from now on.
        wanted_vru: U32,
        /// A [`crate::code::Kpi`].
        kpi: u8,
        /// A [`crate::code::Rescue`].
        outcome: u8,
        /// Of a bid that was refused a [`crate::code::Reject`], of a lease that ended a
        /// [`crate::code::LeaseOutcome`].
        code: u8,
        /// Zero.
        reserved: u8,
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
        /// How far the processors left to placed instances lie in pieces, percent; 0 where no tier
        /// places.
        fragmentation_percent: u8,
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
        /// 1: an operator froze it.
        frozen: u8,
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
        /// high half. 4294967294 stands for all tiers together, 4294967295 for the host.
        instance: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// 0 pending, 1 in force (read back), 2 refused, 3 drifted, 4 gone, 5 dry run.
        state: u8,
        /// 1: of the group that an account's instances live below; `instance` is the account.
        of_account: u8,
        /// A [`crate::code::Lag`] while it is not in force, 0 otherwise.
        reason: u8,
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
        /// A [`crate::code::Reject`] for a refusal; of an outcome on the host a [`crate::code::Lag`];
        /// otherwise 0.
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
    /// A lease.
    0xd5 LeaseRow {
        /// Handle.
        handle: U64,
        /// The id that its bid carried.
        client_id: U64,
        /// When it ends by itself, milliseconds since 1970 UTC; 0: it does not.
        expires_at_ms: U64,
        /// Until then no other lease takes its VRUs, milliseconds since 1970 UTC.
        held_until_ms: U64,
        /// Micro-units of funds it has paid so far, as far as they were collected.
        paid_micro: U64,
        /// Micro-units of funds held for what it may cost next.
        held_micro: U64,
        /// Instance number.
        instance: U32,
        /// VRUs it wants.
        wanted_vru: U32,
        /// VRUs it has.
        granted_vru: U32,
        /// The most that it pays, ticks.
        rent_ticks: U32,
        /// Book.
        book: U16,
        /// A [`crate::code::LeaseClass`].
        class: u8,
        /// 1: all of it or nothing.
        all_or_none: u8,
        /// Zero.
        reserved: [u8; 4],
    }
    /// An objective.
    0xd7 ObjectiveRow {
        /// Micro-units that its leases may cost in a window.
        budget_micro: U64,
        /// Micro-units that they cost in the window of its last payment.
        spent_micro: U64,
        /// Micro-units that they cost in all, as far as they were collected.
        paid_micro: U64,
        /// When that window ends, milliseconds since 1970 UTC.
        window_ends_ms: U64,
        /// When its value came, milliseconds since 1970 UTC; 0: nobody told one for a minute.
        told_at_ms: U64,
        /// In breach since, milliseconds since 1970 UTC; 0: it is not.
        breached_since_ms: U64,
        /// Recovered since, milliseconds since 1970 UTC; 0: it has not.
        recovered_since_ms: U64,
        /// Its lease; all bits set if it has none.
        lease: U64,
        /// Its slot.
        number: U32,
        /// Instance number.
        instance: U32,
        /// The value told last.
        value: U32,
        /// As in [`SetObjective`].
        window_s: U32,
        /// As in [`SetObjective`].
        breach_at: U32,
        /// As in [`SetObjective`].
        recover_at: U32,
        /// As in [`SetObjective`].
        breach_ms: U32,
        /// As in [`SetObjective`].
        recover_ms: U32,
        /// As in [`SetObjective`].
        step_vru: U32,
        /// As in [`SetObjective`].
        most_vru: U32,
        /// As in [`SetObjective`].
        rent_ticks: U32,
        /// VRUs that its lease wants.
        wanted_vru: U32,
        /// VRUs that it has.
        granted_vru: U32,
        /// A [`crate::code::Kpi`].
        kpi: u8,
        /// 1: low values are a breach.
        below: u8,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// A [`crate::code::LeaseClass`].
        class: u8,
    }
    /// What leases of a book cost, and what there is to lease.
    0xd6 RentRow {
        /// VRUs that can be leased.
        supply_vru: U64,
        /// VRUs that are.
        granted_vru: U64,
        /// Of the supply, VRUs that instances lend.
        lent_vru: U64,
        /// What leases of each class pay, ticks.
        rent_ticks: [U32; 3],
        /// The least that they pay, ticks.
        reserve_ticks: [U32; 3],
        /// Leases of each class, granted or waiting.
        leases: [U32; 3],
        /// Book.
        book: U16,
        /// Zero.
        reserved: [u8; 2],
    }
    /// How an instance fares on the host, between its last two samples. Fields whose bits are all set
    /// were not measured: see [`UNKNOWN`].
    0xd4 SensorRow {
        /// When it was sampled, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Memory held then.
        memory_bytes: U64,
        /// Read from block devices.
        read_bytes_per_s: U64,
        /// Written to block devices.
        write_bytes_per_s: U64,
        /// Received and sent by its own network.
        network_bytes_per_s: U64,
        /// Sent, of that.
        network_sent_bytes_per_s: U64,
        /// Bytes that waited for their turn in its network's queues when these were last read back.
        network_backlog_bytes: U64,
        /// Packets that those queues have dropped since they were made.
        network_drops: U64,
        /// Instance.
        instance: U32,
        /// Time between the two samples; 0 after the first, which knows no rates.
        interval_us: U32,
        /// Processor time used, thousandths of a processor.
        cpu_millicores: U32,
        /// Time that its cap held it back, thousandths; of several processors added up.
        throttled_permille: U32,
        /// Time in which some of it waited for a processor, thousandths.
        cpu_wait_permille: U32,
        /// Time in which some of it waited for memory, thousandths.
        memory_some_permille: U32,
        /// Time in which all of it did.
        memory_full_permille: U32,
        /// Time in which some of it waited for block I/O, thousandths.
        io_some_permille: U32,
        /// Time in which all of it did.
        io_full_permille: U32,
        /// Pages that it needed again after they had been reclaimed.
        refaults_per_s: U32,
        /// Reads from block devices.
        reads_per_s: U32,
        /// Writes to block devices.
        writes_per_s: U32,
        /// Exits of its virtual processors to the host.
        exits_per_s: U32,
        /// Time that these halted for, thousandths; of several added up.
        halt_permille: U32,
        /// Virtual processors.
        vcpus: U32,
        /// Time of block devices that its operations took, as the kernel costs them, thousandths.
        device_permille: U32,
        /// Time that it waited for block devices, over its operations.
        io_wait_us: U32,
        /// How long what waited in its network's queues takes to leave at its rate.
        network_delay_us: U32,
    }

    // ---- migration -----------------------------------------------------------------------
    /// Reserves room for an instance that is to come from another host. It earns nothing and can do
    /// nothing before it arrives. [`Done`] holds the number of its ticket.
    0x62 ExpectInstance {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Owning account, called as on the other host.
        account: U32,
        /// Home tier.
        tier: U16,
        /// Zero.
        reserved: U16,
        /// VRUs reserved per resource: as on the other host.
        baseline_vru: [U32; 5],
        /// Zero.
        reserved2: U32,
        /// Name: as on the other host.
        name: [u8; NAME_BYTES],
        /// Where it will run.
        place: [u8; PLACE_BYTES],
    }
    /// An instance leaves for the host that expects it. [`Done`] holds the seal of its record.
    0x63 Depart {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// The expecting host's house.
        house: U64,
        /// The ticket that it gave out.
        ticket: U64,
        /// Instance number.
        instance: U32,
        /// Zero.
        reserved: U32,
        /// What people call that host.
        to: [u8; NAME_BYTES],
    }
    /// The record of an instance that departed, to the host that expects it. [`Done`] holds the
    /// receipt.
    0x64 Arrive {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// House that gave the ticket out: this one.
        house: U64,
        /// Ticket.
        ticket: U64,
        /// House that the instance departed from.
        source: U64,
        /// Number of the departure, which no other from that house has.
        departure: U64,
        /// Seal of all that follows and precedes, but for `client_id`.
        seal: U64,
        /// Milli-credits that come along, per resource.
        credit_millicredits: [U64; 5],
        /// Size of a VRU there, per resource.
        vru_size: [U64; 5],
        /// Leases, oldest first: when each ends by itself, milliseconds since 1970 UTC; 0: it does not.
        lease_expires_ms: [U64; 8],
        /// VRUs that each wants.
        lease_vru: [U32; 8],
        /// Milliseconds that each holds.
        lease_hold_ms: [U32; 8],
        /// VRUs reserved per resource.
        baseline_vru: [U32; 5],
        /// VRUs of class sla that it is entitled to, per resource.
        entitled_vru: [U32; 5],
        /// What it bids, milli-credits a VRU-second, per resource; 0: the usual.
        bid_milli: [U32; 5],
        /// The most that each lease pays, ticks.
        lease_rent_ticks: [U16; 8],
        /// A [`crate::code::LeaseClass`] each.
        lease_class: [u8; 8],
        /// A [`crate::code::Resource`] each.
        lease_resource: [u8; 8],
        /// 1: all or nothing.
        lease_all_or_none: [u8; 8],
        /// How many leases there are; the other places are zero.
        leases: u8,
        /// Zero.
        reserved: [u8; 3],
        /// Account's name.
        account: [u8; NAME_BYTES],
        /// Instance's name.
        name: [u8; NAME_BYTES],
    }
    /// Decides on a proposal, or on what becomes of a migration under way. [`Done`] holds what the act says.
    0x65 SettleMigration {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// House that gave the ticket out, or 0.
        house: U64,
        /// Ticket, or a proposal's number.
        ticket: U64,
        /// What the other host answered, or 0.
        receipt: U64,
        /// Account of [`MIGRATION_STAND`], else 0.
        account: U32,
        /// `MIGRATION_ACCEPT` to `MIGRATION_CLOSE`.
        act: u8,
        /// Zero.
        reserved: [u8; 3],
        /// The host that is accepted, for `MIGRATION_ACCEPT` and `MIGRATION_STAND`.
        to: [u8; NAME_BYTES],
    }
    /// Proposals, then migrations under way, then advice, a page at a time: a [`MigrationRow`] each.
    0x66 QueryMigrations {
        /// First place.
        from: U32,
    }
    /// A migration was proposed or went a step further. Told to the session that asked, of a
    /// proposal to the one whose bid for a lease waits.
    0x98 MigrationMoved {
        /// Ticket, or the proposal's number.
        ticket: U64,
        /// House that gave the ticket out, or 0.
        house: U64,
        /// When, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Milli-credits that move along, per resource.
        credit_millicredits: [U64; 5],
        /// Instance.
        instance: U32,
        /// VRUs that a proposal's lease waits for.
        short_vru: U32,
        /// As in [`MigrationRow`]; 0: it is over.
        state: u8,
        /// Resource of a proposal.
        resource: u8,
        /// Leases that moved along.
        leases: u8,
        /// Leases that found no place, or that their account cannot pay here.
        dropped: u8,
        /// Zero.
        reserved: [u8; 4],
        /// Where to.
        to: [u8; NAME_BYTES],
    }
    /// A proposal, a migration under way, or advice.
    0xde MigrationRow {
        /// Ticket, or the proposal's number.
        ticket: U64,
        /// House that gave the ticket out, or 0.
        house: U64,
        /// House that the instance departs from: of a proposal this one, of an instance that is
        /// expected 0.
        source: U64,
        /// As in [`Arrive`], once it departed.
        departure: U64,
        /// Seal of its record, once it departed.
        seal: U64,
        /// What `MIGRATION_DEPARTED` wants, once it arrived.
        receipt: U64,
        /// Since when it is in this state, milliseconds since 1970 UTC.
        since_ms: U64,
        /// As in [`Arrive`], from here on.
        credit_millicredits: [U64; 5],
        /// As there.
        vru_size: [U64; 5],
        /// As there.
        lease_expires_ms: [U64; 8],
        /// As there.
        lease_vru: [U32; 8],
        /// As there.
        lease_hold_ms: [U32; 8],
        /// As there.
        baseline_vru: [U32; 5],
        /// As there.
        entitled_vru: [U32; 5],
        /// As there.
        bid_milli: [U32; 5],
        /// As there.
        lease_rent_ticks: [U16; 8],
        /// As there.
        lease_class: [u8; 8],
        /// As there.
        lease_resource: [u8; 8],
        /// As there.
        lease_all_or_none: [u8; 8],
        /// As there.
        leases: u8,
        /// 1: proposed; 2: accepted; 3: declined; 4: expected here; 5: arrived here; 6: departing;
        /// 7: advice.
        state: u8,
        /// Of a proposal: 1: its lease of class sla cannot be served here; 2: its tier is nearly empty.
        reason: u8,
        /// Resource of a proposal.
        resource: u8,
        /// VRUs that a proposal's lease waits for.
        short_vru: U32,
        /// Instance.
        instance: U32,
        /// Account's name.
        account: [u8; NAME_BYTES],
        /// Instance's name.
        name: [u8; NAME_BYTES],
        /// Where to.
        to: [u8; NAME_BYTES],
    }

    // ---- tokens --------------------------------------------------------------------------
    /// Reserves VRUs for an account over a window of time. [`Done`] holds the token's id; the token
    /// itself is a [`TokenRow`]. For operators.
    0x67 IssueToken {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// The window's beginning, milliseconds since 1970 UTC; what is past is now.
        from_ms: U64,
        /// Its end, milliseconds since 1970 UTC.
        until_ms: U64,
        /// Value of the KPI that the workload is to reach; 0 without one.
        profile_limit: U64,
        /// Account.
        account: U32,
        /// The only instance that may redeem it, of the account and the tier; [`ANY`]: any such.
        instance: U32,
        /// VRUs.
        vru: U32,
        /// Tier.
        tier: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Greater goes first.
        priority: u8,
        /// Performance profile: a [`crate::code::Kpi`], or 255 for none.
        profile: u8,
        /// 1: it may be swapped for another.
        swap_eligible: u8,
        /// 1: what runs on it is not to be moved while it runs.
        sticky: u8,
        /// Zero.
        reserved: u8,
    }
    /// Gives an instance a token's VRUs until the window ends, on top of its baseline. [`Done`] holds
    /// the token's generation from then on. For the account's tenant and operators; for agents, if the
    /// token is bound to their instance.
    0x68 RedeemToken {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Instance, of the token's account and tier.
        instance: U32,
        /// Zero.
        reserved: U32,
        /// The first [`TOKEN_BYTES`] of its [`TokenRow`].
        token: [u8; TOKEN_BYTES],
    }
    /// Takes a part of a token off as a new one. [`Done`] holds the new one's id.
    0x69 SplitToken {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// The window's part from here on, milliseconds since 1970 UTC; 0: `vru` says the part.
        at_ms: U64,
        /// So many VRUs; 0: `at_ms` says the part.
        vru: U32,
        /// Zero.
        reserved: U32,
        /// The first [`TOKEN_BYTES`] of its [`TokenRow`].
        token: [u8; TOKEN_BYTES],
    }
    /// Makes one token of two of the same window, or of the same VRUs in windows that meet; all else
    /// is the same. [`Done`] holds the generation of the first from then on; the other is over.
    0x6a MergeTokens {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// The first [`TOKEN_BYTES`] of the [`TokenRow`] of the one that stays.
        token: [u8; TOKEN_BYTES],
        /// Those of the one that goes.
        other: [u8; TOKEN_BYTES],
    }
    /// Gives a token to another account, if they may trade; no instance is bound to it any more. [`Done`]
    /// holds its generation from then on.
    0x6b TransferToken {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Account.
        account: U32,
        /// Zero.
        reserved: U32,
        /// The first [`TOKEN_BYTES`] of its [`TokenRow`].
        token: [u8; TOKEN_BYTES],
    }
    /// Ends a token, redeemed or not. [`Done`] holds its VRUs. For operators.
    0x6c RevokeToken {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Its id.
        id: U64,
    }
    /// Asks for [`TokenRow`]s, by id.
    0x6d QueryTokens {
        /// First id.
        from: U64,
    }
    /// What became of a token, to the session that changed it last.
    0x99 TokenMoved {
        /// Its id.
        id: U64,
        /// When, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Its window from then on, milliseconds since 1970 UTC.
        from_ms: U64,
        /// The window's end.
        until_ms: U64,
        /// Account.
        account: U32,
        /// Instance that it is bound to or redeemed for, or [`ANY`].
        instance: U32,
        /// VRUs.
        vru: U32,
        /// Generation from then on.
        generation: U32,
        /// Book of its tier and resource.
        book: U16,
        /// A [`crate::code::TokenOutcome`].
        outcome: u8,
        /// Zero.
        reserved: [u8; 5],
    }
    /// A token, and how it stands. The first [`TOKEN_BYTES`] are what requests carry: the token, sealed
    /// for who may present it.
    0xdf TokenRow {
        /// The daemon that issued it.
        house: U64,
        /// Its id.
        id: U64,
        /// Its window's beginning, milliseconds since 1970 UTC.
        from_ms: U64,
        /// The window's end.
        until_ms: U64,
        /// Value of the profile's KPI that is to be reached.
        profile_limit: U64,
        /// VRUs.
        vru: U32,
        /// Changes so far, and one.
        generation: U32,
        /// Account.
        account: U32,
        /// Instance that it is bound to or redeemed for, or [`ANY`].
        instance: U32,
        /// Tier.
        tier: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Greater goes first.
        priority: u8,
        /// Performance profile: a [`crate::code::Kpi`], or 255 for none.
        profile: u8,
        /// 1: it may be swapped for another.
        swap_eligible: u8,
        /// 1: what runs on it is not to be moved while it runs.
        sticky: u8,
        /// Zero.
        reserved: u8,
        /// Number of the key that it is sealed with; 0: it is not sealed.
        key: U64,
        /// Keyed BLAKE3 of the 64 bytes before `key`; zeros where it is not sealed.
        mac: [u8; 32],
        /// 1: it is redeemed.
        redeemed: u8,
        /// 1: it is sealed.
        sealed: u8,
        /// Zero.
        reserved2: [u8; 6],
    }

    // ---- swaps of tokens -----------------------------------------------------------------
    /// Asks for VRUs of a token for another of the same book, for a time. [`Done`] holds the swap's id.
    /// For the tenant of the destination's account and operators.
    0x6e SwapRequest {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Id of the token whose VRUs are lent; 0: the daemon picks one, as it does for its own proposals.
        source: U64,
        /// Id of the token that has them meanwhile.
        destination: U64,
        /// It is approved by then or expires, milliseconds since 1970 UTC.
        deadline_ms: U64,
        /// Micro-units of funds for the source's account, held of the destination's from now on.
        incentive_micro: U64,
        /// Generation of the source that was seen; 0 with the daemon's pick.
        source_generation: U32,
        /// Generation of the destination that was seen.
        destination_generation: U32,
        /// VRUs, fewer than the source has.
        vru: U32,
        /// From its approval, milliseconds; [`SWAP_MS_MIN`] at least.
        lasts_ms: U32,
        /// VRUs that the destination lends the source afterwards, fewer than it has; 0: none.
        boost_vru: U32,
        /// For so long, milliseconds; 0 without a boost.
        boost_ms: U32,
    }
    /// Approves a swap, which begins at once. [`Done`] holds the source's generation from then on. For
    /// the tenant of the source's account and operators.
    0x6f SwapApprove {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// The swap.
        id: U64,
    }
    /// Rejects a swap that waits for approval; by who asked for it: takes it back. [`Done`] holds its
    /// incentive, which is free again. For the tenants of both accounts and operators.
    0x70 SwapReject {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// The swap.
        id: U64,
        /// Why, in words; may be empty.
        words: [u8; NAME_BYTES],
    }
    /// Asks for [`SwapRow`]s, by id.
    0x71 SwapList {
        /// First id.
        from: U64,
    }
    /// What an account thinks of swaps of its tokens. [`Done`] holds the account. For its tenant and
    /// operators.
    0x72 SetSwapPolicy {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// It lends for that much at least, micro-units a VRU-second; where the answer is [`crate::code::SwapAnswer::Accept`].
        least_micro: U64,
        /// The daemon may offer that much for it, micro-units a VRU-second.
        pay_micro: U64,
        /// Account.
        account: U32,
        /// Its workloads may stand still for so long while a limit is moved, milliseconds.
        downtime_ms: U32,
        /// The KPI of its token's profile may be worse than its limit by so many percent while it
        /// lends; at most [`DEGRADATION_PERCENT_MAX`].
        degradation_percent: U16,
        /// A [`crate::code::SwapAnswer`].
        answer: u8,
        /// 1: the daemon asks for swaps on its behalf.
        seek: u8,
        /// Zero.
        reserved: U32,
    }
    /// Asks for [`SwapPolicyRow`]s, by account.
    0x73 QuerySwapPolicies {
        /// First account.
        from: U32,
    }
    /// What became of a swap, to the session that asked for it and to tenants of both accounts.
    0xa6 SwapMoved {
        /// Its id.
        id: U64,
        /// When, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Token whose VRUs are lent.
        source: U64,
        /// Token that has them meanwhile.
        destination: U64,
        /// When that which it does now ends, or ended, milliseconds since 1970 UTC.
        ends_ms: U64,
        /// Micro-units of funds that the source's account has earned.
        paid_micro: U64,
        /// Account of the source.
        source_account: U32,
        /// Account of the destination.
        destination_account: U32,
        /// VRUs that are lent; in a boost those of the boost.
        vru: U32,
        /// Book of both.
        book: U16,
        /// A [`crate::code::SwapState`].
        state: u8,
        /// A [`crate::code::SwapReason`].
        reason: u8,
        /// Why, in words, if somebody rejected it.
        words: [u8; NAME_BYTES],
    }
    /// A swap, to both accounts.
    0xd2 SwapRow {
        /// Its id.
        id: U64,
        /// Token whose VRUs are lent.
        source: U64,
        /// Token that has them meanwhile.
        destination: U64,
        /// When it was asked for, milliseconds since 1970 UTC.
        asked_ms: U64,
        /// It is approved by then or expires, milliseconds since 1970 UTC.
        deadline_ms: U64,
        /// When that which it does now ends, or ended, milliseconds since 1970 UTC; 0 while it waits.
        ends_ms: U64,
        /// Micro-units of funds that were offered.
        incentive_micro: U64,
        /// Micro-units of them that the source's account has earned.
        paid_micro: U64,
        /// Account of the source.
        source_account: U32,
        /// Account of the destination.
        destination_account: U32,
        /// Instance that the source is bound to or redeemed for, or [`ANY`]; when it was asked for.
        source_instance: U32,
        /// The same of the destination.
        destination_instance: U32,
        /// Generation of the source that it is about.
        source_generation: U32,
        /// The same of the destination.
        destination_generation: U32,
        /// VRUs.
        vru: U32,
        /// From its approval, milliseconds.
        lasts_ms: U32,
        /// VRUs of the boost; 0: none.
        boost_vru: U32,
        /// The boost lasts so long, milliseconds.
        boost_ms: U32,
        /// Percent by which the KPI of who lends may be worse than its profile's limit.
        degradation_percent: U16,
        /// Book of both.
        book: U16,
        /// A [`crate::code::SwapState`].
        state: u8,
        /// A [`crate::code::SwapReason`].
        reason: u8,
        /// 1: the daemon asked for it.
        by_manager: u8,
        /// Reports of the KPI in a row that were worse.
        breaches: u8,
        /// Why, in words, if somebody rejected it.
        words: [u8; NAME_BYTES],
    }
    /// What an account thinks of swaps, to itself.
    0xd3 SwapPolicyRow {
        /// It lends for that much at least, micro-units a VRU-second.
        least_micro: U64,
        /// The daemon may offer that much for it, micro-units a VRU-second.
        pay_micro: U64,
        /// Account.
        account: U32,
        /// Its workloads may stand still for so long while a limit is moved, milliseconds.
        downtime_ms: U32,
        /// Percent by which the KPI of its token's profile may be worse than its limit.
        degradation_percent: U16,
        /// A [`crate::code::SwapAnswer`].
        answer: u8,
        /// 1: the daemon asks for swaps on its behalf.
        seek: u8,
        /// Zero.
        reserved: U32,
    }

    // ---- swarm: requests, reports, questions, rows ---------------------------------------------
    /// Asks for VRUs of an instance of a group for a task: section 7, *Swarm*. Answered by
    /// [`TaskAdmitted`] or [`Rejected`]. For tenants and operators; an agent names its own instance.
    0x18 SubmitTask {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Micro-units of funds that the task may cost at most. Held until it ends.
        bid_micro: U64,
        /// No VRU is granted that leaves the margin at so many micro-units a second or below.
        margin_min_micro: U64,
        /// How long the task is expected to take, milliseconds, 1 or more.
        duration_ms: U32,
        /// VRUs it can use at most, 1 to [`TASK_VRU_MAX`].
        vru_max: U32,
        /// Instance it must run in, or [`ANY`] of the group.
        instance: U32,
        /// Account that pays, or [`ANY`]: the session's own; of an operator, the group's.
        account: U32,
        /// Group number, from [`QueryGroups`].
        group: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// What happens while no VRU can be granted: 1: it waits; 0: it is refused, or ends.
        queue: u8,
        /// Zero.
        reserved: [u8; 4],
        /// What it is called, zero-padded UTF-8; need not be unique.
        name: [u8; NAME_BYTES],
    }
    /// Ends a task: what it holds is given back. Answered by [`Done`] with what it cost, micro-units,
    /// or by [`Rejected`].
    0x19 CancelTask {
        /// From [`TaskAdmitted`].
        handle: U64,
    }
    /// Says how far a task is and what it used. Answered by [`Done`] with the progress, or by
    /// [`Rejected`].
    0x1a ReportTask {
        /// From [`TaskAdmitted`].
        handle: U64,
        /// Thousandths of VRUs that it used on average since it began; all bits set: as said before.
        used_millivru: U32,
        /// Thousandths of its work that are done; 1000 ends it.
        progress_permille: U16,
        /// Zero.
        reserved: U16,
    }
    /// Makes a group of instances, or changes what holds in it. [`Done`] holds its number.
    0x58 SetGroup {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Micro-units a VRU-second while nothing is granted, for each resource, at most
        /// [`VRU_PRICE_MAX_MICRO`]; 0: tasks get none of it.
        base_micro: [U64; 5],
        /// Account whose instances it is made of.
        account: U32,
        /// By so many percent of the base the last VRU of an instance is dearer than the first, about;
        /// at most [`STEEP_PERCENT_MAX`].
        steep_percent: U32,
        /// A task keeps each VRU so long before another can win it, milliseconds.
        hold_ms: U32,
        /// Demand must be high or low for so long before an instance is activated or deactivated,
        /// and so long anew before the next, milliseconds.
        cool_ms: U32,
        /// Demand is high from so many thousandths of the active instances' VRUs on.
        high_permille: U16,
        /// Demand is low up to so many.
        low_permille: U16,
        /// So many instances stay active.
        active_min: U16,
        /// Group number; 65,535 to make one.
        group: U16,
        /// Unique name.
        name: [u8; NAME_BYTES],
    }
    /// Puts an instance into a group of its account, or takes it out. [`Done`] holds the instance.
    0x59 SetMember {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Instance.
        instance: U32,
        /// Group number; 65,535 for none.
        group: U16,
        /// Zero.
        reserved: U16,
    }
    /// Tasks in order of slot, a page at a time: a [`TaskRow`] each.
    0x5c QueryTasks {
        /// First slot wanted.
        from: U32,
    }
    /// Groups in order of number, a page at a time: a [`GroupRow`] each.
    0x5d QueryGroups {
        /// First number wanted.
        from: U32,
    }
    /// Instances that are in a group, in order of number, a page at a time: a [`MemberRow`] each.
    0x5e QueryMembers {
        /// First instance wanted.
        from: U32,
    }
    /// A task was taken; it may wait for VRUs. Changes and its end follow.
    0x9a TaskAdmitted {
        /// Sequence of the request.
        request: U64,
        /// The task's id.
        client_id: U64,
        /// What [`CancelTask`] and [`ReportTask`] carry: slot in the low half, generation in the high.
        handle: U64,
        /// Sequencer's time, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Micro-units held.
        held_micro: U64,
        /// Micro-units a second that its VRUs cost.
        rate_micro: U64,
        /// Margin, micro-units a second, rounded down, two's complement.
        margin_micro: U64,
        /// Instance it runs in; [`ANY`] while it waits.
        instance: U32,
        /// VRUs granted.
        vru: U32,
    }
    /// A task has other VRUs, or runs elsewhere.
    0x9b TaskChanged {
        /// The task's id.
        client_id: U64,
        /// The task's handle.
        handle: U64,
        /// Sequencer's time, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Micro-units a second that its VRUs cost from now on.
        rate_micro: U64,
        /// Margin, micro-units a second, rounded down, two's complement.
        margin_micro: U64,
        /// Instance it runs in; [`ANY`] while it waits.
        instance: U32,
        /// VRUs granted.
        vru: U32,
    }
    /// A task is over. Told to the session that submitted it.
    0x9c TaskEnded {
        /// The task's id.
        client_id: U64,
        /// The task's handle.
        handle: U64,
        /// Sequencer's time, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Micro-units it cost.
        paid_micro: U64,
        /// Micro-units of its bid that are free again.
        released_micro: U64,
        /// A [`crate::code::TaskEnd`].
        reason: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// A task.
    0xe8 TaskRow {
        /// Handle.
        handle: U64,
        /// Its id.
        client_id: U64,
        /// Micro-units bid.
        bid_micro: U64,
        /// Micro-units paid so far: the task's cost, its group's revenue.
        paid_micro: U64,
        /// Micro-units a second that its VRUs cost.
        rate_micro: U64,
        /// Margin, micro-units a second, rounded down, two's complement.
        margin_micro: U64,
        /// Least margin asked for, micro-units a second.
        margin_min_micro: U64,
        /// When it was submitted, milliseconds since 1970 UTC.
        submitted_ms: U64,
        /// Expected to take so long, milliseconds.
        duration_ms: U32,
        /// VRUs granted.
        vru: U32,
        /// VRUs it can use at most.
        vru_max: U32,
        /// Thousandths of VRUs that it said it used; all bits set if it said nothing.
        used_millivru: U32,
        /// Account that pays.
        account: U32,
        /// Instance it runs in; [`ANY`] while it waits.
        instance: U32,
        /// Group.
        group: U16,
        /// Thousandths of its work that are done, as it said.
        progress_permille: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// 1 while it waits for VRUs.
        waits: u8,
        /// 1: it said it uses less than a quarter of what it was granted.
        inefficient: u8,
        /// Zero.
        reserved: u8,
        /// What it is called.
        name: [u8; NAME_BYTES],
    }
    /// A group of instances.
    0xe9 GroupRow {
        /// Micro-units a VRU-second while nothing is granted, for each resource.
        base_micro: [U64; 5],
        /// Micro-units that tasks have paid in it.
        revenue_micro: U64,
        /// VRUs granted of each resource.
        used_vru: [U32; 5],
        /// VRUs of the active instances of each resource.
        active_vru: [U32; 5],
        /// Account.
        account: U32,
        /// As set.
        steep_percent: U32,
        /// As set.
        hold_ms: U32,
        /// As set.
        cool_ms: U32,
        /// Tasks that have VRUs.
        running: U32,
        /// Tasks that wait.
        waiting: U32,
        /// Instances activated since the group was made.
        activations: U32,
        /// Instances deactivated since then.
        deactivations: U32,
        /// As set.
        high_permille: U16,
        /// As set.
        low_permille: U16,
        /// As set.
        active_min: U16,
        /// Group number.
        group: U16,
        /// Instances in it.
        members: U16,
        /// Those that run.
        active: U16,
        /// 0: demand is neither; 1: high; 2: low.
        demand: u8,
        /// Zero.
        reserved: [u8; 3],
        /// Name.
        name: [u8; NAME_BYTES],
    }
    /// An instance that is in a group.
    0xea MemberRow {
        /// Micro-units a VRU-second that the next VRU of each resource costs; 0 where there is none.
        price_micro: [U64; 5],
        /// VRUs granted to tasks.
        used_vru: [U32; 5],
        /// VRUs there are: the instance's baseline.
        capacity_vru: [U32; 5],
        /// Instance.
        instance: U32,
        /// Group.
        group: U16,
        /// 0: it runs; 1: the group deactivated it; 2: an operator froze it.
        state: u8,
        /// Zero.
        reserved: u8,
    }

    // ---- forecasts -----------------------------------------------------------------------------
    /// Says what an instance will need of a resource: section 7, *Forecasts*. It takes the place of
    /// what the same source said before for the same horizon. [`Done`] holds how many forecasts of
    /// the resource stand. For the instance's own agent, its tenant and operators; of source model
    /// for operators and the daemon itself.
    0x1b SetForecast {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// It holds from so many milliseconds after the request on.
        starts_in_ms: U32,
        /// And for so long, milliseconds; 0 takes it back, and the rest is zero. Both together are at
        /// most [`FORECAST_MS_MAX`].
        lasts_ms: U32,
        /// VRUs needed: as likely more as less.
        p50_vru: U32,
        /// VRUs that will do with 90%: the upper end of the 80% interval.
        p90_vru: U32,
        /// VRUs that will do with 97.5%: the upper end of the 95% interval.
        p975_vru: U32,
        /// Instance number.
        instance: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// A [`crate::code::Source`].
        source: u8,
        /// A [`crate::code::Horizon`].
        horizon: u8,
        /// Zero.
        reserved: [u8; 5],
    }
    /// Asks for [`ForecastRow`]s, by instance, resource, source and horizon.
    0x5a QueryForecasts {
        /// First place.
        from: U32,
    }
    /// A forecast that stands.
    0xd9 ForecastRow {
        /// It holds from here on, milliseconds since 1970 UTC.
        starts_at_ms: U64,
        /// Up to here.
        ends_at_ms: U64,
        /// VRUs needed: as likely more as less.
        p50_vru: U32,
        /// VRUs that will do with 90%.
        p90_vru: U32,
        /// VRUs that will do with 97.5%.
        p975_vru: U32,
        /// VRUs that the instance has now: reserved, less lent, and leased.
        has_vru: U32,
        /// Instance number.
        instance: U32,
        /// What it would matter, thousandths: its bid, twice that if it is entitled to class sla.
        impact_milli: U32,
        /// `short_permille` x `impact_milli` / 1000, rounded down.
        risk: U32,
        /// Probability that it needs more than it has, thousandths.
        short_permille: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// A [`crate::code::Source`].
        source: u8,
        /// A [`crate::code::Horizon`].
        horizon: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// Plans an event: while it lasts an instance needs more, or less, of a resource than the daemon
    /// foresees: section 7, *Planned events*. One of the same name takes the place of the one before.
    /// [`Done`] holds how many there are of the resource. For the instance's own agent, its tenant and
    /// operators.
    0x76 PlanEvent {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// When it begins, milliseconds since 1970 UTC.
        starts_at_ms: U64,
        /// From here on it does not begin again, milliseconds since 1970 UTC; 0: it always does. 0 where
        /// `every_days` is, else after the begin.
        until_ms: U64,
        /// It lasts so long, milliseconds, at most [`FORECAST_MS_MAX`] and what it repeats after; 0: it is
        /// not planned any more, and all but `name` and whose it is is zero.
        lasts_ms: U32,
        /// Instance number.
        instance: U32,
        /// VRUs more that are needed.
        add_vru: U32,
        /// Percent of what would be needed otherwise, at most [`EVENT_PERCENT_MAX`].
        percent: U16,
        /// It begins again after so many days, at most 366; 0: it is once.
        every_days: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 7],
        /// What it is called: one of a name for an instance's resource.
        name: [u8; NAME_BYTES],
    }
    /// Asks for [`EventRow`]s, by instance and resource, of events that are not over for good.
    0x77 QueryEvents {
        /// First place.
        from: U32,
    }
    /// A planned event.
    0xe7 EventRow {
        /// When it began or begins first, milliseconds since 1970 UTC.
        starts_at_ms: U64,
        /// From here on it does not begin again, milliseconds since 1970 UTC; 0: it always does.
        until_ms: U64,
        /// When it began, if it is going on, or begins next, milliseconds since 1970 UTC.
        next_at_ms: U64,
        /// It lasts so long, milliseconds.
        lasts_ms: U32,
        /// Instance number.
        instance: U32,
        /// VRUs more that are needed.
        add_vru: U32,
        /// Percent of what would be needed otherwise.
        percent: U16,
        /// It begins again after so many days; 0: it is once.
        every_days: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 7],
        /// What it is called.
        name: [u8; NAME_BYTES],
    }
    /// What an instance used of a resource, and what had been foreseen of it: [`HistoryRow`]s, the oldest
    /// first, as far as the daemon's forecaster remembers.
    0x61 QueryHistory {
        /// The first that is wanted begins here or later, nanoseconds since 1970 UTC.
        from_ns: U64,
        /// Instance number.
        instance: U32,
        /// Seconds of a row: one of [`BAR_WIDTHS_S`]. Seconds are kept for an hour, minutes for a week, hours
        /// for a year.
        width_s: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: u8,
    }
    /// What an instance used of a resource in a while, and what was foreseen of that while: by the last
    /// forecast that was made before it. Thousandths of VRUs; where all bits are set it is not known, or was
    /// not foreseen.
    0xe6 HistoryRow {
        /// Begin, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// What was used, in the mean; not known of what is still to come.
        used_milli_vru: U32,
        /// Lower end of the 95% interval.
        p025_milli_vru: U32,
        /// Lower end of the 80% interval.
        p10_milli_vru: U32,
        /// As likely more as less.
        p50_milli_vru: U32,
        /// Upper end of the 80% interval.
        p90_milli_vru: U32,
        /// Upper end of the 95% interval.
        p975_milli_vru: U32,
    }
    /// Sets or removes the standing policy of an instance's resource: section 7, *Policies*. [`Done`]
    /// holds 1 if there was one. For the instance's own agent, its tenant and operators.
    0x53 SetPolicy {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Micro-units of funds an hour; 0 removes the policy.
        budget_micro: U64,
        /// Micro-units that it may save up to spend at once, at most the budget.
        burst_micro: U64,
        /// Instance number.
        instance: U32,
        /// The most that it pays to lease a VRU for a second, ticks; 0: it does not lease.
        rent_ticks: U32,
        /// The most that it pays for a credit, ticks; 0: it buys none.
        price_ticks: U32,
        /// It looks ahead so far, milliseconds, at most [`FORECAST_MS_MAX`].
        lead_ms: U32,
        /// It gives nothing back so soon after its last change, milliseconds, at most an hour.
        hold_ms: U32,
        /// It changes its lease by so many VRUs at least; 0 means 1.
        step_vru: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Class of its lease, a [`crate::code::LeaseClass`].
        class: u8,
        /// A [`crate::code::Cover`].
        cover: u8,
        /// Zero.
        reserved: [u8; 5],
    }
    /// Asks for [`PolicyRow`]s, by slot.
    0x57 QueryPolicies {
        /// First slot.
        from: U32,
    }
    /// What a policy did, or why it does nothing, to the session that set it.
    0x97 PolicyActed {
        /// When, nanoseconds since 1970 UTC.
        time_ns: U64,
        /// Handle of its lease, 0 if it has none.
        handle: U64,
        /// Micro-units spent since it was set, what is held included.
        spent_micro: U64,
        /// Micro-units that it may spend now.
        left_micro: U64,
        /// Instance number.
        instance: U32,
        /// VRUs that it needs.
        need_vru: U32,
        /// VRUs that it leases from now on, or credits that it bought.
        amount: U32,
        /// The most that its lease pays, or what it bought for, ticks.
        price_ticks: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// A [`crate::code::PolicyAct`].
        act: u8,
        /// A [`crate::code::PolicyReason`].
        reason: u8,
        /// Why it was refused, a [`crate::code::Reject`]; 0: it was not.
        code: u8,
        /// Zero.
        reserved: [u8; 4],
    }
    /// A standing policy.
    0xd8 PolicyRow {
        /// Micro-units of funds an hour.
        budget_micro: U64,
        /// Micro-units that it may save up.
        burst_micro: U64,
        /// Micro-units that it may spend now.
        left_micro: U64,
        /// Micro-units spent in this hour of the clock, what is held for its lease included.
        hour_micro: U64,
        /// Micro-units spent since it was set, what is held included.
        spent_micro: U64,
        /// Credits bought since then.
        bought_credits: U64,
        /// Handle of its lease, 0 if it has none.
        handle: U64,
        /// When it changed something last, milliseconds since 1970 UTC.
        acted_at_ms: U64,
        /// Instance number.
        instance: U32,
        /// VRUs that the instance needed when it was looked at last.
        need_vru: U32,
        /// VRUs that its lease wants.
        wanted_vru: U32,
        /// VRUs that its lease has.
        granted_vru: U32,
        /// The most that it pays to lease, ticks.
        rent_ticks: U32,
        /// The most that it pays for a credit, ticks.
        price_ticks: U32,
        /// It looks ahead so far, milliseconds.
        lead_ms: U32,
        /// It gives nothing back so soon after its last change, milliseconds.
        hold_ms: U32,
        /// It changes its lease by so many VRUs at least.
        step_vru: U32,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// A [`crate::code::LeaseClass`].
        class: u8,
        /// A [`crate::code::Cover`].
        cover: u8,
        /// A [`crate::code::PolicyAct`]: the last.
        act: u8,
        /// A [`crate::code::PolicyReason`]: why.
        reason: u8,
        /// Why it was refused, a [`crate::code::Reject`]; 0: it was not.
        code: u8,
        /// Zero.
        reserved: [u8; 6],
    }
    /// Starts an experiment: some instances follow one policy for a resource, some another, or none, or the
    /// manager of swaps acts for some on other terms than for others, and what that does is measured: section 7, *Experiments*.
    /// Of each pair the first is arm A's, the second arm B's. [`Done`] holds its number. For operators.
    0x7a StartExperiment {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Chooses who is in which arm.
        salt: U64,
        /// It is over after so long, milliseconds, a minute to 90 days.
        lasts_ms: U64,
        /// It ends once B is worse than A by more than that, thousandths of the measure's unit, beyond
        /// doubt.
        harm_milli: U64,
        /// As of [`SetPolicy`]; 0: the arm leaves instances as they are, and the rest of it is zero. Of both arms
        /// 0 if swaps are compared.
        budget_micro: [U64; 2],
        /// As of [`SetPolicy`].
        burst_micro: [U64; 2],
        /// As of [`SetPolicy`].
        rent_ticks: [U32; 2],
        /// As of [`SetPolicy`].
        price_ticks: [U32; 2],
        /// As of [`SetPolicy`].
        lead_ms: [U32; 2],
        /// As of [`SetPolicy`].
        hold_ms: [U32; 2],
        /// As of [`SetPolicy`].
        step_vru: [U32; 2],
        /// Only instances of this account take part; [`ANY`]: of every account.
        account: U32,
        /// Only those of this tier; all bits set: of every tier.
        tier: U16,
        /// As of [`SetPolicy`].
        class: [u8; 2],
        /// As of [`SetPolicy`]; if swaps are compared, the quantile of its need up to which an instance is
        /// lent to.
        cover: [u8; 2],
        /// A [`crate::code::Resource`].
        resource: u8,
        /// What is compared: a [`crate::code::Kpi`], as the instances' objectives are told it, or, of
        /// policies, [`MEASURE_COST`].
        measure: u8,
        /// 1: more of it is better; 0: less.
        more_is_better: u8,
        /// From which probability of too little the manager of swaps acts for an instance, percent;
        /// [`RISK_NEVER`]: it does not; 0: as it does for others. Of both arms 0 if policies are compared.
        risk_percent: [u8; 2],
        /// Zero.
        reserved: u8,
        /// What it is called.
        name: [u8; NAME_BYTES],
    }
    /// Ends an experiment. [`Done`] holds how many instances have their policies still to be taken back; of
    /// swaps 0. For operators.
    0x7b StopExperiment {
        /// Greater than every earlier `client_id` of the session.
        client_id: U64,
        /// Its number.
        experiment: U32,
        /// Zero.
        reserved: U32,
    }
    /// Asks for [`ExperimentRow`]s, by number. For who sees everything; to others there are none.
    0x7c QueryExperiments {
        /// First number.
        from: U32,
    }
    /// Asks for [`ExposureRow`]s of an experiment, by place. For who sees everything; to others there are none.
    0x7d QueryExposures {
        /// First place.
        from: U32,
        /// Its number.
        experiment: U32,
    }
    /// An experiment. Of each pair the first is arm A's, the second arm B's.
    0xec ExperimentRow {
        /// When it began, milliseconds since 1970 UTC.
        started_at_ms: U64,
        /// When it is over, or ended, milliseconds since 1970 UTC.
        ends_at_ms: U64,
        /// Chooses who is in which arm.
        salt: U64,
        /// How much worse B may be, thousandths of the measure's unit.
        harm_milli: U64,
        /// Values that were told.
        values: [U64; 2],
        /// Mean of the instances' means, thousandths of the measure's unit.
        mean_milli: [U64; 2],
        /// The mean of B less that of A, thousandths, signed.
        effect_milli: U64,
        /// Where its 95% interval begins, thousandths, signed.
        low_milli: U64,
        /// Where that ends, thousandths, signed.
        high_milli: U64,
        /// Instances that were measured: the sample.
        sample: [U32; 2],
        /// Instances that follow an arm now.
        exposed: [U32; 2],
        /// Micro-units an hour of the policies, 0 of no policy; of both 0: swaps are compared.
        budget_micro: [U64; 2],
        /// Number.
        experiment: U32,
        /// Only instances of this account; [`ANY`]: of every account.
        account: U32,
        /// Only those of this tier; all bits set: of every tier.
        tier: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// A [`crate::code::Kpi`] or [`MEASURE_COST`].
        measure: u8,
        /// 1: more of it is better; 0: less.
        more_is_better: u8,
        /// A [`crate::code::ExperimentEnd`].
        end: u8,
        /// 1: there is an interval; 0: fewer than four instances of an arm were measured.
        has_interval: u8,
        /// How often was looked for harm.
        looks: u8,
        /// As of [`StartExperiment`].
        risk_percent: [u8; 2],
        /// As of [`StartExperiment`].
        cover: [u8; 2],
        /// What it is called.
        name: [u8; NAME_BYTES],
    }
    /// An instance that takes part in an experiment.
    0xed ExposureRow {
        /// Since when, milliseconds since 1970 UTC.
        since_ms: U64,
        /// Values that were told.
        values: U64,
        /// Their mean, thousandths of the measure's unit; all bits set: there is none yet.
        mean_milli: U64,
        /// Instance number.
        instance: U32,
        /// 0: A; 1: B.
        arm: u8,
        /// 1: its policy was changed meanwhile, and it takes part no more.
        left: u8,
        /// Zero.
        reserved: [u8; 2],
    }
    /// What happened in the next journal records, summed by step: [`ReportFlowRow`], [`ReportSampleRow`] and [`ReportTaskRow`]s.
    0x5b QueryReport {
        /// First sequence number wanted, 1 or more.
        from: U64,
        /// At most this many journal records are read.
        limit: U32,
        /// Seconds of a step, 1 or more; steps begin at multiples of that since 1970 UTC.
        step_s: U16,
        /// Zero.
        reserved: U16,
    }
    /// Where in the journal a time is: no row, and `QueryEnd.next` is the first durable record of that time or later, or the next one there will be.
    0x5f QueryMoment {
        /// Nanoseconds since 1970 UTC.
        time_ns: U64,
    }
    /// What an account or one of its instances paid, earned and used in a step. Amounts may be negative, two's complement, where a trade of before was reversed.
    0xdb ReportFlowRow {
        /// When the step begins, nanoseconds since 1970 UTC.
        step_ns: U64,
        /// Funds deposited, micro-units.
        deposited_micro: U64,
        /// Funds withdrawn.
        withdrawn_micro: U64,
        /// Earned by trades, without fees.
        sold_micro: U64,
        /// Paid for trades, without fees.
        bought_micro: U64,
        /// Paid for fees of trades.
        fee_micro: U64,
        /// Paid for leases.
        rent_paid_micro: U64,
        /// Paid for lent VRUs: their part of the rents of their book.
        rent_earned_micro: U64,
        /// Paid for tasks' VRUs. The account is who pays; the instance where they ran.
        task_cost_micro: U64,
        /// Earned by tasks' VRUs, by the group's account.
        task_revenue_micro: U64,
        /// Credits sold.
        sold_credits: U64,
        /// Credits bought.
        bought_credits: U64,
        /// VRU-milliseconds reserved: the instance's baseline over time.
        reserved_vru_ms: U64,
        /// VRU-milliseconds leased.
        leased_vru_ms: U64,
        /// VRU-milliseconds lent.
        lent_vru_ms: U64,
        /// VRU-milliseconds used, as the host measured.
        used_vru_ms: U64,
        /// Account.
        account: U32,
        /// Instance; [`ANY`] for what concerns none.
        instance: U32,
        /// Book of its tier and resource; [`ANY_BOOK`] for what concerns none.
        book: U16,
        /// Zero.
        reserved: [u8; 6],
        /// The instance's name then.
        name: [u8; NAME_BYTES],
    }
    /// A book, or a resource of a group, in a step.
    0xdc ReportSampleRow {
        /// When the step begins, nanoseconds since 1970 UTC.
        step_ns: U64,
        /// Up to when it is summed.
        until_ns: U64,
        /// First price: ticks, of trades; of a group micro-units a second, of its cheapest next VRU. 0: none.
        open: U64,
        /// Highest price.
        high: U64,
        /// Lowest price.
        low: U64,
        /// Last price.
        close: U64,
        /// Trades; of a group 0.
        trades: U64,
        /// Credits traded; of a group 0.
        volume_credits: U64,
        /// What was paid for them, without fees; of a group, what its tasks paid.
        notional_micro: U64,
        /// VRU-milliseconds there were; of a group, those of its active instances.
        capacity_vru_ms: U64,
        /// VRU-milliseconds that instances reserved; of a group 0.
        reserved_vru_ms: U64,
        /// VRU-milliseconds leased; of a group, those that tasks had.
        granted_vru_ms: U64,
        /// VRU-milliseconds lent; of a group 0.
        lent_vru_ms: U64,
        /// VRU-milliseconds used, as the host measured; of a group, as tasks said.
        used_vru_ms: U64,
        /// Rent of each class at the end, ticks a VRU-second; of a group 0.
        rent_ticks: [U32; 3],
        /// Book; [`ANY_BOOK`] for a group's.
        book: U16,
        /// Group; 65,535 for a book's.
        group: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// A task in a step.
    0xdd ReportTaskRow {
        /// When the step begins, nanoseconds since 1970 UTC.
        step_ns: U64,
        /// Tasks submitted before it: its own number.
        number: U64,
        /// Handle.
        handle: U64,
        /// When it was submitted.
        submitted_ns: U64,
        /// When it ended; 0 if it goes on.
        ended_ns: U64,
        /// Micro-units bid.
        bid_micro: U64,
        /// Micro-units it cost in this step.
        paid_micro: U64,
        /// Micro-units a second that its VRUs cost last.
        rate_micro: U64,
        /// Its margin then, micro-units a second, rounded down, two's complement.
        margin_micro: U64,
        /// VRU-milliseconds it had.
        granted_vru_ms: U64,
        /// Those of them for which it had said what it uses.
        reported_vru_ms: U64,
        /// VRU-milliseconds of those that it used, as it said.
        used_vru_ms: U64,
        /// Milliseconds for which it used less than a quarter of what it had.
        inefficient_ms: U64,
        /// Micro-units it cost while it did.
        inefficient_micro: U64,
        /// Expected to take so long, milliseconds.
        duration_ms: U32,
        /// VRUs it had last.
        vru: U32,
        /// VRUs it can use at most.
        vru_max: U32,
        /// Account that pays.
        account: U32,
        /// Instance it ran in last; [`ANY`] if it never ran.
        instance: U32,
        /// Group.
        group: U16,
        /// Thousandths of its work done, as it said last.
        progress_permille: U16,
        /// A [`crate::code::Resource`].
        resource: u8,
        /// A [`crate::code::TaskEnd`]; 255 if it goes on.
        reason: u8,
        /// Zero.
        reserved: [u8; 6],
        /// What it is called.
        name: [u8; NAME_BYTES],
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

/// The record that the row of a departure shows.
impl From<&MigrationRow> for Arrive {
    fn from(row: &MigrationRow) -> Arrive {
        Arrive {
            client_id: 0.into(),
            house: row.house,
            ticket: row.ticket,
            source: row.source,
            departure: row.departure,
            seal: row.seal,
            credit_millicredits: row.credit_millicredits,
            vru_size: row.vru_size,
            lease_expires_ms: row.lease_expires_ms,
            lease_vru: row.lease_vru,
            lease_hold_ms: row.lease_hold_ms,
            baseline_vru: row.baseline_vru,
            entitled_vru: row.entitled_vru,
            bid_milli: row.bid_milli,
            lease_rent_ticks: row.lease_rent_ticks,
            lease_class: row.lease_class,
            lease_resource: row.lease_resource,
            lease_all_or_none: row.lease_all_or_none,
            leases: row.leases,
            reserved: [0; 3],
            account: row.account,
            name: row.name,
        }
    }
}
