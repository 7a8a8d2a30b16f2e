//! Lineage: which steps used a document's samples, and which checkpoints hold what those steps did.
//!
//! It is read from the whole history of a ledger, not from what counts in the end alone: a checkpoint made before the job
//! went back is still of the steps that it went back over, and so is a model exported from it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ids::{Epoch, Step, WorkerId};
use crate::ledger::{Change, Entry};
use crate::order::SampleOrder;

/// One use of a sample by a committed step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its position in the sample order.
    pub position: u64,
    /// The sample.
    pub sample: u64,
    /// The pass over the data, counted from 0.
    pub pass: u64,
    /// Who computed it.
    pub worker: WorkerId,
}

/// A committed step that used some of the samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Which.
    pub step: Step,
    /// In which epoch it was committed.
    pub epoch: Epoch,
    /// Whether its gradient was thrown away: its samples are used up, but the weights know nothing of them.
    pub skipped: bool,
    /// In the order of positions.
    pub uses: Vec<Use>,
}

/// A checkpoint that the ledger has recorded at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The last step applied to it.
    pub step: Step,
    /// Digest of its weights.
    pub weights: String,
    /// Whether a step that made it used one of the samples.
    pub has_seen: bool,
    /// Whether it still counts: the ledger was not cut back to before it.
    pub counts: bool,
}

/// What became of some samples in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The steps that count and used them, in order.
    pub steps: Vec<Sighting>,
    /// The last committed step.
    pub committed: Step,
    /// All checkpoints ever recorded, in order of their records.
    pub checkpoints: Vec<Recorded>,
    /// The first step that ever applied them, whether it still counts or not.
    first_ever: Option<Step>,
}

impl Lineage {
    /// Follows the samples with these numbers through the history of a ledger, from its first change on.
    #[must_use]
    pub fn trace(history: &[Change], order: &SampleOrder, samples: Range<u64>) -> Self {
        let positions = positions(history, order, samples);
        let mut lineage = Self::default();
        let mut live: BTreeMap<Step, Sighting> = BTreeMap::new();
        for change in history {
            match change {
                Change::Append(entry) => {
                    let step = entry.step;
                    lineage.committed = lineage.committed.max(step);
                    live.remove(&step);
                    if let Some(sighting) = sighting(entry, order, &positions) {
                        if !sighting.skipped {
                            let first = lineage.first_ever.get_or_insert(step);
                            *first = step.min(*first);
                        }
                        live.insert(step, sighting);
                    }
                }
                Change::Truncate(step) => {
                    lineage.committed = lineage.committed.min(*step);
                    live.split_off(&step.next());
                    for checkpoint in &mut lineage.checkpoints {
                        checkpoint.counts &= checkpoint.step <= *step;
                    }
                }
                Change::Checkpoint(step, weights) => {
                    for earlier in &mut lineage.checkpoints {
                        earlier.counts &= earlier.step != *step;
                    }
                    lineage
                        .checkpoints
                        .retain(|earlier| (earlier.step, &earlier.weights) != (*step, weights));
                    lineage.checkpoints.push(Recorded {
                        step: *step,
                        weights: weights.clone(),
                        has_seen: live.range(..=*step).any(|(_, sighting)| !sighting.skipped),
                        counts: true,
                    });
                }
            }
        }
        lineage.steps = live.into_values().collect();
        lineage
    }

    /// The first step that counts and brought one of the samples into the weights.
    #[must_use]
    pub fn first(&self) -> Option<Step> {
        let applied = self.steps.iter().find(|sighting| !sighting.skipped);
        applied.map(|sighting| sighting.step)
    }

    /// Whether weights of `step` have seen the samples: as the record of a checkpoint with this digest says. Of weights
    /// without a record it is told whether they may have: whether any step up to theirs ever applied one of the samples.
    #[must_use]
    pub fn has_seen(&self, step: Step, weights: &str) -> bool {
        let recorded = self
            .checkpoints
            .iter()
            .find(|checkpoint| checkpoint.step == step && checkpoint.weights == weights);
        recorded.map_or_else(
            || self.first_ever.is_some_and(|first| first <= step),
            |checkpoint| checkpoint.has_seen,
        )
    }
}

/// Where the samples are in the order, as far as the history reaches; sorted.
fn positions(history: &[Change], order: &SampleOrder, samples: Range<u64>) -> Vec<u64> {
    let spans = history.iter().flat_map(|change| match change {
        Change::Append(entry) => entry.spans.as_slice(),
        _ => &[],
    });
    let Some(last) = spans.filter_map(|span| span.positions.end.checked_sub(1)).max() else {
        return Vec::new();
    };
    let passes = 0..=order.pass(last);
    let mut positions: Vec<u64> = passes
        .flat_map(|pass| samples.clone().map(move |sample| order.position(pass, sample)))
        .filter(|&position| position <= last)
        .collect();
    positions.sort_unstable();
    positions
}

fn sighting(entry: &Entry, order: &SampleOrder, positions: &[u64]) -> Option<Sighting> {
    let mut uses = Vec::new();
    for span in &entry.spans {
        let from = positions.partition_point(|&position| position < span.positions.start);
        let here = positions[from..].iter().take_while(|&&p| p < span.positions.end);
        uses.extend(here.map(|&position| Use {
            position,
            sample: order.sample(position),
            pass: order.pass(position),
            worker: span.worker.clone(),
        }));
    }
    uses.sort_by_key(|u| u.position);
    (!uses.is_empty()).then_some(Sighting {
        step: entry.step,
        epoch: entry.epoch,
        skipped: entry.skipped,
        uses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Span};
    use proptest::prelude::*;

    const SAMPLES: u64 = 13;
    const PER_STEP: u64 = 4;

    fn entry(step: u64, attempt: u64, skipped: bool) -> Entry {
        let first = (step - 1) * PER_STEP;
        let worker = |slot| WorkerId {
            node: "n".parse().unwrap(),
            slot,
            incarnation: 0,
        };
        // Recorded in any order of ranks.
        let spans = [(1, first + 1..first + PER_STEP), (0, first..first + 1)];
        Entry {
            step: Step(step),
            epoch: Epoch(attempt),
            workers: 2,
            digest: "d".into(),
            loss: 0.0,
            spans: spans
                .map(|(slot, positions)| Span {
                    positions,
                    worker: worker(slot),
                })
                .into(),
            milliseconds: 0.0,
            skipped,
            unseen_to: None,
        }
    }

    /// A history as a run makes it: steps follow on the last one, now and then it goes back or makes a checkpoint.
    fn history() -> impl Strategy<Value = Vec<Change>> {
        let moves = prop::collection::vec((0u8..10, 0u64..100, any::<bool>()), 0..40);
        moves.prop_map(|moves| {
            let (mut at, mut changes) = (0, Vec::new());
            for (attempt, (kind, draw, skipped)) in (1..).zip(moves) {
                match kind {
                    0 => {
                        at = draw % (at + 1);
                        changes.push(Change::Truncate(Step(at)));
                    }
                    1 | 2 if at > 0 => {
                        let of = 1 + draw % at;
                        changes.push(Change::Checkpoint(Step(of), format!("w{}", draw % 3)));
                    }
                    _ => {
                        at += 1;
                        changes.push(Change::Append(entry(at, attempt, skipped)));
                    }
                }
            }
            changes
        })
    }

    /// The steps that count after `changes`, and the positions of each that use one of the samples: tried one by one.
    fn brute_force(changes: &[Change], order: &SampleOrder, samples: &Range<u64>) -> Vec<(Entry, Vec<u64>)> {
        let entries = Ledger::replay(changes.iter().cloned()).entries.into_values();
        let uses = |entry: &Entry| {
            let first = (entry.step.0 - 1) * PER_STEP;
            let all = first..first + PER_STEP;
            all.filter(|&position| samples.contains(&order.sample(position)))
                .collect::<Vec<u64>>()
        };
        entries
            .map(|entry| (uses(&entry), entry))
            .filter(|(uses, _)| !uses.is_empty())
            .map(|(uses, entry)| (entry, uses))
            .collect()
    }

    proptest! {
        #[test]
        fn it_is_what_trying_every_position_says(
            history in history(), seed: u64, from in 0..SAMPLES, len in 0u64..4,
        ) {
            let order = SampleOrder::new(SAMPLES, seed);
            let samples = from..(from + len).min(SAMPLES);
            let lineage = Lineage::trace(&history, &order, samples.clone());

            let expected = brute_force(&history, &order, &samples);
            prop_assert_eq!(lineage.steps.len(), expected.len());
            for (sighting, (entry, positions)) in lineage.steps.iter().zip(&expected) {
                prop_assert_eq!(
                    (sighting.step, sighting.epoch, sighting.skipped), (entry.step, entry.epoch, entry.skipped)
                );
                let found: Vec<u64> = sighting.uses.iter().map(|u| u.position).collect();
                prop_assert_eq!(&found, positions);
                for u in &sighting.uses {
                    prop_assert_eq!((u.sample, u.pass), (order.sample(u.position), u.position / SAMPLES));
                    prop_assert_eq!(u.worker.slot, u32::from(u.position % PER_STEP > 0));
                }
            }
            let applied = expected.iter().find(|(entry, _)| !entry.skipped);
            prop_assert_eq!(lineage.first(), applied.map(|(entry, _)| entry.step));

            let ledger = Ledger::replay(history.iter().cloned());
            prop_assert_eq!(lineage.committed, ledger.entries.keys().next_back().copied().unwrap_or_default());
            let counting = lineage.checkpoints.iter().filter(|checkpoint| checkpoint.counts);
            let counting: BTreeMap<Step, String> =
                counting.map(|checkpoint| (checkpoint.step, checkpoint.weights.clone())).collect();
            prop_assert_eq!(counting, ledger.checkpoints);

            // A checkpoint has seen what counted at the moment of its last record.
            let saw = |until: usize, step: Step| {
                let steps = brute_force(&history[..until], &order, &samples);
                steps.iter().any(|(entry, _)| entry.step <= step && !entry.skipped)
            };
            let mut records: BTreeMap<(Step, &str), bool> = BTreeMap::new();
            for (until, change) in history.iter().enumerate() {
                if let Change::Checkpoint(step, weights) = change {
                    records.insert((*step, weights), saw(until, *step));
                }
            }
            prop_assert_eq!(lineage.checkpoints.len(), records.len());
            for ((step, weights), saw) in records {
                prop_assert_eq!(lineage.has_seen(step, weights), saw);
            }
            // Of weights that nobody recorded, whatever ever was applied may be in them.
            for step in (0..=history.len() as u64).map(Step) {
                let may_have = (0..=history.len()).any(|until| saw(until, step));
                prop_assert_eq!(lineage.has_seen(step, "unknown"), may_have);
            }
        }
    }

    #[test]
    fn a_model_from_before_the_job_went_back_has_seen_what_was_then_skipped() {
        let order = SampleOrder::new(SAMPLES, 1);
        let sample = order.sample(5);
        let (spike, calm) = (entry(2, 1, false), entry(2, 2, true));
        let history = [
            Change::Append(entry(1, 1, false)),
            Change::Append(spike),
            Change::Checkpoint(Step(2), "before".into()),
            Change::Truncate(Step(1)),
            Change::Append(calm),
            Change::Checkpoint(Step(2), "after".into()),
        ];
        let lineage = Lineage::trace(&history, &order, sample..sample + 1);
        assert!(lineage.has_seen(Step(2), "before") && !lineage.has_seen(Step(2), "after"));
        assert!(lineage.steps[0].skipped && lineage.first().is_none());
        let counts: Vec<bool> = lineage.checkpoints.iter().map(|c| c.counts).collect();
        assert_eq!(counts, [false, true]);
    }
}
