//! What a trainer trains.

use crate::batch::Batch;
use crate::error::Result;
use crate::layout::Layout;

/// Flat weights, and where each parameter lies in them.
#[derive(Clone, Copy, Debug)]
pub struct Flat<'a> {
    /// Where.
    pub layout: &'a Layout,
    /// The values.
    pub weights: &'a [f32],
}

/// Flat weights in, losses and flat gradients out: the built-in [`Decoder`](crate::Decoder), or any
/// [`Model`](crate::Model) through candle's autograd.
///
/// Everything is a pure function of weights and batch, with the same bits whatever the number of threads.
pub trait Network: Send + Sync {
    /// Its parameters and buckets.
    ///
    /// # Errors
    /// [`TrainerError::Shape`](crate::TrainerError::Shape) when they make no sense.
    fn layout(&self) -> Result<Layout>;

    /// The weights to begin with.
    ///
    /// # Errors
    /// [`TrainerError::Compute`](crate::TrainerError::Compute) from the device.
    fn initial(&self, layout: &Layout) -> Result<Vec<f32>>;

    /// Learns that the weights have changed.
    ///
    /// # Errors
    /// [`TrainerError::Compute`](crate::TrainerError::Compute) from the device.
    fn take(&mut self, flat: Flat<'_>) -> Result<()>;

    /// Adds the gradient of the mean loss per target to `gradient`, which is as long as the weights, and returns that
    /// loss, in nats.
    ///
    /// # Errors
    /// [`TrainerError::Compute`](crate::TrainerError::Compute),
    /// [`TrainerError::NoGradient`](crate::TrainerError::NoGradient).
    fn accumulate(&self, flat: Flat<'_>, batch: &Batch, gradient: &mut [f32]) -> Result<f32>;

    /// The sum over targets of the loss, in nats.
    ///
    /// # Errors
    /// [`TrainerError::Compute`](crate::TrainerError::Compute).
    fn nll(&self, flat: Flat<'_>, batch: &Batch) -> Result<f64>;
}

impl Network for Box<dyn Network> {
    fn layout(&self) -> Result<Layout> {
        (**self).layout()
    }
    fn initial(&self, layout: &Layout) -> Result<Vec<f32>> {
        (**self).initial(layout)
    }
    fn take(&mut self, flat: Flat<'_>) -> Result<()> {
        (**self).take(flat)
    }
    fn accumulate(&self, flat: Flat<'_>, batch: &Batch, gradient: &mut [f32]) -> Result<f32> {
        (**self).accumulate(flat, batch, gradient)
    }
    fn nll(&self, flat: Flat<'_>, batch: &Batch) -> Result<f64> {
        (**self).nll(flat, batch)
    }
}
