//! Parquet: rows of the columns that are asked for.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field as Cell;
use parquet::schema::types::ColumnDescPtr;

use super::contain::contained;
use super::out::{At, Out};
use super::pages::{Chunks, Guarded};
use super::record::{self, Field, Record, Slot, Value};
use super::settings::{FieldSettings, SourceSettings};
use super::store::StoredFile;

type Refusal = (&'static str, String);

/// An open Parquet file.
pub(crate) struct ParquetFile(SerializedFileReader<Chunks>);

impl ParquetFile {
    /// Reads the footer.
    pub(crate) fn open(file: Arc<dyn StoredFile>, settings: &SourceSettings) -> Result<Self, Refusal> {
        let bytes = file
            .state()
            .map_err(|error| ("read.unreadable", error.to_string()))?
            .bytes;
        let chunks = Chunks::new(file, bytes, settings.max_page_bytes);
        parsed(|| SerializedFileReader::new(chunks)).map(Self)
    }

    fn groups(&self) -> &[RowGroupMetaData] {
        self.0.metadata().row_groups()
    }

    /// The sizes of the row groups, as they are stored.
    pub(crate) fn group_bytes(&self) -> Vec<u64> {
        self.groups().iter().map(stored_bytes).collect()
    }

    /// Reads these row groups; all, if there is no range.
    pub(crate) fn read(&self, range: Option<Range<usize>>, out: &mut Out<'_>) -> ControlFlow<()> {
        let range = range.unwrap_or(0..self.groups().len());
        let rows = |group: &RowGroupMetaData| u64::try_from(group.num_rows()).unwrap_or(0);
        let mut record: u64 = self
            .groups()
            .iter()
            .take(range.start)
            .map(rows)
            .fold(0, u64::saturating_add);
        let mut stored = 0_u64;
        for index in range {
            let Some(group) = self.groups().get(index) else {
                let detail = "has fewer row groups than when it was listed".to_owned();
                return out.drop(At { record, offset: 0 }, "read.changed", detail);
            };
            let (end, rows) = (record.saturating_add(rows(group)), rows(group));
            let mut columns = match self.columns(index, &out.settings.fields) {
                Ok(columns) => columns,
                Err((reason, detail)) => return out.drop(At { record, offset: 0 }, reason, detail),
            };
            for record in record..end {
                let at = At { record, offset: 0 };
                match next_row(&mut columns, out.settings.max_record_bytes) {
                    Ok(Ok(row)) => out.record(at, row)?,
                    Ok(Err((reason, detail))) => out.drop(at, reason, detail)?,
                    Err((reason, detail)) => {
                        let detail = format!("row group {index} from row {record} of {end}: {detail}");
                        out.drop(at, reason, detail)?;
                        break;
                    }
                }
                let part = (u128::from(stored_bytes(group)) * u128::from(record + rows - end))
                    / u128::from(rows.max(1));
                out.progress(stored.saturating_add(u64::try_from(part).unwrap_or(0)))?;
            }
            record = end;
            stored = stored.saturating_add(stored_bytes(group));
        }
        ControlFlow::Continue(())
    }

    /// The columns of a row group that are asked for.
    fn columns(&self, index: usize, settings: &FieldSettings) -> Result<Vec<Column>, Refusal> {
        let schema = self.0.metadata().file_metadata().schema_descr();
        let mut found: Vec<(usize, Slot)> = Vec::new();
        for (name, slot) in record::names(settings) {
            let is_named = |column: &ColumnDescPtr| is_column(&column.path().string(), name);
            if let Some(at) = schema.columns().iter().position(is_named) {
                found.push((at, slot));
            }
        }
        let text = found.iter().find(|(_, slot)| slot.field == Field::Text);
        let Some(&(text, _)) = text else {
            let names = schema.columns().iter().map(|column| column.path().string());
            return Err(missing_column(&settings.text, names));
        };
        let text = schema.column(text);
        if text.physical_type() != PhysicalType::BYTE_ARRAY || text.max_rep_level() > 0 {
            let detail = format!(
                "column {} holds {}{}, not texts; set fields.text",
                text.path().string(),
                if text.max_rep_level() > 0 { "lists of " } else { "" },
                text.physical_type()
            );
            return Err(("read.column", detail));
        }
        parsed(|| {
            let group = self.0.get_row_group(index)?;
            let column = |(at, slot): &(usize, Slot)| {
                let described = schema.column(*at);
                let rows = group.metadata().num_rows();
                let values = group.metadata().column(*at).num_values();
                if described.max_rep_level() == 0 && values != rows {
                    let what = format!("a column has {values} values, the row group {rows} rows");
                    return Err(ParquetError::General(what));
                }
                let pages = Guarded::new(group.get_column_page_reader(*at)?, &described);
                Ok(Column {
                    slot: *slot,
                    reader: get_column_reader(Arc::clone(&described), Box::new(pages)),
                    described,
                    definitions: Vec::new(),
                    repetitions: Vec::new(),
                })
            };
            found.iter().map(column).collect()
        })
    }
}

fn stored_bytes(group: &RowGroupMetaData) -> u64 {
    u64::try_from(group.compressed_size()).unwrap_or(0)
}

/// Whether a column is the one of this name, or holds the elements of the list of this name.
fn is_column(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| {
        matches!(
            rest,
            "" | ".list.element" | ".list.item" | ".bag.array_element" | ".bag.array" | ".array"
        )
    })
}

/// What the library says, its panics included.
fn parsed<T>(parse: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, Refusal> {
    match contained(parse) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(("read.parquet", error.to_string())),
        Err(panic) => Err(("read.panicked", panic)),
    }
}

/// The next row of all columns; the outer error is that of the row group, the inner one that of the row.
fn next_row(columns: &mut [Column], max_bytes: usize) -> Result<Result<Record<'static>, Refusal>, Refusal> {
    let mut record = Record::default();
    let mut refused = None;
    for column in columns {
        let slot = column.slot;
        if slot.field != Field::Text {
            match parsed(|| column.next_cells())? {
                Some(value) => record.put(slot, value),
                None => continue,
            }
        } else if let Some(bytes) = parsed(|| column.next_bytes())? {
            if bytes.len() > max_bytes {
                let detail = format!(
                    "the text has {} bytes, max_record_bytes = {max_bytes}",
                    bytes.len()
                );
                refused = Some(("read.too_long", detail));
                continue;
            }
            match str::from_utf8(bytes.data()) {
                Ok(text) => record.put(slot, Value::Text(text.to_owned().into())),
                Err(error) => {
                    let detail = format!("not UTF-8 at byte {} of the text", error.valid_up_to());
                    refused = Some(("read.utf8", detail));
                }
            }
        }
    }
    Ok(refused.map_or(Ok(record), Err))
}

/// A column of a row group, which is read row by row.
struct Column {
    slot: Slot,
    described: ColumnDescPtr,
    reader: ColumnReader,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

/// Reads the values of one row.
macro_rules! values_of_row {
    ($column:expr, $reader:expr) => {{
        let mut values = Vec::new();
        $column.definitions.clear();
        $column.repetitions.clear();
        let definitions = Some(&mut $column.definitions);
        let repetitions = Some(&mut $column.repetitions);
        let (rows, _, _) = $reader.read_records(1, definitions, repetitions, &mut values)?;
        if rows == 0 {
            return Err(ParquetError::EOF(
                "the column ends before the row group does".to_owned(),
            ));
        }
        values
    }};
}

impl Column {
    fn next_bytes(&mut self) -> Result<Option<ByteArray>, ParquetError> {
        match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => Ok(values_of_row!(self, reader).pop()),
            _ => Err(ParquetError::General("not a column of texts".to_owned())),
        }
    }

    /// The row's values as text; none if there are none.
    fn next_cells(&mut self) -> Result<Option<Value<'static>>, ParquetError> {
        let described = Arc::clone(&self.described);
        let shown = |cell: Cell| cell.to_string();
        let mut texts: Vec<String> = match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                let values: Vec<ByteArray> = values_of_row!(self, reader);
                let text = |value: &ByteArray| str::from_utf8(value.data()).ok().map(str::to_owned);
                values.iter().filter_map(text).collect()
            }
            ColumnReader::Int32ColumnReader(reader) => {
                let values: Vec<i32> = values_of_row!(self, reader);
                let cell = |value| shown(Cell::convert_int32(&described, value));
                values.into_iter().map(cell).collect()
            }
            ColumnReader::Int64ColumnReader(reader) => {
                let values: Vec<i64> = values_of_row!(self, reader);
                let cell = |value| shown(Cell::convert_int64(&described, value));
                values.into_iter().map(cell).collect()
            }
            ColumnReader::Int96ColumnReader(reader) => {
                let values = values_of_row!(self, reader);
                let cell = |value| shown(Cell::convert_int96(&described, value));
                values.into_iter().map(cell).collect()
            }
            // Nothing else is an id, an address, a language, a licence or a time.
            _ => return Ok(None),
        };
        let is_list = self.described.max_rep_level() > 0;
        Ok(if is_list {
            (!texts.is_empty()).then_some(Value::List(texts))
        } else {
            texts.pop().map(|text| Value::Text(text.into()))
        })
    }
}

/// The refusal of a file without a column of text, with the columns that it has.
fn missing_column<T: AsRef<str>>(
    wanted: &[String],
    columns: impl Iterator<Item = T>,
) -> (&'static str, String) {
    const SHOWN: usize = 20;
    let mut names: Vec<String> = columns
        .take(SHOWN + 1)
        .map(|name| {
            name.as_ref()
                .chars()
                .take(64)
                .collect::<String>()
                .escape_debug()
                .to_string()
        })
        .collect();
    if names.len() > SHOWN {
        names.truncate(SHOWN);
        names.push("…".to_owned());
    }
    let detail = format!(
        "no column {}; the file has: {}; set fields.text",
        wanted.join(" or "),
        names.join(", ")
    );
    ("read.column", detail)
}
