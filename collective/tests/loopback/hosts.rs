//! Groups of several hosts: memory in each, and links between them. Here all hosts are one that has many names.

use std::thread;
use std::time::Duration;

use lockstep_collective::frame::{Header, Kind};
use lockstep_collective::{CollectiveError, Options, Partials, Precision, Transport};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Rank, Step};
use proptest::prelude::*;

use crate::exactness::assignments;
use crate::loss::{kill_after, lost};
use crate::support::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// One all-reduce of each length, in the steps from `first` on; results by rank.
fn reduce_all(all: &[&Member], lanes: u32, lens: &[usize], first: u64) -> Vec<Result<(), CollectiveError>> {
    let fresh = Assignment::fresh(lanes, all.len() as u32);
    on_all(all, |rank, member| {
        for (step, &len) in (first..).zip(lens) {
            let mut partials = Partials::new(lanes, len);
            compute(&mut partials, &fresh, rank, step);
            assert!(reduce(member, step, &fresh, &partials)? == tree_bits(lanes, len, step));
        }
        Ok(())
    })
}

fn shared_reductions(member: &Member) -> u64 {
    member.endpoint.handle().stats().shared_reductions
}

type Case = (u32, Vec<&'static str>, Vec<Assignment>);

/// Lanes, the host of each member, and assignments.
fn cases() -> impl Strategy<Value = Case> {
    let hosts = prop::collection::vec(prop::sample::select(NAMES.as_slice()), 2..=7);
    (0u32..5, hosts).prop_flat_map(|(log, hosts)| {
        let (lanes, members) = (1 << log, hosts.len() as u32);
        let assignments = prop::collection::vec(assignments(lanes, members), 1..4);
        (Just(lanes), Just(hosts), assignments)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whoever_is_where_gets_the_bits_of_the_tree(
        (lanes, hosts, assignments) in cases(),
        len in prop_oneof![3 => 0usize..40, 3 => 1000usize..2000, 1 => Just(400_001)],
        cuts in prop::collection::vec(0.0..1.0f64, 0..4),
        seed in any::<u32>(),
        precision in prop::sample::select(vec![Precision::F32, Precision::Bf16]),
    ) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| (cut * len as f64) as usize).chain([0, len]).collect();
        ends.sort_unstable();
        let buckets: Vec<_> = ends.windows(2).rev().map(|pair| pair[0]..pair[1]).collect();
        let members = members_of(&hosts);
        let members: Vec<&Member> = members.iter().collect();
        enter_all(1, &members);
        let results = on_all(&members, |rank, member| {
            let mut partials = Partials::with_precision(lanes, len, precision);
            let (mut out, mut results) = (vec![f32::NAN; len], Vec::new());
            for (step, assignment) in (1u64..).zip(&assignments) {
                compute(&mut partials, assignment, rank, u64::from(seed) + step);
                member.endpoint.all_reduce(Step(step), &buckets, assignment, &partials, &mut out).unwrap();
                results.push(bits(&out));
                partials.clear();
            }
            results
        });
        let round: fn(f32) -> f32 = match precision {
            Precision::F32 => |value| value,
            Precision::Bf16 => |value| half::bf16::from_f32(value).to_f32(),
        };
        for step in 0..assignments.len() {
            let expected = rounded_tree_bits(lanes, len, u64::from(seed) + step as u64 + 1, round);
            prop_assert!(results.iter().all(|results| results[step] == expected), "step {} differs", step + 1);
        }
        for (member, host) in members.iter().zip(&hosts) {
            let is_alone = hosts.iter().filter(|other| *other == host).count() == 1;
            let expected = if is_alone { 0 } else { assignments.len() * buckets.len() };
            prop_assert_eq!(shared_reductions(member), expected as u64);
        }
    }
}

#[test]
fn what_leaves_a_host_does_not_grow_with_its_ranks() {
    const LEN: usize = 80_000;
    for ranks in [1, 2, 4] {
        for (precision, width) in [(Precision::F32, 4), (Precision::Bf16, 2)] {
            let hosts: Vec<&str> = ["a", "b"]
                .into_iter()
                .flat_map(|host| vec![host; ranks])
                .collect();
            let all = members_of(&hosts);
            let all: Vec<&Member> = all.iter().collect();
            enter_all(1, &all);
            let fresh = Assignment::fresh(8, all.len() as u32);
            let sent = |member: &Member| {
                let stats = member.endpoint.handle().stats();
                stats.sent_bytes - stats.shared_bytes
            };
            // In the first step they also agree on the way.
            let mut before = 0;
            for step in 1..=2 {
                before = all[..ranks].iter().map(|member| sent(member)).sum();
                on_all(&all, |rank, member| {
                    let mut partials = Partials::with_precision(8, LEN, precision);
                    compute(&mut partials, &fresh, rank, step);
                    reduce(member, step, &fresh, &partials).unwrap();
                });
            }
            let after: u64 = all[..ranks].iter().map(|member| sent(member)).sum();
            // Half of its sums, and half of the result: `2(n-1)/n` of the gradient for two hosts.
            assert_eq!(after - before, LEN as u64 * width, "{ranks} ranks a host");
        }
    }
}

#[test]
fn any_sizes_follow_each_other_in_one_epoch() {
    let all = members_of(&["a", "a", "b", "a", "b"]);
    let all: Vec<&Member> = all.iter().collect();
    enter_all(1, &all);
    let sizes = [1, 100, 900_000, 3, 900_000, 0, 500_000, 70_000, 40, 40, 40];
    assert!(reduce_all(&all, 8, &sizes, 1).iter().all(Result::is_ok));
    for member in all {
        assert_eq!(shared_reductions(member), sizes.len() as u64);
    }
}

#[test]
fn nodes_that_no_slot_has_room_for_take_tcp_and_the_next_do_not() {
    let all = members_of(&["a", "a", "b"]);
    let all: Vec<&Member> = all.iter().collect();
    enter_all(1, &all);
    let (lanes, len) = (8192, 1);
    let in_turn = Assignment::from_owners((0..lanes).map(|lane| Rank(lane % 2)).collect());
    let fresh = Assignment::fresh(lanes, 3);
    on_all(&all, |rank, member| {
        for (step, assignment) in (1..).zip([&fresh, &in_turn, &fresh]) {
            let mut partials = Partials::new(lanes, len);
            compute(&mut partials, assignment, rank, step);
            assert!(reduce(member, step, assignment, &partials).unwrap() == tree_bits(lanes, len, step));
        }
        assert_eq!(shared_reductions(member), if rank == 2 { 0 } else { 2 });
    });
}

#[test]
fn one_that_wants_tcp_is_enough() {
    let mut all = members_of(&["a", "a", "b"]);
    all.push(Member::with(Options {
        transport: Transport::Tcp,
        ..options("the odd one")
    }));
    let all: Vec<&Member> = all.iter().collect();
    enter_all(1, &all);
    assert!(reduce_all(&all, 4, &[1000], 1).iter().all(Result::is_ok));
    assert!(all.iter().all(|member| shared_reductions(member) == 0));
}

#[test]
fn one_that_has_no_segment_is_enough() {
    for [host, other] in [["a", "b"], ["b", "b"]] {
        let members = members_of(&["a", "a", host, other]);
        // It has the first rank, no lanes and no values to add up: all that it is asked for is the way.
        let mut puppets: Vec<Puppet> = members
            .iter()
            .map(|member| Puppet::of_host("b", "puppet", member, 1))
            .collect();
        let peers: Vec<_> = [puppets[0].peer()]
            .into_iter()
            .chain(members.iter().map(Member::peer))
            .collect();
        let owners = [1, 2, 3, 4].map(Rank);
        let assignment = Assignment::from_owners(owners.to_vec());
        for (rank, member) in (1..).zip(&members) {
            member.endpoint.enter(group(1, rank, &peers)).unwrap();
        }
        for puppet in &mut puppets {
            puppet.send(Header::bare(Kind::Segment, JOB, Epoch(1)), &[]);
        }
        // Their connections end when all have reduced, not before.
        let heard: Vec<_> = members.iter().map(|_| puppets[0].accept()).collect();
        let all: Vec<&Member> = members.iter().collect();
        on_all(&all, |index, member| {
            let mut partials = Partials::new(4, 4);
            compute(&mut partials, &assignment, index + 1, 1);
            assert_eq!(reduce(member, 1, &assignment, &partials), Ok(tree_bits(4, 4, 1)));
            assert_eq!(shared_reductions(member), 0);
        });
        drop(heard);
    }
}

#[test]
fn a_kill_at_any_frame_changes_no_bit() {
    for hosts in [["a", "a", "b", "b"], ["a", "b", "b", "a"], ["a", "b", "b", "b"]] {
        for seed in 0..24 {
            // Five or six frames to agree on the way; at least two messages, two frames of another host, and two messages.
            kill_after(members_of(&hosts), seed % 12, (seed * 5 % 4) as u32, seed);
        }
    }
}

/// Four members of two hosts that have reduced step 1. Runs step 2 at all but the last, does `then` when they wait for
/// it, and returns them with what came of it.
fn without_the_last(
    timeout: Duration,
    then: impl FnOnce(&mut Vec<Member>, &[Member]),
) -> (Vec<Member>, Vec<Result<(), CollectiveError>>) {
    let member = |(rank, host): (usize, &str)| {
        Member::with(Options {
            timeout,
            host: Some(host.to_owned()),
            ..options(&format!("member {rank}"))
        })
    };
    let hosts = ["a", "a", "b", "b"].into_iter().enumerate();
    let mut all: Vec<Member> = hosts.map(member).collect();
    let four: Vec<&Member> = all.iter().collect();
    enter_all(1, &four);
    assert!(reduce_all(&four, 4, &[1000], 1).iter().all(Result::is_ok));
    let mut last = vec![all.pop().unwrap()];
    let results = thread::scope(|scope| {
        let reducing = |(rank, member)| scope.spawn(move || step_2(rank, member));
        let sent = |member: &Member| member.endpoint.handle().stats().sent_frames;
        let before: Vec<u64> = all.iter().map(sent).collect();
        let running: Vec<_> = (0..).zip(&all).map(reducing).collect();
        for (member, before) in all.iter().zip(before) {
            let handle = member.endpoint.handle();
            assert!(handle.wait_until(LONG, |stats| stats.sent_frames > before));
        }
        then(&mut last, &all);
        let results = running.into_iter().map(|thread| thread.join().unwrap());
        results.collect()
    });
    all.extend(last);
    (all, results)
}

fn step_2(rank: u32, member: &Member) -> Result<(), CollectiveError> {
    let (fresh, mut partials) = (Assignment::fresh(4, 4), Partials::new(4, 1000));
    compute(&mut partials, &fresh, rank, 2);
    reduce(member, 2, &fresh, &partials).map(drop)
}

#[test]
fn a_death_wakes_all_wherever_they_wait() {
    let (all, results) = without_the_last(LONG, |last, _| last.clear());
    assert_eq!(all.len(), 3);
    for result in results {
        assert_eq!(lost(result.map(|()| Vec::new())).0, Rank(3));
    }
}

#[test]
fn a_newer_epoch_wakes_all_wherever_they_wait() {
    let (_, results) = without_the_last(LONG, |_, others| {
        let raise = |member: &Member| member.endpoint.handle().raise(Epoch(2));
        others.iter().for_each(raise);
    });
    let (epoch, by) = (Epoch(1), Epoch(2));
    assert_eq!(results, vec![Err(CollectiveError::Superseded { epoch, by }); 3]);
}

#[test]
fn a_silent_member_is_named_and_nothing_follows_in_its_epoch() {
    // The step before it must not take as long.
    let timeout = Duration::from_secs(3);
    let (all, results) = without_the_last(timeout, |_, _| ());
    for (rank, (member, result)) in (0..).zip(all.iter().zip(results)) {
        let Err(CollectiveError::TimedOut { waiting, .. }) = &result else {
            panic!("{result:?}")
        };
        // The first has the chunk of the third, which waits for the last in memory.
        assert_eq!(*waiting, [Rank(if rank == 0 { 2 } else { 3 })]);
        let (fresh, mut partials) = (Assignment::fresh(4, 4), Partials::new(4, 1000));
        compute(&mut partials, &fresh, rank, 3);
        assert_eq!(reduce(member, 3, &fresh, &partials).map(drop), result);
    }
}

#[test]
fn who_has_its_chunk_and_waits_for_the_others_hears_of_a_death() {
    let members = members_of(&["a", "a"]);
    let mut puppets: Vec<Puppet> = members
        .iter()
        .map(|member| Puppet::of_host("b", "puppet", member, 1))
        .collect();
    let peers = [members[0].peer(), members[1].peer(), puppets[0].peer()];
    for (rank, member) in (0..).zip(&members) {
        member.endpoint.enter(group(1, rank, &peers)).unwrap();
    }
    for puppet in &mut puppets {
        puppet.send(Header::bare(Kind::Ready, JOB, Epoch(1)), &[]);
    }
    let heard: Vec<_> = members.iter().map(|_| puppets[0].accept()).collect();
    // Of four values, each member of the first host has two, and the puppet adds the second of each up.
    let assignment = Assignment::from_owners([0, 1, 2, 2].map(Rank).to_vec());
    let theirs = Node { start: 2, len: 2 };
    puppets[0].say(Kind::Partial, 1, 1, 0, theirs, &[1.0]);
    puppets[0].say(Kind::Reduced, 1, 1, 1, theirs, &[2.0]);
    thread::scope(|scope| {
        let running: Vec<_> = (0..)
            .zip(&members)
            .map(|(rank, member)| {
                let assignment = &assignment;
                scope.spawn(move || {
                    let mut partials = Partials::new(4, 4);
                    compute(&mut partials, assignment, rank, 1);
                    reduce(member, 1, assignment, &partials)
                })
            })
            .collect();
        // Two values that the other adds up, and the two of its own that it has from the puppet.
        let handle = members[0].endpoint.handle();
        assert!(handle.wait_until(LONG, |stats| stats.shared_bytes == 8 + 8));
        drop((puppets, heard));
        for result in running {
            assert_eq!(lost(result.join().unwrap()).0, Rank(2));
        }
    });
}
