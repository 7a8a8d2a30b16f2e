//! Text, Markdown, HTML, source trees, JSONL, CSV, Parquet, WARC as documents.
//!
//! A source is listed, which cuts it into units of work, and each unit is read on its own: what all units of a source
//! yield, one after another, does not depend on how it was cut. Reading never fails: a record that is bad is dropped with
//! its place and a reason, and so is the rest of a file that cannot be read on.
//!
//! | reason | what was dropped |
//! |---|---|
//! | `read.hidden`, `read.link`, `read.link_loop`, `read.special` | a file or folder that is passed over |
//! | `read.unreadable`, `read.changed` | a file that the system does not give, or that changed since it was listed |
//! | `read.unreachable`, `read.redirect` | an address that does not answer or sends its answer in parts only, or leads in a circle |
//! | `read.format`, `read.compression` | a file of a kind that is not read |
//! | `read.empty`, `read.too_long`, `read.binary` | a file or record without text, with too much, or with none at all |
//! | `read.truncated`, `read.gzip`, `read.zstd` | the rest of a file that ends early or is damaged |
//! | `read.utf8`, `read.json`, `read.not_an_object`, `read.csv` | a record that is not what its format asks for |
//! | `read.no_text`, `read.text_type` | a record whose text is missing, or no text |
//! | `read.column`, `read.parquet` | a table without the column, or the damaged rest of one |
//! | `read.warc`, `read.http`, `read.http_status`, `read.content_type`, `read.content_encoding` | a record of a crawl |
//! | `read.html` | a page that is nested too deep to be taken apart |
//! | `read.panicked` | what a library panicked on |
//!
//! | module | concept |
//! |---|---|
//! | `settings` | `[[source]]` |
//! | `source` | one that is open: where its files are, and how they are read |
//! | `store`, `names` | where files are, and their paths as text |
//! | `place`, `objects` | which paths lead into object stores, and those as folders |
//! | `fetched` | what was fetched of a list, as a folder |
//! | `walk`, `nearest`, `formats` | which files there are, under which licence, and of what kind |
//! | `list`, `unit` | the work that they are |
//! | `input`, `encoding` | bytes, decompressed and decoded |
//! | `whole`, `html`, `jsonl`, `csv`, `parquet`, `pages`, `warc`, `http` | the formats |
//! | `record`, `out` | a record's fields, and the documents that they become |
//! | `contain` | panics of libraries end there |

mod contain;
mod csv;
mod encoding;
mod fetched;
mod formats;
mod html;
mod http;
mod input;
mod jsonl;
mod list;
mod names;
mod nearest;
#[cfg(feature = "remote")]
mod objects;
mod out;
mod pages;
mod parquet;
mod place;
mod record;
mod settings;
mod source;
mod store;
mod unit;
mod walk;
mod warc;
mod whole;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

pub(crate) use fetched::{Fetched, FetchedFile};
#[cfg(feature = "remote")]
pub(crate) use http::Headers;
pub use list::{ListError, Listing, list, list_in, read_all};
#[cfg(feature = "remote")]
pub use objects::Objects;
pub(crate) use out::KIND_OF_CODE;
pub use settings::{FieldSettings, Format, SourceSettings};
pub use source::Source;
pub use store::{Entry, FileState, Kind, LocalStore, Store, StoredFile};
pub use unit::{Cut, Part, Unit};

use crate::document::{Document, Dropped};
use formats::FileKind;
use input::Input;
use out::{At, Out};
use walk::Root;

/// What reading yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// A document.
    Document(Document),
    /// A record or file that is left out.
    Dropped(Dropped),
    /// So many more bytes were read, as they are stored. Those of a unit add up to its size.
    Progress(u64),
}

/// Reads a unit of a source of this machine, until the sink breaks off.
pub fn read(
    unit: &Unit,
    settings: &SourceSettings,
    sink: &mut dyn FnMut(Read) -> ControlFlow<()>,
) -> ControlFlow<()> {
    read_in(&LocalStore, unit, settings, sink)
}

/// Reads a unit of a source of any store, until the sink breaks off.
pub fn read_in(
    store: &dyn Store,
    unit: &Unit,
    settings: &SourceSettings,
    sink: &mut dyn FnMut(Read) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let root = Root::of(store, settings).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    });
    read_below(store, root.as_ref(), unit, settings, sink)
}

/// Reads a unit of what is below a root, or tells of each part why there is none.
fn read_below(
    store: &dyn Store,
    root: Result<&Root, &String>,
    unit: &Unit,
    settings: &SourceSettings,
    sink: &mut dyn FnMut(Read) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for part in &unit.parts {
        let mut out = Out::new(sink, settings, &unit.source, part);
        match open(store, root, part, settings) {
            Ok((file, before, kind)) => {
                read_part(&file, before, kind, part, &mut out)?;
            }
            Err((reason, detail)) => out.drop(At::default(), reason, detail)?,
        }
        out.finish(!matches!(part.cut, Cut::Bytes { .. }))?;
    }
    ControlFlow::Continue(())
}

type Opened = (Arc<dyn StoredFile>, FileState, FileKind);

fn open(
    store: &dyn Store,
    root: Result<&Root, &String>,
    part: &Part,
    settings: &SourceSettings,
) -> Result<Opened, (&'static str, String)> {
    let unreadable = |detail: String| ("read.unreadable", detail);
    let root = root.map_err(|error| unreadable(error.clone()))?;
    let kind = FileKind::of(&part.file, settings.format)?;
    let inside = names::unescape(&part.file).ok_or_else(|| unreadable("not a path of a unit".to_owned()))?;
    let opened = || {
        let file = store.open(&root.folder.join(inside))?;
        let state = file.state()?;
        Ok((file, state))
    };
    let (file, state) = opened().map_err(|error: io::Error| unreadable(error.to_string()))?;
    if state.bytes != part.file_bytes {
        let detail = format!(
            "had {} bytes when it was listed, now {}; list the source again once it is left alone",
            part.file_bytes, state.bytes
        );
        return Err(("read.changed", detail));
    }
    if part.version.is_some() && state.version != part.version {
        let detail = "was written again since it was listed; list the source again once it is left alone";
        return Err(("read.changed", detail.to_owned()));
    }
    Ok((file, state, kind))
}

fn read_part(
    file: &Arc<dyn StoredFile>,
    before: FileState,
    kind: FileKind,
    part: &Part,
    out: &mut Out<'_>,
) -> ControlFlow<()> {
    let is_changed = || Ok(file.state()? != before);
    if kind.format == Format::Parquet {
        let range = match part.cut {
            Cut::RowGroups { start, end } => Some(start..end),
            Cut::Whole | Cut::Bytes { .. } => None,
        };
        match parquet::ParquetFile::open(Arc::clone(file), out.settings) {
            Ok(parquet) => parquet.read(range, out)?,
            Err((reason, detail)) => out.drop(At::default(), reason, detail)?,
        }
    } else {
        let range = match part.cut {
            Cut::Bytes { start, end } => start..end,
            Cut::Whole | Cut::RowGroups { .. } => 0..u64::MAX,
        };
        // Whether a line begins at the start is told by the byte before.
        let opened = range.start.saturating_sub(1)..part.file_bytes;
        match Input::open(file.as_ref(), opened, kind.compression) {
            Ok(mut input) => match kind.format {
                Format::Jsonl => jsonl::read(&mut input, &range, out)?,
                Format::Csv => csv::read(&mut input, kind.delimiter, out)?,
                Format::Warc => warc::read(&mut input, out)?,
                _ => whole::read(&mut input, kind, is_changed, out)?,
            },
            Err(error) => out.drop(At::default(), "read.unreadable", error.to_string())?,
        }
    }
    match is_changed() {
        Ok(false) => ControlFlow::Continue(()),
        Ok(true) => {
            let detail = "changed while it was read, so that what was read of it may be mixed; read it again";
            out.drop(At::default(), "read.changed", detail.to_owned())
        }
        Err(error) => out.drop(At::default(), "read.unreadable", error.to_string()),
    }
}
