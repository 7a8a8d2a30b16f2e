//! Normalisation form C, a segment at a time, so that changes can be counted.
//!
//! Text may be cut before any starter that composes with nothing before it: what stands on either side is then
//! composed by itself (UAX #15, section 9.1, "Stable Code Points").

use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc, is_nfc_quick};

use super::Changes;

/// Whether text may be cut before `c`.
fn is_stable(c: char) -> bool {
    match c {
        // All starters that compose with nothing before them: the bulk of Latin, Cyrillic, Hangul, kana and Han text.
        '\0'..='\u{2FF}' | '\u{400}'..='\u{482}' | '\u{3041}'..='\u{3098}' | '\u{309B}'..='\u{30FF}' => true,
        '\u{4E00}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}' => true,
        _ => canonical_combining_class(c) == 0 && is_nfc_quick(std::iter::once(c)) == IsNormalized::Yes,
    }
}

/// `text` in form C; `None` if it is already.
pub(super) fn compose(text: &str, changes: &mut Changes) -> Option<String> {
    let mut out: Option<String> = None;
    let (mut start, mut copied, mut unstable) = (0, 0, false);
    let mut end_segment = |segment: &str, at: usize| {
        if is_nfc(segment) {
            return;
        }
        let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
        out.push_str(&text[copied..at]);
        out.extend(segment.nfc());
        copied = at + segment.len();
        changes.composed += 1;
    };
    for (i, c) in text.char_indices() {
        if is_stable(c) {
            if unstable {
                end_segment(&text[start..i], start);
            }
            (start, unstable) = (i, false);
        } else {
            unstable = true;
        }
    }
    if unstable {
        end_segment(&text[start..], start);
    }
    let mut out = out?;
    out.push_str(&text[copied..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The oracle is the crate's own composition of the whole text.
        #[test]
        fn segments_compose_as_the_whole_does(text in "([a-zÅéक़가각\u{1100}-\u{11FF}\u{300}-\u{345}\u{3099}かK\u{2126}\u{93C}\u{F900}]|\\PC){0,12}") {
            let mut changes = Changes::default();
            let composed = compose(&text, &mut changes);
            let whole: String = text.nfc().collect();
            prop_assert_eq!(composed.is_some(), whole != text);
            prop_assert_eq!(composed.as_deref().unwrap_or(&text), whole.as_str());
            prop_assert_eq!(changes.composed > 0, whole != text);
        }
    }

    #[test]
    fn the_short_list_of_stable_characters_is_right() {
        let all = ('\0'..='\u{10FFFF}').filter(|&c| is_stable(c));
        for c in all {
            assert_eq!(canonical_combining_class(c), 0, "{c:?}");
            assert_eq!(is_nfc_quick(std::iter::once(c)), IsNormalized::Yes, "{c:?}");
        }
    }
}
