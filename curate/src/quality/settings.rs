//! Thresholds, as the spec's tables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The kind of documents that a group of rules judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// No document: the group is switched off.
    None,
    /// Documents that are not source code.
    Prose,
    /// Source code.
    Code,
    /// Every document.
    All,
}

impl Kind {
    /// Whether documents of this kind are meant.
    #[must_use]
    pub fn includes(self, is_code: bool) -> bool {
        match self {
            Self::None => false,
            Self::Prose => !is_code,
            Self::Code => is_code,
            Self::All => true,
        }
    }
}

/// Gopher's quality rules (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1), as in datatrove 0.10.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GopherQuality {
    /// Which documents.
    pub on: Kind,
    /// Least number of words that are not mere symbols.
    pub min_words: u32,
    /// Greatest number of them.
    pub max_words: u32,
    /// Least mean length of a word, in characters.
    pub min_mean_word_length: f32,
    /// Greatest mean length of a word, in characters.
    pub max_mean_word_length: f32,
    /// Greatest number of `#` per word.
    pub max_hashes_per_word: f32,
    /// Greatest number of ellipses per word.
    pub max_ellipses_per_word: f32,
    /// Greatest fraction of lines that begin with a bullet.
    pub max_bullet_lines: f32,
    /// Greatest fraction of lines that end in an ellipsis.
    pub max_ellipsis_lines: f32,
    /// Least fraction of words with a letter.
    pub min_words_with_letter: f32,
    /// Least number of different stop words, where the language has a list.
    pub min_stop_words: u32,
}

impl Default for GopherQuality {
    fn default() -> Self {
        Self {
            on: Kind::Prose,
            min_words: 50,
            max_words: 100_000,
            min_mean_word_length: 3.0,
            max_mean_word_length: 10.0,
            max_hashes_per_word: 0.1,
            max_ellipses_per_word: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_words_with_letter: 0.8,
            min_stop_words: 2,
        }
    }
}

/// Gopher's repetition rules (table A1 of the same paper): greatest fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GopherRepetition {
    /// Which documents.
    pub on: Kind,
    /// Lines that repeat an earlier one, of all lines.
    pub max_duplicate_lines: f32,
    /// Paragraphs that repeat an earlier one, of all paragraphs.
    pub max_duplicate_paragraphs: f32,
    /// Their characters, of all.
    pub max_duplicate_line_chars: f32,
    /// Their characters, of all.
    pub max_duplicate_paragraph_chars: f32,
    /// Characters in the most frequent pair of words.
    pub max_top_2gram: f32,
    /// Characters in the most frequent 3 words.
    pub max_top_3gram: f32,
    /// Characters in the most frequent 4 words.
    pub max_top_4gram: f32,
    /// Characters in repeats of 5 words.
    pub max_duplicate_5gram: f32,
    /// Characters in repeats of 6 words.
    pub max_duplicate_6gram: f32,
    /// Characters in repeats of 7 words.
    pub max_duplicate_7gram: f32,
    /// Characters in repeats of 8 words.
    pub max_duplicate_8gram: f32,
    /// Characters in repeats of 9 words.
    pub max_duplicate_9gram: f32,
    /// Characters in repeats of 10 words.
    pub max_duplicate_10gram: f32,
}

impl Default for GopherRepetition {
    fn default() -> Self {
        Self {
            on: Kind::Prose,
            max_duplicate_lines: 0.30,
            max_duplicate_paragraphs: 0.30,
            max_duplicate_line_chars: 0.20,
            max_duplicate_paragraph_chars: 0.20,
            max_top_2gram: 0.20,
            max_top_3gram: 0.18,
            max_top_4gram: 0.16,
            max_duplicate_5gram: 0.15,
            max_duplicate_6gram: 0.14,
            max_duplicate_7gram: 0.13,
            max_duplicate_8gram: 0.12,
            max_duplicate_9gram: 0.11,
            max_duplicate_10gram: 0.10,
        }
    }
}

/// C4's rules (Raffel et al. 2020, section 2.2), as in datatrove 0.10: which lines are worth keeping, and whether enough
/// of them are left. Lines are only dropped by [`super::Scorer::clean`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct C4 {
    /// Which documents.
    pub on: Kind,
    /// Least number of sentences in lines worth keeping.
    pub min_sentences: u32,
    /// Least number of words of a line.
    pub min_words_per_line: u32,
    /// Greatest length of a word of a line, in characters.
    pub max_word_length: u32,
    /// Whether a line must end in a terminal mark or a closing quote, and not in `...`.
    pub terminal_punctuation: bool,
    /// Whether lines with `javascript` go.
    pub drop_javascript: bool,
    /// Whether lines with a phrase of policies and cookie notices go (English phrases).
    pub drop_policy: bool,
    /// Whether documents with `lorem ipsum` go.
    pub drop_lorem_ipsum: bool,
    /// Whether documents with `{` go.
    pub drop_curly_brackets: bool,
    /// Whether `[1]`, `[edit]` and `[citation needed]` are taken out of lines.
    pub remove_citations: bool,
}

impl Default for C4 {
    fn default() -> Self {
        Self {
            on: Kind::Prose,
            min_sentences: 5,
            min_words_per_line: 3,
            max_word_length: 1000,
            terminal_punctuation: true,
            drop_javascript: true,
            drop_policy: true,
            drop_lorem_ipsum: true,
            drop_curly_brackets: true,
            remove_citations: true,
        }
    }
}

/// FineWeb's rules (Penedo et al. 2024, arXiv 2406.17557, section 3.6), as in datatrove 0.10.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FineWeb {
    /// Which documents.
    pub on: Kind,
    /// Least fraction of lines that end in a terminal mark.
    pub min_lines_with_punctuation: f32,
    /// Greatest fraction of short lines.
    pub max_short_lines: f32,
    /// Columns that a short line has at most.
    pub short_line_columns: u32,
    /// Greatest fraction of characters in lines that repeat an earlier one.
    pub max_duplicate_line_chars: f32,
    /// Greatest number of line breaks per word.
    pub max_newlines_per_word: f32,
}

impl Default for FineWeb {
    fn default() -> Self {
        Self {
            on: Kind::Prose,
            min_lines_with_punctuation: 0.12,
            max_short_lines: 0.67,
            short_line_columns: 30,
            max_duplicate_line_chars: 0.01,
            max_newlines_per_word: 0.3,
        }
    }
}

/// Rules for source code: those of StarCoder 2 (Lozhkov et al. 2024, arXiv 2402.19173, section 4), which extend Codex's
/// (Chen et al. 2021, arXiv 2107.03374, section 3.1), unless noted.
///
/// StarCoder 2 excepts markup and data languages from the lengths of lines; a source of such files sets them higher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Code {
    /// Which documents.
    pub on: Kind,
    /// Greatest number of lines.
    pub max_lines: u32,
    /// Greatest mean length of a line, in characters (Codex: 100).
    pub max_mean_line_length: f32,
    /// Greatest length of a line, in characters (Codex: 1000).
    pub max_line_length: u32,
    /// Least fraction of characters that are letters.
    pub min_alphabetic: f32,
    /// Greatest fraction of characters that are digits. Ours: tables of numbers.
    pub max_digits: f32,
    /// Least fraction of characters that are white space. Ours: minified sources have next to none.
    pub min_white_space: f32,
    /// Greatest fraction of characters in base64, lists of hexadecimal bytes, or `\u` escapes.
    pub max_encoded: f32,
    /// Greatest length of one such run, in characters.
    pub max_encoded_run: u32,
    /// Whether files go that say, in their first lines, that a program made them.
    pub drop_generated: bool,
    /// How many lines are the first.
    pub generated_lines: u32,
}

impl Default for Code {
    fn default() -> Self {
        Self {
            on: Kind::Code,
            max_lines: 100_000,
            max_mean_line_length: 100.0,
            max_line_length: 1000,
            min_alphabetic: 0.25,
            max_digits: 0.5,
            min_white_space: 0.05,
            max_encoded: 0.5,
            max_encoded_run: 1024,
            drop_generated: true,
            generated_lines: 5,
        }
    }
}

/// The thresholds of all groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Gopher's quality rules.
    pub gopher_quality: GopherQuality,
    /// Gopher's repetition rules.
    pub gopher_repetition: GopherRepetition,
    /// C4's rules.
    pub c4: C4,
    /// FineWeb's rules.
    pub fineweb: FineWeb,
    /// Rules for source code.
    pub code: Code,
}

/// The spec's table of quality.
///
/// ```
/// let settings: lockstep_curate::quality::Settings = toml::from_str(
///     r#"
///     [gopher_quality]
///     min_words = 30
///     [fineweb]
///     on = "none"
///     [stop_words]
///     gle = ["an", "na", "agus", "ar", "go", "le", "is", "sé"]
///     [languages.fin.gopher_quality]
///     max_mean_word_length = 12.0
///     "#,
/// )?;
/// settings.check()?;
/// assert_eq!(settings.thresholds("fin")?.gopher_quality.min_words, 30);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether documents that are kept lose the lines that C4 drops, and their citations; source code never does. Scores
    /// are those of the text before. Default: false.
    pub clean_lines: bool,
    /// Gopher's quality rules.
    pub gopher_quality: GopherQuality,
    /// Gopher's repetition rules.
    pub gopher_repetition: GopherRepetition,
    /// C4's rules.
    pub c4: C4,
    /// FineWeb's rules.
    pub fineweb: FineWeb,
    /// Rules for source code.
    pub code: Code,
    /// Stop words by ISO 639-3 code, in place of the built-in list; an empty list switches the rule off for that language.
    pub stop_words: BTreeMap<String, Vec<String>>,
    /// What differs for a language, by ISO 639-3 code: the same tables, of which only what differs needs to be there.
    pub languages: BTreeMap<String, toml::Table>,
}

/// Bounds of the mean word length that differ by default: of languages whose translation of the Universal Declaration of
/// Human Rights comes nearer than a tenth to Gopher's bounds, which are made for English, or is beyond them.
const WORD_LENGTHS: &[(&str, f32, f32)] = &[
    ("ada", 2.0, 10.0),
    ("bci", 2.0, 10.0),
    ("bvi", 2.0, 10.0),
    ("chj", 2.0, 10.0),
    ("cic", 3.0, 12.0),
    ("cni", 3.0, 12.0),
    ("cot", 3.0, 14.0),
    ("cpu", 3.0, 14.0),
    ("fon", 2.0, 10.0),
    ("haw", 2.0, 10.0),
    ("ike", 3.0, 12.0),
    ("kal", 3.0, 18.0),
    ("kor", 2.0, 10.0),
    ("lns", 2.0, 10.0),
    ("mal", 3.0, 14.0),
    ("mfq", 2.0, 10.0),
    ("ote", 2.0, 10.0),
    ("san", 3.0, 12.0),
    ("tam", 3.0, 14.0),
    ("tiv", 2.0, 10.0),
    ("vai", 1.0, 10.0),
];

impl Settings {
    /// The thresholds for a language: the general ones, the built-in differences, and those of [`Settings::languages`].
    ///
    /// # Errors
    /// If the table of the language has a field that there is none of, or a value of another type.
    pub fn thresholds(&self, language: &str) -> Result<Thresholds, String> {
        let mut general = self.general();
        if let Some((_, shortest, longest)) = WORD_LENGTHS.iter().find(|(code, ..)| *code == language) {
            let (gopher, default) = (&mut general.gopher_quality, GopherQuality::default());
            // Bounds that the spec sets are for every language that it does not name.
            if gopher.min_mean_word_length == default.min_mean_word_length {
                gopher.min_mean_word_length = *shortest;
            }
            if gopher.max_mean_word_length == default.max_mean_word_length {
                gopher.max_mean_word_length = *longest;
            }
        }
        let Some(differs) = self.languages.get(language) else {
            return Ok(general);
        };
        let failed = |error: &dyn std::fmt::Display| format!("languages.{language}: {error}");
        let mut merged = toml::Table::try_from(&general).map_err(|error| failed(&error))?;
        merge(&mut merged, differs);
        merged.try_into().map_err(|error| failed(&error))
    }

    /// The thresholds of languages that none are set for.
    #[must_use]
    pub fn general(&self) -> Thresholds {
        Thresholds {
            gopher_quality: self.gopher_quality.clone(),
            gopher_repetition: self.gopher_repetition.clone(),
            c4: self.c4.clone(),
            fineweb: self.fineweb.clone(),
            code: self.code.clone(),
        }
    }

    /// Checks every value against its bounds.
    ///
    /// # Errors
    /// Names the first field that is out of its bounds, its value and the bound.
    pub fn check(&self) -> Result<(), String> {
        self.general().check()?;
        for language in self.languages.keys() {
            let thresholds = self.thresholds(language)?;
            let named = |error| format!("languages.{language}: {error}");
            thresholds.check().map_err(named)?;
        }
        for (language, words) in &self.stop_words {
            let blank = |word: &&String| word.is_empty() || word.contains(char::is_whitespace);
            if let Some(word) = words.iter().find(blank) {
                return Err(format!("stop_words.{language}: {word:?} is not one word"));
            }
        }
        Ok(())
    }

    /// Languages with thresholds of their own, given or built in.
    pub(crate) fn languages_that_differ(&self) -> impl Iterator<Item = &str> {
        let built_in = WORD_LENGTHS.iter().map(|(code, ..)| *code);
        self.languages.keys().map(String::as_str).chain(built_in)
    }
}

impl Thresholds {
    fn check(&self) -> Result<(), String> {
        let (gopher, c4, fineweb, code) = (&self.gopher_quality, &self.c4, &self.fineweb, &self.code);
        let repetition = &self.gopher_repetition;
        let fractions = [
            ("gopher_quality.max_bullet_lines", gopher.max_bullet_lines),
            ("gopher_quality.max_ellipsis_lines", gopher.max_ellipsis_lines),
            (
                "gopher_quality.min_words_with_letter",
                gopher.min_words_with_letter,
            ),
            (
                "gopher_repetition.max_duplicate_lines",
                repetition.max_duplicate_lines,
            ),
            (
                "gopher_repetition.max_duplicate_paragraphs",
                repetition.max_duplicate_paragraphs,
            ),
            (
                "gopher_repetition.max_duplicate_line_chars",
                repetition.max_duplicate_line_chars,
            ),
            (
                "gopher_repetition.max_duplicate_paragraph_chars",
                repetition.max_duplicate_paragraph_chars,
            ),
            ("gopher_repetition.max_top_2gram", repetition.max_top_2gram),
            ("gopher_repetition.max_top_3gram", repetition.max_top_3gram),
            ("gopher_repetition.max_top_4gram", repetition.max_top_4gram),
            (
                "gopher_repetition.max_duplicate_5gram",
                repetition.max_duplicate_5gram,
            ),
            (
                "gopher_repetition.max_duplicate_6gram",
                repetition.max_duplicate_6gram,
            ),
            (
                "gopher_repetition.max_duplicate_7gram",
                repetition.max_duplicate_7gram,
            ),
            (
                "gopher_repetition.max_duplicate_8gram",
                repetition.max_duplicate_8gram,
            ),
            (
                "gopher_repetition.max_duplicate_9gram",
                repetition.max_duplicate_9gram,
            ),
            (
                "gopher_repetition.max_duplicate_10gram",
                repetition.max_duplicate_10gram,
            ),
            (
                "fineweb.min_lines_with_punctuation",
                fineweb.min_lines_with_punctuation,
            ),
            ("fineweb.max_short_lines", fineweb.max_short_lines),
            (
                "fineweb.max_duplicate_line_chars",
                fineweb.max_duplicate_line_chars,
            ),
            ("code.min_alphabetic", code.min_alphabetic),
            ("code.max_digits", code.max_digits),
            ("code.min_white_space", code.min_white_space),
            ("code.max_encoded", code.max_encoded),
        ];
        if let Some((field, value)) = fractions.iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return Err(format!("{field} is {value}, but a fraction is from 0 to 1"));
        }
        let positive = [
            ("gopher_quality.min_mean_word_length", gopher.min_mean_word_length),
            ("gopher_quality.max_mean_word_length", gopher.max_mean_word_length),
            ("gopher_quality.max_hashes_per_word", gopher.max_hashes_per_word),
            (
                "gopher_quality.max_ellipses_per_word",
                gopher.max_ellipses_per_word,
            ),
            ("fineweb.max_newlines_per_word", fineweb.max_newlines_per_word),
            ("code.max_mean_line_length", code.max_mean_line_length),
            ("c4.max_word_length", c4.max_word_length as f32),
        ];
        if let Some((field, value)) = positive
            .iter()
            .find(|(_, value)| !(value.is_finite() && *value >= 0.0))
        {
            return Err(format!("{field} is {value}, but must be 0 or more"));
        }
        if gopher.min_words > gopher.max_words {
            return Err(format!(
                "gopher_quality.min_words is {}, above max_words, {}",
                gopher.min_words, gopher.max_words
            ));
        }
        if gopher.min_mean_word_length > gopher.max_mean_word_length {
            return Err(format!(
                "gopher_quality.min_mean_word_length is {}, above max_mean_word_length, {}",
                gopher.min_mean_word_length, gopher.max_mean_word_length
            ));
        }
        Ok(())
    }
}

/// Puts what differs into a table, table by table.
fn merge(general: &mut toml::Table, differs: &toml::Table) {
    for (field, value) in differs {
        match (general.get_mut(field), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            _ => {
                general.insert(field.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn defaults_pass_their_check_and_survive_toml() {
        let settings = Settings::default();
        settings.check().unwrap();
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(read(&text), settings);
        assert!(text.contains("max_duplicate_7gram = 0.13\n"), "{text}");
    }

    #[test]
    fn errors_name_field_value_and_bound() {
        for (text, error) in [
            (
                "[fineweb]\nmax_short_lines = 1.5",
                "fineweb.max_short_lines is 1.5, but a fraction is from 0 to 1",
            ),
            (
                "[gopher_quality]\nmin_words = 9\nmax_words = 8",
                "gopher_quality.min_words is 9, above max_words, 8",
            ),
            (
                "[languages.deu.code]\nmin_alphabetic = -0.5",
                "languages.deu: code.min_alphabetic is -0.5, but a fraction is from 0 to 1",
            ),
            (
                "[code]\nmax_mean_line_length = nan",
                "code.max_mean_line_length is NaN, but must be 0 or more",
            ),
            (
                "[stop_words]\ndeu = [\"der die\"]",
                "stop_words.deu: \"der die\" is not one word",
            ),
        ] {
            assert_eq!(read(text).check().unwrap_err(), error);
        }
        let unknown = read("[languages.deu.c4]\nmin_sentence = 3").check().unwrap_err();
        assert!(
            unknown.starts_with("languages.deu: unknown field `min_sentence`"),
            "{unknown}"
        );
    }

    #[test]
    fn a_language_differs_only_where_it_says_so() {
        let settings =
            read("[c4]\nmin_sentences = 4\n[languages.deu.gopher_quality]\nmax_mean_word_length = 12");
        let german = settings.thresholds("deu").unwrap();
        assert_eq!(german.gopher_quality.max_mean_word_length, 12.0);
        assert_eq!(german.c4.min_sentences, 4);
        assert_eq!(settings.thresholds("fra").unwrap(), settings.general());
    }
}
