//! A feed holds up nobody: what waits is bounded, and so is who may follow.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use lockstep_collective::frame::HEADER_BYTES;
use lockstep_collective::limits::MAX_FOLLOWERS;
use lockstep_collective::{CollectiveError, FollowRequest, Following, LossReason, Options, Peer, Start};
use lockstep_engine::ids::{Epoch, Step};

use super::*;

#[test]
fn a_slow_follower_is_let_go_and_whoever_pushes_never_waits() {
    let len = 1 << 20;
    let donor = Donor::with(Options {
        feed_bytes: 64 << 20,
        ..options("donor")
    });
    let newcomer = Member::new("newcomer");
    // It asks for no more than the state, so what it takes in is bounded too.
    let mut following = follow(&newcomer, &donor.member.peer(), None, 0, &shape(&[len], len));
    let feed = donor.give_state(1, &[len]);
    assert!(is_state(&following.next(Epoch(0)).unwrap(), 1, &[len]));
    let gradient = Some(Arc::new(lane(0, len, 0)));
    let begun = Instant::now();
    let pushed = (2..1000)
        .find(|&step| !feed.push(Step(step), gradient.clone()))
        .unwrap()
        - 2;
    assert!(begun.elapsed() < PROMPT);
    // 15 fit, and a few are on their way in sockets and at the follower.
    assert!(
        (15..100).contains(&pushed),
        "{pushed} of 4 MiB, where 64 MiB may wait"
    );
    assert!(!feed.is_open());
    let handle = donor.member.endpoint.handle();
    assert!(handle.wait_until(LONG, |stats| stats.followers == 0));
    drop(feed);
    assert_eq!(
        Arc::strong_count(gradient.as_ref().unwrap()),
        1,
        "nobody holds it any more"
    );

    // It has what had come, is told that there is no more, and may ask again.
    let mut reached = 1;
    let end = loop {
        match following.next(Epoch(0)) {
            Ok(advance) => reached = advance.step().0,
            end => break loss(end),
        }
    };
    assert!(
        matches!(
            end,
            LossReason::Closed | LossReason::Truncated | LossReason::Io(_)
        ),
        "{end:?}"
    );
    assert!(reached <= pushed + 1);
    let mut again = follow(
        &newcomer,
        &donor.member.peer(),
        Some(reached),
        0,
        &shape(&[len], len),
    );
    let feed = donor.asked().answer(Start::Same(Step(reached))).unwrap();
    assert!(again.next(Epoch(0)).is_ok() && feed.is_open());
}

#[test]
fn a_follower_that_keeps_up_is_never_let_go() {
    let len = 1 << 10;
    let donor = Donor::with(Options {
        feed_bytes: 3 * (4 * len + HEADER_BYTES),
        ..options("donor")
    });
    let newcomer = Member::new("newcomer");
    let mut following = follow(&newcomer, &donor.member.peer(), Some(1), 0, &shape(&[], len));
    let feed = donor.asked().answer(Start::Same(Step(1))).unwrap();
    assert_eq!(following.next(Epoch(0)).unwrap().step(), Step(1));
    for step in 2..200 {
        // No more than the one before may still be on its way out.
        assert!(feed.push(Step(step), gradient(step, len)), "step {step}");
        assert!(is_gradient(&following.next(Epoch(0)).unwrap(), step, len));
    }
}

#[test]
fn one_gradient_may_always_wait() {
    let donor = Donor::with(Options {
        feed_bytes: 0,
        ..options("donor")
    });
    let newcomer = Member::new("newcomer");
    let mut following = follow(&newcomer, &donor.member.peer(), Some(1), 0, &shape(&[], 100));
    let feed = donor.asked().answer(Start::Same(Step(1))).unwrap();
    assert!(feed.push(Step(2), gradient(2, 100)));
    assert_eq!(following.next(Epoch(0)).unwrap().step(), Step(1));
    assert!(is_gradient(&following.next(Epoch(0)).unwrap(), 2, 100));
}

#[test]
fn a_step_that_is_not_the_next_closes_the_feed() {
    let (donor, newcomer) = (Donor::new(), Member::new("newcomer"));
    for step in [4, 5, 7] {
        let mut following = follow(&newcomer, &donor.member.peer(), Some(5), 0, &shape(&[], 1));
        let feed = donor.asked().answer(Start::Same(Step(5))).unwrap();
        assert_eq!(following.next(Epoch(0)).unwrap().step(), Step(5));
        assert!(!feed.push(Step(step), None) && !feed.is_open());
        assert_eq!(loss(following.next(Epoch(0))), LossReason::Closed);
    }
}

#[test]
fn nobody_follows_who_does_not_know_the_job_and_its_donor() {
    let donor = Donor::new();
    let peer = donor.member.peer();
    let strangers = [
        Options {
            token: "guess".to_owned(),
            ..options("newcomer")
        },
        Options {
            job: JOB + 1,
            ..options("newcomer")
        },
    ];
    for (count, options) in (1..).zip(strangers) {
        let newcomer = Member::with(options);
        let mut following = follow(&newcomer, &peer, None, 0, &shape(&[], 0));
        assert_eq!(loss(following.next(Epoch(0))), LossReason::Closed);
        let handle = donor.member.endpoint.handle();
        assert!(handle.wait_until(LONG, |stats| stats.rejected_connections == count));
    }

    let newcomer = Member::new("newcomer");
    let elsewhere = Peer {
        identity: "donor#2".to_owned(),
        ..peer.clone()
    };
    let mut following = follow(&newcomer, &elsewhere, None, 0, &shape(&[], 0));
    let words = "`donor` listens here, not `donor#2`".to_owned();
    let expected = CollectiveError::DonorLost {
        donor: "donor#2".to_owned(),
        reason: LossReason::Refused(words),
    };
    assert_eq!(following.next(Epoch(0)), Err(expected));
    assert!(donor.requests.try_recv().is_err(), "nobody was asked");

    let modest = Member::new("donor");
    let mut following = follow(&newcomer, &modest.peer(), None, 0, &shape(&[], 0));
    let words = LossReason::Refused("it takes no followers".to_owned());
    assert_eq!(loss(following.next(Epoch(0))), words);
    let gone = modest.peer();
    drop(modest);
    let mut following = follow(&newcomer, &gone, None, 0, &shape(&[], 0));
    assert!(matches!(
        loss(following.next(Epoch(0))),
        LossReason::Connect { .. }
    ));
}

#[test]
fn followers_are_limited_and_a_request_may_wait_or_be_dropped() {
    let donor = Donor::new();
    let handle = donor.member.endpoint.handle();
    let members: Vec<Member> = (0..=MAX_FOLLOWERS)
        .map(|n| Member::new(&format!("newcomer-{n}")))
        .collect();
    let (last, others) = members.split_last().unwrap();
    let peer = donor.member.peer();
    let follow = |member| follow(member, &peer, None, 0, &shape(&[1], 1));
    let mut followings: Vec<Following> = others.iter().map(follow).collect();
    assert!(handle.wait_until(LONG, |stats| stats.followers == MAX_FOLLOWERS));
    let words = LossReason::Refused(format!("it has {MAX_FOLLOWERS} followers already"));
    assert_eq!(loss(follow(last).next(Epoch(0))), words);
    assert!(handle.wait_until(LONG, |stats| stats.followers == MAX_FOLLOWERS));
    let mut requests: HashMap<String, FollowRequest> = (0..MAX_FOLLOWERS)
        .map(|_| donor.asked())
        .map(|request| (request.follower.clone(), request))
        .collect();
    // Asking anew takes the place of the old request, even while there is no room.
    let again = follow(&others[0]);
    assert_eq!(loss(followings[0].next(Epoch(0))), LossReason::Closed);
    followings[0] = again;
    let (step, parts) = (Step(1), state(1, &[1]));
    let feed = donor.asked().answer(Start::State { step, parts }).unwrap();
    assert!(is_state(&followings[0].next(Epoch(0)).unwrap(), 1, &[1]) && feed.is_open());

    drop(requests.remove("newcomer-1").unwrap());
    assert_eq!(loss(followings[1].next(Epoch(0))), LossReason::Closed);
    // A donor that closes waits for nobody.
    drop(donor);
    assert_eq!(loss(followings[2].next(Epoch(0))), LossReason::Closed);
}
