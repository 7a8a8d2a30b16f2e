//! The geometry of a step: microbatches, lanes, the fixed tree over them, and who computes which.
//!
//! A step has `M` microbatches in `L` lanes, fixed by the job. A lane's gradient is the left fold of its
//! microbatches; the step's gradient is the binary tree over the lanes. Neither mentions workers, so the bits
//! cannot depend on them.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::ids::{Lane, Rank, Step};

/// How a step is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Microbatches of a step; a multiple of `lanes`.
    pub microbatches: u32,
    /// Lanes of a step; a power of two.
    pub lanes: u32,
    /// Samples of a microbatch.
    pub sequences: u32,
}

impl Geometry {
    /// The smallest power of two that is at least `max_workers` and divides `microbatches`, or else the
    /// largest power of two that divides `microbatches`.
    #[must_use]
    pub fn default_lanes(microbatches: u32, max_workers: u32) -> u32 {
        let largest = 1 << microbatches.trailing_zeros();
        max_workers.next_power_of_two().min(largest)
    }

    /// Samples of one step.
    #[must_use]
    pub fn samples(&self) -> u64 {
        u64::from(self.microbatches) * u64::from(self.sequences)
    }

    /// The positions in the sample order that `lane` consumes at `step`, one range a microbatch, in order.
    pub fn positions(&self, step: Step, lane: Lane) -> impl Iterator<Item = Range<u64>> + use<> {
        let per_lane = u64::from(self.microbatches / self.lanes);
        let sequences = u64::from(self.sequences);
        let first = (step.0 - 1) * self.samples() + u64::from(lane.0) * per_lane * sequences;
        (0..per_lane).map(move |i| first + i * sequences..first + (i + 1) * sequences)
    }

    /// The one contiguous range of positions that `lane` consumes at `step`.
    #[must_use]
    pub fn span(&self, step: Step, lane: Lane) -> Range<u64> {
        let per_lane = self.samples() / u64::from(self.lanes);
        let first = (step.0 - 1) * self.samples() + u64::from(lane.0) * per_lane;
        first..first + per_lane
    }
}

/// A node of the tree over lanes: `len` lanes from `start`, `len` a power of two that divides `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// First lane.
    pub start: u32,
    /// Number of lanes.
    pub len: u32,
}

impl Node {
    /// The whole step.
    #[must_use]
    pub fn root(lanes: u32) -> Self {
        Self { start: 0, len: lanes }
    }

    /// A single lane.
    #[must_use]
    pub fn leaf(lane: Lane) -> Self {
        Self {
            start: lane.0,
            len: 1,
        }
    }

    /// Whether the shape is one that the tree has.
    #[must_use]
    pub fn is_aligned(self) -> bool {
        self.len.is_power_of_two() && self.start.is_multiple_of(self.len)
    }

    /// The two halves, left first, unless this is a leaf.
    #[must_use]
    pub fn children(self) -> Option<(Self, Self)> {
        let len = self.len / 2;
        (len > 0).then_some((
            Self {
                start: self.start,
                len,
            },
            Self {
                start: self.start + len,
                len,
            },
        ))
    }

    /// The node that this is a half of.
    #[must_use]
    pub fn parent(self) -> Self {
        let len = self.len * 2;
        Self {
            start: self.start / len * len,
            len,
        }
    }

    /// The other half of the parent.
    #[must_use]
    pub fn sibling(self) -> Self {
        Self {
            start: self.start ^ self.len,
            len: self.len,
        }
    }

    /// Whether this is the left half of its parent.
    #[must_use]
    pub fn is_left(self) -> bool {
        self.start & self.len == 0
    }
}

/// Who computes each lane of a step: `owners[lane]` is a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    owners: Vec<Rank>,
}

impl Assignment {
    /// From one owner a lane.
    #[must_use]
    pub fn from_owners(owners: Vec<Rank>) -> Self {
        Self { owners }
    }

    /// The assignment of an undisturbed step: contiguous runs, aligned when that does not make the longest run
    /// longer than it must be. A pure function of its arguments; ranks beyond the lanes get none.
    #[must_use]
    pub fn fresh(lanes: u32, members: u32) -> Self {
        let busy = members.min(lanes).max(1);
        let mut aligned = vec![Rank(0); lanes as usize];
        halve(&mut aligned, 0, busy);
        let longest = longest_run(&aligned, busy);
        let owners = if longest <= lanes.div_ceil(busy) {
            aligned
        } else {
            (0..lanes)
                .map(|lane| Rank((u64::from(lane) * u64::from(busy) / u64::from(lanes)) as u32))
                .collect()
        };
        Self { owners }
    }

    /// The assignment of an undisturbed step among members of different speed, one weight each: contiguous runs, as
    /// long as the weights say, so that all take as nearly as possible the same time. Nobody is left without a lane
    /// while there are enough. With equal weights it is [`fresh`](Self::fresh).
    #[must_use]
    pub fn weighted(lanes: u32, weights: &[u32]) -> Self {
        let members = weights.len() as u32;
        if members == 0 || weights.iter().all(|&weight| weight == weights[0]) {
            return Self::fresh(lanes, members);
        }
        let mut load: Vec<u32> = (0..members).map(|rank| u32::from(rank < lanes)).collect();
        for _ in members..lanes {
            let rank = first_to_finish(&load, weights);
            load[rank.index()] += 1;
        }
        let runs = (0u32..).zip(load);
        Self {
            owners: runs
                .flat_map(|(rank, lanes)| std::iter::repeat_n(Rank(rank), lanes as usize))
                .collect(),
        }
    }

    /// The assignment of the step in flight when members change: whoever had a lane keeps it, since it may have
    /// computed it already, and the orphaned lanes go, in order, to whoever would be done with them first. `kept[lane]`
    /// is the new rank of the lane's owner, or `None` when that one is gone; `weights` has one speed a member.
    #[must_use]
    pub fn keeping(kept: &[Option<Rank>], weights: &[u32]) -> Self {
        let mut load = vec![0u32; weights.len()];
        for rank in kept.iter().flatten() {
            load[rank.index()] += 1;
        }
        let mut take = || {
            let rank = first_to_finish(&load, weights);
            if let Some(load) = load.get_mut(rank.index()) {
                *load += 1;
            }
            rank
        };
        Self {
            owners: kept.iter().map(|owner| owner.unwrap_or_else(&mut take)).collect(),
        }
    }

    /// The lanes of `rank`, in order.
    pub fn lanes_of(&self, rank: Rank) -> impl Iterator<Item = Lane> + '_ {
        (0u32..)
            .zip(&self.owners)
            .filter(move |&(_, &owner)| owner == rank)
            .map(|(lane, _)| Lane(lane))
    }

    /// The owner of each lane.
    #[must_use]
    pub fn owners(&self) -> &[Rank] {
        &self.owners
    }

    /// The tree nodes that `rank` sends: its lanes folded into the largest whole subtrees, in lane order.
    #[must_use]
    pub fn nodes_of(&self, rank: Rank) -> Vec<Node> {
        let mut nodes = Vec::new();
        self.collect_nodes(rank, Node::root(self.owners.len() as u32), &mut nodes);
        nodes
    }

    /// Of the lanes that a worker has computed and folded, those that it can use under this assignment as `rank`: folded
    /// subtrees cannot be taken apart, so one that reaches beyond its lanes is lost as a whole.
    #[must_use]
    pub fn usable(&self, rank: Rank, computed: &BTreeSet<Lane>) -> BTreeSet<Lane> {
        let (mine, other) = (Rank(0), Rank(1));
        let lanes = (0..self.owners.len() as u32).map(Lane);
        let folded = lanes.map(|lane| if computed.contains(&lane) { mine } else { other });
        let nodes = Self::from_owners(folded.collect()).nodes_of(mine);
        let lanes_of = |node: Node| (node.start..node.start + node.len).map(Lane);
        let whole = |node: &Node| lanes_of(*node).all(|lane| self.owners[lane.index()] == rank);
        nodes.into_iter().filter(whole).flat_map(lanes_of).collect()
    }

    fn collect_nodes(&self, rank: Rank, node: Node, into: &mut Vec<Node>) {
        let owners = &self.owners[node.start as usize..(node.start + node.len) as usize];
        if owners.iter().all(|&owner| owner == rank) {
            into.push(node);
        } else if let Some((left, right)) = node.children() {
            self.collect_nodes(rank, left, into);
            self.collect_nodes(rank, right, into);
        }
    }
}

/// The member that would be done first with one lane more: the least `(load + 1) / weight`, the lower rank first.
fn first_to_finish(load: &[u32], weights: &[u32]) -> Rank {
    let time = |rank: usize| (u64::from(load[rank]) + 1, u64::from(weights[rank].max(1)));
    let sooner = |&a: &usize, &b: &usize| {
        let ((la, wa), (lb, wb)) = (time(a), time(b));
        (la * wb).cmp(&(lb * wa)).then(a.cmp(&b))
    };
    Rank((0..load.len()).min_by(sooner).unwrap_or(0) as u32)
}

/// Gives the left half of the lanes to the left half of the members, and so on down.
fn halve(owners: &mut [Rank], first: u32, members: u32) {
    if members <= 1 {
        owners.fill(Rank(first));
        return;
    }
    let left = members.div_ceil(2);
    let (head, tail) = owners.split_at_mut(owners.len() / 2);
    halve(head, first, left);
    halve(tail, first + left, members - left);
}

fn longest_run(owners: &[Rank], members: u32) -> u32 {
    (0..members)
        .map(|rank| owners.iter().filter(|owner| owner.0 == rank).count() as u32)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn default_lanes_follow_the_rule() {
        for (microbatches, max_workers, lanes) in
            [(8, 4, 4), (8, 3, 4), (6, 4, 2), (16, 5, 8), (7, 4, 1), (8, 1, 1)]
        {
            assert_eq!(Geometry::default_lanes(microbatches, max_workers), lanes);
        }
    }

    proptest! {
        #[test]
        fn positions_cover_each_sample_of_consecutive_steps_once(
            log in 0u32..4, per_lane in 1u32..4, sequences in 1u32..4,
        ) {
            let lanes = 1 << log;
            let geometry = Geometry { microbatches: lanes * per_lane, lanes, sequences };
            let mut all = Vec::new();
            for step in 1..4 {
                for lane in (0..lanes).map(Lane) {
                    let before = all.len();
                    all.extend(geometry.positions(Step(step), lane).flatten());
                    prop_assert_eq!(geometry.span(Step(step), lane).collect::<Vec<_>>(), &all[before..]);
                }
            }
            prop_assert_eq!(all, (0..3 * geometry.samples()).collect::<Vec<_>>());
        }

        #[test]
        fn fresh_assignments_are_contiguous_balanced_and_leave_nobody_idle(log in 0u32..7, members in 1u32..80) {
            let lanes = 1u32 << log;
            let owners = Assignment::fresh(lanes, members);
            let owners = owners.owners();
            prop_assert!(owners.is_sorted());
            let busy = members.min(lanes);
            let load = |rank: u32| owners.iter().filter(|o| o.0 == rank).count() as u32;
            prop_assert!((0..busy).all(|rank| load(rank) >= 1 && load(rank) <= lanes.div_ceil(busy)));
        }

        #[test]
        fn nodes_of_all_ranks_tile_the_tree(log in 0u32..6, members in 1u32..9, dead in 0u32..9) {
            let lanes = 1u32 << log;
            let fresh = Assignment::fresh(lanes, members);
            let survivors: Vec<u32> = (0..members).filter(|&r| r != dead || members == 1).collect();
            let count = survivors.len() as u32;
            let rank_of = |old: Rank| survivors.iter().position(|&s| s == old.0).map(|i| Rank(i as u32));
            let kept: Vec<Option<Rank>> = fresh.owners().iter().map(|&owner| rank_of(owner)).collect();
            let after = Assignment::keeping(&kept, &vec![1; count as usize]);
            for (assignment, members) in [(&fresh, members), (&after, count)] {
                let mut covered = vec![0; lanes as usize];
                for rank in (0..members).map(Rank) {
                    for node in assignment.nodes_of(rank) {
                        prop_assert!(node.is_aligned());
                        for lane in node.start..node.start + node.len {
                            covered[lane as usize] += 1;
                            prop_assert_eq!(assignment.owners()[lane as usize], rank);
                        }
                    }
                }
                prop_assert!(covered.iter().all(|&n| n == 1));
            }
            // Survivors keep every lane that they had.
            for (old, &new) in fresh.owners().iter().zip(after.owners()) {
                if let Some(rank) = rank_of(*old) {
                    prop_assert_eq!(rank, new);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn weighted_runs_are_contiguous_and_no_other_division_is_faster(
            lanes in (0u32..5).prop_map(|log| 1 << log), weights in prop::collection::vec(1u32..9, 1..5),
        ) {
            let owners = Assignment::weighted(lanes, &weights);
            prop_assert!(owners.owners().is_sorted() && owners.owners().len() == lanes as usize);
            let load = |rank: usize| owners.owners().iter().filter(|o| o.index() == rank).count() as u32;
            let busy = weights.len().min(lanes as usize);
            prop_assert!((0..busy).all(|rank| load(rank) > 0));
            // Times scaled by 840, which every weight up to 8 divides.
            let time = |lanes: u32, rank: usize| lanes * 840 / weights[rank];
            let slowest = (0..busy).map(|rank| time(load(rank), rank)).max();
            if weights.iter().any(|&w| w != weights[0]) {
                prop_assert_eq!(slowest, fastest_division(lanes, &weights[..busy]), "{:?}", weights);
            }
        }
    }

    /// Tries them all: the least time of the slowest member, each with at least one lane.
    fn fastest_division(lanes: u32, weights: &[u32]) -> Option<u32> {
        let (&weight, rest) = weights.split_first()?;
        if rest.is_empty() {
            return (lanes > 0).then_some(lanes * 840 / weight);
        }
        (1..lanes)
            .filter_map(|mine| Some(fastest_division(lanes - mine, rest)?.max(mine * 840 / weight)))
            .min()
    }

    #[test]
    fn an_aligned_run_is_one_partial() {
        for (lanes, members) in [(4, 1), (4, 2), (4, 3), (4, 4), (8, 3), (16, 4)] {
            let fresh = Assignment::fresh(lanes, members);
            let partials: Vec<usize> = (0..members).map(|r| fresh.nodes_of(Rank(r)).len()).collect();
            if lanes == 8 {
                continue; // 3 over 8: balance (3, 3, 2) comes before alignment (2, 2, 4)
            }
            assert!(
                partials.iter().all(|&n| n == 1),
                "{lanes} lanes, {members} members: {partials:?}"
            );
        }
    }

    #[test]
    fn orphans_go_to_whoever_has_fewest() {
        let kept = [Some(Rank(0)), None, Some(Rank(1)), None, None, None];
        let owners = [0, 2, 1, 0, 1, 2].map(Rank);
        assert_eq!(Assignment::keeping(&kept, &[1; 3]).owners(), owners);
    }
}
