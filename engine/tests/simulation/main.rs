//! A whole cluster in one thread, from one seed: the coordinators' machines, the ranks' machines, a store, a network, and
//! everything that can go wrong with them.
//!
//! | setting | what it does |
//! |---|---|
//! | `LOCKSTEP_SIM_SEEDS=N` | runs seeds 0..N instead of the default |
//! | `LOCKSTEP_SIM_SEED=K` | runs one, and tells its story |
//! | `LOCKSTEP_SIM_FAULTS=3,7` | with only these of its faults |

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken world must stop the test"
)]

mod cluster;
mod faults;
mod invariants;
mod plan;
mod plants;
mod reference;
mod shrink;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster::Tally;

/// Seeds in a usual run.
const SEEDS: u64 = 40_000;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    setting(name).map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: a whole number"))
    })
}

fn replay(seed: u64, only: Option<&[usize]>) -> String {
    let faults = only.map_or(String::new(), |only| {
        let only: Vec<String> = only.iter().map(usize::to_string).collect();
        format!(" LOCKSTEP_SIM_FAULTS={}", only.join(","))
    });
    format!(
        "LOCKSTEP_SIM_SEED={seed}{faults} cargo test -p lockstep-engine --test simulation any_order -- --nocapture"
    )
}

#[test]
fn any_order_of_faults_ends_in_the_same_bits() {
    if let Some(seed) = number("LOCKSTEP_SIM_SEED") {
        let only: Option<Vec<usize>> = setting("LOCKSTEP_SIM_FAULTS").map(|text| {
            let parts = text.split(',').filter(|part| !part.is_empty());
            parts.map(|part| part.parse().unwrap()).collect()
        });
        match shrink::run(seed, only.as_deref(), true) {
            Ok(tally) => println!("{tally:#?}"),
            Err(failure) => panic!("seed {seed}: {failure}"),
        }
        return;
    }
    let count = number("LOCKSTEP_SIM_SEEDS").unwrap_or(SEEDS);
    let (tally, failed) = run_all(count);
    if let Some((seed, failure)) = failed {
        let (only, failure) = shrink::shrink(seed, failure);
        panic!("seed {seed}: {failure}\nreplay: {}", replay(seed, Some(&only)));
    }
    let width = tally.keys().map(|what| what.len()).max().unwrap_or_default();
    for (what, times) in &tally {
        println!("{what:width$} {times:>9}");
    }
    if count >= 1000 {
        assert_met(&tally, count);
    }
}

/// Runs seeds 0..count on two threads, until one fails: the lowest that was seen to.
fn run_all(count: u64) -> (Tally, Option<(u64, String)>) {
    let next = AtomicU64::new(0);
    let total: Mutex<(Tally, Option<(u64, String)>)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut mine = Tally::new();
                let mut failed = None;
                while failed.is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        break;
                    }
                    match shrink::run(seed, None, false) {
                        Ok(tally) => tally
                            .into_iter()
                            .for_each(|(k, n)| *mine.entry(k).or_default() += n),
                        Err(failure) => failed = Some((seed, failure)),
                    }
                }
                let mut total = total.lock().unwrap();
                mine.into_iter()
                    .for_each(|(k, n)| *total.0.entry(k).or_default() += n);
                if let Some(failed) = failed {
                    next.store(count, Ordering::Relaxed);
                    if total.1.as_ref().is_none_or(|(seed, _)| failed.0 < *seed) {
                        total.1 = Some(failed);
                    }
                }
            });
        }
    });
    total.into_inner().unwrap()
}

/// What each thousand seeds have to meet, about a third of what they usually do: a simulation that meets no faults
/// proves nothing.
const MET: [(&str, u64); 57] = [
    ("blow at a decision", 200),
    ("blow at a task", 140),
    ("broken connection", 190),
    ("checkpoints recorded", 2000),
    ("commits", 5000),
    ("coordinator crash", 120),
    ("coordinator crash between two commands", 180),
    ("coordinator pause", 120),
    ("coordinator pause between two commands", 120),
    ("crash of all workers", 90),
    ("crash of all", 60),
    ("deaths noticed in time", 130),
    ("done with steps skipped", 100),
    ("done", 300),
    ("drain", 90),
    ("epochs after skipped steps", 100),
    ("epochs from a checkpoint", 120),
    ("epochs of full size", 1000),
    ("epochs that compute a step anew", 100),
    ("epochs with a newcomer that follows", 200),
    ("epochs with unequal weights", 200),
    ("feed items", 1800),
    ("full disk", 120),
    ("gradients made wrong", 90),
    ("isolation", 120),
    ("leaders that stepped down", 110),
    ("leaders that had an heir in time", 4),
    ("leaders", 600),
    ("ledger cut", 240),
    ("moments that came", 90),
    ("old data frames dropped", 15),
    ("one-way cut", 90),
    ("partials made wrong", 15),
    ("parts that did not fit the disk", 70),
    ("pauses below the minimum", 60),
    ("quarantines", 10),
    ("recoveries", 250),
    ("refused by the store", 15),
    ("said: bad step", 160),
    ("said: checkpoint", 2000),
    ("said: corruption", 200),
    ("said: drained", 25),
    ("said: killed", 130),
    ("said: slow", 5),
    ("slow worker", 190),
    ("stale message", 300),
    ("stopped at a bad step", 20),
    ("store down", 90),
    ("store slow", 60),
    ("two leaders at once", 15),
    ("two-way cut", 90),
    ("weights made wrong", 15),
    ("worker crash between two commands", 190),
    ("worker crash", 350),
    ("worker pause between two commands", 60),
    ("worker pause", 120),
    ("wrong gradient", 150),
];

fn assert_met(tally: &Tally, count: u64) {
    for (what, times) in MET {
        let (met, least) = (tally.get(what).copied().unwrap_or_default(), times * count / 1000);
        assert!(
            met >= least,
            "{what}: met {met} times in {count} seeds, at least {least} are expected"
        );
    }
}
