//! `documents.parquet`: one row a document, so that every token can be traced to its source and licence.

use std::io;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use crate::digest::Digest;
use crate::error::DataError;
use crate::manifest::{DOCUMENTS_FILE, FileRecord};
use crate::shards::{Part, Place};
use crate::staging::{OutFile, Staging};

/// Rows held in memory before they are written.
const ROWS_PER_GROUP: usize = 1 << 16;

/// What the table says of a document, but where its tokens are.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentInfo {
    /// Its name in the corpus.
    pub id: String,
    /// What it comes from: a crate, a folder, a source of the spec.
    pub source: String,
    /// The source's version, if it has one.
    pub version: Option<String>,
    /// An SPDX expression, if one is known.
    pub licence: Option<String>,
    /// Digest of its text.
    pub digest: Digest,
    /// Bytes of its text.
    pub bytes: u64,
    /// One for each column that the table has beyond these, in order.
    pub extras: Vec<Extra>,
}

/// A column that a table has beyond those that all have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtraColumn {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: ExtraKind,
}

/// What an extra column holds. Any value may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraKind {
    /// Text.
    Text,
    /// Integers of 64 bits.
    Integer,
    /// Numbers of 32 bits.
    Number,
}

/// A document's value in an extra column.
#[derive(Clone, Debug, PartialEq)]
pub enum Extra {
    /// For [`ExtraKind::Text`].
    Text(Option<String>),
    /// For [`ExtraKind::Integer`].
    Integer(Option<i64>),
    /// For [`ExtraKind::Number`].
    Number(Option<f32>),
}

/// Writes the table.
pub(crate) struct DocumentTable {
    writer: SerializedFileWriter<OutFile>,
    columns: Vec<ExtraColumn>,
    rows: Vec<Row>,
}

struct Row {
    info: DocumentInfo,
    part: Part,
    place: Place,
}

impl DocumentTable {
    pub(crate) fn create(staging: &Staging, columns: &[ExtraColumn]) -> Result<Self, DataError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("lockstep".to_owned())
            .build();
        let schema = schema(columns).map_err(|error| table_error(staging, error))?;
        let file = staging.create(DOCUMENTS_FILE)?;
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties))
            .map_err(|error| table_error(staging, error))?;
        Ok(Self {
            writer,
            columns: columns.to_vec(),
            rows: Vec::new(),
        })
    }

    /// Adds a document of `part` whose tokens are at `place`.
    pub(crate) fn push(&mut self, info: DocumentInfo, part: Part, place: Place) -> Result<(), DataError> {
        self.rows.push(Row { info, part, place });
        if self.rows.len() == ROWS_PER_GROUP {
            self.write_rows()
        } else {
            Ok(())
        }
    }

    /// Ends the table.
    pub(crate) fn finish(&mut self) -> Result<FileRecord, DataError> {
        self.write_rows()?;
        if let Err(error) = self.writer.finish() {
            return Err(self.writer.inner().failed(io_error(error)));
        }
        self.writer.inner_mut().close()
    }

    fn write_rows(&mut self) -> Result<(), DataError> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let written = self
            .writer
            .next_row_group()
            .and_then(|group| write_group(group, &rows, &self.columns));
        written.map_err(|error| self.writer.inner().failed(io_error(error)))
    }
}

/// The columns, in the order in which [`write_group`] writes them.
fn schema(extras: &[ExtraColumn]) -> Result<TypePtr, ParquetError> {
    let text = |name| {
        Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
            .with_logical_type(Some(LogicalType::String))
    };
    let number = |name, kind| Type::primitive_type_builder(name, kind).with_repetition(Repetition::REQUIRED);
    let required = Repetition::REQUIRED;
    let columns = [
        text("path").with_repetition(required),
        text("source").with_repetition(required),
        text("version").with_repetition(Repetition::OPTIONAL),
        text("licence").with_repetition(Repetition::OPTIONAL),
        text("digest").with_repetition(required),
        number("bytes", PhysicalType::INT64),
        number("tokens", PhysicalType::INT64),
        text("split").with_repetition(required),
        number("shard", PhysicalType::INT32),
        number("sequence", PhysicalType::INT64),
    ];
    let extras = extras.iter().map(|ExtraColumn { name, kind }| {
        let column = match kind {
            ExtraKind::Text => text(name),
            ExtraKind::Integer => number(name, PhysicalType::INT64),
            ExtraKind::Number => number(name, PhysicalType::FLOAT),
        };
        column.with_repetition(Repetition::OPTIONAL)
    });
    let fields = columns
        .into_iter()
        .chain(extras)
        .map(|column| column.build().map(Arc::new))
        .collect::<Result<_, _>>()?;
    Type::group_type_builder("document")
        .with_fields(fields)
        .build()
        .map(Arc::new)
}

fn write_group(
    mut group: SerializedRowGroupWriter<'_, OutFile>,
    rows: &[Row],
    extras: &[ExtraColumn],
) -> Result<(), ParquetError> {
    let g = &mut group;
    text(g, rows, |row| row.info.id.clone())?;
    text(g, rows, |row| row.info.source.clone())?;
    optional_text(g, rows, |row| row.info.version.as_deref())?;
    optional_text(g, rows, |row| row.info.licence.as_deref())?;
    text(g, rows, |row| row.info.digest.to_string())?;
    number::<Int64Type>(g, rows, |row| row.info.bytes as i64)?;
    number::<Int64Type>(g, rows, |row| row.place.tokens as i64)?;
    text(g, rows, |row| row.part.name().to_owned())?;
    number::<Int32Type>(g, rows, |row| row.place.shard as i32)?;
    number::<Int64Type>(g, rows, |row| row.place.sequence as i64)?;
    for (index, column) in extras.iter().enumerate() {
        let values = rows.iter().map(|row| row.info.extras.get(index));
        match column.kind {
            ExtraKind::Text => optional::<ByteArrayType, _>(g, values, |extra| match extra {
                Extra::Text(text) => text.as_deref().map(ByteArray::from),
                _ => None,
            })?,
            ExtraKind::Integer => optional::<Int64Type, _>(g, values, |extra| match extra {
                Extra::Integer(value) => *value,
                _ => None,
            })?,
            ExtraKind::Number => optional::<FloatType, _>(g, values, |extra| match extra {
                Extra::Number(value) => *value,
                _ => None,
            })?,
        }
    }
    group.close().map(drop)
}

fn number<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, OutFile>,
    rows: &[Row],
    value: impl Fn(&Row) -> T::T,
) -> Result<(), ParquetError> {
    column::<T>(group, rows.iter().map(value).collect(), None)
}

fn text(
    group: &mut SerializedRowGroupWriter<'_, OutFile>,
    rows: &[Row],
    value: impl Fn(&Row) -> String,
) -> Result<(), ParquetError> {
    column::<ByteArrayType>(
        group,
        rows.iter().map(|row| value(row).into_bytes().into()).collect(),
        None,
    )
}

fn optional_text(
    group: &mut SerializedRowGroupWriter<'_, OutFile>,
    rows: &[Row],
    value: impl Fn(&Row) -> Option<&str>,
) -> Result<(), ParquetError> {
    optional::<ByteArrayType, _>(group, rows.iter().map(Some), |row| {
        value(row).map(ByteArray::from)
    })
}

/// A column of values, of which those are missing that `value` does not give.
fn optional<'r, T: DataType, R: 'r>(
    group: &mut SerializedRowGroupWriter<'_, OutFile>,
    rows: impl Iterator<Item = Option<&'r R>>,
    value: impl Fn(&R) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let values: Vec<Option<T::T>> = rows.map(|row| row.and_then(&value)).collect();
    let present: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    column::<T>(group, values.into_iter().flatten().collect(), Some(&present))
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, OutFile>,
    values: Vec<T::T>,
    present: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("more columns than the schema has".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(&values, present, None)?;
    column.close()
}

fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::other(other),
    }
}

fn table_error(staging: &Staging, error: ParquetError) -> DataError {
    DataError::io("write", &staging.folder().join(DOCUMENTS_FILE), io_error(error))
}
