//! Documents become tokens and rows, unit by unit.

use std::path::PathBuf;

use lockstep_data::Tokenizer;
use serde::{Deserialize, Serialize};

use super::kept::{Fate, Kept};
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
use crate::words;
use crate::work::{Key, Phase, TaskFile, Work};

const ROWS: &str = "rows.jsonl.zst";
const TOKENS: &str = "tokens";
const DROPPED: &str = "dropped.jsonl.zst";
const SUMMARY: &str = "summary.json";

/// What this phase left.
pub(super) struct Tokens {
    phase: Phase,
    pub(super) tasks: usize,
}

/// A document of the dataset. Its text is there where it is needed: if it is held out, or no tokens are made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) document: Curated,
    pub(super) ordinal: u64,
    pub(super) bytes: u64,
    /// Its tokens in the task's file, without the end of the document.
    pub(super) tokens: u64,
    pub(super) is_held_out: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Summary {
    counts: Counts,
    audit: bias::Counts,
}

impl Tokens {
    fn file(&self, task: usize, name: &str) -> PathBuf {
        self.phase.task(task).join(name)
    }

    pub(super) fn rows(&self, task: usize) -> PathBuf {
        self.file(task, ROWS)
    }

    /// Tokens of all documents of a task, one after the other, four bytes each.
    pub(super) fn tokens(&self, task: usize) -> PathBuf {
        self.file(task, TOKENS)
    }

    pub(super) fn dropped(&self, task: usize) -> PathBuf {
        self.file(task, DROPPED)
    }
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
    let cost = |task: usize| match kept.documents.firsts.get(task..=task + 1) {
        Some([first, next]) => next - first,
        _ => 0,
    };
    let what = if learned.tokenizer.is_some() {
        "tokenize"
    } else {
        "collect"
    };
    run.progress.enter(what, kept.documents.count(), "documents");
    phase.run(tasks, run.progress, cost, |task, folder| {
        let mut unit = Task {
            rows: RecordWriter::create(folder.join(ROWS))?,
            dropped: RecordWriter::create(folder.join(DROPPED))?,
            tokens: TaskFile::create(folder.join(TOKENS))?,
            counts: Counts::default(),
            screen,
            audit: bias::Counts::default(),
            tokenizer: learned.tokenizer.as_ref(),
            held_out_below: learned.held_out_below,
            counts_duplicates: run.spec.runs(Stage::Dedup),
        };
        for fate in kept.fates(task)? {
            run.progress.check()?;
            let (ordinal, fate) = fate?;
            unit.take(ordinal, fate)?;
            run.progress.advance(1);
        }
        unit.rows.close()?;
        unit.dropped.close()?;
        unit.tokens.close()?;
        let summary = Summary {
            counts: unit.counts,
            audit: unit.audit,
        };
        write_json(folder.join(SUMMARY), &summary)
    })?;
    let tokens = Tokens { phase, tasks };
    for task in 0..tasks {
        let summary: Summary = read_json(&tokens.file(task, SUMMARY))?;
        run.counts.add(&summary.counts);
        run.audit.merge(summary.audit);
    }
    run.bytes = run.counts.sources.values().map(|tally| tally.bytes).sum();
    Ok(tokens)
}

/// A unit under way.
struct Task<'t> {
    rows: RecordWriter<Row>,
    dropped: RecordWriter<Dropped>,
    tokens: TaskFile,
    counts: Counts,
    screen: &'t Screen,
    audit: bias::Counts,
    tokenizer: Option<&'t Tokenizer>,
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

    fn keep(&mut self, ordinal: u64, mut document: Curated, removed: usize) -> Result<(), CurateError> {
        let bytes = document.text.len();
        if self.counts_duplicates {
            let flow = self.counts.stage(Stage::Dedup.name());
            flow.pass(bytes + removed, bytes);
            flow.alter([("passage_bytes", removed as u64)]);
        }
        self.screen.observe(&mut self.audit, &document, None);
        let tokens = match self.tokenizer {
            Some(tokenizer) => tokenizer.encode(&document.text)?,
            None => Vec::new(),
        };
        self.tokens.put(bytemuck::cast_slice(&tokens))?;
        self.count(&document, tokens.len() as u64);
        let is_held_out = draw_held_out(&document.digest) < self.held_out_below;
        if self.tokenizer.is_some() {
            self.counts.stage(Stage::Tokenize.name()).pass(bytes, bytes);
            if !is_held_out {
                document.text = String::new();
            }
        }
        self.rows.push(&Row {
            document,
            ordinal,
            bytes: bytes as u64,
            tokens: tokens.len() as u64,
            is_held_out,
        })
    }

    fn count(&mut self, document: &Curated, tokens: u64) {
        let counts = &mut self.counts;
        let tally = Tally::one(document.text.len());
        let language = document.language();
        *entry(&mut counts.sources, &document.origin.source) += tally;
        *entry(&mut counts.languages, language) += tally;
        if let Some(script) = &document.language.script {
            *entry(&mut counts.scripts, script) += tally;
        }
        *entry(
            &mut counts.licences,
            document.licence.as_deref().unwrap_or("not stated"),
        ) += tally;
        counts.lengths.add_log2(tally.bytes);
        if document.language.is_mixed {
            counts.mixed_language += tally;
        }
        if self.tokenizer.is_some() {
            let of_this = Fertility {
                bytes: tally.bytes,
                words: words::words(&document.text).count() as u64,
                tokens,
            };
            entry(&mut counts.fertility, language).add(&of_this);
            entry(&mut counts.tokens, &document.origin.source).add(&of_this);
        }
    }
}
