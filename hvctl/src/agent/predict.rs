//! What an instance will use: the weighted moving average of what it used.

use crate::meter::Usage;
use std::collections::VecDeque;
use vendue_wire::code::Resource;

/// Most samples that a window keeps.
pub const WINDOW_MAX: usize = 1024;
const MILLI: u128 = 1000;
const MICROS_PER_SECOND: u128 = 1_000_000;

/// The newest samples and the weight that each place has.
#[derive(Clone, Debug)]
pub struct Window {
    /// Newest first.
    weights: Vec<u32>,
    /// Newest first; at most as many as there are weights.
    samples: VecDeque<u64>,
}

impl Window {
    /// An empty window of as many samples as there are weights, newest first. `None` if there are
    /// none or more than [`WINDOW_MAX`], or if the newest has none: then no sample would count
    /// until others came.
    pub fn new(weights: Vec<u32>) -> Option<Window> {
        let usable = weights.len() <= WINDOW_MAX && weights.first().is_some_and(|&first| first > 0);
        usable.then(|| Window { samples: VecDeque::with_capacity(weights.len()), weights })
    }

    /// Takes in the newest sample and forgets the one that leaves the window.
    pub fn push(&mut self, sample: u64) {
        self.samples.truncate(self.weights.len() - 1);
        self.samples.push_front(sample);
        assert!(self.samples.len() <= self.weights.len());
    }

    /// Sum of weight x sample over the sum of the weights, rounded down; while the window fills,
    /// over the samples there are. `None` without a sample.
    pub fn average(&self) -> Option<u64> {
        let (mut sum, mut weights) = (0_u128, 0_u128);
        for (&sample, &weight) in self.samples.iter().zip(&self.weights) {
            sum += u128::from(sample) * u128::from(weight);
            weights += u128::from(weight);
        }
        sum.checked_div(weights).map(|average| average as u64)
    }
}

/// The classical weights of `samples`: as many for the newest, one less for each before it, 1 for
/// the oldest.
pub fn falling_weights(samples: usize) -> Vec<u32> {
    (1..=samples as u32).rev().collect()
}

/// Measured use as milli-VRUs: the average over `elapsed_us` for what is used up, the present
/// amount for memory. `vru_size` is in millicores, bytes or bytes/s. `None` for a resource that is
/// not measured.
pub fn demand_milli_vru(
    resource: Resource,
    used: &Usage,
    elapsed_us: u64,
    vru_size: u64,
) -> Option<u64> {
    let (elapsed, size) = (u128::from(elapsed_us.max(1)), u128::from(vru_size.max(1)));
    let milli = match resource {
        // A processor is 1000 millicores.
        Resource::Cpu => u128::from(used.cpu_us) * 1000 * MILLI / (elapsed * size),
        Resource::Memory => u128::from(used.memory_bytes) * MILLI / size,
        Resource::BlockIo => {
            u128::from(used.io_bytes) * MICROS_PER_SECOND * MILLI / (elapsed * size)
        }
        Resource::Network | Resource::Accelerator => return None,
    };
    Some(u64::try_from(milli).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_samples_weigh_as_they_are_told_to() {
        let mut window = Window::new(vec![5, 3, 2]).unwrap();
        assert_eq!(window.average(), None);
        window.push(100);
        assert_eq!(window.average(), Some(100));
        window.push(200);
        // (5 x 200 + 3 x 100) / 8 = 162.5
        assert_eq!(window.average(), Some(162));
        window.push(400);
        // (5 x 400 + 3 x 200 + 2 x 100) / 10
        assert_eq!(window.average(), Some(280));
        window.push(0);
        // (0 + 3 x 400 + 2 x 200) / 10: the 100 has left
        assert_eq!(window.average(), Some(160));
    }

    #[test]
    fn the_usual_weights_fall_by_one() {
        assert_eq!(falling_weights(4), [4, 3, 2, 1]);
        let mut window = Window::new(falling_weights(2)).unwrap();
        window.push(30);
        window.push(60);
        assert_eq!(window.average(), Some(50));
    }

    #[test]
    fn windows_that_say_nothing_are_refused() {
        assert!(Window::new(vec![]).is_none());
        assert!(Window::new(vec![0, 0]).is_none());
        assert!(Window::new(vec![0, 1]).is_none());
        assert!(Window::new(vec![1; WINDOW_MAX + 1]).is_none());
        let mut most = Window::new(vec![u32::MAX; WINDOW_MAX]).unwrap();
        for _ in 0..2 * WINDOW_MAX {
            most.push(u64::MAX);
        }
        assert_eq!(most.average(), Some(u64::MAX));
    }

    #[test]
    fn use_becomes_milli_vrus() {
        let used =
            Usage { cpu_us: 500_000, memory_bytes: 40 << 20, io_bytes: 3 << 20, network_bytes: 0 };
        let demand = |resource, size| demand_milli_vru(resource, &used, 2_000_000, size);
        // A quarter of a processor is 250 millicores: 25 VRUs of 10.
        assert_eq!(demand(Resource::Cpu, 10), Some(25_000));
        assert_eq!(demand(Resource::Memory, 16 << 20), Some(2_500));
        assert_eq!(demand(Resource::BlockIo, 1 << 20), Some(1_500));
        assert_eq!(demand(Resource::Network, 1), None);
        let most = Usage { cpu_us: u64::MAX, ..used };
        assert_eq!(demand_milli_vru(Resource::Cpu, &most, 0, 0), Some(u64::MAX));
    }
}
