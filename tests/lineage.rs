//! What saw a document is told from the ledger, and a run that was cut back tells no step twice.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::collections::BTreeMap;
use std::fs;

use lockstep_data::{Dataset, DocumentRecord, Part};
use lockstep_engine::order::SampleOrder;
use serde_json::Value;
use support::job::Job;
use support::place::Place;

/// Of [`Job`]: 8 microbatches of 2 sequences of 32 tokens, and the seed.
const PER_STEP: u64 = 16;
const LENGTH: u64 = 32;
const SEED: u64 = 7;

fn documents(place: &Place) -> Vec<DocumentRecord> {
    let dataset = Dataset::open(&place.dataset()).unwrap();
    dataset.documents().unwrap().map(Result::unwrap).collect()
}

/// Which steps of `steps` must have seen a document, with the positions: every position is looked at.
fn expected(place: &Place, document: &DocumentRecord, steps: u64) -> BTreeMap<u64, Vec<u64>> {
    let samples = Dataset::open(&place.dataset())
        .unwrap()
        .train()
        .samples(LENGTH as usize);
    let order = SampleOrder::new(samples, SEED);
    let mut seen: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for position in 0..steps * PER_STEP {
        let start = order.sample(position) * LENGTH;
        if (start..=start + LENGTH).any(|token| document.tokens.contains(&token)) {
            seen.entry(1 + position / PER_STEP).or_default().push(position);
        }
    }
    seen
}

/// What the verb says of the steps and positions that saw a document.
fn told(answer: &Value) -> BTreeMap<u64, Vec<u64>> {
    let array = |value: &Value| value.as_array().unwrap().clone();
    let steps = array(&answer["steps"]).into_iter().map(|saw| {
        let uses = array(&saw["uses"]);
        let positions = uses.iter().map(|used| used["position"].as_u64().unwrap());
        assert_eq!(saw["skipped"], false);
        (saw["step"].as_u64().unwrap(), positions.collect())
    });
    let all: Vec<(u64, Vec<u64>)> = steps.collect();
    let count = all.len();
    let told: BTreeMap<_, _> = all.into_iter().collect();
    assert_eq!(told.len(), count, "a step is told once: {answer:#}");
    told
}

fn ask(place: &Place, id: &str) -> Value {
    place
        .run(&format!("lineage --run out --document {id} -o json"))
        .code(0)
        .json()
}

/// The documents that the first step sees, one that is seen late, and one that is held out.
fn asked_about(place: &Place, steps: u64) -> Vec<DocumentRecord> {
    let all = documents(place);
    let train = || all.iter().filter(|document| document.split == Part::Train);
    let first = |document: &DocumentRecord| expected(place, document, steps).keys().next().copied();
    let early = train().find(|document| first(document) == Some(1));
    let late = train().find(|document| first(document).is_some_and(|step| step > 10));
    let held_out = all.iter().find(|document| document.split == Part::Validation);
    [early, late, held_out].into_iter().flatten().cloned().collect()
}

/// Checks checkpoints and exports against the first step that saw the document.
fn same_marks(answer: &Value, first: Option<u64>) {
    for (kind, least) in [("checkpoints", 1), ("exports", 1)] {
        let marks = answer[kind].as_array().unwrap();
        assert!(marks.len() >= least, "{kind} of {answer:#}");
        for mark in marks {
            let step = mark["step"].as_u64().unwrap();
            let saw = first.is_some_and(|first| first <= step);
            assert_eq!(mark["has_seen"], saw, "{kind} of step {step} in {answer:#}");
        }
    }
}

#[test]
fn a_document_is_followed_to_steps_checkpoints_and_exports() {
    let job = Job {
        keep: 0,
        min_workers: 2,
        ..Job::default()
    };
    let place = Place::with(&job);
    let run = place.start_held("run small.toml --local --workers 2 --out out", 15);
    place.await_checkpoint("out", 10);
    place.let_go();
    run.finish().code(0);
    for step in [10, 30] {
        place
            .run(&format!(
                "checkpoint export out/checkpoints/step-{step:08} --out model-{step}"
            ))
            .code(0);
    }
    let asked = asked_about(&place, 30);
    assert_eq!(asked.len(), 3, "{asked:#?}");
    for document in &asked {
        let answer = ask(&place, &document.id);
        let expected = match document.split {
            Part::Train => expected(&place, document, 30),
            Part::Validation => BTreeMap::new(),
        };
        assert_eq!(told(&answer), expected, "{document:?}");
        assert_eq!(answer["committed"], 30);
        same_marks(&answer, expected.keys().next().copied());
        let counted = answer["checkpoints"].as_array().unwrap();
        assert!(counted.iter().all(|mark| mark["counts"] == true), "{answer:#}");
        assert_eq!(answer["exports"][0]["exists"], true);
    }
    // The other way round.
    let step = place.run("lineage --run out --step 1 -o json").code(0).json();
    let seen = step["documents"].as_array().unwrap();
    let seen: Vec<&str> = seen
        .iter()
        .map(|document| document["id"].as_str().unwrap())
        .collect();
    let all = documents(&place);
    let train = all.iter().filter(|document| document.split == Part::Train);
    let expected: Vec<&str> = train
        .filter(|document| expected(&place, document, 1).contains_key(&1))
        .map(|document| document.id.as_str())
        .collect();
    assert_eq!(seen, expected);

    let text = place
        .run(&format!("lineage --run out --document {}", asked[2].id))
        .code(0)
        .out;
    assert!(text.contains("it is held out, no step trains on it"), "{text}");
    place.run("lineage --run out --document 0001.tx").code(2).says(&[
        "no document `0001.tx`",
        "the nearest are",
        "0001.txt",
    ]);
    place
        .run("lineage --run out")
        .code(2)
        .says(&["--document <ID>", "--step <N>"]);
}

#[test]
fn a_run_cut_back_by_a_resume_counts_no_step_twice() {
    let job = |min_workers| Job {
        steps: 120,
        min_workers,
        ..Job::long()
    };
    let place = Place::with(&job(2));
    let run = place.start_held("run long.toml --local --workers 2 --out out", 51);
    place.await_step("out", 50);
    place.await_checkpoint("out", 40);
    place.kill_all();
    assert_eq!(run.finish().signal, Some(9));
    place.await_nobody();
    place.write(&job(1));
    // As if an earlier version had begun the run.
    let ledger = place.read("out/ledger.jsonl");
    let later = ledger.lines().skip(10).map(|line| format!("{line}\n"));
    fs::write(place.path("out/ledger.jsonl"), later.collect::<String>()).unwrap();
    place
        .run("lineage --run out --step 20")
        .code(2)
        .says(&["ledger.jsonl lacks step 1 of ", "--resume"]);
    place.summary("run long.toml --local --workers 1 --out out --resume");
    place.run("checkpoint export out --out model").code(0);
    let ledger = place.read("out/ledger.jsonl");
    let cuts = ledger.lines().filter(|line| line.starts_with("{\"cut\":"));
    assert!(cuts.count() >= 1, "the run was cut back: {ledger}");
    for document in asked_about(&place, 120) {
        let answer = ask(&place, &document.id);
        let expected = match document.split {
            Part::Train => expected(&place, &document, 120),
            Part::Validation => BTreeMap::new(),
        };
        assert_eq!(told(&answer), expected, "{document:?}");
        assert_eq!(answer["committed"], 120);
        same_marks(&answer, expected.keys().next().copied());
    }

    // A writer that died in the middle of a line.
    fs::write(place.path("out/ledger.jsonl"), ledger + "{\"commit\":{\"st").unwrap();
    place
        .run("lineage --run out --step 120")
        .code(0)
        .says(&["note: the ledger's last line is not whole"]);
}
