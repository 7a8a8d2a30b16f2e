//! Rotary positions (Su et al., "RoFormer", 2021), in the half-split pairing that Hugging Face's weights have.

use crate::isa::for_each_isa;
use crate::matrix::MatrixMut;

/// Rows of a parallel piece.
const ROWS: usize = 32;

/// Cosines and sines of all positions.
#[derive(Clone, Debug)]
pub struct Rotary {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

/// Which way heads are turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// As the forward does.
    Forth,
    /// The inverse, which is the transposed: as the backward does.
    Back,
}

impl Rotary {
    /// The angle of pair `i` at position `p` is `p · theta^(−2i / width)`, computed in f64 by a portable library.
    #[must_use]
    pub fn new(positions: usize, width: usize, theta: f64) -> Self {
        let half = width / 2;
        assert!(half > 0, "heads of {width}");
        let angle = |p: usize, i: usize| p as f64 * libm::pow(theta, -2.0 * i as f64 / width as f64);
        let table = |f: fn(f64) -> f64| {
            let of = |p| (0..half).map(move |i| f(angle(p, i)) as f32);
            (0..positions).flat_map(of).collect()
        };
        Self {
            cos: table(libm::cos),
            sin: table(libm::sin),
            half,
        }
    }

    /// The cosines: (positions, width / 2).
    #[must_use]
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// The sines, likewise.
    #[must_use]
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }

    /// Turns the first `heads` heads of each row of `x` in place; row `i` is at position `i % length`.
    ///
    /// # Panics
    /// When a row has fewer heads, or `length` exceeds the positions.
    pub fn turn(&self, x: &mut MatrixMut<'_>, heads: usize, length: usize, turn: Turn) {
        assert!(
            2 * heads * self.half <= x.cols() && length * self.half <= self.cos.len(),
            "{heads} heads, {length} positions"
        );
        let sign = if turn == Turn::Forth { 1.0 } else { -1.0 };
        x.reborrow().for_each_block(ROWS, |rows, mut x| {
            for (row, i) in rows.enumerate() {
                let at = (i % length) * self.half..(i % length + 1) * self.half;
                let heads = &mut x.row(row)[..2 * heads * self.half];
                turn_row(heads, &self.cos[at.clone()], &self.sin[at], sign);
            }
        });
    }
}

for_each_isa! {
    fn turn_row(row: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        for head in row.chunks_exact_mut(2 * cos.len()) {
            let (a, b) = head.split_at_mut(cos.len());
            for (((a, b), c), s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                let s = sign * s;
                (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
            }
        }
    }
}
