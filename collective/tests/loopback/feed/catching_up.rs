//! The whole of it: a newcomer catches up while the others train, and enters at a boundary.

use std::sync::Arc;
use std::thread;

use lockstep_collective::{Advance, Feed, FollowRequest, Partials, Start};
use lockstep_engine::geometry::Assignment;
use lockstep_engine::ids::{Epoch, Step};

use super::*;

const LANES: u32 = 4;
const LEN: usize = 100_000;
/// The last step that two train alone.
const LAST: u64 = 30;

/// The state is the plain sum of the steps' gradients.
fn apply(state: &mut [f32], reduced: &[u32]) {
    let values = reduced.iter().map(|&bits| f32::from_bits(bits));
    state
        .iter_mut()
        .zip(values)
        .for_each(|(state, value)| *state += value);
}

/// Trains in a group of two to the last step; tells `each` of every step, the state after it and its gradient.
fn train(member: &Member, rank: u32, mut each: impl FnMut(u64, &[f32], &[u32])) -> Vec<f32> {
    let two = Assignment::fresh(LANES, 2);
    let (mut partials, mut state) = (Partials::new(LANES, LEN), vec![0.0; LEN]);
    for step in 1..=LAST {
        compute(&mut partials, &two, rank, step);
        let reduced = reduce(member, step, &two, &partials).unwrap();
        partials.clear();
        apply(&mut state, &reduced);
        each(step, &state, &reduced);
    }
    state
}

#[test]
fn a_newcomer_catches_up_while_the_others_train_and_enters() {
    let (donor, other, newcomer) = (Donor::new(), Member::new("other"), Member::new("newcomer"));
    enter_all(1, &[&donor.member, &other]);
    // The state is the plain sum of the steps' gradients.
    let apply = |state: &mut [f32], reduced: &[u32]| {
        let values = reduced.iter().map(|&bits| f32::from_bits(bits));
        state
            .iter_mut()
            .zip(values)
            .for_each(|(state, value)| *state += value);
    };
    let mut following = follow(&newcomer, &donor.member.peer(), None, 3, &shape(&[LEN], LEN));
    let asked = donor.asked();
    let (at_donor, caught_up) = thread::scope(|scope| {
        scope.spawn(|| train(&other, 1, |_, _, _| {}));
        let catching_up = scope.spawn(move || {
            let mut state = Vec::new();
            loop {
                let advance = following.next(Epoch(1)).unwrap();
                let step = advance.step();
                match advance {
                    Advance::State { parts, .. } => state = parts.concat(),
                    Advance::Gradient { values, .. } => apply(&mut state, &bits(&values.unwrap())),
                    Advance::Same { .. } => panic!("it held nothing"),
                }
                if step == Step(LAST) {
                    return state;
                }
            }
        });
        let (mut request, mut feed): (Option<FollowRequest>, Option<Feed>) = (Some(asked), None);
        let at_donor = train(&donor.member, 0, |step, state, reduced| {
            if let Some(feed) = &feed {
                let values = reduced.iter().map(|&bits| f32::from_bits(bits)).collect();
                assert!(feed.push(Step(step), Some(Arc::new(values))));
            } else if let Some(asked) = request.take_if(|request| request.at_least <= Step(step)) {
                let (step, parts) = (Step(step), vec![Arc::new(state.to_vec())]);
                feed = Some(asked.answer(Start::State { step, parts }).unwrap());
            }
        });
        (at_donor, catching_up.join().unwrap())
    });
    assert!(bits(&at_donor) == bits(&caught_up));

    let three = Assignment::fresh(LANES, 3);
    let all = [&donor.member, &newcomer, &other];
    enter_all(2, &all);
    for result in on_all(&all, |rank, member| {
        let mut partials = Partials::new(LANES, LEN);
        compute(&mut partials, &three, rank, LAST + 1);
        reduce(member, LAST + 1, &three, &partials)
    }) {
        assert!(result.unwrap() == tree_bits(LANES, LEN, LAST + 1));
    }
}
