//! Words in lower case, as lexicons have them.

use unicode_normalization::char::is_combining_mark;

/// The longest word that a lexicon may have, in bytes.
pub(super) const WORD_BYTES: usize = 64;

/// Calls `f` for each word of `text`, in order, with the word in lower case, or `None` for one longer than
/// [`WORD_BYTES`]. A word is a run of letters, digits and combining marks: in scripts without spaces, a whole clause.
pub(super) fn lower_words(text: &str, mut f: impl FnMut(Option<&str>)) {
    let mut word = String::with_capacity(2 * WORD_BYTES);
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            if word.len() <= WORD_BYTES {
                word.push(c.to_ascii_lowercase());
            }
        } else if !c.is_ascii() && (c.is_alphanumeric() || is_combining_mark(c)) {
            if word.len() <= WORD_BYTES {
                word.extend(c.to_lowercase());
            }
        } else if !word.is_empty() {
            f((word.len() <= WORD_BYTES).then_some(&word));
            word.clear();
        }
    }
    if !word.is_empty() {
        f((word.len() <= WORD_BYTES).then_some(&word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_in_lower_case() {
        let mut words = Vec::new();
        let text = format!("She's “ÉCOLE”, नमस्ते\t{} x2", "a".repeat(65));
        lower_words(&text, |word| words.push(word.map(str::to_owned)));
        let words: Vec<_> = words.iter().map(Option::as_deref).collect();
        assert_eq!(
            words,
            [
                Some("she"),
                Some("s"),
                Some("école"),
                Some("नमस्ते"),
                None,
                Some("x2")
            ]
        );
    }
}
