//! A source cut into units of work.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::formats::{Compression, FileKind};
use super::names;
use super::out::dropped;
use super::parquet::ParquetFile;
use super::settings::{Format, SourceSettings};
use super::source::Source;
use super::store::Store;
use super::unit::{Cut, Part, Unit};
use super::walk::{self, Found, Root};
use crate::document::{Dropped, Origin};

/// A unit has no more files, so that its description stays small.
const MAX_FILES: usize = 4096;

/// Of a source of so many bytes, a unit's, where the spec does not say. Not by the number of cores: units are to be the same on
/// every machine.
fn default_unit_bytes(source_bytes: u64) -> u64 {
    (source_bytes / 64).clamp(2 << 20, 64 << 20)
}

/// Why the files of a source cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// A setting is out of its bounds.
    #[error("{0}")]
    Setting(String),
    /// The source is not there, or must not be read.
    #[error("source {}: cannot be read; check source.path, and who may read it", path.display())]
    Unreadable {
        /// The source's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its store answered at first, and does not any more.
    #[error("source {path}: {problem}; try again once the service answers")]
    Outage {
        /// The source's path.
        path: String,
        /// What the store said.
        problem: String,
    },
    /// The source is a pipe, socket or device.
    #[error("source {}: neither a file nor a folder; write what it yields to a file first", path.display())]
    NotAFile {
        /// The source's path.
        path: PathBuf,
    },
}

/// The work that a source is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// What is to be read, in order.
    pub units: Vec<Unit>,
    /// Files and folders that are not read, each with its reason, sorted by path.
    pub dropped: Vec<Dropped>,
    /// Files that `include`, `exclude` or the glob of `path` leaves out, and folders that `exclude` does.
    pub excluded: u64,
}

impl Listing {
    /// The size of all units as they are stored, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.units.iter().map(|unit| unit.bytes).sum()
    }
}

/// Lists a source. The same files give the same units, in the same order, on every machine, but for when
/// files were modified.
///
/// # Errors
/// If a setting is out of bounds, or the source as a whole cannot be read.
pub fn list(settings: &SourceSettings) -> Result<Listing, ListError> {
    Source::open(settings)?.list()
}

/// Lists a source of any store.
///
/// # Errors
/// As [`list`].
pub fn list_in(store: &dyn Store, settings: &SourceSettings) -> Result<Listing, ListError> {
    settings.check().map_err(ListError::Setting)?;
    list_below(store, &Root::of(store, settings)?, settings)
}

/// Lists what is below a root.
pub(crate) fn list_below(
    store: &dyn Store,
    root: &Root,
    settings: &SourceSettings,
) -> Result<Listing, ListError> {
    let walked = walk::walk(store, root, settings)?;
    let sizes = walked.files.iter().map(|found| found.state.bytes);
    let source_bytes = sizes.fold(0, u64::saturating_add);
    let mut cutter = Cutter {
        store,
        settings,
        unit_bytes: settings
            .unit_bytes
            .unwrap_or_else(|| default_unit_bytes(source_bytes)),
        root,
        source: settings.name.as_str().into(),
        current: Vec::new(),
        listing: Listing {
            excluded: walked.excluded,
            ..Listing::default()
        },
    };
    for (path, reason, detail) in walked.passed {
        cutter.drop(names::escape(path.as_os_str()).into(), reason, detail);
    }
    for found in &walked.files {
        cutter.file(found);
    }
    cutter.close();
    let mut listing = cutter.listing;
    listing.dropped.sort_by(|a, b| a.origin.cmp(&b.origin));
    Ok(listing)
}

struct Cutter<'a> {
    store: &'a dyn Store,
    settings: &'a SourceSettings,
    root: &'a Root,
    unit_bytes: u64,
    source: Arc<str>,
    current: Vec<Part>,
    listing: Listing,
}

impl Cutter<'_> {
    fn drop(&mut self, file: Arc<str>, reason: &'static str, detail: String) {
        let origin = Origin {
            source: Arc::clone(&self.source),
            file,
            record: 0,
            offset: 0,
        };
        self.listing.dropped.push(dropped(origin, reason, detail));
    }

    fn file(&mut self, found: &Found) {
        let file: Arc<str> = names::escape(found.inside.as_os_str()).into();
        let kind = match FileKind::of(&file, self.settings.format) {
            Ok(kind) => kind,
            Err((reason, detail)) => return self.drop(file, reason, detail),
        };
        let bytes = found.state.bytes;
        if bytes == 0 {
            return self.drop(file, "read.empty", "the file is empty".to_owned());
        }
        let inside = self.root.folder.join(&found.inside);
        let mut part = Part {
            file,
            file_bytes: bytes,
            version: found.state.version.clone(),
            cut: Cut::Whole,
            bytes,
            url: self.store.address(&inside),
            licence: found.licence.clone(),
            opt_outs: self.store.opt_outs(&inside),
        };
        let unit_bytes = self.unit_bytes;
        if bytes <= unit_bytes || kind.compression != Compression::None {
            return self.push(part);
        }
        match kind.format {
            Format::Jsonl => {
                let mut start = 0;
                while start < bytes {
                    let end = start.saturating_add(unit_bytes).min(bytes);
                    part.cut = Cut::Bytes { start, end };
                    part.bytes = end - start;
                    self.push(part.clone());
                    start = end;
                }
            }
            Format::Parquet => self.row_groups(found, part),
            _ => self.push(part),
        }
    }

    /// Cuts a Parquet file; one that cannot be opened stays whole, and whoever reads it tells why.
    fn row_groups(&mut self, found: &Found, mut part: Part) {
        let opened = self.store.open(&self.root.folder.join(&found.inside)).ok();
        let opened = opened.and_then(|file| ParquetFile::open(file, self.settings).ok());
        let groups = opened.map(|file| file.group_bytes()).unwrap_or_default();
        let mut left = found.state.bytes;
        let (mut start, mut bytes) = (0, 0_u64);
        for (index, &group) in groups.iter().enumerate() {
            let end = index + 1;
            bytes = bytes.saturating_add(group);
            if bytes < self.unit_bytes && end < groups.len() {
                continue;
            }
            // The last part has the footer too, and hostile sizes do not add up.
            part.bytes = if end == groups.len() {
                left
            } else {
                bytes.min(left)
            };
            left -= part.bytes;
            part.cut = Cut::RowGroups { start, end };
            self.push(part.clone());
            (start, bytes) = (end, 0);
        }
        if groups.is_empty() {
            self.push(part);
        }
    }

    fn push(&mut self, part: Part) {
        let bytes: u64 = self.current.iter().map(|part| part.bytes).sum();
        let is_full = bytes.saturating_add(part.bytes) > self.unit_bytes;
        if is_full || self.current.len() >= MAX_FILES {
            self.close();
        }
        self.current.push(part);
    }

    fn close(&mut self) {
        if self.current.is_empty() {
            return;
        }
        let parts = std::mem::take(&mut self.current);
        self.listing.units.push(Unit {
            source: Arc::clone(&self.source),
            number: self.listing.units.len() as u64,
            bytes: parts.iter().map(|part| part.bytes).sum(),
            parts,
        });
    }
}

/// Reads all of a source, unit by unit: for small sources and tests.
///
/// # Errors
/// As [`list`].
pub fn read_all(
    settings: &SourceSettings,
    sink: &mut dyn FnMut(super::Read) -> ControlFlow<()>,
) -> Result<(), ListError> {
    let source = Source::open(settings)?;
    let listing = source.list()?;
    for dropped in listing.dropped {
        if sink(super::Read::Dropped(dropped)).is_break() {
            return Ok(());
        }
    }
    for unit in &listing.units {
        if source.read(unit, sink).is_break() {
            break;
        }
    }
    Ok(())
}
