//! A document as a line of JSON, where no tokens are made: with the fields that dolma gives it, which any stage reads again.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::curated::Curated;
use crate::quality::Scores;
use crate::read::KIND_OF_CODE;

/// A document as a line.
#[derive(Serialize)]
pub(super) struct Line {
    id: String,
    text: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    metadata: Metadata,
}

/// What the stages found out.
#[derive(Serialize)]
struct Metadata {
    file: String,
    record: u64,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    script: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language_confidence: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_languages: Option<f32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_mixed: bool,
    /// What the next run has to know: that it is code, who opted out, and where it came from at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    opt_outs: Vec<String>,
    derived_from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scores: Option<Box<Scores>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pii: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contaminated: Vec<String>,
}

impl Line {
    pub(super) fn of(document: Curated) -> Self {
        let language = &document.language;
        let if_known = |number: f32| language.code.as_ref().map(|_| number);
        let (confidence, other) = (if_known(language.confidence), if_known(language.other_share));
        let name = document.origin.name();
        Self {
            id: document.id.unwrap_or_else(|| name.clone()),
            text: document.text,
            source: document.origin.source.to_string(),
            created: document.created,
            url: document.url,
            license: document.licence,
            metadata: Metadata {
                file: document.origin.file.to_string(),
                record: document.origin.record,
                offset: document.origin.offset,
                original_digest: document.original.map(|digest| digest.to_string()),
                script: document.language.script,
                language_confidence: confidence,
                other_languages: other,
                is_mixed: document.language.is_mixed,
                kind: document.is_code.then_some(KIND_OF_CODE),
                opt_outs: document.opt_outs,
                derived_from: document.derived_from.unwrap_or(name),
                scores: document.scores,
                pii: document.pii,
                contaminated: document.contaminated,
            },
            language: document.language.code,
        }
    }
}
