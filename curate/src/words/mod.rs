//! Words, sentences, lines and paragraphs, as all filters count them.
//!
//! - A **line** ends at `\n`; white space at its end, `\r` too, does not belong to it where its end is looked at.
//! - A **paragraph** is a run of lines that are not blank.
//! - A **word** is a run of characters without Unicode white space, its punctuation included: `test.` is one word of
//!   five characters (dolma counts so). Its **core** is without the punctuation at both ends; a word without a core is
//!   a symbol.
//! - In **scripts without spaces** a word is what Unicode's default word boundaries (UAX 29) make it: an ideograph, a
//!   Hiragana, a run of Katakana, or in Thai, Lao, Khmer, Burmese and their like a character with its marks. It takes no
//!   dictionary, so that the same text has the same words everywhere, and is finer than what a reader calls a word: about
//!   two such units make a word in Chinese, Japanese and Tibetan (where a unit ends at its dot), three in the others.
//!   Punctuation belongs to the word before it, as elsewhere.
//! - A **sentence** ends at a word that ends in a terminal mark, closing quotes and brackets aside; not after `...`, not
//!   after a single letter (`J. Doe`), and not at a full stop before a lower-case letter (UAX 29, SB8). Thai, Lao and
//!   Tai Tham have no such mark: a space ends a sentence there.

pub(crate) mod chars;

pub use chars::{
    columns, ends_sentence, is_closing, is_closing_quote, is_punctuation, is_terminal, is_unpunctuated,
    is_unspaced,
};

use chars::{CLASS, DIGIT, LETTER, MARK, RUN, SPACE, SYMBOL, UNIT, WIDE, class_of, joins_next, parts_words};

/// A word, as byte positions in the text that it was found in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Where its core begins.
    pub core_start: usize,
    /// Where its core ends; the core is empty where the word is punctuation only.
    pub core_end: usize,
    /// Its length in characters (code points).
    pub chars: u32,
    /// The length of its core in characters.
    pub core_chars: u32,
    /// Whether it is nothing but ASCII letters and digits.
    pub is_plain: bool,
    /// Whether it holds a letter.
    pub has_letter: bool,
    /// Whether it is a unit of a script without spaces.
    pub is_unspaced: bool,
    /// Whether white space or the end of the text follows.
    pub ends_segment: bool,
}

/// The words of a text, in one pass.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    text: &'a str,
    at: usize,
    end: usize,
    /// End of the run without ASCII white space that holds characters beyond ASCII; at most `at` outside of one.
    wide_end: usize,
}

/// The words of a text.
#[must_use]
pub fn words(text: &str) -> Words<'_> {
    Words::within(text, 0, text.len())
}

impl<'a> Words<'a> {
    /// The words between two positions, which must be boundaries of characters.
    pub(crate) fn within(text: &'a str, start: usize, end: usize) -> Self {
        Self {
            text,
            at: start,
            end,
            wide_end: 0,
        }
    }

    /// The next word of a run that holds characters beyond ASCII, if one is left in it.
    fn next_wide(&mut self) -> Option<Word> {
        let run = self.text.get(self.at..self.wide_end)?;
        let mut word = Word::default();
        let mut unit = Unit::None;
        let (mut joined, mut parted) = (false, false);
        for (offset, c) in run.char_indices() {
            let here = self.at + offset;
            let class = class_of(c);
            if class & SPACE != 0 {
                if word.chars == 0 {
                    continue;
                }
                word.end = here;
                word.ends_segment = true;
                self.at = here + c.len_utf8();
                return Some(word);
            }
            let is_symbol = class & SYMBOL != 0;
            let in_unit = matches!(unit, Unit::Alone | Unit::Run);
            let (next, begins) =
                if is_symbol || (in_unit && (class & MARK != 0 || class & (LETTER | DIGIT) == 0)) {
                    (unit, false)
                } else if class & UNIT != 0 {
                    (Unit::Alone, unit != Unit::None && !joined)
                } else if class & RUN != 0 {
                    (Unit::Run, !matches!(unit, Unit::None | Unit::Run))
                } else {
                    (Unit::Spaced, in_unit)
                };
            if begins || (parted && !is_symbol) {
                word.end = here;
                self.at = here;
                return Some(word);
            }
            unit = next;
            (joined, parted) = (joins_next(c), parts_words(c));
            if word.chars == 0 {
                word.start = here;
                (word.core_start, word.core_end) = (here, here);
            }
            word.chars += 1;
            if !is_symbol {
                if word.core_chars == 0 {
                    word.core_start = here;
                    word.core_chars = 1;
                    word.is_unspaced = next != Unit::Spaced;
                    word.core_end = here + c.len_utf8();
                } else {
                    word.core_chars += chars_between(self.text, word.core_end, here) + 1;
                    word.core_end = here + c.len_utf8();
                }
                word.has_letter |= class & LETTER != 0;
            }
        }
        self.at = self.wide_end;
        word.end = self.wide_end;
        word.ends_segment = true;
        (word.chars > 0).then_some(word)
    }

    /// A word of ASCII with punctuation.
    fn with_symbols(&self, start: usize, end: usize) -> Word {
        let bytes = self.text.as_bytes().get(start..end).unwrap_or_default();
        let is_core = |byte: &u8| CLASS[usize::from(*byte)] != SYMBOL;
        let first = bytes.iter().position(is_core);
        let last = bytes.iter().rposition(is_core);
        let (core_start, core_end) = match (first, last) {
            (Some(first), Some(last)) => (start + first, start + last + 1),
            _ => (start, start),
        };
        Word {
            start,
            end,
            core_start,
            core_end,
            chars: (end - start) as u32,
            core_chars: (core_end - core_start) as u32,
            is_plain: false,
            has_letter: bytes.iter().any(u8::is_ascii_alphabetic),
            is_unspaced: false,
            ends_segment: true,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    None,
    Alone,
    Run,
    Spaced,
}

fn chars_between(text: &str, start: usize, end: usize) -> u32 {
    text.get(start..end).map_or(0, |between| between.chars().count()) as u32
}

impl Iterator for Words<'_> {
    type Item = Word;

    #[inline]
    fn next(&mut self) -> Option<Word> {
        if self.at < self.wide_end
            && let Some(word) = self.next_wide()
        {
            return Some(word);
        }
        let bytes = self.text.as_bytes();
        let bytes = bytes.get(..self.end)?;
        loop {
            let rest = bytes.get(self.at..)?;
            let start = self.at + rest.iter().position(|byte| CLASS[usize::from(*byte)] != SPACE)?;
            let mut seen = 0;
            let mut length = 0;
            for byte in bytes.get(start..)? {
                let class = CLASS[usize::from(*byte)];
                if class == SPACE {
                    break;
                }
                seen |= class;
                length += 1;
            }
            let end = start + length;
            if seen & WIDE != 0 {
                (self.at, self.wide_end) = (start, end);
                match self.next_wide() {
                    Some(word) => return Some(word),
                    None => continue,
                }
            }
            self.at = end;
            if seen & SYMBOL != 0 {
                return Some(self.with_symbols(start, end));
            }
            let chars = length as u32;
            return Some(Word {
                start,
                end,
                core_start: start,
                core_end: end,
                chars,
                core_chars: chars,
                is_plain: true,
                has_letter: seen & LETTER != 0,
                is_unspaced: false,
                ends_segment: true,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str) -> Vec<&str> {
        words(text).map(|word| &text[word.start..word.end]).collect()
    }

    fn cores(text: &str) -> Vec<&str> {
        words(text)
            .map(|word| &text[word.core_start..word.core_end])
            .collect()
    }

    #[test]
    fn words_are_between_spaces_and_cores_without_punctuation() {
        assert_eq!(split("This is a test."), ["This", "is", "a", "test."]);
        assert_eq!(
            cores("\"It's (3.14)\" -- ¿Qué? «oui»"),
            ["It's", "3.14", "", "Qué", "oui"]
        );
        assert_eq!(split("a\u{a0}b\u{3000}c\td\r\n\u{2003}"), ["a", "b", "c", "d"]);
        let word = words("—naïve…").next().unwrap();
        assert_eq!((word.chars, word.core_chars, word.has_letter), (7, 5, true));
    }

    #[test]
    fn scripts_without_spaces_have_short_words() {
        assert_eq!(
            split("我用Python写，好。"),
            ["我", "用", "Python", "写，", "好。"]
        );
        assert_eq!(
            split("コンピューターを使う"),
            ["コンピューター", "を", "使", "う"]
        );
        assert_eq!(split("ที่นี่"), ["ที่", "นี่"]);
        assert_eq!(split("ខ្មែរ"), ["ខ្មែ", "រ"]);
        assert_eq!(split("မြန်မာ"), ["မြ", "န်", "မာ"]);
        assert_eq!(split("한국어 문장"), ["한국어", "문장"]);
        assert_eq!(split("བོད་ཡིག། ཡིན།"), ["བོད་", "ཡིག།", "ཡིན།"]);
        assert_eq!(split("ሰላም፡ለሁሉ፡፡አዎ።"), ["ሰላም፡", "ለሁሉ፡፡", "አዎ።"]);
        assert_eq!(split("“हिन्दी” में।"), ["“हिन्दी”", "में।"]);
        assert!(words("中文").all(|word| word.is_unspaced && word.core_chars == 1));
        assert_eq!(
            words("中文 ").map(|word| word.ends_segment).collect::<Vec<_>>(),
            [false, true]
        );
    }

    proptest! {
        #[test]
        fn no_character_is_lost_and_none_is_counted_twice(text in "[ a.ñ中カก\u{e34}។\u{a0}\n-]{0,40}|\\PC{0,40}") {
            let mut at = 0;
            for word in words(&text) {
                prop_assert!(text[at..word.start].chars().all(char::is_whitespace));
                prop_assert!(word.start < word.end && word.start <= word.core_start && word.core_end <= word.end);
                let inside = &text[word.start..word.end];
                prop_assert_eq!(inside.chars().count() as u32, word.chars);
                prop_assert!(!inside.contains(char::is_whitespace));
                let core = &text[word.core_start..word.core_end];
                prop_assert_eq!(core.chars().count() as u32, word.core_chars);
                prop_assert_eq!(core, inside.trim_matches(is_punctuation));
                at = word.end;
            }
            prop_assert!(text[at..].chars().all(char::is_whitespace));
        }

        #[test]
        fn text_of_spaced_scripts_splits_as_the_standard_library_does(text in "[ab.ñяकب \u{a0}\n]{0,40}") {
            prop_assert_eq!(split(&text), text.split_whitespace().collect::<Vec<_>>());
        }
    }
}
