//! Checkpoints: who writes which part, and when one is whole. Nobody waits for them but the job's end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Job, note};
use crate::ids::{Epoch, Step, WorkerId};
use crate::job::{Command, NoteKind, Phase};
use crate::plants::{Plant, planted};
use crate::rank::Snapshot;
use crate::time::Instant;

/// From a failure of the last checkpoint to the next try.
const RETRY: Duration = Duration::from_secs(5);

/// The newest attempt at a checkpoint, and the last that succeeded.
#[derive(Clone, Debug, Default)]
pub(super) struct Checkpoints {
    attempt: Option<Attempt>,
    sealed: Option<Step>,
    /// Since when the last step's checkpoint cannot be written, and why.
    problem: Option<(Instant, String)>,
}

#[derive(Clone, Debug)]
struct Attempt {
    step: Step,
    epoch: Epoch,
    /// By part: who writes it.
    writers: Vec<WorkerId>,
    /// By part: what the manifest is to say of it.
    written: BTreeMap<u32, String>,
    /// Whether all members have agreed on a step computed from this state, or on the state itself: before, a part may be
    /// that of a worker whose weights are wrong.
    agreed: bool,
    /// Who writes the manifest, once all parts are there and the state is agreed on.
    sealer: Option<WorkerId>,
}

impl Job {
    /// Whether a checkpoint of `step` is due.
    pub(super) fn checkpoint_due(&self, step: Step) -> bool {
        let every = self.rules.checkpoint_every;
        step == self.rules.steps || (every > 0 && step.0.is_multiple_of(every))
    }

    /// Whether the last step's checkpoint is still to be written.
    pub(super) fn lacks_last_checkpoint(&self) -> bool {
        self.checkpoints.sealed != Some(self.rules.steps)
    }

    /// Members are told to take a snapshot of `step` in this epoch.
    pub(super) fn begin_checkpoint(&mut self, step: Step, out: &mut Vec<Command>) {
        if let Some(old) = self.checkpoints.attempt.take()
            && old.step < step
            && old.sealer.is_none()
        {
            let text = format!(
                "the checkpoint of step {} is given up: {} of {} parts are written, and that of step {step} is due",
                old.step,
                old.written.len(),
                old.writers.len()
            );
            out.push(note(NoteKind::Checkpoint, text));
        }
        self.checkpoints.attempt = Some(Attempt {
            step,
            epoch: self.epoch,
            writers: self.members.clone(),
            written: BTreeMap::new(),
            agreed: false,
            sealer: None,
        });
    }

    pub(super) fn shard_written(
        &mut self,
        worker: &WorkerId,
        snapshot: Snapshot,
        record: String,
        out: &mut Vec<Command>,
    ) {
        let Snapshot {
            step, epoch, shard, ..
        } = snapshot;
        let expected = |attempt: &&mut Attempt| {
            (attempt.step, attempt.epoch) == (step, epoch)
                && attempt.writers.get(shard as usize) == Some(worker)
        };
        let Some(attempt) = self.checkpoints.attempt.as_mut().filter(expected) else {
            self.stale += 1;
            return;
        };
        attempt.written.insert(shard, record);
        self.try_seal(out);
    }

    /// Members agree on the state from which `step` was computed: so does everybody who writes a part, or it is given up.
    pub(super) fn agreed_before(&mut self, step: Step, out: &mut Vec<Command>) {
        let Some(attempt) = &mut self.checkpoints.attempt else {
            return;
        };
        if attempt.step >= step || attempt.agreed {
            return;
        }
        // A lone writer had nobody to compare with.
        if attempt.writers.len() == 1 || self.corruption.compared(step, &attempt.writers) {
            attempt.agreed = true;
            self.try_seal(out);
        } else {
            let text = format!(
                "the checkpoint of step {} is given up: who wrote a part is gone, and nobody has compared its state",
                attempt.step
            );
            self.checkpoints.attempt = None;
            out.push(note(NoteKind::Checkpoint, text));
        }
    }

    /// Somebody's weights are wrong, and may be in the newest checkpoint's parts.
    pub(super) fn distrust_checkpoint(&mut self, out: &mut Vec<Command>) {
        if let Some(attempt) = self.checkpoints.attempt.take_if(|attempt| !attempt.agreed) {
            let text = format!(
                "the checkpoint of step {} is given up: a part may be of wrong weights",
                attempt.step
            );
            out.push(note(NoteKind::Checkpoint, text));
        }
    }

    fn try_seal(&mut self, out: &mut Vec<Command>) {
        let Some(attempt) = self
            .checkpoints
            .attempt
            .as_mut()
            .filter(|attempt| attempt.agreed || planted(Plant::SealAtOnce))
        else {
            return;
        };
        if attempt.written.len() < attempt.writers.len() || attempt.sealer.is_some() {
            return;
        }
        let writers = attempt.writers.iter();
        let Some(worker) = writers
            .chain(self.peers.keys())
            .find(|w| self.peers.contains_key(*w))
            .cloned()
        else {
            return;
        };
        attempt.sealer = Some(worker.clone());
        out.push(Command::Seal {
            worker,
            step: attempt.step,
            epoch: attempt.epoch,
            shards: attempt.written.values().cloned().collect(),
        });
    }

    pub(super) fn checkpoint_written(
        &mut self,
        worker: &WorkerId,
        step: Step,
        weights: String,
        out: &mut Vec<Command>,
    ) {
        // One that was sealed before the ledger was cut back, or by a leader before this one, is there all the same.
        if step > self.committed() {
            self.stale += 1;
            return;
        }
        self.checkpoints.attempt.take_if(|attempt| attempt.step == step);
        self.checkpoints.sealed = self.checkpoints.sealed.max(Some(step));
        self.corruption.sealed();
        if !self.lacks_last_checkpoint() {
            self.checkpoints.problem = None;
        }
        out.push(note(
            NoteKind::Checkpoint,
            format!("the checkpoint of step {step} is complete, sealed by {worker}"),
        ));
        out.push(Command::RecordCheckpoint { step, weights });
        self.try_end(out);
    }

    pub(super) fn checkpoint_failed(
        &mut self,
        now: Instant,
        worker: &WorkerId,
        step: Step,
        reason: &str,
        out: &mut Vec<Command>,
    ) {
        let current = self.checkpoints.attempt.take_if(|attempt| attempt.step == step);
        if current.is_none() {
            self.stale += 1;
            return;
        }
        let last = step == self.rules.steps;
        let then = if last { "; it is tried again" } else { "" };
        let text = format!("the checkpoint of step {step} is given up: {worker}: {reason}{then}");
        if last {
            self.checkpoints.problem = Some((now, format!("{worker}: {reason}")));
        }
        out.push(note(NoteKind::Checkpoint, text));
    }

    /// Why the last step's checkpoint could not be written so far.
    #[must_use]
    pub fn last_checkpoint_problem(&self) -> Option<&str> {
        let (_, reason) = self.checkpoints.problem.as_ref()?;
        Some(reason)
    }

    /// Tries again to write the last step's checkpoint: a new epoch is a new attempt. The job is not over before.
    pub(super) fn retry_last_checkpoint(&mut self, now: Instant, out: &mut Vec<Command>) {
        let due = |(failed, _): &(Instant, String)| now.since(*failed) >= RETRY;
        if self.phase == Phase::Finishing
            && self.checkpoints.attempt.is_none()
            && self.checkpoints.problem.as_ref().is_some_and(due)
        {
            self.announce(now, "the last checkpoint is tried again", out);
        }
    }

    /// A worker is gone, and with it the part that it was to write; a manifest can be written by another.
    pub(super) fn checkpoint_writer_left(&mut self, worker: &WorkerId, out: &mut Vec<Command>) {
        let Some(attempt) = &mut self.checkpoints.attempt else {
            return;
        };
        let parts = (0u32..).zip(&attempt.writers);
        let lacking = parts.filter(|(part, _)| !attempt.written.contains_key(part));
        if lacking.into_iter().any(|(_, writer)| writer == worker) {
            let step = attempt.step;
            self.checkpoints.attempt = None;
            out.push(note(
                NoteKind::Checkpoint,
                format!(
                    "the checkpoint of step {step} is given up: {worker} is gone before its part was written"
                ),
            ));
        } else if attempt.sealer.take_if(|sealer| sealer == worker).is_some() {
            self.try_seal(out);
        }
    }

    /// The ledger is cut back to `step`: later checkpoints do not count.
    pub(super) fn cut_checkpoints(&mut self, step: Step) {
        self.checkpoints.attempt = None;
        self.checkpoints.problem = None;
        self.checkpoints.sealed.take_if(|sealed| *sealed > step);
    }
}

#[cfg(test)]
mod tests;
