//! What a character is to the patterns that cut text in words: a letter (`\p{L}`), a number (`\p{N}`), white
//! space (`\s`) or something else.

use std::sync::LazyLock;

use regex_syntax::hir::{Class as HirClass, HirKind};

/// A kind of character.
pub(super) type Class = u8;
/// `\p{L}`
pub(super) const LETTER: Class = 0;
/// `\p{N}`
pub(super) const NUMBER: Class = 1;
/// `\s`
pub(super) const SPACE: Class = 2;
/// `[^\s\p{L}\p{N}]`
pub(super) const OTHER: Class = 3;

const ASCII: [Class; 128] = {
    let mut table = [OTHER; 128];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => NUMBER,
            b'\t'..=b'\r' | b' ' => SPACE,
            _ => OTHER,
        };
        byte += 1;
    }
    table
};

/// One class for each code point, 1.1 MB, from the very tables that the patterns of the `tokenizers` crate are
/// compiled with, so that both know the same version of Unicode.
static TABLE: LazyLock<Vec<Class>> = LazyLock::new(|| {
    let mut table = vec![OTHER; char::MAX as usize + 1];
    for (pattern, class) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)] {
        for (first, last) in ranges(pattern) {
            table[first as usize..=last as usize].fill(class);
        }
    }
    table
});

fn ranges(pattern: &str) -> Vec<(char, char)> {
    let parsed = regex_syntax::parse(pattern);
    let Some(HirKind::Class(HirClass::Unicode(class))) = parsed.as_ref().map(|hir| hir.kind()).ok() else {
        unreachable!("{pattern} is a class");
    };
    class.iter().map(|range| (range.start(), range.end())).collect()
}

/// Classes of the characters of a text.
#[derive(Clone, Copy)]
pub(super) struct Characters<'t> {
    bytes: &'t [u8],
    table: &'static [Class],
}

impl<'t> Characters<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            bytes: text.as_bytes(),
            table: &TABLE,
        }
    }

    /// The text.
    pub(super) fn bytes(&self) -> &'t [u8] {
        self.bytes
    }

    /// The byte at `at`.
    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    /// The class and the length of the character at `at`, which is where one starts, if there is one.
    #[inline]
    pub(super) fn class(&self, at: usize) -> Option<(Class, usize)> {
        let byte = *self.bytes.get(at)?;
        match ASCII.get(usize::from(byte)) {
            Some(class) => Some((*class, 1)),
            None => Some(self.wide_class(at, byte)),
        }
    }

    fn wide_class(&self, at: usize, first: u8) -> (Class, usize) {
        let rest = |i: usize| usize::from(self.bytes.get(at + i).copied().unwrap_or_default() & 0x3f);
        let first = usize::from(first);
        let (code_point, len) = match first {
            0xf0.. => ((first & 0x07) << 18 | rest(1) << 12 | rest(2) << 6 | rest(3), 4),
            0xe0.. => ((first & 0x0f) << 12 | rest(1) << 6 | rest(2), 3),
            _ => ((first & 0x1f) << 6 | rest(1), 2),
        };
        (self.table.get(code_point).copied().unwrap_or(OTHER), len)
    }

    /// Whether a character of `class` starts at `at`.
    #[inline]
    pub(super) fn is(&self, at: usize, class: Class) -> bool {
        self.class(at).is_some_and(|(found, _)| found == class)
    }

    /// Where the characters of `class` from `at` on end.
    #[inline]
    pub(super) fn skip(&self, mut at: usize, class: Class) -> usize {
        loop {
            while let Some(byte) = self.bytes.get(at)
                && ASCII.get(usize::from(*byte)) == Some(&class)
            {
                at += 1;
            }
            match self.bytes.get(at) {
                Some(&byte) if byte >= 0x80 => match self.wide_class(at, byte) {
                    (found, len) if found == class => at += len,
                    _ => return at,
                },
                _ => return at,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_table_is_the_start_of_the_long_one() {
        assert_eq!(ASCII[..], TABLE[..128]);
    }

    #[test]
    fn every_character_has_the_class_of_its_code_point() {
        for c in (0..=char::MAX as u32).filter_map(char::from_u32) {
            let text = c.to_string();
            let class = Characters::new(&text).class(0);
            assert_eq!(class, Some((TABLE[c as usize], c.len_utf8())), "{c:?}");
        }
        assert_eq!(Characters::new("").class(0), None);
    }

    #[test]
    fn classes_are_those_of_the_standard_library_where_it_has_them() {
        for c in (0..=char::MAX as u32).filter_map(char::from_u32) {
            assert_eq!(c.is_whitespace(), TABLE[c as usize] == SPACE, "{c:?}");
        }
    }
}
