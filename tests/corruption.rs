//! Bits that flip in a worker's memory, where no checksum sees them: the result is the same, and who did it is named.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use lockstep_proto::wire::{self, JobState};
use serde_json::Value;
use support::cluster::{Coordinator, faulty_worker};
use support::job::Job;
use support::place::Place;

fn is_done(job: &wire::Job) -> bool {
    assert_ne!(job.state(), JobState::Failed, "{job:#?}");
    job.state() == JobState::Done
}

/// Trains `job` with `alpha`, whose memory has this fault, and the `others`; returns what was said of corruption.
fn run(place: &Place, coordinator: &Coordinator, fault: &str, others: &[&str]) -> Vec<String> {
    let fault = format!("{fault};do=miscompute;once={}", place.path("flipped").display());
    let _alpha = faulty_worker(place, &coordinator.url, "alpha", &fault);
    let _others: Vec<_> = others
        .iter()
        .map(|name| coordinator.worker(place, name, 1))
        .collect();
    place
        .run(&format!(
            "submit small.toml --out out --coordinator {}",
            coordinator.url
        ))
        .code(0);
    coordinator.await_job("small", "done", is_done);
    let events = place.events("out").into_iter();
    events
        .filter(|(kind, _)| kind == "corruption")
        .map(|(_, text)| text)
        .collect()
}

fn place(workers: u32, more: &str) -> (Place, Value) {
    let place = Place::with(&Job {
        min_workers: workers,
        more: more.to_owned(),
        ..Job::default()
    });
    // The minimum is of no interest to one machine's own workers.
    let undisturbed = place.summary(&format!(
        "run small.toml --local --workers {workers} --out undisturbed"
    ));
    (place, undisturbed)
}

#[test]
fn of_three_the_odd_one_is_named_and_its_slot_quarantined_when_it_is_caught_twice() {
    let (place, undisturbed) = place(2, "");
    let coordinator = Coordinator::start(&place);
    let said = run(&place, &coordinator, "point=reduced;times=2", &["beta", "gamma"]);
    place.same_as(&undisturbed, "out");
    let differ = said
        .iter()
        .filter(|text| text.contains("differ: alpha/0 is the odd one"));
    assert_eq!(differ.count(), 2, "{said:#?}");
    let strikes: Vec<_> = said.iter().filter(|text| text.contains("was caught")).collect();
    assert_eq!(strikes.len(), 2, "{said:#?}");
    for (strike, count) in strikes.iter().zip(1..) {
        let text = format!(
            "alpha/0 was caught: its result of the step was wrong the first time (strike {count} of 2)"
        );
        assert_eq!(**strike, text);
    }
    let last = place.events("out").into_iter().rfind(|(kind, _)| kind == "epoch");
    assert!(last.is_some_and(|(_, text)| text.contains("2 workers (beta/0, gamma/0)")));
    // Nothing is placed there any more, whatever process offers it.
    let nodes = place
        .run(&format!("nodes --coordinator {} -o json", coordinator.url))
        .code(0)
        .json();
    let alpha = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["node"] == "alpha");
    assert_eq!(alpha.unwrap()["quarantined"], 1, "{nodes:#}");
}

#[test]
fn of_two_it_is_the_step_s_second_computation_that_decides() {
    let (place, undisturbed) = place(2, "");
    let coordinator = Coordinator::start(&place);
    let said = run(&place, &coordinator, "point=reduced;step=7", &["beta"]);
    place.same_as(&undisturbed, "out");
    assert_eq!(
        said,
        [
            "digests of step 7 differ: no majority",
            "alpha/0 was caught: its result of the step was wrong the first time (strike 1 of 2)",
        ]
    );
}

/// A bit of the weights flips in step 13; they are compared after the checkpoint of step 10, and before step 16. Steps 14
/// and 15 are everybody's, with wrong gradients in them.
fn wrong_weights(workers: u32, others: &[&str], expected: &[&str]) {
    let (place, undisturbed) = place(workers, "[guard]\ncompare_weights_every = 16");
    let coordinator = Coordinator::start(&place);
    let said = run(&place, &coordinator, "point=applied;step=13", others);
    place.same_as(&undisturbed, "out");
    assert_eq!(said, expected);
    let last = place.events("out").into_iter().rfind(|(kind, _)| kind == "epoch");
    let (_, last) = last.unwrap();
    // Steps take a millisecond: the checkpoint may not be whole yet, and then the job begins anew.
    let before = [
        "resuming from the checkpoint of step 10",
        "starting from the seed",
    ];
    assert!(before.iter().any(|from| last.contains(from)), "{last}");
}

#[test]
fn what_came_of_wrong_weights_is_taken_back_among_three() {
    let said = [
        "the weights before step 16 differ: alpha/0 is the odd one",
        "alpha/0 was caught: its weights differ from everyone else's (strike 1 of 2)",
    ];
    wrong_weights(3, &["beta", "gamma"], &said);
}

#[test]
fn what_came_of_wrong_weights_is_taken_back_among_two() {
    wrong_weights(2, &["beta"], &["the weights before step 16 differ: no majority"]);
}

#[test]
fn weights_that_go_wrong_in_the_last_step_are_found_in_the_end() {
    let (place, undisturbed) = place(2, "[guard]\ncompare_weights_every = 0");
    let coordinator = Coordinator::start(&place);
    let said = run(&place, &coordinator, "point=applied;step=30", &["beta"]);
    place.same_as(&undisturbed, "out");
    assert_eq!(said[0], "the weights before step 31 differ: no majority");
    assert!(said[1].starts_with("alpha/0 was caught"), "{said:?}");
}
