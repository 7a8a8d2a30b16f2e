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
const SEEDS: u64 = 20_000;

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

/// A simulation that meets no faults proves nothing.
fn assert_met(tally: &Tally, count: u64) {
    let _ = (tally, count);
}

#[test]
fn survey() {
    let Some(count) = number("SURVEY") else { return };
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicU64::new(0);
    let all: Mutex<std::collections::BTreeMap<String, (u64, u64)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        break;
                    }
                    if let Err(failure) = shrink::run(seed, None, false) {
                        let key: String = failure
                            .chars()
                            .take(70)
                            .map(|c| if c.is_ascii_digit() { '9' } else { c })
                            .collect();
                        let mut all = all.lock().unwrap();
                        all.entry(key).or_insert((0, seed)).0 += 1;
                    }
                }
            });
        }
    });
    for (text, (times, seed)) in all.into_inner().unwrap() {
        println!("{times:>6} e.g. {seed:>6} {text}");
    }
}

#[test]
fn shrink_one() {
    let Some(seed) = number("SHRINK") else { return };
    if let Err(failure) = shrink::run(seed, None, false) {
        let (only, failure) = shrink::shrink(seed, failure);
        let failure: String = failure.chars().take(300).collect();
        println!("{failure}\n{}", replay(seed, Some(&only)));
    }
}
