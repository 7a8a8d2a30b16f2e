//! The hidden folder in which a dataset is written, its lock, and the rename that publishes it.
//!
//! The folder stands beside the place of the dataset, on the same disk, so publishing it is one rename. Its
//! lock file tells a build that is running from one that died: who holds the lock owns the folder and empties
//! it first.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::digest::Hasher;
use crate::error::DataError;
use crate::manifest::FileRecord;

const LOCK_FILE: &str = ".lock";

/// Follows `out` where it is a symbolic link, so that the rename replaces what it points to.
///
/// # Errors
/// If the link leads nowhere.
pub fn resolve(out: &Path) -> Result<PathBuf, DataError> {
    if !out.is_symlink() {
        return Ok(out.to_owned());
    }
    fs::canonicalize(out).map_err(|error| DataError::io("follow symbolic link", out, error))
}

/// Whether a dataset may be put at `out`: nothing stands there, or an empty folder.
///
/// # Errors
/// If a file stands there, or the folder cannot be read.
pub fn is_free(out: &Path) -> Result<bool, DataError> {
    match fs::read_dir(out).map(|mut entries| entries.next().is_none()) {
        Ok(is_empty) => Ok(is_empty),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(DataError::Occupied {
            path: out.to_owned(),
            holds: "is a file".to_owned(),
        }),
        Err(error) => Err(DataError::io("read folder", out, error)),
    }
}

/// A dataset that is being written. Dropped without [`Staging::publish`], it leaves nothing.
#[derive(Debug)]
pub struct Staging {
    folder: PathBuf,
    out: PathBuf,
    lock: File,
    published: bool,
}

impl Staging {
    /// Makes the folder for a dataset at `out`, in place of what a dead build may have left.
    ///
    /// # Errors
    /// If another build holds it.
    pub fn begin(out: &Path) -> Result<Self, DataError> {
        let (parent, folder) = beside(out)?;
        fs::create_dir_all(&parent).map_err(|error| DataError::io("create folder", &parent, error))?;
        Self::begin_in(&folder, out)
    }

    /// Likewise in this folder, which must be on the disk of `out`.
    ///
    /// # Errors
    /// If another build holds it.
    pub fn begin_in(folder: &Path, out: &Path) -> Result<Self, DataError> {
        let lock = loop {
            if let Some(lock) = try_own(folder, out)? {
                break lock;
            }
        };
        let staging = Self {
            folder: folder.to_owned(),
            out: out.to_owned(),
            lock,
            published: false,
        };
        staging.clear()?;
        Ok(staging)
    }

    /// Where the dataset is written until it is published.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates a file of the dataset.
    pub(crate) fn create(&self, name: &str) -> Result<OutFile, DataError> {
        let path = self.folder.join(name);
        let file = File::create_new(&path).map_err(|error| DataError::io("create", &path, error))?;
        Ok(OutFile {
            path,
            writer: BufWriter::with_capacity(1 << 18, file),
            hasher: Hasher::default(),
        })
    }

    /// Writes a whole file beside those of the dataset: it is no part of the dataset's digest.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), DataError> {
        let mut file = self.create(name)?;
        file.put(content)?;
        file.close().map(drop)
    }

    /// Creates a file beside those of the dataset, to be written bit by bit: likewise.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn file(&self, name: &str) -> Result<File, DataError> {
        let path = self.folder.join(name);
        File::create_new(&path).map_err(|error| DataError::io("create", &path, error))
    }

    /// Gives the dataset its name. All its files must be closed.
    ///
    /// # Errors
    /// If something else took the name meanwhile.
    pub fn publish(mut self) -> Result<(), DataError> {
        let (parent, _) = beside(&self.out)?;
        sync_folder(&self.folder)?;
        fs::rename(&self.folder, &self.out).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists => {
                let holds = "was filled by somebody else meanwhile".to_owned();
                DataError::Occupied {
                    path: self.out.clone(),
                    holds,
                }
            }
            _ => DataError::io("publish dataset", &self.out, error),
        })?;
        self.published = true;
        // The dataset is whole: a lock file that stays behind is only clutter.
        fs::remove_file(self.out.join(LOCK_FILE)).ok();
        sync_folder(&parent)
    }

    /// Removes all but the lock.
    fn clear(&self) -> Result<(), DataError> {
        let failed = |error| DataError::io("clear", &self.folder, error);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() == LOCK_FILE {
                continue;
            }
            let remove = if entry.file_type().map_err(failed)?.is_dir() {
                fs::remove_dir_all
            } else {
                fs::remove_file
            };
            remove(entry.path()).map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // Nobody can be told; what stays is removed by the next build.
            fs::remove_dir_all(&self.folder).ok();
        }
        // Unlocked by the system as the file is closed; said here to keep the field's purpose in sight.
        self.lock.unlock().ok();
    }
}

/// The folder that holds `out`, and the hidden one in it.
fn beside(out: &Path) -> Result<(PathBuf, PathBuf), DataError> {
    let Some(name) = out.file_name() else {
        let value = out.display().to_string();
        return Err(DataError::InvalidOption {
            name: "out",
            value,
            bound: "a path that ends in a name".to_owned(),
        });
    };
    let parent = out
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".building");
    Ok((parent.to_owned(), parent.join(hidden)))
}

/// Makes `folder` where it is missing and takes its lock. None if it was renamed or removed under our hands:
/// then the lock taken is that of a folder that is no more.
fn try_own(folder: &Path, out: &Path) -> Result<Option<File>, DataError> {
    let failed = |error| DataError::io("lock", folder, error);
    if let Err(error) = fs::create_dir(folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(DataError::io("create folder", folder, error));
    }
    let path = folder.join(LOCK_FILE);
    let lock = match File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock.map_err(failed)?,
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(DataError::Busy { path: out.to_owned() }),
        // A file system without locks: there is nobody to be told apart from.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let ours = lock.metadata().map_err(failed)?;
    let there = fs::metadata(&path).ok();
    Ok(there
        .is_some_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
        .then_some(lock))
}

fn sync_folder(path: &Path) -> Result<(), DataError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|error| DataError::io("sync", path, error))
}

/// A file of the dataset while it is written: its digest is of what was meant to be written.
pub(crate) struct OutFile {
    path: PathBuf,
    writer: BufWriter<File>,
    hasher: Hasher,
}

impl OutFile {
    /// Writes all of `bytes`.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.write_all(bytes).map_err(|error| self.failed(error))
    }

    /// Flushes it to the disk.
    pub(crate) fn close(&mut self) -> Result<FileRecord, DataError> {
        self.writer
            .flush()
            .and_then(|()| self.writer.get_ref().sync_all())
            .map_err(|error| DataError::io("write", &self.path, error))?;
        Ok(FileRecord {
            bytes: self.hasher.bytes,
            digest: self.hasher.digest(),
        })
    }

    /// An error in writing it.
    pub(crate) fn failed(&self, error: io::Error) -> DataError {
        DataError::io("write", &self.path, error)
    }
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_dataset_appears_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("new/data");
        let staging = Staging::begin(&out).unwrap();
        staging.create("a").unwrap().put(b"x").unwrap();
        assert!(!out.exists());
        drop(staging);
        assert_eq!(entries(&parent.path().join("new")), [""; 0]);

        let staging = Staging::begin(&out).unwrap();
        let mut file = staging.create("a").unwrap();
        file.put(b"text").unwrap();
        assert_eq!(
            file.close().unwrap(),
            FileRecord {
                bytes: 4,
                digest: crate::Digest::of(b"text")
            }
        );
        staging.publish().unwrap();
        assert_eq!(entries(&out), ["a"]);
        assert_eq!(entries(&parent.path().join("new")), ["data"]);
    }

    #[test]
    fn what_a_dead_build_left_is_removed_and_a_live_one_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("data");
        let stale = parent.path().join(".data.building");
        fs::create_dir_all(stale.join("deep")).unwrap();
        fs::write(stale.join("shard-00000.bin"), "half").unwrap();
        fs::write(stale.join(LOCK_FILE), "").unwrap();

        let staging = Staging::begin(&out).unwrap();
        assert_eq!(entries(staging.folder()), [LOCK_FILE]);
        assert!(matches!(Staging::begin(&out), Err(DataError::Busy { .. })));
        assert_eq!(entries(staging.folder()), [LOCK_FILE]);
        staging.publish().unwrap();
        assert_eq!(entries(&out), [""; 0]);
    }

    #[test]
    fn an_empty_folder_is_taken_over_and_a_full_one_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("data");
        fs::create_dir(&out).unwrap();
        Staging::begin(&out).unwrap().publish().unwrap();

        fs::write(out.join("precious"), "mine").unwrap();
        let error = Staging::begin(&out).unwrap().publish().unwrap_err();
        assert!(matches!(error, DataError::Occupied { .. }), "{error}");
        assert_eq!(entries(&out), ["precious"]);
        assert_eq!(entries(parent.path()), ["data"]);
    }

    #[test]
    fn a_path_without_a_name_is_refused() {
        assert!(matches!(
            Staging::begin(Path::new("/")),
            Err(DataError::InvalidOption { name: "out", .. })
        ));
    }
}
