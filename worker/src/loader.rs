//! Positions of the sample order to batches.

use std::ops::Range;

use lockstep_data::{DataError, Dataset};
use lockstep_engine::order::SampleOrder;
use lockstep_engine::spec::Spec;

/// Reads what a lane needs. Its whole state is the dataset and the seed: positions are arguments.
#[derive(Debug)]
pub(crate) struct Loader {
    dataset: Dataset,
    order: SampleOrder,
    length: usize,
}

impl Loader {
    /// A loader over the training split, which must hold at least one step's samples.
    pub(crate) fn new(dataset: Dataset, spec: &Spec) -> Result<Self, DataError> {
        let length = spec.batch.sequence_length;
        let samples = dataset.train().require(spec.samples_per_step(), length)?;
        Ok(Self {
            dataset,
            order: SampleOrder::new(samples, spec.train.seed),
            length,
        })
    }

    pub(crate) fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The tokens of the samples at `positions`: one row of `length + 1` a sample.
    pub(crate) fn read(&self, positions: Range<u64>) -> Result<Vec<u32>, DataError> {
        let row = self.length + 1;
        let mut tokens = vec![0; row * (positions.end - positions.start) as usize];
        for (out, position) in tokens.chunks_exact_mut(row).zip(positions) {
            self.dataset.train().read(self.order.sample(position), out)?;
        }
        Ok(tokens)
    }
}
