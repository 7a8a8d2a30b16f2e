//! A piece of work: what one worker reads in one go.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What is read in one go: some whole files, or a part of a large one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// The source's name in the spec.
    pub source: Arc<str>,
    /// Which unit of the source, from 0. The documents of a source are those of its units in this order.
    pub number: u64,
    /// Its size as it is stored, in bytes.
    pub bytes: u64,
    /// What is read, in this order.
    pub parts: Vec<Part>,
}

impl Unit {
    /// A name for it that no other unit of the spec has, and that sorts by number.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{:06}", self.source, self.number)
    }
}

/// A file, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The file, as in [`Origin::file`](crate::document::Origin::file).
    pub file: Arc<str>,
    /// The file's whole size when it was listed, in bytes.
    pub file_bytes: u64,
    /// Its [version](super::FileState::version) when it was listed, if the store knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Arc<str>>,
    /// Which part of it.
    pub cut: Cut,
    /// The part's size as it is stored, in bytes.
    pub bytes: u64,
    /// The address that the file was fetched from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Arc<str>>,
    /// What the nearest manifest or licence file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<Arc<str>>,
    /// Opt-outs that whoever sent the file stated with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opt_outs: Vec<String>,
}

/// Which part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Cut {
    /// All of it.
    Whole,
    /// The lines that begin in these bytes.
    Bytes {
        /// The first byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// These row groups of a Parquet file.
    RowGroups {
        /// The first row group.
        start: usize,
        /// One past the last row group.
        end: usize,
    },
}
