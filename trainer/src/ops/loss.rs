//! Cross entropy in nats: `ln Σ exp(logits) − logits[target]`.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::numeric::{exp, max, sum};
use super::{is_fused, produced, read, slice};
use crate::batch::Batch;

/// The mean over the batch's targets of `logits` (tokens, vocabulary); a scalar.
pub(crate) fn mean_cross_entropy(logits_nv: &Tensor, batch: &Batch) -> Result<Tensor> {
    if !is_fused(logits_nv) {
        return composed(logits_nv, batch);
    }
    let op = CrossEntropy {
        targets: batch.target_ids().into(),
        normalisers: Arc::default(),
    };
    logits_nv.contiguous()?.apply_op1(op)
}

/// The same of candle's own operations.
pub(super) fn composed(logits_nv: &Tensor, batch: &Batch) -> Result<Tensor> {
    candle_nn::loss::cross_entropy(logits_nv, &batch.targets().flatten_all()?)
}

struct CrossEntropy {
    targets: Arc<[u32]>,
    /// ln Σ exp of each row, kept for the backward.
    normalisers: Arc<OnceLock<Vec<f32>>>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = slice(storage, layout)?;
        let (rows, vocabulary) = layout.shape().dims2()?;
        if rows != self.targets.len() {
            bail!("{rows} rows of logits for {} targets", self.targets.len());
        }
        if let Some(target) = self.targets.iter().find(|&&target| target as usize >= vocabulary) {
            bail!("target {target} is outside the vocabulary of {vocabulary}");
        }
        let normaliser = |scratch: &mut Vec<f32>, row: &[f32]| {
            let largest = max(row);
            scratch.clear();
            scratch.extend(row.iter().map(|x| exp(x - largest)));
            largest + sum(scratch).ln()
        };
        let normalisers: Vec<f32> = logits
            .par_chunks(vocabulary)
            .map_init(|| Vec::with_capacity(vocabulary), normaliser)
            .collect();
        let rows_in_order = logits
            .chunks_exact(vocabulary)
            .zip(&*self.targets)
            .zip(&normalisers);
        let total: f64 = rows_in_order
            .map(|((row, &t), n)| f64::from(n - row[t as usize]))
            .sum();
        let mean = (total / rows as f64) as f32;
        // Set once: an operation runs forward once.
        let _ = self.normalisers.set(normalisers);
        Ok(produced(vec![mean], ()))
    }

    /// d logits = (softmax − one-hot target) · dy / rows.
    fn bwd(&self, logits: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let Some(normalisers) = self.normalisers.get() else {
            bail!("backward of cross-entropy before forward")
        };
        let (rows, vocabulary) = logits.dims2()?;
        let scale = dy.to_scalar::<f32>()? / rows as f32;
        let dx = read(logits, |logits| {
            let mut dx = vec![0.0; logits.len()];
            let all = dx.par_chunks_mut(vocabulary).zip(logits.par_chunks(vocabulary));
            all.zip(&*self.targets)
                .zip(normalisers)
                .for_each(|(((dx, row), &target), normaliser)| {
                    for (dx, x) in dx.iter_mut().zip(row) {
                        *dx = scale * exp(x - normaliser);
                    }
                    dx[target as usize] -= scale;
                });
            dx
        })?;
        Ok(Some(Tensor::from_vec(dx, logits.shape(), logits.device())?))
    }
}
