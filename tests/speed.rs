//! `bench memory` and `bench scaling`: what is asked for is what is measured, in as many rounds.

mod support;

use serde_json::Value;
use support::job::{Job, VOCABULARY};
use support::place::Place;

/// What the verb measures of two rounds over a spec of two lanes.
fn measured(verb: &str) -> Value {
    let place = Place::with(&Job::default());
    let dataset = place.dataset();
    let line = format!(
        "bench {verb} --spec small.toml --dataset {} --steps 3 --rounds 2 --ranks 2 -o json",
        dataset.display()
    );
    let ran = place.run(&line).code(0);
    place.await_nobody();
    let found = ran.json();
    assert_eq!(
        (&found["model"], &found["ranks"]),
        (&"small.toml".into(), &2.into()),
        "{found:#}"
    );
    found
}

#[test]
fn the_peak_of_every_rank_stands_beside_its_plan() {
    let memory = measured("memory");
    let peaks = memory["peaks"].as_array().unwrap();
    let of: Vec<&str> = peaks.iter().map(|peak| peak["of"].as_str().unwrap()).collect();
    assert_eq!(
        of,
        ["a process alone", "rank 0 of 2", "rank 1 of 2"],
        "{memory:#}"
    );
    for peak in peaks {
        let measured = peak["measured_bytes"].as_array().unwrap();
        assert_eq!(measured.len(), 2, "{memory:#}");
        // Of a model of so few parameters: its weights at least, and no more than a program of ours takes.
        let range = VOCABULARY as u64 * 4..256 << 20;
        assert!(
            measured
                .iter()
                .all(|bytes| range.contains(&bytes.as_u64().unwrap())),
            "{memory:#}"
        );
    }
    assert!(
        peaks[1]["planned_bytes"].as_u64() > peaks[0]["planned_bytes"].as_u64(),
        "{memory:#}"
    );
}

#[test]
fn what_a_rank_keeps_of_its_speed_is_measured_round_by_round() {
    let scaling = measured("scaling");
    for figures in ["one", "many", "kept"] {
        let rounds = scaling[figures].as_array().unwrap();
        assert!(
            rounds.len() == 2 && rounds.iter().all(|figure| figure.as_f64() > Some(0.0)),
            "{scaling:#}"
        );
    }
    assert_eq!(scaling["torch"], Value::Null);
}
