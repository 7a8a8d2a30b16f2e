//! The fixed tree as a walk over its leaves from left to right, for values that lie in different places.
//!
//! [`Fold`](crate::fold::Fold) takes values as they come; this one has them all, and needs no more memory than one
//! block a level of the tree. Both add with the same addition, and the same halves.

use lockstep_engine::geometry::Node;
use lockstep_engine::ids::Rank;

use crate::fold::add_to;
use crate::precision::Precision;

/// A value of the walk: that of a node of some member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Whose.
    pub(crate) rank: Rank,
    /// Which of its nodes, in lane order.
    pub(crate) index: usize,
    /// How many subtrees are whole once it is there.
    folds: usize,
}

/// The walk.
#[derive(Debug)]
pub(crate) struct Walk {
    leaves: Vec<Leaf>,
    /// Sums that are under way at the same time, at most.
    depth: usize,
}

/// Blocks for sums that are under way, and one to land values in.
#[derive(Debug)]
pub(crate) struct Levels {
    landing: Vec<f32>,
    sums: Vec<Vec<f32>>,
}

impl Levels {
    /// Blocks for a [fold](Walk::fold) of at most `len` values, in any of these walks.
    pub(crate) fn new(walks: &[Walk], len: usize) -> Self {
        let depth = walks.iter().map(|walk| walk.depth).max().unwrap_or_default();
        Self {
            landing: vec![0.0; len],
            sums: vec![vec![0.0; len]; depth],
        }
    }
}

impl Walk {
    /// The walk over those of the nodes that each member holds, by rank and in lane order, that lie in `root`. `None`
    /// unless they make it up.
    pub(crate) fn new(nodes: &[Vec<Node>], root: Node) -> Option<Self> {
        let inside = |node: Node| root.start <= node.start && node.start + node.len <= root.start + root.len;
        let mut all: Vec<(Node, Rank, usize)> = Vec::new();
        for (rank, nodes) in (0u32..).zip(nodes) {
            let leaves = nodes.iter().enumerate().filter(|&(_, &node)| inside(node));
            all.extend(leaves.map(|(index, &node)| (node, Rank(rank), index)));
        }
        all.sort_unstable_by_key(|(node, ..)| node.start);
        let (mut leaves, mut whole, mut depth) = (Vec::with_capacity(all.len()), Vec::<Node>::new(), 0);
        for (node, rank, index) in all {
            depth = depth.max(whole.len() + 1);
            let (mut node, mut folds) = (node, 0);
            while !node.is_left() && whole.pop_if(|left| *left == node.sibling()).is_some() {
                node = node.parent();
                folds += 1;
            }
            whole.push(node);
            leaves.push(Leaf { rank, index, folds });
        }
        (whole == [root]).then_some(Self { leaves, depth })
    }

    /// Adds all leaves, of `len` values, up. `fetch` gives a leaf's values: it returns them if they are at hand, or
    /// writes them to where it is told.
    pub(crate) fn fold<'v, 'l: 'v, E>(
        &self,
        (len, precision): (usize, Precision),
        levels: &'l mut Levels,
        mut fetch: impl FnMut(&Leaf, &mut [f32]) -> Result<Option<&'v [f32]>, E>,
    ) -> Result<&'v [f32], E> {
        let Levels { landing, sums } = levels;
        // Of the sums under way, the last may still be values at hand.
        let (mut depth, mut at_hand) = (0, None);
        for leaf in &self.leaves {
            if leaf.folds == 0 {
                if let Some(values) = at_hand.take() {
                    sums[depth - 1][..len].copy_from_slice(values);
                }
                at_hand = fetch(leaf, &mut sums[depth][..len])?;
                depth += 1;
                continue;
            }
            let landing = &mut landing[..len];
            let right = fetch(leaf, landing)?.unwrap_or(landing);
            let sum = &mut sums[depth - 1][..len];
            match at_hand.take() {
                Some(left) => add(left, right, sum, precision),
                None => add_to(sum, right, precision),
            }
            for _ in 1..leaf.folds {
                depth -= 1;
                let (left, right) = sums.split_at_mut(depth);
                add_to(&mut left[depth - 1][..len], &right[0][..len], precision);
            }
        }
        Ok(at_hand.unwrap_or(&sums[0][..len]))
    }
}

/// `left + right`, elementwise.
fn add(left: &[f32], right: &[f32], sum: &mut [f32], precision: Precision) {
    for ((sum, l), r) in sum.iter_mut().zip(left).zip(right) {
        *sum = precision.add(*l, *r);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::{Fold, Segment};
    use crate::pool::Pool;
    use lockstep_engine::geometry::Assignment;
    use proptest::prelude::*;
    use std::convert::Infallible;
    use std::sync::Arc;

    fn value(node: Node) -> Vec<f32> {
        let value =
            |i: u32| (node.start * 31 + node.len * 7 + i).wrapping_mul(0x9E37_79B9) as f32 * 1e-3 - 1e6;
        (0..5).map(value).collect()
    }

    proptest! {
        #[test]
        fn the_walk_adds_as_the_fold_does(
            (members, owners) in (1u32..6, 0u32..6).prop_flat_map(|(members, log)| {
                (Just(members), prop::collection::vec((0..members).prop_map(Rank), 1 << log))
            }),
            precision in prop::sample::select(vec![Precision::F32, Precision::Bf16]),
        ) {
            let assignment = Assignment::from_owners(owners.clone());
            let nodes: Vec<Vec<Node>> = (0..members).map(|rank| assignment.nodes_of(Rank(rank))).collect();
            let root = Node::root(owners.len() as u32);
            let (mut fold, pool) = (Fold::new(precision), Pool::new(1 << 20));
            for &node in nodes.iter().flatten() {
                fold.insert(node, Segment::pooled(Arc::new(value(node)), 5), &pool).unwrap();
            }
            let walk = Walk::new(&nodes, root).unwrap();
            let values: Vec<Vec<Vec<f32>>> =
                nodes.iter().map(|nodes| nodes.iter().map(|&node| value(node)).collect()).collect();
            let mut levels = Levels::new(std::slice::from_ref(&walk), 8);
            let sum = walk.fold((5, precision), &mut levels, |leaf, to| {
                let values = &values[leaf.rank.index()][leaf.index];
                if leaf.rank == Rank(0) {
                    return Ok::<_, Infallible>(Some(values.as_slice()));
                }
                to.copy_from_slice(values);
                Ok(None)
            }).unwrap();
            let expected = fold.remove(root).unwrap();
            prop_assert_eq!(sum, expected.values());
        }
    }

    #[test]
    fn what_is_no_tree_is_no_walk() {
        let node = |start, len| Node { start, len };
        let root = Node::root(4);
        assert!(Walk::new(&[vec![node(0, 2)], vec![node(2, 1)]], root).is_none());
        assert!(Walk::new(&[vec![node(0, 2)], vec![node(0, 2)]], root).is_none());
        assert!(Walk::new(&[], root).is_none());
    }
}
