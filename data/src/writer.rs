//! A dataset written document by document: for whoever has the tokens already.

use std::collections::BTreeMap;

use crate::documents::{DocumentInfo, DocumentTable, ExtraColumn};
use crate::error::DataError;
use crate::manifest::{
    CorpusRecord, DOCUMENTS_FILE, FILE_NAME, FORMAT_VERSION, FileRecord, Manifest, OptionsRecord,
    SplitRecord, TOKENIZER_FILE,
};
use crate::megatron::TokenType;
use crate::shards::{Part, ShardWriter};
use crate::skip::Skipped;
use crate::staging::Staging;
use crate::tokenizer::Tokenizer;

/// Writes a dataset: first its training split, then what is held out. It appears whole with
/// [`finish`](Self::finish) or not at all.
pub struct DatasetWriter<'a> {
    staging: &'a Staging,
    token_type: TokenType,
    vocab_size: usize,
    options: OptionsRecord,
    table: DocumentTable,
    files: BTreeMap<String, FileRecord>,
    /// The split that is being written, and those that are.
    open: ShardWriter<'a>,
    train: Option<SplitRecord>,
    /// Text and tokens so far, in bytes.
    written: (u64, u64),
    /// The token after each document.
    end_of_text: u32,
}

impl<'a> DatasetWriter<'a> {
    /// Starts a dataset in `staging`, with a table of documents that has `columns` beyond those that all have.
    ///
    /// # Errors
    /// If it cannot be written, or the tokenizer has no token to end documents with.
    pub fn new(
        staging: &'a Staging,
        tokenizer: &Tokenizer,
        options: OptionsRecord,
        columns: &[ExtraColumn],
    ) -> Result<Self, DataError> {
        let end_of_text = tokenizer.end_of_text().ok_or_else(|| DataError::Tokenizer {
            action: "read the tokenizer",
            problem: "it is not known which token ends documents".to_owned(),
        })?;
        let mut file = staging.create(TOKENIZER_FILE)?;
        file.put(tokenizer.to_json()?.as_bytes())?;
        let files = BTreeMap::from([(TOKENIZER_FILE.to_owned(), file.close()?)]);
        let vocab_size = tokenizer.vocab_size();
        let token_type = TokenType::of_vocabulary(vocab_size);
        Ok(Self {
            open: ShardWriter::new(staging, Part::Train, token_type, options.shard_bytes)?,
            table: DocumentTable::create(staging, columns)?,
            staging,
            token_type,
            vocab_size,
            end_of_text,
            options,
            files,
            train: None,
            written: (0, 0),
        })
    }

    /// Adds a document, whose tokens are `runs` one after the other, to the split that is being written.
    ///
    /// # Errors
    /// If it cannot be written, or has too many tokens.
    pub fn push(&mut self, info: DocumentInfo, runs: &[Vec<u32>]) -> Result<(), DataError> {
        let place = self.open.push((&info.id, info.bytes), runs, self.end_of_text)?;
        self.written.0 += info.bytes;
        self.written.1 += place.tokens * self.token_type.bytes();
        let part = self.part();
        self.table.push(info, part, place)
    }

    fn part(&self) -> Part {
        if self.train.is_none() {
            Part::Train
        } else {
            Part::Validation
        }
    }

    /// Ends the training split: what is pushed from now on is held out.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin_held_out(&mut self) -> Result<(), DataError> {
        let shard_bytes = self.options.shard_bytes;
        let next = ShardWriter::new(self.staging, Part::Validation, self.token_type, shard_bytes)?;
        let (record, files) = std::mem::replace(&mut self.open, next).finish()?;
        self.files.extend(files);
        self.train = Some(record);
        Ok(())
    }

    /// Ends both splits and writes the manifest. `gzip_bits_per_byte` is what [`Gzip`](crate::gzip::Gzip) makes of the text
    /// that is held out.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(
        mut self,
        corpus: CorpusRecord,
        skipped: Skipped,
        gzip_bits_per_byte: Option<f64>,
    ) -> Result<Manifest, DataError> {
        if self.train.is_none() {
            self.begin_held_out()?;
        }
        let (validation, files) = self.open.finish()?;
        self.files.extend(files);
        self.files.insert(DOCUMENTS_FILE.to_owned(), self.table.finish()?);
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            digest: Manifest::digest_of(&self.files),
            corpus,
            options: self.options,
            vocab_size: self.vocab_size,
            eos_id: self.end_of_text,
            token_type: self.token_type,
            train: self.train.unwrap_or_default(),
            validation,
            gzip_bits_per_byte,
            skipped,
            files: self.files,
        };
        let mut file = self.staging.create(FILE_NAME)?;
        file.put(manifest.to_json()?.as_bytes())?;
        file.close()?;
        Ok(manifest)
    }

    /// About how much the tokens of `text_bytes` of text take, judged by those written so far; 0 if none are.
    pub(crate) fn expected_bytes(&self, text_bytes: u64) -> u64 {
        let (text, tokens) = self.written;
        (tokens as f64 * (text_bytes as f64 / text.max(1) as f64)) as u64
    }
}
