//! The last phase: everything in its place, in the order of the units.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_data::gzip::Gzip;
use lockstep_data::manifest::{CorpusRecord, OptionsRecord};
use lockstep_data::skip::Skipped;
use lockstep_data::{DatasetWriter, Manifest, Part, Staging};

use super::batches::{Batch, Batches, read_ahead};
use super::dropped::{self, DroppedTable};
use super::kept::Kept;
use super::mix::{self, Epochs};
use super::row::{COLUMNS, Row};
use super::run::Run;
use super::sample::Learned;
use super::tokens::{Named, Tokens};
use super::{BUILD_FILE, Built};
use crate::counts::Flow;
use crate::error::CurateError;
use crate::progress::Progress;
use crate::records::Records;
use crate::report::{self, SplitReport};
use crate::screen::Screen;

/// Writes the dataset in the folder `place`, and moves it to where it goes.
pub(super) fn run(
    run: &Run<'_>,
    place: &Path,
    screen: &Screen,
    kept: &Kept,
    learned: &Learned,
    tokens: &Tokens,
) -> Result<Built, CurateError> {
    let epochs = match &learned.tokenizer {
        Some(_) => Epochs::new(&run.spec.mix, &run.counts)?,
        None => Epochs::default(),
    };
    let staging = Staging::begin_in(place, run.out)?;
    let passes = learned
        .tokenizer
        .as_ref()
        .map_or(1, |_| epochs.passes() as usize + 1);
    // What stays, so many times, and what does not, once.
    let total = (passes + 1) * tokens.tasks;
    run.progress.enter("write", total as u64, "tasks");
    let (manifest, dropped) = rayon::join(
        || -> Result<Option<Manifest>, CurateError> {
            let Some(tokenizer) = &learned.tokenizer else {
                return documents(run, tokens, &staging).map(|()| None);
            };
            let options = OptionsRecord {
                vocab_size: tokenizer.vocab_size(),
                validation_fraction: run.spec.output.validation_fraction,
                max_bytes: None,
                tokenizer_sample_bytes: run.spec.tokenizer.sample_bytes,
                shard_bytes: run.spec.output.shard_bytes,
            };
            let writer = DatasetWriter::new(&staging, tokenizer, options, &COLUMNS)?;
            dataset(run, kept, tokens, &epochs, writer).map(Some)
        },
        || dropped(run, kept, tokens, &epochs, &staging),
    );
    let (manifest, mixed) = (manifest?, dropped?);
    let mut files = Vec::new();
    let mut report = run.report(screen);
    if epochs.is_on() {
        report.stages.push(mix::STAGE.to_owned());
        report.counts.stages.insert(mix::STAGE.to_owned(), mixed);
        report.epochs = epochs.shown();
    }
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

/// Writes the dataset, while what gzip makes of the text that is held out is found out.
fn dataset(
    run: &Run<'_>,
    kept: &Kept,
    tokens: &Tokens,
    epochs: &Epochs,
    mut writer: DatasetWriter<'_>,
) -> Result<Manifest, CurateError> {
    let (written, gzip) = rayon::join(
        || documents_of_splits(run, tokens, epochs, &mut writer),
        || gzip_bits_per_byte(run, tokens),
    );
    written?;
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
    Ok(writer.finish(corpus, Skipped::default(), gzip?)?)
}

/// Writes shards and provenance: the training split pass by pass, then what is held out.
fn documents_of_splits(
    run: &Run<'_>,
    tokens: &Tokens,
    epochs: &Epochs,
    writer: &mut DatasetWriter<'_>,
) -> Result<(), CurateError> {
    for pass in 0..epochs.passes() {
        let mut rows = Batches::of(run.progress, tokens, Part::Train);
        let read = move || rows.next(|row| epochs.uses(row) > pass);
        read_ahead(read, |batch| put(writer, pass, batch))?;
    }
    writer.begin_held_out()?;
    let mut rows = Batches::of(run.progress, tokens, Part::Validation);
    read_ahead(move || rows.next(|_| true), |batch| put(writer, 0, batch))
}

fn put(writer: &mut DatasetWriter<'_>, pass: u32, batch: Batch) -> Result<(), CurateError> {
    for (row, tokens) in batch {
        writer.push(row.info(pass), &[tokens])?;
    }
    Ok(())
}

fn gzip_bits_per_byte(run: &Run<'_>, tokens: &Tokens) -> Result<Option<f64>, CurateError> {
    let mut gzip = Gzip::default();
    for task in 0..tokens.tasks {
        for text in Records::<String>::open(&tokens.held_out_texts(task))? {
            run.progress.check()?;
            gzip.put(text?.as_bytes())?;
        }
    }
    Ok(gzip.bits_per_byte()?)
}

/// Puts the documents in their place, where no tokens are made.
fn documents(run: &Run<'_>, tokens: &Tokens, staging: &Staging) -> Result<(), CurateError> {
    for task in 0..tokens.tasks {
        run.progress.check()?;
        let name = format!("documents-{task:05}.jsonl.zst");
        let path = tokens.documents(task);
        let mut from = File::open(&path).map_err(|error| CurateError::io("open", &path, error))?;
        let mut to = staging.file(&name)?;
        io::copy(&mut from, &mut to)
            .and_then(|_| to.sync_all())
            .map_err(|error| CurateError::io("write", &run.out.join(&name), error))?;
        run.progress.advance(1);
    }
    Ok(())
}

/// `dropped.parquet`: a row for all that is not in the dataset. What came of the mix is counted.
fn dropped(
    run: &Run<'_>,
    kept: &Kept,
    tokens: &Tokens,
    epochs: &Epochs,
    staging: &Staging,
) -> Result<Flow, CurateError> {
    // Of duplicates, the name of the document that stays is told.
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    for task in 0..tokens.tasks {
        for named in Records::<Named>::open(&tokens.names(task))? {
            names.extend([named?]);
        }
    }
    let (mut table, mut mixed) = (
        DroppedTable::new(staging.file(dropped::FILE_NAME)?)?,
        Flow::default(),
    );
    for refused in &kept.documents.refused {
        table.push(refused.clone().without_scores(), None)?;
    }
    for task in 0..tokens.tasks {
        let files: [PathBuf; 2] = [kept.documents.dropped(task), tokens.dropped(task)];
        for path in files {
            for row in Records::<dropped::Row>::open(&path)? {
                run.progress.check()?;
                let row = row?;
                let kept = row.kept.and_then(|ordinal| names.get(&ordinal).cloned());
                table.push(row, kept)?;
            }
        }
        if epochs.is_on() {
            left_out(
                run.progress,
                &tokens.rows(task, Part::Train),
                epochs,
                &mut mixed,
                &mut table,
            )?;
        }
        run.progress.advance(1);
    }
    table.finish()?;
    Ok(mixed)
}

/// Those documents of the rows of a task that the mix has no use for.
fn left_out(
    progress: &Progress,
    rows: &Path,
    epochs: &Epochs,
    mixed: &mut Flow,
    table: &mut DroppedTable,
) -> Result<(), CurateError> {
    for row in Records::<Row>::open(rows)? {
        progress.check()?;
        let row = row?;
        match epochs.verdict(&row) {
            None => mixed.pass(row.size(), row.size()),
            Some((reason, detail)) => {
                mixed.drop(row.size(), reason, Some(row.language()));
                table.push(row.left_out(reason, detail), None)?;
            }
        }
    }
    Ok(())
}
