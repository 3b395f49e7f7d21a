//! Open orders: one preallocated slab of 32-byte nodes for all books.
//!
//! A node is half a cache line and holds everything a fill needs. What an order holds in funds or
//! credits follows from its price and open quantity, so it is not stored. Each instance has a
//! dense table of its orders (swap-remove), so that cancelling all of them costs their number.

use super::ladder::NONE;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An open order, or a free slot (even generation), linked through `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(8))]
pub struct Node {
    /// Next order in the level's queue, or next free slot.
    pub next: u32,
    /// Previous order in the level's queue.
    pub prev: u32,
    /// Credits open.
    pub quantity: u32,
    /// Odd while the order lives; raised by one when it comes and when it goes.
    pub generation: u32,
    /// The client's id.
    pub client_id: u64,
    /// Instance that owns it.
    pub instance: u16,
    /// Slot of the session that entered it.
    pub session: u16,
    /// Price in ticks.
    pub price: u16,
    /// Book number << 2 | dated << 1 | side.
    pub place: u16,
}

const _: () = assert!(size_of::<Node>() == 32, "a node is half a cache line");

/// Books at most: the node's `place` keeps two bits for itself.
pub const BOOKS_MAX: usize = 1 << 14;

impl Node {
    /// Book number.
    #[inline]
    pub fn book(&self) -> usize {
        usize::from(self.place >> 2)
    }

    /// Index of its side: 0 buy, 1 sell.
    #[inline]
    pub fn side(&self) -> usize {
        usize::from(self.place & 1)
    }

    /// True if the order has an expiry.
    #[inline]
    pub fn dated(&self) -> bool {
        self.place & 2 != 0
    }

    /// True if this slot holds an open order.
    #[inline]
    pub fn live(&self) -> bool {
        self.generation & 1 == 1
    }
}

/// What a client carries: slot in the low half, generation in the high one.
#[inline]
pub fn handle(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

/// The slab and each instance's table of its orders.
#[derive(Debug)]
pub struct Slab {
    /// All slots.
    pub nodes: Box<[Node]>,
    /// First free slot.
    pub free: u32,
    /// Open orders.
    pub live: u32,
    /// Where a slot stands in its instance's table.
    positions: Box<[u32]>,
    /// `per_instance` slots for each instance.
    tables: Box<[u32]>,
    /// Orders of each instance.
    counts: Box<[u32]>,
    per_instance: u32,
}

impl Slab {
    /// Slots for `orders` orders, `per_instance` of each of `instances` instances.
    pub fn new(orders: u32, instances: u32, per_instance: u32) -> Slab {
        let nodes = (0..orders)
            .map(|slot| Node {
                next: if slot + 1 < orders { slot + 1 } else { NONE },
                prev: NONE,
                quantity: 0,
                generation: 0,
                client_id: 0,
                instance: 0,
                session: 0,
                price: 0,
                place: 0,
            })
            .collect();
        Slab {
            nodes,
            free: if orders > 0 { 0 } else { NONE },
            live: 0,
            positions: vec![0; orders as usize].into_boxed_slice(),
            tables: vec![0; instances as usize * per_instance as usize].into_boxed_slice(),
            counts: vec![0; instances as usize].into_boxed_slice(),
            per_instance,
        }
    }

    /// Open orders of an instance.
    #[inline]
    pub fn count(&self, instance: u16) -> u32 {
        self.counts[usize::from(instance)]
    }

    /// Orders one instance may have open.
    pub fn per_instance(&self) -> u32 {
        self.per_instance
    }

    /// The slots of an instance's open orders.
    pub fn of_instance(&self, instance: u16) -> &[u32] {
        let start = usize::from(instance) * self.per_instance as usize;
        &self.tables[start..start + self.count(instance) as usize]
    }

    /// Takes a free slot for an incoming order. The caller has checked that there is one.
    #[inline(always)]
    pub fn take(&mut self) -> u32 {
        let slot = self.free;
        let node = &mut self.nodes[slot as usize];
        self.free = node.next;
        assert!(node.generation & 1 == 0, "a slot is taken twice");
        node.generation = node.generation.wrapping_add(1);
        slot
    }

    /// Returns a slot whose order never rested, or no longer does.
    #[inline(always)]
    pub fn give_back(&mut self, slot: u32) {
        let node = &mut self.nodes[slot as usize];
        assert!(node.generation & 1 == 1, "a slot is given back twice");
        node.generation = node.generation.wrapping_add(1);
        node.next = self.free;
        self.free = slot;
    }

    /// Enters an order that now rests into its instance's table.
    #[inline(always)]
    pub fn enlist(&mut self, slot: u32, instance: u16) {
        let count = &mut self.counts[usize::from(instance)];
        let at = usize::from(instance) * self.per_instance as usize + *count as usize;
        self.tables[at] = slot;
        self.positions[slot as usize] = *count;
        *count += 1;
        self.live += 1;
    }

    /// Takes an order that rested out of its instance's table and returns its slot.
    #[inline(always)]
    pub fn delist(&mut self, slot: u32, instance: u16) {
        let start = usize::from(instance) * self.per_instance as usize;
        let last = self.counts[usize::from(instance)] - 1;
        self.counts[usize::from(instance)] = last;
        let moved = self.tables[start + last as usize];
        let position = self.positions[slot as usize];
        self.tables[start + position as usize] = moved;
        self.positions[moved as usize] = position;
        self.live -= 1;
        self.give_back(slot);
    }

    /// The slot a handle names, if that order still lives.
    #[inline(always)]
    pub fn find(&self, handle: u64) -> Option<u32> {
        let slot = handle as u32;
        let generation = (handle >> 32) as u32;
        let node = self.nodes.get(slot as usize)?;
        (node.generation == generation && generation & 1 == 1).then_some(slot)
    }

    /// Handle of the order in `slot`.
    #[inline]
    pub fn handle(&self, slot: u32) -> u64 {
        handle(slot, self.nodes[slot as usize].generation)
    }

    /// Where each slot stands in its instance's table, for a snapshot.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Restores slots and positions from a snapshot; rebuilds tables and counts from them.
    /// Returns false if they contradict one another.
    pub fn restore(&mut self, nodes: &[Node], positions: &[u32], free: u32) -> bool {
        if nodes.len() != self.nodes.len() || positions.len() != nodes.len() {
            return false;
        }
        self.nodes.copy_from_slice(nodes);
        self.positions.copy_from_slice(positions);
        self.free = free;
        self.live = 0;
        self.counts.fill(0);
        for (slot, node) in nodes.iter().enumerate().filter(|(_, node)| node.live()) {
            let Some(count) = self.counts.get_mut(usize::from(node.instance)) else { return false };
            let position = positions[slot];
            if position >= self.per_instance {
                return false;
            }
            *count += 1;
            self.live += 1;
            let at = usize::from(node.instance) * self.per_instance as usize + position as usize;
            self.tables[at] = slot as u32;
        }
        true
    }
}
