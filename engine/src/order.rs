//! The order in which samples are used: a pure function of seed and position, so that a loader's whole state
//! is its cursor.

use crate::random::Permutation;

/// The order of `samples` samples: each pass over them is a permutation of its own.
#[derive(Clone, Copy, Debug)]
pub struct SampleOrder {
    samples: u64,
    seed: u64,
}

impl SampleOrder {
    /// The order of `samples` (at least 1) samples under `seed`.
    #[must_use]
    pub fn new(samples: u64, seed: u64) -> Self {
        Self {
            samples: samples.max(1),
            seed,
        }
    }

    /// The sample at `position`, counted from 0 over all passes.
    #[must_use]
    pub fn sample(&self, position: u64) -> u64 {
        let (pass, index) = (position / self.samples, position % self.samples);
        Permutation::new(self.samples, self.seed, pass).at(index)
    }

    /// The position at which `pass`, counted from 0, uses `sample`: the inverse of [`sample`](Self::sample).
    #[must_use]
    pub fn position(&self, pass: u64, sample: u64) -> u64 {
        pass * self.samples + Permutation::new(self.samples, self.seed, pass).index_of(sample)
    }

    /// The pass that `position` belongs to, counted from 0.
    #[must_use]
    pub fn pass(&self, position: u64) -> u64 {
        position / self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_uses_each_sample_once() {
        let order = SampleOrder::new(97, 3);
        for pass in 0..3 {
            let mut seen: Vec<u64> = (0..97).map(|i| order.sample(pass * 97 + i)).collect();
            let back = |(i, &sample)| order.position(pass, sample) == pass * 97 + i as u64;
            assert!(seen.iter().enumerate().all(back), "pass {pass}");
            seen.sort_unstable();
            assert_eq!(seen, (0..97).collect::<Vec<_>>());
        }
    }
}
