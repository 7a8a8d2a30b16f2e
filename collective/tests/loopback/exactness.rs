//! Whoever computes what, and however many they are: the bits are those of the plain tree.

use crate::support::*;
use lockstep_collective::{Partials, Precision, Transport};
use lockstep_engine::geometry::Assignment;
use lockstep_engine::ids::{Rank, Step};
use proptest::prelude::*;

/// Assignments: fresh ones, ones after losses, and any at all.
pub(crate) fn assignments(lanes: u32, members: u32) -> impl Strategy<Value = Assignment> {
    let anything = prop::collection::vec(0..members, lanes as usize)
        .prop_map(|owners| Assignment::from_owners(owners.into_iter().map(Rank).collect()));
    let after_loss = (1u32..4, any::<u32>()).prop_map(move |(lost, first)| {
        let first = first % (members + 1);
        let rank_of = |old: &Rank| match old.0 {
            old if old < first => Some(Rank(old)),
            old => old.checked_sub(lost).filter(|&new| new >= first).map(Rank),
        };
        let kept: Vec<_> = Assignment::fresh(lanes, members + lost)
            .owners()
            .iter()
            .map(rank_of)
            .collect();
        Assignment::keeping(&kept, &vec![1; members as usize])
    });
    prop_oneof![Just(Assignment::fresh(lanes, members)), after_loss, anything]
}

fn cases() -> impl Strategy<Value = (u32, u32, Vec<Assignment>)> {
    (0u32..5, 1u32..=5).prop_flat_map(|(log, members)| {
        let lanes = 1 << log;
        (
            Just(lanes),
            Just(members),
            prop::collection::vec(assignments(lanes, members), 1..4),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn all_members_get_the_bits_of_the_tree(
        (lanes, count, assignments) in cases(),
        len in prop_oneof![3 => 0usize..40, 3 => 1000usize..2000, 1 => Just(400_001)],
        cuts in prop::collection::vec(0.0..1.0f64, 0..4),
        seed in any::<u32>(),
        way in prop::sample::select(WAYS.as_slice()),
        precision in prop::sample::select(vec![Precision::F32, Precision::Bf16]),
    ) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| (cut * len as f64) as usize).chain([0, len]).collect();
        ends.sort_unstable();
        // The last bucket first, as backward makes them.
        let buckets: Vec<_> = ends.windows(2).rev().map(|pair| pair[0]..pair[1]).collect();
        let members = members(count, way);
        let members: Vec<&Member> = members.iter().collect();
        enter_all(1, &members);
        let all = on_all(&members, |rank, member| {
            let mut partials = Partials::with_precision(lanes, len, precision);
            let mut out = vec![f32::NAN; len];
            let mut results = Vec::new();
            for (step, assignment) in (1u64..).zip(&assignments) {
                compute(&mut partials, assignment, rank, u64::from(seed) + step);
                member.endpoint.all_reduce(Step(step), &buckets, assignment, &partials, &mut out).unwrap();
                results.push(bits(&out));
                partials.clear();
            }
            (results, member.endpoint.handle().stats().shared_reductions)
        });
        for step in 0..assignments.len() {
            let round: fn(f32) -> f32 = match precision {
                Precision::F32 => |value| value,
                Precision::Bf16 => |value| half::bf16::from_f32(value).to_f32(),
            };
            let expected = rounded_tree_bits(lanes, len, u64::from(seed) + step as u64 + 1, round);
            for (results, shared) in &all {
                prop_assert!(results[step] == expected, "step {} differs", step + 1);
                let expected = if way.0 == Transport::Auto && count > 1 { assignments.len() * buckets.len() } else { 0 };
                prop_assert_eq!(*shared, expected as u64);
            }
        }
    }
}

#[test]
fn values_outside_the_buckets_are_left_alone() {
    for way in WAYS {
        leaves_alone(way);
    }
}

fn leaves_alone(way: Way) {
    let members = members(2, way);
    let members: Vec<&Member> = members.iter().collect();
    enter_all(1, &members);
    let assignment = Assignment::fresh(2, 2);
    let expected = tree_bits(2, 100, 0);
    for out in on_all(&members, |rank, member| {
        let mut partials = Partials::new(2, 100);
        compute(&mut partials, &assignment, rank, 0);
        let mut out = vec![-1.0; 100];
        member
            .endpoint
            .all_reduce(Step(1), &[60..70, 10..30], &assignment, &partials, &mut out)
            .unwrap();
        out
    }) {
        for (i, value) in out.iter().enumerate() {
            let inside = (60..70).contains(&i) || (10..30).contains(&i);
            assert_eq!(
                value.to_bits(),
                if inside { expected[i] } else { (-1.0f32).to_bits() }
            );
        }
    }
}
