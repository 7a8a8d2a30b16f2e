//! Drills with real processes: faults at exact points, partitions, full disks, and very many workers.
//!
//! As root all of it runs, in network namespaces and on small disks of its own; elsewhere the cells that need them are
//! skipped, and say so.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::place::Place;
use support::process::Process;

/// How long a whole drill may take: each of its runs is bounded by itself.
const A_DRILL: Duration = Duration::from_secs(600);

fn drill(line: &str) -> Value {
    let place = Place::new();
    let ran = place.start(line).finish_within(A_DRILL).code(0);
    place.await_nobody();
    ran.json()
}

#[test]
fn whatever_happens_to_whomever_at_whatever_moment_the_bits_are_the_same() {
    let verdicts = drill("bench chaos --subset -o json");
    let verdicts = verdicts.as_array().unwrap();
    let root = rustix::process::geteuid().is_root();
    for verdict in verdicts {
        match verdict["outcome"].as_str().unwrap() {
            "passed" => {}
            "skipped" => {
                let reason = verdict["reason"].as_str().unwrap();
                let lacks_etcd = !cfg!(feature = "etcd") && reason.contains("cargo feature `etcd`");
                assert!(reason == "needs root" && !root || lacks_etcd, "{verdict:#}");
            }
            _ => panic!("{verdict:#}"),
        }
    }
    let passed = |word: &str| {
        let mut passed = verdicts.iter().filter(|verdict| verdict["outcome"] == "passed");
        passed.any(|verdict| {
            verdict["cell"]
                .as_str()
                .unwrap()
                .split(':')
                .any(|part| part == word)
        })
    };
    let etcd = cfg!(feature = "etcd").then_some("etcd");
    for word in ["kill", "stop", "corrupt", "worker", "donor", "leader"]
        .into_iter()
        .chain(etcd)
    {
        assert!(passed(word), "no {word} in {verdicts:#?}");
    }
}

#[test]
fn a_run_survives_one_random_fault_after_another() {
    let soaked = drill("bench soak --faults 12 --seed 3 -o json");
    let counts = soaked["faults"].as_array().unwrap();
    let faults: u64 = counts.iter().map(|count| count[1].as_u64().unwrap()).sum();
    assert_eq!((&soaked["seed"], faults), (&3.into(), 12), "{soaked:#}");
    assert!(soaked["epochs"].as_u64().unwrap() > 1, "{soaked:#}");
}

#[test]
fn many_workers_get_their_verdicts() {
    let measured = drill("bench streams --workers 64 --steps 10 -o json");
    assert_eq!(measured["verdict_ms"]["n"], 640, "{measured:#}");
    let (p50, p99) = (&measured["verdict_ms"]["p50"], &measured["verdict_ms"]["p99"]);
    assert!(
        0.0 < p50.as_f64().unwrap() && p50.as_f64() <= p99.as_f64(),
        "{measured:#}"
    );
}

#[test]
fn a_fault_that_cannot_be_read_stops_the_start() {
    let place = Place::new();
    for verb in [
        "coordinator --listen 127.0.0.1:0",
        "worker --coordinator http://127.0.0.1:1",
    ] {
        let mut command = place.command(verb);
        command.env("LOCKSTEP_FAULT", "point=before-send;do=panic;once=/tmp/marker");
        let ran = Process::start(&mut command).finish().code(2);
        ran.says(&["`do=panic`", "must be one of kill, stop", "docs/faults.md"]);
    }
    let ran = place.run("bench chaos --cell kill:lunch:worker").code(2);
    ran.says(&["`lunch` is none of before-send"]);
}
