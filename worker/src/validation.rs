//! How well the final weights predict the held-out text.

use lockstep_data::Dataset;
use lockstep_engine::spec::Spec;
use lockstep_trainer::{Batch, Device, Evaluation, Network, Trainer, TrainerError};

/// Scores every token of the validation split once, in windows of the training length, the first after an end of
/// text. `None` where nothing was held out.
pub(crate) fn evaluate(
    trainer: &Trainer<Box<dyn Network>>,
    dataset: &Dataset,
    spec: &Spec,
    device: &Device,
) -> Result<Option<Evaluation>, String> {
    let mut tokens = vec![dataset.manifest().eos_id];
    tokens.extend(
        dataset
            .validation()
            .read_all()
            .map_err(|error| error.to_string())?,
    );
    if tokens.len() < 2 {
        return Ok(None);
    }
    let (length, rows) = (spec.batch.sequence_length, spec.batch.sequences as usize);
    let whole = (tokens.len() - 1) / length;
    let window = |index: usize| &tokens[index * length..=(index + 1) * length];
    let full = (0..whole).step_by(rows).map(|first| {
        let count = rows.min(whole - first);
        let batch: Vec<u32> = (first..first + count).flat_map(window).copied().collect();
        Batch::new(&batch, count, device)
    });
    let rest = &tokens[whole * length..];
    let last = (rest.len() > 1).then(|| Batch::new(rest, 1, device));
    let score = |batches: &mut dyn Iterator<Item = Result<Batch, TrainerError>>| trainer.evaluate(batches);
    score(&mut full.chain(last))
        .map(Some)
        .map_err(|error| error.to_string())
}
