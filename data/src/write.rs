//! The files of a dataset: tokenizer, shards and provenance, all but the manifest.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::documents::DocumentTable;
use crate::error::DataError;
use crate::gzip::Gzip;
use crate::manifest::{DOCUMENTS_FILE, FileRecord, OptionsRecord, SplitRecord, TOKENIZER_FILE};
use crate::megatron::TokenType;
use crate::progress::{Monitor, Stage};
use crate::scan::Document;
use crate::shards::{Part, ShardWriter};
use crate::staging::Staging;
use crate::tokenizer::{END_OF_TEXT_ID, Tokenizer};

/// Text in memory at a time, unless one document is larger.
const BATCH_BYTES: u64 = 8 << 20;

/// What was written.
pub(crate) struct Written {
    pub(crate) token_type: TokenType,
    pub(crate) train: SplitRecord,
    pub(crate) validation: SplitRecord,
    pub(crate) gzip_bits_per_byte: Option<f64>,
    pub(crate) files: BTreeMap<String, FileRecord>,
}

/// Tokenizes the documents to train on and those held out, and writes all files but the manifest.
pub(crate) fn write(
    staging: &Staging,
    tokenizer: &Tokenizer,
    record: &OptionsRecord,
    [train, validation]: [Vec<Document>; 2],
    monitor: &mut Monitor<'_>,
) -> Result<Written, DataError> {
    let text_bytes = train
        .iter()
        .chain(&validation)
        .map(|document| document.bytes)
        .sum();
    monitor.enter(Stage::Tokenize, text_bytes);
    let mut writer = Writer::new(staging, tokenizer, record)?;
    let written = writer.write(train, validation, monitor);
    written.map_err(|error| match writer.expected_bytes(text_bytes) {
        0 => error,
        bytes => error.with_needed_bytes(bytes),
    })
}

/// Writes all files of a dataset but its manifest.
struct Writer<'a> {
    staging: &'a Staging,
    tokenizer: &'a Tokenizer,
    token_type: TokenType,
    shard_bytes: u64,
    table: DocumentTable,
    gzip: Gzip,
    files: BTreeMap<String, FileRecord>,
    /// Text that was tokenized so far.
    text_bytes: u64,
    /// What its tokens take.
    token_bytes: u64,
}

impl<'a> Writer<'a> {
    fn new(
        staging: &'a Staging,
        tokenizer: &'a Tokenizer,
        record: &OptionsRecord,
    ) -> Result<Self, DataError> {
        let mut file = staging.create(TOKENIZER_FILE)?;
        file.put(tokenizer.to_json()?.as_bytes())?;
        let files = BTreeMap::from([(TOKENIZER_FILE.to_owned(), file.close()?)]);
        Ok(Self {
            staging,
            tokenizer,
            token_type: TokenType::of_vocabulary(tokenizer.vocab_size()),
            shard_bytes: record.shard_bytes,
            table: DocumentTable::create(staging)?,
            gzip: Gzip::default(),
            files,
            text_bytes: 0,
            token_bytes: 0,
        })
    }

    fn write(
        &mut self,
        train: Vec<Document>,
        validation: Vec<Document>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Written, DataError> {
        let train = self.part(Part::Train, train, monitor)?;
        let validation = self.part(Part::Validation, validation, monitor)?;
        self.files.insert(DOCUMENTS_FILE.to_owned(), self.table.finish()?);
        Ok(Written {
            token_type: self.token_type,
            train,
            validation,
            gzip_bits_per_byte: self.gzip.bits_per_byte()?,
            files: std::mem::take(&mut self.files),
        })
    }

    /// Tokenizes and writes one part.
    fn part(
        &mut self,
        part: Part,
        documents: Vec<Document>,
        monitor: &mut Monitor<'_>,
    ) -> Result<SplitRecord, DataError> {
        let stop = monitor.stop();
        let mut shards = ShardWriter::new(self.staging, part, self.token_type, self.shard_bytes)?;
        for batch in batches(documents) {
            let bytes = batch.iter().map(|document| document.bytes).sum();
            let texts: Vec<String> = batch.par_iter().map(|d| d.text(stop)).collect::<Result<_, _>>()?;
            let tokens = self.tokenizer.encode_all(&texts, stop)?;
            for ((document, text), runs) in batch.into_iter().zip(texts).zip(tokens) {
                if part == Part::Validation {
                    self.gzip.put(text.as_bytes())?;
                }
                let tokens: u64 = runs.iter().map(|run| run.len() as u64).sum();
                self.token_bytes += tokens * self.token_type.bytes();
                self.text_bytes += document.bytes;
                let place = shards.push(&document, &runs, END_OF_TEXT_ID)?;
                self.table.push(document, part, place)?;
            }
            monitor.advance(bytes);
        }
        let (record, files) = shards.finish()?;
        self.files.extend(files);
        Ok(record)
    }

    /// About how much the tokens of `text_bytes` of text take, judged by those written so far; 0 if none are.
    fn expected_bytes(&self, text_bytes: u64) -> u64 {
        let scale = text_bytes as f64 / self.text_bytes.max(1) as f64;
        (self.token_bytes as f64 * scale) as u64
    }
}

/// Cuts documents in batches of about [`BATCH_BYTES`], in order.
fn batches(documents: Vec<Document>) -> impl Iterator<Item = Vec<Document>> {
    let mut documents = documents.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut batch: Vec<Document> = documents.next().into_iter().collect();
        let mut bytes: u64 = batch.iter().map(|document| document.bytes).sum();
        while let Some(document) = documents.next_if(|next| bytes + next.bytes <= BATCH_BYTES) {
            bytes += document.bytes;
            batch.push(document);
        }
        (!batch.is_empty()).then_some(batch)
    })
}
