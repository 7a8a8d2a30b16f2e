//! What a step changes.

use std::borrow::Cow;

use lockstep_engine::ids::Step;

/// Everything that the next step depends on besides the data: flat, `f32`, in the layout's order.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The last step applied; 0 before the first.
    pub step: Step,
    /// The weights.
    pub weights: Vec<f32>,
    /// AdamW's first moment.
    pub first: Vec<f32>,
    /// AdamW's second moment.
    pub second: Vec<f32>,
}

impl State {
    /// The state before the first step.
    #[must_use]
    pub fn initial(weights: Vec<f32>) -> Self {
        let zeros = vec![0.0; weights.len()];
        Self {
            step: Step(0),
            weights,
            first: zeros.clone(),
            second: zeros,
        }
    }

    /// BLAKE3 in hexadecimal over the weights' little-endian bytes.
    #[must_use]
    pub fn weights_digest(&self) -> String {
        digest(&self.weights)
    }
}

/// BLAKE3 in hexadecimal over the values' little-endian bytes.
#[must_use]
pub fn digest(values: &[f32]) -> String {
    blake3::hash(&little_endian(values)).to_hex().to_string()
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
}
