//! Where what is read goes.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Read;
use super::input::Broken;
use super::record::{Field, Record};
use super::settings::SourceSettings;
use crate::document::{Document, Dropped, Origin};

/// The kind of documents that are source code, in records.
pub(crate) const KIND_OF_CODE: &str = "code";
/// Progress is told every so many bytes.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Where in a file a record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) record: u64,
    pub(crate) offset: u64,
}

impl At {
    /// A line of JSONL, which nobody counts.
    pub(crate) fn line(offset: u64) -> Self {
        Self {
            record: offset,
            offset,
        }
    }
}

/// What is read of one part of a file.
pub(crate) struct Out<'a> {
    sink: &'a mut dyn FnMut(Read) -> ControlFlow<()>,
    pub(crate) settings: &'a SourceSettings,
    source: Arc<str>,
    file: Arc<str>,
    url: Option<Arc<str>>,
    licence: Option<Arc<str>>,
    opt_outs: Vec<String>,
    language: Option<&'static str>,
    is_code: bool,
    /// Size of the part, and how much of it was told to be read.
    bytes: u64,
    told_bytes: u64,
    /// Documents and dropped records.
    told: u64,
}

impl<'a> Out<'a> {
    pub(crate) fn new(
        sink: &'a mut dyn FnMut(Read) -> ControlFlow<()>,
        settings: &'a SourceSettings,
        source: &Arc<str>,
        part: &super::unit::Part,
    ) -> Self {
        Self {
            sink,
            settings,
            source: Arc::clone(source),
            file: Arc::clone(&part.file),
            url: part.url.clone(),
            licence: part.licence.clone(),
            opt_outs: part.opt_outs.clone(),
            language: None,
            is_code: settings.code,
            bytes: part.bytes,
            told_bytes: 0,
            told: 0,
        }
    }

    /// What follows is source code.
    pub(crate) fn is_code(&mut self, language: Option<&'static str>) {
        self.is_code = true;
        self.language = language;
    }

    /// A record becomes a document, or is dropped if it holds no text.
    pub(crate) fn record(&mut self, at: At, mut record: Record<'_>) -> ControlFlow<()> {
        let text = match record.take_text() {
            Ok(text) => text,
            Err((reason, detail)) => return self.drop(at, reason, detail),
        };
        let settings = self.settings;
        let language = record
            .take_field(Field::Language)
            .or_else(|| self.language.map(str::to_owned))
            .or_else(|| settings.language.clone());
        let licence = record
            .take_field(Field::Licence)
            .or_else(|| self.licence.as_deref().map(str::to_owned))
            .or_else(|| settings.licence.clone());
        let document = Document {
            origin: self.origin(at),
            text,
            id: record.take_field(Field::Id),
            url: record
                .take_field(Field::Url)
                .or_else(|| self.url.as_deref().map(str::to_owned)),
            language,
            licence,
            opt_outs: self.opt_outs_with(record.take_opt_outs()),
            created: record.take_field(Field::Created),
            is_code: self.is_code || record.take_field(Field::Kind).as_deref() == Some(KIND_OF_CODE),
            derived_from: record.take_field(Field::DerivedFrom),
            recoded: record.recoded,
        };
        self.told += 1;
        (self.sink)(Read::Document(document))
    }

    /// A record is left out.
    pub(crate) fn drop(&mut self, at: At, reason: &'static str, detail: String) -> ControlFlow<()> {
        self.told += 1;
        let dropped = dropped(self.origin(at), reason, detail);
        (self.sink)(Read::Dropped(dropped))
    }

    /// The rest of the file is left out, from record `record` on.
    pub(crate) fn broken(&mut self, record: u64, broken: Broken) -> ControlFlow<()> {
        let at = At {
            record,
            offset: broken.offset,
        };
        self.drop(at, broken.reason, broken.detail)
    }

    /// So many stored bytes of the part were read.
    pub(crate) fn progress(&mut self, bytes: u64) -> ControlFlow<()> {
        let bytes = bytes.min(self.bytes);
        if bytes >= self.told_bytes + PROGRESS_BYTES {
            self.tell(bytes)
        } else {
            ControlFlow::Continue(())
        }
    }

    /// The part was read. A part of which nothing came is told as dropped, so that each is accounted for.
    pub(crate) fn finish(&mut self, whole: bool) -> ControlFlow<()> {
        if self.told == 0 && whole {
            self.drop(At::default(), "read.empty", "the file holds no record".to_owned())?;
        }
        self.tell(self.bytes)
    }

    fn tell(&mut self, bytes: u64) -> ControlFlow<()> {
        let more = bytes.saturating_sub(self.told_bytes);
        self.told_bytes = bytes;
        if more == 0 {
            return ControlFlow::Continue(());
        }
        (self.sink)(Read::Progress(more))
    }

    /// Those of a record, and what the file's sender stated.
    fn opt_outs_with(&self, mut of_record: Vec<String>) -> Vec<String> {
        let others = self.opt_outs.iter().filter(|out| !of_record.contains(out));
        let others: Vec<String> = others.cloned().collect();
        of_record.extend(others);
        of_record
    }

    fn origin(&self, at: At) -> Origin {
        Origin {
            source: Arc::clone(&self.source),
            file: Arc::clone(&self.file),
            record: at.record,
            offset: at.offset,
        }
    }
}

/// Something that this stage drops.
pub(crate) fn dropped(origin: Origin, reason: &'static str, detail: String) -> Dropped {
    Dropped {
        origin,
        stage: "read".into(),
        reason: reason.into(),
        detail,
        kept: None,
        language: None,
        scores: None,
    }
}
