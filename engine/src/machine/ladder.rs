//! One side of a book: a dense price ladder with a three-level bitmap over its occupied levels.
//!
//! Finding the best or the next level is at most three word scans, whatever the ladder's length.
//! The layout follows the array ladders of published matching engines; see `bench` for the floor.

/// "No slot" in links between nodes.
pub const NONE: u32 = u32::MAX;

/// Levels a ladder can have: three levels of 64-way words would allow 262,144; prices are u16.
pub const LEVELS_MAX: usize = 1 << 16;

/// A price level: a FIFO queue of orders and their total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Oldest order, or [`NONE`].
    pub head: u32,
    /// Newest order, or [`NONE`].
    pub tail: u32,
    /// Credits open at this price.
    pub quantity: u64,
}

const EMPTY: Level = Level { head: NONE, tail: NONE, quantity: 0 };

/// A side of a book.
#[derive(Debug)]
pub struct Ladder {
    levels: Box<[Level]>,
    /// Bit p of word p/64: level p is occupied.
    words: Box<[u64]>,
    /// Bit w: `words[w]` is not zero.
    groups: [u64; LEVELS_MAX / 64 / 64],
    /// Bit g: `groups[g]` is not zero.
    top: u64,
}

impl Ladder {
    /// A ladder for prices `1..=price_max` ticks.
    pub fn new(price_max: u16) -> Ladder {
        let levels = usize::from(price_max) + 1;
        Ladder {
            levels: vec![EMPTY; levels].into_boxed_slice(),
            words: vec![0; levels.div_ceil(64)].into_boxed_slice(),
            groups: [0; LEVELS_MAX / 64 / 64],
            top: 0,
        }
    }

    /// The level at `price`.
    #[inline]
    pub fn level(&self, price: u16) -> &Level {
        &self.levels[usize::from(price)]
    }

    /// The level at `price`, to change it. The caller keeps the bitmap right with
    /// [`Ladder::mark`] and [`Ladder::clear`].
    #[inline]
    pub fn level_mut(&mut self, price: u16) -> &mut Level {
        &mut self.levels[usize::from(price)]
    }

    /// Marks `price` as occupied.
    #[inline]
    pub fn mark(&mut self, price: u16) {
        let word = usize::from(price) / 64;
        self.words[word] |= 1 << (price % 64);
        self.groups[word / 64] |= 1 << (word % 64);
        self.top |= 1 << (word / 64);
    }

    /// Marks `price` as empty.
    #[inline]
    pub fn clear(&mut self, price: u16) {
        let word = usize::from(price) / 64;
        self.words[word] &= !(1 << (price % 64));
        if self.words[word] == 0 {
            let group = word / 64;
            self.groups[group] &= !(1 << (word % 64));
            if self.groups[group] == 0 {
                self.top &= !(1 << group);
            }
        }
    }

    /// Lowest occupied price, if any.
    #[inline(always)]
    pub fn lowest(&self) -> Option<u16> {
        if self.top == 0 {
            return None;
        }
        let group = self.top.trailing_zeros() as usize;
        let word = group * 64 + self.groups[group].trailing_zeros() as usize;
        Some((word * 64) as u16 + self.words[word].trailing_zeros() as u16)
    }

    /// Highest occupied price, if any.
    #[inline(always)]
    pub fn highest(&self) -> Option<u16> {
        if self.top == 0 {
            return None;
        }
        let group = 63 - self.top.leading_zeros() as usize;
        let word = group * 64 + 63 - self.groups[group].leading_zeros() as usize;
        Some((word * 64) as u16 + 63 - self.words[word].leading_zeros() as u16)
    }

    /// Lowest occupied price above `price`, if any.
    #[inline]
    pub fn above(&self, price: u16) -> Option<u16> {
        let mut word = usize::from(price) / 64;
        let rest = self.words[word] & (!0_u64).checked_shl(u32::from(price % 64) + 1).unwrap_or(0);
        if rest != 0 {
            return Some((word * 64) as u16 + rest.trailing_zeros() as u16);
        }
        let mut group = word / 64;
        let rest = self.groups[group] & (!0_u64).checked_shl((word % 64) as u32 + 1).unwrap_or(0);
        if rest != 0 {
            word = group * 64 + rest.trailing_zeros() as usize;
        } else {
            let rest = self.top & (!0_u64).checked_shl(group as u32 + 1).unwrap_or(0);
            if rest == 0 {
                return None;
            }
            group = rest.trailing_zeros() as usize;
            word = group * 64 + self.groups[group].trailing_zeros() as usize;
        }
        Some((word * 64) as u16 + self.words[word].trailing_zeros() as u16)
    }

    /// Highest occupied price below `price`, if any.
    #[inline]
    pub fn below(&self, price: u16) -> Option<u16> {
        let mut word = usize::from(price) / 64;
        let rest = self.words[word] & ((1_u64 << (price % 64)) - 1);
        if rest != 0 {
            return Some((word * 64) as u16 + 63 - rest.leading_zeros() as u16);
        }
        let mut group = word / 64;
        let rest = self.groups[group] & ((1_u64 << (word % 64)) - 1);
        if rest != 0 {
            word = group * 64 + 63 - rest.leading_zeros() as usize;
        } else {
            let rest = self.top & ((1_u64 << group) - 1);
            if rest == 0 {
                return None;
            }
            group = 63 - rest.leading_zeros() as usize;
            word = group * 64 + 63 - self.groups[group].leading_zeros() as usize;
        }
        Some((word * 64) as u16 + 63 - self.words[word].leading_zeros() as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every scan agrees with an ordered set, over all word and group borders.
    #[test]
    fn bitmap_agrees_with_an_ordered_set() {
        let mut ladder = Ladder::new(u16::MAX);
        let mut set = BTreeSet::new();
        let mut state = 7_u64;
        for step in 0..200_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let price = match step % 3 {
                0 => (state >> 48) as u16,
                1 => ((state >> 48) as u16) & 0xf03f,
                _ => ((state >> 48) as u16) | 0x0fc0,
            };
            if set.remove(&price) {
                ladder.clear(price);
            } else if set.len() < 40 || state.is_multiple_of(4) {
                set.insert(price);
                ladder.mark(price);
            }
            assert_eq!(ladder.lowest(), set.first().copied());
            assert_eq!(ladder.highest(), set.last().copied());
            let probe = (state >> 20) as u16;
            assert_eq!(ladder.below(probe), set.range(..probe).next_back().copied());
            let above = set.range(probe..).find(|&&p| p > probe).copied();
            assert_eq!(ladder.above(probe), above);
        }
    }
}
