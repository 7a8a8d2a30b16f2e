//! The ledger of committed steps, how it changes, and what can be read from it: which samples were used, and by whom.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ids::{Epoch, Step, WorkerId};

/// Positions of the sample order that one worker really consumed for a step.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Span {
    /// Positions, from the first to the one after the last.
    pub positions: Range<u64>,
    /// Who computed them.
    pub worker: WorkerId,
}

/// One committed step.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// Which.
    pub step: Step,
    /// In which epoch it was committed.
    pub epoch: Epoch,
    /// Members of that epoch.
    pub workers: u32,
    /// Digest of the reduced gradient, the same from every member.
    pub digest: String,
    /// Mean loss over the step's tokens, in nats; NaN, stored as null, when it is not finite or was never computed.
    #[serde(deserialize_with = "nan_for_null")]
    pub loss: f32,
    /// Samples, as the workers reported them from their loaders.
    pub spans: Vec<Span>,
    /// From the commit before (or the start of the run, or of its resumption) to this one.
    pub milliseconds: f64,
    /// Whether its gradient was thrown away: its samples are used up, the weights are those before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// The job went back to a state before this step, and skipped all steps up to that one without computing them: a run
    /// that counts as a whole or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen_to: Option<Step>,
}

fn nan_for_null<'de, D: serde::Deserializer<'de>>(source: D) -> Result<f32, D::Error> {
    let value: Option<f32> = serde::Deserialize::deserialize(source)?;
    Ok(value.unwrap_or(f32::NAN))
}

/// A change to a job's ledger; changes are applied in the order they were made.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A step was committed.
    Append(Entry),
    /// Nothing after this step counts any more.
    Truncate(Step),
    /// A checkpoint is complete, its weights have this digest.
    Checkpoint(Step, String),
}

/// What counts of a job: committed steps and checkpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// The committed steps.
    pub entries: BTreeMap<Step, Entry>,
    /// Digest of the weights of each recorded checkpoint.
    pub checkpoints: BTreeMap<Step, String>,
}

impl Ledger {
    /// What is left when all `changes` are made.
    #[must_use]
    pub fn replay(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut ledger = Self::default();
        changes.into_iter().for_each(|change| ledger.apply(change));
        ledger
    }

    /// The first step that is missing before the last one: there is none where all changes were seen.
    #[must_use]
    pub fn first_missing(&self) -> Option<Step> {
        let steps = (1..).map(Step).zip(self.entries.keys());
        steps
            .into_iter()
            .find(|(step, found)| step != *found)
            .map(|(step, _)| step)
    }

    /// Makes a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Append(entry) => {
                self.entries.insert(entry.step, entry);
            }
            Change::Truncate(step) => {
                self.entries.split_off(&step.next());
                self.checkpoints.split_off(&step.next());
            }
            Change::Checkpoint(step, weights) => {
                self.checkpoints.insert(step, weights);
            }
        }
    }
}

/// What the ledger says of the samples of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Audit {
    /// Positions used at least once.
    pub used: u64,
    /// Positions below `expected` that no committed step used.
    pub missed: u64,
    /// Uses beyond the first, of any position.
    pub repeated: u64,
}

/// Counts the samples of the first `expected` positions over all committed steps.
#[must_use]
pub fn audit<'e>(entries: impl IntoIterator<Item = &'e Entry>, expected: u64) -> Audit {
    let mut spans: Vec<Range<u64>> = entries
        .into_iter()
        .flat_map(|entry| &entry.spans)
        .map(|span| span.positions.clone())
        .collect();
    spans.sort_unstable_by_key(|span| (span.start, span.end));
    let (mut used, mut used_expected, mut repeated, mut reached) = (0, 0, 0, 0);
    for span in spans {
        let fresh = span.start.max(reached)..span.end.max(reached);
        let count = fresh.end - fresh.start;
        used += count;
        used_expected += fresh.end.min(expected).saturating_sub(fresh.start);
        repeated += (span.end - span.start) - count;
        reached = fresh.end;
    }
    Audit {
        used,
        missed: expected - used_expected,
        repeated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(ranges: Vec<Range<u64>>) -> Entry {
        let worker = WorkerId {
            node: "n".parse().unwrap(),
            slot: 0,
            incarnation: 0,
        };
        let spans = ranges
            .into_iter()
            .map(|positions| Span {
                positions,
                worker: worker.clone(),
            })
            .collect();
        Entry {
            step: Step(1),
            epoch: Epoch(1),
            workers: 1,
            digest: String::new(),
            loss: 0.0,
            spans,
            milliseconds: 0.0,
            skipped: false,
            unseen_to: None,
        }
    }

    proptest! {
        #[test]
        fn the_audit_equals_counting_one_by_one(
            ranges in prop::collection::vec((0u64..60, 0u64..20), 0..12), expected in 0u64..70,
        ) {
            let ranges: Vec<Range<u64>> = ranges.into_iter().map(|(from, len)| from..from + len).collect();
            let mut uses = [0u64; 128];
            ranges.iter().cloned().flatten().for_each(|position| uses[position as usize] += 1);
            let counted = Audit {
                used: uses.iter().filter(|&&n| n > 0).count() as u64,
                missed: uses[..expected as usize].iter().filter(|&&n| n == 0).count() as u64,
                repeated: uses.iter().map(|n| n.saturating_sub(1)).sum(),
            };
            prop_assert_eq!(audit(&[entry(ranges)], expected), counted);
        }
    }
}
