//! The digest of all weights from the digests of their parts, exactly.
//!
//! BLAKE3 hashes a binary tree over chunks of 1,024 bytes (section 2.1 of its paper). Where parts meet between
//! chunks, each part is a handful of whole subtrees; whoever holds the part hashes those, and their parents are
//! hashed from them alone. So nobody has to hold or read all weights.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode};

use crate::state::little_endian;
use crate::tensor_file::BLOCK;

/// Elements of a chunk.
pub(super) const CHUNK: usize = blake3::CHUNK_LEN / size_of::<f32>();

/// The hashes, in hexadecimal and in order, of the largest subtrees over `len` elements that `range` holds. `look` shows
/// elements of the range, counted from its first; it is asked for a block at a time.
pub(super) fn subtrees(
    len: usize,
    range: &Range<usize>,
    mut look: impl FnMut(Range<usize>, &mut dyn FnMut(&[f32])) -> io::Result<()>,
) -> io::Result<Vec<String>> {
    let mut hash = |node: Range<usize>| {
        let mut hasher = blake3::Hasher::new();
        if node != (0..len) {
            hasher.set_input_offset(bytes_of(node.start));
        }
        for at in node.clone().step_by(BLOCK) {
            let block = at - range.start..(at + BLOCK).min(node.end) - range.start;
            look(block, &mut |values| {
                hasher.update(&little_endian(values));
            })?;
        }
        let hash = if node == (0..len) {
            hasher.finalize()
        } else {
            blake3::Hash::from(hasher.finalize_non_root())
        };
        Ok(hash.to_hex().to_string())
    };
    nodes(len, range).into_iter().map(&mut hash).collect()
}

/// The digest over all `len` elements, from what [`subtrees`] returned for ranges that cover them; or none, when
/// something is missing.
pub(super) fn root<'a>(
    len: usize,
    parts: impl IntoIterator<Item = (Range<usize>, &'a [String])>,
) -> Option<String> {
    let mut known = BTreeMap::new();
    for (range, hashes) in parts {
        let nodes = nodes(len, &range);
        if nodes.len() != hashes.len() {
            return None;
        }
        for (node, hash) in nodes.into_iter().zip(hashes) {
            let hash = blake3::Hash::from_hex(hash).ok()?;
            known.insert((node.start, node.end), *hash.as_bytes());
        }
    }
    let root = match known.get(&(0, len)) {
        Some(&whole) => blake3::Hash::from(whole),
        None => {
            let (left, right) = halves(&(0..len))?;
            let (left, right) = (merge(&left, &known)?, merge(&right, &known)?);
            blake3::hazmat::merge_subtrees_root(&left, &right, Mode::Hash)
        }
    };
    Some(root.to_hex().to_string())
}

fn merge(node: &Range<usize>, known: &BTreeMap<(usize, usize), ChainingValue>) -> Option<ChainingValue> {
    if let Some(&hash) = known.get(&(node.start, node.end)) {
        return Some(hash);
    }
    let (left, right) = halves(node)?;
    let (left, right) = (merge(&left, known)?, merge(&right, known)?);
    Some(blake3::hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash))
}

/// The largest nodes of the tree over `len` elements that lie in `range`, which begins and ends between chunks.
fn nodes(len: usize, range: &Range<usize>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut open: Vec<Range<usize>> = std::iter::once(0..len).collect();
    while let Some(node) = open.pop() {
        if range.start <= node.start && node.end <= range.end {
            found.push(node);
        } else if node.start < range.end
            && range.start < node.end
            && let Some((left, right)) = halves(&node)
        {
            open.extend([right, left]);
        }
    }
    found
}

/// A node's children; a chunk has none.
fn halves(node: &Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    if node.len() <= CHUNK {
        return None;
    }
    let left = blake3::hazmat::left_subtree_len(bytes_of(node.len())) as usize / size_of::<f32>();
    let middle = node.start + left;
    Some((node.start..middle, middle..node.end))
}

fn bytes_of(elements: usize) -> u64 {
    (elements * size_of::<f32>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::part;
    use crate::state::digest;
    use proptest::prelude::*;

    proptest! {
        /// Against the hash of the whole, whatever the number of parts.
        #[test]
        fn parts_give_the_digest_of_the_whole(len in 0usize..40 * CHUNK, count in 1usize..24, seed in any::<u32>()) {
            let values: Vec<f32> = (0..len as u32).map(|i| f32::from_bits(i.wrapping_mul(seed | 1))).collect();
            let parts: Vec<_> = (0..count)
                .map(|index| {
                    let range = part(len, index, count);
                    let part = &values[range.clone()];
                    let look = |block: Range<usize>, show: &mut dyn FnMut(&[f32])| {
                        show(&part[block]);
                        Ok(())
                    };
                    let hashes = subtrees(len, &range, look).unwrap();
                    (range, hashes)
                })
                .collect();
            let given = |parts: &[(Range<usize>, Vec<String>)]| {
                root(len, parts.iter().map(|(range, hashes)| (range.clone(), hashes.as_slice())))
            };
            prop_assert_eq!(given(&parts), Some(digest(&values)));
            // A part that is left out is missed, if there was anything in it.
            for gone in 0..count {
                let mut rest = parts.clone();
                let (range, _) = rest.remove(gone);
                prop_assert!(range.is_empty() || given(&rest).is_none());
            }
        }
    }

    #[test]
    fn a_part_is_few_subtrees() {
        let len = 100_000_000;
        for count in [1, 3, 7, 64] {
            let most = (0..count)
                .map(|index| nodes(len, &part(len, index, count)).len())
                .max();
            assert!(most.unwrap() <= 40, "{count}: {most:?}");
        }
    }
}
