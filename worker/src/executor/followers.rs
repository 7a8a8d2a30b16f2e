//! Those who keep up with this rank, and those who ask for it.

use std::sync::Arc;

use lockstep_collective::{Feed, FollowRequest, Start};
use lockstep_engine::ids::Step;
use lockstep_faults::Point;
use lockstep_trainer::State;

#[derive(Default)]
pub(super) struct Followers {
    feeds: Vec<Feed>,
    /// They wait until this rank holds a state that they can use.
    waiting: Vec<FollowRequest>,
}

impl Followers {
    pub(super) fn ask(&mut self, request: FollowRequest) {
        self.waiting.push(request);
    }

    /// Whether anybody waits for an answer.
    pub(super) fn wait(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether anybody keeps up.
    pub(super) fn are_fed(&self) -> bool {
        !self.feeds.is_empty()
    }

    /// The state does not follow from the one before: whoever kept up has to ask anew.
    pub(super) fn leave(&mut self) {
        self.feeds.clear();
    }

    /// Tells those who keep up of a step that was just applied, or skipped.
    pub(super) fn tell(&mut self, step: Step, gradient: Option<&Arc<Vec<f32>>>) {
        self.feeds.retain(|feed| feed.push(step, gradient.cloned()));
    }

    /// Answers those who can be answered with this state. `last` is the step that led to it, and whether it was thrown
    /// away, while its `gradient` is still there.
    pub(super) fn serve(
        &mut self,
        state: &State,
        last: Option<(Step, bool)>,
        gradient: impl Fn() -> Arc<Vec<f32>>,
    ) {
        let step = state.step;
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|request| request.at_least <= step);
        self.waiting = later;
        for request in now {
            lockstep_faults::reach(Point::DuringDonation, step.0);
            let start = match (request.held, last) {
                (Some(held), _) if held == step => Start::Same(step),
                (Some(held), Some((last, skipped))) if held.next() == step && last == step => {
                    Start::Gradient {
                        step,
                        gradient: (!skipped).then(&gradient),
                    }
                }
                _ => {
                    let State {
                        weights,
                        first,
                        second,
                        ..
                    } = state.clone();
                    let parts = vec![weights, first, second];
                    Start::State { step, parts }
                }
            };
            tracing::info!("feeds {} with {start:?}", request.follower);
            match request.answer(start) {
                Ok(feed) => self.feeds.push(feed),
                Err(error) => tracing::warn!("cannot feed a follower: {error}"),
            }
        }
    }
}
