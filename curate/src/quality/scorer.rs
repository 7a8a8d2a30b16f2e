//! Measures documents.

use xxhash_rust::xxh3::xxh3_64;

use super::c4::{Phrasebook, Phrases};
use super::code::{Classes, Encoded, Marks};
use super::repetition::{MOST_WORDS, Repetition};
use super::rules::Rules;
use super::scores::Scores;
use super::stop_words::StopWords;
use super::sums::{LineOfWords, Sums};
use super::table::{Table, fingerprint};
use crate::words::{self, Word, Words};

/// Measures documents, one after the other; owns buffers, so that in the steady state nothing is allocated.
///
/// Scores do not depend on what was measured before. One document takes time in proportion to its length, and at most
/// some 200 MB of buffers, however long it is.
pub struct Scorer<'r> {
    pub(super) rules: &'r Rules,
    pub(super) phrasebook: Phrasebook,
    marks: Marks,
    pub(super) found: Vec<(usize, usize)>,
    repetition: Repetition,
    lines: Table,
    paragraphs: Table,
    /// Words by length, from 0 to 255.
    lengths: Vec<u32>,
    stop_words_seen: Vec<bool>,
}

/// Where a paragraph began, and its length so far.
#[derive(Clone, Copy)]
struct Paragraph {
    start: usize,
    end: usize,
    chars: u64,
}

impl<'r> Scorer<'r> {
    pub(crate) fn new(rules: &'r Rules) -> Self {
        Self {
            rules,
            phrasebook: Phrasebook::new(),
            marks: Marks::new(),
            found: Vec::new(),
            repetition: Repetition::default(),
            lines: Table::default(),
            paragraphs: Table::default(),
            lengths: vec![0; 256],
            stop_words_seen: Vec::new(),
        }
    }

    /// Measures a document. `language` is the ISO 639-3 code of its language, if it is known: it decides on stop words, and
    /// on the settings of C4's lines and FineWeb's short lines.
    pub fn score(&mut self, text: &str, language: Option<&str>) -> Scores {
        let rules = self.rules;
        let thresholds = rules.thresholds(language);
        let stop_words = rules.stop_words(language);
        let is_ascii = text.is_ascii();
        let chars = if is_ascii {
            text.len()
        } else {
            text.chars().count()
        } as u64;

        self.phrasebook.find(text, &mut self.found);
        self.repetition.reset(text.len());
        self.lines.reset(text.len() / 80);
        self.paragraphs.reset(text.len() / 400);
        self.lengths.fill(0);
        self.stop_words_seen.clear();
        self.stop_words_seen
            .resize(stop_words.map_or(0, StopWords::len), false);

        let mut sums = Sums::default();
        let mut phrases_done = 0;
        let mut paragraph: Option<Paragraph> = None;
        let mut chars_of_ngrams = chars;
        for (start, end) in lines(text) {
            sums.lines += 1;
            sums.line_breaks += u64::from(end < text.len());
            let mut line = LineOfWords::of(text);
            for word in Words::within(text, start, end) {
                line.add(&word);
                self.add_word(text, &word, stop_words, &mut sums);
                if sums.words == MOST_WORDS as u64 {
                    chars_of_ngrams = chars_between(text, 0, word.end, is_ascii);
                }
            }
            let line_chars = chars_between(text, start, end, is_ascii);
            sums.longest_line = sums.longest_line.max(line_chars);
            if line.words == 0 {
                if let Some(paragraph) = paragraph.take() {
                    self.end_paragraph(text, paragraph, &mut sums);
                }
                continue;
            }
            let phrases = Phrases::up_to(end, &self.found, &mut phrases_done);
            sums.add_line(&line, phrases, thresholds);
            let whole = text.get(start..end).unwrap_or_default();
            let short = u64::from(thresholds.fineweb.short_line_columns);
            let is_short = line_chars <= short && (is_ascii || columns(whole) <= short);
            sums.short_lines += u64::from(is_short);
            if !self.lines.insert(xxh3_64(whole.as_bytes())) {
                sums.duplicate_lines += 1;
                sums.duplicate_line_chars += line_chars;
            }
            paragraph = Some(match paragraph {
                None => Paragraph {
                    start,
                    end,
                    chars: line_chars,
                },
                Some(paragraph) => Paragraph {
                    end,
                    chars: paragraph.chars + 1 + line_chars,
                    ..paragraph
                },
            });
        }
        if let Some(paragraph) = paragraph {
            self.end_paragraph(text, paragraph, &mut sums);
        }
        let mut scores = self.scores(&sums, chars, chars_of_ngrams);
        if let Some(stop_words) = stop_words
            && 2 * sums.words_of_script >= sums.different_words
        {
            scores.stop_words = sums.stop_words + stop_words.count_anywhere(text);
            scores.stop_words_listed = stop_words.len() as u32;
        }
        self.score_code(text, chars, thresholds.code.generated_lines, &mut scores);
        scores
    }

    #[inline]
    fn add_word(&mut self, text: &str, word: &Word, stop_words: Option<&StopWords>, sums: &mut Sums) {
        let bytes = text.as_bytes();
        sums.words += 1;
        sums.word_chars += u64::from(word.chars);
        sums.core_chars += u64::from(word.core_chars);
        sums.non_symbol_words += u64::from(word.core_chars > 0);
        if word.is_unspaced {
            sums.add_unit(text, word);
        }
        sums.with_letter += u64::from(word.has_letter);
        if let Some(length) = self.lengths.get_mut(word.chars.min(255) as usize) {
            *length += 1;
        }
        let print = fingerprint(bytes, word.start, word.end);
        let is_new = self.repetition.is_full() || self.repetition.push(print, word.chars);
        if is_new
            && word.core_chars > 0
            && let Some(stop_words) = stop_words
        {
            let first = if word.is_plain {
                None
            } else {
                text.get(word.core_start..).and_then(|core| core.chars().next())
            };
            sums.different_words += 1;
            sums.words_of_script += u64::from(stop_words.has_script_of(first.unwrap_or('a')));
            let core = if word.is_plain {
                print
            } else {
                fingerprint(bytes, word.core_start, word.core_end)
            };
            if let Some(seen) = stop_words
                .find(core)
                .and_then(|at| self.stop_words_seen.get_mut(at))
            {
                sums.stop_words += u32::from(!*seen);
                *seen = true;
            }
        }
        if !word.is_plain {
            sums.add_symbols(text, word);
        }
    }

    fn end_paragraph(&mut self, text: &str, paragraph: Paragraph, sums: &mut Sums) {
        sums.paragraphs += 1;
        let bytes = text
            .as_bytes()
            .get(paragraph.start..paragraph.end)
            .unwrap_or_default();
        if !self.paragraphs.insert(xxh3_64(bytes)) {
            sums.duplicate_paragraphs += 1;
            sums.duplicate_paragraph_chars += paragraph.chars;
        }
    }

    fn scores(&mut self, sums: &Sums, chars: u64, chars_of_ngrams: u64) -> Scores {
        let units_per_word = sums.units_per_word();
        let words = sums.words as f64 / f64::from(units_per_word);
        let per_word = |count: u64| {
            if words == 0.0 {
                0.0
            } else {
                (count as f64 / words) as f32
            }
        };
        let repeated = self.repetition.finish(units_per_word as usize);
        let top = repeated.top.map(|top| fraction(top, repeated.all).min(1.0));
        let duplicate = repeated
            .duplicate
            .map(|duplicate| fraction(duplicate, chars_of_ngrams));
        Scores {
            chars: count(chars),
            words: count(sums.words),
            non_symbol_words: count(sums.non_symbol_words),
            unspaced_words: count(sums.unspaced_words),
            units_per_word,
            word_chars: count(sums.word_chars),
            lines: count(sums.lines),
            text_lines: count(sums.text_lines),
            paragraphs: count(sums.paragraphs),
            mean_word_length: fraction(sums.core_chars, sums.non_symbol_words),
            median_word_length: median(&self.lengths, sums.words),
            hashes_per_word: per_word(sums.hashes),
            ellipses_per_word: per_word(sums.ellipses),
            bullet_lines: fraction(sums.bullet_lines, sums.lines),
            ellipsis_lines: fraction(sums.ellipsis_lines, sums.lines),
            words_with_letter: fraction(sums.with_letter, sums.words),
            duplicate_lines: fraction(sums.duplicate_lines, sums.text_lines),
            duplicate_line_chars: fraction(sums.duplicate_line_chars, chars),
            duplicate_paragraphs: fraction(sums.duplicate_paragraphs, sums.paragraphs),
            duplicate_paragraph_chars: fraction(sums.duplicate_paragraph_chars, chars),
            top_2gram: top[0],
            top_3gram: top[1],
            top_4gram: top[2],
            duplicate_5gram: duplicate[0],
            duplicate_6gram: duplicate[1],
            duplicate_7gram: duplicate[2],
            duplicate_8gram: duplicate[3],
            duplicate_9gram: duplicate[4],
            duplicate_10gram: duplicate[5],
            c4_sentences: count(sums.c4_sentences),
            c4_kept_lines: sums.c4.kept,
            c4_long_word_lines: sums.c4.long_word,
            c4_unterminated_lines: sums.c4.unterminated,
            c4_few_words_lines: sums.c4.few_words,
            c4_javascript_lines: sums.c4.javascript,
            c4_policy_lines: sums.c4.policy,
            c4_lorem_ipsum_lines: sums.c4_lorem_ipsum_lines,
            c4_curly_bracket_lines: sums.c4_curly_bracket_lines,
            punctuated_lines: fraction(sums.punctuated_lines, sums.text_lines),
            short_lines: fraction(sums.short_lines, sums.text_lines),
            fineweb_duplicate_line_chars: fraction(sums.duplicate_line_chars, chars - sums.line_breaks),
            newlines_per_word: per_word(sums.line_breaks),
            mean_line_length: fraction(chars - sums.line_breaks, sums.lines),
            longest_line: count(sums.longest_line),
            ..Scores::default()
        }
    }

    /// What code is judged by.
    fn score_code(&self, text: &str, chars: u64, generated_lines: u32, scores: &mut Scores) {
        let classes = Classes::of(text);
        let encoded = Encoded::of(text);
        scores.alphabetic = fraction(classes.letters as u64, chars);
        scores.alphanumeric = fraction((classes.letters + classes.numeric) as u64, chars);
        scores.digits = fraction(classes.digits as u64, chars);
        scores.white_space = fraction(classes.white_space as u64, chars);
        scores.encoded = fraction(encoded.bytes as u64, chars).min(1.0);
        scores.longest_encoded = count(encoded.longest as u64);
        scores.generated = u32::from(self.marks.found(text, generated_lines));
    }
}

/// Where lines begin and end; as with `str::lines`, nothing follows the last `\n`.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.as_bytes().get(at..).filter(|rest| !rest.is_empty())?;
        let end = memchr::memchr(b'\n', rest).map_or(text.len(), |length| at + length);
        let line = (at, end);
        at = end + 1;
        Some(line)
    })
}

fn chars_between(text: &str, start: usize, end: usize, is_ascii: bool) -> u64 {
    if is_ascii {
        return (end - start) as u64;
    }
    text.get(start..end).map_or(0, |between| between.chars().count()) as u64
}

fn columns(text: &str) -> u64 {
    text.chars().map(|c| u64::from(words::columns(c))).sum()
}

fn count(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn fraction(part: u64, whole: u64) -> f32 {
    if whole == 0 {
        return 0.0;
    }
    (part as f64 / whole as f64) as f32
}

/// The median of lengths that are counted by length.
fn median(lengths: &[u32], total: u64) -> f32 {
    let Some(last) = total.checked_sub(1) else {
        return 0.0;
    };
    let at = |rank: u64| {
        let mut below = 0;
        lengths.iter().position(|&count| {
            below += u64::from(count);
            below > rank
        })
    };
    let middle = [at(last / 2), at(total / 2)].map(|length| length.unwrap_or(0) as f32);
    (middle[0] + middle[1]) / 2.0
}
