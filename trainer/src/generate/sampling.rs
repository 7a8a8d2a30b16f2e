//! Choosing the next token.

use lockstep_engine::random::Stream;

use crate::error::{Result, TrainerError};

/// The stream of sampling, apart from all others of a seed.
const SITE: u64 = 0x7361_6d70_6c65;

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the scores; 0 takes the best token always.
    pub temperature: f64,
    /// Only so many best tokens can be chosen; 0 means all.
    pub top_k: usize,
    /// The same seed, model and prompt give the same text.
    pub seed: u64,
    /// Tokens to write at most.
    pub max_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 50,
            seed: 0,
            max_tokens: 200,
        }
    }
}

/// Checked [`Sampling`] with its random numbers.
pub(super) struct Sampler {
    temperature: f64,
    top_k: usize,
    stream: Stream,
}

impl Sampler {
    pub(super) fn new(sampling: &Sampling) -> Result<Self> {
        let temperature = sampling.temperature;
        if !(0.0..=100.0).contains(&temperature) {
            let value = temperature.to_string();
            return Err(TrainerError::Setting {
                field: "temperature",
                value,
                bound: "a number from 0 to 100",
            });
        }
        Ok(Self {
            temperature,
            top_k: sampling.top_k,
            stream: Stream::new(sampling.seed, SITE),
        })
    }

    /// The `index`-th token. Equal scores go to the lower token; a score that is not a number counts as lowest.
    pub(super) fn choose(&self, scores: &[f32], index: usize) -> u32 {
        let score = |token: u32| {
            scores
                .get(token as usize)
                .copied()
                .filter(|s| !s.is_nan())
                .unwrap_or(f32::MIN)
        };
        let better = |a: &u32, b: &u32| score(*b).total_cmp(&score(*a)).then(a.cmp(b));
        let mut tokens: Vec<u32> = (0..scores.len() as u32).collect();
        let limit = match (self.temperature == 0.0, self.top_k) {
            (true, _) => 1,
            (false, 0) => tokens.len(),
            (false, k) => k.min(tokens.len()),
        };
        if limit < tokens.len() {
            tokens.select_nth_unstable_by(limit, better);
            tokens.truncate(limit);
        }
        tokens.sort_unstable_by(better);
        let Some(&best) = tokens.first() else { return 0 };
        let weight = |&token: &u32| (f64::from(score(token) - score(best)) / self.temperature).exp();
        let weights: Vec<f64> = if limit == 1 {
            vec![1.0]
        } else {
            tokens.iter().map(weight).collect()
        };
        let mut left = self.stream.uniform(index as u64) * weights.iter().sum::<f64>();
        for (token, weight) in tokens.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f64, top_k: usize) -> Sampler {
        Sampler::new(&Sampling {
            temperature,
            top_k,
            seed: 3,
            max_tokens: 0,
        })
        .unwrap()
    }

    #[test]
    fn zero_temperature_takes_the_best_and_the_lower_of_equals() {
        assert_eq!(sampler(0.0, 5).choose(&[1.0, 3.0, 3.0, f32::NAN, 2.0], 9), 1);
        assert_eq!(sampler(1.0, 1).choose(&[1.0, 3.0, 4.0], 0), 2);
    }

    #[test]
    fn frequencies_are_those_of_the_softmax_of_the_top_k() {
        let scores = [0.0f32, 1.0, 2.0, -1.0];
        let sampler = sampler(0.7, 3);
        let draws = 40_000;
        let mut counts = [0u32; 4];
        for i in 0..draws {
            counts[sampler.choose(&scores, i) as usize] += 1;
        }
        let weights = [0.0, 1.0, 2.0].map(|s: f64| (s / 0.7).exp());
        for token in 0..3 {
            let expected = weights[token] / weights.iter().sum::<f64>();
            let found = f64::from(counts[token]) / draws as f64;
            // Standard error at most 0.0025.
            assert!((found - expected).abs() < 0.011, "{token}: {found} {expected}");
        }
        assert_eq!(counts[3], 0);
    }

    #[test]
    fn temperatures_are_checked() {
        for temperature in [-1.0, f64::NAN, f64::INFINITY] {
            let sampling = Sampling {
                temperature,
                ..Sampling::default()
            };
            assert!(Sampler::new(&sampling).is_err_and(|e| e.to_string().starts_with("temperature = ")));
        }
    }
}
