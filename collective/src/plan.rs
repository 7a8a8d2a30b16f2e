//! How a bucket is cut: in one chunk a member, and chunks in pieces.
//!
//! A pure function of its length and of who the members are, so every member cuts alike. Pieces are what goes
//! over the wire: while one is being added, others are being sent and received.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use lockstep_engine::ids::Rank;

use crate::hosts::Hosts;

/// The most values of a piece that is sent: 512 KiB, so that it is still in the cache when it is added and sent on.
pub(crate) const PIECE_VALUES: usize = 1 << 17;

/// The most values that members take in of a bucket that one of them adds up alone: 96 KiB, so 32 KiB between four. What it
/// takes to move values grows with them, what frames take does not: `docs/adr/0021-small-buckets.md`.
const SMALL_VALUES: usize = 24 << 10;

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

/// A piece, and who has partials of it and gets its sum: the owner among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Errand {
    /// The piece.
    pub(crate) piece: Piece,
    /// The members.
    pub(crate) between: Arc<[Rank]>,
}

/// Cuts a bucket of `len` values for `members` (at least 1): near-equal chunks in rank order, and these in pieces of at
/// most `most` values (at least 1), none of them empty.
pub(crate) fn pieces(len: usize, members: u32, most: usize) -> Vec<Piece> {
    let chunks = (0..members).map(|rank| (Rank(rank), cut(len, rank, members)..cut(len, rank + 1, members)));
    let runs = chunks.flat_map(|(owner, chunk)| {
        let end = chunk.end;
        chunk
            .step_by(most)
            .map(move |start| (owner, start..(start + most).min(end)))
    });
    let piece = |(index, (owner, range))| Piece { index, owner, range };
    (0u32..).zip(runs).map(piece).collect()
}

/// The same between all members.
pub(crate) fn errands(len: usize, members: u32) -> Vec<Errand> {
    let between: Arc<[Rank]> = (0..members).map(Rank).collect();
    let errand = |piece| Errand {
        piece,
        between: between.clone(),
    };
    pieces(len, members, PIECE_VALUES)
        .into_iter()
        .map(errand)
        .collect()
}

/// Cuts a bucket of `len` values for members of several hosts.
///
/// In each host the members have chunks, near-equal and in rank order. The bucket is cut wherever a chunk begins, of any
/// host, so of each host there is one member that has all of a slice: between these the slice is cut like a bucket.
pub(crate) fn errands_between(len: usize, hosts: &Hosts) -> Vec<Errand> {
    let members = hosts.members();
    let chunks = |host: &Vec<Rank>| {
        let count = host.len() as u32;
        (0..=count).map(move |place| cut(len, place, count))
    };
    let cuts: BTreeSet<usize> = members.iter().flat_map(chunks).collect();
    let cuts: Vec<usize> = cuts.into_iter().collect();
    let mut errands = Vec::new();
    for slice in cuts.windows(2) {
        let (start, slice_len) = (slice[0], slice[1] - slice[0]);
        let carrier = |host: &Vec<Rank>| {
            let count = host.len() as u32;
            let later = (1..count).take_while(|&place| cut(len, place, count) <= start);
            host[later.count()]
        };
        let between: Arc<[Rank]> = members.iter().map(carrier).collect();
        for piece in pieces(slice_len, between.len() as u32, PIECE_VALUES) {
            let piece = Piece {
                index: errands.len() as u32,
                owner: between[piece.owner.index()],
                range: start + piece.range.start..start + piece.range.end,
            };
            errands.push(Errand {
                piece,
                between: between.clone(),
            });
        }
    }
    errands
}

/// Cuts a small bucket less: what is between the same members, three at least, is one piece. Others are left as they are.
///
/// One member adds all of a piece up, of those that had a chunk of it another one for each bucket. So it takes `2(n-1)` frames
/// between `n` members, where chunks take `2n(n-1)`. Between two that would save two frames of four.
pub(crate) fn in_few_frames(errands: Vec<Errand>, bucket: u32) -> Vec<Errand> {
    let taken_in = |errand: &Errand| errand.piece.range.len() * (errand.between.len() - 1);
    let is_small = errands.iter().map(taken_in).sum::<usize>() <= SMALL_VALUES;
    if !is_small || errands.iter().any(|errand| errand.between.len() < 3) {
        return errands;
    }
    let runs = errands.chunk_by(|a, b| a.between == b.between);
    let joined = |(index, run): (u32, &[Errand])| {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let piece = Piece {
            index,
            owner: run[bucket.wrapping_add(index) as usize % run.len()].piece.owner,
            range: first.piece.range.start..last.piece.range.end,
        };
        Errand {
            piece,
            between: first.between.clone(),
        }
    };
    (0u32..).zip(runs).map(joined).collect()
}

/// Where the chunk of a rank begins, of so many.
pub(crate) fn cut(len: usize, rank: u32, members: u32) -> usize {
    // In u128: a length times a rank may exceed a word on small machines.
    (len as u128 * u128::from(rank) / u128::from(members)) as usize
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

        #[test]
        fn of_each_host_one_member_has_the_chunk_that_a_piece_lies_in(
            len in prop_oneof![0usize..40, 0usize..1_000_000], of in prop::collection::vec(0usize..4, 1..9),
        ) {
            let names: Vec<&str> = of.iter().map(|&host| ["a", "b", "c", "d"][host]).collect();
            let hosts = Hosts::new(&names);
            let (mut at, mut carried, mut owned) = (0, vec![0; of.len()], vec![0; hosts.members().len()]);
            for (place, Errand { piece, between }) in (0u32..).zip(&errands_between(len, &hosts)) {
                prop_assert_eq!((piece.index, piece.range.start), (place, at));
                prop_assert!(!piece.range.is_empty() && piece.range.len() <= PIECE_VALUES);
                at = piece.range.end;
                prop_assert_eq!(between.len(), hosts.members().len());
                for (host, members) in hosts.members().iter().enumerate() {
                    let place = members.iter().position(|&rank| rank == between[host]).unwrap() as u32;
                    let count = members.len() as u32;
                    prop_assert!(cut(len, place, count) <= piece.range.start);
                    prop_assert!(piece.range.end <= cut(len, place + 1, count));
                    carried[between[host].index()] += piece.range.len();
                    owned[host] += usize::from(between[host] == piece.owner) * piece.range.len();
                }
            }
            prop_assert_eq!(at, len);
            for members in hosts.members() {
                let carried: Vec<usize> = members.iter().map(|rank| carried[rank.index()]).collect();
                prop_assert!(carried.iter().max().unwrap() - carried.iter().min().unwrap() <= 1);
            }
            // Each slice is shared out evenly, but for a value.
            prop_assert!(owned.iter().max().unwrap() - owned.iter().min().unwrap() <= of.len());
        }

        #[test]
        fn a_small_bucket_takes_the_fewest_frames_and_each_value_goes_once(
            len in prop_oneof![0usize..40, 0usize..2 * SMALL_VALUES], of in prop::collection::vec(0usize..4, 1..9),
            bucket in prop_oneof![0u32..9, Just(u32::MAX)],
        ) {
            let names: Vec<&str> = of.iter().map(|&host| ["a", "b", "c", "d"][host]).collect();
            for cut in [errands(len, of.len() as u32), errands_between(len, &Hosts::new(&names))] {
                let members = cut.first().map_or(1, |errand| errand.between.len());
                let few = in_few_frames(cut.clone(), bucket);
                if members < 3 || len * (members - 1) > SMALL_VALUES {
                    prop_assert_eq!(few, cut);
                    continue;
                }
                let mut at = 0;
                for (place, Errand { piece, between }) in (0u32..).zip(&few) {
                    prop_assert_eq!((piece.index, piece.range.start), (place, at));
                    prop_assert!(!piece.range.is_empty() && between.contains(&piece.owner));
                    at = piece.range.end;
                    // Whoever had partials of a value has them still, and nobody else.
                    for before in cut.iter().filter(|before| piece.range.contains(&before.piece.range.start)) {
                        prop_assert_eq!(&before.between, between);
                        prop_assert!(before.piece.range.end <= piece.range.end);
                    }
                }
                prop_assert_eq!(at, len);
                prop_assert!(few.windows(2).all(|two| two[0].between != two[1].between));
            }
        }

        #[test]
        fn owners_of_small_buckets_take_turns(members in 3u32..9, bucket in any::<u32>()) {
            let few = in_few_frames(errands(members as usize, members), bucket);
            prop_assert_eq!((few.len(), few[0].piece.owner), (1, Rank(bucket % members)));
        }
    }
}
