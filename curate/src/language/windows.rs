//! The parts of a document that are looked at.

/// The length of a window in bytes, about: it ends at the end of a line or word.
pub const BYTES: usize = 512;

/// The most windows that are looked at.
pub const MOST: usize = 12;

/// A line may end a window from this length on.
const LEAST_BYTES: usize = BYTES / 2;

/// The windows of `text` that are looked at: all of it if it is short, else [`MOST`], evenly spaced.
pub fn windows(text: &str) -> impl Iterator<Item = &str> {
    let is_short = text.len() <= MOST * BYTES;
    let mut at = 0;
    let mut number = 0;
    std::iter::from_fn(move || {
        if !is_short {
            if number == MOST {
                return None;
            }
            // No overflow: a text is at most isize::MAX long, and 128 bits are enough for its product.
            let even = (text.len() as u128 * number as u128 / MOST as u128) as usize;
            at = if number == 0 { 0 } else { start_near(text, even) };
            number += 1;
        }
        if at >= text.len() {
            return None;
        }
        let start = at;
        at = end_of(text, start);
        text.get(start..at)
    })
}

/// A place to begin at or after `at`: after the end of a line, else of a word, else between characters.
fn start_near(text: &str, at: usize) -> usize {
    let ahead = at..text.len().min(at + LEAST_BYTES);
    let bytes = text.as_bytes().get(ahead).unwrap_or_default();
    let line = memchr::memchr(b'\n', bytes);
    let end = line.or_else(|| bytes.iter().position(|byte| *byte == b' '));
    match end {
        Some(end) => at + end + 1,
        None => text.ceil_char_boundary(at),
    }
}

/// Where the window from `start` on ends.
fn end_of(text: &str, start: usize) -> usize {
    let most = text.len().min(start + BYTES);
    if text.len() - start <= BYTES + LEAST_BYTES / 2 {
        return text.len();
    }
    let least = start + LEAST_BYTES;
    let bytes = text.as_bytes().get(least..most).unwrap_or_default();
    let line = memchr::memchr(b'\n', bytes);
    let end = line.or_else(|| memchr::memrchr(b' ', bytes));
    match end {
        Some(end) => least + end + 1,
        None => text.floor_char_boundary(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_end_with_paragraphs() {
        let text = format!("{}\n{}\n{}", "a".repeat(300), "b".repeat(400), "c".repeat(500));
        let windows: Vec<_> = windows(&text).map(|window| &window[..1]).collect();
        assert_eq!(windows, ["a", "b", "c"]);
    }

    proptest! {
        #[test]
        fn a_short_text_is_looked_at_whole(text in "([a-zäあ \n]{0,200}){0,20}") {
            prop_assume!(text.len() <= MOST * BYTES);
            let all: String = windows(&text).collect();
            prop_assert_eq!(all, text);
        }

        #[test]
        fn of_a_long_text_a_bounded_part(piece in "[a-zäあ\u{1F600} \n]{1,40}", repeats in 200_usize..4000) {
            let text = piece.repeat(repeats);
            prop_assume!(text.len() > MOST * BYTES);
            let parts: Vec<&str> = windows(&text).collect();
            prop_assert!(parts.len() <= MOST && !parts.is_empty());
            prop_assert!(parts.iter().all(|part| part.len() <= BYTES + LEAST_BYTES));
        }
    }
}
