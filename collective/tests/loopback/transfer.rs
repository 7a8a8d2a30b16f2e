//! State from one member to another.

use std::sync::Arc;

use lockstep_collective::frame::Kind;
use lockstep_collective::{CollectiveError, Options, Partials};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Rank, Step};

use crate::support::*;

fn state(lens: &[usize]) -> Vec<Arc<Vec<f32>>> {
    (0u32..)
        .zip(lens)
        .map(|(number, &len)| Arc::new(lane(number, len, 9)))
        .collect()
}

fn zeros(lens: &[usize]) -> Vec<Vec<f32>> {
    lens.iter().map(|&len| vec![0.0; len]).collect()
}

#[test]
fn a_state_arrives_as_it_was_sent() {
    let all = members(2);
    enter_all(1, &[&all[0], &all[1]]);
    // Empty, small, exactly a frame, and several frames.
    let lens = [0, 7, 1 << 20, (3 << 20) + 1];
    let parts = state(&lens);
    let mut got = zeros(&lens);
    std::thread::scope(|scope| {
        scope.spawn(|| all[0].endpoint.send_state(Rank(1), Step(3), &parts).unwrap());
        all[1].endpoint.receive_state(Rank(0), Step(3), &mut got).unwrap();
    });
    for (got, sent) in got.iter().zip(&parts) {
        assert!(bits(got) == bits(sent));
    }
    assert!(
        all.iter()
            .all(|member| member.endpoint.handle().lost().is_empty())
    );
}

#[test]
fn a_state_can_be_larger_than_what_may_wait_and_come_before_it_is_asked_for() {
    let small = |name: &str| {
        Member::with(Options {
            mailbox_bytes: 1 << 20,
            ..options(name)
        })
    };
    let all = [small("donor"), small("newcomer")];
    enter_all(1, &[&all[0], &all[1]]);
    let lens = [10 << 20];
    let parts = state(&lens);
    let fresh = Assignment::fresh(2, 2);
    let handle = all[1].endpoint.handle();
    std::thread::scope(|scope| {
        let (parts, fresh, donor) = (&parts, &fresh, &all[0]);
        // The donor trains on at once; what it sends of the step waits behind the state.
        scope.spawn(move || {
            donor.endpoint.send_state(Rank(1), Step(1), parts).unwrap();
            let mut partials = Partials::new(2, 600_000);
            compute(&mut partials, fresh, 0, 4);
            assert!(reduce(donor, 2, fresh, &partials).unwrap() == tree_bits(2, 600_000, 4));
        });
        assert!(handle.wait_until(LONG, |stats| stats.waiting_bytes >= 1 << 20));
        let mut got = zeros(&lens);
        // The other way round: frames of the reduction are in the way of nothing either.
        let mut partials = Partials::new(2, 600_000);
        compute(&mut partials, fresh, 1, 4);
        all[1].endpoint.receive_state(Rank(0), Step(1), &mut got).unwrap();
        assert!(bits(&got[0]) == bits(&parts[0]));
        assert!(reduce(&all[1], 2, fresh, &partials).unwrap() == tree_bits(2, 600_000, 4));
    });
}

#[test]
fn what_waits_gives_way_to_what_is_asked_for() {
    // The state is behind a reduction's frames that alone are more than may wait.
    let small = |name: &str| {
        Member::with(Options {
            mailbox_bytes: 1 << 10,
            ..options(name)
        })
    };
    let all = [small("donor"), small("newcomer")];
    enter_all(1, &[&all[0], &all[1]]);
    let fresh = Assignment::fresh(2, 2);
    let parts = state(&[3 << 20]);
    let len = 600_000;
    std::thread::scope(|scope| {
        let (donor, newcomer, fresh, parts) = (&all[0], &all[1], &fresh, &parts);
        scope.spawn(move || {
            let mut partials = Partials::new(2, len);
            compute(&mut partials, fresh, 0, 4);
            assert!(reduce(donor, 1, fresh, &partials).unwrap() == tree_bits(2, len, 4));
        });
        assert!(
            newcomer
                .endpoint
                .handle()
                .wait_until(LONG, |stats| stats.waiting_frames > 0)
        );
        scope.spawn(move || donor.endpoint.send_state(Rank(1), Step(1), parts).unwrap());
        let mut got = zeros(&[3 << 20]);
        newcomer
            .endpoint
            .receive_state(Rank(0), Step(1), &mut got)
            .unwrap();
        assert!(bits(&got[0]) == bits(&parts[0]));
        let mut partials = Partials::new(2, len);
        compute(&mut partials, fresh, 1, 4);
        assert!(reduce(newcomer, 1, fresh, &partials).unwrap() == tree_bits(2, len, 4));
    });
}

#[test]
fn shapes_that_differ_are_a_disagreement() {
    for (sent, expected) in [
        (&[5usize][..], &[6usize][..]),
        (&[5], &[5, 0]),
        (&[5, 0], &[5]),
        (&[0], &[1]),
        (&[(1 << 20) + 1], &[1 << 20]),
    ] {
        let all = members(2);
        enter_all(1, &[&all[0], &all[1]]);
        all[0]
            .endpoint
            .send_state(Rank(1), Step(3), &state(sent))
            .unwrap();
        match all[1]
            .endpoint
            .receive_state(Rank(0), Step(3), &mut zeros(expected))
        {
            Err(CollectiveError::Disagreement { rank: Rank(0), .. }) => {}
            other => panic!("{sent:?} for {expected:?}: {other:?}"),
        }
    }
}

#[test]
fn a_donor_that_dies_is_a_loss() {
    let newcomer = Member::new("newcomer");
    let mut donor = Puppet::new("donor", &newcomer, 1);
    newcomer
        .endpoint
        .enter(group(1, 0, &[newcomer.peer(), donor.peer()]))
        .unwrap();
    let handle = newcomer.endpoint.handle();
    let is_loss = |result| match result {
        Err(CollectiveError::PeerLost { rank: Rank(1), .. }) => {}
        other => panic!("{other:?}"),
    };
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            newcomer
                .endpoint
                .receive_state(Rank(1), Step(1), &mut zeros(&[2, 2]))
        });
        // One piece a part, of two parts: the second never comes.
        donor.say(Kind::State, 1, 1, 0, Node { start: 1, len: 2 }, &[1.0, 2.0]);
        assert!(handle.wait_until(LONG, |stats| stats.received_frames == 1));
        drop(donor);
        is_loss(receiving.join().unwrap());
    });
    is_loss(
        newcomer
            .endpoint
            .receive_state(Rank(1), Step(2), &mut zeros(&[9])),
    );
    is_loss(newcomer.endpoint.send_state(Rank(1), Step(2), &state(&[9])));
}

#[test]
fn a_state_is_for_another_member() {
    let all = members(2);
    enter_all(1, &[&all[0], &all[1]]);
    for nobody in [Rank(0), Rank(2)] {
        let sent = all[0].endpoint.send_state(nobody, Step(1), &[]);
        let got = all[0].endpoint.receive_state(nobody, Step(1), &mut []);
        for result in [sent, got] {
            assert!(matches!(
                result,
                Err(CollectiveError::Argument { argument: "rank", .. })
            ));
        }
    }
}
