//! Epochs: what is old has no effect, what is early is kept, and raising one wakes everything.

use std::thread;

use lockstep_collective::frame::Kind;
use lockstep_collective::limits::MAX_MEMBERS;
use lockstep_collective::{CollectiveError, LossReason, Partials};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Step};

use crate::support::*;

const THEIRS: Node = Node { start: 1, len: 1 };
const NOBODYS: Node = Node { start: 0, len: 0 };

/// A member that is alone in epoch 4, and its lane of two.
fn alone() -> (Member, Partials, Assignment) {
    let member = Member::new("real");
    member.endpoint.enter(group(4, 0, &[member.peer()])).unwrap();
    let mut partials = Partials::new(2, 2);
    partials
        .insert(Node { start: 0, len: 1 }, vec![1.0, 10.0])
        .unwrap();
    (member, partials, Assignment::fresh(2, 2))
}

#[test]
fn old_frames_have_no_effect_and_early_ones_are_kept() {
    let (member, partials, fresh) = alone();
    let handle = member.endpoint.handle();
    let mut puppet = Puppet::new("puppet", &member, 5);
    // An older epoch, one in which it is no member, the next one, and one that never comes about.
    puppet.say(Kind::Partial, 3, 1, 0, THEIRS, &[100.0]);
    puppet.say(Kind::Partial, 4, 1, 0, THEIRS, &[200.0]);
    puppet.say(Kind::Partial, 5, 1, 0, THEIRS, &[2.0]);
    puppet.say(Kind::Partial, 6, 1, 0, THEIRS, &[300.0]);
    assert!(handle.wait_until(LONG, |stats| stats.received_frames == 4));
    assert!(handle.wait_until(LONG, |stats| {
        (stats.stale_frames, stats.foreign_frames, stats.waiting_frames) == (1, 1, 2)
    }));

    member
        .endpoint
        .enter(group(5, 0, &[member.peer(), puppet.peer()]))
        .unwrap();
    puppet.say(Kind::Reduced, 4, 1, 1, NOBODYS, &[400.0]);
    puppet.say(Kind::Reduced, 5, 1, 1, NOBODYS, &[20.0]);
    assert_eq!(reduce(&member, 1, &fresh, &partials), Ok(bits(&[3.0, 20.0])));
    assert!(handle.wait_until(LONG, |stats| stats.stale_frames == 2));

    member.endpoint.enter(group(7, 0, &[member.peer()])).unwrap();
    let stats = handle.stats();
    assert_eq!(
        (stats.stale_frames, stats.waiting_frames, stats.waiting_bytes),
        (3, 0, 0)
    );
    assert!(member.losses.lock().unwrap().is_empty());
}

#[test]
fn frames_of_a_member_that_the_group_turns_out_not_to_have_are_dropped() {
    let (member, ..) = alone();
    let handle = member.endpoint.handle();
    let mut puppet = Puppet::new("puppet", &member, 5);
    puppet.say(Kind::Partial, 5, 1, 0, THEIRS, &[2.0]);
    assert!(handle.wait_until(LONG, |stats| stats.waiting_frames == 1));
    member.endpoint.enter(group(5, 0, &[member.peer()])).unwrap();
    assert_eq!(
        (handle.stats().foreign_frames, handle.stats().waiting_frames),
        (1, 0)
    );
}

#[test]
fn raising_the_epoch_wakes_what_runs() {
    let member = Member::new("real");
    let puppet = Puppet::new("puppet", &member, 1);
    member
        .endpoint
        .enter(group(1, 0, &[member.peer(), puppet.peer()]))
        .unwrap();
    // Large enough that neither the system nor the queue takes it all: writer and operation both hang.
    let len = 16 << 20;
    let fresh = Assignment::fresh(2, 2);
    let mut partials = Partials::new(2, len);
    partials
        .insert(Node { start: 0, len: 1 }, vec![1.0; len])
        .unwrap();
    let superseded = CollectiveError::Superseded {
        epoch: Epoch(1),
        by: Epoch(3),
    };
    let handle = member.endpoint.handle();
    thread::scope(|scope| {
        let running = scope.spawn(|| reduce(&member, 1, &fresh, &partials));
        assert!(handle.wait_until(LONG, |stats| stats.sent_frames > 0));
        handle.raise(Epoch(3));
        assert_eq!(running.join().unwrap(), Err(superseded.clone()));
    });
    assert_eq!(reduce(&member, 2, &fresh, &partials), Err(superseded.clone()));
    assert_eq!(member.endpoint.flush(), Err(superseded));
    let too_old = member.endpoint.enter(group(2, 0, &[member.peer()]));
    assert_eq!(
        too_old,
        Err(CollectiveError::Superseded {
            epoch: Epoch(2),
            by: Epoch(3)
        })
    );
    // The writer still hangs with a partial in its hands. Nobody waits for it, and nobody writes to its values.
    member
        .endpoint
        .enter(group(3, 0, &[member.peer(), puppet.peer()]))
        .unwrap();
    assert_eq!(partials.iter().count(), 1);
    partials.insert(THEIRS, vec![2.0; len]).unwrap();
    assert_eq!(partials.iter().next().unwrap().1[0], 3.0);
    let stream = puppet.accept();
    let (header, payload) = read_frame(&stream);
    assert_eq!((header.epoch, header.kind), (Epoch(1), Kind::Partial));
    assert!(
        payload.chunks(4).all(|value| value == 1.0f32.to_le_bytes()),
        "as it was when it was sent"
    );
}

#[test]
fn groups_that_make_no_sense_are_refused() {
    let member = Member::new("real");
    let other = Member::new("other").peer();
    let me = member.peer();
    for (bad, words) in [
        (group(1, 0, &[]), "rank 0 in a group of 0"),
        (group(1, 1, std::slice::from_ref(&me)), "rank 1 in a group of 1"),
        (
            group(1, 0, &vec![me.clone(); MAX_MEMBERS + 1]),
            "1025 members where at most 1024 are allowed",
        ),
        (
            group(1, 0, &[other.clone(), me.clone()]),
            "rank 0 is `other`, not `real`",
        ),
        (
            group(1, 0, &[me.clone(), other.clone(), other]),
            "`other` is in it twice",
        ),
    ] {
        match member.endpoint.enter(bad) {
            Err(CollectiveError::InvalidGroup {
                epoch: Epoch(1),
                problem,
            }) => assert_eq!(problem, words),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(member.endpoint.flush(), Err(CollectiveError::NotEntered));
    member
        .endpoint
        .enter(group(1, 0, std::slice::from_ref(&me)))
        .unwrap();
    let again = member.endpoint.enter(group(1, 0, &[me]));
    assert!(matches!(again, Err(CollectiveError::InvalidGroup { .. })));
}

#[test]
fn a_step_is_reduced_once_an_epoch() {
    let member = Member::new("real");
    let fresh = Assignment::fresh(1, 1);
    let mut partials = Partials::new(1, 3);
    compute(&mut partials, &fresh, 0, 0);
    for epoch in 1..3 {
        member.endpoint.enter(group(epoch, 0, &[member.peer()])).unwrap();
        assert_eq!(reduce(&member, 5, &fresh, &partials), Ok(tree_bits(1, 3, 0)));
        for step in [5, 4] {
            let again = CollectiveError::AlreadyRun {
                epoch: Epoch(epoch),
                step: Step(step),
                bucket: 0,
            };
            assert_eq!(reduce(&member, step, &fresh, &partials), Err(again));
        }
        assert_eq!(reduce(&member, 6, &fresh, &partials), Ok(tree_bits(1, 3, 0)));
        let held = partials.held(0..3).unwrap();
        let reduce = |epoch, step, bucket| {
            let mut out = [0.0; 3];
            member
                .endpoint
                .reduce((Epoch(epoch), Step(step), bucket), &fresh, &held, &mut out)
        };
        for (step, bucket) in [(7, 1), (7, 3), (8, 0)] {
            assert_eq!(reduce(epoch, step, bucket), Ok(()));
        }
        for (step, bucket) in [(8, 0), (7, 4)] {
            let again = CollectiveError::AlreadyRun {
                epoch: Epoch(epoch),
                step: Step(step),
                bucket,
            };
            assert_eq!(reduce(epoch, step, bucket), Err(again));
        }
        // As of a thread that has slept while another group was entered.
        let late = CollectiveError::Superseded {
            epoch: Epoch(epoch - 1),
            by: Epoch(epoch),
        };
        assert_eq!(reduce(epoch - 1, 9, 0), Err(late));
    }
}

#[test]
fn connections_outlive_epochs_and_those_who_leave_say_so() {
    for way in WAYS {
        outlive_epochs(way);
    }
}

fn outlive_epochs(way: Way) {
    let all = members(3, way);
    let [a, b, c] = [&all[0], &all[1], &all[2]];
    let streams = way.1;
    enter_all(1, &[a, b, c]);
    for member in [a, b, c] {
        let handle = member.endpoint.handle();
        let all = 2 * streams;
        assert!(handle.wait_until(LONG, |stats| (stats.inbound, stats.outbound) == (all, all)));
    }
    // C is left out of 2, does not hear of it, and learns it from A and B closing.
    enter_all(2, &[a, b]);
    for member in [a, b] {
        assert!(
            member
                .endpoint
                .handle()
                .wait_until(LONG, |stats| stats.outbound == streams)
        );
    }
    assert!(c.endpoint.handle().wait_until(LONG, |stats| stats.inbound == 0));
    let losses = c.losses.lock().unwrap().clone();
    assert!(
        losses
            .iter()
            .all(|lost| lost.reason == LossReason::Left(Epoch(2)) && lost.epoch == Epoch(1))
    );

    // C is back in 3: nobody takes what happened before for a loss.
    enter_all(3, &[a, b, c]);
    let fresh = Assignment::fresh(4, 3);
    let results = on_all(&[a, b, c], |rank, member| {
        let mut partials = Partials::new(4, 1000);
        compute(&mut partials, &fresh, rank, 1);
        reduce(member, 1, &fresh, &partials)
    });
    for result in results {
        assert!(result.unwrap() == tree_bits(4, 1000, 1));
    }
    assert!(a.losses.lock().unwrap().is_empty() && b.losses.lock().unwrap().is_empty());
    assert!(a.endpoint.handle().lost().is_empty());
    assert!(c.losses.lock().unwrap().iter().all(|lost| lost.epoch == Epoch(1)));
}

#[test]
fn a_goodbye_from_an_older_group_is_no_loss() {
    let member = Member::new("real");
    let mut puppet = Puppet::new("puppet", &member, 2);
    member
        .endpoint
        .enter(group(3, 0, &[member.peer(), puppet.peer()]))
        .unwrap();
    let handle = member.endpoint.handle();
    assert!(handle.wait_until(LONG, |stats| stats.inbound == 1));
    puppet.say(Kind::Bye, 2, 0, 0, NOBODYS, &[]);
    assert!(handle.wait_until(LONG, |stats| stats.inbound == 0));
    assert!(handle.lost().is_empty());
}

#[test]
fn a_connection_is_kept_while_its_member_stays() {
    let member = Member::new("real");
    let mut puppet = Puppet::new("puppet", &member, 1);
    let fresh = Assignment::fresh(2, 2);
    let mut partials = Partials::new(2, 2);
    partials
        .insert(Node { start: 0, len: 1 }, vec![1.0, 10.0])
        .unwrap();
    member
        .endpoint
        .enter(group(1, 0, &[member.peer(), puppet.peer()]))
        .unwrap();
    let stream = puppet.accept();
    for epoch in 2..5 {
        member
            .endpoint
            .enter(group(epoch, 0, &[member.peer(), puppet.peer()]))
            .unwrap();
        puppet.say(Kind::Partial, epoch, 1, 0, THEIRS, &[2.0]);
        puppet.say(Kind::Reduced, epoch, 1, 1, NOBODYS, &[20.0]);
        assert_eq!(reduce(&member, 1, &fresh, &partials), Ok(bits(&[3.0, 20.0])));
        for (kind, value) in [(Kind::Partial, 10.0), (Kind::Reduced, 3.0)] {
            let (header, payload) = read_frame(&stream);
            assert_eq!(
                (header.kind, header.epoch, payload),
                (kind, Epoch(epoch), bytes(&[value]))
            );
        }
    }
}
