//! Steps that would do harm: a loss or gradient that is not finite, or a spike.
//!
//! What is decided depends on the spec and the losses of earlier steps alone, so that a run in which workers died
//! decides as one in which none did.

use super::{Job, note};
use crate::ids::{Lane, Step, WorkerId};
use crate::job::{BadStep, Command, NoteKind, Outcome};
use crate::ledger::{Entry, Span};
use crate::rank::Reduced;
use crate::time::Instant;

/// Good steps before a step whose losses say what is usual, and how many of them it takes.
const USUAL: usize = 32;
const ENOUGH: usize = 8;

/// What becomes of a reduced step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is committed; its gradient is thrown away if so said.
    Commit { skip: bool },
    /// It was dealt with otherwise.
    Dealt,
}

impl Job {
    /// Judges the step in flight, by what came out of it.
    pub(super) fn judge(&mut self, now: Instant, result: &Reduced, out: &mut Vec<Command>) -> Judgement {
        let Some(problem) = self.problem(result) else {
            return Judgement::Commit { skip: false };
        };
        let step = self.committed().next();
        if self.doubt(now, step, out) {
            return Judgement::Dealt;
        }
        match self.rules.guard.policy {
            BadStep::Stop => {
                let reason = format!(
                    "step {step}: {problem}; lower optim.learning_rate, look at the data, or set guard.bad_step to \
                     \"skip\" or \"rollback\""
                );
                self.end(Outcome::Failed(reason), out);
                Judgement::Dealt
            }
            BadStep::Skip => {
                out.push(note(
                    NoteKind::BadStep,
                    format!("step {step}: {problem}; its gradient is thrown away"),
                ));
                Judgement::Commit { skip: true }
            }
            BadStep::Rollback => {
                let every = self.rules.checkpoint_every.max(1);
                // The last state for which a checkpoint was due, whether or not it was written.
                let last = if self.rules.checkpoint_every == 0 {
                    0
                } else {
                    (step.0 - 1) / every * every
                };
                let text = format!(
                    "step {step}: {problem}; back to the state after step {last}, and on after step {step} without \
                     the steps between"
                );
                out.push(note(NoteKind::BadStep, text));
                self.void.extend((last + 1..=step.0).map(Step));
                self.go_back(Step(last), "a bad step", out);
                Judgement::Dealt
            }
        }
    }

    fn problem(&self, result: &Reduced) -> Option<String> {
        if !result.loss.is_finite() {
            return Some(format!("its loss is {}", result.loss));
        }
        if !result.finite {
            return Some("its gradient has values that are not finite".to_owned());
        }
        let factor = self.rules.guard.spike_factor;
        let usual = self.usual_loss()?;
        (factor > 0.0 && result.loss > factor * usual).then(|| {
            format!(
                "its loss is {:.4}, that of the last good steps {usual:.4}",
                result.loss
            )
        })
    }

    /// The median loss of the last good steps.
    fn usual_loss(&self) -> Option<f32> {
        let good = self
            .past
            .losses
            .iter()
            .rev()
            .copied()
            .filter(|loss| loss.is_finite());
        let mut losses: Vec<f32> = good.take(USUAL).collect();
        losses.sort_by(f32::total_cmp);
        (losses.len() >= ENOUGH).then(|| losses[losses.len() / 2])
    }

    /// The history after `step` does not count any more. What was skipped in it will be skipped again.
    pub(super) fn cut(&mut self, step: Step) {
        let losses = (1u64..).map(Step).zip(&self.past.losses);
        let skipped = losses.filter(|(of, loss)| *of > step && loss.is_nan());
        self.void.extend(skipped.map(|(of, _)| of));
        self.past.losses.truncate(step.0 as usize);
        self.state = step;
    }

    /// Whether the step after the last committed one is to be skipped unseen.
    pub(super) fn jumps(&self) -> bool {
        self.void.contains(&self.committed().next())
    }

    /// Commits the steps that are to be skipped unseen, as far as they follow on the last committed one.
    pub(super) fn jump(&mut self, members: &[WorkerId], out: &mut Vec<Command>) {
        let Some(worker) = members.first() else { return };
        let (geometry, epoch) = (self.rules.geometry, self.epoch);
        let last = (self.committed().0 + 1..)
            .map(Step)
            .take_while(|step| self.void.contains(step))
            .last();
        while self.void.remove(&self.committed().next()) {
            let step = self.committed().next();
            let span = |lane| Span {
                positions: geometry.span(step, Lane(lane)),
                worker: worker.clone(),
            };
            out.push(Command::Record(Entry {
                step,
                epoch,
                workers: members.len() as u32,
                digest: String::new(),
                loss: f32::NAN,
                spans: (0..geometry.lanes).map(span).collect(),
                milliseconds: 0.0,
                skipped: true,
                unseen_to: last,
            }));
            self.past.losses.push(f32::NAN);
        }
    }
}
