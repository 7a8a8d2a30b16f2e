//! CSV with a header, its fields quoted or not.

use std::ops::ControlFlow;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::input::{Broken, Input};
use super::out::{At, Out};
use super::record::{self, Record, Slot, Value};

/// So many columns a file may have.
const MAX_COLUMNS: usize = 16 << 10;

/// Reads all rows.
pub(crate) fn read(input: &mut Input, delimiter: u8, out: &mut Out<'_>) -> ControlFlow<()> {
    let mut rows = Rows::new(delimiter, out.settings.max_record_bytes);
    let columns = match rows.next(input) {
        Ok(Some(Row {
            fields: Ok(header), ..
        })) => match columns(&header, out) {
            Ok(columns) => columns,
            Err((reason, detail)) => return out.drop(At::default(), reason, detail),
        },
        Ok(Some(Row {
            fields: Err((reason, detail)),
            ..
        })) => {
            return out.drop(At::default(), reason, format!("the header: {detail}"));
        }
        Ok(None) => return ControlFlow::Continue(()),
        Err(broken) => return out.broken(0, broken),
    };
    for record in 0.. {
        match rows.next(input) {
            Ok(None) => break,
            Err(broken) => return out.broken(record, broken),
            Ok(Some(Row { offset, fields })) => {
                let at = At { record, offset };
                match fields.and_then(|fields| columns.record(&fields)) {
                    Ok(record) => out.record(at, record)?,
                    Err((reason, detail)) => out.drop(at, reason, detail)?,
                }
            }
        }
        out.progress(input.stored())?;
    }
    ControlFlow::Continue(())
}

type Refusal = (&'static str, String);

struct Columns {
    count: usize,
    wanted: Vec<(usize, Slot)>,
}

fn columns(header: &[&[u8]], out: &Out<'_>) -> Result<Columns, Refusal> {
    let names = record::names(&out.settings.fields);
    let wanted: Vec<_> = names
        .filter_map(|(name, slot)| {
            let at = header
                .iter()
                .position(|column| column.trim_ascii() == name.as_bytes());
            at.map(|at| (at, slot))
        })
        .collect();
    if !wanted.iter().any(|(_, slot)| slot.field == record::Field::Text) {
        // The first line is not told: where there is no header, it is a record, with whatever is private in it.
        let detail = format!(
            "no column {} among the {} of the first line; set fields.text",
            out.settings.fields.text.join(" or "),
            header.len()
        );
        return Err(("read.column", detail));
    }
    Ok(Columns {
        count: header.len(),
        wanted,
    })
}

impl Columns {
    fn record<'a>(&self, fields: &[&'a [u8]]) -> Result<Record<'a>, Refusal> {
        if fields.len() != self.count {
            let detail = format!("the row has {} fields, the header {}", fields.len(), self.count);
            return Err(("read.csv", detail));
        }
        let mut record = Record::default();
        for &(at, slot) in &self.wanted {
            let field = fields.get(at).copied().unwrap_or_default();
            let text = str::from_utf8(field).map_err(|error| {
                (
                    "read.utf8",
                    format!("not UTF-8 at byte {} of a field", error.valid_up_to()),
                )
            })?;
            if !text.is_empty() || slot.field == record::Field::Text {
                record.put(slot, Value::Text(text.into()));
            }
        }
        Ok(record)
    }
}

/// A row, or why it is left out.
struct Row<'a> {
    offset: u64,
    fields: Result<Vec<&'a [u8]>, Refusal>,
}

struct Rows {
    reader: Reader,
    max_bytes: usize,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

impl Rows {
    fn new(delimiter: u8, max_bytes: usize) -> Self {
        Self {
            reader: ReaderBuilder::new().delimiter(delimiter).build(),
            max_bytes,
            fields: vec![0; 4096],
            ends: vec![0; 64],
        }
    }

    /// The next row. What of it is beyond the bounds is parsed, but not held.
    fn next(&mut self, input: &mut Input) -> Result<Option<Row<'_>>, Broken> {
        skip_breaks(input)?;
        let offset = input.offset();
        let (mut filled, mut count) = (0, 0);
        let mut refused = None;
        loop {
            let held = input.peek().map_err(|broken| Broken { offset, ..broken })?;
            let at_end = held.is_empty();
            let (result, read, written, ended) = self.reader.read_record(
                held,
                self.fields.get_mut(filled..).unwrap_or_default(),
                self.ends.get_mut(count..).unwrap_or_default(),
            );
            input.consume(read);
            filled += written;
            count += ended;
            match result {
                ReadRecordResult::InputEmpty if at_end => return Ok(None),
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.fields.len() > self.max_bytes => {
                    let detail = format!("the row is longer than max_record_bytes = {}", self.max_bytes);
                    refused.get_or_insert(("read.too_long", detail));
                    filled = 0;
                }
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if self.ends.len() >= MAX_COLUMNS => {
                    let detail = format!("the row has more than {MAX_COLUMNS} fields");
                    refused.get_or_insert(("read.csv", detail));
                    count = 0;
                }
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        if refused.is_none() && filled > self.max_bytes {
            let detail = format!("the row is longer than max_record_bytes = {}", self.max_bytes);
            refused = Some(("read.too_long", detail));
        }
        let fields = match refused {
            Some(refused) => Err(refused),
            None => {
                let ends = self.ends.get(..count).unwrap_or_default();
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let field = |(start, &end)| self.fields.get(start..end).unwrap_or_default();
                Ok(starts.zip(ends).map(field).collect())
            }
        };
        Ok(Some(Row { offset, fields }))
    }
}

/// Skips line breaks, which the parser would skip too, so that a row's offset is that of its first byte.
fn skip_breaks(input: &mut Input) -> Result<(), Broken> {
    loop {
        let held = input.peek()?;
        let breaks = held
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        if breaks == 0 {
            return Ok(());
        }
        input.consume(breaks);
    }
}
