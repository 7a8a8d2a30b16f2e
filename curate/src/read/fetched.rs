//! What was fetched of a list, as a folder whose files are named by their addresses.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::formats::{Compression, FileKind};
use super::settings::Format;
use super::store::{Entry, FileState, Kind, LocalStore, Store, StoredFile};

/// What an address gave.
#[derive(Clone, Debug)]
pub(crate) struct FetchedFile {
    pub(crate) url: Arc<str>,
    /// Where it is on this machine.
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) digest: Arc<str>,
    /// What the service said that it is.
    pub(crate) content_type: Option<String>,
    /// What it stated of robots and of text and data mining.
    pub(crate) opt_outs: Vec<String>,
}

/// A folder of what was fetched.
pub(crate) struct Fetched(BTreeMap<OsString, FetchedFile>);

impl Fetched {
    /// The folder with these files, that are read in this format.
    pub(crate) fn new(files: impl IntoIterator<Item = FetchedFile>, format: Format) -> Self {
        let named = |file: FetchedFile| (name(&file.url, file.content_type.as_deref(), format).into(), file);
        Self(files.into_iter().map(named).collect())
    }

    fn find(&self, path: &Path) -> io::Result<&FetchedFile> {
        let file = self.0.get(path.as_os_str());
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The name of what an address gave: the address and, where that does not say what it is, after a `#` a name that does. No
/// address has a `#`, so that no two have the same name.
fn name(url: &str, content_type: Option<&str>, format: Format) -> String {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let last = path.rsplit('/').next().unwrap_or_default();
    let of_name = FileKind::of(last, format);
    let is_known = of_name.is_ok_and(|kind| format == Format::Auto || kind.compression != Compression::None);
    let extension = content_type.and_then(extension);
    match extension {
        _ if is_known && query.is_empty() => url.to_owned(),
        _ if is_known => format!("{url}#{last}"),
        Some(extension) if format == Format::Auto => format!("{url}#.{extension}"),
        _ => url.to_owned(),
    }
}

fn extension(content_type: &str) -> Option<&'static str> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    Some(match media_type.to_ascii_lowercase().as_str() {
        "text/html" | "application/xhtml+xml" => "html",
        "text/plain" => "txt",
        "text/markdown" => "md",
        "text/csv" => "csv",
        "text/tab-separated-values" => "tsv",
        "application/jsonl" | "application/x-ndjson" | "application/x-jsonlines" => "jsonl",
        "application/vnd.apache.parquet" => "parquet",
        "application/warc" => "warc",
        _ => return None,
    })
}

impl FetchedFile {
    fn state(&self) -> FileState {
        FileState {
            bytes: self.bytes,
            version: Some(Arc::clone(&self.digest)),
        }
    }
}

impl Store for Fetched {
    fn look_at(&self, path: &Path) -> io::Result<Kind> {
        if path.as_os_str().is_empty() {
            return Ok(Kind::Folder);
        }
        Ok(Kind::File(self.find(path)?.state()))
    }

    fn entries(&self, _: &Path) -> io::Result<Vec<io::Result<Entry>>> {
        let entry = |(name, file): (&OsString, &FetchedFile)| {
            Ok(Entry {
                name: name.clone(),
                kind: Kind::File(file.state()),
            })
        };
        Ok(self.0.iter().map(entry).collect())
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let found = self.find(path)?;
        let file = LocalStore.open(&found.path)?;
        let bytes = file.state()?.bytes;
        if bytes != found.bytes {
            let of = found.bytes;
            return Err(io::Error::other(format!(
                "{bytes} bytes are left of {of} that were fetched"
            )));
        }
        let state = found.state();
        Ok(Arc::new(Opened { file, state }))
    }

    fn address(&self, path: &Path) -> Option<Arc<str>> {
        self.find(path).ok().map(|file| Arc::clone(&file.url))
    }

    fn opt_outs(&self, path: &Path) -> Vec<String> {
        self.find(path)
            .map(|file| file.opt_outs.clone())
            .unwrap_or_default()
    }
}

struct Opened {
    file: Arc<dyn StoredFile>,
    state: FileState,
}

impl StoredFile for Opened {
    fn state(&self) -> io::Result<FileState> {
        Ok(self.state.clone())
    }

    fn read(&self, range: Range<u64>) -> io::Result<Box<dyn io::Read + Send>> {
        self.file.read(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_the_file_is() {
        let kind = |url, content_type, format| FileKind::of(&name(url, content_type, format), format);
        let html = Some("text/html; charset=utf-8");
        for (url, content_type, format) in [
            ("https://a.org/x.jsonl.gz", None, Format::Jsonl),
            ("https://a.org/x.csv?token=1", html, Format::Csv),
            ("https://a.org/", html, Format::Html),
            ("https://a.org/x?page=1.5", html, Format::Html),
            ("https://a.org/x/readme", html, Format::Text),
            ("https://a.org/x/y", Some("text/plain"), Format::Text),
        ] {
            assert_eq!(
                kind(url, content_type, Format::Auto).unwrap().format,
                format,
                "{url}"
            );
        }
        assert!(kind("https://a.org/x", Some("image/png"), Format::Auto).is_err());
        let forced = kind("https://a.org/x.gz?a", None, Format::Jsonl).unwrap();
        assert_eq!(
            (forced.format, forced.compression),
            (Format::Jsonl, Compression::Gzip)
        );
        assert_eq!(name("https://a.org/x", html, Format::Text), "https://a.org/x");
    }
}
