//! What can go wrong, in kinds that a caller branches on.

use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::Corruption;

/// Any failure of this crate. Each kind is one that a caller treats in its own way.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// An operation on tensors failed.
    #[error("{action}: {source}")]
    Compute {
        /// Verb and object.
        action: &'static str,
        /// What candle said.
        source: candle_core::Error,
    },
    /// A device was named that this build or this machine does not have.
    #[error("device `{device}`: {problem}")]
    Device {
        /// As given.
        device: String,
        /// What is wrong and what to use instead.
        problem: String,
    },
    /// A batch that the model cannot take.
    #[error("batch: {problem}")]
    Batch {
        /// Which bound is broken.
        problem: String,
    },
    /// A model whose parameters cannot be laid out or whose files do not fit it.
    #[error("model shape: {problem}")]
    Shape {
        /// Which parameter, what was expected, what was found.
        problem: String,
    },
    /// Backward left a parameter without a gradient: some operation on its path has no backward.
    #[error(
        "parameter `{parameter}` got no gradient; use only operations with a backward between it and the loss"
    )]
    NoGradient {
        /// The parameter's name.
        parameter: String,
    },
    /// The gradient holds an infinity or a NaN. Nothing was changed.
    #[error(
        "the gradient of step {step} is not finite; weights are unchanged: lower optim.learning_rate or resume \
         from an earlier checkpoint"
    )]
    NonFiniteGradient {
        /// The step that was not taken.
        step: u64,
    },
    /// A flat buffer of the wrong length.
    #[error("{what} holds {found} values, the layout has {expected}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The layout's.
        expected: usize,
    },
    /// A checkpoint of another run: another model, numerics or data.
    #[error("checkpoint {path}: {what} is {found}, this run has {expected}; resume with the run's own spec")]
    Mismatch {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What differs.
        what: String,
        /// In the checkpoint.
        found: String,
        /// In the run.
        expected: String,
    },
    /// A checkpoint that fails its digests or is incomplete.
    #[error("checkpoint {path}: {corruption}; resume from another one or delete it")]
    Corrupt {
        /// The checkpoint's folder.
        path: PathBuf,
        /// Which file, and how it is wrong.
        corruption: Corruption,
    },
    /// A checkpoint written in a format that this build does not read.
    #[error(
        "checkpoint {path}: format version {found}, this build reads {expected}; use the build that wrote it"
    )]
    Version {
        /// The checkpoint's folder.
        path: PathBuf,
        /// In its manifest.
        found: u64,
        /// Of this build.
        expected: u64,
    },
    /// A folder that does not hold an exported model that this crate can run.
    #[error("{path} is not a model that can be loaded: {problem}")]
    NotAModel {
        /// The folder.
        path: PathBuf,
        /// What is missing or wrong, and what would be right.
        problem: String,
    },
    /// A tokenizer that cannot be read or used.
    #[error("tokenizer {path}: {problem}")]
    Tokenizer {
        /// Its file.
        path: PathBuf,
        /// What the reader said.
        problem: String,
    },
    /// A setting out of its bounds.
    #[error("{field} = {value}: must be {bound}")]
    Setting {
        /// Its name.
        field: &'static str,
        /// As given.
        value: String,
        /// What is allowed.
        bound: &'static str,
    },
    /// A place that must be empty or absent holds something that is not ours to replace.
    #[error("{path} exists and is not {what}; name another folder or remove it")]
    Occupied {
        /// The place.
        path: PathBuf,
        /// What could have been replaced.
        what: &'static str,
    },
    /// A place for copies of checkpoints that cannot be used, at least not now.
    #[error("checkpoint.target {target}: {action}: {problem}")]
    Target {
        /// As in the spec.
        target: String,
        /// Verb and object.
        action: String,
        /// What it said.
        problem: String,
    },
    /// The disk is full. What was written so far was removed.
    #[error("{action} {path}: no space left on the device; free some or lower checkpoint.keep")]
    DiskFull {
        /// Verb and object.
        action: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Any other failure of reading or writing.
    #[error("{action} {path}: {source}")]
    Storage {
        /// Verb and object.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Shorthand for a result of this crate.
pub type Result<T, E = TrainerError> = std::result::Result<T, E>;

/// Names what was being computed.
pub(crate) trait ComputeContext<T> {
    fn doing(self, action: &'static str) -> Result<T>;
}

impl<T> ComputeContext<T> for candle_core::Result<T> {
    fn doing(self, action: &'static str) -> Result<T> {
        self.map_err(|source| TrainerError::Compute { action, source })
    }
}

/// Names the file that was being read or written, and tells a full disk from other failures.
pub(crate) trait StorageContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> StorageContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    TrainerError::DiskFull { action, path }
                }
                _ => TrainerError::Storage { action, path, source },
            }
        })
    }
}
