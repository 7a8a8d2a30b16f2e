//! A rank's folded gradients of the step in flight.

use std::ops::Range;
use std::sync::Arc;

use lockstep_engine::geometry::Node;
use lockstep_engine::ids::Lane;

use crate::fold::{Fold, Segment};
use crate::pool::Pool;
use crate::precision::Precision;

/// The gradients that one rank has computed of one step, folded to the largest whole subtrees.
///
/// They live until the step's verdict: after members are lost, a survivor adds the lanes that it took over and
/// reduces again. Because both fold as far as they can, the nodes held always equal
/// `assignment.nodes_of(rank)` once the rank's lanes are computed; an all-reduce checks it.
///
/// Buffers may still be read by writer threads of an aborted all-reduce: a fold then writes to a fresh one.
#[derive(Debug)]
pub struct Partials {
    lanes: u32,
    len: usize,
    precision: Precision,
    fold: Fold,
    pool: Pool,
}

/// Why a partial was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartialsError {
    /// Its length differs from that of all others.
    #[error("a partial of {found} values where each has {expected}: take buffers from `Partials::buffer`")]
    Length {
        /// Values given.
        found: usize,
        /// Values of every partial.
        expected: usize,
    },
    /// The tree over the step's lanes has no such node.
    #[error("{node:?} is no node of the tree over {lanes} lanes: insert whole lanes or aligned subtrees")]
    NoSuchNode {
        /// The node given.
        node: Node,
        /// Lanes of the step.
        lanes: u32,
    },
    /// It is not a part of a gradient.
    #[error("{range:?} is no part of a gradient of {len} values")]
    Range {
        /// What was asked for.
        range: Range<usize>,
        /// Values of a gradient.
        len: usize,
    },
    /// A lane of it was inserted already.
    #[error(
        "{node:?} overlaps {held:?}, which is held already: compute a lane once a step, and clear between steps"
    )]
    Overlap {
        /// The node given.
        node: Node,
        /// The node in its way.
        held: Node,
    },
}

/// What a rank holds of a bucket at some moment: the values of its nodes. They stay as they are while this is held.
#[derive(Clone, Debug)]
pub struct Held {
    lanes: u32,
    len: usize,
    precision: Precision,
    values: Vec<(Node, Segment)>,
}

impl Held {
    /// Sums of what is held by several: `len` values of each node, of the same kind as `like`.
    pub(crate) fn of(like: &Self, values: Vec<(Node, Segment)>, len: usize) -> Self {
        let Self { lanes, precision, .. } = *like;
        Self {
            lanes,
            len,
            precision,
            values,
        }
    }

    /// Gives the values to `pool` that came from there.
    pub(crate) fn recycle(self, pool: &Pool) {
        for (_, value) in self.values {
            value.recycle(pool);
        }
    }

    /// Lanes of a step.
    pub(crate) fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Values of the bucket.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How precise they are.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The nodes, in lane order, with their values.
    pub(crate) fn values(&self) -> &[(Node, Segment)] {
        &self.values
    }
}

impl Partials {
    /// No partials yet, of steps of `lanes` lanes (a power of two) and gradients of `len` values.
    #[must_use]
    pub fn new(lanes: u32, len: usize) -> Self {
        Self::with_precision(lanes, len, Precision::F32)
    }

    /// The same, of another precision, which must be that of all members.
    #[must_use]
    pub fn with_precision(lanes: u32, len: usize, precision: Precision) -> Self {
        Self {
            lanes,
            len,
            precision,
            fold: Fold::new(precision),
            pool: Pool::new(usize::MAX),
        }
    }

    /// Lanes of a step.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Values of every gradient.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "it is the length of each gradient, not their number"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// A buffer of zeros to accumulate a lane's gradient in; from the pool if one is free.
    #[must_use]
    pub fn buffer(&self) -> Vec<f32> {
        let buffer = self.pool.take(self.len);
        let mut values = Arc::try_unwrap(buffer).unwrap_or_else(|_| vec![0.0; self.len]);
        values.fill(0.0);
        values
    }

    /// Puts the gradient of `node` in, rounded to the precision, and folds it with its sibling as soon as both are there, up to
    /// the root: `left[i] + right[i]` in f32, in that order, and rounded.
    ///
    /// # Errors
    /// When the length is wrong, the tree has no such node, or one of its lanes is there already; nothing has
    /// changed then.
    pub fn insert(&mut self, node: Node, mut values: Vec<f32>) -> Result<(), PartialsError> {
        if values.len() != self.len {
            return Err(PartialsError::Length {
                found: values.len(),
                expected: self.len,
            });
        }
        let inside = node
            .start
            .checked_add(node.len)
            .is_some_and(|end| end <= self.lanes);
        if !inside || !node.is_aligned() {
            return Err(PartialsError::NoSuchNode {
                node,
                lanes: self.lanes,
            });
        }
        self.precision.round(&mut values);
        let value = Segment::pooled(Arc::new(values), self.len);
        self.fold
            .insert(node, value, &self.pool)
            .map_err(|held| PartialsError::Overlap { node, held })
    }

    /// What is held, in lane order.
    pub fn iter(&self) -> impl Iterator<Item = (Node, &[f32])> {
        self.fold.iter().map(|(node, value)| (node, value.values()))
    }

    /// The nodes held, in lane order.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        self.fold.iter().map(|(node, _)| node)
    }

    /// Whether every one of `lanes` is in.
    #[must_use]
    pub fn covers(&self, lanes: impl IntoIterator<Item = Lane>) -> bool {
        lanes
            .into_iter()
            .all(|lane| self.fold.overlapping(Node::leaf(lane)).is_some())
    }

    /// Lets go of every node that has a lane which is not to be kept: folded lanes cannot be taken apart.
    pub fn retain(&mut self, keep: impl Fn(Lane) -> bool) {
        let whole = |node: &Node| (node.start..node.start + node.len).all(|lane| keep(Lane(lane)));
        let gone: Vec<Node> = self.nodes().filter(|node| !whole(node)).collect();
        for node in gone {
            if let Some(value) = self.fold.remove(node) {
                value.recycle(&self.pool);
            }
        }
    }

    /// Lets go of everything, for the next step. Buffers return to the pool.
    pub fn clear(&mut self) {
        self.fold.clear(&self.pool);
    }

    /// How many buffers were ever allocated: constant in the steady state.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.pool.allocated()
    }

    /// What is held, to be reduced without copying.
    #[must_use]
    pub fn all_held(&self) -> Held {
        self.lend(0..self.len)
    }

    /// What is held of a range of the gradient, to be reduced without copying.
    ///
    /// # Errors
    /// [`PartialsError::Range`] if a gradient has no such range.
    pub fn held(&self, range: Range<usize>) -> Result<Held, PartialsError> {
        if range.start > range.end || range.end > self.len {
            return Err(PartialsError::Range { range, len: self.len });
        }
        Ok(self.lend(range))
    }

    fn lend(&self, range: Range<usize>) -> Held {
        let lend = |(node, value): (Node, &Segment)| (node, value.lend(range.clone()));
        Held {
            lanes: self.lanes,
            len: range.len(),
            precision: self.precision,
            values: self.fold.iter().map(lend).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn what_is_folded_with_a_lane_that_goes_goes_too() {
        let mut partials = Partials::new(8, 1);
        for lane in [0, 1, 2, 4, 7] {
            partials.insert(Node::leaf(Lane(lane)), vec![1.0]).unwrap();
        }
        partials.retain(|lane| [0, 2, 4].contains(&lane.0));
        let kept: Vec<Node> = partials.nodes().collect();
        assert_eq!(kept, [Node::leaf(Lane(2)), Node::leaf(Lane(4))]);
        partials.insert(Node::leaf(Lane(1)), vec![1.0]).unwrap();
    }

    proptest! {
        #[test]
        fn any_order_of_lanes_folds_to_the_same_bits(
            order in (0u32..5).prop_flat_map(|log| Just((0..1u32 << log).collect::<Vec<_>>()).prop_shuffle()),
            seed in any::<u32>(),
            some in 0usize..32,
        ) {
            let lanes = order.len() as u32;
            let leaf = |lane: u32| -> Vec<f32> {
                (0..3).map(|i| ((seed ^ (lane * 77 + i)).wrapping_mul(0x9E37_79B9) as f32 - 2e9) * 1e-6).collect()
            };
            let leaves: Vec<Vec<f32>> = (0..lanes).map(leaf).collect();
            let mut partials = Partials::new(lanes, 3);
            let mut done = Vec::new();
            for (index, &lane) in order.iter().enumerate() {
                if index == some % order.len() {
                    // Maximal: no two nodes held are halves of one.
                    let nodes: Vec<Node> = partials.nodes().collect();
                    prop_assert!(nodes.iter().all(|node| !nodes.contains(&node.sibling())));
                    for (node, values) in partials.iter() {
                        prop_assert_eq!(bits(values), bits(&tree(node, &leaves)));
                    }
                    prop_assert!(partials.covers(done.iter().copied().map(Lane)));
                    prop_assert!(!partials.covers([Lane(lane)]));
                }
                let mut values = partials.buffer();
                prop_assert!(values.iter().all(|value| value.to_bits() == 0));
                values.copy_from_slice(&leaves[lane as usize]);
                partials.insert(Node::leaf(Lane(lane)), values).unwrap();
                done.push(lane);
            }
            let root = Node::root(lanes);
            prop_assert_eq!(partials.nodes().collect::<Vec<_>>(), [root]);
            let (_, values) = partials.iter().next().unwrap();
            prop_assert_eq!(bits(values), bits(&tree(root, &leaves)));
        }
    }

    #[test]
    fn later_steps_allocate_nothing() {
        let mut partials = Partials::new(8, 16);
        let mut allocated = None;
        for _ in 0..5 {
            for lane in 0..8 {
                let mut buffer = partials.buffer();
                buffer.fill(1.0);
                partials.insert(Node::leaf(Lane(lane)), buffer).unwrap();
            }
            partials.clear();
            assert_eq!(
                *allocated.get_or_insert(partials.allocated()),
                partials.allocated()
            );
        }
        assert_eq!(
            allocated,
            Some(4),
            "lane by lane, log2(8) + 1 buffers are in use at most"
        );
    }

    #[test]
    fn what_does_not_belong_is_refused_and_changes_nothing() {
        let mut partials = Partials::new(4, 2);
        let node = |start, len| Node { start, len };
        partials.insert(node(2, 1), vec![1.0; 2]).unwrap();
        assert_eq!(
            partials.insert(node(0, 1), vec![0.0; 3]),
            Err(PartialsError::Length {
                found: 3,
                expected: 2
            })
        );
        for bad in [
            node(1, 2),
            node(0, 3),
            node(4, 1),
            node(0, 8),
            node(0, 0),
            node(u32::MAX, 1),
        ] {
            assert_eq!(
                partials.insert(bad, vec![0.0; 2]),
                Err(PartialsError::NoSuchNode { node: bad, lanes: 4 })
            );
        }
        let overlap = PartialsError::Overlap {
            node: node(2, 2),
            held: node(2, 1),
        };
        assert_eq!(partials.insert(node(2, 2), vec![0.0; 2]), Err(overlap));
        assert_eq!(partials.nodes().collect::<Vec<_>>(), [node(2, 1)]);
    }
}
