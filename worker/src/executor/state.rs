//! Coming by the state, keeping up with a donor, feeding followers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lockstep_collective::{Advance, CollectiveError, FollowOptions, Shape};
use lockstep_engine::ids::{Epoch, Step};
use lockstep_engine::membership::{Member, Source};
use lockstep_engine::rank::TaskEnd;
use lockstep_faults::Point;
use lockstep_trainer::State;
use lockstep_trainer::checkpoint;

use super::reducer::Reducer;
use super::{Executor, Failure, Outcome, identity, new_trainer, peer};

impl Executor {
    pub(super) fn acquire(&mut self, step: Step, source: Source) -> Outcome {
        // Whoever keeps up with this rank would not know of the jump, nor would its own donor.
        self.followers.leave();
        self.following = None;
        // It comes to hold another state, and then nobody shares the old one but what is still to be written.
        self.checkpoints.let_go(Duration::ZERO);
        match source {
            Source::Seed if step == Step(0) => {
                // A new process has just been initialised; one that has trained begins anew.
                if self.has_trained || self.trainer.state().step != step {
                    self.trainer =
                        new_trainer(self.network, &self.spec, &self.device).map_err(Failure::Fatal)?;
                }
            }
            Source::Checkpoint => {
                let path = checkpoint::folder(self.checkpoints.folder(), step);
                lockstep_faults::reach(Point::BeforeLoad, step.0);
                let loaded = checkpoint::load(&path).map_err(|error| Failure::Damaged(error.to_string()))?;
                let about = self.checkpoints.about();
                loaded.manifest.check_run(&path, self.trainer.layout(), about)?;
                self.trainer.restore(loaded.state)?;
            }
            other => {
                return Err(Failure::Fatal(format!(
                    "told to come by the state of step {step} from {other:?}, which has none to give"
                )));
            }
        }
        self.hold_anew();
        Ok(TaskEnd::Done.into())
    }

    /// The state came from elsewhere: what was computed on another one is of no use.
    fn hold_anew(&mut self) {
        self.holds = true;
        self.last = None;
        self.copied = false;
        self.forget_partials();
    }

    /// The state does not count any more.
    pub(super) fn forget(&mut self) {
        self.has_trained |= self.holds;
        self.holds = false;
        self.void.store(false, Ordering::Release);
        self.last = None;
        self.copied = false;
        self.following = None;
        self.followers.leave();
        self.forget_partials();
    }

    /// Takes the next thing that the donor tells.
    pub(super) fn follow(&mut self, epoch: Epoch, donor: &Member) -> Outcome {
        let lost = |error: CollectiveError| match error {
            CollectiveError::Superseded { .. } => Failure::Superseded,
            other => Failure::DonorLost {
                donor: donor.worker.clone(),
                reason: other.to_string(),
            },
        };
        let name = identity(&donor.worker);
        let mut following = match self
            .following
            .take()
            .filter(|following| following.donor() == name)
        {
            Some(following) => following,
            None => {
                let entered = self
                    .membership
                    .as_ref()
                    .filter(|membership| membership.epoch == epoch);
                let len = self.trainer.layout().len();
                let options = FollowOptions {
                    donor: peer(donor),
                    held: self.holds.then_some(self.trainer.state().step),
                    at_least: entered.map_or(Step(0), |membership| membership.base),
                    shape: Shape {
                        state: vec![len; 3],
                        gradient: len,
                    },
                };
                self.endpoint.follow(options).map_err(lost)?
            }
        };
        let advance = match following.next(epoch) {
            Ok(advance) => advance,
            Err(error) => {
                // Called away, it goes on where it was; otherwise there is nothing to go on with.
                self.following = matches!(error, CollectiveError::Superseded { .. }).then_some(following);
                return Err(lost(error));
            }
        };
        let step = advance.step();
        lockstep_faults::reach(Point::DuringJoin, step.0);
        match advance {
            Advance::Same { .. } => self.forget_partials(),
            Advance::State { parts, .. } => {
                self.followers.leave();
                self.checkpoints.let_go(Duration::ZERO);
                let parts = <[Vec<f32>; 3]>::try_from(parts)
                    .map_err(|parts| Failure::Fatal(format!("a state of {} parts, not 3", parts.len())))?;
                self.trainer.restore(State::new(step, parts))?;
                self.hold_anew();
            }
            Advance::Gradient { values, .. } => {
                match &values {
                    Some(gradient) => {
                        self.let_go_of_state();
                        self.trainer.apply(gradient, self.scale())?;
                    }
                    None => self.trainer.skip(step),
                }
                self.forget_partials();
                self.last = None;
                self.copied = false;
                let shared = values.map(Arc::new);
                self.followers.tell(step, shared.as_ref());
                if let Some(values) = shared.and_then(Arc::into_inner) {
                    following.recycle(values);
                }
            }
        }
        self.following = Some(following);
        Ok(TaskEnd::Followed { step }.into())
    }

    /// Takes all steps up to `to` without a gradient.
    pub(super) fn skip(&mut self, to: Step) -> Outcome {
        while self.trainer.state().step < to {
            let step = self.trainer.state().step.next();
            self.trainer.skip(step);
            self.followers.tell(step, None);
        }
        self.last = Some((to, true));
        self.following = None;
        self.forget_partials();
        Ok(TaskEnd::Done.into())
    }

    /// The reduced gradient to share, without the loss before it.
    pub(super) fn shared_gradient(&self) -> Arc<Vec<f32>> {
        shared(&self.reducer)
    }

    /// Answers those who can be answered now.
    pub(super) fn serve_followers(&mut self) {
        if self.followers.wait() && self.holds && !self.void.load(Ordering::Acquire) {
            let gradient = || shared(&self.reducer);
            self.followers.serve(self.trainer.state(), self.last, gradient);
        }
    }
}

fn shared(reducer: &Reducer) -> Arc<Vec<f32>> {
    Arc::new(reducer.gradient().to_vec())
}
