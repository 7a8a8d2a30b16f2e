//! The merges of a vocabulary, applied to one word at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No merge, or no symbol.
const NONE: u32 = u32::MAX;
/// Ranks whose least is kept, so that the least of all is found among few.
const BLOCK: usize = 16;
/// A word of at most so many bytes is merged on a [`Board`]; a longer one keeps its merges in a heap, so that
/// no word takes time with its square.
const BOARD_BYTES: usize = 255;

/// Which pairs of tokens merge, in which order, to which token.
pub(super) struct Merges {
    /// The token of each byte.
    bytes: [u32; 256],
    /// The rank of the merge of two bytes, the first times 256 and the second.
    byte_ranks: Vec<u32>,
    /// The token that each merge makes, by rank.
    made: Vec<u32>,
    /// Pairs of tokens: an open table, at most half full.
    pairs: Vec<u64>,
    /// The rank of the pair in the same place.
    ranks: Vec<u32>,
    shift: u32,
}

const NO_PAIR: u64 = u64::MAX;

/// A merge of two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) made: u32,
}

/// Memory for the word at hand, kept from one to the next.
#[derive(Default)]
pub(super) struct Scratch {
    board: Box<Board>,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<(u32, u32)>>,
}

/// What has been merged so far of a word. A symbol stays where its first byte stood; the last place belongs to
/// none.
struct Board {
    tokens: [u32; 256],
    /// The rank of the merge with the next symbol.
    ranks: [u32; 256],
    /// The least rank of each block.
    least: [u32; 256 / BLOCK],
    before: [u8; 256],
    behind: [u8; 256],
}

/// No symbol on a board.
const NOWHERE: u8 = BOARD_BYTES as u8;

impl Default for Board {
    fn default() -> Self {
        Self {
            tokens: [0; 256],
            ranks: [NONE; 256],
            least: [NONE; 256 / BLOCK],
            before: [NOWHERE; 256],
            behind: [NOWHERE; 256],
        }
    }
}

impl Board {
    /// Where the lowest rank is, the first of equal ones, in the first `blocks` blocks.
    #[inline]
    fn lowest(&self, blocks: usize) -> Option<(usize, u32)> {
        let (mut block, mut rank) = (0, NONE);
        for (i, least) in self.least.iter().enumerate().take(blocks) {
            if *least < rank {
                (block, rank) = (i, *least);
            }
        }
        if rank == NONE {
            return None;
        }
        let ranks = self.ranks.as_chunks::<BLOCK>().0[block];
        let at = ranks.iter().position(|found| *found == rank)?;
        Some((block * BLOCK + at, rank))
    }

    #[inline]
    fn look_through(&mut self, block: usize) {
        let ranks = self.ranks.as_chunks::<BLOCK>().0[block];
        self.least[block] = ranks.into_iter().fold(NONE, u32::min);
    }
}

/// What has been merged so far of a long word, linked to what stands before and behind it.
#[derive(Clone, Copy)]
struct Symbol {
    token: u32,
    /// The rank of the merge with the next symbol.
    rank: u32,
    before: u32,
    behind: u32,
}

impl Scratch {
    /// Symbols that there is memory for once a longer word is done.
    const KEPT_SYMBOLS: usize = 128 << 10;

    fn shrink(&mut self) {
        self.symbols.clear();
        self.symbols.shrink_to(Self::KEPT_SYMBOLS);
        self.queue.clear();
        self.queue.shrink_to(Self::KEPT_SYMBOLS);
    }
}

impl Merges {
    /// `bytes` are the tokens of the bytes, `merges` the merges, the first to apply first. Of equal pairs the
    /// last counts. No token is [`u32::MAX`].
    pub(super) fn new(bytes: [u32; 256], merges: &[Merge]) -> Self {
        let capacity = (2 * merges.len()).next_power_of_two().max(2);
        let mut table = Self {
            bytes,
            byte_ranks: Vec::new(),
            made: merges.iter().map(|merge| merge.made).collect(),
            pairs: vec![NO_PAIR; capacity],
            ranks: vec![NONE; capacity],
            shift: u64::BITS - capacity.trailing_zeros(),
        };
        for (rank, merge) in merges.iter().enumerate() {
            let pair = pair(merge.left, merge.right);
            let place = table.place(pair);
            table.pairs[place] = pair;
            table.ranks[place] = rank as u32;
        }
        table.byte_ranks = bytes
            .iter()
            .flat_map(|left| bytes.map(|right| table.rank(*left, right)))
            .collect();
        table
    }

    /// Where `pair` is, or would be.
    #[inline]
    fn place(&self, pair: u64) -> usize {
        let mask = self.pairs.len() - 1;
        let mut at = (pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize;
        loop {
            let found = self.pairs[at & mask];
            if found == pair || found == NO_PAIR {
                return at & mask;
            }
            at += 1;
        }
    }

    #[inline]
    fn rank(&self, left: u32, right: u32) -> u32 {
        let pair = pair(left, right);
        let place = self.place(pair);
        if self.pairs[place] == pair {
            self.ranks[place]
        } else {
            NONE
        }
    }

    #[inline]
    fn byte_rank(&self, left: u8, right: u8) -> u32 {
        self.byte_ranks[usize::from(left) << 8 | usize::from(right)]
    }

    /// Appends the tokens of a word: always the pair of the lowest rank is merged, of equal ones the first.
    pub(super) fn apply(&self, word: &[u8], scratch: &mut Scratch, tokens: &mut Vec<u32>) {
        if word.len() <= BOARD_BYTES {
            self.apply_on_board(word, &mut scratch.board, tokens);
        } else {
            self.apply_queued(word, scratch, tokens);
        }
    }

    fn apply_on_board(&self, word: &[u8], board: &mut Board, tokens: &mut Vec<u32>) {
        let blocks = word.len().div_ceil(BLOCK);
        board.ranks[..blocks * BLOCK].fill(NONE);
        for (at, byte) in word.iter().enumerate() {
            board.tokens[at] = self.bytes[usize::from(*byte)];
            board.before[at] = (at as u8).wrapping_sub(1);
            board.behind[at] = at as u8 + 1;
        }
        for (rank, [left, right]) in board.ranks.iter_mut().zip(word.array_windows()) {
            *rank = self.byte_rank(*left, *right);
        }
        if let Some(last) = word.len().checked_sub(1) {
            board.behind[last] = NOWHERE;
        }
        for block in 0..blocks {
            board.look_through(block);
        }
        while let Some((at, rank)) = board.lowest(blocks) {
            let (before, gone) = (board.before[at], usize::from(board.behind[at]));
            let behind = board.behind[gone];
            let token = self.made[rank as usize];
            board.tokens[at] = token;
            board.behind[at] = behind;
            board.ranks[gone] = NONE;
            board.ranks[at] = NONE;
            if behind != NOWHERE {
                let behind = usize::from(behind);
                board.before[behind] = at as u8;
                board.ranks[at] = self.rank(token, board.tokens[behind]);
            }
            if before != NOWHERE {
                let before = usize::from(before);
                board.ranks[before] = self.rank(board.tokens[before], token);
                if before / BLOCK != at / BLOCK {
                    board.look_through(before / BLOCK);
                }
            }
            board.look_through(at / BLOCK);
            if gone / BLOCK != at / BLOCK {
                board.look_through(gone / BLOCK);
            }
        }
        let mut at = if word.is_empty() { NOWHERE } else { 0 };
        while at != NOWHERE {
            tokens.push(board.tokens[usize::from(at)]);
            at = board.behind[usize::from(at)];
        }
    }

    fn apply_queued(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
        let Scratch { symbols, queue, .. } = scratch;
        symbols.extend(word.iter().enumerate().map(|(i, byte)| Symbol {
            token: self.bytes[usize::from(*byte)],
            rank: NONE,
            before: (i as u32).wrapping_sub(1),
            behind: i as u32 + 1,
        }));
        if let Some(last) = symbols.last_mut() {
            last.behind = NONE;
        }
        for i in 1..symbols.len() {
            let rank = self.rank(symbols[i - 1].token, symbols[i].token);
            symbols[i - 1].rank = rank;
            if rank != NONE {
                queue.push(Reverse((rank, i as u32 - 1)));
            }
        }
        while let Some(Reverse((rank, at))) = queue.pop() {
            let left = symbols[at as usize];
            // The symbol has merged, or its neighbour has.
            if left.rank != rank {
                continue;
            }
            let right = symbols[left.behind as usize];
            symbols[left.behind as usize].rank = NONE;
            symbols[at as usize].token = self.made[rank as usize];
            symbols[at as usize].behind = right.behind;
            if right.behind != NONE {
                symbols[right.behind as usize].before = at;
            }
            for at in [left.before, at] {
                if at == NONE {
                    continue;
                }
                let symbol = symbols[at as usize];
                let rank = match symbol.behind {
                    NONE => NONE,
                    behind => self.rank(symbol.token, symbols[behind as usize].token),
                };
                symbols[at as usize].rank = rank;
                if rank != NONE {
                    queue.push(Reverse((rank, at)));
                }
            }
        }
        let mut at = 0;
        while let Some(symbol) = symbols.get(at as usize) {
            out.push(symbol.token);
            at = symbol.behind;
        }
        scratch.shrink();
    }
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_word_leaves_no_memory_behind() {
        let bytes = std::array::from_fn(|byte| byte as u32);
        let (a, aa) = (u32::from(b'a'), 256);
        let merges = Merges::new(
            bytes,
            &[
                Merge {
                    left: a,
                    right: a,
                    made: aa,
                },
                Merge {
                    left: aa,
                    right: aa,
                    made: 257,
                },
            ],
        );
        let mut scratch = Scratch::default();
        let mut tokens = Vec::new();
        merges.apply(&vec![b'a'; 4 << 20], &mut scratch, &mut tokens);
        assert!(tokens == vec![257; 1 << 20]);
        assert!(scratch.symbols.capacity() <= Scratch::KEPT_SYMBOLS);
        assert!(scratch.queue.capacity() <= Scratch::KEPT_SYMBOLS);
    }

    /// As the crate: a merge that becomes possible is next if its rank is lower than that of one that waits.
    #[test]
    fn the_lowest_rank_is_merged_first_and_the_first_of_equals() {
        let bytes = std::array::from_fn(|byte| byte as u32);
        let [a, b, c] = [b'a', b'b', b'c'].map(u32::from);
        let merges = [
            Merge {
                left: 256,
                right: c,
                made: 257,
            },
            Merge {
                left: a,
                right: b,
                made: 256,
            },
            Merge {
                left: c,
                right: a,
                made: 258,
            },
            Merge {
                left: a,
                right: a,
                made: 259,
            },
        ];
        let merges = Merges::new(bytes, &merges);
        for (word, wanted) in [
            ("abca", vec![257, a]),
            ("caab", vec![258, 256]),
            ("aaa", vec![259, a]),
            ("", vec![]),
        ] {
            for fill in [0, BOARD_BYTES] {
                let word = word.to_owned() + &"x".repeat(fill);
                let mut tokens = Vec::new();
                merges.apply(word.as_bytes(), &mut Scratch::default(), &mut tokens);
                assert_eq!(tokens.split_off(wanted.len()), vec![u32::from(b'x'); fill]);
                assert_eq!(tokens, wanted);
            }
        }
    }
}
