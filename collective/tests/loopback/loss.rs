//! Members die at any instant: the others are told at once, and lose nothing that they had computed.

use std::net::Shutdown;
use std::thread;

use crate::support::*;
use lockstep_collective::frame::{FrameError, Header, Kind};
use lockstep_collective::{CollectiveError, Endpoint, LossReason, Partials, PeerLost, Transport};
use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Rank, Step};

const LANES: u32 = 8;

/// Whom an operation lost.
pub(crate) fn lost(result: Result<Vec<u32>, CollectiveError>) -> (Rank, String) {
    match result {
        Err(CollectiveError::PeerLost { rank, identity, .. }) => (rank, identity),
        other => panic!("{other:?}"),
    }
}

#[test]
fn survivors_are_told_and_reduce_again_to_the_same_bits() {
    for way in WAYS {
        reduce_again(way);
    }
}

fn reduce_again(way: Way) {
    let len = 1 << 20;
    let mut members = members(3, way);
    let victim = members.pop().unwrap();
    let handle = victim.endpoint.handle();
    enter_all(1, &[&members[0], &members[1], &victim]);
    let fresh = Assignment::fresh(LANES, 3);
    let mut partials: Vec<Partials> = (0..3).map(|_| Partials::new(LANES, len)).collect();
    for (rank, partials) in (0u32..).zip(&mut partials) {
        compute(partials, &fresh, rank, 5);
    }
    thread::scope(|scope| {
        let (fresh, partials, survivors) = (&fresh, &partials, &members);
        let name = victim.name.clone();
        let first = scope.spawn(|| reduce(&survivors[0], 1, fresh, &partials[0]));
        let dying = scope.spawn(move || {
            let result = reduce(&victim, 1, fresh, &partials[2]);
            drop(victim);
            result
        });
        // Two of three are in the middle of it: the third keeps them there.
        assert!(handle.wait_until(LONG, |stats| stats.received_frames > 0));
        handle.raise(Epoch(9));
        let result = dying.join().unwrap();
        assert!(matches!(
            result,
            Err(CollectiveError::Superseded { by: Epoch(9), .. })
        ));
        assert_eq!(lost(first.join().unwrap()), (Rank(2), name.clone()));
        assert_eq!(
            lost(reduce(&survivors[1], 1, fresh, &partials[1])),
            (Rank(2), name)
        );
    });

    let survivors = [&members[0], &members[1]];
    let kept: Vec<_> = fresh
        .owners()
        .iter()
        .map(|&old| (old.0 < 2).then_some(old))
        .collect();
    let after = Assignment::keeping(&kept, &[1; 2]);
    for (rank, partials) in (0u32..2).zip(&mut partials) {
        compute(partials, &after, rank, 5);
    }
    for member in survivors {
        member.endpoint.handle().raise(Epoch(2));
    }
    enter_all(2, &survivors);
    let results = on_all(&survivors, |rank, member| {
        reduce(member, 1, &after, &partials[rank as usize])
    });
    let expected = tree_bits(LANES, len, 5);
    for result in results {
        assert!(result.unwrap() == expected);
    }
    let mut closed = Vec::new();
    for member in members {
        let name = member.name.clone();
        let mut losses = member.close();
        // One that was closed before it is a loss too.
        losses.retain(|lost| !closed.contains(&lost.identity));
        closed.push(name);
        let whom: Vec<_> = losses.iter().map(|lost| (lost.epoch, lost.rank)).collect();
        assert_eq!(
            whom,
            [(Epoch(1), Rank(2))],
            "reported once, and not again in the new epoch"
        );
    }
}

/// Takes a member out after `frames` frames have reached it, wherever that leaves the others.
pub(crate) fn kill_after(members: Vec<Member>, frames: u64, victim: u32, seed: u64) {
    let (count, len) = (members.len() as u32, 300_000);
    let mut members: Vec<Option<Member>> = members.into_iter().map(Some).collect();
    {
        let all: Vec<&Member> = members.iter().flatten().collect();
        enter_all(1, &all);
    }
    let fresh = Assignment::fresh(LANES, count);
    let mut partials: Vec<Partials> = (0..count).map(|_| Partials::new(LANES, len)).collect();
    for (rank, partials) in (0u32..).zip(&mut partials) {
        compute(partials, &fresh, rank, seed);
    }
    let dying = members[victim as usize].take().unwrap();
    let name = dying.name.clone();
    let expected = tree_bits(LANES, len, seed);
    thread::scope(|scope| {
        for (rank, member) in (0u32..)
            .zip(&members)
            .filter_map(|(rank, member)| Some((rank, member.as_ref()?)))
        {
            let (partials, fresh, expected, name) =
                (&partials[rank as usize], &fresh, &expected, name.clone());
            scope.spawn(move || match reduce(member, 1, fresh, partials) {
                Ok(bits) => assert!(bits == *expected),
                other => assert_eq!(lost(other), (Rank(victim), name)),
            });
        }
        let (partials, fresh) = (&partials[victim as usize], &fresh);
        scope.spawn(move || {
            thread::scope(|scope| {
                let handle = dying.endpoint.handle();
                let running = scope.spawn(|| reduce(&dying, 1, fresh, partials));
                assert!(handle.wait_until(LONG, |stats| stats.received_frames >= frames));
                handle.raise(Epoch(9));
                let _ = running.join().unwrap();
            });
            drop(dying);
        });
    });

    let survivors: Vec<&Member> = members.iter().flatten().collect();
    let rank_of = |old: &Rank| (old.0 != victim).then(|| Rank(old.0 - u32::from(old.0 > victim)));
    let kept: Vec<_> = fresh.owners().iter().map(rank_of).collect();
    let after = Assignment::keeping(&kept, &vec![1; count as usize - 1]);
    partials.remove(victim as usize);
    enter_all(2, &survivors);
    for (rank, partials) in (0u32..).zip(&mut partials) {
        compute(partials, &after, rank, seed);
    }
    for result in on_all(&survivors, |rank, member| {
        reduce(member, 1, &after, &partials[rank as usize])
    }) {
        assert!(
            result.unwrap() == expected,
            "killed rank {victim} after {frames} frames"
        );
    }
}

#[test]
fn a_kill_at_any_frame_changes_no_bit() {
    for seed in 0..12 {
        // 3 partials of its chunk and 3 reduced chunks are all that a member gets.
        let streams = 1 + seed as usize % 3;
        let members = members(4, (Transport::Tcp, streams));
        kill_after(members, seed % 7, (seed * 5 % 4) as u32, seed);
    }
    for seed in 0..26 {
        // In shared memory a chunk is two pieces.
        let members = members(4, (Transport::Auto, 1));
        kill_after(members, seed % 13, (seed * 5 % 4) as u32, seed);
    }
}

#[test]
fn a_member_that_dies_while_nothing_runs_is_reported() {
    for way in WAYS {
        dies_while_nothing_runs(way);
    }
}

fn dies_while_nothing_runs(way: Way) {
    let mut members = members(2, way);
    enter_all(1, &members.iter().collect::<Vec<_>>());
    let other = members.pop().unwrap();
    let handle = members[0].endpoint.handle();
    let streams = way.1;
    assert!(handle.wait_until(LONG, |stats| (stats.inbound, stats.outbound)
        == (streams, streams)));
    let name = other.name.clone();
    drop(other);
    assert!(handle.wait_until(LONG, |_| true));
    while handle.lost().is_empty() {
        assert!(handle.wait_until(LONG, |stats| stats.inbound == 0 && stats.outbound == 0));
    }
    let seen: Vec<_> = handle
        .lost()
        .into_iter()
        .map(|lost| (lost.epoch, lost.rank, lost.identity))
        .collect();
    assert_eq!(seen, [(Epoch(1), Rank(1), name)]);
    assert!(handle.wait_until(LONG, |stats| stats.inbound == 0));
    let survivor = members.remove(0);
    assert_eq!(survivor.close().len(), 1, "once, whatever broke first");
}

#[test]
fn a_member_that_was_never_there_is_reported_when_the_group_is_entered() {
    let gone = Member::new("gone");
    let peer = gone.peer();
    drop(gone);
    let member = Member::new("here");
    member
        .endpoint
        .enter(group(1, 0, &[member.peer(), peer.clone()]))
        .unwrap();
    let fresh = Assignment::fresh(2, 2);
    let mut partials = Partials::new(2, 4);
    compute(&mut partials, &fresh, 0, 0);
    match reduce(&member, 1, &fresh, &partials) {
        Err(CollectiveError::PeerLost {
            rank: Rank(1),
            reason: LossReason::Connect { address, .. },
            ..
        }) => {
            assert_eq!(address, peer.address);
        }
        other => panic!("{other:?}"),
    }
}

/// A group of a member and a puppet, with a lane each. The gradient has two values: the member owns the first.
fn with_puppet() -> (Member, Puppet, Assignment, Partials) {
    let member = Member::new("real");
    let puppet = Puppet::new("puppet", &member, 1);
    member
        .endpoint
        .enter(group(1, 0, &[member.peer(), puppet.peer()]))
        .unwrap();
    let fresh = Assignment::fresh(2, 2);
    let mut partials = Partials::new(2, 2);
    partials
        .insert(Node { start: 0, len: 1 }, vec![1.0, 10.0])
        .unwrap();
    (member, puppet, fresh, partials)
}

const THEIRS: Node = Node { start: 1, len: 1 };

#[test]
fn a_corrupted_frame_is_a_loss_and_reaches_nobody() {
    type Damage = fn(&mut Puppet);
    let flip_payload: Damage = |puppet| {
        let payload = bytes(&[2.0]);
        let node = THEIRS;
        let header = Header {
            step: Step(1),
            node,
            ..Header::bare(Kind::Partial, JOB, Epoch(1))
        };
        let header = header.announcing(&payload);
        puppet.send(header, &[payload[0] ^ 1, payload[1], payload[2], payload[3]]);
    };
    let flip_header: Damage = |puppet| {
        use std::io::Write;
        let payload = bytes(&[2.0]);
        let header = Header {
            step: Step(1),
            ..Header::bare(Kind::Partial, JOB, Epoch(1))
        };
        let mut raw = header.announcing(&payload).encode();
        raw[33] ^= 4;
        puppet.stream.write_all(&raw).unwrap();
        puppet.stream.write_all(&payload).unwrap();
    };
    let other_job: Damage = |puppet| puppet.send(Header::bare(Kind::Partial, JOB + 1, Epoch(1)), &[]);
    let oversize: Damage = |puppet| {
        let header = Header {
            length: 1 << 40,
            ..Header::bare(Kind::Partial, JOB, Epoch(1))
        };
        puppet.send(header, &[]);
    };
    let second_hello: Damage = |puppet| puppet.send(Header::bare(Kind::Hello, JOB, Epoch(1)), &[]);
    for (damage, reason) in [
        (flip_payload, FrameError::PayloadChecksum),
        (flip_header, FrameError::HeaderChecksum),
        (
            other_job,
            FrameError::Job {
                found: JOB + 1,
                expected: JOB,
            },
        ),
        (
            oversize,
            FrameError::Oversize {
                length: 1 << 40,
                limit: 4 << 20,
            },
        ),
        (second_hello, FrameError::Kind { found: 1 }),
    ] {
        let (member, mut puppet, fresh, partials) = with_puppet();
        let mut out = [7.0, 7.0];
        damage(&mut puppet);
        let bucket = 0..2;
        let buckets = std::slice::from_ref(&bucket);
        let result = member
            .endpoint
            .all_reduce(Step(1), buckets, &fresh, &partials, &mut out);
        let (rank, identity, reason) = (Rank(1), puppet.name.clone(), LossReason::Frame(reason));
        assert_eq!(
            result,
            Err(CollectiveError::PeerLost {
                rank,
                identity: identity.clone(),
                reason: reason.clone()
            })
        );
        assert_eq!(out, [7.0, 7.0]);
        let handle = member.endpoint.handle();
        assert!(handle.wait_until(LONG, |stats| stats.bad_frames == 1));
        assert_eq!(
            handle.lost(),
            [PeerLost {
                epoch: Epoch(1),
                rank,
                identity,
                reason
            }]
        );
    }
}

#[test]
fn a_connection_that_ends_within_a_frame_is_a_loss() {
    let (member, mut puppet, fresh, partials) = with_puppet();
    let header = Header {
        step: Step(1),
        ..Header::bare(Kind::Partial, JOB, Epoch(1))
    };
    puppet.send(header.announcing(&bytes(&[1.0, 2.0])), &bytes(&[1.0]));
    puppet.stream.shutdown(Shutdown::Both).unwrap();
    match reduce(&member, 1, &fresh, &partials) {
        Err(CollectiveError::PeerLost {
            reason: LossReason::Truncated,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_member_that_stops_reading_is_a_loss_though_it_still_talks() {
    let (member, mut puppet, fresh, partials) = with_puppet();
    drop(puppet.accept());
    match reduce(&member, 1, &fresh, &partials) {
        Err(CollectiveError::PeerLost { rank: Rank(1), .. }) => {}
        other => panic!("{other:?}"),
    }
    // Nobody is hurt by what it says now.
    puppet.say(Kind::Partial, 1, 1, 0, THEIRS, &[2.0]);
}

#[test]
fn a_frame_that_does_not_belong_is_a_disagreement() {
    let (member, mut puppet, fresh, partials) = with_puppet();
    puppet.say(Kind::Partial, 1, 1, 0, THEIRS, &[2.0, 3.0]);
    match reduce(&member, 1, &fresh, &partials) {
        Err(CollectiveError::Disagreement { rank: Rank(1), .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_silent_member_is_named_when_time_is_up() {
    let timeout = std::time::Duration::from_millis(50);
    let member = Member::with(lockstep_collective::Options {
        timeout,
        ..options("real")
    });
    let puppet = Puppet::new("puppet", &member, 1);
    member
        .endpoint
        .enter(group(1, 0, &[member.peer(), puppet.peer()]))
        .unwrap();
    let fresh = Assignment::fresh(2, 2);
    let mut partials = Partials::new(2, 2);
    compute(&mut partials, &fresh, 0, 0);
    let waiting = vec![Rank(1)];
    assert_eq!(
        reduce(&member, 1, &fresh, &partials),
        Err(CollectiveError::TimedOut {
            after: timeout,
            waiting
        })
    );
}

#[test]
fn the_session_may_raise_the_epoch_from_the_callback() {
    let member: std::sync::Arc<std::sync::OnceLock<lockstep_collective::Handle>> = Default::default();
    let handle = member.clone();
    let mut options = options("real");
    options.on_peer_lost = Box::new(move |lost| handle.get().unwrap().raise(lost.epoch.next()));
    let endpoint = Endpoint::bind(options).unwrap();
    member.set(endpoint.handle()).unwrap();
    let gone = Member::new("gone");
    let me = lockstep_collective::Peer {
        identity: "real".to_owned(),
        address: endpoint.local_addr(),
    };
    let them = gone.peer();
    drop(gone);
    endpoint.enter(group(1, 0, &[me.clone(), them.clone()])).unwrap();
    while endpoint.handle().lost().is_empty() {
        assert!(endpoint.handle().wait_until(LONG, |stats| stats.outbound == 0));
    }
    // Whether the callback is done is seen by what it does.
    let superseded = || {
        matches!(
            endpoint.flush(),
            Err(CollectiveError::Superseded { by: Epoch(2), .. })
        )
    };
    while !superseded() {
        thread::yield_now();
    }
    endpoint.enter(group(2, 0, &[me])).unwrap();
}
