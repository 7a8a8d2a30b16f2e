//! What is measured of a document.

use serde::{Deserialize, Serialize};

/// The scores of a document. Fractions are from 0 to 1 and 0 where there is nothing to divide by.
///
/// Words, lines and paragraphs are those of [`crate::words`]; characters are code points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Characters.
    pub chars: u32,
    /// Words, symbols too.
    pub words: u32,
    /// Words that have a core.
    pub non_symbol_words: u32,
    /// Words that are units of scripts without spaces.
    pub unspaced_words: u32,
    /// How many words of [`Scores::words`] count as one in n-grams, per word, and in Gopher's number of words: 1, or where
    /// most words are units of scripts without spaces, 2 (ideographs, kana, Tibetan) or 3 (Thai, Lao, Khmer, Burmese …).
    pub units_per_word: u32,
    /// Characters of all words: of the text without white space.
    pub word_chars: u32,
    /// Lines, blank ones too.
    pub lines: u32,
    /// Lines that are not blank.
    pub text_lines: u32,
    /// Paragraphs.
    pub paragraphs: u32,

    /// Mean length of the cores of words, in characters.
    pub mean_word_length: f32,
    /// Median length of words, in characters; lengths above 255 count as 255.
    pub median_word_length: f32,
    /// `#` per word.
    pub hashes_per_word: f32,
    /// `...` and `…` per word.
    pub ellipses_per_word: f32,
    /// Lines that begin with a bullet, of all lines.
    pub bullet_lines: f32,
    /// Lines that end in an ellipsis, of all lines.
    pub ellipsis_lines: f32,
    /// Words with a letter, of all words.
    pub words_with_letter: f32,
    /// Different stop words that occur; case matters.
    pub stop_words: u32,
    /// Stop words in the list of the language; 0 if there is none, or the text is in another script than the list, and then
    /// the rule does not apply.
    pub stop_words_listed: u32,

    /// Lines that repeat an earlier one, of lines that are not blank.
    pub duplicate_lines: f32,
    /// Their characters, of all characters.
    pub duplicate_line_chars: f32,
    /// Paragraphs that repeat an earlier one, of all.
    pub duplicate_paragraphs: f32,
    /// Their characters, of all characters.
    pub duplicate_paragraph_chars: f32,
    /// Characters in all occurrences of the most frequent pair of words, of the characters of words; at most 1. Without
    /// any repeat the first pair is the most frequent.
    pub top_2gram: f32,
    /// The same of 3 words.
    pub top_3gram: f32,
    /// The same of 4 words.
    pub top_4gram: f32,
    /// Characters of words in runs of 5 words that occurred before, of all characters; runs do not overlap. N-grams are
    /// those of the first 1,048,576 words.
    pub duplicate_5gram: f32,
    /// The same of 6 words.
    pub duplicate_6gram: f32,
    /// The same of 7 words.
    pub duplicate_7gram: f32,
    /// The same of 8 words.
    pub duplicate_8gram: f32,
    /// The same of 9 words.
    pub duplicate_9gram: f32,
    /// The same of 10 words.
    pub duplicate_10gram: f32,

    /// Sentences in the lines that C4 keeps.
    pub c4_sentences: u32,
    /// Lines that C4 keeps.
    pub c4_kept_lines: u32,
    /// Lines that C4 drops because a word is too long.
    pub c4_long_word_lines: u32,
    /// Lines that C4 drops because they do not end as a sentence does.
    pub c4_unterminated_lines: u32,
    /// Lines that C4 drops because they have too few words.
    pub c4_few_words_lines: u32,
    /// Lines that C4 drops because of `javascript`.
    pub c4_javascript_lines: u32,
    /// Lines that C4 drops because of a policy phrase.
    pub c4_policy_lines: u32,
    /// Kept lines with `lorem ipsum`.
    pub c4_lorem_ipsum_lines: u32,
    /// Kept lines with `{`.
    pub c4_curly_bracket_lines: u32,

    /// Lines that end in a terminal mark, of lines that are not blank.
    pub punctuated_lines: f32,
    /// Short lines, of lines that are not blank.
    pub short_lines: f32,
    /// Characters of lines that repeat an earlier one, of all characters but line breaks (FineWeb's).
    pub fineweb_duplicate_line_chars: f32,
    /// Line breaks per word.
    pub newlines_per_word: f32,

    /// Mean length of a line, in characters.
    pub mean_line_length: f32,
    /// Length of the longest line, in characters.
    pub longest_line: u32,
    /// Characters that are letters, of all.
    pub alphabetic: f32,
    /// Characters that are letters or digits, of all.
    pub alphanumeric: f32,
    /// Characters that are decimal digits of ASCII, of all.
    pub digits: f32,
    /// Characters that are white space of ASCII, of all.
    pub white_space: f32,
    /// Characters in encoded data, of all.
    pub encoded: f32,
    /// The longest run of encoded data, in characters.
    pub longest_encoded: u32,
    /// 1 if the first lines say that a program made the file.
    pub generated: u32,
}
