//! Checkpoints: a folder `step-NNNNNNNN` that is whole or absent, and says so itself.
//!
//! It holds `shard-i-of-k.safetensors`, each with a contiguous range of the flat weights and moments, and
//! `manifest.json` with the digest of every shard and of itself. It is written under a temporary name, synced,
//! the manifest last, and renamed; a reader never sees half of one. Any number of shards loads into any number
//! of workers.
//!
//! Each of the `k` members of an epoch lends its part of the state ([`Piece::of`]) to a thread of its own that writes it
//! ([`Background`], [`Attempt::write`]), and trains on until it has the values back ([`Piece::let_go`]), which it has before
//! the state changes, however slow the disk is. When all have reported, one member makes a checkpoint of it
//! ([`Attempt::seal`]), prunes, and copies it elsewhere ([`Mirror`]). A crash at any point leaves every other checkpoint as
//! it was, and a temporary folder that a later one removes.
//!
//! | module | what |
//! |---|---|
//! | `manifest` | what a checkpoint says of itself |
//! | `piece` | one member's part of the state |
//! | `tree` | the digest of all weights from those of the parts |
//! | `attempt` | writing shards, and sealing them |
//! | `temporary` | the names that readers pass over |
//! | `reader` | listing, verifying, loading |
//! | `retention` | which ones stay |
//! | `mirror` | copies at a target, there and back |
//! | `background` | the thread that does all that |

mod attempt;
mod background;
mod manifest;
mod mirror;
mod piece;
mod reader;
mod retention;
mod temporary;
mod tree;

pub use attempt::{Attempt, Report, write};
pub use background::{Background, Done, Job, Refused};
pub use manifest::{About, Manifest, NamedShape, Shard};
pub use mirror::{Failed, Fetched, Mirror, Mirrored, fetch};
pub use piece::{Piece, part};
pub use reader::{Checkpoint, Found, Skipped, glance, list, load, newest_valid, read_manifest, verify};
pub use retention::{Policy, prune, retained};

use std::path::{Path, PathBuf};

use lockstep_engine::ids::Step;

/// Of the format that this build writes and reads.
pub const VERSION: u64 = 1;

const MANIFEST: &str = "manifest.json";

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
    dir.join(folder_name(step))
}

fn folder_name(step: Step) -> String {
    format!("step-{:08}", step.0)
}

/// The step that a folder's name says.
fn step_of(name: &str) -> Option<Step> {
    let digits = name.strip_prefix("step-")?;
    let valid = digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| digits.parse().ok().map(Step)).flatten()
}
