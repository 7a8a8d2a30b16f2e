//! `data diff`: what differs between two datasets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lockstep_curate::Report;
use lockstep_data::Dataset;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Format, count, table};

/// Documents named of those that only one has.
const NAMED: usize = 10;

/// Show what differs between two datasets: documents, languages, and what each stage dropped.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One dataset's folder.
    a: PathBuf,
    /// Another's.
    b: PathBuf,
}

#[derive(Serialize)]
struct Difference {
    /// Whether the two hold the same bytes.
    same: bool,
    documents_in_both: u64,
    only_in_a: OnlyIn,
    only_in_b: OnlyIn,
    /// What each stage dropped, by stage and reason, in A and in B; and what is kept by language. Only what differs.
    counts: Vec<Line>,
}

#[derive(Default, Serialize)]
struct OnlyIn {
    documents: u64,
    first: Vec<String>,
}

#[derive(Serialize)]
struct Line {
    what: String,
    a: u64,
    b: u64,
}

pub(crate) fn run(args: &Args, format: Format) -> anyhow::Result<()> {
    let (a, b) = (Dataset::open(&args.a)?, Dataset::open(&args.b)?);
    let (of_a, of_b) = (digests(&a)?, digests(&b)?);
    let difference = Difference {
        same: a.manifest().digest == b.manifest().digest,
        documents_in_both: of_a.intersection(&of_b).count() as u64,
        only_in_a: only(&a, &of_b)?,
        only_in_b: only(&b, &of_a)?,
        counts: counts(&args.a, &args.b)?,
    };
    format.print(&difference, |difference| describe(args, difference))
}

fn digests(dataset: &Dataset) -> anyhow::Result<BTreeSet<String>> {
    let documents = dataset.documents()?;
    Ok(documents
        .map(|document| document.map(|document| document.digest))
        .collect::<Result<_, _>>()?)
}

/// The documents of a dataset whose texts are not among these.
fn only(dataset: &Dataset, others: &BTreeSet<String>) -> anyhow::Result<OnlyIn> {
    let mut only = OnlyIn::default();
    for document in dataset.documents()? {
        let document = document?;
        if !others.contains(&document.digest) {
            only.documents += 1;
            if only.first.len() < NAMED {
                only.first.push(document.id);
            }
        }
    }
    Ok(only)
}

/// What the reports count otherwise; nothing for datasets that have none.
fn counts(a: &Path, b: &Path) -> anyhow::Result<Vec<Line>> {
    let (Some(a), Some(b)) = (report(a)?, report(b)?) else {
        return Ok(Vec::new());
    };
    let (a, b) = (flat(&a), flat(&b));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let of = |counts: &BTreeMap<String, u64>, name: &str| counts.get(name).copied().unwrap_or(0);
    Ok(names
        .into_iter()
        .map(|name| Line {
            what: name.clone(),
            a: of(&a, name),
            b: of(&b, name),
        })
        .filter(|line| line.a != line.b)
        .collect())
}

fn report(folder: &Path) -> anyhow::Result<Option<Report>> {
    let path = folder.join("report.json");
    if !path.exists() {
        return Ok(None);
    }
    let text =
        std::fs::read_to_string(&path).map_err(Failure::storage(format!("read {}", path.display())))?;
    Ok(Some(serde_json::from_str(&text)?))
}

/// The figures that people compare, by name.
fn flat(report: &Report) -> BTreeMap<String, u64> {
    let mut flat = BTreeMap::new();
    for (stage, flow) in &report.counts.stages {
        for (reason, tally) in &flow.dropped {
            flat.insert(format!("{stage}: dropped for {reason}"), tally.documents);
        }
    }
    for (language, tally) in &report.counts.languages {
        flat.insert(format!("kept in {language}"), tally.documents);
    }
    for (kind, languages) in &report.counts.pii {
        flat.insert(format!("private data: {kind}"), languages.values().sum());
    }
    for split in &report.splits {
        flat.insert(format!("tokens, {}", split.name), split.tokens);
    }
    flat
}

fn describe(args: &Args, difference: &Difference) -> String {
    if difference.same {
        return "they hold the same bytes".to_owned();
    }
    let mut text = format!("{} documents are in both\n", count(difference.documents_in_both));
    for (path, only) in [(&args.a, &difference.only_in_a), (&args.b, &difference.only_in_b)] {
        text.push_str(&format!("{} only in {}\n", count(only.documents), path.display()));
        for name in &only.first {
            text.push_str(&format!("  {name}\n"));
        }
        if only.documents > only.first.len() as u64 {
            text.push_str("  …\n");
        }
    }
    let rows = difference
        .counts
        .iter()
        .map(|line| [line.what.clone(), count(line.a), count(line.b)]);
    if !difference.counts.is_empty() {
        text.push_str(&table(["", "A", "B"], rows));
    }
    text
}
