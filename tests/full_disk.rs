//! A disk without room, and room again: nobody has to do more than that, and not a bit changes. Root only.

mod support;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use lockstep_proto::wire;
use lockstep_proto::wire::JobState;
use serde_json::Value;
use support::cluster::Coordinator;
use support::disk::Disk;
use support::job::Job;
use support::place::Place;

/// Room for a run of [`job`] with its checkpoints, or for its store.
const ROOM: u64 = 32 << 20;

/// Long enough for somebody to join while it runs.
fn job() -> Job {
    Job {
        steps: 600,
        every: 100,
        ..Job::long()
    }
}

/// The weights of [`job`] when one worker trains it, undisturbed.
fn undisturbed() -> &'static Value {
    static WEIGHTS: OnceLock<Value> = OnceLock::new();
    WEIGHTS.get_or_init(|| {
        let place = Place::with(&job());
        let summary = place.summary("run long.toml --local --workers 1 --out out");
        summary["weights_blake3"].clone()
    })
}

fn is_done(job: &wire::Job) -> bool {
    assert_ne!(job.state(), JobState::Failed, "{job:#?}");
    job.state() == JobState::Done
}

/// Whether the job goes on, or waits, and says these words.
fn says(words: &'static str) -> impl Fn(&wire::Job) -> bool {
    move |job| {
        assert!(!is_done(job), "it is over before it said `{words}`: {job:#?}");
        job.reason.contains(words)
    }
}

/// Each step has its line, in order, and no line of the run's folder is torn; every sample counts once, and the weights
/// are those of the undisturbed run.
#[expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
fn nothing_is_lost(out: &Path) {
    let lines = |file: &str| -> Vec<Value> {
        let text = fs::read_to_string(out.join(file)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let steps: Vec<u64> = lines("metrics.jsonl")
        .iter()
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=job().steps).collect::<Vec<_>>());
    assert!(!lines("events.jsonl").is_empty());
    let summary = fs::read_to_string(out.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["weights_blake3"], *undisturbed(), "{summary:#}");
    let steps = job().steps;
    for (field, count) in [
        ("steps", steps),
        ("samples", steps * 16),
        ("samples_missed", 0),
        ("samples_repeated", 0),
    ] {
        assert_eq!(summary[field], count, "{summary:#}");
    }
}

#[test]
fn a_run_whose_folder_is_full_goes_on_and_ends_once_there_is_room() {
    let Some(disk) = Disk::new(ROOM) else { return };
    let place = Place::with(&job());
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    let _workers = ["alpha", "beta"].map(|name| coordinator.worker(&place, name, 1));
    let out = disk.path().join("out");
    place
        .run(&format!("submit long.toml --out {} {at}", out.display()))
        .code(0);
    place.await_step(&out.display().to_string(), 50);
    disk.fill();
    coordinator.await_job(
        "long",
        "at its end",
        says("the last checkpoint cannot be written"),
    );
    let status = place.run(&format!("status long {at}")).code(0);
    assert!(status.out.contains("no space left"), "{status:#?}");
    let events = place.run(&format!("events long {at}")).code(0);
    let storage = events
        .out
        .lines()
        .filter(|line| line.contains(r#""kind":"storage""#));
    let full: Vec<&str> = storage.filter(|line| line.contains("metrics.jsonl")).collect();
    assert_eq!(full.len(), 1, "it is told once: {events:#?}");
    disk.free();
    coordinator.await_job("long", "done", is_done);
    nothing_is_lost(&out);
    place.run(&format!("checkpoint verify {}", out.display())).code(0);
}

#[test]
fn a_store_that_is_full_lets_training_go_on_until_the_membership_changes_and_then_waits() {
    let Some(disk) = Disk::new(ROOM) else { return };
    let place = Place::with(&job());
    let coordinator = Coordinator::start_in(&place, &disk.path().join("state"));
    let at = format!("--coordinator {}", coordinator.url);
    // Alone, it has no reason to change the membership.
    let _alpha = coordinator.worker(&place, "alpha", 1);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    place.await_step("out", 50);
    disk.fill();
    let from = coordinator.await_job("long", "kept waiting", says("records are kept"));
    place.await_step("out", from.step + 10);
    let _beta = coordinator.worker(&place, "beta", 1);
    // The epoch of two waits to be stored, unless the store has just room for something so small.
    let waits = coordinator.await_job("long", "in another epoch", |job| {
        !is_done(job) && job.epoch > from.epoch && job.reason.contains("the store has no space")
    });
    assert_eq!(waits.state(), JobState::Running, "{waits:#?}");
    disk.free();
    coordinator.await_job("long", "done", is_done);
    nothing_is_lost(&place.path("out"));
}
