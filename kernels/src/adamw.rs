//! AdamW with decoupled decay (Loshchilov and Hutter, 2019): the norm that clipping needs, and the update, each one pass.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::isa::for_each_isa;
use crate::matrix::MatrixMut;
use crate::parallel;

/// Elements of a parallel piece, and of a partial sum of the norm.
const BLOCK: usize = 1 << 14;
/// Interleaved sums of a block.
const LANES: usize = 8;

thread_local! {
    static PARTIALS: RefCell<Vec<AtomicU64>> = const { RefCell::new(Vec::new()) };
}

/// The Euclidean norm, accumulated in f64 in a fixed order.
#[must_use]
pub fn norm(values: &[f32]) -> f64 {
    let blocks = values.len().div_ceil(BLOCK);
    let mut partials = PARTIALS.take();
    partials.clear();
    partials.resize_with(blocks, AtomicU64::default);
    parallel::for_each(blocks, |block| {
        let values = &values[block * BLOCK..((block + 1) * BLOCK).min(values.len())];
        partials[block].store(sum_of_squares(values).to_bits(), Ordering::Relaxed);
    });
    let total: f64 = partials
        .iter()
        .map(|bits| f64::from_bits(bits.load(Ordering::Relaxed)))
        .sum();
    PARTIALS.set(partials);
    total.sqrt()
}

for_each_isa! {
    fn sum_of_squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (whole, rest) = values.as_chunks::<LANES>();
        for chunk in whole {
            for (sum, &x) in lanes.iter_mut().zip(chunk) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        for (sum, &x) in lanes.iter_mut().zip(rest) {
            *sum += f64::from(x) * f64::from(x);
        }
        lanes.iter().sum()
    }
}

/// What an update multiplies with.
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    /// The gradient's scale, clipping included.
    pub scale: f32,
    /// β₁, β₂, and one less each of them.
    pub beta1: f32,
    /// See `beta1`.
    pub beta2: f32,
    /// See `beta1`.
    pub rest1: f32,
    /// See `beta1`.
    pub rest2: f32,
    /// ε
    pub eps: f32,
    /// η / (1 − β₁ᵗ)
    pub rate: f32,
    /// 1 / (1 − β₂ᵗ)
    pub root: f32,
    /// 1 − η λ
    pub keep: f32,
}

/// A parameter and its moments.
#[derive(Debug)]
pub struct Updated<'a> {
    /// The parameter.
    pub weights: &'a mut [f32],
    /// The first moment.
    pub first: &'a mut [f32],
    /// The second moment.
    pub second: &'a mut [f32],
}

/// With g = scale · gradient: m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², w ← keep · w − rate · m / (sqrt(root · v) + ε).
///
/// # Panics
/// When lengths differ.
pub fn update(of: Updated<'_>, gradient: &[f32], constants: Constants) {
    let len = gradient.len();
    assert_eq!(
        [of.weights.len(), of.first.len(), of.second.len()],
        [len; 3],
        "lengths"
    );
    let row = |values| MatrixMut::new(values, 1, len);
    let (weights, first, second) = (row(of.weights), row(of.first), row(of.second));
    parallel::for_each(len.div_ceil(BLOCK), |block| {
        let range = block * BLOCK..((block + 1) * BLOCK).min(len);
        #[expect(unsafe_code, reason = "blocks are written by several threads")]
        // SAFETY: each block is written by one of the calls.
        let (mut weights, mut first, mut second) = unsafe {
            (
                weights.window(0..1, range.clone()),
                first.window(0..1, range.clone()),
                second.window(0..1, range.clone()),
            )
        };
        update_block(
            weights.row(0),
            first.row(0),
            second.row(0),
            &gradient[range],
            constants,
        );
    });
}

for_each_isa! {
    fn update_block(weights: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], c: Constants) {
        for (((w, m), v), g) in weights.iter_mut().zip(first).zip(second).zip(gradient) {
            let g = g * c.scale;
            *m = c.beta1 * *m + c.rest1 * g;
            *v = c.beta2 * *v + c.rest2 * (g * g);
            *w = *w * c.keep - c.rate * *m / ((*v * c.root).sqrt() + c.eps);
        }
    }
}
