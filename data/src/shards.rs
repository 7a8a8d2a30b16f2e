//! Documents' tokens, in order, into shards of bounded size.

use std::collections::BTreeMap;

use crate::error::DataError;
use crate::manifest::{FileRecord, ShardRecord, SplitRecord};
use crate::megatron::{TokenType, write_index};
use crate::staging::{OutFile, Staging};

/// One of the two splits of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What is trained on.
    Train,
    /// What is held out.
    Validation,
}

impl Part {
    /// Its name in the table of documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }

    /// The name of its `number`-th shard.
    fn shard(self, number: usize) -> String {
        match self {
            Self::Train => format!("shard-{number:05}"),
            Self::Validation => format!("validation-{number:05}"),
        }
    }
}

/// Where a document's tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The shard's number in its split.
    pub(crate) shard: u32,
    /// The sequence's number in the shard.
    pub(crate) sequence: u64,
    /// The sequence's tokens, the end among them.
    pub(crate) tokens: u64,
}

/// Writes the shards of one split.
pub(crate) struct ShardWriter<'a> {
    staging: &'a Staging,
    part: Part,
    token_type: TokenType,
    shard_bytes: u64,
    open: Shard,
    record: SplitRecord,
    files: BTreeMap<String, FileRecord>,
}

/// The shard that is being written.
struct Shard {
    bin: OutFile,
    lengths: Vec<i32>,
    tokens: u64,
    buffer: Vec<u8>,
}

impl Shard {
    fn create(staging: &Staging, part: Part, number: usize) -> Result<Self, DataError> {
        let bin = staging.create(&format!("{}.bin", part.shard(number)))?;
        Ok(Self {
            bin,
            lengths: Vec::new(),
            tokens: 0,
            buffer: Vec::new(),
        })
    }
}

impl<'a> ShardWriter<'a> {
    /// Starts a split whose shards each end with the document that passes
    /// `shard_bytes`.
    pub(crate) fn new(
        staging: &'a Staging,
        part: Part,
        token_type: TokenType,
        shard_bytes: u64,
    ) -> Result<Self, DataError> {
        let open = Shard::create(staging, part, 0)?;
        let (record, files) = (SplitRecord::default(), BTreeMap::new());
        Ok(Self {
            staging,
            part,
            token_type,
            shard_bytes,
            open,
            record,
            files,
        })
    }

    /// Writes a document of `bytes` bytes of text, whose tokens are `runs` one after the other, and then `end`.
    pub(crate) fn push(
        &mut self,
        (id, bytes): (&str, u64),
        runs: &[Vec<u32>],
        end: u32,
    ) -> Result<Place, DataError> {
        let tokens = runs.iter().map(|run| run.len() as u64).sum::<u64>() + 1;
        let Ok(length) = i32::try_from(tokens) else {
            return Err(DataError::DocumentTooLong {
                id: id.to_owned(),
                tokens,
            });
        };
        if self.open.tokens * self.token_type.bytes() >= self.shard_bytes {
            self.close()?;
            self.open = Shard::create(self.staging, self.part, self.record.shards.len())?;
        }
        let shard = &mut self.open;
        for run in runs.iter().map(Vec::as_slice).chain([&[end][..]]) {
            shard.buffer.clear();
            self.token_type.put(run, &mut shard.buffer);
            shard.bin.put(&shard.buffer)?;
        }
        let sequence = shard.lengths.len() as u64;
        shard.lengths.push(length);
        shard.tokens += tokens;
        self.record.documents += 1;
        self.record.bytes += bytes;
        self.record.tokens += tokens;
        Ok(Place {
            shard: self.record.shards.len() as u32,
            sequence,
            tokens,
        })
    }

    /// Ends the split.
    pub(crate) fn finish(mut self) -> Result<(SplitRecord, BTreeMap<String, FileRecord>), DataError> {
        self.close()?;
        Ok((self.record, self.files))
    }

    fn close(&mut self) -> Result<(), DataError> {
        let name = self.part.shard(self.record.shards.len());
        let bin = self.open.bin.close()?;
        let mut idx = self.staging.create(&format!("{name}.idx"))?;
        write_index(&mut idx, self.token_type, &self.open.lengths).map_err(|error| idx.failed(error))?;
        let idx = idx.close()?;
        self.files
            .extend([(format!("{name}.bin"), bin), (format!("{name}.idx"), idx)]);
        let (documents, tokens) = (self.open.lengths.len() as u64, self.open.tokens);
        self.record.shards.push(ShardRecord {
            name,
            documents,
            tokens,
        });
        Ok(())
    }
}
