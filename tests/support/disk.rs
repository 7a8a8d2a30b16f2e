//! A small disk that can be filled: a tmpfs of its own. Root only.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const FILLER: &str = "filler";

/// A disk. Dropping it takes it away, with all on it.
pub(crate) struct Disk {
    folder: TempDir,
    bytes: std::cell::Cell<u64>,
}

impl Disk {
    /// Mounts one of so many bytes; none, with a word to say so, where that is not allowed.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = mount(folder.path(), &format!("size={bytes}"));
        if let Err(reason) = mounted {
            eprintln!("no small disk to fill: {reason}");
            return None;
        }
        let bytes = bytes.into();
        Some(Self { folder, bytes })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join(FILLER)
    }

    /// Leaves no room on it.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        loop {
            match file.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("fill {}: {error}", self.path().display()),
            }
        }
    }

    /// Gives the room back.
    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    /// Makes it twice as large.
    pub(crate) fn grow(&self) {
        self.bytes.set(self.bytes.get() * 2);
        mount(self.path(), &format!("remount,size={}", self.bytes.get())).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.path()).status().ok();
    }
}

fn mount(folder: &Path, options: &str) -> Result<(), String> {
    let ran = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "none"])
        .arg(folder)
        .output();
    match ran {
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}
