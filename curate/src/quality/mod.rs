//! Gopher, C4, FineWeb and code: scores, and the thresholds that drop.
//!
//! A [`Scorer`] measures a document once, whatever becomes of it: [`Scores`]. [`Rules`] judge the scores by
//! [`Settings`]: the first rule that fails names the reason ([`Rules::verdict`]), and all that fail can be listed
//! ([`Rules::failures`]). C4 also alters documents: [`Scorer::clean`] does, as a step of its own, and counts what it did.
//!
//! # Definitions
//! Thresholds are those of datatrove 0.10 where it has them, and so are definitions, on words as [`crate::words`] defines
//! them. Where two sources define a score differently, or none fits every language:
//!
//! | score | as in | difference |
//! |---|---|---|
//! | words, median word length, top n-grams | dolma | a top n-gram's overlapping occurrences can add up to more than the text: at most 1 here |
//! | duplicate n-grams, lines, paragraphs | datatrove | characters of repeats, not of the first occurrence, over characters of the text |
//! | top n-grams | dolma, not datatrove | over characters of words; datatrove counts spaces on both sides of the fraction |
//! | words | dolma | datatrove's tokenizer makes words of punctuation marks and of `n't`: a tenth to a fifth more in prose, so that what is counted per word is lower there, and so is the fraction of words with a letter |
//! | word length, stop words | datatrove | on cores, words without the punctuation around them |
//! | lines that repeat, FineWeb's lines | datatrove | blank lines never count; datatrove counts those of white space in one of two rules |
//! | ends of lines | datatrove | white space behind the end is ignored; datatrove's FineWeb does not |
//! | bullets | both | `•`, `-` (datatrove), `*` (dolma), and the geometric bullets of other scripts |
//! | short lines | datatrove | in columns: an ideograph takes two, since it says as much as two letters and more |
//! | closing quotes in C4 | datatrove | `"` and `'`, and the closing quotes of other languages |
//!
//! # Languages
//! A rule that makes no sense for a language is not applied to it, rather than every document in it dropped: no stop words
//! without a list ([`Scores::stop_words_listed`] is 0), no word length in scripts without spaces, no terminal marks in Thai
//! and Lao. Where a script has no spaces, n-grams and numbers of words take two or three of its units for a word
//! ([`Scores::units_per_word`]). [`Settings::languages`] sets thresholds for a language.
//!
//! # Collisions
//! Words, lines and paragraphs are compared by 64-bit fingerprints: in a document of a million words, two that differ
//! are taken for the same with a probability below 1e-7. N-grams are compared exactly, given their words.

mod c4;
mod code;
mod repetition;
mod rules;
mod scorer;
mod scores;
mod settings;
mod stop_words;
mod sums;
mod table;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod reference;

pub use c4::{Cleaned, LineCounts};
pub use rules::{Group, Reason, Rule, Rules, Scale, rules};
pub use scorer::Scorer;
pub use scores::Scores;
pub use settings::{C4, Code, FineWeb, GopherQuality, GopherRepetition, Kind, Settings, Thresholds};
pub use stop_words::{STOP_WORDS, stop_words_of};
