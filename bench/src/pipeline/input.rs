//! The documents that stages are given: a file of JSON lines with the field `text`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use lockstep_curate::read::{self, Read, SourceSettings};

use super::text::Made;
use crate::Error;

/// Writes made documents of a seed to `file`, of so many bytes of text or a document more.
///
/// # Errors
/// If the file cannot be written.
pub fn make(file: &Path, seed: u64, bytes: u64) -> Result<(), Error> {
    let made = Made::new(seed);
    let mut lines = Lines::create(file)?;
    let mut text = String::new();
    for number in 0.. {
        if lines.bytes >= bytes {
            break;
        }
        made.write(number, &mut text);
        lines.put(&text)?;
    }
    lines.close()
}

/// Copies the first documents of a source, of any format, to `file`: `bytes` of text, or a document more.
///
/// # Errors
/// If the source cannot be read, or the file not be written.
pub fn copy(source: &str, file: &Path, bytes: u64) -> Result<(), Error> {
    let mut lines = Lines::create(file)?;
    let mut failed = None;
    each(source, &mut |text| {
        failed = lines.put(&text).err();
        if failed.is_some() || lines.bytes >= bytes {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    if lines.bytes == 0 {
        let message = format!(
            "--input {source}: no document can be read; see which formats `lockstep data build` reads"
        );
        return Err(Error::Usage(message));
    }
    failed.map_or_else(|| lines.close(), Err)
}

/// Calls `sink` with the text of each document of a source, until it breaks off.
pub(super) fn each(source: &str, sink: &mut dyn FnMut(String) -> ControlFlow<()>) -> Result<(), Error> {
    let settings = SourceSettings {
        name: "input".to_owned(),
        path: source.to_owned(),
        ..SourceSettings::default()
    };
    let listed = read::read_all(&settings, &mut |read| match read {
        Read::Document(document) => sink(document.text),
        Read::Dropped(_) | Read::Progress(_) => ControlFlow::Continue(()),
    });
    listed.map_err(|error| Error::Usage(format!("--input {source}: {error}")))
}

/// A file of documents while it is written.
struct Lines {
    writer: BufWriter<File>,
    /// Of text.
    bytes: u64,
}

impl Lines {
    fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(Error::system(format!("create {}", path.display())))?;
        Ok(Self {
            writer: BufWriter::new(file),
            bytes: 0,
        })
    }

    fn put(&mut self, text: &str) -> Result<(), Error> {
        self.bytes += text.len() as u64;
        let line = serde_json::json!({ "text": text });
        writeln!(self.writer, "{line}").map_err(Error::system("write the documents"))
    }

    fn close(mut self) -> Result<(), Error> {
        self.writer.flush().map_err(Error::system("write the documents"))
    }
}
