//! How a bucket is cut: in one chunk a member, and chunks in pieces.
//!
//! A pure function of its length and the number of members, so every member cuts alike. Pieces are what goes
//! over the wire: while one is being added, others are being sent and received.

use std::ops::Range;

use lockstep_engine::ids::Rank;

/// The most values of a piece that is sent: 512 KiB, so that it is still in the cache when it is added and sent on.
pub(crate) const PIECE_VALUES: usize = 1 << 17;

/// A run of values that one member reduces in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its index in the bucket.
    pub(crate) index: u32,
    /// The member that adds it up.
    pub(crate) owner: Rank,
    /// Its place in the bucket.
    pub(crate) range: Range<usize>,
}

/// Cuts a bucket of `len` values for `members` (at least 1): near-equal chunks in rank order, and these in pieces of at
/// most `most` values (at least 1), none of them empty.
pub(crate) fn pieces(len: usize, members: u32, most: usize) -> Vec<Piece> {
    // In u128: a length times a rank may exceed a word on small machines.
    let cut = |rank: u32| (len as u128 * u128::from(rank) / u128::from(members)) as usize;
    let chunks = (0..members).map(|rank| (Rank(rank), cut(rank)..cut(rank + 1)));
    let runs = chunks.flat_map(|(owner, chunk)| {
        let end = chunk.end;
        chunk
            .step_by(most)
            .map(move |start| (owner, start..(start + most).min(end)))
    });
    let piece = |(index, (owner, range))| Piece { index, owner, range };
    (0u32..).zip(runs).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_tile_the_bucket_and_chunks_are_near_equal(len in 0usize..1_000_000, members in 1u32..7) {
            let pieces = pieces(len, members, PIECE_VALUES);
            let mut at = 0;
            for (place, piece) in (0u32..).zip(&pieces) {
                prop_assert_eq!((piece.index, piece.range.start), (place, at));
                prop_assert!(!piece.range.is_empty() && piece.range.len() <= PIECE_VALUES);
                at = piece.range.end;
            }
            prop_assert_eq!(at, len);
            for rank in (0..members).map(Rank) {
                let mine = pieces.iter().filter(|piece| piece.owner == rank);
                let sum: usize = mine.map(|piece| piece.range.len()).sum();
                let share = len / members as usize;
                prop_assert!(sum == share || sum == share + 1);
            }
            prop_assert!(pieces.is_sorted_by_key(|piece| piece.owner));
        }
    }
}
