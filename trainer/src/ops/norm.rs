//! RMSNorm (Zhang and Sennrich, 2019): `y = w · x / sqrt(mean(x²) + ε)` over the last axis.

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::numeric::dot;
use super::{ROWS_PER_TASK, is_fused, produced, read, read2, slice};

struct RmsNorm {
    eps: f32,
}

/// `x` (n, d) and `w` (d) to (n, d).
pub(crate) fn rms_norm(x_nd: &Tensor, w_d: &Tensor, eps: f64) -> Result<Tensor> {
    if is_fused(x_nd) {
        return x_nd.contiguous()?.apply_op2(w_d, RmsNorm { eps: eps as f32 });
    }
    composed(x_nd, w_d, eps)
}

/// The same of candle's own operations.
pub(super) fn composed(x_nd: &Tensor, w_d: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = x_nd.sqr()?.mean_keepdim(D::Minus1)?;
    x_nd.broadcast_div(&(mean + eps)?.sqrt()?)?.broadcast_mul(w_d)
}

impl RmsNorm {
    fn inverse(&self, x: &[f32]) -> f32 {
        1.0 / (dot(x, x) / x.len() as f32 + self.eps).sqrt()
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (slice(s1, l1)?, slice(s2, l2)?);
        let d = w.len();
        let mut y = vec![0.0; x.len()];
        let rows = y
            .par_chunks_mut(d)
            .zip(x.par_chunks(d))
            .with_min_len(ROWS_PER_TASK);
        rows.for_each(|(y, x)| {
            let inverse = self.inverse(x);
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = w * (x * inverse);
            }
        });
        Ok(produced(y, l1.shape()))
    }

    /// With r = 1 / sqrt(mean(x²) + ε) and g = w · dy:
    /// dx = r · (g − x · r² · mean(g · x)), dw = Σ over rows of dy · x · r.
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = read(w, |w| read2(x, dy, |x, dy| self.backward(x, w, dy)))??;
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            Some(Tensor::from_vec(dw, w.shape(), w.device())?),
        ))
    }
}

impl RmsNorm {
    fn backward(&self, x: &[f32], w: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let d = w.len();
        let block = ROWS_PER_TASK * d;
        let mut dx = vec![0.0; x.len()];
        // One partial sum of dw for every block of rows, added up in order.
        let blocks = dx
            .par_chunks_mut(block)
            .zip(x.par_chunks(block))
            .zip(dy.par_chunks(block));
        let partials: Vec<Vec<f32>> = blocks
            .map(|((dx, x), dy)| {
                let mut dw = vec![0.0; d];
                let mut g = vec![0.0; d];
                let rows = dx
                    .chunks_exact_mut(d)
                    .zip(x.chunks_exact(d))
                    .zip(dy.chunks_exact(d));
                for ((dx, x), dy) in rows {
                    let inverse = self.inverse(x);
                    for ((g, w), dy) in g.iter_mut().zip(w).zip(dy) {
                        *g = w * dy;
                    }
                    let pull = inverse * inverse * (dot(&g, x) / d as f32);
                    for ((dx, x), g) in dx.iter_mut().zip(x).zip(&g) {
                        *dx = inverse * (g - x * pull);
                    }
                    for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
                        *dw += dy * (x * inverse);
                    }
                }
                dw
            })
            .collect();
        let mut dw = vec![0.0; d];
        for partial in partials {
            for (sum, x) in dw.iter_mut().zip(partial) {
                *sum += x;
            }
        }
        (dx, dw)
    }
}
