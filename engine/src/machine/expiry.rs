//! Expiry of dated orders: a timing wheel of seconds over the slab's slots (Varghese and Lauck,
//! "Hashed and hierarchical timing wheels", 1987, scheme 6). Insert and remove are O(1).

use super::ladder::NONE;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const BUCKETS: usize = 4096;

/// A slot's place in the wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Dated {
    /// Milliseconds since 1970 UTC.
    pub expires_at_ms: u64,
    next: u32,
    prev: u32,
}

const OUT: Dated = Dated { expires_at_ms: 0, next: NONE, prev: NONE };

/// The wheel.
#[derive(Debug)]
pub struct Expiry {
    entries: Box<[Dated]>,
    buckets: Box<[u32]>,
    /// Second up to which buckets have been emptied.
    second: u64,
    live: u32,
}

fn bucket(second: u64) -> usize {
    (second % BUCKETS as u64) as usize
}

/// The second in which the order falls due. Its bucket is looked at until that second is over.
fn due_second(expires_at_ms: u64) -> u64 {
    expires_at_ms / 1000
}

impl Expiry {
    /// A wheel for a slab of `orders` slots.
    pub fn new(orders: u32) -> Expiry {
        Expiry {
            entries: vec![OUT; orders as usize].into_boxed_slice(),
            buckets: vec![NONE; BUCKETS].into_boxed_slice(),
            second: 0,
            live: 0,
        }
    }

    /// Adds the order in `slot`.
    pub fn insert(&mut self, slot: u32, expires_at_ms: u64) {
        let bucket = bucket(due_second(expires_at_ms).max(self.second));
        let next = self.buckets[bucket];
        self.entries[slot as usize] = Dated { expires_at_ms, next, prev: NONE };
        if next != NONE {
            self.entries[next as usize].prev = slot;
        }
        self.buckets[bucket] = slot;
        self.live += 1;
    }

    /// Removes the order in `slot`.
    pub fn remove(&mut self, slot: u32) {
        let Dated { expires_at_ms, next, prev } = self.entries[slot as usize];
        if prev == NONE {
            let home = self.home(expires_at_ms, slot);
            self.buckets[home] = next;
        } else {
            self.entries[prev as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].prev = prev;
        }
        self.entries[slot as usize] = OUT;
        self.live -= 1;
    }

    /// The bucket whose head is `slot`. An order entered after its second had been emptied was
    /// put into a later bucket; it is due, so it is near.
    fn home(&self, expires_at_ms: u64, slot: u32) -> usize {
        let first = bucket(due_second(expires_at_ms));
        (0..BUCKETS)
            .map(|step| (first + step) % BUCKETS)
            .find(|&at| self.buckets[at] == slot)
            .unwrap_or_else(|| panic!("slot {slot} is in no bucket of the expiry wheel"))
    }

    /// When the order in `slot` expires, milliseconds since 1970 UTC.
    pub fn expires_at_ms(&self, slot: u32) -> u64 {
        self.entries[slot as usize].expires_at_ms
    }

    /// An order due at `now_ms`, if any. The caller removes it and asks again.
    pub fn due(&mut self, now_ms: u64) -> Option<u32> {
        let now_second = now_ms / 1000;
        if self.live == 0 {
            self.second = now_second;
            return None;
        }
        // After a long pause one turn of the wheel visits every bucket.
        self.second = self.second.max(now_second.saturating_sub(BUCKETS as u64 - 1));
        while self.second <= now_second {
            let mut slot = self.buckets[bucket(self.second)];
            while slot != NONE {
                let entry = self.entries[slot as usize];
                if entry.expires_at_ms <= now_ms {
                    return Some(slot);
                }
                slot = entry.next;
            }
            if self.second == now_second {
                return None;
            }
            self.second += 1;
        }
        None
    }

    /// The wheel's content, for a snapshot: entries, buckets, second.
    pub fn parts(&self) -> (&[Dated], &[u32], u64) {
        (&self.entries, &self.buckets, self.second)
    }

    /// Restores a snapshot's content; false if the sizes differ.
    pub fn restore(&mut self, entries: &[Dated], buckets: &[u32], second: u64, live: u32) -> bool {
        if entries.len() != self.entries.len() || buckets.len() != self.buckets.len() {
            return false;
        }
        self.entries.copy_from_slice(entries);
        self.buckets.copy_from_slice(buckets);
        self.second = second;
        self.live = live;
        true
    }
}
