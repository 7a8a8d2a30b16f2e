//! What a step changes.

use std::borrow::Cow;
use std::sync::Arc;

use lockstep_engine::ids::Step;
use rayon::prelude::*;

/// Everything that the next step depends on besides the data: flat, `f32`, in the layout's order.
///
/// A clone shares the values; whoever changes them while they are shared changes a copy ([`Arc::make_mut`]).
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The last step applied; 0 before the first.
    pub step: Step,
    /// The weights.
    pub weights: Arc<Vec<f32>>,
    /// AdamW's first moment.
    pub first: Arc<Vec<f32>>,
    /// AdamW's second moment.
    pub second: Arc<Vec<f32>>,
}

impl State {
    /// The state after `step`.
    #[must_use]
    pub fn new(step: Step, [weights, first, second]: [Vec<f32>; 3]) -> Self {
        Self {
            step,
            weights: Arc::new(weights),
            first: Arc::new(first),
            second: Arc::new(second),
        }
    }

    /// The state before the first step.
    #[must_use]
    pub fn initial(weights: Vec<f32>) -> Self {
        let zeros = vec![0.0; weights.len()];
        Self::new(Step(0), [weights, zeros.clone(), zeros])
    }

    /// BLAKE3 in hexadecimal over weights and moments, as little-endian bytes.
    #[must_use]
    pub fn digest(&self) -> String {
        digest_of(&[&self.weights, &self.first, &self.second])
    }

    /// BLAKE3 in hexadecimal over the weights' little-endian bytes.
    #[must_use]
    pub fn weights_digest(&self) -> String {
        digest(&self.weights)
    }
}

/// BLAKE3 in hexadecimal over the values' little-endian bytes, by all threads.
#[must_use]
pub fn digest(values: &[f32]) -> String {
    digest_of(&[values])
}

fn digest_of(parts: &[&[f32]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update_rayon(&little_endian(part));
    }
    hasher.finalize().to_hex().to_string()
}

/// Whether no value is an infinity or not a number, by all threads.
#[must_use]
pub fn are_finite(values: &[f32]) -> bool {
    // Without a way out in the middle the compiler makes vectors of it.
    let is_finite = |block: &[f32]| !block.iter().fold(false, |bad, value| bad | !value.is_finite());
    values.par_chunks(1 << 14).all(is_finite)
}

/// The values as little-endian bytes, without a copy where the machine is little-endian.
pub(crate) fn little_endian(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(values))
    } else {
        Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }
}

/// The values of little-endian bytes; a rest of fewer than four is left out.
pub(crate) fn from_little_endian(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    let (values, _) = bytes.as_chunks::<4>();
    values.iter().map(|&value| f32::from_le_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_over_little_endian_bytes() {
        let bytes = [0u8, 0, 0x80, 0x3f, 0, 0, 0, 0xc0];
        assert_eq!(digest(&[1.0, -2.0]), blake3::hash(&bytes).to_hex().to_string());
        assert_eq!(from_little_endian(&bytes).collect::<Vec<_>>(), [1.0, -2.0]);
        assert_ne!(digest(&[0.0]), digest(&[-0.0]));
    }

    #[test]
    fn the_whole_state_s_digest_depends_on_each_of_its_parts() {
        let state = State::initial(vec![1.0, -2.0]);
        let mut others = [state.clone(), state.clone(), state.clone()];
        Arc::make_mut(&mut others[0].weights)[1] = 2.0;
        Arc::make_mut(&mut others[1].first)[0] = 1.0;
        Arc::make_mut(&mut others[2].second)[1] = 1.0;
        let mut digests: Vec<_> = others.iter().chain([&state]).map(State::digest).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 4);
    }

    #[test]
    fn one_value_that_is_not_finite_is_found_wherever_it_is() {
        let mut values = vec![f32::MAX; 40_000];
        assert!(are_finite(&values) && are_finite(&[]));
        for place in [0, 7, 16_383, 16_384, 39_999] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let good = std::mem::replace(&mut values[place], bad);
                assert!(!are_finite(&values), "{bad} at {place}");
                values[place] = good;
            }
        }
    }
}
