//! Which steps, checkpoints and exports saw a document.

use std::ops::Range;
use std::path::{Path, PathBuf};

use lockstep_data::{DocumentRecord, Named, Part};
use lockstep_engine::ids::Step;
use lockstep_engine::lineage::Lineage;

use super::source::{Source, Used};
use crate::exports::Export;
use crate::failure::Failure;
use crate::output::{count, table};

/// Steps shown to people.
const STEPS_SHOWN: usize = 20;

/// The answer.
#[derive(Debug, serde::Serialize)]
pub(super) struct Answer {
    pub(super) document: DocumentRecord,
    /// The samples that hold one of its tokens.
    pub(super) samples: Range<u64>,
    /// Committed steps of the run.
    pub(super) committed: Step,
    /// The first that brought the document into the weights.
    pub(super) first_step: Option<Step>,
    /// Those that used one of the samples.
    pub(super) steps: Vec<StepSaw>,
    pub(super) checkpoints: Vec<CheckpointSaw>,
    pub(super) exports: Vec<ExportSaw>,
}

/// A step that used samples of the document.
#[derive(Debug, serde::Serialize)]
pub(super) struct StepSaw {
    pub(super) step: Step,
    epoch: u64,
    /// Whether its gradient was thrown away.
    pub(super) skipped: bool,
    pub(super) uses: Vec<Used>,
}

/// A checkpoint, and whether it has seen the document.
#[derive(Debug, serde::Serialize)]
pub(super) struct CheckpointSaw {
    pub(super) step: Step,
    /// Digest; none where the manifest is damaged.
    weights_blake3: Option<String>,
    /// Where it is; none where it is gone.
    pub(super) path: Option<PathBuf>,
    /// Whether the ledger counts it.
    pub(super) counts: bool,
    pub(super) has_seen: bool,
}

/// An export, and whether it has seen the document.
#[derive(Debug, serde::Serialize)]
pub(super) struct ExportSaw {
    #[serde(flatten)]
    export: Export,
    /// Whether something is still there.
    exists: bool,
    pub(super) has_seen: bool,
}

impl Answer {
    /// Answers for the document called `name`.
    pub(super) fn of(source: &Source, name: &str) -> anyhow::Result<Self> {
        let document = find(source, name)?;
        let train = source.dataset.train();
        let samples = match document.split {
            Part::Train => train.samples_of(document.tokens.clone(), source.sequence_length),
            Part::Validation => 0..0,
        };
        let lineage = Lineage::trace(&source.history, &source.order, samples.clone());
        let steps = lineage.steps.iter().map(|sighting| StepSaw {
            step: sighting.step,
            epoch: sighting.epoch.0,
            skipped: sighting.skipped,
            uses: sighting.uses.iter().map(Used::from).collect(),
        });
        let exports = source.exports.iter().map(|export| ExportSaw {
            exists: export.path.exists(),
            has_seen: lineage.has_seen(Step(export.step), &export.weights_blake3),
            export: export.clone(),
        });
        Ok(Self {
            document,
            samples,
            committed: lineage.committed,
            first_step: lineage.first(),
            steps: steps.collect(),
            checkpoints: checkpoints(source, &lineage),
            exports: exports.collect(),
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let document = &self.document;
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "not known".to_owned());
        let mut lines = vec![
            format!("document   {}", document.id),
            format!("source     {}", document.source),
            format!("version    {}", or_none(&document.version)),
            format!("licence    {}", or_none(&document.licence)),
            format!(
                "tokens     {}, in {} samples of the {} split",
                count(document.tokens.end - document.tokens.start),
                count(self.samples.end - self.samples.start),
                document.split.name()
            ),
            format!("steps      {}", self.steps_text()),
        ];
        lines.extend(self.skipped_text().map(|text| format!("skipped    {text}")));
        let yes = |has_seen: bool| if has_seen { "yes" } else { "no" }.to_owned();
        let on_disk: Vec<[String; 3]> = self
            .checkpoints
            .iter()
            .filter_map(|checkpoint| {
                let path = shown(checkpoint.path.as_deref()?);
                Some([checkpoint.step.to_string(), yes(checkpoint.has_seen), path])
            })
            .collect();
        if !on_disk.is_empty() {
            lines.push(String::new());
            lines.push(table(["checkpoint", "has seen it", "path"], on_disk));
        }
        if !self.exports.is_empty() {
            let rows = self.exports.iter().map(|saw| {
                let path = shown(&saw.export.path);
                let path = if saw.exists {
                    path
                } else {
                    format!("{path} (gone)")
                };
                [saw.export.step.to_string(), yes(saw.has_seen), path]
            });
            lines.push(String::new());
            lines.push(table(["export of", "has seen it", "path"], rows));
        }
        lines.join("\n")
    }

    fn steps_text(&self) -> String {
        let committed = count(self.committed.0);
        let (Some(first), Some(last)) = (self.steps.first(), self.steps.last()) else {
            return match self.document.split {
                Part::Validation => "none: it is held out, no step trains on it".to_owned(),
                Part::Train if self.samples.is_empty() => {
                    "none: it lies behind the last whole sample, no step trains on it".to_owned()
                }
                Part::Train => format!("none of the {committed} committed"),
            };
        };
        let all = listed(self.steps.iter().map(|saw| saw.step));
        let (number, first, last) = (count(self.steps.len() as u64), first.step, last.step);
        format!("{number} of the {committed} committed, from {first} to {last}: {all}")
    }

    fn skipped_text(&self) -> Option<String> {
        let skipped: Vec<Step> = self
            .steps
            .iter()
            .filter(|saw| saw.skipped)
            .map(|saw| saw.step)
            .collect();
        let number = skipped.len();
        (number > 0).then(|| format!("{number} of these, which changed nothing: {}", listed(skipped)))
    }
}

/// The first steps of many.
fn listed(steps: impl IntoIterator<Item = Step>) -> String {
    let mut steps = steps.into_iter();
    let mut words: Vec<String> = steps
        .by_ref()
        .take(STEPS_SHOWN)
        .map(|step| step.to_string())
        .collect();
    words.extend(steps.next().map(|_| "…".to_owned()));
    words.join(", ")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn find(source: &Source, name: &str) -> anyhow::Result<DocumentRecord> {
    let problem = match source.dataset.find_document(name)? {
        Named::One(document) => return Ok(*document),
        Named::Several(documents, first) => {
            let name_of = |document: DocumentRecord| match document.id == name {
                true => document.digest,
                false => document.id,
            };
            let first: Vec<String> = first.into_iter().map(name_of).collect();
            format!(
                "`{name}` stands for {documents} documents; give one by its id or digest, such as {}",
                first.join(", ")
            )
        }
        Named::Nothing(nearest) => format!(
            "the dataset has no document `{name}`; the nearest are {}. It may have been left out as a duplicate, or \
             for lack of text, when the dataset was built",
            nearest.join(", ")
        ),
    };
    Err(Failure::Usage(problem).into())
}

/// All checkpoints on disk or in the ledger's history, by step.
fn checkpoints(source: &Source, lineage: &Lineage) -> Vec<CheckpointSaw> {
    let on_disk = source.checkpoints.iter().map(|found| {
        let weights = found.weights.as_deref().unwrap_or_default();
        let record = |r: &&lockstep_engine::lineage::Recorded| r.step == found.step && r.weights == weights;
        CheckpointSaw {
            step: found.step,
            weights_blake3: found.weights.clone(),
            path: Some(found.path.clone()),
            counts: lineage.checkpoints.iter().find(record).is_some_and(|r| r.counts),
            has_seen: lineage.has_seen(found.step, weights),
        }
    });
    let is_on_disk = |step: Step, weights: &str| {
        let mut found = source.checkpoints.iter();
        found.any(|found| found.step == step && found.weights.as_deref() == Some(weights))
    };
    let gone = lineage
        .checkpoints
        .iter()
        .filter(|r| !is_on_disk(r.step, &r.weights));
    let gone = gone.map(|record| CheckpointSaw {
        step: record.step,
        weights_blake3: Some(record.weights.clone()),
        path: None,
        counts: record.counts,
        has_seen: record.has_seen,
    });
    let mut all: Vec<CheckpointSaw> = on_disk.chain(gone).collect();
    all.sort_by_key(|checkpoint| checkpoint.step);
    all
}
