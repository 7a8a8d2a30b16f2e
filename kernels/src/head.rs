//! The head and its cross entropy, fused: logits exist for a few rows at a time, and become their own gradient.

use std::cell::RefCell;

use crate::isa::for_each_isa;
use crate::matmul::{Into, matmul};
use crate::matrix::{Matrix, MatrixMut};
use crate::numeric::{exp_fused, max, sum};
use crate::scratch::Buffer;

/// The most logits that exist at a time, 16 MiB, but for a vocabulary of which 32 rows have more.
const LOGITS: usize = 1 << 22;

thread_local! {
    static SCRATCH: RefCell<(Buffer, Buffer)> = const { RefCell::new((Buffer::empty(), Buffer::empty())) };
}

/// Where gradients go.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// The gradient of `h`, which is replaced.
    pub dh: &'a mut [f32],
    /// The gradient of `w`, which is added to.
    pub dw: &'a mut [f32],
    /// What the sum of all losses is multiplied with: one over the number of rows for their mean.
    pub scale: f32,
}

/// Rows whose logits exist at a time: a multiple of 32, of at most 16 MiB unless 32 rows have more.
#[must_use]
pub fn chunk(vocabulary: usize) -> usize {
    (LOGITS / vocabulary / 32 * 32).max(32)
}

/// Sum over rows of `ln Σ exp(logits) − logits[target]`, in nats, with `logits = h · wᵀ`; `h` (rows, d), `w`
/// (vocabulary, d).
///
/// # Panics
/// When a target is outside of the vocabulary, or lengths do not fit.
pub fn cross_entropy(
    h: &[f32],
    w: &[f32],
    d: usize,
    targets: &[u32],
    mut gradients: Option<Gradients<'_>>,
) -> f64 {
    let (rows, vocabulary) = (targets.len(), w.len() / d);
    assert!(h.len() == rows * d && w.len() == vocabulary * d, "rows of {d}");
    assert!(
        targets.iter().all(|&target| (target as usize) < vocabulary),
        "targets below {vocabulary}"
    );
    let chunk = chunk(vocabulary).min(rows);
    let (mut logits, mut losses) = SCRATCH.take();
    logits.grow(chunk * vocabulary);
    losses.grow(chunk);
    let w_vd = Matrix::new(w, vocabulary, d);
    let mut total = 0.0;
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        let (logits, losses) = (&mut logits[..count * vocabulary], &mut losses[..count]);
        let h = Matrix::new(&h[first * d..(first + count) * d], count, d);
        matmul(
            h,
            w_vd.t(),
            MatrixMut::new(logits, count, vocabulary),
            Into::Fresh,
        );
        let scale = gradients.as_ref().map(|gradients| gradients.scale);
        let each = MatrixMut::new(losses, count, 1);
        MatrixMut::new(logits, count, vocabulary).for_each_block_with(
            (each, 1),
            1,
            |rows, mut logits, mut loss| {
                let target = targets[first + rows.start] as usize;
                loss.row(0)[0] = row_loss(logits.row(0), target, scale);
            },
        );
        total += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        if let Some(Gradients { dh, dw, .. }) = &mut gradients {
            let dlogits = Matrix::new(logits, count, vocabulary);
            let dh = &mut dh[first * d..(first + count) * d];
            matmul(dlogits, w_vd, MatrixMut::new(dh, count, d), Into::Fresh);
            matmul(dlogits.t(), h, MatrixMut::new(dw, vocabulary, d), Into::Sum);
        }
    }
    SCRATCH.set((logits, losses));
    total
}

for_each_isa! {
    /// The loss of a row of logits, which with `scale` become (softmax − one-hot target) · scale.
    fn row_loss(logits: &mut [f32], target: usize, scale: Option<f32>) -> f32 {
        let (largest, chosen) = (max(logits), logits[target]);
        for x in logits.iter_mut() {
            *x = exp_fused(*x - largest);
        }
        let total = sum(logits);
        if let Some(scale) = scale {
            let factor = scale / total;
            for x in logits.iter_mut() {
                *x *= factor;
            }
            logits[target] -= scale;
        }
        largest + libm::logf(total) - chosen
    }
}
