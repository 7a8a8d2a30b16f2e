//! Scaled causal softmax over scores.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::numeric::{dot, exp, max, sum};
use super::{ROWS_PER_TASK, is_fused, produced, read2, slice};

/// `softmax(scale · scores)`, where the query of row `r` is the `r mod queries`-th and sees the keys up to
/// `past + r mod queries`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CausalSoftmax {
    /// Multiplies the scores.
    pub(crate) scale: f64,
    /// Queries of a sequence; the rows are whole groups of them.
    pub(crate) queries: usize,
    /// Keys before the first query's own.
    pub(crate) past: usize,
}

/// `scores` (batch, rows, keys) to weights of the same shape; hidden keys get 0.
pub(crate) fn causal_softmax(scores: &Tensor, options: CausalSoftmax) -> Result<Tensor> {
    if is_fused(scores) {
        return scores.contiguous()?.apply_op1(options);
    }
    composed(scores, options)
}

/// The same of candle's own operations.
pub(super) fn composed(scores: &Tensor, options: CausalSoftmax) -> Result<Tensor> {
    let (batch, rows, keys) = scores.dims3()?;
    let CausalSoftmax { scale, queries, past } = options;
    let hidden = |query: usize, key: usize| {
        if key > past + query {
            f32::NEG_INFINITY
        } else {
            0.0
        }
    };
    let mask: Vec<f32> = (0..queries)
        .flat_map(|q| (0..keys).map(move |k| hidden(q, k)))
        .collect();
    let mask_qk = Tensor::from_vec(mask, (queries, keys), scores.device())?.to_dtype(scores.dtype())?;
    let scores_bgqk = (scores * scale)?.reshape((batch, rows / queries, queries, keys))?;
    let masked = scores_bgqk.broadcast_add(&mask_qk)?;
    // The largest score only guards against overflow: the result does not depend on it.
    let shifted = masked.broadcast_sub(&masked.max_keepdim(D::Minus1)?.detach())?;
    let powers = shifted.exp()?;
    powers
        .broadcast_div(&powers.sum_keepdim(D::Minus1)?)?
        .reshape((batch, rows, keys))
}

impl CausalSoftmax {
    fn visible(&self, row: usize, keys: usize) -> usize {
        (self.past + row % self.queries + 1).min(keys)
    }
}

impl CustomOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let scores = slice(storage, layout)?;
        let (_, rows, keys) = layout.shape().dims3()?;
        let scale = self.scale as f32;
        let mut y = vec![0.0; scores.len()];
        let all = y
            .par_chunks_mut(keys)
            .zip(scores.par_chunks(keys))
            .enumerate()
            .with_min_len(ROWS_PER_TASK);
        all.for_each(|(i, (y, scores))| {
            let visible = self.visible(i % rows, keys);
            let (y, scores) = (&mut y[..visible], &scores[..visible]);
            let largest = max(scores);
            for (y, x) in y.iter_mut().zip(scores) {
                *y = exp(scale * (x - largest));
            }
            let inverse = 1.0 / sum(y);
            for y in y {
                *y *= inverse;
            }
        });
        Ok(produced(y, layout.shape()))
    }

    /// d scores = scale · y · (dy − Σ y · dy).
    fn bwd(&self, scores: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, rows, keys) = scores.dims3()?;
        let scale = self.scale as f32;
        let dx = read2(y, dy, |y, dy| {
            let mut dx = vec![0.0; y.len()];
            let all = dx
                .par_chunks_mut(keys)
                .zip(y.par_chunks(keys))
                .zip(dy.par_chunks(keys));
            all.enumerate()
                .with_min_len(ROWS_PER_TASK)
                .for_each(|(i, ((dx, y), dy))| {
                    let visible = self.visible(i % rows, keys);
                    let (dx, y, dy) = (&mut dx[..visible], &y[..visible], &dy[..visible]);
                    let common = dot(y, dy);
                    for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
                        *dx = scale * y * (dy - common);
                    }
                });
            dx
        })?;
        Ok(Some(Tensor::from_vec(dx, scores.shape(), scores.device())?))
    }
}
