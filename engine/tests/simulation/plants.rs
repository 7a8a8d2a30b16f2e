//! The simulation can fail: each of these bugs is found within [`SEEDS`] seeds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lockstep_engine::plants::{Plant, plant};

use crate::invariants::plant_here;
use crate::shrink;

const SEEDS: u64 = 3000;

/// Bugs of the machines.
const MACHINES: [Plant; 21] = [
    Plant::ReportOfAnyEpoch,
    Plant::ApplyBeforeCommit,
    Plant::KeepWhatIsLost,
    Plant::CountTwice,
    Plant::CommitOnHalf,
    Plant::CommitOfAnyEpoch,
    Plant::NoTruncate,
    Plant::CheckpointBeyondLedger,
    Plant::NearIsThere,
    Plant::KeepDisputed,
    Plant::OrphanForever,
    Plant::WaitForLease,
    Plant::SkipUnrecorded,
    Plant::SealAtOnce,
    Plant::NoFence,
    Plant::TornRun,
    Plant::ForgetNothing,
    Plant::EndWithoutCheckpoint,
    Plant::NoMaximum,
    Plant::NoMinimum,
    Plant::KeepTainted,
];

/// Bugs of the runtimes around them.
const RUNTIMES: [&str; 5] = [
    "announce before the epoch is stored",
    "a feed drops a gradient",
    "a restarted process keeps its name",
    "the last leader may still write",
    "a part is reported before it is written",
];

#[derive(Clone, Copy, Debug)]
enum Bug {
    Machine(Plant),
    Runtime(&'static str),
}

/// The first seed that fails with this bug, and how.
fn find(bug: Bug) -> Option<(u64, String)> {
    match bug {
        Bug::Machine(bug) => plant(Some(bug)),
        Bug::Runtime(bug) => plant_here(bug),
    }
    let failure = |seed| Some((seed, shrink::run(seed, None, false).err()?));
    let found = (0..SEEDS).find_map(failure);
    plant(None);
    plant_here("");
    found
}

#[test]
fn planted_bugs_are_found() {
    let machines = MACHINES.into_iter().map(Bug::Machine);
    let bugs: Vec<Bug> = machines.chain(RUNTIMES.into_iter().map(Bug::Runtime)).collect();
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match find(bug) {
                        Some((seed, failure)) => {
                            let failure: String = failure.chars().take(90).collect();
                            println!("{bug:?}: seed {seed}: {failure}");
                        }
                        None => missed.lock().unwrap().push(bug),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}
