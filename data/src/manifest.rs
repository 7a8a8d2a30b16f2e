//! `dataset.json`: what a dataset holds and what it was made from.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::digest::{Digest, Hasher};
use crate::error::DataError;
use crate::megatron::TokenType;
use crate::skip::Skipped;

/// The manifest's name in the dataset's folder.
pub const FILE_NAME: &str = "dataset.json";
/// The tokenizer's name.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The provenance table's name.
pub const DOCUMENTS_FILE: &str = "documents.parquet";
/// The one format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What a dataset holds and what it was made from. Two datasets with the same [`Manifest::digest`] hold the
/// same bytes.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Digest over the names, sizes and digests of all files but this one.
    pub digest: Digest,
    /// What it was made from.
    pub corpus: CorpusRecord,
    /// How it was made.
    pub options: OptionsRecord,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// The token that ends each document.
    pub eos_id: u32,
    /// How wide a token is on disk.
    pub token_type: TokenType,
    /// What is trained on.
    pub train: SplitRecord,
    /// What is held out.
    pub validation: SplitRecord,
    /// Size of the validation text under `gzip -9`, in bits per byte of text: what a model has to beat.
    /// None where nothing is held out.
    pub gzip_bits_per_byte: Option<f64>,
    /// Files of the corpus that were left out.
    pub skipped: Skipped,
    /// Every file of the dataset but this one, by name.
    pub files: BTreeMap<String, FileRecord>,
}

/// What a dataset was made from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CorpusRecord {
    /// `folder` or `cargo-registry`.
    pub kind: String,
    /// Documents found, before `max_bytes`.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Digest over path, size, content and provenance of them all.
    pub digest: Digest,
}

/// How a dataset was made: the options that decide its bytes.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct OptionsRecord {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Fraction of documents held out.
    pub validation_fraction: f64,
    /// At most so many bytes of text are used.
    pub max_bytes: Option<u64>,
    /// At most so many bytes of text teach the tokenizer.
    pub tokenizer_sample_bytes: u64,
    /// A shard ends with the document that passes this size.
    pub shard_bytes: u64,
}

/// What a split holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SplitRecord {
    /// Documents.
    pub documents: u64,
    /// Tokens, one end of text for each document among them.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Its shards, in order: the split's tokens are theirs, one after the other.
    pub shards: Vec<ShardRecord>,
}

/// What a shard holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShardRecord {
    /// Name of its two files, without `.bin` and `.idx`.
    pub name: String,
    /// Documents.
    pub documents: u64,
    /// Tokens.
    pub tokens: u64,
}

/// A file of the dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileRecord {
    /// Its size.
    pub bytes: u64,
    /// Digest of its content.
    pub digest: Digest,
}

impl Manifest {
    /// Reads the manifest of the dataset in `folder`.
    ///
    /// # Errors
    /// If there is none, or it is of another version, or does not agree with itself.
    pub fn read(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(FILE_NAME);
        let json = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => DataError::NotADataset {
                path: folder.to_owned(),
            },
            _ => DataError::io("read", &path, error),
        })?;
        let malformed = |problem: String| DataError::Malformed {
            path: path.clone(),
            problem,
        };
        // Only the version is looked at first: another one may have other fields.
        let value: serde_json::Value =
            serde_json::from_slice(&json).map_err(|error| malformed(error.to_string()))?;
        let version = value.get("format_version").and_then(serde_json::Value::as_u64);
        match version {
            Some(version) if version == u64::from(FORMAT_VERSION) => {}
            Some(found) => {
                return Err(DataError::Version {
                    path: folder.to_owned(),
                    found,
                    supported: FORMAT_VERSION,
                });
            }
            None => return Err(malformed("format_version is missing".to_owned())),
        }
        let manifest: Self = serde_json::from_value(value).map_err(|error| malformed(error.to_string()))?;
        manifest
            .contradiction()
            .map_or(Ok(manifest), |problem| Err(malformed(problem.to_owned())))
    }

    /// As the content of the file.
    pub(crate) fn to_json(&self) -> Result<String, DataError> {
        let mut json = serde_json::to_string_pretty(self).map_err(|error| DataError::Malformed {
            path: FILE_NAME.into(),
            problem: error.to_string(),
        })?;
        json.push('\n');
        Ok(json)
    }

    /// The digest that belongs to `files`.
    #[must_use]
    pub fn digest_of(files: &BTreeMap<String, FileRecord>) -> Digest {
        let mut hasher = Hasher::default();
        for (name, file) in files {
            hasher.field(name.as_bytes());
            hasher.update(&file.bytes.to_le_bytes());
            hasher.update(file.digest.as_bytes());
        }
        hasher.digest()
    }

    /// What in the manifest does not fit together.
    fn contradiction(&self) -> Option<&'static str> {
        for split in [&self.train, &self.validation] {
            let sum = |count: fn(&ShardRecord) -> u64| {
                split
                    .shards
                    .iter()
                    .try_fold(0u64, |sum, shard| sum.checked_add(count(shard)))
            };
            if sum(|shard| shard.tokens) != Some(split.tokens) {
                return Some("a split's tokens are not the sum of its shards'");
            }
            if sum(|shard| shard.documents) != Some(split.documents) {
                return Some("a split's documents are not the sum of its shards'");
            }
            for shard in &split.shards {
                let Some(bin) = self.files.get(&format!("{}.bin", shard.name)) else {
                    return Some("a shard has no .bin among the files");
                };
                if !self.files.contains_key(&format!("{}.idx", shard.name)) {
                    return Some("a shard has no .idx among the files");
                }
                if shard.tokens.checked_mul(self.token_type.bytes()) != Some(bin.bytes) {
                    return Some("a shard's .bin has another size than its tokens take");
                }
            }
        }
        if self
            .files
            .keys()
            .any(|name| name.contains(['/', '\\']) || name.starts_with('.'))
        {
            return Some("a file's name is a path");
        }
        (Self::digest_of(&self.files) != self.digest).then_some("its digest is not that of its files")
    }
}

impl OptionsRecord {
    /// In what these options differ from `wanted`, in words; nothing if they give the same dataset.
    pub(crate) fn difference(&self, wanted: &Self) -> Option<String> {
        let mut differences = Vec::new();
        let mut compare = |name: &str, found: String, wanted: String| {
            if found != wanted {
                differences.push(format!("{name} = {found} where {wanted} is wanted"));
            }
        };
        let budget = |bytes: Option<u64>| bytes.map_or("none".to_owned(), |bytes| bytes.to_string());
        // Nine digits: JSON may lose the last bit of a float.
        let fraction = |fraction: f64| format!("{fraction:.9}");
        compare(
            "vocab_size",
            self.vocab_size.to_string(),
            wanted.vocab_size.to_string(),
        );
        compare(
            "validation_fraction",
            fraction(self.validation_fraction),
            fraction(wanted.validation_fraction),
        );
        compare("max_bytes", budget(self.max_bytes), budget(wanted.max_bytes));
        compare(
            "tokenizer_sample_bytes",
            self.tokenizer_sample_bytes.to_string(),
            wanted.tokenizer_sample_bytes.to_string(),
        );
        compare(
            "shard_bytes",
            self.shard_bytes.to_string(),
            wanted.shard_bytes.to_string(),
        );
        (!differences.is_empty()).then(|| differences.join(", "))
    }
}
