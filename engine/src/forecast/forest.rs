//! Quantiles learnt across series: a forest of regression trees whose leaves keep what happened after
//! moments that looked alike (Meinshausen, Quantile Regression Forests, 2006; here each leaf keeps its
//! quantiles instead of its rows, and the trees' quantiles are averaged).

use super::choice::Stretches;
use super::features::{FEATURES, Grid, Moment};
use super::past::Past;
use super::{LEVELS, MEDIAN, Quantiles};

/// Bounds of a feature's bins, at which it can be split.
const BINS: usize = 64;
/// What is followed while splitting: where the future lies, how far it strays, how high it gets.
const AIMS: usize = 3;
/// Levels of a tree at most.
const DEPTH_MAX: usize = 24;

/// What came is learnt up to so many units.
const AFTER_MAX: f32 = 1e3;

/// One row of so many is kept from the trees.
const UNSEEN: usize = 10;

/// How a forest is grown.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// Trees.
    pub trees: usize,
    /// Rows that each of them is shown, drawn from all.
    pub rows: usize,
    /// Rows of a leaf at least.
    pub leaf_rows: usize,
    /// Features that each split is chosen from, drawn from all.
    pub tried: usize,
}

/// As it is grown here: some 2 MiB.
pub const GROWTH: Growth = Growth { trees: 40, rows: 20_000, leaf_rows: 60, tried: 16 };

/// Moments of which the future is known.
#[derive(Clone, Debug)]
pub struct Rows {
    grid: Grid,
    features: Vec<[f32; FEATURES]>,
    /// By row, what came: differences to the last value, in the moment's units.
    after: Vec<f32>,
}

impl Rows {
    /// None yet.
    pub fn new(grid: Grid) -> Rows {
        Rows { grid, features: Vec::new(), after: Vec::new() }
    }

    /// Adds the moment of `past` after its first `known` values; as many as the grid has steps must
    /// follow.
    pub fn add(&mut self, past: &Past, known: usize) {
        let moment = Moment::at(past, known, self.grid);
        self.features.push(moment.features);
        let after = &past.values()[known..known + self.grid.steps];
        let units =
            |value: &f32| ((value - moment.last) / moment.unit).clamp(-AFTER_MAX, AFTER_MAX);
        self.after.extend(after.iter().map(units));
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.features.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.features.is_empty()
    }

    fn after(&self, row: usize) -> &[f32] {
        &self.after[row * self.grid.steps..][..self.grid.steps]
    }

    /// What is followed of a row, tamed: futures have long tails.
    fn aims(&self, row: usize) -> [f32; AIMS] {
        let after = self.after(row);
        let steps = after.len() as f32;
        let mean = after.iter().sum::<f32>() / steps;
        let strayed = after.iter().map(|value| value.abs()).sum::<f32>() / steps;
        let highest = after.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        [mean.asinh(), strayed.ln_1p(), highest.asinh()]
    }
}

#[derive(Clone, Copy, Debug)]
enum Node {
    /// Where the feature is at most the bound it goes on at the next node, else at `above`.
    Split { of: u16, bound: f32, above: u32 },
    /// Number of a leaf.
    Leaf(u32),
}

#[derive(Clone, Debug, Default)]
struct Tree {
    nodes: Vec<Node>,
    /// By leaf and step, differences at each of [`LEVELS`].
    leaves: Vec<Quantiles>,
}

/// A grown forest.
#[derive(Clone, Debug)]
pub struct Forest {
    grid: Grid,
    trees: Vec<Tree>,
    stretches: Stretches,
}

impl Forest {
    /// Grows one on `rows`; the same rows and seed grow the same forest. `None` without enough of them
    /// for a leaf.
    pub fn grow(rows: Rows, growth: Growth, seed: u64) -> Option<Forest> {
        let mut growing = Growing::new(rows, growth, seed)?;
        while growing.step() {}
        Some(growing.grown())
    }

    /// What comes after a moment, by step.
    pub fn quantiles(&self, moment: &Moment) -> Vec<Quantiles> {
        let mut said = self.differences(moment);
        for quantiles in &mut said {
            *quantiles = quantiles.map(|value| (moment.last + value * moment.unit).max(0.0));
        }
        said
    }

    /// The same as differences to the last value, in the moment's units.
    fn differences(&self, moment: &Moment) -> Vec<Quantiles> {
        let steps = self.grid.steps;
        let mut sums = vec![[0.0; LEVELS.len()]; steps];
        for tree in &self.trees {
            let leaf = tree.leaf(&moment.features) * steps;
            for (sum, quantiles) in sums.iter_mut().zip(&tree.leaves[leaf..leaf + steps]) {
                for (sum, value) in sum.iter_mut().zip(quantiles) {
                    *sum += value;
                }
            }
        }
        let trees = self.trees.len() as f32;
        sums.iter_mut().for_each(|quantiles| *quantiles = quantiles.map(|sum| sum / trees));
        sums
    }

    /// How far its intervals must be stretched to hold what they say, as rows tell that no tree saw.
    pub fn stretches(&self) -> Stretches {
        self.stretches
    }

    /// Memory of its trees, bytes.
    pub fn bytes(&self) -> usize {
        let of = |tree: &Tree| size_of_val(&*tree.nodes) + size_of_val(&*tree.leaves);
        self.trees.iter().map(of).sum()
    }
}

impl Tree {
    fn leaf(&self, features: &[f32; FEATURES]) -> usize {
        let mut at = 0;
        loop {
            match self.nodes[at] {
                Node::Leaf(leaf) => return leaf as usize,
                Node::Split { of, bound, .. } if features[usize::from(of)] <= bound => at += 1,
                Node::Split { above, .. } => at = above as usize,
            }
        }
    }
}

/// A forest that grows, a tree at a time.
pub struct Growing {
    rows: Rows,
    growth: Growth,
    bounds: Vec<[f32; BINS]>,
    /// By row, its bin of each trait.
    bins: Vec<[u8; FEATURES]>,
    aims: Vec<[f32; AIMS]>,
    random: u64,
    forest: Forest,
}

impl Growing {
    /// Nothing has grown yet. `None` without enough rows for a leaf.
    pub fn new(rows: Rows, growth: Growth, seed: u64) -> Option<Growing> {
        if rows.len() < growth.leaf_rows.max(2) {
            return None;
        }
        let bounds: Vec<[f32; BINS]> = (0..FEATURES).map(|of| bounds(&rows, of)).collect();
        let bin = |of: usize, value: f32| bounds[of].partition_point(|bound| *bound < value) as u8;
        let bins = rows.features.iter().map(|row| std::array::from_fn(|of| bin(of, row[of])));
        let bins = bins.collect();
        let mut aims: Vec<[f32; AIMS]> = (0..rows.len()).map(|row| rows.aims(row)).collect();
        for aim in 0..AIMS {
            let count = aims.len() as f32;
            let mean = aims.iter().map(|row| row[aim]).sum::<f32>() / count;
            let squares = aims.iter().map(|row| (row[aim] - mean).powi(2)).sum::<f32>();
            let scale = (squares / count).sqrt().max(f32::MIN_POSITIVE);
            aims.iter_mut().for_each(|row| row[aim] = (row[aim] - mean) / scale);
        }
        let forest = Forest { grid: rows.grid, trees: Vec::new(), stretches: [1.0; MEDIAN] };
        Some(Growing { rows, growth, bounds, bins, aims, random: seed, forest })
    }

    /// Grows the next tree. False once all have grown.
    pub fn step(&mut self) -> bool {
        if self.forest.trees.len() == self.growth.trees {
            self.forest.stretches = self.stretches();
            return false;
        }
        let count = self.growth.rows.min(self.rows.len());
        let mut rows = Vec::with_capacity(count);
        while rows.len() < count {
            let row = self.below(self.rows.len());
            if !row.is_multiple_of(UNSEEN) {
                rows.push(row as u32);
            }
        }
        let mut tree = Tree::default();
        self.split(&mut tree, rows, 0);
        self.forest.trees.push(tree);
        true
    }

    /// What has grown.
    pub fn grown(self) -> Forest {
        self.forest
    }

    fn split(&mut self, tree: &mut Tree, rows: Vec<u32>, depth: usize) {
        let found = if depth < DEPTH_MAX { self.best(&rows) } else { None };
        let Some((of, bin)) = found else {
            tree.nodes.push(Node::Leaf((tree.leaves.len() / self.rows.grid.steps) as u32));
            self.fill(tree, &rows);
            return;
        };
        let node = tree.nodes.len();
        tree.nodes.push(Node::Leaf(0));
        let (below, above): (Vec<u32>, Vec<u32>) =
            rows.into_iter().partition(|&row| usize::from(self.bins[row as usize][of]) <= bin);
        self.split(tree, below, depth + 1);
        let bound = self.bounds[of][bin];
        tree.nodes[node] = Node::Split { of: of as u16, bound, above: tree.nodes.len() as u32 };
        self.split(tree, above, depth + 1);
    }

    /// The feature and its bin after which the rows are best parted: both parts' aims lie closest.
    fn best(&mut self, rows: &[u32]) -> Option<(usize, usize)> {
        let least = self.growth.leaf_rows;
        if rows.len() < 2 * least {
            return None;
        }
        let mut total = [0.0; AIMS];
        for &row in rows {
            (0..AIMS).for_each(|aim| total[aim] += self.aims[row as usize][aim]);
        }
        let gain = |sums: &[f32; AIMS], count: usize| {
            sums.iter().map(|sum| sum * sum).sum::<f32>() / count as f32
        };
        let whole = gain(&total, rows.len());
        let (mut best, mut found) = (whole * (1.0 + 1e-4), None);
        for _ in 0..self.growth.tried {
            let of = self.below(FEATURES);
            let mut bins = [([0.0; AIMS], 0_usize); BINS + 1];
            for &row in rows {
                let (sums, count) = &mut bins[usize::from(self.bins[row as usize][of])];
                (0..AIMS).for_each(|aim| sums[aim] += self.aims[row as usize][aim]);
                *count += 1;
            }
            let (mut sums, mut count) = ([0.0; AIMS], 0);
            for (bin, (added, rows_here)) in bins[..BINS].iter().enumerate() {
                (0..AIMS).for_each(|aim| sums[aim] += added[aim]);
                count += rows_here;
                if count < least || rows.len() - count < least || *rows_here == 0 {
                    continue;
                }
                let others: [f32; AIMS] = std::array::from_fn(|aim| total[aim] - sums[aim]);
                let parted = gain(&sums, count) + gain(&others, rows.len() - count);
                if parted > best {
                    (best, found) = (parted, Some((of, bin)));
                }
            }
        }
        found
    }

    /// Of each interval, the stretch with which it holds its share of what no tree saw.
    fn stretches(&self) -> Stretches {
        let mut needed = [(); MEDIAN].map(|()| Vec::new());
        for row in (0..self.rows.len()).step_by(UNSEEN) {
            let moment = Moment { last: 0.0, unit: 1.0, features: self.rows.features[row] };
            for (said, came) in self.forest.differences(&moment).iter().zip(self.rows.after(row)) {
                for (at, needed) in needed.iter_mut().enumerate() {
                    let side = if came > &said[MEDIAN] { LEVELS.len() - 1 - at } else { at };
                    let reach = (said[side] - said[MEDIAN]).abs().max(f32::MIN_POSITIVE);
                    needed.push((came - said[MEDIAN]).abs() / reach);
                }
            }
        }
        let mut at = 0;
        needed.map(|mut needed| {
            needed.sort_by(f32::total_cmp);
            let share = 1.0 - 2.0 * LEVELS[at];
            at += 1;
            let stretch = needed[((needed.len() - 1) as f32 * share) as usize];
            stretch.clamp(0.5, 2.0)
        })
    }

    /// What came after the rows of a leaf.
    fn fill(&self, tree: &mut Tree, rows: &[u32]) {
        let mut after: Vec<f32> = Vec::with_capacity(rows.len());
        for step in 0..self.rows.grid.steps {
            after.clear();
            after.extend(rows.iter().map(|&row| self.rows.after(row as usize)[step]));
            tree.leaves.push(quantiles(&mut after));
        }
    }

    /// A number below `bound` (Steele, Lea, Flood: SplitMix).
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// Where a feature can be split: as many rows lie between each bound and the next, about.
fn bounds(rows: &Rows, of: usize) -> [f32; BINS] {
    let every = (rows.len() / 20_000).max(1);
    let mut values: Vec<f32> = rows.features.iter().step_by(every).map(|row| row[of]).collect();
    values.sort_by(f32::total_cmp);
    std::array::from_fn(|bin| values[(bin + 1) * (values.len() - 1) / (BINS + 1)])
}

/// The [`LEVELS`] of some values, which are sorted by it; between two of them it is interpolated.
pub fn quantiles(values: &mut [f32]) -> Quantiles {
    assert!(!values.is_empty(), "quantiles of something");
    values.sort_by(f32::total_cmp);
    LEVELS.map(|level| {
        let at = level * (values.len() - 1) as f32;
        let (low, part) = (at.floor() as usize, at.fract());
        let high = values[(low + 1).min(values.len() - 1)];
        values[low] + (high - values[low]) * part
    })
}
