//! What can go wrong, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use lockstep_data::DataError;

use crate::dedup::DedupError;

/// Why a corpus could not be curated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CurateError {
    /// The spec is not one.
    #[error("{}{problem}", place(path))]
    Spec {
        /// The spec's file, where there is one.
        path: Option<PathBuf>,
        /// Each problem with its line, field, value and bound.
        problem: String,
    },
    /// Another process works in the same folder.
    #[error("{}: another process is at work there; wait for it, or give another --out", path.display())]
    Busy {
        /// The work folder.
        path: PathBuf,
    },
    /// Nothing is left to write.
    #[error(
        "no document is left of {read} that were read; {worst} dropped most of them ({count}), the first {first}: loosen \
         that rule, or leave its stage out of `stages`"
    )]
    NothingLeft {
        /// Documents that were read.
        read: u64,
        /// The stage and reason that dropped most.
        worst: String,
        /// How many it dropped.
        count: u64,
        /// The first of them: its name and what was found.
        first: String,
    },
    /// The sources hold nothing at all.
    #[error("the sources hold no document{}: check `path`, `include` and `format` of each [[source]]", refused(*dropped, worst, first))]
    NothingRead {
        /// Records and files that could not be used.
        dropped: u64,
        /// The stage and reason of most of them.
        worst: String,
        /// The first of those: its name and what is wrong with it.
        first: String,
    },
    /// The output folder holds something that must not be overwritten.
    #[error("{}: {holds}; nothing was touched: give another folder, or remove this one yourself", path.display())]
    Occupied {
        /// The output folder.
        path: PathBuf,
        /// What it holds.
        holds: &'static str,
    },
    /// A table could not be made.
    #[error("write dropped.parquet: {problem}")]
    Table {
        /// What the library said.
        problem: String,
    },
    /// It was told to stop. What is done stays.
    #[error("interrupted; the same command goes on where it stopped")]
    Interrupted,
    /// The disk, or a quota on it, is full. What is done stays.
    #[error("write {}: no space left; free some, and the same command goes on where it stopped", path.display())]
    StorageFull {
        /// What was being written.
        path: PathBuf,
    },
    /// A source's service does not answer. What is done stays.
    #[error(
        "source {source_name:?}: {problem}; once that is mended, the same command goes on where it stopped"
    )]
    Unreachable {
        /// The source's name in the spec.
        source_name: String,
        /// What went wrong.
        problem: String,
    },
    /// An input changed while it was read, or since.
    #[error("{}: {problem}; leave the sources alone while a dataset is built, and start again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// A file of the work folder is not what was written.
    #[error("{}: {problem}; remove the folder {} and start again", path.display(), folder(path).display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
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
    /// The dataset could not be written.
    #[error(transparent)]
    Data(DataError),
    /// Duplicates could not be found.
    #[error(transparent)]
    Dedup(DedupError),
}

impl From<DataError> for CurateError {
    /// What is done stays, other than where a dataset is made in one go.
    fn from(error: DataError) -> Self {
        match error {
            DataError::StorageFull { path, .. } => Self::StorageFull { path },
            DataError::Interrupted => Self::Interrupted,
            error => Self::Data(error),
        }
    }
}

impl From<DedupError> for CurateError {
    fn from(error: DedupError) -> Self {
        match error {
            DedupError::Io { action, path, source } => Self::io(action, &path, source),
            error => Self::Dedup(error),
        }
    }
}

fn place(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| format!("{}: ", path.display()))
}

fn refused(dropped: u64, worst: &str, first: &str) -> String {
    if dropped == 0 {
        String::new()
    } else {
        format!(" ({dropped} records could not be used, most by {worst}, the first {first})")
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

impl CurateError {
    /// A file that a spec names, or the spec itself, cannot be read.
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::Spec {
            path: Some(path.to_owned()),
            problem: format!("cannot be read: {error}"),
        }
    }

    /// An operating system's error as one of ours, for what is written or read in the work folder.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::StorageFull { path },
            _ => Self::Io { action, path, source },
        }
    }
}

/// What a caller does about an error: as for datasets.
pub use lockstep_data::ErrorKind;

impl CurateError {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        let of_system = |error: &io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Storage,
            io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            _ => ErrorKind::System,
        };
        match self {
            Self::Spec { .. } => ErrorKind::Input,
            Self::NothingLeft { .. } | Self::NothingRead { .. } | Self::Changed { .. } => ErrorKind::Input,
            Self::Busy { .. } | Self::Occupied { .. } => ErrorKind::Output,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::StorageFull { .. } => ErrorKind::Storage,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Io { source, .. } => of_system(source),
            Self::Table { .. } | Self::Unreachable { .. } => ErrorKind::System,
            Self::Data(error) => error.kind(),
            Self::Dedup(DedupError::Damaged { .. } | DedupError::OtherSettings { .. }) => ErrorKind::Damaged,
            Self::Dedup(_) => ErrorKind::Input,
        }
    }
}
