//! The last phase: everything in its place, in the order of the units.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use lockstep_data::documents::{DocumentInfo, Extra, ExtraColumn, ExtraKind};
use lockstep_data::manifest::{CorpusRecord, OptionsRecord};
use lockstep_data::skip::Skipped;
use lockstep_data::{DatasetWriter, Manifest, Staging};
use serde::Serialize;

use super::dropped::{self, DroppedTable};
use super::kept::Kept;
use super::mix::Epochs;
use super::run::Run;
use super::sample::Learned;
use super::tokens::{Row, Tokens};
use super::{BUILD_FILE, Built};
use crate::curated::Curated;
use crate::document::Dropped;
use crate::error::CurateError;
use crate::quality::Scores;
use crate::records::Records;
use crate::report::{self, SplitReport};
use crate::screen::Screen;

/// Columns of `documents.parquet` beyond those that every dataset has.
const COLUMNS: [ExtraColumn; 14] = [
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
    column("scores", ExtraKind::Text),
    column("pii", ExtraKind::Text),
    column("contaminated", ExtraKind::Text),
    column("pass", ExtraKind::Integer),
];

const fn column(name: &'static str, kind: ExtraKind) -> ExtraColumn {
    ExtraColumn { name, kind }
}

/// Writes the dataset in the folder `place`, and moves it to where it goes.
pub(super) fn run(
    run: &Run<'_>,
    place: &Path,
    screen: &Screen,
    kept: &Kept,
    learned: &Learned,
    tokens: &Tokens,
) -> Result<Built, CurateError> {
    let staging = Staging::begin_in(place, run.out)?;
    let epochs = Epochs::new(&run.spec.mix, &run.counts);
    let manifest = match &learned.tokenizer {
        Some(tokenizer) => {
            let options = OptionsRecord {
                vocab_size: tokenizer.vocab_size(),
                validation_fraction: run.spec.output.validation_fraction,
                max_bytes: None,
                tokenizer_sample_bytes: run.spec.tokenizer.sample_bytes,
                shard_bytes: run.spec.output.shard_bytes,
            };
            let writer = DatasetWriter::new(&staging, tokenizer, options, &COLUMNS)?;
            Some(dataset(run, kept, tokens, &epochs, writer)?)
        }
        None => {
            documents(run, tokens, &staging)?;
            None
        }
    };
    dropped(run, kept, tokens, &staging)?;
    let mut files = Vec::new();
    let mut report = run.report(screen);
    report.epochs = epochs.shown();
    if let Some(manifest) = &manifest {
        report.digest = Some(manifest.digest.to_string());
        for (name, split) in [("train", &manifest.train), ("validation", &manifest.validation)] {
            report.splits.push(SplitReport {
                name: name.to_owned(),
                documents: split.documents,
                bytes: split.bytes,
                tokens: split.tokens,
            });
        }
    }
    let json = serde_json::to_vec_pretty(&report).map_err(|error| CurateError::Spec {
        path: None,
        problem: format!("report: {error}"),
    })?;
    files.push(("report.json", json));
    files.push(("report.html", report::page(&report).into_bytes()));
    files.push(("spec.toml", run.spec.to_toml()?.into_bytes()));
    files.push((BUILD_FILE, run.fingerprint.clone().into_bytes()));
    for (name, content) in files {
        staging.write(name, &content)?;
    }
    run.progress.check()?;
    staging.publish()?;
    Ok(Built {
        report,
        manifest,
        reused: false,
    })
}

/// Writes shards and provenance: the training split pass by pass, then what is held out.
fn dataset(
    run: &Run<'_>,
    kept: &Kept,
    tokens: &Tokens,
    epochs: &Epochs,
    mut writer: DatasetWriter<'_>,
) -> Result<Manifest, CurateError> {
    let passes = epochs.passes();
    let total = (u64::from(passes) + 1) * tokens.tasks as u64;
    run.progress.enter("write", total, "tasks");
    for pass in 0..passes {
        for task in 0..tokens.tasks {
            each_row(run, tokens, task, &mut |row, tokens| {
                if row.is_held_out || epochs.uses(&row.document) <= pass {
                    return Ok(());
                }
                Ok(writer.push(info(row, pass), &[tokens], None)?)
            })?;
        }
    }
    writer.begin_held_out()?;
    for task in 0..tokens.tasks {
        each_row(run, tokens, task, &mut |row, tokens| {
            if !row.is_held_out {
                return Ok(());
            }
            let text = row.document.text.clone();
            Ok(writer.push(info(row, 0), &[tokens], Some(&text))?)
        })?;
    }
    let read = run
        .counts
        .stages
        .get("read")
        .map(|flow| flow.passed)
        .unwrap_or_default();
    let corpus = CorpusRecord {
        kind: "curated".to_owned(),
        documents: read.documents,
        bytes: read.bytes,
        digest: kept.documents.content.digest(),
    };
    Ok(writer.finish(corpus, Skipped::default())?)
}

/// Calls `each` with the rows of a task and their tokens, in order.
fn each_row(
    run: &Run<'_>,
    tokens: &Tokens,
    task: usize,
    each: &mut dyn FnMut(Row, Vec<u32>) -> Result<(), CurateError>,
) -> Result<(), CurateError> {
    let path = tokens.tokens(task);
    let failed = |error| CurateError::io("read", &path, error);
    let mut file = BufReader::with_capacity(1 << 18, File::open(&path).map_err(failed)?);
    for row in Records::<Row>::open(&tokens.rows(task))? {
        run.progress.check()?;
        let row = row?;
        let mut of_row = vec![0u32; row.tokens as usize];
        file.read_exact(bytemuck::cast_slice_mut(&mut of_row))
            .map_err(failed)?;
        each(row, of_row)?;
    }
    run.progress.advance(1);
    Ok(())
}

/// What the table of documents says of a row.
fn info(row: Row, pass: u32) -> DocumentInfo {
    let Row { document, bytes, .. } = row;
    let text = |value: Option<String>| Extra::Text(value);
    let json = |value: Option<String>| Extra::Text(value.filter(|value| value != "{}" && value != "[]"));
    let scores = document
        .scores
        .as_ref()
        .and_then(|scores| serde_json::to_string(scores).ok());
    let extras = vec![
        text(Some(document.origin.file.to_string())),
        Extra::Integer(Some(document.origin.record as i64)),
        Extra::Integer(Some(document.origin.offset as i64)),
        text(document.id.clone()),
        text(document.url.clone()),
        text(document.created.clone()),
        text(document.original.map(|digest| digest.to_string())),
        text(document.language.code.clone()),
        text(document.language.script.clone()),
        Extra::Number(
            document
                .language
                .code
                .as_ref()
                .map(|_| document.language.confidence),
        ),
        json(scores),
        json(serde_json::to_string(&document.pii).ok()),
        json(serde_json::to_string(&document.contaminated).ok()),
        Extra::Integer(Some(i64::from(pass))),
    ];
    DocumentInfo {
        id: document.origin.name(),
        source: document.origin.source.to_string(),
        version: None,
        licence: document.licence,
        digest: document.digest,
        bytes,
        extras,
    }
}

/// Writes the documents themselves, where no tokens are made: JSON lines with the fields that dolma gives them, which any
/// stage reads again.
fn documents(run: &Run<'_>, tokens: &Tokens, staging: &Staging) -> Result<(), CurateError> {
    run.progress.enter("write", tokens.tasks as u64, "tasks");
    for task in 0..tokens.tasks {
        let name = format!("documents-{task:05}.jsonl.zst");
        let failed = |error| CurateError::io("write", run.out, error);
        let mut packed = zstd::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed)?;
        for row in Records::<Row>::open(&tokens.rows(task))? {
            run.progress.check()?;
            let line = serde_json::to_vec(&Line::of(row?.document)).map_err(|error| failed(error.into()))?;
            packed
                .write_all(&line)
                .and_then(|()| packed.write_all(b"\n"))
                .map_err(failed)?;
        }
        staging.write(&name, &packed.finish().map_err(failed)?)?;
        run.progress.advance(1);
    }
    Ok(())
}

/// A document as a line.
#[derive(Serialize)]
struct Line {
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
    scores: Option<Box<Scores>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pii: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contaminated: Vec<String>,
}

impl Line {
    fn of(document: Curated) -> Self {
        let confidence = document.language.confidence;
        Self {
            id: document.id.unwrap_or_else(|| document.origin.name()),
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
                language_confidence: document.language.code.as_ref().map(|_| confidence),
                scores: document.scores,
                pii: document.pii,
                contaminated: document.contaminated,
            },
            language: document.language.code,
        }
    }
}

/// `dropped.parquet`: a row for all that is not in the dataset.
fn dropped(run: &Run<'_>, kept: &Kept, tokens: &Tokens, staging: &Staging) -> Result<(), CurateError> {
    // Of duplicates, the name of the document that stays is told.
    let wanted: BTreeSet<u32> = kept.duplicates.stand_ins().collect();
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    if !wanted.is_empty() {
        for task in 0..tokens.tasks {
            for row in Records::<Row>::open(&tokens.rows(task))? {
                let row = row?;
                if u32::try_from(row.ordinal).is_ok_and(|ordinal| wanted.contains(&ordinal)) {
                    names.insert(row.ordinal, row.document.origin.name());
                }
            }
        }
    }
    let mut table = DroppedTable::new(staging.file(dropped::FILE_NAME)?)?;
    for dropped in &kept.documents.refused {
        table.push(dropped.clone(), None)?;
    }
    for task in 0..tokens.tasks {
        run.progress.check()?;
        let files: [PathBuf; 2] = [kept.documents.dropped(task), tokens.dropped(task)];
        for path in files {
            for dropped in Records::<Dropped>::open(&path)? {
                let dropped = dropped?;
                let kept = dropped.kept.and_then(|ordinal| names.get(&ordinal).cloned());
                table.push(dropped, kept)?;
            }
        }
    }
    table.finish()
}
