//! What a trainer trains.

use std::ops::Range;

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

/// A flat gradient under way, in buckets.
///
/// A bucket may leave as soon as it is done, while those before it are still computed. Slices of all values do nothing
/// then.
pub trait Gradient {
    /// The values in a range of the flat buffer that lies in one bucket that is not done, to be added to.
    fn at(&mut self, range: Range<usize>) -> &mut [f32];

    /// Nothing more is added to the bucket of this index in [`Layout::buckets`].
    fn done(&mut self, bucket: usize);
}

impl Gradient for &mut [f32] {
    fn at(&mut self, range: Range<usize>) -> &mut [f32] {
        &mut self[range]
    }

    fn done(&mut self, _: usize) {}
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

    /// Adds the gradient of the mean loss per target to `gradient`, and returns that loss, in nats. Says once of each
    /// bucket that it is done, as early as it can.
    ///
    /// # Errors
    /// [`TrainerError::Compute`](crate::TrainerError::Compute),
    /// [`TrainerError::NoGradient`](crate::TrainerError::NoGradient).
    fn accumulate(&self, flat: Flat<'_>, batch: &Batch, gradient: &mut dyn Gradient) -> Result<f32>;

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
    fn accumulate(&self, flat: Flat<'_>, batch: &Batch, gradient: &mut dyn Gradient) -> Result<f32> {
        (**self).accumulate(flat, batch, gradient)
    }
    fn nll(&self, flat: Flat<'_>, batch: &Batch) -> Result<f64> {
        (**self).nll(flat, batch)
    }
}
