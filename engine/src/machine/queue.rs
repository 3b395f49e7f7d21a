//! The queues of all price levels: rings of links between slots, first come first.
//!
//! Each level has a sentinel, a link beyond the slots, through which its ring closes. So an order
//! is linked and unlinked without asking whether it is the first or the last, and whoever walks a
//! ring sees its end. Free slots use their links to make lists of themselves.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The neighbours of a slot or a sentinel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Link {
    /// Who came next.
    pub next: u32,
    /// Who came before.
    pub prev: u32,
}

/// The link of a sentinel whose queue is empty.
pub fn empty(sentinel: u32) -> Link {
    Link { next: sentinel, prev: sentinel }
}

/// Makes `after` follow `before`; whoever was between them has left.
#[inline(always)]
pub fn join(links: &mut [Link], before: u32, after: u32) {
    links[before as usize].next = after;
    links[after as usize].prev = before;
}

/// Puts `slot` last in the queue of `sentinel`.
#[inline(always)]
pub fn append(links: &mut [Link], sentinel: u32, slot: u32) {
    let last = links[sentinel as usize].prev;
    links[slot as usize] = Link { next: sentinel, prev: last };
    links[last as usize].next = slot;
    links[sentinel as usize].prev = slot;
}

/// Takes `slot` out of its queue.
#[inline(always)]
pub fn remove(links: &mut [Link], slot: u32) {
    let Link { next, prev } = links[slot as usize];
    join(links, prev, next);
}
