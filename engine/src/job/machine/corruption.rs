//! Whose results are wrong, when members that should agree to the bit do not.

use std::collections::BTreeMap;

use super::{Job, note};
use crate::ids::{NodeId, Step, WorkerId};
use crate::job::{Command, NoteKind, Outcome, Report};
use crate::time::Instant;

/// Caught so often, a worker's slot is not used any more.
const STRIKES: u32 = 2;

/// What is remembered of disagreements.
#[derive(Clone, Debug, Default)]
pub(super) struct Corruption {
    /// Disagreements over the step in flight.
    disputes: u32,
    /// What each said of the step's gradient the first time, until an agreement shows who was wrong.
    claims: BTreeMap<WorkerId, String>,
    /// What each said of the weights before this step, until the step is reached again from a checkpoint.
    weights: Option<(Step, BTreeMap<WorkerId, String>)>,
    /// By slot: how often its results were wrong.
    strikes: BTreeMap<(NodeId, u32), u32>,
}

impl Corruption {
    /// Whether the step in flight has to be computed from nothing.
    pub(super) fn recompute(&self) -> bool {
        self.disputes > 0
    }
}

impl Job {
    /// Compares the members' words on the step in flight. Unless all agree, it is dealt with here.
    pub(super) fn agree(&mut self, now: Instant, out: &mut Vec<Command>) -> bool {
        // With wrong weights, gradients say nothing.
        let weights = camps(&self.reports, |report| report.result.weights.as_ref());
        if weights.len() > 1 {
            self.weights_differ(now, &weights, out);
            return false;
        }
        let digests = camps(&self.reports, |report| Some(&report.result.digest));
        if digests.len() > 1 {
            self.dispute(now, &digests, out);
            return false;
        }
        self.settle(now, &digests, &weights, out)
    }

    /// All agree now; whoever said otherwise before was wrong. Says whether the step can be committed at once.
    fn settle(&mut self, now: Instant, digests: &Camps, weights: &Camps, out: &mut Vec<Command>) -> bool {
        let step = self.committed().next();
        self.corruption.disputes = 0;
        let mut wrong: Vec<(WorkerId, &str)> = Vec::new();
        let claims = std::mem::take(&mut self.corruption.claims);
        if let Some(agreed) = digests.keys().next() {
            let odd = claims.into_iter().filter(|(_, digest)| digest != agreed);
            wrong.extend(odd.map(|(worker, _)| (worker, "its result of the step was wrong the first time")));
        }
        let before = self.corruption.weights.take_if(|(of, _)| *of <= step);
        if let (Some((of, said)), Some(agreed)) = (before, weights.keys().next())
            && of == step
        {
            let odd = said.into_iter().filter(|(_, digest)| digest != agreed);
            wrong.extend(odd.map(|(worker, _)| {
                (
                    worker,
                    "its weights were wrong before the checkpoint was taken up",
                )
            }));
        }
        let before = self.members.len();
        for (worker, why) in wrong {
            self.strike(now, &worker, why, out);
        }
        // Without those that were quarantined an epoch has begun, in which the step is reduced again.
        self.members.len() == before
    }

    /// Members hold different gradients: compute the step again, and if it happens again, without the odd one.
    fn dispute(&mut self, now: Instant, digests: &Camps, out: &mut Vec<Command>) {
        self.corruption.disputes += 1;
        let step = self.committed().next();
        let odd = odd_one_out(digests);
        let who = odd.as_ref().map_or("no majority".to_owned(), |worker| {
            format!("{worker} is the odd one")
        });
        out.push(note(
            NoteKind::Corruption,
            format!("digests of step {step} differ: {who}"),
        ));
        match (self.corruption.disputes, odd) {
            (1, _) => {
                let said = |report: &Report| (report.worker.clone(), report.result.digest.clone());
                self.corruption.claims = self.reports.values().map(said).collect();
                self.announce(now, "digests differ; computing the step again", out);
            }
            (_, Some(worker)) => {
                self.corruption.claims.clear();
                self.strike(now, &worker, "its results differ from everyone else's", out);
                self.evict(now, &worker, "its results differ from everyone else's", out);
            }
            (_, None) => {
                let reason =
                    format!("digests of step {step} differ twice without a majority; check the hardware");
                self.end(Outcome::Failed(reason), out);
            }
        }
    }

    /// Members hold different weights. The odd one gets them anew; without a majority all go back to a checkpoint, and
    /// what they then have at this step shows who was wrong.
    fn weights_differ(&mut self, now: Instant, weights: &Camps, out: &mut Vec<Command>) {
        let step = self.committed().next();
        let odd = odd_one_out(weights);
        let who = odd.as_ref().map_or("no majority".to_owned(), |worker| {
            format!("{worker} is the odd one")
        });
        out.push(note(
            NoteKind::Corruption,
            format!("the weights before step {step} differ: {who}"),
        ));
        self.distrust_checkpoint(out);
        self.corruption.disputes = 0;
        self.corruption.claims.clear();
        if let Some(worker) = odd {
            self.strike(now, &worker, "its weights differ from everyone else's", out);
            // Whoever follows may have them from it.
            let members = &self.members;
            let followers = self.workers().into_iter().filter(|peer| !members.contains(peer));
            for follower in followers.collect::<Vec<_>>() {
                let reason = format!("its state may be that of {worker}, whose weights are wrong");
                self.evict(now, &follower, &reason, out);
            }
            self.evict(now, &worker, "its weights differ from everyone else's", out);
            return;
        }
        if self
            .corruption
            .weights
            .as_ref()
            .is_some_and(|(of, _)| *of == step)
        {
            let reason =
                format!("the weights before step {step} differ twice without a majority; check the hardware");
            self.end(Outcome::Failed(reason), out);
            return;
        }
        let said = |report: &Report| Some((report.worker.clone(), report.result.weights.clone()?));
        self.corruption.weights = Some((step, self.reports.values().filter_map(said).collect()));
        self.go_back(Step(step.0 - 1), "nobody knows whose weights are right", out);
    }

    /// Counts a wrong result against a worker's slot, and takes it out at the second.
    fn strike(&mut self, now: Instant, worker: &WorkerId, why: &str, out: &mut Vec<Command>) {
        let place = (worker.node.clone(), worker.slot);
        let strikes = self.corruption.strikes.entry(place).or_default();
        *strikes += 1;
        let count = *strikes;
        out.push(note(
            NoteKind::Corruption,
            format!("{worker} was caught: {why} (strike {count} of {STRIKES})"),
        ));
        if count >= STRIKES {
            let reason = format!("caught {count} times with wrong results; check its memory and device");
            out.push(Command::Quarantine {
                worker: worker.clone(),
                reason: reason.clone(),
            });
            if self.peers.contains_key(worker) {
                self.evict(now, worker, &reason, out);
            }
        }
    }
}

/// Who says what.
type Camps = BTreeMap<String, Vec<WorkerId>>;

fn camps(reports: &BTreeMap<WorkerId, Report>, word: impl Fn(&Report) -> Option<&String>) -> Camps {
    let mut camps = Camps::new();
    for report in reports.values() {
        if let Some(word) = word(report) {
            camps.entry(word.clone()).or_default().push(report.worker.clone());
        }
    }
    camps
}

/// The one worker outside the majority, if there is just one.
fn odd_one_out(camps: &Camps) -> Option<WorkerId> {
    let all: usize = camps.values().map(Vec::len).sum();
    let odd = camps
        .values()
        .find(|camp| camp.len() == 1 && camps.len() == 2 && all > 2);
    odd.map(|camp| camp[0].clone())
}
