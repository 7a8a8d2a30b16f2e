//! What can go wrong, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::skip::Skipped;

/// Why a dataset could not be built, opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The corpus is not there.
    #[error("corpus {}: no such folder; check the path", path.display())]
    CorpusMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Cargo's home is unknown, so its registry is too.
    #[error("find cargo's registry: neither CARGO_HOME nor HOME is set; set one, or give the folder")]
    NoCargoHome,
    /// The corpus is a file.
    #[error("corpus {}: not a folder; put the file in a folder of its own and give that", path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused access.
    #[error("{action} {}: permission denied; run as a user with access, or change its mode", path.display())]
    PermissionDenied {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The corpus holds no text.
    #[error("corpus {}: holds no text (left out: {skipped}); give a folder with UTF-8 text files", path.display())]
    NoText {
        /// The corpus.
        path: PathBuf,
        /// What it holds instead.
        skipped: Skipped,
    },
    /// No document fits in the budget.
    #[error(
        "max_bytes = {max_bytes}: no document fits; raise it to at least {smallest_bytes}, the size of the smallest"
    )]
    BudgetTooSmall {
        /// The budget.
        max_bytes: u64,
        /// The size of the smallest document.
        smallest_bytes: u64,
    },
    /// An option is out of its bounds.
    #[error("{name} = {value}: must be {bound}")]
    InvalidOption {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        bound: String,
    },
    /// The corpus is too small for a vocabulary of this size.
    #[error(
        "corpus too small for vocab_size = {vocab_size}: its {sample_bytes} bytes of training text yield \
         {reached} tokens; lower model.vocab_size to at most {reached}, or add text"
    )]
    CorpusTooSmall {
        /// Tokens wanted.
        vocab_size: usize,
        /// Tokens that the corpus yields.
        reached: usize,
        /// Bytes of text that the tokenizer learned from.
        sample_bytes: u64,
    },
    /// A split holds less than one batch.
    #[error(
        "corpus smaller than one batch: the {split} split holds {tokens} tokens, one batch needs {needed}; \
         add text, or lower batch.sequence_length, batch.microbatches or batch.sequences"
    )]
    NotEnoughTokens {
        /// `train` or `validation`.
        split: &'static str,
        /// Tokens there are.
        tokens: u64,
        /// Tokens that one batch needs.
        needed: u64,
    },
    /// A file of the corpus changed while the build ran.
    #[error("read {}: it changed while the dataset was built; build again once it is left alone", path.display())]
    CorpusChanged {
        /// The file.
        path: PathBuf,
    },
    /// A document has more tokens than the index can say.
    #[error(
        "document {id}: {tokens} tokens, but the format allows {} a document; split the file",
        i32::MAX
    )]
    DocumentTooLong {
        /// The document.
        id: String,
        /// Its tokens.
        tokens: u64,
    },
    /// The output folder holds something that must not be overwritten.
    #[error("{}: {holds}; nothing was touched: give another folder, or remove this one yourself", path.display())]
    Occupied {
        /// The output folder.
        path: PathBuf,
        /// What it holds.
        holds: String,
    },
    /// Another process builds the same dataset.
    #[error("{}: another process is building this dataset; wait for it, or give another folder", path.display())]
    Busy {
        /// The output folder.
        path: PathBuf,
    },
    /// The build was told to stop. Nothing is left of it.
    #[error("interrupted; nothing was left behind, and the same command starts over")]
    Interrupted,
    /// The disk, or a quota on it, is full. Nothing is left of the build.
    #[error(
        "write {}: no space left{}; free some, or give a folder on another disk (nothing was left behind)",
        path.display(), needed(needed_bytes)
    )]
    StorageFull {
        /// What was being written.
        path: PathBuf,
        /// About how many bytes the whole dataset takes, where that can be told.
        needed_bytes: Option<u64>,
    },
    /// Any other failure of the operating system.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder holds no dataset.
    #[error("{}: not a dataset (no {} in it); build one there first", path.display(), crate::manifest::FILE_NAME)]
    NotADataset {
        /// The folder.
        path: PathBuf,
    },
    /// The dataset was written in a format that this program does not read.
    #[error(
        "{}: dataset format {found}, but this program reads {supported}; build it again with this program",
        path.display()
    )]
    Version {
        /// The dataset.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The one format that is read.
        supported: u32,
    },
    /// A file of the dataset is not there.
    #[error("{}: missing; build the dataset again, or copy it again in full", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file of the dataset has another size than the manifest says.
    #[error(
        "{}: {found_bytes} bytes, expected {expected_bytes}; build the dataset again, or copy it again in full",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Size by the manifest.
        expected_bytes: u64,
        /// Size on disk.
        found_bytes: u64,
    },
    /// A file of the dataset has another digest than the manifest says.
    #[error(
        "{}: corrupted: expected digest {expected}, found {found}; build the dataset again, or copy it again",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Digest by the manifest.
        expected: Digest,
        /// Digest of what is on disk.
        found: Digest,
    },
    /// A file of the dataset does not say what it should.
    #[error("{}: {problem}; build the dataset again, or copy it again in full", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A window of tokens was asked for that is not in the split.
    #[error("tokens {start} to {end} of the {split} split: it holds {tokens}")]
    OutOfRange {
        /// `train` or `validation`.
        split: &'static str,
        /// First token asked for.
        start: u64,
        /// One past the last token asked for.
        end: u64,
        /// Tokens there are.
        tokens: u64,
    },
    /// The tokenizer library refused.
    #[error("{action}: {problem}")]
    Tokenizer {
        /// What was tried.
        action: &'static str,
        /// What the library said.
        problem: String,
    },
}

fn needed(bytes: &Option<u64>) -> String {
    match bytes {
        Some(bytes) => format!(" (the dataset takes about {} MB)", bytes.div_ceil(1_000_000)),
        None => String::new(),
    }
}

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The corpus or an option is at fault: the user gives another.
    Input,
    /// The output folder is taken: the user gives another.
    Output,
    /// Access was refused.
    Permission,
    /// No space is left.
    Storage,
    /// A dataset is damaged, incomplete, or of another version: it is built or copied again.
    Damaged,
    /// The build was told to stop.
    Interrupted,
    /// The machine or this program failed.
    System,
}

impl DataError {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::CorpusMissing { .. }
            | Self::NoCargoHome
            | Self::NotAFolder { .. }
            | Self::NoText { .. }
            | Self::BudgetTooSmall { .. }
            | Self::InvalidOption { .. }
            | Self::CorpusTooSmall { .. }
            | Self::NotEnoughTokens { .. }
            | Self::CorpusChanged { .. }
            | Self::DocumentTooLong { .. }
            | Self::OutOfRange { .. } => ErrorKind::Input,
            Self::Occupied { .. } | Self::Busy { .. } => ErrorKind::Output,
            Self::PermissionDenied { .. } => ErrorKind::Permission,
            Self::StorageFull { .. } => ErrorKind::Storage,
            Self::NotADataset { .. }
            | Self::Version { .. }
            | Self::Missing { .. }
            | Self::Truncated { .. }
            | Self::Corrupt { .. }
            | Self::Malformed { .. } => ErrorKind::Damaged,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::Io { .. } | Self::Tokenizer { .. } => ErrorKind::System,
        }
    }

    /// An operating system's error as one of ours.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { action, path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::StorageFull {
                path,
                needed_bytes: None,
            },
            _ => Self::Io { action, path, source },
        }
    }

    /// Says how much space the whole would take, if space is what is missing.
    pub(crate) fn with_needed_bytes(self, bytes: u64) -> Self {
        match self {
            Self::StorageFull {
                path,
                needed_bytes: None,
            } => Self::StorageFull {
                path,
                needed_bytes: Some(bytes),
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_refusals_become_errors_of_their_own() {
        let of = |kind: io::ErrorKind| DataError::io("write", Path::new("out/x"), kind.into());
        assert_eq!(of(io::ErrorKind::PermissionDenied).kind(), ErrorKind::Permission);
        assert_eq!(of(io::ErrorKind::StorageFull).kind(), ErrorKind::Storage);
        assert_eq!(of(io::ErrorKind::QuotaExceeded).kind(), ErrorKind::Storage);
        assert_eq!(of(io::ErrorKind::BrokenPipe).kind(), ErrorKind::System);
        let text = of(io::ErrorKind::StorageFull)
            .with_needed_bytes(2_500_001)
            .to_string();
        assert!(
            text.starts_with("write out/x: no space left (the dataset takes about 3 MB); "),
            "{text}"
        );
    }
}
