//! Which rules a document fails.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::scorer::Scorer;
use super::scores::Scores;
use super::settings::{Settings, Thresholds};
use super::stop_words::{StopWords, stop_words_of};

/// A group of rules, which can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Gopher's quality rules.
    GopherQuality,
    /// Gopher's repetition rules.
    GopherRepetition,
    /// C4's rules.
    C4,
    /// FineWeb's rules.
    FineWeb,
    /// Rules for source code.
    Code,
}

/// A rule: a score and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name in reports, such as `gopher.words`.
    pub code: &'static str,
    /// The group that it belongs to.
    pub group: Group,
    /// What it measures.
    what: &'static str,
    /// The score, unless the rule does not apply to the document.
    value: fn(&Scores) -> Option<f64>,
    least: Option<fn(&Thresholds) -> f64>,
    greatest: Option<fn(&Thresholds) -> f64>,
    /// What its values are.
    pub scale: Scale,
}

/// What the values of a rule are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Shares, from 0 to 1, or ratios that are seldom more.
    Share,
    /// Whole numbers, or means of lengths.
    Count,
}

/// Why a document is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The rule.
    pub code: &'static str,
    /// What it measures, the value and the bound.
    pub detail: String,
}

const fn most(
    code: &'static str,
    group: Group,
    what: &'static str,
    value: fn(&Scores) -> Option<f64>,
    greatest: fn(&Thresholds) -> f64,
) -> Rule {
    Rule {
        code,
        group,
        what,
        value,
        least: None,
        greatest: Some(greatest),
        scale: Scale::Share,
    }
}

const fn least(
    code: &'static str,
    group: Group,
    what: &'static str,
    value: fn(&Scores) -> Option<f64>,
    least: fn(&Thresholds) -> f64,
) -> Rule {
    Rule {
        code,
        group,
        what,
        value,
        least: Some(least),
        greatest: None,
        scale: Scale::Share,
    }
}

/// A rule whose values are no shares.
const fn counting(rule: Rule) -> Rule {
    Rule {
        scale: Scale::Count,
        ..rule
    }
}

/// 0 where a switch drops what is counted, infinity where it does not.
fn none_if(drops: bool) -> f64 {
    if drops { 0.0 } else { f64::INFINITY }
}

macro_rules! fraction {
    ($field:ident) => {
        |scores| Some(f64::from(scores.$field))
    };
}
macro_rules! bound {
    ($group:ident . $field:ident) => {
        |thresholds| f64::from(thresholds.$group.$field)
    };
}

use Group::{C4, Code, FineWeb, GopherQuality as Quality, GopherRepetition as Repetition};

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule {
        code: "gopher.words",
        group: Quality,
        what: "words",
        value: |scores| Some(f64::from(scores.non_symbol_words) / f64::from(scores.units_per_word.max(1))),
        least: Some(bound!(gopher_quality.min_words)),
        greatest: Some(bound!(gopher_quality.max_words)),
        scale: Scale::Count,
    },
    Rule {
        code: "gopher.word_length",
        group: Quality,
        what: "mean word length",
        value: |scores| (scores.units_per_word <= 1 && scores.non_symbol_words > 0).then(|| f64::from(scores.mean_word_length)),
        least: Some(bound!(gopher_quality.min_mean_word_length)),
        greatest: Some(bound!(gopher_quality.max_mean_word_length)),
        scale: Scale::Count,
    },
    most("gopher.hashes", Quality, "# per word", fraction!(hashes_per_word), bound!(gopher_quality.max_hashes_per_word)),
    most("gopher.ellipses", Quality, "ellipses per word", fraction!(ellipses_per_word), bound!(gopher_quality.max_ellipses_per_word)),
    most("gopher.bullets", Quality, "lines that begin with a bullet", fraction!(bullet_lines), bound!(gopher_quality.max_bullet_lines)),
    most("gopher.ellipsis_lines", Quality, "lines that end in an ellipsis", fraction!(ellipsis_lines), bound!(gopher_quality.max_ellipsis_lines)),
    least("gopher.letters", Quality, "words with a letter", fraction!(words_with_letter), bound!(gopher_quality.min_words_with_letter)),
    counting(least("gopher.stop_words", Quality, "different stop words",
        |scores| (scores.stop_words_listed > 0).then(|| f64::from(scores.stop_words)),
        bound!(gopher_quality.min_stop_words))),

    most("gopher.duplicate_paragraphs", Repetition, "repeated paragraphs", fraction!(duplicate_paragraphs), bound!(gopher_repetition.max_duplicate_paragraphs)),
    most("gopher.duplicate_paragraph_chars", Repetition, "characters in repeated paragraphs", fraction!(duplicate_paragraph_chars), bound!(gopher_repetition.max_duplicate_paragraph_chars)),
    most("gopher.duplicate_lines", Repetition, "repeated lines", fraction!(duplicate_lines), bound!(gopher_repetition.max_duplicate_lines)),
    most("gopher.duplicate_line_chars", Repetition, "characters in repeated lines", fraction!(duplicate_line_chars), bound!(gopher_repetition.max_duplicate_line_chars)),
    most("gopher.top_2gram", Repetition, "characters in the most frequent 2 words", fraction!(top_2gram), bound!(gopher_repetition.max_top_2gram)),
    most("gopher.top_3gram", Repetition, "characters in the most frequent 3 words", fraction!(top_3gram), bound!(gopher_repetition.max_top_3gram)),
    most("gopher.top_4gram", Repetition, "characters in the most frequent 4 words", fraction!(top_4gram), bound!(gopher_repetition.max_top_4gram)),
    most("gopher.duplicate_5gram", Repetition, "characters in repeats of 5 words", fraction!(duplicate_5gram), bound!(gopher_repetition.max_duplicate_5gram)),
    most("gopher.duplicate_6gram", Repetition, "characters in repeats of 6 words", fraction!(duplicate_6gram), bound!(gopher_repetition.max_duplicate_6gram)),
    most("gopher.duplicate_7gram", Repetition, "characters in repeats of 7 words", fraction!(duplicate_7gram), bound!(gopher_repetition.max_duplicate_7gram)),
    most("gopher.duplicate_8gram", Repetition, "characters in repeats of 8 words", fraction!(duplicate_8gram), bound!(gopher_repetition.max_duplicate_8gram)),
    most("gopher.duplicate_9gram", Repetition, "characters in repeats of 9 words", fraction!(duplicate_9gram), bound!(gopher_repetition.max_duplicate_9gram)),
    most("gopher.duplicate_10gram", Repetition, "characters in repeats of 10 words", fraction!(duplicate_10gram), bound!(gopher_repetition.max_duplicate_10gram)),

    counting(most("c4.lorem_ipsum", C4, "lines with lorem ipsum", fraction!(c4_lorem_ipsum_lines), |thresholds| none_if(thresholds.c4.drop_lorem_ipsum))),
    counting(most("c4.curly_brackets", C4, "lines with {", fraction!(c4_curly_bracket_lines), |thresholds| none_if(thresholds.c4.drop_curly_brackets))),
    counting(least("c4.sentences", C4, "sentences in lines worth keeping", fraction!(c4_sentences), bound!(c4.min_sentences))),

    least("fineweb.punctuation", FineWeb, "lines that end in a terminal mark", fraction!(punctuated_lines), bound!(fineweb.min_lines_with_punctuation)),
    most("fineweb.short_lines", FineWeb, "short lines", fraction!(short_lines), bound!(fineweb.max_short_lines)),
    most("fineweb.duplicate_line_chars", FineWeb, "characters in repeated lines", fraction!(fineweb_duplicate_line_chars), bound!(fineweb.max_duplicate_line_chars)),
    most("fineweb.newlines", FineWeb, "line breaks per word", fraction!(newlines_per_word), bound!(fineweb.max_newlines_per_word)),

    counting(most("code.generated", Code, "marks of a generated file", fraction!(generated), |thresholds| none_if(thresholds.code.drop_generated))),
    counting(most("code.lines", Code, "lines", fraction!(lines), bound!(code.max_lines))),
    counting(most("code.mean_line_length", Code, "mean line length", fraction!(mean_line_length), bound!(code.max_mean_line_length))),
    counting(most("code.longest_line", Code, "longest line", fraction!(longest_line), bound!(code.max_line_length))),
    least("code.alphabetic", Code, "letters", fraction!(alphabetic), bound!(code.min_alphabetic)),
    most("code.digits", Code, "digits", fraction!(digits), bound!(code.max_digits)),
    least("code.minified", Code, "white space", fraction!(white_space), bound!(code.min_white_space)),
    most("code.encoded", Code, "characters in encoded data", fraction!(encoded), bound!(code.max_encoded)),
    counting(most("code.longest_encoded", Code, "longest run of encoded data", fraction!(longest_encoded), bound!(code.max_encoded_run))),
];

/// All rules, in the order in which they judge.
#[must_use]
pub fn rules() -> &'static [Rule] {
    RULES
}

impl Rule {
    /// The score that it judges, unless it does not apply to the document.
    #[must_use]
    pub fn value(&self, scores: &Scores) -> Option<f64> {
        (self.value)(scores)
    }

    fn judge(&self, scores: &Scores, thresholds: &Thresholds) -> Option<Reason> {
        let value = self.value(scores)?;
        let wanted = match (self.least, self.greatest) {
            (Some(least), _) if value < least(thresholds) => ("at least", least(thresholds)),
            (_, Some(greatest)) if value > greatest(thresholds) => ("at most", greatest(thresholds)),
            _ => return None,
        };
        let (which, bound) = wanted;
        Some(Reason {
            code: self.code,
            // As `f32`, which scores and bounds are, so that 0.3 reads so.
            detail: format!("{}: {}, {which} {} wanted", self.what, value as f32, bound as f32),
        })
    }
}

/// Settings that were checked, ready to judge.
#[derive(Debug)]
pub struct Rules {
    general: Thresholds,
    languages: BTreeMap<String, Thresholds>,
    stop_words: BTreeMap<String, StopWords>,
}

impl Rules {
    /// Checks the settings and prepares them.
    ///
    /// # Errors
    /// If a value is out of its bounds: names field, value and bound.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        settings.check()?;
        let mut languages = BTreeMap::new();
        for language in settings.languages_that_differ() {
            languages.insert(language.to_owned(), settings.thresholds(language)?);
        }
        let built_in = super::stop_words::STOP_WORDS
            .iter()
            .map(|(language, _)| *language);
        let mut stop_words = BTreeMap::new();
        for language in built_in.chain(settings.stop_words.keys().map(String::as_str)) {
            let words = match settings.stop_words.get(language) {
                Some(words) => StopWords::new(language, words.iter().map(String::as_str)),
                None => StopWords::new(language, stop_words_of(language).iter().copied()),
            };
            stop_words.insert(language.to_owned(), words);
        }
        Ok(Self {
            general: settings.general(),
            languages,
            stop_words,
        })
    }

    /// Something that measures documents by these settings; one a thread.
    #[must_use]
    pub fn scorer(&self) -> Scorer<'_> {
        Scorer::new(self)
    }

    /// The first rule that a document fails, if it fails any.
    ///
    /// `language` is the ISO 639-3 code of its language, if it is known.
    #[must_use]
    pub fn verdict(&self, scores: &Scores, language: Option<&str>, is_code: bool) -> Option<Reason> {
        self.failures(scores, language, is_code).next()
    }

    /// All rules that a document fails, in the order of [`rules`].
    pub fn failures<'a>(
        &'a self,
        scores: &'a Scores,
        language: Option<&str>,
        is_code: bool,
    ) -> impl Iterator<Item = Reason> + use<'a> {
        let thresholds = self.thresholds(language);
        let judge = move |rule: &Rule| rule.judge(scores, thresholds);
        self.applying(language, is_code).filter_map(judge)
    }

    /// The rules that look at a document of this language and kind, in order.
    pub fn applying<'a>(
        &'a self,
        language: Option<&str>,
        is_code: bool,
    ) -> impl Iterator<Item = &'static Rule> + use<'a> {
        let thresholds = self.thresholds(language);
        RULES
            .iter()
            .filter(move |rule| thresholds.applies(rule.group, is_code))
    }

    /// The thresholds for a language.
    #[must_use]
    pub fn thresholds(&self, language: Option<&str>) -> &Thresholds {
        language
            .and_then(|language| self.languages.get(language))
            .unwrap_or(&self.general)
    }

    pub(crate) fn stop_words(&self, language: Option<&str>) -> Option<&StopWords> {
        self.stop_words.get(language?)
    }
}

impl Thresholds {
    fn applies(&self, group: Group, is_code: bool) -> bool {
        let on = match group {
            Quality => self.gopher_quality.on,
            Repetition => self.gopher_repetition.on,
            C4 => self.c4.on,
            FineWeb => self.fineweb.on,
            Code => self.code.on,
        };
        on.includes(is_code)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn rules_of(text: &str) -> Rules {
        Rules::new(&toml::from_str(text).unwrap()).unwrap()
    }

    fn codes(rules: &Rules, text: &str, language: Option<&str>, is_code: bool) -> Vec<&'static str> {
        let scores = rules.scorer().score(text, language);
        rules
            .failures(&scores, language, is_code)
            .map(|reason| reason.code)
            .collect()
    }

    #[test]
    fn codes_are_different_and_begin_with_their_source() {
        let codes: BTreeSet<&str> = rules().iter().map(|rule| rule.code).collect();
        assert_eq!(codes.len(), rules().len());
        assert!(rules().windows(2).all(|pair| pair[0].group <= pair[1].group));
        for rule in rules() {
            let source = match rule.group {
                Quality | Repetition => "gopher.",
                C4 => "c4.",
                FineWeb => "fineweb.",
                Code => "code.",
            };
            assert!(rule.code.starts_with(source), "{}", rule.code);
        }
    }

    #[test]
    fn the_first_rule_that_fails_is_the_reason() {
        let rules = rules_of("");
        let scores = rules.scorer().score("Too short.", Some("eng"));
        let reason = rules.verdict(&scores, Some("eng"), false).unwrap();
        assert_eq!(reason.code, "gopher.words");
        assert_eq!(reason.detail, "words: 2, at least 50 wanted");
        assert!(rules.failures(&scores, Some("eng"), false).count() > 1);
        assert_eq!(rules.failures(&scores, Some("eng"), false).next(), Some(reason));
    }

    #[test]
    fn groups_are_for_prose_or_code_and_can_be_switched_off() {
        let code = "fn main() {\n    println!(\"hello\");\n}\n";
        assert_eq!(codes(&rules_of(""), code, None, true), [""; 0]);
        assert!(codes(&rules_of(""), code, None, false).contains(&"gopher.words"));
        let off =
            "gopher_quality.on = 'none'\ngopher_repetition.on = 'none'\nc4.on = 'none'\nfineweb.on = 'none'";
        assert_eq!(codes(&rules_of(off), code, None, false), [""; 0]);
        let generated = format!("// @generated\n{code}");
        assert_eq!(codes(&rules_of(""), &generated, None, true), ["code.generated"]);
        assert_eq!(
            codes(&rules_of("code.drop_generated = false"), &generated, None, true),
            [""; 0]
        );
        let minified = "a=b;".repeat(400);
        assert_eq!(
            codes(&rules_of(""), &minified, None, true),
            ["code.mean_line_length", "code.longest_line", "code.minified"]
        );
    }

    #[test]
    fn a_value_at_its_bound_passes() {
        let rules = rules_of("");
        let mut scores = Scores {
            duplicate_lines: (3.0_f64 / 10.0) as f32,
            punctuated_lines: (12.0_f64 / 100.0) as f32,
            ..Scores::default()
        };
        let at_bound: Vec<_> = rules
            .failures(&scores, None, false)
            .map(|reason| reason.code)
            .collect();
        assert!(!at_bound.contains(&"gopher.duplicate_lines") && !at_bound.contains(&"fineweb.punctuation"));
        scores.duplicate_lines = 0.300_001;
        assert!(
            rules
                .failures(&scores, None, false)
                .any(|reason| reason.code == "gopher.duplicate_lines")
        );
    }

    #[test]
    fn stop_words_are_those_of_the_language_and_its_script() {
        let rules = rules_of("[stop_words]\ngle = ['agus', 'an']\nfra = []");
        let mut scorer = rules.scorer();
        let mut of = |text: &str, language| {
            let scores = scorer.score(text, language);
            (scores.stop_words, scores.stop_words_listed)
        };
        assert_eq!(of("der Hund und die Katze, und", Some("deu")), (3, 12));
        assert_eq!(of("der Hund und die Katze", Some("eng")), (0, 8));
        assert_eq!(of("der Hund und die Katze", None), (0, 0));
        assert_eq!(of("le chat et la souris", Some("fra")), (0, 0));
        assert_eq!(of("an cat agus an madra", Some("gle")), (2, 2));
        assert_eq!(of("我的猫是在这里", Some("cmn")).0, 4);
        assert_eq!(of("吾輩は猫である。名前はまだ無い。", Some("jpn")).0, 2);
        // Turkmen has a list in Latin letters, which says nothing of Turkmen in Cyrillic ones.
        assert_eq!(of("Әхли адамлар өз мертебеси", Some("tuk")), (0, 0));
    }

    #[test]
    fn rules_that_make_no_sense_for_a_language_do_not_apply() {
        let rules = rules_of("");
        let thai = "มนุษย์ทั้งหลายเกิดมามีอิสระ และเสมอภาคกันในศักดิ์ศรี และสิทธิ ต่างมีเหตุผล และมโนธรรม\n".repeat(2);
        let failed = codes(&rules, &thai, Some("tha"), false);
        assert!(
            !failed.contains(&"gopher.word_length") && !failed.contains(&"fineweb.punctuation"),
            "{failed:?}"
        );
        assert!(!failed.contains(&"c4.sentences"), "{failed:?}");
        let malayalam = rules.thresholds(Some("mal")).gopher_quality.max_mean_word_length;
        assert!(malayalam > rules.thresholds(None).gopher_quality.max_mean_word_length);
    }
}
