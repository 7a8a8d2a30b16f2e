//! Sums and exponentials whose bits depend on nothing but their arguments.
//!
//! Sums run in sixteen interleaved lanes that are then added pairwise: the compiler may use vectors of any
//! width, the result is the same. The exponential uses only additions and multiplications, so it does not depend
//! on the system's mathematics library either.

const LANES: usize = 16;

/// Σ f(aᵢ, bᵢ, …) over slices of the same length, in lanes.
#[inline(always)]
pub(crate) fn fold<const N: usize>(slices: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f32 {
    // Blocks of a constant length: with them the compiler makes vectors.
    let blocks = slices.map(|slice| slice.as_chunks::<LANES>());
    let whole = blocks
        .iter()
        .map(|(whole, _)| whole.len())
        .min()
        .unwrap_or_default();
    let mut lanes = [0.0f32; LANES];
    for block in 0..whole {
        let values = blocks.map(|(whole, _)| &whole[block]);
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(values.map(|values| values[lane]));
        }
    }
    let rest = blocks
        .iter()
        .map(|(_, rest)| rest.len())
        .min()
        .unwrap_or_default();
    for (lane, sum) in lanes.iter_mut().enumerate().take(rest) {
        *sum += f(blocks.map(|(_, rest)| rest[lane]));
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ aᵢ
#[inline(always)]
#[must_use]
pub fn sum(a: &[f32]) -> f32 {
    fold([a], |[a]| a)
}

/// Σ aᵢ bᵢ over slices of the same length.
#[inline(always)]
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold([a, b], |[a, b]| a * b)
}

/// The largest value; NaN when there is one.
#[inline(always)]
#[must_use]
pub fn max(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let larger = |held: f32, x: f32| if held >= x || held.is_nan() { held } else { x };
    let (whole, rest) = a.as_chunks::<LANES>();
    for block in whole {
        for (held, &x) in lanes.iter_mut().zip(block) {
            *held = larger(*held, x);
        }
    }
    for (held, &x) in lanes.iter_mut().zip(rest) {
        *held = larger(*held, x);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// eˣ within two units in the last place for x in [-87, 88]; outside, the value at the nearer end. NaN stays.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    exp_by(x, |a, b, c| a * b + c)
}

/// The same with fused operations, for code that is compiled [for each instruction set](crate::isa).
#[inline(always)]
pub(crate) fn exp_fused(x: f32) -> f32 {
    exp_by(x, f32::mul_add)
}

/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, ln 2 in two parts; eʳ by its Taylor series to r⁷ (remainder below 6e-9).
#[inline(always)]
fn exp_by(x: f32, add_product: impl Fn(f32, f32, f32) -> f32) -> f32 {
    // Adding 1.5·2²³ leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = add_product(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = add_product(n, -LN2_LOW, add_product(n, -LN2_HIGH, x));
    let rest = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let series = rest
        .into_iter()
        .fold(1.0 / 5040.0, |series, term| add_product(series, r, term));
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    series * f32::from_bits(exponent)
}

/// 1 / (1 + e⁻ˣ)
#[inline(always)]
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The same with fused operations.
#[inline(always)]
pub(crate) fn sigmoid_fused(x: f32) -> f32 {
    1.0 / (1.0 + exp_fused(-x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * 2f64.powf(exact.log2().floor());
            for found in [exp(x), exp_fused(x)] {
                worst = worst.max((f64::from(found) - exact).abs() / unit);
            }
        }
        assert!(worst < 2.0, "{worst} units");
        for exp in [exp, exp_fused] {
            assert_eq!((exp(0.0), exp(-1e30), exp(1e30)), (1.0, exp(-87.0), exp(88.0)));
            assert!(exp(f32::NAN).is_nan());
        }
        assert!(sigmoid(f32::NAN).is_nan() && sigmoid_fused(f32::NAN).is_nan());
    }

    #[test]
    fn a_nan_is_never_lost() {
        for at in 0..40 {
            let mut a = vec![1.0; 40];
            a[at] = f32::NAN;
            assert!(max(&a).is_nan() && sum(&a).is_nan());
        }
    }

    proptest! {
        #[test]
        fn sums_are_right(a in prop::collection::vec(-10.0f32..10.0, 0..200)) {
            let exact: f64 = a.iter().map(|&x| f64::from(x)).sum();
            let squares: f64 = a.iter().map(|&x| f64::from(x).powi(2)).sum();
            prop_assert!((f64::from(sum(&a)) - exact).abs() < 1e-3);
            prop_assert!((f64::from(dot(&a, &a)) - squares).abs() <= 1e-5 * squares.max(1.0));
            prop_assert_eq!(max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
