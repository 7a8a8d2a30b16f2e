//! Sums over the words and lines of a document.

use super::c4::{Fate, Line, LineCounts, Phrases};
use super::settings::Thresholds;
use crate::words::{self, Word};

/// Sums over the words and lines of a document.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) words: u64,
    pub(super) non_symbol_words: u64,
    pub(super) unspaced_words: u64,
    pub(super) core_chars: u64,
    pub(super) word_chars: u64,
    pub(super) with_letter: u64,
    pub(super) hashes: u64,
    pub(super) ellipses: u64,
    /// Of scripts where three units make a word.
    pub(super) unspaced_of_three: u64,
    pub(super) stop_words: u32,
    /// Different words, where the language has stop words.
    pub(super) different_words: u64,
    /// Those of them in the script of the stop words.
    pub(super) words_of_script: u64,

    pub(super) lines: u64,
    pub(super) line_breaks: u64,
    pub(super) text_lines: u64,
    pub(super) bullet_lines: u64,
    pub(super) ellipsis_lines: u64,
    pub(super) punctuated_lines: u64,
    pub(super) short_lines: u64,
    pub(super) longest_line: u64,
    pub(super) duplicate_lines: u64,
    pub(super) duplicate_line_chars: u64,
    pub(super) c4: LineCounts,
    pub(super) c4_sentences: u64,
    pub(super) c4_lorem_ipsum_lines: u32,
    pub(super) c4_curly_bracket_lines: u32,

    pub(super) paragraphs: u64,
    pub(super) duplicate_paragraphs: u64,
    pub(super) duplicate_paragraph_chars: u64,
}

impl Sums {
    /// Adds a unit of a script without spaces.
    pub(super) fn add_unit(&mut self, text: &str, word: &Word) {
        self.unspaced_words += 1;
        let first = text.get(word.core_start..).and_then(|core| core.chars().next());
        let units = first.map_or(1, words::chars::units_per_word);
        self.unspaced_of_three += u64::from(units == 3);
    }

    /// How many units count as a word: 1 unless most words are units of scripts without spaces.
    pub(super) fn units_per_word(&self) -> u32 {
        if 2 * self.unspaced_words <= self.words {
            1
        } else if 2 * self.unspaced_of_three <= self.unspaced_words {
            2
        } else {
            3
        }
    }

    /// Adds what a word with punctuation, or beyond ASCII, tells.
    #[inline]
    pub(super) fn add_symbols(&mut self, text: &str, word: &Word) {
        let whole = text.get(word.start..word.end).unwrap_or_default();
        let mut dots = 0;
        for &byte in whole.as_bytes() {
            self.hashes += u64::from(byte == b'#');
            dots = if byte == b'.' { dots + 1 } else { 0 };
            if dots == 3 {
                self.ellipses += 1;
                dots = 0;
            }
        }
        if !whole.is_ascii() {
            self.ellipses += whole.matches('…').count() as u64;
        }
    }

    /// Adds a line that is not blank.
    pub(super) fn add_line(&mut self, line: &LineOfWords<'_>, phrases: Phrases, thresholds: &Thresholds) {
        let content = line.content();
        self.text_lines += 1;
        self.bullet_lines += u64::from(content.starts_with(is_bullet));
        self.ellipsis_lines += u64::from(content.ends_with("...") || content.ends_with('…'));
        self.punctuated_lines += u64::from(words::ends_sentence(content));
        let fate = line.for_c4(phrases).fate(&thresholds.c4);
        self.c4.add(fate);
        if fate == Fate::Kept {
            self.c4_sentences += u64::from(line.sentences.count());
            self.c4_lorem_ipsum_lines += u32::from(phrases.lorem_ipsum);
            self.c4_curly_bracket_lines += u32::from(content.contains('{'));
        }
    }
}

fn is_bullet(c: char) -> bool {
    matches!(
        c,
        '•' | '-'
            | '*'
            | '‣'
            | '⁃'
            | '◦'
            | '▪'
            | '▫'
            | '■'
            | '□'
            | '●'
            | '○'
            | '◆'
            | '◇'
            | '▶'
            | '►'
            | '·'
            | '・'
    )
}

/// What the words of a line tell about it.
pub(super) struct LineOfWords<'t> {
    text: &'t str,
    pub(super) words: u32,
    longest: u32,
    pub(super) start: usize,
    pub(super) end: usize,
    sentences: Sentences,
}

impl<'t> LineOfWords<'t> {
    /// A line of this text, of which no word was seen yet.
    pub(super) fn of(text: &'t str) -> Self {
        Self {
            text,
            words: 0,
            longest: 0,
            start: 0,
            end: 0,
            sentences: Sentences::default(),
        }
    }

    #[inline]
    pub(super) fn add(&mut self, word: &Word) {
        if self.words == 0 {
            self.start = word.start;
        }
        self.words += 1;
        self.longest = self.longest.max(word.chars);
        self.end = word.end;
        self.sentences.add(self.text, word);
    }

    /// The line without white space around it.
    pub(super) fn content(&self) -> &'t str {
        self.text.get(self.start..self.end).unwrap_or_default()
    }

    /// What C4 looks at.
    pub(super) fn for_c4(&self, phrases: Phrases) -> Line<'t> {
        Line {
            text: self.content(),
            words: self.words,
            longest_word: self.longest,
            phrases,
        }
    }
}

/// Ends of sentences.
#[derive(Default)]
struct Sentences {
    ended: u32,
    /// Whether words came since the last end.
    open: bool,
    /// Whether the last word ended in a full stop, which ends a sentence unless a small letter follows.
    stopped: bool,
}

impl Sentences {
    #[inline]
    fn add(&mut self, text: &str, word: &Word) {
        if self.stopped {
            let first = text
                .get(word.core_start..word.core_end)
                .and_then(|core| core.chars().next());
            if !first.is_some_and(char::is_lowercase) {
                self.ended += 1;
            }
            self.stopped = false;
        }
        self.open = true;
        if word.is_plain {
            return;
        }
        let whole = text.get(word.start..word.end).unwrap_or_default();
        let sentence = whole.trim_end_matches(words::is_closing);
        match sentence.chars().next_back() {
            Some('.') if sentence.ends_with("...") => {}
            Some('.') => self.stopped = word.core_chars != 1 || word.is_unspaced || !word.has_letter,
            Some(c) if words::is_unpunctuated(c) && !word.ends_segment => {}
            _ if words::ends_sentence(sentence) => self.end(),
            _ => {}
        }
    }

    fn end(&mut self) {
        self.ended += 1;
        self.open = false;
    }

    /// Sentences up to here; what is left open counts as one.
    fn count(&self) -> u32 {
        self.ended + u32::from(self.open)
    }
}
