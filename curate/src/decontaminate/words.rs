//! Words as they are compared, and hashes of runs of them.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

/// The base of the polynomial that hashes runs: odd, so that it has an inverse modulo 2^64.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The words of a text, one space between two.
#[derive(Default)]
pub(super) struct Words {
    /// The words themselves.
    text: String,
    /// Where each stands in `text`.
    places: Vec<Place>,
    /// Hashes of the words before each, and of all: H(i + 1) = H(i) × BASE + h(word i), modulo 2^64.
    hashes: Vec<u64>,
}

/// Where a word stands.
#[derive(Clone, Copy)]
struct Place {
    /// In the words' own text.
    start: usize,
    end: usize,
    /// In the text that was read.
    from: usize,
    to: usize,
}

impl Words {
    /// Takes in the words of `text` in the place of those before.
    pub(super) fn read(&mut self, text: &str) {
        self.text.clear();
        self.places.clear();
        self.hashes.clear();
        self.text.reserve(text.len());
        self.hashes.push(0);
        let bytes = text.as_bytes();
        // Where the word began, here and there; behind its last letter there.
        let mut word: Option<(usize, usize, usize)> = None;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if byte.is_ascii() {
                if byte.is_ascii_alphanumeric() {
                    let (start, from, _) = word.unwrap_or((self.text.len(), at, 0));
                    self.text.push(char::from(byte.to_ascii_lowercase()));
                    word = Some((start, from, at + 1));
                } else if byte.is_ascii_whitespace() {
                    self.end(word.take());
                }
                at += 1;
                continue;
            }
            let Some(char) = text.get(at..).and_then(|rest| rest.chars().next()) else {
                break;
            };
            let behind = at + char.len_utf8();
            if is_own_word(char) {
                self.end(word.take());
                let start = self.text.len();
                self.text.push(char);
                self.end(Some((start, at, behind)));
            } else if char.is_alphanumeric() {
                let (start, from, _) = word.unwrap_or((self.text.len(), at, 0));
                self.text
                    .extend(char.to_lowercase().filter(|lower| lower.is_alphanumeric()));
                word = Some((start, from, behind));
            } else if char.is_whitespace() {
                self.end(word.take());
            }
            at = behind;
        }
        self.end(word);
    }

    fn end(&mut self, word: Option<(usize, usize, usize)>) {
        let Some((start, from, to)) = word else {
            return;
        };
        let end = self.text.len();
        let hash = xxh3_64(self.text.as_bytes().get(start..end).unwrap_or_default());
        let before = self.hashes.last().copied().unwrap_or(0);
        self.hashes.push(before.wrapping_mul(BASE).wrapping_add(hash));
        self.places.push(Place { start, end, from, to });
        self.text.push(' ');
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// The hashes of every run of `length` words, in their order.
    pub(super) fn runs(&self, length: usize) -> impl Iterator<Item = u64> {
        let power = (0..length).fold(1u64, |power, _| power.wrapping_mul(BASE));
        let ends = self.hashes.get(length..).unwrap_or_default();
        self.hashes
            .iter()
            .zip(ends)
            .map(move |(before, all)| finish(all.wrapping_sub(before.wrapping_mul(power))))
    }

    /// The run of `length` words from word `first` on.
    pub(super) fn run(&self, first: usize, length: usize) -> &str {
        let range = self.places.get(first).zip(self.places.get(first + length - 1));
        range
            .and_then(|(first, last)| self.text.get(first.start..last.end))
            .unwrap_or_default()
    }

    /// Where that run stands in the text that was read.
    pub(super) fn range(&self, first: usize, length: usize) -> Range<usize> {
        let range = self.places.get(first).zip(self.places.get(first + length - 1));
        range.map_or(0..0, |(first, last)| first.from..last.to)
    }
}

/// Spreads a hash over all its bits.
fn finish(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

/// Whether a character is a word by itself, as its script has no spaces: Han, Hiragana, Katakana.
fn is_own_word(char: char) -> bool {
    matches!(char, '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{323af}')
        && char.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Vec<String> {
        let mut words = Words::default();
        words.read(text);
        (0..words.count()).map(|i| words.run(i, 1).to_owned()).collect()
    }

    #[test]
    fn words_are_gpt_3s() {
        assert_eq!(
            all("Don't  panic: it's 3.14 -- OK?"),
            ["dont", "panic", "its", "314", "ok"]
        );
        assert_eq!(all("Größe ÉTÉ\u{a0}well-known"), ["größe", "été", "wellknown"]);
        assert_eq!(all("東京はhot。"), ["東", "京", "は", "hot"]);
        assert_eq!(all(" ... "), [""; 0]);
    }

    proptest! {
        #[test]
        fn runs_are_what_they_hash(text in "[a-c É漢.\n]{0,60}", length in 1usize..5) {
            let mut words = Words::default();
            words.read(&text);
            let runs: Vec<(u64, &str)> = words.runs(length).enumerate().map(|(i, hash)| (hash, words.run(i, length))).collect();
            prop_assert_eq!(runs.len(), (words.count() + 1).saturating_sub(length));
            for (a, b) in runs.iter().flat_map(|a| runs.iter().map(move |b| (a, b))) {
                prop_assert_eq!(a.0 == b.0, a.1 == b.1);
            }
            for i in 0..runs.len() {
                let mut again = Words::default();
                again.read(&text[words.range(i, length)]);
                prop_assert_eq!(again.run(0, length), runs[i].1);
            }
        }
    }
}
