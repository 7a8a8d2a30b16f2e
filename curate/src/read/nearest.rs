//! The licence that the nearest manifest or licence file states.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::store::{Entry, Kind, Store};

/// Manifests are read up to this size.
const MANIFEST_BYTES: u64 = 1 << 20;
/// A tag is looked for in the first bytes only.
const TAG_WITHIN_BYTES: usize = 4096;
const TAG: &str = "SPDX-License-Identifier:";

/// What holds inside a folder of these entries, above which `above` holds: what a manifest says, or else the SPDX tag of a
/// licence file, or else `above`.
pub(crate) fn licence(
    store: &dyn Store,
    folder: &Path,
    entries: &[Entry],
    above: Option<&Arc<str>>,
) -> Option<Arc<str>> {
    let text = |name: &OsStr, most: u64| -> Option<String> {
        let bytes = entries.iter().find_map(|entry| match &entry.kind {
            Kind::File(state) if entry.name == name => Some(state.bytes.min(most)),
            _ => None,
        })?;
        let mut text = Vec::new();
        let file = store.open(&folder.join(name)).ok()?;
        file.read(0..bytes).ok()?.read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    };
    let manifest = |name: &str, licence: fn(&str) -> Option<String>| {
        text(OsStr::new(name), MANIFEST_BYTES).and_then(|text| licence(&text))
    };
    let tagged = || {
        let mut names: Vec<_> = entries.iter().map(|entry| entry.name.as_os_str()).collect();
        names.retain(|name| is_licence_file(name));
        names.sort_unstable();
        names
            .iter()
            .find_map(|name| tag_in(&text(name, TAG_WITHIN_BYTES as u64)?))
    };
    manifest("Cargo.toml", of_cargo)
        .or_else(|| manifest("package.json", of_npm))
        .or_else(|| manifest("pyproject.toml", of_python))
        .or_else(tagged)
        .map(Arc::from)
        .or_else(|| above.cloned())
}

/// The SPDX expression that a text's first bytes are tagged with.
pub(crate) fn tag_in(text: &str) -> Option<String> {
    let head = text.get(..text.floor_char_boundary(TAG_WITHIN_BYTES))?;
    let expression = head.lines().find_map(|line| line.split_once(TAG))?.1;
    let expression = expression
        .trim_end_matches(['*', '/', '-', '>', '#', ' ', '\t'])
        .trim();
    (!expression.is_empty()).then(|| expression.to_owned())
}

fn is_licence_file(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_uppercase();
    ["LICENSE", "LICENCE", "COPYING"]
        .iter()
        .any(|stem| name.starts_with(stem))
}

fn of_cargo(manifest: &str) -> Option<String> {
    let manifest: toml::Table = manifest.parse().ok()?;
    let licence = |table: &toml::Value| Some(table.get("package")?.get("license")?.as_str()?.to_owned());
    let manifest = toml::Value::Table(manifest);
    licence(&manifest).or_else(|| licence(manifest.get("workspace")?))
}

fn of_npm(manifest: &str) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_str(manifest).ok()?;
    // A map with a type is how it was written long ago.
    let licence = manifest.get("license")?;
    let licence = licence.as_str().or_else(|| licence.get("type")?.as_str())?;
    Some(licence.to_owned())
}

fn of_python(manifest: &str) -> Option<String> {
    let manifest: toml::Table = manifest.parse().ok()?;
    let licence = manifest.get("project")?.get("license")?;
    let licence = licence.as_str().or_else(|| licence.get("text")?.as_str())?;
    // The field may hold a whole licence.
    (!licence.contains('\n')).then(|| licence.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::read::store::LocalStore;

    fn nearest(files: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let entries = LocalStore.entries(folder.path()).unwrap();
        let entries: Vec<Entry> = entries.into_iter().map(Result::unwrap).collect();
        let above = Arc::from("ABOVE");
        licence(&LocalStore, folder.path(), &entries, Some(&above))
            .unwrap()
            .to_string()
    }

    #[test]
    fn the_nearest_that_tells_counts() {
        assert_eq!(nearest(&[]), "ABOVE");
        assert_eq!(nearest(&[("Cargo.toml", "not toml [")]), "ABOVE");
        assert_eq!(
            nearest(&[("Cargo.toml", "[package]\nlicense.workspace = true")]),
            "ABOVE"
        );
        assert_eq!(
            nearest(&[("Cargo.toml", "[package]\nlicense = \"MIT OR Apache-2.0\"")]),
            "MIT OR Apache-2.0"
        );
        assert_eq!(
            nearest(&[("Cargo.toml", "[workspace.package]\nlicense = \"Zlib\"")]),
            "Zlib"
        );
        assert_eq!(nearest(&[("package.json", "{\"license\": \"ISC\"}")]), "ISC");
        assert_eq!(
            nearest(&[("package.json", "{\"license\": {\"type\": \"MIT\"}}")]),
            "MIT"
        );
        assert_eq!(
            nearest(&[("pyproject.toml", "[project]\nlicense = {text = \"BSD-3-Clause\"}")]),
            "BSD-3-Clause"
        );
        let tag = "<!-- SPDX-License-Identifier: BSD-2-Clause -->\nCopyright";
        assert_eq!(nearest(&[("LICENSE.md", tag)]), "BSD-2-Clause");
        assert_eq!(nearest(&[("COPYING", "All rights reserved")]), "ABOVE");
        assert_eq!(nearest(&[("a.txt", "SPDX-License-Identifier: MIT")]), "ABOVE");
    }
}
