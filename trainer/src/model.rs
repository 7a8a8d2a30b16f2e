//! What a model must offer to be trained: bring your own, or take [`Llama`](crate::Llama).

use std::ops::Range;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Storage, Tensor, Var};

use crate::batch::Batch;
use crate::error::{ComputeContext, Result, TrainerError};
use crate::layout::Layout;

/// A model whose parameters are `f32` variables and whose loss candle can differentiate.
///
/// The loss must be a pure function of parameters and batch, with the same bits whatever the number of threads:
/// candle's matrix products, elementwise operations and reductions are. Beware of candle's operations that
/// have no backward and do not say so (`softmax_last_dim`, the fused `rms_norm`, `rope`); a parameter that gets
/// no gradient at all is an error, one that gets a part of it cannot be noticed.
pub trait Model: Send + Sync {
    /// Names and variables. The order is the order of the flat buffers; it must never change.
    fn parameters(&self) -> &[(String, Var)];

    /// The mean loss per target of `batch`, a scalar in nats.
    ///
    /// # Errors
    /// Whatever candle reports.
    fn loss(&self, batch: &Batch) -> candle_core::Result<Tensor>;

    /// The sum over targets of the loss of `batch`, in nats, without keeping what a backward would need.
    ///
    /// # Errors
    /// Whatever candle reports.
    fn nll(&self, batch: &Batch) -> candle_core::Result<f64> {
        let loss = self
            .loss(batch)?
            .detach()
            .to_dtype(DType::F64)?
            .to_scalar::<f64>()?;
        Ok(loss * batch.tokens() as f64)
    }

    /// Whether weight decay applies to a parameter: by default to matrices that are not embeddings.
    fn decays(&self, name: &str, shape: &[usize]) -> bool {
        shape.len() >= 2 && !name.contains("embed")
    }

    /// Consecutive ranges of parameter indices whose gradients are reduced together; by default one of all.
    fn buckets(&self) -> Vec<Range<usize>> {
        std::iter::once(0..self.parameters().len()).collect()
    }

    /// Adds the gradient of [`Model::loss`] to the flat buffer `gradient`, elementwise, and returns the mean
    /// loss. By default candle's autograd; a model with a backward of its own does it here.
    ///
    /// # Errors
    /// [`TrainerError::NoGradient`] when a parameter gets none, [`TrainerError::Compute`] from candle.
    fn accumulate(&self, batch: &Batch, layout: &Layout, gradient: &mut [f32]) -> Result<f32> {
        let loss = self.loss(batch).doing("compute the loss")?;
        let gradients = loss.backward().doing("compute the gradient")?;
        for (parameter, (name, var)) in layout.parameters().iter().zip(self.parameters()) {
            add_gradient(&gradients, name, var, &mut gradient[parameter.range.clone()])?;
        }
        loss.to_dtype(DType::F32)
            .and_then(|loss| loss.to_scalar())
            .doing("read the loss")
    }
}

impl<M: Model + ?Sized> Model for Box<M> {
    fn parameters(&self) -> &[(String, Var)] {
        (**self).parameters()
    }
    fn loss(&self, batch: &Batch) -> candle_core::Result<Tensor> {
        (**self).loss(batch)
    }
    fn nll(&self, batch: &Batch) -> candle_core::Result<f64> {
        (**self).nll(batch)
    }
    fn decays(&self, name: &str, shape: &[usize]) -> bool {
        (**self).decays(name, shape)
    }
    fn buckets(&self) -> Vec<Range<usize>> {
        (**self).buckets()
    }
    fn accumulate(&self, batch: &Batch, layout: &Layout, gradient: &mut [f32]) -> Result<f32> {
        (**self).accumulate(batch, layout, gradient)
    }
}

fn add_gradient(gradients: &GradStore, name: &str, var: &Var, into: &mut [f32]) -> Result<()> {
    let found = gradients.get(var).ok_or_else(|| TrainerError::NoGradient {
        parameter: name.to_owned(),
    })?;
    let found = found
        .to_dtype(DType::F32)
        .and_then(|g| g.contiguous())
        .doing("read a gradient")?;
    let (storage, place) = found.storage_and_layout();
    match (&*storage, place.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => add(into, &values[start..end]),
        _ => {
            drop(storage);
            let values = found
                .flatten_all()
                .and_then(|g| g.to_vec1())
                .doing("fetch a gradient")?;
            add(into, &values);
        }
    }
    Ok(())
}

fn add(into: &mut [f32], values: &[f32]) {
    for (sum, value) in into.iter_mut().zip(values) {
        *sum += value;
    }
}
