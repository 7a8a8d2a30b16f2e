//! The pipeline: read, choose, hold out, train the tokenizer, tokenize, write.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use crate::corpus::Corpus;
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::error::DataError;
use crate::manifest::{CorpusRecord, Manifest, OptionsRecord};
use crate::progress::{Monitor, Progress, Stage};
use crate::scan::{Document, Listing, scan};
use crate::select::{hold_out, tokenizer_sample, within_budget};
use crate::skip::Skipped;
use crate::staging::{Staging, is_free, resolve};
use crate::tokenizer::{MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, Tokenizer};
use crate::write::write;
use crate::writer::DatasetWriter;

/// What to build a dataset from, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildOptions {
    /// The text.
    pub corpus: Corpus,
    /// The folder that becomes the dataset. It must not exist, or be empty, or hold this very dataset
    /// already.
    pub out: PathBuf,
    /// Tokens in the vocabulary, 257 to 2^24.
    pub vocab_size: usize,
    /// Fraction of documents held out for validation, above 0 and below 1.
    pub validation_fraction: f64,
    /// Where set, a uniform sample of whole documents of at most so many bytes is used.
    pub max_bytes: Option<u64>,
    /// At most so many bytes of the training text teach the tokenizer.
    pub tokenizer_sample_bytes: u64,
    /// A shard ends with the document that passes this size.
    pub shard_bytes: u64,
}

/// A dataset that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// What it holds.
    pub manifest: Manifest,
    /// Whether it was there before, built from the same text with the same options.
    pub reused: bool,
}

impl BuildOptions {
    /// All of `corpus` into `out`, 1% of it held out, with defaults for the rest.
    #[must_use]
    pub fn new(corpus: Corpus, out: impl Into<PathBuf>, vocab_size: usize) -> Self {
        Self {
            corpus,
            out: out.into(),
            vocab_size,
            validation_fraction: 0.01,
            max_bytes: None,
            tokenizer_sample_bytes: 8_000_000,
            shard_bytes: 512_000_000,
        }
    }

    fn check(&self) -> Result<OptionsRecord, DataError> {
        let Self {
            vocab_size,
            validation_fraction,
            max_bytes,
            tokenizer_sample_bytes,
            shard_bytes,
            ..
        } = *self;
        let in_bounds = |fine: bool, name, value: String, bound: &str| {
            if fine {
                Ok(())
            } else {
                Err(DataError::InvalidOption {
                    name,
                    value,
                    bound: bound.to_owned(),
                })
            }
        };
        let vocabulary = MIN_VOCAB_SIZE..=MAX_VOCAB_SIZE;
        let bound = format!("{MIN_VOCAB_SIZE} to {MAX_VOCAB_SIZE}");
        in_bounds(
            vocabulary.contains(&vocab_size),
            "vocab_size",
            vocab_size.to_string(),
            &bound,
        )?;
        let fine = validation_fraction > 0.0 && validation_fraction < 1.0;
        in_bounds(
            fine,
            "validation_fraction",
            validation_fraction.to_string(),
            "above 0 and below 1",
        )?;
        let value = max_bytes.unwrap_or(1);
        in_bounds(value > 0, "max_bytes", value.to_string(), "at least 1")?;
        let value = tokenizer_sample_bytes;
        in_bounds(
            value > 0,
            "tokenizer_sample_bytes",
            value.to_string(),
            "at least 1",
        )?;
        in_bounds(
            shard_bytes > 0,
            "shard_bytes",
            shard_bytes.to_string(),
            "at least 1",
        )?;
        Ok(OptionsRecord {
            vocab_size,
            validation_fraction,
            max_bytes,
            tokenizer_sample_bytes,
            shard_bytes,
        })
    }
}

/// Builds the dataset that `options` describe, or finds it built. `report` is told of progress, on the
/// calling thread. Once `cancelled` is set, the build stops at the next document, or after the tokenizer's
/// training, which takes seconds.
///
/// Runs on rayon's current pool. Holds one batch of documents in memory, some 8 MB of text, or the largest
/// document.
///
/// # Errors
/// As [`DataError`] tells; whatever the error, nothing is left behind, and nothing that was there is touched.
pub fn build(
    options: &BuildOptions,
    report: &mut dyn FnMut(Progress),
    cancelled: &AtomicBool,
) -> Result<Built, DataError> {
    let record = options.check()?;
    let out = &resolve(&options.out)?;
    let mut monitor = Monitor::new(report, cancelled);
    let mut skipped = Skipped::default();
    // What is there is looked at before the long read, for an early answer, and after it, now that the corpus
    // is known.
    standing(out, options.corpus.kind(), &record, None)?;

    let candidates = options.corpus.list(out, &mut skipped, monitor.stop())?;
    let Listing { documents, digest } = scan(candidates, &mut skipped, &mut monitor)?;
    if documents.is_empty() {
        return Err(DataError::NoText {
            path: options.corpus.root()?,
            skipped,
        });
    }
    let corpus = CorpusRecord {
        kind: options.corpus.kind().to_owned(),
        documents: documents.len() as u64,
        bytes: documents.iter().map(|document| document.bytes).sum(),
        digest,
    };
    if let Some(manifest) = standing(out, &corpus.kind, &record, Some(digest))? {
        return Ok(Built {
            manifest,
            reused: true,
        });
    }
    let staging = Staging::begin(out)?;
    // Another build may have finished just before its lock became ours.
    if let Some(manifest) = standing(out, &corpus.kind, &record, Some(digest))? {
        return Ok(Built {
            manifest,
            reused: true,
        });
    }

    let documents = within_budget(documents, record.max_bytes, &mut skipped)?;
    let (train, validation) = hold_out(documents, record.validation_fraction);
    let tokenizer = train_tokenizer(&train, &record, &mut monitor)?;
    let mut writer = DatasetWriter::new(&staging, &tokenizer, record, &[])?;
    let gzip = write(&mut writer, &tokenizer, [train, validation], &mut monitor)?;
    let manifest = writer.finish(corpus, skipped, gzip)?;
    monitor.stop().check()?;
    staging.publish()?;
    Ok(Built {
        manifest,
        reused: false,
    })
}

/// The dataset that stands at `out`, if it is the wanted one; none if nothing stands there.
fn standing(
    out: &Path,
    kind: &str,
    wanted: &OptionsRecord,
    corpus: Option<Digest>,
) -> Result<Option<Manifest>, DataError> {
    let occupied = |holds: String| {
        Err(DataError::Occupied {
            path: out.to_owned(),
            holds,
        })
    };
    if is_free(out)? {
        return Ok(None);
    }
    let manifest = match Dataset::open(out) {
        Ok(dataset) => dataset.manifest().clone(),
        Err(DataError::NotADataset { .. }) => return occupied("holds files that are no dataset".to_owned()),
        Err(error) => return occupied(format!("holds a dataset that cannot be used ({error})")),
    };
    if let Some(difference) = manifest.options.difference(wanted) {
        return occupied(format!("holds a dataset built with other options ({difference})"));
    }
    if manifest.corpus.kind != kind || corpus.is_some_and(|digest| manifest.corpus.digest != digest) {
        return occupied("holds a dataset built from other text".to_owned());
    }
    Ok(Some(manifest))
}

fn train_tokenizer(
    train: &[Document],
    record: &OptionsRecord,
    monitor: &mut Monitor<'_>,
) -> Result<Tokenizer, DataError> {
    let stop = monitor.stop();
    let sample = tokenizer_sample(train, record.tokenizer_sample_bytes);
    let bytes = sample.iter().map(|(_, bytes)| bytes).sum();
    monitor.enter(Stage::Tokenizer, bytes);
    let texts: Vec<String> = sample
        .into_par_iter()
        .map(|(document, bytes)| {
            let mut text = document.text(stop)?;
            text.truncate(text.floor_char_boundary(bytes as usize));
            Ok(text)
        })
        .collect::<Result<_, DataError>>()?;
    let tokenizer = Tokenizer::train(&texts, record.vocab_size)?;
    stop.check()?;
    monitor.advance(bytes);
    Ok(tokenizer)
}
