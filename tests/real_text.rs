//! A dataset of text that nobody here wrote: sources of crates, as cargo's registry folder holds them after any build.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lockstep_data::Dataset;
use regex::Regex;
use support::place::Place;
use support::raw::{Row, rows};

const SPEC: &str = r#"
name = "crates"
[[source]]
name = "crates"
path = "raw"
follow_links = true
include = ["*.rs", "*.md", "Cargo.toml"]
[language]
min_confidence = 0.0
[licence]
allow = ["MIT", "Apache-2.0"]
[tokenizer]
vocab_size = 512
sample_bytes = 500000
"#;

/// So much is taken of the registry, in bytes of its files, to be quick.
const MOST_BYTES: u64 = 16 << 20;
/// And no crate of more.
const MOST_OF_A_CRATE_BYTES: u64 = 1 << 20;

/// A version of a crate.
struct Crate {
    name: String,
    folder: PathBuf,
    bytes: u64,
    /// As its manifest says.
    licence: String,
}

impl Crate {
    /// The crate in a folder `NAME-VERSION`; none if its manifest states no licence, or one that is not simple.
    fn of(folder: PathBuf) -> Option<Self> {
        let file_name = folder.file_name()?.to_str()?;
        let begins_version = |at: &usize| file_name[at + 1..].starts_with(|c: char| c.is_ascii_digit());
        let end = file_name
            .match_indices('-')
            .map(|(at, _)| at)
            .find(begins_version)?;
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
        let licence = manifest
            .lines()
            .find_map(|line| line.strip_prefix("license = \""))?;
        let licence = licence
            .strip_suffix('"')
            .filter(|licence| !licence.contains('('))?;
        Some(Self {
            name: file_name[..end].to_owned(),
            licence: licence.to_owned(),
            bytes: bytes_of(&folder),
            folder,
        })
    }

    /// The folder's name.
    fn version(&self) -> String {
        self.folder.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Whether one may choose terms of which each is allowed.
    fn is_allowed(&self) -> bool {
        let terms = self.licence.replace('/', " OR ").replace(" or ", " OR ");
        let allowed = |term: &str| {
            matches!(
                term.trim(),
                "MIT" | "Apache-2.0" | "Apache-2.0 WITH LLVM-exception"
            )
        };
        terms
            .split(" OR ")
            .any(|choice| choice.split(" AND ").all(allowed))
    }
}

/// The size of what is read of a folder.
fn bytes_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let bytes = entries.map(|entry| {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            bytes_of(&entry.path())
        } else if [".rs", ".md", "Cargo.toml"]
            .iter()
            .any(|end| entry.file_name().to_string_lossy().ends_with(end))
        {
            entry.metadata().unwrap().len()
        } else {
            0
        }
    });
    bytes.sum()
}

/// Crates of the registry: those that are there in several versions, and those under a licence that is not allowed, until
/// it is enough.
fn crates() -> Vec<Crate> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cargo"));
    let registries = fs::read_dir(home.join("registry/src")).unwrap();
    let folders = registries.flat_map(|registry| fs::read_dir(registry.unwrap().path()).unwrap());
    let mut all: Vec<Crate> = folders
        .filter_map(|folder| Crate::of(folder.unwrap().path()))
        .collect();
    all.retain(|one| (1..=MOST_OF_A_CRATE_BYTES).contains(&one.bytes));
    all.sort_by_key(Crate::version);
    all.dedup_by_key(|one| one.version());
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    all.iter()
        .for_each(|one| *versions.entry(one.name.clone()).or_default() += 1);
    all.retain(|one| !one.is_allowed() || versions[&one.name] > 1);
    let mut left = MOST_BYTES;
    all.retain(|one| {
        let fits = one.bytes <= left;
        left -= if fits { one.bytes } else { 0 };
        fits
    });
    all
}

/// The crate, with its version, that a file belongs to.
fn version_of(row: &Row) -> String {
    row["file"].split('/').next().unwrap().to_owned()
}

/// All text of a dataset, by way of its tokens.
fn text_of(folder: &Path) -> String {
    let dataset = Dataset::open(folder).unwrap();
    let tokenizer = dataset.tokenizer().unwrap();
    let splits = [dataset.train(), dataset.validation()];
    splits
        .map(|split| tokenizer.decode(&split.read_all().unwrap()).unwrap())
        .concat()
}

#[test]
fn crates_are_gated_by_licence_redacted_and_found_again_in_other_versions() {
    let crates = crates();
    let place = Place::new();
    fs::create_dir(place.path("raw")).unwrap();
    for one in &crates {
        symlink(&one.folder, place.path("raw").join(one.version())).unwrap();
    }
    fs::write(place.path("spec.toml"), SPEC).unwrap();
    let report = place.run("data build spec.toml --out out -o json").code(0).json();
    let (kept, dropped) = (
        rows(&place.path("out/documents.parquet")),
        rows(&place.path("out/dropped.parquet")),
    );

    // Licences: what is kept is allowed, and of what is not allowed every file is dropped for that.
    let (allowed, denied): (Vec<&Crate>, Vec<&Crate>) = crates.iter().partition(|one| one.is_allowed());
    assert!(
        allowed.len() > 20 && denied.len() > 5,
        "{} and {}",
        allowed.len(),
        denied.len()
    );
    let denied: BTreeSet<String> = denied.iter().map(|one| one.version()).collect();
    let of_gate: Vec<&Row> = dropped.iter().filter(|row| row["stage"] == "licence").collect();
    let gated: BTreeSet<String> = of_gate.iter().map(|row| version_of(row)).collect();
    println!(
        "licences: {} files of {} crates dropped",
        of_gate.len(),
        gated.len()
    );
    // A file may say of itself that it is under another licence than its crate.
    let is_tagged = |row: &Row| {
        let text = fs::read(place.path("raw").join(&row["file"])).unwrap();
        String::from_utf8_lossy(&text).contains("SPDX-License-Identifier:")
    };
    for row in &kept {
        assert!(!denied.contains(&version_of(row)) || is_tagged(row), "{row:?}");
    }
    assert!(
        denied.iter().all(|version| gated.contains(version)),
        "{denied:?} {gated:?}"
    );
    for row in &of_gate {
        assert!(denied.contains(&version_of(row)) || is_tagged(row), "{row:?}");
    }

    // Duplicates: most are those of another version of the same crate.
    let twice: Vec<(String, String)> = dropped
        .iter()
        .filter(|row| row["stage"] == "dedup")
        .map(|row| {
            let kept = row["kept_instead"].strip_prefix("crates/").unwrap();
            (version_of(row), kept.split('/').next().unwrap().to_owned())
        })
        .collect();
    let name = |version: &String| {
        let found = crates.iter().find(|one| one.version() == *version);
        found.map(|one| one.name.clone())
    };
    let same = twice
        .iter()
        .filter(|(gone, kept)| name(gone) == name(kept))
        .count();
    println!(
        "duplicates: {} files, {same} of another version of the crate",
        twice.len()
    );
    assert!(twice.len() > 50 && same * 10 > twice.len() * 9);

    // Private data: e-mail addresses are found, and another expression than the detector's finds none that is left.
    let found = report["counts"]["pii"]["email"].as_object().unwrap();
    let found: u64 = found.values().map(|count| count.as_u64().unwrap()).sum();
    let address = Regex::new(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}").unwrap();
    let text = text_of(&place.path("out"));
    let left: Vec<&str> = address.find_iter(&text).map(|found| found.as_str()).collect();
    println!(
        "addresses: {found} found, in {} MB {} are left: {left:?}",
        text.len() >> 20,
        left.len()
    );
    assert!(found > 10 && left.is_empty());
}
