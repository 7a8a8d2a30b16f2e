//! The tokenizer: one that is given, or one that learns from a sample of what is kept.

use std::path::Path;

use lockstep_data::tokenizer::{END_OF_TEXT, WordCounts};
use lockstep_data::{DataError, Tokenizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::kept::{Fate, Kept};
use super::run::Run;
use crate::error::CurateError;
use crate::records::{RecordWriter, Records, read_json, write_json};
use crate::spec::Stage;
use crate::work::{Key, Phase, TaskFile, Work};

const WORDS: &str = "words.jsonl.zst";
const SUMMARY: &str = "summary.json";
const TOKENIZER: &str = "tokenizer.json";
/// Which word of a digest decides whether a document teaches the tokenizer: not the one that decides what is held out.
const DRAW: usize = 2;

/// The tokenizer, and what it needs to be known of all documents before any is tokenized.
pub(super) struct Learned {
    /// None if no tokens are made.
    pub(super) tokenizer: Option<Tokenizer>,
    /// Documents whose digest draws less than this are held out.
    pub(super) held_out_below: u64,
    pub(super) key: Key,
}

/// What a task says of its documents.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Summary {
    /// The smallest draw of what is held out, and how many documents stay.
    smallest: Option<u64>,
    documents: u64,
}

/// A word and how often it occurs in the sample of a task.
type Word = (String, u64);

/// What a document draws for being held out.
pub(super) fn draw_held_out(digest: &lockstep_data::Digest) -> u64 {
    digest.word(0)
}

pub(super) fn run(run: &mut Run<'_>, work: &Work, kept: &Kept) -> Result<Learned, CurateError> {
    let spec = run.spec;
    let settings = &spec.tokenizer;
    let open = |path: &Path| {
        Tokenizer::open(path, &settings.end_of_text).map_err(|error| CurateError::Spec {
            path: None,
            problem: format!("tokenizer.path = {}: {error}", path.display()),
        })
    };
    let given = settings.path.as_deref().map(open).transpose()?;
    let given_json = given.as_ref().map(Tokenizer::to_json).transpose()?;
    let tokens = spec.runs(Stage::Tokenize);
    let fraction = spec.output.validation_fraction;
    let key = Key::new("sample", &(settings, &given_json, tokens, fraction), &[&kept.key])?;
    let stages = run.counts.stages.values();
    // What the last stage passed on, if not all, is a little less.
    let bytes = stages
        .map(|flow| flow.passed.bytes)
        .filter(|bytes| *bytes > 0)
        .min()
        .unwrap_or(1);
    // Of a document that is drawn, all is taken.
    let share = (settings.sample_bytes as f64 / bytes.max(1) as f64).min(1.0);
    let below = (share * u64::MAX as f64) as u64;
    let learns = tokens && given.is_none();
    let tasks = kept.documents.tasks();
    run.progress.enter("sample", kept.documents.count(), "documents");
    let phase = work.phase("sample", &key)?;
    let cost = |task| kept.documents.count_of(task);
    phase.run(tasks, run.progress, cost, |task, folder| {
        let mut counts = WordCounts::default();
        let mut summary = Summary::default();
        for fate in kept.fates(task)? {
            run.progress.check()?;
            run.progress.advance(1);
            let (_, Fate::Stays(document, _)) = fate? else {
                continue;
            };
            let draw = draw_held_out(&document.digest);
            summary.documents += 1;
            summary.smallest = Some(summary.smallest.map_or(draw, |smallest| smallest.min(draw)));
            let is_held_out = (draw as f64) < fraction * u64::MAX as f64;
            if learns && !is_held_out && document.digest.word(DRAW) <= below {
                counts.add(&document.text);
            }
        }
        let mut words = RecordWriter::<(&str, u64)>::create(folder.join(WORDS))?;
        for word in counts.sorted() {
            words.push(&word)?;
        }
        words.close()?;
        write_json(folder.join(SUMMARY), &summary)
    })?;
    let (mut smallest, mut documents) = (None::<u64>, 0);
    for task in 0..tasks {
        let summary: Summary = read_json(&phase.task(task).join(SUMMARY))?;
        documents += summary.documents;
        smallest = smallest.into_iter().chain(summary.smallest).min();
    }
    let mut held_out_below = (fraction * u64::MAX as f64) as u64;
    if let Some(smallest) = smallest.filter(|_| documents > 1) {
        // However few there are, one is held out.
        held_out_below = held_out_below.max(smallest.saturating_add(1));
    }
    let tokenizer = match given {
        _ if !tokens => None,
        Some(tokenizer) => Some(tokenizer),
        None => Some(learn(run, work, &key, &phase, tasks)?),
    };
    Ok(Learned {
        tokenizer,
        held_out_below,
        key,
    })
}

/// Learns from the sample.
fn learn(
    run: &mut Run<'_>,
    work: &Work,
    key: &Key,
    sample: &Phase,
    tasks: usize,
) -> Result<Tokenizer, CurateError> {
    run.progress.enter("train the tokenizer", 1, "tasks");
    let phase = work.phase("tokenizer", key)?;
    phase.run(
        1,
        run.progress,
        |_| 1,
        |_, folder| {
            let of_task = |task| -> Result<WordCounts, CurateError> {
                let mut counts = WordCounts::default();
                for word in Records::<Word>::open(&sample.task(task).join(WORDS))? {
                    counts.extend([word?]);
                }
                Ok(counts)
            };
            let counts = (0..tasks)
                .into_par_iter()
                .map(of_task)
                .try_reduce(WordCounts::default, |some, more| Ok(some.merged(more)))?;
            let tokenizer = Tokenizer::learn(&counts, run.spec.tokenizer.vocab_size).map_err(too_small)?;
            let mut file = TaskFile::create(folder.join(TOKENIZER))?;
            file.put(tokenizer.to_json()?.as_bytes())?;
            run.progress.advance(1);
            file.close()
        },
    )?;
    Ok(Tokenizer::open(&phase.task(0).join(TOKENIZER), END_OF_TEXT)?)
}

/// That a sample yields too few tokens, in the words of this spec rather than of a job's.
fn too_small(error: DataError) -> CurateError {
    let DataError::CorpusTooSmall {
        vocab_size,
        reached,
        sample_bytes,
    } = error
    else {
        return error.into();
    };
    CurateError::Spec {
        path: None,
        problem: format!(
            "tokenizer.vocab_size = {vocab_size}: the {sample_bytes} bytes of text that teach it yield {reached} \
             tokens; lower it to at most {reached}, raise tokenizer.sample_bytes, or add text"
        ),
    }
}
