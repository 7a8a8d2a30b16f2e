//! Which documents a step saw.

use std::collections::BTreeMap;

use lockstep_data::{DocumentRecord, Part};
use lockstep_engine::ids::Step;
use lockstep_engine::ledger::Ledger;

use super::source::Source;
use crate::failure::Failure;
use crate::output::{count, table};

/// The answer.
#[derive(Debug, serde::Serialize)]
pub(super) struct Answer {
    step: Step,
    epoch: u64,
    /// Whether its gradient was thrown away.
    skipped: bool,
    pub(super) documents: Vec<Saw>,
}

/// A document, and the samples through which it was seen.
#[derive(Debug, serde::Serialize)]
pub(super) struct Saw {
    #[serde(flatten)]
    pub(super) document: DocumentRecord,
    /// With the worker that computed each.
    pub(super) seen: Vec<Seen>,
}

#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Seen {
    sample: u64,
    position: u64,
    worker: String,
}

impl Answer {
    /// Answers for a committed step.
    pub(super) fn of(source: &Source, step: u64) -> anyhow::Result<Self> {
        let entries = Ledger::replay(source.history.iter().cloned()).entries;
        let Some(entry) = entries.get(&Step(step)) else {
            let last = entries.keys().next_back().copied().unwrap_or_default();
            let problem = format!("--step {step}: the run has committed {last} steps, counted from 1");
            return Err(Failure::Usage(problem).into());
        };
        let mut samples: BTreeMap<u64, Vec<Seen>> = BTreeMap::new();
        for span in &entry.spans {
            for position in span.positions.clone() {
                let sample = source.order.sample(position);
                let worker = format!("{:#}", span.worker);
                let seen = Seen {
                    sample,
                    position,
                    worker,
                };
                samples.entry(sample).or_default().push(seen);
            }
        }
        let mut documents = Vec::new();
        for document in source.dataset.documents()? {
            let document = document?;
            if document.split != Part::Train {
                break;
            }
            let train = source.dataset.train();
            let holding = train.samples_of(document.tokens.clone(), source.sequence_length);
            let seen: Vec<Seen> = samples
                .range(holding)
                .flat_map(|(_, seen)| seen)
                .cloned()
                .collect();
            if !seen.is_empty() {
                documents.push(Saw { document, seen });
            }
        }
        Ok(Self {
            step: entry.step,
            epoch: entry.epoch.0,
            skipped: entry.skipped,
            documents,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let rows = self.documents.iter().map(|saw| {
            [
                saw.document.id.clone(),
                saw.document.source.clone(),
                saw.document.licence.clone().unwrap_or_else(|| "-".to_owned()),
                saw.seen.len().to_string(),
            ]
        });
        let skipped = if self.skipped {
            "; it was skipped and changed nothing"
        } else {
            ""
        };
        format!(
            "step {} saw {} documents{skipped}\n{}",
            self.step,
            count(self.documents.len() as u64),
            table(["document", "source", "licence", "samples"], rows)
        )
    }
}
