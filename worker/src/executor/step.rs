//! A step: compute lanes, reduce, apply; and the end of a job.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use lockstep_collective::CollectiveError;
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Lane, Step};
use lockstep_engine::membership::Source;
use lockstep_engine::rank::{Reduced, Snapshot, TaskEnd};
use lockstep_faults::Point;
use lockstep_trainer::Batch;
use lockstep_trainer::state::{are_finite, digest};

use super::{Ending, Executor, Failure, Gain, Outcome, Work};
use crate::validation;

impl Executor {
    /// The left fold of the lane's microbatches.
    pub(super) fn compute(&mut self, step: Step, lane: Lane) -> Outcome {
        let began = Instant::now();
        self.following = None; // a member keeps up by itself
        let mut buffer = self.partials.buffer();
        let (gradient, loss) = buffer.split_at_mut(self.trainer.layout().len());
        let mut consumed: Option<Range<u64>> = None;
        for positions in self.geometry.positions(step, lane) {
            let tokens = self.loader.read(positions.clone())?;
            let batch = Batch::new(&tokens, self.spec.batch.sequences as usize, &self.device)?;
            let mean = self.trainer.accumulate(&batch, gradient)?;
            loss.iter_mut().for_each(|sum| *sum += mean);
            consumed = Some(consumed.map_or(positions.clone(), |before| before.start..positions.end));
        }
        if let Some(positions) = consumed {
            self.spans.insert(lane, positions);
        }
        self.partials
            .insert(Node::leaf(lane), buffer)
            .map_err(|error| Failure::Fatal(format!("fold lane {lane}: {error}")))?;
        Ok(TaskEnd::Computed {
            took: began.elapsed(),
        }
        .into())
    }

    pub(super) fn reduce(&mut self, step: Step) -> Outcome {
        lockstep_faults::reach(Point::BeforeSend, step.0);
        self.following = None;
        let membership = self
            .membership
            .as_ref()
            .ok_or_else(|| Failure::Fatal("no epoch was entered".to_owned()))?;
        let assignment = membership.assignment(step);
        self.last = None; // its gradient is about to be overwritten
        let doubted = membership.recompute && step == membership.base.next();
        let feeds_members = step == membership.base.next()
            && membership
                .rank_of(&self.worker)
                .is_some_and(|rank| membership.sources.contains(&Source::Peer(rank)));
        if feeds_members {
            self.exchange_and_feed(step, &assignment)?;
        } else {
            self.endpoint.all_reduce(
                step,
                &self.buckets,
                &assignment,
                &self.partials,
                &mut self.reduced,
            )?;
        }
        lockstep_faults::reach(Point::Reduced, step.0);
        if lockstep_faults::miscomputes() {
            lockstep_faults::flip(&mut self.reduced);
        }
        let every = self.spec.guard.compare_weights_every;
        let compares = every > 0 && step.0.is_multiple_of(every) || self.copied || doubted;
        let result = Reduced {
            digest: digest(&self.reduced),
            loss: self.loss(),
            finite: are_finite(&self.reduced),
            weights: compares.then(|| self.trainer.state().digest()),
        };
        Ok(Ending {
            end: TaskEnd::Reduced(result),
            gain: Some(Gain::Spans(self.spans.clone())),
        })
    }

    /// Reduces while members that still lack the state ask this rank for it: the exchange waits for them, so they must
    /// not wait for its end.
    fn exchange_and_feed(&mut self, step: Step, assignment: &Assignment) -> Result<(), CollectiveError> {
        let Self {
            endpoint,
            buckets,
            partials,
            reduced,
            trainer,
            followers,
            queue,
            wake,
            later,
            void,
            ..
        } = self;
        let state = trainer.state();
        let feed = move || {
            loop {
                if followers.wait() && !void.load(Ordering::Acquire) {
                    followers.serve(state, None, Arc::default);
                }
                match queue.recv() {
                    Ok(Work::Feed(request)) => followers.ask(request),
                    Ok(Work::Wake) | Err(_) => return,
                    Ok(work) => later.push_back(work),
                }
            }
        };
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("feed-members".to_owned())
                .spawn_scoped(scope, feed)
                .map_err(|error| CollectiveError::System {
                    verb: "start a thread to feed members".to_owned(),
                    kind: error.kind(),
                })?;
            let exchanged = endpoint.all_reduce(step, buckets, assignment, partials, reduced);
            wake.send(Work::Wake).ok();
            exchanged
        })
        .map(drop)
    }

    /// The mean loss of the step that was reduced last, in nats a token.
    fn loss(&self) -> f32 {
        self.reduced.last().copied().unwrap_or(f32::NAN) * self.scale()
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
            let scale = self.scale();
            let gradient = &self.reduced[..self.trainer.layout().len()];
            let applied = self.trainer.apply(gradient, scale)?;
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
            lockstep_faults::flip(&mut state.weights);
            self.trainer.restore(state)?;
        }
        self.last = Some((step, skip));
        self.copied = false;
        self.forget_partials();
        Ok(TaskEnd::Done.into())
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
