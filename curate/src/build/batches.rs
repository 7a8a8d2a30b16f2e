//! Rows and their tokens, read back some at a time, ahead of whoever writes them.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;

use lockstep_data::Part;

use super::row::Row;
use super::tokens::Tokens;
use crate::error::CurateError;
use crate::progress::Progress;
use crate::records::Records;

/// Tokens, or documents, that are read at a time.
const BATCH_TOKENS: u64 = 1 << 20;
const BATCH_ROWS: usize = 1 << 12;

/// Has each batch written while the next is read. The last is empty.
pub(super) fn read_ahead(
    mut read: impl FnMut() -> Result<Batch, CurateError> + Send,
    mut write: impl FnMut(Batch) -> Result<(), CurateError> + Send,
) -> Result<(), CurateError> {
    let mut batch = read()?;
    while !batch.is_empty() {
        let (written, next) = rayon::join(|| write(batch), &mut read);
        written?;
        batch = next?;
    }
    Ok(())
}

/// Rows with their tokens.
pub(super) type Batch = Vec<(Row, Vec<u32>)>;

/// The rows of a split in the order of the tasks, some at a time.
pub(super) struct Batches<'b> {
    progress: &'b Progress,
    tokens: &'b Tokens,
    part: Part,
    /// The task that is next to be opened.
    task: usize,
    open: Option<Open>,
}

/// A task that is being read.
struct Open {
    rows: Records<Row>,
    tokens: BufReader<File>,
    path: PathBuf,
}

impl<'b> Batches<'b> {
    pub(super) fn of(progress: &'b Progress, tokens: &'b Tokens, part: Part) -> Self {
        Self {
            progress,
            tokens,
            part,
            task: 0,
            open: None,
        }
    }

    /// The next of them that are wanted; empty at the end.
    pub(super) fn next(&mut self, is_wanted: impl Fn(&Row) -> bool) -> Result<Batch, CurateError> {
        let mut batch = Vec::new();
        let mut tokens = 0;
        while tokens < BATCH_TOKENS && batch.len() < BATCH_ROWS {
            let Some(open) = &mut self.open else {
                if self.task == self.tokens.tasks {
                    break;
                }
                self.open = Some(Open::new(self.tokens, self.task, self.part)?);
                self.task += 1;
                continue;
            };
            self.progress.check()?;
            match open.next(&is_wanted)? {
                Some(row) => {
                    tokens += row.0.tokens;
                    batch.push(row);
                }
                None => {
                    self.open = None;
                    self.progress.advance(1);
                }
            }
        }
        Ok(batch)
    }
}

impl Open {
    fn new(tokens: &Tokens, task: usize, part: Part) -> Result<Self, CurateError> {
        let path = tokens.tokens(task, part);
        let file = File::open(&path).map_err(|error| CurateError::io("open", &path, error))?;
        Ok(Self {
            rows: Records::open(&tokens.rows(task, part))?,
            tokens: BufReader::with_capacity(1 << 18, file),
            path,
        })
    }

    /// The next row that is wanted, and its tokens.
    fn next(&mut self, is_wanted: impl Fn(&Row) -> bool) -> Result<Option<(Row, Vec<u32>)>, CurateError> {
        let failed = |error| CurateError::io("read", &self.path, error);
        for row in &mut self.rows {
            let row = row?;
            if is_wanted(&row) {
                let mut tokens = vec![0u32; row.tokens as usize];
                let bytes = bytemuck::cast_slice_mut(&mut tokens);
                self.tokens.read_exact(bytes).map_err(failed)?;
                return Ok(Some((row, tokens)));
            }
            let bytes = 4 * row.tokens as i64;
            self.tokens.seek_relative(bytes).map_err(failed)?;
        }
        Ok(None)
    }
}
