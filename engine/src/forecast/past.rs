//! A series at equal steps, and sums over any stretch of it at once.

/// Values of a series, the oldest first, with running sums.
#[derive(Clone, Debug, Default)]
pub struct Past {
    values: Vec<f32>,
    /// Sums of the values before each, of their squares, and of how far each was from the one before.
    sums: Vec<[f64; 3]>,
}

impl Past {
    /// Of `values`, none of which may be infinite or no number.
    pub fn new(values: Vec<f32>) -> Past {
        let mut sums = Vec::with_capacity(values.len() + 1);
        let (mut sum, mut before) = ([0.0; 3], None);
        sums.push(sum);
        for &value in &values {
            assert!(value.is_finite(), "a series of numbers");
            let value = f64::from(value);
            sum[0] += value;
            sum[1] += value * value;
            sum[2] += (value - before.unwrap_or(value)).abs();
            before = Some(value);
            sums.push(sum);
        }
        Past { values, sums }
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Mean of the values from `from` up to before `to`; what lies outside is left out, and of nothing
    /// it is the value nearest.
    pub fn mean(&self, from: usize, to: usize) -> f32 {
        let (from, to) = self.within(from, to);
        ((self.sums[to][0] - self.sums[from][0]) / (to - from) as f64) as f32
    }

    /// Their standard deviation.
    pub fn deviation(&self, from: usize, to: usize) -> f32 {
        let (from, to) = self.within(from, to);
        let count = (to - from) as f64;
        let mean = (self.sums[to][0] - self.sums[from][0]) / count;
        let squares = (self.sums[to][1] - self.sums[from][1]) / count;
        (squares - mean * mean).max(0.0).sqrt() as f32
    }

    /// How far a value is from the one before, in the mean over them.
    pub fn unrest(&self, from: usize, to: usize) -> f32 {
        let (from, to) = self.within(from, to);
        ((self.sums[to][2] - self.sums[from][2]) / (to - from) as f64) as f32
    }

    fn within(&self, from: usize, to: usize) -> (usize, usize) {
        assert!(!self.is_empty(), "a series with values");
        let from = from.min(self.len() - 1);
        (from, to.clamp(from + 1, self.len()))
    }
}
