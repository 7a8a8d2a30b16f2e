//! Positions of the sample order to batches.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{io, thread};

use lockstep_data::{DataError, Dataset};
use lockstep_engine::order::SampleOrder;
use lockstep_engine::spec::Spec;

/// Reads what a lane needs, and what it will need next while it computes. Its whole state is the dataset and the seed:
/// positions are arguments.
pub(crate) struct Loader {
    source: Arc<Source>,
    /// Positions that are read ahead, if any are.
    expected: Option<Range<u64>>,
    ahead: SyncSender<Range<u64>>,
    read: Receiver<Result<Vec<u32>, DataError>>,
}

struct Source {
    dataset: Dataset,
    order: SampleOrder,
    length: usize,
}

impl Source {
    /// The tokens of the samples at `positions`: one row of `length + 1` a sample.
    fn read(&self, positions: Range<u64>) -> Result<Vec<u32>, DataError> {
        let row = self.length + 1;
        let mut tokens = vec![0; row * (positions.end - positions.start) as usize];
        for (out, position) in tokens.chunks_exact_mut(row).zip(positions) {
            self.dataset.train().read(self.order.sample(position), out)?;
        }
        Ok(tokens)
    }
}

impl Loader {
    /// A loader over the training split, which must hold at least one step's samples. Reads ahead in a thread of its own.
    pub(crate) fn new(dataset: Dataset, spec: &Spec) -> Result<Self, DataError> {
        let length = spec.batch.sequence_length;
        let samples = dataset.train().require(spec.samples_per_step(), length)?;
        let source = Arc::new(Source {
            dataset,
            order: SampleOrder::new(samples, spec.train.seed),
            length,
        });
        let (ahead, asked) = sync_channel::<Range<u64>>(1);
        let (answer, read) = sync_channel(1);
        let shared = source.clone();
        let work = move || {
            for positions in asked {
                if answer.send(shared.read(positions)).is_err() {
                    return;
                }
            }
        };
        // Without the thread, everything is read when it is needed.
        let started = thread::Builder::new().name("loader".to_owned()).spawn(work);
        if let Err(error) = started.map(drop) {
            warn(&error);
        }
        Ok(Self {
            source,
            expected: None,
            ahead,
            read,
        })
    }

    pub(crate) fn dataset(&self) -> &Dataset {
        &self.source.dataset
    }

    /// The tokens of the samples at `positions`: one row of `length + 1` a sample. Then reads those at `next` ahead.
    pub(crate) fn read(
        &mut self,
        positions: Range<u64>,
        next: Option<Range<u64>>,
    ) -> Result<Vec<u32>, DataError> {
        let ahead = self.expected.take().and_then(|expected| {
            let tokens = self.read.recv().ok()?;
            (expected == positions).then_some(tokens)
        });
        self.expected = next.filter(|next| self.ahead.send(next.clone()).is_ok());
        ahead.unwrap_or_else(|| self.source.read(positions))
    }
}

fn warn(error: &io::Error) {
    tracing::warn!("cannot read batches ahead: {error}");
}
