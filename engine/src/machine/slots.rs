//! Sets of the rows of a small table: a bit each.

/// Rows that a set is for.
pub const SLOTS_MAX: usize = 1024;
const WORDS: usize = SLOTS_MAX / 64;

/// A set of slots.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slots([u64; WORDS]);

impl Slots {
    /// Puts a slot in; it may be in already.
    pub fn insert(&mut self, slot: u32) {
        self.0[slot as usize / 64] |= 1 << (slot % 64);
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: u32) {
        self.0[slot as usize / 64] &= !(1 << (slot % 64));
    }

    /// The first slot that is not in; [`SLOTS_MAX`] if all are.
    pub fn first_missing(&self) -> u32 {
        let word = self.0.iter().position(|&word| word != u64::MAX);
        word.map_or(SLOTS_MAX as u32, |at| at as u32 * 64 + self.0[at].trailing_ones())
    }

    /// One more than the last slot that is in; 0 if none is.
    pub fn end(&self) -> u32 {
        let word = self.0.iter().rposition(|&word| word != 0);
        word.map_or(0, |at| at as u32 * 64 + 64 - self.0[at].leading_zeros())
    }

    /// The first slot from one on that is in.
    pub fn from(&self, slot: u32) -> Option<u32> {
        let at = slot as usize / 64;
        let rest = self.0.get(at)? & (!0 << (slot % 64));
        let (at, word) = match rest {
            0 => self.0.iter().copied().enumerate().skip(at + 1).find(|(_, word)| *word != 0)?,
            rest => (at, rest),
        };
        Some(at as u32 * 64 + word.trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_of_slots_agrees_with_an_ordered_set() {
        let (mut slots, mut set, mut state) = (Slots::default(), BTreeSet::new(), 5_u64);
        for step in 0..20_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // All of them after half the way, few afterwards.
            let slot = if step < 10_000 { step as u32 % 1024 } else { (state >> 54) as u32 };
            if step < 10_000 {
                set.insert(slot);
                slots.insert(slot);
            } else {
                set.remove(&slot);
                slots.remove(slot);
            }
            let missing = (0..1024).find(|slot| !set.contains(slot)).unwrap_or(1024);
            assert_eq!(slots.first_missing(), missing);
            assert_eq!(slots.end(), set.last().map_or(0, |last| last + 1));
            let probe = (state >> 32) as u32 % 1100;
            assert_eq!(slots.from(probe), set.range(probe..).next().copied());
        }
    }
}
