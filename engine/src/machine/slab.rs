//! Open orders: one preallocated slab of slots for all books.
//!
//! A slot's node is half a cache line and holds everything a fill needs. What an order holds in
//! funds or credits follows from its price and open quantity, so it is not stored.
//!
//! Slots belong to instances by pages of [`PAGE_SLOTS`]. An instance gets a page when all its slots
//! are taken and keeps its pages while it has orders; the last one stays with it. So its orders are
//! found by its pages, and an order comes and goes without any list of orders to keep.

use super::ladder::NONE;
use vendue_wire::code::Reject;
use vendue_wire::memory::prefetch;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// An open order, or a free slot (even generation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(8))]
pub struct Node {
    /// Next order of the level's queue, or next free slot.
    pub next: u32,
    /// Previous order of the level's queue.
    pub prev: u32,
    /// Credits open.
    pub quantity: u32,
    /// Odd while the order lives; raised by one when it comes and when it goes.
    pub generation: u32,
    /// The client's id.
    pub client_id: u64,
    /// Whose it is and where it stands.
    pub tag: Tag,
}

/// Whose an order is and where it stands, in one word, because storing four costs four stores: its
/// instance, the slot of the session that entered it, its price in ticks and its place, 16 bits
/// each, lowest first. The place is book number << 2 | dated << 1 | side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Tag(pub u64);

impl Tag {
    /// Puts it together.
    #[inline(always)]
    pub fn new(instance: u16, session: u16, price: u16, place: u16) -> Tag {
        let [instance, session, price, place] = [instance, session, price, place].map(u64::from);
        Tag(instance | session << 16 | price << 32 | place << 48)
    }

    /// Instance that owns it.
    #[inline(always)]
    pub fn instance(self) -> u16 {
        self.0 as u16
    }

    /// Slot of the session that entered it.
    #[inline(always)]
    pub fn session(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Price in ticks.
    #[inline(always)]
    pub fn price(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Book number.
    #[inline(always)]
    pub fn book(self) -> usize {
        (self.0 >> 50) as usize
    }

    /// Index of its side: 0 buy, 1 sell.
    #[inline(always)]
    pub fn side(self) -> usize {
        (self.0 >> 48 & 1) as usize
    }

    /// True if the order has an expiry.
    #[inline(always)]
    pub fn dated(self) -> bool {
        self.0 >> 49 & 1 == 1
    }

    /// The same order at another price.
    pub fn at_price(self, price: u16) -> Tag {
        Tag(self.0 & !(0xffff << 32) | u64::from(price) << 32)
    }

    /// The same order, entered by another session.
    pub fn entered_by(self, session: u16) -> Tag {
        Tag(self.0 & !(0xffff << 16) | u64::from(session) << 16)
    }
}

const _: () = assert!(size_of::<Node>() == 32, "a node is half a cache line");

/// Books at most: the node's `place` keeps two bits for itself.
pub const BOOKS_MAX: usize = 1 << 14;

impl Node {
    /// True if this slot holds an open order.
    #[inline(always)]
    pub fn live(&self) -> bool {
        self.generation & 1 == 1
    }
}

/// Has the processor fetch a node, if there is such a one.
#[inline(always)]
pub fn foresee(nodes: &[Node], node: u32) {
    if let Some(node) = nodes.get(node as usize) {
        prefetch(node);
    }
}

/// What a client carries: slot in the low half, generation in the high one.
#[inline(always)]
pub fn handle(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

/// Slots of a page.
pub const PAGE_SLOTS: u32 = 16;

/// Owner of a page that is nobody's. No instance has this number.
const NOBODY: u16 = u16::MAX;

/// What an instance has of the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Share {
    /// First of its free slots, each linked to the next one, or [`NONE`].
    free: u32,
    /// Its orders.
    orders: u32,
    /// Its pages.
    pages: u32,
    reserved: u32,
}

impl Share {
    /// Nothing.
    pub const NOTHING: Share = Share { free: NONE, orders: 0, pages: 0, reserved: 0 };
}

/// All slots, and whose they are.
#[derive(Debug)]
pub struct Slab {
    /// All slots, then the sentinels of the books' queues.
    pub nodes: Vec<Node>,
    slots: u32,
    /// Whose they are.
    pub shares: Shares,
}

/// What instances have of the slots.
#[derive(Debug)]
pub struct Shares {
    pages: Pages,
    /// By instance.
    rows: Box<[Share]>,
    per_instance: u32,
}

/// Whose each page is.
#[derive(Debug)]
struct Pages {
    /// Instance of each page, or [`NOBODY`].
    owners: Box<[u16]>,
    /// The first of nobody's pages, or their number if none is left.
    first_left: usize,
    /// The newest page of each instance, or [`NONE`]...
    newest: Box<[u32]>,
    /// ...and of each page the one that its owner was given before it.
    older: Box<[u32]>,
}

impl Pages {
    fn new(pages: usize, instances: usize) -> Pages {
        Pages {
            owners: vec![NOBODY; pages].into_boxed_slice(),
            first_left: 0,
            newest: vec![NONE; instances].into_boxed_slice(),
            older: vec![NONE; pages].into_boxed_slice(),
        }
    }

    /// Notes whose a page is.
    fn own(&mut self, page: usize, instance: u16) {
        self.owners[page] = instance;
        let newest = &mut self.newest[usize::from(instance)];
        self.older[page] = std::mem::replace(newest, page as u32);
    }

    fn none_left(&self) -> bool {
        self.first_left == self.owners.len()
    }

    /// Gives the first page that is left to an instance whose slots are all taken.
    #[cold]
    fn give(&mut self, instance: u16, share: &mut Share, nodes: &mut [Node], slots: u32) {
        let page = self.first_left;
        assert!(self.owners[page] == NOBODY, "a page is given twice");
        self.own(page, instance);
        let left = self.owners[page..].iter().position(|&owner| owner == NOBODY);
        self.first_left = left.map_or(self.owners.len(), |after| page + after);
        share.pages += 1;
        let first = page as u32 * PAGE_SLOTS;
        let end = (first + PAGE_SLOTS).min(slots);
        for slot in (first..end).rev() {
            nodes[slot as usize].next = share.free;
            share.free = slot;
        }
    }

    /// Takes all pages of an instance that has no order.
    #[cold]
    fn take_back(&mut self, instance: u16, share: &mut Share) {
        assert!(share.orders == 0, "an instance with orders loses its pages");
        let mut page = std::mem::replace(&mut self.newest[usize::from(instance)], NONE);
        while page != NONE {
            let at = page as usize;
            assert!(self.owners[at] == instance, "a page is in another's list");
            self.owners[at] = NOBODY;
            self.first_left = self.first_left.min(at);
            page = self.older[at];
        }
        *share = Share::NOTHING;
    }
}

/// A place for one more order of an instance.
pub struct Room<'a> {
    nodes: &'a mut [Node],
    slots: u32,
    share: &'a mut Share,
    pages: &'a mut Pages,
    instance: u16,
}

impl Room<'_> {
    /// Takes the slot and returns it with the order's generation.
    #[inline(always)]
    pub fn take(self) -> (u32, u32) {
        let Room { nodes, slots, share, pages, instance } = self;
        if share.free == NONE {
            pages.give(instance, share, nodes, slots);
        }
        let slot = share.free;
        let node = &mut nodes[slot as usize];
        assert!(!node.live(), "a slot is taken twice");
        node.generation = node.generation.wrapping_add(1);
        share.free = node.next;
        share.orders += 1;
        (slot, node.generation)
    }
}

impl Slab {
    /// Slots for `orders` orders, `per_instance` of each of `instances` instances.
    pub fn new(orders: u32, instances: u32, per_instance: u32) -> Slab {
        let pages = orders.div_ceil(PAGE_SLOTS);
        Slab {
            nodes: vec![Node::new_zeroed(); orders as usize],
            slots: orders,
            shares: Shares {
                pages: Pages::new(pages as usize, instances as usize),
                rows: vec![Share::NOTHING; instances as usize].into_boxed_slice(),
                per_instance,
            },
        }
    }

    /// Adds the sentinels of `levels` empty queues, at start-up. Returns the first.
    pub fn add_queues(&mut self, levels: u32) -> u32 {
        let first = self.nodes.len() as u32;
        let empty = |at| Node { next: at, prev: at, ..Node::new_zeroed() };
        self.nodes.extend((first..first + levels).map(empty));
        first
    }

    /// Open orders of an instance.
    #[inline]
    pub fn count(&self, instance: u16) -> u32 {
        self.shares.rows[usize::from(instance)].orders
    }

    /// The open orders of the instances that `wanted` picks, by slot, from slot `first` on.
    pub fn orders(&self, first: u32, wanted: impl Fn(u16) -> bool) -> impl Iterator<Item = u32> {
        (first / PAGE_SLOTS..)
            .zip(self.shares.pages.owners.iter().skip((first / PAGE_SLOTS) as usize))
            .filter(move |(_, owner)| **owner != NOBODY && wanted(**owner))
            .flat_map(|(page, _)| page * PAGE_SLOTS..(page + 1) * PAGE_SLOTS)
            .filter(move |&slot| {
                slot >= first && self.nodes.get(slot as usize).is_some_and(Node::live)
            })
    }

    /// Where the next order of an instance goes.
    ///
    /// # Errors
    /// [`Reject::OrdersFull`] if all its slots are taken and no page is left,
    /// [`Reject::InstanceOrdersFull`] if it has as many orders as it may.
    #[inline(always)]
    pub fn room(&mut self, instance: u16) -> Result<Room<'_>, Reject> {
        let Slab { nodes, slots, shares: Shares { pages, rows, per_instance } } = self;
        let share = &mut rows[usize::from(instance)];
        if share.free == NONE && pages.none_left() {
            return Err(Reject::OrdersFull);
        }
        if share.orders >= *per_instance {
            return Err(Reject::InstanceOrdersFull);
        }
        Ok(Room { nodes, slots: *slots, share, pages, instance })
    }

    /// Returns the slot of an instance's order that has gone.
    #[inline(always)]
    pub fn give_back(&mut self, slot: u32, instance: u16) {
        self.shares.give_back(&mut self.nodes[slot as usize], slot, instance);
    }

    /// Takes the pages of an instance that is removed and has no order any more.
    pub fn forget(&mut self, instance: u16) {
        let Shares { pages, rows, .. } = &mut self.shares;
        pages.take_back(instance, &mut rows[usize::from(instance)]);
    }

    /// The slot a handle names, if that order still lives.
    #[inline(always)]
    pub fn find(&self, handle: u64) -> Option<u32> {
        let slot = handle as u32;
        let generation = (handle >> 32) as u32;
        let node = self.nodes.get(slot as usize)?;
        (node.generation == generation && node.live()).then_some(slot)
    }

    /// Handle of the order in `slot`.
    #[inline]
    pub fn handle(&self, slot: u32) -> u64 {
        handle(slot, self.nodes[slot as usize].generation)
    }

    /// All slots, the owner of each page and the share of each instance, for a snapshot.
    pub fn parts(&self) -> (&[Node], &[u16], &[Share]) {
        (&self.nodes[..self.slots as usize], &self.shares.pages.owners, &self.shares.rows)
    }

    /// Restores what [`Slab::parts`] were. Returns false if they contradict one
    /// another.
    pub fn restore(&mut self, nodes: &[Node], owners: &[u16], shares: &[Share]) -> bool {
        let Shares { pages, rows, .. } = &mut self.shares;
        if nodes.len() != self.slots as usize
            || owners.len() != pages.owners.len()
            || shares.len() > rows.len()
        {
            return false;
        }
        self.nodes[..nodes.len()].copy_from_slice(nodes);
        pages.owners.copy_from_slice(owners);
        pages.newest.fill(NONE);
        let left = owners.iter().position(|&owner| owner == NOBODY);
        pages.first_left = left.unwrap_or(owners.len());
        // Every row is made from the slots, but for where its free ones begin.
        rows.fill(Share::NOTHING);
        rows.iter_mut().zip(shares).for_each(|(row, share)| row.free = share.free);
        for (page, &owner) in owners.iter().enumerate().filter(|(_, owner)| **owner != NOBODY) {
            let Some(row) = rows.get_mut(usize::from(owner)) else { return false };
            let first = page * PAGE_SLOTS as usize;
            let slots = &nodes[first..(first + PAGE_SLOTS as usize).min(nodes.len())];
            let live = slots.iter().filter(|node| node.live());
            if live.clone().any(|node| node.tag.instance() != owner) {
                return false;
            }
            row.pages += 1;
            row.orders += live.count() as u32;
            pages.own(page, owner);
        }
        let live = nodes.iter().filter(|node| node.live()).count();
        rows.iter().map(|row| row.orders as usize).sum::<usize>() == live
            && rows[..shares.len()] == *shares
            && self.free_is_whole()
    }

    /// True if the free slots of every instance's pages, and no others, are in its list of them.
    fn free_is_whole(&self) -> bool {
        let Shares { pages, rows, .. } = &self.shares;
        let nodes = &self.nodes[..self.slots as usize];
        let owner = |slot: u32| pages.owners[(slot / PAGE_SLOTS) as usize];
        let owned = (0..self.slots).filter(|&slot| owner(slot) != NOBODY);
        let mut left = owned.filter(|&slot| !nodes[slot as usize].live()).count();
        for (instance, row) in rows.iter().enumerate() {
            let mut slot = row.free;
            while slot != NONE {
                let Some(node) = nodes.get(slot as usize) else { return false };
                // A list that is longer than all that is free runs in a circle.
                if node.live() || usize::from(owner(slot)) != instance || left == 0 {
                    return false;
                }
                (slot, left) = (node.next, left - 1);
            }
        }
        left == 0
    }
}

impl Shares {
    /// Takes back the slot of an instance's order that has gone, whose node it is.
    #[inline(always)]
    pub fn give_back(&mut self, node: &mut Node, slot: u32, instance: u16) {
        assert!(node.live(), "a slot is given back twice");
        node.generation = node.generation.wrapping_add(1);
        let share = &mut self.rows[usize::from(instance)];
        node.next = share.free;
        share.free = slot;
        share.orders -= 1;
        if share.orders == 0 && share.pages > 1 {
            self.pages.take_back(instance, share);
        }
    }
}
