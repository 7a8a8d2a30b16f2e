//! Which lines C4 keeps.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, BuildError};
use serde::{Deserialize, Serialize};

use super::scorer::{Scorer, lines};
use super::settings::C4;
use super::sums::LineOfWords;
use crate::words::{Words, ends_sentence, is_closing_quote};

/// What is looked for in the lower-cased text; those from the third on are C4's policy phrases.
const PHRASES: &[&str] = &[
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
];

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    LongWord,
    Unterminated,
    FewWords,
    Javascript,
    Policy,
}

/// Phrases of a text or line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Phrases {
    pub(crate) lorem_ipsum: bool,
    pub(crate) javascript: bool,
    pub(crate) policy: bool,
}

/// How many lines C4 kept, dropped and altered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCounts {
    /// Lines that were kept, altered or not.
    pub kept: u32,
    /// Lines dropped because they are blank.
    pub blank: u32,
    /// Lines dropped because a word is too long.
    pub long_word: u32,
    /// Lines dropped because they do not end as a sentence does.
    pub unterminated: u32,
    /// Lines dropped because they have too few words.
    pub few_words: u32,
    /// Lines dropped because of `javascript`.
    pub javascript: u32,
    /// Lines dropped because of a policy phrase.
    pub policy: u32,
    /// Citations taken out of kept lines.
    pub citations: u32,
    /// Kept lines that lost white space at an end.
    pub trimmed: u32,
}

impl LineCounts {
    /// Lines dropped for any reason.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        self.blank + self.long_word + self.unterminated + self.few_words + self.javascript + self.policy
    }

    /// What was altered, by name: how many times.
    #[must_use]
    pub fn changes(&self) -> [(&'static str, u64); 8] {
        [
            ("blank_lines", self.blank),
            ("long_word_lines", self.long_word),
            ("unterminated_lines", self.unterminated),
            ("few_words_lines", self.few_words),
            ("javascript_lines", self.javascript),
            ("policy_lines", self.policy),
            ("citations", self.citations),
            ("trimmed_lines", self.trimmed),
        ]
        .map(|(name, count)| (name, u64::from(count)))
    }

    pub(crate) fn add(&mut self, fate: Fate) {
        *match fate {
            Fate::Kept => &mut self.kept,
            Fate::LongWord => &mut self.long_word,
            Fate::Unterminated => &mut self.unterminated,
            Fate::FewWords => &mut self.few_words,
            Fate::Javascript => &mut self.javascript,
            Fate::Policy => &mut self.policy,
        } += 1;
    }
}

/// A text of which C4 kept lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned<'a> {
    /// The lines that were kept; the text itself if nothing was altered.
    pub text: Cow<'a, str>,
    /// What was done.
    pub lines: LineCounts,
}

/// Finds the phrases.
#[derive(Debug)]
pub(crate) struct Phrasebook(Option<AhoCorasick>);

impl Phrasebook {
    pub(crate) fn new() -> Self {
        let built: Result<_, BuildError> = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(PHRASES);
        // Eight short phrases are far from any limit of the builder.
        debug_assert!(built.is_ok());
        Self(built.ok())
    }

    /// Where phrases begin, in order, and which.
    pub(crate) fn find(&self, text: &str, found: &mut Vec<(usize, usize)>) {
        found.clear();
        if let Some(phrases) = &self.0 {
            found.extend(
                phrases
                    .find_iter(text)
                    .map(|found| (found.start(), found.pattern().as_usize())),
            );
        }
    }
}

impl Phrases {
    /// Those of what was found that begin before `end`; `done` of them belong to lines before.
    pub(crate) fn up_to(end: usize, found: &[(usize, usize)], done: &mut usize) -> Self {
        let mut phrases = Self::default();
        while let Some(&(at, phrase)) = found.get(*done)
            && at < end
        {
            phrases.add(phrase);
            *done += 1;
        }
        phrases
    }

    fn add(&mut self, phrase: usize) {
        match phrase {
            0 => self.lorem_ipsum = true,
            1 => self.javascript = true,
            _ => self.policy = true,
        }
    }
}

/// What a line is, for C4: `text` without white space around it.
pub(crate) struct Line<'a> {
    pub(crate) text: &'a str,
    pub(crate) words: u32,
    pub(crate) longest_word: u32,
    pub(crate) phrases: Phrases,
}

impl Line<'_> {
    /// Whether the line is kept, or why not.
    #[inline]
    pub(crate) fn fate(&self, settings: &C4) -> Fate {
        if self.longest_word > settings.max_word_length {
            Fate::LongWord
        } else if settings.terminal_punctuation && !self.ends_as_a_sentence(settings) {
            Fate::Unterminated
        } else if self.words < settings.min_words_per_line {
            Fate::FewWords
        } else if settings.drop_javascript && self.phrases.javascript {
            Fate::Javascript
        } else if settings.drop_policy && self.phrases.policy {
            Fate::Policy
        } else {
            Fate::Kept
        }
    }

    fn ends_as_a_sentence(&self, settings: &C4) -> bool {
        let text = if settings.remove_citations && self.text.ends_with(']') {
            without_citations_at_end(self.text)
        } else {
            self.text
        };
        text.ends_with(is_closing_quote) || (ends_sentence(text) && !text.ends_with("..."))
    }
}

/// The line without citations at its end, nor white space before them.
fn without_citations_at_end(mut text: &str) -> &str {
    while let Some(open) = text.rfind('[') {
        if citation_length(text.get(open..).unwrap_or_default()) != Some(text.len() - open) {
            break;
        }
        text = text.get(..open).unwrap_or_default().trim_end();
    }
    text
}

/// The length of the citation that a text begins with, if it begins with one: `[12]`, `[]`, `[edit]`, `[citation needed]`.
fn citation_length(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('[')?;
    let digits = inside.bytes().take_while(u8::is_ascii_digit).count();
    if inside.as_bytes().get(digits) == Some(&b']') {
        return Some(digits + 2);
    }
    let named = ["edit]", "citation needed]"];
    named
        .iter()
        .find(|name| inside.starts_with(**name))
        .map(|name| name.len() + 1)
}

/// Appends a line without its citations; returns how many it had.
pub(crate) fn push_without_citations(text: &str, out: &mut String) -> u32 {
    let mut citations = 0;
    let mut rest = text;
    while let Some(open) = memchr::memchr(b'[', rest.as_bytes()) {
        let (before, tail) = rest.split_at(open);
        out.push_str(before);
        if let Some(length) = citation_length(tail) {
            citations += 1;
            rest = tail.get(length..).unwrap_or_default();
        } else {
            out.push('[');
            rest = tail.get(1..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    citations
}

impl Scorer<'_> {
    /// C4's step that alters documents: keeps the lines worth keeping, without white space around them and without
    /// citations, and tells what it did. [`Scores::c4_kept_lines`](super::Scores::c4_kept_lines) and the counts of dropped lines foretell it.
    pub fn clean<'t>(&mut self, text: &'t str, language: Option<&str>) -> Cleaned<'t> {
        let settings = &self.rules.thresholds(language).c4;
        self.phrasebook.find(text, &mut self.found);
        let mut counts = LineCounts::default();
        let mut cleaned = String::with_capacity(text.len());
        let mut phrases_done = 0;
        for (start, end) in lines(text) {
            let mut line = LineOfWords::of(text);
            Words::within(text, start, end).for_each(|word| line.add(&word));
            if line.words == 0 {
                counts.blank += 1;
                continue;
            }
            let phrases = Phrases::up_to(end, &self.found, &mut phrases_done);
            let content = line.content();
            let fate = line.for_c4(phrases).fate(settings);
            counts.add(fate);
            if fate != Fate::Kept {
                continue;
            }
            counts.trimmed += u32::from((line.start, line.end) != (start, end));
            if !cleaned.is_empty() {
                cleaned.push('\n');
            }
            if settings.remove_citations {
                counts.citations += push_without_citations(content, &mut cleaned);
            } else {
                cleaned.push_str(content);
            }
        }
        let unaltered = counts.dropped() + counts.citations + counts.trimmed == 0;
        Cleaned {
            text: if unaltered {
                Cow::Borrowed(text)
            } else {
                Cow::Owned(cleaned)
            },
            lines: counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(text: &str) -> Fate {
        let mut phrases = Phrases::default();
        let mut found = Vec::new();
        Phrasebook::new().find(text, &mut found);
        for (_, phrase) in found {
            phrases.add(phrase);
        }
        let words = text.split_whitespace();
        Line {
            text,
            words: words.clone().count() as u32,
            longest_word: words.map(|word| word.chars().count() as u32).max().unwrap_or(0),
            phrases,
        }
        .fate(&C4::default())
    }

    #[test]
    fn lines_are_kept_or_dropped_for_a_reason() {
        for (text, expected) in [
            ("This is kept.", Fate::Kept),
            ("\"So is this\"", Fate::Kept),
            ("»Auch dies hier«", Fate::Kept),
            ("Wikipedia says so.[1][23] [citation needed]", Fate::Kept),
            ("यह भी ठीक है।", Fate::Kept),
            ("Not a sentence", Fate::Unterminated),
            ("It goes on...", Fate::Unterminated),
            ("Read more.", Fate::FewWords),
            ("Please enable JavaScript now.", Fate::Javascript),
            ("We Use Cookies to track you.", Fate::Policy),
            ("Read the terms of use.", Fate::Policy),
            ("An array[0]", Fate::Unterminated),
        ] {
            assert_eq!(fate(text), expected, "{text}");
        }
        assert_eq!(
            fate(&format!("A long {} word.", "x".repeat(1001))),
            Fate::LongWord
        );
        assert_eq!(fate(&format!("A long {} word.", "x".repeat(1000))), Fate::Kept);
    }

    #[test]
    fn citations_are_taken_out() {
        let mut out = String::new();
        assert_eq!(push_without_citations("a[1] b[edit], c[] d[x] [", &mut out), 3);
        assert_eq!(out, "a b, c d[x] [");
    }
}
