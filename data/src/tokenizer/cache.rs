//! Words whose tokens are known: two tables of a fixed size, where a newcomer takes the place of what was there.

/// Bytes that a key of `WORDS` words holds: the last byte of the key is the length.
const fn key_bytes(words: usize) -> usize {
    8 * words - 1
}

/// Longest word in the table of short words.
const SHORT_BYTES: usize = key_bytes(2);
/// Longest word that is remembered.
pub(super) const LONG_BYTES: usize = key_bytes(6);
/// 1 MiB: 2^15 short words of at most 4 tokens, 32 bytes each.
const SHORT_BITS: u32 = 15;
/// 1 MiB: 2^13 longer words, or short ones of more tokens, up to 20, 128 bytes each.
const LONG_BITS: u32 = 13;
/// No token.
const NONE: u32 = u32::MAX;

/// The tokens of words seen lately. Takes 2 MiB, whatever it is asked.
pub(super) struct Cache {
    short: Table<2, 4>,
    long: Table<6, 20>,
}

struct Table<const WORDS: usize, const TOKENS: usize> {
    entries: Vec<Entry<WORDS, TOKENS>>,
    shift: u32,
}

#[derive(Clone, Copy)]
struct Entry<const WORDS: usize, const TOKENS: usize> {
    key: [u64; WORDS],
    tokens: [u32; TOKENS],
}

/// What identifies a word.
#[derive(Clone, Copy)]
pub(super) enum Key {
    Short([u64; 2]),
    Long([u64; 6]),
}

impl Key {
    /// The key of `text[start..end]`, if it is short enough to have one.
    #[inline]
    pub(super) fn of(text: &[u8], start: usize, end: usize) -> Option<Self> {
        let len = end - start;
        if len <= SHORT_BYTES {
            return Some(Self::Short(short_key(text, start, len)));
        }
        if len > LONG_BYTES {
            return None;
        }
        let mut bytes = [0; 48];
        bytes[..len].copy_from_slice(text.get(start..end)?);
        bytes[LONG_BYTES] = len as u8;
        let mut key = [0; 6];
        for (word, bytes) in key.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(Self::Long(key))
    }
}

#[inline]
fn short_key(text: &[u8], start: usize, len: usize) -> [u64; 2] {
    let key = match text.get(start..).and_then(|rest| rest.first_chunk::<16>()) {
        // What follows the word is in the same 16 bytes, and is masked.
        Some(chunk) => u128::from_le_bytes(*chunk) & ((1 << (8 * len)) - 1),
        None => {
            let mut bytes = [0; 16];
            if let Some(word) = text.get(start..start + len) {
                bytes[..len].copy_from_slice(word);
            }
            u128::from_le_bytes(bytes)
        }
    };
    [key as u64, (key >> 64) as u64 | (len as u64) << 56]
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            short: Table::new(SHORT_BITS),
            long: Table::new(LONG_BITS),
        }
    }
}

impl Cache {
    /// Appends the tokens of a word, if they are known.
    #[inline]
    pub(super) fn recall(&self, key: &Key, tokens: &mut Vec<u32>) -> bool {
        match key {
            Key::Short(key) => self.short.recall(key, tokens) || self.long.recall(&widen(key), tokens),
            Key::Long(key) => self.long.recall(key, tokens),
        }
    }

    /// Remembers the tokens of a word.
    pub(super) fn keep(&mut self, key: &Key, tokens: &[u32]) {
        match key {
            Key::Short(key) => {
                if !self.short.keep(key, tokens) {
                    self.long.keep(&widen(key), tokens);
                }
            }
            Key::Long(key) => {
                self.long.keep(key, tokens);
            }
        }
    }
}

/// A short key as a long one. Its length in the second word tells it from those of long words, whose last
/// word is never zero.
fn widen(key: &[u64; 2]) -> [u64; 6] {
    [key[0], key[1], 0, 0, 0, 0]
}

impl<const WORDS: usize, const TOKENS: usize> Table<WORDS, TOKENS> {
    fn new(bits: u32) -> Self {
        let empty = Entry {
            key: [0; WORDS],
            tokens: [NONE; TOKENS],
        };
        Self {
            entries: vec![empty; 1 << bits],
            shift: u64::BITS - bits,
        }
    }

    #[inline]
    fn slot(&self, key: &[u64; WORDS]) -> usize {
        let mixed = key.iter().fold(0, |hash: u64, word| {
            (hash.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        (mixed >> self.shift) as usize
    }

    #[inline]
    fn recall(&self, key: &[u64; WORDS], tokens: &mut Vec<u32>) -> bool {
        let entry = &self.entries[self.slot(key)];
        if entry.key != *key {
            return false;
        }
        // Of a fixed length and cut thereafter: copying a length that varies takes longer.
        let len = entry.tokens.iter().filter(|token| **token != NONE).count();
        let before = tokens.len();
        tokens.extend_from_slice(&entry.tokens);
        tokens.truncate(before + len);
        true
    }

    fn keep(&mut self, key: &[u64; WORDS], tokens: &[u32]) -> bool {
        let slot = self.slot(key);
        let mut kept = [NONE; TOKENS];
        let Some(fits) = kept.get_mut(..tokens.len()) else {
            return false;
        };
        fits.copy_from_slice(tokens);
        self.entries[slot] = Entry {
            key: *key,
            tokens: kept,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn recalled(cache: &Cache, key: &Key) -> Option<Vec<u32>> {
        let mut tokens = vec![7];
        cache.recall(key, &mut tokens).then(|| tokens.split_off(1))
    }

    #[test]
    fn a_word_too_long_has_no_key() {
        let text = [b'a'; LONG_BYTES + 1];
        assert!(Key::of(&text, 0, LONG_BYTES).is_some());
        assert!(Key::of(&text, 0, LONG_BYTES + 1).is_none());
    }

    proptest! {
        /// Wherever a word stands, with whatever behind it, its tokens are forgotten or right.
        #[test]
        fn a_word_is_recalled_with_its_own_tokens_or_not_at_all(
            text in "[a\0é ]{80}",
            words in proptest::collection::vec((0usize..80, 1usize..=LONG_BYTES, 1usize..24), 1..40),
        ) {
            let text = text.as_bytes();
            let mut cache = Cache::default();
            let mut known: HashMap<&[u8], Vec<u32>> = HashMap::new();
            for (i, (start, len, count)) in words.into_iter().enumerate() {
                let end = (start + len).min(text.len());
                let key = Key::of(text, start, end).unwrap();
                let word = &text[start..end];
                let tokens = known.entry(word).or_insert_with(|| vec![i as u32; count]);
                let found = recalled(&cache, &key);
                prop_assert!(found.is_none() || found.as_ref() == Some(tokens));
                cache.keep(&key, tokens);
                prop_assert_eq!(recalled(&cache, &key), (tokens.len() <= 20).then(|| tokens.clone()));
            }
        }
    }
}
