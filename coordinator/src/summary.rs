//! `summary.json`: what a finished run was, measured.

use std::path::Path;

use lockstep_engine::ledger::{Entry, audit};
use lockstep_engine::spec::Spec;
use serde::{Deserialize, Serialize};

use crate::store::Store;

/// What the coordinator saw besides the ledger.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) kills: u64,
    pub(crate) recoveries_ms: Vec<f64>,
    pub(crate) epochs: u64,
    pub(crate) weights: String,
    pub(crate) wall_seconds: f64,
    pub(crate) evaluation: Option<Evaluation>,
}

/// How well the final weights predict the validation text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Of the model.
    pub bits_per_byte: f64,
    /// Of `gzip -9` on the same text.
    pub gzip_bits_per_byte: f64,
}

/// A finished run. Samples are counted from the ledger of committed steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Committed steps.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Positions of the sample order that were used.
    pub samples: u64,
    /// Positions that should have been used and were not.
    pub samples_missed: u64,
    /// Uses beyond the first.
    pub samples_repeated: u64,
    /// Mean loss of the first step that has one, in nats a token: one that was skipped unseen has none.
    pub loss_first: f64,
    /// Mean loss of the last step that has one.
    pub loss_last: f64,
    /// Of the final weights on the held-out text.
    pub val_bits_per_byte: f64,
    /// Of `gzip -9` on the same text.
    pub gzip_bits_per_byte: f64,
    /// Fewest members at any commit.
    pub workers_min: u32,
    /// Most members at any commit.
    pub workers_max: u32,
    /// SIGKILLs sent.
    pub kills: u64,
    /// From each loss (or kill) to the next commit.
    pub recoveries_ms: Vec<f64>,
    /// Membership generations.
    pub epochs: u64,
    /// Over all commits.
    pub tokens_per_second: f64,
    /// Median time from commit to commit.
    pub step_ms_median: f64,
    /// Over the final f32 weights in parameter order, little endian.
    pub weights_blake3: String,
    /// From submission to the end.
    pub wall_seconds: f64,
}

impl Summary {
    pub(crate) fn new(spec: &Spec, ledger: &[Entry], seen: Seen) -> Self {
        let audit = audit(ledger, spec.train.steps * spec.samples_per_step());
        let tokens = audit.used * spec.batch.sequence_length as u64;
        let mut times: Vec<f64> = ledger.iter().map(|entry| entry.milliseconds).collect();
        times.sort_by(f64::total_cmp);
        let seconds = times.iter().sum::<f64>() / 1e3;
        let loss = |entry: Option<&Entry>| entry.map_or(f64::NAN, |entry| f64::from(entry.loss));
        let evaluation = seen.evaluation.unwrap_or_default();
        Self {
            steps: ledger.len() as u64,
            tokens,
            samples: audit.used,
            samples_missed: audit.missed,
            samples_repeated: audit.repeated,
            loss_first: loss(ledger.iter().find(|entry| entry.loss.is_finite())),
            loss_last: loss(ledger.iter().rfind(|entry| entry.loss.is_finite())),
            val_bits_per_byte: evaluation.bits_per_byte,
            gzip_bits_per_byte: evaluation.gzip_bits_per_byte,
            workers_min: ledger.iter().map(|entry| entry.workers).min().unwrap_or(0),
            workers_max: ledger.iter().map(|entry| entry.workers).max().unwrap_or(0),
            kills: seen.kills,
            recoveries_ms: seen.recoveries_ms,
            epochs: seen.epochs,
            tokens_per_second: if seconds > 0.0 {
                tokens as f64 / seconds
            } else {
                0.0
            },
            step_ms_median: times.get(times.len() / 2).copied().unwrap_or(0.0),
            weights_blake3: seen.weights,
            wall_seconds: seen.wall_seconds,
        }
    }
}

/// Writes `summary.json` in the run's folder, from the ledger: all records must be written before. Gives it as JSON.
pub(crate) async fn write(
    store: &dyn Store,
    spec: &Spec,
    out: &Path,
    seen: Seen,
) -> Result<serde_json::Value, String> {
    let ledger = store
        .ledger(&spec.job.name)
        .await
        .map_err(|error| error.to_string())?;
    let summary = Summary::new(spec, &ledger, seen);
    let value = serde_json::to_value(&summary).map_err(|error| error.to_string())?;
    let text = serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?;
    let path = out.join("summary.json");
    let temporary = path.with_extension("tmp");
    let written = async {
        tokio::fs::write(&temporary, text).await?;
        tokio::fs::rename(&temporary, &path).await
    };
    written
        .await
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(value)
}
