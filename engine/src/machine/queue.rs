//! The queues of all price levels: rings of nodes, first come first.
//!
//! Each level has a sentinel, a node beyond the slots, through which its ring closes. So an order
//! is linked and unlinked without asking whether it is the first or the last, and whoever walks a
//! ring sees its end.

use super::slab::Node;

/// Makes `after` follow `before`; whoever was between them has left.
#[inline(always)]
pub fn join(nodes: &mut [Node], before: u32, after: u32) {
    nodes[before as usize].next = after;
    nodes[after as usize].prev = before;
}

/// Puts an order, as the node of `slot`, last in the queue of `sentinel`.
#[inline(always)]
pub fn append(nodes: &mut [Node], sentinel: u32, slot: u32, order: &Node) {
    let last = nodes[sentinel as usize].prev;
    nodes[slot as usize] = Node { next: sentinel, prev: last, ..*order };
    nodes[last as usize].next = slot;
    nodes[sentinel as usize].prev = slot;
}
