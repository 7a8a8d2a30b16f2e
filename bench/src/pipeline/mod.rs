//! How fast the stages from raw text to a dataset are, each in a process of its own.
//!
//! | module | what it does |
//! |---|---|
//! | [`text`] | made text, from a seed |
//! | `stages` | one stage over a file, and what it took |
//! | [`input`] | the documents that stages are given |

pub mod input;
mod stages;
pub mod text;

use serde::{Deserialize, Serialize};

pub use stages::{Plan, measure};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Files become documents.
    Read,
    /// The language and script of each document.
    Language,
    /// Gopher's quality and repetition, C4 and FineWeb.
    Filters,
    /// Documents that hold items of an evaluation: every hundredth line of the input.
    Decontaminate,
    /// Private data found and replaced.
    Pii,
    /// Nearly the same documents by MinHash, 14 bands of 8: signatures, bands, clusters.
    Minhash,
    /// Training of a tokenizer.
    Train,
    /// Text to tokens.
    Tokens,
    /// A whole build with the default settings.
    Build,
}

impl Stage {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Language => "language",
            Self::Filters => "filters",
            Self::Decontaminate => "decontaminate",
            Self::Pii => "pii",
            Self::Minhash => "minhash",
            Self::Train => "train",
            Self::Tokens => "tokens",
            Self::Build => "build",
        }
    }
}

/// What a process took for a stage, ours or a peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Took {
    /// Text, in UTF-8.
    pub bytes: u64,
    /// Documents.
    pub documents: u64,
    /// Documents that are left.
    pub kept: u64,
    /// Time on processors, of all threads of the process: other work on the machine is not in it.
    pub processor_seconds: f64,
    /// Time by the clock.
    pub seconds: f64,
    /// The most memory that was resident, from the start of the process on.
    pub peak_bytes: u64,
}

impl Took {
    /// Text for a second of a processor, in MB.
    #[must_use]
    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.processor_seconds
    }
}
