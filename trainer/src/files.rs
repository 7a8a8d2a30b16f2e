//! Files that are whole or absent.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Result, StorageContext};

/// A folder under a temporary name, removed when it is dropped before it was renamed into place.
pub(crate) struct Staging {
    path: PathBuf,
    done: bool,
}

impl Staging {
    /// Makes the empty folder `path`; one that is left there from before is removed.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        remove(&path)?;
        fs::create_dir_all(&path).at("create folder", &path)?;
        Ok(Self { path, done: false })
    }

    /// In an empty folder that was just made.
    pub(crate) fn in_folder(path: PathBuf) -> Self {
        Self { path, done: false }
    }

    /// Moves a file to another folder, over what is there.
    pub(crate) fn move_to(&self, name: &str, folder: &Path) -> Result<()> {
        fs::rename(self.path.join(name), folder.join(name)).at("rename to", &folder.join(name))
    }

    /// Writes a file with `fill` and syncs it.
    pub(crate) fn file<T>(
        &self,
        name: &str,
        fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<T>,
    ) -> Result<T> {
        write(&self.path.join(name), fill)
    }

    /// Syncs the folder and renames it to `place`, which must not exist.
    pub(crate) fn publish(mut self, place: &Path) -> Result<()> {
        sync(&self.path)?;
        fs::rename(&self.path, place).at("rename to", place)?;
        self.done = true;
        sync(parent(place))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            // Nobody can be told here; the next writer removes what stays.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Writes the file `path` with `fill` and syncs it.
pub(crate) fn write<T>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<T>,
) -> Result<T> {
    let write = || {
        let mut out = BufWriter::new(File::create(path)?);
        let result = fill(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(result)
    };
    write().at("write", path)
}

/// Makes the first of `name(0)`, `name(1)`, … that is free; those that exist belong to other processes.
pub(crate) fn first_free<T>(
    name: impl Fn(usize) -> PathBuf,
    make: impl Fn(&Path) -> std::io::Result<T>,
) -> Result<(PathBuf, T)> {
    let mut index = 0;
    loop {
        let path = name(index);
        match make(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => index += 1,
            made => return made.at("create", &path).map(|made| (path, made)),
        }
    }
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Makes a folder's entries durable.
pub(crate) fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .at("sync folder", folder)
}

/// Removes a folder with all in it; none is fine.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", folder),
        _ => Ok(()),
    }
}
