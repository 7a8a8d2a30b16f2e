//! Shared memory: who takes it, and that what ends an operation ends one that waits there.

use std::thread;
use std::time::Duration;

use lockstep_collective::{CollectiveError, LossReason, Options, Partials, Transport};
use lockstep_engine::geometry::Assignment;
use lockstep_engine::ids::{Epoch, Rank, Step};

use crate::support::*;

const LANES: u32 = 4;

/// Two members that have reduced step 1 through shared memory, and the partials of the first for later ones.
fn two(options_of: impl Fn(&str) -> Options) -> (Vec<Member>, Assignment, Partials) {
    let all: Vec<Member> = ["one", "other"].map(|name| Member::with(options_of(name))).into();
    let (both, fresh) = ([&all[0], &all[1]], Assignment::fresh(LANES, 2));
    enter_all(1, &both);
    let reduced = on_all(&both, |rank, member| {
        let mut partials = Partials::new(LANES, 10);
        compute(&mut partials, &fresh, rank, 1);
        let reduced = reduce(member, 1, &fresh, &partials);
        (reduced, member.endpoint.handle().stats().shared_reductions)
    });
    for result in reduced {
        assert_eq!(result, (Ok(tree_bits(LANES, 10, 1)), 1));
    }
    let mut partials = Partials::new(LANES, 10);
    compute(&mut partials, &fresh, 0, 2);
    (all, fresh, partials)
}

/// Runs step 2 at the first member, does `then` when it waits for the other, and returns what came of it.
fn waiting(
    (all, fresh, partials): (&[Member], &Assignment, &Partials),
    then: impl FnOnce(),
) -> Result<Vec<u32>, CollectiveError> {
    let handle = all[0].endpoint.handle();
    let sent = handle.stats().sent_frames;
    thread::scope(|scope| {
        let running = scope.spawn(|| reduce(&all[0], 2, fresh, partials));
        assert!(handle.wait_until(LONG, |stats| stats.sent_frames > sent));
        then();
        running.join().unwrap()
    })
}

#[test]
fn one_that_wants_tcp_is_enough() {
    for (count, odd) in [(2, 0), (3, 2)] {
        let mut all = members(count, (Transport::Auto, 1));
        all[odd] = Member::with(Options {
            transport: Transport::Tcp,
            ..options("the odd one")
        });
        let all: Vec<&Member> = all.iter().collect();
        enter_all(1, &all);
        let fresh = Assignment::fresh(LANES, count);
        for result in on_all(&all, |rank, member| {
            let mut partials = Partials::new(LANES, 1000);
            compute(&mut partials, &fresh, rank, 1);
            let result = reduce(member, 1, &fresh, &partials);
            assert_eq!(member.endpoint.handle().stats().shared_reductions, 0);
            result
        }) {
            assert!(result.unwrap() == tree_bits(LANES, 1000, 1));
        }
    }
}

#[test]
fn small_and_large_gradients_follow_each_other_in_one_epoch() {
    let all = members(3, (Transport::Auto, 1));
    let all: Vec<&Member> = all.iter().collect();
    enter_all(1, &all);
    let fresh = Assignment::fresh(LANES, 3);
    let sizes = [1, 100, 500_000, 3, 500_000, 0, 500_000, 70_000, 40, 40, 40];
    on_all(&all, |rank, member| {
        for (step, len) in (1..).zip(sizes) {
            let mut partials = Partials::new(LANES, len);
            compute(&mut partials, &fresh, rank, step);
            assert!(reduce(member, step, &fresh, &partials).unwrap() == tree_bits(LANES, len, step));
        }
        assert_eq!(
            member.endpoint.handle().stats().shared_reductions,
            sizes.len() as u64
        );
    });
}

#[test]
fn a_newer_epoch_wakes_a_member_that_waits() {
    let (all, fresh, partials) = two(options);
    let handle = all[0].endpoint.handle();
    let result = waiting((&all, &fresh, &partials), || handle.raise(Epoch(2)));
    let (epoch, by) = (Epoch(1), Epoch(2));
    assert_eq!(result, Err(CollectiveError::Superseded { epoch, by }));
}

#[test]
fn who_has_not_heard_of_the_newer_epoch_writes_what_nobody_reads() {
    let (all, fresh, of_stale) = two(options);
    let both = [&all[0], &all[1]];
    let handle = all[0].endpoint.handle();
    let sent = handle.stats().sent_frames;
    let (stale, results) = thread::scope(|scope| {
        let stale = scope.spawn(|| reduce(&all[0], 2, &fresh, &of_stale));
        assert!(handle.wait_until(LONG, |stats| stats.sent_frames > sent));
        enter_all(2, &both);
        let results = on_all(&both, |rank, member| {
            let mut partials = Partials::new(LANES, 10);
            compute(&mut partials, &fresh, rank, 3);
            reduce(member, 2, &fresh, &partials)
        });
        (stale.join().unwrap(), results)
    });
    assert!(
        matches!(stale, Err(CollectiveError::Superseded { .. })),
        "{stale:?}"
    );
    for result in results {
        assert_eq!(result, Ok(tree_bits(LANES, 10, 3)));
    }
}

#[test]
fn a_death_wakes_a_member_that_waits_and_the_epoch_is_over() {
    let (mut all, fresh, partials) = two(options);
    let other = all.pop().unwrap();
    let result = waiting((&all, &fresh, &partials), || drop(other));
    let lost = |result| match result {
        Err(CollectiveError::PeerLost { rank, identity, .. }) => (rank, identity),
        other => panic!("{other:?}"),
    };
    assert_eq!(lost(result), (Rank(1), "other".to_owned()));
    assert_eq!(lost(reduce(&all[0], 3, &fresh, &partials)).0, Rank(1));
    assert_eq!(partials.iter().count(), 1);
}

#[test]
fn a_silent_neighbour_is_named_when_time_is_up() {
    // The step before it must not take as long.
    let timeout = Duration::from_secs(3);
    let (all, fresh, partials) = two(|name| Options {
        timeout,
        ..options(name)
    });
    let result = waiting((&all, &fresh, &partials), || ());
    let timed_out = Err(CollectiveError::TimedOut {
        after: timeout,
        waiting: vec![Rank(1)],
    });
    assert_eq!(result, timed_out);
    // What was left undone cannot be told from what comes next, so nothing does.
    assert_eq!(reduce(&all[0], 3, &fresh, &partials), timed_out);
}

#[test]
fn other_arguments_are_a_disagreement() {
    let (all, fresh, _) = two(options);
    let results = on_all(&[&all[0], &all[1]], |rank, member| {
        let len = 10 + rank as usize;
        let mut partials = Partials::new(LANES, len);
        compute(&mut partials, &fresh, rank, 2);
        let bucket = 0..len;
        let buckets = std::slice::from_ref(&bucket);
        member
            .endpoint
            .all_reduce(Step(2), buckets, &fresh, &partials, &mut vec![0.0; len])
    });
    for (rank, result) in (0..).map(Rank).zip(results) {
        assert!(
            matches!(result, Err(CollectiveError::Disagreement { rank: other, .. }) if other != rank),
            "{result:?}"
        );
    }
    assert!(all.iter().all(|member| {
        let losses = member.losses.lock().unwrap();
        losses
            .iter()
            .all(|lost| !matches!(lost.reason, LossReason::Frame(_)))
    }));
}
