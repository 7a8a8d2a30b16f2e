//! Records in files of the work folder: JSON lines under zstd, read with `zstdcat` by whoever is curious.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use crate::error::CurateError;
use crate::work::TaskFile;

/// Fast rather than small: what is written is read again soon, and then removed.
const LEVEL: i32 = 1;

/// Writes records.
pub(crate) struct RecordWriter<T> {
    encoder: Encoder<'static, TaskFile>,
    line: Vec<u8>,
    records: PhantomData<fn(T)>,
}

impl<T: Serialize> RecordWriter<T> {
    /// Creates the file.
    pub(crate) fn create(path: PathBuf) -> Result<Self, CurateError> {
        Self::of_level(path, LEVEL)
    }

    /// Creates a file that stays, and so is to be small.
    pub(crate) fn packed(path: PathBuf) -> Result<Self, CurateError> {
        Self::of_level(path, zstd::DEFAULT_COMPRESSION_LEVEL)
    }

    fn of_level(path: PathBuf, level: i32) -> Result<Self, CurateError> {
        let file = TaskFile::create(path.clone())?;
        let encoder = Encoder::new(file, level)
            .and_then(|mut encoder| {
                encoder.include_checksum(true)?;
                Ok(encoder)
            })
            .map_err(|error| CurateError::io("write", &path, error))?;
        Ok(Self {
            encoder,
            line: Vec::new(),
            records: PhantomData,
        })
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: &T) -> Result<(), CurateError> {
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, record).map_err(std::io::Error::from);
        self.line.push(b'\n');
        written
            .and_then(|()| self.encoder.write_all(&self.line))
            .map_err(|error| self.encoder.get_ref().failed(error))
    }

    /// Ends the file and flushes it to the disk.
    pub(crate) fn close(self) -> Result<(), CurateError> {
        let path = self.encoder.get_ref().path().to_owned();
        let file = self.encoder.finish();
        file.map_err(|error| CurateError::io("write", &path, error))?
            .close()
    }
}

/// Reads records, in order.
pub(crate) struct Records<T> {
    path: PathBuf,
    lines: BufReader<Decoder<'static, BufReader<File>>>,
    line: Vec<u8>,
    records: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Records<T> {
    /// Opens the file.
    pub(crate) fn open(path: &Path) -> Result<Self, CurateError> {
        let decoder = File::open(path).and_then(Decoder::new);
        let decoder = decoder.map_err(|error| CurateError::io("open", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            lines: BufReader::with_capacity(1 << 18, decoder),
            line: Vec::new(),
            records: PhantomData,
        })
    }

    fn read(&mut self) -> Result<Option<T>, CurateError> {
        self.line.clear();
        let failed = |problem: String| CurateError::Damaged {
            path: self.path.clone(),
            problem,
        };
        match self.lines.read_until(b'\n', &mut self.line) {
            Ok(0) => Ok(None),
            Ok(_) => serde_json::from_slice(&self.line)
                .map(Some)
                .map_err(|error| failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

impl<T: DeserializeOwned> Iterator for Records<T> {
    type Item = Result<T, CurateError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Writes one value as a file.
pub(crate) fn write_json(path: PathBuf, value: &impl Serialize) -> Result<(), CurateError> {
    let mut file = TaskFile::create(path)?;
    let text = serde_json::to_vec_pretty(value).map_err(|error| file.failed(error.into()))?;
    file.put(&text)?;
    file.put(b"\n")?;
    file.close()
}

/// Reads such a file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, CurateError> {
    let text = std::fs::read(path).map_err(|error| CurateError::io("read", path, error))?;
    serde_json::from_slice(&text).map_err(|error| CurateError::Damaged {
        path: path.to_owned(),
        problem: error.to_string(),
    })
}
