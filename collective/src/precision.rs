//! How precise gradients are between lanes.

use std::sync::Arc;

use crate::fold::Segment;
use crate::pool::Pool;

/// How precise the values of a tree are: those of its leaves, and of each sum.
///
/// Every value is rounded where it comes to be, so whatever goes over the wire is exact: the sum has the same bits however lanes
/// are spread over members, and with a single member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits.
    #[default]
    F32,
    /// 8 bits of precision and the range of f32, in half the bytes on the wire. Each addition is of exact operands, in f32, and its
    /// sum is rounded to the nearest, ties to even.
    Bf16,
}

impl Precision {
    /// The values, rounded.
    pub(crate) fn round(self, values: &mut [f32]) {
        if self == Self::Bf16 {
            values.iter_mut().for_each(|value| *value = rounded(*value));
        }
    }

    /// The sum of two values.
    #[inline(always)]
    pub(crate) fn add(self, left: f32, right: f32) -> f32 {
        match self {
            Self::F32 => left + right,
            Self::Bf16 => rounded(left + right),
        }
    }

    /// As many words go over the wire for `len` values.
    pub(crate) fn wire_len(self, len: usize) -> usize {
        match self {
            Self::F32 => len,
            Self::Bf16 => len.div_ceil(2),
        }
    }

    /// Rounded values as they go over the wire: in f32 the same.
    pub(crate) fn pack(self, values: Segment, pool: &Pool) -> Segment {
        if self == Self::F32 {
            return values;
        }
        let len = self.wire_len(values.values().len());
        let mut buffer = pool.take_rounded(len);
        if let Some(words) = Arc::get_mut(&mut buffer) {
            for (word, pair) in words.iter_mut().zip(values.values().chunks(2)) {
                let half = |value: Option<&f32>| value.map_or(0, |value| value.to_bits() >> 16);
                *word = f32::from_bits(half(pair.first()) | half(pair.get(1)) << 16);
            }
        }
        values.recycle(pool);
        Segment::pooled(buffer, len)
    }

    /// What was [packed](Self::pack), to as many values as `out` has.
    pub(crate) fn unpack(self, words: &[f32], out: &mut [f32]) {
        match self {
            Self::F32 => out.copy_from_slice(words),
            Self::Bf16 => {
                for (pair, word) in out.chunks_mut(2).zip(words) {
                    let halves = [word.to_bits() << 16, word.to_bits() & 0xFFFF_0000];
                    for (value, half) in pair.iter_mut().zip(halves) {
                        *value = f32::from_bits(half);
                    }
                }
            }
        }
    }
}

/// To the nearest value of 8 bits of precision, ties to even. What is not a number stays none.
#[inline(always)]
fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    let even = bits >> 16 & 1;
    let nearest = bits.wrapping_add(0x7FFF + even) & 0xFFFF_0000;
    let quiet = bits & 0xFFFF_0000 | 0x0040_0000;
    f32::from_bits(if value.is_nan() { quiet } else { nearest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_of_the_format_and_what_lies_between() {
        // From the definition: 1 + k/128 are the neighbours of 1.
        let (one, next) = (1.0f32, 1.0 + 1.0 / 128.0);
        for (value, expected) in [
            (one, one),
            (next, next),
            (1.0 + 1.0 / 256.0, one), // a tie, to the even one
            (1.0 + 3.0 / 256.0, 1.0 + 2.0 / 128.0),
            (1.0 + 1.01 / 256.0, next),
            (-1.0 - 1.01 / 256.0, -next),
            (f32::MAX, f32::INFINITY),
            (f32::INFINITY, f32::INFINITY),
            (-0.0, -0.0),
        ] {
            assert_eq!(rounded(value).to_bits(), expected.to_bits(), "{value}");
        }
        assert!(rounded(f32::NAN).is_nan());
        assert!(
            rounded(f32::from_bits(0x7F80_0001)).is_nan(),
            "whose upper half is infinity"
        );
    }

    proptest! {
        #[test]
        fn rounding_is_to_the_nearest_and_the_wire_is_exact(values in prop::collection::vec(-1e30f32..1e30, 0..9)) {
            let mut near = values.clone();
            Precision::Bf16.round(&mut near);
            for (value, near) in values.iter().zip(&near) {
                prop_assert!((value - near).abs() <= value.abs() / 256.0);
                prop_assert_eq!(near.to_bits() & 0xFFFF, 0);
            }
            for precision in [Precision::F32, Precision::Bf16] {
                let pool = Pool::new(1 << 10);
                let packed = precision.pack(Segment::pooled(Arc::new(near.clone()), near.len()), &pool);
                prop_assert_eq!(packed.values().len(), precision.wire_len(near.len()));
                let mut found = vec![f32::NAN; near.len()];
                precision.unpack(packed.values(), &mut found);
                prop_assert_eq!(&found, &near);
            }
        }
    }
}
