//! Files of one JSON value a line, to which lines are appended.
//!
//! A line counts once it ends: whoever dies while writing one leaves a torn last line, which readers pass over and the
//! next writer cuts off.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::lines::open_whole;

/// Why such a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JsonlError {
    /// The system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not what this version writes.
    #[error("{} is damaged in line {line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl JsonlError {
    fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines<T> {
    /// One value a line.
    pub values: Vec<T>,
    /// Whether a torn last line was passed over.
    pub torn: bool,
}

/// Reads all whole lines.
///
/// # Errors
/// When the file cannot be read, or a line that ends is damaged.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Lines<T>, JsonlError> {
    let mut reader = File::open(path)
        .map(BufReader::new)
        .map_err(JsonlError::io("open", path))?;
    let (mut values, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        reader
            .read_until(b'\n', &mut line)
            .map_err(JsonlError::io("read", path))?;
        if line.last() != Some(&b'\n') {
            let torn = !line.is_empty();
            return Ok(Lines { values, torn });
        }
        let value = serde_json::from_slice(&line).map_err(|source| JsonlError::Line {
            path: path.to_owned(),
            line: values.len() + 1,
            source,
        })?;
        values.push(value);
    }
}

/// Opens or creates a file to append lines to, and cuts a torn last line off.
///
/// # Errors
/// When the system refuses.
pub fn open(path: &Path) -> Result<File, JsonlError> {
    let (file, _) = open_whole(path).map_err(JsonlError::io("open", path))?;
    Ok(file)
}
