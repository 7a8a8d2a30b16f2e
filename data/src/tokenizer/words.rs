//! Cuts text in words, as the regular expressions do that byte-level tokenizers are published with.
//!
//! A word is found in one pass over its characters: what the patterns' alternatives match is decided by the
//! class of one character and of the next.

use super::class::{Characters, LETTER, NUMBER, OTHER, SPACE};

/// GPT-2's (Radford et al., 2019), built into the `ByteLevel` step of `tokenizer.json`.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's, which is that of OpenAI's `cl100k_base`.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's: Llama 3's with each digit by itself.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How text is cut in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// GPT-2's.
    Gpt2,
    /// Llama 3's: contractions in any case, at most three digits, punctuation keeps the line breaks behind it.
    Llama3,
    /// Qwen 2's: Llama 3's with each digit by itself.
    Qwen2,
}

impl Pattern {
    /// All that are known.
    pub const ALL: [Self; 3] = [Self::Gpt2, Self::Llama3, Self::Qwen2];

    /// The regular expression.
    #[must_use]
    pub fn regex(self) -> &'static str {
        match self {
            Self::Gpt2 => GPT2,
            Self::Llama3 => LLAMA3,
            Self::Qwen2 => QWEN2,
        }
    }

    /// The words of a text, which put together are the text.
    pub fn words(self, text: &str) -> impl Iterator<Item = &str> {
        let characters = Characters::new(text);
        let mut at = 0;
        std::iter::from_fn(move || {
            let end = self.word_end(characters, at);
            let word = text.get(at..end).filter(|word| !word.is_empty());
            at = end;
            word
        })
    }

    /// Where the word ends that starts at `at`, or `at` at the end of the text.
    #[inline]
    pub(super) fn word_end(self, text: Characters<'_>, at: usize) -> usize {
        match self {
            Self::Gpt2 => gpt2(text, at),
            Self::Llama3 => llama3(text, at, 3),
            Self::Qwen2 => llama3(text, at, 1),
        }
    }
}

#[inline]
fn gpt2(text: Characters<'_>, at: usize) -> usize {
    let Some((class, len)) = text.class(at) else {
        return at;
    };
    match text.byte(at) {
        Some(b' ') => match text.class(at + 1) {
            Some((SPACE, _)) | None => spaces(text, at),
            Some((class, len)) => text.skip(at + 1 + len, class),
        },
        Some(b'\'') => contraction(text, at).unwrap_or_else(|| text.skip(at + 1, OTHER)),
        _ if class == SPACE => spaces(text, at),
        _ => text.skip(at + len, class),
    }
}

#[inline]
fn llama3(text: Characters<'_>, at: usize, digits: usize) -> usize {
    let Some((class, len)) = text.class(at) else {
        return at;
    };
    let line_break = |at| matches!(text.byte(at), Some(b'\r' | b'\n'));
    if class == LETTER {
        return text.skip(at + len, LETTER);
    }
    if class == NUMBER {
        return (0..digits).fold(at, |at, _| match text.class(at) {
            Some((NUMBER, len)) => at + len,
            _ => at,
        });
    }
    if let Some(end) = contraction_of_any_case(text, at) {
        return end;
    }
    if !line_break(at) && text.is(at + len, LETTER) {
        return text.skip(at + len, LETTER);
    }
    let space = usize::from(text.byte(at) == Some(b' '));
    if text.is(at + space, OTHER) {
        let mut end = text.skip(at + space, OTHER);
        while line_break(end) {
            end += 1;
        }
        return end;
    }
    let end = text.skip(at, SPACE);
    let run = text.bytes().get(at..end).unwrap_or_default();
    match run.iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(last) => at + last + 1,
        None => spaces(text, at),
    }
}

/// `\s+(?!\S)|\s+`: all white space at the end of a text, else all but its last character, which the next word
/// may begin with.
fn spaces(text: Characters<'_>, at: usize) -> usize {
    let (mut end, mut last) = (at, at);
    while let Some((SPACE, len)) = text.class(end) {
        last = end;
        end += len;
    }
    if end == text.bytes().len() || last == at {
        end
    } else {
        last
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(text: Characters<'_>, at: usize) -> Option<usize> {
    match text.bytes().get(at..)? {
        [b'\'', b's' | b't' | b'm' | b'd', ..] => Some(at + 2),
        [b'\'', b'r' | b'v', b'e', ..] | [b'\'', b'l', b'l', ..] => Some(at + 3),
        _ => None,
    }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`. U+017F is an s to Unicode's simple case folding.
fn contraction_of_any_case(text: Characters<'_>, at: usize) -> Option<usize> {
    match text.bytes().get(at..)? {
        [b'\'', b's' | b't' | b'm' | b'd' | b'S' | b'T' | b'M' | b'D', ..] => Some(at + 2),
        [b'\'', b'r' | b'R' | b'v' | b'V', b'e' | b'E', ..] => Some(at + 3),
        [b'\'', b'l' | b'L', b'l' | b'L', ..] => Some(at + 3),
        [b'\'', 0xc5, 0xbf, ..] => Some(at + 3),
        _ => None,
    }
}
