//! The machine against the plain tree, with a network that delivers in any order.

use lockstep_engine::geometry::Assignment;
use lockstep_engine::ids::{Epoch, Step};
use proptest::prelude::*;

use super::*;
use crate::mailbox::Turn;
use crate::partials::Partials;

/// Deterministic values of many magnitudes, signs and exponents: additions of them do not commute with grouping.
fn values(lane: u32, len: usize, seed: u64) -> Vec<f32> {
    let mut x = seed ^ (u64::from(lane) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut draw = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    (0..len)
        .map(|_| (draw() as i32 as f32) * 2f32.powi((draw() % 40) as i32 - 50))
        .collect()
}

fn tree(node: Node, leaves: &[Vec<f32>]) -> Vec<f32> {
    match node.children() {
        None => leaves[node.start as usize].clone(),
        Some((left, right)) => tree(left, leaves)
            .iter()
            .zip(tree(right, leaves))
            .map(|(l, r)| l + r)
            .collect(),
    }
}

fn held(assignment: &Assignment, rank: Rank, leaves: &[Vec<f32>]) -> Held {
    let mut partials = Partials::new(leaves.len() as u32, leaves[0].len());
    for lane in assignment.lanes_of(rank) {
        partials
            .insert(Node::leaf(lane), leaves[lane.index()].clone())
            .unwrap();
    }
    partials.held(0..leaves[0].len()).unwrap()
}

fn place(rank: u32, members: u32) -> Place {
    Place {
        job: 1,
        epoch: Epoch(1),
        turn: Turn {
            step: Step(1),
            bucket: 3,
        },
        rank: Rank(rank),
        members,
    }
}

/// The machine that a bucket of any size would have, if none were small.
fn in_chunks<'a>(call: Call<'a>, pool: &'a Pool) -> Reduction<'a> {
    let errands = plan::errands(call.held.len(), call.place.members);
    Reduction::of(call, errands, pool)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_order_of_delivery_gives_the_bits_of_the_tree(
        log in 0u32..5,
        members in 1u32..6,
        len in 1usize..200,
        owners in prop::collection::vec(0u32..6, 16),
        seed in 1u64..,
        in_few_frames in any::<bool>(),
        mut picks in prop::collection::vec(any::<u32>(), 64),
    ) {
        let lanes = 1u32 << log;
        let owners = owners[..lanes as usize].iter().map(|owner| Rank(owner % members)).collect();
        let assignment = Assignment::from_owners(owners);
        let leaves: Vec<_> = (0..lanes).map(|lane| values(lane, len, seed)).collect();
        let pool = Pool::new(1 << 20);
        let held: Vec<_> = (0..members).map(|rank| held(&assignment, Rank(rank), &leaves)).collect();
        let mut outs = vec![vec![f32::NAN; len]; members as usize];
        let mut flying = Vec::new();
        let mut machines = Vec::new();
        let post = |from: u32, outbox: &mut Outbox, flying: &mut Vec<(u32, Rank, Outgoing)>| {
            for to in (0..members).map(Rank) {
                while let Some(frame) = outbox.pop(to) {
                    flying.push((from, to, frame));
                }
            }
        };
        for rank in 0..members {
            let (held, out) = (&held[rank as usize], &mut outs[rank as usize]);
            let call = Call::new(place(rank, members), &assignment, held, out).unwrap();
            let mut machine = if in_few_frames {
                Reduction::between_all(call, &pool)
            } else {
                in_chunks(call, &pool)
            };
            let mut outbox = Outbox::new(members as usize);
            machine.start(out, &mut outbox);
            post(rank, &mut outbox, &mut flying);
            machines.push(machine);
        }
        while !flying.is_empty() {
            picks.rotate_left(1);
            let (from, to, frame) = flying.swap_remove(picks[0] as usize % flying.len());
            let mut outbox = Outbox::new(members as usize);
            let buffer = pool.take_rounded(frame.payload.values().len());
            let mut payload = Segment::pooled(buffer, frame.payload.values().len());
            payload.values_mut().unwrap().copy_from_slice(frame.payload.values());
            machines[to.index()]
                .accept(Rank(from), &frame.header, payload, &mut outs[to.index()], &mut outbox)
                .unwrap();
            post(to.0, &mut outbox, &mut flying);
        }
        let expected: Vec<u32> = tree(Node::root(lanes), &leaves).iter().map(|v| v.to_bits()).collect();
        for (machine, out) in machines.iter().zip(&outs) {
            prop_assert_eq!(machine.missing(), 0);
            prop_assert_eq!(machine.awaited().count(), 0);
            prop_assert_eq!(out.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), expected.clone());
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let leaves = vec![vec![1.0; 4]; 2];
    let fresh = Assignment::fresh(2, 2);
    let mine = held(&fresh, Rank(0), &leaves);
    let new = |members, len, assignment: &Assignment| {
        Call::new(place(0, members), assignment, &mine, &vec![0.0; len])
            .map(|_| ())
            .unwrap_err()
    };
    let argument = |error| match error {
        CollectiveError::Argument { argument, .. } => argument,
        other => panic!("{other}"),
    };
    assert_eq!(argument(new(2, 5, &fresh)), "out");
    assert_eq!(argument(new(1, 4, &fresh)), "assignment");
    assert_eq!(argument(new(2, 4, &Assignment::fresh(4, 2))), "assignment");
    assert_eq!(
        argument(new(2, 4, &Assignment::from_owners(vec![Rank(0); 3]))),
        "assignment"
    );
    let all_mine = Assignment::from_owners(vec![Rank(0); 2]);
    let (held, expected) = (vec![Node { start: 0, len: 1 }], vec![Node { start: 0, len: 2 }]);
    assert_eq!(
        new(2, 4, &all_mine),
        CollectiveError::WrongPartials { held, expected }
    );
}

#[test]
fn frames_that_cannot_be_are_named_and_leave_no_trace() {
    let pool = Pool::new(1 << 20);
    let leaves = vec![vec![1.0; 8]; 4];
    let assignment = Assignment::fresh(4, 4);
    let mine = held(&assignment, Rank(0), &leaves);
    let (mut out, mut outbox) = (vec![0.0; 8], Outbox::new(4));
    let call = Call::new(place(0, 4), &assignment, &mine, &out).unwrap();
    let mut machine = in_chunks(call, &pool);
    machine.start(&mut out, &mut outbox);
    assert_eq!(machine.missing(), 6);
    let mut refuse = |from: u32, kind, chunk, start, len: usize| {
        let header = Header {
            node: Node { start, len: 1 },
            chunk,
            step: Step(1),
            ..Header::bare(kind, 1, Epoch(1))
        };
        let payload = Segment::pooled(pool.take(len), len);
        match machine.accept(Rank(from), &header, payload, &mut out, &mut outbox) {
            Err(CollectiveError::Disagreement { rank, what }) if rank == Rank(from) => Some(what),
            Err(other) => panic!("{other}"),
            Ok(()) => None,
        }
    };
    for (from, kind, chunk, start, len, what) in [
        (1, Kind::Partial, 9, 1, 2, "no such piece"),
        (1, Kind::Partial, 0, 1, 3, "another length"),
        (1, Kind::Partial, 0, 2, 2, "another's lanes"),
        (1, Kind::Partial, 1, 1, 2, "unexpected"),
        (1, Kind::Reduced, 2, 0, 2, "another's piece"),
        (1, Kind::Reduced, 0, 0, 2, "unexpected"),
    ] {
        let answer = refuse(from, kind, chunk, start, len);
        assert!(answer.is_some_and(|answer| answer.starts_with(what)), "{what}");
    }
    assert_eq!(refuse(1, Kind::Partial, 0, 1, 2), None);
    assert!(
        refuse(1, Kind::Partial, 0, 1, 2)
            .unwrap()
            .starts_with("sent twice")
    );
    assert_eq!(refuse(2, Kind::Reduced, 2, 0, 2), None);
    assert!(
        refuse(2, Kind::Reduced, 2, 0, 2)
            .unwrap()
            .starts_with("unexpected")
    );
    assert_eq!(machine.missing(), 4);
}
