//! Corpora made up for tests, and readers of what a build writes that share no code with the crate.

#![expect(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::panic, reason = "helpers of tests fail as tests do")]

pub(crate) mod megatron;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use lockstep_data::{BuildOptions, Built, Corpus, DataError, build};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

/// A folder that is removed in the end, with a corpus in `corpus/` and room for datasets beside it.
pub(crate) struct Place {
    root: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let place = Self {
            root: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(place.corpus()).unwrap();
        for (name, text) in files {
            place.add(name, text.as_bytes());
        }
        place
    }

    /// A place whose corpus has `count` documents of made-up prose.
    pub(crate) fn with_prose(count: usize) -> Self {
        let names: Vec<String> = (0..count).map(|i| format!("part-{}/{i:04}.txt", i % 7)).collect();
        Self::new(
            names
                .iter()
                .enumerate()
                .map(|(i, name)| (name.as_str(), prose(i as u64, 300 + i * 37 % 900))),
        )
    }

    pub(crate) fn add(&self, name: &str, content: &[u8]) {
        let path = self.corpus().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn corpus(&self) -> PathBuf {
        self.root().join("corpus")
    }

    pub(crate) fn options(&self, out: &str) -> BuildOptions {
        let mut options = BuildOptions::new(Corpus::Folder(self.corpus()), self.root().join(out), 300);
        options.validation_fraction = 0.1;
        options
    }

    /// Names of all entries beside the corpus.
    pub(crate) fn entries(&self) -> Vec<String> {
        let names = fs::read_dir(self.root()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "corpus").collect();
        names.sort();
        names
    }
}

/// Builds without watching.
pub(crate) fn quiet(options: &BuildOptions) -> Result<Built, DataError> {
    build(options, &mut |_| (), &AtomicBool::new(false))
}

/// About `bytes` bytes of made-up prose, the same for the same seed.
pub(crate) fn prose(seed: u64, bytes: usize) -> String {
    const SYLLABLES: [&str; 16] = [
        "ka", "lo", "mi", "ten", "ra", "sul", "é", "vor", "ni", "du", "pe", "shi", "漢", "gan", "tu", "wo",
    ];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut text = format!("Document {seed}.\n");
    while text.len() < bytes {
        for _ in 0..=draw(3) {
            text.push_str(SYLLABLES[draw(16)]);
        }
        text.push_str([" ", " ", " ", ", ", ".\n", "\n\n", "<|endoftext|>"][draw(7)]);
    }
    text
}

/// A row of `documents.parquet`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row(BTreeMap<String, Field>);

impl Row {
    pub(crate) fn text(&self, column: &str) -> Option<&str> {
        match &self.0[column] {
            Field::Str(text) => Some(text),
            Field::Null => None,
            other => panic!("{column} is {other:?}"),
        }
    }

    pub(crate) fn number(&self, column: &str) -> i64 {
        match &self.0[column] {
            Field::Int(number) => i64::from(*number),
            Field::Long(number) => *number,
            other => panic!("{column} is {other:?}"),
        }
    }
}

/// All rows of a dataset's `documents.parquet`.
pub(crate) fn rows(dataset: &Path) -> Vec<Row> {
    let file = fs::File::open(dataset.join("documents.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| Row(row.unwrap().into_columns().into_iter().collect()))
        .collect()
}

/// Every file of a folder, by name.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
        .collect()
}
