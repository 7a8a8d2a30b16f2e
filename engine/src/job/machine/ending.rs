//! Injected faults, and the end of the job.

use super::{Job, note};
use crate::ids::{Epoch, WorkerId};
use crate::job::{Command, Kill, NoteKind, Outcome, Phase};
use crate::plants::{Plant, planted};
use crate::time::Instant;

impl Job {
    /// Carries out the faults that are due in the step in flight.
    pub(super) fn inject(&mut self, now: Instant, out: &mut Vec<Command>) {
        if self.phase != Phase::Stepping {
            return;
        }
        let step = self.committed().next();
        let due: Vec<Kill> = self
            .rules
            .kills
            .iter()
            .copied()
            .filter(|kill| kill.step == step)
            .collect();
        self.rules.kills.retain(|kill| kill.step > step);
        for kill in due {
            match self
                .members
                .iter()
                .find(|worker| worker.slot == kill.slot)
                .cloned()
            {
                Some(worker) => {
                    self.lost_at.get_or_insert(now);
                    out.push(note(
                        NoteKind::Killed,
                        format!("SIGKILL to {worker} while step {step} is in flight"),
                    ));
                    out.push(Command::Kill(worker.clone()));
                    self.condemned.insert(worker);
                }
                None => {
                    let text = format!("no member in slot {} to kill at step {step}", kill.slot);
                    out.push(note(NoteKind::Killed, text));
                }
            }
        }
    }

    pub(super) fn finished(
        &mut self,
        now: Instant,
        worker: WorkerId,
        epoch: Epoch,
        weights: String,
        out: &mut Vec<Command>,
    ) {
        self.seen(now, &worker);
        if self.phase != Phase::Finishing || epoch != self.epoch || !self.members.contains(&worker) {
            self.stale += 1;
            return;
        }
        let committed = self.committed();
        if let Some(peer) = self.peers.get_mut(&worker) {
            peer.at = Some(committed);
        }
        self.finished.insert(worker, weights);
        let said = self.finished.clone();
        let all = said.len() == self.members.len();
        if !all || self.weights_agree(now, self.rules.steps.next(), &said, out) {
            self.try_end(out);
        }
    }

    /// The job is done when all members have done their part, and agree, and the last checkpoint is complete.
    pub(super) fn try_end(&mut self, out: &mut Vec<Command>) {
        let all = !self.members.is_empty() && self.finished.len() == self.members.len();
        if self.phase != Phase::Finishing || !all {
            return;
        }
        let Some(weights) = self.finished.values().next().cloned() else {
            return;
        };
        if self.lacks_last_checkpoint() && !planted(Plant::EndWithoutCheckpoint) {
            self.agreed_before(self.rules.steps.next(), out);
        } else {
            self.end(Outcome::Done { weights }, out);
        }
    }

    pub(super) fn end(&mut self, outcome: Outcome, out: &mut Vec<Command>) {
        let text = match &outcome {
            Outcome::Done { weights } => {
                format!("all {} steps are committed; weights {weights}", self.rules.steps)
            }
            Outcome::Failed(reason) => format!("failed: {reason}"),
            Outcome::Cancelled => format!("cancelled after step {}", self.committed()),
        };
        out.push(note(NoteKind::Ended, text));
        out.push(Command::End {
            workers: self.workers(),
            outcome: outcome.clone(),
        });
        self.members.clear();
        self.phase = Phase::Ended(outcome);
    }
}
