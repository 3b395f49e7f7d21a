//! The queues of all price levels: rings of nodes, first come first.
//!
//! Each level has a sentinel, a node beyond the slots, through which its ring closes. So an order
//! is linked and unlinked without asking whether it is the first or the last, and whoever walks a
//! ring sees its end.

use super::orders::Incoming;
use super::slab::Node;

/// Makes `after` follow `before`; whoever was between them has left.
#[inline(always)]
pub(super) fn join(nodes: &mut [Node], before: u32, after: u32) {
    nodes[before as usize].next = after;
    nodes[after as usize].prev = before;
}

/// Puts an order, which has its slot, last in the queue of `sentinel`.
#[inline(always)]
pub(super) fn append(nodes: &mut [Node], sentinel: u32, order: &Incoming) {
    let last = nodes[sentinel as usize].prev;
    let slot = order.slot;
    let node = &mut nodes[slot as usize];
    (node.next, node.prev) = (sentinel, last);
    node.quantity = order.remaining;
    node.client_id = order.client_id;
    node.tag = order.tag;
    nodes[last as usize].next = slot;
    nodes[sentinel as usize].prev = slot;
}
