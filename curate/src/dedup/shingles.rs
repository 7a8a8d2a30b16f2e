//! Words, and a hash of every five of them.
//!
//! Words here are what near-duplicates are compared by, in the manner of datatrove's normalisation: letters, digits
//! and the marks on them, in lower case; whatever stands between separates. In scripts that are written without
//! spaces (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan) each letter with its marks is a word. Unlike datatrove,
//! diacritics and digits stay: tables that differ in every number are not the same.

use unicode_normalization::char::is_combining_mark;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A longer word is taken for several of this many bytes, so that memory is bounded whatever the text.
const WORD_BYTES: usize = 1024;
/// Hashes that are handed on at once.
const BATCH: usize = 4096;

/// For each ASCII byte, its lower case if words are made of it, else 0.
const FOLD: [u8; 128] = {
    let mut fold = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            fold[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    fold
};

/// Hashes the shingles of texts, one after the other, in the same buffers.
#[derive(Clone, Debug)]
pub struct Shingler {
    ngram: usize,
    seed: u64,
    word: Word,
    /// Hashes of the last words: of the last n − 1 that were handed on, and of those since.
    words: Vec<u64>,
    shingles: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Word {
    bytes: [u8; WORD_BYTES],
    len: usize,
}

impl Word {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Shingler {
    /// Of `ngram` words each, hashed with a seed.
    #[must_use]
    pub fn new(ngram: usize, seed: u64) -> Self {
        Self {
            ngram: ngram.max(1),
            seed,
            word: Word {
                bytes: [0; WORD_BYTES],
                len: 0,
            },
            words: Vec::with_capacity(BATCH + ngram),
            shingles: Vec::with_capacity(BATCH),
        }
    }

    /// Hands the hashes of a text's shingles on, in their order, in batches of at most 4,096. A text of fewer words
    /// than a shingle has one: all of it. A text without words has none.
    ///
    /// A word is hashed by XXH3; a shingle's hash is the polynomial of its words' hashes at an odd point, modulo 2⁶⁴,
    /// mixed by the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    pub fn for_each_batch(&mut self, text: &str, mut batch: impl FnMut(&[u64])) {
        self.words.clear();
        self.word.len = 0;
        let mut any = false;
        let mut end = |this: &mut Self| {
            if this.word.len > 0 {
                this.words.push(xxh3_64_with_seed(this.word.bytes(), this.seed));
                this.word.len = 0;
                if this.words.len() >= BATCH + this.ngram - 1 {
                    any = true;
                    this.hand_on(&mut batch);
                }
            }
        };
        // Whether the word that is being read is of a script without spaces.
        let mut lone = false;
        let mut rest = text.as_bytes().iter();
        while let Some(&byte) = rest.as_slice().first() {
            if let Some(&folded) = FOLD.get(byte as usize) {
                rest.next();
                if folded == 0 || lone || self.word.len == WORD_BYTES {
                    end(self);
                    lone = false;
                }
                if folded != 0 {
                    self.word.push(folded);
                }
                continue;
            }
            let at = text.len() - rest.len();
            let Some(char) = text.get(at..).and_then(|text| text.chars().next()) else {
                break;
            };
            rest.nth(char.len_utf8() - 1);
            match class(char) {
                Class::Joins => {}
                Class::Separates => end(self),
                class => {
                    let alone = class == Class::Alone;
                    if class != Class::Marks && (alone || lone) || self.word.len + 16 > WORD_BYTES {
                        end(self);
                        lone = alone;
                    }
                    let mut utf8 = [0; 4];
                    for char in char.to_lowercase() {
                        char.encode_utf8(&mut utf8)
                            .bytes()
                            .for_each(|byte| self.word.push(byte));
                    }
                }
            }
        }
        end(self);
        if !any && !self.words.is_empty() && self.words.len() < self.ngram {
            batch(&[shingle(&self.words)]);
        } else {
            self.hand_on(&mut batch);
        }
    }

    /// All hashes of a text at once: as many as it has words, about.
    #[must_use]
    pub fn hashes(&mut self, text: &str) -> Vec<u64> {
        let mut all = Vec::new();
        self.for_each_batch(text, |batch| all.extend_from_slice(batch));
        all
    }

    /// Hands on what can be made of the words so far, and keeps those that the next ones need.
    fn hand_on(&mut self, batch: &mut impl FnMut(&[u64])) {
        self.shingles.clear();
        self.shingles.extend(self.words.windows(self.ngram).map(shingle));
        if !self.shingles.is_empty() {
            batch(&self.shingles);
        }
        let used = self.words.len().saturating_sub(self.ngram - 1);
        self.words.drain(..used);
    }
}

fn shingle(words: &[u64]) -> u64 {
    const POINT: u64 = 0x9E37_79B9_7F4A_7C15;
    mix(words
        .iter()
        .fold(0, |sum: u64, &word| sum.wrapping_mul(POINT).wrapping_add(word)))
}

/// SplitMix64's finaliser.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Of a word.
    Letter,
    /// A word of its own.
    Alone,
    /// On the letter before it.
    Marks,
    /// Invisible within a word: soft hyphen, zero-width space's relatives.
    Joins,
    Separates,
}

fn class(char: char) -> Class {
    match char {
        '\u{AD}' | '\u{200C}' | '\u{200D}' | '\u{2060}' | '\u{FEFF}' => Class::Joins,
        _ if is_combining_mark(char) => Class::Marks,
        _ if !char.is_alphanumeric() => Class::Separates,
        // Thai, Lao, Tibetan; Burmese; Khmer; kana, Bopomofo and CJK up to Yi; compatibility ideographs; half-width kana;
        // the ideographic planes.
        '\u{E00}'..='\u{FFF}'
        | '\u{1000}'..='\u{109F}'
        | '\u{1780}'..='\u{17FF}'
        | '\u{3005}'..='\u{312F}'
        | '\u{31A0}'..='\u{9FFF}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{FF66}'..='\u{FF9D}'
        | '\u{20000}'..='\u{3FFFF}' => Class::Alone,
        _ => Class::Letter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hashes(text: &str) -> Vec<u64> {
        Shingler::new(5, 1).hashes(text)
    }

    /// How many words, by shingles of one.
    fn words(text: &str) -> usize {
        Shingler::new(1, 1).hashes(text).len()
    }

    #[test]
    fn case_punctuation_and_whitespace_do_not_count() {
        let plain = hashes("the quick brown fox jumps over the lazy dog");
        assert_eq!(plain.len(), 5);
        assert_eq!(
            hashes("  The “quick”\tBROWN\r\nfox — jumps; over (the) lazy dog!\n"),
            plain
        );
        assert_ne!(hashes("the quick brown fox jumps over the lazy cat"), plain);
        assert_ne!(hashes("thequick brown fox jumps over the lazy dog"), plain);
    }

    #[test]
    fn short_texts_are_one_shingle_and_wordless_ones_none() {
        assert_eq!(hashes("four words are few").len(), 1);
        assert_ne!(hashes("four words are few"), hashes("four words are many"));
        assert_ne!(hashes("few"), hashes("few few"));
        assert_eq!(hashes("now there are five words").len(), 1);
        for empty in ["", " \n", "-- * --", "🙂 … !"] {
            assert_eq!(hashes(empty), [0; 0], "{empty}");
        }
    }

    #[test]
    fn words_of_many_scripts() {
        for (text, count) in [
            ("Straße naïve ΑΒΓ жук", 4),
            ("don't stop 3.14", 5),
            ("日本語のテキスト", 8),
            ("東京Tower 2024年", 5),
            ("สวัสดี", 4),
            ("한국어 텍스트", 2),
            ("हिन्दी में", 2),
            ("co\u{AD}operate می\u{200C}خواهم", 2),
        ] {
            assert_eq!(words(text), count, "{text}");
        }
        assert_eq!(hashes("ÄÖÜ ß Σ Я Ж"), hashes("äöü ß σ я ж"));
    }

    #[test]
    fn endless_words_and_lines_take_bounded_memory() {
        let mut shingler = Shingler::new(5, 1);
        let mut largest = 0;
        let mut count = 0;
        for text in [
            "a".repeat(5_000_000),
            "é".repeat(2_500_000),
            "\n".repeat(5_000_000),
            "a b ".repeat(1_250_000),
        ] {
            shingler.for_each_batch(&text, |batch| {
                largest = largest.max(batch.len());
                count += batch.len();
            });
        }
        assert!(largest <= BATCH, "{largest}");
        // 5,000,000 / 1,024 words; a word less than 1,024 at most 15 bytes short of it; none; 2.5 million.
        let (ascii, rest) = (4883 - 4, count - 2_500_000 + 4);
        assert!((ascii + 4879..ascii + 4960).contains(&rest), "{rest}");
        assert!(shingler.words.capacity() < 3 * BATCH);
    }

    proptest! {
        #[test]
        fn a_batch_more_or_less_changes_nothing(count in 4080usize..4120, ngram in 1usize..9) {
            let text: String = (0..count).map(|i| format!("w{i} ")).collect();
            let all = Shingler::new(ngram, 1).hashes(&text);
            prop_assert_eq!(all.len(), count + 1 - ngram);
            let words: Vec<&str> = text.split_whitespace().collect();
            for (i, window) in words.windows(ngram).enumerate().step_by(97) {
                prop_assert_eq!(Shingler::new(ngram, 1).hashes(&window.join(" ")), [all[i]]);
            }
        }

        #[test]
        fn any_text_is_hashed(text in "\\PC{0,80}") {
            let count = words(&text);
            prop_assert_eq!(hashes(&text).len(), if count == 0 { 0 } else { count.max(5) - 4 });
            prop_assert_eq!(hashes(&format!("{text}\n")), hashes(&text));
        }
    }
}
