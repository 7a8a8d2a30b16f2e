//! What the table of documents says of one, ready to be written.

use lockstep_data::Digest;
use lockstep_data::documents::{DocumentInfo, Extra, ExtraColumn, ExtraKind};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{dropped, mix};
use crate::curated::{Curated, language_name};
use crate::document::{Dropped, Origin};
use crate::error::CurateError;

/// Columns of `documents.parquet` beyond those that every dataset has.
pub(super) const COLUMNS: [ExtraColumn; 17] = [
    column("file", ExtraKind::Text),
    column("record", ExtraKind::Integer),
    column("offset", ExtraKind::Integer),
    column("record_id", ExtraKind::Text),
    column("url", ExtraKind::Text),
    column("created", ExtraKind::Text),
    column("original_digest", ExtraKind::Text),
    column("language", ExtraKind::Text),
    column("script", ExtraKind::Text),
    column("language_confidence", ExtraKind::Number),
    column("other_languages", ExtraKind::Number),
    column("is_mixed", ExtraKind::Integer),
    column("scores", ExtraKind::Text),
    column("pii", ExtraKind::Text),
    column("contaminated", ExtraKind::Text),
    column("derived_from", ExtraKind::Text),
    column("pass", ExtraKind::Integer),
];

const fn column(name: &'static str, kind: ExtraKind) -> ExtraColumn {
    ExtraColumn { name, kind }
}

/// A document of the dataset. What is JSON in the table is JSON here, so that nobody parses it on the way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    name: String,
    pub(super) source: String,
    file: String,
    record: u64,
    offset: u64,
    id: Option<String>,
    url: Option<String>,
    licence: Option<String>,
    created: Option<String>,
    pub(super) digest: Digest,
    original: Option<Digest>,
    is_code: bool,
    language: Option<String>,
    script: Option<String>,
    confidence: f32,
    other_share: f32,
    is_mixed: bool,
    derived_from: Option<String>,
    scores: Option<Box<RawValue>>,
    pii: Option<Box<RawValue>>,
    contaminated: Option<Box<RawValue>>,
    bytes: u64,
    /// Its tokens in the task's file, without the end of the document.
    pub(super) tokens: u64,
}

impl Row {
    /// Of a document with so many tokens.
    pub(super) fn of(document: Curated, tokens: u64) -> Result<Self, CurateError> {
        let bytes = document.text.len() as u64;
        Ok(Self {
            name: document.origin.name(),
            source: document.origin.source.to_string(),
            file: document.origin.file.to_string(),
            record: document.origin.record,
            offset: document.origin.offset,
            id: document.id,
            url: document.url,
            licence: document.licence,
            created: document.created,
            digest: document.digest,
            original: document.original,
            is_code: document.is_code,
            confidence: document.language.confidence,
            other_share: document.language.other_share,
            is_mixed: document.language.is_mixed,
            derived_from: document.derived_from,
            language: document.language.code,
            script: document.language.script,
            scores: document.scores.as_deref().map(json).transpose()?,
            pii: some_json(&document.pii, document.pii.is_empty())?,
            contaminated: some_json(&document.contaminated, document.contaminated.is_empty())?,
            bytes,
            tokens,
        })
    }

    /// What its language is called in counts.
    pub(super) fn language(&self) -> &str {
        language_name(self.language.as_deref(), self.is_code)
    }

    /// Its bytes of text.
    pub(super) fn size(&self) -> usize {
        self.bytes as usize
    }

    /// The row of what is dropped, if the mix has no use for it.
    pub(super) fn left_out(self, reason: &'static str, detail: String) -> dropped::Row {
        Dropped {
            origin: Origin {
                source: self.source.into(),
                file: self.file.into(),
                record: self.record,
                offset: self.offset,
            },
            stage: mix::STAGE.into(),
            reason: reason.into(),
            detail,
            kept: None,
            language: self.language,
            scores: self.scores,
        }
    }

    /// What the table says of its use in a pass.
    pub(super) fn info(self, pass: u32) -> DocumentInfo {
        let text = Extra::Text;
        let integer = |value: u64| Extra::Integer(Some(value as i64));
        let json =
            |value: Option<Box<RawValue>>| Extra::Text(value.map(|value| Box::<str>::from(value).into()));
        let is_known = self.language.is_some();
        let if_known = |number: f32| Extra::Number(is_known.then_some(number));
        let extras = vec![
            text(Some(self.file)),
            integer(self.record),
            integer(self.offset),
            text(self.id),
            text(self.url),
            text(self.created),
            text(self.original.map(|digest| digest.to_string())),
            text(self.language),
            text(self.script),
            if_known(self.confidence),
            if_known(self.other_share),
            Extra::Integer(is_known.then_some(i64::from(self.is_mixed))),
            json(self.scores),
            json(self.pii),
            json(self.contaminated),
            text(self.derived_from),
            integer(u64::from(pass)),
        ];
        DocumentInfo {
            id: self.name,
            source: self.source,
            version: None,
            licence: self.licence,
            digest: self.digest,
            bytes: self.bytes,
            extras,
        }
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<Box<RawValue>, CurateError> {
    to_raw_value(value).map_err(|error| CurateError::Table {
        problem: error.to_string(),
    })
}

fn some_json<T: Serialize + ?Sized>(value: &T, is_empty: bool) -> Result<Option<Box<RawValue>>, CurateError> {
    (!is_empty).then(|| json(value)).transpose()
}
