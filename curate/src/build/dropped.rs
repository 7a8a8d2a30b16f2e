//! `dropped.parquet`: what is not in the dataset, where it came from, and why.

use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use crate::document::Dropped;
use crate::error::CurateError;

/// Rows held in memory before they are packed.
const ROWS_PER_GROUP: usize = 1 << 16;

/// The table while it is written, in memory: packed, a row takes a few bytes.
pub(super) struct DroppedTable {
    writer: SerializedFileWriter<Vec<u8>>,
    rows: Vec<(Dropped, Option<String>)>,
}

impl DroppedTable {
    pub(super) fn new() -> Result<Self, CurateError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("lockstep".to_owned())
            .build();
        let writer = schema()
            .and_then(|schema| SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties)));
        Ok(Self {
            writer: writer.map_err(failed)?,
            rows: Vec::new(),
        })
    }

    /// Adds what was dropped, and the name of the document that stays in its place, if one does.
    pub(super) fn push(&mut self, dropped: Dropped, kept: Option<String>) -> Result<(), CurateError> {
        self.rows.push((dropped, kept));
        if self.rows.len() == ROWS_PER_GROUP {
            self.write().map_err(failed)?;
        }
        Ok(())
    }

    /// The file.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, CurateError> {
        self.write().map_err(failed)?;
        self.writer.into_inner().map_err(failed)
    }

    fn write(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        let mut number = 0;
        while let Some(mut column) = group.next_column()? {
            let text = |value: &dyn Fn(&Dropped) -> &str| -> Vec<ByteArray> {
                rows.iter().map(|(dropped, _)| value(dropped).into()).collect()
            };
            let integers = |value: &dyn Fn(&Dropped) -> u64| -> Vec<i64> {
                rows.iter().map(|(dropped, _)| value(dropped) as i64).collect()
            };
            let texts = match number {
                0 => text(&|dropped| &dropped.origin.source),
                1 => text(&|dropped| &dropped.origin.file),
                4 => text(&|dropped| &dropped.stage),
                5 => text(&|dropped| &dropped.reason),
                6 => text(&|dropped| &dropped.detail),
                7 => rows
                    .iter()
                    .filter_map(|(_, kept)| Some(kept.as_deref()?.into()))
                    .collect(),
                _ => Vec::new(),
            };
            match number {
                2 | 3 => {
                    let values = integers(&|dropped| match number {
                        2 => dropped.origin.record,
                        _ => dropped.origin.offset,
                    });
                    column.typed::<Int64Type>().write_batch(&values, None, None)?;
                }
                7 => {
                    let present: Vec<i16> = rows.iter().map(|(_, kept)| i16::from(kept.is_some())).collect();
                    column
                        .typed::<ByteArrayType>()
                        .write_batch(&texts, Some(&present), None)?;
                }
                _ => {
                    column.typed::<ByteArrayType>().write_batch(&texts, None, None)?;
                }
            }
            column.close()?;
            number += 1;
        }
        group.close().map(drop)
    }
}

fn schema() -> Result<Type, ParquetError> {
    let text = |name, repetition| {
        Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
            .with_logical_type(Some(LogicalType::String))
            .with_repetition(repetition)
            .build()
            .map(Arc::new)
    };
    let number = |name| {
        Type::primitive_type_builder(name, PhysicalType::INT64)
            .with_repetition(Repetition::REQUIRED)
            .build()
            .map(Arc::new)
    };
    let required = Repetition::REQUIRED;
    Type::group_type_builder("dropped")
        .with_fields(vec![
            text("source", required)?,
            text("file", required)?,
            number("record")?,
            number("offset")?,
            text("stage", required)?,
            text("reason", required)?,
            text("detail", required)?,
            text("kept_instead", Repetition::OPTIONAL)?,
        ])
        .build()
}

fn failed(error: ParquetError) -> CurateError {
    CurateError::Table {
        problem: error.to_string(),
    }
}
