//! Checkpoints: a folder `step-NNNNNNNN` that is whole or absent, and says so itself.
//!
//! It holds `shard-i-of-k.safetensors`, each with a contiguous range of the flat weights and moments, and
//! `manifest.json` with the digest of every shard and of itself. It is written under a temporary name, synced,
//! the manifest last, and renamed; a reader never sees half of one. Any number of shards loads into any number
//! of workers.
//!
//! | module | what |
//! |---|---|
//! | `manifest` | what a checkpoint says of itself |
//! | `writer` | writing one |
//! | `reader` | listing, verifying, loading, pruning |

mod manifest;
mod reader;
mod writer;

pub use manifest::{About, Manifest, NamedShape, Shard};
pub use reader::{Checkpoint, Found, Skipped, list, load, newest_valid, prune, verify};
pub use writer::{Writer, write};

use std::path::{Path, PathBuf};

use lockstep_engine::ids::Step;

/// Of the format that this build writes and reads.
pub const VERSION: u64 = 1;

const MANIFEST: &str = "manifest.json";
const TEMPORARY: &str = ".tmp-step-";

/// How a checkpoint is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// A file is not there.
    #[error("{file} is missing")]
    Missing {
        /// Its name.
        file: String,
    },
    /// A file has lost or gained bytes.
    #[error("{file} has {found} bytes, its manifest says {expected}")]
    Size {
        /// Its name.
        file: String,
        /// On disk.
        found: u64,
        /// As written.
        expected: u64,
    },
    /// Some byte changed.
    #[error("{file} has digest {found}, expected {expected}")]
    Digest {
        /// The file's name, or `the weights`.
        file: String,
        /// Of what is on disk.
        found: String,
        /// As written.
        expected: String,
    },
    /// A file cannot be understood.
    #[error("{file} cannot be read: {problem}")]
    Malformed {
        /// Its name.
        file: String,
        /// What the reader said.
        problem: String,
    },
}

/// The folder of a step's checkpoint.
#[must_use]
pub fn folder(dir: &Path, step: Step) -> PathBuf {
    dir.join(format!("step-{:08}", step.0))
}

/// The step that a folder's name says.
fn step_of(name: &str) -> Option<Step> {
    let digits = name.strip_prefix("step-")?;
    let valid = digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| digits.parse().ok().map(Step)).flatten()
}
