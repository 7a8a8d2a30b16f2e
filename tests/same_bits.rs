//! The promise itself, on one machine: whatever the number of workers and whoever dies when, the same spec gives
//! the same weights, each sample used exactly once.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod support;

use std::sync::OnceLock;

use serde_json::Value;
use support::job::Job;
use support::place::Place;

/// What a summary must hold, besides `recoveries_ms`.
const FIELDS: [&str; 17] = [
    "steps",
    "tokens",
    "samples",
    "samples_missed",
    "samples_repeated",
    "loss_first",
    "loss_last",
    "val_bits_per_byte",
    "gzip_bits_per_byte",
    "workers_min",
    "workers_max",
    "kills",
    "epochs",
    "tokens_per_second",
    "step_ms_median",
    "weights_blake3",
    "wall_seconds",
];

/// Of what another process may come in between.
const TRIES: u32 = 5;
/// Of the jobs here, and what is shorter by far, however busy the machine: a death is noticed by its closed connection, not
/// when the lease is over.
const LEASE_MS: u64 = 60_000;
const NOTICED_MS: f64 = 30_000.0;

/// One whose lease is too long for a death to be noticed by it.
fn job() -> Job {
    Job {
        lease_ms: LEASE_MS,
        ..Job::default()
    }
}

/// Runs the job and returns its summary, after checking what holds for every run, however disturbed.
fn run(job: &Job, options: &str) -> Value {
    let place = Place::with(job);
    let summary = place.summary(&format!("run {}.toml --local --out out {options}", job.name));
    place.await_nobody();
    let written: Value = serde_json::from_str(&place.read("out/summary.json")).unwrap();
    assert_eq!(written, summary, "what is printed is what is written");

    for field in FIELDS.into_iter().filter(|field| *field != "weights_blake3") {
        assert!(summary[field].is_number(), "{field} of {summary:#}");
    }
    let count = |field: &str| summary[field].as_u64().unwrap();
    assert_eq!(count("steps"), job.steps);
    assert_eq!(count("samples"), job.steps * 16);
    assert_eq!(count("tokens"), job.steps * 16 * 32);
    assert_eq!((count("samples_missed"), count("samples_repeated")), (0, 0));
    let measured = |field: &str| summary[field].as_f64().unwrap();
    // A fresh model guesses among the 300 tokens; then it learns.
    assert!((measured("loss_first") - 300f64.ln()).abs() < 0.2, "{summary:#}");
    assert!(
        measured("loss_last") < measured("loss_first") - 0.5,
        "{summary:#}"
    );
    for field in ["val_bits_per_byte", "gzip_bits_per_byte"] {
        assert!((0.1..10.0).contains(&measured(field)), "{field} of {summary:#}");
    }
    let (wall, median) = (measured("wall_seconds"), measured("step_ms_median"));
    assert!(0.0 < median && median < wall * 1e3, "{summary:#}");
    assert!(
        measured("tokens_per_second") > (count("tokens") as f64) / wall,
        "{summary:#}"
    );
    assert!(1 <= count("workers_min") && count("workers_min") <= count("workers_max"));
    assert_eq!(summary["weights_blake3"].as_str().unwrap().len(), 64);
    for recovery in summary["recoveries_ms"].as_array().unwrap() {
        let recovery = recovery.as_f64().unwrap();
        assert!((0.0..NOTICED_MS).contains(&recovery), "{summary:#}");
    }
    summary
}

/// The weights of the default job when nothing disturbs it, with one worker.
fn undisturbed() -> &'static Value {
    static WEIGHTS: OnceLock<Value> = OnceLock::new();
    WEIGHTS.get_or_init(|| run(&job(), "--workers 1")["weights_blake3"].clone())
}

/// Runs the job with workers killed, and checks that the weights do not know, until the summary is as `wanted` besides: on a
/// busy machine a member may just have been left behind for being late when its turn comes, and then it is not killed.
fn killed_until(job: &Job, workers: u32, kills: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
    let kill: String = kills.iter().map(|kill| format!(" --kill {kill}")).collect();
    for _ in 0..TRIES {
        let summary = run(job, &format!("--workers {workers}{kill}"));
        assert_eq!(
            summary["weights_blake3"],
            *undisturbed(),
            "{kills:?}: {summary:#}"
        );
        let killed = count(&summary, "kills") as usize;
        assert!(killed <= kills.len(), "{kills:?}: {summary:#}");
        if killed == kills.len() && wanted(&summary) {
            assert!(count(&summary, "epochs") > 1, "{summary:#}");
            return summary;
        }
    }
    panic!("{kills:?}: not in one of {TRIES} runs");
}

/// Runs the job with all of these workers killed.
fn killed(job: &Job, workers: u32, kills: &[&str]) -> Value {
    killed_until(job, workers, kills, |_| true)
}

fn count(summary: &Value, field: &str) -> u64 {
    summary[field].as_u64().unwrap()
}

fn recoveries(summary: &Value) -> usize {
    summary["recoveries_ms"].as_array().unwrap().len()
}

/// Each block's bucket by itself, over TCP, while others are computed: with and without, the same weights.
#[test]
fn buckets_that_leave_early_change_nothing() {
    for collective in [
        "bucket_bytes = 4",
        "bucket_bytes = 4\ntransport = \"tcp\"\nstreams = 3",
        "overlap = false",
    ] {
        let job = Job {
            more: format!("[collective]\n{collective}"),
            ..job()
        };
        assert_eq!(
            run(&job, "--workers 2")["weights_blake3"],
            *undisturbed(),
            "{collective}"
        );
        killed(&job, 3, &["1@8", "0@20"]);
    }
}

#[test]
fn less_precise_gradients_give_other_weights_that_are_the_same_for_all() {
    let with = |more: &str| Job {
        more: format!("[collective]\nprecision = \"bf16\"\n{more}"),
        ..job()
    };
    let alone = run(&with(""), "--workers 1");
    assert_ne!(alone["weights_blake3"], *undisturbed());
    for (more, options) in [
        ("", "--workers 2"),
        ("transport = \"tcp\"\nbucket_bytes = 4", "--workers 3 --kill 1@8"),
    ] {
        let summary = run(&with(more), options);
        assert_eq!(summary["weights_blake3"], alone["weights_blake3"], "{options}");
        assert_eq!(summary["loss_first"], alone["loss_first"]);
    }
}

#[test]
fn any_number_of_workers_gives_the_same_weights() {
    for workers in 2..=4 {
        let summary = run(&job(), &format!("--workers {workers}"));
        assert_eq!(summary["weights_blake3"], *undisturbed(), "{workers} workers");
        assert_eq!(
            (&summary["workers_max"], &summary["kills"]),
            (&workers.into(), &0.into())
        );
        assert_eq!(recoveries(&summary), 0);
    }
    let other = Job { seed: 8, ..job() };
    assert_ne!(run(&other, "--workers 1")["weights_blake3"], *undisturbed());
}

#[test]
fn two_kills_leave_no_trace() {
    let summary = killed(&job(), 4, &["1@7", "2@15"]);
    assert_eq!(recoveries(&summary), 2);
    assert_eq!(summary["workers_max"], 4);
    assert!(summary["workers_min"].as_u64().unwrap() < 4, "{summary:#}");
}

#[test]
fn a_kill_in_the_first_step() {
    assert_eq!(recoveries(&killed(&job(), 4, &["0@1"])), 1);
}

#[test]
fn a_kill_in_the_last_step() {
    assert_eq!(recoveries(&killed(&job(), 4, &["3@30"])), 1);
}

/// With all four needed, the job waits for the replacement, which is then killed in turn.
#[test]
fn the_same_slot_twice() {
    let job = Job {
        min_workers: 4,
        ..job()
    };
    let summary = killed(&job, 4, &["1@5", "1@12"]);
    assert_eq!(recoveries(&summary), 2);
    assert_eq!(summary["workers_min"], 4);
}

/// Kills workers of four in one step, and checks that the others commit it without them. On a busy machine a replacement may be
/// ready before the last death is noticed, and take part in that step; not time after time.
fn killed_at_once(kills: &[&str]) {
    let left = 4 - kills.len() as u64;
    killed_until(&job(), 4, kills, |summary| count(summary, "workers_min") == left);
}

#[test]
fn two_in_the_same_step() {
    killed_at_once(&["1@9", "2@9"]);
}

#[test]
fn all_but_one() {
    killed_at_once(&["1@9", "2@9", "3@9"]);
}

/// Rank 0 writes the checkpoints.
#[test]
fn the_one_that_writes_a_checkpoint_at_every_step() {
    killed(&Job { every: 1, ..job() }, 4, &["0@12"]);
}

#[test]
fn the_only_worker_goes_on_from_its_checkpoint() {
    let job = Job {
        max_workers: 4,
        ..job()
    };
    let summary = killed(&job, 1, &["0@15"]);
    assert_eq!(recoveries(&summary), 1);
}

#[test]
fn the_only_worker_starts_over_from_the_seed() {
    let job = Job { every: 0, ..job() };
    let summary = killed(&job, 1, &["0@3"]);
    assert_eq!(recoveries(&summary), 1);
}
