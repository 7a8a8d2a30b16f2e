//! Which document is where: the table of documents read back, and documents found by name.
//!
//! The table's rows are in the order of the tokens: each document's place in its split's stream follows from the lengths
//! of those before it. The table is read row by row and never held in memory.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::manifest::{DOCUMENTS_FILE, SplitRecord};
use crate::shards::Part;

/// Names told when a document is not found, or when several are.
const NAMES_TOLD: usize = 5;

/// A document of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DocumentRecord {
    /// Its path in the corpus.
    pub id: String,
    /// The crate or folder that it comes from.
    pub source: String,
    /// The crate's version.
    pub version: Option<String>,
    /// An SPDX expression.
    pub licence: Option<String>,
    /// BLAKE3 of its text, in hexadecimal: unique in the dataset.
    pub digest: String,
    /// Bytes of its text.
    pub bytes: u64,
    /// The split that it is in.
    pub split: Part,
    /// Its tokens in the stream of that split, the end of text among them.
    pub tokens: Range<u64>,
    /// What else the table says of it, by column: where it came from, its language, its scores.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// This document.
    One(Box<DocumentRecord>),
    /// Several documents: how many, and the first few.
    Several(u64, Vec<DocumentRecord>),
    /// Nothing; the ids most like it, best first.
    Nothing(Vec<String>),
}

impl Dataset {
    /// All documents: those to train on and then those held out, each in the order of their tokens.
    ///
    /// # Errors
    /// If the table cannot be read, or, while iterating, does not agree with the manifest.
    pub fn documents(&self) -> Result<Documents, DataError> {
        let path = self.folder().join(DOCUMENTS_FILE);
        let file = File::open(&path).map_err(|error| DataError::io("open", &path, error))?;
        let rows = SerializedFileReader::new(file)
            .map(SerializedFileReader::into_iter)
            .map_err(|error| malformed(&path, error))?;
        let manifest = self.manifest();
        let splits = [
            (Part::Train, &manifest.train),
            (Part::Validation, &manifest.validation),
        ];
        Ok(Documents {
            path,
            rows,
            places: places(splits).collect::<Vec<_>>().into_iter(),
            place: None,
            failed: false,
        })
    }

    /// The document that people mean by `name`: its id, its digest, or its source if that has no other document.
    ///
    /// # Errors
    /// As [`documents`](Self::documents).
    pub fn find_document(&self, name: &str) -> Result<Named, DataError> {
        let (mut by_id, mut by_source) = (Matches::default(), Matches::default());
        for document in self.documents()? {
            let document = document?;
            if document.digest == name {
                return Ok(Named::One(Box::new(document)));
            } else if document.id == name {
                by_id.add(document);
            } else if document.source == name {
                by_source.add(document);
            }
        }
        match by_id.named().or_else(|| by_source.named()) {
            Some(named) => Ok(named),
            None => Ok(Named::Nothing(self.nearest(name)?)),
        }
    }

    /// The ids most like `name`: those that contain it first, then by Jaro and Winkler's similarity.
    fn nearest(&self, name: &str) -> Result<Vec<String>, DataError> {
        let mut nearest: Vec<(f64, String)> = Vec::new();
        for document in self.documents()? {
            let id = document?.id;
            let bonus = if id.contains(name) { 1.0 } else { 0.0 };
            let likeness = bonus + strsim::jaro_winkler(name, &id);
            let at = nearest.partition_point(|(other, _)| *other >= likeness);
            if at < NAMES_TOLD {
                nearest.insert(at, (likeness, id));
                nearest.truncate(NAMES_TOLD);
            }
        }
        Ok(nearest.into_iter().map(|(_, id)| id).collect())
    }
}

/// Documents with the same name.
#[derive(Default)]
struct Matches {
    count: u64,
    first: Vec<DocumentRecord>,
}

impl Matches {
    fn add(&mut self, document: DocumentRecord) {
        self.count += 1;
        if self.first.len() < NAMES_TOLD {
            self.first.push(document);
        }
    }

    fn named(mut self) -> Option<Named> {
        match self.count {
            0 => None,
            1 => self.first.pop().map(|one| Named::One(Box::new(one))),
            count => Some(Named::Several(count, self.first)),
        }
    }
}

/// The documents of a dataset, in order.
pub struct Documents {
    path: PathBuf,
    rows: RowIter<'static>,
    /// Shards that are not begun.
    places: std::vec::IntoIter<ShardPlace>,
    place: Option<ShardPlace>,
    failed: bool,
}

/// Where in a shard the next document is.
#[derive(Clone, Debug)]
struct ShardPlace {
    split: Part,
    shard: i64,
    /// The next document's number in the shard, and that of the one after the last.
    sequences: Range<u64>,
    /// What is left of the shard, in tokens of the split's stream.
    tokens: Range<u64>,
}

fn places<'m>(splits: impl IntoIterator<Item = (Part, &'m SplitRecord)>) -> impl Iterator<Item = ShardPlace> {
    splits.into_iter().flat_map(|(split, record)| {
        let mut start = 0;
        (0..).zip(&record.shards).map(move |(shard, record)| {
            let tokens = start..start + record.tokens;
            start = tokens.end;
            ShardPlace {
                split,
                shard,
                sequences: 0..record.documents,
                tokens,
            }
        })
    })
}

impl Documents {
    fn damaged(&self, problem: impl ToString) -> DataError {
        malformed(&self.path, problem)
    }

    /// The shard that the next document must be in; none when all are done.
    fn advance(&mut self) -> Result<Option<ShardPlace>, DataError> {
        loop {
            match self.place.take() {
                Some(place) if place.sequences.is_empty() => {
                    if !place.tokens.is_empty() {
                        return Err(self.damaged("its documents have fewer tokens than their shard"));
                    }
                }
                Some(place) => return Ok(Some(place)),
                None => match self.places.next() {
                    Some(place) => self.place = Some(place),
                    None => return Ok(None),
                },
            }
        }
    }

    fn read(&mut self) -> Result<Option<DocumentRecord>, DataError> {
        let (mut place, row) = match (self.advance()?, self.rows.next()) {
            (None, None) => return Ok(None),
            (Some(place), Some(row)) => (place, row.map_err(|error| self.damaged(error))?),
            _ => return Err(self.damaged("it has not one row for each document of the manifest")),
        };
        let document = self.document(&row, &mut place)?;
        self.place = Some(place);
        Ok(Some(document))
    }

    fn document(&self, row: &Row, place: &mut ShardPlace) -> Result<DocumentRecord, DataError> {
        let row = Columns { row, of: self };
        let at = (row.text("split")?, row.number("shard")?, row.number("sequence")?);
        let expected = (place.split.name(), place.shard, place.sequences.start as i64);
        if (at.0.as_str(), at.1, at.2) != expected {
            return Err(self.damaged(format!("a row is of {at:?}, expected {expected:?}")));
        }
        let tokens = u64::try_from(row.number("tokens")?).unwrap_or(u64::MAX);
        if tokens > place.tokens.end - place.tokens.start {
            return Err(self.damaged("its documents have more tokens than their shard"));
        }
        let tokens = place.tokens.start..place.tokens.start + tokens;
        place.tokens.start = tokens.end;
        place.sequences.start += 1;
        Ok(DocumentRecord {
            id: row.text("path")?,
            source: row.text("source")?,
            version: row.optional_text("version")?,
            licence: row.optional_text("licence")?,
            digest: row.text("digest")?,
            bytes: u64::try_from(row.number("bytes")?).unwrap_or_default(),
            split: place.split,
            tokens,
            more: row.others(),
        })
    }
}

impl Iterator for Documents {
    type Item = Result<DocumentRecord, DataError>;

    /// Nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let read = self.read();
        self.failed = read.is_err();
        read.transpose()
    }
}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Documents")
            .field("path", &self.path)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// A row whose columns are asked for by name.
struct Columns<'r> {
    row: &'r Row,
    of: &'r Documents,
}

/// Columns that every table has.
const COMMON: [&str; 10] = [
    "path", "source", "version", "licence", "digest", "bytes", "tokens", "split", "shard", "sequence",
];

impl Columns<'_> {
    /// The columns that not every table has. Text that is a JSON object or list is given as what it is.
    fn others(&self) -> serde_json::Map<String, serde_json::Value> {
        let value = |field: &Field| match field {
            Field::Str(text) if text.starts_with(['{', '[']) => {
                serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into())
            }
            Field::Str(text) => text.as_str().into(),
            Field::Int(number) => (*number).into(),
            Field::Long(number) => (*number).into(),
            Field::Float(number) => f64::from(*number).into(),
            _ => serde_json::Value::Null,
        };
        let columns = self.row.get_column_iter();
        let others = columns.filter(|(name, _)| !COMMON.contains(&name.as_str()));
        others
            .map(|(name, field)| (name.clone(), value(field)))
            .filter(|(_, value)| !value.is_null())
            .collect()
    }

    fn field(&self, name: &str) -> Result<&Field, DataError> {
        let column = self.row.get_column_iter().find(|(column, _)| *column == name);
        column
            .map(|(_, field)| field)
            .ok_or_else(|| self.of.damaged(format!("it has no column `{name}`")))
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>, DataError> {
        match self.field(name)? {
            Field::Str(text) => Ok(Some(text.clone())),
            Field::Null => Ok(None),
            other => Err(self
                .of
                .damaged(format!("column `{name}` holds {other}, expected text"))),
        }
    }

    fn text(&self, name: &str) -> Result<String, DataError> {
        let missing = || self.of.damaged(format!("column `{name}` is null"));
        self.optional_text(name)?.ok_or_else(missing)
    }

    fn number(&self, name: &str) -> Result<i64, DataError> {
        match self.field(name)? {
            Field::Int(number) => Ok(i64::from(*number)),
            Field::Long(number) => Ok(*number),
            other => Err(self
                .of
                .damaged(format!("column `{name}` holds {other}, expected a number"))),
        }
    }
}

fn malformed(path: &Path, problem: impl ToString) -> DataError {
    DataError::Malformed {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}
