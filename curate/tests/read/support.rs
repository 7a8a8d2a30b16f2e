//! Folders to read, files that are not on any disk, and what was read of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_curate::read::{
    self, Entry, FileState, Kind, Listing, Read, SourceSettings, Store, StoredFile, Unit,
};
use lockstep_curate::{Document, Dropped};
use tempfile::TempDir;

/// A folder with these files.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

pub(crate) fn settings(path: &Path) -> SourceSettings {
    SourceSettings {
        name: "test".to_owned(),
        path: path.to_str().unwrap().to_owned(),
        ..SourceSettings::default()
    }
}

/// All that was read of a source.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct All {
    pub(crate) documents: Vec<Document>,
    pub(crate) dropped: Vec<Dropped>,
}

impl All {
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.documents
            .iter()
            .map(|document| document.text.as_str())
            .collect()
    }

    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.dropped.iter().map(|dropped| &*dropped.reason).collect()
    }

    /// The one document.
    pub(crate) fn one(&self) -> &Document {
        assert_eq!((self.documents.len(), self.dropped.len()), (1, 0), "{self:?}");
        &self.documents[0]
    }
}

pub(crate) fn read_all(settings: &SourceSettings) -> All {
    read_from(&read::LocalStore, settings)
}

/// Reads all units, and checks what holds of every source: progress adds up, units survive being written down, and each
/// file is told of.
pub(crate) fn read_from(store: &dyn Store, settings: &SourceSettings) -> All {
    let listing = read::list_in(store, settings).unwrap();
    let mut all = All {
        dropped: listing.dropped.clone(),
        ..All::default()
    };
    for (number, unit) in listing.units.iter().enumerate() {
        assert_eq!(unit.number, number as u64);
        let json = serde_json::to_string(unit).unwrap();
        let unit: Unit = serde_json::from_str(&json).unwrap();
        assert_eq!(read_unit(store, &unit, settings, &mut all), unit.bytes);
    }
    assert_told(&listing, &all);
    all
}

fn assert_told(listing: &Listing, all: &All) {
    for part in listing.units.iter().flat_map(|unit| &unit.parts) {
        let told = all.documents.iter().map(|document| &document.origin);
        let mut told = told.chain(all.dropped.iter().map(|dropped| &dropped.origin));
        let whole = part.bytes == part.file_bytes;
        assert!(
            !whole || told.any(|origin| origin.file == part.file),
            "nothing is told of {}",
            part.file
        );
    }
}

/// The bytes that progress was told of.
pub(crate) fn read_unit(store: &dyn Store, unit: &Unit, settings: &SourceSettings, all: &mut All) -> u64 {
    let mut bytes = 0;
    let flow = read::read_in(store, unit, settings, &mut |read| {
        match read {
            Read::Document(document) => all.documents.push(document),
            Read::Dropped(dropped) => all.dropped.push(dropped),
            Read::Progress(more) => bytes += more,
        }
        ControlFlow::Continue(())
    });
    assert!(flow.is_continue());
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A store with one folder, `/`, whose files are made up.
pub(crate) struct MadeUp<F>(pub(crate) BTreeMap<String, F>);

impl<F: MadeUpFile> MadeUp<F> {
    pub(crate) fn of(name: &str, file: F) -> Self {
        Self([(name.to_owned(), file)].into())
    }
}

/// A file that is not on any disk.
pub(crate) trait MadeUpFile: Clone + Send + Sync + 'static {
    fn bytes(&self) -> u64;
    fn read(&self, range: Range<u64>) -> Box<dyn io::Read + Send>;
}

impl MadeUpFile for Arc<[u8]> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Box<dyn io::Read + Send> {
        let (start, end) = (range.start.min(self.bytes()), range.end.min(self.bytes()));
        Box::new(Shared {
            bytes: Arc::clone(self),
            range: start as usize..end as usize,
        })
    }
}

/// Reads without a copy of what is read from, so that memory is only that of the reader.
struct Shared {
    bytes: Arc<[u8]>,
    range: Range<usize>,
}

impl io::Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&self.bytes[self.range.clone()]).read(buffer)?;
        self.range.start += read;
        Ok(read)
    }
}

/// The same byte over and over.
#[derive(Clone)]
pub(crate) struct Endless {
    pub(crate) byte: u8,
    pub(crate) bytes: u64,
}

impl MadeUpFile for Endless {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, range: Range<u64>) -> Box<dyn io::Read + Send> {
        Box::new(io::repeat(self.byte).take(range.end.min(self.bytes).saturating_sub(range.start)))
    }
}

fn state_of(file: &impl MadeUpFile) -> FileState {
    FileState {
        bytes: file.bytes(),
        version: None,
    }
}

struct Opened<F>(F);

impl<F: MadeUpFile> StoredFile for Opened<F> {
    fn state(&self) -> io::Result<FileState> {
        Ok(state_of(&self.0))
    }

    fn read(&self, range: Range<u64>) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(self.0.read(range))
    }
}

impl<F: MadeUpFile> Store for MadeUp<F> {
    fn look_at(&self, path: &Path) -> io::Result<Kind> {
        if path == Path::new("/") {
            return Ok(Kind::Folder);
        }
        let file = self.find(path)?;
        Ok(Kind::File(state_of(file)))
    }

    fn entries(&self, _: &Path) -> io::Result<Vec<io::Result<Entry>>> {
        let entry = |(name, file): (&String, &F)| {
            Ok(Entry {
                name: name.into(),
                kind: Kind::File(state_of(file)),
            })
        };
        Ok(self.0.iter().map(entry).collect())
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(Opened(self.find(path)?.clone())))
    }
}

impl<F: MadeUpFile> MadeUp<F> {
    fn find(&self, path: &Path) -> io::Result<&F> {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| self.0.get(name))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A Parquet file.
pub(crate) mod table {
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    /// A table of nullable texts named `column` and of ids, in groups of so many rows.
    pub(crate) fn of(column: &str, texts: &[Option<&str>], rows: usize, compression: Compression) -> Vec<u8> {
        let properties = WriterProperties::builder().set_compression(compression);
        with(column, texts, rows, properties.build())
    }

    /// The same, written with these properties.
    pub(crate) fn with(
        column: &str,
        texts: &[Option<&str>],
        rows: usize,
        properties: WriterProperties,
    ) -> Vec<u8> {
        let schema = format!("message m {{ required int64 id; optional binary {column} (STRING); }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        for (group, texts) in texts.chunks(rows.max(1)).enumerate() {
            let first = (group * rows) as i64;
            let ids: Vec<i64> = (first..).take(texts.len()).collect();
            let present: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
            let values: Vec<ByteArray> = texts.iter().flatten().map(|&text| text.into()).collect();
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, Some(&present), None)
                .unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.into_inner().unwrap()
    }
}

/// A WARC record.
pub(crate) fn warc_record(kind: &str, content_type: &str, block: &[u8]) -> Vec<u8> {
    let mut record = format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:1>\r\nWARC-Date: 2024-05-01T00:00:00Z\r\n\
         WARC-Target-URI: http://example.org/a\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        block.len()
    )
    .into_bytes();
    record.extend_from_slice(block);
    record.extend_from_slice(b"\r\n\r\n");
    record
}
