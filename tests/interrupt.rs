//! Ctrl-C, SIGTERM and SIGKILL to what a person started: no process stays, and the same command goes on.

mod support;

use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::Value;
use support::job::{Job, write_corpus};
use support::place::Place;

/// The weights of [`Job::long`] when nothing disturbs it.
fn undisturbed() -> &'static Value {
    static WEIGHTS: OnceLock<Value> = OnceLock::new();
    WEIGHTS.get_or_init(|| {
        let place = Place::with(&Job::long());
        place.summary("run long.toml --local --workers 2 --out out")["weights_blake3"].clone()
    })
}

/// Resumes the run in `out`, and checks that the weights do not know of the interruption.
fn resumes(place: &Place) {
    let summary = place.summary("run long.toml --local --workers 2 --out out --resume");
    assert_eq!(summary["weights_blake3"], *undisturbed(), "{summary:#}");
    assert_eq!(
        (&summary["samples_missed"], &summary["samples_repeated"]),
        (&0.into(), &0.into()),
        "{summary:#}"
    );
    place.await_nobody();
}

/// Signals a run in the middle, which then stops its processes in order and says how to go on.
fn interrupted(signal: Signal) {
    let place = Place::with(&Job::long());
    let run = place.start("run long.toml --local --workers 2 --out out");
    place.await_step("out", 60);
    run.signal(signal);
    let ran = run.finish().code(130);
    place.await_nobody();
    let out = place.path("out").display().to_string();
    let ran = ran.says(&["stopped", "lockstep run long.toml", &out, "--resume"]);
    assert!(ran.out.is_empty(), "no result: {ran:#?}");
    assert!(
        !place.path("out/summary.json").exists(),
        "interrupted too late to matter"
    );
    resumes(&place);
}

#[test]
fn ctrl_c_in_the_middle_of_a_run() {
    interrupted(Signal::INT);
}

#[test]
fn sigterm_in_the_middle_of_a_run() {
    interrupted(Signal::TERM);
}

/// Nobody is left to stop the others: they notice by themselves.
#[test]
fn sigkill_to_a_run_leaves_no_orphans() {
    let place = Place::with(&Job::long());
    let run = place.start("run long.toml --local --workers 2 --out out");
    place.await_step("out", 60);
    assert!(
        place.processes().len() >= 5,
        "itself, coordinator, daemon, two ranks"
    );
    run.signal(Signal::KILL);
    assert_eq!(run.finish().signal, Some(9));
    place.await_nobody();
    resumes(&place);
}

/// The person's own process notices, says whose log to read, and takes the rest down with it.
#[test]
fn a_local_run_that_loses_its_coordinator_says_so() {
    let place = Place::with(&Job::long());
    let run = place.start("run long.toml --local --workers 2 --out out");
    place.await_step("out", 60);
    let all = place.processes();
    let coordinator = all
        .iter()
        .find(|process| process.command.contains("lockstep coordinator "));
    rustix::process::kill_process(coordinator.unwrap().pid, Signal::KILL).unwrap();
    let ran = run.finish().code(1);
    let log = place.path("out/logs/coordinator.log").display().to_string();
    ran.says(&["the coordinator process ended", "signal: 9", &log]);
    place.await_nobody();
    resumes(&place);
}

#[test]
fn ctrl_c_before_the_first_step() {
    let place = Place::with(&Job::long());
    std::fs::create_dir_all(place.path("out/logs")).unwrap();
    let run = place.start("run long.toml --local --workers 2 --out out");
    // The coordinator is there, the workers are only coming up.
    let log = place.path("out/logs/coordinator.log");
    let seen = |text: &str| text.contains("node connected").then_some(());
    support::system::await_text(&log, "the daemon's arrival", support::PATIENCE, seen);
    run.signal(Signal::INT);
    run.finish().code(130);
    place.await_nobody();
}

#[test]
fn ctrl_c_during_a_build_leaves_nothing() {
    let place = Place::new();
    write_corpus(&place.path("corpus"), 600, 40_000);
    let line = "data build --corpus corpus --out data --vocab-size 2000";
    let build = place.start(line);
    build.await_err(|line| line.contains('%'));
    build.signal(Signal::INT);
    build
        .finish()
        .code(130)
        .says(&["interrupted", "nothing was left behind"]);
    let mut left: Vec<_> = std::fs::read_dir(place.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["corpus"]);
    place.await_nobody();
}

#[test]
fn ctrl_c_to_a_follower_leaves_the_job_alone() {
    let place = Place::with(&Job::long());
    let coordinator = support::cluster::Coordinator::start(&place);
    let _worker = coordinator.worker(&place, "alpha", 2);
    let run = place.start(&format!(
        "run long.toml --out out --coordinator {}",
        coordinator.url
    ));
    place.await_step("out", 20);
    run.signal(Signal::INT);
    run.finish()
        .code(130)
        .says(&["detached", "`long` goes on", "lockstep cancel long"]);
    let done = |job: &lockstep_proto::wire::Job| job.state() == lockstep_proto::wire::JobState::Done;
    coordinator.await_job("long", "done", done);
    let summary: Value = serde_json::from_str(&place.read("out/summary.json")).unwrap();
    assert_eq!(summary["weights_blake3"], *undisturbed());
}
