//! The verb on a run made by hand: its answers against trying every position.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use lockstep_coordinator::ledger_log::LedgerLog;
use lockstep_data::{BuildOptions, Corpus, Dataset, DocumentRecord, Part};
use lockstep_engine::ids::{Epoch, Step, WorkerId};
use lockstep_engine::ledger::{Change, Entry, Span};
use lockstep_engine::order::SampleOrder;
use lockstep_engine::spec::Spec;
use tempfile::TempDir;

use super::source::Source;
use super::{document, step};
use crate::exports::Exports;

const LENGTH: u64 = 32;
const PER_STEP: u64 = 16;
/// More than one pass over the data.
const STEPS: u64 = 60;
const SEED: u64 = 7;
const SKIPPED: u64 = 3;

/// A dataset in `data` and a run over it in `run`.
struct Made {
    root: TempDir,
    dataset: Dataset,
}

impl Made {
    /// A run that went to step 20, made a checkpoint that was exported, went back to 10 and on to its end, with
    /// another checkpoint and export on the way.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let corpus = root.path().join("corpus");
        fs::create_dir(&corpus).unwrap();
        for i in 0..40u64 {
            let words = (0..60).map(|word| format!("word{} ", (word * (i + 3)) % 50));
            fs::write(corpus.join(format!("{i:02}.txt")), words.collect::<String>()).unwrap();
        }
        let data = root.path().join("data");
        let mut options = BuildOptions::new(Corpus::Folder(corpus), &data, 300);
        options.validation_fraction = 0.1;
        lockstep_data::build(&options, &mut |_| (), &false.into()).unwrap();
        let made = Self {
            dataset: Dataset::open(&data).unwrap(),
            root,
        };
        fs::create_dir(made.run()).unwrap();
        let spec = format!(
            "[job]\nname = \"made\"\n[data]\ndataset = {data:?}\n[model]\npreset = \"nano\"\nvocab_size = 300\n\
             max_position_embeddings = {LENGTH}\n[train]\nsteps = {STEPS}\nseed = {SEED}\n\
             [batch]\nmicrobatches = 8\nsequences = 2\nsequence_length = {LENGTH}\n"
        );
        assert_eq!(Spec::parse(&spec).unwrap().samples_per_step(), PER_STEP);
        fs::write(made.run().join("spec.toml"), spec).unwrap();
        let steps = |steps: Range<u64>, epoch| steps.map(move |step| Change::Append(entry(step, epoch)));
        let mut changes: Vec<Change> = steps(1..21, 1).collect();
        changes.extend([
            Change::Checkpoint(Step(20), "early".into()),
            Change::Truncate(Step(10)),
        ]);
        changes.extend(steps(11..STEPS + 1, 2));
        changes.push(Change::Checkpoint(Step(10), "late".into()));
        LedgerLog::open(&made.run()).unwrap().append(&changes).unwrap();
        for (step, weights) in [(20, "early"), (10, "late"), (1, "unheard of")] {
            let exports = Exports::open(&made.run()).unwrap();
            exports.record(step, &made.run().join(weights), weights).unwrap();
        }
        made
    }

    fn run(&self) -> PathBuf {
        self.root.path().join("run")
    }

    fn source(&self) -> Source {
        Source::open(&self.run(), None).unwrap()
    }

    fn documents(&self) -> Vec<DocumentRecord> {
        self.dataset.documents().unwrap().map(Result::unwrap).collect()
    }

    /// The positions that `step` uses and whose window of tokens has one of `tokens`: each looked at.
    fn positions(&self, step: u64, tokens: &Range<u64>) -> Vec<u64> {
        let samples = (self.dataset.train().tokens() - 1) / LENGTH;
        let order = SampleOrder::new(samples, SEED);
        let positions = (step - 1) * PER_STEP..step * PER_STEP;
        let holds = |position: &u64| {
            let start = order.sample(*position) * LENGTH;
            (start..=start + LENGTH).any(|token| tokens.contains(&token))
        };
        positions.filter(holds).collect()
    }
}

fn entry(step: u64, epoch: u64) -> Entry {
    let worker = WorkerId {
        node: "n".parse().unwrap(),
        slot: 0,
        incarnation: 1,
    };
    Entry {
        step: Step(step),
        epoch: Epoch(epoch),
        workers: 1,
        digest: format!("{step}"),
        loss: 1.0,
        spans: vec![Span {
            positions: (step - 1) * PER_STEP..step * PER_STEP,
            worker,
        }],
        milliseconds: 1.0,
        skipped: step == SKIPPED,
        unseen_to: None,
    }
}

#[test]
fn every_document_is_where_trying_all_positions_finds_it() {
    let made = Made::new();
    let source = made.source();
    assert!(STEPS * PER_STEP > 2 * source.dataset.train().samples(LENGTH as usize));
    let (mut held_out, mut skipped) = (0, 0);
    for document in made.documents() {
        let answer = document::Answer::of(&source, &document.id).unwrap();
        assert_eq!(answer.document, document);
        assert_eq!(answer.committed, Step(STEPS));
        let expected: Vec<(u64, Vec<u64>)> = match document.split {
            Part::Train => (1..=STEPS)
                .map(|step| (step, made.positions(step, &document.tokens)))
                .filter(|(_, positions)| !positions.is_empty())
                .collect(),
            Part::Validation => Vec::new(),
        };
        held_out += u32::from(document.split == Part::Validation);
        let json = serde_json::to_value(&answer).unwrap();
        let numbers = |values: &serde_json::Value, field: &str| -> Vec<u64> {
            let values = values.as_array().unwrap();
            values
                .iter()
                .map(|value| value[field].as_u64().unwrap())
                .collect()
        };
        let found: Vec<(u64, Vec<u64>)> = json["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|saw| (saw["step"].as_u64().unwrap(), numbers(&saw["uses"], "position")))
            .collect();
        assert_eq!(found, expected, "{}", document.id);
        let first = expected
            .iter()
            .map(|(step, _)| *step)
            .find(|step| *step != SKIPPED);
        assert_eq!(answer.first_step, first.map(Step));
        skipped += u32::from(answer.steps.iter().any(|saw| saw.skipped));
        // Steps 1 to 10 are the same before and after the run went back.
        let saw_by = |last: u64| first.is_some_and(|first| first <= last);
        let exports: Vec<bool> = answer.exports.iter().map(|saw| saw.has_seen).collect();
        assert_eq!(exports, [saw_by(20), saw_by(10), saw_by(1)]);
        let checkpoints = answer.checkpoints.iter();
        let checkpoints: Vec<_> = checkpoints.map(|c| (c.step.0, c.counts, c.has_seen)).collect();
        assert_eq!(checkpoints, [(10, true, saw_by(10)), (20, false, saw_by(20))]);
    }
    assert!(held_out > 0 && skipped > 0, "both kinds are tested");
}

#[test]
fn a_step_saw_the_documents_that_saw_the_step() {
    let made = Made::new();
    let source = made.source();
    for number in [1, SKIPPED, STEPS] {
        let answer = step::Answer::of(&source, number).unwrap();
        let found: Vec<(String, usize)> = answer
            .documents
            .iter()
            .map(|saw| (saw.document.id.clone(), saw.seen.len()))
            .collect();
        let of_train = made.documents().into_iter().filter(|d| d.split == Part::Train);
        let expected: Vec<(String, usize)> = of_train
            .map(|document| (document.id, made.positions(number, &document.tokens).len()))
            .filter(|(_, positions)| *positions > 0)
            .collect();
        assert_eq!(found, expected, "step {number}");
        let told = format!("step {number} saw {} documents", expected.len());
        assert!(answer.text().starts_with(&told), "{}", answer.text());
    }
    let error = step::Answer::of(&source, STEPS + 1).unwrap_err().to_string();
    assert_eq!(error, "--step 61: the run has committed 60 steps, counted from 1");
}

#[test]
fn people_read_the_first_steps_of_many() {
    let made = Made::new();
    let source = made.source();
    let longest = made.documents().into_iter().filter(|d| d.split == Part::Train);
    let longest = longest.max_by_key(|d| d.tokens.end - d.tokens.start).unwrap();
    let answer = document::Answer::of(&source, &longest.id).unwrap();
    let text = answer.text();
    let line = |name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    let steps = line("steps");
    let first: Vec<String> = answer
        .steps
        .iter()
        .take(20)
        .map(|saw| saw.step.to_string())
        .collect();
    assert!(answer.steps.len() > 20);
    assert!(steps.ends_with(&format!(": {}, …", first.join(", "))), "{text}");
    assert!(line("licence").ends_with("not known"));
    assert!(
        text.contains("early (gone)"),
        "nothing was really exported: {text}"
    );

    let held_out = made
        .documents()
        .into_iter()
        .find(|d| d.split == Part::Validation)
        .unwrap();
    let text = document::Answer::of(&source, &held_out.id).unwrap().text();
    assert!(
        text.contains("none: it is held out, no step trains on it"),
        "{text}"
    );
}

#[test]
fn what_is_not_there_is_told_with_what_to_do() {
    let made = Made::new();
    let error = document::Answer::of(&made.source(), "7.txt")
        .unwrap_err()
        .to_string();
    assert!(error.contains("no document `7.txt`; the nearest are "), "{error}");
    assert!(error.contains("07.txt"), "{error}");
    let error = document::Answer::of(&made.source(), "corpus")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`corpus` stands for 40 documents; give one by its id"),
        "{error}"
    );

    let refused = |run: PathBuf| format!("{:#}", Source::open(&run, None).unwrap_err());
    let error = refused(made.root.path().join("nowhere"));
    assert!(
        error.contains("nowhere: no such run; give the folder that `run` calls --out"),
        "{error}"
    );
    assert!(refused(made.root.path().into()).contains("no ledger.jsonl in it"));

    let ledger = made.run().join("ledger.jsonl");
    let whole = fs::read_to_string(&ledger).unwrap();
    fs::write(&ledger, whole.split_once('\n').unwrap().1).unwrap();
    let error = refused(made.run());
    assert!(error.contains("ledger.jsonl lacks step 1 of 60"), "{error}");
    fs::write(&ledger, whole).unwrap();

    let moved = made.root.path().join("moved");
    fs::rename(made.root.path().join("data"), &moved).unwrap();
    let error = refused(made.run());
    assert!(
        error.contains("say where with --dataset") && error.contains("not a dataset"),
        "{error}"
    );
    Source::open(&made.run(), Some(&moved)).unwrap();
}
