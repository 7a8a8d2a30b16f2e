//! What is left of a run that was cut off is enough to go on from, and what does not belong is refused.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lockstep_proto::wire::JobState;
use serde_json::Value;
use support::cluster::{Coordinator, faulty_worker};
use support::job::Job;
use support::place::Place;
use support::process::Process;

/// The summary of [`Job::long`] when nothing disturbs it.
fn undisturbed() -> &'static Value {
    static SUMMARY: OnceLock<Value> = OnceLock::new();
    SUMMARY.get_or_init(|| {
        let place = Place::with(&Job::long());
        place.summary("run long.toml --local --workers 2 --out out")
    })
}

fn same_weights(summary: &Value) {
    assert_eq!(
        summary["weights_blake3"],
        undisturbed()["weights_blake3"],
        "{summary:#}"
    );
    for field in ["steps", "tokens", "samples", "samples_missed", "samples_repeated"] {
        assert_eq!(summary[field], undisturbed()[field], "{field} of {summary:#}");
    }
}

/// A place where a run of [`Job::long`] was cut off after these steps, all its processes at once: first after the first,
/// and resumed after each of the others. The last checkpoint that was due before is there each time.
fn cut_off(workers: u32, steps: &[u64]) -> Place {
    // Nobody is left behind, so that all wait for the one that is held.
    let place = Place::with(&Job {
        min_workers: workers,
        ..Job::long()
    });
    let line = format!("run long.toml --local --workers {workers} --out out");
    for (time, &step) in steps.iter().enumerate() {
        let resume = ["", " --resume"][usize::from(time > 0)];
        let run = place.start_held(&format!("{line}{resume}"), step + 1);
        place.await_step("out", step);
        place.await_file("held");
        let due = step / 40 * 40;
        if due > 0 {
            place.await_checkpoint("out", due);
        }
        place.kill_all();
        assert_eq!(run.finish().signal, Some(9));
        place.await_nobody();
        // The next one is held anew.
        fs::remove_file(place.path("held")).unwrap();
    }
    assert!(
        !place.path("out/summary.json").exists(),
        "cut off too late to matter"
    );
    place.write(&Job::long());
    place
}

#[test]
fn everything_killed_at_once_resumes_to_the_same_weights() {
    let place = cut_off(4, &[90]);
    // The folder is used: only --resume goes on in it.
    place
        .run("run long.toml --local --workers 4 --out out")
        .code(2)
        .says(&["holds checkpoints of an earlier run", "--resume"]);
    let summary = place.summary("run long.toml --local --workers 4 --out out --resume");
    place.await_nobody();
    same_weights(&summary);
    let events = place.read("out/events.jsonl");
    let resumed = events
        .lines()
        .filter_map(|line| line.split("resuming from the checkpoint of step ").nth(1));
    let from: Vec<u64> = resumed
        .map(|rest| rest.split(['"', ',', ' ']).next().unwrap().parse().unwrap())
        .collect();
    // The job that was cut off may have begun again before it was replaced.
    assert!(matches!(from[..], [.., 80..240]), "{from:?} in {events}");
    place.run("checkpoint verify out").code(0);
}

#[test]
fn another_number_of_workers_goes_on_where_the_first_left() {
    let place = cut_off(3, &[50]);
    same_weights(&place.summary("run long.toml --local --workers 1 --out out --resume"));
}

#[test]
fn cut_off_before_the_first_checkpoint_starts_over() {
    let place = cut_off(2, &[3]);
    same_weights(&place.summary("run long.toml --local --workers 2 --out out --resume"));
}

/// The run's checkpoints, oldest first.
fn checkpoints(place: &Place) -> Vec<PathBuf> {
    let folders = fs::read_dir(place.path("out/checkpoints")).unwrap();
    let mut checkpoints: Vec<_> = folders
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("step-"))
        .collect();
    checkpoints.sort();
    assert!(checkpoints.len() > 1, "an older one to fall back on");
    checkpoints
}

/// Flips a bit of a file and returns its bytes as they are now.
fn damage(file: &Path) -> Vec<u8> {
    let mut bytes = fs::read(file).unwrap();
    let place = bytes.len() * 2 / 3;
    bytes[place] ^= 0x10;
    fs::write(file, &bytes).unwrap();
    bytes
}

/// Looks for what a rank says of the newest checkpoint, and for the older one that the run went on from at last.
fn passed_over(place: &Place, [older, newest]: &[PathBuf; 2]) -> String {
    let log = place.read("out/workers.log");
    let warning = log.lines().find(|line| line.contains("skipped: "));
    let warning = warning.unwrap_or_else(|| panic!("nothing was skipped: {log}"));
    let name = newest.file_name().unwrap().to_str().unwrap();
    assert!(warning.contains(name), "{warning}");
    let older = older.file_name().unwrap().to_str().unwrap();
    let step: u64 = older.trim_start_matches("step-").parse().unwrap();
    let events = place.events("out");
    let resumed = events
        .iter()
        .rev()
        .find(|(_, text)| text.contains("resuming from "));
    let (_, resumed) = resumed.unwrap_or_else(|| panic!("it did not resume: {events:#?}"));
    let from = format!("resuming from the checkpoint of step {step}");
    assert!(resumed.contains(&from), "{from}: {events:#?}");
    warning.to_owned()
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over() {
    let place = cut_off(2, &[50, 130]);
    let checkpoints = checkpoints(&place);
    let last = checkpoints.last_chunk().unwrap();
    let bytes = damage(&last[1].join("shard-1-of-2.safetensors"));
    same_weights(&place.summary("run long.toml --local --workers 2 --out out --resume"));
    let warning = passed_over(&place, last);
    for word in [
        "shard-1-of-2.safetensors has digest",
        &blake3::hash(&bytes).to_hex(),
        "expected",
    ] {
        assert!(warning.contains(word), "`{word}`: {warning}");
    }
}

#[test]
fn a_checkpoint_that_is_damaged_after_it_was_verified_is_passed_over_too() {
    let place = cut_off(1, &[50, 130]);
    let checkpoints = checkpoints(&place);
    let last = checkpoints.last_chunk().unwrap();
    let mut resume = place.command("run long.toml --local --workers 1 --out out --resume -o json");
    resume.env(lockstep_faults::VARIABLE, place.hold("point=before-load"));
    let resume = Process::start(&mut resume);
    place.await_file("held");
    damage(&last[1].join("shard-1-of-1.safetensors"));
    place.let_go();
    same_weights(&resume.finish().code(0).json());
    passed_over(&place, last);
    let log = place.read("out/workers.log");
    assert!(log.contains("looking for another one"), "{log}");
}

/// Torn as by a machine that lost power: the manifest is cut short.
#[test]
fn a_torn_newest_checkpoint_is_passed_over_and_the_ledger_cut_back() {
    let place = cut_off(3, &[50, 130]);
    let checkpoints = checkpoints(&place);
    let last = checkpoints.last_chunk().unwrap();
    let manifest = last[1].join("manifest.json");
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
    let run = place.start_held(
        "run long.toml --local --workers 1 --out out --resume -o json",
        131,
    );
    // It is written anew, and not given up because the next one is due.
    place.await_events("out", "another checkpoint of step 120", |events| {
        let complete =
            |(_, text): &&(String, String)| text.starts_with("the checkpoint of step 120 is complete");
        (events.iter().filter(complete).count() == 2).then_some(())
    });
    place.let_go();
    same_weights(&run.finish().code(0).json());
    passed_over(&place, last);
    place.run("checkpoint verify out").code(0);
}

/// Copies are on another disk; with them, and the coordinator's ledger, a run goes on in a folder that has nothing.
#[test]
fn a_run_goes_on_from_copies_elsewhere() {
    let place = Place::new();
    let job = Job {
        target: Some(place.path("copies")),
        min_workers: 2,
        ..Job::long()
    };
    place.write(&job);
    fs::create_dir(place.path("copies")).unwrap();
    let coordinator = Coordinator::start(&place);
    let at = format!("--coordinator {}", coordinator.url);
    let _alpha = faulty_worker(&place, &coordinator.url, "alpha", &place.hold_before(60));
    let _beta = coordinator.worker(&place, "beta", 1);
    place.run(&format!("submit long.toml --out out {at}")).code(0);
    place.await_checkpoint("out", 40);
    place.await_file("copies/step-00000040");
    place.await_file("copies/step-00000040/manifest.json");
    place.run(&format!("cancel long {at}")).code(0);
    place.await_none_like(" rank ");
    fs::remove_dir_all(place.path("out")).unwrap();
    place
        .run(&format!("submit long.toml --out anew --resume {at}"))
        .code(0);
    let done = coordinator.await_job("long", "done", |job| job.state() == JobState::Done);
    same_weights(&serde_json::from_str(&done.summary).unwrap());
    let resumed = place.await_event("anew", "epoch", "resuming from the checkpoint of step ");
    assert!(!resumed.contains("step 0"), "{resumed}");
    place.await_none_like(" rank ");
    place.run("checkpoint verify copies/step-00000240").code(0);
}

#[test]
fn a_changed_spec_is_not_resumed() {
    let place = cut_off(2, &[60]);
    let spec = place.read("long.toml");
    for (from, to) in [
        ("seed = 7", "seed = 8"),
        ("learning_rate = 0.01", "learning_rate = 0.02"),
    ] {
        let changed = spec.replace(from, to);
        assert_ne!(changed, spec, "{from}");
        fs::write(place.path("long.toml"), changed).unwrap();
        let ran = place.run("run long.toml --local --workers 2 --out out --resume");
        ran.code(1).says(&[
            "long failed",
            "out/checkpoints/step-",
            "the configuration is",
            "resume with the run's own spec",
        ]);
        place.await_nobody();
    }
    // What was refused did no harm.
    fs::write(place.path("long.toml"), spec).unwrap();
    same_weights(&place.summary("run long.toml --local --workers 2 --out out --resume"));
}

#[test]
fn a_finished_run_resumed_ends_at_once_with_the_same_weights() {
    let place = Place::with(&Job::default());
    let first = place.summary("run small.toml --local --workers 2 --out out");
    place
        .run("run small.toml --local --workers 2 --out out")
        .code(2)
        .says(&["holds checkpoints of an earlier run", "--resume"]);
    let steps = || place.read("out/metrics.jsonl").lines().count();
    let before = steps();
    let again = place.summary("run small.toml --local --workers 2 --out out --resume");
    assert_eq!(again["weights_blake3"], first["weights_blake3"]);
    assert_eq!(
        (&again["samples"], &again["samples_repeated"]),
        (&first["samples"], &0.into())
    );
    assert_eq!(steps(), before, "nothing is trained again");
    place.await_nobody();
}

#[test]
fn nothing_to_resume_says_so() {
    let place = Place::with(&Job::default());
    place
        .run("run small.toml --local --workers 2 --out out --resume")
        .code(2)
        .says(&["nothing to resume", "without --resume"]);
    place.await_nobody();
}
