//! The reader: checks, splits, windows of tokens.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::digest::Digest;
use crate::error::DataError;
use crate::manifest::{FileRecord, Manifest, SplitRecord, TOKENIZER_FILE};
use crate::megatron::{IndexHeader, TokenType};
use crate::tokenizer::Tokenizer;

/// A dataset on disk, open for reading by any number of threads.
#[derive(Debug)]
pub struct Dataset {
    folder: PathBuf,
    manifest: Manifest,
    train: Split,
    validation: Split,
}

/// One split of a dataset: a stream of tokens, which is that of all its documents one after the other.
#[derive(Debug)]
pub struct Split {
    name: &'static str,
    record: SplitRecord,
    token_type: TokenType,
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    /// Where in the split's stream it begins.
    start: u64,
    tokens: u64,
}

impl Dataset {
    /// Opens the dataset in `folder`. Checks the manifest, the presence and size of every file and the head
    /// of every index, but not the digests: see [`Dataset::verify`].
    ///
    /// # Errors
    /// If it is no dataset, of another version, or damaged in a way that shows without reading it all.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let manifest = Manifest::read(folder)?;
        for (name, file) in &manifest.files {
            let path = folder.join(name);
            let found_bytes = fs::metadata(&path).map_err(|error| absent(&path, error))?.len();
            if found_bytes != file.bytes {
                return Err(DataError::Truncated {
                    path,
                    expected_bytes: file.bytes,
                    found_bytes,
                });
            }
        }
        let train = Split::open("train", folder, &manifest.train, manifest.token_type)?;
        let validation = Split::open("validation", folder, &manifest.validation, manifest.token_type)?;
        Ok(Self {
            folder: folder.to_owned(),
            manifest,
            train,
            validation,
        })
    }

    /// Reads every file and compares its digest, in parallel.
    ///
    /// # Errors
    /// The first file, by name, that is not what the manifest says.
    pub fn verify(&self) -> Result<(), DataError> {
        let files: Vec<(&String, &FileRecord)> = self.manifest.files.iter().collect();
        let check = |(name, file): (&String, &FileRecord)| {
            let path = self.folder.join(name);
            let (found, found_bytes) = Digest::of_file(&path)?;
            if found_bytes != file.bytes {
                Err(DataError::Truncated {
                    path,
                    expected_bytes: file.bytes,
                    found_bytes,
                })
            } else if found != file.digest {
                Err(DataError::Corrupt {
                    path,
                    expected: file.digest,
                    found,
                })
            } else {
                Ok(())
            }
        };
        files
            .into_par_iter()
            .map(check)
            .collect::<Vec<_>>()
            .into_iter()
            .collect()
    }

    /// What it holds and what it was made from.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What is trained on.
    #[must_use]
    pub fn train(&self) -> &Split {
        &self.train
    }

    /// What is held out. Empty where the corpus was a single document.
    #[must_use]
    pub fn validation(&self) -> &Split {
        &self.validation
    }

    /// Where its `tokenizer.json` is.
    #[must_use]
    pub fn tokenizer_path(&self) -> PathBuf {
        self.folder.join(TOKENIZER_FILE)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn tokenizer(&self) -> Result<Tokenizer, DataError> {
        Tokenizer::open_with_id(&self.tokenizer_path(), self.manifest().eos_id)
    }
}

impl Split {
    fn open(
        name: &'static str,
        folder: &Path,
        record: &SplitRecord,
        token_type: TokenType,
    ) -> Result<Self, DataError> {
        let mut shards = Vec::with_capacity(record.shards.len());
        let mut start = 0;
        for shard in &record.shards {
            let idx = folder.join(format!("{}.idx", shard.name));
            let header = IndexHeader::read(&idx)?;
            let expected = IndexHeader {
                token_type,
                sequences: shard.documents,
                bounds: shard.documents + 1,
            };
            if header != expected {
                let problem = format!("says {header:?}, the manifest says {expected:?}");
                return Err(DataError::Malformed { path: idx, problem });
            }
            let path = folder.join(format!("{}.bin", shard.name));
            let file = File::open(&path).map_err(|error| absent(&path, error))?;
            shards.push(Shard {
                path,
                file,
                start,
                tokens: shard.tokens,
            });
            start += shard.tokens;
        }
        Ok(Self {
            name,
            record: record.clone(),
            token_type,
            shards,
        })
    }

    /// Tokens in the stream, one end of text for each document among them.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.record.tokens
    }

    /// Documents in the stream.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.record.documents
    }

    /// Bytes of text that the stream encodes: what a loss in bits per byte is divided by.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.record.bytes
    }

    /// Number of whole samples of `sequence_length` tokens each. Sample `i` is the window from token `i ×
    /// sequence_length` to token `(i + 1) × sequence_length`, both included: the inputs, and one more, so
    /// that each input has its target.
    #[must_use]
    pub fn samples(&self, sequence_length: usize) -> u64 {
        self.tokens()
            .saturating_sub(1)
            .checked_div(sequence_length as u64)
            .unwrap_or(0)
    }

    /// The samples of `sequence_length` tokens that hold one of these tokens, as input or target. Two samples hold the
    /// token on which they border; none holds those after the last whole sample.
    #[must_use]
    pub fn samples_of(&self, tokens: Range<u64>, sequence_length: usize) -> Range<u64> {
        let length = sequence_length.max(1) as u64;
        if tokens.is_empty() {
            return 0..0;
        }
        let last = self.samples(sequence_length);
        let end = tokens.end.div_ceil(length).min(last);
        (tokens.start.saturating_sub(1) / length).min(end)..end
    }

    /// Checks that there are at least `samples` samples, the size of one batch, and returns how many there
    /// are.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn require(&self, samples: u64, sequence_length: usize) -> Result<u64, DataError> {
        let found = self.samples(sequence_length);
        if found >= samples {
            return Ok(found);
        }
        let needed = samples.saturating_mul(sequence_length as u64).saturating_add(1);
        Err(DataError::NotEnoughTokens {
            split: self.name,
            tokens: self.tokens(),
            needed,
        })
    }

    /// Reads sample number `sample` into `out`, which holds the sequence length and one more.
    ///
    /// # Errors
    /// If there is no such sample, or the file cannot be read.
    pub fn read(&self, sample: u64, out: &mut [u32]) -> Result<(), DataError> {
        let sequence_length = (out.len() as u64).saturating_sub(1);
        self.read_at(sample.saturating_mul(sequence_length), out)
    }

    /// Fills `out` with the tokens from number `start` of the stream on.
    ///
    /// # Errors
    /// If the stream ends before, or the file cannot be read.
    pub fn read_at(&self, start: u64, out: &mut [u32]) -> Result<(), DataError> {
        let end = start.saturating_add(out.len() as u64);
        if end > self.tokens() {
            return Err(DataError::OutOfRange {
                split: self.name,
                start,
                end,
                tokens: self.tokens(),
            });
        }
        let first = self
            .shards
            .partition_point(|shard| shard.start + shard.tokens <= start);
        let (mut at, mut rest) = (start, out);
        for shard in &self.shards[first..] {
            if rest.is_empty() {
                break;
            }
            let here = (shard.start + shard.tokens - at).min(rest.len() as u64);
            let (part, after) = rest.split_at_mut(here as usize);
            shard.read(at - shard.start, part, self.token_type)?;
            (at, rest) = (at + here, after);
        }
        Ok(())
    }

    /// The whole stream.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read_all(&self) -> Result<Vec<u32>, DataError> {
        let mut tokens = vec![0; self.tokens() as usize];
        self.read_at(0, &mut tokens)?;
        Ok(tokens)
    }
}

impl Shard {
    fn read(&self, start: u64, out: &mut [u32], token_type: TokenType) -> Result<(), DataError> {
        let offset = start * token_type.bytes();
        token_type
            .get(out, |bytes| self.file.read_exact_at(bytes, offset))
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => DataError::Truncated {
                    path: self.path.clone(),
                    expected_bytes: self.tokens * token_type.bytes(),
                    found_bytes: self.file.metadata().map_or(0, |metadata| metadata.len()),
                },
                _ => DataError::io("read", &self.path, error),
            })
    }
}

fn absent(path: &Path, error: io::Error) -> DataError {
    match error.kind() {
        io::ErrorKind::NotFound => DataError::Missing {
            path: path.to_owned(),
        },
        _ => DataError::io("open", path, error),
    }
}
