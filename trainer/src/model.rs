//! What a model must offer to be trained through candle's autograd: bring your own.

use std::ops::Range;

use candle_core::{DType, Tensor, Var};

use crate::batch::Batch;
use crate::error::{ComputeContext, Result, TrainerError};
use crate::layout::{self, Layout};
use crate::network::{Flat, Gradient, Network};
use crate::tensors;

/// A model whose parameters are `f32` variables and whose loss candle can differentiate.
///
/// The loss must be a pure function of parameters and batch, with the same bits whatever the number of threads:
/// candle's matrix products, elementwise operations and reductions are, on one kind of processor: the products' blocks depend on
/// the caches. Beware of candle's operations that
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
        layout::decays(name, shape)
    }

    /// Consecutive ranges of parameter indices whose gradients are reduced together; by default one of all.
    fn buckets(&self) -> Vec<Range<usize>> {
        std::iter::once(0..self.parameters().len()).collect()
    }
}

impl<M: Model> Network for M {
    fn layout(&self) -> Result<Layout> {
        let parameters = self.parameters().iter().map(|(name, var)| {
            let shape = var.dims().to_vec();
            let decays = self.decays(name, &shape);
            (name.clone(), shape, decays)
        });
        Layout::new(parameters, &self.buckets())
    }

    fn initial(&self, layout: &Layout) -> Result<Vec<f32>> {
        let mut weights = layout.zeros();
        for (parameter, (name, var)) in layout.parameters().iter().zip(self.parameters()) {
            if var.dtype() != DType::F32 {
                let problem = format!("parameter `{name}` is {:?}, only F32 is trained", var.dtype());
                return Err(TrainerError::Shape { problem });
            }
            let into = &mut weights[parameter.range.clone()];
            tensors::read(var, |values| into.copy_from_slice(values)).doing("read the initial weights")?;
        }
        Ok(weights)
    }

    fn take(&mut self, flat: Flat<'_>) -> Result<()> {
        for (parameter, (_, var)) in flat.layout.parameters().iter().zip(self.parameters()) {
            let values = &flat.weights[parameter.range.clone()];
            Tensor::from_slice(values, var.shape(), var.device())
                .and_then(|tensor| var.set(&tensor))
                .doing("move weights into the model")?;
        }
        Ok(())
    }

    fn accumulate(&self, flat: Flat<'_>, batch: &Batch, gradient: &mut dyn Gradient) -> Result<f32> {
        let loss = self.loss(batch).doing("compute the loss")?;
        let gradients = loss.backward().doing("compute the gradient")?;
        for (parameter, (name, var)) in flat.layout.parameters().iter().zip(self.parameters()) {
            let found = gradients.get(var).ok_or_else(|| TrainerError::NoGradient {
                parameter: name.clone(),
            })?;
            tensors::add(found, gradient.at(parameter.range.clone())).doing("read a gradient")?;
        }
        (0..flat.layout.buckets().len()).for_each(|bucket| gradient.done(bucket));
        loss.to_dtype(DType::F32)
            .and_then(|loss| loss.to_scalar())
            .doing("read the loss")
    }

    fn nll(&self, _: Flat<'_>, batch: &Batch) -> Result<f64> {
        Model::nll(self, batch).doing("evaluate a batch")
    }
}
