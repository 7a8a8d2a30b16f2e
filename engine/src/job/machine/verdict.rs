//! The verdict on the step in flight: commit it, compute it again, or end the job.

use std::collections::BTreeMap;

use super::{Job, note};
use crate::geometry::Assignment;
use crate::ids::{Step, WorkerId};
use crate::job::{Command, NoteKind, Outcome, Phase, Report};
use crate::ledger::{Entry, Span};
use crate::time::Instant;

impl Job {
    pub(super) fn reduced(&mut self, now: Instant, report: Report, out: &mut Vec<Command>) {
        self.seen(now, &report.worker);
        let current = report.epoch == self.epoch && report.step == self.committed.next();
        if !current || self.phase != Phase::Stepping || !self.members.contains(&report.worker) {
            self.stale += 1;
            return;
        }
        let committed = self.committed;
        if let Some(peer) = self.peers.get_mut(&report.worker) {
            peer.at = Some(committed);
        }
        self.reports.insert(report.worker.clone(), report);
        self.try_commit(now, out);
    }

    fn try_commit(&mut self, now: Instant, out: &mut Vec<Command>) {
        if self.reports.len() < self.members.len() || !self.condemned.is_empty() {
            return;
        }
        if let Some(odd) = odd_one_out(&self.reports) {
            self.dispute(now, odd, out);
            return;
        }
        let step = self.committed.next();
        let reports = std::mem::take(&mut self.reports);
        let Some(word) = reports.values().next() else {
            return;
        };
        let milliseconds = now.since(self.committed_at.unwrap_or(now)).as_secs_f64() * 1e3;
        let mut spans: Vec<_> = reports.values().flat_map(|report| report.spans.clone()).collect();
        spans.sort_by_key(|span| span.positions.start);
        if let Err(reason) = self.check_spans(step, &spans) {
            self.end(Outcome::Failed(reason), out);
            return;
        }
        let entry = Entry {
            step,
            epoch: self.epoch,
            workers: self.members.len() as u32,
            digest: word.digest.clone(),
            loss: word.loss,
            spans,
            milliseconds,
        };
        let room = (self.rules.max_workers as usize).saturating_sub(self.members.len());
        let joining = room.min(self.peers.len() - self.members.len());
        let ends_epoch = joining > 0 && step < self.rules.steps;
        out.push(Command::Commit {
            workers: self.members.clone(),
            epoch: self.epoch,
            step,
            ends_epoch,
            recorded: self.recorded,
        });
        out.push(Command::Record(entry));
        self.committed = step;
        for member in &self.members {
            if let Some(peer) = self.peers.get_mut(member) {
                peer.at = Some(step);
            }
        }
        self.complaints.forgive();
        self.committed_at = Some(now);
        self.owners.clear();
        self.disputes = 0;
        if let Some(lost_at) = self.lost_at.take() {
            let took = now.since(lost_at);
            out.push(note(
                NoteKind::Recovered,
                format!("step {step} is committed {} ms after the loss", took.as_millis()),
            ));
            out.push(Command::Recovered { took });
        }
        if step == self.rules.steps {
            self.phase = Phase::Finishing;
            return;
        }
        if ends_epoch {
            self.announce(now, &format!("{joining} joining at the boundary"), out);
        } else {
            let fresh = Assignment::fresh(self.rules.geometry.lanes, self.members.len() as u32);
            let members = std::mem::take(&mut self.members);
            self.give_out(&fresh, &members);
            self.members = members;
            self.inject(now, out);
        }
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

    /// Members hold different results: compute the step again, and if it happens again, without the odd one.
    fn dispute(&mut self, now: Instant, odd: Option<WorkerId>, out: &mut Vec<Command>) {
        self.disputes += 1;
        let step = self.committed.next();
        let who = odd.as_ref().map_or("no majority".to_owned(), |worker| {
            format!("{worker} is the odd one")
        });
        out.push(note(
            NoteKind::Corruption,
            format!("digests of step {step} differ: {who}"),
        ));
        match (self.disputes, odd) {
            (1, _) => self.announce(now, "digests differ; computing the step again", out),
            (_, Some(worker)) => self.evict(now, &worker, "its results differ from everyone else's", out),
            (_, None) => {
                let reason =
                    format!("digests of step {step} differ twice without a majority; check the hardware");
                self.end(Outcome::Failed(reason), out);
            }
        }
    }
}

/// `None` when all digests agree; else the one worker outside the majority, if there is just one.
#[expect(
    clippy::option_option,
    reason = "three answers: agreed, one odd worker, no majority"
)]
fn odd_one_out(reports: &BTreeMap<WorkerId, Report>) -> Option<Option<WorkerId>> {
    let mut camps: BTreeMap<&str, Vec<&WorkerId>> = BTreeMap::new();
    for report in reports.values() {
        camps.entry(&report.digest).or_default().push(&report.worker);
    }
    if camps.len() <= 1 {
        return None;
    }
    let odd = camps
        .values()
        .find(|camp| camp.len() == 1 && camps.len() == 2 && reports.len() > 2);
    Some(odd.map(|camp| camp[0].clone()))
}
