//! What stands around a number: the edges of a word, and words that say what the number is.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError};

use super::{Kind, address, card, national, phone};

/// How far before a number a word is looked for that says what it is, in bytes.
const BEFORE: usize = 64;
/// And how far behind it.
const BEHIND: usize = 24;

/// Whether a number may begin at `start`: not inside a word, nor behind `-`, `.`, `/` or `\` that joins it to one.
pub(super) fn begins(bytes: &[u8], start: usize) -> bool {
    let mut before = bytes[..start].iter().rev();
    match before.next() {
        Some(byte) if is_word(*byte) => false,
        Some(b'-' | b'.' | b'/' | b'\\') => !before.next().is_some_and(|byte| is_word(*byte)),
        _ => true,
    }
}

/// Whether a number may end at `end`: not inside a word, not joined to one by `-`, nor to a digit by `.`, and not part of
/// an e-mail address.
pub(super) fn ends(bytes: &[u8], end: usize) -> bool {
    let mut behind = bytes[end..].iter();
    match behind.next() {
        Some(byte) if is_word(*byte) => false,
        Some(b'@' | b'%') => false,
        Some(b'-') => !behind.next().is_some_and(|byte| is_word(*byte)),
        Some(b'.') => !behind.next().is_some_and(u8::is_ascii_digit),
        _ => true,
    }
}

/// Letters, digits and `_` of ASCII. Other letters are no part of a number's word: Chinese has no spaces.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Finds the words of all kinds at once.
pub(super) struct Dictionary {
    search: AhoCorasick,
    /// For each word, a bit for each kind that it speaks of, and the word.
    words: Vec<(u64, &'static str)>,
}

impl Dictionary {
    /// A dictionary of the words that each kind has. Words match in any case of ASCII; those with a capital of ASCII as
    /// they are.
    pub(super) fn new() -> Result<Self, BuildError> {
        let mut words: Vec<(u64, &'static str)> = Vec::new();
        for &kind in Kind::ALL {
            for &word in words_of(kind) {
                match words.iter_mut().find(|(_, known)| *known == word) {
                    Some((kinds, _)) => *kinds |= bit(kind),
                    None => words.push((bit(kind), word)),
                }
            }
        }
        let search = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .ascii_case_insensitive(true)
            .build(words.iter().map(|(_, word)| word))?;
        Ok(Self { search, words })
    }

    /// Whether a word that speaks of `kind` stands near `range`: up to 64 bytes before, or up to 24 behind.
    pub(super) fn has(&self, text: &str, kind: Kind, range: &Range<usize>) -> bool {
        let from = text.floor_char_boundary(range.start.saturating_sub(BEFORE));
        let to = text.floor_char_boundary(range.end.saturating_add(BEHIND));
        [from..range.start, range.end..to].into_iter().any(|window| {
            text.get(window.clone()).is_some_and(|part| {
                self.search.find_overlapping_iter(part).any(|found| {
                    let known = self.words.get(found.pattern().as_usize());
                    let place = window.start + found.start()..window.start + found.end();
                    known.is_some_and(|(kinds, word)| kinds & bit(kind) != 0 && is_whole(text, place, word))
                })
            })
        })
    }
}

/// The words that speak of a kind of number.
fn words_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Ip => address::CONTEXT,
        Kind::Phone => phone::CONTEXT,
        Kind::Card => card::CONTEXT,
        kind => national::context(kind),
    }
}

fn bit(kind: Kind) -> u64 {
    1 << (kind as u32)
}

/// Whether `word`, found in `text` at `range`, is one by itself and no part of a placeholder. A plural is a word too, and
/// scripts other than Latin's have no edges that matter.
fn is_whole(text: &str, range: Range<usize>, word: &str) -> bool {
    let (Some(before), Some(found), Some(rest)) = (
        text.get(..range.start),
        text.get(range.clone()),
        text.get(range.end..),
    ) else {
        return false;
    };
    if word.bytes().any(|byte| byte.is_ascii_uppercase()) && found != word {
        return false;
    }
    let behind = rest.strip_prefix(['s', 'S']).unwrap_or(rest);
    let edges = [before.chars().next_back(), behind.chars().next()];
    if word.is_ascii() && edges.into_iter().flatten().any(char::is_alphanumeric) {
        return false;
    }
    let is_name = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'_';
    let opened = before.bytes().rev().take(32).find(|byte| !is_name(byte)) == Some(b'<');
    let closed = rest.bytes().take(32).find(|byte| !is_name(byte)) == Some(b'>');
    !(opened && closed && found.bytes().all(|byte| is_name(&byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(text: &str, kind: Kind) -> bool {
        let dictionary = Dictionary::new().unwrap();
        let start = text.find(|c: char| c.is_ascii_digit()).unwrap();
        dictionary.has(text, kind, &(start..start + 3))
    }

    #[test]
    fn words_are_whole_near_and_in_any_case() {
        for text in [
            "His SSN: 123",
            "SSNs are 123",
            "user_ssn=123",
            "123 (ssn)",
            "<SSN 123>",
        ] {
            assert!(has(text, Kind::UsSsn), "{text}");
            assert!(!has(text, Kind::CaSin), "{text}");
        }
        assert!(has("电话123", Kind::Phone));
        assert!(has("<phone>123", Kind::Phone));
        assert!(has("SIN 123", Kind::CaSin));
        for text in ["classnumber 123", "lessn 123", "<US_SSN> 123", "123 <US_SSN>"] {
            assert!(!has(text, Kind::UsSsn), "{text}");
        }
        assert!(!has("to sin 123", Kind::CaSin));
        assert!(!has("<PHONE> 123", Kind::Phone));
        for (spaces, near) in [(57, true), (62, false)] {
            assert_eq!(has(&format!("ssn{}123", " ".repeat(spaces)), Kind::UsSsn), near);
        }
        for (spaces, near) in [(21, true), (22, false)] {
            assert_eq!(has(&format!("123{}ssn", " ".repeat(spaces)), Kind::UsSsn), near);
        }
    }
}
