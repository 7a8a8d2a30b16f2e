//! Documents become tokens and rows, or lines where no tokens are made, unit by unit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lockstep_data::{Part, Tokenizer};
use serde::{Deserialize, Serialize};

use super::kept::{Fate, Kept};
use super::line::Line;
use super::row::Row;
use super::run::Run;
use super::sample::{Learned, draw_held_out};
use crate::bias;
use crate::counts::{Counts, Fertility, Tally, entry};
use crate::curated::Curated;
use crate::document::Dropped;
use crate::error::CurateError;
use crate::records::{RecordWriter, read_json, write_json};
use crate::screen::Screen;
use crate::spec::Stage;
use crate::spent::Spent;
use crate::work::{Key, Phase, TaskFile, Work};
use crate::{licence, words};

const DOCUMENTS: &str = "documents.jsonl.zst";
const HELD_OUT_TEXTS: &str = "held-out-texts.jsonl.zst";
const NAMES: &str = "names.jsonl.zst";
const DROPPED: &str = "dropped.jsonl.zst";
const SUMMARY: &str = "summary.json";

/// What this phase left.
pub(super) struct Tokens {
    phase: Phase,
    pub(super) tasks: usize,
}

/// The name of a document that stays, by its ordinal.
pub(super) type Named = (u64, String);

#[derive(Debug, Serialize, Deserialize)]
struct Summary {
    counts: Counts,
    audit: bias::Counts,
    spent: Spent,
}

impl Tokens {
    fn file(&self, task: usize, name: &str) -> PathBuf {
        self.phase.task(task).join(name)
    }

    /// Rows of the documents of a task that are in a split.
    pub(super) fn rows(&self, task: usize, part: Part) -> PathBuf {
        rows(&self.phase.task(task), part)
    }

    /// The tokens of these documents, one after the other, four bytes each.
    pub(super) fn tokens(&self, task: usize, part: Part) -> PathBuf {
        tokens(&self.phase.task(task), part)
    }

    /// The texts of those of its documents that are held out: gzip is measured on them.
    pub(super) fn held_out_texts(&self, task: usize) -> PathBuf {
        self.file(task, HELD_OUT_TEXTS)
    }

    /// The documents of a task as lines, where no tokens are made.
    pub(super) fn documents(&self, task: usize) -> PathBuf {
        self.file(task, DOCUMENTS)
    }

    /// What those documents of a task are called that stay in place of others.
    pub(super) fn names(&self, task: usize) -> PathBuf {
        self.file(task, NAMES)
    }

    pub(super) fn dropped(&self, task: usize) -> PathBuf {
        self.file(task, DROPPED)
    }
}

fn rows(folder: &Path, part: Part) -> PathBuf {
    folder.join(format!("{}.jsonl.zst", part.name()))
}

fn tokens(folder: &Path, part: Part) -> PathBuf {
    folder.join(format!("{}.tokens", part.name()))
}

pub(super) fn run(
    run: &mut Run<'_>,
    work: &Work,
    kept: &Kept,
    learned: &Learned,
    screen: &Screen,
) -> Result<Tokens, CurateError> {
    let key = Key::new("tokens", &learned.held_out_below, &[&kept.key, &learned.key])?;
    let phase = work.phase("tokens", &key)?;
    let tasks = kept.documents.tasks();
    let cost = |task| kept.documents.count_of(task);
    let what = if learned.tokenizer.is_some() {
        "tokenize"
    } else {
        "collect"
    };
    run.progress.enter(what, kept.documents.count(), "documents");
    let stand_ins: BTreeSet<u32> = kept.duplicates.stand_ins().collect();
    phase.run(tasks, run.progress, cost, |task, folder| {
        let mut unit = Task {
            output: match &learned.tokenizer {
                Some(tokenizer) => Output::Tokens {
                    tokenizer,
                    train: Split::create(folder, Part::Train)?,
                    held_out: Split::create(folder, Part::Validation)?,
                    held_out_texts: RecordWriter::create(folder.join(HELD_OUT_TEXTS))?,
                },
                None => Output::Lines(RecordWriter::packed(folder.join(DOCUMENTS))?),
            },
            names: RecordWriter::create(folder.join(NAMES))?,
            stand_ins: &stand_ins,
            dropped: RecordWriter::create(folder.join(DROPPED))?,
            counts: Counts::default(),
            screen,
            audit: bias::Counts::default(),
            spent: Spent::default(),
            held_out_below: learned.held_out_below,
            counts_duplicates: run.spec.runs(Stage::Dedup),
        };
        for fate in kept.fates(task)? {
            run.progress.check()?;
            let (ordinal, fate) = fate?;
            unit.take(ordinal, fate)?;
            run.progress.advance(1);
        }
        unit.output.close()?;
        unit.names.close()?;
        unit.dropped.close()?;
        let summary = Summary {
            counts: unit.counts,
            audit: unit.audit,
            spent: unit.spent,
        };
        write_json(folder.join(SUMMARY), &summary)
    })?;
    let tokens = Tokens { phase, tasks };
    for task in 0..tasks {
        let summary: Summary = read_json(&tokens.file(task, SUMMARY))?;
        run.counts.add(&summary.counts);
        run.audit.merge(summary.audit);
        run.spent.add(&summary.spent);
    }
    run.bytes = run.counts.sources.values().map(|tally| tally.bytes).sum();
    Ok(tokens)
}

/// What becomes of the documents that stay.
enum Output<'t> {
    Tokens {
        tokenizer: &'t Tokenizer,
        train: Box<Split>,
        held_out: Box<Split>,
        held_out_texts: RecordWriter<String>,
    },
    Lines(RecordWriter<Line>),
}

impl Output<'_> {
    fn close(self) -> Result<(), CurateError> {
        match self {
            Self::Tokens {
                tokenizer: _,
                train,
                held_out,
                held_out_texts,
            } => {
                train.close()?;
                held_out.close()?;
                held_out_texts.close()
            }
            Self::Lines(lines) => lines.close(),
        }
    }
}

/// Rows and tokens of one split.
struct Split {
    rows: RecordWriter<Row>,
    tokens: TaskFile,
}

impl Split {
    fn create(folder: &Path, part: Part) -> Result<Box<Self>, CurateError> {
        Ok(Box::new(Self {
            rows: RecordWriter::create(rows(folder, part))?,
            tokens: TaskFile::create(tokens(folder, part))?,
        }))
    }

    fn close(self) -> Result<(), CurateError> {
        self.rows.close()?;
        self.tokens.close()
    }
}

/// A unit under way.
struct Task<'t> {
    output: Output<'t>,
    names: RecordWriter<Named>,
    /// Of whom the names are wanted.
    stand_ins: &'t BTreeSet<u32>,
    dropped: RecordWriter<Dropped>,
    counts: Counts,
    screen: &'t Screen,
    audit: bias::Counts,
    spent: Spent,
    held_out_below: u64,
    counts_duplicates: bool,
}

impl Task<'_> {
    fn take(&mut self, ordinal: u64, fate: Fate) -> Result<(), CurateError> {
        let (document, reason, detail, kept) = match fate {
            Fate::Stays(document, removed) => return self.keep(ordinal, document, removed),
            Fate::Duplicate(document, duplicate) => {
                let reason = if duplicate.is_exact {
                    "dedup.exact"
                } else {
                    "dedup.near"
                };
                let detail = format!("one of a cluster of {}", duplicate.cluster_size);
                (document, reason, detail, Some(u64::from(duplicate.kept)))
            }
            Fate::Repeats(document) => {
                let detail = "all of its passages were there before".to_owned();
                (document, "dedup.passages", detail, None)
            }
        };
        let stage = Stage::Dedup.name();
        let code = document.language.code.as_deref();
        self.counts.stage(stage).drop(document.text.len(), reason, code);
        self.screen.observe(&mut self.audit, &document, Some(reason));
        self.dropped.push(&Dropped {
            origin: document.origin,
            stage: stage.into(),
            reason: reason.into(),
            detail,
            kept,
            language: document.language.code,
            scores: document.scores,
        })
    }

    fn keep(&mut self, ordinal: u64, document: Curated, removed: usize) -> Result<(), CurateError> {
        let bytes = document.text.len();
        if self.counts_duplicates {
            let flow = self.counts.stage(Stage::Dedup.name());
            flow.pass(bytes + removed, bytes);
            flow.alter([("passage_bytes", removed as u64)]);
        }
        let since = Instant::now();
        self.screen.observe(&mut self.audit, &document, None);
        self.spent.on(Stage::Bias, since);
        if u32::try_from(ordinal).is_ok_and(|ordinal| self.stand_ins.contains(&ordinal)) {
            self.names.push(&(ordinal, document.origin.name()))?;
        }
        count(&mut self.counts, &document);
        match &mut self.output {
            Output::Lines(lines) => lines.push(&Line::of(document)),
            Output::Tokens {
                tokenizer,
                train,
                held_out,
                held_out_texts,
            } => {
                let since = Instant::now();
                let tokens = tokenizer.encode(&document.text)?;
                self.spent.on(Stage::Tokenize, since);
                count_tokens(&mut self.counts, &document, tokens.len() as u64);
                let split = if draw_held_out(&document.digest) < self.held_out_below {
                    held_out_texts.push(&document.text)?;
                    held_out
                } else {
                    train
                };
                split.tokens.put(bytemuck::cast_slice(&tokens))?;
                split.rows.push(&Row::of(document, tokens.len() as u64)?)
            }
        }
    }
}

/// Counts a document that stays.
fn count(counts: &mut Counts, document: &Curated) {
    let tally = Tally::one(document.text.len());
    *entry(&mut counts.sources, &document.origin.source) += tally;
    *entry(&mut counts.languages, document.language()) += tally;
    if let Some(script) = &document.language.script {
        *entry(&mut counts.scripts, script) += tally;
    }
    *entry(&mut counts.licences, &licence_name(document.licence.as_deref())) += tally;
    counts.lengths.add_log2(tally.bytes);
    if document.language.is_mixed {
        counts.mixed_language += tally;
    }
}

/// What a licence is called in counts. Statements that are none are one, as there may be any number of them, and with
/// whatever in them.
fn licence_name(stated: Option<&str>) -> String {
    match stated.map(licence::read) {
        None => "not stated".to_owned(),
        Some(None) => "not understood".to_owned(),
        Some(Some(expression)) => expression.to_string(),
    }
}

/// Counts its tokens.
fn count_tokens(counts: &mut Counts, document: &Curated, tokens: u64) {
    let bytes = document.text.len();
    counts.stage(Stage::Tokenize.name()).pass(bytes, bytes);
    let of_this = Fertility {
        bytes: bytes as u64,
        words: words::words(&document.text).count() as u64,
        tokens,
    };
    entry(&mut counts.fertility, document.language()).add(&of_this);
    entry(&mut counts.tokens, &document.origin.source).add(&of_this);
}
