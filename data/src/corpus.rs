//! Where text comes from: which files, and under which source, version and licence.

mod provenance;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use provenance::Provenance;

use crate::error::DataError;
use crate::progress::Stop;
use crate::skip::{SkipReason, Skipped};

/// A source of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Corpus {
    /// Every text file below a folder, without hidden entries and symbolic links. A file's source is the
    /// top-level folder it lies in, or the corpus folder itself; its licence is what the nearest `Cargo.toml`
    /// or licence file with an SPDX tag says.
    Folder(PathBuf),
    /// The Rust and Markdown files of all crates that cargo has unpacked: `registry/src` below `CARGO_HOME`,
    /// or `~/.cargo`, unless given. A file's source is its crate, with version and licence from the crate's
    /// manifest.
    CargoRegistry(Option<PathBuf>),
}

/// A file that may become a document.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its path inside the corpus, with `/` between the parts, the same on every machine.
    pub(crate) id: String,
    /// Its size when it was listed.
    pub(crate) bytes: u64,
    /// Whose it is.
    pub(crate) provenance: Arc<Provenance>,
}

impl Corpus {
    /// The folder that is read.
    ///
    /// # Errors
    /// If it is cargo's registry and neither `CARGO_HOME` nor `HOME` is set.
    pub fn root(&self) -> Result<PathBuf, DataError> {
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        match self {
            Self::Folder(path) | Self::CargoRegistry(Some(path)) => Ok(path.clone()),
            Self::CargoRegistry(None) => variable("CARGO_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".cargo")))
                .map(|cargo| cargo.join("registry/src"))
                .ok_or(DataError::NoCargoHome),
        }
    }

    /// What kind of source this is, as the manifest records it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Folder(_) => "folder",
            Self::CargoRegistry(_) => "cargo-registry",
        }
    }

    /// All candidates, sorted by id. The folder `except` is not looked into.
    pub(crate) fn list(
        &self,
        except: &Path,
        skipped: &mut Skipped,
        stop: Stop<'_>,
    ) -> Result<Vec<Candidate>, DataError> {
        let root = self.root()?;
        let metadata = fs::metadata(&root).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DataError::CorpusMissing { path: root.clone() },
            _ => DataError::io("open corpus", &root, error),
        })?;
        if !metadata.is_dir() {
            return Err(DataError::NotAFolder { path: root });
        }
        let root = fs::canonicalize(&root).map_err(|error| DataError::io("open corpus", &root, error))?;
        fs::read_dir(&root).map_err(|error| DataError::io("read corpus", &root, error))?;

        let except = fs::canonicalize(except).ok();
        let mut walk = Walk {
            cargo: matches!(self, Self::CargoRegistry(_)),
            except,
            skipped,
            found: Vec::new(),
        };
        let mut folders = vec![Folder::root(root)];
        while let Some(folder) = folders.pop() {
            stop.check()?;
            walk.enter(folder, &mut folders)?;
        }
        let mut found = walk.found;
        found.sort_unstable_by(|a, b| (&a.id, &a.path).cmp(&(&b.id, &b.path)));
        Ok(found)
    }
}

/// A folder still to be looked into.
struct Folder {
    path: PathBuf,
    /// As [`Candidate::id`]; empty for the root and, in cargo's registry, for the folder of one index.
    id: String,
    depth: usize,
    provenance: Arc<Provenance>,
}

impl Folder {
    fn root(path: PathBuf) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let provenance = Arc::new(Provenance::of_source(&name.to_string_lossy()));
        Self {
            path,
            id: String::new(),
            depth: 0,
            provenance,
        }
    }
}

struct Walk<'a> {
    cargo: bool,
    except: Option<PathBuf>,
    skipped: &'a mut Skipped,
    found: Vec<Candidate>,
}

impl Walk<'_> {
    /// Lists one folder: files become candidates, folders are put on the pile.
    fn enter(&mut self, mut folder: Folder, pile: &mut Vec<Folder>) -> Result<(), DataError> {
        let failed = |error| DataError::io("read folder", &folder.path, error);
        let entries = match fs::read_dir(&folder.path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.skipped.add(SkipReason::Unreadable);
                return Ok(());
            }
            entries => entries
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(failed)?,
        };
        let names = entries.iter().map(fs::DirEntry::file_name).collect::<Vec<_>>();
        // In cargo's registry a crate's folder is two levels down, and says it all for what lies below.
        if !self.cargo || folder.depth == 2 {
            folder.provenance = folder.provenance.refine(&folder.path, &names, self.cargo);
        }
        for (entry, name) in entries.iter().zip(&names) {
            let kind = entry.file_type().map_err(failed)?;
            if name.as_encoded_bytes().starts_with(b".") {
                self.skipped.add(SkipReason::Hidden);
            } else if kind.is_symlink() {
                self.skipped.add(SkipReason::Symlink);
            } else if kind.is_dir() {
                let path = entry.path();
                if self.except.as_ref() != Some(&path) {
                    pile.push(self.below(&folder, path, &name.to_string_lossy()));
                }
            } else if !kind.is_file() {
                self.skipped.add(SkipReason::Special);
            } else if self.cargo && (folder.depth < 2 || !is_rust_or_markdown(Path::new(name))) {
                self.skipped.add(SkipReason::OtherKind);
            } else {
                let bytes = entry
                    .metadata()
                    .map_err(|error| DataError::io("look at", &entry.path(), error))?
                    .len();
                let id = join(&folder.id, &name.to_string_lossy());
                let provenance = Arc::clone(&folder.provenance);
                self.found.push(Candidate {
                    path: entry.path(),
                    id,
                    bytes,
                    provenance,
                });
            }
        }
        Ok(())
    }

    fn below(&self, parent: &Folder, path: PathBuf, name: &str) -> Folder {
        let source = match (self.cargo, parent.depth) {
            (false, 0) | (true, 1) => Arc::new(parent.provenance.with_source(name)),
            _ => Arc::clone(&parent.provenance),
        };
        // The folder of an index carries a hash of its address, which differs between versions of cargo.
        let id = if self.cargo && parent.depth == 0 {
            String::new()
        } else {
            join(&parent.id, name)
        };
        Folder {
            path,
            id,
            depth: parent.depth + 1,
            provenance: source,
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

fn is_rust_or_markdown(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "rs" || extension == "md")
}
