//! Files that appear whole or not at all, and know it; and such files of records of a fixed width.
//!
//! A file is a body and a footer of eight little-endian words: what it is (with the version of its format), four
//! parameters, the body's bytes, the body's XXH3 checksum, the footer's own.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::dedup::DedupError;

const FOOTER_BYTES: u64 = 64;
const BUFFER_BYTES: usize = 1 << 16;

/// What a file is, in eight letters, the last of which is the format's version.
pub(crate) type Kind = [u8; 8];

/// What a file says of itself at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) kind: Kind,
    pub(crate) parameters: [u64; 4],
    pub(crate) body_bytes: u64,
    checksum: u64,
}

impl Footer {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.kind.to_vec();
        put_words(&mut bytes, &self.parameters);
        put_words(&mut bytes, &[self.body_bytes, self.checksum]);
        let checksum = xxh3_64(&bytes);
        put_words(&mut bytes, &[checksum]);
        bytes
    }

    fn decode(bytes: &[u8; FOOTER_BYTES as usize]) -> Option<Self> {
        let [kind, a, b, c, d, body_bytes, checksum, own] = words_of::<8>(bytes);
        let (said, _) = bytes.split_at(bytes.len() - 8);
        (xxh3_64(said) == own).then_some(Self {
            kind: kind.to_le_bytes(),
            parameters: [a, b, c, d],
            body_bytes,
            checksum,
        })
    }

    /// Opens a file and reads its footer.
    pub(crate) fn open(path: &Path) -> Result<(File, Self), DedupError> {
        let file = File::open(path).map_err(|error| DedupError::io("open", path, error))?;
        let failed = |error| DedupError::io("read", path, error);
        let length = file.metadata().map_err(failed)?.len();
        let cut = || DedupError::damaged(path, "it is cut short, or another program's");
        let body_bytes = length.checked_sub(FOOTER_BYTES).ok_or_else(cut)?;
        let mut bytes = [0; FOOTER_BYTES as usize];
        file.read_exact_at(&mut bytes, body_bytes).map_err(failed)?;
        let footer = Self::decode(&bytes).filter(|footer| footer.body_bytes == body_bytes);
        Ok((file, footer.ok_or_else(cut)?))
    }

    /// Opens a file of one kind.
    pub(crate) fn open_as(path: &Path, kind: Kind) -> Result<(File, Self), DedupError> {
        let (file, footer) = Self::open(path)?;
        match footer.kind == kind {
            true => Ok((file, footer)),
            false => Err(DedupError::damaged(path, "it is a file of another kind")),
        }
    }
}

/// Whether a file of this module stands there and is whole in length; what it holds is checked as it is read. False
/// also for a file that is cut short or is not ours: its task makes it again, in its place.
///
/// # Errors
/// If the file system cannot say.
pub fn finished(path: &Path) -> Result<bool, DedupError> {
    match Footer::open(path) {
        Ok(_) => Ok(true),
        Err(DedupError::Damaged { .. }) => Ok(false),
        Err(DedupError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file that is being written, beside its place and under another name. Dropped without [`Draft::commit`], it
/// leaves nothing.
pub(crate) struct Draft {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
    hasher: Xxh3Default,
    bytes: u64,
}

impl Draft {
    pub(crate) fn create(path: &Path) -> Result<Self, DedupError> {
        let failed = |error| DedupError::io("create", path, error);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            .tempfile_in(folder_of(path))
            .map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            writer: BufWriter::with_capacity(BUFFER_BYTES, file),
            hasher: Xxh3Default::new(),
            bytes: 0,
        })
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), DedupError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        let written = self.writer.write_all(bytes);
        written.map_err(|error| DedupError::io("write", &self.path, error))
    }

    /// Writes the footer, flushes all to the disk and gives the file its name.
    pub(crate) fn commit(mut self, kind: Kind, parameters: [u64; 4]) -> Result<(), DedupError> {
        let footer = Footer {
            kind,
            parameters,
            body_bytes: self.bytes,
            checksum: self.hasher.digest(),
        };
        let path = self.path;
        let failed = |error| DedupError::io("write", &path, error);
        self.writer.write_all(&footer.encode()).map_err(failed)?;
        let file = self
            .writer
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        let synced = File::open(folder_of(&path)).and_then(|folder| folder.sync_all());
        synced.map_err(|error| DedupError::io("sync the folder of", &path, error))
    }
}

fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// A file of records of `N` words that is being written.
pub(crate) struct TableWriter<const N: usize> {
    draft: Draft,
    encoded: Vec<u8>,
}

impl<const N: usize> TableWriter<N> {
    pub(crate) fn create(path: &Path) -> Result<Self, DedupError> {
        Ok(Self {
            draft: Draft::create(path)?,
            encoded: Vec::with_capacity(8 * N),
        })
    }

    pub(crate) fn push(&mut self, record: &[u64; N]) -> Result<(), DedupError> {
        self.encoded.clear();
        put_words(&mut self.encoded, record);
        self.draft.put(&self.encoded)
    }

    pub(crate) fn commit(self, kind: Kind, parameters: [u64; 4]) -> Result<(), DedupError> {
        self.draft.commit(kind, parameters)
    }
}

/// The records of such a file, in their order. After the last one the checksum is compared: an iterator that ended
/// without an error has given what was written.
pub(crate) struct TableReader<const N: usize> {
    path: PathBuf,
    footer: Footer,
    body: Records<N>,
    hasher: Xxh3Default,
    ended: bool,
}

impl<const N: usize> TableReader<N> {
    pub(crate) fn open(path: &Path, kind: Kind) -> Result<Self, DedupError> {
        let (file, footer) = Footer::open_as(path, kind)?;
        Ok(Self {
            path: path.to_owned(),
            footer,
            body: Records::new(file, footer.body_bytes / (8 * N as u64)),
            hasher: Xxh3Default::new(),
            ended: false,
        })
    }

    pub(crate) fn parameters(&self) -> [u64; 4] {
        self.footer.parameters
    }

    /// Records in the whole file.
    pub(crate) fn records(&self) -> u64 {
        self.footer.body_bytes / (8 * N as u64)
    }

    fn step(&mut self) -> Result<Option<[u64; N]>, DedupError> {
        let failed = |error| DedupError::io("read", &self.path, error);
        if let Some(fresh) = self.body.fill().map_err(failed)? {
            self.hasher.update(fresh);
        }
        let record = self.body.take();
        if record.is_none() && self.hasher.digest() != self.footer.checksum {
            return Err(DedupError::damaged(&self.path, "its checksum does not match"));
        }
        Ok(record)
    }
}

impl<const N: usize> Iterator for TableReader<N> {
    type Item = Result<[u64; N], DedupError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

/// Records of a file, read in order through a buffer.
pub(crate) struct Records<const N: usize> {
    file: File,
    left: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl<const N: usize> Records<N> {
    /// The first `records` of a file, from where it stands.
    pub(crate) fn new(file: File, records: u64) -> Self {
        Self {
            file,
            left: records,
            buffer: Vec::new(),
            taken: 0,
        }
    }

    /// Reads on if the buffer is used up; gives what is new in it.
    fn fill(&mut self) -> std::io::Result<Option<&[u8]>> {
        if self.taken < self.buffer.len() || self.left == 0 {
            return Ok(None);
        }
        let records = self.left.min((BUFFER_BYTES / (8 * N)) as u64);
        self.buffer.resize(records as usize * 8 * N, 0);
        self.file.read_exact(&mut self.buffer)?;
        (self.left, self.taken) = (self.left - records, 0);
        Ok(Some(&self.buffer))
    }

    fn take(&mut self) -> Option<[u64; N]> {
        let bytes = self.buffer.get(self.taken..self.taken + 8 * N)?;
        self.taken += 8 * N;
        Some(words_of(bytes))
    }

    /// The next record.
    pub(crate) fn advance(&mut self) -> std::io::Result<Option<[u64; N]>> {
        self.fill()?;
        Ok(self.take())
    }
}

/// Appends words as little-endian bytes.
pub(crate) fn put_words(bytes: &mut Vec<u8>, words: &[u64]) {
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
}

/// The first words of little-endian bytes; zeros where there are too few.
pub(crate) fn words_of<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    const KIND: Kind = *b"records1";

    fn write(path: &Path, records: &[[u64; 2]]) {
        let mut writer = TableWriter::create(path).unwrap();
        records.iter().for_each(|record| writer.push(record).unwrap());
        writer.commit(KIND, [1, 2, 3, 4]).unwrap();
    }

    fn read(path: &Path) -> Result<Vec<[u64; 2]>, DedupError> {
        TableReader::<2>::open(path, KIND)?.collect()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut writer = TableWriter::create(&path).unwrap();
        writer.push(&[1, 2]).unwrap();
        assert!(!path.exists() && !finished(&path).unwrap());
        drop(writer);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        write(&path, &[[1, 2]]);
        assert!(finished(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(
            TableReader::<2>::open(&path, *b"records2"),
            Err(DedupError::Damaged { .. })
        ));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(records in prop::collection::vec(any::<[u64; 2]>(), 0..9000)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            write(&path, &records);
            let reader = TableReader::<2>::open(&path, KIND).unwrap();
            prop_assert_eq!((reader.records(), reader.parameters()), (records.len() as u64, [1, 2, 3, 4]));
            prop_assert_eq!(read(&path).unwrap(), records);
        }

        #[test]
        fn a_cut_or_changed_file_is_never_taken_for_whole(
            count in 0usize..200, place in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            let records: Vec<_> = (0..count as u64).map(|i| [i, i * i]).collect();
            write(&path, &records);
            let whole = fs::read(&path).unwrap();
            let place = place.index(whole.len());
            fs::write(&path, &whole[..place]).unwrap();
            prop_assert!(!finished(&path).unwrap());
            let mut changed = whole;
            changed[place] ^= flip;
            fs::write(&path, &changed).unwrap();
            prop_assert!(read(&path).is_err());
        }
    }
}
