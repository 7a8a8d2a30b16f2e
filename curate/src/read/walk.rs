//! Which files a source has.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};

use super::list::ListError;
use super::nearest;
use super::settings::SourceSettings;
use super::store::{Entry, FileState, Kind, Store};

/// Globs of which one is enough.
#[derive(Debug, Default)]
pub(crate) struct Globs(Vec<(GlobMatcher, bool)>);

impl Globs {
    /// Parses globs of a setting; an error names it, the glob and what is wrong.
    pub(crate) fn of(setting: &str, globs: &[String]) -> Result<Self, String> {
        let parsed = globs
            .iter()
            .map(|glob| Ok((parsed(setting, glob)?, glob.contains('/'))));
        parsed.collect::<Result<_, String>>().map(Self)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one matches a path inside the source, or its last part if the glob has but one.
    fn matches(&self, inside: &Path) -> bool {
        let name = inside.file_name().map(Path::new);
        self.0.iter().any(|(glob, is_path)| {
            let matched = if *is_path { Some(inside) } else { name };
            matched.is_some_and(|matched| glob.is_match(matched))
        })
    }
}

fn parsed(setting: &str, glob: &str) -> Result<GlobMatcher, String> {
    let mut builder = GlobBuilder::new(glob);
    builder.literal_separator(true);
    let glob_parsed = builder.build();
    let glob_parsed =
        glob_parsed.map_err(|error| format!("{setting} = {glob:?}: must be a glob: {}", error.kind()))?;
    Ok(glob_parsed.compile_matcher())
}

/// What a source's path means.
pub(crate) struct Root {
    /// Paths of files are relative to this.
    pub(crate) folder: PathBuf,
    only: Only,
}

enum Only {
    All,
    File { name: OsString, state: FileState },
    Matching { glob: GlobMatcher, depth: Option<usize> },
}

impl Root {
    /// All that a store holds.
    pub(crate) fn all() -> Self {
        Self {
            folder: PathBuf::new(),
            only: Only::All,
        }
    }

    /// Looks at the path: a path that is there is taken as it is, even if it looks like a glob.
    pub(crate) fn of(store: &dyn Store, settings: &SourceSettings) -> Result<Self, ListError> {
        let path = Path::new(&settings.path);
        match store.look_at(path) {
            Ok(Kind::Folder) => Ok(Self {
                folder: path.to_owned(),
                only: Only::All,
            }),
            Ok(Kind::File(state)) => {
                let name = path.file_name().unwrap_or(path.as_os_str()).to_owned();
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                Ok(Self {
                    folder,
                    only: Only::File { name, state },
                })
            }
            Ok(Kind::Special | Kind::Link) => Err(ListError::NotAFile {
                path: path.to_owned(),
            }),
            // Else what is asked next would tell less.
            Err(source) if store.outage().is_some() => Err(ListError::Unreadable {
                path: path.to_owned(),
                source,
            }),
            Err(_) if is_glob(&settings.path) => Self::of_glob(&settings.path),
            Err(source) => Err(ListError::Unreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn of_glob(path: &str) -> Result<Self, ListError> {
        let parts: Vec<&str> = path.split('/').collect();
        let fixed = parts.iter().take_while(|part| !is_glob(part)).count();
        let (folder, pattern) = parts.split_at(fixed);
        let folder = match folder {
            [] => ".".to_owned(),
            [""] => "/".to_owned(),
            parts => parts.join("/"),
        };
        let glob = parsed("source.path", &pattern.join("/")).map_err(ListError::Setting)?;
        // Braces may hold slashes.
        let is_deep = pattern
            .iter()
            .any(|part| part.contains("**") || part.contains('{'));
        Ok(Self {
            folder: folder.into(),
            only: Only::Matching {
                glob,
                depth: (!is_deep).then_some(pattern.len()),
            },
        })
    }
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// A file of a source.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its path inside the source.
    pub(crate) inside: PathBuf,
    pub(crate) state: FileState,
    pub(crate) licence: Option<Arc<str>>,
}

/// All files of a source, sorted by the bytes of their paths, and what was passed over.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub(crate) files: Vec<Found>,
    /// Path inside the source, reason, detail; sorted too.
    pub(crate) passed: Vec<(PathBuf, &'static str, String)>,
    /// Files that settings exclude.
    pub(crate) excluded: u64,
}

/// Finds the files of a source.
pub(crate) fn walk(store: &dyn Store, root: &Root, settings: &SourceSettings) -> Result<Walked, ListError> {
    let mut walked = Walked::default();
    if let Only::File { name, state } = &root.only {
        walked.files.push(Found {
            inside: name.into(),
            state: state.clone(),
            licence: None,
        });
        return Ok(walked);
    }
    let globs = |setting, globs: &[String]| Globs::of(setting, globs).map_err(ListError::Setting);
    let mut walk = Walk {
        store,
        include: globs("source.include", &settings.include)?,
        exclude: globs("source.exclude", &settings.exclude)?,
        root,
        follow_links: settings.follow_links,
        entered: BTreeSet::new(),
        pile: Vec::new(),
        walked,
    };
    walk.pile.push(Folder {
        inside: PathBuf::new(),
        depth: 0,
        licence: None,
    });
    while let Some(folder) = walk.pile.pop() {
        walk.enter(folder)?;
    }
    let mut walked = walk.walked;
    let bytes = |path: &PathBuf| path.as_os_str().as_encoded_bytes().to_owned();
    walked.files.sort_by_cached_key(|file| bytes(&file.inside));
    walked
        .passed
        .sort_by_cached_key(|(path, reason, _)| (bytes(path), *reason));
    Ok(walked)
}

struct Folder {
    inside: PathBuf,
    depth: usize,
    licence: Option<Arc<str>>,
}

struct Walk<'a> {
    store: &'a dyn Store,
    include: Globs,
    exclude: Globs,
    root: &'a Root,
    follow_links: bool,
    /// The folders that were entered, by their resolved names; kept only if links are followed.
    entered: BTreeSet<PathBuf>,
    pile: Vec<Folder>,
    walked: Walked,
}

impl Walk<'_> {
    fn pass(&mut self, inside: PathBuf, reason: &'static str, detail: impl Into<String>) {
        self.walked.passed.push((inside, reason, detail.into()));
    }

    fn enter(&mut self, folder: Folder) -> Result<(), ListError> {
        let path = self.root.folder.join(&folder.inside);
        if self.follow_links {
            match self.store.resolve(&path) {
                Ok(resolved) => {
                    if !self.entered.insert(resolved) {
                        self.pass(
                            folder.inside,
                            "read.link_loop",
                            "leads to a folder that was read already",
                        );
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.pass(folder.inside, "read.unreadable", error.to_string());
                    return Ok(());
                }
            }
        }
        let entries = match self.store.entries(&path) {
            Ok(entries) => entries,
            Err(source) if folder.depth == 0 => {
                let path = self.root.folder.clone();
                return Err(ListError::Unreadable { path, source });
            }
            Err(error) => {
                self.pass(folder.inside, "read.unreadable", error.to_string());
                return Ok(());
            }
        };
        let mut known: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry {
                Ok(entry) => known.push(entry),
                Err(error) => self.pass(folder.inside.clone(), "read.unreadable", error.to_string()),
            }
        }
        // Which of several links to a folder is followed must not depend on the order of entries.
        known.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        let licence = nearest::licence(self.store, &path, &known, folder.licence.as_ref());
        for entry in known {
            self.look_at(&folder, &path, entry, licence.as_ref());
        }
        Ok(())
    }

    fn look_at(&mut self, folder: &Folder, path: &Path, entry: Entry, licence: Option<&Arc<str>>) {
        let inside = folder.inside.join(&entry.name);
        if self.exclude.matches(&inside) {
            self.walked.excluded += 1;
            return;
        }
        if is_hidden(&entry.name) {
            return self.pass(inside, "read.hidden", "its name begins with a dot");
        }
        let kind = match entry.kind {
            Kind::Link if !self.follow_links => {
                return self.pass(
                    inside,
                    "read.link",
                    "a symbolic link; set follow_links to follow it",
                );
            }
            Kind::Link => match self.store.look_at(&path.join(&entry.name)) {
                Ok(kind) => kind,
                Err(error) => return self.pass(inside, "read.unreadable", error.to_string()),
            },
            kind => kind,
        };
        match kind {
            Kind::File(_) if !self.is_wanted(&inside) => self.walked.excluded += 1,
            Kind::File(state) => self.walked.files.push(Found {
                inside,
                state,
                licence: licence.cloned(),
            }),
            Kind::Folder => {
                let depth = folder.depth + 1;
                if matches!(self.root.only, Only::Matching { depth: Some(most), .. } if depth >= most) {
                    return;
                }
                self.pile.push(Folder {
                    inside,
                    depth,
                    licence: licence.cloned(),
                });
            }
            Kind::Special | Kind::Link => self.pass(inside, "read.special", "neither a file nor a folder"),
        }
    }

    fn is_wanted(&self, inside: &Path) -> bool {
        let named = match &self.root.only {
            Only::Matching { glob, .. } => glob.is_match(inside),
            Only::All | Only::File { .. } => true,
        };
        named && (self.include.is_empty() || self.include.matches(inside))
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}
