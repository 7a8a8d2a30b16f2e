//! A document that went through the stages, with all that they found out.

use std::collections::BTreeMap;

use lockstep_data::Digest;
use serde::{Deserialize, Serialize};

use crate::document::Origin;
use crate::quality::Scores;

/// A document that no stage has dropped yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curated {
    /// Where it comes from.
    pub origin: Origin,
    /// The text as it is kept.
    pub text: String,
    /// Digest of that text.
    pub digest: Digest,
    /// Digest of what was read, where the text is another: of the bytes if they had to be decoded, else of the text before
    /// a stage altered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Digest>,
    /// The record's own id, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its address, if the record has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The licence as the gate understood it, or as it was stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// When it was made, as the record says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Whether it is source code.
    #[serde(default)]
    pub is_code: bool,
    /// Opt-outs that the record states.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opt_outs: Vec<String>,
    /// The name of the document that it was before, as an earlier run told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived_from: Option<String>,
    /// Its language.
    #[serde(default)]
    pub language: DocumentLanguage,
    /// Its scores, if quality was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<Box<Scores>>,
    /// Private data that was found, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pii: BTreeMap<String, u64>,
    /// Evaluation sets that it overlaps with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contaminated: Vec<String>,
}

/// What language a document is in, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DocumentLanguage {
    /// ISO 639-3; none if it is code, or was not identified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// ISO 15924.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// From 0 to 1.
    #[serde(default)]
    pub confidence: f32,
    /// Share of its letters that are surely in other languages.
    #[serde(default)]
    pub other_share: f32,
    /// Whether that is so much that it is a document of several.
    #[serde(default)]
    pub is_mixed: bool,
}

impl Curated {
    /// What its language is called in counts: `code` for source code, `unknown` where none is known.
    #[must_use]
    pub fn language(&self) -> &str {
        language_name(self.language.code.as_deref(), self.is_code)
    }
}

/// What a language is called in counts, and what has none.
pub(crate) fn language_name(code: Option<&str>, is_code: bool) -> &str {
    match code {
        Some(code) => code,
        None if is_code => "code",
        None => "unknown",
    }
}
