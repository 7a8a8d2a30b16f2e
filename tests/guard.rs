//! Steps that would do harm: stopped, skipped or rolled back, and the same whoever dies meanwhile.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use serde_json::Value;
use support::job::Job;
use support::place::Place;

/// A job whose loss is a spike sooner or later: its steps become far too wide.
fn wild(policy: &str) -> Job {
    Job {
        name: "wild",
        steps: 60,
        learning_rate: 3.0,
        more: format!("[schedule]\nwarmup_steps = 40\n[guard]\nbad_step = \"{policy}\"\nspike_factor = 1.3"),
        ..Job::default()
    }
}

fn bad_steps(place: &Place, out: &str) -> Vec<String> {
    let events = place.events(out).into_iter();
    events
        .filter(|(kind, _)| kind == "bad_step")
        .map(|(_, text)| text)
        .collect()
}

/// Runs it undisturbed with one worker and with three of which some are killed; both must decide the same.
fn disturbed_or_not(policy: &str) -> (Vec<String>, Value) {
    let place = Place::with(&wild(policy));
    let alone = place.summary("run wild.toml --local --workers 1 --out alone");
    let bad = bad_steps(&place, "alone");
    assert!(
        !bad.is_empty(),
        "it has bad steps: {}",
        place.read("alone/metrics.jsonl")
    );
    let kills = "--kill 1@12 --kill 2@31 --kill 0@45";
    let disturbed = place.summary(&format!(
        "run wild.toml --local --workers 3 --out disturbed {kills}"
    ));
    assert!(disturbed["kills"].as_u64().unwrap() > 0, "{disturbed:#}");
    place.same_as(&alone, "disturbed");
    assert_eq!(bad, bad_steps(&place, "disturbed"));
    place.await_nobody();
    (bad, alone)
}

#[test]
fn a_spike_stops_the_job_and_says_what_to_do() {
    let place = Place::with(&wild("stop"));
    place
        .run("run wild.toml --local --workers 2 --out out")
        .code(1)
        .says(&[
            "wild failed: step ",
            "its loss is ",
            "lower optim.learning_rate, look at the data, or set guard.bad_step to \"skip\" or \"rollback\"",
        ]);
    place.await_nobody();
}

#[test]
fn the_gradient_of_a_spike_is_thrown_away_whoever_dies() {
    let (bad, _) = disturbed_or_not("skip");
    assert!(bad[0].contains("its gradient is thrown away"), "{bad:?}");
}

#[test]
fn a_spike_is_rolled_back_whoever_dies() {
    let (bad, summary) = disturbed_or_not("rollback");
    assert!(summary["steps_skipped"].as_u64().unwrap() > 0, "{summary:#}");
    assert!(bad[0].contains("back to the state after step "), "{bad:?}");
    assert_eq!(summary["steps"], 60, "{summary:#}");
}
