//! `dropped.parquet`: what is not in the dataset, where it came from, and why.

use std::fs::File;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use serde_json::value::RawValue;

use crate::document::Dropped;
use crate::error::CurateError;

/// Its name in the dataset.
pub(super) const FILE_NAME: &str = "dropped.parquet";
/// Rows held in memory before they are packed.
const ROWS_PER_GROUP: usize = 1 << 14;

/// As it is read for the table, with scores that are not parsed.
pub(super) type Row = Dropped<Box<RawValue>>;

/// The table while it is written.
pub(super) struct DroppedTable {
    writer: SerializedFileWriter<File>,
    rows: Vec<NamedRow>,
}

impl DroppedTable {
    pub(super) fn new(file: File) -> Result<Self, CurateError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("lockstep".to_owned())
            .build();
        let writer = schema()
            .and_then(|schema| SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)));
        Ok(Self {
            writer: writer.map_err(failed)?,
            rows: Vec::new(),
        })
    }

    /// Adds what was dropped, and the name of the document that stays in its place, if one does.
    pub(super) fn push(&mut self, row: Row, kept: Option<String>) -> Result<(), CurateError> {
        self.rows.push((row, kept));
        if self.rows.len() == ROWS_PER_GROUP {
            self.write().map_err(failed)?;
        }
        Ok(())
    }

    /// All is on the disk.
    pub(super) fn finish(mut self) -> Result<(), CurateError> {
        self.write().map_err(failed)?;
        let file = self.writer.into_inner().map_err(failed)?;
        file.sync_all().map_err(|error| failed(error.into()))
    }

    fn write(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        let mut number = 0;
        while let Some(mut column) = group.next_column()? {
            match COLUMNS.get(number).map(|(_, of)| of) {
                Some(Of::Number(value)) => {
                    let values: Vec<i64> = rows.iter().map(|(row, _)| value(row) as i64).collect();
                    column.typed::<Int64Type>().write_batch(&values, None, None)?;
                }
                Some(Of::Text(value)) => {
                    let values: Vec<ByteArray> = rows.iter().map(|(row, _)| value(row).into()).collect();
                    column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
                }
                Some(Of::Optional(value)) => {
                    let all: Vec<Option<String>> = rows.iter().map(value).collect();
                    let present: Vec<i16> = all.iter().map(|text| i16::from(text.is_some())).collect();
                    let values: Vec<ByteArray> =
                        all.iter().flatten().map(|text| text.as_str().into()).collect();
                    column
                        .typed::<ByteArrayType>()
                        .write_batch(&values, Some(&present), None)?;
                }
                None => {}
            }
            column.close()?;
            number += 1;
        }
        group.close().map(drop)
    }
}

/// What was dropped, and the name of the document that stays in its place.
type NamedRow = (Row, Option<String>);

/// What a column holds of a row.
enum Of {
    Text(fn(&Row) -> &str),
    Number(fn(&Row) -> u64),
    Optional(fn(&NamedRow) -> Option<String>),
}

const COLUMNS: [(&str, Of); 10] = [
    ("source", Of::Text(|row| &row.origin.source)),
    ("file", Of::Text(|row| &row.origin.file)),
    ("record", Of::Number(|row| row.origin.record)),
    ("offset", Of::Number(|row| row.origin.offset)),
    ("stage", Of::Text(|row| &row.stage)),
    ("reason", Of::Text(|row| &row.reason)),
    ("detail", Of::Text(|row| &row.detail)),
    ("kept_instead", Of::Optional(|(_, kept)| kept.clone())),
    ("language", Of::Optional(|(row, _)| row.language.clone())),
    (
        "scores",
        Of::Optional(|(row, _)| row.scores.as_ref().map(|scores| scores.get().to_owned())),
    ),
];

fn schema() -> Result<Type, ParquetError> {
    let field = |(name, of): &(&str, Of)| {
        let (physical, logical, repetition) = match of {
            Of::Text(_) => (
                PhysicalType::BYTE_ARRAY,
                Some(LogicalType::String),
                Repetition::REQUIRED,
            ),
            Of::Optional(_) => (
                PhysicalType::BYTE_ARRAY,
                Some(LogicalType::String),
                Repetition::OPTIONAL,
            ),
            Of::Number(_) => (PhysicalType::INT64, None, Repetition::REQUIRED),
        };
        Type::primitive_type_builder(name, physical)
            .with_logical_type(logical)
            .with_repetition(repetition)
            .build()
            .map(Arc::new)
    };
    let fields = COLUMNS.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    Type::group_type_builder("dropped").with_fields(fields).build()
}

/// A full disk is told as such.
fn failed(error: ParquetError) -> CurateError {
    match error {
        ParquetError::External(source) if is_full(source.as_ref()) => CurateError::StorageFull {
            path: FILE_NAME.into(),
        },
        error => CurateError::Table {
            problem: error.to_string(),
        },
    }
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(StorageFull | QuotaExceeded))
}
