//! How buckets are cut: in one chunk a member, and chunks in pieces.
//!
//! A pure function of the buckets and the number of members, so every member cuts alike. Pieces are what goes
//! over the wire: while one is being added, others are being sent and received.

use std::ops::Range;

use lockstep_engine::ids::Rank;

/// The most values of a piece that is sent: 512 KiB, so that it is still in the cache when it is added and sent on.
pub(crate) const PIECE_VALUES: usize = 1 << 17;

/// A run of values that one member reduces in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Index of its bucket.
    pub(crate) bucket: u32,
    /// Its index in the bucket.
    pub(crate) index: u32,
    /// The member that adds it up.
    pub(crate) owner: Rank,
    /// Its place in the flat gradient.
    pub(crate) range: Range<usize>,
}

/// All pieces of an operation.
#[derive(Debug)]
pub(crate) struct Plan {
    pieces: Vec<Piece>,
    first_of_bucket: Vec<usize>,
}

impl Plan {
    /// Cuts `buckets` for `members` (at least 1): near-equal chunks in rank order, and these in pieces of at most
    /// `most` values (at least 1), none of them empty.
    pub(crate) fn new(buckets: &[Range<usize>], members: u32, most: usize) -> Self {
        let mut pieces = Vec::new();
        let mut first_of_bucket = Vec::with_capacity(buckets.len() + 1);
        let count = members as usize;
        for (number, bucket) in (0u32..).zip(buckets) {
            first_of_bucket.push(pieces.len());
            let mut index = 0;
            for (owner, rank) in (0..members).zip(0..count) {
                // In u128: a bucket's length times a rank may exceed a word on small machines.
                let cut = |rank: usize| {
                    bucket.start + (bucket.len() as u128 * rank as u128 / count as u128) as usize
                };
                let chunk = cut(rank)..cut(rank + 1);
                for start in chunk.clone().step_by(most) {
                    let range = start..(start + most).min(chunk.end);
                    pieces.push(Piece {
                        bucket: number,
                        index,
                        owner: Rank(owner),
                        range,
                    });
                    index += 1;
                }
            }
        }
        first_of_bucket.push(pieces.len());
        Self {
            pieces,
            first_of_bucket,
        }
    }

    /// All pieces, by bucket, then owner, then place.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The place in [`Self::pieces`] of piece `index` of `bucket`, if there is one.
    pub(crate) fn find(&self, bucket: u32, index: u32) -> Option<usize> {
        let first = *self.first_of_bucket.get(bucket as usize)?;
        let end = *self.first_of_bucket.get(bucket as usize + 1)?;
        (first..end).nth(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_tile_the_buckets_and_chunks_are_near_equal(
            lens in prop::collection::vec(0usize..400_000, 0..4), members in 1u32..7,
        ) {
            let mut end = 0;
            let buckets: Vec<_> = lens.iter().map(|len| { end += len; end - len..end }).collect();
            let plan = Plan::new(&buckets, members, PIECE_VALUES);
            let mut at = 0;
            for (place, piece) in plan.pieces().iter().enumerate() {
                prop_assert_eq!(piece.range.start, at);
                prop_assert!(!piece.range.is_empty() && piece.range.len() <= PIECE_VALUES);
                prop_assert_eq!(plan.find(piece.bucket, piece.index), Some(place));
                at = piece.range.end;
            }
            prop_assert_eq!(at, end);
            for (number, bucket) in (0u32..).zip(&buckets) {
                for rank in (0..members).map(Rank) {
                    let mine = |piece: &&Piece| piece.bucket == number && piece.owner == rank;
                    let len: usize = plan.pieces().iter().filter(mine).map(|piece| piece.range.len()).sum();
                    let share = bucket.len() / members as usize;
                    prop_assert!(len == share || len == share + 1);
                }
            }
            prop_assert_eq!(plan.find(buckets.len() as u32, 0), None);
            prop_assert_eq!(plan.find(0, u32::MAX), None);
        }
    }
}
