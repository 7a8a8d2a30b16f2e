//! A document, where it comes from, and what is left out with a reason.

use std::borrow::Cow;
use std::sync::Arc;

use lockstep_data::Digest;
use serde::{Deserialize, Serialize};

use crate::quality::Scores;

/// Where a document comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The source's name in the spec.
    pub source: Arc<str>,
    /// The file, as its path inside the source with `/` between the parts: the same on every machine. A backslash is
    /// doubled, and control characters and bytes that are not UTF-8 are written `\xNN`.
    pub file: Arc<str>,
    /// Which record of the file: row or WARC record, from 0; 0 where a file is one document. Lines of JSONL, which nobody
    /// counts since a large file is read from many places at once, have their offset here too.
    pub record: u64,
    /// Where the record begins in the file, in bytes after decompression; 0 where a file is one document, and for Parquet.
    pub offset: u64,
}

impl Origin {
    /// The document's name: `source/file#record`, without the record where it is the first.
    #[must_use]
    pub fn name(&self) -> String {
        let Self {
            source, file, record, ..
        } = self;
        if *record == 0 {
            format!("{source}/{file}")
        } else {
            format!("{source}/{file}#{record}")
        }
    }
}

/// A document as it is read, and as it goes on from stage to stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where it comes from.
    pub origin: Origin,
    /// The text.
    pub text: String,
    /// The record's own id, if it has one.
    pub id: Option<String>,
    /// Its address, if the record has one.
    pub url: Option<String>,
    /// The language that the record or the source claims, if one does; not the identified one.
    pub language: Option<String>,
    /// The licence that the record or the source states: an SPDX expression, or whatever stands there.
    pub licence: Option<String>,
    /// Opt-outs that the record states, such as `noai` or `tdm-reservation`.
    pub opt_outs: Vec<String>,
    /// When it was made, as the record says.
    pub created: Option<String>,
    /// Whether it is source code, which has filters of its own.
    pub is_code: bool,
    /// What its bytes were, if they were not the UTF-8 of the text.
    pub recoded: Option<Recoded>,
    /// The name of the document that it was before, as an earlier run told: where it came from at first.
    pub derived_from: Option<String>,
}

/// Bytes that had to be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recoded {
    /// The encoding that they were in, by its name in the Encoding Standard.
    pub from: &'static str,
    /// How many U+FFFD stand for bytes that could not be read.
    pub replaced: u64,
    /// Digest of the bytes; of a page, with its markup.
    pub original: Digest,
}

/// A record or document that is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dropped<S = Box<Scores>> {
    /// Where it came from.
    pub origin: Origin,
    /// The stage that dropped it.
    pub stage: Cow<'static, str>,
    /// Why, as a short code that reports count by, such as `gopher.words`.
    pub reason: Cow<'static, str>,
    /// What exactly: value and bound, or the reader's error. Never a private text.
    pub detail: String,
    /// Of a duplicate, the ordinal of the document that stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
    /// Its language as far as it was identified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Its scores, if it had come so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<S>,
}

impl Dropped {
    /// Without its scores, whatever they are.
    pub(crate) fn without_scores<S>(self) -> Dropped<S> {
        Dropped {
            origin: self.origin,
            stage: self.stage,
            reason: self.reason,
            detail: self.detail,
            kept: self.kept,
            language: self.language,
            scores: None,
        }
    }
}
