//! Runs a seed, and finds out which of its faults it takes to fail.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::cluster::{Tally, World};
use crate::plan::Plan;

/// Runs that shrinking may take.
const RUNS: usize = 400;

/// Runs a seed with all its faults, or only those named.
pub(crate) fn run(seed: u64, only: Option<&[usize]>, story: bool) -> Result<Tally, String> {
    let run = AssertUnwindSafe(|| {
        let mut world = World::new(Plan::new(seed), only, story);
        world.run();
        match world.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(std::mem::take(&mut world.tally)),
        }
    });
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.unwrap_or_else(|| "it panicked".to_owned()))
    })
}

/// The smallest list of faults found with which the seed still fails, and how it fails then.
pub(crate) fn shrink(seed: u64, failure: String) -> (Vec<usize>, String) {
    let mut only: Vec<usize> = (0..Plan::new(seed).faults.len()).collect();
    let mut failure = failure;
    let mut runs = 0;
    let mut size = only.len().div_ceil(2);
    while size > 0 && runs < RUNS {
        let mut from = 0;
        let mut shrunk = false;
        while from < only.len() && runs < RUNS {
            let rest: Vec<usize> = [&only[..from], &only[(from + size).min(only.len())..]].concat();
            runs += 1;
            match run(seed, Some(&rest), false) {
                Err(other) => {
                    (only, failure, shrunk) = (rest, other, true);
                }
                Ok(_) => from += size,
            }
        }
        if !shrunk || size > only.len() {
            size = if size == 1 && !shrunk {
                0
            } else {
                (size / 2).max(usize::from(shrunk))
            };
        }
    }
    (only, failure)
}
