//! Events: what the machine says, in order, into one preallocated buffer.
//!
//! Reports are the protocol's own messages, addressed to a session's slot. What later stages
//! need besides (trades, levels, entitlements) has layouts of its own, below.

use super::command::Genesis;
use super::config::{EXCHANGES_MAX, RESOURCES};
use super::policy::SAID_BYTES;
use super::rescue::OBJECTIVES_MAX;
use super::slab::BOOKS_MAX;
use super::swap::PARTIES;
use super::swarm::TASKS_MAX;
use vendue_wire::code::Side;
use vendue_wire::message::*;
use vendue_wire::messages;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

messages! {
    /// A trade, with all that both parties' reports need.
    0xc0 Fill {
        /// Trade's number.
        trade: U64,
        /// Maker's id of its order.
        maker_client_id: U64,
        /// Taker's id of its order.
        taker_client_id: U64,
        /// Maker's handle.
        maker_handle: U64,
        /// Taker's handle.
        taker_handle: U64,
        /// Micro-units of funds the maker pays as a fee.
        maker_fee_micro: U64,
        /// Micro-units of funds the taker pays as a fee.
        taker_fee_micro: U64,
        /// Credits.
        quantity: U32,
        /// Credits the maker's order still wants.
        maker_remaining: U32,
        /// Credits the taker's order still wants.
        taker_remaining: U32,
        /// Maker's account.
        maker_account: U16,
        /// Taker's account.
        taker_account: U16,
        /// Maker's instance.
        maker: U16,
        /// Maker's session slot.
        maker_session: U16,
        /// Price in ticks: the maker's.
        price_ticks: U16,
        /// Maker's place: see [`super::slab::Tag`].
        maker_place: U16,
        /// Taker's instance.
        taker: U16,
        /// Taker's session slot.
        taker_session: U16,
        /// Taker's limit in ticks.
        limit_ticks: U16,
        /// Taker's place.
        taker_place: U16,
    }
    /// A replacement moves what is open of an order to another price or another quantity.
    0xc1 Moved {
        /// Price in ticks before.
        from_ticks: U32,
        /// Credits open before.
        from_quantity: U32,
        /// Price in ticks from now on.
        to_ticks: U32,
        /// Credits open from now on, before it meets anyone there.
        to_quantity: U32,
        /// Book.
        book: U16,
        /// A [`vendue_wire::code::Side`].
        side: u8,
        /// Zero.
        reserved: [u8; 5],
    }
    /// What an instance may use of a resource from now on.
    0xc2 Entitled {
        /// VRUs: its cap.
        vru: U64,
        /// Size of a VRU in the resource's unit.
        vru_size: U64,
        /// VRUs: what it reserved.
        baseline_vru: U32,
        /// Instance.
        instance: U32,
        /// A [`vendue_wire::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// Where an instance's disks belong from now on, and what it may use there.
    0xee Stored {
        /// VRUs of that tier's block I/O; at home 0.
        vru: U64,
        /// Size of a VRU, bytes/s; at home 0.
        vru_size: U64,
        /// Instance.
        instance: U32,
        /// Tier: its own when it is at home.
        tier: U16,
        /// Zero.
        reserved: [u8; 2],
    }
    /// An instance is under Vendue's care.
    0xc3 InstanceCreated {
        /// Instance.
        instance: U32,
        /// Tier.
        tier: U16,
        /// Account that owns it.
        account: U16,
        /// Where it runs.
        place: [u8; PLACE_BYTES],
    }
    /// An instance is released.
    0xc4 InstanceRemoved {
        /// Instance.
        instance: U32,
    }
    /// A session is open; the answer to its logon.
    0xc5 SessionOpened {
        /// Session's own number.
        session: U64,
        /// Highest request executed.
        last_request: U64,
        /// Highest client id used.
        last_client_id: U64,
        /// First report to replay, 0 for none.
        replay_from: U64,
        /// Account or [`ANY`].
        account: U32,
        /// Instance or [`ANY`].
        instance: U32,
        /// Heartbeat interval, milliseconds.
        heartbeat_ms: U32,
        /// Connection that asked.
        connection: U32,
        /// Role.
        role: u8,
        /// 1 if the slot was given to a session not known before.
        fresh: u8,
        /// Zero.
        reserved: [u8; 6],
    }
    /// A logon was refused by the machine.
    0xc6 SessionRefused {
        /// Connection that asked.
        connection: U32,
        /// A [`vendue_wire::code::Reject`].
        code: u8,
        /// Zero.
        reserved: [u8; 3],
    }
    /// How much an instance weighs where a resource is contended.
    0xc8 Weighted {
        /// Size of a VRU in the resource's unit.
        vru_size: U64,
        /// VRUs it counts as, beside the others' weights.
        weight_vru: U32,
        /// Instance.
        instance: U32,
        /// A [`vendue_wire::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// The KPIs of an instance that are to be measured from now on.
    0xe4 Watched {
        /// Instance.
        instance: U32,
        /// Bit k: the [`vendue_wire::code::Kpi`] of number k.
        kpis: u8,
        /// Zero.
        reserved: [u8; 3],
    }
    /// A book has a new phase.
    0xca PhaseChanged {
        /// Book.
        book: U16,
        /// A [`vendue_wire::code::Phase`].
        phase: u8,
        /// Zero.
        reserved: u8,
    }
    /// What an auction would do now with a book in call; zeros once nothing crosses.
    0xcb Indicative {
        /// Credits it would trade if all orders may meet.
        volume: U64,
        /// Credits wanted less credits offered at its price, two's complement.
        imbalance: U64,
        /// Its price in ticks, 0 if nothing crosses.
        price_ticks: U32,
        /// Book.
        book: U16,
        /// Zero.
        reserved: U16,
    }
    /// A trade of an auction, with all that both parties' reports need.
    0xcc AuctionTrade {
        /// Trade's number.
        trade: U64,
        /// Seller's id of its order.
        seller_client_id: U64,
        /// Buyer's id of its order.
        buyer_client_id: U64,
        /// Seller's handle.
        seller_handle: U64,
        /// Buyer's handle.
        buyer_handle: U64,
        /// Micro-units of funds the seller pays as a fee.
        seller_fee_micro: U64,
        /// Micro-units of funds the buyer pays as a fee.
        buyer_fee_micro: U64,
        /// Seller's instance.
        seller: U16,
        /// Seller's session slot.
        seller_session: U16,
        /// Seller's limit in ticks.
        seller_limit_ticks: U16,
        /// Seller's place: see [`super::slab::Tag`].
        seller_place: U16,
        /// Buyer's instance.
        buyer: U16,
        /// Buyer's session slot.
        buyer_session: U16,
        /// Buyer's limit in ticks.
        buyer_limit_ticks: U16,
        /// Buyer's place.
        buyer_place: U16,
        /// Credits.
        quantity: U32,
        /// Credits the seller's order still offers.
        seller_remaining: U32,
        /// Credits the buyer's order still wants.
        buyer_remaining: U32,
        /// Seller's account.
        seller_account: U16,
        /// Buyer's account.
        buyer_account: U16,
        /// The auction's price in ticks.
        price_ticks: U16,
        /// Book.
        book: U16,
        /// Zero.
        reserved: U32,
    }
    /// An auction is over; its trades came before.
    0xcd Uncrossed {
        /// Credits traded.
        volume: U64,
        /// Credits wanted less credits offered at its price before it, two's complement.
        imbalance: U64,
        /// Its trades.
        trades: U32,
        /// Its price in ticks.
        price_ticks: U16,
        /// Book.
        book: U16,
    }
    /// A trade was reversed, with all that both parties' reports need.
    0xcf TradeReversed {
        /// Trade's number.
        trade: U64,
        /// What was paid without fees, micro-units of funds.
        notional_micro: U64,
        /// Seller's fee, given back.
        seller_fee_micro: U64,
        /// Buyer's fee, given back.
        buyer_fee_micro: U64,
        /// Credits.
        quantity: U32,
        /// Seller's account.
        seller_account: U16,
        /// Buyer's account.
        buyer_account: U16,
        /// Seller's instance.
        seller: U16,
        /// Slot of the seller's session; 65,535 if that was forgotten.
        seller_session: U16,
        /// Buyer's instance.
        buyer: U16,
        /// Slot of the buyer's session; 65,535 if that was forgotten.
        buyer_session: U16,
        /// Price in ticks.
        price_ticks: U16,
        /// Book.
        book: U16,
    }
    /// What an account's instances may use of processors together from now on.
    0xe2 AccountCapped {
        /// Account.
        account: U32,
        /// Thousandths of a processor, 0 for no cap.
        millicores: U32,
    }
    /// Whether anything of an instance may run from now on.
    0xe5 InstanceFrozen {
        /// Instance.
        instance: U32,
        /// 1: nothing; 0: it may.
        frozen: U32,
    }
    /// A lender is paid what its VRUs earned.
    0xef RentEarned {
        /// Micro-units of funds.
        micro: U64,
        /// Instance that lends.
        instance: U32,
        /// Its account.
        account: U16,
        /// Book.
        book: U16,
    }
    /// Capacity and pool credits were swapped from a tier to another.
    0xce TierSwap {
        /// Milli-credits that left the source's pool.
        left_millicredits: U64,
        /// Milli-credits that arrived in the destination's.
        arrived_millicredits: U64,
        /// VRUs that left the source.
        left_vru: U32,
        /// VRUs that arrived.
        arrived_vru: U32,
        /// VRUs that were to be swapped and stayed with the source.
        rest_vru: U32,
        /// The rate: numerator, denominator.
        rate: [U32; 2],
        /// Source's book.
        from_book: U16,
        /// Destination's book.
        to_book: U16,
    }
    /// The capacity of a tier's resource from now on.
    0xc9 Resized {
        /// VRUs.
        capacity_vru: U64,
        /// Size of a VRU in the resource's unit.
        vru_size: U64,
        /// Tier.
        tier: U16,
        /// A [`vendue_wire::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 5],
    }
    /// The rate of an exchange from now on.
    0xf0 RateMoved {
        /// Numerator, denominator.
        rate: [U32; 2],
        /// Source tier.
        from: U16,
        /// Destination tier.
        to: U16,
        /// A [`vendue_wire::code::Resource`].
        resource: u8,
        /// Zero.
        reserved: [u8; 3],
    }
    /// An instance takes part in an experiment, has left it, or had its policy given back.
    0xf5 Exposed {
        /// Experiment.
        experiment: U32,
        /// Instance.
        instance: U32,
        /// A [`vendue_wire::code::Resource`].
        resource: u8,
        /// 0: A; 1: B.
        arm: u8,
        /// 0: it takes part from now on; 1: it has left; 2: its policy is its own again.
        state: u8,
        /// Zero.
        reserved: u8,
        /// What the experiment is called.
        name: [u8; NAME_BYTES],
    }
    /// An experiment begins, or ends.
    0xf6 ExperimentMoved {
        /// Mean of B less that of A, thousandths, signed.
        effect_milli: U64,
        /// Half of its 95% interval; all bits set: there is none.
        half_milli: U64,
        /// Experiment.
        experiment: U32,
        /// A [`vendue_wire::code::ExperimentEnd`].
        end: u8,
        /// Zero.
        reserved: [u8; 3],
        /// What it is called.
        name: [u8; NAME_BYTES],
    }
    /// A query that a later stage answers; its body follows this one.
    0xc7 Asked {
        /// Request's number.
        request: U64,
        /// Detail: a sequence number, a book, a first row.
        from: U64,
        /// Detail: how many, how wide, or of which instance.
        limit: U32,
        /// Connection that asked.
        connection: U32,
        /// Detail: a book, seconds of a step, or a resource and, in the low byte, which width.
        book: U16,
        /// Kind of the query.
        kind: u8,
        /// 1: who asks sees only what is public or its own. Of the limits, those of `from` alone;
        /// `limit` is then its next instance, or [`ANY`].
        narrow: u8,
        /// Zero.
        reserved: [u8; 4],
    }
}

/// Precedes each event in the buffer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EventHeader {
    /// Bytes of the body.
    pub length: U16,
    /// Kind of the body.
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
    /// A session's slot for reports, a connection for rows, [`ANY`] for the daemon's stages.
    pub target: U32,
}

impl Fill {
    /// Its book.
    pub fn book(&self) -> u16 {
        self.maker_place.get() >> 2
    }

    /// The taker's side.
    pub fn taker_side(&self) -> Side {
        if self.taker_place.get() & 1 == 0 { Side::Buy } else { Side::Sell }
    }
}

const HEADER_BYTES: usize = size_of::<EventHeader>();

/// One event, borrowed from the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Kind of the body.
    pub kind: u8,
    /// Slot, connection or [`ANY`].
    pub target: u32,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Event<'a> {
    /// The body as `M`, if it is one.
    pub fn read<M: Body>(&self) -> Option<&'a M> {
        if self.kind == M::KIND { M::ref_from_bytes(self.body).ok() } else { None }
    }
}

/// The machine's output buffer: allocated once, emptied after every command.
pub struct Outbox {
    bytes: Box<[u8]>,
    /// Not more than `bytes` has.
    used: u32,
}

impl Outbox {
    /// A buffer of `capacity` bytes. Untouched memory costs nothing.
    ///
    /// # Panics
    /// If it is 4 GiB or more, which no machine's bounds ask for.
    pub fn new(capacity: usize) -> Outbox {
        assert!(u32::try_from(capacity).is_ok(), "an outbox of {capacity} bytes");
        Outbox { bytes: vec![0; capacity].into_boxed_slice(), used: 0 }
    }

    /// Bytes that the largest answer to one command can take on a machine of these bounds: a
    /// sweep, an auction or a mass cancel of every open order, in every book, or what start-up
    /// says of every instance and account.
    pub fn capacity_for(genesis: &Genesis) -> usize {
        let of = |bound: U32| bound.get() as usize;
        let per_order = size_of::<Fill>() + size_of::<Cancelled>() + 2 * HEADER_BYTES;
        let per_instance = size_of::<InstanceCreated>()
            + HEADER_BYTES
            + size_of::<InstanceFrozen>()
            + HEADER_BYTES
            + size_of::<Weighted>()
            + HEADER_BYTES
            + size_of::<Watched>()
            + HEADER_BYTES
            + RESOURCES * (size_of::<RentEarned>() + HEADER_BYTES)
            + size_of::<Stored>()
            + HEADER_BYTES
            + 2 * RESOURCES * (size_of::<Entitled>() + HEADER_BYTES);
        let per_book = size_of::<PhaseChanged>()
            + size_of::<Indicative>()
            + size_of::<Uncrossed>()
            + size_of::<Resized>()
            + 4 * HEADER_BYTES;
        let per_account = size_of::<AccountCapped>() + HEADER_BYTES;
        // A tick changes each task and frees it.
        let per_task = size_of::<TaskChanged>() + size_of::<TaskEnded>() + 2 * HEADER_BYTES;
        // A tick ends its lease or has it bid, which then may wait.
        let per_objective = 2 * (size_of::<ObjectiveMoved>() + size_of::<LeaseMoved>())
            + size_of::<Entitled>()
            + size_of::<Weighted>()
            + 6 * HEADER_BYTES;
        // A tick ends each.
        let per_token = size_of::<TokenMoved>()
            + size_of::<Entitled>()
            + size_of::<Weighted>()
            + 3 * HEADER_BYTES;
        // A tick ends each, and a boost begins.
        let per_swap = 2
            * ((PARTIES + 2) * (size_of::<SwapMoved>() + HEADER_BYTES)
                + 2 * (size_of::<TokenMoved>() + size_of::<Entitled>() + size_of::<Weighted>())
                + 2 * size_of::<Watched>()
                + 8 * HEADER_BYTES);
        let per_exchange = size_of::<TierSwap>() + size_of::<RateMoved>() + 2 * HEADER_BYTES;
        64 * 1024
            + SAID_BYTES
            + per_book * BOOKS_MAX
            + per_exchange * EXCHANGES_MAX
            + per_task * TASKS_MAX
            + per_objective * OBJECTIVES_MAX
            + per_token * TOKENS_MAX
            + per_swap * SWAPS_MAX
            + per_order * of(genesis.orders_max)
            + per_instance * of(genesis.instances_max)
            // Commands move leases once, tokens that end in a tick once before; policies once more, and
            // a last one of them again.
            + 4 * Outbox::lease_bytes(genesis)
            + per_account * of(genesis.accounts_max)
    }

    /// Bytes that one request can take to say of every lease that it ends and moves, with its instance's
    /// limit and weight.
    pub fn lease_bytes(genesis: &Genesis) -> usize {
        let each = size_of::<LeaseMoved>() + size_of::<Entitled>() + size_of::<Weighted>();
        (2 * each + 6 * HEADER_BYTES) * genesis.leases_max.get() as usize
    }

    /// Appends an event. Inlined, so that its fields are stored straight into the buffer instead of
    /// being put together elsewhere and copied.
    #[inline(always)]
    pub fn push<M: Body>(&mut self, target: u32, body: &M) {
        let length = size_of::<M>();
        let start = self.used as usize;
        let end = start + HEADER_BYTES + length;
        let header = EventHeader {
            length: (length as u16).into(),
            kind: M::KIND,
            reserved: 0,
            target: target.into(),
        };
        let slot = &mut self.bytes[start..end];
        slot[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        slot[HEADER_BYTES..].copy_from_slice(body.as_bytes());
        self.used = end as u32;
    }

    /// Appends an event that is given as its bytes in words, lowest byte first: a word is one store
    /// where its fields would be several, and stores are what the hot path has most of.
    #[inline(always)]
    pub fn push_words<M: Body, const WORDS: usize>(&mut self, target: u32, words: [u64; WORDS]) {
        const { assert!(size_of::<M>() == 8 * WORDS) };
        let header = (8 * WORDS) as u64 | u64::from(M::KIND) << 16 | u64::from(target) << 32;
        let start = self.used as usize;
        let end = start + HEADER_BYTES + 8 * WORDS;
        let (head, body) = self.bytes[start..end].split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header.to_le_bytes());
        for (bytes, word) in body.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        self.used = end as u32;
    }

    /// The last `count` events, if they are all `M`s; what else is among them is left out.
    pub fn newest<'a, M: Body + 'a>(&'a self, count: usize) -> impl Iterator<Item = &'a M> {
        let bytes = self.bytes();
        let start = bytes.len().saturating_sub(count * (HEADER_BYTES + size_of::<M>()));
        Events::new(&bytes[start..]).filter_map(|event| event.read::<M>())
    }

    /// The event that was appended last, if it is an `M`.
    pub fn latest<M: Body>(&self) -> Option<&M> {
        let start = self.bytes().len().checked_sub(HEADER_BYTES + size_of::<M>())?;
        let event = Events::new(&self.bytes()[start..]).next()?;
        event.read()
    }

    /// All events since the last [`Outbox::clear`], encoded.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used as usize]
    }

    /// True if nothing was said.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Forgets the events.
    #[inline]
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// The events in order.
    pub fn events(&self) -> Events<'_> {
        Events { bytes: self.bytes() }
    }
}

/// Iterator over encoded events.
#[derive(Clone)]
pub struct Events<'a> {
    bytes: &'a [u8],
}

impl<'a> Events<'a> {
    /// Reads events from bytes written by an [`Outbox`].
    pub fn new(bytes: &'a [u8]) -> Events<'a> {
        Events { bytes }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    #[inline]
    fn next(&mut self) -> Option<Event<'a>> {
        let (header, rest) = EventHeader::ref_from_prefix(self.bytes).ok()?;
        let (body, rest) = rest.split_at_checked(usize::from(header.length.get()))?;
        self.bytes = rest;
        Some(Event { kind: header.kind, target: header.target.get(), body })
    }
}
