//! Feeds: a newcomer is told the state and every step after it, while the others go on.

mod bounds;
mod catching_up;
mod faults;
mod telling;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use lockstep_collective::{
    Advance, CollectiveError, Feed, FollowOptions, FollowRequest, Following, LossReason, Options, Peer,
    Shape, Start,
};
use lockstep_engine::ids::Step;

pub(crate) use crate::support::*;

/// Far longer than it takes when nobody waits, and far shorter than any time-out.
const PROMPT: Duration = Duration::from_secs(20);

/// An endpoint that hands over who wants to follow.
struct Donor {
    member: Member,
    requests: Receiver<FollowRequest>,
}

impl Donor {
    fn new() -> Self {
        Self::with(options("donor"))
    }

    fn with(mut options: Options) -> Self {
        let (asked, requests) = channel();
        // A donor that is closing has nobody left to answer.
        options.on_follow = Box::new(move |request| drop(asked.send(request)));
        let member = Member::with(options);
        Self { member, requests }
    }

    /// The next request.
    fn asked(&self) -> FollowRequest {
        self.requests.recv_timeout(LONG).unwrap()
    }

    /// The next request, answered with the state as of `step`.
    fn give_state(&self, step: u64, lens: &[usize]) -> Feed {
        let (step, parts) = (Step(step), state(step, lens));
        self.asked().answer(Start::State { step, parts }).unwrap()
    }
}

/// The state as of a step.
fn state(step: u64, lens: &[usize]) -> Vec<Arc<Vec<f32>>> {
    let part = |(number, &len): (u32, &usize)| Arc::new(lane(number, len, step));
    (0u32..).zip(lens).map(part).collect()
}

/// The gradient of a step; every seventh is skipped.
fn gradient(step: u64, len: usize) -> Option<Arc<Vec<f32>>> {
    (!step.is_multiple_of(7)).then(|| Arc::new(lane(99, len, step)))
}

fn follow(member: &Member, donor: &Peer, held: Option<u64>, at_least: u64, shape: &Shape) -> Following {
    let options = FollowOptions {
        donor: donor.clone(),
        held: held.map(Step),
        at_least: Step(at_least),
        shape: shape.clone(),
    };
    member.endpoint.follow(options).unwrap()
}

fn shape(state: &[usize], gradient: usize) -> Shape {
    let state = state.to_vec();
    Shape { state, gradient }
}

fn is_state(advance: &Advance, step: u64, lens: &[usize]) -> bool {
    let Advance::State { step: found, parts } = advance else {
        return false;
    };
    let expected = state(step, lens);
    *found == Step(step)
        && parts.len() == expected.len()
        && parts
            .iter()
            .zip(expected)
            .all(|(part, expected)| bits(part) == bits(&expected))
}

fn is_gradient(advance: &Advance, step: u64, len: usize) -> bool {
    let Advance::Gradient { step: found, values } = advance else {
        return false;
    };
    let expected = gradient(step, len);
    *found == Step(step) && values.as_deref().map(bits) == expected.as_deref().map(|expected| bits(expected))
}

/// Why there is no more.
fn loss(result: Result<Advance, CollectiveError>) -> LossReason {
    match result {
        Err(CollectiveError::DonorLost { donor, reason }) if donor == "donor" => reason,
        other => panic!("{other:?}"),
    }
}
