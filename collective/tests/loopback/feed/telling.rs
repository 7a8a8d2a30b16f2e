//! What is told arrives, whole and in order, whenever it is asked for.

use std::thread;

use lockstep_collective::limits::MAX_PARTS;
use lockstep_collective::{Advance, CollectiveError, LossReason, Start};
use lockstep_engine::ids::{Epoch, Step};

use super::*;

#[test]
fn a_follower_is_told_the_state_and_every_step_after_it() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    // Empty, small, exactly a piece, and several pieces.
    let (lens, len) = ([0, 7, 1 << 20, (3 << 20) + 1], (1 << 20) + 9);
    let mut following = follow(&newcomer, &donor.member.peer(), Some(1), 2, &shape(&lens, len));
    assert_eq!(following.donor(), "donor");
    let request = donor.asked();
    let asked = (request.follower.as_str(), request.held, request.at_least);
    assert_eq!(asked, ("newcomer", Some(Step(1)), Step(2)));
    let (step, parts) = (Step(4), state(4, &lens));
    let feed = request.answer(Start::State { step, parts }).unwrap();
    assert_eq!(feed.follower(), "newcomer");
    for step in 5..10 {
        assert!(feed.push(Step(step), gradient(step, len)));
    }
    assert!(is_state(&following.next(Epoch(0)).unwrap(), 4, &lens));
    for step in 5..10 {
        let advance = following.next(Epoch(0)).unwrap();
        assert!(is_gradient(&advance, step, len), "{advance:?}");
        assert_eq!(advance.step(), Step(step));
        if let Advance::Gradient {
            values: Some(values), ..
        } = advance
        {
            following.recycle(values);
        }
    }
    assert!(feed.is_open());
    drop(following);
    let handle = donor.member.endpoint.handle();
    assert!(handle.wait_until(LONG, |stats| stats.followers == 0));
    assert!(!feed.is_open() && !feed.push(Step(10), None));
}

#[test]
fn whoever_holds_the_state_or_all_but_a_step_of_it_is_told_no_more_than_that() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    let shape = shape(&[5, 5], 5);
    let mut same = follow(&newcomer, &donor.member.peer(), Some(6), 6, &shape);
    let feed = donor.asked().answer(Start::Same(Step(6))).unwrap();
    assert_eq!(same.next(Epoch(0)), Ok(Advance::Same { step: Step(6) }));
    assert!(feed.push(Step(7), None));
    assert!(is_gradient(&same.next(Epoch(0)).unwrap(), 7, 5));

    let mut behind = follow(&newcomer, &donor.member.peer(), Some(7), 8, &shape);
    let (step, gradient) = (Step(8), gradient(8, 5));
    let feed = donor.asked().answer(Start::Gradient { step, gradient }).unwrap();
    assert!(feed.push(Step(9), self::gradient(9, 5)));
    for step in 8..10 {
        assert!(is_gradient(&behind.next(Epoch(0)).unwrap(), step, 5));
    }
}

#[test]
fn answers_that_are_of_no_use_are_refused() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    let none = || Start::Gradient {
        step: Step(5),
        gradient: None,
    };
    let whole = |step, parts| Start::State {
        step: Step(step),
        parts: vec![Arc::default(); parts],
    };
    let answers = [
        (Some(3), Start::Same(Step(4))),
        (None, Start::Same(Step(4))),
        (Some(3), Start::Same(Step(3))),
        (Some(3), none()),
        (Some(5), none()),
        (None, none()),
        (None, whole(3, 1)),
        (None, whole(4, MAX_PARTS + 1)),
    ];
    for (held, start) in answers {
        let mut following = follow(&newcomer, &donor.member.peer(), held, 4, &shape(&[0], 0));
        let words = format!("{start:?}");
        match donor.asked().answer(start) {
            Err(CollectiveError::Argument {
                argument: "start",
                problem,
            }) => assert!(problem.starts_with(&words)),
            other => panic!("{other:?}"),
        }
        assert_eq!(loss(following.next(Epoch(0))), LossReason::Closed);
    }
}

#[test]
fn a_newer_epoch_calls_the_follower_away_and_loses_nothing() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    let (lens, len) = ([8 << 20, 8 << 20], 1000);
    let mut following = follow(&newcomer, &donor.member.peer(), None, 0, &shape(&lens, len));
    let handle = newcomer.endpoint.handle();
    let superseded = |epoch: u64| {
        Err(CollectiveError::Superseded {
            epoch: Epoch(epoch),
            by: Epoch(epoch + 1),
        })
    };
    // While nothing has come, not even an answer.
    thread::scope(|scope| {
        let next = scope.spawn(|| following.next(Epoch(0)));
        handle.raise(Epoch(1));
        assert_eq!(next.join().unwrap(), superseded(0));
    });
    // In the middle of a state.
    let feed = donor.give_state(3, &lens);
    assert!(handle.wait_until(LONG, |stats| stats.received_bytes > 4 << 20));
    handle.raise(Epoch(2));
    assert_eq!(following.next(Epoch(1)), superseded(1));
    assert!(is_state(&following.next(Epoch(2)).unwrap(), 3, &lens));
    // Between steps, and when some have come already.
    for step in 4..40 {
        let epoch = step - 2;
        let frames = handle.stats().received_frames;
        assert!(feed.push(Step(step), gradient(step, len)));
        if step % 2 == 0 {
            assert!(handle.wait_until(LONG, |stats| stats.received_frames > frames));
        }
        handle.raise(Epoch(epoch + 1));
        assert_eq!(following.next(Epoch(epoch)), superseded(epoch));
        assert!(is_gradient(&following.next(Epoch(epoch + 1)).unwrap(), step, len));
    }
    // Entering a group is no other matter.
    newcomer.endpoint.enter(group(50, 0, &[newcomer.peer()])).unwrap();
    let called_away = following.next(Epoch(49));
    assert_eq!(called_away, superseded(49));
    assert!(feed.push(Step(40), None));
    assert_eq!(following.next(Epoch(50)).unwrap().step(), Step(40));
}

#[test]
fn a_feed_that_is_let_go_tells_all_that_was_pushed() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    let (lens, len) = ([3 << 20], 1 << 20);
    let mut following = follow(&newcomer, &donor.member.peer(), None, 0, &shape(&lens, len));
    let feed = donor.give_state(1, &lens);
    for step in 2..20 {
        assert!(feed.push(Step(step), gradient(step, len)));
    }
    drop(feed);
    assert!(is_state(&following.next(Epoch(0)).unwrap(), 1, &lens));
    for step in 2..20 {
        assert!(is_gradient(&following.next(Epoch(0)).unwrap(), step, len));
    }
    assert_eq!(loss(following.next(Epoch(0))), LossReason::Closed);
}
