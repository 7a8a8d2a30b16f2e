//! The first phase: every unit of input is read, and each of its documents put through the stages that look at one.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::input::Input;
use super::run::Run;
use crate::bias;
use crate::counts::Counts;
use crate::curated::Curated;
use crate::decontaminate;
use crate::dedup::exact::{Digest128, DigestWriter};
use crate::dedup::{NearSettings, PartWriter, Signer};
use crate::document::Dropped;
use crate::error::CurateError;
use crate::progress::Progress;
use crate::quality::Scores;
use crate::read::{Read, Source, Unit};
use crate::records::{RecordWriter, Records, read_json, write_json};
use crate::screen::{Screen, Screener};
use crate::spec::{Spec, Stage};
use crate::spent::Spent;
use crate::work::{Key, Phase, Work};

const DOCUMENTS: &str = "documents.jsonl.zst";
const DROPPED: &str = "dropped.jsonl.zst";
const SUMMARY: &str = "summary.json";
const DIGESTS: &str = "digests";
const SIGNATURES: &str = "signatures";

const UNITS_PER_SLICE: usize = 64;
const MOST_SLICES: usize = 64;

/// What the first phase left.
pub(super) struct Documents {
    phase: Phase,
    pub(super) key: Key,
    /// The ordinal of each unit's first document, and at the end that of the one after the last.
    pub(super) firsts: Vec<u64>,
    /// What was dropped before anything was read: files that cannot be.
    pub(super) refused: Vec<Dropped>,
    /// A digest over all documents that were read, whatever their order.
    pub(super) content: Content,
}

/// What a task says of its unit.
#[derive(Debug, Serialize, Deserialize)]
struct Summary {
    documents: u64,
    counts: Counts,
    audit: bias::Counts,
    contamination: decontaminate::Report,
    content: Content,
    spent: Spent,
}

/// A sum over documents, the same in any order: of their names and of their text as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content([u64; 4]);

impl Content {
    fn add_document(&mut self, name: &str, digest: &lockstep_data::Digest) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(digest.as_bytes());
        hasher.update(name.as_bytes());
        let digest = hasher.finalize();
        let (words, _) = digest.as_bytes().as_chunks::<8>();
        let mut of_this = Self::default();
        for (sum, word) in of_this.0.iter_mut().zip(words) {
            *sum = u64::from_le_bytes(*word);
        }
        self.add(&of_this);
    }

    fn add(&mut self, other: &Self) {
        for (sum, word) in self.0.iter_mut().zip(other.0) {
            *sum = sum.wrapping_add(word);
        }
    }

    pub(super) fn digest(&self) -> lockstep_data::Digest {
        lockstep_data::Digest::of(bytemuck::cast_slice(&self.0))
    }
}

impl Documents {
    pub(super) fn tasks(&self) -> usize {
        self.firsts.len().saturating_sub(1)
    }

    /// How many of them a task has.
    pub(super) fn count_of(&self, task: usize) -> u64 {
        match self.firsts.get(task..=task + 1) {
            Some([first, next]) => next - first,
            _ => 0,
        }
    }

    /// Among how many tasks a search among all documents is shared out: each reads what is known of all of them, so there
    /// are not many.
    pub(super) fn slices(&self) -> usize {
        (self.tasks() / UNITS_PER_SLICE).clamp(1, MOST_SLICES)
    }

    /// How many documents there are.
    pub(super) fn count(&self) -> u64 {
        self.firsts.last().copied().unwrap_or(0)
    }

    fn file(&self, task: usize, name: &str) -> PathBuf {
        self.phase.task(task).join(name)
    }

    pub(super) fn documents(&self, task: usize) -> PathBuf {
        self.file(task, DOCUMENTS)
    }

    pub(super) fn dropped(&self, task: usize) -> PathBuf {
        self.file(task, DROPPED)
    }

    pub(super) fn digests(&self) -> Vec<PathBuf> {
        (0..self.tasks()).map(|task| self.file(task, DIGESTS)).collect()
    }

    /// The first that was dropped for this stage and reason, as [`Counts::worst`] names them: its name and the detail.
    fn first_dropped(&self, by: &str) -> Result<Option<String>, CurateError> {
        let told = |dropped: &Dropped| {
            let is_it = format!("{} ({})", dropped.stage, dropped.reason) == by;
            is_it.then(|| format!("{}: {}", dropped.origin.name(), dropped.detail))
        };
        if let Some(told) = self.refused.iter().find_map(told) {
            return Ok(Some(told));
        }
        for task in 0..self.tasks() {
            for dropped in Records::open(&self.dropped(task))? {
                if let Some(told) = told(&dropped?) {
                    return Ok(Some(told));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn signatures(&self) -> Vec<PathBuf> {
        (0..self.tasks())
            .map(|task| self.file(task, SIGNATURES))
            .collect()
    }
}

pub(super) fn run(
    run: &mut Run<'_>,
    work: &Work,
    input: &Input,
    screen: &Screen,
) -> Result<Documents, CurateError> {
    let (spec, units) = (run.spec, &input.units);
    let phase = work.phase("documents", &input.key)?;
    let cost = |task: usize| units.get(task).map_or(0, |(_, unit)| unit.bytes);
    let total = (0..units.len()).map(cost).sum();
    run.progress.enter("read and filter", total, "bytes");
    phase.run(units.len(), run.progress, cost, |task, folder| {
        let unit = units
            .get(task)
            .map(|(source, unit)| (input.sources.get(*source), unit));
        let Some((Some(source), unit)) = unit else {
            return Ok(());
        };
        Task::begin(screen, spec, folder)?.run(unit, source, run.progress)
    })?;
    let mut documents = Documents {
        phase,
        key: input.key.clone(),
        firsts: vec![0],
        refused: input.refused.clone(),
        content: Content::default(),
    };
    for dropped in &documents.refused {
        run.counts
            .stage(Stage::Read.name())
            .drop(0, &dropped.reason, None);
    }
    for task in 0..units.len() {
        let summary: Summary = read_json(&documents.file(task, SUMMARY))?;
        run.counts.add(&summary.counts);
        run.audit.merge(summary.audit);
        run.contamination.merge(&summary.contamination);
        run.spent.add(&summary.spent);
        documents.firsts.push(documents.count() + summary.documents);
        documents.content.add(&summary.content);
    }
    run.bytes = total;
    if documents.count() == 0 {
        return Err(nothing_left(&run.counts, &documents)?);
    }
    Ok(documents)
}

/// Why no document is left.
fn nothing_left(counts: &Counts, documents: &Documents) -> Result<CurateError, CurateError> {
    let flow = counts.stages.get(Stage::Read.name());
    let read = flow.map_or(0, |flow| flow.passed.documents);
    let (worst, count) = counts.worst().unwrap_or_default();
    let first = documents.first_dropped(&worst)?.unwrap_or_default();
    if read > 0 {
        return Ok(CurateError::NothingLeft {
            read,
            worst,
            count,
            first,
        });
    }
    let dropped = flow.map_or(0, |flow| flow.dropped.values().map(|tally| tally.documents).sum());
    Ok(CurateError::NothingRead {
        dropped,
        worst,
        first,
    })
}

/// A unit under way.
struct Task<'t> {
    folder: &'t Path,
    screener: Screener<'t>,
    documents: RecordWriter<Curated>,
    dropped: RecordWriter<Dropped>,
    digests: Option<DigestWriter>,
    near: Option<(Signer, PartWriter)>,
    keep: crate::dedup::Keep,
    count: u64,
    content: Content,
}

impl<'t> Task<'t> {
    fn begin(screen: &'t Screen, spec: &Spec, folder: &'t Path) -> Result<Self, CurateError> {
        let dedup = spec.runs(Stage::Dedup);
        let near: Option<NearSettings> = spec.dedup.near.settings().filter(|_| dedup);
        let keep = near.as_ref().map(|near| near.keep).unwrap_or_default();
        let near = near.map(|near| -> Result<_, CurateError> {
            Ok((
                Signer::new(&near)?,
                PartWriter::create(&folder.join(SIGNATURES), &near)?,
            ))
        });
        let digests = dedup.then(|| DigestWriter::create(&folder.join(DIGESTS)));
        Ok(Self {
            folder,
            screener: screen.screener(),
            documents: RecordWriter::create(folder.join(DOCUMENTS))?,
            dropped: RecordWriter::create(folder.join(DROPPED))?,
            digests: digests.transpose()?,
            near: near.transpose()?,
            keep,
            count: 0,
            content: Content::default(),
        })
    }

    fn run(mut self, unit: &Unit, source: &Source, progress: &Progress) -> Result<(), CurateError> {
        let (mut failed, since) = (None, Instant::now());
        let flow = source.read(unit, &mut |read| match progress
            .check()
            .and_then(|()| self.take(read, progress))
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        if let (ControlFlow::Break(()), Some(error)) = (flow, failed) {
            return Err(error);
        }
        if let Some(problem) = source.outage() {
            return Err(CurateError::Unreachable {
                source_name: unit.source.to_string(),
                problem: problem.to_owned(),
            });
        }
        self.screener.spent.rest_on(Stage::Read, since);
        self.documents.close()?;
        self.dropped.close()?;
        if let Some(digests) = self.digests {
            digests.commit()?;
        }
        if let Some((_, part)) = self.near {
            part.commit()?;
        }
        let summary = Summary {
            documents: self.count,
            counts: self.screener.counts,
            audit: self.screener.audit,
            contamination: self.screener.contamination,
            content: self.content,
            spent: self.screener.spent,
        };
        write_json(self.folder.join(SUMMARY), &summary)
    }

    fn take(&mut self, read: Read, progress: &Progress) -> Result<(), CurateError> {
        let document = match read {
            Read::Document(document) => document,
            Read::Progress(bytes) => {
                progress.advance(bytes);
                return Ok(());
            }
            Read::Dropped(dropped) => {
                self.screener
                    .counts
                    .stage(Stage::Read.name())
                    .drop(0, &dropped.reason, None);
                return self.dropped.push(&dropped);
            }
        };
        let name = document.origin.name();
        let before = lockstep_data::Digest::of(document.text.as_bytes());
        self.content.add_document(&name, &before);
        match self.screener.screen(document, before) {
            Err(dropped) => self.dropped.push(&dropped),
            Ok(curated) => self.keep(&curated),
        }
    }

    fn keep(&mut self, curated: &Curated) -> Result<(), CurateError> {
        let quality = curated.scores.as_deref().map_or(0.0, quality);
        let (rank, since) = (self.keep.rank(curated.text.len(), quality), Instant::now());
        if let Some(digests) = &mut self.digests {
            digests.push(Digest128::of(&curated.text), rank)?;
        }
        if let Some((signer, part)) = &mut self.near {
            part.push(signer.sign(&curated.text), rank)?;
        }
        self.screener.spent.on(Stage::Dedup, since);
        self.count += 1;
        self.documents.push(curated)
    }
}

/// What decides which document of a cluster stays, where the spec says the best: the share of lines that end as a sentence
/// does, less the share of characters in repeats of five words.
fn quality(scores: &Scores) -> f32 {
    scores.punctuated_lines - scores.duplicate_5gram
}
