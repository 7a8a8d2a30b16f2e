//! RMSNorm (Zhang and Sennrich, 2019): `z = w · x / sqrt(mean(x²) + ε)`, row by row.

use std::cell::RefCell;

use crate::isa::for_each_isa;
use crate::matrix::MatrixMut;
use crate::numeric::{dot, fold};
use crate::scratch::Buffer;

/// Rows of a block. A weight's gradient is summed block by block, so it decides the bits.
const ROWS: usize = 64;

thread_local! {
    static PARTIALS: RefCell<Buffer> = const { RefCell::new(Buffer::empty()) };
}

/// `z` of `x`, both rows of `w.len()` values.
///
/// # Panics
/// When lengths do not fit.
pub fn rms_norm(x: &[f32], w: &[f32], eps: f32, z: &mut [f32]) {
    let d = w.len();
    assert!(x.len() == z.len() && x.len().is_multiple_of(d), "rows of {d}");
    MatrixMut::new(z, x.len() / d, d).for_each_block(ROWS, |rows, mut z| {
        forward_rows(&x[rows.start * d..rows.end * d], w, eps, &mut z);
    });
}

for_each_isa! {
    fn forward_rows(x: &[f32], w: &[f32], eps: f32, z: &mut MatrixMut<'_>) {
        for (i, x) in x.chunks_exact(w.len()).enumerate() {
            let inverse = inverse(x, eps);
            for ((z, x), w) in z.row(i).iter_mut().zip(x).zip(w) {
                *z = w * (x * inverse);
            }
        }
    }
}

/// r = 1 / sqrt(mean(x²) + ε)
#[inline(always)]
fn inverse(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// Adds the gradient to `dx`, the residual stream's, and to `dw`.
///
/// With r as above and g = w · dz: dx += r · (g − x · r² · mean(g · x)), dw += Σ over rows of dz · x · r.
///
/// # Panics
/// When lengths do not fit.
pub fn rms_norm_backward(x: &[f32], w: &[f32], eps: f32, dz: &[f32], dx: &mut [f32], dw: &mut [f32]) {
    let d = w.len();
    assert!(
        x.len() == dz.len() && x.len() == dx.len() && dw.len() == d && x.len().is_multiple_of(d),
        "rows of {d}"
    );
    let rows = x.len() / d;
    let blocks = rows.div_ceil(ROWS);
    let mut partials = PARTIALS.take();
    partials.grow(blocks * d);
    partials[..blocks * d].fill(0.0);
    let sums = MatrixMut::new(&mut partials, blocks, d);
    MatrixMut::new(dx, rows, d).for_each_block_with((sums, 1), ROWS, |rows, mut dx, mut dw| {
        let flat = rows.start * d..rows.end * d;
        backward_rows(&x[flat.clone()], w, eps, &dz[flat], &mut dx, dw.row(0));
    });
    for partial in partials.chunks_exact(d).take(blocks) {
        for (sum, x) in dw.iter_mut().zip(partial) {
            *sum += x;
        }
    }
    PARTIALS.set(partials);
}

for_each_isa! {
    fn backward_rows(x: &[f32], w: &[f32], eps: f32, dz: &[f32], dx: &mut MatrixMut<'_>, dw: &mut [f32]) {
        let d = w.len();
        for (i, (x, dz)) in x.chunks_exact(d).zip(dz.chunks_exact(d)).enumerate() {
            let inverse = inverse(x, eps);
            let pull = inverse * inverse * (fold([w, dz, x], |[w, dz, x]| w * dz * x) / d as f32);
            for (((dx, x), w), dz) in dx.row(i).iter_mut().zip(x).zip(w).zip(dz) {
                *dx += inverse * (w * dz - x * pull);
            }
            for ((dw, x), dz) in dw.iter_mut().zip(x).zip(dz) {
                *dw += dz * (x * inverse);
            }
        }
    }
}
