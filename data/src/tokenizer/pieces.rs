//! Cuts long text in pieces, which many cores can tokenize at a time.

use super::class::{Characters, LETTER, SPACE};

/// A piece is of about this size.
pub(super) const PIECE_BYTES: usize = 32 << 10;
/// Where [`Cuts::AlsoWithinWords`] finds no harmless place, a piece ends here.
pub(super) const LONGEST_PIECE_BYTES: usize = 4 * PIECE_BYTES;

/// Where a long text may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// Only where no word of any [`Pattern`](super::Pattern) reaches across, which changes no token. A text
    /// without such a place is one piece, and takes some 40 bytes of memory for each byte of its longest word.
    BetweenWords,
    /// Also every 128 KiB where no line ends for so long with a character of ASCII and the next begins with
    /// one, which may change the tokens around the cut. So are datasets written.
    AlsoWithinWords,
}

/// The pieces of a text, in order.
pub(super) fn pieces(text: &str, cuts: Cuts) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let len = match cuts {
            _ if rest.len() <= PIECE_BYTES => rest.len(),
            Cuts::BetweenWords => len_between_words(rest, PIECE_BYTES),
            Cuts::AlsoWithinWords => bounded_len(rest),
        };
        let (piece, after) = rest.split_at(len);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Up to a line break that stands alone between two characters that are not white space.
fn bounded_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let end = LONGEST_PIECE_BYTES.min(bytes.len() - 1);
    let solid = |byte: u8| byte.is_ascii_graphic();
    (PIECE_BYTES..end)
        .find(|&i| bytes[i - 1] == b'\n' && solid(bytes[i - 2]) && solid(bytes[i]))
        .unwrap_or_else(|| text.floor_char_boundary(LONGEST_PIECE_BYTES))
}

/// Behind a line break, or before a space and a letter, where the character before is not white space: the
/// first such place from the second character behind `from` on.
fn len_between_words(text: &str, from: usize) -> usize {
    let characters = Characters::new(text);
    let mut at = text.ceil_char_boundary(from);
    let mut solid = false;
    while let Some((class, len)) = characters.class(at) {
        let next = at + len;
        if solid {
            match (characters.byte(at), characters.class(next)) {
                (Some(b' '), Some((LETTER, _))) => return at,
                (Some(b'\n'), Some((class, _))) if class != SPACE => return next,
                _ => {}
            }
        }
        solid = class != SPACE;
        at = next;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::super::Pattern;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn no_word_reaches_across_a_cut(
            text in "([a-cé漢1.'’!\\PC]{1,3}[ \n\r\t\u{a0}\u{3000}]{0,3}){1,8}",
            from in 0usize..10,
        ) {
            let (before, after) = text.split_at(len_between_words(&text, from.min(text.len())));
            for pattern in Pattern::ALL {
                let cut: Vec<&str> = pattern.words(before).chain(pattern.words(after)).collect();
                prop_assert_eq!(pattern.words(&text).collect::<Vec<_>>(), cut);
            }
        }
    }

    #[test]
    fn text_is_cut_where_words_end() {
        for (text, len) in [
            ("ab cd", 2),
            ("ab\ncd", 3),
            ("ab  cd", 6),
            ("ab\n\ncd", 6),
            ("。\n漢", 4),
            ("ab 1", 4),
        ] {
            assert_eq!(len_between_words(text, 0), len, "{text:?}");
        }
    }
}
