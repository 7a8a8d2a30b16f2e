//! Where files are: folders of this machine, and whatever else is made to look like them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place that holds files in folders.
///
/// Object stores and lists of addresses are sources by implementing this: a bucket's common prefixes are its folders.
pub trait Store: Send + Sync {
    /// What is at `path`; links are followed.
    ///
    /// # Errors
    /// If nothing is there, or it must not be looked at.
    fn look_at(&self, path: &Path) -> io::Result<Kind>;

    /// What a folder holds, in any order; links are not followed.
    ///
    /// # Errors
    /// If the folder cannot be read, or one of its entries cannot be looked at.
    fn entries(&self, folder: &Path) -> io::Result<Vec<io::Result<Entry>>>;

    /// The one name of what several paths may lead to.
    ///
    /// # Errors
    /// If a link on the way leads nowhere or in a circle.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;

    /// Opens a file.
    ///
    /// # Errors
    /// If it is not there, or must not be read.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;

    /// The address that a file was fetched from, if it was.
    fn address(&self, _: &Path) -> Option<Arc<str>> {
        None
    }

    /// Opt-outs that whoever sent a file stated with it.
    fn opt_outs(&self, _: &Path) -> Vec<String> {
        Vec::new()
    }

    /// Why it does not answer any more, if it does not. What is missing since then is not to be taken for missing.
    fn outage(&self) -> Option<&str> {
        None
    }
}

/// An open file.
pub trait StoredFile: Send + Sync {
    /// How it is now.
    ///
    /// # Errors
    /// If the store does not say.
    fn state(&self) -> io::Result<FileState>;

    /// A reader of some of its bytes. Readers of one file do not disturb each other.
    ///
    /// # Errors
    /// If the store refuses.
    fn read(&self, range: Range<u64>) -> io::Result<Box<dyn io::Read + Send>>;
}

/// What tells that a file changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Its size.
    pub bytes: u64,
    /// What is another after each write, if the store knows: when a file of this machine was last modified, in seconds with
    /// nine decimals; the ETag of an object; the digest of what was fetched.
    pub version: Option<Arc<str>>,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the folder.
    pub name: OsString,
    /// What it is.
    pub kind: Kind,
}

/// What there is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File(FileState),
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A pipe, socket or device, which is never opened.
    Special,
}

/// The file systems of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalStore;

impl Store for LocalStore {
    fn look_at(&self, path: &Path) -> io::Result<Kind> {
        fs::metadata(path).map(|metadata| kind_of(&metadata))
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<io::Result<Entry>>> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok(Entry {
                name: entry.file_name(),
                kind: kind_of(&entry.metadata()?),
            })
        };
        Ok(fs::read_dir(folder)?.map(entry).collect())
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        // A pipe that took the file's place would block.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("no longer a file"));
        }
        Ok(Arc::new(LocalFile(Arc::new(File::open(path)?))))
    }
}

fn kind_of(metadata: &fs::Metadata) -> Kind {
    let kind = metadata.file_type();
    if kind.is_file() {
        Kind::File(state_of(metadata))
    } else if kind.is_dir() {
        Kind::Folder
    } else if kind.is_symlink() {
        Kind::Link
    } else {
        Kind::Special
    }
}

fn state_of(metadata: &fs::Metadata) -> FileState {
    FileState {
        bytes: metadata.len(),
        version: Some(format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()).into()),
    }
}

struct LocalFile(Arc<File>);

impl StoredFile for LocalFile {
    fn state(&self) -> io::Result<FileState> {
        self.0.metadata().map(|metadata| state_of(&metadata))
    }

    fn read(&self, range: Range<u64>) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(LocalRead {
            file: Arc::clone(&self.0),
            range,
        }))
    }
}

struct LocalRead {
    file: Arc<File>,
    range: Range<u64>,
}

impl io::Read for LocalRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.range.end.saturating_sub(self.range.start);
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self
            .file
            .read_at(buffer.get_mut(..most).unwrap_or_default(), self.range.start)?;
        self.range.start += read as u64;
        Ok(read)
    }
}
