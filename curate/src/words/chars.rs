//! Classes of characters: what ends a sentence, what is punctuation, what is written without spaces.

use std::sync::LazyLock;

/// A byte of a word in ASCII that is a letter.
pub(crate) const LETTER: u8 = 1;
/// A byte that is a digit.
pub(crate) const DIGIT: u8 = 2;
/// A byte that is punctuation, a symbol or a control character.
pub(crate) const SYMBOL: u8 = 4;
/// A byte that ends a word: white space.
pub(crate) const SPACE: u8 = 8;
/// A byte of a character beyond ASCII.
pub(crate) const WIDE: u8 = 16;
/// A character of a script without spaces that begins a unit.
pub(crate) const UNIT: u8 = 32;
/// A character of a script without spaces whose runs are units: Katakana, and Tibetan between its dots.
pub(crate) const RUN: u8 = 64;
/// A vowel sign of a script without spaces, which belongs to the character before it though it may count as a letter.
pub(crate) const MARK: u8 = 128;

/// The class of every byte.
pub(crate) const CLASS: [u8; 256] = {
    let mut class = [SYMBOL; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphabetic() {
            class[byte] = LETTER;
        } else if b.is_ascii_digit() {
            class[byte] = DIGIT;
        } else if matches!(b, b' ' | b'\t'..=b'\r') {
            class[byte] = SPACE;
        } else if !b.is_ascii() {
            class[byte] = WIDE;
        }
        byte += 1;
    }
    class
};

/// `Sentence_Terminal` of Unicode 16, beyond ASCII, and three Khmer signs that end a text (U+17D6, U+17D9, U+17DA).
const TERMINALS: &[(u32, u32)] = &[
    (0x0589, 0x0589),
    (0x061d, 0x061f),
    (0x06d4, 0x06d4),
    (0x0700, 0x0702),
    (0x07f9, 0x07f9),
    (0x0837, 0x0837),
    (0x0839, 0x0839),
    (0x083d, 0x083e),
    (0x0964, 0x0965),
    (0x0f0d, 0x0f12), // Tibetan shad: not in the property, but it is what Tibetan has.
    (0x104a, 0x104b),
    (0x1362, 0x1362),
    (0x1367, 0x1368),
    (0x166e, 0x166e),
    (0x1735, 0x1736),
    (0x17d4, 0x17d6),
    (0x17d9, 0x17da),
    (0x1803, 0x1803),
    (0x1809, 0x1809),
    (0x1944, 0x1945),
    (0x1aa8, 0x1aab),
    (0x1b4e, 0x1b4f),
    (0x1b5a, 0x1b5b),
    (0x1b5e, 0x1b5f),
    (0x1b7d, 0x1b7f),
    (0x1c3b, 0x1c3c),
    (0x1c7e, 0x1c7f),
    (0x2024, 0x2024),
    (0x203c, 0x203d),
    (0x2047, 0x2049),
    (0x2cf9, 0x2cfb),
    (0x2e2e, 0x2e2e),
    (0x2e3c, 0x2e3c),
    (0x2e53, 0x2e54),
    (0x2e60, 0x2e61),
    (0x3002, 0x3002),
    (0xa4ff, 0xa4ff),
    (0xa60e, 0xa60f),
    (0xa6f3, 0xa6f3),
    (0xa6f7, 0xa6f7),
    (0xa876, 0xa877),
    (0xa8ce, 0xa8cf),
    (0xa92f, 0xa92f),
    (0xa9c8, 0xa9c9),
    (0xaa5d, 0xaa5f),
    (0xaaf0, 0xaaf1),
    (0xabeb, 0xabeb),
    (0xfe12, 0xfe12),
    (0xfe15, 0xfe16),
    (0xfe52, 0xfe52),
    (0xfe56, 0xfe57),
    (0xff01, 0xff01),
    (0xff0e, 0xff0e),
    (0xff1f, 0xff1f),
    (0xff61, 0xff61),
    (0x10a56, 0x10a57),
    (0x10f55, 0x10f59),
    (0x10f86, 0x10f89),
    (0x11047, 0x11048),
    (0x110be, 0x110c1),
    (0x11141, 0x11143),
    (0x111c5, 0x111c6),
    (0x111cd, 0x111cd),
    (0x111de, 0x111df),
    (0x11238, 0x11239),
    (0x1123b, 0x1123c),
    (0x112a9, 0x112a9),
    (0x113d4, 0x113d5),
    (0x1144b, 0x1144c),
    (0x115c2, 0x115c3),
    (0x115c9, 0x115d7),
    (0x11641, 0x11642),
    (0x1173c, 0x1173e),
    (0x11944, 0x11944),
    (0x11946, 0x11946),
    (0x11a42, 0x11a43),
    (0x11a9b, 0x11a9c),
    (0x11c41, 0x11c42),
    (0x11ef7, 0x11ef8),
    (0x11f43, 0x11f44),
    (0x16a6e, 0x16a6f),
    (0x16af5, 0x16af5),
    (0x16b37, 0x16b38),
    (0x16b44, 0x16b44),
    (0x16d6e, 0x16d6f),
    (0x16e98, 0x16e98),
    (0x1bc9f, 0x1bc9f),
    (0x1da88, 0x1da88),
];

/// Scripts that put no space between words, without the marks that belong to the character before.
const UNSPACED: &[(u32, u32)] = &[
    (0x0e01, 0x0e30), // Thai
    (0x0e32, 0x0e33),
    (0x0e40, 0x0e46),
    (0x0e81, 0x0eb0), // Lao
    (0x0eb2, 0x0eb3),
    (0x0ebd, 0x0ec6),
    (0x0edc, 0x0edf),
    (0x1000, 0x102a), // Myanmar
    (0x103f, 0x103f),
    (0x104c, 0x1055),
    (0x105a, 0x105d),
    (0x1061, 0x1061),
    (0x1065, 0x1066),
    (0x106e, 0x1070),
    (0x1075, 0x1081),
    (0x108e, 0x108e),
    (0x1780, 0x17b3), // Khmer
    (0x17d7, 0x17d7),
    (0x17dc, 0x17dc),
    (0x1950, 0x19ab), // Tai Le, New Tai Lue
    (0x1a20, 0x1a54), // Tai Tham
    (0x3005, 0x3007), // Han
    (0x3021, 0x3029),
    (0x3041, 0x3096), // Hiragana
    (0x309d, 0x309f),
    (0x3105, 0x312f), // Bopomofo
    (0x31a0, 0x31bf),
    (0x3400, 0x4dbf), // Han
    (0x4e00, 0x9fff),
    (0xa000, 0xa48c), // Yi
    (0xa984, 0xa9b2), // Javanese
    (0xa9cf, 0xa9d9),
    (0xa9e0, 0xa9e4), // Myanmar
    (0xa9e7, 0xa9ef),
    (0xa9fa, 0xa9fe),
    (0xaa60, 0xaa7a),
    (0xaa7e, 0xaa7f),
    (0xaa80, 0xaaaf), // Tai Viet
    (0xaab1, 0xaab1),
    (0xaab5, 0xaab6),
    (0xaab9, 0xaabd),
    (0xaac0, 0xaac0),
    (0xaac2, 0xaac2),
    (0xaadb, 0xaadd),
    (0xf900, 0xfaff), // Han
    (0x1b150, 0x1b152),
    (0x20000, 0x323af),
];

/// Scripts without spaces of which a run is a unit. The words that Japanese writes in Katakana are longer than a character,
/// and follow each other rarely; Tibetan has a dot after each syllable.
const RUNS: &[(u32, u32)] = &[
    (0x0f00, 0x0f00),
    (0x0f18, 0x0f39),
    (0x0f3e, 0x0f84),
    (0x0f86, 0x0fbc),
    (0x30a1, 0x30fa),
    (0x30fc, 0x30ff),
    (0x31f0, 0x31ff),
    (0xff66, 0xff9f),
    (0x1b164, 0x1b167),
];

/// Punctuation beyond ASCII that is no terminal.
const PUNCTUATION: &[(u32, u32)] = &[
    (0x00a0, 0x00a9),
    (0x00ab, 0x00b1),
    (0x00b4, 0x00b4),
    (0x00b6, 0x00b8),
    (0x00bb, 0x00bb),
    (0x00bf, 0x00bf),
    (0x055a, 0x055f),
    (0x058a, 0x058f),
    (0x05be, 0x05be),
    (0x05c0, 0x05c0),
    (0x05c3, 0x05c3),
    (0x05c6, 0x05c6),
    (0x05f3, 0x05f4),
    (0x0609, 0x060d),
    (0x061b, 0x061b),
    (0x066a, 0x066d),
    (0x0703, 0x070d),
    (0x0970, 0x0970),
    (0x0df4, 0x0df4),
    (0x0e2f, 0x0e2f),
    (0x0e4f, 0x0e4f),
    (0x0e5a, 0x0e5b),
    (0x0f04, 0x0f0c),
    (0x0f13, 0x0f14),
    (0x0f3a, 0x0f3d),
    (0x10fb, 0x10fb),
    (0x1361, 0x1366),
    (0x1400, 0x1400),
    (0x17d8, 0x17d8),
    (0x1800, 0x180a),
    (0x2010, 0x205e),
    (0x2190, 0x21ff),
    (0x2200, 0x22ff),
    (0x2329, 0x232a),
    (0x2500, 0x25ff),
    (0x2768, 0x2775),
    (0x2983, 0x2998),
    (0x2e00, 0x2e2e),
    (0x2e30, 0x2e5d),
    (0x3001, 0x3003),
    (0x3008, 0x3011),
    (0x3014, 0x301f),
    (0x3030, 0x3030),
    (0x303d, 0x303d),
    (0x30a0, 0x30a0),
    (0x30fb, 0x30fb),
    (0xfd3e, 0xfd3f),
    (0xfe10, 0xfe19),
    (0xfe30, 0xfe6b),
    (0xff01, 0xff0f),
    (0xff1a, 0xff20),
    (0xff3b, 0xff40),
    (0xff5b, 0xff65),
];

fn within(ranges: &[(u32, u32)], c: char) -> bool {
    let c = u32::from(c);
    ranges
        .get(ranges.partition_point(|&(_, last)| last < c))
        .is_some_and(|&(first, _)| first <= c)
}

/// Whether it ends a sentence: `.`, `!`, `?` and Unicode's `Sentence_Terminal`, such as `。`, `؟`, `।`, `။`.
#[must_use]
pub fn is_terminal(c: char) -> bool {
    if c.is_ascii() {
        matches!(c, '.' | '!' | '?')
    } else {
        within(TERMINALS, c)
    }
}

/// Whether a text ends as a sentence does: in a terminal mark, in the two word spaces that Ethiopic writes for `።`, or in a
/// script that has no mark for it.
#[must_use]
pub fn ends_sentence(text: &str) -> bool {
    text.chars()
        .next_back()
        .is_some_and(|last| is_terminal(last) || is_unpunctuated(last))
        || text.ends_with("\u{1361}\u{1361}")
}

/// Whether it may stand between the end of a sentence and the space behind it: closing quotes and brackets.
#[must_use]
pub fn is_closing(c: char) -> bool {
    matches!(c, ')' | ']' | '}' | '*' | '_' | '）' | '］' | '】' | '〕') || is_closing_quote(c)
}

/// Whether it is a quote that closes somewhere: languages differ in which one does.
#[must_use]
pub fn is_closing_quote(c: char) -> bool {
    matches!(
        c,
        '"' | '\'' | '\u{2018}'
            ..='\u{201f}' | '«' | '»' | '‹' | '›' | '」' | '』' | '〉' | '》' | '〞' | '〟' | '＂'
    )
}

/// Whether it is punctuation: all of ASCII's that is neither letter, digit nor space, control characters, and the
/// punctuation of other scripts. Emoji are not.
#[must_use]
pub fn is_punctuation(c: char) -> bool {
    match u32::from(c) {
        0..0x80 => !c.is_ascii_alphanumeric() && !c.is_ascii_whitespace(),
        0x80..0xa0 => true,
        0xc0..0x55a => false,
        _ => within(PUNCTUATION, c) || within(TERMINALS, c),
    }
}

/// Whether its script puts no space between words, and it begins a unit of its own.
#[must_use]
pub fn is_unspaced(c: char) -> bool {
    c >= '\u{e01}' && within(UNSPACED, c)
}

/// The class of every character of the basic plane: looking one up in the standard library's tables takes ten times as long.
static CLASSES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let class = |code| char::from_u32(code).map_or(0, find_class);
    (0..0x1_0000).map(class).collect()
});

/// The class of a character: one or several of [`LETTER`], [`DIGIT`] (any number), [`SYMBOL`], [`SPACE`], [`UNIT`],
/// [`RUN`] and [`MARK`].
#[inline]
pub(crate) fn class_of(c: char) -> u8 {
    CLASSES
        .get(u32::from(c) as usize)
        .copied()
        .unwrap_or_else(|| find_class(c))
}

fn find_class(c: char) -> u8 {
    let flag = |is: bool, class: u8| if is { class } else { 0 };
    flag(c.is_alphabetic(), LETTER)
        | flag(c.is_numeric(), DIGIT)
        | flag(is_punctuation(c), SYMBOL)
        | flag(c.is_whitespace(), SPACE)
        | flag(is_unspaced(c), UNIT)
        | flag(within(RUNS, c), RUN)
        | flag(is_mark_of_unspaced(c), MARK)
}

/// Vowel signs that Rust counts as letters, though they belong to the character before them.
fn is_mark_of_unspaced(c: char) -> bool {
    matches!(
        u32::from(c),
        0x0e31 | 0x0e34..=0x0e3a | 0x0e47..=0x0e4e | 0x0eb1 | 0x0eb4..=0x0ebc | 0x0ec8..=0x0ece
            | 0x102b..=0x103e | 0x1056..=0x1059 | 0x105e..=0x1060 | 0x1062..=0x1064 | 0x1067..=0x106d
            | 0x1071..=0x1074 | 0x1082..=0x108d | 0x108f | 0x109a..=0x109d | 0x17b4..=0x17d3 | 0x17dd
            | 0x19b0..=0x19c9 | 0x1a55..=0x1a7f | 0xa980..=0xa983 | 0xa9b3..=0xa9c0 | 0xa9e5 | 0xaa7b..=0xaa7d | 0xaab0..=0xaac1
    )
}

/// Whether it joins the next character to its own unit: the viramas of Khmer, Burmese and Tai Tham.
pub(crate) fn joins_next(c: char) -> bool {
    matches!(c, '\u{17d2}' | '\u{1039}' | '\u{1a60}')
}

/// Whether the next character begins a word though there is no space: after the dot between syllables in Tibetan and the
/// word space of Ethiopic.
pub(crate) fn parts_words(c: char) -> bool {
    matches!(c, '\u{f0b}' | '\u{f0c}' | '\u{1361}')
}

/// How many units of its script make about as much as a word elsewhere: in translations of the Universal Declaration of
/// Human Rights two ideographs, kana or Tibetan syllables stand for an English word, and three units of Thai, Lao, Khmer or
/// Burmese.
pub(crate) fn units_per_word(c: char) -> u32 {
    match u32::from(c) {
        0x0f00..=0x0fff => 2,
        ..0x2e80 | 0xa980..=0xaadf => 3,
        _ => 2,
    }
}

/// Whether its script has no mark that ends a sentence: Thai, Lao and Tai Tham put a space there.
#[must_use]
pub fn is_unpunctuated(c: char) -> bool {
    matches!(c, '\u{e01}'..='\u{e3a}' | '\u{e40}'..='\u{e5b}' | '\u{e81}'..='\u{edf}' | '\u{1a20}'..='\u{1a7f}')
}

/// Columns on a terminal: two for ideographs, kana, Hangul and full-width forms (UAX 11), one for all else.
#[must_use]
pub fn columns(c: char) -> u32 {
    let wide = matches!(
        u32::from(c),
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xa960..=0xa97f | 0xac00..=0xd7a3
            | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff
            | 0x20000..=0x3fffd
    );
    1 + u32::from(wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_do_not_overlap() {
        for table in [TERMINALS, UNSPACED, RUNS, PUNCTUATION] {
            assert!(table.iter().all(|(first, last)| first <= last));
            assert!(table.windows(2).all(|pair| pair[0].1 < pair[1].0), "{table:x?}");
        }
    }

    #[test]
    fn sentences_end_in_every_script() {
        for c in ".!?。！？।؟۔።։។။‽".chars() {
            assert!(is_terminal(c) && is_punctuation(c), "{c}");
        }
        for c in ",;:、，…a中\"".chars() {
            assert!(!is_terminal(c), "{c}");
        }
    }

    #[test]
    fn what_is_a_letter_is_no_punctuation() {
        for c in (0x80..0x11_0000).filter_map(char::from_u32) {
            assert!(
                !(c.is_alphanumeric() && is_punctuation(c)) || matches!(c, 'ª' | '\u{e2f}'),
                "{c} {:x}",
                u32::from(c)
            );
        }
    }

    #[test]
    fn scripts_without_spaces() {
        for c in "中ひกກမក々".chars() {
            assert!(is_unspaced(c), "{c}");
        }
        for c in "aя한カ\u{e34}\u{e49}\u{102d}\u{17d2}".chars() {
            assert!(!is_unspaced(c), "{c}");
        }
        assert_eq!("a中".chars().map(columns).sum::<u32>(), 3);
    }
}
