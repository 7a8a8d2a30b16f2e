//! `data show`: what is in a dataset, and one document of it.

use std::path::PathBuf;

use lockstep_data::{DataError, Dataset, DocumentRecord, Named, Part};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Format, count, table};

/// Documents listed without a number.
const LISTED: usize = 10;

/// Show what is in a dataset, or one document with its provenance and scores.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The dataset's folder.
    dataset: PathBuf,
    /// The document: its number, counting from 0 those to train on and then those held out, or its path, or its digest.
    #[arg(long, value_name = "N")]
    document: Option<String>,
}

/// A document, in full.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    record: DocumentRecord,
    text: String,
}

pub(crate) fn run(args: &Args, format: Format) -> anyhow::Result<()> {
    let dataset = Dataset::open(&args.dataset)?;
    let Some(name) = &args.document else {
        let first: Vec<DocumentRecord> = dataset.documents()?.take(LISTED).collect::<Result<_, _>>()?;
        return format.print(dataset.manifest(), |manifest| {
            let rows = first.iter().map(|document| {
                [document.id.clone(), count(document.bytes), document.licence.clone().unwrap_or_default()]
            });
            format!(
                "dataset {}, digest {}\n  train {} documents, {} tokens; validation {} documents, {} tokens\n{}\n  … see one with --document N",
                args.dataset.display(),
                manifest.digest,
                count(manifest.train.documents),
                count(manifest.train.tokens),
                count(manifest.validation.documents),
                count(manifest.validation.tokens),
                table(["  document", "bytes", "licence"], rows),
            )
        });
    };
    let record = find(&dataset, name)?;
    let text = text_of(&dataset, &record)?;
    format.print(&Shown { record, text }, describe)
}

fn find(dataset: &Dataset, name: &str) -> anyhow::Result<DocumentRecord> {
    if let Ok(number) = name.parse::<usize>() {
        let all = dataset.manifest().train.documents + dataset.manifest().validation.documents;
        let found = dataset.documents()?.nth(number).transpose()?;
        return found.ok_or_else(|| {
            Failure::Usage(format!(
                "--document {number}: the dataset has {all} documents, counted from 0"
            ))
            .into()
        });
    }
    match dataset.find_document(name)? {
        Named::One(record) => Ok(*record),
        Named::Several(found, first) => {
            let names: Vec<&str> = first.iter().map(|record| record.digest.as_str()).collect();
            Err(Failure::Usage(format!(
                "--document {name}: {found} documents are called so; give a digest: {}",
                names.join(", ")
            ))
            .into())
        }
        Named::Nothing(nearest) => Err(Failure::Usage(format!(
            "--document {name}: none is called so; nearest: {}",
            nearest.join(", ")
        ))
        .into()),
    }
}

fn text_of(dataset: &Dataset, record: &DocumentRecord) -> Result<String, DataError> {
    let split = match record.split {
        Part::Train => dataset.train(),
        Part::Validation => dataset.validation(),
    };
    // Without the end of text.
    let length = (record.tokens.end - record.tokens.start).saturating_sub(1);
    let mut tokens = vec![0; length as usize];
    split.read_at(record.tokens.start, &mut tokens)?;
    dataset.tokenizer()?.decode(&tokens)
}

fn describe(shown: &Shown) -> String {
    let record = &shown.record;
    let mut rows = vec![
        ("path", record.id.clone()),
        ("source", record.source.clone()),
        (
            "licence",
            record.licence.clone().unwrap_or_else(|| "not stated".to_owned()),
        ),
        ("digest", record.digest.clone()),
        ("bytes", count(record.bytes)),
        (
            "tokens",
            format!(
                "{} to {} of {}",
                record.tokens.start,
                record.tokens.end,
                record.split.name()
            ),
        ),
    ];
    let mut nested = Vec::new();
    for (name, value) in &record.more {
        match value {
            serde_json::Value::String(text) => rows.push((name, text.clone())),
            serde_json::Value::Object(fields) => nested.push((name, fields)),
            other => rows.push((name, other.to_string())),
        }
    }
    let mut text = table(
        ["", ""],
        rows.into_iter().map(|(name, value)| [name.to_owned(), value]),
    );
    for (name, fields) in nested {
        let rows = fields
            .iter()
            .map(|(field, value)| [format!("  {field}"), value.to_string()]);
        text.push_str(&format!("\n{name}\n{}", table(["", ""], rows)));
    }
    format!("{}\n\n{}", text.trim_start(), shown.text)
}
