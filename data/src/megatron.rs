//! Megatron's indexed dataset: a `.bin` of tokens and an `.idx` that says where documents begin.
//!
//! All numbers are little endian. The `.bin` holds nothing but tokens. The `.idx` holds:
//!
//! | bytes | what |
//! |---|---|
//! | 9 | `MMIDIDX\0\0` |
//! | 8 | version, 1 |
//! | 1 | type of a token: 4 is i32, 8 is u16 |
//! | 8 | number of sequences, `n` |
//! | 8 | number of document bounds, `m` |
//! | 4 `n` | tokens of each sequence, i32 |
//! | 8 `n` | where each sequence begins in the `.bin`, in bytes, i64 |
//! | 8 `m` | the first sequence of each document, and `n` at the end, i64 |
//!
//! Our documents have one sequence each, so `m = n + 1`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::error::DataError;

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const VERSION: u64 = 1;
/// Bytes of an `.idx` before its lists.
const HEADER_BYTES: u64 = 34;

/// How wide a token is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenType {
    /// Two bytes.
    U16,
    /// Four bytes.
    I32,
}

impl TokenType {
    /// Megatron's own choice: two bytes where the vocabulary has less than 65,500 tokens.
    #[must_use]
    pub fn of_vocabulary(vocab_size: usize) -> Self {
        if vocab_size < 65_500 { Self::U16 } else { Self::I32 }
    }

    /// Bytes of a token.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::U16 => 2,
            Self::I32 => 4,
        }
    }

    /// Its number in an `.idx`.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::U16 => 8,
            Self::I32 => 4,
        }
    }

    /// Appends `tokens` as they are on disk.
    pub(crate) fn put(self, tokens: &[u32], out: &mut Vec<u8>) {
        match self {
            Self::U16 => tokens
                .iter()
                .for_each(|token| out.extend((*token as u16).to_le_bytes())),
            Self::I32 => tokens.iter().for_each(|token| out.extend(token.to_le_bytes())),
        }
    }

    /// Reads as many tokens as `out` holds, through `fill`, which is given a buffer to fill with their bytes:
    /// it is `out`'s own memory, so nothing is allocated.
    pub(crate) fn get<E>(
        self,
        out: &mut [u32],
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::U16 => {
                let len = out.len();
                fill(&mut bytemuck::cast_slice_mut(out)[..2 * len])?;
                // Each token moves up to its own place; from the last on, none is overwritten before it
                // moved.
                for i in (0..len).rev() {
                    let halves: &[u16] = bytemuck::cast_slice(out);
                    out[i] = u32::from(u16::from_le(halves[i]));
                }
            }
            Self::I32 => {
                fill(bytemuck::cast_slice_mut(out))?;
                out.iter_mut().for_each(|token| *token = u32::from_le(*token));
            }
        }
        Ok(())
    }
}

/// The head of an `.idx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexHeader {
    /// How wide a token is.
    pub token_type: TokenType,
    /// Number of sequences.
    pub sequences: u64,
    /// Number of document bounds: one more than documents.
    pub bounds: u64,
}

impl IndexHeader {
    /// Reads the head of the file at `path`.
    ///
    /// # Errors
    /// If it is not an index of this format and version, or its size is not what its head says.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let failed = |error| DataError::io("read", path, error);
        let malformed = |problem: &str| DataError::Malformed {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let truncated = |expected_bytes, found_bytes| DataError::Truncated {
            path: path.to_owned(),
            expected_bytes,
            found_bytes,
        };
        let mut file = File::open(path).map_err(failed)?;
        let found_bytes = file.metadata().map_err(failed)?.len();
        if found_bytes < HEADER_BYTES {
            return Err(truncated(HEADER_BYTES, found_bytes));
        }
        let mut head = [0; HEADER_BYTES as usize];
        file.read_exact(&mut head).map_err(failed)?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        if &head[..9] != MAGIC {
            return Err(malformed("not an index of Megatron's format"));
        }
        if number(9) != VERSION {
            return Err(malformed("an index of another version than 1"));
        }
        let token_type = [TokenType::U16, TokenType::I32]
            .into_iter()
            .find(|kind| kind.code() == head[17]);
        let token_type = token_type.ok_or_else(|| malformed("tokens are neither u16 nor i32"))?;
        let (sequences, bounds) = (number(18), number(26));
        let lists = sequences
            .checked_mul(12)
            .and_then(|a| a.checked_add(bounds.checked_mul(8)?));
        let expected_bytes = lists.and_then(|lists| lists.checked_add(HEADER_BYTES));
        let expected_bytes = expected_bytes.ok_or_else(|| malformed("absurd counts"))?;
        if found_bytes != expected_bytes {
            return Err(truncated(expected_bytes, found_bytes));
        }
        Ok(Self {
            token_type,
            sequences,
            bounds,
        })
    }
}

/// Writes an `.idx` for documents of one sequence each, whose numbers of tokens are `lengths`.
///
/// # Errors
/// As `out`'s.
pub fn write_index(out: &mut dyn Write, token_type: TokenType, lengths: &[i32]) -> io::Result<()> {
    let sequences = lengths.len() as u64;
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&[token_type.code()])?;
    out.write_all(&sequences.to_le_bytes())?;
    out.write_all(&(sequences + 1).to_le_bytes())?;
    for length in lengths {
        out.write_all(&length.to_le_bytes())?;
    }
    let mut start = 0i64;
    for length in lengths {
        out.write_all(&start.to_le_bytes())?;
        start += i64::from(*length) * token_type.bytes() as i64;
    }
    for bound in 0..=sequences {
        out.write_all(&bound.to_le_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tokens_come_back(tokens in proptest::collection::vec(0u32..65_500, 0..50)) {
            for token_type in [TokenType::U16, TokenType::I32] {
                let mut bytes = Vec::new();
                token_type.put(&tokens, &mut bytes);
                prop_assert_eq!(bytes.len() as u64, tokens.len() as u64 * token_type.bytes());
                let mut out = vec![u32::MAX; tokens.len()];
                let filled: Result<(), ()> = token_type.get(&mut out, |buffer| {
                    buffer.copy_from_slice(&bytes);
                    Ok(())
                });
                prop_assert!(filled.is_ok());
                prop_assert_eq!(&out, &tokens);
            }
        }
    }

    #[test]
    fn an_index_is_as_described() {
        let mut bytes = Vec::new();
        write_index(&mut bytes, TokenType::U16, &[3, 1]).unwrap();
        let mut expected = b"MMIDIDX\0\0\x01\0\0\0\0\0\0\0\x08".to_vec();
        for number in [2u64, 3] {
            expected.extend(number.to_le_bytes());
        }
        expected.extend([3, 0, 0, 0, 1, 0, 0, 0]);
        for number in [0u64, 6, 0, 1, 2] {
            expected.extend(number.to_le_bytes());
        }
        assert_eq!(bytes, expected);
    }

    #[test]
    fn the_width_is_megatrons_choice() {
        assert_eq!(TokenType::of_vocabulary(65_499), TokenType::U16);
        assert_eq!(TokenType::of_vocabulary(65_500), TokenType::I32);
    }

    #[test]
    fn what_is_no_index_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.idx");
        let mut good = Vec::new();
        write_index(&mut good, TokenType::I32, &[5, 6, 7]).unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            IndexHeader::read(&path)
        };
        assert_eq!(
            read(&good).unwrap(),
            IndexHeader {
                token_type: TokenType::I32,
                sequences: 3,
                bounds: 4
            }
        );
        for cut in [0, 9, 33, 34, good.len() - 1] {
            assert!(
                matches!(read(&good[..cut]), Err(DataError::Truncated { .. })),
                "{cut}"
            );
        }
        for (at, value) in [(0, b'X'), (9, 2), (17, 3)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(matches!(read(&bad), Err(DataError::Malformed { .. })), "{at}");
        }
        let mut absurd = good.clone();
        absurd[18..26].fill(0xFF);
        assert!(matches!(read(&absurd), Err(DataError::Malformed { .. })));
    }
}
