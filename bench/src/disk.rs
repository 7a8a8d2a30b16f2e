//! A small disk that can be filled: a tmpfs of its own. Root only.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::Error;
use crate::system::is_root;

const PREFIX: &str = "lockstep-disk-";
const FILLER: &str = "filler";

/// A disk of some megabytes. Dropping it takes it away, with all on it.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one.
    ///
    /// # Errors
    /// Without root, or when the system refuses.
    pub fn new(megabytes: u32) -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !is_root() {
            return Err(Error::NeedsRoot { what: "full disks" });
        }
        remove_leftovers();
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("{PREFIX}{pid}-{count}"));
        let action = format!("mount a disk at {}", path.display());
        fs::create_dir(&path).map_err(Error::system(action.clone()))?;
        let size = std::ffi::CString::new(format!("size={megabytes}m")).unwrap_or_default();
        let mounted = mount("none", &path, "tmpfs", MountFlags::empty(), Some(size.as_c_str()));
        let disk = Self { path };
        mounted.map_err(|error| Error::system(action)(error.into()))?;
        Ok(disk)
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no room on it.
    ///
    /// # Errors
    /// When it cannot be written to for any other reason.
    pub fn fill(&self) -> Result<(), Error> {
        let path = self.path.join(FILLER);
        let action = format!("fill {}", path.display());
        let mut file = File::create(path).map_err(Error::system(action.clone()))?;
        // Whole pages, then the rest.
        for block in [vec![0; 4096], vec![0]] {
            loop {
                match file.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(Error::system(action)(error)),
                }
            }
        }
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn free(&self) -> Result<(), Error> {
        let path = self.path.join(FILLER);
        fs::remove_file(&path).map_err(Error::system(format!("remove {}", path.display())))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        take_away(&self.path);
    }
}

/// A file on it that is still open keeps the memory, not the place.
fn take_away(path: &Path) {
    unmount(path, UnmountFlags::DETACH).ok();
    fs::remove_dir(path).ok();
}

/// Takes away the disks of harnesses that are dead.
fn remove_leftovers() {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            take_away(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_freed() {
        if !is_root() {
            assert!(matches!(Disk::new(1), Err(Error::NeedsRoot { .. })));
            return;
        }
        let disk = Disk::new(1).unwrap();
        let file = disk.path().join("file");
        disk.fill().unwrap();
        assert_eq!(fs::write(&file, "x").unwrap_err().kind(), ErrorKind::StorageFull);
        disk.free().unwrap();
        fs::write(&file, "x").unwrap();
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!path.exists());
    }
}
