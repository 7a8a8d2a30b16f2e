//! What can go wrong, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why duplicates could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DedupError {
    /// A file could not be read or written.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file is not what was once written.
    #[error("read {}: {damage}; remove it and run the task that makes it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: &'static str,
    },
    /// A file was made under other settings than are asked for, or of other documents.
    #[error("read {}: made with other settings or of other documents; remove it and run the task that makes it again", path.display())]
    OtherSettings {
        /// The file.
        path: PathBuf,
    },
    /// More documents than ordinals.
    #[error(
        "deduplicate {documents} documents: at most {} at once; split the corpus",
        u32::MAX
    )]
    TooManyDocuments {
        /// How many there are.
        documents: u64,
    },
    /// Not every document has a rank, or there are more ranks than documents.
    #[error(
        "choose what to keep: {ranked} ranks for {documents} documents; give the parts that the edges are of"
    )]
    Ranks {
        /// How many ranks were given.
        ranked: u64,
        /// How many documents there are.
        documents: u32,
    },
    /// A setting is out of its bounds.
    #[error("{0}")]
    Setting(String),
}

impl DedupError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn damaged(path: &Path, damage: &'static str) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            damage,
        }
    }
}
