//! The verdict on the step in flight: commit it, compute it again, or end the job.

use super::guard::Judgement;
use super::{Job, note};
use crate::geometry::Assignment;
use crate::ids::{Step, WorkerId};
use crate::job::{Command, NoteKind, Outcome, Phase, Report};
use crate::ledger::{Entry, Span};
use crate::plants::{Plant, planted};
use crate::rank::Verdict;
use crate::time::Instant;

/// What changes at a boundary.
struct Change {
    leaving: Vec<WorkerId>,
    reason: String,
}

impl Job {
    pub(super) fn reduced(&mut self, now: Instant, report: Report, out: &mut Vec<Command>) {
        self.seen(now, &report.worker);
        let current = report.epoch == self.epoch || planted(Plant::ReportOfAnyEpoch);
        let current = current && report.step == self.committed().next();
        if !current || self.phase != Phase::Stepping || !self.members.contains(&report.worker) {
            self.stale += 1;
            return;
        }
        let committed = self.committed();
        if let Some(peer) = self.peers.get_mut(&report.worker) {
            peer.at = Some(committed);
        }
        self.reports.insert(report.worker.clone(), report);
        self.try_commit(now, out);
    }

    fn try_commit(&mut self, now: Instant, out: &mut Vec<Command>) {
        let enough = self.reports.len() == self.members.len()
            || planted(Plant::CommitOnHalf) && self.reports.len() * 2 >= self.members.len();
        if !enough || !self.condemned.is_empty() || !self.agree(now, out) {
            return;
        }
        let step = self.committed().next();
        let reports = std::mem::take(&mut self.reports);
        let Some(Report { result, .. }) = reports.values().next() else {
            return;
        };
        let milliseconds = now.since(self.committed_at.unwrap_or(now)).as_secs_f64() * 1e3;
        let mut spans: Vec<_> = reports.values().flat_map(|report| report.spans.clone()).collect();
        spans.sort_by_key(|span| span.positions.start);
        if let Err(reason) = self.check_spans(step, &spans)
            && !planted(Plant::CountTwice)
        {
            self.end(Outcome::Failed(reason), out);
            return;
        }
        let Judgement::Commit { skip } = self.judge(now, result, out) else {
            return;
        };
        let entry = Entry {
            step,
            epoch: self.epoch,
            workers: self.members.len() as u32,
            digest: result.digest.clone(),
            loss: result.loss,
            spans,
            milliseconds,
            skipped: skip && !planted(Plant::SkipUnrecorded),
            unseen_to: None,
        };
        self.commit(now, entry, skip, out);
    }

    fn commit(&mut self, now: Instant, entry: Entry, skip: bool, out: &mut Vec<Command>) {
        let step = entry.step;
        self.past.losses.push(if skip { f32::NAN } else { entry.loss });
        self.state = step;
        self.compare_speeds();
        let last = step == self.rules.steps;
        let change = if last { None } else { self.change_at_boundary() };
        let snapshot = self.checkpoint_due(step);
        out.push(Command::Commit {
            workers: self.members.clone(),
            verdict: Verdict {
                epoch: self.epoch,
                step,
                skip,
                ends_epoch: change.is_some(),
                snapshot,
                recorded: self.recorded,
            },
        });
        out.push(Command::Record(entry));
        for member in &self.members {
            if let Some(peer) = self.peers.get_mut(member) {
                peer.at = Some(step);
            }
        }
        self.agreed_before(step, out);
        if snapshot {
            self.begin_checkpoint(step, out);
        }
        self.complaints.forgive();
        self.pace.committed(now);
        self.committed_at = Some(now);
        self.owners.clear();
        if let Some(lost_at) = self.lost_at.take() {
            let took = now.since(lost_at);
            out.push(note(
                NoteKind::Recovered,
                format!("step {step} is committed {} ms after the loss", took.as_millis()),
            ));
            out.push(Command::Recovered { took });
        }
        if last {
            self.phase = Phase::Finishing;
            return;
        }
        match change {
            Some(Change { leaving, reason }) => {
                for worker in &leaving {
                    self.members.retain(|member| member != worker);
                }
                self.jump(&self.members.clone(), out);
                self.announce(now, &reason, out);
                for worker in leaving {
                    self.evict(now, &worker, "its node is drained", out);
                }
            }
            None => {
                let fresh = Assignment::weighted(self.rules.geometry.lanes, self.pace.weights());
                self.give_out(&fresh, &self.members.clone());
                self.pace.begin(now, false);
                self.inject(now, out);
            }
        }
    }

    /// What the boundary after a step is used for, if it is: then the epoch ends with the step.
    fn change_at_boundary(&self) -> Option<Change> {
        let candidates = self.candidates();
        let leaving = self.leaving(candidates.len());
        let staying = self.members.len() - leaving.len();
        let room = (self.rules.max_workers as usize).saturating_sub(staying);
        let joining = room.min(candidates.len());
        let mut reasons = Vec::new();
        if joining > 0 {
            reasons.push(format!("{joining} joining at the boundary"));
        }
        if !leaving.is_empty() {
            reasons.push(format!("{} leaving", leaving.len()));
        }
        if reasons.is_empty() && self.is_lopsided() {
            reasons.push("lanes follow the speed of members".to_owned());
        }
        if self.jumps() {
            reasons.push("steps are skipped".to_owned());
        }
        let reason = reasons.join(", ");
        (!reason.is_empty()).then_some(Change { leaving, reason })
    }

    /// Every sample of the step exactly once, by the loaders' own word.
    fn check_spans(&self, step: Step, spans: &[Span]) -> Result<(), String> {
        let samples = self.rules.geometry.samples();
        let (mut reached, end) = ((step.0 - 1) * samples, step.0 * samples);
        for Span { positions, worker } in spans {
            if positions.start != reached {
                return Err(format!(
                    "step {step}: {worker} used samples {positions:?}, expected them from {reached}"
                ));
            }
            reached = positions.end;
        }
        if reached == end {
            Ok(())
        } else {
            Err(format!("step {step}: samples {reached}..{end} were not used"))
        }
    }
}
