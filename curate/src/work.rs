//! The work folder: what is done already, task by task.
//!
//! A build is phases, a phase is tasks that know nothing of each other, and a task makes one folder. It is made under a
//! name of its own, synced, and renamed: so a task is done or not, whenever a process dies, and who does it twice
//! makes the same bytes twice. A phase's folder carries a key, the digest of all that decides its bytes: what
//! the spec changed is done again, what it did not is kept.
//!
//! Several processes may work in one folder, as a [`Crew`]: each writes under names of its own, and the first to rename wins.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstep_faults::Point;
use serde::Serialize;

use crate::crew::{Crew, OpenTasks};
use crate::error::CurateError;
use crate::progress::Progress;

const LOCK_FILE: &str = "lock";

/// Tasks that this process has written, for drills.
static TASKS: AtomicU64 = AtomicU64::new(0);

/// A work folder that this process holds, alone or with the rest of its crew.
pub(crate) struct Work {
    folder: PathBuf,
    crew: Arc<dyn Crew>,
    _lock: File,
}

impl Work {
    /// Takes the folder, which is made where it is missing.
    ///
    /// # Errors
    /// When a process holds it that is not of the crew.
    pub(crate) fn open(folder: &Path, crew: Arc<dyn Crew>) -> Result<Self, CurateError> {
        fs::create_dir_all(folder).map_err(|error| CurateError::io("create folder", folder, error))?;
        let path = folder.join(LOCK_FILE);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| CurateError::io("open", &path, error))?;
        let locked = match crew.name() {
            None => lock.try_lock(),
            Some(_) => lock.try_lock_shared(),
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CurateError::Busy {
                    path: folder.to_owned(),
                });
            }
            // A file system without locks: there is nobody to be told apart from.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(CurateError::io("lock", &path, error)),
        }
        Ok(Self {
            folder: folder.to_owned(),
            crew,
            _lock: lock,
        })
    }

    /// A phase whose bytes are decided by `key`. Who is alone removes what an older spec left of it, and what a dead
    /// process left half-way.
    pub(crate) fn phase(&self, name: &str, key: &Key) -> Result<Phase, CurateError> {
        let of_key = format!("{name}-{}", key.short());
        let folder = self.folder.join(&of_key);
        if self.crew.name().is_none() {
            self.clear(name, &folder)?;
        }
        fs::create_dir_all(&folder).map_err(|error| CurateError::io("create folder", &folder, error))?;
        Ok(Phase {
            name: of_key,
            folder,
            crew: Arc::clone(&self.crew),
        })
    }

    /// Removes what does not count of a phase whose folder is `folder`.
    fn clear(&self, name: &str, folder: &Path) -> Result<(), CurateError> {
        for entry in entries(&self.folder)? {
            let of_this = entry
                .file_name()
                .and_then(|file| file.to_str()?.strip_prefix(name)?.strip_prefix('-'))
                .is_some_and(|key| key.len() == Key::SHORT);
            if of_this && entry != folder {
                remove(&entry)?;
            }
        }
        if !folder.is_dir() {
            return Ok(());
        }
        for entry in entries(folder)? {
            if is_hidden(&entry) {
                remove(&entry)?;
            }
        }
        Ok(())
    }

    /// A place in the folder that no other process of the crew has.
    pub(crate) fn own_place(&self, name: &str) -> PathBuf {
        let of = self.crew.name().unwrap_or_default();
        self.folder.join(format!("{name}{of}"))
    }

    /// Removes the folder: all is done.
    pub(crate) fn remove(&self) -> Result<(), CurateError> {
        remove(&self.folder)
    }

    /// Removes the folder if it is there and nobody works in it: its dataset is in its place.
    pub(crate) fn sweep(folder: &Path) -> Result<(), CurateError> {
        let Ok(lock) = File::options().write(true).open(folder.join(LOCK_FILE)) else {
            return Ok(());
        };
        match lock.try_lock() {
            Ok(()) => remove(folder),
            Err(_) => Ok(()),
        }
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, CurateError> {
    let failed = |error| CurateError::io("read folder", folder, error);
    fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn remove(path: &Path) -> Result<(), CurateError> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CurateError::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// The digest of all that decides the bytes of a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(blake3::Hash);

impl Key {
    /// Hexadecimal digits of it in names.
    pub(crate) const SHORT: usize = 16;

    /// Of a phase that depends on `settings` and on the phases before it.
    pub(crate) fn new(name: &str, settings: &impl Serialize, before: &[&Key]) -> Result<Self, CurateError> {
        let settings = serde_json::to_vec(settings).map_err(|error| CurateError::Spec {
            path: None,
            problem: format!("{name}: {error}"),
        })?;
        let mut hasher = blake3::Hasher::new();
        for part in [env!("CARGO_PKG_VERSION").as_bytes(), name.as_bytes(), &settings] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        for key in before {
            hasher.update(key.0.as_bytes());
        }
        Ok(Self(hasher.finalize()))
    }

    fn short(&self) -> String {
        self.0.to_hex()[..Self::SHORT].to_owned()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

/// A phase: tasks, each done or not.
pub(crate) struct Phase {
    name: String,
    folder: PathBuf,
    crew: Arc<dyn Crew>,
}

impl Phase {
    /// Removes it: what it did is to be done again.
    pub(crate) fn remove(self) -> Result<(), CurateError> {
        remove(&self.folder)
    }

    /// Where task `number` leaves its files.
    pub(crate) fn task(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number:06}"))
    }

    /// Has all tasks done that are not, in parallel: `work` is given the task's number and the folder to write in.
    /// `cost` is what a task counts for in the progress.
    pub(crate) fn run(
        &self,
        tasks: usize,
        progress: &Progress,
        cost: impl Fn(usize) -> u64 + Sync,
        work: impl Fn(usize, &Path) -> Result<(), CurateError> + Sync,
    ) -> Result<(), CurateError> {
        let open: Vec<usize> = (0..tasks).filter(|&task| !self.task(task).is_dir()).collect();
        let left: u64 = open.iter().map(|&task| cost(task)).sum();
        progress.find((0..tasks).map(&cost).sum::<u64>() - left);
        self.crew.run(OpenTasks {
            phase: &self.name,
            tasks,
            open,
            do_one: &|task| self.do_one(task, progress, &work),
        })
    }

    fn do_one(
        &self,
        task: usize,
        progress: &Progress,
        work: impl Fn(usize, &Path) -> Result<(), CurateError>,
    ) -> Result<(), CurateError> {
        progress.check()?;
        let place = self.task(task);
        if place.is_dir() {
            return Ok(());
        }
        let hidden = format!(".{task:06}{}", self.crew.name().unwrap_or_default());
        let hidden = self.folder.join(hidden);
        remove(&hidden)?;
        fs::create_dir(&hidden).map_err(|error| CurateError::io("create folder", &hidden, error))?;
        work(task, &hidden).inspect_err(|_| {
            // Room for whoever asks for it; what remains is removed when the phase is opened again.
            let _ = fs::remove_dir_all(&hidden);
        })?;
        sync(&hidden)?;
        let number = TASKS.fetch_add(1, Ordering::Relaxed) + 1;
        lockstep_faults::reach(Point::TaskWritten, number);
        match fs::rename(&hidden, &place) {
            // Another process was faster, with the same bytes.
            Err(_) if place.is_dir() => remove(&hidden)?,
            renamed => renamed.map_err(|error| CurateError::io("rename", &hidden, error))?,
        }
        sync(&self.folder)?;
        lockstep_faults::reach(Point::TaskDone, number);
        Ok(())
    }
}

fn sync(path: &Path) -> Result<(), CurateError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| CurateError::io("sync", path, error))
}

/// A file of a task while it is written.
pub(crate) struct TaskFile {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl TaskFile {
    /// Creates it.
    pub(crate) fn create(path: PathBuf) -> Result<Self, CurateError> {
        let file = File::create(&path).map_err(|error| CurateError::io("create", &path, error))?;
        Ok(Self {
            path,
            writer: BufWriter::with_capacity(1 << 18, file),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its error as one of ours.
    pub(crate) fn failed(&self, error: io::Error) -> CurateError {
        CurateError::io("write", &self.path, error)
    }

    /// Writes all of `bytes`.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), CurateError> {
        self.writer.write_all(bytes).map_err(|error| self.failed(error))
    }

    /// Flushes it to the disk.
    pub(crate) fn close(mut self) -> Result<(), CurateError> {
        self.writer
            .flush()
            .and_then(|()| self.writer.get_ref().sync_all())
            .map_err(|error| self.failed(error))
    }
}

impl Write for TaskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
