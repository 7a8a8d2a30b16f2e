//! Whose results are wrong, when members that should agree to the bit do not.

use std::collections::BTreeMap;

use super::{Job, note};
use crate::ids::{NodeId, Step, WorkerId};
use crate::job::{Command, NoteKind, Outcome, Phase, Report};
use crate::plants::{Plant, planted};
use crate::time::Instant;

/// Caught so often, a worker's slot is not used any more.
const STRIKES: u32 = 2;

/// All go back so often to the same checkpoint.
const RETURNS: u32 = 8;

/// What is remembered of disagreements.
#[derive(Clone, Debug, Default)]
pub(super) struct Corruption {
    /// Disagreements over the step in flight.
    disputes: u32,
    /// What each said of the step's gradient the first time, until an agreement shows who was wrong.
    claims: BTreeMap<WorkerId, String>,
    /// What each said of the weights before this step, until the step is reached again from a checkpoint.
    weights: Option<(Step, BTreeMap<WorkerId, String>)>,
    /// The last step before which all who were asked had the same weights, and who of them has been a member ever since.
    agreed: Option<(Step, Vec<WorkerId>)>,
    /// A bad step, which is computed again to see whether wrong weights are the reason.
    doubted: Option<Step>,
    /// How often all went back since the last checkpoint was sealed.
    returns: u32,
    /// By slot: how often its results were wrong.
    strikes: BTreeMap<(NodeId, u32), u32>,
}

impl Corruption {
    /// The state does not count any more, nor what was said of the step in flight.
    pub(super) fn forget(&mut self) {
        self.agreed = None;
        self.doubted = None;
        self.disputes = 0;
        self.claims.clear();
    }

    /// Whoever is no member any more may have the state from somebody else when it comes back.
    pub(super) fn keep(&mut self, members: &[WorkerId]) {
        if let Some((_, agreed)) = &mut self.agreed {
            agreed.retain(|worker| members.contains(worker));
        }
    }

    /// Whether these were all found to have the same weights before `step`.
    pub(super) fn compared(&self, step: Step, workers: &[WorkerId]) -> bool {
        let at_step = self.agreed.as_ref().filter(|(of, _)| *of == step);
        at_step.is_some_and(|(_, who)| workers.iter().all(|worker| who.contains(worker)))
    }

    /// A checkpoint is sealed: going back comes no further than this.
    pub(super) fn sealed(&mut self) {
        self.returns = 0;
    }

    /// All `members` have just taken the same state up, each by itself.
    pub(super) fn begun(&mut self, base: Step, members: &[WorkerId]) {
        self.agreed = Some((base.next(), members.to_vec()));
    }

    /// Whether the step in flight has to be computed from nothing, and weights compared.
    pub(super) fn recompute(&self, step: Step) -> bool {
        self.disputes > 0 || self.doubted == Some(step)
    }
}

impl Job {
    /// Compares the members' words on the step in flight. Unless all agree, it is dealt with here.
    pub(super) fn agree(&mut self, now: Instant, out: &mut Vec<Command>) -> bool {
        // With wrong weights, gradients say nothing.
        let said = self
            .reports
            .values()
            .filter_map(|report| Some((report.worker.clone(), report.result.weights.clone()?)))
            .collect();
        let step = self.committed().next();
        if !self.weights_agree(now, step, &said, out) {
            return false;
        }
        let said = |report: &Report| (report.worker.clone(), report.result.digest.clone());
        let said: BTreeMap<_, _> = self.reports.values().map(said).collect();
        let digests = camps(&said);
        if digests.len() > 1 {
            self.dispute(now, &digests, out);
            return false;
        }
        // All agree now; whoever said otherwise before was wrong.
        self.corruption.disputes = 0;
        let claims = std::mem::take(&mut self.corruption.claims);
        let why = "its result of the step was wrong the first time";
        self.blame(now, claims, digests.keys().next(), why, out)
    }

    /// Has a bad step computed again if it may be bad because of somebody's wrong weights, which nobody has compared yet.
    pub(super) fn doubt(&mut self, now: Instant, step: Step, out: &mut Vec<Command>) -> bool {
        if self.members.len() < 2 || self.corruption.compared(step, &self.members) {
            return false;
        }
        self.corruption.doubted = Some(step);
        let reason = format!("step {step} is bad; computing it again, with weights compared");
        self.announce(now, &reason, out);
        true
    }

    /// Compares what members `said` of the weights before `step`, if they were asked. Unless all agree, it is dealt with
    /// here.
    pub(super) fn weights_agree(
        &mut self,
        now: Instant,
        step: Step,
        said: &BTreeMap<WorkerId, String>,
        out: &mut Vec<Command>,
    ) -> bool {
        let weights = camps(said);
        if weights.len() > 1 {
            self.weights_differ(now, step, said, &weights, out);
            return false;
        }
        let Some(agreed) = weights.keys().next() else {
            return true;
        };
        // One word of many says nothing.
        if said.len() > 1 || self.members.len() == 1 {
            self.corruption.agreed = Some((step, said.keys().cloned().collect()));
        }
        let before = self.corruption.weights.take_if(|(of, _)| *of <= step);
        // If more than one was wrong, steps were committed with wrong weights, or somebody had them from another.
        let tells = |(of, said): &(Step, BTreeMap<_, _>)| {
            *of == step && said.values().filter(|word| *word != agreed).count() == 1
        };
        let before = before.filter(tells).unwrap_or_default().1;
        let why = "its weights were wrong before the checkpoint was taken up";
        self.blame(now, before, Some(agreed), why, out)
    }

    /// Catches whoever `said` something else than what is `agreed`. Says whether all members are left: otherwise an epoch
    /// without those that were quarantined has begun.
    fn blame(
        &mut self,
        now: Instant,
        said: BTreeMap<WorkerId, String>,
        agreed: Option<&String>,
        why: &str,
        out: &mut Vec<Command>,
    ) -> bool {
        let before = self.members.len();
        for (worker, digest) in said {
            if agreed.is_some_and(|agreed| *agreed != digest) {
                self.strike(now, &worker, why, out);
            }
        }
        self.members.len() == before
    }

    /// Members hold different gradients: compute the step again, and if it happens again, without the odd one.
    fn dispute(&mut self, now: Instant, digests: &Camps, out: &mut Vec<Command>) {
        self.corruption.disputes += 1;
        let step = self.committed().next();
        let odd = odd_one_out(&format!("digests of step {step}"), digests, out);
        match (self.corruption.disputes, odd) {
            (1, _) => {
                let said = |report: &Report| (report.worker.clone(), report.result.digest.clone());
                self.corruption.claims = self.reports.values().map(said).collect();
                self.announce(now, "digests differ; computing the step again", out);
            }
            (_, Some(worker)) => {
                self.corruption.claims.clear();
                let why = "its results differ from everyone else's";
                self.strike(now, &worker, why, out);
                self.cast_out(now, &worker, why, out);
            }
            (_, None) => {
                let reason =
                    format!("digests of step {step} differ twice without a majority; check the hardware");
                self.end(Outcome::Failed(reason), out);
            }
        }
    }

    /// Members hold different weights. Since they last agreed, steps may have been committed to which wrong weights
    /// contributed: all go back to a checkpoint, every one of which was agreed on. If they agreed a step ago, nothing has come
    /// of it yet, and only the odd one gets its state anew.
    fn weights_differ(
        &mut self,
        now: Instant,
        step: Step,
        said: &BTreeMap<WorkerId, String>,
        weights: &Camps,
        out: &mut Vec<Command>,
    ) {
        let odd = odd_one_out(&format!("the weights before step {step}"), weights, out);
        self.distrust_checkpoint(out);
        self.corruption.disputes = 0;
        self.corruption.claims.clear();
        let agreed = self.corruption.agreed.as_ref();
        // Whoever has entered since may have its weights from the one that is wrong, and make a majority with it.
        let voters = agreed.filter(|(_, agreed)| self.members.iter().all(|member| agreed.contains(member)));
        let bug = planted(Plant::KeepTainted);
        let is_fresh = voters.is_some_and(|(of, _)| of.next() >= step) || bug;
        let odd = odd.filter(|_| voters.is_some() || bug);
        let before = self.corruption.weights.take();
        let why = "its weights differ from everyone else's";
        match odd {
            Some(worker) if is_fresh => {
                // Whoever follows may have them from it.
                let members = &self.members;
                let followers = self.workers().into_iter().filter(|peer| !members.contains(peer));
                for follower in followers.collect::<Vec<_>>() {
                    let reason = format!("its state may be that of {worker}, whose weights are wrong");
                    self.evict(now, &follower, &reason, out);
                }
                self.strike(now, &worker, why, out);
                self.cast_out(now, &worker, why, out);
                return;
            }
            Some(worker) => self.strike(now, &worker, why, out),
            None if before.is_some_and(|(of, _)| of == step) => {
                let reason = format!(
                    "the weights before step {step} differ twice without a majority; check the hardware"
                );
                return self.end(Outcome::Failed(reason), out);
            }
            None => self.corruption.weights = Some((step, said.clone())),
        }
        self.corruption.returns += 1;
        if self.corruption.returns > RETURNS {
            let reason =
                format!("weights differed {RETURNS} times since the last checkpoint; check the hardware");
            return self.end(Outcome::Failed(reason), out);
        }
        // Unless that has happened already, with the second strike.
        if self.phase != Phase::Gathering {
            let reason = "what came of wrong weights since the last checkpoint does not count";
            self.go_back(Step(step.0 - 1), reason, out);
        }
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
            self.cast_out(now, worker, &reason, out);
        }
    }

    /// Evicts a worker that gave wrong results. Nobody will compare its weights any more, so what it contributed to since
    /// it was last found right does not count either; nor does the state of who is left alone with nobody to compare with.
    fn cast_out(&mut self, now: Instant, worker: &WorkerId, reason: &str, out: &mut Vec<Command>) {
        if !self.peers.contains_key(worker) {
            return;
        }
        let step = self.committed().next();
        let is_member = self.members.contains(worker);
        let agreed = self.corruption.agreed.as_ref();
        // Whoever has entered since may have its state from any of the others.
        let is_right = agreed.is_some_and(|(of, who)| {
            let others = self.members.iter().filter(|m| *m != worker && who.contains(m));
            who.contains(worker) && (*of == step || of.next() == step && others.count() > 1)
        });
        self.evict(now, worker, reason, out);
        if is_member && !is_right && !planted(Plant::KeepTainted) {
            let text = format!("what {worker} contributed to since the last checkpoint does not count");
            self.go_back(Step(step.0 - 1), &text, out);
        }
    }
}

/// Who says what.
type Camps = BTreeMap<String, Vec<WorkerId>>;

fn camps(said: &BTreeMap<WorkerId, String>) -> Camps {
    let mut camps = Camps::new();
    for (worker, word) in said {
        camps.entry(word.clone()).or_default().push(worker.clone());
    }
    camps
}

/// The one worker outside the majority, if there is just one; notes who it is, and in `what` they differ.
fn odd_one_out(what: &str, camps: &Camps, out: &mut Vec<Command>) -> Option<WorkerId> {
    let all: usize = camps.values().map(Vec::len).sum();
    let odd = camps
        .values()
        .find(|camp| camp.len() == 1 && camps.len() == 2 && all > 2);
    let odd = odd.map(|camp| camp[0].clone());
    let who = odd.as_ref().map_or("no majority".to_owned(), |worker| {
        format!("{worker} is the odd one")
    });
    out.push(note(NoteKind::Corruption, format!("{what} differ: {who}")));
    odd
}
