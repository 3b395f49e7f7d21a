//! One side of a book: a dense price ladder with a three-level bitmap over its occupied levels.
//!
//! Levels are counted from the best price a side can have, so that on either side a lower level
//! trades first and one path of code serves both. The best level is kept at hand; the bitmap finds
//! the next one by at most three word scans, whatever the ladder's length. The layout follows the
//! array ladders of published matching engines; see `bench` for the floor.

use vendue_wire::code::Side;

/// "No slot" in lists of slots, "no level" in an empty ladder.
pub const NONE: u32 = u32::MAX;

/// Levels a ladder can have: three levels of 64-way words would allow 262,144; prices are u16.
pub const LEVELS_MAX: usize = 1 << 16;

/// A side of a book.
#[derive(Debug)]
pub struct Ladder {
    levels: u32,
    /// Lowest occupied level, or [`NONE`].
    best: u32,
    /// A price is `flip ^ level`, plus `shift`, and the other way round.
    flip: u16,
    shift: u16,
    /// Bit l of word l/64: level l is occupied.
    words: Box<[u64]>,
    /// Elsewhere, because it is rarely needed and a book's row is short without it.
    upper: Box<Upper>,
}

/// The upper levels of the bitmap.
#[derive(Debug)]
struct Upper {
    /// Bit w: `words[w]` is not zero.
    groups: [u64; LEVELS_MAX / 64 / 64],
    /// Bit g: `groups[g]` is not zero.
    top: u64,
}

impl Ladder {
    /// The ladder of a side for prices `1..=price_max` ticks.
    pub fn new(side: Side, price_max: u16) -> Ladder {
        let levels = usize::from(price_max) + 1;
        // A bid's level is what it lacks to the highest price: in two's complement, the price
        // inverted, plus the highest and one. An ask's level is its price.
        let (flip, shift) = match side {
            Side::Buy => (u16::MAX, price_max.wrapping_add(1)),
            Side::Sell => (0, 0),
        };
        Ladder {
            levels: levels as u32,
            best: NONE,
            flip,
            shift,
            words: vec![0; levels.div_ceil(64)].into_boxed_slice(),
            upper: Box::new(Upper { groups: [0; LEVELS_MAX / 64 / 64], top: 0 }),
        }
    }

    /// The level of a price; lower ones trade first.
    #[inline(always)]
    pub fn level_of(&self, price: u16) -> u32 {
        u32::from((price ^ self.flip).wrapping_add(self.shift))
    }

    /// The price of a level.
    #[inline(always)]
    pub fn price_of(&self, level: u32) -> u16 {
        (level as u16 ^ self.flip).wrapping_add(self.shift)
    }

    /// Lowest occupied level, or [`NONE`], which no order's limit reaches.
    #[inline(always)]
    pub fn best(&self) -> u32 {
        self.best
    }

    /// Levels, occupied or not.
    pub fn levels(&self) -> u32 {
        self.levels
    }

    /// Marks a level as occupied; it may be marked already.
    #[inline(always)]
    pub fn mark(&mut self, level: u32) {
        self.best = self.best.min(level);
        let word = level as usize / 64;
        let before = self.words[word];
        self.words[word] = before | 1 << (level % 64);
        if before == 0 {
            self.upper.groups[word / 64] |= 1 << (word % 64);
            self.upper.top |= 1 << (word / 64);
        }
    }

    /// Marks a level as empty.
    #[inline(always)]
    pub fn clear(&mut self, level: u32) {
        let word = level as usize / 64;
        self.words[word] &= !(1 << (level % 64));
        if self.words[word] == 0 {
            let group = word / 64;
            self.upper.groups[group] &= !(1 << (word % 64));
            if self.upper.groups[group] == 0 {
                self.upper.top &= !(1 << group);
            }
        }
        if level == self.best {
            self.best = self.after(level);
        }
    }

    /// Lowest occupied level after `level`, or [`NONE`].
    #[inline(always)]
    pub fn after(&self, level: u32) -> u32 {
        let mut word = level as usize / 64;
        let rest = self.words[word] & (!0_u64 << (level % 64) << 1);
        if rest != 0 {
            return word as u32 * 64 + rest.trailing_zeros();
        }
        let Upper { groups, top } = &*self.upper;
        let mut group = word / 64;
        let rest = groups[group] & (!0_u64 << (word % 64) << 1);
        if rest != 0 {
            word = group * 64 + rest.trailing_zeros() as usize;
        } else {
            let rest = top & (!0_u64 << group << 1);
            if rest == 0 {
                return NONE;
            }
            group = rest.trailing_zeros() as usize;
            word = group * 64 + groups[group].trailing_zeros() as usize;
        }
        word as u32 * 64 + self.words[word].trailing_zeros()
    }

    /// The occupied levels, best first.
    pub fn occupied(&self) -> impl Iterator<Item = u32> + '_ {
        let level = |level: u32| (level != NONE).then_some(level);
        std::iter::successors(level(self.best), move |&last| level(self.after(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every scan agrees with an ordered set, over all word and group borders.
    #[test]
    fn bitmap_agrees_with_an_ordered_set() {
        let mut ladder = Ladder::new(Side::Sell, u16::MAX);
        let mut set = BTreeSet::new();
        let mut state = 7_u64;
        for step in 0..200_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let level = match step % 3 {
                0 => (state >> 48) as u32,
                1 => ((state >> 48) as u32) & 0xf03f,
                _ => ((state >> 48) as u32) | 0x0fc0,
            };
            if set.remove(&level) {
                ladder.clear(level);
            } else if set.len() < 40 || state.is_multiple_of(4) {
                set.insert(level);
                ladder.mark(level);
            }
            let at = |level: Option<&u32>| level.copied().unwrap_or(NONE);
            assert_eq!(ladder.best(), at(set.first()));
            let probe = (state >> 20) as u16;
            assert_eq!(ladder.after(probe.into()), at(set.range(u32::from(probe) + 1..).next()));
        }
        assert!(ladder.occupied().eq(set));
    }

    #[test]
    fn the_better_price_is_the_lower_level() {
        for price_max in [1, 2, 1000, u16::MAX - 1, u16::MAX] {
            let (bids, asks) =
                (Ladder::new(Side::Buy, price_max), Ladder::new(Side::Sell, price_max));
            for price in 1..=price_max {
                for ladder in [&bids, &asks] {
                    assert_eq!(ladder.price_of(ladder.level_of(price)), price);
                    assert!(ladder.level_of(price) <= price_max.into());
                }
                if price > 1 {
                    assert!(bids.level_of(price) < bids.level_of(price - 1));
                    assert!(asks.level_of(price) > asks.level_of(price - 1));
                }
            }
        }
    }
}
