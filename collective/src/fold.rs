//! The one addition, and the fixed tree of it.
//!
//! Both a rank's own partials and the pieces that a chunk's owner combines are folds of this kind: there is one
//! place where gradients are added, and it always adds the right half to the left.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use lockstep_engine::geometry::Node;

use crate::pool::{Buffer, Pool};
use crate::precision::Precision;

/// A part of a buffer, which may be shared.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    buffer: Buffer,
    range: Range<usize>,
    spare: bool,
}

impl Segment {
    /// Values from a pool, which goes back there after use.
    pub(crate) fn pooled(buffer: Buffer, len: usize) -> Self {
        Self {
            buffer,
            range: 0..len,
            spare: true,
        }
    }

    /// Values that belong to somebody else.
    pub(crate) fn lent(buffer: Buffer, range: Range<usize>) -> Self {
        Self {
            buffer,
            range,
            spare: false,
        }
    }

    /// The same values, which belong to whoever holds this one.
    pub(crate) fn lend(&self, range: Range<usize>) -> Self {
        let start = self.range.start;
        Self::lent(self.buffer.clone(), start + range.start..start + range.end)
    }

    /// The values.
    pub(crate) fn values(&self) -> &[f32] {
        &self.buffer[self.range.clone()]
    }

    /// The values as they go over the wire.
    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self.values())
    }

    /// The values to write to, if nobody else reads them.
    pub(crate) fn values_mut(&mut self) -> Option<&mut [f32]> {
        let buffer = Arc::get_mut(&mut self.buffer)?;
        Some(&mut buffer[self.range.clone()])
    }

    /// The bytes to write to, if nobody else reads them.
    pub(crate) fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        self.values_mut().map(bytemuck::cast_slice_mut)
    }

    /// Gives the buffer to `pool` if it came from one.
    pub(crate) fn recycle(self, pool: &Pool) {
        if self.spare {
            pool.give(self.buffer);
        }
    }
}

/// `left + right`, elementwise, to the left.
pub(crate) fn add_to(left: &mut [f32], right: &[f32], precision: Precision) {
    for (l, r) in left.iter_mut().zip(right) {
        *l = precision.add(*l, *r);
    }
}

/// `left + right`, elementwise: into whichever of the two nobody else reads, or else into a new buffer. Both have the
/// same length. The left operand comes first, wherever the sum goes.
pub(crate) fn add(mut left: Segment, mut right: Segment, precision: Precision, pool: &Pool) -> Segment {
    if let Some(sum) = left.values_mut() {
        add_to(sum, right.values(), precision);
        right.recycle(pool);
        return left;
    }
    if let Some(sum) = right.values_mut() {
        for (r, l) in sum.iter_mut().zip(left.values()) {
            *r = precision.add(*l, *r);
        }
        left.recycle(pool);
        return right;
    }
    let len = left.values().len();
    // A whole buffer begets one of its own length, so that the pool of a rank's partials holds only one kind.
    let mut buffer = if len == left.buffer.len() {
        pool.take(len)
    } else {
        pool.take_rounded(len)
    };
    if let Some(sum) = Arc::get_mut(&mut buffer) {
        for ((sum, l), r) in sum.iter_mut().zip(left.values()).zip(right.values()) {
            *sum = precision.add(*l, *r);
        }
    }
    left.recycle(pool);
    right.recycle(pool);
    Segment::pooled(buffer, len)
}

/// Values at disjoint nodes of the tree over lanes, folded as far as they go.
#[derive(Debug)]
pub(crate) struct Fold {
    precision: Precision,
    held: BTreeMap<Node, Segment>,
}

impl Fold {
    /// No values, which will be of this precision.
    pub(crate) fn new(precision: Precision) -> Self {
        Self {
            precision,
            held: BTreeMap::new(),
        }
    }

    /// Puts a value at an aligned `node`, and folds it with its sibling while there is one. Returns the node
    /// in the way, and changes nothing, if a lane of it is held already.
    pub(crate) fn insert(&mut self, node: Node, value: Segment, pool: &Pool) -> Result<(), Node> {
        if let Some(other) = self.overlapping(node) {
            value.recycle(pool);
            return Err(other);
        }
        let (mut node, mut value) = (node, value);
        while let Some(sibling) = self.held.remove(&node.sibling()) {
            let (left, right) = if node.is_left() {
                (value, sibling)
            } else {
                (sibling, value)
            };
            value = add(left, right, self.precision, pool);
            node = node.parent();
        }
        self.held.insert(node, value);
        Ok(())
    }

    /// The held node that shares a lane with `node`.
    pub(crate) fn overlapping(&self, node: Node) -> Option<Node> {
        let end = node.start.saturating_add(node.len);
        self.held
            .keys()
            .copied()
            .find(|held| held.start < end && node.start < held.start + held.len)
    }

    /// Takes out the value at exactly `node`.
    pub(crate) fn remove(&mut self, node: Node) -> Option<Segment> {
        self.held.remove(&node)
    }

    /// What is held, in lane order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Node, &Segment)> {
        self.held.iter().map(|(&node, value)| (node, value))
    }

    /// Gives everything to `pool`.
    pub(crate) fn clear(&mut self, pool: &Pool) {
        while let Some((_, value)) = self.held.pop_first() {
            value.recycle(pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_operands_are_left_alone() {
        let pool = Pool::new(1 << 20);
        for (share_left, share_right) in [(true, true), (true, false), (false, true), (false, false)] {
            let (left, right) = (Arc::new(vec![1.0f32, 2.0]), Arc::new(vec![10.0, 20.0]));
            let watch = (
                share_left.then(|| left.clone()),
                share_right.then(|| right.clone()),
            );
            let sum = add(
                Segment::pooled(left, 2),
                Segment::pooled(right, 2),
                Precision::F32,
                &pool,
            );
            assert_eq!(sum.values(), [11.0, 22.0]);
            assert!(watch.0.is_none_or(|left| *left == [1.0, 2.0]));
            assert!(watch.1.is_none_or(|right| *right == [10.0, 20.0]));
        }
    }

    #[test]
    fn overlaps_are_refused_whether_above_below_or_folded() {
        let pool = Pool::new(1 << 20);
        let value = || Segment::pooled(pool.take(1), 1);
        let mut fold = Fold::new(Precision::F32);
        let node = |start, len| Node { start, len };
        fold.insert(node(0, 1), value(), &pool).unwrap();
        fold.insert(node(1, 1), value(), &pool).unwrap();
        assert_eq!(fold.insert(node(1, 1), value(), &pool), Err(node(0, 2)));
        assert_eq!(fold.insert(node(0, 4), value(), &pool), Err(node(0, 2)));
        fold.insert(node(2, 2), value(), &pool).unwrap();
        assert_eq!(
            fold.iter().map(|(node, _)| node).collect::<Vec<_>>(),
            [node(0, 4)]
        );
    }
}
