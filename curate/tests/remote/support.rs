//! Builds, and what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use lockstep_curate::read::{Listing, Read, Source};
use lockstep_curate::{Built, CurateError, Document, Dropped, Progress, Spec, build};
use serde_json::Value;

/// All that a source yields.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct All {
    pub(crate) documents: Vec<Document>,
    pub(crate) dropped: Vec<Dropped>,
}

impl All {
    pub(crate) fn of(source: &Source) -> Self {
        let listing = source.list().unwrap();
        Self::of_listing(source, &listing)
    }

    pub(crate) fn of_listing(source: &Source, listing: &Listing) -> Self {
        let mut all = Self {
            dropped: listing.dropped.clone(),
            ..Self::default()
        };
        for unit in &listing.units {
            let flow = source.read(unit, &mut |read| {
                match read {
                    Read::Document(document) => all.documents.push(document),
                    Read::Dropped(dropped) => all.dropped.push(dropped),
                    Read::Progress(_) => {}
                }
                ControlFlow::Continue(())
            });
            assert!(flow.is_continue());
        }
        all
    }

    pub(crate) fn texts(&self) -> Vec<&str> {
        self.documents.iter().map(|document| &*document.text).collect()
    }

    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.dropped.iter().map(|dropped| &*dropped.reason).collect()
    }
}

/// Builds documents from a list of addresses by these stages.
pub(crate) fn built(
    folder: &Path,
    urls: &[String],
    stages: &str,
    progress: &Progress,
) -> Result<Built, CurateError> {
    let list = folder.join("urls.txt");
    fs::write(&list, urls.join("\n")).unwrap();
    let spec = format!(
        "stages = {stages}\n[[source]]\nname = \"web\"\nlist = {list:?}\nnetwork = true\n\
         max_bytes = 100000\n"
    );
    build(&Spec::parse(&spec).unwrap(), &folder.join("out"), progress)
}

/// The texts in a build's folder with their address, and the reasons of what was dropped by file.
pub(crate) fn told(folder: &Path) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut documents = BTreeMap::new();
    for entry in fs::read_dir(folder.join("out")).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_str().unwrap().ends_with(".jsonl.zst") {
            continue;
        }
        let lines = zstd::decode_all(fs::File::open(path).unwrap()).unwrap();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Value = serde_json::from_slice(line).unwrap();
            let text = line["text"].as_str().unwrap().to_owned();
            let url = line["url"].as_str().unwrap_or_default();
            documents.insert(text, url.to_owned());
        }
    }
    (documents, dropped(folder))
}

fn dropped(folder: &Path) -> BTreeMap<String, String> {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::Field;
    let file = fs::File::open(folder.join("out/dropped.parquet")).unwrap();
    let table = SerializedFileReader::new(file).unwrap();
    let text = |field: &Field| match field {
        Field::Str(text) => text.clone(),
        other => other.to_string(),
    };
    table
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let row: BTreeMap<String, String> = row
                .unwrap()
                .get_column_iter()
                .map(|(name, field)| (name.clone(), text(field)))
                .collect();
            (
                row["file"].clone(),
                format!("{}: {}", row["reason"], row["detail"]),
            )
        })
        .collect()
}
