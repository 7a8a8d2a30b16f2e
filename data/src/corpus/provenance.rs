//! Whose text a file holds, and under which licence.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Whose text it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// A crate, or a folder.
    pub(crate) source: String,
    /// The crate's version.
    pub(crate) version: Option<String>,
    /// An SPDX expression.
    pub(crate) licence: Option<String>,
}

/// Licence files are searched for a tag in their first bytes only.
const TAG_WITHIN_BYTES: u64 = 4096;
const TAG: &str = "SPDX-License-Identifier:";

impl Provenance {
    /// Text of a source of which nothing else is known.
    pub(crate) fn of_source(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            version: None,
            licence: None,
        }
    }

    /// The same, but of another source.
    pub(crate) fn with_source(&self, source: &str) -> Self {
        Self {
            source: source.to_owned(),
            ..self.clone()
        }
    }

    /// What is known inside `folder`, which holds entries of these `names`: its manifest or its licence file
    /// may say more than what holds above it. With `name_source`, the manifest names the source and version
    /// too.
    pub(crate) fn refine(
        self: &Arc<Self>,
        folder: &Path,
        names: &[OsString],
        name_source: bool,
    ) -> Arc<Self> {
        let mut refined = (**self).clone();
        if names.iter().any(|name| name == "Cargo.toml") {
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
            let manifest = manifest.parse::<toml::Table>().unwrap_or_default();
            let package = manifest.get("package");
            let text = |key: &str| {
                package
                    .and_then(|package| package.get(key)?.as_str())
                    .map(str::to_owned)
            };
            let shared = || {
                manifest
                    .get("workspace")?
                    .get("package")?
                    .get("license")?
                    .as_str()
                    .map(str::to_owned)
            };
            refined.licence = text("license").or_else(shared).or(refined.licence);
            if name_source {
                refined.source = text("name").unwrap_or(refined.source);
                refined.version = text("version").or(refined.version);
            }
        }
        if refined.licence == self.licence {
            let mut files: Vec<_> = names.iter().filter(|name| is_licence_file(name)).collect();
            files.sort_unstable();
            let tag = files.iter().find_map(|name| tag_in(&folder.join(name)));
            refined.licence = tag.or(refined.licence);
        }
        if refined == **self {
            Arc::clone(self)
        } else {
            Arc::new(refined)
        }
    }
}

fn is_licence_file(name: &OsString) -> bool {
    let name = name.to_string_lossy().to_ascii_uppercase();
    ["LICENSE", "LICENCE", "COPYING"]
        .iter()
        .any(|stem| name.starts_with(stem))
}

fn tag_in(path: &Path) -> Option<String> {
    // What is not a plain file must not be opened: a pipe would block.
    if !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let mut head = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(TAG_WITHIN_BYTES)
        .read_to_end(&mut head)
        .ok()?;
    let text = String::from_utf8_lossy(&head);
    let expression = text.lines().find_map(|line| line.split_once(TAG))?.1;
    let expression = expression
        .trim_end_matches(['*', '/', '-', '>', ' ', '\t'])
        .trim();
    (!expression.is_empty()).then(|| expression.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refined(files: &[(&str, &str)], name_source: bool) -> Provenance {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let names: Vec<OsString> = files.iter().map(|(name, _)| name.into()).collect();
        let above = Provenance {
            licence: Some("ABOVE".into()),
            ..Provenance::of_source("folder-1.2")
        };
        let refined = Arc::new(above).refine(folder.path(), &names, name_source);
        (*refined).clone()
    }

    #[test]
    fn a_crate_is_named_by_its_manifest() {
        let manifest = "[package]\nname = \"serde\"\nversion = \"1.0.9\"\nlicense = \"MIT OR Apache-2.0\"\n";
        let found = refined(&[("Cargo.toml", manifest)], true);
        assert_eq!(
            (found.source.as_str(), found.version.as_deref()),
            ("serde", Some("1.0.9"))
        );
        assert_eq!(found.licence.as_deref(), Some("MIT OR Apache-2.0"));
        let found = refined(&[("Cargo.toml", manifest)], false);
        assert_eq!((found.source.as_str(), found.version), ("folder-1.2", None));
    }

    #[test]
    fn a_licence_is_the_nearest_that_is_told() {
        let licence = |files: &[(&str, &str)]| refined(files, false).licence.unwrap();
        assert_eq!(licence(&[("a.txt", "SPDX-License-Identifier: MIT")]), "ABOVE");
        assert_eq!(licence(&[("Cargo.toml", "not toml [")]), "ABOVE");
        assert_eq!(
            licence(&[("Cargo.toml", "[package]\nlicense.workspace = true")]),
            "ABOVE"
        );
        assert_eq!(
            licence(&[("Cargo.toml", "[workspace.package]\nlicense = \"Zlib\"")]),
            "Zlib"
        );
        assert_eq!(
            licence(&[(
                "LICENSE.md",
                "<!-- SPDX-License-Identifier: BSD-2-Clause -->\nCopyright"
            )]),
            "BSD-2-Clause"
        );
        assert_eq!(licence(&[("COPYING", "All rights reserved")]), "ABOVE");
    }
}
