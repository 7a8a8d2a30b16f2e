//! A step: compute lanes, reduce, apply; and the end of a job.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use lockstep_engine::ids::{Lane, Step};
use lockstep_engine::membership::Membership;
use lockstep_engine::rank::{Reduced, Snapshot, TaskEnd};
use lockstep_faults::Point;
use lockstep_trainer::Batch;
use lockstep_trainer::state::{are_finite, digest};

use super::buckets::LaneGradient;
use super::{Ending, Executor, Failure, Gain, Outcome, Work};
use crate::validation;

impl Executor {
    /// The left fold of the lane's microbatches. If nothing else is missing here of the step, its buckets are reduced as
    /// soon as they are done.
    pub(super) fn compute(&mut self, step: Step, lane: Lane) -> Outcome {
        let began = Instant::now();
        self.following = None; // a member keeps up by itself
        let overlaps = self.spec.collective.overlap && self.is_completed_by(step, lane);
        if overlaps {
            self.begin_reduction(step)?;
        }
        let mut microbatches = self.geometry.positions(step, lane).peekable();
        let mut after = self.after(step, lane);
        let reducer = overlaps.then_some(&mut self.reducer);
        let computing = self.endpoint.computing();
        let mut gradient = LaneGradient::new(lane, &self.buckets, &mut self.partials, reducer);
        while let Some(positions) = microbatches.next() {
            let next = microbatches.peek().cloned().or_else(|| {
                gradient.end_with_next();
                after.take()
            });
            let tokens = self.loader.read(positions, next)?;
            let batch = Batch::new(&tokens, self.spec.batch.sequences as usize, &self.device)?;
            let mean = self.trainer.accumulate_in_buckets(&batch, &mut gradient)?;
            gradient.add_loss(mean);
        }
        gradient.end().map_err(Failure::Fatal)?;
        drop(computing);
        self.spans.insert(lane, self.geometry.span(step, lane));
        Ok(TaskEnd::Computed {
            took: began.elapsed(),
        }
        .into())
    }

    /// Whether a lane is all that is missing here of a step.
    fn is_completed_by(&self, step: Step, lane: Lane) -> bool {
        let Some(membership) = &self.membership else {
            return false;
        };
        let Some(me) = membership.rank_of(&self.worker) else {
            return false;
        };
        let mine = membership.assignment(step).lanes_of(me).collect::<Vec<Lane>>();
        let others = || mine.iter().copied().filter(|&other| other != lane);
        self.partials.iter().all(|partials| partials.covers(others()))
    }

    /// The first positions that this rank will most likely compute after a lane.
    fn after(&self, step: Step, lane: Lane) -> Option<Range<u64>> {
        let membership = self.membership.as_ref()?;
        let me = membership.rank_of(&self.worker)?;
        let lanes = |step| membership.assignment(step).lanes_of(me).collect::<Vec<_>>();
        let in_step = lanes(step).into_iter().find(|&other| other > lane);
        let (step, lane) = match in_step {
            Some(lane) => (step, lane),
            None => (step.next(), lanes(step.next()).first().copied()?),
        };
        self.geometry.positions(step, lane).next()
    }

    fn begin_reduction(&mut self, step: Step) -> Result<(), Failure> {
        let membership = self.entered()?;
        let (epoch, assignment) = (membership.epoch, membership.assignment(step));
        self.last = None; // its gradient is about to be overwritten
        self.reducer.begin(epoch, step, assignment);
        Ok(())
    }

    fn entered(&self) -> Result<&Membership, Failure> {
        let none = || Failure::Fatal("no epoch was entered".to_owned());
        self.membership.as_ref().ok_or_else(none)
    }

    pub(super) fn reduce(&mut self, step: Step) -> Outcome {
        self.following = None;
        let membership = self.entered()?;
        let doubted = membership.recompute && step == membership.base.next();
        if !self.reducer.reduces(step) {
            self.begin_reduction(step)?;
            for (bucket, partials) in self.partials.iter().enumerate() {
                self.reducer.offer(bucket, partials);
            }
        }
        self.await_reduction()?;
        lockstep_faults::reach(Point::Reduced, step.0);
        if lockstep_faults::miscomputes() {
            lockstep_faults::flip(self.reducer.gradient_mut());
        }
        let every = self.spec.guard.compare_weights_every;
        let compares = every > 0 && step.0.is_multiple_of(every) || self.copied || doubted;
        let reduced = self.reducer.reduced();
        let result = Reduced {
            digest: digest(reduced),
            loss: self.loss(),
            finite: are_finite(reduced),
            weights: compares.then(|| self.trainer.state().digest()),
        };
        Ok(Ending {
            end: TaskEnd::Reduced(result),
            gain: Some(Gain::Spans(self.spans.clone())),
        })
    }

    /// Answers those who ask for the state meanwhile: members that still lack it take part in the reduction only then.
    fn await_reduction(&mut self) -> Result<(), Failure> {
        loop {
            if let Some(result) = self.reducer.ended() {
                return Ok(result?);
            }
            self.serve_followers();
            match self.queue.recv() {
                Ok(Work::Feed(request)) => self.followers.ask(request),
                Ok(Work::Wake) => {}
                Ok(work) => self.later.push_back(work),
                Err(_) => return Err(Failure::Superseded), // nobody asks for anything any more
            }
        }
    }

    /// The mean loss of the step that was reduced last, in nats a token.
    fn loss(&self) -> f32 {
        self.reducer.reduced().first().copied().unwrap_or(f32::NAN) * self.scale()
    }

    /// One over the microbatches of a step.
    pub(super) fn scale(&self) -> f32 {
        1.0 / self.geometry.microbatches as f32
    }

    pub(super) fn apply(&mut self, step: Step, skip: bool) -> Outcome {
        lockstep_faults::reach(Point::AfterCommit, step.0);
        if skip {
            self.trainer.skip(step);
            self.followers.tell(step, None);
        } else {
            self.let_go_of_state();
            let scale = self.scale();
            let applied = self.trainer.apply(self.reducer.gradient(), scale)?;
            if self.followers.are_fed() {
                let gradient = self.shared_gradient();
                self.followers.tell(step, Some(&gradient));
            }
            if self.is_first() {
                tracing::info!(
                    "step: {step}  loss: {:.4}  grad_norm: {:.3}  lr: {:.2e}",
                    self.loss(),
                    applied.grad_norm,
                    applied.learning_rate
                );
            }
        }
        lockstep_faults::reach(Point::Applied, step.0);
        if lockstep_faults::miscomputes() {
            let mut state = self.trainer.state().clone();
            let weights = Arc::make_mut(&mut state.weights);
            lockstep_faults::flip(weights);
            self.trainer.restore(state)?;
        }
        self.last = Some((step, skip));
        self.copied = false;
        self.forget_partials();
        Ok(TaskEnd::Done.into())
    }

    /// Before a step changes the state: what is to be written of it is waited for, or copied.
    pub(super) fn let_go_of_state(&self) {
        self.checkpoints.let_go(self.spec.elastic.lease());
    }

    pub(super) fn snapshot(&mut self, snapshot: Snapshot) -> Outcome {
        let state = self.trainer.state();
        if state.step != snapshot.step {
            return Err(Failure::Fatal(format!(
                "asked for a snapshot of step {}, holding {}",
                snapshot.step, state.step
            )));
        }
        // The best are chosen by how well they predict held-out text; one member finds that out.
        let scored = snapshot.shard == 0 && self.spec.checkpoint.keep_best > 0;
        let score = if scored {
            self.evaluate()?.map(|(bits, ..)| bits)
        } else {
            None
        };
        self.checkpoints.write(self.trainer.state(), snapshot, score)?;
        self.copied = true;
        Ok(TaskEnd::Done.into())
    }

    /// Bits per byte of the held-out text, gzip's, and its bytes; `None` where nothing was held out.
    fn evaluate(&self) -> Result<Option<(f64, f64, u64)>, Failure> {
        let dataset = self.loader.dataset();
        let scored =
            validation::evaluate(&self.trainer, dataset, &self.spec, &self.device).map_err(Failure::Fatal)?;
        let bytes = dataset.validation().bytes();
        let gzip = dataset.manifest().gzip_bits_per_byte.unwrap_or(f64::NAN);
        Ok(scored.map(|scored| (scored.bits_per_byte(bytes), gzip, bytes)))
    }

    pub(super) fn finish(&mut self, evaluate: bool) -> Outcome {
        let weights = self.trainer.weights_digest();
        let evaluation = if evaluate { self.evaluate()? } else { None };
        Ok(Ending {
            end: TaskEnd::Done,
            gain: Some(Gain::Finished { weights, evaluation }),
        })
    }
}
