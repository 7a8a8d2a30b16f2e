//! Which checkpoints stay.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lockstep_engine::ids::Step;
use lockstep_engine::spec::CheckpointSpec;

use super::reader::read_manifest;
use super::{Manifest, list, temporary, verify};
use crate::error::{Result, TrainerError};

/// What is kept: the union of the three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// So many of the newest; 0 for all there are.
    pub keep: u64,
    /// Those whose step is a multiple of this; 0 for none.
    pub keep_every: u64,
    /// So many of those with the fewest validation bits per byte, of equal ones the newer; 0 for none.
    pub keep_best: u64,
}

impl From<&CheckpointSpec> for Policy {
    fn from(spec: &CheckpointSpec) -> Self {
        Self {
            keep: spec.keep,
            keep_every: spec.keep_every,
            keep_best: spec.keep_best,
        }
    }
}

/// The steps that stay of `checkpoints`, which are in any order, each with its score in validation bits per byte.
/// The newest always stays.
#[must_use]
pub fn retained(checkpoints: &[(Step, Option<f64>)], policy: &Policy) -> BTreeSet<Step> {
    let all: BTreeSet<Step> = checkpoints.iter().map(|&(step, _)| step).collect();
    if policy.keep == 0 {
        return all;
    }
    let mut scored: Vec<(f64, Step)> = checkpoints
        .iter()
        .filter_map(|&(step, score)| score.map(|score| (score, step)))
        .collect();
    scored.sort_by(|(a, older), (b, newer)| a.total_cmp(b).then(newer.cmp(older)));
    let newest = all.iter().rev().take(count(policy.keep)).copied();
    let multiples = all
        .iter()
        .copied()
        .filter(|step| policy.keep_every > 0 && step.0.is_multiple_of(policy.keep_every));
    let best = scored.iter().take(count(policy.keep_best)).map(|&(_, step)| step);
    newest.chain(multiples).chain(best).collect()
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Deletes the checkpoints of `dir` that `policy` does not keep, and temporary folders older than the newest
/// checkpoint, and returns the steps deleted.
///
/// Only those that look whole, by manifest and sizes of files, count as kept, and of these only up to the newest
/// whose every byte is right: nothing broken ever pushes out the last good one. What is damaged and older than that one
/// goes; what is newer than it, or cannot be judged, stays. When none verifies, nothing is deleted.
///
/// # Errors
/// [`TrainerError::Storage`]. A crash at any point leaves each checkpoint whole or without its name.
pub fn prune(dir: &Path, policy: &Policy) -> Result<Vec<Step>> {
    let all = list(dir)?;
    let Some(newest) = all.iter().rposition(|(_, path)| verify(path).is_ok()) else {
        return Ok(Vec::new());
    };
    let whole: Vec<(Step, Result<Manifest>)> = all[..=newest]
        .iter()
        .map(|(step, path)| (*step, read_whole(path)))
        .collect();
    let scores: Vec<(Step, Option<f64>)> = whole
        .iter()
        .filter_map(|(step, manifest)| {
            let manifest = manifest.as_ref().ok()?;
            Some((*step, manifest.about.validation_bits_per_byte))
        })
        .collect();
    let kept = retained(&scores, policy);
    let mut deleted = Vec::new();
    for (step, manifest) in whole.into_iter().rev() {
        let goes = match manifest {
            Ok(_) => !kept.contains(&step),
            Err(TrainerError::Corrupt { .. }) => policy.keep > 0,
            // Of another version, or not readable now.
            Err(_) => false,
        };
        if goes {
            temporary::remove_checkpoint(dir, step)?;
            deleted.push(step);
        }
    }
    temporary::remove_outdated(dir, all[newest].0, None)?;
    Ok(deleted)
}

/// The checkpoints of `dir` that look whole, by manifest and sizes of files, oldest first.
pub(super) fn list_whole(dir: &Path) -> Result<Vec<(PathBuf, Manifest)>> {
    let whole = |(_, path): (Step, PathBuf)| {
        let manifest = read_whole(&path).ok()?;
        Some((path, manifest))
    };
    Ok(list(dir)?.into_iter().filter_map(whole).collect())
}

fn read_whole(path: &Path) -> Result<Manifest> {
    let manifest = read_manifest(path)?;
    for shard in &manifest.shards {
        shard.check_size(path)?;
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policies() -> impl Strategy<Value = Policy> {
        (0u64..5, 0u64..6, 0u64..4).prop_map(|(keep, keep_every, keep_best)| Policy {
            keep,
            keep_every,
            keep_best,
        })
    }

    /// Distinct steps, in any order, some with a score; few scores, so that some are equal.
    fn checkpoints() -> impl Strategy<Value = Vec<(Step, Option<f64>)>> {
        proptest::collection::btree_map(0u64..60, proptest::option::of(0u8..6), 0..25)
            .prop_map(|map| {
                map.into_iter()
                    .map(|(step, score)| (Step(step), score.map(|score| 1.0 + f64::from(score) / 4.0)))
                    .collect::<Vec<_>>()
            })
            .prop_shuffle()
    }

    proptest! {
        /// A checkpoint stays exactly if one of the rules, each counted by itself, says so.
        #[test]
        fn a_checkpoint_stays_for_a_reason(all in checkpoints(), policy in policies()) {
            let kept = retained(&all, &policy);
            for &(step, score) in &all {
                let newer = all.iter().filter(|(other, _)| *other > step).count() as u64;
                let better = all.iter().filter(|(other, theirs)| match (score, theirs) {
                    (Some(mine), Some(theirs)) => *theirs < mine || (*theirs == mine && *other > step),
                    _ => false,
                });
                let reason = policy.keep == 0
                    || newer < policy.keep
                    || (policy.keep_every > 0 && step.0 % policy.keep_every == 0)
                    || (score.is_some() && (better.count() as u64) < policy.keep_best);
                prop_assert_eq!(kept.contains(&step), reason, "step {}", step);
            }
            prop_assert!(kept.iter().all(|step| all.iter().any(|(other, _)| other == step)));
        }

        /// Pruning after each checkpoint or once at the end is the same, as no rule asks for more over time.
        #[test]
        fn pruning_often_or_once_is_the_same(all in checkpoints(), policy in policies()) {
            let mut all = all;
            all.sort_by_key(|&(step, _)| step);
            let mut held = Vec::new();
            for &checkpoint in &all {
                held.push(checkpoint);
                let kept = retained(&held, &policy);
                held.retain(|(step, _)| kept.contains(step));
            }
            let held: BTreeSet<Step> = held.into_iter().map(|(step, _)| step).collect();
            prop_assert_eq!(held, retained(&all, &policy));
        }
    }
}
